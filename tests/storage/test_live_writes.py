"""Many streams at once: what they prove goes to the file together, and nobody is held up by it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.opening import rows_in, spans_in
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.errors import StorageOriginError
from upbit_backbone.models import Candle, CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage import live_writes
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import LIVE, KnownSpan
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.live_candles import LiveProof, LiveSeries
from upbit_backbone.storage.live_writes import LiveWrite, LiveWrites

SERIES = 100
NAN = float("nan")


def series_named(number: int) -> LiveSeries:
    key = SeriesKey(f"KRW-T{number:03}", Timeframe.M1)
    return LiveSeries(key, CandleSeries.empty(*key, source="storage", simulated=False))


def closing(live: LiveSeries, minute: int, *, price: float = 5.0) -> LiveProof:
    """One candle that closed."""
    at_ms = minute * MINUTE_MS
    prices = (price, price, price, price)
    candle = Candle(*live.key, utc_datetime(at_ms), *prices, 1.0, price, True)
    span = KnownSpan(at_ms, at_ms + MINUTE_MS, "complete", "", LIVE, at_ms + MINUTE_MS)
    return LiveProof((candle,), (span,))


class Opened:
    """A file, its writer of live candles, and what was told of commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(folder, Origin("test"))
        self.health = FileHealth(ManualClock())
        self.told: list[list[LiveWrite]] = []
        self.transactions = 0
        self.writes = LiveWrites(self.database, health=self.health, committed=self._committed)

    def _committed(self, writes: Sequence[LiveWrite]) -> None:
        self.told.append(list(writes))

    @property
    def stored(self) -> int:
        return sum(write.stored for piece in self.told for write in piece)

    async def open(self) -> None:
        await self.database.open()
        run = self.database._transaction

        def counting(sql: Any, works: Any) -> Any:
            self.transactions += 1
            return run(sql, works)

        self.database._transaction = counting  # type: ignore[method-assign]

    async def close(self) -> None:
        await self.writes.close()
        await self.database.close()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Opened]:
    one = Opened(folder)
    try:
        await one.open()
        yield one
    finally:
        await one.close()


@pytest.mark.both_loops
async def test_what_many_series_close_in_one_moment_is_one_transaction(tmp_path: Path) -> None:
    many = [series_named(number) for number in range(SERIES)]
    async with opened(tmp_path) as one:
        for live in many:
            one.writes.add(live, closing(live, 0))
        await eventually(lambda: one.stored == SERIES)
        assert one.transactions == 1
        for live in many:
            one.writes.add(live, closing(live, 1))
        await eventually(lambda: one.stored == 2 * SERIES)
        assert one.transactions == 2
    for live in many:
        assert [row[0] for row in rows_in(tmp_path, live.key.table)] == [0, MINUTE_MS]
    assert Counter(spans_in(tmp_path)) == {(0, 2 * MINUTE_MS, "complete", "", LIVE): SERIES}


async def test_no_turn_of_the_loop_hears_of_more_than_a_few_series(tmp_path: Path) -> None:
    told_in_turn: list[int] = []
    async with opened(tmp_path) as one:
        for live in (series_named(number) for number in range(SERIES)):
            one.writes.add(live, closing(live, 0))
        while one.stored < SERIES:
            before = len(one.told)
            await asyncio.sleep(0)
            told_in_turn.append(sum(len(piece) for piece in one.told[before:]))
    assert sum(told_in_turn) == SERIES
    # A turn of this loop may see what happened in two.
    assert max(told_in_turn) <= 2 * live_writes.TOGETHER


async def test_a_candle_that_cannot_be_stored_does_not_take_others_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as one:
        many = [series_named(number) for number in range(10)]
        for number, live in enumerate(many):
            one.writes.add(live, closing(live, 0, price=NAN if number == 3 else 5.0))
        await eventually(lambda: one.stored == 9)
    assert "nothing can be stored" in caplog.text
    assert [len(rows_in(tmp_path, live.key.table)) for live in many] == [1] * 3 + [0] + [1] * 6
    assert len(spans_in(tmp_path)) == 9


