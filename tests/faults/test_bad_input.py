"""What callers and exchanges should not do, and what becomes of the others when they do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.eventually import eventually
from tests.faults.conftest import OpenHouse
from tests.faults.house import BTC, ETH, START_MS, Following, House, all_at_once
from tests.faults.wire import BINARY, PING, TEXT
from tests.routing.fake_exchange import Impatient
from upbit_backbone import MarketDataAPI
from upbit_backbone.clock import FrozenClock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    SlowConsumerError,
    UnknownSymbolError,
)
from upbit_backbone.models import Gap
from upbit_backbone.protocol import Priority
from upbit_backbone.reader import MAX_UNREAD

TRADE: dict[tuple[str, ...], Any] = {
    ("type", "ty"): "trade",
    ("code", "cd"): BTC,
    ("timestamp", "tms"): START_MS,
    ("trade_date", "td"): "2026-03-04",
    ("trade_time", "ttm"): "22:50:20",
    ("trade_timestamp", "ttms"): START_MS,
    ("trade_price", "tp"): 1.0,
    ("trade_volume", "tv"): 1.0,
    ("ask_bid", "ab"): "ASK",
    ("prev_closing_price", "pcp"): 1.0,
    ("change", "c"): "EVEN",
    ("change_price", "cp"): 0.0,
    ("sequential_id", "sid"): 17_726_646_200_000_000,
    ("stream_type", "st"): "REALTIME",
}
"""By its names in full and in short: whichever format is asked for, it reads as one."""


def trade_frame(**changes: Any) -> bytes:
    """A trade that nobody made, with other values under some of its full names."""
    row = {name: changes.get(names[0], value) for names, value in TRADE.items() for name in names}
    return json.dumps(row).encode()


# Symbols


@pytest.mark.parametrize(
    ("symbol", "closest"),
    [("BTC-KRW", BTC), ("KRW-BTCC", BTC), ("krw-btc", BTC), ("BTC", BTC), ("KRW-ETTH", ETH)],
)
async def test_a_symbol_that_is_not_listed_is_refused_with_the_closest_ones(
    open_house: OpenHouse, symbol: str, closest: str
) -> None:
    async with open_house() as house:
        api, asked = house.api, (await house.control())["served"]
        calls: list[Callable[[], Any]] = [
            lambda: api.stream_ticker(symbol),
            lambda: api.stream_trades(symbol, policy="all"),
            lambda: api.stream_orderbook(symbol),
            lambda: api.stream_candles(symbol, "1m"),
        ]
        for call in calls:
            with pytest.raises(UnknownSymbolError, match=closest) as caught:
                call()
            assert closest in caught.value.suggestions
            assert "\n" not in str(caught.value)
        answers: list[Callable[[], Awaitable[Any]]] = [
            lambda: api.get_ticker_data(symbol, Priority.CRITICAL),
            lambda: api.get_orderbook_data(symbol),
            lambda: api.get_trade_data(symbol),
            lambda: api.get_candle_data(symbol, "1m"),
        ]
        for answer in answers:
            with pytest.raises(UnknownSymbolError, match=closest):
                await answer()
        assert (await house.control())["served"] == asked, "nothing was asked for it"
        assert house.wire.accepted == 0


@pytest.mark.slow
async def test_a_stream_of_a_market_that_is_delisted_ends_with_the_reason(
    open_house: OpenHouse,
) -> None:
    minute_ms = START_MS // 60_000 * 60_000
    delisting = {
        "type": "delisting",
        "symbol": ETH,
        "at": utc_datetime(minute_ms + 60_000).isoformat(),
        "announced": utc_datetime(minute_ms).isoformat(),
    }
    async with open_house(start_ms=minute_ms + 58_000, events=[delisting]) as house:
        await house.ready(ETH)
        going = house.api.stream_ticker(ETH)
        first = await anext(going)
        assert (first.state, first.delisting_date is not None) == ("ACTIVE", True)
        staying = await house.follow()

        async def read() -> None:
            async for _ in going:
                pass

        await eventually(lambda: house.simulator.now_ms > minute_ms + 60_000)
        house.wire.cut()
        with pytest.raises(DataUnavailableError, match="KRW-ETH"):
            async with asyncio.timeout(60):
                await read()
        assert going.state == "closed"
        assert ETH in going.reason
        await house.more(staying)
        await house.is_exact(staying)


# Readers


async def test_a_reader_that_never_reads_is_ended_and_the_others_get_everything(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        one = await house.follow()
        sleeping = house.api.stream_trades(BTC, policy="all")
        conflated = house.api.stream_trades(BTC)
        await eventually(lambda: sleeping.state == "confirmed")
        for number in range(MAX_UNREAD + 2_000):
            house.wire.put(trade_frame(sequential_id=17_726_646_200_000_000 + number))
            if number % 500 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: sleeping.state == "closed")
        assert "unread" in sleeping.reason
        assert (await anext(conflated)).symbol == BTC
        for _ in range(MAX_UNREAD):
            await anext(sleeping)  # what it had is given to it first
        with pytest.raises(SlowConsumerError, match="read faster"):
            await anext(sleeping)
        seen = len(one.trades)
        await eventually(lambda: len(one.trades) > seen)
        assert one.stream.state == "confirmed"
        assert one.error is None
        assert one.gaps == []


def named_tasks() -> Counter[str]:
    """What runs; the simulator's HTTP server has tasks without a name."""
    names = (task.get_name() for task in asyncio.all_tasks())
    return Counter(name for name in names if not name.startswith("Task-"))


