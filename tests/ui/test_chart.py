"""The chart widget: what it draws, how it moves, and how it asks for its past."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's mouse and keyboard have no annotations.

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.ui.samples import BTC, M1, NOON_MS, minutes, row, series
from ui.candle_update import CandleUpdate
from ui.chart.chart import Chart, HistoryWish
from ui.theme import Theme
from upbit_backbone import CandleSeries, Timeframe
from upbit_backbone.clock import MINUTE_MS

Feed = Callable[[CandleSeries], None]


def loaded(candles: CandleSeries, request_id: UUID | None = None) -> CandleUpdate:
    return CandleUpdate(BTC, M1, candles, "loaded", request_id or uuid4())


def live(candles: CandleSeries) -> CandleUpdate:
    return CandleUpdate(BTC, M1, candles, "live", None)


@pytest.fixture
def chart(qtbot: QtBot, theme: Theme) -> Chart:
    """An empty chart of KRW-BTC on the screen."""
    found = Chart(theme)
    qtbot.addWidget(found)
    found.resize(800, 500)
    found.open(BTC, "비트코인 KRW-BTC · 1분", M1)
    found.show()
    qtbot.waitExposed(found)
    return found


@pytest.fixture
def wishes(chart: Chart) -> list[HistoryWish]:
    found: list[HistoryWish] = []
    chart.historyWanted.connect(found.append)
    return found


def settle(qtbot: QtBot, chart: Chart) -> None:
    """Wait for the frame that is due, and for its painting."""
    qtbot.waitUntil(lambda: not chart._frame.isActive())
    QApplication.processEvents()


def test_only_the_bars_in_view_are_drawn(chart: Chart, qtbot: QtBot) -> None:
    with qtbot.waitSignal(chart.drawn, timeout=2_000):
        chart.apply(loaded(minutes(0, 5_000)))
    settle(qtbot, chart)
    in_view = chart.viewport.span
    assert in_view - 6 <= chart.panes.bars_painted <= in_view + 2


def test_far_out_no_more_than_one_mark_a_pixel_is_drawn(chart: Chart, qtbot: QtBot) -> None:
    chart.apply(loaded(minutes(0, 20_000)))
    chart.viewport.zoom(1e9, 10_000, 0, 19_999)
    chart.viewport.show_latest(19_999, span=20_000)
    chart._changed()
    settle(qtbot, chart)
    assert 300 < chart.panes.bars_painted <= chart.panes.plot_size[0] + 1


def test_prices_fit_what_is_in_view(chart: Chart, qtbot: QtBot) -> None:
    rows = [row(n, 1_000.0 if n < 100 else 9_000.0) for n in range(400)]
    chart.apply(loaded(series(rows)))
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    assert stage.price.low > 8_000
    chart.viewport.pan(-1e6, 0, 399)
    chart._changed()
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    assert stage.price.high < 2_000


def test_a_live_candle_moves_the_view_along(chart: Chart, qtbot: QtBot) -> None:
    chart.apply(loaded(minutes(0, 200)))
    right = chart.viewport.right
    chart.apply(live(minutes(199, 1, price=1_500.0)))
    assert chart.viewport.right == right
    chart.apply(live(minutes(200, 1)))
    assert chart.viewport.right == right + 1
    assert chart.bars.last == 200


def test_live_candles_before_the_first_load_are_part_of_it(chart: Chart) -> None:
    chart.apply(live(minutes(5, 1)))
    assert len(chart.bars) == 0


def test_candles_of_the_series_left_behind_are_ignored(chart: Chart) -> None:
    chart.apply(loaded(minutes(0, 20)))
    chart.open("KRW-ETH", "이더리움", M1)
    chart.apply(loaded(minutes(20, 20)))
    assert len(chart.bars) == 0
    other = CandleUpdate("KRW-ETH", Timeframe.M3, minutes(0, 3), "loaded", uuid4())
    chart.apply(other)
    assert len(chart.bars) == 0


def test_history_is_asked_for_once_when_its_edge_comes_near(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart.apply(loaded(minutes(0, 400)))
    settle(qtbot, chart)
    assert wishes == []
    chart.viewport.pan(-250, 0, 399)
    chart._changed()
    settle(qtbot, chart)
    assert [(wish.symbol, wish.before_ms) for wish in wishes] == [(BTC, NOON_MS)]
    chart.expect_history(uuid4())
    chart.viewport.pan(-50, 0, 399)
    chart._changed()
    settle(qtbot, chart)
    assert len(wishes) == 1


def test_loaded_history_leaves_the_same_bars_in_view(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart.apply(loaded(minutes(0, 400)))
    chart.viewport.pan(-240, 0, 399)
    chart._changed()
    settle(qtbot, chart)
    assert len(wishes) == 1
    request = uuid4()
    chart.expect_history(request)
    edges = chart.viewport.left, chart.viewport.right
    first_seen = chart.bars.bar(int(edges[0]) + 1)
    chart.apply(loaded(minutes(-400, 400), request))
    assert (chart.viewport.left, chart.viewport.right) == edges
    assert first_seen is not None
    after = chart.bars.bar(int(edges[0]) + 1)
    assert after is not None
    assert after.tolist() == first_seen.tolist()
    assert chart.bars.oldest_ms == NOON_MS - 400 * MINUTE_MS


def test_candles_found_in_a_gap_leave_the_same_bars_in_view(chart: Chart) -> None:
    chart.apply(loaded(series([row(n, 1_000.0) for n in range(600) if not 400 <= n < 450])))
    chart.viewport.pan(-300, chart.bars.first, chart.bars.last)
    seen = chart.bars.bar(int(chart.viewport.right))
    chart.apply(loaded(minutes(400, 50)))
    after = chart.bars.bar(int(chart.viewport.right))
    assert seen is not None
    assert after is not None
    assert after[0] == seen[0]


def test_an_empty_page_is_the_start_of_history(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart.apply(loaded(minutes(0, 30)))
    settle(qtbot, chart)
    request = uuid4()
    chart.expect_history(request)
    chart.apply(loaded(series([]), request))
    settle(qtbot, chart)
    assert len(wishes) == 1
    assert chart._edge_note() == "Start of history"


def test_history_that_failed_is_asked_for_again_after_a_pause(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart._retry.setInterval(60)
    chart.apply(loaded(minutes(0, 30)))
    settle(qtbot, chart)
    request = uuid4()
    chart.expect_history(request)
    chart.request_failed(request)
    settle(qtbot, chart)
    assert len(wishes) == 1
    assert chart._edge_note() == "History could not be loaded"
    qtbot.waitUntil(lambda: len(wishes) == 2, timeout=2_000)


def test_what_cannot_be_loaded_is_said(chart: Chart) -> None:
    assert chart._centre_note() == "Loading candles…"
    chart.request_failed(uuid4())
    assert chart._centre_note() == "The candles could not be loaded"
    chart.apply(loaded(minutes(0, 5)))
    assert chart._centre_note() == ""


def test_however_much_happens_there_is_one_frame(chart: Chart, qtbot: QtBot) -> None:
    chart.apply(loaded(minutes(0, 400)))
    settle(qtbot, chart)
    chart.panes.frame_ms.clear()
    for _ in range(200):
        chart._pan(-0.5)
        chart.apply(live(minutes(399, 1, price=1_001.0)))
    settle(qtbot, chart)
    assert len(chart.panes.frame_ms) <= 2


def test_keys_and_mouse_move_it(chart: Chart, qtbot: QtBot) -> None:
    chart.apply(loaded(minutes(0, 1_000)))
    settle(qtbot, chart)
    right, span = chart.viewport.right, chart.viewport.span
    qtbot.keyClick(chart, Qt.Key.Key_Left)
    assert chart.viewport.right == right - 1
    qtbot.keyClick(chart, Qt.Key.Key_Left, Qt.KeyboardModifier.ControlModifier)
    assert chart.viewport.right == pytest.approx(right - 1 - 0.8 * span)
    qtbot.keyClick(chart, Qt.Key.Key_End)
    assert chart.viewport.right == pytest.approx(right)
    qtbot.keyClick(chart, Qt.Key.Key_Up, Qt.KeyboardModifier.ControlModifier)
    assert chart.viewport.span == pytest.approx(0.8 * span)

    settle(qtbot, chart)
    right = chart.viewport.right
    qtbot.mousePress(chart.panes, Qt.MouseButton.LeftButton, pos=QPoint(300, 200))
    qtbot.mouseMove(chart.panes, QPoint(400, 200))
    stage = chart.panes.stage()
    assert stage is not None
    assert chart.viewport.right == pytest.approx(right - 100 / stage.price.px_per_bar, abs=0.01)
    qtbot.mouseRelease(chart.panes, Qt.MouseButton.LeftButton, pos=QPoint(400, 200))


def test_the_wheel_zooms_at_the_mouse(chart: Chart, qtbot: QtBot) -> None:
    chart.apply(loaded(minutes(0, 1_000)))
    chart.viewport.pan(-300, 0, 999)
    chart._changed()
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    under = stage.price.index(200.0)
    at = QPointF(200, 200)
    QApplication.sendEvent(
        chart.panes,
        QWheelEvent(
            at,
            chart.panes.mapToGlobal(at),
            QPoint(),
            QPoint(0, 120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        ),
    )
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    assert stage.price.index(200.0) == pytest.approx(under)
    assert chart.viewport.span < 140


def test_dragging_the_price_axis_stretches_and_a_double_click_fits_again(
    chart: Chart, qtbot: QtBot
) -> None:
    chart.apply(loaded(minutes(0, 300)))
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    fitted = stage.price.high - stage.price.low
    on_axis = QPoint(int(stage.price_axis.center().x()), 100)
    qtbot.mousePress(chart.panes, Qt.MouseButton.LeftButton, pos=on_axis)
    qtbot.mouseMove(chart.panes, on_axis + QPoint(0, 80))
    qtbot.mouseRelease(chart.panes, Qt.MouseButton.LeftButton, pos=on_axis + QPoint(0, 80))
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    assert stage.price.high - stage.price.low > fitted * 1.3
    qtbot.mouseDClick(chart.panes, Qt.MouseButton.LeftButton, pos=on_axis)
    settle(qtbot, chart)
    stage = chart.panes.stage()
    assert stage is not None
    assert stage.price.high - stage.price.low == pytest.approx(fitted)


def test_everything_is_painted_in_every_state(chart: Chart, qtbot: QtBot) -> None:
    """Nothing of the overlay may fail: pointer over each pane, stale, simulated, no bars."""
    chart.set_origin(simulated=True, stale=True)
    for candles in (None, series([row(0, 1.0), row(9, 1.0)]), minutes(20, 300)):
        if candles is not None:
            chart.apply(loaded(candles))
        for at in (QPoint(200, 100), QPoint(200, 440), QPoint(780, 100), QPoint(5, 495)):
            qtbot.mouseMove(chart.panes, at)
            settle(qtbot, chart)
            assert not chart.grab().toImage().isNull()
