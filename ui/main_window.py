"""The main window: puts the parts together and connects them with the bridge."""

from __future__ import annotations

from typing import NamedTuple

from PySide6.QtCore import QByteArray, QEvent, QSettings, Qt, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QColor,
    QFont,
    QIcon,
    QKeyEvent,
    QPaintEvent,
    QPalette,
)
from PySide6.QtWidgets import (
    QButtonGroup,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ui.bridge import BackboneBridge, RequestFailure
from ui.candle_update import CandleUpdate
from ui.chart.chart import Chart, HistoryWish
from ui.language import is_korean
from ui.message_bar import MessageBar
from ui.moments import moment_label
from ui.monitor.panel import MonitorPanel
from ui.orderbook.trade_tape import TradeTape
from ui.quote_header import QuoteHeader
from ui.screener.market_list import MarketList
from ui.screener.market_table import market_name
from ui.sentences import error_sentence, partial_sentence
from ui.symbol_palette import SymbolPalette
from ui.theme import Theme
from upbit_backbone.clock import Clock
from upbit_backbone.errors import TransportError
from upbit_backbone.models import Market, Timeframe, Trade
from upbit_backbone.protocol import PerformanceMetrics, SystemStatus
from upbit_backbone.resources import resource_path

TIMEFRAMES = (
    Timeframe.M1,
    Timeframe.M3,
    Timeframe.M5,
    Timeframe.M10,
    Timeframe.M15,
    Timeframe.M30,
    Timeframe.H1,
    Timeframe.H4,
    Timeframe.D1,
)
_SIZE = (1440, 900)
_LIST_WIDTH = 380
_RIGHT_HEIGHTS = [600, 240]
_QUOTE_LISTED = "KRW-"


class Replayed(NamedTuple):
    """What the banner says of a recording that is shown."""

    recorded_ms: int
    """When it begins, by the exchange's clock."""
    speed: float
    simulated: bool


class MainWindow(QMainWindow):
    """The chart in the middle, the market list beside it, the monitor below."""

    closeWanted = Signal()
    """The user wants to leave; the window stays until `let_close`."""
    languageWanted = Signal(str)
    painted = Signal()
    """The window is on the screen for the first time."""
    chartDrawn = Signal()

    def __init__(self, bridge: BackboneBridge, theme: Theme, clock: Clock) -> None:
        super().__init__()
        self._bridge = bridge
        self._markets: dict[str, Market] = {}
        self._symbol, self._timeframe = "", Timeframe.M1
        self._may_close = self._was_painted = False
        self._replayed: Replayed | None = None
        self.setWindowIcon(QIcon(str(resource_path("icons/upbit-backbone.svg"))))
        self.resize(*_SIZE)

        self.banner = _banner(theme, self)
        self.messages = MessageBar(theme, "error", self)
        self.notices = MessageBar(theme, "notice", self)
        self.header = QuoteHeader(theme, clock, self)
        top = QWidget(self)
        rows = QVBoxLayout(top)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        for part in (self.banner, self.notices, self.messages, self.header):
            rows.addWidget(part)
        self.setMenuWidget(top)

        self.chart = Chart(theme, self)
        self.market_list = MarketList(theme, self)
        self.tape = TradeTape(theme, self)
        self.monitor = MonitorPanel(theme, clock, self)
        self._market_dock = self._dock("markets", self.market_list)
        self._tape_dock = self._dock("trades", self.tape)
        self._monitor_dock = self._dock("monitor", _sideways(self.monitor))
        self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._market_dock)
        self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._tape_dock)
        self.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, self._monitor_dock)
        self.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.BottomDockWidgetArea)
        self.market_list.setMinimumWidth(_LIST_WIDTH)
        self.resizeDocks(
            [self._market_dock, self._tape_dock], _RIGHT_HEIGHTS, Qt.Orientation.Vertical
        )

        middle = QWidget(self)
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(self._buttons())
        column.addWidget(self.chart, 1)
        self.setCentralWidget(middle)
        self.palette_box = SymbolPalette(self)
        self._connect()
        self._retranslate()
        self.chart.setFocus()

    @property
    def symbol(self) -> str:
        """The market on the chart."""
        return self._symbol

    @property
    def timeframe(self) -> Timeframe:
        """The timeframe on the chart."""
        return self._timeframe

    def open_chart(self, symbol: str, timeframe: Timeframe) -> None:
        """Show a series."""
        changed = symbol != self._symbol
        self._symbol, self._timeframe = symbol, timeframe
        button = self._timeframes.get(timeframe)
        if button is not None:
            button.setChecked(True)
        self.chart.open(symbol, self._chart_title(), timeframe)
        self._bridge.show_candles(symbol, timeframe)
        if changed:
            self.header.open(symbol, self._markets.get(symbol))
            self.market_list.mark(symbol)
            self.tape.model.clear()
            self._bridge.watch_detail(symbol)
            self._watch_tickers()
        self._show_title()
        self.chart.setFocus()

    def set_simulated(self, simulated: bool) -> None:
        """Show or hide the banner that nobody can overlook."""
        self.banner.setVisible(simulated)

    def set_replay(self, replayed: Replayed) -> None:
        """Show the banner, which says that this is past, and from when."""
        self._replayed = replayed
        self.banner.setText(self._banner_text())
        self.banner.show()

    def begin_closing(self) -> None:
        """Take no more wishes; what runs is being ended."""
        self.setEnabled(False)
        self.setWindowTitle(self.tr("Closing…"))
        self.notices.show_message(self.tr("Closing…"))

    def let_close(self) -> None:
        """Close for good."""
        self._may_close = True
        self.close()

    def save_state(self, settings: QSettings) -> None:
        """Remember size, docks and what is on the chart."""
        settings.setValue("geometry", self.saveGeometry())
        settings.setValue("docks", self.saveState())
        settings.setValue("symbol", self._symbol)
        settings.setValue("timeframe", self._timeframe.value)

    def restore_state(self, settings: QSettings) -> None:
        """Take size and docks from the last time."""
        for key, restore in (("geometry", self.restoreGeometry), ("docks", self.restoreState)):
            value = settings.value(key)
            if isinstance(value, QByteArray):
                restore(value)

    # Events

    def closeEvent(self, event: QCloseEvent) -> None:
        if self._may_close:
            event.accept()
        else:
            event.ignore()
            self.closeWanted.emit()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._was_painted:
            self._was_painted = True
            self.painted.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        text = event.text()
        if text == "/":
            self._open_palette()
        elif text.isalpha():
            self._open_palette(text)
        else:
            super().keyPressEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    # Composition

    def _connect(self) -> None:
        bridge = self._bridge
        bridge.candleReady.connect(self._take_candles)
        bridge.tickerUpdated.connect(self.header.apply)
        bridge.tickerUpdated.connect(self.market_list.apply)
        bridge.orderbookUpdated.connect(self.header.apply_orderbooks)
        bridge.tradesReceived.connect(self._take_trades)
        bridge.statusChanged.connect(self._take_status)
        bridge.metricsUpdated.connect(self._take_metrics)
        bridge.marketsReady.connect(self._take_markets)
        bridge.requestAnswered.connect(self.monitor.set_answer)
        bridge.requestFailed.connect(self._take_failure)
        self.chart.historyWanted.connect(self._load_history)
        self.chart.drawn.connect(self.chartDrawn)
        self.header.paletteWanted.connect(lambda: self._open_palette())
        self.palette_box.chosen.connect(self._choose_symbol)
        self.market_list.chosen.connect(self._choose_symbol)

    def _dock(self, name: str, content: QWidget) -> QDockWidget:
        dock = QDockWidget(self)
        dock.setObjectName(name)
        dock.setFeatures(
            QDockWidget.DockWidgetFeature.DockWidgetMovable
            | QDockWidget.DockWidgetFeature.DockWidgetClosable
        )
        dock.setWidget(content)
        return dock

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setContentsMargins(8, 2, 8, 2)
        row.setSpacing(1)
        group = QButtonGroup(self)
        self._timeframes: dict[Timeframe, QToolButton] = {}
        for timeframe in TIMEFRAMES:
            button = QToolButton(self)
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            button.clicked.connect(
                lambda _=False, wanted=timeframe: self.open_chart(self._symbol, wanted)
            )
            group.addButton(button)
            row.addWidget(button)
            self._timeframes[timeframe] = button
        row.addStretch(1)
        for dock in (self._market_dock, self._tape_dock, self._monitor_dock):
            button = QToolButton(self)
            button.setDefaultAction(dock.toggleViewAction())
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            row.addWidget(button)
        self._language_button = QToolButton(self)
        self._language_button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._language_button.clicked.connect(self._switch_language)
        row.addWidget(self._language_button)
        return row

    def _retranslate(self) -> None:
        self.banner.setText(self._banner_text())
        self._market_dock.setWindowTitle(self.tr("Markets (KRW)"))
        self._tape_dock.setWindowTitle(self.tr("Trades"))
        self._monitor_dock.setWindowTitle(self.tr("Monitor"))
        # The language to switch to, written in itself.
        self._language_button.setText("English" if is_korean() else "한국어")
        for timeframe, button in self._timeframes.items():
            button.setText(self._timeframe_name(timeframe))
        self.header.open(self._symbol, self._markets.get(self._symbol))
        self.chart.set_title(self._chart_title())
        self._show_title()

    def _banner_text(self) -> str:
        if self._replayed is None:
            return self.tr("SIMULATED — these prices come from a simulator, not from the exchange")
        if self._replayed.simulated:
            text = self.tr("재생 · REPLAY — SIMULATED prices, recorded {0}, played at {1}×")
        else:
            text = self.tr("재생 · REPLAY — not live: recorded {0}, played at {1}×")
        moment = moment_label(self._replayed.recorded_ms, Timeframe.M1)
        return text.format(moment, f"{self._replayed.speed:g}")

    def _switch_language(self) -> None:
        self.languageWanted.emit("en" if is_korean() else "ko")

    def _timeframe_name(self, timeframe: Timeframe) -> str:
        text = timeframe.value
        unit = {
            "m": self.tr("{0}m", "minutes"),
            "h": self.tr("{0}h", "hours"),
            "d": self.tr("{0}D", "days"),
        }[text[-1]]
        return unit.format(text[:-1])

    def _chart_title(self) -> str:
        market = self._markets.get(self._symbol)
        name = "" if market is None else f"{market_name(market)} "
        return f"{name}{self._symbol} · {self._timeframe_name(self._timeframe)}"

    def _show_title(self) -> None:
        self.setWindowTitle(f"{self._chart_title()} — Upbit Backbone")

    # What the service says

    def _take_candles(self, update: CandleUpdate) -> None:
        self.chart.apply(update)

    def _take_trades(self, trades: tuple[Trade, ...]) -> None:
        self.tape.model.add(tuple(t for t in trades if t.symbol == self._symbol))

    def _take_status(self, status: SystemStatus) -> None:
        self.set_simulated(status.simulated or self.banner.isVisibleTo(self))
        self.chart.set_origin(simulated=status.simulated, stale=status.connection != "live")
        self.header.set_status(status)
        self.monitor.set_status(status)

    def _take_metrics(self, metrics: PerformanceMetrics) -> None:
        self.monitor.set_metrics(metrics, self.chart.frame_p95_ms())

    def _take_markets(self, markets: tuple[Market, ...]) -> None:
        self._markets = {market.symbol: market for market in markets}
        self.market_list.set_markets(
            tuple(market for market in markets if market.symbol.startswith(_QUOTE_LISTED))
        )
        self.palette_box.set_markets(markets)
        self.market_list.mark(self._symbol)
        self.header.open(self._symbol, self._markets.get(self._symbol))
        self.chart.set_title(self._chart_title())
        self._show_title()
        self._watch_tickers()

    def _take_failure(self, failure: RequestFailure) -> None:
        if failure.request_id is not None:
            self.chart.request_failed(failure.request_id)
        if failure.occasion == "stream" and isinstance(failure.error, TransportError):
            # The connection has its light, and the candles say what is missing of them.
            return
        if failure.error is not None:
            self.messages.show_message(error_sentence(failure.error))
        else:
            self.messages.show_message(partial_sentence(failure.symbol, failure.reason))

    # What the user wants

    def _watch_tickers(self) -> None:
        """The list's markets, and the one on the chart wherever it is quoted."""
        listed = [symbol for symbol in self._markets if symbol.startswith(_QUOTE_LISTED)]
        self._bridge.watch_tickers([self._symbol, *listed])

    def _choose_symbol(self, symbol: str) -> None:
        if symbol != self._symbol:
            self.open_chart(symbol, self._timeframe)
        self.chart.setFocus()

    def _load_history(self, wish: HistoryWish) -> None:
        self.chart.expect_history(
            self._bridge.load_older(wish.symbol, wish.timeframe, wish.before_ms, wish.count)
        )

    def _open_palette(self, text: str = "") -> None:
        # Over the chart, below the button it belongs to.
        corner = self.header.mapTo(self, self.header.rect().bottomLeft())
        self.palette_box.open_at(corner.x() + 10, corner.y() + 2, text)


def _sideways(content: QWidget) -> QScrollArea:
    """Lets a wide part be scrolled where the screen is narrow, instead of widening the window."""
    area = QScrollArea()
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setWidgetResizable(True)
    area.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumHeight(content.sizeHint().height())
    area.setWidget(content)
    return area


def _banner(theme: Theme, parent: QWidget) -> QLabel:
    banner = QLabel(parent)
    banner.setAlignment(Qt.AlignmentFlag.AlignCenter)
    banner.setAutoFillBackground(True)
    banner.setMargin(4)
    font = QFont(banner.font())
    font.setBold(True)
    banner.setFont(font)
    palette = banner.palette()
    palette.setColor(QPalette.ColorRole.Window, QColor(theme.simulated))
    palette.setColor(QPalette.ColorRole.WindowText, QColor(theme.simulated_text))
    banner.setPalette(palette)
    banner.hide()
    return banner
