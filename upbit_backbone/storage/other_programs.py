"""What other programs write into the file is taken over: memory and ledger follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from upbit_backbone.errors import ClosedError, StorageCorruptError, StorageUnavailableError
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import Coverage
from upbit_backbone.storage.coverage_table import read_coverage
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.series_memory import MemoryTier
from upbit_backbone.storage.spans import Range
from upbit_backbone.tasks import TaskOwner

TRIES = 3
"""So often is read at once for series that are written here meanwhile, then after a pause."""


class OtherPrograms:
    """Reads the ledger again when another program has written, one reading at a time."""

    def __init__(
        self,
        database: Database,
        coverage: dict[SeriesKey, Coverage],
        memory: MemoryTier,
        *,
        known: Callable[[SeriesKey], Coverage],
        taken_over: Callable[[SeriesKey], None],
        health: FileHealth,
        pause_s: float,
    ) -> None:
        """Take what is to follow the file.

        Args:
            database: The file.
            coverage: What is known of each series.
            memory: What of it is held; of a series that has changed nothing stays.
            known: The same of one series, which may be new.
            taken_over: Called with each series that has changed.
            health: Told when the file cannot be read.
            pause_s: The least time from one reading to the next.
        """
        self._database = database
        self._coverage = coverage
        self._memory = memory
        self._known = known
        self._taken_over = taken_over
        self._health = health
        self._pause_s = pause_s
        self._tasks = TaskOwner()
        self._is_due = False
        self._running = False
        self._closed = False
        self.readings = 0
        """How often the whole ledger was read."""

    def have_written(self) -> None:
        """It was noticed; never waits."""
        self._is_due = True
        # The last writes may notice it, too, when nobody reads any more.
        if not self._running and not self._closed:
            self._running = True
            self._tasks.spawn(self._follow(), name="coverage written elsewhere")

    async def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        await self._tasks.close()

    async def _follow(self) -> None:
        try:
            while self._is_due:
                self._is_due = False
                await self._read()
                await asyncio.sleep(self._pause_s)
        except ClosedError:
            return
        finally:
            self._running = False

    async def _read(self) -> None:
        for _ in range(TRIES):
            versions = {key: known.version for key, known in self._coverage.items()}
            try:
                stored = await self._database.read(read_coverage)
            except (StorageUnavailableError, StorageCorruptError) as error:
                self._health.failed("read", error)
                self._is_due = True
                return
            self.readings += 1
            if self._take_over(stored, versions):
                return
        self._is_due = True

    def _take_over(self, stored: dict[SeriesKey, Coverage], versions: dict[SeriesKey, int]) -> bool:
        """Follow the file; False: not for all, what was learnt here meanwhile may not be in it."""
        is_whole = True
        for key in self._coverage.keys() | stored.keys():
            known, there = self._known(key), stored.get(key, Coverage())
            if known.same(there):
                continue
            if known.version != versions.get(key, 0):
                is_whole = False
                continue
            known.become(there)
            series = self._memory.get(key)
            if series is not None:
                series.drop()
            self._taken_over(key)
        for key, series in self._memory:
            # Another program's stream may have said otherwise of the same candles.
            for span in self._known(key).unsettled() if len(series.loaded) else ():
                series.forget(Range(span.start_ms, span.end_ms))
        return is_whole
