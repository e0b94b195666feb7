"""How fast, how steady and how small routing is: its promises, each beside its floor.

    uv run python benchmarks/routing.py [NAME ...] [--long] [--json]

Each measurement is a process of its own, with floor and figure taken in the same run. Times are
of a machine that may do other work: **ratios carry over, microseconds do not**, and a tail (p99) is
that of everything which ran meanwhile; so the load of the machine is printed too. The stream comes
from `canned_exchange.py`, REST from the simulator, both processes of their own on loopback. The
default run takes about three minutes; `--long` adds what takes long (and measures longer where a
tail is promised).

A frame's way begins when the other process sends it: its stay in the socket while the loop is busy
counts. Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import heapq
import logging
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import psutil
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.figures import Figure, percentile
from benchmarks.stage import managing, simulating
from upbit_backbone.clock import ExchangeClock, SystemClock, utc_datetime
from upbit_backbone.errors import RateLimitedError
from upbit_backbone.exchanges.upbit import UpbitAdapter, wire
from upbit_backbone.exchanges.upbit.websocket import FORMAT
from upbit_backbone.models import Gap, Ticker, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import BackboneRequest, DataType, Priority, Subscription
from upbit_backbone.routing.rate_limit import (
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    Granted,
    Line,
    RateWindow,
    Ticket,
)
from upbit_backbone.routing.router import Router
from upbit_backbone.simulator.limits import QUOTATION, window_of
from upbit_backbone.simulator.settings import WindowKind

HERE = Path(__file__)
RESERVE = 2
SHARED_RATE = (REQUESTS_PER_WINDOW - RESERVE) / WINDOW_S
"""7.62 requests a second: what all but CRITICAL may take together."""
SYMBOLS = ("KRW-BTC", *(f"KRW-T{number:03}" for number in range(1, 250)))
"""Of the canned exchange."""
LISTED = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-ADA", "KRW-DOGE", "KRW-TRX", "KRW-LINK", "KRW-LTC")
"""Some of the simulator."""
WINDOW_KINDS: tuple[WindowKind, ...] = ("fixed", "first-request", "sliding")
FRAME_MS = 16
WORK_S = 0.004
"""What a busy desktop draws in each frame."""
LONGEST_S = 420.0


Measure = Callable[[bool], Coroutine[Any, Any, list[Figure]]]


# The processes that are measured against.


class Canned:
    """The canned exchange."""

    def __init__(self, process: asyncio.subprocess.Process, rest_url: str, ws_url: str) -> None:
        self._process = process
        self.rest_url = rest_url
        self.ws_url = ws_url

    async def order(self, **command: float) -> None:
        """Have something done, and wait until it is."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        await self._process.stdout.readline()


@asynccontextmanager
async def canned() -> AsyncIterator[Canned]:
    """The canned exchange as a process; it ends with its input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE.with_name("canned_exchange.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        addresses = msgspec.json.decode(await process.stdout.readline())
        yield Canned(process, addresses["rest_url"], addresses["ws_url"])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def routing(
    rest_url: str, ws_url: str, *, rng: Random | None = None
) -> AsyncIterator[Router]:
    """Layer 1 alone."""
    local = SystemClock()
    clock = ExchangeClock(local)
    routers: list[Router] = []
    async with aiohttp.ClientSession() as session:
        adapter = UpbitAdapter(
            session,
            rest_url=rest_url,
            ws_url=ws_url,
            origin=Origin("benchmark"),
            clock=clock,
            local=local,
            on_remaining=lambda group, left: routers[0].observe_left(group, left),
        )
        router = Router(adapter, clock=clock, rng=rng or Random(1), critical_reserve=RESERVE)
        routers.append(router)
        await router.start()
        try:
            yield router
        finally:
            await router.stop()


async def until(true: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait until something is true; looking costs next to nothing."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.005)


def asked(data_type: DataType, *symbols: str, **words: Any) -> BackboneRequest:
    """A request to layer 1."""
    return BackboneRequest(data_type, symbols, **words)


def messages(router: Router) -> int:
    """How many values came by the stream."""
    return int(router.status().counters["messages"])


def counter(router: Router, name: str) -> int:
    """One of the figures of layer 1's status."""
    return int(router.status().counters[name])


async def subscribed(router: Router, data_type: DataType, symbols: Sequence[str]) -> Subscription:
    """A reader of the newest values, once all of them are streamed."""
    before = messages(router)
    reader = router.subscribe(asked(data_type, *symbols))
    await until(lambda: messages(router) >= before + len(symbols))
    await asyncio.sleep(0.3)  # the last change of the subscription has been sent
    return reader


# 1. A hit in memory.


