"""Candle rows and their coverage in SQLite: statements only, run on a connection's thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import aiosqlite
import numpy as np

from upbit_backbone.models import CandleSeries, Market, Timeframe
from upbit_backbone.storage import blocks
from upbit_backbone.storage.migrations import view_of
from upbit_backbone.storage.packing import COLUMNS
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql, is_damage

Row = tuple[int, float, float, float, float, float, float]
"""Open time in epoch milliseconds, open, high, low, close, volume, value."""


class SeriesKey(NamedTuple):
    """What a table is for."""

    symbol: str
    timeframe: Timeframe

    @property
    def table(self) -> str:
        """The table's name, e.g. ``candles_KRW_BTC_1m``.

        SQLite ignores case in names, so a month is ``1mo``: ``1M`` would be the minute's
        table. Symbols hold no underscore, so no two share a name.
        """
        return _table_name(self.symbol, self.timeframe.value)


@lru_cache(maxsize=8_192)
def _table_name(symbol: str, timeframe: str) -> str:
    timeframe = "1mo" if timeframe == "1M" else timeframe
    return f"candles_{symbol.replace('-', '_')}_{timeframe}"


def read_rows(
    sql: Sql, key: SeriesKey, span: Range, latest: int | None, *, simulated: bool
) -> CandleSeries:
    """The candles of a proved range; `latest` keeps only so many of the newest.

    They come from column blocks where there are any, and from rows for the rest.
    """
    columns = blocks.no_columns()
    if _has_table(sql, key):
        try:
            columns = blocks.read(sql, key.table, span, latest)
        except aiosqlite.DatabaseError as error:
            if not is_damage(error):
                raise
            # The rows may be whole although the blocks are not.
            sql.met_damage = True
            columns = blocks.select_rows(sql, key.table, span, latest)
    count = columns.shape[1]
    return CandleSeries(
        key.symbol,
        key.timeframe,
        [columns[0], *columns[1:].view(np.float64), np.ones(count, bool), np.zeros(count, bool)],
        source="storage",
        simulated=simulated,
    )


def write_rows(sql: Sql, key: SeriesKey, rows: CandleSeries) -> int:
    """Upsert closed candles, inside a transaction; their coverage is the caller's.

    Blocks that a changed candle lies in are dropped in the same transaction. A candle that is
    stored in a block just so is not written again.

    Returns:
        How many candles that lay in a block were replaced or added.
    """
    if not len(rows):
        return 0
    make_table(sql, key)
    columns = np.empty((COLUMNS, len(rows)), np.int64)
    columns[0] = rows.time
    numbers = columns[1:].view(np.float64)
    for at, name in enumerate(("open", "high", "low", "close", "volume", "value")):
        numbers[at] = getattr(rows, name)
    return blocks.write(sql, key.table, columns)


def write_row(sql: Sql, key: SeriesKey, row: Row) -> None:
    """Upsert one closed candle, inside a transaction; its coverage is the caller's.

    For the end of a minute, when hundreds of series get one candle each: all of them in one
    piece of work cost little more than their statements.
    """
    table = key.table
    if table not in sql.learnt.tables:
        make_table(sql, key)
    blocks.write_row(sql, table, row)


def open_times(sql: Sql, key: SeriesKey, span: Range) -> list[int]:
    """When the stored candles of a range open, proved or not, ascending."""
    if not _has_table(sql, key):
        return []
    rows = sql.execute(
        f"SELECT open_time FROM {key.table} WHERE open_time >= ? AND open_time < ?"
        " ORDER BY open_time",
        span,
    )
    return [int(at_ms) for (at_ms,) in rows]


def delete_rows(sql: Sql, key: SeriesKey, open_times: Sequence[int]) -> None:
    """Delete candles that the exchange does not have, inside a transaction."""
    if open_times and _has_table(sql, key):
        blocks.delete(sql, key.table, open_times)


def make_table(sql: Sql, key: SeriesKey) -> None:
    """Make the table of a series, and the view that shows its time as text, if need be."""
    table = key.table
    if table in sql.learnt.tables:
        return
    sql.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (open_time INTEGER PRIMARY KEY, open REAL NOT"
        " NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL,"
        " value REAL NOT NULL)"
    )
    sql.execute(view_of(table))
    sql.execute(
        "INSERT OR IGNORE INTO series VALUES (?, ?, ?)", (key.symbol, key.timeframe.value, table)
    )
    sql.learnt.tables.add(table)


def _has_table(sql: Sql, key: SeriesKey) -> bool:
    if key.table in sql.learnt.tables:
        return True
    found = sql.execute("SELECT 1 FROM series WHERE table_name = ?", (key.table,)).fetchone()
    if found is not None:
        sql.learnt.tables.add(key.table)
    return found is not None


def read_markets(sql: Sql) -> tuple[Market, ...]:
    """The markets as they were listed when the exchange was last asked."""
    rows = sql.execute("SELECT symbol, korean_name, english_name FROM markets ORDER BY position")
    return tuple(Market(*row) for row in rows)


def write_markets(sql: Sql, markets: tuple[Market, ...]) -> None:
    """Replace the list of markets."""
    sql.execute("DELETE FROM markets")
    sql.executemany(
        "INSERT INTO markets VALUES (?, ?, ?, ?)",
        [
            (position, market.symbol, market.korean_name, market.english_name)
            for position, market in enumerate(markets)
        ],
    )
