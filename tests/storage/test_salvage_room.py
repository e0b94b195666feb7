"""A repair needs room, and an emptied file holds nothing: neither costs what is still there."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.storage.test_damage import OTHER, candles, fill, keep, opened, set_aside, stored
from upbit_backbone.storage import damage
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.write_ahead_log import cut_off


class _Answer(list[Any]):
    """Rows that were fetched at once."""

    def fetchone(self) -> Any:
        return self[0]


UNFINISHED = f"{FILE_NAME}.unfinished"
MARKER = f"{FILE_NAME}.damaged"


async def test_a_copy_that_another_program_looks_at_takes_the_files_place_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk, the log of the copy could not be moved into it when it is closed."""
    await fill(tmp_path)
    (tmp_path / MARKER).touch()
    copy = damage.copy
    lookers: list[sqlite3.Connection] = []

    def copied(*args: Any) -> damage.Salvaged:
        found = copy(*args)
        lookers.append(sqlite3.connect(tmp_path / UNFINISHED, check_same_thread=False))
        lookers[-1].execute("SELECT count(*) FROM sqlite_schema").fetchall()
        return found

    monkeypatch.setattr(damage, "copy", copied)
    try:
        async with opened(tmp_path) as database:
            assert await stored(database) == candles()
            assert await stored(database, OTHER) == candles(OTHER)
    finally:
        for looker in lookers:
            looker.close()
    assert len(lookers) == 1
    assert not list(tmp_path.glob(f"{UNFINISHED}*"))


ON_A_SMALL_DISK = """
import asyncio, shutil, subprocess, sys
from pathlib import Path
from tests.storage.test_damage import KEY, OTHER, candles, opened, stored
from upbit_backbone.errors import StorageUnavailableError
from upbit_backbone.storage.database import FILE_NAME

MARKER = f"{FILE_NAME}.damaged"

def mount(disk, *options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk], check=True)

async def main(file, disk):
    mended, put_off = 0, 0
    for tenths in (2, 5, 8, 10, 11, 13):
        size = file.stat().st_size
        mount(disk, f"size={size + size * tenths // 10 + 40_000}")
        try:
            shutil.copy(file, disk / FILE_NAME)
            (disk / MARKER).touch()
            try:
                async with opened(disk) as database:
                    mended += 1
            except StorageUnavailableError as error:
                put_off += 1
                assert "full" in str(error), error
                assert (disk / FILE_NAME).read_bytes() == file.read_bytes()
                assert (disk / MARKER).exists()
                assert not list(disk.glob("*finished*")), list(disk.iterdir())
                mount(disk, "remount", f"size={size * 9}")
            async with opened(disk) as database:
                for key in (KEY, OTHER):
                    assert await stored(database, key) == candles(key), tenths
        finally:
            subprocess.run(["umount", disk], check=True)
    print(mended, put_off)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def may_mount(folder: Path) -> bool:
    """Whether a file system of one's own can be made here, for one process alone."""
    try:
        made = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=9000", "tmpfs", str(folder)],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return made.returncode == 0


async def test_a_repair_that_does_not_fit_on_the_disk_is_put_off_and_loses_nothing(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not await asyncio.to_thread(may_mount, disk):
        pytest.skip("a small disk cannot be made here")
    folder = tmp_path / "data"
    file = await fill(folder)
    ended = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "-rm", sys.executable, "-c", ON_A_SMALL_DISK, str(file), str(disk)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    mended, put_off = map(int, ended.stdout.split())
    assert mended > 0
    assert put_off > 0


async def test_a_file_that_was_emptied_is_told_and_its_log_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    log = path.with_name(f"{FILE_NAME}-wal")
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("INSERT INTO meta VALUES ('x', 'y')")
        sql.commit()
        kept = log.read_bytes()
    log.write_bytes(kept)
    path.write_bytes(b"")
    async with opened(tmp_path) as database:
        assert "is empty" in database.salvaged
        assert len(await stored(database)) == 0
        await database.write(lambda sql: None)
    assert "is empty" in caplog.text
    assert "market.set-aside-1.sqlite3" in caplog.text
    assert (tmp_path / "market.set-aside-1.sqlite3-wal").read_bytes() == kept
    caplog.clear()
    async with opened(tmp_path) as database:
        assert database.salvaged == ""
    assert caplog.text == ""


async def test_a_file_that_was_emptied_without_a_log_is_told_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    path.write_bytes(b"")
    (tmp_path / MARKER).touch()
    async with opened(tmp_path) as database:
        assert "is empty" in database.salvaged
    assert "is empty" in caplog.text
    assert set_aside(tmp_path) == []


async def test_a_file_that_grows_while_it_is_looked_at_is_not_taken_for_a_cut_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as other:
        await other.write(keep)
        await other.tend(cut_off)
        with closing(sqlite3.connect(other.path, isolation_level=None)) as raw:

            class Beside:
                """Another program writes right after each statement."""

                in_transaction = False
                executemany = raw.executemany

                def execute(self, statement: str, *args: Any) -> Any:
                    rows = raw.execute(statement, *args).fetchall()
                    with closing(sqlite3.connect(other.path)) as writer:
                        writer.execute(
                            "INSERT INTO meta VALUES (hex(randomblob(9)), hex(zeroblob(9999)))"
                        )
                        writer.commit()
                    return _Answer(rows)

            assert not damage.shorter_than_it_says(Sql(Beside()), other.path)


async def test_programs_that_make_the_file_together_take_it_for_no_emptied_one(
    tmp_path: Path,
) -> None:
    for turn in range(5):
        folder = tmp_path / str(turn)
        async with opened(folder) as one, opened(folder) as other:
            assert one.salvaged == other.salvaged == ""

        async def used(folder: Path = tmp_path / f"at once {turn}") -> str:
            async with opened(folder) as database:
                return database.salvaged

        assert set(await asyncio.gather(*(used() for _ in range(3)))) == {""}
