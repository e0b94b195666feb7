"""What is remembered of the last seconds, minutes and hour: sums that forget what is too old.

A window is cut into intervals. What is told goes into the open interval and into the window's
sum; an interval that has grown too old is taken off the sum again. Plain bookkeeping: the
caller passes `now`, monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from upbit_backbone.protocol import LatencyStats

UNIT_S = 1e-7
"""Latencies are counted in tenths of a microsecond: a hit takes a few of them."""
LONGEST_S = 3_600.0
"""A longer call counts as one of an hour."""
SIGNIFICANT_DIGITS = 2
"""A histogram tells a latency to one hundredth of it."""
_SIGNIFICANT_BITS = 8
"""So many a histogram of two digits tells apart: twice 10² steps an octave fit into 2⁸."""
_LONGEST: Final = round(LONGEST_S / UNIT_S)

Counts = NDArray[np.uint32]
Steps = NDArray[np.intp]


class Window(NamedTuple):
    """How far back one looks, and in what intervals one forgets."""

    name: str
    span_s: float
    interval_s: float

    @property
    def intervals(self) -> int:
        return round(self.span_s / self.interval_s)

    def number(self, now: float) -> int:
        """Of the interval that `now` lies in."""
        return int(now // self.interval_s)


WINDOWS = (Window("10s", 10, 1), Window("5m", 300, 15), Window("1h", 3_600, 120))


class LatencyScale:
    """Cuts latencies into the steps of an HDR histogram.

    The histogram's own count of one value takes nearly a microsecond of Python, and its
    quantiles a fifth of a millisecond. So it is asked once for the step of a latency, and
    windows add, subtract and search arrays of counts.
    """

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, _LONGEST, SIGNIFICANT_DIGITS, word_size=4)
        self._counts: Counts = np.frombuffer(self._histogram.counts, dtype=np.uint32)
        self.steps = len(self._counts)
        self._step_of: dict[int, int] = {}
        self._upper_ms_of: dict[int, float] = {}

    def rounded(self, taken_s: Sequence[float]) -> list[int]:
        """Latencies in units, without the low bits that the histogram does not look at."""
        units = np.clip(np.array(taken_s) / UNIT_S, 0, _LONGEST).astype(np.int64)
        cut = np.maximum(np.frexp(units)[1] - _SIGNIFICANT_BITS, 0)
        rounded: list[int] = (units >> cut << cut).tolist()
        return rounded

    def step(self, units: int) -> int:
        """The step that a rounded latency falls on."""
        step = self._step_of.get(units)
        if step is None:
            self._histogram.record_value(units)
            step = self._step_of[units] = int(self._counts.argmax())
            self._counts[step] = 0
        return step

    def stats(self, counts: Counts) -> LatencyStats:
        """Quantiles and maximum, each the upper end of its step."""
        below = counts.cumsum(dtype=np.uint64)
        total = int(below[-1])
        if total == 0:
            return LatencyStats(0, 0.0, 0.0, 0.0, 0.0)
        # Rounded up: no more calls than the rest are slower. The library rounds to the nearest.
        targets = [-(-total * percent // 100) for percent in (50, 95, 99, 100)]
        steps = np.searchsorted(below, np.array(targets, dtype=np.uint64))
        p50, p95, p99, longest = map(self._upper_ms, steps.tolist())
        return LatencyStats(total, p50, p95, p99, longest)

    def _upper_ms(self, step: int) -> float:
        upper_ms = self._upper_ms_of.get(step)
        if upper_ms is None:
            histogram = self._histogram
            units = histogram.get_highest_equivalent_value(histogram.get_value_from_index(step))
            upper_ms = self._upper_ms_of[step] = units * (UNIT_S * 1_000)
        return upper_ms


class RollingHistogram:
    """Latencies of one window.

    It holds twice four bytes for each step of the scale (3,840 steps: 31 kB), and for each
    closed interval six bytes for each step that a call of it fell on.
    """

    def __init__(self, window: Window, steps: int) -> None:
        self._window = window
        self.counts: Counts = np.zeros(steps, dtype=np.uint32)
        """Calls of the window, by step."""
        self._open: Counts = np.zeros(steps, dtype=np.uint32)
        self._open_number = -1
        self._closed: deque[tuple[int, NDArray[np.uint16], Counts]] = deque()

    def add(self, steps: Steps, counted: Counts, now: float) -> None:
        """Count a batch: how many calls fell on each step; no step is named twice."""
        self.advance(now)
        self.counts[steps] += counted
        self._open[steps] += counted

    def advance(self, now: float) -> None:
        """Forget what is too old by `now`."""
        number = self._window.number(now)
        if number == self._open_number:
            return
        steps = np.flatnonzero(self._open)
        if steps.size:
            counted = self._open[steps]
            self._open[steps] = 0
            self._closed.append((self._open_number, steps.astype(np.uint16), counted))
        self._open_number = number
        while self._closed and self._closed[0][0] <= number - self._window.intervals:
            _, old_steps, old_counted = self._closed.popleft()
            self.counts[old_steps] -= old_counted

    @property
    def size_bytes(self) -> int:
        """Of what it holds."""
        closed = sum(steps.nbytes + counted.nbytes for _, steps, counted in self._closed)
        return self.counts.nbytes + self._open.nbytes + closed


class RollingCounts:
    """Counters of one window; the keys are few."""

    def __init__(self, window: Window, now: float) -> None:
        self._window = window
        self._counted_s = now
        """Up to when everything is counted that happened."""
        self._sums: dict[Hashable, float] = {}
        self._open: dict[Hashable, float] = {}
        self._open_number = window.number(now)
        self._closed: deque[tuple[int, dict[Hashable, float]]] = deque()
        self._begun = deque([(self._open_number, now)])
        """From when on each interval counts: what is told in it may have happened before it."""

    def add(self, key: Hashable, times: float, now: float) -> None:
        """Count what happened since the last call."""
        self.advance(now)
        self._open[key] = self._open.get(key, 0.0) + times
        self._sums[key] = self._sums.get(key, 0.0) + times

    def advance(self, now: float) -> None:
        """Forget what is too old by `now`."""
        number, before_s = self._window.number(now), self._counted_s
        self._counted_s = now
        if number == self._open_number:
            return
        if self._open:
            self._closed.append((self._open_number, self._open))
        self._open, self._open_number = {}, number
        self._begun.append((number, before_s))
        while self._begun[0][0] <= number - self._window.intervals:
            self._begun.popleft()
        while self._closed and self._closed[0][0] <= number - self._window.intervals:
            for key, times in self._closed.popleft()[1].items():
                self._sums[key] -= times
                if self._sums[key] == 0:
                    del self._sums[key]

    def __getitem__(self, key: Hashable) -> float:
        return self._sums.get(key, 0.0)

    @property
    def counted(self) -> tuple[Hashable, ...]:
        """The keys of what happened in the window."""
        return tuple(self._sums)

    def covered_s(self, now: float) -> float:
        """Seconds that the sums are of."""
        return now - self._begun[0][1]
