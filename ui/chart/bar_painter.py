"""Candles and columns of volume on the screen: the bars in view in a few batched calls."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPen

from ui.chart.geometry import Drawn, Mapping, candles, columns, volumes
from ui.chart.picture import Pane, Picture, Stage
from ui.chart.primitives import Batch
from ui.theme import Theme

_Ink = list[tuple[QPen, QBrush]]


class BarPainter:
    """Paints the bars of a `Picture`; rising red, falling blue."""

    def __init__(self, theme: Theme) -> None:
        self._candle_inks = _inks(theme.rise, theme.fall, theme.even)
        self._volume_inks = _inks(theme.rise_volume, theme.fall_volume, theme.even_volume)
        self._batch = Batch()

    def paint(self, painter: QPainter, picture: Picture, stage: Stage) -> int:
        """Paint volumes and candles; gives how many bars, or columns of bars, that were."""
        rows, first = picture.rows_in_view()
        bars = columns(rows, first, _mapping(stage.price))
        drawn = candles(bars, _mapping(stage.price))
        below = volumes(bars, _mapping(stage.volume))
        self._paint(painter, below, self._volume_inks, stage.volume)
        self._paint(painter, drawn, self._candle_inks, stage.price)
        return drawn.bars

    def _paint(self, painter: QPainter, drawn: Drawn, inks: _Ink, pane: Pane) -> None:
        painter.save()
        painter.setClipRect(pane.box)
        for shapes, (pen, brush) in zip((drawn.rise, drawn.fall, drawn.even), inks, strict=True):
            painter.setPen(pen)
            self._batch.draw_lines(painter, shapes.lines)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(brush)
            self._batch.draw_boxes(painter, shapes.boxes)
        painter.restore()


def _mapping(pane: Pane) -> Mapping:
    return Mapping(pane.x(0.0), pane.px_per_bar, pane.y(0.0), -pane.px_per_value)


def _inks(*colours: str) -> _Ink:
    return [(_cosmetic(colour), QBrush(QColor(colour))) for colour in colours]


def _cosmetic(colour: str) -> QPen:
    pen = QPen(QColor(colour), 1)
    pen.setCosmetic(True)
    return pen
