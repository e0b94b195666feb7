"""Tickers and order books of many symbols."""

from __future__ import annotations

import asyncio

import pytest

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.pages import PARALLEL_PAGES
from upbit_backbone.coordinator.turns import LowTurns
from upbit_backbone.errors import ClosedError, DeadlineError, ProtocolError, TransportError
from upbit_backbone.protocol import BackboneRequest, BackboneResponse, DataType, Priority

SYMBOLS = tuple(f"KRW-T{number:03}" for number in range(189))


def exchange_of(clock: ManualClock) -> FakeExchangeSource:
    exchange = FakeExchangeSource(clock)
    exchange.held = {(DataType.TICKER, symbol): f"ticker of {symbol}" for symbol in SYMBOLS}
    return exchange


@pytest.mark.parametrize(("size", "requests"), [(None, 1), (10, 19), (189, 1), (500, 1)])
async def test_a_list_is_asked_in_as_few_requests_as_may_be(
    clock: ManualClock, size: int | None, requests: int
) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=size
    )
    exchange.before_answer = lambda _: asyncio.sleep(0)
    response = await coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS))
    assert response.data == tuple(f"ticker of {symbol}" for symbol in SYMBOLS)
    assert len(exchange.requests) == requests
    assert exchange.most_at_once == min(requests, PARALLEL_PAGES)
    assert response.metadata.split_info == (f"{requests} requests" if requests > 1 else None)
    assert response.metadata.data_count == len(SYMBOLS)


async def test_a_list_that_fails_names_its_symbols_and_the_others_are_kept(
    clock: ManualClock,
) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=60
    )

    async def fail(request: BackboneRequest) -> None:
        if SYMBOLS[100] in request.symbols:
            raise ProtocolError("not understood")

    exchange.before_answer = fail
    with pytest.raises(ProtocolError, match=r"not understood \(no answer for KRW-T060, ") as caught:
        await coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS))
    assert len(caught.value.partial) == 129


async def test_a_failed_request_is_tried_again_alone(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=100
    )
    left = 1

    async def fail(_: BackboneRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS))
    assert len(response.data) == len(SYMBOLS)
    assert sorted(len(request.symbols) for request in exchange.requests) == [89, 100, 100]


async def test_at_the_deadline_the_lists_that_were_answered_are_kept(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=60
    )

    async def hang(request: BackboneRequest) -> None:
        if SYMBOLS[100] in request.symbols:
            await asyncio.Event().wait()

    exchange.before_answer = hang
    deadline = clock.monotonic() + 0.05
    request = BackboneRequest(DataType.TICKER, SYMBOLS, deadline=deadline)
    with pytest.raises(DeadlineError, match=r"\(no answer for KRW-T060, ") as caught:
        await coordinator.fetch(request)
    assert len(caught.value.partial) == 129


async def test_a_low_list_has_one_request_in_flight(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=60
    )
    exchange.before_answer = lambda _: asyncio.sleep(0)
    request = BackboneRequest(DataType.TICKER, SYMBOLS, priority=Priority.LOW)
    answer = asyncio.create_task(coordinator.fetch(request))
    await eventually(answer.done)
    assert len(exchange.requests) == 4
    assert exchange.most_at_once == 1
    assert answer.result().data == tuple(f"ticker of {symbol}" for symbol in SYMBOLS)


@pytest.mark.both_loops
async def test_low_calls_for_one_symbol_each_take_one_turn_together(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(FakeStore(exchange), clock=clock, rng=NoChance())
    held = asyncio.Event()

    async def hold(_: BackboneRequest) -> None:
        await held.wait()

    exchange.before_answer = hold

    def ask(symbol: str) -> asyncio.Task[BackboneResponse]:
        request = BackboneRequest(DataType.TICKER, (symbol,), priority=Priority.LOW)
        return asyncio.create_task(coordinator.fetch(request))

    first = [ask(symbol) for symbol in SYMBOLS[:20]]
    await eventually(lambda: exchange.most_at_once == 20)
    second = [ask(symbol) for symbol in SYMBOLS[20:]]
    await asyncio.sleep(0)
    for task in (second[0], second[7], first[0]):
        task.cancel()
    held.set()
    clock.advance(1.0)
    await asyncio.wait([*first, *second])
    answered = [task for task in (*first, *second) if not task.cancelled()]
    assert len(answered) == len(SYMBOLS) - 3
    assert all(task.result().data for task in answered)
    assert coordinator.status().counters["low_pages"] == 2
    await coordinator.stop()


async def test_low_calls_that_wait_together_end_with_the_coordinator(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    turns = LowTurns(clock)
    coordinator = Coordinator(FakeStore(exchange), clock=clock, rng=NoChance(), turns=turns)
    request = BackboneRequest(DataType.TICKER, SYMBOLS[:1], priority=Priority.LOW)
    async with turns.turn("another"):
        gives_up = asyncio.create_task(coordinator.fetch(request))
        waits = asyncio.create_task(coordinator.fetch(request))
        await asyncio.sleep(0)
        gives_up.cancel()
        await coordinator.stop()
        with pytest.raises(ClosedError):
            await waits
    assert gives_up.cancelled()
    assert not exchange.requests


async def test_a_cancelled_list_leaves_no_request_on_its_way(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=10
    )
    under_way = asyncio.Semaphore(0)

    async def hang(_: BackboneRequest) -> None:
        under_way.release()
        await asyncio.Event().wait()

    exchange.before_answer = hang
    call = asyncio.create_task(coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS)))
    for _ in range(PARALLEL_PAGES):
        await under_way.acquire()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(exchange.requests) == PARALLEL_PAGES
