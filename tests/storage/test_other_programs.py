"""Two programs on one file: what the other one writes is taken over, steadily and by little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from upbit_backbone.storage.coverage import REST, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans, read_coverage
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
