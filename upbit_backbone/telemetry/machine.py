"""What this process takes of the machine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    """Memory and processor time of this process."""

    rss_bytes: int
    processor_s: float
    """Seconds of all threads since the process began."""


def process_usage() -> Callable[[], Usage]:
    """Ask the system about this process; a call takes some tens of microseconds."""
    process = psutil.Process()

    def usage() -> Usage:
        with process.oneshot():
            times = process.cpu_times()
            return Usage(process.memory_info().rss, times.user + times.system)

    return usage


def memory_returner() -> Callable[[], None]:
    """What gives memory that was freed back to the system.

    The C library keeps it for later, so the process would go on taking what its caches gave up:
    measured on Linux, 66 MB of candles came back in 4 ms. Elsewhere than with glibc it does
    nothing.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda: None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return lambda: trim(0)


class ProcessorMeter:
    """Turns processor time into a share of the machine. The caller passes `now`."""

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._last: tuple[float, float, float] | None = None
        self.share = 0.0
        """Of all usable processors, 0 to 1, between the last two measurements."""
        self.low_share = 0.0
        """What of it was spent for LOW."""

    def measured(self, processor_s: float, low_s: float, now: float) -> None:
        """Take processor time since the process began, and what of it LOW's work took."""
        if self._last is not None and now > self._last[2]:
            before_s, low_before_s, then = self._last
            whole_s = (now - then) * self._processors
            self.share = min(1.0, max(0.0, (processor_s - before_s) / whole_s))
            self.low_share = min(self.share, max(0.0, (low_s - low_before_s) / whole_s))
        self._last = (processor_s, low_s, now)
