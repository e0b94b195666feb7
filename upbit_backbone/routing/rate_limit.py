"""The exchange's request limits: decided in plain code, waited for in one place.

Upbit counts ten requests a second for each group (https://docs.upbit.com/kr/reference/rate-limits).
Whether its second begins on the wall clock or with the first request is not certain, so a
sliding window with a margin is kept, which satisfies both.

The exchange counts a request when it arrives, which may be long after it was sent: on a busy
network, or where a connection has to be opened first. So where answers are told of
(`RateWindow.answered`), a request counts for a second from its arrival, and that was at the
latest half the least round trip before its answer.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from upbit_backbone.call_in_work import CallInWork, call_in_work
from upbit_backbone.clock import Clock
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.budget_sheet import Rule
from upbit_backbone.routing.shared_budget import LOOK_AGAIN_S, Counted, GroupBudget

REQUESTS_PER_WINDOW = 10
WINDOW_S = 1.05
"""The exchange's second, plus what two clocks and a network may shift a request by."""
SECOND_S = 1.0
LONGEST_HELD_S = 2.0
"""After so long a request does not count any more, answered or not."""
MOST_ROUND_TRIPS = 256
"""Of which the least counts: a network changes."""
ENOUGH_ROUND_TRIPS = 64
"""Of fewer the least may have been slow, and an answer does not prove an earlier arrival."""
SLOWEST_PACE = 1 / 8
PACE_RECOVERY_S = 60.0
"""From nothing to the full rate after refusals; from a half it takes half of that."""
CATCH_UP_S = 0.02
"""A LOW grant that comes so much late, as timers do, does not put off those after it; else
eight times a window a millisecond or five is lost."""
TURNS_TO_THE_OLDEST = 10
"""One in so many grants that are not CRITICAL goes to whoever waits longest."""


class Granted(NamedTuple):
    """The right to send one request."""

    at: float
    """Since when, seconds of the monotonic clock."""
    priority: Priority


class _Grant:
    __slots__ = ("at", "awaited", "free_s", "priority")

    def __init__(
        self, at: float, priority: Priority | None, held_s: float, *, awaited: bool = False
    ) -> None:
        self.at = at
        self.priority = priority
        """None: a neighbour's request, which the exchange told us of."""
        self.free_s = at + held_s
        """When it does not count any more."""
        self.awaited = awaited
        """Its answer is to come."""


