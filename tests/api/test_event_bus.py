"""The bus lets work begin in turn, and without it nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.coordinator.test_turns import LoopClock
from tests.eventually import eventually
from upbit_backbone.api.event_bus import (
    A_TURN,
    KEPT_ANSWERS,
    MOST_UNREAD,
    MOST_WAITING,
    EventBusIntegration,
    SystemReading,
)
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager
from upbit_backbone.api.paths import EventBusDataAccess
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import (
    ClosedError,
    DeadlineError,
    InvalidRequestError,
    SystemOverloadedError,
    TransportError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    Priority,
    SystemEvent,
)
from upbit_backbone.telemetry.events import EventLog

NORMAL, LOW = Priority.NORMAL, Priority.LOW
pytestmark = pytest.mark.steered_time


class Below:
    """A layer that answers when it is told to, and remembers in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[BackboneRequest] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.failure: Exception | None = None

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        self.asked.append(request)
        await self.answers.wait()
        if self.failure is not None:
            raise self.failure
        metadata = BackboneMetadata("layer_1", False, 0.0, 1, request.priority, path="coordinator")
        return BackboneResponse(True, request.symbols, metadata, None, request.request_id)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked in these tests")


class Bus:
    """A bus on a load manager and a layer, in a world of its own time."""

    def __init__(self, slots: int) -> None:
        self.clock = LoopClock()
        self.log = EventLog(self.clock, on_event=lambda event: self.bus.tell(event))
        self.load = SystemLoadManager(memory_limit_bytes=1_000, events=self.log)
        self.shed = 0
        self.bus = EventBusIntegration(
            clock=self.clock, events=self.log, load=self.load, slots=slots, on_shed=self._note
        )
        self.below = Below()
        self.access = EventBusDataAccess(self.bus, self.below)
        self.bus.serve(self.access.fetch)

    def _note(self) -> None:
        self.shed += 1

    def set_load(self, load: float) -> None:
        """By what memory is used: 1,000 bytes are 100."""
        self.load.observe(LoadReading(rss_bytes=round(load * 10)), self.clock.monotonic())

    async def calm_down(self) -> None:
        """The load goes down and stays there until everybody may run."""
        for _ in range(20):
            self.set_load(10)
            await asyncio.sleep(0.25)

    def call(self, priority: Priority, name: str = "KRW-BTC", within_s: float | None = None) -> Any:
        deadline_s = None if within_s is None else self.clock.monotonic() + within_s
        request = BackboneRequest(DataType.TICKER, (name,), priority=priority, deadline=deadline_s)
        return asyncio.create_task(self.access.fetch(request), name=f"call {name}")

    @property
    def order(self) -> list[str]:
        return [request.symbols[0] for request in self.below.asked]

    def task(self) -> asyncio.Task[Any]:
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "event bus")
        return task


@asynccontextmanager
async def running(slots: int = 100) -> AsyncIterator[Bus]:
    world = Bus(slots)
    await world.bus.start()
    try:
        yield world
    finally:
        await world.bus.stop()


