"""Pages that the store reads by itself: seams of live series, and second readings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from upbit_backbone.clock import SECOND_MS, Clock, utc_datetime
from upbit_backbone.errors import BackboneError
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    MAX_PAGE_CANDLES,
    BackboneRequest,
    DataType,
    Priority,
)
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import Coverage
from upbit_backbone.storage.page_proof import PROOF_MARGIN_MS
from upbit_backbone.storage.settling import AGAIN_MS, Settling
from upbit_backbone.storage.spans import Range

logger = logging.getLogger(__name__)

MAX_SEAM_PAGES = 8
"""A seam that takes more pages (a day of minutes takes eight) is history: who wants it asks."""
ReadPage = Callable[[SeriesKey, BackboneRequest], Awaitable[object]]


class Tending:
    """One page at a time, LOW, whenever one is due."""

    def __init__(
        self,
        read_page: ReadPage,
        coverage: Callable[[SeriesKey], Coverage],
        *,
        clock: Clock,
        look_every_s: float,
    ) -> None:
        """Take what reads and proves a page.

        Args:
            read_page: Asks for a page and stores what it proves.
            coverage: What is known of a series.
            clock: The exchange's time.
            look_every_s: How often to look whether a page is due.
        """
        self._read_page = read_page
        self._coverage = coverage
        self._clock = clock
        self._look_every_s = look_every_s
        self.settling = Settling()
        self._seams: dict[SeriesKey, int] = {}
        self._not_before_ms: dict[SeriesKey, int] = {}
        self.seam_pages = 0
        self.settling_pages = 0

    def joins(self, key: SeriesKey, whole_from_ms: int) -> None:
        """A series is live from here on: what lies below is to join what is stored."""
        if self._seam(key, whole_from_ms) is None:
            self._seams.pop(key, None)
        else:
            self._seams[key] = whole_from_ms

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._look_every_s)
            while await self._next_page():
                pass

    async def _next_page(self) -> bool:
        """Read the page that is due; False when none is."""
        now_ms = self._clock.now_ms()
        for key, whole_from_ms in tuple(self._seams.items()):
            if self._not_before_ms.get(key, now_ms) > now_ms:
                continue
            seam = self._seam(key, whole_from_ms)
            if seam is None:
                del self._seams[key]
            elif seam.end_ms + PROOF_MARGIN_MS <= now_ms:
                self.seam_pages += 1
                await self._read(key, seam)
                left = self._seam(key, whole_from_ms)
                if left is not None and left.end_ms == seam.end_ms:
                    self._not_before_ms[key] = now_ms + AGAIN_MS
                return True
        due = self.settling.due(now_ms)
        if due is None:
            return False
        self.settling_pages += 1
        await self._read(due.key, Range(due.start_ms, due.end_ms))
        coverage = self._coverage(due.key)
        self.settling.take(due.key, coverage)
        unsettled = coverage.unsettled()
        if unsettled and unsettled[0].start_ms <= due.start_ms:
            self.settling.failed(due.key, now_ms)
        return True

    def _seam(self, key: SeriesKey, whole_from_ms: int) -> Range | None:
        """What lies between the newest stored part and the live one."""
        proved = self._coverage(key).proved
        below = proved.reaching_below(whole_from_ms)
        if below is None or below.end_ms >= whole_from_ms:
            return None
        if below.end_ms < key.timeframe.back_ms(whole_from_ms, MAX_SEAM_PAGES * MAX_PAGE_CANDLES):
            return None
        # What a page has joined already is not asked again.
        holes = proved.missing(below.end_ms, whole_from_ms)
        return holes[-1]

    async def _read(self, key: SeriesKey, span: Range) -> None:
        request = BackboneRequest(
            DataType.CANDLE,
            (key.symbol,),
            key.timeframe,
            utc_datetime(span.start_ms),
            utc_datetime(span.end_ms),
            _rows(key.timeframe, span),
            Priority.LOW,
        )
        try:
            await self._read_page(key, request)
        except BackboneError as error:
            logger.info("a page of %s %s was not read: %s", *key, error)


def _rows(timeframe: Timeframe, span: Range) -> int:
    periods = -(-(span.end_ms - span.start_ms) // (timeframe.fixed_ms or 28 * 86_400 * SECOND_MS))
    return max(1, min(MAX_PAGE_CANDLES, periods))
