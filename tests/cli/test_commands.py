"""The command line as a person meets it: a process, its output, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.eventually import eventually
from upbit_backbone import Candle, InvalidRequestError, Timeframe, cli
from upbit_backbone.clock import ShiftedClock
from upbit_backbone.simulator.command import simulate
from upbit_backbone.simulator.server import Simulator

MODULE = "upbit_backbone.cli"
START = f"from {MODULE} import main; main()"


async def run(
    *arguments: str, data_dir: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the command to its end."""
    settings = {"UPBIT_BACKBONE_DATA_DIR": str(data_dir), "COLUMNS": "120"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", START, *arguments,
        env={**os.environ, **settings, **(environment or {})},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def in_process(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Result:
    """Run the command here: quicker than a process, and as true for what it prints."""
    monkeypatch.setenv("UPBIT_BACKBONE_DATA_DIR", str(folder))
    return CliRunner().invoke(cli.app, list(arguments))


async def test_candles_prints_as_many_as_asked_and_says_they_are_simulated(tmp_path: Path) -> None:
    code, out, err = await run(
        "candles", "KRW-BTC", "1m", "--count", "5", "--exchange", "simulator", data_dir=tmp_path
    )
    assert (code, err) == (0, "")
    assert "SIMULATED" in out
    assert sum("forming" in line or "closed" in line for line in out.splitlines()) == 5


def test_a_table_names_the_zone_of_its_times_and_the_units_of_its_amounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = in_process(
        monkeypatch, tmp_path, "candles", "KRW-XRP", "1h", "--exchange", "simulator",
        "--from", "2025-09-02T00:00Z", "--to", "2025-09-02T02:00Z",
    )  # fmt: skip
    assert told.exit_code == 0
    for heading in ("open time (KST)", "volume (XRP)", "value (KRW)"):
        assert heading in told.stdout
    assert "2025-09-02 09:00:00" in told.stdout
    assert "2025-09-02 10:00:00" in told.stdout


def test_csv_and_json_carry_the_same_fields_and_times_with_their_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (
        "candles", "KRW-XRP", "1h", "--from", "2025-09-02T00:00Z", "--to", "2025-09-02T05:00Z",
        "--exchange", "simulator", "--format",
    )  # fmt: skip
    as_csv, as_json = (
        in_process(monkeypatch, tmp_path, *asked, form).stdout for form in ("csv", "json")
    )
    rows: list[dict[str, Any]] = json.loads(as_json)
    assert [row["open_time"] for row in rows] == [
        f"2025-09-02T0{hour}:00:00+00:00" for hour in range(5)
    ]
    assert list(rows[0]) == [*Candle.__struct_fields__, "simulated"]
    assert (rows[0]["symbol"], rows[0]["timeframe"], rows[0]["state"]) == (
        "KRW-XRP", "1h", "closed",
    )  # fmt: skip
    assert all(row["high"] >= row["low"] > 0 < row["value"] for row in rows)
    written = [
        {name: str(value).lower() if isinstance(value, bool) else str(value)
         for name, value in row.items()}
        for row in rows
    ]  # fmt: skip
    assert list(csv.DictReader(io.StringIO(as_csv))) == written
    assert written[0]["filled"] == "false"


@pytest.mark.parametrize("timeframe", ["1s", "1w", "1M", "1y"])
async def test_the_odd_timeframes_come_by_count_and_by_range_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeframe: str
) -> None:
    clock = ShiftedClock(1_764_720_000_000)  # 2025-12-03
    starts = {"1s": "2025-12-02T23:59:00Z", "1w": "2025-11-03T00:00:00Z",
              "1M": "2025-09-01T00:00:00Z", "1y": "2023-01-01T00:00:00Z"}  # fmt: skip
    parsed = Timeframe.parse(timeframe)
    async with Simulator(clock=clock) as simulator:
        asked = ("candles", "KRW-BTC", timeframe, "--rest-url", simulator.rest_url,
                 "--ws-url", simulator.ws_url, "--format")  # fmt: skip
        by_count = ("--count", "3", "--to", "2025-12-02T23:59:30Z")
        by_range = ("--from", starts[timeframe], "--to", "2025-12-02T23:59:30Z")
        for limits in (by_count, by_range):
            told = {
                form: await asyncio.to_thread(
                    in_process, monkeypatch, tmp_path, *asked, form, *limits
                )
                for form in ("table", "csv", "json")
            }
            assert [result.exit_code for result in told.values()] == [0, 0, 0], told
            rows = json.loads(told["json"].stdout)
            assert len(rows) == 3 if limits is by_count else len(rows) >= 3
            opens = [int(datetime.fromisoformat(row["open_time"]).timestamp()) * 1_000
                     for row in rows]  # fmt: skip
            assert opens == sorted({parsed.floor_ms(at) for at in opens})
            assert len(told["csv"].stdout.splitlines()) == len(rows) + 1
            table = told["table"].stdout
            assert sum(line.rstrip().endswith(("closed", "forming"))
                       for line in table.splitlines()) == len(rows)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["KRW-BTX", "1m"], "KRW-BTC"),
        (["KRW-BTC", "7m"], "unknown timeframe '7m'"),
        (["KRW-BTC", "1m", "--count", "0"], "--count must be a whole number from 1 up, was 0"),
        (["KRW-BTC", "1m", "--from", "tomorrow"], "--from must be a time such as"),
        (["KRW-BTC", "1m", "--from", "2099-01-01T00:00Z"], "--from 2099-01-01 00:00:00+00:00 lies"),
        (
            ["KRW-BTC", "1m", "--from", "2025-09-02T00:00Z", "--to", "2025-09-01T00:00Z"],
            "--from must lie before --to",
        ),
        (
            ["KRW-BTC", "1m", "--from", "2025-09-01", "--to", "2025-09-02", "--count", "3"],
            "--from, --to and --count were all given: give at most two of the three",
        ),
    ],
)
def test_bad_input_is_answered_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    told = in_process(monkeypatch, tmp_path, "candles", *arguments, "--exchange", "simulator")
    assert (told.exit_code, told.stdout) == (2, "")
    assert sentence in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["candles", "KRW-BTC", "1m", "--count", "abc"],
            "--count must be a whole number, was 'abc'",
        ),
        (["candles", "KRW-BTC", "1m", "--format", "xml"], "must be table, csv or json, was 'xml'"),
        (["candles", "KRW-BTC"], "Missing argument 'timeframe'"),
        (["candles", "KRW-BTC", "1m", "--conut", "5"], "No such option: --conut"),
        (["candels"], "No such command 'candels'"),
        (["simulate", "--port", "http"], "--port must be a whole number, was 'http'"),
        (["simulate", "--port", "70000"], "--port must be 0 (any free port) to 65535, was 70000"),
        (["replay", "x", "--port", "-1"], "--port must be 0 (any free port) to 65535, was -1"),
        (["simulate", "--seed", "1.5"], "--seed must be a whole number, was '1.5'"),
        (["simulate", "--rate", "fast"], "--rate must be a number, was 'fast'"),
        (["replay", "x", "--speed", "nan"], "--speed must be a number, was 'nan'"),
        (["record", "x", "--seconds", "a while"], "--seconds must be a number, was 'a while'"),
    ],
)
def test_a_flag_that_cannot_be_read_is_told_in_one_line(
    arguments: list[str], sentence: str
) -> None:
    told = CliRunner().invoke(cli.app, arguments)
    assert (told.exit_code, told.stdout) == (2, "")
    assert sentence in told.stderr
    assert "--help" in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


