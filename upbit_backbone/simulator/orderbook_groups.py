"""Order books grouped by a price level, with what rests beyond the thirty best prices.

Asks are rounded up to the level and bids down, sizes are summed, and price steps at which
nothing rests are left out, as in the book of 2025-07-04 that was recorded with `level=10000`.
There the totals are those of the thirty rows shown; so they are here.

What rests beyond the thirty best prices is drawn per cell of the finest level on offer. It
follows from the cell's price alone and does not move, so a coarse group is exactly the sum of
the finer ones in it, and never less than what the ungrouped book shows there. It ends at price
0 and at twice the best ask; sides with fewer groups than rows are filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.random_numbers import IntArray, bit_field, draws

_SPARE_CELLS = 60
"""About one in eight is empty, so that thirty others are always found."""
_THINNING = 4
"""A tick beyond the best prices holds a quarter of what one among them does."""


Row = tuple[int, int]
"""A price and the size that rests there; 0 and 0 where nothing is left."""


class Depth(NamedTuple):
    """What follows the best prices of a book; prices in units of the scale."""

    key: int
    """Of all its random numbers."""
    cell: int
    """The finest level on offer."""
    grid: int
    """The tick."""
    share: int
    """The unit of sizes, in 1e-8."""


def grouped_asks(asks: Sequence[Row], level: int, depth: Depth) -> list[Row]:
    """Thirty groups of a level, a multiple of the cell, from the thirty best asks."""
    edge, cell = asks[-1][0], depth.cell
    first = edge // cell + 1  # a cell holds the prices above the one before, up to its own
    last = min(first + _cells(level, cell), 2 * asks[0][0] // cell)
    numbers = np.arange(first, max(last, first) + 1)
    ticks = numbers * cell // depth.grid - np.maximum((numbers - 1) * cell, edge) // depth.grid
    groups = -(-numbers * cell // level)
    sizes = _sums(groups, _weights(depth, numbers, ticks), depth.share)
    for price, size in asks:
        group = -(-price // level)
        sizes[group] = sizes.get(group, 0) + size
    return _rows(sorted(sizes.items()), level)


def grouped_bids(bids: Sequence[Row], level: int, depth: Depth) -> list[Row]:
    """Thirty groups of a level, a multiple of the cell, from the thirty best bids."""
    edge, cell = min(price for price, _ in bids if price > 0), depth.cell
    first = (edge - 1) // cell  # a cell holds the prices from its own on, below the next
    last = max(first - _cells(level, cell), 1)
    numbers = np.arange(last, max(first, 0) + 1)
    upper = np.minimum((numbers + 1) * cell, edge)
    ticks = -(-upper // depth.grid) - -(-numbers * cell // depth.grid)
    # Bids and asks of one price differ.
    sizes = _sums(numbers * cell // level, _weights(depth, ~numbers, ticks), depth.share)
    for price, size in bids:
        group = price // level
        sizes[group] = sizes.get(group, 0) + size
    sizes.pop(0, None)  # nothing is bid at 0
    return _rows(sorted(sizes.items(), reverse=True), level)


def _cells(level: int, cell: int) -> int:
    return BOOK_LEVELS * (level // cell) + _SPARE_CELLS


def _weights(depth: Depth, numbers: IntArray, ticks: IntArray) -> IntArray:
    bits = draws(depth.key, numbers)
    shares = 40 * 65_536 // (bit_field(bits, 0, 16) + 3_000)
    weights: IntArray = np.where(bit_field(bits, 16, 3) > 0, -(-shares * ticks // _THINNING), 0)
    return weights


def _sums(groups: IntArray, weights: IntArray, share: int) -> dict[int, int]:
    """Sizes of the groups; `groups` are in order."""
    if len(groups) == 0:
        return {}
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    sums = np.add.reduceat(weights, starts).tolist()
    return {
        group: share * weight for group, weight in zip(groups[starts].tolist(), sums, strict=True)
    }


def _rows(sizes: Sequence[tuple[int, int]], level: int) -> list[Row]:
    filled = ((group * level, size) for group, size in sizes if size > 0)
    rows = list(islice(filled, BOOK_LEVELS))
    return rows + [(0, 0)] * (BOOK_LEVELS - len(rows))
