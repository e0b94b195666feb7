"""The main window: puts the parts together and connects them with the bridge."""

from __future__ import annotations

from typing import NamedTuple

from PySide6.QtCore import QByteArray, QEvent, QSettings, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAction,
    QCloseEvent,
    QColor,
    QFont,
    QIcon,
    QKeyEvent,
    QPaintEvent,
    QPalette,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QDockWidget,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMenu,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ui.bridge import BackboneBridge, RequestAnswer, RequestFailure
from ui.candle_update import CandleUpdate
from ui.chart.chart import Chart, HistoryWish
from ui.clock_notice import ClockNotice
from ui.language import is_korean
from ui.message_bar import MessageBar
from ui.moments import korean_time, moment_label
from ui.monitor.panel import MonitorPanel
from ui.orderbook.trade_tape import TradeTape
from ui.outage import Outage, OutageWatch
from ui.quote_header import QuoteHeader
from ui.screener.market_list import MarketList
from ui.screener.market_table import market_name
from ui.screener.search import named
from ui.sentences import error_details, error_sentence, partial_sentence
from ui.service_words import service_words
from ui.symbol_palette import SymbolPalette
from ui.theme import Theme
from ui.timeframe_bar import TimeframeBar
from upbit_backbone.clock import Clock
from upbit_backbone.errors import TransportError, UnknownSymbolError
from upbit_backbone.models import Gap, Market, Timeframe, Trade
from upbit_backbone.protocol import SystemStatus
from upbit_backbone.resources import resource_path

