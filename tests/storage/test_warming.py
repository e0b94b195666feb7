"""What is brought into memory without asking anybody, and what another program wrote."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened
from tests.storage.test_live_candles import candle, tell, watched, whole
from upbit_backbone.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import DataType, Reach
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.storage import Storage

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * 60 * M
KEY = (SYMBOL, Timeframe.M1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


@pytest.fixture
def source(clock: ManualClock) -> FakeExchangeSource:
    return FakeExchangeSource(clock, [NOON - n * M for n in range(500)])


def peeked(storage: Storage, clock: ManualClock, count: int) -> int | None:
    held = storage.peek(
        DataType.CANDLE, SYMBOL, Timeframe.M1, None, NOON, count, 2.0, clock.monotonic()
    )
    return None if held is None else len(held)


async def test_a_warm_store_answers_from_memory_what_it_had_before(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        assert await storage.warm_up_cache(["KRW-BTC"]) == 0
        await storage.fetch(asked(end_ms=NOON, count=200))
    async with opened(tmp_path, source, clock) as storage:
        assert peeked(storage, clock, 200) is None
        assert await storage.warm_up_cache(["KRW-BTC"]) == 200
        assert peeked(storage, clock, 200) == 200
        counters = storage.status().counters
        assert counters["candles_from_blocks"] + counters["candles_from_rows"] == 200
    assert len(source.requests) == 1


async def test_what_is_loose_comes_from_rows_and_what_is_sealed_from_blocks(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON, count=30))
    for page, tier in ((30, "candles_from_rows"), (200, "candles_from_blocks")):
        async with opened(tmp_path, source, clock) as storage:
            await storage.fetch(asked(end_ms=NOON, count=page))
        async with opened(tmp_path, source, clock) as storage:
            found = await storage.get_with_fallback(KEY)
            assert found is not None
            assert len(found) == storage.status().counters[tier] == page


async def test_filling_memory_builds_nothing_settles_nothing_and_asks_nobody(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON, count=200))
    source.timeframe = Timeframe.H1
    source.opens = {NOON - n * HOUR_MS for n in range(1, 3)}
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(Timeframe.H1, end_ms=NOON - HOUR_MS, count=1))
        room = iter([1, 0])
        assert await storage.warm_up_cache(most=lambda: next(room)) < 201, "the load has risen"
        assert await storage.warm_up_cache() == 201
        counters = storage.status().counters
        assert (counters["built"], counters["misses"]) == (0, 0)
    assert len(source.requests) == 2


async def test_what_is_proved_does_not_age_and_what_is_not_is_forgotten_after_a_minute(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    now = asked(start_ms=NOON - 5 * M, reach=Reach.STORED, max_age=1e9)
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON + M, count=20))
        clock.advance(20)
        held = storage._memory.get(SeriesKey(*KEY))
        assert held is not None
        assert held.tail is not None
        assert (await storage.fetch(now)).success
        clock.advance(41)
        assert not (await storage.fetch(now)).success
        assert held.tail is None
        clock.advance(30 * 86_400)
        assert peeked(storage, clock, 19) == 19
    assert len(source.requests) == 1


async def test_memory_blocks_and_rows_are_asked_in_turn_and_nobody_else(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with opened(tmp_path, source, clock) as storage:
        assert await storage.get_with_fallback(KEY) is None
        await storage.fetch(asked(end_ms=NOON, count=50))
    async with opened(tmp_path, source, clock) as storage:
        for reads in (1, 1):
            found = await storage.get_with_fallback(KEY, count=20)
            assert found is not None
            assert found.time.tolist() == [NOON - n * M for n in range(20, 0, -1)]
            assert storage.status().counters["database_reads"] == reads
        assert storage.status().counters["memory_hits"] == 1
    assert len(source.requests) == 1


async def test_what_another_program_proved_is_not_asked_again(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    request = asked(end_ms=NOON, count=50, reach=Reach.STORED)
    async with opened(tmp_path, source, clock) as storage:
        assert not (await storage.fetch(request)).success
        async with opened(tmp_path, source, clock) as other:
            await other.fetch(asked(end_ms=NOON, count=50))
        await storage._database.write(lambda sql: None)
        await eventually(lambda: storage.stored_series())
        response = await storage.fetch(request)
        assert response.success
        assert len(response.data) == 50
    assert len(source.requests) == 1


async def test_live_candles_are_answered_while_the_file_cannot_be_written(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON, count=20))
        await storage._database.write(lambda sql: sql.execute("PRAGMA query_only = 1"))
        clock.advance(35)
        await tell(stream, whole(0, 0), candle(0), whole(0, 1), candle(1, "forming"))
        await eventually(lambda: storage.status().health == "degraded")
        response = await storage.fetch(asked(start_ms=NOON - 5 * M, reach=Reach.STORED))
        assert response.success
        assert response.data.time.tolist() == [NOON + n * M for n in range(-5, 2)]
    assert "nothing can be stored" in caplog.text
