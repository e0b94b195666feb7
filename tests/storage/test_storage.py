"""What the store answers, what it asks for, and what it believes to be proved."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import (
    SYMBOL,
    FakeExchangeSource,
    asked,
    market,
    row_of,
    series_of,
)
from tests.storage.opening import coverage_in, opened, rows_in
from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.errors import InvalidRequestError, StorageOriginError, TransportError
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    BackboneRequest,
    BackboneResponse,
    DataType,
    Reach,
)
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.storage import Storage

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS
M = MINUTE_MS
AN_HOUR_OF_MINUTES = [NOON - n * M for n in range(60)]


def opens(response: BackboneResponse) -> list[int]:
    return list(response.data.time.tolist())


def minutes(series: CandleSeries) -> list[int]:
    """Minutes after noon."""
    return [(at - NOON) // M for at in series.time.tolist()]


def holes(response: BackboneResponse) -> list[tuple[int | None, int | None]]:
    """Missing spans, in minutes after noon."""

    def minute(at: object) -> int | None:
        return None if at is None else round((at.timestamp() * 1_000 - NOON) / M)  # type: ignore[attr-defined]

    return [(minute(span.start), minute(span.end)) for span in response.metadata.missing]


def stored(
    start_ms: int | None, end_ms: int | None, count: int | None = None, max_age: float = 10.0
) -> BackboneRequest:
    return asked(start_ms=start_ms, end_ms=end_ms, count=count, reach=Reach.STORED, max_age=max_age)


def peeked(
    storage: Storage,
    clock: ManualClock,
    start_ms: int | None,
    end_ms: int | None,
    count: int | None,
    max_age: float = 10.0,
) -> CandleSeries | None:
    return storage.peek(
        DataType.CANDLE, SYMBOL, Timeframe.M1, start_ms, end_ms, count, max_age, clock.monotonic()
    )


@pytest.fixture
def noon() -> ManualClock:
    """Half a minute past noon."""
    return ManualClock(NOON + 30 * SECOND_MS)


@pytest.mark.both_loops
async def test_a_stored_request_never_causes_another_one(tmp_path: Path, noon: ManualClock) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        for request in (
            stored(NOON - 9 * M, NOON),
            stored(None, NOON, 5),
            stored(None, None, 5),
            stored(NOON - 9 * M, None),
        ):
            response = await storage.fetch(request)
            assert not response.success
            assert len(response.data) == 0
        assert source.requests == []
        assert holes(await storage.fetch(stored(NOON - 9 * M, NOON))) == [(-9, 0)]
        assert holes(await storage.fetch(stored(None, NOON, 5))) == [(None, 0)]


@settings(max_examples=60)
@given(
    existing=st.sets(st.integers(-90, 5), min_size=1),
    end=st.integers(-70, 6),
    count=st.integers(1, 80),
    start=st.none() | st.integers(1, 40),
    second=st.integers(0, 59_999),
)
async def test_a_page_proves_exactly_from_its_oldest_candle_to_the_last_one_closed_for_5_s(
    existing: set[int], end: int, count: int, start: int | None, second: int
) -> None:
    clock = ManualClock(NOON + second)
    source = FakeExchangeSource(clock, [NOON + n * M for n in existing])
    now_ms, end_ms = clock.now_ms(), NOON + end * M
    start_ms = None if start is None else end_ms - start * M
    page = [at for at in source.existing() if at < end_ms][-count:]
    closed_ms = (now_ms - 5_000) // M * M
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder), source, clock) as storage:
            response = await storage.fetch(asked(start_ms=start_ms, end_ms=end_ms, count=count))
            assert opens(response) == page
            top = min(end_ms, closed_ms)
            proved = [(page[0], top)] if page and page[0] < top else []
            again = await storage.fetch(stored(NOON - 100 * M, top))
            known = [at for at in page if at < top]
            assert opens(again) == known
        assert coverage_in(Path(folder)) == proved
        assert [row[0] for row in rows_in(Path(folder))] == known
        # The rows in the file are whole: none was read while it was forming.
        assert rows_in(Path(folder)) == [row_of(Timeframe.M1, at, 2**50) for at in known]


@pytest.mark.parametrize("second", [0, 1, 4, 5, 6, 59])
async def test_a_candle_is_proved_only_when_it_was_read_5_s_after_its_end(
    tmp_path: Path, second: int
) -> None:
    clock = ManualClock(NOON + second * SECOND_MS)
    source = FakeExchangeSource(clock, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON + M, count=10))
    proved_to = NOON if second >= 5 else NOON - M
    assert coverage_in(tmp_path) == [(NOON - 9 * M, proved_to)]


async def test_a_page_is_judged_by_the_moment_before_it_was_asked(tmp_path: Path) -> None:
    clock = ManualClock(NOON - 1 * SECOND_MS)
    source = FakeExchangeSource(clock, AN_HOUR_OF_MINUTES)

    async def slow_answer(_: BackboneRequest) -> None:
        clock.advance(20)

    source.after_read = slow_answer
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON, count=10))
    assert coverage_in(tmp_path) == [(NOON - 10 * M, NOON - M)]


async def test_a_page_that_another_caller_had_asked_earlier_is_judged_by_that_moment(
    tmp_path: Path,
) -> None:
    clock = ManualClock(NOON + 8 * SECOND_MS)
    source = FakeExchangeSource(clock, AN_HOUR_OF_MINUTES)
    source.age_s = 6.0
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON, count=10))
    assert coverage_in(tmp_path) == [(NOON - 10 * M, NOON - M)]


async def test_a_local_clock_that_runs_ahead_proves_nothing_that_is_still_forming(
    tmp_path: Path,
) -> None:
    """The first answer teaches the exchange's time: what it proves is judged by that."""
    exchange, local = ManualClock(NOON + 30 * SECOND_MS), ManualClock(NOON + 30 * SECOND_MS)
    local.set_wall(local.now_ms() + 10 * M)
    source = FakeExchangeSource(exchange, AN_HOUR_OF_MINUTES)

    async def learn(_: BackboneRequest) -> None:
        local.set_wall(exchange.now_ms())

    source.after_read = learn
    async with opened(tmp_path, source, local) as storage:
        await storage.fetch(asked(end_ms=NOON + 5 * M, count=10))
    assert coverage_in(tmp_path) == [(NOON - 9 * M, NOON)]


