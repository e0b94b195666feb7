"""What is known of each series, in SQLite: statements only, run on a connection's thread.

Several programs write one file, so what is learnt is merged with the spans that it touches
inside the transaction, never with what memory knew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.storage.candle_tables import SeriesKey, delete_rows, read_rows, write_rows
from upbit_backbone.storage.coverage import LIVE, Coverage, KnownSpan
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

_COLUMNS = "start_ms, end_ms, state, reason, evidence, known_at_ms"
_SERIES = "symbol = ? AND timeframe = ?"
SUM_TOLERANCE = 1e-9
"""Sums of volume and value may differ by so much, relatively: they were added in another order."""


class Settled(NamedTuple):
    """What a second reading said of candles that the stream had proved."""

    same: tuple[int, ...] = ()
    """Open times of those that were as the stream had them."""
    restated: tuple[int, ...] = ()
    """Open times of those that were not; what was read is stored."""
    vanished: tuple[int, ...] = ()
    """Open times of those that the exchange does not have; they are no longer stored."""


def read_coverage(sql: Sql) -> dict[SeriesKey, Coverage]:
    """What is known of every series."""
    known: dict[SeriesKey, Coverage] = {}
    for symbol, timeframe, *span in sql.execute(
        f"SELECT symbol, timeframe, {_COLUMNS} FROM coverage ORDER BY symbol, timeframe, start_ms"
    ):
        key = SeriesKey(symbol, Timeframe(timeframe))
        known.setdefault(key, Coverage()).put(KnownSpan(*span))
    return known


def write_page(
    sql: Sql, key: SeriesKey, rows: CandleSeries, proofs: Iterable[KnownSpan]
) -> Settled:
    """Store what a page read and what it proves; runs inside a transaction.

    Args:
        sql: The writing connection.
        key: The series.
        rows: The candles of the proved range.
        proofs: In the order in which they are to be put.
    """
    proofs = tuple(proofs)
    settled = Settled()
    for proof in proofs:
        if proof.state == "complete":
            before = _touching(sql, key, proof.start_ms, proof.end_ms)
            settled = _compare(sql, key, rows, before, proof)
    if settled.vanished:
        delete_rows(sql, key, settled.vanished)
    if len(rows):
        write_rows(sql, key, rows)
    put_spans(sql, key, proofs)
    return settled


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
            taken = [
                at
                for at in rows.time.tolist()
                if (span := known.at(at)) is None or not span.proved or span.evidence == LIVE
            ]
            rows = CandleSeries.merged([rows.between(at, at + 1) for at in taken] or [rows[:0]])
    if len(rows):
        write_rows(sql, key, rows)
    put_spans(sql, key, spans, over_all=over_all)
    return rows


def put_spans(
    sql: Sql, key: SeriesKey, spans: Iterable[KnownSpan], *, over_all: bool = False
) -> None:
    """Merge spans into what the file knows of a series; runs inside a transaction."""
    names = (key.symbol, key.timeframe.value)
    for span in spans:
        if span.start_ms >= span.end_ms or (not over_all and _extended(sql, names, span)):
            continue
        merged = _touching(sql, key, span.start_ms, span.end_ms)
        before = {old.start_ms: old for old in merged}
        merged.put(span, over_all=over_all)
        after = {new.start_ms: new for new in merged}
        sql.executemany(
            f"DELETE FROM coverage WHERE {_SERIES} AND start_ms = ?",
            [(*names, start) for start in before if start not in after],
        )
        sql.executemany(
            "INSERT OR REPLACE INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*names, *new) for start, new in after.items() if before.get(start) != new],
        )


def forget_delisting(sql: Sql, symbol: str) -> None:
    """The symbol is listed again."""
    sql.execute("DELETE FROM coverage WHERE symbol = ? AND state = 'after_delisting'", (symbol,))


def _extended(sql: Sql, names: tuple[str, str], span: KnownSpan) -> bool:
    """Let the span that ends where a new one begins reach further; False: it is not so simple.

    That is the way of each candle that closes: one statement, where others take five.
    """
    if span.state != "complete" or span.evidence != LIVE:
        return False
    changed = sql.execute(
        "UPDATE coverage SET end_ms = ?3, known_at_ms = ?4 WHERE symbol = ?1 AND timeframe = ?2"
        " AND start_ms = (SELECT start_ms FROM coverage WHERE symbol = ?1 AND timeframe = ?2"
        " AND start_ms <= ?3 ORDER BY start_ms DESC LIMIT 1)"
        " AND end_ms = ?5 AND state = 'complete' AND reason = '' AND evidence = ?6",
        (*names, span.end_ms, span.known_at_ms, span.start_ms, LIVE),
    )
    return bool(changed.rowcount)


def _touching(sql: Sql, key: SeriesKey, start_ms: int, end_ms: int) -> Coverage:
    rows = sql.execute(
        f"SELECT {_COLUMNS} FROM coverage WHERE {_SERIES} AND start_ms <= ? AND end_ms >= ?"
        " ORDER BY start_ms",
        (key.symbol, key.timeframe.value, end_ms, start_ms),
    )
    return Coverage(KnownSpan(*row) for row in rows)


def _compare(
    sql: Sql, key: SeriesKey, rows: CandleSeries, before: Coverage, proof: KnownSpan
) -> Settled:
    same: list[int] = []
    restated: list[int] = []
    vanished: list[int] = []
    for span in before.between(proof.start_ms, proof.end_ms):
        if not span.unsettled:
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
