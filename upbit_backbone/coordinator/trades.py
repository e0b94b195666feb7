"""Requests for trades: pages lead from an end down, a UTC day at a time."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import NamedTuple

import msgspec

from upbit_backbone.clock import (
    DAY_MS,
    MINUTE_MS,
    SECOND_MS,
    Clock,
    epoch_ms,
    utc_datetime,
)
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
    page_end_ms,
    reached_ms,
)

FIRST_WINDOW_MS = MINUTE_MS
"""How much is looked at first for trades from a start on."""
_WIDER_AT_MOST = 8
"""Windows grow by no more at once: a quiet night says little of the morning after it."""
_ENOUGH_TRADES = 1_500
"""No window is meant to hold more: what of it was read when time is over is of no use."""


class _Found:
    """The trades of a range so far, each once, from its end down."""

    def __init__(self, start_ms: int | None, end_ms: int) -> None:
        self.start_ms, self.end_ms = start_ms, end_ms
        self.trades: dict[int, Trade] = {}
        self.low_ms = end_ms
        """How far down the pages reached; late trades may still come from below."""
        self.pages = 0

    def take(self, page: tuple[Trade, ...]) -> None:
        self.pages += 1
        self.low_ms = min(self.low_ms, reached_ms(page))
        for trade in page:
            at_ms = epoch_ms(trade.exchange_time)
            if at_ms < self.end_ms and (self.start_ms is None or at_ms >= self.start_ms):
                self.trades[trade.sequential_id] = trade

    @property
    def lacking_to_ms(self) -> int:
        """Up to here something may lack: of the oldest millisecond there may be more."""
        return min(self.low_ms + 1, self.end_ms)


class _Ascent:
    """The first so many trades from a start: windows from there up, each read as a whole.

    Pages lead down only, so the way up is in windows, as wide as the market is quiet.
    """

    def __init__(self, start_ms: int, end_ms: int, count: int) -> None:
        self._start_ms, self._end_ms = start_ms, end_ms
        self._count = count
        self._width_ms = FIRST_WINDOW_MS
        self._window: _Found | None = None
        self.trades: dict[int, Trade] = {}
        self.high_ms = start_ms
        """All before this was read."""
        self._pages = 0

    @property
    def pages(self) -> int:
        return self._pages + (0 if self._window is None else self._window.pages)

    def next(self) -> _Found | None:
        """The window to read now; None: that is enough, or all there is."""
        if len(self.trades) >= self._count or self.high_ms >= self._end_ms:
            return None
        # The exchange takes an end in whole seconds.
        end_ms = page_end_ms(self.high_ms + self._width_ms) or self.high_ms + self._width_ms
        self._window = _Found(self.high_ms, min(end_ms, self._end_ms))
        return self._window

    def read(self, window: _Found) -> None:
        """Take that a window was read as a whole."""
        self._window = None
        self._pages += window.pages
        self.trades |= window.trades
        self.high_ms = window.end_ms
        widest_ms = self._width_ms * _WIDER_AT_MOST
        if self.trades:
            wanted = min(self._count - len(self.trades), _ENOUGH_TRADES)
            passed_ms = self.high_ms - self._start_ms
            widest_ms = min(widest_ms, passed_ms * max(wanted, 1) // len(self.trades) + SECOND_MS)
        self._width_ms = widest_ms


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
        ascends = plan.start_ms is not None and request.count is not None
        # The first trades from a start are not those of a later day.
        if not plan.days or (ascends and plan.beyond is not None):
            asked_ms = plan.end_ms - 1 if request.start_ms is None else request.start_ms
            raise DataUnavailableError(
                f"trades of {utc_datetime(asked_ms):%Y-%m-%d %H:%M} UTC are not to be had:"
                f" {TOO_OLD}",
                missing=(unknown(request.start_ms, plan.end_ms, TOO_OLD),),
            )
        read = self._first(request, plan) if ascends else self._range(request, plan)
        trades, lacking, pages, error = await read
        missing: list[Span] = []
        if plan.beyond is not None:
            missing.append(unknown(*plan.beyond, TOO_OLD))
        if error is not None:
            missing.append(unknown(*lacking, str(error)))
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
            split_info=counted(pages, "page") if pages > 1 else None,
            pages=pages,
            source="rest",
            age_s=0.0,
            path="coordinator → storage → router",
            missing=tuple(missing),
            reason=str(error) if error else "",
        )
        return BackboneResponse(not missing, trades, metadata, error, request.request_id)

    async def _range(self, request: BackboneRequest, plan: TradePlan) -> _Read:
        """All of a range, or the latest before its end."""
        found = _Found(plan.start_ms, plan.end_ms)
        walk = TradeWalk(plan.newest_day, plan.oldest_day, to_ms=plan.to_ms)
        # A count without a start needs no more than so many trades.
        error = await self._until_failure(request, self._walk(request, walk, found, request.count))
        trades = _ascending(found.trades)
        if request.count is not None:
            trades = trades[-request.count :]
        low_ms = plan.start_ms if plan.beyond is None else plan.beyond.end_ms
        return _Read(trades, (low_ms, found.lacking_to_ms), found.pages, error)

    async def _first(self, request: BackboneRequest, plan: TradePlan) -> _Read:
        """The first so many from a start; should one lack, those before it."""
        assert plan.start_ms is not None
        assert request.count is not None
        ascent = _Ascent(plan.start_ms, plan.end_ms, request.count)
        error = await self._until_failure(request, self._climb(request, plan, ascent))
        trades = _ascending(ascent.trades)[: request.count]
        return _Read(trades, (ascent.high_ms, plan.end_ms), ascent.pages, error)

    async def _until_failure(
        self, request: BackboneRequest, work: Coroutine[None, None, None]
    ) -> BackboneError | None:
        try:
            async with self._pages.within_deadline(request):
                await work
        except BackboneError as failure:
            return own(failure)
        return None

    async def _climb(self, request: BackboneRequest, plan: TradePlan, ascent: _Ascent) -> None:
        while (window := ascent.next()) is not None:
            assert window.start_ms is not None
            to_ms = plan.to_ms if window.end_ms == plan.end_ms else page_end_ms(window.end_ms)
            days = ((window.end_ms - 1) // DAY_MS, window.start_ms // DAY_MS)
            await self._walk(request, TradeWalk(*days, to_ms=to_ms), window, None)
            ascent.read(window)

    async def _walk(
        self, request: BackboneRequest, walk: TradeWalk, found: _Found, at_most: int | None
    ) -> None:
        """Walk down to where a range begins, or until so many trades are had."""
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
                if found.start_ms is not None and found.low_ms < found.start_ms - LATE_BY_MS:
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


class _Read(NamedTuple):
    """What a walk gave."""

    trades: tuple[Trade, ...]
    lacking: tuple[int | None, int]
    """Where trades may lack if it failed."""
    pages: int
    error: BackboneError | None


def _ascending(trades: dict[int, Trade]) -> tuple[Trade, ...]:
    order = sorted(trades.values(), key=lambda trade: (trade.exchange_time, trade.sequential_id))
    return tuple(order)
