"""Faults on purpose: whom they strike, and what a client meets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import pairwise
from time import perf_counter
from typing import Any

import aiohttp
import pytest
import websockets

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.worlds import Caller
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.faults import (
    KINDS,
    ActiveFault,
    Fault,
    Faults,
    parse_fault,
    read_fault,
)
from upbit_backbone.simulator.settings import SimulatorSettings

CANDLES = "/candles/minutes/1"
BTC, ETH = "KRW-BTC", "KRW-ETH"
PLAIN = {"Accept-Encoding": "identity"}

pytestmark = pytest.mark.usefixtures("shared_tables")


async def texts(simulator: Simulator, caller: Caller, path: str, **query: str | int) -> bytes:
    """The body of an answer, whatever it is."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(simulator.rest_url + path, params=query, headers=PLAIN) as response,
    ):
        return await response.read()


async def status(simulator: Simulator, path: str, **query: str | int) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(simulator.rest_url + path, params=query) as response,
    ):
        return response.status, response.content_type


def strike(simulator: Simulator, text: str) -> int:
    """Add a fault, written as on the command line."""
    return simulator.faults.add(parse_fault(text, simulator.now_ms))


def fired(simulator: Simulator) -> list[int]:
    return [active.fired for active in simulator.faults]


# Whom a fault strikes


async def test_a_fault_strikes_its_group_alone(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "503 group=ticker")
    assert await status(simulator, "/ticker", markets=BTC) == (503, "text/html")
    assert (await caller.get("/orderbook", markets=BTC)).status == 200
    assert fired(simulator) == [1]


async def test_a_fault_strikes_calls_about_its_market_alone(
    simulator: Simulator, caller: Caller
) -> None:
    strike(simulator, f"empty symbol={ETH}")
    assert await caller.rows("/ticker", markets=BTC)
    assert await caller.rows("/ticker", markets=f"{BTC},{ETH}") == []
    assert await caller.rows(CANDLES, market=ETH.lower()) == []
    assert fired(simulator) == [2]


async def test_a_fault_strikes_so_many_times(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "empty count=2")
    sizes = [len(await caller.rows("/ticker", markets=BTC)) for _ in range(4)]
    assert sizes == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "bounds",
    [
        "from=10 until=20",
        "from=+10 until=+20",
        "from=2025-09-15T00:00:10Z until=2025-09-15T00:00:20",
    ],
)
async def test_a_fault_strikes_at_its_time(
    simulator: Simulator, caller: Caller, clock: ManualClock, bounds: str
) -> None:
    strike(simulator, f"empty {bounds}")
    struck = []
    for _ in range(5):
        struck.append(await caller.rows("/ticker", markets=BTC) == [])
        clock.advance(5)
    assert struck == [False, False, True, True, False]


def strikes(fault: Fault, number: int, times: int) -> list[bool]:
    active = ActiveFault(number, fault)
    return [active.strike() is not None for _ in range(times)]


def test_a_rate_is_a_draw_that_can_be_repeated() -> None:
    often = Fault(kind="empty", rate=0.25, seed=7)
    first = strikes(often, 1, 4_000)
    assert first == strikes(often, 1, 4_000)
    assert 0.22 < sum(first) / len(first) < 0.28
    assert first != strikes(Fault(kind="empty", rate=0.25, seed=8), 1, 4_000)
    assert first != strikes(often, 2, 4_000)
    assert not any(strikes(Fault(kind="empty", rate=0.0), 1, 1_000))
    assert all(strikes(Fault(kind="empty"), 1, 1_000))


