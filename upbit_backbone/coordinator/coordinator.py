"""The coordinator: plans over what is missing, asks in parallel, merges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from itertools import chain, islice
from random import Random
from typing import Any, TypeVar

import msgspec

from upbit_backbone.clock import DAY_MS, SECOND_MS, Clock, epoch_ms, utc_datetime
from upbit_backbone.coordinator.planning import Page, joined, plan_range, still_unknown
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
)
from upbit_backbone.models import CandleSeries, Market, Source, Span, Timeframe, Trade
from upbit_backbone.protocol import (
    MAX_PAGE_CANDLES,
    MAX_PAGE_TRADES,
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

Result = TypeVar("Result")

PARALLEL_PAGES = 5
MAX_WINDOW = 20 * MAX_PAGE_CANDLES
"""Periods planned at once for a number of candles: where history ends is not known before."""
ATTEMPTS = 3
MAX_RETRY_WAIT_S = 5.0
"""A longer ban is told to the caller instead of being waited for."""
MAX_TRADE_DAYS = 7
"""The exchange keeps trades for seven days (since 2020-07-17)."""


UNCONFIRMED = "unconfirmed"
_FARTHER: tuple[Source, ...] = ("cache", "storage", "rest")


class _Gathered:
    """What a request collected so far; the first part is the store's answer."""

    def __init__(self) -> None:
        self.parts: list[CandleSeries] = []
        self.missing: list[Span] = []
        self.error: BackboneError | None = None
        self.asked = 0
        self.pages = 0
        """How many were answered."""
        self.source: Source = "cache"
        self.age_s = 0.0

    @property
    def rows(self) -> int:
        return len(self.merged()) if self.parts else 0

    def merged(self) -> CandleSeries:
        if len(self.parts) > 1:
            self.parts = [CandleSeries.merged(self.parts)]
        return self.parts[0]

    def take(self, response: BackboneResponse) -> None:
        """Add the rows of an answer: the farthest part gives the whole its source, the oldest
        its age. What is proved does not age."""
        metadata = response.metadata
        self.parts.append(response.data)
        if metadata.source is not None:
            self.source = max(self.source, metadata.source, key=_FARTHER.index)
        self.age_s = max(self.age_s, metadata.age_s or 0.0)

    def cut(self, start_ms: int | None, end_ms: int | None) -> None:
        """Keep the rows of a range."""
        self.parts = [self.merged().between(start_ms, end_ms)]


