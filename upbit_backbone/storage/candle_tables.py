"""Candle rows and their coverage in SQLite: statements only, run on a connection's thread."""

from __future__ import annotations

from typing import NamedTuple

from upbit_backbone.models import CandleSeries, Market, Timeframe
from upbit_backbone.storage.database import Sql
from upbit_backbone.storage.spans import Range, SpanSet

CHUNK_ROWS = 5_000
"""Rows made into columns at once: longer, and the interpreter's lock would stop the loop."""


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
        timeframe = "1mo" if self.timeframe is Timeframe.MO1 else self.timeframe.value
        return f"candles_{self.symbol.replace('-', '_')}_{timeframe}"


def read_coverage(sql: Sql) -> dict[SeriesKey, SpanSet]:
    """The proved ranges of every series."""
    known: dict[SeriesKey, SpanSet] = {}
    for symbol, timeframe, start_ms, end_ms in sql.execute(
        "SELECT symbol, timeframe, start_ms, end_ms FROM coverage WHERE state = 'complete'"
        " ORDER BY start_ms"
    ):
        key = SeriesKey(symbol, Timeframe(timeframe))
        known.setdefault(key, SpanSet()).add(start_ms, end_ms)
    return known


def read_rows(
    sql: Sql, key: SeriesKey, span: Range, latest: int | None, *, simulated: bool
) -> CandleSeries:
    """The rows of a proved range; `latest` keeps only so many of the newest."""
    columns = "open_time, open, high, low, close, volume, value"
    where = f"FROM {key.table} WHERE open_time >= ? AND open_time < ?"
    newest_first = latest is not None
    cursor = sql.execute(
        f"SELECT {columns} {where} ORDER BY open_time {'DESC' if newest_first else 'ASC'} LIMIT ?",
        (*span, -1 if latest is None else latest),
    )
    parts: list[CandleSeries] = []
    while not parts or len(parts[-1]) == CHUNK_ROWS:
        rows = cursor.fetchmany(CHUNK_ROWS)
        parts.append(
            CandleSeries.from_rows(
                key.symbol,
                key.timeframe,
                rows[::-1] if newest_first else rows,
                closed_before_ms=None,
                source="storage",
                simulated=simulated,
            )
        )
    return CandleSeries.merged(parts[::-1] if newest_first else parts)


def write_rows(
    sql: Sql, key: SeriesKey, rows: CandleSeries, proved: Range, *, evidence: str, now_ms: int
) -> None:
    """Upsert closed candles and the range they prove; runs inside a transaction."""
    sql.execute(
        f"CREATE TABLE IF NOT EXISTS {key.table} (open_time INTEGER PRIMARY KEY, open REAL NOT"
        " NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL,"
        " value REAL NOT NULL)"
    )
    names = (key.symbol, key.timeframe.value)
    sql.execute("INSERT OR IGNORE INTO series VALUES (?, ?, ?)", (*names, key.table))
    sql.executemany(
        f"INSERT INTO {key.table} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (open_time) DO UPDATE"
        " SET open = excluded.open, high = excluded.high, low = excluded.low,"
        " close = excluded.close, volume = excluded.volume, value = excluded.value",
        zip(
            rows.time.tolist(),
            rows.open.tolist(),
            rows.high.tolist(),
            rows.low.tolist(),
            rows.close.tolist(),
            rows.volume.tolist(),
            rows.value.tolist(),
            strict=True,
        ),
    )
    # Other programs write this table, too: what touches the range is merged inside the
    # transaction, not from memory.
    touching = sql.execute(
        "SELECT start_ms, end_ms FROM coverage WHERE symbol = ? AND timeframe = ?"
        " AND state = 'complete' AND start_ms <= ? AND end_ms >= ?",
        (*names, proved.end_ms, proved.start_ms),
    ).fetchall()
    start_ms = min(proved.start_ms, *(start for start, _ in touching), proved.start_ms)
    end_ms = max(proved.end_ms, *(end for _, end in touching), proved.end_ms)
    sql.executemany(
        "DELETE FROM coverage WHERE symbol = ? AND timeframe = ? AND start_ms = ?",
        [(*names, start) for start, _ in touching],
    )
    sql.execute(
        "INSERT INTO coverage VALUES (?, ?, ?, ?, 'complete', '', ?, ?)",
        (*names, start_ms, end_ms, evidence, now_ms),
    )


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
