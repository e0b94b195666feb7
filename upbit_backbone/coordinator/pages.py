"""Sends the pages of a walk: a few at once, LOW one for all its callers, each tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from random import Random
from typing import Protocol

import msgspec

from upbit_backbone.candle_checks import check_page
from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.coordinator.plan import Page
from upbit_backbone.coordinator.retry import CALL, Patience, Retrier
from upbit_backbone.coordinator.turns import MOST_IN_FLIGHT, LowTurns, Turn
from upbit_backbone.coordinator.walk import CandleWalk
from upbit_backbone.errors import BackboneError, DeadlineError
from upbit_backbone.models import CandleSeries
from upbit_backbone.protocol import (
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Priority,
    Reach,
)
from upbit_backbone.telemetry.processor_time import ProcessorTime

PARALLEL_PAGES = 5
"""A chart's first 1,000 candles leave together; the rest of the burst is left to others."""
LOOK_AT_LOAD_S = 0.25


class Watcher(Protocol):
    """Whoever follows a long load. Nobody does for a plain call: `Unwatched`."""

    async def may_go_on(self) -> None:
        """Return when the next page may begin."""
        ...

    def runs(self) -> None:
        """A page begins."""
        ...

    def waits_for_load(self, why: str) -> None: ...
    def waits_for_exchange(self, error: BackboneError, wait_s: float) -> None: ...


class Unwatched:
    """Follows nothing, and never pauses."""

    async def may_go_on(self) -> None: ...
    def runs(self) -> None: ...
    def waits_for_load(self, why: str) -> None: ...
    def waits_for_exchange(self, error: BackboneError, wait_s: float) -> None: ...


UNWATCHED = Unwatched()


