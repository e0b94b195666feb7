"""The SQLite file of one origin of data: connections, transactions, schema, damage.

All access goes through `aiosqlite`, whose connections own a thread each. A piece of work
is one function that runs there as a whole: one hop a statement would cost ten times as
much. Writes are the writer task's alone; several readers take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from upbit_backbone.errors import (
    ClosedError,
    StorageCorruptError,
    StorageError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.storage import damage
from upbit_backbone.storage.file_lock import FileLock
from upbit_backbone.storage.migrations import (
    SCHEMA_VERSION,
    NewerSchemaError,
    create,
    migrate,
    schema_version,
)
from upbit_backbone.storage.sql import Sql, TierCounts, Work, is_damage
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FILE_NAME = "market.sqlite3"
MAX_BATCH = 256
DRAIN_S = 3.0
READERS = 2
BUSY_MS = 5_000
"""How long a statement waits for another program's."""
LOCK_WAIT_S = 5.0
"""How long another program may bring the file up to date meanwhile."""
LOOK_S = 1.0
"""How often to look whether another program has written."""
CACHE_KB = 16_000
"""Of pages, a connection, at most: the newest page of each of 700 series fits in."""
CHECKPOINT_PAGES = 4_000
"""The log's length: a minute of 700 series writes 700 pages and more, the same ones each minute,
so that four minutes are moved into the file at the cost of one."""
CACHED_STATEMENTS = 2_048
"""Each series has statements of its own: hundreds of them are written every minute."""


