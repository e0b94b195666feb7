"""The file as a whole: checked, backed up while it is written, restored, and killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.test_damage import (
    COUNT,
    KEY,
    OTHER,
    WHOLE,
    candles,
    fill,
    keep,
    open_folder,
    opened,
    proved,
    set_aside,
    stored,
)
from tests.storage.test_migrations import PAYLOADS
from upbit_backbone.errors import (
    InvalidRequestError,
    StorageCorruptError,
    StorageError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, delete_rows, write_rows
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.figures import SeriesFigures
from upbit_backbone.storage.migrations import SCHEMA_VERSION
from upbit_backbone.storage.series_files.transfer import SeriesTransfer
from upbit_backbone.storage.store_file import StoreFile

__all__ = ["open_folder"]

THIRD = SeriesKey("KRW-ETH", Timeframe.M1)


def store(folder: Path, identity: str = "test") -> StoreFile:
    return StoreFile(folder, Origin(identity), ManualClock(AUTUMN_2025_MS))


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@asynccontextmanager
async def used_by_another_process(folder: Path) -> AsyncIterator[None]:
    """A second process has the store open."""
    program = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from tests.storage.test_damage import opened\n"
        "async def main():\n"
        "    async with opened(Path(sys.argv[1])):\n"
        "        print('open', flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(folder),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"open\n"
        yield
    finally:
        await process.communicate(b"")


async def test_figures_count_what_is_there(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    found = await store(tmp_path).figures()
    with closing(sqlite3.connect(path)) as sql:
        rows = sum(
            sql.execute(f"SELECT count(*) FROM {key.table}").fetchone()[0] for key in (KEY, OTHER)
        )
        blocks = sql.execute("SELECT count(*), sum(row_count) FROM blocks").fetchone()
    assert (found.rows, found.series, found.spans, found.unknown_spans) == (rows, 2, 2, 0)
    assert rows == 2 * COUNT
    assert (found.blocks, found.rows_in_blocks) == blocks
    assert found.file_bytes == path.stat().st_size == found.pages * found.page_bytes
    assert found.gives_back
    assert found.schema == SCHEMA_VERSION
    assert not found.damaged


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION))
async def test_figures_of_an_older_file_are_told_without_changing_it(
    tmp_path: Path, schema: int
) -> None:
    shutil.copy(PAYLOADS / f"schema-{schema}.sqlite3", tmp_path / FILE_NAME)
    found = await store(tmp_path, "simulator-7").figures()
    assert (found.schema, found.rows, found.series) == (schema, 153, 3)
    assert found.gives_back is (schema > 1)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (schema,)


async def test_without_a_file_a_sentence_says_so_and_none_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "upbit"
    work = store(folder)
    for call in (work.figures, work.check, work.vacuum, lambda: work.backup(tmp_path / "b")):
        with pytest.raises(StorageUnavailableError, match="nothing is stored of 'test'"):
            await call()
    assert not folder.exists()
    assert files_in(tmp_path) == set()


async def test_a_check_finds_a_whole_file_whole(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path):
        found = await store(tmp_path).check()
    assert (found.problems, found.wrong_blocks) == ((), 0)
    assert found.figures is not None
    assert found.figures.rows == 2 * COUNT


async def test_a_check_marks_a_damaged_file_and_the_next_opening_mends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        ((root,),) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (KEY.table,))
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    found = await store(tmp_path).check()
    assert found.problems
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()
    async with opened(tmp_path) as database:
        assert database.salvaged
        assert await stored(database) == candles()
    assert (await store(tmp_path).check()).problems == ()


async def test_a_check_is_remembered_unless_it_found_damage(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    assert (await store(tmp_path).figures()).done_ms == {}
    await store(tmp_path).check()
    assert (await store(tmp_path).figures()).done_ms == {"check": AUTUMN_2025_MS}
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("DELETE FROM meta WHERE key = 'maintenance_check'")
        sql.execute("UPDATE coverage SET end_ms = start_ms")
        sql.commit()
    assert (await store(tmp_path).check()).problems
    assert (await store(tmp_path).figures()).done_ms == {}


async def test_what_is_stored_is_listed_series_by_series(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path) as database:
        await database.write(
            lambda sql: delete_rows(sql, KEY, [WHOLE.start_ms, WHOLE.end_ms - 60_000])
        )
        await database.write(lambda sql: write_rows(sql, THIRD, candles(THIRD, 7)))
    found = (await store(tmp_path).contents()).series
    last_ms = WHOLE.start_ms + (COUNT - 1) * 60_000
    assert found == (
        SeriesFigures(*KEY, COUNT - 2, WHOLE.start_ms + 60_000, last_ms - 60_000, 0, 0),
        SeriesFigures(*THIRD, 7, WHOLE.start_ms, WHOLE.start_ms + 6 * 60_000, 1, 7 * 60_000),
        SeriesFigures(*OTHER, COUNT, WHOLE.start_ms, last_ms, 0, 0),
    )


async def test_a_store_without_candles_makes_no_backup_and_replaces_none(tmp_path: Path) -> None:
    target = tmp_path / "backup.sqlite3"
    target.write_text("a good one")
    async with opened(tmp_path / "data"):
        pass
    with pytest.raises(StorageUnavailableError, match="holds no candles: no backup was made"):
        await store(tmp_path / "data").backup(target, overwrite=True)
    assert target.read_text() == "a good one"


ARCHIVE = """
import asyncio, concurrent.futures.thread, os, sys  # whoever it becomes may read no library
from pathlib import Path
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.test_damage import KEY
from tests.storage.test_store_file import store
from upbit_backbone.origin import Origin
from upbit_backbone.storage.series_files.transfer import SeriesTransfer

