"""The market list: filter box, table, and how many of the markets are shown."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QModelIndex, QRect, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QPainter, QPalette, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from ui.qt_models import Index
from ui.screener.market_table import CHANGE, MARKET_ROLE, NAME, PRICE, VALUE, MarketTable
from ui.theme import Theme
from upbit_backbone.models import Market, Ticker

_RESORT_MS = 1_000
_ROW_PX = 27
_VALUE_FROM_PX = 340
"""A narrower list has no column of values."""
_CODE_GAP_PX = 6


class MarketList(QWidget):
    """Every market with its live price; a click opens its chart, Escape ends the filter."""

    chosen = Signal(str)
    """Symbol of the market that was clicked."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model = MarketTable(theme, self)
        self._symbol = ""
        self.filter_box = _FilterBox(self, clearButtonEnabled=True)
        self.filter_box.textChanged.connect(self._filter)
        self._count = QLabel(self)

        self.table = QTableView(self)
        self.table.setModel(self.model)
        self.table.setItemDelegate(_FigureDelegate(self.table))
        self.table.setItemDelegateForColumn(NAME, NameDelegate(theme, self.table))
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.setTabKeyNavigation(False)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        header = self.table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSortIndicator(VALUE, Qt.SortOrder.DescendingOrder)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, sample in (
            (PRICE, "188,888,888□"),
            (CHANGE, "▲ +18.88%□"),
            (VALUE, "거래대금 ▼□"),
        ):
            wide = self.fontMetrics().horizontalAdvance(sample)
            header.resizeSection(column, wide)
        self.table.setSortingEnabled(True)
        self.table.clicked.connect(self._choose)
        self.table.activated.connect(self._choose)

        top = QHBoxLayout()
        top.addWidget(self.filter_box, 1)
        top.addWidget(self._count)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 0)
        layout.setSpacing(6)
        layout.addLayout(top)
        layout.addWidget(self.table, 1)

        self._resort = QTimer(self, interval=_RESORT_MS)
        self._resort.timeout.connect(self._sort_again)
        self._resort.start()
        self._retranslate()

    def set_markets(self, markets: tuple[Market, ...]) -> None:
        """List these markets."""
        self.model.set_markets(markets)
        self._show_count()
        self._mark()

    def apply(self, tickers: tuple[Ticker, ...]) -> None:
        """Take new prices."""
        self.model.apply(tickers)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.table.setColumnHidden(VALUE, self.width() < _VALUE_FROM_PX)

    def mark(self, symbol: str) -> None:
        """Mark the market whose chart is open."""
        self._symbol = symbol
        self._mark()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        self.filter_box.setPlaceholderText(self.tr("Filter: name, code, initials"))
        self.model.retranslate()
        self._show_count()

    def _filter(self, text: str) -> None:
        self.model.set_filter(text)
        self._show_count()
        self._mark()

    def _show_count(self) -> None:
        shown, total = self.model.rowCount(), self.model.total
        self._count.setText(f"{shown} / {total}" if shown != total else str(total))

    def _mark(self) -> None:
        row = self.model.row_of(self._symbol)
        if row is None:
            self.table.clearSelection()
        elif self.table.currentIndex().row() != row or not self.table.selectedIndexes():
            self.table.setCurrentIndex(self.model.index(row, NAME))

    def _choose(self, index: QModelIndex) -> None:
        self.chosen.emit(self.model.market_at(index.row()).symbol)

    def _sort_again(self) -> None:
        # Rows must not slide away under the mouse.
        if not self.table.viewport().underMouse():
            self.model.resort()


class _FilterBox(QLineEdit):
    """Escape clears it."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self.text():
            self.clear()
        else:
            super().keyPressEvent(event)


class _FigureDelegate(QStyledItemDelegate):
    """Keeps the colour of a rise or fall in the selected row, too."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        super().initStyleOption(option, index)
        colour = index.data(Qt.ItemDataRole.ForegroundRole)
        if colour is not None:
            option.palette.setColor(QPalette.ColorRole.HighlightedText, colour)


class NameDelegate(QStyledItemDelegate):
    """Name of the market; its code behind it in a quieter colour, where that has room."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self._small = QFont(parent.font())
        self._small.setPointSizeF(parent.font().pointSizeF() * 0.85)

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: Index,
    ) -> None:
        market: Market = index.data(MARKET_ROLE)
        painter.save()
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        if selected:
            painter.fillRect(option.rect, QColor(self._theme.selection))
        box: QRect = option.rect.adjusted(3, 0, -4, 0)
        name, code = self.texts(market, index.data(), option.font, box.width())
        painter.setPen(QColor(self._theme.text))
        side = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.setFont(option.font)
        painter.drawText(box, side, name)
        box.setLeft(box.left() + painter.fontMetrics().horizontalAdvance(name) + _CODE_GAP_PX)
        painter.setFont(self._small)
        # The quiet colour cannot be read on the colour of the selected row.
        painter.setPen(QColor(self._theme.text if selected else self._theme.dim))
        painter.drawText(box, side, code)
        painter.restore()

    def texts(self, market: Market, name: str, font: QFont, room: int) -> tuple[str, str]:
        """Name and code as they are written in `room` pixels: the name is cut last."""
        metrics = QFontMetrics(font)
        code = market.symbol.partition("-")[2]
        wide = metrics.horizontalAdvance(name) + _CODE_GAP_PX
        if wide + QFontMetrics(self._small).horizontalAdvance(code) > room:
            code = ""
        return metrics.elidedText(name, Qt.TextElideMode.ElideRight, room), code
