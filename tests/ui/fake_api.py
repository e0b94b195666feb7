"""The service as the bridge sees it, played by hand."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Self

from tests.ui import samples
from upbit_backbone import (
    BackboneError,
    BackboneMetadata,
    CandleSeries,
    Market,
    PerformanceMetrics,
    Priority,
    SystemStatus,
    Ticker,
    Timeframe,
    Trade,
    TransportError,
)
from upbit_backbone.protocol import SystemEvent

Answer = Callable[[str, datetime | None, int | None], CandleSeries]


class FakeStream:
    """A subscription fed by `push`; an error given to it is raised in the reader."""

    def __init__(self) -> None:
        self._values: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False

    def push(self, *values: Any) -> None:
        for value in values:
            self._values.put_nowait(value)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        value = await self._values.get()
        if isinstance(value, BaseException):
            raise value
        return value

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.closed = True


class FakeChunks:
    """Candles in pieces; each waits for the gate of its API, and an error is raised."""

    def __init__(self, gate: asyncio.Event, pieces: Sequence[CandleSeries | BackboneError]) -> None:
        self._gate = gate
        self._pieces = list(pieces)
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CandleSeries:
        await self._gate.wait()
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, BackboneError):
            raise piece
        return piece


class FakeApi:
    """Answers what a test tells it to; keeps what it was asked."""

    def __init__(self) -> None:
        self.status = samples.status()
        self.streams: dict[tuple[str, str], list[FakeStream]] = defaultdict(list)
        self.asked: list[tuple[str, datetime | None, int | None]] = []
        self.answer: Answer = lambda symbol, end, count: samples.minutes(0, 3)
        self.metadata_changes: dict[str, Any] = {}
        self.stored: CandleSeries | BackboneError | None = None
        self.pieces: Sequence[CandleSeries | BackboneError] = ()
        """What a long range is answered with."""
        self.ranges: list[tuple[str, datetime, datetime, Priority, bool]] = []
        self.chunks: list[FakeChunks] = []
        self.gate = asyncio.Event()
        """Candles are answered once it is set, as it is at first."""
        self.gate.set()
        self.markets_error: BackboneError | None = None
        self.trades_error: BackboneError | None = None
        self.ticker_answer: Ticker | BackboneError = TransportError("not reached")
        self.tickers_asked = 0
        self.events: list[SystemEvent] = []
        self.frames_s: list[float] = []
        self.slower = 1.0
        """How many times longer than usual a screen is to leave things as they are."""

    def open_streams(self) -> list[FakeStream]:
        return [s for streams in self.streams.values() for s in streams if not s.closed]

    def stream(self, kind: str, symbol: str) -> FakeStream:
        """The latest open stream of a kind."""
        return [stream for stream in self.streams[kind, symbol] if not stream.closed][-1]

    def _open(self, kind: str, symbol: str) -> FakeStream:
        stream = FakeStream()
        self.streams[kind, symbol].append(stream)
        return stream

    def stream_candles(
        self, symbol: str, timeframe: Timeframe, *, policy: str = "latest"
    ) -> FakeStream:
        return self._open("candles", symbol)

    def stream_ticker(self, symbol: str) -> FakeStream:
        return self._open("ticker", symbol)

    def stream_trades(self, symbol: str, *, policy: str = "latest") -> FakeStream:
        return self._open("trades", symbol)

    async def get_candle_data(
        self,
        symbol: str,
        timeframe: Timeframe,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        count: int | None = None,
        with_metadata: bool = False,
    ) -> tuple[CandleSeries, BackboneMetadata]:
        self.asked.append((symbol, end_time, count))
        await self.gate.wait()
        found = self.answer(symbol, end_time, count)
        return found, samples.metadata(len(found), **self.metadata_changes)

    async def get_stored_candles(
        self, symbol: str, timeframe: Timeframe, *, count: int
    ) -> tuple[CandleSeries, BackboneMetadata]:
        if isinstance(self.stored, BackboneError):
            raise self.stored
        found = samples.minutes(0, 0) if self.stored is None else self.stored[-count:]
        return found, samples.metadata(len(found))

    def iter_candle_chunks(
        self,
        symbol: str,
        timeframe: Timeframe,
        start_time: datetime,
        end_time: datetime,
        priority: Priority,
        *,
        newest_first: bool,
    ) -> FakeChunks:
        self.ranges.append((symbol, start_time, end_time, priority, newest_first))
        self.chunks.append(FakeChunks(self.gate, self.pieces))
        return self.chunks[-1]

    async def get_ticker_data(
        self, symbol: str, priority: Priority, *, max_age: float, timeout: float
    ) -> Ticker:
        self.tickers_asked += 1
        if isinstance(self.ticker_answer, BackboneError):
            raise self.ticker_answer
        return self.ticker_answer

    async def get_trade_data(self, symbol: str, *, count: int) -> list[Trade]:
        if self.trades_error is not None:
            raise self.trades_error
        return [samples.trade(1), samples.trade(2)]

    def stream_orderbook(self, symbol: str) -> FakeStream:
        return self._open("orderbook", symbol)

    async def get_markets(self) -> tuple[Market, ...]:
        if self.markets_error is not None:
            raise self.markets_error
        return samples.MARKETS

    def get_system_status(self) -> SystemStatus:
        return self.status

    def get_performance_metrics(self) -> PerformanceMetrics:
        return samples.metrics()

    def get_system_events(self, since: int = 0) -> tuple[SystemEvent, ...]:
        return tuple(event for event in self.events if event.number > since)

    def screen_interval_s(self, shortest_s: float) -> float:
        return shortest_s * self.slower

    def report_frame_time(self, taken_s: float) -> None:
        self.frames_s.append(taken_s)
