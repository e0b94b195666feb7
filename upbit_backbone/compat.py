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
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from sys import float_info
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NamedTuple,
    NoReturn,
    Protocol,
    Self,
    TypeAlias,
    runtime_checkable,
)
from uuid import uuid4
from weakref import WeakKeyDictionary

import msgspec

from upbit_backbone.api.validation import (
    MOST_SYMBOLS,
    check_callback,
    check_flag,
    check_interval,
    check_symbol,
)
from upbit_backbone.errors import BackboneError, ClosedError, InvalidRequestError, shown
from upbit_backbone.indicators import IndicatorSeries
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import Candle, CandleSeries, Ticker, Timeframe
from upbit_backbone.protocol import Priority
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

SAMPLES_KEPT = 100
_SHOWN = 200
_OPEN = "async with await upbit_backbone.MarketDataAPI.create_default() as api"
_CANDLES = "MarketDataAPI.get_candle_data(symbol, timeframe, count=…)"
_STREAM = "MarketDataAPI.stream_candles(symbol, timeframe)"
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
    # When a program runs, `__getattr__` gives them, with a warning.
    CandleData = Candle
    MarketDataRepository: TypeAlias = "_MarketDataRepository"

DataCallback = Callable[[Any], object]
"""Called with each value; what it returns is awaited if it can be."""


async def shutdown() -> None:
    """End the service that the objects of this module share in the running loop.

    Streams end, callbacks are called no more. May be called twice, without a service, and in a
    callback, which then goes on to its end.
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
            if self.tasks.closed:
                raise ClosedError("the shared service was shut down meanwhile: call again")
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
            try:
                await self.tasks.close()
            finally:
                # Cancelled too: a callback that waits for this by a task of its own is cancelled
                # above, and cancels it.
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
    while frame is not None and frame.f_globals.get("__name__") == __name__:
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
        # A program's own class is told of by the name of ours.
        ours = next(one.__name__ for one in cls.__mro__ if one.__module__ == __name__)
        _deprecated(ours, cls._instead)
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take nothing: all share one service, with the settings of the environment.

        Raises:
            InvalidRequestError: something was given.
        """
        given = [shown(one) for one in arguments]
        given += [f"{name}={shown(value)}" for name, value in named.items()]
        if given:
            raise InvalidRequestError(
                f"{type(self).__name__}() of upbit_backbone.compat takes no arguments, was given"
                f" {', '.join(given)[:_SHOWN]}: settings are UPBIT_BACKBONE_… variables, or an API"
                " of its own takes them: upbit_backbone.MarketDataAPI.create(BackboneConfig(…))"
            )

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


class SmartRouter(SmartDataRouter):
    """Deprecated: use `upbit_backbone.MarketDataAPI`; another name of `SmartDataRouter`."""


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
            InvalidRequestError: no such channel, a latency that is no time, or a success that is
                neither True nor False.
        """
        _deprecated(
            "SmartChannelRouter.update_channel_performance",
            "nothing: the service measures each of its requests by itself",
        )
        samples = self._of(channel)
        number = isinstance(latency_ms, int | float) and not isinstance(latency_ms, bool)
        if not (number and 0 <= latency_ms <= float_info.max):
            raise InvalidRequestError(
                f"latency_ms was {shown(latency_ms)}: expected milliseconds, 0 or more"
            )
        check_flag("success", success)
        samples.append(self.Sample(float(latency_ms), success))

    def samples(self, channel: str) -> tuple[Sample, ...]:
        """What was told of a channel, oldest first.

        Raises:
            InvalidRequestError: no such channel.
        """
        return tuple(self._of(channel))

    def _of(self, channel: Any) -> deque[Sample]:
        if not isinstance(channel, str) or channel not in self._samples:
            raise InvalidRequestError(
                f"channel was {shown(channel)}: expected 'rest' or 'websocket'"
            )
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
    """Deprecated: use `MarketDataAPI.get_candle_data`, which takes the same.

    Raises:
        InvalidRequestError: one of them is wrong.
    """
    _deprecated("create_candle_request", _CANDLES)
    return _checked(UnifiedRequest(symbol, timeframe, count, data_callback=data_callback))


def create_realtime_request(
    symbol: str, timeframe: str | Timeframe, data_callback: DataCallback | None = None
) -> UnifiedRequest:
    """Deprecated: use `MarketDataAPI.stream_candles`.

    Raises:
        InvalidRequestError: an argument is wrong.
    """
    _deprecated("create_realtime_request", _STREAM)
    return _checked(UnifiedRequest(symbol, timeframe, realtime=True, data_callback=data_callback))


class UnifiedMarketDataAPI(_Calls):
    """Deprecated: use `upbit_backbone.MarketDataAPI`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._channel_router = SmartChannelRouter()

    # What warns is no coroutine function: one that is made into a task runs when its caller's line
    # is over, and its warning would name a line of asyncio, which Python does not show.

    def request_data(self, request: UnifiedRequest) -> Coroutine[Any, Any, str]:
        """Begin with a request, and call its `data_callback`: of a realtime request with each
        `Candle` until `shutdown`, of another once with its `CandleSeries`.

        A callback that raises ends its request; that is logged, as is what could not be had.

        Returns:
            An id of the request.

        Raises:
            InvalidRequestError: the request is wrong.
        """
        realtime = getattr(request, "realtime", None) is True
        _deprecated("UnifiedMarketDataAPI.request_data", _STREAM if realtime else _CANDLES)
        return self._begin(request)

    def request_data_sync(self, request: UnifiedRequest) -> Coroutine[Any, Any, CandleSeries]:
        """The candles of a request; of a realtime one the latest 200.

        Raises:
            InvalidRequestError: the request is wrong.
        """
        _deprecated("UnifiedMarketDataAPI.request_data_sync", _CANDLES)
        return self._candles_of(request)

    async def _begin(self, request: UnifiedRequest) -> str:
        _checked(request)
        service, request_id = _service(), str(uuid4())
        backbone = await service.backbone()
        if request.realtime:
            stream = backbone.api.stream_candles(request.symbol, request.timeframe)
            work = _tell_each(stream, request.data_callback, request_id)
        else:
            work = self._tell_once(request, request_id)
        service.tasks.spawn(work, name=f"compat request {request_id}")
        return request_id

    async def _candles_of(self, request: UnifiedRequest) -> CandleSeries:
        _checked(request)
        return await self.get_candle_data(request.symbol, request.timeframe, request.count)

    async def _tell_once(self, request: UnifiedRequest, request_id: str) -> None:
        try:
            candles = await self.get_candle_data(request.symbol, request.timeframe, request.count)
        except BackboneError as error:
            logger.warning("request %s: %s", request_id, error)
        else:
            await _tell(request.data_callback, candles)