async def measure_peek(long: bool) -> list[Figure]:
    """A fresh ticker, asked again and again."""
    async with canned() as exchange, managing(exchange.rest_url, exchange.ws_url) as manager:
        api, router = manager.api, manager._router
        assert router is not None
        clock = ExchangeClock(SystemClock())
        symbol = SYMBOLS[7]
        reader = await subscribed(router, DataType.TICKER, SYMBOLS)
        hits = 0
        found = router.peek(
            DataType.TICKER, symbol, None, None, None, None, 60.0, clock.monotonic()
        )
        assert isinstance(found, Ticker)
        shortest = ShortestPeek({symbol: (found, clock.monotonic())})

        async def bare() -> None:
            return None

        async def least() -> Ticker | None:
            nonlocal hits
            value = shortest.peek(
                DataType.TICKER, symbol, None, None, None, None, 60.0, time.monotonic()
            )
            if value is not None:
                hits += 1
            return value

        async def peeked() -> Ticker | None:
            nonlocal hits
            value: Ticker | None = router.peek(
                DataType.TICKER, symbol, None, None, None, None, 60.0, clock.monotonic()
            )
            if value is not None:
                hits += 1
            return value

        async def by_api() -> Ticker:
            return await api.get_ticker_data(symbol, Priority.LOW)

        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "bare": bare, "least": least, "peeked": peeked, "api": by_api,
        }  # fmt: skip
        gc.collect()
        gc.freeze()
        took: dict[str, list[float]] = defaultdict(list)
        for _ in range(200 if long else 60):
            took["loop"].append(timed_nothing_ns(5_000))
            took["sync"].append(timed_peek_ns(router, symbol, clock, 5_000))
            for name, way in ways.items():
                took[name].append(await timed_ns(way, 5_000))
        reader.close()
    # The least disturbed round of each: nothing here waits for anything.
    loop_ns = min(took.pop("loop"))
    ns = {name: min(times) - loop_ns for name, times in took.items()}
    floor = "await of an empty coroutine"
    by = partial(Figure, name="peek", unit="ns", floor=ns["bare"], floor_is=floor)
    return [
        by(
            what="awaited peek of a ticker: clock, lookup, age, counter",
            measured=ns["peeked"],
            promise="at most 5 x",
            met=ns["peeked"] <= 5 * ns["bare"],
            note=f"{ns['peeked'] / ns['least']:.2f} x the least possible, which is the next line",
        ),
        by(what="the same of a source that only looks up and compares", measured=ns["least"]),
        by(what="Router.peek without a coroutine, clock included", measured=ns["sync"]),
        by(what="api.get_ticker_data, a hit (checks, histogram)", measured=ns["api"]),
    ]


class ShortestPeek:
    """The least that a `DataSource.peek` has to do; its eight arguments are part of it."""

    def __init__(self, held: dict[str, tuple[Ticker, float]]) -> None:
        self._held = held

    def peek(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        start_ms: int | None,
        end_ms: int | None,
        count: int | None,
        max_age_s: float,
        now: float,
    ) -> Ticker | None:
        """The ticker, when it is fresh enough."""
        held = self._held.get(symbol)
        if held is None or now - held[1] > max_age_s:
            return None
        return held[0]


async def timed_ns(way: Callable[[], Awaitable[object]], calls: int) -> float:
    """Nanoseconds of an awaited call."""
    began = time.perf_counter_ns()
    for _ in range(calls):
        await way()
    return (time.perf_counter_ns() - began) / calls


def timed_peek_ns(router: Router, symbol: str, clock: ExchangeClock, calls: int) -> float:
    """Nanoseconds of a peek."""
    began = time.perf_counter_ns()
    for _ in range(calls):
        router.peek(DataType.TICKER, symbol, None, None, None, None, 60.0, clock.monotonic())
    return (time.perf_counter_ns() - began) / calls


def timed_nothing_ns(calls: int) -> float:
    """Nanoseconds of the loop alone."""
    began = time.perf_counter_ns()
    for _ in range(calls):
        pass
    return (time.perf_counter_ns() - began) / calls


# 2. The way of a frame, at full speed.


bare_decoder = msgspec.json.Decoder(
    wire.SimpleTicker | wire.SimpleTrade | wire.SimpleOrderbook
    if FORMAT == "SIMPLE"
    else wire.TickerMessage | wire.TradeMessage | wire.OrderbookMessage
)
"""Into structs of the fields that are used, and nothing else."""


@asynccontextmanager
async def bare_stream(
    url: str, kind: str, symbols: Sequence[str]
) -> AsyncIterator[ClientConnection]:
    """A subscribed connection without anything around it; its snapshots are read."""
    async with connect(url, compression=None, ping_interval=None) as connection:
        request = [{"ticket": "floor"}, {"type": kind, "codes": symbols}, {"format": FORMAT}]
        await connection.send(msgspec.json.encode(request).decode())
        for _ in symbols:
            await connection.recv(decode=False)
        yield connection


async def measure_path(long: bool) -> list[Figure]:
    """CPU of a frame until it can be read."""
    figures = []
    frames, rounds = (60_000, 9) if long else (20_000, 5)
    kinds = {"ticker": DataType.TICKER, "trade": DataType.TRADE, "orderbook": DataType.ORDERBOOK}
    for kind, data_type in kinds.items():
        symbols = SYMBOLS if kind != "trade" else SYMBOLS[:10]
        took: dict[str, list[float]] = defaultdict(list)
        async with canned() as exchange:
            for _ in range(rounds):
                took["bare"].append(await bare_cpu_us(exchange, kind, symbols, frames))
                took["ours"].append(
                    await our_cpu_us(exchange, data_type, symbols, frames, read=False)
                )
                took["read"].append(
                    await our_cpu_us(exchange, data_type, symbols, frames, read=True)
                )
        pairs = zip(took["ours"], took["bare"], strict=True)
        ratio = statistics.median(ours / bare for ours, bare in pairs)
        bare_us, ours_us, read_us = (
            statistics.median(took[name]) for name in ("bare", "ours", "read")
        )
        by = partial(
            Figure, name="path", unit="us", floor=bare_us, floor_is="bare websockets + msgspec"
        )
        promised = kind == "ticker"
        figures += [
            by(
                what=f"{kind} frame: decoded, conflated, readable (CPU)",
                # The median of the rounds' ratios: what else ran weighed on both alike.
                measured=ratio * bare_us,
                promise="at most 1.3 x" if promised else "",
                met=ratio <= 1.3 if promised else None,
                note=f"{1e6 / ours_us:,.0f} frames/s fill a core",
            ),
            by(what=f"{kind} frame: and read by a task as it comes", measured=read_us),
        ]
    return figures


async def bare_cpu_us(exchange: Canned, kind: str, symbols: Sequence[str], frames: int) -> float:
    """CPU microseconds of a frame: received, decoded, conflated by code."""
    latest: dict[str, Any] = {}
    async with bare_stream(exchange.ws_url, kind, symbols) as connection:
        decode = bare_decoder.decode
        gc.collect()
        sending = asyncio.create_task(exchange.order(flood=frames))
        began_s = time.process_time()
        for _ in range(frames):
            value = decode(await connection.recv(decode=False))
            latest[value.market] = value
        took_s = time.process_time() - began_s
        await sending
    assert latest.keys() == set(symbols)
    return took_s / frames * 1e6


