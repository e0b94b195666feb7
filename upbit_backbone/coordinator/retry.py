"""Trying again what may help: with full jitter, within the caller's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState

from upbit_backbone.clock import Clock
from upbit_backbone.errors import BackboneError, RateLimitedError, TransportError

Result = TypeVar("Result")

FIRST_JITTER_S = 0.2
MOST_JITTER_S = 8.0


@dataclass(frozen=True)
class Patience:
    """How long somebody waits for an exchange that fails."""

    attempts: int
    longest_wait_s: float
    """What asks for a longer wait (a block, say) is told instead of waited for."""
    waits_for_limits: bool = False
    """Whether refusals that say when they end do not count as attempts."""


CALL = Patience(attempts=3, longest_wait_s=5.0)
BACKFILL = Patience(attempts=7, longest_wait_s=float("inf"), waits_for_limits=True)
"""Nobody waits at the screen: about half a minute of failures, and any block, is sat out."""


class Retrier:
    """Repeats what failed for a reason that passes: not reached, or too fast.

    The waits come from the injected chance and the error's own `retry_after_s`.
    """

    def __init__(self, clock: Clock, rng: Random, *, enabled: bool = True) -> None:
        """Take time and chance.

        Args:
            clock: The exchange's time.
            rng: Chance, for the jitter.
            enabled: Whether anything is repeated at all.
        """
        self._clock = clock
        self._rng = rng
        self._enabled = enabled
        self.retries = 0

    async def __call__(
        self,
        work: Callable[[], Awaitable[Result]],
        *,
        patience: Patience = CALL,
        deadline: float | None = None,
        on_wait: Callable[[BackboneError, float], None] | None = None,
    ) -> Result:
        """Do it, and again while that is worth it.

        Args:
            work: Makes one attempt.
            patience: How often, and how long.
            deadline: Of the monotonic clock; no wait leads beyond it.
            on_wait: Told the error and the seconds before each wait.

        Raises:
            BackboneError: the last attempt's.
        """
        failures = 0

        def worth(state: RetryCallState) -> bool:
            nonlocal failures
            error = _error_of(state)
            if not (self._enabled and isinstance(error, TransportError | RateLimitedError)):
                return False
            wait_s = error.retry_after_s or 0.0
            told = isinstance(error, RateLimitedError) and error.retry_after_s is not None
            failures += not (patience.waits_for_limits and told)
            in_time = deadline is None or self._clock.monotonic() + wait_s < deadline
            return failures < patience.attempts and wait_s <= patience.longest_wait_s and in_time

        def wait_s(state: RetryCallState) -> float:
            error = _error_of(state)
            assert isinstance(error, BackboneError)
            most_s = min(MOST_JITTER_S, FIRST_JITTER_S * 2 ** max(0, failures - 1))
            return (error.retry_after_s or 0.0) + self._rng.uniform(0, most_s)

        def told(state: RetryCallState) -> None:
            error = _error_of(state)
            assert isinstance(error, BackboneError)
            self.retries += 1
            if on_wait is not None:
                on_wait(error, state.upcoming_sleep)

        retrying = AsyncRetrying(
            sleep=asyncio.sleep, retry=worth, wait=wait_s, before_sleep=told, reraise=True
        )
        return await retrying(work)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
