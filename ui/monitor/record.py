"""What the monitor remembers of the last minutes, for its plots."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

KEPT_S = 300.0
"""The plots show the last five minutes."""


class Record:
    """Load and event-loop lag, a sample a second, from the start of the program on."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float]] = deque()

    def add(self, at_s: float, load: float, lag_ms: float) -> None:
        """Add a sample of a moment in epoch seconds; what is older than `KEPT_S` goes."""
        if self._samples and at_s <= self._samples[-1][0]:
            # The clock was put back: a line does not run backwards.
            self._samples.clear()
        self._samples.append((at_s, load, lag_ms))
        while self._samples[0][0] < at_s - KEPT_S:
            self._samples.popleft()

    def __len__(self) -> int:
        return len(self._samples)

    def columns(self) -> NDArray[np.float64]:
        """Three rows: epoch seconds, load of 0 to 100, lag in milliseconds."""
        return np.array(self._samples, dtype=np.float64).reshape(-1, 3).T