async def test_unaligned_ends_name_the_candles_that_open_in_between(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON - 20 * M, count=20))
        for start, end, expected in (
            (-30 * M + 1, -25 * M, [-29, -28, -27, -26]),
            (-30 * M, -25 * M + 1, [-30, -29, -28, -27, -26, -25]),
            (-30 * M - 1, -28 * M - 1, [-30, -29]),
            (-30 * M + 1, -30 * M + 2, []),
        ):
            response = await storage.fetch(stored(NOON + start, NOON + end))
            assert response.success
            assert minutes(response.data) == expected
            held = peeked(storage, noon, NOON + start, NOON + end, None)
            assert held is not None
            assert minutes(held) == expected


async def test_periods_without_trades_are_proved_and_stay_so_after_reopening(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - 50 * M, NOON - 20 * M, NOON - 19 * M])
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(start_ms=NOON - 45 * M, end_ms=NOON - 10 * M, count=35))
        response = await storage.fetch(stored(NOON - 49 * M, NOON - 21 * M))
        assert response.success
        assert len(response.data) == 0
    async with opened(tmp_path, source, noon) as storage:
        response = await storage.fetch(stored(NOON - 50 * M, NOON - 10 * M))
        assert response.success
        assert response.metadata.source == "storage"
        assert minutes(response.data) == [-50, -20, -19]
        assert len(source.requests) == 1


async def test_what_lies_below_a_short_or_empty_page_stays_unknown(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - 20 * M])
    async with opened(tmp_path, source, noon) as storage:
        short = await storage.fetch(asked(start_ms=NOON - 30 * M, end_ms=NOON, count=30))
        assert (short.success, short.error) == (False, None)
        assert holes(short) == [(-30, -20)]
        assert short.metadata.reason == "unconfirmed"
        empty = await storage.fetch(asked(end_ms=NOON - 25 * M, count=3))
        assert holes(empty) == [(None, -25)]
        nothing = await storage.fetch(asked(start_ms=NOON - 40 * M, end_ms=NOON - 30 * M, count=10))
        assert holes(nothing) == [(-40, -30)]
    assert coverage_in(tmp_path) == [(NOON - 20 * M, NOON)]


