"""Series that are shown or pinned stay complete up to now, and what they say is settled later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, FakeSubscription, asked, row_of
from tests.storage.opening import opened, rows_in, spans_in
from upbit_backbone.clock import HOUR_MS, MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.errors import ClosedError, TransportError
from upbit_backbone.models import Candle, CandleSeries, CandleState, Gap, Timeframe
from upbit_backbone.protocol import (
    BackboneRequest,
    DataType,
    Policy,
    Priority,
    Reach,
    Subscription,
    Whole,
)
from upbit_backbone.storage.storage import Storage

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * 60 * M


def candle(minute: int, state: CandleState = "closed", *, volume: float | None = None) -> Candle:
    """A candle as the exchange has it when it is over."""
    at_ms = NOON + minute * M
    _, *prices, whole, value = row_of(Timeframe.M1, at_ms, 2**50)
    opening, high, low, close = prices
    return Candle(
        SYMBOL,
        Timeframe.M1,
        utc_datetime(at_ms),
        opening,
        high,
        low,
        close,
        whole if volume is None else volume,
        value,
        state != "forming",
        False,
        state,
    )


def whole(start: int, end: int) -> Whole:
    return Whole(SYMBOL, Timeframe.M1, utc_datetime(NOON + start * M), utc_datetime(NOON + end * M))


def gap(start_ms: int) -> Gap:
    at = utc_datetime(start_ms)
    return Gap(SYMBOL, "open", at, at, "cut off")


def watched(storage: Storage, policy: Policy = "all") -> Subscription:
    return storage.subscribe(
        BackboneRequest(DataType.CANDLE, (SYMBOL,), Timeframe.M1, policy=policy)
    )


def minutes(series: CandleSeries) -> list[int]:
    return [(at - NOON) // M for at in series.time.tolist()]


def states(folder: Path) -> list[tuple[int, int, str, str]]:
    """What the file knows, in minutes after noon, with state and evidence."""
    return [
        ((start - NOON) // M, (end - NOON) // M, state, evidence)
        for start, end, state, _, evidence in spans_in(folder)
    ]


async def tell(stream: FakeSubscription, *values: Any) -> None:
    """Let the stream say something, and the store hear it."""
    stream.state = "confirmed"
    for value in values:
        stream.values.put_nowait(value)
    await eventually(lambda: stream.values.empty())


async def stored_to(storage: Storage, folder: Path, minute: int) -> None:
    """Wait until the file knows something up to a minute, and memory what is in the file."""
    await eventually(lambda: any(end == minute for _, end, _, _ in states(folder)))
    await storage._database.write(lambda sql: None)


@pytest.fixture
def clock() -> ManualClock:
    """Ten seconds past noon."""
    return ManualClock(NOON + 10 * SECOND_MS)


@pytest.fixture
def source(clock: ManualClock) -> FakeExchangeSource:
    return FakeExchangeSource(clock, [NOON + n * M for n in range(-300, 300)])


@pytest.mark.both_loops
async def test_closed_candles_are_stored_by_themselves_and_silent_minutes_as_empty(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        async with watched(storage) as reader:
            (stream,) = source.subscriptions
            assert (stream.request.policy, stream.request.proofs) == ("all", True)
            clock.advance(180)
            await tell(stream, whole(0, 0), candle(0, "forming"), candle(0), whole(0, 1))
            await tell(stream, whole(1, 2), candle(2), whole(2, 3))
            await stored_to(storage, tmp_path, 3)
            told = [await anext(reader) for _ in range(3)]
            assert [value.state for value in told] == ["forming", "closed", "closed"]
        assert states(tmp_path) == [
            (0, 1, "complete", "live"),
            (1, 2, "empty", "live"),
            (2, 3, "complete", "live"),
        ]
        assert rows_in(tmp_path) == [row_of(Timeframe.M1, NOON + n * M, 2**50) for n in (0, 2)]
        assert source.requests == []


async def test_a_range_that_ends_now_joins_stored_closed_and_forming_without_a_request(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON + M, count=50))
        await tell(stream, whole(0, 0), candle(0, "forming"))
        clock.advance(55)
        await tell(stream, candle(0), whole(0, 1), candle(1, "forming"))
        for start, count in ((NOON - 10 * M, None), (None, 12)):
            request = asked(start_ms=start, count=count, reach=Reach.STORED, max_age=2.0)
            response = await storage.fetch(request)
            assert response.success
            assert minutes(response.data) == list(range(-10, 2))
            assert response.data.closed.tolist() == [True] * 11 + [False]
            held = storage.peek(
                DataType.CANDLE, SYMBOL, Timeframe.M1, start, None, count, 2.0, clock.monotonic()
            )
            assert held == response.data
        assert len(source.requests) == 1
        # Nobody trades: the stream shows signs of life all the same.
        clock.advance(30)
        response = await storage.fetch(request)
        assert response.success
        assert response.metadata.age_s == 2.0
        # A minute later nothing was told: the stream is not up to now, and does not say so.
        clock.advance(70)
        request = asked(start_ms=NOON - 10 * M, reach=Reach.STORED)
        assert not (await storage.fetch(request)).success


async def test_the_seam_between_the_last_page_and_the_live_part_is_asked_once(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON - 30 * M, count=50))
        await tell(stream, whole(1, 1))
        clock.advance(54)
        await tell(stream, whole(1, 1))
        assert len(source.requests) == 1
        clock.advance(1)
        await stored_to(storage, tmp_path, 1)
        clock.advance(60)
        await tell(stream, candle(1), whole(1, 2))
        await stored_to(storage, tmp_path, 2)
        (_, seam) = source.requests
        assert (seam.start_ms, seam.end_ms) == (NOON - 30 * M, NOON + M)
        assert seam.priority is Priority.LOW
        response = await storage.fetch(asked(start_ms=NOON - 60 * M, reach=Reach.STORED))
        assert minutes(response.data) == list(range(-60, 2))
        assert response.success


async def test_an_outage_leaves_the_unknown_with_its_reason_and_one_page_fills_it(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage) as reader:
        (stream,) = source.subscriptions
        clock.advance(130)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1), candle(1), whole(1, 2))
        await tell(stream, gap(NOON + 2 * M + 5_000))
        await stored_to(storage, tmp_path, 3)
        assert states(tmp_path)[-1] == (2, 3, "unknown", "live")
        response = await storage.fetch(asked(start_ms=NOON, reach=Reach.STORED))
        assert [span.reason for span in response.metadata.missing] == ["outage: cut off"]
        assert source.requests == []
        clock.advance(120)
        await tell(stream, whole(4, 4))
        filled = [(0, 2, "complete", "live"), (2, 4, "complete", "rest")]
        await eventually(lambda: states(tmp_path) == filled)
        (page,) = source.requests
        assert (page.start_ms, page.end_ms) == (NOON + 2 * M, NOON + 4 * M)
        values = [await anext(reader) for _ in range(3)]
        assert isinstance(values[-1], Gap)


async def test_a_loss_that_is_told_late_takes_back_what_the_stream_had_proved(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(130)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1), candle(1), whole(1, 2))
        await stored_to(storage, tmp_path, 2)
        await tell(stream, gap(NOON + M + 30_000))
        await stored_to(storage, tmp_path, 3)
        assert states(tmp_path) == [(0, 1, "complete", "live"), (1, 3, "unknown", "live")]
        response = await storage.fetch(
            asked(start_ms=NOON, end_ms=NOON + 2 * M, reach=Reach.STORED)
        )
        assert minutes(response.data) == [0]
        assert not response.success


async def test_a_late_trade_revises_what_is_stored_also_after_a_page_was_read(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage) as reader:
        (stream,) = source.subscriptions
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await storage.fetch(asked(end_ms=NOON + M, count=5))
        assert states(tmp_path) == [(-4, 1, "complete", "rest")]
        await tell(stream, candle(0, "revised", volume=99.0))
        await eventually(lambda: rows_in(tmp_path)[-1][5] == 99.0)
        assert states(tmp_path)[-1] == (0, 1, "complete", "live")
        told = [(await anext(reader)).state for _ in range(3)]
        assert told == ["closed", "settled", "revised"]


async def test_what_a_page_said_stands_against_the_stream(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(60)
        await storage.fetch(asked(end_ms=NOON + M, count=5))
        await tell(stream, whole(0, 0), candle(0, volume=1.0), whole(0, 1))
        await tell(stream, whole(1, 1))
        await storage._database.write(lambda sql: None)
        response = await storage.fetch(asked(end_ms=NOON + M, count=5, reach=Reach.STORED))
        assert response.data[-1].volume == row_of(Timeframe.M1, NOON, 2**50)[5]
    assert rows_in(tmp_path)[-1] == row_of(Timeframe.M1, NOON, 2**50)


async def test_an_hour_of_candles_is_settled_by_one_low_page(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    wrong, invented, unseen = 7, 20, 30
    source.opens.discard(NOON + invented * M)
    async with opened(tmp_path, source, clock) as storage, watched(storage) as reader:
        (stream,) = source.subscriptions
        await tell(stream, whole(0, 0))
        clock.set_wall(NOON + 60 * M + 30 * SECOND_MS)
        for minute in range(60):
            if minute != unseen:
                await tell(stream, candle(minute, volume=5.0 if minute == wrong else None))
            await tell(stream, whole(minute, minute + 1))
        await stored_to(storage, tmp_path, 60)
        assert source.requests == []
        clock.set_wall(NOON + 61 * M)
        await eventually(lambda: storage.status().counters["restated"])
        # A period had no candle, so that the page reaches one further down.
        assert states(tmp_path) == [(-1, 60, "complete", "rest")]
        (page,) = source.requests
        assert page.priority is Priority.LOW
        assert (page.start_ms, page.end_ms, page.count) == (NOON, NOON + 60 * M, 60)
        response = await storage.fetch(
            asked(start_ms=NOON, end_ms=NOON + 60 * M, reach=Reach.STORED)
        )
        truth = [minute for minute in range(60) if minute != invented]
        assert minutes(response.data) == truth
        stored = [row for row in rows_in(tmp_path) if row[0] >= NOON]
        assert stored == [row_of(Timeframe.M1, NOON + n * M, 2**50) for n in truth]
        values = [await anext(reader) for _ in range(59 + 59)]
        later = values[59:]
        assert [value.state for value in later].count("settled") == 57
        revised = [value.open_time for value in later if value.state == "revised"]
        assert revised == [utc_datetime(NOON + n * M) for n in (wrong, unseen)]
        counters = storage.status().counters
        assert (counters["settled"], counters["restated"]) == (57, 3)
        assert counters["settling_pages"] == 1


async def test_a_candle_that_has_waited_an_hour_is_settled_alone_also_after_a_restart(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
    clock.set_wall(NOON + M + HOUR_MS - 1)
    async with opened(tmp_path, source, clock) as storage:
        response = await storage.fetch(asked(end_ms=NOON + M, count=1, reach=Reach.STORED))
        assert response.success
        assert not source.requests
        clock.advance(1)
        await eventually(lambda: states(tmp_path) == [(0, 1, "complete", "rest")])
    assert len(source.requests) == 1


async def test_a_page_that_fails_is_tried_again_later_and_not_at_once(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async def fail(_: BackboneRequest) -> None:
        raise TransportError("cut off")

    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        source.before_answer = fail
        clock.advance(3_600)
        await eventually(lambda: len(source.requests) == 1)
        source.before_answer = None
        await storage._database.write(lambda sql: None)
        assert states(tmp_path)[0][3] == "live"
        clock.advance(60)
        await eventually(lambda: states(tmp_path)[0][3] == "rest")
        assert len(source.requests) == 2


async def test_all_readers_of_a_series_share_one_stream_that_ends_with_the_last(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        first, second = watched(storage), watched(storage, "latest")
        (stream,) = source.subscriptions
        await tell(stream, whole(0, 0), candle(0, "forming"))
        assert (first.state, second.state) == ("confirmed", "confirmed")
        # Who comes later gets the forming candle at once.
        async with watched(storage, "latest") as third:
            assert (await anext(third)).state == "forming"
        await tell(stream, candle(0), whole(0, 1), gap(NOON + 2 * M))
        assert [value.state for value in [await anext(first) for _ in range(3)]] == [
            "forming",
            "closed",
            "open",
        ]
        # Of an open time the newest is kept, and gaps are for those who want all.
        assert (await anext(second)).state == "closed"
        first.close()
        states_then = [stream.state]
        second.close()
        assert [*states_then, stream.state] == ["confirmed", "closed"]
        with pytest.raises(StopAsyncIteration):
            await anext(second)
        watched(storage)
        assert len(source.subscriptions) == 2


async def test_readers_learn_that_the_service_closes(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        reader = watched(storage)
    with pytest.raises(ClosedError):
        await anext(reader)
    with pytest.raises(ClosedError):
        watched(storage)


async def test_a_pinned_series_is_kept_without_a_reader(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]) as storage:
        await eventually(lambda: source.subscriptions)
        (stream,) = source.subscriptions
        async with watched(storage):
            pass
        assert stream.state != "closed"
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        assert storage.status().counters["live_series"] == 1
