"""A long range in finished stretches, while the rest loads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked, series_of
from tests.storage.opening import opened
from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.coordinator.chunks import MOST_WAITING
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.plan import SECONDS_DEPTH_MS
from upbit_backbone.errors import (
    ClosedError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
)
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import BackboneRequest, DataSource, Priority, Progress

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS
M = MINUTE_MS
LOW = Priority.LOW


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


def coordinator_on(below: DataSource, clock: ManualClock, **words: Any) -> Coordinator:
    return Coordinator(below, clock=clock, rng=NoChance(), **words)


def every_minute(count: int) -> list[int]:
    return [NOON - n * M for n in range(1, count + 1)]


def minutes(series: Sequence[Any]) -> list[int]:
    assert isinstance(series, CandleSeries)
    return [(at - NOON) // M for at in series.time.tolist()]


@settings(max_examples=80)
@given(
    timeframe=st.sampled_from(list(Timeframe)),
    density=st.sampled_from([0.02, 0.3, 0.95, 1.0]),
    history=st.integers(0, 9_000),
    start=st.integers(0, 9_000),
    length=st.integers(0, 9_000),
    known=st.lists(st.tuples(st.integers(0, 9_000), st.integers(1, 900)), max_size=5),
    newest_first=st.booleans(),
    priority=st.sampled_from([Priority.LOW, Priority.NORMAL]),
    seed=st.integers(0, 10**6),
)
async def test_the_chunks_of_a_range_are_what_exists_in_order_each_once(
    timeframe: Timeframe,
    density: float,
    history: int,
    start: int,
    length: int,
    known: list[tuple[int, int]],
    newest_first: bool,
    priority: Priority,
    seed: int,
) -> None:
    most = 9_000
    if timeframe.fixed_ms is None or timeframe is Timeframe.W1:
        most = 400  # years before the calendar begins are of no interest
    chance = Random(seed)
    clock = ManualClock(AUTUMN_2025_MS + chance.randrange(DAY_MS))
    end_ms = timeframe.floor_ms(clock.now_ms() - 10_000)
    history, start, length = (min(n, most) for n in (history, start, length))
    exists = [timeframe.back_ms(end_ms, n) for n in range(1, history) if chance.random() < density]
    exchange = FakeExchangeSource(clock, exists, timeframe)
    store = FakeStore(exchange)
    for back, wide in known:
        low_ms = timeframe.back_ms(end_ms, min(back, most))
        store.known.add(low_ms, min(timeframe.back_ms(low_ms, -wide), end_ms))
    from_ms = timeframe.back_ms(end_ms, start)
    to_ms = timeframe.back_ms(end_ms, max(0, start - length))
    coordinator = coordinator_on(store, clock)
    events: list[Progress] = []
    request = asked(timeframe, from_ms, to_ms, priority=priority)
    chunks = coordinator.chunks(request, newest_first=newest_first, on_progress=events.append)
    pieces = [piece async for piece in chunks]
    ordered = pieces[::-1] if newest_first else pieces
    opens = [at for piece in ordered for at in piece.time.tolist()]
    assert opens == sorted(at for at in exists if from_ms <= at < to_ms)
    assert all(len(piece) for piece in pieces)
    if pieces:
        merged = CandleSeries.merged(ordered)
        assert merged == series_of(timeframe, opens, clock.now_ms())
    for span in chunks.missing:
        assert span.end is not None
        assert not exists or span.end.timestamp() * 1_000 <= min(exists)
        assert span.reason == "unconfirmed"
    progress = chunks.progress
    assert (progress.done, progress.state) == (progress.total, "done")
    assert progress.candles == len(opens)
    assert [event.done for event in events] == sorted(event.done for event in events)
    await coordinator.stop()


@pytest.mark.both_loops
@pytest.mark.parametrize("newest_first", [True, False])
async def test_the_first_page_is_given_while_the_rest_loads(
    noon: ManualClock, newest_first: bool
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    gate = asyncio.Event()

    async def hold_after_the_first(_: BackboneRequest) -> None:
        if len(exchange.requests) > 1:
            await gate.wait()

    exchange.before_answer = hold_after_the_first
    request = asked(start_ms=NOON - 1_000 * M, end_ms=NOON, priority=LOW)
    chunks = coordinator.chunks(request, newest_first=newest_first)
    first = await anext(chunks)
    expected = range(-200, 0) if newest_first else range(-1_000, -800)
    assert minutes(first) == list(expected)
    assert chunks.progress.done == 200
    gate.set()
    assert sum([len(piece) async for piece in chunks]) == 800
    assert len(exchange.requests) == 5
    await coordinator.stop()


async def test_for_a_screen_five_pages_are_under_way_and_the_newest_is_given_first(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    gates = {NOON: asyncio.Event()}
    others = asyncio.Event()

    async def hold(request: BackboneRequest) -> None:
        assert request.end_ms is not None
        await gates.get(request.end_ms, others).wait()

    exchange.before_answer = hold
    request = asked(start_ms=NOON - 1_200 * M, end_ms=NOON, priority=Priority.NORMAL)
    chunks = coordinator.chunks(request, newest_first=True)
    first = asyncio.create_task(anext(chunks))
    await eventually(lambda: len(exchange.requests) == 5)
    assert {page.priority for page in exchange.requests} == {Priority.NORMAL}
    gates[NOON].set()
    assert minutes(await first) == list(range(-200, 0))
    others.set()
    assert [len(piece) async for piece in chunks] == [200] * 5
    assert exchange.most_at_once == 5
    assert len(exchange.requests) == 6
    await coordinator.stop()


async def test_what_is_stored_is_not_asked_again_after_a_restart(
    noon: ManualClock, tmp_path: Path
) -> None:
    """A load of three months, broken off and begun again."""
    periods = 90 * 24
    hour = Timeframe.H1
    start_ms = hour.back_ms(NOON, periods)
    opens = [hour.back_ms(NOON, n) for n in range(1, periods + 1) if n % 17]
    exchange = FakeExchangeSource(noon, opens, hour)
    given_before: list[int] = []
    async with opened(tmp_path, exchange, noon) as storage:
        coordinator = coordinator_on(storage, noon)
        chunks = coordinator.chunks(asked(hour, start_ms, NOON, priority=LOW))
        async for piece in chunks:
            given_before += piece.time.tolist()
            if len(given_before) > 1_000:
                break
        chunks.cancel()
        await coordinator.stop()
    asked_before = list(exchange.requests)
    assert 6 <= len(asked_before) < 10
    exchange.requests.clear()
    async with opened(tmp_path, exchange, noon) as storage:
        coordinator = coordinator_on(storage, noon)
        again = coordinator.chunks(asked(hour, start_ms, NOON, priority=LOW))
        found = [at async for piece in again for at in piece.time.tolist()]
        assert found == sorted(opens)
        page_starts = [page.start_ms for page in exchange.requests if page.start_ms is not None]
        assert min(page_starts) > max(given_before), "nothing that was given is asked again"
        assert len(asked_before) + len(exchange.requests) <= math.ceil(len(opens) / 200) + 3
        exchange.requests.clear()
        third = coordinator.chunks(asked(hour, start_ms, NOON, priority=LOW))
        assert sum([len(piece) async for piece in third]) == len(opens)
        assert exchange.requests == []
        assert third.missing == ()
        await coordinator.stop()


async def test_paused_it_begins_no_page_and_resumed_it_goes_on(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    states: list[str] = []

    async def take_a_turn(_: BackboneRequest) -> None:
        await asyncio.sleep(0)

    exchange.after_read = take_a_turn
    chunks = coordinator.chunks(
        asked(start_ms=NOON - 2_000 * M, end_ms=NOON, priority=LOW),
        on_progress=lambda progress: states.append(progress.state),
    )
    await anext(chunks)
    chunks.pause()
    asked_for = len(exchange.requests)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(exchange.requests) <= asked_for + 1, "only what was on its way"
    assert chunks.progress.state == "paused"
    chunks.resume()
    assert sum([len(piece) async for piece in chunks]) == 1_800
    assert [state for state, last in zip(states, ["", *states], strict=False) if state != last] == [
        "running", "paused", "running", "done",
    ]  # fmt: skip
    await coordinator.stop()


@pytest.mark.both_loops
async def test_cancelled_it_ends_and_keeps_what_was_fetched(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)
    chunks = coordinator.chunks(asked(start_ms=NOON - 2_000 * M, end_ms=NOON, priority=LOW))
    await anext(chunks)

    async def never(_: BackboneRequest) -> None:
        await asyncio.Event().wait()

    exchange.before_answer = never
    waiting = asyncio.create_task(anext(chunks, None))
    await asyncio.sleep(0)
    chunks.cancel()
    chunks.cancel()
    while await waiting is not None:  # what had been finished before
        waiting = asyncio.create_task(anext(chunks, None))
    assert chunks.progress.state == "ended"
    assert store.known.overlap(NOON - 2_000 * M, NOON - 1_800 * M)
    await coordinator.stop()
    assert not [task for task in asyncio.all_tasks() if "chunks" in task.get_name()]


async def test_a_reader_that_is_slow_holds_up_the_loading(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(20_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    chunks = coordinator.chunks(asked(start_ms=NOON - 20_000 * M, end_ms=NOON, priority=LOW))
    await anext(chunks)
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(exchange.requests) <= MOST_WAITING + 3
    assert sum([len(piece) async for piece in chunks]) == 19_800
    await coordinator.stop()


async def test_nothing_is_begun_before_the_first_stretch_is_asked_for(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(300))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    chunks = coordinator.chunks(asked(start_ms=NOON - 300 * M, end_ms=NOON))
    before = asyncio.all_tasks()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert exchange.requests == []
    chunks.cancel()
    assert [piece async for piece in chunks] == []


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL, LOW])
async def test_while_others_suffer_a_long_load_waits_and_says_for_what_load(
    noon: ManualClock, priority: Priority
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(900))
    loads: list[str | None] = ["load 98 %", "load 91 %", None]

    def shedding(asked_for: Priority) -> str | None:
        assert asked_for is priority
        return loads[0] if len(loads) == 1 else loads.pop(0)

    coordinator = coordinator_on(FakeStore(exchange), noon, shedding=shedding)
    told: list[tuple[str, str]] = []
    request = asked(start_ms=NOON - 400 * M, end_ms=NOON, priority=priority)
    chunks = coordinator.chunks(
        request, on_progress=lambda progress: told.append((progress.state, progress.reason))
    )
    assert sum([len(piece) async for piece in chunks]) == 400
    assert told[0] == ("waiting for load", "load 98 %")
    assert ("running", "") in told
    loads[:] = ["load 99 %"]
    normal = await coordinator.fetch(asked(start_ms=NOON - 500 * M, end_ms=NOON))
    assert len(normal.data) == 500, "a call was let in as a whole"
    await coordinator.stop()


async def test_a_block_by_the_exchange_is_waited_for_and_told(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(900))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    left = 30

    async def block(_: BackboneRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            raise RateLimitedError("blocked", blocked=True, retry_after_s=0.001)

    exchange.before_answer = block
    events: list[Progress] = []
    request = asked(start_ms=NOON - 400 * M, end_ms=NOON, priority=LOW)
    chunks = coordinator.chunks(request, on_progress=events.append)
    assert sum([len(piece) async for piece in chunks]) == 400
    blocked = [event for event in events if event.state == "rate-limited"]
    assert blocked
    assert blocked[0].reason == "blocked"
    assert blocked[0].until is not None
    assert events[-1].state == "done"
    await coordinator.stop()


async def test_after_a_failure_what_is_finished_is_given_and_the_error_names_the_rest(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(request: BackboneRequest) -> None:
        if request.end_ms == NOON - 400 * M:
            raise TransportError("cut off")

    exchange.before_answer = fail
    request = asked(start_ms=NOON - 1_000 * M, end_ms=NOON, priority=LOW)
    chunks = coordinator.chunks(request)
    assert minutes(await anext(chunks)) == list(range(-1_000, -800))
    assert minutes(await anext(chunks)) == list(range(-800, -600))
    with pytest.raises(TransportError, match="cut off") as caught:
        await anext(chunks)
    assert caught.value.missing == chunks.missing
    assert chunks.missing[0].start is not None
    assert round(chunks.missing[0].start.timestamp() * 1_000) == NOON - 600 * M
    assert chunks.progress.state == "ended"
    assert [piece async for piece in chunks] == []
    await coordinator.stop()


async def test_when_the_service_is_closed_the_reader_is_told(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    chunks = coordinator.chunks(asked(start_ms=NOON - 3_000 * M, end_ms=NOON, priority=LOW))
    await anext(chunks)
    await coordinator.stop()
    with pytest.raises(ClosedError):
        async for _ in chunks:
            pass


async def test_what_a_progress_callback_raises_reaches_the_reader(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(300))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    def fail(_: Progress) -> None:
        raise ZeroDivisionError("in the callback")

    request = asked(start_ms=NOON - 300 * M, end_ms=NOON, priority=LOW)
    with pytest.raises(ZeroDivisionError):
        async for _ in coordinator.chunks(request, on_progress=fail):
            pass
    await coordinator.stop()


async def test_fifty_years_of_minutes_cost_a_few_pages_more_than_there_are(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)
    for newest_first in (False, True):
        store.known.__init__()  # type: ignore[misc]
        store.shown_empty_below = None
        exchange.requests.clear()
        request = asked(start_ms=0, end_ms=NOON, priority=LOW)
        chunks = coordinator.chunks(request, newest_first=newest_first)
        assert sum([len(piece) async for piece in chunks]) == 3_000
        assert len(exchange.requests) <= 15 + 60
        assert len(store.stored_requests) <= 60
        assert chunks.progress.done == chunks.progress.total
        assert [span.reason for span in chunks.missing][-1:] == ["unconfirmed"]
    await coordinator.stop()


async def test_seconds_from_long_ago_are_missing_with_the_reason(noon: ManualClock) -> None:
    opens = [NOON - n * SECOND_MS for n in range(1, 500)]
    exchange = FakeExchangeSource(noon, opens, Timeframe.S1)
    coordinator = coordinator_on(FakeStore(exchange), noon)
    start_ms = NOON - 365 * DAY_MS
    chunks = coordinator.chunks(asked(Timeframe.S1, start_ms, NOON, priority=LOW))
    assert sum([len(piece) async for piece in chunks]) == 499
    assert len(exchange.requests) < 60
    too_old = [span for span in chunks.missing if "three months" in span.reason]
    assert too_old[0].start is not None
    assert too_old[0].start.timestamp() * 1_000 == start_ms
    assert too_old[-1].end is not None
    assert too_old[-1].end.timestamp() * 1_000 == Timeframe.S1.floor_ms(
        noon.now_ms() - SECONDS_DEPTH_MS
    )
    await coordinator.stop()


@pytest.mark.parametrize("newest_first", [True, False])
async def test_what_lies_before_the_first_candle_leaves_the_total_and_is_no_speed(
    noon: ManualClock, newest_first: bool
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    events: list[Progress] = []

    async def a_second(_: BackboneRequest) -> None:
        noon.advance(1.0)

    exchange.before_answer = a_second
    chunks = coordinator.chunks(
        asked(start_ms=0, end_ms=NOON, priority=LOW),
        newest_first=newest_first,
        on_progress=events.append,
    )
    assert sum([len(piece) async for piece in chunks]) == 3_000
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert chunks.progress.total == chunks.progress.done == chunks.progress.new == 3_000
    if not newest_first:
        searching = [event for event in events if not event.candles]
        assert searching
        assert {(event.done, event.time_left_s) for event in searching} == {(0, None)}
        under_way = [event for event in events if 400 <= event.candles < 3_000]
        for event in under_way:
            assert event.time_left_s is not None
            pages = (3_000 - event.candles) / 200
            assert pages / 2 <= event.time_left_s <= pages * 2, event
    await coordinator.stop()


async def test_what_is_stored_is_no_speed(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(4_000))
    store = FakeStore(exchange)
    store.known.add(NOON - 4_000 * M, NOON - 1_000 * M)
    coordinator = coordinator_on(store, noon)
    events: list[Progress] = []

    async def a_second(_: BackboneRequest) -> None:
        noon.advance(1.0)

    exchange.before_answer = a_second
    request = asked(start_ms=NOON - 4_000 * M, end_ms=NOON, priority=LOW)
    chunks = coordinator.chunks(request, on_progress=events.append)
    assert sum([len(piece) async for piece in chunks]) == 4_000
    loading = [event for event in events if event.state == "running"]
    assert [event.done for event in loading] == [3_200, 3_400, 3_600, 3_800, 4_000]
    assert {event.candles_per_s for event in loading} == {200.0}
    assert [event.time_left_s for event in loading] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert (chunks.progress.candles, chunks.progress.new) == (4_000, 1_000)
    await coordinator.stop()


async def test_seconds_that_are_kept_no_more_are_not_in_the_total(noon: ManualClock) -> None:
    opens = [NOON - n * SECOND_MS for n in range(1, 500)]
    exchange = FakeExchangeSource(noon, opens, Timeframe.S1)
    coordinator = coordinator_on(FakeStore(exchange), noon)
    chunks = coordinator.chunks(asked(Timeframe.S1, NOON - 200 * DAY_MS, NOON, priority=LOW))
    assert chunks.progress.total <= SECONDS_DEPTH_MS // SECOND_MS
    assert sum([len(piece) async for piece in chunks]) == 499
    assert chunks.progress.total == chunks.progress.done == 499
    await coordinator.stop()


async def test_a_page_that_cannot_be_right_ends_the_load(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, [*every_minute(300), NOON - 7 * M + 1])
    coordinator = coordinator_on(FakeStore(exchange), noon)
    with pytest.raises(ProtocolError, match="off the grid"):
        async for _ in coordinator.chunks(asked(start_ms=NOON - 300 * M, end_ms=NOON)):
            pass
    await coordinator.stop()


async def test_pieces_need_a_start_and_no_count(noon: ManualClock) -> None:
    coordinator = coordinator_on(FakeStore(FakeExchangeSource(noon)), noon)
    for wrong in (asked(count=5), asked(start_ms=0, count=5), asked(end_ms=NOON)):
        with pytest.raises(InvalidRequestError):
            coordinator.chunks(wrong)


async def test_cancelled_with_pieces_that_nobody_took_iterating_stops(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(1_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    chunks = coordinator.chunks(asked(start_ms=NOON - 1_000 * M, end_ms=NOON, priority=LOW))
    await anext(chunks)
    await eventually(lambda: chunks.progress.state == "done")
    chunks.cancel()
    assert [piece async for piece in chunks] == []
    assert chunks.progress.state == "done", "all of it was loaded"
