from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import (
    SLOWEST_PACE,
    WINDOW_S,
    Line,
    RateLimiter,
    RateWindow,
    Ticket,
)

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
    assert all(b - a >= WINDOW_S / 8 - ROUNDING_S for a, b in pairwise(low))


def test_low_alone_gets_all_that_the_reserve_leaves() -> None:
    window, now, granted = group_window(), 0.0, 0
    while now < 600:
        now += window.wait_s(now, Priority.LOW)
        window.grant(now, Priority.LOW)
        granted += 1
    assert granted / 600 >= 0.99 * 8 / WINDOW_S


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
