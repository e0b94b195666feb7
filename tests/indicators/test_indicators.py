"""Indicators candle by candle and over series, and what is refused."""

from __future__ import annotations

import pickle
from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.indicators.closes import CLOSES, PERIODS, series_of
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.indicators import RSI, SMA, candles_needed, compute, create

NAMES = st.sampled_from(["RSI", "SMA"])


@given(name=NAMES, closes=CLOSES, period=PERIODS)
def test_told_one_by_one_the_values_are_bit_for_bit_those_of_the_series(
    name: str, closes: list[float], period: int
) -> None:
    indicator = create(name, period=period)
    values = [indicator.update(close) for close in closes]
    whole = compute(name, series_of(closes), period=period).values
    assert np.array_equal(values, whole, equal_nan=True)


@given(name=NAMES, closes=CLOSES, period=PERIODS, wrong=st.lists(st.floats(1, 1e9), max_size=5))
def test_revisions_of_a_forming_candle_leave_no_trace(
    name: str, closes: list[float], period: int, wrong: list[float]
) -> None:
    forming, plain = create(name, period=period), create(name, period=period)
    for close in closes:
        first = forming.update(wrong[0] if wrong else close)
        for other in wrong:
            first = forming.revise(other)
        value = plain.update(close)
        revised = forming.revise(close) if wrong else first
        assert revised == value or (isnan(revised) and isnan(value))


@pytest.mark.parametrize(("name", "unknown"), [("RSI", 14), ("SMA", 19)])
def test_a_value_is_there_from_the_first_candle_that_has_enough_before(
    name: str, unknown: int
) -> None:
    values = compute(name, series_of([100.0 + n % 7 for n in range(60)])).values
    assert np.isnan(values).tolist() == [True] * unknown + [False] * (60 - unknown)


def test_the_forming_candle_counts() -> None:
    rsi = compute("rsi", series_of([1.0] * 15 + [2.0], forming=True), period=14)
    assert not rsi.candles.closed[-1]
    assert rsi.latest == 100.0
    assert isnan(compute("RSI", series_of([1.0])).latest)
    assert isnan(compute("RSI", series_of([])).latest)


def test_more_candles_than_needed_change_no_value_by_a_millionth() -> None:
    closes = [1_000.0 + (n * 7_919) % 101 for n in range(3_000)]
    for name, parameters in (("RSI", {"period": 14}), ("RSI", {"period": 60}), ("SMA", {})):
        count = candles_needed(name, 100, **parameters)
        some = compute(name, series_of(closes[-count:]), **parameters).values[-100:]
        all_of_them = compute(name, series_of(closes), **parameters).values[-100:]
        np.testing.assert_allclose(some, all_of_them, rtol=1e-6)


def test_a_series_of_values_says_what_it_is_of() -> None:
    rsi = compute("RSI", series_of([float(n) for n in range(1, 31)]))
    assert (rsi.name, rsi.parameters, len(rsi)) == ("RSI", {"period": 14}, 30)
    assert float(rsi) == rsi[-1] == rsi.latest == 100.0
    tail = rsi[-5:]
    assert len(tail) == len(tail.candles) == 5
    assert tail.candles == rsi.candles[-5:]
    assert "RSI (period 14) 100 of <CandleSeries KRW-BTC 1m" in repr(rsi)
    with pytest.raises(ValueError, match="read-only"):
        rsi.values[-1] = 5.0
    with pytest.raises(AttributeError):
        rsi.name = "SMA"  # type: ignore[misc]
    assert float(pickle.loads(pickle.dumps(rsi))) == 100.0


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("RIS", {}, "unknown indicator 'RIS': expected RSI or SMA; closest: RSI"),
        ("moving average", {}, "unknown indicator 'moving average': expected RSI or SMA$"),
        (14, {}, "unknown indicator 14: expected RSI or SMA"),
        (None, {}, "unknown indicator None"),
        ("RSI", {"perod": 14}, "RSI has no parameter 'perod': expected period"),
        ("RSI", {"period": 1}, "RSI period must be a whole number, 2..10,000, was 1"),
        ("SMA", {"period": 0}, "SMA period must be a whole number, 1..10,000, was 0"),
        ("SMA", {"period": 10_001}, "was 10001"),
        ("RSI", {"period": 14.0}, "was 14.0"),
        ("RSI", {"period": True}, "was True"),
        ("RSI", {"period": "14"}, "was '14'"),
        ("RSI", {"period": None}, "was None"),
    ],
)
def test_what_there_is_not_is_refused_in_one_sentence(
    name: Any, parameters: dict[str, Any], says: str
) -> None:
    for call in (
        lambda: compute(name, series_of([1.0]), **parameters),
        lambda: create(name, **parameters),
        lambda: candles_needed(name, 1, **parameters),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            call()


def test_a_number_too_long_to_write_is_refused_like_others() -> None:
    longest: Any = 10**5_000
    with pytest.raises(InvalidRequestError, match=r"RSI period must .* was a long int"):
        create("RSI", period=longest)
    with pytest.raises(InvalidRequestError, match="unknown indicator a long int"):
        create(longest)
    with pytest.raises(InvalidRequestError, match="a close must be a finite number, was a long"):
        RSI().update(longest)


@pytest.mark.parametrize("close", [float("nan"), float("inf"), None, "1"])
@pytest.mark.parametrize("kind", [RSI, SMA])
def test_a_close_that_is_none_is_refused_and_forgotten(kind: Any, close: Any) -> None:
    told, plain = kind(period=2), kind(period=2)
    for good in (1.0, 3.0, 2.0):
        with pytest.raises(InvalidRequestError, match="a close must be a finite number"):
            told.update(close)
        value = told.update(good)
        with pytest.raises(InvalidRequestError, match="a close must be a finite number"):
            told.revise(close)
        assert np.array_equal([value], [plain.update(good)], equal_nan=True)


@pytest.mark.parametrize("kind", [RSI, SMA])
def test_without_a_close_there_is_nothing_to_revise(kind: Any) -> None:
    with pytest.raises(InvalidRequestError, match="there is no close to revise"):
        kind().revise(1.0)
