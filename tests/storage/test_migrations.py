"""Files of every released schema open and keep what they hold; several programs share a file."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.storage.proofs import proved_of
from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.errors import StorageUnavailableError
from upbit_backbone.models import Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
    read_markets,
    read_rows,
    write_row,
)
from upbit_backbone.storage.database import FILE_NAME, Database
from upbit_backbone.storage.file_lock import FileLock
from upbit_backbone.storage.migrations import SCHEMA_VERSION
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

PAYLOADS = Path(__file__).parent.parent / "payloads" / "storage"
RELEASED = sorted(PAYLOADS.glob("schema-*.sqlite3"))
KEY = SeriesKey("KRW-BTC", Timeframe.M1)
EVER = Range(0, 1 << 60)
INCREMENTAL = 2
ROW = (0, 1.0, 2.0, 0.5, 1.0, 3.0, 4.0)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Database]:
    database = Database(folder, Origin("simulator-7"))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture(params=RELEASED, ids=lambda path: path.stem)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a file as a released program wrote it."""
    shutil.copy(request.param, tmp_path / FILE_NAME)
    return tmp_path


def test_a_file_of_every_schema_before_this_one_is_kept_for_tests() -> None:
    names = [f"schema-{version}.sqlite3" for version in range(1, SCHEMA_VERSION)]
    assert [path.name for path in RELEASED] == names


