"""Candles in memory: columns of what was read or written lately, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from upbit_backbone.models import CandleSeries
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.spans import Range, SpanSet

BYTES_PER_CANDLE = 7 * 8 + 2


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest rows of a series, not proved yet: the forming candle and the last seconds.

    True only for a while: what it says of "now" ages from `received_s` on. Of a period that
    was not over when it was read, it says nothing any more once that is past.
    """

    rows: CandleSeries
    start_ms: int
    closed_ms: int
    """Candles that open before it and end by it were closed when they were read."""
    read_ms: int
    received_s: float

    def from_(self, start_ms: int) -> Tail:
        """What of it opens at or after a time."""
        return replace(self, rows=self.rows.between(start_ms, None), start_ms=start_ms)


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and the ranges (None: open on that side) for which nothing is known."""

    rows: CandleSeries
    missing: tuple[tuple[int | None, int | None], ...]
    received_s: float | None = None
    """When the unproved rows that it leans on were received; None without any."""


class SeriesMemory:
    """One series: what is proved, what of that is in memory, and the unproved tail."""

    def __init__(self, empty: CandleSeries, known: SpanSet) -> None:
        self.empty = empty
        """What is answered where no candle is."""
        self._parts: list[CandleSeries] = []
        self._rows = 0
        self.readers = 0
        """How many answers are being made of it; meanwhile it is not dropped."""
        self.known = known
        """Proved ranges; their rows are in the database."""
        self.loaded = SpanSet()
        """What of `known` is held here."""
        self.tail: Tail | None = None

    @property
    def size_bytes(self) -> int:
        return self._rows * BYTES_PER_CANDLE

    def put(self, rows: CandleSeries, proved: Range) -> None:
        """Hold the rows of a proved range."""
        if len(rows):
            self._parts.append(rows)
            self._rows += len(rows)
        self.loaded.add(*proved)
        if self.tail is not None and proved.end_ms > self.tail.start_ms:
            self.tail = self.tail.from_(proved.end_ms)

    def set_tail(self, tail: Tail) -> None:
        """Replace the unproved newest rows, unless by what was read earlier."""
        if self.tail is not None and tail.read_ms < self.tail.read_ms:
            return
        known_ms = self.known.end_ms
        self.tail = tail if known_ms is None else tail.from_(max(tail.start_ms, known_ms))

    def drop(self) -> None:
        """Free the memory; what is proved stays known."""
        self._parts.clear()
        self._rows = 0
        self.loaded = SpanSet()
        self.tail = None

    def answer(
        self,
        spans: SpanSet,
        start_ms: int | None,
        end_ms: int,
        count: int | None,
        *,
        now_ms: int,
        fresh_since_s: float,
    ) -> Answer:
        """Answer from `spans` (of `known`, and held in memory) and the tail, if fresh enough.

        Args:
            spans: Which proved ranges to answer from.
            start_ms: First open time, aligned; None with `count`.
            end_ms: Exclusive, aligned.
            count: The latest so many candles below `end_ms`, as far as proof reaches.
            now_ms: The exchange's time; up to it periods are over.
            fresh_since_s: A tail received before this moment says nothing.
        """
        tail = self.tail
        if tail is not None and (
            end_ms <= tail.start_ms
            or tail.received_s < fresh_since_s
            or tail.closed_ms < end_ms <= now_ms
        ):
            tail = None
        received_s = None if tail is None else tail.received_s
        if count is None:
            assert start_ms is not None
            holes = spans.missing(start_ms, end_ms)
            if tail is not None:
                holes = [
                    Range(hole.start_ms, min(hole.end_ms, tail.start_ms))
                    for hole in holes
                    if hole.start_ms < tail.start_ms
                ]
            return Answer(self._between(tail, start_ms, end_ms), tuple(holes), received_s)
        if tail is not None:
            proved = spans.ending_at(tail.start_ms)
            low_ms: int | None = tail.start_ms if proved is None else proved.start_ms
        else:
            proved = spans.ending_at(end_ms)
            low_ms = None if proved is None else proved.start_ms
        if low_ms is None:
            return Answer(self.empty, ((None, end_ms),))
        found = self._between(tail, low_ms, end_ms, count)
        if len(found) >= count:
            return Answer(found[len(found) - count :], (), received_s)
        return Answer(found, ((None, low_ms),), received_s)

    def _between(
        self, tail: Tail | None, start_ms: int, end_ms: int, latest: int | None = None
    ) -> CandleSeries:
        if len(self._parts) > 1:
            self._parts = [CandleSeries.merged(self._parts)]
            self._rows = len(self._parts[0])
        held = (self._parts[0] if self._parts else self.empty).between(start_ms, end_ms)
        if tail is None:
            return held
        # Cut first: joining copies, and the tail is short.
        if latest is not None and len(held) > latest:
            held = held[len(held) - latest :]
        return CandleSeries.merged([held, tail.rows.between(start_ms, end_ms)])


class MemoryTier:
    """All series in memory, the least recently used dropped first when over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._series: OrderedDict[SeriesKey, SeriesMemory] = OrderedDict()

    def get(self, key: SeriesKey) -> SeriesMemory | None:
        """The series, which becomes the most recently used."""
        series = self._series.get(key)
        if series is not None:
            self._series.move_to_end(key)
        return series

    def add(self, key: SeriesKey, series: SeriesMemory) -> None:
        """Hold a series from now on."""
        self._series[key] = series

    @property
    def size_bytes(self) -> int:
        return sum(series.size_bytes for series in self._series.values())

    def shrink(self) -> None:
        """Free memory until the limit is kept."""
        over = self.size_bytes - self._limit_bytes
        for series in self._series.values():
            if over <= 0:
                return
            if series.readers:
                continue
            over -= series.size_bytes
            series.drop()
