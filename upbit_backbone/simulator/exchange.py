"""All markets of a simulated exchange, and the building of their tables.

The listing and the tables are built in one thread beside the loop, each table when the
first question about one of its markets comes. Whoever asks waits for that table alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from upbit_backbone.clock import DAY_MS, Clock
from upbit_backbone.simulator.market import Market, prepare
from upbit_backbone.simulator.markets import Listing, load_listings
from upbit_backbone.simulator.orderbooks import Orderbooks
from upbit_backbone.simulator.random_numbers import key_of
from upbit_backbone.simulator.recordings import load_recording, tile_rows, whole_rows
from upbit_backbone.simulator.shapes import Shape, shape_key, shape_rows
from upbit_backbone.simulator.table import Table
from upbit_backbone.simulator.tickers import Tickers

TableName = Shape | str

_PAUSE_S = 0.0005


@dataclass(frozen=True)
class Desk:
    """Everything that answers for one market."""

    market: Market
    tickers: Tickers
    orderbooks: Orderbooks


class Exchange:
    """The simulated exchange without its network side."""

    def __init__(
        self, *, seed: int, clock: Clock, as_recorded: bool, first_symbol: str | None
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.as_recorded = as_recorded
        self._first_symbol = first_symbol
        self._cancelled = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulator tables")
        self._listings: asyncio.Future[Mapping[str, Listing]] | None = None
        self._tables: dict[TableName, asyncio.Future[Table]] = {}
        self._desks: dict[str, Desk] = {}

    @property
    def name(self) -> str:
        """Names everything that its trades follow from; sent as `X-Simulated-Exchange`."""
        name = f"simulator-{self.seed}"
        if self.as_recorded:
            name += "-" + hashlib.sha256(b"as-recorded").hexdigest()[:8]
        return name

    async def warm_up(self) -> None:
        """Have the listing and the first symbol ready before anybody asks."""
        await self.listings()
        if self._first_symbol is not None:
            await self.desk(self._first_symbol)

    def close(self) -> None:
        """End the thread; waits for the step it is at, a few milliseconds.

        Questions that wait for a table are cancelled.
        """
        self._cancelled.set()
        if self._listings is not None:
            self._listings.cancel()
        for table in self._tables.values():
            table.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def listings(self) -> Mapping[str, Listing]:
        """All markets that are, were or will be listed, by symbol, in the exchange's order."""
        if self._listings is None:
            loop = asyncio.get_running_loop()
            self._listings = loop.run_in_executor(self._thread, self._load_listings)
        return await asyncio.shield(self._listings)

    async def desk(self, symbol: str) -> Desk | None:
        """The market of a symbol, once its table is there; None if there is no such market."""
        desk = self._desks.get(symbol)
        if desk is None:
            listing = (await self.listings()).get(symbol)
            if listing is None:
                return None
            market = Market(listing, await self._table(listing.table), repeats=not self.as_recorded)
            desk = Desk(market, Tickers(market), Orderbooks(self.seed, market))
            desk = self._desks.setdefault(symbol, desk)
        return desk

    async def prepare(self, desks: Sequence[Desk], now_ms: int) -> None:
        """Get the tickers of many markets ready, in steps that leave the loop free.

        Optional: tickers are the same without, each then takes about a millisecond.
        """
        by_table: dict[int, list[Market]] = {}
        for desk in desks:
            by_table.setdefault(id(desk.market.table), []).append(desk.market)
        for markets in by_table.values():
            prepare(markets, (now_ms, now_ms - DAY_MS))
            await asyncio.sleep(0)

    async def _table(self, name: TableName) -> Table:
        if name not in self._tables:
            loop = asyncio.get_running_loop()
            self._tables[name] = loop.run_in_executor(self._thread, self._build, name)
        return await asyncio.shield(self._tables[name])

    def _load_listings(self) -> Mapping[str, Listing]:
        listings = load_listings(as_recorded=self.as_recorded)
        return {listing.symbol: listing for listing in listings}

    def _build(self, name: TableName) -> Table:
        if isinstance(name, Shape):
            key, rows, grid = shape_key(self.seed, name), shape_rows(self.seed, name), 1
        else:
            recording = load_recording(name)
            key, grid = key_of(self.seed, "recorded", name), recording.written.grid
            rows = whole_rows(recording) if self.as_recorded else tile_rows(recording)
        return Table(key, rows, grid=grid, cancelled=self._pause)

    def _pause(self) -> bool:
        """Let the loop's thread have the interpreter; True when closing."""
        return self._cancelled.wait(_PAUSE_S)