async def turns(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_calls_go_through_the_bus_and_say_so() -> None:
    async with running() as world:
        for priority in (NORMAL, LOW):
            response = await world.call(priority)
            assert response.metadata.path == "bus: api → coordinator"
            assert response.data == ("KRW-BTC",)
        assert world.bus.counters["normal_in_work"] == world.bus.counters["low_in_work"] == 0


async def test_normal_goes_first_and_low_is_not_starved() -> None:
    async with running(slots=1) as world:
        calls = [world.call(LOW, f"low-{n}") for n in range(3)]
        calls += [world.call(NORMAL, f"normal-{n}") for n in range(40)]
        await asyncio.gather(*calls)
        assert world.order[0] == "normal-0", "LOW came first and goes second"
        assert [name for name in world.order if name.startswith("normal")] == [
            f"normal-{n}" for n in range(40)
        ]
        assert world.order.index("low-2") < world.order.index("normal-35")


async def test_a_few_calls_begin_in_one_turn_of_the_loop() -> None:
    async with running() as world:
        calls = [world.call(NORMAL, str(n)) for n in range(90)]
        begun = []
        while not all(call.done() for call in calls):
            await asyncio.sleep(0)
            begun.append(len(world.below.asked))
        steps = [after - before for before, after in pairwise(begun)]
        assert max(steps) == A_TURN
        assert world.order == [str(n) for n in range(90)]


async def test_no_more_normal_calls_are_in_work_than_slots() -> None:
    async with running(slots=3) as world:
        world.below.answers.clear()
        calls = [world.call(NORMAL, f"normal-{n}") for n in range(5)]
        calls += [world.call(LOW, f"low-{n}") for n in range(5)]
        await turns()
        assert [name for name in world.order if name.startswith("normal")] == [
            "normal-0", "normal-1", "normal-2",
        ]  # fmt: skip
        assert len(world.order) == 8, "pages of LOW take turns below"
        world.below.answers.set()
        await asyncio.gather(*calls)
        assert len(world.order) == 10


async def test_a_cancelled_call_gives_back_its_place_and_its_slot() -> None:
    async with running(slots=1) as world:
        world.below.answers.clear()
        working, waiting, last = (world.call(NORMAL, name) for name in ("a", "b", "c"))
        await turns()
        assert world.order == ["a"]
        waiting.cancel()
        working.cancel()
        await asyncio.wait([working, waiting])
        await turns()
        assert world.order == ["a", "c"]
        world.below.answers.set()
        await last
        assert world.bus.counters["normal_in_work"] == world.bus.counters["normal_waiting"] == 0


async def test_a_call_cancelled_in_the_moment_of_its_turn_keeps_no_slot() -> None:
    async with running(slots=1) as world:
        for cut_after in range(8):
            call = world.call(NORMAL)
            await turns(cut_after)
            call.cancel()
            await asyncio.wait([call])
        assert (await world.call(NORMAL)).success


async def test_low_waits_for_the_load_and_goes_on_by_itself() -> None:
    async with running() as world:
        world.set_load(95)
        call = world.call(LOW)
        await asyncio.sleep(3_600)
        assert not call.done(), "it never fails for load"
        assert world.shed == 1
        await world.calm_down()
        assert (await call).success


async def test_normal_runs_up_to_90_and_is_shed_at_its_deadline_above() -> None:
    async with running() as world:
        world.set_load(90)
        assert (await world.call(NORMAL)).success
        world.set_load(90.1)
        began_s = world.clock.monotonic()
        with pytest.raises(SystemOverloadedError, match="NORMAL has to wait") as caught:
            await world.call(NORMAL, within_s=5)
        assert world.clock.monotonic() - began_s == pytest.approx(5, abs=0.01)
        assert caught.value.retry_after_s == 2
        assert "load 90 %, memory" in str(caught.value)
        assert len(world.below.asked) == 1
        assert world.bus.counters["normal_waiting"] == 0
        assert world.bus.counters["normal_refused"] == 1
        assert world.bus.counters["low_refused"] == 0


async def test_whose_deadline_comes_while_others_go_first_hears_that() -> None:
    async with running(slots=1) as world:
        world.below.answers.clear()
        first = world.call(NORMAL)
        with pytest.raises(DeadlineError, match="others went first"):
            await world.call(NORMAL, within_s=1)
        world.below.answers.set()
        await first


async def test_waits_for_the_load_are_no_waits_of_the_bus() -> None:
    async with running(slots=1) as world:
        world.below.answers.clear()
        working, waiting = world.call(NORMAL), world.call(NORMAL)
        await asyncio.sleep(1)
        assert world.bus.oldest_wait_s(world.clock.monotonic()) == {
            NORMAL: pytest.approx(1, abs=0.1)
        }
        world.set_load(95)
        low = world.call(LOW)
        await asyncio.sleep(2)
        assert world.bus.oldest_wait_s(world.clock.monotonic()).keys() <= {NORMAL}
        third = world.call(NORMAL)
        await asyncio.sleep(1)
        assert world.bus.oldest_wait_s(world.clock.monotonic()) == {}
        await world.calm_down()
        waits_s = world.bus.oldest_wait_s(world.clock.monotonic())
        assert waits_s[NORMAL] < 5, "from when it was let in again"
        world.below.answers.set()
        await asyncio.gather(working, waiting, third, low)


async def test_the_thousand_and_first_call_waits_for_room_and_is_answered() -> None:
    async with running() as world:
        world.set_load(95)
        calls = [world.call(LOW, str(n)) for n in range(MOST_WAITING + 500)]
        await turns()
        assert world.bus.counters["low_waiting"] == MOST_WAITING
        await world.calm_down()
        await asyncio.gather(*calls)
        assert world.order == [str(n) for n in range(MOST_WAITING + 500)]


async def test_a_low_quote_waits_behind_no_burst_of_low_loads() -> None:
    async with running() as world:

        def load(name: str) -> asyncio.Task[BackboneResponse]:
            request = BackboneRequest(DataType.CANDLE, (name,), Timeframe.M1, priority=LOW)
            return asyncio.create_task(world.access.fetch(request))

        names = [f"load-{n}" for n in range(2 * MOST_WAITING)]
        loads = [load(name) for name in names]
        await turns()
        assert world.order == names[:1], "they begin a little apart"
        await world.call(LOW, "quote")
        await world.call(NORMAL, "normal")
        assert world.order[:3] == [names[0], "quote", "normal"]
        began_s = world.clock.monotonic()
        await asyncio.gather(*loads)
        assert [name for name in world.order if name.startswith("load")] == names
        assert world.clock.monotonic() - began_s < 5


def kill(world: Bus) -> None:
    world.task().cancel()


def break_down(world: Bus) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    world.bus._lanes.next = fail  # type: ignore[method-assign, assignment]
    world.bus._news.set()


@pytest.mark.parametrize(
    ("end", "why"), [(kill, "it was cancelled"), (break_down, "a fault of ours")]
)
async def test_when_the_bus_fails_nothing_is_lost_and_it_comes_back(
    end: Callable[[Bus], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(slots=2) as world:
        world.below.answers.clear()
        calls = [world.call(priority, "early") for priority in (NORMAL, LOW) for _ in range(10)]
        await turns()
        assert len(world.below.asked) == 12, "others wait"
        end(world)
        await turns()
        assert len(world.below.asked) == 20, "who waited goes on directly"
        assert why in world.bus.failure
        late = world.call(NORMAL)
        world.below.answers.set()
        answers = await asyncio.gather(*calls, late)
        assert all(answer.success for answer in answers)
        assert [answer.metadata.path.partition(":")[0] for answer in answers].count("bus") == 12
        assert answers[-1].metadata.path == "direct, without the bus: api → coordinator"
        await asyncio.sleep(0.2)
        assert world.bus.failure == ""
        assert (await world.call(NORMAL)).metadata.path.startswith("bus:")
        sentences = [event.sentence for event in world.log.since(0)]
        assert why in sentences[0]
        assert sentences[1] == "the event bus works again"
    # Who cancels all tasks ends a program.
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (end is break_down)


async def test_a_bus_that_fails_again_and_again_is_begun_anew_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as world:
        away_s = []
        for _ in range(12):
            world.task().cancel()
            await turns()
            since_s = world.clock.monotonic()
            while world.bus.failure:
                await asyncio.sleep(0.05)
            away_s.append(world.clock.monotonic() - since_s)
        assert away_s[:3] == [pytest.approx(s, abs=0.06) for s in (0.1, 0.2, 0.4)]
        assert away_s[-1] == pytest.approx(30, abs=0.06)
        await asyncio.sleep(11)
        world.task().cancel()
        await asyncio.sleep(0.11)
        assert world.bus.failure == "", "after it had been well"


async def test_while_the_bus_is_away_calls_wait_for_the_load_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as world:
        world.set_load(95)
        queued = [world.call(NORMAL), world.call(LOW)]
        await turns()
        while world.bus._task._delay_s < 30:  # it fails again and again, and is away for long
            if not world.bus.failure:
                world.task().cancel()
            await asyncio.sleep(0.05)
        assert world.bus.failure
        with pytest.raises(SystemOverloadedError, match=r"NORMAL has to wait \(load 95 %"):
            await world.call(NORMAL, within_s=1)
        assert world.below.asked == [], "above 90 it is CRITICAL alone that begins"
        world.set_load(75)
        while world.load.band == "critical only":
            world.set_load(75)
            await asyncio.sleep(0.25)
        late = [world.call(NORMAL), world.call(LOW)]
        await asyncio.sleep(0.3)
        assert [call.done() for call in (*queued, *late)] == [True, False, True, False]
        await world.calm_down()
        answers = await asyncio.gather(*queued, *late)
        ways = {answer.metadata.path.partition(":")[0] for answer in answers}
        assert ways == {"direct, without the bus"}
        assert world.shed >= 5


async def test_calls_wait_for_nothing_once_the_bus_is_stopped() -> None:
    world = Bus(slots=1)
    await world.bus.start()
    world.set_load(95)
    call = world.call(NORMAL, within_s=10)
    await turns()
    await world.bus.stop()
    await world.bus.stop()
    assert (await call).metadata.path.startswith("direct, without the bus")
    assert (await world.call(LOW)).success


async def test_a_bus_that_is_stopped_while_it_is_away_stays_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as world:
        world.task().cancel()
        await turns()
    await asyncio.sleep(60)
    assert world.bus.failure == "not running"


async def test_a_throttle_pauses_low_until_the_last_is_released() -> None:
    async with running() as world:
        first = world.bus.emergency_throttle("a demonstration")
        call = world.call(LOW)
        with world.bus.emergency_throttle():
            await asyncio.sleep(60)
            first.release()
            first.release()
            await asyncio.sleep(60)
            assert not call.done()
            assert (await world.call(NORMAL)).success
            with pytest.raises(SystemOverloadedError, match="emergency throttle"):
                await world.call(LOW, within_s=1)
        assert (await call).success
        assert world.bus.throttled == ""
        sentences = [event.sentence for event in world.log.since(0)]
        assert sentences == [
            "LOW is paused: a demonstration",
            "LOW is paused: emergency throttle",
            "LOW is not paused any more",
        ]


async def test_a_published_request_is_answered_by_its_number_once() -> None:
    async with running() as world:
        request = BackboneRequest(DataType.TICKER, ("KRW-BTC",))
        number = await world.bus.publish_data_request(request)
        assert number == str(request.request_id)
        with pytest.raises(InvalidRequestError, match="published already"):
            await world.bus.publish_data_request(request)
        answer = await world.bus.answer(number)
        assert answer.request_id == request.request_id
        with pytest.raises(InvalidRequestError, match="no answer is kept"):
            await world.bus.answer(number)
        with pytest.raises(InvalidRequestError, match="takes a BackboneRequest, was 'KRW-BTC'"):
            await world.bus.publish_data_request("KRW-BTC")  # type: ignore[arg-type]


async def test_a_published_request_may_fail_unseen_and_seen() -> None:
    async with running() as world:
        world.below.failure = TransportError("cut off")
        await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, ("KRW-BTC",)))
        seen = await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, ("KRW-ETH",)))
        with pytest.raises(TransportError, match="cut off"):
            await world.bus.answer(seen)
        gc.collect()


