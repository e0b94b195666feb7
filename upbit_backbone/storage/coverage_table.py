"""What is known of each series, in SQLite: statements only, run on a connection's thread.

Several programs write one file, so what is learnt is merged with the spans that it touches
inside the transaction, never with what memory knew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import StorageCorruptError
from upbit_backbone.models import CandleSeries, SpanState, Timeframe
from upbit_backbone.storage.candle_tables import (
    Row,
    SeriesKey,
    delete_rows,
    make_table,
    open_times,
    read_rows,
    write_row,
    write_rows,
)
from upbit_backbone.storage.coverage import (
    BEGINNING_MS,
    BUILT,
    FOREVER_MS,
    LIVE,
    REVISED,
    Coverage,
    KnownSpan,
)
from upbit_backbone.storage.late_trades import KEPT_S, outside
from upbit_backbone.storage.page_proof import Doubt, NewestShown, up_to_shown
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql

_COLUMNS = "start_ms, end_ms, state, reason, evidence, known_at_ms"
_SERIES = "symbol = ? AND timeframe = ?"
_TIMEFRAMES = {timeframe.value: timeframe for timeframe in Timeframe}
_STATES = frozenset(get_args(SpanState))
SUM_TOLERANCE = 1e-9
"""Sums of volume and value may differ by so much, relatively: they were added in another order."""


class Outdated(NamedTuple):
    """Candles that were built of smaller ones, one of which has changed since."""

    key: SeriesKey
    span: Range


class Settled(NamedTuple):
    """What a reading said of candles that were proved before."""

    same: tuple[int, ...] = ()
    """Open times of those that were as the stream had them."""
    restated: tuple[int, ...] = ()
    """Open times of those that were not; what was read is stored."""
    vanished: tuple[int, ...] = ()
    """Open times of those that the exchange does not have; they are no longer stored."""
    outdated: tuple[Outdated, ...] = ()
    """Larger candles that were built of others than these; they are no longer known."""
    proofs: tuple[KnownSpan, ...] = ()
    """What the page proves beside what is stored, in the order in which it was put."""
    doubt: Doubt | None = None
    """Why it proves nothing beyond its newest candle; None: it does."""


def read_coverage(sql: Sql) -> dict[SeriesKey, Coverage]:
    """What is known of every series.

    Raises:
        StorageCorruptError: a span is not what any program writes.
    """
    known: dict[SeriesKey, Coverage] = {}
    before: tuple[SeriesKey, int] | None = None
    for symbol, timeframe, *span in sql.execute(
        f"SELECT symbol, timeframe, {_COLUMNS} FROM coverage ORDER BY symbol, timeframe, start_ms"
    ):
        if not isinstance(symbol, str) or timeframe not in _TIMEFRAMES or not can_be(span):
            raise StorageCorruptError(
                f"the coverage of {symbol!r} {timeframe!r} is damaged: it holds {span!r}"
            )
        key, one = SeriesKey(symbol, _TIMEFRAMES[timeframe]), KnownSpan(*span)
        if before is not None and before[0] == key and before[1] > one.start_ms:
            raise StorageCorruptError(
                f"the coverage of {symbol} {timeframe} is damaged: two of its spans overlap"
            )
        known.setdefault(key, Coverage()).put(one)
        before = key, one.end_ms
    return known


def can_be(span: Sequence[Any]) -> bool:
    """Whether the columns of a span hold what a program may have written."""
    start_ms, end_ms, state, reason, evidence, known_at_ms = span
    return (
        type(start_ms) is type(end_ms) is type(known_at_ms) is int
        and BEGINNING_MS <= start_ms < end_ms <= FOREVER_MS
        and state in _STATES
        and isinstance(reason, str)
        and isinstance(evidence, str)
    )


def read_series_coverage(
    sql: Sql, key: SeriesKey, start_ms: int = BEGINNING_MS, end_ms: int = FOREVER_MS
) -> Coverage:
    """What is known of one series, at least of a range."""
    return _touching(sql, key, start_ms, end_ms)


def read_proved(
    sql: Sql, key: SeriesKey, span: Range, latest: int | None, *, simulated: bool
) -> tuple[CandleSeries, SpanSet]:
    """The candles of a range, and what of it the file proves at the same moment.

    What memory takes for proved may have been removed meanwhile (`storage.retention`), by this
    program or another one: no candle there means nothing then.
    """
    proved = SpanSet(
        Range(*found)
        for found in sql.execute(
            f"SELECT start_ms, end_ms FROM coverage WHERE {_SERIES} AND start_ms < ?"
            " AND end_ms > ? AND state != 'unknown' ORDER BY start_ms",
            (key.symbol, key.timeframe.value, span.end_ms, span.start_ms),
        )
    )
    return read_rows(sql, key, span, latest, simulated=simulated), proved


def write_page(
    sql: Sql,
    key: SeriesKey,
    rows: CandleSeries,
    proofs: Iterable[KnownSpan],
    shown: NewestShown | None = None,
) -> Settled:
    """Store what a page read and what it proves; runs inside a transaction.

    Args:
        sql: The writing connection.
        key: The series.
        rows: The candles of the proved range.
        proofs: In the order in which they are to be put.
        shown: The page's newest candle, where newer ones that are stored speak against it.
    """
    if len(rows):
        make_table(sql, key)
    proofs = outside(proofs, _revised_since(sql, key, tuple(proofs)))
    doubt = None if shown is None else shown.doubt(_newest_proved(sql, key, proofs, shown.open_ms))
    if doubt is not None:
        proofs = up_to_shown(proofs, key.timeframe, doubt)
    rows = CandleSeries.merged(
        [rows.between(one.start_ms, one.end_ms) for one in proofs if one.state == "complete"]
        or [rows[:0]]
    )
    same: list[int] = []
    restated: list[int] = []
    vanished: list[int] = []
    for proof in proofs:
        if not proof.proved:
            continue
        span = Range(proof.start_ms, proof.end_ms)
        if proof.state == "complete":
            found = _compare(sql, key, rows, _touching(sql, key, *span), proof)
            same += found.same
            restated += found.restated
            vanished += found.vanished
        # What was stored and not proved any more must not come under the new proof.
        read = set(rows.between(*span).time.tolist())
        delete_rows(sql, key, [at for at in open_times(sql, key, span) if at not in read])
    if len(rows):
        write_rows(sql, key, rows)
    put_spans(sql, key, proofs)
    outdated = forget_built(sql, key, (*restated, *vanished))
    return Settled(tuple(same), tuple(restated), tuple(vanished), outdated, tuple(proofs), doubt)


def _revised_since(sql: Sql, key: SeriesKey, proofs: Sequence[KnownSpan]) -> SpanSet:
    """Candles that a late trade has changed after the page was asked: it does not know of it.

    This program sees to those of its own streams; another one may have written these.
    """
    found = SpanSet()
    for proof in proofs:
        for span in _touching(sql, key, proof.start_ms, proof.end_ms) if proof.proved else ():
            # A time that a wrong clock has left far ahead does not hold.
            later_ms = span.known_at_ms - proof.known_at_ms
            if span.reason == REVISED and span.unsettled and 0 < later_ms <= KEPT_S * SECOND_MS:
                found.add(span.start_ms, span.end_ms)
    return found


def _newest_proved(
    sql: Sql, key: SeriesKey, proofs: Iterable[KnownSpan], above_ms: int
) -> int | None:
    """When the newest candle opens that is stored where a page says what there is."""
    end_ms = max((one.end_ms for one in proofs if one.state == "complete"), default=above_ms)
    known = _touching(sql, key, above_ms, end_ms) if above_ms < end_ms else Coverage()
    for span in reversed(known.between(above_ms, end_ms)):
        if span.state == "complete" and (
            found := open_times(sql, key, Range(span.start_ms, span.end_ms))
        ):
            return found[-1]
    return None


def write_live(
    sql: Sql, key: SeriesKey, rows: CandleSeries, spans: Iterable[KnownSpan], *, over_all: bool
) -> CandleSeries:
    """Store candles that the stream closed or revised; runs inside a transaction.

    Args:
        sql: The writing connection.
        key: The series.
        rows: What closed.
        spans: What the stream proves, or what it lost.
        over_all: They hold although a page was read: a trade came later.

    Returns:
        Those that were stored: where a page was read before, that stands.
    """
    spans = tuple(spans)
    if len(rows):
        start_ms = int(rows.time[0])
        end_ms = key.timeframe.next_ms(int(rows.time[-1]))
        known = _touching(sql, key, start_ms, end_ms)
        if not over_all and any(
            span.proved and span.evidence != LIVE for span in known.between(start_ms, end_ms)
        ):
            taken = [at for at in rows.time.tolist() if not _is_read(known, at)]
            rows = CandleSeries.merged([rows.between(at, at + 1) for at in taken] or [rows[:0]])
    for span in spans:
        if span.state == "empty" and (stored := open_times(sql, key, Range(*span[:2]))):
            known = _touching(sql, key, span.start_ms, span.end_ms)
            delete_rows(sql, key, [at for at in stored if not _is_read(known, at)])
    if len(rows):
        write_rows(sql, key, rows)
    put_spans(sql, key, spans, over_all=over_all)
    return rows


def write_closing(sql: Sql, key: SeriesKey, row: Row, span: KnownSpan) -> bool:
    """Store a candle that closed after those that the stream proved before; in a transaction.

    The usual way of a candle, and the cheapest: two statements. False: it is not so simple,
    nothing was written, and `write_live` does it.
    """
    if not _extended(sql, key, span):
        return False
    write_row(sql, key, row)
    return True


def put_spans(
    sql: Sql, key: SeriesKey, spans: Iterable[KnownSpan], *, over_all: bool = False
) -> None:
    """Merge spans into what the file knows of a series; runs inside a transaction."""
    names = (key.symbol, key.timeframe.value)
    for span in spans:
        if span.start_ms >= span.end_ms or (not over_all and _extended(sql, key, span)):
            continue
        sql.learnt.live_spans.pop(key, None)
        before = _spans_touching(sql, key, span.start_ms, span.end_ms)
        merged = Coverage(before)
        merged.put(span, over_all=over_all)
        _replace(sql, names, before, merged)


def forget_built(sql: Sql, key: SeriesKey, open_ms: Sequence[int]) -> tuple[Outdated, ...]:
    """Know nothing any more of larger candles that were built of candles which have changed.

    Runs inside the transaction that changes them.
    """
    if not open_ms:
        return ()
    outdated: list[Outdated] = []
    for timeframe, start_ms, end_ms in sql.execute(
        "SELECT timeframe, start_ms, end_ms FROM coverage WHERE symbol = ?"
        " AND start_ms <= ? AND end_ms > ? AND substr(evidence, 1, ?) = ?",
        (key.symbol, max(open_ms), min(open_ms), len(BUILT), BUILT),
    ).fetchall():
        larger = SeriesKey(key.symbol, Timeframe(timeframe))
        if larger.timeframe.typical_ms <= key.timeframe.typical_ms:
            continue
        outdated += [
            Outdated(larger, Range(at_ms, larger.timeframe.next_ms(at_ms)))
            for at_ms in sorted({larger.timeframe.floor_ms(at) for at in open_ms})
            if start_ms <= at_ms < end_ms
        ]
    for larger, span in outdated:
        sql.learnt.live_spans.pop(larger, None)
        before = _spans_touching(sql, larger, *span)
        known = Coverage(before)
        known.forget(*span)
        _replace(sql, (larger.symbol, larger.timeframe.value), before, known)
    return tuple(outdated)


def _replace(
    sql: Sql, names: tuple[str, str], spans: Iterable[KnownSpan], merged: Coverage
) -> None:
    # As the file has them: two that could be one are one in `merged` already.
    before = {old.start_ms: old for old in spans}
    after = {new.start_ms: new for new in merged}
    sql.executemany(
        f"DELETE FROM coverage WHERE {_SERIES} AND start_ms = ?",
        [(*names, start) for start in before if start not in after],
    )
    sql.executemany(
        "INSERT OR REPLACE INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(*names, *new) for start, new in after.items() if before.get(start) != new],
    )


def _is_read(known: Coverage, at_ms: int) -> bool:
    """Whether a page has said which candle opens at a time: that stands above the stream."""
    span = known.at(at_ms)
    return span is not None and span.state == "complete" and span.evidence != LIVE


def forget_delisting(sql: Sql, symbol: str) -> None:
    """The symbol is listed again."""
    sql.execute("DELETE FROM coverage WHERE symbol = ? AND state = 'after_delisting'", (symbol,))


def _extended(sql: Sql, key: SeriesKey, span: KnownSpan) -> bool:
    """Let the span that ends where a new one begins reach further; False: it is not so simple.

    That is the way of each candle that closes: one statement, where others take five.
    """
    if span.state != "complete" or span.evidence != LIVE:
        return False
    names = (key.symbol, key.timeframe.value)
    newest_ms = sql.learnt.live_spans.get(key)
    if newest_ms is None:
        found = sql.execute(
            f"SELECT start_ms FROM coverage WHERE {_SERIES} ORDER BY start_ms DESC LIMIT 1", names
        ).fetchone()
        if found is None:
            return False
        (newest_ms,) = found
    changed = sql.execute(
        "UPDATE coverage SET end_ms = ?, known_at_ms = ? WHERE symbol = ? AND timeframe = ?"
        " AND start_ms = ? AND end_ms = ? AND state = 'complete' AND reason = ''"
        " AND evidence = 'live'",
        (span.end_ms, span.known_at_ms, *names, newest_ms, span.start_ms),
    )
    if not changed.rowcount:
        return False
    # As long as no other span of the series is written, it stays the newest one.
    sql.learnt.live_spans[key] = newest_ms
    return True


def _touching(sql: Sql, key: SeriesKey, start_ms: int, end_ms: int) -> Coverage:
    return Coverage(_spans_touching(sql, key, start_ms, end_ms))


def _spans_touching(sql: Sql, key: SeriesKey, start_ms: int, end_ms: int) -> list[KnownSpan]:
    rows = sql.execute(
        f"SELECT {_COLUMNS} FROM coverage WHERE {_SERIES} AND start_ms <= ? AND end_ms >= ?"
        " ORDER BY start_ms",
        (key.symbol, key.timeframe.value, end_ms, start_ms),
    )
    return [KnownSpan(*row) for row in rows]


def _compare(
    sql: Sql, key: SeriesKey, rows: CandleSeries, before: Coverage, proof: KnownSpan
) -> Settled:
    same: list[int] = []
    restated: list[int] = []
    vanished: list[int] = []
    for span in before.between(proof.start_ms, proof.end_ms):
        if not span.proved:
            continue
        span_of = Range(span.start_ms, span.end_ms)
        held = read_rows(sql, key, span_of, None, simulated=rows.simulated)
        read = rows.between(*span_of)
        vanished += [int(at) for at in np.setdiff1d(held.time, read.time)]
        for candle, at in zip(read, read.time.tolist(), strict=True):
            one = held.between(at, at + 1)
            if len(one) and _agree(
                (one[0].open, one[0].high, one[0].low, one[0].close),
                (candle.open, candle.high, candle.low, candle.close),
                (one[0].volume, one[0].value),
                (candle.volume, candle.value),
            ):
                if span.unsettled:
                    same.append(at)
            else:
                restated.append(at)
    return Settled(tuple(same), tuple(restated), tuple(vanished))


def _agree(
    prices: tuple[float, ...],
    other_prices: tuple[float, ...],
    sums: tuple[float, ...],
    other_sums: tuple[float, ...],
) -> bool:
    return prices == other_prices and all(
        math.isclose(one, other, rel_tol=SUM_TOLERANCE)
        for one, other in zip(sums, other_sums, strict=True)
    )
