"""What is drawn for known candles: counts, pixels, and the same by both ways of drawing."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QImage, QPainter

from tests.ui.samples import BTC, M1, minutes, row, series
from ui.chart.bars import Bars, FloatColumn
from ui.chart.geometry import (
    Drawn,
    Mapping,
    body_width,
    breaks,
    columns,
    dashes,
)
from ui.chart.geometry import candles as candles_of
from ui.chart.geometry import volumes as volumes_of
from ui.chart.primitives import Batch
from upbit_backbone import CandleSeries
from upbit_backbone.clock import MINUTE_MS

PX = Mapping(x0=5.0, dx=10.0, y0=2_000.0, dy=-1.0)


def rows_of(candles_in: CandleSeries) -> FloatColumn:
    bars = Bars(BTC, M1)
    bars.merge(candles_in)
    return bars.rows(bars.first, bars.last + 1)


def candles(rows: FloatColumn, first: int, to_px: Mapping) -> Drawn:
    return candles_of(columns(rows, first, to_px), to_px)


def volumes(rows: FloatColumn, first: int, to_px: Mapping) -> Drawn:
    return volumes_of(columns(rows, first, to_px), to_px)


def test_each_candle_has_a_wick_and_a_body_of_its_direction() -> None:
    rows = rows_of(
        series([row(0, 100.0, to=110.0), row(1, 110.0, to=90.0), row(2, 90.0), row(3, 90.0, to=91)])
    )
    drawn = candles(rows, 0, PX)
    assert [len(part.boxes) for part in (drawn.rise, drawn.fall, drawn.even)] == [2, 1, 1]
    assert [len(part.lines) for part in (drawn.rise, drawn.fall, drawn.even)] == [2, 1, 1]
    assert drawn.bars == 4
    # The falling one: from 110 down to 90, its wick from 115 to 85, in the middle of the body.
    x, y, width, height = drawn.fall.boxes[0]
    assert (y, height) == (2_000 - 110, 20)
    assert drawn.fall.lines[0].tolist() == [x + width / 2, 1_885.0, x + width / 2, 1_915.0]


def test_a_candle_without_change_is_still_a_mark() -> None:
    flat = np.array([[0.0], [100.0], [100.0], [100.0], [100.0], [1.0]])
    drawn = candles(flat, 0, PX)
    assert drawn.even.boxes[0][3] == 1.0
    assert drawn.even.lines[0][3] - drawn.even.lines[0][1] == 1.0


@pytest.mark.parametrize("spacing", [2.0, 3.3, 7.1, 8.0, 12.5, 31.0])
def test_bodies_are_odd_and_leave_a_gap(spacing: float) -> None:
    width = body_width(spacing)
    assert width % 2 == 1
    assert width < spacing
    drawn = candles(rows_of(minutes(0, 50)), 0, Mapping(0.3, spacing, 2_000.0, -1.0))
    if width > 1:
        assert set(drawn.rise.boxes[:, 2]) == {float(width)}
        assert np.all(drawn.rise.boxes[:, 0] == np.floor(drawn.rise.boxes[:, 0]))


def test_many_bars_in_a_pixel_are_drawn_as_one_with_the_range_of_all() -> None:
    rows = rows_of(series([row(n, 100.0 + n % 7, to=100.0 + (n + 1) % 7) for n in range(4_000)]))
    drawn = candles(rows, 0, Mapping(0.0, 0.1, 2_000.0, -1.0))
    assert drawn.bars == 400
    lines = np.concatenate([drawn.rise.lines, drawn.fall.lines, drawn.even.lines])
    # Each column reaches from the lowest low to the highest high of its ten bars.
    assert set(lines[:, 1]) == {2_000.0 - 111.0}
    assert set(lines[:, 3]) == {2_000.0 - 95.0}


def test_prices_far_below_one_won_keep_their_shape() -> None:
    rows = rows_of(series([(0.0, 0.00095, 0.00097, 0.00093, 0.00096, 1.0, 1.0)]))
    drawn = candles(rows, 0, Mapping(0.0, 10.0, 1_000.0, -1e6))
    assert drawn.rise.boxes[0].tolist()[1:] == [40.0, 7.0, 10.0]


def test_volumes_stand_on_the_ground() -> None:
    drawn = volumes(rows_of(minutes(0, 3)), 0, Mapping(0.0, 10.0, 500.0, -10.0))
    assert drawn.rise.boxes[:, 1].tolist() == [480.0] * 3
    assert drawn.rise.boxes[:, 3].tolist() == [20.0] * 3
    narrow = volumes(rows_of(minutes(0, 3)), 0, Mapping(0.0, 1.0, 500.0, -10.0))
    assert narrow.rise.lines.tolist() == [[x + 0.5, 480.0, x + 0.5, 500.0] for x in range(3)]


def test_a_break_is_marked_where_minutes_are_missing() -> None:
    rows = rows_of(series([row(0, 1.0), row(1, 1.0), row(5, 1.0), row(6, 1.0)]))
    marks = breaks(rows, 0, PX, MINUTE_MS)
    assert marks.tolist() == [5 + 1.5 * 10 + 0.5]
    assert len(breaks(rows, 0, PX, None)) == 0
    assert len(breaks(rows, 0, Mapping(0.0, 1.0, 0.0, 1.0), MINUTE_MS)) == 0


def test_dashes_end_where_the_line_ends() -> None:
    level = dashes(0.0, 7.5, 20.0, 7.5)
    assert level.tolist() == [[0, 7.5, 3, 7.5], [7, 7.5, 10, 7.5], [14, 7.5, 17, 7.5]]
    upright = dashes(3.5, 10.0, 3.5, 12.0)
    assert upright.tolist() == [[3.5, 10, 3.5, 12]]


def picture_of(batch: Batch) -> QImage:
    drawn = candles(rows_of(minutes(0, 20)), 0, Mapping(5.0, 10.0, 1_100.0, -1.0))
    image = QImage(240, 140, QImage.Format.Format_RGB32)
    image.fill(QColor("black"))
    with QPainter(image) as painter:
        painter.setPen(QColor("red"))
        batch.draw_lines(painter, drawn.rise.lines)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor("lime"))
        batch.draw_boxes(painter, drawn.rise.boxes)
    return image


def test_drawing_by_pointer_and_by_list_gives_the_same_picture() -> None:
    fast, slow = picture_of(Batch(batched=True)), picture_of(Batch(batched=False))
    assert fast == slow
    assert fast.pixelColor(5, 95) == QColor("lime")


def test_this_binding_takes_pointers() -> None:
    assert picture_of(Batch()) == picture_of(Batch(batched=True))
    assert Batch()._batched
