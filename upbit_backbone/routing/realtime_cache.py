"""The newest ticker and order book of each symbol, and how long ago it was known to be true."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec

from upbit_backbone.clock import Clock
from upbit_backbone.models import Orderbook, Ticker, Timeframe
from upbit_backbone.protocol import DataType
from upbit_backbone.routing.stamps import Stamps

Held = TypeVar("Held", bound=Ticker | Orderbook)

MAX_ENTRIES = 4_000
"""Twice what the whole exchange needs: 855 markets, a ticker and a book each."""
LONGEST_TTL_S = 30 * 60.0
SHORTEST_TTL_S = 5 * 60.0
SWEEP_EVERY_S = 10.0
# To ask an enumeration for a member takes longer than to look a value up.
_TICKER, _ORDERBOOK = DataType.TICKER, DataType.ORDERBOOK


class _Entry:
    __slots__ = ("asked_s", "asks", "follows", "mark", "received_s", "value", "watched")

    def __init__(self, value: Ticker | Orderbook, mark: datetime | None) -> None:
        self.value = value
        self.mark = mark
        """The exchange's stamp that the next value may not be older than; None: none was right."""
        self.received_s = _NEVER
        self.asked_s = _NEVER
        self.asks = 0
        """How often it was fresh enough for who peeked at it since `take_asks`."""
        self.watched = False
        """A confirmed stream brings it."""
        self.follows = False
        """Watched and not suspected: each sign of life says that it is still true."""


_NEVER = float("-inf")


