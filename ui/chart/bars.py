"""The bars that one chart holds.

Each bar has a lasting index: 0 is the first bar that was ever loaded, older ones that
come later are negative. So loading history moves nothing that is already on the screen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from upbit_backbone.models import CandleSeries, Timeframe

FloatColumn = npt.NDArray[np.float64]
_TIME, _OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(6)
_COLUMNS = ("time", "open", "high", "low", "close", "volume")
_SLACK = 512


class Bars:
    """Columns of bars, ascending by open time, without duplicates; views are read-only."""

    def __init__(self, symbol: str, timeframe: Timeframe) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.first = 0
        """Index of the oldest bar."""
        # One table with room at both ends: a live bar or a page of history copies nothing old.
        self._table = np.empty((len(_COLUMNS), _SLACK))
        self._begin = self._end = _SLACK // 2

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def last(self) -> int:
        """Index of the newest bar; `first` - 1 while there are none."""
        return self.first + len(self) - 1

    @property
    def oldest_ms(self) -> int:
        return int(self._table[_TIME, self._begin])

    @property
    def newest_ms(self) -> int:
        return int(self._table[_TIME, self._end - 1])

    def rows(self, low: int, high: int) -> npt.NDArray[np.float64]:
        """The bars with ``low <= index < high`` as rows time, open, high, low, close, volume.

        What lies outside is left out. Epoch milliseconds are exact in float64.
        """
        start = self._begin + max(low - self.first, 0)
        stop = self._begin + max(min(high - self.first, len(self)), 0)
        view = self._table[:, start : max(start, stop)]
        view.flags.writeable = False
        return view

    def bar(self, index: int) -> FloatColumn | None:
        """One bar as time, open, high, low, close, volume; None outside."""
        if not self.first <= index <= self.last:
            return None
        found: FloatColumn = self.rows(index, index + 1)[:, 0]
        return found

    def index_at(self, time_ms: float) -> int:
        """Index of the bar at `time_ms`, or of the first one after it."""
        times = self._table[_TIME, self._begin : self._end]
        return self.first + int(np.searchsorted(times, time_ms))

    def merge(self, series: CandleSeries) -> None:
        """Take candles in; one that is already there is replaced.

        Indices stay, except that a candle found between known ones pushes the older side
        down: the newest bar, where the eye is, never moves for that.
        """
        if not len(series):
            return
        new = np.stack([getattr(series, name) for name in _COLUMNS], dtype=np.float64)
        if not len(self) or new[_TIME, 0] > self.newest_ms:
            self._append(new)
        elif new[_TIME, 0] == self.newest_ms:
            self._table[:, self._end - 1] = new[:, 0]
            self._append(new[:, 1:])
        elif new[_TIME, -1] < self.oldest_ms:
            self._prepend(new)
        else:
            self._weave(new)

    def _append(self, new: FloatColumn) -> None:
        count = new.shape[1]
        if self._end + count > self._table.shape[1]:
            self._grow(0, count)
        self._table[:, self._end : self._end + count] = new
        self._end += count

    def _prepend(self, new: FloatColumn) -> None:
        count = new.shape[1]
        if self._begin < count:
            self._grow(count, 0)
        self._table[:, self._begin - count : self._begin] = new
        self._begin -= count
        self.first -= count

    def _weave(self, new: FloatColumn) -> None:
        old = self._table[:, self._begin : self._end]
        last_index, newest = self.last, old[_TIME, -1]
        both = np.concatenate([old, new], axis=1)
        order = np.argsort(both[_TIME], kind="stable")
        last_of_equals = np.append(np.diff(both[_TIME][order]) > 0, True)
        merged = both[:, order[last_of_equals]]
        self._table = np.empty((len(_COLUMNS), merged.shape[1] + _SLACK))
        self._begin, self._end = _SLACK // 2, _SLACK // 2
        self._append(merged)
        place: Any = np.searchsorted(merged[_TIME], newest)
        self.first = last_index - int(place)

    def _grow(self, before: int, after: int) -> None:
        # Half as much again on the side that grew: copying stays cheap however long one scrolls.
        slack = max(_SLACK, len(self) // 2)
        left = self._begin if not before else before + slack
        right = self._table.shape[1] - self._end if not after else after + slack
        table = np.empty((len(_COLUMNS), left + len(self) + right))
        table[:, left : left + len(self)] = self._table[:, self._begin : self._end]
        self._begin, self._end, self._table = left, left + len(self), table
