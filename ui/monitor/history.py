"""Small plots of the last five minutes, painted directly.

One widget of the plotting library took 1.6 ms to draw what takes a tenth of that here, and the
library most of a second to be imported (ADR 3).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from ui.chart.labels import Labels
from ui.chart.primitives import Batch
from ui.moments import korean_time
from ui.monitor.record import KEPT_S
from ui.theme import Theme
from upbit_backbone.protocol import LOW_WAITS_ABOVE, ONLY_CRITICAL_ABOVE

_MINUTE_S = 60.0
_LEFT_PX = 34
"""Room for the marks; both plots have the same, so that their times lie below each other."""
_TOP_PX = 5
_BELOW_PX = 17
_BELOW_WITHOUT_TIMES_PX = 4
_TICK_PX = 3
_LABEL_GAP_PX = 10
_HEADROOM = 0.04
_BAND_ALPHA = 46
_LAG_TOPS_MS = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0)


class HistoryPlot(QWidget):
    """One line over the last five minutes; nothing of it is to be moved or clicked."""

    def __init__(
        self, theme: Theme, colour: str, *, times: bool, parent: QWidget | None = None
    ) -> None:
        """Begin without a line; `times` are Korean times below it."""
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._ground, self._ink = QColor(theme.window), QColor(colour)
        self._line, self._dim = QColor(theme.line), QColor(theme.dim)
        font = self.font()
        font.setPointSizeF(font.pointSizeF() * 0.8)
        self._labels = Labels(font)
        self._batch = Batch()
        self._below_px = _BELOW_PX if times else _BELOW_WITHOUT_TIMES_PX
        self._has_times = times
        self._bands: list[tuple[float, float, QColor]] = []
        self._marks: tuple[float, ...] = ()
        self.top = 1.0
        """The value at the upper end of the scale."""
        self.times_s: NDArray[np.float64] = np.empty(0)
        self.values: NDArray[np.float64] = np.empty(0)

    def band(self, low: float, high: float, colour: str) -> None:
        """Tint the ground between two values."""
        tint = QColor(colour)
        tint.setAlpha(_BAND_ALPHA)
        self._bands.append((low, high, tint))

    def show_scale(self, top: float, *marks: float) -> None:
        """Let the values run from 0 to `top`, with these marks on the axis."""
        self.top, self._marks = top, marks

    def show_values(self, times_s: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Draw the line; its newest sample, of epoch seconds, stands at the right edge."""
        self.times_s, self.values = times_s, values
        self.update()

    def full_minutes(self, label_px: float) -> list[tuple[float, str]]:
        """Epoch seconds and Korean time of full minutes, as many as have room."""
        width = self._box.width()
        if not len(self.times_s) or width < label_px:
            return []
        last_s = float(self.times_s[-1])
        step_s = _MINUTE_S
        while width * step_s < label_px * KEPT_S:
            step_s *= 2
        first_s = math.ceil((last_s - KEPT_S) / step_s) * step_s
        moments = np.arange(first_s, last_s + 0.001, step_s).tolist()
        return [(at_s, f"{korean_time(round(at_s * 1_000)):%H:%M}") for at_s in moments]

    def paintEvent(self, event: QPaintEvent) -> None:
        box = self._box
        with QPainter(self) as painter:
            painter.fillRect(self.rect(), self._ground)
            for low, high, tint in self._bands:
                bottom, top = self._y(low, box), self._y(high, box)
                painter.fillRect(QRectF(box.left(), top, box.width(), bottom - top), tint)
            painter.setPen(self._line)
            painter.drawLine(box.bottomLeft(), box.bottomRight())
            painter.drawLine(box.topLeft(), box.bottomLeft())
            self._paint_marks(painter, box)
            if self._has_times:
                self._paint_times(painter, box)
            painter.setPen(self._ink)
            self._batch.draw_lines(painter, self._segments(box))

    @property
    def _box(self) -> QRectF:
        """Where the line is drawn."""
        wide, high = self.width() - _LEFT_PX - 1, self.height() - _TOP_PX - self._below_px
        return QRectF(_LEFT_PX, _TOP_PX, max(0, wide), max(0, high))

    def _segments(self, box: QRectF) -> NDArray[np.float64]:
        """Pieces of the line: x1, y1, x2, y2 of each."""
        if len(self.times_s) < 2:
            return np.empty((0, 4))
        across = (self.times_s - self.times_s[-1] + KEPT_S) / KEPT_S
        # Whole pixels: a line between them is drawn twice as wide, and pale.
        x = np.rint(box.left() + across * box.width())
        y = np.rint(self._y(self.values, box))
        return np.column_stack((x[:-1], y[:-1], x[1:], y[1:]))

    def _y(self, value: Any, box: QRectF) -> Any:
        return box.bottom() - value / (self.top * (1 + _HEADROOM)) * box.height()

    def _paint_marks(self, painter: QPainter, box: QRectF) -> None:
        for mark in self._marks:
            text, y = f"{mark:g}", round(self._y(mark, box))
            painter.setPen(self._line)
            painter.drawLine(_LEFT_PX - _TICK_PX, y, _LEFT_PX, y)
            left = _LEFT_PX - _TICK_PX - 2 - self._labels.width(text)
            self._labels.draw(painter, left, y - self._labels.height / 2, text, self._dim)

    def _paint_times(self, painter: QPainter, box: QRectF) -> None:
        for at_s, text in self.full_minutes(self._labels.width("00:00") + _LABEL_GAP_PX):
            x = round(box.left() + (at_s - self.times_s[-1] + KEPT_S) / KEPT_S * box.width())
            bottom = round(box.bottom())
            painter.setPen(self._line)
            painter.drawLine(x, bottom, x, bottom + _TICK_PX)
            wide = self._labels.width(text)
            # A label at the edge is moved inwards, so that it is never cut.
            left = min(max(box.left(), x - wide / 2), self.width() - wide)
            self._labels.draw(painter, left, bottom + _TICK_PX, text, self._dim)


class LoadPlot(HistoryPlot):
    """The load, over the bands in which work is put off."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, theme.accent, times=False, parent=parent)
        self.show_scale(100.0, 0.0, 50.0, 100.0)
        self.band(LOW_WAITS_ABOVE, ONLY_CRITICAL_ABOVE, theme.degraded)
        self.band(ONLY_CRITICAL_ABOVE, 100.0, theme.down)


class LagPlot(HistoryPlot):
    """The lag of the event loop, in milliseconds."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, theme.simulated, times=True, parent=parent)
        self.show_scale(_LAG_TOPS_MS[0], 0.0, _LAG_TOPS_MS[0] / 2, _LAG_TOPS_MS[0])

    def show_values(self, times_s: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Draw the line, on the smallest scale that holds all of it."""
        highest = float(values.max(initial=0.0))
        top = next((top for top in _LAG_TOPS_MS if top >= highest), highest)
        self.show_scale(top, 0.0, top / 2, top)
        super().show_values(times_s, values)
