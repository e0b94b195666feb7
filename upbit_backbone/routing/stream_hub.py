"""The WebSocket: one connection that carries what all readers want together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection
from datetime import datetime
from random import Random
from typing import Literal

import msgspec

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    ProtocolError,
    RateLimitedError,
    StorageOriginError,
    TransportError,
)
from upbit_backbone.models import Gap, Orderbook, Ticker, Trade
from upbit_backbone.protocol import Policy, Priority
from upbit_backbone.routing.circuit import Circuit
from upbit_backbone.routing.exchange import ExchangeAdapter, ExchangeSocket, StreamEvent, StreamKind
from upbit_backbone.routing.rate_limit import WINDOW_S, RateLimiter, RateWindow
from upbit_backbone.routing.reader import Reader
from upbit_backbone.routing.realtime_cache import RealtimeCache, check_stamp

logger = logging.getLogger(__name__)

CONNECTS_PER_WINDOW = 5
"""https://docs.upbit.com/kr/reference/rate-limits"""
COALESCE_S = 0.02
"""Readers that come and go within this time cost one request together."""
MAX_BACKOFF_S = 30.0
STABLE_S = 10.0
"""A connection that lived this long resets the backoff; merely connecting does not."""
SNAPSHOT_S = 2.0
"""Snapshots were measured 0.2 to 0.4 s after the request. What streams without one after this
time (a market without any trade yet has none) is in force as well."""
REMEMBERED_TRADES = 2_000
"""Trade ids kept per symbol, to recognise a snapshot's trade that was delivered before."""

Connection = Literal["idle", "connecting", "live", "offline"]
_KINDS: dict[StreamKind, type] = {"ticker": Ticker, "orderbook": Orderbook}


class _Idle(Exception):
    """Nobody reads any more; the connection may go."""


class _TradeMemory:
    """Which trades of a symbol were delivered, and the newest one's time."""

    def __init__(self) -> None:
        self._order: deque[int] = deque(maxlen=REMEMBERED_TRADES)
        self._ids: set[int] = set()
        self.newest: datetime | None = None

    def is_new(self, trade: Trade) -> bool:
        if trade.sequential_id in self._ids:
            return False
        if len(self._order) == REMEMBERED_TRADES:
            self._ids.discard(self._order[0])
        self._order.append(trade.sequential_id)
        self._ids.add(trade.sequential_id)
        return True


