"""The newest ticker and order book of each symbol, and how long ago it was known to be true."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar, cast

import msgspec

from upbit_backbone.clock import Clock, epoch_ms
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import Orderbook, Ticker, Trade

Held = TypeVar("Held", Ticker, Orderbook)

MAX_AHEAD_S = 60.0
"""A stamp further in the future is a fault of the sender (seen in 2023: microseconds)."""


class _Entry:
    __slots__ = ("confirmed", "received_s", "value")

    def __init__(self, value: Ticker | Orderbook, received_s: float) -> None:
        self.value = value
        self.received_s = received_s
        self.confirmed = False


class RealtimeCache:
    """Plain bookkeeping: the caller passes `now`, in seconds of the monotonic clock.

    A value never gives way to an older one by the exchange's stamp. Its age counts from its
    receive time or, while its stream is confirmed, from the last sign of life of the
    connection: a quiet market on a living connection is not old.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[tuple[type, str], _Entry] = {}
        self._last_life_s = float("-inf")

    def put(self, value: Ticker | Orderbook, now: float, *, live: bool) -> bool:
        """Keep a value; False when it is older than what is held, and dropped.

        Args:
            value: What arrived.
            now: When.
            live: It came from a confirmed stream.

        Raises:
            ProtocolError: its stamp lies more than 60 s ahead of the exchange's clock.
        """
        check_stamp(value, self._clock.now_ms())
        key = (type(value), value.symbol)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(value, now)
        entry.confirmed = entry.confirmed or live
        if value.exchange_time < entry.value.exchange_time:
            return False
        entry.value, entry.received_s = value, now
        return True

    def newest(self, value: Held) -> Held:
        """What is held of the kind and symbol of a value that was put before."""
        return cast(Held, self._entries[(type(value), value.symbol)].value)

    def alive(self, now: float) -> None:
        """The connection gave a sign of life."""
        self._last_life_s = now

    def interrupted(self) -> None:
        """The connection is gone: every value ages from its own receive time again."""
        for entry in self._entries.values():
            entry.confirmed = False

    def unwatched(self, kind: type, symbol: str) -> None:
        """The stream of one symbol was given up: its value ages from now on."""
        entry = self._entries.get((kind, symbol))
        if entry is not None and entry.confirmed:
            entry.confirmed = False
            entry.received_s = max(entry.received_s, self._last_life_s)

    def age_s(self, kind: type, symbol: str, now: float) -> float | None:
        """Seconds since the value was last known to be current; None: there is none."""
        entry = self._entries.get((kind, symbol))
        if entry is None:
            return None
        known_s = max(entry.received_s, self._last_life_s) if entry.confirmed else entry.received_s
        return max(0.0, now - known_s)

    def peek(
        self, kind: type, symbol: str, max_age_s: float, now: float
    ) -> Ticker | Orderbook | None:
        """The value, when it is at most `max_age_s` old."""
        age_s = self.age_s(kind, symbol, now)
        if age_s is None or age_s > max_age_s:
            return None
        return self._entries[(kind, symbol)].value


def check_stamp(value: Ticker | Orderbook | Trade, now_ms: int) -> None:
    """Refuse what is stamped in the future; it would order everything after it wrongly.

    Raises:
        ProtocolError: the stamp lies more than 60 s ahead of `now_ms`, the exchange's clock.
    """
    ahead_s = epoch_ms(value.exchange_time) / 1_000 - now_ms / 1_000
    if ahead_s > MAX_AHEAD_S:
        raise ProtocolError(
            f"{value.symbol}: a {type(value).__name__.lower()} stamped"
            f" {timedelta(seconds=round(ahead_s))} in the future was refused"
        )


def trimmed(book: Orderbook, depth: int) -> Orderbook:
    """The first `depth` rows of each side; the totals stay those of the whole book."""
    if len(book.asks) <= depth and len(book.bids) <= depth:
        return book
    return msgspec.structs.replace(book, asks=book.asks[:depth], bids=book.bids[:depth])