async def main(folder, target):
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    found = await store(folder).contents()
    checked = await store(folder).check()
    done = await store(folder).backup(target / "backup.sqlite3")
    transfer = SeriesTransfer(folder, Origin("test"), ManualClock(AUTUMN_2025_MS))
    exported = await transfer.export_to(target / "x.csv", *KEY)
    print(found.figures.rows, checked.problems, done.figures.rows, exported.candles)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights are other ones there")
@pytest.mark.parametrize("beside", [(), (".lock",)])
async def test_an_archive_that_may_only_be_read_is_told_of_checked_and_copied(
    open_folder: Path, beside: tuple[str, ...]
) -> None:
    folder, target = open_folder / "archive", open_folder / "target"
    path = await fill(open_folder / "data")
    folder.mkdir()
    for suffix in ("", *beside):
        shutil.copy(f"{path}{suffix}", folder)
        (folder / f"{FILE_NAME}{suffix}").chmod(0o444)
    folder.chmod(0o555)
    target.mkdir()
    target.chmod(0o777)
    before = files_in(folder)
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", ARCHIVE, str(folder), str(target)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.stderr, ended.stdout) == ("", f"{2 * COUNT} () {2 * COUNT} {COUNT}\n")
    assert files_in(folder) == before
    folder.chmod(0o755)


async def test_what_only_reads_never_sets_a_damaged_file_aside(tmp_path: Path) -> None:
    path = await fill(tmp_path / "data")
    with closing(sqlite3.connect(path)) as sql:
        ((root,),) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (KEY.table,))
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    content = path.read_bytes()
    work = store(tmp_path / "data")
    transfer = SeriesTransfer(tmp_path / "data", Origin("test"), ManualClock(AUTUMN_2025_MS))
    for call in (
        work.figures,
        lambda: work.backup(tmp_path / "b.sqlite3"),
        lambda: transfer.export_to(tmp_path / "x.csv", *KEY),
    ):
        with pytest.raises(StorageCorruptError, match="damaged"):
            await call()
        assert path.read_bytes() == content
    assert (await work.check()).problems
    assert set_aside(tmp_path / "data") == []
    assert files_in(tmp_path) == {"data"}


async def test_an_export_of_an_older_file_brings_it_up_to_date(tmp_path: Path) -> None:
    shutil.copy(PAYLOADS / "schema-1.sqlite3", tmp_path / FILE_NAME)
    transfer = SeriesTransfer(tmp_path, Origin("simulator-7"), ManualClock(AUTUMN_2025_MS))
    (key, *_) = (await store(tmp_path, "simulator-7").contents()).series
    done = await transfer.export_to(tmp_path / "x.csv", key.symbol, key.timeframe)
    assert done.candles > 0
    assert (await store(tmp_path, "simulator-7").figures()).schema == SCHEMA_VERSION


