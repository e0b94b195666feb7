"""A sentence across the window while this computer's clock is wrong."""

from __future__ import annotations

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QWidget

from ui.message_bar import MessageBar
from ui.theme import Theme
from upbit_backbone.clock import told_skew_s
from upbit_backbone.protocol import SystemStatus

_SAME_S = 2
"""Skews that differ by less are one: dismissed once, the sentence does not come back."""


class ClockNotice(MessageBar):
    """Says how far the clock is off, until it is right or somebody dismisses it."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, "notice", parent)
        self._skew_s = 0

    def set_status(self, status: SystemStatus) -> None:
        """Take how far the exchange's time is from this computer's."""
        skew_s = told_skew_s(status.exchange_offset_ms, simulated=status.simulated)
        if skew_s == 0:
            self.hide()
        elif abs(skew_s - self._skew_s) < _SAME_S:
            return
        self._skew_s = skew_s
        if skew_s:
            self._say()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.LanguageChange and not self.isHidden():
            self._say()

    def _say(self) -> None:
        off_s = abs(self._skew_s)
        if off_s < 120:
            much = self.tr("{0} s").format(off_s)
        elif off_s < 7_200:
            much = self.tr("{0} min").format(off_s // 60)
        else:
            much = self.tr("{0} h").format(off_s // 3_600)
        if self._skew_s > 0:
            text = self.tr("This computer's clock is {0} slow. The exchange's time is used.")
        else:
            text = self.tr("This computer's clock is {0} fast. The exchange's time is used.")
        self.show_message(text.format(much))
