"""One sentence across the window, until it is dismissed: never a dialog that stops all else."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QToolButton, QWidget

from ui.theme import Theme

Kind = Literal["error", "notice"]


class MessageBar(QFrame):
    """Shows the latest message of its kind."""

    def __init__(self, theme: Theme, kind: Kind, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = QLabel(self)
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._sign = QLabel("⚠" if kind == "error" else "ⓘ", self)
        self._dismiss = QToolButton(self)
        self._dismiss.setText("✕")
        self._dismiss.clicked.connect(self.hide)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 5, 6, 5)
        layout.addWidget(self._sign)
        layout.addWidget(self._text, 1)
        layout.addWidget(self._dismiss)
        fill, ink = (
            (theme.error, theme.error_text)
            if kind == "error"
            else (theme.notice, theme.notice_text)
        )
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, QColor(fill))
        palette.setColor(QPalette.ColorRole.WindowText, QColor(ink))
        self.setPalette(palette)
        self.setAutoFillBackground(True)
        self._retranslate()
        self.hide()

    @property
    def text(self) -> str:
        """What is shown; empty while nothing is."""
        return "" if self.isHidden() else self._text.text()

    def show_message(self, text: str) -> None:
        """Show a sentence in place of the one before."""
        self._text.setText(text)
        self.show()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        self._dismiss.setToolTip(self.tr("Dismiss"))
