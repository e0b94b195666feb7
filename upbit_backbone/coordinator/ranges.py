"""Half-open ranges of open times, in epoch milliseconds. Plain values, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import Span, Timeframe


class Range(NamedTuple):
    """``start_ms <= open time < end_ms``."""

    start_ms: int
    end_ms: int


def joined(ranges: Iterable[tuple[int, int]]) -> list[Range]:
    """The same ranges, ascending; those that overlap or touch are one, empty ones none."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1].end_ms:
            found[-1] = Range(found[-1].start_ms, max(high, found[-1].end_ms))
        elif low < high:
            found.append(Range(low, high))
    return found


def without(wanted: Iterable[tuple[int, int]], taken: Iterable[tuple[int, int]]) -> list[Range]:
    """What of the ranges `wanted` no range of `taken` covers; ascending and joined."""
    left: list[Range] = []
    covered = joined(taken)
    at = 0
    for low, high in joined(wanted):
        while at < len(covered) and covered[at].end_ms <= low:
            at += 1
        for start, end in covered[at:]:
            if start >= high:
                break
            if start > low:
                left.append(Range(low, start))
            low = max(low, end)
        if low < high:
            left.append(Range(low, high))
    return left


def periods_between(timeframe: Timeframe, start_ms: int, end_ms: int) -> int:
    """How many candles can open in a range whose ends are aligned."""
    fixed_ms = timeframe.fixed_ms
    if fixed_ms is not None:
        return (end_ms - start_ms) // fixed_ms
    start, end = utc_datetime(start_ms), utc_datetime(end_ms)
    if timeframe is Timeframe.Y1:
        return end.year - start.year
    return (end.year - start.year) * 12 + end.month - start.month


def unknown(start_ms: int | None, end_ms: int | None, reason: str) -> Span:
    """A span of which nothing is known; None: open on that side."""
    start = None if start_ms is None else utc_datetime(start_ms)
    end = None if end_ms is None else utc_datetime(end_ms)
    return Span(start, end, "unknown", reason)
