"""Coverage as the store writes and reads it, in the short form that tests of the file need."""

from __future__ import annotations

from upbit_backbone.storage import coverage_table
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import REST, KnownSpan
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql


def prove(sql: Sql, key: SeriesKey, proved: Range) -> None:
    """Note that a range was read; runs inside a transaction."""
    span = KnownSpan(proved.start_ms, proved.end_ms, "complete", "", REST, 1)
    coverage_table.put_spans(sql, key, [span])


def proved_of(sql: Sql) -> dict[SeriesKey, SpanSet]:
    """The proved ranges of every series."""
    return {key: known.proved for key, known in coverage_table.read_coverage(sql).items()}
