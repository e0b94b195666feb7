"""The market list as a Qt model: rows of markets with their latest ticker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QObject,
    Qt,
    QTimer,
)
from PySide6.QtGui import QColor

from ui import numerals
from ui.language import is_korean
from ui.qt_models import NOWHERE, Index
from ui.screener.search import find
from ui.theme import ARROWS, Theme
from upbit_backbone.models import Market, Ticker
from upbit_backbone.price import format_price

NAME, PRICE, CHANGE, VALUE = range(4)
COLUMNS = 4
MARKET_ROLE = Qt.ItemDataRole.UserRole
_FLUSH_MS = 100
"""Cells are repainted at most ten times a second, however often prices change."""


class MarketTable(QAbstractTableModel):
    """Markets in the order asked for, filtered; prices change in place."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._colours = theme.by_change
        self._even = QColor(theme.text)
        self._markets: tuple[Market, ...] = ()
        self._tickers: dict[str, Ticker] = {}
        self._shown: list[Market] = []
        self._row_of: dict[str, int] = {}
        self._filter = ""
        self._column, self._order = VALUE, Qt.SortOrder.DescendingOrder
        self._dirty: set[int] = set()
        self._flush_timer = QTimer(self, singleShot=True, interval=_FLUSH_MS)
        self._flush_timer.timeout.connect(self._flush)

    @property
    def total(self) -> int:
        """How many markets there are, shown or not."""
        return len(self._markets)

    def set_markets(self, markets: tuple[Market, ...]) -> None:
        """List these markets."""
        self._markets = markets
        self._rebuild()

    def set_filter(self, text: str) -> None:
        """Show only the markets that `text` may mean."""
        self._filter = text
        self._rebuild()

    def apply(self, tickers: tuple[Ticker, ...]) -> None:
        """Take new prices; of markets that are not listed they are kept for later."""
        for ticker in tickers:
            self._tickers[ticker.symbol] = ticker
            row = self._row_of.get(ticker.symbol)
            if row is not None:
                self._dirty.add(row)
        if self._dirty and not self._flush_timer.isActive():
            self._flush_timer.start()

    def ticker_of(self, symbol: str) -> Ticker | None:
        """The latest ticker of a market, listed or not."""
        return self._tickers.get(symbol)

    def resort(self) -> None:
        """Put the rows in order again; prices that changed since do not move them."""
        order = self._sorted(self._shown)
        if order == self._shown:
            return
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        held = [self._shown[index.row()].symbol for index in before]
        self._place(order)
        self.changePersistentIndexList(
            before,
            [
                self.index(self._row_of[symbol], index.column())
                for symbol, index in zip(held, before, strict=True)
            ],
        )
        self.layoutChanged.emit()

    def row_of(self, symbol: str) -> int | None:
        """The row of a market; None while it is not shown."""
        return self._row_of.get(symbol)

    def market_at(self, row: int) -> Market:
        """The market in a row."""
        return self._shown[row]

    def retranslate(self) -> None:
        """The language changed."""
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, COLUMNS - 1)
        if self._shown:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._shown) - 1, COLUMNS - 1))

    # What views ask

    def rowCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else len(self._shown)

    def columnCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else COLUMNS

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._column, self._order = column, order
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, COLUMNS - 1)
        self.resort()

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        market = self._shown[index.row()]
        column = index.column()
        ticker = self._tickers.get(market.symbol)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(column, market, ticker)
            case Qt.ItemDataRole.ForegroundRole:
                if column in (PRICE, CHANGE) and ticker is not None:
                    return self._colours[ticker.change]
                return None
            case Qt.ItemDataRole.TextAlignmentRole:
                side = Qt.AlignmentFlag.AlignLeft if column == NAME else Qt.AlignmentFlag.AlignRight
                return side | Qt.AlignmentFlag.AlignVCenter
            case Qt.ItemDataRole.ToolTipRole:
                return self._tool_tip(column, market, ticker)
            case int() if role == MARKET_ROLE:
                return market
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            # The arrow stands in the text: the style would draw its own over it.
            return f"{self._heads()[section]}{self._arrow(section)}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return (
                self.tr("Name and code of the market"),
                self.tr("Price of the last trade"),
                self.tr("Against the last price before 09:00 Korean time today"),
                self.tr("Value of all trades of the last 24 hours"),
            )[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignLeft if section == NAME else Qt.AlignmentFlag.AlignRight
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.InitialSortOrderRole:
            # Of figures the largest are wanted first.
            return Qt.SortOrder.AscendingOrder if section == NAME else Qt.SortOrder.DescendingOrder
        return None

    def _heads(self) -> tuple[str, str, str, str]:
        return self.tr("Market"), self.tr("Price"), self.tr("Change"), self.tr("Value")

    def _arrow(self, section: int) -> str:
        if section != self._column:
            return ""
        return " ▼" if self._order is Qt.SortOrder.DescendingOrder else " ▲"

    def _text(self, column: int, market: Market, ticker: Ticker | None) -> str:
        if column == NAME:
            return market_name(market)
        if ticker is None:
            return "–"
        if column == PRICE:
            return format_price(market.symbol, ticker.price)
        if column == CHANGE:
            arrow = ARROWS[ticker.change] if ticker.change != "EVEN" else ""
            return f"{arrow} {numerals.signed_percent(ticker.change_rate)}".strip()
        return numerals.amount(ticker.value_24h, korean=is_korean())

    def _tool_tip(self, column: int, market: Market, ticker: Ticker | None) -> str:
        if column == NAME or ticker is None:
            return f"{market.korean_name} · {market.english_name} · {market.symbol}"
        quote = market.symbol.partition("-")[0]
        if column == VALUE:
            return f"{ticker.value_24h:,.0f} {quote}"
        if column == CHANGE:
            moved = numerals.price_move(market.symbol, ticker.price, ticker.change_price)
            return f"{ARROWS[ticker.change]} {moved} {quote}"
        return f"{format_price(market.symbol, ticker.price)} {quote}"

    def _flush(self) -> None:
        rows, self._dirty = self._dirty, set()
        # One signal for all: views repaint what of it they show (2 ms for 700 rows; one
        # signal a row takes 4 ms, one a cell 7).
        self.dataChanged.emit(self.index(min(rows), PRICE), self.index(max(rows), VALUE))

    def _rebuild(self) -> None:
        self.beginResetModel()
        self._dirty.clear()
        self._flush_timer.stop()
        self._place(self._sorted(find(self._markets, self._filter)))
        self.endResetModel()

    def _place(self, order: list[Market]) -> None:
        self._shown = order
        self._row_of = {market.symbol: row for row, market in enumerate(order)}

    def _sorted(self, markets: list[Market]) -> list[Market]:
        down = self._order is Qt.SortOrder.DescendingOrder
        if self._column == NAME:
            return sorted(markets, key=market_name, reverse=down)
        figure: Callable[[Ticker], float] = {
            PRICE: lambda ticker: ticker.price,
            CHANGE: lambda ticker: ticker.change_rate,
            VALUE: lambda ticker: ticker.value_24h,
        }[self._column]
        known = [market for market in markets if market.symbol in self._tickers]
        unknown = [market for market in markets if market.symbol not in self._tickers]
        known.sort(key=lambda market: figure(self._tickers[market.symbol]), reverse=down)
        # Whatever the order, a market without a price stands behind those with one.
        return known + unknown


def market_name(market: Market) -> str:
    """A market's name in the language of the program."""
    return market.korean_name if is_korean() else market.english_name
