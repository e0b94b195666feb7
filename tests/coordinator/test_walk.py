"""Which page is asked next, against an exchange that is a list of open times."""

from __future__ import annotations

from bisect import bisect_left
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.storage.fake_exchange import series_of
from upbit_backbone.clock import DAY_MS, MINUTE_MS
from upbit_backbone.coordinator.plan import CandlePlan, Hole, Page
from upbit_backbone.coordinator.ranges import joined, periods_between
from upbit_backbone.coordinator.walk import CandleWalk
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES

M = MINUTE_MS
END = AUTUMN_2025_MS


def rows_of(page: Page, exists: list[int]) -> list[int]:
    """What the exchange answers: the latest so many before the page's end."""
    end = bisect_left(exists, page.end_ms)
    return exists[max(0, end - page.rows) : end]


def walked(
    walk: CandleWalk, exists: list[int], *, at_once: int = 1, chance: Random | None = None
) -> list[tuple[Page, list[int]]]:
    """Ask until nothing is left; answers come in any order. The pages, as they were answered."""
    chance = chance or Random(1)
    under_way: list[Page] = []
    answers: list[tuple[Page, list[int]]] = []
    while True:
        while len(under_way) < at_once and (page := walk.next_page()) is not None:
            under_way.append(page)
        if not under_way:
            return answers
        page = under_way.pop(chance.randrange(len(under_way)))
        rows = rows_of(page, exists)
        walk.answered(page, rows[0] if rows else None, len(rows))
        answers.append((page, rows))


def plan_of(timeframe: Timeframe, *holes: tuple[int, int], doubtful: bool = False) -> CandlePlan:
    return CandlePlan(timeframe, tuple(Hole(*hole, doubtful) for hole in holes))


@given(
    timeframe=st.sampled_from(list(Timeframe)),
    density=st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.0]),
    history=st.integers(0, 600),
    edges=st.lists(st.integers(0, 900), min_size=2, max_size=10, unique=True),
    rows_a_page=st.integers(1, 40),
    periods_a_page=st.integers(1, 300),
    newest_first=st.booleans(),
    doubtful=st.booleans(),
    at_once=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_split_and_merged_a_range_is_what_it_was(
    timeframe: Timeframe,
    density: float,
    history: int,
    edges: list[int],
    rows_a_page: int,
    periods_a_page: int,
    newest_first: bool,
    doubtful: bool,
    at_once: int,
    seed: int,
) -> None:
    """Any range, hole pattern, page order and page size."""
    chance = Random(seed)
    end_ms = timeframe.floor_ms(END)
    exists = sorted(
        timeframe.back_ms(end_ms, n) for n in range(-50, history) if chance.random() < density
    )
    ordered = sorted(timeframe.back_ms(end_ms, n) for n in edges)
    holes = joined(zip(ordered[::2], ordered[1::2], strict=False))
    plan = plan_of(timeframe, *holes, doubtful=doubtful)
    walk = CandleWalk(
        plan, newest_first=newest_first, periods_a_page=periods_a_page, rows_a_page=rows_a_page
    )
    answers = walked(walk, exists, at_once=at_once, chance=chance)
    pages = [series_of(timeframe, rows, END) for _, rows in answers]
    chance.shuffle(pages)
    stored = series_of(timeframe, [], END)
    merged = CandleSeries.merged([stored, *pages])
    wanted = [at for at in exists if any(low <= at < high for low, high in holes)]
    found = [at for at in merged.time.tolist() if any(low <= at < high for low, high in holes)]
    assert found == wanted
    assert walk.unreached == []
    assert walk.frontier_ms is None
    assert walk.next_page() is None
    # Only what lies below the first candle that exists was not shown.
    assert all(span.end_ms <= exists[0] for span in walk.unshown if exists)
    covered = joined([*walk.reached, *walk.short])
    assert all(any(low <= a and b <= high for low, high in covered) for a, b in holes)
    assert all(page.rows <= rows_a_page for page, _ in answers)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("count", [1, 199, 200, 201, 400, 1_000, 1_200])
