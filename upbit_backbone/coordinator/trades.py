"""Requests for trades: pages from the newest down, a UTC day at a time."""

from __future__ import annotations

from functools import partial

import msgspec

from upbit_backbone.clock import DAY_MS, Clock, epoch_ms, utc_datetime
from upbit_backbone.coordinator.checks import check_trades
from upbit_backbone.coordinator.pages import Pages, own
from upbit_backbone.coordinator.plan import (
    OLDEST_TRADE_DAY,
    TOO_OLD_TRADES,
    TradePlan,
    counted,
    plan_trades,
)
from upbit_backbone.coordinator.ranges import unknown
from upbit_backbone.errors import BackboneError, DataUnavailableError
from upbit_backbone.models import Span, Trade
from upbit_backbone.protocol import (
    MAX_PAGE_TRADES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    Reach,
)

NEAR_MIDNIGHT_MS = 10_000
"""Clocks are a little apart, and a request may wait for its limit: so near to midnight the
exchange may count its days from another one than we do."""


class _Found:
    """The trades of a request so far, each once."""

    def __init__(self, plan: TradePlan) -> None:
        self._plan = plan
        self.trades: dict[int, Trade] = {}
        self.low_ms = plan.end_ms
        """How far down the pages reached."""
        self.pages = 0

    def take(self, page: tuple[Trade, ...]) -> None:
        start_ms, end_ms = self._plan.start_ms, self._plan.end_ms
        self.pages += 1
        for trade in page:
            at_ms = epoch_ms(trade.exchange_time)
            self.low_ms = min(self.low_ms, at_ms)
            if at_ms < end_ms and (start_ms is None or at_ms >= start_ms):
                self.trades[trade.sequential_id] = trade

    def answer(self, count: int | None) -> tuple[Trade, ...]:
        """Ascending by time; the first so many from a start, else the latest."""
        ordered = sorted(
            self.trades.values(), key=lambda trade: (trade.exchange_time, trade.sequential_id)
        )
        if count is not None:
            ordered = ordered[:count] if self._plan.start_ms is not None else ordered[-count:]
        return tuple(ordered)


class TradeGatherer:
    """Answers a request for trades of a range, or for a number of them."""

    def __init__(self, below: DataSource, pages: Pages, clock: Clock) -> None:
        self._below = below
        self._pages = pages
        self._clock = clock

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As `Coordinator.fetch`, for trades: a tuple, ascending by time.

        Raises:
            DataUnavailableError: all of the range is older than the exchange keeps.
            BackboneError: nothing could be had.
        """
        started = self._clock.monotonic()
        plan = plan_trades(request.start_ms, request.end_ms, now_ms=self._clock.now_ms())
        if not plan.days:
            asked_ms = plan.end_ms - 1 if request.start_ms is None else request.start_ms
            raise DataUnavailableError(
                f"trades of {utc_datetime(asked_ms):%Y-%m-%d %H:%M} UTC are not to be had:"
                f" {TOO_OLD_TRADES}",
                missing=(unknown(request.start_ms, plan.end_ms, TOO_OLD_TRADES),),
            )
        found = _Found(plan)
        error: BackboneError | None = None
        try:
            async with self._pages.within_deadline(request):
                await self._walk(request, plan, found)
        except BackboneError as failure:
            error = own(failure)
        trades = found.answer(request.count)
        missing: list[Span] = []
        if plan.beyond is not None:
            missing.append(unknown(*plan.beyond, TOO_OLD_TRADES))
        if error is not None:
            # Of the oldest millisecond there may be more.
            low_ms = plan.start_ms if plan.beyond is None else plan.beyond.end_ms
            up_to_ms = min(found.low_ms + 1, plan.end_ms)
            missing.append(unknown(low_ms, up_to_ms, str(error)))
        elif plan.beyond is not None:
            error = DataUnavailableError(TOO_OLD_TRADES)
        if error is not None and not trades:
            error.missing = tuple(missing)
            raise error
        metadata = BackboneMetadata(
            source_layer="layer_1",
            cache_hit=False,
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(trades),
            priority_used=request.priority,
            split_info=counted(found.pages, "page") if found.pages > 1 else None,
            source="rest",
            age_s=0.0,
            path="coordinator → storage → router",
            missing=tuple(missing),
            reason=str(error) if error else "",
        )
        return BackboneResponse(not missing, trades, metadata, error, request.request_id)

    async def _walk(self, request: BackboneRequest, plan: TradePlan, found: _Found) -> None:
        """Walk the days; a count without a start needs no more than so many trades."""
        at_most = request.count if plan.start_ms is None else None
        to_ms = plan.to_ms
        for day in plan.days:
            cursor: int | None = None
            while at_most is None or len(found.trades) < at_most:
                size = MAX_PAGE_TRADES
                if at_most is not None:
                    size = min(size, at_most - len(found.trades))
                page = await self._page(request, day, size=size, cursor=cursor, to_ms=to_ms)
                found.take(page)
                if not page:
                    # Only an empty page ends a day: a short one was seen to lack rows.
                    break
                if plan.start_ms is not None and found.low_ms < plan.start_ms:
                    return
                cursor, to_ms = page[-1].sequential_id, None
            to_ms = None

    async def _page(
        self,
        request: BackboneRequest,
        day: int,
        *,
        size: int,
        cursor: int | None,
        to_ms: int | None,
    ) -> tuple[Trade, ...]:
        """A page of one UTC day, newest first; 00:00 UTC may pass before it is answered."""
        page: tuple[Trade, ...] = ()
        for days_ago in self._names_of(day):
            asked = msgspec.structs.replace(
                request,
                start_time=None,
                end_time=None if to_ms is None else utc_datetime(to_ms),
                count=size,
                cursor=cursor,
                days_ago=days_ago or None,
                reach=Reach.ANYWHERE,
            )
            page = await self._pages.retrier(partial(self._ask, asked), deadline=request.deadline)
            if page and epoch_ms(page[0].exchange_time) // DAY_MS == day:
                check_trades(page, request.symbols[0], asked=size, cursor=cursor, before_ms=to_ms)
                return page
        return ()

    async def _ask(self, asked: BackboneRequest) -> tuple[Trade, ...]:
        async with self._pages.turn(asked):
            self._pages.sent += 1
            response = await self._below.fetch(asked)
        trades: tuple[Trade, ...] = response.data
        return trades

    def _names_of(self, day: int) -> list[int]:
        """How many days ago a day may be for the exchange, the likeliest by our clock first.

        Should midnight pass between two questions, the second is the right one.
        """
        now_ms = self._clock.now_ms()
        likely = now_ms // DAY_MS - day
        others = {
            (now_ms + shift) // DAY_MS - day for shift in (-NEAR_MIDNIGHT_MS, NEAR_MIDNIGHT_MS)
        }
        return [
            name for name in (likely, *sorted(others - {likely})) if 0 <= name <= OLDEST_TRADE_DAY
        ]
