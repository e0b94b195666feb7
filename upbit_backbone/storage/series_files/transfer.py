"""Series of one folder out into files and back, without a running service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from upbit_backbone.clock import Clock
from upbit_backbone.models import Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.migrations import SCHEMA_VERSION
from upbit_backbone.storage.series_files import exporting, importing
from upbit_backbone.storage.series_files.exporting import Exported, export_series
from upbit_backbone.storage.series_files.importing import Imported, import_series
from upbit_backbone.storage.store_file import StoreFile


class SeriesTransfer:
    """Opens the store's file for one export or import; a service may have it open as well.

    An export only reads: the folder need not be writable, and a damaged file stays where it is.
    """

    def __init__(self, folder: Path, origin: Origin, clock: Clock) -> None:
        """Name the folder; nothing is opened.

        Args:
            folder: Where the store's file is.
            origin: Whose data it is.
            clock: The time.
        """
        self._folder = folder
        self._origin = origin
        self._clock = clock

    async def export_to(
        self,
        path: Path,
        symbol: str,
        timeframe: Timeframe,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        overwrite: bool = False,
        on_progress: exporting.OnProgress | None = None,
    ) -> Exported:
        """Write a series into a file, as `export_series` does.

        Raises:
            InvalidRequestError: as `export_series`.
            StorageError: nothing is stored, the file cannot be read, or as `export_series`.
        """
        file = StoreFile(self._folder, self._origin, self._clock)
        if (await file.figures()).schema < SCHEMA_VERSION:
            # Opened as any program does, it is brought up to date.
            async with self._open():
                pass
        async with file.opened() as stored:
            return await export_series(
                stored,
                self._origin,
                SeriesKey(symbol, timeframe),
                path,
                start_ms=start_ms,
                end_ms=end_ms,
                overwrite=overwrite,
                on_progress=on_progress,
            )

    async def import_from(
        self, path: Path, *, on_progress: importing.OnProgress | None = None
    ) -> Imported:
        """Store what a file holds, as `import_series` does.

        Raises:
            InvalidRequestError: as `import_series`.
            StorageError: as `Database.open` and `import_series`.
        """
        async with self._open() as database:
            return await import_series(
                database, self._origin, path, clock=self._clock, on_progress=on_progress
            )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Database]:
        database = Database(self._folder, self._origin)
        await database.open()
        try:
            yield database
        finally:
            await database.close()
