"""How priorities hold: what each class of callers waits, alone and beside a flood.

    uv run python benchmarks/priorities.py [NAME ...] [--seconds 40] [--draw docs/priorities.svg]

The exchange is the simulator, REST and sockets as a process each, which answers everything 20 ms
late; all else is there as in use. The same calls are made twice, with the same pace: alone, and
while a LOW backfill runs at full budget, a HIGH screener asks for every market in won each second,
and about a thousand messages a second come in for readers of every such market. All promises are
those of the flood. Times are of a machine that may do other work, whose load is printed: a tail
(p99) is of everything that ran meanwhile. `clients` sends what a hundred clients mix, as fast as it
is answered and then at a hundred calls a second. Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import psutil

from benchmarks.figures import Figure, percentile, show
from benchmarks.stage import counter, managing, simulating
from upbit_backbone import BackboneError, BackboneManager, Priority
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import SystemClock, utc_datetime
from upbit_backbone.protocol import MAX_PAGE_CANDLES, BackboneMetadata, Progress

LATENCY_MS = 20
LIVELY = 7
"""So many times as lively as usual: a thousand messages a second of all markets in won."""
EXCHANGE = ("--fault", f"latency ms={LATENCY_MS:g}", "--rate", str(LIVELY))
OTHER_MARKETS = 100
"""Not in won: what clients ask for that is not streamed, none of them often enough to be."""
BUDGET_PER_S = 8 / 1.05
"""What all but CRITICAL may ask of one group together."""
FLOODED = "KRW-ETH"
"""Whose history NORMAL loads."""
WARM = "KRW-BTC"
"""Of which a chart is open, whose history LOW loads, and CRITICAL elsewhere in time."""
SECONDS = 40.0
SETTLE_S = 3.0
ASIDE_S = 0.2
READY_WITHIN_S = 180.0
CLIENTS = 100
MIXED_CALLS = 10_000
PACED_PER_S = 100
PACED_S = 60.0
WARM_MARKETS = 20
LOW_WITHIN_S = 20.0
SHARES = (0.5, 0.95, 0.99)
MEMORY_LIMIT_MB = 1_000

BARE = "a bare call, for comparison"
CRITICAL_REST = "CRITICAL, by REST"
CRITICAL_MEMORY = "CRITICAL, realtime cache"
HIGH_WARM = "HIGH, 200 warm candles"
NORMAL_WARM = "NORMAL, 200 warm candles"
NORMAL_COLD = "NORMAL, 400 cold candles"
NORMAL_LARGE = "NORMAL, 1,000 cold candles"
HIGH_SCAN = "HIGH, one call of a warm scan"
LIMITS_MS: Mapping[str, float] = {
    CRITICAL_REST: 50,
    CRITICAL_MEMORY: 1,
    HIGH_WARM: 100,
    HIGH_SCAN: 100,
    NORMAL_WARM: 500,
    NORMAL_COLD: 500,
    NORMAL_LARGE: 1_000,
}
"""What p99 has to stay below; of the last, every single one."""


class Given(msgspec.Struct, frozen=True):
    """What the command line says."""

    seconds: float
    draw: Path | None


@asynccontextmanager
async def exchange() -> AsyncIterator[dict[str, str]]:
    """REST and sockets as a process each, as the exchange has other machines for them.

    With one seed both tell the same market. In one process a thousand messages a second
    would make REST late, which is not the wait that is measured.
    """
    async with (
        simulating(*EXCHANGE, collects=False) as rest,
        simulating(*EXCHANGE, collects=False) as sockets,
    ):
        yield rest | {"ws_url": sockets["ws_url"]}


class Latencies:
    """How long calls took, by class."""

    def __init__(self) -> None:
        self.taken_ms: dict[str, list[float]] = defaultdict(list)
        self.parts_ms: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.sources: dict[str, Counter[str]] = defaultdict(Counter)

    async def of(self, kind: str, call: Awaitable[Any], part: str = "") -> Any:
        """Time a call; an error of ours is counted and gives None."""
        began = time.perf_counter()
        try:
            answer = await call
        except BackboneError as error:
            self.errors[f"{kind}: {type(error).__name__}: {error}"] += 1
            return None
        taken_ms = (time.perf_counter() - began) * 1_000
        self.taken_ms[kind].append(taken_ms)
        if part:
            self.parts_ms[kind, part].append(taken_ms)
        if isinstance(answer, tuple) and isinstance(answer[-1], BackboneMetadata):
            self.sources[kind][str(answer[-1].source)] += 1
        return answer

    def taken(self) -> Latencies:
        """What was measured so far; from here on it begins anew."""
        found = Latencies()
        found.taken_ms, self.taken_ms = self.taken_ms, found.taken_ms
        found.parts_ms, self.parts_ms = self.parts_ms, found.parts_ms
        found.errors, self.errors = self.errors, found.errors
        found.sources, self.sources = self.sources, found.sources
        return found


def past(days: float = 0.0) -> datetime:
    """So long ago, and an hour: everything before it is closed."""
    return utc_datetime(SystemClock().now_ms()) - timedelta(days=days, hours=1)


# Callers.


async def repeat(every_s: float, work: Callable[[], Awaitable[Any]]) -> None:
    """Work at a steady pace; what takes longer than a step leaves the next one out."""
    due = time.perf_counter()
    while True:
        await work()
        due = max(due + every_s, time.perf_counter())
        await asyncio.sleep(due - time.perf_counter())


class Callers:
    """Those whose waits are measured; each at its pace, with or without the flood."""

    def __init__(
        self,
        api: MarketDataAPI,
        won: Sequence[str],
        other: Sequence[str],
        bare: aiohttp.ClientSession,
        bare_url: str,
    ) -> None:
        """Take the markets in won, whose prices are streamed, and others, whose are not.

        Args:
            api: The service.
            won: Markets.
            other: Markets.
            bare: Asks the exchange beside the service, some times a second.
            bare_url: For what: the exchange's group of markets, which nobody else uses.
        """
        self._api = api
        self._session = bare
        self._bare_url = bare_url
        self.won = won
        self.other = other
        self.latencies = Latencies()
        self._turns = itertools.cycle((self._normal_cold, self._normal_cold, self._normal_large))
        fresh = {"max_age": 0, "with_metadata": True}
        groups: dict[str, Callable[[], Awaitable[Any]]] = {
            "tickers": partial(api.get_ticker_data, WARM, Priority.CRITICAL, **fresh),
            "books": partial(api.get_orderbook_data, WARM, Priority.CRITICAL, **fresh),
            "trades": partial(
                api.get_trade_data, WARM, priority=Priority.CRITICAL, count=50, with_metadata=True
            ),
            "candles": self._critical_candles,
        }
        self._groups = itertools.cycle(groups.items())
        self._critical_end = past(20)
        self._normal_end = past(200)
        self._large_end = past(600)

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin."""
        paces = (
            (0.25, self._critical_rest),
            (0.3, self._beside),
            (0.02, self._critical_memory),
            (0.1, self._high_warm),
            (0.1, self._normal_warm),
            (1.5, self._normal),
        )
        return [
            asyncio.create_task(repeat(every_s, work), name=work.__name__)
            for every_s, work in paces
        ]

    async def _critical_rest(self) -> None:
        """One call of the next group: nothing in memory can answer it."""
        part, call = next(self._groups)
        await self.latencies.of(CRITICAL_REST, call(), part)

    def _critical_candles(self) -> Awaitable[Any]:
        end = self._critical_end
        self._critical_end = start = end - timedelta(minutes=200)
        critical = Priority.CRITICAL
        return self._api.get_candle_data(WARM, "1m", start, end, critical, with_metadata=True)

    async def _beside(self) -> None:
        await self.latencies.of(BARE, self._bare())

    async def _bare(self) -> None:
        """The least that a call of the same exchange can take here and now."""
        async with self._session.get(self._bare_url) as response:
            await response.read()

    async def _critical_memory(self) -> None:
        await self.latencies.of(CRITICAL_MEMORY, self._api.get_ticker_data(WARM, Priority.CRITICAL))

    async def _high_warm(self) -> None:
        call = self._api.get_candle_data(WARM, "1m", priority=Priority.HIGH, count=200)
        await self.latencies.of(HIGH_WARM, call)

    async def _normal_warm(self) -> None:
        call = self._api.get_candle_data(WARM, "1m", priority=Priority.NORMAL, count=200)
        await self.latencies.of(NORMAL_WARM, call)

    async def _normal(self) -> None:
        """One caller who wants now little, now much: two would wait for one another."""
        await next(self._turns)()

    async def _normal_cold(self) -> None:
        end = self._normal_end
        self._normal_end = start = end - timedelta(minutes=400)
        call = self._api.get_candle_data(FLOODED, "1m", start, end, Priority.NORMAL)
        await self.latencies.of(NORMAL_COLD, call)

    async def _normal_large(self) -> None:
        end = self._large_end
        self._large_end = start = end - timedelta(minutes=1_000)
        call = self._api.get_candle_data(FLOODED, "1m", start, end, Priority.NORMAL)
        await self.latencies.of(NORMAL_LARGE, call)


