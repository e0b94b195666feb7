"""Candles in memory: columns of what was read or written lately, bounded in bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from upbit_backbone.models import CandleSeries
from upbit_backbone.storage.candle_tables import Row, SeriesKey
from upbit_backbone.storage.coverage import BEGINNING_MS, FOREVER_MS
from upbit_backbone.storage.spans import Range, SpanSet

BYTES_PER_CANDLE = 7 * 8 + 2
BYTES_PER_PART = 2_000
"""What one run of columns more takes beside its candles."""
BYTES_PER_CLOSED = 320
"""A candle that is not in columns yet."""
CLOSED_AT_ONCE = 64
"""Candles that closed one by one become columns when somebody asks, or when so many wait."""
JOINED_ROWS = 65_536
"""Longer parts are not made by joining when something is put: it would take the loop longer than
a millisecond."""
MAX_PARTS = 128
TAIL_LIVES_S = 60.0
"""The longest `max_age` of a priority: what is not proved is forgotten then. What is proved does
not age, it only makes room for what is used more."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest rows of a series, not proved yet: the forming candle and the last seconds.

    True only for a while: what it says of "now" ages from `received_s` on. Once a period is
    past that was not when it was read, candles may have closed of which it says nothing.
    """

    rows: CandleSeries
    start_ms: int
    closed_ms: int
    """Candles that open before it and end by it were closed when they were read."""
    over_ms: int
    """The first period that was not over when they were read is over by then."""
    read_s: float
    """When they were read, by a clock that nobody sets."""
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
        """Ascending, none overlaps another."""
        self._closed: list[Row] = []
        self._size_bytes = 0
        self._tier: MemoryTier | None = None
        self._reads: list[SpanSet] = []
        self.readers = 0
        """How many answers are being made of it; meanwhile it is not dropped."""
        self.known = known
        """Proved ranges; their rows are in the database."""
        self.loaded = SpanSet()
        """What of `known` is held here."""
        self.tail: Tail | None = None

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def put(self, rows: CandleSeries, proved: Range) -> None:
        """Hold the rows of a proved range, all that there are, in place of what was held of it."""
        self._take_closed()
        self._replace(rows, proved)
        self._proved(proved)
        self._count()

    def put_closed(self, row: Row, proved: Range) -> None:
        """Hold one candle that has closed, and lies in a proved range."""
        self._closed.append(row)
        if len(self._closed) >= CLOSED_AT_ONCE:
            self._take_closed()
        self._proved(proved)
        self._count()

    def _proved(self, proved: Range) -> None:
        self._changed(proved)
        self.loaded.add(*proved)
        if self.tail is not None and proved.end_ms > self.tail.start_ms:
            self.tail = self.tail.from_(proved.end_ms)

    def set_tail(self, tail: Tail) -> None:
        """Replace the unproved newest rows, unless by what was read earlier."""
        if self.tail is not None and tail.read_s < self.tail.read_s:
            return
        known_ms = self.known.end_ms
        self.tail = tail if known_ms is None else tail.from_(max(tail.start_ms, known_ms))

    def expire(self, now_s: float) -> None:
        """Forget what has outlived its time."""
        if self.tail is not None and now_s - self.tail.received_s > TAIL_LIVES_S:
            self.tail = None

    def drop(self) -> None:
        """Free the memory; what is proved stays known."""
        self._changed(Range(BEGINNING_MS, FOREVER_MS))
        self._parts.clear()
        self._closed.clear()
        self.loaded = SpanSet()
        self.tail = None
        self._count()

    def forget(self, span: Range) -> None:
        """Free what is held of a range: it is not true any more."""
        self._changed(span)
        self._take_closed()
        self._replace(self.empty, span)
        self.loaded.remove(*span)
        self._count()

    @property
    def is_read(self) -> bool:
        """Whether a read of the file is under way for it."""
        return bool(self._reads)

    @contextmanager
    def read(self) -> Iterator[SpanSet]:
        """What is put, or is not true any more, while a read of the file is under way.

        The file was read as it stood when that began: of these ranges memory knows better.
        """
        changed = SpanSet()
        self._reads.append(changed)
        try:
            yield changed
        finally:
            self._reads.remove(changed)

    def _changed(self, span: Range) -> None:
        for changed in self._reads:
            changed.add(*span)

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
            or (end_ms > now_ms and tail.over_ms <= now_ms)
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

    def held(self, span: Range) -> CandleSeries:
        """What is held of a range, the unproved rows left out."""
        self._take_closed()
        return self._held(*span, None)

    def _between(
        self, tail: Tail | None, start_ms: int, end_ms: int, latest: int | None = None
    ) -> CandleSeries:
        self._take_closed()
        held = self._held(start_ms, end_ms, latest)
        if tail is None:
            return held
        return CandleSeries.merged([held, tail.rows.between(start_ms, end_ms)])

    def _held(self, start_ms: int, end_ms: int, latest: int | None) -> CandleSeries:
        """Candles of a range, at least so many of the newest; only what is asked for is joined."""
        low, high = self._touched(start_ms, end_ms)
        if latest is not None:
            at, rows = high, 0
            while at > low and rows < latest:
                at -= 1
                newest = self._parts[at].between(start_ms, end_ms)
                rows += len(newest)
            if rows > latest:
                start_ms = int(newest.time[rows - latest])
            low = at
        parts = self._parts[low:high]
        cuts = [part.between(start_ms, end_ms) for part in parts]
        if len(cuts) < 2:
            return cuts[0] if cuts else self.empty
        if 2 * sum(map(len, cuts)) < sum(map(len, parts)):
            return CandleSeries.merged(cuts)
        joined = CandleSeries.merged(parts)
        self._parts[low:high] = [joined]
        self._count()
        return joined.between(start_ms, end_ms)

    def _touched(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Which parts hold a candle between, or lie around a range: from, and up to."""
        low = bisect_left(self._parts, start_ms, key=_last_ms)
        high = bisect_left(self._parts, end_ms, key=_first_ms)
        return low, max(low, high)

    def _replace(self, rows: CandleSeries, span: Range) -> None:
        """Let `rows` be all that is held of a range."""
        low, high = self._touched(*span)
        below = [self._parts[low].between(None, span.start_ms)] if low < high else []
        above = [self._parts[high - 1].between(span.end_ms, None)] if low < high else []
        self._parts[low:high] = [part for part in (*below, rows, *above) if len(part)]
        if len(rows):
            self._join(low + bool(below and len(below[0])))
        if len(self._parts) > MAX_PARTS:
            self._join_all()

    def _join(self, at: int) -> None:
        """Join a part with neighbours that are hardly longer, so that there are always few."""
        parts = self._parts
        while True:
            rows = len(parts[at])
            most = min(2 * rows, JOINED_ROWS - rows)
            if at > 0 and len(parts[at - 1]) <= most:
                at -= 1
            elif at + 1 == len(parts) or len(parts[at + 1]) > most:
                return
            parts[at : at + 2] = [CandleSeries.merged(parts[at : at + 2])]

    def _join_all(self) -> None:
        runs: list[list[CandleSeries]] = []
        for part in self._parts:
            if runs and sum(map(len, runs[-1])) + len(part) <= JOINED_ROWS:
                runs[-1].append(part)
            else:
                runs.append([part])
        self._parts = [CandleSeries.merged(run) for run in runs]

    def _take_closed(self) -> None:
        """Make columns of what closed since somebody asked: one by one it would take longer."""
        if self._closed:
            newest = {row[0]: row for row in self._closed}
            self._closed.clear()
            rows = CandleSeries.from_rows(
                self.empty.symbol,
                self.empty.timeframe,
                [newest[at_ms] for at_ms in sorted(newest)],
                closed_before_ms=None,
                source=self.empty.source,
                simulated=self.empty.simulated,
            )
            timeframe = self.empty.timeframe
            at_ms = int(rows.time[0])
            if not self._parts or _last_ms(self._parts[-1]) < at_ms:
                self._parts.append(rows)
                self._join(len(self._parts) - 1)
            else:
                for at_ms in rows.time.tolist():
                    span = Range(at_ms, timeframe.next_ms(at_ms))
                    self._replace(rows.between(*span), span)

    def _count(self) -> None:
        size_bytes = (
            sum(map(len, self._parts)) * BYTES_PER_CANDLE
            + max(0, len(self._parts) - 1) * BYTES_PER_PART
            + len(self._closed) * BYTES_PER_CLOSED
        )
        if self._tier is not None:
            self._tier.size_bytes += size_bytes - self._size_bytes
        self._size_bytes = size_bytes

    def belongs_to(self, tier: MemoryTier) -> None:
        """Count there from now on."""
        self._tier = tier
        tier.size_bytes += self.size_bytes


