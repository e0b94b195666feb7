"""What other programs write into the file is taken over: memory and ledger follow it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TypeVar

from upbit_backbone.errors import ClosedError, StorageCorruptError, StorageUnavailableError
from upbit_backbone.models import CandleSeries
from upbit_backbone.storage.candle_tables import SeriesKey, read_rows
from upbit_backbone.storage.coverage import Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import read_coverage
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.series_memory import MemoryTier, SeriesMemory
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TRIES = 3
"""So often is read at once for series that are written here meanwhile, then after a pause."""
NEAR = 60
"""Stretches that lie so many candles apart are read as one."""
TOGETHER = 16
"""Series in one turn of the loop: it takes a millisecond."""


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
        losses: Callable[[], dict[SeriesKey, list[KnownSpan]]],
        empty: Callable[[SeriesKey], CandleSeries],
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
            losses: What streams took back and the file still calls proved, as it is not written.
            empty: A series without candles, labelled as it is stored.
            health: Told when the file cannot be read.
            pause_s: The least time from one reading to the next.
        """
        self._database = database
        self._coverage = coverage
        self._memory = memory
        self._known = known
        self._taken_over = taken_over
        self._losses = losses
        self._empty = empty
        self._health = health
        self._pause_s = pause_s
        self._tasks = TaskOwner()
        self._is_due = False
        self._running = False
        self._closed = False
        self.readings = 0
        """How often the whole ledger was read."""
        self.fault: Exception | None = None
        """An unexpected error that keeps memory from following the file."""

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
                await self._try_to_read()
                await asyncio.sleep(self._pause_s)
        except ClosedError:
            return
        finally:
            self._running = False

    async def _try_to_read(self) -> None:
        try:
            await self._read()
            self.fault = None
        except ClosedError:
            raise
        except (StorageUnavailableError, StorageCorruptError) as error:
            self._health.failed("read", error)
            self._is_due = True
        except Exception as error:
            if self.fault is None:
                logger.exception("what another program wrote is not taken over yet")
            self.fault = error
            self._is_due = True

    async def _read(self) -> None:
        for _ in range(TRIES):
            versions = {key: known.version for key, known in self._coverage.items()}
            stored = await self._database.read(read_coverage)
            self.readings += 1
            self._health.read_works()
            if await self._take_over(stored, versions):
                break
        else:
            self._is_due = True
        # Another program's stream may have said otherwise of the same candles.
        for held in _pieces(self._memory):
            await self._compare(held)

    async def _take_over(
        self, stored: dict[SeriesKey, Coverage], versions: dict[SeriesKey, int]
    ) -> bool:
        """Follow the file; False: not for all, what was learnt here meanwhile may not be in it."""
        is_whole = True
        for keys in _pieces(self._coverage.keys() | stored.keys()):
            losses = self._losses()
            for key in keys:
                # Taken out one by one: to free all of it at once takes milliseconds.
                known, there = self._known(key), stored.pop(key, None) or Coverage()
                for lost in losses.get(key, ()):
                    # The file says otherwise only until it can be written.
                    there.put(lost)
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
            await asyncio.sleep(0)
        return is_whole

    async def _compare(self, held: Sequence[tuple[SeriesKey, SeriesMemory]]) -> None:
        """Let memory hold what the file does of candles that nobody has read a second time."""
        for key, series in held:
            for span in self._unsettled(key) if series.is_read else ():
                # What is on its way may be as the file was before.
                series.forget(span)
        wanted = [
            (series, self._empty(key), key, span)
            for key, series in held
            for near in (self._unsettled(key) if len(series.loaded) else ())
            for span in series.loaded.overlap(*near)
        ]
        if not wanted:
            return
        with ExitStack() as reading:
            changes = [reading.enter_context(series.read()) for series, *_ in wanted]
            spans = [one[1:] for one in wanted]
            read = await self._database.read(partial(_read_all, spans=spans))
        for (series, _, _, span), changed, rows in zip(wanted, changes, read, strict=True):
            for part in changed.missing(*span):
                for one in series.loaded.overlap(*part):
                    if rows.between(*one) != series.held(one):
                        series.forget(one)

    def _unsettled(self, key: SeriesKey) -> list[Range]:
        """The stretches in which lies all that the stream alone proves."""
        found: list[Range] = []
        near_ms = NEAR * key.timeframe.typical_ms
        for span in self._known(key).unsettled():
            if found and span.start_ms - found[-1].end_ms <= near_ms:
                found[-1] = Range(found[-1].start_ms, span.end_ms)
            else:
                found.append(Range(span.start_ms, span.end_ms))
        return found


def _read_all(
    sql: Sql, spans: Sequence[tuple[CandleSeries, SeriesKey, Range]]
) -> list[CandleSeries]:
    return [
        read_rows(sql, key, span, None, simulated=empty.simulated) for empty, key, span in spans
    ]


def _pieces(items: Iterable[Item]) -> Iterator[list[Item]]:
    """So many at once as may be done in one turn of the loop."""
    left = iter(tuple(items))
    while piece := list(islice(left, TOGETHER)):
        yield piece
