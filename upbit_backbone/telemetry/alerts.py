"""What a person should know of as long as it lasts, told once when it begins and once when it ends.

Plain bookkeeping: the caller passes `now`, monotonic seconds, once a second or so.
"""

from __future__ import annotations

from collections.abc import Mapping

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.protocol import Alert, LatencyStats, Priority
from upbit_backbone.telemetry.calls import Kind
from upbit_backbone.telemetry.events import EventLog

PROMISED_P99_MS: Mapping[Priority, float] = {
    Priority.CRITICAL: 50.0,
    Priority.HIGH: 100.0,
    Priority.NORMAL: 500.0,
}
"""For what `is_promised`. LOW is promised nothing."""
PROMISED_PEEK_P99_MS = 1.0
"""To CRITICAL, for what is in memory."""
LEAST_CALLS = 100
"""A quantile or a rate of fewer calls says nothing of the service."""
HIGH_LOAD = 70.0
LOW_HIT_RATE = 0.85


def is_promised(kind: Kind) -> bool:
    """Whether the p99 of `PROMISED_P99_MS` holds for calls of this kind.

    HIGH's is for what is warm: its cold scan of all markets has two seconds.
    """
    return kind.priority is not Priority.HIGH or "router" not in kind.path


def promised_p99_ms(kind: Kind) -> float | None:
    """What the p99 of calls of this kind is promised to stay below; None: nothing is promised."""
    if kind.priority is Priority.CRITICAL and kind.path == "peek":
        return PROMISED_PEEK_P99_MS
    return PROMISED_P99_MS.get(kind.priority) if is_promised(kind) else None


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
            good: Clearly within it. What is neither changes nothing.
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
    """Sustained load, calls slower than promised, and too few hits; each is logged as an event."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._load = Alarm(begins_after_s=30.0, ends_after_s=10.0)
        self._slow = {
            priority: Alarm(begins_after_s=10.0, ends_after_s=30.0) for priority in PROMISED_P99_MS
        }
        self._hits = Alarm(begins_after_s=10.0, ends_after_s=30.0)
        self._active: dict[str, Alert] = {}

    @property
    def active(self) -> tuple[Alert, ...]:
        """What lasts now, the oldest first."""
        return tuple(self._active.values())

    def observe_load(self, load: float, why: str, now: float) -> None:
        """Take the load and its reason: above 70 for half a minute is worth an alert."""
        if self._load.observe(bad=load > HIGH_LOAD, good=load <= HIGH_LOAD - 10, now=now):
            self._turn("load", self._load, f"the load has been above {HIGH_LOAD:.0f} %: {why}")

    def observe_latency(self, latency: Mapping[Priority, LatencyStats], now: float) -> None:
        """Take latencies of the promised kinds of calls, of the last five minutes."""
        for priority, promised_ms in PROMISED_P99_MS.items():
            stats, alarm = latency[priority], self._slow[priority]
            known = stats.count >= LEAST_CALLS
            bad = known and stats.p99_ms > promised_ms
            good = stats.p99_ms <= 0.8 * promised_ms
            if alarm.observe(bad=bad, good=good, now=now):
                sentence = (
                    f"p99 of {priority.name} calls is {stats.p99_ms:.0f} ms, promised are"
                    f" {promised_ms:.0f} ms"
                )
                self._turn(f"slow {priority.name}", alarm, sentence)

    def observe_hits(self, hit_rate: float, answers: int, now: float) -> None:
        """Take the hit rate, a fraction, of the answers of the last five minutes."""
        bad = answers >= LEAST_CALLS and hit_rate < LOW_HIT_RATE
        good = hit_rate >= LOW_HIT_RATE + 0.03 or not answers
        if self._hits.observe(bad=bad, good=good, now=now):
            sentence = (
                f"only {hit_rate:.0%} of the answers came from memory and the store,"
                f" expected are {LOW_HIT_RATE:.0%}"
            )
            self._turn("hit rate", self._hits, sentence)

    def _turn(self, name: str, alarm: Alarm, sentence: str) -> None:
        if alarm.active:
            since = utc_datetime(self._clock.now_ms())
            self._active[name] = Alert(name, since, sentence)
            self._events.add("layer_4", "warning", "alert", sentence)
        else:
            begun = self._active.pop(name)
            self._events.add("layer_4", "info", "alert", f"no longer: {begun.sentence}")
