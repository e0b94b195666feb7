"""A candle that is built has the digits that the exchange would give."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.storage.larger_timeframes import aggregated

START_MS = Timeframe.M5.ceil_ms(AUTUMN_2025_MS)


def minutes(volumes: list[float], values: list[float]) -> CandleSeries:
    rows = [
        (START_MS + n * MINUTE_MS, 2.0, 3.0, 1.0, 2.0, volume, value)
        for n, (volume, value) in enumerate(zip(volumes, values, strict=True))
    ]
    return CandleSeries.from_rows(
        "KRW-BTC", Timeframe.M1, rows, closed_before_ms=None, source="storage", simulated=False
    )


def exactly(numbers: list[float]) -> float:
    return float(sum(Decimal(repr(number)) for number in numbers))


@given(
    numbers=st.lists(
        st.tuples(st.integers(0, 10**13), st.integers(0, 10**13)), min_size=1, max_size=25
    ),
    decimals=st.integers(0, 8),
)
def test_volume_and_value_are_the_sums_of_the_decimals_that_were_read(
    numbers: list[tuple[int, int]], decimals: int
) -> None:
    volumes = [volume / 10**decimals for volume, _ in numbers]
    values = [value / 10**decimals for _, value in numbers]
    built = aggregated(minutes(volumes, values), Timeframe.M5)
    fives = range(0, len(numbers), 5)
    assert built.volume.tolist() == [exactly(volumes[at : at + 5]) for at in fives]
    assert built.value.tolist() == [exactly(values[at : at + 5]) for at in fives]


def test_sums_of_more_digits_than_a_float_holds_are_the_nearest() -> None:
    values = [48_123_456_789.12345, 0.1234567890123, 7_000_000.000000125]
    built = aggregated(minutes([1.0] * 3, values), Timeframe.M5)
    assert built.value[0] == pytest.approx(exactly(values), rel=2**-52)
