"""The monitoring dock: what it says of the service, how it looks for room, and what it costs."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's model tester has no annotations.

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec
import pytest
from PySide6.QtCore import QRect
from PySide6.QtGui import QGuiApplication, QPaintEvent
from PySide6.QtWidgets import QApplication, QToolButton, QVBoxLayout
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from tests.manual_clock import ManualClock
from tests.ui.fake_api import FakeApi
from tests.ui.samples import NOON, NOON_MS, calls, event, figures, metrics, status
from ui.bridge import BackboneBridge
from ui.language import Translations
from ui.monitor import latency, load, queues, traffic
from ui.monitor.event_list import KEPT, EventList
from ui.monitor.figure_grid import Cell, Column, FigureGrid
from ui.monitor.layers import layer_rows
from ui.monitor.panel import CALLS, COUNTS, EVENTS, LOAD, OVERVIEW, MonitorPanel
from ui.monitor.sections import Sections
from ui.monitor.verdict import verdict
from ui.monitor.words import count, count_name, milliseconds, rate, size
from ui.theme import Theme
from upbit_backbone import MarketDataAPI, PerformanceMetrics, Priority, SystemStatus
from upbit_backbone.protocol import (
    Alert,
    CallStats,
    DataType,
    Health,
    LoadBand,
    SelfAudit,
    SystemEvent,
    SystemHealth,
)
from upbit_backbone.telemetry.alerts import LARGE, Alerts
from upbit_backbone.telemetry.calls import COUNTED
from upbit_backbone.telemetry.events import EventLog

SLOW = Alert("slow CRITICAL", NOON, "p99 of CRITICAL calls is 63 ms, promised are 50 ms")
DAY_MS = 86_400_000


def with_layer(health: Health, reason: str, layer: str = "layer_2") -> SystemStatus:
    """All is live, but for one layer."""
    live = status()
    changed = msgspec.structs.replace(live.health.layers[layer], health=health, reason=reason)
    layers = live.health.layers | {layer: changed}
    return msgspec.structs.replace(live, health=SystemHealth(health, layers))


@pytest.fixture
def panel(theme: Theme, qtbot: QtBot) -> MonitorPanel:
    """The monitor as it lies below the chart of a window of 1280 pixels."""
    found = MonitorPanel(theme, ManualClock(NOON_MS))
    qtbot.addWidget(found)
    found.resize(1280, 170)
    found.show()
    qtbot.waitExposed(found)
    return found


# What a glance tells


@pytest.mark.parametrize(
    ("told", "figure", "health", "text"),
    [
        (None, None, "starting", "Starting"),
        (status(), None, "healthy", "All is well"),
        (status(), figures(), "healthy", "All is well"),
        (
            status(),
            figures(load=78, band="low waits"),
            "healthy",
            "All is well; LOW waits for the load",
        ),
        (
            status(),
            figures(load=95, band="critical only", alerts=[SLOW]),
            "degraded",
            "Overloaded: only CRITICAL runs",
        ),
        (status(), figures(alerts=[SLOW]), "degraded", "Alert: CRITICAL is slower than promised"),
        (with_layer("starting", ""), figures(), "starting", "2 Storage: starting"),
        (with_layer("degraded", "disk full"), figures(), "degraded", "2 Storage: degraded"),
        (
            with_layer("down", "not running"),
            figures(alerts=[SLOW]),
            "down",
            "2 Storage: down",
        ),
        (status("offline"), figures(), "down", "The exchange is not reached"),
    ],
)
def test_a_glance_tells_the_gravest(
    theme: Theme,
    told: SystemStatus | None,
    figure: PerformanceMetrics | None,
    health: Health,
    text: str,
) -> None:
    found = verdict(told, figure)
    assert (found.health, found.text) == (health, text)


def test_a_stream_that_is_away_is_told_even_if_no_layer_complains(theme: Theme) -> None:
    away = msgspec.structs.replace(status(), connection="polling", reason="the stream is away")
    found = verdict(away, figures())
    assert found == ("degraded", "No live stream: polled by REST", "the stream is away")


def test_a_load_that_is_felt_has_its_reason_said(theme: Theme) -> None:
    assert verdict(status(), figures(load=40.0)).details == ""
    busy = verdict(status(), figures(load=41.0))
    assert (busy.health, busy.details) == ("healthy", "the event loop is 17 ms late (p95)")
    waiting = verdict(status(), figures(load=78.0, band="low waits"))
    assert waiting.details == "the event loop is 17 ms late (p95)"


def test_the_reason_stands_beside_the_verdict(panel: MonitorPanel) -> None:
    panel.set_status(with_layer("down", "the file cannot be written: disk full"))
    assert panel._verdict.texts == [("", "2 Storage: down")]
    assert panel._verdict.rows[0][0].light == "down"
    assert panel._verdict.rows[0][1].ink == "bad"
    assert panel._reason.texts == [("the file cannot be written: disk full",)]
    panel.set_status(status())
    assert panel._verdict.texts == [("", "All is well")]
    assert panel._reason.texts == [("",)]


# Promises


def row_of(rows: Sequence[Sequence[Cell]], name: str) -> Sequence[Cell]:
    return next(row for row in rows if row[0].text == name)


def alerted(name: str) -> Alert:
    return Alert(name, NOON, f"of {name}")


def priorities(*kinds: CallStats, alerts: Sequence[str] = ()) -> list[list[Cell]]:
    told = figures(kinds=kinds, alerts=[alerted(name) for name in alerts])
    return latency.priority_rows(told, told.windows["5m"])


def test_a_promise_that_is_kept_stands_quietly_beside_the_figures(theme: Theme) -> None:
    rows = priorities(calls(Priority.CRITICAL, DataType.TICKER, "direct: api → router", 50, 40.0))
    row = row_of(rows, "CRITICAL")
    assert [cell.text for cell in row] == ["CRITICAL", "10.0", "20.0", "40.0", "48.0", "≤ 50", "50"]
    assert (row[3].ink, row[5].ink) == ("text", "dim")
    assert [cell.text for cell in row_of(rows, "LOW")][1:] == ["–", "–", "–", "–", "–", "0"]


def test_a_broken_promise_is_red_and_named(theme: Theme) -> None:
    kind = calls(Priority.CRITICAL, DataType.TICKER, "direct: api → router", 100, 63.0)
    row = row_of(priorities(kind, alerts=["slow CRITICAL"]), "CRITICAL")
    assert (row[3].text, row[3].ink) == ("63.0", "bad")
    assert (row[5].text, row[5].ink) == ("> 50", "bad")
    assert row[3].tip == "ticker by direct: api → router: p99 63.0 ms, promised are 50 ms"
    assert row[1].ink == row[2].ink == row[4].ink == "text"


def test_a_few_slow_calls_break_no_promise_and_are_pale(theme: Theme) -> None:
    kind = calls(Priority.CRITICAL, DataType.TICKER, "direct: api → router", 19, 63.0)
    row = row_of(priorities(kind), "CRITICAL")
    assert (row[3].ink, row[5].ink) == ("faint", "dim")
    assert "too few samples" in row[3].tip
    alone = calls(Priority.CRITICAL, DataType.TICKER, "direct: api → router", 99, 63.0)
    row = row_of(priorities(alone), "CRITICAL")
    assert (row[3].ink, row[5].text, row[5].ink) == ("text", "kept", "dim")


def test_what_must_be_asked_of_the_exchange_breaks_no_promise_to_high(theme: Theme) -> None:
    cold = calls(Priority.HIGH, DataType.TICKER, "direct: api → coordinator → router", 50, 900.0)
    row = row_of(priorities(cold), "HIGH")
    assert (row[3].text, row[3].ink) == ("900", "text")
    assert (row[5].text, row[5].ink) == ("kept", "dim")
    assert "need not be asked" in row[5].tip


def test_memory_that_is_slow_breaks_the_promise_to_critical(theme: Theme) -> None:
    peek = calls(Priority.CRITICAL, DataType.TICKER, "peek", 50, 3.0)
    row = row_of(priorities(peek, alerts=["slow CRITICAL"]), "CRITICAL")
    assert (row[5].text, row[5].ink) == ("broken", "bad")
    assert (row[3].text, row[3].ink) == ("3.00", "text"), "of all calls; it is below its promise"
    told = figures(kinds=[peek], alerts=[alerted("slow CRITICAL")])
    (_, detailed) = latency.kind_rows(told, told.windows["5m"])
    assert [cell.text for cell in detailed][:3] == ["CRITICAL", "ticker", "memory"]
    assert (detailed[7].text, detailed[7].ink) == ("> 1", "bad")


def test_each_kind_of_calls_has_its_row(theme: Theme) -> None:
    kinds = [
        calls(Priority.HIGH, DataType.ORDERBOOK, "peek", 300, 0.5),
        calls(Priority.LOW, DataType.CANDLE, "bus: api → storage", 30, 800.0),
    ]
    told = figures(kinds=kinds)
    rows = latency.kind_rows(told, told.windows["5m"])
    assert [[cell.text for cell in row] for row in rows[1:]] == [
        [
            "HIGH",
            "order book",
            "memory",
            "0.12",
            "0.25",
            "0.50",
            "0.60",
            "≤ 100",
            "1.0",
            "0.0%",
            "300",
        ],
        [
            "LOW",
            "candles",
            "bus: api → storage",
            "200",
            "400",
            "800",
            "960",
            "–",
            "0.10",
            "0.0%",
            "30",
        ],
    ]
    assert len({len(row) for row in rows}) == 1


def test_how_much_was_asked_of_the_exchange_is_said_in_the_language(
    translations: Translations,
) -> None:
    translations.use("ko")
    assert latency.path_word("bus: api → router, 3 to 5 pages") == "bus: api → router, 3~5페이지"
    assert latency.path_word("bus: api → storage") == "bus: api → storage"
    long = "in stretches: api → coordinator → storage"
    assert latency.path_word(long) == "나누어 받기: api → coordinator → storage"
    assert latency.path_word("direct, without the bus: api → storage, more than 5 pages") == (
        "direct, 버스 없이: api → storage, 5페이지 초과"
    )
    assert latency.path_word("other") == "기타 경로"


def test_that_calls_are_sampled_is_said(theme: Theme) -> None:
    told = figures(measured=0.4)
    rows = latency.kind_rows(told, told.windows["5m"])
    assert rows[-1][2].text == "so many calls that 40% of them are measured"
    told = figures()
    assert len(latency.kind_rows(told, told.windows["5m"])) == 1


def test_a_service_without_windows_shows_its_five_minutes(theme: Theme) -> None:
    row = row_of(latency.priority_rows(metrics(), None), "NORMAL")
    assert [cell.text for cell in row][1:5] == ["1.50", "20.0", "80.0", "90.0"]
    assert traffic.glance(metrics(), None)[0][5].text == "1"


def failing(call: CallStats, error_rate: float) -> CallStats:
    asked = call.latency.count
    return msgspec.structs.replace(call, error_rate=error_rate, requests=asked)


ROUTER = "direct: api → router"


@pytest.mark.parametrize(
    ("kind", "red"),
    [
        (calls(Priority.CRITICAL, DataType.TICKER, ROUTER, 100, 63.0), True),
        (calls(Priority.CRITICAL, DataType.TICKER, ROUTER, 99, 63.0), False),
        (calls(Priority.CRITICAL, DataType.TICKER, ROUTER, 20, 120.0), True),
        (calls(Priority.CRITICAL, DataType.TICKER, ROUTER, 19, 900.0), False),
        (calls(Priority.CRITICAL, DataType.TICKER, "peek", 5_000, 1.1), True),
        (calls(Priority.CRITICAL, DataType.TICKER, "peek", 5_000, 0.004), False),
        (calls(Priority.HIGH, DataType.TICKER, ROUTER, 500, 900.0), False),
        (calls(Priority.NORMAL, DataType.CANDLE, f"bus: api → router{LARGE}", 500, 900.0), False),
        (calls(Priority.NORMAL, DataType.CANDLE, f"bus: api → router{LARGE}", 500, 1_900.0), True),
        (calls(Priority.LOW, DataType.CANDLE, "bus: api → router", 500, 9_000.0), False),
        (failing(calls(Priority.HIGH, DataType.TICKER, ROUTER, 200, 1.0), 0.06), True),
        (failing(calls(Priority.HIGH, DataType.TICKER, ROUTER, 200, 1.0), 0.05), False),
        (failing(calls(Priority.HIGH, DataType.TICKER, ROUTER, 19, 1.0), 0.9), False),
        (failing(calls(Priority.LOW, DataType.CANDLE, ROUTER, 200, 1.0), 0.9), False),
    ],
)
def test_a_red_figure_and_all_is_well_are_never_seen_together(
    theme: Theme, kind: CallStats, red: bool
) -> None:
    clock = ManualClock(NOON_MS)
    alerts = Alerts(EventLog(clock), clock)
    for now, lasts in ((0.0, False), (40.0, red)):
        alerts.observe_calls([kind], now)
        told = figures(kinds=[kind], alerts=alerts.active)
        stats = msgspec.structs.replace(told.windows["5m"], error_rate=kind.error_rate)
        shown = [
            *latency.priority_rows(told, stats),
            *latency.kind_rows(told, stats),
            *traffic.glance(told, stats),
            *traffic.call_rows(told, stats),
        ]
        inks = {cell.ink for row in shown for cell in row}
        assert ("bad" in inks, verdict(status(), told).health) == (
            lasts,
            "degraded" if lasts else "healthy",
        )
        assert not any(cell.text == "0.00" and cell.ink == "bad" for row in shown for cell in row)


@pytest.mark.parametrize(
    ("error_rate", "alerts", "text", "ink"),
    [
        (0.0, [], "0.0%", "text"),
        (0.0004, ["errors HIGH"], "0.0%", "text"),
        (0.004, ["errors HIGH"], "0.4%", "warning"),
        (0.05, ["errors HIGH"], "5.0%", "warning"),
        (0.06, ["slow HIGH"], "6.0%", "warning"),
        (0.06, ["errors HIGH"], "6.0%", "bad"),
    ],
)
def test_a_share_of_errors_has_the_same_colour_on_every_page(
    theme: Theme, error_rate: float, alerts: list[str], text: str, ink: str
) -> None:
    kind = failing(calls(Priority.HIGH, DataType.TICKER, ROUTER, 200, 1.0), error_rate)
    told = figures(kinds=[kind], alerts=[alerted(name) for name in alerts])
    stats = msgspec.structs.replace(told.windows["5m"], error_rate=error_rate)
    cells = (
        traffic.glance(told, stats)[0][5],
        traffic.call_rows(told, stats)[1][1],
        latency.kind_rows(told, stats)[1][9],
    )
    assert [(cell.text, cell.ink) for cell in cells] == [(text, ink)] * 3


# Load and LOW


def test_every_reason_for_load_has_its_place_and_the_worst_stands_out(theme: Theme) -> None:
    told = figures(load=93.0)
    rows = load.term_rows(told)
    assert [[cell.text for cell in row] for row in rows] == [
        ["Event loop", "93", "CRITICAL waits", "0"],
        ["Memory", "46", "HIGH waits", "0"],
        ["Processor", "31", "NORMAL waits", "0"],
    ]
    assert rows[0][0].tip == rows[0][1].tip == "the event loop is 17 ms late (p95)"
    assert (rows[0][0].ink, rows[0][1].ink) == ("text", "bad")
    assert (rows[1][0].ink, rows[1][1].ink) == ("dim", "text")
    turned = msgspec.structs.replace(told, load_terms=told.load_terms[::-1])
    assert load.term_rows(turned) == rows, "nothing jumps when another reason is the worst"


def test_the_load_page_says_every_reason_and_whom_it_holds_back(theme: Theme) -> None:
    rows = load.reason_rows(figures(load=93.0, band="critical only"))
    assert [cell.text for cell in rows[0]] == ["Load", "93", "all but CRITICAL wait"]
    assert (rows[0][1].ink, rows[0][2].ink) == ("bad", "warning")
    assert [cell.text for cell in rows[1]] == [
        "Event loop",
        "93",
        "the event loop is 17 ms late (p95)",
    ]
    assert [row[0].text for row in rows[2:]] == [
        "Memory",
        "Processor",
        "CRITICAL waits",
        "HIGH waits",
        "NORMAL waits",
    ]


def test_who_waits_works_and_was_refused_is_counted(theme: Theme) -> None:
    counters = {
        "layer_4.normal_waiting": 3.0,
        "layer_4.normal_in_work": 8.0,
        "layer_4.low_waiting": 1_000.0,
        "layer_4.low_in_work": 2.0,
        "layer_4.low_refused": 5.0,
        "layer_4.low_throttles": 1.0,
        "layer_4.bus_failures": 2.0,
        "layer_1.waiting": 4.0,
        "layer_1.refused": 1.0,
        "layer_1.critical_wait_ms": 17.04,
    }
    rows = queues.queue_rows(figures(counters=counters))
    assert [[cell.text for cell in row] for row in rows] == [
        ["Who waits", "waiting", "in work", "refused"],
        ["NORMAL", "3", "8", "0"],
        ["LOW", "1,000", "2", "5"],
        ["Exchange's limit", "4", "", "1"],
        ["CRITICAL waited (ms)", "17.0", "", ""],
        ["Throttles of LOW", "1", "", ""],
        ["Failures of the bus", "2", "", ""],
    ]
    assert (rows[1][3].ink, rows[2][3].ink) == ("faint", "warning")


def test_a_service_that_tells_no_terms_leaves_their_room_empty(theme: Theme) -> None:
    assert load.term_rows(metrics()) == [[Cell()] * 4] * 3


@pytest.mark.parametrize(
    ("band", "pages_per_s", "counters", "text", "ink"),
    [
        ("open", None, {}, "idle, may run", "text"),
        ("open", None, {"layer_4.low_in_work": 2.0}, "runs, 3.5 pages/s", "good"),
        ("low waits", 0.0, {"layer_4.low_in_work": 2.0}, "waits for the load", "warning"),
        ("critical only", 0.0, {}, "waits for the load", "warning"),
        ("open", 4.0, {"layer_4.low_waiting": 1.0}, "resumes, 3.5 of 4.0 pages/s", "text"),
        ("low waits", 0.0, {"layer_4.low_throttles": 1.0}, "paused by a program", "warning"),
    ],
)
def test_lows_state_is_named(
    theme: Theme,
    band: LoadBand,
    pages_per_s: float | None,
    counters: dict[str, float],
    text: str,
    ink: str,
) -> None:
    got = 3.5 if band == "open" and counters else 0.0
    told = figures(
        band=band, low_pages_per_s=pages_per_s, low_got_pages_per_s=got, counters=counters
    )
    cell = load.low_state(told)
    assert (cell.text, cell.ink) == (text, ink)


def test_how_many_low_calls_work_and_wait_is_told(theme: Theme) -> None:
    counters = {"layer_4.low_in_work": 2.0, "layer_4.low_waiting": 1_031.0}
    assert load.low_state(figures(counters=counters)).tip == "2 calls in work, 1,031 waiting"


# Layers, counts and the store


def test_each_layer_says_since_when_and_why(theme: Theme) -> None:
    told = with_layer("degraded", "disk full")
    rows = layer_rows(told, NOON_MS)
    assert [row[1].text for row in rows] == ["4 API", "3 Coordinator", "2 Storage", "1 Routing"]
    assert [cell.text for cell in rows[2]] == ["", "2 Storage", "degraded", "21:00:00", "disk full"]
    assert (rows[2][0].light, rows[2][2].ink) == ("degraded", "warning")
    assert rows[2][3].tip == "since 2025-10-16 21:00:00 KST"
    assert layer_rows(told, NOON_MS + DAY_MS)[2][3].text == "10-16"


def test_what_happened_stands_beside_what_happened_since_the_start(theme: Theme) -> None:
    told = figures()
    rows = traffic.count_rows(told, told.windows["5m"])
    named = {row[at].text: (row[at + 1], row[at + 2]) for row in rows[1:] for at in (0, 3)}
    assert named.keys() == {*map(count_name, COUNTED), ""}, "none is left out"
    assert (named["Given up by callers"][0].text, len(rows)) == ("4", 1 + traffic.COUNT_LINES)
    recent, total = named["Gaps in trades"]
    assert (recent.text, recent.ink, total.text) == ("2", "warning", "7")
    recent, total = named["Too many (429)"]
    assert (recent.text, recent.ink, total.text) == ("0", "faint", "0")
    assert named["Coalesced"][0].ink == "text"


def test_answers_and_errors_are_counted_by_place_and_name(theme: Theme) -> None:
    told = figures()
    tiers = traffic.tier_rows(told, told.windows["5m"])
    assert [[cell.text for cell in row] for row in tiers] == [
        ["Memory", "3,200", "86.4%"],
        ["Disk", "410", "11.1%"],
        ["Exchange", "92", "2.5%"],
        ["Hit rate", "", "97.5%"],
    ]
    rows = traffic.call_rows(told, told.windows["5m"])
    assert [row[0].text.strip() for row in rows][2:4] == ["TransportError", "DeadlineError"]
    assert (rows[1][1].text, rows[1][1].ink) == ("0.4%", "warning")


@pytest.mark.parametrize(
    ("audit", "text", "ink"),
    [
        (None, "–", "faint"),
        (SelfAudit(NOON, 0), "–", "faint"),
        (SelfAudit(NOON, 5, 1_000), "100%", "good"),
        (SelfAudit(NOON, 5, 998, 2), "99.800%", "warning"),
        (SelfAudit(NOON, 5, 9_999_999, 1), "99.999%", "warning"),
    ],
)
def test_the_self_audit_is_never_rounded_up_to_all_right(
    theme: Theme, audit: SelfAudit | None, text: str, ink: str
) -> None:
    counters = {"layer_2.file_bytes": 2.0**30, "layer_2.log_bytes": 2.0**28}
    told = msgspec.structs.replace(figures(audit=audit, counters=counters))
    rows = traffic.store_rows(told)
    assert rows[0][1].text == "1.25 GB"
    assert (rows[3][1].text, rows[3][1].ink) == (text, ink)


def test_figures_are_as_short_as_can_be_read() -> None:
    values = (0.004, 0.42, 9.99, 9.996, 42.0, 99.96, 1_234.5, 12_345.0)
    assert [milliseconds(value) for value in values] == (
        ["0.00", "0.42", "9.99", "10.0", "42.0", "100", "1,234", "12.3s"]
    )
    assert [rate(value) for value in (0, 0.02, 0.999, 3.44, 120.0, 1_250.0, 48_123.0)] == (
        ["0.0", "0.02", "1.0", "3.4", "120", "1.2k", "48k"]
    )
    assert [count(times) for times in (0, 12_345, 99_999, 123_456, 999_999, 18_000_000)] == (
        ["0", "12,345", "99,999", "123k", "1.0M", "18.0M"]
    )
    assert [size(value) for value in (0, 650_000, 2**20, 2**31)] == (
        ["0 KB", "635 KB", "1.0 MB", "2.00 GB"]
    )


# Events


@pytest.fixture
def log(theme: Theme, qtbot: QtBot) -> EventList:
    found = EventList(theme)
    qtbot.addWidget(found)
    return found


def column_of(log: EventList, column: int) -> list[str]:
    model = log.model
    return [model.index(row, column).data() for row in range(model.rowCount())]


def test_the_newest_event_is_on_top(log: EventList, qtmodeltester: ModelTester) -> None:
    log.model.add((event(1), event(2, "warning", "gap")))
    log.model.add((event(3, "error", "health", "layer_2"),))
    assert column_of(log, 4) == ["event 3", "event 2", "event 1"]
    assert column_of(log, 0) == ["21:00:03", "21:00:02", "21:00:01"]
    assert column_of(log, 1) == ["■ error", "▲ warning", "· note"]
    assert column_of(log, 2) == ["2 Storage", "1 Routing", "1 Routing"]
    assert column_of(log, 3) == ["health", "gap", "health"]
    qtmodeltester.check(log.model)


def test_the_filter_hides_what_is_less_grave_and_brings_it_back(log: EventList) -> None:
    log.model.add((event(1), event(2, "warning"), event(3, "error")))
    log.filter.setCurrentIndex(1)
    assert column_of(log, 4) == ["event 3", "event 2"]
    log.model.add((event(4), event(5, "error")))
    assert column_of(log, 4) == ["event 5", "event 3", "event 2"]
    log.filter.setCurrentIndex(2)
    assert column_of(log, 4) == ["event 5", "event 3"]
    log.filter.setCurrentIndex(0)
    assert column_of(log, 4) == [f"event {number}" for number in (5, 4, 3, 2, 1)]


def test_the_oldest_events_go(log: EventList, qtmodeltester: ModelTester) -> None:
    log.model.add(tuple(event(number) for number in range(1, KEPT)))
    log.model.add(tuple(event(number) for number in range(KEPT, KEPT + 6)))
    assert log.model.rowCount() == KEPT
    assert (column_of(log, 4)[0], column_of(log, 4)[-1]) == (f"event {KEPT + 5}", "event 6")
    log.model.add(tuple(event(number) for number in range(5_000, 5_000 + 2 * KEPT)))
    assert log.model.rowCount() == KEPT
    assert column_of(log, 4)[0] == f"event {5_000 + 2 * KEPT - 1}"
    log.filter.setCurrentIndex(1)
    log.filter.setCurrentIndex(0)
    assert log.model.rowCount() == KEPT


def test_events_are_copied_in_the_services_words(log: EventList) -> None:
    log.model.add((event(1), event(2, "warning", "gap"), event(3, "error")))
    log.copy_button.click()
    assert QGuiApplication.clipboard().text().splitlines() == [
        "2025-10-16 12:00:01.000 UTC  info  layer_1  health  event 1",
        "2025-10-16 12:00:02.000 UTC  warning  layer_1  gap  event 2",
        "2025-10-16 12:00:03.000 UTC  error  layer_1  health  event 3",
    ]
    log.table.selectRow(1)
    log.copy_button.click()
    assert QGuiApplication.clipboard().text().endswith("gap  event 2")
    assert "\n" not in QGuiApplication.clipboard().text()


# The panel


def shown_texts(panel: MonitorPanel) -> set[str]:
    grids = panel.findChildren(FigureGrid)
    return {text for grid in grids if grid.isVisible() for row in grid.texts for text in row}


def test_nothing_is_written_while_nobody_sees_it(panel: MonitorPanel) -> None:
    panel.hide()
    panel.set_status(with_layer("down", "disk full"))
    panel.set_metrics(figures(load=42.0))
    assert panel._verdict.texts == [("", "Starting")]
    assert panel._figures.texts == []
    assert len(panel._record) == 1, "the plots show what was before somebody looked"
    panel.show()
    assert {"2 Storage: down", "42", "disk full"} <= shown_texts(panel)


def test_only_the_page_that_is_open_is_written(panel: MonitorPanel) -> None:
    panel.set_status(status())
    panel.set_metrics(figures(load=42.0))
    assert panel._store.texts == []
    panel.open_page(COUNTS)
    assert {"File", "Gaps in trades", "3,200"} <= shown_texts(panel)
    panel.open_page(CALLS)
    assert panel.calls.isVisible()
    panel.set_metrics(figures(kinds=[calls(Priority.HIGH, DataType.TRADE, "peek", 9, 1.0)]))
    assert panel.calls.texts[1][:3] == ("HIGH", "trades", "memory")
    assert panel._terms.texts[0][1] == "42", "of the page that is not open"
    panel.open_page(OVERVIEW)
    assert panel._terms.texts[0][1] == "12"
    assert panel._queues.texts == []
    panel.open_page(LOAD)
    assert {"Exchange's limit", "nobody waits"} <= shown_texts(panel)


def test_the_window_is_chosen(panel: MonitorPanel) -> None:
    told = figures()
    quick = msgspec.structs.replace(told.windows["10s"], requests_per_s=99.0)
    panel.set_metrics(msgspec.structs.replace(told, windows=told.windows | {"10s": quick}))
    assert panel._figures.texts[0][3] == "12.3"
    buttons = {button.text(): button for button in panel.findChildren(QToolButton)}
    buttons["10 s"].click()
    assert panel._figures.texts[0][3] == "99.0"
    assert buttons["10 s"].isChecked()
    assert not buttons["5 min"].isChecked()
    buttons["1 h"].click()
    assert panel._figures.texts[0][3] == "12.3"


def test_every_page_speaks_the_language(
    panel: MonitorPanel, translations: Translations, qtbot: QtBot
) -> None:
    panel.set_status(status())
    panel.set_metrics(figures())
    panel.add_events((event(1, "warning", "gap"),))
    translations.use("ko")
    QApplication.processEvents()
    assert {"모두 정상", "이벤트 루프", "우선순위", "4 API", "정상"} <= shown_texts(panel)
    assert column_of(panel.events, 1) == ["▲ 경고"]
    panel.open_page(COUNTS)
    assert {"체결 공백", "자체 검사", "거래소"} <= shown_texts(panel)
    translations.use("en")
    QApplication.processEvents()
    assert {"Gaps in trades", "Self-audit", "All is well"} <= shown_texts(panel)


def all_have_room(page: Sections) -> bool:
    parts = (part for part, _ in page._parts)
    return all(part.width() >= part.minimumSizeHint().width() for part in parts)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("width", [320, 380, 500, 800, 1_100, 1_280, 1_920])
def test_no_part_is_cut_or_covered_at_any_width(
    panel: MonitorPanel, translations: Translations, language: str, width: int, qtbot: QtBot
) -> None:
    translations.use("ko" if language == "ko" else "en")
    panel.set_status(status())
    panel.set_metrics(figures())
    panel.resize(width, 170)
    QApplication.processEvents()
    panel.resize(width, panel.minimumSizeHint().height())
    QApplication.processEvents()
    for button in panel.findChildren(QToolButton):
        if button.isVisible():
            assert button.width() >= button.sizeHint().width(), button.text()
            box = QRect(button.mapTo(panel, button.rect().topLeft()), button.size())
            assert panel.rect().contains(box)
    pages = ((OVERVIEW, panel.overview), (COUNTS, panel.counts), (LOAD, panel.load))
    for number, page in pages:
        panel.open_page(number)
        qtbot.waitUntil(lambda: all_have_room(page))  # noqa: B023  # waited for in this turn
        parts = [part.geometry() for part, _ in page._parts]
        for place, part in enumerate(parts):
            assert not any(part.intersects(other) for other in parts[place + 1 :])
    panel.open_page(EVENTS)
    qtbot.waitUntil(lambda: panel.events.table.width() >= 280)


def test_the_load_is_never_without_its_bar(panel: MonitorPanel) -> None:
    for width in (320, 800, 1_280):
        panel.resize(width, panel.minimumSizeHint().height())
        QApplication.processEvents()
        assert panel._gauge.height() >= 12


def test_a_part_without_room_beside_goes_below(theme: Theme, qtbot: QtBot) -> None:
    page = Sections()
    qtbot.addWidget(page)
    grids = [FigureGrid(theme, (Column("88.88"),), 1) for _ in range(2)]
    for grid in grids:
        content = QVBoxLayout()
        content.addWidget(grid)
        page.add(content, 1)
    page.resize(300, 100)
    page.show()
    qtbot.waitExposed(page)
    first, second = (part for part, _ in page._parts)
    assert first.geometry().top() == second.geometry().top()
    grids[0].set_rows([[Cell("8" * 35)]])
    qtbot.waitUntil(lambda: second.geometry().top() > first.geometry().bottom())
    grids[0].set_rows([[Cell("8")]])
    grids[0].forget_widths()
    qtbot.waitUntil(lambda: second.geometry().top() == first.geometry().top())


def test_a_language_of_shorter_words_takes_less_room(
    panel: MonitorPanel, translations: Translations
) -> None:
    panel.set_metrics(figures())
    english = panel._priorities.minimumSizeHint().width()
    translations.use("ko")
    QApplication.processEvents()
    assert panel._priorities.minimumSizeHint().width() < english


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_overview_of_a_window_of_1280_is_one_row(
    panel: MonitorPanel, translations: Translations, language: str
) -> None:
    translations.use("ko" if language == "ko" else "en")
    panel.set_status(status())
    panel.set_metrics(figures())
    panel.resize(1_280, 170)
    QApplication.processEvents()
    assert len({part.geometry().top() for part, _ in panel.overview._parts}) == 1
    assert panel.minimumSizeHint().height() < 180


def test_a_narrow_log_leaves_its_room_to_the_sentences(log: EventList) -> None:
    log.show()
    for width, shown in ((800, [True] * 5), (340, [True, True, False, False, True])):
        log.resize(width, 200)
        QApplication.processEvents()
        assert [not log.table.isColumnHidden(column) for column in range(5)] == shown
        assert log.table.columnWidth(4) > 120


# The grid


class Watched(FigureGrid):
    """Keeps what was painted."""

    painted: list[QRect]

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        self.painted.append(event.region().boundingRect())


@pytest.fixture
def grid(theme: Theme, qtbot: QtBot) -> Watched:
    columns = (Column("name", right=False, stretch=True), Column("88.88"))
    found = Watched(theme, columns, 2)
    found.painted = []
    qtbot.addWidget(found)
    found.resize(120, found.sizeHint().height())
    found.set_rows([[Cell("first"), Cell("1.00")], [Cell("second"), Cell("2.00")]])
    found.show()
    qtbot.waitExposed(found)
    qtbot.waitUntil(lambda: bool(found.painted))
    found.painted.clear()
    return found


def test_what_is_the_same_is_not_painted_again(grid: Watched) -> None:
    grid.set_rows([[Cell("first"), Cell("1.00")], [Cell("second", tip="told"), Cell("2.00")]])
    QApplication.processEvents()
    assert grid.painted == []
    grid.set_rows([[Cell("first"), Cell("1.00")], [Cell("second"), Cell("2.01")]])
    QApplication.processEvents()
    assert grid.painted == [grid._boxes[1][1]]


def test_a_colour_that_changes_is_painted(grid: Watched) -> None:
    grid.set_rows([[Cell("first"), Cell("1.00", "bad")], [Cell("second"), Cell("2.00")]])
    QApplication.processEvents()
    assert grid.painted == [grid._boxes[0][1]]


def test_a_column_grows_with_its_texts_and_what_is_cut_is_told(grid: Watched) -> None:
    before = grid.minimumSizeHint().width()
    long = "a name that has no room in so narrow a grid"
    grid.set_rows([[Cell(long), Cell("1,000,000.00")], [Cell("second", tip="why"), Cell()]])
    assert grid.minimumSizeHint().width() > before
    assert grid.tip_at(0, 0) == long
    assert grid.tip_at(0, 1) == ""
    assert grid.tip_at(1, 0) == "why"


def test_a_text_is_cut_where_the_grid_ends(theme: Theme, qtbot: QtBot) -> None:
    grid = FigureGrid(theme, (Column("", right=False),), 1)
    qtbot.addWidget(grid)
    grid.resize(60, 20)
    grid.set_rows([[Cell("a name that has no room")]])
    assert grid.tip_at(0, 0) == "a name that has no room"
    assert grid._boxes[0][0].right() < 60


@pytest.mark.parametrize("language", ["en", "ko"])
def test_columns_stand_still_while_figures_change(
    panel: MonitorPanel, translations: Translations, language: str
) -> None:
    """From the smallest figures to the largest of an ordinary day."""

    def lefts() -> list[list[int]]:
        grids = [grid for grid in panel.findChildren(FigureGrid) if grid.isVisible()]
        return [[box.left() for box in grid._boxes[0]] for grid in grids]

    translations.use("ko" if language == "ko" else "en")
    for page in (OVERVIEW, CALLS, COUNTS, LOAD):
        panel.open_page(page)
        placed = []
        for number, p99_ms, band in ((1, 0.5, "open"), (18_000_000, 9_999.0, "critical only")):
            kinds = [
                calls(priority, DataType.CANDLE, "peek", number, p99_ms) for priority in Priority
            ]
            counters = dict.fromkeys(("layer_4.low_waiting", "layer_1.waiting"), number / 18_000)
            told = figures(load=100.0, band=cast("LoadBand", band), kinds=kinds, counters=counters)
            panel.set_status(status() if number == 1 else with_layer("degraded", "disk full"))
            panel.set_metrics(told)
            QApplication.processEvents()
            placed.append(lefts())
        assert placed[0] == placed[1], page


def test_a_text_ends_where_its_column_does(grid: Watched, theme: Theme) -> None:
    grid.set_rows([[Cell("a name that has no room in so narrow a grid"), Cell()], [Cell()] * 2])
    picture = grid.grab().toImage().copy(grid._boxes[0][1])
    colours = {
        picture.pixelColor(x, y).name()
        for x in range(picture.width())
        for y in range(picture.height())
    }
    assert colours == {theme.window}


# How often the service is asked


class CountingApi(FakeApi):
    """Counts how often its figures are asked for."""

    figures_asked = 0

    def get_performance_metrics(self) -> PerformanceMetrics:
        self.figures_asked += 1
        return super().get_performance_metrics()


def test_figures_are_asked_for_rarely_while_nobody_sees_them(qtbot: QtBot) -> None:
    clock, api = ManualClock(NOON_MS), CountingApi()
    bridge = BackboneBridge(clock=clock)
    for _ in range(11):
        bridge._take_figures(cast("MarketDataAPI", api))
        clock.advance(1.0)
    assert api.figures_asked == 3, "at once, after five and after ten seconds"
    bridge.watch_figures(seen=True)
    for _ in range(5):
        bridge._take_figures(cast("MarketDataAPI", api))
        clock.advance(1.0)
    assert api.figures_asked == 8


def test_each_event_is_told_once(qtbot: QtBot) -> None:
    clock, api = ManualClock(NOON_MS), CountingApi()
    bridge = BackboneBridge(clock=clock)
    told: list[tuple[SystemEvent, ...]] = []
    bridge.eventsHappened.connect(told.append)
    bridge.watch_figures(seen=True)
    for events in ([event(1), event(2)], [], [event(3)]):
        api.events.extend(events)
        bridge._take_figures(cast("MarketDataAPI", api))
        bridge._flush()
    assert told == [(event(1), event(2)), (event(3),)]
