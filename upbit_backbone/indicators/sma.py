"""The simple moving average: the mean of the last so many closes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from upbit_backbone.indicators.indicator import (
    NO_VALUE,
    Closes,
    Period,
    check_close,
    nothing_to_revise,
)


class SMA:
    """Simple moving average of the last `period` closes, in the quote asset.

    The sum runs along, in TA-Lib's order of additions (``TA_SMA``), so that the last bits
    agree with its own. Its rounding is relative to the largest closes it has met, about
    1e-16 of them a candle.
    """

    name: ClassVar[str] = "SMA"
    parameters: ClassVar[Mapping[str, Period]] = {"period": Period(default=20, least=1)}

    def __init__(self, period: int = 20) -> None:
        """Begin without a close.

        Raises:
            InvalidRequestError: the period is no whole number from 1 to 10,000.
        """
        self.period = self.parameters["period"].check("period", period)
        self._before: deque[float] = deque()
        """Closes of the window without the last one, and their sum."""
        self._sum_before = 0.0
        self._last: float | None = None

    def update(self, close: float) -> float:
        """As `Indicator.update`."""
        close = check_close(close)
        if self._last is not None:
            self._before.append(self._last)
            self._sum_before += self._last
            if len(self._before) == self.period:
                self._sum_before -= self._before.popleft()
        self._last = close
        return self._value(close)

    def revise(self, close: float) -> float:
        """As `Indicator.revise`."""
        if self._last is None:
            raise nothing_to_revise()
        self._last = check_close(close)
        return self._value(self._last)

    def _value(self, last: float) -> float:
        if len(self._before) < self.period - 1:
            return NO_VALUE
        return (self._sum_before + last) / self.period

    @staticmethod
    def of(closes: Closes, period: int) -> Closes:
        """The values of a whole column, NaN for the first ``period - 1``."""
        values = np.full(len(closes), NO_VALUE)
        rest = len(closes) - period
        if rest < 0:
            return values
        # One running sum: the first window, then always one close out and one in.
        steps = np.empty(period + 2 * rest)
        steps[:period] = closes[:period]
        steps[period::2] = -closes[:rest]
        steps[period + 1 :: 2] = closes[period:]
        values[period - 1 :] = np.cumsum(steps)[period - 1 :: 2] / period
        return values

    @staticmethod
    def candles_before(period: int) -> int:
        """How many candles a value needs before its own."""
        return period - 1
