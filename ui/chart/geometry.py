"""From bars to lines and rectangles, in whole pixels.

Pure functions on numpy arrays. Bodies all get the same odd number of pixels and wicks sit
in their middle: rounding in the painter's hands would make neighbours uneven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ui.chart.bars import FloatColumn

BARS_PER_PIXEL = 2.0
"""Above this, all bars of one pixel column are drawn as one."""
_BODY_SHARE = 0.8
_BREAK_MIN_PX = 3.0


class Mapping(NamedTuple):
    """From index and price to pixels: ``x = x0 + index * dx``, ``y = y0 + price * dy``."""

    x0: float
    dx: float
    y0: float
    dy: float


class Columns(NamedTuple):
    """Bars, or groups of them, and the pixel column of each."""

    rows: FloatColumn
    """Time, open, high, low, close, volume."""
    x: FloatColumn
    width: int
    """Of a body, in pixels."""


_NOTHING: FloatColumn = np.empty((0, 4))


@dataclass(frozen=True, slots=True)
class Shapes:
    """What to draw of one colour: lines as x1, y1, x2, y2, rectangles as x, y, width, height."""

    lines: FloatColumn
    boxes: FloatColumn


@dataclass(frozen=True, slots=True)
class Drawn:
    """Shapes by direction of the bar."""

    rise: Shapes
    fall: Shapes
    even: Shapes

    @property
    def bars(self) -> int:
        """How many bars, or columns of bars, these show."""
        return sum(
            max(len(part.lines), len(part.boxes)) for part in (self.rise, self.fall, self.even)
        )


def body_width(spacing_px: float) -> int:
    """Width of a body: odd, so that the wick has a middle, and never touching the next."""
    width = int(spacing_px * _BODY_SHARE)
    if width > 1 and width % 2 == 0:
        width -= 1
    return max(1, width)


def columns(rows: FloatColumn, first: int, to_px: Mapping) -> Columns:
    """What is drawn of `rows` (time, open, high, low, close, volume) from index `first`.

    Bars that share a pixel column are joined into one; of their volumes the largest is
    shown, so that the scale stays that of single bars.
    """
    x = np.floor(to_px.x0 + np.arange(first, first + rows.shape[1]) * to_px.dx)
    if to_px.dx * BARS_PER_PIXEL < 1.0 and rows.shape[1]:
        starts = np.flatnonzero(np.diff(x, prepend=x[0] - 1))
        ends = np.append(starts[1:], len(x)) - 1
        rows = np.stack(
            [
                rows[0, starts],
                rows[1, starts],
                np.maximum.reduceat(rows[2], starts),
                np.minimum.reduceat(rows[3], starts),
                rows[4, ends],
                np.maximum.reduceat(rows[5], starts),
            ]
        )
        x = x[starts]
    return Columns(rows, x, body_width(to_px.dx))


def candles(bars: Columns, to_px: Mapping) -> Drawn:
    """Wicks and bodies."""
    _, open_, high, low, close, _ = bars.rows
    top, bottom = _y(high, to_px), _y(low, to_px)
    # A flat bar still is a mark of one pixel; a line ends before its end point.
    wicks = _upright(bars.x, top, np.maximum(bottom, top + 1))
    if bars.width == 1:
        return _by_direction(open_, close, wicks, _NOTHING)
    body_top = _y(np.maximum(open_, close), to_px)
    height = np.maximum(_y(np.minimum(open_, close), to_px) - body_top, 1.0)
    return _by_direction(open_, close, wicks, _boxes(bars, body_top, height))


def volumes(bars: Columns, to_px: Mapping) -> Drawn:
    """Columns of volume standing on zero."""
    _, open_, _, _, close, volume = bars.rows
    base = np.full(len(volume), np.round(to_px.y0))
    top = np.minimum(_y(volume, to_px), base - (volume > 0))
    if bars.width == 1:
        # As lines: a thousand of them take the painter a third of the time of rectangles.
        return _by_direction(open_, close, _upright(bars.x, top, base), _NOTHING)
    return _by_direction(open_, close, _NOTHING, _boxes(bars, top, base - top))


def breaks(rows: FloatColumn, first: int, to_px: Mapping, step_ms: int | None) -> FloatColumn:
    """X of every place where candles are missing between two bars.

    Nobody traded there, or nothing is known of it: the axis skips it, so it is marked.
    None for `step_ms` (months, years): nothing is marked. Too many for the width: none.
    """
    if step_ms is None or to_px.dx < _BREAK_MIN_PX or rows.shape[1] < 2:
        return np.empty(0)
    behind = np.flatnonzero(np.diff(rows[0]) > step_ms) + 1
    return np.round(to_px.x0 + (first + behind - 0.5) * to_px.dx) + 0.5


def dashes(
    x1: float, y1: float, x2: float, y2: float, on: float = 3.0, off: float = 4.0
) -> FloatColumn:
    """A dashed line, level or upright, as its dashes.

    The painter's own dashes go through its stroker, which takes ten times as long.
    """
    starts = np.arange(0.0, max(abs(x2 - x1), abs(y2 - y1)), on + off)
    along_x, along_y = float(x1 != x2), float(y1 != y2)
    ends = starts + on
    return np.stack(
        [
            x1 + starts * along_x,
            y1 + starts * along_y,
            np.minimum(x1 + ends * along_x, max(x1, x2)),
            np.minimum(y1 + ends * along_y, max(y1, y2)),
        ],
        axis=1,
    )


def _upright(x: FloatColumn, top: FloatColumn, bottom: FloatColumn) -> FloatColumn:
    return np.stack([x + 0.5, top, x + 0.5, bottom], axis=1)


def _boxes(bars: Columns, top: FloatColumn, height: FloatColumn) -> FloatColumn:
    width = np.full(len(top), float(bars.width))
    return np.stack([bars.x - (bars.width - 1) / 2, top, width, height], axis=1)


def _by_direction(
    open_: FloatColumn, close: FloatColumn, lines: FloatColumn, boxes: FloatColumn
) -> Drawn:
    def part(chosen: npt.NDArray[np.bool_]) -> Shapes:
        return Shapes(
            lines[chosen] if len(lines) else lines, boxes[chosen] if len(boxes) else boxes
        )

    return Drawn(rise=part(close > open_), fall=part(close < open_), even=part(close == open_))


def _y(price: FloatColumn, to_px: Mapping) -> FloatColumn:
    return np.round(to_px.y0 + price * to_px.dy)
