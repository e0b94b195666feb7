"""When the live connection is gone, and for how long: what header and window say of it."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, QTimer, Signal

from upbit_backbone.clock import Clock
from upbit_backbone.protocol import SystemStatus

OUTAGE_AFTER_MS = 3_000
"""A break this short heals by itself and is not spoken of."""
_CHECK_EVERY_MS = 500


@dataclass(frozen=True, slots=True)
class Outage:
    """The stream is gone."""

    since_ms: int
    offline: bool
    """The exchange does not answer requests either."""
    polled: bool
    """Prices come by a request a second meanwhile."""
    was_live: bool
    """False: there was no live connection since the program started."""
    reason: str
    """The service's words."""


class OutageWatch(QObject):
    """Tells of an outage once it has lasted, of its changes, and of its end."""

    changed = Signal(object)
    """`Outage`, or None when prices are live again."""

    def __init__(self, clock: Clock, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._clock = clock
        self._status: SystemStatus | None = None
        self._lost_ms: int | None = None
        self._was_live = False
        self._told: Outage | None = None
        self._timer = QTimer(self, interval=_CHECK_EVERY_MS)
        self._timer.timeout.connect(self.check)

    def set_status(self, status: SystemStatus) -> None:
        """Take how the connection is doing."""
        self._status = status
        if status.connection == "live":
            self._lost_ms, self._was_live = None, True
            self._timer.stop()
        elif self._lost_ms is None:
            self._lost_ms = self._clock.now_ms()
            self._timer.start()
        self.check()

    def check(self) -> None:
        """Tell what has changed since it was told last."""
        outage = self._outage()
        if outage != self._told:
            self._told = outage
            self.changed.emit(outage)

    def _outage(self) -> Outage | None:
        status, lost_ms = self._status, self._lost_ms
        if status is None or lost_ms is None:
            return None
        if self._told is None and self._clock.now_ms() - lost_ms < OUTAGE_AFTER_MS:
            return None
        return Outage(
            lost_ms,
            status.connection == "offline",
            status.connection == "polling",
            self._was_live,
            status.reason,
        )
