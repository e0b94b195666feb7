"""Sets of half-open ranges of open times, in epoch milliseconds. Plain values, no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Range(NamedTuple):
    """``start_ms <= open time < end_ms``."""

    start_ms: int
    end_ms: int


class SpanSet:
    """Disjoint ranges, ascending; ranges that touch are one."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for item in ranges:
            self.add(*item)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __repr__(self) -> str:
        return f"SpanSet({self._ranges})"

    @property
    def end_ms(self) -> int | None:
        """The end of the last range."""
        return self._ranges[-1].end_ms if self._ranges else None

    def copy(self) -> SpanSet:
        """An independent copy."""
        other = SpanSet()
        other._ranges = self._ranges.copy()
        return other

    def become(self, other: SpanSet) -> None:
        """Hold what another set holds, and no more."""
        self._ranges = other._ranges.copy()

    def add(self, start_ms: int, end_ms: int) -> None:
        """Add a range; an empty one changes nothing."""
        if start_ms >= end_ms:
            return
        if self._ranges and self._ranges[-1].end_ms == start_ms:
            # A candle that closes, after those before it.
            self._ranges[-1] = Range(self._ranges[-1].start_ms, end_ms)
            return
        first = bisect_left(self._ranges, start_ms, key=lambda item: item.end_ms)
        last = bisect_right(self._ranges, end_ms, key=lambda item: item.start_ms)
        if first < last:
            start_ms = min(start_ms, self._ranges[first].start_ms)
            end_ms = max(end_ms, self._ranges[last - 1].end_ms)
        self._ranges[first:last] = [Range(start_ms, end_ms)]

    def remove(self, start_ms: int, end_ms: int) -> None:
        """Take a range out; what of it is not in the set changes nothing."""
        if start_ms >= end_ms:
            return
        first = bisect_right(self._ranges, start_ms, key=lambda item: item.end_ms)
        last = bisect_left(self._ranges, end_ms, key=lambda item: item.start_ms)
        left = []
        for low_ms, high_ms in self._ranges[first:last]:
            left += [Range(low_ms, start_ms)] if low_ms < start_ms else []
            left += [Range(end_ms, high_ms)] if high_ms > end_ms else []
        self._ranges[first:last] = left

    def missing(self, start_ms: int, end_ms: int) -> list[Range]:
        """What of a range is not in the set, ascending."""
        holes = []
        at_ms = start_ms
        first = bisect_right(self._ranges, start_ms, key=lambda item: item.end_ms)
        for item in self._ranges[first:]:
            if item.start_ms >= end_ms:
                break
            if item.start_ms > at_ms:
                holes.append(Range(at_ms, item.start_ms))
            at_ms = max(at_ms, item.end_ms)
        if at_ms < end_ms:
            holes.append(Range(at_ms, end_ms))
        return holes

    def overlap(self, start_ms: int, end_ms: int) -> list[Range]:
        """What of a range is in the set, ascending."""
        if start_ms >= end_ms:
            return []
        found = []
        first = bisect_right(self._ranges, start_ms, key=lambda item: item.end_ms)
        for item in self._ranges[first:]:
            if item.start_ms >= end_ms:
                break
            found.append(Range(max(item.start_ms, start_ms), min(item.end_ms, end_ms)))
        return found

    def ending_at(self, end_ms: int) -> Range | None:
        """The part below `end_ms` of the range that reaches up to it; None if none does."""
        index = bisect_left(self._ranges, end_ms, key=lambda item: item.end_ms)
        if index < len(self._ranges) and self._ranges[index].start_ms < end_ms:
            return Range(self._ranges[index].start_ms, end_ms)
        return None
