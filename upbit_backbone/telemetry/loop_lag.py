"""How late the event loop runs: the discomfort that every caller shares."""

from __future__ import annotations

import asyncio
from collections import deque

from upbit_backbone.clock import Clock

INTERVAL_S = 0.1
SPAN_S = 2.0
"""Time that is looked back on."""
QUIET_S = 0.005
UNBEARABLE_S = 0.1


class LoopLagProbe:
    """Sleeps a little, and looks how much longer it took.

    Each sample stands for the same time, so that a stall counts as long as it lasted: whoever was
    due while it went on, one in each interval, was late by what was left of it.
    """

    def __init__(self, clock: Clock, *, start_s: float = 0.0) -> None:
        """Begin without a sample.

        Args:
            clock: Measures.
            start_s: How long a start takes, whose own work makes the loop late: that is no load.
        """
        self._clock = clock
        self._start_s = start_s
        self._lags: deque[tuple[float, float]] = deque()
        """When somebody was due, and how late that was."""

    async def run(self) -> None:
        """Measure until cancelled."""
        began = self._clock.monotonic()
        while True:
            started = self._clock.monotonic()
            await asyncio.sleep(INTERVAL_S)
            now = self._clock.monotonic()
            if started - began >= self._start_s:
                self.woke(max(0.0, now - started - INTERVAL_S), now)

    def woke(self, lag_s: float, now: float) -> None:
        """Take that a sleep ended at `now`, so much late."""
        oldest_s = now - SPAN_S - INTERVAL_S
        due_s = now - min(lag_s, SPAN_S)  # a machine that slept for hours was late long ago
        while due_s <= now:
            self._lags.append((due_s, now - due_s))
            due_s += INTERVAL_S
        while self._lags and self._lags[0][0] <= oldest_s:
            self._lags.popleft()

    @property
    def p95_s(self) -> float:
        """95th percentile of the last two seconds; 0.0 before the first sample."""
        if not self._lags:
            return 0.0
        # Of the time, not of the samples: one alone may be late in two seconds, though each sleep
        # took a little longer than it should.
        (first_s, _), (last_s, last_lag_s) = self._lags[0], self._lags[-1]
        intervals = (last_s + last_lag_s - first_s) / INTERVAL_S + 1
        lags_s = sorted(lag_s for _, lag_s in self._lags)
        return lags_s[max(0, len(lags_s) - 1 - int(0.05 * intervals + 1e-9))]

    @property
    def load(self) -> float:
        """The lag as a load: 0 up to 5 ms, 100 from 100 ms on, linear between."""
        share = (self.p95_s - QUIET_S) / (UNBEARABLE_S - QUIET_S)
        return 100.0 * min(1.0, max(0.0, share))
