"""The time of a replay: the recording's, as fast as was asked."""

from __future__ import annotations

from upbit_backbone.clock import Clock
from upbit_backbone.recorder.records import Recording


class ReplayClock:
    """The exchange's time as a replay shows it; implements `Clock`.

    It stands at the recording's beginning until `start`, and at its end for ever. It never
    passes the record that is played next, so it stays with what clients were sent. Its
    monotonic side is the machine's: waiting takes real seconds.
    """

    def __init__(self, recording: Recording, speed: float, base: Clock) -> None:
        self._base = base
        self._speed = speed
        self._begins_us = recording.begins_us
        self._ends_us = max(recording.ends_us, recording.begins_us)
        self._next_us = self._ends_us
        header = recording.header
        self._zero_ms = header.started_ms + header.exchange_offset_ms
        self._started: float | None = None

    @property
    def started(self) -> bool:
        return self._started is not None

    def start(self) -> None:
        """Let the time run; once it runs, nothing happens."""
        if self._started is None:
            self._started = self._base.monotonic()

    def now_ms(self) -> int:
        return self._zero_ms + self.at_us() // 1_000

    def monotonic(self) -> float:
        return self._base.monotonic()

    def at_us(self) -> int:
        """The present as the recording counts it."""
        if self._started is None:
            return self._begins_us
        elapsed_us = (self._base.monotonic() - self._started) * self._speed * 1e6
        return min(self._begins_us + int(elapsed_us), self._next_us)

    def stop_at(self, at_us: int) -> None:
        """The record that is played next: until another one is, time stands still there."""
        self._next_us = min(at_us, self._ends_us)

    def wait_s(self, at_us: int) -> float:
        """Real seconds until the present reaches `at_us`; negative when it has passed."""
        assert self._started is not None
        elapsed_s = self._base.monotonic() - self._started
        return (at_us - self._begins_us) / 1e6 / self._speed - elapsed_s

    def set_back(self, late_s: float) -> None:
        """Run this many real seconds later from now on: the machine was not fast enough."""
        assert self._started is not None
        self._started += late_s
