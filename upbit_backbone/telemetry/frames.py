"""How long the screen takes for a frame, as it tells."""

from __future__ import annotations

import math
from collections import deque

SPAN_S = 10.0
MOST = 1_200
"""Ten seconds of a fast screen: 120 frames a second."""


class FrameTimes:
    """Frames of the last ten seconds. Plain bookkeeping: the caller passes `now`."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, float]] = deque(maxlen=MOST)

    def drawn(self, taken_s: float, now: float) -> None:
        """Tell of a frame; costs one append."""
        self._frames.append((now, taken_s))

    def p95_s(self, now: float) -> float | None:
        """95th percentile in seconds; None while no screen tells of frames."""
        while self._frames and self._frames[0][0] <= now - SPAN_S:
            self._frames.popleft()
        if not self._frames:
            return None
        taken = sorted(taken_s for _, taken_s in self._frames)
        return taken[math.ceil(len(taken) * 0.95) - 1]
