"""The store: answers what it can prove, and writes what a page proves."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from upbit_backbone.clock import SECOND_MS, Clock, utc_datetime
from upbit_backbone.errors import (
    ClosedError,
    InvalidRequestError,
    RateLimitedError,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import (
    CLOSE_GRACE_MS,
    CandleSeries,
    CandleState,
    Market,
    Source,
    Span,
    Timeframe,
)
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Health,
    LayerStatus,
    Priority,
    Reach,
    Subscription,
)
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
    read_markets,
    read_rows,
    write_markets,
)
from upbit_backbone.storage.coverage import (
    BEGINNING_MS,
    FOREVER_MS,
    REST,
    UNCONFIRMED,
    Coverage,
    KnownSpan,
    Unknown,
)
from upbit_backbone.storage.coverage_table import (
    Settled,
    forget_delisting,
    put_spans,
    read_coverage,
    write_live,
    write_page,
)
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.larger_timeframes import aggregated, buildable, smaller_of
from upbit_backbone.storage.live_candles import LiveProof, LiveSeries, series_of
from upbit_backbone.storage.live_feeds import LiveFeeds
from upbit_backbone.storage.page_proof import proofs_of_page
from upbit_backbone.storage.series_memory import Answer, MemoryTier, SeriesMemory, Tail
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.tending import Tending
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How often the store looks whether a page of its own is due."""
WARM_CANDLES = 1_000
"""How many of the newest candles of a series are brought into memory at once."""
RECENTLY_USED = 50
"""So many series that were written last are brought into memory at the start."""


