"""The exchange's request limits: decided in plain code, waited for in one place.

Upbit counts ten requests a second for each group (https://docs.upbit.com/kr/reference/rate-limits).
Whether its second begins on the wall clock or with the first request is not certain, so a
sliding window with a margin is kept, which satisfies both.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from itertools import count

from upbit_backbone.clock import Clock
from upbit_backbone.protocol import Priority

REQUESTS_PER_WINDOW = 10
WINDOW_S = 1.05
"""The exchange's second, plus what two clocks and a network may shift a request by."""


class RateWindow:
    """Sliding window: no more than `limit` grants in any `window_s` seconds.

    Pure bookkeeping: no clock, no sleep, no I/O; the caller passes `now`. `reserve` of the
    grants only CRITICAL may take.
    """

    def __init__(self, *, limit: int, window_s: float, reserve: int = 0) -> None:
        self._limit = limit
        self._window_s = window_s
        self._reserve = reserve
        self._grants: deque[tuple[float, bool]] = deque()
        self._blocked_until = 0.0

    def wait_s(self, now: float, priority: Priority) -> float:
        """Seconds until a grant of this priority is possible; 0.0: now."""
        self._forget(now)
        waits = [self._blocked_until - now]
        if len(self._grants) >= self._limit:
            oldest, _ = self._grants[len(self._grants) - self._limit]
            waits.append(oldest + self._window_s - now)
        if priority is not Priority.CRITICAL:
            others = [at for at, critical in self._grants if not critical]
            shared = self._limit - self._reserve
            if len(others) >= shared:
                waits.append(others[len(others) - shared] + self._window_s - now)
        return max(0.0, *waits)

    def grant(self, now: float, priority: Priority) -> None:
        """Count a request sent at `now`; the caller asked `wait_s` first."""
        self._grants.append((now, priority is Priority.CRITICAL))

    def block(self, now: float, seconds: float) -> None:
        """Grant nothing for a time: the exchange refused a request."""
        self._blocked_until = max(self._blocked_until, now + seconds)

    def _forget(self, now: float) -> None:
        while self._grants and self._grants[0][0] + self._window_s <= now:
            self._grants.popleft()


class RateLimiter:
    """Waiting for a `RateWindow`, the most urgent first, equals in order of arrival."""

    def __init__(self, window: RateWindow, clock: Clock) -> None:
        self._window = window
        self._clock = clock
        self._waiting: list[tuple[Priority, int, asyncio.Event]] = []
        self._arrivals = count()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    def block(self, seconds: float) -> None:
        """Grant nothing for a time: the exchange refused a request."""
        self._window.block(self._clock.monotonic(), seconds)

    async def acquire(self, priority: Priority) -> None:
        """Wait for the right to send one request. Cancelling gives the place back."""
        if not self._waiting and self._take(priority):
            return
        turn = asyncio.Event()
        ticket = (priority, next(self._arrivals), turn)
        heapq.heappush(self._waiting, ticket)
        try:
            while self._waiting[0] is not ticket or not self._take(priority):
                turn.clear()
                # Only the first in line has a time to wait for; the others are woken by it.
                # The clock is asked again after each wait: Qt's timers fire early, too.
                delay = (
                    self._window.wait_s(self._clock.monotonic(), priority)
                    if self._waiting[0] is ticket
                    else None
                )
                try:
                    async with asyncio.timeout(delay):
                        await turn.wait()
                except TimeoutError:
                    pass
        finally:
            self._waiting.remove(ticket)
            heapq.heapify(self._waiting)
            if self._waiting:
                self._waiting[0][2].set()

    def _take(self, priority: Priority) -> bool:
        now = self._clock.monotonic()
        if self._window.wait_s(now, priority) > 0:
            return False
        self._window.grant(now, priority)
        return True
