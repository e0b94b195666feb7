"""What the exchange lists, and what it lists no more though it is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from upbit_backbone.clock import Clock
from upbit_backbone.errors import BackboneError
from upbit_backbone.models import Market
from upbit_backbone.protocol import MarketList
from upbit_backbone.storage.candle_tables import SeriesKey, read_markets, write_markets
from upbit_backbone.storage.coverage import FOREVER_MS, REST, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import forget_delisting, put_spans
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.series_memory import MemoryTier

logger = logging.getLogger(__name__)

LISTED_NO_MORE = "the exchange lists it no more"
CANNOT_BE_ASKED = "the exchange lists it no more, nor tells of the time until that was seen"


class Listings:
    """The list that was stored last, and the spans `after_delisting`."""

    def __init__(
        self,
        database: Database,
        coverage: Mapping[SeriesKey, Coverage],
        memory: MemoryTier,
        *,
        ask: Callable[[], Awaitable[MarketList]],
        health: FileHealth,
        clock: Clock,
    ) -> None:
        """Take what they are kept in.

        Args:
            database: Where both are stored.
            coverage: What is known of each series.
            memory: What of it is held.
            ask: What the exchange lists now.
            health: Told when the file cannot be written.
            clock: The exchange's time.
        """
        self._database = database
        self._coverage = coverage
        self._memory = memory
        self._ask = ask
        self._health = health
        self._clock = clock
        self.markets: tuple[Market, ...] = ()
        """As the exchange listed them last."""
        self._compared: tuple[Market, ...] | None = None

    async def read(self) -> None:
        """Learn what is stored."""
        self.markets = await self._database.read(read_markets)
        await self._relisted(self.markets)

    async def take(self, markets: tuple[Market, ...]) -> None:
        """Store what the exchange lists now, if it has changed.

        Whatever was taken for gone and is among it is not, changed or not.
        """
        if markets is self._compared:
            # The router's own list of the last ten minutes.
            return
        if markets != self.markets:
            self.markets = markets
            work = partial(write_markets, markets=markets)
            await self._health.written(self._database.write(work))
        self._compared = markets
        await self._relisted(markets)

    def seen(self, key: SeriesKey) -> None:
        """A candle came of a series: whoever is traded is listed. Never waits."""
        if self.is_gone(key):
            # Nobody waits for it; its error, if any, is taken as seen.
            _ = self._forget(key.symbol)

    def is_gone(self, key: SeriesKey) -> bool:
        """Whether it is of no use to ask for a series."""
        known = self._coverage.get(key)
        last = None if known is None else known.at(FOREVER_MS - 1)
        return last is not None and last.state == "after_delisting"

    async def delisted(self, symbol: str) -> None:
        """The exchange answers that it does not know a symbol.

        If it is stored, it was listed once. One wrong answer must not end a market, so the
        exchange's list has to say the same.
        """
        try:
            listing = await self._ask()
        except BackboneError as error:
            logger.info("whether %s is listed is not known: %s", symbol, error)
            return
        if listing.is_stored or any(market.symbol == symbol for market in listing.markets):
            return
        for key, known in tuple(self._coverage.items()):
            if key.symbol == symbol and not self.is_gone(key):
                await self._end(key, known)

    async def _end(self, key: SeriesKey, known: Coverage) -> None:
        if not any(one.state == "complete" for one in known):
            return
        now_ms = self._clock.now_ms()
        seen_ms = key.timeframe.ceil_ms(now_ms)
        proved_ms = known.proved.end_ms
        assert proved_ms is not None
        spans = tuple(
            KnownSpan(start_ms, end_ms, "after_delisting", reason, REST, now_ms)
            for start_ms, end_ms, reason in (
                (proved_ms, seen_ms, CANNOT_BE_ASKED),
                (seen_ms, FOREVER_MS, LISTED_NO_MORE),
            )
        )

        def committed() -> None:
            for span in spans:
                known.put(span)
            self._drop(key)

        await self._health.written(
            self._database.write(partial(put_spans, key=key, spans=spans), then=committed)
        )

    async def _relisted(self, listed: tuple[Market, ...]) -> None:
        """What was delisted and is listed is asked again from then on."""
        symbols = {market.symbol for market in listed}
        gone = {key.symbol for key in tuple(self._coverage) if self.is_gone(key)}
        for symbol in sorted(gone & symbols):
            await self._health.written(asyncio.shield(self._forget(symbol)))

    def _forget(self, symbol: str) -> asyncio.Future[None]:
        def forgotten() -> None:
            for key, known in tuple(self._coverage.items()):
                gone = [one for one in known if one.state == "after_delisting"]
                if key.symbol == symbol and gone:
                    for span in gone:
                        known.forget(span.start_ms, span.end_ms)
                    self._drop(key)

        return self._database.enqueue(partial(forget_delisting, symbol=symbol), then=forgotten)

    def _drop(self, key: SeriesKey) -> None:
        series = self._memory.get(key)
        if series is not None:
            series.drop()
