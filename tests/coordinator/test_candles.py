"""Large requests for candles: planned over what is missing, asked in pages, merged."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked, series_of
from tests.storage.opening import opened
from upbit_backbone.clock import MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.pages import PARALLEL_PAGES
from upbit_backbone.coordinator.plan import kept_from_ms
from upbit_backbone.coordinator.retry import CALL
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    DeadlineError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    MAX_PAGE_CANDLES,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Priority,
    Reach,
)
from upbit_backbone.storage.spans import SpanSet

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS
M = MINUTE_MS


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


def coordinator_on(below: DataSource, clock: ManualClock, rng: Random | None = None) -> Coordinator:
    return Coordinator(below, clock=clock, rng=rng or NoChance())


def every_minute(count: int) -> list[int]:
    """So many minutes up to the forming one at noon."""
    return [NOON - n * M for n in range(count)]


def minutes(response: BackboneResponse) -> list[int]:
    return [(at - NOON) // M for at in response.data.time.tolist()]


def holes(spans: object) -> list[tuple[int | None, int | None]]:
    """Missing spans, in minutes after noon."""
    return [
        tuple(None if at is None else round((at.timestamp() * 1_000 - NOON) / M) for at in ends)  # type: ignore[misc]
        for ends in ((span.start, span.end) for span in spans)  # type: ignore[attr-defined]
    ]


def pages_of(exchange: FakeExchangeSource) -> list[tuple[int, int, int]]:
    """The pages asked, in minutes after noon, and their rows."""
    return [
        ((page.start_ms - NOON) // M, (page.end_ms - NOON) // M, page.count)  # type: ignore[operator, misc]
        for page in exchange.requests
    ]


@dataclass
class Question:
    """A request in periods before the forming candle; `shift` unaligns its ends."""

    start: int | None
    end: int | None
    count: int | None
    shift: float


PERIODS = st.integers(0, 700)
QUESTIONS = st.one_of(
    st.builds(Question, PERIODS, st.none() | PERIODS, st.none(), st.floats(0, 0.99)),
    st.builds(Question, st.none(), st.none() | PERIODS, st.integers(1, 650), st.floats(0, 0.99)),
    st.builds(Question, PERIODS, st.none(), st.integers(1, 650), st.floats(0, 0.99)),
)


@settings(max_examples=100)
@given(
    timeframe=st.sampled_from(list(Timeframe)),
    density=st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    history=st.integers(1, 900),
    seed=st.integers(0, 10**6),
    questions=st.lists(QUESTIONS, min_size=1, max_size=4),
    passing_s=st.sampled_from([0, 3, 61, 4_000]),
    real_store=st.sampled_from([False, False, True]),
)
async def test_every_answer_is_what_exists_and_nothing_proved_is_asked_again(
    timeframe: Timeframe,
    density: float,
    history: int,
    seed: int,
    questions: list[Question],
    passing_s: int,
    real_store: bool,
) -> None:
    chance = Random(seed)
    clock = ManualClock(AUTUMN_2025_MS + chance.randrange(86_400_000))
    forming = timeframe.floor_ms(clock.now_ms())
    candles = [
        timeframe.back_ms(forming, n) for n in range(-70, history) if chance.random() < density
    ]
    exchange = FakeExchangeSource(clock, candles, timeframe)
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder), exchange, clock) as storage:
            coordinator = coordinator_on(storage if real_store else FakeStore(exchange), clock)
            await coordinator.start()
            proved = SpanSet()
            for question in questions:
                exchange.requests.clear()
                await ask_and_compare(question, timeframe, exchange, coordinator, clock, proved)
                clock.advance(passing_s)
            await coordinator.stop()


async def ask_and_compare(
    question: Question,
    timeframe: Timeframe,
    exchange: FakeExchangeSource,
    coordinator: Coordinator,
    clock: ManualClock,
    proved: SpanSet,
) -> None:
    now_ms = clock.now_ms()
    forming = timeframe.floor_ms(now_ms)

    def moment(back: int) -> int:
        low = timeframe.back_ms(forming, back)
        shift = int(question.shift * (timeframe.next_ms(low) - low))
        return min(now_ms, low + shift)

    start_ms = None if question.start is None else moment(question.start)
    end_ms = None if question.end is None else moment(question.end)
    if start_ms is not None and end_ms is not None:
        start_ms, end_ms = min(start_ms, end_ms), max(start_ms, end_ms)
    expected = [
        at
        for at in exchange.existing()
        if (start_ms is None or at >= start_ms) and (end_ms is None or at < end_ms)
    ]
    if question.count is not None:
        count = question.count
        expected = expected[:count] if start_ms is not None else expected[-count:]
    response = await coordinator.fetch(
        asked(timeframe, start_ms, end_ms, question.count, max_age=0.0)
    )
    begins_ms = exchange.existing()[0] if exchange.existing() else now_ms + 1
    opens = response.data.time.tolist()
    if start_ms is not None and question.count is not None and response.metadata.missing:
        # Looking for a market's first candle from far below may be given up.
        assert opens in (expected, [])
        assert start_ms < begins_ms
    else:
        assert opens == expected
    assert response.error is None
    assert response.success is (not response.metadata.missing)
    for span in response.metadata.missing:
        # Only what lies below the first candle is unknown: a short page proves nothing there.
        assert span.end is not None
        assert span.end.timestamp() * 1_000 <= begins_ms or not expected
        assert span.reason == "unconfirmed"
    assert response.data == series_of(timeframe, opens, now_ms)
    before = SpanSet(proved)
    for page in exchange.requests:
        assert page.start_ms is not None
        assert page.end_ms is not None
        assert page.count is not None
        assert page.count <= MAX_PAGE_CANDLES
        assert before.overlap(page.start_ms, page.end_ms) == []
        below = [at for at in exchange.existing() if at < page.end_ms][-page.count :]
        if below:
            closed_ms = timeframe.floor_ms(now_ms - 5_000)
            proved.add(below[0], min(page.end_ms, closed_ms))


async def test_a_thousand_candles_are_five_pages_that_leave_together(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    gate = asyncio.Event()

    async def hold(_: BackboneRequest) -> None:
        await gate.wait()

    exchange.before_answer = hold
    call = asyncio.create_task(coordinator.fetch(asked(count=1_000)))
    await eventually(lambda: len(exchange.requests) == 5)
    gate.set()
    response = await call
    assert minutes(response) == list(range(-999, 1))
    assert [rows for _, _, rows in pages_of(exchange)] == [200] * 5
    assert exchange.most_at_once == PARALLEL_PAGES
    assert response.metadata.split_info == "5 pages"


async def test_only_the_newest_minutes_are_asked_when_the_rest_is_stored(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, [NOON + n * M for n in range(-2_000, 10)])
    coordinator = coordinator_on(FakeStore(exchange), noon)
    await coordinator.fetch(asked(count=1_000))
    exchange.requests.clear()
    noon.advance(120)
    response = await coordinator.fetch(asked(count=1_000))
    assert minutes(response) == list(range(-997, 3))
    assert pages_of(exchange) == [(0, 3, 3)]


async def test_a_hole_in_what_is_stored_is_asked_alone(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))
    store = FakeStore(exchange)
    store.known.add(NOON - 500 * M, NOON - 100 * M)
    store.known.add(NOON - 50 * M, NOON)
    coordinator = coordinator_on(store, noon)
    response = await coordinator.fetch(asked(end_ms=NOON, count=400))
    assert minutes(response) == list(range(-400, 0))
    assert pages_of(exchange) == [(-100, -50, 50)]


async def test_periods_without_trades_make_the_walk_go_further_down(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, [NOON - n * 10 * M for n in range(1_000)])
    coordinator = coordinator_on(FakeStore(exchange), noon)
    response = await coordinator.fetch(asked(end_ms=NOON + M, count=250))
    assert minutes(response) == list(range(-2_490, 1, 10))
    exchange.requests.clear()
    again = await coordinator.fetch(asked(end_ms=NOON, count=249))
    assert minutes(again) == list(range(-2_490, 0, 10))
    assert exchange.requests == []


async def test_pages_merge_in_whatever_order_they_arrive(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    waiting: list[asyncio.Event] = []

    async def hold(_: BackboneRequest) -> None:
        waiting.append(asyncio.Event())
        await waiting[-1].wait()

    exchange.after_read = hold
    call = asyncio.create_task(coordinator.fetch(asked(start_ms=NOON - 999 * M)))
    await eventually(lambda: len(waiting) == 5)
    for event in reversed(waiting):
        event.set()
        await asyncio.sleep(0)
    assert minutes(await call) == list(range(-999, 1))


async def test_the_first_candles_from_a_start_are_found_through_thin_times(
    noon: ManualClock,
) -> None:
    thin = [NOON - n * 30 * M for n in range(100)]
    exchange = FakeExchangeSource(noon, thin)
    coordinator = coordinator_on(FakeStore(exchange), noon)
    for count in (1, 5, 30):
        response = await coordinator.fetch(asked(start_ms=NOON - 2_000 * M, count=count))
        assert response.success
        assert minutes(response) == list(range(-1_980, -1_980 + count * 30, 30))


async def test_the_first_candles_from_before_the_listing_begin_with_it(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(300))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    response = await coordinator.fetch(asked(start_ms=NOON - 320 * M, count=10))
    assert minutes(response) == list(range(-299, -289))
    assert (response.error, response.metadata.reason) == (None, "unconfirmed")
    assert holes(response.metadata.missing) == [(-320, -299)]


async def test_the_first_candles_from_a_start_end_where_the_request_ends(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(300))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    response = await coordinator.fetch(asked(start_ms=NOON - 5 * M, end_ms=NOON, count=10))
    assert minutes(response) == [-5, -4, -3, -2, -1]


async def test_more_candles_than_time_has_periods_are_no_crash(noon: ManualClock) -> None:
    for timeframe in (Timeframe.D1, Timeframe.W1, Timeframe.MO1, Timeframe.Y1):
        opens = [timeframe.back_ms(timeframe.floor_ms(NOON), n) for n in range(10)]
        exchange = FakeExchangeSource(noon, opens, timeframe)
        coordinator = coordinator_on(FakeStore(exchange), noon)
        response = await coordinator.fetch(asked(timeframe, count=10_000_000))
        assert len(response.data) == 10
        assert response.metadata.reason == "unconfirmed"
        assert len(exchange.requests) <= 30


async def test_a_failed_page_that_its_neighbour_covers_is_not_missing(noon: ManualClock) -> None:
    # Every second minute: the page above the failing one reaches into its window.
    exchange = FakeExchangeSource(noon, [NOON - n * M for n in range(0, 3_000, 2)])
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(request: BackboneRequest) -> None:
        await asyncio.sleep(0)  # all five are on their way
        if request.end_ms == NOON - 400 * M:
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(start_ms=NOON - 1_000 * M, end_ms=NOON))
    # Rows of 200 periods reach 400 periods down: the page above covers the failed one.
    assert (response.success, response.error) == (True, None)
    assert minutes(response) == list(range(-1_000, 0, 2))


@pytest.mark.parametrize("failing", [{-200}, {-400}, {-200, -600}, {0}, {0, -200, -400, -600}])
async def test_failed_pages_are_missing_and_the_next_call_asks_only_for_them(
    noon: ManualClock, failing: set[int]
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    broken = True

    async def fail(request: BackboneRequest) -> None:
        assert request.end_ms is not None
        if broken and (request.end_ms - NOON) // M in failing:
            # The others are on their way when this one fails.
            await asyncio.sleep(0)
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(start_ms=NOON - 1_000 * M, end_ms=NOON))
    missing = {at for low, high in holes(response.metadata.missing) for at in range(low, high)}  # type: ignore[arg-type]
    assert missing == {end - n for end in failing for n in range(1, 201)}
    assert set(minutes(response)) == set(range(-1_000, 0)) - missing
    assert isinstance(response.error, TransportError)
    assert response.metadata.reason == "cut off"
    assert {span.reason for span in response.metadata.missing} == {"cut off"}
    broken = False
    exchange.requests.clear()
    again = await coordinator.fetch(asked(start_ms=NOON - 1_000 * M, end_ms=NOON))
    assert again.success
    assert minutes(again) == list(range(-1_000, 0))
    assert {at for low, high, _ in pages_of(exchange) for at in range(low, high)} == missing


async def test_the_latest_candles_end_above_a_failed_page(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(request: BackboneRequest) -> None:
        if request.end_ms == NOON - 400 * M:
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(end_ms=NOON, count=1_000))
    assert minutes(response) == list(range(-400, 0))
    assert holes(response.metadata.missing) == [(None, -400)]
    assert isinstance(response.error, TransportError)


async def test_the_latest_candles_are_the_newest_stored_ones_while_nothing_can_be_had(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(60_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)

    async def fail(_: BackboneRequest) -> None:
        raise TransportError("not reached")

    exchange.before_answer = fail
    store.known.add(NOON - 9_500 * M, NOON - 9_000 * M)
    store.known.add(NOON - 40_000 * M, NOON - 39_000 * M)
    response = await coordinator.fetch(asked(end_ms=NOON, count=300))
    assert minutes(response) == list(range(-9_300, -9_000))
    assert holes(response.metadata.missing) == [(-9_000, 0)]
    assert {span.reason for span in response.metadata.missing} == {"not reached"}
    assert isinstance(response.error, TransportError)
    assert response.metadata.source != "rest"
    fewer = await coordinator.fetch(asked(end_ms=NOON, count=1_000))
    assert minutes(fewer) == list(range(-9_500, -9_000))
    assert holes(fewer.metadata.missing) == [(None, -9_500), (-9_000, 0)]
    before = await coordinator.fetch(asked(end_ms=NOON - 20_000 * M, count=7))
    assert minutes(before) == list(range(-39_007, -39_000))


async def test_what_is_stored_can_be_had_without_asking_the_exchange(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(6_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)
    nothing = await coordinator.fetch(asked(count=300, reach=Reach.STORED))
    assert (minutes(nothing), nothing.error) == ([], None)
    assert len(nothing.metadata.missing) == 1
    store.known.add(NOON - 950 * M, NOON - 900 * M)
    response = await coordinator.fetch(asked(count=300, reach=Reach.STORED))
    assert minutes(response) == list(range(-950, -900))
    assert (response.success, response.error) == (False, None)
    assert holes(response.metadata.missing) == [(None, -950), (-900, 1)]
    assert exchange.requests == []


async def test_the_first_candles_end_below_a_failed_page(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(request: BackboneRequest) -> None:
        if request.end_ms == NOON - 2_400 * M:
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(start_ms=NOON - 2_800 * M, count=1_000))
    assert minutes(response) == list(range(-2_800, -2_600))
    assert holes(response.metadata.missing) == [(-2_600, None)]
    assert isinstance(response.error, TransportError)


async def test_an_error_is_raised_when_nothing_exists_and_names_what_is_missing(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    shared = TransportError("cut off")

    async def fail(_: BackboneRequest) -> None:
        raise shared

    exchange.before_answer = fail
    with pytest.raises(TransportError, match="cut off") as caught:
        await coordinator.fetch(asked(start_ms=NOON - 10 * M, end_ms=NOON))
    assert holes(caught.value.missing) == [(-10, 0)]
    with pytest.raises(TransportError) as other:
        await coordinator.fetch(asked(end_ms=NOON - 5 * M, count=7))
    assert holes(other.value.missing) == [(None, -5)]
    # Callers that shared a request do not write into each other's error.
    assert holes(caught.value.missing) == [(-10, 0)]
    assert shared.missing == ()


async def test_after_a_failed_page_no_further_one_is_begun(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(_: BackboneRequest) -> None:
        raise ProtocolError("not understood")

    exchange.before_answer = fail
    with pytest.raises(ProtocolError):
        await coordinator.fetch(asked(start_ms=NOON - 9_000 * M))
    assert len(exchange.requests) <= PARALLEL_PAGES


async def test_a_low_page_that_waits_its_turn_is_not_asked_after_another_failed(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(_: BackboneRequest) -> None:
        await asyncio.sleep(0)
        raise ProtocolError("not understood")

    exchange.before_answer = fail
    with pytest.raises(ProtocolError):
        await coordinator.fetch(asked(start_ms=NOON - 9_000 * M, priority=Priority.LOW))
    assert len(exchange.requests) == 1


async def test_a_retry_waits_with_bounded_jitter_and_helps(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10))
    chance = NoChance()
    coordinator = coordinator_on(FakeStore(exchange), noon, chance)
    left = CALL.attempts - 1

    async def fail(_: BackboneRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(end_ms=NOON, count=5))
    assert response.success
    assert len(exchange.requests) == CALL.attempts
    assert all(0 == low < high <= 1.0 for low, high in chance.asked)
    assert [high for _, high in chance.asked] == sorted(high for _, high in chance.asked)
    assert coordinator.status().counters["retries"] == CALL.attempts - 1
    left = CALL.attempts
    with pytest.raises(TransportError):
        await coordinator.fetch(asked(end_ms=NOON - 6 * M, count=2))


async def test_a_short_ban_is_waited_for_and_a_long_one_told(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    bans = [0.01, CALL.longest_wait_s + 1]

    async def ban(_: BackboneRequest) -> None:
        if bans:
            raise RateLimitedError("too fast", retry_after_s=bans.pop(0))

    exchange.before_answer = ban
    async with asyncio.timeout(2):
        with pytest.raises(RateLimitedError) as caught:
            await coordinator.fetch(asked(end_ms=NOON, count=5))
    assert caught.value.retry_after_s == CALL.longest_wait_s + 1
    assert len(exchange.requests) == 2


@pytest.mark.parametrize("error", [ProtocolError("?"), InvalidRequestError("?")])
async def test_what_a_retry_cannot_help_is_not_tried_again(
    noon: ManualClock, error: BackboneError
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(_: BackboneRequest) -> None:
        raise error

    exchange.before_answer = fail
    with pytest.raises(type(error)):
        await coordinator.fetch(asked(end_ms=NOON, count=5))
    assert len(exchange.requests) == 1


@pytest.mark.both_loops
async def test_all_low_callers_together_have_one_page_in_flight(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def take_a_turn(_: BackboneRequest) -> None:
        await asyncio.sleep(0)

    exchange.after_read = take_a_turn
    low = Priority.LOW
    await asyncio.gather(
        coordinator.fetch(asked(start_ms=NOON - 900 * M, end_ms=NOON, priority=low)),
        coordinator.fetch(asked(end_ms=NOON - 1_000 * M, count=700, priority=low)),
    )
    assert len(exchange.requests) == 9
    assert exchange.most_at_once == 1


async def test_a_low_caller_does_not_hold_up_the_others(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    gate = asyncio.Event()

    async def hold_low(request: BackboneRequest) -> None:
        if request.priority is Priority.LOW:
            await gate.wait()

    exchange.before_answer = hold_low
    low = asyncio.create_task(coordinator.fetch(asked(count=600, priority=Priority.LOW)))
    await eventually(lambda: exchange.requests)
    normal = await coordinator.fetch(asked(end_ms=NOON, count=400))
    assert len(normal.data) == 400
    gate.set()
    assert len((await low).data) == 600


@pytest.mark.both_loops
async def test_a_cancelled_call_leaves_no_task_and_what_had_arrived_is_known(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)

    async def hold_lower(request: BackboneRequest) -> None:
        assert request.end_ms is not None
        if request.end_ms < NOON - 100 * M:
            await asyncio.Event().wait()

    exchange.before_answer = hold_lower
    for priority in (Priority.NORMAL, Priority.LOW):
        call = asyncio.create_task(
            coordinator.fetch(asked(start_ms=NOON - 900 * M, end_ms=NOON, priority=priority))
        )
        await eventually(lambda: exchange.requests and exchange.requests[-1].end_ms != NOON)
        before = asyncio.all_tasks()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert asyncio.all_tasks() <= before - {call}
        exchange.requests.clear()
    exchange.before_answer = None
    response = await coordinator.fetch(asked(start_ms=NOON - 900 * M, priority=Priority.LOW))
    assert minutes(response) == list(range(-900, 1))
    assert NOON not in [page.end_ms for page in exchange.requests]


async def test_a_giant_range_starts_no_more_tasks_than_pages_in_flight(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def hold(_: BackboneRequest) -> None:
        await asyncio.Event().wait()

    exchange.before_answer = hold
    before = len(asyncio.all_tasks())
    call = asyncio.create_task(coordinator.fetch(asked(start_ms=0)))
    await eventually(lambda: len(exchange.requests) == PARALLEL_PAGES)
    assert len(asyncio.all_tasks()) <= before + 1 + PARALLEL_PAGES
    call.cancel()
    await asyncio.wait([call])


async def test_the_metadata_tells_where_the_candles_came_from(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    cold = (await coordinator.fetch(asked(end_ms=NOON, count=300))).metadata
    assert (cold.source_layer, cold.source, cold.cache_hit) == ("layer_1", "rest", False)
    assert (cold.path, cold.split_info) == ("coordinator → storage → router", "2 pages")
    assert (cold.age_s, cold.data_count, cold.missing) == (0.0, 300, ())
    warm = (await coordinator.fetch(asked(end_ms=NOON, count=300))).metadata
    assert (warm.source_layer, warm.source, warm.cache_hit) == ("layer_2", "cache", True)
    assert (warm.path, warm.split_info) == ("coordinator → storage", None)

    async def fail(_: BackboneRequest) -> None:
        raise ProtocolError("not understood")

    exchange.before_answer = fail
    partly = (await coordinator.fetch(asked(end_ms=NOON, count=900))).metadata
    assert (partly.source_layer, partly.cache_hit) == ("layer_2", False)
    assert partly.split_info is None
    assert partly.path == "coordinator → storage → router"


async def test_a_request_for_candles_needs_a_timeframe_and_a_start_or_a_count(
    noon: ManualClock,
) -> None:
    coordinator = coordinator_on(FakeStore(FakeExchangeSource(noon)), noon)
    with pytest.raises(InvalidRequestError, match="timeframe"):
        await coordinator.fetch(BackboneRequest(DataType.CANDLE, ("KRW-BTC",), count=1))
    with pytest.raises(InvalidRequestError, match="a start or a count"):
        await coordinator.fetch(asked(end_ms=NOON))


async def test_everything_else_passes_through_and_the_path_says_so(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon)
    exchange.held[DataType.TICKER, "KRW-BTC"] = "a ticker"
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)
    response = await coordinator.fetch(BackboneRequest(DataType.TICKER, ("KRW-BTC",)))
    assert response.data == ("a ticker",)
    assert response.metadata.path == "coordinator → storage → router"
    ticker = coordinator.peek(DataType.TICKER, "KRW-BTC", None, None, None, None, 1.0, 0.0)
    assert ticker == "a ticker"
    request = BackboneRequest(DataType.TRADE, ("KRW-BTC",))
    assert coordinator.subscribe(request) is exchange.subscriptions[0]
    assert (await coordinator.markets()).markets == ()


async def test_its_state_follows_start_and_stop(noon: ManualClock) -> None:
    coordinator = coordinator_on(FakeStore(FakeExchangeSource(noon)), noon)
    assert coordinator.status().health == "down"
    await coordinator.start()
    assert coordinator.status().health == "healthy"
    await coordinator.stop()
    await coordinator.stop()
    assert coordinator.status().health == "down"


async def test_below_a_short_page_nothing_is_asked_and_a_second_reading_proves_it(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(300))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    fifty_years = asked(start_ms=0, end_ms=NOON)
    first = await coordinator.fetch(fifty_years)
    assert len(exchange.requests) <= 2 + PARALLEL_PAGES - 1
    assert (len(first.data), first.success, first.error) == (299, False, None)
    assert [span.start for span in first.metadata.missing] == [utc_datetime(0)]
    assert first.metadata.reason == "unconfirmed"
    for passing_s, success, pages in ((5, False, 1), (60, True, 1), (1, True, 0)):
        noon.advance(passing_s)
        exchange.requests.clear()
        again = await coordinator.fetch(fifty_years)
        assert (again.success, len(exchange.requests)) == (success, pages)
        assert len(again.data) == 299


async def test_the_latest_of_a_young_market_are_all_it_has_once_that_is_proved(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(300))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    assert not (await coordinator.fetch(asked(end_ms=NOON, count=1_000))).success
    noon.advance(61)
    proved = await coordinator.fetch(asked(end_ms=NOON, count=1_000))
    assert (proved.success, len(proved.data)) == (True, 299)
    exchange.requests.clear()
    again = await coordinator.fetch(asked(end_ms=NOON, count=1_000))
    assert (again.success, exchange.requests) == (True, [])


async def test_a_thin_market_is_asked_in_as_many_pages_as_it_has_rows(noon: ManualClock) -> None:
    """One minute in fifty was traded: 200 rows span a week."""
    exchange = FakeExchangeSource(noon, [NOON - n * 50 * M for n in range(1, 2_000)])
    coordinator = coordinator_on(FakeStore(exchange), noon)
    month = await coordinator.fetch(asked(start_ms=NOON - 43_200 * M, end_ms=NOON))
    assert len(month.data) == 864
    assert len(exchange.requests) <= 5 + PARALLEL_PAGES
    exchange.requests.clear()
    latest = await coordinator.fetch(asked(end_ms=NOON - 43_200 * M, count=1_000))
    assert (latest.success, len(latest.data)) == (True, 1_000)
    assert len(exchange.requests) <= 6


@pytest.mark.parametrize(("count", "pages"), [(400, 2), (1_000, 5), (1_200, 6)])
async def test_a_dense_cold_series_takes_exactly_its_pages_and_the_answer_names_them(
    noon: ManualClock, count: int, pages: int
) -> None:
    for request in (asked(end_ms=NOON, count=count), asked(start_ms=NOON - count * M, end_ms=NOON)):
        exchange = FakeExchangeSource(noon, every_minute(3_000))
        coordinator = coordinator_on(FakeStore(exchange), noon)
        response = await coordinator.fetch(request)
        assert (len(response.data), len(exchange.requests)) == (count, pages)
        assert response.metadata.split_info == f"{pages} pages"


async def test_a_maintenance_hole_is_reached_across(noon: ManualClock) -> None:
    opens = [at for at in every_minute(1_200) if not NOON - 700 * M <= at < NOON - 460 * M]
    exchange = FakeExchangeSource(noon, opens)
    coordinator = coordinator_on(FakeStore(exchange), noon)
    response = await coordinator.fetch(asked(start_ms=NOON - 1_000 * M, end_ms=NOON))
    assert (response.success, len(response.data)) == (True, 760)
    inside = await coordinator.fetch(asked(start_ms=NOON - 600 * M, end_ms=NOON - 500 * M))
    assert (inside.success, len(inside.data), inside.metadata.missing) == (True, 0, ())


async def test_an_empty_page_in_the_middle_of_history_is_believed_for_no_more_than_a_minute(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)
    hidden = set(every_minute(2_000)[200:])
    exchange.opens -= hidden
    response = await coordinator.fetch(asked(start_ms=NOON - 1_000 * M, end_ms=NOON))
    assert (response.success, response.metadata.reason) == (False, "unconfirmed")
    exchange.opens |= hidden
    noon.advance(61)
    again = await coordinator.fetch(asked(start_ms=NOON - 1_000 * M, end_ms=NOON))
    assert (again.success, minutes(again)) == (True, list(range(-1_000, 0)))


async def test_at_the_deadline_what_arrived_is_the_answer(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    store = FakeStore(exchange)
    coordinator = coordinator_on(store, noon)

    async def hang(request: BackboneRequest) -> None:
        assert request.end_ms is not None
        if request.end_ms <= NOON - 600 * M:
            await asyncio.Event().wait()

    exchange.before_answer = hang
    before = asyncio.all_tasks()
    for request, missing in (
        (asked(start_ms=NOON - 1_000 * M, end_ms=NOON), (-1_000, -600)),
        (asked(end_ms=NOON, count=1_000), (None, -600)),
    ):
        limited = msgspec.structs.replace(request, deadline=noon.monotonic() + 0.05)
        response = await coordinator.fetch(limited)
        assert isinstance(response.error, DeadlineError)
        assert minutes(response) == list(range(-600, 0))
        assert holes(response.metadata.missing) == [missing]
    assert asyncio.all_tasks() == before


async def test_no_retry_waits_beyond_the_deadline(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def ban(_: BackboneRequest) -> None:
        raise RateLimitedError("too fast", retry_after_s=3.0)

    exchange.before_answer = ban
    request = asked(end_ms=NOON, count=5)
    async with asyncio.timeout(2):
        with pytest.raises(RateLimitedError):
            await coordinator.fetch(
                msgspec.structs.replace(request, deadline=noon.monotonic() + 2.5)
            )
    assert len(exchange.requests) == 1


async def test_seconds_older_than_the_exchange_keeps_are_told_not_asked(noon: ManualClock) -> None:
    opens = [NOON - n * SECOND_MS for n in range(1, 500)]
    exchange = FakeExchangeSource(noon, opens, Timeframe.S1)
    coordinator = coordinator_on(FakeStore(exchange), noon)
    year_ago_ms = NOON - 365 * 86_400_000
    partly = await coordinator.fetch(asked(Timeframe.S1, year_ago_ms, NOON))
    assert len(partly.data) == 499
    assert isinstance(partly.error, DataUnavailableError)
    assert "three months" in partly.metadata.missing[0].reason
    assert len(exchange.requests) <= 3 + PARALLEL_PAGES
    exchange.requests.clear()
    with pytest.raises(DataUnavailableError, match="ask for 1m instead") as caught:
        await coordinator.fetch(asked(Timeframe.S1, year_ago_ms, year_ago_ms + 10_000))
    assert len(caught.value.missing) == 1
    assert exchange.requests == []


async def test_the_first_seconds_from_a_start_that_is_not_kept_are_not_later_ones(
    noon: ManualClock,
) -> None:
    first_ms = kept_from_ms(Timeframe.S1, noon.now_ms())
    exchange = FakeExchangeSource(noon, [first_ms + n * 1_000 for n in range(50)], Timeframe.S1)
    coordinator = coordinator_on(FakeStore(exchange), noon)
    start_ms = first_ms - 4_000
    with pytest.raises(DataUnavailableError, match="three months: ask for 1m instead") as caught:
        await coordinator.fetch(asked(Timeframe.S1, start_ms, count=3))
    assert caught.value.missing[0].start == utc_datetime(start_ms)
    assert exchange.requests == []
    kept = await coordinator.fetch(asked(Timeframe.S1, first_ms, count=3))
    assert kept.success
    assert [int(at) - first_ms for at in kept.data.time] == [0, 1_000, 2_000]


async def test_a_page_that_contradicts_itself_is_an_error_with_the_row(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, [*every_minute(500), NOON - 250 * M + 1])
    coordinator = coordinator_on(FakeStore(exchange), noon)
    response = await coordinator.fetch(asked(start_ms=NOON - 400 * M, end_ms=NOON))
    assert isinstance(response.error, ProtocolError)
    assert "off the grid of 1m: 2025-09-15T07:50:00Z" in str(response.error)
    assert minutes(response) == list(range(-200, 0)), "the page that is right is kept"
    assert holes(response.metadata.missing) == [(-400, -200)]


async def test_a_waiting_low_call_lets_a_normal_one_pass_between_its_pages(
    noon: ManualClock,
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    order: list[Priority] = []

    async def note(request: BackboneRequest) -> None:
        order.append(request.priority)
        await asyncio.sleep(0)

    exchange.before_answer = note
    low = asyncio.create_task(coordinator.fetch(asked(count=1_000, priority=Priority.LOW)))
    while not order:
        await asyncio.sleep(0)
    await coordinator.fetch(asked(end_ms=NOON - 1_500 * M, count=400))
    assert order.count(Priority.LOW) < 5
    await low
    assert order.count(Priority.LOW) == 5


def hourly_of_late(hours: int, minutes_before: int) -> list[int]:
    """Traded once an hour for so many hours, and each minute before."""
    hourly = [NOON - n * 60 * M for n in range(hours)]
    return [*hourly, *(hourly[-1] - n * M for n in range(1, minutes_before))]


@pytest.mark.parametrize("count", [201, 400, 1_000])
async def test_a_market_thin_of_late_and_busy_before_costs_few_pages(
    noon: ManualClock, count: int
) -> None:
    exchange = FakeExchangeSource(noon, hourly_of_late(300, 30_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    response = await coordinator.fetch(asked(count=count))
    assert response.data.time.tolist() == exchange.existing()[-count:]
    assert response.success
    assert len(exchange.requests) <= 2 + count // MAX_PAGE_CANDLES + 2 * PARALLEL_PAGES


@pytest.mark.parametrize("first_failure", range(1, 14))
async def test_a_page_that_fails_below_enough_candles_fails_no_call(
    noon: ManualClock, first_failure: int
) -> None:
    exchange = FakeExchangeSource(noon, hourly_of_late(300, 30_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def fail(_: BackboneRequest) -> None:
        if len(exchange.requests) > first_failure:
            raise ProtocolError("a page was not understood")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(count=400))
    found = response.data.time.tolist()
    assert found == exchange.existing()[-len(found) :]
    assert response.success is (len(found) == 400) is (response.metadata.missing == ())
    assert (response.error is None) is response.success


async def test_a_page_that_failed_where_nobody_looks_is_no_error(noon: ManualClock) -> None:
    """Five leave at once; the fifth fails while the first has all that was wanted."""
    exchange = FakeExchangeSource(noon, hourly_of_late(300, 30_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    lowest = min(at for at in exchange.existing()[-400:])

    async def fail_below(request: BackboneRequest) -> None:
        assert request.end_ms is not None
        if request.end_ms < lowest:
            raise ProtocolError("a page was not understood")

    exchange.before_answer = fail_below
    response = await coordinator.fetch(asked(count=400))
    assert response.data.time.tolist() == exchange.existing()[-400:]
    assert (response.success, response.error, response.metadata.missing) == (True, None, ())


async def test_an_answer_is_as_old_as_its_pages_took(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(3_000))
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def take_long(_: BackboneRequest) -> None:
        noon.advance(4.0)

    exchange.after_read = take_long
    low = asked(start_ms=NOON - 1_999 * M, priority=Priority.LOW)
    response = await coordinator.fetch(low)
    assert len(response.data) == 2_000
    assert response.metadata.age_s == pytest.approx(9 * 4.0), "the newest page was the first of ten"
    past = asked(start_ms=NOON - 2_999 * M, end_ms=NOON - 2_000 * M, priority=Priority.LOW)
    assert (await coordinator.fetch(past)).metadata.age_s == 0.0, "what is proved does not age"


async def test_an_answer_up_to_now_that_became_too_old_is_renewed(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, [NOON + n * M for n in range(-3_000, 300)])
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def take_long(_: BackboneRequest) -> None:
        noon.advance(9.0)

    exchange.before_answer = take_long
    low = asked(start_ms=NOON - 1_999 * M, priority=Priority.LOW, max_age=60.0)
    response = await coordinator.fetch(low)
    assert response.data.time.tolist() == [
        at for at in exchange.existing() if at >= NOON - 1_999 * M
    ]
    assert response.metadata.age_s == 0.0
    assert len(exchange.requests) == 11, "one more"
    seconds_seen = (noon.now_ms() - response.data.time[-1]) / 1_000
    assert response.data.volume[-1] == seconds_seen + 0.125
    assert [bool(closed) for closed in response.data.closed[-3:]] == [True, True, False]


async def test_what_cannot_be_renewed_is_given_with_its_age(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, [NOON + n * M for n in range(-3_000, 300)])
    coordinator = coordinator_on(FakeStore(exchange), noon)

    async def take_long(_: BackboneRequest) -> None:
        noon.advance(9.0)
        if len(exchange.requests) == 11:
            raise ProtocolError("a page was not understood")

    exchange.after_read = take_long
    low = asked(start_ms=NOON - 1_999 * M, priority=Priority.LOW, max_age=60.0)
    response = await coordinator.fetch(low)
    assert response.success
    assert response.error is None
    assert len(response.data) == 2_000
    assert response.metadata.age_s == pytest.approx(10 * 9.0)


class BusyFile(FakeStore):
    """Answers what is stored only so many times."""

    left = 1

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        if request.reach is Reach.STORED:
            if self.left == 0:
                await asyncio.Event().wait()
            self.left -= 1
        return await super().fetch(request)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
@pytest.mark.parametrize("start", [None, -1_300])
@pytest.mark.parametrize("count", [None, 700])
async def test_a_file_that_is_busy_at_the_deadline_leaves_what_was_had_before(
    noon: ManualClock, left: int, start: int | None, count: int | None
) -> None:
    if start is None and count is None:
        return
    thin = [NOON - n * 3 * M for n in range(1_000)]
    exchange = FakeExchangeSource(noon, thin)
    store = BusyFile(exchange)
    store.left = left
    coordinator = coordinator_on(store, noon)
    start_ms = None if start is None else NOON + start * M
    request = msgspec.structs.replace(
        asked(start_ms=start_ms, count=count), deadline=noon.monotonic() + 0.05
    )
    whole = thin[::-1] if start_ms is None else [at for at in thin[::-1] if at >= start_ms]
    whole = whole if count is None else whole[-count:] if start_ms is None else whole[:count]
    async with asyncio.timeout(5):
        (response,) = await asyncio.gather(coordinator.fetch(request), return_exceptions=True)
    if isinstance(response, DeadlineError):
        assert left == 0 or (left == 1 and start is None), "nothing was had"
        assert response.missing
        return
    assert isinstance(response, BackboneResponse)
    found = response.data.time.tolist()
    if response.success:
        assert found == whole
        return
    assert isinstance(response.error, DeadlineError)
    (span,) = response.metadata.missing
    assert found == (whole[-len(found) :] if start_ms is None else whole[: len(found)])
    assert "the time given ended" in span.reason


@pytest.mark.parametrize(
    ("priority", "most"),
    [(Priority.CRITICAL, PARALLEL_PAGES), (Priority.HIGH, 2), (Priority.NORMAL, 2)],
)
async def test_under_load_a_call_has_fewer_pages_in_flight_but_not_a_critical_one(
    noon: ManualClock, priority: Priority, most: int
) -> None:
    exchange = FakeExchangeSource(noon, every_minute(2_000))

    async def take_a_turn(_: BackboneRequest) -> None:
        await asyncio.sleep(0)

    exchange.before_answer = take_a_turn
    coordinator = Coordinator(
        FakeStore(exchange), clock=noon, rng=NoChance(), parallelism=lambda most: most // 2
    )
    response = await coordinator.fetch(
        asked(start_ms=NOON - 1_999 * M, end_ms=NOON, priority=priority)
    )
    assert len(response.data) == 1_999
    assert exchange.most_at_once == most