async def test_a_request_by_count_walks_proof_down_to_the_first_hole(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON - 10 * M, count=5))
        await storage.fetch(asked(end_ms=NOON - 20 * M, count=5))
        whole = await storage.fetch(stored(None, NOON - 10 * M, 5))
        assert whole.success
        assert minutes(whole.data) == [-15, -14, -13, -12, -11]
        partly = await storage.fetch(stored(None, NOON - 11 * M, 9))
        assert minutes(partly.data) == [-15, -14, -13, -12]
        assert holes(partly) == [(None, -15)]


async def test_fresh_rows_are_answered_while_they_are_fresh_and_never_reach_the_file(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON + M, count=10))
        noon.advance(4)
        assert (await storage.fetch(stored(None, None, 3))).metadata.age_s == 4.0
        assert (await storage.fetch(stored(None, NOON, 3))).metadata.age_s is None
        for max_age, fresh in ((5.0, True), (4.0, True), (3.0, False)):
            held = peeked(storage, noon, None, None, 3, max_age)
            assert (held is not None) is fresh
            response = await storage.fetch(stored(None, None, 3, max_age))
            assert response.success is fresh
            if held is not None:
                assert minutes(held) == [-2, -1, 0]
                assert held.closed.tolist() == [True, True, False]
        # What is proved needs no freshness.
        assert peeked(storage, noon, None, NOON, 3, 0.0) is not None
    assert [row[0] for row in rows_in(tmp_path)][-1] == NOON - M


async def test_a_forming_candle_is_not_sold_as_closed_once_its_period_is_over(
    tmp_path: Path,
) -> None:
    """Fresh enough by age, but read before its end: a question about the past gets no such row."""
    clock = ManualClock(NOON + 58 * SECOND_MS)
    source = FakeExchangeSource(clock, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON + M, count=10))
        clock.advance(4)
        for start, end, count in ((None, NOON + M, 3), (NOON - 2 * M, NOON + M, None)):
            assert peeked(storage, clock, start, end, count) is None
            response = await storage.fetch(stored(start, end, count))
            assert NOON not in opens(response)
            assert not response.success
        # Neither does a question about now: the candle may have closed, another one has begun.
        assert peeked(storage, clock, None, None, 3) is None
        response = await storage.fetch(stored(None, None, 3))
        assert holes(response) == [(None, 2)]


async def test_a_period_that_was_empty_when_read_may_have_filled_since(tmp_path: Path) -> None:
    clock = ManualClock(NOON + 55 * SECOND_MS)
    source = FakeExchangeSource(clock, [NOON - M, NOON - 2 * M])
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON + M, count=2))
        clock.advance(8)
        source.opens.add(NOON)
        assert peeked(storage, clock, NOON - 2 * M, NOON + M, None) is None
        response = await storage.fetch(stored(NOON - 2 * M, NOON + M))
        assert holes(response) == [(0, 1)]


@pytest.mark.parametrize("newer_to", [NOON, NOON + M])
async def test_an_answer_that_comes_late_does_not_undo_a_newer_one(
    tmp_path: Path, newer_to: int
) -> None:
    clock = ManualClock(NOON - 10 * SECOND_MS)
    source = FakeExchangeSource(clock, AN_HOUR_OF_MINUTES)
    release = asyncio.Event()

    async def hold_the_first(request: BackboneRequest) -> None:
        if request.count == 9:
            await release.wait()

    source.after_read = hold_the_first
    async with opened(tmp_path, source, clock) as storage:
        slow = asyncio.create_task(storage.fetch(asked(end_ms=NOON, count=9)))
        await eventually(lambda: source.requests)
        clock.advance(30)
        await storage.fetch(asked(end_ms=newer_to, count=10))
        release.set()
        await slow
        # Of the minute that has begun since, the late answer says nothing.
        for end in (NOON, None) if newer_to > NOON else (NOON,):
            held = peeked(storage, clock, NOON - 3 * M, end, None)
            assert held is not None
            known = held.between(None, NOON)
            assert minutes(known) == [-3, -2, -1]
            assert known == series_of(Timeframe.M1, known.time.tolist(), clock.now_ms())
    assert coverage_in(tmp_path)[-1][1] == NOON