async def test_a_published_request_ends_at_its_deadline() -> None:
    async with running() as world:
        world.below.answers.clear()
        began_s = world.clock.monotonic()
        number = await world.bus.publish_data_request(
            BackboneRequest(DataType.TICKER, ("KRW-BTC",), priority=NORMAL)
        )
        with pytest.raises(DeadlineError, match="ticker of KRW-BTC"):
            await world.bus.answer(number)
        assert world.clock.monotonic() - began_s == pytest.approx(10, abs=0.1)


async def test_who_asks_for_an_answer_may_be_cancelled() -> None:
    async with running() as world:
        world.below.answers.clear()
        number = await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, ("A-B",)))
        asking = asyncio.create_task(world.bus.answer(number))
        await turns()
        asking.cancel()
        await asyncio.wait([asking])
        world.below.answers.set()
        assert (await world.bus.answer(number)).success


async def test_published_requests_survive_the_bus(caplog: pytest.LogCaptureFixture) -> None:
    async with running(slots=1) as world:
        numbers = [
            await world.bus.publish_data_request(
                BackboneRequest(DataType.TICKER, (str(n),), priority=LOW)
            )
            for n in range(20)
        ]
        world.task().cancel()
        answers = [await world.bus.answer(number) for number in numbers]
        assert [answer.data for answer in answers] == [(str(n),) for n in range(20)]


