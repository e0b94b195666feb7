"""How large a store's file is, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from upbit_backbone.models import Timeframe
from upbit_backbone.storage.damage import Files
from upbit_backbone.storage.migrations import can_shrink
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

RUN_PREFIX = "maintenance_"
"""Under it and a job's name the table `meta` keeps when that was done last."""


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Size, fragmentation and content of the file at one moment."""

    schema: int
    file_bytes: int
    log_bytes: int
    """Of the write-ahead log beside it."""
    page_bytes: int
    pages: int
    free_pages: int
    """Used for what comes next, or given back when many are free."""
    gives_back: bool
    """Whether free pages can be given back step by step; if not, ``db vacuum`` does it."""
    series: int
    rows: int
    """Candles."""
    blocks: int
    rows_in_blocks: int
    spans: int
    """Stretches of which something is known."""
    unknown_spans: int
    """Those of them that are gaps."""
    done_ms: Mapping[str, int]
    """When each job of the maintenance was done last, epoch milliseconds."""
    damaged: bool
    """Whether it was found damaged: it is mended when a program opens it next."""

    @property
    def free_share(self) -> float:
        """Free pages as a fraction of all."""
        return self.free_pages / self.pages if self.pages else 0.0

    @property
    def used_bytes(self) -> int:
        """The file without its free pages: what a size limit bounds."""
        return (self.pages - self.free_pages) * self.page_bytes


@dataclass(frozen=True, slots=True)
class SeriesFigures:
    """What is stored of one series."""

    symbol: str
    timeframe: Timeframe
    candles: int
    first_ms: int | None
    """When its oldest candle opens, epoch milliseconds; None where there is none."""
    last_ms: int | None
    """And its newest."""
    holes: int
    """How many stretches between them nothing is proved of: never asked, or not had."""
    holes_ms: int
    """How long these are together."""

    @property
    def proved_share(self) -> float:
        """How much is proved from its oldest candle to its newest, 0 to 1."""
        if self.first_ms is None or self.last_ms is None:
            return 0.0
        span_ms = self.timeframe.back_ms(self.last_ms, -1) - self.first_ms
        return (span_ms - self.holes_ms) / span_ms


_Sealed = dict[str, tuple[int, int, int, int]]
"""By table: how many blocks, their rows, and the range that they cover."""


def read_figures(sql: Sql, files: Files) -> StoreFigures:
    """Measure a file, of this schema or an older one; runs inside a transaction.

    Sealed candles are counted by their blocks, so that it costs the same for any history.
    """
    pages, free_pages, page_bytes = (
        int(sql.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    ((schema,),) = sql.execute("PRAGMA user_version")
    sealed = _read_sealed(sql)
    tables = [table for (table,) in sql.execute("SELECT table_name FROM series")]
    loose = sum(_count_loose(sql, table, sealed) for table in tables)
    ((spans, unknown),) = sql.execute(
        "SELECT count(*), count(*) FILTER (WHERE state = 'unknown') FROM coverage"
    )
    rows_in_blocks = sum(one[1] for one in sealed.values())
    log = files.path.with_name(f"{files.path.name}-wal")
    return StoreFigures(
        schema=schema,
        file_bytes=files.path.stat().st_size,
        log_bytes=log.stat().st_size if log.exists() else 0,
        page_bytes=page_bytes,
        pages=pages,
        free_pages=free_pages,
        gives_back=can_shrink(sql),
        series=len(tables),
        rows=loose + rows_in_blocks,
        blocks=sum(one[0] for one in sealed.values()),
        rows_in_blocks=rows_in_blocks,
        spans=spans,
        unknown_spans=unknown,
        done_ms=read_runs(sql),
        damaged=files.marker.exists(),
    )


def read_series(sql: Sql) -> tuple[SeriesFigures, ...]:
    """What is stored of each series, by symbol and length; counted as `read_figures` does."""
    sealed = _read_sealed(sql)
    found = []
    for symbol, timeframe, table in sql.execute(
        "SELECT symbol, timeframe, table_name FROM series"
    ).fetchall():
        ((first_ms, last_ms),) = sql.execute(
            f"SELECT (SELECT min(open_time) FROM {table}), (SELECT max(open_time) FROM {table})"
        )
        candles = sealed.get(table, (0, 0, 0, 0))[1] + _count_loose(sql, table, sealed)
        holes: list[Range] = []
        if first_ms is not None:
            span = Range(first_ms, Timeframe(timeframe).back_ms(last_ms, -1))
            holes = _read_holes(sql, symbol, timeframe, span)
        found.append(
            SeriesFigures(
                symbol,
                Timeframe(timeframe),
                candles,
                first_ms,
                last_ms,
                len(holes),
                sum(hole.end_ms - hole.start_ms for hole in holes),
            )
        )
    lengths = list(Timeframe)
    return tuple(sorted(found, key=lambda one: (one.symbol, lengths.index(one.timeframe))))


def _read_holes(sql: Sql, symbol: str, timeframe: str, within: Range) -> list[Range]:
    """What of a range nothing is proved of; ascending."""
    holes = SpanSet([within])
    for start_ms, end_ms in sql.execute(
        "SELECT start_ms, end_ms FROM coverage WHERE symbol = ? AND timeframe = ?"
        " AND state != 'unknown' AND end_ms > ? AND start_ms < ?",
        (symbol, timeframe, *within),
    ):
        holes.remove(start_ms, end_ms)
    return list(holes)


def _read_sealed(sql: Sql) -> _Sealed:
    ((schema,),) = sql.execute("PRAGMA user_version")
    if schema < 2:
        return {}
    return {
        table: (blocks, rows, start_ms, end_ms)
        for table, blocks, rows, start_ms, end_ms in sql.execute(
            "SELECT table_name, count(*), sum(row_count), min(start_ms), max(end_ms)"
            " FROM blocks GROUP BY table_name"
        )
    }


def _count_loose(sql: Sql, table: str, sealed: _Sealed) -> int:
    """Rows beside the blocks."""
    _, _, start_ms, end_ms = sealed.get(table, (0, 0, 0, 0))
    ((below, above),) = sql.execute(
        f"SELECT (SELECT count(*) FROM {table} WHERE open_time < ?1),"
        f" (SELECT count(*) FROM {table} WHERE open_time >= ?2)",
        (start_ms, end_ms),
    )
    return int(below + above)


def read_runs(sql: Sql) -> dict[str, int]:
    """When each job was done last, in epoch milliseconds."""
    return {
        key.removeprefix(RUN_PREFIX): int(value)
        for key, value in sql.execute("SELECT key, value FROM meta")
        if key.startswith(RUN_PREFIX) and value.isdecimal()
    }


def note_run(sql: Sql, job: str, now_ms: int) -> None:
    """Keep that a job was done, inside a transaction; programs that share the file see it."""
    sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (RUN_PREFIX + job, str(now_ms)))
