"""The load as rows: its reasons, what it holds back, and how LOW is doing."""

from __future__ import annotations

from ui.monitor.figure_grid import NOTHING, Cell, Column, Ink
from ui.monitor.words import milliseconds, rate, term_name, translate
from ui.service_words import service_words
from upbit_backbone.protocol import (
    LOW_WAITS_ABOVE,
    ONLY_CRITICAL_ABOVE,
    LoadTerm,
    PerformanceMetrics,
)

TERM_COLUMNS = (
    Column("", right=False),
    Column("100"),
    Column("", right=False),
    Column("100"),
)
STATE_COLUMNS = (
    Column("LOW", right=False),
    Column(lambda: [_felt("8.88 ms", "8.88 ms")], right=False, stretch=True),
)
REASON_COLUMNS = (
    Column("", right=False),
    Column("100"),
    Column("why it is so high", right=False, stretch=True),
)
_TERM_LINES = 3
_TERMS = ("event loop", "memory", "processor", "CRITICAL waits", "HIGH waits", "NORMAL waits")


def term_rows(metrics: PerformanceMetrics) -> list[list[Cell]]:
    """Every reason for load, each always in its place, in two halves; the worst stands out."""
    terms = []
    worst = max((term.load for term in metrics.load_terms), default=0.0)
    for term in _in_places(metrics):
        why = service_words(term.sentence)
        named: Ink = "text" if term.load == worst and worst >= 1 else "dim"
        terms.append(
            [
                Cell(term_name(term.name), named, why),
                Cell(f"{term.load:.0f}", load_ink(term.load), why),
            ]
        )
    terms += [[Cell(), Cell()]] * (2 * _TERM_LINES - len(terms))
    return [[*terms[line], *terms[line + _TERM_LINES]] for line in range(_TERM_LINES)]


def reason_rows(metrics: PerformanceMetrics) -> list[list[Cell]]:
    """The load and whom it holds back, and every reason for it with its sentence."""
    load = f"{metrics.load:.0f}"
    rows = [
        [
            Cell(translate("MonitorPanel", "Load")),
            Cell(load, load_ink(metrics.load)),
            Cell(held_back(metrics), "text" if metrics.load_band == "open" else "warning"),
        ]
    ]
    rows += [
        [
            Cell(term_name(term.name), "dim"),
            Cell(f"{term.load:.0f}", load_ink(term.load)),
            Cell(service_words(term.sentence), "dim"),
        ]
        for term in _in_places(metrics)
    ]
    return rows


def state_rows(metrics: PerformanceMetrics) -> list[list[Cell]]:
    """What the load holds back, LOW's state, and the two times that a person feels."""
    frame_p95_ms = metrics.frame_p95_ms
    frame = NOTHING if frame_p95_ms is None else f"{milliseconds(frame_p95_ms)} ms"
    lag = f"{milliseconds(metrics.loop_lag_p95_ms)} ms"
    felt = _felt(lag, frame)
    tip = translate(
        "MonitorPanel", "95 of 100 times the event loop, and painting the chart, were quicker"
    )
    return [
        [Cell("LOW", "dim"), low_state(metrics)],
        [Cell(translate("MonitorPanel", "p95"), "dim", tip), Cell(felt, tip=tip)],
    ]


def _felt(lag: str, frame: str) -> str:
    return translate("MonitorPanel", "loop {0} · frame {1}").format(lag, frame)


def low_state(metrics: PerformanceMetrics) -> Cell:
    """Whether LOW runs, what it waits for, and how fast it may go."""
    counters = metrics.counters
    waiting = counters.get("layer_4.low_waiting", 0.0)
    working = counters.get("layer_4.low_in_work", 0.0)
    tip = translate("MonitorPanel", "{0} calls in work, {1} waiting").format(
        f"{working:,.0f}", f"{waiting:,.0f}"
    )
    if counters.get("layer_4.low_throttles", 0.0):
        return Cell(translate("MonitorPanel", "paused by a program"), "warning", tip)
    if metrics.load_band != "open":
        return Cell(translate("MonitorPanel", "waits for the load"), "warning", tip)
    allowed = metrics.low_pages_per_s
    if allowed is not None:
        text = translate("MonitorPanel", "resumes, {0} of {1} pages/s").format(
            rate(metrics.low_got_pages_per_s), rate(allowed)
        )
        return Cell(text, "text", tip)
    if working or waiting or metrics.low_got_pages_per_s:
        text = translate("MonitorPanel", "runs, {0} pages/s").format(
            rate(metrics.low_got_pages_per_s)
        )
        return Cell(text, "good", tip)
    return Cell(translate("MonitorPanel", "idle, may run"), "text", tip)


def held_back(metrics: PerformanceMetrics) -> str:
    """Who waits for the load to pass."""
    match metrics.load_band:
        case "critical only":
            return translate("MonitorPanel", "all but CRITICAL wait")
        case "low waits":
            return translate("MonitorPanel", "LOW waits")
    return translate("MonitorPanel", "nobody waits")


def _in_places(metrics: PerformanceMetrics) -> list[LoadTerm]:
    """The reasons in an order that does not change with the figures."""
    places = {name: place for place, name in enumerate(_TERMS)}
    return sorted(metrics.load_terms, key=lambda term: places.get(term.name, len(places)))


def load_ink(load: float) -> Ink:
    """The colour of a load, as of the gauge."""
    if load > ONLY_CRITICAL_ABOVE:
        return "bad"
    return "warning" if load > LOW_WAITS_ABOVE else "text"
