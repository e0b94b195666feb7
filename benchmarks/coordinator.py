"""How fast large requests are: pages in parallel, and a backfill against what its budget leaves.

    uv run python benchmarks/coordinator.py [NAME ...] [--long] [--json]

Everything is there: manager, storage on this disk, the simulator as a process of its own on
loopback with an injected latency. Ratios and rates are of one run. The default run takes about a
minute and looks at 20 s of the backfill; `--long` lets it come to its end, all 648 pages, which
takes three minutes more. Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import psutil

from upbit_backbone import BackboneConfig, BackboneManager, Progress
from upbit_backbone.clock import SystemClock, utc_datetime
from upbit_backbone.coordinator.plan import CandlePlan, Hole
from upbit_backbone.coordinator.walk import CandleWalk
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES

SIMULATE = (sys.executable, "-c", "from upbit_backbone.cli import main; main()", "simulate")
SYMBOL = "KRW-BTC"
BUDGET_PER_S = 8 / 1.05
"""What all but CRITICAL may ask together."""
ROUNDS = 5
BACKFILL_FOR_S = 20.0
BURST_OVER_S = 1.2
"""After so long the budget of a burst is whole again."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured promise, or (`met` is None) a figure for comparison."""

    name: str
    what: str
    measured: float
    unit: str
    promise: str = ""
    met: bool | None = None
    note: str = ""


