"""Small clients as they are found in the field, with the mistakes that made them famous.

None of this is anybody's code: each does what its bug's report describes, in a few lines.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import websockets

Row = dict[str, Any]


@asynccontextmanager
async def frames(ws_url: str, kind: str, symbol: str) -> AsyncIterator[AsyncIterator[Row]]:
    """The messages of one stream, for as long as the connection lasts."""
    async with websockets.connect(ws_url, compression=None, close_timeout=0.1) as connection:
        await connection.send(json.dumps([{"ticket": "naive"}, {"type": kind, "codes": [symbol]}]))

        async def messages() -> AsyncIterator[Row]:
            async for frame in connection:
                yield json.loads(frame)

        yield messages()


@dataclass
class Bar:
    """A candle of trades, as far as they came."""

    open_ms: int
    close: float
    volume: float = 0.0


@dataclass
class NaiveBars:
    """Closes a bar when a trade of another one comes, whichever that is."""

    length_ms: int
    closed: list[Bar] = field(default_factory=list)
    forming: Bar | None = None
    first_ms: int = 0
    """When the first trade was done that came."""

    def add(self, row: Row) -> None:
        """Count a trade."""
        self.first_ms = self.first_ms or row["trade_timestamp"]
        open_ms = row["trade_timestamp"] // self.length_ms * self.length_ms
        if self.forming is None or open_ms != self.forming.open_ms:
            if self.forming is not None:
                self.closed.append(self.forming)
            self.forming = Bar(open_ms, row["trade_price"])
        self.forming.close = row["trade_price"]
        self.forming.volume += row["trade_volume"]

    async def follow(self, ws_url: str, symbol: str) -> None:
        """Count the trades of a stream until it ends."""
        async with frames(ws_url, "trade", symbol) as trades:
            async for row in trades:
                self.add(row)


class NaiveWatch:
    """Gives a future to everybody who waits for a symbol, and never takes one back."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[asyncio.Future[Row]]] = {}

    async def next(self, symbol: str, timeout_s: float) -> Row | None:
        """The next message of a symbol; None: none came in time."""
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(symbol, []).append(future)
        await asyncio.wait((future,), timeout=timeout_s)
        return future.result() if future.done() else None
