"""Sets of ranges, against sets of whole numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.storage.spans import Range, SpanSet

POINTS = st.integers(0, 40)
RANGES = st.lists(st.tuples(POINTS, POINTS).map(lambda ends: Range(*ends)), max_size=12)


def points(ranges: list[Range] | SpanSet) -> set[int]:
    return {point for low, high in ranges for point in range(low, high)}


@given(ranges=RANGES)
def test_a_set_of_spans_holds_what_was_added_disjoint_ascending_and_never_touching(
    ranges: list[Range],
) -> None:
    spans = SpanSet(ranges)
    assert points(spans) == points(ranges)
    kept = list(spans)
    assert all(low < high for low, high in kept)
    assert all(one.end_ms < other.start_ms for one, other in itertools.pairwise(kept))


@given(ranges=RANGES, low=POINTS, high=POINTS)
def test_missing_and_overlap_share_a_range_out_between_them(
    ranges: list[Range], low: int, high: int
) -> None:
    spans = SpanSet(ranges)
    missing, overlap = spans.missing(low, high), spans.overlap(low, high)
    assert points(overlap) == points(ranges) & set(range(low, high))
    assert points(missing) == set(range(low, high)) - points(ranges)
    for found in (missing, overlap):
        assert found == sorted(found)
        assert all(start < end for start, end in found)


@given(ranges=RANGES, end=POINTS)
def test_the_range_ending_at_a_point_is_the_longest_unbroken_one_below_it(
    ranges: list[Range], end: int
) -> None:
    found = SpanSet(ranges).ending_at(end)
    held = points(ranges)
    low = end
    while low - 1 in held:
        low -= 1
    assert found == (None if low == end else Range(low, end))


def test_spans_that_touch_become_one() -> None:
    assert list(SpanSet([Range(0, 5), Range(10, 15), Range(5, 10)])) == [Range(0, 15)]


def test_a_copy_changes_alone() -> None:
    spans = SpanSet([Range(0, 5)])
    other = spans.copy()
    other.add(5, 9)
    assert (list(spans), len(spans)) == ([Range(0, 5)], 1)
    assert list(other) == [Range(0, 9)]
