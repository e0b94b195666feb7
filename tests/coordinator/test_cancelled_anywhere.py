"""A call that is cancelled, at whatever await: nothing is left of it but what had been answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.coordinator.test_trades import NOW, STAMPS, TODAY, FakeTrades
from tests.coordinator.test_trades import asked as asked_trades
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked
from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import TransportError
from upbit_backbone.models import CandleSeries
from upbit_backbone.protocol import BackboneRequest, Priority, Progress

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS
M = MINUTE_MS
MOST_STEPS = 2_000


class World:
    """A coordinator on an exchange whose answers take a few turns of the loop."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON + 30 * SECOND_MS)
        opens = [NOON - n * M for n in range(2_000) if n % 3 or n < 300]
        self.exchange = FakeExchangeSource(self.clock, opens)
        self.exchange.before_answer = self.exchange.after_read = a_few_turns
        self.store = FakeStore(self.exchange)
        self.coordinator = Coordinator(self.store, clock=self.clock, rng=NoChance())

    def existing(self, start: int, end: int) -> list[int]:
        """What there is, by minutes after noon."""
        return [at for at in self.exchange.existing() if NOON + start * M <= at < NOON + end * M]


async def a_few_turns(_: object) -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def cancelled_after(steps: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Cancel it after so many turns of the loop; whether it was under way."""
    task = asyncio.create_task(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    was_under_way = not task.done()
    task.cancel()
    await asyncio.wait([task])
    if was_under_way:
        assert task.cancelled(), task.exception()
    return was_under_way


async def at_each_await(once: Callable[[int], Awaitable[bool]]) -> None:
    """Call it with more and more turns, until what it cancels has ended before."""
    before = asyncio.all_tasks()
    for steps in range(MOST_STEPS):
        async with asyncio.timeout(10):
            was_under_way = await once(steps)
        assert asyncio.all_tasks() == before, steps
        if not was_under_way:
            assert steps >= 10
            return
    raise AssertionError(f"it was still under way after {MOST_STEPS} turns")


QUESTIONS = [
    {"start_ms": NOON - 1_300 * M},
    {"count": 700},
    {"start_ms": NOON - 1_900 * M, "count": 700},
]


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW])
@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_call_for_candles(question: dict[str, int], priority: Priority) -> None:
    async def once(steps: int) -> bool:
        world = World()
        request = asked(**question, priority=priority)  # type: ignore[arg-type]
        under_way = await cancelled_after(steps, world.coordinator.fetch(request))
        whole = await world.coordinator.fetch(request)
        found = whole.data.time.tolist()
        everything = world.existing(-3_000, 1)
        first = everything if "start_ms" not in question else [
            at for at in everything if at >= question["start_ms"]
        ]  # fmt: skip
        count = question.get("count", len(first))
        assert found == (first[:count] if "start_ms" in question else first[-count:])
        assert whole.success
        return under_way

    await at_each_await(once)


async def test_a_call_for_trades() -> None:
    request = asked_trades(TODAY - 2 * DAY_MS, None, None, Priority.LOW)
    source = FakeTrades(ManualClock(NOW), STAMPS)
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    whole = (await coordinator.fetch(request)).data

    async def once(steps: int) -> bool:
        under_way = await cancelled_after(steps, coordinator.fetch(request))
        assert source.at_once == 0
        return under_way

    await at_each_await(once)
    assert (await coordinator.fetch(request)).data == whole


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("who", ["the reader", "the load"])
async def test_a_load_in_pieces(newest_first: bool, who: str) -> None:
    start_ms = NOON - 1_100 * M

    async def once(steps: int) -> bool:
        world = World()
        failures = [TransportError("cut off")]

        async def fail_once(_: BackboneRequest) -> None:
            await asyncio.sleep(0)
            if len(world.exchange.requests) == 3 and failures:
                raise failures.pop()

        world.exchange.before_answer = fail_once
        request = asked(start_ms=start_ms, end_ms=NOON, priority=Priority.LOW)
        events: list[Progress] = []
        given: list[CandleSeries] = []
        chunks = world.coordinator.chunks(
            request, newest_first=newest_first, on_progress=events.append
        )

        async def read() -> None:
            async for piece in chunks:
                given.append(piece)  # noqa: PERF401  what was given stays when this is cancelled

        if who == "the reader":
            under_way = await cancelled_after(steps, read())
            chunks.cancel()
        else:
            reader = asyncio.create_task(read())
            for _ in range(steps):
                await asyncio.sleep(0)
            under_way = not reader.done()
            chunks.cancel()
            chunks.cancel()
            await reader
        assert [piece async for piece in chunks] == [], "iterating stops"
        await world.coordinator.stop()
        asked_before = list(world.exchange.requests)
        # The load may be through while its reader still has a piece to take.
        assert chunks.progress.state in (["ended", "done"] if under_way else ["done"])
        assert [one.state for one in events[-1:]] in ([], [chunks.progress.state])

        opens = sorted(at for piece in given for at in piece.time.tolist())
        everything = world.existing(-1_100, 0)
        there = everything[-len(opens) :] if newest_first else everything[: len(opens)]
        assert opens == (there if opens else []), "stretches without a hole, each once"

        done_before = [(one.start_ms, one.end_ms) for one in world.store.known.missing(
            start_ms, NOON
        )]  # fmt: skip
        successor = Coordinator(world.store, clock=world.clock, rng=NoChance())
        again = successor.chunks(request, newest_first=newest_first)
        pieces = [piece async for piece in again]
        assert sorted(at for piece in pieces for at in piece.time.tolist()) == everything
        for page in world.exchange.requests[len(asked_before) :]:
            assert page.start_ms is not None
            assert page.end_ms is not None
            assert any(low <= page.start_ms and page.end_ms <= high for low, high in done_before), (
                "what was answered is not asked again"
            )
        await successor.stop()
        return under_way

    await at_each_await(once)