def _checked(request: Any) -> UnifiedRequest:
    if not isinstance(request, UnifiedRequest):
        raise InvalidRequestError(
            "a request is what create_candle_request or create_realtime_request makes,"
            f" was {shown(request)}"
        )
    check_flag("realtime", request.realtime)
    check_callback("data_callback", request.data_callback)
    Timeframe.parse(request.timeframe)
    check_symbol(request.symbol, ())
    check_interval(None, None, request.count, now_ms=0, default_count=1)
    return request


def create_unified_api() -> Coroutine[Any, Any, UnifiedMarketDataAPI]:
    """Deprecated: use `MarketDataAPI.create_default`. Opens the shared service."""
    _deprecated("create_unified_api", _OPEN)
    return _opened_api()


async def _opened_api() -> UnifiedMarketDataAPI:
    await _service().backbone()
    api = object.__new__(UnifiedMarketDataAPI)  # past its warning: one is enough
    UnifiedMarketDataAPI.__init__(api)
    return api


async def _tell_each(stream: _Stream, callback: DataCallback | None, request_id: str) -> None:
    try:
        async for value in stream:
            await _tell(callback, value)
    except ClosedError:
        logger.debug("request %s ended with the service", request_id)
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
        return MergedStream(_symbols([symbol]), _tickers_of)


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
        self._closed = False
        self._beginning = asyncio.Lock()
        self._symbols = list(dict.fromkeys(symbols))
        self._open_one = open_one
        self._newest = _Newest()

    async def open(self) -> Self:
        """Begin; once is enough. One that was closed stays so.

        Raises:
            UnknownSymbolError: one of the markets is not listed; nothing was begun.
        """
        await self._begin_once()
        return self

    async def _begin_once(self) -> None:
        async with self._beginning:
            if self._streams is None and not self._closed:
                await self._begin()

    async def _begin(self) -> None:
        service = _service()
        backbone = await service.backbone()
        if self._closed:
            return
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
        """End. May be called twice, and before it was opened."""
        self._closed = True
        for stream in self._streams or ():
            stream.close()

    def __await__(self) -> Any:
        return self.open().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._streams is None:
            await self._begin_once()
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
            f"key must be such as 'ticker:KRW-BTC' or 'candles:KRW-BTC:1m', was {shown(key)}"
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
class _MarketDataRepository(Protocol):
    """Deprecated: take a `upbit_backbone.MarketDataAPI` instead."""

    async def get_candles(self, symbol: str, count: int) -> list[Candle]:
        """The latest one-minute candles of a market, ascending."""
        ...


class UnifiedMarketDataRepository:
    """Deprecated: use `upbit_backbone.MarketDataAPI.get_candle_data`."""

    def __init__(self, unified_api: UnifiedMarketDataAPI) -> None:
        _deprecated("UnifiedMarketDataRepository", _CANDLES)
        if not callable(getattr(unified_api, "get_candle_data", None)):
            raise InvalidRequestError(
                f"unified_api must be a UnifiedMarketDataAPI, was {shown(unified_api)}"
            )
        self._api = unified_api

    async def get_candles(self, symbol: str, count: int) -> list[Candle]:
        """The latest one-minute candles of a market, ascending."""
        return list(await self._api.get_candle_data(symbol, "1m", count))


def get_krw_market_symbols() -> Coroutine[Any, Any, list[str]]:
    """Deprecated: use `MarketDataAPI.get_markets`. The markets in won, as the exchange has them."""
    _deprecated("get_krw_market_symbols", "MarketDataAPI.get_markets()")
    return _won_symbols()


async def _won_symbols() -> list[str]:
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
    if not isinstance(symbols, Iterable) or isinstance(symbols, str | bytes | Mapping):
        raise InvalidRequestError(
            f"symbols must be a list such as ['KRW-BTC'], was {shown(symbols)}"
        )
    wanted = []
    for symbol in symbols:
        check_symbol(symbol, ())
        wanted.append(symbol)
        if len(wanted) > MOST_SYMBOLS:
            raise InvalidRequestError(
                f"symbols must be at most {MOST_SYMBOLS:,}, were more: name each market once"
            )
    return wanted


def __getattr__(name: str) -> Any:
    """A deprecated name of a type; told when it is imported."""
    if name == "CandleData":
        _deprecated("CandleData", "upbit_backbone.Candle")
        return Candle
    if name == "MarketDataRepository":
        _deprecated("MarketDataRepository", "upbit_backbone.MarketDataAPI")
        return _MarketDataRepository
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
