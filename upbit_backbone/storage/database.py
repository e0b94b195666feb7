"""The SQLite file of one origin of data: connections, transactions, schema.

All access goes through `aiosqlite`, whose connections own a thread each. A piece of work
is one function that runs there as a whole: one hop a statement would cost ten times as
much. Writes are the writer task's alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import aiosqlite

from upbit_backbone.errors import (
    ClosedError,
    StorageCorruptError,
    StorageError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FILE_NAME = "market.sqlite3"
SCHEMA_VERSION = 1
MAX_BATCH = 256
DRAIN_S = 3.0
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (
    symbol TEXT, timeframe TEXT, table_name TEXT NOT NULL UNIQUE, PRIMARY KEY (symbol, timeframe)
) WITHOUT ROWID;
CREATE TABLE coverage (
    symbol TEXT, timeframe TEXT, start_ms INTEGER, end_ms INTEGER NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, evidence TEXT NOT NULL, known_at_ms INTEGER NOT NULL,
    PRIMARY KEY (symbol, timeframe, start_ms)
) WITHOUT ROWID;
CREATE TABLE markets (
    position INTEGER PRIMARY KEY, symbol TEXT NOT NULL UNIQUE, korean_name TEXT NOT NULL,
    english_name TEXT NOT NULL
);
"""


