"""Names that earlier programs used, on top of the service of today.

Each of them tells by a `DeprecationWarning` what to use instead. Objects made without
arguments share one service per event loop; it is opened by the first call, with the
settings of the environment, and ended by ``await shutdown()``. A call after that opens it
anew.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NamedTuple,
    NoReturn,
    Protocol,
    Self,
    runtime_checkable,
)
from uuid import uuid4
from weakref import WeakKeyDictionary

import msgspec

from upbit_backbone.errors import BackboneError, InvalidRequestError
from upbit_backbone.indicators import IndicatorSeries
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import Candle, CandleSeries, Ticker, Timeframe
from upbit_backbone.protocol import Priority
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

SAMPLES_KEPT = 100
_OPEN = "async with await upbit_backbone.MarketDataAPI.create_default() as api"
_CANDLES = "MarketDataAPI.get_candle_data(symbol, timeframe, count=…)"
_STREAM = "MarketDataAPI.stream_candles(symbol, timeframe)"
_NOT_THE_CALLER = (__name__, "abc", "typing")
"""A class is made by the latter two where it has a Protocol as its base."""
_CHANNELS = ("rest", "websocket")

__all__ = [
    "AdvancedCacheManager",
    "CandleData",
    "DataCallback",
    "MarketDataAPI",
    "MarketDataBackbone",
    "MarketDataCoordinator",
    "MarketDataRepository",
    "MarketDataStorage",
    "MergedStream",
    "SmartChannelRouter",
    "SmartDataRouter",
    "SmartRouter",
    "UnifiedMarketDataAPI",
    "UnifiedMarketDataRepository",
    "UnifiedRequest",
    "UpbitAPIClient",
    "UpbitPublicClient",
    "UpbitWebSocketClient",
    "create_candle_request",
    "create_realtime_request",
    "create_unified_api",
    "get_krw_market_symbols",
    "get_screening_data",
    "shutdown",
]

if TYPE_CHECKING:
    CandleData = Candle  # when a program runs, `__getattr__` gives it, with a warning

DataCallback = Callable[[Any], object]
"""Called with each value; what it returns is awaited if it can be."""


async def shutdown() -> None:
    """End the service that the objects of this module share in the running loop.

    Streams end, callbacks are called no more. May be called twice, and without a service.
    """
    service = _SERVICES.pop(asyncio.get_running_loop(), None)
    if service is not None:
        await service.close()


class _Stream(Protocol):
    """What this module needs of a stream of the service."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Any: ...
    def close(self) -> None: ...


class _Service:
    """The one service of an event loop, opened when it is first needed."""

    def __init__(self) -> None:
        self.tasks = TaskOwner()
        self._opening = asyncio.Lock()
        self._backbone: BackboneManager | None = None

    async def backbone(self) -> BackboneManager:
        async with self._opening:
            if self._backbone is None:
                backbone = BackboneManager()
                await backbone.initialize()
                self._backbone = backbone
            return self._backbone

    @property
    def running(self) -> BackboneManager | None:
        return self._backbone

    async def close(self) -> None:
        async with self._opening:
            await self.tasks.close()
            if self._backbone is not None:
                backbone, self._backbone = self._backbone, None
                await backbone.shutdown()


# The one module-level state of the package: earlier programs made such objects anywhere, and
# without it each of them would be a service of its own, with limits of its own.
_SERVICES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Service] = WeakKeyDictionary()


def _service() -> _Service:
    return _SERVICES.setdefault(asyncio.get_running_loop(), _Service())


def _deprecated(name: str, instead: str) -> None:
    """Warn in the name of the line outside of this module that used `name`."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in _NOT_THE_CALLER:
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"upbit_backbone.compat.{name} is deprecated: use {instead}",
        DeprecationWarning,
        stacklevel=level,
    )


class _Calls:
    """The two calls that all objects of earlier programs have."""

    _instead: ClassVar[str] = _OPEN

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        _deprecated(cls.__name__, cls._instead)
        return super().__new__(cls)

    async def get_candle_data(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        count: int | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> CandleSeries:
        """As `upbit_backbone.MarketDataAPI.get_candle_data`, whose arguments stand otherwise."""
        backbone = await _service().backbone()
        return await backbone.api.get_candle_data(
            symbol, timeframe, start_time, end_time, priority, count=count
        )

    async def get_ticker_data(self, symbol: str, priority: Priority = Priority.NORMAL) -> Ticker:
        """As `upbit_backbone.MarketDataAPI.get_ticker_data`."""
        backbone = await _service().backbone()
        return await backbone.api.get_ticker_data(symbol, priority)

    def get_screening_data(self, *arguments: Any, **named: Any) -> NoReturn:
        """There has never been such a call: raises, and names the four that there are.

        Raises:
            InvalidRequestError: always.
        """
        raise _no_screening_data()


class MarketDataAPI(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`."""