@asynccontextmanager
async def simulating(latency_ms: float) -> AsyncIterator[dict[str, str]]:
    """The simulator as a process, each answer late by so much; gives its addresses."""
    fault = f"latency group=candles ms={latency_ms:g}"
    process = await asyncio.create_subprocess_exec(
        *SIMULATE, "--fault", fault, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield msgspec.json.decode(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def managing(addresses: dict[str, str]) -> AsyncIterator[BackboneManager]:
    """All layers, in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        config = BackboneConfig(
            rest_url=addresses["rest_url"], ws_url=addresses["ws_url"], data_dir=Path(folder)
        )
        manager = BackboneManager(config, rng=Random(1))
        await manager.initialize()
        try:
            yield manager
        finally:
            await manager.shutdown()


def counter(manager: BackboneManager, name: str) -> int:
    """A figure of layer 1."""
    return int(manager.get_layer_status("layer_1").counters[name])


def now() -> datetime:
    """An hour before now, so that everything asked for is closed."""
    return utc_datetime(SystemClock().now_ms()) - timedelta(hours=1)


async def measure_parallel(long: bool) -> list[Figure]:
    """1,000 cold candles: five pages at once, beside the same five one after another."""
    took: dict[str, list[float]] = {"parallel": [], "one by one": []}
    async with simulating(50) as addresses, managing(addresses) as manager:
        api, end = manager.api, now()
        await api.get_candle_data(SYMBOL, "1m", count=1)  # tables and connections are made
        for _ in range(ROUNDS):
            for way, pages in (("parallel", 1), ("one by one", 5)):
                await asyncio.sleep(BURST_OVER_S)
                rows, began = 0, time.perf_counter()
                for _ in range(pages):
                    start = end - timedelta(minutes=1_000 // pages)
                    rows += len(await api.get_candle_data(SYMBOL, "1m", start, end))
                    end = start
                took[way].append(time.perf_counter() - began)
                assert rows == 1_000, rows
        refused = counter(manager, "refused")
    ms = {way: statistics.median(times) * 1_000 for way, times in took.items()}
    ratio = ms["one by one"] / ms["parallel"]
    return [
        Figure(name="parallel", what="1,000 cold candles, NORMAL", measured=ms["parallel"],
               unit="ms", promise="below 1,000 ms", met=ms["parallel"] < 1_000),
        Figure(name="parallel", what="the same, one page after another",
               measured=ms["one by one"], unit="ms"),
        Figure(name="parallel", what="so many times faster", measured=ratio, unit="x",
               promise="at least 3 x", met=ratio >= 3),
        Figure(name="parallel", what="429 answers", measured=refused, unit="",
               promise="none", met=refused == 0),
    ]  # fmt: skip


async def measure_backfill(long: bool) -> list[Figure]:
    """Three months of 1m at LOW: the rate of its pages, whole or for a bounded time."""
    figures: list[Figure] = []
    for latency_ms in (0.0, 100.0):
        figures += await _backfill_at(latency_ms, math.inf if long else BACKFILL_FOR_S)
    return figures


async def _backfill_at(latency_ms: float, seconds: float) -> list[Figure]:
    async with simulating(latency_ms) as addresses, managing(addresses) as manager:
        end = now()
        told: list[Progress] = []
        chunks = manager.api.iter_candle_chunks(
            SYMBOL, "1m", end - timedelta(days=90), end, progress=told.append
        )
        candles = len(await anext(chunks))  # from here on it runs
        before, began = counter(manager, "requests"), time.perf_counter()
        async for series in chunks:
            candles += len(series)
            took_s = time.perf_counter() - began
            if took_s >= seconds:
                break
        took_s = time.perf_counter() - began
        requests = counter(manager, "requests") - before
        whole = chunks.progress.state == "done"
        chunks.cancel()
        refused = counter(manager, "refused")
        lag_ms = manager.api.get_performance_metrics().loop_lag_p95_ms
    share = requests / took_s / BUDGET_PER_S
    where = f"{latency_ms:g} ms latency"
    if whole:
        assert candles == chunks.progress.candles, (candles, chunks.progress)
        where += ", whole"
    waited = sum(one.state == "waiting for load" for one in told)
    return [
        Figure(name="backfill", what=f"three months of 1m, LOW, {where}: of what the budget leaves",
               measured=share * 100, unit="%", promise="at least 95 %", met=share >= 0.95,
               note=f"{requests} pages in {took_s:.1f} s; event loop {lag_ms:.1f} ms late (p95);"
               f" waited for load {waited} times"),
        Figure(name="backfill", what=f"candles, {where}", measured=candles / took_s, unit="/s"),
        Figure(name="backfill", what=f"429 answers, {where}", measured=refused, unit="",
               promise="none", met=refused == 0),
    ]  # fmt: skip


async def measure_walk(long: bool) -> list[Figure]:
    """What deciding the next page costs, in three months of minutes."""
    end_ms = Timeframe.M1.floor_ms(SystemClock().now_ms())
    periods = 90 * 24 * 60
    plan = CandlePlan(Timeframe.M1, (Hole(end_ms - periods * 60_000, end_ms),))
    took: list[float] = []
    for _ in range(ROUNDS):
        walk, pages, began = CandleWalk(plan), 0, time.perf_counter()
        while (page := walk.next_page()) is not None:
            walk.answered(page, page.start_ms, MAX_PAGE_CANDLES)
            pages += 1
        took.append((time.perf_counter() - began) / pages)
    return [
        Figure(name="walk", what="deciding one page of three months",
               measured=min(took) * 1e6, unit="µs")
    ]  # fmt: skip


MEASURES: dict[str, Callable[[bool], Awaitable[list[Figure]]]] = {
    "parallel": measure_parallel,
    "backfill": measure_backfill,
    "walk": measure_walk,
}


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    print(f"\n{figures[0].name} (load of the machine {load:.1f} a core)")
    for figure in figures:
        measured = f"{figure.measured:,.1f} {figure.unit}".strip()
        verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
        promise = f"{figure.promise}: {verdict}" if figure.promise else ""
        print(f"{figure.what:<76}{measured:>12}  {promise}")
        if figure.note:
            print(f"    {figure.note}")
    sys.stdout.flush()


def main() -> int:
    """Measure and print; 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description="Measure large requests, beside their promises.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--long", action="store_true", help="measure longer")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in MEASURES]:
        parser.error(f"no measurement {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    every: list[Figure] = []
    for name in given.names or MEASURES:

        async def work(name: str = name) -> list[Figure]:
            async with asyncio.timeout(420):
                return await MEASURES[name](given.long)

        figures = asyncio.run(work())
        every += figures
        if not given.json:
            show(figures)
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(every)).decode())
    return 1 if any(figure.met is False for figure in every) else 0


if __name__ == "__main__":
    sys.exit(main())
