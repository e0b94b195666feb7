"""Single-flight: callers that ask the same at the same time share one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

from upbit_backbone.errors import BackboneError, ClosedError
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import Ticket
from upbit_backbone.tasks import TaskOwner

Result = TypeVar("Result")


class _Flight:
    def __init__(self, ticket: Ticket, task: asyncio.Task[Any]) -> None:
        self.ticket = ticket
        self.task = task
        self.waiters = 0


class Flights:
    """Requests on their way, by what they ask.

    A flight is as urgent as the most urgent of its waiters: who joins raises its ticket,
    while it still waits for the right to be sent. A waiter's cancellation ends only its
    waiting; the last one to leave ends the flight.
    """

    def __init__(self, tasks: TaskOwner) -> None:
        self._tasks = tasks
        self._flights: dict[Hashable, _Flight] = {}
        self.joined = 0
        """How many callers were served by another one's request."""

    async def fly(
        self, key: Hashable, priority: Priority, work: Callable[[Ticket], Awaitable[Result]]
    ) -> Result:
        """Return the result of `work`, or of the same work already under way.

        Args:
            key: What is asked.
            priority: The caller's.
            work: Sends the request with the ticket it is given.
        """
        flight = self._flights.get(key)
        if flight is None or flight.task.done() or flight.ticket.too_late_for(priority):
            ticket = Ticket(priority)
            flight = _Flight(ticket, self._start(key, ticket, work))
            self._flights[key] = flight
        else:
            self.joined += 1
            flight.ticket.raise_to(priority)
        flight.waiters += 1
        try:
            outcome = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if flight.task.cancelled() and not (current and current.cancelling()):
                raise ClosedError("the request was ended because the service closes") from None
            raise
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                if not flight.task.done():
                    flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]
        if isinstance(outcome, BackboneError):
            raise twin(outcome)
        return cast(Result, outcome)

    def _start(
        self, key: Hashable, ticket: Ticket, work: Callable[[Ticket], Awaitable[Result]]
    ) -> asyncio.Task[Any]:
        async def run() -> Any:
            try:
                return await work(ticket)
            except BackboneError as error:
                # Carried as a value: its waiters raise it, and it is no crash of a task.
                return error

        task = asyncio.get_running_loop().create_task(run(), name=f"flight {key}")
        self._tasks.own(task)
        return task


def twin(error: BackboneError) -> BackboneError:
    """A waiter's own copy: upper layers add to it what exists of their answer."""
    twin = type(error).__new__(type(error))
    twin.args = error.args  # a `TimeoutError` would not take them from `__new__`
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin.with_traceback(error.__traceback__)