SIZE = (1440, 900)
"""Where the screen has room for it."""
_FRAME_PX = 40
"""Left of the screen's height for the title that a window manager puts on top."""
_MONITOR_FROM_PX = 760
"""On a lower screen the monitor is hidden at first: the chart needs the room."""
_LIST_WIDTHS = ((1_200, 380), (900, 300), (0, 284))
"""From which width of the window on the list on the right begins how wide."""
_LEAST_LIST_WIDTH = 200
_VIEW_MENU_BELOW = 900
"""In a narrower window the switches of the docks and the language are in a menu."""
_RIGHT_HEIGHTS = [600, 240]
_QUOTE_LISTED = "KRW-"
_KEEP_EVERY_MS = 2_000
"""What was changed longer ago outlives the program, however it ends."""


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
    symbolUnknown = Signal(object)
    """`UnknownSymbolError`: the market that is open is not listed, and means no other one."""

    def __init__(self, bridge: BackboneBridge, theme: Theme, clock: Clock) -> None:
        super().__init__()
        self._bridge = bridge
        self._markets: dict[str, Market] = {}
        self._symbol, self._timeframe = "", Timeframe.M1
        self._may_close = self._was_painted = False
        self._unknown: UnknownSymbolError | None = None
        self._outage: Outage | None = None
        self._list_width = 0
        self._replayed: Replayed | None = None
        self.setWindowIcon(QIcon(str(resource_path("icons/upbit-backbone.svg"))))

        self.banner = _banner(theme, self)
        self.outage = MessageBar(theme, "error", self)
        self.messages = MessageBar(theme, "error", self)
        self.notices = MessageBar(theme, "notice", self)
        self.clock_notice = ClockNotice(theme, self)
        self.header = QuoteHeader(theme, clock, self)
        top = QWidget(self)
        rows = QVBoxLayout(top)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        bars = (self.outage, self.clock_notice, self.notices, self.messages)
        for part in (self.banner, *bars, self.header):
            rows.addWidget(part)
        self.setMenuWidget(top)

        self.chart = Chart(theme, self)
        self.market_list = MarketList(theme, self)
        self.tape = TradeTape(theme, self)
        self.monitor = MonitorPanel(theme, clock, self)
        self._market_dock = self._dock("markets", self.market_list)
        self._tape_dock = self._dock("trades", self.tape)
        self._monitor_dock = self._dock("monitor", self.monitor)
        self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._market_dock)
        self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._tape_dock)
        self.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, self._monitor_dock)
        self.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.BottomDockWidgetArea)
        self.market_list.setMinimumWidth(_LEAST_LIST_WIDTH)

        middle = QWidget(self)
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(self._buttons())
        column.addWidget(self.chart, 1)
        self.setCentralWidget(middle)
        self.palette_box = SymbolPalette(self)
        # Nothing tells when a hand drags the border of a dock.
        self._keeper = QTimer(self, interval=_KEEP_EVERY_MS)
        self._outages = OutageWatch(clock, self)
        self._connect()
        self._retranslate()
        self.resize(*SIZE)
        self.resizeDocks(
            [self._market_dock, self._tape_dock], _RIGHT_HEIGHTS, Qt.Orientation.Vertical
        )
        self.chart.setFocus()

    @property
    def symbol(self) -> str:
        """The market on the chart."""
        return self._symbol

    @property
    def timeframe(self) -> Timeframe:
        """The timeframe on the chart."""
        return self._timeframe

    @property
    def markets(self) -> dict[str, Market]:
        """What is listed, by symbol; empty until that is known."""
        return self._markets

    def open_chart(self, symbol: str, timeframe: Timeframe) -> None:
        """Show a series."""
        changed = symbol != self._symbol
        self._symbol, self._timeframe = symbol, timeframe
        self._unknown = None
        self.messages.withdraw("candles", "history", "stream")
        self.timeframes.mark(timeframe)
        self.chart.open(symbol, self._chart_title(), timeframe)
        self._bridge.show_candles(symbol, timeframe)
        if changed:
            known = self.market_list.model.ticker_of(symbol)
            self.header.open(symbol, self._markets.get(symbol), known)
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
        self._keeper.stop()
        self.setEnabled(False)
        self.setWindowTitle(self.tr("Closing…"))
        self.notices.show_message(self.tr("Closing…"))

    def let_close(self) -> None:
        """Close for good."""
        self._may_close = True
        self.close()

    def save_state(self, settings: QSettings) -> None:
        """Remember size, docks and what is on the chart."""
        state: dict[str, QByteArray | str] = {
            "geometry": self.saveGeometry(),
            "docks": self.saveState(),
            "timeframe": self._timeframe.value,
        }
        if self._symbol in self._markets:
            # A symbol that nobody lists would spoil every start from now on.
            state["symbol"] = self._symbol
        for name, value in state.items():
            # Whatever is set makes the file be written.
            if settings.value(name) != value:
                settings.setValue(name, value)

    def keep_state(self, settings: QSettings) -> None:
        """Remember from now on also what is changed, soon after."""
        self._keeper.timeout.connect(lambda: self.save_state(settings))
        self._keeper.start()

    def restore_state(self, settings: QSettings) -> None:
        """Take size and docks from the last time; the first time, what the screen has room for."""
        geometry, docks = settings.value("geometry"), settings.value("docks")
        if isinstance(geometry, QByteArray):
            self.restoreGeometry(geometry)
        else:
            self._fit_to(self.screen().availableGeometry().size())
        if isinstance(docks, QByteArray) and self.restoreState(docks):
            self._list_width = _list_width(self.width())

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

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = self.width() < _VIEW_MENU_BELOW
        self._view_menu.setVisible(narrow)
        for button in self._view_buttons:
            button.setVisible(not narrow)
        wanted = _list_width(self.width())
        if wanted != self._list_width:
            # Between these widths the list is as wide as the hand made it.
            self._list_width = wanted
            self.resizeDocks([self._market_dock], [wanted], Qt.Orientation.Horizontal)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        text = event.text()
        if event.key() == Qt.Key.Key_Escape:
            self.market_list.filter_box.clear()
        elif text == "/":
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
        bridge.metricsUpdated.connect(self.monitor.set_metrics)
        bridge.eventsHappened.connect(self.monitor.add_events)
        bridge.marketsReady.connect(self._take_markets)
        bridge.requestAnswered.connect(self._take_answer)
        bridge.requestFailed.connect(self._take_failure)
        bridge.statusFailed.connect(self._take_status_fault)
        self.chart.historyWanted.connect(self._load_history)
        self.chart.drawn.connect(self.chartDrawn)
        self.chart.panes.painted.connect(bridge.report_frame)
        self.header.paletteWanted.connect(lambda: self._open_palette())
        self.palette_box.chosen.connect(self._choose_symbol)
        self.market_list.chosen.connect(self._choose_symbol)
        self.timeframes.chosen.connect(self._choose_timeframe)
        self._outages.changed.connect(self._take_outage)
        self.monitor.shownChanged.connect(bridge.watch_figures)

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
        self.timeframes = TimeframeBar(self)
        row.addWidget(self.timeframes, 1)
        self._language_action = QAction(self)
        self._language_action.triggered.connect(self._switch_language)
        docks = (self._market_dock, self._tape_dock, self._monitor_dock)
        actions = [*(dock.toggleViewAction() for dock in docks), self._language_action]
        self._view_buttons: list[QToolButton] = []
        for action in actions:
            button = QToolButton(self)
            button.setDefaultAction(action)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            row.addWidget(button)
            self._view_buttons.append(button)
        # Where there is little room the same is in a menu.
        self._view_menu = QToolButton(self)
        self._view_menu.setObjectName("more")
        self._view_menu.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._view_menu.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self._view_menu)
        menu.addActions(actions)
        self._view_menu.setMenu(menu)
        self._view_menu.hide()
        row.addWidget(self._view_menu)
        return row

    def _retranslate(self) -> None:
        self.banner.setText(self._banner_text())
        self._market_dock.setWindowTitle(self.tr("Markets (KRW)"))
        self._tape_dock.setWindowTitle(self.tr("Trades"))
        self._monitor_dock.setWindowTitle(self.tr("Monitor"))
        # The language to switch to, written in itself.
        self._language_action.setText("English" if is_korean() else "한국어")
        self._view_menu.setText(self.tr("View ▾"))
        self._take_outage(self._outage)
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

    def _chart_title(self) -> str:
        market = self._markets.get(self._symbol)
        name = "" if market is None else f"{market_name(market)} "
        return f"{name}{self._symbol} · {self.timeframes.name(self._timeframe)}"

    def _show_title(self) -> None:
        self.setWindowTitle(f"{self._chart_title()} — Upbit Backbone")

    # What the service says

    def _take_candles(self, update: CandleUpdate) -> None:
        self.chart.apply(update)

    def _take_trades(self, trades: tuple[Trade | Gap, ...]) -> None:
        self.tape.model.add(tuple(t for t in trades if t.symbol == self._symbol))

    def _take_status(self, status: SystemStatus) -> None:
        self.set_simulated(status.simulated or self.banner.isVisibleTo(self))
        self.chart.set_origin(simulated=status.simulated, stale=status.connection != "live")
        self.header.set_status(status)
        self._outages.set_status(status)
        self.monitor.set_status(status)
        self.clock_notice.set_status(status)

    def _take_status_fault(self, fault: str) -> None:
        """Say that what is shown of the service is old; prices and candles go on."""
        if not fault:
            self.messages.withdraw("status")
            return
        text = self.tr(
            "The service cannot say how it is doing: lights and figures are old. It is asked again"
            " each second."
        )
        self.messages.show_message(text, fault, about="status")

    def _take_outage(self, outage: Outage | None) -> None:
        """State a break that lasts; it is withdrawn when prices are live again."""
        self._outage = outage
        self.header.set_outage(outage)
        if outage is None or not outage.was_live:
            # From the start on without the exchange: chart and list say what that means.
            self.outage.hide()
            return
        if outage.offline:
            text = self.tr(
                "Offline: the exchange has not been reached since {0}. Prices are of that time;"
                " it is tried again all the time."
            )
        elif outage.polled:
            text = self.tr(
                "The live connection was lost at {0}: prices are asked for once a second until it"
                " is back."
            )
        else:
            text = self.tr(
                "The live connection was lost at {0}: prices may be old. Connecting again…"
            )
        moment = f"{korean_time(outage.since_ms):%H:%M:%S}"
        self.outage.show_message(text.format(moment), service_words(outage.reason))

    def _take_answer(self, answer: RequestAnswer) -> None:
        self.monitor.set_answer(answer)
        if not answer.complete:
            return
        # What was complained of has been loaded since.
        if answer.occasion == "candles":
            self.messages.withdraw("candles", "history")
        else:
            self.messages.withdraw(answer.occasion)

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
        self.messages.withdraw("markets")
        if self._symbol not in self._markets:
            self._leave_unknown_symbol()

    def _take_failure(self, failure: RequestFailure) -> None:
        if failure.request_id is not None:
            self.chart.request_failed(failure.request_id)
        if failure.occasion == "stream" and isinstance(failure.error, TransportError):
            # The connection has its light, and the candles say what is missing of them.
            return
        error = failure.error
        if error is None:
            text, details = partial_sentence(failure.symbol), failure.reason
        else:
            text, details = error_sentence(error), error_details(error)
        if isinstance(error, UnknownSymbolError):
            if failure.symbol != self._symbol:
                return  # it was left since
            self._unknown = error
        self.messages.show_message(text, details, about=failure.occasion)
        if self._unknown is not None and self._markets:
            self._leave_unknown_symbol()

    def _leave_unknown_symbol(self) -> None:
        """The market that is open is not listed: open the one that is meant, or ask what to do."""
        market = named(self._markets.values(), self._symbol)
        if market is not None:
            self.open_chart(market.symbol, self._timeframe)
        elif self._unknown is not None:
            self.symbolUnknown.emit(self._unknown)

    # What the user wants

    def _watch_tickers(self) -> None:
        """The list's markets, and the one on the chart wherever it is quoted."""
        listed = [symbol for symbol in self._markets if symbol.startswith(_QUOTE_LISTED)]
        self._bridge.watch_tickers([self._symbol, *listed])

    def _choose_symbol(self, symbol: str) -> None:
        if symbol != self._symbol:
            self.open_chart(symbol, self._timeframe)
        self.chart.setFocus()

    def _choose_timeframe(self, timeframe: Timeframe) -> None:
        self.open_chart(self._symbol, timeframe)

    def _load_history(self, wish: HistoryWish) -> None:
        self.chart.expect_history(
            self._bridge.load_older(wish.symbol, wish.timeframe, wish.before_ms, wish.count)
        )

    def _fit_to(self, room: QSize) -> None:
        self.resize(min(SIZE[0], room.width()), min(SIZE[1], room.height() - _FRAME_PX))
        if room.height() < _MONITOR_FROM_PX:
            self._monitor_dock.hide()

    def _open_palette(self, text: str = "") -> None:
        # Over the chart, below the button it belongs to.
        corner = self.header.mapTo(self, self.header.rect().bottomLeft())
        self.palette_box.open_at(corner.x() + 10, corner.y() + 2, text)


def _list_width(window_width: int) -> int:
    """How wide the market list begins in a window of this width."""
    return next(width for least, width in _LIST_WIDTHS if window_width >= least)


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
