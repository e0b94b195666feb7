"""The store: answers what it can prove, and writes what a page proves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from upbit_backbone.call_in_work import reached
from upbit_backbone.candle_checks import check_page
from upbit_backbone.clock import SECOND_MS, Clock, epoch_ms, utc_datetime
from upbit_backbone.errors import (
    ClosedError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    StorageCorruptError,
    StorageUnavailableError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import (
    CLOSE_GRACE_MS,
    CandleSeries,
    CandleState,
    Source,
    Span,
    Timeframe,
)
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    MAX_PAGE_CANDLES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Health,
    LayerStatus,
    MarketList,
    Priority,
    Reach,
    SelfAudit,
    Subscription,
)
from upbit_backbone.storage.answers import (
    holes,
    missing_below,
    missing_spans,
    silent_spans,
    unread,
)
from upbit_backbone.storage.audit import Auditor
from upbit_backbone.storage.audit_table import Repair
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
)
from upbit_backbone.storage.coverage import (
    BEGINNING_MS,
    CONTRADICTED,
    UNCONFIRMED,
    Coverage,
    KnownSpan,
)
from upbit_backbone.storage.coverage_table import (
    Outdated,
    Settled,
    read_coverage,
    read_proved,
    write_page,
)
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.figures import StoreFigures
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.larger_candles import LargerCandles
from upbit_backbone.storage.late_trades import LateTrades, without
from upbit_backbone.storage.listings import Listings
from upbit_backbone.storage.live_candles import LiveProof, LiveSeries, with_revised
from upbit_backbone.storage.live_feeds import LiveFeeds
from upbit_backbone.storage.live_writes import LiveWrite, LiveWrites
from upbit_backbone.storage.maintenance import Maintenance
from upbit_backbone.storage.other_programs import OtherPrograms
from upbit_backbone.storage.page_proof import Doubt, NewestShown, proofs_of_page
from upbit_backbone.storage.retention import RetentionPolicy, forget
from upbit_backbone.storage.series_memory import Answer, MemoryTier, SeriesMemory, Tail
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.tending import LowTurn, Tending, never
from upbit_backbone.tasks import TaskOwner

LOOK_EVERY_S = 1.0
"""How often the store looks whether a page of its own is due."""
IDLE_S = 60.0
"""Nobody has asked for a page for so long: there is time for the self-audit."""
WARM_CANDLES = 1_000
"""How many of the newest candles of a series are brought into memory at once."""
BETWEEN_SERIES_S = 0.01
"""Warming up leaves loop and file to others for so long after each series."""
MOST_READS = 5
"""So often is read for one answer; what is dropped each time is told as missing."""
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
        rng: Random | None = None,
        gives_way: Callable[[], bool] = never,
        low_turn: LowTurn = nullcontext,
        policy: RetentionPolicy | None = None,
        on_revised: Callable[[str, Timeframe, Sequence[int], str], None] = lambda *_: None,
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
            rng: Chance, which candles the self-audit reads again; None: there is none.
            gives_way: Whether pages of the store's own have to wait for the load.
            low_turn: What they hold while they are under way: one turn for all LOW requests.
            policy: What may be stored; None: all that was ever read stays.
            on_revised: Told the symbol, the timeframe, the open times and the reason when candles
                that were over have changed.
        """
        self._below = below
        self._origin = origin
        self._clock = clock
        self._database = Database(folder, origin)
        self._memory = MemoryTier(memory_limit_bytes)
        self._coverage: dict[SeriesKey, Coverage] = {}
        self._pinned = tuple(SeriesKey(*one) for one in pinned)
        self._tasks = TaskOwner()
        self._tending = Tending(
            self._page,
            self._known,
            clock=clock,
            look_every_s=look_every_s,
            gives_way=gives_way,
            low_turn=low_turn,
        )
        self._low_turn = low_turn
        self._live = LiveFeeds(below, clock=clock, empty=self._empty, on_proof=self._keep_live)
        self._loading: dict[SeriesKey, asyncio.Lock] = {}
        self._health = FileHealth(clock)
        self._live_writes = LiveWrites(
            self._database, health=self._health, committed=self._live_committed
        )
        self._listings = Listings(
            self._database,
            self._coverage,
            self._memory,
            ask=self.markets,
            health=self._health,
            clock=clock,
        )
        self._larger = LargerCandles(
            self._database,
            self._coverage,
            self._keep,
            origin=origin,
            health=self._health,
            clock=clock,
        )
        self._maintenance = Maintenance(
            self._database,
            clock=clock,
            policy=policy or RetentionPolicy(),
            spared=lambda: {*self._pinned, *self._live.shown},
            removed=self._candles_removed,
            look_every_s=look_every_s,
        )
        self._others = OtherPrograms(
            self._database,
            self._coverage,
            self._memory,
            known=self._known,
            taken_over=self._taken_over,
            losses=self._live_writes.losses,
            empty=self._empty,
            health=self._health,
            pause_s=look_every_s,
        )
        self._late = LateTrades()
        self._doubts: dict[SeriesKey, Doubt] = {}
        self._asked_s = clock.monotonic()
        self._audit: Auditor | None = None
        if rng is not None:
            self._audit = Auditor(
                self._database,
                self._sample,
                origin=origin,
                clock=clock,
                rng=rng,
                idle=self._is_idle,
                on_repair=self._repaired,
                on_unknown=self._listings.delisted,
            )
            self._tending.when_idle(self._audit.next_page)
        self._running = False
        self._memory_hits = 0
        self._database_reads = 0
        self._misses = 0
        self._rows_written = 0
        self._restated = 0
        self._revised_late = 0
        """Candles that were over when a late trade changed them; each time counts."""
        self._on_revised = on_revised
        self._settled = 0

    async def start(self) -> None:
        """Open the database and learn what it proves.

        Raises:
            StorageError: as `Database.open`.
        """
        await self._database.open()
        self._database.watch(self._others.have_written)
        self._coverage |= await self._database.read(read_coverage)
        await self._listings.read()
        if self._audit is not None:
            await self._audit.start()
        self._running = True
        for key, coverage in self._coverage.items():
            self._tending.settling.take(key, coverage)
        self._tasks.spawn(self._tending.run(), name="storage tending", vital=True)
        self._tasks.spawn(self._maintenance.run(), name="storage maintenance", vital=True)
        for key in self._pinned:
            self._live.pin(key)

    async def stop(self) -> None:
        """Finish the writes (at most 3 s) and close the file. May be called twice."""
        self._running = False
        cancelled: asyncio.CancelledError | None = None
        for end in (
            self._live.close,
            self._live_writes.close,
            self._others.close,
            self._tasks.close,
            self._maintenance.finish,
            self._database.close,
        ):
            try:
                await end()
            except asyncio.CancelledError as error:
                # The file's threads would keep the process from ending.
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def stored_series(self) -> tuple[tuple[str, Timeframe], ...]:
        """Which series hold anything, by symbol and timeframe."""
        return tuple(
            (key.symbol, key.timeframe)
            for key, coverage in self._coverage.items()
            if any(span.state == "complete" for span in coverage)
        )

    def holds(self, symbol: str) -> bool:
        """Whether candles of a symbol are stored, be it listed or not."""
        return any(symbol == stored for stored, _ in self.stored_series())

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
        if holes(answer):
            return None
        self._memory_hits += 1
        self._maintenance.used(SeriesKey(symbol, timeframe))
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
            ProtocolError: a page is not what was asked for; nothing of it is stored.
            BackboneError: as the layer below.
        """
        reached("storage")
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
        self._asked_s = self._clock.monotonic()
        return await self._page(key, request)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Open a stream; candles come through the store, which keeps them and tells of changes."""
        if request.data_type is not DataType.CANDLE or request.timeframe is None:
            return self._below.subscribe(request)
        if not self._running:
            raise ClosedError("the store is closed: open a new service")
        (symbol,) = request.symbols
        return self._live.subscribe(SeriesKey(symbol, request.timeframe), request)

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        """The exchange's list, or the one stored last while it is not reached.

        Raises:
            TransportError: not reached, and none is stored.
        """
        try:
            listing = await self._below.markets(max_age_s=max_age_s)
        except (TransportError, RateLimitedError, ProtocolError) as error:
            if self._listings.markets:
                return MarketList(self._listings.markets, error=error)
            raise
        if not listing.markets:  # an exchange without a market is none
            return MarketList(self._listings.markets)
        if self._running:
            await self._listings.take(listing.markets)
        return listing

    async def warm_up_cache(
        self, symbols: Iterable[str] = (), *, most: Callable[[], float] = lambda: math.inf
    ) -> int:
        """Bring the newest candles of series into memory; asks nobody, and gives way in between.

        Pinned and shown series, those of the symbols, and those written last.

        Args:
            symbols: Whose series are wanted.
            most: How many series may be brought in, asked before each: it may shrink meanwhile.

        Returns:
            How many candles are held now of the series that were read.
        """
        wanted = dict.fromkeys((*self._pinned, *self._live.shown))
        named = set(symbols)
        written = sorted(self._coverage, key=self._written_ms, reverse=True)
        wanted |= dict.fromkeys(key for key in written if key.symbol in named)
        wanted |= dict.fromkeys(written[:RECENTLY_USED])
        held = 0
        for number, key in enumerate(wanted):
            if number >= most():
                break
            series = await self.get_with_fallback(key, count=WARM_CANDLES)
            held += len(series) if series is not None else 0
            await asyncio.sleep(BETWEEN_SERIES_S)
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
        answer, _ = await self._found(
            key, None, complete[-1].end_ms, count, max_age_s=0.0, may_build=False
        )
        return answer.rows

    @property
    def self_audit(self) -> SelfAudit | None:
        """What a random sample of the stored candles was worth when it was last read again."""
        return None if self._audit is None else self._audit.found

    @property
    def figures(self) -> StoreFigures | None:
        """Size and content of the file as measured last; None before the first time."""
        return self._maintenance.figures

    @property
    def failure(self) -> str:
        """Why it cannot work any more; a full disk or a damaged file is no reason."""
        if not self._running:
            return "it was stopped"
        return self._tasks.lost or self._database.lost

    def oldest_wait_s(self) -> dict[Priority, float]:
        """How long the oldest call of each priority has waited for its turn to read the file."""
        return self._database.oldest_wait_s()

    def limit_memory(self, limit_bytes: int) -> None:
        """Hold no more candles in memory than this; what is dropped is in the file."""
        self._memory.limit_to(limit_bytes)

    @property
    def memory_bytes(self) -> int:
        """What the candles in memory take."""
        return self._memory.size_bytes

    def status(self) -> LayerStatus:
        """Healthy, degraded (the file fails) or down."""
        health: Health = "healthy"
        if not self._running:
            health = "down"
        elif self._failure:
            health = "degraded"
        counters = {
            "memory_hits": float(self._memory_hits),
            "database_reads": float(self._database_reads + self._larger.reads),
            "misses": float(self._misses),
            "rows_written": float(self._rows_written),
            "live_series": float(len(self._live.shown)),
            "settled": float(self._settled),
            "restated": float(self._restated),
            "revisions": float(self._restated + self._revised_late),
            "settling_pages": float(self._tending.settling_pages),
            "seam_pages": float(self._tending.seam_pages),
            "built": float(self._larger.built),
            "memory_bytes": float(self._memory.size_bytes),
        }
        found = self.self_audit
        if found is not None:
            counters |= {
                "audit_compared": float(found.compared),
                "audit_agreeing": float(found.agreeing),
                "audit_restated": float(found.restated),
                "audit_vanished": float(found.vanished),
                "audit_appeared": float(found.appeared),
            }
        reading = self._database.counts
        counters |= {
            "candles_from_blocks": float(reading.from_blocks),
            "candles_from_rows": float(reading.from_rows),
            "damaged_blocks": float(reading.damaged_blocks),
        }
        counters |= self._maintenance.counters()
        reason = self._failure if self._running else "not running"
        return LayerStatus("layer_2", health, reason, utc_datetime(self._health.since_ms), counters)

    @property
    def _failure(self) -> str:
        """What keeps the store from doing all it should; empty: nothing."""
        fault = (
            self._tending.fault
            or self._live.fault
            or self._live_writes.fault
            or self._others.fault
            or self._maintenance.fault
            or self._tasks.failure
        )
        return (
            self._health.failure
            or self._maintenance.damage
            or ("" if fault is None else f"an unexpected error, told in the log: {fault!r}")
        )

    async def _stored(self, key: SeriesKey, request: BackboneRequest) -> BackboneResponse:
        started = self._clock.monotonic()
        start_ms, end_ms = self._aligned(key.timeframe, request.start_ms, request.end_ms)
        max_age_s = request.priority.max_age_s if request.max_age is None else request.max_age
        self._tending.settling.asked_for(key)
        self._maintenance.used(key)
        answer, source = await self._found(
            key, start_ms, end_ms, request.count, max_age_s=max_age_s
        )
        missing = missing_spans(self._known(key), answer, self._health.read_failure)
        if missing:
            self._misses += 1
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
            silent=silent_spans(self._known(key), start_ms, end_ms, answer.rows, request.count),
        )
        return BackboneResponse(not missing, answer.rows, metadata, None, request.request_id)

    async def _found(
        self,
        key: SeriesKey,
        start_ms: int | None,
        end_ms: int,
        count: int | None,
        *,
        max_age_s: float,
        may_build: bool = True,
    ) -> tuple[Answer, Source]:
        """What memory, blocks and rows have, and smaller candles; and where it came from."""
        now_s, now_ms = self._clock.monotonic(), self._clock.now_ms()
        series = self._series(key)
        series.expire(now_s)

        def ask() -> Answer:
            self._up_to_now(series, key, self._clock.monotonic())
            return series.answer(
                series.loaded,
                start_ms,
                end_ms,
                count,
                now_ms=now_ms,
                fresh_since_s=now_s - max_age_s,
            )

        source: Source = "cache"
        series.readers += 1
        try:
            answer = ask()
            for _ in range(MOST_READS):
                # Again where memory was dropped meanwhile: it held what was not true any more.
                if not holes(answer) or not await self._load(key, series, ask, count):
                    break
                source = "storage"
                answer = ask()
            may_build = may_build and self._running
            while may_build and holes(answer) and await self._larger.build(key, answer, count):
                source = "storage"
                answer = ask()
        finally:
            series.readers -= 1
        self._memory_hits += source == "cache" and not holes(answer)
        self._memory.shrink()
        return answer, source

    async def _load(
        self, key: SeriesKey, series: SeriesMemory, ask: Callable[[], Answer], count: int | None
    ) -> bool:
        """Bring what an answer lacks, and the file has, into memory; False: there is nothing."""
        async with self._loading.setdefault(key, asyncio.Lock()):
            answer = ask()
            wanted = unread(series.known, answer)
            latest = None if count is None else count - len(answer.rows)
            for span in wanted:
                try:
                    await self._load_span(key, series, span, latest)
                except (StorageUnavailableError, StorageCorruptError) as error:
                    self._health.failed("read", error)
                    return False
            return bool(wanted)

    async def _load_span(
        self, key: SeriesKey, series: SeriesMemory, span: Range, latest: int | None
    ) -> None:
        if series.known.missing(*span):
            # Taken back while another part was read: the next round reads what is left of it.
            return
        work = partial(
            read_proved, key=key, span=span, latest=latest, simulated=self._origin.simulated
        )
        with series.read() as changed:
            rows, proved = await self._database.read(work)
        self._database_reads += 1
        self._health.read_works()
        cut = latest is not None and len(rows) == latest
        read = Range(int(rows.time[0]), span.end_ms) if cut else span
        # The file was read as it stood before what was committed meanwhile.
        for part in changed.missing(*read):
            for gone in proved.missing(*part):
                # Retention, of this program or another one, has removed it meanwhile.
                self._known(key).forget(*gone)
            for held in proved.overlap(*part):
                series.put(rows.between(*held), held)

    async def _page(self, key: SeriesKey, request: BackboneRequest) -> BackboneResponse:
        # The exchange read its candles after this moment, so this one is the safer to judge by;
        # the answer may have set the clock right, and it may be another caller's, asked earlier.
        asked_ms, asked_s = self._clock.now_ms(), self._clock.monotonic()
        if self._listings.is_gone(key):
            raise UnknownSymbolError(key.symbol)
        try:
            response = await self._below.fetch(request)
        except UnknownSymbolError:
            await self._listings.delisted(key.symbol)
            raise
        received_s = self._clock.monotonic()
        asked_ms = min(
            asked_ms, self._clock.now_ms() - math.ceil((received_s - asked_s) * SECOND_MS)
        ) - math.ceil((response.metadata.age_s or 0.0) * SECOND_MS)
        page: CandleSeries = response.data
        timeframe = key.timeframe
        start_ms, end_ms = self._aligned(timeframe, request.start_ms, request.end_ms)
        check_page(
            page,
            symbol=key.symbol,
            timeframe=timeframe,
            rows=MAX_PAGE_CANDLES if request.count is None else request.count,
            # Up to now: our clock may be behind, and another period may have begun meanwhile.
            end_ms=None if request.end_ms is None else end_ms,
        )
        proofs = proofs_of_page(
            self._known(key),
            timeframe,
            page,
            end_ms=end_ms,
            count=request.count or 0,
            asked_ms=asked_ms,
        )
        shown = self._newest_shown(key, page, proofs, asked_ms)
        read_s = asked_s - (response.metadata.age_s or 0.0)
        late = self._late.since(key, read_s)
        if late:
            # The page was asked before these trades: it is not the one that settles their candles.
            proofs = without(proofs, timeframe, late)
            page = with_revised(page, late.values())
        if len(page):
            self._listings.seen(key)
        settled = await self._keep(key, page, proofs, shown=shown)
        doubt = None if settled is None else settled.doubt
        low_ms = int(page.time[0]) if len(page) else end_ms
        if len(page) and end_ms > asked_ms and doubt is None:
            closed_ms = timeframe.floor_ms(asked_ms - CLOSE_GRACE_MS)
            over_ms = timeframe.next_ms(closed_ms) + CLOSE_GRACE_MS
            tail = Tail(page, low_ms, closed_ms, over_ms, read_s, received_s)
            proved_ms = max(
                (one.end_ms for one in proofs if one.state == "complete"), default=low_ms
            )
            self._series(key).set_tail(tail.from_(proved_ms))
        missing: tuple[Span, ...] = ()
        is_short = request.count is not None and len(page) < request.count
        if start_ms is None:
            if is_short:
                missing = missing_below(self._known(key), BEGINNING_MS, low_ms, is_short=True)
                missing = (Span(None, missing[-1].end, "unknown", UNCONFIRMED),) if missing else ()
        elif low_ms > start_ms:
            missing = missing_below(self._known(key), start_ms, low_ms, is_short=is_short)
        if doubt is not None:
            beyond_ms = timeframe.next_ms(doubt.shown_ms)
            missing += (
                Span(utc_datetime(beyond_ms), utc_datetime(end_ms), "unknown", CONTRADICTED),
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
            reason=UNCONFIRMED if missing else "asked the exchange",
            silent=silent_spans(self._known(key), start_ms, end_ms, page, request.count),
        )
        return BackboneResponse(not missing, page, metadata, None, request.request_id)

    def _newest_shown(
        self, key: SeriesKey, page: CandleSeries, proofs: list[KnownSpan], asked_ms: int
    ) -> NewestShown | None:
        top_ms = max((one.end_ms for one in proofs if one.state == "complete"), default=None)
        if top_ms is None:
            return None
        live = self._live.get(key)
        told_ms = None if live is None else live.newest_unstored_ms(top_ms)
        return NewestShown(int(page.time[-1]), asked_ms, told_ms, self._doubts.get(key))

    async def _keep(
        self,
        key: SeriesKey,
        page: CandleSeries,
        proofs: list[KnownSpan],
        *,
        shown: NewestShown | None = None,
        holds: Callable[[Sql], bool] | None = None,
    ) -> Settled | None:
        """Write what a page proves, and hold it in memory once it is written.

        Args:
            key: The series.
            page: Its candles.
            proofs: In the order in which they are to be put.
            shown: The page's newest candle; None: it was not read, or is empty.
            holds: Asked inside the transaction: False, and nothing is written.

        Returns:
            None: nothing was written.
        """
        if not proofs:
            return None
        complete = [one for one in proofs if one.state == "complete"]
        rows = CandleSeries.merged(
            [page.between(one.start_ms, one.end_ms) for one in complete] or [page[:0]]
        )
        settled: Settled | None = None
        is_written = False

        def work(sql: Sql) -> None:
            nonlocal settled
            settled = None
            if holds is None or holds(sql):
                settled = write_page(sql, key, rows, proofs, shown)

        def committed() -> None:
            nonlocal is_written
            if settled is None:
                return
            is_written = True
            self._doubt(key, settled, shown)
            series, known = self._series(key), self._known(key)
            if settled.vanished:
                series.drop()
            for proof in settled.proofs:
                known.put(proof)
                if proof.proved:
                    span = Range(proof.start_ms, proof.end_ms)
                    there = rows.between(*span)
                    self._rows_written += len(there)
                    series.put(there, span)
            self._forget_built(settled.outdated)
            self._tell_settled(key, rows, settled)
            self._tending.settling.take(key, known)
            self._memory.shrink()

        await self._health.written(self._database.write(work, then=committed))
        return settled if is_written else None

    def _doubt(self, key: SeriesKey, settled: Settled, shown: NewestShown | None) -> None:
        """Remember a page that lacks what is stored until another one shows as much, or more."""
        before = self._doubts.get(key)
        if settled.doubt is not None:
            self._doubts[key] = settled.doubt
        elif before is not None and shown is not None and shown.open_ms >= before.shown_ms:
            del self._doubts[key]

    def _tell_settled(self, key: SeriesKey, rows: CandleSeries, settled: Settled) -> None:
        """Tell the readers what a second reading said; what has changed comes last."""
        self._settled += len(settled.same)
        changed = sorted((*settled.restated, *settled.vanished))
        if changed:
            self._restated += len(changed)
            self._on_revised(*key, changed, "the exchange states it differently now")
        states: tuple[tuple[tuple[int, ...], CandleState], ...]
        states = ((settled.same, "settled"), (settled.restated, "revised"))
        for opens, state in states:
            for at_ms in opens:
                candle = rows.between(at_ms, at_ms + 1)[0]
                self._live.push(key, msgspec.structs.replace(candle, state=state))

    async def _sample(self, request: BackboneRequest) -> BackboneResponse:
        """Ask for a page that is compared with what is stored."""
        async with self._low_turn():
            return await self._below.fetch(request)

    def _is_idle(self) -> bool:
        return self._clock.monotonic() - self._asked_s >= IDLE_S

    def _repaired(self, key: SeriesKey, repair: Repair) -> None:
        """Take over what the self-audit has written, and tell the readers what was wrong."""
        self._rows_written += len(repair.fresh)
        self._restated += len(repair.comparison.differing)
        if repair.proof is not None:
            self._known(key).put(repair.proof)
        if repair.comparison.differing:
            self._on_revised(*key, repair.comparison.differing, "the self-audit read it otherwise")
            self._series(key).drop()
        self._forget_built(repair.outdated)
        for candle in repair.fresh:
            self._live.push(key, msgspec.structs.replace(candle, state="revised"))

    def _forget_built(self, outdated: Iterable[Outdated]) -> None:
        """Let memory know no more than the file of what was built of candles that have changed."""
        for key, span in outdated:
            self._known(key).forget(*span)
            series = self._memory.get(key)
            if series is not None:
                series.forget(span)

    # Live series.

    def _keep_live(self, live: LiveSeries, proof: LiveProof) -> None:
        """Write what a stream proves, in the background: its readers do not wait for it."""
        if proof.spans:
            for span in proof.spans:
                if not span.proved:
                    # What is lost is not proved any more, whether that can be written or not.
                    series = self._series(live.key)
                    self._known(live.key).put(span)
                    series.forget(Range(span.start_ms, span.end_ms))
                    series.tail = None
            if proof.candles:
                self._listings.seen(live.key)
            if proof.over_all:
                opens = [epoch_ms(candle.open_time) for candle in proof.candles]
                self._revised_late += len(opens)
                self._on_revised(*live.key, opens, "a trade came late")
                for open_ms, candle in zip(opens, proof.candles, strict=True):
                    self._late.note(live.key, open_ms, candle, self._clock.monotonic())
            self._live_writes.add(live, proof)
        elif live.whole_from_ms is not None:
            self._tending.joins(live.key, live.whole_from_ms)

    def _live_committed(self, writes: Sequence[LiveWrite]) -> None:
        """What streams proved is in the file: memory follows."""
        for write in writes:
            self._rows_written += write.stored
            self._remember_live(write)
        self._memory.shrink()

    def _remember_live(self, write: LiveWrite) -> None:
        live, proof = write.live, write.proof
        key, taken = live.key, write.taken
        series, known = self._series(key), self._known(key)
        for span in proof.spans:
            known.put(span, over_all=proof.over_all)
        if taken is None:
            assert write.closing is not None
            (span,) = proof.spans
            series.put_closed(write.closing, Range(span.start_ms, span.end_ms))
        elif len(taken) < len(proof.candles) or not all(span.proved for span in proof.spans):
            # A page had said it before, or what was proved is not any more.
            series.drop()
        else:
            for span in proof.spans:
                for part in known.between(span.start_ms, span.end_ms):
                    if part.unsettled:
                        held = taken.between(part.start_ms, part.end_ms)
                        series.put(held, Range(part.start_ms, part.end_ms))
        live.stored(proof)
        self._forget_built(write.outdated)
        if proof.spans:
            self._tending.settling.grown(key, known, proof.spans[0].start_ms)
        if live.whole_from_ms is not None:
            self._tending.joins(key, live.whole_from_ms)

    def _up_to_now(self, series: SeriesMemory, key: SeriesKey, now_s: float) -> None:
        """Let the stream tell what lies between the stored part and now."""
        live = self._live.get(key)
        tail = None if live is None else live.tail(self._clock.now_ms(), now_s)
        if tail is not None:
            series.set_tail(tail)

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
        known = self._coverage.get(key)
        if known is None:
            known = self._coverage[key] = Coverage()
        return known

    def _candles_removed(self, key: SeriesKey, end_ms: int) -> None:
        """Retention has removed the oldest candles of a series: nothing is known of them."""
        known, series = self._known(key), self._memory.get(key)
        forget(known, end_ms)
        if series is not None:
            series.drop()
        self._tending.settling.take(key, known)

    def _taken_over(self, key: SeriesKey) -> None:
        """Another program has changed what is known of a series."""
        self._tending.settling.take(key, self._known(key))

    def _empty(self, key: SeriesKey) -> CandleSeries:
        """A series without candles, labelled as the origin is known by now."""
        return CandleSeries.empty(
            key.symbol, key.timeframe, source="storage", simulated=self._origin.simulated
        )

    def _written_ms(self, key: SeriesKey) -> int:
        return max((one.known_at_ms for one in self._known(key)), default=0)

    def _aligned(
        self, timeframe: Timeframe, start_ms: int | None, end_ms: int | None
    ) -> tuple[int | None, int]:
        """The same range named by open times: no candle opens between a time and the next one."""
        end_ms = self._clock.now_ms() + 1 if end_ms is None else end_ms
        start_ms = None if start_ms is None else timeframe.ceil_ms(start_ms)
        return start_ms, timeframe.ceil_ms(end_ms)
