from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from heapq import heappop, heappush
from itertools import count, pairwise
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.routing.budget_program import ask_for_a_while
from upbit_backbone.call_in_work import CallInWork, working_for
from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import (
    CATCH_UP_S,
    SLOWEST_PACE,
    WINDOW_S,
    Line,
    RateLimiter,
    RateWindow,
    Ticket,
)
from upbit_backbone.routing.shared_budget import Counted
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.limits import CallCounter
from upbit_backbone.simulator.settings import SimulatorSettings, WindowKind

ROUNDING_S = 1e-9
PRIORITIES = st.sampled_from(Priority)
ARRIVALS = st.lists(st.tuples(st.floats(0, 0.6), PRIORITIES), max_size=120)


def exchange_window() -> RateWindow:
    return RateWindow(limit=10, window_s=WINDOW_S, reserve=2)


def group_window() -> RateWindow:
    return RateWindow(limit=10, window_s=WINDOW_S, reserve=2, even_low=True)


def most_in_a_window(grants: list[float], window_s: float = WINDOW_S) -> int:
    return max(
        (sum(start <= at < start + window_s - ROUNDING_S for at in grants) for start in grants),
        default=0,
    )


@given(arrivals=ARRIVALS)
def test_no_window_has_more_than_ten_grants_and_eight_that_are_not_critical(
    arrivals: list[tuple[float, Priority]],
) -> None:
    window, now = exchange_window(), 1_000.0
    granted: list[tuple[float, Priority]] = []
    for gap_s, priority in arrivals:
        now += gap_s
        while (wait_s := window.wait_s(now, priority)) > 0:
            now += wait_s
        window.grant(now, priority)
        granted.append((now, priority))
    assert most_in_a_window([at for at, _ in granted]) <= 10
    assert most_in_a_window([at for at, p in granted if p is not Priority.CRITICAL]) <= 8


@given(arrivals=ARRIVALS, priority=PRIORITIES)
def test_a_wait_is_as_long_as_needed_and_no_longer(
    arrivals: list[tuple[float, Priority]], priority: Priority
) -> None:
    window, now = exchange_window(), 1_000.0
    for gap_s, other in arrivals:
        now += gap_s
        if window.wait_s(now, other) == 0:
            window.grant(now, other)
    wait_s = window.wait_s(now, priority)
    if wait_s > 1e-6:
        assert window.wait_s(now + wait_s - 1e-6, priority) > 0
    assert window.wait_s(now + wait_s, priority) <= ROUNDING_S
    assert wait_s <= WINDOW_S


def test_two_grants_are_kept_for_critical() -> None:
    window = exchange_window()
    for _ in range(8):
        assert window.wait_s(5.0, Priority.HIGH) == 0
        window.grant(5.0, Priority.HIGH)
    assert window.wait_s(5.0, Priority.HIGH) == pytest.approx(WINDOW_S)
    for _ in range(2):
        assert window.wait_s(5.0, Priority.CRITICAL) == 0
        window.grant(5.0, Priority.CRITICAL)
    assert window.wait_s(5.0, Priority.CRITICAL) == pytest.approx(WINDOW_S)


def test_critical_may_take_all_ten() -> None:
    window = exchange_window()
    for _ in range(10):
        assert window.wait_s(5.0, Priority.CRITICAL) == 0
        window.grant(5.0, Priority.CRITICAL)
    assert window.wait_s(5.0, Priority.LOW) == pytest.approx(WINDOW_S)


def test_a_block_holds_everybody_until_it_ends_and_a_shorter_one_changes_nothing() -> None:
    window = exchange_window()
    window.block(5.0, 3.0)
    window.block(5.0, 1.0)
    assert window.wait_s(5.0, Priority.CRITICAL) == pytest.approx(3.0)
    assert window.wait_s(7.5, Priority.LOW) == pytest.approx(0.5)
    assert window.wait_s(8.0, Priority.LOW) == 0


def test_a_window_forgets_old_grants() -> None:
    window = exchange_window()
    for second in range(10_000):
        assert window.wait_s(float(second * 2), Priority.LOW) == 0
        window.grant(float(second * 2), Priority.LOW)
    assert len(window._grants) <= 10


