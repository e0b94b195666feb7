"""Trades of a range or a number of them: pages by cursor, a UTC day at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coordinator.fake_store import NoChance
from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import (
    DataUnavailableError,
    DeadlineError,
    ProtocolError,
    TransportError,
)
from upbit_backbone.models import Trade
from upbit_backbone.protocol import (
    MAX_PAGE_TRADES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    Priority,
)

TODAY = AUTUMN_2025_MS
NOW = TODAY + 10 * HOUR_MS


def trade(number: int, at_ms: int) -> Trade:
    moment = utc_datetime(at_ms)
    return Trade("KRW-BTC", 1.0, 2.0, "BUY", number, False, moment, moment, "rest", False)


class FakeTrades:
    """Answers pages of trades as the exchange does, with its time of day and its days ago."""

    def __init__(self, clock: ManualClock, stamps: Iterable[int]) -> None:
        self.clock = clock
        self.stamps = sorted(stamps)
        self.requests: list[BackboneRequest] = []
        self.at_once = self.most_at_once = 0
        self.before_answer: Callable[[BackboneRequest], Awaitable[None]] | None = None
        self.ignores_cursor = False
        self.executed: dict[int, int] = {}
        """When trades that were told late were made, by their id."""

    def peek(self, *_: object) -> None: ...
    def peek_age_s(self, *_: object) -> None: ...
    def subscribe(self, request: BackboneRequest) -> Any: ...
    async def markets(self, *, max_age_s: float = 0.0) -> Any: ...

    def told(self) -> list[tuple[int, int]]:
        """Id and time of each trade, in the order of ids."""
        return [(id_, self.executed.get(id_, at)) for id_, at in enumerate(self.stamps)]

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        self.requests.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.before_answer is not None:
                await self.before_answer(request)
        finally:
            self.at_once -= 1
        now_ms = self.clock.now_ms()
        days_ago = request.days_ago or 0
        assert 0 <= days_ago <= 7
        assert request.count is not None
        assert 1 <= request.count <= MAX_PAGE_TRADES
        day_ms = (now_ms // DAY_MS - days_ago) * DAY_MS
        upper_ms = min(day_ms + DAY_MS, now_ms + 1)
        if request.end_ms is not None:
            # The wire carries a time of day in whole seconds.
            upper_ms = min(upper_ms, day_ms + request.end_ms // SECOND_MS * SECOND_MS % DAY_MS)
        older = len(self.stamps) if request.cursor is None else request.cursor
        if self.ignores_cursor:
            older = len(self.stamps)
        found = [
            (number, at) for number, at in self.told() if day_ms <= at < upper_ms and number < older
        ]
        page = tuple(trade(*item) for item in found[-request.count :][::-1])
        metadata = BackboneMetadata("layer_1", False, 0.0, len(page), request.priority)
        return BackboneResponse(True, page, metadata, None, request.request_id)


def asked(
    start_ms: int | None,
    end_ms: int | None,
    count: int | None,
    priority: Priority = Priority.NORMAL,
) -> BackboneRequest:
    return BackboneRequest(
        DataType.TRADE,
        ("KRW-BTC",),
        start_time=None if start_ms is None else utc_datetime(start_ms),
        end_time=None if end_ms is None else utc_datetime(end_ms),
        count=count,
        priority=priority,
    )


async def stamps_of(source: FakeTrades, *question: int | None) -> list[int]:
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    async with asyncio.timeout(10):
        response = await coordinator.fetch(asked(*question))  # type: ignore[arg-type]
    assert response.success
    ids = [one.sequential_id for one in response.data]
    assert len(set(ids)) == len(ids)
    assert response.metadata.data_count == len(ids)
    return [round(one.exchange_time.timestamp() * 1_000) for one in response.data]


def expected(
    source: FakeTrades, start_ms: int | None, end_ms: int | None, count: int | None
) -> list[int]:
    oldest_ms = TODAY - 7 * DAY_MS
    found = [
        at
        for at in source.stamps
        if max(start_ms or 0, oldest_ms) <= at < min(end_ms or NOW + 1, NOW + 1)
    ]
    if count is not None:
        found = found[:count] if start_ms is not None else found[-count:]
    return found


# Three days, dense enough for several pages a day, with quiet days in between.
STAMPS = [
    *range(TODAY - 6 * DAY_MS, TODAY - 6 * DAY_MS + 700 * 1_500, 1_500),
    *range(TODAY - 2 * DAY_MS + 5, TODAY - 2 * DAY_MS + 1_300 * MINUTE_MS, MINUTE_MS),
    *range(TODAY - 40 * SECOND_MS, TODAY + 40 * SECOND_MS, 100),
    *range(NOW - 90 * SECOND_MS, NOW + 10 * SECOND_MS, 250),
]
MOMENTS = st.one_of(
    st.sampled_from(STAMPS),
    st.sampled_from(STAMPS).map(lambda at: at + 1),
    st.integers(-7, 0).map(lambda days: TODAY + days * DAY_MS),
    st.integers(TODAY - 7 * DAY_MS, NOW),
)


@settings(max_examples=150)
@given(
    question=st.one_of(
        st.tuples(MOMENTS, st.none() | MOMENTS, st.none()),
        st.tuples(st.none(), st.none() | MOMENTS, st.integers(1, 1_500)),
        st.tuples(MOMENTS, st.none(), st.integers(1, 1_500)),
    )
)
async def test_trades_of_any_question_are_what_happened_each_once_ascending(
    question: tuple[int | None, int | None, int | None],
) -> None:
    start_ms, end_ms, count = question
    if start_ms is not None and end_ms is not None:
        start_ms, end_ms = min(start_ms, end_ms), max(start_ms, end_ms) + 1
    if start_ms is None and end_ms is not None:
        end_ms = max(end_ms, TODAY - 7 * DAY_MS + 1)
    if start_ms is not None:
        start_ms = min(start_ms, NOW)
    source = FakeTrades(ManualClock(NOW), STAMPS)
    found = await stamps_of(source, start_ms, end_ms, count)
    assert found == expected(source, start_ms, end_ms, count)


async def test_the_first_trades_from_a_start_are_not_the_newest_ones() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    assert await stamps_of(source, TODAY - DAY_MS, None, 3) == [
        TODAY - 40 * SECOND_MS,
        TODAY - 40 * SECOND_MS + 100,
        TODAY - 40 * SECOND_MS + 200,
    ]


async def test_the_first_trades_from_a_start_are_read_from_there_on_not_from_today_back() -> None:
    busy = range(TODAY - 3 * DAY_MS, TODAY - 3 * DAY_MS + 6 * HOUR_MS, 2 * SECOND_MS)
    source = FakeTrades(ManualClock(NOW), busy)
    start_ms = TODAY - 3 * DAY_MS + HOUR_MS
    assert await stamps_of(source, start_ms, None, 3) == [start_ms + by for by in (0, 2_000, 4_000)]
    assert len(source.requests) <= 2
    source.requests.clear()
    assert await stamps_of(source, start_ms, None, 2_000) == [
        *range(start_ms, start_ms + 4_000 * SECOND_MS, 2 * SECOND_MS)
    ]
    assert len(source.requests) <= 16


async def test_of_a_market_that_slept_for_days_the_first_trades_are_found_in_a_few_pages() -> None:
    source = FakeTrades(ManualClock(NOW), [NOW - 5 * SECOND_MS, NOW - SECOND_MS])
    assert await stamps_of(source, TODAY - 6 * DAY_MS, None, 1) == [NOW - 5 * SECOND_MS]
    assert len(source.requests) <= 20


async def test_the_first_trades_from_a_start_that_is_no_longer_kept_are_refused_at_once() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    with pytest.raises(DataUnavailableError, match=r"2025-09-05 00:00 UTC .* keeps trades for 7"):
        await stamps_of(source, TODAY - 10 * DAY_MS, None, 3)
    assert source.requests == []


async def test_first_trades_that_were_cut_off_are_the_first_ones_and_the_rest_is_named() -> None:
    busy = range(TODAY - 3 * DAY_MS, TODAY - 3 * DAY_MS + HOUR_MS, 200)
    source = FakeTrades(ManualClock(NOW), busy)

    async def fail_the_fifth(_: BackboneRequest) -> None:
        if len(source.requests) >= 5:
            raise TransportError("cut off", retry_after_s=60.0)

    source.before_answer = fail_the_fifth
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    start_ms = TODAY - 3 * DAY_MS
    response = await coordinator.fetch(asked(start_ms, None, 5_000))
    assert isinstance(response.error, TransportError)
    found = [round(one.exchange_time.timestamp() * 1_000) for one in response.data]
    assert found
    assert found == [start_ms + 200 * by for by in range(len(found))]
    (span,) = response.metadata.missing
    assert span.start == utc_datetime(found[-1] + 200)


async def test_an_end_at_midnight_is_the_end_of_the_day_before() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    assert await stamps_of(source, None, TODAY, 2) == [TODAY - 200, TODAY - 100]


async def test_an_end_within_a_second_keeps_the_trades_of_that_second() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    end_ms = NOW - 30 * SECOND_MS + 600
    assert await stamps_of(source, None, end_ms, 3) == [end_ms - 600, end_ms - 350, end_ms - 100]


async def test_midnight_may_pass_while_pages_are_read() -> None:
    clock = ManualClock(TODAY + DAY_MS - 100)
    stamps = [*range(TODAY - DAY_MS, TODAY + DAY_MS, MINUTE_MS)]
    source = FakeTrades(clock, stamps)

    async def pass_midnight(_: BackboneRequest) -> None:
        if len(source.requests) == 2:
            clock.advance(1)

    source.before_answer = pass_midnight
    start_ms = TODAY - 12 * HOUR_MS
    assert await stamps_of(source, start_ms, None, None) == [at for at in stamps if at >= start_ms]


@pytest.mark.parametrize(
    ("start_ms", "end_ms"),
    [
        (TODAY - 8 * DAY_MS, TODAY - 7 * DAY_MS),
        (None, TODAY - 7 * DAY_MS),
        (None, TODAY - 30 * DAY_MS),
    ],
)
async def test_what_the_exchange_no_longer_keeps_is_told(
    start_ms: int | None, end_ms: int | None
) -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    with pytest.raises(DataUnavailableError, match="keeps trades for 7 days"):
        await stamps_of(source, start_ms, end_ms, None if start_ms else 10)
    assert source.requests == []


async def test_a_page_that_fails_leaves_what_was_found_and_names_the_rest() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)

    async def fail(request: BackboneRequest) -> None:
        if request.days_ago:
            raise TransportError("cut off")

    source.before_answer = fail
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    response = await coordinator.fetch(asked(TODAY - HOUR_MS, None, None))
    assert not response.success
    assert isinstance(response.error, TransportError)
    assert len(response.data) == len(expected(source, TODAY, None, None))
    (span,) = response.metadata.missing
    assert span.start == utc_datetime(TODAY - HOUR_MS)
    assert span.end == utc_datetime(TODAY + 1)
    with pytest.raises(TransportError) as caught:
        await coordinator.fetch(asked(TODAY - HOUR_MS, TODAY, None))
    assert caught.value.missing[0].end == utc_datetime(TODAY)


async def test_an_exchange_that_repeats_a_page_does_not_hold_us_for_ever() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    source.ignores_cursor = True
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    response = await coordinator.fetch(asked(TODAY - 2 * DAY_MS, None, None))
    assert isinstance(response.error, ProtocolError)
    assert "same page" in str(response.error)
    assert len(source.requests) == 2


async def test_a_range_that_begins_too_long_ago_gives_what_is_kept_and_names_the_rest() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    start_ms = TODAY - 9 * DAY_MS
    response = await coordinator.fetch(asked(start_ms, TODAY, None))
    assert isinstance(response.error, DataUnavailableError)
    assert len(response.data) == len(expected(source, TODAY - 7 * DAY_MS, TODAY, None))
    (span,) = response.metadata.missing
    assert (span.start, span.end) == (utc_datetime(start_ms), utc_datetime(TODAY - 7 * DAY_MS))
    assert "7 days" in span.reason


async def test_a_day_that_ends_being_kept_meanwhile_is_missing_not_empty() -> None:
    clock = ManualClock(TODAY + DAY_MS - SECOND_MS)
    start_ms = TODAY - 7 * DAY_MS
    source = FakeTrades(clock, [start_ms + 1_000, TODAY + HOUR_MS])

    async def midnight(request: BackboneRequest) -> None:
        if request.days_ago == 6:
            clock.advance(60.0)

    source.before_answer = midnight
    coordinator = Coordinator(source, clock=clock, rng=NoChance())
    response = await coordinator.fetch(asked(start_ms, None, None))
    assert [one.sequential_id for one in response.data] == [1]
    assert not response.success
    assert isinstance(response.error, DataUnavailableError)
    (span,) = response.metadata.missing
    assert span.start == utc_datetime(start_ms)
    assert "keeps trades for 7 days" in span.reason


async def test_a_page_that_waits_over_midnight_is_asked_for_by_its_new_name() -> None:
    clock = ManualClock(TODAY - 30 * SECOND_MS)
    source = FakeTrades(clock, [TODAY - 3 * HOUR_MS, TODAY - 2 * HOUR_MS])

    async def wait(request: BackboneRequest) -> None:
        if len(source.requests) == 1:
            clock.advance(120.0)

    source.before_answer = wait
    found = await stamps_of(source, TODAY - 4 * HOUR_MS, TODAY - HOUR_MS, None)
    assert found == source.stamps


async def test_an_exchange_whose_clock_has_passed_midnight_is_asked_for_the_right_day() -> None:
    """Its days are counted from tomorrow while ours is still today."""
    source = FakeTrades(ManualClock(TODAY + DAY_MS + 2_000), [*STAMPS, TODAY + DAY_MS + 500])
    ours = ManualClock(TODAY + DAY_MS - 2_000)
    coordinator = Coordinator(source, clock=ours, rng=NoChance())
    response = await coordinator.fetch(asked(TODAY, None, None))
    found = [round(one.exchange_time.timestamp() * 1_000) for one in response.data]
    assert found == [at for at in STAMPS if at >= TODAY]


async def test_an_exchange_whose_clock_has_not_passed_midnight_leaves_no_hole() -> None:
    """What is yesterday for us is today for it, and one day ago the day before."""
    source = FakeTrades(ManualClock(TODAY - 2_000), STAMPS)
    coordinator = Coordinator(source, clock=ManualClock(TODAY + 2_000), rng=NoChance())
    response = await coordinator.fetch(asked(TODAY - DAY_MS, TODAY, None))
    found = [round(one.exchange_time.timestamp() * 1_000) for one in response.data]
    assert found == [at for at in STAMPS if TODAY - DAY_MS <= at <= TODAY - 2_000]


async def test_a_page_with_trades_that_were_not_asked_for_is_a_protocol_fault() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    answered = source.fetch

    async def without_an_end(request: BackboneRequest) -> BackboneResponse:
        return await answered(msgspec.structs.replace(request, end_time=None))

    source.fetch = without_an_end  # type: ignore[method-assign]
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    with pytest.raises(ProtocolError, match=r"before 2025-09-15T00:00:10Z: the answer has \d+"):
        await coordinator.fetch(asked(TODAY, TODAY + 10 * SECOND_MS, None))


async def test_trades_end_at_the_deadline_with_what_arrived() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)

    async def hang_yesterday(request: BackboneRequest) -> None:
        if request.days_ago:
            await asyncio.Event().wait()

    source.before_answer = hang_yesterday
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    request = asked(TODAY - HOUR_MS, None, None)
    deadline = source.clock.monotonic() + 0.05
    response = await coordinator.fetch(msgspec.structs.replace(request, deadline=deadline))
    assert isinstance(response.error, DeadlineError)
    assert len(response.data) == len(expected(source, TODAY, None, None))
    assert response.metadata.missing[0].end == utc_datetime(TODAY + 1)
    assert "the time given ended" in response.metadata.missing[0].reason


async def test_low_callers_share_one_page_in_flight_with_those_for_candles() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    await asyncio.gather(
        *(coordinator.fetch(asked(TODAY - 3 * DAY_MS, None, None, Priority.LOW)) for _ in range(3))
    )
    assert source.most_at_once == 1


DENSE = [*range(TODAY, TODAY + 4 * MINUTE_MS, 60)]
PAGES_BACK = st.integers(1, len(DENSE) // MAX_PAGE_TRADES - 1)


async def test_a_trade_told_late_does_not_end_the_walk_before_the_start() -> None:
    source = FakeTrades(ManualClock(NOW), DENSE)
    start_ms = DENSE[2_000]
    source.executed[3_300] = start_ms - 10
    found = await stamps_of(source, start_ms, None, None)
    assert found == [at for at in DENSE if at >= start_ms and at != DENSE[3_300]]


async def test_nor_does_one_that_was_told_long_after_and_ends_a_page() -> None:
    source = FakeTrades(ManualClock(NOW), DENSE)
    start_ms = DENSE[1_000]
    source.executed[len(DENSE) - MAX_PAGE_TRADES] = start_ms - 20 * SECOND_MS
    found = await stamps_of(source, start_ms, None, None)
    assert len(found) == len(DENSE) - 1_000 - 1


async def test_what_a_late_trade_s_time_seems_to_reach_is_still_told_as_missing() -> None:
    source = FakeTrades(ManualClock(NOW), DENSE)
    source.executed[len(DENSE) - 200] = DENSE[1_000]

    async def fail(_: BackboneRequest) -> None:
        if len(source.requests) == 2:
            raise TransportError("cut off", retry_after_s=60.0)

    source.before_answer = fail
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance())
    response = await coordinator.fetch(asked(TODAY, None, None))
    (span,) = response.metadata.missing
    assert span.end == utc_datetime(DENSE[-MAX_PAGE_TRADES] + 1)


@settings(max_examples=60)
@given(
    # A little above or below where a page ends.
    start=st.builds(lambda page, by: page * MAX_PAGE_TRADES + by, PAGES_BACK, st.integers(-90, 90)),
    late=st.dictionaries(st.integers(-100, 100), st.integers(60, 5_000), max_size=40),
    count=st.none() | st.integers(1, 700),
)
async def test_whichever_trades_are_late_by_seconds_all_of_the_range_are_had(
    start: int, late: dict[int, int], count: int | None
) -> None:
    source = FakeTrades(ManualClock(NOW), DENSE)
    source.executed = {start + by: DENSE[start + by] - by_ms for by, by_ms in late.items()}
    made = sorted(at for _, at in source.told())
    start_ms = DENSE[start]
    found = await stamps_of(source, start_ms, None, count)
    assert found == [at for at in made if at >= start_ms][:count]


async def test_low_waits_between_pages_while_others_suffer_from_the_load() -> None:
    source = FakeTrades(ManualClock(NOW), STAMPS)
    load: str | None = None

    async def suffer_from_the_second_on(_: BackboneRequest) -> None:
        nonlocal load
        load = "load 78 %" if len(source.requests) == 2 else None

    source.before_answer = suffer_from_the_second_on
    coordinator = Coordinator(source, clock=source.clock, rng=NoChance(), shedding=lambda _: load)
    call = asyncio.create_task(coordinator.fetch(asked(TODAY - DAY_MS, None, None, Priority.LOW)))
    await eventually(lambda: len(source.requests) == 2)
    await asyncio.sleep(0.02)
    assert len(source.requests) == 2
    normal = await coordinator.fetch(asked(TODAY - DAY_MS, None, None))
    assert normal.success
    response = await call
    assert response.data == normal.data
