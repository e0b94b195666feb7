"""The command line as a person meets it: a process, its output, its exit code."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from upbit_backbone import cli

MODULE = "upbit_backbone.cli"
START = f"from {MODULE} import main; main()"


async def run(*arguments: str, data_dir: Path) -> tuple[int, str, str]:
    """Run the command to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", START, *arguments,
        env=os.environ | {"UPBIT_BACKBONE_DATA_DIR": str(data_dir), "COLUMNS": "120"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_candles_prints_as_many_as_asked_and_says_they_are_simulated(tmp_path: Path) -> None:
    code, out, err = await run(
        "candles", "KRW-BTC", "1m", "--count", "5", "--exchange", "simulator", data_dir=tmp_path
    )
    assert (code, err) == (0, "")
    assert "SIMULATED" in out
    assert sum("forming" in line or "closed" in line for line in out.splitlines()) == 5


async def test_candles_of_a_range_come_as_csv(tmp_path: Path) -> None:
    code, out, _ = await run(
        "candles", "KRW-XRP", "1h", "--from", "2025-09-02T00:00Z", "--to", "2025-09-02T05:00Z",
        "--exchange", "simulator", "--format", "csv", data_dir=tmp_path,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["open_time"] for row in rows] == [
        f"2025-09-02T0{hour}:00:00+00:00" for hour in range(5)
    ]
    assert all(float(row["high"]) >= float(row["low"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["KRW-BTX", "1m"], "KRW-BTC"),
        (["KRW-BTC", "7m"], "unknown timeframe '7m'"),
        (["KRW-BTC", "1m", "--count", "0"], "count must be a whole number from 1 up, was 0"),
        (["KRW-BTC", "1m", "--from", "tomorrow"], "--from must be a time such as"),
        (["KRW-BTC", "1m", "--from", "2099-01-01T00:00Z"], "lies in the future"),
        (
            ["KRW-BTC", "1m", "--from", "2025-09-02T00:00Z", "--to", "2025-09-01T00:00Z"],
            "start must lie before end",
        ),
        (
            ["KRW-BTC", "1m", "--from", "2025-09-01", "--to", "2025-09-02", "--count", "3"],
            "at most two of the three",
        ),
    ],
)
async def test_bad_input_is_answered_with_one_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, err = await run("candles", *arguments, "--exchange", "simulator", data_dir=tmp_path)
    assert code == 1
    assert out == ""
    assert sentence in err
    assert len(err.splitlines()) == 1, err


async def test_an_unreachable_exchange_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, _, err = await run(
        "candles", "KRW-BTC", "1m", "--count", "5",
        "--rest-url", f"http://127.0.0.1:{port}/v1",
        "--ws-url", f"ws://127.0.0.1:{port}/websocket/v1", data_dir=tmp_path,
    )  # fmt: skip
    assert code == 1
    assert str(port) in err.splitlines()[-1]
    assert "Traceback" not in err


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


def test_the_command_line_never_imports_qt() -> None:
    script = f"import sys, {MODULE}; print([m for m in sys.modules if 'PySide6' in m])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert cli.app.registered_commands
