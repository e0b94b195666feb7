"""Flat candles for periods in which nobody traded, where that is proved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from upbit_backbone.clock import SECOND_MS, epoch_ms
from upbit_backbone.models import CandleSeries, Span, Timeframe

CERTAIN_AFTER_MS = 5 * SECOND_MS
"""A period is known to be empty only so long after its end: its last trades come late."""
_NEVER_MS = 2**62


def fill_known(
    series: CandleSeries, start_ms: int, end_ms: int, missing: tuple[Span, ...]
) -> CandleSeries:
    """Fill each known part of a range by itself, never across what is missing.

    Args:
        series: What exists of the range, and perhaps candles from `end_ms` on: they stay.
        start_ms: Start of the range.
        end_ms: Up to where an absent candle is known not to exist; an open time.
        missing: Spans of which nothing is known, ascending.
    """
    edges = [start_ms]
    for span in missing:
        edges.append(start_ms if span.start is None else epoch_ms(span.start))
        edges.append(_NEVER_MS if span.end is None else epoch_ms(span.end))
    edges.append(_NEVER_MS)
    parts = []
    for low_ms, high_ms in zip(edges[::2], edges[1::2], strict=True):
        cut_ms = max(low_ms, min(high_ms, end_ms))
        parts.append(fill_previous(series.between(low_ms, cut_ms), low_ms, cut_ms))
        parts.append(series.between(cut_ms, high_ms))
    return CandleSeries.merged(parts)


def fill_previous(series: CandleSeries, start_ms: int, end_ms: int) -> CandleSeries:
    """Insert a flat candle (`filled`, volume 0, the previous close) for every empty period.

    Only for a range that is known whole: the caller sees to it. Periods before the first
    candle have no previous close and stay empty.
    """
    if not len(series):
        return series
    timeframe = series.timeframe
    time = _opens(timeframe, max(int(series.time[0]), timeframe.ceil_ms(start_ms)), end_ms)
    index = np.searchsorted(series.time, time, side="right") - 1
    filled = series.time[index] != time
    close = series.close[index]
    prices = [np.where(filled, close, column[index]) for column in (series.open, series.high)]
    amounts = [np.where(filled, 0.0, column[index]) for column in (series.volume, series.value)]
    low = np.where(filled, close, series.low[index])
    closed = np.where(filled, True, series.closed[index])
    columns = [time, *prices, low, close, *amounts, closed, filled]
    return CandleSeries(
        series.symbol, timeframe, columns, source=series.source, simulated=series.simulated
    )


def _opens(timeframe: Timeframe, start_ms: int, end_ms: int) -> npt.NDArray[np.int64]:
    if timeframe.fixed_ms is not None:
        return np.arange(start_ms, end_ms, timeframe.fixed_ms, dtype=np.int64)
    opens = []
    while start_ms < end_ms:
        opens.append(start_ms)
        start_ms = timeframe.next_ms(start_ms)
    return np.array(opens, dtype=np.int64)
