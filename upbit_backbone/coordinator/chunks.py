"""A long range of candles, given in finished stretches while the rest loads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Self

from upbit_backbone.candle_checks import check_series
from upbit_backbone.clock import SECOND_MS, Clock, utc_datetime
from upbit_backbone.coordinator.candles import CandleGatherer
from upbit_backbone.coordinator.pages import Pages
from upbit_backbone.coordinator.plan import TOO_OLD_SECONDS, UNCONFIRMED, Hole, Page, kept_from_ms
from upbit_backbone.coordinator.progress import ProgressMeter
from upbit_backbone.coordinator.ranges import Range, joined, periods_between, unknown
from upbit_backbone.coordinator.retry import BACKFILL
from upbit_backbone.coordinator.walk import CandleWalk
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    InvalidRequestError,
    RateLimitedError,
)
from upbit_backbone.models import CandleSeries, Span
from upbit_backbone.protocol import (
    MAX_PAGE_CANDLES,
    BackboneRequest,
    BackboneResponse,
    Progress,
    ProgressState,
)
from upbit_backbone.tasks import TaskOwner

PAGES_A_WINDOW = 20
"""The store is asked for so much at once: what is loaded is held by nobody when it was given."""
_BROKEN_OFF = "the layer that loads candles has ended"
MOST_WAITING = 8
"""Finished stretches that a slow reader leaves waiting before the loading waits for it."""


class Chunks:
    """Loads one range; implements `CandleChunks`.

    The range is cut into windows. Of each the store says what it has, and the pages of the rest
    are asked in the order of the walk; a stretch is given as soon as all before it is there. The
    loading runs in a task of its own, at most some stretches ahead of the reader.
    """

    def __init__(
        self,
        request: BackboneRequest,
        *,
        gatherer: CandleGatherer,
        pages: Pages,
        tasks: TaskOwner,
        clock: Clock,
        newest_first: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Prepare; nothing is asked before the first `anext`."""
        if request.timeframe is None or request.start_ms is None or request.count is not None:
            raise InvalidRequestError("candles in pieces have a timeframe and a start, no count")
        self._request = request
        self._timeframe = request.timeframe
        self._gatherer = gatherer
        self._pages = pages
        self._tasks = tasks
        self._clock = clock
        self._newest_first = newest_first
        self._on_progress = on_progress
        start_ms, self._end_ms = gatherer.aligned(request, self._timeframe)
        assert start_ms is not None
        self._start_ms = min(start_ms, self._end_ms)
        kept_ms = kept_from_ms(self._timeframe, clock.now_ms())
        self._kept_from_ms = min(max(self._start_ms, kept_ms), self._end_ms)
        """What lies below cannot be had, unless it is stored."""
        self._farthest_ms: int | None = None
        """The oldest candle given; what of the range lies below it may be nothing."""
        total = periods_between(self._timeframe, self._kept_from_ms, self._end_ms)
        self._meter = ProgressMeter(request.symbols[0], self._timeframe, total, clock.monotonic())
        self._periods_a_page = MAX_PAGE_CANDLES
        self._unfinished = Range(self._start_ms, self._end_ms)
        self._missing: dict[str, list[Range]] = {}
        """By reason."""
        self._ready: deque[CandleSeries] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._going = asyncio.Event()
        self._going.set()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._over = False

    @property
    def progress(self) -> Progress:
        return self._meter.at(self._clock.monotonic())

    @property
    def missing(self) -> tuple[Span, ...]:
        spans = [
            (*span, reason) for reason, ranges in self._missing.items() for span in joined(ranges)
        ]
        return tuple(unknown(*span) for span in sorted(spans))

    @property
    def unfinished(self) -> tuple[datetime, datetime]:
        start_ms, end_ms = self._unfinished
        return utc_datetime(start_ms), utc_datetime(end_ms)

    def pause(self) -> None:
        self._going.clear()
        self._enter("paused", "by whoever reads")

    def resume(self) -> None:
        self._going.set()
        self._enter("running")

    def cancel(self) -> None:
        self._end_now(None, "cancelled")
        self._error = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CandleSeries:
        if self._task is None and self._tasks.closed:
            self._break_off()
        if self._task is None and not self._over:
            name = f"chunks of {self._request.symbols[0]} {self._timeframe}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)
            self._tasks.own(self._task)
        while not self._ready:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        chunk = self._ready.popleft()
        self._room.set()
        return chunk

    # Called by the pages while they are asked.

    async def may_go_on(self) -> None:
        """Wait while it is paused, or the reader is far behind."""
        while not (self._going.is_set() and self._room.is_set()):
            await self._going.wait()
            await self._room.wait()

    def runs(self) -> None:
        if self._going.is_set():
            self._enter("running")

    def waits_for_load(self, why: str) -> None:
        if self._going.is_set():
            self._enter("waiting for load", why)

    def waits_for_exchange(self, error: BackboneError, wait_s: float) -> None:
        if isinstance(error, RateLimitedError):
            until = utc_datetime(self._clock.now_ms() + round(wait_s * SECOND_MS))
            self._enter("rate-limited", str(error), until)
        else:
            self._enter("running", f"trying again: {error}")

    # The loading.

    async def _run(self) -> None:
        try:
            await self._load()
        except BackboneError as error:
            self._finish(error, "ended", str(error))
        except asyncio.CancelledError:
            # Whoever cancels has finished before; else the layer ends.
            self._break_off()
            raise
        except Exception as error:
            self._finish(error, "ended", repr(error))  # the reader must not wait for ever
            raise
        else:
            self._finish(None, "done")

    async def _load(self) -> None:
        timeframe = self._timeframe
        low_ms, high_ms = self._start_ms, self._end_ms
        while low_ms < high_ms:
            await self.may_go_on()
            left = periods_between(timeframe, low_ms, high_ms)
            size = min(left, PAGES_A_WINDOW * self._periods_a_page)
            if self._newest_first:
                window = Range(timeframe.back_ms(high_ms, size), high_ms)
                high_ms = window.start_ms
            else:
                window = Range(low_ms, timeframe.back_ms(low_ms, -size))
                low_ms = window.end_ms
            await self._load_window(window)
            self._unfinished = Range(low_ms, high_ms)

    async def _load_window(self, window: Range) -> None:
        stored = await self._gatherer.stored(self._request, *window)
        plan = self._gatherer.plan(stored, self._timeframe)
        walk = CandleWalk(
            plan, newest_first=self._newest_first, periods_a_page=self._periods_a_page
        )
        stretch = _Stretch(window, stored.data, newest_first=self._newest_first)
        settled, failure = False, None

        def take(page: Page, response: BackboneResponse) -> None:
            nonlocal settled
            settled |= len(response.data) < page.rows and not response.metadata.missing
            stretch.add(response.data)
            self._give(stretch, walk.frontier_ms, plan.holes)

        if plan.holes:
            failure = await self._pages.run(
                self._request, walk, take, most=plan.pages, watcher=self, patience=BACKFILL
            )
            self._periods_a_page = walk.periods_a_page
        if not (plan.holes and stretch.rows):
            self._learn(window, stretch.rows)
        unconfirmed = await self._gatherer.unconfirmed(self._request, walk, settled=settled)
        self._lack(UNCONFIRMED, unconfirmed)
        self._lack(TOO_OLD_SECONDS, plan.beyond)
        self._give(stretch, walk.frontier_ms, plan.holes)
        if walk.unreached and failure is not None:
            self._lack(str(failure), walk.unreached)
            failure.missing = self.missing
            raise failure

    def _lack(self, reason: str, ranges: Iterable[Range]) -> None:
        self._missing.setdefault(reason, []).extend(ranges)

    def _learn(self, window: Range, rows: int) -> None:
        """How thin a window was says how wide the next ones may be, without a single candle too."""
        found = periods_between(self._timeframe, *window) * MAX_PAGE_CANDLES // (rows + 1)
        self._periods_a_page = max(MAX_PAGE_CANDLES, min(2 * self._periods_a_page, found))

    def _give(self, stretch: _Stretch, frontier_ms: int | None, holes: Iterable[Hole]) -> None:
        """Hand the reader what is finished, and tell how far that is."""
        before_ms = stretch.edge_ms
        chunk = stretch.finished(frontier_ms)
        # The workers learn of a cancel a turn of the loop later, and may have a page by then.
        if chunk is None or self._over:
            return
        check_series(chunk, f"candles of {chunk.symbol} {chunk.timeframe}, merged")
        self._count(chunk, Range(*sorted((before_ms, stretch.edge_ms))), stretch.edge_ms, holes)
        if len(chunk):
            self._ready.append(chunk)
            if len(self._ready) >= MOST_WAITING:
                self._room.clear()
            self._news.set()
        self._tell()

    def _count(
        self, chunk: CandleSeries, fresh: Range, edge_ms: int, holes: Iterable[Hole]
    ) -> None:
        """Take that a stretch is finished. What lies before the first candle leaves the total."""
        timeframe, end_ms = self._timeframe, self._end_ms
        if len(chunk):
            oldest_ms = int(chunk.time[0])
            known_ms = oldest_ms if self._farthest_ms is None else self._farthest_ms
            self._farthest_ms = min(known_ms, oldest_ms)
        edge_ms = max(edge_ms, self._kept_from_ms)
        nothing_ms = end_ms if self._newest_first else edge_ms
        first_ms = nothing_ms if self._farthest_ms is None else self._farthest_ms
        first_ms = max(first_ms, self._kept_from_ms)
        total = periods_between(timeframe, first_ms, end_ms)
        done = total - (0 if self._newest_first else periods_between(timeframe, edge_ms, end_ms))
        if self._newest_first:
            total += periods_between(timeframe, self._kept_from_ms, min(edge_ms, first_ms))
        asked = new = 0
        for hole in holes:
            low_ms = max(hole.start_ms, fresh.start_ms, first_ms)
            high_ms = min(hole.end_ms, fresh.end_ms)
            if low_ms < high_ms:
                asked += periods_between(timeframe, low_ms, high_ms)
                new += len(chunk.between(low_ms, high_ms))
        self._meter.advance(self._clock.monotonic(), done, total, len(chunk), asked=asked, new=new)

    def _enter(self, state: ProgressState, reason: str = "", until: datetime | None = None) -> None:
        if not self._over and self._meter.enter(state, reason, until):
            self._tell()

    def _tell(self) -> None:
        if self._on_progress is None:
            return
        try:
            self._on_progress(self.progress)
        except Exception as error:  # noqa: BLE001  it is not ours: it belongs to who reads
            self._on_progress = None
            self._end_now(error, repr(error))

    def _end_now(self, error: BaseException | None, reason: str) -> None:
        """End the loading, and with an error or without one the reading too."""
        self._finish(error, "ended", reason)
        self._ready.clear()
        if self._task is not None:
            self._task.cancel()

    def _break_off(self) -> None:
        """The layer ends; another one may go on from `unfinished`."""
        self._finish(ClosedError(f"{_BROKEN_OFF}: try again"), "waiting", _BROKEN_OFF)

    def _finish(self, error: BaseException | None, state: ProgressState, reason: str = "") -> None:
        if self._over:
            return
        self._over, self._error = True, error
        self._news.set()
        if self._meter.enter(state, reason):
            self._tell()


