"""What a person should know of as long as it lasts, told once when it begins and once when it ends.

Plain bookkeeping: the caller passes `now`, monotonic seconds, once a second or so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.protocol import (
    MAX_PAGE_CANDLES,
    Alert,
    CallStats,
    DataType,
    LatencyStats,
    Priority,
)
from upbit_backbone.telemetry.calls import PEEK, Kind
from upbit_backbone.telemetry.events import EventLog

PROMISED_P99_MS: Mapping[Priority, float] = {
    Priority.CRITICAL: 50.0,
    Priority.HIGH: 100.0,
    Priority.NORMAL: 500.0,
}
"""For what `is_promised`. LOW is promised nothing."""
QUICK_PAGES = 2
"""NORMAL is promised its p99 for what is warm, and for up to 400 candles from the exchange."""
LARGE_PAGES = 5
"""For up to 1,000 candles it is promised `PROMISED_LARGE_P99_MS`."""
PROMISED_LARGE_P99_MS = 1_000.0
LARGE = f", {QUICK_PAGES + 1} to {LARGE_PAGES} pages"
VERY_LARGE = f", more than {LARGE_PAGES} pages"
"""How paths end of answers for which the exchange was asked for so much."""
IN_STRETCHES = "in stretches"
"""How paths begin of long loads: how long a stretch takes lies with the exchange's limit, the
load and the reader's pauses, and nothing is promised of it."""
PROMISED_PEEK_P99_MS = 1.0
"""To CRITICAL, for what is in memory."""
LEAST_CALLS = 100
"""Of fewer calls one alone may be the p99, and a hit rate says nothing of the service."""
FEW_CALLS = 20
"""Fewer calls of a kind say nothing; up to `LEAST_CALLS` it is their p95 that is judged."""
MANY_ERRORS = 0.05
"""Of calls that memory did not answer."""
LOW_HIT_RATE = 0.85


def how_large(pages: int) -> str:
    """What stands behind the path of a load that is promised more time, or none."""
    if pages <= QUICK_PAGES:
        return ""
    return LARGE if pages <= LARGE_PAGES else VERY_LARGE


def is_promised(kind: Kind) -> bool:
    """Whether the p99 of `PROMISED_P99_MS` holds for calls of this kind.

    HIGH's is for what is warm: its cold scan of all markets has two seconds. NORMAL's is for up to
    `QUICK_PAGES` from the exchange. Stretches of long loads are promised nothing.
    """
    if kind.path.startswith(IN_STRETCHES):
        return False
    if kind.priority is Priority.HIGH:
        return "router" not in kind.path
    return not kind.path.endswith((LARGE, VERY_LARGE))


def is_large(kind: Kind) -> bool:
    """Whether `PROMISED_LARGE_P99_MS` holds for calls of this kind."""
    candles = kind.data_type is DataType.CANDLE
    return candles and kind.priority is Priority.NORMAL and kind.path.endswith(LARGE)


def promised_p99_ms(kind: Kind) -> float | None:
    """What the p99 of calls of this kind is promised to stay below; None: nothing is promised."""
    if kind.priority is Priority.CRITICAL and kind.path == PEEK:
        return PROMISED_PEEK_P99_MS
    if is_large(kind):
        return PROMISED_LARGE_P99_MS
    return PROMISED_P99_MS.get(kind.priority) if is_promised(kind) else None


def is_slow(call: CallStats) -> bool:
    """Whether calls of a kind were slower than promised, and enough of them to say so.

    Of fewer than `LEAST_CALLS` one alone may be slow without that.
    """
    return _says_much(call) and _share_of_promise(call) > 1.0


class Alarm:
    """One condition, with hysteresis: it has to last before it is told, and before it is over."""

    def __init__(self, *, begins_after_s: float, ends_after_s: float) -> None:
        self._begins_after_s = begins_after_s
        self._ends_after_s = ends_after_s
        self._turned_s: float | None = None
        self.active = False

    def observe(self, *, bad: bool, good: bool, now: float) -> bool:
        """Take how it is now; True if the alarm just began or ended.

        Args:
            bad: Beyond the limit at which it begins.
            good: Clearly within it. What is neither neither begins it nor ends it.
            now: Monotonic seconds.
        """
        turning = good if self.active else bad
        if not turning:
            self._turned_s = None
            return False
        if self._turned_s is None:
            self._turned_s = now
        needed_s = self._ends_after_s if self.active else self._begins_after_s
        if now - self._turned_s < needed_s:
            return False
        self.active = not self.active
        self._turned_s = None
        return True


