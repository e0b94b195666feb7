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
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from upbit_backbone.clock import DAY_MS, Clock
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.simulator.market import Market, prepare, whole_regime
from upbit_backbone.simulator.markets import Listing, load_listings
from upbit_backbone.simulator.orderbooks import Orderbooks
from upbit_backbone.simulator.random_numbers import key_of
from upbit_backbone.simulator.recordings import load_recording, tile_rows, whole_rows
from upbit_backbone.simulator.script import (
    Designation,
    Move,
    NewListing,
    Script,
    TickSize,
    scripted_listings,
)
from upbit_backbone.simulator.settings import SimulatorSettings
from upbit_backbone.simulator.shapes import Shape, shape_key, shape_rows
from upbit_backbone.simulator.table import (
    MOST_TRADES_A_MINUTE,
    MinuteRows,
    MinuteTable,
    Table,
)
from upbit_backbone.simulator.tickers import Tickers
from upbit_backbone.simulator.timeline import (
    Regridded,
    TableName,
    regridded_rows,
    scripted_market,
)

FASTEST_RATE = 1_000.0

_PAUSE_S = 0.0005
_MOST_TRADES_AT_ANY_RATE = 9_600
"""Trades of one minute have ids of their own up to 10,000."""


@dataclass(frozen=True)
class Desk:
    """Everything that answers for one market."""

    market: Market
    tickers: Tickers
    orderbooks: Orderbooks


class Exchange:
    """The simulated exchange without its network side.

    Args:
        seed: Which of all simulated markets.
        clock: The exchange's time.
        as_recorded: Serve the three recordings whole and nothing else.
        first_symbol: The market to have ready first.
        settings: How it behaves where nobody knows.
        script: What happens on its markets.
        rate: How many times as often somebody trades, above 0 to `FASTEST_RATE`.

    Raises:
        InvalidRequestError: the rate is out of range.
    """

    def __init__(
        self,
        *,
        seed: int,
        clock: Clock,
        as_recorded: bool,
        first_symbol: str | None,
        settings: SimulatorSettings | None = None,
        script: Script | None = None,
        rate: float = 1.0,
    ) -> None:
        if not 0 < rate <= FASTEST_RATE:
            raise InvalidRequestError(
                f"the simulator's rate was {rate}: expected a factor above 0,"
                f" at most {FASTEST_RATE:.0f}"
            )
        self.seed = seed
        self.clock = clock
        self.settings = settings or SimulatorSettings()
        self.as_recorded = as_recorded
        self._first_symbol = first_symbol
        self._cancelled = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulator tables")
        self._listings: asyncio.Future[Mapping[str, Listing]] | None = None
        self.script = script or Script()
        self.rate = rate
        self._tables: dict[TableName, asyncio.Future[Table]] = {}
        self._scripted: dict[str, asyncio.Future[Market]] = {}
        self._desks: dict[str, Desk] = {}

    @property
    def name(self) -> str:
        """Names everything that its trades follow from; sent as `X-Simulated-Exchange`."""
        name = f"simulator-{self.seed}"
        changes = ["as-recorded"] if self.as_recorded else []
        if self.script.events:
            changes.append(f"script {self.script.digest}")
        if self.rate != 1:
            changes.append(f"rate {self.rate!r}")
        if changes:
            name += "-" + hashlib.sha256("\n".join(changes).encode()).hexdigest()[:8]
        return name

    async def check_script(self) -> None:
        """Build what the script changes; nothing to do without one.

        Raises:
            InvalidRequestError: an event cannot happen; says which one, and why.
        """
        if self.script.events:
            await self.listings()
            changed = [event for event in self.script.events if isinstance(event, Move | TickSize)]
            for symbol in dict.fromkeys(event.symbol for event in changed):
                await self.desk(symbol)

    def in_maintenance(self, now_ms: int) -> bool:
        """Is the exchange closed to everybody?"""
        return self.script.in_maintenance(now_ms)

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
        for market in self._scripted.values():
            market.cancel()
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
            market = await self._market(listing)
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

    async def _market(self, listing: Listing) -> Market:
        table = await self._table(listing.table)
        events = [
            event
            for event in self.script.of(listing.symbol)
            if not isinstance(event, Designation | NewListing)
        ]
        repeats = not self.as_recorded
        if not events:
            return Market(listing, [whole_regime(listing, table, repeats=repeats)])

        def table_of(name: TableName) -> MinuteTable:
            return table if name == listing.table else self._build(name)

        if listing.symbol not in self._scripted:
            build = partial(scripted_market, listing, events, table_of, repeats=repeats)
            loop = asyncio.get_running_loop()
            self._scripted[listing.symbol] = loop.run_in_executor(self._thread, build)
        return await asyncio.shield(self._scripted[listing.symbol])

    async def _table(self, name: TableName) -> Table:
        if name not in self._tables:
            loop = asyncio.get_running_loop()
            self._tables[name] = loop.run_in_executor(self._thread, self._build, name)
        return await asyncio.shield(self._tables[name])

    def _load_listings(self) -> Mapping[str, Listing]:
        listings = load_listings(as_recorded=self.as_recorded)
        if self.script.events:
            listings = scripted_listings(listings, self.script)
        return {listing.symbol: listing for listing in listings}

    def _build(self, name: TableName) -> Table:
        key, rows, grid = self._rows(name)
        most_trades = MOST_TRADES_A_MINUTE
        if self.rate != 1:
            wanted = np.rint(rows.trades * self.rate).astype(np.int64)
            rows = replace(rows, trades=np.where(rows.trades > 0, np.maximum(wanted, 1), 0))
            most_trades = min(round(most_trades * max(self.rate, 1)), _MOST_TRADES_AT_ANY_RATE)
        return Table(key, rows, grid=grid, most_trades=most_trades, cancelled=self._pause)

    def _rows(self, name: TableName) -> tuple[int, MinuteRows, int]:
        """Key, minutes and grid of a table."""
        if isinstance(name, Shape):
            return shape_key(self.seed, name), shape_rows(self.seed, name), 1
        if isinstance(name, Regridded):
            key, rows, _ = self._rows(name.table)
            return key_of(key, "regridded", *name[1:]), regridded_rows(rows, name), 1
        recording = load_recording(name)
        rows = whole_rows(recording) if self.as_recorded else tile_rows(recording)
        return key_of(self.seed, "recorded", name), rows, recording.written.grid

    def _pause(self) -> bool:
        """Let the loop's thread have the interpreter; True when closing."""
        return self._cancelled.wait(_PAUSE_S)
