"""Recorded months through the store: equal, asked once, and larger timeframes made of them."""

from __future__ import annotations

from datetime import UTC
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.exchanges.candle_files import rows
from tests.exchanges.recordings import PAYLOADS
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource
from tests.storage.opening import opened
from upbit_backbone.clock import DAY_MS, HOUR_MS, epoch_ms, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import BackboneRequest, BackboneResponse, DataType
from upbit_backbone.storage.coverage import Coverage, KnownSpan
from upbit_backbone.storage.larger_timeframes import aggregated, buildable, smaller_of
from upbit_backbone.storage.packing import COLUMNS, Packed, pack_columns
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.storage import Storage

SEPTEMBER_MS = 1_756_684_800_000
"""2025-09-01T00:00:00Z."""
OCTOBER_MS = SEPTEMBER_MS + 30 * DAY_MS
MINUTES = {
    "KRW-BTC": "KRW-BTC_1m_20250901_20251004.csv.gz",
    "KRW-XRP": "KRW-XRP_1m_20250901_20251004.csv.gz",
    "KRW-DOGE": "KRW-DOGE_1m_20250901_20251004.csv.gz",
}


@cache
def recorded(symbol: str, timeframe: Timeframe, name: str) -> CandleSeries:
    found = [
        (
            epoch_ms(row.start.replace(tzinfo=UTC)),
            *map(float, row.prices),
            float(row.volume),
            float(row.value),
        )
        for row in rows(PAYLOADS / "candles" / name)
    ]
    return CandleSeries.from_rows(
        symbol, timeframe, found, closed_before_ms=None, source="rest", simulated=False
    )


def minutes_of(symbol: str) -> CandleSeries:
    return recorded(symbol, Timeframe.M1, MINUTES[symbol])


@pytest.mark.parametrize("symbol", MINUTES)
def test_a_recorded_month_is_packed_into_half_its_bytes_and_comes_back(symbol: str) -> None:
    series = minutes_of(symbol)
    columns = np.empty((COLUMNS, len(series)), np.int64)
    columns[0] = series.time
    for at, name in enumerate(CandleSeries.COLUMNS[1:7]):
        columns[1 + at].view(np.float64)[:] = getattr(series, name)
    data = pack_columns(columns)
    assert len(data) < 0.53 * columns.nbytes
    packed = Packed.of(data, len(series))
    assert packed is not None
    assert np.array_equal(packed.columns(), columns)


class Recorded(FakeExchangeSource):
    """An exchange that has the candles of one recording."""

    def __init__(self, clock: ManualClock, series: CandleSeries) -> None:
        super().__init__(clock, timeframe=series.timeframe)
        self.series = series

    def _page(self, request: BackboneRequest) -> CandleSeries:
        assert request.timeframe is self.timeframe, request.timeframe
        assert request.count is not None
        found = self.series.between(None, request.end_ms)
        return found[max(0, len(found) - request.count) :]


async def ask(
    storage: Storage, clock: ManualClock, timeframe: Timeframe, start_ms: int, end_ms: int
) -> BackboneResponse:
    source = storage._below
    assert isinstance(source, Recorded)
    coordinator = Coordinator(storage, clock=clock, rng=Random(1))
    await coordinator.start()
    try:
        return await coordinator.fetch(
            BackboneRequest(
                DataType.CANDLE,
                (source.series.symbol,),
                timeframe,
                utc_datetime(start_ms),
                utc_datetime(end_ms),
            )
        )
    finally:
        await coordinator.stop()


@pytest.mark.parametrize("symbol", MINUTES)
async def test_a_month_comes_back_equal_and_is_asked_once_also_after_a_restart(
    tmp_path: Path, symbol: str
) -> None:
    clock = ManualClock(OCTOBER_MS + 9 * DAY_MS)
    truth = minutes_of(symbol)
    start_ms = max(SEPTEMBER_MS, int(truth.time[0]))
    source = Recorded(clock, truth)
    expected = truth.between(start_ms, OCTOBER_MS)
    assert len(expected) > 40_000
    async with opened(tmp_path, source, clock, memory_limit_bytes=1 << 24) as storage:
        first = await ask(storage, clock, Timeframe.M1, start_ms, OCTOBER_MS)
        assert first.data == expected
        assert first.success
        asked = len(source.requests)
        again = await ask(storage, clock, Timeframe.M1, start_ms, OCTOBER_MS)
        assert again.data == expected
    async with opened(tmp_path, source, clock, memory_limit_bytes=1 << 24) as storage:
        again = await ask(storage, clock, Timeframe.M1, start_ms, OCTOBER_MS)
        assert again.data == expected
        assert again.metadata.source == "storage"
    assert len(source.requests) == asked


