"""Two readings of the same candles beside each other. Pure functions of columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from upbit_backbone.models import CandleSeries
from upbit_backbone.storage.coverage_table import SUM_TOLERANCE

_PRICES = ("open", "high", "low", "close")
_SUMS = ("volume", "value")


class Comparison(NamedTuple):
    """What a reading says of stored candles of one range."""

    agreeing: int
    """How many are in both, and alike."""
    restated: tuple[int, ...]
    """Open times of those that are in both, and differ."""
    vanished: tuple[int, ...]
    """Open times of those that the reading does not have."""
    appeared: tuple[int, ...]
    """Open times of those that are not stored."""

    @property
    def differing(self) -> tuple[int, ...]:
        """Open times of all that is not alike, ascending."""
        return tuple(sorted((*self.restated, *self.vanished, *self.appeared)))


def compare(held: CandleSeries, read: CandleSeries) -> Comparison:
    """Compare as settling does: prices are equal, sums within `SUM_TOLERANCE`.

    Args:
        held: What is stored of a range, ascending.
        read: What was read of the same range, ascending.
    """
    both, at_held, at_read = np.intersect1d(
        held.time, read.time, assume_unique=True, return_indices=True
    )
    alike: npt.NDArray[np.bool_] = np.ones(len(both), bool)
    for name in _PRICES:
        alike &= getattr(held, name)[at_held] == getattr(read, name)[at_read]
    for name in _SUMS:
        one, other = getattr(held, name)[at_held], getattr(read, name)[at_read]
        alike &= np.abs(one - other) <= SUM_TOLERANCE * np.maximum(np.abs(one), np.abs(other))
    return Comparison(
        int(np.count_nonzero(alike)),
        tuple(both[~alike].tolist()),
        tuple(np.setdiff1d(held.time, read.time, assume_unique=True).tolist()),
        tuple(np.setdiff1d(read.time, held.time, assume_unique=True).tolist()),
    )


def picked(rows: CandleSeries, open_times: tuple[int, ...]) -> CandleSeries:
    """Those of the candles that open at the given times."""
    parts = [rows.between(at, at + 1) for at in open_times]
    return CandleSeries.merged(parts or [rows[:0]])