def test_without_a_command_there_is_help() -> None:
    told = CliRunner().invoke(cli.app, [])
    assert told.exit_code == 2
    for command in ("backfill", "candles", "simulate", "record", "replay"):
        assert command in told.output


NOWHERE = ("--rest-url", "http://127.0.0.1:9/v1", "--ws-url", "ws://127.0.0.1:9/websocket/v1")


@pytest.mark.parametrize(
    ("flags", "variables", "sentence"),
    [
        (NOWHERE[:2], {}, "--rest-url and --ws-url belong together"),
        (NOWHERE[2:], {"REST_URL": NOWHERE[1]}, "--rest-url and --ws-url belong together"),
        (("--rest-url", "http://127.0.0.1:9", *NOWHERE[2:]), {}, "--rest-url must end in /v1, as"),
        (("--rest-url", "nowhere", *NOWHERE[2:]), {}, "--rest-url must be an address such as"),
        ((*NOWHERE, "--exchange", "simulator"), {}, "--exchange was 'simulator', which starts"),
        (("--exchange", "binance"), {}, "--exchange must be 'upbit' or 'simulator'"),
        (
            (),
            {"EXCHANGE": "simulator", "REST_URL": NOWHERE[1], "WS_URL": NOWHERE[3]},
            "leave UPBIT_BACKBONE_REST_URL and UPBIT_BACKBONE_WS_URL out",
        ),
        (
            (),
            {"REST_URL": "http://127.0.0.1:9", "WS_URL": NOWHERE[3]},
            "BACKBONE_REST_URL must end",
        ),
    ],
)
def test_which_exchange_is_meant_is_told_by_the_name_that_was_used(
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    variables: dict[str, str],
    sentence: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"UPBIT_BACKBONE_{name}", value)
    told = CliRunner().invoke(cli.app, ["candles", "KRW-BTC", "1m", *flags])
    assert (told.exit_code, told.stdout) == (2, "")
    assert sentence in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