@given(arrivals=ARRIVALS)
def test_low_is_spaced_evenly_whatever_else_is_granted(
    arrivals: list[tuple[float, Priority]],
) -> None:
    window, now = group_window(), 1_000.0
    low: list[float] = []
    for gap_s, priority in arrivals:
        now += gap_s
        while (wait_s := window.wait_s(now, priority)) > 0:
            now += wait_s
        window.grant(now, priority)
        if priority is Priority.LOW:
            low.append(now)
    for later in range(1, len(low)):
        for earlier in range(later):
            evenly_s = (later - earlier) * WINDOW_S / 8
            assert low[later] - low[earlier] >= evenly_s - CATCH_UP_S - ROUNDING_S


def test_low_makes_up_for_a_timer_that_is_late_and_not_for_a_pause() -> None:
    window = group_window()
    low: list[float] = []
    for late_s in (0.0, 0.015, 0.0, 0.3, 0.0):
        now = (low[-1] if low else 5.0) + window.wait_s(low[-1] if low else 5.0, Priority.LOW)
        window.grant(now + late_s, Priority.LOW)
        low.append(now + late_s)
    spacing_s = WINDOW_S / 8
    gaps_s = [b - a for a, b in pairwise(low)]
    assert gaps_s == pytest.approx(
        [spacing_s + 0.015, spacing_s - 0.015, spacing_s + 0.3, spacing_s]
    )


def test_low_alone_gets_all_that_the_reserve_leaves() -> None:
    window, now, granted = group_window(), 0.0, 0
    while now < 600:
        now += window.wait_s(now, Priority.LOW)
        window.grant(now, Priority.LOW)
        granted += 1
    assert granted / 600 >= 0.99 * 8 / WINDOW_S


class DistantExchange:
    """Counts requests when they reach it, and tells what is left when its answer is back.

    Args:
        kind: How it counts.
        window: Is told what is left.
        latency_s: One way.
        jitter_s: So much more at most.
    """

    def __init__(
        self, kind: WindowKind, window: RateWindow, latency_s: float, jitter_s: float
    ) -> None:
        self.calls = CallCounter(SimulatorSettings(window=kind, ban_after=0))
        self._window = window
        self._latency_s, self._jitter_s = latency_s, jitter_s
        self._rng = Random(1)
        self._on_the_way: list[tuple[float, int, int | None]] = []
        self._order = count()

    def send(self, now: float, left: int | None = None) -> None:
        """A request, or an answer with what is `left`."""
        at = now + self._latency_s + self._rng.uniform(0, self._jitter_s)
        heappush(self._on_the_way, (at, next(self._order), left))

    def run_until(self, now: float) -> float | None:
        """Let happen what does until then, one thing: gives its time, None if nothing did."""
        if not self._on_the_way or self._on_the_way[0][0] > now:
            return None
        at, _, left = heappop(self._on_the_way)
        if left is not None:
            self._window.observe_left(at, left)
        elif (left := self.calls.take("candles", "me", at)) is not None:
            self.send(at, left)
        return at


@pytest.mark.parametrize("kind", get_args(WindowKind))
@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.LOW])
@pytest.mark.parametrize("latency_s", [0.005, 0.06])
def test_ten_minutes_at_full_rate_are_not_refused_and_nothing_is_left_unused(
    kind: WindowKind, priority: Priority, latency_s: float
) -> None:
    """Beside them something CRITICAL is asked every second."""
    window, now, granted, seconds = group_window(), 1_000.0, 0, 600
    exchange = DistantExchange(kind, window, latency_s, jitter_s=latency_s / 2)
    end, urgent_at = now + seconds, now
    while now < end:
        at = now + window.wait_s(now, priority)
        happened = exchange.run_until(min(at, urgent_at))
        if happened is not None:
            now = max(now, happened)
        elif urgent_at <= at:
            now = max(now, urgent_at)
            wait_s = window.wait_s(now, Priority.CRITICAL)
            # Far away, the answer counts requests of ours that have left the window meanwhile:
            # they are taken for a neighbour's.
            assert wait_s == 0 or latency_s > 0.05
            now += wait_s
            window.grant(now, Priority.CRITICAL)
            exchange.send(now)
            urgent_at += 1.0
        else:
            now = at
            window.grant(now, priority)
            exchange.send(now)
            granted += 1
    assert not exchange.calls.refused
    assert granted >= 0.95 * seconds * 8 / WINDOW_S