def agree(built: CandleSeries, told: CandleSeries) -> None:
    for name in ("time", "open", "high", "low", "close"):
        assert np.array_equal(getattr(built, name), getattr(told, name)), name
    assert np.allclose(built.volume, told.volume, rtol=1e-9, atol=0)


HOURS = {"KRW-BTC": "KRW-BTC_1h_20200101_20251017.csv.gz"}


async def test_hours_are_built_from_stored_minutes_and_equal_the_recorded_ones(
    tmp_path: Path,
) -> None:
    clock = ManualClock(OCTOBER_MS + 9 * DAY_MS)
    source = Recorded(clock, minutes_of("KRW-BTC"))
    start_ms = Timeframe.D1.ceil_ms(int(source.series.time[0]))
    end_ms = start_ms + 10 * DAY_MS
    hours = recorded("KRW-BTC", Timeframe.H1, HOURS["KRW-BTC"])
    days = recorded("KRW-BTC", Timeframe.D1, "KRW-BTC_1d_20241015_20251014.csv")
    async with opened(tmp_path, source, clock, memory_limit_bytes=1 << 24) as storage:
        await ask(storage, clock, Timeframe.M1, start_ms, end_ms)
        asked = len(source.requests)
        built = await ask(storage, clock, Timeframe.H1, start_ms, end_ms)
        assert built.success
        agree(built.data, hours.between(start_ms, end_ms))
        assert len(built.data) == 240
        latest = await ask(storage, clock, Timeframe.D1, start_ms, end_ms)
        agree(latest.data, days.between(start_ms, end_ms))
        assert storage.status().counters["built"] == 240 + 10
        assert len(source.requests) == asked
    # What was built is stored, and not built again.
    async with opened(tmp_path, source, clock) as storage:
        again = await ask(storage, clock, Timeframe.H1, start_ms, end_ms)
        assert again.data == built.data
        assert storage.status().counters["built"] == 0
    assert len(source.requests) == asked


def test_a_candle_is_built_only_where_all_smaller_ones_are_known_and_settled() -> None:
    hour = HOUR_MS
    known = Coverage(
        [
            KnownSpan(0, 2 * hour + 5, "complete", "", "rest", 0),
            KnownSpan(2 * hour + 5, 3 * hour, "unknown", "outage", "live", 0),
            KnownSpan(3 * hour, 4 * hour, "empty", "", "rest", 0),
            KnownSpan(4 * hour, 5 * hour, "complete", "", "live", 0),
            KnownSpan(5 * hour, 6 * hour + 1, "complete", "", "rest", 0),
        ]
    )
    span = Range(hour // 2, 10 * hour)
    assert buildable(known, Timeframe.H1, Timeframe.M1, span, 10 * hour) == [
        (hour, 2 * hour),
        (3 * hour, 4 * hour),
        (5 * hour, 6 * hour),
    ]
    # The trades of an hour that has just ended still come.
    for now_ms, built in ((6 * hour + 59_999, 2), (6 * hour + 60_000, 3)):
        assert len(buildable(known, Timeframe.H1, Timeframe.M1, span, now_ms)) == built


def test_smaller_candles_lie_whole_in_a_larger_one() -> None:
    for timeframe in Timeframe:
        for smaller in smaller_of(timeframe):
            at_ms = timeframe.floor_ms(SEPTEMBER_MS)
            for _ in range(30):
                assert smaller.floor_ms(at_ms) == at_ms, (timeframe, smaller)
                at_ms = timeframe.next_ms(at_ms)
    assert list(smaller_of(Timeframe.S1)) == []
    assert next(iter(smaller_of(Timeframe.D1))) is Timeframe.H4


def test_weeks_and_months_are_built_from_days() -> None:
    days = recorded("KRW-BTC", Timeframe.D1, "KRW-BTC_1d_20241015_20251014.csv")
    for timeframe in (Timeframe.W1, Timeframe.MO1, Timeframe.Y1):
        built = aggregated(days, timeframe)
        for candle in built:
            open_ms = epoch_ms(candle.open_time)
            assert timeframe.floor_ms(open_ms) == open_ms
            part = days.between(open_ms, timeframe.next_ms(open_ms))
            assert candle.open == part.open[0]
            assert candle.close == part.close[-1]
            assert (candle.high, candle.low) == (part.high.max(), part.low.min())
            assert candle.volume == pytest.approx(part.volume.sum(), rel=1e-12)
        assert sum(
            len(days.between(int(at), timeframe.next_ms(int(at)))) for at in built.time
        ) == len(days)