class Progressed:
    """How far LOW has come."""

    def __init__(self) -> None:
        self.pages = 0.0
        self.waited = 0

    def told(self, progress: Progress) -> None:
        self.pages = progress.done / MAX_PAGE_CANDLES
        self.waited += progress.state == "waiting for load"


class Flood:
    """Everything that could be in their way."""

    def __init__(self, callers: Callers, api: MarketDataAPI) -> None:
        self._api = api
        self._callers = callers
        self.messages = 0
        self.scans_ms: list[float] = []
        self.low = Progressed()
        self.markets = callers.won

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin; the streams are open already."""
        return [
            asyncio.create_task(self._backfill(), name="backfill"),
            asyncio.create_task(repeat(1.0, self._scan), name="scan"),
        ]

    def readers(self) -> list[asyncio.Task[None]]:
        """Readers of all that is told of every market in won."""
        api = self._api
        opened = [
            open_one(symbol)
            for open_one in (api.stream_ticker, api.stream_orderbook, api.stream_trades)
            for symbol in self.markets
        ]
        return [asyncio.create_task(self._read(stream)) for stream in opened]

    async def _read(self, stream: Any) -> None:
        async with stream:
            async for _ in stream:
                self.messages += 1

    async def _scan(self) -> None:
        took, api = self._callers.latencies, self._api
        began = time.perf_counter()
        await asyncio.gather(
            *(
                took.of(HIGH_SCAN, api.get_ticker_data(symbol, Priority.HIGH))
                for symbol in self.markets
            )
        )
        self.scans_ms.append((time.perf_counter() - began) * 1_000)

    async def _backfill(self) -> None:
        chunks = self._api.iter_candle_chunks(
            WARM, "1m", past(190), past(40), progress=self.low.told
        )
        async for _ in chunks:
            pass


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel, and raise what one of them failed with."""
    failed = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    assert not failed, failed


