"""Figures in rows and columns, painted directly.

A grid of `QLabel` lays the whole panel out anew each time one of its texts changes, which
takes longer than painting it. Here a changed cell is painted, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from PySide6.QtCore import QEvent, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QHelpEvent,
    QPainter,
    QPaintEvent,
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

    sample: str | Callable[[], Iterable[str]]
    """It begins as wide as this text, or as the widest of these in the language of the moment, and
    grows with what is put into it."""
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
        self._baseline = round(_LEADING_PX / 2 + self._metrics.ascent())
        self._widths = self._least_widths()
        self._boxes: list[list[QRect]] = []
        """Where each cell stands, row by row."""
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
        changed: list[QRect] = []
        grown = False
        for old, new, boxes in zip(before, self._rows, self._boxes, strict=True):
            if old == new:
                continue
            for column, cell in enumerate(new):
                old_cell = old[column]
                if old_cell.text != cell.text:
                    grown |= self._grow(column, cell.text)
                elif old_cell.ink == cell.ink and old_cell.light == cell.light:
                    continue
                changed.append(boxes[column])
        if grown:
            self._place()
            self.updateGeometry()
            self.update()
            return
        for box in changed:
            self.update(box)

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
        return cell.text if wide > self._boxes[line][column].width() else ""

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
        touched = event.region().intersects
        with QPainter(self) as painter:
            painter.fillRect(event.rect(), self._ground)
            ink: Ink | None = None
            for row, boxes in zip(self._rows, self._boxes, strict=True):
                for cell, box, column in zip(row, boxes, self._columns, strict=True):
                    if cell.light is not None and touched(box):
                        self._paint_light(painter, cell.light, box)
                        ink = None
                    elif cell.text and touched(box):
                        if cell.ink != ink:
                            ink = cell.ink
                            painter.setPen(self._inks[ink])
                        self._paint_text(painter, cell.text, box, column)

    def _paint_light(self, painter: QPainter, health: Health, box: QRect) -> None:
        top = box.top() + (box.height() - LIGHT_SIZE) / 2
        place = QRectF(box.left(), top, LIGHT_SIZE, LIGHT_SIZE)
        paint_light(painter, place, health, self._lights[health])

    def _paint_text(self, painter: QPainter, text: str, box: QRect, column: Column) -> None:
        wide, room = self._advance(text), box.width()
        if wide > room:
            text = self._metrics.elidedText(text, Qt.TextElideMode.ElideRight, room)
            wide = self._advance(text)
        left = box.left() + (room - wide if column.right else 0.0)
        # Whole pixels: they take two thirds of the time, and every figure looks the same.
        painter.drawText(round(left), box.top() + self._baseline, text)

    def _tell(self, event: QHelpEvent) -> None:
        where = event.pos()
        line = where.y() // self._line
        if 0 <= line < len(self._rows):
            for column in range(len(self._columns)):
                box = self._boxes[line][column]
                if box.contains(where):
                    QToolTip.showText(event.globalPos(), self.tip_at(line, column), self, box)
                    return
        QToolTip.hideText()

    def _least_widths(self) -> list[int]:
        samples = (
            [one.sample] if isinstance(one.sample, str) else one.sample() for one in self._columns
        )
        return [round(max(map(self._advance, texts))) + 1 for texts in samples]

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
            # Rather cut, and told to the pointer, than to run out of the widget.
            seen = wide if column.right else max(0, min(wide, self.width() - left))
            places.append(QRect(left, 0, seen, self._line))
            left += wide + _SPACING_PX
        self._boxes = [
            [place.translated(0, line * self._line) for place in places]
            for line in range(len(self._rows))
        ]
