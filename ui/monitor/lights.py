"""A light for the health of a part: colour, shape and word say the same."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPolygonF

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
