"""A light for the health of a part: colour, shape and word say the same."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QWidget

from ui.theme import Theme
from upbit_backbone.protocol import Health

LIGHT_SIZE = 13


def light_colours(theme: Theme) -> dict[Health, QColor]:
    """The colour of each health."""
    return {
        "healthy": QColor(theme.healthy),
        "degraded": QColor(theme.degraded),
        "down": QColor(theme.down),
        "starting": QColor(theme.starting),
    }


def paint_light(painter: QPainter, place: QRectF, health: Health, colour: QColor) -> None:
    """A disc is healthy, a triangle degraded, a square down, a ring starting."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    box = place.adjusted(1.5, 1.5, -1.5, -1.5)
    painter.setPen(colour)
    painter.setBrush(Qt.BrushStyle.NoBrush if health == "starting" else colour)
    match health:
        case "degraded":
            top = QPointF(box.center().x(), box.top())
            painter.drawPolygon(QPolygonF([top, box.bottomRight(), box.bottomLeft()]))
        case "down":
            painter.drawRect(box)
        case _:
            painter.drawEllipse(box)
    painter.restore()


class Light(QWidget):
    """The light of one part."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = light_colours(theme)
        self._health: Health = "starting"
        self.setFixedSize(LIGHT_SIZE, LIGHT_SIZE)

    @property
    def health(self) -> Health:
        """What is shown."""
        return self._health

    def set_health(self, health: Health) -> None:
        """Show another health."""
        if health != self._health:
            self._health = health
            self.update()

    def sizeHint(self) -> QSize:
        return QSize(LIGHT_SIZE, LIGHT_SIZE)

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            place = QRectF(0, 0, LIGHT_SIZE, LIGHT_SIZE)
            paint_light(painter, place, self._health, self._colours[self._health])