async def test_faults_given_at_the_start_strike_until_cleared(clock: ManualClock) -> None:
    faults = [Fault(kind="empty", group="ticker"), Fault(kind="empty", group="orderbook")]
    async with Simulator(clock=clock, faults=faults) as simulator, aiohttp.ClientSession() as http:
        caller = Caller(simulator, http)
        first, _ = (active.number for active in simulator.faults)
        assert simulator.faults.clear(first)
        assert not simulator.faults.clear(first)
        assert await caller.rows("/ticker", markets=BTC)
        assert await caller.rows("/orderbook", markets=BTC) == []
        simulator.faults.clear()
        assert await caller.rows("/orderbook", markets=BTC)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no fault is called ''"),
        ("earthquake", "no fault is called 'earthquake': expected one of latency, 429"),
        ("429 count", "has 'count': expected KIND key=value"),
        ("429 count=0", "count of fault '429' was 0: expected a whole number of 1 or more"),
        ("429 count=many", "count of fault '429' was 'many': expected a whole number"),
        ("429 rate=1.5", "rate of fault '429' was 1.5: expected a probability of 0 to 1"),
        ("429 rate=nan", "rate of fault '429' was nan: expected a probability"),
        ("429 group=orders", "group of fault '429' was 'orders': expected one of market"),
        ("429 bytes=3", "bytes of fault '429' was 3: expected no such parameter; it has none"),
        ("429 color=red", "fault '429' has no 'color': expected group, symbol"),
        ("latency ms=-1", "ms of fault 'latency' was -1.0: expected a number of 0 or more"),
        ("truncated variant=top", "variant of fault 'truncated' was 'top': expected one of body"),
        ("empty until=soon", "until of fault 'empty' was 'soon': expected seconds from now"),
        ("stall", "symbol of fault 'stall' was None: expected the market"),
        (
            "stall symbol=A group=ticker",
            "was 'ticker': expected one of websocket",
        ),
        (
            "empty group=websocket",
            "was 'websocket': expected one of market, ",
        ),
        ("refused group=ticker", "group of fault 'refused' was 'ticker': expected none"),
        ("handshake-429 group=ticker", "was 'ticker': expected one of websocket"),
        ("empty type=trade", "type of fault 'empty' was 'trade': expected none"),
        ("slow bytes=0", "bytes of fault 'slow' was 0: expected a whole number of 1"),
    ],
)
def test_what_is_no_fault_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_fault(text, 0)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_and_command_line_mean_the_same() -> None:
    written = parse_fault("late symbol=KRW-BTC ms=50 rate=0.5 count=3 until=2 seed=9", 1_000)
    words = {
        "kind": "late",
        "symbol": BTC,
        "ms": 50,
        "rate": 0.5,
        "count": 3,
        "until": 2,
        "seed": 9,
    }
    assert read_fault(words, 1_000) == written
    assert written.until_ms == 3_000
    with pytest.raises(InvalidRequestError, match="count of fault '429' was True"):
        read_fault({"kind": "429", "count": True}, 0)
    with pytest.raises(InvalidRequestError, match="a fault needs its kind"):
        read_fault({"count": 3}, 0)


# Calls


async def test_a_call_can_be_late(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "latency ms=60 jitter_ms=60 count=3")
    loop = asyncio.get_running_loop()
    took_s = []
    for _ in range(4):
        began = loop.time()
        await caller.rows("/ticker", markets=BTC)
        took_s.append(loop.time() - began)
    assert min(took_s[:3]) >= 0.059
    assert len({round(took, 3) for took in took_s[:3]}) > 1
    assert took_s[3] < 0.06


async def test_a_429_comes_though_nothing_was_asked(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "429 group=candles count=1")
    answer = await caller.get(CANDLES, market=BTC)
    assert answer.error == (429, 429, "Too many requests")
    assert answer.headers["Remaining-Req"] == "group=candles; min=600; sec=0"
    assert (await caller.get(CANDLES, market=BTC)).headers["Remaining-Req"].endswith("sec=9")


