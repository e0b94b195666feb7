"""What the metadata of an answer says: what of it is not known, and where there is nothing."""

from __future__ import annotations

from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import CandleSeries, Span
from upbit_backbone.storage.coverage import (
    BEGINNING_MS,
    CONTRADICTED,
    NOT_ASKED,
    Coverage,
    Unknown,
)
from upbit_backbone.storage.series_memory import Answer
from upbit_backbone.storage.spans import Range, SpanSet

UNREAD = "stored, but it could not be read now"


def holes(answer: Answer) -> tuple[tuple[int | None, int | None], ...]:
    """What an answer lacks: below the beginning of the calendar there is nothing to know."""
    return tuple(
        (low_ms, high_ms)
        for low_ms, high_ms in answer.missing
        if high_ms is None or high_ms > BEGINNING_MS
    )


def unread(proved: SpanSet, answer: Answer) -> list[Range]:
    """What an answer lacks although the file has it, ascending."""
    found: list[Range] = []
    for low_ms, high_ms in holes(answer):
        if high_ms is None:
            continue
        if low_ms is not None:
            found += proved.overlap(low_ms, high_ms)
        elif (reach := proved.ending_at(high_ms)) is not None:
            found.append(reach)
    return found


def missing_spans(known: Coverage, answer: Answer, failure: str) -> tuple[Span, ...]:
    """All that an answer lacks, and why.

    Args:
        known: Of the series.
        answer: With or without holes.
        failure: Why the file cannot be used; empty while it can.
    """
    spans: list[Span] = []
    for low_ms, high_ms in holes(answer):
        if low_ms is not None and high_ms is not None:
            lacks = known.unknown(low_ms, high_ms)
            # Whatever was the matter, what is proved and not in the answer is not told by it.
            lacks += [
                Unknown(*part, failure or UNREAD) for part in known.proved.overlap(low_ms, high_ms)
            ]
            spans += [_span(one) for one in sorted(lacks)]
            continue
        reason = NOT_ASKED
        at = None if high_ms is None else known.at(high_ms - 1)
        if at is not None:
            reason = failure or UNREAD if at.proved else at.reason
        spans.append(
            Span(
                None if low_ms is None else utc_datetime(low_ms),
                None if high_ms is None else utc_datetime(high_ms),
                "unknown",
                reason,
            )
        )
    return tuple(spans)


def missing_below(
    known: Coverage, low_ms: int, high_ms: int, *, is_short: bool
) -> tuple[Span, ...]:
    """What of a range below the candles of a page is not known, and why.

    Args:
        known: Of the series.
        low_ms: Where the range begins.
        high_ms: Where the page's candles begin.
        is_short: The exchange had more room: what is stored there, it should have shown.
    """
    lacks = known.unknown(low_ms, high_ms)
    if is_short:
        lacks += [
            Unknown(one.start_ms, one.end_ms, CONTRADICTED)
            for one in known.between(low_ms, high_ms)
            if one.state == "complete"
        ]
    return tuple(_span(one) for one in sorted(lacks))


def _span(lack: Unknown) -> Span:
    return Span(utc_datetime(lack.start_ms), utc_datetime(lack.end_ms), "unknown", lack.reason)


def silent_spans(
    known: Coverage, start_ms: int | None, end_ms: int, rows: CandleSeries, count: int | None
) -> tuple[Span, ...]:
    """Where an answer has no candle because there is none.

    Args:
        known: Of the series.
        start_ms: None: the latest `count` were asked for.
        end_ms: Exclusive.
        rows: The answer.
        count: None: all of the range.
    """
    if start_ms is None:
        enough = len(rows) and len(rows) == count
        start_ms = int(rows.time[0]) if enough else BEGINNING_MS
    return tuple(
        Span(utc_datetime(one.start_ms), utc_datetime(one.end_ms), one.state, one.reason)
        for one in known.between(start_ms, end_ms)
        if one.state in ("empty", "before_listing", "after_delisting")
    )
