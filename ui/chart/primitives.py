"""Batched drawing: many lines or rectangles in one call, straight from numpy.

Qt's painter takes a pointer to the first of an array of C++ values and a count. A line is
four doubles there, and so is a rectangle: a numpy table of four columns is such an array.
Wrapping its address costs nothing, making a Qt object of each row costs half a
microsecond. Where the binding does not take the pointer, lists are drawn instead.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
import shiboken6
from PySide6.QtCore import QLineF, QRectF
from PySide6.QtGui import QImage, QPainter

from ui.chart.bars import FloatColumn

Value = TypeVar("Value", QLineF, QRectF)


class Batch:
    """Draws tables of four columns."""

    def __init__(self, *, batched: bool | None = None) -> None:
        """`batched` None finds out whether the binding can; False draws through lists."""
        self._batched = _binding_takes_pointers() if batched is None else batched

    def draw_lines(self, painter: QPainter, table: FloatColumn) -> None:
        """Draw rows x1, y1, x2, y2 with the painter's pen."""
        if len(table) == 0:
            return
        if self._batched:
            table = np.ascontiguousarray(table)
            painter.drawLines(_first(table, QLineF), len(table))
        else:
            painter.drawLines([QLineF(*row) for row in table.tolist()])

    def draw_boxes(self, painter: QPainter, table: FloatColumn) -> None:
        """Draw rows x, y, width, height with the painter's pen and brush."""
        if len(table) == 0:
            return
        if self._batched:
            table = np.ascontiguousarray(table)
            painter.drawRects(_first(table, QRectF), len(table))
        else:
            painter.drawRects([QRectF(*row) for row in table.tolist()])


def _first(table: FloatColumn, kind: type[Value]) -> Value:
    """The first row as a Qt value; valid as long as `table` is."""
    wrap: Any = shiboken6.wrapInstance
    return cast(Value, wrap(table.ctypes.data, kind))


def _binding_takes_pointers() -> bool:
    image = QImage(1, 1, QImage.Format.Format_RGB32)
    with QPainter(image) as painter:
        try:
            painter.drawLines(_first(np.zeros((1, 4)), QLineF), 1)
        except (TypeError, AttributeError):
            return False
    return True
