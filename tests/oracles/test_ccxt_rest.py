"""ccxt as a REST client of the simulator: it understands the same as we and as the truth.

Where ccxt itself is wrong, the test is named so and holds its answer down: a fix of theirs
is then noticed, and nobody takes the number for the exchange's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import ccxt.async_support as ccxt
import pytest

from tests.manual_clock import ManualClock
from tests.oracles.conftest import NOW_MS
from tests.oracles.truth import (
    DAY,
    LONG_UNITS,
    SHORT_UNITS,
    Candle,
    Truth,
    from_days,
    from_trades,
)
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.simulator import Simulator

TODAY_MS = NOW_MS // DAY_MS * DAY_MS
BUSY, THIN, BITCOIN, DOLLAR = "KRW-ETH", "KRW-SIM003", "BTC-ETH", "USDT-ETH"


def theirs_of(symbol: str) -> str:
    """Our ``KRW-BTC`` is their ``BTC/KRW``."""
    quote, base = symbol.split("-")
    return f"{base}/{quote}"


@pytest.fixture
async def theirs(simulator: Simulator) -> AsyncIterator[Any]:
    """ccxt as it is delivered, sent to the simulator; ``/v1`` it adds itself."""
    base = simulator.rest_url.removesuffix("/v1")
    # Its own pauses would be of real time, the simulator's limits go by the manual clock.
    client = ccxt.upbit(
        {"urls": {"api": {"public": base, "private": base}}, "enableRateLimit": False}
    )
    client.timeout_on_exit = 0  # a pause for the farewells of TLS, which is not spoken here
    try:
        yield client
    finally:
        await client.close()


def rows_of(series: CandleSeries) -> list[list[float]]:
    """A series of ours in ccxt's shape."""
    columns = (series.time, series.open, series.high, series.low, series.close, series.volume)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def lists(candles: list[Candle]) -> list[list[float]]:
    return [list(candle) for candle in candles]


async def test_its_list_of_markets_is_the_simulators(
    theirs: Any, ours: UpbitAdapter, truth: Truth
) -> None:
    markets = await theirs.load_markets()
    rows = await truth.rows("/market/all")
    assert sorted(market["id"] for market in markets.values()) == sorted(
        row["market"] for row in rows
    )
    assert {market["id"]: market["info"] for market in markets.values()} == {
        row["market"]: row for row in rows
    }
    assert {market.symbol for market in await ours.markets()} == {row["market"] for row in rows}
    for market in markets.values():
        quote, base = market["id"].split("-")
        assert (market["quoteId"], market["baseId"]) == (quote, base)
        assert (market["spot"], market["active"]) == (True, True)
        if base != "TON":
            assert market["symbol"] == f"{base}/{quote}"


async def test_it_is_wrong_about_the_name_of_ton_and_about_every_tick(theirs: Any) -> None:
    markets = await theirs.load_markets()
    # It keeps TON for another asset of that name.
    assert markets["Tokamak Network/KRW"]["id"] == "KRW-TON"
    # Prices of KRW-BTC move by 1,000 won; the list of markets does not tell.
    assert {market["precision"]["price"] for market in markets.values()} == {1e-8}


async def test_one_ticker_says_what_the_trades_say(
    theirs: Any, ours: UpbitAdapter, truth: Truth
) -> None:
    for symbol in (BUSY, THIN, BITCOIN, DOLLAR):
        ticker = await theirs.fetch_ticker(theirs_of(symbol))
        today = await truth.trades(symbol, TODAY_MS, NOW_MS + 1)
        day = await truth.trades(symbol, NOW_MS + 1 - DAY_MS, NOW_MS + 1)
        prices = [Decimal(trade["trade_price"]) for trade in today]
        last = today[-1]
        assert (ticker["timestamp"], ticker["symbol"]) == (last["timestamp"], theirs_of(symbol))
        assert ticker["datetime"] == theirs.iso8601(last["timestamp"])
        assert ticker["last"] == ticker["close"] == float(prices[-1])
        assert ticker["open"] == float(prices[0])
        assert (ticker["high"], ticker["low"]) == (float(max(prices)), float(min(prices)))
        assert ticker["previousClose"] == float(last["prev_closing_price"])
        assert ticker["change"] == float(Decimal(last["change_price"]))
        volumes = [Decimal(trade["trade_volume"]) for trade in day]
        values = [
            Decimal(trade["trade_price"]) * volume
            for trade, volume in zip(day, volumes, strict=True)
        ]
        assert ticker["baseVolume"] == float(sum(volumes))
        assert ticker["quoteVolume"] == float(sum(values))
        [mine] = await ours.tickers([symbol])
        assert (mine.price, mine.open, mine.high, mine.low) == tuple(
            ticker[name] for name in ("last", "open", "high", "low")
        )
        assert (mine.prev_close, mine.change_price) == (ticker["previousClose"], ticker["change"])
        assert (mine.volume_24h, mine.value_24h) == (ticker["baseVolume"], ticker["quoteVolume"])
        assert round(mine.trade_time.timestamp() * 1_000) == ticker["timestamp"]