class _Stretch:
    """The rows of a window, given away as far as they are finished."""

    def __init__(self, window: Range, stored: CandleSeries, *, newest_first: bool) -> None:
        self._window = window
        self._parts = [stored.between(*window)]
        self._newest_first = newest_first
        self.rows = len(self._parts[0])
        """How many it has had, those that came twice counted twice."""
        self.edge_ms = window.end_ms if newest_first else window.start_ms
        """Up to here all was given."""

    def add(self, page: CandleSeries) -> None:
        """Take a page; what lies outside of the window was or will be given by another."""
        self._parts.append(page.between(*self._window))
        self.rows += len(self._parts[-1])

    def finished(self, frontier_ms: int | None) -> CandleSeries | None:
        """What is finished and was not given yet; None: nothing new, not even an empty stretch."""
        window = self._window
        if self._newest_first:
            to_ms = window.start_ms if frontier_ms is None else frontier_ms
            fresh = Range(to_ms, self.edge_ms)
            kept = Range(window.start_ms, to_ms)
        else:
            to_ms = window.end_ms if frontier_ms is None else frontier_ms
            fresh = Range(self.edge_ms, to_ms)
            kept = Range(to_ms, window.end_ms)
        if fresh.start_ms >= fresh.end_ms:
            return None
        self.edge_ms = to_ms
        chunk = CandleSeries.merged([part.between(*fresh) for part in self._parts])
        first, *rest = (part.between(*kept) for part in self._parts)
        self._parts = [first, *(part for part in rest if len(part))]
        return chunk
