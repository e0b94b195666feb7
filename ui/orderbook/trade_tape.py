"""The tape: the latest trades of the market on the chart, newest on top."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import groupby
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QEvent, QModelIndex, QObject, Qt, QTimer
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QVBoxLayout, QWidget

from ui import numerals
from ui.moments import korean_time
from ui.qt_models import NOWHERE, Index
from ui.theme import Theme
from upbit_backbone.clock import epoch_ms
from upbit_backbone.models import Gap, Trade
from upbit_backbone.price import format_price

TIME, PRICE, VOLUME = range(3)
COLUMNS = 3
KEPT = 200
_FLUSH_MS = 100
_ROW_PX = 21
_CELL_PADDING_PX = 8


class TapeModel(QAbstractTableModel):
    """The last `KEPT` trades, newest first, whenever they came; rows are added at most ten times
    a second.

    Where trades were missed stands a row that says so, and from when to when.
    """

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._colours = {"BUY": theme.by_change["RISE"], "SELL": theme.by_change["FALL"]}
        self._gap_colour = QColor(theme.degraded)
        self._trades: list[Trade | Gap] = []
        self._waiting: list[Trade | Gap] = []
        self._flush_timer = QTimer(self, singleShot=True, interval=_FLUSH_MS)
        self._flush_timer.timeout.connect(self._flush)

    def clear(self) -> None:
        """Forget everything, for another market."""
        self.beginResetModel()
        self._trades.clear()
        self._waiting.clear()
        self.endResetModel()

    def gap_at(self, row: int) -> Gap | None:
        """What was missed, if a row tells of that."""
        entry = self._trades[row]
        return entry if isinstance(entry, Gap) else None

    def add(self, trades: tuple[Trade | Gap, ...]) -> None:
        """Take trades, oldest first, and what was missed between them."""
        self._waiting.extend(trades)
        if not self._flush_timer.isActive():
            self._flush_timer.start()

    def rowCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else len(self._trades)

    def columnCount(self, parent: Index = NOWHERE) -> int:
        return 0 if parent.isValid() else COLUMNS

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        trade, column = self._trades[index.row()], index.column()
        if isinstance(trade, Gap):
            return self._gap_data(trade, column, role)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                if column == TIME:
                    return f"{korean_time(epoch_ms(trade.exchange_time)):%H:%M:%S}"
                if column == PRICE:
                    return format_price(trade.symbol, trade.price)
                return (
                    f"{numerals.exact_volume(trade.volume)} {'▲' if trade.side == 'BUY' else '▼'}"
                )
            case Qt.ItemDataRole.ForegroundRole:
                return self._colours[trade.side] if column == VOLUME else None
            case Qt.ItemDataRole.TextAlignmentRole:
                return _side(column)
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
            return (self.tr("Time (KST)"), self.tr("Price"), self.tr("Volume"))[section]
        if role == Qt.ItemDataRole.ToolTipRole and section == VOLUME:
            return self.tr("▲ a buyer took it, ▼ a seller did")
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _side(section)
        return None

    def retranslate(self) -> None:
        """The language changed."""
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, COLUMNS - 1)
        if self._trades:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._trades) - 1, COLUMNS - 1))

    def _gap_data(self, gap: Gap, column: int, role: int) -> Any:
        match role:
            case Qt.ItemDataRole.DisplayRole if column == TIME:
                start = f"{korean_time(epoch_ms(gap.start)):%H:%M:%S}"
                if gap.state == "open":
                    return self.tr("… cut off since {0}").format(start)
                end = f"{korean_time(epoch_ms(gap.end)):%H:%M:%S}"
                return self.tr("… cut off {0}–{1}").format(start, end)
            case Qt.ItemDataRole.ForegroundRole:
                return self._gap_colour
            case Qt.ItemDataRole.TextAlignmentRole:
                return Qt.AlignmentFlag.AlignCenter
            case Qt.ItemDataRole.ToolTipRole:
                return self.tr("The connection was lost: trades of this time are missing here")
        return None

    def _settle_gaps(self, new: list[Trade | Gap]) -> list[Trade | Gap]:
        """Let the end of a break take the place of its beginning; gives what is left to insert.

        Of one whose trades were all read back nothing stays. By its start a break is known from
        others that are open meanwhile.
        """
        left: list[Trade | Gap] = []
        for entry in new:
            if isinstance(entry, Gap):
                left = [one for one in left if not _is_beginning(one, entry)]
                row = self._row_of_beginning(entry)
                if entry.state == "closed":
                    if row is not None:
                        self._remove(row, row)
                    continue
                if row is not None:
                    self._trades[row] = entry
                    self.dataChanged.emit(self.index(row, 0), self.index(row, COLUMNS - 1))
                    continue
            left.append(entry)
        return left

    def _row_of_beginning(self, gap: Gap) -> int | None:
        rows = enumerate(self._trades)
        return next((row for row, entry in rows if _is_beginning(entry, gap)), None)

    def _flush(self) -> None:
        new = sorted(self._settle_gaps(self._waiting), key=_newest_first)[:KEPT]
        self._waiting = []
        # Trades that were read back come after those that were made later. From the last place
        # up, so that those before it stay what they are.
        by_place = groupby(reversed(new), self._place)
        for place, entries in [(place, list(group)) for place, group in by_place]:
            self.beginInsertRows(QModelIndex(), place, place + len(entries) - 1)
            self._trades[place:place] = reversed(entries)
            self.endInsertRows()
        if len(self._trades) > KEPT:
            self._remove(KEPT, len(self._trades) - 1)

    def _place(self, entry: Trade | Gap) -> int:
        """Above which row it belongs."""
        return bisect_left(self._trades, _newest_first(entry), key=_newest_first)

    def _remove(self, first: int, last: int) -> None:
        self.beginRemoveRows(QModelIndex(), first, last)
        del self._trades[first : last + 1]
        self.endRemoveRows()


class TradeTape(QWidget):
    """Time, price and volume of each trade; the side by colour and arrow."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model = TapeModel(theme, self)
        self._spanned = False
        self.table = QTableView(self)
        self.table.setModel(self.model)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(PRICE, QHeaderView.ResizeMode.Stretch)
        for column, sample in ((TIME, "Time (KST)"), (VOLUME, "8.88888888 ▲")):
            wide = self.fontMetrics().horizontalAdvance(sample) + _CELL_PADDING_PX
            header.resizeSection(column, wide)
        header.setHighlightSections(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.addWidget(self.table)
        for moved in (self.model.rowsInserted, self.model.rowsRemoved, self.model.modelReset):
            moved.connect(self._span_gaps)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self.model.retranslate()
        super().changeEvent(event)

    def _span_gaps(self) -> None:
        """A row that tells of a gap is one cell."""
        gaps = [row for row in range(self.model.rowCount()) if self.model.gap_at(row) is not None]
        if gaps or self._spanned:
            self.table.clearSpans()
            for row in gaps:
                self.table.setSpan(row, 0, 1, COLUMNS)
        self._spanned = bool(gaps)


def _side(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignLeft if column == TIME else Qt.AlignmentFlag.AlignRight
    return side | Qt.AlignmentFlag.AlignVCenter


def _is_beginning(entry: Trade | Gap, gap: Gap) -> bool:
    """Whether it is what was told of this break when it began."""
    return (
        isinstance(entry, Gap)
        and entry.state == "open"
        and (entry.symbol, entry.start) == (gap.symbol, gap.start)
    )


def _newest_first(entry: Trade | Gap) -> tuple[int, float]:
    """What rows are sorted by; a break stands above the last trade before it."""
    if isinstance(entry, Gap):
        return -epoch_ms(entry.start), -math.inf
    return -epoch_ms(entry.exchange_time), -entry.sequential_id
