"""Who waits for work of ours to begin, and since when."""

from __future__ import annotations

from upbit_backbone.protocol import Priority


class WaitTracker:
    """The oldest wait of each priority. Plain bookkeeping: the caller passes `now`.

    A call waits from where it was let in until its work begins; while the load manager holds it
    back it is not told of here, or the load would keep itself up.
    """

    def __init__(self) -> None:
        self._since: dict[Priority, dict[int, float]] = {priority: {} for priority in Priority}
        self._last = 0

    def begin(self, priority: Priority, now: float) -> int:
        """A call begins to wait; returns what `end` takes."""
        self._last += 1
        self._since[priority][self._last] = now
        return self._last

    def end(self, priority: Priority, ticket: int) -> None:
        """It waits no more; may be called twice."""
        self._since[priority].pop(ticket, None)

    def oldest_s(self, now: float) -> dict[Priority, float]:
        """How long the oldest of each priority has waited; without those where nobody waits."""
        return {
            priority: now - next(iter(waiting.values()))
            for priority, waiting in self._since.items()
            if waiting
        }
