"""An exchange in memory: one list of trades, from which REST pages and streams follow.

It implements `ExchangeAdapter` and `ExchangeSocket`. Faults are methods; waiting for
something to happen is `eventually`, for nothing here takes time.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import msgspec

from tests.manual_clock import AUTUMN_2025_MS
from tests.steered_loop import SteeredLoop
from upbit_backbone.clock import DAY_MS, SystemClock, epoch_ms, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.exchanges.upbit.websocket import PING_AFTER_S, PONG_WITHIN_S
from upbit_backbone.models import (
    CandleSeries,
    Level,
    Market,
    Orderbook,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.routing.exchange import StreamEvent, StreamKind

Value = Ticker | Trade | Orderbook | CandleSeries


class SteeredClock:
    """Wall time moves by hand, or with the loop's after `run`; monotonic time is the loop's.

    On a `SteeredLoop` waiting takes no time, else monotonic time is the machine's.
    """

    def __init__(self, now_ms: int = AUTUMN_2025_MS) -> None:
        self.wall_ms = now_ms
        self._runs_since_s: float | None = None

    def now_ms(self) -> int:
        if self._runs_since_s is None:
            return self.wall_ms
        return self.wall_ms + round((self.monotonic() - self._runs_since_s) * 1_000)

    def monotonic(self) -> float:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return SystemClock().monotonic()
        return loop.time() if isinstance(loop, SteeredLoop) else SystemClock().monotonic()

    def run(self) -> None:
        """From now on the wall clock goes with the monotonic one."""
        self._runs_since_s = self.monotonic()

    def advance(self, seconds: float) -> None:
        self.wall_ms += int(seconds * 1_000)


class Impatient(Random):
    """Never waits in a backoff, but notes how long it might have."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(1)
        self.delay_s = delay_s
        self.limits_s: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        self.limits_s.append(b)
        return self.delay_s


def make_trade(
    symbol: str, at_ms: int, sequential_id: int, price: float = 100.0, volume: float = 1.0
) -> Trade:
    at = utc_datetime(at_ms)
    return Trade(symbol, price, volume, "BUY", sequential_id, False, at, at, "websocket", False)


def make_ticker(symbol: str, price: float, at_ms: int = AUTUMN_2025_MS) -> Ticker:
    at = utc_datetime(at_ms)
    return Ticker(
        symbol=symbol,
        price=price,
        open=price,
        high=price,
        low=price,
        prev_close=price,
        change="EVEN",
        change_price=0.0,
        change_rate=0.0,
        trade_volume=1.0,
        trade_time=at,
        volume_today=1.0,
        value_today=price,
        volume_24h=1.0,
        value_24h=price,
        high_52w=price,
        high_52w_date=None,
        low_52w=price,
        low_52w_date=None,
        side=None,
        state=None,
        delisting_date=None,
        exchange_time=at,
        received_time=at,
        source="websocket",
        simulated=False,
    )


def make_book(symbol: str, rows: int = 30, at_ms: int = AUTUMN_2025_MS) -> Orderbook:
    at = utc_datetime(at_ms)
    asks = tuple(Level(101.0 + row, 1.0) for row in range(rows))
    bids = tuple(Level(100.0 - row, 1.0) for row in range(rows))
    return Orderbook(symbol, asks, bids, rows, rows, 0, at, at, "websocket", False)


def kind_of(value: Value) -> StreamKind:
    return StreamEvent(value, snapshot=False).kind


class FakeSocket:
    """Streams what its exchange executes; snapshots follow each subscription."""

    def __init__(self, exchange: FakeExchange) -> None:
        self._exchange = exchange
        self._arriving: asyncio.Queue[StreamEvent | BaseException] = asyncio.Queue()
        self._heard_s = exchange.clock.monotonic()
        self.messages: list[dict[StreamKind, frozenset[str]]] = []
        self.sent_at: list[float] = []
        """When each message was sent."""
        self.open = True
        self.deaf: set[tuple[StreamKind, str]] = set()
        """What is not streamed any more, though it was asked for."""
        self.half_open = False
        """Nothing arrives any more, not even a pong."""
        self.pings = 0

    async def subscribe(self, wanted: Mapping[StreamKind, Collection[str]]) -> None:
        await asyncio.sleep(0)
        if not self.open:
            raise TransportError("the connection is gone")
        self.messages.append({kind: frozenset(symbols) for kind, symbols in wanted.items()})
        self.sent_at.append(self._exchange.clock.monotonic())
        for kind, symbols in wanted.items():
            for symbol in sorted(symbols):
                value = self._exchange.newest(kind, symbol)
                if value is not None and not self._exchange.mute:
                    self.send(value, snapshot=True)

    async def events(self) -> AsyncIterator[StreamEvent]:
        while True:
            event = await self._arriving.get()
            while self._exchange.stalled:
                await self._exchange.resumed.wait()
            if isinstance(event, BaseException):
                self.open = False
                raise event
            self._heard_s = self._exchange.clock.monotonic()
            yield event

    async def watch(self, on_life: Callable[[], None]) -> None:
        """As `UpbitSocket` does it."""
        while True:
            silent_s = self._exchange.clock.monotonic() - self._heard_s
            if silent_s < PING_AFTER_S:
                await asyncio.sleep(PING_AFTER_S - silent_s)
                continue
            self.pings += 1
            if self.half_open:
                await asyncio.sleep(PONG_WITHIN_S)
                self.open = False
                raise TransportError("no pong")
            self._heard_s = self._exchange.clock.monotonic()
            on_life()

    def wants(self, kind: StreamKind, symbol: str) -> bool:
        return bool(self.messages) and symbol in self.messages[-1].get(kind, ())

    def send(self, value: Value, *, snapshot: bool = False) -> None:
        """Let a frame arrive, wanted or not."""
        if not self.half_open:
            self._arriving.put_nowait(StreamEvent(value, snapshot))

    def fail(self, error: BaseException) -> None:
        self._arriving.put_nowait(error)


