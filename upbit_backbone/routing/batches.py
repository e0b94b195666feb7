"""Tickers and order books that are asked at once become one request.

A screener asks for 289 tickers with as many calls; the exchange answers them in one. So
codes gather until the next turn of the loop and then leave together; those of NORMAL and LOW,
which are let in a few at a time, as long as each turn brings more, for 20 ms at most. A request
that still waits for the exchange's limit takes further codes along. Whoever asks for a code that
is on its way joins it. A CRITICAL caller does not wait for others: its codes leave at once and
alone, and their answer serves those who were waiting for the same ones. When more of them wait
for the limit than may go at once by right, the others share one request: none goes later for it.

How many codes one request may name is a promise about the wire: it holds whoever asked for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Generic

from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    ProtocolError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.flights import twin
from upbit_backbone.routing.rate_limit import Ticket
from upbit_backbone.routing.realtime_cache import Held
from upbit_backbone.tasks import TaskOwner

Depart = Callable[[], tuple[str, ...]]
"""Gives the codes of a request that goes now: none joins it any more."""
Send = Callable[[Depart, Ticket], Awaitable[Collection[Held]]]
"""Asks the exchange for these codes, with this ticket. The answer may have more of them, in any
order, and fewer only if it is about others too."""
CRITICAL_ALONE = 2
"""So many CRITICAL requests that wait for the limit have one caller each."""
MOST_TURNS = 64
"""Codes that come a few at each turn of the loop gather no longer than for so many."""
LONGEST_GATHERING_S = 0.020
"""Nor longer than this, for the turns of a busy loop are long."""


class _Call(Generic[Held]):
    """One caller and the codes it still waits for."""

    def __init__(self, codes: Iterable[str]) -> None:
        self.lacking = set(codes)
        self.values: dict[str, Held] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, value: Held) -> None:
        self.lacking.discard(value.symbol)
        self.values[value.symbol] = value
        if not self.lacking and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BackboneError) -> None:
        if not self.done.done():
            self.done.set_exception(twin(error))


class _Flight:
    """Codes on their way."""

    def __init__(self, codes: tuple[str, ...], ticket: Ticket, *, grows: bool) -> None:
        self.codes = codes
        self.ticket = ticket
        self.priority = ticket.priority
        self.grows = grows
        """Whether it takes further codes along while it waits for the limit."""
        self.task: asyncio.Task[None] | None = None


class Batches(Generic[Held]):
    """Gathers the codes of one kind of request.

    A waiter's cancellation ends only its waiting; a flight ends when nobody waits for any of
    its codes. An error reaches everybody who waits for one of the codes that it is about:
    if the exchange does not know one of several, or has nothing for it, they are asked again
    in halves, so that one bad code fails only its own caller.
    """

    def __init__(
        self, tasks: TaskOwner, send: Send[Held], *, codes_per_request: int | None = None
    ) -> None:
        """Take what sends, and how many codes one request may name; None: all that are asked."""
        self._tasks = tasks
        self._send: Send[Held] = send
        self._codes_per_request = codes_per_request
        self._calls: dict[str, set[_Call[Held]]] = {}
        self._flights: dict[str, _Flight] = {}
        self._line: dict[_Flight, None] = {}
        """Those that wait for the limit."""
        self._gathering: dict[str, None] = {}
        self._urgency = Priority.LOW
        self._turns = 0
        self._gathers_until_s = 0.0
        self.joined = 0
        """How many codes were served by another caller's request."""

    async def get(self, codes: Sequence[str], priority: Priority) -> list[Held]:
        """The newest values of these codes, in their order.

        Raises:
            BackboneError: as `send` raises it.
        """
        call = _Call[Held](codes)
        for code in call.lacking:
            self._calls.setdefault(code, set()).add(call)
        self._ask(codes, priority)
        try:
            await call.done
        finally:
            self._leave(call, codes)
        return [call.values[code] for code in codes]

    def _ask(self, codes: Sequence[str], priority: Priority) -> None:
        free = []
        for code in dict.fromkeys(codes):
            flight = self._flights.get(code)
            if flight is not None and not flight.ticket.too_late_for(priority):
                flight.ticket.raise_to(priority)
                self.joined += 1
            else:
                free.append(code)
        if priority is Priority.CRITICAL:
            for code in free:
                self._gathering.pop(code, None)
            self._launch_all(free, priority)
            return
        if free and not self._gathering:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._depart, 0)
            self._urgency, self._turns = priority, 0
            self._gathers_until_s = loop.time() + LONGEST_GATHERING_S
        self._urgency = min(self._urgency, priority)
        for code in free:
            if code in self._gathering:
                self.joined += 1
            self._gathering[code] = None

    def _depart(self, seen: int) -> None:
        """Let what gathered leave, unless more came since there was so much, and may follow."""
        self._turns += 1
        loop = asyncio.get_running_loop()
        soon = self._turns < MOST_TURNS and loop.time() < self._gathers_until_s
        if soon and self._urgency > Priority.HIGH and len(self._gathering) > seen:
            loop.call_soon(self._depart, len(self._gathering))
            return
        codes, self._gathering = tuple(self._gathering), {}
        self._launch_all(codes, self._urgency)

    def _launch_all(self, codes: Sequence[str], priority: Priority) -> None:
        codes = self._taken_along(codes, priority)
        size = self._codes_per_request or max(1, len(codes))
        for at in range(0, len(codes), size):
            grows = True
            if priority is Priority.CRITICAL:
                grows = len(self._waiting(priority)) >= CRITICAL_ALONE
            self._launch(tuple(codes[at : at + size]), Ticket(priority), grows=grows)

    def _taken_along(self, codes: Sequence[str], priority: Priority) -> Sequence[str]:
        """Put codes into requests of their priority that wait for the limit; returns the rest."""
        for flight in self._waiting(priority):
            if flight.grows and codes:
                room = (self._codes_per_request or len(flight.codes) + len(codes)) - len(
                    flight.codes
                )
                joining, codes = codes[:room], codes[room:]
                flight.codes += tuple(joining)
                self._flights |= dict.fromkeys(joining, flight)
                self.joined += len(joining)
        return codes

    def _waiting(self, priority: Priority) -> list[_Flight]:
        """What was begun with this urgency and waits for the limit with it; the oldest first."""
        return [one for one in self._line if one.ticket.priority is one.priority is priority]

    def _launch(self, codes: tuple[str, ...], ticket: Ticket, *, grows: bool) -> None:
        flight = _Flight(codes, ticket, grows=grows)
        self._line[flight] = None
        for code in codes:
            self._flights[code] = flight
        task = asyncio.get_running_loop().create_task(
            self._fly(flight), name=f"batch of {len(codes)}"
        )
        flight.task = task
        self._tasks.own(task)
        # Also when the task is cancelled before its first turn.
        task.add_done_callback(lambda _: self._landed(flight))

    async def _fly(self, flight: _Flight) -> None:
        def depart() -> tuple[str, ...]:
            self._line.pop(flight, None)
            return flight.codes

        try:
            values = await self._send(depart, flight.ticket)
        except (UnknownSymbolError, DataUnavailableError, ProtocolError) as error:
            own = self._landed(flight)
            if len(flight.codes) > 1:
                half = -(-len(own) // 2)
                for codes in filter(None, (own[:half], own[half:])):
                    self._launch(codes, Ticket(flight.ticket.priority), grows=False)
            else:
                self._fail(own, error)
        except BackboneError as error:
            self._fail(self._landed(flight), error)
        else:
            self._landed(flight)
            lacking = dict.fromkeys(flight.codes)
            for value in values:
                lacking.pop(value.symbol, None)
                for call in tuple(self._calls.get(value.symbol, ())):
                    call.take(value)
            for code in lacking:
                # An answer for a whole quote asset leaves out who has none.
                self._fail([code], DataUnavailableError(f"{code}: the exchange has none of it now"))

    def _landed(self, flight: _Flight) -> tuple[str, ...]:
        """End a flight. Returns the codes that no other flight was sent for meanwhile."""
        self._line.pop(flight, None)
        own = tuple(code for code in flight.codes if self._flights.get(code) is flight)
        for code in own:
            del self._flights[code]
        task = flight.task
        if task is None or not task.done():
            return own
        if task.cancelled():
            self._fail(own, ClosedError("the request ended because the service closes"))
        elif (error := task.exception()) is not None:
            # A fault of ours must not leave anybody waiting for ever.
            self._fail(own, TransportError(f"an unexpected error: {error!r}; try again"))
        return own

    def _fail(self, codes: Iterable[str], error: BackboneError) -> None:
        for code in codes:
            for call in tuple(self._calls.get(code, ())):
                call.fail(error)

    def _leave(self, call: _Call[Held], codes: Sequence[str]) -> None:
        for code in dict.fromkeys(codes):
            calls = self._calls.get(code)
            if calls is None:
                continue
            calls.discard(call)
            if not calls:
                del self._calls[code]
                self._gathering.pop(code, None)
        for flight in {self._flights[code] for code in codes if code in self._flights}:
            if flight.task is not None and not self._calls.keys() & set(flight.codes):
                flight.task.cancel()
                self._landed(flight)  # now: it ends a turn later, and nobody may join it until then
