"""What routing needs of an exchange; `upbit_backbone.exchanges` implements it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec

from upbit_backbone.models import CandleSeries, Market, Orderbook, Ticker, Timeframe, Trade

RateGroup = Literal["market", "candles", "trades", "ticker", "orderbook"]
StreamKind = Literal[
    "ticker",
    "trade",
    "orderbook",
    "candle.1s",
    "candle.1m",
    "candle.3m",
    "candle.5m",
    "candle.10m",
    "candle.15m",
    "candle.30m",
    "candle.60m",
    "candle.240m",
]
CANDLE_KINDS: Mapping[Timeframe, StreamKind] = {
    Timeframe.S1: "candle.1s",
    Timeframe.M1: "candle.1m",
    Timeframe.M3: "candle.3m",
    Timeframe.M5: "candle.5m",
    Timeframe.M10: "candle.10m",
    Timeframe.M15: "candle.15m",
    Timeframe.M30: "candle.30m",
    Timeframe.H1: "candle.60m",
    Timeframe.H4: "candle.240m",
}
"""The candles that are streamed; longer ones are not."""


MAX_AHEAD_S = 60.0
"""A stamp further ahead of the exchange's clock is a fault of the sender."""


class StreamEvent(msgspec.Struct, frozen=True):
    """One value from the socket; a snapshot confirms that its subscription is in force."""

    value: Ticker | Trade | Orderbook | CandleSeries
    """Of candles a single one, newest state: it is sent again whenever it changed, never a last
    time when it ends."""
    snapshot: bool
    stamp_ms: int | None = None
    """When the exchange made the message, epoch milliseconds, as far as it says."""

    @property
    def kind(self) -> StreamKind:
        """The stream that it belongs to."""
        value = self.value
        if isinstance(value, CandleSeries):
            return CANDLE_KINDS[value.timeframe]
        return _KINDS[type(value)]


_KINDS: Mapping[type[Ticker | Trade | Orderbook], StreamKind] = {
    Ticker: "ticker",
    Trade: "trade",
    Orderbook: "orderbook",
}


class Garbled(msgspec.Struct, frozen=True):
    """A frame that was not understood: what it told is lost."""

    reason: str
    kind: StreamKind | None = None
    """Of the stream it belongs to, as far as it can be told; its `symbol` likewise."""
    symbol: str | None = None


class ExchangeSocket(Protocol):
    """An open connection that streams values."""

    async def subscribe(self, wanted: Mapping[StreamKind, Collection[str]]) -> None:
        """Replace the whole subscription by `wanted` (symbols by kind).

        Raises:
            TransportError: the connection is gone.
        """
        ...

    def events(self) -> AsyncIterator[StreamEvent | Garbled]:
        """Values as they arrive, until the connection ends; one bad frame does not end it.

        Raises:
            TransportError: the connection was lost or the exchange refused the request.
            ProtocolError: the exchange did not understand the request.
        """
        ...

    async def watch(self, on_life: Callable[[], None]) -> None:
        """Ask for a sign of life whenever nothing came for a while; never returns.

        Args:
            on_life: Called at each sign of life that was asked for.

        Raises:
            TransportError: none came in time, or the connection is gone.
        """
        ...


class ExchangeAdapter(Protocol):
    """The public market data of one exchange; one call is one request, never retried here.

    All calls raise `TransportError`, `RateLimitedError` (429, 418), `ProtocolError`,
    `UnknownSymbolError` (the exchange does not list it), `InvalidRequestError` (it refused
    a parameter), `DataUnavailableError` and `StorageOriginError` (another simulator's mark).
    Cancelling a call leaves nothing behind.
    """

    @property
    def reference(self) -> str:
        """The symbol whose ticker always flows: where it does not, the connection is ill."""
        ...

    async def markets(self) -> tuple[Market, ...]:
        """All listed markets, the exchange's order."""
        ...

    async def candles(
        self, symbol: str, timeframe: Timeframe, *, to_ms: int | None, count: int
    ) -> tuple[CandleSeries, int | None]:
        """The `count` (1 to 200) latest candles with open time < `to_ms` (None: now).

        Returns the series, ascending, and the exchange's stamp of the newest row: the time
        (epoch milliseconds) of the last trade in it, None for an empty page.
        """
        ...

    async def tickers(self, symbols: Sequence[str]) -> tuple[Ticker, ...]:
        """One ticker a symbol, in the order asked."""
        ...

    async def all_tickers(self, quotes: Sequence[str]) -> tuple[Ticker, ...]:
        """The tickers of all markets of some quote assets, in any order."""
        ...

    async def orderbooks(
        self, symbols: Sequence[str], *, depth: int, level: float
    ) -> tuple[Orderbook, ...]:
        """One book a symbol, in the order asked, at most `depth` rows a side."""
        ...

    async def trades(
        self,
        symbol: str,
        *,
        count: int,
        to_ms: int | None = None,
        cursor: int | None = None,
        days_ago: int | None = None,
    ) -> tuple[Trade, ...]:
        """The `count` (1 to 500) latest trades, newest first.

        Args:
            symbol: Market code.
            count: Page size.
            to_ms: Exclusive end, floored to the second; its UTC day is that of `days_ago`.
            cursor: Only trades older than the one with this `sequential_id`.
            days_ago: UTC day, 0 (today) to 7.
        """
        ...

    def connect(self) -> AbstractAsyncContextManager[ExchangeSocket]:
        """Open a socket; leaving the context closes it."""
        ...
