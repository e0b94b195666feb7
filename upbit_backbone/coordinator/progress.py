"""How far a long load has come, and how long it will still take. Takes `now`; no clock."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import Progress, ProgressState

SPEED_OVER_S = 10.0
"""Long enough that a page more or less does not show, short enough that a pause does not last."""
_LEAST_S = 0.5
"""Over less time a speed is a guess."""


class ProgressMeter:
    """Counts finished periods and candles; tells the speed of the last seconds."""

    def __init__(self, symbol: str, timeframe: Timeframe, total: int, now: float) -> None:
        """Begin at nothing.

        Args:
            symbol: Whose candles.
            timeframe: Of the candles.
            total: How many periods of the range can be had.
            now: Monotonic seconds.
        """
        self._symbol = symbol
        self._timeframe = timeframe
        self._total = total
        self._done = self._candles = 0
        self._asked = self._new = 0
        self._marks: deque[tuple[float, int, int]] = deque([(now, 0, 0)])
        """When so many periods and candles had come from the exchange."""
        self._state: ProgressState = "running"
        self._reason = ""
        self._until: datetime | None = None

    def advance(
        self, now: float, done: int, total: int, candles: int, *, asked: int, new: int
    ) -> None:
        """Take how far it has come.

        Args:
            now: Monotonic seconds.
            done: Finished periods of those that can be had.
            total: How many can be had, as far as that is known.
            candles: How many were found since the last time.
            asked: How many periods were asked for since then: what is stored is no speed.
            new: How many of the candles were.
        """
        self._done, self._total, self._candles = done, total, self._candles + candles
        if not asked and not self._asked:
            self._marks = deque([(now, 0, 0)])  # it has not begun to load
            return
        self._asked, self._new = self._asked + asked, self._new + new
        self._marks.append((now, self._asked, self._new))
        # One older mark is kept: the speed is measured from it.
        while len(self._marks) > 2 and self._marks[1][0] <= now - SPEED_OVER_S:
            self._marks.popleft()

    def enter(self, state: ProgressState, reason: str = "", until: datetime | None = None) -> bool:
        """Take the state; False: nothing changed."""
        if (self._state, self._reason, self._until) == (state, reason, until):
            return False
        self._state, self._reason, self._until = state, reason, until
        return True

    def at(self, now: float) -> Progress:
        """The figures of this moment."""
        since, asked, new = self._marks[0]
        took_s = now - since
        known = took_s >= _LEAST_S
        periods_per_s = (self._asked - asked) / took_s if known else 0.0
        left = self._total - self._done
        time_left_s = left / periods_per_s if periods_per_s else None
        return Progress(
            self._symbol,
            self._timeframe,
            self._done,
            self._total,
            self._candles,
            (self._new - new) / took_s if known else 0.0,
            time_left_s if left else 0.0,
            self._state,
            self._reason,
            self._until,
            self._new,
        )
