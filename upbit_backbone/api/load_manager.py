"""How much discomfort CRITICAL, HIGH and NORMAL callers feel, and who has to wait for it to pass.

Load is 0 to 100: the highest of a few terms, each with a sentence. Plain bookkeeping: what was
measured is passed in, and `now`, monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from upbit_backbone.api.validation import check_number, check_priority, check_seconds
from upbit_backbone.protocol import (
    LOW_WAITS_ABOVE,
    ONLY_CRITICAL_ABOVE,
    LoadBand,
    LoadTerm,
    Priority,
)
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.loop_lag import QUIET_S, UNBEARABLE_S

LOW_UP_TO: Final = LOW_WAITS_ABOVE
"""Above this load LOW waits."""
LOW_AGAIN_AT: Final = 60.0
"""From here down it may run again."""
OTHERS_UP_TO: Final = ONLY_CRITICAL_ABOVE
"""Above this load all but CRITICAL wait."""
OTHERS_AGAIN_AT: Final = 80.0
DWELL_S: Final = 2.0
"""So long the load has to stay low before anybody runs again."""
LONG_DWELL_S: Final = 20.0
"""So long it has to stay where nobody would be shut out: what is always there, such as a program
that takes two thirds of its memory, must not keep anybody out for ever."""
PROMISED_WAIT_S: Final[Mapping[Priority, float]] = {
    Priority.CRITICAL: 0.05,
    Priority.HIGH: 0.1,
    Priority.NORMAL: 0.5,
}
"""The p99 that each is promised: who waits for so long makes LOW wait, and nobody else (at most
`OTHERS_UP_TO`). Queues let the more urgent go first by themselves; NORMAL calls by the hundred that
wait for one another must not shut HIGH out, nor HIGH calls themselves."""
PROMISED_COLD_S: Final[Mapping[Priority, float]] = {
    Priority.CRITICAL: 0.05,
    Priority.HIGH: 2.0,
    Priority.NORMAL: 1.0,
}
"""The same of a wait for the exchange's limit: who needs it is promised more time, HIGH for a scan
of all markets, NORMAL for a thousand candles."""
LOW_FULL_RATE: Final = 8 / 1.05
"""Pages a second that the exchange's limit leaves to LOW: from here on nothing holds it."""
LOW_FIRST_RATE: Final = 1.0
RESUME_STEP_S: Final = 1.0
"""A second of quiet doubles LOW's rate."""
SHRINK_FROM: Final = 40.0
"""From this load on everything is done with less, down to the least at `LOW_UP_TO`."""
LEAST_PARALLELISM: Final = 0.25
MOST_CONFLATION: Final = 4.0


class LoadReading(msgspec.Struct, frozen=True):
    """What was measured at one moment."""

    loop_lag_p95_s: float = 0.0
    """Of the last two seconds."""
    oldest_wait_s: Mapping[Priority, float] = {}
    """How long the oldest call of a priority has waited for work of ours to begin. It counts
    from where it was let in: what waits for the load itself must not keep the load up."""
    rss_bytes: int = 0
    processor_share: float = 0.0
    """Of all usable processors, 0 to 1."""
    low_share: float = 0.0
    """What of it was spent for LOW."""
    oldest_limit_wait_s: Mapping[Priority, float] = {}
    """How long the oldest call of a priority has waited for the exchange's limit to let its first
    request through. What the exchange takes then, and a call's further pages, do not count."""