class _Line:
    """One connection with its thread."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self.sql = Sql(connection._conn)
        self.waiting = 0
        """How many pieces of work wait for it or run."""


class Database:
    """One file; `open` it, `read` and `write`, `close` it."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._path = folder / FILE_NAME
        self._files = damage.Files(self._path)
        self._lock = FileLock(self._files.lock)
        self._origin = origin
        self._tasks = TaskOwner()
        self._queue: asyncio.Queue[tuple[Work[Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._writer: _Line | None = None
        self._readers: list[_Line] = []
        self._running = False
        self._mark_stored = False
        self._data_version: int | None = None
        self._written_elsewhere = False
        self._watchers: list[Callable[[], None]] = []
        self.salvaged = ""
        """What happened to a damaged file at opening, in a sentence; empty when nothing did."""

    @property
    def path(self) -> Path:
        return self._path

    @property
    def counts(self) -> TierCounts:
        """What was read from blocks and from rows since opening."""
        total = TierCounts()
        for line in self._readers:
            total.from_blocks += line.sql.counts.from_blocks
            total.from_rows += line.sql.counts.from_rows
            total.damaged_blocks += line.sql.counts.damaged_blocks
        return total

    def watch(self, written_elsewhere: Callable[[], None]) -> None:
        """Be told, on the loop, when another program has written: what memory holds may be old.

        It is noticed with the next write here, at the latest after `LOOK_S`.
        """
        self._watchers.append(written_elsewhere)

    async def open(self) -> None:
        """Open the file, making folder, file and schema where they are missing.

        A file of an older schema is brought up to date. Of a damaged one everything that can be
        read is copied into a new one, and it is set aside (`salvaged` and a warning tell of it).

        Raises:
            StorageUnavailableError: the folder cannot be written, or the file is locked.
            StorageCorruptError: the file is of a newer program; or it is damaged, and cannot be
                set aside because another program has it open.
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
            await self._share()
            await self._open_writer()
            for _ in range(READERS):
                reader = await self._connect(self._path)
                self._readers.append(reader)
                await self._on_thread(reader, lambda sql: sql.execute("PRAGMA query_only = 1"))
            assert self._writer is not None
            # What others write from here on is noticed; before, nobody has read anything.
            await self._on_thread(self._writer, self._look)
        except BaseException:
            await self._disconnect()
            raise
        self._running = True
        self._tasks.spawn(self._write_batches(), name="storage writer")
        self._tasks.spawn(self._look_out(), name="storage lookout")

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
        """Run `work` on a reading connection's thread, in a transaction: it sees one moment.

        What was written (awaited) before is among what it sees. Safe to cancel: only the
        waiting ends.
        """
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        reader = min(self._readers, key=lambda line: line.waiting)
        reader.waiting += 1
        try:
            return await self._on_thread(reader, lambda sql: _at_one_moment(sql, work))
        finally:
            reader.waiting -= 1
            self._grant_wishes(reader)

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
        self._tell_watchers()
        for (_, done), result in zip(batch, results, strict=True):
            done.set_result(result)
        self._grant_wishes(self._writer)

    def _grant_wishes(self, line: _Line) -> None:
        """Have the writer do what readers left, e.g. make a damaged block again."""
        while self._running and line.sql.wishes:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # Nobody waits for it; it is wished again when it fails.
            done.add_done_callback(lambda future: future.exception())
            self._queue.put_nowait((line.sql.wishes.popleft(), done))

    async def _look_out(self) -> None:
        """Notice what other programs write while nothing is written here."""
        while True:
            await asyncio.sleep(LOOK_S)
            assert self._writer is not None
            try:
                await self._on_thread(self._writer, self._look)
            except StorageError as error:
                logger.debug("the store could not be looked at: %s", error)
            self._tell_watchers()

    def _look(self, sql: Sql) -> None:
        # It changes by what other connections commit, and only this one writes here.
        ((version,),) = sql.execute("PRAGMA data_version")
        if self._data_version not in (None, version):
            sql.learnt.forget()
            self._written_elsewhere = True
        self._data_version = version

    def _tell_watchers(self) -> None:
        if self._written_elsewhere:
            self._written_elsewhere = False
            for watcher in self._watchers:
                watcher()

    @staticmethod
    def _abandon(batch: list[tuple[Work[Any], asyncio.Future[Any]]]) -> None:
        for _, done in batch:
            if not done.done():
                done.set_exception(ClosedError("the store was closed before the write was done"))

    def _transaction(self, sql: Sql, works: list[Work[Any]]) -> list[Any]:
        sql.execute("BEGIN IMMEDIATE")
        try:
            self._look(sql)
            self._store_mark(sql)
            results = [work(sql) for work in works]
            sql.execute("COMMIT")
        except BaseException:
            sql.roll_back()
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

    async def _share(self) -> None:
        try:
            shared = await self._lock.share(wait_s=LOCK_WAIT_S)
        except aiosqlite.Error as error:
            raise self._translated(error) from error
        if not shared:
            raise StorageUnavailableError(
                f"{self._path} is being brought up to date or mended by another program: try again"
                " when it is done"
            )

    async def _open_writer(self) -> None:
        try:
            if await asyncio.to_thread(self._files.finished.exists):
                await self._exclude("its repair was interrupted and has to be finished")
                await asyncio.to_thread(self._files.replace)
                await self._share()
            version = await self._try_to_open()
        except NewerSchemaError:
            raise
        except StorageCorruptError as error:
            await self._close_writer()
            await self._set_aside(error)
            version = await self._try_to_open()
        if version < SCHEMA_VERSION:
            await self._exclude(
                f"it has schema {version} and has to be brought to schema {SCHEMA_VERSION}"
            )
            await self._on_thread(self._line(), migrate)
            await self._share()

    async def _try_to_open(self) -> int:
        self._writer = await self._connect(self._path)
        version = await self._on_thread(self._writer, self._prepare)
        await self._on_thread(self._writer, self._check_identity)
        return version

    def _prepare(self, sql: Sql) -> int:
        if schema_version(sql) == 0:
            create(sql)
        version = schema_version(sql)
        sql.execute("PRAGMA journal_mode = WAL")
        if self._files.marker.exists():
            raise StorageCorruptError(f"{self._path} was found damaged while it was used")
        if damage.shorter_than_it_says(sql, self._path):
            raise StorageCorruptError(f"{self._path} is damaged (its end is missing)")
        damage.read_small_tables(sql)
        return version

    async def _exclude(self, reason: str) -> None:
        """Have the file alone, for what replaces or rewrites all of it."""
        if not await self._lock.exclude():
            raise StorageUnavailableError(
                f"{self._path} is open in another program, and {reason}: close that program, then"
                " start this one again"
            )

    async def _set_aside(self, cause: StorageCorruptError) -> None:
        """Copy what can be read of a damaged file into a new one that takes its place."""
        if not await self._lock.exclude():
            raise StorageCorruptError(
                f"{cause}; another program has it open, so it cannot be mended now: close that"
                " program, then start this one again"
            ) from cause
        await asyncio.to_thread(self._files.discard_unfinished)
        source = await aiosqlite.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            found = await self._copy_from(source)
        finally:
            await source.close()
        await asyncio.to_thread(self._files.finish)
        aside = await asyncio.to_thread(self._files.replace)
        self.salvaged = (
            f"{cause}: {found.candles} candles of {found.series} series could be read and are"
            f" kept, what is missing is asked again; the damaged file is now {aside}"
        )
        logger.warning("%s", self.salvaged)
        await self._share()

    async def _copy_from(self, source: aiosqlite.Connection) -> damage.Salvaged:
        line = await self._connect(self._files.unfinished)
        try:
            return await self._on_thread(line, lambda sql: self._copy(sql, source._conn))
        finally:
            await line.connection.close()

    def _copy(self, sql: Sql, source: Any) -> damage.Salvaged:
        create(sql)
        sql.execute("BEGIN IMMEDIATE")
        try:
            # Only so does SQLite read a file whose end is missing.
            source.execute("PRAGMA writable_schema = ON")
            found = damage.copy(sql, source, self._origin.identity)
            sql.execute("COMMIT")
        except BaseException:
            sql.roll_back()
            raise
        return found

    def _line(self) -> _Line:
        assert self._writer is not None
        return self._writer

    async def _connect(self, path: Path) -> _Line:
        try:
            connection = await aiosqlite.connect(
                path, isolation_level=None, cached_statements=CACHED_STATEMENTS
            )
        except aiosqlite.Error as error:
            raise self._translated(error) from error
        line = _Line(connection)
        try:
            await self._on_thread(line, _set_up)
        except BaseException:
            await connection.close()
            raise
        return line

    async def _close_writer(self) -> None:
        if self._writer is not None:
            await self._writer.connection.close()
            self._writer = None

    async def _disconnect(self) -> None:
        while self._readers:
            await self._readers.pop().connection.close()
        await self._close_writer()
        await self._lock.release()

    async def _on_thread(self, line: _Line, work: Work[Result]) -> Result:
        # aiosqlite (pinned) has no public way to run a whole function on its thread.
        run: Callable[..., Awaitable[Any]] = line.connection._execute
        try:
            return cast(Result, await run(self._marking_damage, line.sql, work))
        except aiosqlite.Error as error:
            raise self._translated(error) from error

    def _marking_damage(self, sql: Sql, work: Work[Result]) -> Result:
        try:
            return work(sql)
        except aiosqlite.Error as error:
            sql.met_damage = sql.met_damage or is_damage(error)
            raise
        finally:
            if sql.met_damage and self._running:
                self._files.marker.touch()

    def _translated(self, error: aiosqlite.Error) -> StorageError:
        if isinstance(error, aiosqlite.OperationalError):
            return StorageUnavailableError(
                f"{self._path} cannot be used now ({error}): check that the folder can be"
                " written, the disk is not full and no other program holds the file"
            )
        return StorageCorruptError(f"{self._path} is damaged ({error})")


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


def _set_up(sql: Sql) -> None:
    sql.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    sql.execute("PRAGMA synchronous = NORMAL")
    sql.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    sql.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _at_one_moment(sql: Sql, work: Work[Result]) -> Result:
    sql.execute("BEGIN")
    try:
        return work(sql)
    finally:
        # Nothing was written. A COMMIT fails again where a statement has failed and was survived.
        if sql.in_transaction:
            sql.execute("ROLLBACK")


def _is_locked(error: Exception) -> bool:
    """Whether another program held the file for the whole `busy_timeout`."""
    return getattr(error.__cause__, "sqlite_errorname", "") == "SQLITE_BUSY"
