"""Pages that the store reads by itself: seams of live series, and second readings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from upbit_backbone.clock import SECOND_MS, Clock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DeadlineError,
    RateLimitedError,
    SystemOverloadedError,
    TransportError,
)
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

MAX_SEAM_PAGES = 64
"""A seam that takes more pages is history: who wants it asks. A week of minutes takes 51, and of
seconds this is three and a half hours; at LOW all of it is read in some nine seconds."""
PASSING = (TransportError, RateLimitedError, DeadlineError, SystemOverloadedError, ClosedError)
"""Errors that say nothing of the series that was asked for."""
ReadPage = Callable[[SeriesKey, BackboneRequest], Awaitable[object]]
LowTurn = Callable[[], AbstractAsyncContextManager[object]]


def never() -> bool:
    """Nothing else suffers."""
    return False


class Tending:
    """One page at a time, LOW, whenever one is due; seams and second readings in turn."""

    def __init__(
        self,
        read_page: ReadPage,
        coverage: Callable[[SeriesKey], Coverage],
        *,
        clock: Clock,
        look_every_s: float,
        gives_way: Callable[[], bool] = never,
        low_turn: LowTurn = nullcontext,
    ) -> None:
        """Take what reads and proves a page.

        Args:
            read_page: Asks for a page and stores what it proves.
            coverage: What is known of a series.
            clock: The exchange's time.
            look_every_s: How often to look whether a page is due.
            gives_way: Whether the next page has to wait, because others suffer from the load.
            low_turn: What a page holds while it is under way: one turn for all LOW requests.
        """
        self._read_page = read_page
        self._coverage = coverage
        self._clock = clock
        self._look_every_s = look_every_s
        self._gives_way = gives_way
        self._low_turn = low_turn
        self._seam_was_last = False
        self.settling = Settling()
        self._idle_page: Callable[[], Awaitable[bool]] | None = None
        self._seams: dict[SeriesKey, int] = {}
        self._not_before_ms: dict[SeriesKey, int] = {}
        self.seam_pages = 0
        self.settling_pages = 0
        self._rests_to_ms = 0
        self.fault: Exception | None = None
        """The last unexpected error; the work goes on."""

    def when_idle(self, next_page: Callable[[], Awaitable[bool]]) -> None:
        """Have something read a page when no other is due; it tells whether it did."""
        self._idle_page = next_page

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
            try:
                while self._may_read() and await self._next_page():
                    pass
            except Exception as fault:
                logger.exception("a page of the store's own met an unexpected error")
                self.fault = fault
                self._rests_to_ms = self._clock.now_ms() + AGAIN_MS

    def _may_read(self) -> bool:
        return not self._gives_way() and self._clock.now_ms() >= self._rests_to_ms

    async def _next_page(self) -> bool:
        """Read the page that is due; False when none is."""
        # Settling need not wait for the end of a long seam.
        if self._seam_was_last and await self._settling_page():
            self._seam_was_last = False
            return True
        self._seam_was_last = await self._seam_page()
        if self._seam_was_last or await self._settling_page():
            return True
        return self._idle_page is not None and await self._idle_page()

    async def _seam_page(self) -> bool:
        now_ms = self._clock.now_ms()
        for key, whole_from_ms in tuple(self._seams.items()):
            if self._not_before_ms.get(key, now_ms) > now_ms:
                continue
            seam = self._seam(key, whole_from_ms)
            if seam is None:
                del self._seams[key]
            elif seam.end_ms + PROOF_MARGIN_MS <= now_ms:
                self.seam_pages += 1
                # Each series has its turn.
                self._seams[key] = self._seams.pop(key)
                await self._read(key, seam)
                left = self._seam(key, whole_from_ms)
                if left is not None and left.end_ms == seam.end_ms:
                    self._not_before_ms[key] = now_ms + AGAIN_MS
                return True
        return False

    async def _settling_page(self) -> bool:
        now_ms = self._clock.now_ms()
        due = self.settling.due(now_ms)
        if due is None:
            return False
        self.settling_pages += 1
        failure = await self._read(due.key, Range(due.start_ms, due.end_ms))
        coverage = self._coverage(due.key)
        self.settling.take(due.key, coverage)
        oldest = coverage.at(due.start_ms)
        if isinstance(failure, PASSING):
            self.settling.failed(due.key, now_ms)
        elif failure is not None:
            self.settling.refused(due.key, now_ms)
        elif oldest is not None and oldest.unsettled:
            self.settling.refused(due.key, now_ms, due.end_ms)
        return True

    def _seam(self, key: SeriesKey, whole_from_ms: int) -> Range | None:
        """The newest stretch that is not proved between what is stored and what is live."""
        proved = self._coverage(key).proved
        low_ms = key.timeframe.back_ms(whole_from_ms, MAX_SEAM_PAGES * MAX_PAGE_CANDLES)
        holes = proved.missing(low_ms, whole_from_ms)
        if not holes:
            return None
        newest = holes[-1]
        # Below the oldest candles that are near enough to be joined lies history.
        is_history = newest.start_ms == low_ms and proved.ending_at(low_ms) is None
        return None if is_history else newest

    async def _read(self, key: SeriesKey, span: Range) -> Exception | None:
        """Have a page read and stored; returns why it was not."""
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
            async with self._low_turn():
                await self._read_page(key, request)
        except BackboneError as error:
            logger.info("a page of %s %s was not read: %s", *key, error)
            return error
        except Exception as fault:
            # A fault of ours, with this series perhaps; the others must not wait for ever.
            logger.exception("a page of %s %s met an unexpected error", *key)
            self.fault = fault
            return fault
        return None


def _rows(timeframe: Timeframe, span: Range) -> int:
    periods = -(-(span.end_ms - span.start_ms) // (timeframe.fixed_ms or 28 * 86_400 * SECOND_MS))
    return max(1, min(MAX_PAGE_CANDLES, periods))
