"""A minute of trading through random faults: every trade arrives, once. Waiting takes no time."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.routing.conftest import Market, OpenRouter, confirmed, read_now, stream
from tests.routing.fake_exchange import FakeExchange, SteeredClock
from upbit_backbone.clock import epoch_ms
from upbit_backbone.errors import RateLimitedError, TransportError
from upbit_backbone.models import Gap, Trade
from upbit_backbone.protocol import DataType

pytestmark = pytest.mark.steered_time

BTC, XRP = "KRW-BTC", "KRW-XRP"
TRADE = DataType.TRADE
FAULTS_FOR_S = 60.0
TOLD_FOR_S = 8.0
QUIET_S = 150.0
"""Backoffs of up to half a minute and a block have to end."""


class Faults:
    """Lets things go wrong, one after the other and some at once."""

    def __init__(self, exchange: FakeExchange, chance: Random) -> None:
        self._exchange = exchange
        self._chance = chance
        self.told: list[str] = []

    async def strike(self, seconds: float) -> None:
        clock = self._exchange.clock
        end_s = clock.monotonic() + seconds
        while clock.monotonic() < end_s:
            await asyncio.sleep(self._chance.expovariate(0.4))
            fault = self._chance.choice(
                (
                    self.cut,
                    self.refuse,
                    self.half_open,
                    self.deafen,
                    self.rest_errors,
                    self.rest_lags,
                )
            )
            self.told.append(fault.__name__)
            fault()
        self._exchange.connect_failures.clear()
        self._exchange.rest_failures.clear()
        self._exchange.rest_lag_ms = 0

    def cut(self) -> None:
        self._exchange.cut()

    def refuse(self) -> None:
        self._exchange.refuse_connect(self._chance.randint(1, 5))
        self._exchange.cut()

    def half_open(self) -> None:
        self._exchange.socket.half_open = True

    def deafen(self) -> None:
        """A connection that has told of trades loses them from now on, until it is replaced.

        Of one that never told of any the sums of the tickers prove nothing.
        """
        socket, now = self._exchange.socket, self._exchange.clock.monotonic()
        if socket.sent_at and now - socket.sent_at[0] > TOLD_FOR_S:
            socket.deaf.add(("trade", XRP))

    def rest_errors(self) -> None:
        errors = [
            TransportError("no route"),
            TransportError("timeout"),
            RateLimitedError("429", retry_after_s=1.0),
            RateLimitedError("418", blocked=True, retry_after_s=self._chance.uniform(2, 10)),
        ]
        self._exchange.fail_next(*self._chance.choices(errors, k=self._chance.randint(1, 4)))

    def rest_lags(self) -> None:
        self._exchange.rest_lag_ms = self._chance.choice((0, 300, 1_500))


async def trade_at_random(markets: list[Market], chance: Random) -> None:
    while True:
        await asyncio.sleep(chance.expovariate(4.0))
        chance.choice(markets).trade()


def check_gaps(values: list[Trade | Gap]) -> None:
    """Every gap that was opened was closed."""
    opened: list[Gap] = []
    for value in values:
        if isinstance(value, Gap):
            if value.state == "open":
                opened.append(value)
            else:
                assert value.state == "closed", value.reason
                opened.remove(next(one for one in opened if one.start == value.start))
    assert opened == []


@pytest.mark.parametrize("seed", range(12))
async def test_every_trade_arrives_once_through_a_minute_of_faults(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
    seed: int,
) -> None:
    wall.run()
    wall.advance(12 * 3_600)
    chance = Random(seed)
    markets = [Market(exchange, BTC), Market(exchange, XRP)]
    for market in markets:
        market.trade()
    async with open_router(Random(seed), hanging_s=400) as router:
        readers = [stream(router, TRADE, market.symbol) for market in markets]
        latest = stream(router, TRADE, XRP, policy="latest")
        await confirmed(*readers, latest)
        trader = asyncio.create_task(trade_at_random(markets, chance), name="trader")
        try:
            await asyncio.sleep(10)
            faults = Faults(exchange, chance)
            await faults.strike(FAULTS_FOR_S)
            await asyncio.sleep(QUIET_S)
            faults.deafen()  # and nothing that would hide it follows
            await asyncio.sleep(30)
        finally:
            trader.cancel()
            await asyncio.wait([trader])
        await asyncio.sleep(20)
        assert router.connection == "live", faults.told
        for market, reader in zip(markets, readers, strict=True):
            assert reader.state == "confirmed", reader.reason
            values = read_now(reader)
            got = [value.sequential_id for value in values if isinstance(value, Trade)]
            assert len(got) == len(set(got)), faults.told
            owed = {trade.sequential_id for trade in market.trades}
            assert set(got) == owed, (market.symbol, sorted(owed - set(got)), faults.told)
            check_gaps(values)
            newest_ms = -1
            for value in values:
                if isinstance(value, Trade):
                    at_ms = epoch_ms(value.exchange_time)
                    assert value.late == (at_ms < newest_ms)
                    newest_ms = max(newest_ms, at_ms)
        assert not any(isinstance(value, Gap) for value in read_now(latest))