@pytest.mark.slow
async def test_a_minute_at_full_rate_is_not_refused_and_critical_passes() -> None:
    """In real time, beside something CRITICAL every second, however the exchange counts."""
    seconds = 60.0
    async with AsyncExitStack() as running, asyncio.TaskGroup() as tasks:
        simulators = [
            await running.enter_async_context(Simulator(settings=SimulatorSettings(window=kind)))
            for kind in get_args(WindowKind)
        ]
        for simulator in simulators:  # its first answer takes a second
            await ask_for_a_while(simulator.rest_url, None, 0.1, "HIGH:1:0.2")
        asked = [
            tasks.create_task(
                ask_for_a_while(simulator.rest_url, None, seconds, "LOW:3", "CRITICAL:1:1")
            )
            for simulator in simulators
        ]
        await asyncio.wait(asked)
    urgent: list[float] = []
    for task in asked:
        asker = task.result()
        assert asker.statuses.keys() == {200}
        assert len(asker.waits_s["LOW"]) >= 0.95 * seconds * 8 / WINDOW_S
        urgent += asker.waits_s["CRITICAL"]
    assert len(urgent) >= 170
    assert sorted(urgent)[int(len(urgent) * 0.99)] < 0.05


def counted(*grants: tuple[float, bool, bool]) -> list[Counted]:
    return [Counted(at, critical, ours) for at, critical, ours in grants]


def test_what_other_programs_were_granted_counts_until_it_leaves_the_window() -> None:
    window = group_window()
    window.learn(counted(*[(5.0 + n / 10, False, False) for n in range(7)]))
    assert window.wait_s(5.7, Priority.HIGH) == 0
    window.grant(5.7, Priority.HIGH)
    assert window.wait_s(5.7, Priority.HIGH) == pytest.approx(5.0 + WINDOW_S - 5.7)
    assert window.wait_s(5.7, Priority.CRITICAL) == 0
    window.learn(counted(*[(5.0, True, False)] * 9))  # in place of what was learned before
    assert window.wait_s(5.7, Priority.HIGH) == pytest.approx(5.0 + WINDOW_S - 5.7)
    assert window.wait_s(5.0 + WINDOW_S, Priority.HIGH) == 0
    assert not window._recorded


def test_a_neighbour_whom_both_the_exchange_and_the_file_tell_of_counts_once() -> None:
    window = group_window()
    window.observe_left(5.5, 6)  # four, who asked before
    window.learn(counted((5.1, False, False), (5.2, True, False), (5.3, False, True)))
    used = [grant.at for grant in window._counted()]
    assert used == [5.1, 5.2, 5.3, 5.5, 5.5]
    window.learn(counted((5.1, False, False), (5.2, True, False), (5.6, False, False)))
    assert [grant.at for grant in window._counted()] == [5.1, 5.2, 5.5, 5.5, 5.6]
    window.observe_left(5.7, 4)  # the very ones that are known
    assert len(window._counted()) == 6


def test_what_holds_the_others_does_not_hold_critical_and_not_the_other_way_round() -> None:
    window = group_window()
    window.hold(5.0, 0.5, Priority.LOW)
    assert window.wait_s(5.0, Priority.HIGH) == pytest.approx(0.5)
    assert window.wait_s(5.0, Priority.CRITICAL) == 0
    window.hold(5.0, 0.7, Priority.CRITICAL)
    assert window.wait_s(5.0, Priority.LOW) == pytest.approx(0.7)


def test_a_share_of_the_rate_lets_as_much_less_pass() -> None:
    window = group_window()
    window.share = 0.5
    assert window.pace(5.0) == 0.5
    for _ in range(4):
        assert window.wait_s(5.0, Priority.HIGH) == 0
        window.grant(5.0, Priority.HIGH)
    assert window.wait_s(5.0, Priority.HIGH) == pytest.approx(WINDOW_S)
    assert window.wait_s(5.0, Priority.CRITICAL) == 0
    window.slow_down(5.0)  # halves the exchange's part, not the share's once more
    window.share = 1.0
    assert window.pace(5.0) == 0.5


def test_a_low_grant_that_was_given_back_leaves_no_pause_behind() -> None:
    window = group_window()
    window.grant(5.0, Priority.LOW)
    window.grant(5.5, Priority.LOW)
    window.give_back(5.5, Priority.LOW)
    assert window.wait_s(5.5, Priority.LOW) == 0


def test_a_burst_of_a_chart_leaves_together() -> None:
    window = group_window()
    for _ in range(8):
        assert window.wait_s(7.0, Priority.NORMAL) == 0
        window.grant(7.0, Priority.NORMAL)


