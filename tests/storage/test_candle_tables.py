"""Rows and coverage in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.storage.fake_exchange import SYMBOL
from tests.storage.proofs import prove, proved_of
from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.models import CandleSeries, Market, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import (
    SeriesKey,
    read_markets,
    read_rows,
    write_markets,
    write_rows,
)
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

KEY = SeriesKey(SYMBOL, Timeframe.M1)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The statements that make an empty store."""
    import asyncio

    folder = tmp_path_factory.mktemp("schema")

    async def make() -> None:
        database = Database(folder, Origin("test"))
        await database.open()
        await database.close()

    asyncio.run(make())
    with closing(sqlite3.connect(folder / "market.sqlite3")) as sql:
        yield ";".join(text for (text,) in sql.execute("SELECT sql FROM sqlite_schema") if text)


@contextmanager
def empty_store(schema: str) -> Iterator[Sql]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        raw.executescript(schema)
        yield Sql(raw)


def series(rows: list[tuple[float, ...]]) -> CandleSeries:
    return CandleSeries.from_rows(
        SYMBOL, Timeframe.M1, rows, closed_before_ms=None, source="rest", simulated=False
    )


def flat(opens: list[int]) -> CandleSeries:
    return series([(at, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) for at in opens])


def write(sql: Sql, rows: CandleSeries, proved: Range, key: SeriesKey = KEY) -> None:
    write_rows(sql, key, rows)
    prove(sql, key, proved)


def test_every_series_has_a_table_of_its_own_also_for_a_database_blind_to_case() -> None:
    symbols = ("KRW-BTC", "BTC-KRW", "KRW-BTC1", "KRWB-TC", "USDT-BTC", "KRW-1INCH")
    names = [SeriesKey(*key).table.lower() for key in product(symbols, Timeframe)]
    assert len(set(names)) == len(names)


def test_a_minute_and_a_month_keep_their_rows_apart(schema: str) -> None:
    month = SeriesKey(SYMBOL, Timeframe.MO1)
    with empty_store(schema) as sql:
        write(sql, flat([0]), Range(0, MINUTE_MS))
        write(sql, flat([0, 60 * MINUTE_MS]), Range(0, 120 * MINUTE_MS), month)
        minutes = read_rows(sql, KEY, Range(0, 10**12), None, simulated=False)
        assert minutes.time.tolist() == [0]
        assert {key: list(spans) for key, spans in proved_of(sql).items()} == {
            KEY: [Range(0, MINUTE_MS)],
            month: [Range(0, 120 * MINUTE_MS)],
        }


NUMBERS = st.floats(0, 1e15, allow_nan=False, allow_subnormal=True)


@given(rows=st.lists(st.tuples(*[NUMBERS] * 6), min_size=1, max_size=5))
def test_what_is_written_is_read_back_to_the_last_bit(
    schema: str, rows: list[tuple[float, ...]]
) -> None:
    written = series([(AUTUMN_2025_MS + n * MINUTE_MS, *row) for n, row in enumerate(rows)])
    with empty_store(schema) as sql:
        write(sql, written, Range(AUTUMN_2025_MS, AUTUMN_2025_MS + len(rows) * MINUTE_MS))
        read = read_rows(sql, KEY, Range(0, 2**52), None, simulated=True)
    assert read == written
    assert (read.source, read.simulated) == ("storage", True)


def test_only_the_newest_rows_are_read_when_so_many_are_wanted(schema: str) -> None:
    with empty_store(schema) as sql:
        write(sql, flat([n * MINUTE_MS for n in range(10)]), Range(0, 10 * MINUTE_MS))
        read = read_rows(sql, KEY, Range(MINUTE_MS, 9 * MINUTE_MS), 3, simulated=False)
        assert [at // MINUTE_MS for at in read.time.tolist()] == [6, 7, 8]


def test_a_row_written_again_is_replaced(schema: str) -> None:
    later = series([(0, 2.0, 3.0, 1.0, 2.5, 9.0, 20.0)])
    with empty_store(schema) as sql:
        write(sql, flat([0]), Range(0, MINUTE_MS))
        write(sql, later, Range(0, MINUTE_MS))
        assert read_rows(sql, KEY, Range(0, MINUTE_MS), None, simulated=False) == later


@given(ranges=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=10))
def test_coverage_in_the_file_merges_what_overlaps_or_touches(
    schema: str, ranges: list[tuple[int, int]]
) -> None:
    model = SpanSet()
    with empty_store(schema) as sql:
        for start, length in ranges:
            proved = Range(start * MINUTE_MS, (start + length) * MINUTE_MS)
            write(sql, flat([proved.start_ms]), proved)
            model.add(*proved)
        assert list(proved_of(sql).get(KEY, SpanSet())) == list(model)
        kept = sql.execute("SELECT count(*) FROM coverage").fetchone()
        assert kept == (len(model),)


async def test_two_stores_on_one_file_complete_each_others_coverage(tmp_path: Path) -> None:
    one, other = Database(tmp_path, Origin("test")), Database(tmp_path, Origin("test"))
    await one.open()
    await other.open()
    try:
        for database, start in ((one, 0), (other, 20), (one, 40), (other, 10), (one, 30)):
            proved = Range(start * MINUTE_MS, (start + 10) * MINUTE_MS)
            rows = flat([proved.start_ms])
            await database.write(lambda sql, r=rows, p=proved: write(sql, r, p))  # type: ignore[misc]
        known = await other.read(proved_of)
        assert list(known[KEY]) == [Range(0, 50 * MINUTE_MS)]
    finally:
        await one.close()
        await other.close()


def test_the_list_of_markets_is_kept_in_the_exchanges_order(schema: str) -> None:
    first = (Market("KRW-BTC", "비트코인", "Bitcoin"), Market("BTC-ETH", "이더리움", "Ethereum"))
    with empty_store(schema) as sql:
        write_markets(sql, first)
        write_markets(sql, first[::-1])
        assert read_markets(sql) == first[::-1]
