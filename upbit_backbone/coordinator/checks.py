"""What an answer has to be before it is merged: a violation is told, never repaired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.coordinator.plan import Page
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import CandleSeries, Timeframe, Trade

_PRICES = ("open", "high", "low", "close")


def check_page(page: Page, series: CandleSeries, symbol: str, timeframe: Timeframe) -> None:
    """Refuse a page of candles that cannot be what was asked for.

    Raises:
        ProtocolError: other candles, more than were asked, not ascending, off the grid, at or
            after the page's end, or prices and amounts that contradict each other; the message
            has the first such row.
    """
    what = f"candles of {symbol} {timeframe} before {utc_datetime(page.end_ms):%Y-%m-%dT%H:%M:%SZ}"
    if (series.symbol, series.timeframe) != (symbol, timeframe):
        raise ProtocolError(f"{what}: the answer has {series.symbol} {series.timeframe}")
    if len(series) > page.rows:
        raise ProtocolError(f"{what}: {page.rows} rows were asked for, {len(series)} came")
    check_series(series, what)
    if len(series) and int(series.time[-1]) >= page.end_ms:
        raise ProtocolError(
            f"{what}: the newest row lies at or after that time: {excerpt(series, len(series) - 1)}"
        )


def check_series(series: CandleSeries, what: str) -> None:
    """Refuse candles that contradict themselves or each other.

    Args:
        series: Any number of candles.
        what: Names them in the message.

    Raises:
        ProtocolError: not ascending, twice the same open time, off the timeframe's grid, a high
            below or a low above another price, a price that is not above zero, an amount below.
    """
    if not len(series):
        return
    # Comparisons with NaN are False, so what is asked is whether all is well.
    low, high = series.low, series.high
    _refuse_first(series, what, series.time[1:] > series.time[:-1], "does not ascend", shift=1)
    _refuse_first(series, what, _on_grid(series), f"is off the grid of {series.timeframe}")
    sane = (low > 0) & (low <= series.open) & (low <= series.close)
    sane &= (high >= series.open) & (high >= series.close) & (high < np.inf)
    _refuse_first(series, what, sane, "has prices outside of its low and high")
    amounts = (series.volume >= 0) & (series.value >= 0)
    _refuse_first(series, what, amounts, "has an amount below zero")


def check_trades(
    trades: Sequence[Trade], symbol: str, *, asked: int, cursor: int | None, before_ms: int | None
) -> None:
    """Refuse a page of trades that cannot be what was asked for.

    Args:
        trades: Newest first. Late ones may stand out of order: ids and times only nearly descend.
        symbol: Whose trades were asked for.
        asked: How many at most.
        cursor: Only older ones were asked for.
        before_ms: The page's end, exclusive; None: none was given.

    Raises:
        ProtocolError: more than asked, of another market, one twice, or those that were to be
            left out.
    """
    what = f"trades of {symbol}"
    if len(trades) > asked:
        raise ProtocolError(f"{what}: {asked} were asked for, {len(trades)} came")
    for trade in trades:
        if trade.symbol != symbol:
            raise ProtocolError(f"{what}: the answer has one of {trade.symbol}")
        if trade.sequential_id == cursor:
            raise ProtocolError(
                f"{what}: the exchange answered the same page again when asked for what is older"
                f" than {cursor}"
            )
        if before_ms is not None and epoch_ms(trade.exchange_time) >= before_ms:
            raise ProtocolError(
                f"{what} before {utc_datetime(before_ms):%Y-%m-%dT%H:%M:%SZ}: the answer has"
                f" {trade.sequential_id} of {trade.exchange_time.isoformat()}"
            )
    if len({trade.sequential_id for trade in trades}) < len(trades):
        raise ProtocolError(f"{what}: a page holds one of them twice")


def excerpt(series: CandleSeries, index: int) -> str:
    """One candle as a message shows it."""
    prices = " ".join(f"{name} {getattr(series, name)[index]:.12g}" for name in _PRICES)
    return (
        f"{utc_datetime(int(series.time[index])):%Y-%m-%dT%H:%M:%SZ} {prices}"
        f" volume {series.volume[index]:.12g}"
    )


def _refuse_first(
    series: CandleSeries, what: str, good: npt.NDArray[np.bool_], why: str, *, shift: int = 0
) -> None:
    if np.count_nonzero(good) == len(good):
        return
    index = int(np.argmin(good)) + shift
    raise ProtocolError(f"{what}: row {index} {why}: {excerpt(series, index)}")


def _on_grid(series: CandleSeries) -> npt.NDArray[np.bool_]:
    timeframe, time = series.timeframe, series.time
    fixed_ms = timeframe.fixed_ms
    if fixed_ms is None:
        return np.array([timeframe.floor_ms(int(at)) == int(at) for at in time])
    aligned: npt.NDArray[np.bool_] = (time - timeframe.floor_ms(0)) % fixed_ms == 0
    return aligned