async def prepared(
    manager: BackboneManager,
    session: aiohttp.ClientSession,
    *,
    markets: int | None = None,
    others: int = 0,
) -> Callers:
    """Markets of the exchange; what is measured warm is in memory."""
    api = manager.api
    listed = [market.symbol for market in await api.get_markets()]
    won = [symbol for symbol in listed if symbol.startswith("KRW-")][:markets]
    other = [symbol for symbol in listed if not symbol.startswith("KRW-")][:others]
    # The simulator makes a market when it is asked for it first; an exchange has them. Minutes of
    # that are no figure of ours.
    await asyncio.gather(
        *(api.get_ticker_data(symbol, Priority.LOW, timeout=READY_WITHIN_S) for symbol in won)
    )
    for symbol in other:
        url = f"{manager.config.rest_url}/ticker?markets={symbol}"
        async with session.get(url) as response:
            await response.read()
        await asyncio.sleep(ASIDE_S)
    for symbol in (WARM, FLOODED):
        await api.get_candle_data(symbol, "1m", count=400)
    # As a program does that has started: the collector need not walk through what stays.
    gc.collect()
    gc.freeze()
    return Callers(api, won, other, session, f"{manager.config.rest_url}/market/all")


async def streaming(flood: Flood, markets: int) -> list[asyncio.Task[None]]:
    """Readers of everything, once it flows."""
    readers = flood.readers()
    async with asyncio.timeout(READY_WITHIN_S):
        while flood.messages < 3 * markets:
            await asyncio.sleep(0.5)
    return readers


