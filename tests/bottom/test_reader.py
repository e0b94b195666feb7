from __future__ import annotations

import asyncio

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import read_now
from tests.routing.fake_exchange import make_ticker, make_trade
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.errors import SlowConsumerError, TransportError
from upbit_backbone.models import Candle, CandleState, Timeframe
from upbit_backbone.protocol import Policy
from upbit_backbone.reader import MAX_CONFLATED, Reader


def new_reader(policy: Policy) -> Reader:
    return Reader(policy, lambda _: None)


def make_candle(minute: int, state: CandleState, close: float = 1.0) -> Candle:
    opened = utc_datetime(AUTUMN_2025_MS + minute * MINUTE_MS)
    return Candle(
        "KRW-BTC", Timeframe.M1, opened, 1, 2, 1, close, 1, 1, state != "forming", state=state
    )


async def test_a_reader_of_all_gets_every_value_in_order() -> None:
    reader = new_reader("all")
    trades = [make_trade("KRW-BTC", AUTUMN_2025_MS, number) for number in range(5)]
    for trade in trades:
        reader.push(trade)
    assert [await anext(reader) for _ in trades] == trades


async def test_a_reader_of_the_latest_gets_the_newest_of_each_symbol() -> None:
    reader = new_reader("latest")
    for price in (1.0, 2.0, 3.0):
        reader.push(make_ticker("KRW-BTC", price))
        reader.push(make_ticker("KRW-XRP", price * 10))
    assert [(value.symbol, value.price) for value in read_now(reader)] == [
        ("KRW-BTC", 3.0),
        ("KRW-XRP", 30.0),
    ]


@pytest.mark.parametrize("policy", ["all", "latest"])
async def test_a_reader_knows_whether_it_was_given_a_value(policy: Policy) -> None:
    reader = new_reader(policy)
    assert not reader.begun
    reader.push(make_ticker("KRW-BTC", 1.0))
    await anext(reader)
    assert reader.begun


async def test_a_reader_of_the_latest_loses_no_symbol_however_many_there_are() -> None:
    reader = new_reader("latest")
    for number in range(289):
        reader.push(make_ticker(f"KRW-{number}", 1.0))
    assert len(read_now(reader)) == 289


async def test_the_busiest_symbol_is_not_passed_over_for_ever() -> None:
    reader = new_reader("latest")
    read = []
    for turn in range(20):
        reader.push(make_ticker(f"KRW-{turn % 10}", turn))
        reader.push(make_ticker("KRW-BTC", turn))
        read.append((await anext(reader)).symbol)
    assert read.count("KRW-BTC") > 1


async def test_a_closed_candle_is_not_lost_behind_the_next_forming_one() -> None:
    reader = new_reader("latest")
    reader.push(make_candle(0, "forming"))
    reader.push(make_candle(0, "closed", close=2.0))
    reader.push(make_candle(1, "forming"))
    reader.push(make_candle(1, "forming", close=3.0))
    assert [(candle.state, candle.close) for candle in read_now(reader)] == [
        ("closed", 2.0),
        ("forming", 3.0),
    ]


async def test_unread_candles_stay_in_order_of_time_and_are_bounded() -> None:
    reader = new_reader("latest")
    for minute in range(100):
        reader.push(make_candle(minute, "closed"))
    reader.push(make_candle(98, "revised"))
    candles = read_now(reader)
    assert len(candles) == MAX_CONFLATED
    times = [candle.open_time for candle in candles]
    assert times == sorted(times)
    assert candles[-2].state == "revised"


async def test_a_reader_too_far_behind_gets_an_error_after_what_it_has_not_read() -> None:
    ended: list[Reader] = []
    reader = Reader("all", ended.append, most_unread=3)
    for number in range(5):
        reader.push(number)
    assert reader.state == "closed"
    assert ended == [reader]
    assert [await anext(reader) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SlowConsumerError):
        await anext(reader)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_closing_ends_the_iteration_of_whoever_waits() -> None:
    reader = new_reader("all")
    values: list[object] = []

    async def read() -> None:
        values.extend([value async for value in reader])

    reading = asyncio.create_task(read())
    reader.push(1)
    await eventually(lambda: not reader.unread)
    reader.close()
    reader.close()
    async with asyncio.timeout(2):
        await reading
    assert values == [1]
    reader.push(2)
    assert not reader.unread


async def test_closing_drops_what_is_unread_and_the_error() -> None:
    reader = new_reader("all")
    reader.push(1)
    reader.fail(TransportError("lost"))
    reader.close()
    assert [value async for value in reader] == []


async def test_an_error_is_raised_to_whoever_waits() -> None:
    reader = new_reader("latest")
    reading = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    reader.fail(TransportError("lost"))
    with pytest.raises(TransportError, match="lost"):
        await reading
    assert reader.reason == "lost"


@pytest.mark.both_loops
async def test_a_reader_whose_waiting_is_cancelled_loses_nothing() -> None:
    reader = new_reader("all")
    got: list[int] = []
    for number in range(50):
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        if number % 2:
            reader.push(number)
            waiting.cancel()
        else:
            waiting.cancel()
            reader.push(number)
        try:
            got.append(await waiting)
        except asyncio.CancelledError:
            got.append(await anext(reader))
    assert got == list(range(50))


async def test_two_who_share_a_reader_both_end() -> None:
    reader = new_reader("all")
    both = [asyncio.ensure_future(anext(reader)) for _ in range(2)]
    await asyncio.sleep(0)
    reader.push("only one gets it")
    await eventually(lambda: any(task.done() for task in both))
    reader.close()
    results = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["StopAsyncIteration", "str"]


async def test_confirmed_is_waited_for_until_it_is_so_or_the_stream_ends() -> None:
    reader = new_reader("all")
    waiting = asyncio.create_task(reader.confirmed())
    reader.mark("stale", "cut off")
    await asyncio.sleep(0)
    assert (waiting.done(), reader.state, reader.reason) == (False, "stale", "cut off")
    reader.mark("confirmed")
    await waiting
    reader.mark("stale")
    again = asyncio.create_task(reader.confirmed())
    await asyncio.sleep(0)
    assert not again.done()
    async with reader:
        pass
    await again
    reader.mark("confirmed")
    assert reader.state == "closed"
