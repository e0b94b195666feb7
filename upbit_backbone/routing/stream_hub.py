"""The WebSocket: one connection that carries what all readers want together."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    RateLimitedError,
    StorageOriginError,
)
from upbit_backbone.models import CandleSeries, Gap, Orderbook, Ticker, Trade
from upbit_backbone.protocol import Policy, Priority
from upbit_backbone.reader import Reader
from upbit_backbone.routing.circuit import Circuit
from upbit_backbone.routing.connection import StreamConnection, Wanted
from upbit_backbone.routing.exchange import (
    ExchangeAdapter,
    Garbled,
    StreamEvent,
    StreamKind,
)
from upbit_backbone.routing.failover import MAX_BACKOFF_S, Failover, State
from upbit_backbone.routing.gap_filler import GapFiller
from upbit_backbone.routing.interest import REQUESTS_TO_SUBSCRIBE, Interest, Key
from upbit_backbone.routing.loss_check import LossCheck
from upbit_backbone.routing.polling import Poller
from upbit_backbone.routing.rate_limit import WINDOW_S, RateLimiter, RateWindow
from upbit_backbone.routing.realtime_cache import RealtimeCache
from upbit_backbone.routing.rest_channel import RestChannel
from upbit_backbone.routing.rhythm import Rhythm
from upbit_backbone.routing.trade_stream import TradeGap, TradeStream
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

CONNECTS_PER_WINDOW = 5
"""https://docs.upbit.com/kr/reference/rate-limits"""
OVERTAKEN_S = 0.5
"""Of two healthy connections either may bring a trade first, by so much at most."""
STANDBY_S = 4.5
"""A standby has so long to be ready, so that two connections are never subscribed for 5 s."""
LOOK_EVERY_S = 0.25
TEND_EVERY_S = 1.0
REFERENCE_FLOWS_S = 5.0
"""The reference had a value so lately: the connection as such delivers."""
UNCONFIRMED_S = 5.0
"""A symbol without a snapshot for so long may not be listed."""
CHECK_LISTING_S = 30.0
MOST_GARBLED = 1_000
LISTING_EVERY_S = 600.0
LOOK_AT_CIRCUIT_S = 5.0
"""Another program of this user may have been told of a block."""
_HELD: dict[StreamKind, type[Ticker | Orderbook]] = {"ticker": Ticker, "orderbook": Orderbook}


