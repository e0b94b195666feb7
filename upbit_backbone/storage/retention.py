"""What is removed to keep a policy: candles, their blocks and their proof, in one transaction.

What is removed is unknown again, as if it had never been asked: nothing that was there is ever
taken for a time without trades.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from upbit_backbone.clock import DAY_MS
from upbit_backbone.models import Timeframe
from upbit_backbone.storage import blocks
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import Coverage
from upbit_backbone.storage.sql import Sql

ROWS_AT_ONCE = blocks.ROWS_PER_BLOCK
KEPT_OF_LIMIT = 0.95
"""So much of the limit is left when it was kept: it is not reached again at once."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What may be stored; by default all that was ever read stays."""

    keep_1s_days: int | None = None
    """Candles of one second go when they are older, of whatever series."""
    limit_bytes: int | None = None
    """Of the file without its free pages."""

    @property
    def demands_nothing(self) -> bool:
        return self.keep_1s_days is None and self.limit_bytes is None

    def exceeded(self, used_bytes: int) -> bool:
        """Whether the size limit is."""
        return self.limit_bytes is not None and used_bytes > self.limit_bytes

    def roomy(self, used_bytes: int) -> bool:
        """Whether enough was removed."""
        return self.limit_bytes is None or used_bytes <= self.limit_bytes * KEPT_OF_LIMIT

    def oldest_second_ms(self, now_ms: int) -> int | None:
        """Candles of one second that open before are to go."""
        return None if self.keep_1s_days is None else now_ms - self.keep_1s_days * DAY_MS


class Stretch(NamedTuple):
    """The oldest candles of a series: all that open before a time."""

    key: SeriesKey
    end_ms: int


class Removed(NamedTuple):
    """What one step removed, and how large the file is now."""

    rows: int
    used_bytes: int


def outdated(sql: Sql, oldest_ms: int) -> Stretch | None:
    """Some candles of one second that open before a time; None: there are none.

    To a block's precision: what a block holds with newer ones stays as long as they do.
    """
    for symbol, timeframe in sql.execute(
        "SELECT symbol, timeframe FROM series WHERE timeframe = ? ORDER BY symbol",
        (Timeframe.S1.value,),
    ).fetchall():
        key = SeriesKey(symbol, Timeframe(timeframe))
        end_ms = _oldest(sql, key)
        if end_ms is not None and end_ms <= oldest_ms:
            return Stretch(key, end_ms)
    return None


def least_used(sql: Sql, spared: Collection[SeriesKey]) -> Stretch | None:
    """The oldest block of the series that was not asked for the longest time.

    Where nobody noted that it was used, it counts from when it was last written.
    """
    for symbol, timeframe in sql.execute(
        "SELECT symbol, timeframe FROM series ORDER BY coalesce("
        "(SELECT used_ms FROM usage WHERE usage.symbol = series.symbol"
        " AND usage.timeframe = series.timeframe),"
        " (SELECT max(known_at_ms) FROM coverage WHERE coverage.symbol = series.symbol"
        " AND coverage.timeframe = series.timeframe), 0), symbol, timeframe"
    ).fetchall():
        key = SeriesKey(symbol, Timeframe(timeframe))
        if key in spared:
            continue
        end_ms = _oldest(sql, key)
        if end_ms is not None:
            return Stretch(key, end_ms)
    return None


def remove(sql: Sql, stretch: Stretch) -> Removed:
    """Remove candles, blocks and what is known of a stretch, inside a transaction."""
    key, end_ms = stretch
    blocks.drop(sql, key.table, end_ms)
    rows = sql.execute(f"DELETE FROM {key.table} WHERE open_time < ?", (end_ms,)).rowcount
    sql.learnt.sealed.pop(key.table, None)
    names = (key.symbol, key.timeframe.value)
    # That nothing was ever traded below stays true.
    touched = "symbol = ? AND timeframe = ? AND start_ms < ? AND state != 'before_listing'"
    left = sql.execute(
        "SELECT symbol, timeframe, ?, end_ms, state, reason, evidence, known_at_ms FROM coverage"
        f" WHERE {touched} AND end_ms > ?",
        (end_ms, *names, end_ms, end_ms),
    ).fetchall()
    sql.execute(f"DELETE FROM coverage WHERE {touched}", (*names, end_ms))
    sql.executemany("INSERT INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?)", left)
    return Removed(int(rows), used_bytes(sql))


def forget(known: Coverage, end_ms: int) -> None:
    """Let memory know no more than the file after `remove`."""
    for span in known:
        if span.state != "before_listing":
            if span.start_ms < end_ms:
                known.forget(span.start_ms, end_ms)
            return


def used_bytes(sql: Sql) -> int:
    """The file without its free pages."""
    pages, free, page_bytes = (
        int(sql.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * page_bytes


def note_use(sql: Sql, used: Collection[SeriesKey], now_ms: int) -> None:
    """Keep that stored series were asked for, inside a transaction."""
    sql.executemany(
        "INSERT OR REPLACE INTO usage SELECT symbol, timeframe, ? FROM series"
        " WHERE symbol = ? AND timeframe = ?",
        [(now_ms, key.symbol, key.timeframe.value) for key in used],
    )


def _oldest(sql: Sql, key: SeriesKey) -> int | None:
    """Where the oldest block of a series ends, or its oldest rows where there is none."""
    found = sql.execute(
        "SELECT end_ms FROM blocks WHERE table_name = ? ORDER BY start_ms LIMIT 1", (key.table,)
    ).fetchone()
    if found is None:
        # The last of so many rows; fewer are all there are.
        found = sql.execute(
            f"SELECT max(open_time) + 1 FROM (SELECT open_time FROM {key.table}"
            f" ORDER BY open_time LIMIT {ROWS_AT_ONCE})"
        ).fetchone()
    return None if found[0] is None else key.timeframe.ceil_ms(found[0])
