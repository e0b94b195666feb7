"""Choosing a symbol by typing: a box over the window, with the markets that fit below."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QEvent,
    QModelIndex,
    QObject,
    Qt,
    Signal,
)
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QLabel,
    QLineEdit,
    QListView,
    QVBoxLayout,
    QWidget,
)

from ui.qt_models import NOWHERE, Index
from ui.screener.market_table import market_name
from ui.screener.search import find
from upbit_backbone.models import Market

_MOST_SHOWN = 200
_SIZE = (420, 440)


class _Found(QAbstractListModel):
    """The markets that fit what was typed."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.markets: list[Market] = []

    def show_markets(self, markets: list[Market]) -> None:
        self.beginResetModel()
        self.markets = markets
        self.endResetModel()

    def rowCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else len(self.markets)

    def data(
        self,
        index: Index,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if index.isValid() and role == Qt.ItemDataRole.DisplayRole:
            market = self.markets[index.row()]
            return f"{market_name(market)}   {market.symbol}"
        return None


class SymbolPalette(QFrame):
    """Opens over its parent; Enter or a click chooses, Escape leaves it.

    A child of the window and no window of its own: nothing to be left behind, and no
    nested event loop that would stop every task.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAutoFillBackground(True)
        self._window = parent
        self._markets: tuple[Market, ...] = ()
        self._model = _Found(self)
        self.box = QLineEdit(self)
        self.box.textChanged.connect(self._search)
        self.box.installEventFilter(self)
        self._list = QListView(self)
        self._list.setModel(self._model)
        self._list.setUniformItemSizes(True)
        self._list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._list.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self._list.clicked.connect(self._choose)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addWidget(self.box)
        self.note = QLabel(self)
        self.note.setWordWrap(True)
        self.note.setMargin(6)
        self.note.hide()
        layout.addWidget(self.note)
        layout.addWidget(self._list, 1)
        self._retranslate()
        self.hide()

    def set_markets(self, markets: tuple[Market, ...]) -> None:
        """Offer these markets."""
        self._markets = markets
        self._search(self.box.text())

    def open_at(self, left: int, top: int, text: str = "") -> None:
        """Open with `text` typed already, the upper left corner at a point of the parent."""
        room = self._window.rect()
        width, height = min(_SIZE[0], room.width()), min(_SIZE[1], room.height() - top)
        self.setGeometry(min(left, room.width() - width), top, width, height)
        self.box.setText(text)
        self._search(text)
        self.show()
        self.raise_()
        self.box.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.box:
            if event.type() == QEvent.Type.FocusOut:
                self.hide()
            elif isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
                return self._key(event)
        return super().eventFilter(watched, event)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        self.box.setPlaceholderText(self.tr("Name, code or initials, e.g. btc or ㅂㅌㅋ"))
        self._show_note()

    def _key(self, event: QKeyEvent) -> bool:
        row = self._list.currentIndex().row()
        match event.key():
            case Qt.Key.Key_Escape:
                self.hide()
            case Qt.Key.Key_Down:
                self._select(row + 1)
            case Qt.Key.Key_Up:
                self._select(row - 1)
            case Qt.Key.Key_Return | Qt.Key.Key_Enter:
                self._choose(self._list.currentIndex())
            case _:
                return False
        return True

    def _select(self, row: int) -> None:
        if self._model.markets:
            row = min(max(row, 0), len(self._model.markets) - 1)
            self._list.setCurrentIndex(self._model.index(row))

    def _search(self, text: str) -> None:
        self._model.show_markets(find(self._markets, text)[:_MOST_SHOWN])
        self._select(0)
        self._show_note()

    def _show_note(self) -> None:
        """Why nothing is listed."""
        self.note.setVisible(not self._model.markets)
        typed = self.box.text().strip()
        if not self._markets:
            self.note.setText(self.tr("The list of markets is not there yet"))
        else:
            self.note.setText(self.tr("No market fits “{0}”").format(typed))

    def _choose(self, index: QModelIndex) -> None:
        if index.isValid():
            self.hide()
            self.chosen.emit(self._model.markets[index.row()].symbol)
