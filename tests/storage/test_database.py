"""The file: its schema, its owner, its one writer."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from tests.eventually import eventually
from upbit_backbone.call_in_work import CallInWork, working_for
from upbit_backbone.errors import (
    ClosedError,
    StorageCorruptError,
    StorageError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import Priority
from upbit_backbone.storage.database import FILE_NAME, READERS, Database
from upbit_backbone.storage.migrations import SCHEMA_VERSION
from upbit_backbone.storage.sql import Sql


@asynccontextmanager
async def opened(folder: Path, origin: Origin | None = None) -> AsyncIterator[Database]:
    database = Database(folder, origin or Origin("test"))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def remember(value: str) -> Any:
    return lambda sql: sql.execute("INSERT INTO meta VALUES (?, ?)", (value, value))


def kept(folder: Path) -> set[str]:
    """What the file remembers, besides whose it is."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
        rows = sql.execute("SELECT key FROM meta WHERE key NOT IN ('identity', 'mark')")
        return {key for (key,) in rows}


def meta(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
        return dict(sql.execute("SELECT key, value FROM meta"))


async def fail_to_open(folder: Path, origin: Origin | None = None) -> StorageError:
    database = Database(folder, origin or Origin("test"))
    with pytest.raises(StorageError) as caught:
        await database.open()
    await database.close()
    return caught.value


@pytest.mark.both_loops
async def test_a_folder_and_a_file_are_made_where_there_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    async with opened(folder) as database:
        assert database.path == folder / FILE_NAME
        await database.write(remember("x"))
        assert await database.read(lambda sql: sql.execute("PRAGMA journal_mode").fetchone()) == (
            "wal",
        )
    assert kept(folder) == {"x"}
    with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


async def test_data_of_another_identity_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path, Origin("upbit")):
        pass
    before = meta(tmp_path)
    error = await fail_to_open(tmp_path, Origin("simulator-1"))
    assert isinstance(error, StorageOriginError)
    assert "'upbit'" in str(error)
    assert "'simulator-1'" in str(error)
    assert meta(tmp_path) == before == {"identity": "upbit"}


async def test_the_mark_is_stored_with_the_first_write_and_met_again_on_opening(
    tmp_path: Path,
) -> None:
    origin = Origin("local")
    async with opened(tmp_path, origin) as database:
        await database.write(remember("before any answer"))
        assert "mark" not in meta(tmp_path)
        origin.observe("box 7")
        await database.write(remember("after it"))
        assert meta(tmp_path)["mark"] == "box 7"
    again = Origin("local")
    async with opened(tmp_path, again):
        assert (again.known, again.mark) == (True, "box 7")
    with pytest.raises(StorageOriginError, match="box 8"):
        again.observe("box 8")


async def test_a_mark_whose_first_write_failed_is_stored_with_the_next(tmp_path: Path) -> None:
    def fail(sql: Sql) -> None:
        raise ValueError("not SQLite's")

    origin = Origin("local")
    async with opened(tmp_path, origin) as database:
        origin.observe("box 7")
        with pytest.raises(ValueError, match="not SQLite's"):
            await database.write(fail)
        await database.write(remember("after it"))
    assert meta(tmp_path)["mark"] == "box 7"


async def test_data_without_a_mark_is_remembered_as_such(tmp_path: Path) -> None:
    origin = Origin("local")
    async with opened(tmp_path, origin) as database:
        origin.observe(None)
        await database.write(remember("real"))
    again = Origin("local")
    async with opened(tmp_path, again):
        with pytest.raises(StorageOriginError):
            again.observe("box")


async def test_a_mark_met_before_opening_must_be_the_stored_one(tmp_path: Path) -> None:
    first = Origin("local")
    first.observe("box 7")
    async with opened(tmp_path, first) as database:
        await database.write(remember("seven"))
    other = Origin("local")
    other.observe("box 8")
    error = await fail_to_open(tmp_path, other)
    assert isinstance(error, StorageOriginError)
    assert kept(tmp_path) == {"seven"}


