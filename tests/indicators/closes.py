"""Closes to compute with, and a series that has them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.models import CandleSeries, Timeframe

START_MS = 1_757_894_400_000

CLOSES = st.lists(
    st.one_of(
        st.integers(1_000, 1_010).map(float),  # a quiet market: many closes alike
        st.integers(1, 2_000_000).map(lambda thousands: thousands * 1_000.0),
        st.integers(900, 1_100).map(lambda ticks: ticks / 10_000),
    ),
    max_size=120,
)
PERIODS = st.integers(2, 40)


def series_of(closes: Sequence[float], *, forming: bool = False) -> CandleSeries:
    """A candle a minute; the last one may be forming."""
    rows = [
        (START_MS + number * MINUTE_MS, close, close, close, close, 1.0, close)
        for number, close in enumerate(closes)
    ]
    end_ms = START_MS + len(rows) * MINUTE_MS
    return CandleSeries.from_rows(
        "KRW-BTC",
        Timeframe.M1,
        rows,
        closed_before_ms=end_ms - MINUTE_MS if forming else end_ms,
        source="rest",
        simulated=False,
    )
