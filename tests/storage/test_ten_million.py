"""Ten million candles of one series: as right as a few, and as quick to get at."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, read_rows, write_rows
from upbit_backbone.storage.coverage import REST, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans, read_coverage
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

KEY = SeriesKey("KRW-BTC", Timeframe.M1)
ROWS = 10_000_000
STEP = 100_000
FIRST_MS = 600_000_000_000


def made(first: int, last: int) -> CandleSeries:
    """Candles whose numbers follow from their place."""
    place = np.arange(first, last, dtype=np.int64)
    opened = 1e8 + (place * 7_919 % 4_001) * 1_000.0
    volume = (place * 104_729 % 300_000_000) / 1e8
    columns = [
        FIRST_MS + place * MINUTE_MS, opened, opened + 1_000, opened - 1_000, opened, volume,
        volume * opened, np.ones(len(place), bool), np.zeros(len(place), bool),
    ]  # fmt: skip
    return CandleSeries(*KEY, columns, source="storage", simulated=False)


def between(first: int, last: int) -> Range:
    return Range(FIRST_MS + first * MINUTE_MS, FIRST_MS + last * MINUTE_MS)


@pytest.mark.slow
async def test_ten_million_candles_are_stored_found_again_and_quick_to_read(tmp_path: Path) -> None:
    def store(sql: Sql, first: int) -> None:
        rows = made(first, first + STEP)
        span = between(first, first + STEP)
        write_rows(sql, KEY, rows)
        put_spans(sql, KEY, [KnownSpan(*span, "complete", "", REST, span.end_ms)])

    database = Database(tmp_path, Origin("test"))
    await database.open()
    try:
        for first in range(0, ROWS, STEP):
            await database.write(partial(store, first=first))
        random = Random(1)
        took: list[float] = []
        for _ in range(200):
            first = random.randrange(ROWS - 1_000)
            span = between(first, first + 1_000)
            started = time.perf_counter()
            read = await database.read(
                partial(read_rows, key=KEY, span=span, latest=None, simulated=False)
            )
            took.append(time.perf_counter() - started)
            assert read == made(first, first + 1_000)
        # A fifth of what is promised for a thousand candles from rows, without blocks.
        assert sorted(took)[100] < 0.02, took
        assert database.counts.from_rows == 0
        restated = made(ROWS // 2, ROWS // 2 + 1)
        restated.close.setflags(write=True)
        restated.close[:] += 500.0
        assert await database.write(partial(write_rows, key=KEY, rows=restated)) == 1
        span = between(ROWS // 2 - 5_000, ROWS // 2 + 5_000)
        read = await database.read(
            partial(read_rows, key=KEY, span=span, latest=None, simulated=False)
        )
        expected = made(ROWS // 2 - 5_000, ROWS // 2 + 5_000)
        changed = np.flatnonzero(read.close != expected.close)
        assert changed.tolist() == [5_000]
        assert read.close[5_000] == restated.close[0]
        coverage = await database.read(read_coverage)
        assert [tuple(one)[:3] for one in coverage[KEY]] == [(*between(0, ROWS), "complete")]
        ((stored, sealed),) = await database.read(
            lambda sql: sql.execute(
                f"SELECT (SELECT count(*) FROM {KEY.table}), (SELECT sum(row_count) FROM blocks)"
            ).fetchall()
        )
        assert (stored, sealed) == (ROWS, ROWS)
    finally:
        await database.close()
        # A gigabyte: not left for the end of the session.
        for file in tmp_path.iterdir():
            file.unlink()