async def test_it_is_wrong_about_percentages_which_are_fractions(
    theirs: Any, ours: UpbitAdapter
) -> None:
    ticker = await theirs.fetch_ticker(theirs_of(BUSY))
    [mine] = await ours.tickers([BUSY])
    assert ticker["percentage"] == mine.change_rate
    assert mine.change_rate == pytest.approx(mine.change_price / mine.prev_close, abs=1e-10)


async def test_all_tickers_of_a_few_markets_are_the_single_ones(
    theirs: Any, ours: UpbitAdapter
) -> None:
    symbols = [BUSY, THIN, BITCOIN, DOLLAR]
    tickers = await theirs.fetch_tickers([theirs_of(symbol) for symbol in symbols])
    assert len(tickers) == len(symbols)
    for mine in await ours.tickers(symbols):
        ticker = tickers[theirs_of(mine.symbol)]
        assert (ticker["last"], ticker["baseVolume"]) == (mine.price, mine.volume_24h)


async def test_without_a_choice_the_tickers_are_those_of_all_markets(
    theirs: Any, truth: Truth
) -> None:
    tickers = await theirs.fetch_tickers()
    rows = await truth.rows("/ticker/all", quote_currencies="KRW,BTC,USDT")
    listed = await truth.rows("/market/all")
    assert {ticker["info"]["market"] for ticker in tickers.values()} == {
        row["market"] for row in listed
    }
    assert {
        ticker["info"]["market"]: (ticker["last"], ticker["timestamp"], ticker["baseVolume"])
        for ticker in tickers.values()
    } == {
        row["market"]: (
            float(row["trade_price"]),
            row["trade_timestamp"],
            float(row["acc_trade_volume_24h"]),
        )
        for row in rows
    }


async def test_candles_of_every_short_unit_are_those_of_the_trades(
    theirs: Any, ours: UpbitAdapter, truth: Truth, clock: ManualClock
) -> None:
    trades = await truth.trades(BUSY, TODAY_MS - 19 * HOUR_MS, NOW_MS + 1)
    for unit in SHORT_UNITS:
        before_ms = clock.now_ms() + 1
        clock.advance(1.0)  # for its calls; the forming candle may grow by a trade
        trades += await truth.trades(BUSY, before_ms, clock.now_ms() + 1)
        candles = from_trades(trades, unit)
        # The first bucket may have begun before the first trade that was read.
        count = min(200, len(candles) - 1)
        rows = await theirs.fetch_ohlcv(theirs_of(BUSY), unit.name, limit=count)
        assert rows == lists(candles[-count:]), unit.name
        series, _ = await ours.candles(BUSY, Timeframe.parse(unit.name), to_ms=None, count=count)
        assert rows == rows_of(series), unit.name


async def test_candles_of_days_and_longer_are_those_of_trades_and_days(
    theirs: Any, ours: UpbitAdapter, truth: Truth, clock: ManualClock
) -> None:
    trades = await truth.trades(BUSY, TODAY_MS - DAY_MS, TODAY_MS)
    trades += await truth.trades(BUSY, TODAY_MS, NOW_MS + 1)
    assert await theirs.fetch_ohlcv(theirs_of(BUSY), "1d", limit=2) == lists(
        from_trades(trades, DAY)
    )
    days: list[dict[str, Any]] = []
    while len(days) < 800:
        query = {"to": days[-1]["candle_date_time_utc"]} if days else {}
        days += await truth.rows("/candles/days", market=BUSY, count=200, **query)
    clock.advance(1.0)  # for more calls; today may have grown by a trade
    days[:1] = await truth.rows("/candles/days", market=BUSY)
    for unit in LONG_UNITS:
        expected = from_days(days[::-1], unit)[1:]
        rows = await theirs.fetch_ohlcv(theirs_of(BUSY), unit.name, limit=len(expected))
        assert rows == lists(expected), unit.name
        timeframe = Timeframe.parse(unit.name)
        series, _ = await ours.candles(BUSY, timeframe, to_ms=None, count=len(expected))
        assert rows == rows_of(series), unit.name


@pytest.mark.parametrize("symbol", [BUSY, THIN])
async def test_pages_forward_in_time_join_without_loss_or_overlap(
    theirs: Any, ours: UpbitAdapter, truth: Truth, symbol: str
) -> None:
    start, end = NOW_MS // HOUR_MS * HOUR_MS - 10 * HOUR_MS, NOW_MS
    paged: list[list[float]] = []
    since = start
    while since < end:
        # Quiet minutes have no candle: the next page starts after the window, not the row.
        paged += await theirs.fetch_ohlcv(theirs_of(symbol), "1m", since=since, limit=200)
        since += 200 * MINUTE_MS
    trades = await truth.trades(symbol, start, NOW_MS + 1)
    assert paged == lists(from_trades(trades, SHORT_UNITS[1]))


