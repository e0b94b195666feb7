"""``upbit-backbone db`` stats, check, backup, restore and vacuum as a person meets them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.storage.test_damage import COUNT, KEY, OTHER, WHOLE, keep
from upbit_backbone import cli
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.models import KST_OFFSET
from upbit_backbone.origin import Origin
from upbit_backbone.storage.database import FILE_NAME, Database

SIMULATOR = ("--exchange", "simulator")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two series of a simulator."""

    async def fill() -> None:
        database = Database(tmp_path / "data" / "simulator-1", Origin("simulator-1"))
        await database.open()
        await database.write(keep)
        await database.write(lambda sql: keep(sql, OTHER))
        await database.close()

    asyncio.run(fill())
    return tmp_path / "data"


def told(monkeypatch: pytest.MonkeyPatch, data: Path, *arguments: str) -> Result:
    monkeypatch.setenv("UPBIT_BACKBONE_DATA_DIR", str(data))
    return CliRunner().invoke(cli.app, ["db", *arguments, *SIMULATOR])


def test_stats_tell_size_and_content(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, data, "stats")
    assert found.exit_code == 0
    table, _, figures = found.stdout.partition("\n\n")
    lines = dict(line.split(":", 1) for line in figures.splitlines())
    assert lines["series"].strip() == "2"
    assert lines["candles"].strip().startswith(f"{2 * COUNT:,}")
    assert lines["last check"].strip() == "never"
    assert "simulator-1" in lines["file"]
    first, last = (f"{open_time(at) + KST_OFFSET:%Y-%m-%d %H:%M:%S}" for at in (0, COUNT - 1))
    assert [line.split() for line in table.splitlines()[2:]] == [
        [key.symbol, key.timeframe.value, *first.split(), *last.split(), f"{COUNT:,}", "all"]
        for key in sorted((KEY, OTHER))
    ]


def open_time(number: int) -> datetime:
    return utc_datetime(WHOLE.start_ms + number * MINUTE_MS)


def test_stats_list_the_series_in_json_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(told(monkeypatch, data, "stats", "--json").stdout)
    assert found["rows"] == 2 * COUNT
    assert found["contents"] == [
        {
            "symbol": key.symbol,
            "timeframe": key.timeframe.value,
            "first_open_time": open_time(0).isoformat(),
            "last_open_time": open_time(COUNT - 1).isoformat(),
            "candles": COUNT,
            "proved_share": 1.0,
            "holes": 0,
            "holes_s": 0.0,
        }
        for key in sorted((KEY, OTHER))
    ]


