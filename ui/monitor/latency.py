"""Latencies as rows: by priority for a glance, by kind of call for whoever looks closer."""

from __future__ import annotations

from collections.abc import Iterable

from ui.monitor.alarm import error_ink, error_share, slow_ink
from ui.monitor.figure_grid import NOTHING, Cell, Column, Ink
from ui.monitor.words import count, data_word, milliseconds, rate, translate
from ui.service_words import service_words
from upbit_backbone.protocol import (
    CallStats,
    DataType,
    LatencyStats,
    PerformanceMetrics,
    Priority,
    WindowStats,
)
from upbit_backbone.telemetry.alerts import (
    FEW_CALLS,
    PROMISED_P99_MS,
    is_slow,
    promised_p99_ms,
)
from upbit_backbone.telemetry.calls import OTHER_PATH, PEEK, Kind

PRIORITY_COLUMNS = (
    Column("CRITICAL", right=False),
    *(Column("8,888") for _ in range(4)),
    Column("> 1000"),
    Column("88,888"),
)
_P99 = 2
"""Its place among the four figures."""
KIND_COLUMNS = (
    Column("CRITICAL", right=False),
    Column(lambda: map(data_word, DataType), right=False),
    Column("direct: api → storage", right=False, stretch=True),
    *(Column("8,888") for _ in range(4)),
    Column("> 1000"),
    Column("88.8"),
    Column("88.8%"),
    Column("88,888"),
)