async def test_the_age_of_fresh_rows_counts_from_their_receipt_and_not_from_the_write(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        begun, go_on = threading.Event(), threading.Event()

        def busy(sql: Sql) -> None:
            begun.set()
            assert go_on.wait(5)

        writing = asyncio.create_task(storage._database.write(busy))
        await eventually(begun.is_set)
        page = asyncio.create_task(storage.fetch(asked(end_ms=NOON + M, count=10)))
        await eventually(lambda: not storage._database._queue.empty())
        noon.advance(8)
        go_on.set()
        await asyncio.gather(writing, page)
        assert peeked(storage, noon, None, None, 3, 5.0) is None
        assert peeked(storage, noon, None, None, 3, 10.0) is not None


async def test_memory_answers_without_the_file_and_says_so(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON, count=20))
        response = await storage.fetch(stored(NOON - 10 * M, NOON))
        assert (response.metadata.source, response.metadata.cache_hit) == ("cache", True)
        assert response.metadata.source_layer == "layer_2"
        assert storage.status().counters["database_reads"] == 0
    async with opened(tmp_path, source, noon) as storage:
        assert peeked(storage, noon, None, NOON, 10) is None
        for _ in range(2):
            response = await storage.fetch(stored(None, NOON, 10))
            assert minutes(response.data) == list(range(-10, 0))
        assert response.metadata.source == "cache"
        assert storage.status().counters["database_reads"] == 1
        assert peeked(storage, noon, None, NOON, 10) is not None


async def test_the_least_recently_used_series_leaves_memory_first(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    symbols = ("KRW-AAA", "KRW-BBB", "KRW-CCC")
    async with opened(tmp_path, source, noon, memory_limit_bytes=58 * 50) as storage:
        for symbol in symbols:
            await storage.fetch(asked(end_ms=NOON, count=20, symbol=symbol))
            await storage.fetch(asked(end_ms=NOON, count=20, symbol=symbol, reach=Reach.STORED))

        def held() -> list[str]:
            return [
                symbol
                for symbol in symbols
                if storage._memory._series[symbol, Timeframe.M1].size_bytes  # type: ignore[index]
            ]

        assert held() == ["KRW-BBB", "KRW-CCC"]
        assert storage.status().counters["memory_bytes"] <= 58 * 50
        response = await storage.fetch(
            asked(end_ms=NOON, count=20, symbol="KRW-AAA", reach=Reach.STORED)
        )
        assert minutes(response.data) == list(range(-20, 0))
        assert held() == ["KRW-AAA", "KRW-CCC"]
        assert len(source.requests) == 3


async def test_memory_is_bounded_also_while_pages_arrive(tmp_path: Path, noon: ManualClock) -> None:
    existing = [NOON - n * M for n in range(2_000)]
    source = FakeExchangeSource(noon, existing)
    async with opened(tmp_path, source, noon, memory_limit_bytes=58 * 500) as storage:
        for page in range(10):
            await storage.fetch(asked(end_ms=NOON - page * 200 * M, count=200))
            assert storage.status().counters["memory_bytes"] <= 58 * 500
        response = await storage.fetch(stored(NOON - 1_900 * M, NOON))
        assert response.success
        assert len(response.data) == 1_900


async def test_an_answer_is_whole_although_memory_is_cleared_while_it_is_read(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON - 30 * M, count=20))
        await storage.fetch(asked(end_ms=NOON - 5 * M, count=10))
    async with opened(tmp_path, source, noon, memory_limit_bytes=58 * 25) as storage:
        await storage.fetch(stored(NOON - 50 * M, NOON - 40 * M))
        begun, go_on = threading.Event(), threading.Event()

        def busy(sql: Sql) -> None:
            begun.set()
            assert go_on.wait(5)

        reading = asyncio.create_task(storage._database.read(busy))
        await eventually(begun.is_set)
        whole = asyncio.create_task(storage.fetch(stored(NOON - 50 * M, NOON - 5 * M)))
        await asyncio.sleep(0)
        # Meanwhile another series needs the room.
        other = series_of(Timeframe.M1, AN_HOUR_OF_MINUTES, noon.now_ms())
        source.opens = set(other.time.tolist())
        await storage.fetch(asked(end_ms=NOON, count=30, symbol="KRW-AAA"))
        storage._memory.shrink()
        go_on.set()
        await reading
        response = await whole
        assert holes(response) == [(-30, -15)]
        assert minutes(response.data) == [*range(-50, -30), *range(-15, -5)]


