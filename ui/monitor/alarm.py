"""How slow and failing calls are coloured: red only what the line at the top speaks of, too.

What is beyond its limit in the window that is shown, without lasting now, is amber: it may be an
hour ago, or just a moment.
"""

from __future__ import annotations

from collections.abc import Iterable

from ui.monitor.figure_grid import Ink
from upbit_backbone.protocol import Alert, CallStats
from upbit_backbone.telemetry.alerts import MANY_ERRORS, is_large, is_slow
from upbit_backbone.telemetry.calls import Kind


def slow_ink(call: CallStats, alerts: Iterable[Alert]) -> Ink:
    """The colour of a kind of calls that is measured against its promise."""
    if not is_slow(call):
        return "text"
    large = is_large(Kind(call.priority, call.data_type, call.path))
    name = "slow large NORMAL" if large else f"slow {call.priority.name}"
    return "bad" if any(alert.name == name for alert in alerts) else "warning"


def error_ink(error_rate: float, alerts: Iterable[Alert]) -> Ink:
    """The colour of a share of failed calls, the same wherever it stands."""
    if error_share(error_rate) == error_share(0.0):
        return "text"
    alarmed = any(alert.name.startswith("errors ") for alert in alerts)
    return "bad" if alarmed and error_rate > MANY_ERRORS else "warning"


def error_share(error_rate: float) -> str:
    """``0.4%``."""
    return f"{error_rate:.1%}"
