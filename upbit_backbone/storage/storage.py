"""The store: answers what it can prove, and writes what a page proves."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Any

from upbit_backbone.clock import SECOND_MS, Clock, utc_datetime
from upbit_backbone.errors import (
    InvalidRequestError,
    RateLimitedError,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    TransportError,
)
from upbit_backbone.models import CLOSE_GRACE_MS, CandleSeries, Market, Source, Span, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Health,
    LayerStatus,
    Reach,
    Subscription,
)
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
    read_coverage,
    read_markets,
    read_rows,
    write_markets,
    write_rows,
)
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.series_memory import Answer, MemoryTier, SeriesMemory, Tail
from upbit_backbone.storage.spans import Range, SpanSet

logger = logging.getLogger(__name__)

PROOF_MARGIN_MS = 5 * SECOND_MS
"""A candle is proved only when read this long after its end: its last trades come late."""


class Storage:
    """Layer 2. Memory, SQLite rows and their coverage.

    A `STORED` request is answered from what is proved and never causes another one; an
    `ANYWHERE` request of one page is passed on, and its rows and their proof are written in
    one transaction before it is answered.
    """

    def __init__(
        self,
        below: DataSource,
        *,
        folder: Path,
        origin: Origin,
        clock: Clock,
        memory_limit_bytes: int,
    ) -> None:
        self._below = below
        self._origin = origin
        self._clock = clock
        self._database = Database(folder, origin)
        self._memory = MemoryTier(memory_limit_bytes)
        self._known: dict[SeriesKey, SpanSet] = {}
        self._loading: dict[SeriesKey, asyncio.Lock] = {}
        self._markets: tuple[Market, ...] = ()
        self._running = False
        self._failure: str = ""
        self._since_ms = clock.now_ms()
        self._memory_hits = 0
        self._database_reads = 0
        self._rows_written = 0

    async def start(self) -> None:
        """Open the database and learn what it proves.

        Raises:
            StorageError: as `Database.open`.
        """
        await self._database.open()
        self._known = await self._database.read(read_coverage)
        self._markets = await self._database.read(read_markets)
        self._running = True

    async def stop(self) -> None:
        """Finish the writes (at most 3 s) and close the file. May be called twice."""
        self._running = False
        await self._database.close()

    def stored_series(self) -> tuple[tuple[str, Timeframe], ...]:
        """Which series hold anything, by symbol and timeframe."""
        return tuple(
            (key.symbol, key.timeframe) for key, known in self._known.items() if len(known)
        )

    def peek(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        start_ms: int | None,
        end_ms: int | None,
        count: int | None,
        max_age_s: float,
        now: float,
    ) -> Any | None:
        """Candles that memory holds whole; everything else is the layer's below."""
        if data_type is not DataType.CANDLE or timeframe is None:
            return self._below.peek(
                data_type, symbol, timeframe, start_ms, end_ms, count, max_age_s, now
            )
        if start_ms is not None and count is not None:
            return None
        series = self._memory.get(SeriesKey(symbol, timeframe))
        if series is None:
            return None
        start_ms, aligned_end_ms = self._aligned(timeframe, start_ms, end_ms)
        answer = series.answer(
            series.loaded,
            start_ms,
            aligned_end_ms,
            count,
            now_ms=self._clock.now_ms(),
            fresh_since_s=now - max_age_s,
        )
        if answer.missing:
            return None
        self._memory_hits += 1
        return answer.rows

    def peek_age_s(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        end_ms: int | None,
        now: float,
    ) -> float | None:
        """Of the unproved rows that a `peek` up to `end_ms` leans on; without any, 0.0."""
        if data_type is not DataType.CANDLE or timeframe is None:
            return self._below.peek_age_s(data_type, symbol, timeframe, end_ms, now)
        series = self._memory.get(SeriesKey(symbol, timeframe))
        if series is None:
            return None
        _, aligned_end_ms = self._aligned(timeframe, None, end_ms)
        if series.tail is None or aligned_end_ms <= series.tail.start_ms:
            return 0.0
        return max(0.0, now - series.tail.received_s)

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """Answer from the store (`STORED`), or through the layer below (`ANYWHERE`).

        Raises:
            BackboneError: as the layer below.
        """
        if request.data_type is not DataType.CANDLE:
            return await self._below.fetch(request)
        if request.timeframe is None or len(request.symbols) != 1:
            raise InvalidRequestError(
                "a request for candles names one symbol and a timeframe,"
                f" was {request.symbols} and {request.timeframe}"
            )
        key = SeriesKey(request.symbols[0], request.timeframe)
        if request.reach is Reach.STORED:
            return await self._stored(key, request)
        return await self._page(key, request)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Streams pass through."""
        return self._below.subscribe(request)

    async def markets(self) -> tuple[Market, ...]:
        """The exchange's list, or the one stored last while it is not reached.

        Raises:
            TransportError: not reached, and none is stored.
        """
        try:
            markets = await self._below.markets()
        except (TransportError, RateLimitedError):
            if self._markets:
                return self._markets
            raise
        if markets != self._markets and self._running:
            self._markets = markets
            await self._written(self._database.write(lambda sql: write_markets(sql, markets)))
        return markets

    def status(self) -> LayerStatus:
        """Healthy, degraded (the file fails) or down."""
        health: Health = "healthy"
        if not self._running:
            health = "down"
        elif self._failure:
            health = "degraded"
        counters = {
            "memory_hits": float(self._memory_hits),
            "database_reads": float(self._database_reads),
            "rows_written": float(self._rows_written),
            "memory_bytes": float(self._memory.size_bytes),
        }
        reason = self._failure if self._running else "not running"
        return LayerStatus("layer_2", health, reason, utc_datetime(self._since_ms), counters)

    async def _stored(self, key: SeriesKey, request: BackboneRequest) -> BackboneResponse:
        started, now_ms = self._clock.monotonic(), self._clock.now_ms()
        series = self._series(key)
        start_ms, end_ms = self._aligned(key.timeframe, request.start_ms, request.end_ms)
        max_age_s = request.priority.max_age_s if request.max_age is None else request.max_age

        def ask() -> Answer:
            return series.answer(
                series.loaded,
                start_ms,
                end_ms,
                request.count,
                now_ms=now_ms,
                fresh_since_s=started - max_age_s,
            )

        source: Source = "cache"
        series.readers += 1
        try:
            answer = ask()
            if answer.missing:
                if await self._load(key, series, start_ms, end_ms, request.count):
                    source = "storage"
                answer = ask()
        finally:
            series.readers -= 1
        missing = tuple(
            Span(
                None if low is None else utc_datetime(low),
                None if high is None else utc_datetime(high),
                "unknown",
                "not asked yet",
            )
            for low, high in answer.missing
        )
        metadata = BackboneMetadata(
            source_layer="layer_2",
            cache_hit=not missing,
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(answer.rows),
            priority_used=request.priority,
            source=source,
            age_s=None
            if answer.received_s is None
            else self._clock.monotonic() - answer.received_s,
            path="storage",
            missing=missing,
            reason="stored" if not missing else "not all of it is stored",
        )
        self._memory.shrink()
        return BackboneResponse(not missing, answer.rows, metadata, None, request.request_id)

    async def _load(
        self,
        key: SeriesKey,
        series: SeriesMemory,
        start_ms: int | None,
        end_ms: int,
        count: int | None,
    ) -> bool:
        """Bring proved rows of a range into memory; False when all of them were there."""
        async with self._loading.setdefault(key, asyncio.Lock()):
            read = False
            for span in self._wanted_ranges(series, start_ms, end_ms, count):
                try:
                    rows = await self._database.read(
                        partial(
                            read_rows,
                            key=key,
                            span=span,
                            latest=count,
                            simulated=self._origin.simulated,
                        )
                    )
                except (StorageUnavailableError, StorageCorruptError) as error:
                    self._failed("read", error)
                    return read
                self._database_reads += 1
                read = True
                cut = count is not None and len(rows) == count
                series.put(rows, Range(int(rows.time[0]), span.end_ms) if cut else span)
            return read

    @staticmethod
    def _wanted_ranges(
        series: SeriesMemory, start_ms: int | None, end_ms: int, count: int | None
    ) -> list[Range]:
        if count is None:
            assert start_ms is not None
            known = series.known.overlap(start_ms, end_ms)
            return [hole for span in known for hole in series.loaded.missing(*span)]
        tail = series.tail
        anchor_ms = min(end_ms, tail.start_ms) if tail is not None else end_ms
        reach = series.known.ending_at(anchor_ms)
        if reach is None or not series.loaded.missing(*reach):
            return []
        return [reach]

    async def _page(self, key: SeriesKey, request: BackboneRequest) -> BackboneResponse:
        # The exchange read its candles after this moment, so this one is the safer to judge by;
        # the answer may have set the clock right, and it may be another caller's, asked earlier.
        asked_ms, asked_s = self._clock.now_ms(), self._clock.monotonic()
        response = await self._below.fetch(request)
        received_s = self._clock.monotonic()
        asked_ms = min(
            asked_ms, self._clock.now_ms() - math.ceil((received_s - asked_s) * SECOND_MS)
        ) - math.ceil((response.metadata.age_s or 0.0) * SECOND_MS)
        page: CandleSeries = response.data
        timeframe = key.timeframe
        start_ms, end_ms = self._aligned(timeframe, request.start_ms, request.end_ms)
        proved_to_ms = min(end_ms, timeframe.floor_ms(asked_ms - PROOF_MARGIN_MS))
        if len(page):
            oldest_ms = int(page.time[0])
            proved = Range(oldest_ms, max(oldest_ms, proved_to_ms))
            await self._keep(key, page, proved)
            if end_ms > asked_ms:
                closed_ms = timeframe.floor_ms(asked_ms - CLOSE_GRACE_MS)
                tail = Tail(page, oldest_ms, closed_ms, asked_ms, received_s)
                self._series(key).set_tail(tail.from_(proved.end_ms))
            low_ms = oldest_ms
        else:
            low_ms = end_ms
        missing: tuple[Span, ...] = ()
        if start_ms is None:
            if request.count is not None and len(page) < request.count:
                missing = (Span(None, utc_datetime(low_ms), "unknown", "unconfirmed"),)
        elif low_ms > start_ms:
            missing = (
                Span(utc_datetime(start_ms), utc_datetime(low_ms), "unknown", "unconfirmed"),
            )
        metadata = BackboneMetadata(
            source_layer=response.metadata.source_layer,
            cache_hit=False,
            processing_time_ms=response.metadata.processing_time_ms,
            data_count=len(page),
            priority_used=request.priority,
            source="rest",
            age_s=response.metadata.age_s,
            path="storage → router",
            missing=missing,
            reason="unconfirmed" if missing else "asked the exchange",
        )
        return BackboneResponse(not missing, page, metadata, None, request.request_id)

    async def _keep(self, key: SeriesKey, page: CandleSeries, proved: Range) -> None:
        """Write what a page proves, and hold it in memory once it is written."""
        rows = page.between(proved.start_ms, proved.end_ms)
        if not len(rows):
            return
        series = self._series(key)
        now_ms = self._clock.now_ms()
        evidence = f"page of {len(page)}"

        def committed() -> None:
            self._rows_written += len(rows)
            series.known.add(*proved)
            series.put(rows, proved)
            self._memory.shrink()

        await self._written(
            self._database.write(
                lambda sql: write_rows(sql, key, rows, proved, evidence=evidence, now_ms=now_ms),
                then=committed,
            )
        )

    async def _written(self, write: Awaitable[None]) -> None:
        """Await a write; a full disk or a locked file costs the memory, never the answer."""
        try:
            await write
        except (StorageUnavailableError, StorageCorruptError) as error:
            self._failed("stored", error)
            return
        if self._failure:
            logger.info("storing works again")
            self._failure, self._since_ms = "", self._clock.now_ms()

    def _failed(self, what: str, error: StorageError) -> None:
        if not self._failure:
            logger.warning("nothing can be %s: %s", what, error)
            self._since_ms = self._clock.now_ms()
        self._failure = str(error)

    def _series(self, key: SeriesKey) -> SeriesMemory:
        series = self._memory.get(key)
        if series is None or series.empty.simulated is not self._origin.simulated:
            # The first answer of an exchange tells whether it is a simulator.
            empty = CandleSeries.empty(
                key.symbol, key.timeframe, source="storage", simulated=self._origin.simulated
            )
            if series is None:
                series = SeriesMemory(empty, self._known.setdefault(key, SpanSet()))
                self._memory.add(key, series)
            series.empty = empty
        return series

    def _aligned(
        self, timeframe: Timeframe, start_ms: int | None, end_ms: int | None
    ) -> tuple[int | None, int]:
        """The same range named by open times: no candle opens between a time and the next one."""
        end_ms = self._clock.now_ms() + 1 if end_ms is None else end_ms
        start_ms = None if start_ms is None else timeframe.ceil_ms(start_ms)
        return start_ms, timeframe.ceil_ms(end_ms)
