"""One page in flight for all LOW callers, in turn; a second only for an exchange far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from tests.coordinator.fake_store import NoChance
from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.turns import LOW_SPACING_S, LowTurns, TurnKeeper
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import BackboneRequest, DataType, Priority, Whole

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS
M = MINUTE_MS


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


@pytest.mark.steered_time
async def test_calls_that_come_anew_keep_no_long_load_from_its_turn() -> None:
    """Each call is another caller, and each had no turn yet."""
    flights = Flights(0.01)

    async def small_calls(name: str) -> None:
        for number in range(30):
            await flights.fly(f"{name}{number}", 1)

    load = asyncio.create_task(flights.fly("load", 30))
    calls = [asyncio.create_task(small_calls(name)) for name in "abcd"]
    await asyncio.wait([load, *calls])
    assert flights.begun[:100].count("load") >= 18, "about one turn of five"


@pytest.mark.steered_time
async def test_a_newcomer_waits_for_no_more_than_those_who_wait_already() -> None:
    flights = Flights(0.01)
    loads = [asyncio.create_task(flights.fly(name, 50)) for name in "abc"]
    await asyncio.sleep(0.1)
    already = len(flights.begun)
    await flights.fly("new", 1)
    assert flights.begun.index("new") - already <= 3
    await asyncio.gather(*loads)


def test_only_so_many_callers_are_remembered_and_who_waited_longest_is_next() -> None:
    keeper = TurnKeeper()
    keeper.join("load")
    for number in range(5_000):
        keeper.join(number)
        assert keeper.rank("load") <= keeper.rank(number)
        keeper.begin(number, 0.0)
        keeper.end()
    assert len(keeper._ranks) <= 1_000


async def test_pages_of_the_store_s_own_have_their_turn_among_all_low_requests(
    tmp_path: Path,
) -> None:
    clock = ManualClock(NOON + 30_000)
    source = FakeExchangeSource(clock, [NOON - n * M for n in range(5_000)])
    turns = LowTurns(clock)
    low_turn = partial(turns.turn, "the store")
    async with opened(tmp_path, source, clock, low_turn=low_turn) as storage:
        coordinator = Coordinator(storage, clock=clock, rng=NoChance(), turns=turns)
        await storage.fetch(asked(end_ms=NOON - 4_000 * M, count=50))
        before = len(source.requests)

        async def take_a_while(_: BackboneRequest) -> None:
            await asyncio.sleep(0.002)

        source.before_answer, source.most_at_once = take_a_while, 0
        live = BackboneRequest(DataType.CANDLE, (SYMBOL,), Timeframe.M1)
        with closing(storage.subscribe(live)):
            await eventually(lambda: len(source.subscriptions) == 1)
            at = utc_datetime(NOON)
            source.subscriptions[0].values.put_nowait(Whole(SYMBOL, Timeframe.M1, at, at))
            await eventually(lambda: len(source.requests) > before)
            low = asked(start_ms=NOON - 3_000 * M, end_ms=NOON, priority=Priority.LOW)
            response = await coordinator.fetch(low)
        assert response.success
    assert source.most_at_once == 1
    loaded = source.requests[before:]
    first_of_the_load = next(
        n for n, page in enumerate(loaded) if page.request_id == low.request_id
    )
    own = [page for page in loaded[first_of_the_load:] if page.request_id != low.request_id]
    assert own, "both went on"


@pytest.mark.steered_time
async def test_after_a_wait_for_the_load_pages_begin_no_faster_than_they_may() -> None:
    rate: float | None = 1.0
    flights = Flights(0.01)
    flights.turns = LowTurns(LoopClock(), pages_per_s=lambda: rate)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    load = asyncio.create_task(flights.fly("load", 100))
    await asyncio.sleep(3.5)
    assert len(flights.begun) == 4, "one at once, and one each second"
    rate = 4.0
    await asyncio.sleep(2.0)
    assert len(flights.begun) == pytest.approx(4 + 7, abs=1), "from the next turn on"
    rate = None
    await load
    assert loop.time() - began_s < 8


@pytest.mark.steered_time
async def test_low_resumes_at_one_page_a_second_and_really_gets_twice_as_many_each_quiet_one() -> (
    None
):
    load = SystemLoadManager(memory_limit_bytes=1_000)
    clock = LoopClock()
    load.observe(LoadReading(rss_bytes=750), clock.monotonic())
    while load.low_pages_per_s == 0.0:
        await asyncio.sleep(0.05)
        load.observe(LoadReading(rss_bytes=100), clock.monotonic())
    flights = Flights(LOW_SPACING_S)
    flights.turns = LowTurns(clock, pages_per_s=lambda: load.low_pages_per_s)
    loading = asyncio.create_task(flights.fly("load", 100))
    got, figures = [], []
    for _ in range(6):
        before = len(flights.begun)
        for _ in range(20):
            await asyncio.sleep(0.05)
            load.observe(LoadReading(rss_bytes=100), clock.monotonic())
        got.append(len(flights.begun) - before)
        figures.append(flights.turns.got_pages_per_s())
    most = 1 / LOW_SPACING_S
    assert got == [pytest.approx(pages, abs=1) for pages in (1, 2, 4, most, most, most)]
    assert figures[0] == pytest.approx(got[0] / 3)
    assert figures[2] == pytest.approx(sum(got[:3]) / 3, abs=0.4)
    assert figures[5] == pytest.approx(1 / LOW_SPACING_S, abs=0.4)
    assert flights.turns.pages == len(flights.begun)
    loading.cancel()


@pytest.mark.steered_time
async def test_a_turn_in_which_no_page_went_is_given_back() -> None:
    turns = LowTurns(LoopClock(), pages_per_s=lambda: 1.0)
    began_s = asyncio.get_running_loop().time()
    for _ in range(5):
        async with turns.turn("load") as turn:
            turn.used = False
    assert asyncio.get_running_loop().time() == began_s
    assert (turns.pages, turns.got_pages_per_s()) == (0, 0.0)
    async with turns.turn("load"):
        pass
    assert turns.pages == 1


def test_a_rate_never_makes_low_faster_than_turns_do() -> None:
    keeper = TurnKeeper()
    keeper.begin("a", 0.0)
    assert keeper.wait_s(0.0, 100.0) == pytest.approx(LOW_SPACING_S)
    assert keeper.wait_s(0.0, 2.0) == pytest.approx(0.5)
    keeper.end()
    assert keeper.wait_s(0.2, 2.0) == pytest.approx(0.3)
    assert keeper.wait_s(0.2) == 0.0
