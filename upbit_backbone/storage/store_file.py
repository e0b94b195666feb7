"""A store's file as a whole: measured, checked, backed up, restored, written anew.

For whoever keeps it: no service has to run, and one may run while it is read.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import aiosqlite
import numpy as np
import psutil

from upbit_backbone.clock import Clock
from upbit_backbone.errors import (
    InvalidRequestError,
    StorageCorruptError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.storage import blocks, damage
from upbit_backbone.storage.database import (
    BUSY_MS,
    FILE_NAME,
    LOCK_WAIT_S,
    Database,
    seen_at_one_moment,
)
from upbit_backbone.storage.figures import (
    SeriesFigures,
    StoreFigures,
    note_run,
    read_figures,
    read_series,
)
from upbit_backbone.storage.file_lock import FileLock
from upbit_backbone.storage.line import Line, read_only, unchanging, writable
from upbit_backbone.storage.migrations import (
    ForeignFileError,
    expect_store,
    schema_version,
    vacuum,
)
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql, Work, is_damage
from upbit_backbone.storage.write_ahead_log import log_of
from upbit_backbone.tasks import to_the_end

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MOST_PROBLEMS = 20
"""So many are told; one is enough for the file to be mended."""


class Contents(NamedTuple):
    """What the file holds, as a whole and series by series, at one moment."""

    figures: StoreFigures
    series: tuple[SeriesFigures, ...]


class Checked(NamedTuple):
    """What a whole look at the file found."""

    problems: tuple[str, ...]
    """Of the file itself: it is mended when the program starts next."""
    wrong_blocks: int
    """Copies of rows that are not what they should be: never used, or made again when read."""
    figures: StoreFigures | None
    """None of a damaged file: it cannot be counted."""


class BackedUp(NamedTuple):
    """A backup that was read once more from end to end."""

    path: Path
    figures: StoreFigures


class Restored(NamedTuple):
    """The file as it is now, and where the one before it is."""

    set_aside: Path | None
    figures: StoreFigures


class Vacuumed(NamedTuple):
    """The file's size before and after."""

    before_bytes: int
    after_bytes: int


