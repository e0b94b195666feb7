"""A neighbour below: an exchange held in a dict, that answers pages as the router does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import CLOSE_GRACE_MS, CandleSeries, Market, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    MAX_PAGE_CANDLES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    MarketList,
    Priority,
    Reach,
    Subscription,
    SubscriptionState,
)

SYMBOL = "KRW-BTC"
Row = tuple[float, ...]


def row_of(timeframe: Timeframe, open_ms: int, read_ms: int) -> Row:
    """What the exchange says of a candle at a moment: a forming one is not yet what it will be."""
    whole = timeframe.next_ms(open_ms) - open_ms
    passed = min(whole, read_ms - open_ms)
    price = 100_000.0 + open_ms // 1_000 % 9_973
    return (open_ms, price, price + 7.25, price - 3.5, price + 1, passed / 1_000 + 0.125, passed)


def series_of(
    timeframe: Timeframe,
    opens: Iterable[int],
    read_ms: int,
    *,
    symbol: str = SYMBOL,
    simulated: bool = False,
) -> CandleSeries:
    """A page of these candles, as read at a moment."""
    return CandleSeries.from_rows(
        symbol,
        timeframe,
        [row_of(timeframe, at, read_ms) for at in sorted(opens)],
        closed_before_ms=read_ms - CLOSE_GRACE_MS,
        source="rest",
        simulated=simulated,
    )


def asked(
    timeframe: Timeframe = Timeframe.M1,
    start_ms: int | None = None,
    end_ms: int | None = None,
    count: int | None = None,
    *,
    reach: Reach = Reach.ANYWHERE,
    priority: Priority = Priority.NORMAL,
    max_age: float | None = None,
    symbol: str = SYMBOL,
) -> BackboneRequest:
    """A request for candles, by epoch milliseconds."""
    return BackboneRequest(
        DataType.CANDLE,
        (symbol,),
        timeframe,
        None if start_ms is None else utc_datetime(start_ms),
        None if end_ms is None else utc_datetime(end_ms),
        count,
        priority,
        max_age=max_age,
        reach=reach,
    )


class FakeSubscription:
    """A stream of what a test puts into it."""

    def __init__(self, request: BackboneRequest, clock: Clock) -> None:
        self.request = request
        self.priority = request.priority
        self.complete_ms: int | None = None
        """Up to when it has told everything; None: up to now."""
        self._clock = clock
        self.values: asyncio.Queue[Any] = asyncio.Queue()
        self.state: SubscriptionState = "pending"
        self.reason = "waiting for the first value"
        self.ended = False

    @property
    def complete_to_ms(self) -> int:
        return self._clock.now_ms() if self.complete_ms is None else self.complete_ms

    def set_priority(self, priority: Priority) -> None:
        self.priority = priority

    def __aiter__(self) -> FakeSubscription:
        return self

    async def __anext__(self) -> Any:
        if self.ended or (value := await self.values.get()) is None:
            raise StopAsyncIteration
        return value

    async def __aenter__(self) -> FakeSubscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.state = "closed"
        self.ended = True
        self.values.put_nowait(None)


class FakeExchangeSource:
    """Holds which candles exist; remembers what it was asked."""

    def __init__(
        self,
        clock: Clock,
        opens: Iterable[int] = (),
        timeframe: Timeframe = Timeframe.M1,
        *,
        origin: Origin | None = None,
        mark: str | None = None,
    ) -> None:
        self.clock = clock
        self.timeframe = timeframe
        self.opens = set(opens)
        self.requests: list[BackboneRequest] = []
        self.most_at_once = 0
        self.listed: tuple[Market, ...] = ()
        self.held: dict[tuple[DataType, str], Any] = {}
        self.subscriptions: list[FakeSubscription] = []
        self.before_answer: Callable[[BackboneRequest], Awaitable[None]] | None = None
        """Called with each request before the exchange reads its candles; may raise."""
        self.after_read: Callable[[BackboneRequest], Awaitable[None]] | None = None
        """Called once they are read: the answer is on its way."""
        self.age_s = 0.0
        """How long ago the answers were asked, by whomever."""
        self._at_once = 0
        self._origin = origin
        self._mark = mark

    def existing(self) -> list[int]:
        """Open times of what exists by now, ascending."""
        now_ms = self.clock.now_ms()
        return sorted(at for at in self.opens if at <= now_ms)

    def peek(self, data_type: DataType, symbol: str, *_: object) -> Any | None:
        return self.held.get((data_type, symbol))

    def peek_age_s(self, data_type: DataType, symbol: str, *_: object) -> float | None:
        return self.age_s if (data_type, symbol) in self.held else None

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        self.requests.append(request)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request)
        finally:
            self._at_once -= 1

    def subscribe(self, request: BackboneRequest) -> Subscription:
        self.subscriptions.append(FakeSubscription(request, self.clock))
        return self.subscriptions[-1]

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        if self.before_answer is not None:
            await self.before_answer(BackboneRequest(DataType.TICKER, ()))
        return MarketList(self.listed, self.clock.monotonic())

    async def _answer(self, request: BackboneRequest) -> BackboneResponse:
        if self.before_answer is not None:
            await self.before_answer(request)
        if self._origin is not None:
            self._origin.observe(self._mark)
        data: Any
        if request.data_type is DataType.CANDLE:
            data = self._page(request)
        else:
            data = tuple(
                self.held[request.data_type, symbol]
                for symbol in request.symbols
                if (request.data_type, symbol) in self.held
            )
        if self.after_read is not None:
            await self.after_read(request)
        metadata = BackboneMetadata(
            source_layer="layer_1",
            cache_hit=False,
            processing_time_ms=0.0,
            data_count=len(data),
            priority_used=request.priority,
            source="rest",
            age_s=self.age_s,
            path="router",
        )
        return BackboneResponse(True, data, metadata, None, request.request_id)

    def _page(self, request: BackboneRequest) -> CandleSeries:
        assert request.timeframe is self.timeframe, request.timeframe
        if request.count is None or not 1 <= request.count <= MAX_PAGE_CANDLES:
            raise InvalidRequestError(f"a page has 1..200 rows, was {request.count}")
        found = self.existing()
        if request.end_ms is not None:
            found = [at for at in found if at < request.end_ms]
        return series_of(
            self.timeframe,
            found[-request.count :],
            self.clock.now_ms(),
            symbol=request.symbols[0],
            simulated=self._mark is not None,
        )


def market(symbol: str) -> Market:
    return Market(symbol, f"{symbol} 이름", f"{symbol} name")