class RateWindow:
    """Sliding window: no more than `limit` grants in any `window_s` seconds.

    Pure bookkeeping: no clock, no sleep, no I/O; the caller passes `now`.

    Args:
        limit: Grants in any window.
        window_s: Its length.
        reserve: So many of the grants only CRITICAL may take.
        even_low: LOW is spaced evenly over what the others may take, so that a backfill
            never uses up a second in one burst.
        awaits_answers: The caller tells of answers: until then a grant counts, for two
            seconds at most.
    """

    def __init__(
        self,
        *,
        limit: int,
        window_s: float,
        reserve: int = 0,
        even_low: bool = False,
        awaits_answers: bool = False,
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._reserve = reserve
        self._low_spacing_s = window_s / (limit - reserve) if even_low else 0.0
        self._awaits_answers = awaits_answers
        self._round_trips: deque[float] = deque(maxlen=MOST_ROUND_TRIPS)
        self._grants: list[_Grant] = []
        self._freed: list[_Grant] = []
        """What does not count any more, and may be in the exchange's word that is on its way."""
        self._recorded: list[_Grant] = []
        """What all programs together were granted, by the file they share."""
        self._next_low = self._next_low_before = float("-inf")
        self._last_low = float("-inf")
        self._blocked_until = 0.0
        self._held_until = 0.0
        self._pace = 1.0
        self._pace_since = 0.0
        self.share = 1.0
        """The part of the full rate that is left to this program, among others."""

    @property
    def rule(self) -> Rule:
        """What several windows have to keep together."""
        return Rule(self._limit, self._limit - self._reserve, self._window_s)

    def wait_s(self, now: float, priority: Priority) -> float:
        """Seconds until a grant of this priority is possible; 0.0: now."""
        self._forget(now)
        grants, pace = self._counted(), self.pace(now)
        limit = max(1, int(self._limit * pace))
        waits = [self._blocked_until - now, _free_s(grants, limit) - now]
        if priority is not Priority.CRITICAL:
            shared = max(1, int((self._limit - self._reserve) * pace))
            others = [grant for grant in grants if grant.priority != Priority.CRITICAL]
            waits += [self._held_until - now, _free_s(others, shared) - now]
        if priority is Priority.LOW:
            waits.append(self._next_low - now)
        return max(0.0, *waits)

    def grant(self, now: float, priority: Priority) -> None:
        """Count a request sent at `now`; the caller asked `wait_s` first."""
        held_s = LONGEST_HELD_S if self._awaits_answers else self._window_s
        self._grants.append(_Grant(now, priority, held_s, awaited=self._awaits_answers))
        if priority is Priority.LOW:
            due = self._next_low if now - self._next_low < CATCH_UP_S else now
            self._next_low_before, self._last_low = self._next_low, now
            self._next_low = due + self._low_spacing_s / self.pace(now)

    def give_back(self, at: float, priority: Priority) -> None:
        """Uncount a grant of `at`: its request was never sent."""
        grant = self._find(at, priority)
        if grant is not None:
            self._grants.remove(grant)
        if priority is Priority.LOW and at == self._last_low:
            self._next_low = self._next_low_before

    def answered(self, now: float, granted: Granted) -> None:
        """The exchange answered a request, in whatever way: now it is known when it arrived."""
        grant = self._find(*granted)
        if grant is None or not grant.awaited:
            return  # for so long that it does not count any more
        self._round_trips.append(now - granted.at)
        enough = len(self._round_trips) >= ENOUGH_ROUND_TRIPS
        arrived_s = now - (min(self._round_trips) / 2 if enough else 0.0)
        counts_until = max(grant.at + self._window_s, arrived_s + SECOND_S)
        grant.free_s = min(grant.free_s, counts_until)
        grant.awaited = False

    def move(self, granted: Granted, to: float) -> None:
        """A grant stands in the file that all programs share, under another time."""
        grant = self._find(*granted)
        if grant is not None:
            grant.free_s += to - grant.at
            grant.at = to

    def learn(self, grants: Sequence[Counted]) -> None:
        """Count what all programs on this machine were granted, this one among them.

        Takes the place of what was learned before. What is counted here already, under the
        same time (`move`), counts once, and so does a neighbour of whom the exchange told.
        """
        counted = {grant.at for grant in self._grants if grant.priority is not None}
        grants = [one for one in grants if not one.ours or one.at not in counted]
        known = {grant.at for grant in self._recorded}
        for one in grants:
            if not one.ours and one.at not in known:
                self._forget_a_neighbour_since(one.at)
        self._recorded = [
            _Grant(one.at, Priority.CRITICAL if one.critical else Priority.HIGH, self._window_s)
            for one in grants
        ]

    def hold(self, now: float, seconds: float, priority: Priority) -> None:
        """Grant nothing of this priority for a time, as the other programs have it.

        Whatever holds CRITICAL holds everybody.
        """
        if priority is Priority.CRITICAL:
            self.block(now, seconds)
        else:
            self._held_until = now + seconds

    def observe_left(self, now: float, left: int) -> None:
        """Take the exchange's word for how many requests are left in its second.

        Fewer than our own grants explain are those of a neighbour behind the same address.
        More are not believed: its second may just have begun. It said so when one of the
        requests arrived that are under way, and counted what counted then.
        """
        self._forget(now)
        said_s = min((grant.at for grant in self._grants if grant.awaited), default=now)
        ours = len(self._counted()) + sum(grant.free_s > said_s for grant in self._freed)
        neighbours = self._limit - left - ours
        self._grants += [_Grant(now, None, self._window_s) for _ in range(neighbours)]

    def block(self, now: float, seconds: float) -> None:
        """Grant nothing for a time."""
        self._blocked_until = max(self._blocked_until, now + seconds)

    def slow_down(self, now: float) -> None:
        """Halve the rate, down to an eighth: the exchange refused a request as too fast."""
        self._pace, self._pace_since = max(SLOWEST_PACE, self._recovered(now) / 2), now

    def pace(self, now: float) -> float:
        """The part of the full rate in force: 1.0, or less for a while after a refusal."""
        return self._recovered(now) * self.share

    def _recovered(self, now: float) -> float:
        return min(1.0, self._pace + (now - self._pace_since) / PACE_RECOVERY_S)

    def _counted(self) -> Sequence[_Grant]:
        """All grants that count, in order."""
        if not self._recorded:
            return self._grants
        return sorted((*self._grants, *self._recorded), key=_at)

    def _find(self, at: float, priority: Priority) -> _Grant | None:
        """A grant; of several alike, one that waits for its answer."""
        alike = (one for one in self._grants if one.at == at and one.priority is priority)
        return max(alike, key=_is_awaited, default=None)

    def _forget(self, now: float) -> None:
        grants = self._grants
        if any(grant.free_s <= now for grant in grants):
            self._grants = [grant for grant in grants if grant.free_s > now]
            if self._awaits_answers:
                oldest_s = now - LONGEST_HELD_S
                freed = [one for one in grants if one.free_s <= now and one.priority is not None]
                self._freed = [one for one in self._freed if one.free_s > oldest_s] + freed
        if any(one.free_s <= now for one in self._recorded):
            self._recorded = [one for one in self._recorded if one.free_s > now]

    def _forget_a_neighbour_since(self, at: float) -> None:
        for position, grant in enumerate(self._grants):
            if grant.priority is None and grant.at >= at:
                del self._grants[position]
                return


def _free_s(grants: Sequence[_Grant], limit: int) -> float:
    """When fewer than `limit` of these count."""
    if len(grants) < limit:
        return float("-inf")
    return sorted(grant.free_s for grant in grants)[len(grants) - limit]


def _at(grant: _Grant) -> float:
    return grant.at


def _is_awaited(grant: _Grant) -> bool:
    return grant.awaited


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

    def too_late_for(self, priority: Priority) -> bool:
        """Whether a caller of this priority should not rely on it: CRITICAL goes at once and
        alone, and what another one sent may hang."""
        sent, alike = self.granted_at > float("-inf"), self.priority is priority
        return sent and not alike and priority is Priority.CRITICAL

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

    @property
    def shared(self) -> int:
        """How many wait that are not CRITICAL."""
        return len(self) - len(self._waiting[Priority.CRITICAL])

    def ahead(self, priority: Priority) -> int:
        """How many a newcomer of this priority would stand behind."""
        return sum(len(waiting) for one, waiting in self._waiting.items() if one <= priority)

    def join(self, ticket: Ticket) -> None:
        """Stand at the end of one's class."""
        ticket.arrival = next(self._arrivals)
        self._waiting[ticket.priority].append(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, if there is one."""
        if ticket.arrival >= 0:
            self._waiting[ticket.priority].remove(ticket)
            ticket.arrival = -1

    def rejoin(self, ticket: Ticket, arrival: int) -> None:
        """Take a place again that a grant had ended which did not hold."""
        ticket.arrival = arrival
        insort(self._waiting[ticket.priority], ticket, key=_arrival)
        if ticket.priority is not Priority.CRITICAL:
            self._turn = (self._turn - 1) % TURNS_TO_THE_OLDEST

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
    """Waiting for a `RateWindow`, in the order of a `Line`.

    Args:
        window: What is allowed.
        clock: Its monotonic time has to be the machine's where there is a `budget`.
        budget: What all programs on this machine keep together; None: there is only this one.
    """

    def __init__(self, window: RateWindow, clock: Clock, budget: GroupBudget | None = None) -> None:
        self._window = window
        self._clock = clock
        self._budget = budget
        self._line = Line(window)
        self._asking = 0
        """Tickets that are not CRITICAL and wait for the word of the shared budget."""
        self._timer: asyncio.TimerHandle | None = None
        self._first: dict[Ticket, tuple[float, CallInWork]] = {}
        """Since when the first request of a call waits."""

    def oldest_wait_s(self, now: float) -> dict[Priority, float]:
        """How long the oldest call of each priority has waited for its first request to be sent.

        A call that has sent one has begun: its further pages wait for the limit as it was promised
        to them. What no caller waits for does not count.
        """
        waits_s: dict[Priority, float] = {}
        for ticket, (since_s, call) in self._first.items():
            if not call.asked:
                waits_s[ticket.priority] = max(now - since_s, waits_s.get(ticket.priority, 0.0))
        return waits_s

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._line)

    @property
    def pace(self) -> float:
        """The part of the full rate in force."""
        return self._window.pace(self._clock.monotonic())

    def wait_s(self, priority: Priority) -> float:
        """About how long a request of this priority would wait if it came now."""
        turn_s = self._line.ahead(priority) * WINDOW_S / REQUESTS_PER_WINDOW
        return self._window.wait_s(self._clock.monotonic(), priority) + turn_s

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

    def answered(self, granted: Granted) -> None:
        """The exchange answered a request that was granted."""
        self._window.answered(self._clock.monotonic(), granted)
        self._serve()

    async def acquire(self, who: Priority | Ticket) -> Granted:
        """Wait for the right to send one request. Cancelling gives the place back.

        Raises:
            RateLimitedError: another program on this machine was told that the exchange
                blocks this address (418); never without a shared budget.
        """
        ticket = who if isinstance(who, Ticket) else Ticket(who)
        call = call_in_work()
        if call is None or call.asked:
            return await self._acquire(ticket)
        self._first[ticket] = self._clock.monotonic(), call
        try:
            granted = await self._acquire(ticket)
        finally:
            del self._first[ticket]
        call.asked = True
        return granted

    async def _acquire(self, ticket: Ticket) -> Granted:
        if self._budget is not None:
            return await self._acquire_shared(ticket, self._budget)
        self._line.join(ticket)
        return await self._turn_of(ticket)

    async def _acquire_shared(self, ticket: Ticket, budget: GroupBudget) -> Granted:
        budget.check()
        self._line.join(ticket)
        arrival = ticket.arrival
        granted = await self._turn_of(ticket)
        while (held := await self._held(granted, budget)) is None:
            self._line.rejoin(ticket, arrival)
            granted = await self._turn_of(ticket)
        return held

    async def _held(self, granted: Granted, budget: GroupBudget) -> Granted | None:
        """A grant of this limiter as it holds among all programs; None: it is given back."""
        at, priority = granted
        critical, degraded = priority is Priority.CRITICAL, budget.degraded
        if not budget.asks:
            budget.owe(at, critical=critical)
            return granted
        waiting = self._line.shared + self._asking
        self._asking += not critical
        try:
            verdict = await budget.ask(self._window.rule, critical=critical, waiting=waiting)
            budget.check()
        except BaseException:
            self._window.give_back(at, priority)
            self._serve()
            raise
        finally:
            self._asking -= not critical
        if verdict is None and (critical or degraded):
            # Half the rate allows it; and two of ten are kept for CRITICAL, which never waits
            # for a lock: only two programs that both need them could exceed the limit now.
            budget.owe(at, critical=critical)
            return granted
        if verdict is not None and verdict.wait_s == 0:
            # The newest of ours is the one that was asked for.
            at = max((one.at for one in verdict.grants if one.ours), default=at)
            self._window.move(granted, at)
            self._window.learn(verdict.grants)
            return Granted(at, priority)
        self._window.give_back(at, priority)
        if verdict is None:
            self._window.hold(self._clock.monotonic(), LOOK_AGAIN_S, priority)
        else:
            self._window.learn(verdict.grants)
            self._window.hold(self._clock.monotonic(), verdict.wait_s, priority)
        return None

    async def _turn_of(self, ticket: Ticket) -> Granted:
        """Wait until a ticket that stands in the line is granted here."""
        self._serve()
        if ticket.arrival < 0:
            return Granted(ticket.granted_at, ticket.priority)
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
        return Granted(ticket.granted_at, ticket.priority)

    def _serve(self) -> None:
        """Grant what can be granted, and come again when more can."""
        now = self._clock.monotonic()
        if self._budget is not None:
            self._window.share = self._budget.rate
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
