"""Large requests for candles: planned over what is missing, asked in pages, merged."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked, series_of
from tests.storage.opening import opened
from upbit_backbone.clock import MINUTE_MS, SECOND_MS
from upbit_backbone.coordinator.coordinator import (
    ATTEMPTS,
    MAX_RETRY_WAIT_S,
    PARALLEL_PAGES,
    Coordinator,
)
from upbit_backbone.errors import (
    BackboneError,
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


async def test_a_retry_waits_with_bounded_jitter_and_helps(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10))
    chance = NoChance()
    coordinator = coordinator_on(FakeStore(exchange), noon, chance)
    left = ATTEMPTS - 1

    async def fail(_: BackboneRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(asked(end_ms=NOON, count=5))
    assert response.success
    assert len(exchange.requests) == ATTEMPTS
    assert all(0 == low < high <= 1.0 for low, high in chance.asked)
    assert [high for _, high in chance.asked] == sorted(high for _, high in chance.asked)
    assert coordinator.status().counters["retries"] == ATTEMPTS - 1
    left = ATTEMPTS
    with pytest.raises(TransportError):
        await coordinator.fetch(asked(end_ms=NOON - 6 * M, count=2))


async def test_a_short_ban_is_waited_for_and_a_long_one_told(noon: ManualClock) -> None:
    exchange = FakeExchangeSource(noon, every_minute(10))
    coordinator = coordinator_on(FakeStore(exchange), noon)
    bans = [0.01, MAX_RETRY_WAIT_S + 1]

    async def ban(_: BackboneRequest) -> None:
        if bans:
            raise RateLimitedError("too fast", retry_after_s=bans.pop(0))

    exchange.before_answer = ban
    async with asyncio.timeout(2):
        with pytest.raises(RateLimitedError) as caught:
            await coordinator.fetch(asked(end_ms=NOON, count=5))
    assert caught.value.retry_after_s == MAX_RETRY_WAIT_S + 1
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
    assert await coordinator.markets() == ()


async def test_its_state_follows_start_and_stop(noon: ManualClock) -> None:
    coordinator = coordinator_on(FakeStore(FakeExchangeSource(noon)), noon)
    assert coordinator.status().health == "down"
    await coordinator.start()
    assert coordinator.status().health == "healthy"
    await coordinator.stop()
    await coordinator.stop()
    assert coordinator.status().health == "down"
