"""Which levels a book can be grouped by."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.worlds import market, ms
from upbit_backbone.price import tick_size
from upbit_backbone.simulator.instruments import instrument_at, supported_levels


@pytest.mark.parametrize(
    ("symbol", "price", "tick", "levels"),
    [
        # The three examples of upbit-api, section 2.6, at their prices of 2025.
        (
            "KRW-BTC",
            148_500_000,
            "1000",
            ["0", "10000", "100000", "1000000", "10000000", "100000000"],
        ),
        ("KRW-ETH", 4_400_000, "1000", ["0", "10000", "100000", "1000000"]),
        ("KRW-TRX", 480, "1", ["0", "1", "10", "100"]),
        ("USDT-BTC", 115_000, "0.01", ["0"]),
        ("BTC-ETH", Fraction("0.03"), "0.00000001", ["0"]),
        # What the rule makes of other prices.
        ("KRW-USDT", 1_400, "0.5", ["0", "10", "100", "1000"]),
        ("KRW-ABC", Fraction("0.5"), "0.001", ["0", "0.001", "0.01", "0.1"]),
        ("KRW-ABC", Fraction("0.00000003"), "0.00000001", ["0", "0.00000001"]),
    ],
)
def test_levels_are_powers_of_ten_up_to_the_price(
    symbol: str, price: Fraction | int, tick: str, levels: list[str]
) -> None:
    assert supported_levels(symbol, Fraction(price), Fraction(tick)) == tuple(map(Fraction, levels))


@given(units=st.integers(1, 10**18))
def test_every_level_is_a_multiple_of_the_tick(units: int) -> None:
    price = Fraction(units, 10**8)
    tick = Fraction(tick_size("KRW-ABC", float(price)))
    none, *levels = supported_levels("KRW-ABC", price, tick)
    assert none == 0
    assert levels == sorted(set(levels))
    assert levels
    assert all(level % tick == 0 and level <= price for level in levels)
    assert levels[-1] * 10 > price


def test_before_the_first_trade_the_first_price_counts() -> None:
    of = market("KRW-SIM110")
    first = of.next_trades(of.listing.listed_ms - 1)[0]
    before = instrument_at(of, of.listing.listed_ms)
    assert before == instrument_at(of, first.time_ms)
    assert len(before.levels) > 1
    assert instrument_at(market("KRW-BTC"), ms("2025-09-15")).tick == 1_000
