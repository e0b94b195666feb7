"""Which pages to ask for. Pure functions of open times, in epoch milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES


class Page(NamedTuple):
    """One request to the exchange: the `rows` latest candles that open before `end_ms`."""

    start_ms: int
    """Where the caller's interest ends."""
    end_ms: int
    rows: int


def plan_range(timeframe: Timeframe, start_ms: int, end_ms: int) -> Iterator[Page]:
    """Pages that cover ``start_ms <= open time < end_ms``, newest first.

    Both ends are aligned to the timeframe. Each page holds as many rows as its window has
    periods, so it reaches its start even when every period has a candle; where periods are
    empty it reaches further back.
    """
    high_ms = end_ms
    while high_ms > start_ms:
        low_ms = max(start_ms, timeframe.back_ms(high_ms, MAX_PAGE_CANDLES))
        yield Page(low_ms, high_ms, periods_between(timeframe, low_ms, high_ms))
        high_ms = low_ms


def periods_between(timeframe: Timeframe, start_ms: int, end_ms: int) -> int:
    """How many candles can open in a range whose ends are aligned."""
    fixed_ms = timeframe.fixed_ms
    if fixed_ms is not None:
        return (end_ms - start_ms) // fixed_ms
    start, end = utc_datetime(start_ms), utc_datetime(end_ms)
    if timeframe is Timeframe.Y1:
        return end.year - start.year
    return (end.year - start.year) * 12 + end.month - start.month


def still_unknown(
    wanted: Iterable[tuple[int, int]], reached: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """What of the ranges `wanted` no range of `reached` covers; ascending and joined."""
    left: list[tuple[int, int]] = []
    covered = joined(reached)
    at = 0
    for low, high in joined(wanted):
        while at < len(covered) and covered[at][1] <= low:
            at += 1
        for start, end in covered[at:]:
            if start >= high:
                break
            if start > low:
                left.append((low, start))
            low = max(low, end)
        if low < high:
            left.append((low, high))
    return left


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ranges, ascending; those that overlap or touch are one, empty ones none."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        elif low < high:
            found.append((low, high))
    return found