def test_a_neighbours_requests_are_counted_as_soon_as_the_exchange_tells_of_them() -> None:
    window = group_window()
    window.grant(5.0, Priority.HIGH)
    window.observe_left(5.1, 4)  # six are used, one of them ours
    for _ in range(2):
        assert window.wait_s(5.1, Priority.HIGH) == 0
        window.grant(5.1, Priority.HIGH)
    assert window.wait_s(5.1, Priority.HIGH) == pytest.approx(5.0 + WINDOW_S - 5.1)
    for _ in range(2):
        assert window.wait_s(5.1, Priority.CRITICAL) == 0
        window.grant(5.1, Priority.CRITICAL)
    assert window.wait_s(5.1, Priority.CRITICAL) > 0


def test_the_exchanges_word_is_not_believed_when_it_promises_more() -> None:
    window = group_window()
    for _ in range(8):
        window.grant(5.0, Priority.HIGH)
    window.observe_left(5.2, 9)
    assert window.wait_s(5.2, Priority.HIGH) == pytest.approx(WINDOW_S - 0.2)


@given(left=st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 12)), max_size=60))
def test_whatever_the_exchange_says_the_window_holds_no_more_than_its_limit(
    left: list[tuple[float, int]],
) -> None:
    window, now = group_window(), 0.0
    for gap_s, said in left:
        now += gap_s
        window.observe_left(now, said)
        assert len(window._grants) <= 10
        assert window.wait_s(now, Priority.LOW) <= WINDOW_S + ROUNDING_S


def test_a_refusal_halves_the_rate_and_it_comes_back_slowly() -> None:
    window = group_window()

    def served(start: float) -> int:
        now, granted = start, 0
        while (now := now + window.wait_s(now, Priority.HIGH)) < start + WINDOW_S:
            window.grant(now, Priority.HIGH)
            granted += 1
        return granted

    window.slow_down(100.0)
    assert [served(100.0), served(115.0), served(131.0)] == [4, 6, 8]
    for second in range(10):
        window.slow_down(200.0 + second / 100)
    assert window.pace(200.1) == pytest.approx(SLOWEST_PACE, abs=0.01)
    assert served(200.2) == 1
    assert window.pace(261.0) == 1.0


@given(st.lists(st.tuples(st.floats(0, 0.2), PRIORITIES), min_size=1, max_size=150))
def test_nobody_waits_for_ever_and_the_urgent_go_first(
    arrivals: list[tuple[float, Priority]],
) -> None:
    window, now = group_window(), 0.0
    line = Line(window)
    waiting: list[Ticket] = []
    others = 0
    for gap_s, priority in arrivals:
        now += gap_s
        ticket = Ticket(priority)
        line.join(ticket)
        waiting.append(ticket)
        while (granted := line.next(now)) is not None:
            waiting.remove(granted)
            ahead = [one for one in waiting if one.priority < granted.priority]
            if granted.priority is not Priority.CRITICAL:
                others += 1
            # Only the turn of the oldest lets somebody pass who is more urgent.
            assert not ahead or others % 10 == 0
            assert Priority.CRITICAL not in {one.priority for one in ahead}
    while waiting:
        wait_s = line.wait_s(now)
        assert wait_s is not None
        now += wait_s
        granted = line.next(now)
        assert granted is not None
        waiting.remove(granted)
    assert line.wait_s(now) is None


def test_low_is_served_beside_a_flood_of_high() -> None:
    window, now = group_window(), 0.0
    line = Line(window)
    low = Ticket(Priority.LOW)
    line.join(low)
    granted = 0
    while low.arrival >= 0:
        line.join(Ticket(Priority.HIGH))
        now += line.wait_s(now) or 0.0
        assert line.next(now) is not None
        granted += 1
    assert granted == 10


def test_a_raised_ticket_goes_before_those_of_its_new_class_who_came_later() -> None:
    line = Line(RateWindow(limit=1, window_s=1.0))
    names = {}
    for name, priority in (
        ("blocker", Priority.CRITICAL),
        ("low", Priority.LOW),
        ("high", Priority.HIGH),
        ("other low", Priority.LOW),
    ):
        names[name] = Ticket(priority)
        line.join(names[name])
    line.raise_to(names["low"], Priority.HIGH)
    line.raise_to(names["high"], Priority.LOW)  # never down
    order = []
    for second in range(4):
        ticket = line.next(float(second))
        order.append(next(name for name, one in names.items() if one is ticket))
    assert order == ["blocker", "low", "high", "other low"]


