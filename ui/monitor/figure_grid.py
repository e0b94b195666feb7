"""Figures in rows and columns, painted directly.

A grid of `QLabel` lays the whole panel out anew each time one of its texts changes, which
takes longer than painting it. Here a changed cell is painted, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from PySide6.QtCore import QEvent, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QHelpEvent,
    QPainter,
    QPaintEvent,
    QRegion,
    QResizeEvent,
)
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from ui.monitor.lights import LIGHT_SIZE, light_colours, paint_light
from ui.theme import Theme
from upbit_backbone.protocol import Health

Ink = Literal["text", "dim", "faint", "good", "warning", "bad"]

NOTHING = "–"
_SPACING_PX = 9
_LEADING_PX = 3
_MOST_KEPT = 1_000


class Cell(NamedTuple):
    """What stands in one place: a text, or the light of a health."""

    text: str = ""
    ink: Ink = "text"
    tip: str = ""
    """What the pointer is told there."""
    light: Health | None = None


class Column(NamedTuple):
    """How one column is set."""

    sample: str
    """It begins as wide as this text, and grows with what is put into it."""
    right: bool = True
    stretch: bool = False
    """It takes the room that is left, and cuts what is longer: the pointer is told the whole."""


class FigureGrid(QWidget):
    """Rows of cells; those that change are painted again."""

    def __init__(
        self,
        theme: Theme,
        columns: Sequence[Column],
        rows: int,
        parent: QWidget | None = None,
        *,
        heavy: bool = False,
    ) -> None:
        """Begin empty, with room for so many rows; `heavy` is a bold font."""
        super().__init__(parent)
        if heavy:
            font = self.font()
            font.setBold(True)
            self.setFont(font)
        self._inks = {
            "text": QColor(theme.text),
            "dim": QColor(theme.dim),
            "faint": QColor(theme.faint),
            "good": QColor(theme.healthy),
            "warning": QColor(theme.degraded),
            "bad": QColor(theme.down),
        }
        self._lights = light_colours(theme)
        self._ground = QColor(theme.window)
        # Every pixel is painted here: nothing of the parents needs to be drawn before.
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._columns = tuple(columns)
        self._least_rows = rows
        self._rows: list[tuple[Cell, ...]] = []
        self._metrics = QFontMetricsF(self.font())
        self._advances: dict[str, float] = {}
        self._line = round(self._metrics.height()) + _LEADING_PX
        self._widths = self._least_widths()
        self._places: list[QRect] = []
        """Of each column: left and width, in any row."""
        self.setSizePolicy(
            QSizePolicy.Policy.Expanding
            if any(column.stretch for column in columns)
            else QSizePolicy.Policy.Minimum,
            QSizePolicy.Policy.Fixed,
        )
        self._place()

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """What is shown, row by row."""
        return [tuple(cell.text for cell in row) for row in self._rows]

    @property
    def rows(self) -> Sequence[tuple[Cell, ...]]:
        """The cells that are shown."""
        return self._rows

    def set_rows(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Show these rows in place of the ones before; each has a cell for every column."""
        before, self._rows = self._rows, [tuple(row) for row in rows]
        if len(before) != len(self._rows):
            self._grow_all()
            self.updateGeometry()
            self.update()
            return
        changed = QRegion()
        grown = False
        for line, (old, new) in enumerate(zip(before, self._rows, strict=True)):
            if old == new:
                continue
            for column, (old_cell, new_cell) in enumerate(zip(old, new, strict=True)):
                if old_cell.text != new_cell.text:
                    grown |= self._grow(column, new_cell.text)
                elif old_cell.ink == new_cell.ink and old_cell.light == new_cell.light:
                    continue
                changed += self._box(line, column)
        if grown:
            self._place()
            self.updateGeometry()
            self.update()
        elif not changed.isEmpty():
            self.update(changed)

    def forget_widths(self) -> None:
        """Begin again as wide as the samples: the language changed."""
        self._widths = self._least_widths()
        self._grow_all()
        self.updateGeometry()
        self.update()

    def tip_at(self, line: int, column: int) -> str:
        """What the pointer is told there: the cell's own words, or the text that was cut."""
        cell = self._rows[line][column]
        if cell.tip:
            return cell.tip
        wide = self._advance(cell.text)
        return cell.text if wide > self._places[column].width() else ""

    def sizeHint(self) -> QSize:
        rows = max(len(self._rows), self._least_rows)
        return QSize(self._least_width(), rows * self._line)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            self._tell(event)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        region = event.region()
        with QPainter(self) as painter:
            painter.fillRect(event.rect(), self._ground)
            for line, row in enumerate(self._rows):
                for column, cell in enumerate(row):
                    box = self._box(line, column)
                    if region.intersects(box):
                        self._paint(painter, cell, box, self._columns[column])

    def _paint(self, painter: QPainter, cell: Cell, box: QRect, column: Column) -> None:
        if cell.light is not None:
            top = box.top() + (box.height() - LIGHT_SIZE) / 2
            place = QRectF(box.left(), top, LIGHT_SIZE, LIGHT_SIZE)
            paint_light(painter, place, cell.light, self._lights[cell.light])
            return
        if not cell.text:
            return
        text, wide = cell.text, self._advance(cell.text)
        if wide > box.width():
            text = self._metrics.elidedText(text, Qt.TextElideMode.ElideRight, box.width())
            wide = self._advance(text)
        left = box.left() + (box.width() - wide if column.right else 0.0)
        baseline = box.top() + _LEADING_PX / 2 + self._metrics.ascent()
        painter.setPen(self._inks[cell.ink])
        painter.drawText(QPointF(left, baseline), text)

    def _tell(self, event: QHelpEvent) -> None:
        where = event.pos()
        line = where.y() // self._line
        if 0 <= line < len(self._rows):
            for column in range(len(self._columns)):
                box = self._box(line, column)
                if box.contains(where):
                    QToolTip.showText(event.globalPos(), self.tip_at(line, column), self, box)
                    return
        QToolTip.hideText()

    def _least_widths(self) -> list[int]:
        return [round(self._metrics.horizontalAdvance(one.sample)) + 1 for one in self._columns]

    def _least_width(self) -> int:
        return sum(self._widths) + _SPACING_PX * (len(self._columns) - 1)

    def _grow_all(self) -> None:
        for row in self._rows:
            for column, cell in enumerate(row):
                self._grow(column, cell.text)
        self._place()

    def _grow(self, column: int, text: str) -> bool:
        """Widen a column for a text; whether it was."""
        wide = int(self._advance(text)) + 1
        if self._columns[column].stretch or wide <= self._widths[column]:
            return False
        self._widths[column] = wide
        return True

    def _advance(self, text: str) -> float:
        """How wide a text is; asked twice for each that is painted, and most come again."""
        wide = self._advances.get(text)
        if wide is None:
            if len(self._advances) >= _MOST_KEPT:
                self._advances.clear()
            wide = self._advances[text] = self._metrics.horizontalAdvance(text)
        return wide

    def _place(self) -> None:
        """Give the room that is left to the columns that stretch, in equal parts."""
        stretching = sum(column.stretch for column in self._columns)
        left_over = max(0, self.width() - self._least_width()) if stretching else 0
        places, left = [], 0
        for column, width in zip(self._columns, self._widths, strict=True):
            wide = width + (left_over // stretching if column.stretch else 0)
            places.append(QRect(left, 0, wide, self._line))
            left += wide + _SPACING_PX
        self._places = places

    def _box(self, line: int, column: int) -> QRect:
        return self._places[column].translated(0, line * self._line)