async def test_a_418_bans_for_its_time(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    strike(simulator, "418 s=30 group=candles count=1")
    answer = await caller.get(CANDLES, market=BTC)
    assert answer.error[:2] == (418, 418)
    assert "30 seconds" in answer.error[2]
    clock.advance(29)
    assert (await caller.get("/ticker", markets=BTC)).status == 418
    clock.advance(1)
    assert (await caller.get("/ticker", markets=BTC)).status == 200


@pytest.mark.parametrize("number", [500, 502, 503, 504])
async def test_a_server_error_is_json_or_the_page_of_a_proxy(
    simulator: Simulator, caller: Caller, number: int
) -> None:
    strike(simulator, str(number))
    kind = "application/json" if number == 500 else "text/html"
    assert await status(simulator, "/ticker", markets=BTC) == (number, kind)
    assert (await status(simulator, "/nowhere"))[0] == 404


async def test_a_body_can_end_in_the_middle(simulator: Simulator, caller: Caller) -> None:
    whole = await texts(simulator, caller, "/ticker", markets=BTC)
    strike(simulator, "truncated count=1")
    assert await texts(simulator, caller, "/ticker", markets=BTC) == whole[: len(whole) // 2]
    strike(simulator, "truncated count=1 variant=connection")
    with pytest.raises(aiohttp.ClientPayloadError):
        await texts(simulator, caller, "/ticker", markets=BTC)
    assert await texts(simulator, caller, "/ticker", markets=BTC) == whole


async def test_json_can_be_malformed(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "malformed count=1")
    with pytest.raises(json.JSONDecodeError):
        json.loads(await texts(simulator, caller, "/ticker", markets=BTC))
    assert await caller.rows("/ticker", markets=BTC)


async def test_json_can_be_of_other_types(simulator: Simulator, caller: Caller) -> None:
    (true,) = await caller.rows("/ticker", markets=BTC)
    for text in ("wrong-types count=1", "string-numbers count=1"):
        strike(simulator, text)
        (row,) = await caller.rows("/ticker", markets=BTC)
        assert {type(value) for value in row.values()} == {str}
        assert {name: float(row[name]) for name in row if name.endswith("price")} == {
            name: true[name] for name in row if name.endswith("price")
        }
    strike(simulator, "wrong-types variant=null count=1")
    (row,) = await caller.rows("/ticker", markets=BTC)
    assert row["trade_price"] is None
    assert row["market"] == BTC
    strike(simulator, "wrong-types variant=object count=1")
    assert isinstance((await caller.get("/ticker", markets=BTC)).body, dict)


async def test_numbers_in_exponent_form_keep_their_value(
    simulator: Simulator, caller: Caller
) -> None:
    (true,) = await caller.rows("/orderbook", markets=BTC)
    strike(simulator, "exponent-numbers count=1")
    text = await texts(simulator, caller, "/orderbook", markets=BTC)
    assert b"E-" in text
    assert json.loads(text) == [true]


async def test_a_call_can_hang_until_the_caller_goes(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "hang count=1")
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
        with pytest.raises(TimeoutError):
            await session.get(f"{simulator.rest_url}/ticker?markets={BTC}")
    await eventually(lambda: asyncio.all_tasks() <= before)
    assert await caller.rows("/ticker", markets=BTC)


async def test_a_simulator_closes_while_calls_hang(clock: ManualClock) -> None:
    async with aiohttp.ClientSession() as session:
        async with Simulator(clock=clock, faults=[Fault(kind="hang")]) as simulator:
            url = f"{simulator.rest_url}/ticker?markets={BTC}"
            asking = asyncio.create_task(session.get(url), name="asking")
            await eventually(lambda: fired(simulator) == [1])
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_call_can_be_reset(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "drop group=ticker count=1")
    reader, writer = await asyncio.open_connection(*address(simulator))
    writer.write(f"GET /v1/ticker?markets={BTC} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert await caller.rows("/ticker", markets=BTC)


def address(simulator: Simulator) -> tuple[str, int]:
    host, _, port = simulator.rest_url.removeprefix("http://").removesuffix("/v1").partition(":")
    return host, int(port)


async def test_nobody_can_connect_while_connects_are_refused(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    assert await caller.rows("/ticker", markets=BTC)
    strike(simulator, "refused until=10")

    def connects() -> bool:
        with socket.socket() as one:
            return one.connect_ex(address(simulator)) == 0

    await eventually(lambda: not connects())
    assert await caller.rows("/ticker", markets=BTC), "connections that are there stay"
    clock.advance(10)
    await eventually(connects)
    assert fired(simulator) == [1]
    async with websockets.connect(simulator.ws_url):
        pass


async def test_answers_can_be_slow(simulator: Simulator, caller: Caller) -> None:
    size = len(await texts(simulator, caller, "/ticker", markets=BTC))
    strike(simulator, f"slow bytes={4 * size} count=1")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert len(await texts(simulator, caller, "/ticker", markets=BTC)) == size
    assert loop.time() - began > 0.24


@pytest.mark.parametrize(
    ("variant", "told"), [("more", ["14", "13"]), ("less", ["4", "4"]), ("missing", [])]
)
async def test_remaining_req_can_lie(
    simulator: Simulator, caller: Caller, variant: str, told: list[str]
) -> None:
    strike(simulator, f"remaining variant={variant}")
    answers = [await caller.get("/ticker", markets=BTC) for _ in range(2)]
    assert [
        answer.headers["remaining-req"].rpartition("=")[2]
        for answer in answers
        if "remaining-req" in answer.headers
    ] == told


async def test_the_clock_can_be_wrong_and_the_data_is_not(
    simulator: Simulator, caller: Caller
) -> None:
    (true,) = await caller.rows("/ticker", markets=BTC)
    strike(simulator, "wrong-clock s=-90")
    answer = await caller.get("/ticker", markets=BTC)
    date_ms = parsedate_to_datetime(answer.headers["Date"]).timestamp() * 1_000
    assert date_ms == AUTUMN_2025_MS - 90_000
    assert answer.body == [true | {"timestamp": true["timestamp"] - 90_000}]
    simulator.faults.clear()
    candles = await caller.rows(CANDLES, market=BTC, count=9)
    strike(simulator, "wrong-clock s=-90")
    assert await caller.rows(CANDLES, market=BTC, count=9) == candles


@pytest.mark.parametrize("path", [CANDLES, "/trades/ticks"])
async def test_a_page_can_miss_rows_once(
    simulator: Simulator, caller: Caller, clock: ManualClock, path: str
) -> None:
    clock.advance(3_600)
    whole = await caller.rows(path, market=BTC, count=50)
    strike(simulator, "missing-rows rows=4")
    with_hole = await caller.rows(path, market=BTC, count=50)
    assert len(with_hole) == 46
    assert (with_hole[0], with_hole[-1]) == (whole[0], whole[-1])
    assert [row for row in whole if row in with_hole] == with_hole
    assert await caller.rows(path, market=BTC, count=50) == whole


async def test_rest_can_lag_behind(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    clock.advance(3_600)
    then = await caller.rows("/trades/ticks", market=BTC, count=5)
    clock.advance(30)
    now = await caller.rows("/trades/ticks", market=BTC, count=5)
    strike(simulator, "lag ms=30000 count=1")
    assert await caller.rows("/trades/ticks", market=BTC, count=5) == then != now
    assert await caller.rows("/trades/ticks", market=BTC, count=5) == now


# Connections and frames


@asynccontextmanager
async def stream(
    simulator: Simulator, *types: str, codes: tuple[str, ...] = (BTC,), form: str = "DEFAULT"
) -> AsyncIterator[websockets.ClientConnection]:
    """A client that is subscribed in real time only."""
    async with websockets.connect(
        simulator.ws_url, compression=None, max_queue=None, close_timeout=0.2, ping_interval=None
    ) as connection:
        parts = [{"type": type_, "codes": codes, "is_only_realtime": True} for type_ in types]
        await connection.send(json.dumps([{"ticket": "x"}, *parts, {"format": form}]))
        await connection.send('[{"ticket":"there"},{"method":"LIST_SUBSCRIPTIONS"}]')
        await received(connection)  # the request has been read
        yield connection


async def received(connection: websockets.ClientConnection) -> bytes | str:
    async with asyncio.timeout(5):
        return await connection.recv()


async def frames(connection: websockets.ClientConnection, count: int) -> list[Any]:
    return [json.loads(await received(connection)) for _ in range(count)]


async def until_closed(connection: websockets.ClientConnection) -> None:
    while True:
        await received(connection)


async def ids(connection: websockets.ClientConnection, count: int) -> list[int]:
    return [frame["sequential_id"] for frame in await frames(connection, count)]


@asynccontextmanager
async def passing(clock: ManualClock) -> AsyncIterator[None]:
    """Meanwhile time passes, a hundred times as fast as elsewhere."""

    async def pass_() -> None:
        while True:
            await asyncio.sleep(0.01)
            clock.advance(1)

    task = asyncio.create_task(pass_(), name="passing time")
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def live_trades(
    simulator: Simulator, clock: ManualClock, *types: str, form: str = "DEFAULT"
) -> AsyncIterator[websockets.ClientConnection]:
    """A client of KRW-BTC's trades, or other types, while time passes."""
    async with stream(simulator, *types or ("trade",), form=form) as connection, passing(clock):
        yield connection


async def test_a_handshake_can_be_refused_with_429(simulator: Simulator) -> None:
    strike(simulator, "handshake-429 count=1")
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(simulator.ws_url)
    assert caught.value.response.status_code == 429
    async with websockets.connect(simulator.ws_url):
        pass


async def test_a_connection_can_be_reset_without_a_close_frame(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with (
        stream(simulator, "trade") as first,
        stream(simulator, "trade", codes=(ETH,)) as other,
        passing(clock),
    ):
        strike(simulator, f"drop symbol={BTC}")
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await until_closed(first)
        assert caught.value.rcvd is None
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert await frames(other, 3)
        assert fired(simulator) == [1]


async def test_a_connection_can_be_reset_after_a_while(
    simulator: Simulator, clock: ManualClock
) -> None:
    strike(simulator, "drop ms=20000 count=1")
    async with live_trades(simulator, clock) as connection:
        began_ms = clock.now_ms()
        with pytest.raises(websockets.ConnectionClosedError):
            await until_closed(connection)
        assert 20_000 <= clock.now_ms() - began_ms < 40_000


async def test_a_half_open_connection_answers_nothing_and_may_recover(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator, "trade") as connection:
        number = strike(simulator, "half-open")
        await eventually(lambda: fired(simulator) == [1])
        clock.advance(10)
        pong = asyncio.ensure_future(await connection.ping())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.gather(asyncio.shield(pong), connection.recv())
        assert not pong.done()
        assert fired(simulator) == [1], "each connection is asked once"
        simulator.faults.clear(number)
        async with asyncio.timeout(5):
            await pong
        clock.advance(10)
        assert await frames(connection, 1)


async def test_a_simulator_closes_while_connections_are_half_open(clock: ManualClock) -> None:
    async with Simulator(clock=clock, faults=[Fault(kind="half-open")]) as simulator:
        connection = await websockets.connect(simulator.ws_url, close_timeout=0.1)
        loop = asyncio.get_running_loop()
        began = loop.time()
    assert loop.time() - began < 1
    await connection.close()


async def test_one_market_can_stand_still(simulator: Simulator, clock: ManualClock) -> None:
    number = strike(simulator, f"stall symbol={BTC}")
    async with stream(simulator, "trade", codes=(BTC, ETH)) as connection, passing(clock):
        assert {frame["code"] for frame in await frames(connection, 8)} == {ETH}
        simulator.faults.clear(number)
        seen = set[str]()
        while BTC not in seen:
            seen.add(json.loads(await received(connection))["code"])


async def test_frames_can_come_twice(simulator: Simulator, clock: ManualClock) -> None:
    strike(simulator, "duplicate count=3")
    async with live_trades(simulator, clock) as connection:
        counts = Counter(await ids(connection, 8))
    assert sorted(counts.values()) == [1, 1, 2, 2, 2]


async def test_frames_can_change_places(clock: ManualClock) -> None:
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(late_trades=False)) as simulator,
        live_trades(simulator, clock) as connection,
    ):
        seen = await ids(connection, 3)
        strike(simulator, "reorder count=1 type=trade")
        while seen == sorted(seen):
            seen += await ids(connection, 1)
        seen += await ids(connection, 3)
        assert fired(simulator) == [1]
    assert sum(later < earlier for earlier, later in pairwise(seen)) == 1
    assert len(set(seen)) == len(seen)


async def test_trades_can_be_late(clock: ManualClock) -> None:
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(late_trades=False)) as simulator,
        live_trades(simulator, clock) as connection,
    ):
        assert len(await ids(connection, 3)) == 3
        strike(simulator, "late ms=500 count=1")
        await eventually(lambda: fired(simulator) == [1])
        loop = asyncio.get_running_loop()
        began, seen = loop.time(), list[int]()
        while seen == sorted(seen):
            seen += await ids(connection, 1)
        assert 0.4 < loop.time() - began < 3
    assert len(set(seen)) == len(seen)


async def test_garbage_can_come_in_place_of_a_frame(
    simulator: Simulator, clock: ManualClock
) -> None:
    strike(simulator, "garbage count=1")
    async with live_trades(simulator, clock) as connection:
        with pytest.raises(ValueError):  # noqa: PT011 - of decoding or of JSON
            json.loads(await received(connection))
        assert await frames(connection, 2)


async def test_frames_can_be_too_large(simulator: Simulator, clock: ManualClock) -> None:
    strike(simulator, "oversized bytes=300000 count=1")
    async with live_trades(simulator, clock) as connection:
        first = await received(connection)
        assert len(first) == 300_000
        assert json.loads(first)["type"] == "trade"
        assert len(await received(connection)) < 1_000


async def test_stamps_can_be_in_microseconds(simulator: Simulator, clock: ManualClock) -> None:
    strike(simulator, "microseconds type=orderbook")
    async with live_trades(simulator, clock, "trade", "orderbook") as connection:
        digits: dict[str, set[int]] = {}
        while len(digits) < 2:
            (frame,) = await frames(connection, 1)
            digits.setdefault(frame["type"], set()).add(len(str(frame["timestamp"])))
            if frame["type"] == "trade":
                assert len(str(frame["trade_timestamp"])) == 13
    assert digits == {"orderbook": {16}, "trade": {13}}


async def test_the_stamps_of_frames_follow_a_wrong_clock(
    simulator: Simulator, clock: ManualClock
) -> None:
    strike(simulator, "wrong-clock s=3600")
    async with live_trades(simulator, clock, form="SIMPLE") as connection:
        for frame in await frames(connection, 3):
            assert 3_600_000 <= frame["tms"] - frame["ttms"] < 3_630_000


async def test_frames_can_be_text(simulator: Simulator, clock: ManualClock) -> None:
    strike(simulator, "text-frames count=1")
    async with live_trades(simulator, clock) as connection:
        kinds = [type(await received(connection)) for _ in range(2)]
    assert kinds == [str, bytes]


async def test_numbers_of_frames_can_be_strings(simulator: Simulator, clock: ManualClock) -> None:
    strike(simulator, "string-numbers count=1 group=websocket")
    async with live_trades(simulator, clock) as connection:
        strings, numbers = await frames(connection, 2)
    assert {type(value) for value in strings.values()} == {str}
    assert isinstance(numbers["trade_price"], float | int)


@pytest.mark.parametrize("form", ["DEFAULT", "JSON_LIST"])
async def test_a_list_can_hold_several_objects(
    simulator: Simulator, clock: ManualClock, form: str
) -> None:
    strike(simulator, "list-frames rows=3 count=1")
    async with live_trades(simulator, clock, form=form) as connection:
        several, one = await frames(connection, 2)
    assert [frame["type"] for frame in several] == ["trade"] * 3
    assert (len(one) == 1) if form == "JSON_LIST" else (one["type"] == "trade")


async def test_a_connection_can_be_slow(simulator: Simulator, clock: ManualClock) -> None:
    strike(simulator, "slow bytes=4000 group=websocket")
    async with live_trades(simulator, clock) as connection:
        loop = asyncio.get_running_loop()
        began = loop.time()
        size = sum([len(await received(connection)) for _ in range(4)])
        assert loop.time() - began > 0.8 * (size - 600) / 4_000


QUICK: dict[str, dict[str, Any]] = {
    "stall": {"symbol": BTC},
    "slow": {"bytes": 1 << 20},
    "latency": {"ms": 1.0},
    "late": {"ms": 1.0},
}


async def test_every_kind_of_fault_leaves_the_server_standing(clock: ManualClock) -> None:
    async with Simulator(clock=clock) as simulator, aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        for kind in KINDS:
            limits: dict[str, Any] = {"rate": 0.5, "seed": 3, **QUICK.get(kind, {})}
            number = simulator.faults.add(Fault(kind=kind, **limits))
            if kind not in ("hang", "refused"):
                with suppress(aiohttp.ClientError, websockets.WebSocketException, TimeoutError):
                    async with session.get(f"{simulator.rest_url}{CANDLES}?market={BTC}") as answer:
                        await answer.read()
                    # A half-open connection never tells that it read the request.
                    async with (
                        asyncio.timeout(0.5),
                        stream(simulator, "trade", "ticker", "orderbook"),
                    ):
                        clock.advance(5)
                        await asyncio.sleep(0.02)
            simulator.faults.clear(number)
            clock.advance(20)
        await eventually(lambda: not simulator._sessions)
        assert await caller.rows("/ticker", markets=BTC)


# Bounds that hold exactly, strikes that are counted truly, ends that end


async def test_a_connection_is_struck_by_its_exact_market_alone(
    simulator: Simulator, clock: ManualClock
) -> None:
    """Not by one whose name begins alike, nor by one that an earlier request named."""
    async with stream(simulator, "orderbook", codes=("KRW-BTC.5",)) as connection:
        for symbol in ("KRW-BT", "RW-BTC", "BTC", "KRW-BTC.5"):
            strike(simulator, f"drop symbol={symbol}")
        await connection.send(b'[{"ticket":"y"},{"type":"trade","codes":["KRW-ETH"]}]')
        await until_snapshot(connection, ETH)
        strike(simulator, f"drop symbol={BTC}")
        await looked_at(simulator)
        assert fired(simulator) == [0] * 5
        await connection.send(b'[{"ticket":"z"},{"type":"orderbook","codes":["KRW-BTC.1"]}]')
        with pytest.raises(websockets.ConnectionClosedError):
            await until_closed(connection)
        assert fired(simulator) == [0, 0, 0, 0, 1]


async def until_snapshot(connection: websockets.ClientConnection, symbol: str) -> None:
    while json.loads(await received(connection)).get("code") != symbol:
        pass


async def looked_at(simulator: Simulator) -> None:
    """Returns when all connections have met the faults in the book."""
    number = strike(simulator, "slow bytes=1000000000")
    await eventually(
        lambda: all(active.fired for active in simulator.faults if active.number == number)
    )
    simulator.faults.clear(number)


async def test_a_half_open_connection_outlives_the_idle_timeout(clock: ManualClock) -> None:
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(idle_timeout_s=5)) as simulator,
        stream(simulator, "trade", codes=("KRW-NONE",)) as connection,
    ):
        number = strike(simulator, "half-open")
        await eventually(lambda: fired(simulator) == [1])
        for _ in range(2):
            clock.advance(6)
            await asyncio.sleep(0.3)  # the timekeeper looks four times a second
        pong = await connection.ping()
        simulator.faults.clear(number)
        async with asyncio.timeout(5):
            await pong
        clock.advance(6)
        with pytest.raises(websockets.ConnectionClosedError):
            await until_closed(connection)