async def test_cancelled_readers_leave_nothing_behind_and_disturb_nobody(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        await house.ready(ETH)
        one = await house.follow()
        tasks = named_tasks()
        opening: dict[str, Callable[[str], Any]] = {
            "ticker": house.api.stream_ticker,
            "book": house.api.stream_orderbook,
            "trades": lambda symbol: house.api.stream_trades(symbol, policy="all"),
            "candles": lambda symbol: house.api.stream_candles(symbol, "1s", policy="all"),
        }

        async def read(symbol: str, kind: str) -> None:
            async with opening[kind](symbol) as stream:
                async for _ in stream:
                    pass

        for pause_s in (0.0, 0.01, 0.1, 0.3):
            readers = [
                asyncio.create_task(read(symbol, kind), name="cancelled reader")
                for symbol in (BTC, ETH)
                for kind in opening
            ]
            await asyncio.sleep(pause_s)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        await eventually(lambda: named_tasks() <= tasks)
        await eventually(lambda: house.wire.codes("orderbook") == [])
        await house.is_exact(one)
        assert house.wire.accepted == 1


async def test_hundreds_of_readers_of_one_symbol_are_one_subscription(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        one = await house.follow()
        requests = len(house.wire.requests)
        streams = [house.api.stream_trades(BTC, policy="all") for _ in range(300)]
        followed = [Following(BTC, stream) for stream in streams]
        for following in followed:
            house.own(asyncio.create_task(following.read(), name="one of many"))
        await eventually(lambda: all(len(following.trades) >= 5 for following in followed))
        assert len(house.wire.requests) == requests
        house.wire.cut()
        await house.more(one, 5)
        await house.is_exact(one, followed[0], followed[-1])
        last = [following.trades[-1] for following in followed]
        assert len({trade.sequential_id for trade in last}) == 1
        for stream in streams:
            stream.close()
        await eventually(lambda: all(following.ended for following in followed))
        await house.more(one)


async def test_closing_the_service_under_its_readers_ends_them_by_name(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        api = house.api
        streams = [
            api.stream_ticker(BTC),
            api.stream_orderbook(BTC),
            api.stream_trades(BTC, policy="all"),
            api.stream_trades(BTC),
            api.stream_candles(BTC, "1s"),
            api.stream_ticker(ETH),
        ]

        async def read(stream: Any) -> None:
            async for _ in stream:
                pass

        reading = [asyncio.create_task(read(stream), name="under closing") for stream in streams]
        await eventually(lambda: streams[0].state == "confirmed")
        async with asyncio.timeout(3):
            await house.manager.shutdown()
            ended = await asyncio.gather(*reading, return_exceptions=True)
        assert [type(error) for error in ended] == [ClosedError] * len(streams)
        assert {stream.state for stream in streams} == {"closed"}
        with pytest.raises(ClosedError):
            api.stream_ticker(BTC)
        await eventually(lambda: house.wire.open == 0)


# Frames


HOSTILE_FRAMES: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"{",
    "a zero byte": b"\0",
    "binary noise": bytes(range(256)) * 40,
    "text that is no UTF-8": trade_frame().replace(b"KRW-BTC", b"\xff\xfe"),
    "half a message": trade_frame()[:90],
    "two messages": trade_frame() * 2,
    "an array": b"[" + trade_frame() + b"]",
    "deep nesting": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a number": b"17",
    "a number of many digits": b"9" * 100_000,
    "null": b"null",
    "a text": b'"trade"',
    "an empty object": b"{}",
    "an unknown type": trade_frame(type="earthquake"),
    "a type that is no text": trade_frame(type=17),
    "no code": b'{"type":"trade","ty":"trade"}',
    "a code of a megabyte": trade_frame(code="K" * 1_000_000),
    "a code nobody asked for": trade_frame(code="KRW-NONE"),
    "a price of text": trade_frame(trade_price="cheap"),
    "a price that is no number": trade_frame(trade_price="NaN"),
    "NaN": trade_frame(trade_price=float("nan")),
    "infinity": trade_frame(trade_price="Infinity"),
    "a price too large": trade_frame(trade_price=17).replace(b"17,", b"1e999,"),
    "a null price": trade_frame(trade_price=None),
    "an id too large": trade_frame(sequential_id=1 << 70),
    "an id of text": trade_frame(sequential_id="one"),
    "a stamp before all time": trade_frame(trade_timestamp=-(1 << 62)),
    "a stamp after all time": trade_frame(trade_timestamp=1 << 62),
    "a stamp that is a date": trade_frame(trade_timestamp="2026-03-04"),
    "a side nobody is on": trade_frame(ask_bid="LEFT"),
    "an error": b'{"error":{"name":"INVALID_PARAM","message":"' + b"x" * 10_000 + b'"}}',
    "an error without a name": b'{"error":{}}',
    "an error of another type": b'{"error":17}',
    "a sign of life": b'{"status":"UP"}',
    "blanks": b" " * 1_000_000,
    "more than a frame may have": b" " * 5_000_000,
}


READ_AS_TRADES = ("an id too large", "a stamp after all time")
"""Nothing says that nobody made them; a stamp is mended, and orders nothing."""


async def test_no_frame_brings_the_streams_down_or_gets_through(open_house: OpenHouse) -> None:
    async def sent(names: tuple[str, ...], folder: str) -> None:
        async with open_house(folder=folder, rng=Impatient()) as house:
            one = await house.follow()
            for number, name in enumerate(names):
                house.wire.put(HOSTILE_FRAMES[name], TEXT if number % 4 == 0 else BINARY)
                try:
                    await house.more(one)
                    assert name in READ_AS_TRADES or one.trades[-1].price != 1.0
                except AssertionError as error:
                    error.add_note(f"frame: {name}")
                    raise
            await house.is_exact(one)
            invented = sum(trade.price == 1.0 for trade in one.trades)
            assert invented <= sum(name in READ_AS_TRADES for name in names)
            assert "unfillable" not in one.gaps

    names = tuple(HOSTILE_FRAMES)
    parts = [names[first::6] for first in range(6)]
    await all_at_once({", ".join(part): sent(part, part[0]) for part in parts})


async def test_a_flood_of_hostile_frames_does_not_make_a_storm_of_reconnects(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient()) as house:
        one = await house.follow()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while loop.time() < began_s + 2.2:
            house.wire.put(b"\xff")
            await asyncio.sleep(0.01)
        at_s = house.wire.accepted_at_s
        assert all(later - at > 0.9 for at, later in zip(at_s, at_s[5:], strict=False))
        await house.more(one)
        await house.is_exact(one)


# The end


async def _during_backoff(house: House, one: Following) -> None:
    house.wire.cut()
    await eventually(lambda: one.stream.state == "stale")


async def _during_a_handshake(house: House, one: Following) -> None:
    house.wire.hold_next("upgrade")
    house.wire.cut()
    await eventually(lambda: house.wire.met == ["upgrade"])


async def _during_a_connect_that_hangs(house: House, one: Following) -> None:
    house.wire.hold_next("connect")
    house.wire.cut()
    await eventually(lambda: house.wire.met == ["connect"])


async def _during_a_resubscription(house: House, one: Following) -> None:
    house.wire.hold_next("request")
    house.wire.cut()
    await eventually(lambda: house.wire.met == ["request"])


async def _before_the_first_snapshot(house: House, one: Following) -> None:
    house.wire.hold_next("answer")
    house.wire.cut()
    await eventually(lambda: house.wire.met == ["answer"])


async def _during_a_fill(house: House, one: Following) -> None:
    house.strike("hang group=trades")
    house.wire.cut()
    await eventually(lambda: house.struck() >= 1)


async def _during_a_fill_that_fails(house: House, one: Following) -> None:
    house.strike("503 group=trades")
    house.wire.cut()
    await eventually(lambda: house.struck() >= 2)


async def _during_a_poll(house: House, one: Following) -> None:
    house.api.stream_ticker(BTC)
    house.wire.hold_next("connect")
    house.wire.cut()
    house.strike("hang group=trades", "hang group=ticker")
    await eventually(lambda: house.struck() >= 1, timeout=10.0)


async def _during_a_block(house: House, one: Following) -> None:
    house.strike("418 group=trades s=30 count=1")
    house.wire.cut()
    await eventually(lambda: house.struck() == 1)


async def _in_a_partition(house: House, one: Following) -> None:
    house.wire.hold()
    await eventually(lambda: house.wire.sent[PING] >= 1)


async def _during_calls(house: House, one: Following) -> None:
    house.strike("hang group=candles", "hang group=orderbook", "hang group=ticker")

    async def ask(work: Awaitable[Any]) -> None:
        with pytest.raises(BackboneError):
            await work

    for work in (
        house.api.get_candle_data(ETH, "1m", count=1_000),
        house.api.get_candle_data(ETH, "3m", count=1_000, priority=Priority.LOW),
        house.api.get_orderbook_data(ETH),
        house.api.get_ticker_data(ETH, Priority.CRITICAL),
    ):
        house.own(asyncio.create_task(ask(work), name="under shutdown"))
    await eventually(lambda: house.struck() >= 3)


AT: dict[str, Callable[[House, Following], Awaitable[None]]] = {
    "backoff": _during_backoff,
    "connect": _during_a_connect_that_hangs,
    "handshake": _during_a_handshake,
    "resubscription": _during_a_resubscription,
    "snapshot": _before_the_first_snapshot,
    "fill": _during_a_fill,
    "failing fill": _during_a_fill_that_fails,
    "poll": _during_a_poll,
    "block": _during_a_block,
    "partition": _in_a_partition,
    "calls": _during_calls,
}


async def test_the_service_ends_at_once_in_the_middle_of_everything(
    open_house: OpenHouse,
) -> None:
    async def ended(moment: str) -> None:
        backoff_s = 30.0 if moment == "backoff" else 0.0
        async with open_house(folder=moment, rng=Impatient(backoff_s)) as house:
            one = await house.follow()
            await AT[moment](house, one)
            async with asyncio.timeout(3):
                await house.manager.shutdown()
            await eventually(lambda: one.ended)
            assert isinstance(one.error, ClosedError)
            house.wire.release()
            await eventually(lambda: house.wire.open == 0)
            gaps = [value for value in one.values if isinstance(value, Gap)]
            assert all(gap.state == "open" for gap in gaps)

    await all_at_once({moment: ended(moment) for moment in AT})


async def test_a_quiet_service_ends_at_once(open_house: OpenHouse) -> None:
    async with open_house(clock=FrozenClock(START_MS)) as house:
        api: MarketDataAPI = house.api
        async with api.stream_orderbook(BTC) as books:
            await anext(books)
            async with asyncio.timeout(3):
                await house.manager.shutdown()
            with pytest.raises(ClosedError):
                await anext(books)
