"""Which bars are in view.

Pure bookkeeping in bar indices: the chart asks it what to draw, keys and the mouse move
it. Bar `i` is as wide as one index and centred on `i`.
"""

from __future__ import annotations

MIN_SPAN = 12.0
MAX_SPAN = 50_000.0
DEFAULT_SPAN = 140.0
_MARGIN = 4.0
"""Empty room to the right of the newest bar, in bars."""
_KEEP = 3.0
"""How many bars stay in view however far one pans."""


class Viewport:
    """The left and right edge of what is shown."""

    def __init__(self) -> None:
        self.right = DEFAULT_SPAN
        self.span = DEFAULT_SPAN
        self._following = True

    @property
    def left(self) -> float:
        return self.right - self.span

    @property
    def following(self) -> bool:
        """Whether the newest bar is in view, so that the view goes along with the next."""
        return self._following

    def show_latest(self, last: int, span: float | None = None) -> None:
        """Show the newest bar at the right edge."""
        if span is not None:
            self.span = _bounded(span)
        self.right = last + 0.5 + self._margin()
        self._following = True

    def pan(self, bars: float, first: int, last: int) -> None:
        """Move to the right by a number of bars, to the left if negative."""
        self.right += bars
        self._settle(first, last)

    def zoom(self, factor: float, at: float, first: int, last: int) -> None:
        """Show `factor` times as many bars; what lies under index `at` stays there.

        Only the empty room right of the newest bar does not grow with them.
        """
        span = _bounded(self.span * factor)
        share = (self.right - at) / self.span
        right = at + share * span
        if factor > 1:
            right = min(right, max(self.right, last + 0.5 + self._margin()))
        self.right, self.span = right, span
        self._settle(first, last)

    def extend(self, before: int, after: int) -> None:
        """The newest index went from `before` to `after`: go along if it was in view."""
        if self._following:
            self.right += after - before

    def _settle(self, first: int, last: int) -> None:
        keep = min(_KEEP, self.span / 2)
        self.right = min(max(self.right, first + keep), last + self.span - keep)
        self._following = self.right >= last

    def _margin(self) -> float:
        return min(_MARGIN, self.span / 10)


def _bounded(span: float) -> float:
    return min(max(span, MIN_SPAN), MAX_SPAN)