class StreamHub:
    """Keeps one socket subscribed to the union of what its readers want.

    Subscriptions are state: whatever is wanted is sent again, whole, after a reconnect. A
    subscription is confirmed by the snapshot that follows it, for the exchange ignores
    unknown codes without a word. After a break, readers of all trades get
    ``Gap("open")`` at once and ``Gap("unfillable")`` when the stream flows again.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        cache: RealtimeCache,
        clock: Clock,
        rng: Random,
        circuit: Circuit,
    ) -> None:
        self._adapter = adapter
        self._cache = cache
        self._clock = clock
        self._rng = rng
        self._circuit = circuit
        self._readers: dict[tuple[StreamKind, str], set[Reader]] = {}
        self._sent: dict[tuple[StreamKind, str], float] = {}
        """What this connection was asked for, and since when."""
        self._confirmed: set[tuple[StreamKind, str]] = set()
        self._refused: set[tuple[StreamKind, str]] = set()
        self._trades: dict[str, _TradeMemory] = {}
        self._broken: dict[str, tuple[datetime, frozenset[Reader]]] = {}
        """Since when trades are missing, and who was told."""
        self._connected_s: float | None = None
        self._connects = RateLimiter(
            RateWindow(limit=CONNECTS_PER_WINDOW, window_s=WINDOW_S), clock
        )
        self._changed = asyncio.Event()
        self._closed = False
        self.connection: Connection = "idle"
        self.reason = "nobody reads a stream"
        self.since = utc_datetime(clock.now_ms())
        self.messages = 0
        self.reconnects = 0

    def open(self, kind: StreamKind, symbols: Collection[str], policy: Policy) -> Reader:
        """Subscribe a reader; its values come once `run` has the subscription confirmed."""
        if self._closed:
            raise ClosedError("the streams are closed: open a new service")
        keys = [(kind, symbol) for symbol in symbols]

        def forget(reader: Reader) -> None:
            for key in keys:
                readers = self._readers.get(key, set())
                readers.discard(reader)
                if not readers:
                    self._readers.pop(key, None)
                    # What the exchange still streams a next reader may take over.
                    if key not in self._sent:
                        self._forget_value(key)
            self._changed.set()

        reader = Reader(policy, forget)
        for key in keys:
            self._readers.setdefault(key, set()).add(reader)
        if all(key in self._confirmed for key in keys):
            reader.mark("confirmed")
        self._changed.set()
        return reader

    async def run(self) -> None:
        """Serve until cancelled: connect while somebody reads, reconnect when cut off."""
        attempt = 0
        try:
            while True:
                while not self._readers:
                    self._become("idle", "nobody reads a stream")
                    self._changed.clear()
                    await self._changed.wait()
                if (blocked_s := self._circuit.left_s) > 0:
                    self._become("offline", "the exchange blocks this address (418)")
                    await asyncio.sleep(blocked_s)
                    continue
                await self._connects.acquire(Priority.CRITICAL)
                if self.connection != "offline":
                    self._become("connecting", "")
                self._connected_s = None
                failure: BackboneError | None = None
                try:
                    await self._serve_connection()
                except _Idle:
                    continue
                except BackboneError as error:
                    failure = error
                except Exception as error:
                    # A fault of ours; one bad message must not end all streams for good.
                    logger.exception("the stream met an unexpected error")
                    failure = TransportError(f"an unexpected error ended the stream: {error!r}")
                finally:
                    if self._was_stable():
                        attempt = 0
                    self._interrupted(failure)
                # Full jitter: programs cut off together do not come back together.
                delay_s = self._rng.uniform(0, min(MAX_BACKOFF_S, 0.5 * 2**attempt))
                if isinstance(failure, RateLimitedError):
                    if failure.blocked:
                        self._circuit.open(failure.retry_after_s)
                    # A block holds for new connections, too; those that are open serve on.
                    delay_s += self._circuit.left_s or failure.retry_after_s or 1.0
                elif isinstance(failure, StorageOriginError):
                    delay_s = MAX_BACKOFF_S
                attempt = min(attempt + 1, 10)
                self.reconnects += 1
                self._become("offline", str(failure or "the connection ended"))
                await asyncio.sleep(delay_s)
        finally:
            self._end_readers()

    def _end_readers(self) -> None:
        self._closed = True
        for reader in {reader for readers in self._readers.values() for reader in readers}:
            reader.fail(ClosedError("the stream ended because the service closes"))
        self._become("offline", "closed")

    def _was_stable(self) -> bool:
        connected_s = self._connected_s
        return connected_s is not None and self._clock.monotonic() - connected_s >= STABLE_S

    async def _serve_connection(self) -> None:
        async with self._adapter.connect() as socket:
            self._connected_s = self._clock.monotonic()
            # No task group: before Python 3.13 one that ends by an error swallows a
            # cancellation that arrives meanwhile (cpython 116720), and the hub would go on.
            loop = asyncio.get_running_loop()
            all_ = (
                loop.create_task(self._receive(socket), name="stream receiver"),
                loop.create_task(self._keep_subscribed(socket), name="stream subscriber"),
                loop.create_task(socket.watch(self._alive), name="stream watch"),
            )
            try:
                ended, _ = await asyncio.wait(all_, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in all_:
                    task.cancel()
                await asyncio.gather(*all_, return_exceptions=True)
            for task in ended:
                task.result()

    async def _keep_subscribed(self, socket: ExchangeSocket) -> None:
        """Send the whole subscription whenever it changed, within the exchange's limits.

        5 messages a second and 100 a minute, per connection
        (https://docs.upbit.com/kr/reference/rate-limits).
        """
        limiters = [
            RateLimiter(RateWindow(limit=limit, window_s=window_s), self._clock)
            for limit, window_s in ((5, WINDOW_S), (100, 60 * WINDOW_S))
        ]
        while True:
            await asyncio.sleep(COALESCE_S)
            if self._readers and self._readers.keys() != self._sent.keys():
                for limiter in limiters:
                    await limiter.acquire(Priority.CRITICAL)
            self._changed.clear()
            if self._readers.keys() != self._sent.keys():
                self._replace_sent()
                if self._sent:
                    await socket.subscribe(self._wanted())
            if not self._sent:
                raise _Idle
            await self._changed.wait()

    def _replace_sent(self) -> None:
        """What nobody reads is given up; what is new waits for its snapshot."""
        now, given_up = self._clock.monotonic(), self._sent.keys() - self._readers.keys()
        self._sent = {key: self._sent.get(key, now) for key in self._readers}
        for key in given_up:
            self._confirmed.discard(key)
            self._forget_value(key)

    def _wanted(self) -> dict[StreamKind, frozenset[str]]:
        wanted: dict[StreamKind, set[str]] = {}
        for kind, symbol in self._readers:
            wanted.setdefault(kind, set()).add(symbol)
        return {kind: frozenset(symbols) for kind, symbols in wanted.items()}

    def _alive(self) -> None:
        """Nothing came, but the connection answers: what it told last is still true."""
        self._cache.alive(self._clock.monotonic())

    async def _receive(self, socket: ExchangeSocket) -> None:
        async for event in socket.events():
            self.messages += 1
            self._dispatch(event)
        raise TransportError("the exchange closed the stream")

    def _dispatch(self, event: StreamEvent) -> None:
        now = self._clock.monotonic()
        value = event.value
        kind: StreamKind = (
            "trade"
            if isinstance(value, Trade)
            else "ticker"
            if isinstance(value, Ticker)
            else "orderbook"
        )
        key = (kind, value.symbol)
        sent_s = self._sent.get(key)
        if sent_s is None:
            return  # up to two frames of a replaced subscription still arrive
        readers = self._readers.get(key, set())
        if self.connection != "live":
            self._become("live", "")
        self._cache.alive(now)
        if key not in self._confirmed and (event.snapshot or now - sent_s >= SNAPSHOT_S):
            self._confirm(key, readers)
        fresh: Ticker | Trade | Orderbook | None
        try:
            if isinstance(value, Trade):
                fresh = self._new_trade(value)
            else:
                live = key in self._confirmed
                fresh = value if self._cache.put(value, now, live=live) else None
        except ProtocolError as error:
            if key not in self._refused:
                logger.warning("%s, as the next ones will be", error)
            self._refused.add(key)
            return
        if key in self._refused:
            self._refused.discard(key)
            logger.info("%s of %s are taken again", kind, value.symbol)
        if fresh is not None:
            for reader in tuple(readers):
                reader.push(fresh)

    def _new_trade(self, trade: Trade) -> Trade | None:
        check_stamp(trade, self._clock.now_ms())
        memory = self._trades.setdefault(trade.symbol, _TradeMemory())
        if not memory.is_new(trade):
            return None
        if memory.newest is not None and trade.exchange_time < memory.newest:
            return msgspec.structs.replace(trade, late=True)
        memory.newest = trade.exchange_time
        return trade

    def _confirm(self, key: tuple[StreamKind, str], readers: set[Reader]) -> None:
        self._confirmed.add(key)
        kind, symbol = key
        broken = self._broken.pop(symbol, None) if kind == "trade" else None
        for reader in tuple(readers):
            reader.mark("confirmed")
            if broken is not None and reader in broken[1]:
                now = utc_datetime(self._clock.now_ms())
                reason = "the connection was lost; trades of this time were not received"
                reader.push(Gap(symbol, "unfillable", broken[0], now, reason))

    def _interrupted(self, failure: BackboneError | None) -> None:
        """The connection is gone: whatever was confirmed is so no longer."""
        self._cache.interrupted()
        reason = str(failure or "the connection ended")
        now = utc_datetime(self._clock.now_ms())
        lost, self._confirmed = self._confirmed, set()
        sent, self._sent = self._sent, {}
        for key in sent.keys() - self._readers.keys():
            self._forget_value(key)
        for key, readers in tuple(self._readers.items()):
            for reader in tuple(readers):
                reader.mark("pending" if reader.state == "pending" else "stale", reason)
            kind, symbol = key
            if kind == "trade" and key in lost:
                memory = self._trades.get(symbol)
                start = memory.newest if memory and memory.newest else now
                told = frozenset(reader for reader in readers if reader.policy == "all")
                self._broken[symbol] = start, told
                for reader in told:
                    reader.push(Gap(symbol, "open", start, now, reason))

    def _forget_value(self, key: tuple[StreamKind, str]) -> None:
        kind, symbol = key
        self._refused.discard(key)
        if kind == "trade":
            # A later reader starts with a snapshot of its own; nothing is owed to it.
            self._trades.pop(symbol, None)
            self._broken.pop(symbol, None)
        else:
            self._cache.unwatched(_KINDS[kind], symbol)

    def _become(self, connection: Connection, reason: str) -> None:
        if connection != self.connection:
            log = logger.warning if connection == "offline" and not self._closed else logger.info
            log("stream %s%s", connection, f": {reason}" if reason else "")
            self.since = utc_datetime(self._clock.now_ms())
        self.connection, self.reason = connection, reason
