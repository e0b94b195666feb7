import json
import math
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.simulator.markets import Scale
from upbit_backbone.simulator.wire import (
    Number,
    change_name,
    eight_decimals,
    java_double,
    kst,
    plain,
    price_of,
    rate_of,
    short,
    start_text,
    value_of,
)

FINITE = st.floats(-1e18, 1e18, allow_nan=False)


def text(number: Number) -> str:
    return msgspec.json.encode(number).decode()


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
    assert text(java_double(number)) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [(132_448_000.0, "132448000"), (41.2, "41.2"), (0.00079276, "7.9276E-4"), (0.0, "0")],
)
def test_simple_writes_numbers_short(number: float, written: str) -> None:
    assert text(short(number)) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (132_448_000.0, "132448000.0"),
        (3e-8, "0.00000003"),
        (0.07092, "0.07092"),
        (-3e-8, "-0.00000003"),
    ],
)
def test_rest_writes_numbers_without_exponent(number: float, written: str) -> None:
    assert text(plain(number)) == written


def test_sizes_keep_their_trailing_zeros() -> None:
    assert text(eight_decimals(77_720)) == "0.00077720"
    assert text(eight_decimals(12_345_678_901)) == "123.45678901"


@given(FINITE)
def test_every_form_is_the_same_number_to_a_parser(number: float) -> None:
    for form in (java_double, short, plain):
        assert float(json.loads(text(form(number)))) == number


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


def test_changes_are_named_and_rounded_to_ten_decimals() -> None:
    assert [change_name(change) for change in (3, 0, -3)] == ["RISE", "EVEN", "FALL"]
    assert rate_of(448_000, 132_000_000) == 0.0033939394
