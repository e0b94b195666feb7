"""Limits and bans as a caller of the server meets them; the bookkeeping: `test_limits.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp.test_utils import make_mocked_request

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.simulator.worlds import Caller
from upbit_backbone.clock import FrozenClock, utc_datetime
from upbit_backbone.errors import InvalidRequestError, TransportError
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import WINDOW_S, RateWindow
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.gateway import caller_of
from upbit_backbone.simulator.limits import LIMITS
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.settings import SimulatorSettings, WindowKind, read_settings

KINDS: tuple[WindowKind, ...] = ("fixed", "first-request", "sliding")
PATHS = {
    "market": "/market/all",
    "candles": "/candles/minutes/1?market=KRW-BTC",
    "trades": "/trades/ticks?market=KRW-BTC",
    "ticker": "/ticker?markets=KRW-BTC",
    "orderbook": "/orderbook?markets=KRW-BTC",
}

every_window = pytest.mark.parametrize("window", KINDS)

pytestmark = pytest.mark.usefixtures("shared_tables")


@asynccontextmanager
async def world(clock: ManualClock, **settings: Any) -> AsyncIterator[Caller]:
    """A simulator with these settings, and a caller of it."""
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(**settings)) as simulator,
        aiohttp.ClientSession() as session,
    ):
        yield Caller(simulator, session)


async def raw(caller: Caller, path: str = PATHS["ticker"]) -> tuple[int, str, str]:
    """Status, type and text of an answer."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(caller.simulator.rest_url + path) as response,
    ):
        return response.status, response.content_type, await response.text()


async def get_banned(caller: Caller) -> None:
    for _ in range(30):
        await caller.get(PATHS["market"])


async def handshake(simulator: Simulator) -> int:
    """The status of an upgrade."""
    try:
        connection = await websockets.connect(simulator.ws_url)
    except websockets.InvalidStatus as refused:
        return refused.response.status_code
    await connection.close()
    return 101


@every_window
@pytest.mark.parametrize("group", PATHS)
async def test_ten_calls_a_second_are_served_and_the_header_counts_them(
    clock: ManualClock, window: WindowKind, group: str
) -> None:
    async with world(clock, window=window) as caller:
        answers = [await caller.get(PATHS[group]) for _ in range(11)]
        assert [answer.status for answer in answers] == [200] * 10 + [429]
        assert [answer.headers["remaining-req"] for answer in answers] == [
            f"group={group}; min=600; sec={left}" for left in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0)
        ]
        assert {answer.headers["limit-by-ip"] for answer in answers} == {"Yes"}
        assert answers[-1].error == (429, 429, "Too many requests")
        assert "Retry-After" not in answers[-1].headers
        clock.advance(1.001)
        assert (await caller.get(PATHS[group])).headers["remaining-req"].endswith("sec=9")


@every_window
async def test_five_connects_a_second(clock: ManualClock, window: WindowKind) -> None:
    async with world(clock, window=window) as caller:
        assert [await handshake(caller.simulator) for _ in range(6)] == [101] * 5 + [429]
        clock.advance(1.001)
        async with websockets.connect(caller.simulator.ws_url) as connection:
            assert connection.response is not None
            headers = connection.response.headers
        assert headers["remaining-req"] == "group=websocket; min=300; sec=4"
        assert headers["limit-by-ip"] == "Yes"


@every_window
async def test_an_origin_header_is_a_group_of_its_own(
    clock: ManualClock, window: WindowKind
) -> None:
    origin = {"Origin": "http://localhost"}
    async with world(clock, window=window) as caller:
        first = await caller.get_with(origin, "/ticker", markets="KRW-BTC")
        assert first.status == 200
        assert first.headers["remaining-req"] == "group=origin; min=6; sec=0"
        assert (await caller.get_with(origin, "/orderbook", markets="KRW-BTC")).status == 429
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(caller.simulator.ws_url, origin=websockets.Origin("http://x"))
        assert caught.value.response.status_code == 429
        assert (await caller.get("/ticker", markets="KRW-BTC")).status == 200
        clock.advance(10.001)
        assert (await caller.get_with(origin, "/ticker", markets="KRW-BTC")).status == 200


async def test_fixed_windows_are_seconds_of_the_exchange(clock: ManualClock) -> None:
    clock.advance(0.9)
    async with world(clock) as caller:
        for _ in range(10):
            assert (await caller.get(PATHS["ticker"])).status == 200
        assert (await caller.get(PATHS["ticker"])).status == 429
        clock.advance(0.11)
        assert (await caller.get(PATHS["ticker"])).headers["remaining-req"].endswith("sec=9")


