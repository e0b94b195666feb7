"""What happened lately, in sentences: a log in memory that forgets its oldest entries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.protocol import EventKind, Severity, SystemEvent

KEPT = 1_000


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