async def test_flags_of_the_exchange_win_over_the_environment_as_a_group(tmp_path: Path) -> None:
    asked = ("candles", "KRW-BTC", "1m", "--count", "2")
    there, flags = await asyncio.gather(
        run(*asked, "--exchange", "simulator", data_dir=tmp_path / "a",
            environment={"UPBIT_BACKBONE_REST_URL": NOWHERE[1],
                         "UPBIT_BACKBONE_WS_URL": NOWHERE[3]}),
        run(*asked, *NOWHERE, data_dir=tmp_path / "b",
            environment={"UPBIT_BACKBONE_EXCHANGE": "simulator"}),
    )  # fmt: skip
    assert (there[0], there[2]) == (0, "")
    assert flags[0] == 1
    assert "127.0.0.1:9 was not reached" in flags[2]


async def test_an_unreachable_exchange_is_named_once_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, _, err = await run(
        "candles", "KRW-BTC", "1m", "--count", "5",
        "--rest-url", f"http://127.0.0.1:{port}/v1",
        "--ws-url", f"ws://127.0.0.1:{port}/websocket/v1", data_dir=tmp_path,
    )  # fmt: skip
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert str(port) in err
    assert "check the connection" in err


async def test_offline_stored_candles_are_printed_and_what_lacks_is_a_failure(
    tmp_path: Path,
) -> None:
    async def candles(start: str, end: str) -> tuple[int, str, str]:
        return await run(
            "candles", "KRW-XRP", "1h", "--from", start, "--to", end, "--format", "csv",
            "--rest-url", simulator.rest_url, "--ws-url", simulator.ws_url, data_dir=tmp_path,
        )  # fmt: skip

    async with Simulator() as simulator:
        online = await candles("2025-09-02T00:00Z", "2025-09-02T05:00Z")
    offline, partly = await asyncio.gather(
        candles("2025-09-02T00:00Z", "2025-09-02T05:00Z"),
        candles("2025-09-01T00:00Z", "2025-09-02T05:00Z"),
    )
    assert (online[0], online[2]) == (0, "")
    assert offline[:2] == online[:2]
    assert offline[2].startswith("offline, from what is stored: ")
    assert partly[:2] == (1, online[1])
    assert partly[2].startswith(
        "missing from 2025-09-01 00:00:00 UTC to 2025-09-02 00:00:00 UTC: candles of KRW-XRP 1h: "
    )
    assert len(offline[2].splitlines()) == len(partly[2].splitlines()) == 1


