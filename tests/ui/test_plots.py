"""The monitor's plots: what they remember, what they show, and how often they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.manual_clock import ManualClock
from tests.ui.samples import NOON_MS, metrics
from ui.monitor.history import HistoryPlot, LoadPlot
from ui.monitor.panel import COUNTS, OVERVIEW, MonitorPanel
from ui.monitor.record import KEPT_S, Record
from ui.theme import Theme


def test_a_record_keeps_five_minutes() -> None:
    record = Record()
    assert record.columns().shape == (3, 0)
    for second in range(2_500):
        record.add(1_000.0 + second, float(second % 100), 2.0)
    times_s, load, lag_ms = record.columns()
    assert (times_s[0], times_s[-1]) == (3_499.0 - KEPT_S, 3_499.0)
    assert len(times_s) == len(record) == KEPT_S + 1
    assert (load[-1], lag_ms[-1]) == (99.0, 2.0)


def test_a_clock_put_back_begins_anew_and_spoils_nothing_that_was_given_out() -> None:
    record = Record()
    record.add(1_000.0, 1.0, 1.0)
    given = record.columns()
    record.add(900.0, 2.0, 2.0)
    assert record.columns()[0].tolist() == [900.0]
    assert given.tolist() == [[1_000.0], [1.0], [1.0]]


@pytest.fixture
def panel(theme: Theme, qtbot: QtBot) -> MonitorPanel:
    """The monitor after three minutes that nobody saw."""
    clock = ManualClock(NOON_MS)
    found = MonitorPanel(theme, clock)
    qtbot.addWidget(found)
    found.resize(1_280, 170)
    for _ in range(180):
        clock.advance(1.0)
        found.set_metrics(metrics())
    found.show()
    qtbot.waitExposed(found)
    return found


def test_what_was_before_somebody_looked_is_drawn_too(panel: MonitorPanel) -> None:
    assert panel.sizeHint().height() < 200
    for plot, value in ((panel.load_plot, 75.0), (panel.lag_plot, 2.5)):
        assert len(plot.times_s) == 180
        assert set(plot.values) == {value}


def test_plots_are_drawn_every_four_seconds_while_they_are_seen(panel: MonitorPanel) -> None:
    clock = panel._clock
    assert isinstance(clock, ManualClock)

    def drawn(seconds: int) -> list[int]:
        lengths = []
        for _ in range(seconds):
            clock.advance(1.0)
            panel.set_metrics(metrics())
            lengths.append(len(panel.load_plot.times_s))
        return lengths

    assert drawn(9) == [180] * 3 + [184] * 4 + [188] * 2
    panel.open_page(COUNTS)
    before = len(panel.load_plot.times_s)
    assert set(drawn(9)) == {before}
    panel.open_page(OVERVIEW)
    assert len(panel.load_plot.times_s) == 198


def test_the_scale_of_the_lag_holds_all_of_it(panel: MonitorPanel) -> None:
    times_s = np.array([0.0, 1.0, 2.0])
    for highest, top in ((0.4, 10.0), (10.0, 10.0), (31.0, 50.0), (9_000.0, 9_000.0)):
        panel.lag_plot.show_values(times_s, np.array([0.1, highest, 0.2]))
        assert panel.lag_plot.top == top


def test_times_are_korean_full_minutes_with_room_for_each(panel: MonitorPanel) -> None:
    plot = panel.lag_plot
    end_s = NOON_MS / 1_000 + 12.5 + KEPT_S
    plot.show_values(np.array([end_s]), np.array([1.0]))
    for width, labels in (
        (300, ["21:01", "21:02", "21:03", "21:04", "21:05"]),
        (150, ["21:02", "21:04"]),
        (40, []),
    ):
        plot.resize(width, 57)
        assert [label for _, label in plot.full_minutes(40.0)] == labels


def columns_of(plot: HistoryPlot, colour: str) -> dict[int, list[int]]:
    """Which rows of each column of pixels have this colour."""
    picture, ink = plot.grab().toImage(), QColor(colour).rgb()
    found = {
        x: [y for y in range(picture.height()) if picture.pixel(x, y) == ink]
        for x in range(picture.width())
    }
    return {x: rows for x, rows in found.items() if rows}


def test_the_newest_sample_stands_at_the_right_edge_and_the_line_is_one_pixel_thick(
    theme: Theme, qtbot: QtBot
) -> None:
    plot = LoadPlot(theme)
    qtbot.addWidget(plot)
    plot.resize(334, 60)
    times_s = NOON_MS / 1_000 + np.arange(150.0)
    plot.show_values(times_s, np.where(times_s < times_s[-1], 50.0, 100.0))
    drawn = columns_of(plot, theme.accent)
    assert max(drawn) == 333
    assert min(drawn) == pytest.approx(333 - 149, abs=1)
    assert {len(rows) for x, rows in drawn.items() if x < 332} == {1}
    assert min(drawn[333]) < drawn[200][0], "the load has risen"


def test_a_plot_without_samples_is_an_empty_one(theme: Theme, qtbot: QtBot) -> None:
    plot = LoadPlot(theme)
    qtbot.addWidget(plot)
    plot.resize(200, 60)
    plot.show()
    QApplication.processEvents()
    assert columns_of(plot, theme.accent) == {}