class SystemLoadManager:
    """Decides who may begin work now.

    Nobody is refused for good: who may not begin waits. CRITICAL always may.
    """

    def __init__(self, *, memory_limit_bytes: int, events: EventLog | None = None) -> None:
        """Begin without load.

        Args:
            memory_limit_bytes: What the process may take; using it all is load 100.
            events: Where changes of the band are logged.
        """
        self._memory_limit_bytes = memory_limit_bytes
        self._events = events
        self._terms: tuple[LoadTerm, ...] = ()
        self._low = _Latch(LOW_UP_TO, LOW_AGAIN_AT)
        self._others = _Latch(OTHERS_UP_TO, OTHERS_AGAIN_AT)
        self._resumption = _Resumption()

    @property
    def load(self) -> float:
        """0 to 100, as of the last reading."""
        return max((term.load for term in self._terms), default=0.0)

    @property
    def terms(self) -> tuple[LoadTerm, ...]:
        """Why the load is what it is, the highest first."""
        return self._terms

    @property
    def band(self) -> LoadBand:
        """Who may begin: all, all but LOW, or CRITICAL only."""
        if self._others.shut:
            return "critical only"
        return "low waits" if self._low.shut else "open"

    @property
    def holds_above(self) -> float | None:
        """The limit above which the load was when it began to hold somebody back; None: nobody."""
        if self._others.shut:
            return OTHERS_UP_TO
        return LOW_UP_TO if self._low.shut else None

    @property
    def reason(self) -> str:
        """The sentence of the highest term; empty before the first reading."""
        return self._terms[0].sentence if self._terms else ""

    def observe(self, reading: LoadReading, now: float) -> None:
        """Take what was measured, several times a second.

        Who has to wait does so at once. Who waits begins again after the load was low for two
        seconds, or not too high for twenty: one reading of calm proves nothing.
        """
        before = self.band
        terms = load_terms(reading, self._memory_limit_bytes)
        self._terms = tuple(sorted(terms, key=lambda term: -term.load))
        load = self.load
        self._others.observe(load, now)
        self._low.observe(load, now)
        self._resumption.observe(shut=self._low.shut, load=load, now=now)
        if self.band != before and self._events is not None:
            self._tell(before, self._events)

    def check_resource_availability(self, priority: Priority) -> bool:
        """Whether a call of this priority may begin now.

        Raises:
            InvalidRequestError: not a `Priority`.
        """
        if priority is Priority.CRITICAL:
            return True
        if priority is Priority.LOW:
            return not self._low.shut
        check_priority(priority)
        return not self._others.shut

    @property
    def low_pages_per_s(self) -> float | None:
        """How fast LOW may go: 0.0 while it waits, then faster each second; None: at any rate."""
        return self._resumption.pages_per_s

    def parallelism(self, most: int) -> int:
        """How many pages of one call may be in flight, of `most`; at least one."""
        check_number("most", most)
        return max(1, int(most * (1.0 - (1.0 - LEAST_PARALLELISM) * self._pressure)))

    def conflation_s(self, shortest_s: float) -> float:
        """How far values for a screen are apart, where `shortest_s` is without load."""
        check_seconds("shortest_s", shortest_s)
        return shortest_s * (1.0 + (MOST_CONFLATION - 1.0) * self._pressure)

    def prefetch(self, most: int) -> int:
        """How much may be fetched before anybody asks, of `most`; nothing when LOW waits."""
        check_number("most", most)
        return int(most * (1.0 - self._pressure))

    @property
    def _pressure(self) -> float:
        """0.0 up to where things begin to shrink, 1.0 from where LOW has to wait."""
        return min(1.0, max(0.0, (self.load - SHRINK_FROM) / (LOW_UP_TO - SHRINK_FROM)))

    def _tell(self, before: LoadBand, events: EventLog) -> None:
        who = {
            "open": "every priority may run",
            "low waits": "LOW waits",
            "critical only": "all but CRITICAL wait",
        }[self.band]
        order: tuple[LoadBand, ...] = ("open", "low waits", "critical only")
        worse = order.index(self.band) > order.index(before)
        sentence = f"load {self.load:.0f} %, {who}: {self.reason}"
        events.add("layer_4", "warning" if worse else "info", "load", sentence)


