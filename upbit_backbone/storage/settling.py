"""Which series is read a second time, when, and how far. Plain bookkeeping, no I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from upbit_backbone.clock import HOUR_MS, SECOND_MS
from upbit_backbone.protocol import MAX_PAGE_CANDLES
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import Coverage, KnownSpan
from upbit_backbone.storage.page_proof import PROOF_MARGIN_MS
from upbit_backbone.storage.spans import Range

GATHERED = 100
"""So many candles are worth a page."""
WAITED_MS = HOUR_MS
"""So long after its end the oldest candle is worth one alone."""
AGAIN_MS = 60 * SECOND_MS
"""A page that failed is not tried again before."""


class Due(NamedTuple):
    """One page to read."""

    key: SeriesKey
    start_ms: int
    end_ms: int


class Settling:
    """Series whose newest candles the stream alone proves, in the order they get their page."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[SeriesKey, Coverage] = OrderedDict()
        self._not_before_ms: dict[SeriesKey, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, key: SeriesKey, coverage: Coverage) -> None:
        """A series has candles that the stream alone proves, or had some."""
        if coverage.unsettled():
            self._waiting.setdefault(key, coverage)
        else:
            self._waiting.pop(key, None)
            self._not_before_ms.pop(key, None)

    def asked_for(self, key: SeriesKey) -> None:
        """Somebody reads the series: it comes before the others."""
        if key in self._waiting:
            self._waiting.move_to_end(key, last=False)

    def failed(self, key: SeriesKey, now_ms: int) -> None:
        """The page could not be had; later again."""
        self._not_before_ms[key] = now_ms + AGAIN_MS

    def due(self, now_ms: int) -> Due | None:
        """The page to read now: of the first series that has gathered or waited enough."""
        for key, coverage in self._waiting.items():
            if self._not_before_ms.get(key, now_ms) > now_ms:
                continue
            spans = _over(coverage, key, now_ms)
            if not spans:
                continue
            oldest_ms = key.timeframe.next_ms(spans[0].start_ms)
            if _candles(key, spans) >= GATHERED or now_ms - oldest_ms >= WAITED_MS:
                return Due(key, *_page(key, spans))
        return None


def _over(coverage: Coverage, key: SeriesKey, now_ms: int) -> list[KnownSpan]:
    """What a page read now can settle."""
    closed_ms = key.timeframe.floor_ms(now_ms - PROOF_MARGIN_MS)
    return [
        span.cut(span.start_ms, closed_ms)
        for span in coverage.unsettled()
        if span.start_ms < closed_ms
    ]


def _candles(key: SeriesKey, spans: list[KnownSpan]) -> int:
    """How many candles they hold; periods in which nobody traded are none."""
    length_ms = key.timeframe.typical_ms
    return sum(
        max(1, (span.end_ms - span.start_ms) // length_ms)
        for span in spans
        if span.state == "complete"
    )


def _page(key: SeriesKey, spans: list[KnownSpan]) -> Range:
    """From the oldest on, as far as one page reaches where every period has a candle."""
    start_ms = spans[0].start_ms
    last_ms = key.timeframe.back_ms(start_ms, -MAX_PAGE_CANDLES)
    return Range(start_ms, min(spans[-1].end_ms, last_ms))
