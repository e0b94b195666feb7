"""A hold on the store's file that programs share, or that one of them has alone.

SQLite's own locks arbitrate every statement, but not what replaces or rewrites the whole file:
that needs to know that nobody else has it open. So each program that does holds a read
transaction on an empty SQLite file beside it: SQLite's locks work alike on every system, and end
with the process that held them.
"""

from __future__ import annotations

from pathlib import Path

import aiosqlite

from upbit_backbone.storage.line import connected
from upbit_backbone.tasks import to_the_end


class FileLock:
    """Shared by all who use a file; exclusive for one who replaces it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: aiosqlite.Connection | None = None

    async def share(self, *, wait_s: float) -> bool:
        """Hold the lock together with others; False: one has it alone all the time.

        Raises:
            aiosqlite.Error: the file cannot be made or opened.
        """
        return await self._begin("BEGIN", "SELECT count(*) FROM sqlite_schema", wait_s)

    async def exclude(self, *, wait_s: float = 0.0) -> bool:
        """Hold it alone; False: others hold it, and it is not held now.

        Raises:
            aiosqlite.Error: the file cannot be made or opened.
        """
        return await self._begin("BEGIN EXCLUSIVE", None, wait_s)

    async def release(self) -> None:
        """Hold it no longer. May be called twice."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            # The thread of a connection ends with it, whoever is cancelled meanwhile; and nobody
            # goes on before that, or the hold would outlive its holder.
            await to_the_end(connection.close())

    async def _begin(self, begin: str, read: str | None, wait_s: float) -> bool:
        await self.release()
        self._connection = await connected(self._path, isolation_level=None)
        try:
            await self._connection.execute(f"PRAGMA busy_timeout = {int(wait_s * 1_000)}")
            await self._connection.execute(begin)
            if read is not None:
                await self._connection.execute_fetchall(read)
        except aiosqlite.OperationalError as error:
            await self.release()
            if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY":
                return False
            raise
        except BaseException:
            # Cancelled: whoever asked does not know that it is held.
            await self.release()
            raise
        return True