def load_terms(reading: LoadReading, memory_limit_bytes: int) -> tuple[LoadTerm, ...]:
    """Every reason for discomfort, as a load with a sentence."""
    lag_s = reading.loop_lag_p95_s
    lag = 100.0 * (lag_s - QUIET_S) / (UNBEARABLE_S - QUIET_S)
    terms = [_term("event loop", lag, f"the event loop is {lag_s * 1_000:.0f} ms late (p95)")]
    for priority, promised_s in PROMISED_WAIT_S.items():
        wait_s = reading.oldest_wait_s.get(priority, 0.0)
        limit_s, cold_s = reading.oldest_limit_wait_s.get(priority, 0.0), PROMISED_COLD_S[priority]
        if limit_s / cold_s > wait_s / promised_s:
            wait_s, promised_s = limit_s, cold_s
        sentence = (
            f"a {priority.name} call has waited for {wait_s * 1_000:.0f} ms,"
            f" promised are {promised_s * 1_000:.0f} ms"
        )
        waits = min(OTHERS_UP_TO, 100.0 * wait_s / promised_s)
        terms.append(_term(f"{priority.name} waits", waits, sentence))
    used_mb, limit_mb = reading.rss_bytes / 2**20, memory_limit_bytes / 2**20
    memory = 100.0 * reading.rss_bytes / memory_limit_bytes
    terms.append(_term("memory", memory, f"memory: {used_mb:,.0f} MB of {limit_mb:,.0f} MB"))
    processor = 100.0 * (reading.processor_share - reading.low_share)
    sentence = (
        f"processors: {reading.processor_share:.0%} of the machine,"
        f" {reading.low_share:.0%} of it for LOW"
    )
    terms.append(_term("processor", processor, sentence))
    return tuple(terms)


def _term(name: str, load: float, sentence: str) -> LoadTerm:
    return LoadTerm(name, min(100.0, max(0.0, load)), sentence)


class _Latch:
    """Shuts at once above one load; opens after a while at or below a lower one.

    Or after a long while at or below the one above which it shuts.
    """

    def __init__(self, shuts_above: float, opens_at: float) -> None:
        self._shuts_above = shuts_above
        self._dwells = (_Below(opens_at, DWELL_S), _Below(shuts_above, LONG_DWELL_S))
        self.shut = False

    def observe(self, load: float, now: float) -> None:
        if load > self._shuts_above:
            self.shut = True
        over = [dwell.is_over(load, now) for dwell in self._dwells]  # each sees each reading
        if any(over):
            self.shut = False


class _Below:
    """Whether the load has been at or below a limit for so long."""

    def __init__(self, limit: float, dwell_s: float) -> None:
        self._limit = limit
        self._dwell_s = dwell_s
        self._since_s: float | None = None

    def is_over(self, load: float, now: float) -> bool:
        if load > self._limit:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now
        return now - self._since_s >= self._dwell_s

    def passed(self, load: float, now: float) -> int:
        """How many whole dwells have passed since this was asked last."""
        if not self.is_over(load, now):
            return 0
        assert self._since_s is not None
        dwells = int((now - self._since_s) / self._dwell_s)
        self._since_s += dwells * self._dwell_s
        return dwells

    def begin(self, now: float) -> None:
        """Count from now on."""
        self._since_s = now


class _Resumption:
    """LOW comes back slowly, so that it is not what drives the load up again."""

    def __init__(self) -> None:
        self.pages_per_s: float | None = None
        self._steps = (_Below(LOW_AGAIN_AT, RESUME_STEP_S), _Below(LOW_UP_TO, LONG_DWELL_S))

    def observe(self, *, shut: bool, load: float, now: float) -> None:
        if shut:
            self.pages_per_s = 0.0
        elif self.pages_per_s == 0.0:
            self.pages_per_s = LOW_FIRST_RATE
            for step in self._steps:
                step.begin(now)
        elif self.pages_per_s is not None:
            doublings = max([step.passed(load, now) for step in self._steps])
            rate = self.pages_per_s * 2 ** min(doublings, 10)
            self.pages_per_s = rate if rate < LOW_FULL_RATE else None