def test_who_rejoins_the_line_has_its_old_place_and_the_oldest_its_turn() -> None:
    line = Line(RateWindow(limit=100, window_s=1.0))
    low = Ticket(Priority.LOW)
    line.join(low)
    first, *others = (Ticket(Priority.HIGH) for _ in range(30))
    for ticket in (first, *others):
        line.join(ticket)
    arrival = first.arrival
    assert line.next(1.0) is first
    line.rejoin(first, arrival)
    for ticket in (first, *others[:8]):  # the tenth turn is the oldest's, not the ninth
        assert line.next(1.0) is ticket
    assert line.next(1.0) is low


@pytest.mark.both_loops
async def test_raising_a_ticket_that_waits_lets_it_go() -> None:
    limiter = RateLimiter(RateWindow(limit=10, window_s=30.0, reserve=2), SystemClock())
    for _ in range(8):
        await limiter.acquire(Priority.HIGH)
    ticket = Ticket(Priority.LOW)
    waiting = asyncio.create_task(limiter.acquire(ticket))
    await eventually(lambda: limiter.waiting == 1)
    limiter.raise_to(ticket, Priority.CRITICAL)
    async with asyncio.timeout(2):
        await waiting


async def test_a_place_that_was_granted_and_not_used_is_given_back(clock: ManualClock) -> None:
    limiter = small_limiter(clock, window_s=30.0)
    await limiter.acquire(Priority.HIGH)
    cancelled, other = (asyncio.create_task(limiter.acquire(Priority.HIGH)) for _ in range(2))
    await eventually(lambda: limiter.waiting == 2)
    clock.advance(31)
    limiter.observe_left(9)
    limiter.raise_to(Ticket(Priority.LOW), Priority.HIGH)  # it looks at the clock
    assert limiter.waiting == 1
    cancelled.cancel()  # before it ever ran
    async with asyncio.timeout(2):
        await other
    assert cancelled.cancelled() or cancelled.done()


def small_limiter(
    clock: Clock | None = None, limit: int = 1, window_s: float = 0.03
) -> RateLimiter:
    return RateLimiter(RateWindow(limit=limit, window_s=window_s), clock or SystemClock())


class NotedWindow(RateWindow):
    """Notes the very moments of its grants, and those of other priorities than CRITICAL."""

    def __init__(self, *, limit: int, window_s: float, reserve: int = 0) -> None:
        super().__init__(limit=limit, window_s=window_s, reserve=reserve)
        self.granted: list[float] = []
        self.shared: list[float] = []

    def grant(self, now: float, priority: Priority) -> None:
        super().grant(now, priority)
        self.granted.append(now)
        if priority is not Priority.CRITICAL:
            self.shared.append(now)

    def give_back(self, at: float, priority: Priority) -> None:
        super().give_back(at, priority)
        self.granted.remove(at)
        if priority is not Priority.CRITICAL:
            self.shared.remove(at)


@pytest.mark.both_loops
async def test_the_most_urgent_goes_first_and_equals_in_order_of_arrival() -> None:
    limiter = small_limiter()
    order: list[str] = []

    async def ask(name: str, priority: Priority) -> None:
        await limiter.acquire(priority)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, priority in [
            ("first", Priority.LOW),
            ("low 1", Priority.LOW),
            ("normal 1", Priority.NORMAL),
            ("low 2", Priority.LOW),
            ("critical", Priority.CRITICAL),
            ("normal 2", Priority.NORMAL),
        ]:
            group.create_task(ask(name, priority))
    assert order == ["first", "critical", "normal 1", "normal 2", "low 1", "low 2"]
    assert limiter.waiting == 0


@pytest.mark.both_loops
async def test_critical_passes_a_queue_that_waits_for_the_shared_part() -> None:
    limiter = RateLimiter(RateWindow(limit=10, window_s=30.0, reserve=2), SystemClock())
    for _ in range(8):
        await limiter.acquire(Priority.HIGH)
    waiting = asyncio.create_task(limiter.acquire(Priority.HIGH))
    await eventually(lambda: limiter.waiting == 1)
    async with asyncio.timeout(1):
        await limiter.acquire(Priority.CRITICAL)
        await limiter.acquire(Priority.CRITICAL)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


@pytest.mark.both_loops
async def test_cancelling_the_first_in_line_wakes_the_next() -> None:
    limiter = small_limiter(window_s=0.1)
    await limiter.acquire(Priority.LOW)
    first = asyncio.create_task(limiter.acquire(Priority.HIGH))
    second = asyncio.create_task(limiter.acquire(Priority.LOW))
    await eventually(lambda: limiter.waiting == 2)
    first.cancel()
    async with asyncio.timeout(2):
        await second
    assert first.cancelled()
    assert limiter.waiting == 0


