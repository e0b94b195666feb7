"""ccxt.pro at the simulator's WebSocket: each value it delivers is the truth's and ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from typing import Any

import ccxt.pro
import pytest

from tests.eventually import eventually
from tests.oracles.conftest import NOW_MS
from tests.oracles.fast_clock import FastClock
from tests.oracles.test_ccxt_rest import theirs_of
from tests.oracles.truth import SHORT_UNITS, Row, Truth, from_trades
from upbit_backbone.clock import DAY_MS, HOUR_MS
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.models import Orderbook, Ticker
from upbit_backbone.routing.exchange import StreamEvent, StreamKind
from upbit_backbone.simulator import Simulator

# The recorded markets, together more than one trade a second.
SYMBOLS = ("KRW-BTC", "KRW-XRP", "KRW-DOGE")
QUIET = "KRW-SIM003"
ENOUGH_TRADES = 12
ENOUGH_TICKERS = 6
ENOUGH_BOOKS = 4
ENOUGH_CANDLES = 4


@pytest.fixture
def clock() -> FastClock:
    return FastClock(NOW_MS)


@pytest.fixture
async def theirs(simulator: Simulator) -> AsyncIterator[Any]:
    """ccxt.pro as it is delivered, sent to the simulator."""
    base = simulator.rest_url.removesuffix("/v1")
    addresses = {"public": base, "private": base, "ws": simulator.ws_url}
    client = ccxt.pro.upbit({"urls": {"api": addresses}})
    client.timeout_on_exit = 0  # a pause for the farewells of TLS, which is not spoken here
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def our_values(ours: UpbitAdapter, kind: StreamKind) -> AsyncIterator[list[Any]]:
    """What our own client receives meanwhile."""
    values: list[Any] = []

    async def listen() -> None:
        async with ours.connect() as socket, aclosing(socket.events()) as events:
            await socket.subscribe({kind: SYMBOLS})
            async for event in events:
                assert isinstance(event, StreamEvent)
                values.append(event.value)

    listening = asyncio.create_task(listen(), name="our values")
    try:
        # Until each market's snapshot is there, theirs might see what we do not.
        await eventually(lambda: {value.symbol for value in values} == set(SYMBOLS))
        yield values
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def truth_of(truth: Truth, symbols: Collection[str], to_ms: int) -> dict[int, Row]:
    """The trades of the markets by id, from an hour before the test's begin."""
    rows: dict[int, Row] = {}
    for symbol in symbols:
        trades = await truth.trades(symbol, NOW_MS - HOUR_MS, to_ms)
        rows |= {row["sequential_id"]: row for row in trades if row["market"] == symbol}
    return rows


async def test_trades_are_the_truth_without_loss(
    theirs: Any, truth: Truth, clock: FastClock
) -> None:
    names = [theirs_of(symbol) for symbol in SYMBOLS]
    async with asyncio.timeout(15):
        while sum(len(trades) for trades in theirs.trades.values()) < ENOUGH_TRADES:
            await theirs.watch_trades_for_symbols(names)
    began_ms = max(theirs.trades[name][0]["info"]["timestamp"] for name in names)
    until_ms = clock.now_ms()
    rows = await truth_of(truth, SYMBOLS, until_ms)
    due = {str(number) for number, row in rows.items() if began_ms < row["timestamp"] <= until_ms}

    def received() -> dict[str, Any]:
        return {trade["id"]: trade for trades in theirs.trades.values() for trade in trades}

    await eventually(lambda: due <= received().keys())
    assert len(due) > ENOUGH_TRADES / 2
    for number in due:
        trade, row = received()[number], rows[int(number)]
        assert trade["symbol"] == theirs_of(row["market"])
        assert (trade["price"], trade["amount"]) == (
            float(row["trade_price"]),
            float(row["trade_volume"]),
        )
        assert trade["side"] == {"BID": "buy", "ASK": "sell"}[row["ask_bid"]]
        assert trade["info"]["trade_timestamp"] == row["timestamp"]


async def test_it_is_wrong_about_the_time_of_a_trade_which_is_that_of_its_message(
    theirs: Any,
) -> None:
    trades = await theirs.watch_trades(theirs_of("KRW-BTC"))
    info = trades[-1]["info"]
    assert trades[-1]["timestamp"] == info["timestamp"]
    # The snapshot's message was made long after its trade.
    assert info["stream_type"] == "SNAPSHOT"
    assert info["timestamp"] > info["trade_timestamp"]


