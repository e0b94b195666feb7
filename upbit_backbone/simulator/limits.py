"""How often one caller may ask, as the exchange counts it.

Pure bookkeeping: the caller passes the time. A window is a fixed second (or ten), the
same for all callers; calls that are refused do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Limit(NamedTuple):
    """So many calls in each window."""

    calls: int
    window_s: float


QUOTATION = Limit(10, 1.0)
LIMITS: Mapping[str, Limit] = {
    "market": QUOTATION,
    "candles": QUOTATION,
    "trades": QUOTATION,
    "ticker": QUOTATION,
    "orderbook": QUOTATION,
    "origin": Limit(1, 10.0),
    "websocket": Limit(5, 1.0),
}
"""By the group's name in the `remaining-req` header (upbit-api, section 4)."""


class CallCounter:
    """Counts calls per group and caller.

    Attributes:
        served: Calls let through since the start, per group.
        refused: Calls refused since the start, per group.
    """

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._windows: dict[tuple[str, str], tuple[int, int]] = {}

    def take(self, group: str, caller: str, now: float) -> int | None:
        """Count one call at monotonic time `now`.

        Returns:
            How many more the window allows, or None: refused.
        """
        limit = LIMITS[group]
        window = int(now // limit.window_s)
        counted_in, calls = self._windows.get((group, caller), (window, 0))
        if counted_in != window:
            calls = 0
        if calls >= limit.calls:
            self.refused[group] += 1
            return None
        self.served[group] += 1
        self._windows[group, caller] = (window, calls + 1)
        return limit.calls - calls - 1
