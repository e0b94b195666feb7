"""One page in flight for all LOW callers, in turn; a second only for an exchange far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from upbit_backbone.coordinator.turns import LOW_SPACING_S, LowTurns, TurnKeeper


class LoopClock:
    """The loop's own time: steered, when the loop is."""

    def now_ms(self) -> int:
        return round(self.monotonic() * 1_000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Flights:
    """Pages that take a while; remembers who flew when, and how many at once."""

    def __init__(self, takes_s: float) -> None:
        self.turns = LowTurns(LoopClock())
        self.takes_s = takes_s
        self.begun: list[str] = []
        self.most = self._now = 0

    @asynccontextmanager
    async def flying(self) -> AsyncIterator[None]:
        self._now += 1
        self.most = max(self.most, self._now)
        yield
        self._now -= 1

    async def fly(self, caller: str, pages: int) -> None:
        for _ in range(pages):
            async with self.turns.turn(caller):
                self.begun.append(caller)
                async with self.flying():
                    await asyncio.sleep(self.takes_s)


@pytest.mark.steered_time
async def test_a_near_exchange_never_sees_two_pages_of_low() -> None:
    flights = Flights(LOW_SPACING_S * 0.9)
    await asyncio.gather(*(flights.fly(caller, 10) for caller in "aabb"))
    assert flights.most == 1


@pytest.mark.steered_time
async def test_a_page_that_takes_longer_than_the_spacing_is_joined_by_one_more() -> None:
    flights = Flights(LOW_SPACING_S * 1.9)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(flights.fly("a", 10) for _ in range(2)))
    took = asyncio.get_running_loop().time() - began
    assert flights.most == 2
    assert took == pytest.approx(20 * LOW_SPACING_S, rel=0.1), "as many a second as when it is near"


@pytest.mark.steered_time
async def test_there_are_never_three() -> None:
    flights = Flights(LOW_SPACING_S * 20)
    await asyncio.gather(*(flights.fly(caller, 5) for caller in "abcd"))
    assert flights.most == 2


@pytest.mark.steered_time
async def test_callers_take_turns_however_many_workers_each_has() -> None:
    flights = Flights(0.01)
    await asyncio.gather(*(flights.fly(caller, 5) for caller in "aaab"))
    first = flights.begun[:10]
    assert first.count("b") == 5, first
    assert flights.begun.count("a") == 15


@pytest.mark.steered_time
async def test_a_cancelled_waiter_leaves_the_turn_to_the_next() -> None:
    flights = Flights(0.5)
    first = asyncio.create_task(flights.fly("a", 1))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(flights.fly("b", 1))
    behind = asyncio.create_task(flights.fly("c", 1))
    await asyncio.sleep(0.01)
    waiting.cancel()
    first.cancel()
    await asyncio.wait([first, waiting, behind])
    assert flights.begun == ["a", "c"]
    await flights.fly("d", 1)


def test_who_was_served_longest_ago_ranks_first() -> None:
    keeper = TurnKeeper()
    keeper.begin("a", 0.0)
    keeper.end()
    keeper.begin("b", 1.0)
    assert sorted("bca", key=keeper.rank) == ["c", "a", "b"]
    assert keeper.wait_s(1.0) == pytest.approx(LOW_SPACING_S)
    assert keeper.wait_s(2.0) == 0.0
    keeper.begin("c", 2.0)
    assert keeper.wait_s(9.0) is None
