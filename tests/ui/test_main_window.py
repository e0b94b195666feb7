"""The window: who hears what, what is shown, and how it closes."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's mouse and keyboard have no annotations.

from __future__ import annotations

from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from PySide6.QtCore import QEvent, QSettings, QSize, Qt
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.manual_clock import ManualClock
from tests.ui.fake_api import FakeApi
from tests.ui.samples import (
    BTC,
    M1,
    MARKETS,
    NOON_MS,
    event,
    metadata,
    metrics,
    minutes,
    status,
    ticker,
    trade,
)
from ui.bridge import BackboneBridge, Occasion, RequestAnswer, RequestFailure
from ui.candle_update import CandleUpdate
from ui.language import Language, Translations
from ui.main_window import SIZE, MainWindow, Replayed
from ui.moments import korean_time
from ui.monitor.figure_grid import FigureGrid
from ui.theme import Theme
from upbit_backbone import (
    DeadlineError,
    MarketDataAPI,
    Span,
    StorageUnavailableError,
    Timeframe,
    TransportError,
    UnknownSymbolError,
)


@pytest.fixture
def bridge(qtbot: QtBot) -> BackboneBridge:
    """A bridge to no service: its signals are emitted by hand."""
    return BackboneBridge()


@pytest.fixture
def window(
    bridge: BackboneBridge,
    theme: Theme,
    translations: Translations,
    clock: ManualClock,
    qtbot: QtBot,
) -> MainWindow:
    """The window with a chart of KRW-BTC, in Korean."""
    translations.use("ko")
    clock.set_wall(NOON_MS + 2_500)
    found = MainWindow(bridge, theme, clock)
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
    assert window.header.detail.text() == "마지막 체결 2.5초 전"
    assert "WebSocket" in window.header.detail.toolTip()


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
    qtbot.mouseClick(window.timeframes.buttons[Timeframe.H1], Qt.MouseButton.LeftButton)
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
    window.open_chart("KRW-BTX", M1)
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
def test_an_error_says_what_it_means_and_on_demand_what_the_service_said(
    window: MainWindow,
    bridge: BackboneBridge,
    qtbot: QtBot,
    error: TransportError,
    words: str,
) -> None:
    bridge.requestFailed.emit(RequestFailure("candles", BTC, error, str(error), None))
    assert words in window.messages.text
    assert str(error) not in window.messages.text
    assert not window.messages._details.isVisible()
    assert window.messages.more.text() == "자세히"
    qtbot.mouseClick(window.messages.more, Qt.MouseButton.LeftButton)
    assert window.messages._details.isVisible()
    assert window.messages.details == str(error)
    # The next message begins folded up.
    window.messages.show_message("x", "y")
    assert not window.messages._details.isVisible()


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
    assert window.messages.text == (
        "KRW-BTC의 저장된 캔들만 보여 줍니다. 나머지는 불러오지 못했습니다."
    )
    assert window.messages.details == "not reached"


def answer(occasion: Occasion, **changes: object) -> RequestAnswer:
    return RequestAnswer(BTC, M1, metadata(400, **changes), uuid4(), occasion)


LATE = DeadlineError("no candle of KRW-BTC within 10 s")
MISSING = {"missing": (Span(None, None, "unknown"),), "reason": "not reached"}


@pytest.mark.parametrize(
    ("failed", "then", "stays"),
    [
        ("candles", answer("candles"), False),
        ("history", answer("history"), False),
        ("history", answer("candles"), False),
        ("candles", answer("history"), True),
        ("markets", answer("candles"), True),
        ("candles", answer("candles", **MISSING), True),
    ],
)
def test_an_error_is_withdrawn_when_what_it_was_about_has_been_loaded(
    window: MainWindow, bridge: BackboneBridge, failed: Occasion, then: RequestAnswer, stays: bool
) -> None:
    bridge.requestFailed.emit(RequestFailure(failed, BTC, LATE, str(LATE), None))
    assert window.messages.text.startswith("거래소가 제때 응답하지 않았습니다")
    bridge.requestAnswered.emit(then)
    assert bool(window.messages.text) == stays


def test_an_error_goes_with_its_chart_or_with_the_list_it_was_about(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.requestFailed.emit(RequestFailure("candles", BTC, LATE, str(LATE), None))
    window.open_chart("KRW-ETH", M1)
    assert window.messages.text == ""
    bridge.requestFailed.emit(RequestFailure("markets", "", LATE, str(LATE), None))
    window.open_chart(BTC, M1)
    assert window.messages.text != ""
    bridge.marketsReady.emit(MARKETS)
    assert window.messages.text == ""


def test_a_lost_connection_is_stated_after_a_few_seconds_and_withdrawn(
    window: MainWindow, bridge: BackboneBridge, clock: ManualClock, theme: Theme
) -> None:
    def ink() -> str:
        return window.header.price.palette().color(QPalette.ColorRole.WindowText).name()

    bridge.statusChanged.emit(status("live"))
    bridge.tickerUpdated.emit((ticker(BTC, 157_776_000.0, -0.0022),))
    assert ink() == theme.fall
    lost_at = f"{korean_time(clock.now_ms()):%H:%M:%S}"
    bridge.statusChanged.emit(status("connecting", reason="reset by peer"))
    assert not window.outage.isVisible()
    clock.advance(3)
    window._outages.check()
    assert window.outage.text.startswith(f"{lost_at}에 실시간 연결이 끊겼습니다.")
    assert window.outage.details == "reset by peer"
    assert ink() == theme.dim
    assert window.header.detail.text() == f"{lost_at}부터 끊김"
    clock.advance(70)
    bridge.statusChanged.emit(status("offline", reason="refused"))
    assert window.outage.text.startswith(f"오프라인: {lost_at}부터 거래소에 연결되지 않습니다.")
    assert "오프라인" in window.header.badge.text()
    bridge.statusChanged.emit(status("live"))
    assert not window.outage.isVisible()
    assert ink() == theme.fall


def test_that_the_service_cannot_be_asked_is_said_until_it_can(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.statusFailed.emit("ZeroDivisionError: no call was counted")
    assert window.messages.text.startswith("서비스의 상태를 알 수 없어")
    assert window.messages.details == "ZeroDivisionError: no call was counted"
    bridge.statusFailed.emit("")
    assert window.messages.text == ""


def test_a_break_of_a_moment_is_not_spoken_of(
    window: MainWindow, bridge: BackboneBridge, clock: ManualClock
) -> None:
    bridge.statusChanged.emit(status("live"))
    bridge.statusChanged.emit(status("connecting"))
    clock.advance(2)
    bridge.statusChanged.emit(status("live"))
    clock.advance(5)
    window._outages.check()
    assert not window.outage.isVisible()


def test_from_the_start_without_an_exchange_the_price_is_no_live_one(
    window: MainWindow, bridge: BackboneBridge, clock: ManualClock, theme: Theme
) -> None:
    bridge.statusChanged.emit(status("offline"))
    bridge.tickerUpdated.emit((ticker(BTC, 5.0),))
    clock.advance(3)
    window._outages.check()
    assert not window.outage.isVisible(), "the chart's own message says it"
    price = window.header.price.palette().color(QPalette.ColorRole.WindowText).name()
    assert price == theme.dim


@pytest.mark.parametrize(
    ("after_s", "words"),
    [(2, "4.5초 전"), (36, "38초 전"), (720, "12분 전"), (11_000, "3시간 전")],
)
def test_a_quiet_market_tells_the_age_of_its_last_trade(
    window: MainWindow, bridge: BackboneBridge, clock: ManualClock, after_s: int, words: str
) -> None:
    bridge.statusChanged.emit(status("live"))
    bridge.tickerUpdated.emit((ticker(BTC, 5.0),))
    clock.advance(after_s)
    window.header._show_badge()
    assert window.header.detail.text() == f"마지막 체결 {words}"


def test_an_unknown_market_that_means_a_listed_one_is_that(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    window.open_chart("XRP", M1)
    bridge.marketsReady.emit(MARKETS)
    assert window.symbol == "KRW-XRP"
    assert window.messages.text == ""


def test_an_unknown_market_is_told_once_the_list_is_there(
    bridge: BackboneBridge, theme: Theme, clock: ManualClock, qtbot: QtBot
) -> None:
    window = MainWindow(bridge, theme, clock)
    qtbot.addWidget(window, before_close_func=lambda shown: shown.let_close())
    heard: list[UnknownSymbolError] = []
    window.symbolUnknown.connect(heard.append)
    window.open_chart("KRW-NOPE", M1)
    error = UnknownSymbolError("KRW-NOPE")
    bridge.requestFailed.emit(RequestFailure("candles", "KRW-NOPE", error, str(error), uuid4()))
    assert heard == []
    bridge.marketsReady.emit(MARKETS)
    assert heard == [error]


def test_the_complaints_of_a_market_left_behind_are_not_shown(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    error = UnknownSymbolError("KRW-NOPE")
    bridge.requestFailed.emit(RequestFailure("stream", "KRW-NOPE", error, str(error), None))
    assert window.messages.text == ""


@pytest.mark.parametrize(("width", "height"), [(1_920, 1_080), (960, 1_040), (800, 600)])
@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_window_works_in_every_size(
    window: MainWindow,
    bridge: BackboneBridge,
    translations: Translations,
    qtbot: QtBot,
    width: int,
    height: int,
    language: Language,
) -> None:
    translations.use(language)
    bridge.statusChanged.emit(status())
    bridge.tickerUpdated.emit((ticker(BTC, 157_776_000.0, -0.0022),))
    window.resize(width, height)
    qtbot.waitUntil(lambda: window.chart.width() > 100)
    QApplication.processEvents()
    assert (window.width(), window.height()) == (width, height)
    assert window.chart.width() > width / 2
    assert window.market_list.width() < width * 0.36
    buttons = window.timeframes.buttons.values()
    qtbot.waitUntil(
        lambda: all(b.width() >= b.sizeHint().width() for b in buttons if b.isVisible())
    )
    shown = [button for button in buttons if button.isVisible()]
    assert len(shown) >= 2
    assert window.timeframes.more.isVisible() == (len(shown) < len(Timeframe))
    tape = window.tape.table
    for column, sample in enumerate(("00:37:24", "157,365,000", "0.00538499 ▲")):
        assert tape.columnWidth(column) > tape.fontMetrics().horizontalAdvance(sample) + 5
    for part in (window.header.price, window.header.change, window.header.badge):
        assert part.width() >= part.sizeHint().width()
        assert part.geometry().right() <= window.header.width()


def test_a_timeframe_without_a_button_is_in_the_menu_which_names_the_open_one(
    window: MainWindow, qtbot: QtBot
) -> None:
    window.resize(800, 600)
    bar = window.timeframes
    qtbot.waitUntil(lambda: bar.more.text() == "▾")
    hidden = [action.text() for action in bar.more.menu().actions()]
    shown = [button.text() for button in bar.buttons.values() if button.isVisible()]
    assert sorted(hidden + shown) == sorted(bar.name(each) for each in Timeframe)
    assert "월" in hidden
    bar.actions_by_timeframe[Timeframe.MO1].trigger()
    assert window.timeframe is Timeframe.MO1
    assert bar.more.text() == "월 ▾"
    assert bar.more.isChecked()


def test_every_timeframe_has_a_name_and_a_button(window: MainWindow) -> None:
    for timeframe in Timeframe:
        window.open_chart(BTC, timeframe)
        assert window.timeframes.buttons[timeframe].isChecked()
        assert window.timeframes.name(timeframe) in window.windowTitle()
    names = {window.timeframes.name(each) for each in Timeframe}
    assert len(names) == len(Timeframe)


def test_switching_the_language_leaves_the_window_as_large_as_it_is(
    window: MainWindow, bridge: BackboneBridge, translations: Translations
) -> None:
    bridge.statusChanged.emit(status())
    bridge.tickerUpdated.emit((ticker(BTC, 157_776_000.0, -0.0022),))
    for size in ((1_440, 900), (960, 700)):
        window.resize(*size)
        QApplication.processEvents()
        docks = window.market_list.width()
        for language in ("en", "ko"):
            translations.use("en" if language == "en" else "ko")
            QApplication.processEvents()
            assert (window.width(), window.height()) == size
            assert window.market_list.width() == docks


def test_the_first_window_fits_the_screen(
    bridge: BackboneBridge, theme: Theme, clock: ManualClock, qtbot: QtBot, tmp_path: object
) -> None:
    window = MainWindow(bridge, theme, clock)
    qtbot.addWidget(window, before_close_func=lambda shown: shown.let_close())
    settings = QSettings(f"{tmp_path}/window.ini", QSettings.Format.IniFormat)
    window.restore_state(settings)
    room = window.screen().availableGeometry()
    assert window.width() <= room.width()
    assert window.height() < room.height()
    window._fit_to(QSize(2_560, 1_440))
    assert (window.width(), window.height()) == SIZE


def test_today_s_figures_are_told_from_those_of_24_hours_and_have_units(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    names = [label.text() for label in window.header._names]
    assert names == ["고가(당일)", "저가(당일)", "매도", "매수", "거래대금(24h)", "거래량(24h)"]
    window.open_chart("BTC-ETH", M1)
    bridge.tickerUpdated.emit((ticker("BTC-ETH", 0.03, value=12.5),))
    assert window.header._figures[4].text() == "12.500 BTC"
    window.open_chart(BTC, M1)
    bridge.tickerUpdated.emit((ticker(BTC, 5.0, value=246e9),))
    assert window.header._figures[4].text() == "2,460억"


def test_the_palette_says_when_nothing_fits(window: MainWindow, qtbot: QtBot) -> None:
    qtbot.keyClicks(window, "zzzz")
    palette = window.palette_box
    palette.box.setText("zzzz")
    assert palette.note.isVisible()
    assert palette.note.text() == "‘zzzz’에 맞는 종목이 없습니다"
    palette.box.setText("xrp")
    assert not palette.note.isVisible()


def test_escape_ends_the_filter_of_the_list(window: MainWindow, qtbot: QtBot) -> None:
    box = window.market_list.filter_box
    for where in (box, window):
        box.setText("리플")
        assert window.market_list.model.rowCount() == 1
        qtbot.keyClick(where, Qt.Key.Key_Escape)
        assert box.text() == ""
        assert window.market_list.model.rowCount() == 3


def test_the_monitor_shows_what_the_service_says(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.statusChanged.emit(status("offline", reason="no route"))
    bridge.metricsUpdated.emit(metrics())
    bridge.requestAnswered.emit(RequestAnswer(BTC, M1, metadata(400), uuid4()))
    grids = window.monitor.findChildren(FigureGrid)
    texts = {text for grid in grids for row in grid.texts for text in row}
    assert {"1.50", "20.0", "80.0", "40", "60.0%", "75"} <= texts
    assert {"거래소에 연결되지 않습니다", "no route"} <= texts
    assert {"저하", "오프라인 · simulator-1 · 모의 · SIMULATED", "캔들 400개, REST, 12 ms"} <= texts
    assert "이벤트 루프 2.50 ms · 화면 –" in texts
    assert not window.grab().toImage().isNull()


def test_the_chart_tells_the_service_of_its_frames(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    api = FakeApi()
    bridge._api = cast("MarketDataAPI", api)
    window.chart.panes.update()
    qtbot.waitUntil(lambda: bool(api.frames_s))
    assert 0 < api.frames_s[0] < 1, "seconds"
    bridge._api = None


def test_events_of_the_service_are_in_the_monitor(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    bridge.eventsHappened.emit((event(1), event(2, "warning")))
    assert [shown.number for shown in window.monitor.events.model.shown] == [2, 1]


def test_the_figures_are_wanted_while_the_monitor_is_seen(
    window: MainWindow, bridge: BackboneBridge
) -> None:
    assert bridge.figures_seen
    window._monitor_dock.hide()
    assert not bridge.figures_seen
    window._monitor_dock.show()
    assert bridge.figures_seen


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
    assert window.timeframes.buttons[Timeframe.M5].text() == "5m"
    assert window.market_list.model.headerData(1, Qt.Orientation.Horizontal) == "Price"
    assert window._language_action.text() == "한국어"
    translations.use("ko")
    QApplication.processEvents()
    assert "비트코인" in window.header.symbol_button.text()
    assert window.timeframes.buttons[Timeframe.M5].text() == "5분"
    assert window._language_action.text() == "English"


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
    window.open_chart("KRW-NOPE", Timeframe.W1)
    window.save_state(settings)
    assert settings.value("symbol") == "KRW-XRP", "what is not listed is not remembered"
    assert settings.value("timeframe") == "1w"


def test_what_is_changed_is_remembered_without_a_clean_exit(
    window: MainWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    file = tmp_path / "window.ini"
    settings = QSettings(str(file), QSettings.Format.IniFormat)
    window._keeper.setInterval(20)
    window.keep_state(settings)
    window.open_chart("KRW-XRP", Timeframe.H4)
    qtbot.waitUntil(lambda: file.exists() and "symbol=KRW-XRP" in file.read_text())
    narrow = window.saveState().toBase64()
    window.resizeDocks([window._market_dock], [230], Qt.Orientation.Horizontal)
    qtbot.waitUntil(lambda: window.saveState().toBase64() != narrow)
    qtbot.waitUntil(
        lambda: (
            QSettings(str(file), QSettings.Format.IniFormat).value("docks") == window.saveState()
        )
    )
    written = file.stat().st_mtime_ns
    qtbot.wait(100)
    assert file.stat().st_mtime_ns == written, "nothing changed: nothing is written"


def test_another_market_shows_the_price_that_the_list_knows(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    bridge.tickerUpdated.emit((ticker("KRW-XRP", 4_013.0),))
    window.open_chart("KRW-XRP", M1)
    assert window.header.price.text() == "4,013"


def test_a_small_window_has_the_switches_in_a_menu(
    window: MainWindow, bridge: BackboneBridge, qtbot: QtBot
) -> None:
    window.resize(800, 600)
    qtbot.waitUntil(window._view_menu.isVisible)
    assert not any(button.isVisible() for button in window._view_buttons)
    texts = [action.text() for action in window._view_menu.menu().actions()]
    assert texts == ["마켓 (원화)", "체결", "모니터", "English"]
    window._view_menu.menu().actions()[2].trigger()
    assert not window.monitor.isVisible()
    with qtbot.waitSignal(window.languageWanted) as wanted:
        window._view_menu.menu().actions()[3].trigger()
    assert wanted.args == ["en"]
    window.resize(960, 700)
    qtbot.waitUntil(lambda: all(button.isVisible() for button in window._view_buttons))
    assert not window._view_menu.isVisible()


def test_the_width_that_a_hand_gave_the_list_is_remembered(
    window: MainWindow,
    bridge: BackboneBridge,
    theme: Theme,
    clock: ManualClock,
    qtbot: QtBot,
    tmp_path: object,
) -> None:
    settings = QSettings(f"{tmp_path}/window.ini", QSettings.Format.IniFormat)
    window.resize(780, 600)
    window.resizeDocks([window._market_dock], [230], Qt.Orientation.Horizontal)
    QApplication.processEvents()
    narrow = window.market_list.width()
    assert narrow == 230
    window.save_state(settings)
    again = MainWindow(bridge, theme, clock)
    qtbot.addWidget(again, before_close_func=lambda shown: shown.let_close())
    again.restore_state(settings)
    again.show()
    qtbot.waitExposed(again)
    assert again.width() == 780
    assert again.market_list.width() == narrow
