"""How fast a series goes into a file and back, and how much memory that takes.

    uv run python benchmarks/series_files.py [CANDLES]

A hundred thousand candles by default, with numbers of 17 digits, the longest there are; ten
million take six minutes and 5 GB of disk. Candles a second depend on the machine; memory, taken
after each, does not grow with the number of candles.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from upbit_backbone.clock import MINUTE_MS, FrozenClock
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, write_rows
from upbit_backbone.storage.coverage import REST, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.series_files.exporting import export_series
from upbit_backbone.storage.series_files.importing import import_series
from upbit_backbone.storage.sql import Sql

END_MS = 1_757_894_400_000
KEY = SeriesKey("KRW-BTC", Timeframe.M1)
AT_ONCE = 100_000
FORMATS = (".csv", ".parquet")


def candles(count: int) -> Iterator[CandleSeries]:
    """Made-up candles, in pieces."""
    chance = np.random.default_rng(1)
    for low in range(0, count, AT_ONCE):
        rows = min(AT_ONCE, count - low)
        opens = END_MS + (low - count + np.arange(rows, dtype=np.int64)) * MINUTE_MS
        prices = np.sort(chance.uniform(1e5, 2e5, (4, rows)), axis=0)
        columns = [opens, prices[1], prices[3], prices[0], prices[2]]
        columns += [chance.uniform(0, 10, rows), chance.uniform(0, 1e9, rows)]
        columns += [np.ones(rows, bool), np.zeros(rows, bool)]
        yield CandleSeries(*KEY, columns, source="rest", simulated=False)


def write(sql: Sql, rows: CandleSeries) -> None:
    """Store candles and their proof."""
    write_rows(sql, KEY, rows)
    end_ms = int(rows.time[-1]) + MINUTE_MS
    put_spans(sql, KEY, [KnownSpan(int(rows.time[0]), end_ms, "complete", "", REST, 1)])


def tell(what: str, count: int, began_s: float) -> None:
    """Print a figure."""
    memory_mb = psutil.Process().memory_info().rss / 2**20
    rate = count / (time.perf_counter() - began_s)
    print(f"{what:16} {rate:>10,.0f} candles/s, {memory_mb:,.0f} MB of memory", flush=True)


async def main(count: int) -> None:
    origin = Origin("benchmark")
    origin.observe(None)
    with tempfile.TemporaryDirectory(prefix="series-files-") as name:
        folder = Path(name)
        database = Database(folder / "from", origin)
        await database.open()
        try:
            for rows in candles(count):
                await database.write(partial(write, rows=rows))
            for suffix in FORMATS:
                began_s = time.perf_counter()
                await export_series(database, origin, KEY, folder / f"x{suffix}")
                tell(f"export {suffix}", count, began_s)
        finally:
            await database.close()
        for suffix in FORMATS:
            database = Database(folder / f"to{suffix}", origin)
            await database.open()
            try:
                began_s = time.perf_counter()
                done = await import_series(
                    database,
                    origin,
                    folder / f"x{suffix}",
                    clock=FrozenClock(END_MS + MINUTE_MS),
                )
                assert done.written == count, done
                tell(f"import {suffix}", count, began_s)
            finally:
                await database.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 100_000))
