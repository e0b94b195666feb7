"""The event bus: lets work of NORMAL and LOW begin in turn, and tells whoever asks what happens.

It admits work, not answers: what memory holds is answered before anything of this is touched.
Whatever happens to it costs order, never a call: without it, calls go down directly.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Protocol, Self
from weakref import WeakSet

import msgspec

from upbit_backbone.api.home_loop import other_loop
from upbit_backbone.api.lanes import LANES, LOADS, Lanes, Ticket
from upbit_backbone.api.validation import check_line, check_request
from upbit_backbone.clock import Clock
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DeadlineError,
    InvalidRequestError,
    SystemOverloadedError,
    shown,
)
from upbit_backbone.protocol import (
    BackboneRequest,
    BackboneResponse,
    LoadBand,
    Priority,
    SystemEvent,
)
from upbit_backbone.tasks import KeptTask, TaskOwner
from upbit_backbone.telemetry.events import EventLog

MOST_WAITING: Final = 1_000
"""Loads of one priority in a queue, its quotes, and published requests without an answer; further
ones wait for room."""
A_TURN: Final = 16
"""So many calls begin in one turn of the event loop: what they do first is done in the next one,
and a thousand at once would hold everybody up."""
LOOK_EVERY_S: Final = 0.25
"""How often whoever is held back by the load is looked at again."""
KEPT_ANSWERS: Final = 1_000
"""Answers to published requests that nobody has asked for yet; the oldest are dropped."""
MOST_UNREAD: Final = 1_000
"""Events a reader may leave unread; then the oldest are dropped, which their numbers show."""
LONGEST_REASON: Final = 200
RETRY_AFTER_S: Final = 2.0
"""The load has to stay low for so long before shed callers run again."""

Work = Callable[[BackboneRequest], Awaitable[BackboneResponse]]
_Outcome = BackboneResponse | BackboneError


class Load(Protocol):
    """What the bus asks of the load manager."""

    @property
    def load(self) -> float: ...
    @property
    def reason(self) -> str: ...
    def check_resource_availability(self, priority: Priority) -> bool: ...


class SystemReading(msgspec.Struct, frozen=True):
    """What the service takes of the machine, as last measured."""

    time: datetime
    processor_share: float
    """Of all usable processors, 0 to 1."""
    memory_bytes: int
    loop_lag_p95_s: float
    load: float
    band: LoadBand


class Throttle:
    """LOW is paused until this is released; also a context manager."""

    def __init__(self, reason: str, on_release: Callable[[Throttle], None]) -> None:
        self.reason = reason
        self._on_release = on_release

    def release(self) -> None:
        """Let LOW run again, unless another throttle holds. May be called twice."""
        self._on_release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class SystemEvents:
    """One reader's `SystemEvent` as they happen, and the newest `SystemReading`.

    An async iterator; it ends with `close`, with the service or with its last reference. Events
    come in order. Of readings a slow reader gets the newest alone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin with nothing read; `loop` is the one in which alone it may be."""
        self._loop = loop
        self._events: deque[SystemEvent] = deque(maxlen=MOST_UNREAD)
        self._reading: SystemReading | None = None
        self._news = asyncio.Event()
        self._closed = False

    def tell(self, news: SystemEvent | SystemReading) -> None:
        """Hand over; never waits."""
        if isinstance(news, SystemEvent):
            self._events.append(news)
        else:
            self._reading = news
        self._news.set()

    def close(self) -> None:
        """End once what is unread was read. May be called twice."""
        self._closed = True
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SystemEvent | SystemReading:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise other_loop()
        while True:
            if self._events:
                return self._events.popleft()
            if self._reading is not None:
                reading, self._reading = self._reading, None
                return reading
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class EventBusIntegration:
    """Admits NORMAL and LOW calls, carries published requests, and spreads system events.

    One task lets calls begin: a few in each turn of the loop, NORMAL first, LOW never starved, none
    while the load manager says no. When that task fails or is stopped, whoever waits goes on
    directly, and so does whoever comes, as soon as the load lets them; it is begun again after
    0.1 s, then 0.2 s, … 30 s.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        events: EventLog,
        load: Load,
        slots: int,
        on_shed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what it asks and tells; nothing runs before `start`.

        Args:
            clock: This machine's time.
            events: Where it is written that the bus went away and came back.
            load: Says who may begin.
            slots: How many calls of one priority may be in work at once.
            on_shed: Called for each call that has to wait for the load.
        """
        self._clock = clock
        self._events = events
        self._load = load
        self._slots = slots
        self._on_shed = on_shed
        self._lanes = Lanes(slots)
        self._room = {
            (priority, is_load): asyncio.Semaphore(MOST_WAITING)
            for priority in LANES
            for is_load in (True, False)
        }
        self._open_since_s: dict[Priority, float | None] = dict.fromkeys(LANES, 0.0)
        """Since when a priority may begin; None: it may not."""
        self._news = asyncio.Event()
        self._task = KeptTask(
            self._dispatch, name="event bus", on_begin=self._come_back, on_end=self._go_away
        )
        self._running = False
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one it runs in, or ran in last."""
        self._work: Work | None = None
        self._published = TaskOwner()
        self._publish_room = {priority: asyncio.Semaphore(MOST_WAITING) for priority in Priority}
        self._answers: OrderedDict[str, asyncio.Task[_Outcome]] = OrderedDict()
        self._throttles: list[Throttle] = []
        self._refused = dict.fromkeys(LANES, 0)
        """How many calls of a priority were not let in until their deadline."""
        self._readers: WeakSet[SystemEvents] = WeakSet()
        self.failure = "not running"
        """Why calls go down directly now; empty while the bus works."""

    async def start(self) -> None:
        """Begin to admit."""
        self._loop = asyncio.get_running_loop()
        self._running, self.failure = True, ""
        self._lanes = Lanes(self._slots)
        self._task.start()

    async def stop(self) -> None:
        """Admit no more: who waits goes on directly. May be called twice.

        Published requests without an answer end with `ClosedError`, and so do readers of events.
        """
        self._running = False
        await self._task.stop()
        self._go_direct("not running")
        await self._published.close()
        self._answers.clear()
        for reader in tuple(self._readers):
            reader.close()

    def serve(self, work: Work) -> None:
        """Take what answers published requests; the API calls it once."""
        self._work = work

    # Calls on their way in.

    @asynccontextmanager
    async def admitted(self, request: BackboneRequest) -> AsyncIterator[bool]:
        """Wait for the turn of a NORMAL or LOW call, and hold its slot.

        Yields whether the bus let it in; False: the bus is away, and nobody waits for it, but for
        the load all the same. That wait ends with the request's deadline; without one it lasts as
        long as the load.

        Raises:
            SystemOverloadedError: the load was too high for it until its deadline.
            DeadlineError: others went first until its deadline.
        """
        leave = await self._turn_of(request)
        try:
            yield leave is not None
        finally:
            if leave is not None:
                leave()

    def oldest_wait_s(self, now: float) -> dict[Priority, float]:
        """How long the oldest call has waited for its turn; what is held by the load does not wait.

        A call that the load had held waits from when it was let in again: the wait for the load
        must not keep the load up.
        """
        waits_s = {}
        for priority, since_s in self._open_since_s.items():
            oldest = self._lanes.oldest(priority)
            if oldest is not None and since_s is not None:
                waits_s[priority] = now - max(oldest.entered_s, since_s)
        return waits_s

    @property
    def counters(self) -> dict[str, float]:
        """Who waits, who is in work, and how often the bus went away."""
        return {
            "bus_failures": float(self._task.failures),
            "bus_readers": float(len(self._readers)),
            "bus_published": float(len(self._answers)),
            "normal_waiting": float(self._lanes.waiting(Priority.NORMAL)),
            "normal_in_work": float(self._lanes.begun(Priority.NORMAL)),
            "low_waiting": float(self._lanes.waiting(Priority.LOW)),
            "low_in_work": float(self._lanes.begun(Priority.LOW)),
            "low_throttles": float(len(self._throttles)),
            "normal_refused": float(self._refused[Priority.NORMAL]),
            "low_refused": float(self._refused[Priority.LOW]),
        }

    # Requests by number.

    async def publish_data_request(self, request: BackboneRequest) -> str:
        """Have a request answered while the caller does something else.

        It goes the way of its priority, without a look at what memory holds. A thousand of one
        priority without an answer: the next one waits for room. Without a deadline of its own it
        has its priority's.

        Returns:
            The request's id, for `answer`.

        Raises:
            InvalidRequestError: not a `BackboneRequest`, one of which a field makes no sense, or
                one that was published already.
            ClosedError: the service is not running.
        """
        check_request(request)
        name = str(request.request_id)
        self._work_of_new(name)
        self._check_loop()
        limit_s = request.priority.deadline_s
        if request.deadline is None and limit_s is not None:
            deadline_s = self._clock.monotonic() + limit_s
            request = msgspec.structs.replace(request, deadline=deadline_s)
        room = self._publish_room[request.priority]
        await room.acquire()
        try:
            work = self._work_of_new(name)  # published, or closed, while it waited for room
        except BackboneError:
            room.release()
            raise
        task = asyncio.get_running_loop().create_task(
            self._answered(request, work, room), name=f"request {name}"
        )
        self._published.own(task)
        self._answers[name] = task
        while len(self._answers) > KEPT_ANSWERS and self._drop_oldest_answer():
            pass
        return name

    async def answer(self, request_id: str) -> BackboneResponse:
        """The answer to a published request; waits for it, and gives it once.

        Safe to cancel: the request goes on, and may be asked for again.

        Raises:
            InvalidRequestError: no such request, or its answer was given or dropped.
            ClosedError: the service was closed before it was answered.
            BackboneError: as the call itself would raise.
        """
        if not isinstance(request_id, str):
            raise InvalidRequestError(f"a request's id is a text, was {shown(request_id)}")
        task = self._answers.get(request_id)
        if task is None and not self._running:
            raise _not_running()
        if task is None:
            raise InvalidRequestError(
                f"no answer is kept for request {shown(request_id)}: expected an id that"
                " publish_data_request returned, asked for once"
            )
        self._check_loop()
        await asyncio.wait([task])
        self._answers.pop(request_id, None)
        if task.cancelled():
            raise ClosedError("the service was closed before the request was answered")
        outcome = task.result()
        if isinstance(outcome, BackboneError):
            raise outcome
        return outcome

    def _work_of_new(self, name: str) -> Work:
        """What answers a request of this id, which may not have been published yet."""
        if name in self._answers:
            raise InvalidRequestError(
                f"the request {name} was published already: make another one for each question"
            )
        if not self._running or self._work is None:
            raise _not_running()
        return self._work

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise other_loop()

    # What happens.

    def subscribe_to_system_events(self) -> SystemEvents:
        """What happens from now on: load bands, health of layers, gaps, bans, reconnects, alerts.

        Between them come readings of processor, memory and load.
        """
        reader = SystemEvents(self._loop)
        if not self._running:
            reader.close()
        self._readers.add(reader)
        return reader

    def tell(self, news: SystemEvent | SystemReading) -> None:
        """Spread it; never waits, never raises."""
        for reader in tuple(self._readers):
            reader.tell(news)

    def emergency_throttle(self, reason: str = "emergency throttle") -> Throttle:
        """Pause LOW until the throttle is released; several hold until the last is.

        Raises:
            InvalidRequestError: the reason is no line of at most 200 characters.
            ClosedError: the service has ended.
        """
        check_line("a reason", reason, LONGEST_REASON)
        if self._loop is not None and not self._running:
            raise _not_running()
        throttle = Throttle(reason, self._release)
        self._throttles.append(throttle)
        self._events.add("layer_4", "warning", "load", f"LOW is paused: {reason}")
        return throttle

    @property
    def throttled(self) -> str:
        """Why LOW is paused by a throttle; empty when it is not."""
        return self._throttles[-1].reason if self._throttles else ""

    def _release(self, throttle: Throttle) -> None:
        if throttle in self._throttles:
            self._throttles.remove(throttle)
            if not self._throttles:
                self._events.add("layer_4", "info", "load", "LOW is not paused any more")
            self._news.set()

    # The task, and what happens without it.

    async def _dispatch(self) -> None:
        """Let calls begin until cancelled."""
        while True:
            self._news.clear()
            held = self._look_at_load()
            now = self._clock.monotonic()
            for _ in range(A_TURN):
                ticket = self._lanes.next(self._may_begin, now)
                if ticket is None:
                    break
                if not ticket.turn.done():
                    ticket.turn.set_result(None)
            else:
                await asyncio.sleep(0)
                continue
            wait_s = LOOK_EVERY_S if held else None
            if self._may_begin(Priority.LOW):
                wait_s = self._lanes.load_wait_s(now) or wait_s
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _look_at_load(self) -> bool:
        """Note who may begin since when; whether somebody waits who may not."""
        held = False
        for priority in LANES:
            if not self._may_begin(priority):
                self._open_since_s[priority] = None
                held |= self._lanes.waiting(priority) > 0
            elif self._open_since_s[priority] is None:
                self._open_since_s[priority] = self._clock.monotonic()
        return held

    def _may_begin(self, priority: Priority) -> bool:
        if priority is Priority.LOW and self._throttles:
            return False
        return self._load.check_resource_availability(priority)

    def _go_away(self, why: str) -> None:
        self._go_direct(f"the event bus failed and calls go down directly: {why}")
        self._events.add("layer_4", "warning", "health", self.failure)

    def _come_back(self) -> None:
        self.failure = ""
        self._lanes = Lanes(self._slots)
        self._events.add("layer_4", "info", "health", "the event bus works again")

    def _go_direct(self, why: str) -> None:
        self.failure = why
        self._open_since_s = dict.fromkeys(LANES, 0.0)
        for ticket in self._lanes.clear():
            if not ticket.turn.done():
                ticket.turn.set_result(None)

    async def _turn_of(self, request: BackboneRequest) -> Callable[[], None] | None:
        """Wait for a turn; returns what gives it back. None: the bus is away."""
        priority, is_load = request.priority, request.data_type in LOADS
        now = self._clock.monotonic()
        left_s = None if request.deadline is None else max(0.0, request.deadline - now)
        try:
            async with asyncio.timeout(left_s):
                if not self._is_away():
                    async with self._room[priority, is_load]:
                        leave = None
                        if not self._is_away():
                            leave = await self._queued(priority, now, is_load=is_load)
                    if leave is not None:
                        return leave
                await self._calm(priority)
        except TimeoutError as error:
            raise self._too_late(request) from error
        return None

    async def _calm(self, priority: Priority) -> None:
        """Without the bus: wait until the load lets this priority begin."""
        if self._must_wait(priority):
            self._on_shed()
        while self._must_wait(priority):
            await asyncio.sleep(LOOK_EVERY_S)

    def _must_wait(self, priority: Priority) -> bool:
        return self._running and not self._may_begin(priority)

    def _is_away(self) -> bool:
        return bool(self.failure)

    async def _queued(
        self, priority: Priority, now: float, *, is_load: bool
    ) -> Callable[[], None] | None:
        turn = asyncio.get_running_loop().create_future()
        ticket = Ticket(priority, turn, now, is_load=is_load)
        # When the bus fails its successor has lanes of its own.
        lanes = self._lanes

        def leave() -> None:
            lanes.leave(ticket)
            self._news.set()

        lanes.enter(ticket)
        self._news.set()
        if not self._may_begin(priority):
            self._on_shed()
        try:
            await ticket.turn
        except asyncio.CancelledError:
            leave()
            raise
        return leave if ticket.begun else None

    def _too_late(self, request: BackboneRequest) -> BackboneError:
        self._refused[request.priority] += 1
        what = f"{request.data_type.value} of {', '.join(request.symbols)}"
        if self._may_begin(request.priority):
            return DeadlineError(
                f"{what} was not begun in the time given, others went first: try again, or give"
                " a longer timeout"
            )
        why = f"load {self._load.load:.0f} %, {self._load.reason}"
        if request.priority is Priority.LOW and self._throttles:
            why = self.throttled
        return SystemOverloadedError(
            f"{what} was not begun in the time given, {request.priority.name} has to wait ({why}):"
            " try again later, or give a longer timeout",
            retry_after_s=RETRY_AFTER_S,
        )

    # Published requests.

    async def _answered(
        self, request: BackboneRequest, work: Work, room: asyncio.Semaphore
    ) -> _Outcome:
        left_s = None
        if request.deadline is not None:
            left_s = max(0.0, request.deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(left_s) as limit:
                return await work(request)
        except BackboneError as error:
            return error  # nobody may ever ask for it
        except TimeoutError:
            if not limit.expired():
                raise
            return DeadlineError(
                f"no {request.data_type.value} of {', '.join(request.symbols)} before the"
                " request's deadline: publish it again, with a later one"
            )
        finally:
            room.release()

    def _drop_oldest_answer(self) -> bool:
        """Forget the oldest answer that nobody has asked for; False: all are still under way."""
        for name, task in self._answers.items():
            if task.done():
                del self._answers[name]
                return True
        return False


def _not_running() -> ClosedError:
    return ClosedError("the event bus is not running: start the service first")
