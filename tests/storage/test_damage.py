"""A damaged file, a full disk, a killed process: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from tests.storage.fake_exchange import SYMBOL
from tests.storage.proofs import prove, proved_of
from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.errors import StorageCorruptError, StorageOriginError, StorageUnavailableError
from upbit_backbone.models import CandleSeries, Market, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
    read_markets,
    read_rows,
    write_markets,
    write_rows,
)
from upbit_backbone.storage.database import FILE_NAME, Database
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

KEY = SeriesKey(SYMBOL, Timeframe.M1)
OTHER = SeriesKey("KRW-XRP", Timeframe.M1)
COUNT = 5_000
START_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
WHOLE = Range(START_MS, START_MS + COUNT * MINUTE_MS)


def candles(key: SeriesKey = KEY, count: int = COUNT, start: int = 0) -> CandleSeries:
    rows = [
        (START_MS + n * MINUTE_MS, 5.0 + n % 7, 15.0, 1.0, 5.0 + n % 5, n / 9, n / 3)
        for n in range(start, start + count)
    ]
    return CandleSeries.from_rows(*key, rows, closed_before_ms=None, source="rest", simulated=False)


def keep(sql: Sql, key: SeriesKey = KEY) -> None:
    write_rows(sql, key, candles(key))
    prove(sql, key, WHOLE)


@asynccontextmanager
async def opened(folder: Path, identity: str = "test") -> AsyncIterator[Database]:
    database = Database(folder, Origin(identity))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def fill(folder: Path) -> Path:
    """A file with two series and the list of markets."""
    async with opened(folder) as database:
        await database.write(keep)
        await database.write(partial(keep, key=OTHER))
        await database.write(
            lambda sql: write_markets(sql, (Market(SYMBOL, "비트코인", "Bitcoin"),))
        )
    return folder / FILE_NAME


async def stored(database: Database, key: SeriesKey = KEY) -> CandleSeries:
    return await database.read(
        lambda sql: read_rows(sql, key, Range(0, 1 << 60), None, simulated=False)
    )


async def proved(database: Database, key: SeriesKey = KEY) -> SpanSet:
    return (await database.read(proved_of)).get(key, SpanSet())


def assert_honest(found: CandleSeries, known: SpanSet, key: SeriesKey = KEY) -> None:
    """What is said to be proved is there, and nothing is there that was never written."""
    written = candles(key)
    whole = dict(zip(written.time.tolist(), written, strict=True))
    for at, candle in zip(found.time.tolist(), found, strict=True):
        assert whole[at] == candle
    for span in known:
        assert found.between(*span) == written.between(*span)


def set_aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "set-aside" in path.name)


@pytest.mark.parametrize("text", ["this is a shopping list, not a database\n", "x"])
async def test_a_file_that_is_no_database_is_set_aside_and_nothing_else_lost(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_text(text * 100)
    async with opened(tmp_path) as database:
        assert "could be read and are kept" in database.salvaged
        await database.write(keep)
    assert set_aside(tmp_path) == ["market.set-aside-1.sqlite3"]
    assert (tmp_path / "market.set-aside-1.sqlite3").read_text() == text * 100
    assert "market.set-aside-1.sqlite3" in caplog.text
    caplog.clear()
    async with opened(tmp_path) as database:
        assert database.salvaged == ""
        assert len(await stored(database)) == COUNT
    assert caplog.text == ""


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
async def test_of_a_truncated_file_what_is_left_is_kept_with_its_proof(
    tmp_path: Path, part: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(size * part) // 4096 * 4096)
    async with opened(tmp_path) as database:
        kept = 0
        for key in (KEY, OTHER):
            found, known = await stored(database, key), await proved(database, key)
            assert_honest(found, known, key)
            kept += len(found)
        assert kept > 2 * COUNT * (part - 0.5)
        assert database.salvaged
    assert "set-aside-1" in caplog.text


@pytest.mark.parametrize("seed", range(6))
async def test_of_a_file_with_garbage_in_its_midst_the_rest_is_kept(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    rng = random.Random(seed)
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in rng.sample(range(12, pages), 5):
            file.seek(page * 4096)
            file.write(rng.randbytes(4096))
    # Whoever meets it first tells; the next opening sees to it.
    met: list[BaseException] = []
    async with opened(tmp_path) as database:
        for key in (KEY, OTHER):
            outcome = await asyncio.gather(
                database.read(
                    lambda sql, k=key: list(sql.execute(f"SELECT * FROM {k.table}"))  # type: ignore[misc]
                ),
                return_exceptions=True,
            )
            met += [error for error in outcome if isinstance(error, BaseException)]
    assert all(isinstance(error, StorageCorruptError) for error in met)
    async with opened(tmp_path) as database:
        assert bool(database.salvaged) or not met
        kept = 0
        for key in (KEY, OTHER):
            found, known = await stored(database, key), await proved(database, key)
            assert_honest(found, known, key)
            kept += len(found)
        # Five pages hold some 450 rows, and a block has most of them once more.
        assert kept > 2 * COUNT - 900
        assert await database.read(read_markets)


async def test_rows_that_cannot_be_read_come_from_a_block_that_is_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        ((root,),) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (KEY.table,))
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    async with opened(tmp_path) as database:
        with pytest.raises(StorageCorruptError):
            await database.read(lambda sql: list(sql.execute(f"SELECT * FROM {KEY.table}")))
    async with opened(tmp_path) as database:
        found = await stored(database)
        assert found == candles()
        assert list(await proved(database)) == [WHOLE]
        assert await stored(database, OTHER) == candles(OTHER)


async def test_impossible_rows_are_left_out_and_their_place_is_unknown_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fill(tmp_path)
    at_ms = START_MS + 100 * MINUTE_MS
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("DELETE FROM blocks")
        sql.execute(f"UPDATE {KEY.table} SET high = 'garbage' WHERE open_time = ?", (at_ms,))
        sql.commit()
    (tmp_path / f"{FILE_NAME}.damaged").touch()
    async with opened(tmp_path) as database:
        found, known = await stored(database), await proved(database)
        assert_honest(found, known)
        assert len(found) == COUNT - 1
        assert known.missing(*WHOLE) == [Range(at_ms, at_ms + MINUTE_MS)]


async def test_a_damaged_file_of_another_identity_stays_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path)
    (tmp_path / f"{FILE_NAME}.damaged").touch()
    database = Database(tmp_path, Origin("another"))
    with pytest.raises(StorageOriginError):
        await database.open()
    await database.close()
    assert set_aside(tmp_path) == []


async def test_a_damaged_file_that_another_program_uses_is_not_moved(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    async with opened(tmp_path) as other:
        (tmp_path / f"{FILE_NAME}.damaged").touch()
        database = Database(tmp_path, Origin("test"))
        with pytest.raises(StorageCorruptError, match="another program has it open"):
            await database.open()
        await database.close()
        assert set_aside(tmp_path) == []
        assert len(await stored(other)) == COUNT
    assert path.exists()


@pytest.mark.parametrize("moved", [False, True])
async def test_a_repair_that_was_interrupted_is_finished(tmp_path: Path, moved: bool) -> None:
    """The copy was finished; the damaged file was moved already, or not yet."""
    path = await fill(tmp_path)
    path.rename(tmp_path / f"{FILE_NAME}.finished")
    if not moved:
        path.write_text("damaged")
    async with opened(tmp_path) as database:
        assert await stored(database) == candles()
    assert set_aside(tmp_path) == ([] if moved else ["market.set-aside-1.sqlite3"])


async def test_a_repair_that_was_interrupted_early_begins_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path)
    (tmp_path / f"{FILE_NAME}.damaged").touch()
    (tmp_path / f"{FILE_NAME}.unfinished").write_text("half a copy")
    async with opened(tmp_path) as database:
        assert await stored(database) == candles()
    assert not (tmp_path / f"{FILE_NAME}.unfinished").exists()
    assert not (tmp_path / f"{FILE_NAME}.damaged").exists()


async def test_what_does_not_fit_on_the_disk_leaves_no_rows_and_no_proof(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(partial(keep, key=OTHER))

        def cap(sql: Sql) -> None:
            pages = sql.execute("PRAGMA page_count").fetchone()[0]
            sql.execute(f"PRAGMA max_page_count = {pages + 30}")

        await database.write(cap)
        with pytest.raises(StorageUnavailableError, match="full"):
            await database.write(keep)
        assert len(await stored(database)) == 0
        assert not await proved(database)
        assert await stored(database, OTHER) == candles(OTHER)
        # There is room again.
        await database.write(lambda sql: sql.execute("PRAGMA max_page_count = 1000000"))
        await database.write(keep)
        assert await stored(database) == candles()
        assert list(await proved(database)) == [WHOLE]


LIMITED = """
import asyncio, resource, sys
from functools import partial
from pathlib import Path
from tests.storage.test_damage import KEY, OTHER, keep, opened, stored
from upbit_backbone.errors import StorageUnavailableError

