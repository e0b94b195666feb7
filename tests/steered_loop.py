"""A loop in which time passes only where everything waits for it.

Ten minutes of waiting cost as much as their timers: none. Nothing outside of the process can be
waited for but without a limit of time, so this is for tests whose world is in memory.
"""

from __future__ import annotations

import asyncio
import selectors

TURN_S = 1e-9
"""What a turn of the loop takes. Without it, whoever waits for less than a clock can tell apart
would wait for ever."""


class SteeredLoop(asyncio.SelectorEventLoop):
    """When no task can go on, time leaps to the next timer."""

    def __init__(self) -> None:
        self._now_s = 1_000.0
        super().__init__(_Leaping(self))

    def time(self) -> float:
        return self._now_s

    def leap(self, seconds: float) -> None:
        """Let time pass; timers that are due then run in the loop's next turn."""
        self._now_s += seconds


class _Leaping(selectors.SelectSelector):
    def __init__(self, loop: SteeredLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        self._loop.leap(TURN_S if ready else max(timeout, TURN_S))
        return ready
