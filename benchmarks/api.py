"""What a call of the service costs: its bookkeeping, hits, a bot's look, a scan, and memory.

    uv run python benchmarks/api.py [NAME ...]

`bookkeeping`: telling the recorder of a hit is measured in turn with a bare `deque.append`, some
thousand calls each, and compared round by round, so that what else the machine does weighs on both
alike; the median of the rounds counts. The others have all layers and an exchange as a process of
its own. `hit`: an awaited hit beside an awaited empty coroutine. `bot`: 400 warm candles, a ticker
and the RSI; 200 candles as a chart asks for them. `scan`: every market in won, cold and warm.
`memory`: what comes in at a hundred messages a second in eight hours, as fast as it is read, with
warm calls between. Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psutil

from benchmarks.stage import managing
from upbit_backbone import BackboneManager
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager
from upbit_backbone.protocol import DataType, Priority, Tier
from upbit_backbone.telemetry.calls import MAX_WAITING, SAMPLED_A_SECOND, TIERS, CallRecorder

ROUNDS = 200
CALLS = 2_000
GOAL_US = 0.3
GOAL_AWAITS = 9
SYMBOL = "KRW-BTC"
PATHS = ("peek", "direct: api → coordinator → storage", "bus: api → coordinator → storage → router")


def told(what: str, measured: float, unit: str, limit: float, note: str = "") -> bool:
    """Print a figure beside its promise; whether that is kept."""
    kept = measured <= limit
    print(
        f"{what:<56}{measured:>12,.3f} {unit:<3} at most {limit:g}: {'met' if kept else 'MISSED'}"
        f"{'  ' + note if note else ''}",
        flush=True,
    )
    return kept


async def bookkeeping() -> bool:
    hit_us = recording()
    draining()
    deciding()
    return told("recording a hit", hit_us, "µs", GOAL_US)


def recording() -> float:
    """Microseconds to tell of a hit, printed beside a bare append."""
    bare: deque[tuple[Priority, DataType, str, str, float]] = deque(maxlen=MAX_WAITING)
    calls = CallRecorder(Random(1), 0.0)
    priority, data_type = Priority.CRITICAL, DataType.TICKER
    path, taken_s = "peek", 2e-6
    tier: Tier = "memory"
    sample = (priority, data_type, path, tier, taken_s)
    append, answered = bare.append, calls.answered
    # What the loop itself costs is taken off both.
    rounds: list[tuple[float, float]] = []
    for now in range(ROUNDS):
        bare.clear()
        calls.drain(float(now))  # as it is in use: a full queue would reuse what falls out
        start = time.perf_counter()
        for _ in range(CALLS):
            pass
        looped = time.perf_counter()
        for _ in range(CALLS):
            append(sample)
        appended = time.perf_counter()
        for _ in range(CALLS):
            answered(priority, data_type, path, tier, taken_s)
        told = time.perf_counter()
        loop_s = looped - start
        rounds.append((appended - looped - loop_s, told - appended - loop_s))
    bare_us = statistics.median(floor for floor, _ in rounds) / CALLS * 1e6
    hit_us = statistics.median(hit for _, hit in rounds) / CALLS * 1e6
    ratio = statistics.median(hit / floor for floor, hit in rounds)
    print(f"recording a hit: {hit_us:.3f} µs   a bare append: {bare_us:.3f} µs   {ratio:.1f} ×")
    return hit_us


def draining() -> None:
    """Print what the recorder takes of a second, and how much memory."""
    chance = Random(1)
    few = [(Priority.CRITICAL, data_type, PATHS[0]) for data_type in DataType]
    every = [(p, data_type, path) for p in Priority for data_type in DataType for path in PATHS]
    for title, kinds, a_second, spread in (
        ("5,000 hits of 4 kinds", few, SAMPLED_A_SECOND, 0.3),
        ("50,000 hits of 4 kinds, sampled", few, 10 * SAMPLED_A_SECOND, 0.3),
        ("5,000 calls of 48 kinds, 1 µs to 10 s", every, SAMPLED_A_SECOND, 2.0),
    ):
        calls = CallRecorder(Random(1), 0.0)
        took_ms = []
        for second in range(1, 40):
            for _ in range(a_second):
                taken_s = chance.lognormvariate(-13 if spread < 1 else -7, spread)
                calls.answered(*chance.choice(kinds), chance.choice(TIERS), taken_s)
            took_ms.append(milliseconds(partial(calls.drain, float(second))))
        view_ms = milliseconds(partial(calls.windows, 40.0))
        print(
            f"{title}: a drain takes {statistics.median(took_ms):.1f} ms"
            f" (longest {max(took_ms):.1f}), all figures {view_ms:.1f} ms,"
            f" {calls.size_bytes / 1e6:.1f} MB"
        )


def deciding() -> None:
    """Print what the load manager takes for a reading and for a question."""
    manager = SystemLoadManager(memory_limit_bytes=1 << 30)
    reading = LoadReading(oldest_wait_s={Priority.HIGH: 0.01}, rss_bytes=1 << 28)
    times = 10_000
    start = time.perf_counter()
    for _ in range(times):
        manager.observe(reading, 0.0)
    observed_s = time.perf_counter() - start
    for _ in range(times):
        manager.check_resource_availability(Priority.LOW)
    asked_s = time.perf_counter() - start - observed_s
    print(
        f"load: a reading takes {observed_s / times * 1e6:.1f} µs,"
        f" a question {asked_s / times * 1e6:.2f} µs"
    )


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


# All layers, and an exchange that is a process of its own.

HERE = Path(__file__)
SIMULATE = ("-c", "from upbit_backbone.cli import main; main()", "simulate", "--rate", "5")
CANNED = (str(HERE.with_name("canned_exchange.py")),)
SYMBOL = "KRW-BTC"
HIT_ROUNDS, HIT_CALLS = 100, 2_000
LOOKS = 200
FRAMES, STEP = 2_880_000, 40_000
"""Eight hours of a hundred a second."""
WARM_FROM = 0.4
"""Of all frames: until then caches fill."""
FLAT_MB = 16.0
MOST_MB = 1_000.0


@asynccontextmanager
async def serving(
    *command: str,
) -> AsyncIterator[tuple[BackboneManager, asyncio.subprocess.Process]]:
    """An exchange, and the service on it in a folder that is deleted afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        addresses = msgspec.json.decode(await process.stdout.readline())
        async with managing(addresses["rest_url"], addresses["ws_url"]) as manager:
            yield manager, process
    finally:
        process.terminate()
        await process.wait()


