"""When a store's file is looked after, and by which job. Plain bookkeeping, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from upbit_backbone.clock import DAY_MS, HOUR_MS
from upbit_backbone.storage.figures import StoreFigures
from upbit_backbone.storage.retention import RetentionPolicy

Job = Literal["retain", "shrink", "log", "analyze", "check"]
"""Keep the policy; give free pages back; empty the log; gather statistics; look for damage."""

IDLE_S = 30.0
"""So long nobody used the file: then nobody is likely to wait for it."""
PATIENCE_S = 3_600.0
"""So long a program that always uses it is waited for: no step holds a write up for long."""
AGAIN_S = 3_600.0
"""A job that failed is not tried again before."""
FREE_PAGES = 1_024
FREE_SHARE = 0.1
"""So many free pages, of them all and by share, are given back: fewer are used again soon."""
LOG_BYTES = 32 << 20
"""Twice what the log has when it is moved into the file: a long read let it grow."""


class MaintenancePlan:
    """Decides what is due; told when the file is used, and what was done."""

    def __init__(self, policy: RetentionPolicy, *, now_s: float) -> None:
        self._policy = policy
        self._works = 0
        self._used_s = now_s
        self._turn_s = now_s
        self._waited_enough = False
        self._not_before_s: dict[Job, float] = {}

    def saw(self, works: int, now_s: float) -> None:
        """Note how many pieces of work others asked for by now."""
        if works != self._works:
            self._works, self._used_s = works, now_s

    def begins(self, now_s: float) -> bool:
        """Whether a turn begins: it is a good moment, or none has come for too long."""
        self._waited_enough = now_s - self._turn_s >= PATIENCE_S
        if now_s - self._used_s < IDLE_S and not self._waited_enough:
            return False
        self._turn_s = now_s
        return True

    def gives_way(self) -> bool:
        """Whether the turn ends because somebody uses the file."""
        return self._used_s > self._turn_s and not self._waited_enough

    def failed(self, job: Job, now_s: float) -> None:
        """It could not be done; later again."""
        self._not_before_s[job] = now_s + AGAIN_S

    def due(self, figures: StoreFigures, now_ms: int, now_s: float) -> Job | None:
        """The job to begin now, if it is a good moment; those that make room come first."""
        needed: Mapping[Job, bool] = {
            "retain": self._policy.exceeded(figures.used_bytes)
            or (not self._policy.demands_nothing and _over(figures, "retain", HOUR_MS, now_ms)),
            "shrink": figures.gives_back
            and figures.free_pages >= FREE_PAGES
            and figures.free_share >= FREE_SHARE,
            "log": figures.log_bytes >= LOG_BYTES,
            "analyze": _over(figures, "analyze", DAY_MS, now_ms),
            "check": not figures.damaged and _over(figures, "check", DAY_MS, now_ms),
        }
        for job, need in needed.items():
            if need and now_s >= self._not_before_s.get(job, now_s):
                return job
        return None


def _over(figures: StoreFigures, job: Job, every_ms: int, now_ms: int) -> bool:
    """Whether a job was last done so long ago, or, after the clock was set back, in the future."""
    done_ms = figures.done_ms.get(job)
    return done_ms is None or not 0 <= now_ms - done_ms < every_ms
