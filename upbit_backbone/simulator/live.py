"""Sends every trade at its own time to whoever follows its market.

One task serves all connections. A market's trades are split once, when its minute comes;
between two trades nothing is computed. Order books are looked at on their 200 ms grid and
sent when they changed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from upbit_backbone.clock import Clock
from upbit_backbone.simulator.exchange import Desk
from upbit_backbone.simulator.market import Trade
from upbit_backbone.simulator.orderbooks import GRID_MS, Orderbook

_LONGEST_WAIT_MS = 100
"""Then the clock is looked at again: it may have been set, and timers may be coarse."""
_FORGET_AFTER_MS = 10_000
"""After a longer standstill (a sleeping machine) what was missed is not sent any more."""


class Reader(Protocol):
    """Who is told what happens on a market."""

    def traded(self, desk: Desk, trade: Trade, now_ms: int) -> None:
        """A trade was done."""
        ...

    def book_shown(self, desk: Desk, book: Orderbook) -> None:
        """The book at a step of the grid, changed or not."""
        ...


class Following(NamedTuple):
    """What a reader wants of a market."""

    desk: Desk
    trades: bool
    books: bool


class LiveStream:
    """The clockwork of all live streams.

    Under a clock that stands still nothing ever becomes due.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._readers: dict[str, dict[Reader, Following]] = {}
        self._coming: dict[str, deque[Trade]] = {}
        self._agenda: list[tuple[int, str]] = []
        self._step = clock.now_ms() // GRID_MS
        self._changed = asyncio.Event()

    def follow(self, reader: Reader, wanted: Mapping[str, Following], after_ms: int) -> None:
        """Tell `reader` of what happens on these markets after an instant, until `leave`."""
        for symbol, following in wanted.items():
            self._readers.setdefault(symbol, {})[reader] = following
            if symbol not in self._coming:
                self._coming[symbol] = deque()
                self._plan(following.desk, after_ms)
        self._changed.set()

    def leave(self, reader: Reader) -> None:
        """Tell `reader` nothing more."""
        for symbol in [symbol for symbol, those in self._readers.items() if reader in those]:
            del self._readers[symbol][reader]
            if not self._readers[symbol]:
                del self._readers[symbol]

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            now_ms = self._clock.now_ms()
            self._send_trades(now_ms)
            self._look_at_books(now_ms)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._changed.wait()

    def _send_trades(self, now_ms: int) -> None:
        while self._agenda and self._agenda[0][0] <= now_ms:
            _, symbol = heappop(self._agenda)
            followers = self._readers.get(symbol)
            if not followers:
                del self._coming[symbol]
                continue
            desk = next(iter(followers.values())).desk
            trade = self._coming[symbol].popleft()
            if trade.time_ms < now_ms - _FORGET_AFTER_MS:
                self._coming[symbol].clear()
                self._plan(desk, now_ms)
                continue
            for reader, following in list(followers.items()):
                if following.trades:
                    reader.traded(desk, trade, now_ms)
            self._plan(desk, trade.time_ms)

    def _plan(self, desk: Desk, after_ms: int) -> None:
        """Put the market's next trade on the agenda."""
        symbol = desk.market.symbol
        coming = self._coming[symbol]
        if not coming:
            coming.extend(desk.market.next_trades(after_ms))
        if coming:
            heappush(self._agenda, (coming[0].time_ms, symbol))

    def _look_at_books(self, now_ms: int) -> None:
        step = now_ms // GRID_MS
        if step == self._step:
            return
        self._step = step
        for followers in list(self._readers.values()):
            readers = [(reader, one.desk) for reader, one in followers.items() if one.books]
            book = readers[0][1].orderbooks.at(now_ms) if readers else None
            if book is not None:
                for reader, desk in readers:
                    reader.book_shown(desk, book)

    def _wait_s(self) -> float | None:
        """Seconds until something is due; None while nobody follows anything."""
        if not self._readers:
            return None
        now_ms = self._clock.now_ms()
        due_ms = min(now_ms + _LONGEST_WAIT_MS, (now_ms // GRID_MS + 1) * GRID_MS)
        if self._agenda:
            due_ms = min(due_ms, self._agenda[0][0])
        return max(due_ms - now_ms, 1) / 1_000