class Sql(Protocol):
    """What a piece of work may do with the connection, on its thread."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...
    @property
    def in_transaction(self) -> bool: ...


Work = Callable[[Sql], Result]


class Database:
    """One file; `open` it, `read` and `write`, `close` it."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._path = folder / FILE_NAME
        self._origin = origin
        self._tasks = TaskOwner()
        self._queue: asyncio.Queue[tuple[Work[Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._running = False
        self._mark_stored = False

    @property
    def path(self) -> Path:
        return self._path

    async def open(self) -> None:
        """Open the file, making folder, file and schema where they are missing.

        Raises:
            StorageUnavailableError: the folder cannot be written, or the file is locked.
            StorageCorruptError: the file is no database, or of a newer program.
            StorageOriginError: it holds data of another origin.
        """
        try:
            await asyncio.to_thread(self._path.parent.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailableError(
                f"the data folder {self._path.parent} cannot be made"
                f" ({error.strerror or error}): choose a folder that you may write"
                " (--data-dir or UPBIT_BACKBONE_DATA_DIR)"
            ) from error
        try:
            self._writer = await self._connect()
            await self._on_thread(self._writer, _prepare)
            await self._on_thread(self._writer, self._check_identity)
            self._reader = await self._connect()
            await self._on_thread(self._reader, lambda sql: sql.execute("PRAGMA query_only = 1"))
        except BaseException:
            await self._disconnect()
            raise
        self._running = True
        self._tasks.spawn(self._write_batches(), name="storage writer")

    async def close(self) -> None:
        """Finish the queued writes (at most 3 s), then close. May be called twice."""
        # Whoever comes from now on would wait for a writer that is gone.
        self._running = False
        if self._writer is not None:
            try:
                async with asyncio.timeout(DRAIN_S):
                    await self._queue.join()
            except TimeoutError:
                logger.error("some writes were not finished in time")
        await self._tasks.close()
        while not self._queue.empty():
            self._abandon([self._queue.get_nowait()])
        await self._disconnect()

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` on the reading connection's thread."""
        if self._reader is None or not self._running:
            raise ClosedError("the store is closed: open a new service")
        return await self._on_thread(self._reader, work)

    async def write(self, work: Work[Result], *, then: Callable[[], None] | None = None) -> Result:
        """Run `work` inside a transaction; returns when it is committed.

        Safe to cancel: only the waiting ends, the write goes on, and `then` is called on the
        loop when it is committed.
        """
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        # A caller that was cancelled never asks for the error: it is taken as seen.
        done.add_done_callback(lambda future: future.exception() or not then or then())
        self._queue.put_nowait((work, done))
        return await asyncio.shield(done)

    async def _write_batches(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._commit(batch)
            finally:
                self._abandon(batch)
                for _ in batch:
                    self._queue.task_done()

    async def _commit(self, batch: list[tuple[Work[Any], asyncio.Future[Any]]]) -> None:
        assert self._writer is not None
        try:
            results = await self._on_thread(
                self._writer, lambda sql: self._transaction(sql, [work for work, _ in batch])
            )
        except Exception as error:  # noqa: BLE001 - whatever the work raised is its caller's
            if len(batch) == 1 or _is_locked(error):
                for _, done in batch:
                    done.set_exception(error)
                return
            # One bad piece of work must not take the others with it.
            for item in batch:
                await self._commit([item])
            return
        for (_, done), result in zip(batch, results, strict=True):
            done.set_result(result)

    @staticmethod
    def _abandon(batch: list[tuple[Work[Any], asyncio.Future[Any]]]) -> None:
        for _, done in batch:
            if not done.done():
                done.set_exception(ClosedError("the store was closed before the write was done"))

    def _transaction(self, sql: Sql, works: list[Work[Any]]) -> list[Any]:
        sql.execute("BEGIN IMMEDIATE")
        try:
            self._store_mark(sql)
            results = [work(sql) for work in works]
            sql.execute("COMMIT")
        except BaseException:
            _roll_back(sql)
            raise
        return results

    def _store_mark(self, sql: Sql) -> None:
        """Keep the mark that the first answer carried, once something is stored."""
        if not self._mark_stored and self._origin.known:
            mark = self._origin.mark or ""
            sql.execute("INSERT OR IGNORE INTO meta VALUES ('mark', ?)", (mark,))
            # Another program may have stored its own since: then this write must not be.
            ((stored,),) = sql.execute("SELECT value FROM meta WHERE key = 'mark'")
            self._origin.expect(stored or None)
            self._mark_stored = True

    def _check_identity(self, sql: Sql) -> None:
        meta = dict(sql.execute("SELECT key, value FROM meta"))
        if meta.get("identity", self._origin.identity) != self._origin.identity:
            raise StorageOriginError(
                f"{self._path} holds data of {meta['identity']!r}, expected"
                f" {self._origin.identity!r}: it was moved or renamed; put it back, or choose"
                " another data folder (--data-dir)"
            )
        sql.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (self._origin.identity,))
        if "mark" in meta:
            self._origin.expect(meta["mark"] or None)
            self._mark_stored = True

    async def _connect(self) -> aiosqlite.Connection:
        try:
            return await aiosqlite.connect(self._path, isolation_level=None)
        except aiosqlite.Error as error:
            raise self._translated(error) from error

    async def _disconnect(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                await connection.close()
        self._reader = self._writer = None

    async def _on_thread(self, connection: aiosqlite.Connection, work: Work[Result]) -> Result:
        # aiosqlite (pinned) has no public way to run a whole function on its thread.
        run: Callable[..., Awaitable[Any]] = connection._execute
        try:
            return cast(Result, await run(work, connection._conn))
        except aiosqlite.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: aiosqlite.Error) -> StorageError:
        if isinstance(error, aiosqlite.OperationalError):
            return StorageUnavailableError(
                f"{self._path} cannot be used now ({error}): check that the folder can be"
                " written, the disk is not full and no other program holds the file"
            )
        return StorageCorruptError(
            f"{self._path} is damaged ({error}): move it away, and the data is asked again"
        )


async def holds_candles(folder: Path) -> bool:
    """Whether the file in `folder` holds a candle of any series; changes nothing.

    A file that was opened but never written to holds none, and neither does one that cannot
    be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return False
    try:
        async with aiosqlite.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as sql:
            rows = await sql.execute_fetchall("SELECT 1 FROM series LIMIT 1")
            return bool(list(rows))
    except aiosqlite.Error as error:
        logger.warning("%s cannot be read: %s", path, error)
        return False


def _prepare(sql: Sql) -> None:
    sql.execute("PRAGMA busy_timeout = 5000")
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = NORMAL")
    sql.execute("BEGIN IMMEDIATE")
    try:
        ((version,),) = sql.execute("PRAGMA user_version").fetchall()
        if version == 0:
            for statement in _SCHEMA.split(";"):
                sql.execute(statement)
            sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise StorageCorruptError(
                f"the store has schema {version}, expected {SCHEMA_VERSION}: it was written by"
                " a newer program; update this one, or choose another data folder"
            )
        sql.execute("COMMIT")
    except BaseException:
        _roll_back(sql)
        raise


def _roll_back(sql: Sql) -> None:
    # SQLite itself rolls back when the disk is full or fails.
    if sql.in_transaction:
        sql.execute("ROLLBACK")


def _is_locked(error: Exception) -> bool:
    """Whether another program held the file for the whole `busy_timeout`."""
    return getattr(error.__cause__, "sqlite_errorname", "") == "SQLITE_BUSY"
