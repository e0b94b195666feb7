"""The monitoring panel: latency, load, cache, the four layers, and where data come from."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ui.bridge import RequestAnswer
from ui.monitor.lights import Light
from ui.monitor.load_gauge import LOW_WAITS_ABOVE, ONLY_CRITICAL_ABOVE, LoadGauge
from ui.monitor.record import Record
from ui.theme import Theme
from upbit_backbone.clock import Clock
from upbit_backbone.protocol import Health, PerformanceMetrics, Priority, SystemStatus

if TYPE_CHECKING:
    from ui.monitor.history import LagPlot, LoadPlot

logger = logging.getLogger(__name__)

_FEW_SAMPLES = 20
_PLOTS_WIDTH = 200
_PLOT_HEIGHTS = (44, 57)
"""The lower one has the times below it."""
_LAYERS = ("layer_4", "layer_3", "layer_2", "layer_1")
_NOTHING = "–"


class MonitorPanel(QWidget):
    """Shows what the service says of itself; computes nothing.

    The plots of the last minutes come when they are asked for: see `show_plots`.
    """

    def __init__(self, theme: Theme, clock: Clock, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._clock = clock
        self._record = Record()
        self._load_plot: LoadPlot | None = None
        self._lag_plot: LagPlot | None = None
        self._status: SystemStatus | None = None
        self._metrics: PerformanceMetrics | None = None
        self._answer: RequestAnswer | None = None
        self._frame_p95_ms: float | None = None

        row = QHBoxLayout(self)
        row.setContentsMargins(12, 6, 12, 8)
        row.setSpacing(13)
        self._titles: list[QLabel] = []

        latency = self._section(row, 3)
        self._latency_heads = [self._dim_label() for _ in range(5)]
        for column, head in enumerate(self._latency_heads):
            latency.addWidget(head, 0, column, _side(column))
        self._latency: dict[Priority, list[QLabel]] = {}
        for line, priority in enumerate(Priority, start=1):
            labels = [QLabel(priority.name, self), *(QLabel(_NOTHING, self) for _ in range(4))]
            for column, label in enumerate(labels):
                latency.addWidget(label, line, column, _side(column))
            self._latency[priority] = labels

        load = self._section(row, 2)
        self._gauge = LoadGauge(theme, self)
        load.addWidget(self._gauge, 0, 0, 1, 2)
        self._load_names, self._load_values = self._pairs(load, 1, 4)

        # The room is theirs from the start: nothing moves when they arrive.
        self._plots = self._section(row, 4)
        self._plot_names = [self._dim_label() for _ in range(2)]
        for line, name in enumerate(self._plot_names):
            self._plots.addWidget(name, line, 0, Qt.AlignmentFlag.AlignTop)
            self._plots.setRowMinimumHeight(line, _PLOT_HEIGHTS[line])
        self._plots.setVerticalSpacing(0)
        self._plots.setColumnStretch(1, 1)
        self._plots.setColumnMinimumWidth(1, _PLOTS_WIDTH)
        self._plots_button = QPushButton(self)
        self._plots_button.clicked.connect(self.show_plots)
        self._plots.addWidget(self._plots_button, 0, 1, 2, 1, Qt.AlignmentFlag.AlignCenter)

        cache = self._section(row, 2)
        self._cache_names, self._cache_values = self._pairs(cache, 0, 4)

        layers = self._section(row, 3)
        self._lights: dict[str, tuple[Light, QLabel, QLabel]] = {}
        for line, layer in enumerate(_LAYERS):
            light, name, word = Light(theme, self), QLabel(self), QLabel(_NOTHING, self)
            layers.addWidget(light, line, 0)
            layers.addWidget(name, line, 1)
            layers.addWidget(word, line, 2)
            layers.setColumnStretch(2, 1)
            self._lights[layer] = (light, name, word)

        origin = self._section(row, 3)
        self._origin_names, self._origin_values = self._pairs(origin, 0, 4)
        row.addStretch(1)
        self._retranslate()

    def set_status(self, status: SystemStatus) -> None:
        """Show connection, origin and the layers' health."""
        self._status = status
        self._show_status()

    def set_metrics(self, metrics: PerformanceMetrics, frame_p95_ms: float | None) -> None:
        """Show the service's figures, and how long the chart takes to paint a frame.

        Comes once a second, and each is a sample of the plots.
        """
        self._metrics, self._frame_p95_ms = metrics, frame_p95_ms
        self._record.add(self._clock.now_ms() / 1_000, metrics.load, metrics.loop_lag_p95_ms)
        self._show_metrics()
        self._show_plots()

    def set_answer(self, answer: RequestAnswer) -> None:
        """Show where the candles loaded last came from, and how fast."""
        self._answer = answer
        self._show_status()

    def show_plots(self) -> None:
        """Make the plots; what was recorded before is drawn, too.

        The first time this imports pyqtgraph, during which the window stands still (0.7 to
        1.1 s, ADR 3): so it happens when somebody asks. In a thread the import crashed the
        program when it was closed meanwhile.
        """
        # pyqtgraph would take whichever binding it finds first.
        os.environ["PYQTGRAPH_QT_LIB"] = "PySide6"
        try:
            from ui.monitor.history import LagPlot, LoadPlot
        except ImportError as error:
            logger.warning("no plots in the monitor: %s", error)
            self._plots_button.setEnabled(False)
            return
        self._plots_button.hide()
        self._load_plot, self._lag_plot = LoadPlot(self._theme, self), LagPlot(self._theme, self)
        for line, plot in enumerate((self._load_plot, self._lag_plot)):
            self._plots.addWidget(plot, line, 1)
        self._show_plots()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        for title, text in zip(
            self._titles,
            (
                self.tr("Latency (ms, 5 min)"),
                self.tr("Load"),
                self.tr("Last 5 minutes (KST)"),
                self.tr("Cache"),
                self.tr("Layers"),
                self.tr("Source of the data"),
            ),
            strict=True,
        ):
            title.setText(text)
        self._plots_button.setText(self.tr("Show plots"))
        for labels, texts in (
            (
                self._latency_heads,
                (self.tr("Priority"), "p50", "p95", "p99", self.tr("Count")),
            ),
            (
                self._load_names,
                (
                    self.tr("Load"),
                    self.tr("Put off now"),
                    self.tr("Loop lag p95"),
                    self.tr("Frame p95"),
                ),
            ),
            (self._plot_names, (self.tr("Load"), self.tr("Lag (ms)"))),
            (
                self._cache_names,
                (
                    self.tr("Hit rate"),
                    self.tr("Answered"),
                    self.tr("Sent to exchange"),
                    self.tr("Errors"),
                ),
            ),
            (
                self._origin_names,
                (
                    self.tr("Connection"),
                    self.tr("Origin"),
                    self.tr("Last load"),
                    self.tr("Clock offset"),
                ),
            ),
        ):
            for label, text in zip(labels, texts, strict=True):
                label.setText(text)
        names = {
            "layer_4": self.tr("4 API"),
            "layer_3": self.tr("3 Coordinator"),
            "layer_2": self.tr("2 Storage"),
            "layer_1": self.tr("1 Routing"),
        }
        for layer, (_, name, _) in self._lights.items():
            name.setText(names[layer])
        self._show_status()
        self._show_metrics()

    def _show_status(self) -> None:
        status = self._status
        if status is not None:
            for layer, (light, _, word) in self._lights.items():
                state = status.health.layers[layer]
                light.set_health(state.health)
                word.setText(self._health_word(state.health))
                word.setToolTip(state.reason)
            connection = {
                "live": self.tr("live"),
                "connecting": self.tr("connecting"),
                "polling": self.tr("polled by REST"),
                "offline": self.tr("offline"),
            }.get(status.connection, status.connection)
            self._origin_values[0].setText(connection)
            self._origin_values[0].setToolTip(status.reason)
            mark = self.tr("SIMULATED")
            origin = f"{status.identity} · {mark}" if status.simulated else status.identity
            self._origin_values[1].setText(origin)
            self._origin_values[3].setText(f"{status.exchange_offset_ms:+d} ms")
        if self._answer is not None:
            metadata = self._answer.metadata
            source = {
                "websocket": "WebSocket",
                "rest": "REST",
                "cache": self.tr("memory"),
                "storage": self.tr("disk"),
                None: _NOTHING,
            }[metadata.source]
            text = self.tr("{0} candles, {1}, {2} ms").format(
                metadata.data_count, source, f"{metadata.processing_time_ms:.0f}"
            )
            self._origin_values[2].setText(text)
            self._origin_values[2].setToolTip(metadata.path)

    def _show_metrics(self) -> None:
        metrics = self._metrics
        if metrics is None:
            return
        for priority, labels in self._latency.items():
            stats = metrics.latency.get(priority)
            if stats is None or not stats.count:
                texts = [_NOTHING, _NOTHING, _NOTHING, "0"]
            else:
                texts = [
                    _ms(stats.p50_ms),
                    _ms(stats.p95_ms),
                    _ms(stats.p99_ms),
                    f"{stats.count:,}",
                ]
            for label, text in zip(labels[1:], texts, strict=True):
                label.setText(text)
            few = stats is not None and 0 < stats.count < _FEW_SAMPLES
            for label in labels[1:]:
                label.setToolTip(self.tr("too few samples to trust the figure") if few else "")
                label.setEnabled(not few)
        self._gauge.set_load(metrics.load)
        if metrics.load > ONLY_CRITICAL_ABOVE:
            held = self.tr("all but CRITICAL")
        elif metrics.load > LOW_WAITS_ABOVE:
            held = "LOW"
        else:
            held = self.tr("nothing")
        frame = _NOTHING if self._frame_p95_ms is None else f"{self._frame_p95_ms:.1f} ms"
        for label, text in zip(
            self._load_values,
            (f"{metrics.load:.0f} / 100", held, f"{metrics.loop_lag_p95_ms:.1f} ms", frame),
            strict=True,
        ):
            label.setText(text)
        for label, text in zip(
            self._cache_values,
            (
                f"{metrics.cache_hit_rate * 100:.1f}%",
                f"{metrics.requests:,}",
                f"{metrics.exchange_requests:,}",
                f"{metrics.errors:,}",
            ),
            strict=True,
        ):
            label.setText(text)

    def _show_plots(self) -> None:
        times_s, load, lag_ms = self._record.columns()
        if self._load_plot is not None:
            self._load_plot.show_values(times_s, load)
        if self._lag_plot is not None:
            self._lag_plot.show_values(times_s, lag_ms)

    def _health_word(self, health: Health) -> str:
        return {
            "healthy": self.tr("healthy"),
            "degraded": self.tr("degraded"),
            "down": self.tr("down"),
            "starting": self.tr("starting"),
        }[health]

    def _section(self, row: QHBoxLayout, stretch: int) -> QGridLayout:
        if self._titles:
            rule = QFrame(self)
            rule.setFixedWidth(1)
            rule.setAutoFillBackground(True)
            palette = rule.palette()
            palette.setColor(QPalette.ColorRole.Window, QColor(self._theme.line))
            rule.setPalette(palette)
            row.addWidget(rule)
        column = QVBoxLayout()
        title = QLabel(self)
        font = title.font()
        font.setBold(True)
        title.setFont(font)
        self._titles.append(title)
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(3)
        column.addWidget(title)
        column.addLayout(grid)
        column.addStretch(1)
        row.addLayout(column, stretch)
        return grid

    def _pairs(
        self, grid: QGridLayout, first: int, count: int
    ) -> tuple[list[QLabel], list[QLabel]]:
        names = [self._dim_label() for _ in range(count)]
        values = [QLabel(_NOTHING, self) for _ in range(count)]
        for line, (name, value) in enumerate(zip(names, values, strict=True), start=first):
            grid.addWidget(name, line, 0)
            grid.addWidget(value, line, 1, Qt.AlignmentFlag.AlignRight)
        return names, values

    def _dim_label(self) -> QLabel:
        label = QLabel(self)
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(self._theme.dim))
        label.setPalette(palette)
        return label


def _side(column: int) -> Qt.AlignmentFlag:
    return Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft


def _ms(value: float) -> str:
    """Three figures: 0.42, 4.20, 42.0, 420."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
