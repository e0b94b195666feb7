"""The relative strength index with Wilder's smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from upbit_backbone.indicators.indicator import (
    NO_VALUE,
    Closes,
    Period,
    check_close,
    nothing_to_revise,
)

SETTLED_AFTER_PERIODS = 20
"""Wilder's averages never forget where they began: after so many periods the beginning
weighs less than e^-20, 2e-9 of the whole."""


class _Averages(NamedTuple):
    """What the next value follows from."""

    changes: int
    """How many were seen; fewer than the period: `gain` and `loss` are still sums."""
    gain: float
    loss: float
    close: float


class RSI:
    """Relative strength index, 0 to 100 (J. Welles Wilder, 1978), as TA-Lib's ``TA_RSI``.

    The first averages of gain and loss are the means of the first `period` changes; each
    later one is the former times ``period - 1``, plus the new change, over `period`. Where
    no close has changed at all, it is 0.0, as TA-Lib has it, not 50.
    """

    name: ClassVar[str] = "RSI"
    parameters: ClassVar[Mapping[str, Period]] = {"period": Period(default=14, least=2)}

    def __init__(self, period: int = 14) -> None:
        """Begin without a close.

        Raises:
            InvalidRequestError: the period is no whole number from 2 to 10,000.
        """
        self.period = self.parameters["period"].check("period", period)
        self._before: _Averages | None = None
        """The state that the last close was added to; None: it was the first one."""
        self._now: _Averages | None = None

    def update(self, close: float) -> float:
        """As `Indicator.update`."""
        close = check_close(close)
        self._before = self._now
        return self._add(close)

    def revise(self, close: float) -> float:
        """As `Indicator.revise`."""
        if self._now is None:
            raise nothing_to_revise()
        return self._add(check_close(close))

    def _add(self, close: float) -> float:
        before, period = self._before, self.period
        if before is None:
            self._now = _Averages(0, 0.0, 0.0, close)
            return NO_VALUE
        changes, gain, loss, previous = before
        change = close - previous
        if changes >= period:
            gain, loss = gain * (period - 1), loss * (period - 1)
        if change < 0:
            loss -= change
        else:
            gain += change
        changes += 1
        if changes >= period:
            # Like TA-Lib: one reciprocal, of which the last bits are those of its values.
            gain, loss = gain * (1 / period), loss * (1 / period)
        self._now = _Averages(changes, gain, loss, close)
        return _strength(gain, loss) if changes >= period else NO_VALUE

    @staticmethod
    def of(closes: Closes, period: int) -> Closes:
        """The values of a whole column, NaN for the first `period`.

        Each follows from the one before, so this is a loop: 0.2 ms for 1,000 candles.
        """
        values = np.full(len(closes), NO_VALUE)
        if len(closes) <= period:
            return values
        changes = np.diff(closes)
        gains: list[float] = np.where(changes > 0, changes, 0.0).tolist()
        losses: list[float] = np.where(changes < 0, -changes, 0.0).tolist()
        kept, share = period - 1, 1 / period
        gain, loss = _sum(gains[:period]) * share, _sum(losses[:period]) * share
        strengths = [_strength(gain, loss)]
        for up, down in zip(gains[period:], losses[period:], strict=True):
            gain = (gain * kept + up) * share
            loss = (loss * kept + down) * share
            total = gain + loss
            strengths.append(100 * (gain / total) if total else 0.0)
        values[period:] = strengths
        return values

    @staticmethod
    def candles_before(period: int) -> int:
        """How many candles a value needs before its own to be settled."""
        return period * (1 + SETTLED_AFTER_PERIODS)


def _sum(numbers: list[float]) -> float:
    """One after another: since Python 3.12 `sum` rounds otherwise than TA-Lib does."""
    total = 0.0
    for number in numbers:
        total += number
    return total


def _strength(gain: float, loss: float) -> float:
    total = gain + loss
    return 100 * (gain / total) if total else 0.0