class StoredCandles:
    """An open file that is only read."""

    def __init__(self, path: Path, line: Line) -> None:
        self.path = path
        self._line = line

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction: it sees one moment.

        Raises:
            aiosqlite.Error: as the work.
        """
        return await self._line.run(lambda sql: seen_at_one_moment(sql, work))


class StoreFile:
    """The file of one origin of data.

    What only reads it changes nothing in its folder but the lock, needs no right to write there,
    and never sets a damaged file aside.
    """

    def __init__(self, folder: Path, origin: Origin, clock: Clock) -> None:
        """Name the folder; nothing is opened.

        Args:
            folder: Where the store's file is.
            origin: Whose data it is.
            clock: The time.
        """
        self._origin = origin
        self._folder = folder
        self._clock = clock
        self._files = damage.Files(folder / FILE_NAME)
        self._lock = FileLock(self._files.lock)

    @property
    def path(self) -> Path:
        return self._files.path

    async def figures(self) -> StoreFigures:
        """Size, fragmentation and content.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """
        return (await self.contents()).figures

    async def contents(self) -> Contents:
        """The same, and what is stored of each series.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """

        def read(sql: Sql) -> Contents:
            return Contents(read_figures(sql, self._files), read_series(sql))

        async with self._reading() as line:
            return await line.run(lambda sql: seen_at_one_moment(sql, read))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[StoredCandles]:
        """The candles themselves; the origin learns whose they are.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """
        async with self._reading() as line:
            mark = await line.run(_read_mark)
            if mark is not None:
                self._origin.expect(mark or None)
            yield StoredCandles(self.path, line)

    async def check(self) -> Checked:
        """Read all of it: pages, indexes, proof, and each block beside its rows.

        A damaged file is marked, so that the next program that opens it mends it. Of a whole one
        it keeps when that was seen.

        Raises:
            StorageError: there is no such file, or it cannot be opened.
        """
        async with self._reading() as line:
            problems = await line.run(_problems)
            if problems:
                await asyncio.to_thread(self._mark_damaged)
                return Checked(problems, 0, None)
            wrong_blocks = await line.run(_wrong_blocks)
            await line.run(self._note_check)
            figures = await line.run(partial(read_figures, files=self._files))
        return Checked((), wrong_blocks, figures)

    async def backup(self, target: Path, *, overwrite: bool = False) -> BackedUp:
        """Copy the file as it is at one moment; programs that use it go on meanwhile.

        The copy is checked before it gets its name: one that is there is whole.

        Raises:
            InvalidRequestError: the name is taken, or no file can have it.
            StorageError: the store cannot be read, or the copy cannot be written.
        """
        target = await asyncio.to_thread(self._checked_target, target, overwrite)
        partial_copy = target.with_name(f"{target.name}.unfinished-{os.getpid()}")
        try:
            async with self._reading() as line:
                if not (await line.run(read_series)):
                    raise StorageUnavailableError(
                        f"{self.path} holds no candles: no backup was made"
                    )
                await asyncio.to_thread(_discard_abandoned, target)
                with _written(target):
                    await line.run(partial(_copy_into, target=partial_copy))
                    figures = await self._verified(partial_copy)
                    await to_the_end(asyncio.to_thread(_place, partial_copy, target, overwrite))
        finally:
            # Only here the connection's thread is surely done with it.
            await to_the_end(asyncio.to_thread(partial_copy.unlink, missing_ok=True))
        return BackedUp(target, figures)

    async def restore(self, source: Path) -> Restored:
        """Put a backup in the file's place; the file that was there is set aside, not deleted.

        A process that is killed meanwhile leaves the one or the other. An older schema is brought
        up to date then.

        Raises:
            InvalidRequestError: there is no such backup, or it is none.
            StorageOriginError: it holds data of another origin.
            StorageCorruptError: it is damaged, or of a newer program.
            StorageUnavailableError: another program has the file open, or the disk is full.
        """
        source = await asyncio.to_thread(self._checked_source, source)
        await self._verified(source)
        with _written(self.path):
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            async with self._alone("a backup is to take its place"):
                await asyncio.to_thread(self._files.discard_unfinished)
                try:
                    async with read_only(source) as line:
                        await line.run(partial(_copy_into, target=self._files.unfinished))
                    await self._verified(self._files.unfinished)
                except BaseException:
                    await to_the_end(asyncio.to_thread(self._files.discard_unfinished))
                    raise
                set_aside = await to_the_end(asyncio.to_thread(self._take_place))
        # Opened as any program does, an older one is brought up to date.
        database = Database(self._folder, self._origin)
        try:
            await database.open()
            figures = await database.inspect(partial(read_figures, files=self._files))
        finally:
            await database.close()
        return Restored(set_aside, figures)

    async def vacuum(self) -> Vacuumed:
        """Write the file anew without free pages, and so that it can shrink by itself later.

        Raises:
            StorageError: there is no such file, or another program has it open.
        """
        await self._expect_file()
        with _written(self.path):
            async with self._alone("it is to be written anew"):
                before = (await asyncio.to_thread(self.path.stat)).st_size
                async with writable(self.path, wait_s=0) as line:
                    await line.run(partial(self._expect_own, path=self.path))
                    await line.run(vacuum)
                after = (await asyncio.to_thread(self.path.stat)).st_size
        return Vacuumed(before, after)

    def _take_place(self) -> Path | None:
        self._files.finish()
        set_aside = self._files.replace()
        _flush_folder(self._folder)
        return set_aside

    # Having the file.

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Line]:
        """The file beside the programs that use it, or in a folder that cannot be written."""
        await self._expect_file()
        with _read(self.path):
            try:
                async with AsyncExitStack() as stack:
                    try:
                        line = await stack.enter_async_context(self._beside_others())
                    except aiosqlite.OperationalError as error:
                        if not _may_only_be_read(error):
                            raise
                        line = await stack.enter_async_context(self._unchanged())
                    yield line
            except aiosqlite.Error as error:
                if is_damage(error):
                    await asyncio.to_thread(self._mark_damaged)
                raise

    @asynccontextmanager
    async def _beside_others(self) -> AsyncIterator[Line]:
        if not await self._lock.share(wait_s=LOCK_WAIT_S):
            raise StorageUnavailableError(
                f"{self.path} is being brought up to date or mended by another program: try"
                " again when it is done"
            )
        try:
            async with writable(self.path, wait_s=BUSY_MS / 1_000) as line:
                await line.run(lambda sql: sql.execute("PRAGMA query_only = 1"))
                await line.run(partial(self._expect_own, path=self.path))
                yield line
        finally:
            await self._lock.release()

    @asynccontextmanager
    async def _unchanged(self) -> AsyncIterator[Line]:
        """The file where SQLite can make none beside it; a log that is there is read, too."""
        has_log = await asyncio.to_thread(log_of(self.path).exists)
        async with (read_only if has_log else unchanging)(self.path) as line:
            await line.run(partial(self._expect_own, path=self.path))
            yield line

    def _mark_damaged(self) -> None:
        """Have the next program that opens the file mend it, if it may be written at all."""
        with suppress(OSError):
            self._files.marker.touch()

    def _note_check(self, sql: Sql) -> None:
        # The result counts, also where it cannot be kept.
        with suppress(aiosqlite.OperationalError):
            sql.execute("PRAGMA query_only = 0")
            note_run(sql, "check", self._clock.now_ms())

    @asynccontextmanager
    async def _alone(self, reason: str) -> AsyncIterator[None]:
        """The file for oneself, its log emptied into it."""
        if not await self._lock.exclude():
            raise self._in_use(reason)
        try:
            if await asyncio.to_thread(self._files.finished.exists):
                # What another process has begun comes first.
                await asyncio.to_thread(self._files.replace)
            if await asyncio.to_thread(self.path.exists):
                await self._leave_log(reason)
            yield
        finally:
            await self._lock.release()

    async def _leave_log(self, reason: str) -> None:
        """Move the log into the file: SQLite refuses it while anyone else has it open."""
        async with writable(self.path, wait_s=0) as line:
            try:
                await line.run(partial(expect_store, path=self.path))
                await line.run(lambda sql: sql.execute("PRAGMA journal_mode = DELETE").fetchall())
            except aiosqlite.OperationalError as error:
                raise self._in_use(reason) from error
            except aiosqlite.DatabaseError as error:
                logger.info("the log of %s is left as it is: %s", self.path, error)

    def _in_use(self, reason: str) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"{self.path} is open in another program, and {reason}: close that program, then try"
            " again"
        )

    async def _expect_file(self) -> None:
        if not await asyncio.to_thread(self.path.is_file):
            raise StorageUnavailableError(
                f"nothing is stored of {self._origin.identity!r}: there is no {self.path}; another"
                " folder is chosen with --data-dir, another exchange with --exchange or --rest-url"
            )

    def _expect_own(self, sql: Sql, path: Path) -> None:
        """Refuse what is of another origin or of a newer program."""
        expect_store(sql, path)
        schema_version(sql)
        found = dict(sql.execute("SELECT key, value FROM meta"))
        identity = found.get("identity", self._origin.identity)
        if identity != self._origin.identity:
            raise StorageOriginError(
                f"{path} holds data of {identity!r}, expected {self._origin.identity!r}: name its"
                " exchange (--exchange, --rest-url), or choose another file"
            )

    async def _verified(self, path: Path) -> StoreFigures:
        """Read a copy from end to end.

        Raises:
            InvalidRequestError: it is no store.
            StorageOriginError: it holds data of another origin.
            StorageCorruptError: it is damaged, or of a newer program.
        """
        try:
            async with read_only(path) as line:
                await line.run(partial(self._expect_own, path=path))
                if await line.run(_problems):
                    raise StorageCorruptError("it is damaged: choose another backup")
                return await line.run(partial(read_figures, files=damage.Files(path)))
        except ForeignFileError as error:
            raise _no_backup(path) from error
        except StorageCorruptError as error:
            raise StorageCorruptError(f"{path}: {error}") from error
        except aiosqlite.Error as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
                raise _no_backup(path) from error
            raise StorageCorruptError(f"{path} is no whole backup of a store ({error})") from error

    def _own_names(self) -> set[Path]:
        files = self._files
        names = {files.path, files.lock, files.marker, files.unfinished, files.finished}
        names |= {name for one in tuple(names) for name in damage.with_beside(one)}
        return {name.absolute() for name in names}

    def _checked_target(self, target: Path, overwrite: bool) -> Path:
        target = target.absolute()
        if any(target == own or _same(target, own) for own in self._own_names()):
            raise InvalidRequestError(f"{target} is the store itself: choose another name")
        if not target.parent.is_dir():
            raise InvalidRequestError(f"there is no folder {target.parent}: make it first")
        if target.is_dir():
            raise InvalidRequestError(f"{target} is a folder: name a file in it")
        if target.exists() and not overwrite:
            raise InvalidRequestError(
                f"{target} exists already: choose another name, or --force replaces it"
            )
        return target

    def _checked_source(self, source: Path) -> Path:
        source = source.absolute()
        if source.is_dir():
            raise InvalidRequestError(f"{source} is a folder: expected a file that 'backup' made")
        if not source.is_file():
            raise InvalidRequestError(f"there is no file {source}: expected one that 'backup' made")
        if source in self._own_names() or _same(source, self.path):
            raise InvalidRequestError(f"{source} is the store itself: expected a backup of it")
        return source


# On a connection's thread.


def _problems(sql: Sql) -> tuple[str, ...]:
    """What is wrong with pages, indexes and coverage; empty when all is well."""
    try:
        found = [str(line) for (line,) in sql.execute(f"PRAGMA integrity_check({MOST_PROBLEMS})")]
    except aiosqlite.DatabaseError as error:
        found = [str(error)]
    if found != ["ok"]:
        return tuple(" ".join(line.split()) for line in found)
    ((overlapping,),) = sql.execute(
        "SELECT count(*) FROM (SELECT start_ms, end_ms, lead(start_ms) OVER (PARTITION BY symbol,"
        " timeframe ORDER BY start_ms) AS next_ms FROM coverage)"
        " WHERE end_ms <= start_ms OR end_ms > next_ms"
    )
    return (f"{overlapping} spans of what is known overlap",) if overlapping else ()


def _read_mark(sql: Sql) -> str | None:
    """What the data are marked with, empty for real ones; None: nothing was ever stored."""
    found = sql.execute("SELECT value FROM meta WHERE key = 'mark'").fetchone()
    return None if found is None else str(found[0])


def _wrong_blocks(sql: Sql) -> int:
    """How many blocks have a wrong checksum, or hold other candles than the rows."""
    wrong = 0
    if schema_version(sql) < 2:
        return wrong
    for table, *found in sql.execute(
        "SELECT table_name, start_ms, end_ms, row_count, checksum, data FROM blocks"
    ):
        block = blocks.Block(*found)
        held = blocks.unpack(table, block)
        rows = blocks.select_rows(sql, table, Range(block.start_ms, block.end_ms))
        wrong += held is None or not np.array_equal(held, rows)
    return wrong


def _copy_into(sql: Sql, target: Path) -> None:
    """Write a copy of one moment; it is on the disk when this returns."""
    target.unlink(missing_ok=True)
    # Only the target is written, yet that switch forbids it.
    sql.execute("PRAGMA query_only = 0")
    sql.execute("VACUUM INTO ?", (str(target),))
    # SQLite leaves that to the system.
    _flush(target)


# Files.


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Have names outlast a power loss; Windows has no way to ask for it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _place(copy: Path, target: Path, overwrite: bool) -> None:
    """Give a finished copy its name, all at once."""
    if overwrite:
        copy.replace(target)
    else:
        try:
            target.hardlink_to(copy)
        except FileExistsError:
            raise InvalidRequestError(
                f"{target} was made by somebody else meanwhile: choose another name"
            ) from None
        except OSError:
            # Some file systems have no second names.
            copy.rename(target)
    _flush_folder(target.parent)


def _discard_abandoned(target: Path) -> None:
    """Delete what killed processes left of a backup of this name."""
    for left in target.parent.glob(f"{target.name}.unfinished-*"):
        # SQLite's own files beside it have its name and "-journal" behind.
        process = left.name.removeprefix(f"{target.name}.unfinished-").partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)


def _no_backup(path: Path) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is no backup of a store: expected a file that 'db backup' made"
    )


def _may_only_be_read(error: aiosqlite.Error) -> bool:
    """Whether SQLite could not write where a file is that is opened for that."""
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN"))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _read(path: Path) -> Iterator[None]:
    """Translate what SQLite and the system say of reading a store."""
    try:
        yield
    except aiosqlite.OperationalError as error:
        raise StorageUnavailableError(
            f"{path} cannot be read now ({error}): check that its folder can be written, and that"
            " no other program holds the file"
        ) from error
    except (aiosqlite.Error, UnicodeDecodeError) as error:
        raise StorageCorruptError(
            f"{path} is damaged ({error}): it is mended when the program starts next"
        ) from error


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Translate what SQLite and the system say of writing a file."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(
            f"{path} cannot be written ({error.strerror or error}): check that the folder can be"
            " written and the disk is not full"
        ) from error
    except aiosqlite.OperationalError as error:
        raise StorageUnavailableError(
            f"{path} cannot be written ({error}): check that the folder can be written and the"
            " disk is not full"
        ) from error
    except aiosqlite.Error as error:
        raise StorageCorruptError(
            f"{path}: the store is damaged ({error}): it is mended when the program starts next"
        ) from error