async def test_allowance_comes_back_though_the_exchange_stands_still(clock: ManualClock) -> None:
    frozen = FrozenClock(clock.now_ms(), base=clock)
    async with Simulator(clock=frozen) as simulator, aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        for _ in range(11):
            answer = await caller.get(PATHS["ticker"])
        assert answer.status == 429
        clock.advance(1)
        assert (await caller.get(PATHS["ticker"])).status == 200


async def test_who_does_not_stop_is_banned_everywhere_and_told_for_how_long(
    clock: ManualClock,
) -> None:
    async with (
        world(clock) as caller,
        websockets.connect(caller.simulator.ws_url, compression=None) as open_before,
    ):
        statuses = [(await caller.get(PATHS["market"])).status for _ in range(31)]
        assert statuses == [200] * 10 + [429] * 20 + [418]
        clock.advance(3.5)
        for group, path in PATHS.items():
            answer = await caller.get(path)
            message = "Too many requests. Access is blocked for 7 seconds."
            assert answer.error == (418, 418, message)
            assert answer.headers["remaining-req"] == f"group={group}; min=600; sec=0"
        assert await handshake(caller.simulator) == 418
        await open_before.send('[{"ticket":"x"},{"type":"ticker","codes":["KRW-BTC"]}]')
        assert await open_before.recv(), "a socket that is open goes on"
        clock.advance(6.5)
        assert (await caller.get(PATHS["market"])).status == 200


async def test_the_second_ban_is_longer(clock: ManualClock) -> None:
    async with world(clock) as caller:
        await get_banned(caller)
        clock.advance(10)
        await get_banned(caller)
        assert "60 seconds" in (await caller.get(PATHS["ticker"])).error[2]


async def test_refusals_speak_as_the_settings_say(clock: ManualClock) -> None:
    expected = {
        "string": ("application/json", '{"error":{"name":"too_many_requests","message":%s}}'),
        "empty": ("application/octet-stream", ""),
        "text": ("text/plain", "%s"),
    }
    for form, (kind, text) in expected.items():
        async with world(clock, refusal_body=form, ban_after=1, ban_language="ko") as caller:
            for _ in range(10):
                await caller.get(PATHS["ticker"])
            refused, banned = await raw(caller), await raw(caller)
            messages = ["Too many requests", "요청 수를 초과하여 10초 동안 접근이 제한됩니다."]
            quoted = [f'"{message}"' if form == "string" else message for message in messages]
            bodies = [text.replace("%s", message) for message in quoted]
            assert refused == (429, kind, bodies[0])
            assert banned == (418, kind, bodies[1])


async def test_one_connection_too_many_is_refused(clock: ManualClock) -> None:
    async with world(clock, max_connections=2) as caller, AsyncExitStack() as connections:
        simulator = caller.simulator
        first = await connections.enter_async_context(websockets.connect(simulator.ws_url))
        await connections.enter_async_context(websockets.connect(simulator.ws_url))
        assert await handshake(simulator) == 429
        await first.close()
        await eventually(lambda: len(simulator._sessions) == 1)
        assert await handshake(simulator) == 101


@every_window
async def test_our_limiter_is_never_refused_by_the_server(
    clock: ManualClock, window: WindowKind
) -> None:
    ours = RateWindow(limit=10, window_s=WINDOW_S)
    async with world(clock, window=window) as caller:
        for _ in range(35):
            clock.advance(ours.wait_s(clock.monotonic(), Priority.NORMAL))
            ours.grant(clock.monotonic(), Priority.NORMAL)
            assert (await caller.get(PATHS["orderbook"])).status == 200
        assert caller.simulator._gateway.calls.peaks() == {"orderbook": 10}


@every_window
async def test_five_messages_a_second_and_a_hundred_a_minute(
    clock: ManualClock, window: WindowKind
) -> None:
    """Of each connection alone; one more is answered with an error, then the connection ends."""
    ask = '[{"ticket":"x"},{"method":"LIST_SUBSCRIPTIONS"}]'

    async def answered(connection: websockets.ClientConnection, times: int) -> list[str]:
        for _ in range(times):
            await connection.send(ask)
        async with asyncio.timeout(5):
            answers = [json.loads(await connection.recv()) for _ in range(times)]
        return [answer.get("error", {}).get("name", "listed") for answer in answers]

    clock.advance(20)  # a minute of the fixed window begins
    async with (
        world(clock, window=window) as caller,
        websockets.connect(caller.simulator.ws_url) as hasty,
        websockets.connect(caller.simulator.ws_url) as patient,
    ):
        assert await answered(hasty, 6) == ["listed"] * 5 + ["TOO_MANY_REQUEST"]
        with pytest.raises(websockets.ConnectionClosedOK):
            await hasty.recv()
        for _ in range(20):
            assert await answered(patient, 5) == ["listed"] * 5
            clock.advance(1.001)
        assert await answered(patient, 1) == ["TOO_MANY_REQUEST"]


