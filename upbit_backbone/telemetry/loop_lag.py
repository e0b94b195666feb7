"""How late the event loop runs: the discomfort that every caller shares."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from upbit_backbone.clock import Clock

INTERVAL_S = 0.1
KEPT = 20
"""Samples of the last two seconds."""
QUIET_S = 0.005
UNBEARABLE_S = 0.1


class LoopLagProbe:
    """Sleeps a little, and looks how much longer it took."""

    def __init__(self, clock: Clock, *, start_s: float = 0.0) -> None:
        """Begin without a sample.

        Args:
            clock: Measures.
            start_s: How long a start takes, whose own work makes the loop late: that is no load.
        """
        self._clock = clock
        self._start_s = start_s
        self._lags: deque[float] = deque(maxlen=KEPT)

    async def run(self) -> None:
        """Measure until cancelled."""
        began = self._clock.monotonic()
        while True:
            started = self._clock.monotonic()
            await asyncio.sleep(INTERVAL_S)
            now = self._clock.monotonic()
            if started - began >= self._start_s:
                self._lags.append(max(0.0, now - started - INTERVAL_S))

    @property
    def p95_s(self) -> float:
        """95th percentile of the last two seconds; 0.0 before the first sample."""
        if not self._lags:
            return 0.0
        return sorted(self._lags)[math.ceil(len(self._lags) * 0.95) - 1]

    @property
    def load(self) -> float:
        """The lag as a load: 0 up to 5 ms, 100 from 100 ms on, linear between."""
        share = (self.p95_s - QUIET_S) / (UNBEARABLE_S - QUIET_S)
        return 100.0 * min(1.0, max(0.0, share))
