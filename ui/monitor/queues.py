"""Who waits, as rows: in the event bus, and for the exchange's limit."""

from __future__ import annotations

from ui.monitor.figure_grid import Cell, Column, Ink
from ui.monitor.words import count, milliseconds, translate
from upbit_backbone.protocol import PerformanceMetrics

COLUMNS = (
    Column("", right=False),
    Column("8,888"),
    Column("8,888"),
    Column("8,888"),
)
_QUEUES = ("NORMAL", "LOW")


def queue_rows(metrics: PerformanceMetrics) -> list[list[Cell]]:
    """A head, a row for each queue of the bus, and what else lets calls wait."""
    counters = metrics.counters
    refused = translate("MonitorPanel", "refused")
    refused_tip = translate(
        "MonitorPanel", "not let in until their deadline, or by the exchange; since the start"
    )
    rows = [
        [
            Cell(translate("MonitorPanel", "Who waits")),
            Cell(translate("MonitorPanel", "waiting"), "dim"),
            Cell(translate("MonitorPanel", "in work"), "dim"),
            Cell(refused, "dim", refused_tip),
        ]
    ]
    for priority in _QUEUES:
        of = f"layer_4.{priority.lower()}"
        rows.append(
            [
                Cell(priority),
                _count(counters, f"{of}_waiting"),
                _count(counters, f"{of}_in_work"),
                _count(counters, f"{of}_refused", "warning", refused_tip),
            ]
        )
    limit = translate("MonitorPanel", "requests that wait for the rate the exchange allows")
    waited = translate(
        "MonitorPanel", "the longest wait of a CRITICAL request for its slot, lately, in ms"
    )
    throttles = translate("MonitorPanel", "programs that pause LOW")
    failures = translate("MonitorPanel", "calls go down directly until the bus works again")
    return [
        *rows,
        [
            Cell(translate("MonitorPanel", "Exchange's limit"), "dim", limit),
            _count(counters, "layer_1.waiting", tip=limit),
            Cell(),
            _count(counters, "layer_1.refused", "warning", refused_tip),
        ],
        [
            Cell(translate("MonitorPanel", "CRITICAL waited (ms)"), "dim", waited),
            Cell(milliseconds(counters.get("layer_1.critical_wait_ms", 0.0)), tip=waited),
            Cell(),
            Cell(),
        ],
        [
            Cell(translate("MonitorPanel", "Throttles of LOW"), "dim", throttles),
            _count(counters, "layer_4.low_throttles", "warning", throttles),
            Cell(),
            Cell(),
        ],
        [
            Cell(translate("MonitorPanel", "Failures of the bus"), "dim", failures),
            _count(counters, "layer_4.bus_failures", "warning", failures),
            Cell(),
            Cell(),
        ],
    ]


def _count(counters: dict[str, float], name: str, ink: Ink = "text", tip: str = "") -> Cell:
    times = counters.get(name, 0.0)
    return Cell(count(times), ink if times else "faint", tip)