# What is measured.


class Counts(msgspec.Struct, frozen=True):
    """What happened so far."""

    at_s: float
    messages: int
    low_pages: float
    candle_calls: int
    """The exchange's own count."""
    refused: int

    def since(self, before: Counts) -> Counts:
        return Counts(
            *(after - was for after, was in zip(fields(self), fields(before), strict=True))
        )


def fields(counts: Counts) -> tuple[Any, ...]:
    return msgspec.structs.astuple(counts)


async def counted(control_url: str, flood: Flood) -> Counts:
    """Ask the exchange too."""
    async with aiohttp.ClientSession() as session, session.get(control_url) as response:
        said = await response.json()
    return Counts(
        time.perf_counter(),
        flood.messages,
        flood.low.pages,
        said["served"].get("candles", 0),
        sum(said["refused"].values()),
    )


async def measure_flood(given: Given) -> list[Figure]:
    """Each class alone, and beside the flood."""
    async with (
        exchange() as addresses,
        managing(addresses["rest_url"], addresses["ws_url"]) as manager,
        aiohttp.ClientSession() as session,
    ):
        callers = await prepared(manager, session)
        flood = Flood(callers, manager.api)
        note = partial(counted, addresses["control_url"], flood)
        # Without a reader nothing is streamed: memory could not answer CRITICAL, nor would it hold
        # the candle that forms, as it does while a chart shows it.
        async with (
            manager.api.stream_ticker(WARM) as stream,
            manager.api.stream_candles(WARM, "1m") as chart,
        ):
            await asyncio.gather(anext(stream), anext(chart))
            alone, _ = await measured(callers, given.seconds, [], note)
            readers = await streaming(flood, len(callers.won))
            floods = [*readers, *flood.tasks()]
            beside, counts = await measured(callers, given.seconds, floods, note)
        metrics = manager.api.get_performance_metrics()
    print(
        f"event loop late {metrics.loop_lag_p95_ms:.1f} ms (p95), load {metrics.load:.0f},"
        f" LOW waited for the load {flood.low.waited} times, by REST or socket:"
        f" {dict(beside.sources[CRITICAL_REST])}"
    )
    if given.draw is not None:
        draw(given.draw, alone.taken_ms, beside.taken_ms)
    return [
        *classes("alone", alone, promised=False),
        *classes("beside the flood", beside, promised=True),
        *others(flood, beside, counts),
    ]


async def measured(
    callers: Callers,
    seconds: float,
    beside: Sequence[asyncio.Task[None]],
    note: Callable[[], Awaitable[Counts]],
) -> tuple[Latencies, Counts]:
    """Let all callers run for so long after a warm-up; ends what runs beside them."""
    tasks = [*callers.tasks(), *beside]
    await asyncio.sleep(SETTLE_S)
    callers.latencies.taken()
    before = await note()
    await asyncio.sleep(seconds)
    counts = (await note()).since(before)
    found = callers.latencies.taken()
    await end(tasks)
    return found, counts


def classes(where: str, latencies: Latencies, *, promised: bool) -> list[Figure]:
    """The waits of each class."""
    figures = []
    for kind, taken_ms in latencies.taken_ms.items():
        p50, p95, p99 = (percentile(taken_ms, share) for share in SHARES)
        limit = LIMITS_MS.get(kind, math.inf)
        by_part = "".join(
            f"; {part} {percentile(some, 0.5):.0f} to {max(some):.0f}"
            for (one, part), some in latencies.parts_ms.items()
            if one == kind
        )
        figures.append(
            Figure(
                name="flood",
                what=f"{kind}, {where}: p99",
                measured=p99,
                unit="ms",
                promise=f"< {limit:g} ms" if promised and kind in LIMITS_MS else "",
                met=p99 < limit if promised and kind in LIMITS_MS else None,
                note=f"p50 {p50:.3f}  p95 {p95:.3f}  p99 {p99:.3f}  longest {max(taken_ms):.3f} ms"
                f" of {len(taken_ms):,} calls{by_part}",
            )
        )
    errors = latencies.errors
    return [
        *figures,
        Figure(
            name="flood",
            what=f"errors, {where}",
            measured=errors.total(),
            unit="",
            promise="none",
            met=not errors,
            note="; ".join(f"{many} x {what}" for what, many in errors.most_common(3)),
        ),
    ]


