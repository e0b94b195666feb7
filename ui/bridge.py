"""The only place where asyncio and Qt meet.

Widgets call plain methods and get Qt signals with frozen values; behind them run named
tasks of the bridge, each of which is awaited when it closes. However many messages
arrive, a signal is emitted at most once a frame: of tickers the newest per symbol, of a
forming candle its last state, of trades all together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID, uuid4

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from ui.candle_update import CandleUpdate
from upbit_backbone import (
    BackboneError,
    BackboneMetadata,
    Candle,
    CandleSeries,
    Gap,
    Market,
    MarketDataAPI,
    Orderbook,
    PerformanceMetrics,
    Priority,
    SystemStatus,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.clock import Clock, SystemClock, epoch_ms, utc_datetime
from upbit_backbone.protocol import SystemEvent

logger = logging.getLogger(__name__)

FIRST_CANDLES = 400
"""A chart opens with two pages, which the exchange answers at once beside a backfill."""
PAGE_CANDLES = 200
"""As many as one request to the exchange gives: drawn as soon as they are there."""
RECENT_TRADES = 50
_ENOUGH_STORED = 50
"""Fewer stored candles are not worth a picture that is another one a moment later."""
_MOST_LOADED_SINCE = 10_000
"""Candles that ended longer ago are not shown before the exchange answers: what came since takes
too long to load."""
_LEAD_S = 1.5
_CLOSE_WITHIN_S = 3.0
_STATUS_EVERY_S = 1.0
_UNSEEN_FIGURES_EVERY_S = 5.0
"""For the plots, which show what was before somebody looked: putting all figures together takes
the service some milliseconds."""
_MARKETS_RETRY_S = 3.0
_LOADS = ("history", "reload", "rest ")
"""How the tasks are called that load candles of the chart."""
_NOTICED_AFTER_MS = 30_000
"""A lost connection was seen as lost at the latest so long after it broke."""
_UNCONFIRMED = "unconfirmed"
"""The exchange showed nothing there, once: at a chart that is the start of history."""
_PROBE_EVERY_S = 3.0
_PROBE_TIMEOUT_S = 15.0
"""Longer than the service itself waits for an answer: what it learns by that must not be lost."""
_PROBE_MAX_AGE_S = 1.0

Occasion = Literal["candles", "history", "markets", "stream"]


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Something that was asked for could not be had, wholly or in part."""

    occasion: Occasion
    symbol: str
    error: BackboneError | None
    """None: it was had in part, and `reason` says what is missing."""
    reason: str
    request_id: UUID | None


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """How the candles of a request came about."""

    symbol: str
    timeframe: Timeframe
    metadata: BackboneMetadata
    request_id: UUID
    occasion: Occasion = "candles"

    @property
    def complete(self) -> bool:
        """Whether nothing failed: what may lie before the first candle counts as nothing."""
        return not self.metadata.missing or self.metadata.reason == _UNCONFIRMED


