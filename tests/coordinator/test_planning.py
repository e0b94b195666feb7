"""Pages, as pure functions of open times."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from upbit_backbone.coordinator.planning import periods_between, plan_range, still_unknown
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES

TIMEFRAMES = st.sampled_from(list(Timeframe))


@given(timeframe=TIMEFRAMES, back=st.integers(0, 900), periods=st.integers(0, 900))
def test_pages_cover_a_range_without_hole_or_overlap_newest_first(
    timeframe: Timeframe, back: int, periods: int
) -> None:
    end_ms = timeframe.back_ms(timeframe.floor_ms(AUTUMN_2025_MS), back)
    start_ms = timeframe.back_ms(end_ms, periods)
    pages = list(plan_range(timeframe, start_ms, end_ms))
    edges = [end_ms, *(page.start_ms for page in pages)]
    assert [page.end_ms for page in pages] == edges[:-1]
    assert edges[-1] == start_ms
    assert sum(page.rows for page in pages) == periods
    assert all(1 <= page.rows <= MAX_PAGE_CANDLES for page in pages)
    assert len(pages) == -(-periods // MAX_PAGE_CANDLES)


@given(timeframe=TIMEFRAMES, back=st.integers(0, 300), periods=st.integers(0, 300))
def test_periods_are_counted_as_they_lie_in_the_calendar(
    timeframe: Timeframe, back: int, periods: int
) -> None:
    end_ms = timeframe.back_ms(timeframe.floor_ms(AUTUMN_2025_MS), back)
    start_ms = at_ms = timeframe.back_ms(end_ms, periods)
    counted = 0
    while at_ms < end_ms:
        at_ms = timeframe.next_ms(at_ms)
        counted += 1
    assert periods_between(timeframe, start_ms, end_ms) == counted == periods


def test_planning_a_range_of_centuries_costs_nothing_until_it_is_asked() -> None:
    pages = plan_range(Timeframe.S1, -(10**14), AUTUMN_2025_MS)
    assert next(iter(pages)).end_ms == AUTUMN_2025_MS


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)


@given(holes=SPANS, answered=SPANS)
def test_what_answers_do_not_reach_stays_unknown(
    holes: list[tuple[int, int]], answered: list[tuple[int, int]]
) -> None:
    left = still_unknown(holes, answered)
    points = {at for low, high in left for at in range(low, high)}
    assert points == {at for low, high in holes for at in range(low, high)} - {
        at for low, high in answered for at in range(low, high)
    }
    assert left == sorted(left)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(left))
