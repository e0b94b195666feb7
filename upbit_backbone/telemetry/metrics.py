"""Latency per priority and plain counters."""

from __future__ import annotations

from collections import deque

import numpy as np

from upbit_backbone.protocol import LatencyStats, Priority

WINDOW_S = 300.0
MAX_SAMPLES = 20_000


class CallMetrics:
    """Counts answered calls. Plain bookkeeping: the caller passes `now`, monotonic seconds.

    An answered call costs one append to a bounded deque; quantiles are computed when asked.
    """

    def __init__(self) -> None:
        self._samples: dict[Priority, deque[tuple[float, float]]] = {
            priority: deque(maxlen=MAX_SAMPLES) for priority in Priority
        }
        self.requests = 0
        self.errors = 0
        self.cache_hits = 0

    def answered(self, priority: Priority, started: float, now: float, *, hit: bool) -> None:
        """Count a call that returned an answer."""
        self.requests += 1
        self.cache_hits += hit
        self._samples[priority].append((now, now - started))

    def failed(self) -> None:
        """Count a call that raised."""
        self.requests += 1
        self.errors += 1

    @property
    def hit_rate(self) -> float:
        """Answers from memory or the store, of all answers; a fraction."""
        answered = self.requests - self.errors
        return self.cache_hits / answered if answered else 0.0

    def latency(self, now: float) -> dict[Priority, LatencyStats]:
        """Quantiles over the last five minutes, milliseconds; all 0.0 without samples."""
        return {priority: self._stats(priority, now - WINDOW_S) for priority in Priority}

    def _stats(self, priority: Priority, since: float) -> LatencyStats:
        samples = self._samples[priority]
        while samples and samples[0][0] < since:
            samples.popleft()
        if not samples:
            return LatencyStats(0, 0.0, 0.0, 0.0, 0.0)
        taken_ms = np.array([seconds for _, seconds in samples]) * 1_000
        p50, p95, p99 = (float(value) for value in np.percentile(taken_ms, (50, 95, 99)))
        return LatencyStats(len(taken_ms), p50, p95, p99, float(taken_ms.max()))
