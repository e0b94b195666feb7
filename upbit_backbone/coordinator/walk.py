"""Which page to ask next: decided by what is left of a plan, and by what the last pages held."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from upbit_backbone.coordinator.plan import CandlePlan, Hole, Page
from upbit_backbone.coordinator.ranges import Range, joined, periods_between, without
from upbit_backbone.protocol import MAX_PAGE_CANDLES

_STEP_BACK = 0.9
"""Pages of a thin market are laid so much closer than the last one reached: few fall short."""
_ENOUGH_ROWS = 10
"""Fewer say little of how thin a market is."""


class CandleWalk:
    """A walk over the holes of a plan, from the newest candle down or from the oldest up.

    Pure bookkeeping: the caller asks for the pages and tells what they held. Pages may be
    answered in any order. A page asks for as many rows as its window has periods, so it reaches
    its window's start where every period has a candle. Where many have none it reaches far below:
    nothing that it covers is asked again, and the windows grow as wide as a page is found to reach.

    A short page says that nothing lies below it. A walk down ends its hole there; a walk up goes
    on in steps that double, and then halves the distance to the first candle: what lies long
    before a market's listing costs a few pages.
    """

    def __init__(
        self,
        plan: CandlePlan,
        *,
        newest_first: bool = True,
        periods_a_page: int = 0,
        rows_a_page: int = MAX_PAGE_CANDLES,
    ) -> None:
        """Take a plan.

        Args:
            plan: What to ask for.
            newest_first: Down from the newest candle; else up from the oldest.
            periods_a_page: How wide a window is at first, as an earlier walk over the series found
                it; no page is narrower than it has rows.
            rows_a_page: The most that the exchange gives.
        """
        self._timeframe = plan.timeframe
        self._holes = plan.holes
        self._newest_first = newest_first
        self._todo = [Range(hole.start_ms, hole.end_ms) for hole in plan.holes]
        self._in_flight: list[Page] = []
        self._lost: list[Range] = []
        self._stopped = False
        self._seeking = not newest_first
        self._found_above = False
        self._rows_a_page = rows_a_page
        self.periods_a_page = max(rows_a_page, periods_a_page)
        """How wide a window is now, in periods: more than a page has rows where they are thin."""
        self.reached: list[Range] = []
        """What answered pages cover."""
        self.short: list[Range] = []
        """What lies below a short page: the exchange shows nothing there."""

    def next_page(self) -> Page | None:
        """The next page to ask, which from now on counts as on its way.

        None: nothing is to be begun now; an answer on its way may change that.
        """
        order = reversed(self._todo) if self._newest_first else iter(self._todo)
        for low_ms, high_ms in order:
            hole = self._hole_of(low_ms)
            if not hole.doubtful:
                return self._page_of(Range(low_ms, high_ms), self.periods_a_page)
            if not any(self._hole_of(page.start_ms) is hole for page in self._in_flight):
                return self._page_of(Range(low_ms, high_ms), None)
        return None

    def answered(self, page: Page, oldest_ms: int | None, rows: int) -> None:
        """Take what a page held: its oldest open time (None: no row) and how many rows."""
        self._in_flight.remove(page)
        low_ms = page.end_ms if oldest_ms is None else oldest_ms
        self._reach(Range(low_ms, page.end_ms))
        if rows < page.rows:
            hole = self._hole_of(page.start_ms)
            if low_ms > hole.start_ms:
                below = Range(hole.start_ms, low_ms)
                self.short.append(below)
                self._todo = self._by_hole(without(self._todo, [below]))
        elif low_ms > page.start_ms:
            left = without([(page.start_ms, low_ms)], [*self.reached, *self.short])
            if self._stopped:
                self._lost += left
            else:
                self._todo = self._by_hole([*self._todo, *left])
        self._learn(page, low_ms, rows)

    def failed(self, page: Page) -> None:
        """Take that a page could not be had; it is not asked again."""
        self._in_flight.remove(page)
        self._lost.append(Range(page.start_ms, page.end_ms))

    def stop(self) -> None:
        """Ask for nothing further; what is left counts as not reached."""
        self._stopped = True
        self._lost += self._todo
        self._todo = []

    @property
    def frontier_ms(self) -> int | None:
        """Up to here (walking up), or from here on (down), all is answered; None: everywhere."""
        lost = without(self._lost, self.reached)
        open_ranges = [*self._todo, *lost, *(Range(*page[:2]) for page in self._in_flight)]
        if self._newest_first:
            return max((one.end_ms for one in open_ranges), default=None)
        return min((one.start_ms for one in open_ranges), default=None)

    @property
    def unreached(self) -> list[Range]:
        """What no page covers and no short page explains; ascending."""
        holes = [(hole.start_ms, hole.end_ms) for hole in self._holes]
        return without(holes, [*self.reached, *self.short])

    @property
    def unshown(self) -> list[Range]:
        """What lies below short pages and no other page covers; ascending."""
        return without(self.short, self.reached)

    def _page_of(self, left: Range, window: int | None) -> Page:
        """The page at the end where the walk is; `window` None: all that is left in one."""
        timeframe = self._timeframe
        periods = periods_between(timeframe, left.start_ms, left.end_ms)
        window = periods if window is None else min(window, periods)
        if self._newest_first:
            cut_ms = timeframe.back_ms(left.end_ms, window)
            asked, rest = Range(cut_ms, left.end_ms), Range(left.start_ms, cut_ms)
        else:
            cut_ms = timeframe.back_ms(left.start_ms, -window)
            asked, rest = Range(left.start_ms, cut_ms), Range(cut_ms, left.end_ms)
        at = self._todo.index(left)
        self._todo[at : at + 1] = [rest] if rest.start_ms < rest.end_ms else []
        page = Page(asked.start_ms, asked.end_ms, min(window, self._rows_a_page))
        self._in_flight.append(page)
        return page

    def _reach(self, covered: Range) -> None:
        self.reached = joined([*self.reached, covered])
        self._todo = self._by_hole(without(self._todo, [covered]))

    def _hole_of(self, at_ms: int) -> Hole:
        return self._holes[bisect_right(self._holes, at_ms, key=_start_ms) - 1]

    def _by_hole(self, ranges: Iterable[Range]) -> list[Range]:
        """The same ranges, ascending, none across the border of two holes that touch."""
        parts: list[Range] = []
        for low_ms, high_ms in joined(ranges):
            first = bisect_right(self._holes, low_ms, key=_start_ms)
            last = bisect_left(self._holes, high_ms, key=_start_ms)
            edges = [low_ms, *(hole.start_ms for hole in self._holes[first:last]), high_ms]
            parts += map(Range, edges, edges[1:])
        return parts

    def _learn(self, page: Page, low_ms: int, rows: int) -> None:
        """Set the width of the next windows by what this page held."""
        timeframe = self._timeframe
        full = rows >= page.rows
        if rows == 0 and self._newest_first:
            return
        if rows == 0:
            if self._found_above and self._todo:
                self.periods_a_page = self._half(*self._todo[0])
            else:
                self.periods_a_page *= 2
        elif self._seeking and full and low_ms > page.start_ms:
            self._found_above = True
            self.periods_a_page = self._half(page.start_ms, low_ms)
        else:
            if rows >= _ENOUGH_ROWS:
                reach = periods_between(timeframe, low_ms, page.end_ms)
                wide = int(_STEP_BACK * reach * self._rows_a_page / rows)
                self.periods_a_page = max(self._rows_a_page, wide)
            elif self._seeking:
                self.periods_a_page = self._rows_a_page
            self._seeking = self._found_above = False

    def _half(self, start_ms: int, end_ms: int) -> int:
        periods = periods_between(self._timeframe, start_ms, end_ms)
        return max(self._rows_a_page, periods // 2)


def _start_ms(hole: Hole) -> int:
    return hole.start_ms