async def test_a_write_whose_caller_left_still_counts_as_known(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        begun, go_on = threading.Event(), threading.Event()

        def busy(sql: Sql) -> None:
            begun.set()
            assert go_on.wait(5)

        writing = asyncio.create_task(storage._database.write(busy))
        await eventually(begun.is_set)
        page = asyncio.create_task(storage.fetch(asked(end_ms=NOON, count=20)))
        await eventually(lambda: not storage._database._queue.empty())
        page.cancel()
        await asyncio.wait([page])
        go_on.set()
        await writing
        await storage._database.write(lambda sql: None)
        response = await storage.fetch(stored(NOON - 20 * M, NOON))
        assert response.success
        assert minutes(response.data) == list(range(-20, 0))


async def test_a_store_that_cannot_write_still_answers_says_so_and_recovers(
    tmp_path: Path, noon: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = FakeExchangeSource(noon, [NOON - n * M for n in range(2_000)])
    async with opened(tmp_path, source, noon) as storage:
        assert storage.status().health == "healthy"

        def cap(sql: Sql) -> None:
            sql.execute(f"PRAGMA max_page_count = {sql.execute('PRAGMA page_count').fetchone()[0]}")

        await storage._database.write(cap)
        since = storage.status().since
        noon.advance(1)
        for page in range(4):
            response = await storage.fetch(asked(end_ms=NOON - page * 200 * M, count=200))
            assert len(response.data) == 200
        assert storage.status().health == "degraded"
        assert "full" in storage.status().reason
        assert storage.status().since > since
        assert caplog.text.count("nothing can be stored") == 1
        # What is not in the file is not known.
        assert holes(await storage.fetch(stored(NOON - 9 * M, NOON))) == [(-9, 0)]
        await storage._database.write(lambda sql: sql.execute("PRAGMA max_page_count = 100000"))
        await storage.fetch(asked(end_ms=NOON, count=200))
        assert storage.status().health == "healthy"
        assert storage.status().reason == ""
        assert "storing works again" in caplog.text
    assert coverage_in(tmp_path) == [(NOON - 200 * M, NOON)]


async def test_a_file_that_cannot_be_read_costs_the_memory_and_not_the_answer(
    tmp_path: Path, noon: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON, count=20))
    async with opened(tmp_path, source, noon) as storage:
        await storage._database.write(lambda sql: sql.execute("DROP TABLE candles_KRW_BTC_1m"))
        for request in (stored(NOON - 9 * M, NOON), stored(None, NOON, 9)):
            response = await storage.fetch(request)
            assert not response.success
            assert len(response.data) == 0
        assert storage.status().health == "degraded"
        assert "no such table" in storage.status().reason
        await storage.fetch(asked(end_ms=NOON, count=20))
        assert (await storage.fetch(stored(NOON - 9 * M, NOON))).success


async def test_the_mark_of_an_exchange_is_stored_with_its_first_rows(
    tmp_path: Path, noon: ManualClock
) -> None:
    origin = Origin("local")
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES, origin=origin, mark="box 7")
    async with opened(tmp_path, source, noon, origin=origin) as storage:
        await storage.fetch(asked(end_ms=NOON, count=20))
        response = await storage.fetch(stored(NOON - 40 * M, NOON - 30 * M))
        assert response.data.simulated
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("SELECT value FROM meta WHERE key = 'mark'").fetchone() == ("box 7",)
    origin = Origin("local")
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES, origin=origin, mark="box 8")
    async with opened(tmp_path, source, noon, origin=origin) as storage:
        response = await storage.fetch(stored(NOON - 20 * M, NOON))
        assert response.data.simulated
        with pytest.raises(StorageOriginError):
            await storage.fetch(asked(end_ms=NOON - 30 * M, count=20))
    assert coverage_in(tmp_path) == [(NOON - 20 * M, NOON)]


