"""One of the two channels: requests, within the exchange's limits, shared by who asks the same."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar, cast

from upbit_backbone.clock import Clock
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import CandleSeries, Orderbook, Ticker, Timeframe, Trade
from upbit_backbone.protocol import MARKETS_TTL_S, MAX_DEPTH, MarketList, Priority
from upbit_backbone.routing.batches import Batches, Depart
from upbit_backbone.routing.circuit import Circuit
from upbit_backbone.routing.exchange import ExchangeAdapter, RateGroup
from upbit_backbone.routing.flights import Flights
from upbit_backbone.routing.rate_limit import (
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    RateLimiter,
    RateWindow,
    Ticket,
)
from upbit_backbone.routing.realtime_cache import Held, RealtimeCache
from upbit_backbone.routing.shared_budget import SharedBudget
from upbit_backbone.tasks import TaskOwner

Result = TypeVar("Result")

ALL_TICKERS_FROM = 100
"""Codes of one quote asset: from so many on the call for all of it is the smaller one."""
WAITS_SHOWN_S = 60.0
KEPT_WAITS = 600
"""As many as CRITICAL can be granted in a minute by one group."""
TRY_AGAIN_S = 5.0
"""An exchange that was not reached is taken for unreachable so long."""
GROUPS: tuple[RateGroup, ...] = ("market", "candles", "trades", "ticker", "orderbook")


class RestChannel:
    """Asks the exchange by REST. Every call waits for its group's limit, by priority.

    All raise what `ExchangeAdapter` raises; during a block (418) `RateLimitedError` at once.
    Tickers and books go through the realtime cache: where the stream was ahead of an answer,
    the stream's value is given.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        *,
        cache: RealtimeCache,
        circuit: Circuit,
        tasks: TaskOwner,
        clock: Clock,
        critical_reserve: int,
        budget: SharedBudget | None,
        on_answer: Callable[[float, bool], None],
        symbols_per_request: int | None = None,
    ) -> None:
        """Take what it works with.

        Args:
            adapter: The exchange.
            cache: Where tickers and books are held.
            circuit: Open while the exchange blocks this address.
            tasks: Owns what is under way.
            clock: The exchange's time.
            critical_reserve: Grants of each window that only CRITICAL may take.
            budget: What all programs of this user on this machine share.
            on_answer: Told how many milliseconds each request took, and whether it was answered.
            symbols_per_request: How many tickers or books one request may name; None: all.
        """
        self._on_answer = on_answer
        self._adapter = adapter
        self._cache = cache
        self._circuit = circuit
        self._tasks = tasks
        self._clock = clock
        self._flights = Flights(tasks)
        self._symbols_per_request = symbols_per_request
        self._ticker_batches = Batches(
            tasks, self._send_tickers, codes_per_request=symbols_per_request
        )
        self._book_batches = Batches(tasks, self._send_books, codes_per_request=symbols_per_request)
        self._limiters = {
            group: RateLimiter(
                RateWindow(
                    limit=REQUESTS_PER_WINDOW,
                    window_s=WINDOW_S,
                    reserve=critical_reserve,
                    even_low=True,
                    awaits_answers=True,
                ),
                clock,
                None if budget is None else budget.group(group),
            )
            for group in GROUPS
        }
        self._markets: MarketList | None = None
        self.failure: BackboneError | None = None
        """Why the last request did not reach the exchange; None: it did."""
        self.since_ms = clock.now_ms()
        """Since when that is so."""
        self._understood = False
        """Whether any answer was: until then whoever answers need not be the exchange."""
        self._failed_s = float("-inf")
        self._critical_waits: deque[tuple[float, float]] = deque(maxlen=KEPT_WAITS)
        """When CRITICAL requests were sent, and how long they had waited for the limit."""
        self.requests = 0
        self.refusals = 0
        self.too_fast = 0
        """How many requests were answered with 429."""

    @property
    def available(self) -> bool:
        """Whether a request is worth sending: the exchange was reached, and does not block.

        A few seconds after a failure it is worth another try.
        """
        failed = self.failure is not None
        if failed and self._clock.monotonic() - self._failed_s < TRY_AGAIN_S:
            return False
        return self._circuit.left_s == 0

    @property
    def failing(self) -> bool:
        """Whether the last request failed, long enough ago that it is worth another."""
        failed_s = self._clock.monotonic() - self._failed_s
        return self.failure is not None and failed_s >= TRY_AGAIN_S

    @property
    def counters(self) -> dict[str, float]:
        """Figures for the layer's status."""
        limiters = self._limiters.values()
        since_s = self._clock.monotonic() - WAITS_SHOWN_S
        waits = [waited_s for at, waited_s in self._critical_waits if at >= since_s]
        return {
            "critical_wait_ms": max(waits, default=0.0) * 1_000,
            "requests": float(self.requests),
            "refused": float(self.refusals),
            "joined": float(
                self._flights.joined + self._ticker_batches.joined + self._book_batches.joined
            ),
            "waiting": float(sum(limiter.waiting for limiter in limiters)),
            "blocked_s": self._circuit.left_s,
            "blocks": float(self._circuit.blocks),
            "slowest_pace": min(limiter.pace for limiter in limiters),
        }

    def wait_s(self, group: RateGroup, priority: Priority) -> float | None:
        """How long a request sent now would wait for the limit; None: it would be in vain."""
        return self._limiters[group].wait_s(priority) if self.available else None

    def oldest_wait_s(self, now: float) -> dict[Priority, float]:
        """How long the oldest call of each priority has waited for its first request to be sent."""
        waits_s: dict[Priority, float] = {}
        for limiter in self._limiters.values():
            for priority, wait_s in limiter.oldest_wait_s(now).items():
                waits_s[priority] = max(wait_s, waits_s.get(priority, 0.0))
        return waits_s

    def observe_left(self, group: str, left: int) -> None:
        """Take the exchange's word for how many requests a group has left in its second."""
        limiter = self._limiters.get(cast(RateGroup, group))
        if limiter is not None:
            limiter.observe_left(left)

    async def tickers(self, symbols: Sequence[str], priority: Priority) -> Collection[Ticker]:
        """The newest tickers of these symbols; those asked at once share a request."""
        return await self._ticker_batches.get(symbols, priority)

    async def orderbooks(
        self, symbols: Sequence[str], priority: Priority, *, level: float = 0
    ) -> Collection[Orderbook]:
        """The newest whole books of these symbols; grouped ones (`level`) are not held."""
        if not level:
            return await self._book_batches.get(symbols, priority)
        asked = partial(self._adapter.orderbooks, symbols, depth=MAX_DEPTH, level=level)
        books = await self._flights.fly(
            ("orderbooks", tuple(symbols), level),
            priority,
            lambda ticket: self._ask("orderbook", ticket, asked),
        )
        return [self._cache.stamps.mended(book)[0] for book in books]

    async def candles(
        self,
        symbol: str,
        timeframe: Timeframe,
        *,
        to_ms: int | None,
        count: int,
        priority: Priority,
    ) -> tuple[CandleSeries, int | None, float]:
        """A page, its newest row's stamp, and when it was asked for (monotonic seconds)."""

        async def ask() -> tuple[CandleSeries, int | None, float]:
            sent_s = self._clock.monotonic()
            page, stamp_ms = await self._adapter.candles(
                symbol, timeframe, to_ms=to_ms, count=count
            )
            return page, stamp_ms, sent_s

        return await self._flights.fly(
            ("candles", symbol, timeframe, to_ms, count),
            priority,
            lambda ticket: self._ask("candles", ticket, ask),
        )

    async def candle_seed(
        self, symbol: str, timeframe: Timeframe, *, to_ms: int, priority: Priority
    ) -> tuple[CandleSeries, int | None]:
        """The one candle before `to_ms`, asked for now: never another caller's answer."""
        asked = partial(self._adapter.candles, symbol, timeframe, to_ms=to_ms, count=1)
        return await self._ask("candles", priority, asked)

    async def trades(
        self,
        symbol: str,
        *,
        count: int,
        to_ms: int | None = None,
        cursor: int | None = None,
        days_ago: int | None = None,
        priority: Priority,
    ) -> tuple[Trade, ...]:
        """A page of trades, newest first."""
        asked = partial(
            self._adapter.trades,
            symbol,
            count=count,
            to_ms=to_ms,
            cursor=cursor,
            days_ago=days_ago,
        )
        page = await self._flights.fly(
            ("trades", symbol, to_ms, count, cursor, days_ago),
            priority,
            lambda ticket: self._ask("trades", ticket, asked),
        )
        return tuple(self._cache.stamps.mended(trade)[0] for trade in page)

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        """What the exchange lists; asked again when it is older than `max_age_s`.

        Raises:
            ProtocolError: it says that it lists none; the list known before is kept.
        """
        held = self._markets
        if held is not None and self._clock.monotonic() - held.asked_s < max_age_s:
            return held
        self._markets = await self._flights.fly(
            "markets",
            Priority.HIGH,
            lambda ticket: self._ask("market", ticket, self._asked_for_markets),
        )
        return self._markets

    async def _asked_for_markets(self) -> MarketList:
        asked_s = self._clock.monotonic()
        markets = await self._adapter.markets()
        if not markets:
            # Whoever believed it would take every market for delisted.
            raise ProtocolError(
                "the exchange's list of markets came empty, which cannot be: it is asked again"
            )
        return MarketList(markets, asked_s)

    async def _send_tickers(self, depart: Depart, ticket: Ticket) -> Collection[Ticker]:
        asked = await self._ask("ticker", ticket, lambda: self._tickers_of(depart()))
        return self._newest(asked)

    def _tickers_of(self, symbols: tuple[str, ...]) -> Awaitable[Collection[Ticker]]:
        """Ask for tickers; so many of one quote asset that all of it cost no more are asked so."""
        quotes = {symbol.partition("-")[0] for symbol in symbols}
        bounded = self._symbols_per_request is not None
        if not bounded and len(symbols) >= ALL_TICKERS_FROM * len(quotes):
            return self._adapter.all_tickers(sorted(quotes))
        return self._adapter.tickers(symbols)

    async def _send_books(self, depart: Depart, ticket: Ticket) -> Collection[Orderbook]:
        def asked() -> Awaitable[Collection[Orderbook]]:
            return self._adapter.orderbooks(depart(), depth=MAX_DEPTH, level=0)

        return self._newest(await self._ask("orderbook", ticket, asked))

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
        asked_s = self._clock.monotonic()
        granted = await limiter.acquire(who)
        if (who.priority if isinstance(who, Ticket) else who) is Priority.CRITICAL:
            now = self._clock.monotonic()
            self._critical_waits.append((now, now - asked_s))
        self._circuit.check()  # a block may have begun meanwhile
        self.requests += 1
        sent_s, answered = self._clock.monotonic(), False
        arrived = True
        try:
            result = await work()
            answered = True
        except RateLimitedError as error:
            self.refusals += 1
            self._reached(None)
            if error.blocked:
                self._circuit.open(error.retry_after_s)
                self._tasks.spawn(self._circuit.note(), name="note the block")
                self._circuit.check()
            self.too_fast += not error.blocked
            limiter.refused()
            raise
        except (DataUnavailableError, UnknownSymbolError, InvalidRequestError):
            self._reached(None)
            answered = True
            raise
        except TransportError as error:
            self._reached(error)
            arrived = False
            raise
        except ProtocolError as error:
            if not self._understood:
                self._reached(error)
            raise
        except asyncio.CancelledError:
            arrived = False
            sent_s = math.inf  # nobody waited for it: no fault of the channel
            raise
        finally:
            took_ms = (self._clock.monotonic() - sent_s) * 1_000
            if took_ms >= 0:
                self._on_answer(took_ms, answered)
            if arrived:
                limiter.answered(granted)
        self._understood = True
        self._reached(None)
        self._circuit.answered(sent_s)
        return result

    def _reached(self, failure: BackboneError | None) -> None:
        if (failure is None) != (self.failure is None):
            self.since_ms = self._clock.now_ms()
        self.failure = failure
        if failure is not None:
            self._failed_s = self._clock.monotonic()
