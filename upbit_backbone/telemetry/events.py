"""What happened lately, in sentences: a log in memory that forgets its oldest entries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.models import Gap, GapState, Timeframe
from upbit_backbone.protocol import EventKind, Severity, SystemEvent

KEPT = 1_000
NAMED: Final = 5
"""Of what happened to many markets at once so many are named."""
_GAPS: Final[Mapping[GapState, tuple[Severity, str]]] = {
    "open": ("warning", "trades that the stream lost are read back"),
    "closed": ("info", "trades that the stream lost were read back"),
    "unfillable": ("warning", "trades that the stream lost cannot be had"),
}


class EventLog:
    """The newest events, numbered from 1.

    A reader remembers the last number it saw and asks for what is newer. One that was away
    for too long sees from the numbers that events are gone.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        kept: int = KEPT,
        on_event: Callable[[SystemEvent], None] | None = None,
    ) -> None:
        """Take the clock that stamps.

        Args:
            clock: Whose wall time events carry.
            kept: How many events stay.
            on_event: Called with each new event, at once; must not raise.
        """
        self._clock = clock
        self._events: deque[SystemEvent] = deque(maxlen=kept)
        self._on_event = on_event
        self.last = 0
        """The number of the newest event; 0 before the first."""

    def add(self, layer: str, severity: Severity, kind: EventKind, sentence: str) -> SystemEvent:
        """Log something that happens now."""
        self.last += 1
        time = utc_datetime(self._clock.now_ms())
        event = SystemEvent(self.last, time, layer, severity, kind, sentence)
        self._events.append(event)
        if self._on_event is not None:
            self._on_event(event)
        return event

    def since(self, number: int) -> tuple[SystemEvent, ...]:
        """Events that are newer than this number, oldest first; 0 for all that are kept."""
        known = len(self._events) - (self.last - number)
        return tuple(islice(self._events, max(0, known), None))


class SpanEvents:
    """Gaps of trades and revised candles, gathered to be told with their names and times.

    A lost connection breaks the trades of every market at once: what happens alike within a second
    is one event.
    """

    def __init__(self) -> None:
        self._gaps: dict[GapState, list[Gap]] = {}
        self._revised: dict[str, list[tuple[str, Timeframe, tuple[int, ...]]]] = {}

    def gap(self, gap: Gap) -> None:
        """A gap of trades has opened, or ended."""
        self._gaps.setdefault(gap.state, []).append(gap)

    def revised(
        self, symbol: str, timeframe: Timeframe, opens_ms: Sequence[int], reason: str
    ) -> None:
        """Candles of a series that were over have changed; ascending open times."""
        self._revised.setdefault(reason, []).append((symbol, timeframe, tuple(opens_ms)))

    def tell(self, events: EventLog) -> None:
        """Log what has gathered."""
        gaps, self._gaps = self._gaps, {}
        for state, (severity, what) in _GAPS.items():
            if found := gaps.get(state):
                names = [f"{gap.symbol} {_span(gap.start, gap.end)}" for gap in found]
                sentence = f"{what}: {_first(names)}: {found[0].reason}"
                events.add("layer_1", severity, "gap", sentence)
        revised, self._revised = self._revised, {}
        for reason, series in revised.items():
            names = [
                f"{symbol} {timeframe} {_span(*_ends(opens_ms))}"
                + (f" ({len(opens_ms):,})" if len(opens_ms) > 1 else "")
                for symbol, timeframe, opens_ms in series
            ]
            sentence = f"candles were revised, {reason}: {_first(names)}"
            events.add("layer_2", "info", "revision", sentence)


def _ends(opens_ms: Sequence[int]) -> tuple[datetime, datetime]:
    return utc_datetime(opens_ms[0]), utc_datetime(opens_ms[-1])


def _first(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", and {more:,} more" if more > 0 else "")


def _span(start: datetime, end: datetime) -> str:
    """``2026-03-04 05:06:30 – 05:06:33 UTC``; one moment is told once."""
    first, last = f"{start:%Y-%m-%d %H:%M:%S}", f"{end:%Y-%m-%d %H:%M:%S}"
    if first == last:
        return f"{first} UTC"
    return f"{first} – {last if start.date() != end.date() else last[11:]} UTC"
