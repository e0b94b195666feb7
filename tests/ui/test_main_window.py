"""The window: who hears what, what is shown, and how it closes."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's mouse and keyboard have no annotations.

from __future__ import annotations

from uuid import uuid4

import pytest
from PySide6.QtCore import QEvent, QSettings, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.ui.samples import (
    BTC,
    M1,
    MARKETS,
    NOON_MS,
    metadata,
    metrics,
    minutes,
    status,
    ticker,
    trade,
)
from ui.bridge import BackboneBridge, RequestAnswer, RequestFailure
from ui.candle_update import CandleUpdate
from ui.language import Language, Translations
from ui.main_window import MainWindow, Replayed
from ui.theme import Theme
from upbit_backbone import (
    StorageUnavailableError,
    Timeframe,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.clock import FrozenClock


@pytest.fixture
def bridge(qtbot: QtBot) -> BackboneBridge:
    """A bridge to no service: its signals are emitted by hand."""
    return BackboneBridge()


@pytest.fixture
def window(
    bridge: BackboneBridge, theme: Theme, translations: Translations, qtbot: QtBot
) -> MainWindow:
    """The window with a chart of KRW-BTC, in Korean."""
    translations.use("ko")
    found = MainWindow(bridge, theme, FrozenClock(NOON_MS + 2_500))
    qtbot.addWidget(found, before_close_func=lambda shown: shown.let_close())
    found.open_chart(BTC, M1)
    found.show()
    qtbot.waitExposed(found)
    bridge.marketsReady.emit(MARKETS)
    return found


def test_a_simulated_market_cannot_be_overlooked(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    assert not window.banner.isVisible()
    bridge.statusChanged.emit(status(simulated=True))
    assert window.banner.isVisible()
    assert "모의 · SIMULATED" in window.banner.text()


@pytest.mark.parametrize(
    ("simulated", "language", "words"),
    [
        (True, "ko", "모의 · SIMULATED 가격입니다. 2025-09-15 (월) 09:30 기록, 100배속"),
        (False, "ko", "현재 시세가 아닙니다. 2025-09-15 (월) 09:30 기록, 100배속"),
        (True, "en", "SIMULATED prices, recorded 2025-09-15 (Mon) 09:30, played at 100×"),
        (False, "en", "not live: recorded 2025-09-15 (Mon) 09:30, played at 100×"),
    ],
)
def test_a_replay_says_so_and_from_when_it_is(
    window: MainWindow,
    bridge: BackboneBridge,
    translations: Translations,
    qtbot: QtBot,
    simulated: bool,
    language: Language,
    words: str,
) -> None:
    translations.use(language)
    window.set_replay(Replayed(1_757_896_200_000, 100.0, simulated))
    # A replay is marked, as a simulator is: its status says simulated.
    bridge.statusChanged.emit(status(simulated=True))
    assert window.banner.isVisible()
    qtbot.waitUntil(lambda: window.banner.text() == f"재생 · REPLAY — {words}")
    translations.use("ko" if language == "en" else "en")
    qtbot.waitUntil(lambda: words not in window.banner.text())
    assert window.banner.text().startswith("재생 · REPLAY — ")


def test_real_data_have_no_banner(window: MainWindow, bridge: BackboneBridge) -> None:
    bridge.statusChanged.emit(status(simulated=False))
    assert not window.banner.isVisible()


def test_the_price_is_live_with_arrow_source_and_age(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.statusChanged.emit(status())
    bridge.tickerUpdated.emit((ticker("KRW-ETH", 1.0), ticker(BTC, 157_776_000.0, -0.0022)))
    assert window.header.price.text() == "157,776,000"
    assert window.header.change.text().startswith("▼")
    assert "-0.22%" in window.header.change.text()
    badge = window.header.badge.text()
    assert "실시간" in badge
    assert "WebSocket · 2.5초 전" in badge


def test_candles_reach_the_chart_and_trades_the_tape(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    with qtbot.waitSignal(window.chartDrawn, timeout=2_000):
        bridge.candleReady.emit(CandleUpdate(BTC, M1, minutes(0, 300), "loaded", uuid4()))
    bridge.tradesReceived.emit((trade(1), trade(2)))
    qtbot.waitUntil(lambda: window.tape.model.rowCount() == 2, timeout=1_000)


def test_another_symbol_is_opened_by_typing(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    qtbot.keyClicks(window, "xr")
    assert window.palette_box.isVisible()
    window.palette_box.box.setText("ㅇㄷㄹ")
    qtbot.keyClick(window.palette_box.box, Qt.Key.Key_Return)
    assert window.symbol == "KRW-ETH"
    assert "이더리움" in window.header.symbol_button.text()
    assert "이더리움" in window.windowTitle()
    assert not window.palette_box.isVisible()
    assert window.tape.model.rowCount() == 0


def test_escape_and_a_click_elsewhere_leave_the_palette(window: MainWindow, qtbot: QtBot) -> None:
    for leave in (
        lambda: qtbot.keyClick(window.palette_box.box, Qt.Key.Key_Escape),
        window.chart.setFocus,
    ):
        qtbot.keyClick(window, Qt.Key.Key_Slash)
        assert window.palette_box.isVisible()
        window.activateWindow()
        leave()
        qtbot.waitUntil(lambda: not window.palette_box.isVisible(), timeout=1_000)
    assert window.symbol == BTC


def test_a_timeframe_button_opens_that_timeframe(window: MainWindow, qtbot: QtBot) -> None:
    qtbot.mouseClick(window._timeframes[Timeframe.H1], Qt.MouseButton.LeftButton)
    assert window.timeframe is Timeframe.H1
    assert "1시간" in window.windowTitle()


def test_the_list_shows_the_won_markets_and_marks_the_one_on_the_chart(
    window: MainWindow,
) -> None:
    model = window.market_list.model
    assert model.rowCount() == 3
    row = window.market_list.table.currentIndex().row()
    assert model.market_at(row).symbol == BTC


def test_errors_are_one_sentence_that_can_be_dismissed(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    error = UnknownSymbolError("KRW-BTX", ("KRW-BTC", "KRW-BTT"))
    bridge.requestFailed.emit(RequestFailure("candles", "KRW-BTX", error, str(error), uuid4()))
    sentence = "KRW-BTX은(는) 없는 종목입니다. 비슷한 종목: KRW-BTC, KRW-BTT."
    assert window.messages.text == sentence
    window.notices.show_message("알림")
    assert (window.messages.text, window.notices.text) == (sentence, "알림")
    qtbot.mouseClick(window.messages._dismiss, Qt.MouseButton.LeftButton)
    assert window.messages.text == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TransportError("connection refused"), "거래소에 연결할 수 없습니다"),
        (StorageUnavailableError("read-only"), "데이터 폴더를 쓸 수 없습니다"),
    ],
)
def test_an_error_says_what_it_means_and_what_the_service_said(
    window: MainWindow, bridge: BackboneBridge, error: TransportError, words: str
) -> None:
    bridge.requestFailed.emit(RequestFailure("candles", BTC, error, str(error), None))
    assert words in window.messages.text
    assert str(error) in window.messages.text


def test_a_stream_that_is_cut_off_leaves_the_word_to_candles_and_light(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    error = TransportError("cut off")
    bridge.requestFailed.emit(RequestFailure("stream", BTC, error, str(error), None))
    assert window.messages.text == ""


def test_figures_of_the_header_are_whole_or_not_there(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    bridge.tickerUpdated.emit((ticker(BTC, 157_776_000.0, -0.0022),))
    header = window.header
    shown = []
    for width in (1440, 1100, 800, 500):
        header.resize(width, header.height())
        visible = [pair for pair in header.pairs if pair.isVisibleTo(header)]
        layout = header.layout()
        assert layout is not None
        layout.activate()
        assert layout.minimumSize().width() <= max(width, header.minimumSizeHint().width())
        shown.append(len(visible))
    assert shown[0] == 3
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == 0


def test_stored_candles_without_the_rest_are_said_to_be_that(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.requestFailed.emit(RequestFailure("candles", BTC, None, "not reached", None))
    assert "저장된 캔들만" in window.messages.text


def test_the_monitor_shows_what_the_service_says(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.statusChanged.emit(status("offline", reason="no route"))
    bridge.metricsUpdated.emit(metrics())
    bridge.requestAnswered.emit(RequestAnswer(BTC, M1, metadata(400), uuid4()))
    monitor = window.monitor
    texts = {label.text() for label in monitor.findChildren(type(monitor._titles[0]))}
    assert {"1.50", "20.0", "80.0", "40", "60.0%", "75 / 100", "LOW", "2.5 ms", "오프라인"} <= texts
    assert {"저하", "simulator-1 · 모의 · SIMULATED", "캔들 400개, REST, 12 ms"} <= texts
    assert {light.health for light, _, _ in monitor._lights.values()} == {"degraded"}
    assert not window.grab().toImage().isNull()


def test_the_language_changes_while_it_runs(
    window: MainWindow, bridge: BackboneBridge, translations: Translations
) -> None:
    bridge.statusChanged.emit(status())
    bridge.tickerUpdated.emit((ticker(BTC, 5.0),))
    translations.use("en")
    QApplication.sendPostedEvents(None, QEvent.Type.LanguageChange.value)
    QApplication.processEvents()
    assert "Bitcoin" in window.header.symbol_button.text()
    assert "Live" in window.header.badge.text()
    assert window._timeframes[Timeframe.M5].text() == "5m"
    assert window.market_list.model.headerData(1, Qt.Orientation.Horizontal) == "Price"
    assert window._language_button.text() == "한국어"
    translations.use("ko")
    QApplication.processEvents()
    assert "비트코인" in window.header.symbol_button.text()
    assert window._timeframes[Timeframe.M5].text() == "5분"
    assert window._language_button.text() == "English"


def test_closing_only_asks_until_it_is_allowed(window: MainWindow, qtbot: QtBot) -> None:
    with qtbot.waitSignal(window.closeWanted):
        window.close()
    assert window.isVisible()
    window.begin_closing()
    assert not window.isEnabled()
    assert "종료 중" in window.windowTitle()
    window.let_close()
    assert not window.isVisible()


def test_it_remembers_what_was_on_the_chart(window: MainWindow, tmp_path: object) -> None:
    settings = QSettings(f"{tmp_path}/window.ini", QSettings.Format.IniFormat)
    window.open_chart("KRW-XRP", Timeframe.H4)
    window.save_state(settings)
    window.restore_state(settings)
    assert settings.value("symbol") == "KRW-XRP"
    assert settings.value("timeframe") == "4h"
