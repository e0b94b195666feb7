"""The exchange's request limits: decided in plain code, waited for in one place.

Upbit counts ten requests a second for each group (https://docs.upbit.com/kr/reference/rate-limits).
Whether its second begins on the wall clock or with the first request is not certain, so a
sliding window with a margin is kept, which satisfies both.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from itertools import count
from typing import NamedTuple

from upbit_backbone.clock import Clock
from upbit_backbone.protocol import Priority

REQUESTS_PER_WINDOW = 10
WINDOW_S = 1.05
"""The exchange's second, plus what two clocks and a network may shift a request by."""
SLOWEST_PACE = 1 / 8
PACE_RECOVERY_S = 60.0
"""From nothing to the full rate after refusals; from a half it takes half of that."""
TURNS_TO_THE_OLDEST = 10
"""One in so many grants that are not CRITICAL goes to whoever waits longest."""


class _Grant(NamedTuple):
    at: float
    priority: Priority | None
    """None: a neighbour's request, which the exchange told us of."""


class RateWindow:
    """Sliding window: no more than `limit` grants in any `window_s` seconds.

    Pure bookkeeping: no clock, no sleep, no I/O; the caller passes `now`.

    Args:
        limit: Grants in any window.
        window_s: Its length.
        reserve: So many of the grants only CRITICAL may take.
        even_low: LOW is spaced evenly over what the others may take, so that a backfill
            never uses up a second in one burst.
    """

    def __init__(
        self, *, limit: int, window_s: float, reserve: int = 0, even_low: bool = False
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._reserve = reserve
        self._low_spacing_s = window_s / (limit - reserve) if even_low else 0.0
        self._grants: deque[_Grant] = deque()
        self._last_low = float("-inf")
        self._blocked_until = 0.0
        self._pace = 1.0
        self._pace_since = 0.0

    def wait_s(self, now: float, priority: Priority) -> float:
        """Seconds until a grant of this priority is possible; 0.0: now."""
        self._forget(now)
        pace = self.pace(now)
        limit = max(1, int(self._limit * pace))
        waits = [self._blocked_until - now]
        if len(self._grants) >= limit:
            waits.append(self._grants[-limit].at + self._window_s - now)
        if priority is not Priority.CRITICAL:
            shared = max(1, int((self._limit - self._reserve) * pace))
            others = [grant.at for grant in self._grants if grant.priority != Priority.CRITICAL]
            if len(others) >= shared:
                waits.append(others[-shared] + self._window_s - now)
        if priority is Priority.LOW:
            waits.append(self._last_low + self._low_spacing_s / pace - now)
        return max(0.0, *waits)

    def grant(self, now: float, priority: Priority) -> None:
        """Count a request sent at `now`; the caller asked `wait_s` first."""
        self._grants.append(_Grant(now, priority))
        if priority is Priority.LOW:
            self._last_low = now

    def give_back(self, at: float, priority: Priority) -> None:
        """Uncount a grant of `at`: its request was never sent."""
        grant = _Grant(at, priority)
        if grant in self._grants:
            self._grants.remove(grant)

    def observe_left(self, now: float, left: int) -> None:
        """Take the exchange's word for how many requests are left in its second.

        Fewer than our own grants explain are those of a neighbour behind the same address.
        More are not believed: its second may just have begun.
        """
        self._forget(now)
        neighbours = self._limit - left - len(self._grants)
        self._grants.extend(_Grant(now, None) for _ in range(neighbours))

    def block(self, now: float, seconds: float) -> None:
        """Grant nothing for a time."""
        self._blocked_until = max(self._blocked_until, now + seconds)

    def slow_down(self, now: float) -> None:
        """Halve the rate, down to an eighth: the exchange refused a request as too fast."""
        self._pace, self._pace_since = max(SLOWEST_PACE, self.pace(now) / 2), now

    def pace(self, now: float) -> float:
        """The part of the full rate in force: 1.0, or less for a while after a refusal."""
        return min(1.0, self._pace + (now - self._pace_since) / PACE_RECOVERY_S)

    def _forget(self, now: float) -> None:
        while self._grants and self._grants[0].at + self._window_s <= now:
            self._grants.popleft()


class Ticket:
    """A caller's place in the line, and how urgent it is."""

    __slots__ = ("arrival", "granted", "granted_at", "limiter", "priority")

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.arrival = -1
        """Of the line it stands in; -1: it does not stand in one."""
        self.granted: asyncio.Future[None] | None = None
        self.granted_at = float("-inf")
        self.limiter: RateLimiter | None = None

    def raise_to(self, priority: Priority) -> None:
        """Make it more urgent, whether it waits already or not yet."""
        if self.limiter is not None:
            self.limiter.raise_to(self, priority)
        else:
            self.priority = min(self.priority, priority)


class Line:
    """Who is next: the most urgent, equals in order of arrival.

    So that nobody starves, one in `TURNS_TO_THE_OLDEST` grants which are not CRITICAL goes to
    whoever waits longest. Pure bookkeeping, like `RateWindow`.
    """

    def __init__(self, window: RateWindow) -> None:
        self._window = window
        self._waiting: dict[Priority, list[Ticket]] = {priority: [] for priority in Priority}
        self._arrivals = count()
        self._turn = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def join(self, ticket: Ticket) -> None:
        """Stand at the end of one's class."""
        ticket.arrival = next(self._arrivals)
        self._waiting[ticket.priority].append(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, if there is one."""
        if ticket.arrival >= 0:
            self._waiting[ticket.priority].remove(ticket)
            ticket.arrival = -1

    def raise_to(self, ticket: Ticket, priority: Priority) -> None:
        """Make a ticket more urgent; it keeps its time of arrival."""
        if priority >= ticket.priority or ticket.arrival < 0:
            return
        self._waiting[ticket.priority].remove(ticket)
        ticket.priority = priority
        insort(self._waiting[priority], ticket, key=_arrival)

    def next(self, now: float) -> Ticket | None:
        """Grant the next one that the window allows; it has left the line. None: nobody."""
        for ticket in self._candidates():
            if self._window.wait_s(now, ticket.priority) == 0:
                self.leave(ticket)
                self._window.grant(now, ticket.priority)
                ticket.granted_at = now
                if ticket.priority is not Priority.CRITICAL:
                    self._turn = (self._turn + 1) % TURNS_TO_THE_OLDEST
                return ticket
        return None

    def wait_s(self, now: float) -> float | None:
        """Seconds until `next` will find somebody; None: nobody waits."""
        waits = (self._window.wait_s(now, ticket.priority) for ticket in self._candidates())
        return min(waits, default=None)

    def _candidates(self) -> list[Ticket]:
        """Who may be next, the first choice first."""
        heads = [waiting[0] for waiting in self._waiting.values() if waiting]
        if not heads or heads[0].priority is Priority.CRITICAL:
            return heads[:1]
        if self._turn == TURNS_TO_THE_OLDEST - 1:
            return [min(heads, key=_arrival), heads[0]]
        return heads[:1]


def _arrival(ticket: Ticket) -> int:
    return ticket.arrival


class RateLimiter:
    """Waiting for a `RateWindow`, in the order of a `Line`."""

    def __init__(self, window: RateWindow, clock: Clock) -> None:
        self._window = window
        self._clock = clock
        self._line = Line(window)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._line)

    @property
    def pace(self) -> float:
        """The part of the full rate in force."""
        return self._window.pace(self._clock.monotonic())

    def block(self, seconds: float) -> None:
        """Grant nothing for a time."""
        self._window.block(self._clock.monotonic(), seconds)

    def refused(self) -> None:
        """The exchange refused a request as too fast: pause for a window, then go slower."""
        now = self._clock.monotonic()
        self._window.slow_down(now)
        self._window.block(now, WINDOW_S)

    def observe_left(self, left: int) -> None:
        """Take the exchange's word for how many requests are left in its second."""
        self._window.observe_left(self._clock.monotonic(), left)

    def raise_to(self, ticket: Ticket, priority: Priority) -> None:
        """Make a ticket more urgent that waits here; any other stays as it is."""
        self._line.raise_to(ticket, priority)
        self._serve()

    async def acquire(self, who: Priority | Ticket) -> None:
        """Wait for the right to send one request. Cancelling gives the place back."""
        ticket = who if isinstance(who, Ticket) else Ticket(who)
        self._line.join(ticket)
        self._serve()
        if ticket.arrival < 0:
            return
        ticket.granted, ticket.limiter = asyncio.get_running_loop().create_future(), self
        try:
            await ticket.granted
        except asyncio.CancelledError:
            if ticket.arrival < 0:
                self._window.give_back(ticket.granted_at, ticket.priority)
            self._line.leave(ticket)
            self._serve()
            raise
        finally:
            ticket.granted = ticket.limiter = None

    def _serve(self) -> None:
        """Grant what can be granted, and come again when more can."""
        now = self._clock.monotonic()
        while (ticket := self._line.next(now)) is not None:
            if ticket.granted is not None and not ticket.granted.done():
                ticket.granted.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait_s = self._line.wait_s(now)
        if wait_s is not None:
            # The clock is asked again then: Qt's timers fire early, and a pace recovers.
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._serve)
