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
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec

from benchmarks.figures import Figure, show
from benchmarks.stage import counter, managing, simulating
from upbit_backbone import Progress
from upbit_backbone.clock import SystemClock, utc_datetime
from upbit_backbone.coordinator.plan import CandlePlan, Hole
from upbit_backbone.coordinator.walk import CandleWalk
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES

SYMBOL = "KRW-BTC"
BUDGET_PER_S = 8 / 1.05
"""What all but CRITICAL may ask together."""
ROUNDS = 5
BACKFILL_FOR_S = 20.0
BURST_OVER_S = 1.2
"""After so long the budget of a burst is whole again."""


def late(latency_ms: float) -> tuple[str, str]:
    """The flags of an exchange whose pages of candles are late by so much."""
    return "--fault", f"latency group=candles ms={latency_ms:g}"


def now() -> datetime:
    """An hour before now, so that everything asked for is closed."""
    return utc_datetime(SystemClock().now_ms()) - timedelta(hours=1)


async def measure_parallel(long: bool) -> list[Figure]:
    """1,000 cold candles: five pages at once, beside the same five one after another."""
    took: dict[str, list[float]] = {"parallel": [], "one by one": []}
    async with (
        simulating(*late(50)) as exchange,
        managing(exchange["rest_url"], exchange["ws_url"]) as manager,
    ):
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
    async with (
        simulating(*late(latency_ms)) as exchange,
        managing(exchange["rest_url"], exchange["ws_url"]) as manager,
    ):
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
