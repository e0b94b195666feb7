"""The head of the window: which market, its live price, and how fresh that is."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPalette, QResizeEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QToolButton, QWidget

from ui import numerals
from ui.language import is_korean
from ui.moments import korean_time
from ui.outage import Outage
from ui.screener.market_table import market_name
from ui.service_words import service_words
from ui.theme import ARROWS, Theme
from upbit_backbone.clock import Clock, epoch_ms
from upbit_backbone.models import Market, Orderbook, Ticker
from upbit_backbone.price import format_price
from upbit_backbone.protocol import SystemStatus

_AGE_EVERY_MS = 500
_QUOTE_UNDERSTOOD = "KRW"
"""Amounts in won are written without their unit."""
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
        self._outage: Outage | None = None

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
        self.detail = QLabel(self)
        _ink(self.detail, theme.dim)

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
        layout.addWidget(self.detail)

        self._age = QTimer(self, interval=_AGE_EVERY_MS)
        self._age.timeout.connect(self._show_badge)
        self._age.start()
        self._retranslate()

    def open(self, symbol: str, market: Market | None, ticker: Ticker | None = None) -> None:
        """Show another market, with its latest ticker as far as one is known."""
        if symbol != self._symbol:
            self._ticker, self._orderbook = ticker, None
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

    def set_outage(self, outage: Outage | None) -> None:
        """Say whether the figures are of the past, and since when."""
        self._outage = outage
        self._show_all()

    def minimumSizeHint(self) -> QSize:
        """With code, price, change and light alone; the rest goes where it has no room."""
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
                self.tr("High (today)"),
                self.tr("Low (today)"),
                self.tr("Ask"),
                self.tr("Bid"),
                self.tr("Value (24 h)"),
                self.tr("Volume (24 h)"),
            ),
            strict=True,
        ):
            label.setText(text)
        since = self.tr("Since 09:00 Korean time today")
        for label in (*self._names[:2], *self._figures[:2]):
            label.setToolTip(since)
        self.detail.setMinimumWidth(0)
        self.symbol_button.setToolTip(self.tr("Choose a market (/ or any letter)"))
        self.change.setToolTip(self.tr("Against the last price before 09:00 Korean time today"))
        self._show_all()

    def _show_all(self) -> None:
        ticker = self._ticker
        if ticker is None:
            self.price.setText(_NOTHING)
            self.change.setText("")
        else:
            # A price of the past has no colour: it shall not look like the market's.
            colour = self._theme.dim
            if self._outage is None:
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
            quote = symbol.partition("-")[0]
            if quote != _QUOTE_UNDERSTOOD:
                value = f"{value} {quote}"
            volume = numerals.volume(ticker.volume_24h)
        if book is not None and book.asks and book.bids:
            ask = format_price(symbol, book.asks[0].price)
            bid = format_price(symbol, book.bids[0].price)
        for label, text in zip(self._figures, (high, low, ask, bid, value, volume), strict=True):
            label.setText(text)
        self._fit()

    def _show_badge(self) -> None:
        """Whether the price is live, and how long ago the last trade was."""
        status = self._status
        if status is None:
            colour, word = self._theme.starting, self.tr("Starting")
        elif status.connection == "live":
            colour, word = self._theme.healthy, self.tr("Live")
        elif status.connection == "connecting":
            colour, word = self._theme.degraded, self.tr("Connecting")
        elif status.connection == "polling":
            colour, word = self._theme.degraded, self.tr("Polled")
        else:
            colour, word = self._theme.down, self.tr("Offline")
        self.badge.setText(f"<span style='color:{colour}'>●</span> {word}")
        self.badge.setToolTip("" if status is None else service_words(status.reason))
        self._show_detail()
        self._fit()

    def _show_detail(self) -> None:
        ticker, outage = self._ticker, self._outage
        if outage is not None:
            lost = f"{korean_time(outage.since_ms):%H:%M:%S}"
            if outage.was_live:
                text = self.tr("cut off since {0}").format(lost)
            else:
                text = self.tr("not reached since {0}").format(lost)
            tip = ""
        elif ticker is None:
            text = tip = ""
        else:
            offset_ms = 0 if self._status is None else self._status.exchange_offset_ms
            trade_ms = epoch_ms(ticker.trade_time) - offset_ms
            text = self.tr("last trade {0}").format(self._ago(trade_ms))
            source = {
                "websocket": "WebSocket",
                "rest": "REST",
                "cache": self.tr("memory"),
                "storage": self.tr("disk"),
            }[ticker.source]
            received = self._ago(epoch_ms(ticker.received_time))
            tip = self.tr("By {0}, received {1}. Without a trade nothing is sent.").format(
                source, received
            )
        self.detail.setText(text)
        self.detail.setToolTip(tip)
        # Never narrower again, or the figures beside it would come and go with the age.
        wide = max(self.detail.minimumWidth(), self.detail.sizeHint().width())
        self.detail.setMinimumWidth(wide)

    def _ago(self, at_ms: int) -> str:
        age_s = max(0.0, (self._clock.now_ms() - at_ms) / 1_000)
        if age_s < 10:
            return self.tr("{0} s ago").format(f"{age_s:.1f}")
        if age_s < 60:
            return self.tr("{0} s ago").format(int(age_s))
        if age_s < 3_600:
            return self.tr("{0} min ago").format(int(age_s / 60))
        return self.tr("{0} h ago").format(int(age_s / 3_600))

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
        """Of what is always there: code, price, change and light."""
        layout = self.layout()
        margins = self.contentsMargins() if layout is None else layout.contentsMargins()
        parts = (self.price, self.change, self.badge)
        widths = sum(part.sizeHint().width() for part in parts) + self._button_width(self._code())
        # The layout's stretch has a spacing, too.
        return widths + (len(parts) + 1) * _SPACING + margins.left() + margins.right()

    def _code(self) -> str:
        return f"{self._symbol}  ▾"

    def _button_width(self, text: str) -> int:
        button = self.symbol_button
        metrics = button.fontMetrics()
        around = button.sizeHint().width() - metrics.horizontalAdvance(button.text())
        return metrics.horizontalAdvance(text) + around

    def _fit(self) -> None:
        """Show what has room whole: first the name, then the last trade, then figures."""
        room = self.width() - self._least_width()
        text = self._code()
        if self._market is not None:
            named = f"{market_name(self._market)}  {text}"
            more = self._button_width(named) - self._button_width(text)
            if more <= room:
                text, room = named, room - more
        self.symbol_button.setText(text)
        for part in (self.detail, *self.pairs):
            wide = part.minimumWidth() if part is self.detail else part.sizeHint().width()
            room -= wide + _SPACING
            part.setVisible(room >= 0)


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
