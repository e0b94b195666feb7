"""What was recorded comes out of the service as it was: through all four layers."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.service.conftest import ConfigOf
from upbit_backbone import CandleSeries, MarketDataAPI
from upbit_backbone.simulator.server import Simulator

RECORDINGS = Path(__file__).parents[1] / "payloads" / "upbit" / "candles"
SYMBOLS = ("KRW-BTC", "KRW-XRP", "KRW-DOGE")
DAY = timedelta(days=1)
# The days of September with the most empty minutes of KRW-DOGE, and the two of KRW-BTC.
GAP_DAYS = [
    ("KRW-DOGE", datetime(2025, 9, 5, tzinfo=UTC)),
    ("KRW-DOGE", datetime(2025, 9, 6, tzinfo=UTC)),
    ("KRW-DOGE", datetime(2025, 9, 28, tzinfo=UTC)),
    ("KRW-BTC", datetime(2025, 9, 3, tzinfo=UTC)),
    ("KRW-BTC", datetime(2025, 9, 7, tzinfo=UTC)),
]


@cache
def recorded(symbol: str) -> dict[int, tuple[float, ...]]:
    """Open time in epoch milliseconds → open, high, low, close, volume, as the file says."""
    path = RECORDINGS / f"{symbol}_1m_20250901_20251004.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = list(csv.reader(file))[1:]
    return {
        int(datetime.fromisoformat(time + "+00:00").timestamp() * 1_000): tuple(map(float, row))
        for time, *row in rows
    }


def assert_equals_recording(series: CandleSeries, start: datetime, end: datetime) -> None:
    low, high = (int(moment.timestamp() * 1_000) for moment in (start, end))
    expected = {at: row for at, row in recorded(series.symbol).items() if low <= at < high}
    assert series.time.tolist() == list(expected)
    got = np.array([series.open, series.high, series.low, series.close, series.volume]).T
    assert np.array_equal(got, np.array(list(expected.values())))
    assert series.simulated
    assert series.closed.all()


@pytest.mark.parametrize(("symbol", "day"), GAP_DAYS)
async def test_days_with_empty_minutes_come_out_as_recorded(
    as_recorded: Simulator, config_of: ConfigOf, symbol: str, day: datetime
) -> None:
    async with await MarketDataAPI.create(config_of(as_recorded)) as api:
        series = await api.get_candle_data(symbol, "1m", day, day + DAY)
        assert len(series) < 1_440
        assert_equals_recording(series, day, day + DAY)
        again, metadata = await api.get_candle_data(
            symbol, "1m", day, day + DAY, with_metadata=True
        )
    assert again == series
    assert metadata.cache_hit, "empty minutes were proved and are not asked for again"


async def test_a_restart_finds_what_was_stored_without_asking(
    as_recorded: Simulator, config_of: ConfigOf
) -> None:
    symbol, day = GAP_DAYS[0]
    async with await MarketDataAPI.create(config_of(as_recorded)) as api:
        first = await api.get_candle_data(symbol, "1m", day, day + DAY)
    async with await MarketDataAPI.create(config_of(as_recorded)) as api:
        second, metadata = await api.get_candle_data(
            symbol, "1m", day, day + DAY, with_metadata=True
        )
        asked = api.get_performance_metrics().counters["layer_3.pages"]
    assert asked == 0
    assert (metadata.source_layer, metadata.source) == ("layer_2", "storage")
    assert second == first


@pytest.mark.slow
@pytest.mark.parametrize("symbol", SYMBOLS)
async def test_the_whole_month_comes_out_as_recorded(
    as_recorded: Simulator, config_of: ConfigOf, symbol: str
) -> None:
    start, end = datetime(2025, 9, 1, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC)
    async with await MarketDataAPI.create(config_of(as_recorded)) as api:
        series = await api.get_candle_data(symbol, "1m", start, end, timeout=300)
    assert_equals_recording(series, start, end)
