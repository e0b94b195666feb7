"""Each name of earlier programs is there, and tells what to use instead."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from upbit_backbone import BackboneConfig, Candle, InvalidRequestError, compat

NEW_API = "upbit_backbone.MarketDataAPI.create_default()"
USES: dict[str, tuple[Callable[[], Any], str]] = {
    "UnifiedMarketDataAPI": (lambda: compat.UnifiedMarketDataAPI(), NEW_API),
    "SmartDataRouter": (lambda: compat.SmartDataRouter(), NEW_API),
    "SmartRouter": (lambda: compat.SmartRouter(), NEW_API),
    "MarketDataCoordinator": (lambda: compat.MarketDataCoordinator(), NEW_API),
    "MarketDataStorage": (lambda: compat.MarketDataStorage(), NEW_API),
    "MarketDataAPI": (lambda: compat.MarketDataAPI(), NEW_API),
    "MarketDataBackbone": (lambda: compat.MarketDataBackbone(), NEW_API),
    "UpbitAPIClient": (lambda: compat.UpbitAPIClient(), NEW_API),
    "UpbitPublicClient": (lambda: compat.UpbitPublicClient(), NEW_API),
    "UpbitWebSocketClient": (lambda: compat.UpbitWebSocketClient(), "stream_orderbook"),
    "AdvancedCacheManager": (lambda: compat.AdvancedCacheManager(), NEW_API),
    "UnifiedMarketDataRepository": (
        lambda: compat.UnifiedMarketDataRepository(quiet(compat.UnifiedMarketDataAPI)),
        "get_candle_data",
    ),
    "CandleData": (lambda: compat.CandleData, "upbit_backbone.Candle"),
    "create_candle_request": (
        lambda: compat.create_candle_request("KRW-BTC", "1m", 5),
        "get_candle_data",
    ),
    "create_realtime_request": (
        lambda: compat.create_realtime_request("KRW-BTC", "1m"),
        "stream_candles",
    ),
    "SmartChannelRouter.update_channel_performance": (
        lambda: compat.SmartChannelRouter().update_channel_performance("rest", 12.5, True),
        "nothing",
    ),
    "MarketDataRepository": (
        lambda: isinstance(5, compat.MarketDataRepository),
        "upbit_backbone.MarketDataAPI",
    ),
}
AWAITED: dict[str, tuple[Callable[[], Any], str]] = {
    "create_unified_api": (lambda: compat.create_unified_api(), NEW_API),
    "get_krw_market_symbols": (lambda: compat.get_krw_market_symbols(), "get_markets"),
    "UnifiedMarketDataAPI.request_data_sync": (
        lambda: quiet(compat.UnifiedMarketDataAPI).request_data_sync(
            compat.UnifiedRequest("KRW-BTC", "1m", 2)
        ),
        "get_candle_data",
    ),
    "UnifiedMarketDataAPI.request_data": (
        lambda: quiet(compat.UnifiedMarketDataAPI).request_data(
            compat.UnifiedRequest("KRW-BTC", "1m", realtime=True)
        ),
        "stream_candles",
    ),
}


def quiet(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize("name", USES)
def test_a_name_says_what_to_use_instead_of_it(name: str) -> None:
    use, instead = USES[name]
    with pytest.warns(DeprecationWarning, match="is deprecated: use") as caught:
        use()
    (told,) = caught
    assert str(told.message).startswith(f"upbit_backbone.compat.{name} is deprecated: use ")
    assert instead in str(told.message)
    assert told.filename == __file__, "the warning names the line of the caller"


@pytest.mark.usefixtures("ended")
async def test_a_call_says_what_to_use_instead_of_it() -> None:
    for name, (use, instead) in AWAITED.items():
        with pytest.warns(DeprecationWarning, match="is deprecated: use") as caught:
            # In a task of its own, where the frame below is one of asyncio.
            await asyncio.gather(use())
        (told,) = caught
        assert str(told.message).startswith(f"upbit_backbone.compat.{name} is deprecated: use ")
        assert instead in str(told.message)
        assert told.filename == __file__, name


def test_a_program_s_own_class_is_told_of_by_the_name_of_ours() -> None:
    class Client(compat.UpbitPublicClient):
        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    with pytest.warns(DeprecationWarning, match="compat.UpbitPublicClient is deprecated") as told:
        assert Client("mine").key == "mine"
    assert told[0].filename == __file__


@pytest.mark.filterwarnings("ignore:upbit_backbone.compat:DeprecationWarning")
def test_what_takes_no_arguments_refuses_them_in_a_sentence() -> None:
    names = [name for name in compat.__all__ if isinstance(getattr(compat, name), type)]
    makers = [made for name in names if issubclass(made := getattr(compat, name), compat._Calls)]
    assert len(makers) == 11
    for made in makers:
        with pytest.raises(InvalidRequestError, match=r"takes no arguments, .*data_dir="):
            made(BackboneConfig(exchange="simulator"), data_dir="/x")
        with pytest.raises(InvalidRequestError, match=r"MarketDataAPI\.create"):
            made(None)


def test_every_public_name_is_told_of() -> None:
    without_a_note = {"DataCallback", "MergedStream", "UnifiedRequest", "shutdown"}
    raises = {"get_screening_data"}
    warned = {name.partition(".")[0] for name in USES | AWAITED}
    assert set(compat.__all__) == warned | without_a_note | raises


def test_nothing_is_opened_before_the_first_call() -> None:
    # There is no loop here at all.
    for make in (compat.MarketDataAPI, compat.UnifiedMarketDataAPI, compat.UpbitWebSocketClient):
        quiet(make)
    assert not compat._SERVICES


def test_candle_data_is_candle() -> None:
    assert quiet(lambda: compat.CandleData) is Candle
    with pytest.raises(AttributeError, match="has no attribute 'CandleDatum'"):
        _ = compat.CandleDatum


def test_there_is_no_screening_call_and_the_refusal_names_the_four() -> None:
    api = quiet(compat.MarketDataAPI)
    for call in (compat.get_screening_data, api.get_screening_data):
        with pytest.raises(InvalidRequestError) as caught:
            call("KRW", limit=5)
        for name in ("candle", "ticker", "orderbook", "trade"):
            assert f"get_{name}_data" in str(caught.value)


@pytest.mark.filterwarnings("ignore:upbit_backbone.compat:DeprecationWarning")
def test_the_channel_router_keeps_the_last_hundred_samples() -> None:
    router = compat.UnifiedMarketDataAPI()._channel_router
    assert isinstance(router, compat.SmartChannelRouter)
    for number in range(120):
        router.update_channel_performance("rest", number, number % 2 == 0)
    router.update_channel_performance("websocket", 0.5, True)
    assert len(router.samples("rest")) == 100
    assert router.samples("rest")[0] == (20.0, True)
    assert router.samples("websocket") == ((0.5, True),)
    for channel, latency_ms in (("pigeon", 5), ("rest", -1), ("rest", float("nan")), ("rest", "5")):
        with pytest.raises(InvalidRequestError, match="expected"):
            router.update_channel_performance(channel, latency_ms, True)
    with pytest.raises(InvalidRequestError, match="'rest' or 'websocket'"):
        router.samples("pigeon")


@pytest.mark.filterwarnings("ignore:upbit_backbone.compat:DeprecationWarning")
def test_each_loop_has_a_service_of_its_own() -> None:
    api = compat.MarketDataAPI()

    async def one_program() -> str:
        try:
            return (await api.get_ticker_data("KRW-BTC")).symbol
        finally:
            await compat.shutdown()
            await compat.shutdown()

    assert asyncio.run(one_program()) == asyncio.run(one_program()) == "KRW-BTC"
    assert not compat._SERVICES


@pytest.mark.usefixtures("ended")
@pytest.mark.filterwarnings("ignore:upbit_backbone.compat:DeprecationWarning")
async def test_after_a_shutdown_the_next_call_opens_anew() -> None:
    api = compat.MarketDataAPI()
    answers = await asyncio.gather(*(api.get_ticker_data("KRW-BTC") for _ in range(5)))
    first = await compat._service().backbone()
    await compat.shutdown()
    await api.get_ticker_data("KRW-BTC")
    assert await compat._service().backbone() is not first
    assert len({ticker.symbol for ticker in answers}) == 1
