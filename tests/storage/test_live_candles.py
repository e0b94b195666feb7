"""Series that are shown or pinned stay complete up to now, and what they say is settled later."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import (
    SYMBOL,
    FakeExchangeSource,
    FakeSubscription,
    asked,
    market,
    row_of,
)
from tests.storage.opening import opened, rows_in, spans_in
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.errors import ClosedError, TransportError, UnknownSymbolError
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
from upbit_backbone.storage import database, live_feeds, live_writes
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.live_candles import MAX_UNWRITTEN, LiveSeries
from upbit_backbone.storage.settling import Settling
from upbit_backbone.storage.storage import Storage
from upbit_backbone.storage.tending import MAX_SEAM_PAGES

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


def broken_by_us(*_: Any) -> Any:
    raise KeyError("a bug")


def proved(folder: Path) -> list[tuple[int, int, str]]:
    """What the file knows, by whatever evidence."""
    joined: list[tuple[int, int, str]] = []
    for start, end, state, _ in states(folder):
        if joined and joined[-1][1:] == (start, state):
            start = joined.pop()[0]
        joined.append((start, end, state))
    return joined


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
        stream.complete_ms = clock.now_ms() - 1_500
        response = await storage.fetch(request)
        assert response.success
        assert response.metadata.age_s == 1.5
        # A minute later nothing was told: the stream is not up to now, and does not say so.
        clock.advance(70)
        request = asked(start_ms=NOON - 10 * M, reach=Reach.STORED)
        assert not (await storage.fetch(request)).success


async def test_what_the_stream_does_not_know_to_be_all_ages_though_it_is_confirmed(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON, count=50))
        await tell(stream, whole(0, 0), candle(0, "forming"))
        request = asked(count=3, reach=Reach.STORED, max_age=2.0)
        # Trades are being read back, or the connection is dead and nobody knows it yet.
        stream.complete_ms = clock.now_ms()
        clock.advance(2)
        assert (await storage.fetch(request)).metadata.age_s == 2.0
        clock.advance(0.25)
        assert not (await storage.fetch(request)).success
        peeked = (DataType.CANDLE, SYMBOL, Timeframe.M1, None, None, 3, 2.0, clock.monotonic())
        assert storage.peek(*peeked) is None
        # A page is newer than what the stream knows, so it is not hidden by it.
        page = (await storage.fetch(asked(count=3))).data
        assert storage.peek(*peeked) == page
        stream.complete_ms = None
        clock.advance(0.25)
        held = storage.peek(*peeked)
        assert held is not None and held != page


async def test_a_stream_that_is_whole_from_the_next_day_on_does_not_hide_what_was_read_of_this(
    tmp_path: Path, clock: ManualClock
) -> None:
    day_ms = Timeframe.D1.floor_ms(NOON)
    source = FakeExchangeSource(
        clock, [day_ms - n * DAY_MS for n in range(50)], timeframe=Timeframe.D1
    )
    async with opened(tmp_path, source, clock) as storage:
        request = BackboneRequest(DataType.CANDLE, (SYMBOL,), Timeframe.D1, policy="all")
        async with storage.subscribe(request):
            (stream,) = source.subscriptions
            begins = utc_datetime(day_ms + DAY_MS)
            await tell(stream, Whole(SYMBOL, Timeframe.D1, begins, begins))
            page = (await storage.fetch(asked(Timeframe.D1, count=5))).data
            clock.advance(1)
            response = await storage.fetch(asked(Timeframe.D1, count=5, reach=Reach.STORED))
            assert response.success
            assert response.data == page


async def test_a_pinned_stream_is_as_urgent_as_who_reads_it(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]) as storage:
        await eventually(lambda: source.subscriptions)
        (stream,) = source.subscriptions
        assert stream.priority is Priority.LOW
        chart = BackboneRequest(DataType.CANDLE, (SYMBOL,), Timeframe.M1, priority=Priority.HIGH)
        with closing(watched(storage)) as other:
            urgent = [stream.priority]
            with closing(storage.subscribe(chart)):
                urgent.append(stream.priority)
            urgent.append(stream.priority)
            other.set_priority(Priority.CRITICAL)
            urgent.append(stream.priority)
        urgent.append(stream.priority)
        assert urgent == [2, 1, 2, 0, 3]


async def test_a_fault_of_ours_ends_the_readers_and_a_pinned_stream_begins_again(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(live_feeds, "AGAIN_S", 0.01)
    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]) as storage:
        await eventually(lambda: source.subscriptions)
        (stream,) = source.subscriptions
        reader = watched(storage)
        with monkeypatch.context() as broken:
            broken.setattr(LiveSeries, "take", broken_by_us)
            stream.values.put_nowait(candle(0, "forming"))
            assert (await anext(reader)).state == "forming"
            async with asyncio.timeout(2):
                with pytest.raises(ClosedError, match="fault"):
                    await anext(reader)
        assert (reader.state, stream.state) == ("closed", "closed")
        await eventually(lambda: storage.status().health == "degraded")
        assert "a bug" in storage.status().reason
        await eventually(lambda: len(source.subscriptions) == 2)


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


@pytest.fixture
def long_source(clock: ManualClock) -> FakeExchangeSource:
    """More than a week of minutes, all traded."""
    return FakeExchangeSource(clock, [NOON + n * M for n in range(-14_000, 5)])


async def test_a_seam_of_a_week_is_joined_page_by_page_from_the_newest_down(
    tmp_path: Path, clock: ManualClock, long_source: FakeExchangeSource
) -> None:
    source, week = long_source, 7 * 24 * 60
    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]) as storage:
        await eventually(lambda: len(source.subscriptions) == 1)
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON - week * M, count=50))
        await tell(stream, whole(0, 0))
        first = asked(end_ms=NOON, start_ms=NOON - week * M, reach=Reach.STORED)
        await eventually(lambda: states(tmp_path) == [(-week - 50, 0, "complete", "rest")])
        await storage._database.write(lambda sql: None)
        assert len((await storage.fetch(first)).data) == week
    pages = source.requests[1:]
    assert len(pages) == 51
    assert [page.end_ms for page in pages] == [NOON - n * 200 * M for n in range(51)]
    assert {page.priority for page in pages} == {Priority.LOW}
    assert source.most_at_once == 1


async def test_a_long_seam_goes_on_after_a_restart(
    tmp_path: Path, clock: ManualClock, long_source: FakeExchangeSource
) -> None:
    source = long_source

    async def fail(_: BackboneRequest) -> None:
        if len(source.requests) > 4:
            raise TransportError("cut off")

    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]) as storage:
        await storage.fetch(asked(end_ms=NOON - 2_000 * M, count=50))
        source.before_answer = fail
        await eventually(lambda: len(source.subscriptions) == 1)
        await tell(source.subscriptions[0], whole(0, 0))
        await eventually(lambda: len(source.requests) == 5)
    source.before_answer = None
    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]):
        await eventually(lambda: len(source.subscriptions) == 2)
        await tell(source.subscriptions[1], whole(0, 0))
        await eventually(lambda: states(tmp_path) == [(-2_050, 0, "complete", "rest")])
    assert len(source.requests) == 5 + 7


async def test_what_is_farther_away_than_a_seam_may_be_is_history_that_is_asked_for(
    tmp_path: Path, clock: ManualClock, long_source: FakeExchangeSource
) -> None:
    source, most = long_source, MAX_SEAM_PAGES * 200
    async with opened(tmp_path, source, clock, pinned=[(SYMBOL, Timeframe.M1)]) as storage:
        await eventually(lambda: len(source.subscriptions) == 1)
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON - (most + 1) * M, count=50))
        await tell(stream, whole(0, 0), whole(0, 0))
        await asyncio.sleep(0.05)
        assert len(source.requests) == 1
        await storage.fetch(asked(end_ms=NOON - most * M, count=1))
        await tell(stream, whole(0, 0))
        await eventually(lambda: len(source.requests) == 2 + MAX_SEAM_PAGES)


async def test_one_long_seam_keeps_neither_other_seams_nor_settling_waiting(
    tmp_path: Path, clock: ManualClock, long_source: FakeExchangeSource
) -> None:
    source, other, waits = long_source, "KRW-XRP", True
    async with opened(tmp_path, source, clock, gives_way=lambda: waits) as storage:
        await storage.fetch(asked(end_ms=NOON - 4_000 * M, count=50))
        await storage.fetch(asked(end_ms=NOON - 20 * M, count=50, symbol=other))
        request = BackboneRequest(DataType.CANDLE, (other,), Timeframe.M1)
        with closing(watched(storage)), closing(storage.subscribe(request)):
            stream, second = source.subscriptions
            await tell(stream, whole(-130, -130))
            for minute in range(-130, -20):
                await tell(stream, candle(minute), whole(minute, minute + 1))
            await stored_to(storage, tmp_path, -20)
            begins = utc_datetime(NOON)
            await tell(second, Whole(other, Timeframe.M1, begins, begins))
            await eventually(lambda: second.state == "confirmed")
            waits = False
            await eventually(lambda: len(source.requests) > 10)
    soon = source.requests[2:6]
    assert (other,) in [page.symbols for page in soon]
    assert NOON - 130 * M in [page.start_ms for page in soon], "what is to be settled"


async def test_the_stores_own_pages_wait_while_others_suffer_from_the_load(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    suffers = True
    async with opened(tmp_path, source, clock, gives_way=lambda: suffers) as storage:
        await storage.fetch(asked(end_ms=NOON - 30 * M, count=50))
        with closing(watched(storage)):
            await tell(source.subscriptions[0], whole(0, 0))
            await asyncio.sleep(0.05)
            assert len(source.requests) == 1
            suffers = False
            await eventually(lambda: len(source.requests) == 2)


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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked file is given up soon, and tried again soon."""
    monkeypatch.setattr(database, "BUSY_MS", 10)
    monkeypatch.setattr(live_writes, "AGAIN_S", 0.02)
    monkeypatch.setattr(live_writes, "GATHER_S", 0.0)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another program writes and writes."""
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        yield
        sql.execute("ROLLBACK")


@pytest.mark.usefixtures("impatient")
async def test_candles_that_cannot_be_written_are_written_later_and_none_is_left_out(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(240)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        request = asked(start_ms=NOON, reach=Reach.STORED)
        with locked(tmp_path):
            await tell(stream, candle(1), whole(1, 2))
            await eventually(lambda: storage.status().health == "degraded")
            await tell(stream, whole(2, 3), candle(3), whole(3, 4), candle(4, "forming"))
            response = await storage.fetch(request)
            assert (minutes(response.data), response.metadata.missing) == ([0, 1, 3, 4], ())
        await eventually(lambda: states(tmp_path)[-1][1] == 4)
        assert states(tmp_path) == [
            (0, 2, "complete", "live"),
            (2, 3, "empty", "live"),
            (3, 4, "complete", "live"),
        ]
        assert len(rows_in(tmp_path)) == 3
        await eventually(lambda: storage.status().health == "healthy")
        response = await storage.fetch(request)
        assert (minutes(response.data), response.metadata.missing) == ([0, 1, 3, 4], ())
        assert source.requests == []


@pytest.mark.usefixtures("impatient")
async def test_a_loss_is_known_at_once_and_written_after_what_it_takes_back(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(130)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        request = asked(start_ms=NOON, end_ms=NOON + M, reach=Reach.STORED)
        assert (await storage.fetch(request)).success
        with locked(tmp_path):
            await tell(stream, candle(1), whole(1, 2))
            await eventually(lambda: storage.status().health == "degraded")
            await tell(stream, gap(NOON + 30_000))
            await eventually(lambda: storage._live_writes._gathered)
            response = await storage.fetch(request)
            assert (len(response.data), response.success) == (0, False)
        await eventually(lambda: states(tmp_path) == [(0, 3, "unknown", "live")])
        assert not (await storage.fetch(request)).success


@pytest.mark.usefixtures("impatient")
async def test_of_too_many_that_cannot_be_written_the_oldest_are_asked_for_as_a_seam(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    many = MAX_UNWRITTEN + 40
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(60 * many)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        with locked(tmp_path):
            for minute in range(1, many):
                await tell(stream, candle(minute), whole(minute, minute + 1))
            await eventually(lambda: storage.status().health == "degraded")
            response = await storage.fetch(asked(start_ms=NOON, reach=Reach.STORED))
            assert minutes(response.data) == [0, *range(many - MAX_UNWRITTEN, many)]
            assert response.metadata.missing, "they are not held, and not called silent"
        await tell(stream, candle(many), whole(many, many + 1))
        clock.advance(60)
        whole_now = [(0, many + 1, "complete")]
        await eventually(lambda: proved(tmp_path) == whole_now)
        (seam,) = [page for page in source.requests if page.start_ms == NOON + M]
        assert seam.count in range(30, 42)
        response = await storage.fetch(
            asked(start_ms=NOON, end_ms=NOON + many * M, reach=Reach.STORED)
        )
        assert minutes(response.data) == list(range(many))


async def test_a_late_trade_revises_what_is_stored_also_after_a_page_was_read(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage) as reader:
        (stream,) = source.subscriptions
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        await storage.fetch(asked(end_ms=NOON + M, count=5))
        assert states(tmp_path) == [(-4, 1, "complete", "rest")]
        heard: list[Any] = []
        storage._on_revised = lambda *told: heard.append(told)
        assert storage.status().counters["revisions"] == 0, "the page says the same"
        await tell(stream, candle(0, "revised", volume=99.0))
        await eventually(lambda: rows_in(tmp_path)[-1][5] == 99.0)
        counters = storage.status().counters
        assert (counters["revisions"], counters["restated"]) == (1, 0)
        assert heard == [(SYMBOL, Timeframe.M1, [NOON], "a trade came late")]
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
        assert counters["revisions"] == 3
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


async def test_a_fault_of_ours_in_one_page_does_not_end_the_reading_of_others(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def break_down(request: BackboneRequest) -> None:
        if request.symbols == (SYMBOL,):
            raise KeyError("a bug")

    other = BackboneRequest(DataType.CANDLE, ("KRW-XRP",), Timeframe.M1)
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        with closing(storage.subscribe(other)):
            stream, second = source.subscriptions
            clock.advance(60)
            await tell(stream, whole(0, 0), candle(0), whole(0, 1))
            await stored_to(storage, tmp_path, 1)
            begins, ends = utc_datetime(NOON), utc_datetime(NOON + M)
            await tell(second, Whole("KRW-XRP", Timeframe.M1, begins, ends))
            await eventually(lambda: len(states(tmp_path)) == 2)
            source.before_answer = break_down
            clock.advance(3_600)
            await eventually(lambda: "rest" in [state[3] for state in states(tmp_path)])
        assert [page.symbols for page in source.requests] == [(SYMBOL,), ("KRW-XRP",)]
        assert storage.status().health == "degraded"
        assert "a bug" in storage.status().reason


async def test_a_fault_of_ours_between_pages_does_not_end_the_reading(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        with monkeypatch.context() as broken:
            broken.setattr(Settling, "due", broken_by_us)
            await eventually(lambda: storage.status().health == "degraded")
            await asyncio.sleep(0.05)
        assert len(caplog.records) == 1, "not one a look"
        clock.advance(3_660)
        await eventually(lambda: states(tmp_path)[0][3] == "rest")


async def test_a_series_that_is_not_known_any_more_is_asked_less_and_less(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async def refuse(_: BackboneRequest) -> None:
        raise UnknownSymbolError(SYMBOL)

    source.listed = (market(SYMBOL),)
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        clock.advance(60)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1))
        await stored_to(storage, tmp_path, 1)
        source.before_answer = refuse
        clock.advance(3_600)
        await eventually(lambda: len(source.requests) == 1)
        for minutes_later, asked_by_then in ((1, 2), (1, 2), (1, 3), (3, 3), (1, 4)):
            clock.advance(60 * minutes_later)
            await asyncio.sleep(0.03)
            assert len(source.requests) == asked_by_then, minutes_later


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
