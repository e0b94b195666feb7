"""Latencies as rows: by priority for a glance, by kind of call for whoever looks closer."""

from __future__ import annotations

from collections.abc import Iterable

from ui.monitor.figure_grid import NOTHING, Cell, Column, Ink
from ui.monitor.words import data_word, milliseconds, rate, translate
from upbit_backbone.protocol import (
    CallStats,
    LatencyStats,
    PerformanceMetrics,
    Priority,
    WindowStats,
)
from upbit_backbone.telemetry.alerts import PROMISED_P99_MS, promised_p99_ms
from upbit_backbone.telemetry.calls import Kind

FEW_CALLS = 20
"""Of fewer calls the p99 is just the slowest one: it is shown pale, and breaks no promise."""
PRIORITY_COLUMNS = (
    Column("CRITICAL", right=False),
    *(Column("88.88") for _ in range(4)),
    Column("≤ 888"),
    Column("88,888"),
)
KIND_COLUMNS = (
    Column("CRITICAL", right=False),
    Column("order book", right=False),
    Column("direct: api → storage", right=False, stretch=True),
    *(Column("88.88") for _ in range(4)),
    Column("≤ 888"),
    Column("88.8"),
    Column("88.8%"),
    Column("88,888"),
)


def priority_rows(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """A head and a row for each priority.

    A promise holds for kinds of calls, not for a priority as a whole: the p99 is red when a
    kind breaks its own, and the pointer is told which.
    """
    rows = [_head(translate("MonitorPanel", "Priority"))]
    latency = metrics.latency if window is None or not window.latency else window.latency
    calls = () if window is None else window.calls
    for priority in Priority:
        broken = [call for call in calls if call.priority is priority and is_broken(call)]
        rows.append(
            [
                Cell(priority.name),
                *_figures(latency.get(priority), bool(broken), _broken_tip(broken)),
                _overall_promise(priority, latency.get(priority), broken),
                _count(latency.get(priority)),
            ]
        )
    return rows


def kind_rows(window: WindowStats | None) -> list[list[Cell]]:
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
        broken = is_broken(call)
        rows.append(
            [
                Cell(call.priority.name),
                Cell(data_word(call.data_type)),
                Cell(path_word(call.path)),
                *_figures(call.latency, broken, ""),
                _promise(_promised_ms(call), broken),
                Cell(rate(call.requests_per_s)),
                Cell(f"{call.error_rate:.1%}", "bad" if call.error_rate else "text"),
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


def is_broken(call: CallStats) -> bool:
    """Whether calls of a kind were slower than promised, and enough of them to say so."""
    promised_ms = _promised_ms(call)
    return (
        promised_ms is not None
        and call.latency.count >= FEW_CALLS
        and call.latency.p99_ms > promised_ms
    )


def path_word(path: str) -> str:
    """Which way calls went; that of what memory answered has no steps to name."""
    return translate("MonitorPanel", "memory") if path == "peek" else path


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


def _figures(stats: LatencyStats | None, broken: bool, tip: str) -> Iterable[Cell]:
    if stats is None or not stats.count:
        return [Cell(NOTHING, "faint")] * 4
    ink: Ink = "text"
    if stats.count < FEW_CALLS:
        ink, tip = "faint", translate("MonitorPanel", "too few samples to trust the figure")
    values = (stats.p50_ms, stats.p95_ms, stats.p99_ms, stats.max_ms)
    return [
        Cell(milliseconds(value), "bad" if broken and place == 2 else ink, tip)
        for place, value in enumerate(values)
    ]


def _promise(promised_ms: float | None, broken: bool, tip: str = "") -> Cell:
    if promised_ms is None:
        return Cell(NOTHING, "faint", tip)
    return Cell(f"{'>' if broken else '≤'} {promised_ms:g}", "bad" if broken else "dim", tip)


def _overall_promise(
    priority: Priority, stats: LatencyStats | None, broken: list[CallStats]
) -> Cell:
    """The promise of a priority; a word where a kind of calls and the whole differ."""
    promised_ms, tip = PROMISED_P99_MS.get(priority), _promise_tip(priority)
    if broken:
        tip = f"{tip}\n{_broken_tip(broken)}"
    beyond = stats is not None and promised_ms is not None and stats.p99_ms > promised_ms
    if broken and not beyond:
        return Cell(translate("MonitorPanel", "broken"), "bad", tip)
    if beyond and not broken and stats is not None and stats.count >= FEW_CALLS:
        return Cell(translate("MonitorPanel", "kept"), "dim", tip)
    return _promise(promised_ms, bool(broken), tip)


def _count(stats: LatencyStats | None) -> Cell:
    return Cell("0", "faint") if stats is None or not stats.count else Cell(f"{stats.count:,}")


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