def priority_rows(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """A head and a row for each priority.

    A promise holds for kinds of calls, not for a priority as a whole: its place is coloured when
    a kind breaks its own, and the pointer is told which; the p99 is only if it is beyond, too.
    """
    rows = [_head(translate("MonitorPanel", "Priority"))]
    latency = metrics.latency if window is None or not window.latency else window.latency
    calls = () if window is None else window.calls
    for priority in Priority:
        broken = [call for call in calls if call.priority is priority and is_slow(call)]
        inks = {slow_ink(call, metrics.alerts) for call in broken}
        ink: Ink = "bad" if "bad" in inks else "warning" if broken else "text"
        stats, tip = latency.get(priority), _broken_tip(broken)
        beyond = _is_beyond(priority, stats)
        rows.append(
            [
                Cell(priority.name),
                *_figures(stats, ink if beyond else "text", tip),
                _overall_promise(priority, stats, ink, tip),
                _count(stats),
            ]
        )
    return rows


def kind_rows(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """A head and a row for each kind of call, as the service sorts them."""
    head = _head(translate("MonitorPanel", "Priority"))
    rows = [
        [
            head[0],
            Cell(translate("MonitorPanel", "Data"), "dim"),
            Cell(translate("MonitorPanel", "Path"), "dim"),
            *head[1:6],
            Cell(translate("MonitorPanel", "Calls/s"), "dim"),
            Cell(translate("MonitorPanel", "Errors"), "dim"),
            head[6],
        ]
    ]
    for call in () if window is None else window.calls:
        ink = slow_ink(call, metrics.alerts)
        failed = Cell(error_share(call.error_rate), error_ink(call.error_rate, metrics.alerts))
        rows.append(
            [
                Cell(call.priority.name),
                Cell(data_word(call.data_type)),
                Cell(path_word(call.path)),
                *_figures(call.latency, ink, ""),
                _promise(_promised_ms(call), ink),
                Cell(rate(call.requests_per_s)),
                failed,
                _count(call.latency),
            ]
        )
    note = _sampling_note(window)
    if note:
        rows.append([Cell(), Cell(), Cell(note, "dim"), *[Cell()] * (len(rows[0]) - 3)])
    return rows


def _sampling_note(window: WindowStats | None) -> str:
    """That not every call was measured; empty while every one is."""
    if window is None or window.measured >= 1.0:
        return ""
    note = translate("MonitorPanel", "so many calls that {0} of them are measured")
    return note.format(f"{window.measured:.0%}")


def path_word(path: str) -> str:
    """Which way calls went; that of what memory answered has no steps to name."""
    if path == PEEK:
        return translate("MonitorPanel", "memory")
    if path == OTHER_PATH:
        return translate("MonitorPanel", "other paths")
    way, between, steps = path.partition(": ")
    steps, comma, size = steps.partition(", ")
    return f"{_way_word(way)}{between}{steps}{comma}{service_words(size) if size else size}"


def _way_word(way: str) -> str:
    match way:
        case "in stretches":
            return translate("MonitorPanel", "in stretches")
        case "direct, without the bus":
            return translate("MonitorPanel", "direct, without the bus")
    return way


def _promised_ms(call: CallStats) -> float | None:
    return promised_p99_ms(Kind(call.priority, call.data_type, call.path))


def _head(first: str) -> list[Cell]:
    promised = Cell(
        translate("MonitorPanel", "Promise"),
        "dim",
        translate("MonitorPanel", "what the p99 is promised to stay below, in ms"),
    )
    counted = Cell(translate("MonitorPanel", "Count"), "dim")
    quantiles = (Cell(name, "dim") for name in ("p50", "p95", "p99", "max"))
    return [Cell(first, "dim"), *quantiles, promised, counted]


def _figures(stats: LatencyStats | None, p99_ink: Ink, tip: str) -> Iterable[Cell]:
    if stats is None or not stats.count:
        return [Cell(NOTHING, "faint")] * 4
    ink: Ink = "text"
    if stats.count < FEW_CALLS:
        ink, tip = "faint", translate("MonitorPanel", "too few samples to trust the figure")
    values = (stats.p50_ms, stats.p95_ms, stats.p99_ms, stats.max_ms)
    return [
        Cell(milliseconds(value), ink if place != _P99 or p99_ink == "text" else p99_ink, tip)
        for place, value in enumerate(values)
    ]


def _promise(promised_ms: float | None, ink: Ink, tip: str = "") -> Cell:
    """`ink` is that of what is measured against it: ``"text"`` where it is kept."""
    if promised_ms is None:
        return Cell(NOTHING, "faint", tip)
    if ink == "text":
        return Cell(f"≤ {promised_ms:g}", "dim", tip)
    return Cell(f"> {promised_ms:g}", ink, tip)


def _overall_promise(priority: Priority, stats: LatencyStats | None, ink: Ink, broken: str) -> Cell:
    """The promise of a priority, and what is `broken`; a word where a kind and the whole differ."""
    tip, beyond = _promise_tip(priority), _is_beyond(priority, stats)
    if broken:
        tip = f"{tip}\n{broken}"
    if broken and not beyond:
        return Cell(translate("MonitorPanel", "broken"), ink, tip)
    if beyond and not broken and stats is not None and stats.count >= FEW_CALLS:
        return Cell(translate("MonitorPanel", "kept"), "dim", tip)
    return _promise(PROMISED_P99_MS.get(priority), ink, tip)


def _is_beyond(priority: Priority, stats: LatencyStats | None) -> bool:
    promised_ms = PROMISED_P99_MS.get(priority)
    return stats is not None and promised_ms is not None and stats.p99_ms > promised_ms


def _count(stats: LatencyStats | None) -> Cell:
    if stats is None or not stats.count:
        return Cell("0", "faint")
    return Cell(count(stats.count), tip=f"{stats.count:,}")


def _broken_tip(broken: list[CallStats]) -> str:
    lines = (
        translate("MonitorPanel", "{0} by {1}: p99 {2} ms, promised are {3} ms").format(
            data_word(call.data_type),
            path_word(call.path),
            milliseconds(call.latency.p99_ms),
            f"{_promised_ms(call):g}",
        )
        for call in broken
    )
    return "\n".join(lines)


def _promise_tip(priority: Priority) -> str:
    match priority:
        case Priority.CRITICAL:
            return translate("MonitorPanel", "1 ms for what is in memory, 50 ms by REST")
        case Priority.HIGH:
            return translate("MonitorPanel", "for what need not be asked of the exchange")
        case Priority.NORMAL:
            return translate("MonitorPanel", "for up to 400 candles; more have a second")
        case Priority.LOW:
            return translate("MonitorPanel", "LOW takes what the others leave")
