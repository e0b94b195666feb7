"""Calls, answers, what happened and what is stored, as rows."""

from __future__ import annotations

from ui.monitor.alarm import error_ink, error_share
from ui.monitor.figure_grid import NOTHING, Cell, Column, Ink
from ui.monitor.words import count, count_name, rate, size, translate
from upbit_backbone.protocol import PerformanceMetrics, SelfAudit, Tier, WindowStats
from upbit_backbone.telemetry.calls import COUNTED, TIERS

PAIR_COLUMNS = (Column("", right=False), Column("88,888"))
TIER_COLUMNS = (Column("", right=False), Column("88,888"), Column("100.0%"))
COUNT_COLUMNS = (
    Column("", right=False),
    Column("8,888"),
    Column("88,888"),
    Column("", right=False),
    Column("8,888"),
    Column("88,888"),
)
COUNT_LINES = -(-len(COUNTED) // 2)
"""Two names stand in a line, and an odd one alone."""
_ERRORS_NAMED = 2
_GRAVE = {"http_429", "http_418", "gaps", "shed"}
"""What one would rather not see counted."""


def glance(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """Load, calls, errors and hits in one line."""
    calls, errors, hits = _overall(metrics, window)
    return [
        [
            Cell(translate("MonitorPanel", "Load"), "dim"),
            Cell(f"{metrics.load:.0f}"),
            Cell(translate("MonitorPanel", "Calls/s"), "dim"),
            Cell(calls),
            Cell(translate("MonitorPanel", "Errors"), "dim"),
            errors,
            Cell(translate("MonitorPanel", "Hits"), "dim"),
            Cell(hits),
        ]
    ]


GLANCE_COLUMNS = (
    Column("Load", right=False),
    Column("100"),
    Column("Calls/s", right=False),
    Column("88.8"),
    Column("Errors", right=False),
    Column("88.8%"),
    Column("Hits", right=False),
    Column("100.0%"),
)


def call_rows(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """How many calls, how many failed, and of what."""
    calls, failed, _ = _overall(metrics, window)
    rows = [
        [Cell(translate("MonitorPanel", "Calls/s"), "dim"), Cell(calls)],
        [Cell(translate("MonitorPanel", "Errors"), "dim"), failed],
    ]
    errors = {} if window is None else window.errors
    named = sorted(errors.items(), key=lambda error: -error[1])
    rows += [[Cell(f"  {name}", "dim"), _times(n)] for name, n in named[:_ERRORS_NAMED]]
    rows += [[Cell(), Cell()]] * (_ERRORS_NAMED - len(named))
    rows += [
        [Cell(translate("MonitorPanel", "Since the start"), "dim"), _times(metrics.requests)],
        [
            Cell(translate("MonitorPanel", "Sent to exchange"), "dim"),
            _times(metrics.exchange_requests),
        ],
    ]
    return rows


def tier_rows(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """Where answers were found."""
    answers: dict[Tier, int] = {} if window is None else window.answers
    found = sum(answers.values())
    rows = []
    for tier in TIERS:
        share = f"{answers[tier] / found:.1%}" if found else NOTHING
        rows.append([Cell(_tier_word(tier), "dim"), _times(answers.get(tier, 0)), Cell(share)])
    _, _, hits = _overall(metrics, window)
    rows.append([Cell(translate("MonitorPanel", "Hit rate"), "dim"), Cell(), Cell(hits)])
    return rows


def count_rows(metrics: PerformanceMetrics, window: WindowStats | None) -> list[list[Cell]]:
    """What happened in the window, and since the start."""
    since = translate("MonitorPanel", "since the start")
    head = [Cell(), Cell(translate("MonitorPanel", "recent"), "dim"), Cell("Σ", "dim", since)]
    counted = []
    for name in COUNTED:
        times = 0.0 if window is None else window.counts.get(name, 0.0)
        total = metrics.totals.get(name, 0.0)
        ink: Ink = "faint" if not times else "warning" if name in _GRAVE else "text"
        counted.append(
            [
                Cell(count_name(name), "dim"),
                _times(times, ink),
                _times(total, "text" if total else "faint", since),
            ]
        )
    counted += [[Cell(), Cell(), Cell()]] * (2 * COUNT_LINES - len(counted))
    lines = range(COUNT_LINES)
    return [head * 2, *([*counted[line], *counted[line + COUNT_LINES]] for line in lines)]


def store_rows(metrics: PerformanceMetrics) -> list[list[Cell]]:
    """How much is stored, and how right it was found to be."""
    counters = metrics.counters
    file_bytes = counters.get("layer_2.file_bytes")
    candles = counters.get("layer_2.stored_candles")
    log_bytes = counters.get("layer_2.log_bytes", 0.0)
    return [
        [
            Cell(translate("MonitorPanel", "File"), "dim"),
            Cell(NOTHING, "faint") if file_bytes is None else Cell(size(file_bytes + log_bytes)),
        ],
        [
            Cell(translate("MonitorPanel", "Candles"), "dim"),
            Cell(NOTHING, "faint") if candles is None else Cell(f"{candles:,.0f}"),
        ],
        [
            Cell(translate("MonitorPanel", "In memory"), "dim"),
            Cell(size(counters.get("layer_2.memory_bytes", 0.0))),
        ],
        [
            Cell(translate("MonitorPanel", "Self-audit"), "dim"),
            _audited(metrics.self_audit),
        ],
    ]


def _audited(found: SelfAudit | None) -> Cell:
    if found is None or found.correctness is None:
        tip = translate("MonitorPanel", "no sample of the stored candles was read again yet")
        return Cell(NOTHING, "faint", tip)
    tip = translate(
        "MonitorPanel",
        "{0} stored candles were read again: {1} differed, {2} were gone, {3} were new",
    ).format(f"{found.compared:,}", found.restated, found.vanished, found.appeared)
    right = found.agreeing == found.compared
    # Rounded up, 100 % would be said of what is not all right.
    share = "100%" if right else f"{int(found.correctness * 100_000) / 1_000:.3f}%"
    return Cell(share, "good" if right else "warning", tip)


def _overall(metrics: PerformanceMetrics, window: WindowStats | None) -> tuple[str, Cell, str]:
    """Calls a second, failed calls, and the share of hits."""
    if window is None:
        errors = Cell(f"{metrics.errors:,}", "warning" if metrics.errors else "text")
        return NOTHING, errors, f"{metrics.cache_hit_rate:.1%}"
    tip = ", ".join(f"{name}: {times:,}" for name, times in window.errors.items())
    failed = window.error_rate
    errors = Cell(error_share(failed), error_ink(failed, metrics.alerts), tip)
    hits = f"{window.hit_rate:.1%}" if sum(window.answers.values()) else NOTHING
    return rate(window.requests_per_s), errors, hits


def _times(times: float, ink: Ink = "text", tip: str = "") -> Cell:
    """A count; the pointer is told what it means, or all its digits where they were cut."""
    text, exact = count(times), f"{times:,.0f}"
    return Cell(text, ink, tip if text == exact else "\n".join(filter(None, (exact, tip))))


def _tier_word(tier: Tier) -> str:
    match tier:
        case "memory":
            return translate("MonitorPanel", "Memory")
        case "storage":
            return translate("MonitorPanel", "Disk")
        case "exchange":
            return translate("MonitorPanel", "Exchange")