async def test_two_programs_with_two_marks_do_not_write_into_one_file(tmp_path: Path) -> None:
    seven, eight = Origin("local"), Origin("local")
    async with opened(tmp_path, seven) as one, opened(tmp_path, eight) as other:
        seven.observe("box 7")
        eight.observe("box 8")
        await one.write(remember("seven"))
        with pytest.raises(StorageOriginError):
            await other.write(remember("eight"))
        with pytest.raises(StorageOriginError):
            await other.write(remember("eight again"))
    assert kept(tmp_path) == {"seven"}
    assert meta(tmp_path)["mark"] == "box 7"


async def test_a_store_of_a_newer_program_is_refused_with_a_clear_sentence(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    error = await fail_to_open(tmp_path)
    assert isinstance(error, StorageCorruptError)
    assert f"schema {SCHEMA_VERSION + 1}, expected {SCHEMA_VERSION}" in str(error)
    assert "newer program" in str(error)


async def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = await fail_to_open(tmp_path / "file" / "data")
    assert isinstance(error, StorageUnavailableError)
    assert str(tmp_path / "file" / "data") in str(error)
    assert "--data-dir" in str(error)


async def test_a_place_taken_by_a_folder_cannot_be_used_now(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    error = await fail_to_open(tmp_path)
    assert isinstance(error, StorageUnavailableError)
    assert stat.S_ISDIR((tmp_path / FILE_NAME).stat().st_mode)


async def test_opening_that_is_cancelled_leaves_no_thread(tmp_path: Path) -> None:
    for turns in range(12):
        database = Database(tmp_path / str(turns), Origin("test"))
        opening = asyncio.create_task(database.open())
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        opening.cancel()
        await asyncio.wait([opening])
        await database.close()


@pytest.mark.parametrize(
    "bad", [ValueError("not SQLite's"), sqlite3.OperationalError("no such table")]
)
async def test_one_bad_piece_of_work_takes_no_other_with_it(tmp_path: Path, bad: Exception) -> None:
    def fail(sql: Sql) -> None:
        sql.execute("INSERT INTO meta VALUES ('half', 'done')")
        raise bad

    async with opened(tmp_path) as database:
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(
                database.write(remember("a")),
                database.write(fail),
                database.write(remember("b")),
                return_exceptions=True,
            )
        assert isinstance(outcomes[1], Exception)
        assert not isinstance(outcomes[0], BaseException)
        assert not isinstance(outcomes[2], BaseException)
        async with asyncio.timeout(5):
            await database.write(remember("c"))
    assert kept(tmp_path) == {"a", "b", "c"}


async def test_an_error_that_rolled_back_already_is_told_and_not_the_rolling_back(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as database:
        await database.write(remember("x"))
        with pytest.raises(StorageError, match="UNIQUE constraint"):
            await database.write(
                lambda sql: sql.execute("INSERT OR ROLLBACK INTO meta VALUES ('x', 'again')")
            )
        await database.write(remember("y"))
    assert kept(tmp_path) == {"x", "y"}


async def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    def fill(sql: Sql) -> None:
        sql.execute("INSERT INTO meta VALUES ('big', ?)", ("x" * 10_000_000,))

    async with opened(tmp_path) as database:

        def cap(sql: Sql) -> None:
            pages = sql.execute("PRAGMA page_count").fetchone()[0]
            sql.execute(f"PRAGMA max_page_count = {pages + 20}")

        await database.write(cap)
        outcomes = await asyncio.gather(
            database.write(fill), database.write(remember("small")), return_exceptions=True
        )
        assert isinstance(outcomes[0], StorageUnavailableError)
        assert "full" in str(outcomes[0])
        assert not isinstance(outcomes[1], BaseException)
    assert kept(tmp_path) == {"small"}


async def test_a_file_that_another_program_writes_is_opened_and_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(remember("a"))
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(3), opened(tmp_path) as database:
            held = await database.read(lambda sql: dict(sql.execute("SELECT * FROM meta")))
            assert held["a"] == "a"


async def test_a_file_locked_by_another_program_fails_all_who_wait_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.write(lambda sql: None)
        assert database._writer is not None
        await database._writer.connection.execute("PRAGMA busy_timeout = 300")
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            started = asyncio.get_running_loop().time()
            outcomes = await asyncio.gather(
                *(database.write(remember(str(n))) for n in range(8)), return_exceptions=True
            )
            took_s = asyncio.get_running_loop().time() - started
            holder.execute("ROLLBACK")
        assert all(isinstance(outcome, StorageUnavailableError) for outcome in outcomes)
        assert all("locked" in str(outcome) for outcome in outcomes)
        # One wait for all of them, not one for each of the eight.
        assert took_s < 1.2
        await database.write(remember("later"))
    assert kept(tmp_path) == {"later"}


async def test_a_caller_that_is_cancelled_abandons_the_waiting_and_not_the_write(
    tmp_path: Path,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(sql: Sql) -> None:
        begun.set()
        assert go_on.wait(5)
        sql.execute("INSERT INTO meta VALUES ('slow', 'slow')")

    async with opened(tmp_path) as database:
        caller = asyncio.create_task(database.write(slow))
        await eventually(begun.is_set)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        go_on.set()
    assert kept(tmp_path) == {"slow"}


async def test_the_error_of_an_abandoned_write_troubles_nobody(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fail(sql: Sql) -> None:
        begun.set()
        assert go_on.wait(5)
        raise sqlite3.OperationalError("too late to matter")

    async with opened(tmp_path) as database:
        caller = asyncio.create_task(database.write(fail))
        await eventually(begun.is_set)
        caller.cancel()
        await asyncio.wait([caller])
        go_on.set()
        await database.write(remember("next"))
    assert kept(tmp_path) == {"next"}


@pytest.mark.both_loops
async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    database = Database(tmp_path, Origin("test"))
    await database.open()
    writes = [asyncio.create_task(database.write(remember(str(n)))) for n in range(600)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*writes)
    assert len(kept(tmp_path)) == 600


async def test_closing_twice_and_without_opening_is_harmless(tmp_path: Path) -> None:
    database = Database(tmp_path, Origin("test"))
    await database.close()
    await database.open()
    await database.close()
    await database.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path, Origin("test"))
    await database.open()
    await database.close()
    with pytest.raises(ClosedError):
        await database.read(lambda sql: None)
    with pytest.raises(ClosedError):
        await database.write(lambda sql: None)


async def test_whoever_comes_while_it_closes_is_told_and_does_not_wait_for_ever(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path, Origin("test"))
    await database.open()
    closing_task = asyncio.create_task(database.close())
    outcomes: list[BaseException | None] = []
    late: list[asyncio.Task[Any]] = []
    while not closing_task.done():
        late.append(asyncio.create_task(database.write(lambda sql: None)))
        late.append(asyncio.create_task(database.read(lambda sql: None)))
        await asyncio.sleep(0)
    await closing_task
    async with asyncio.timeout(2):
        outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), ClosedError}
    assert ClosedError in {type(outcome) for outcome in outcomes}


async def test_a_write_that_outlasts_the_closing_does_not_leave_its_caller_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.DRAIN_S", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def slow(sql: Sql) -> None:
        begun.set()
        assert go_on.wait(5)

    database = Database(tmp_path, Origin("test"))
    await database.open()
    caller = asyncio.create_task(database.write(slow))
    await eventually(begun.is_set)
    behind = asyncio.create_task(database.write(remember("behind")))
    closing_task = asyncio.create_task(database.close())
    await eventually(lambda: "not finished in time" in caplog.text)
    go_on.set()
    await closing_task
    async with asyncio.timeout(2):
        await asyncio.wait([caller, behind])
    assert isinstance(caller.exception(), ClosedError)
    assert isinstance(behind.exception(), ClosedError)


def test_a_process_that_closed_its_store_ends(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from upbit_backbone.origin import Origin
from upbit_backbone.storage.database import Database

async def main():
    database = Database(Path({str(tmp_path)!r}), Origin("test"))
    await database.open()
    await database.write(lambda sql: sql.execute("INSERT INTO meta VALUES ('x', 'y')"))
    await database.close()

asyncio.run(main())
"""
    subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], check=True, timeout=30
    )
    assert kept(tmp_path) == {"x"}


def test_a_process_that_failed_to_open_its_store_ends(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    program = f"""
import asyncio
from pathlib import Path
from upbit_backbone.errors import StorageCorruptError
from upbit_backbone.origin import Origin
from upbit_backbone.storage.database import Database

async def main():
    try:
        await Database(Path({str(tmp_path)!r}), Origin("test")).open()
    except StorageCorruptError:
        return
    raise SystemExit(1)

asyncio.run(main())
"""
    subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], check=True, timeout=30
    )


def test_rows_and_their_proof_survive_a_killed_process_together_or_not_at_all(
    tmp_path: Path,
) -> None:
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.storage.fake_exchange import SYMBOL, series_of
from tests.storage.proofs import prove
from upbit_backbone.models import Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, write_rows
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

class Dying:
    '''Kills the process before its n-th statement.'''
    def __init__(self, sql, left):
        self.sql, self.left = sql, left
    def _count(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
    def execute(self, *args):
        self._count()
        return self.sql.execute(*args)
    def executemany(self, *args):
        self._count()
        return self.sql.executemany(*args)

def write(sql, key, rows, proved):
    write_rows(sql, key, rows)
    prove(sql, key, proved)

async def main(folder, statements):
    database = Database(Path(folder), Origin("test"))
    await database.open()
    key = SeriesKey(SYMBOL, Timeframe.M1)
    for start in (0, 60_000):
        rows = series_of(Timeframe.M1, [start], 10**9)
        last = start > 0
        await database.write(
            lambda sql: write(
                Sql(Dying(sql, statements)) if last else sql, key, rows,
                Range(start, start + 60_000),
            )
        )
    await database.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
    died = 0
    # The second write has some ten statements: table, rows, and coverage by the last two.
    for statements in (4, 8, 9, 50):
        folder = tmp_path / str(statements)
        ended = subprocess.run(
            [sys.executable, "-c", program, str(folder), str(statements)], timeout=30, check=False
        )
        died += ended.returncode != 0
        with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
            opens = [at for (at,) in sql.execute("SELECT open_time FROM candles_KRW_BTC_1m")]
            spans = sql.execute("SELECT start_ms, end_ms FROM coverage").fetchall()
        assert (opens, spans) in (
            [([0], [(0, 60_000)])] if ended.returncode else [([0, 60_000], [(0, 120_000)])]
        )
    assert died == 3


async def test_aiosqlite_still_runs_a_whole_function_on_the_thread_of_its_connection(
    tmp_path: Path,
) -> None:
    """`Database._on_thread` leans on two private names; this fails when an update moves them."""
    connection = await aiosqlite.connect(tmp_path / "x.sqlite3")
    try:
        assert isinstance(connection._conn, sqlite3.Connection)
        assert list(inspect.signature(connection._execute).parameters) == ["fn", "args", "kwargs"]
        thread, answer = await connection._execute(  # type: ignore[no-untyped-call]
            lambda sql: (threading.current_thread(), sql.execute("SELECT 1").fetchone()),
            connection._conn,
        )
        assert thread is not threading.main_thread()
        assert answer == (1,)
    finally:
        await connection.close()


async def test_a_piece_of_work_never_runs_on_the_loops_thread(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        here = threading.get_ident()
        assert await database.read(lambda sql: threading.get_ident()) != here
        assert await database.write(lambda sql: threading.get_ident()) != here


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with pytest.raises(StorageUnavailableError, match="readonly"):
            await database.read(remember("x"))


async def test_a_call_waits_until_its_read_begins(tmp_path: Path) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def hold(_: Sql) -> None:
        begun.release()
        go.wait(10)

    async def read(priority: Priority | None) -> None:
        with nullcontext() if priority is None else working_for(CallInWork(priority)):
            await database.read(hold)

    async with opened(tmp_path) as database:
        busy = [asyncio.create_task(read(Priority.HIGH)) for _ in range(READERS)]
        for _ in range(READERS):
            await asyncio.to_thread(begun.acquire)
        assert database.oldest_wait_s() == {}, "they are being read"
        late = [
            asyncio.create_task(read(priority))
            for priority in (None, Priority.CRITICAL, Priority.CRITICAL, Priority.LOW)
        ]
        await asyncio.sleep(0.05)
        waits_s = database.oldest_wait_s()
        assert waits_s.keys() == {Priority.CRITICAL, Priority.LOW}
        assert 0.03 < waits_s[Priority.CRITICAL] < 5
        late[-1].cancel()
        await asyncio.wait(late[-1:])
        assert database.oldest_wait_s().keys() == {Priority.CRITICAL}
        go.set()
        await asyncio.gather(*busy, *late[:-1])
        assert database.oldest_wait_s() == {}