async def test_a_restore_leaves_a_database_of_another_program_where_it_is(tmp_path: Path) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    path = await fill(folder)
    await store(folder).backup(target)
    path.unlink()
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("CREATE TABLE t (a)")
    content = path.read_bytes()
    with pytest.raises(StorageOriginError, match="database of another program"):
        await store(folder).restore(target)
    assert path.read_bytes() == content
    assert set_aside(folder) == []


async def test_a_check_counts_blocks_that_are_not_what_the_rows_say(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        starts = [at for (at,) in sql.execute("SELECT id FROM blocks ORDER BY id")]
        sql.execute("UPDATE blocks SET checksum = checksum + 1 WHERE id = ?", (starts[0],))
        # A right copy of rows that were changed beside the store.
        sql.execute(f"UPDATE {OTHER.table} SET close = 6.5 WHERE open_time = ?", (WHOLE.start_ms,))
        sql.commit()
    found = await store(tmp_path).check()
    assert (found.problems, found.wrong_blocks) == ((), 2)
    assert not (tmp_path / f"{FILE_NAME}.damaged").exists()


async def test_a_check_finds_proof_that_overlaps(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        sql.execute(
            "INSERT INTO coverage SELECT symbol, timeframe, start_ms + 60000, end_ms + 60000,"
            " state, reason, evidence, known_at_ms FROM coverage WHERE symbol = 'KRW-XRP'"
        )
        sql.commit()
    (problem,) = (await store(tmp_path).check()).problems
    assert "overlap" in problem


async def test_a_backup_holds_all_that_was_written_before_while_writing_goes_on(
    tmp_path: Path,
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    async with opened(folder) as database:
        going_on = True

        async def write() -> int:
            written = 0
            while going_on:
                rows = candles(THIRD, 20, written)
                await database.write(lambda sql, rows=rows: write_rows(sql, THIRD, rows))  # type: ignore[misc]
                written += len(rows)
            return written

        writing = asyncio.create_task(write())
        done = await store(folder).backup(target)
        going_on = False
        written = await writing
        assert len(await stored(database, THIRD)) == written > 0
    assert (done.path, done.figures.series >= 2) == (target, True)
    assert files_in(tmp_path) == {"data", "backup.sqlite3"}
    restored = tmp_path / "other"
    await store(restored).restore(target)
    async with opened(restored) as database:
        assert await stored(database) == candles()
        assert await stored(database, OTHER) == candles(OTHER)
        assert list(await proved(database)) == [WHOLE]
        # One moment of what was being written, without a hole.
        third = await stored(database, THIRD)
        assert third == candles(THIRD, len(third))


async def test_a_backup_replaces_nothing_unless_told(tmp_path: Path) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    target.write_text("holiday pictures")
    with pytest.raises(InvalidRequestError, match="--force replaces it"):
        await store(folder).backup(target)
    assert target.read_text() == "holiday pictures"
    await store(folder).backup(target, overwrite=True)
    assert (await store(tmp_path / "other").restore(target)).figures.rows == 2 * COUNT


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("data/market.sqlite3", "the store itself"),
        ("data/market.sqlite3.finished", "the store itself"),
        ("data/market.sqlite3-wal", "the store itself"),
        ("data/market.sqlite3-shm", "the store itself"),
        ("data/market.sqlite3-journal", "the store itself"),
        ("data/market.sqlite3.unfinished-wal", "the store itself"),
        ("data", "is a folder"),
        ("nowhere/backup.sqlite3", "there is no folder"),
    ],
)
async def test_names_that_a_backup_cannot_have_are_refused(
    tmp_path: Path, name: str, told: str
) -> None:
    await fill(tmp_path / "data")
    before = files_in(tmp_path / "data")
    with pytest.raises(InvalidRequestError, match=told):
        await store(tmp_path / "data").backup(tmp_path / name, overwrite=True)
    assert files_in(tmp_path / "data") == before
    assert (await store(tmp_path / "data").check()).problems == ()


async def test_a_damaged_store_makes_no_backup(tmp_path: Path) -> None:
    path = await fill(tmp_path / "data")
    with closing(sqlite3.connect(path)) as sql:
        ((root,),) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (KEY.table,))
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StorageError, match="damaged"):
        await store(tmp_path / "data").backup(tmp_path / "backup.sqlite3")
    assert files_in(tmp_path) == {"data"}


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from tests.storage.test_store_file import store
from upbit_backbone.errors import StorageUnavailableError