class Storage:
    """Layer 2. Memory, SQLite rows and their coverage.

    A `STORED` request is answered from what is proved and never causes another one; an
    `ANYWHERE` request of one page is passed on, and its rows and their proof are written in
    one transaction before it is answered. Series that are shown or pinned stay complete up to
    now by themselves, and what the stream alone proved is read a second time.
    """

    def __init__(
        self,
        below: DataSource,
        *,
        folder: Path,
        origin: Origin,
        clock: Clock,
        memory_limit_bytes: int,
        pinned: Iterable[tuple[str, Timeframe]] = (),
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Take the layer below; nothing is opened before `start`.

        Args:
            below: The router.
            folder: Where the file is.
            origin: Whose data it is.
            clock: The exchange's time.
            memory_limit_bytes: Of candles held in memory.
            pinned: Series that stay up to now although nobody reads them.
            look_every_s: How often to look whether a page of its own is due.
        """
        self._below = below
        self._origin = origin
        self._clock = clock
        self._database = Database(folder, origin)
        self._memory = MemoryTier(memory_limit_bytes)
        self._coverage: dict[SeriesKey, Coverage] = {}
        self._pinned = tuple(SeriesKey(*one) for one in pinned)
        self._tasks = TaskOwner()
        self._tending = Tending(self._page, self._known, clock=clock, look_every_s=look_every_s)
        self._live = LiveFeeds(below, clock=clock, empty=self._empty, on_proof=self._keep_live)
        self._loading: dict[SeriesKey, asyncio.Lock] = {}
        self._markets: tuple[Market, ...] = ()
        self._running = False
        self._failure: str = ""
        self._since_ms = clock.now_ms()
        self._memory_hits = 0
        self._database_reads = 0
        self._misses = 0
        self._rows_written = 0
        self._commits = 0
        self._restated = 0
        self._settled = 0
        self._built = 0

    async def start(self) -> None:
        """Open the database and learn what it proves.

        Raises:
            StorageError: as `Database.open`.
        """
        await self._database.open()
        self._database.watch(self._written_elsewhere)
        self._coverage = await self._database.read(read_coverage)
        self._markets = await self._database.read(read_markets)
        self._running = True
        for key, coverage in self._coverage.items():
            self._tending.settling.take(key, coverage)
        self._tasks.spawn(self._tending.run(), name="storage tending")
        for key in self._pinned:
            self._live.pin(key)

    async def stop(self) -> None:
        """Finish the writes (at most 3 s) and close the file. May be called twice."""
        self._running = False
        await self._live.close()
        await self._tasks.close()
        await self._database.close()

    def stored_series(self) -> tuple[tuple[str, Timeframe], ...]:
        """Which series hold anything, by symbol and timeframe."""
        return tuple(
            (key.symbol, key.timeframe)
            for key, coverage in self._coverage.items()
            if any(span.state == "complete" for span in coverage)
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
        self._up_to_now(series, SeriesKey(symbol, timeframe), now)
        answer = series.answer(
            series.loaded,
            start_ms,
            aligned_end_ms,
            count,
            now_ms=self._clock.now_ms(),
            fresh_since_s=now - max_age_s,
        )
        if _holes(answer):
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
        """Open a stream; candles come through the store, which keeps them and tells of changes."""
        if request.data_type is not DataType.CANDLE or request.timeframe is None:
            return self._below.subscribe(request)
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        (symbol,) = request.symbols
        return self._live.subscribe(SeriesKey(symbol, request.timeframe), request)

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
            await self._relisted({market.symbol for market in markets})
        return markets

    async def warm_up_cache(self, symbols: Iterable[str] = ()) -> int:
        """Bring the newest candles of series into memory; asks nobody.

        Pinned and shown series, those of the symbols, and those written last.

        Returns:
            How many candles are held now of the series that were read.
        """
        wanted = dict.fromkeys((*self._pinned, *self._live.shown))
        named = set(symbols)
        written = sorted(self._coverage, key=self._written_ms, reverse=True)
        wanted |= dict.fromkeys(key for key in written if key.symbol in named)
        wanted |= dict.fromkeys(written[:RECENTLY_USED])
        held = 0
        for key in wanted:
            series = await self.get_with_fallback(key, count=WARM_CANDLES)
            held += len(series) if series is not None else 0
        return held

    async def get_with_fallback(
        self, key: tuple[str, Timeframe], *, count: int = WARM_CANDLES
    ) -> CandleSeries | None:
        """The newest stored candles of a series: from memory, else from blocks, else from rows.

        Causes no request; None: nothing is stored.
        """
        key = SeriesKey(*key)
        complete = [one for one in self._known(key) if one.state == "complete"]
        if not complete:
            return None
        response = await self._stored(
            key,
            BackboneRequest(
                DataType.CANDLE,
                (key.symbol,),
                key.timeframe,
                end_time=utc_datetime(complete[-1].end_ms),
                count=count,
                priority=Priority.LOW,
                reach=Reach.STORED,
            ),
        )
        rows: CandleSeries = response.data
        return rows

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
            "misses": float(self._misses),
            "rows_written": float(self._rows_written),
            "live_series": float(len(self._live.shown)),
            "settled": float(self._settled),
            "restated": float(self._restated),
            "settling_pages": float(self._tending.settling_pages),
            "seam_pages": float(self._tending.seam_pages),
            "built": float(self._built),
            "memory_bytes": float(self._memory.size_bytes),
        }
        reading = self._database.counts
        counters |= {
            "candles_from_blocks": float(reading.from_blocks),
            "candles_from_rows": float(reading.from_rows),
            "damaged_blocks": float(reading.damaged_blocks),
        }
        reason = self._failure if self._running else "not running"
        return LayerStatus("layer_2", health, reason, utc_datetime(self._since_ms), counters)

    async def _stored(self, key: SeriesKey, request: BackboneRequest) -> BackboneResponse:
        started, now_ms = self._clock.monotonic(), self._clock.now_ms()
        series = self._series(key)
        start_ms, end_ms = self._aligned(key.timeframe, request.start_ms, request.end_ms)
        max_age_s = request.priority.max_age_s if request.max_age is None else request.max_age
        self._tending.settling.asked_for(key)

        def ask() -> Answer:
            self._up_to_now(series, key, self._clock.monotonic())
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
            if _holes(answer):
                if await self._load(key, series, start_ms, end_ms, request.count):
                    source = "storage"
                answer = ask()
            while _holes(answer) and await self._build(key, answer, request.count):
                source = "storage"
                answer = ask()
        finally:
            series.readers -= 1
        missing = self._missing(key, answer)
        if missing:
            self._misses += 1
        elif source == "cache":
            self._memory_hits += 1
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
            silent=self._silent(key, start_ms, end_ms, answer.rows, request.count),
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
        try:
            response = await self._below.fetch(request)
        except UnknownSymbolError:
            await self._delisted(key.symbol)
            raise
        received_s = self._clock.monotonic()
        asked_ms = min(
            asked_ms, self._clock.now_ms() - math.ceil((received_s - asked_s) * SECOND_MS)
        ) - math.ceil((response.metadata.age_s or 0.0) * SECOND_MS)
        page: CandleSeries = response.data
        timeframe = key.timeframe
        start_ms, end_ms = self._aligned(timeframe, request.start_ms, request.end_ms)
        proofs = proofs_of_page(
            self._known(key),
            timeframe,
            page,
            end_ms=end_ms,
            count=request.count or 0,
            asked_ms=asked_ms,
        )
        await self._keep(key, page, proofs)
        low_ms = int(page.time[0]) if len(page) else end_ms
        if len(page) and end_ms > asked_ms:
            closed_ms = timeframe.floor_ms(asked_ms - CLOSE_GRACE_MS)
            tail = Tail(page, low_ms, closed_ms, asked_ms, received_s)
            proved_ms = max(
                (one.end_ms for one in proofs if one.state == "complete"), default=low_ms
            )
            self._series(key).set_tail(tail.from_(proved_ms))
        missing: tuple[Span, ...] = ()
        if start_ms is None:
            if request.count is not None and len(page) < request.count:
                missing = self._unknown(key, BEGINNING_MS, low_ms)
                missing = (Span(None, missing[-1].end, "unknown", UNCONFIRMED),) if missing else ()
        elif low_ms > start_ms:
            missing = self._unknown(key, start_ms, low_ms)
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
            reason=UNCONFIRMED if missing else "asked the exchange",
            silent=self._silent(key, start_ms, end_ms, page, request.count),
        )
        return BackboneResponse(not missing, page, metadata, None, request.request_id)

    async def _keep(self, key: SeriesKey, page: CandleSeries, proofs: list[KnownSpan]) -> None:
        """Write what a page proves, and hold it in memory once it is written."""
        if not proofs:
            return
        complete = [one for one in proofs if one.state == "complete"]
        rows = page.between(complete[0].start_ms, complete[0].end_ms) if complete else page[:0]
        settled = Settled()

        def work(sql: Sql) -> None:
            nonlocal settled
            settled = write_page(sql, key, rows, proofs)

        def committed() -> None:
            self._commits += 1
            self._rows_written += len(rows)
            series, known = self._series(key), self._known(key)
            if settled.vanished:
                series.drop()
            for proof in proofs:
                known.put(proof)
                if proof.state == "complete":
                    series.put(rows, Range(proof.start_ms, proof.end_ms))
                elif proof.proved:
                    series.put(series.empty, Range(proof.start_ms, proof.end_ms))
            self._tell_settled(key, rows, settled)
            self._tending.settling.take(key, known)
            self._memory.shrink()

        await self._written(self._database.write(work, then=committed))

    def _tell_settled(self, key: SeriesKey, rows: CandleSeries, settled: Settled) -> None:
        """Tell the readers what a second reading said; what has changed comes last."""
        self._settled += len(settled.same)
        self._restated += len(settled.restated) + len(settled.vanished)
        states: tuple[tuple[tuple[int, ...], CandleState], ...]
        states = ((settled.same, "settled"), (settled.restated, "revised"))
        for opens, state in states:
            for at_ms in opens:
                candle = rows.between(at_ms, at_ms + 1)[0]
                self._live.push(key, msgspec.structs.replace(candle, state=state))

    # Live series.

    def _keep_live(self, live: LiveSeries, proof: LiveProof) -> None:
        """Write what a stream proves, in the background: its readers do not wait for it."""
        key = live.key
        if live.whole_from_ms is not None:
            self._tending.joins(key, live.whole_from_ms)
        if not proof.spans:
            return
        rows = series_of(self._empty(key), proof.candles).labelled("storage")
        taken = rows

        def work(sql: Sql) -> None:
            nonlocal taken
            taken = write_live(sql, key, rows, proof.spans, over_all=proof.over_all)

        def committed() -> None:
            self._commits += 1
            self._rows_written += len(taken)
            self._live_committed(live, proof, rows, taken)

        self._tasks.spawn(
            self._written(self._database.write(work, then=committed)), name=f"write {key.table}"
        )

    def _live_committed(
        self, live: LiveSeries, proof: LiveProof, rows: CandleSeries, taken: CandleSeries
    ) -> None:
        key = live.key
        series, known = self._series(key), self._known(key)
        for span in proof.spans:
            known.put(span, over_all=proof.over_all)
        if len(taken) < len(rows) or not all(span.proved for span in proof.spans):
            # A page had said it before, or what was proved is not any more.
            series.drop()
        else:
            for span in proof.spans:
                for part in known.between(span.start_ms, span.end_ms):
                    if part.unsettled:
                        held = taken.between(part.start_ms, part.end_ms)
                        series.put(held, Range(part.start_ms, part.end_ms))
        live.stored(proof)
        self._tending.settling.take(key, known)
        if live.whole_from_ms is not None:
            self._tending.joins(key, live.whole_from_ms)
        self._memory.shrink()

    def _up_to_now(self, series: SeriesMemory, key: SeriesKey, now_s: float) -> None:
        """Let the stream tell what lies between the stored part and now."""
        live = self._live.get(key)
        tail = None if live is None else live.tail(self._clock.now_ms(), now_s)
        if tail is not None:
            series.set_tail(tail)

    # What is listed.

    async def _delisted(self, symbol: str) -> None:
        """The exchange does not know a symbol: if it is stored, it was listed once."""
        now_ms = self._clock.now_ms()
        for key, known in tuple(self._coverage.items()):
            if key.symbol != symbol or not any(one.state == "complete" for one in known):
                continue
            if any(one.state == "after_delisting" for one in known):
                continue
            span = KnownSpan(
                key.timeframe.ceil_ms(now_ms),
                FOREVER_MS,
                "after_delisting",
                "the exchange lists it no more",
                REST,
                now_ms,
            )
            await self._written(
                self._database.write(
                    partial(put_spans, key=key, spans=(span,)), then=partial(known.put, span)
                )
            )

    async def _relisted(self, listed: set[str]) -> None:
        """What was delisted and is listed again is asked again from then on."""
        for key, known in tuple(self._coverage.items()):
            gone = [one for one in known if one.state == "after_delisting"]
            if key.symbol not in listed or not gone:
                continue
            await self._written(
                self._database.write(
                    partial(forget_delisting, symbol=key.symbol),
                    then=partial(known.forget, gone[0].start_ms, FOREVER_MS),
                )
            )
            series = self._memory.get(key)
            if series is not None:
                series.drop()

    # Larger timeframes.

    async def _build(self, key: SeriesKey, answer: Answer, count: int | None) -> bool:
        """Build what is missing from stored smaller candles; False: nothing can be built."""
        if not self._running:
            return False
        for low_ms, high_ms in _holes(answer):
            if high_ms is None:
                continue
            if low_ms is None:
                wanted = max(1, (count or 1) - len(answer.rows))
                low_ms = key.timeframe.back_ms(key.timeframe.ceil_ms(high_ms), wanted)
            for smaller in smaller_of(key.timeframe):
                known = self._coverage.get(SeriesKey(key.symbol, smaller))
                if known is None:
                    continue
                parts = buildable(known, key.timeframe, smaller, Range(low_ms, high_ms))
                # An answer by number goes down from its end: a part below a hole is no help.
                if count is not None:
                    parts = [part for part in parts if part.end_ms == high_ms]
                if parts and await self._build_part(key, smaller, parts[-1]):
                    return True
        return False

    async def _build_part(self, key: SeriesKey, smaller: Timeframe, part: Range) -> bool:
        read: Callable[[Sql], CandleSeries] = partial(
            read_rows,
            key=SeriesKey(key.symbol, smaller),
            span=part,
            latest=None,
            simulated=self._origin.simulated,
        )
        try:
            rows = aggregated(await self._database.read(read), key.timeframe)
        except (StorageUnavailableError, StorageCorruptError) as error:
            self._failed("read", error)
            return False
        self._database_reads += 1
        proof = KnownSpan(*part, "complete", "", f"built from {smaller}", self._clock.now_ms())
        await self._keep(key, rows, [proof])
        if self._failure:
            return False
        self._built += len(rows)
        return True

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
            empty = self._empty(key)
            if series is None:
                series = SeriesMemory(empty, self._known(key).proved)
                self._memory.add(key, series)
            series.empty = empty
        return series

    def _known(self, key: SeriesKey) -> Coverage:
        """What is known of a series."""
        return self._coverage.setdefault(key, Coverage())

    def _written_elsewhere(self) -> None:
        """Another program wrote: what memory holds may be old."""
        if self._running:
            self._tasks.spawn(self._read_again(), name="coverage written elsewhere")

    async def _read_again(self) -> None:
        while True:
            commits = self._commits
            try:
                stored = await self._database.read(read_coverage)
            except (StorageUnavailableError, StorageCorruptError) as error:
                self._failed("read", error)
                return
            # What was committed here meanwhile may not be among it.
            if commits == self._commits:
                break
        for key in self._coverage.keys() | stored.keys():
            known = self._known(key)
            known.become(stored.get(key, Coverage()))
            self._tending.settling.take(key, known)
            series = self._memory.get(key)
            if series is not None:
                series.drop()

    def _empty(self, key: SeriesKey) -> CandleSeries:
        """A series without candles, labelled as the origin is known by now."""
        return CandleSeries.empty(
            key.symbol, key.timeframe, source="storage", simulated=self._origin.simulated
        )

    def _written_ms(self, key: SeriesKey) -> int:
        return max((one.known_at_ms for one in self._known(key)), default=0)

    def _missing(self, key: SeriesKey, answer: Answer) -> tuple[Span, ...]:
        """Why what an answer lacks is not known."""
        spans: list[Span] = []
        for low_ms, high_ms in _holes(answer):
            if low_ms is not None and high_ms is not None:
                spans += self._unknown(key, low_ms, high_ms)
                continue
            reason = "not asked yet"
            at = None if high_ms is None else self._known(key).at(high_ms - 1)
            if at is not None and not at.proved:
                reason = at.reason
            spans.append(
                Span(
                    None if low_ms is None else utc_datetime(low_ms),
                    None if high_ms is None else utc_datetime(high_ms),
                    "unknown",
                    reason,
                )
            )
        return tuple(spans)

    def _silent(
        self,
        key: SeriesKey,
        start_ms: int | None,
        end_ms: int,
        rows: CandleSeries,
        count: int | None,
    ) -> tuple[Span, ...]:
        """Where an answer has no candle because there is none."""
        if start_ms is None:
            enough = len(rows) and len(rows) == count
            start_ms = int(rows.time[0]) if enough else BEGINNING_MS
        return tuple(
            Span(utc_datetime(one.start_ms), utc_datetime(one.end_ms), one.state, one.reason)
            for one in self._known(key).between(start_ms, end_ms)
            if one.state in ("empty", "before_listing", "after_delisting")
        )

    def _unknown(self, key: SeriesKey, low_ms: int, high_ms: int) -> tuple[Span, ...]:
        found = self._known(key).unknown(low_ms, high_ms)
        if not found and self._failure:
            found = [Unknown(low_ms, high_ms, self._failure)]
        return tuple(
            Span(utc_datetime(low), utc_datetime(high), "unknown", reason)
            for low, high, reason in found
        )

    def _aligned(
        self, timeframe: Timeframe, start_ms: int | None, end_ms: int | None
    ) -> tuple[int | None, int]:
        """The same range named by open times: no candle opens between a time and the next one."""
        end_ms = self._clock.now_ms() + 1 if end_ms is None else end_ms
        start_ms = None if start_ms is None else timeframe.ceil_ms(start_ms)
        return start_ms, timeframe.ceil_ms(end_ms)


def _holes(answer: Answer) -> tuple[tuple[int | None, int | None], ...]:
    """What an answer lacks: below the beginning of the calendar there is nothing to know."""
    return tuple(
        (low_ms, high_ms)
        for low_ms, high_ms in answer.missing
        if high_ms is None or high_ms > BEGINNING_MS
    )
