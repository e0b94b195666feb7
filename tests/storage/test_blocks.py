"""Column blocks beside the rows: always what the rows say, whatever was written when."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.storage import blocks, migrations, packing
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
    delete_rows,
    read_rows,
    write_row,
    write_rows,
)
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

KEY = SeriesKey(SYMBOL, Timeframe.M1)
ALL = Range(0, 1 << 50)


@contextmanager
def empty_store() -> Iterator[Sql]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        sql = Sql(raw)
        migrations.create(sql)
        yield sql


def candles(minutes: list[int], price: float = 1.0) -> CandleSeries:
    rows = [
        (n * MINUTE_MS, price, price + 1, price - 0.5, price, n / 7, n * price) for n in minutes
    ]
    return CandleSeries.from_rows(
        SYMBOL, Timeframe.M1, rows, closed_before_ms=None, source="rest", simulated=False
    )


def block_ranges(sql: Sql) -> list[tuple[int, int, int]]:
    """Start, end (in minutes, rounded down) and rows of every block."""
    return [
        (start // MINUTE_MS, end // MINUTE_MS, rows)
        for start, end, rows in sql.execute(
            "SELECT start_ms, end_ms, row_count FROM blocks ORDER BY start_ms"
        )
    ]


def times_of(series: CandleSeries) -> list[int]:
    return [at // MINUTE_MS for at in series.time.tolist()]


def from_rows_alone(sql: Sql, span: Range = ALL) -> CandleSeries:
    """What the rows say, whatever the blocks do."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as other:
        bare = Sql(other)
        migrations.create(bare)
        held = blocks.select_rows(sql, KEY.table, span)
        write_rows(bare, KEY, candles([0]))
        bare.execute(f"DELETE FROM {KEY.table}")
        blocks.insert_rows(bare, KEY.table, held)
        return read_rows(bare, KEY, span, None, simulated=False)


def check(sql: Sql) -> None:
    """Blocks lie side by side and say what the rows of their range say."""
    held = list(blocks.overlapping(sql, KEY.table, ALL))[::-1]
    for one, other in pairwise(held):
        assert one.end_ms == other.start_ms
    for block in held:
        columns = blocks.unpack(KEY.table, block)
        assert columns is not None
        rows = blocks.select_rows(sql, KEY.table, Range(block.start_ms, block.end_ms))
        assert np.array_equal(columns, rows)
    assert read_rows(sql, KEY, ALL, None, simulated=False) == from_rows_alone(sql)


STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 600), st.integers(1, 300)),
    st.tuples(st.just("restate"), st.integers(0, 600), st.integers(1, 50)),
    st.tuples(st.just("one"), st.integers(0, 900), st.just(1)),
    st.tuples(st.just("delete"), st.integers(0, 900), st.integers(1, 150)),
    st.tuples(st.just("forget"), st.just(0), st.just(1)),
)

PAGE = st.tuples(st.just("write"), st.integers(0, 12).map(lambda n: 100 * n), st.just(100))
"""Side by side, as pages of history come."""


@settings(max_examples=60)
@given(steps=st.lists(STEP, max_size=12), thin=st.integers(1, 4))
def test_blocks_always_say_what_the_rows_say(steps: list[tuple[str, int, int]], thin: int) -> None:
    blocks_say_what_rows_say(steps, thin)


