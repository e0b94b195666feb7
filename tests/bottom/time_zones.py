"""Run a test under another local time zone, and put the former one back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Each rule spelled out (POSIX), so that no time zone database has to be installed. Korea
# has had no daylight saving time since 1988; New York's rule is in force since 2007.
RULES = {
    "UTC": "UTC0",
    "Asia/Seoul": "KST-9",
    "America/New_York": "EST5EDT,M3.2.0,M11.1.0",
}
ZONES = tuple(RULES)

needs_tzset = pytest.mark.skipif(
    not hasattr(time, "tzset"), reason="this system cannot change a process's time zone"
)


@contextmanager
def local_zone(name: str) -> Iterator[None]:
    """Make `name` the local zone of this process for a while."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = RULES[name]
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