async def test_answers_that_nobody_asks_for_are_dropped_the_oldest_first() -> None:
    async with running() as world:
        numbers = [
            await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, (str(n),)))
            for n in range(KEPT_ANSWERS)
        ]
        await asyncio.sleep(1)
        newer = await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, ("new",)))
        with pytest.raises(InvalidRequestError):
            await world.bus.answer(numbers[0])
        assert (await world.bus.answer(numbers[1])).data == ("1",)
        assert (await world.bus.answer(newer)).data == ("new",)


async def test_who_publishes_more_than_is_answered_waits() -> None:
    async with running(slots=1) as world:
        world.below.answers.clear()

        async def publish() -> None:
            for n in range(MOST_WAITING + 10):
                await world.bus.publish_data_request(
                    BackboneRequest(DataType.TICKER, (str(n),), priority=LOW)
                )

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(1)
        assert not publishing.done()
        world.below.answers.set()
        await asyncio.sleep(1)
        assert publishing.done()
        await publishing


@pytest.mark.parametrize("ends", [False, True])
async def test_who_waited_for_room_is_looked_at_again(ends: bool) -> None:
    async with running() as world:
        world.below.answers.clear()
        for n in range(MOST_WAITING):
            await world.bus.publish_data_request(
                BackboneRequest(DataType.TICKER, (str(n),), priority=LOW)
            )
        request = BackboneRequest(DataType.TICKER, ("A-B",), priority=LOW)
        twice = [asyncio.create_task(world.bus.publish_data_request(request)) for _ in range(2)]
        await turns()
        assert not any(one.done() for one in twice)
        if ends:
            await world.bus.stop()
        else:
            world.below.answers.set()
        first, second = await asyncio.gather(*twice, return_exceptions=True)
        if ends:
            assert [type(first), type(second)] == [ClosedError, ClosedError]
            return
        assert isinstance(second, InvalidRequestError)
        assert "published already" in str(second)
        assert (await world.bus.answer(str(first))).data == ("A-B",)
        await asyncio.sleep(1)
        room = world.bus._publish_room[LOW]
        assert room._value == MOST_WAITING, "who was refused holds no room"


