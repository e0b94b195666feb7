"""Small plots of the last five minutes, made with pyqtgraph.

Importing this module takes most of a second, so nobody does before the plots are asked for
(`MonitorPanel.show_plots`).
"""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QSizePolicy, QWidget

from ui.moments import korean_time
from ui.monitor.load_gauge import LOW_WAITS_ABOVE, ONLY_CRITICAL_ABOVE
from ui.monitor.record import KEPT_S
from ui.theme import Theme

_MINUTE_S = 60.0
_LABEL_PX = 40.0
_LEFT_PX = 30
_BAND_ALPHA = 46
_LAG_TOPS_MS = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0)

# exitCleanup: the window takes its plots along, and at exit there is nothing left to do.
pg.setConfigOptions(antialias=False, useOpenGL=False, exitCleanup=False)


class KoreanTimeAxis(pg.AxisItem):
    """Full minutes of Korean time; pyqtgraph's own `DateAxisItem` follows the machine's zone."""

    def tickValues(self, first: float, last: float, size: float) -> list[tuple[float, list[float]]]:
        """Full minutes between two moments in epoch seconds, as many as have room."""
        step = _MINUTE_S
        while step < last - first and size * step < _LABEL_PX * (last - first):
            step *= 2
        start = np.ceil(first / step) * step
        return [(step, np.arange(start, last + 0.001, step).tolist())]

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """``21:05`` of each of them."""
        return [f"{korean_time(round(value * 1_000)):%H:%M}" for value in values]


class HistoryPlot(pg.PlotWidget):
    """One line over the last five minutes; nothing of it is to be moved or clicked."""

    def __init__(
        self, theme: Theme, colour: str, *, times: bool, parent: QWidget | None = None
    ) -> None:
        axes = {
            "bottom": KoreanTimeAxis("bottom", pen=theme.line, textPen=theme.dim),
            "left": pg.AxisItem("left", pen=theme.line, textPen=theme.dim),
        }
        super().__init__(parent, background=theme.window, enableMenu=False, axisItems=axes)
        self._top = 0.0
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setMinimumSize(0, 0)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        # Otherwise each move of the mouse asks the scene what is below it.
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        font = self.font()
        font.setPointSizeF(font.pointSizeF() * 0.8)
        for axis in axes.values():
            axis.setStyle(tickFont=font, tickLength=3, tickTextOffset=3, autoExpandTextSpace=False)
        axes["left"].setWidth(_LEFT_PX)
        axes["bottom"].setHeight(17)
        if not times:
            axes["bottom"].setStyle(showValues=False)
            axes["bottom"].setHeight(4)
        self.getPlotItem().layout.setContentsMargins(0, 5, 1, 0)
        self.getViewBox().disableAutoRange()
        self._line = self.plot(pen=pg.mkPen(colour, width=1), antialias=False, skipFiniteCheck=True)
        # To the curve itself it would be no use: a plot sets it anew for each it takes in.
        self.getPlotItem().setClipToView(True)

    def band(self, low: float, high: float, colour: str) -> None:
        """Tint the ground between two values."""
        tint = QColor(colour)
        tint.setAlpha(_BAND_ALPHA)
        region = pg.LinearRegionItem(
            (low, high), orientation="horizontal", movable=False, brush=tint, pen=pg.mkPen(None)
        )
        region.setZValue(-10)
        self.addItem(region)

    def show_scale(self, top: float, *marks: float) -> None:
        """Let the values run from 0 to `top`, with these marks on the axis."""
        if top != self._top:
            self._top = top
            self.setYRange(0.0, top, padding=0.04)
            self.getAxis("left").setTicks([[(mark, f"{mark:g}") for mark in marks]])

    def show_values(self, times_s: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Draw the line; its newest sample stands at the right edge."""
        self._line.setData(times_s, values)
        if len(times_s):
            self.setXRange(times_s[-1] - KEPT_S, times_s[-1], padding=0.0)


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

    def show_values(self, times_s: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Draw the line, on the smallest scale that holds all of it."""
        highest = float(values.max(initial=0.0))
        top = next((top for top in _LAG_TOPS_MS if top >= highest), highest)
        self.show_scale(top, 0.0, top / 2, top)
        super().show_values(times_s, values)
