"""The head of the window: which market, its live price, and how fresh that is."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPalette, QResizeEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QToolButton, QWidget

from ui import numerals
from ui.language import is_korean
from ui.screener.market_table import market_name
from ui.theme import ARROWS, Theme
from upbit_backbone.clock import Clock, epoch_ms
from upbit_backbone.models import Market, Orderbook, Ticker
from upbit_backbone.price import format_price
from upbit_backbone.protocol import SystemStatus

_AGE_EVERY_MS = 500
_SPACING = 18
_NOTHING = "–"


class QuoteHeader(QWidget):
    """Name, price and day's figures of the market on the chart."""

    paletteWanted = Signal()

    def __init__(self, theme: Theme, clock: Clock, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._clock = clock
        self._symbol = ""
        self._market: Market | None = None
        self._ticker: Ticker | None = None
        self._orderbook: Orderbook | None = None
        self._status: SystemStatus | None = None

        self.symbol_button = QToolButton(self)
        self.symbol_button.setObjectName("symbol")
        self.symbol_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        _scale(self.symbol_button, 1.45, bold=True)
        self.symbol_button.clicked.connect(self.paletteWanted)
        self.price = QLabel(_NOTHING, self)
        _scale(self.price, 2.2, bold=True)
        self.change = QLabel(self)
        _scale(self.change, 1.2, bold=False)
        self.badge = QLabel(self)
        self.badge.setTextFormat(Qt.TextFormat.RichText)

        self._names: list[QLabel] = []
        self._figures: list[QLabel] = []
        self.pairs = [self._pair(widest) for widest in ("188,888,888", "188,888,888", "88,888.8")]

        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 6, 14, 6)
        layout.setSpacing(_SPACING)
        for part in (self.symbol_button, self.price, self.change, *self.pairs):
            layout.addWidget(part)
        layout.addStretch(1)
        layout.addWidget(self.badge)

        self._age = QTimer(self, interval=_AGE_EVERY_MS)
        self._age.timeout.connect(self._show_badge)
        self._age.start()
        self._retranslate()

    def open(self, symbol: str, market: Market | None) -> None:
        """Show another market; its figures arrive with its ticker."""
        if symbol != self._symbol:
            self._ticker = self._orderbook = None
        self._symbol, self._market = symbol, market
        self._show_all()

    def apply(self, tickers: tuple[Ticker, ...]) -> None:
        """Take the ticker of the market shown out of a batch."""
        for ticker in tickers:
            if ticker.symbol == self._symbol:
                self._ticker = ticker
                self._show_all()

    def apply_orderbooks(self, orderbooks: tuple[Orderbook, ...]) -> None:
        """Take the order book of the market shown out of a batch."""
        for orderbook in orderbooks:
            if orderbook.symbol == self._symbol:
                self._orderbook = orderbook
                self._show_figures()

    def set_status(self, status: SystemStatus) -> None:
        """Take how the connection is doing."""
        self._status = status
        self._show_badge()

    def minimumSizeHint(self) -> QSize:
        """Without the pairs of figures, which go where there is no room for them."""
        hint = super().minimumSizeHint()
        hint.setWidth(self._least_width())
        return hint

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.LanguageChange:
            self._retranslate()
        super().changeEvent(event)

    def _retranslate(self) -> None:
        for label, text in zip(
            self._names,
            (
                self.tr("High"),
                self.tr("Low"),
                self.tr("Ask"),
                self.tr("Bid"),
                self.tr("Value (24 h)"),
                self.tr("Volume (24 h)"),
            ),
            strict=True,
        ):
            label.setText(text)
        self.badge.setMinimumWidth(0)
        self.symbol_button.setToolTip(self.tr("Choose a market (/ or any letter)"))
        self.change.setToolTip(self.tr("Against the last price before 09:00 Korean time today"))
        self._show_all()

    def _show_all(self) -> None:
        name = "" if self._market is None else f"{market_name(self._market)}  "
        self.symbol_button.setText(f"{name}{self._symbol}  ▾")
        ticker = self._ticker
        if ticker is None:
            self.price.setText(_NOTHING)
            self.change.setText("")
        else:
            colour = self._theme.by_change[ticker.change].name()
            self.price.setText(format_price(ticker.symbol, ticker.price))
            moved = numerals.price_move(ticker.symbol, ticker.price, ticker.change_price)
            arrow = ARROWS[ticker.change]
            self.change.setText(f"{arrow} {moved}  {numerals.signed_percent(ticker.change_rate)}")
            for label in (self.price, self.change):
                _ink(label, colour)
        self._show_figures()
        self._show_badge()

    def _show_figures(self) -> None:
        ticker, book, symbol = self._ticker, self._orderbook, self._symbol
        high = low = ask = bid = value = volume = _NOTHING
        if ticker is not None:
            high, low = format_price(symbol, ticker.high), format_price(symbol, ticker.low)
            value = numerals.amount(ticker.value_24h, korean=is_korean())
            volume = numerals.volume(ticker.volume_24h)
        if book is not None and book.asks and book.bids:
            ask = format_price(symbol, book.asks[0].price)
            bid = format_price(symbol, book.bids[0].price)
        for label, text in zip(self._figures, (high, low, ask, bid, value, volume), strict=True):
            label.setText(text)
        self._fit()

    def _show_badge(self) -> None:
        """Whether the price is live, where it came from, and how long ago."""
        status, ticker = self._status, self._ticker
        if status is None:
            colour, word = self._theme.starting, self.tr("Starting")
        elif status.connection == "live":
            colour, word = self._theme.healthy, self.tr("Live")
        elif status.connection == "connecting":
            colour, word = self._theme.degraded, self.tr("Connecting")
        else:
            colour, word = self._theme.down, self.tr("Offline")
        parts = [f"<span style='color:{colour}'>●</span> {word}"]
        if ticker is not None:
            age_s = max(0.0, (self._clock.now_ms() - epoch_ms(ticker.received_time)) / 1_000)
            source = {
                "websocket": "WebSocket",
                "rest": "REST",
                "cache": self.tr("memory"),
                "storage": self.tr("disk"),
            }[ticker.source]
            ago = self.tr("{0} s ago").format(f"{age_s:.0f}" if age_s >= 10 else f"{age_s:.1f}")
            parts.append(f"<span style='color:{self._theme.dim}'>{source} · {ago}</span>")
        self.badge.setText("&nbsp;&nbsp;".join(parts))
        # Never narrower again, or the figures beside it would come and go with the age.
        self.badge.setMinimumWidth(max(self.badge.minimumWidth(), self.badge.sizeHint().width()))

    def _pair(self, widest: str) -> QWidget:
        """Two figures above each other, with their names."""
        pair = QWidget(self)
        grid = QGridLayout(pair)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(1)
        for row in range(2):
            name, figure = QLabel(pair), QLabel(_NOTHING, pair)
            _ink(name, self._theme.dim)
            figure.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            figure.setMinimumWidth(self.fontMetrics().horizontalAdvance(widest))
            grid.addWidget(name, row, 0)
            grid.addWidget(figure, row, 1)
            self._names.append(name)
            self._figures.append(figure)
        return pair

    def _least_width(self) -> int:
        margins = self.contentsMargins()
        layout = self.layout()
        if layout is not None:
            margins = layout.contentsMargins()
        always = (self.symbol_button, self.price, self.change, self.badge)
        widths = sum(part.sizeHint().width() for part in always[:3]) + self.badge.minimumWidth()
        return widths + len(always) * _SPACING + margins.left() + margins.right()

    def _fit(self) -> None:
        """Show as many pairs, from the left, as have room whole."""
        room = self.width() - self._least_width()
        for pair in self.pairs:
            room -= pair.sizeHint().width() + _SPACING
            pair.setVisible(room >= 0)


def _scale(widget: QWidget, factor: float, *, bold: bool) -> None:
    font = widget.font()
    font.setPointSizeF(font.pointSizeF() * factor)
    font.setBold(bold)
    widget.setFont(font)


def _ink(label: QLabel, colour: str) -> None:
    palette = label.palette()
    if palette.color(QPalette.ColorRole.WindowText) != QColor(colour):
        palette.setColor(QPalette.ColorRole.WindowText, QColor(colour))
        label.setPalette(palette)
