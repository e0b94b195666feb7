"""The log stays short, whoever reads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.test_damage import fill, opened
from upbit_backbone.storage.database import FILE_NAME, Database
from upbit_backbone.storage.sql import Sql

LIMIT_BYTES = 1_000_000
WRITES = 60


def log_bytes(folder: Path) -> int:
    return (folder / f"{FILE_NAME}-wal").stat().st_size


def write_much(sql: Sql, number: int) -> None:
    """Some 25 pages."""
    sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"big {number % 10}", "x" * 100_000))


@pytest.fixture(autouse=True)
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.CHECKPOINT_PAGES", 25)
    monkeypatch.setattr("upbit_backbone.storage.database.LOG_BYTES", LIMIT_BYTES)


async def test_the_log_does_not_grow_while_some_reader_is_always_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each read ends soon, but not on a machine that does something else.
    monkeypatch.setattr("upbit_backbone.storage.database.LOG_WAIT_MS", 4_000)
    begun, over = threading.Event(), threading.Event()
    longest = 0

    def short(sql: Sql) -> None:
        sql.execute("SELECT count(*) FROM meta").fetchall()
        begun.set()
        over.wait(0.01)

    def write_beside_a_reader(sql: Sql, number: int) -> None:
        write_much(sql, number)
        begun.clear()
        # One that sees what was before, and so needs what lies in the file until it ends.
        assert begun.wait(5)

    async with opened(tmp_path) as database:

        async def read_on() -> None:
            while not over.is_set():
                await database.read(short)

        async with asyncio.TaskGroup() as readers:
            for _ in range(4):
                readers.create_task(read_on())
            for number in range(WRITES):
                await database.write(lambda sql, n=number: write_beside_a_reader(sql, n))  # type: ignore[misc]
                longest = max(longest, log_bytes(tmp_path))
            over.set()
    # Six times the limit was written.
    assert longest < 2 * LIMIT_BYTES


async def test_a_read_that_lasts_keeps_the_log_and_holds_no_write_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.LOG_WAIT_MS", 5)
    monkeypatch.setattr("upbit_backbone.storage.database.LOG_PATIENCE_MS", 50)
    tries = 0
    shorten = Database._shorten_log

    async def counted(database: Database) -> None:
        nonlocal tries
        tries += 1
        await shorten(database)

    monkeypatch.setattr(Database, "_shorten_log", counted)
    await fill(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    def lasting(sql: Sql) -> int:
        sql.execute("SELECT count(*) FROM meta").fetchall()
        begun.set()
        assert go_on.wait(10)
        return len(sql.execute("SELECT * FROM meta").fetchall())

    async with opened(tmp_path) as database:
        reading = asyncio.create_task(database.read(lasting))
        await asyncio.to_thread(begun.wait, 5)
        for number in range(50):
            await database.write(lambda sql, n=number: write_much(sql, n))  # type: ignore[misc]
        kept = log_bytes(tmp_path)
        assert kept > 4 * LIMIT_BYTES
        # Not with each write: when it has grown by as much again.
        assert 1 < tries <= kept // LIMIT_BYTES
        # Whoever reads something else waits no longer than that.
        assert await database.read(lambda sql: 7) == 7
        go_on.set()
        # It saw one moment.
        assert await reading == 1
        # SQLite begins it anew by itself now, or it is cut off.
        for number in range(4):
            await database.write(lambda sql, n=number: write_much(sql, n))  # type: ignore[misc]
        assert log_bytes(tmp_path) <= LIMIT_BYTES
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert sql.execute("SELECT count(*) FROM meta").fetchone() == (11,)


async def test_a_log_that_one_large_write_made_long_is_cut_off(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:

        def write_all(sql: Sql) -> None:
            for number in range(30):
                sql.execute("INSERT INTO meta VALUES (?, ?)", (f"{number}", "x" * 100_000))

        await database.write(write_all)
        await database.write(lambda sql: None)
        assert log_bytes(tmp_path) <= LIMIT_BYTES


async def test_the_log_does_not_grow_where_each_read_takes_longer_than_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.LOG_WAIT_MS", 2)
    longest, over = 0, False

    def long(sql: Sql) -> None:
        sql.execute("SELECT count(*) FROM meta").fetchall()
        threading.Event().wait(0.02)

    async with opened(tmp_path) as database:

        async def read_on() -> None:
            while not over:
                await database.read(long)

        async with asyncio.TaskGroup() as readers:
            for _ in range(4):
                readers.create_task(read_on())
            for number in range(300):
                await database.write(lambda sql, n=number: write_much(sql, n))  # type: ignore[misc]
                await asyncio.sleep(0.002)
                longest = max(longest, log_bytes(tmp_path))
            over = True
    # Many times the limit was written.
    assert longest < 10 * LIMIT_BYTES