async def test_closing_ends_published_requests_with_an_error() -> None:
    world = Bus(slots=1)
    await world.bus.start()
    world.below.answers.clear()
    number = await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, ("A-B",)))
    asking = asyncio.create_task(world.bus.answer(number))
    await turns()
    await world.bus.stop()
    with pytest.raises(ClosedError):
        await asking
    with pytest.raises(ClosedError):
        await world.bus.publish_data_request(BackboneRequest(DataType.TICKER, ("A-B",)))


def reading(world: Bus, share: float) -> SystemReading:
    now = utc_datetime(world.clock.now_ms())
    return SystemReading(now, share, 1, 0.0, world.load.load, world.load.band)


async def test_system_events_come_in_order_and_of_readings_the_newest() -> None:
    async with running() as world:
        world.log.add("layer_1", "warning", "gap", "before")
        async with world.bus.subscribe_to_system_events() as events:
            waiting = asyncio.ensure_future(anext(events))
            await turns()
            world.log.add("layer_1", "warning", "ban", "blocked")
            first = await waiting
            assert isinstance(first, SystemEvent)
            assert first.kind == "ban"
            world.bus.tell(reading(world, 0.1))
            world.set_load(95)
            world.bus.tell(reading(world, 0.2))
            band = await anext(events)
            assert isinstance(band, SystemEvent)
            assert band.kind == "load"
            newest = await anext(events)
            assert isinstance(newest, SystemReading)
            assert (newest.processor_share, newest.band) == (0.2, "critical only")
        assert [event async for event in events] == []


async def test_a_slow_reader_of_events_sees_from_the_numbers_what_it_missed() -> None:
    async with running() as world:
        events = world.bus.subscribe_to_system_events()
        for n in range(MOST_UNREAD + 5):
            world.log.add("layer_1", "info", "gap", str(n))
        first = await anext(events)
        assert isinstance(first, SystemEvent)
        assert first.number == 6


async def test_events_end_with_the_bus_and_with_their_last_reference() -> None:
    async with running() as world:
        left = world.bus.subscribe_to_system_events()
        forgotten = world.bus.subscribe_to_system_events()
        assert world.bus.counters["bus_readers"] == 2
        del forgotten
        gc.collect()
        assert world.bus.counters["bus_readers"] == 1
    assert [event async for event in left] == []
    assert [event async for event in world.bus.subscribe_to_system_events()] == []


async def test_a_failing_bus_tells_its_readers(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as world:
        events = world.bus.subscribe_to_system_events()
        world.task().cancel()
        await asyncio.sleep(1)
        told = [await anext(events), await anext(events)]
        assert [event.kind for event in told if isinstance(event, SystemEvent)] == ["health"] * 2
        await eventually(lambda: world.bus.failure == "")
