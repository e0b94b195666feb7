"""Requests for trades: pages from the newest down, a UTC day at a time."""

from __future__ import annotations

from functools import partial

import msgspec

from upbit_backbone.clock import Clock, epoch_ms, utc_datetime
from upbit_backbone.coordinator.checks import check_trades
from upbit_backbone.coordinator.pages import Pages, own
from upbit_backbone.coordinator.plan import TradePlan, counted, plan_trades
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
from upbit_backbone.trade_pages import (
    LATE_BY_MS,
    TOO_OLD,
    TradeQuestion,
    TradeWalk,
    reached_ms,
)


class _Found:
    """The trades of a request so far, each once."""

    def __init__(self, plan: TradePlan) -> None:
        self._plan = plan
        self.trades: dict[int, Trade] = {}
        self.low_ms = plan.end_ms
        """How far down the pages reached; late trades may still come from below."""
        self.pages = 0

    def take(self, page: tuple[Trade, ...]) -> None:
        start_ms, end_ms = self._plan.start_ms, self._plan.end_ms
        self.pages += 1
        self.low_ms = min(self.low_ms, reached_ms(page))
        for trade in page:
            at_ms = epoch_ms(trade.exchange_time)
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
                f" {TOO_OLD}",
                missing=(unknown(request.start_ms, plan.end_ms, TOO_OLD),),
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
            missing.append(unknown(*plan.beyond, TOO_OLD))
        if error is not None:
            # Of the oldest millisecond there may be more.
            low_ms = plan.start_ms if plan.beyond is None else plan.beyond.end_ms
            up_to_ms = min(found.low_ms + 1, plan.end_ms)
            missing.append(unknown(low_ms, up_to_ms, str(error)))
        elif plan.beyond is not None:
            error = DataUnavailableError(TOO_OLD)
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
        walk = TradeWalk(plan.newest_day, plan.oldest_day, to_ms=plan.to_ms)
        while at_most is None or len(found.trades) < at_most:
            question = walk.next(self._clock.now_ms())
            if question is None:
                return
            size = MAX_PAGE_TRADES
            if at_most is not None:
                size = min(size, at_most - len(found.trades))
            page = await self._page(request, question, size)
            if walk.take(page):
                check_trades(
                    page,
                    request.symbols[0],
                    asked=size,
                    cursor=question.cursor,
                    before_ms=question.to_ms,
                )
                found.take(page)
                if plan.start_ms is not None and found.low_ms < plan.start_ms - LATE_BY_MS:
                    return

    async def _page(
        self, request: BackboneRequest, question: TradeQuestion, size: int
    ) -> tuple[Trade, ...]:
        asked = msgspec.structs.replace(
            request,
            start_time=None,
            end_time=None if question.to_ms is None else utc_datetime(question.to_ms),
            count=size,
            cursor=question.cursor,
            days_ago=question.days_ago,
            reach=Reach.ANYWHERE,
        )
        return await self._pages.retrier(partial(self._ask, asked), deadline=request.deadline)

    async def _ask(self, asked: BackboneRequest) -> tuple[Trade, ...]:
        await self._pages.admitted(asked.priority)
        async with self._pages.turn(asked):
            self._pages.sent += 1
            response = await self._below.fetch(asked)
        trades: tuple[Trade, ...] = response.data
        return trades