async def our_cpu_us(
    exchange: Canned, data_type: DataType, symbols: Sequence[str], frames: int, *, read: bool
) -> float:
    """CPU microseconds of a frame until layer 1 gives it to a peek and to a reader."""
    async with routing(exchange.rest_url, exchange.ws_url) as router:
        reader = await subscribed(router, data_type, symbols)
        reading = asyncio.create_task(read_all(reader)) if read else None
        await asyncio.sleep(0.1)
        gc.collect()
        before = messages(router)
        sending = asyncio.create_task(exchange.order(flood=frames))
        began_s = time.process_time()
        await until(lambda: messages(router) >= before + frames)
        took_s = time.process_time() - began_s
        await sending
        reader.close()
        if reading is not None:
            assert await reading > 0
    return took_s / frames * 1e6


async def read_all(reader: Subscription) -> int:
    """Read until the stream is closed; gives how many values there were."""
    number = 0
    async for _ in reader:
        number += 1
    return number


# 3. and 4. In the loop of the desktop.


def in_qt(work: Callable[[], Coroutine[Any, Any, list[Figure]]]) -> list[Figure]:
    """Run in a qasync loop without a screen."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    import qasync
    from PySide6.QtWidgets import QApplication

    application = QApplication.instance() or QApplication([])
    with asyncio.Runner(loop_factory=qasync.QEventLoop) as runner:
        figures = runner.run(work())
    del application
    return figures


def since_us(ticker: Any) -> float:
    """Microseconds since the frame of a ticker was sent."""
    sent_us: float = ticker.value_today if isinstance(ticker, Ticker) else ticker.acc_trade_price
    return time.perf_counter_ns() / 1_000 - sent_us


def watch_cache(router: Router, took_us: list[float]) -> None:
    """Note how long each ticker was on its way when the realtime cache has it."""
    # There is no other place to look from: readers come after it.
    cache = router._cache
    put = cache.put

    def noted(value: Any, now: float, *, live: bool) -> bool:
        news = put(value, now, live=live)
        if isinstance(value, Ticker):
            took_us.append(since_us(value))
        return news

    setattr(cache, "put", noted)  # noqa: B010


async def measure_latency(long: bool) -> list[Figure]:
    """1,000 tickers a second: to the cache, to a reader, to a slot of a widget."""
    from ui.bridge import BackboneBridge

    rate, seconds = 1_000.0, 40.0 if long else 10.0
    cached: list[float] = []
    read: list[float] = []
    shown: list[float] = []

    def take(tickers: tuple[Ticker, ...]) -> None:
        shown.extend(map(since_us, tickers))

    async def follow(reader: Subscription) -> None:
        async for ticker in reader:
            read.append(since_us(ticker))  # noqa: PERF401 - each as it comes

    async with canned() as exchange:
        floors = await bare_latencies(exchange, rate, seconds / 2)
        async with managing(exchange.rest_url, exchange.ws_url) as manager:
            router = manager._router
            assert router is not None
            bridge = BackboneBridge()
            bridge.attach(manager.api)
            bridge.watch_tickers(SYMBOLS)
            bridge.tickerUpdated.connect(take)
            reader = await subscribed(router, DataType.TICKER, SYMBOLS)
            following = asyncio.create_task(follow(reader))
            await exchange.order(rate=rate, seconds=2.0)
            watch_cache(router, cached)
            read.clear()
            shown.clear()
            await exchange.order(rate=rate, seconds=seconds)
            await asyncio.sleep(0.1)
            reader.close()
            await following
            await bridge.close()
    by = partial(Figure, name="latency", unit="ms")
    figures = []
    for what, times, limit_ms, floor in (
        ("sent -> in the cache, p99", cached, 5.0, "received"),
        ("sent -> with a reader, p99", read, 20.0, "received"),
        ("sent -> in a widget's slot, p99", shown, 20.0, "drawn"),
    ):
        if len(times) < rate * seconds / 2:
            raise SystemExit(f"{what}: only {len(times)} tickers came")
        p99_ms = percentile(times, 0.99) / 1e3
        figures.append(
            by(
                what=what,
                measured=p99_ms,
                promise=f"under {limit_ms:g} ms",
                met=p99_ms < limit_ms,
                floor=percentile(floors[floor], 0.99) / 1e3,
                floor_is="bare websockets + msgspec"
                + (f", pulled every {FRAME_MS} ms" if floor == "drawn" else ""),
                note=f"p50 {percentile(times, 0.5) / 1e3:.2f},"
                f" max {max(times) / 1e3:.1f} of {len(times):,}",
            )
        )
    return figures


async def bare_latencies(exchange: Canned, rate: float, seconds: float) -> dict[str, list[float]]:
    """Microseconds until a bare reader has a frame, and until a timer pulls the newest."""
    from PySide6.QtCore import QTimer

    latest: dict[str, Any] = {}
    received: list[float] = []
    drawn: list[float] = []

    def draw() -> None:
        drawn.extend(map(since_us, latest.values()))
        latest.clear()

    timer = QTimer(singleShot=True, interval=FRAME_MS)
    timer.setTimerType(precise())
    timer.timeout.connect(draw)
    async with bare_stream(exchange.ws_url, "ticker", SYMBOLS) as connection:
        sending = asyncio.create_task(exchange.order(rate=rate, seconds=seconds))
        for _ in range(round(rate * seconds)):
            value = bare_decoder.decode(await connection.recv(decode=False))
            received.append(since_us(value))
            latest[value.market] = value
            if not timer.isActive():
                timer.start()
        await sending
    timer.stop()
    return {"received": received, "drawn": drawn}


def precise() -> Any:
    """The kind of timer that keeps to the millisecond."""
    from PySide6.QtCore import Qt

    return Qt.TimerType.PreciseTimer


class FrameTimer:
    """A precise 60 Hz timer that draws for a while, and notes how late it comes."""

    def __init__(self, work_s: float, pull: Callable[[], object]) -> None:
        from PySide6.QtCore import QTimer

        self.late_ms: list[float] = []
        self._work_s = work_s
        self._pull = pull
        self._last_s: float | None = None
        self._timer = QTimer(interval=FRAME_MS)
        self._timer.setTimerType(precise())
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        """Begin."""
        self._timer.start()

    def stop(self) -> None:
        """End."""
        self._timer.stop()

    def _tick(self) -> None:
        now_s = time.perf_counter()
        if self._last_s is not None:
            self.late_ms.append((now_s - self._last_s) * 1e3 - FRAME_MS)
        self._last_s = now_s
        self._pull()
        while time.perf_counter() - now_s < self._work_s:
            pass


async def measure_frames(long: bool) -> list[Figure]:
    """10,000 tickers a second beside the timer of a desktop that draws 4 ms of every 16."""
    from ui.bridge import BackboneBridge

    rate, seconds = 10_000.0, 40.0 if long else 8.0
    late: dict[str, list[float]] = {}
    async with canned() as exchange:
        async with asyncio.timeout(seconds * 2 + 10):
            late["idle"] = await idle_lateness(seconds / 2)
            late["bare"] = await bare_lateness(exchange, rate, seconds)
        async with routing(exchange.rest_url, exchange.ws_url) as router:
            reader = await subscribed(router, DataType.TICKER, SYMBOLS)

            def pull() -> None:
                now = time.monotonic()
                for symbol in SYMBOLS:
                    router.peek(DataType.TICKER, symbol, None, None, None, None, 60.0, now)

            late["ours"], handled = await with_timer(exchange, router, rate, seconds, pull)
            reader.close()
        async with managing(exchange.rest_url, exchange.ws_url) as manager:
            assert manager._router is not None
            bridge = BackboneBridge()
            bridge.attach(manager.api)
            bridge.watch_tickers(SYMBOLS)
            reader = await subscribed(manager._router, DataType.TICKER, SYMBOLS)
            reader.close()
            late["bridge"], shown = await with_timer(
                exchange, manager._router, rate, seconds, lambda: None
            )
            await bridge.close()
    bare_ms = percentile(late["bare"], 0.99)
    by = partial(
        Figure, name="frames", unit="ms", floor=bare_ms, floor_is="bare websockets + msgspec"
    )
    figures = [
        by(
            what="idle loop: timer late, p99",
            measured=percentile(late["idle"], 0.99),
            note=f"max {max(late['idle']):.1f}",
        )
    ]
    for what, name, kept_up in (
        ("layer 1, 250 tickers peeked a frame: timer late, p99", "ours", handled),
        ("all layers, 250 tickers through the bridge: timer late, p99", "bridge", shown),
    ):
        p99_ms = percentile(late[name], 0.99)
        figures.append(
            by(
                what=what,
                measured=p99_ms,
                promise="at most 2 ms",
                met=p99_ms <= 2.0 and kept_up >= 0.95,
                note=f"p50 {percentile(late[name], 0.5):.2f}, max {max(late[name]):.1f},"
                f" {kept_up:.0%} handled in time",
            )
        )
    return figures


async def idle_lateness(seconds: float) -> list[float]:
    """Milliseconds that the timer is late when nothing else is done."""
    timer = FrameTimer(WORK_S, lambda: None)
    timer.start()
    await asyncio.sleep(seconds)
    timer.stop()
    return timer.late_ms


async def bare_lateness(exchange: Canned, rate: float, seconds: float) -> list[float]:
    """The same beside a bare reader."""
    latest: dict[str, Any] = {}
    timer = FrameTimer(WORK_S, latest.clear)
    async with bare_stream(exchange.ws_url, "ticker", SYMBOLS) as connection:
        sending = asyncio.create_task(exchange.order(rate=rate, seconds=seconds))
        timer.start()
        for _ in range(round(rate * seconds)):
            value = bare_decoder.decode(await connection.recv(decode=False))
            latest[value.market] = value
        timer.stop()
        await sending
    return timer.late_ms


async def with_timer(
    exchange: Canned, router: Router, rate: float, seconds: float, pull: Callable[[], object]
) -> tuple[list[float], float]:
    """The same beside routing, and the share of the frames handled when the last was sent."""
    await exchange.order(rate=rate, seconds=1.0)
    gc.collect()
    gc.freeze()  # as the desktop does when it has started
    timer = FrameTimer(WORK_S, pull)
    before = messages(router)
    timer.start()
    await exchange.order(rate=rate, seconds=seconds)
    timer.stop()
    handled = (messages(router) - before) / (rate * seconds)
    await until(lambda: messages(router) >= before + rate * seconds)
    return timer.late_ms, handled


# 5. REST, a mix within the limits.


async def measure_rest(long: bool) -> list[Figure]:
    """Tickers, books, trades and candles of some markets, each answer 20 ms away."""
    rounds = 100 if long else 30
    ours: dict[str, list[float]] = defaultdict(list)
    bare: dict[str, list[float]] = defaultdict(list)
    async with (
        simulating("--fault", "latency ms=20") as addresses,
        aiohttp.ClientSession() as session,
        routing(addresses["rest_url"], addresses["ws_url"]) as router,
    ):
        await prepare(session, addresses["rest_url"])
        # Both together stay below eight a second in each group.
        for number in range(rounds):
            symbol = LISTED[number % len(LISTED)]
            requests = {
                "ticker": asked(DataType.TICKER, symbol, priority=Priority.HIGH),
                "order book": asked(DataType.ORDERBOOK, symbol, priority=Priority.HIGH),
                "trades": asked(DataType.TRADE, symbol, count=50, priority=Priority.HIGH),
                "candles": asked(
                    DataType.CANDLE,
                    symbol,
                    timeframe=Timeframe.M1,
                    count=100,
                    priority=Priority.HIGH,
                ),
            }
            for request in requests.values():
                began_s = time.perf_counter()
                response = await router.fetch(request)
                ours[response.metadata.source or "?"].append((time.perf_counter() - began_s) * 1e3)
            for path in (
                f"/ticker?markets={symbol}",
                f"/orderbook?markets={symbol}",
                f"/trades/ticks?market={symbol}&count=50",
                f"/candles/minutes/1?market={symbol}&count=100",
            ):
                bare["rest"].append(await bare_ms(session, addresses["rest_url"] + path))
            await asyncio.sleep(0.15)
        refused = counter(router, "refused")
    every = [one for times in ours.values() for one in times]
    floor = statistics.fmean(bare["rest"])
    by = partial(Figure, name="rest", unit="ms", floor=floor, floor_is="bare aiohttp, the same")
    mean = statistics.fmean(every)
    figures = [
        by(
            what="mix of ticker, book, trades, candles, 20 ms away: mean",
            measured=mean,
            promise="under 50 ms",
            met=mean < 50 and refused == 0,
            note=f"{len(every)} answers, p99 {percentile(every, 0.99):.0f} ms, {refused} refused",
        )
    ]
    for source, times in sorted(ours.items()):
        figures.append(
            by(
                what=f"of these by {source}: mean",
                measured=statistics.fmean(times),
                note=f"{len(times)} answers, p99 {percentile(times, 0.99):.0f} ms",
            )
        )
    return figures


async def prepare(session: aiohttp.ClientSession, rest_url: str) -> None:
    """Have the simulator make its tables, which it does at the first question."""
    for path in (
        f"/ticker?markets={','.join(LISTED)}",
        f"/orderbook?markets={','.join(LISTED)}",
        *(f"/candles/minutes/1?market={symbol}&count=200" for symbol in LISTED),
        *(f"/trades/ticks?market={symbol}&count=50" for symbol in LISTED),
    ):
        await bare_ms(session, rest_url + path)
    await asyncio.sleep(1.1)


async def bare_ms(session: aiohttp.ClientSession, url: str) -> float:
    """Milliseconds until the whole answer is here."""
    began_s = time.perf_counter()
    async with session.get(url) as response:
        msgspec.json.decode(await response.read())
        if response.status != 200:
            raise SystemExit(f"{url} was answered with {response.status}")
    return (time.perf_counter() - began_s) * 1e3


# 6. The limits.


async def measure_limits(long: bool) -> list[Figure]:
    """Ten minutes of simulated time under each kind of window."""
    figures = []
    for kind in WINDOW_KINDS:
        for priority, least_s, most_s in (
            (Priority.LOW, 0.0, 0.04),
            (Priority.NORMAL, 0.0, 0.04),
            (Priority.NORMAL, 0.1, 0.1),
            # The margin of the windows is 50 ms: here answers tell when a request arrived.
            (Priority.NORMAL, 0.0, 0.2),
        ):
            ways_s = (least_s, most_s)
            granted, refused, critical_wait_s = ten_minutes(kind, priority, ways_s, Random(7))
            rate = granted / 600.0
            enough = most_s > 0.1 or rate >= 0.95 * SHARED_RATE
            figures.append(
                Figure(
                    name="limits",
                    what=f"{kind} window, {priority.name} and a CRITICAL a second,"
                    f" {least_s * 1e3:.0f}..{most_s * 1e3:.0f} ms each way",
                    measured=rate,
                    unit="/s",
                    promise="no 429" if most_s > 0.1 else "at least 95 %, no 429",
                    floor=SHARED_RATE,
                    floor_is="what is left: 8 per 1.05 s; 10 min of simulated time",
                    met=enough and refused == 0,
                    note=f"{refused} refused; CRITICAL waited at most"
                    f" {critical_wait_s * 1e3:.0f} ms",
                )
            )
    return figures


def ten_minutes(
    kind: WindowKind, priority: Priority, ways_s: tuple[float, float], rng: Random
) -> tuple[int, int, float]:
    """How many requests were granted and how many of all refused, and CRITICAL's longest wait.

    A request is counted by the exchange when it arrives; each of the two ways takes from the
    one to the other of `ways_s`.
    """
    window = RateWindow(
        limit=REQUESTS_PER_WINDOW,
        window_s=WINDOW_S,
        reserve=RESERVE,
        even_low=True,
        awaits_answers=True,
    )
    line, exchange = Line(window), window_of(kind, QUOTATION)
    phase_s = rng.random()
    now, granted, refused, longest_s = 0.0, 0, 0, 0.0
    under_way: list[tuple[float, bool, Granted]] = []
    """When what arrives, whether it is an answer, and to which request it belongs."""
    critical_due_s = rng.random()
    asked_s: dict[int, float] = {}
    for _ in range(20):
        line.join(Ticket(priority))
    while now < 600.0:
        if now >= critical_due_s:
            urgent = Ticket(Priority.CRITICAL)
            asked_s[id(urgent)] = now
            line.join(urgent)
            critical_due_s += 1.0
        while (ticket := line.next(now)) is not None:
            request = Granted(now, ticket.priority)
            heapq.heappush(under_way, (now + rng.uniform(*ways_s), False, request))
            if ticket.priority is Priority.CRITICAL:
                longest_s = max(longest_s, now - asked_s.pop(id(ticket)))
            else:
                granted += 1
                line.join(Ticket(priority))
        wait_s = line.wait_s(now)
        assert wait_s is not None
        # A timer comes up to two milliseconds late.
        due_s = min(now + wait_s + rng.uniform(0.0, 0.002), max(critical_due_s, now + 1e-6))
        if not under_way or under_way[0][0] > due_s:
            now = due_s
            continue
        now, answered, request = heapq.heappop(under_way)
        if answered:
            window.answered(now, request)
            continue
        if exchange.left(phase_s + now) == 0:
            refused += 1
        exchange.add(phase_s + now)
        heapq.heappush(under_way, (now + rng.uniform(*ways_s), True, request))
    return granted, refused, longest_s


async def measure_limits_real(long: bool) -> list[Figure]:
    """A minute of real time under each kind of window, three exchanges at once."""
    results = await asyncio.gather(*(limited(kind, 60.0) for kind in WINDOW_KINDS))
    return [figure for result in results for figure in result]


async def limited(kind: WindowKind, seconds: float) -> list[Figure]:
    """LOW on candles and NORMAL on trades, more than is allowed."""
    async with (
        simulating("--window", kind) as addresses,
        aiohttp.ClientSession() as session,
    ):
        await prepare(session, addresses["rest_url"])
        await post(session, addresses["control_url"] + "/reset")
        async with routing(addresses["rest_url"], addresses["ws_url"]) as router:
            answers: dict[str, int] = defaultdict(int)
            backfills = backfill(router, answers)
            await asyncio.sleep(seconds)
            rates = {name: number / seconds for name, number in answers.items()}
            await end(backfills)
        async with session.get(addresses["control_url"]) as response:
            told = await response.json()
    figures = []
    for group, who in (("candles", "LOW"), ("trades", "NORMAL")):
        refused = told["refused"].get(group, 0)
        figures.append(
            Figure(
                name="limits-real",
                what=f"{kind} window, {who} {group}, {seconds:.0f} s of real time",
                measured=rates[group],
                unit="/s",
                promise="at least 95 %, no 429",
                floor=SHARED_RATE,
                floor_is="what is left: 8 per 1.05 s",
                met=rates[group] >= 0.95 * SHARED_RATE and refused == 0,
                note=f"{refused} refused, peak {told['peaks'][group]} in a second",
            )
        )
    return figures


async def post(session: aiohttp.ClientSession, url: str) -> None:
    """Have the simulator's side door do something."""
    async with session.post(url) as response:
        if response.status >= 300:
            raise SystemExit(f"{url} was answered with {response.status}")


