from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.eventually import eventually
from upbit_backbone.errors import ClosedError, TransportError
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.flights import Flights
from upbit_backbone.routing.rate_limit import Ticket
from upbit_backbone.tasks import TaskOwner


class Request:
    """Work that waits for its answer and counts how often it was begun and ended early."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, ticket: Ticket) -> str:
        self.begun += 1
        self.ticket = ticket
        try:
            return await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@asynccontextmanager
async def open_flights() -> AsyncIterator[tuple[Flights, TaskOwner]]:
    owner = TaskOwner()
    try:
        yield Flights(owner), owner
    finally:
        await owner.close()


def start(
    flights: Flights, work: Callable[[Ticket], Awaitable[str]], priority: Priority
) -> asyncio.Task[str]:
    return asyncio.create_task(flights.fly("key", priority, work))


async def test_callers_who_ask_the_same_share_one_request() -> None:
    async with open_flights() as (flights, _):
        request = Request()
        callers = [start(flights, request, Priority.NORMAL) for _ in range(5)]
        await eventually(lambda: flights.joined == 4)
        request.answer.set_result("candles")
        assert await asyncio.gather(*callers) == ["candles"] * 5
        assert request.begun == 1
        assert not flights._flights


async def test_a_finished_request_is_not_joined() -> None:
    async with open_flights() as (flights, _):
        request = Request()
        request.answer.set_result("first")
        assert await flights.fly("key", Priority.LOW, request) == "first"
        again = Request()
        again.answer.set_result("second")
        assert await flights.fly("key", Priority.LOW, again) == "second"


async def test_a_more_urgent_caller_joins_and_raises_the_request_that_waits() -> None:
    async with open_flights() as (flights, _):
        request = Request()
        low = start(flights, request, Priority.LOW)
        await eventually(lambda: request.begun == 1)
        urgency = [request.ticket.priority]
        critical = start(flights, request, Priority.CRITICAL)
        await eventually(lambda: flights.joined == 1)
        urgency.append(request.ticket.priority)
        normal = start(flights, request, Priority.NORMAL)
        await eventually(lambda: flights.joined == 2)
        urgency.append(request.ticket.priority)
        assert urgency == [Priority.LOW, Priority.CRITICAL, Priority.CRITICAL]
        request.answer.set_result("answer")
        assert list(await asyncio.gather(low, critical, normal)) == ["answer"] * 3
        assert request.begun == 1


async def test_a_waiter_who_leaves_does_not_hurt_the_others() -> None:
    async with open_flights() as (flights, _):
        request = Request()
        first, second = (start(flights, request, Priority.HIGH) for _ in range(2))
        await eventually(lambda: flights.joined == 1)
        first.cancel()
        await asyncio.wait([first])
        request.answer.set_result("answer")
        assert await second == "answer"
        assert first.cancelled()
        assert (request.begun, request.cancelled) == (1, 0)


async def test_the_last_to_leave_ends_the_request() -> None:
    async with open_flights() as (flights, _):
        request = Request()
        callers = [start(flights, request, Priority.HIGH) for _ in range(3)]
        await eventually(lambda: flights.joined == 2)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await eventually(lambda: request.cancelled == 1)
        assert not flights._flights


async def test_a_caller_who_comes_while_the_last_one_leaves_gets_an_answer() -> None:
    async with open_flights() as (flights, _):
        request = Request()
        leaving = start(flights, request, Priority.HIGH)
        await eventually(lambda: request.begun == 1)
        leaving.cancel()
        coming = start(flights, request, Priority.HIGH)
        await asyncio.wait([leaving])
        request.answer.set_result("answer")
        assert await coming == "answer"


async def test_an_error_reaches_all_waiters_and_logs_nothing() -> None:
    async with open_flights() as (flights, owner):
        request = Request()
        callers = [start(flights, request, Priority.HIGH) for _ in range(3)]
        await eventually(lambda: flights.joined == 2)
        request.answer.set_exception(TransportError("no route"))
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert [str(error) for error in errors] == ["no route"] * 3
        assert all(isinstance(error, TransportError) for error in errors)
        assert owner.failure is None


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    # Upper layers write `partial` and `missing` into it: one caller's must not be another's.
    async with open_flights() as (flights, _):
        request = Request()
        callers = [start(flights, request, Priority.HIGH) for _ in range(3)]
        await eventually(lambda: flights.joined == 2)
        cause = OSError("unplugged")
        error = TransportError("no route", retry_after_s=2.0)
        error.__cause__ = cause
        request.answer.set_exception(error)
        first, second, third = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(first, TransportError)
        assert isinstance(second, TransportError)
        assert isinstance(third, TransportError)
        first.partial = "what the first caller has"
        assert second.partial is third.partial is None
        assert second.retry_after_s == 2.0
        assert second.__cause__ is cause
        assert "unplugged" in "".join(traceback.format_exception(second))


async def test_closing_tells_the_waiters_and_does_not_cancel_them() -> None:
    async with open_flights() as (flights, owner):
        request = Request()
        callers = [start(flights, request, Priority.HIGH) for _ in range(2)]
        await eventually(lambda: flights.joined == 1)
        await owner.close()
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(error) for error in errors] == [ClosedError, ClosedError]


async def test_a_task_that_was_just_spawned_still_cleans_up_when_its_owner_closes() -> None:
    owner, cleaned = TaskOwner(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    owner.spawn(work(), name="just spawned")
    await owner.close()
    assert cleaned == [True]


async def test_a_task_that_fails_is_logged_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()

    async def work() -> None:
        raise RuntimeError("a bug")

    owner.spawn(work(), name="worker")
    failure = await eventually(lambda: owner.failure)
    assert str(failure) == "a bug"
    assert "worker ended by an error: a bug" in caplog.text
    await owner.close()
    await owner.close()
