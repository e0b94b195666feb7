"""The router: everything the exchange can be asked, behind one `DataSource`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    InvalidRequestError,
    RateLimitedError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import (
    CandleSeries,
    Market,
    Orderbook,
    Source,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.protocol import (
    MAX_DEPTH,
    MAX_PAGE_CANDLES,
    MAX_PAGE_TRADES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    Health,
    LayerStatus,
    Priority,
    Subscription,
)
from upbit_backbone.routing.batches import Batches
from upbit_backbone.routing.candle_builder import CandleBuilder
from upbit_backbone.routing.candle_feed import CandleFeed
from upbit_backbone.routing.circuit import Circuit
from upbit_backbone.routing.exchange import ExchangeAdapter, RateGroup, StreamKind
from upbit_backbone.routing.flights import Flights
from upbit_backbone.routing.rate_limit import (
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    RateLimiter,
    RateWindow,
    Ticket,
)
from upbit_backbone.routing.reader import Reader
from upbit_backbone.routing.realtime_cache import Held, RealtimeCache, trimmed
from upbit_backbone.routing.stream_hub import Connection, StreamHub
from upbit_backbone.tasks import TaskOwner

Result = TypeVar("Result")

MARKETS_TTL_S = 600.0
"""The exchange announces listings nowhere else; its own advice is to look from time to time."""
ALL_TICKERS_FROM = 100
"""Codes of one quote asset: from so many on the call for all of it is the smaller one."""
_GROUPS: tuple[RateGroup, ...] = ("market", "candles", "trades", "ticker", "orderbook")
_STREAMS: dict[DataType, StreamKind] = {
    DataType.TICKER: "ticker",
    DataType.TRADE: "trade",
    DataType.ORDERBOOK: "orderbook",
}


class Router:
    """Layer 1. Chooses between realtime cache, REST and WebSocket; keeps the rate limits.

    Never stores and never splits: a candle page above 200 rows is refused, for the exchange
    would cut it without a word.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        *,
        clock: Clock,
        rng: Random,
        critical_reserve: int,
        ban_file: Path | None = None,
    ) -> None:
        """Build what it is made of; nothing is sent before `start`.

        Args:
            adapter: The exchange.
            clock: The exchange's time.
            rng: Chance, for jitter.
            critical_reserve: Grants of each window that only CRITICAL may take.
            ban_file: Where the end of a block by the exchange (418) is kept.
        """
        self._adapter = adapter
        self._clock = clock
        self._tasks = TaskOwner()
        self._flights = Flights(self._tasks)
        self._cache = RealtimeCache(clock)
        self._ticker_batches = Batches(self._tasks, self._send_tickers)
        self._book_batches = Batches(self._tasks, self._send_books)
        self._circuit = Circuit(clock, ban_file)
        self._hub = StreamHub(adapter, self._cache, clock, rng, self._circuit)
        self._limiters = {
            group: RateLimiter(
                RateWindow(
                    limit=REQUESTS_PER_WINDOW,
                    window_s=WINDOW_S,
                    reserve=critical_reserve,
                    even_low=True,
                ),
                clock,
            )
            for group in _GROUPS
        }
        self._markets: tuple[Market, ...] = ()
        self._markets_until_s = float("-inf")
        self._running = False
        self._rest_failure: BackboneError | None = None
        self._since_ms = clock.now_ms()
        self._requests = 0
        self._refusals = 0

    async def start(self) -> None:
        """Begin to work; the socket opens when somebody reads a stream."""
        await self._circuit.recall()
        self._running = True
        self._tasks.spawn(self._hub.run(), name="stream hub")

    async def stop(self) -> None:
        """End all streams and requests. May be called twice."""
        self._running = False
        await self._tasks.close()

    def peek(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        start_ms: int | None,
        end_ms: int | None,
        count: int | None,
        max_age_s: float,
        now: float,
    ) -> Any | None:
        """The ticker or the whole order book of a symbol, when it is fresh enough."""
        if data_type is DataType.TICKER:
            return self._cache.peek(Ticker, symbol, max_age_s, now)
        if data_type is DataType.ORDERBOOK:
            return self._cache.peek(Orderbook, symbol, max_age_s, now)
        return None

    def peek_age_s(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        end_ms: int | None,
        now: float,
    ) -> float | None:
        """Of the ticker or the order book that `peek` gives."""
        if data_type is DataType.TICKER:
            return self._cache.age_s(Ticker, symbol, now)
        if data_type is DataType.ORDERBOOK:
            return self._cache.age_s(Orderbook, symbol, now)
        return None

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """Ask the exchange, or answer from the realtime cache.

        The answer's data is a `CandleSeries` (one page, which may begin before the
        request's start), or a tuple of tickers, order books, or trades (newest first).

        Raises:
            InvalidRequestError: a page larger than the exchange gives.
            BackboneError: as `ExchangeAdapter` says.
        """
        if not self._running:
            raise ClosedError("the routing layer is not running: start the service first")
        started = self._clock.monotonic()
        cache_hit, age_s, source, data = await self._answer(request)
        metadata = BackboneMetadata(
            source_layer="layer_1",
            cache_hit=cache_hit,
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(data),
            priority_used=request.priority,
            source=source,
            age_s=age_s,
            path="router",
            reason="the realtime cache is fresh enough" if cache_hit else "asked the exchange",
        )
        return BackboneResponse(True, data, metadata, None, request.request_id)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Open a stream; candles are built from trades, one symbol and timeframe a reader."""
        if not self._running:
            raise ClosedError("the routing layer is not running: start the service first")
        if request.data_type is not DataType.CANDLE:
            return self._hub.open(_STREAMS[request.data_type], request.symbols, request.policy)
        assert request.timeframe is not None
        (symbol,), timeframe = request.symbols, request.timeframe
        trades = self._hub.open("trade", (symbol,), "all")
        out = Reader(request.policy, lambda _: trades.close())

        async def read_page() -> tuple[CandleSeries, int | None]:
            to_ms = timeframe.next_ms(timeframe.floor_ms(self._clock.now_ms()))
            return await self._ask(
                "candles",
                request.priority,
                lambda: self._adapter.candles(symbol, timeframe, to_ms=to_ms, count=1),
            )

        feed = CandleFeed(out, trades, CandleBuilder(symbol, timeframe), read_page, self._clock)
        self._tasks.spawn(feed.run(), name=f"candle feed {symbol} {timeframe}")
        return out

    async def markets(self) -> tuple[Market, ...]:
        """What the exchange lists; asked again after ten minutes.

        Raises:
            TransportError: the exchange was not reached.
        """
        if not self._running:
            raise ClosedError("the routing layer is not running: start the service first")
        if self._clock.monotonic() < self._markets_until_s:
            return self._markets
        self._markets = await self._flights.fly(
            "markets",
            Priority.HIGH,
            lambda ticket: self._ask("market", ticket, self._adapter.markets),
        )
        self._markets_until_s = self._clock.monotonic() + MARKETS_TTL_S
        return self._markets

    def observe_left(self, group: str, left: int) -> None:
        """Take the exchange's word for how many requests a group has left in its second."""
        limiter = self._limiters.get(cast(RateGroup, group))
        if limiter is not None:
            limiter.observe_left(left)

    @property
    def connection(self) -> Connection:
        """How the stream's connection stands."""
        return self._hub.connection

    @property
    def reachable(self) -> bool:
        """Whether the last request reached the exchange."""
        return self._rest_failure is None

    def status(self) -> LayerStatus:
        """Healthy, degraded (one of the two channels fails) or down."""
        stream_lost = self._hub.connection == "offline"
        health: Health = "healthy"
        reason = ""
        if not self._running:
            health, reason = "down", "not running"
        elif (blocked_s := self._circuit.left_s) > 0:
            health = "degraded"
            reason = f"the exchange blocks REST for another {blocked_s:.0f} s (418)"
        elif self._rest_failure is not None:
            health = "down" if self._hub.connection != "live" else "degraded"
            reason = str(self._rest_failure)
        elif stream_lost:
            health, reason = "degraded", self._hub.reason
        counters = {
            "requests": float(self._requests),
            "refused": float(self._refusals),
            "joined": float(
                self._flights.joined + self._ticker_batches.joined + self._book_batches.joined
            ),
            "messages": float(self._hub.messages),
            "reconnects": float(self._hub.reconnects),
            "waiting": float(sum(limiter.waiting for limiter in self._limiters.values())),
            "blocked_s": self._circuit.left_s,
            "blocks": float(self._circuit.blocks),
            "slowest_pace": min(limiter.pace for limiter in self._limiters.values()),
        }
        since = self._hub.since if stream_lost else utc_datetime(self._since_ms)
        return LayerStatus("layer_1", health, reason, since, counters)

    async def _answer(
        self, request: BackboneRequest
    ) -> tuple[bool, float | None, Source, CandleSeries | tuple[Any, ...]]:
        if request.data_type is DataType.CANDLE:
            page, age_s = await self._candles(request)
            return False, age_s, "rest", page
        if request.data_type is DataType.TRADE:
            return False, 0.0, "rest", await self._trades(request)
        max_age_s = request.priority.max_age_s if request.max_age is None else request.max_age
        kind: type[Ticker | Orderbook]
        kind = Ticker if request.data_type is DataType.TICKER else Orderbook
        now = self._clock.monotonic()
        held: dict[str, Ticker | Orderbook] = {}
        ages: list[float] = []
        if request.level == 0:
            for symbol in request.symbols:
                value = self._cache.peek(kind, symbol, max_age_s, now)
                if value is not None:
                    held[symbol] = value
                    ages.append(self._cache.age_s(kind, symbol, now) or 0.0)
        lacking = tuple(symbol for symbol in request.symbols if symbol not in held)
        if lacking:
            values: Collection[Ticker | Orderbook]
            if kind is Ticker:
                values = await self._ticker_batches.get(lacking, request.priority)
            elif request.level == 0:
                values = await self._book_batches.get(lacking, request.priority)
            else:
                values = await self._grouped_books(lacking, request)
            held.update((value.symbol, value) for value in values)
        found = tuple(held[symbol] for symbol in request.symbols)
        if kind is Orderbook:
            found = tuple(
                trimmed(book, request.depth) for book in found if isinstance(book, Orderbook)
            )
        return not lacking, max(ages, default=0.0), "rest" if lacking else "cache", found

    async def _candles(self, request: BackboneRequest) -> tuple[CandleSeries, float]:
        """A page, and how long before this call it was asked for: another caller may have."""
        called_s = self._clock.monotonic()
        (symbol,), timeframe = request.symbols, request.timeframe
        count = request.count
        if timeframe is None or count is None or not 1 <= count <= MAX_PAGE_CANDLES:
            raise InvalidRequestError(
                f"a page of candles has a timeframe and 1..{MAX_PAGE_CANDLES} rows,"
                f" was {timeframe} and {count}: the coordinator splits larger requests"
            )
        to_ms = request.end_ms

        async def ask() -> tuple[CandleSeries, float]:
            sent_s = self._clock.monotonic()
            page, _ = await self._adapter.candles(symbol, timeframe, to_ms=to_ms, count=count)
            return page, sent_s

        page, sent_s = await self._flights.fly(
            ("candles", symbol, timeframe, to_ms, count),
            request.priority,
            lambda ticket: self._ask("candles", ticket, ask),
        )
        return page, max(0.0, called_s - sent_s)

    async def _trades(self, request: BackboneRequest) -> tuple[Trade, ...]:
        (symbol,), count = request.symbols, request.count
        if count is None or not 1 <= count <= MAX_PAGE_TRADES:
            raise InvalidRequestError(
                f"a page of trades has 1..{MAX_PAGE_TRADES} rows, was {count}:"
                " the coordinator splits larger requests"
            )
        to_ms, cursor, days_ago = request.end_ms, request.cursor, request.days_ago
        return await self._flights.fly(
            ("trades", symbol, to_ms, count, cursor, days_ago),
            request.priority,
            lambda ticket: self._ask(
                "trades",
                ticket,
                lambda: self._adapter.trades(
                    symbol, count=count, to_ms=to_ms, cursor=cursor, days_ago=days_ago
                ),
            ),
        )

    async def _send_tickers(self, symbols: tuple[str, ...], ticket: Ticket) -> Collection[Ticker]:
        """Ask for tickers; so many of one quote asset that all of it cost no more are asked so."""
        quotes = {symbol.partition("-")[0] for symbol in symbols}
        if len(symbols) >= ALL_TICKERS_FROM * len(quotes):
            asked = partial(self._adapter.all_tickers, sorted(quotes))
        else:
            asked = partial(self._adapter.tickers, symbols)
        return self._newest(await self._ask("ticker", ticket, asked))

    async def _send_books(self, symbols: tuple[str, ...], ticket: Ticket) -> Collection[Orderbook]:
        books = await self._ask(
            "orderbook",
            ticket,
            lambda: self._adapter.orderbooks(symbols, depth=MAX_DEPTH, level=0),
        )
        return self._newest(books)

    async def _grouped_books(
        self, symbols: tuple[str, ...], request: BackboneRequest
    ) -> Collection[Orderbook]:
        level = request.level
        return await self._flights.fly(
            ("orderbooks", symbols, level),
            request.priority,
            lambda ticket: self._ask(
                "orderbook",
                ticket,
                lambda: self._adapter.orderbooks(symbols, depth=MAX_DEPTH, level=level),
            ),
        )

    def _newest(self, values: Collection[Held]) -> Collection[Held]:
        """Hold values by REST, which lags the stream: where that was ahead, its value stands."""
        now = self._clock.monotonic()
        for value in values:
            self._cache.put(value, now, live=False)
        return [self._cache.newest(value) for value in values]

    async def _ask(
        self, group: RateGroup, who: Priority | Ticket, work: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Send one request when its group allows it; none while the exchange blocks us."""
        limiter = self._limiters[group]
        self._circuit.check()
        await limiter.acquire(who)
        self._circuit.check()  # a block may have begun meanwhile
        self._requests += 1
        try:
            result = await work()
        except RateLimitedError as error:
            self._refusals += 1
            self._reached(None)
            if error.blocked:
                self._circuit.open(error.retry_after_s)
                self._tasks.spawn(self._circuit.note(), name="note the block")
                self._circuit.check()
            limiter.refused()
            raise
        except (DataUnavailableError, UnknownSymbolError):
            self._reached(None)
            raise
        except TransportError as error:
            self._reached(error)
            raise
        self._reached(None)
        self._circuit.answered()
        return result

    def _reached(self, failure: BackboneError | None) -> None:
        if (failure is None) != (self._rest_failure is None):
            self._since_ms = self._clock.now_ms()
        self._rest_failure = failure