class StreamHub:
    """Keeps a socket subscribed to the union of what its readers and the system want.

    Subscriptions are state: whatever is wanted is sent again, whole, after a reconnect. A
    subscription is confirmed by the snapshot that follows it, for the exchange ignores unknown
    codes without a word. When the connection is lost it is opened again; one that is suspected
    is replaced by a standby; while there is none REST is polled (`Failover`). What trades were
    lost meanwhile is read back (`TradeStream`, `GapFiller`).
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        *,
        cache: RealtimeCache,
        rest: RestChannel,
        circuit: Circuit,
        interest: Interest,
        tasks: TaskOwner,
        clock: Clock,
        rng: Random,
        fallbacks: bool = True,
        on_gap: Callable[[Gap], None] = lambda gap: None,
    ) -> None:
        self._adapter = adapter
        self._cache = cache
        self._rest = rest
        self._circuit = circuit
        self._interest = interest
        self._tasks = tasks
        self._clock = clock
        self._failover = Failover(clock, rng, may_poll=fallbacks)
        self._filler = GapFiller(rest, tasks, clock, rng, on_gap)
        self._poller = Poller(self, self._failover, rest, self._filler, clock)
        self._rhythm = Rhythm()
        self._reference: Key = ("ticker", adapter.reference)
        self._reference_heard_s = float("-inf")
        self._readers: dict[Key, set[Reader]] = {}
        self._asks: Counter[Key] = Counter()
        """How many of the readers wait for one value only."""
        self._trades: dict[str, TradeStream] = {}
        self._losses: dict[str, LossCheck] = {}
        """Of the symbols whose trades somebody has to get all of."""
        self._serving: StreamConnection | None = None
        self._standby: StreamConnection | None = None
        self._ahead: dict[Key, list[tuple[float, Trade]]] = {}
        """Trades that the standby had and the serving connection had not, and since when."""
        self._told_more: set[Key] = set()
        """What the standby told news of, though the serving connection seemed silent."""
        self._suspicion = self._loss_told = ""
        self._suspected: set[Key] = set()
        """What seems to be silent on the serving connection."""
        self._polled: dict[Key, Ticker | Orderbook] = {}
        """What was delivered since the stream is away."""
        self._connects = RateLimiter(
            RateWindow(limit=CONNECTS_PER_WINDOW, window_s=WINDOW_S), clock
        )
        self._turn = asyncio.Event()
        """Something happened that the main loop has to look at."""
        self._listing_checked_s = clock.monotonic()
        self._circuit_looked_s = clock.monotonic()
        self._polling = False
        self._closed = False
        self._unfillable = 0
        """How many gaps were given up when losses were looked for last."""
        self._garbled: set[tuple[StreamKind | None, str | None]] = set()
        """What was said of already."""
        self._too_fast = 0
        """How many connections were refused with 429."""
        self.garbled = 0
        self.messages = 0
        self.connections_lost = 0
        """How often a connection that values came by was lost."""
        self.reconnects = 0
        """How often values came again after that."""
        self._was_cut = False
        self.standbys = 0

    # What readers and the router see.

    @property
    def state(self) -> State:
        """How the stream stands."""
        return self._failover.state

    @property
    def failover(self) -> Failover:
        """How the stream stands, why, since when, and how it came there."""
        return self._failover

    @property
    def reason(self) -> str:
        """Why it stands so."""
        return self._failover.reason

    @property
    def since(self) -> datetime:
        """Since when it stands so."""
        return self._failover.since

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The newest thousand gaps of trades that have ended, and how."""
        return tuple(self._filler.ended)

    @property
    def counters(self) -> dict[str, float]:
        """Figures for the layer's status."""
        filler = self._filler
        return {
            "messages": float(self.messages),
            "http_429": float(self._rest.too_fast + self._too_fast),
            "garbled": float(self.garbled),
            "connections_lost": float(self.connections_lost),
            "reconnects": float(self.reconnects),
            "standbys": float(self.standbys),
            "polls": float(self._poller.rounds),
            "gaps_opened": float(filler.opened),
            "gaps_closed": float(filler.closed),
            "gaps_unfillable": float(filler.unfillable),
            "trades_read_back": float(filler.trades),
            "automatic_streams": float(len(self._interest.keys)),
            "stamp_faults": float(self._cache.stamps.faults),
        }

    def open(
        self,
        kind: StreamKind,
        symbols: Collection[str],
        policy: Policy,
        priority: Priority = Priority.NORMAL,
        *,
        held_first: bool = True,
        told_of_outages: bool = False,
    ) -> Reader:
        """Subscribe a reader; its values come once `run` has the subscription confirmed.

        Of what is streamed already it gets the newest value at once, unless not `held_first`. A
        reader of all trades that is `told_of_outages` gets a `Gap` while a long one lasts.
        """
        if self._closed:
            raise ClosedError("the streams are closed: open a new service")
        keys: list[Key] = [(kind, symbol) for symbol in symbols]

        def forget(reader: Reader) -> None:
            for key in keys:
                self._remove(key, reader)
            self.want()

        reader = Reader(policy, forget, priority)
        for key in keys:
            self._readers.setdefault(key, set()).add(reader)
            if kind == "trade":
                stream = self._trades.setdefault(key[1], TradeStream(key[1]))
                told = told_of_outages and policy == "all"
                stream.add_reader(reader, self._clock.now_ms(), told_of_outages=told)
                if policy == "all":
                    stream.check = self._losses.setdefault(key[1], LossCheck())
        in_force = (
            [] if self._serving is None else [k for k in keys if k in self._serving.confirmed]
        )
        if len(in_force) == len(keys):
            reader.mark("confirmed")
        elif self._failover.state in ("reconnecting", "polling", "blocked"):
            reader.mark("pending", self._failover.reason)
        if held_first and (held := _HELD.get(kind)) is not None:
            # No snapshot will come: what is held is the newest there is.
            now = self._clock.monotonic()
            for _, symbol in in_force:
                value = self._cache.peek(held, symbol, math.inf, now)
                if value is not None:
                    reader.push(value)
        self.want()
        return reader

    async def ask(self, kind: StreamKind, symbol: str) -> Any:
        """One value of a stream, subscribed to for the purpose; waits until it comes."""
        key = (kind, symbol)
        self._asks[key] += 1
        try:
            # What is held may be old: the connection may be dead, and nobody knows it yet.
            reader = self.open(kind, (symbol,), "latest", Priority.HIGH, held_first=False)
            async with reader:
                if self._serving is not None and key in self._serving.confirmed:
                    self._serving.ask_again()
                return await anext(reader)
        finally:
            self._asks[key] -= 1
            if not self._asks[key]:
                del self._asks[key]

    @property
    def ask_wait_s(self) -> float | None:
        """How long until `ask` could send its question; None: the socket is not live."""
        if self._serving is None or not self._failover.live:
            return None
        return self._serving.message_wait_s

    def is_watched(self, kind: StreamKind, symbol: str) -> bool:
        """Whether a stream of it is in force."""
        serving = self._serving
        return serving is not None and (kind, symbol) in serving.confirmed

    def complete_to_ms(self, symbol: str) -> int:
        """Up to when all trades of a symbol were delivered, but for gaps its readers know of."""
        # What was sent since the last sign of life may be on its way.
        stream, alive_ms = self._trades.get(symbol), self._alive_ms()
        return alive_ms if stream is None else stream.complete_to_ms(alive_ms)

    def _alive_ms(self) -> int:
        """The exchange's time of the serving connection's last sign of life."""
        now_ms = self._clock.now_ms()
        if self._serving is None or math.isinf(self._serving.life_s):
            return now_ms
        return now_ms - round((self._clock.monotonic() - self._serving.life_s) * 1_000)

    # The life of the connections.

    async def run(self) -> None:
        """Serve until cancelled: connect while anything is wanted, reconnect when cut off."""
        self._tasks.spawn(self._tend(), name="stream tending", vital=True)
        try:
            while True:
                while not self._is_wanted():
                    self._failover.become_idle()
                    self._was_cut = False
                    self._turn.clear()
                    await self._turn.wait()
                if (blocked_s := self._circuit.left_s) > 0:
                    self._block(blocked_s)
                    await asyncio.sleep(blocked_s)
                    continue
                self._failover.unblock()
                await self._connects.acquire(Priority.CRITICAL)
                self._failover.connecting()
                failure = await self._serve()
                if failure is None:
                    continue
                await asyncio.sleep(self._delay_s(failure))
        finally:
            self._end_readers()

    async def _serve(self) -> BaseException | None:
        """Serve by one connection after the other, while each takes over from the one before.

        Returns why the last one ended; None: nothing is wanted any more.
        """
        self._serving = self._connect()
        try:
            while True:
                self._turn.clear()
                await self._change_over()
                serving = self._serving
                if serving.ended:
                    failure = serving.failure or ClosedError("the connection ended")
                    self._lost(failure)
                    return failure
                if not self._is_wanted():
                    self._lost(None)
                    return None
                # A block holds for new connections as well.
                allowed = self._circuit.left_s == 0
                if self._suspicion and allowed and self._failover.suspect(self._suspicion):
                    await self._connects.acquire(Priority.CRITICAL)
                    self.standbys += 1
                    self._ahead.clear()
                    self._told_more.clear()
                    self._standby = self._connect()
                self._suspicion = ""
                try:
                    async with asyncio.timeout(LOOK_EVERY_S if self._standby else None):
                        await self._turn.wait()
                except TimeoutError:
                    continue
        finally:
            serving, self._serving = self._serving, None
            standby, self._standby = self._standby, None
            both = [one for one in (serving, standby) if one is not None]
            for connection in both:
                connection.cancel()  # all of them, before a wait that may be cancelled
            for connection in both:
                await connection.close()

    async def _change_over(self) -> None:
        """Let a standby that is ready take over; end one that is not ready in time."""
        serving, standby = self._serving, self._standby
        if serving is None or standby is None:
            return
        if standby.ready and not standby.ended:
            self._take_over(serving, standby)
            await serving.close()
        elif standby.ended or self._clock.monotonic() - standby.began_s >= STANDBY_S:
            self._standby = None
            await standby.close()
            self._refused(standby.failure)
            self._failover.taken_over(founded=False)
        elif serving.ended and serving.failure is not None:
            # It is not ready yet, but sooner than another one: its first value makes it live.
            self._lost(serving.failure)
            self._failover.lost(str(serving.failure))
            self._serving, self._standby = standby, None
            for key in standby.confirmed:
                self._in_force(key)

    def _connect(self) -> StreamConnection:
        connection = StreamConnection(
            self._adapter,
            self._clock,
            wanted=self._wanted,
            on_event=self._dispatch,
            on_garbled=self._take_garbled,
            on_life=self._alive,
            on_dropped=self._dropped,
            on_change=self._turn.set,
        )
        connection.start()
        return connection

    def _take_over(self, old: StreamConnection, new: StreamConnection) -> None:
        """The standby serves from now on; what it had and the other had not was lost there."""
        now = self._clock.monotonic()
        reason = self._failover.reason
        self._serving, self._standby = new, None
        self._cache.interrupted()
        for kind, symbol in new.confirmed:
            if (held := _HELD.get(kind)) is not None:
                self._cache.confirm(held, symbol)
        self._cache.alive(now)
        lossy = {key for key in self._ahead if self._was_lost(key, now)}
        for suspected in self._suspected - lossy - self._told_more:
            self._rhythm.unfounded(suspected, now)
        founded = bool(lossy or self._told_more) or reason == self._loss_told
        self._suspected.clear()
        self._rhythm.restart(now)
        for symbol, stream in self._trades.items():
            key: Key = ("trade", symbol)
            if old.ended or self._is_ahead(key) or key not in new.confirmed:
                stream.broken(self._clock.now_ms(), reason)
            if key in new.confirmed:
                self._resume(symbol, stream)
        for key, readers in self._readers.items():
            for reader in tuple(readers):
                if key in new.confirmed:
                    reader.mark("confirmed")
                elif reader.state == "confirmed":
                    reader.mark("stale", reason)
        self._failover.taken_over(founded=founded)

    def _is_ahead(self, key: Key) -> bool:
        """Whether the standby had trades that never came on the other connection."""
        stream = self._trades.get(key[1])
        return stream is not None and any(
            not stream.knows(trade) for _, trade in self._ahead.get(key, ())
        )

    def _was_lost(self, key: Key, now: float) -> bool:
        """Whether the standby had trades for a while that never came on the other connection."""
        stream = self._trades.get(key[1])
        return stream is not None and any(
            now - since_s > OVERTAKEN_S and not stream.knows(trade)
            for since_s, trade in self._ahead[key]
        )

    def _lost(self, failure: BaseException | None) -> None:
        """The connection is gone: whatever was confirmed is so no longer."""
        serving = self._serving
        assert serving is not None
        if failure is not None and not isinstance(failure, BackboneError):
            # A fault of ours; one bad message must not end all streams for good.
            logger.error("the stream met an unexpected error", exc_info=failure)
        reason = "the connection ended" if failure is None else str(failure) or repr(failure)
        if failure is not None and self._failover.state in ("connecting", "live", "suspicious"):
            logger.warning("stream lost: %s", reason)
        if failure is not None and self._failover.live:
            self.connections_lost += 1
            self._was_cut = True
        alive_ms = self._alive_ms()
        self._cache.interrupted()
        self._rhythm.restart(self._clock.monotonic())
        polled = self._failover.state == "polling"
        for key, readers in tuple(self._readers.items()):
            for reader in () if polled else tuple(readers):
                reader.mark("pending" if reader.state == "pending" else "stale", reason)
            if key[0] == "trade" and key in serving.confirmed:
                self._trades[key[1]].broken(alive_ms, reason)

    def _delay_s(self, failure: BaseException) -> float:
        """How long to wait before the next connection."""
        delay_s = self._failover.lost(str(failure) or repr(failure))
        if self._refused(failure) and self._circuit.left_s > 0:
            # It holds for new connections, too; `run` waits for its end.
            delay_s = 0.0
        elif isinstance(failure, RateLimitedError):
            delay_s += failure.retry_after_s or 1.0
        elif isinstance(failure, StorageOriginError):
            delay_s = MAX_BACKOFF_S
        return delay_s

    def _refused(self, failure: BaseException | None) -> bool:
        """Whether a connection was refused by a block (418): then nobody asks any more."""
        if not isinstance(failure, RateLimitedError):
            return False
        if not failure.blocked:
            self._too_fast += 1
            return False
        self._circuit.open(failure.retry_after_s)
        self._tasks.spawn(self._circuit.note(), name="note the block")
        return True

    def _block(self, seconds: float) -> None:
        end = utc_datetime(self._clock.now_ms() + round(seconds * 1_000))
        reason = f"the exchange blocks this address until {end:%H:%M:%S} UTC (418)"
        self._failover.block(reason)
        for readers in self._readers.values():
            for reader in tuple(readers):
                reader.mark("pending" if reader.state == "pending" else "stale", reason)

    def _end_readers(self) -> None:
        self._closed = True
        for reader in {reader for readers in self._readers.values() for reader in readers}:
            reader.fail(ClosedError("the stream ended with its layer"))
        self._failover.close()

    # What is wanted.

    def _is_wanted(self) -> bool:
        return bool(self._readers or self._interest.keys)

    def _wanted(self) -> Wanted:
        explicit = {self._reference}
        for key, readers in self._readers.items():
            if len(readers) > self._asks.get(key, 0):
                explicit.add(key)
        # The sums of the ticker prove that no trade is missing.
        explicit.update(("ticker", symbol) for symbol in self._losses)
        return Wanted(frozenset(explicit), frozenset(self._asks), self._interest.keys)

    def want(self) -> None:
        """What is wanted of the stream has changed."""
        for connection in (self._serving, self._standby):
            if connection is not None:
                connection.changed.set()
        self._turn.set()

    def _remove(self, key: Key, reader: Reader) -> None:
        kind, symbol = key
        readers = self._readers.get(key, set())
        readers.discard(reader)
        if not readers:
            self._readers.pop(key, None)
        if kind == "trade" and (stream := self._trades.get(symbol)) is not None:
            stream.remove_reader(reader)
            if not stream.wants_all:
                self._losses.pop(symbol, None)
                stream.check = None
            if not readers:
                del self._trades[symbol]

    # What arrives.

    def _alive(self, connection: StreamConnection) -> None:
        """Nothing came, but the connection answers: what it told last is still true."""
        if connection is self._serving:
            self._cache.alive(self._clock.monotonic())

    def _dropped(self, connection: StreamConnection, key: Key) -> None:
        """It is not streamed any more: what is held of it ages from now on."""
        if connection is self._serving:
            self._rhythm.forget(key)
            if (held := _HELD.get(key[0])) is not None:
                self._cache.unwatched(held, key[1])

    def _dispatch(self, connection: StreamConnection, event: StreamEvent) -> None:
        now = self._clock.monotonic()
        value = event.value
        key = (event.kind, value.symbol)
        connection.lives(now)
        news = False
        if key not in connection.confirmed:
            if key not in connection.sent:
                return  # up to two frames of a replaced subscription still arrive
            news = connection.confirm(key, snapshot=event.snapshot, now=now)
        self.messages += 1
        serving = connection is self._serving
        if serving:
            self._cache.alive(now)
            self._rhythm.heard(key, now)
            if key == self._reference:
                self._reference_heard_s = now
            if not self._failover.live:
                self._flow()
            if news:
                self._in_force(key)
            if self._suspected and key in self._suspected:
                self._suspected.discard(key)
                for reader in tuple(self._readers.get(key, ())):
                    reader.mark("confirmed")
        if isinstance(value, Trade):
            self._take_trade(key, value, serving=serving)
        elif isinstance(value, CandleSeries):
            self._push(key, value)
        elif self._cache.put(value, now, live=serving and key in connection.confirmed):
            value = self._cache.newest(value)
            if not serving:
                if key in self._suspected:
                    self._told_more.add(key)
            elif isinstance(value, Ticker) and (check := self._losses.get(value.symbol)):
                check.ticker(value)
            self._push(key, value)
        elif serving:
            # Nothing new, except for those who were given nothing yet.
            for reader in tuple(self._readers.get(key, ())):
                if not reader.begun:
                    reader.push(self._cache.newest(value))

    def _take_garbled(self, connection: StreamConnection, garbled: Garbled) -> None:
        """What a frame told is lost: what is held of its stream may be old until the next one."""
        now = self._clock.monotonic()
        connection.lives(now)
        if connection is not self._serving:
            return
        self.garbled += 1
        self._cache.alive(now)
        if garbled.kind is None or garbled.symbol is None:
            self._cache.doubt()
        elif (held := _HELD.get(garbled.kind)) is not None:
            self._cache.suspect(held, garbled.symbol)
        key = (garbled.kind, garbled.symbol)
        if key not in self._garbled and len(self._garbled) < MOST_GARBLED:
            self._garbled.add(key)
            logger.warning("%s (left out, as the next ones will be)", garbled.reason)

    def _flow(self) -> None:
        if not self._failover.flows():
            return
        if self._was_cut:
            self._was_cut = False
            self.reconnects += 1
        self._polled.clear()
        confirmed = set[Key]() if self._serving is None else self._serving.confirmed
        for key, readers in self._readers.items():
            for reader in () if key in confirmed else tuple(readers):
                if reader.state == "confirmed":  # by polling, which has ended
                    reader.mark("stale", "the stream is back, and has not told of this yet")

    def _push(self, key: Key, value: Ticker | Orderbook | CandleSeries) -> None:
        for reader in tuple(self._readers.get(key, ())):
            reader.push(value)

    def _take_trade(self, key: Key, trade: Trade, *, serving: bool) -> None:
        stream = self._trades.get(trade.symbol)
        if stream is None:
            return
        if not serving:
            if not stream.knows(trade):
                self._ahead.setdefault(key, []).append((self._clock.monotonic(), trade))
            return
        trade, trusted = self._cache.stamps.mended(trade)
        stream.live(trade, trusted=trusted)

    def _in_force(self, key: Key) -> None:
        """The serving connection was seen to stream this."""
        for reader in tuple(self._readers.get(key, ())):
            reader.mark("confirmed")
        kind, symbol = key
        if kind == "trade" and (stream := self._trades.get(symbol)) is not None:
            self._resume(symbol, stream)

    def _resume(self, symbol: str, stream: TradeStream) -> None:
        former = stream.unbounded
        gap = stream.resumed(self._clock.now_ms())
        if gap is not None:
            self._filler.fill(symbol, stream, gap)
        elif former is not None:
            former.reason = f"{former.reason}; nobody reads all trades, so they were not read back"
            self._filler.note(symbol, former, "unfillable")

    # While the stream is away: `Polled`.

    def watched(self, kind: StreamKind) -> list[str]:
        """The symbols of which somebody wants values of this kind."""
        keys = self._readers.keys() | self._interest.keys
        return sorted(symbol for one, symbol in keys if one == kind)

    def trades_to_poll(self) -> list[tuple[str, TradeStream]]:
        """Symbols whose trades have readers, those of readers of all first."""
        for stream in self._trades.values():
            stream.broken(self._clock.now_ms(), self._failover.reason)
        return sorted(self._trades.items(), key=lambda item: not item[1].wants_all)

    def take_polled(self, values: Iterable[Ticker | Orderbook]) -> None:
        """Deliver what was polled; it is in the realtime cache already."""
        for value in values:
            kind: StreamKind = "ticker" if isinstance(value, Ticker) else "orderbook"
            if self._polled.get((kind, value.symbol)) is not value:
                self._polled[kind, value.symbol] = value
                self._push((kind, value.symbol), value)

    def mark_polled(self, kind: StreamKind, symbol: str, failure: str) -> None:
        """Tell readers that their values are polled, or (`failure`) why they are not fresh."""
        if self._failover.live:
            return  # the stream came back meanwhile
        why = self._failover.reason
        for reader in tuple(self._readers.get((kind, symbol), ())):
            if failure:
                reader.mark("stale", f"{why}; polling does not keep up: {failure}")
            else:
                reader.mark("confirmed", f"polled by REST once a second: {why}")

    # What is looked after once a second.

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            try:
                await self._look_after()
            except Exception:
                # A fault of ours; looking after streams must not end for good.
                logger.exception("looking after the streams met an unexpected error")

    async def _look_after(self) -> None:
        now = self._clock.monotonic()
        self._tend_automatic(now)
        if self._failover.poll() and not self._polling:
            self._polling = True
            self._tasks.spawn(self._poll(), name="polling")
        if not self._failover.live:
            for stream in self._trades.values():
                stream.tell_of_outage(self._clock.now_ms())
        if self._failover.state == "live":
            self._look_for_silence(now)
            self._look_for_losses()
        if self._listing_is_due(now):
            self._listing_checked_s = now
            self._tasks.spawn(self._check_listing(), name="listing check")
        if now - self._circuit_looked_s >= LOOK_AT_CIRCUIT_S:
            self._circuit_looked_s = now
            await self._circuit.look()

    async def _poll(self) -> None:
        try:
            await self._poller.run()
        finally:
            self._polling = False

    def _tend_automatic(self, now: float) -> None:
        """Stream what is asked for often, and no longer what nobody asks for."""
        for key in self._interest.keys:
            if (held := _HELD.get(key[0])) is not None:
                asked_s = self._cache.asked_s(held, key[1])
                if asked_s is not None:
                    self._interest.touched[key] = asked_s
        wanted = False
        for held, symbol, asks in self._cache.take_asks():
            kind: StreamKind = "ticker" if held is Ticker else "orderbook"
            for _ in range(min(asks, REQUESTS_TO_SUBSCRIBE)):
                wanted |= self._interest.asked(kind, symbol, Priority.NORMAL, now)
        if self._interest.idle(now) or wanted:
            self.want()

    def _look_for_silence(self, now: float) -> None:
        flows = now - self._reference_heard_s < REFERENCE_FLOWS_S
        suspicions = self._rhythm.suspects(now, flows)
        for one in suspicions:
            kind, symbol = one.key
            if one.key not in self._suspected:
                self._suspected.add(one.key)
                for reader in tuple(self._readers.get(one.key, ())):
                    reader.mark("stale", f"{kind} of {symbol} is silent for {one.silent_s:.0f} s")
            if (held := _HELD.get(kind)) is not None:
                self._cache.suspect(held, symbol)
        if suspicions:
            kind, symbol = suspicions[0].key
            self._suspect(
                f"{kind} of {symbol} is silent for {suspicions[0].silent_s:.0f} s"
                f" (usually at most {suspicions[0].usual_s:.0f} s)"
            )

    def _look_for_losses(self) -> None:
        now_ms = self._clock.now_ms()
        unfillable = self._filler.unfillable != self._unfillable
        self._unfillable = self._filler.unfillable
        for symbol, check in self._losses.items():
            stream = self._trades.get(symbol)
            if stream is None or stream.gaps:
                continue  # what is being read back counts as well
            if unfillable:
                check.reset()
                continue
            if (loss := check.check(now_ms)) is None:
                continue
            if not loss.missing_volume:
                gap = stream.lost(loss.from_ms, loss.to_ms, f"{symbol}: not proved to be complete")
                if gap is not None:
                    self._filler.fill(symbol, stream, gap)
                continue
            reason = f"trades of {symbol} were lost on the way"
            gap = stream.lost(loss.from_ms, loss.to_ms, reason)
            if gap is not None:
                self._filler.fill(
                    symbol, stream, gap, on_end=partial(self._judge, stream.read_back)
                )
            self._loss_told = reason
            self._suspect(reason)

    def _judge(self, before: int, symbol: str, gap: TradeGap) -> None:
        check, stream = self._losses.get(symbol), self._trades.get(symbol)
        if check is None or stream is None or not gap.owed:
            return  # whoever was owed the trades has left: nothing was looked for
        # Whichever gap they were read back for: the connection may have broken meanwhile.
        if stream.read_back > before:
            check.founded()
        else:
            check.unfounded(self._clock.now_ms())

    def _suspect(self, reason: str) -> None:
        self._suspicion = reason
        self._turn.set()

    def _listing_is_due(self, now: float) -> bool:
        since_s = now - self._listing_checked_s
        if not self._is_wanted() or since_s < CHECK_LISTING_S:
            return False
        # What is polled in vain, or what no snapshot came for, may not be listed any more.
        serving = self._serving
        waiting = self._rest.failing or (
            serving is not None
            and any(
                now - sent_s >= UNCONFIRMED_S
                for key, sent_s in serving.sent.items()
                if key not in serving.confirmed and (key in self._readers or key in self._interest)
            )
        )
        return waiting or self._polling or since_s >= LISTING_EVERY_S

    async def _check_listing(self) -> None:
        """End the streams of what the exchange does not list any more."""
        try:
            listing = await self._rest.markets(max_age_s=CHECK_LISTING_S)
        except BackboneError as error:
            logger.info("the listing was not read: %s", error)
            return
        listed = {market.symbol for market in listing.markets}
        for key in [*self._readers, *self._interest.keys]:
            if key[1] in listed:
                continue
            self._interest.forget(key)
            ended = DataUnavailableError(
                f"{key[1]} is not listed on the exchange any more: its stream has ended"
            )
            for reader in tuple(self._readers.get(key, ())):
                reader.fail(ended)
