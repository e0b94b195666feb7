"""What is drawn behind and over the bars, in pixels: grid, breaks, legend, crosshair, tags."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QColor, QFont, QPainter, QPen

from ui import numerals
from ui.chart.axes import GAP, tag_height
from ui.chart.bars import FloatColumn
from ui.chart.geometry import Mapping, breaks, dashes
from ui.chart.labels import Labels
from ui.chart.picture import Picture, Stage
from ui.chart.primitives import Batch
from ui.moments import moment_label
from ui.theme import Theme
from upbit_backbone.models import Timeframe
from upbit_backbone.price import format_price

_PAD = 8.0
_BREAK_PX = 22.0
_VEIL = 215
_WATERMARK = 26

Piece = tuple[Labels, str, QColor]
"""A text, how it is written, and its colour."""


class Overlay:
    """Paints a `Picture` around its bars."""

    def __init__(self, theme: Theme, font: QFont) -> None:
        self._text, self._dim, self._tag = map(QColor, (theme.text, theme.dim, theme.tag))
        self._stale, self._white = QColor(theme.faint), QColor("white")
        self._ground = QColor(theme.window)
        self._rise, self._fall, self._even = map(QColor, (theme.rise, theme.fall, theme.even))
        self._grid_pen, self._day_pen = _pen(theme.grid), _pen(theme.line)
        self._break_pen = _pen(theme.faint)
        self._cross_pen = _pen(theme.crosshair)
        self._veil, self._watermark = QColor(theme.panel), QColor(theme.simulated)
        self._veil.setAlpha(_VEIL)
        self._watermark.setAlpha(_WATERMARK)
        bold, large = QFont(font), QFont(font)
        bold.setBold(True)
        large.setBold(True)
        large.setPointSizeF(font.pointSizeF() * 2.6)
        self._plain, self._bold, self._large = Labels(font), Labels(bold), Labels(large)
        self._batch = Batch()

    def paint_behind(self, painter: QPainter, picture: Picture, stage: Stage) -> None:
        """Grid, days, breaks, and the word that says what is simulated."""
        price, bottom = stage.price, stage.volume.box.bottom()
        times = [(round(price.x(tick.at)) + 0.5, tick.major) for tick in picture.time_ticks]
        levels = [round(price.y(value)) + 0.5 for value in picture.price_ticks]
        painter.setPen(self._grid_pen)
        self._draw_lines(
            painter,
            [(x, 0.0, x, bottom) for x, major in times if not major]
            + [(0.0, y, price.box.right(), y) for y in levels],
        )
        painter.setPen(self._day_pen)
        self._draw_lines(painter, [(x, 0.0, x, bottom) for x, major in times if major])
        self._paint_breaks(painter, picture, stage)
        if picture.simulated:
            word, at = picture.words.simulated, price.box.center()
            left = at.x() - self._large.width(word) / 2
            self._large.draw(painter, left, at.y(), word, self._watermark)

    def paint_over(self, painter: QPainter, picture: Picture, stage: Stage) -> None:
        """Price line and tag, legend, crosshair, notes."""
        newest, index = picture.newest, picture.bars.last
        if newest is not None:
            self._paint_price_line(painter, picture, stage, newest)
            if stage.pointer is not None:
                index = round(stage.price.index(stage.pointer.x()))
                self._paint_crosshair(painter, picture, stage, stage.pointer, index)
        self._paint_legend(painter, picture, stage, index)
        box = stage.price.box
        if picture.edge_note:
            wide = self._plain.width(picture.edge_note) + 2 * _PAD
            note = QRectF(box.left() + 4, box.center().y(), wide, self._plain.height + 8)
            self._paint_tag(painter, note, picture.edge_note, self._tag, self._text)
        if picture.centre_note:
            left = box.center().x() - self._plain.width(picture.centre_note) / 2
            top = box.center().y() - 2 * self._plain.height
            self._plain.draw(painter, left, top, picture.centre_note, self._dim)

    def _paint_breaks(self, painter: QPainter, picture: Picture, stage: Stage) -> None:
        pane = stage.price
        if picture.bars.timeframe is Timeframe.S1:
            return  # a second without a trade is the rule, not the exception
        rows, first = picture.rows_in_view()
        to_px = Mapping(pane.x(0.0), pane.px_per_bar, 0.0, 1.0)
        bottom = pane.box.bottom()
        painter.setPen(self._break_pen)
        for x in breaks(rows, first, to_px, picture.bars.timeframe.fixed_ms).tolist():
            self._batch.draw_lines(painter, dashes(x, bottom - _BREAK_PX, x, bottom, 2, 3))

    def _paint_price_line(
        self, painter: QPainter, picture: Picture, stage: Stage, newest: FloatColumn
    ) -> None:
        open_, close = float(newest[1]), float(newest[4])
        colour = self._stale if picture.stale else self._direction(close - open_)
        box, y = stage.price.box, tag_height(stage.price, close)
        if picture.low <= close <= picture.high:
            row = round(stage.price.y(close)) + 0.5
            painter.setPen(_pen(colour.name()))
            self._batch.draw_lines(painter, dashes(box.left(), row, box.right(), row))
        label = format_price(picture.bars.symbol, close)
        ink = self._ground if colour is self._even else self._white
        self._paint_value_tag(painter, stage.price_axis, y, label, colour, ink)

    def _paint_crosshair(
        self, painter: QPainter, picture: Picture, stage: Stage, pointer: QPointF, index: int
    ) -> None:
        symbol = picture.bars.symbol
        x = round(stage.price.x(index)) + 0.5
        painter.setPen(self._cross_pen)
        top, bottom = stage.price.box.top(), stage.volume.box.bottom()
        self._batch.draw_lines(painter, dashes(x, top, x, bottom))
        for pane, axis in ((stage.price, stage.price_axis), (stage.volume, stage.volume_axis)):
            if not pane.box.top() <= pointer.y() < pane.box.bottom():
                continue
            y = round(pointer.y()) + 0.5
            painter.setPen(self._cross_pen)
            self._batch.draw_lines(painter, dashes(pane.box.left(), y, pane.box.right(), y))
            value = pane.value(pointer.y())
            if pane is stage.price:
                label = format_price(symbol, numerals.to_tick(symbol, value))
            else:
                label = numerals.volume(max(0.0, value))
            self._paint_value_tag(painter, axis, y, label, self._tag, self._text)
        bar = picture.bars.bar(index)
        if bar is not None:
            label = moment_label(int(bar[0]), picture.bars.timeframe)
            wide = self._plain.width(label) + 2 * _PAD
            axis = stage.time_axis
            left = min(max(x - wide / 2, axis.left()), axis.right() - wide)
            tag = QRectF(left, axis.top(), wide, axis.height())
            self._paint_tag(painter, tag, label, self._tag, self._text)

    def _paint_value_tag(
        self, painter: QPainter, axis: QRectF, y: float, label: str, fill: QColor, ink: QColor
    ) -> None:
        tall = self._plain.height + 4
        top = min(max(round(y - tall / 2), axis.top()), axis.bottom() - tall)
        painter.fillRect(QRectF(axis.left() + 1, top, axis.width() - 1, tall), fill)
        left = axis.right() - GAP - self._plain.width(label)
        self._plain.draw(painter, left, top + 2, label, ink)

    def _paint_tag(
        self, painter: QPainter, box: QRectF, label: str, fill: QColor, ink: QColor
    ) -> None:
        painter.fillRect(box, fill)
        top = box.center().y() - self._plain.height / 2
        self._plain.draw(painter, box.left() + _PAD, top, label, ink)

    def _paint_legend(self, painter: QPainter, picture: Picture, stage: Stage, index: int) -> None:
        pieces = [(self._bold, picture.title, self._text)]
        bar = picture.bars.bar(index)
        if bar is not None:
            pieces += self._figures(picture, bar, picture.bars.bar(index - 1))
        corner = stage.price.box.topLeft()
        top = corner.y() + 4
        for line in legend_lines(pieces, stage.price.box.width() - 8 - 2 * _PAD):
            wide = sum(labels.width(text) for labels, text, _ in line) + 2 * _PAD
            box = QRectF(corner.x() + 4, top, wide, self._plain.height + 6)
            painter.fillRect(box, self._veil)
            x = box.left() + _PAD
            for labels, text, ink in line:
                x += labels.draw(painter, x, top + 3, text, ink)
            top = box.bottom()

    def _figures(
        self, picture: Picture, bar: FloatColumn, before: FloatColumn | None
    ) -> list[Piece]:
        symbol, words = picture.bars.symbol, picture.words
        _, open_, high, low, close, volume = bar.tolist()
        base = open_ if before is None else float(before[4])
        change = round(close / base - 1, 4) if base else 0.0
        sign = "▲" if change > 0 else "▼" if change < 0 else ""
        ink = self._direction(close - open_)
        pieces: list[Piece] = []
        for word, price in (
            (words.open, open_),
            (words.high, high),
            (words.low, low),
            (words.close, close),
        ):
            pieces.append((self._plain, f"   {word} ", self._dim))
            pieces.append((self._plain, format_price(symbol, price), ink))
        # The candle's colour is close against open, this is close against the close before.
        pieces.append((self._plain, f"   {words.change} ", self._dim))
        moved = f"{sign}{numerals.signed_percent(change)}"
        pieces.append((self._plain, moved, self._direction(change)))
        pieces.append((self._plain, f"   {words.volume} ", self._dim))
        pieces.append((self._plain, numerals.volume(volume), self._text))
        return pieces

    def _direction(self, change: float) -> QColor:
        return self._rise if change > 0 else self._fall if change < 0 else self._even

    def _draw_lines(
        self, painter: QPainter, lines: list[tuple[float, float, float, float]]
    ) -> None:
        self._batch.draw_lines(painter, np.array(lines, dtype=np.float64).reshape(-1, 4))


def legend_lines(pieces: list[Piece], room: float) -> list[list[Piece]]:
    """Break a legend, a title and then names and figures in turn, into lines of at most `room`.

    A name stays with its figure, and figures that need a second line all begin there, below
    the title.
    """
    pairs = [pieces[:1]] + [pieces[at : at + 2] for at in range(1, len(pieces), 2)]
    widths = [sum(labels.width(text) for labels, text, _ in pair) for pair in pairs]
    lines, used = [pairs[0]], widths[0]
    if sum(widths) > room and len(pairs) > 1:
        lines, used = [pairs[0], pairs[1]], widths[1]
        pairs, widths = pairs[1:], widths[1:]
    for pair, wide in zip(pairs[1:], widths[1:], strict=True):
        if used + wide > room:
            lines.append([])
            used = 0.0
        lines[-1] = lines[-1] + pair
        used += wide
    for line in lines:
        labels, text, ink = line[0]
        line[0] = (labels, text.lstrip(), ink)
    return lines


def _pen(colour: str) -> QPen:
    pen = QPen(QColor(colour), 1)
    pen.setCosmetic(True)
    return pen