async def test_the_layers_below_errors_pass_through_and_prove_nothing(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)

    async def fail(_: BackboneRequest) -> None:
        raise TransportError("cut off")

    source.before_answer = fail
    async with opened(tmp_path, source, noon) as storage:
        with pytest.raises(TransportError, match="cut off"):
            await storage.fetch(asked(end_ms=NOON, count=20))
        assert storage.status().health == "healthy"
    assert coverage_in(tmp_path) == []


async def test_a_request_for_candles_names_a_series(tmp_path: Path, noon: ManualClock) -> None:
    async with opened(tmp_path, FakeExchangeSource(noon), noon) as storage:
        for request in (
            BackboneRequest(DataType.CANDLE, (SYMBOL,)),
            BackboneRequest(DataType.CANDLE, (SYMBOL, "KRW-XRP"), Timeframe.M1),
        ):
            with pytest.raises(InvalidRequestError, match="one symbol and a timeframe"):
                await storage.fetch(request)


async def test_everything_but_candles_passes_through(tmp_path: Path, noon: ManualClock) -> None:
    source = FakeExchangeSource(noon)
    source.held[DataType.TICKER, SYMBOL] = "a ticker"
    async with opened(tmp_path, source, noon) as storage:
        ticker = storage.peek(DataType.TICKER, SYMBOL, None, None, None, None, 1.0, 0.0)
        assert ticker == "a ticker"
        response = await storage.fetch(BackboneRequest(DataType.TICKER, (SYMBOL,)))
        assert response.data == ("a ticker",)
        request = BackboneRequest(DataType.TRADE, (SYMBOL,))
        assert storage.subscribe(request) is source.subscriptions[0]


async def test_the_markets_listed_last_are_known_offline(tmp_path: Path, noon: ManualClock) -> None:
    source = FakeExchangeSource(noon)
    source.listed = (market("KRW-BTC"), market("KRW-XRP"))

    async def fail(_: BackboneRequest) -> None:
        raise TransportError("cut off")

    async with opened(tmp_path, source, noon) as storage:
        assert (await storage.markets()).markets == source.listed
    source.before_answer = fail
    async with opened(tmp_path, source, noon) as storage:
        listing = await storage.markets(max_age_s=60.0)
        assert (listing.markets, listing.asked_s) == (source.listed, float("-inf"))
        assert str(listing.error) == "cut off", "it proves of no market that it is not listed"
    async with opened(tmp_path / "new", source, noon) as storage:
        with pytest.raises(TransportError):
            await storage.markets()


async def test_a_store_knows_which_series_it_holds_and_how_it_stands(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, AN_HOUR_OF_MINUTES)
    async with opened(tmp_path, source, noon) as storage:
        assert storage.stored_series() == ()
        await storage.fetch(stored(NOON - 9 * M, NOON))
        assert storage.stored_series() == ()
        await storage.fetch(asked(end_ms=NOON, count=7))
        assert storage.stored_series() == ((SYMBOL, Timeframe.M1),)
        assert storage.status().counters["rows_written"] == 7
    assert storage.status().health == "down"


def test_memory_of_a_series_counts_what_it_holds() -> None:
    from upbit_backbone.storage.series_memory import BYTES_PER_CANDLE, SeriesMemory
    from upbit_backbone.storage.spans import Range, SpanSet

    empty = series_of(Timeframe.M1, [], DAY_MS)
    memory = SeriesMemory(empty, SpanSet())
    for start in (0, 5, 3):
        part = series_of(Timeframe.M1, [(start + n) * M for n in range(5)], 2**50)
        memory.put(part, Range(start * M, (start + 5) * M))
    answer = memory.answer(memory.loaded, 0, 10 * M, None, now_ms=0, fresh_since_s=0.0)
    assert len(answer.rows) == 10
    assert memory.size_bytes == 10 * BYTES_PER_CANDLE
    memory.drop()
    assert memory.size_bytes == 0
