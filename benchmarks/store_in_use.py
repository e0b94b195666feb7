"""The store as the layers above use it: streams of every market, long histories, a working day.

    uv run python benchmarks/store_in_use.py [NAME ...] [--long] [--json]

Below the store stands an exchange that answers at once, so that what is measured is the store's
own; the file is on this disk. Memory is measured from outside, as the resident size of a process
that does one thing. `--long` loads every market instead of a tenth of them (eight minutes, 4 GB
of disk). Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import psutil

from benchmarks.figures import Figure, at_most
from upbit_backbone.api.event_bus import EventBusIntegration
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.api.monitor import Monitor
from upbit_backbone.clock import MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.models import Candle, CandleSeries, CandleState, Market, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    MarketList,
    Priority,
    Reach,
    SubscriptionState,
    Whole,
)
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import REST, KnownSpan
from upbit_backbone.storage.database import CACHED_STATEMENTS
from upbit_backbone.storage.storage import Storage
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.loop_lag import LoopLagProbe

NOON_MS = 1_757_937_600_000
"""2025-09-15T12:00:00Z."""
SERIES = 700
LOOP_STALL_MS = 2.0
LOOP_STEP_S = 0.0005
NEVER_S = 1e6
"""The second readings of 700 series take an hour at the pace that an exchange allows."""
TOLD_AT_ONCE = 8
"""Series that one turn of the loop hears of: the turns before the store's are not its own."""


class ScriptedClock:
    """A clock that the script moves."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._now_ms / SECOND_MS

    def set(self, now_ms: int) -> None:
        self._now_ms = now_ms


class Stream:
    """A subscription that the script fills."""

    def __init__(self, request: BackboneRequest, clock: ScriptedClock) -> None:
        self.request = request
        self._clock = clock
        self.state: SubscriptionState = "confirmed"
        self.reason = ""
        self.values: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def complete_to_ms(self) -> int:
        return self._clock.now_ms()

    def set_priority(self, priority: Priority) -> None:
        """Nobody waits."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self.values.get()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.state = "closed"


