"""The chart widget: what it draws, how it moves, and how it asks for its past."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's mouse and keyboard have no annotations.

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QPainter, QWheelEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.ui.samples import BTC, M1, NOON_MS, minutes, row, series
from ui.candle_update import CandleUpdate
from ui.chart.chart import Chart, HistoryWish
from ui.chart.overlay import legend_lines
from ui.language import Translations
from ui.moments import moment_label
from ui.theme import Theme
from upbit_backbone import CandleSeries, Timeframe
from upbit_backbone.clock import MINUTE_MS, SECOND_MS

Feed = Callable[[CandleSeries], None]


def loaded(
    candles: CandleSeries, request_id: UUID | None = None, *, more_follows: bool = False
) -> CandleUpdate:
    return CandleUpdate(BTC, M1, candles, "loaded", request_id or uuid4(), more_follows)


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


def test_the_rest_of_the_first_load_is_not_asked_for_and_moves_nothing(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart.viewport.span = 500.0
    request = uuid4()
    chart.apply(loaded(minutes(200, 200), request, more_follows=True))
    settle(qtbot, chart)
    edges = chart.viewport.left, chart.viewport.right
    assert chart.viewport.span == 500.0, "too few to fill it only for a moment"
    assert wishes == []
    assert chart._edge_note() == "◌ Loading history…"
    chart.apply(live(minutes(399, 1, price=1_001.0)))
    chart.apply(loaded(minutes(0, 200), request))
    assert (chart.viewport.left, chart.viewport.right) == edges
    assert [bar[0] for bar in chart.bars.rows(-1_000, 1_000).T] == sorted(
        NOON_MS + n * MINUTE_MS for n in range(400)
    )
    settle(qtbot, chart)
    assert [wish.before_ms for wish in wishes] == [NOON_MS], "now there is room for more"


def test_a_rest_that_failed_is_asked_for_as_history(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart._retry.setInterval(60)
    request = uuid4()
    chart.apply(loaded(minutes(0, 200), request, more_follows=True))
    settle(qtbot, chart)
    chart.request_failed(request)
    settle(qtbot, chart)
    assert len(chart.bars) == 200
    assert chart._edge_note() == "History could not be loaded"
    qtbot.waitUntil(lambda: len(wishes) == 1, timeout=2_000)


def test_history_in_parts_is_one_wish(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart.apply(loaded(minutes(0, 100)))
    settle(qtbot, chart)
    request = uuid4()
    chart.expect_history(request)
    chart.apply(loaded(minutes(-10, 10), request, more_follows=True))
    settle(qtbot, chart)
    assert len(wishes) == 1
    chart.apply(loaded(minutes(-20, 10), request))
    settle(qtbot, chart)
    assert len(wishes) == 2


def test_a_wide_view_asks_for_as_much_history_as_it_lacks(
    chart: Chart, wishes: list[HistoryWish], qtbot: QtBot
) -> None:
    chart.apply(loaded(minutes(0, 400)))
    for span, count in ((600.0, 496), (40_000.0, 1_000)):
        chart.viewport.show_latest(399, span=span)
        chart._changed()
        settle(qtbot, chart)
        assert wishes[-1].count == pytest.approx(count, abs=5)
        chart.request_failed(uuid4())
        chart._history_open = False


def test_no_picture_mixes_candles_with_the_words_that_there_are_none(
    chart: Chart, qtbot: QtBot
) -> None:
    settle(qtbot, chart)
    chart.apply(loaded(minutes(0, 400)))
    chart.panes.grab()  # painted before the next frame, as when another window uncovers it
    assert chart.panes.bars_painted == 0


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
    frames_ms: list[float] = []
    chart.panes.painted.connect(frames_ms.append)
    for _ in range(200):
        chart._pan(-0.5)
        chart.apply(live(minutes(399, 1, price=1_001.0)))
    settle(qtbot, chart)
    assert 1 <= len(frames_ms) <= 2


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


def test_few_candles_fill_the_view_and_the_next_series_has_the_usual_one(
    chart: Chart, qtbot: QtBot
) -> None:
    usual = chart.viewport.span
    chart.apply(loaded(minutes(0, 10)))
    settle(qtbot, chart)
    assert chart.viewport.span < 20
    assert chart.viewport.left <= 0
    chart.open("KRW-ETH", "이더리움", M1)
    assert chart.viewport.span == usual


def test_labels_of_the_time_axis_never_overlap(chart: Chart, qtbot: QtBot) -> None:
    drawn: list[tuple[float, float]] = []
    for labels in (chart.panes._axes._plain, chart.panes._axes._bold):
        draw = labels.draw

        def note(
            painter: QPainter,
            left: float,
            top: float,
            text: str,
            ink: QColor,
            draw: Callable[..., float] = draw,
        ) -> float:
            wide = draw(painter, left, top, text, ink)
            if ":" in text or "(" in text:
                drawn.append((left, left + wide))
            return wide

        labels.draw = note  # type: ignore[method-assign]
    seconds = CandleSeries.from_rows(
        BTC,
        Timeframe.S1,
        # A pause after every twelve seconds with trades: labels as near as they are allowed.
        [(NOON_MS + (n + n // 12 * 50) * SECOND_MS, *row(n, 1_000.0)[1:]) for n in range(600)],
        closed_before_ms=None,
        source="rest",
        simulated=True,
    )
    chart.open(BTC, "비트코인 KRW-BTC · 1초", Timeframe.S1)
    chart.apply(CandleUpdate(BTC, Timeframe.S1, seconds, "loaded", uuid4()))
    for step in range(60):
        chart.viewport.pan(-0.5, 0, 599)
        chart._changed()
        drawn.clear()
        settle(qtbot, chart)
        spans = sorted(drawn)
        assert len(spans) > 5
        assert all(end < start for (_, end), (start, _) in pairwise(spans)), (step, spans)


def test_a_button_leads_back_to_the_newest_candle(chart: Chart, qtbot: QtBot) -> None:
    assert not chart.latest_button.isVisible()
    chart.apply(loaded(minutes(0, 1_000)))
    settle(qtbot, chart)
    assert not chart.latest_button.isVisible()
    qtbot.keyClick(chart, Qt.Key.Key_Left, Qt.KeyboardModifier.ControlModifier)
    settle(qtbot, chart)
    assert chart.latest_button.isVisible()
    stage = chart.panes.stage()
    assert stage is not None
    assert stage.price.box.toRect().contains(chart.latest_button.geometry())
    qtbot.mouseClick(chart.latest_button, Qt.MouseButton.LeftButton)
    settle(qtbot, chart)
    assert chart.viewport.following
    assert not chart.latest_button.isVisible()


def test_prices_on_the_axis_are_on_the_markets_tick(chart: Chart, qtbot: QtBot) -> None:
    candles = [(row(n, 1.0)[0], 12.0, 12.9, 11.2, 12.1, 2.0, 2.0) for n in range(100)]
    chart.apply(loaded(series(candles)))
    for height in range(300, 700, 40):
        chart.resize(800, height)
        settle(qtbot, chart)
        picture = chart.panes._picture
        assert picture is not None
        assert len(picture.price_ticks) > 1
        assert all(len(label.partition(".")[2]) == 1 for label in picture.price_labels)


def test_the_volume_axis_has_round_figures(chart: Chart, qtbot: QtBot) -> None:
    candles = [(*row(n, 1_000.0)[:5], 1.303 * (n + 1), 1.0) for n in range(100)]
    chart.apply(loaded(series(candles)))
    settle(qtbot, chart)
    picture = chart.panes._picture
    assert picture is not None
    assert [label for _, label in picture.volume_ticks] == ["100"]


def test_the_legend_says_against_what_a_change_is(
    chart: Chart, translations: Translations, qtbot: QtBot
) -> None:
    translations.use("ko")
    QApplication.processEvents()
    chart.apply(loaded(series([row(0, 1_000.0), row(1, 990.0, to=1_000.0)])))
    settle(qtbot, chart)
    picture = chart.panes._picture
    assert picture is not None
    texts = [
        text
        for _, text, _ in chart.panes._overlay._figures(
            picture, chart.bars.rows(1, 2)[:, 0], chart.bars.bar(0)
        )
    ]
    assert texts[8:10] == ["   전봉 대비 ", "0.00%"]


@pytest.mark.parametrize("room", [2_000.0, 700.0, 480.0, 300.0])
def test_the_legend_is_whole_in_as_many_lines_as_it_needs(
    chart: Chart, qtbot: QtBot, room: float
) -> None:
    overlay, ink = chart.panes._overlay, QColor("white")
    pieces = [(overlay._bold, "비트코인 KRW-BTC · 1분", ink)]
    for name in ("시", "고", "저", "종", "전봉 대비", "거래량"):
        pieces += [(overlay._plain, f"   {name} ", ink), (overlay._plain, "157,305,000", ink)]
    lines = legend_lines(pieces, room)
    texts = [text for line in lines for _, text, _ in line]
    assert "".join(texts).replace(" ", "") == "".join(t for _, t, _ in pieces).replace(" ", "")
    widths = [sum(labels.width(text) for labels, text, _ in line) for line in lines]
    assert max(widths) <= room
    assert (len(lines) == 1) == (room > 1_000)
    assert all(not line[0][1].startswith(" ") for line in lines), "the lines are flush"


@pytest.mark.parametrize(
    ("timeframe", "label"),
    [
        (Timeframe.S1, "2025-10-16 (목) 21:00:00"),
        (Timeframe.M1, "2025-10-16 (목) 21:00"),
        (Timeframe.D1, "2025-10-16 (목)"),
        (Timeframe.W1, "2025-10-13 (월)"),
        (Timeframe.MO1, "2025-10"),
        (Timeframe.Y1, "2025"),
    ],
)
def test_a_candle_is_named_by_its_period(
    translations: Translations, timeframe: Timeframe, label: str
) -> None:
    translations.use("ko")
    assert moment_label(timeframe.floor_ms(NOON_MS), timeframe) == label
