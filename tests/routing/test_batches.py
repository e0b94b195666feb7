"""What is asked at once leaves in one request; nobody waits for another's bad code."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.eventually import eventually
from tests.routing.conftest import OpenRouter
from tests.routing.fake_exchange import FakeExchange
from tests.routing.test_router import BOOK, TICKER, ask
from tests.steered_loop import SteeredLoop
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import (
    ClosedError,
    DataUnavailableError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Ticker
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.router import Router

pytestmark = pytest.mark.steered_time


def start(router: Router, *symbols: str, priority: Priority = Priority.NORMAL) -> asyncio.Task:
    return asyncio.create_task(router.fetch(ask(TICKER, *symbols, priority=priority)))


@pytest.mark.both_loops
async def test_tickers_asked_at_once_are_one_request(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        answers = await asyncio.gather(
            *(start(router, symbol) for symbol in exchange.listed * 3),
            start(router, "KRW-DOGE", "KRW-BTC"),
        )
        assert [[value.symbol for value in answer.data] for answer in answers[-2:]] == [
            ["KRW-DOGE"],
            ["KRW-DOGE", "KRW-BTC"],
        ]
        assert exchange.asked_for == [("KRW-BTC", "KRW-XRP", "KRW-DOGE")]
        assert router.status().counters["joined"] == 8


async def test_no_request_names_more_than_the_bound_whoever_asked(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.listed = [f"KRW-A{number:03}" for number in range(189)]
    first, second = exchange.listed[:95], exchange.listed[90:]
    async with open_router(symbols_per_request=10) as router:
        answers = await asyncio.gather(start(router, *first), start(router, *second))
        assert [value.symbol for value in answers[1].data] == second
        assert [len(codes) for codes in exchange.asked_for] == [10] * 18 + [9]
        exchange.asked_for.clear()
        critical = await start(router, *first[:25], priority=Priority.CRITICAL)
        assert [value.symbol for value in critical.data] == first[:25]
        assert [len(codes) for codes in exchange.asked_for] == [10, 10, 5]
        assert exchange.rest_calls["all tickers"] == 0


async def test_books_are_batched_too_and_grouped_ones_are_not(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        requests = [ask(BOOK, symbol) for symbol in exchange.listed]
        await asyncio.gather(*(router.fetch(request) for request in requests))
        assert exchange.rest_calls == {"orderbook": 1}


async def test_all_tickers_of_a_quote_asset_are_one_call_and_the_untraded_are_named(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.listed = [f"KRW-A{number}" for number in range(289)]
    exchange.untraded = {"KRW-A7", "KRW-A100"}
    async with open_router() as router:
        answers = await asyncio.gather(
            *(start(router, symbol) for symbol in exchange.listed), return_exceptions=True
        )
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        assert [type(error) for error in failed] == [DataUnavailableError] * 2
        assert len(answers) - len(failed) == 287
        assert exchange.rest_calls["all tickers"] == 1
        assert exchange.rest_calls["ticker"] == 0, "the one answer tells who has none"


async def test_a_critical_call_goes_at_once_and_alone_and_serves_who_waits(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        normal = start(router, "KRW-BTC", "KRW-XRP")
        critical = start(router, "KRW-BTC", priority=Priority.CRITICAL)
        await asyncio.gather(normal, critical)
        assert sorted(exchange.asked_for) == [("KRW-BTC",), ("KRW-XRP",)]


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW])
async def test_calls_that_are_let_in_a_few_at_a_time_are_one_request_too(
    open_router: OpenRouter, exchange: FakeExchange, priority: Priority
) -> None:
    exchange.listed = [f"KRW-A{number}" for number in range(90)]
    async with open_router() as router:
        calls = []
        for at in range(0, 90, 16):
            calls += [start(router, code, priority=priority) for code in exchange.listed[at:][:16]]
            await asyncio.sleep(0)
        await asyncio.gather(*calls)
        assert [len(codes) for codes in exchange.asked_for] == [90]


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW])
@pytest.mark.parametrize(("turn_ms", "turns"), [(0, 64), (0.1, 64), (5, 4), (100, 1)])
async def test_what_comes_a_few_at_a_time_gathers_for_so_many_turns_and_so_long_at_most(
    open_router: OpenRouter, exchange: FakeExchange, priority: Priority, turn_ms: float, turns: int
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteeredLoop)
    exchange.listed = [f"KRW-A{number}" for number in range(90)]
    async with open_router() as router:
        calls = []
        for code in exchange.listed:
            calls.append(start(router, code, priority=priority))
            await asyncio.sleep(0)
            loop.leap(turn_ms / 1_000)
        await asyncio.gather(*calls)
        assert turns <= len(exchange.asked_for[0]) <= turns + 2, "what begins it and ends it, too"


@pytest.mark.parametrize("priority", Priority)
async def test_a_request_that_waits_for_the_limit_takes_further_codes_along(
    open_router: OpenRouter, exchange: FakeExchange, priority: Priority
) -> None:
    exchange.listed = [f"KRW-A{number}" for number in range(60)]
    async with open_router(symbols_per_request=30) as router:
        calls = []
        for code in exchange.listed:
            calls.append(start(router, code, priority=priority))
            for _ in range(5):
                await asyncio.sleep(0)
        answers = await asyncio.gather(*calls)
        assert [answer.data[0].symbol for answer in answers] == exchange.listed
        assert len(exchange.asked_for) <= 14, "what the window lets go at once, and four after it"
        assert max(map(len, exchange.asked_for)) <= 30


async def test_critical_calls_beyond_the_two_that_fly_alone_share_a_request(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.listed = [f"KRW-A{number:03}" for number in range(289)]
    exchange.untraded = {"KRW-A005"}
    async with open_router() as router:
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(
            *(start(router, code, priority=Priority.CRITICAL) for code in exchange.listed),
            return_exceptions=True,
        )
        assert asyncio.get_running_loop().time() - began < 1.0, "nobody waited for the limit"
        assert [type(one) for one in answers if isinstance(one, BaseException)] == [
            DataUnavailableError
        ]
        assert [len(codes) for codes in exchange.asked_for] == [1, 1, 0], "two, and all tickers"
        assert exchange.rest_calls["all tickers"] == 1


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL, Priority.LOW])
async def test_a_screener_with_a_call_for_each_market_costs_one_request_at_any_priority(
    open_router: OpenRouter, exchange: FakeExchange, priority: Priority
) -> None:
    exchange.listed = [f"KRW-A{number:03}" for number in range(289)]
    async with open_router() as router:
        coordinator = Coordinator(router, clock=exchange.clock, rng=Random(1))
        calls = []
        for number, code in enumerate(exchange.listed, start=1):
            request = ask(TICKER, code, priority=priority)
            calls.append(asyncio.create_task(coordinator.fetch(request)))
            if number % 16 == 0 and priority > Priority.HIGH:  # as the bus lets them begin
                await asyncio.sleep(0)
        answers = await asyncio.gather(*calls)
        assert [answer.data[0].symbol for answer in answers] == exchange.listed
        assert exchange.rest_calls["all tickers"] + exchange.rest_calls["ticker"] <= 3
        await coordinator.stop()


async def test_who_asks_for_what_was_just_given_up_has_its_own_request(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        for _ in range(2):
            first = start(router, "KRW-BTC", priority=Priority.CRITICAL)
            await asyncio.sleep(0)
            first.cancel()
            second = start(router, "KRW-BTC", priority=Priority.CRITICAL)
            assert (await second).data[0].symbol == "KRW-BTC"


async def test_who_asks_for_what_is_on_its_way_joins_it(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.hold_rest()
    async with open_router() as router:
        first = start(router, "KRW-BTC", "KRW-XRP")
        await eventually(lambda: exchange.rest_waiting == 1)
        second = start(router, "KRW-XRP", "KRW-DOGE", priority=Priority.HIGH)
        await eventually(lambda: exchange.rest_waiting == 2)
        exchange.answer_rest()
        await asyncio.gather(first, second)
        assert exchange.asked_for == [("KRW-BTC", "KRW-XRP"), ("KRW-DOGE",)]


async def test_critical_does_not_rely_on_what_another_one_has_sent(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.hold_rest()
    async with open_router() as router:
        first = start(router, "KRW-BTC", "KRW-XRP")
        await eventually(lambda: exchange.rest_waiting == 1)
        critical = start(router, "KRW-XRP", priority=Priority.CRITICAL)
        await eventually(lambda: exchange.rest_waiting == 2)
        exchange.answer_rest()
        await asyncio.gather(first, critical)
        assert exchange.asked_for == [("KRW-BTC", "KRW-XRP"), ("KRW-XRP",)]


async def test_one_bad_code_fails_only_its_own_caller(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        answers = await asyncio.gather(
            *(start(router, symbol) for symbol in (*exchange.listed, "KRW-GONE")),
            return_exceptions=True,
        )
        assert isinstance(answers[-1], UnknownSymbolError)
        assert all(not isinstance(answer, BaseException) for answer in answers[:-1])


async def test_an_error_reaches_each_waiter_as_its_own(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.fail_next(TransportError("no route"))
    async with open_router() as router:
        errors = await asyncio.gather(
            start(router, "KRW-BTC"), start(router, "KRW-XRP"), return_exceptions=True
        )
        assert [str(error) for error in errors] == ["no route"] * 2
        assert errors[0] is not errors[1]
        answer = await router.fetch(ask(TICKER))  # an error is not kept
        assert isinstance(answer.data[0], Ticker)


async def test_who_leaves_does_not_hurt_the_others_and_the_last_ends_the_request(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.hold_rest()
    async with open_router() as router:
        first, second = start(router, "KRW-BTC"), start(router, "KRW-XRP")
        await eventually(lambda: exchange.rest_waiting == 1)
        first.cancel()
        await asyncio.wait([first])
        assert exchange.rest_waiting == 1
        second.cancel()
        await asyncio.wait([second])
        await eventually(lambda: exchange.rest_waiting == 0)
        again = start(router, "KRW-BTC")
        await eventually(lambda: exchange.rest_waiting == 1)
        exchange.answer_rest()
        await again


async def test_stopping_tells_those_who_wait(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.hold_rest()
    async with open_router() as router:
        waiting = start(router, "KRW-BTC")
        await eventually(lambda: exchange.rest_waiting == 1)
        await router.stop()
        with pytest.raises(ClosedError):
            await waiting