def backfill(router: Router, answers: dict[str, int]) -> list[asyncio.Task[None]]:
    """Tasks that ask for candles (LOW) and trades (NORMAL) faster than it is allowed."""
    numbers = count(1)
    now = utc_datetime(SystemClock().now_ms())

    def candles(number: int) -> BackboneRequest:
        return asked(
            DataType.CANDLE,
            "KRW-BTC",
            timeframe=Timeframe.M1,
            end_time=now - timedelta(minutes=number),
            count=200,
            priority=Priority.LOW,
        )

    def trades(number: int) -> BackboneRequest:
        # No two ask the same, or they would share a request.
        rows = 2 + number // len(LISTED) % 60
        return asked(DataType.TRADE, LISTED[number % len(LISTED)], count=rows)

    async def work(name: str, request: Callable[[int], BackboneRequest]) -> None:
        while True:
            try:
                await router.fetch(request(next(numbers)))
            except RateLimitedError:
                continue  # the exchange counts it
            answers[name] += 1

    works = [work("candles", candles) for _ in range(12)]
    works += [work("trades", trades) for _ in range(12)]
    return [asyncio.create_task(one, name="backfill") for one in works]


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks; what one met before counts."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


# 7. CRITICAL beside a backfill.


async def measure_critical(long: bool) -> list[Figure]:
    """A CRITICAL call a second in two groups whose budget LOW and NORMAL use up."""
    calls = 60 if long else 25
    ours: list[float] = []
    bare: list[float] = []
    async with simulating() as addresses, aiohttp.ClientSession() as session:
        rest_url = addresses["rest_url"]
        await prepare(session, rest_url)
        for _ in range(calls):
            await asyncio.sleep(0.2)
            bare.append(await bare_ms(session, rest_url + "/trades/ticks?market=KRW-BTC&count=50"))
            path = "/candles/minutes/1?market=KRW-BTC&count=50"
            bare.append(await bare_ms(session, rest_url + path))
        await asyncio.sleep(1.1)  # these calls were a neighbour's, whom nobody announced
        async with routing(rest_url, addresses["ws_url"]) as router:
            answers: dict[str, int] = defaultdict(int)
            backfills = backfill(router, answers)
            await asyncio.sleep(2.0)
            answers.clear()
            began_s = time.perf_counter()
            for _ in range(calls):
                begun_s = time.perf_counter()
                for request in (
                    asked(DataType.TRADE, "KRW-BTC", count=50, priority=Priority.CRITICAL),
                    asked(
                        DataType.CANDLE,
                        "KRW-BTC",
                        timeframe=Timeframe.M1,
                        count=50,
                        priority=Priority.CRITICAL,
                    ),
                ):
                    sent_s = time.perf_counter()
                    response = await router.fetch(request)
                    assert response.metadata.source == "rest", response.metadata
                    ours.append((time.perf_counter() - sent_s) * 1e3)
                await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - begun_s)))
            took_s = time.perf_counter() - began_s
            await end(backfills)
            refused = counter(router, "refused")
    p99_ms = percentile(ours, 0.99)
    low_rate, normal_rate = (answers[group] / took_s for group in ("candles", "trades"))
    return [
        Figure(
            name="critical",
            what=f"{len(ours)} CRITICAL calls by REST beside a full backfill, p99",
            measured=p99_ms,
            unit="ms",
            promise="under 50 ms",
            floor=percentile(bare, 0.99),
            floor_is="bare aiohttp, nothing else asked",
            met=p99_ms < 50 and refused == 0,
            note=f"p50 {percentile(ours, 0.5):.1f} ms (bare {percentile(bare, 0.5):.1f});"
            f" LOW {low_rate:.2f}/s, NORMAL {normal_rate:.2f}/s, {refused} refused",
        )
    ]