async def main(folder):
    async with opened(folder) as database:
        await database.write(partial(keep, key=OTHER))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            await database.write(keep)
        except StorageUnavailableError as error:
            print(error)
        else:
            raise SystemExit("stored beyond the limit")
        assert len(await stored(database, OTHER)) > 0

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes there")
async def test_files_that_may_not_grow_cost_the_write_and_nothing_else(tmp_path: Path) -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "cannot be used now" in ended.stdout
    async with opened(tmp_path) as database:
        assert await stored(database, OTHER) == candles(OTHER)
        assert len(await stored(database)) == 0
        assert not await proved(database)


READ_ONLY = """
import asyncio, concurrent.futures.thread, os, sys  # whoever it becomes may read no library
from pathlib import Path
from tests.storage.test_damage import opened
from upbit_backbone.errors import StorageUnavailableError

async def main(folder):
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        async with opened(folder):
            pass
    except StorageUnavailableError as error:
        print(error)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(sys.platform == "win32", reason="rights are other ones there")
async def test_a_folder_that_may_only_be_read_is_told_as_such(open_folder: Path) -> None:
    folder = open_folder / "data"
    folder.mkdir()
    path = await fill(folder)
    for name in folder.iterdir():
        name.chmod(0o444)
    folder.chmod(0o555)
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", READ_ONLY, str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "check that the folder can be written" in ended.stdout
    folder.chmod(0o755)
    assert set_aside(folder) == []
    assert path.exists()


WRITING = """
import asyncio, sys
from pathlib import Path
from tests.storage.test_damage import KEY, MINUTE_MS, START_MS, candles, opened
from upbit_backbone.storage.candle_tables import write_rows
from tests.storage.proofs import prove
from upbit_backbone.storage.spans import Range

