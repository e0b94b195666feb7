"""Starting and stopping, and two processes with one seed."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import websockets

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.worlds import Caller, ms, recorded_lines
from upbit_backbone.clock import DAY_MS, FrozenClock, SystemClock
from upbit_backbone.errors import InvalidRequestError, TransportError
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.command import read_time, simulate
from upbit_backbone.simulator.wire import start_text

# The days with the most empty minutes of KRW-DOGE, and those of KRW-BTC's two.
GAP_DAYS = {
    "KRW-DOGE": ("2025-09-05", "2025-09-06", "2025-09-28"),
    "KRW-BTC": ("2025-09-03", "2025-09-07"),
}


@asynccontextmanager
async def process(now: str | None = None) -> AsyncIterator[dict[str, str]]:
    """A simulator as a process of its own; gives the addresses it printed."""
    program = (
        "import asyncio; from upbit_backbone.simulator.command import simulate;"
        f" asyncio.run(simulate('127.0.0.1', 0, 1, None, {now!r}))"
    )
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(20):
            yield json.loads(await running.stdout.readline())
    finally:
        running.send_signal(signal.SIGTERM)
        rest, _ = await running.communicate()
    assert rest == b"", "exactly one line"
    assert running.returncode == 0


async def bodies(addresses: dict[str, str], questions: list[str]) -> list[Any]:
    answers = []
    async with aiohttp.ClientSession() as session:
        for question in questions:
            async with session.get(addresses["rest_url"] + question) as response:
                assert response.status == 200
                answers.append((question, await response.text()))
    return answers


PAST = [
    "/candles/minutes/1?market=KRW-BTC&count=200&to=2026-01-01T00:00:00",
    "/candles/minutes/240?market=KRW-SIM010&count=200&to=2024-02-29T12:00:00",
    "/candles/minutes/15?market=BTC-ETH&count=200&to=2025-12-24T18:00:00Z",
    "/candles/days?market=KRW-XRP&count=200&to=2026-01-01T00:00:00",
    "/trades/ticks?market=KRW-DOGE&count=500&days_ago=2",
    "/trades/ticks?market=USDT-BTC&count=500&days_ago=3",
]
EVERYTHING = [
    *PAST,
    "/market/all?is_details=true",
    "/ticker?markets=KRW-BTC,KRW-XRP,KRW-DOGE,KRW-ETH,KRW-SIM001,KRW-SIM010,BTC-ETH,USDT-BTC",
    "/orderbook?markets=KRW-BTC,KRW-SIM001,BTC-SC",
    "/candles/minutes/1?market=KRW-ETH&count=200",
    "/candles/days?market=KRW-BTC&count=3",
    "/trades/ticks?market=KRW-BTC&count=100",
]


async def test_processes_with_one_seed_agree_about_the_past() -> None:
    async with process() as first:
        early = await bodies(first, PAST)
        async with process() as second:
            assert await bodies(second, PAST) == early


async def test_processes_with_one_seed_and_instant_agree_about_everything() -> None:
    now = "2026-03-04T05:06:07.89"
    async with process(now) as first:
        early = await bodies(first, EVERYTHING)
        async with process(now) as second:
            assert await bodies(second, EVERYTHING) == early


async def test_starting_takes_no_time_and_the_market_follows(clock: ManualClock) -> None:
    loop = asyncio.get_running_loop()
    simulator = Simulator(clock=clock, first_symbol="KRW-XRP")
    began = loop.time()
    await simulator.start()
    assert loop.time() - began < 0.1
    async with aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        assert len(await caller.rows("/candles/minutes/1", market="KRW-XRP", count=9)) == 9
    await simulator.close()


@pytest.mark.both_loops
@pytest.mark.parametrize("busy", [False, True])
async def test_closing_leaves_nothing(busy: bool) -> None:
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    simulator = Simulator(clock=SystemClock())
    await simulator.start()
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        if busy:
            socket_ = await session.ws_connect(simulator.ws_url)
            await socket_.send_str('[{"ticket":"x"},{"type":"orderbook","codes":["KRW-BTC"]}]')
            await socket_.receive()
            waiting = asyncio.create_task(
                session.get(f"{simulator.rest_url}/candles/days?market=BTC-SC")
            )
            await asyncio.sleep(0)
        began = loop.time()
        await simulator.close()
        assert loop.time() - began < 0.5
        await simulator.close()
        if busy:
            await socket_.close()
            with pytest.raises(aiohttp.ClientError):
                await waiting
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(simulator.rest_url)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= tasks
    assert set(threading.enumerate()) - threads <= set()


async def test_open_sockets_learn_of_the_end(simulator: Simulator) -> None:
    async with websockets.connect(simulator.ws_url) as connection:
        await simulator.close()
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()


async def test_a_simulator_that_was_never_started_can_be_closed() -> None:
    await Simulator().close()


@pytest.mark.parametrize("port", [None, 70_000])
async def test_a_port_that_cannot_be_had_is_said_in_one_sentence(port: int | None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        simulator = Simulator(port=taken.getsockname()[1] if port is None else port)
        with pytest.raises(TransportError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*port"):
            await simulator.start()
        await simulator.close()


def test_the_name_tells_what_the_trades_follow_from() -> None:
    assert Simulator(seed=7).name == "simulator-7"
    recorded = Simulator(seed=7, as_recorded=True).name
    assert recorded.startswith("simulator-7-")
    assert len(recorded) == len("simulator-7-") + 8
    assert recorded == Simulator(seed=7, as_recorded=True, clock=FrozenClock(0)).name


@pytest.mark.parametrize("symbol", GAP_DAYS)
async def test_as_recorded_a_day_comes_out_as_it_was(symbol: str) -> None:
    clock = ManualClock(ms("2025-10-03T12:00:00"))
    simulator = Simulator(clock=clock, as_recorded=True, first_symbol=symbol)
    async with simulator, aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        for day in GAP_DAYS[symbol]:
            start_ms, end_ms = ms(day), ms(day) + DAY_MS
            rows: list[dict[str, Any]] = []
            to_ms = end_ms
            while to_ms > start_ms:
                to = f"{start_text(to_ms)}Z"
                page = await caller.rows("/candles/minutes/1", market=symbol, count=200, to=to)
                rows += page
                to_ms = ms(page[-1]["candle_date_time_utc"])
            served = {ms(row["candle_date_time_utc"]): as_tuple(row) for row in rows}
            expected = {
                at: line for at, line in recorded_lines(symbol).items() if start_ms <= at < end_ms
            }
            assert len(expected) < 1_440
            assert {at: row for at, row in served.items() if at >= start_ms} == expected
            clock.advance(1)
        markets = [row["market"] for row in await caller.rows("/market/all")]
    assert markets == ["KRW-BTC", "KRW-XRP", "KRW-DOGE"]


def as_tuple(row: dict[str, Any]) -> tuple[float, ...]:
    names = ("opening_price", "high_price", "low_price", "trade_price", "candle_acc_trade_volume")
    return tuple(row[name] for name in names)


async def test_a_simulator_that_starts_before_the_recording_has_nothing_yet() -> None:
    clock = FrozenClock(ms("2025-08-31T23:59:59"))
    async with (
        Simulator(clock=clock, as_recorded=True) as early,
        aiohttp.ClientSession() as session,
    ):
        caller = Caller(early, session)
        assert await caller.rows("/candles/minutes/1", market="KRW-BTC", count=9) == []


def test_times_of_the_command_line_are_utc_unless_they_say_otherwise() -> None:
    assert read_time("--now", "2025-09-15") == AUTUMN_2025_MS
    assert read_time("--now", "2025-09-15T00:00:00Z") == AUTUMN_2025_MS
    assert read_time("--now", "2025-09-15T09:00:00+09:00") == AUTUMN_2025_MS


async def test_a_time_that_is_none_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidRequestError, match=r"--now was 'noon': expected a time such as"):
        await simulate("127.0.0.1", 0, 1, None, "noon")


async def test_the_command_ends_with_a_signal_and_prints_its_addresses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = asyncio.create_task(
        simulate("127.0.0.1", 0, 3, "2025-10-01T00:00:00", None), name="command"
    )
    printed = ""
    while not printed:
        await asyncio.sleep(0.005)
        printed = capsys.readouterr().out
    addresses = json.loads(printed)
    assert set(addresses) == {"rest_url", "ws_url", "control_url"}
    assert addresses["rest_url"].endswith("/v1")
    async with aiohttp.ClientSession() as session, session.get(addresses["control_url"]) as said:
        state = await said.json()
    assert state["name"] == Simulator(seed=3, as_recorded=True).name
    assert 0 <= state["now_ms"] - ms("2025-10-01T00:00:00") < 5_000
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        await command


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--fault", "earthquake"], "no fault is called 'earthquake': expected one of"),
        (["--window", "floating"], "window of the simulator was 'floating': expected one of"),
    ],
)
async def test_a_bad_flag_is_one_sentence_and_a_failure(flags: list[str], sentence: str) -> None:
    start = "from upbit_backbone.cli import main; main()"
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", start, "simulate", *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, said = await running.communicate()
    assert (running.returncode, out) == (2, b"")
    assert sentence in said.decode()
    assert said.decode().count("\n") == 1


async def test_the_command_takes_settings_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    command = asyncio.create_task(
        simulate(
            "127.0.0.1",
            0,
            1,
            None,
            None,
            settings=["window=sliding", "max_connections=0"],
            faults=["502 group=ticker count=1 until=60"],
        ),
        name="command",
    )
    printed = ""
    while not printed:
        await asyncio.sleep(0.005)
        printed = capsys.readouterr().out
    addresses = json.loads(printed)
    async with aiohttp.ClientSession() as session:
        url = f"{addresses['rest_url']}/ticker?markets=KRW-BTC"
        statuses = []
        for _ in range(2):
            async with session.get(url) as response:
                statuses.append(response.status)
        assert statuses == [502, 200]
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(addresses["ws_url"])
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        await command
