"""The panes on the screen: layout, painting, and what mouse and wheel mean.

Holds no bars and decides nothing: it shows the `Picture` it is given and says, in bars
and values, what the hand did.
"""

from __future__ import annotations

from PySide6.QtCore import QElapsedTimer, QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from ui.chart.axes import Axes
from ui.chart.bar_painter import BarPainter
from ui.chart.overlay import Overlay
from ui.chart.picture import Pane, Picture, Stage
from ui.theme import Theme

_VOLUME_SHARE = 0.18
_WHEEL_STEP = 0.86
_NOTCH = 120.0
_DRAG_STRETCH = 1.005


class Panes(QWidget):
    """Price pane, volume pane and their axes."""

    painted = Signal(float)
    """A frame took so many milliseconds to paint."""
    panned = Signal(float)
    """By how many bars to the right."""
    zoomed = Signal(float, float)
    """To how many times as many bars, around which index."""
    stretched = Signal(float)
    """The price axis was dragged: to how many times the height of its range."""
    fitWanted = Signal()
    pointerMoved = Signal()
    resized = Signal()

    def __init__(self, theme: Theme, font: QFont, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMouseTracking(True)
        # Every pixel is painted here: nothing of the parent needs to be drawn before.
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setMinimumSize(240, 160)
        self._ground = QColor(theme.panel)
        self._axes = Axes(theme, font)
        self._bar_painter = BarPainter(theme)
        self._overlay = Overlay(theme, font)
        self._picture: Picture | None = None
        self._axis_width = 0.0
        self._pointer: QPointF | None = None
        self._grip: tuple[QPointF, bool] | None = None
        self._clock = QElapsedTimer()
        self.bars_painted = 0
        """How many bars, or columns of bars, the last frame shows."""

    def show_picture(self, picture: Picture) -> None:
        """Put a frame on the screen; painted when Qt next paints."""
        self._picture = picture
        self._axis_width = self._axes.value_width(picture)
        self.update()

    @property
    def plot_size(self) -> tuple[float, float]:
        """Width and height of the price pane in pixels."""
        price, _ = self._boxes()
        return price.width(), price.height()

    @property
    def volume_height(self) -> float:
        """Height of the volume pane in pixels."""
        return self._boxes()[1].height()

    def stage(self) -> Stage | None:
        """Where everything stands; None before the first picture."""
        picture = self._picture
        if picture is None:
            return None
        price, volume = self._boxes()
        across = (picture.left, picture.right)
        wide = self.width() - price.width()
        return Stage(
            price=Pane(price, *across, picture.low, picture.high),
            volume=Pane(volume, *across, 0.0, picture.volume_top),
            time_axis=QRectF(0, volume.bottom(), price.width(), self._axes.time_height),
            price_axis=QRectF(price.right(), price.top(), wide, price.height()),
            volume_axis=QRectF(price.right(), volume.top(), wide, volume.height()),
            pointer=self._pointer,
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        self._clock.start()
        picture, stage = self._picture, self.stage()
        with QPainter(self) as painter:
            painter.fillRect(self.rect(), self._ground)
            if picture is not None and stage is not None:
                self._overlay.paint_behind(painter, picture, stage)
                self.bars_painted = self._bar_painter.paint(painter, picture, stage)
                self._axes.paint(painter, picture, stage)
                self._overlay.paint_over(painter, picture, stage)
        self.painted.emit(self._clock.nsecsElapsed() / 1e6)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.resized.emit()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() is Qt.MouseButton.LeftButton:
            on_axis = self._on_price_axis(event.position())
            self._grip = (event.position(), on_axis)
            if not on_axis:
                self.setCursor(Qt.CursorShape.ClosedHandCursor)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        at, stage = event.position(), self.stage()
        if stage is None:
            return
        if self._grip is not None:
            before, on_axis = self._grip
            self._grip = (at, on_axis)
            if on_axis:
                self.stretched.emit(_DRAG_STRETCH ** (at.y() - before.y()))
            else:
                self.panned.emit((before.x() - at.x()) / stage.price.px_per_bar)
        else:
            on_axis = self._on_price_axis(at)
            shape = Qt.CursorShape.SizeVerCursor if on_axis else Qt.CursorShape.CrossCursor
            self.setCursor(shape)
        on_plot = (stage.price.box | stage.volume.box).contains(at)
        self._pointer = at if on_plot else None
        self.pointerMoved.emit()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() is Qt.MouseButton.LeftButton:
            self._grip = None
            self.setCursor(Qt.CursorShape.CrossCursor)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if self._on_price_axis(event.position()):
            self.fitWanted.emit()

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.accept()
        stage = self.stage()
        if stage is None:
            return
        pane, turn = stage.price, event.angleDelta()
        sideways = turn.x()
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            sideways = sideways or turn.y()
        if sideways:
            self.panned.emit(-sideways / _NOTCH * (pane.right - pane.left) / 10)
        elif turn.y():
            at = pane.index(event.position().x())
            self.zoomed.emit(_WHEEL_STEP ** (turn.y() / _NOTCH), at)

    def leaveEvent(self, event: QEvent) -> None:
        self._pointer = None
        self.pointerMoved.emit()

    def _boxes(self) -> tuple[QRectF, QRectF]:
        """The price pane and the volume pane."""
        width = max(1.0, self.width() - self._axis_width)
        height = max(2.0, self.height() - self._axes.time_height)
        below = round(height * _VOLUME_SHARE)
        return QRectF(0, 0, width, height - below), QRectF(0, height - below, width, below)

    def _on_price_axis(self, at: QPointF) -> bool:
        stage = self.stage()
        return stage is not None and stage.price_axis.contains(at)
