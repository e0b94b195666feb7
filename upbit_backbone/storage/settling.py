"""Which series is read a second time, when, and how far. Plain bookkeeping, no I/O."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice
from typing import NamedTuple

from upbit_backbone.clock import DAY_MS, HOUR_MS, SECOND_MS
from upbit_backbone.protocol import MAX_PAGE_CANDLES
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import BEGINNING_MS, FOREVER_MS, Coverage, KnownSpan
from upbit_backbone.storage.page_proof import PROOF_MARGIN_MS
from upbit_backbone.storage.spans import Range

GATHERED = 100
"""So many candles are worth a page."""
WAITED_MS = HOUR_MS
"""So long after its end the oldest candle is worth one alone."""
AGAIN_MS = 60 * SECOND_MS
"""A page that failed is not tried again before."""
MAX_AGAIN_MS = DAY_MS
"""What cannot be settled is tried again after twice as long each time, and at last so."""
LOOKS = 10
"""Series that are looked at closely in one go: each takes some 0.1 ms of the loop."""


class Due(NamedTuple):
    """One page to read."""

    key: SeriesKey
    start_ms: int
    end_ms: int


@dataclass(slots=True)
class _Series:
    coverage: Coverage
    first_ms: int
    """Nothing that opens before it is unsettled."""
    look_ms: int
    """Before this moment it cannot have gathered or waited enough."""
    refusals: int = 0
    refused_to_ms: int = BEGINNING_MS
    """What opens before it could not be settled, and is left alone until `again_ms`."""
    again_ms: int = 0


class Settling:
    """Series whose newest candles the stream alone proves, in the order they get their page.

    Hundreds of series may wait, and are asked about every second: a heap tells when the next of
    them is worth a look at its spans.
    """

    def __init__(self) -> None:
        self._series: dict[SeriesKey, _Series] = {}
        self._looks: list[tuple[int, int, SeriesKey]] = []
        """A heap; an entry counts while its series has the same `look_ms`."""
        self._order = count()
        self._ready: OrderedDict[SeriesKey, None] = OrderedDict()
        """Those worth a look, in the order in which they get their page."""
        self._asked: set[SeriesKey] = set()

    def __len__(self) -> int:
        return len(self._series)

    def __contains__(self, key: SeriesKey) -> bool:
        return key in self._series

    def take(self, key: SeriesKey, coverage: Coverage) -> None:
        """A series has candles that the stream alone proves, or had some."""
        first_ms = next((span.start_ms for span in coverage if span.unsettled), None)
        series = self._series.get(key)
        if first_ms is None:
            self._forget(key)
        elif series is None or series.coverage is not coverage or first_ms != series.first_ms:
            series = self._series[key] = _Series(coverage, first_ms, 0)
            self._look_again(key, series, _worth_a_look_ms(key, first_ms))

    def grown(self, key: SeriesKey, coverage: Coverage, start_ms: int) -> None:
        """The stream has proved something more of a series, from a time on."""
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(coverage, start_ms, 0)
        elif start_ms >= series.first_ms:
            return
        series.first_ms = start_ms
        self._look_again(key, series, _worth_a_look_ms(key, start_ms))

    def asked_for(self, key: SeriesKey) -> None:
        """Somebody reads the series: it comes before the others."""
        if key in self._ready:
            self._ready.move_to_end(key, last=False)
        elif key in self._series:
            self._asked.add(key)

    def failed(self, key: SeriesKey, now_ms: int) -> None:
        """The page could not be had, as any other could not; later again."""
        if (series := self._series.get(key)) is not None:
            self._look_again(key, series, now_ms + AGAIN_MS)

    def refused(self, key: SeriesKey, now_ms: int, below_ms: int = FOREVER_MS) -> None:
        """What opens below a time cannot be settled: much later again, and what follows now."""
        if (series := self._series.get(key)) is None:
            return
        pause_ms = min(AGAIN_MS << min(series.refusals, 16), MAX_AGAIN_MS)
        series.refusals += 1
        series.refused_to_ms = max(series.refused_to_ms, below_ms)
        series.again_ms = now_ms + pause_ms
        self._look_again(key, series, series.again_ms if below_ms == FOREVER_MS else now_ms)

    def due(self, now_ms: int) -> Due | None:
        """The page to read now: of the first series that has gathered or waited enough."""
        while self._looks and self._looks[0][0] <= now_ms:
            look_ms, _, key = heappop(self._looks)
            series = self._series.get(key)
            if series is not None and series.look_ms == look_ms:
                self._ready.setdefault(key)
                if key in self._asked:
                    self._asked.discard(key)
                    self._ready.move_to_end(key, last=False)
        for key in tuple(islice(self._ready, LOOKS)):
            page = self._page(key, self._series[key], now_ms)
            if page is not None:
                return Due(key, *page)
        return None

    def _page(self, key: SeriesKey, series: _Series, now_ms: int) -> Range | None:
        """What is to be read of a series; None: nothing yet, and it is known when to look again."""
        waits = now_ms < series.again_ms
        low_ms = max(series.first_ms, series.refused_to_ms) if waits else series.first_ms
        spans = [one for one in series.coverage.between(low_ms, FOREVER_MS) if one.unsettled]
        if not spans:
            if waits:
                self._look_again(key, series, series.again_ms)
            else:
                self._forget(key)
            return None
        waited_ms = key.timeframe.next_ms(spans[0].start_ms) + WAITED_MS
        over = _over(key, spans, now_ms)
        if over and (now_ms >= waited_ms or _candles(key, over) >= GATHERED):
            return _reach(key, over)
        lacking_ms = max(0, GATHERED - _candles(key, spans)) * key.timeframe.typical_ms
        look_ms = min(waited_ms, spans[-1].end_ms + lacking_ms + PROOF_MARGIN_MS)
        self._look_again(key, series, min(look_ms, series.again_ms) if waits else look_ms)
        return None

    def _look_again(self, key: SeriesKey, series: _Series, look_ms: int) -> None:
        self._ready.pop(key, None)
        series.look_ms = look_ms
        heappush(self._looks, (look_ms, next(self._order), key))

    def _forget(self, key: SeriesKey) -> None:
        self._series.pop(key, None)
        self._ready.pop(key, None)
        self._asked.discard(key)


def _worth_a_look_ms(key: SeriesKey, first_ms: int) -> int:
    """When a series that begins there can have gathered or waited enough at the earliest."""
    gathered_ms = first_ms + GATHERED * key.timeframe.typical_ms
    return min(key.timeframe.next_ms(first_ms) + WAITED_MS, gathered_ms)


def _over(key: SeriesKey, spans: list[KnownSpan], now_ms: int) -> list[KnownSpan]:
    """What of them a page read now can settle."""
    closed_ms = key.timeframe.floor_ms(now_ms - PROOF_MARGIN_MS)
    return [span.cut(span.start_ms, closed_ms) for span in spans if span.start_ms < closed_ms]


def _candles(key: SeriesKey, spans: list[KnownSpan]) -> int:
    """How many candles they hold; periods in which nobody traded are none."""
    length_ms = key.timeframe.typical_ms
    return sum(
        max(1, (span.end_ms - span.start_ms) // length_ms)
        for span in spans
        if span.state == "complete"
    )


def _reach(key: SeriesKey, spans: list[KnownSpan]) -> Range:
    """From the oldest on, as far as one page reaches where every period has a candle."""
    start_ms = spans[0].start_ms
    last_ms = key.timeframe.back_ms(start_ms, -MAX_PAGE_CANDLES)
    return Range(start_ms, min(spans[-1].end_ms, last_ms))
