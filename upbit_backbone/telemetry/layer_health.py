"""How each layer is doing, why, and since when."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.protocol import Health, LayerStatus, Severity
from upbit_backbone.telemetry.events import EventLog

_SEVERITIES: dict[Health, Severity] = {
    "starting": "info",
    "healthy": "info",
    "degraded": "warning",
    "down": "error",
}


class LayerHealth(NamedTuple):
    """The state of a layer; `since` is when it began, not when its reason was last put."""

    health: Health
    reason: str
    since: datetime


class LayerHealthTracker:
    """Turns what layers say of themselves into a state with a beginning, and changes into events.

    Layers are asked, e.g. once a second: a state that came and went between is not seen.
    """

    def __init__(self, events: EventLog, clock: Clock, layers: tuple[str, ...]) -> None:
        self._events = events
        self._clock = clock
        started = utc_datetime(clock.now_ms())
        self._states = {layer: LayerHealth("starting", "", started) for layer in layers}

    def observe(self, layer: str, health: Health, reason: str = "") -> LayerHealth:
        """Take the state of a layer as it is now. A change of reason alone is no event.

        Raises:
            KeyError: no such layer.
        """
        before = self._states[layer]
        if health == before.health:
            # Reasons hold figures that change each second; the state is still the same one.
            self._states[layer] = state = before._replace(reason=reason)
            return state
        now = utc_datetime(self._clock.now_ms())
        self._states[layer] = state = LayerHealth(health, reason, now)
        self._events.add(layer, _SEVERITIES[health], "health", _sentence(layer, before, state))
        return state

    def tracked(self, status: LayerStatus) -> LayerStatus:
        """A layer's own status, taken as it is now, with the moment its state really began."""
        state = self.observe(status.name, status.health, status.reason)
        return LayerStatus(status.name, status.health, status.reason, state.since, status.counters)

    def __getitem__(self, layer: str) -> LayerHealth:
        return self._states[layer]


def _sentence(layer: str, before: LayerHealth, after: LayerHealth) -> str:
    lasted_s = (after.since - before.since).total_seconds()
    why = f": {after.reason}" if after.reason else ""
    return f"{layer} is {after.health}{why}; it was {before.health} for {lasted_s:.0f} s"
