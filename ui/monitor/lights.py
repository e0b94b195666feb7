"""A light for the health of a part: colour, shape and word say the same."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QWidget

from ui.theme import Theme
from upbit_backbone.protocol import Health

_SIZE = 13


class Light(QWidget):
    """A disc is healthy, a triangle degraded, a square down, a ring starting."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours: dict[Health, QColor] = {
            "healthy": QColor(theme.healthy),
            "degraded": QColor(theme.degraded),
            "down": QColor(theme.down),
            "starting": QColor(theme.starting),
        }
        self._health: Health = "starting"
        self.setFixedSize(_SIZE, _SIZE)

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
        return QSize(_SIZE, _SIZE)

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            colour = self._colours[self._health]
            box = QRectF(1.5, 1.5, _SIZE - 3, _SIZE - 3)
            painter.setPen(colour)
            painter.setBrush(Qt.BrushStyle.NoBrush if self._health == "starting" else colour)
            match self._health:
                case "degraded":
                    painter.drawPolygon(
                        QPolygonF(
                            [
                                QPointF(box.center().x(), box.top()),
                                box.bottomRight(),
                                box.bottomLeft(),
                            ]
                        )
                    )
                case "down":
                    painter.drawRect(box)
                case _:
                    painter.drawEllipse(box)
