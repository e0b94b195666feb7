"""What earlier programs call, in the forms in which they call it, against a simulator."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from upbit_backbone import (
    Candle,
    CandleSeries,
    IndicatorSeries,
    InvalidRequestError,
    Orderbook,
    Priority,
    Ticker,
    UnknownSymbolError,
    compat,
)
from upbit_backbone.clock import SystemClock, utc_datetime

pytestmark = [
    pytest.mark.filterwarnings("ignore:upbit_backbone.compat:DeprecationWarning"),
    pytest.mark.usefixtures("ended"),
]

WITHOUT_ARGUMENTS = (
    compat.UnifiedMarketDataAPI,
    compat.SmartDataRouter,
    compat.SmartRouter,
    compat.MarketDataCoordinator,
    compat.MarketDataStorage,
    compat.MarketDataAPI,
    compat.MarketDataBackbone,
    compat.UpbitAPIClient,
    compat.UpbitPublicClient,
    compat.UpbitWebSocketClient,
    compat.AdvancedCacheManager,
)


@pytest.mark.both_loops
async def test_all_objects_without_arguments_have_candles_and_tickers_of_one_service() -> None:
    one_service: set[Any] = set()
    for made in WITHOUT_ARGUMENTS:
        api = made()
        candles = await api.get_candle_data("KRW-BTC", "1m", count=5)
        assert isinstance(candles, CandleSeries)
        assert len(candles) == 5
        ticker = await api.get_ticker_data("KRW-BTC")
        assert isinstance(ticker, Ticker)
        one_service.add(await compat._service().backbone())
    # Here and not in the fixture: between the two Qt handles events without a running loop.
    await compat.shutdown()
    assert len(one_service) == 1


async def test_a_range_may_be_given_instead_of_a_number() -> None:
    api = compat.MarketDataAPI()
    end = utc_datetime(SystemClock().now_ms())
    start = end - timedelta(hours=2)
    ranged = await api.get_candle_data("KRW-BTC", "1m", start_time=start, end_time=end)
    assert 100 < len(ranged) <= 121
    named = await api.get_candle_data(
        "KRW-BTC", "1m", count=3, end_time=end, priority=Priority.CRITICAL
    )
    assert named.time.tolist() == ranged.time[-3:].tolist()
    with pytest.raises(InvalidRequestError, match="at most two of the three"):
        await api.get_candle_data("KRW-BTC", "1m", 3, start, end)


async def test_a_candle_request_gives_candles_at_once_or_to_its_callback() -> None:
    api = await compat.create_unified_api()
    request = compat.create_candle_request("KRW-BTC", "1m", 7)
    assert len(await api.request_data_sync(request)) == 7
    told: list[Any] = []
    request_id = await api.request_data(
        compat.create_candle_request("KRW-BTC", "1m", 7, told.append)
    )
    assert isinstance(request_id, str)
    await eventually(lambda: told)
    assert isinstance(told[0], CandleSeries)
    assert len(told[0]) == 7


async def test_a_realtime_request_calls_back_with_each_candle_until_the_shutdown() -> None:
    api = compat.UnifiedMarketDataAPI()
    told: list[Any] = []

    async def tell_later(candle: Candle) -> None:
        await asyncio.sleep(0)
        told.append(candle)

    first = await api.request_data(
        compat.create_realtime_request("KRW-BTC", "1m", data_callback=tell_later)
    )
    second = await api.request_data(compat.create_realtime_request("KRW-BTC", "1m"))
    assert first != second
    await eventually(lambda: told)
    assert isinstance(told[0], Candle)
    await compat.shutdown()
    heard = len(told)
    await asyncio.sleep(0.05)
    assert len(told) == heard


async def test_a_wrong_request_is_refused_and_a_failed_one_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = compat.UnifiedMarketDataAPI()
    with pytest.raises(UnknownSymbolError):
        await api.request_data(compat.create_realtime_request("KRW-BTD", "1m"))
    with pytest.raises(InvalidRequestError):
        await api.request_data_sync(compat.create_candle_request("KRW-BTC", "2m", 1))
    assert not caplog.records
    request_id = await api.request_data(compat.create_candle_request("KRW-BTD", "1m", 1))
    await eventually(lambda: caplog.records)
    assert f"request {request_id}: unknown symbol 'KRW-BTD'" in caplog.text


async def test_the_backbone_of_old_has_candles_indicators_and_tickers() -> None:
    backbone = compat.MarketDataBackbone()
    assert len(await backbone.get_candles("KRW-BTC", "1m", 10)) == 10
    rsi = await backbone.get_indicator("KRW-BTC", "RSI", period=14)
    assert isinstance(rsi, IndicatorSeries)
    assert 0 < float(rsi) < 100
    async for ticker in backbone.stream_ticker("KRW-BTC"):
        assert isinstance(ticker, Ticker)
        break


async def test_subscriptions_give_the_newest_of_each_market_and_end_by_themselves() -> None:
    client = compat.UpbitWebSocketClient()
    both = {"KRW-BTC", "KRW-XRP"}
    seen: set[str] = set()
    async for ticker in client.subscribe_ticker(["KRW-BTC", "KRW-XRP"]):
        assert isinstance(ticker, Ticker)
        seen.add(ticker.symbol)
        if seen == both:
            break
    books = await client.subscribe_orderbook(["KRW-BTC", "KRW-XRP", "KRW-BTC"])
    async with books:
        held = [await anext(books), await anext(books)]
    assert {book.symbol for book in held} == both
    assert all(isinstance(book, Orderbook) for book in held)
    rest = [book async for book in books]  # what was there when it was closed, and then the end
    assert len(rest) <= 2
    gc.collect()
    await eventually(lambda: not compat._service().tasks._tasks)


async def test_a_subscription_to_an_unknown_market_begins_nothing() -> None:
    client = compat.UpbitWebSocketClient()
    tickers = client.subscribe_ticker(["KRW-BTC", "KRW-BTD"])
    for _ in range(2):
        with pytest.raises(UnknownSymbolError):
            await anext(tickers)
    assert not compat._service().tasks._tasks
    with pytest.raises(InvalidRequestError, match="symbols must be a list"):
        await client.subscribe_ticker("KRW-BTC")


async def test_a_subscription_ends_with_the_service() -> None:
    stream = compat.MarketDataBackbone().stream_ticker("KRW-BTC")
    await anext(stream)
    waiting = asyncio.create_task(_all_of(stream))
    await asyncio.sleep(0)
    await compat.shutdown()
    async with asyncio.timeout(5):
        await waiting


async def test_public_clients_and_lists_of_markets() -> None:
    for client in (compat.UpbitPublicClient(), compat.UpbitAPIClient()):
        assert (await client.get_ticker("KRW-XRP")).symbol == "KRW-XRP"
    symbols = await compat.get_krw_market_symbols()
    assert len(symbols) == 289
    assert all(symbol.startswith("KRW-") for symbol in symbols)


async def test_a_repository_gives_lists_of_candles() -> None:
    repository = compat.UnifiedMarketDataRepository(await compat.create_unified_api())
    assert isinstance(repository, compat.MarketDataRepository)
    candles = await repository.get_candles("KRW-BTC", 4)
    assert len(candles) == 4
    assert all(isinstance(candle, compat.CandleData) for candle in candles)
    assert not isinstance(object(), compat.MarketDataRepository)


async def test_the_cache_of_old_answers_by_key_and_is_warmed() -> None:
    cache = compat.AdvancedCacheManager()
    assert await cache.warm_up_cache(["KRW-BTC", "KRW-XRP"]) == 2
    ticker = await cache.get_with_fallback("ticker:KRW-BTC")
    assert isinstance(ticker, Ticker)
    candles = await cache.get_with_fallback("candles:KRW-BTC:1m")
    assert isinstance(candles, CandleSeries)
    assert (len(candles), candles.source) == (200, "cache")
    wrong: list[Any] = ["KRW-BTC", "candles:KRW-BTC", "book:KRW-BTC", "", None, 5]
    for key in wrong:
        with pytest.raises(InvalidRequestError, match="key must be such as 'ticker:KRW-BTC'"):
            await cache.get_with_fallback(key)
    with pytest.raises(UnknownSymbolError):
        await cache.warm_up_cache(["KRW-BTC", "KRW-BTD"])


async def _all_of(stream: Any) -> list[Any]:
    return [value async for value in stream]