async def test_in_maintenance_every_call_and_connect_meets_a_page_of_a_proxy(
    clock: ManualClock,
) -> None:
    """It counts nowhere; open sockets are cut, and afterwards everything is as before."""
    now_ms = clock.now_ms()
    window = {"type": "maintenance", "from": iso(now_ms + 60_000), "until": iso(now_ms + 180_000)}
    script = read_script(json.dumps({"events": [window]}).encode(), now_ms)
    async with (
        Simulator(clock=clock, script=script) as simulator,
        aiohttp.ClientSession() as session,
        websockets.connect(simulator.ws_url) as open_before,
    ):
        caller = Caller(simulator, session)
        clock.advance(60)
        for path in PATHS.values():
            status, kind, text = await raw(caller, path)
            assert (status, kind) == (503, "text/html")
            assert "maintenance" in text
        async with session.get(simulator.rest_url + PATHS["ticker"]) as response:
            assert "remaining-req" not in response.headers
        assert await handshake(simulator) == 503
        with pytest.raises(websockets.ConnectionClosedError):
            async with asyncio.timeout(5):
                await open_before.recv()
        calls = simulator._gateway.calls
        assert (calls.served, calls.refused) == ({"websocket": 1}, {})
        clock.advance(120)
        assert (await caller.get(PATHS["ticker"])).headers["remaining-req"].endswith("sec=9")
        assert await handshake(simulator) == 101


def iso(at_ms: int) -> str:
    return utc_datetime(at_ms).isoformat()


@pytest.mark.parametrize(
    ("remote", "caller"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fe80::1", "fe80::1"),
        (None, ""),
    ],
)
def test_an_address_has_one_allowance_however_it_is_written(
    remote: str | None, caller: str
) -> None:
    request = make_mocked_request("GET", "/").clone(remote=remote or "")
    assert caller_of(request) == caller


async def test_both_loopback_addresses_share_limits_and_bans(clock: ManualClock) -> None:
    try:
        simulator = Simulator(clock=clock, host="::1")
        await simulator.start()
    except TransportError:
        pytest.skip("this machine has no IPv6")
    try:
        simulator._gateway.calls.ban("127.0.0.1", 30.0, simulator._gateway.now())
        async with aiohttp.ClientSession() as session:
            caller = Caller(simulator, session)
            assert (await caller.get(PATHS["ticker"])).error[:2] == (418, 418)
            async with session.get(simulator.control_url) as answer:
                assert (await answer.json())["bans"] == {"127.0.0.1": 30}
        assert await handshake(simulator) == 418
    finally:
        await simulator.close()


def test_limits_of_the_header_are_those_counted() -> None:
    assert set(PATHS) | {"origin", "websocket"} == set(LIMITS)


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("window=floating", "window of the simulator was 'floating': expected one of fixed, "),
        ("ban_after=-1", "ban_after of the simulator was -1: expected a finite number of 0 or"),
        ("ban_after=often", "ban_after of the simulator was 'often': expected a whole number"),
        ("ban_lengths_s=", "ban_lengths_s of the simulator was (): expected at least one"),
        ("idle_timeout_s=inf", "idle_timeout_s of the simulator was inf: expected a finite"),
        ("refused_count=maybe", "refused_count of the simulator was 'maybe': expected true or"),
        ("windows=fixed", "setting 'windows=fixed' is none: expected NAME=VALUE with one of"),
        ("window", "setting 'window' is none: expected NAME=VALUE"),
    ],
)
def test_a_setting_that_is_none_is_refused_in_one_sentence(pair: str, sentence: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_settings([pair])
    assert sentence in str(caught.value)


def test_settings_are_read_from_text() -> None:
    pairs = ["window=sliding", "ban_lengths_s=1,2.5", "max_connections=3", "refused_count=true"]
    assert read_settings(pairs) == SimulatorSettings(
        window="sliding", ban_lengths_s=(1.0, 2.5), max_connections=3, refused_count=True
    )
    assert read_settings(["max_connections=null"]) == SimulatorSettings()