class RealtimeCache:
    """Plain bookkeeping: the caller passes `now`, in seconds of the monotonic clock.

    A value never gives way to an older one by the exchange's stamp. Its age counts from its
    receive time or, while its stream is confirmed and not suspected to be silent, from the last
    sign of life of the connection: a quiet market on a living connection is not old.

    All that is `live` belongs to one connection, the one that serves; `alive` is about that one.
    Values of a standby are put with ``live=False`` and its pongs are not told. When it takes over:
    `interrupted`, then `confirm` for each of its confirmed streams, then `alive`.

    What nobody watches is forgotten 30 minutes after it was last known to be true, sooner as the
    cache fills (5 minutes when full); when full, what was unused longest goes first.
    """

    def __init__(self, clock: Clock) -> None:
        """Take the exchange's clock, by which a stamp may lie too far ahead."""
        self.stamps = Stamps(clock)
        self._tickers: dict[str, _Entry] = {}
        self._books: dict[str, _Entry] = {}
        self._entries: dict[type, dict[str, _Entry]] = {
            Ticker: self._tickers,
            Orderbook: self._books,
        }
        self._last_life_s = _NEVER
        self._next_sweep_s = _NEVER

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def put(self, value: Ticker | Orderbook, now: float, *, live: bool) -> bool:
        """Keep a value; True when it is news: `newest` gives it, its stamp mended.

        False for one that is older than what is held, and for a duplicate (the same but for when
        and how it was received), which says that the value is still true.

        Args:
            value: What arrived.
            now: When.
            live: It came from a confirmed stream.
        """
        value, trusted = self.stamps.mended(value)
        entry = self._entries[type(value)].get(value.symbol)
        if entry is None:
            entry = self._add(value, value.exchange_time if trusted else None, now)
            news = True
        else:
            news = self._renew(entry, value, trusted, now)
        if news:
            entry.received_s = now
        if live:
            entry.watched = entry.follows = True
        return news

    def newest(self, value: Held) -> Held:
        """What is held of the kind and symbol of a value that was put before."""
        entry = self._entries[type(value)].get(value.symbol)
        return value if entry is None else cast(Held, entry.value)

    def alive(self, now: float) -> None:
        """The connection gave a sign of life."""
        self._last_life_s = now

    def interrupted(self) -> None:
        """The connection is gone: every value ages from its own receive time again."""
        for entry in self._all():
            entry.watched = entry.follows = False

    def confirm(self, kind: type, symbol: str) -> None:
        """The serving connection streams this value, put before, and what it tells is in force."""
        entry = self._entries[kind].get(symbol)
        if entry is not None:
            entry.watched = entry.follows = True

    def suspect(self, kind: type, symbol: str) -> None:
        """The stream of one symbol may have gone silent on a living connection.

        Until something comes by it, its value ages from its own receive time.
        """
        entry = self._entries[kind].get(symbol)
        if entry is not None:
            entry.follows = False

    def doubt(self) -> None:
        """Something was told that nobody understood, of any of them: as after `suspect`."""
        for entry in self._all():
            entry.follows = False

    def unwatched(self, kind: type, symbol: str) -> None:
        """The stream of one symbol was given up: its value ages from now on."""
        entry = self._entries[kind].get(symbol)
        if entry is not None:
            entry.received_s = self._known_s(entry)
            entry.watched = entry.follows = False

    def age_s(self, kind: type, symbol: str, now: float) -> float | None:
        """Seconds since the value was last known to be current; None: there is none."""
        entry = self._entries[kind].get(symbol)
        return None if entry is None else max(0.0, now - self._known_s(entry))

    def asked_s(self, kind: type, symbol: str) -> float | None:
        """When the value was last peeked at, fresh or not; None: never, or it is not held."""
        entry = self._entries[kind].get(symbol)
        return None if entry is None or entry.asked_s == _NEVER else entry.asked_s

    def take_asks(self) -> list[tuple[type, str, int]]:
        """Kind and symbol of what nobody watches and how often it answered since the last call:
        what is asked for often is worth a stream."""
        asked = []
        for kind, entries in self._entries.items():
            for symbol, entry in entries.items():
                if entry.asks:
                    if not entry.watched:
                        asked.append((kind, symbol, entry.asks))
                    entry.asks = 0
        return asked

    def peek(
        self, kind: type, symbol: str, max_age_s: float, now: float
    ) -> Ticker | Orderbook | None:
        """The value, when it is at most `max_age_s` old."""
        data_type = _TICKER if kind is Ticker else _ORDERBOOK
        value: Ticker | Orderbook | None
        value = self.peek_quote(data_type, symbol, None, None, None, None, max_age_s, now)
        return value

    def peek_quote(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        start_ms: int | None,
        end_ms: int | None,
        count: int | None,
        max_age_s: float,
        now: float,
    ) -> Any | None:
        """The same as a `DataSource` peeks: the ticker or the whole order book of a symbol."""
        # The hot path: a lookup and some comparisons, no call.
        if data_type is _TICKER:
            entry = self._tickers.get(symbol)
        elif data_type is _ORDERBOOK:
            entry = self._books.get(symbol)
        else:
            return None
        if entry is None:
            return None
        entry.asked_s = now
        oldest_s = now - (max_age_s if max_age_s < LONGEST_TTL_S else LONGEST_TTL_S)
        if entry.received_s < oldest_s and not (entry.follows and self._last_life_s >= oldest_s):
            return None  # whoever is asked instead counts it
        entry.asks += 1
        return entry.value

    def _renew(self, entry: _Entry, value: Ticker | Orderbook, trusted: bool, now: float) -> bool:
        """Take over a value that is news."""
        if trusted and entry.mark is not None:
            if value.exchange_time < entry.mark:
                return False
            if value.exchange_time == entry.mark and _is_same(value, entry.value):
                entry.received_s = now
                return False
        if trusted:
            entry.mark = value.exchange_time
        entry.value = value
        return True

    def _add(self, value: Ticker | Orderbook, mark: datetime | None, now: float) -> _Entry:
        if now >= self._next_sweep_s:
            self._sweep(now)
        if len(self) >= MAX_ENTRIES:
            unwatched = (one for one in self._all() if not one.watched)
            longest = min(unwatched, key=_used_s, default=None)
            if longest is not None:
                self._drop(longest)
        entry = self._entries[type(value)][value.symbol] = _Entry(value, mark)
        return entry

    def _sweep(self, now: float) -> None:
        self._next_sweep_s = now + SWEEP_EVERY_S
        # Half full or less: the longest; full: the shortest.
        fullness = min(1.0, max(0.0, 2 * len(self) / MAX_ENTRIES - 1))
        ttl_s = LONGEST_TTL_S - fullness * (LONGEST_TTL_S - SHORTEST_TTL_S)
        for entry in self._all():
            if not entry.watched and now - entry.received_s > ttl_s:
                self._drop(entry)

    def forget_unwatched(self) -> int:
        """Free what no stream brings; tells how many values that were."""
        unwatched = [entry for entry in self._all() if not entry.watched]
        for entry in unwatched:
            self._drop(entry)
        return len(unwatched)

    def _all(self) -> list[_Entry]:
        return [entry for entries in self._entries.values() for entry in entries.values()]

    def _drop(self, entry: _Entry) -> None:
        del self._entries[type(entry.value)][entry.value.symbol]

    def _known_s(self, entry: _Entry) -> float:
        """When the value was last known to be current."""
        return max(entry.received_s, self._last_life_s) if entry.follows else entry.received_s


def _used_s(entry: _Entry) -> float:
    return max(entry.asked_s, entry.received_s)


def _is_same(value: Ticker | Orderbook, held: Ticker | Orderbook) -> bool:
    """Whether two values of one stamp differ in nothing but their ways here."""
    value = msgspec.structs.replace(value, received_time=held.received_time, source=held.source)
    if isinstance(value, Ticker) and isinstance(held, Ticker) and value.side is None:
        # REST does not tell these.
        value = msgspec.structs.replace(
            value, side=held.side, state=held.state, delisting_date=held.delisting_date
        )
    return value == held