class Coordinator:
    """Layer 3. Asks the store once for the whole, and the exchange for the rest, in pages."""

    def __init__(self, below: DataSource, *, clock: Clock, rng: Random) -> None:
        self._below = below
        self._clock = clock
        self._rng = rng
        self._low_turn = asyncio.Lock()
        self._running = False
        self._since_ms = clock.now_ms()
        self._splits = 0
        self._pages = 0
        self._retries = 0

    async def start(self) -> None:
        """Begin to work."""
        self._running = True

    async def stop(self) -> None:
        """Nothing is held; callers end with the layers below."""
        self._running = False

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
        """As the store's."""
        return self._below.peek(
            data_type, symbol, timeframe, start_ms, end_ms, count, max_age_s, now
        )

    def peek_age_s(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        end_ms: int | None,
        now: float,
    ) -> float | None:
        """As the store's."""
        return self._below.peek_age_s(data_type, symbol, timeframe, end_ms, now)

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """Answer a request of any size.

        Candles: a page that cannot be had leaves its span in ``metadata.missing`` and its
        cause in ``error``; what exists is the data. A history that ends early is `missing`
        with ``reason="unconfirmed"`` and no error. Trades: a tuple, ascending by time.

        Raises:
            BackboneError: nothing of the answer could be had.
        """
        if request.data_type is DataType.CANDLE:
            return await self._candles(request)
        if request.data_type is DataType.TRADE:
            return await self._trades(request)
        response = await self._retried(lambda: self._below.fetch(request))
        path = f"coordinator → storage → {response.metadata.path}"
        metadata = msgspec.structs.replace(response.metadata, path=path)
        return msgspec.structs.replace(response, metadata=metadata)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Streams pass through."""
        return self._below.subscribe(request)

    async def markets(self) -> tuple[Market, ...]:
        """As the store's."""
        return await self._below.markets()

    def status(self) -> LayerStatus:
        """It fails only with its neighbours."""
        counters = {
            "splits": float(self._splits),
            "pages": float(self._pages),
            "retries": float(self._retries),
        }
        health: Health = "healthy" if self._running else "down"
        reason = "" if self._running else "not running"
        return LayerStatus("layer_3", health, reason, utc_datetime(self._since_ms), counters)

    async def _candles(self, request: BackboneRequest) -> BackboneResponse:
        started = self._clock.monotonic()
        timeframe = request.timeframe
        if timeframe is None:
            raise InvalidRequestError("a request for candles names a timeframe, was None")
        now_ms = self._clock.now_ms()
        end_ms = timeframe.ceil_ms(now_ms + 1 if request.end_ms is None else request.end_ms)
        start_ms = None if request.start_ms is None else timeframe.ceil_ms(request.start_ms)
        gathered = _Gathered()
        if request.count is None:
            if start_ms is None:
                raise InvalidRequestError("a request for candles has a start or a count")
            await self._gather_range(gathered, request, timeframe, start_ms, end_ms)
            series = gathered.merged().between(start_ms, end_ms)
        elif start_ms is None:
            await self._gather_latest(gathered, request, timeframe, end_ms, request.count)
            series = gathered.merged().between(None, end_ms)
            series = series[max(0, len(series) - request.count) :]
        else:
            await self._gather_first(gathered, request, timeframe, start_ms, end_ms, request.count)
            series = gathered.merged().between(start_ms, end_ms)[: request.count]
        missing = tuple(gathered.missing)
        error = gathered.error
        if error is not None and not len(series):
            error.missing = missing
            raise error
        metadata = BackboneMetadata(
            source_layer="layer_1" if gathered.pages else "layer_2",
            cache_hit=not gathered.asked and not missing,
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(series),
            priority_used=request.priority,
            split_info=f"{gathered.pages} pages" if gathered.pages > 1 else None,
            source=gathered.source,
            age_s=gathered.age_s,
            path="coordinator → storage" + (" → router" if gathered.asked else ""),
            missing=missing,
            reason=str(error) if error else UNCONFIRMED if missing else "",
        )
        series = series.labelled(gathered.source)
        return BackboneResponse(not missing, series, metadata, error, request.request_id)

    async def _gather_range(
        self,
        gathered: _Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int,
    ) -> None:
        stored = await self._stored(request, start_ms, end_ms, None)
        gathered.take(stored)
        holes = [
            (epoch_ms(span.start), epoch_ms(span.end))
            for span in stored.metadata.missing
            if span.start is not None and span.end is not None
        ]
        pages = (page for hole in reversed(holes) for page in plan_range(timeframe, *hole))
        reached: list[tuple[int, int]] = []
        short: list[tuple[int, int]] = []
        for page, response in await self._ask(gathered, request, pages):
            gathered.take(response)
            low_ms = int(response.data.time[0]) if len(response.data) else page.end_ms
            reached.append((low_ms, page.end_ms))
            if low_ms > page.start_ms:
                short.append((page.start_ms, low_ms))
        failed = still_unknown(holes, [*reached, *short])
        if not failed:
            # The page that failed is covered by its neighbours.
            gathered.error = None
        spans = [(*span, UNCONFIRMED) for span in still_unknown(short, reached)]
        spans += [(*span, str(gathered.error)) for span in failed]
        gathered.missing += [_unknown(*span) for span in sorted(spans)]

    async def _gather_latest(
        self,
        gathered: _Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        end_ms: int,
        count: int,
    ) -> None:
        """From the end down: what is stored, then a window below it, until there are enough."""
        at_ms = end_ms
        while gathered.rows < count:
            stored = await self._stored(request, None, at_ms, count - gathered.rows)
            gathered.take(stored)
            if not stored.metadata.missing:
                return
            hole_end = stored.metadata.missing[0].end
            assert hole_end is not None
            high_ms = epoch_ms(hole_end)
            at_ms = timeframe.back_ms(high_ms, min(count - gathered.rows, MAX_WINDOW))
            await self._gather_range(gathered, request, timeframe, at_ms, high_ms)
            if gathered.missing:
                # What lies below the newest unknown span is not part of the answer.
                newest = gathered.missing[-1]
                assert newest.end is not None
                gathered.cut(epoch_ms(newest.end), None)
                if newest.reason == UNCONFIRMED:
                    gathered.error = None
                gathered.missing = []
                if gathered.rows < count:
                    gathered.missing = [_unknown(None, epoch_ms(newest.end), newest.reason)]
                return
            if gathered.rows:
                # Pages reach below their window, and leave no hole down to their oldest row.
                at_ms = min(at_ms, int(gathered.merged().time[0]))

    async def _gather_first(
        self,
        gathered: _Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int,
        count: int,
    ) -> None:
        """The first `count` candles from a start: windows upward, doubled while they are thin.

        A start before the market's first candle is walked up from as well, but not for ever.
        """
        at_ms, window = start_ms, count
        while True:
            window = min(window, MAX_WINDOW)
            high_ms = min(timeframe.back_ms(at_ms, -window), end_ms)
            await self._gather_range(gathered, request, timeframe, at_ms, high_ms)
            # Pages reach below their window.
            gathered.cut(start_ms, None)
            if gathered.error is not None:
                self._cut_above(gathered, count)
                break
            if gathered.rows >= count or high_ms >= end_ms:
                break
            if window == MAX_WINDOW and not gathered.rows:
                break
            at_ms, window = high_ms, window * 2
        open_ended = [span for span in gathered.missing if span.end is None]
        below = joined(
            (epoch_ms(span.start), epoch_ms(span.end))
            for span in gathered.missing
            if span.start is not None and span.end is not None
        )
        gathered.missing = [*(_unknown(*span, UNCONFIRMED) for span in below), *open_ended]

    @staticmethod
    def _cut_above(gathered: _Gathered, count: int) -> None:
        """End at the first failed page: what lies above it is not among the first candles."""
        failed = next(span for span in gathered.missing if span.reason != UNCONFIRMED)
        assert failed.start is not None
        low_ms = epoch_ms(failed.start)
        gathered.cut(None, low_ms)
        gathered.missing = gathered.missing[: gathered.missing.index(failed)]
        if gathered.rows < count:
            gathered.missing.append(_unknown(low_ms, None, failed.reason))
        else:
            gathered.error = None

    async def _stored(
        self, request: BackboneRequest, start_ms: int | None, end_ms: int, count: int | None
    ) -> BackboneResponse:
        return await self._below.fetch(
            msgspec.structs.replace(
                request,
                start_time=None if start_ms is None else utc_datetime(start_ms),
                end_time=utc_datetime(end_ms),
                count=count,
                reach=Reach.STORED,
            )
        )

    async def _ask(
        self, gathered: _Gathered, request: BackboneRequest, pages: Iterator[Page]
    ) -> list[tuple[Page, BackboneResponse]]:
        """Ask for pages, at most five at once, LOW one at a time for all its callers together.

        After the first that fails no further one is begun; its error is in `gathered`.
        """
        answers: list[tuple[Page, BackboneResponse]] = []
        first = list(islice(pages, 1 if request.priority is Priority.LOW else PARALLEL_PAGES))
        waiting = chain(first, pages)

        async def work() -> None:
            while gathered.error is None and (page := next(waiting, None)) is not None:
                gathered.asked += 1
                try:
                    response = await self._page(request, page)
                except BackboneError as error:
                    gathered.error = _own(error)
                    return
                gathered.pages += 1
                answers.append((page, response))

        if len(first) <= 1:
            await work()
        else:
            async with asyncio.TaskGroup() as group:
                for page in first:
                    name = f"pages of {request.symbols[0]} from {page.end_ms}"
                    group.create_task(work(), name=name)
        if len(answers) > 1:
            self._splits += 1
        # Of equal candles the one asked for last is kept, in whatever order they arrived.
        answers.sort(key=lambda answer: answer[0].end_ms)
        return answers

    async def _page(self, request: BackboneRequest, page: Page) -> BackboneResponse:
        asked = msgspec.structs.replace(
            request,
            start_time=utc_datetime(page.start_ms),
            end_time=utc_datetime(page.end_ms),
            count=page.rows,
            reach=Reach.ANYWHERE,
        )
        async with self._turn(request.priority):
            self._pages += 1
            return await self._retried(lambda: self._below.fetch(asked))

    def _turn(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        """All LOW callers together have one page in flight."""
        return self._low_turn if priority is Priority.LOW else nullcontext()

    async def _retried(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Try again with full jitter what may help, within the caller's deadline."""
        for attempt in range(ATTEMPTS):
            try:
                return await work()
            except (TransportError, RateLimitedError) as error:
                wait_s = error.retry_after_s or 0.0
                if attempt + 1 == ATTEMPTS or wait_s > MAX_RETRY_WAIT_S:
                    raise
                self._retries += 1
                await asyncio.sleep(wait_s + self._rng.uniform(0, 0.2 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _trades(self, request: BackboneRequest) -> BackboneResponse:
        """Pages from the newest down, a UTC day at a time, each by the oldest id of the last."""
        started = self._clock.monotonic()
        now_ms = self._clock.now_ms()
        start_ms, end_ms, count = request.start_ms, request.end_ms, request.count
        upper_ms = now_ms + 1 if end_ms is None else min(end_ms, now_ms + 1)
        wanted_ms = upper_ms - 1 if start_ms is None else start_ms
        day_ms = upper_ms - 1 - (upper_ms - 1) % DAY_MS
        if self._days_ago(wanted_ms) > MAX_TRADE_DAYS:
            raise DataUnavailableError(
                f"trades of {utc_datetime(wanted_ms):%Y-%m-%d %H:%M} UTC are not to be had: the"
                f" exchange keeps {MAX_TRADE_DAYS} days; ask for candles instead"
            )
        # The exchange floors an end to the second; that of the day is the next one's first.
        to_ms = -(-upper_ms // SECOND_MS) * SECOND_MS
        to_time = None if end_ms is None or to_ms % DAY_MS == 0 else utc_datetime(to_ms)
        found: dict[int, Trade] = {}
        error: BackboneError | None = None
        cursor: int | None = None
        pages = 0
        low_ms = upper_ms
        # Only the walk to its start tells which are the first so many from there.
        while count is None or start_ms is not None or len(found) < count:
            days_ago = self._days_ago(day_ms)
            if days_ago > MAX_TRADE_DAYS:
                break
            size = MAX_PAGE_TRADES
            if count is not None and start_ms is None:
                size = min(size, count - len(found))
            page = msgspec.structs.replace(
                request,
                start_time=None,
                end_time=to_time,
                count=size,
                cursor=cursor,
                days_ago=days_ago or None,
                reach=Reach.ANYWHERE,
            )
            try:
                async with self._turn(request.priority):
                    response = await self._retried(partial(self._below.fetch, page))
            except BackboneError as failure:
                error = _own(failure)
                break
            pages += 1
            trades: tuple[Trade, ...] = response.data
            stamps = [epoch_ms(trade.exchange_time) for trade in trades]
            low_ms = min([low_ms, *stamps])
            found.update(
                (trade.sequential_id, trade)
                for trade, stamp_ms in zip(trades, stamps, strict=True)
                if stamp_ms < upper_ms and (start_ms is None or stamp_ms >= start_ms)
            )
            if start_ms is not None and low_ms < start_ms:
                break
            if len(trades) == size:
                if trades[-1].sequential_id == cursor:
                    raise ProtocolError(
                        f"trades of {', '.join(request.symbols)}: the exchange answered the same"
                        f" page again when asked for what is older than {cursor}"
                    )
                cursor, to_time = trades[-1].sequential_id, None
            elif self._days_ago(day_ms) == days_ago:  # else midnight passed: ask again
                if start_ms is not None and day_ms <= start_ms:
                    break
                day_ms, cursor, to_time = day_ms - DAY_MS, None, None
        ordered = sorted(
            found.values(), key=lambda trade: (trade.exchange_time, trade.sequential_id)
        )
        if count is not None:
            ordered = ordered[:count] if start_ms is not None else ordered[-count:]
        missing: tuple[Span, ...] = ()
        if error is not None:
            # Of the oldest millisecond there may be more.
            missing = (_unknown(start_ms, min(low_ms + 1, upper_ms), str(error)),)
            if not ordered:
                error.missing = missing
                raise error
        metadata = BackboneMetadata(
            source_layer="layer_1",
            cache_hit=False,
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(ordered),
            priority_used=request.priority,
            split_info=f"{pages} pages" if pages > 1 else None,
            source="rest",
            age_s=0.0,
            path="coordinator → storage → router",
            missing=missing,
            reason=str(error) if error else "",
        )
        return BackboneResponse(not missing, tuple(ordered), metadata, error, request.request_id)

    def _days_ago(self, at_ms: int) -> int:
        """UTC days between a moment and now."""
        return self._clock.now_ms() // DAY_MS - at_ms // DAY_MS


def _unknown(start_ms: int | None, end_ms: int | None, reason: str) -> Span:
    start = None if start_ms is None else utc_datetime(start_ms)
    end = None if end_ms is None else utc_datetime(end_ms)
    return Span(start, end, "unknown", reason)


def _own(error: BackboneError) -> BackboneError:
    """This call's copy: callers who share a request get one error, and each adds to its own."""
    own = type(error).__new__(type(error), *error.args)
    own.__dict__.update(error.__dict__)
    own.__cause__ = error
    return own
