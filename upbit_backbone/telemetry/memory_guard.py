"""Lets caches give way before the process takes what it may not.

Plain bookkeeping: what is used is passed in.
"""

from __future__ import annotations

from typing import Final

BEGINS_AT: Final = 0.65
"""Of the limit. At 0.7 of it work for LOW begins to wait: caches give way before anybody does."""
ENDS_AT: Final = 0.55
"""At 0.6 of the limit LOW may go on: caches make room for that, and a little more."""


class MemoryGuard:
    """Says how much memory caches may hold, by what the process takes.

    What a cache frees does not always go back to the system. So it is given less, a measurement
    at a time, until the process takes less or the cache is empty; once there is room it grows
    again, by as much as there is.
    """

    def __init__(self, *, limit_bytes: int, cache_bytes: int) -> None:
        """Take the limits.

        Args:
            limit_bytes: What the process may take.
            cache_bytes: What caches may hold while there is room.
        """
        self._begins_bytes = int(limit_bytes * BEGINS_AT)
        self._ends_bytes = int(limit_bytes * ENDS_AT)
        self._cache_bytes = cache_bytes
        self.under_pressure = False
        """Whether caches have to give way, as of the last measurement."""
        self.gave_way = False
        """Whether they were told to free something: what is free then is worth returning."""

    def allowed_bytes(self, rss_bytes: int, held_bytes: int) -> int:
        """How many bytes caches may hold now.

        Args:
            rss_bytes: What the process takes.
            held_bytes: What of it caches hold.
        """
        if rss_bytes > self._begins_bytes:
            self.under_pressure = True
        elif rss_bytes <= self._ends_bytes:
            self.under_pressure = False
        most_bytes = self._ends_bytes if self.under_pressure else self._begins_bytes
        allowed_bytes = min(self._cache_bytes, max(0, held_bytes + most_bytes - rss_bytes))
        self.gave_way = allowed_bytes < held_bytes
        return allowed_bytes
