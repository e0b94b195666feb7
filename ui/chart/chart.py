"""The chart of one symbol and timeframe: its bars, what is in view, and its history.

Everything that happens, a drag, a tick, a page of history, only marks the chart as
changed; at most once a frame one `Picture` is made of it and shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from uuid import UUID

from PySide6.QtCore import QElapsedTimer, QEvent, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QToolButton, QVBoxLayout, QWidget

from ui.candle_update import CandleUpdate
from ui.chart.bars import Bars
from ui.chart.panes import Panes
from ui.chart.picture import Picture, Words
from ui.chart.ticks import price_ticks, time_ticks, volume_ticks
from ui.chart.viewport import DEFAULT_SPAN, Viewport
from ui.theme import Theme
from upbit_backbone.models import Timeframe
from upbit_backbone.price import format_price, tick_size

_FRAME_MS = 16
_PRICE_MARGIN = 0.06
_HISTORY_PAGE = 400
"""Two pages of the exchange: as many as it answers at once beside a backfill."""
_MOST_HISTORY = 1_000
"""What is asked for at once where the view lacks more than that: five pages."""
_MOST_BARS = 200_000
_RETRY_MS = 3_000
_KEY_ZOOM = 0.8
_BUTTON_MARGIN = 10
_ROOM_FOR_FEW = 6
"""Bars of empty room where a series has so few that all of them are in view at once."""


@dataclass(frozen=True, slots=True)
class HistoryWish:
    """Candles wanted from before the oldest one of the chart."""

    symbol: str
    timeframe: Timeframe
    before_ms: int
    count: int


class Chart(QWidget):
    """A candlestick chart that follows the market and fetches its past as one scrolls."""

    historyWanted = Signal(object)
    """`HistoryWish`; at most one is open at a time."""
    drawn = Signal()
    """Bars of the symbol opened last are on the screen for the first time."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.viewport = Viewport()
        self._usual_span: float | None = None
        self._bars = Bars("", Timeframe.M1)
        self._title = ""
        self._simulated = self._stale = False
        self._loading = False
        self._failed = False
        self._announced = False
        self._history_request: UUID | None = None
        self._history_open = self._history_ended = False
        self._stretch = 1.0
        self.panes = Panes(theme, self.font(), self)
        self.panes.setFocusProxy(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.panes)
        self.panes.panned.connect(self._pan)
        self.panes.zoomed.connect(self._zoom)
        self.panes.stretched.connect(self._stretch_prices)
        self.panes.fitWanted.connect(self._fit_prices)
        self.panes.pointerMoved.connect(self._changed)
        self.panes.resized.connect(self._changed)

        self.latest_button = QToolButton(self)
        self.latest_button.setObjectName("latest")
        self.latest_button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.latest_button.clicked.connect(self.show_latest)
        self.latest_button.hide()
        self._retranslate()

        self._since_frame = QElapsedTimer()
        self._frame = QTimer(self, singleShot=True, timerType=Qt.TimerType.PreciseTimer)
        self._frame.timeout.connect(self._show_frame)
        self._retry = QTimer(self, singleShot=True, interval=_RETRY_MS)
        self._retry.timeout.connect(self._changed)

    @property
    def bars(self) -> Bars:
        """What the chart holds."""
        return self._bars

    def open(self, symbol: str, title: str, timeframe: Timeframe) -> None:
        """Show another series; empty until its candles arrive."""
        self._bars = Bars(symbol, timeframe)
        self._title = title
        if self._usual_span is not None:
            self.viewport.span, self._usual_span = self._usual_span, None
        self.viewport.span = min(max(self.viewport.span, 40.0), 4 * DEFAULT_SPAN)
        self._loading, self._failed, self._announced = True, False, False
        self._history_request, self._history_open, self._history_ended = None, False, False
        self._stretch = 1.0
        self._retry.stop()
        self._changed()

    def set_title(self, title: str) -> None:
        """Name the series, e.g. when the names of the markets have arrived."""
        self._title = title
        self._changed()

    def set_origin(self, *, simulated: bool, stale: bool) -> None:
        """Say whether the candles are simulated, and whether the connection is gone."""
        if (simulated, stale) != (self._simulated, self._stale):
            self._simulated, self._stale = simulated, stale
            self._changed()

    def apply(self, update: CandleUpdate) -> None:
        """Take candles of the series that is open; others are of a symbol left behind."""
        bars, series = self._bars, update.series
        if (update.symbol, update.timeframe) != (bars.symbol, bars.timeframe):
            return
        if update.kind == "loaded":
            if update.request_id is not None and update.request_id == self._history_request:
                if not update.more_follows:
                    self._history_open, self._history_request = False, None
                    self._history_ended = not len(series) or series.time[0] >= bars.oldest_ms
            else:
                self._loading = self._failed = False
                if update.more_follows and not len(bars):
                    # What is before it is on its way: it need not be asked for.
                    self._history_open, self._history_request = True, update.request_id
        elif not len(bars):
            return  # the first load brings this candle too, and all before it
        before_last, was_empty = bars.last, not len(bars)
        edge_ms = self._edge_ms()
        if was_empty:
            # The picture on the screen keeps the empty ones: it may be painted before the next.
            bars = self._bars = Bars(update.symbol, update.timeframe)
        bars.merge(series)
        if was_empty:
            self._show_first(alone=not update.more_follows)
        elif self.viewport.following:
            self.viewport.extend(before_last, bars.last)
        elif edge_ms is not None:
            # Candles found between known ones push indices down: stay on the same bars.
            self.viewport.right += bars.index_at(edge_ms[0]) - edge_ms[1]
        self._changed()

    def expect_history(self, request_id: UUID) -> None:
        """The open wish is under way as this request."""
        self._history_request = request_id

    def request_failed(self, request_id: UUID) -> None:
        """A request came to nothing; history is asked for again after a pause."""
        if request_id == self._history_request:
            self._history_open, self._history_request = False, None
            self._retry.start()
        elif self._loading:
            self._loading, self._failed = False, True
        self._changed()

    def show_latest(self) -> None:
        """Go to the newest candle, and along with it from then on."""
        self.viewport.show_latest(self._bars.last)
        self._changed()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        far = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        step = self.viewport.span * 0.8 if far else 1.0
        bars, view = self._bars, self.viewport
        match event.key():
            case Qt.Key.Key_Left:
                self._pan(-step)
            case Qt.Key.Key_Right:
                self._pan(step)
            case Qt.Key.Key_Up | Qt.Key.Key_Plus | Qt.Key.Key_Equal:
                self._zoom(_KEY_ZOOM, min(view.right, bars.last))
            case Qt.Key.Key_Down | Qt.Key.Key_Minus:
                self._zoom(1 / _KEY_ZOOM, min(view.right, bars.last))
            case Qt.Key.Key_End:
                self.show_latest()
            case Qt.Key.Key_Home:
                self._pan(bars.first - view.left)
            case _:
                super().keyPressEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
            self._changed()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        self._words = self._say_words()
        self.latest_button.setText(self.tr("Latest ▸"))
        self.latest_button.setToolTip(self.tr("Back to the newest candle (End)"))

    def _say_words(self) -> Words:
        return Words(
            open=self.tr("O"),
            high=self.tr("H"),
            low=self.tr("L"),
            close=self.tr("C"),
            change=self.tr("vs prev."),
            volume=self.tr("Vol"),
            simulated=self.tr("SIMULATED"),
        )

    def _show_first(self, *, alone: bool) -> None:
        """Show the newest candles; of a young series (years, a new market) all, and large."""
        view, few = self.viewport, len(self._bars) + _ROOM_FOR_FEW
        if alone and few < view.span / 2:
            self._usual_span = view.span
            view.show_latest(self._bars.last, span=few)
        else:
            view.show_latest(self._bars.last)

    def _edge_ms(self) -> tuple[float, int] | None:
        """Time and index of the bar at the right edge of the view."""
        index = min(max(int(self.viewport.right), self._bars.first), self._bars.last)
        bar = self._bars.bar(index)
        return None if bar is None else (float(bar[0]), index)

    def _pan(self, bars: float) -> None:
        if len(self._bars):
            self.viewport.pan(bars, self._bars.first, self._bars.last)
            self._changed()

    def _zoom(self, factor: float, at: float) -> None:
        if len(self._bars):
            self.viewport.zoom(factor, at, self._bars.first, self._bars.last)
            self._changed()

    def _stretch_prices(self, factor: float) -> None:
        self._stretch = min(max(self._stretch * factor, 0.05), 20.0)
        self._changed()

    def _fit_prices(self) -> None:
        self._stretch = 1.0
        self._changed()

    def _changed(self) -> None:
        """Ask for a frame: now if the last one is long past, else when its time is over."""
        if not self._frame.isActive():
            passed = self._since_frame.elapsed() if self._since_frame.isValid() else _FRAME_MS
            self._frame.start(max(0, _FRAME_MS - int(passed)))

    def _show_frame(self) -> None:
        self._since_frame.start()
        self.panes.show_picture(self._picture())
        self._place_latest_button()
        self._ask_for_history()
        if len(self._bars) and not self._announced and self.isVisible():
            self._announced = True
            self.drawn.emit()

    def _picture(self) -> Picture:
        bars, view = self._bars, self.viewport
        rows = bars.rows(math.floor(view.left), math.ceil(view.right) + 1)
        if rows.shape[1]:
            low, high = float(rows[3].min()), float(rows[2].max())
            volume_top = float(rows[5].max()) * 1.12 or 1.0
        else:
            low, high, volume_top = (*self._nearest_price(), 1.0)
        smallest = float(tick_size(bars.symbol, high))
        half = max((high - low) / 2 * (1 + 2 * _PRICE_MARGIN), 4 * smallest) * self._stretch
        middle = (high + low) / 2
        low, high = middle - half, middle + half
        width, height = self.panes.plot_size
        levels = self._levels(low, high, height) if len(bars) else []
        first_tick = max(math.floor(view.left) - 1, bars.first)
        return Picture(
            bars=bars,
            title=self._title,
            words=self._words,
            left=view.left,
            right=view.right,
            low=low,
            high=high,
            volume_top=volume_top,
            time_ticks=time_ticks(
                bars.rows(first_tick, math.ceil(view.right))[0],
                first_tick,
                max(width, 1.0) / view.span,
                bars.timeframe,
            ),
            price_ticks=levels,
            price_labels=[format_price(bars.symbol, level) for level in levels],
            volume_ticks=volume_ticks(volume_top, self.panes.volume_height) if len(bars) else [],
            simulated=self._simulated,
            stale=self._stale,
            edge_note=self._edge_note(),
            centre_note=self._centre_note(),
        )

    def _levels(self, low: float, high: float, height_px: float) -> list[float]:
        # Of two bands in view the higher has the coarser tick; its multiples are prices in both.
        tick = float(tick_size(self._bars.symbol, high))
        return price_ticks(max(low, tick), high, height_px, tick)

    def _nearest_price(self) -> tuple[float, float]:
        bar = self._bars.bar(self._bars.last if self.viewport.following else self._bars.first)
        return (0.0, 1.0) if bar is None else (float(bar[3]), float(bar[2]))

    def _place_latest_button(self) -> None:
        """At the lower right of the prices, while the newest candle is out of view."""
        self.latest_button.setVisible(bool(len(self._bars)) and not self.viewport.following)
        self.latest_button.adjustSize()
        width, height = self.panes.plot_size
        self.latest_button.move(
            round(width) - self.latest_button.width() - _BUTTON_MARGIN,
            round(height) - self.latest_button.height() - _BUTTON_MARGIN,
        )

    def _edge_note(self) -> str:
        if not len(self._bars):
            return ""
        if self._history_open and self.viewport.left <= self._bars.first:
            return self.tr("◌ Loading history…")
        if self._retry.isActive():
            return self.tr("History could not be loaded")
        if self.viewport.left > self._bars.first:
            return ""
        if len(self._bars) >= _MOST_BARS:
            return self.tr("This chart is full: choose a longer timeframe")
        return self.tr("Start of history") if self._history_ended else ""

    def _centre_note(self) -> str:
        if len(self._bars) or not self._bars.symbol:
            return ""
        if self._loading:
            return self.tr("Loading candles…")
        if self._failed:
            return self.tr("The candles could not be loaded")
        return self.tr("No candles: nothing was traded here yet")

    def _ask_for_history(self) -> None:
        bars, view = self._bars, self.viewport
        if not len(bars) or self._history_ended or len(bars) >= _MOST_BARS:
            return
        near = view.left - view.span / 2 < bars.first
        if not near or self._history_open or self._retry.isActive():
            return
        self._history_open = True
        lacking = math.ceil(bars.first - (view.left - view.span / 2))
        count = min(max(lacking, _HISTORY_PAGE), _MOST_HISTORY)
        self.historyWanted.emit(HistoryWish(bars.symbol, bars.timeframe, bars.oldest_ms, count))
        self._changed()
