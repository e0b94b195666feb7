"""One connection with its thread: the one place where functions are run on aiosqlite's threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from upbit_backbone.storage.sql import Sql, Work
from upbit_backbone.tasks import to_the_end

Result = TypeVar("Result")

INTERRUPTED_EVERY_S = 0.05
"""A thread that has to end is told so this often, until it has."""


async def connected(path: Path | str, **options: Any) -> aiosqlite.Connection:
    """Open a connection; cancelled meanwhile, it is closed before that is told.

    Args:
        path: A file, or a URI.
        options: As `aiosqlite.connect`.

    Raises:
        aiosqlite.Error: it cannot be opened.
    """

    connection = aiosqlite.connect(path, **options)
    # A program that ends without closing must not wait for ever for a thread that nobody ends;
    # what was acknowledged is in the file.
    connection._thread.daemon = True
    try:
        return await to_the_end(connection)
    except asyncio.CancelledError:
        # Its thread has begun: nobody else would end it.
        await connection.close()
        raise


class Line:
    """A connection, and what waits for it."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self.sql = Sql(connection._conn)
        self.waiting = 0
        """How many pieces of work wait for it or run."""

    async def run(self, work: Work[Result]) -> Result:
        """Run a whole function on the connection's thread.

        Raises:
            aiosqlite.Error: as the work.
        """
        # aiosqlite (pinned) has no public way to do so.
        run: Callable[..., Awaitable[Any]] = self.connection._execute
        return cast(Result, await run(work, self.sql))

    async def stop(self) -> None:
        """Have SQLite end what it does for a caller that is gone, and close the connection."""
        # The thread of a connection ends with it, whoever is cancelled meanwhile.
        await to_the_end(self._interrupted_and_closed())

    async def _interrupted_and_closed(self) -> None:
        closing = asyncio.ensure_future(self.connection.close())
        while not closing.done():
            # It ends what runs at this moment, and the thread may be between two statements.
            with suppress(aiosqlite.Error, ValueError):  # closed meanwhile
                self.connection._conn.interrupt()
            await asyncio.wait([closing], timeout=INTERRUPTED_EVERY_S)
        await closing


@asynccontextmanager
async def read_only(path: Path) -> AsyncIterator[Line]:
    """A file that another program made: nothing of it is changed, and nothing made."""
    async with _opened(path, "ro") as line:
        yield line


@asynccontextmanager
async def unchanging(path: Path) -> AsyncIterator[Line]:
    """A file in a folder that nobody can write, with no log beside it."""
    async with _opened(path, "ro&immutable=1") as line:
        yield line


@asynccontextmanager
async def writable(path: Path, *, wait_s: float) -> AsyncIterator[Line]:
    """A file that is there already; a statement waits so long for other programs."""
    async with _opened(path, "rw") as line:
        await line.run(lambda sql: sql.execute(f"PRAGMA busy_timeout = {int(wait_s * 1_000)}"))
        yield line


@asynccontextmanager
async def _opened(path: Path, mode: str) -> AsyncIterator[Line]:
    line = Line(await connected(_uri(path, mode), uri=True, isolation_level=None))
    try:
        yield line
    finally:
        await line.stop()


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"
