"""The four calls and the streams: everything a program needs to know of this package."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, Literal, Self, TypeVar, overload

import msgspec

from upbit_backbone.api.calls import Calls, Refusal
from upbit_backbone.api.chunks import ChunkStream
from upbit_backbone.api.event_bus import EventBusIntegration
from upbit_backbone.api.filling import CERTAIN_AFTER_MS, fill_known
from upbit_backbone.api.home_loop import NOWHERE, home_loop, other_loop
from upbit_backbone.api.lanes import LANES
from upbit_backbone.api.loads import Loads
from upbit_backbone.api.monitor import Monitor
from upbit_backbone.api.stream import Stream
from upbit_backbone.api.validation import (
    Interval,
    check_callback,
    check_choice,
    check_flag,
    check_grouping,
    check_interval,
    check_max_age,
    check_number,
    check_priority,
    check_seconds,
    check_symbol,
    check_timeout,
    check_values,
    may_be_listed,
)
from upbit_backbone.clock import SECOND_MS, Clock, utc_datetime
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    DeadlineError,
    InvalidRequestError,
    StaleDataError,
    TransportError,
    UnknownSymbolError,
    shown,
)
from upbit_backbone.indicators import IndicatorSeries, candles_needed, compute
from upbit_backbone.models import (
    CLOSE_GRACE_MS,
    CandleSeries,
    Market,
    Orderbook,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    MAX_DEPTH,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    ChunkSource,
    DataSource,
    DataType,
    Health,
    LayerStatus,
    PerformanceMetrics,
    Policy,
    Priority,
    Progress,
    Reach,
    SystemEvent,
    SystemStatus,
)
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

DEFAULT_COUNT = 200
DEFAULT_VALUES = 100
"""Of an indicator: with what RSI needs before them, they are had of 400 candles."""
DRAIN_S = 2.0
"""How long calls in flight may go on when the service closes."""
LIST_IS_NEW_S = 60.0
"""A list so young is believed; what an older one does not have may be listed since."""
LIST_AGAIN_S = 2.0
"""While a stream waits for a list of markets it is asked for so often."""
_TICKER, _ORDERBOOK = DataType.TICKER, DataType.ORDERBOOK
_WITHOUT_HOLES = (DataType.TRADE, DataType.CANDLE)
_MAX_AGE_S = tuple(priority.max_age_s for priority in Priority)


def _nothing_stored(_: str) -> bool:
    return False


class MarketDataAPI:
    """Layer 4. Open one with ``async with await MarketDataAPI.create_default() as api``.

    All times are aware UTC `datetime` in answers; in arguments a naive one means local
    time. All calls may be cancelled: nothing is kept of a cancelled call but what the
    exchange had answered already. It belongs to the event loop that it was opened in: in another
    one, and outside of any, calls raise `InvalidRequestError`; after `close`, `ClosedError`. What
    it knows of itself (`get_system_status` and the like) may be asked anywhere.
    """

    def __init__(
        self,
        *,
        router: DataSource,
        coordinator: ChunkSource,
        clock: Clock,
        bus: EventBusIntegration,
        monitor: Monitor,
        system_status: Callable[[], SystemStatus],
        max_concurrent_requests: int,
        is_stored: Callable[[str], bool] = _nothing_stored,
    ) -> None:
        """For the composition root; programs use `create_default` or `create`."""
        self._router = router
        self._coordinator = coordinator
        self._clock = clock
        self._now = clock.monotonic
        self._bus = bus
        self._monitor = monitor
        # By priority how old a value may be, and whom to tell of a hit: one look for both.
        self._ticker_hits = tuple(zip(_MAX_AGE_S, monitor.calls.hits_of(_TICKER), strict=True))
        self._orderbook_hits = tuple(
            zip(_MAX_AGE_S, monitor.calls.hits_of(_ORDERBOOK), strict=True)
        )
        self._system_status = system_status
        self._calls = Calls(
            router,
            coordinator,
            bus=bus,
            load=monitor.load,
            clock=clock,
            recorder=monitor.calls,
            most_at_once=max_concurrent_requests,
        )
        self._loads = Loads(monitor.calls, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that it runs in; None: it does not run."""
        self._home = NOWHERE
        """That loop, as a hit asks it."""
        self._listed: dict[str, Market] = {}
        self._listed_s = float("-inf")
        """When the exchange was asked for that, by the monotonic clock; a stored list: never."""
        self._list_failure: BackboneError | None = None
        """Why the exchange's own list could not be had when it was asked for last."""
        self._list_again_s = float("-inf")
        self._tasks = TaskOwner()
        self._is_stored = is_stored
        self._since_ms = clock.now_ms()
        self._on_close: Callable[[], Awaitable[None]] | None = None

    @classmethod
    async def create_default(cls) -> MarketDataAPI:
        """Open with the default settings and what the environment says of them.

        Raises:
            StorageError: the data folder cannot be used.
        """
        return await cls.create(BackboneConfig.from_environment())

    @classmethod
    async def create(cls, config: BackboneConfig) -> MarketDataAPI:
        """Open with these settings. An exchange that is not reached is no error.

        Raises:
            InvalidRequestError: not a `BackboneConfig`.
            StorageError: the data folder cannot be used.
        """
        if not isinstance(config, BackboneConfig):
            raise InvalidRequestError(
                "create takes a BackboneConfig, such as BackboneConfig(exchange='simulator'),"
                f" was {shown(config)}"
            )
        # The composition root knows this class; here alone this class asks for it.
        from upbit_backbone.manager import BackboneManager

        manager = BackboneManager(config)
        await manager.initialize()
        manager.api._on_close = manager.shutdown
        return manager.api

    @classmethod
    async def create_configured_api(cls, path: str | Path) -> MarketDataAPI:
        """Open with the settings of a TOML file; what the environment says overrides them.

        Raises:
            InvalidRequestError: the file cannot be read, or a setting makes no sense.
            StorageError: the data folder cannot be used.
        """
        return await cls.create(BackboneConfig.from_file(path))

    async def start(self) -> None:
        """Begin to answer; the composition root calls it."""
        self._calls.open()
        self._loop = asyncio.get_running_loop()
        self._home = home_loop(self._loop)

    async def stop(self) -> None:
        """Answer no more; the composition root calls it.

        What was asked before is answered within two seconds, or ends with `ClosedError`. LOW
        ends at once.
        """
        self._loop, self._home = None, NOWHERE
        await self._tasks.close()
        await self._calls.drain(DRAIN_S)

    async def close(self) -> None:
        """End the service that `create` opened. May be called twice.

        What was cut short, because the call was cancelled, ends with the next one.

        Raises:
            InvalidRequestError: it runs in another event loop; nothing was touched.
        """
        if self._on_close is not None:
            await self._on_close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @overload
    async def get_candle_data(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        count: int | None = None,
        fill: Literal["previous"] | None = None,
        closed_only: bool = False,
        timeout: float | None = None,
        with_metadata: Literal[False] = False,
    ) -> CandleSeries: ...
    @overload
    async def get_candle_data(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        count: int | None = None,
        fill: Literal["previous"] | None = None,
        closed_only: bool = False,
        timeout: float | None = None,
        with_metadata: Literal[True],
    ) -> tuple[CandleSeries, BackboneMetadata]: ...
    async def get_candle_data(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        count: int | None = None,
        fill: Literal["previous"] | None = None,
        closed_only: bool = False,
        timeout: float | None = None,
        with_metadata: bool = False,
    ) -> CandleSeries | tuple[CandleSeries, BackboneMetadata]:
        """Candles of a range, or a number of them; ascending by open time.

        Periods in which nobody traded have no candle. With the end at now the forming
        candle is among them (``closed=False``).

        Args:
            symbol: Market code, quote first, e.g. ``"KRW-BTC"``.
            timeframe: ``"1s" "1m" "3m" "5m" "10m" "15m" "30m" "1h" "4h" "1d" "1w" "1M" "1y"``.
            start_time: First open time; not in the future.
            end_time: Exclusive; None or later than now means now.
            priority: Who goes first.
            count: With `start_time` the first so many from it, else the latest before
                `end_time`. At most two of the three; without start and count it is 200.
            fill: ``"previous"`` inserts flat candles (`filled`) for known-empty periods.
            closed_only: Leave out the forming candle.
            timeout: Seconds; by default 2 (CRITICAL), 5, 10, none (LOW).
            with_metadata: Return ``(series, metadata)``; then a page that could not be had is
                named in ``metadata.missing`` instead of raised, unless nothing exists.

        Raises:
            InvalidRequestError: the call is wrong; `UnknownSymbolError` for the symbol.
            TransportError: the exchange was not reached; ``error.partial`` has what exists.
            DeadlineError: not finished in time.
        """
        started = self._clock.monotonic()
        timeframe = Timeframe.parse(timeframe)
        check_choice("fill", fill, ("previous", None))
        check_flag("closed_only", closed_only)
        self._check_call(priority, timeout, with_metadata)
        await self._check_candle_symbol(symbol, priority, timeout)
        interval = self._interval(start_time, end_time, count)
        if closed_only:
            interval = self._closed_only(interval, timeframe)
        now_ms = self._clock.now_ms()
        held: CandleSeries | None = None
        if not fill or symbol in self._listed:  # of who is gone `fetch` tells since when
            held = self._coordinator.peek(
                DataType.CANDLE, symbol, timeframe, *interval, priority.max_age_s, started
            )
        error: BackboneError | None = None
        if held is not None:
            age_s = self._coordinator.peek_age_s(
                DataType.CANDLE, symbol, timeframe, interval.end_ms, started
            )
            series = held.labelled("cache")
            metadata = self._hit(DataType.CANDLE, len(held), priority, started, "layer_2", age_s)
        else:
            response = await self._ask(
                BackboneRequest(
                    DataType.CANDLE,
                    (symbol,),
                    timeframe,
                    None if interval.start_ms is None else utc_datetime(interval.start_ms),
                    None if interval.end_ms is None else utc_datetime(interval.end_ms),
                    interval.limit,
                    priority,
                    max_age=priority.max_age_s,
                ),
                timeout,
                started,
                _given if with_metadata else _incomplete,
            )
            series, metadata, error = response.data, response.metadata, response.error
        if fill:
            series = self._filled(series, interval, metadata, now_ms)
            metadata = msgspec.structs.replace(metadata, data_count=len(series))
        if error is not None and not with_metadata:
            raise _with_partial(error, series, metadata)
        return (series, metadata) if with_metadata else series

    async def get_stored_candles(
        self, symbol: str, timeframe: str | Timeframe, *, count: int = DEFAULT_COUNT
    ) -> tuple[CandleSeries, BackboneMetadata]:
        """The newest candles that are stored, at once; nothing is asked of the exchange.

        They are one stretch without a hole, wherever it ends; none, if none are stored.

        Args:
            symbol: Market code.
            timeframe: As `get_candle_data`.
            count: At most so many.

        Returns:
            Them, ascending, and metadata whose ``missing`` says what lacks up to now.

        Raises:
            InvalidRequestError: the call is wrong.
        """
        started = self._clock.monotonic()
        self._check_running()
        parsed = Timeframe.parse(timeframe)
        check_symbol(symbol, ())
        interval = self._interval(None, None, count)
        request = BackboneRequest(
            DataType.CANDLE,
            (symbol,),
            parsed,
            count=interval.limit,
            priority=Priority.HIGH,
            max_age=Priority.LOW.max_age_s,
            reach=Reach.STORED,
        )
        response = await self._ask(request, None, started, _given)
        return response.data, response.metadata

    @overload
    async def get_ticker_data(
        self,
        symbol: str,
        priority: Priority = Priority.NORMAL,
        *,
        max_age: float | None = None,
        timeout: float | None = None,
        with_metadata: Literal[False] = False,
    ) -> Ticker: ...
    @overload
    async def get_ticker_data(
        self,
        symbol: str,
        priority: Priority = Priority.NORMAL,
        *,
        max_age: float | None = None,
        timeout: float | None = None,
        with_metadata: Literal[True],
    ) -> tuple[Ticker, BackboneMetadata]: ...
    async def get_ticker_data(
        self,
        symbol: str,
        priority: Priority = Priority.NORMAL,
        *,
        max_age: float | None = None,
        timeout: float | None = None,
        with_metadata: bool = False,
    ) -> Ticker | tuple[Ticker, BackboneMetadata]:
        """The latest summary of a market.

        One call for each market is as good as one for all: those that are asked at once leave in
        one request to the exchange. A CRITICAL one leaves at once and alone; of more that wait for
        the exchange's limit at the same time two do, and the others share a third request.

        Args:
            symbol: Market code.
            priority: Who goes first.
            max_age: Seconds since it was last known to be current; by default 2 (CRITICAL),
                5, 10, 60 (LOW).
            timeout: Seconds; by default 2, 5, 10, none.
            with_metadata: Return ``(ticker, metadata)``.

        Raises:
            UnknownSymbolError: not listed.
            TransportError: the exchange was not reached.
            StaleDataError: only an older one could be had.
            DeadlineError: not finished in time.
        """
        # A hit, before anything else; what is wrong with a call is found out below.
        if (
            max_age is timeout is None
            and with_metadata is False
            and type(priority) is Priority
            and type(symbol) is str
            and get_ident() == self._home._thread_id
        ):
            max_age_s, tell = self._ticker_hits[priority]
            now = self._now
            started = now()
            held: Ticker | None = self._router.peek(
                _TICKER, symbol, None, None, None, None, max_age_s, started
            )
            if held is not None:
                tell(now() - started)
                return held
        latest: Ticker | tuple[Ticker, BackboneMetadata] = await self._latest(
            DataType.TICKER, symbol, priority, MAX_DEPTH, 0, max_age, timeout, with_metadata
        )
        return latest

    @overload
    async def get_orderbook_data(
        self,
        symbol: str,
        priority: Priority = Priority.NORMAL,
        *,
        depth: int = MAX_DEPTH,
        level: float = 0,
        max_age: float | None = None,
        timeout: float | None = None,
        with_metadata: Literal[False] = False,
    ) -> Orderbook: ...
    @overload
    async def get_orderbook_data(
        self,
        symbol: str,
        priority: Priority = Priority.NORMAL,
        *,
        depth: int = MAX_DEPTH,
        level: float = 0,
        max_age: float | None = None,
        timeout: float | None = None,
        with_metadata: Literal[True],
    ) -> tuple[Orderbook, BackboneMetadata]: ...
    async def get_orderbook_data(
        self,
        symbol: str,
        priority: Priority = Priority.NORMAL,
        *,
        depth: int = MAX_DEPTH,
        level: float = 0,
        max_age: float | None = None,
        timeout: float | None = None,
        with_metadata: bool = False,
    ) -> Orderbook | tuple[Orderbook, BackboneMetadata]:
        """The order book of a market, best prices first.

        Args:
            symbol: Market code.
            priority: Who goes first.
            depth: Rows a side, 1 to 30.
            level: Price grouping of the exchange (KRW markets); 0 is none.
            max_age: As `get_ticker_data`.
            timeout: As `get_ticker_data`.
            with_metadata: Return ``(book, metadata)``.

        Raises:
            As `get_ticker_data`; DataUnavailableError: the market has no such grouping.
        """
        # As `get_ticker_data`.
        if (
            max_age is timeout is None
            and with_metadata is False
            and type(depth) is type(level) is int
            and (depth, level) == (MAX_DEPTH, 0)
            and type(symbol) is str
            and type(priority) is Priority
            and get_ident() == self._home._thread_id
        ):
            max_age_s, tell = self._orderbook_hits[priority]
            now = self._now
            started = now()
            held: Orderbook | None = self._router.peek(
                _ORDERBOOK, symbol, None, None, None, None, max_age_s, started
            )
            if held is not None:
                tell(now() - started)
                return held
        check_grouping(depth, level)
        latest: Orderbook | tuple[Orderbook, BackboneMetadata] = await self._latest(
            DataType.ORDERBOOK, symbol, priority, depth, level, max_age, timeout, with_metadata
        )
        return latest

    @overload
    async def get_trade_data(
        self,
        symbol: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        count: int | None = None,
        timeout: float | None = None,
        with_metadata: Literal[False] = False,
    ) -> list[Trade]: ...
    @overload
    async def get_trade_data(
        self,
        symbol: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        count: int | None = None,
        timeout: float | None = None,
        with_metadata: Literal[True],
    ) -> tuple[list[Trade], BackboneMetadata]: ...
    async def get_trade_data(
        self,
        symbol: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        count: int | None = None,
        timeout: float | None = None,
        with_metadata: bool = False,
    ) -> list[Trade] | tuple[list[Trade], BackboneMetadata]:
        """Trades of a range, or a number of them; ascending by time, each id once.

        Args:
            symbol: Market code.
            start_time: At most seven days back: the exchange keeps no more. Trades are not stored:
                each call asks anew.
            end_time: Exclusive; None or later than now means now.
            priority: Who goes first.
            count: With `start_time` the first so many from it, else the latest before
                `end_time`. At most two of the three; without start and count it is 200.
            timeout: As `get_candle_data`.
            with_metadata: Return ``(trades, metadata)``.

        Raises:
            As `get_candle_data`; DataUnavailableError: longer ago than seven days.
        """
        started = self._clock.monotonic()
        self._check_call(priority, timeout, with_metadata)
        await self._check_symbol(DataType.TRADE, symbol, priority, timeout)
        interval = self._interval(start_time, end_time, count)
        response = await self._ask(
            BackboneRequest(
                DataType.TRADE,
                (symbol,),
                None,
                None if interval.start_ms is None else utc_datetime(interval.start_ms),
                None if interval.end_ms is None else utc_datetime(interval.end_ms),
                interval.limit,
                priority,
            ),
            timeout,
            started,
            _given if with_metadata else _incomplete,
        )
        trades = sorted(response.data, key=lambda t: (t.exchange_time, t.sequential_id))
        if response.error is not None and not with_metadata:
            raise _with_partial(response.error, trades, response.metadata)
        return (trades, response.metadata) if with_metadata else trades

    def stream_ticker(self, symbol: str, *, policy: Policy = "latest") -> Stream:
        """Tickers as they change; an async iterator of `Ticker`, also a context manager.

        Raises:
            UnknownSymbolError: not listed; while iterating, when that is not known yet.
        """
        return self._stream(DataType.TICKER, symbol, None, policy)

    def stream_orderbook(self, symbol: str, *, policy: Policy = "latest") -> Stream:
        """Whole order books as they change; an async iterator of `Orderbook`.

        Raises:
            UnknownSymbolError: not listed; while iterating, when that is not known yet.
        """
        return self._stream(DataType.ORDERBOOK, symbol, None, policy)

    def stream_trades(self, symbol: str, *, policy: Policy = "latest") -> Stream:
        """Trades; with ``policy="all"`` each exactly once, and a `Gap` for what was missed.

        While the connection is away the iterator waits: the stream's `state` is ``stale``, its
        `reason` says why, and an event tells of the loss. After two seconds trades are polled by
        REST and come as usual, if that answers. Once the connection is back, live trades are held
        for two seconds at most while what was lost is read back; if that is done by then, all come
        in their order, and there was no gap. If not, ``Gap`` ``open`` comes, live trades go on,
        what is read back follows with ``late=True``, and ``closed`` ends it, or ``unfillable`` if
        the exchange does not have it any more. Of an outage that REST does not bridge ``open``
        comes while it lasts, after five to seven seconds; what was lost is read back as before, and
        ``closed`` says that nothing is missing up to its end. Where a part of the service had to
        be begun anew ``open`` comes at once.

        Raises:
            UnknownSymbolError: not listed; while iterating, when that is not known yet.
        """
        return self._stream(DataType.TRADE, symbol, None, policy)

    def stream_candles(
        self, symbol: str, timeframe: str | Timeframe, *, policy: Policy = "latest"
    ) -> Stream:
        """The forming candle as it changes (state `forming`), and each once it is `closed`.

        Built from trades; closes by the exchange's clock with a grace of a second. A candle
        `revised` by a late trade, or by what the exchange says of it later, comes again, and so
        does one that a second reading confirms (`settled`).

        Raises:
            UnknownSymbolError: not listed; while iterating, when that is not known yet.
            InvalidRequestError: not a timeframe.
        """
        return self._stream(DataType.CANDLE, symbol, Timeframe.parse(timeframe), policy)

    def iter_candle_chunks(
        self,
        symbol: str,
        timeframe: str | Timeframe,
        start_time: datetime,
        end_time: datetime | None = None,
        priority: Priority = Priority.LOW,
        *,
        newest_first: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> ChunkStream:
        """Candles of a long range, in finished stretches while the rest loads.

        An async iterator of `CandleSeries`, without overlap: each ascending, together all candles
        of the range. It has no deadline: a load that is in the way of others, a block by the
        exchange, and a layer that is begun anew make it wait. What is stored is not asked again, so
        a load that broke off goes on where it was. Periods of which nothing is known are in
        ``missing`` of what is returned.

        Args:
            symbol: Market code.
            timeframe: As `get_candle_data`.
            start_time: First open time; not in the future.
            end_time: Exclusive; None or later than now means now.
            priority: Who goes first; LOW leaves the others what they need.
            newest_first: Stretches from the newest down, as a chart draws them.
            progress: Called with a `Progress` after each page and each change of state.

        Raises:
            InvalidRequestError: the call is wrong; `UnknownSymbolError` (while iterating) for the
                symbol.
            TransportError: while iterating: the exchange was not reached for half a minute.
        """
        self._check_running()
        parsed = Timeframe.parse(timeframe)
        check_priority(priority)
        check_flag("newest_first", newest_first)
        check_callback("progress", progress)
        if not isinstance(symbol, str):
            check_symbol(symbol, ())
        if start_time is None:
            raise InvalidRequestError("start_time must be given: the first open time of the range")
        interval = self._interval(start_time, end_time, None)
        assert interval.start_ms is not None
        request = BackboneRequest(
            DataType.CANDLE,
            (symbol,),
            parsed,
            utc_datetime(interval.start_ms),
            None if interval.end_ms is None else utc_datetime(interval.end_ms),
            priority=priority,
            max_age=priority.max_age_s,
        )
        return ChunkStream(
            request,
            self._coordinator.chunks,
            newest_first=newest_first,
            on_progress=progress,
            check=lambda: self._check_candle_symbol(symbol, Priority.LOW),
            check_running=self._check_open,
            loop=self._loop,
            loads=self._loads,
        )

    async def get_indicator(
        self,
        symbol: str,
        name: str,
        *,
        timeframe: str | Timeframe = "1m",
        priority: Priority = Priority.NORMAL,
        count: int = DEFAULT_VALUES,
        closed_only: bool = False,
        timeout: float | None = None,
        **parameters: Any,
    ) -> IndicatorSeries:
        """The latest values of an indicator of closes; ``float(answer)`` is the newest one.

        It is computed of candles that exist, with so many before the first value that more
        would not change it; a market that is younger has fewer values, or NaN. The newest
        value is the forming candle's.

        Args:
            symbol: Market code.
            name: ``"RSI"`` or ``"SMA"``.
            timeframe: As `get_candle_data`.
            priority: Who goes first.
            count: How many values, 1 to 10,000.
            closed_only: Leave out the forming candle.
            timeout: As `get_candle_data`.
            parameters: ``period``: 2 to 10,000 (RSI, by default 14), 1 to 10,000 (SMA, 20).

        Raises:
            InvalidRequestError: no such indicator or parameter; the message names the nearest.
            As `get_candle_data`, whose candles are in ``error.partial``.
        """
        check_values(count)
        needed = candles_needed(name, count, **parameters)
        candles = await self.get_candle_data(
            symbol,
            timeframe,
            priority=priority,
            count=needed,
            closed_only=closed_only,
            timeout=timeout,
        )
        return compute(name, candles, **parameters)[-count:]

    async def get_markets(self) -> tuple[Market, ...]:
        """What the exchange lists, in its order; the list stored last while it is not reached.

        Raises:
            TransportError: not reached, and none is stored.
        """
        self._check_running()
        return await self._take_list(MARKETS_TTL_S)

    def get_system_status(self) -> SystemStatus:
        """Where the data comes from and how every layer is doing, now."""
        self._check_open()
        return self._system_status()

    def get_performance_metrics(self) -> PerformanceMetrics:
        """Latencies, rates, load and counters, now."""
        self._check_open()
        return self._monitor.figures()

    def get_system_events(self, since: int = 0) -> tuple[SystemEvent, ...]:
        """What happened lately, oldest first: gaps, blocks, reconnects, health, load, alerts.

        Args:
            since: Number of the newest event known already; 0 for all that are kept (1,000).
        """
        self._check_open()
        check_number("since", since)
        return self._monitor.events.since(since)

    def report_frame_time(self, taken_s: float) -> None:
        """Tell how long a screen took for a frame, seconds; it is shown among the figures.

        After `close` it means nothing, and is no error: a screen goes later than its service.

        Raises:
            InvalidRequestError: not 0 to 1,000,000 seconds.
        """
        check_seconds("taken_s", taken_s)
        self._monitor.frames.drawn(taken_s, self._now())

    def screen_interval_s(self, shortest_s: float) -> float:
        """How far apart a screen is to show what has changed: longer under load, up to four times.

        Args:
            shortest_s: Seconds, without load.

        Raises:
            InvalidRequestError: not 0 to 1,000,000 seconds.
        """
        check_seconds("shortest_s", shortest_s)
        return self._monitor.load.conflation_s(shortest_s)

    def oldest_wait_s(self, now: float) -> dict[Priority, float]:
        """How long the oldest CRITICAL and HIGH call has waited for others to end."""
        return self._calls.waits.oldest_s(now)

    @property
    def event_bus(self) -> EventBusIntegration:
        """Requests by number, system events, and the throttle of LOW."""
        return self._bus

    def status(self) -> LayerStatus:
        """This layer's own state."""
        health: Health = "healthy"
        reason = ""
        if self._loop is None:
            health, reason = "down", "not running"
        elif self._bus.failure:
            health, reason = "degraded", self._bus.failure
        elif self._monitor.failure:
            health, reason = "degraded", self._monitor.failure
        counters = {
            "requests": float(self._monitor.calls.requests),
            "errors": float(self._monitor.calls.errors),
        } | self._bus.counters
        for priority in LANES:
            in_work, waiting = self._loads.count(priority)
            counters[f"{priority.name.lower()}_in_work"] += in_work
            counters[f"{priority.name.lower()}_waiting"] += waiting
        return LayerStatus("layer_4", health, reason, utc_datetime(self._since_ms), counters)

    async def _latest(
        self,
        data_type: DataType,
        symbol: str,
        priority: Priority,
        depth: int,
        level: float,
        max_age: float | None,
        timeout: float | None,
        with_metadata: bool,
    ) -> Any:
        started = self._clock.monotonic()
        self._check_call(priority, timeout, with_metadata)
        check_max_age(max_age)
        await self._check_symbol(data_type, symbol, priority, timeout)
        max_age_s = priority.max_age_s if max_age is None else max_age
        if level == 0:
            value = self._router.peek(data_type, symbol, None, None, None, None, max_age_s, started)
            if value is not None:
                age_s = self._router.peek_age_s(data_type, symbol, None, None, started)
                metadata = self._hit(data_type, 1, priority, started, "layer_1", age_s)
                if data_type is DataType.ORDERBOOK:
                    value = value.trimmed(depth)
                return (value, metadata) if with_metadata else value

        def refusal(response: BackboneResponse) -> BackboneError | None:
            if not response.data:
                return DataUnavailableError(
                    f"{symbol} has no {data_type.value} (level {level:g}): use a level that the"
                    " exchange offers for it, or 0"
                )
            age_s = response.metadata.age_s
            if age_s is None or age_s <= max_age_s:
                return None
            return StaleDataError(
                f"the newest {data_type.value} of {symbol} is {age_s:.1f} s old, expected at most"
                f" {max_age_s:g} s: raise max_age, or try again"
            )

        response = await self._ask(
            BackboneRequest(
                data_type,
                (symbol,),
                priority=priority,
                max_age=max_age_s,
                depth=depth,
                level=level,
            ),
            timeout,
            started,
            refusal,
        )
        refused = refusal(response)
        if refused is not None:
            raise refused
        return (response.data[0], response.metadata) if with_metadata else response.data[0]

    def _hit(
        self,
        data_type: DataType,
        count: int,
        priority: Priority,
        started: float,
        layer: str,
        age_s: float | None,
    ) -> BackboneMetadata:
        """Tell of an answer from memory."""
        now = self._clock.monotonic()
        self._monitor.calls.hits_of(data_type)[priority](now - started)
        return BackboneMetadata(
            source_layer=layer,
            cache_hit=True,
            processing_time_ms=(now - started) * 1_000,
            data_count=count,
            priority_used=priority,
            source="cache",
            age_s=age_s,
            path="peek",
            reason="memory is fresh enough",
        )

    async def _ask(
        self,
        request: BackboneRequest,
        timeout: float | None,
        started: float,
        refusal: Refusal,
    ) -> BackboneResponse:
        """Send a request down, within its deadline."""
        self._check_running()
        limit_s = _limit_s(request.priority, timeout)
        return await self._calls.ask(request, limit_s, started, refusal)

    def _stream(
        self, data_type: DataType, symbol: str, timeframe: Timeframe | None, policy: Policy
    ) -> Stream:
        self._check_running()
        check_choice("policy", policy, ("latest", "all"))
        if not isinstance(symbol, str):
            check_symbol(symbol, ())
        request = BackboneRequest(
            data_type, (symbol,), timeframe, priority=Priority.HIGH, policy=policy
        )
        return Stream(
            partial(self._coordinator.subscribe, request),
            check=partial(self._is_listed, symbol, self._now()),
            check_running=self._check_running,
            tells_gaps_of=symbol if policy == "all" and data_type in _WITHOUT_HOLES else None,
            now_ms=self._clock.now_ms,
            loop=self._loop,
        )

    def _is_listed(self, symbol: str, asked_s: float) -> bool:
        """Whether a symbol is known to be listed; a list that is old, or is none, is renewed.

        Args:
            symbol: Market code.
            asked_s: When that was asked first, by the monotonic clock.

        Raises:
            UnknownSymbolError: it is not.
            TransportError: an old list does not have it: that is not known yet.
        """
        if symbol in self._listed:
            return True
        if not (self._is_old(asked_s) and may_be_listed(symbol)):
            check_symbol(symbol, self._listed)
        self._renew_list()
        if self._listed:
            why = "" if self._list_failure is None else f": {self._list_failure}"
            raise TransportError(f"the exchange is asked whether it lists {symbol} by now{why}")
        return False

    def _is_old(self, asked_s: float) -> bool:
        """Whether the list may lack what was listed by then, by the monotonic clock."""
        return asked_s - self._listed_s > LIST_IS_NEW_S

    async def _take_list(self, max_age_s: float) -> tuple[Market, ...]:
        try:
            listing = await self._coordinator.markets(max_age_s=max_age_s)
        except BackboneError as error:
            self._list_failure = error
            raise
        self._listed = {market.symbol: market for market in listing.markets}
        self._listed_s, self._list_failure = listing.asked_s, listing.error
        return listing.markets

    def _renew_list(self) -> None:
        if self._now() >= self._list_again_s:
            self._list_again_s = float("inf")
            self._tasks.spawn(self._ask_for_list(), name="list of markets")

    async def _ask_for_list(self) -> None:
        try:
            await self._take_list(LIST_IS_NEW_S)
        except BackboneError as error:
            logger.info("what the exchange lists is not known: %s", error)
        finally:
            self._list_again_s = self._now() + LIST_AGAIN_S

    @staticmethod
    def _check_call(priority: Priority, timeout: float | None, with_metadata: bool) -> None:
        """What all calls have in common."""
        check_priority(priority)
        check_timeout(timeout)
        check_flag("with_metadata", with_metadata)

    async def _check_symbol(
        self,
        data_type: DataType,
        symbol: str,
        priority: Priority,
        timeout: float | None = None,
    ) -> None:
        """Refuse what is known not to be listed; what an old list lacks is asked for.

        Raises:
            UnknownSymbolError: it is not listed.
            TransportError: the exchange was not reached, and its last list does not have it.
            DeadlineError: that was not known in time.
        """
        self._check_running()
        if not isinstance(symbol, str):
            check_symbol(symbol, ())
        if symbol in self._listed:
            return
        if self._listed and may_be_listed(symbol):
            limit_s, asked_s = _limit_s(priority, timeout), self._now()
            try:
                async with asyncio.timeout(limit_s) as deadline:
                    await self._take_list(LIST_IS_NEW_S)
            except TimeoutError as error:
                self._monitor.calls.failed(priority, data_type, "markets", type(error).__name__)
                if not deadline.expired():
                    raise
                raise DeadlineError(
                    f"whether {symbol} is listed was not known within {limit_s:g} s: try again, or"
                    " give a longer timeout"
                ) from error
            if symbol not in self._listed and self._is_old(asked_s):
                self._monitor.calls.failed(priority, data_type, "markets", "TransportError")
                raise TransportError(
                    f"whether {symbol} is listed is not known, the last list does not have it and"
                    f" the exchange gives no newer one: {self._list_failure or 'it came empty'}"
                ) from self._list_failure
        check_symbol(symbol, self._listed)

    async def _check_candle_symbol(
        self, symbol: str, priority: Priority, timeout: float | None = None
    ) -> None:
        """Of a market that is listed no more, or was stored before, what is stored can be had."""
        try:
            await self._check_symbol(DataType.CANDLE, symbol, priority, timeout)
        except (UnknownSymbolError, TransportError):
            if not self._is_stored(symbol):
                raise

    def _interval(
        self, start_time: datetime | None, end_time: datetime | None, count: int | None
    ) -> Interval:
        return check_interval(
            start_time,
            end_time,
            count,
            now_ms=self._clock.now_ms(),
            default_count=DEFAULT_COUNT,
        )

    def _closed_only(self, interval: Interval, timeframe: Timeframe) -> Interval:
        closed_ms = timeframe.floor_ms(self._clock.now_ms() - CLOSE_GRACE_MS)
        end_ms = closed_ms if interval.end_ms is None else min(interval.end_ms, closed_ms)
        return interval._replace(end_ms=end_ms)

    @staticmethod
    def _filled(
        series: CandleSeries, interval: Interval, metadata: BackboneMetadata, asked_ms: int
    ) -> CandleSeries:
        if not len(series):
            return series
        timeframe = series.timeframe
        # What is not among the answer's candles did not exist when that was read, and of a
        # period that was not over for long by then nothing is certain.
        read_ms = asked_ms - int((metadata.age_s or 0.0) * SECOND_MS)
        end_ms = timeframe.floor_ms(read_ms - CERTAIN_AFTER_MS)
        if interval.end_ms is not None:
            end_ms = min(end_ms, timeframe.ceil_ms(interval.end_ms))
        if interval.start_ms is not None and interval.limit is not None:
            end_ms = min(end_ms, timeframe.next_ms(int(series.time[-1])))
        start_ms = int(series.time[0]) if interval.start_ms is None else interval.start_ms
        # Who is listed no more cannot have been traded: that is no flat market.
        gone = tuple(span for span in metadata.silent if span.state == "after_delisting")
        return fill_known(series, start_ms, end_ms, (*metadata.missing, *gone))

    def _check_open(self) -> None:
        if self._loop is None:
            raise ClosedError("the market-data service is closed: open a new one")

    def _check_running(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:  # none: somebody calls from outside of a coroutine
            running = None
        if running is self._loop and running is not None:
            return
        self._check_open()
        raise other_loop()


async def create_default_api() -> MarketDataAPI:
    """As `MarketDataAPI.create_default`."""
    return await MarketDataAPI.create_default()


async def create_configured_api(path: str | Path) -> MarketDataAPI:
    """As `MarketDataAPI.create_configured_api`."""
    return await MarketDataAPI.create_configured_api(path)


IMarketDataAPI = MarketDataAPI
"""The name that earlier programs know it by."""


def _limit_s(priority: Priority, timeout: float | None) -> float | None:
    """How long a call may take; None: as long as it takes."""
    return priority.deadline_s if timeout is None else timeout


def _given(_: BackboneResponse) -> None:
    """Whatever there is of an answer is given."""


def _incomplete(response: BackboneResponse) -> BackboneError | None:
    """Why an answer that lacks something is not given."""
    return response.error


def _with_partial(
    error: BackboneError, partial: CandleSeries | list[Trade], metadata: BackboneMetadata
) -> BackboneError:
    error.partial, error.missing = partial, metadata.missing
    return error
