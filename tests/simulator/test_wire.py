import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.simulator.markets import Scale
from upbit_backbone.simulator.wire import (
    Figures,
    change_name,
    date_text,
    decimal_text,
    eight_decimals,
    exact_text,
    java_double,
    kst,
    price_of,
    rate_of,
    short,
    shortest_text,
    start_text,
    start_texts,
    time_text,
    value_of,
    volume_of,
)

FINITE = st.floats(-1e18, 1e18, allow_nan=False)


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (116_539_000.0, "1.16539E8"),
        (100_000_000.0, "1.0E8"),
        (9_999_999.0, "9999999.0"),
        (448_000.0, "448000.0"),
        (0.00079276, "7.9276E-4"),
        (0.0412, "0.0412"),
        (-136_000.5, "-136000.5"),
        (0.0, "0.0"),
    ],
)
def test_default_writes_numbers_as_java_does(number: float, written: str) -> None:
    assert java_double(number) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [(132_448_000.0, "132448000"), (41.2, "41.2"), (0.00079276, "7.9276E-4"), (0.0, "0")],
)
def test_simple_writes_numbers_short(number: float, written: str) -> None:
    assert short(number) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (132_448_000.0, "132448000.0"),
        (3e-8, "0.00000003"),
        (0.07092, "0.07092"),
        (-3e-8, "-0.00000003"),
        (2e17, "200000000000000000.0"),
        (0.0, "0.0"),
    ],
)
def test_rest_writes_numbers_without_exponent(number: float, written: str) -> None:
    assert decimal_text(number) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (145_794_000.0, "145794000"),
        (999_993.5, "999993.5"),
        (0.0013, "0.0013"),
        (3e-8, "0.00000003"),
        (2e17, "200000000000000000"),
    ],
)
def test_second_candles_write_numbers_without_a_needless_point(number: float, written: str) -> None:
    assert shortest_text(number) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (Fraction(100_000_000), "100000000"),
        (Fraction(1, 2), "0.5"),
        (Fraction(1, 10**8), "0.00000001"),
        (Fraction(0), "0"),
    ],
)
def test_ticks_and_levels_are_written_exactly(number: Fraction, written: str) -> None:
    assert exact_text(number) == written


@given(units=st.integers(-(10**12), 10**12), value=st.integers(0, 10**30))
def test_figures_of_a_market_are_its_numbers(units: int, value: int) -> None:
    scale = Scale(unit=Fraction(1, 10))
    figures = Figures(scale)
    assert figures.price(units) == figures.price(units) == decimal_text(price_of(units, scale))
    assert figures.value(value) == decimal_text(value_of(value, scale))
    assert figures.volume(units) == decimal_text(volume_of(units))


def test_sizes_keep_their_trailing_zeros() -> None:
    assert eight_decimals(77_720) == "0.00077720"
    assert eight_decimals(12_345_678_901) == "123.45678901"


@given(FINITE)
def test_every_form_is_the_same_number_to_a_parser(number: float) -> None:
    for written in (
        java_double(number),
        short(number),
        decimal_text(number),
        shortest_text(number),
    ):
        assert float(json.loads(written)) == number


@given(units=st.integers(0, 10**12), unit=st.sampled_from([Fraction(1_000), Fraction(1, 10**8)]))
def test_a_price_is_the_float_nearest_to_it(units: int, unit: Fraction) -> None:
    exact = units * unit
    assert price_of(units, Scale(unit=unit)) == float(exact)
    assert Decimal(repr(float(exact))) == Decimal(exact.numerator) / Decimal(exact.denominator)


@given(value=st.integers(0, 10**30))
def test_a_value_is_rounded_once(value: int) -> None:
    expected = float(Fraction(value, 10 * 10**8))
    assert math.isclose(value_of(value, Scale(unit=Fraction(1, 10))), expected, rel_tol=1e-16)


def test_korean_times_are_nine_hours_ahead() -> None:
    assert start_text(0) == "1970-01-01T00:00:00"
    assert start_text(kst(0)) == "1970-01-01T09:00:00"


@given(second=st.integers(0, 10**10))
def test_both_texts_of_a_start_are_of_one_instant(second: int) -> None:
    utc = datetime.fromtimestamp(second, UTC)
    korean = utc + timedelta(hours=9)
    assert start_texts(second * 1_000) == (utc.isoformat()[:19], korean.isoformat()[:19])
    assert start_text(second * 1_000) == utc.isoformat()[:19]
    assert f"{date_text(second * 1_000)}T{time_text(second * 1_000)}" == utc.isoformat()[:19]


def test_changes_are_named_and_rounded_to_ten_decimals() -> None:
    assert [change_name(change) for change in (3, 0, -3)] == ["RISE", "EVEN", "FALL"]
    assert rate_of(448_000, 132_000_000) == 0.0033939394
