"""Numbers as Korean traders write them."""

from __future__ import annotations

import pytest

from ui import numerals


@pytest.mark.parametrize(
    ("value", "korean", "english"),
    [
        (1.2e12, "1.2조", "1.2T"),
        (312_000_000_000, "3,120억", "312B"),
        (3_120_000_000, "31.2억", "3.1B"),
        (45_600_000, "46백만", "46M"),
        (999_960_000_000, "1.0조", "1.0T"),
        (12_345, "12,345", "12,345"),
        (1.5, "1.500", "1.500"),
    ],
)
def test_amounts(value: float, korean: str, english: str) -> None:
    assert numerals.amount(value, korean=True) == korean
    assert numerals.amount(value, korean=False) == english


def test_a_change_that_rounds_to_zero_has_no_sign() -> None:
    assert numerals.signed_percent(0.0123) == "+1.23%"
    assert numerals.signed_percent(-0.00001) == "0.00%"


def test_volumes_keep_their_significant_figures() -> None:
    assert [numerals.volume(v) for v in (0, 123_456.7, 12.3456, 0.00123456, 0.5)] == [
        "0",
        "123,457",
        "12.346",
        "0.00123456",
        "0.50000",
    ]


def test_a_move_has_the_decimals_of_its_price() -> None:
    assert numerals.price_move("KRW-XRP", 3_998.0, -17.0) == "17"
    assert numerals.price_move("KRW-DOGE", 335.0, 0.0) == "0"
    assert numerals.price_move("KRW-SHIB", 0.0123, 0.0001) == "0.0001"


def test_a_pointer_between_two_prices_names_the_nearer_one() -> None:
    assert numerals.to_tick("KRW-BTC", 157_776_499.0) == 157_776_000.0
    assert numerals.to_tick("KRW-XRP", 0.00095149) == 0.000951
    assert numerals.to_tick("KRW-BTC", -5.0) == 0.0