def others(flood: Flood, latencies: Latencies, counts: Counts) -> list[Figure]:
    """What LOW, the screener and the exchange had of it."""
    budget = BUDGET_PER_S * counts.at_s
    critical = len(latencies.taken_ms[CRITICAL_REST]) / 4
    urgent = counts.candle_calls - critical - counts.low_pages
    share = counts.low_pages / (budget - urgent)
    scan_ms = percentile(flood.scans_ms, 0.99)
    return [
        Figure(name="flood", what="LOW, of the pages that the others left", measured=share * 100,
               unit="%", promise=">= 95 %", met=share >= 0.95,
               note=f"{counts.low_pages:.0f} LOW, {urgent:.0f} HIGH and NORMAL,"
               f" {critical:.0f} CRITICAL pages in {counts.at_s:.1f} s; the budget is"
               f" {budget:.0f} and CRITICAL's own"),
        Figure(name="flood", what="429 answers", measured=counts.refused, unit="",
               promise="none", met=counts.refused == 0),
        Figure(name="flood", what="messages to readers", unit="/s",
               measured=counts.messages / counts.at_s),
        Figure(name="flood", what="warm scan of every market in won, p99", measured=scan_ms,
               unit="ms", promise="< 50 ms", met=scan_ms < 50,
               note=f"p50 {percentile(flood.scans_ms, 0.5):.1f} ms"
               f" of {len(flood.scans_ms)} scans of {len(flood.markets)} calls"),
    ]  # fmt: skip


# A hundred clients.

MIX = {"ticker": 40, "orderbook": 20, "trade": 10, "candle": 30}
PRIORITIES = {Priority.CRITICAL: 10, Priority.HIGH: 30, Priority.NORMAL: 40, Priority.LOW: 20}
COLD_EVERY_S = 0.2
"""At most five calls a second of each kind need the exchange."""


class Clients:
    """What a hundred clients ask for, mixed by chance."""

    def __init__(self, api: MarketDataAPI, callers: Callers, rng: Random) -> None:
        self._api = api
        self._warm = callers.won[:WARM_MARKETS]
        self._other = itertools.cycle(callers.other)
        self._rng = rng
        self._cold_again_s = dict.fromkeys(MIX, 0.0)
        self._end = {"candle": past(300), "trade": past(0)}
        self.latencies = Latencies()
        self.cold = 0

    def reading(self) -> list[asyncio.Task[None]]:
        """Readers of what is to be warm."""
        api = self._api
        # A candle that forms is known to be current while its stream runs.
        minutes = partial(api.stream_candles, timeframe="1m")
        opens = (api.stream_ticker, api.stream_orderbook, minutes)
        return [
            asyncio.create_task(read(open_one(symbol)))
            for open_one in opens
            for symbol in self._warm
        ]

    async def warm_up(self) -> None:
        """Until memory answers: a stream's first minute is whole when its page was read."""
        async with asyncio.timeout(READY_WITHIN_S):
            for symbol in self._warm:
                path = ""
                while path != "peek":
                    _, metadata = await self._api.get_candle_data(
                        symbol, "1m", priority=Priority.CRITICAL, count=200, with_metadata=True
                    )
                    path = metadata.path
                    await asyncio.sleep(ASIDE_S)

    async def call(self) -> None:
        """One call of the mix."""
        rng = self._rng
        kind = rng.choices(list(MIX), list(MIX.values()))[0]
        priority = rng.choices(list(PRIORITIES), list(PRIORITIES.values()))[0]
        cold = time.perf_counter() >= self._cold_again_s[kind]
        if kind == "trade" and not cold:
            kind = "ticker"  # memory never answers trades: each call is the exchange's
        if cold:
            self._cold_again_s[kind] = time.perf_counter() + COLD_EVERY_S
            self.cold += 1
        made = (self._cold if cold else self._warm_call)(kind, priority)
        await self.latencies.of(f"{priority.name}{', cold' if cold else ''}", made)

    def _warm_call(self, kind: str, priority: Priority) -> Awaitable[Any]:
        api, symbol = self._api, self._rng.choice(self._warm)
        if kind == "ticker":
            return api.get_ticker_data(symbol, priority)
        if kind == "orderbook":
            return api.get_orderbook_data(symbol, priority)
        return api.get_candle_data(symbol, "1m", priority=priority, count=self._rng.randint(1, 200))

    def _cold(self, kind: str, priority: Priority) -> Awaitable[Any]:
        api, symbol = self._api, next(self._other)
        if kind == "ticker":
            return api.get_ticker_data(symbol, priority)
        if kind == "orderbook":
            return api.get_orderbook_data(symbol, priority)
        end, step = self._end[kind], timedelta(minutes=200 if kind == "candle" else 1)
        self._end[kind] = start = end - step
        if kind == "trade":
            return api.get_trade_data(WARM, None, end, priority, count=20)
        return api.get_candle_data(WARM, "1m", start, end, priority)