async def test_pages_up_to_an_instant_join_without_loss_or_overlap(
    theirs: Any, truth: Truth
) -> None:
    start = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS
    paged: list[list[float]] = []
    until = NOW_MS
    while until > start:
        to = theirs.iso8601(until)
        page = await theirs.fetch_ohlcv(theirs_of(BUSY), "1m", limit=77, params={"to": to})
        paged = page + paged
        until = page[0][0]
    trades = await truth.trades(BUSY, until, NOW_MS + 1)
    assert paged == lists(from_trades(trades, SHORT_UNITS[1]))


async def test_trades_are_the_simulators_own(theirs: Any, ours: UpbitAdapter, truth: Truth) -> None:
    for symbol in (BUSY, THIN, BITCOIN):
        rows = await theirs.fetch_trades(theirs_of(symbol), limit=200)
        own = await truth.trades(symbol, TODAY_MS, NOW_MS + 1)
        expected = own[-200:]
        assert [row["id"] for row in rows] == [str(trade["sequential_id"]) for trade in expected]
        for row, trade in zip(rows, expected, strict=True):
            assert row["timestamp"] == trade["timestamp"]
            assert (row["price"], row["amount"]) == (
                float(trade["trade_price"]),
                float(trade["trade_volume"]),
            )
            assert row["side"] == {"BID": "buy", "ASK": "sell"}[trade["ask_bid"]]
            assert row["cost"] == pytest.approx(
                float(Decimal(trade["trade_price"]) * Decimal(trade["trade_volume"])), rel=1e-12
            )
            assert row["symbol"] == theirs_of(symbol)
        mine = await ours.trades(symbol, count=200)
        assert [str(trade.sequential_id) for trade in mine[::-1]] == [row["id"] for row in rows]


async def test_it_is_wrong_about_since_of_trades_which_is_never_sent(
    theirs: Any, truth: Truth
) -> None:
    """It asks for the newest and leaves out the older: nothing is left of an earlier hour."""
    since = NOW_MS - 3 * HOUR_MS
    rows = await theirs.fetch_trades(theirs_of(BUSY), since=since, limit=10)
    newest = (await truth.trades(BUSY, NOW_MS - HOUR_MS, NOW_MS + 1))[-10:]
    assert [row["id"] for row in rows] == [str(trade["sequential_id"]) for trade in newest]
    assert len(await truth.trades(BUSY, since, NOW_MS - 2 * HOUR_MS)) > 10


async def test_order_books_have_our_rows_in_our_order(theirs: Any, ours: UpbitAdapter) -> None:
    symbols = [BUSY, THIN, BITCOIN, DOLLAR]
    books = await theirs.fetch_order_books([theirs_of(symbol) for symbol in symbols])
    for mine in await ours.orderbooks(symbols, depth=30, level=0):
        book = books[theirs_of(mine.symbol)]
        assert len(book["asks"]) == len(book["bids"]) == 30
        assert book["asks"] == [[level.price, level.size] for level in mine.asks]
        assert book["bids"] == [[level.price, level.size] for level in mine.bids]
        assert book["timestamp"] == round(mine.exchange_time.timestamp() * 1_000)
    [mine] = await ours.orderbooks([BUSY], depth=5, level=0)
    book = await theirs.fetch_order_book(theirs_of(BUSY), limit=5)
    assert book["asks"] == [[level.price, level.size] for level in mine.asks]
    assert book["bids"] == [[level.price, level.size] for level in mine.bids]


async def test_an_unknown_market_and_a_bad_unit_are_errors_with_the_exchanges_words(
    theirs: Any,
) -> None:
    await theirs.load_markets()
    with pytest.raises(ccxt.ExchangeError, match="Code not found"):
        await theirs.public_get_ticker({"markets": "KRW-NOPE"})
    with pytest.raises(ccxt.ExchangeError, match="specified unit is not valid"):
        await theirs.public_get_candles_timeframe_unit(
            {"market": BUSY, "timeframe": "minutes", "unit": 2}
        )
    with pytest.raises(ccxt.BadRequest, match="Missing request parameter"):
        await theirs.public_get_ticker({})


async def test_it_is_wrong_about_a_429_which_it_takes_for_any_error(
    theirs: Any, truth: Truth, clock: ManualClock
) -> None:
    """It looks for an error in the body before it looks at the status.

    The body of Upbit's 429 is not known (upbit-api, section 9); the simulator's default is
    the likeliest.
    """
    await theirs.load_markets()
    for _ in range(10):
        await theirs.fetch_order_book(theirs_of(BUSY))
    with pytest.raises(ccxt.ExchangeError, match="Too many requests") as caught:
        await theirs.fetch_order_book(theirs_of(BUSY))
    assert not isinstance(caught.value, ccxt.RateLimitExceeded)
    assert await truth.refused() == 1
    clock.advance(1.0)
    assert await theirs.fetch_order_book(theirs_of(BUSY))


def test_it_offers_no_unit_that_is_not_compared_here() -> None:
    compared = {unit.name for unit in (*SHORT_UNITS, DAY, *LONG_UNITS)}
    assert compared == set(ccxt.upbit().timeframes)