class FakeExchange:
    """The whole exchange; `rest_calls`, `sockets` and `connected_at` tell what it was asked."""

    def __init__(self, clock: SteeredClock) -> None:
        self.clock = clock
        self.listed = ["KRW-BTC", "KRW-XRP", "KRW-DOGE"]
        self.untraded: set[str] = set()
        """Listed, and nobody ever traded them: they have no ticker."""
        self.asked_for: list[tuple[str, ...]] = []
        """The symbols of each REST call, in order."""
        self.executed: dict[str, list[Trade]] = {}
        self.values: dict[tuple[StreamKind, str], Value] = {}
        self.rest_calls: Counter[str] = Counter()
        self.rest_failures: deque[BackboneError] = deque()
        self.sockets: list[FakeSocket] = []
        self.connected_at: list[float] = []
        self.connect_failures: deque[Exception] = deque()
        self.mute = False
        """Subscriptions are not answered by snapshots."""
        self.deaf: set[tuple[StreamKind, str]] = set()
        """What new connections are not streamed, though they ask for it."""
        self.stalled = False
        self.resumed = asyncio.Event()
        self.rest_open = asyncio.Event()
        self.rest_open.set()
        self.rest_waiting = 0
        self.rest_down: BackboneError | None = None
        """Every REST call is answered so."""
        self.rest_lag_ms = 0
        """REST tells of a trade so long after the stream."""
        self.rest_hides: set[int] = set()
        """Trades that REST does not tell of."""
        self._ids = 0

    # What happens on the exchange.

    def trade(
        self,
        symbol: str = "KRW-BTC",
        price: float = 100.0,
        *,
        volume: float = 1.0,
        at_ms: int | None = None,
        streamed: bool = True,
    ) -> Trade:
        """Execute a trade and stream it, unless it is to be lost on the way."""
        self._ids += 1
        at_ms = self.clock.now_ms() if at_ms is None else at_ms
        trade = make_trade(symbol, at_ms, self._ids, price, volume)
        self.executed.setdefault(symbol, []).append(trade)
        if streamed:
            self._stream(trade)
        return trade

    def quote(self, value: Ticker | Orderbook | CandleSeries) -> None:
        """Change a ticker, a book or a candle and stream it."""
        self.values[kind_of(value), value.symbol] = value
        self._stream(value)

    def newest(self, kind: StreamKind, symbol: str) -> Value | None:
        if kind == "trade":
            executed = self.executed.get(symbol)
            return executed[-1] if executed else None
        return self.values.get((kind, symbol))

    @property
    def socket(self) -> FakeSocket:
        """The newest connection."""
        return self.sockets[-1]

    @property
    def subscribed(self) -> bool:
        return bool(self.sockets and self.socket.open and self.socket.messages)

    # Faults.

    def cut(self) -> None:
        """The connection is lost; whatever happens before the next one is not streamed."""
        for socket in self.sockets:
            if socket.open:
                socket.open = False
                socket.fail(TransportError("cut off"))

    def refuse_connect(self, times: int, error: Exception | None = None) -> None:
        self.connect_failures.extend([error or TransportError("refused")] * times)

    def fail_next(self, *errors: BackboneError) -> None:
        """Answer the next REST calls so."""
        self.rest_failures.extend(errors)

    def stall(self) -> None:
        """The connection stays, and nothing arrives any more."""
        self.stalled = True
        self.resumed.clear()

    def resume(self) -> None:
        self.stalled = False
        self.resumed.set()

    def hold_rest(self) -> None:
        """REST calls wait for `answer_rest`; their answers are made then."""
        self.rest_open.clear()

    def answer_rest(self) -> None:
        self.rest_open.set()

    # ExchangeAdapter.

    @property
    def reference(self) -> str:
        return "KRW-BTC"

    async def markets(self) -> tuple[Market, ...]:
        await self._asked("market")
        return tuple(Market(symbol, symbol, symbol) for symbol in self.listed)

    async def candles(
        self, symbol: str, timeframe: Timeframe, *, to_ms: int | None, count: int
    ) -> tuple[CandleSeries, int | None]:
        await self._asked("candles", symbol)
        rows: dict[int, list[float]] = {}
        stamps: dict[int, int] = {}
        trades = sorted(self.executed.get(symbol, []), key=lambda trade: trade.exchange_time)
        for trade in trades:
            at_ms, price, value = epoch_ms(trade.exchange_time), trade.price, trade.volume
            open_ms = timeframe.floor_ms(at_ms)
            if to_ms is not None and open_ms >= to_ms:
                continue
            row = rows.setdefault(open_ms, [open_ms, price, price, price, price, 0.0, 0.0])
            row[2:5] = max(row[2], price), min(row[3], price), price
            row[5:7] = row[5] + value, row[6] + price * value
            stamps[open_ms] = at_ms
        page = CandleSeries.from_rows(
            symbol,
            timeframe,
            [rows[open_ms] for open_ms in sorted(rows)][-count:],
            closed_before_ms=self.clock.now_ms(),
            source="rest",
            simulated=False,
        )
        return page, stamps[max(stamps)] if stamps else None

    async def tickers(self, symbols: Sequence[str]) -> tuple[Ticker, ...]:
        await self._asked("ticker", *symbols)
        return tuple(self._quoted("ticker", symbol) for symbol in symbols)  # type: ignore[misc]

    async def all_tickers(self, quotes: Sequence[str]) -> tuple[Ticker, ...]:
        await self._asked("all tickers")
        return tuple(
            self._quoted("ticker", symbol)  # type: ignore[misc]
            for symbol in self.listed
            if symbol.partition("-")[0] in quotes and symbol not in self.untraded
        )

    async def orderbooks(
        self, symbols: Sequence[str], *, depth: int, level: float
    ) -> tuple[Orderbook, ...]:
        await self._asked("orderbook", *symbols)
        return tuple(self._quoted("orderbook", symbol) for symbol in symbols)  # type: ignore[misc]

    async def trades(
        self,
        symbol: str,
        *,
        count: int,
        to_ms: int | None = None,
        cursor: int | None = None,
        days_ago: int | None = None,
    ) -> tuple[Trade, ...]:
        await self._asked("trades", symbol)
        day_ms = (self.clock.now_ms() // DAY_MS - (days_ago or 0)) * DAY_MS
        told_to_ms = self.clock.now_ms() - self.rest_lag_ms if self.rest_lag_ms else math.inf
        executed = sorted(
            self.executed.get(symbol, []),
            key=lambda trade: (trade.exchange_time, trade.sequential_id),
        )
        found = [
            trade
            for trade in executed
            if day_ms <= epoch_ms(trade.exchange_time) < min(to_ms or math.inf, day_ms + DAY_MS)
            and (cursor is None or trade.sequential_id < cursor)
            and epoch_ms(trade.exchange_time) <= told_to_ms
            and trade.sequential_id not in self.rest_hides
        ]
        return tuple(msgspec.structs.replace(trade, source="rest") for trade in found)[
            : -count - 1 : -1
        ]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[FakeSocket]:
        self.connected_at.append(self.clock.monotonic())
        await asyncio.sleep(0)
        if self.connect_failures:
            raise self.connect_failures.popleft()
        socket = FakeSocket(self)
        socket.deaf = set(self.deaf)
        self.sockets.append(socket)
        try:
            yield socket
        finally:
            socket.open = False

    async def _asked(self, group: str, *symbols: str) -> None:
        self.rest_calls[group] += 1
        self.asked_for.append(symbols)
        self.rest_waiting += 1
        try:
            await asyncio.sleep(0)
            await self.rest_open.wait()
        finally:
            self.rest_waiting -= 1
        if self.rest_failures:
            raise self.rest_failures.popleft()
        if self.rest_down is not None:
            raise self.rest_down
        if group == "ticker" and self.untraded & set(symbols):
            raise DataUnavailableError(f"no ticker of {self.untraded}")
        for symbol in symbols:
            if symbol not in self.listed:
                raise UnknownSymbolError(symbol)

    def _quoted(self, kind: StreamKind, symbol: str) -> Value:
        value = self.values.get((kind, symbol))
        if value is None:
            value = make_ticker(symbol, 1.0) if kind == "ticker" else make_book(symbol)
        assert isinstance(value, Ticker | Orderbook)
        return msgspec.structs.replace(value, source="rest")

    def _stream(self, value: Value) -> None:
        key = (kind_of(value), value.symbol)
        for socket in self.sockets:
            if socket.open and socket.wants(*key) and key not in socket.deaf:
                socket.send(value)
