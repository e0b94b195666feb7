from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import WINDOW_S, RateLimiter, RateWindow

ROUNDING_S = 1e-9
PRIORITIES = st.sampled_from(Priority)
ARRIVALS = st.lists(st.tuples(st.floats(0, 0.6), PRIORITIES), max_size=120)


def exchange_window() -> RateWindow:
    return RateWindow(limit=10, window_s=WINDOW_S, reserve=2)


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
