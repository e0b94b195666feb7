"""The self-audit in SQLite: which candles are drawn, and what is kept of what it found.

Statements only, run on a connection's thread.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import msgspec

from upbit_backbone.clock import HOUR_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES, SelfAudit
from upbit_backbone.storage.candle_tables import SeriesKey, delete_rows, read_rows, write_rows
from upbit_backbone.storage.comparison import Comparison, compare, picked
from upbit_backbone.storage.coverage import IMPORTED, LIVE, REST, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import (
    Outdated,
    forget_built,
    put_spans,
    read_series_coverage,
)
from upbit_backbone.storage.page_proof import SECONDS_KEPT_MS
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

TRAIL_ROWS = 10_000
"""So many of the newest repairs are remembered."""
REST_MS = HOUR_MS
"""Younger candles may be restated by late trades any moment; they are not drawn."""
_DRAWS = 50
"""A candle that may not be asked for is drawn again, so often at most."""
_KEY = "self_audit"
_TRAIL = """CREATE TABLE IF NOT EXISTS audit_trail (
    id INTEGER PRIMARY KEY, found_at_ms INTEGER NOT NULL, symbol TEXT NOT NULL,
    timeframe TEXT NOT NULL, open_time INTEGER NOT NULL, finding TEXT NOT NULL, before TEXT,
    after TEXT
)"""
_VALUES = ("open", "high", "low", "close", "volume", "value")


class AuditState(msgspec.Struct, frozen=True):
    """What the file remembers of the self-audit."""

    next_ms: int
    """When the next one may begin."""
    pages_left: int = 0
    """Of the one that has begun."""
    found: SelfAudit | None = None
    """What it has found so far."""


class AuditPage(NamedTuple):
    """Stored candles that are to be read again: one page, all of it proved and settled."""

    key: SeriesKey
    end_ms: int
    held: CandleSeries
    """The candles of ``held.time[0] <= open time < end_ms``, as they are stored."""

    @property
    def start_ms(self) -> int:
        return int(self.held.time[0])


class Repair(NamedTuple):
    """What was done with a page that was read again."""

    span: Range
    """What of it was compared."""
    comparison: Comparison
    fresh: CandleSeries
    """What is stored now of the candles that differed."""
    proof: KnownSpan | None
    """What is known now that was not known so well; None: nothing new."""
    state: AuditState
    outdated: tuple[Outdated, ...] = ()
    """Larger candles that were built of others than these."""


def read_state(sql: Sql) -> AuditState | None:
    """What the file remembers; None: it was never looked at."""
    row = sql.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
    if row is None:
        return None
    try:
        return msgspec.json.decode(row[0], type=AuditState)
    except msgspec.MsgspecError:
        return None


def write_state(sql: Sql, state: AuditState) -> None:
    """Remember it; runs inside a transaction."""
    value = msgspec.json.encode(state).decode()
    sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY, value))


def draw_page(
    sql: Sql, *, rng: Random, now_ms: int, simulated: bool, imported: bool = False
) -> AuditPage | None:
    """Draw a stored candle at random, each as likely as any other, and a page around it.

    What is asked for is proved and settled as a whole. Candles of a second are drawn only while
    the exchange keeps them, and none of a market that it lists no more.

    Args:
        sql: Inside a transaction.
        rng: Chance.
        now_ms: The exchange's time.
        simulated: Label of the candles.
        imported: From a file rather than from all, where there are such.

    Returns:
        None: nothing that may be asked for was found.
    """
    if imported:
        page = _draw_imported(sql, rng, now_ms, simulated)
        if page is not None:
            return page
    counts = _candle_counts(sql)
    total = sum(counts.values())
    for _ in range(_DRAWS if total else 0):
        key, number = _numbered(counts, rng.randrange(total))
        open_ms = _open_time(sql, key, number)
        page = None if open_ms is None else _page(sql, key, open_ms, rng, now_ms, simulated)
        if page is not None:
            return page
    return None


def write_repair(
    sql: Sql, page: AuditPage, read: CandleSeries, *, asked_ms: int, state: AuditState
) -> Repair | None:
    """Compare what was read with what is stored by now, and store what differs.

    Runs inside a transaction.

    Args:
        sql: The writing connection.
        page: What was drawn.
        read: What the exchange has of it, not empty. What is older than its oldest candle is
            not judged: an exchange that does not show history any more has not changed it.
        asked_ms: When, by the exchange's time.
        state: What to remember; the findings are added.

    Returns:
        None: the range is not settled any more, and nothing was done.
    """
    key, span = page.key, compared_range(page, read)
    known = read_series_coverage(sql, key)
    if _settled(known).missing(*span):
        return None
    held = read_rows(sql, key, span, None, simulated=read.simulated)
    read = read.between(*span)
    found = compare(held, read)
    fresh = picked(read, tuple(sorted((*found.restated, *found.appeared))))
    if found.vanished:
        delete_rows(sql, key, found.vanished)
    write_rows(sql, key, fresh)
    proof = None
    if found.differing or any(one.evidence != REST for one in known.between(*span)):
        proof = KnownSpan(*span, "complete", "", REST, asked_ms)
        put_spans(sql, key, [proof])
    _leave_trail(sql, key, asked_ms, found, held, read)
    state = _counted(state, found)
    write_state(sql, state)
    outdated = forget_built(sql, key, found.differing)
    return Repair(span, found, fresh, proof, state, outdated)


def compared_range(page: AuditPage, read: CandleSeries) -> Range:
    """What of a page an answer speaks of: from its oldest candle on, and to its newest one.

    A node that lags shows nothing of the newest: where the answer ends before what is stored does,
    nothing is said of the rest. An answer that shows nothing of the page says nothing of it.
    """
    shown = read.between(page.start_ms, page.end_ms).time
    if not len(shown):
        return Range(page.start_ms, page.start_ms)
    start_ms = max(page.start_ms, int(read.time[0]))
    if int(shown[-1]) >= int(page.held.time[-1]):
        return Range(start_ms, page.end_ms)
    return Range(start_ms, page.key.timeframe.next_ms(int(shown[-1])))


def read_trail(sql: Sql) -> list[tuple[Any, ...]]:
    """What was repaired, oldest first: when, symbol, timeframe, open time, finding, before, after.

    The findings are ``restated``, ``vanished`` and ``appeared``; before and after are JSON lists
    of open, high, low, close, volume and value.
    """
    if not sql.execute("SELECT 1 FROM sqlite_schema WHERE name = 'audit_trail'").fetchone():
        return []
    return list(
        sql.execute(
            "SELECT found_at_ms, symbol, timeframe, open_time, finding, before, after"
            " FROM audit_trail ORDER BY id"
        )
    )


def _counted(state: AuditState, found: Comparison) -> AuditState:
    assert state.found is not None
    before = state.found
    return msgspec.structs.replace(
        state,
        found=msgspec.structs.replace(
            before,
            pages=before.pages + 1,
            agreeing=before.agreeing + found.agreeing,
            restated=before.restated + len(found.restated),
            vanished=before.vanished + len(found.vanished),
            appeared=before.appeared + len(found.appeared),
        ),
    )


def _leave_trail(
    sql: Sql,
    key: SeriesKey,
    at_ms: int,
    found: Comparison,
    held: CandleSeries,
    read: CandleSeries,
) -> None:
    if not found.differing:
        return
    findings = (
        dict.fromkeys(found.restated, "restated")
        | dict.fromkeys(found.vanished, "vanished")
        | dict.fromkeys(found.appeared, "appeared")
    )
    sql.execute(_TRAIL)
    sql.executemany(
        "INSERT INTO audit_trail (found_at_ms, symbol, timeframe, open_time, finding, before,"
        " after) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                at_ms,
                key.symbol,
                key.timeframe.value,
                at,
                findings[at],
                _values(held, at),
                _values(read, at),
            )
            for at in found.differing
        ],
    )
    sql.execute(
        "DELETE FROM audit_trail WHERE id <= (SELECT max(id) FROM audit_trail) - ?", (TRAIL_ROWS,)
    )


def _values(rows: CandleSeries, open_ms: int) -> str | None:
    one = rows.between(open_ms, open_ms + 1)
    if not len(one):
        return None
    return msgspec.json.encode([float(getattr(one, name)[0]) for name in _VALUES]).decode()


def _candle_counts(sql: Sql) -> dict[SeriesKey, int]:
    """How many candles each series holds; the index of blocks knows most of it."""
    counts = {}
    for symbol, timeframe, table in sql.execute(
        "SELECT symbol, timeframe, table_name FROM series"
    ).fetchall():
        key = SeriesKey(symbol, Timeframe(timeframe))
        sealed, start_ms, end_ms = _sealed(sql, table)
        ((loose,),) = sql.execute(
            f"SELECT count(*) FROM {table} WHERE open_time < ? OR open_time >= ?",
            (start_ms, end_ms),
        )
        counts[key] = sealed + int(loose)
    return counts


def _numbered(counts: dict[SeriesKey, int], number: int) -> tuple[SeriesKey, int]:
    """Which series a candle belongs to when all are counted through, and its number there."""
    for key, count in counts.items():
        if number < count:
            return key, number
        number -= count
    raise AssertionError("there are not so many candles")


def _sealed(sql: Sql, table: str) -> tuple[int, int, int]:
    """How many rows lie in blocks, and between which times; equal: there are none."""
    ((rows, start_ms, end_ms),) = sql.execute(
        "SELECT total(row_count), min(start_ms), max(end_ms) FROM blocks WHERE table_name = ?",
        (table,),
    )
    return int(rows), start_ms or 0, end_ms or 0


def _open_time(sql: Sql, key: SeriesKey, number: int) -> int | None:
    """When the candle of a number opens: blocks are counted first, loose rows then."""
    table = key.table
    blocks = sql.execute(
        "SELECT start_ms, row_count FROM blocks WHERE table_name = ? ORDER BY start_ms", (table,)
    )
    for start_ms, rows in blocks:
        if number < rows:
            found = sql.execute(
                f"SELECT open_time FROM {table} WHERE open_time >= ? ORDER BY open_time"
                " LIMIT 1 OFFSET ?",
                (start_ms, number),
            ).fetchone()
            return None if found is None else int(found[0])
        number -= rows
    _, start_ms, end_ms = _sealed(sql, table)
    found = sql.execute(
        f"SELECT open_time FROM {table} WHERE open_time < ? OR open_time >= ? ORDER BY open_time"
        " LIMIT 1 OFFSET ?",
        (start_ms, end_ms, number),
    ).fetchone()
    return None if found is None else int(found[0])


def _draw_imported(sql: Sql, rng: Random, now_ms: int, simulated: bool) -> AuditPage | None:
    spans = [
        (SeriesKey(symbol, Timeframe(timeframe)), Range(start_ms, end_ms))
        for symbol, timeframe, start_ms, end_ms in sql.execute(
            # Where nobody traded, nothing was stored, and there may be no table.
            "SELECT symbol, timeframe, start_ms, end_ms FROM coverage"
            " JOIN series USING (symbol, timeframe) WHERE reason = ? AND state = 'complete'",
            (IMPORTED,),
        )
    ]
    weights = [(span.end_ms - span.start_ms) / key.timeframe.typical_ms for key, span in spans]
    for _ in range(_DRAWS if spans else 0):
        ((key, span),) = rng.choices(spans, weights)
        found = sql.execute(
            f"SELECT open_time FROM {key.table} WHERE open_time < ?"
            " ORDER BY open_time DESC LIMIT 1",
            (rng.randrange(span.start_ms, span.end_ms) + 1,),
        ).fetchone()
        if found is None or found[0] < span.start_ms:
            continue
        page = _page(sql, key, found[0], rng, now_ms, simulated)
        if page is not None:
            return page
    return None


def _page(
    sql: Sql, key: SeriesKey, open_ms: int, rng: Random, now_ms: int, simulated: bool
) -> AuditPage | None:
    known = read_series_coverage(sql, key)
    if any(one.state == "after_delisting" for one in known):
        return None
    timeframe = key.timeframe
    low_ms = timeframe.ceil_ms(now_ms - SECONDS_KEPT_MS) if timeframe is Timeframe.S1 else None
    high_ms = timeframe.floor_ms(now_ms - REST_MS)
    if open_ms >= high_ms or (low_ms is not None and open_ms < low_ms):
        return None
    around = [one for one in _settled(known) if one.start_ms <= open_ms < one.end_ms]
    if not around:
        return None
    (span,) = around
    start_ms = span.start_ms if low_ms is None else max(span.start_ms, low_ms)
    end_ms = min(span.end_ms, high_ms)
    # So that it lies anywhere in the page, not at its end.
    last = sql.execute(
        f"SELECT open_time FROM {key.table} WHERE open_time >= ? AND open_time < ?"
        " ORDER BY open_time LIMIT 1 OFFSET ?",
        (open_ms, end_ms, rng.randrange(MAX_PAGE_CANDLES)),
    ).fetchone()
    if last is not None:
        end_ms = timeframe.next_ms(last[0])
    held = read_rows(sql, key, Range(start_ms, end_ms), MAX_PAGE_CANDLES, simulated=simulated)
    return AuditPage(key, end_ms, held) if len(held) else None


def _settled(known: Coverage) -> SpanSet:
    """Where readings say what there is."""
    return SpanSet(
        Range(one.start_ms, one.end_ms)
        for one in known
        if one.state in ("complete", "empty") and one.evidence != LIVE
    )
