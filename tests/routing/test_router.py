from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import OpenRouter, running, stream
from tests.routing.fake_exchange import FakeExchange, make_book, make_ticker
from upbit_backbone.errors import (
    ClosedError,
    DataUnavailableError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Ticker, Timeframe
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.routing.router import Router
from upbit_backbone.routing.stream_hub import CHECK_LISTING_S

pytestmark = pytest.mark.steered_time
BTC = "KRW-BTC"
CANDLE, TICKER, TRADE, BOOK = (
    DataType.CANDLE,
    DataType.TICKER,
    DataType.TRADE,
    DataType.ORDERBOOK,
)


def ask(data_type: DataType, *symbols: str, **others: Any) -> BackboneRequest:
    if data_type is CANDLE:
        others = {"timeframe": Timeframe.M1, "count": 200} | others
    return BackboneRequest(data_type, symbols or (BTC,), **others)


async def confirmed_stream(router: Router, data_type: DataType) -> None:
    reader = stream(router, data_type)
    await eventually(lambda: reader.state == "confirmed")


@pytest.mark.parametrize("count", [None, 0, 201, 1_000])
async def test_a_candle_page_the_exchange_would_cut_is_refused(
    open_router: OpenRouter, exchange: FakeExchange, count: int | None
) -> None:
    async with open_router() as router:
        with pytest.raises(InvalidRequestError, match=r"1\.\.200"):
            await router.fetch(ask(CANDLE, count=count))
        assert exchange.rest_calls == {}


@pytest.mark.parametrize("count", [None, 0, 501])
async def test_a_trade_page_the_exchange_would_cut_is_refused(
    open_router: OpenRouter, exchange: FakeExchange, count: int | None
) -> None:
    async with open_router() as router:
        with pytest.raises(InvalidRequestError, match=r"1\.\.500"):
            await router.fetch(ask(TRADE, count=count))


async def test_a_page_of_candles_and_of_trades(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    trades = [exchange.trade(price=price) for price in (10.0, 11.0, 12.0)]
    async with open_router() as router:
        end = datetime(2026, 1, 1, tzinfo=UTC)
        answer = await router.fetch(ask(CANDLE, end_time=end))
        assert (answer.success, answer.metadata.source_layer) == (True, "layer_1")
        assert [candle.close for candle in answer.data] == [12.0]
        answer = await router.fetch(ask(TRADE, count=2))
        assert [trade.sequential_id for trade in answer.data] == [
            trade.sequential_id for trade in (trades[2], trades[1])
        ]
        assert (answer.metadata.cache_hit, answer.metadata.data_count) == (False, 2)


async def test_callers_with_the_same_question_cost_one_request(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    async with open_router() as router:
        request = ask(CANDLE)
        answers = await asyncio.gather(*[router.fetch(request) for _ in range(20)])
        assert exchange.rest_calls == {"candles": 1}
        assert all(answer.data == answers[0].data for answer in answers)
        assert router.status().counters["joined"] == 19


async def test_a_page_asked_for_by_an_earlier_caller_is_as_old_as_that_question(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    exchange.hold_rest()
    async with open_router() as router:
        early = asyncio.create_task(router.fetch(ask(CANDLE)), name="early")
        await eventually(lambda: exchange.rest_waiting == 1)
        late = asyncio.create_task(router.fetch(ask(CANDLE)), name="late")
        await eventually(lambda: router.status().counters["joined"] == 1)
        exchange.answer_rest()
        # What forms when a page is asked for is not proved by a caller who came later.
        assert (await early).metadata.age_s == 0
        age_s = (await late).metadata.age_s
        assert age_s is not None
        assert age_s > 0


async def test_a_ticker_comes_from_the_cache_while_fresh_and_else_by_rest(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router() as router:
        first = await router.fetch(ask(TICKER))
        assert (first.metadata.cache_hit, first.metadata.source) == (False, "rest")
        second = await router.fetch(ask(TICKER))
        assert (second.metadata.cache_hit, second.metadata.source) == (True, "cache")
        assert second.data[0].price == 5.0
        assert exchange.rest_calls == {"ticker": 1}
        await asyncio.sleep(0.001)
        await router.fetch(ask(TICKER, max_age=0.0))
        assert exchange.rest_calls == {"ticker": 2}


async def test_only_what_the_cache_lacks_is_asked_and_the_order_is_kept(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        await router.fetch(ask(TICKER, "KRW-XRP"))
        answer = await router.fetch(ask(TICKER, BTC, "KRW-XRP", "KRW-DOGE"))
        assert [ticker.symbol for ticker in answer.data] == [BTC, "KRW-XRP", "KRW-DOGE"]
        assert not answer.metadata.cache_hit
        assert exchange.rest_calls == {"ticker": 2}


async def test_an_answer_by_rest_never_goes_back_behind_the_stream(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 5.0, AUTUMN_2025_MS + 10))
    async with open_router() as router:
        await confirmed_stream(router, TICKER)
        # REST lags the stream by up to 200 ms.
        exchange.values["ticker", BTC] = make_ticker(BTC, 4.0, AUTUMN_2025_MS)
        answer = await router.fetch(ask(TICKER, max_age=-1.0))
        assert exchange.rest_calls == {"ticker": 1}
        assert answer.data[0].price == 5.0


async def test_a_book_never_goes_back_behind_the_stream(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    newer = make_book(BTC, rows=7, at_ms=AUTUMN_2025_MS + 10)
    exchange.quote(newer)
    async with open_router() as router:
        await confirmed_stream(router, BOOK)
        exchange.values["orderbook", BTC] = make_book(BTC, rows=9, at_ms=AUTUMN_2025_MS)
        answer = await router.fetch(ask(BOOK, max_age=-1.0))
        assert len(answer.data[0].asks) == 7


async def test_a_book_has_the_depth_asked_for_and_is_held_whole(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        short = await router.fetch(ask(BOOK, depth=5))
        whole = await router.fetch(ask(BOOK))
        assert (len(short.data[0].asks), len(short.data[0].bids)) == (5, 5)
        assert short.data[0].total_ask_size == 30
        assert len(whole.data[0].asks) == 30
        assert exchange.rest_calls == {"orderbook": 1}


async def test_a_grouped_book_neither_comes_from_the_cache_nor_goes_there(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        await router.fetch(ask(BOOK, level=10_000))
        assert router.peek(BOOK, BTC, None, None, None, None, 60.0, _now(exchange)) is None
        await router.fetch(ask(BOOK))
        await router.fetch(ask(BOOK, level=10_000))
        assert exchange.rest_calls == {"orderbook": 3}


def _now(exchange: FakeExchange) -> float:
    return exchange.clock.monotonic()


async def test_a_refusal_blocks_its_group_and_no_other(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.fail_next(RateLimitedError("429", retry_after_s=0.3))
    async with open_router() as router:
        with pytest.raises(RateLimitedError):
            await router.fetch(ask(CANDLE))
        started = _now(exchange)
        blocked = asyncio.create_task(router.fetch(ask(CANDLE, priority=Priority.CRITICAL)))
        await router.fetch(ask(TICKER))
        assert not blocked.done()
        await blocked
        assert _now(exchange) - started >= 0.25
        counters = router.status().counters
        assert (counters["refused"], counters["http_429"]) == (1, 1)


async def test_a_critical_caller_takes_the_request_it_joins_to_the_front(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        async with asyncio.TaskGroup() as group:
            for count in range(1, 9):
                group.create_task(router.fetch(ask(CANDLE, count=count, priority=Priority.HIGH)))
            await eventually(lambda: exchange.rest_calls["candles"] == 8)
            low = group.create_task(router.fetch(ask(CANDLE, count=50, priority=Priority.LOW)))
            await eventually(lambda: router.status().counters["waiting"] == 1)
            await router.fetch(ask(CANDLE, count=50, priority=Priority.CRITICAL))
            assert exchange.rest_calls["candles"] == 9
            await low
        assert exchange.rest_calls["candles"] == 9


async def test_no_more_than_eight_requests_leave_at_once_and_critical_still_gets_through(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(router.fetch(ask(CANDLE, count=count, priority=Priority.HIGH)))
                for count in range(1, 12)
            ]
            await eventually(lambda: exchange.rest_calls["candles"] == 8)
            await router.fetch(ask(CANDLE, count=100, priority=Priority.CRITICAL))
            assert exchange.rest_calls["candles"] == 9
            assert router.status().counters["waiting"] == 3
            for call in calls:
                call.cancel()
        assert router.status().counters["waiting"] == 0


@pytest.mark.both_loops
async def test_closing_ends_requests_with_a_closed_error(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.hold_rest()
    async with open_router() as router:
        calls = [asyncio.create_task(router.fetch(ask(CANDLE))) for _ in range(3)]
        await eventually(lambda: exchange.rest_waiting == 1)
        await router.stop()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ClosedError] * 3
        assert exchange.rest_waiting == 0
        with pytest.raises(ClosedError):
            await router.fetch(ask(CANDLE))
        with pytest.raises(ClosedError):
            await router.markets()


async def test_a_cancelled_request_leaves_nothing_behind(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.hold_rest()
    async with open_router() as router:
        call = asyncio.create_task(router.fetch(ask(CANDLE)))
        await eventually(lambda: exchange.rest_waiting == 1)
        call.cancel()
        await asyncio.wait([call])
        await eventually(lambda: exchange.rest_waiting == 0)
        assert running(router) == {"stream hub", "stream tending"}


async def test_peek_answers_from_memory_and_creates_nothing(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        await asyncio.sleep(0)  # the hub has its tasks now
        now = _now(exchange)
        tasks = asyncio.all_tasks()
        for data_type in DataType:
            assert router.peek(data_type, BTC, Timeframe.M1, None, None, 1, 60.0, now) is None
        await router.fetch(ask(TICKER))
        held = router.peek(TICKER, BTC, None, None, None, None, 60.0, now)
        assert isinstance(held, Ticker)
        assert held.price == 1.0
        assert router.peek(TICKER, BTC, None, None, None, None, 5.0, now + 10) is None
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks
        assert exchange.rest_calls == {"ticker": 1}


async def test_the_market_list_is_asked_again_after_its_time(
    open_router: OpenRouter, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_router() as router:
        lists = await asyncio.gather(router.markets(), router.markets())
        assert lists[0] == lists[1] == await router.markets()
        assert exchange.rest_calls == {"market": 1}
        real = exchange.clock.monotonic
        monkeypatch.setattr(exchange.clock, "monotonic", lambda: real() + 601)
        exchange.listed.append("KRW-NEW")
        assert [market.symbol for market in (await router.markets()).markets][-1] == "KRW-NEW"


async def test_an_empty_list_of_markets_is_none_and_ends_no_stream(
    open_router: OpenRouter, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_router() as router:
        listed, exchange.listed = exchange.listed, []
        with pytest.raises(ProtocolError, match="came empty"):
            await router.markets()
        exchange.listed = listed
        known = await router.markets()
        assert [market.symbol for market in known.markets] == listed, "it is asked at once"
        assert exchange.rest_calls == {"market": 2}
        reader = stream(router, TICKER)
        exchange.listed = []
        real = exchange.clock.monotonic
        monkeypatch.setattr(exchange.clock, "monotonic", lambda: real() + CHECK_LISTING_S)
        await router._hub._check_listing()
        assert exchange.rest_calls["market"] == 3
        assert reader.state != "closed"
        assert await router.markets() == known, "the former list is kept"
        exchange.listed = ["KRW-OTHER"]
        await router._hub._check_listing()
        with pytest.raises(DataUnavailableError, match="not listed on the exchange any more"):
            await anext(reader)


async def test_status_tells_whether_the_exchange_is_reached(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        assert router.status().health == "healthy"
        exchange.fail_next(TransportError("no route"))
        with pytest.raises(TransportError):
            await router.fetch(ask(CANDLE))
        assert (router.status().health, router.status().reason) == ("down", "no route")
        assert not router.reachable
        await router.fetch(ask(CANDLE))
        assert router.status().health == "healthy"
        await router.stop()
        assert router.status().health == "down"


@pytest.mark.parametrize(
    "answer", [UnknownSymbolError("KRW-NONE"), RateLimitedError("429", retry_after_s=0.01)]
)
async def test_a_refusing_answer_is_an_answer(
    open_router: OpenRouter, exchange: FakeExchange, answer: Any
) -> None:
    exchange.fail_next(TransportError("no route"), answer)
    async with open_router() as router:
        with pytest.raises(TransportError):
            await router.fetch(ask(CANDLE))
        with pytest.raises(type(answer)):
            await router.fetch(ask(CANDLE))
        assert router.reachable


async def test_nothing_is_answered_before_the_start(exchange: FakeExchange) -> None:
    router = Router(exchange, clock=exchange.clock, rng=Random(1), critical_reserve=2)
    with pytest.raises(ClosedError):
        await router.fetch(ask(CANDLE))
    with pytest.raises(ClosedError):
        router.subscribe(ask(TICKER))
    await router.stop()