def test_a_range_of_which_nothing_is_known_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = in_process(
        monkeypatch, tmp_path, "candles", "KRW-BTC", "1d", "--exchange", "simulator",
        "--from", "1990-01-01T00:00Z", "--to", "1990-02-01T00:00Z", "--format", "json",
    )  # fmt: skip
    assert (told.exit_code, json.loads(told.stdout)) == (0, [])
    assert told.stderr == (
        "no candle of KRW-BTC 1d from 1990-01-01 00:00:00 UTC to 1990-02-01 00:00:00 UTC: the"
        " exchange shows none there (not listed yet, or nobody traded)\n"
    )


async def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    code, _, err = await run(
        "candles", "KRW-BTC", "1m", "--exchange", "simulator", data_dir=blocked
    )
    assert code == 1
    assert str(blocked) in err
    assert "--data-dir" in err
    assert len(err.splitlines()) == 1, err


async def test_simulate_prints_its_addresses_and_ends_on_sigint(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", START, "simulate",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(20):
        addresses = json.loads(await process.stdout.readline())
        assert addresses["rest_url"].endswith("/v1")
        assert addresses["ws_url"].startswith("ws://")
        assert addresses["control_url"].startswith("http://")
        port = addresses["rest_url"].rsplit(":", 1)[1].split("/")[0]
        busy = await run("simulate", "--port", port, data_dir=tmp_path)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")
    assert busy[0] == 1
    assert port in busy[2]
    assert len(busy[2].splitlines()) == 1, busy[2]


@pytest.mark.parametrize("time", ["2024-01-01T00:00Z", "2025-10-04T01:20Z"])
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_time_outside_the_recordings_is_refused_with_their_range(
    time: str, stopped: bool
) -> None:
    begin, now = ("2025-09-02", time) if stopped else (time, None)
    with pytest.raises(InvalidRequestError) as told:
        async with asyncio.timeout(5):  # whoever is not refused serves for ever
            await simulate("127.0.0.1", 0, 1, begin, now)
    option = "--now" if stopped else "--as-recorded"
    assert f"{option} was {time[:-1]}:00Z" in str(told.value)
    assert "KRW-BTC, KRW-XRP, KRW-DOGE" in str(told.value)
    assert "2025-09-01T00:00Z to 2025-10-04T01:20Z" in str(told.value)


async def test_as_recorded_an_unknown_market_is_told_which_three_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Simulator(as_recorded=True, clock=ShiftedClock(1_757_894_400_000)) as simulator:
        told = await asyncio.to_thread(
            in_process, monkeypatch, tmp_path, "candles", "KRW-ETH", "1m",
            "--rest-url", simulator.rest_url, "--ws-url", simulator.ws_url,
        )  # fmt: skip
    assert told.exit_code == 2
    assert "this exchange lists KRW-BTC, KRW-XRP, KRW-DOGE only" in told.stderr


def test_help_says_how_a_time_is_read() -> None:
    candles = " ".join(CliRunner().invoke(cli.app, ["candles", "--help"]).stdout.split())
    served = " ".join(CliRunner().invoke(cli.app, ["simulate", "--help"]).stdout.split())
    assert "is local time" in candles
    assert "in UTC (csv, json)" in candles
    assert served.count("UTC without") == 2


def test_the_command_line_never_imports_qt() -> None:
    script = (
        f"import sys; from {MODULE} import app; from typer.main import get_command;"
        " [one.imported() for one in get_command(app).commands.values()];"
        " print([m for m in sys.modules if 'PySide6' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


BACKFILL = ("backfill", "--timeframe", "1h", "--days", "30")


async def test_backfill_stores_every_market_and_asks_nothing_of_it_again(tmp_path: Path) -> None:
    clock = ShiftedClock(1_757_894_430_000)  # 2025-09-15
    async with Simulator(clock=clock) as simulator:
        asked = (*BACKFILL, "--symbols", "KRW-BTC, KRW-XRP",
                 "--rest-url", simulator.rest_url, "--ws-url", simulator.ws_url)  # fmt: skip
        for had in ("720 loaded, 0 stored before", "1 loaded, 719 stored before"):
            code, out, err = await run(*asked, data_dir=tmp_path)
            assert (code, err) == (0, "")
            *lines, where = out.splitlines()
            assert [line.split(":")[0] for line in lines] == ["KRW-BTC 1h", "KRW-XRP 1h"]
            for line in lines:
                assert "720 candles from 2025-08-16" in line
                assert f"to 2025-09-15 00:00:00 UTC ({had})" in line
            assert where.startswith(f"stored in {tmp_path}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--symbols", "KRW-BTX"), "unknown symbol 'KRW-BTX'"),
        (("--symbols", "BTC-KRW"), "(quote first); closest: KRW-BTC, "),
        (("--symbols", " , "), "--symbols must name markets such as KRW-BTC,KRW-ETH, was ' , '"),
        (("--symbols", "KRW-BTC", "--days", "0"), "--days must be 1 to "),
        (("--symbols", "KRW-BTC", "--days", "36500"), "after 1970-01-01), was 36500"),
        (("--symbols", "KRW-BTC", "--days", "a week"), "--days must be a whole number"),
        (("--symbols", "KRW-BTC", "--timeframe", "2h"), "unknown timeframe '2h'"),
        ((), "Missing option '--symbols'"),
    ],
)
def test_a_backfill_that_makes_no_sense_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    told = in_process(monkeypatch, tmp_path, *BACKFILL, "--exchange", "simulator", *arguments)
    assert (told.exit_code, told.stdout) == (2, "")
    assert sentence in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


