"""Series that are shown or pinned: one stream below each, any number of readers above.

`LiveSeries` decides in plain code what the stream proves; `CandleReader` is what one reader holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

from upbit_backbone.clock import SECOND_MS, epoch_ms
from upbit_backbone.models import Candle, CandleSeries, Gap
from upbit_backbone.protocol import Policy, Priority, Subscription, SubscriptionState, Whole
from upbit_backbone.reader import Reader
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import LIVE, REVISED, KnownSpan
from upbit_backbone.storage.series_memory import Tail
from upbit_backbone.storage.spans import SpanSet

MAX_CONFLATED = 256
"""Candles a reader of the latest may leave unread: a page settles up to 200 at once."""
MAX_UNWRITTEN = 200
"""Closed candles kept while the file cannot be written; older ones are asked again, as a seam."""
LATE_CLOSING_MS = 6_000
"""A stream that has not closed a period so long after its end is not up to now."""


class CandleReader(Reader):
    """A reader of one series, fed by a stream that others share: it stands as that does."""

    def __init__(
        self,
        policy: Policy,
        source: Callable[[], Subscription | None],
        on_close: Callable[[Self], None],
        priority: Priority = Priority.NORMAL,
        on_priority: Callable[[Priority], None] | None = None,
    ) -> None:
        super().__init__(
            policy, on_close, priority, most_conflated=MAX_CONFLATED, on_priority=on_priority
        )
        self._source = source

    @property
    def state(self) -> SubscriptionState:
        source = self._source()
        return super().state if source is None or super().state == "closed" else source.state

    @property
    def reason(self) -> str:
        source = self._source()
        return super().reason if source is None or super().state == "closed" else source.reason

    @property
    def complete_to_ms(self) -> int | None:
        source = self._source()
        return None if source is None else source.complete_to_ms

    def push(self, value: Candle | Gap) -> None:
        """Hand over a value; never waits. Gaps are told to readers of all."""
        if self.policy == "all" or isinstance(value, Candle):
            super().push(value)


class LiveProof(NamedTuple):
    """What is to be stored at once; nothing of both: the stream begins to be whole."""

    candles: tuple[Candle, ...]
    spans: tuple[KnownSpan, ...]
    over_all: bool = False


class LiveSeries:
    """What the stream of one series has told. Decides in plain code; the caller passes time."""

    def __init__(self, key: SeriesKey, empty: CandleSeries) -> None:
        self.key = key
        self.empty = empty
        self.readers: set[CandleReader] = set()
        self.pinned = False
        self.source: Subscription | None = None
        self.whole_from_ms: int | None = None
        """Since this open time every trade was seen; None while the stream is not whole."""
        self._closed_to_ms = 0
        self._stored_to_ms = 0
        self._forming: dict[int, Candle] = {}
        self._unstored: dict[int, Candle] = {}
        self._waiting: dict[int, Candle] = {}
        self._gap: Gap | None = None
        self._rows: CandleSeries | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody reads it, or it is pinned."""
        return self.pinned or bool(self.readers)

    @property
    def newest(self) -> Candle | None:
        """The candle that forms now, as a new reader is told first."""
        return self._forming[max(self._forming)] if self._forming else None

    def weigh(self) -> None:
        """Let the stream be as urgent as the most urgent of those who read it."""
        if self.source is not None:
            urgent = min((reader.priority for reader in self.readers), default=Priority.LOW)
            self.source.set_priority(urgent)

    def push(self, value: Candle | Gap) -> None:
        """Hand a value to the readers."""
        for reader in tuple(self.readers):
            if reader.policy == "all" or isinstance(value, Candle):
                reader.push(value)

    def take(self, value: Candle | Gap | Whole, now_ms: int) -> LiveProof | None:
        """Take what the stream told; returns what it proves."""
        self._rows = None
        if isinstance(value, Candle):
            return self._take_candle(value, now_ms)
        if isinstance(value, Whole):
            return self._take_whole(value, now_ms)
        return self._take_gap(value, now_ms) if value.state == "open" else None

    def interrupted(self) -> None:
        """The stream has ended: what comes next does not continue it."""
        self.whole_from_ms = None
        self._rows = None
        self._forming.clear()
        self._waiting.clear()
        self._unstored.clear()

    def lost(self, below_ms: int) -> None:
        """What it proved below a time will never be stored: it is whole from there on only."""
        if self.whole_from_ms is not None:
            self.whole_from_ms = max(self.whole_from_ms, below_ms)
        for at_ms in [at for at in self._unstored if at < below_ms]:
            del self._unstored[at_ms]
        self._rows = None

    def stored(self, proof: LiveProof) -> None:
        """It is committed."""
        for span in proof.spans:
            if span.proved:
                self._stored_to_ms = max(self._stored_to_ms, span.end_ms)
        for candle in proof.candles:
            at_ms = epoch_ms(candle.open_time)
            if self._unstored.get(at_ms) is candle:
                del self._unstored[at_ms]
        self._rows = None

    def newest_unstored_ms(self, below_ms: int) -> int | None:
        """When the newest candle opens that has closed and is not committed yet."""
        return max((at for at in self._unstored if at < below_ms), default=None)

    def tail(self, now_ms: int, now_s: float) -> Tail | None:
        """What lies between the stored part and now; None when the stream is not up to now."""
        source, whole_from_ms = self.source, self.whole_from_ms
        if whole_from_ms is None or source is None or source.state != "confirmed":
            return None
        complete_to_ms = source.complete_to_ms
        if complete_to_ms is None or whole_from_ms > now_ms:
            return None
        late_ms = now_ms - self.key.timeframe.next_ms(self._closed_to_ms)
        if late_ms > LATE_CLOSING_MS:
            return None
        start_ms = min(max(whole_from_ms, self._stored_to_ms), self._closed_to_ms)
        if self._rows is None:
            held = self._unstored | self._forming
            self._rows = series_of(self.empty, [held[at] for at in sorted(held) if at >= start_ms])
        # What came since may be lost, or on its way: of that nothing is known yet.
        received_s = now_s - max(0, now_ms - complete_to_ms) / SECOND_MS
        over_ms = self.key.timeframe.next_ms(self._closed_to_ms) + LATE_CLOSING_MS
        return Tail(self._rows, start_ms, self._closed_to_ms, over_ms, received_s, received_s)

    def _take_candle(self, candle: Candle, now_ms: int) -> LiveProof | None:
        at_ms = epoch_ms(candle.open_time)
        if candle.state == "forming":
            self._forming[at_ms] = candle
            return None
        self._forming.pop(at_ms, None)
        self._keep(at_ms, candle)
        if self.whole_from_ms is None or at_ms >= self._closed_to_ms:
            # The stretch that it belongs to follows at once.
            self._waiting[at_ms] = candle
            return None
        # It was told late: it holds whatever was read of its period before.
        span = KnownSpan(
            at_ms, self.key.timeframe.next_ms(at_ms), "complete", REVISED, LIVE, now_ms
        )
        return LiveProof((candle,), (span,), over_all=True)

    def _take_whole(self, whole: Whole, now_ms: int) -> LiveProof | None:
        start_ms, end_ms = epoch_ms(whole.start), epoch_ms(whole.end)
        spans: list[KnownSpan] = []
        if self._gap is not None:
            spans.append(self._lost(self._gap, start_ms, now_ms))
            self._gap = None
        if self.whole_from_ms is None or start_ms != self._closed_to_ms:
            self.whole_from_ms = start_ms
        self._closed_to_ms = end_ms
        traded = SpanSet()
        candles = []
        for at_ms in sorted(self._waiting):
            if start_ms <= at_ms < end_ms:
                traded.add(at_ms, self.key.timeframe.next_ms(at_ms))
                candles.append(self._waiting[at_ms])
        self._waiting.clear()
        spans += [
            KnownSpan(*span, "empty", "nobody traded", LIVE, now_ms)
            for span in traded.missing(start_ms, end_ms)
        ]
        spans += [KnownSpan(*span, "complete", "", LIVE, now_ms) for span in traded]
        return LiveProof(tuple(candles), tuple(sorted(spans)))

    def _take_gap(self, gap: Gap, now_ms: int) -> LiveProof:
        self.interrupted()
        if self._gap is None or gap.start < self._gap.start:
            self._gap = gap
        end_ms = self.key.timeframe.next_ms(self.key.timeframe.floor_ms(now_ms))
        return LiveProof((), (self._lost(self._gap, end_ms, now_ms),))

    def _lost(self, gap: Gap, end_ms: int, now_ms: int) -> KnownSpan:
        start_ms = self.key.timeframe.floor_ms(epoch_ms(gap.start))
        return KnownSpan(start_ms, end_ms, "unknown", f"outage: {gap.reason}", LIVE, now_ms)

    def _keep(self, at_ms: int, candle: Candle) -> None:
        self._unstored[at_ms] = candle
        if len(self._unstored) > MAX_UNWRITTEN:
            self.lost(self.key.timeframe.next_ms(min(self._unstored)))


def with_revised(page: CandleSeries, revised: Iterable[Candle]) -> CandleSeries:
    """A page with the candles that late trades changed after it was asked, as they are now."""
    low_ms = int(page.time[0]) if len(page) else None
    known = [one for one in revised if low_ms is not None and epoch_ms(one.open_time) >= low_ms]
    kept = [one for one in known if len(page.between(at := epoch_ms(one.open_time), at + 1))]
    rows = series_of(page[:0], kept).labelled(page.source)
    return CandleSeries.merged([page, rows])


def series_of(empty: CandleSeries, candles: Iterable[Candle]) -> CandleSeries:
    """The same candles as columns; ascending, as they come."""
    candles = tuple(candles)
    forming_ms = min(
        (epoch_ms(candle.open_time) for candle in candles if not candle.closed), default=None
    )
    return CandleSeries.from_rows(
        empty.symbol,
        empty.timeframe,
        [
            (
                epoch_ms(candle.open_time),
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.volume,
                candle.value,
            )
            for candle in candles
        ],
        closed_before_ms=forming_ms,
        source="websocket",
        simulated=empty.simulated,
    )