async def test_what_was_gathered_is_written_although_the_store_is_closed_next(
    tmp_path: Path,
) -> None:
    many = [series_named(number) for number in range(SERIES)]
    async with opened(tmp_path) as one:
        for live in many:
            one.writes.add(live, closing(live, 0))
    assert [len(rows_in(tmp_path, live.key.table)) for live in many] == [1] * SERIES


async def test_what_one_series_tells_is_written_in_the_order_in_which_it_came(
    tmp_path: Path,
) -> None:
    live = series_named(0)
    lost = KnownSpan(2 * MINUTE_MS, 4 * MINUTE_MS, "unknown", "outage: cut off", LIVE, 0)
    async with opened(tmp_path) as one:
        for minute in range(4):
            one.writes.add(live, closing(live, minute))
        one.writes.add(live, LiveProof((), (lost,)))
        one.writes.add(live, closing(live, 3, price=7.0))
        await eventually(lambda: one.stored == 5)
    assert spans_in(tmp_path) == [
        (0, 2 * MINUTE_MS, "complete", "", LIVE),
        (2 * MINUTE_MS, 3 * MINUTE_MS, "unknown", "outage: cut off", LIVE),
        (3 * MINUTE_MS, 4 * MINUTE_MS, "complete", "", LIVE),
    ]
    assert [row[1] for row in rows_in(tmp_path, live.key.table)] == [5.0, 5.0, 5.0, 7.0]


class WritesFail:
    """A writer in which each transaction meets an error, some of them or all."""

    def __init__(self, one: Opened, error: Exception) -> None:
        self.failing = True
        self.tried = 0
        run = one.database._transaction

        def transaction(sql: Any, works: Any) -> Any:
            self.tried += 1
            if self.failing:
                raise error
            return run(sql, works)

        one.database._transaction = transaction  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [MemoryError("no memory"), StorageOriginError("another one")])
async def test_what_an_unexpected_error_kept_from_the_file_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    live = [series_named(number) for number in range(3)]
    for one in live:
        one.whole_from_ms = 0
    async with opened(tmp_path) as file:
        fails = WritesFail(file, error)
        for one in live:
            file.writes.add(one, closing(one, 0))
        await eventually(lambda: not file.writes._writing)
        fails.failing = False
        # They are whole only from there on: what lies below is a seam.
        assert [one.whole_from_ms for one in live] == [MINUTE_MS] * 3
        told = str(file.writes.fault or file.health.failure)
        assert told == str(error)
        for one in live:
            file.writes.add(one, closing(one, 1))
        await eventually(lambda: file.stored == 3)
    assert len([line for line in caplog.records if line.levelname != "DEBUG"]) <= 2
    assert len(spans_in(tmp_path)) == 3


async def test_a_loss_is_written_once_it_can_be_whatever_kept_it_from_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_writes, "AGAIN_S", 0.01)
    live = series_named(0)
    lost = KnownSpan(MINUTE_MS, 3 * MINUTE_MS, "unknown", "outage: cut off", LIVE, 0)
    async with opened(tmp_path) as file:
        for minute in range(3):
            file.writes.add(live, closing(live, minute))
        await eventually(lambda: file.stored == 3)
        fails = WritesFail(file, MemoryError("no memory"))
        file.writes.add(live, LiveProof((), (lost,)))
        await eventually(lambda: fails.tried > 2)
        assert file.writes.losses() == {live.key: [lost]}
        fails.failing = False
        await eventually(lambda: not file.writes.losses())
    assert [span[2] for span in spans_in(tmp_path)] == ["complete", "unknown"]


async def test_without_a_writer_what_is_gathered_stays_until_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_writes, "AGAIN_S", 0.01)
    live = series_named(0)
    async with opened(tmp_path) as file:
        file.database._writes = False
        file.writes.add(live, closing(live, 0))
        await eventually(lambda: "nothing can be stored" in caplog.text)
        file.database._writes = True
        await eventually(lambda: file.stored == 1)
