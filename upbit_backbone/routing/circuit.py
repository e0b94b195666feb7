"""What a 418 means: nothing is asked of the exchange, by anybody here, until it is over."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import RateLimitedError
from upbit_backbone.routing.shared_budget import SharedBudget

logger = logging.getLogger(__name__)

FIRST_UNNAMED_S = 60.0
"""Where the exchange does not say how long, clients in the field assume a minute."""
LONGEST_S = 86_400.0
"""A longer block is not believed: a clock was wrong when it was noted, or is now."""


class _Noted(msgspec.Struct):
    blocked_until_ms: int


class Circuit:
    """Closed: requests may be sent. Open while the exchange blocks this address (418).

    The end of a block is kept in a file, because asking during one lengthens it, also by a
    program that was started again meanwhile.

    Args:
        clock: The exchange's time.
        file: Where the end of a block is kept; None: nowhere.
        budget: What all programs of this user on this machine share: a block holds for all.
        enabled: Whether a block is obeyed. Else every request tries, and this program keeps what
            it is told to itself.
    """

    def __init__(
        self,
        clock: Clock,
        file: Path | None,
        budget: SharedBudget | None = None,
        *,
        enabled: bool = True,
    ) -> None:
        self._clock = clock
        self._file = file
        self._budget = budget if enabled else None
        self._enabled = enabled
        self._until_s = self._opened_s = float("-inf")
        self._noting = asyncio.Lock()
        self._unnamed = 0
        self.blocks = 0
        """How often the exchange blocked this address since the start."""

    @property
    def left_s(self) -> float:
        """Seconds until requests may be sent; 0.0: now."""
        return self._told_left_s if self._enabled else 0.0

    @property
    def _told_left_s(self) -> float:
        told_s = 0.0 if self._budget is None else self._budget.ban_left_s
        return max(told_s, self._until_s - self._clock.monotonic(), 0.0)

    def check(self) -> None:
        """Refuse a request while the exchange blocks this address.

        Raises:
            RateLimitedError: it does; says until when.
        """
        left_s = self.left_s
        if left_s > 0:
            end = utc_datetime(self._clock.now_ms() + round(left_s * 1_000))
            raise RateLimitedError(
                f"the exchange blocks this address until {end:%H:%M:%S} UTC (418): nothing is"
                " asked before, for that would lengthen the block",
                blocked=True,
                retry_after_s=left_s,
            )

    def open(self, seconds: float | None) -> None:
        """The exchange answered 418.

        Args:
            seconds: How long, by its message; None: it did not say. Then a minute is assumed,
                and twice as long each time, until a request is answered again.
        """
        if seconds is None and self.left_s > 0:
            return  # another request of those that were under way when it began
        if seconds is None:
            seconds = FIRST_UNNAMED_S * 2**self._unnamed
            self._unnamed += 1
        seconds = min(seconds, LONGEST_S)
        now = self._clock.monotonic()
        self.blocks += self.left_s == 0
        self._until_s, self._opened_s = max(self._until_s, now + seconds), now
        logger.warning("the exchange blocks this address for %.0f s (418)", self._told_left_s)

    def answered(self, sent_s: float) -> None:
        """A request sent at `sent_s` was answered: then no block was in force."""
        if sent_s > self._opened_s:
            self._unnamed = 0

    async def look(self) -> None:
        """Learn of a block that another program was told of."""
        if self._budget is not None:
            await self._budget.look()

    async def note(self) -> None:
        """Keep the end of the block for a later start, and tell the other programs; a file
        that cannot be written is no reason to stop."""
        if self._budget is not None:
            await self._budget.note_ban(self.left_s)
        if self._file is None:
            return
        noted = _Noted(self._clock.now_ms() + round(self._told_left_s * 1_000))
        try:
            async with self._noting:
                await asyncio.to_thread(_write, self._file, msgspec.json.encode(noted))
        except OSError as error:
            logger.warning("the end of the block was not kept in %s: %s", self._file, error)

    async def recall(self) -> None:
        """Take up a block that was noted by an earlier start or another program, if it is not
        over."""
        await self.look()
        if self._file is None:
            return
        try:
            noted = msgspec.json.decode(await asyncio.to_thread(self._file.read_bytes), type=_Noted)
        except (FileNotFoundError, NotADirectoryError):  # the store tells of a bad folder
            return
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("%s was not understood and is not used: %s", self._file, error)
            return
        left_s = (noted.blocked_until_ms - self._clock.now_ms()) / 1_000
        if 0 < left_s <= LONGEST_S:
            self._until_s = self._clock.monotonic() + left_s


def _write(file: Path, text: bytes) -> None:
    """Replace the file in one step: a program that is killed leaves the old one or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_bytes(text)
    os.replace(beside, file)
