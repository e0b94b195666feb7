"""Prices: the exchange's tick sizes, and how a price is written.

How many decimals a price shows follows from its tick, not from its magnitude.
The tables are Upbit's, "price >= lower bound"; the KRW table is in force since
2025-07-31 (https://docs.upbit.com/kr, krw_tick_unit_change), the USDT table since
2024-08-19. KRW-USDT and KRW-USDC have a tick of 0.5 from 1,000 to 10,000 since 2025-03-21.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

_KRW_TICKS: tuple[tuple[float, str], ...] = (
    (1_000_000.0, "1000"),
    (500_000.0, "500"),
    (100_000.0, "100"),
    (50_000.0, "50"),
    (10_000.0, "10"),
    (5_000.0, "5"),
    (100.0, "1"),
    (10.0, "0.1"),
    (1.0, "0.01"),
    (0.1, "0.001"),
    (0.01, "0.0001"),
    (0.001, "0.00001"),
    (0.0001, "0.000001"),
    (0.00001, "0.0000001"),
    (0.0, "0.00000001"),
)
_USDT_TICKS: tuple[tuple[float, str], ...] = (
    (10.0, "0.01"),
    (1.0, "0.001"),
    (0.1, "0.0001"),
    (0.01, "0.00001"),
    (0.001, "0.000001"),
    (0.0001, "0.0000001"),
    (0.0, "0.00000001"),
)
_BTC_TICKS: tuple[tuple[float, str], ...] = ((0.0, "0.00000001"),)
_HALF_WON_SYMBOLS = frozenset({"KRW-USDT", "KRW-USDC"})


def tick_size(symbol: str, price: float) -> Decimal:
    """The price step of a market at a price, in the quote asset.

    An unknown quote asset has the finest step, so that no digit is ever hidden.
    """
    if symbol in _HALF_WON_SYMBOLS and 1_000 <= price < 10_000:
        return Decimal("0.5")
    quote = symbol.partition("-")[0]
    table = {"KRW": _KRW_TICKS, "USDT": _USDT_TICKS}.get(quote, _BTC_TICKS)
    text = next(tick for lower, tick in table if price >= lower or lower == 0.0)
    return Decimal(text)


def price_decimals(symbol: str, price: float) -> int:
    """How many decimals a price of this size shows."""
    exponent = tick_size(symbol, abs(price)).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def format_price(symbol: str, price: float) -> str:
    """Write a price with thousands separators and the decimals of its tick.

    An off-tick price (candles from before a change of ticks) keeps the decimals it has,
    up to eight: a price is never shown rounded.
    """
    decimals = price_decimals(symbol, price)
    if decimals < 8 and round(price, decimals) != price:
        decimals = max(decimals, _decimals_of(price))
    return f"{price:,.{decimals}f}"


@lru_cache(maxsize=4096)
def _decimals_of(price: float) -> int:
    exponent = Decimal(repr(price)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return min(8, max(0, -exponent))
