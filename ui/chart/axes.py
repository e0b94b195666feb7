"""The axes: bar indices labelled with Korean time, prices and volumes on the right."""

from __future__ import annotations

from PySide6.QtCore import QLineF, QRectF
from PySide6.QtGui import QColor, QFont, QPainter

from ui.chart.labels import Labels
from ui.chart.picture import Pane, Picture, Stage
from ui.theme import Theme
from upbit_backbone.price import format_price

GAP = 8.0
"""Between a number and the edge of the axis."""
_NARROWEST = "0,000.000"


def tag_height(pane: Pane, price: float) -> float:
    """Where the tag of a price stands: at the edge while the price is out of view.

    So the latest price is always to be read.
    """
    return min(max(pane.y(price), pane.box.top() + GAP), pane.box.bottom() - GAP)


class Axes:
    """Writes the labels of a `Picture` around its panes, and says how much room they take."""

    def __init__(self, theme: Theme, font: QFont) -> None:
        self._line, self._dim, self._text = map(QColor, (theme.line, theme.dim, theme.text))
        bold = QFont(font)
        bold.setBold(True)
        self._plain, self._bold = Labels(font), Labels(bold)

    @property
    def time_height(self) -> float:
        """How high the time axis is."""
        return round(self._plain.height + 10)

    def value_width(self, picture: Picture) -> float:
        """How wide the axis on the right must be for all its labels."""
        labels = [_NARROWEST, *picture.price_labels, *(label for _, label in picture.volume_ticks)]
        newest = picture.newest
        if newest is not None:
            labels.append(format_price(picture.bars.symbol, float(newest[4])))
        return round(max(map(self._plain.width, labels)) + 2 * GAP)

    def paint(self, painter: QPainter, picture: Picture, stage: Stage) -> None:
        """Write all labels."""
        painter.setPen(self._line)
        painter.drawLines(
            [
                QLineF(stage.time_axis.topLeft(), stage.time_axis.topRight()),
                QLineF(stage.price_axis.topLeft(), stage.volume_axis.bottomLeft()),
                QLineF(stage.volume.box.topLeft(), stage.volume_axis.topRight()),
            ]
        )
        self._paint_times(painter, picture, stage.time_axis, stage)
        newest = picture.newest
        # No label shows from under the tag of the price.
        tag_y = None if newest is None else tag_height(stage.price, float(newest[4]))
        for value, label in zip(picture.price_ticks, picture.price_labels, strict=True):
            y = stage.price.y(value)
            if y < stage.price.box.top() + GAP:
                continue  # the title stands over the upper half of it
            if tag_y is None or abs(y - tag_y) >= self._plain.height:
                self._paint_value(painter, stage.price_axis, y, label)
        for volume, label in picture.volume_ticks:
            self._paint_value(painter, stage.volume_axis, stage.volume.y(volume), label)

    def _paint_times(self, painter: QPainter, picture: Picture, axis: QRectF, stage: Stage) -> None:
        top = axis.center().y() - self._plain.height / 2
        taken = axis.right() + GAP
        for tick in reversed(picture.time_ticks):
            labels = self._bold if tick.major else self._plain
            wide = labels.width(tick.label)
            # A label is never cut: at the edges it moves inside, unless another stands there.
            left = min(max(stage.price.x(tick.at) - wide / 2, axis.left() + 2), axis.right() - wide)
            if left + wide + GAP / 2 > taken:
                continue
            taken = left
            labels.draw(painter, left, top, tick.label, self._text if tick.major else self._dim)

    def _paint_value(self, painter: QPainter, axis: QRectF, y: float, label: str) -> None:
        tall = self._plain.height
        if axis.top() + tall / 2 <= y <= axis.bottom() - tall / 2:
            left = axis.right() - GAP - self._plain.width(label)
            self._plain.draw(painter, left, y - tall / 2, label, self._dim)
