"""The load as a bar from 0 to 100, with the marks at which work is put off."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from ui.theme import Theme
from upbit_backbone.protocol import LOW_WAITS_ABOVE, ONLY_CRITICAL_ABOVE

_HEIGHT = 14


class LoadGauge(QWidget):
    """A filled bar; its colour changes where LOW work waits, and where all but CRITICAL does."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._load = 0.0
        self.setFixedHeight(_HEIGHT)

    def set_load(self, load: float) -> None:
        """Show a load of 0 to 100."""
        self._load = load
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(150, _HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = self._theme
        with QPainter(self) as painter:
            box = QRectF(0, (self.height() - 10) / 2, self.width(), 10)
            painter.fillRect(box, QColor(theme.raised))
            if self._load > ONLY_CRITICAL_ABOVE:
                colour = theme.down
            elif self._load > LOW_WAITS_ABOVE:
                colour = theme.degraded
            else:
                colour = theme.healthy
            filled = QRectF(box)
            filled.setWidth(box.width() * min(max(self._load, 0.0), 100.0) / 100)
            painter.fillRect(filled, QColor(colour))
            for mark in (LOW_WAITS_ABOVE, ONLY_CRITICAL_ABOVE):
                x = box.width() * mark / 100
                painter.fillRect(QRectF(x, box.top() - 1, 1, box.height() + 2), QColor(theme.dim))
