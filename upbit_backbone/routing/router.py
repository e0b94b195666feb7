"""The router: everything the exchange can be asked, behind one `DataSource`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from upbit_backbone.call_in_work import reached
from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import (
    ClosedError,
    InvalidRequestError,
    RateLimitedError,
    StaleDataError,
    TransportError,
)
from upbit_backbone.models import CandleSeries, Gap, Orderbook, Source, Ticker, Timeframe
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    MAX_PAGE_CANDLES,
    MAX_PAGE_TRADES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    Health,
    LayerStatus,
    MarketList,
    Priority,
    Subscription,
    Whole,
)
from upbit_backbone.reader import Reader
from upbit_backbone.routing.candle_builder import CandleBuilder
from upbit_backbone.routing.candle_feed import CandleFeed
from upbit_backbone.routing.channel_choice import Channel, ChannelChoice, Choice, Question
from upbit_backbone.routing.circuit import Circuit
from upbit_backbone.routing.exchange import CANDLE_KINDS, ExchangeAdapter, RateGroup, StreamKind
from upbit_backbone.routing.failover import State, Transition
from upbit_backbone.routing.interest import Interest
from upbit_backbone.routing.realtime_cache import RealtimeCache
from upbit_backbone.routing.rest_channel import RestChannel
from upbit_backbone.routing.shared_budget import SharedBudget
from upbit_backbone.routing.stream_hub import StreamHub
from upbit_backbone.tasks import TaskOwner

SNAPSHOT_WITHIN_S = 3.0
"""A snapshot that was not sent after this time will not be: the market has none, or is none."""
FIRST_CONNECT_S = 0.5
"""What opening a socket takes, where REST cannot answer and nobody has opened one yet."""
_KINDS: dict[DataType, StreamKind] = {
    DataType.TICKER: "ticker",
    DataType.TRADE: "trade",
    DataType.ORDERBOOK: "orderbook",
}
_RATE_GROUPS: dict[DataType, RateGroup] = {
    DataType.TICKER: "ticker",
    DataType.TRADE: "trades",
    DataType.ORDERBOOK: "orderbook",
    DataType.CANDLE: "candles",
}


class _Answer(NamedTuple):
    """What was found, and how."""

    data: CandleSeries | tuple[Any, ...]
    age_s: float | None
    source: Source
    reason: str


class Router:
    """Layer 1. Chooses between realtime cache, REST and WebSocket; keeps the rate limits.

    What is asked for often is streamed from then on. Where one channel cannot answer the other
    does, as far as it can. Never stores and never splits: a candle page above 200 rows is
    refused, for the exchange would cut it without a word.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        *,
        clock: Clock,
        rng: Random,
        critical_reserve: int,
        ban_file: Path | None = None,
        budget: SharedBudget | None = None,
        symbols_per_request: int | None = None,
        circuit_breaker: bool = True,
        fallbacks: bool = True,
        automatic_streams: bool = True,
        on_gap: Callable[[Gap], None] = lambda gap: None,
    ) -> None:
        """Build what it is made of; nothing is sent before `start`.

        Args:
            adapter: The exchange.
            clock: The exchange's time.
            rng: Chance, for jitter and for which channel is measured.
            critical_reserve: Grants of each window that only CRITICAL may take.
            ban_file: Where the end of a block by the exchange (418) is kept.
            budget: What all programs of this user on this machine share; None: nothing.
            symbols_per_request: How many tickers or books one request may name; None: all.
            circuit_breaker: Whether nothing is asked during a block by the exchange.
            fallbacks: Whether each channel stands in for the other.
            automatic_streams: Whether what is asked for often gets a stream.
            on_gap: Told of each gap of trades that is read back: when it opens, and how it ends.
        """
        self._clock = clock
        self._tasks = TaskOwner()
        self._cache = RealtimeCache(clock)
        # `DataSource.peek`, without a call of its own.
        self.peek = self._cache.peek_quote
        self._budget = budget
        self._circuit = Circuit(clock, ban_file, budget, enabled=circuit_breaker)
        self._fallbacks = fallbacks
        self._choice = ChannelChoice(rng=rng)
        self._interest = Interest() if automatic_streams else Interest(limit=0)
        self._rest = RestChannel(
            adapter,
            cache=self._cache,
            circuit=self._circuit,
            tasks=self._tasks,
            clock=clock,
            critical_reserve=critical_reserve,
            budget=budget,
            on_answer=self._measure_rest,
            symbols_per_request=symbols_per_request,
        )
        self._hub = StreamHub(
            adapter,
            cache=self._cache,
            rest=self._rest,
            circuit=self._circuit,
            interest=self._interest,
            tasks=self._tasks,
            clock=clock,
            rng=rng,
            fallbacks=fallbacks,
            on_gap=on_gap,
        )
        self._running = False

    async def start(self) -> None:
        """Begin to work; the socket opens when somebody reads a stream."""
        await self._circuit.recall()
        self._running = True
        self._tasks.spawn(self._hub.run(), name="stream hub", vital=True)

    async def stop(self) -> None:
        """End all streams and requests. May be called twice."""
        self._running = False
        await self._tasks.close()
        if self._budget is not None:
            self._budget.close()

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
        reached("router")
        if request.data_type is DataType.CANDLE:
            answer = await self._candles(request)
        elif request.data_type is DataType.TRADE:
            answer = await self._trades(request)
        else:
            answer = await self._quotes(request)
        metadata = BackboneMetadata(
            source_layer="layer_1",
            cache_hit=answer.source == "cache",
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(answer.data),
            priority_used=request.priority,
            source=answer.source,
            age_s=answer.age_s,
            path="router",
            reason=answer.reason,
        )
        return BackboneResponse(True, answer.data, metadata, None, request.request_id)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Open a stream; candles are built from trades, one symbol and timeframe a reader."""
        if not self._running:
            raise ClosedError("the routing layer is not running: start the service first")
        priority = request.priority
        self._choose(request, live=True)
        if request.data_type is not DataType.CANDLE:
            kind = _KINDS[request.data_type]
            return self._hub.open(
                kind, request.symbols, request.policy, priority, told_of_outages=True
            )
        assert request.timeframe is not None
        (symbol,), timeframe = request.symbols, request.timeframe
        trades = self._hub.open("trade", (symbol,), "all", priority)
        out = Reader(
            request.policy,
            lambda _: trades.close(),
            priority,
            complete_to_ms=lambda: self._hub.complete_to_ms(symbol),
            on_priority=trades.set_priority,
        )

        async def read_page(at_ms: int) -> tuple[CandleSeries, int | None]:
            to_ms = timeframe.next_ms(timeframe.floor_ms(at_ms))
            return await self._rest.candle_seed(
                symbol, timeframe, to_ms=to_ms, priority=out.priority
            )

        def whole(start_ms: int, end_ms: int) -> Whole:
            return Whole(symbol, timeframe, utc_datetime(start_ms), utc_datetime(end_ms))

        feed = CandleFeed(
            out,
            trades,
            CandleBuilder(symbol, timeframe),
            read_page,
            lambda: self._hub.complete_to_ms(symbol),
            self._clock,
            proofs=whole if request.proofs else None,
        )
        self._tasks.spawn(feed.run(), name=f"candle feed {symbol} {timeframe}")
        return out

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        """What the exchange lists; asked again after ten minutes, or `max_age_s`.

        Raises:
            TransportError: the exchange was not reached.
            ProtocolError: its answer was none, such as an empty list.
        """
        if not self._running:
            raise ClosedError("the routing layer is not running: start the service first")
        return await self._rest.markets(max_age_s=max_age_s)

    def oldest_wait_s(self, now: float) -> dict[Priority, float]:
        """How long the oldest call of each priority has waited for its first request to be sent."""
        return self._rest.oldest_wait_s(now)

    def observe_left(self, group: str, left: int) -> None:
        """Take the exchange's word for how many requests a group has left in its second."""
        self._rest.observe_left(group, left)

    def observe_microseconds(self, kind: str, symbol: str) -> None:
        """Count a stamp that came in microseconds and was read right."""
        self._cache.stamps.note(kind, symbol, "in microseconds", "divided by 1,000")

    def free_memory(self) -> int:
        """Forget the prices that no stream keeps up to date; tells how many those were."""
        return self._cache.forget_unwatched()

    def update_channel_performance(
        self, channel: Channel, latency_ms: float, success: bool
    ) -> None:
        """Take the outcome of a request that was made elsewhere; ours are taken by themselves.

        Args:
            channel: ``"rest"`` or ``"websocket"``.
            latency_ms: From sending the request to its answer or failure.
            success: Whether it was answered.
        """
        self._choice.update_channel_performance(channel, latency_ms, success)

    @property
    def choices(self) -> dict[tuple[Channel, str], int]:
        """How often each channel was chosen, and why."""
        return dict(self._choice.counts)

    @property
    def connection(self) -> State:
        """How the stream stands."""
        return self._hub.state

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """How the stream came to stand so: the newest 100 changes, each with its reason."""
        return tuple(self._hub.failover.transitions)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The newest thousand gaps of trades that have ended, each with how and why."""
        return self._hub.gaps

    @property
    def reachable(self) -> bool:
        """Whether the last request reached the exchange."""
        return self._rest.failure is None

    @property
    def failure(self) -> str:
        """Why it cannot work any more; an exchange that is not reached is no reason."""
        return self._tasks.lost if self._running else "it was stopped"

    def status(self) -> LayerStatus:
        """Healthy, degraded (one of the two channels fails) or down."""
        hub, rest = self._hub, self._rest
        live = hub.state in ("live", "suspicious")
        stream_lost = hub.state in ("reconnecting", "polling", "blocked", "closed")
        health: Health = "healthy"
        reason = ""
        since = utc_datetime(rest.since_ms)
        if not self._running:
            health, reason = "down", "not running"
        elif (blocked_s := self._circuit.left_s) > 0:
            health = "degraded"
            reason = f"the exchange blocks REST for another {blocked_s:.0f} s (418)"
        elif rest.failure is not None:
            health, reason = "degraded" if live else "down", str(rest.failure)
        elif stream_lost:
            polled = "polled by REST once a second: " if hub.state == "polling" else ""
            health, reason, since = "degraded", polled + hub.reason, hub.since
        elif self._budget is not None and self._budget.degraded:
            health, reason = "degraded", f"half the request rate: {self._budget.reason}"
        elif hub.state == "suspicious":
            reason, since = hub.reason, hub.since
        chosen = {
            f"chosen.{channel}.{why}": float(count)
            for (channel, why), count in self._choice.counts.items()
        }
        counters = rest.counters | hub.counters | chosen
        return LayerStatus("layer_1", health, reason, since, counters)

    # Tickers and order books.

    async def _quotes(self, request: BackboneRequest) -> _Answer:
        kind = _KINDS[request.data_type]
        held_type: type[Ticker | Orderbook]
        held_type = Ticker if kind == "ticker" else Orderbook
        held: dict[str, Ticker | Orderbook] = {}
        ages: list[float] = []
        if request.level == 0:
            now, max_age_s = self._clock.monotonic(), _max_age_s(request)
            for symbol in request.symbols:
                value = self._cache.peek(held_type, symbol, max_age_s, now)
                if value is not None:
                    held[symbol] = value
                    ages.append(self._cache.age_s(held_type, symbol, now) or 0.0)
            # Those that the cache had it counted itself.
            asked = (symbol for symbol in request.symbols if symbol not in held)
            self._note_interest(kind, asked, request.priority, now)
        lacking = tuple(symbol for symbol in request.symbols if symbol not in held)
        source: Source = "cache"
        reason = "the realtime cache is fresh enough"
        if not lacking and all(self._hub.is_watched(kind, symbol) for symbol in held):
            choice = self._choose(request, symbols=request.symbols, stream_age_s=max(ages))
            reason = str(choice.reason)
            if choice.channel == "rest":  # the socket failed a moment ago
                lacking = request.symbols
        if lacking:
            choice = self._choose(request, symbols=lacking, only_rest=request.level != 0)

            async def by_rest() -> list[Ticker | Orderbook]:
                if kind == "ticker":
                    return list(await self._rest.tickers(lacking, request.priority))
                level = request.level
                return list(await self._rest.orderbooks(lacking, request.priority, level=level))

            async def by_socket() -> list[Ticker | Orderbook]:
                return await _all(self._snapshot(kind, one) for one in lacking)

            values, source, reason = await self._by(
                choice, by_rest, by_socket if request.level == 0 else None, request.deadline
            )
            held.update((value.symbol, value) for value in values)
        found = tuple(held[symbol] for symbol in request.symbols)
        if kind == "orderbook":
            found = tuple(
                book.trimmed(request.depth) for book in found if isinstance(book, Orderbook)
            )
        return _Answer(found, max(ages, default=0.0), source, reason)

    def _note_interest(
        self, kind: StreamKind, symbols: Iterable[str], priority: Priority, now: float
    ) -> None:
        """What is asked for often is worth a stream."""
        wanted = False
        for symbol in symbols:
            wanted |= self._interest.asked(kind, symbol, priority, now)
        if wanted:
            self._hub.want()

    # Candles and trades.

    async def _candles(self, request: BackboneRequest) -> _Answer:
        (symbol,), timeframe, count = request.symbols, request.timeframe, request.count
        if timeframe is None or count is None or not 1 <= count <= MAX_PAGE_CANDLES:
            raise InvalidRequestError(
                f"a page of candles has a timeframe and 1..{MAX_PAGE_CANDLES} rows,"
                f" was {timeframe} and {count}: the coordinator splits larger requests"
            )
        to_ms, page_timeframe = request.end_ms, timeframe
        called_s = self._clock.monotonic()
        newest = count == 1 and (to_ms is None or to_ms > self._clock.now_ms())
        streamed = newest and timeframe in CANDLE_KINDS
        choice = self._choose(request, rows=count, only_rest=not streamed)
        age_s = 0.0

        async def by_rest() -> CandleSeries:
            nonlocal age_s
            page, _, sent_s = await self._rest.candles(
                symbol, page_timeframe, to_ms=to_ms, count=count, priority=request.priority
            )
            # Another caller may have asked for it before this one came.
            age_s = max(0.0, called_s - sent_s)
            return page

        async def by_socket() -> CandleSeries:
            page: CandleSeries = await self._snapshot(CANDLE_KINDS[page_timeframe], symbol)
            return page

        page, source, reason = await self._by(
            choice, by_rest, by_socket if streamed else None, request.deadline
        )
        return _Answer(page, age_s, source, reason)

    async def _trades(self, request: BackboneRequest) -> _Answer:
        (symbol,), count = request.symbols, request.count
        if count is None or not 1 <= count <= MAX_PAGE_TRADES:
            raise InvalidRequestError(
                f"a page of trades has 1..{MAX_PAGE_TRADES} rows, was {count}:"
                " the coordinator splits larger requests"
            )
        rows = count
        newest = request.end_ms is None and request.cursor is None and request.days_ago is None
        choice = self._choose(request, rows=rows, only_rest=not newest)

        async def by_rest() -> tuple[Any, ...]:
            return await self._rest.trades(
                symbol,
                count=rows,
                to_ms=request.end_ms,
                cursor=request.cursor,
                days_ago=request.days_ago,
                priority=request.priority,
            )

        async def by_socket() -> tuple[Any, ...]:
            return (await self._snapshot("trade", symbol),)

        page, source, reason = await self._by(
            choice, by_rest, by_socket if newest and rows == 1 else None, request.deadline
        )
        return _Answer(page, 0.0, source, reason)

    # The two channels.

    def _choose(
        self,
        request: BackboneRequest,
        *,
        symbols: Sequence[str] = (),
        rows: int = 0,
        only_rest: bool = False,
        live: bool = False,
        stream_age_s: float = math.inf,
    ) -> Choice:
        """Ask which channel is to answer, with all that is known at this moment."""
        now = self._clock.monotonic()
        kind = _KINDS.get(request.data_type)
        watched = 0
        if kind is not None:
            watched = sum(self._hub.is_watched(kind, symbol) for symbol in symbols)
        question = Question(
            data_type=request.data_type,
            priority=request.priority,
            max_age_s=_max_age_s(request),
            rows=rows,
            live=live,
            only_rest=only_rest,
            symbols=max(1, len(symbols)),
            watched=watched,
            stream_age_s=stream_age_s if symbols else 0.0,
            rest_wait_s=self._rest.wait_s(_RATE_GROUPS[request.data_type], request.priority),
            socket_wait_s=self._socket_wait_s(),
        )
        return self._choice.choose(question, now)

    def _socket_wait_s(self) -> float | None:
        """How long the socket takes to answer; None: it cannot, or may not stand in."""
        if not (self._fallbacks or self._rest.available):
            return None
        wait_s = self._hub.ask_wait_s
        if wait_s is not None:
            return wait_s
        blocked = self._circuit.left_s > 0  # a block holds for new connections as well
        if self._hub.state in ("idle", "connecting") and not (blocked or self._rest.available):
            return FIRST_CONNECT_S
        return None

    async def _by(
        self,
        choice: Choice,
        by_rest: Callable[[], Awaitable[Any]],
        by_socket: Callable[[], Awaitable[Any]] | None,
        deadline_s: float | None,
    ) -> tuple[Any, Source, str]:
        """Ask the chosen channel, and the other one where that one fails."""
        if choice.channel == "websocket" and by_socket is not None:
            try:
                # REST has to have its time as well, if only to say why it has no answer either.
                half_s = self._left_s(deadline_s) / 2
                return await _within(half_s, by_socket()), "websocket", choice.reason
            except (TransportError, StaleDataError) as error:
                failure = self._rest.failure
                if not self._rest.available and isinstance(failure, TransportError):
                    # A moment ago: that is why.
                    raise TransportError(f"{failure}; the socket had no answer either") from error
                if not (self._rest.available and self._fallbacks):
                    raise
                return await by_rest(), "rest", f"the socket did not answer: {error}"
        try:
            return await by_rest(), "rest", choice.reason
        except (TransportError, RateLimitedError) as error:
            if by_socket is None or not self._fallbacks or self._socket_wait_s() is None:
                raise
            try:
                answer = await _within(self._left_s(deadline_s), by_socket())
            except (TransportError, StaleDataError):
                # Why REST did not answer says more than that the time is over.
                raise error from None
            return answer, "websocket", f"REST did not answer: {error}"

    def _left_s(self, deadline_s: float | None) -> float:
        if deadline_s is None:
            return math.inf
        return max(0.0, deadline_s - self._clock.monotonic())

    async def _snapshot(self, kind: StreamKind, symbol: str) -> Any:
        """One value by the socket.

        Raises:
            TransportError: none came.
        """
        began_s = self._clock.monotonic()
        answered = False
        try:
            async with asyncio.timeout(SNAPSHOT_WITHIN_S):
                value = await self._hub.ask(kind, symbol)
            answered = True
        except TimeoutError:
            raise TransportError(
                f"{kind} of {symbol}: the socket had no value within {SNAPSHOT_WITHIN_S:g} s;"
                " the market may have none, try again later"
            ) from None
        except StopAsyncIteration:
            raise TransportError(f"{kind} of {symbol}: the stream ended; try again") from None
        except asyncio.CancelledError:
            began_s = math.inf  # nobody waited for it: no fault of the channel
            raise
        finally:
            took_ms = (self._clock.monotonic() - began_s) * 1_000
            if took_ms >= 0:
                self._choice.update_channel_performance("websocket", took_ms, answered)
        return value

    def _measure_rest(self, latency_ms: float, answered: bool) -> None:
        self._choice.update_channel_performance("rest", latency_ms, answered)


async def _within(limit_s: float, work: Awaitable[Any]) -> Any:
    """Its result, within a time.

    Raises:
        TransportError: it took longer.
    """
    try:
        async with asyncio.timeout(None if limit_s == math.inf else limit_s):
            return await work
    except TimeoutError as error:
        raise TransportError("the socket had no value in the time given; try again") from error


async def _all(works: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The results of all, in order; the first error ends the others as well."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _max_age_s(request: BackboneRequest) -> float:
    return request.priority.max_age_s if request.max_age is None else request.max_age
