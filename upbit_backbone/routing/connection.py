"""One connection of the stream: what it was asked for, and what of that is in force."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from upbit_backbone.clock import Clock
from upbit_backbone.errors import ProtocolError, TransportError
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.exchange import (
    ExchangeAdapter,
    ExchangeSocket,
    Garbled,
    StreamEvent,
    StreamKind,
)
from upbit_backbone.routing.interest import ChangePace, Key
from upbit_backbone.routing.rate_limit import WINDOW_S, RateLimiter, RateWindow

COALESCE_S = 0.02
"""Readers that come and go within this time cost one request together."""
SNAPSHOT_S = 2.0
"""Snapshots were measured 0.2 to 0.4 s after the request. What streams without one after this
time (a market without any trade yet has none) is in force as well."""
ASK_AGAIN_S = 3.0
STANDSTILL_S = 10.0
MOST_GARBLED = 20
"""Frames in a row that are not understood: then it is not one market that is odd."""
MAX_ASK_AGAIN_S = 300.0
"""What is not confirmed is asked for again after a while, twice as long each time."""
LOOK_EVERY = 16
"""So many values are handled before the clock is looked at."""
BUSY_S = 0.002
"""After so long others have their turn: timers, and whatever draws."""
_MESSAGE_LIMITS = ((5, WINDOW_S, 2), (100, 60 * WINDOW_S, 40))
"""Of one connection, https://docs.upbit.com/kr/reference/rate-limits: so many in so many seconds,
of which the last are kept for what somebody reads."""


class Wanted(NamedTuple):
    """What the connection is to carry."""

    explicit: frozenset[Key]
    """Somebody reads it: asked for at once."""
    asked: frozenset[Key]
    """Somebody waits for one value of it: asked for at once, as long as messages are left."""
    automatic: frozenset[Key]
    """The system wants it: it can wait a second."""

    @property
    def keys(self) -> frozenset[Key]:
        """All of it."""
        return self.explicit | self.asked | self.automatic


class StreamConnection:
    """Keeps one socket subscribed to what is wanted, and tells what it receives.

    The whole subscription is sent again whenever it changes; what was confirmed stays so. Each
    connection carries the reference, so that a living one is never silent.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        clock: Clock,
        *,
        wanted: Callable[[], Wanted],
        on_event: Callable[[StreamConnection, StreamEvent], None],
        on_garbled: Callable[[StreamConnection, Garbled], None],
        on_life: Callable[[StreamConnection], None],
        on_dropped: Callable[[StreamConnection, Key], None],
        on_change: Callable[[], None],
    ) -> None:
        """Take the callbacks; `serve` connects.

        Args:
            adapter: The exchange.
            clock: Its time.
            wanted: What the connection is to carry, asked whenever `changed` is set.
            on_event: Called with every value of something that was asked for.
            on_garbled: Called with every frame that was not understood.
            on_life: Called at each pong.
            on_dropped: Called with what was in force and was given up.
            on_change: Called when the connection has ended.
        """
        self._adapter = adapter
        self._clock = clock
        self._wanted = wanted
        self._on_event = on_event
        self._on_garbled = on_garbled
        self._on_life = on_life
        self._on_dropped = on_dropped
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._asked_s = float("-inf")
        self._ask_again_s = ASK_AGAIN_S
        self._again = False
        self._pace = ChangePace()
        self._limiters = [
            RateLimiter(RateWindow(limit=limit, window_s=window_s, reserve=reserve), clock)
            for limit, window_s, reserve in _MESSAGE_LIMITS
        ]
        self.sent: dict[Key, float] = {}
        """What was asked for, and since when."""
        self.confirmed: set[Key] = set()
        self.changed = asyncio.Event()
        self.began_s = clock.monotonic()
        self.life_s = math.inf
        """When it gave its last sign of life: data, or a pong."""
        self.failure: BaseException | None = None

    @property
    def ended(self) -> bool:
        """Whether it is gone; `failure` tells why."""
        return self._task is not None and self._task.done()

    @property
    def ready(self) -> bool:
        """Everything that can be expected to come has come: it could serve alone."""
        if not self.sent or not self.confirmed or self.ended:
            return False
        if self.sent.keys() <= self.confirmed:
            return True
        return self._clock.monotonic() - self._asked_s >= SNAPSHOT_S

    @property
    def message_wait_s(self) -> float:
        """How long a question sent now would wait for the limit of messages."""
        return max(limiter.wait_s(Priority.NORMAL) for limiter in self._limiters)

    def start(self) -> None:
        """Connect and serve in a task of its own; `close` ends it."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._serve(), name="stream connection")
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Begin to end the connection."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """End the connection and wait until it is gone."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))

    def confirm(self, key: Key, *, snapshot: bool, now: float) -> bool:
        """Take a value of `key` for a sign that it is in force; True when that is news."""
        if key in self.confirmed:
            return False
        if not snapshot and now - self.sent[key] < SNAPSHOT_S:
            return False
        self.confirmed.add(key)
        return True

    def ask_again(self) -> None:
        """Send the same subscription once more, for the snapshots that follow."""
        self._again = True
        self.changed.set()

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.failure = task.exception()
        self._on_change()

    async def _serve(self) -> None:
        async with self._adapter.connect() as socket:
            self.life_s = self._clock.monotonic()
            # No task group: before Python 3.13 one that ends by an error swallows a
            # cancellation that arrives meanwhile (cpython 116720), and this would go on.
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

    def lives(self, now: float) -> None:
        """Note a sign of life.

        Raises:
            TransportError: it comes too late. The connection is asked for one each second, so
                this computer slept or stood still; nobody knows what was lost meanwhile.
        """
        if now - self.life_s > STANDSTILL_S:
            raise TransportError(
                f"this computer stood still for {now - self.life_s:.0f} s: open another connection"
            )
        self.life_s = now

    def _alive(self) -> None:
        self.lives(self._clock.monotonic())
        self._on_life(self)

    async def _receive(self, socket: ExchangeSocket) -> None:
        on_event, monotonic = self._on_event, self._clock.monotonic
        left, gave_way_s = LOOK_EVERY, monotonic()
        in_a_row = 0
        async for event in socket.events():
            if isinstance(event, Garbled):
                in_a_row += 1
                if in_a_row > MOST_GARBLED:
                    raise ProtocolError(
                        f"nothing that came was understood any more: {event.reason}"
                    )
                self._on_garbled(self, event)
                continue
            in_a_row = 0
            on_event(self, event)
            left -= 1
            if not left:
                left = LOOK_EVERY
                if monotonic() - gave_way_s >= BUSY_S:
                    # What has arrived already is read without waiting: hundreds in a row.
                    await asyncio.sleep(0)
                    gave_way_s = monotonic()
        raise TransportError("the exchange closed the stream")

    async def _keep_subscribed(self, socket: ExchangeSocket) -> None:
        """Send the whole subscription whenever it changed, within the exchange's limits."""
        while True:
            await asyncio.sleep(COALESCE_S)
            self.changed.clear()
            if self._wait_s() == 0:
                urgent = not self._wanted().explicit <= self.sent.keys()
                for limiter in self._limiters:
                    await limiter.acquire(Priority.CRITICAL if urgent else Priority.NORMAL)
                self.changed.clear()
                await self._send(socket)
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self.changed.wait()
            except TimeoutError:
                continue

    def _wait_s(self) -> float | None:
        """Seconds until something is to be sent; 0.0: now; None: when something changes."""
        now, wanted = self._clock.monotonic(), self._wanted()
        if not wanted.explicit <= self.sent.keys():
            return 0.0
        waits = []
        if self._again or not wanted.asked <= self.sent.keys():
            waits.append(0.0)
        if self.sent.keys() != wanted.keys:
            waits.append(self._pace.due_in(now))
        if not self.sent.keys() <= self.confirmed:
            waits.append(max(0.0, self._asked_s + self._ask_again_s - now))
        # Not in the limiter: what somebody reads may be wanted meanwhile.
        return max(min(waits), self.message_wait_s) if waits else None

    async def _send(self, socket: ExchangeSocket) -> None:
        now = self._clock.monotonic()
        keys = self._wanted().keys
        if keys != self.sent.keys():
            self._ask_again_s = ASK_AGAIN_S
        elif not self._again:
            # The same again: for those that no snapshot came for.
            self._ask_again_s = min(MAX_ASK_AGAIN_S, self._ask_again_s * 2)
        self.sent = {key: self.sent.get(key, now) for key in keys}
        for key in self.confirmed - keys:
            self.confirmed.discard(key)
            self._on_dropped(self, key)
        self._asked_s, self._again = now, False
        self._pace.changed(now)
        await socket.subscribe(_by_kind(keys))


def _by_kind(keys: Iterable[Key]) -> dict[StreamKind, Collection[str]]:
    wanted: dict[StreamKind, set[str]] = {}
    for kind, symbol in keys:
        wanted.setdefault(kind, set()).add(symbol)
    return {kind: frozenset(symbols) for kind, symbols in wanted.items()}