async def main(folder, target):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        await store(folder).backup(target)
    except StorageUnavailableError as error:
        print(error)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes there")
async def test_a_backup_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    await fill(tmp_path / "data")
    target = tmp_path / "backup.sqlite3"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED, str(tmp_path / "data"), str(target)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"{target} cannot be written" in ended.stdout
    assert "the disk is not full" in ended.stdout
    assert files_in(tmp_path) == {"data"}


READ_ONLY = """
import asyncio, concurrent.futures.thread, os, sys  # whoever it becomes may read no library
from pathlib import Path
from tests.storage.test_store_file import store
from upbit_backbone.errors import StorageUnavailableError

async def main(folder, target):
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        await store(folder).backup(target)
    except StorageUnavailableError as error:
        print(error)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights are other ones there")
async def test_a_backup_into_a_folder_that_may_only_be_read_is_told_as_such(
    open_folder: Path,
) -> None:
    await fill(open_folder / "data")
    shutil.copytree(open_folder / "data", open_folder / "mine")
    for name in (open_folder / "mine", *(open_folder / "mine").iterdir()):
        name.chmod(0o777)
    (open_folder / "target").mkdir(mode=0o555)
    target = open_folder / "target" / "backup.sqlite3"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", READ_ONLY, str(open_folder / "mine"), str(target)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"{target} cannot be written" in ended.stdout
    assert files_in(open_folder / "target") == set()


async def test_a_restored_backup_takes_the_place_of_a_file_that_is_set_aside(
    tmp_path: Path,
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    await store(folder).backup(target)
    async with opened(folder) as database:
        await database.write(lambda sql: keep(sql, THIRD))
        await database.write(lambda sql: delete_rows(sql, KEY, [WHOLE.start_ms]))
    done = await store(folder).restore(target)
    assert done.set_aside == folder / "market.set-aside-1.sqlite3"
    assert done.figures.rows == 2 * COUNT
    async with opened(folder) as database:
        assert await stored(database) == candles()
        assert len(await stored(database, THIRD)) == 0
    # What was set aside is whole, with what was written last.
    again = tmp_path / "again"
    await store(again).restore(done.set_aside)
    async with opened(again) as database:
        assert await stored(database, THIRD) == candles(THIRD)
    assert target.exists()


async def test_a_file_that_another_process_has_open_is_not_replaced_nor_written_anew(
    tmp_path: Path,
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    async with used_by_another_process(folder):
        await store(folder).backup(target)
        before = files_in(folder)
        for call in (lambda: store(folder).restore(target), store(folder).vacuum):
            with pytest.raises(StorageUnavailableError, match=r"open in another program.*close"):
                await call()
        assert files_in(folder) == before
    assert (await store(folder).restore(target)).set_aside is not None
    assert (await store(folder).vacuum()).after_bytes > 0


async def test_a_file_that_a_program_without_the_lock_has_open_is_not_replaced(
    tmp_path: Path,
) -> None:
    """Programs of schema 1, or a person with another tool."""
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    path = await fill(folder)
    await store(folder).backup(target)
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM series").fetchone()
        with pytest.raises(StorageUnavailableError, match="open in another program"):
            await store(folder).restore(target)
    assert set_aside(folder) == []


async def test_what_is_no_backup_of_this_store_is_refused_and_nothing_changed(
    tmp_path: Path,
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    path = await fill(folder)
    await store(folder).backup(target)
    whole = target.read_bytes()

    async def refused(error: type[Exception], told: str, identity: str = "test") -> None:
        before = files_in(folder)
        with pytest.raises(error, match=told):
            await store(folder, identity).restore(target)
        assert files_in(folder) == before

    await refused(StorageOriginError, "holds data of 'test', expected 'upbit'", "upbit")
    with closing(sqlite3.connect(target)) as sql:
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    await refused(StorageCorruptError, "newer program")
    target.write_bytes(whole[: len(whole) // 2])
    await refused(StorageCorruptError, "backup.sqlite3")
    garbled = bytearray(whole)
    garbled[20 * 4096 : 22 * 4096] = b"\xa5" * 8192
    target.write_bytes(garbled)
    await refused(StorageCorruptError, "backup.sqlite3")
    target.write_text("a shopping list\n" * 1_000)
    await refused(InvalidRequestError, "is no backup of a store")
    target.unlink()
    with closing(sqlite3.connect(target)) as sql:
        sql.execute("CREATE TABLE meta (a)")
    await refused(InvalidRequestError, "is no backup of a store")
    target.unlink()
    await refused(InvalidRequestError, "there is no file")
    target = path
    await refused(InvalidRequestError, "the store itself")
    async with opened(folder) as database:
        assert await stored(database) == candles()


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION))
async def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    tmp_path: Path, schema: int
) -> None:
    source = tmp_path / "backup.sqlite3"
    shutil.copy(PAYLOADS / f"schema-{schema}.sqlite3", source)
    done = await store(tmp_path / "data", "simulator-7").restore(source)
    assert (done.set_aside, done.figures.schema, done.figures.rows) == (None, SCHEMA_VERSION, 153)


async def test_a_damaged_store_is_replaced_by_a_backup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    path = await fill(folder)
    await store(folder).backup(target)
    path.write_text("garbage " * 10_000)
    (folder / f"{FILE_NAME}.damaged").touch()
    done = await store(folder).restore(target)
    assert done.figures.rows == 2 * COUNT
    assert not (folder / f"{FILE_NAME}.damaged").exists()
    assert done.set_aside is not None
    assert done.set_aside.read_text().startswith("garbage")


async def test_the_journal_of_a_killed_process_is_never_applied_to_the_file_that_follows(
    tmp_path: Path,
) -> None:
    """It belongs to the file that is set aside, and goes with it."""
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    path = await fill(folder)
    await store(folder).backup(target)
    path.write_text("garbage " * 10_000)
    journal = folder / f"{FILE_NAME}-journal"
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(5_000))
    shutil.copy(target, folder / f"{FILE_NAME}.finished")
    async with opened(folder) as database:
        assert await stored(database) == candles()
    assert not journal.exists()
    assert (folder / "market.set-aside-1.sqlite3-journal").exists()


async def test_a_restore_that_was_killed_before_its_end_is_finished_by_whoever_opens_next(
    tmp_path: Path,
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    await store(folder).backup(target)
    async with opened(folder) as database:
        await database.write(lambda sql: keep(sql, THIRD))
    shutil.copy(target, folder / f"{FILE_NAME}.finished")
    async with opened(folder) as database:
        assert len(await stored(database, THIRD)) == 0
    assert set_aside(folder) == ["market.set-aside-1.sqlite3"]


RESTORING = """
import asyncio, sys
from pathlib import Path
from tests.storage.test_store_file import store