# 8. Everything at once.


async def measure_scan(long: bool) -> list[Figure]:
    """The tickers of all KRW markets, one call each, none in memory."""
    figures = []
    async with simulating() as addresses, aiohttp.ClientSession() as session:
        rest_url, ws_url = addresses["rest_url"], addresses["ws_url"]
        every = rest_url + "/ticker/all?quote_currencies=KRW"
        await bare_ms(session, every)
        await asyncio.sleep(1.1)
        bare = statistics.median([await bare_ms(session, every) for _ in range(5)])
        async with session.get(rest_url + "/market/all") as response:
            rows = await response.json()
        symbols = [row["market"] for row in rows if row["market"].startswith("KRW-")]
        await asyncio.sleep(1.1)
        async with routing(rest_url, ws_url) as router:
            calls = [router.fetch(asked(DataType.TICKER, symbol)) for symbol in symbols]
            figures += await scanned(f"{len(symbols)} calls of layer 1", router, calls, bare)
        await asyncio.sleep(1.1)
        async with managing(rest_url, ws_url) as manager:
            assert manager._router is not None
            await manager.api.get_markets()
            asking = [manager.api.get_ticker_data(symbol) for symbol in symbols]
            name = f"{len(symbols)} calls of the API"
            figures += await scanned(name, manager._router, asking, bare)
    return figures


