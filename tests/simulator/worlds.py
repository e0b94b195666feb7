"""Markets and simulators to ask questions of; tables are built once for all tests."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.market import Market, whole_regime
from upbit_backbone.simulator.markets import Listing, load_listings
from upbit_backbone.simulator.random_numbers import key_of
from upbit_backbone.simulator.recordings import load_recording, tile_rows, whole_rows
from upbit_backbone.simulator.shapes import Shape, shape_key, shape_rows
from upbit_backbone.simulator.table import MinuteRows, Table

SEED = 1
PAYLOADS = Path(__file__).parents[1] / "payloads" / "upbit"
RECORDED = ("KRW-BTC", "KRW-XRP", "KRW-DOGE")
BUSY, THIN, IDLE, FINE = "KRW-ETH", "KRW-SIM003", "BTC-SC", "USDT-BTC"


def ms(text: str) -> int:
    """Epoch milliseconds of an ISO time in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


@cache
def listings(*, as_recorded: bool = False) -> Mapping[str, Listing]:
    return {listing.symbol: listing for listing in load_listings(as_recorded=as_recorded)}


@cache
def rows(name: str | Shape, *, as_recorded: bool = False) -> MinuteRows:
    if isinstance(name, Shape):
        return shape_rows(SEED, name)
    recording = load_recording(name)
    return whole_rows(recording) if as_recorded else tile_rows(recording)


@cache
def table(name: str | Shape, *, as_recorded: bool = False) -> Table:
    if isinstance(name, Shape):
        return Table(shape_key(SEED, name), rows(name))
    grid = load_recording(name).written.grid
    return Table(key_of(SEED, "recorded", name), rows(name, as_recorded=as_recorded), grid=grid)


def market(symbol: str, *, as_recorded: bool = False) -> Market:
    """A market as the exchange has it, with nothing remembered yet."""
    return unscripted(listings(as_recorded=as_recorded)[symbol], as_recorded=as_recorded)


def unscripted(listing: Listing, *, as_recorded: bool = False) -> Market:
    """The market of a listing from its listing on."""
    of = table(listing.table, as_recorded=as_recorded)
    return Market(listing, [whole_regime(listing, of, repeats=not as_recorded)])


@cache
def recorded_lines(symbol: str) -> Mapping[int, tuple[float, ...]]:
    """Start in milliseconds → open, high, low, close, volume, as the file says."""
    path = PAYLOADS / "candles" / f"{symbol}_1m_20250901_20251004.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        _, *recorded = csv.reader(lines)
    starts = np.array([row[0] for row in recorded], "datetime64[ms]").astype(np.int64)
    return {
        start: tuple(map(float, row[1:]))
        for start, row in zip(starts.tolist(), recorded, strict=True)
    }


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> tuple[int, object, str]:
        return self.status, self.body["error"]["name"], self.body["error"]["message"]


class Caller:
    """An HTTP client of one simulator."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._session = session

    async def get(self, path: str, **query: str | int) -> Answer:
        """Ask under ``/v1``; values of the query are encoded."""
        return await self.get_with({}, path, **query)

    async def get_with(self, headers: Mapping[str, str], path: str, **query: str | int) -> Answer:
        """Ask with headers of one's own."""
        url = self.simulator.rest_url + path
        async with self._session.get(url, params=query, headers=headers) as response:
            return Answer(response.status, response.headers, await response.json())

    async def rows(self, path: str, **query: str | int) -> list[dict[str, Any]]:
        """Ask for an array and expect one."""
        answer = await self.get(path, **query)
        assert answer.status == 200, answer.body
        assert isinstance(answer.body, list)
        return answer.body
