"""Titled parts side by side, as many in a row as there is room for."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QLabel,
    QLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

_BETWEEN_PX = 26
_BELOW_PX = 10
_LEAST_WIDTH = 260
SCROLL_BAR_GAP_PX = 4
"""Between what is scrolled and the bar beside it."""


class Sections(QScrollArea):
    """Lays its parts out anew when its width changes; what has no room below is scrolled to."""

    def __init__(self, parent: QWidget | None = None, *, tall: bool = False) -> None:
        """Begin empty; a `tall` one is scrolled also when all parts are in one row."""
        super().__init__(parent)
        self._tall = tall
        self._titles: list[QLabel] = []
        self._parts: list[tuple[QWidget, int]] = []
        self._in_a_row = 0
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setViewportMargins(0, 0, SCROLL_BAR_GAP_PX, 0)
        self._ground = QWidget(self)
        self._grid = QGridLayout(self._ground)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(_BETWEEN_PX)
        self._grid.setVerticalSpacing(_BELOW_PX)
        self.setWidget(self._ground)
        self._ground.installEventFilter(self)

    def add(self, content: QLayout, stretch: int) -> None:
        """Add a part; in a single row it gets so much of the room that is left."""
        part = QWidget(self._ground)
        part.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        title = QLabel(part)
        font = title.font()
        font.setBold(True)
        title.setFont(font)
        column.addWidget(title)
        column.addLayout(content)
        column.addStretch(1)
        self._titles.append(title)
        self._parts.append((part, stretch))
        self._arrange(len(self._parts))

    def set_titles(self, *titles: str) -> None:
        """Name the parts; one without a name begins with its first row."""
        for label, title in zip(self._titles, titles, strict=True):
            label.setText(title)
            label.setVisible(bool(title))

    def sizeHint(self) -> QSize:
        parts = [part.sizeHint() for part, _ in self._parts]
        wide = sum(part.width() for part in parts) + _BETWEEN_PX * (len(parts) - 1)
        return QSize(wide, max(part.height() for part in parts))

    def minimumSizeHint(self) -> QSize:
        return QSize(_LEAST_WIDTH, 0 if self._tall else self.sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._arrange(self._fitting())
        super().resizeEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            # A part has become wider: a figure has more digits, or the language changed.
            self._arrange(self._fitting())
        return super().eventFilter(watched, event)

    def _fitting(self) -> int:
        """How many columns have room."""
        room = self.width() - SCROLL_BAR_GAP_PX
        widths = [part.minimumSizeHint().width() for part, _ in self._parts]
        for columns in range(len(widths), 1, -1):
            needed = sum(max(widths[column::columns]) for column in range(columns))
            if needed + _BETWEEN_PX * (columns - 1) <= room:
                return columns
        return 1

    def _arrange(self, columns: int) -> None:
        single = columns == len(self._parts)
        policy = Qt.ScrollBarPolicy
        self.setVerticalScrollBarPolicy(
            policy.ScrollBarAlwaysOff if single and not self._tall else policy.ScrollBarAsNeeded
        )
        if columns == self._in_a_row:
            return
        self._in_a_row = columns
        for part, _ in self._parts:
            self._grid.removeWidget(part)
        for number, (part, stretch) in enumerate(self._parts):
            line, column = divmod(number, columns)
            self._grid.addWidget(part, line, column)
            self._grid.setColumnStretch(column, stretch if single else 1)
        for unused in range(columns, len(self._parts)):
            self._grid.setColumnStretch(unused, 0)
