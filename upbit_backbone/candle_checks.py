"""What candles have to be before they are stored, merged or imported; never repaired.

Pure checks, so low in the house that the store and the coordinator share them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import CandleSeries, Timeframe

_PRICES = ("open", "high", "low", "close")
Place = Callable[[int], str]
"""How a message calls the candle with this number, counted from 0."""


def row_of_page(index: int) -> str:
    """As the exchange sent it."""
    return f"row {index}"


def check_page(
    page: CandleSeries, *, symbol: str, timeframe: Timeframe, rows: int, end_ms: int | None
) -> None:
    """Refuse a page of candles that cannot be what was asked for.

    Args:
        page: What came.
        symbol: What was asked for.
        timeframe: Likewise.
        rows: At most so many were asked for.
        end_ms: Only those that open before it; None: none was given.

    Raises:
        ProtocolError: other candles, more than were asked, not ascending, off the grid, at or
            after the page's end, or prices and amounts that contradict each other; the message
            has the first such row.
    """
    what = f"candles of {symbol} {timeframe}"
    if end_ms is not None:
        what += f" before {utc_datetime(end_ms):%Y-%m-%dT%H:%M:%SZ}"
    if (page.symbol, page.timeframe) != (symbol, timeframe):
        raise ProtocolError(f"{what}: the answer has {page.symbol} {page.timeframe}")
    if len(page) > rows:
        raise ProtocolError(f"{what}: {rows} rows were asked for, {len(page)} came")
    check_series(page, what)
    if end_ms is not None and len(page) and int(page.time[-1]) >= end_ms:
        raise ProtocolError(
            f"{what}: the newest row lies at or after that time: {excerpt(page, len(page) - 1)}"
        )


def check_series(series: CandleSeries, what: str, place: Place = row_of_page) -> None:
    """Refuse candles that contradict themselves or each other.

    Args:
        series: Any number of candles.
        what: Names them in the message.
        place: Where a person finds one of them.

    Raises:
        ProtocolError: not ascending, twice the same open time, off the timeframe's grid, a high
            below or a low above another price, a price that is not above zero, an amount
            below, or one without end.
    """
    if not len(series):
        return
    # Comparisons with NaN are False, so what is asked is whether all is well.
    low, high = series.low, series.high

    def refuse_first(good: npt.NDArray[np.bool_], why: str, shift: int = 0) -> None:
        if np.count_nonzero(good) < len(good):
            index = int(np.argmin(good)) + shift
            raise ProtocolError(f"{what}: {place(index)} {why}: {excerpt(series, index)}")

    refuse_first(series.time[1:] > series.time[:-1], "does not ascend", shift=1)
    refuse_first(_on_grid(series), f"is off the grid of {series.timeframe}")
    sane = (low > 0) & (low <= series.open) & (low <= series.close)
    sane &= (high >= series.open) & (high >= series.close) & (high < np.inf)
    refuse_first(sane, "has prices outside of its low and high")
    amounts = (series.volume >= 0) & (series.value >= 0)
    amounts &= (series.volume < np.inf) & (series.value < np.inf)
    refuse_first(amounts, "has an amount below zero or without end")


def excerpt(series: CandleSeries, index: int) -> str:
    """One candle as a message shows it."""
    prices = " ".join(f"{name} {getattr(series, name)[index]:.12g}" for name in _PRICES)
    return (
        f"{utc_datetime(int(series.time[index])):%Y-%m-%dT%H:%M:%SZ} {prices}"
        f" volume {series.volume[index]:.12g}"
    )


def _on_grid(series: CandleSeries) -> npt.NDArray[np.bool_]:
    timeframe, time = series.timeframe, series.time
    fixed_ms = timeframe.fixed_ms
    if fixed_ms is None:
        return np.array([timeframe.floor_ms(int(at)) == int(at) for at in time])
    aligned: npt.NDArray[np.bool_] = (time - timeframe.floor_ms(0)) % fixed_ms == 0
    return aligned