async def main(folder, file, what):
    print("begun", flush=True)
    while True:
        if what == "restore":
            await store(folder).restore(file)
        else:
            await store(folder).backup(file, overwrite=True)
        print("done", flush=True)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
"""


def killed_meanwhile(folder: Path, file: Path, what: str, after_s: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RESTORING, str(folder), str(file), what],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(after_s)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def restore_and_kill(tmp_path: Path, rounds: int) -> None:
    """Each file is the one before or the backup: told apart by a third series."""
    rng = random.Random(rounds)
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    await store(folder).backup(target)
    for _ in range(rounds):
        async with opened(folder) as database:
            await database.write(lambda sql: keep(sql, THIRD))
        await asyncio.to_thread(killed_meanwhile, folder, target, "restore", rng.uniform(0, 0.3))
        async with opened(folder) as database:
            assert database.salvaged == ""
            assert await stored(database) == candles()
            assert list(await proved(database)) == [WHOLE]
            third = await stored(database, THIRD)
            assert len(third) in (0, COUNT)
            assert (THIRD in await database.read(_known)) == bool(len(third))
        assert (await store(folder).check()).problems == ()
        # Nothing that was the store is ever deleted by it.
        assert (folder / FILE_NAME).exists()
        for name in set_aside(folder):
            with closing(sqlite3.connect(folder / name)) as sql:
                assert sql.execute("PRAGMA quick_check").fetchone() == ("ok",)
            (folder / name).unlink()


def _known(sql: object) -> set[SeriesKey]:
    rows = sql.execute("SELECT DISTINCT symbol, timeframe FROM coverage")  # type: ignore[attr-defined]
    return {SeriesKey(symbol, Timeframe(timeframe)) for symbol, timeframe in rows}


async def test_a_process_killed_while_it_restores_leaves_the_one_file_or_the_other(
    tmp_path: Path,
) -> None:
    await restore_and_kill(tmp_path, 3)


@pytest.mark.slow
async def test_fifty_processes_killed_while_they_restore_leave_the_one_file_or_the_other(
    tmp_path: Path,
) -> None:
    await restore_and_kill(tmp_path, 50)


async def back_up_and_kill(tmp_path: Path, rounds: int) -> None:
    rng = random.Random(rounds)
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    for _ in range(rounds):
        await asyncio.to_thread(killed_meanwhile, folder, target, "backup", rng.uniform(0, 0.3))
        if target.exists():
            with closing(sqlite3.connect(target)) as sql:
                assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                count = f"SELECT count(*) FROM {KEY.table}"
                assert sql.execute(count).fetchone() == (COUNT,)
        assert (await store(folder).check()).problems == ()
    # What the killed ones left goes with the next backup of that name.
    await store(folder).backup(target, overwrite=True)
    assert files_in(tmp_path) == {"data", "backup.sqlite3"}


async def test_a_process_killed_while_it_backs_up_leaves_no_half_backup(tmp_path: Path) -> None:
    await back_up_and_kill(tmp_path, 3)


@pytest.mark.slow
async def test_fifty_processes_killed_while_they_back_up_leave_no_half_backup(
    tmp_path: Path,
) -> None:
    await back_up_and_kill(tmp_path, 50)


@pytest.mark.parametrize("what", ["backup", "restore"])
async def test_a_cancelled_backup_or_restore_leaves_nothing_half_done(
    tmp_path: Path, what: str
) -> None:
    folder, target = tmp_path / "data", tmp_path / "backup.sqlite3"
    await fill(folder)
    await store(folder).backup(target)
    kept = {FILE_NAME, f"{FILE_NAME}.lock"}
    for turns in range(0, 40, 2):
        whole = store(folder)
        work: Any = (
            whole.backup(target, overwrite=True) if what == "backup" else whole.restore(target)
        )
        task: asyncio.Task[Any] = asyncio.create_task(work)
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([task])
        # A connection whose closing was cancelled ends on its own thread, a moment later.
        await eventually(lambda: files_in(tmp_path) == {"data", "backup.sqlite3"})
        await eventually(
            lambda: {name for name in files_in(folder) if "set-aside" not in name} == kept
        )
        async with opened(folder) as database:
            assert await stored(database) == candles()


async def test_writing_a_file_anew_gives_its_free_pages_back(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with opened(tmp_path) as database:
        await database.write(lambda sql: sql.execute(f"DELETE FROM {OTHER.table}"))
        await database.write(lambda sql: sql.execute("DELETE FROM blocks"))
    found = await store(tmp_path).figures()
    assert found.free_pages > 50
    done = await store(tmp_path).vacuum()
    after = await store(tmp_path).figures()
    assert after.free_pages == 0
    assert (done.before_bytes, done.after_bytes) == (found.file_bytes, after.file_bytes)
    assert after.file_bytes < found.file_bytes
    async with opened(tmp_path) as database:
        assert len(await stored(database)) == COUNT


async def test_an_older_file_can_shrink_once_it_was_written_anew(tmp_path: Path) -> None:
    shutil.copy(PAYLOADS / "schema-1.sqlite3", tmp_path / FILE_NAME)
    assert not (await store(tmp_path, "simulator-7").figures()).gives_back
    await store(tmp_path, "simulator-7").vacuum()
    assert (await store(tmp_path, "simulator-7").figures()).gives_back