async def test_a_half_open_connection_that_its_client_leaves_is_forgotten(
    simulator: Simulator,
) -> None:
    strike(simulator, "half-open")
    connection = await websockets.connect(simulator.ws_url, close_timeout=0.05)
    await eventually(lambda: fired(simulator) == [1])
    await connection.send("PING")
    await connection.close()
    await eventually(lambda: not simulator._sessions)
    assert not simulator._stream_faults._sockets


async def test_a_half_open_connection_stays_deaf_whatever_was_sent_before(
    simulator: Simulator,
) -> None:
    async with stream(simulator, "trade", codes=("KRW-NONE",)) as connection:
        strike(simulator, "half-open")
        await eventually(lambda: fired(simulator) == [1])
        pongs = [
            asyncio.ensure_future(await connection.ping(b"%03d" % number + b"x" * 100))
            for number in range(300)
        ]
        await asyncio.sleep(0.1)
        assert not any(pong.done() for pong in pongs)
        simulator.faults.clear()
        async with asyncio.timeout(5):
            await asyncio.gather(*pongs)


async def test_a_slow_connection_is_quick_again_when_the_fault_ends(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator, "trade") as connection:
        number = strike(simulator, "slow bytes=1")
        await eventually(lambda: fired(simulator) == [1])
        clock.advance(10)
        await frames(connection, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.recv()
        simulator.faults.clear(number)
        clock.advance(10)
        assert await frames(connection, 2)


@pytest.mark.parametrize("text", ["latency ms=60000", "slow bytes=1", "hang", "slow bytes=20"])
async def test_who_does_not_wait_for_a_late_answer_leaves_nothing_behind(
    clock: ManualClock, text: str
) -> None:
    """The guards fail this test if the call still waits after the simulator is closed."""
    async with Simulator(clock=clock) as simulator:
        strike(simulator, text)
        _, writer = await asyncio.open_connection(*address(simulator))
        writer.write(f"GET /v1/ticker?markets={BTC} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await eventually(lambda: fired(simulator) == [1])
        writer.transport.abort()
        before = asyncio.all_tasks()
        await eventually(lambda: len(asyncio.all_tasks()) < len(before))


HOLDING = (
    "latency",
    "hang",
    "slow",
    "refused",
    "drop",
    "half-open",
    "late",
    "reorder",
    "list-frames",
)
"""What keeps a call, a connection, a frame or the port."""


async def test_a_simulator_closes_at_once_whatever_fault_is_active(clock: ManualClock) -> None:
    loop = asyncio.get_running_loop()
    for kind in HOLDING:
        async with (
            aiohttp.ClientSession() as session,
            Simulator(clock=clock) as simulator,
        ):
            asking = None
            with suppress(websockets.WebSocketException, OSError):
                connection = await websockets.connect(simulator.ws_url, close_timeout=0)
                await connection.send('[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"]}]')
                simulator.faults.add(Fault(kind=kind))
                url = f"{simulator.rest_url}/ticker?markets={BTC}"
                asking = asyncio.create_task(answered(session, url), name="asking")
                clock.advance(2)
                await asyncio.sleep(0.01)
            began = loop.time()
            await simulator.close()
            assert loop.time() - began < 0.6, kind
            await connection.close()
            if asking is not None:
                await asking


async def answered(session: aiohttp.ClientSession, url: str) -> None:
    with suppress(aiohttp.ClientError):
        async with session.get(url) as response:
            await response.read()


async def test_rows_are_missing_once_on_a_page_that_has_them(
    simulator: Simulator, caller: Caller
) -> None:
    """Neither another group nor a page too short for it uses up the one time."""
    strike(simulator, "missing-rows")
    assert len(await caller.rows("/ticker", markets=BTC)) == 1
    assert len(await caller.rows(CANDLES, market=BTC, count=1)) == 1
    assert (await caller.get(CANDLES, market="KRW-NONE")).status == 404
    assert fired(simulator) == [0]
    assert len(await caller.rows(CANDLES, market=BTC, count=20)) == 17
    assert fired(simulator) == [1]


async def test_a_fault_of_a_type_of_frame_leaves_calls_alone(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    strike(simulator, "string-numbers type=trade")
    (row,) = await caller.rows("/ticker", markets=BTC)
    assert isinstance(row["trade_price"], float)
    async with live_trades(simulator, clock, "trade", "ticker") as connection:
        kinds = dict[str, type]()
        while len(kinds) < 2:
            (frame,) = await frames(connection, 1)
            kinds[frame["type"]] = type(frame["trade_price"])
    assert kinds["trade"] is str
    assert kinds["ticker"] in (int, float)


async def test_without_end_every_second_frame_of_a_market_changes_places(
    clock: ManualClock,
) -> None:
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(late_trades=False)) as simulator,
        live_trades(simulator, clock) as connection,
    ):
        strike(simulator, "reorder")
        seen = await ids(connection, 8)
        assert [*seen[1::2]] < [*seen[::2]]
        assert sorted(seen) == [
            one for pair in zip(seen[1::2], seen[::2], strict=True) for one in pair
        ]
        assert fired(simulator)[0] <= 6


async def test_frames_change_places_with_those_of_their_own_market(
    clock: ManualClock,
) -> None:
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(late_trades=False)) as simulator,
        stream(simulator, "trade", codes=(BTC, ETH)) as connection,
        passing(clock),
    ):
        strike(simulator, f"reorder symbol={BTC} count=1")
        seen: dict[str, list[int]] = {BTC: [], ETH: []}
        while len(seen[BTC]) < 4 or not seen[ETH]:
            (frame,) = await frames(connection, 1)
            seen[frame["code"]].append(frame["sequential_id"])
    assert seen[ETH] == sorted(seen[ETH])
    assert [later < earlier for earlier, later in pairwise(seen[BTC][:4])] == [True, False, False]