class SmartDataRouter(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`; the router lies below it."""


SmartRouter = SmartDataRouter


class MarketDataCoordinator(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`; the coordinator lies below it."""


class MarketDataStorage(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`; it stores by itself."""


class SmartChannelRouter:
    """Deprecated: the service measures its channels by itself, and chooses between them."""

    class Sample(NamedTuple):
        """The outcome of one request."""

        latency_ms: float
        success: bool

    def __init__(self) -> None:
        self._samples: dict[str, deque[SmartChannelRouter.Sample]] = {
            channel: deque(maxlen=SAMPLES_KEPT) for channel in _CHANNELS
        }

    def update_channel_performance(self, channel: str, latency_ms: Any, success: bool) -> None:
        """Take the outcome of one request; the last 100 of each channel are kept.

        Args:
            channel: ``"rest"`` or ``"websocket"``.
            latency_ms: From the request to its answer.
            success: Whether it was answered.

        Raises:
            InvalidRequestError: no such channel, or a latency that is no time.
        """
        _deprecated(
            "SmartChannelRouter.update_channel_performance",
            "nothing: the service measures each of its requests by itself",
        )
        samples = self._of(channel)
        if not (isinstance(latency_ms, int | float) and 0 <= latency_ms < math.inf):
            raise InvalidRequestError(
                f"latency_ms was {latency_ms!r}: expected milliseconds, 0 or more"
            )
        samples.append(self.Sample(float(latency_ms), success))

    def samples(self, channel: str) -> tuple[Sample, ...]:
        """What was told of a channel, oldest first.

        Raises:
            InvalidRequestError: no such channel.
        """
        return tuple(self._of(channel))

    def _of(self, channel: str) -> deque[Sample]:
        if channel not in self._samples:
            raise InvalidRequestError(f"channel was {channel!r}: expected 'rest' or 'websocket'")
        return self._samples[channel]


class UnifiedRequest(msgspec.Struct, frozen=True):
    """What `create_candle_request` and `create_realtime_request` make."""

    symbol: str
    timeframe: str | Timeframe
    count: int | None = None
    realtime: bool = False
    data_callback: DataCallback | None = None


def create_candle_request(
    symbol: str,
    timeframe: str | Timeframe,
    count: int | None = None,
    data_callback: DataCallback | None = None,
) -> UnifiedRequest:
    """Deprecated: use `MarketDataAPI.get_candle_data`, which takes the same."""
    _deprecated("create_candle_request", _CANDLES)
    return UnifiedRequest(symbol, timeframe, count, data_callback=data_callback)


def create_realtime_request(
    symbol: str, timeframe: str | Timeframe, data_callback: DataCallback | None = None
) -> UnifiedRequest:
    """Deprecated: use `MarketDataAPI.stream_candles`."""
    _deprecated("create_realtime_request", _STREAM)
    return UnifiedRequest(symbol, timeframe, realtime=True, data_callback=data_callback)


class UnifiedMarketDataAPI(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`."""

    def __init__(self) -> None:
        self._channel_router = SmartChannelRouter()

    async def request_data(self, request: UnifiedRequest) -> str:
        """Begin with a request, and call its `data_callback`: of a realtime request with each
        `Candle` until `shutdown`, of another once with its `CandleSeries`.

        A callback that raises ends its request; that is logged, as is what could not be had.

        Returns:
            An id of the request.

        Raises:
            InvalidRequestError: the request is wrong.
        """
        _deprecated("UnifiedMarketDataAPI.request_data", _STREAM if request.realtime else _CANDLES)
        service, request_id = _service(), str(uuid4())
        backbone = await service.backbone()
        if request.realtime:
            stream = backbone.api.stream_candles(request.symbol, request.timeframe)
            work = _tell_each(stream, request.data_callback, request_id)
        else:
            work = self._tell_once(request, request_id)
        service.tasks.spawn(work, name=f"compat request {request_id}")
        return request_id

    async def request_data_sync(self, request: UnifiedRequest) -> CandleSeries:
        """The candles of a request; of a realtime one the latest 200."""
        _deprecated("UnifiedMarketDataAPI.request_data_sync", _CANDLES)
        return await self.get_candle_data(request.symbol, request.timeframe, request.count)

    async def _tell_once(self, request: UnifiedRequest, request_id: str) -> None:
        try:
            candles = await self.get_candle_data(request.symbol, request.timeframe, request.count)
        except BackboneError as error:
            logger.warning("request %s: %s", request_id, error)
        else:
            await _tell(request.data_callback, candles)


async def create_unified_api() -> UnifiedMarketDataAPI:
    """Deprecated: use `MarketDataAPI.create_default`. Opens the shared service."""
    _deprecated("create_unified_api", _OPEN)
    await _service().backbone()
    api = object.__new__(UnifiedMarketDataAPI)  # past its warning: one is enough
    UnifiedMarketDataAPI.__init__(api)
    return api


async def _tell_each(stream: _Stream, callback: DataCallback | None, request_id: str) -> None:
    try:
        async for value in stream:
            await _tell(callback, value)
    except BackboneError as error:
        logger.warning("request %s: %s", request_id, error)
    finally:
        stream.close()


async def _tell(callback: DataCallback | None, value: object) -> None:
    if callback is not None and inspect.isawaitable(answer := callback(value)):
        await answer


class MarketDataBackbone(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`."""

    async def get_candles(
        self, symbol: str, timeframe: str | Timeframe = "1m", count: int | None = None
    ) -> CandleSeries:
        """As `upbit_backbone.MarketDataAPI.get_candle_data`."""
        return await self.get_candle_data(symbol, timeframe, count)

    async def get_indicator(
        self, symbol: str, name: str, timeframe: str | Timeframe = "1m", **parameters: Any
    ) -> IndicatorSeries:
        """As `upbit_backbone.MarketDataAPI.get_indicator`."""
        backbone = await _service().backbone()
        return await backbone.api.get_indicator(symbol, name, timeframe=timeframe, **parameters)

    def stream_ticker(self, symbol: str) -> MergedStream:
        """As `upbit_backbone.MarketDataAPI.stream_ticker`; opened by the first ``anext``."""
        return MergedStream([symbol], _tickers_of)


class _Newest:
    """The newest value of each market that its reader has not had yet."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.changed = asyncio.Event()
        self.error: BackboneError | None = None
        self.following = 0

    async def follow(self, symbol: str, stream: _Stream) -> None:
        try:
            async for value in stream:
                self.values[symbol] = value
                self.changed.set()
        except BackboneError as error:
            self.error = error
        finally:
            self.following -= 1
            self.changed.set()


class MergedStream:
    """Values of several markets, of each the newest; ends with its last reference.

    Opened by ``await`` or by the first ``anext``.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        open_one: Callable[[BackboneManager, str], _Stream],
    ) -> None:
        self._streams: list[_Stream] | None = None
        self._symbols = list(dict.fromkeys(symbols))
        self._open_one = open_one
        self._newest = _Newest()

    async def open(self) -> Self:
        """Begin; once is enough.

        Raises:
            UnknownSymbolError: one of the markets is not listed; nothing was begun.
        """
        if self._streams is None:
            await self._begin()
        return self

    async def _begin(self) -> None:
        service = _service()
        backbone = await service.backbone()
        streams: list[_Stream] = []
        try:
            streams.extend(self._open_one(backbone, symbol) for symbol in self._symbols)
        except BackboneError:
            for stream in streams:
                stream.close()
            raise
        self._streams = streams
        # The tasks hold the values, not this object: so its last reference ends them.
        self._newest.following = len(streams)
        for symbol, stream in zip(self._symbols, streams, strict=True):
            service.tasks.spawn(self._newest.follow(symbol, stream), name=f"compat {symbol}")

    def close(self) -> None:
        """End. May be called twice."""
        for stream in self._streams or ():
            stream.close()

    def __await__(self) -> Any:
        return self.open().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._streams is None:
            await self._begin()
        newest = self._newest
        while not newest.values:
            if newest.error is not None:
                raise newest.error
            if not newest.following:
                raise StopAsyncIteration
            newest.changed.clear()
            await newest.changed.wait()
        return newest.values.pop(next(iter(newest.values)))

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _tickers_of(backbone: BackboneManager, symbol: str) -> _Stream:
    return backbone.api.stream_ticker(symbol)


def _orderbooks_of(backbone: BackboneManager, symbol: str) -> _Stream:
    return backbone.api.stream_orderbook(symbol)


class UpbitAPIClient(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`."""

    async def get_ticker(self, symbol: str) -> Ticker:
        """As `upbit_backbone.MarketDataAPI.get_ticker_data`."""
        return await self.get_ticker_data(symbol)


class UpbitPublicClient(UpbitAPIClient):
    """Deprecated: use `upbit_backbone.MarketDataAPI`."""


class UpbitWebSocketClient(_Calls):
    """Deprecated: use `stream_ticker` and `stream_orderbook` of `upbit_backbone.MarketDataAPI`."""

    _instead: ClassVar[str] = "MarketDataAPI.stream_ticker and MarketDataAPI.stream_orderbook"

    def subscribe_ticker(self, symbols: Iterable[str]) -> MergedStream:
        """An async iterator of `Ticker`, of each market the newest; may also be awaited."""
        return MergedStream(_symbols(symbols), _tickers_of)

    def subscribe_orderbook(self, symbols: Iterable[str]) -> MergedStream:
        """An async iterator of `Orderbook`, of each market the newest; may also be awaited."""
        return MergedStream(_symbols(symbols), _orderbooks_of)


class AdvancedCacheManager(_Calls):
    """Deprecated: `upbit_backbone.MarketDataAPI` answers from memory whenever it can."""

    async def get_with_fallback(self, key: str) -> Ticker | CandleSeries:
        """What a key names, from memory, the store or the exchange.

        Args:
            key: ``"ticker:KRW-BTC"`` or ``"candles:KRW-BTC:1m"`` (the latest 200).

        Raises:
            InvalidRequestError: a key of another shape.
        """
        match _parts_of(key):
            case ["ticker", symbol]:
                return await self.get_ticker_data(symbol)
            case ["candles", symbol, timeframe]:
                return await self.get_candle_data(symbol, timeframe)
        raise InvalidRequestError(
            f"key must be such as 'ticker:KRW-BTC' or 'candles:KRW-BTC:1m', was {key!r}"
        )

    async def warm_up_cache(self, symbols: Iterable[str]) -> int:
        """Read the ticker and the latest 200 minutes of each market; gives their number.

        Tickers come together; candles with LOW priority, one market after another.

        Raises:
            BackboneError: the first that could not be had; the others were.
        """
        wanted = _symbols(symbols)
        outcomes = await asyncio.gather(
            *(self.get_ticker_data(symbol) for symbol in wanted), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        for symbol in wanted:
            await self.get_candle_data(symbol, "1m", priority=Priority.LOW)
        return len(wanted)


@runtime_checkable
class MarketDataRepository(Protocol):
    """Deprecated: take a `upbit_backbone.MarketDataAPI` instead."""

    def __init_subclass__(cls, **named: Any) -> None:
        _deprecated("MarketDataRepository", "upbit_backbone.MarketDataAPI")
        super().__init_subclass__(**named)

    async def get_candles(self, symbol: str, count: int) -> list[Candle]:
        """The latest one-minute candles of a market, ascending."""
        ...


class UnifiedMarketDataRepository:
    """Deprecated: use `upbit_backbone.MarketDataAPI.get_candle_data`."""

    def __init__(self, unified_api: UnifiedMarketDataAPI) -> None:
        _deprecated("UnifiedMarketDataRepository", _CANDLES)
        self._api = unified_api

    async def get_candles(self, symbol: str, count: int) -> list[Candle]:
        """The latest one-minute candles of a market, ascending."""
        return list(await self._api.get_candle_data(symbol, "1m", count))


async def get_krw_market_symbols() -> list[str]:
    """Deprecated: use `MarketDataAPI.get_markets`. The markets in won, as the exchange has them."""
    _deprecated("get_krw_market_symbols", "MarketDataAPI.get_markets()")
    backbone = await _service().backbone()
    markets = await backbone.api.get_markets()
    return [market.symbol for market in markets if market.symbol.startswith("KRW-")]


def get_screening_data(*arguments: Any, **named: Any) -> NoReturn:
    """There has never been such a call: raises, and names the four that there are.

    Raises:
        InvalidRequestError: always.
    """
    raise _no_screening_data()


def _no_screening_data() -> InvalidRequestError:
    return InvalidRequestError(
        "there is no get_screening_data: ask each market at once by get_ticker_data, or by"
        " get_candle_data, get_orderbook_data and get_trade_data; calls made together leave as"
        " few requests"
    )


def _parts_of(key: Any) -> list[str]:
    return key.split(":") if isinstance(key, str) else []


def _symbols(symbols: Any) -> list[str]:
    if isinstance(symbols, str):
        raise InvalidRequestError(f"symbols must be a list such as ['KRW-BTC'], was {symbols!r}")
    return list(symbols)


def __getattr__(name: str) -> Any:
    """A deprecated name of a type; told when it is imported."""
    if name == "CandleData":
        _deprecated("CandleData", "upbit_backbone.Candle")
        return Candle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