class Pages:
    """Asks the layer below for pages, within what a priority may have in flight."""

    def __init__(
        self,
        below: DataSource,
        *,
        clock: Clock,
        rng: Random,
        shedding: Callable[[Priority], str | None],
        turns: LowTurns,
        parallelism: Callable[[int], int],
        low_processor: ProcessorTime,
        retries: bool = True,
    ) -> None:
        """Take what it works with.

        Args:
            below: The store.
            clock: The exchange's time.
            rng: Chance, for the jitter of retries.
            shedding: Why a priority has to wait, e.g. ``"load 78 %"``; None: it may run.
            turns: Whose turn it is among all LOW callers.
            parallelism: How many pages of one call may be in flight now, of so many.
            low_processor: Told what pages of LOW cost.
            retries: Whether what failed is asked again.
        """
        self._below = below
        self._clock = clock
        self._shedding = shedding
        self._turns = turns
        self._parallelism = parallelism
        self._low_processor = low_processor
        self.retrier = Retrier(clock, rng, enabled=retries)
        self.sent = 0

    async def run(
        self,
        request: BackboneRequest,
        walk: CandleWalk,
        take: Callable[[Page, BackboneResponse], None],
        *,
        most: int = PARALLEL_PAGES,
        watcher: Watcher | None = None,
        patience: Patience = CALL,
    ) -> BackboneError | None:
        """Ask for the pages of a walk until it has none, or one fails.

        Args:
            request: Whose symbol, priority and deadline the pages have.
            walk: Says which page is next, and is told what each held.
            take: Given each answered page.
            most: No more at once than this.
            watcher: Whoever follows a long load.
            patience: How often a page is tried.

        Returns:
            Why a page could not be had, after which no further one was begun (`DeadlineError` when
            the request's deadline came); None: all were had.
        """
        work = _Work(self, request, walk, take, watcher or UNWATCHED, patience)
        workers = min(self._workers(request.priority), most)
        try:
            async with self.within_deadline(request):
                if workers == 1:
                    await work.run()
                else:
                    async with asyncio.TaskGroup() as group:
                        for number in range(workers):
                            name = f"pages of {request.symbols[0]}, {number + 1} of {workers}"
                            group.create_task(work.run(), name=name)
        except DeadlineError as error:
            return work.failure or error
        return work.failure

    @asynccontextmanager
    async def within_deadline(self, request: BackboneRequest) -> AsyncIterator[None]:
        """End what is done within at the request's deadline, if it has one.

        Raises:
            DeadlineError: it came.
        """
        left_s = None
        if request.deadline is not None:
            left_s = max(0.0, request.deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(left_s):
                yield
        except TimeoutError as error:
            again = {
                DataType.CANDLE: "try again (what arrived is stored)",
                DataType.TRADE: "ask for less at once",
            }.get(request.data_type, "try again")
            raise DeadlineError(
                f"the time given ended before all {request.data_type.value}s of"
                f" {', '.join(request.symbols)} were had: {again}, or give a longer timeout"
            ) from error

    async def page(self, request: BackboneRequest, page: Page) -> BackboneResponse:
        """Ask for one page, and check it.

        Raises:
            ProtocolError: it is not what was asked for.
            BackboneError: as the layer below.
        """
        self.sent += 1
        fetched = self._below.fetch(
            msgspec.structs.replace(
                request,
                start_time=utc_datetime(page.start_ms),
                end_time=utc_datetime(page.end_ms),
                count=page.rows,
                reach=Reach.ANYWHERE,
            )
        )
        if request.priority is Priority.LOW:
            fetched = self._low_processor.metered(fetched)
        response = await fetched
        assert request.timeframe is not None
        check_page(
            response.data,
            symbol=request.symbols[0],
            timeframe=request.timeframe,
            rows=page.rows,
            end_ms=page.end_ms,
        )
        return response

    async def admitted(self, priority: Priority, watcher: Watcher = UNWATCHED) -> None:
        """Give way: to whoever pauses this load, and to a load that others suffer from."""
        await watcher.may_go_on()
        # A call of another priority was let in as a whole; a long load asks for each page.
        asks = priority is Priority.LOW or watcher is not UNWATCHED
        while asks and (why := self._shedding(priority)) is not None:
            watcher.waits_for_load(why)
            await asyncio.sleep(LOOK_AT_LOAD_S)
            await watcher.may_go_on()

    def _workers(self, priority: Priority) -> int:
        if priority is Priority.LOW:
            return MOST_IN_FLIGHT
        # Whom no load stops, none slows down.
        if priority is Priority.CRITICAL:
            return PARALLEL_PAGES
        return self._parallelism(PARALLEL_PAGES)

    def turn(
        self, request: BackboneRequest, watcher: Watcher = UNWATCHED
    ) -> AbstractAsyncContextManager[Turn | None]:
        """What a page holds while it is under way: all LOW requests share one turn.

        None is given while the load holds LOW, also to who waits for one already.
        """
        if request.priority is not Priority.LOW:
            return nullcontext()

        def held() -> None:
            why = self._shedding(Priority.LOW)
            if why is not None:
                watcher.waits_for_load(why)

        is_quote = request.data_type not in (DataType.CANDLE, DataType.TRADE)
        return self._turns.turn(request.request_id, held, is_quote=is_quote)


class _Work:
    """What the workers of one run have in common."""

    def __init__(
        self,
        pages: Pages,
        request: BackboneRequest,
        walk: CandleWalk,
        take: Callable[[Page, BackboneResponse], None],
        watcher: Watcher,
        patience: Patience,
    ) -> None:
        self._pages = pages
        self._request = request
        self._walk = walk
        self._take = take
        self._watcher = watcher
        self._patience = patience
        self.failure: BackboneError | None = None

    async def run(self) -> None:
        """Ask for one page after the other."""
        while self.failure is None:
            chosen: list[Page] = []
            try:
                response = await self._pages.retrier(
                    partial(self._attempt, chosen),
                    patience=self._patience,
                    deadline=self._request.deadline,
                    on_wait=self._watcher.waits_for_exchange,
                )
            except BackboneError as error:
                self._walk.failed(chosen[0])
                self._fail(error)
                return
            if response is None:
                return
            series: CandleSeries = response.data
            oldest_ms = int(series.time[0]) if len(series) else None
            self._walk.answered(chosen[0], oldest_ms, len(series))
            self._take(chosen[0], response)

    def _fail(self, error: BackboneError) -> None:
        """Keep the first error; pages that were under way may have others."""
        if self.failure is None:
            self.failure = own(error)

    async def _attempt(self, chosen: list[Page]) -> BackboneResponse | None:
        """Ask for the chosen page; the first attempt chooses it. None: there is none to ask for."""
        await self._pages.admitted(self._request.priority, self._watcher)
        async with self._pages.turn(self._request, self._watcher) as turn:
            if not chosen:
                page = None if self.failure is not None else self._walk.next_page()
                if page is None:
                    if turn is not None:
                        turn.used = False
                    return None
                chosen.append(page)
            self._watcher.runs()
            return await self._pages.page(self._request, chosen[0])


def own(error: BackboneError) -> BackboneError:
    """This call's copy: callers who share a request get one error, and each adds to its own."""
    copy = type(error).__new__(type(error))
    copy.args = error.args  # a `TimeoutError` would not take them from `__new__`
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error
    return copy
