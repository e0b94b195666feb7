"""``upbit-backbone db`` stats, check, backup, restore and vacuum as a person meets them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.storage.test_damage import COUNT, OTHER, keep
from upbit_backbone import cli
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
    lines = dict(line.split(":", 1) for line in found.stdout.splitlines())
    assert lines["series"].strip() == "2"
    assert lines["candles"].strip().startswith(f"{2 * COUNT:,}")
    assert lines["last check"].strip() == "never"
    assert "simulator-1" in lines["file"]


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
        (("backup", "/nowhere/at/all.sqlite3"), 2, "there is no folder"),
        (("backup",), 2, "Missing argument"),
        (("stats", "--data-dir", "empty"), 1, "nothing is stored of 'simulator-1'"),
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
    found = told(monkeypatch, data, *arguments)
    assert found.exit_code == code
    assert sentence in found.stderr
    assert found.stderr.count("\n") == 1


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
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (1, "stopped: no backup was made\n")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