async def test_an_older_file_is_brought_up_to_date_with_all_it_holds(older: Path) -> None:
    async with opened(older) as database:
        for symbol, timeframe, count in (
            ("KRW-BTC", Timeframe.M1, 130),
            ("KRW-BTC", Timeframe.MO1, 3),
            ("BTC-ETH", Timeframe.D1, 20),
        ):
            key = SeriesKey(symbol, timeframe)
            found = await database.read(
                partial(read_rows, key=key, span=EVER, latest=None, simulated=True)
            )
            assert found.close.tolist() == [100.5 + n for n in range(count)]
            assert found.value.tolist() == [10.0 * (n + 1) for n in range(count)]
            known = (await database.read(proved_of))[key]
            assert [span.start_ms for span in known] == [found.time[0]]
            assert known.end_ms == timeframe.next_ms(int(found.time[-1]))
            shown = await database.read(
                lambda sql, k=key: sql.execute(  # type: ignore[misc]
                    f"SELECT min(timestamp) FROM {k.table}_utc"
                ).fetchone()
            )
            assert shown == (f"{found[0].open_time:%Y-%m-%dT%H:%M:%SZ}",)
        assert [market.korean_name for market in await database.read(read_markets)] == [
            "비트코인",
            "이더리움",
        ]
    with closing(sqlite3.connect(older / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert sql.execute("PRAGMA auto_vacuum").fetchone() == (INCREMENTAL,)
        assert sql.execute("SELECT count(*) FROM usage").fetchone() == (0,)


async def test_a_new_file_can_give_free_pages_back(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA auto_vacuum").fetchone() == (INCREMENTAL,)


async def test_a_large_older_file_is_not_written_anew_while_a_program_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.migrations._SMALL_BYTES", 1)
    shutil.copy(PAYLOADS / "schema-1.sqlite3", tmp_path / FILE_NAME)
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert sql.execute("PRAGMA auto_vacuum").fetchone() == (0,)


async def test_an_older_file_that_a_full_disk_keeps_from_being_written_anew_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(sql: Sql) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("upbit_backbone.storage.migrations.vacuum", full)
    shutil.copy(PAYLOADS / "schema-1.sqlite3", tmp_path / FILE_NAME)
    async with opened(tmp_path) as database:
        assert len(await database.read(read_markets)) == 2


async def test_an_older_file_that_an_older_program_has_open_stays_as_it_is(
    older: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Programs of schema 1 know nothing of the lock beside the file."""
    monkeypatch.setattr("upbit_backbone.storage.database.BUSY_MS", 50)
    with closing(sqlite3.connect(older / FILE_NAME)) as other:
        other.execute("SELECT count(*) FROM candles_KRW_BTC_1m").fetchone()
        database = Database(older, Origin("simulator-7"))
        with pytest.raises(StorageUnavailableError, match="locked"):
            await database.open()
        await database.close()
        schema = other.execute("PRAGMA user_version").fetchone()[0]
        assert f"schema-{schema}" in request.node.name
    async with opened(older):
        pass


async def test_an_older_file_that_another_program_holds_is_not_brought_up_to_date(
    older: Path,
) -> None:
    lock = FileLock(older / f"{FILE_NAME}.lock")
    assert await lock.share(wait_s=0)
    database = Database(older, Origin("simulator-7"))
    try:
        with pytest.raises(StorageUnavailableError, match="close that program"):
            await database.open()
    finally:
        await database.close()
        await lock.release()
    async with opened(older):
        pass


async def test_the_lock_is_shared_or_one_has_it_alone(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    try:
        assert await one.share(wait_s=0)
        assert await other.share(wait_s=0)
        assert not await other.exclude()
        assert await other.share(wait_s=0)
        await one.release()
        assert await other.exclude()
        assert not await one.share(wait_s=0)
        await other.release()
        await other.release()
        assert await one.exclude()
    finally:
        await one.release()
        await other.release()


async def test_whoever_opens_a_file_that_is_being_replaced_waits_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.LOCK_WAIT_S", 0.05)
    async with opened(tmp_path):
        pass
    lock = FileLock(tmp_path / f"{FILE_NAME}.lock")
    assert await lock.exclude()
    database = Database(tmp_path, Origin("simulator-7"))
    try:
        with pytest.raises(StorageUnavailableError, match="by another program: try again"):
            await database.open()
    finally:
        await database.close()
        await lock.release()


async def test_what_another_program_writes_is_told_and_its_own_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        told: list[str] = []
        one.watch(lambda: told.append("one"))
        other.watch(lambda: told.append("other"))
        await one.write(lambda sql: write_row(sql, KEY, ROW))
        await eventually(lambda: told == ["other"])
        # With a write of one's own it is noticed at once.
        await other.write(lambda sql: write_row(sql, KEY, (MINUTE_MS, *ROW[1:])))
        await one.write(lambda sql: None)
        assert told == ["other", "one"]


async def test_blocks_that_another_program_made_are_dropped_like_ones_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        await one.write(lambda sql: write_row(sql, KEY, ROW))

        def fill(sql: Sql) -> None:
            for n in range(400):
                write_row(sql, KEY, (n * MINUTE_MS, *ROW[1:]))

        await other.write(fill)
        await one.write(lambda sql: write_row(sql, KEY, (150 * MINUTE_MS, 1.0, 9.0, 1, 9.0, 1, 1)))
        for database in (one, other):
            found = await database.read(
                partial(read_rows, key=KEY, span=EVER, latest=None, simulated=True)
            )
            assert len(found) == 400
            assert found.close[150] == 9.0


async def test_a_read_sees_one_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(lambda sql: write_row(sql, KEY, ROW))
        loop = asyncio.get_running_loop()

        def read_twice(sql: object) -> tuple[int, int]:
            count = "SELECT count(*) FROM candles_KRW_BTC_1m"
            ((first,),) = sql.execute(count)  # type: ignore[attr-defined]
            write = database.write(lambda sql: write_row(sql, KEY, (MINUTE_MS, *ROW[1:])))
            asyncio.run_coroutine_threadsafe(write, loop).result(5)
            ((second,),) = sql.execute(count)  # type: ignore[attr-defined]
            return first, second

        assert await database.read(read_twice) == (1, 1)
        ((now,),) = await database.read(
            lambda sql: sql.execute("SELECT count(*) FROM candles_KRW_BTC_1m").fetchall()
        )
        assert now == 2


async def test_one_long_read_does_not_hold_up_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        begun, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def long(sql: object) -> bool:
            loop.call_soon_threadsafe(begun.set)
            return bool(go_on.wait(5))

        waiting = asyncio.create_task(database.read(long))
        await begun.wait()
        async with asyncio.timeout(2):
            assert await database.read(lambda sql: sql.execute("SELECT 1").fetchone()) == (1,)
        go_on.set()
        assert await waiting