def test_stats_do_not_hide_what_lies_between_two_stretches(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(data / "simulator-1" / FILE_NAME)) as sql:
        # Nine tenths were never asked for, and of a minute within it is known that it is not.
        start_ms = WHOLE.start_ms + COUNT // 10 * MINUTE_MS
        names = (KEY.symbol, KEY.timeframe.value)
        sql.execute(
            "UPDATE coverage SET end_ms = ? WHERE symbol = ? AND timeframe = ?",
            (start_ms, *names),
        )
        sql.execute(
            "INSERT INTO coverage VALUES (?, ?, ?, ?, 'unknown', 'outage', '', 0)",
            (*names, start_ms + MINUTE_MS, start_ms + 2 * MINUTE_MS),
        )
        sql.commit()
    found = told(monkeypatch, data, "stats").stdout
    (line,) = (line for line in found.splitlines() if line.startswith(KEY.symbol))
    assert line.endswith("10.0 % (1 hole)")
    assert re.search(r"^holes: +1$", found, re.MULTILINE)
    contents = json.loads(told(monkeypatch, data, "stats", "--json").stdout)["contents"]
    (series,) = (one for one in contents if one["symbol"] == KEY.symbol)
    assert (series["proved_share"], series["holes"]) == (0.1, 1)
    assert series["holes_s"] == 60 * (COUNT - COUNT // 10)


def test_stats_know_of_the_last_check(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, data, "check")
    found = told(monkeypatch, data, "stats").stdout.splitlines()
    (line,) = (line for line in found if line.startswith("last check:"))
    assert re.fullmatch(r"last check: +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d KST", line)


def test_a_database_of_another_program_is_left_as_it_is(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "simulator-1" / FILE_NAME
    path.unlink()
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE t (a)")
    content = path.read_bytes()
    monkeypatch.setenv("UPBIT_BACKBONE_DATA_DIR", str(data))
    file = str(data / "x.csv")
    for arguments in (
        ("db", "stats"),
        ("db", "check"),
        ("db", "backup", str(data / "b.sqlite3")),
        ("db", "vacuum"),
        ("db", "export", "KRW-BTC", "1m", file),
        ("candles", "KRW-BTC", "1m", "--count", "1"),
    ):
        found = CliRunner().invoke(cli.app, [*arguments, *SIMULATOR])
        assert (found.exit_code, found.stdout) == (1, "")
        assert found.stderr == (
            f"{path} is a SQLite database of another program, and is left as it is: move it away,"
            " or choose another data folder (--data-dir)\n"
        )
        assert path.read_bytes() == content
    assert {name.name for name in path.parent.iterdir() if "lock" not in name.name} == {FILE_NAME}


def test_a_check_says_whole_or_what_is_wrong(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, data, "check")
    assert (found.exit_code, f"is whole: {2 * COUNT:,} candles of 2 series" in found.stdout) == (
        0, True,
    )  # fmt: skip
    path = data / "simulator-1" / FILE_NAME
    content = bytearray(path.read_bytes())
    content[20 * 4096 : 30 * 4096] = b"\xa5" * 40_960
    path.write_bytes(content)
    found = told(monkeypatch, data, "check")
    assert found.exit_code == 1
    assert "is damaged: when the program starts next" in found.stderr
    assert found.stderr.count("\n") == 1
    assert json.loads(told(monkeypatch, data, "check", "--json").stdout)["problems"]
    assert "found damaged" in told(monkeypatch, data, "stats").stdout


def test_a_backup_is_made_and_restored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "candles.sqlite3")
    found = told(monkeypatch, data, "backup", file)
    assert (found.exit_code, found.stderr) == (0, "")
    assert f"{2 * COUNT:,} candles of 2 series in {file}" in found.stdout
    found = told(monkeypatch, data, "backup", file)
    assert (found.exit_code, "exists already" in found.stderr) == (2, True)
    assert told(monkeypatch, data, "backup", file, "--force").exit_code == 0
    found = told(monkeypatch, data, "restore", file)
    assert found.exit_code == 0
    assert f"holds {2 * COUNT:,} candles of 2 series now" in found.stdout
    assert "market.set-aside-1.sqlite3" in found.stdout
    found = told(monkeypatch, data, "vacuum")
    assert (found.exit_code, "MB now" in found.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("restore", "nothing.sqlite3"), 2, "there is no file"),
        (("restore", "data"), 2, "is a folder: expected a file"),
        (("restore", "README.md"), 2, "README.md is no backup of a store"),
        (("backup", "/nowhere/at/all.sqlite3"), 2, "there is no folder"),
        (("backup",), 2, "Missing argument"),
        (("stats", "--data-dir", ""), 2, "must name a folder, was empty"),
        (("stats", "--data-dir", "empty"), 1, "nothing is stored of 'simulator-1'"),
        (
            ("export", "KRW-BTC", "1m", "x.csv", "--data-dir", "empty"),
            1,
            "nothing is stored of 'simulator-1'",
        ),
    ],
)
def test_what_cannot_be_is_one_line_on_standard_error(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("# Candles\n" * 400)
    found = told(monkeypatch, data, *arguments)
    assert found.exit_code == code
    assert sentence in found.stderr
    assert found.stderr.count("\n") == 1


def test_what_was_done_is_told_as_json(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = str(data / "simulator-1" / FILE_NAME), str(tmp_path / "b.sqlite3")
    backup, restore, vacuum = (
        json.loads(told(monkeypatch, data, *asked, "--json").stdout)
        for asked in (("backup", file), ("restore", file), ("vacuum",))
    )
    assert (backup["file"], backup["rows"], backup["series"]) == (file, 2 * COUNT, 2)
    assert (restore["file"], restore["rows"]) == (store, 2 * COUNT)
    assert Path(restore["set_aside"]).exists()
    assert set(vacuum) == {"file", "before_bytes", "after_bytes"}


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_ctrl_c_ends_a_backup_and_leaves_no_file(data: Path, tmp_path: Path) -> None:
    """A slow disk is played by a store that is read for ever."""
    program = f"""
import sys
from upbit_backbone import cli
from upbit_backbone.storage import store_file

def for_ever(sql, target):
    target.touch()
    print("copying", flush=True)
    sql.execute(
        "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter)"
        " SELECT count(*) FROM counter"
    ).fetchall()

store_file._copy_into = for_ever
sys.argv = ["upbit-backbone", "db", "backup", {str(tmp_path / "b.sqlite3")!r},
            "--exchange", "simulator", "--data-dir", {str(data)!r}]
cli.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n"
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # one that hangs would take a processor for good
    assert (process.returncode, errors) == (130, "stopped: no backup was made\n")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
