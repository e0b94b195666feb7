"""Invented price histories: 28 days that end where they begin.

A shape knows nothing of a market's price. It wanders between 0 and `span` ticks and has
volumes of its own; a market lays it where its price is and multiplies (`markets.py`).
Whole numbers only, and divisions that every machine rounds alike, so that a seed means
the same market everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from upbit_backbone.simulator.random_numbers import IntArray, bit_field, draws, key_of
from upbit_backbone.simulator.recordings import TILE_DAYS
from upbit_backbone.simulator.table import MINUTES_PER_DAY, MinuteRows

MEAN_TRADE_UNITS = 20_000
"""About the volume of an invented trade before a market multiplies it."""

_SPAN_PER_WICK = 60
"""A minute's wick is no more than this part of the range: on a market with few prices four
ticks would be half of all that it moves in a month."""
_SIZE = TILE_DAYS * MINUTES_PER_DAY
_MOST_TRADES = 16
_QUIETEST_MINUTE = 19 * 60  # 19:00 UTC, 04:00 in Korea


class Shape(NamedTuple):
    """The name of one invented history."""

    span: int
    """Between the lowest and the highest price, in ticks."""
    trades_per_hour: int
    variant: int


def shape_key(seed: int, shape: Shape) -> int:
    """What all random numbers of the shape, its trades too, are drawn from."""
    return key_of(seed, "shape", *shape)


def shape_rows(seed: int, shape: Shape) -> MinuteRows:
    """Draw the minutes of a shape, about 10 ms."""
    key = shape_key(seed, shape)
    rows = np.arange(_SIZE)
    first, second = draws(key ^ _PRICES, rows), draws(key ^ _ACTIVITY, rows)
    trades = _activity(shape.trades_per_hour, rows, second)
    alive = trades > 0
    closed = _walk(shape.span, rows, first)
    # Nobody saw the price of a minute without a trade: the last one seen stands.
    traded = np.flatnonzero(alive)
    latest = traded[np.searchsorted(traded, rows, side="right") - 1]
    closed = closed[latest]

    step = bit_field(first, 60, 2) - 1  # -1, 0, 0 or 1 tick off the close before
    step -= step == 2
    opened = np.clip(np.roll(closed, 1) + step, 0, shape.span)
    opened = np.where(trades == 1, closed, opened)
    longest = max(1, shape.span // _SPAN_PER_WICK)
    upper = np.where(trades >= 3, _small(bit_field(second, 48, 8), longest), 0)
    lower = np.where(trades >= 4, _small(bit_field(second, 56, 8), longest), 0)
    high = np.minimum(np.maximum(opened, closed) + upper, shape.span)
    low = np.maximum(np.minimum(opened, closed) - lower, 0)

    rarity = bit_field(second, 24, 16) + 3_277  # a twentieth of 65,536
    volume = np.where(alive, trades * (MEAN_TRADE_UNITS * 21_500 // rarity + 64), 0)
    return MinuteRows(opened, high, low, closed, volume, trades)


def _walk(span: int, rows: IntArray, bits: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> IntArray:
    """A random walk without trend, stretched to reach 0 and `span`."""
    # Three uniform numbers added are near enough to a normal one.
    steps = sum(bit_field(bits, low, 20) for low in (0, 20, 40)) - 3 * (1 << 19)
    walk = np.cumsum(steps * _season(rows))
    walk -= walk[-1] * (rows + 1) // _SIZE
    walk -= walk.min()
    stretched: IntArray = np.rint(walk / walk.max() * span).astype(np.int64)
    return stretched


def _activity(
    trades_per_hour: int, rows: IntArray, bits: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> IntArray:
    """Trades of each minute: a daily season, bursts, and minutes in which nobody trades."""
    burst = 65_536.0 / (bit_field(bits, 0, 16) + 6_554) - 0.9  # 0.01 to 9.1, 1.5 on average
    expected = trades_per_hour / 60 * burst / 1.5 * (_season(rows) / _MEAN_SEASON)
    trades = np.floor(expected + bit_field(bits, 16, 8) / 256).astype(np.int64)
    return np.minimum(trades, _MOST_TRADES)


def _season(rows: IntArray) -> IntArray:
    """How lively the time of day is, 256 to 1,024: a parabola over the Korean day."""
    minute = (rows - _QUIETEST_MINUTE) % MINUTES_PER_DAY
    return 256 + 4 * 768 * minute * (MINUTES_PER_DAY - minute) // MINUTES_PER_DAY**2


_MEAN_SEASON = 256 + 768 * 2 / 3


def _small(byte: IntArray, longest: int) -> IntArray:
    """0 to 4 ticks, mostly 0 or 1, at most `longest`."""
    small: IntArray = (byte > 110).astype(np.int64) + (byte > 190) + (byte > 235) + (byte > 250)
    return np.minimum(small, longest)


_PRICES = key_of("shape prices")
_ACTIVITY = key_of("shape activity")
