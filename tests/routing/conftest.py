"""A router on a fake exchange, closed by the test itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest

from tests.eventually import eventually
from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock, make_ticker
from upbit_backbone.clock import epoch_ms
from upbit_backbone.models import Trade
from upbit_backbone.protocol import BackboneRequest, DataType, Policy
from upbit_backbone.reader import Reader
from upbit_backbone.routing.router import Router

HANGING_S = 10.0
OpenRouter = Callable[..., AbstractAsyncContextManager[Router]]


@pytest.fixture
def wall() -> SteeredClock:
    return SteeredClock()


@pytest.fixture
def exchange(wall: SteeredClock) -> FakeExchange:
    return FakeExchange(wall)


@pytest.fixture
def open_router(exchange: FakeExchange, wall: SteeredClock) -> OpenRouter:
    """``async with open_router() as router``; reconnects do not wait unless told to."""

    @asynccontextmanager
    async def opened(
        rng: Random | None = None,
        hanging_s: float = HANGING_S,
        symbols_per_request: int | None = None,
    ) -> AsyncIterator[Router]:
        router = Router(
            exchange,
            clock=wall,
            rng=rng or Impatient(),
            critical_reserve=2,
            symbols_per_request=symbols_per_request,
        )
        await router.start()
        try:
            # A reader that nobody ends would hold up the whole run.
            async with asyncio.timeout(hanging_s):
                yield router
        finally:
            await router.stop()

    return opened


def stream(
    router: Router,
    data_type: DataType,
    *symbols: str,
    policy: Policy = "all",
    **others: Any,
) -> Reader:
    """Open a reader; values it has are looked at with `read_all`."""
    request = BackboneRequest(data_type, symbols or ("KRW-BTC",), policy=policy, **others)
    reader = router.subscribe(request)
    assert isinstance(reader, Reader)
    return reader


def read_now(reader: Reader) -> list[Any]:
    """What a reader has not read yet, without waiting for more."""
    values: list[Any] = []
    while reader.unread:
        step = reader.__anext__()
        try:
            step.send(None)
        except StopIteration as stop:
            values.append(stop.value)
    return values


async def confirmed(*readers: Reader) -> None:
    await eventually(lambda: all(reader.state == "confirmed" for reader in readers))


class Market:
    """One symbol on a fake exchange whose tickers tell the sums of its trades."""

    def __init__(self, exchange: FakeExchange, symbol: str) -> None:
        self._exchange = exchange
        self.symbol = symbol
        self.trades: list[Trade] = []

    def trade(self, *, streamed: bool = True) -> Trade:
        """Execute a trade of one; the ticker that tells of it follows."""
        trade = self._exchange.trade(self.symbol, 100.0 + len(self.trades) % 7, streamed=streamed)
        self.trades.append(trade)
        at_ms = epoch_ms(trade.exchange_time)
        ticker = make_ticker(self.symbol, trade.price, at_ms)
        volume = float(len(self.trades))
        self._exchange.quote(msgspec.structs.replace(ticker, volume_today=volume))
        return trade

    async def go_on(self, every_s: float = 0.5) -> None:
        """Trade until cancelled."""
        while True:
            self.trade()
            await asyncio.sleep(every_s)


@asynccontextmanager
async def trading(*markets: Market, every_s: float = 0.5) -> AsyncIterator[None]:
    """Markets go on while the block runs; the wall clock has to, too."""
    tasks = [asyncio.create_task(market.go_on(every_s), name="market") for market in markets]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def running(router: Router) -> set[str]:
    """The names of the tasks that a router has under way."""
    return {task.get_name() for task in router._tasks._tasks}
