"""Stamps that cannot be: from so far in the future that they would order all after them wrongly."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from upbit_backbone.clock import SECOND_MS, Clock, epoch_ms, utc_datetime
from upbit_backbone.models import Orderbook, Ticker, Trade
from upbit_backbone.routing.exchange import MAX_AHEAD_S

logger = logging.getLogger(__name__)

Stamped = TypeVar("Stamped", bound=Ticker | Orderbook | Trade)

LOOK_EVERY_S = 1.0
"""So old the limit may be that stamps are compared with first; what is beyond it is judged by the
clock itself."""
MAX_NOTED = 4_096
"""Streams whose fault is remembered, so that it is logged once; a whole exchange has fewer."""
_MAX_AHEAD_MS = round(MAX_AHEAD_S * SECOND_MS)


def mended(value: Stamped, now_ms: int) -> tuple[Stamped, bool]:
    """The value with a stamp that can be, and whether that is the exchange's own.

    A stamp more than 60 s ahead of `now_ms`, the exchange's clock, is replaced by `now_ms`: the
    value has just been received. Such a stamp tells nothing of the order of values. (Stamps in
    microseconds, seen in 2023, are told by their size and read right where they are decoded.)
    """
    limit_ms = now_ms + _MAX_AHEAD_MS
    trusted = epoch_ms(value.exchange_time) <= limit_ms
    if not trusted:
        value = msgspec.structs.replace(value, exchange_time=utc_datetime(now_ms))
    if isinstance(value, Ticker) and epoch_ms(value.trade_time) > limit_ms:
        # It is shown, and orders nothing.
        value = msgspec.structs.replace(value, trade_time=value.exchange_time)
    return value, trusted


class Stamps:
    """Mends stamps, counts what it mended, and logs each stream's first fault."""

    def __init__(self, clock: Clock) -> None:
        """Take the exchange's clock."""
        self._clock = clock
        self._noted: set[tuple[str, str]] = set()
        self._limit: datetime
        self._limit_until_s = float("-inf")
        self.faults = 0

    def mended(self, value: Stamped) -> tuple[Stamped, bool]:
        """As the function of this name, for a value that has just been received."""
        now_s = self._clock.monotonic()
        if now_s >= self._limit_until_s:
            self._limit = utc_datetime(self._clock.now_ms() + _MAX_AHEAD_MS)
            self._limit_until_s = now_s + LOOK_EVERY_S
        # The hot path: nearly all stamps are of the past.
        limit = self._limit
        if value.exchange_time <= limit and (
            not isinstance(value, Ticker) or value.trade_time <= limit
        ):
            return value, True
        now_ms = self._clock.now_ms()
        ahead_ms = epoch_ms(value.exchange_time) - now_ms
        fit, trusted = mended(value, now_ms)
        if not trusted:
            ahead = timedelta(seconds=round(ahead_ms / 1_000))
            self.note(
                type(value).__name__.lower(), value.symbol, f"{ahead} in the future", "replaced"
            )
        return fit, trusted

    def note(self, kind: str, symbol: str, what: str, done: str) -> None:
        """Count a faulty stamp, and say so the first time for its kind and symbol.

        Args:
            kind: Of the value.
            symbol: Of the value.
            what: How the stamp was wrong, in words: "in microseconds".
            done: What was done to it: "divided by 1,000".
        """
        self.faults += 1
        key = (kind, symbol)
        if key not in self._noted and len(self._noted) < MAX_NOTED:
            self._noted.add(key)
            logger.warning(
                "a %s of %s was stamped %s: %s, as the next ones will be", kind, symbol, what, done
            )
