"""A clock that stands until a test moves it."""

from __future__ import annotations

AUTUMN_2025_MS = 1_757_894_400_000
"""2025-09-15T00:00:00Z, a Monday, inside the recordings."""


class ManualClock:
    """Implements `upbit_backbone.clock.Clock`; time passes in `advance` alone."""

    def __init__(self, now_ms: int = AUTUMN_2025_MS, monotonic_s: float = 1_000.0) -> None:
        self._now_ms = float(now_ms)
        self._monotonic_s = monotonic_s

    def now_ms(self) -> int:
        return int(self._now_ms)

    def monotonic(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass, by both clocks."""
        assert seconds >= 0, seconds
        self._now_ms += seconds * 1_000
        self._monotonic_s += seconds

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock, as a person or NTP does; the monotonic one goes on."""
        self._now_ms = float(now_ms)
