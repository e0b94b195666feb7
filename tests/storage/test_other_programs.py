"""Two programs on one file: what the other one writes is taken over, steadily and by little."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource
from tests.storage.opening import rows_in
from tests.storage.test_whole_answers import (
    KEY,
    NOON,
    HeldReads,
    M,
    at_once,
    candle,
    committed,
    missing,
    opens,
    page,
    quiet,
    said,
    stored,
    tell_live,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.storage import other_programs
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import REST, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans, read_coverage
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.other_programs import OtherPrograms
from upbit_backbone.storage.series_memory import MemoryTier
from upbit_backbone.storage.storage import Storage

__all__ = ["at_once"]
"""A fixture that all of these tests use."""

OTHER = SeriesKey("KRW-ETH", Timeframe.M1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON + 60 * M)


@pytest.fixture
def source(clock: ManualClock) -> FakeExchangeSource:
    return FakeExchangeSource(clock, [NOON + n * M for n in range(-300, 60)])


def has_read(storage: Storage, before: int) -> bool:
    return storage._others.readings > before


async def proved(storage: Storage, key: SeriesKey, minute: int) -> None:
    span = KnownSpan(NOON + minute * M, NOON + (minute + 1) * M, "empty", "", REST, minute + 1)
    await storage._database.write(lambda sql: put_spans(sql, key, [span]))


async def test_however_often_another_program_writes_one_reading_of_the_ledger_is_under_way(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        reads = HeldReads(mine, monkeypatch)
        for minute in range(0, 40, 2):
            await proved(other, OTHER, minute)
            # An own commit notices each of them.
            await mine.fetch(page(minute, minute + 1))
        assert len(reads.held) == 1
        assert len(mine._others._tasks._tasks) == 1
        reads.release()
        # What came meanwhile is not forgotten, and own pages are not undone.
        await eventually(lambda: len(mine._known(OTHER)) == 20)
        assert (await mine.fetch(stored(38, 39))).success
        await eventually(lambda: not mine._others._tasks._tasks)
        assert mine._others.readings <= 2 * other_programs.TRIES


async def test_what_is_committed_here_while_the_ledger_is_read_is_not_undone(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        reads = HeldReads(mine, monkeypatch)
        await mine.fetch(page(0, 5))
        await proved(other, OTHER, 0)
        await proved(mine, OTHER, 50)
        await eventually(lambda: reads.held)
        # Older than these: a page, and a loss.
        await mine.fetch(page(5, 10))
        tell_live(mine, clock, said(20, 21, "complete", clock), candle(20))
        tell_live(mine, clock, said(20, 22, "unknown", clock))
        await committed(mine)
        reads.arrive()
        await eventually(lambda: len(mine._known(OTHER)))
        reads.release()
        assert opens(await mine.fetch(stored(0, 10))) == set(range(10))
        assert not (await mine.fetch(stored(20, 21))).success


async def test_only_series_that_another_program_has_changed_leave_memory(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        await mine.fetch(page(0, 10))
        held = mine.status().counters["memory_bytes"]
        assert held
        await proved(other, OTHER, 0)
        await proved(mine, OTHER, 50)
        await eventually(lambda: mine._known(OTHER).at(NOON))
        assert mine.status().counters["memory_bytes"] == held
        # Of one that it has restated nothing old is told.
        tell_live(other, clock, said(3, 4, "complete", clock), candle(3, "revised", 777.0))
        await committed(other)
        await proved(mine, OTHER, 52)
        await eventually(lambda: not mine._series(KEY).loaded)
        response = await mine.fetch(stored(0, 10))
        assert response.data.volume[3] == 777.0
        assert response.data.volume.tolist() == [row[5] for row in rows_in(tmp_path)]


async def test_of_two_streams_that_differ_the_one_holds_that_is_in_the_file(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        for storage, volume in ((mine, 9.0), (other, 1.0)):
            # In the same millisecond: the ledger does not change by it.
            span = said(3, 4, "complete", clock)
            tell_live(storage, clock, span, candle(3, volume=volume))
            await committed(storage)
        await proved(mine, OTHER, 50)
        await eventually(lambda: not mine._series(KEY).loaded)
        assert (await mine.fetch(stored(3, 4))).data.volume.tolist() == [1.0]


async def test_a_candle_that_was_on_its_way_when_another_stream_differed_is_read_again(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        tell_live(mine, clock, said(3, 4, "complete", clock), candle(3, volume=9.0))
        await committed(mine)
        mine._series(KEY).drop()
        reads = HeldReads(mine, monkeypatch)
        answer = asyncio.create_task(mine.fetch(stored(3, 4)))
        await eventually(lambda: reads.held)
        reads.holding = False
        tell_live(other, clock, said(3, 4, "complete", clock), candle(3, volume=1.0))
        await committed(other)
        await proved(mine, OTHER, 50)
        await eventually(lambda: mine._others.readings)
        await eventually(lambda: not mine._others._tasks._tasks)
        reads.release()
        assert (await answer).data.volume.tolist() == [1.0]


async def test_a_ledger_that_cannot_be_read_is_read_later(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        reads = HeldReads(mine, monkeypatch)
        reads.holding, reads.fails = False, True
        await proved(other, OTHER, 0)
        await proved(mine, OTHER, 50)
        await eventually(lambda: "disk I/O error" in caplog.text)
        reads.fails = False
        await eventually(lambda: mine._known(OTHER).at(NOON))
        in_file: dict[SeriesKey, Any] = await mine._database.read(read_coverage)
        assert len(in_file[OTHER]) == 2


async def test_a_loss_that_cannot_be_written_yet_is_not_taken_back_by_another_programs_commit(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        for minute in range(5):
            tell_live(mine, clock, said(minute, minute + 1, "complete", clock), candle(minute))
        await committed(mine)
        assert opens(await mine.fetch(stored(0, 5))) == set(range(5))
        await proved(other, OTHER, 0)
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as third:
            third.execute("BEGIN IMMEDIATE")
            tell_live(mine, clock, said(2, 5, "unknown", clock))
            assert opens(await mine.fetch(stored(0, 5))) == {0, 1}
            for _ in range(2):
                readings = mine._others.readings
                mine._others.have_written()
                await eventually(partial(has_read, mine, readings))
            # It follows in the file what the other one has written, and keeps to what it lost.
            await eventually(lambda: mine._known(OTHER).at(NOON))
            response = await mine.fetch(stored(0, 5))
            assert (opens(response), missing(response)) == ({0, 1}, {2, 3, 4})
            third.execute("ROLLBACK")
        await committed(mine)
        assert [one.state for one in await spans_of(mine, KEY)] == ["complete", "unknown"]
        assert mine._live_writes.losses() == {}


async def spans_of(storage: Storage, key: SeriesKey) -> list[KnownSpan]:
    in_file = await storage._database.read(read_coverage)
    return list(in_file[key])


async def test_live_candles_that_no_other_program_has_changed_stay_in_memory(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:
        for minute in range(0, 6, 2):
            tell_live(mine, clock, said(minute, minute + 1, "complete", clock), candle(minute))
            tell_live(mine, clock, said(minute + 1, minute + 2, "empty", clock))
        await committed(mine)
        assert opens(await mine.fetch(stored(0, 6))) == {0, 2, 4}
        reads = mine._database_reads
        for minute in range(5):
            readings = mine._others.readings
            await proved(other, OTHER, 2 * minute)
            await proved(mine, SeriesKey("KRW-XRP", Timeframe.M1), 2 * minute)
            await eventually(partial(has_read, mine, readings))
            await eventually(partial(mine._known(OTHER).at, NOON + 2 * minute * M))
        await eventually(lambda: not mine._others._is_due)
        assert opens(await mine.fetch(stored(0, 6))) == {0, 2, 4}
        assert mine._database_reads == reads


async def test_no_turn_of_the_loop_follows_more_than_a_few_series() -> None:
    many = 20 * other_programs.TOGETHER
    coverage = {SeriesKey(f"KRW-T{number}", Timeframe.M1): Coverage() for number in range(many)}
    told: list[SeriesKey] = []
    others = OtherPrograms(
        cast(Any, None),
        coverage,
        MemoryTier(1 << 20),
        known=coverage.__getitem__,
        taken_over=told.append,
        losses=dict,
        empty=cast(Any, None),
        health=cast(Any, None),
        pause_s=0.0,
    )
    span = KnownSpan(NOON, NOON + M, "complete", "", REST, NOON)
    following = asyncio.create_task(
        others._take_over({key: Coverage([span]) for key in coverage}, dict.fromkeys(coverage, 0))
    )
    in_turn = []
    while not following.done():
        before = len(told)
        await asyncio.sleep(0)
        in_turn.append(len(told) - before)
    assert await following
    assert len(told) == many
    # A turn of this loop may see what happened in two.
    assert max(in_turn) <= 2 * other_programs.TOGETHER


async def test_an_unexpected_error_is_told_and_the_file_is_followed_later(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with quiet(tmp_path, source, clock) as mine, quiet(tmp_path, source, clock) as other:

        async def fails(work: Any) -> Any:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(mine._database, "read", fails)
            await proved(other, OTHER, 0)
            await proved(mine, OTHER, 50)
            await eventually(lambda: mine.status().health == "degraded")
        await eventually(lambda: mine._known(OTHER).at(NOON))
        await eventually(lambda: mine.status().health == "healthy")
    assert caplog.text.count("is not taken over yet") == 1