async def read(stream: Any) -> None:
    """All of a stream."""
    async with stream:
        async for _ in stream:
            pass


async def stopped(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def hit() -> bool:
    """An awaited hit, beside an awaited coroutine that does nothing."""

    async def nothing() -> None:
        return None

    async with serving(*SIMULATE) as (manager, _), manager.api.stream_ticker(SYMBOL) as stream:
        await anext(stream)
        api = manager.api

        async def ask() -> object:
            return await api.get_ticker_data(SYMBOL, Priority.CRITICAL)

        gc.collect()
        gc.freeze()
        took: dict[str, list[float]] = {"loop": [], "nothing": [], "hit": [], "name": []}
        symbol, critical = SYMBOL, Priority.CRITICAL
        hits = api.get_performance_metrics().cache_hits
        for _ in range(HIT_ROUNDS):
            began = time.perf_counter()
            for _ in range(HIT_CALLS):
                pass
            took["loop"].append(time.perf_counter() - began)
            took["nothing"].append(await awaited_s(nothing))
            began = time.perf_counter()
            for _ in range(HIT_CALLS):
                await api.get_ticker_data(symbol, critical)
            took["hit"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for _ in range(HIT_CALLS):
                _ = Priority.CRITICAL
            took["name"].append(time.perf_counter() - began)
            await asyncio.sleep(0.01)  # messages come in, and the recorder is drained
        await asyncio.sleep(1.5)
        hits = api.get_performance_metrics().cache_hits - hits
    # The least disturbed round of each: nothing here waits for anything.
    loop_s = min(took["loop"])
    bare_ns, hit_ns, name_ns = (
        (min(took[way]) - loop_s) / HIT_CALLS * 1e9 for way in ("nothing", "hit", "name")
    )
    note = (
        f"{hit_ns:.0f} ns of {bare_ns:.0f} ns; {hits:,} hits of {HIT_ROUNDS * HIT_CALLS:,} calls;"
        f" who writes Priority.CRITICAL in each call adds {name_ns:.0f} ns of Python's own"
    )
    return told("an awaited hit / a bare await", hit_ns / bare_ns, "x", 9, note)


async def awaited_s(way: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    for _ in range(HIT_CALLS):
        await way()
    return time.perf_counter() - began


async def bot() -> bool:
    """What a trader's program looks at, all of it warm."""
    async with serving(*SIMULATE) as (manager, _):
        api = manager.api
        readers = [
            asyncio.create_task(read(stream))
            for stream in (api.stream_ticker(SYMBOL), api.stream_candles(SYMBOL, "1m"))
        ]
        await api.get_candle_data(SYMBOL, "1m", count=600)
        await asyncio.sleep(3)
        critical = Priority.CRITICAL

        async def look() -> None:
            candles = await api.get_candle_data(SYMBOL, "1m", count=400, priority=critical)
            await api.get_ticker_data(SYMBOL, critical)
            await api.get_indicator(SYMBOL, "RSI", priority=critical)
            assert len(candles) == 400

        async def chart() -> None:
            await api.get_candle_data(SYMBOL, "1m", count=200, priority=Priority.HIGH)

        looks, charts = [], []
        for _ in range(LOOKS):
            looks.append(await one_ms(look))
            charts.append(await one_ms(chart))
            await asyncio.sleep(0.02)
        await stopped(readers)
    spread = f"p50 {{:.2f}}, longest {{:.2f}} ms of {LOOKS}"
    note = spread.format(statistics.median(looks), max(looks))
    kept = told("400 warm candles + ticker + RSI, p99", p99(looks), "ms", 10, note)
    note = spread.format(statistics.median(charts), max(charts))
    return told("200 warm candles for a chart, p99", p99(charts), "ms", 50, note) and kept


async def one_ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1e3


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


async def scan() -> bool:
    """One call for each market in won, at once."""
    async with serving(*SIMULATE) as (manager, _):
        api = manager.api
        won = [one.symbol for one in await api.get_markets() if one.symbol.startswith("KRW-")]

        async def scan_all() -> None:
            await asyncio.gather(*(api.get_ticker_data(one, Priority.HIGH) for one in won))

        # The simulator makes its markets when they are asked for first; an exchange has them.
        await asyncio.gather(*(api.get_ticker_data(one, Priority.LOW, timeout=120) for one in won))
        await asyncio.sleep(Priority.HIGH.max_age_s + 1)
        before = manager.get_layer_status("layer_1").counters["requests"]
        cold_ms = await one_ms(scan_all)
        requests = manager.get_layer_status("layer_1").counters["requests"] - before
        warm_ms = [await one_ms(scan_all) for _ in range(20)]
    note = f"{len(won)} calls, {requests:.0f} requests"
    kept = told("a cold scan of every market in won", cold_ms, "ms", 2_000, note)
    return told("a warm one, longest of 20", max(warm_ms), "ms", 50) and kept


async def memory() -> bool:
    """What eight hours bring, in a minute or two."""
    process = psutil.Process()
    async with serving(*CANNED) as (manager, exchange):
        api = manager.api
        symbols = [one.symbol for one in await api.get_markets()][:100]
        streams = [api.stream_ticker(symbol) for symbol in symbols]
        streams += [api.stream_orderbook(symbol) for symbol in symbols[:50]]
        streams += [api.stream_trades(symbol, policy="all") for symbol in symbols[:2]]
        readers = [asyncio.create_task(read(stream)) for stream in streams]
        await asyncio.sleep(3)
        tasks, resident = len(asyncio.all_tasks()), []
        assert exchange.stdin is not None
        assert exchange.stdout is not None
        for sent in range(0, FRAMES, STEP):
            exchange.stdin.write(msgspec.json.encode({"flood": STEP, "trades": 50}) + b"\n")
            await exchange.stdout.readline()
            for symbol in symbols:
                await api.get_ticker_data(symbol, Priority.LOW)
            resident.append(((sent + STEP) / FRAMES, process.memory_info().rss / 1e6))
        left = len(asyncio.all_tasks()) - tasks
        await stopped(readers)
    warm = [point for point in resident if point[0] >= WARM_FROM]
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * (1 - WARM_FROM)
    note = f"{resident[0][1]:.0f} MB at first, {resident[-1][1]:.0f} at the end, {left:+} tasks"
    kept = told(f"growth over {FRAMES:,} messages, once warm", slope, "MB", FLAT_MB, note)
    return told("the most it was", max(rss for _, rss in resident), "MB", MOST_MB) and kept


MEASURES: Mapping[str, Callable[[], Coroutine[Any, Any, bool]]] = {
    "bookkeeping": bookkeeping,
    "hit": hit,
    "bot": bot,
    "scan": scan,
    "memory": memory,
}


def main() -> int:
    """Print the figures; 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description="Measure what a call of the service costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in MEASURES]:
        parser.error(f"no measurement {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    kept = [asyncio.run(MEASURES[name]()) for name in names or MEASURES]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
