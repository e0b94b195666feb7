"""REST in place of the stream, while that is away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

from upbit_backbone.clock import Clock
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    ProtocolError,
    UnknownSymbolError,
)
from upbit_backbone.models import Orderbook, Ticker
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.exchange import StreamKind
from upbit_backbone.routing.failover import Failover
from upbit_backbone.routing.gap_filler import GapFiller
from upbit_backbone.routing.rest_channel import RestChannel
from upbit_backbone.routing.trade_stream import TradeStream

EVERY_S = 1.0
LOOK_EVERY_S = 0.25
STALE_AFTER_S = 5.0
"""Trades that are polled less often than this are not called fresh."""
WITHOUT_S = 60.0
"""What the exchange does not know, or has none of, is left out for a while."""


class Ask(Protocol):
    """Asks for the newest values of some symbols."""

    def __call__(
        self, symbols: Sequence[str], priority: Priority, /
    ) -> Awaitable[Collection[Ticker] | Collection[Orderbook]]: ...


class Polled(Protocol):
    """Whose values are polled, and who is given them: the stream hub."""

    def watched(self, kind: StreamKind) -> list[str]:
        """The symbols of which somebody wants values of this kind."""
        ...

    def trades_to_poll(self) -> list[tuple[str, TradeStream]]:
        """Symbols whose trades have readers, those of readers of all first."""
        ...

    def take_polled(self, values: Iterable[Ticker | Orderbook]) -> None:
        """Deliver what was polled."""
        ...

    def mark_polled(self, kind: StreamKind, symbol: str, failure: str) -> None:
        """Tell readers that their values are polled, or (`failure`) that they are not."""
        ...


class Poller:
    """Polls once a second, as long as `Failover.poll` says so.

    All watched tickers are one call (`/ticker/all` from 100 on), all watched books another;
    trades take a call a symbol, and only those with readers are polled.
    """

    def __init__(
        self, hub: Polled, failover: Failover, rest: RestChannel, filler: GapFiller, clock: Clock
    ) -> None:
        self._hub = hub
        self._failover = failover
        self._rest = rest
        self._filler = filler
        self._clock = clock
        self._without: dict[tuple[StreamKind, str], float] = {}
        """What is not worth asking for, and until when."""
        self._trades_took_s = 0.0
        self.rounds = 0

    async def run(self) -> None:
        """Poll until the stream is back."""
        async with asyncio.TaskGroup() as group:
            for poll in (self._tickers, self._books, self._trades):
                group.create_task(self._repeat(poll), name=f"polling {poll.__name__}")

    async def _repeat(self, poll: Callable[[], Awaitable[None]]) -> None:
        """Once a second, or as often as the limits let it: no kind waits for another."""
        while self._failover.poll():
            self.rounds += 1
            again_s = self._clock.monotonic() + EVERY_S
            await poll()
            # Qt's timers fire early.
            while (left_s := again_s - self._clock.monotonic()) > 0 and self._failover.poll():
                await asyncio.sleep(min(left_s, LOOK_EVERY_S))

    async def _tickers(self) -> None:
        await self._each("ticker", self._rest.tickers)

    async def _books(self) -> None:
        await self._each("orderbook", self._rest.orderbooks)

    async def _each(self, kind: StreamKind, ask: Ask) -> None:
        """Ask for every symbol by itself: they leave together, and each fails alone."""
        now = self._clock.monotonic()
        asked = [
            symbol
            for symbol in self._hub.watched(kind)
            if self._without.get((kind, symbol), -math.inf) <= now
        ]
        outcomes = await asyncio.gather(
            *(ask((symbol,), Priority.HIGH) for symbol in asked), return_exceptions=True
        )
        for symbol, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, BackboneError):
                if isinstance(outcome, DataUnavailableError | UnknownSymbolError | ProtocolError):
                    self._without[kind, symbol] = self._clock.monotonic() + WITHOUT_S
                self._hub.mark_polled(kind, symbol, str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self._hub.take_polled(outcome)
                self._hub.mark_polled(kind, symbol, "")

    async def _trades(self) -> None:
        began_s = self._clock.monotonic()
        for symbol, stream in self._hub.trades_to_poll():
            gap = stream.unbounded
            if gap is None or not self._failover.poll():
                continue
            failure = ""
            try:
                await self._filler.poll(symbol, stream, gap)
            except BackboneError as error:
                failure = str(error)
            if not failure and self._trades_took_s > STALE_AFTER_S:
                failure = f"so many markets take {self._trades_took_s:.0f} s each time"
            self._hub.mark_polled("trade", symbol, failure)
        self._trades_took_s = self._clock.monotonic() - began_s
