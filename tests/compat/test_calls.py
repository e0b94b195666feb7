"""What earlier programs call, in the forms in which they call it, against a simulator."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable
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


@pytest.mark.parametrize("way", ["itself", "in a task"])
async def test_a_callback_may_end_the_service(way: str) -> None:
    api = await compat.create_unified_api()
    ended: list[Any] = []

    async def end(value: Any) -> None:
        try:
            if way == "itself":
                await compat.shutdown()
            else:
                await asyncio.wait_for(compat.shutdown(), 5)
        finally:
            ended.append(value)

    request = compat.create_realtime_request("KRW-BTC", "1m", end)
    service = compat._service()
    await api.request_data(request)
    await eventually(lambda: ended and not service.tasks._tasks and service.running is None)
    assert len(ended) == 1
    assert not compat._SERVICES


async def test_a_stream_is_opened_once_whoever_asks_first_and_not_after_its_end() -> None:
    stream = compat.UpbitWebSocketClient().subscribe_ticker(["KRW-BTC"])
    await asyncio.gather(anext(stream), anext(stream))
    tasks = compat._service().tasks._tasks
    assert len(tasks) == 1
    stream.close()
    await eventually(lambda: not tasks)
    for early in (True, False):
        stream = compat.MarketDataBackbone().stream_ticker("KRW-BTC")
        if early:
            stream.close()
            assert await stream is stream
        else:  # while it is opened
            await compat.shutdown()
            opening = asyncio.create_task(stream.open())
            await asyncio.sleep(0)
            stream.close()
            assert await opening is stream
        assert await _all_of(stream) == []
        assert not compat._service().tasks._tasks


async def test_wrong_arguments_are_told_in_a_sentence() -> None:
    odd: list[Any] = [None, 5, -1, float("nan"), True, "", b"x", [], {}, object(), 10**5000,
                      "KRW-\nBTC", "\ud800", "a\0b", (1,), [[1]]]  # fmt: skip
    backbone, client = compat.MarketDataBackbone(), compat.UpbitWebSocketClient()
    cache, unified = compat.AdvancedCacheManager(), compat.UnifiedMarketDataAPI()
    router = compat.SmartChannelRouter()
    calls: dict[str, Callable[[Any], Any]] = {
        "symbol": lambda value: backbone.get_candle_data(value, "1m"),
        "timeframe": lambda value: backbone.get_candle_data("KRW-BTC", value),
        "start_time": lambda value: backbone.get_candle_data("KRW-BTC", "1m", start_time=value),
        "priority": lambda value: backbone.get_ticker_data("KRW-BTC", value),
        "ticker": backbone.get_ticker_data,
        "count": lambda value: backbone.get_candles("KRW-BTC", "1m", value),
        "indicator": lambda value: backbone.get_indicator("KRW-BTC", value),
        "period": lambda value: backbone.get_indicator("KRW-BTC", "RSI", period=value),
        "stream": backbone.stream_ticker,
        "tickers": client.subscribe_ticker,
        "orderbooks": client.subscribe_orderbook,
        "key": cache.get_with_fallback,
        "symbols": cache.warm_up_cache,
        "request": unified.request_data,
        "request_sync": unified.request_data_sync,
        "candle request": lambda value: compat.create_candle_request(value, "1m"),
        "its count": lambda value: compat.create_candle_request("KRW-BTC", "1m", value),
        "its callback": lambda value: compat.create_realtime_request("KRW-BTC", "1m", value),
        "api": compat.UnifiedMarketDataRepository,
        "channel": lambda value: router.update_channel_performance(value, 1.0, True),
        "latency": lambda value: router.update_channel_performance("rest", value, True),
        "success": lambda value: router.update_channel_performance("rest", 1.0, value),
        "samples": router.samples,
    }
    taken: dict[str, list[Any]] = {}
    told: list[str] = []
    for name, call in calls.items():
        for value in odd:
            try:
                given = call(value)
                if inspect.iscoroutine(given):
                    await given
                taken.setdefault(name, []).append(value)
            except InvalidRequestError as error:
                told.append(str(error))
    assert not [sentence for sentence in told if "\n" in sentence]
    # What is no mistake: a default, a number, an empty list.
    assert taken == {
        "start_time": [None], "count": [None, 5], "its count": [None, 5], "its callback": [None],
        "period": [5], "latency": [5], "success": [True], "tickers": [[]], "orderbooks": [[]],
        "symbols": [[]],
    }  # fmt: skip


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
