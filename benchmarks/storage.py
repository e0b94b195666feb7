"""How fast the store is: each promise beside its floor, taken in the same run.

    uv run python benchmarks/storage.py [NAME ...] [--long] [--plot docs/storage-scale.svg]

Floor and figure take turns in one process, and medians are compared: **ratios carry over, times
do not**. The floor of reading is `sqlite3` `fetchall` of the same rows from the same table, on the
loop's thread or (where the figure is awaited) on a thread of its own; the floor of importing is
`executemany` in one transaction into a table made alike. `store_in_use.py` measures the rest.
`--long` adds the cost per candle from a thousand to ten million rows (a minute, 1 GB of disk for as
long), and `--plot` draws it.
Exit code 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.figures import Figure, at_most
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
TAIL = 60
WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 40, 48
COLOURS = ("#1f6feb", "#1a7f37", "#bc4c00")
_STYLE = "font-family='sans-serif' font-size='12' fill='#57606a'"
MANY = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


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
                    at_most(
                        bound,
                        name="reading",
                        what=f"{size} {name} / fetchall",
                        measured=at[name] / at["floor"],
                        unit="×",
                        note=f"{at[name] * 1e3:.3f} ms of {at['floor'] * 1e3:.3f} ms",
                    )
                    for name, bound in limits.items()
                ]
            )
            if wanted:
                figures.append(
                    at_most(
                        100,
                        name="reading",
                        what="1,000 from rows, awaited",
                        measured=at["from rows, awaited"] * 1e3,
                        unit="ms",
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
        at_most(
            0.05,
            name="memory",
            what="1,000 from memory",
            measured=statistics.median(took) * 1e3,
            unit="ms",
            note=f"p99 {statistics.quantiles(took, n=100)[98] * 1e3:.3f} ms",
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
        at_most(
            1.5,
            name="importing",
            what="import of 130,000 with coverage and blocks / executemany",
            measured=at_ours / at_floor,
            unit="×",
            note=f"{at_ours * 1e3:.0f} ms of {at_floor * 1e3:.0f} ms",
        )
    ]


class Scale(NamedTuple):
    """What a candle costs, in microseconds, at each of the sizes."""

    imported: list[float]
    read: list[float]
    appended: list[float]


async def scale(folder: Path, plot: Path | None = None) -> list[Figure]:
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
            # The import is over: what it left in the log is not what reading costs.
            await database.tend(lambda sql: sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").close())
            # A thousand anywhere in the newest ones: where blocks begin and end is chance.
            newest = max(0, min(held - 1_000, 40_000))
            took = []
            for turn in range(50):
                end_ms = START_MS + (held - newest * turn // 50) * MINUTE_MS
                work = partial(
                    read_rows, key=KEY, span=Range(START_MS, end_ms), latest=1_000, simulated=True
                )
                took.append(await timed_async(partial(database.read, work)))
            read.append(statistics.median(took) / 1_000 * 1e6)
            singles = rows_of(candles(200, start=held))
            took = [
                await timed_async(partial(database.write, partial(write_row, key=KEY, row=row)))
                for row in singles
            ]
            held += len(singles)
            appended.append(statistics.median(took) * 1e6)
            print(
                f"       {size:>10,} rows: import {written[-1]:6.2f} µs a candle,"
                f" 1,000 read {read[-1]:6.3f} µs a candle, one more {appended[-1]:6.0f} µs"
                f"  {'█' * round(written[-1] * 10)}"
            )
    finally:
        await database.close()
    costs = Scale(written, read, appended)
    if plot is not None:
        await asyncio.to_thread(draw, plot, costs)
    figures = []
    for what, of_size in costs._asdict().items():
        figures.append(
            at_most(
                1.5,
                name="scale",
                what=f"cost of a candle {what}, 10⁷ stored / 10³",
                measured=of_size[-1] / of_size[0],
                unit="×",
                note=", ".join(f"{cost:.3g}" for cost in of_size) + " µs",
            )
        )
    return figures


def draw(plot: Path, costs: Scale) -> None:
    """As a picture."""
    write_line_chart(
        plot,
        {
            "one more, committed": costs.appended,
            "imported, with its block": costs.imported,
            "read, 1,000 at once": costs.read,
        },
        MANY,
        title="What a candle costs while the series grows, in µs",
        x_label="candles of the series that are stored",
    )


def write_line_chart(
    path: Path,
    lines: Mapping[str, Sequence[float]],
    at: Sequence[float],
    *,
    title: str,
    x_label: str,
) -> None:
    """Draw each line over the same places, with two logarithmic axes, as SVG."""
    low_x, high_x = math.log10(at[0]), math.log10(at[-1])
    values = [value for line in lines.values() for value in line]
    low_y, high_y = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(value: float) -> float:
        share = (math.log10(value) - low_x) / (high_x - low_x)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (math.log10(value) - low_y) / (high_y - low_y)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        f"<text x='{LEFT}' y='22' {_STYLE} font-weight='bold'>{title}</text>",
        f"<text x='{LEFT}' y='{HEIGHT - 10}' {_STYLE}>{x_label}</text>",
    ]
    for power in range(low_y, high_y + 1):
        place = y(10.0**power)
        parts += [
            f"<path d='M{LEFT} {place:.1f}H{WIDTH - RIGHT}' stroke='#d0d7de'/>",
            f"<text x='8' y='{place + 4:.1f}' {_STYLE}>{10.0**power:g}</text>",
        ]
    parts += [
        f"<text x='{x(value):.1f}' y='{HEIGHT - BOTTOM + 18}' text-anchor='middle' {_STYLE}>"
        f"{value:,.0f}</text>"
        for value in at
    ]
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        places = [(x(where), y(value)) for where, value in zip(at, line, strict=True)]
        points = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>"
        )
        parts += [f"<circle cx='{a:.1f}' cy='{b:.1f}' r='3' fill='{colour}'/>" for a, b in places]
        parts.append(
            f"<text x='{places[-1][0] + 10:.1f}' y='{places[-1][1] + 4:.1f}' {_STYLE}>{name}</text>"
        )
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


MEASUREMENTS = {
    "memory": memory,
    "reading": reading,
    "importing": importing,
}
LONG = ("scale",)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help=", ".join([*MEASUREMENTS, *LONG]))
    parser.add_argument("--long", action="store_true", help="also what takes minutes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what `scale` measured")
    options = parser.parse_args()
    known = MEASUREMENTS | {"scale": partial(scale, plot=options.plot)}
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
                missed |= figure.met is False
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
