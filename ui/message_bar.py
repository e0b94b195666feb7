"""One sentence across the window, until it is dismissed: never a dialog that stops all else."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QToolButton, QWidget

from ui.theme import Theme

Kind = Literal["error", "notice"]


class MessageBar(QFrame):
    """Shows the latest message of its kind; its details, if it has any, on a click."""

    def __init__(self, theme: Theme, kind: Kind, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._about = ""
        self._text = _words(self)
        self._details = _words(self)
        self._details.hide()
        self._sign = QLabel("⚠" if kind == "error" else "ⓘ", self)
        self.more = QToolButton(self)
        self.more.setCheckable(True)
        self.more.toggled.connect(self._details.setVisible)
        self._dismiss = QToolButton(self)
        self._dismiss.setText("✕")
        self._dismiss.clicked.connect(self.hide)
        grid = QGridLayout(self)
        grid.setContentsMargins(12, 5, 6, 5)
        grid.setVerticalSpacing(2)
        grid.addWidget(self._sign, 0, 0)
        grid.addWidget(self._text, 0, 1)
        grid.addWidget(self.more, 0, 2)
        grid.addWidget(self._dismiss, 0, 3)
        grid.addWidget(self._details, 1, 1)
        grid.setColumnStretch(1, 1)
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

    @property
    def details(self) -> str:
        """What more is known of it, for whoever asks; empty while nothing is shown."""
        return "" if self.isHidden() else self._details.text()

    def show_message(self, text: str, details: str = "", *, about: str = "") -> None:
        """Show a sentence in place of the one before.

        Args:
            text: In the language of the program.
            details: The service's own words, in English.
            about: What it is about, so that it can be withdrawn when that is well again.
        """
        self._about = about
        self._text.setText(text)
        self._details.setText(details)
        self.more.setChecked(False)
        self.more.setVisible(bool(details))
        for part in (self._text, self._sign, self.more):
            part.setToolTip(details)
        self.show()

    def withdraw(self, *about: str) -> None:
        """Hide a message about one of these things; another one stays."""
        if self._about in about:
            self.hide()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        self._dismiss.setToolTip(self.tr("Dismiss"))
        self.more.setText(self.tr("Details"))


def _words(parent: QWidget) -> QLabel:
    label = QLabel(parent)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
