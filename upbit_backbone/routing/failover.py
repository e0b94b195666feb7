"""How the stream stands, why and since when; and how long to wait before the next attempt.

idle ──wanted──▶ connecting ──first value──▶ live ◀──taken over──┐
                     │                        │  └─suspicion─▶ suspicious
                     └──────lost──────┐       │lost               │lost
                                      ▼       ▼                   │
                 blocked ◀──418── reconnecting ◀──────────────────┘
                                      │ not live for 2 s
                                      ▼
                                   polling ──first value──▶ live
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime
from random import Random
from typing import Literal

import msgspec

from upbit_backbone.clock import Clock, utc_datetime

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STABLE_S = 10.0
"""Data that flowed for this long resets the backoff; merely connecting does not."""
POLL_AFTER_S = 2.0
"""A stream that is not back after this time is replaced by REST polling until it is."""
SUSPECT_AGAIN_S = 30.0
"""The least time between two standby connections; it doubles while they find nothing new."""
MAX_SUSPECT_AGAIN_S = 3_600.0
KEPT_TRANSITIONS = 100

State = Literal[
    "idle", "connecting", "live", "suspicious", "reconnecting", "polling", "blocked", "closed"
]


class Transition(msgspec.Struct, frozen=True):
    """The stream went from one state to another."""

    state: State
    reason: str
    since: datetime


class Backoff:
    """Capped exponential backoff with full jitter.

    The whole wait is drawn, at the cap too: programs that were cut off together do not come
    back together.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._attempts = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        limit_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self._attempts, 16))
        self._attempts += 1
        return self._rng.uniform(0, limit_s)

    def reset(self) -> None:
        """Begin anew with short waits."""
        self._attempts = 0


class Failover:
    """The state machine of the stream. Decides; opens, closes and polls nothing itself."""

    def __init__(self, clock: Clock, rng: Random, *, may_poll: bool = True) -> None:
        """Begin idle.

        Args:
            clock: The exchange's time.
            rng: Chance, for the backoff.
            may_poll: Whether REST may stand in for a stream that is away.
        """
        self._clock = clock
        self._backoff = Backoff(rng)
        self._may_poll = may_poll
        self._live_since_s: float | None = None
        self._lost_s: float | None = None
        self._suspect_again_s = SUSPECT_AGAIN_S
        self._last_standby_s = float("-inf")
        self.state: State = "idle"
        self.reason = "nobody reads a stream"
        self.since = utc_datetime(clock.now_ms())
        self.transitions: deque[Transition] = deque(maxlen=KEPT_TRANSITIONS)

    @property
    def live(self) -> bool:
        """Whether values arrive by the stream."""
        return self.state in ("live", "suspicious")

    def become_idle(self) -> None:
        """Nothing is wanted of the stream any more."""
        self._live_since_s = self._lost_s = None
        self._become("idle", "nobody reads a stream")

    def close(self) -> None:
        """The service ends."""
        self._become("closed", "the service closes")

    def connecting(self) -> None:
        """A first connection is being opened; a lost one goes on being that."""
        if self.state == "idle":
            self._become("connecting", "somebody reads a stream")

    def flows(self) -> bool:
        """A value arrived; True when that is news."""
        if self.live:
            return False
        self._live_since_s, self._lost_s = self._clock.monotonic(), None
        self._become("live", "")
        return True

    def lost(self, reason: str) -> float:
        """The connection is gone or was not had. Returns how long to wait before another."""
        now = self._clock.monotonic()
        if self._live_since_s is not None and now - self._live_since_s >= STABLE_S:
            self._backoff.reset()
        self._live_since_s = None
        if self._lost_s is None:
            self._lost_s = now
        self._become("polling" if self.state == "polling" else "reconnecting", reason)
        return self._backoff.next_s()

    def block(self, reason: str) -> None:
        """The exchange refuses this address for a time: nothing is asked meanwhile."""
        if self._lost_s is None:
            self._lost_s = self._clock.monotonic()
        self._become("blocked", reason)

    def unblock(self) -> None:
        """The block is over."""
        if self.state == "blocked":
            self._become("reconnecting", "the block is over")

    def poll(self) -> bool:
        """Whether REST has to stand in for the stream now."""
        if self.state == "reconnecting" and self.poll_in_s() == 0:
            self._become("polling", self.reason)
        return self.state == "polling"

    def poll_in_s(self) -> float | None:
        """Seconds until `poll` may say so; None: not as things stand."""
        if self.state == "polling":
            return 0.0
        if self.state != "reconnecting" or self._lost_s is None or not self._may_poll:
            return None
        return max(0.0, self._lost_s + POLL_AFTER_S - self._clock.monotonic())

    def suspect(self, reason: str) -> bool:
        """The connection may lose data. True when a standby may be opened beside it."""
        now = self._clock.monotonic()
        if self.state != "live" or now - self._last_standby_s < self._suspect_again_s:
            return False
        self._last_standby_s = now
        self._become("suspicious", reason)
        return True

    def taken_over(self, *, founded: bool) -> None:
        """The standby serves now, or was given up.

        Args:
            founded: It had what the other connection did not. Where it never has, the market
                is quiet and the next suspicion has to wait longer.
        """
        if founded:
            self._suspect_again_s = SUSPECT_AGAIN_S
        else:
            self._suspect_again_s = min(MAX_SUSPECT_AGAIN_S, self._suspect_again_s * 2)
        if self.state == "suspicious":
            self._become("live", "")

    def _become(self, state: State, reason: str) -> None:
        if state != self.state:
            self.since = utc_datetime(self._clock.now_ms())
            self.transitions.append(Transition(state, reason, self.since))
            logger.info("stream %s%s", state, f": {reason}" if reason else "")
        self.state, self.reason = state, reason