async def read(stream: Any) -> None:
    """All of a stream."""
    async with stream:
        async for _ in stream:
            pass


async def measure_clients(given: Given) -> list[Figure]:
    """As fast as answers come, and then at a hundred a second."""
    process = psutil.Process()
    figures = []
    async with (
        exchange() as addresses,
        managing(addresses["rest_url"], addresses["ws_url"]) as manager,
        aiohttp.ClientSession() as session,
    ):
        callers = await prepared(manager, session, markets=WARM_MARKETS, others=OTHER_MARKETS)
        clients = Clients(manager.api, callers, Random(7))
        readers = clients.reading()
        await clients.warm_up()
        await asyncio.sleep(SETTLE_S)
        for name, work in (
            (f"{MIXED_CALLS:,} calls of {CLIENTS} clients", as_fast_as_answered),
            (f"{PACED_PER_S} calls/s for {PACED_S:g} s", at_a_pace),
        ):
            clients.latencies, clients.cold = Latencies(), 0
            refused, began = counter(manager, "refused"), time.perf_counter()
            await work(clients)
            took_s = time.perf_counter() - began
            figures += mixed(name, clients, took_s, counter(manager, "refused") - refused)
        rss_mb = process.memory_info().rss / 1e6
        await end(readers)
    figures.append(
        Figure(name="clients", what="memory of this process", measured=rss_mb, unit="MB",
               promise=f"< {MEMORY_LIMIT_MB:,} MB", met=rss_mb < MEMORY_LIMIT_MB)
    )  # fmt: skip
    return figures


