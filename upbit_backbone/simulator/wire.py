"""How numbers and times are written on the wire.

The exchange writes one number in three ways: REST as plain decimals, the WebSocket's
DEFAULT format as Java prints a double (1.32448E8) with eight decimals for sizes, SIMPLE as
short as it can (upbit-api, section 5.3). A parser has to cope with all of them, so the
simulator sends all of them.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from upbit_backbone.clock import HOUR_MS, utc_datetime
from upbit_backbone.simulator.markets import Scale

VOLUME_UNITS = 100_000_000
_KST_MS = 9 * HOUR_MS

Number = int | float | msgspec.Raw


def price_of(units: int, scale: Scale) -> float:
    """The float nearest to a price; its shortest text is the price itself."""
    return units * scale.unit.numerator / scale.unit.denominator


def value_of(value: int, scale: Scale) -> float:
    """The float nearest to a sum of price times volume, in the quote asset."""
    return value * scale.unit.numerator / (scale.unit.denominator * VOLUME_UNITS)


def volume_of(units: int) -> float:
    """The float nearest to a volume, in the base asset."""
    return units / VOLUME_UNITS


def rate_of(change: int, previous: int) -> float:
    """A change as a fraction of the price before, rounded to ten decimals."""
    return round(change / previous, 10)


def plain(number: float) -> Number:
    """Without an exponent, as REST writes numbers."""
    if number == 0 or abs(number) >= 1e-5:
        return number
    return msgspec.Raw(f"{Decimal(repr(number)):f}".encode())


def short(number: float) -> Number:
    """Whole numbers without a point, tiny ones with an exponent, as SIMPLE writes them."""
    if number.is_integer():
        return int(number)
    return java_double(number) if abs(number) < 1e-3 else number


def java_double(number: float) -> msgspec.Raw:
    """As Java prints a double: with an exponent below 0.001 and from 10,000,000."""
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return msgspec.Raw(repr(number).encode())
    mantissa, _, exponent = f"{Decimal(repr(number)).normalize():E}".partition("E")
    point = "" if "." in mantissa else ".0"
    return msgspec.Raw(f"{mantissa}{point}E{int(exponent)}".encode())


def eight_decimals(units: int) -> msgspec.Raw:
    """A volume with trailing zeros, as DEFAULT writes sizes."""
    whole, rest = divmod(units, VOLUME_UNITS)
    return msgspec.Raw(b"%d.%08d" % (whole, rest))


def date_text(ms: int) -> str:
    """``2026-01-05``, of a UTC instant."""
    return utc_datetime(ms).strftime("%Y-%m-%d")


def time_text(ms: int) -> str:
    """``04:10:41``."""
    return utc_datetime(ms).strftime("%H:%M:%S")


def start_text(ms: int) -> str:
    """``2026-01-05T04:10:00``: an instant without its zone, as candles carry it."""
    return utc_datetime(ms).strftime("%Y-%m-%dT%H:%M:%S")


def compact_date(ms: int) -> str:
    """``20260105``, as tickers carry it."""
    return utc_datetime(ms).strftime("%Y%m%d")


def compact_time(ms: int) -> str:
    """``041041``."""
    return utc_datetime(ms).strftime("%H%M%S")


def kst(ms: int) -> int:
    """An instant moved so that its UTC text is the Korean wall time."""
    return ms + _KST_MS


def change_name(change: int) -> str:
    """``RISE``, ``EVEN`` or ``FALL``."""
    return "RISE" if change > 0 else "FALL" if change < 0 else "EVEN"


def taker_side(taker_buys: bool) -> str:
    """``BID``: the taker bought from the asks; ``ASK``: it sold to the bids."""
    return "BID" if taker_buys else "ASK"
