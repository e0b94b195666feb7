"""Tables made of what was really traded: September 2025 on three markets.

As a tile, the first 28 days of a recording repeat for ever. Its last day is bent, so
that the last price meets the first; otherwise every seam would be a crash of 6 to 12 %
within a minute. As recorded, the whole file is served once, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from upbit_backbone.resources import resource_path
from upbit_backbone.simulator.random_numbers import IntArray
from upbit_backbone.simulator.table import MINUTES_PER_DAY, MOST_TRADES_A_MINUTE, MinuteRows

TILE_DAYS = 28
_WON_PER_TRADE = 1_500_000
"""What one trade moves on average where the minute has room for so many: KRW-BTC then
trades about 43 times a minute, so that a price is seen to move."""


class RecordedMarket(NamedTuple):
    """How a recording's prices are written."""

    unit: Fraction
    """Of its integer prices, in won."""
    grid: int
    """The market's tick in units."""


RECORDED: Mapping[str, RecordedMarket] = {
    "KRW-BTC": RecordedMarket(Fraction(1_000), 1),
    "KRW-XRP": RecordedMarket(Fraction(1), 1),
    # The tick is 1 won, but orders from before 2025-07-31, when it was 0.1, were still being
    # filled: 34 recorded prices lie between two ticks.
    "KRW-DOGE": RecordedMarket(Fraction(1, 10), 10),
}


@dataclass(frozen=True)
class Recording:
    """What was recorded; columns have one entry per minute in which somebody traded."""

    written: RecordedMarket
    minute: IntArray
    """Minutes since the start of the tile, ascending."""
    prices: IntArray
    """Lines open, high, low and close, in units."""
    volume: IntArray
    """In 1e-8."""


def load_recording(symbol: str) -> Recording:
    """Read one recording from the shipped file, about 10 ms."""
    with np.load(resource_path("market/recordings.npz")) as columns:
        return Recording(
            written=RECORDED[symbol],
            minute=columns[f"{symbol}.minute"].astype(np.int64),
            prices=columns[f"{symbol}.prices"].astype(np.int64),
            volume=columns[f"{symbol}.volume"],
        )


def whole_rows(recording: Recording) -> MinuteRows:
    """All recorded minutes, filled up with empty ones to whole days."""
    days = -(-(int(recording.minute[-1]) + 1) // MINUTES_PER_DAY)
    return _rows(recording, days)


def tile_rows(recording: Recording) -> MinuteRows:
    """The first 28 days, the last of them bent to end where the first begins."""
    rows = _rows(recording, TILE_DAYS)
    alive = np.flatnonzero(rows.volume)
    fall = int(rows.open[alive[0]] - rows.close[alive[-1]])
    bend = np.zeros(len(rows.volume), np.int64)
    steps = np.arange(1, MINUTES_PER_DAY + 1)
    # In whole ticks and the same for all prices of a minute, so that its shape remains.
    bend[-MINUTES_PER_DAY:] = np.rint(fall * steps / (MINUTES_PER_DAY * recording.written.grid))
    bend *= recording.written.grid
    return MinuteRows(
        open=rows.open + bend,
        high=rows.high + bend,
        low=rows.low + bend,
        close=rows.close + bend,
        volume=rows.volume,
        trades=rows.trades,
    )


def _rows(recording: Recording, days: int) -> MinuteRows:
    size = days * MINUTES_PER_DAY
    inside = recording.minute < size
    minute = recording.minute[inside]

    def column(values: IntArray) -> IntArray:
        filled = np.zeros(size, np.int64)
        filled[minute] = values[inside]
        return filled

    opened, high, low, closed = (column(line) for line in recording.prices)
    volume = column(recording.volume)
    won = closed * float(recording.written.unit) * (volume / 1e8)
    trades = np.clip(np.rint(won / _WON_PER_TRADE), 1, MOST_TRADES_A_MINUTE).astype(np.int64)
    return MinuteRows(opened, high, low, closed, volume, trades)
