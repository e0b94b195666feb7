"""How fast and how small the simulated exchange is: the figures it promises.

    uv run python benchmarks/simulator.py [SECONDS]

Pages are measured twice: the work of the server alone (find, write, encode), and over a real
socket with client and server in one loop. What concerns a process (start, streams, memory) is
measured on `upbit-backbone simulate` as a process of its own, for SECONDS each (default 10).
CPU shares are of one core; on a machine that does other work they come out too high.

Goals: any page < 5 ms, median < 1 ms; a table < 0.15 s synthetic, < 1 s recorded, and nobody
else waits more than 20 ms meanwhile; `ticker/all` of 289 rows < 25 ms; ready line < 1 s;
1,000 messages/s of 289 markets at <= 15 % of one core; 20,000 messages/s possible.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import msgspec
import psutil

from upbit_backbone.clock import DAY_MS, MINUTE_MS, Clock, SystemClock
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.candles import (
    DAY_UNIT,
    MINUTE_UNITS,
    candles,
    period_candles,
    second_candles,
)
from upbit_backbone.simulator.exchange import Desk, Exchange
from upbit_backbone.simulator.rest_bodies import (
    day_candle_bodies,
    minute_candle_bodies,
    period_candle_bodies,
    second_candle_bodies,
    ticker_body,
    trade_bodies,
)

MARKETS = {"recorded": "KRW-BTC", "busy": "KRW-ETH", "thin": "KRW-SIM003", "idle": "BTC-SC"}
PAGES_OF_A_KIND = 40
SOCKET_PAGES = 200
STARTS = 3
SNAPSHOT_TYPES = ("ticker", "trade", "orderbook")
COMMAND = (sys.executable, "-c", "from upbit_backbone.cli import main; main()", "simulate")


class HurriedClock:
    """The machine's clock, by whose monotonic time no limit is ever reached."""

    def __init__(self) -> None:
        self._base: Clock = SystemClock()
        self._calls = 0

    def now_ms(self) -> int:
        return self._base.now_ms()

    def monotonic(self) -> float:
        self._calls += 1
        return self._base.monotonic() + self._calls


def main() -> None:
    """Print the figures."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    measure_starts()
    asyncio.run(measure_pages())
    asyncio.run(measure_building())
    for rate, connections in ((1, 1), (5, 1), (5, 25)):
        asyncio.run(measure_streams(rate, connections, seconds))


def report(title: str, times_s: Sequence[float]) -> None:
    """Print the median and the tail of some times."""
    ordered = sorted(times_s)
    tail = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
    print(
        f"{title:<44} median {statistics.median(ordered) * 1e3:7.2f} ms"
        f"   p99 {tail * 1e3:7.2f} ms   max {ordered[-1] * 1e3:7.2f} ms"
    )


def measure_starts() -> None:
    """From the command to the line that says it is ready."""
    times = []
    for _ in range(STARTS):
        begin = time.perf_counter()
        process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        times.append(time.perf_counter() - begin)
        stop(process)
    report("ready line after the command", times)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here."""
    process.terminate()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


async def measure_pages() -> None:
    """Pages of all units, of markets of every kind."""
    exchange = Exchange(seed=1, clock=SystemClock(), as_recorded=False, first_symbol=None)
    chance = random.Random(4)
    everything: list[float] = []
    try:
        for kind, symbol in MARKETS.items():
            begin = time.perf_counter()
            desk = await exchange.desk(symbol)
            assert desk is not None
            print(f"table of {symbol:<11} ({kind}) {(time.perf_counter() - begin) * 1e3:27.0f} ms")
            for name, page in pages(desk, chance).items():
                page()  # the first question of a unit makes its column
                times = [timed(page) for _ in range(PAGES_OF_A_KIND)]
                everything += times
                report(f"{kind} {symbol} {name}, server alone", times)
        report("all pages, server alone", everything)
        await measure_all_tickers(exchange)
    finally:
        exchange.close()
    await measure_sockets(chance)


