"""A call that needs work: its way down, its deadline, its end, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from upbit_backbone.api.event_bus import (
    LOOK_EVERY_S,
    RETRY_AFTER_S,
    EventBusIntegration,
    Load,
)
from upbit_backbone.api.lanes import LOADS
from upbit_backbone.api.paths import DirectDataAccess, EventBusDataAccess
from upbit_backbone.api.waits import WaitTracker
from upbit_backbone.call_in_work import CallInWork, working_for
from upbit_backbone.clock import Clock
from upbit_backbone.errors import (
    ClosedError,
    DeadlineError,
    SystemOverloadedError,
)
from upbit_backbone.protocol import (
    BackboneRequest,
    BackboneResponse,
    DataSource,
    Priority,
    Reach,
    Tier,
)
from upbit_backbone.telemetry.alerts import how_large
from upbit_backbone.telemetry.calls import CallRecorder

ANSWER_BEFORE_S: Final = 0.05
"""So long before a call's time is over the layers below end with what they have."""


Refusal = Callable[[BackboneResponse], Exception | None]


def _never(_: BackboneResponse) -> None:
    return None


class Calls:
    """Sends requests down: CRITICAL and HIGH directly, NORMAL and LOW when the bus lets them.

    Only what memory does not hold comes here.
    """

    def __init__(
        self,
        router: DataSource,
        coordinator: DataSource,
        *,
        bus: EventBusIntegration,
        load: Load,
        clock: Clock,
        recorder: CallRecorder,
        most_at_once: int,
    ) -> None:
        """Take the layers below.

        Args:
            router: Layer 1, for CRITICAL.
            coordinator: Layer 3.
            bus: Lets NORMAL and LOW begin; published requests go this way too.
            load: Says whether HIGH may begin.
            clock: The exchange's time.
            recorder: Told of every call.
            most_at_once: How many calls of one priority for candles or trades may be in work;
                further ones wait.
        """
        self._direct = DirectDataAccess(router, coordinator)
        self._by_bus = EventBusDataAccess(bus, coordinator)
        self._load = load
        self._clock = clock
        self._recorder = recorder
        # One set for each priority: many HIGH calls must not keep a trading bot waiting.
        self._slots = {
            priority: asyncio.Semaphore(most_at_once)
            for priority in (Priority.CRITICAL, Priority.HIGH)
        }
        self._open: dict[asyncio.Timeout, Priority] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._closed = False
        self.waits = WaitTracker()
        """Who waits for a slot."""
        bus.serve(self._published)

    async def ask(
        self,
        request: BackboneRequest,
        limit_s: float | None,
        started: float,
        refusal: Refusal = _never,
    ) -> BackboneResponse:
        """Answer within a time.

        Args:
            request: What is asked, without a deadline.
            limit_s: Seconds from `started`; None: as long as it takes.
            started: When the caller called.
            refusal: What the caller is told in place of the answer, which counts as an error then;
                None: he gets it.

        Raises:
            DeadlineError: it was not answered in time; `missing` says of what.
            SystemOverloadedError: the load was too high for it all that time.
            ClosedError: the service was closed.
            BackboneError: as the layers below.
        """
        if limit_s is not None:
            # A little earlier: below it is known what arrived until then.
            deadline_s = started + limit_s - min(ANSWER_BEFORE_S, limit_s / 10)
            request = msgspec.structs.replace(request, deadline=deadline_s)
        if self._closed:
            raise _closed()
        left_s = None
        if limit_s is not None:
            left_s = max(0.0, started + limit_s - self._clock.monotonic())
        limit = asyncio.timeout(left_s)
        self._open[limit] = request.priority
        self._none_open.clear()
        call = CallInWork(request.priority)
        try:
            with working_for(call):
                async with limit:
                    response = await self._sent(request)
        except TimeoutError as error:
            failure = self._failure(request, limit, limit_s, error)
            self._failed(request, call.path, failure, started)
            raise failure from error
        except asyncio.CancelledError:
            self._recorder.happened("cancelled")
            raise
        except Exception as error:
            self._failed(request, call.path, error, started)
            raise
        finally:
            del self._open[limit]
            if not self._open:
                self._none_open.set()
        metadata = response.metadata
        refused = refusal(response)
        if refused is not None:
            self._failed(request, metadata.path, refused, started)
            return response
        tier: Tier = "exchange"
        if metadata.cache_hit:
            tier = "storage" if metadata.source == "storage" else "memory"
        taken_s = self._clock.monotonic() - started
        path = metadata.path
        if request.priority not in self._slots:
            path += how_large(metadata.pages)
        self._recorder.answered(request.priority, request.data_type, path, tier, taken_s)
        return response

    def open(self) -> None:
        """Take calls."""
        self._closed = False

    async def drain(self, within_s: float) -> None:
        """Take no more calls, and end those in flight.

        LOW ends at once: it may have hours before it, and what it has got is stored. Others
        have some time to be answered.
        """
        self._closed = True
        self._end([limit for limit, priority in self._open.items() if priority is Priority.LOW])
        try:
            async with asyncio.timeout(within_s):
                await self._none_open.wait()
        except TimeoutError:
            self._end(list(self._open))
            await self._none_open.wait()

    async def _published(self, request: BackboneRequest) -> BackboneResponse:
        started = self._clock.monotonic()
        limit_s = None if request.deadline is None else max(0.0, request.deadline - started)
        return await self.ask(request, limit_s, started)

    async def _sent(self, request: BackboneRequest) -> BackboneResponse:
        if request.reach is Reach.STORED:
            # It asks nobody for anything: there is nothing to wait for.
            return await self._direct.fetch(request)
        if request.priority not in self._slots:
            return await self._by_bus.fetch(request)
        if not self._load.check_resource_availability(request.priority):
            await self._calm(request)
        if request.data_type not in LOADS:
            # Quotes asked at once become one request: to let them through by the hundred would
            # make several of it, one after the other.
            return await self._direct.fetch(request)
        async with self._slot(request.priority):
            return await self._direct.fetch(request)

    async def _calm(self, request: BackboneRequest) -> None:
        """Wait until the load lets HIGH begin. CRITICAL never comes here."""
        self._recorder.happened("shed")
        while not self._load.check_resource_availability(request.priority):
            deadline_s = request.deadline
            if deadline_s is not None and self._clock.monotonic() >= deadline_s:
                raise SystemOverloadedError(
                    f"{request.data_type.value} of {', '.join(request.symbols)} was not begun in"
                    f" the time given, {request.priority.name} has to wait (load"
                    f" {self._load.load:.0f} %, {self._load.reason}): try again later",
                    retry_after_s=RETRY_AFTER_S,
                )
            left_s = LOOK_EVERY_S
            if deadline_s is not None:
                left_s = min(left_s, max(0.0, deadline_s - self._clock.monotonic()))
            await asyncio.sleep(left_s)

    @asynccontextmanager
    async def _slot(self, priority: Priority) -> AsyncIterator[None]:
        slots = self._slots[priority]
        ticket = self.waits.begin(priority, self._clock.monotonic()) if slots.locked() else None
        try:
            await slots.acquire()
        finally:
            if ticket is not None:
                self.waits.end(priority, ticket)
        try:
            yield
        finally:
            slots.release()

    def _failure(
        self,
        request: BackboneRequest,
        limit: asyncio.Timeout,
        limit_s: float | None,
        error: TimeoutError,
    ) -> Exception:
        """What a call whose time is over says of it."""
        if self._closed and limit.expired():
            return _closed()
        if not (isinstance(error, DeadlineError) or limit.expired()):
            return error
        return DeadlineError(
            f"no {request.data_type.value} of {', '.join(request.symbols)} within"
            f" {limit_s:g} s: try again, or give a longer timeout",
            missing=error.missing if isinstance(error, DeadlineError) else (),
        )

    def _failed(
        self, request: BackboneRequest, path: str, error: Exception, started: float
    ) -> None:
        way = "direct: api" if request.priority in self._slots else "bus: api"
        name, taken_s = type(error).__name__, self._clock.monotonic() - started
        self._recorder.failed(request.priority, request.data_type, path or way, name, taken_s)

    @staticmethod
    def _end(limits: list[asyncio.Timeout]) -> None:
        now = asyncio.get_running_loop().time()
        for limit in limits:
            if not limit.expired():
                limit.reschedule(now)


def _closed() -> ClosedError:
    return ClosedError("the market-data service is closed: open a new one")