class BackboneBridge(QObject):
    """Carries market data from the service to widgets, and their wishes back."""

    candleReady = Signal(object)  # CandleUpdate
    tickerUpdated = Signal(object)  # tuple[Ticker, ...], newest per symbol
    tradesReceived = Signal(object)  # tuple[Trade | Gap, ...], all of them, as they came
    orderbookUpdated = Signal(object)  # tuple[Orderbook, ...], newest per symbol
    statusChanged = Signal(object)  # SystemStatus
    metricsUpdated = Signal(object)  # PerformanceMetrics
    eventsHappened = Signal(object)  # tuple[SystemEvent, ...], oldest first, each once
    marketsReady = Signal(object)  # tuple[Market, ...]
    requestAnswered = Signal(object)  # RequestAnswer
    requestFailed = Signal(object)  # RequestFailure
    statusFailed = Signal(str)
    """Why the service cannot tell how it is doing; empty: it can again."""

    def __init__(
        self, *, frame_ms: int = 16, clock: Clock | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._clock = clock or SystemClock()
        self._api: MarketDataAPI | None = None
        self._closed = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._chart: tuple[str, Timeframe] | None = None
        self._first_load: UUID | None = None
        self._newest_loads = 0
        self._hole_ms: int | None = None
        """From here on candles of the chart may lack, up to those that came after a break."""
        self._drawn = False
        """Candles of the chart have been loaded."""
        self._probed_s: float | None = None
        self._watched: tuple[str, ...] = ()
        self._lead_seen = asyncio.Event()
        self._detail = ""
        self._status: SystemStatus | None = None
        self._status_fault = ""
        self._metrics: PerformanceMetrics | None = None
        self.figures_seen = False
        """Whether somebody looks at the service's figures."""
        self._figures_s: float | None = None
        self._last_event = 0

        self._loads: deque[CandleUpdate] = deque()
        self._live: dict[int, Candle] = {}
        self._tickers: dict[str, Ticker] = {}
        self._trades: list[Trade | Gap] = []
        self._orderbooks: dict[str, Orderbook] = {}
        self._events: list[SystemEvent] = []
        self._answers: deque[RequestAnswer] = deque()
        self._failures: deque[RequestFailure] = deque()
        self._changed_status: SystemStatus | None = None
        self._frame_ms = frame_ms
        """Between two frames, while there is no load."""
        self._frame = QTimer(
            self, singleShot=True, interval=frame_ms, timerType=Qt.TimerType.PreciseTimer
        )
        self._frame.timeout.connect(self._flush)

    # What widgets ask for

    def show_candles(self, symbol: str, timeframe: Timeframe) -> UUID:
        """Load the newest candles of a series and follow it; the one before is let go.

        May be called before `attach`: it then happens as soon as there is a service.
        """
        self._chart = (symbol, timeframe)
        self._live.clear()
        self._loads.clear()
        self._failures = deque(one for one in self._failures if one.occasion == "markets")
        self._hole_ms, self._drawn = None, False
        for name in [name for name in self._tasks if name.startswith(_LOADS)]:
            self._end(name)
        request_id = self._first_load = uuid4()
        if self._api is not None:
            self._start("chart", self._follow_chart(self._api, symbol, timeframe, request_id))
        return request_id

    def load_older(self, symbol: str, timeframe: Timeframe, before_ms: int, count: int) -> UUID:
        """Load the `count` candles before a moment, the newest page first.

        A load of older ones under way is dropped.
        """
        request_id = uuid4()
        if self._api is not None:
            self._start(
                "history",
                self._load_older(self._api, symbol, timeframe, before_ms, count, request_id),
            )
        return request_id

    def watch_tickers(self, symbols: Iterable[str]) -> None:
        """Follow the tickers of these symbols, and of no others.

        The first is the one on the chart: at the start the others wait for its price, which
        is there sooner when nobody else asks.
        """
        self._watched = tuple(dict.fromkeys(symbols))
        if self._api is None:
            return
        wanted = {_ticker_task(symbol) for symbol in self._watched}
        for name in [name for name in self._tasks if name.startswith("ticker ")]:
            if name not in wanted:
                self._end(name)
        for symbol in self._watched:
            if _ticker_task(symbol) not in self._tasks:
                self._start(_ticker_task(symbol), self._follow_ticker(self._api, symbol))

    def watch_detail(self, symbol: str) -> None:
        """Follow the trades and the order book of one symbol."""
        self._detail = symbol
        self._trades.clear()
        self._orderbooks.clear()
        if self._api is not None and symbol:
            self._start("trades", self._follow_trades(self._api, symbol))
            self._start("orderbook", self._follow_orderbook(self._api, symbol))

    def watch_figures(self, seen: bool) -> None:
        """Ask for the service's figures once a second while somebody sees them."""
        self.figures_seen = seen

    def report_frame(self, taken_ms: float) -> None:
        """Tell the service how long a frame of the chart took."""
        if self._api is not None:
            self._api.report_frame_time(taken_ms / 1_000)

    # Life

    def attach(self, api: MarketDataAPI) -> None:
        """Begin to serve from this service; what was asked for before is done now."""
        self._api = api
        self._start("status", self._poll_status(api))
        self._start("markets", self._load_markets(api))
        if self._chart is not None and self._first_load is not None:
            self._start("chart", self._follow_chart(api, *self._chart, self._first_load))
        self.watch_tickers(self._watched)
        self.watch_detail(self._detail)

    async def close(self) -> None:
        """End every task and wait for it; no signal is emitted afterwards. May be called twice."""
        self._closed = True
        self._frame.stop()
        for name in list(self._tasks):
            self._end(name)
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=_CLOSE_WITHIN_S)
            for task in late:
                logger.error("task %s did not end within %g s", task.get_name(), _CLOSE_WITHIN_S)
        self._api = None

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as the task `name`, in place of the one that has the name."""
        self._end(name)
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=f"bridge {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None and not task.done():
            task.cancel()
            self._ending.add(task)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("task %s failed", task.get_name(), exc_info=error)

    # Tasks

    async def _follow_chart(
        self, api: MarketDataAPI, symbol: str, timeframe: Timeframe, request_id: UUID
    ) -> None:
        try:
            # The stream first: what happens while the history loads is then not lost.
            async with api.stream_candles(symbol, timeframe, policy="all") as stream:
                await self._load_newest(api, symbol, timeframe, request_id)
                async for value in stream:
                    if isinstance(value, Candle):
                        self._live[epoch_ms(value.open_time)] = value
                        self._wake()
        except BackboneError as exc:
            self._fail(RequestFailure("stream", symbol, exc, str(exc), request_id))

    async def _load_newest(
        self, api: MarketDataAPI, symbol: str, timeframe: Timeframe, request_id: UUID
    ) -> None:
        loads_before = self._newest_loads
        if not self._drawn:
            await self._show_stored(api, symbol, timeframe)
        try:
            series, metadata = await api.get_candle_data(
                symbol, timeframe, count=PAGE_CANDLES, with_metadata=True
            )
        except BackboneError as exc:
            if self._newest_loads != loads_before:
                # Asked for before the connection broke; what it wanted was loaded since.
                logger.info("an older load of %s came to nothing: %s", symbol, exc)
                return
            self._fail(RequestFailure("candles", symbol, exc, str(exc), request_id))
            return
        answer = RequestAnswer(symbol, timeframe, metadata, request_id)
        rest: Coroutine[Any, Any, None] | None = None
        if answer.complete and len(series):
            oldest_ms = int(series.time[0])
            if not self._drawn and len(series) == PAGE_CANDLES:
                left = FIRST_CANDLES - PAGE_CANDLES
                rest = self._load_older(api, symbol, timeframe, oldest_ms, left, request_id)
            elif self._hole_ms is not None and self._hole_ms < oldest_ms:
                rest = self._close_hole(
                    api, symbol, timeframe, self._hole_ms, oldest_ms, request_id
                )
            else:
                self._hole_ms = None
        elif self._hole_ms is None:
            # The newest stored ones, or a part: what comes after them, or between, is loaded later.
            self._hole_ms = _first_hole_ms(series, metadata)
        self._loaded(answer, series, more_follows=rest is not None)
        if rest is not None:
            # A task of its own, under a name of its own: the live candle does not wait for it,
            # and another load does not end it.
            self._start(f"rest {request_id}", rest)

    async def _show_stored(self, api: MarketDataAPI, symbol: str, timeframe: Timeframe) -> None:
        """Show at once what is stored; what came after it follows when the exchange answers."""
        try:
            series, _ = await api.get_stored_candles(symbol, timeframe, count=FIRST_CANDLES)
        except BackboneError as exc:
            logger.info("stored candles of %s: %s", symbol, exc)
            return
        if len(series) < _ENOUGH_STORED or (symbol, timeframe) != self._chart:
            return
        newest_ms = int(series.time[-1])
        if self._clock.now_ms() - newest_ms > _MOST_LOADED_SINCE * timeframe.typical_ms:
            return
        self._hole_ms = newest_ms
        self._take(CandleUpdate(symbol, timeframe, series, "loaded", None))

    async def _load_older(
        self,
        api: MarketDataAPI,
        symbol: str,
        timeframe: Timeframe,
        before_ms: int,
        count: int,
        request_id: UUID,
    ) -> None:
        """The newest page is given when it is there; all others are then asked for at once."""
        asked = min(count, PAGE_CANDLES)
        more = True
        while more:
            before = utc_datetime(before_ms)
            try:
                series, metadata = await api.get_candle_data(
                    symbol, timeframe, None, before, count=asked, with_metadata=True
                )
            except BackboneError as exc:
                reason = f"no candles of {symbol} {timeframe} before {before:%Y-%m-%d %H:%M} UTC"
                failure = f"{reason}: {exc}"
                self._fail(RequestFailure("history", symbol, exc, failure, request_id))
                return
            answer = RequestAnswer(symbol, timeframe, metadata, request_id, "history")
            count -= asked
            more = count > 0 and answer.complete and len(series) == asked
            self._loaded(answer, series, more_follows=more)
            if more:
                before_ms, asked = int(series.time[0]), count

    async def _close_hole(
        self,
        api: MarketDataAPI,
        symbol: str,
        timeframe: Timeframe,
        from_ms: int,
        before_ms: int,
        request_id: UUID,
    ) -> None:
        """Load what happened during a break, from the newest down, however long it was."""
        start, end = utc_datetime(from_ms), utc_datetime(before_ms)
        chunks = api.iter_candle_chunks(
            symbol, timeframe, start, end, Priority.NORMAL, newest_first=True
        )
        try:
            async for series in chunks:
                self._take(CandleUpdate(symbol, timeframe, series, "loaded", request_id, True))
        except BackboneError as exc:
            reason = f"candles of {symbol} {timeframe} after {start:%Y-%m-%d %H:%M} UTC are missing"
            failure = f"{reason}: {exc}"
            self._fail(RequestFailure("history", symbol, None, failure, request_id))
        else:
            if self._hole_ms == from_ms:
                self._hole_ms = None
        finally:
            chunks.cancel()

    async def _follow_ticker(self, api: MarketDataAPI, symbol: str) -> None:
        if symbol != self._watched[0]:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAD_S):
                    await self._lead_seen.wait()
        try:
            async with api.stream_ticker(symbol) as stream:
                async for ticker in stream:
                    self._tickers[symbol] = ticker
                    self._lead_seen.set()
                    self._wake()
        except BackboneError as exc:
            self._lead_seen.set()
            self._fail(RequestFailure("stream", symbol, exc, str(exc), None))

    async def _follow_trades(self, api: MarketDataAPI, symbol: str) -> None:
        try:
            async with api.stream_trades(symbol, policy="all") as stream:
                recent = await self._recent_trades(api, symbol)
                known = {trade.sequential_id for trade in recent}
                self._trades.extend(recent)
                async for value in stream:
                    if isinstance(value, Gap) or value.sequential_id not in known:
                        self._trades.append(value)
                        self._wake()
        except BackboneError as exc:
            self._fail(RequestFailure("stream", symbol, exc, str(exc), None))

    async def _recent_trades(self, api: MarketDataAPI, symbol: str) -> list[Trade]:
        """The trades before the stream; without them it is followed all the same."""
        try:
            recent: list[Trade] = await api.get_trade_data(symbol, count=RECENT_TRADES)
        except BackboneError as exc:
            logger.info("recent trades of %s: %s", symbol, exc)
            return []
        return recent

    async def _follow_orderbook(self, api: MarketDataAPI, symbol: str) -> None:
        try:
            async with api.stream_orderbook(symbol) as stream:
                async for orderbook in stream:
                    self._orderbooks[symbol] = orderbook
                    self._wake()
        except BackboneError as exc:
            self._fail(RequestFailure("stream", symbol, exc, str(exc), None))

    async def _load_markets(self, api: MarketDataAPI) -> None:
        """Ask for the list of markets until it is there; offline that may take a while."""
        told = False
        while True:
            try:
                markets: tuple[Market, ...] = await api.get_markets()
            except BackboneError as exc:
                if not told:
                    self._fail(RequestFailure("markets", "", exc, str(exc), None))
                told = True
                await asyncio.sleep(_MARKETS_RETRY_S)
            else:
                self.marketsReady.emit(markets)
                return

    async def _poll_status(self, api: MarketDataAPI) -> None:
        while True:
            try:
                self._take_status(api)
            except Exception as error:  # noqa: BLE001  whatever it is, the next second may do
                self._note_fault(error)
            else:
                self._note_fault(None)
            await asyncio.sleep(_STATUS_EVERY_S)

    def _note_fault(self, fault: Exception | None) -> None:
        """Say once that the service cannot be asked how it is doing, and that it can again."""
        kind = "" if fault is None else type(fault).__name__
        if kind == self._status_fault:
            return
        self._status_fault = kind
        if fault is None:
            logger.info("the service can be asked again how it is doing")
            self.statusFailed.emit("")
        else:
            logger.error("the service cannot be asked how it is doing", exc_info=fault)
            self.statusFailed.emit(f"{kind}: {fault}")

    def _take_status(self, api: MarketDataAPI) -> None:
        status = api.get_system_status()
        before, self._status = self._status, status
        if before is not None and before.connection != "live" and status.connection == "live":
            self._reload()
        if before is not None and before.connection == "live" and status.connection != "live":
            self._note_break()
        if status != before:
            self._changed_status = status
        if status.connection != "live":
            self._probe_now_and_then(api)
        self._wake()  # first, so that figures which cannot be had hold nothing back
        self._take_figures(api)

    def _take_figures(self, api: MarketDataAPI) -> None:
        now_s = self._clock.monotonic()
        due_s = 0.0 if self._figures_s is None else self._figures_s + _UNSEEN_FIGURES_EVERY_S
        if self.figures_seen or now_s >= due_s:
            self._figures_s = now_s
            self._metrics = api.get_performance_metrics()
            new = api.get_system_events(self._last_event)
            if new:
                self._last_event = new[-1].number
                self._events.extend(new)

    def _probe_now_and_then(self, api: MarketDataAPI) -> None:
        """While the stream is gone: does the exchange still answer requests?

        Nobody else may be asking, and only a request tells "offline" from "connecting".
        """
        now_s = self._clock.monotonic()
        due = self._probed_s is None or now_s - self._probed_s >= _PROBE_EVERY_S
        if due and "probe" not in self._tasks and self._chart is not None:
            self._probed_s = now_s
            self._start("probe", self._probe(api, self._chart[0]))

    async def _probe(self, api: MarketDataAPI, symbol: str) -> None:
        try:
            ticker: Ticker = await api.get_ticker_data(
                symbol, Priority.HIGH, max_age=_PROBE_MAX_AGE_S, timeout=_PROBE_TIMEOUT_S
            )
        except BackboneError as exc:
            logger.info("the exchange was asked for %s: %s", symbol, exc)
        else:
            self._tickers[symbol] = ticker
            self._wake()

    def _note_break(self) -> None:
        """The connection is lost: the candle of a little before is the first that may lack."""
        if self._chart is not None and self._drawn and self._hole_ms is None:
            _, timeframe = self._chart
            self._hole_ms = timeframe.floor_ms(self._clock.now_ms() - _NOTICED_AFTER_MS)

    def _reload(self) -> None:
        """The connection is back: what was missed meanwhile is asked for."""
        if self._api is None or self._chart is None:
            return
        if "chart" in self._tasks:
            self._start("reload", self._load_newest(self._api, *self._chart, uuid4()))
        else:
            self._start("chart", self._follow_chart(self._api, *self._chart, uuid4()))
        self.watch_tickers(self._watched)
        if "trades" not in self._tasks:
            self.watch_detail(self._detail)

    # From tasks to signals

    def _loaded(self, answer: RequestAnswer, series: CandleSeries, *, more_follows: bool) -> None:
        key, request_id = (answer.symbol, answer.timeframe), answer.request_id
        if key != self._chart:
            return
        if not answer.complete:
            reason = answer.metadata.reason
            self._fail(RequestFailure(answer.occasion, answer.symbol, None, reason, request_id))
        elif answer.occasion == "candles":
            self._newest_loads += 1
        self._answers.append(answer)
        if len(series) or answer.complete:
            self._take(CandleUpdate(*key, series, "loaded", request_id, more_follows))
        self._wake()

    def _take(self, update: CandleUpdate) -> None:
        """Show candles; parts of one answer that come within a frame are shown together."""
        self._drawn |= len(update.series) > 0
        if self._loads and self._loads[-1].request_id == update.request_id:
            newer = self._loads.pop().series
            merged = CandleSeries.merged([update.series, newer])
            update = replace(update, series=merged)
        self._loads.append(update)
        self._wake()

    def _fail(self, failure: RequestFailure) -> None:
        logger.info("%s of %s: %s", failure.occasion, failure.symbol, failure.reason)
        self._failures.append(failure)
        self._wake()

    def _wake(self) -> None:
        if not self._closed and not self._frame.isActive():
            self._frame.start(self._next_frame_ms())

    def _next_frame_ms(self) -> int:
        """A screen gives way first: under load it shows what has changed less often."""
        if self._api is None:
            return self._frame_ms
        return round(self._api.screen_interval_s(self._frame_ms / 1_000) * 1_000)

    def _flush(self) -> None:
        """Emit what has gathered, each signal once; what is left over has the next frame."""
        if self._loads:
            self.candleReady.emit(self._loads.popleft())
        elif self._live and self._chart is not None:
            self.candleReady.emit(self._live_update(*self._chart))
        if self._tickers:
            tickers, self._tickers = tuple(self._tickers.values()), {}
            self.tickerUpdated.emit(tickers)
        if self._trades:
            trades, self._trades = tuple(self._trades), []
            self.tradesReceived.emit(trades)
        if self._orderbooks:
            orderbooks, self._orderbooks = tuple(self._orderbooks.values()), {}
            self.orderbookUpdated.emit(orderbooks)
        if self._changed_status is not None:
            status, self._changed_status = self._changed_status, None
            self.statusChanged.emit(status)
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            self.metricsUpdated.emit(metrics)
        if self._events:
            events, self._events = tuple(self._events), []
            self.eventsHappened.emit(events)
        if self._answers:
            self.requestAnswered.emit(self._answers.popleft())
        if self._failures:
            self.requestFailed.emit(self._failures.popleft())
        if self._loads or self._live or self._answers or self._failures:
            self._wake()

    def _live_update(self, symbol: str, timeframe: Timeframe) -> CandleUpdate:
        candles = [self._live[time] for time in sorted(self._live)]
        self._live.clear()
        newest = candles[-1]
        series = CandleSeries.from_rows(
            symbol,
            timeframe,
            [
                (epoch_ms(c.open_time), c.open, c.high, c.low, c.close, c.volume, c.value)
                for c in candles
            ],
            closed_before_ms=None if newest.closed else epoch_ms(newest.open_time),
            source="websocket",
            simulated=self._status is not None and self._status.simulated,
        )
        revised = any(candle.state in ("revised", "settled") for candle in candles)
        return CandleUpdate(symbol, timeframe, series, "revised" if revised else "live", None)


def _first_hole_ms(series: CandleSeries, metadata: BackboneMetadata) -> int | None:
    """Where the first stretch begins that is missing between candles or after them."""
    if not len(series):
        return None
    oldest_ms, newest_ms = int(series.time[0]), int(series.time[-1])
    starts = (epoch_ms(span.start) for span in metadata.missing if span.start is not None)
    return min((start for start in starts if start > oldest_ms), default=newest_ms)


def _ticker_task(symbol: str) -> str:
    return f"ticker {symbol}"
