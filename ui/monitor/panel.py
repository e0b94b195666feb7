"""The monitoring panel: whether all is well in one line, and the figures behind it on pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHideEvent, QPalette, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QButtonGroup,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QScrollArea,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ui.bridge import RequestAnswer
from ui.monitor import latency, layers, load, queues, traffic
from ui.monitor.event_list import EventList
from ui.monitor.figure_grid import Cell, Column, FigureGrid
from ui.monitor.history import LagPlot, LoadPlot
from ui.monitor.load_gauge import LoadGauge
from ui.monitor.record import Record
from ui.monitor.sections import SCROLL_BAR_GAP_PX, Sections
from ui.monitor.verdict import verdict
from ui.theme import Theme
from upbit_backbone.clock import Clock
from upbit_backbone.protocol import (
    Health,
    PerformanceMetrics,
    SystemEvent,
    SystemStatus,
    WindowStats,
)

if TYPE_CHECKING:
    from ui.monitor.figure_grid import Ink

OVERVIEW, CALLS, COUNTS, LOAD, EVENTS = range(5)
WINDOWS = ("10s", "5m", "1h")
"""As the service names them."""
_FIRST_WINDOW = "5m"
_PLOTS_WIDTH = 170
_PLOT_HEIGHTS = (44, 57)
"""The lower one has the times below it."""
_LEAST_WIDTH = 320
_PLOTS_EVERY_S = 4.0
"""By then they have moved by some pixels, and drawing them takes half as long as all else."""
_ONE_LINE_FROM_PX = 1_020
"""From this width on verdict and buttons stand side by side."""
_GLANCE_FROM_PX = 520
_BUTTONS_IN_A_LINE_FROM_PX = 560
_VERDICT_INKS: dict[Health, Ink] = {
    "healthy": "text",
    "degraded": "warning",
    "down": "bad",
    "starting": "dim",
}


class MonitorPanel(QWidget):
    """Shows what the service says of itself; computes nothing.

    What nobody sees is not painted, and not even written: only the record of the plots is kept
    while the panel is hidden.
    """

    shownChanged = Signal(bool)
    """Whether somebody sees the panel."""

    def __init__(self, theme: Theme, clock: Clock, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._clock = clock
        self._record = Record()
        self._status: SystemStatus | None = None
        self._metrics: PerformanceMetrics | None = None
        self._answer: RequestAnswer | None = None
        self._plotted_s = 0.0
        self._window = _FIRST_WINDOW
        self._grids: list[FigureGrid] = []

        self.events = EventList(theme, self)
        self._pages = QStackedWidget(self)
        self.overview = self._overview()
        self.calls = self._grid(latency.KIND_COLUMNS, 2)
        self.counts = self._counts()
        self.load = self._load()
        for page in (self.overview, _scrolled(self.calls), self.counts, self.load, self.events):
            self._pages.addWidget(page)
        self._top = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._top.setSpacing(4)
        self._top.addLayout(self._glance(), 1)
        self._switches = self._buttons()
        self._top.addLayout(self._switches)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 2, 8, 6)
        column.setSpacing(4)
        # The panel says itself how narrow it may be: `minimumSizeHint`.
        column.setSizeConstraint(QLayout.SizeConstraint.SetNoConstraint)
        column.addLayout(self._top)
        column.addWidget(self._pages, 1)
        self._retranslate()

    def set_status(self, status: SystemStatus) -> None:
        """Show connection, origin and the layers' health."""
        self._status = status
        if self.isVisible():
            self._show_status()

    def set_metrics(self, metrics: PerformanceMetrics) -> None:
        """Show the service's figures; each is a sample of the plots, too."""
        self._metrics = metrics
        self._record.add(self._clock.now_ms() / 1_000, metrics.load, metrics.loop_lag_p95_ms)
        if self.isVisible():
            self._show_metrics()

    def set_answer(self, answer: RequestAnswer) -> None:
        """Show where the candles loaded last came from, and how fast."""
        self._answer = answer
        if self.isVisible():
            self._show_status()

    def add_events(self, events: tuple[SystemEvent, ...]) -> None:
        """Take what has happened, oldest first."""
        self.events.model.add(events)

    def open_page(self, page: int) -> None:
        """Show one of the pages."""
        self._page_buttons.button(page).setChecked(True)
        self._pages.setCurrentIndex(page)
        self._show_all()

    def choose_window(self, window: str) -> None:
        """Show the figures of ``"10s"``, ``"5m"`` or ``"1h"``."""
        self._window_buttons.button(WINDOWS.index(window)).setChecked(True)
        self._window = window
        self._show_all()

    def sizeHint(self) -> QSize:
        return QSize(super().sizeHint().width(), self.minimumSizeHint().height())

    def minimumSizeHint(self) -> QSize:
        # As narrow as the parts below each other: they are laid out by what room there is.
        return QSize(_LEAST_WIDTH, super().minimumSizeHint().height())

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._show_all()
        self.shownChanged.emit(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.shownChanged.emit(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        direction = QBoxLayout.Direction
        wide = self.width() >= _ONE_LINE_FROM_PX
        self._top.setDirection(direction.LeftToRight if wide else direction.TopToBottom)
        beside = self.width() >= _BUTTONS_IN_A_LINE_FROM_PX
        self._switches.setDirection(direction.LeftToRight if beside else direction.TopToBottom)
        self._figures.setVisible(self.width() >= _GLANCE_FROM_PX)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    # Composition

    def _glance(self) -> QHBoxLayout:
        """Light and verdict, the service's reason, and four figures."""
        row = QHBoxLayout()
        row.setSpacing(12)
        verdict_columns = (Column("●", right=False), Column("", right=False))
        self._verdict = self._grid(verdict_columns, 1, heavy=True)
        self._reason = self._grid((Column("", right=False, stretch=True),), 1)
        self._figures = self._grid(traffic.GLANCE_COLUMNS, 1)
        row.addWidget(self._verdict)
        row.addWidget(self._reason, 1)
        row.addWidget(self._figures)
        return row

    def _buttons(self) -> QBoxLayout:
        """Buttons for pages and windows."""
        both = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        both.setSpacing(2)
        pages, self._page_buttons = self._button_row(5)
        self._page_buttons.idClicked.connect(self.open_page)
        windows, self._window_buttons = self._button_row(len(WINDOWS))
        self._window_buttons.idClicked.connect(lambda place: self.choose_window(WINDOWS[place]))
        windows.insertStretch(0, 1)
        both.addLayout(pages)
        both.addSpacing(8)
        both.addLayout(windows, 1)
        self._page_buttons.button(OVERVIEW).setChecked(True)
        self._window_buttons.button(WINDOWS.index(_FIRST_WINDOW)).setChecked(True)
        return both

    def _button_row(self, count: int) -> tuple[QHBoxLayout, QButtonGroup]:
        row, group = QHBoxLayout(), QButtonGroup(self)
        row.setSpacing(1)
        for number in range(count):
            button = QToolButton(self)
            button.setObjectName("switch")
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            group.addButton(button, number)
            row.addWidget(button)
        return row, group

    def _overview(self) -> Sections:
        page = Sections(self)
        self._priorities = self._grid(latency.PRIORITY_COLUMNS, 5)
        page.add(_column(self._priorities), 1)
        self._gauge = LoadGauge(self._theme, self)
        self._terms = self._grid(load.TERM_COLUMNS, 3)
        self._load_states = self._grid(load.STATE_COLUMNS, 2)
        page.add(_column(self._gauge, self._terms, self._load_states), 1)
        self._layers = self._grid(layers.COLUMNS, 4)
        self._sources = self._grid(layers.SOURCE_COLUMNS, 2)
        page.add(_column(self._layers, self._sources), 5)
        page.add(self._plots_part(), 4)
        return page

    def _plots_part(self) -> QGridLayout:
        plots = QGridLayout()
        self.load_plot, self.lag_plot = LoadPlot(self._theme, self), LagPlot(self._theme, self)
        self._plot_names = [self._dim_label() for _ in _PLOT_HEIGHTS]
        for line, plot in enumerate((self.load_plot, self.lag_plot)):
            plots.addWidget(self._plot_names[line], line, 0, Qt.AlignmentFlag.AlignTop)
            plots.addWidget(plot, line, 1)
            plots.setRowMinimumHeight(line, _PLOT_HEIGHTS[line])
        plots.setVerticalSpacing(0)
        plots.setColumnStretch(1, 1)
        plots.setColumnMinimumWidth(1, _PLOTS_WIDTH)
        return plots

    def _counts(self) -> Sections:
        page = Sections(self)
        self._call_counts = self._grid(traffic.PAIR_COLUMNS, 6)
        self._tiers = self._grid(traffic.TIER_COLUMNS, 4)
        self._happened = self._grid(traffic.COUNT_COLUMNS, 1 + traffic.COUNT_LINES)
        self._store = self._grid(traffic.PAIR_COLUMNS, 4)
        for grid in (self._call_counts, self._tiers, self._happened, self._store):
            page.add(_column(grid), 1)
        return page

    def _load(self) -> Sections:
        page = Sections(self, tall=True)
        self._reasons = self._grid(load.REASON_COLUMNS, 7)
        self._queues = self._grid(queues.COLUMNS, 7)
        page.add(_column(self._reasons), 1)
        page.add(_column(self._queues), 0)
        return page

    def _grid(self, columns: tuple[Column, ...], rows: int, *, heavy: bool = False) -> FigureGrid:
        grid = FigureGrid(self._theme, columns, rows, self, heavy=heavy)
        self._grids.append(grid)
        return grid

    def _dim_label(self) -> QLabel:
        label = QLabel(self)
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(self._theme.dim))
        label.setPalette(palette)
        return label

    def _retranslate(self) -> None:
        pages = (
            self.tr("Overview"),
            self.tr("Calls"),
            self.tr("Counts"),
            self.tr("Load"),
            self.tr("Log"),
        )
        windows = (self.tr("10 s"), self.tr("5 min"), self.tr("1 h"))
        for group, texts in ((self._page_buttons, pages), (self._window_buttons, windows)):
            for button, text in zip(group.buttons(), texts, strict=True):
                button.setText(text)
        for button in self._window_buttons.buttons():
            button.setToolTip(self.tr("how far back latencies, rates and counts look"))
        self.overview.set_titles(
            self.tr("Latency (ms)"),
            self.tr("Load"),
            self.tr("Layers"),
            self.tr("Last 5 minutes (KST)"),
        )
        self.counts.set_titles(
            self.tr("Calls"),
            self.tr("Answers from"),
            self.tr("What happened"),
            self.tr("Store"),
        )
        self.load.set_titles("", "")  # their first rows say what they are
        plot_names = (self.tr("Load"), self.tr("Lag (ms)"))
        for label, text in zip(self._plot_names, plot_names, strict=True):
            label.setText(text)
        self._show_all()
        for grid in self._grids:
            grid.forget_widths()

    # What is shown

    @property
    def _stats(self) -> WindowStats | None:
        return None if self._metrics is None else self._metrics.windows.get(self._window)

    def _show_all(self) -> None:
        self._show_status()
        self._show_metrics()
        self._show_plots()

    def _show_status(self) -> None:
        self._show_verdict()
        if self._status is not None and self._pages.currentIndex() == OVERVIEW:
            self._layers.set_rows(layers.layer_rows(self._status, self._clock.now_ms()))
            self._sources.set_rows(layers.source_rows(self._status, self._answer))

    def _show_verdict(self) -> None:
        found = verdict(self._status, self._metrics)
        ink = _VERDICT_INKS[found.health]
        self._verdict.set_rows([[Cell(light=found.health), Cell(found.text, ink, found.details)]])
        self._reason.set_rows([[Cell(found.details, "dim")]])

    def _show_metrics(self) -> None:
        metrics, window = self._metrics, self._stats
        if metrics is None:
            return
        self._show_verdict()
        self._figures.set_rows(traffic.glance(metrics, window))
        page = self._pages.currentIndex()
        if page == OVERVIEW:
            self._priorities.set_rows(latency.priority_rows(metrics, window))
            self._gauge.set_load(metrics.load)
            self._gauge.setToolTip(load.held_back(metrics))
            self._terms.set_rows(load.term_rows(metrics))
            self._load_states.set_rows(load.state_rows(metrics))
            if self._clock.monotonic() - self._plotted_s >= _PLOTS_EVERY_S:
                self._show_plots()
        elif page == CALLS:
            self.calls.set_rows(latency.kind_rows(metrics, window))
        elif page == COUNTS:
            self._call_counts.set_rows(traffic.call_rows(metrics, window))
            self._tiers.set_rows(traffic.tier_rows(metrics, window))
            self._happened.set_rows(traffic.count_rows(metrics, window))
            self._store.set_rows(traffic.store_rows(metrics))
        elif page == LOAD:
            self._reasons.set_rows(load.reason_rows(metrics))
            self._queues.set_rows(queues.queue_rows(metrics))

    def _show_plots(self) -> None:
        self._plotted_s = self._clock.monotonic()
        times_s, load_of, lag_ms = self._record.columns()
        self.load_plot.show_values(times_s, load_of)
        self.lag_plot.show_values(times_s, lag_ms)


def _column(*parts: QWidget) -> QVBoxLayout:
    column = QVBoxLayout()
    column.setSpacing(3)
    for part in parts:
        column.addWidget(part)
    return column


def _scrolled(content: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setWidgetResizable(True)
    area.setMinimumHeight(0)
    area.setViewportMargins(0, 0, SCROLL_BAR_GAP_PX, 0)
    area.setWidget(content)
    return area