async def scanned(
    what: str, router: Router, calls: Sequence[Awaitable[object]], bare: float
) -> list[Figure]:
    """The requests and the time of many calls at once."""
    before, began_s = counter(router, "requests"), time.perf_counter()
    await asyncio.gather(*calls)
    took_ms = (time.perf_counter() - began_s) * 1e3
    requests = counter(router, "requests") - before
    return [
        Figure(
            name="scan",
            what=f"{what} at once: requests",
            measured=requests,
            unit="",
            promise="at most 2",
            floor=1,
            floor_is="one /ticker/all",
            met=requests <= 2,
        ),
        Figure(
            name="scan",
            what=f"{what} at once: time",
            measured=took_ms,
            unit="ms",
            floor=bare,
            floor_is="bare aiohttp, one /ticker/all",
        ),
    ]


# 9. Memory.


class Footprint:
    """What this process holds, from time to time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.rss: list[tuple[float, int]] = []

    def note(self, at: float) -> None:
        """Look at the memory."""
        self.rss.append((at, self._process.memory_info().rss))

    @property
    def open_files(self) -> int:
        """Descriptors (handles, on Windows)."""
        if hasattr(self._process, "num_fds"):
            return int(self._process.num_fds())
        return int(self._process.num_handles())

    def slope(self, warm_from: float) -> float:
        """Bytes for each unit of what was noted beside them, by least squares, after a warm-up."""
        points = [(at, rss) for at, rss in self.rss if at >= warm_from]
        return statistics.linear_regression(*zip(*points, strict=True)).slope


MEBIBYTE = 2**20
FLAT_MIB = 4.0
"""Of growth over the whole measurement after its warm-up: what an allocator may scatter."""


async def measure_messages(long: bool) -> list[Figure]:
    """A million frames: tickers, books, and all trades of two markets."""
    total, step = 1_000_000, 20_000
    footprint, gaps = Footprint(), 0

    async def follow(reader: Subscription) -> None:
        nonlocal gaps
        async for value in reader:
            gaps += isinstance(value, Gap)

    async with (
        canned() as exchange,
        routing(exchange.rest_url, exchange.ws_url) as router,
    ):
        readers = [
            router.subscribe(asked(DataType.TICKER, *SYMBOLS[:100])),
            router.subscribe(asked(DataType.ORDERBOOK, *SYMBOLS[:50])),
            router.subscribe(asked(DataType.TRADE, SYMBOLS[0], policy="all")),
            router.subscribe(asked(DataType.TRADE, SYMBOLS[1], policy="all")),
        ]
        following = [asyncio.create_task(follow(reader), name="follow") for reader in readers]
        await until(lambda: messages(router) >= 152)
        await asyncio.sleep(1.5)
        start, cpu_s = messages(router), time.process_time()
        tasks, files = len(asyncio.all_tasks()), footprint.open_files
        for sent in range(0, total, step):
            await exchange.order(flood=step, trades=50)
            target = start + sent + step
            await until(lambda target=target: messages(router) >= target)  # type: ignore[misc]
            footprint.note(sent + step)
        cpu_us = (time.process_time() - cpu_s) / total * 1e6
        await asyncio.sleep(0.2)
        held = len(asyncio.all_tasks()) - tasks, footprint.open_files - files
        reconnects = counter(router, "reconnects")
        standbys = counter(router, "standbys")
        for reader in readers:
            reader.close()
        await end(following)
    warm = 0.4 * total
    slope = footprint.slope(warm) * (total - warm) / MEBIBYTE
    return flat(
        "messages",
        f"{total:,} messages",
        slope,
        held,
        f"RSS {footprint.rss[0][1] / MEBIBYTE:.0f} MiB after {step:,},"
        f" {footprint.rss[-1][1] / MEBIBYTE:.0f} at the end; {cpu_us:.0f} us CPU each;"
        f" {reconnects} reconnects, {standbys} standbys, {gaps} gaps",
    )


class Hurried(Random):
    """Chance that never waits."""

    def random(self) -> float:
        return 0.0


async def measure_reconnects(long: bool) -> list[Figure]:
    """Five hundred breaks, each after two thousand frames, the trades of one market filled."""
    total, frames = 500, 2_000
    footprint, gaps = Footprint(), 0

    async def follow(reader: Subscription) -> None:
        nonlocal gaps
        async for value in reader:
            gaps += isinstance(value, Gap)

    async with (
        canned() as exchange,
        routing(exchange.rest_url, exchange.ws_url, rng=Hurried()) as router,
    ):
        readers = [
            router.subscribe(asked(DataType.TICKER, *SYMBOLS)),
            router.subscribe(asked(DataType.ORDERBOOK, *SYMBOLS)),
            router.subscribe(asked(DataType.TRADE, SYMBOLS[0], policy="all")),
        ]
        following = [asyncio.create_task(follow(reader), name="follow") for reader in readers]
        await until(lambda: messages(router) >= 501)
        await asyncio.sleep(1.5)
        start, tasks, files = messages(router), len(asyncio.all_tasks()), footprint.open_files
        for number in range(total):
            began_s = time.perf_counter()
            target = messages(router) + frames
            await exchange.order(flood=frames)
            await until(lambda target=target: messages(router) >= target)  # type: ignore[misc]
            await exchange.order(cut=1)
            # At once the snapshots of the new connection.
            await until(lambda target=target: messages(router) >= target + 501)  # type: ignore[misc]
            footprint.note(number)
            # Two readings fill a gap: more breaks than this would outrun the limit of REST.
            await asyncio.sleep(max(0.0, 0.3 - (time.perf_counter() - began_s)))
        received = messages(router) - start
        await asyncio.sleep(5.0)
        held = len(asyncio.all_tasks()) - tasks, footprint.open_files - files
        reconnects, state = counter(router, "reconnects"), router.connection
        closed = counter(router, "gaps_closed")
        unfillable = counter(router, "gaps_unfillable")
        for reader in readers:
            reader.close()
        await end(following)
    warm = 0.3 * total
    slope = footprint.slope(warm) * (total - warm) / MEBIBYTE
    return flat(
        "reconnects",
        f"{reconnects} reconnects",
        slope,
        held,
        f"RSS {footprint.rss[0][1] / MEBIBYTE:.0f} MiB after the first,"
        f" {footprint.rss[-1][1] / MEBIBYTE:.0f} at the end; {received:,} messages;"
        f" {closed} gaps closed, {unfillable} not, {gaps} told; now {state}",
    )


def flat(name: str, what: str, grown_mib: float, held: tuple[int, int], note: str) -> list[Figure]:
    """The three figures of what must not grow."""
    tasks, files = held
    by = partial(Figure, name=name)
    return [
        by(
            what=f"{what}: memory by its slope after the warm-up",
            measured=grown_mib,
            unit="MiB",
            promise=f"flat (under {FLAT_MIB:g} MiB)",
            met=grown_mib < FLAT_MIB,
            note=note,
        ),
        by(what=f"{what}: more tasks", measured=tasks, unit="", promise="0", met=tasks <= 0),
        by(what=f"{what}: more descriptors", measured=files, unit="", promise="0", met=files <= 0),
    ]


# Choosing, running and printing.

MEASURES: Mapping[str, Measure] = {
    "peek": measure_peek,
    "path": measure_path,
    "latency": measure_latency,
    "frames": measure_frames,
    "rest": measure_rest,
    "limits": measure_limits,
    "critical": measure_critical,
    "scan": measure_scan,
    "limits-real": measure_limits_real,
    "messages": measure_messages,
    "reconnects": measure_reconnects,
}
ONLY_LONG = ("limits-real", "messages", "reconnects")
IN_QT = ("latency", "frames")


def main() -> int:
    """Measure and print; 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description="Measure routing, each promise beside its floor.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--long", action="store_true", help="what takes minutes, too")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in MEASURES]:
        parser.error(f"no measurement {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    names = given.names or [name for name in MEASURES if given.long or name not in ONLY_LONG]
    if given.here:
        figures = measured_here(names[0], given.long)
        sys.stdout.write(msgspec.json.encode(figures).decode())
        return 0
    every: list[Figure] = []
    failed = False
    for name in names:
        try:
            figures = measured(name, given.long)
        except subprocess.CalledProcessError as error:
            print(f"{name}: failed, exit code {error.returncode}", file=sys.stderr)
            failed = True
            continue
        every += figures
        if not given.json:
            show(figures)
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(every)).decode())
    return 1 if failed or any(figure.met is False for figure in every) else 0