async def test_late_frames_are_held_in_bounded_number(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.simulator.stream_faults.MOST_LATE_FRAMES", 3)
    async with Simulator(clock=clock) as simulator, live_trades(simulator, clock) as connection:
        strike(simulator, "late ms=3600000")
        assert await frames(connection, 2)
        assert fired(simulator) == [3]


@pytest.mark.parametrize("variant", ["bid", "ask"])
async def test_a_side_of_a_book_can_be_padded_with_zeros(
    simulator: Simulator, caller: Caller, clock: ManualClock, variant: str
) -> None:
    (true,) = await caller.rows("/orderbook", markets=BTC)
    strike(simulator, f"zero-padded rows=10 variant={variant} count=1")
    assert await caller.rows("/ticker", markets=BTC)
    assert await caller.rows("/orderbook/instruments", markets=BTC)
    (padded,) = await caller.rows("/orderbook", markets=BTC)
    assert fired(simulator) == [1]
    price, size = f"{variant}_price", f"{variant}_size"
    units = true["orderbook_units"]
    assert padded["orderbook_units"] == [
        *units[:20], *({**unit, price: 0, size: 0} for unit in units[20:])
    ]  # fmt: skip
    total = f"total_{variant}_size"
    assert padded[total] == pytest.approx(sum(unit[size] for unit in units[:20]))
    assert {**padded, total: 0, "orderbook_units": 0} == {**true, total: 0, "orderbook_units": 0}
    strike(simulator, f"zero-padded rows=29 variant={variant}")
    async with live_trades(simulator, clock, "trade", "orderbook", form="SIMPLE") as connection:
        while (frame := (await frames(connection, 1))[0])["ty"] != "orderbook":
            pass
    short = variant[0]
    assert [unit[f"{short}p"] > 0 for unit in frame["obu"]] == [True] + [False] * 29
    assert frame[f"t{short}s"] == pytest.approx(frame["obu"][0][f"{short}s"])


async def test_the_snapshot_of_a_book_can_be_stale(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with websockets.connect(simulator.ws_url) as connection:

        async def snapshots(kind: str, *codes: str) -> list[Any]:
            part = {"type": kind, "codes": codes, "is_only_snapshot": True}
            await connection.send(json.dumps([{"ticket": "x"}, part]))
            return await frames(connection, len(codes))

        then = await snapshots("orderbook", BTC)
        clock.advance(143)
        now = await snapshots("orderbook", BTC, ETH)
        strike(simulator, f"stale-book symbol={BTC} count=1")
        assert await snapshots("ticker", BTC)
        stale, fresh = await snapshots("orderbook", BTC, ETH)
        assert [stale] == then
        assert stale["timestamp"] < now[0]["timestamp"] - 100_000
        assert fresh == now[1]
        clock.advance(1)
        assert fired(simulator) == [1]
        assert (await snapshots("orderbook", BTC))[0]["timestamp"] > now[0]["timestamp"] - 60_000


async def test_a_trade_can_come_as_snapshot_and_again_in_real_time(simulator: Simulator) -> None:
    strike(simulator, "duplicate type=trade variant=realtime count=1")
    async with websockets.connect(simulator.ws_url) as connection:
        await connection.send('[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"]}]')
        first, again = await frames(connection, 2)
    assert (first["stream_type"], again["stream_type"]) == ("SNAPSHOT", "REALTIME")
    assert {**first, "stream_type": ""} == {**again, "stream_type": ""}


async def test_connects_are_refused_again_and_again_and_come_back_on_the_same_port(
    simulator: Simulator, clock: ManualClock
) -> None:
    where = address(simulator)

    def connects() -> bool:
        with socket.socket() as one:
            return one.connect_ex(where) == 0

    for _ in range(2):
        number = strike(simulator, "refused")
        await eventually(lambda: not connects())
        simulator.faults.clear(number)
        await eventually(connects)
    assert address(simulator) == where


async def test_a_port_taken_meanwhile_is_listened_on_when_it_is_free(
    simulator: Simulator, caller: Caller
) -> None:
    number = strike(simulator, "refused")
    await eventually(lambda: not simulator._runner or not simulator._runner.addresses)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(address(simulator))
        squatter.listen()
        simulator.faults.clear(number)
        await asyncio.sleep(0.06)
    async with asyncio.timeout(5):
        while True:
            with suppress(aiohttp.ClientError):
                assert await caller.rows("/ticker", markets=BTC)
                break
            await asyncio.sleep(0.01)


async def test_a_429_can_lack_its_remaining_req(simulator: Simulator, caller: Caller) -> None:
    strike(simulator, "429 group=ticker")
    strike(simulator, "remaining variant=missing")
    answer = await caller.get("/ticker", markets=BTC)
    assert answer.status == 429
    assert "remaining-req" not in answer.headers


async def test_faults_strike_each_of_several_connections(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with (
        stream(simulator, "trade") as first,
        stream(simulator, "trade") as second,
        stream(simulator, "trade") as third,
    ):
        strike(simulator, "drop count=2")
        await eventually(lambda: fired(simulator) == [2])
        await looked_at(simulator)
        states = []
        for connection in (first, second, third):
            try:
                async with asyncio.timeout(0.1):
                    await until_closed(connection)
            except websockets.ConnectionClosedError:
                states.append("cut")
            except TimeoutError:
                states.append("open")
        assert sorted(states) == ["cut", "cut", "open"]


# What it costs


def test_without_a_fault_nothing_is_asked(clock: ManualClock) -> None:
    """The gateway and the sockets look at one flag each."""
    faults = Faults(clock)
    assert not (faults.on_calls or faults.on_frames or faults.on_connections)
    began, total = perf_counter(), 0
    for _ in range(100_000):
        total += faults.on_frames
    assert (perf_counter() - began) / 100_000 < 1e-6
    number = faults.add(Fault(kind="empty"))
    assert (faults.on_calls, faults.on_frames) == (True, False)
    faults.clear(number)
    assert not faults.on_calls
