"""Prices: the exchange's tick sizes, now and at any time before, and how a price is written.

How many decimals a price shows follows from its tick, not from its magnitude.
The tables are Upbit's, "price >= lower bound" (upbit-api, section 3). Resting orders outlive
a change of ticks and are filled at off-tick prices, as those of KRW-DOGE at 351.9 … 419.3 won
in September 2025 (recorded), so a price off the grid of its day is no error.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from sys import float_info
from typing import Any, NamedTuple

from upbit_backbone.clock import epoch_ms
from upbit_backbone.errors import InvalidRequestError, shown

Bands = tuple[tuple[float, str], ...]
"""Lower bound of a band and the tick in it, highest band first."""


class _Era(NamedTuple):
    """A table, and since when it is in force."""

    since_ms: int
    bands: Bands


class _Exception(NamedTuple):
    """Some markets have another tick in one band, for some time."""

    symbols: frozenset[str]
    since_ms: int
    until_ms: int
    low: float
    high: float
    tick: str


def _ms(text: str) -> int:
    return epoch_ms(datetime.fromisoformat(text))


_ALWAYS_MS = 0
_NEWEST_MS = 1 << 62
_NO_END_MS = _NEWEST_MS + 1
# Only days are announced, and they are Korean: without other evidence a table holds from
# midnight in Korea. Changelogs tick_unit_change (2024-01-29), krw_tick_unit_change
# (2024-10-14), usdtkrw_tick_unit_change (2025-03-21), krw_tick_unit_change_250731 and
# usdt_tick_unit_change (2024-08-19), all at https://docs.upbit.com/kr/changelog/.
# The first tenths of a won in the recorded hours of KRW-XRP come with this one, after one of
# hardly any trade.
_FINER_WON_MS = _ms("2024-01-29T01:00+09:00")
_USDT_BANDS_MS = _ms("2024-08-19T00:00+09:00")
# "During the maintenance": nothing was traded from 03:00 on (recorded hours of KRW-BTC).
_SIXTEEN_ASSETS_MS = _ms("2024-10-14T07:00+09:00")
# "After the maintenance from 00:00 to 01:00".
_HALF_WON_MS = _ms("2025-03-21T01:00+09:00")
_COARSER_WON_MS = _ms("2025-07-31T00:00+09:00")

_KRW: tuple[_Era, ...] = (
    _Era(
        _COARSER_WON_MS,
        (
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
        ),
    ),
    _Era(
        _FINER_WON_MS,
        (
            (2_000_000.0, "1000"),
            (1_000_000.0, "500"),
            (500_000.0, "100"),
            (100_000.0, "50"),
            (10_000.0, "10"),
            (1_000.0, "1"),
            (100.0, "0.1"),
            (10.0, "0.01"),
            (1.0, "0.001"),
            (0.1, "0.0001"),
            (0.01, "0.00001"),
            (0.001, "0.000001"),
            (0.0001, "0.0000001"),
            (0.0, "0.00000001"),
        ),
    ),
    _Era(
        _ALWAYS_MS,
        (
            (2_000_000.0, "1000"),
            (1_000_000.0, "500"),
            (500_000.0, "100"),
            (100_000.0, "50"),
            (10_000.0, "10"),
            (1_000.0, "5"),
            (100.0, "1"),
            (10.0, "0.1"),
            (1.0, "0.01"),
            (0.1, "0.001"),
            (0.0, "0.0001"),
        ),
    ),
)
_USDT: tuple[_Era, ...] = (
    _Era(
        _USDT_BANDS_MS,
        (
            (10.0, "0.01"),
            (1.0, "0.001"),
            (0.1, "0.0001"),
            (0.01, "0.00001"),
            (0.001, "0.000001"),
            (0.0001, "0.0000001"),
            (0.0, "0.00000001"),
        ),
    ),
    # By the documents. The recorded prices of 2023 and 2024 have eight decimals: these books
    # were shared with Upbit's other countries (upbit-api, section 1).
    _Era(_ALWAYS_MS, ((0.0, "0.001"),)),
)
_BTC: tuple[_Era, ...] = (_Era(_ALWAYS_MS, ((0.0, "0.00000001"),)),)
_TABLES = {"KRW": _KRW, "USDT": _USDT}

_SIXTEEN_ASSETS = frozenset(
    f"KRW-{asset}"
    for asset in (
        *("ADA", "ALGO", "BLUR", "CELO", "ELF", "EOS", "GRS", "GRT"),
        *("ICX", "MANA", "MINA", "POL", "SAND", "SEI", "STG", "TRX"),
    )
)
_HALF_WON = frozenset({"KRW-USDT", "KRW-USDC"})
_EXCEPTIONS = (
    _Exception(_SIXTEEN_ASSETS, _SIXTEEN_ASSETS_MS, _COARSER_WON_MS, 100.0, 1_000.0, "1"),
    # That it outlived the table of 2025-07-31 says one secondary source only.
    _Exception(_HALF_WON, _HALF_WON_MS, _NO_END_MS, 1_000.0, 10_000.0, "0.5"),
)
_EXCEPTIONAL = _SIXTEEN_ASSETS | _HALF_WON


def tick_size(symbol: str, price: float, at: datetime | None = None) -> Decimal:
    """The price step of a market at a price, in the quote asset.

    An unknown quote asset has the finest step, so that no digit is ever hidden.

    Args:
        symbol: Market code, quote first.
        price: In the quote asset; steps grow with it.
        at: The moment whose table is meant; None: the newest table.

    Raises:
        InvalidRequestError: a symbol that is no text, a price that is no finite number, or no
            moment.
    """
    if type(symbol) is not str or type(price) is not float or price - price != 0.0:
        _check(symbol, price)
    if at is not None and not isinstance(at, datetime):
        raise InvalidRequestError(
            "at must be a datetime such as datetime(2025, 9, 1, tzinfo=UTC), or None,"
            f" was {shown(at)}"
        )
    eras = _TABLES.get(symbol.partition("-")[0], _BTC)
    at_ms = _NEWEST_MS if at is None else epoch_ms(at)
    if symbol in _EXCEPTIONAL:
        for symbols, since_ms, until_ms, low, high, tick in _EXCEPTIONS:
            if symbol in symbols and since_ms <= at_ms < until_ms and low <= price < high:
                return Decimal(tick)
    era = eras[0] if at is None else next((era for era in eras if at_ms >= era.since_ms), eras[-1])
    return Decimal(next(tick for low, tick in era.bands if price >= low or low == 0.0))


def price_decimals(symbol: str, price: float) -> int:
    """How many decimals a price of this size shows.

    Raises:
        InvalidRequestError: as `tick_size`.
    """
    if type(price) is not float:
        _check(symbol, price)
    exponent = tick_size(symbol, abs(price)).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def format_price(symbol: str, price: float) -> str:
    """Write a price with thousands separators and the decimals of its tick.

    An off-tick price (candles from before a change of ticks) keeps the decimals it has,
    up to eight: a price is never shown rounded.

    Raises:
        InvalidRequestError: as `tick_size`.
    """
    decimals = price_decimals(symbol, price)
    if decimals < 8 and round(price, decimals) != price:
        decimals = max(decimals, _decimals_of(price))
    return f"{price:,.{decimals}f}"


def _check(symbol: Any, price: Any) -> None:
    if not isinstance(symbol, str):
        raise InvalidRequestError(f"a symbol is a text such as 'KRW-BTC', was {shown(symbol)}")
    number = isinstance(price, int | float) and not isinstance(price, bool)
    if not number or not abs(price) <= float_info.max:
        raise InvalidRequestError(f"a price must be a finite number, was {shown(price)}")


@lru_cache(maxsize=4096)
def _decimals_of(price: float) -> int:
    exponent = Decimal(repr(price)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return min(8, max(0, -exponent))
