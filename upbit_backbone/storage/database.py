"""The SQLite file of one origin of data: connections, transactions, schema, damage.

All access goes through `aiosqlite`, whose connections own a thread each. A piece of work
is one function that runs there as a whole: one hop a statement would cost ten times as
much. Writes are the writer task's alone; several readers take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite

from upbit_backbone.call_in_work import call_in_work
from upbit_backbone.errors import (
    ClosedError,
    StorageCorruptError,
    StorageError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import Priority
from upbit_backbone.storage import damage
from upbit_backbone.storage.file_lock import FileLock
from upbit_backbone.storage.line import Line, connected
from upbit_backbone.storage.migrations import (
    SCHEMA_VERSION,
    NewerSchemaError,
    create,
    expect_store,
    migrate,
    schema_version,
)
from upbit_backbone.storage.sql import Sql, TierCounts, Work, is_damage
from upbit_backbone.storage.write_ahead_log import cut_off, length_bytes
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
ALONE_WAITS_S = (0.2, 0.4, 0.8, 0.8)
"""How long others are waited for who have the file open, each time that it has to be had alone.
Two that meet it so at one moment let go both: one is first, the other looks again."""
LOOK_S = 1.0
"""How often to look whether another program has written."""
CACHE_KB = 16_000
"""Of pages, a connection, at most: the newest page of each of 700 series fits in."""
CHECKPOINT_PAGES = 4_000
"""The log's length: a minute of 700 series writes 700 pages and more, the same ones each minute,
so that four minutes are moved into the file at the cost of one."""
LOG_BYTES = 64 << 20
"""Four times the length at which it is moved into the file: some reader is always busy."""
LOG_WAIT_MS = 250
"""How long reads under way, and then those of other programs, are waited for then."""
LOG_PATIENCE_MS = 5_000
"""The same when reads lasted longer the last time: writes go on, and no read begins meanwhile."""
CACHED_STATEMENTS = 2_048
"""Each series has statements of its own: hundreds of them are written every minute."""


class _Need(NamedTuple):
    """What has to be done to the file before it can be used, while nobody else has it open."""

    see_to_it: Callable[[], Awaitable[None]]
    refusal: StorageError
    """What is said when somebody else has."""


class Database:
    """One file; `open` it, `read` and `write`, `close` it."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._path = folder / FILE_NAME
        self._files = damage.Files(self._path)
        self._lock = FileLock(self._files.lock)
        self._origin = origin
        self._tasks = TaskOwner()
        self._queue: asyncio.Queue[tuple[Work[Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._writer: Line | None = None
        self._readers: list[Line] = []
        self._running = False
        self._writes = False
        """The writer is there."""
        self._mark_stored = False
        self._marked_damaged: bool | None = None
        """Whether the next opening will know of damage; None: there was none yet."""
        self._log_limit_bytes = LOG_BYTES
        self._log_is_long = False
        self._log_is_shortened = False
        self._reads_last = False
        """Reads under way did not end in time when the log was to be cut off last."""
        self._reads_go_on = asyncio.Event()
        self._reads_go_on.set()
        self._read_ended = asyncio.Event()
        self._waits: dict[object, tuple[Priority, float]] = {}
        """Calls whose read has not begun, and since when they wait for it, by the loop's time."""
        self._data_version: int | None = None
        self._written_elsewhere = False
        self._watchers: list[Callable[[], None]] = []
        self.works = 0
        """How many pieces of work were asked for: while it stands, nobody uses the file."""
        self.salvaged = ""
        """What happened to a damaged file at opening, in a sentence; empty when nothing did."""

    @property
    def path(self) -> Path:
        return self._path

    @property
    def files(self) -> damage.Files:
        """The file, and the names that go with it."""
        return self._files

    @property
    def counts(self) -> TierCounts:
        """What was read from blocks and from rows since opening."""
        total = TierCounts()
        for line in self._readers:
            total.from_blocks += line.sql.counts.from_blocks
            total.from_rows += line.sql.counts.from_rows
            total.damaged_blocks += line.sql.counts.damaged_blocks
        if self._writer is not None:
            # What the writer reads, it compares; nobody asked for it.
            total.damaged_blocks += self._writer.sql.counts.damaged_blocks
        return total

    @property
    def lost(self) -> str:
        """Which of its tasks is gone, without which nothing is written; empty while all run."""
        return self._tasks.lost

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
            StorageOriginError: it holds data of another origin, or is another program's.
        """
        try:
            await asyncio.to_thread(self._path.parent.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailableError(
                f"the data folder {self._path.parent} cannot be made"
                f" ({error.strerror or error}): choose a folder that you may write"
                " (--data-dir or UPBIT_BACKBONE_DATA_DIR)"
            ) from error
        self.salvaged = ""
        try:
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
        self._running = self._writes = True
        self._tasks.spawn(self._write_batches(), name="storage writer", vital=True)
        self._tasks.spawn(self._look_out(), name="storage lookout", vital=True)

    async def close(self) -> None:
        """Finish the queued writes (at most 3 s), then close. May be called twice.

        Cancelled, it closes all the same when the write that runs has ended, and leaves the rest.
        """
        # Whoever comes from now on would wait for a writer that is gone.
        self._running = False
        try:
            await self._drain()
        finally:
            try:
                await self._tasks.close()
            finally:
                while not self._queue.empty():
                    self._abandon([self._queue.get_nowait()])
                await self._disconnect()

    async def _drain(self) -> None:
        if self._writer is not None:
            try:
                async with asyncio.timeout(DRAIN_S):
                    await self._queue.join()
            except TimeoutError:
                logger.error("some writes were not finished in time")

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` on a reading connection's thread, in a transaction: it sees one moment.

        What was written (awaited) before is among what it sees. Safe to cancel: only the
        waiting ends.
        """
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        self.works += 1
        call, turn = call_in_work(), object()
        if call is not None:
            self._waits[turn] = call.priority, asyncio.get_running_loop().time()

        def begun(sql: Sql) -> Result:
            self._waits.pop(turn, None)
            return seen_at_one_moment(sql, work)

        try:
            if not self._reads_go_on.is_set():
                await self._reads_go_on.wait()
                if not self._running:
                    raise ClosedError("the store is closed: open a new service")
            return await self._read(begun)
        finally:
            self._waits.pop(turn, None)

    async def _read(self, work: Work[Result]) -> Result:
        reader = min(self._readers, key=lambda line: line.waiting)
        reader.waiting += 1
        try:
            return await self._on_thread(reader, work)
        finally:
            reader.waiting -= 1
            self._read_ended.set()
            self._grant_wishes(reader)

    def oldest_wait_s(self) -> dict[Priority, float]:
        """How long the oldest call of each priority has waited for its turn to read."""
        now, waits_s = asyncio.get_running_loop().time(), dict[Priority, float]()
        for priority, since_s in tuple(self._waits.values()):  # threads take out of it
            waits_s[priority] = max(now - since_s, waits_s.get(priority, 0.0))
        return waits_s

    async def write(self, work: Work[Result], *, then: Callable[[], None] | None = None) -> Result:
        """Run `work` inside a transaction; returns when it is committed.

        Safe to cancel: only the waiting ends, the write goes on, and `then` is called on the
        loop when it is committed.
        """
        return await asyncio.shield(self.enqueue(work, then=then))

    def enqueue(
        self, work: Work[Result], *, then: Callable[[], None] | None = None
    ) -> asyncio.Future[Result]:
        """The same without waiting; the result must not be cancelled.

        It is written even if the store is closed next.
        """
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        if not self._writes:
            raise StorageUnavailableError("the store's writer is gone: it is opened anew")
        self.works += 1
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        # A caller that was cancelled never asks for the error: it is taken as seen.
        done.add_done_callback(lambda future: future.exception() or not then or then())
        self._queue.put_nowait((work, done))
        return done

    async def tend(self, work: Work[Result]) -> Result:
        """Run `work` on the writer's thread between two batches, in no transaction.

        For what SQLite refuses inside one. Writes wait for it: it has to be short.
        """
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        return await self._on_thread(self._line(), work)

    async def inspect(self, work: Work[Result], *, at_one_moment: bool = True) -> Result:
        """Run `work`, which may take long, on a reading connection of its own.

        Readers and writes go on meanwhile. Cancelled, SQLite is told to stop at once.

        Args:
            work: Writes nothing.
            at_one_moment: In a transaction, as in `read`.
        """
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        line = await self._connect(self._path)
        try:
            await self._on_thread(line, lambda sql: sql.execute("PRAGMA query_only = 1"))
            if not at_one_moment:
                return await self._on_thread(line, work)
            return await self._on_thread(line, lambda sql: seen_at_one_moment(sql, work))
        finally:
            await line.stop()

    async def _write_batches(self) -> None:
        try:
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
                if self._log_is_long and not self._log_is_shortened:
                    self._log_is_shortened = True
                    if self._reads_last:
                        self._tasks.spawn(self._shorten_log(), name="storage log")
                    else:
                        await self._shorten_log()
        finally:
            # Whoever waits, or comes, would wait for ever for a writer that is gone.
            self._writes = False
            while not self._queue.empty():
                self._abandon([self._queue.get_nowait()])
                self._queue.task_done()

    async def _shorten_log(self) -> None:
        """Begin the log anew: by itself SQLite does so only in a moment without a reader.

        Reads wait meanwhile. Where one begins before the other ends, that moment never comes.
        """
        wait_ms = LOG_PATIENCE_MS if self._reads_last else LOG_WAIT_MS
        self._reads_go_on.clear()
        done = False
        try:
            async with asyncio.timeout(wait_ms / 1_000):
                while any(line.waiting for line in self._readers):
                    self._read_ended.clear()
                    await self._read_ended.wait()
            self._reads_last = False
            done = await self._on_thread(self._line(), partial(cut_off, wait_ms=LOG_WAIT_MS))
        except TimeoutError:
            self._reads_last = True
        except StorageError as error:
            logger.debug("the log could not be cut off: %s", error)
        finally:
            self._reads_go_on.set()
            self._log_is_shortened = False
        # Somebody reads for long: tried again when it has grown by as much once more.
        grown = 0 if done else await asyncio.to_thread(length_bytes, self._path)
        self._log_limit_bytes = LOG_BYTES + grown
        self._log_is_long = False

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
        waiting = deque(zip(batch, results, strict=True))
        try:
            while waiting:
                (_, done), result = waiting.popleft()
                done.set_result(result)
                # What its caller does then is done in this turn of the loop, the next one's in
                # the next: hundreds at once would hold everybody up.
                await asyncio.sleep(0)
        finally:
            for (_, done), result in waiting:
                done.set_result(result)
        self._grant_wishes(self._writer)

    def _grant_wishes(self, line: Line) -> None:
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
        if self._written_elsewhere and self._running:
            self._written_elsewhere = False
            for watcher in self._watchers:
                try:
                    watcher()
                except Exception:
                    # It runs in the tasks that everything else depends on.
                    logger.exception("what another program wrote was not taken over")

    @staticmethod
    def _abandon(batch: list[tuple[Work[Any], asyncio.Future[Any]]]) -> None:
        for _, done in batch:
            if not done.done():
                done.set_exception(ClosedError("the store was closed before the write was done"))

    def _transaction(self, sql: Sql, works: list[Work[Any]]) -> list[Any]:
        sql.execute("BEGIN IMMEDIATE")
        try:
            self._look(sql)
            marked = self._store_mark(sql)
            results = [work(sql) for work in works]
            sql.execute("COMMIT")
        except BaseException:
            sql.roll_back()
            raise
        self._mark_stored = marked
        self._log_is_long = length_bytes(self._path) > self._log_limit_bytes
        return results

    def _store_mark(self, sql: Sql) -> bool:
        """Keep the mark that the first answer carried; whether it is stored once this commits."""
        if self._mark_stored or not self._origin.known:
            return self._mark_stored
        mark = self._origin.mark or ""
        sql.execute("INSERT OR IGNORE INTO meta VALUES ('mark', ?)", (mark,))
        # Another program may have stored its own since: then this write must not be.
        ((stored,),) = sql.execute("SELECT value FROM meta WHERE key = 'mark'")
        self._origin.expect(stored or None)
        return True

    def _check_identity(self, sql: Sql) -> None:
        meta = dict(sql.execute("SELECT key, value FROM meta"))
        if meta.get("identity", self._origin.identity) != self._origin.identity:
            raise StorageOriginError(
                f"{self._path} holds data of {meta['identity']!r}, expected"
                f" {self._origin.identity!r}: it was moved or renamed; put it back, or choose"
                " another data folder (--data-dir)"
            )
        if "identity" not in meta:  # even one that is ignored waits for another program's writing
            row = ("identity", self._origin.identity)
            sql.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", row)
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
        """Open the file under the shared hold: nobody puts another in its place then.

        What has to be done to it first is done while neither another program nor a connection
        of ours is at it; afterwards it is opened anew.
        """
        waits_s = iter(ALONE_WAITS_S)
        while True:
            await self._share()
            need = await self._need()
            if need is None:
                return
            await self._close_writer()
            wait_s = next(waits_s, None)
            if wait_s is None:
                raise need.refusal
            if await self._lock.exclude(wait_s=wait_s):
                # Another program may have seen to it between the two holds.
                need = await self._need()
                if need is not None:
                    await need.see_to_it()
                await self._close_writer()

    async def _need(self) -> _Need | None:
        """Open the writer, or tell what has to be done first."""
        if await asyncio.to_thread(self._files.finished.exists):
            return _Need(self._replace, self._in_use("another file has to take its place"))
        if await asyncio.to_thread(self._files.is_emptied):
            return _Need(self._begin_anew, self._in_use("it is empty and has to be begun anew"))
        try:
            version = await self._try_to_open()
        except NewerSchemaError:
            raise
        except StorageCorruptError as error:
            if self.salvaged:
                raise
            return _Need(
                partial(self._set_aside, error),
                StorageCorruptError(
                    f"{error}; another program has it open, so it cannot be mended now: close that"
                    " program, then start this one again"
                ),
            )
        if version < SCHEMA_VERSION:
            reason = f"it has schema {version} and has to be brought to schema {SCHEMA_VERSION}"
            return _Need(self._migrate, self._in_use(reason))
        return None

    def _in_use(self, reason: str) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"{self._path} is open in another program, and {reason}: close that program, then"
            " start this one again"
        )

    async def _replace(self) -> None:
        await asyncio.to_thread(self._files.replace)

    async def _migrate(self) -> None:
        await self._on_thread(self._line(), migrate)

    async def _begin_anew(self) -> None:
        aside = await asyncio.to_thread(self._files.begin_anew)
        self.salvaged = (
            f"{self._path} is empty, as a file is that was cut off: candles that it held are asked"
            " again"
        )
        if aside is not None:
            self.salvaged += f"; what had not been moved into it yet lies beside {aside}"
        logger.warning("%s", self.salvaged)

    async def _try_to_open(self) -> int:
        self._writer = await self._connect(self._path)
        version = await self._on_thread(self._writer, self._prepare)
        await self._on_thread(self._writer, self._check_identity)
        return version

    def _prepare(self, sql: Sql) -> int:
        expect_store(sql, self._path)
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

    async def _set_aside(self, cause: StorageCorruptError) -> None:
        """Copy what can be read of a damaged file into a new one that takes its place."""
        await self._close_writer()
        await asyncio.to_thread(self._files.discard_unfinished)
        source = await connected(self._path, isolation_level=None, check_same_thread=False)
        try:
            found = await self._copy_from(source)
        except StorageUnavailableError as error:
            # Half a copy is worth nothing, and the disk may be full.
            await asyncio.to_thread(self._files.discard_unfinished)
            raise StorageUnavailableError(f"{cause}, and cannot be mended now: {error}") from error
        finally:
            await source.close()
        await asyncio.to_thread(self._files.finish)
        aside = await asyncio.to_thread(self._files.replace)
        self.salvaged = (
            f"{cause}: {found.candles} candles of {found.series} series could be read and are"
            f" kept, what is missing is asked again; the damaged file is now {aside}"
        )
        logger.warning("%s", self.salvaged)

    async def _copy_from(self, source: aiosqlite.Connection) -> damage.Salvaged:
        line = await self._connect(self._files.unfinished)
        try:
            return await self._on_thread(line, lambda sql: self._copy(sql, source._conn))
        finally:
            await line.connection.close()

    def _copy(self, sql: Sql, source: Any) -> damage.Salvaged:
        create(sql)
        # Without a log all of it is in the one file that gets the name, or its COMMIT fails.
        sql.execute("PRAGMA journal_mode = DELETE").fetchall()
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute("BEGIN IMMEDIATE")
        try:
            # Only so does SQLite read a file whose end is missing.
            source.execute("PRAGMA writable_schema = ON")
            # One letter that is none must not end the reading of a table.
            source.text_factory = lambda text: text.decode(errors="replace")
            found = damage.copy(sql, source, self._origin.identity)
            sql.execute("COMMIT")
        except BaseException:
            sql.roll_back()
            raise
        ((said,),) = sql.execute("PRAGMA quick_check(1)").fetchall()
        if said != "ok":
            raise StorageUnavailableError(f"the copy of {self._path} is not what was written")
        return found

    def _line(self) -> Line:
        assert self._writer is not None
        return self._writer

    async def _connect(self, path: Path) -> Line:
        try:
            connection = await connected(
                path, isolation_level=None, cached_statements=CACHED_STATEMENTS
            )
        except aiosqlite.Error as error:
            raise self._translated(error) from error
        line = Line(connection)
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
        lines = [*self._readers, *([] if self._writer is None else [self._writer])]
        self._readers, self._writer = [], None
        try:
            # The writer last, and alone: then SQLite moves the log into the file.
            while lines:
                await lines[0].connection.close()
                lines.pop(0)
        finally:
            # The thread of a connection ends with it, whoever is cancelled meanwhile.
            for line in lines:
                line.connection.stop()
            await self._lock.release()

    async def _on_thread(self, line: Line, work: Work[Result]) -> Result:
        try:
            return await line.run(lambda sql: self._marking_damage(sql, work))
        except (aiosqlite.Error, UnicodeDecodeError) as error:
            raise self._translated(error) from error

    def _marking_damage(self, sql: Sql, work: Work[Result]) -> Result:
        try:
            return work(sql)
        except (aiosqlite.Error, UnicodeDecodeError, StorageCorruptError) as error:
            sql.met_damage = sql.met_damage or is_damage(error)
            raise
        finally:
            if sql.met_damage and self._running and not self._marked_damaged:
                self._mark_damaged()

    def _mark_damaged(self) -> None:
        """Have the next opening see to it; on a full disk that must not cost the answer."""
        try:
            self._files.marker.touch()
        except OSError as error:
            if self._marked_damaged is None:
                logger.warning("%s is damaged and cannot be marked so: %s", self._path, error)
            self._marked_damaged = False
        else:
            self._marked_damaged = True

    def _translated(self, error: aiosqlite.Error | UnicodeDecodeError) -> StorageError:
        if isinstance(error, aiosqlite.OperationalError) and not is_damage(error):
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
    sql.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")


def seen_at_one_moment(sql: Sql, work: Work[Result]) -> Result:
    """Run `work`, which writes nothing, in a transaction."""
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
