"""Indicators by their names, as callers and the command line give them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from upbit_backbone.errors import InvalidRequestError, shown
from upbit_backbone.indicators.indicator import Indicator
from upbit_backbone.indicators.rsi import RSI
from upbit_backbone.indicators.series import IndicatorSeries
from upbit_backbone.indicators.sma import SMA
from upbit_backbone.models import CandleSeries

Kind = type[RSI] | type[SMA]
LONGEST_NAME = 40
"""Of a name that is compared with others; to compare a long text takes time."""
KINDS: dict[str, Kind] = {kind.name: kind for kind in (RSI, SMA)}


def compute(name: str, series: CandleSeries, /, **parameters: Any) -> IndicatorSeries:
    """The values of an indicator for each candle of a series, by their closes.

    Args:
        name: ``"RSI"`` or ``"SMA"``; small letters will do.
        series: Candles as `MarketDataAPI` gives them; the last one may be forming.
        parameters: ``period``: 2 to 10,000 (RSI, by default 14), 1 to 10,000 (SMA, 20).

    Raises:
        InvalidRequestError: no such indicator or parameter; the message names the nearest.
    """
    kind, chosen = _find(name, parameters)
    if not isinstance(series, CandleSeries):
        raise InvalidRequestError(
            "an indicator is computed of a CandleSeries, as get_candle_data gives it,"
            f" was {shown(series)}"
        )
    return IndicatorSeries(kind.name, chosen, series, kind.of(series.close, **chosen))


def create(name: str, /, **parameters: Any) -> Indicator:
    """An indicator to be told one close after another.

    Raises:
        InvalidRequestError: as `compute`.
    """
    kind, chosen = _find(name, parameters)
    return kind(**chosen)


def candles_needed(name: str, values: int, /, **parameters: Any) -> int:
    """How many candles give so many settled values, so that more would not change them.

    Raises:
        InvalidRequestError: as `compute`.
    """
    kind, chosen = _find(name, parameters)
    if type(values) is not int or values < 1:
        raise InvalidRequestError(f"values must be a whole number from 1 on, was {shown(values)}")
    return values + kind.candles_before(**chosen)


def _find(name: Any, parameters: dict[str, Any]) -> tuple[Kind, dict[str, int]]:
    kind = KINDS.get(name.upper()) if isinstance(name, str) else None
    if kind is None:
        raise InvalidRequestError(
            f"unknown indicator {shown(name)}: expected {' or '.join(KINDS)}"
            f"{_nearest(name.upper(), list(KINDS)) if isinstance(name, str) else ''}"
        )
    known = kind.parameters
    for given in parameters:
        if given not in known:
            raise InvalidRequestError(
                f"{kind.name} has no parameter {shown(given)}: expected {' or '.join(known)}"
                f"{_nearest(given, list(known))}"
            )
    chosen = {
        own: bounds.check(f"{kind.name} {own}", parameters.get(own, bounds.default))
        for own, bounds in known.items()
    }
    return kind, chosen


def _nearest(given: str, known: list[str]) -> str:
    close = get_close_matches(given[:LONGEST_NAME], known, n=1, cutoff=0.5)
    return f"; closest: {close[0]}" if close and len(known) > 1 else ""
