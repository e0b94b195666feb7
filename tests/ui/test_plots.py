"""The monitor's plots: what they remember, what they show, and when pyqtgraph is loaded."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from tests.manual_clock import ManualClock
from tests.ui.samples import NOON_MS, metrics
from ui.monitor.panel import MonitorPanel
from ui.monitor.record import KEPT_S, Record
from ui.theme import Theme

ROOT = Path(__file__).resolve().parents[2]


def test_the_program_starts_without_pyqtgraph() -> None:
    script = "import sys, ui.app; sys.exit('pyqtgraph' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0


def test_a_record_keeps_five_minutes() -> None:
    record = Record()
    assert record.columns().shape == (3, 0)
    for second in range(400):
        record.add(1_000.0 + second, float(second % 100), 2.0)
    times_s, load, lag_ms = record.columns()
    assert (times_s[0], times_s[-1]) == (1_399.0 - KEPT_S, 1_399.0)
    assert (load[-1], lag_ms[-1]) == (99.0, 2.0)


def test_a_clock_put_back_begins_anew() -> None:
    record = Record()
    record.add(1_000.0, 1.0, 1.0)
    record.add(900.0, 2.0, 2.0)
    assert record.columns()[0].tolist() == [900.0]


@pytest.fixture
def panel(theme: Theme, qtbot: QtBot) -> MonitorPanel:
    """The monitor after three minutes, the plots of which have just come."""
    clock = ManualClock(NOON_MS)
    found = MonitorPanel(theme, clock)
    qtbot.addWidget(found)
    for _ in range(180):
        clock.advance(1.0)
        found.set_metrics(metrics())
    found.show()
    qtbot.waitExposed(found)
    found.plots_button.click()
    return found


def test_what_was_before_the_plots_is_drawn_too(panel: MonitorPanel) -> None:
    from ui.monitor.history import HistoryPlot

    assert panel.sizeHint().height() < 200
    for plot, value in zip(panel.findChildren(HistoryPlot), (75.0, 2.5), strict=True):
        times_s, values = plot._line.getOriginalDataset()
        assert len(times_s) == 180
        assert set(values) == {value}
        (left, right), _ = plot.viewRange()
        assert right == times_s[-1]
        assert right - left == KEPT_S


def test_plots_are_drawn_every_five_seconds(panel: MonitorPanel) -> None:
    plot = panel._load_plot
    clock = panel._clock
    assert plot is not None
    assert isinstance(clock, ManualClock)
    drawn = []
    for _ in range(11):
        clock.advance(1.0)
        panel.set_metrics(metrics())
        drawn.append(len(plot._line.getOriginalDataset()[0]))
    assert drawn == [180] * 4 + [185] * 5 + [190] * 2


def test_the_scale_of_the_lag_holds_all_of_it(panel: MonitorPanel) -> None:
    plot = panel._lag_plot
    assert plot is not None
    times_s = np.array([0.0, 1.0, 2.0])
    for highest, top in ((0.4, 10.0), (10.0, 10.0), (31.0, 50.0), (9_000.0, 9_000.0)):
        plot.show_values(times_s, np.array([0.1, highest, 0.2]))
        assert plot.viewRange()[1][1] == pytest.approx(top * 1.04)


def test_times_are_korean_full_minutes_with_room_for_each(panel: MonitorPanel) -> None:
    from ui.monitor.history import KoreanTimeAxis

    axis = KoreanTimeAxis("bottom")
    start_s = NOON_MS / 1_000 + 12.5
    for width, labels in (
        (250.0, ["21:01", "21:02", "21:03", "21:04", "21:05"]),
        (130.0, ["21:02", "21:04"]),
        (0.0, []),
    ):
        ((step, values),) = axis.tickValues(start_s, start_s + KEPT_S, width)
        assert axis.tickStrings(values, 1.0, step) == labels


def test_a_plot_takes_no_mouse_no_focus_and_has_no_menu(panel: MonitorPanel) -> None:
    plot = panel._load_plot
    assert plot is not None
    assert plot.testAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
    assert plot.focusPolicy() is Qt.FocusPolicy.NoFocus
    assert plot.getViewBox().state["mouseEnabled"] == [False, False]
    assert not plot.getViewBox().menuEnabled()
    assert plot._line.opts["pen"].width() == 1
    assert plot._line.opts["clipToView"]
    assert not plot._line.opts["antialias"]


def test_without_pyqtgraph_there_is_one_line_in_the_log(
    theme: Theme,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delitem(sys.modules, "ui.monitor.history", raising=False)
    monkeypatch.setitem(sys.modules, "pyqtgraph", None)
    panel = MonitorPanel(theme, ManualClock(NOON_MS))
    qtbot.addWidget(panel)
    panel.show_plots()
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "no plots in the monitor" in lines[0].getMessage()
    panel.set_metrics(metrics())