def pages(desk: Desk, chance: random.Random) -> dict[str, Callable[[], bytes]]:
    """A page of each unit that ends at some random moment of the last month."""
    market, now_ms = desk.market, SystemClock().now_ms()

    def end_ms() -> int:
        return now_ms - chance.randrange(30 * DAY_MS)

    def seconds() -> bytes:
        page = second_candles(market, start_before_ms=end_ms(), now_ms=now_ms, count=200)
        return msgspec.json.encode(second_candle_bodies(market, page))

    def minutes(unit: int) -> bytes:
        page = candles(market, unit, start_before_ms=end_ms(), now_ms=now_ms, count=200)
        return msgspec.json.encode(minute_candle_bodies(market, page, unit))

    def days() -> bytes:
        page = candles(market, DAY_UNIT, start_before_ms=end_ms(), now_ms=now_ms, count=200)
        return msgspec.json.encode(day_candle_bodies(market, page, None))

    def periods(period: Any) -> bytes:
        page = period_candles(market, period, start_before_ms=end_ms(), now_ms=now_ms, count=200)
        return msgspec.json.encode(period_candle_bodies(market, page))

    def trades() -> bytes:
        before_ms = end_ms()
        page = market.trades_back(
            from_ms=before_ms // DAY_MS * DAY_MS, before_ms=before_ms, before_id=None, count=500
        )
        return msgspec.json.encode(trade_bodies(market, page))

    return {
        "200 seconds": seconds,
        **{f"200 x {unit} min": partial(minutes, unit) for unit in MINUTE_UNITS},
        "200 days": days,
        **{f"{period}s": partial(periods, period) for period in ("week", "month", "year")},
        "500 trades": trades,
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


async def measure_all_tickers(exchange: Exchange) -> None:
    """The tickers of all won markets, each time at another moment."""
    listed = await exchange.listings()
    now_ms = exchange.clock.now_ms()
    desks = [
        desk
        for symbol, listing in listed.items()
        if symbol.startswith("KRW-") and listing.is_listed(now_ms)
        if (desk := await exchange.desk(symbol)) is not None
    ]
    times = []
    for number in range(20):
        at_ms = now_ms + number * MINUTE_MS
        begin = time.perf_counter()
        await exchange.prepare(desks, at_ms)
        found = [(desk, desk.tickers.at(at_ms)) for desk in desks]
        rows = [ticker_body(desk.market, ticker, at_ms) for desk, ticker in found if ticker]
        msgspec.json.encode(rows)
        times.append(time.perf_counter() - begin)
    report(f"ticker/all of {len(desks)} rows, server alone", times)


async def measure_sockets(chance: random.Random) -> None:
    """The same over HTTP, one call after the other."""
    async with (
        Simulator(clock=HurriedClock(), first_symbol="KRW-BTC") as simulator,
        aiohttp.ClientSession() as session,
    ):
        paths = [f"/candles/minutes/{unit}?count=200&" for unit in MINUTE_UNITS]
        paths += ["/candles/days?count=200&", "/candles/seconds?count=200&"]
        paths += ["/trades/ticks?count=500&"]
        asked = [
            f"{path}market={symbol}" for path in paths for symbol in (*MARKETS.values(), "KRW-XRP")
        ]
        for path in asked:
            await fetch(session, simulator.rest_url + path)
        report(
            "any page over a socket",
            [
                await fetch(session, simulator.rest_url + chance.choice(asked))
                for _ in range(SOCKET_PAGES)
            ],
        )
        every = simulator.rest_url + "/ticker/all?quote_currencies=KRW"
        await fetch(session, every)
        report("ticker/all over a socket", [await fetch(session, every) for _ in range(20)])


async def fetch(session: aiohttp.ClientSession, url: str) -> float:
    """Seconds until the whole answer is here."""
    begin = time.perf_counter()
    async with session.get(url) as response:
        await response.read()
        if response.status != 200:
            raise SystemExit(f"{url} was answered with {response.status}")
    return time.perf_counter() - begin


async def measure_building() -> None:
    """How long somebody else waits while tables are built."""
    async with serving(rate=1) as (addresses, _), aiohttp.ClientSession() as session:
        other = addresses["rest_url"] + "/candles/minutes/1?market=KRW-BTC"
        await fetch(session, other)
        recorded = addresses["rest_url"] + "/candles/minutes/1?market=KRW-XRP"
        synthetic = addresses["rest_url"] + "/ticker?markets=KRW-ETH,KRW-ADA,KRW-LINK,KRW-TRX"
        for title, url in (("a recorded table", recorded), ("four other markets", synthetic)):
            building = asyncio.create_task(fetch(session, url))
            waits = []
            while not building.done():
                # The control endpoint knows no limit.
                waits.append(await fetch(session, addresses["control_url"]))
            report(f"another request while {title} is built", waits)
            print(f"{title}, first answer {await building * 1e3:34.0f} ms")


@asynccontextmanager
async def serving(*, rate: float) -> AsyncIterator[tuple[dict[str, str], psutil.Process]]:
    """The simulator as a process of its own."""
    process = await asyncio.to_thread(
        subprocess.Popen, (*COMMAND, "--rate", str(rate)), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        yield msgspec.json.decode(line), psutil.Process(process.pid)
    finally:
        await asyncio.to_thread(stop, process)


class Sink(asyncio.Protocol):
    """A client that counts the bytes of a stream and looks at none: it costs next to nothing."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.received = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            b"GET /websocket/v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        # A masked text frame whose mask is zero.
        head = b"\x81\xfe" + len(self._request).to_bytes(2, "big") + bytes(4)
        transport.write(head + self._request)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


async def measure_streams(rate: float, connections: int, seconds: float) -> None:
    """Messages and CPU while all won markets are streamed to some connections."""
    async with serving(rate=rate) as (addresses, process), aiohttp.ClientSession() as session:
        async with session.get(addresses["rest_url"] + "/market/all") as response:
            listed = await response.json()
        codes = [row["market"] for row in listed if row["market"].startswith("KRW-")]
        request = [
            {"ticket": "benchmark"},
            *({"type": kind, "codes": codes} for kind in SNAPSHOT_TYPES),
        ]
        async with session.ws_connect(addresses["ws_url"]) as counted:
            await counted.send_json(request)
            for _ in range(len(codes) * len(SNAPSHOT_TYPES)):
                await counted.receive_bytes()
            sinks = await drains(addresses["ws_url"], connections - 1, msgspec.json.encode(request))
            await asyncio.sleep(2)
            await drain(counted, 0.5)
            cpu_s, memory = sum(process.cpu_times()[:2]), process.memory_info().rss
            begin = time.perf_counter()
            messages = await drain(counted, seconds)
            took_s = time.perf_counter() - begin
            share = (sum(process.cpu_times()[:2]) - cpu_s) / took_s
            grown = process.memory_info().rss - memory
            for sink in sinks:
                sink.close()
        sent = messages * connections / took_s
        print(
            f"rate {rate}, {len(codes)} markets, {connections} connections: {sent:7.0f} messages/s,"
            f" CPU {share:6.1%}, {share / sent * 1e6:4.0f} µs each,"
            f" memory {memory / 2**20:.0f} MiB, {grown / 2**20:+.1f} in {took_s:.0f} s"
        )


async def drains(url: str, count: int, request: bytes) -> list[Sink]:
    """More connections with the same subscription, five a second."""
    host, port = url.removeprefix("ws://").partition("/")[0].split(":")
    loop = asyncio.get_running_loop()
    sinks = []
    for number in range(count):
        if number % 4 == 0:
            await asyncio.sleep(1.1)
        _, sink = await loop.create_connection(partial(Sink, request), host, int(port))
        sinks.append(sink)
    return sinks


async def drain(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> int:
    """Messages that come within some seconds."""
    count = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                await socket.receive_bytes()
                count += 1
    except TimeoutError:
        return count


if __name__ == "__main__":
    main()