async def as_fast_as_answered(clients: Clients) -> None:
    async def one() -> None:
        for _ in range(MIXED_CALLS // CLIENTS):
            await clients.call()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


async def at_a_pace(clients: Clients) -> None:
    began, calls = time.perf_counter(), []
    for number in range(int(PACED_PER_S * PACED_S)):
        due = began + number / PACED_PER_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        calls.append(asyncio.create_task(clients.call()))
    await asyncio.gather(*calls)


def mixed(what: str, clients: Clients, took_s: float, refused: float) -> list[Figure]:
    """The waits by priority, and what went wrong."""
    latencies = clients.latencies
    figures = []
    for kind, taken_ms in sorted(latencies.taken_ms.items()):
        p50, p95, p99 = (percentile(taken_ms, share) for share in (0.5, 0.95, 0.99))
        longest_s = max(taken_ms) / 1_000
        limit_s = Priority[kind.partition(",")[0]].deadline_s or LOW_WITHIN_S
        figures.append(
            Figure(name="clients", what=f"{what}: {kind}, longest", measured=longest_s * 1_000,
                   unit="ms", promise=f"< {limit_s:g} s", met=longest_s < limit_s,
                   note=f"p50 {p50:.3f}  p95 {p95:.3f}  p99 {p99:.3f} ms"
                   f" of {len(taken_ms):,} calls")
        )  # fmt: skip
    errors = latencies.errors
    return [
        *figures,
        Figure(name="clients", what=f"{what}: errors", measured=errors.total(), unit="",
               promise="none", met=not errors,
               note="; ".join(f"{many} x {what}" for what, many in errors.most_common(3))),
        Figure(name="clients", what=f"{what}: 429 answers", measured=refused, unit="",
               promise="none", met=refused == 0),
        Figure(name="clients", what=f"{what}: calls", unit="/s",
               measured=sum(map(len, latencies.taken_ms.values())) / took_s,
               note=f"{clients.cold} of them cold, {took_s:.1f} s"),
    ]  # fmt: skip


# The picture.

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 760, 46, 210, 40, 58, 44
STYLE = "font-family='sans-serif' font-size='12' fill='#57606a'"
LEAST_MS, MOST_MS = 0.001, 10_000.0
TITLE = "How long callers wait: p50, p95 and p99, in milliseconds"
LEGEND = (
    "<tspan fill='#1f6feb'>alone</tspan>, <tspan fill='#bc4c00'>beside a LOW backfill, a HIGH"
    " screener and 1,000 messages/s</tspan>; the bar is what p99 has to stay below"
)


def draw(path: Path, alone: Mapping[str, list[float]], beside: Mapping[str, list[float]]) -> None:
    """p50, p95 and p99 of each class on a logarithmic axis, and what is promised of p99."""
    kinds = [kind for kind in LIMITS_MS if kind in beside]
    height = TOP + ROW * len(kinds) + BOTTOM
    decades = range(round(math.log10(LEAST_MS)), round(math.log10(MOST_MS)) + 1)

    def x(ms: float) -> float:
        share = math.log10(max(ms, LEAST_MS) / LEAST_MS) / math.log10(MOST_MS / LEAST_MS)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}'>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        f"<text x='12' y='22' {STYLE} font-weight='bold'>{TITLE}</text>",
        f"<text x='12' y='42' {STYLE}>{LEGEND}</text>",
    ]
    parts += [
        f"<path d='M{x(10.0**power):.1f} {TOP}V{height - BOTTOM}' stroke='#d0d7de'/>"
        f"<text x='{x(10.0**power):.1f}' y='{height - BOTTOM + 18}' text-anchor='middle'"
        f" {STYLE}>{10.0**power:g}</text>"
        for power in decades
    ]
    for number, kind in enumerate(kinds):
        middle = TOP + ROW * number + ROW / 2
        limit = x(LIMITS_MS[kind])
        parts.append(f"<text x='12' y='{middle + 4:.1f}' {STYLE}>{kind}</text>")
        parts.append(
            f"<path d='M{limit:.1f} {middle - 16:.1f}V{middle + 16:.1f}' stroke='#57606a'"
            " stroke-width='2'/>"
        )
        for taken_ms, colour, y in (
            (alone.get(kind), "#1f6feb", middle - 7),
            (beside.get(kind), "#bc4c00", middle + 7),
        ):
            if taken_ms:
                parts.append(spread([x(percentile(taken_ms, p)) for p in SHARES], y, colour))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def spread(at: Sequence[float], y: float, colour: str) -> str:
    """A line from p50 to p99, with a dot at each."""
    dots = "".join(
        f"<circle cx='{place:.1f}' cy='{y:.1f}' r='{size}' fill='{colour}'/>"
        for place, size in zip(at, (5, 4, 3), strict=True)
    )
    return f"<path d='M{at[0]:.1f} {y:.1f}H{at[-1]:.1f}' stroke='{colour}' stroke-width='3'/>{dots}"


MEASURES: Mapping[str, Callable[[Given], Coroutine[Any, Any, list[Figure]]]] = {
    "flood": measure_flood,
    "clients": measure_clients,
}


def main() -> int:
    """Measure and print; 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description="Measure what each class of callers waits.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long, each time")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw the waits as an SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in MEASURES]:
        parser.error(f"no measurement {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    given = Given(options.seconds, options.draw)
    every: list[Figure] = []
    for name in options.names or MEASURES:
        figures: list[Figure] = asyncio.run(MEASURES[name](given))
        every += figures
        if not options.json:
            show(figures, decimals=3)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(every)).decode())
    return 1 if any(figure.met is False for figure in every) else 0


if __name__ == "__main__":
    sys.exit(main())
