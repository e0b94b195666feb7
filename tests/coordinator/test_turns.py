"""One page in flight for all LOW callers, in turn; a second only for an exchange far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.turns import (
    LOW_SPACING_S,
    LowTurns,
    TurnKeeper,
    Waiter,
    WaitingLine,
)
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


@pytest.mark.steered_time
async def test_while_low_may_send_nothing_no_turn_is_given_to_whoever_waits_for_one() -> None:
    rate: float | None = None
    told: list[int] = []
    flights = Flights(0.01)
    flights.turns = LowTurns(LoopClock(), pages_per_s=lambda: rate)
    loads = [asyncio.create_task(flights.fly(str(number), 5)) for number in range(20)]

    async def told_load(number: int) -> None:
        async with flights.turns.turn(f"told {number}", lambda: told.append(number)):
            pass

    await asyncio.sleep(0.1)
    loads.append(asyncio.create_task(told_load(0)))
    await asyncio.sleep(0)
    rate = 0.0
    before = len(flights.begun)
    assert before
    await asyncio.sleep(60)
    assert len(flights.begun) == before
    assert told == [0], "once"
    loads.append(asyncio.create_task(told_load(1)))
    await asyncio.sleep(1)
    assert told == [0, 1]
    rate = 1.0
    await asyncio.sleep(3)
    assert len(flights.begun) == pytest.approx(before + 3, abs=1)
    rate = None
    await asyncio.gather(*loads)
    assert len(flights.begun) == 100


class CountedCaller:
    """A caller that counts how often anybody looks it up."""

    looks = 0

    def __hash__(self) -> int:
        CountedCaller.looks += 1
        return id(self)


@pytest.mark.steered_time
async def test_a_burst_of_callers_is_looked_through_a_few_times_each_not_by_each() -> None:
    turns = LowTurns(LoopClock())
    callers = [CountedCaller() for _ in range(1_000)]

    async def page(caller: CountedCaller) -> None:
        async with turns.turn(caller):
            await asyncio.sleep(0)

    async with turns.turn("before all"):
        calls = [asyncio.create_task(page(caller)) for caller in callers]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
    await asyncio.wait(calls)
    assert turns.pages == 501
    assert CountedCaller.looks < 20 * len(callers)


@given(
    st.lists(st.tuples(st.sampled_from(["come", "serve", "leave"]), st.integers(0, 5))),
    st.integers(0, 150),
)
def test_next_is_who_ranks_first_and_of_equals_who_came_first_whoever_leaves(
    steps: list[tuple[str, int]], crowd: int
) -> None:
    keeper = TurnKeeper()
    line = WaitingLine(keeper.rank)
    waiting: list[Waiter] = []
    for what, number in [("come", n % 4) for n in range(crowd)] + [("leave", 3)] * crowd + steps:
        if what == "come":
            waiting.append(Waiter(number))
            keeper.join(number)
            line.enter(waiting[-1])
        elif waiting:
            first = min(waiting, key=lambda waiter: keeper.rank(waiter.caller))
            assert line.first() is first
            if what == "serve":
                keeper.begin(first.caller, 0.0)
                keeper.end()
            else:
                first = waiting[number % len(waiting)]
            waiting.remove(first)
            line.leave(first)
        assert len(line) == len(waiting)
    expected = min(waiting, key=lambda waiter: keeper.rank(waiter.caller), default=None)
    assert line.first() is expected
    assert len(line._heaps[False]) <= 2 * len(waiting) + 100


@pytest.mark.steered_time
async def test_quotes_and_pages_of_loads_take_turns_however_many_loads_wait() -> None:
    flights = Flights(0.01)
    loads = [asyncio.create_task(flights.fly(f"load {number}", 1)) for number in range(500)]
    await asyncio.sleep(1)
    for _ in range(20):
        before = len(flights.begun)
        async with flights.turns.turn("tickers", is_quote=True):
            assert len(flights.begun) <= before + 1
    assert not all(load.done() for load in loads)
    before = len(flights.begun)

    async def quotes(count: int) -> None:
        for _ in range(count):
            async with flights.turns.turn("tickers", is_quote=True):
                pass

    await asyncio.gather(quotes(10), quotes(10))
    assert len(flights.begun) - before >= 19, "nor do quotes keep a load waiting"
    await asyncio.gather(*loads)


@pytest.mark.parametrize("data_type", [DataType.CANDLE, DataType.TRADE, DataType.TICKER])
async def test_who_waits_for_a_turn_when_low_is_paused_asks_for_nothing_until_it_may(
    data_type: DataType,
) -> None:
    clock = ManualClock(NOON + 30_000)
    source = FakeExchangeSource(clock, [NOON - n * M for n in range(500)])
    why: str | None = None
    coordinator = Coordinator(
        FakeStore(source), clock=clock, rng=NoChance(), shedding=lambda _: why
    )
    low = Priority.LOW
    request = asked(end_ms=NOON, count=10, priority=low)
    if data_type is not DataType.CANDLE:
        request = BackboneRequest(data_type, (SYMBOL,), count=5, priority=low)
    async with coordinator._turns.turn("another"):
        load = coordinator.chunks(asked(start_ms=NOON - 300 * M, end_ms=NOON, priority=low))
        call = asyncio.create_task(coordinator.fetch(request))
        reading = asyncio.create_task(anext(load))
        paused = coordinator.chunks(asked(end_ms=NOON, start_ms=NOON - 300 * M, priority=low))
        left_alone = asyncio.create_task(anext(paused))
        await eventually(lambda: len(coordinator._turns._waiting) == 5)
        paused.pause()
        why = "a demonstration"
        clock.advance(1.0)
    await eventually(lambda: load.progress.state == "waiting for load")
    assert load.progress.reason == why
    assert paused.progress.state == "paused"
    paused.cancel()
    await asyncio.wait([left_alone])
    left_alone.exception()
    clock.advance(1.0)
    await asyncio.sleep(0.3)  # it is looked again each quarter of a second
    assert not source.requests
    why = None

    def answered() -> bool:
        clock.advance(1.0)
        return call.done() and reading.done()

    await eventually(answered)
    if data_type is DataType.CANDLE:
        assert call.result().success
    else:
        call.exception()  # this exchange has candles only
    load.cancel()
    assert source.requests
