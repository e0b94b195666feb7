"""Short texts drawn again and again: laid out once, drawn from the glyphs."""

from __future__ import annotations

from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QStaticText

_MOST_KEPT = 2_000


class Labels:
    """Texts in one font.

    Laying a text out takes most of the time of drawing it (15 of 22 µs), and while one pans
    nearly all labels of a frame were on the frame before.
    """

    def __init__(self, font: QFont) -> None:
        self.font = font
        self.metrics = QFontMetricsF(font)
        self._texts: dict[str, tuple[QStaticText, float]] = {}

    @property
    def height(self) -> float:
        """Height of a line."""
        return self.metrics.height()

    def width(self, text: str) -> float:
        """How wide `text` is drawn."""
        return self._text(text)[1]

    def draw(self, painter: QPainter, left: float, top: float, text: str, ink: QColor) -> float:
        """Draw `text` with its upper left corner there; gives its width."""
        static, wide = self._text(text)
        painter.setFont(self.font)
        painter.setPen(ink)
        painter.drawStaticText(QPointF(round(left), round(top)), static)
        return wide

    def _text(self, text: str) -> tuple[QStaticText, float]:
        found = self._texts.get(text)
        if found is None:
            if len(self._texts) >= _MOST_KEPT:
                self._texts.clear()
            static = QStaticText(text)
            static.setTextFormat(Qt.TextFormat.PlainText)
            static.prepare(font=self.font)
            found = self._texts[text] = (static, self.metrics.horizontalAdvance(text))
        return found
