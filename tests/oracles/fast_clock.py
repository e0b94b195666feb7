"""A clock for streams: a minute of the market passes in seconds of a test.

No faster than this: what a stream is more than ten of its seconds late for it leaves out, and
a busy machine may stand still for a second of its own.
"""

from __future__ import annotations

from upbit_backbone.clock import SECOND_MS, SystemClock

SPEED = 5


class FastClock:
    """Starts at a fixed instant and runs five times as fast as the machine's."""

    def __init__(self, start_ms: int) -> None:
        self._system = SystemClock()
        self._start_ms = start_ms
        self._began_s = self.monotonic()

    def now_ms(self) -> int:
        return self._start_ms + int((self.monotonic() - self._began_s) * SECOND_MS)

    def monotonic(self) -> float:
        return self._system.monotonic() * SPEED
