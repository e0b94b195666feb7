"""How fast the store is: each promise beside its floor, taken in the same run.

    uv run python benchmarks/storage.py [NAME ...] [--long]

Floor and figure take turns in one process, and medians are compared: **ratios carry over, times
do not**. The floor of reading is `sqlite3` `fetchall` of the same rows from the same table, on the
loop's thread or (where the figure is awaited) on a thread of its own; the floor of writing is
`executemany` (bulk) or `execute` (one a series) in one transaction into tables made alike.
`--long` adds the cost per candle from a thousand to ten million rows (ten minutes, 2 GB of disk).
Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, read_rows, write_row, write_rows
from upbit_backbone.storage.coverage import LIVE, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans
from upbit_backbone.storage.database import CACHED_STATEMENTS, Database
from upbit_backbone.storage.series_memory import SeriesMemory
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

START_MS = 1_735_689_600_000
KEY = SeriesKey("KRW-BTC", Timeframe.M1)
THREE_MONTHS = 130_000
SERIES = 700
TAIL = 60
LOOP_STALL_MS = 2.0
LOOP_STEP_S = 0.0005
MANY = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and what was promised of it."""

    name: str
    value: float
    unit: str
    limit: float
    detail: str

    @property
    def kept(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "kept  " if self.kept else "MISSED"
        return (
            f"{verdict} {self.name:58} {self.value:8.3f} {self.unit:2} (≤ {self.limit:g})"
            f"  {self.detail}"
        )


def candles(count: int, *, start: int = 0, seed: int = 1) -> CandleSeries:
    """A walk of prices, one candle a minute."""
    rng = np.random.default_rng(seed)
    time_ms = START_MS + (start + np.arange(count, dtype=np.int64)) * MINUTE_MS
    close = 145e6 + np.cumsum(rng.integers(-80, 80, count)) * 1000.0
    opened = np.r_[close[:1], close[:-1]]
    volume = np.round(rng.random(count) * 3, 8)
    columns = [
        time_ms, opened, np.maximum(opened, close) + 1000, np.minimum(opened, close) - 1000,
        close, volume, volume * close, np.ones(count, bool), np.zeros(count, bool),
    ]  # fmt: skip
    return CandleSeries(*KEY, columns, source="storage", simulated=True)


def rows_of(series: CandleSeries) -> list[tuple[Any, ...]]:
    names = ("time", "open", "high", "low", "close", "volume", "value")
    return list(zip(*(getattr(series, name).tolist() for name in names), strict=True))


def timed(work: Callable[[], Any], calls: int = 1) -> float:
    """Seconds a call; several calls at once: the first finds what others left in the caches."""
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


async def timed_async(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


def bare(path: Path) -> sqlite3.Connection:
    """A connection with the same settings, without anything of ours."""
    sql = sqlite3.connect(
        path,
        isolation_level=None,
        cached_statements=CACHED_STATEMENTS,
        check_same_thread=False,
    )
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = NORMAL")
    return sql


def make_bare_table(sql: sqlite3.Connection, table: str) -> str:
    """The floor's table, and its statement."""
    sql.execute(
        f"CREATE TABLE {table} (open_time INTEGER PRIMARY KEY, open REAL NOT NULL, high REAL NOT"
        " NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL, value REAL NOT NULL)"
    )
    return (
        f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (open_time) DO UPDATE SET"
        " open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,"
        " volume = excluded.volume, value = excluded.value"
    )


async def on_thread(database: Database, work: Callable[[Sql], float]) -> float:
    """Time a piece of work where it runs: without the way to the thread and back."""
    return await database.read(work)


async def reading(folder: Path) -> list[Figure]:
    """Blocks, blocks with a tail, rows alone; a thousand candles and three months."""
    database = Database(folder, Origin("benchmark"))
    await database.open()
    figures: list[Figure] = []
    rows_key, tail_key = (SeriesKey(s, Timeframe.M1) for s in ("KRW-ROWS", "KRW-TAIL"))
    whole = candles(THREE_MONTHS)
    newest = candles(TAIL, start=THREE_MONTHS)
    try:
        for key in (KEY, tail_key, rows_key):
            await database.write(partial(write_rows, key=key, rows=whole))
        for row in rows_of(newest)[: TAIL - 1]:
            await database.write(partial(write_row, key=tail_key, row=row))
        await database.write(
            lambda sql: sql.execute("DELETE FROM blocks WHERE table_name = ?", (rows_key.table,))
        )
        span = Range(START_MS, START_MS + 2 * THREE_MONTHS * MINUTE_MS)
        count = {"from blocks": KEY, "from blocks and a tail": tail_key, "from rows": rows_key}

        async def of_size(rounds: int, calls: int, wanted: int | None) -> None:
            size = "1,000" if wanted else "130,000"
            took: dict[str, list[float]] = {}
            query = "SELECT * FROM candles_KRW_BTC_1m ORDER BY open_time DESC LIMIT ?"
            limit = wanted or -1

            def read(sql: Sql, key: SeriesKey) -> CandleSeries:
                found = read_rows(sql, key, span, wanted, simulated=True)
                # A reader of rows wishes for blocks: not what is measured here.
                sql.wishes.clear()
                return found

            def floor(sql: Sql) -> float:
                return timed(lambda: sql.execute(query, (limit,)).fetchall(), calls)

            def ours(sql: Sql, key: SeriesKey) -> float:
                return timed(lambda: read(sql, key), calls)

            for _ in range(rounds):
                took.setdefault("floor", []).append(await on_thread(database, floor))
                for name, key in count.items():
                    took.setdefault(name, []).append(
                        await on_thread(database, partial(ours, key=key))
                    )
                    took.setdefault(f"{name}, awaited", []).append(
                        await timed_async(partial(database.read, partial(read, key=key)))
                    )
            at = {name: statistics.median(values) for name, values in took.items()}
            limits = (
                {"from blocks": 0.2, "from blocks, awaited": 0.4, "from blocks and a tail": 0.3,
                 "from rows": 1.5}
                if wanted
                else {"from blocks": 0.03}
            )  # fmt: skip
            figures.extend(
                [
                    Figure(
                        name=f"{size} {name} / fetchall",
                        value=at[name] / at["floor"],
                        unit="×",
                        limit=bound,
                        detail=f"{at[name] * 1e3:.3f} ms of {at['floor'] * 1e3:.3f} ms",
                    )
                    for name, bound in limits.items()
                ]
            )
            if wanted:
                figures.append(
                    Figure(
                        name="1,000 from rows, awaited",
                        value=at["from rows, awaited"] * 1e3,
                        unit="ms",
                        limit=100,
                        detail="",
                    )
                )

        await of_size(60, 10, 1_000)
        await of_size(9, 1, None)
        loose = await database.read(
            lambda sql: sql.execute(
                "SELECT count(*) FROM candles_KRW_TAIL_1m WHERE open_time >="
                " (SELECT max(end_ms) FROM blocks WHERE table_name = 'candles_KRW_TAIL_1m')"
            ).fetchone()
        )
        print(f"       (the tail is {loose[0]} rows)")
    finally:
        await database.close()
    return figures


async def memory(folder: Path) -> list[Figure]:
    """A thousand candles of a series that memory holds."""
    empty = CandleSeries.empty(*KEY, source="storage", simulated=True)
    series = SeriesMemory(empty, SpanSet())
    whole = candles(THREE_MONTHS)
    end_ms = START_MS + THREE_MONTHS * MINUTE_MS
    series.put(whole, Range(START_MS, end_ms))
    series.known.add(START_MS, end_ms)

    def warm() -> None:
        series.answer(series.loaded, None, end_ms, 1_000, now_ms=end_ms, fresh_since_s=0.0)

    took = [timed(warm) for _ in range(2_000)]
    return [
        Figure(
            name="1,000 from memory",
            value=statistics.median(took) * 1e3,
            unit="ms",
            limit=0.05,
            detail=f"p99 {statistics.quantiles(took, n=100)[98] * 1e3:.3f} ms",
        )
    ]


def proof(start_ms: int, end_ms: int) -> KnownSpan:
    return KnownSpan(start_ms, end_ms, "complete", "", LIVE, end_ms)


async def importing(folder: Path) -> list[Figure]:
    """Three months at once, with their coverage and their blocks."""
    floor, ours = [], []
    whole = candles(THREE_MONTHS)
    rows = rows_of(whole)
    for turn in range(5):
        with closing(bare(folder / f"floor-{turn}.sqlite3")) as sql:
            statement = make_bare_table(sql, "k")

            def bulk(sql: sqlite3.Connection = sql, statement: str = statement) -> None:
                sql.execute("BEGIN IMMEDIATE")
                sql.executemany(statement, rows)
                sql.execute("COMMIT")

            # On a thread as ours is: what the loop's thread costs beside it is alike.
            floor.append(await asyncio.to_thread(timed, bulk))
        database = Database(folder / str(turn), Origin("benchmark"))
        await database.open()
        try:

            def work(sql: Sql) -> None:
                write_rows(sql, KEY, whole)
                put_spans(sql, KEY, [proof(START_MS, START_MS + THREE_MONTHS * MINUTE_MS)])

            ours.append(await timed_async(partial(database.write, work)))
        finally:
            await database.close()
        gc.collect()
    at_floor, at_ours = statistics.median(floor), statistics.median(ours)
    return [
        Figure(
            name="import of 130,000 with coverage and blocks / executemany",
            value=at_ours / at_floor,
            unit="×",
            limit=1.5,
            detail=f"{at_ours * 1e3:.0f} ms of {at_floor * 1e3:.0f} ms",
        )
    ]


class LoopWatch:
    """The longest time the loop did not come round, beyond what was asked of it."""

    def __init__(self) -> None:
        self.stalls: list[float] = []
        self.watching = True

    async def run(self) -> None:
        while self.watching:
            started = time.perf_counter()
            await asyncio.sleep(LOOP_STEP_S)
            self.stalls.append(time.perf_counter() - started - LOOP_STEP_S)


async def minute_close(folder: Path) -> list[Figure]:
    """700 series get one closed candle each, minute after minute, sealing included."""
    keys = [SeriesKey(f"KRW-T{number:03}", Timeframe.M1) for number in range(SERIES)]
    database = Database(folder, Origin("benchmark"))
    await database.open()
    floor, ours, stalls, at_rest = [], [], [], []
    minutes = 240
    rows = rows_of(candles(minutes))
    try:
        with closing(bare(folder / "floor.sqlite3")) as sql:
            statements = [make_bare_table(sql, key.table) for key in keys]

            def close_floor(row: tuple[Any, ...]) -> None:
                sql.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    sql.execute(statement, row)
                sql.execute("COMMIT")

            def close_ours(sql: Sql, row: Any) -> float:
                started = time.perf_counter()
                spans = [proof(row[0], row[0] + MINUTE_MS)]
                for key in keys:
                    write_row(sql, key, row)
                    put_spans(sql, key, spans)
                return time.perf_counter() - started

            for row in rows:
                floor.append(timed(partial(close_floor, row)))
                idle = LoopWatch()
                task = asyncio.create_task(idle.run())
                await asyncio.sleep(0.02)
                idle.watching = False
                await task
                at_rest.append(max(idle.stalls))
                watch = LoopWatch()
                task = asyncio.create_task(watch.run())
                await asyncio.sleep(0)
                ours.append(
                    await timed_async(partial(database.write, partial(close_ours, row=row)))
                )
                watch.watching = False
                await task
                stalls.append(max(watch.stalls))
    finally:
        await database.close()
    # The first minute makes 700 tables.
    at_floor, at_ours = statistics.median(floor[1:]), statistics.fmean(ours[1:])
    usual = statistics.median(stalls[1:]) * 1e3
    return [
        Figure(
            name="700 series, one candle each, with coverage and sealing / execute",
            value=at_ours / statistics.fmean(floor[1:]),
            unit="×",
            limit=1.5,
            detail=f"mean {at_ours * 1e3:.1f} ms (median {statistics.median(ours[1:]) * 1e3:.1f}),"
            f" floor mean {statistics.fmean(floor[1:]) * 1e3:.1f} (median {at_floor * 1e3:.1f})",
        ),
        Figure(
            name="the longest turn of the loop meanwhile (median of minutes)",
            value=usual,
            unit="ms",
            limit=LOOP_STALL_MS,
            detail=f"p99 {statistics.quantiles(stalls[1:], n=100)[98] * 1e3:.1f} ms;"
            f" without the store {statistics.median(at_rest) * 1e3:.1f} ms, p99"
            f" {statistics.quantiles(at_rest, n=100)[98] * 1e3:.1f} ms",
        ),
    ]


async def scale(folder: Path) -> list[Figure]:
    """The cost of a candle written and of one read, from a thousand to ten million rows."""
    database = Database(folder, Origin("benchmark"))
    await database.open()
    written, read, appended = [], [], []
    held = 0
    step = 50_000
    try:
        for size in MANY:
            took: list[float] = []
            while held < size:
                more = min(step, size - held)
                part = candles(more, start=held)
                cost = await timed_async(
                    partial(database.write, partial(write_rows, key=KEY, rows=part))
                )
                took.append(cost / more)
                held += more
            written.append(statistics.median(took) * 1e6)
            end_ms = START_MS + held * MINUTE_MS
            span = Range(START_MS, end_ms)
            took = [
                await timed_async(
                    partial(
                        database.read,
                        partial(read_rows, key=KEY, span=span, latest=1_000, simulated=True),
                    )
                )
                for _ in range(50)
            ]
            read.append(statistics.median(took) / 1_000 * 1e6)
            singles = rows_of(candles(200, start=held))
            took = [
                await timed_async(partial(database.write, partial(write_row, key=KEY, row=row)))
                for row in singles
            ]
            held += len(singles)
            appended.append(statistics.fmean(took) * 1e6)
            print(
                f"       {size:>10,} rows: import {written[-1]:6.2f} µs a candle,"
                f" newest 1,000 {read[-1]:6.3f} µs a candle, one more {appended[-1]:6.0f} µs"
                f"  {'█' * round(written[-1] * 10)}"
            )
    finally:
        await database.close()
    return [
        Figure(
            name=f"cost of a candle {what}, 10⁷ rows / 10⁵",
            value=costs[-1] / costs[2],
            unit="×",
            limit=1.5,
            detail=", ".join(f"{cost:.3g}" for cost in costs) + " µs",
        )
        for what, costs in (("imported", written), ("read", read), ("appended", appended))
    ]


MEASUREMENTS = {
    "memory": memory,
    "reading": reading,
    "importing": importing,
    "minute_close": minute_close,
}
LONG = {"scale": scale}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help=", ".join([*MEASUREMENTS, *LONG]))
    parser.add_argument("--long", action="store_true", help="also what takes minutes")
    options = parser.parse_args()
    known = MEASUREMENTS | LONG
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    names = options.names or [*MEASUREMENTS, *(LONG if options.long else ())]
    print(
        f"sqlite {sqlite3.sqlite_version}, python {sys.version.split()[0]}, load"
        f" {os.getloadavg()[0]:.1f}, {threading.active_count()} threads"
    )
    missed = False
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for figure in asyncio.run(known[name](Path(folder))):
                print(figure, flush=True)
                missed |= not figure.kept
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