@settings(max_examples=60)
@given(steps=st.lists(st.one_of(PAGE, PAGE, STEP), min_size=6, max_size=20))
def test_packed_blocks_that_are_joined_say_so_too(steps: list[tuple[str, int, int]]) -> None:
    """The same with smaller sizes, so that much is packed, stops growing and is joined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "PACK_AT_LEAST", 50)
        patch.setattr(blocks, "GROWING_ROWS", 120)
        patch.setattr(blocks, "ROWS_PER_BLOCK", 260)
        blocks_say_what_rows_say(steps, thin=1)


def blocks_say_what_rows_say(steps: list[tuple[str, int, int]], thin: int) -> None:
    price = 1.0
    with empty_store() as sql:
        for what, start, length in steps:
            minutes = list(range(start, start + length, thin))
            if what == "forget":
                sql.learnt.forget()
            elif what == "delete":
                delete_rows(sql, KEY, [n * MINUTE_MS for n in minutes])
            elif what == "one":
                write_row(sql, KEY, (start * MINUTE_MS, 1.0, 2.0, 0.5, 1.0, 3.0, 4.0))
            else:
                price += what == "restate"
                write_rows(sql, KEY, candles(minutes, price))
            while sql.wishes:
                sql.wishes.popleft()(sql)
        if steps:
            write_rows(sql, KEY, candles([0]))
            check(sql)
            whole = from_rows_alone(sql)
            for latest in (1, 59, 250, 5_000):
                read = read_rows(sql, KEY, ALL, latest, simulated=False)
                assert read == whole[max(0, len(whole) - latest) :]
            part = Range(100 * MINUTE_MS, 400 * MINUTE_MS)
            assert read_rows(sql, KEY, part, None, simulated=False) == whole.between(*part)


def test_single_candles_are_sealed_when_60_to_180_have_gathered() -> None:
    with empty_store() as sql:
        for n in range(200):
            write_row(sql, KEY, (n * MINUTE_MS, 1.0, 2.0, 0.5, 1.0, 3.0, 4.0))
            loose = n + 1 - sum(rows for _, _, rows in block_ranges(sql))
            assert loose < blocks.SEAL_AT_MOST
            assert loose <= n + 1
        assert block_ranges(sql)
        check(sql)


def test_the_series_of_a_market_are_not_all_sealed_in_the_same_minute() -> None:
    with empty_store() as sql:
        thresholds = set()
        for n in range(300):
            key = SeriesKey(f"KRW-T{n}", Timeframe.M1)
            write_row(sql, key, (0, 1.0, 2.0, 0.5, 1.0, 3.0, 4.0))
            thresholds.add(blocks.learn(sql, key.table).seal_at)
    assert min(thresholds) >= blocks.SEAL_AT_LEAST
    assert max(thresholds) <= blocks.SEAL_AT_MOST
    assert len(thresholds) > 50


def test_what_lies_in_blocks_is_read_without_its_rows() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(1_000))))
        sql.execute(f"DELETE FROM {KEY.table}")
        read = read_rows(sql, KEY, Range(0, 1_000 * MINUTE_MS), None, simulated=False)
        assert read == candles(list(range(1_000)))
        assert (sql.counts.from_blocks, sql.counts.from_rows) == (1_000, 0)


def test_pages_going_back_in_time_make_few_large_blocks() -> None:
    with empty_store() as sql:
        for page in reversed(range(20)):
            write_rows(sql, KEY, candles(list(range(page * 200, page * 200 + 200))))
        ranges = block_ranges(sql)
        assert sum(rows for *_, rows in ranges) == 4_000
        assert len(ranges) <= 8
        check(sql)


def test_closing_candles_make_few_large_blocks_in_the_end() -> None:
    with empty_store() as sql:
        for n in range(9_000):
            write_row(sql, KEY, (n * MINUTE_MS, 1.0, 2.0, 0.5, 1.0, 3.0, 4.0))
        rows = [rows for *_, rows in block_ranges(sql)]
        assert sum(rows) > 9_000 - blocks.SEAL_AT_MOST
        assert len(rows) <= 6
        assert rows[0] > blocks.ROWS_PER_BLOCK - blocks.GROWING_ROWS
        check(sql)


def test_blocks_of_an_older_file_are_read_as_they_are() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(700))))
        unpacked = blocks.select_rows(sql, KEY.table, ALL).tobytes()
        sql.execute("UPDATE blocks SET data = ?", (unpacked,))
        start = f"{KEY.table} 0 {700 * MINUTE_MS - MINUTE_MS + 1}".encode()
        sql.execute("UPDATE blocks SET checksum = ?", (zlib.crc32(unpacked, zlib.crc32(start)),))
        assert read_rows(sql, KEY, ALL, None, simulated=False) == candles(list(range(700)))
        assert (sql.counts.from_blocks, sql.counts.damaged_blocks) == (700, 0)


def test_a_restated_candle_drops_its_block_and_no_other() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(3 * blocks.ROWS_PER_BLOCK))))
        before = dict(sql.execute("SELECT start_ms, id FROM blocks"))
        write_rows(sql, KEY, candles([blocks.ROWS_PER_BLOCK + 5], price=77.0))
        after = dict(sql.execute("SELECT start_ms, id FROM blocks"))
        assert [before[start] == after[start] for start in sorted(before)] == [True, False, True]
        at = Range((blocks.ROWS_PER_BLOCK + 5) * MINUTE_MS, (blocks.ROWS_PER_BLOCK + 6) * MINUTE_MS)
        assert read_rows(sql, KEY, at, None, simulated=False)[0].close == 77.0
        check(sql)


def test_blocks_with_loose_rows_between_them_are_made_again_of_the_rows() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(3 * blocks.ROWS_PER_BLOCK))))
        _, (start, *_), *_ = block_ranges(sql)
        # Nothing here does so; a file may come from elsewhere.
        sql.execute("DELETE FROM blocks WHERE start_ms / ? = ?", (MINUTE_MS, start))
        changed = [10, 3 * blocks.ROWS_PER_BLOCK - 10]
        write_rows(sql, KEY, candles(changed, price=2.0))
        check(sql)


def test_candles_that_are_read_again_unchanged_change_nothing() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(500))))
        before = list(sql.execute("SELECT id, checksum FROM blocks"))
        changes = sql.execute("SELECT total_changes()").fetchone()
        assert write_rows(sql, KEY, candles(list(range(100, 300)))) == 0
        assert sql.execute("SELECT total_changes()").fetchone() == changes
        assert list(sql.execute("SELECT id, checksum FROM blocks")) == before


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE blocks SET data = zeroblob(length(data))",
        "UPDATE blocks SET data = substr(data, 1, length(data) - 8)",
        "UPDATE blocks SET checksum = checksum + 1",
        "UPDATE blocks SET end_ms = end_ms + 60000",
        "UPDATE blocks SET row_count = row_count - 1",
        "UPDATE blocks SET data = x''",
    ],
)
def test_a_block_that_is_not_what_was_written_is_never_used_and_made_again(harm: str) -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(700))))
        sql.execute(harm)
        assert read_rows(sql, KEY, ALL, None, simulated=False) == candles(list(range(700)))
        assert sql.counts.from_blocks == 0
        assert sql.counts.damaged_blocks >= 1
        while sql.wishes:
            sql.wishes.popleft()(sql)
        check(sql)
        sql.counts.from_rows = sql.counts.from_blocks = 0
        read_rows(sql, KEY, Range(0, 700 * MINUTE_MS), None, simulated=False)
        assert (sql.counts.from_rows, sql.counts.from_blocks) == (0, 700)


def test_a_block_under_the_name_of_another_series_is_not_used() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles(list(range(200))))
        other = SeriesKey("KRW-ETH", Timeframe.M1)
        write_rows(sql, other, candles(list(range(3)), price=5.0))
        sql.execute("UPDATE blocks SET table_name = ?", (other.table,))
        read = read_rows(sql, other, ALL, None, simulated=False)
        assert read.close.tolist() == [5.0] * 3


def test_rows_of_an_older_file_become_blocks_when_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 3_000)
    with empty_store() as sql:
        write_rows(sql, KEY, candles([0]))
        columns = np.zeros((7, 8_000), np.int64)
        columns[0] = np.arange(8_000) * MINUTE_MS
        blocks.insert_rows(sql, KEY.table, columns)
        read_rows(sql, KEY, ALL, None, simulated=False)
        turns = 0
        while sql.wishes:
            sql.wishes.popleft()(sql)
            turns += 1
        # Not all at once: a large file would hold the writer for long.
        assert turns >= 3
        assert sum(rows for *_, rows in block_ranges(sql)) == 8_000
        check(sql)


def test_a_large_series_is_read_and_written_without_stopping_the_loop() -> None:
    """The interpreter's lock is given up between chunks: no single step takes all of it."""
    lengths: list[int] = []

    class WatchedCursor(sqlite3.Cursor):
        def fetchmany(self, size: int | None = 1) -> list[object]:
            found = super().fetchmany(size)
            lengths.append(len(found))
            return found

        def fetchall(self) -> list[object]:
            found = super().fetchall()
            lengths.append(len(found))
            return found

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: object) -> WatchedCursor:
            return self.cursor(WatchedCursor).execute(*arguments)  # type: ignore[arg-type]

    with closing(sqlite3.connect(":memory:", isolation_level=None, factory=Watched)) as raw:
        sql = Sql(raw)
        migrations.create(sql)
        whole = candles(list(range(30_000)))
        write_rows(sql, KEY, whole)
        sql.execute("DELETE FROM blocks")
        lengths.clear()
        for latest in (None, 29_999):
            read = read_rows(sql, KEY, ALL, latest, simulated=False)
            assert read == whole[30_000 - (latest or 30_000) :]
        assert 0 < max(lengths) <= blocks.CHUNK_ROWS


def test_a_series_without_a_table_has_no_candles() -> None:
    with empty_store() as sql:
        assert len(read_rows(sql, KEY, ALL, None, simulated=False)) == 0


def test_a_view_shows_the_time_of_a_candle_as_text() -> None:
    with empty_store() as sql:
        write_rows(sql, KEY, candles([29_333_333]))
        ((shown, at),) = sql.execute("SELECT timestamp, open_time FROM candles_KRW_BTC_1m_utc")
        assert (shown, at) == ("2025-10-09T08:53:00Z", 29_333_333 * MINUTE_MS)