def _first_ms(part: CandleSeries) -> int:
    return int(part.time[0])


def _last_ms(part: CandleSeries) -> int:
    return int(part.time[-1])


class MemoryTier:
    """All series in memory, the least recently used dropped first when over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._series: OrderedDict[SeriesKey, SeriesMemory] = OrderedDict()
        self.size_bytes = 0
        """Of all candles held."""

    def get(self, key: SeriesKey) -> SeriesMemory | None:
        """The series, which becomes the most recently used."""
        series = self._series.get(key)
        if series is not None:
            self._series.move_to_end(key)
        return series

    def __iter__(self) -> Iterator[tuple[SeriesKey, SeriesMemory]]:
        """All series; none becomes more recently used by it."""
        return iter(tuple(self._series.items()))

    def add(self, key: SeriesKey, series: SeriesMemory) -> None:
        """Hold a series from now on."""
        self._series[key] = series
        series.belongs_to(self)

    def limit_to(self, limit_bytes: int) -> None:
        """Hold no more than this from now on."""
        self._limit_bytes = limit_bytes
        self.shrink()

    def shrink(self) -> None:
        """Free memory until the limit is kept."""
        if self.size_bytes <= self._limit_bytes:
            return
        for series in self._series.values():
            if not series.readers:
                series.drop()
            if self.size_bytes <= self._limit_bytes:
                return
