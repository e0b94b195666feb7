"""The streams below that keep series up to now: one a series, for all who read it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from upbit_backbone.clock import Clock
from upbit_backbone.errors import BackboneError, ClosedError
from upbit_backbone.models import Candle, CandleSeries, Gap
from upbit_backbone.protocol import (
    BackboneRequest,
    DataSource,
    DataType,
    Priority,
    Subscription,
)
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.live_candles import CandleReader, LiveProof, LiveSeries
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
"""A pinned series whose stream has failed is streamed again after this time."""


class LiveFeeds:
    """Opens a stream when a series is shown or pinned, and closes it with its last reader."""

    def __init__(
        self,
        below: DataSource,
        *,
        clock: Clock,
        empty: Callable[[SeriesKey], CandleSeries],
        on_proof: Callable[[LiveSeries, LiveProof], None],
    ) -> None:
        """Take the layer below.

        Args:
            below: Whose candles are read.
            clock: The exchange's time.
            empty: A series without candles, for the labels of those to come.
            on_proof: Called with all that a stream proves, or takes back.
        """
        self._below = below
        self._clock = clock
        self._empty = empty
        self._on_proof = on_proof
        self._tasks = TaskOwner()
        self._series: dict[SeriesKey, LiveSeries] = {}
        self._pinned: set[SeriesKey] = set()

    @property
    def shown(self) -> tuple[SeriesKey, ...]:
        """The series that are shown or pinned."""
        return tuple(self._series)

    @property
    def fault(self) -> BaseException | None:
        """The last unexpected error that ended a stream; those after it go on."""
        return self._tasks.failure

    def get(self, key: SeriesKey) -> LiveSeries | None:
        """What is known of a series' stream; None: it is neither shown nor pinned."""
        return self._series.get(key)

    def pin(self, key: SeriesKey) -> None:
        """Keep a series up to now although nobody reads it."""
        self._pinned.add(key)
        self._tasks.spawn(self._keep_pinned(key), name=f"pinned candles {key.table}")

    def subscribe(self, key: SeriesKey, request: BackboneRequest) -> CandleReader:
        """One reader more of a series; the first one opens the stream.

        Raises:
            ClosedError: the layer below is not running.
        """
        live = self._series.get(key)
        if live is None or live.source is None or live.source.state == "closed":
            live = self._open(key, request)
        source_of = live

        def left(reader: CandleReader) -> None:
            source_of.readers.discard(reader)
            source_of.weigh()
            self._end_unwanted(source_of)

        reader = CandleReader(
            request.policy,
            lambda: source_of.source,
            left,
            request.priority,
            lambda _: source_of.weigh(),
        )
        live.readers.add(reader)
        live.weigh()
        if live.newest is not None:
            reader.push(live.newest)
        return reader

    def push(self, key: SeriesKey, value: Candle | Gap) -> None:
        """Hand a value to the readers of a series, if there are any."""
        live = self._series.get(key)
        if live is not None:
            live.push(value)

    async def close(self) -> None:
        """End all streams."""
        self._pinned.clear()
        await self._tasks.close()
        for live in tuple(self._series.values()):
            self._end(live, ClosedError("the candles ended with the store"))

    def _open(self, key: SeriesKey, request: BackboneRequest) -> LiveSeries:
        source = self._below.subscribe(msgspec.structs.replace(request, policy="all", proofs=True))
        live = LiveSeries(key, self._empty(key))
        live.source = source
        live.pinned = key in self._pinned
        self._series[key] = live
        self._tasks.spawn(self._follow(live, source), name=f"live candles {key.table}")
        return live

    async def _follow(self, live: LiveSeries, source: Subscription) -> None:
        error: BackboneError | None = ClosedError(
            "the candles ended with the store, or by a fault of their own"
        )
        try:
            async for value in source:
                if isinstance(value, Candle | Gap):
                    live.push(value)
                proof = live.take(value, self._clock.now_ms())
                if proof is not None:
                    self._on_proof(live, proof)
            error = None
        except BackboneError as failure:
            error = failure
            logger.info("the live candles of %s %s ended: %s", *live.key, failure)
        finally:
            # Cancelled, or a fault of ours: nobody may wait for a stream that is gone.
            self._end(live, error)

    async def _keep_pinned(self, key: SeriesKey) -> None:
        request = BackboneRequest(
            DataType.CANDLE, (key.symbol,), key.timeframe, priority=Priority.LOW
        )
        while key in self._pinned:
            live = self._series.get(key)
            if live is None or live.source is None or live.source.state == "closed":
                try:
                    self._open(key, request)
                except BackboneError as error:
                    logger.info("%s %s is pinned and not streamed: %s", *key, error)
            await asyncio.sleep(AGAIN_S)

    def _end_unwanted(self, live: LiveSeries) -> None:
        if not live.wanted:
            self._end(live, None)

    def _end(self, live: LiveSeries, error: BackboneError | None) -> None:
        if self._series.get(live.key) is live:
            del self._series[live.key]
        source = live.source
        if source is not None:
            source.close()
        live.interrupted()
        live.pinned = False
        for reader in tuple(live.readers):
            if error is None:
                reader.finish("the stream has ended")
            else:
                reader.fail(error)
