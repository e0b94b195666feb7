"""Numbers as traders write them; prices are written by `upbit_backbone.price`.

Large amounts of won are counted in 백만, 억 and 조 in Korean and in M, B and T in English.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from upbit_backbone.price import price_decimals, tick_size

_KOREAN = ((1e12, "조"), (1e8, "억"), (1e6, "백만"))
_ENGLISH = ((1e12, "T"), (1e9, "B"), (1e6, "M"))


def amount(value: float, *, korean: bool) -> str:
    """A value of trades in the quote asset, in three or four figures: ``3,120억``, ``1.2조``."""
    for unit, name in _KOREAN if korean else _ENGLISH:
        # What would be rounded up to the next unit's 1 is written in that unit.
        if abs(value) >= unit * 0.9995:
            scaled = value / unit
            return f"{scaled:,.{1 if abs(scaled) < 100 and unit != 1e6 else 0}f}{name}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3f}"


def volume(value: float) -> str:
    """A volume in the base asset, with its significant figures: ``1,234.5``, ``0.00123``."""
    size = abs(value)
    if size == 0:
        return "0"
    for least, decimals in ((100_000, 0), (1_000, 1), (100, 2), (1, 3), (0.01, 5)):
        if size >= least:
            return f"{value:,.{decimals}f}"
    return f"{value:.8f}"


def exact_volume(value: float) -> str:
    """The volume of one trade, so that those below each other are easy to compare."""
    return f"{value:,.{8 if value < 10 else 4 if value < 10_000 else 2}f}"


def signed_percent(fraction: float) -> str:
    """A change as ``+1.23%``; no sign where it rounds to zero."""
    percent = round(fraction * 100, 2)
    return f"{percent:+.2f}%" if percent else "0.00%"


def price_move(symbol: str, price: float, move: float) -> str:
    """By how much a price changed, without sign, with the decimals of the price itself."""
    return f"{abs(move):,.{price_decimals(symbol, price)}f}"


def to_tick(symbol: str, price: float) -> float:
    """The price a market could show that is nearest to `price`, for a mouse between two."""
    if price <= 0:
        return 0.0
    tick = tick_size(symbol, price)
    steps = (Decimal(price) / tick).quantize(Decimal(1), ROUND_HALF_EVEN)
    return float(steps * tick)