@pytest.mark.both_loops
@pytest.mark.parametrize("seed", range(3))
async def test_nobody_is_forgotten_among_many_who_come_and_go(seed: int) -> None:
    rng = Random(seed)
    window = NotedWindow(limit=10, window_s=0.02, reserve=2)
    limiter = RateLimiter(window, SystemClock())

    async def ask(priority: Priority, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await limiter.acquire(priority)

    tasks = [
        asyncio.create_task(ask(rng.choice(list(Priority)), rng.uniform(0, 0.2)))
        for _ in range(200)
    ]
    for victim in rng.sample(tasks, 60):
        await asyncio.sleep(rng.uniform(0, 0.006))
        victim.cancel()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError | None) for result in results)
    assert len(window.granted) >= sum(result is None for result in results) >= 140
    assert limiter.waiting == 0
    assert most_in_a_window(window.granted, 0.02) <= 10
    assert most_in_a_window(window.shared, 0.02) <= 8


class SlowClock:
    """Runs at half speed, so every timer of the loop fires early by this clock."""

    def __init__(self) -> None:
        self._base = SystemClock()
        self._start = self._base.monotonic()

    def now_ms(self) -> int:
        return self._base.now_ms()

    def monotonic(self) -> float:
        return self._start + (self._base.monotonic() - self._start) / 2


@pytest.mark.both_loops
async def test_a_timer_that_fires_early_grants_nothing_early() -> None:
    clock = SlowClock()
    window = NotedWindow(limit=2, window_s=0.05)
    limiter = RateLimiter(window, clock)
    for _ in range(6):
        await limiter.acquire(Priority.NORMAL)
    assert len(window.granted) == 6
    assert most_in_a_window(window.granted, 0.05) <= 2


async def test_a_block_holds_those_who_wait_already(clock: ManualClock) -> None:
    limiter = small_limiter(clock, window_s=0.01)
    await limiter.acquire(Priority.CRITICAL)
    waiting = asyncio.create_task(limiter.acquire(Priority.CRITICAL))
    await eventually(lambda: limiter.waiting == 1)
    limiter.block(0.1)
    clock.advance(0.05)
    await asyncio.sleep(0.03)
    assert not waiting.done()
    clock.advance(0.06)
    async with asyncio.timeout(2):
        await waiting


async def test_a_call_waits_until_its_first_request_is_let_through(clock: ManualClock) -> None:
    limiter = small_limiter(clock, limit=2, window_s=30.0)

    async def ask(call: CallInWork, pages: int) -> None:
        with working_for(call):
            async with asyncio.TaskGroup() as group:
                for _ in range(pages):
                    group.create_task(limiter.acquire(Priority.NORMAL))

    assert limiter.oldest_wait_s(clock.monotonic()) == {}
    first, second = CallInWork(Priority.NORMAL), CallInWork(Priority.NORMAL)
    calls: list[asyncio.Task[Any]] = [asyncio.create_task(ask(first, 5))]
    await eventually(lambda: limiter.waiting == 3)
    clock.advance(4)
    assert limiter.oldest_wait_s(clock.monotonic()) == {}, "it has begun: its pages go on in turn"
    calls.append(asyncio.create_task(ask(second, 2)))
    nobodys = asyncio.create_task(limiter.acquire(Priority.HIGH))
    await eventually(lambda: limiter.waiting == 6)
    clock.advance(3)
    waits_s = limiter.oldest_wait_s(clock.monotonic())
    assert waits_s == {Priority.NORMAL: pytest.approx(3)}, "no caller waits for the other one"
    raised = Ticket(Priority.LOW)
    with working_for(CallInWork(Priority.LOW)):
        calls.append(asyncio.create_task(limiter.acquire(raised)))
        await eventually(lambda: limiter.waiting == 7)
    limiter.raise_to(raised, Priority.CRITICAL)
    clock.advance(1)
    assert limiter.oldest_wait_s(clock.monotonic()) == {
        Priority.CRITICAL: pytest.approx(1),
        Priority.NORMAL: pytest.approx(4),
    }
    for call in (*calls, nobodys):
        call.cancel()
    await asyncio.wait([*calls, nobodys])
    assert limiter.oldest_wait_s(clock.monotonic()) == {}