def test_a_backfill_of_seconds_from_long_ago_says_what_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.coordinator.plan.SECONDS_DEPTH_MS", 30_000)
    told = in_process(
        monkeypatch, tmp_path, "backfill", "--symbols", "KRW-BTC", "--timeframe", "1s",
        "--days", "1", "--exchange", "simulator",
    )  # fmt: skip
    assert told.exit_code == 1
    assert "KRW-BTC 1s: " in told.stdout
    assert "keeps candles of one second for three months" in told.stderr


def test_what_a_backfill_did_is_told_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("backfill", "--symbols", "KRW-BTC,KRW-XRP", "--timeframe", "1d", "--days", "3")
    told = in_process(monkeypatch, tmp_path, *asked, "--exchange", "simulator", "--json")
    assert (told.exit_code, told.stderr) == (0, "")
    document = json.loads(told.stdout)
    assert document["stored_in"] == str(tmp_path / "simulator-1")
    for symbol, one in zip(("KRW-BTC", "KRW-XRP"), document["series"], strict=True):
        assert (one["symbol"], one["timeframe"], one["missing"]) == (symbol, "1d", [])
        assert one["candles"] == one["new"] == 3
        opened = [
            datetime.fromisoformat(one[name]) for name in ("first_open_time", "last_open_time")
        ]
        assert (opened[1] - opened[0]).days == 2


async def test_ctrl_c_ends_a_backfill_and_keeps_what_is_there(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", START, "backfill", "--symbols", "KRW-BTC",
        "--timeframe", "1m", "--days", "60", "--exchange", "simulator",
        env={**os.environ, "UPBIT_BACKBONE_DATA_DIR": str(tmp_path), "COLUMNS": "120"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    database = tmp_path / "simulator-1" / "market.sqlite3"

    def rows() -> int:
        if not database.exists():
            return 0
        with contextlib.closing(sqlite3.connect(database)) as sql:
            try:
                return int(sql.execute("SELECT count(*) FROM candles_KRW_BTC_1m").fetchone()[0])
            except sqlite3.OperationalError:
                return 0

    await eventually(lambda: rows() >= 200, timeout=30)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert b"what was loaded is stored" in err
    assert len(err.splitlines()) == 1, err
    assert rows() >= 200