def measured(name: str, long: bool) -> list[Figure]:
    """Measure in a process of its own: no measurement inherits another's memory."""
    command = [sys.executable, str(HERE), name, "--here", *(["--long"] if long else [])]
    # The project's folder is where `ui` is found.
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    return msgspec.json.decode(done.stdout, type=list[Figure])


def measured_here(name: str, long: bool) -> list[Figure]:
    """Measure in this process."""
    # Breaks are made on purpose here.
    logging.getLogger("upbit_backbone").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        measure = bounded(MEASURES[name], long)
        return in_qt(measure) if name in IN_QT else asyncio.run(measure())


def bounded(measure: Measure, long: bool) -> Callable[[], Coroutine[Any, Any, list[Figure]]]:
    """The same, ended when it takes too long."""

    async def work() -> list[Figure]:
        async with asyncio.timeout(LONGEST_S):
            return await measure(long)

    return work


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    print(f"\n{figures[0].name} (load of the machine {load:.1f} a core)")
    print(f"{'':<72}{'measured':>12}{'floor':>12}{'ratio':>7}  promise")
    for figure in figures:
        measured_ = f"{figure.measured:,.2f} {figure.unit}".strip()
        floor = "" if figure.floor is None else f"{figure.floor:,.2f} {figure.unit}".strip()
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
        promise = f"{figure.promise}: {verdict}" if figure.promise else ""
        print(f"{figure.what:<72}{measured_:>12}{floor:>12}{ratio:>7}  {promise}")
        if figure.note:
            print(f"    {figure.note}")
    if floors := dict.fromkeys(figure.floor_is for figure in figures if figure.floor_is):
        print(f"    floor: {'; '.join(floors)}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
