"""One reader of a stream: what it has not read yet, and how its subscription stands."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, Self

from upbit_backbone.errors import BackboneError, SlowConsumerError
from upbit_backbone.models import Candle
from upbit_backbone.protocol import Policy, Priority, SubscriptionState

MAX_UNREAD = 10_000
"""Values a reader of all may leave unread; the busiest market recorded sends this in minutes."""
MAX_CONFLATED = 64
"""Candles a reader of the latest may leave unread; of symbols there are only so many."""


def _not_known() -> None:
    """Most feeds do not tell."""


class Reader:
    """A `Subscription`: an async iterator that its feed pushes into.

    ``policy="latest"`` keeps one value per key: the newest of a symbol, and for candles the
    newest of each open time, so that a closed candle is not lost behind the next forming
    one (of too many unread the oldest is dropped). ``policy="all"`` keeps every value in order.
    """

    def __init__(
        self,
        policy: Policy,
        on_close: Callable[[Any], None],
        priority: Priority = Priority.NORMAL,
        *,
        most_unread: int = MAX_UNREAD,
        most_conflated: int = MAX_CONFLATED,
        complete_to_ms: Callable[[], int | None] = _not_known,
        on_priority: Callable[[Priority], None] | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            policy: What is kept.
            on_close: Told this reader when it ends, whyever.
            priority: Who goes first.
            most_unread: How many values of all may wait; one more ends the stream with an error.
            most_conflated: How many candles of the latest may wait.
            complete_to_ms: Up to when its feed has handed over everything, exchange time.
            on_priority: Told when its priority has changed.
        """
        self.priority = priority
        self._complete_to_ms = complete_to_ms
        self._on_priority = on_priority
        self._most_unread = most_unread
        self._most_conflated = most_conflated
        self._policy = policy
        self._on_close = on_close
        self._state: SubscriptionState = "pending"
        self._reason = "waiting for the first value"
        self._all: deque[Any] = deque()
        self._latest: OrderedDict[Hashable, Any] = OrderedDict()
        self._error: BackboneError | None = None
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self.begun = False
        """It was given a value."""

    @property
    def policy(self) -> Policy:
        return self._policy

    @property
    def state(self) -> SubscriptionState:
        return self._state

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def complete_to_ms(self) -> int | None:
        """Up to when everything was handed over, exchange time; None: that is not known."""
        return self._complete_to_ms()

    def set_priority(self, priority: Priority) -> None:
        """Who waits for it is more, or less, urgent from now on."""
        if priority is not self.priority:
            self.priority = priority
            if self._on_priority is not None:
                self._on_priority(priority)

    @property
    def unread(self) -> int:
        """How many values wait to be read."""
        return len(self._all) + len(self._latest)

    def push(self, value: Any) -> None:
        """Hand over a value; never waits."""
        if self._state == "closed":
            return
        self.begun = True
        # Where something is unread already its reader was woken for it.
        if self._policy == "latest":
            latest = self._latest
            if not latest:
                self._wake.set()
            if isinstance(value, Candle):
                latest[value.open_time] = value
                if len(latest) > self._most_conflated:
                    latest.popitem(last=False)
            else:
                # A value takes the place of the one it replaces: a busy symbol that went to the
                # end each time would never be read by a slow reader.
                latest[value.symbol] = value
        elif len(self._all) >= self._most_unread:
            self.fail(
                SlowConsumerError(
                    f"a reader left {self._most_unread} values unread and its stream was ended:"
                    ' read faster, or take policy="latest"'
                )
            )
        else:
            if not self._all:
                self._wake.set()
            self._all.append(value)

    def mark(self, state: SubscriptionState, reason: str = "") -> None:
        """Tell how the subscription stands now."""
        if self._state != "closed":
            self._state, self._reason = state, reason
            if state == "confirmed":
                self._settled.set()
            else:
                self._settled.clear()

    async def confirmed(self) -> None:
        """Wait until the exchange confirmed the subscription, or the stream has ended."""
        await self._settled.wait()

    def fail(self, error: BackboneError) -> None:
        """End the stream with an error, raised once the unread values are read."""
        if self._state != "closed":
            self._error = error
            self._end(str(error))

    def finish(self, reason: str) -> None:
        """End the stream once the unread values are read."""
        if self._state != "closed":
            self._end(reason)

    def close(self) -> None:
        """End the stream; unread values are dropped. May be called twice."""
        self._all.clear()
        self._latest.clear()
        self._error = None
        if self._state != "closed":
            self._end("closed by its reader")

    def _end(self, reason: str) -> None:
        self._state, self._reason = "closed", reason
        self._wake.set()
        self._settled.set()
        self._on_close(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while True:
            if self._all:
                return self._all.popleft()
            if self._latest:
                return self._latest.popitem(last=False)[1]
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._state == "closed":
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
