"""Our values against TA-Lib's, against exact arithmetic, and against a printed example."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import talib
from hypothesis import given

from tests.indicators.closes import CLOSES, PERIODS, series_of
from upbit_backbone.indicators import compute

PRINTED_CLOSES = [
    *(44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826),
    *(45.8931, 46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439),
    *(46.2122, 46.2521, 45.7137, 46.4515, 45.7835, 45.3548, 44.0288, 44.1783, 44.2181, 44.5672),
    *(43.4205, 42.6628, 43.1314),
]
PRINTED_RSI = [
    *(70.53, 66.32, 66.55, 69.41, 66.36, 57.97, 62.93, 63.26, 56.06, 62.38, 54.71, 50.42, 39.99),
    *(41.46, 41.87, 45.46, 37.30, 33.08, 37.77),
]
"""QQQQ from 2009-12-14 on, 14 periods: a worked example that traders know (StockCharts,
ChartSchool, "Relative Strength Index"), with two decimals there."""


@given(closes=CLOSES, period=PERIODS)
def test_values_are_those_of_ta_lib(closes: list[float], period: int) -> None:
    for name, oracle in (("RSI", talib.RSI), ("SMA", talib.SMA)):
        ours = compute(name, series_of(closes), period=period).values
        theirs = oracle(np.array(closes), timeperiod=period)
        # On this build not a bit differs; another compiler may fuse two operations.
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-9 if name == "RSI" else 0.0)


@given(closes=CLOSES, period=PERIODS)
def test_values_are_those_of_the_definition(closes: list[float], period: int) -> None:
    for name, exactly in (("RSI", exact_rsi), ("SMA", exact_sma)):
        ours = compute(name, series_of(closes), period=period).values
        theirs = exactly([Decimal(close) for close in closes], period)
        largest = max(closes, default=0.0) if name == "SMA" else 0.0
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * largest)


def test_the_printed_example_comes_out() -> None:
    rsi = compute("RSI", series_of(PRINTED_CLOSES), period=14)
    assert np.isnan(rsi.values[:14]).all()
    np.testing.assert_allclose(rsi.values[14:], PRINTED_RSI, atol=0.01)


@pytest.mark.parametrize(
    ("closes", "strength"),
    [([5.0] * 20, 0.0), ([float(n) for n in range(1, 21)], 100.0), (list(range(20, 0, -1)), 0.0)],
    ids=["flat", "rising", "falling"],
)
def test_a_market_of_one_direction_has_the_strength_that_ta_lib_gives(
    closes: Sequence[float], strength: float
) -> None:
    rsi = compute("RSI", series_of(closes))
    assert rsi.latest == strength
    assert talib.RSI(np.array(closes, dtype=float))[-1] == strength


def exact_sma(closes: list[Decimal], period: int) -> list[float]:
    """Each window summed anew."""
    return [
        float("nan") if end < period else float(sum(closes[end - period : end]) / period)
        for end in range(1, len(closes) + 1)
    ]


def exact_rsi(closes: list[Decimal], period: int) -> list[float]:
    """100 - 100 / (1 + RS), with Wilder's averages as the book has them."""
    changes = [after - before for before, after in pairwise(closes)]
    values = [float("nan")] * min(period, len(closes))
    averages: Any = None
    with localcontext() as context:
        context.prec = 40
        for end in range(period, len(closes)):
            if averages is None:
                first = changes[:period]
                averages = [
                    sum((max(sign * change, Decimal()) for change in first), Decimal()) / period
                    for sign in (1, -1)
                ]
            else:
                averages = [
                    average + (max(sign * changes[end - 1], Decimal()) - average) / period
                    for average, sign in zip(averages, (1, -1), strict=True)
                ]
            gain, loss = averages
            if loss:
                values.append(float(100 - 100 / (1 + gain / loss)))
            else:
                values.append(100.0 if gain else 0.0)
    return values