class PromptExchange:
    """What lies below the store: every candle of every market, at once."""

    def __init__(self, clock: ScriptedClock) -> None:
        self._clock = clock
        self.streams: dict[tuple[str, Timeframe | None], Stream] = {}
        self.pages = 0
        self.listed: tuple[Market, ...] = ()

    def peek(self, *asked: Any) -> None:
        return None

    def peek_age_s(self, *asked: Any) -> float | None:
        return None

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        return MarketList(self.listed, self._clock.monotonic())

    def subscribe(self, request: BackboneRequest) -> Stream:
        stream = Stream(request, self._clock)
        self.streams[request.symbols[0], request.timeframe] = stream
        return stream

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """A page, newest last, as the router answers."""
        assert request.data_type is DataType.CANDLE and request.timeframe is not None
        self.pages += 1
        now_ms = self._clock.now_ms()
        length_ms = request.timeframe.fixed_ms
        assert length_ms is not None
        end_ms = min(request.end_ms or now_ms + 1, now_ms + 1)
        last_ms = -(-end_ms // length_ms) * length_ms
        count = request.count or 200
        if request.start_ms is not None:
            count = min(count, (last_ms - request.start_ms) // length_ms)
        page = made(
            request.symbols[0], request.timeframe, last_ms - count * length_ms, count, now_ms
        )
        metadata = BackboneMetadata("layer_1", False, 0.0, len(page), request.priority)
        return BackboneResponse(True, page, metadata, None, request.request_id)


def made(symbol: str, timeframe: Timeframe, start_ms: int, count: int, now_ms: int) -> CandleSeries:
    """Candles whose prices follow from their times: whoever asks gets the same ones."""
    length_ms = timeframe.fixed_ms
    assert length_ms is not None
    time_ms = start_ms + np.arange(count, dtype=np.int64) * length_ms
    step = time_ms // length_ms
    close = 145e6 + (step * 7_919 % 4_001) * 1000.0
    opened = 145e6 + ((step - 1) * 7_919 % 4_001) * 1000.0
    volume = (step * 104_729 % 300_000_000) / 1e8
    columns = [
        time_ms, opened, np.maximum(opened, close) + 1000, np.minimum(opened, close) - 1000,
        close, volume, volume * close, time_ms + length_ms <= now_ms, np.zeros(count, bool),
    ]  # fmt: skip
    return CandleSeries(symbol, timeframe, columns, source="rest", simulated=True)


def candle_of(
    symbol: str, at_ms: int, state: CandleState, timeframe: Timeframe = Timeframe.M1
) -> Candle:
    """One that the stream tells."""
    one = made(symbol, timeframe, at_ms, 1, timeframe.next_ms(at_ms))[0]
    return msgspec.structs.replace(one, state=state, closed=state != "forming")


@asynccontextmanager
async def storing(
    folder: Path,
    exchange: PromptExchange,
    clock: ScriptedClock,
    *,
    memory_mb: int = 64,
    look_every_s: float = 1.0,
) -> AsyncIterator[Storage]:
    """A running store."""
    storage = Storage(
        exchange, folder=folder, origin=Origin("benchmark"), clock=clock,
        memory_limit_bytes=memory_mb << 20, look_every_s=look_every_s,
    )  # fmt: skip
    await storage.start()
    try:
        yield storage
    finally:
        await storage.stop()


class LoopWatch:
    """The longest time the loop did not come round, beyond what was asked of it.

    And what of it was its own work: the rest was spent waiting for a core or for the
    interpreter's lock.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.longest_cpu_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        while True:
            before = Took.now()
            await asyncio.sleep(LOOP_STEP_S)
            took = Took.since(before)
            self.longest_s = max(self.longest_s, took.seconds - LOOP_STEP_S)
            self.longest_cpu_s = max(self.longest_cpu_s, took.cpu_s)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


async def measure_live(folder: Path, long: bool) -> list[Figure]:
    """700 series that are shown get a closed candle each, minute after minute, in real streams."""
    minutes = 240 if long else 150
    symbols = [f"KRW-T{number:03}" for number in range(SERIES)]
    clock = ScriptedClock(NOON_MS)
    exchange = PromptExchange(clock)
    floor, ours, wrote, stalls, busy, at_rest, loop_s = [], [], [], [], [], [], []
    async with storing(folder / "ours", exchange, clock, look_every_s=NEVER_S) as storage:
        transactions = timed_transactions(storage)
        with closing(bare(folder / "floor.sqlite3")) as sql:
            statements = [bare_table(sql, symbol) for symbol in symbols]
            for symbol in symbols:
                storage.subscribe(
                    BackboneRequest(DataType.CANDLE, (symbol,), Timeframe.M1, policy="latest")
                )
            streams = [exchange.streams[symbol, Timeframe.M1] for symbol in symbols]
            begin = utc_datetime(NOON_MS)
            for symbol, stream in zip(symbols, streams, strict=True):
                stream.values.put_nowait(Whole(symbol, Timeframe.M1, begin, begin))
            for minute in range(minutes):
                at_ms = NOON_MS + minute * MINUTE_MS
                clock.set(at_ms + MINUTE_MS + SECOND_MS)
                start, end = utc_datetime(at_ms), utc_datetime(at_ms + MINUTE_MS)
                one = candle_of("KRW-T", at_ms, "closed")
                told = [
                    (
                        msgspec.structs.replace(one, symbol=symbol),
                        Whole(symbol, Timeframe.M1, start, end),
                    )
                    for symbol in symbols
                ]
                row = (at_ms, one.open, one.high, one.low, one.close, one.volume, one.value)
                async with LoopWatch() as watch:
                    floor.append(await asyncio.to_thread(one_transaction, sql, statements, row))
                    # As long as ours takes: the machine's own pauses come in both.
                    await asyncio.sleep(0.07)
                at_rest.append(watch.longest_s)
                before = storage.status().counters["rows_written"]
                async with LoopWatch() as watch:
                    cpu = time.thread_time()
                    began = time.perf_counter()
                    for number, (stream, values) in enumerate(zip(streams, told, strict=True)):
                        for value in values:
                            stream.values.put_nowait(value)
                        if number % TOLD_AT_ONCE == TOLD_AT_ONCE - 1:
                            await asyncio.sleep(0)
                    while storage.status().counters["rows_written"] < before + SERIES:
                        await asyncio.sleep(LOOP_STEP_S)
                    ours.append(time.perf_counter() - began)
                    wrote.append(Took(*map(sum, zip(*transactions, strict=True))))
                    transactions.clear()
                    loop_s.append(time.thread_time() - cpu)
                stalls.append(watch.longest_s)
                busy.append(watch.longest_cpu_s)
    name = "live"
    figures = []
    for at, what in enumerate(("", ", its processor time")):
        at_floor, at_ours = (
            statistics.fmean(one[at] for one in all_of[2:]) for all_of in (floor, wrote)
        )
        figures.append(
            at_most(
                1.5, name=name, what=f"700 series, one candle each: transactions / execute{what}",
                measured=at_ours / at_floor, unit="×",
                note=f"mean {at_ours * 1e3:.1f} ms of {at_floor * 1e3:.1f} ms",
            )
        )  # fmt: skip
    return [
        *figures,
        # Fifty milliseconds of it are the wait for others that close in the same moment.
        at_most(
            1.5, name=name, what="the same, from the first value told to the last commit known",
            measured=statistics.fmean(ours[2:])
            / statistics.fmean(one.seconds for one in floor[2:]),
            unit="×",
            note=f"{statistics.fmean(ours[2:]) * 1e3:.1f} ms, the loop's share"
            f" {statistics.fmean(loop_s[2:]) * 1e3:.1f} ms",
        ),
        at_most(
            LOOP_STALL_MS, name=name, what="the longest turn of the loop, median of minutes",
            measured=statistics.median(stalls[2:]) * 1e3, unit="ms",
            note=f"p95 {statistics.quantiles(stalls[2:], n=20)[-1] * 1e3:.1f} ms; beside the floor"
            f" {statistics.median(at_rest) * 1e3:.1f} ms, p95"
            f" {statistics.quantiles(at_rest, n=20)[-1] * 1e3:.1f} ms",
        ),
        Figure(
            name=name, what="what of that is its own work, not waiting for a core or the lock",
            measured=statistics.median(busy[2:]) * 1e3, unit="ms",
            note=f"p95 {statistics.quantiles(busy[2:], n=20)[-1] * 1e3:.1f} ms",
        ),
    ]  # fmt: skip


class Took(NamedTuple):
    """What a piece of work takes of the world's time, and of its thread's."""

    seconds: float
    cpu_s: float

    @classmethod
    def now(cls) -> Self:
        return cls(time.perf_counter(), time.thread_time())

    @classmethod
    def since(cls, before: Took) -> Self:
        return cls(time.perf_counter() - before.seconds, time.thread_time() - before.cpu_s)


def timed_transactions(storage: Storage) -> list[Took]:
    """What each transaction of the store takes on its thread, from now on."""
    database, took = storage._database, list[Took]()
    run = database._transaction

    def timing(sql: Any, works: Any) -> Any:
        before = Took.now()
        try:
            return run(sql, works)
        finally:
            took.append(Took.since(before))

    database._transaction = timing  # type: ignore[method-assign]
    return took


def bare(path: Path) -> sqlite3.Connection:
    """A connection with the store's settings, without anything of ours."""
    sql = sqlite3.connect(
        path, isolation_level=None, cached_statements=CACHED_STATEMENTS, check_same_thread=False
    )
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = NORMAL")
    return sql


def bare_table(sql: sqlite3.Connection, symbol: str) -> str:
    """A table made alike, and the statement that writes a row of it."""
    table = symbol.replace("-", "_")
    sql.execute(
        f"CREATE TABLE {table} (open_time INTEGER PRIMARY KEY, open REAL NOT NULL, high REAL NOT"
        " NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL, value REAL NOT NULL)"
    )
    return (
        f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (open_time) DO UPDATE SET"
        " open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,"
        " volume = excluded.volume, value = excluded.value"
    )


def one_transaction(sql: sqlite3.Connection, statements: list[str], row: tuple[Any, ...]) -> Took:
    """A row of each table."""
    before = Took.now()
    sql.execute("BEGIN IMMEDIATE")
    for statement in statements:
        sql.execute(statement, row)
    sql.execute("COMMIT")
    return Took.since(before)


async def measure_forming(folder: Path, long: bool) -> list[Figure]:
    """200 candles up to now, the last of them forming, each time after a new trade."""
    clock = ScriptedClock(NOON_MS + 30 * SECOND_MS)
    exchange = PromptExchange(clock)
    symbol, took = "KRW-BTC", []
    async with storing(folder, exchange, clock) as storage:
        storage.subscribe(
            BackboneRequest(DataType.CANDLE, (symbol,), Timeframe.M1, policy="latest")
        )
        begin = utc_datetime(NOON_MS)
        await storage.fetch(page_of(symbol, NOON_MS, 200))
        values = exchange.streams[symbol, Timeframe.M1].values
        values.put_nowait(Whole(symbol, Timeframe.M1, begin, begin))
        asked = BackboneRequest(
            DataType.CANDLE, (symbol,), Timeframe.M1, count=200, max_age=2.0, reach=Reach.STORED
        )
        before = exchange.pages
        for number in range(1_000):
            forming = candle_of(symbol, NOON_MS, "forming")
            values.put_nowait(msgspec.structs.replace(forming, volume=float(number)))
            while not values.empty():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            started = time.perf_counter()
            response = await storage.fetch(asked)
            took.append(time.perf_counter() - started)
            series: CandleSeries = response.data
            assert len(series) == 200 and not series[-1].closed, response
            assert series[-1].volume == number
        assert exchange.pages == before, "nothing had to be asked"
    return [
        at_most(
            10, name="forming", what="200 warm candles with the forming one",
            measured=statistics.median(took) * 1e3, unit="ms",
            note=f"p99 {statistics.quantiles(took, n=100)[98] * 1e3:.3f} ms",
        )
    ]  # fmt: skip


def page_of(
    symbol: str, end_ms: int, count: int, timeframe: Timeframe = Timeframe.M1
) -> BackboneRequest:
    """One page of history."""
    return BackboneRequest(
        DataType.CANDLE, (symbol,), timeframe, None, utc_datetime(end_ms), count, Priority.LOW
    )


def of_range(symbol: str, start_ms: int, end_ms: int) -> BackboneRequest:
    """All that is stored of a range."""
    return BackboneRequest(
        DataType.CANDLE, (symbol,), Timeframe.M1, utc_datetime(start_ms), utc_datetime(end_ms),
        None, Priority.LOW, reach=Reach.STORED,
    )  # fmt: skip


class Hour:
    """An hour of a chart, a screener and a bot: from an empty file on, restarted in its middle."""

    STEP_S = 5
    FAVOURITES = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-DOGE", "KRW-SOL")
    LOOKED_AT = (Timeframe.M1, Timeframe.M5, Timeframe.M15, Timeframe.H1, Timeframe.D1)
    MARKETS = (*FAVOURITES, *(f"KRW-T{number:03}" for number in range(45)))

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = ScriptedClock(NOON_MS)
        self._exchange = PromptExchange(self._clock)
        self._exchange.listed = tuple(Market(one, one, one) for one in self.MARKETS)
        self._formed: dict[tuple[str, Timeframe], int] = {}
        self.answered: Counter[tuple[str, str]] = Counter()
        """How many requests by who asked and which tier had the last of it."""

    async def run(self) -> None:
        steps = 3_600 // self.STEP_S
        for part in (range(steps // 2), range(steps // 2, steps)):
            self._formed.clear()
            async with storing(
                self._folder, self._exchange, self._clock, look_every_s=NEVER_S
            ) as storage:
                coordinator = Coordinator(storage, clock=self._clock, rng=Random(1))
                self._storage = storage
                self._api = await api_over(coordinator, self._exchange, self._clock)
                await storage.warm_up_cache()
                for step in part:
                    passed_s = step * self.STEP_S
                    self._clock.set(NOON_MS + passed_s * SECOND_MS + 1_500)
                    await self._trade()
                    await self._chart(passed_s)
                    await self._screener(passed_s)
                    await self._bot(passed_s)

    async def _chart(self, passed_s: int) -> None:
        """Another favourite every five minutes, another timeframe each minute, and a look back."""
        minute, second = divmod(passed_s, 60)
        symbol = self.FAVOURITES[minute // 5 % len(self.FAVOURITES)]
        if second == 0:
            timeframe = self.LOOKED_AT[minute % len(self.LOOKED_AT)]
            await self._show(symbol, timeframe)
            await self._ask("chart", symbol, timeframe, 200)
        elif second in (20, 25, 30):
            back = (second - 15) // 5 * 200
            await self._ask("chart", symbol, Timeframe.M1, 200, NOON_MS - back * MINUTE_MS)

    async def _screener(self, passed_s: int) -> None:
        """All markets every five minutes: 30 closed days and 24 closed hours of each."""
        if passed_s % 300 == 0:
            for symbol in self.MARKETS:
                for timeframe, count in ((Timeframe.D1, 30), (Timeframe.H1, 24)):
                    end_ms = timeframe.floor_ms(self._clock.now_ms() - 5 * SECOND_MS)
                    await self._ask("screener", symbol, timeframe, count, end_ms)

    async def _bot(self, passed_s: int) -> None:
        """100 minutes of one market up to now every five seconds, its quarters each minute."""
        await self._show("KRW-BTC", Timeframe.M1)
        await self._ask("bot", "KRW-BTC", Timeframe.M1, 100)
        if passed_s % 60 == 0:
            end_ms = Timeframe.M15.floor_ms(self._clock.now_ms() - 5 * SECOND_MS)
            await self._ask("bot", "KRW-BTC", Timeframe.M15, 50, end_ms)

    async def _show(self, symbol: str, timeframe: Timeframe) -> None:
        """Have the series streamed from now on."""
        if (symbol, timeframe) not in self._formed:
            request = BackboneRequest(DataType.CANDLE, (symbol,), timeframe, policy="latest")
            self._storage.subscribe(request)
            at_ms = self._formed[symbol, timeframe] = timeframe.floor_ms(self._clock.now_ms())
            begin = utc_datetime(at_ms)
            await self._tell(symbol, timeframe, Whole(symbol, timeframe, begin, begin))
            await self._tell(symbol, timeframe, candle_of(symbol, at_ms, "forming", timeframe))

    async def _trade(self) -> None:
        """Whatever is streamed has traded once more; what is over has closed."""
        for (symbol, timeframe), at_ms in tuple(self._formed.items()):
            next_ms = timeframe.next_ms(at_ms)
            if self._clock.now_ms() >= next_ms + SECOND_MS:
                await self._tell(symbol, timeframe, candle_of(symbol, at_ms, "closed", timeframe))
                ends = (utc_datetime(at_ms), utc_datetime(next_ms))
                await self._tell(symbol, timeframe, Whole(symbol, timeframe, *ends))
                at_ms = self._formed[symbol, timeframe] = next_ms
            await self._tell(symbol, timeframe, candle_of(symbol, at_ms, "forming", timeframe))

    async def _tell(self, symbol: str, timeframe: Timeframe, value: Candle | Whole) -> None:
        values = self._exchange.streams[symbol, timeframe].values
        values.put_nowait(value)
        while not values.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _ask(
        self, who: str, symbol: str, timeframe: Timeframe, count: int, end_ms: int | None = None
    ) -> None:
        pages, before = self._exchange.pages, self._storage.status().counters
        end = None if end_ms is None else utc_datetime(end_ms)
        series = await self._api.get_candle_data(symbol, timeframe, end_time=end, count=count)
        assert len(series) == count, (who, symbol, timeframe, series)
        after = self._storage.status().counters
        read = {
            tier: after[f"candles_from_{tier}"] - before[f"candles_from_{tier}"]
            for tier in ("blocks", "rows")
        }
        tier = "memory"
        if self._exchange.pages > pages:
            tier = "exchange"
        elif any(read.values()):
            tier = max(read, key=lambda name: read[name])
        self.answered[who, tier] += 1


async def measure_hour(folder: Path, long: bool) -> list[Figure]:
    """How often an hour's requests had to go to the exchange."""
    hour = Hour(folder)
    await hour.run()
    figures = []
    for who in ("chart", "screener", "bot", ""):
        of_tier = Counter[str]()
        for (asking, tier), times in hour.answered.items():
            if who in ("", asking):
                of_tier[tier] += times
        total = of_tier.total()
        rate = 100 * (1 - of_tier["exchange"] / total)
        tiers = ", ".join(
            f"{tier} {of_tier[tier]}" for tier in ("memory", "blocks", "rows", "exchange")
        )
        figures.append(
            Figure(
                name="hour", what=f"requests of {who or 'all three'} answered without the exchange",
                measured=rate, unit="%", promise="" if who else "> 85",
                met=None if who else rate > 85, note=f"of {total}: {tiers}",
            )
        )  # fmt: skip
    return figures


THREE_MONTHS = 130_000
PAGE = 200
KRW_MARKETS = 289
"""As many as the exchange lists in won."""
MEMORY_MB = 256
"""What the default configuration gives to candles in memory."""


async def measure_months(folder: Path, long: bool) -> list[Figure]:
    """Three months of 1m of every KRW market, page by page and then read whole: resident memory."""
    markets = KRW_MARKETS if long else KRW_MARKETS // 10
    told = await alone("months", str(folder), str(markets))
    note = (
        f"{markets} markets, {told['candles'] / 1e6:.1f} million candles in {told['seconds']:.0f} s"
    )
    return [
        at_most(
            1_000, name="months", what="three months of every KRW market: resident at the most",
            measured=told["peak_mb"], unit="MB", note=f"{note}; {told['file_mb']:.0f} MB of disk",
        ),
        Figure(
            name="months", what="the same: before anything was loaded",
            measured=told["before_mb"], unit="MB",
        ),
    ]  # fmt: skip


async def load_months(folder: Path, markets: str) -> dict[str, float]:
    """Runs in a process of its own."""
    clock = ScriptedClock(NOON_MS)
    exchange = PromptExchange(clock)
    before_mb, started, candles = resident_mb(), time.perf_counter(), 0
    oldest_ms = NOON_MS - THREE_MONTHS * MINUTE_MS
    async with storing(
        folder, exchange, clock, memory_mb=MEMORY_MB, look_every_s=NEVER_S
    ) as storage:
        for number in range(int(markets)):
            symbol = f"KRW-T{number:03}"
            for end_ms in range(NOON_MS, oldest_ms, -PAGE * MINUTE_MS):
                await storage.fetch(page_of(symbol, end_ms, PAGE))
            whole = await storage.fetch(of_range(symbol, oldest_ms, NOON_MS - MINUTE_MS))
            assert whole.success, whole.metadata
            candles += len(whole.data)
        file_mb = await asyncio.to_thread(megabytes_in, folder)
    return {
        "before_mb": before_mb, "peak_mb": peak_mb(), "candles": candles, "file_mb": file_mb,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


async def measure_layers(folder: Path, long: bool) -> list[Figure]:
    """The same candles held by API, coordinator and store: ours, and with a copy in each."""
    held = {
        way: await alone("layers", str(folder), way)
        for way in ("ours", "columns", "tuples", "dicts")
    }
    ours = held["ours"]["grown_mb"]
    figures = []
    for way, what in (
        ("columns", "columns copied in each layer"),
        ("tuples", "a list of tuples in each layer"),
        ("dicts", "a list of dicts in each layer"),
    ):
        theirs = held[way]["grown_mb"]
        figures.append(
            at_most(
                0.5, name="layers", what=f"resident memory of three layers / {what}",
                measured=ours / theirs, unit="×", note=f"{ours:.0f} MB of {theirs:.0f} MB",
            )
        )  # fmt: skip
    return figures


async def hold_layers(folder: Path, way: str) -> dict[str, float]:
    """Runs in a process of its own: three layers hold three months of three markets."""
    symbols = ("KRW-BTC", "KRW-XRP", "KRW-DOGE")
    oldest_ms, end_ms = NOON_MS - THREE_MONTHS * MINUTE_MS, NOON_MS - MINUTE_MS
    clock = ScriptedClock(NOON_MS)
    exchange = PromptExchange(clock)
    exchange.listed = tuple(Market(symbol, symbol, symbol) for symbol in symbols)
    folder /= way
    async with storing(
        folder, exchange, clock, memory_mb=MEMORY_MB, look_every_s=NEVER_S
    ) as storage:
        for symbol in symbols:
            await storage._keep(
                SeriesKey(symbol, Timeframe.M1),
                made(symbol, Timeframe.M1, oldest_ms, THREE_MONTHS, NOON_MS - MINUTE_MS)[:-1],
                [KnownSpan(oldest_ms, end_ms, "complete", "", REST, NOON_MS)],
            )
    async with storing(
        folder, exchange, clock, memory_mb=MEMORY_MB, look_every_s=NEVER_S
    ) as storage:
        coordinator = Coordinator(storage, clock=clock, rng=Random(1))
        api = await api_over(coordinator, exchange, clock)
        await storage.fetch(of_range(symbols[0], oldest_ms, oldest_ms + MINUTE_MS))
        gc.collect()
        before_mb, held = resident_mb(), list[Any]()
        for symbol in symbols:
            if way == "ours":
                held.append((await storage.fetch(of_range(symbol, oldest_ms, end_ms))).data)
                held.append((await coordinator.fetch(of_range(symbol, oldest_ms, end_ms))).data)
                held.append(
                    await api.get_candle_data(
                        symbol, "1m", utc_datetime(oldest_ms), utc_datetime(end_ms)
                    )
                )
                assert all(np.shares_memory(one.close, held[-1].close) for one in held[-3:])
                continue
            series = made(symbol, Timeframe.M1, oldest_ms, THREE_MONTHS, NOON_MS)
            columns = [getattr(series, name) for name in CandleSeries.COLUMNS]
            for _layer in range(3):
                if way == "columns":
                    held.append([column.copy() for column in columns])
                    continue
                rows = zip(*(column.tolist() for column in columns[:7]), strict=True)
                held.append(
                    list(rows)
                    if way == "tuples"
                    else [dict(zip(CandleSeries.COLUMNS, row, strict=False)) for row in rows]
                )
            del series, columns
        gc.collect()
        grown_mb = resident_mb() - before_mb
    return {"grown_mb": grown_mb, "held": len(held)}


async def api_over(
    coordinator: Coordinator, exchange: PromptExchange, clock: ScriptedClock
) -> MarketDataAPI:
    """The API, without what tells of the state of the service."""

    def untold() -> Any:
        raise NotImplementedError

    events = EventLog(clock)
    monitor = Monitor(
        clock=clock, rng=Random(1), events=events, memory_limit_bytes=1 << 30,
        lag=LoopLagProbe(clock), layers=dict, oldest_wait_s=lambda _: {},
    )  # fmt: skip
    bus = EventBusIntegration(clock=clock, events=events, load=monitor.load, slots=64)
    api = MarketDataAPI(
        router=exchange, coordinator=coordinator, clock=clock, bus=bus, monitor=monitor,
        system_status=untold, max_concurrent_requests=64,
    )  # fmt: skip
    await coordinator.start()
    await api.start()
    return api


async def alone(what: str, *arguments: str) -> dict[str, float]:
    """Do one thing in a process of its own, which tells of its memory."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, ALONE, what, *arguments, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{what} {arguments} failed")
    return msgspec.json.decode(told, type=dict[str, float])


def megabytes_in(folder: Path) -> float:
    """Of disk."""
    return sum(one.stat().st_size for one in folder.iterdir()) / 2**20


def resident_mb() -> float:
    """What this process holds now."""
    return float(psutil.Process().memory_info().rss) / 2**20


def peak_mb() -> float:
    """The most that this process ever held (Linux tells KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


ALONE = "--alone"


Measure = Callable[[Path, bool], Coroutine[Any, Any, list[Figure]]]
MEASUREMENTS: dict[str, Measure] = {
    "live": measure_live,
    "forming": measure_forming,
    "hour": measure_hour,
    "layers": measure_layers,
    "months": measure_months,
}


def main() -> int:
    """Measure, print, compare with the promises."""
    if sys.argv[1:2] == [ALONE]:
        _, _, what, folder, argument = sys.argv
        work = {"months": load_months, "layers": hold_layers}[what]
        print(msgspec.json.encode(asyncio.run(work(Path(folder), argument))).decode())
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--long", action="store_true", help="every market, not a tenth of them")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    unknown = set(options.names) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(MEASUREMENTS)}")
    figures: list[Figure] = []
    for name in options.names or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            figures += asyncio.run(MEASUREMENTS[name](Path(folder), options.long))
        if not options.json:
            print(*(str(one) for one in figures if one.name == name), sep="\n", flush=True)
    if options.json:
        print(msgspec.json.encode(figures).decode())
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
