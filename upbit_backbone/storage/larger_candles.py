"""Fills holes of an answer from stored candles of a smaller timeframe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np

from upbit_backbone.clock import Clock
from upbit_backbone.errors import StorageCorruptError, StorageUnavailableError
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.answers import holes
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import BUILT, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import read_proved
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.larger_timeframes import aggregated, buildable, smaller_of
from upbit_backbone.storage.series_memory import Answer
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

_COLUMNS = ("time", "open", "high", "low", "close", "volume", "value")


class Keep(Protocol):
    """Stores rows of a series and their proof."""

    def __call__(
        self,
        key: SeriesKey,
        page: CandleSeries,
        proofs: list[KnownSpan],
        *,
        holds: Callable[[Sql], bool],
    ) -> Awaitable[object | None]:
        """Ask `holds` inside the transaction; None: nothing was written."""
        ...


class LargerCandles:
    """Reads smaller candles, makes larger ones of them, and has them stored."""

    def __init__(
        self,
        database: Database,
        coverage: Mapping[SeriesKey, Coverage],
        keep: Keep,
        *,
        origin: Origin,
        health: FileHealth,
        clock: Clock,
    ) -> None:
        """Take what reads and writes.

        Args:
            database: Where the smaller candles are.
            coverage: What is known of each series.
            keep: Stores what was built, unless what it was built of has changed meanwhile.
            origin: Labels the rows.
            health: Told when the file cannot be read.
            clock: The exchange's time.
        """
        self._database = database
        self._coverage = coverage
        self._keep = keep
        self._origin = origin
        self._health = health
        self._clock = clock
        self.built = 0
        """How many candles were built."""
        self.reads = 0

    async def build(self, key: SeriesKey, answer: Answer, count: int | None) -> bool:
        """Build what is missing from stored smaller candles; False: nothing can be built."""
        for low_ms, high_ms in holes(answer):
            if high_ms is None:
                continue
            if low_ms is None:
                wanted = max(1, (count or 1) - len(answer.rows))
                low_ms = key.timeframe.back_ms(key.timeframe.ceil_ms(high_ms), wanted)
            for smaller in smaller_of(key.timeframe):
                known = self._coverage.get(SeriesKey(key.symbol, smaller))
                if known is None:
                    continue
                parts = buildable(
                    known, key.timeframe, smaller, Range(low_ms, high_ms), self._clock.now_ms()
                )
                # An answer by number goes down from its end: a part below a hole is no help.
                if count is not None:
                    parts = [part for part in parts if part.end_ms == high_ms]
                if parts and await self._build_part(key, smaller, parts[-1]):
                    return True
        return False

    async def _build_part(self, key: SeriesKey, smaller: Timeframe, part: Range) -> bool:
        read: Callable[[Sql], tuple[CandleSeries, SpanSet]] = partial(
            read_proved,
            key=SeriesKey(key.symbol, smaller),
            span=part,
            latest=None,
            simulated=self._origin.simulated,
        )
        try:
            smaller_rows, proved = await self._database.read(read)
        except (StorageUnavailableError, StorageCorruptError) as error:
            self._health.failed("read", error)
            return False
        self.reads += 1
        if proved.missing(*part):
            # Retention has removed it meanwhile.
            return False
        rows = aggregated(smaller_rows, key.timeframe)
        proof = KnownSpan(*part, "complete", "", f"{BUILT}{smaller}", self._clock.now_ms())
        holds = partial(_still_so, key=SeriesKey(key.symbol, smaller), span=part, rows=smaller_rows)
        if await self._keep(key, rows, [proof], holds=holds) is None:
            return False
        self.built += len(rows)
        return True


def _still_so(sql: Sql, key: SeriesKey, span: Range, rows: CandleSeries) -> bool:
    """Whether the smaller candles are proved, and what they were when they were read.

    One that a late trade or a page has changed before the larger one is written would find
    nothing built to forget.
    """
    now, proved = read_proved(sql, key, span, None, simulated=rows.simulated)
    if proved.missing(*span) or len(now) != len(rows):
        return False
    return all(np.array_equal(getattr(now, name), getattr(rows, name)) for name in _COLUMNS)