class Alerts:
    """Sustained load, kinds of calls slower than promised or failing, and too few hits.

    Each is logged as an event when it begins and when it ends. What says nothing any more, because
    hardly anybody calls, is over.
    """

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._load = Alarm(begins_after_s=30.0, ends_after_s=10.0)
        self._alarms: dict[str, Alarm] = {}
        self._active: dict[str, Alert] = {}
        self._begun: dict[str, str] = {}
        """The sentences with which they began."""

    @property
    def active(self) -> tuple[Alert, ...]:
        """What lasts now, the oldest first; figures are today's, not those of the beginning."""
        return tuple(self._active.values())

    def observe_load(self, above: float | None, why: str, now: float) -> None:
        """Take whether somebody has to wait for the load: half a minute of it is worth an alert.

        Args:
            above: The limit that the load went beyond, and from which it has not come back for
                good; None: nobody waits.
            why: The reason for the load.
            now: Monotonic seconds.
        """
        sentence = "" if above is None else f"the load has been above {above:.0f} %: {why}"
        held = above is not None
        self._observe("load", sentence, bad=held, good=not held, now=now, alarm=self._load)

    def observe_calls(self, calls: Iterable[CallStats], now: float) -> None:
        """Take every kind of calls of the last five minutes, each against its own promise."""
        calls = tuple(calls)
        for name in _SLOW:
            alike = [call for call in calls if _slow_name(call) == name and _says_much(call)]
            worst = max(alike, key=_share_of_promise, default=None)
            share = 0.0 if worst is None else _share_of_promise(worst)
            sentence = "" if worst is None else _slow_sentence(worst)
            self._observe(name, sentence, bad=share > 1.0, good=share <= 0.8, now=now)
        for priority in PROMISED_P99_MS:
            what, failed = _worst_failing(priority, calls)
            sentence = f"{failed:.0%} of {what} failed, expected are at most {MANY_ERRORS:.0%}"
            bad, good = failed > MANY_ERRORS, failed <= 0.6 * MANY_ERRORS
            self._observe(f"errors {priority.name}", sentence, bad=bad, good=good, now=now)

    def observe_hits(self, hit_rate: float, answers: int, now: float) -> None:
        """Take the hit rate, a fraction, of the answers of the last five minutes."""
        known = answers >= LEAST_CALLS
        sentence = (
            f"only {hit_rate:.0%} of the answers came from memory and the store,"
            f" expected are {LOW_HIT_RATE:.0%}"
        )
        bad = known and hit_rate < LOW_HIT_RATE
        good = not known or hit_rate >= LOW_HIT_RATE + 0.03
        self._observe("hit rate", sentence, bad=bad, good=good, now=now)

    def _observe(
        self,
        name: str,
        sentence: str,
        *,
        bad: bool,
        good: bool,
        now: float,
        alarm: Alarm | None = None,
    ) -> None:
        if alarm is None:
            alarm = self._alarms.setdefault(name, Alarm(begins_after_s=10.0, ends_after_s=30.0))
        if not alarm.observe(bad=bad, good=good, now=now):
            if alarm.active and bad:
                self._active[name] = msgspec.structs.replace(self._active[name], sentence=sentence)
        elif alarm.active:
            since = utc_datetime(self._clock.now_ms())
            self._active[name] = Alert(name, since, sentence)
            self._begun[name] = sentence
            self._events.add("layer_4", "warning", "alert", sentence)
        else:
            del self._active[name]
            self._events.add("layer_4", "info", "alert", f"no longer: {self._begun.pop(name)}")


_SLOW_LARGE = "slow large NORMAL"
_SLOW = (*(f"slow {priority.name}" for priority in PROMISED_P99_MS), _SLOW_LARGE)


def _kind(call: CallStats) -> Kind:
    return Kind(call.priority, call.data_type, call.path)


def _slow_name(call: CallStats) -> str:
    """The alert that calls of this kind may cause; empty: they are promised nothing."""
    if promised_p99_ms(_kind(call)) is None:
        return ""
    return _SLOW_LARGE if is_large(_kind(call)) else f"slow {call.priority.name}"


def _says_much(call: CallStats) -> bool:
    return call.latency.count >= FEW_CALLS


def _share_of_promise(call: CallStats) -> float:
    promised_ms = promised_p99_ms(_kind(call))
    if promised_ms is None:
        return 0.0
    _, judged_ms = _judged(call.latency)
    return judged_ms / promised_ms


def _judged(latency: LatencyStats) -> tuple[str, float]:
    """What is held against the promise: what it is called, and its milliseconds."""
    if latency.count >= LEAST_CALLS:
        return "p99", latency.p99_ms
    return "p95", latency.p95_ms


def _slow_sentence(call: CallStats) -> str:
    kind, (judged, judged_ms) = _kind(call), _judged(call.latency)
    promised = f"{promised_p99_ms(kind):.0f}"
    what = f"{call.priority.name} {call.data_type.value} calls"
    if is_large(kind):
        least, most = QUICK_PAGES * MAX_PAGE_CANDLES + 1, LARGE_PAGES * MAX_PAGE_CANDLES
        what = f"NORMAL loads of {least:,} to {most:,} candles"
    elif call.path == PEEK:
        what += " from memory"
    taken = _distinct_ms(judged_ms, promised)
    return f"{judged} of {what} is {taken} ms, promised are {promised} ms"


def _distinct_ms(value_ms: float, promised: str) -> str:
    """Whole milliseconds, below ten a tenth, and more where it would read as what was promised."""
    shown = f"{value_ms:.{1 if value_ms < 10 else 0}f}".removesuffix(".0")
    finer = (f"{value_ms:.{digits}f}" for digits in (1, 2, 3))
    return next((text for text in (shown, *finer) if float(text) != float(promised)), shown)


def _worst_failing(priority: Priority, calls: Iterable[CallStats]) -> tuple[str, float]:
    """What most calls of a priority fail that memory did not answer, and how many of them."""
    worst, most = "", 0.0
    for data_type in DataType:
        alike = [
            call
            for call in calls
            if call.priority is priority and call.data_type is data_type and call.path != PEEK
        ]
        asked = sum(call.requests for call in alike)
        failed = sum(call.error_rate * call.requests for call in alike)
        if asked >= FEW_CALLS and failed / asked > most:
            worst, most = f"{priority.name} {data_type.value} calls", failed / asked
    return worst, most
