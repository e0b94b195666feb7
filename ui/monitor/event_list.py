"""What happened lately: the service's event log, newest on top."""

from __future__ import annotations

from collections import deque
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QEvent, QModelIndex, QObject, Qt
from PySide6.QtGui import QColor, QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QBoxLayout,
    QComboBox,
    QHeaderView,
    QPushButton,
    QTableView,
    QWidget,
)

from ui.moments import korean_time
from ui.monitor.words import kind_word, layer_name, severity_word
from ui.qt_models import NOWHERE, Index
from ui.service_words import service_words
from ui.theme import Theme
from upbit_backbone.clock import epoch_ms
from upbit_backbone.protocol import Severity, SystemEvent

TIME, SEVERITY, LAYER, KIND, SENTENCE = range(5)
COLUMNS = 5
KEPT = 1_000
"""As many as the service keeps."""
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
_SIGNS: dict[Severity, str] = {"info": "·", "warning": "▲", "error": "■"}
_ROW_PX = 20
_CELL_PADDING_PX = 12
_BESIDE_FROM_PX = 560
"""From this width on filter and copy stand beside the table, not above it."""


class EventModel(QAbstractTableModel):
    """The last `KEPT` events, newest first, from a severity up."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._inks: dict[Severity, QColor] = {
            "info": QColor(theme.dim),
            "warning": QColor(theme.degraded),
            "error": QColor(theme.down),
        }
        self._events: deque[SystemEvent] = deque(maxlen=KEPT)
        self._shown: list[SystemEvent] = []
        self._least: Severity = "info"

    @property
    def shown(self) -> tuple[SystemEvent, ...]:
        """The events of the rows, from the top."""
        return tuple(self._shown)

    def add(self, events: tuple[SystemEvent, ...]) -> None:
        """Take events, oldest first."""
        self._events.extendleft(events)
        new = [event for event in reversed(events) if self._is_wanted(event)][:KEPT]
        if not new:
            return
        over = len(self._shown) + len(new) - KEPT
        if over > 0:
            last = len(self._shown) - 1
            self.beginRemoveRows(QModelIndex(), last - over + 1, last)
            del self._shown[-over:]
            self.endRemoveRows()
        self.beginInsertRows(QModelIndex(), 0, len(new) - 1)
        self._shown[:0] = new
        self.endInsertRows()

    def show_from(self, least: Severity) -> None:
        """Show events of this severity and above."""
        self.beginResetModel()
        self._least = least
        self._shown = [event for event in self._events if self._is_wanted(event)]
        self.endResetModel()

    def rowCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else len(self._shown)

    def columnCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else COLUMNS

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        event, column = self._shown[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(event, column)
            case Qt.ItemDataRole.ForegroundRole if column != SENTENCE:
                return self._inks[event.severity]
            case Qt.ItemDataRole.ToolTipRole:
                moment = korean_time(epoch_ms(event.time))
                return f"{moment:%Y-%m-%d %H:%M:%S} KST\n{service_words(event.sentence)}"
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.DisplayRole:
            return (
                self.tr("Time (KST)"),
                self.tr("Severity"),
                self.tr("Layer"),
                self.tr("About"),
                self.tr("Event"),
            )[section]
        return None

    def retranslate(self) -> None:
        """The language changed."""
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, COLUMNS - 1)
        if self._shown:
            last = self.index(len(self._shown) - 1, COLUMNS - 1)
            self.dataChanged.emit(self.index(0, 0), last)

    def _is_wanted(self, event: SystemEvent) -> bool:
        return SEVERITIES.index(event.severity) >= SEVERITIES.index(self._least)

    def _text(self, event: SystemEvent, column: int) -> str:
        match column:
            case 0:
                return f"{korean_time(epoch_ms(event.time)):%H:%M:%S}"
            case 1:
                return f"{_SIGNS[event.severity]} {severity_word(event.severity)}"
            case 2:
                return layer_name(event.layer)
            case 3:
                return kind_word(event.kind)
        return service_words(event.sentence)


class EventList(QWidget):
    """The events in a table, a filter by severity, and a button that copies them."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model = EventModel(theme, self)
        self.table = QTableView(self)
        self.table.setModel(self.model)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.setMinimumSize(0, 0)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(SENTENCE, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        self.filter = QComboBox(self)
        self.filter.addItems([""] * len(SEVERITIES))
        self.filter.currentIndexChanged.connect(
            lambda chosen: self.model.show_from(SEVERITIES[chosen])
        )
        self.copy_button = QPushButton(self)
        self.copy_button.clicked.connect(self.copy)
        copying = QShortcut(QKeySequence.StandardKey.Copy, self.table)
        copying.setContext(Qt.ShortcutContext.WidgetShortcut)
        copying.activated.connect(self.copy)
        self._layout = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self.table, 1)
        self._wishes = QBoxLayout(QBoxLayout.Direction.TopToBottom)
        self._wishes.addWidget(self.filter)
        self._wishes.addWidget(self.copy_button)
        self._wishes.addStretch(1)
        self._layout.addLayout(self._wishes)
        self._retranslate()

    def copy(self) -> None:
        """Copy the chosen rows, or all that are shown, oldest first, in the service's words."""
        chosen = sorted(index.row() for index in self.table.selectionModel().selectedRows())
        shown = self.model.shown
        events = [shown[row] for row in chosen] if chosen else list(shown)
        QGuiApplication.clipboard().setText("\n".join(map(_line, reversed(events))))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        beside = self.width() >= _BESIDE_FROM_PX
        direction = QBoxLayout.Direction
        self._layout.setDirection(direction.LeftToRight if beside else direction.BottomToTop)
        self._wishes.setDirection(direction.TopToBottom if beside else direction.LeftToRight)
        for column in (LAYER, KIND):
            # The sentence needs the room, and says as much.
            self.table.setColumnHidden(column, not beside)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        for place, text in enumerate(
            (self.tr("All"), self.tr("Warnings and errors"), self.tr("Errors"))
        ):
            self.filter.setItemText(place, text)
        self.copy_button.setText(self.tr("Copy"))
        self.copy_button.setToolTip(self.tr("Copies the chosen rows, or all that are shown"))
        self.model.retranslate()
        header = self.table.horizontalHeader()
        samples = {
            TIME: ["88:88:88"],
            SEVERITY: [f"■ {severity_word(severity)}" for severity in SEVERITIES],
            LAYER: [layer_name(f"layer_{number}") for number in range(1, 5)],
            KIND: [kind_word("reconnect"), kind_word("revision")],
        }
        for column, texts in samples.items():
            title = str(self.model.headerData(column, Qt.Orientation.Horizontal))
            wide = max(self.fontMetrics().horizontalAdvance(text) for text in (*texts, title))
            header.resizeSection(column, wide + _CELL_PADDING_PX)


def _line(event: SystemEvent) -> str:
    moment = f"{event.time:%Y-%m-%d %H:%M:%S}.{event.time.microsecond // 1_000:03d}"
    return f"{moment} UTC  {event.severity}  {event.layer}  {event.kind}  {event.sentence}"
