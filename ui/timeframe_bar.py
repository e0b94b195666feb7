"""The row of timeframes: a button each, and a menu for those that have no room."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QAction, QActionGroup, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QMenu, QSizePolicy, QToolButton, QWidget

from upbit_backbone.models import Timeframe

TIMEFRAMES = tuple(Timeframe)
# Which buttons go last where there is no room for all.
_BY_USE = (
    *(Timeframe.M1, Timeframe.D1, Timeframe.H1, Timeframe.M5, Timeframe.M15, Timeframe.H4),
    *(Timeframe.W1, Timeframe.M30, Timeframe.M3, Timeframe.MO1, Timeframe.S1, Timeframe.M10),
    Timeframe.Y1,
)
_SPACING = 1


class TimeframeBar(QWidget):
    """Shows as many timeframes as fit; the one that is open can always be read."""

    chosen = Signal(object)
    """The `Timeframe` that was clicked."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._timeframe = Timeframe.M1
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(_SPACING)
        self.actions_by_timeframe: dict[Timeframe, QAction] = {}
        self.buttons: dict[Timeframe, QToolButton] = {}
        group = QActionGroup(self)
        for timeframe in TIMEFRAMES:
            action = QAction(self, checkable=True)
            action.triggered.connect(lambda _=False, wanted=timeframe: self.chosen.emit(wanted))
            group.addAction(action)
            button = QToolButton(self)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            button.setDefaultAction(action)
            row.addWidget(button)
            self.actions_by_timeframe[timeframe] = action
            self.buttons[timeframe] = button
        self.more = QToolButton(self)
        self.more.setObjectName("more")
        self.more.setCheckable(True)
        self.more.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setMenu(QMenu(self.more))
        row.addWidget(self.more)
        row.addStretch(1)
        self._retranslate()

    def mark(self, timeframe: Timeframe) -> None:
        """Mark the timeframe that is open."""
        self._timeframe = timeframe
        self.actions_by_timeframe[timeframe].setChecked(True)
        self._fit()

    def sizeHint(self) -> QSize:
        """With a button for each."""
        hint = super().sizeHint()
        hint.setWidth(self._width_of(TIMEFRAMES))
        return hint

    def minimumSizeHint(self) -> QSize:
        """With the menu alone."""
        hint = super().minimumSizeHint()
        hint.setWidth(self._more_width())
        return hint

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def name(self, timeframe: Timeframe) -> str:
        """What a timeframe is called."""
        minutes, hours = self.tr("{0}m", "minutes"), self.tr("{0}h", "hours")
        return {
            Timeframe.S1: self.tr("1s", "second"),
            Timeframe.D1: self.tr("1D", "day"),
            Timeframe.W1: self.tr("1W", "week"),
            Timeframe.MO1: self.tr("1M", "month"),
            Timeframe.Y1: self.tr("1Y", "year"),
        }.get(timeframe) or (hours if timeframe.value.endswith("h") else minutes).format(
            timeframe.value[:-1]
        )

    def _retranslate(self) -> None:
        hints = {
            Timeframe.D1: self.tr("A day, from 09:00 Korean time"),
            Timeframe.W1: self.tr("A week, from Monday 09:00 Korean time"),
            Timeframe.MO1: self.tr("A month, from the 1st, 09:00 Korean time"),
            Timeframe.Y1: self.tr("A year, from 1 January, 09:00 Korean time"),
        }
        for timeframe, action in self.actions_by_timeframe.items():
            action.setText(self.name(timeframe))
            action.setToolTip(hints.get(timeframe, ""))
        self.more.setToolTip(self.tr("More timeframes"))
        self.updateGeometry()
        self._fit()

    def _fit(self) -> None:
        """Show the buttons that have room, the most used ones first, in their order."""
        shown = set(TIMEFRAMES)
        room = self.width()
        if self._width_of(TIMEFRAMES) > room:
            shown = set()
            for timeframe in _BY_USE:
                if self._width_of({*shown, timeframe}) + self._more_width() + _SPACING > room:
                    break
                shown.add(timeframe)
        for timeframe, button in self.buttons.items():
            button.setVisible(timeframe in shown)
        self.more.setVisible(len(shown) < len(TIMEFRAMES))
        menu = self.more.menu()
        menu.clear()
        for timeframe, action in self.actions_by_timeframe.items():
            if timeframe not in shown:
                menu.addAction(action)
        hidden = self._timeframe not in shown
        self.more.setText(f"{self.name(self._timeframe)} ▾" if hidden else "▾")
        self.more.setChecked(hidden)

    def _width_of(self, timeframes: set[Timeframe] | tuple[Timeframe, ...]) -> int:
        return sum(self.buttons[each].sizeHint().width() + _SPACING for each in timeframes)

    def _more_width(self) -> int:
        """How wide the menu's button is with any name on it."""
        metrics = self.more.fontMetrics()
        names = [metrics.horizontalAdvance(f"{self.name(each)} ▾") for each in TIMEFRAMES]
        around = self.buttons[Timeframe.M1].sizeHint().width() - metrics.horizontalAdvance(
            self.name(Timeframe.M1)
        )
        return max(names) + around
