"""How numbers and times are written on the wire.

The exchange writes one number in several ways (upbit-api, sections 2 and 5.3): REST as
plain decimals, whole ones with ``.0`` or, for second candles, without; the sizes of an
order book with eight decimals; the WebSocket's DEFAULT format as Java prints a double
(1.32448E8), SIMPLE as short as it can. A parser has to cope with all of them, so the
simulator sends all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from upbit_backbone.clock import DAY_MS, HOUR_MS
from upbit_backbone.simulator.markets import Scale

VOLUME_UNITS = 100_000_000
_KST_MS = 9 * HOUR_MS


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


def decimal_text(number: float) -> str:
    """Without an exponent, whole numbers with ``.0``, as REST writes most numbers."""
    text = repr(number)
    if "e" not in text:
        return text
    text = f"{Decimal(text):f}"
    return text if "." in text else text + ".0"


def shortest_text(number: float) -> str:
    """Without an exponent and without a needless ``.0``, as second candles are written."""
    text = decimal_text(number)
    return text[:-2] if text.endswith(".0") else text


def exact_text(number: Fraction) -> str:
    """A tick or a level: whole without a point, smaller ones as a decimal."""
    return f"{(Decimal(number.numerator) / Decimal(number.denominator)).normalize():f}"


class Figures:
    """Writes the integers of one market as an endpoint does; made once for a page.

    Attributes:
        price: The text of a price. Rows of one page share many, so each is made once.
    """

    def __init__(self, scale: Scale, text: Callable[[float], str] = decimal_text) -> None:
        self._numerator = scale.unit.numerator
        self._volumes_per_value = scale.unit.denominator * VOLUME_UNITS
        self._text = text
        self.price: Callable[[int], str] = _Prices(scale, text).__getitem__

    def value(self, value: int) -> str:
        """A sum of price times volume."""
        return self._text(value * self._numerator / self._volumes_per_value)

    def volume(self, units: int) -> str:
        """A volume."""
        return self._text(units / VOLUME_UNITS)


class _Prices(dict[int, str]):
    """The texts of prices that were asked for."""

    def __init__(self, scale: Scale, text: Callable[[float], str]) -> None:
        super().__init__()
        self._numerator, self._denominator = scale.unit.numerator, scale.unit.denominator
        self._text = text

    def __missing__(self, units: int) -> str:
        written = self[units] = self._text(units * self._numerator / self._denominator)
        return written


def short(number: float) -> str:
    """Whole numbers without a point, tiny ones with an exponent, as SIMPLE writes them."""
    if number.is_integer():
        return str(int(number))
    return java_double(number) if abs(number) < 1e-3 else repr(number)


# Prices come again and again, and this way of writing them is the slowest of all.
@lru_cache(maxsize=1 << 15)
def java_double(number: float) -> str:
    """As Java prints a double: with an exponent below 0.001 and from 10,000,000."""
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return repr(number)
    mantissa, _, exponent = f"{Decimal(repr(number)).normalize():E}".partition("E")
    point = "" if "." in mantissa else ".0"
    return f"{mantissa}{point}E{int(exponent)}"


def eight_decimals(units: int) -> str:
    """A volume with trailing zeros, as DEFAULT writes sizes."""
    digits = f"{units:09}"
    return f"{digits[:-8]}.{digits[-8:]}"


_MINUTES = tuple(f"{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60))
_SECONDS = tuple(f"{second:02}" for second in range(60))
_IN_HOUR = tuple(f":{minute:02}:{second}" for minute in range(60) for second in _SECONDS)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def date_text(ms: int) -> str:
    """``2026-01-05``, of a UTC instant."""
    return _day_text(ms // DAY_MS)


def time_text(ms: int) -> str:
    """``04:10:41``."""
    minute, second = divmod(ms % DAY_MS // 1_000, 60)
    return _MINUTES[minute] + _SECONDS[second]


def start_text(ms: int) -> str:
    """``2026-01-05T04:10:00``: an instant without its zone, as candles carry it."""
    day, rest_ms = divmod(ms, DAY_MS)
    minute, second = divmod(rest_ms // 1_000, 60)
    return f"{_day_text(day)}T{_MINUTES[minute]}{_SECONDS[second]}"


def start_texts(ms: int) -> tuple[str, str]:
    """`start_text` of an instant in UTC and in Korea."""
    hour, second = divmod(ms // 1_000, 3_600)
    utc, korean = _hour_texts(hour)
    minute_text = _IN_HOUR[second]
    return utc + minute_text, korean + minute_text


def compact_date(ms: int) -> str:
    """``20260105``, as tickers carry it."""
    return date_text(ms).replace("-", "")


def compact_time(ms: int) -> str:
    """``041041``."""
    return time_text(ms).replace(":", "")


@lru_cache(maxsize=1_024)
def _hour_texts(hour: int) -> tuple[str, str]:
    utc, korean = (start_text(ms)[:13] for ms in (hour * HOUR_MS, kst(hour * HOUR_MS)))
    return utc, korean


@lru_cache(maxsize=1_024)
def _day_text(day: int) -> str:
    return date.fromordinal(_EPOCH_DAY + day).isoformat()


def kst(ms: int) -> int:
    """An instant moved so that its UTC text is the Korean wall time."""
    return ms + _KST_MS


def change_name(change: int) -> str:
    """``RISE``, ``EVEN`` or ``FALL``."""
    return "RISE" if change > 0 else "FALL" if change < 0 else "EVEN"


def taker_side(taker_buys: bool) -> str:
    """``BID``: the taker bought from the asks; ``ASK``: it sold to the bids."""
    return "BID" if taker_buys else "ASK"