async def test_tickers_are_the_truths_last_trade_and_rolling_day_and_ours(
    theirs: Any, ours: UpbitAdapter, truth: Truth, clock: FastClock
) -> None:
    names = [theirs_of(symbol) for symbol in SYMBOLS]
    tickers: list[dict[str, Any]] = []
    async with our_values(ours, "ticker") as own, asyncio.timeout(15):
        while len(tickers) < ENOUGH_TICKERS:
            tickers += (await theirs.watch_tickers(names)).values()
        await eventually(lambda: all(_same_ticker(ticker, own) for ticker in tickers))
    rows = await truth_of(truth, SYMBOLS, clock.now_ms())
    last_prices: dict[tuple[str, int], set[float]] = {}
    for row in rows.values():
        key = (theirs_of(row["market"]), row["timestamp"])
        last_prices.setdefault(key, set()).add(float(row["trade_price"]))
    for ticker in tickers:
        assert ticker["last"] in last_prices[ticker["symbol"], ticker["timestamp"]]
        assert ticker["percentage"] == ticker["info"]["signed_change_rate"]  # a fraction: theirs


async def test_the_rolling_day_of_a_ticker_is_the_sum_of_its_trades(
    theirs: Any, truth: Truth, clock: FastClock
) -> None:
    ticker = await theirs.watch_ticker(theirs_of(QUIET))
    trades = await truth.trades(QUIET, NOW_MS - DAY_MS, clock.now_ms())
    at_ms, made_ms = ticker["timestamp"], ticker["info"]["timestamp"]
    # The day that ends with the message, or with its trade: which, is not documented.
    possible = [
        [row for row in trades if end_ms - DAY_MS < row["timestamp"] <= at_ms]
        for end_ms in (made_ms, at_ms)
    ]
    assert ticker["baseVolume"] in [
        float(sum(Decimal(row["trade_volume"]) for row in rows)) for rows in possible
    ]
    assert ticker["quoteVolume"] in [
        float(sum(Decimal(row["trade_volume"]) * Decimal(row["trade_price"]) for row in rows))
        for rows in possible
    ]


def _same_ticker(ticker: dict[str, Any], own: list[Ticker]) -> bool:
    """Whether we received that state of the market as well."""
    return any(
        theirs_of(mine.symbol) == ticker["symbol"]
        and round(mine.trade_time.timestamp() * 1_000) == ticker["timestamp"]
        and (mine.price, mine.open, mine.high, mine.low, mine.prev_close, mine.change_price)
        == tuple(
            ticker[name] for name in ("last", "open", "high", "low", "previousClose", "change")
        )
        for mine in own
    )


async def test_books_are_the_upper_half_of_ours(
    theirs: Any, ours: UpbitAdapter, clock: FastClock
) -> None:
    """It keeps 15 levels a side (its option `watchOrderBook`), Upbit sends 30 since 2025."""
    name = theirs_of("KRW-BTC")
    books: list[dict[str, Any]] = []
    async with our_values(ours, "orderbook") as own, asyncio.timeout(15):
        while len(books) < ENOUGH_BOOKS:
            book = await theirs.watch_order_book(name)
            books.append(
                {side: [list(level) for level in book[side]] for side in ("asks", "bids")}
                | {"timestamp": book["timestamp"]}
            )
        await eventually(lambda: all(_same_book(book, own) for book in books))
    assert all(len(book["asks"]) == len(book["bids"]) == 15 for book in books)
    assert [book["timestamp"] for book in books] == sorted(book["timestamp"] for book in books)


def _same_book(book: dict[str, Any], own: list[Orderbook]) -> bool:
    return any(
        round(mine.exchange_time.timestamp() * 1_000) == book["timestamp"]
        and book["asks"] == [[level.price, level.size] for level in mine.asks[:15]]
        and book["bids"] == [[level.price, level.size] for level in mine.bids[:15]]
        for mine in own
        if mine.symbol == "KRW-BTC"
    )


async def test_second_candles_grow_with_the_trades_of_their_second(
    theirs: Any, truth: Truth, clock: FastClock
) -> None:
    """It hands out one bare candle where its other exchanges give a list: theirs."""
    second = SHORT_UNITS[0]
    name = theirs_of("KRW-BTC")
    candles: list[list[float]] = []
    async with asyncio.timeout(15):
        while len(candles) < ENOUGH_CANDLES:
            candles.append(await theirs.watch_ohlcv(name, "1s"))
    trades = await truth.trades("KRW-BTC", NOW_MS - HOUR_MS, clock.now_ms())
    for candle in candles:
        members = [row for row in trades if second.start_of(row["timestamp"]) == candle[0]]
        grown = [from_trades(members[: count + 1], second)[0] for count in range(len(members))]
        assert tuple(candle) in grown
    starts = [candle[0] for candle in candles]
    assert starts == sorted(starts)
    assert starts[-1] > starts[0]
