"""What the simulator itself says happened, read without any client of the exchange.

Trades come from the control endpoint; candles and sums are made of them here, in `Decimal`,
and become floats at the very end, correctly rounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import aiohttp

from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.simulator import Simulator

Row = dict[str, Any]
Candle = tuple[int, float, float, float, float, float]
"""Start in milliseconds, open, high, low, close, volume."""


class Truth:
    """The side door of one simulator, and its REST answers as bare JSON."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self._simulator = simulator
        self._session = session

    async def trades(self, symbol: str, from_ms: int, to_ms: int) -> list[Row]:
        """All trades in [`from_ms`, `to_ms`), oldest first; asking is not limited."""
        url = f"{self._simulator.control_url}/trades"
        found: list[Row] = []
        while from_ms < to_ms:
            until_ms = min(to_ms, from_ms + DAY_MS)
            query = {"market": symbol, "from_ms": str(from_ms), "to_ms": str(until_ms)}
            found += await self._get(url, query)
            from_ms = until_ms
        return found

    async def rows(self, path: str, **query: str | int) -> list[Row]:
        """A REST answer; counts against the limits like any other call."""
        texts = {name: str(value) for name, value in query.items()}
        return await self._get(self._simulator.rest_url + path, texts)

    async def refused(self) -> int:
        """How many calls were refused so far."""
        async with self._session.get(self._simulator.control_url) as response:
            state = await response.json()
        return sum(state["refused"].values())

    async def _get(self, url: str, query: dict[str, str]) -> Any:
        async with self._session.get(url, params=query) as response:
            text = await response.text()
            assert response.status == 200, text
        return json.loads(text, parse_float=Decimal)


@dataclass(frozen=True)
class Unit:
    """A candle unit: where its buckets start, and where the next one does."""

    name: str
    start_of: Callable[[int], int]
    """Of an instant, all in UTC milliseconds."""


def _of_length(name: str, length_ms: int) -> Unit:
    return Unit(name, lambda ms: ms // length_ms * length_ms)


def _calendar(name: str, first_day: Callable[[datetime], datetime]) -> Unit:
    def start_of(ms: int) -> int:
        day = datetime.fromtimestamp(ms // DAY_MS * DAY_MS // SECOND_MS, UTC)
        return int(first_day(day).timestamp()) * SECOND_MS

    return Unit(name, start_of)


SHORT_UNITS = (
    _of_length("1s", SECOND_MS),
    *(_of_length(f"{minutes}m", minutes * MINUTE_MS) for minutes in (1, 3, 5, 10, 15, 30)),
    _of_length("1h", HOUR_MS),
    _of_length("4h", 4 * HOUR_MS),
)
DAY = _of_length("1d", DAY_MS)
LONG_UNITS = (
    # 1970-01-05 was a Monday.
    Unit("1w", lambda ms: (ms - 4 * DAY_MS) // (7 * DAY_MS) * (7 * DAY_MS) + 4 * DAY_MS),
    _calendar("1M", lambda day: day.replace(day=1)),
    _calendar("1y", lambda day: day.replace(month=1, day=1)),
)


def from_trades(trades: Iterable[Row], unit: Unit) -> list[Candle]:
    """Candles of trades, oldest first; a bucket without a trade has none."""
    candles: list[Candle] = []
    for start, group in groupby(trades, lambda trade: unit.start_of(trade["timestamp"])):
        members = list(group)
        prices = [Decimal(trade["trade_price"]) for trade in members]
        volume = sum((Decimal(trade["trade_volume"]) for trade in members), Decimal())
        numbers = (prices[0], max(prices), min(prices), prices[-1], volume)
        candles.append((start, *map(float, numbers)))  # type: ignore[arg-type]
    return candles


def from_days(days: Iterable[Row], unit: Unit) -> list[Candle]:
    """Candles of day rows, oldest first."""
    candles: list[Candle] = []
    for start, group in groupby(days, lambda day: unit.start_of(start_ms(day))):
        members = list(group)
        numbers = (
            Decimal(members[0]["opening_price"]),
            max(Decimal(day["high_price"]) for day in members),
            min(Decimal(day["low_price"]) for day in members),
            Decimal(members[-1]["trade_price"]),
            sum((Decimal(day["candle_acc_trade_volume"]) for day in members), Decimal()),
        )
        candles.append((start, *map(float, numbers)))  # type: ignore[arg-type]
    return candles


def start_ms(row: Row) -> int:
    """Where a row of a candle page starts."""
    moment = datetime.fromisoformat(row["candle_date_time_utc"] + "+00:00")
    return int(moment.timestamp()) * SECOND_MS


def ms(text: str) -> int:
    """Epoch milliseconds of an ISO time that names its zone."""
    return round(datetime.fromisoformat(text).timestamp() * SECOND_MS)