async def main(folder, begin):
    async with opened(folder) as database:
        at = begin
        while True:
            rows = candles(count=1 + at % 23, start=at)
            span = Range(int(rows.time[0]), int(rows.time[-1]) + MINUTE_MS)

            def work(sql):
                write_rows(sql, KEY, rows)
                prove(sql, KEY, span)

            await database.write(work)
            at += len(rows)
            print(at, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def killed_while_writing(folder: Path, begin: int, after_s: float) -> int:
    """How many candles were acknowledged when the process was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(folder), str(begin)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        acknowledged = int(process.stdout.readline())
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                acknowledged = int(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return acknowledged


async def check_after_a_kill(folder: Path, acknowledged: int) -> int:
    async with opened(folder) as database:
        assert database.salvaged == ""
        found, known = await stored(database), await proved(database)
        assert len(found) >= acknowledged
        assert found == candles(count=len(found))
        assert list(known) == [Range(START_MS, START_MS + len(found) * MINUTE_MS)]
        assert await database.read(
            lambda sql: sql.execute("PRAGMA integrity_check").fetchone()
        ) == ("ok",)
        assert database.counts.damaged_blocks == 0
        return len(found)


async def test_what_was_acknowledged_survives_a_killed_process(tmp_path: Path) -> None:
    acknowledged = await asyncio.to_thread(killed_while_writing, tmp_path, 0, 0.1)
    assert await check_after_a_kill(tmp_path, acknowledged) > 0


@pytest.mark.slow
async def test_what_was_acknowledged_survives_fifty_killed_processes(tmp_path: Path) -> None:
    rng = random.Random(50)
    begin = 0
    for _ in range(50):
        acknowledged = await asyncio.to_thread(
            killed_while_writing, tmp_path, begin, rng.uniform(0.0, 0.3)
        )
        assert acknowledged > begin
        begin = await check_after_a_kill(tmp_path, acknowledged)