def test_a_dense_range_takes_no_page_more_than_it_has_two_hundreds(
    count: int, newest_first: bool
) -> None:
    exists = [END - n * M for n in range(3_000, 0, -1)]
    walk = CandleWalk(plan_of(Timeframe.M1, (END - count * M, END)), newest_first=newest_first)
    answers = walked(walk, exists, at_once=5)
    assert len(answers) == -(-count // MAX_PAGE_CANDLES)
    assert sum(page.rows for page, _ in answers) == count


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_few_silent_minutes_cost_no_page(newest_first: bool) -> None:
    chance = Random(3)
    exists = [END - n * M for n in range(43_200, 0, -1) if chance.random() > 0.005]
    walk = CandleWalk(plan_of(Timeframe.M1, (END - 43_200 * M, END)), newest_first=newest_first)
    assert len(walked(walk, exists, at_once=2)) <= 216 * 1.02


@pytest.mark.parametrize(
    ("newest_first", "at_once"), [(True, 1), (True, 5), (False, 1), (False, 5)]
)
def test_a_thin_market_takes_as_many_pages_as_it_has_rows(newest_first: bool, at_once: int) -> None:
    chance = Random(4)
    exists = [END - n * M for n in range(43_200, 0, -1) if chance.random() < 0.02]
    walk = CandleWalk(plan_of(Timeframe.M1, (END - 43_200 * M, END)), newest_first=newest_first)
    answers = walked(walk, exists, at_once=at_once, chance=chance)
    assert len(exists) / MAX_PAGE_CANDLES <= len(answers) <= 15, "216 by the clock alone"


def test_down_a_walk_ends_where_the_market_was_listed() -> None:
    exists = [END - n * M for n in range(500, 0, -1)]
    walk = CandleWalk(plan_of(Timeframe.M1, (0, END)))
    answers = walked(walk, exists, at_once=5)
    assert len(answers) <= 3 + 4, "those under way when the short one came are in vain"
    assert walk.unshown == [(0, exists[0])]


@pytest.mark.parametrize("history", [30, 500, 600_000])
def test_up_a_walk_finds_the_listing_in_fifty_years_within_36_pages(history: int) -> None:
    exists = [END - n * M for n in range(history, 0, -1)]
    walk = CandleWalk(plan_of(Timeframe.M1, (END - 50 * 365 * DAY_MS, END)), newest_first=False)
    pages = 0
    while (page := walk.next_page()) is not None:
        rows = rows_of(page, exists)
        walk.answered(page, rows[0] if rows else None, len(rows))
        pages += 1
        frontier = walk.frontier_ms
        if frontier is None or frontier > exists[0]:
            break
    assert pages <= 36
    assert walk.unshown[-1].end_ms == exists[0]


def test_a_range_in_which_the_exchange_showed_nothing_before_costs_one_page() -> None:
    exists = [END - n * M for n in range(500, 0, -1)]
    for newest_first in (True, False):
        plan = plan_of(Timeframe.M1, (0, exists[0]), doubtful=True)
        walk = CandleWalk(plan, newest_first=newest_first)
        answers = walked(walk, exists, at_once=5)
        assert [page for page, _ in answers] == [Page(0, exists[0], 200)]
        assert walk.unshown == [(0, exists[0])]


def test_a_doubtful_range_that_touches_another_does_not_slow_it_down() -> None:
    """Below the listing nothing was shown; above it months were never asked for."""
    exists = [END - n * M for n in range(1_000, 0, -1)]
    holes = (Hole(0, exists[0], doubtful=True), Hole(exists[0], END))
    walk = CandleWalk(CandlePlan(Timeframe.M1, holes))
    first = [walk.next_page() for _ in range(6)]
    assert [page.start_ms for page in first if page is not None][-2:] == [exists[0], 0]
    for page in first:
        assert page is not None
        rows = rows_of(page, exists)
        walk.answered(page, rows[0] if rows else None, len(rows))
    assert walk.next_page() is None
    assert walk.unshown == [(0, exists[0])]


def test_a_page_that_falls_short_of_its_window_after_the_stop_is_not_asked_again() -> None:
    exists = [END - n * M for n in range(1_000, 0, -1)]
    walk = CandleWalk(plan_of(Timeframe.M1, (END - 900 * M, END)), periods_a_page=900)
    page = walk.next_page()
    assert page is not None
    walk.stop()
    walk.answered(page, rows_of(page, exists)[0], 200)
    assert walk.next_page() is None
    assert walk.frontier_ms == END - 200 * M


def test_everything_before_the_frontier_is_answered() -> None:
    exists = [END - n * M for n in range(1_000, 0, -1)]
    plan = plan_of(Timeframe.M1, (END - 1_000 * M, END))
    walk = CandleWalk(plan, newest_first=False)
    first, second = walk.next_page(), walk.next_page()
    assert first is not None
    assert second is not None
    walk.answered(second, second.start_ms, 200)
    assert walk.frontier_ms == first.start_ms
    walk.answered(first, first.start_ms, 200)
    assert walk.frontier_ms == second.end_ms
    third = walk.next_page()
    assert third is not None
    walk.failed(third)
    walked(walk, exists)
    assert walk.frontier_ms == third.start_ms
    assert walk.unreached == [third[:2]]


def test_a_stopped_walk_asks_nothing_further_and_tells_what_is_left() -> None:
    walk = CandleWalk(plan_of(Timeframe.M1, (END - 1_000 * M, END)))
    page = walk.next_page()
    assert page is not None
    walk.stop()
    walk.answered(page, page.start_ms, 200)
    assert walk.next_page() is None
    assert walk.unreached == [(END - 1_000 * M, END - 200 * M)]
    assert walk.frontier_ms == END - 200 * M
    assert periods_between(Timeframe.M1, *walk.unreached[0]) == 800
