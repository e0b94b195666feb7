"""One request budget for all programs of one user on one machine.

The exchange counts requests by address, so two programs that each keep its limits exceed them
together. A small file in the user's runtime folder holds what each of them was granted in the
last second, and the end of a ban. Who cannot use the file goes on at half rate, and says so:
two programs that do not see each other then still keep the limits.

In the file a request counts from when it was granted. That it may reach the exchange later only
its own program takes into account (`RateWindow.answered`), not the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import platformdirs

from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.errors import RateLimitedError
from upbit_backbone.routing.budget_file import BudgetFile
from upbit_backbone.routing.budget_sheet import (
    Ban,
    DamagedSheetError,
    ForeignSheetError,
    Grant,
    Rule,
    Sheet,
)

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

GIVE_UP_S = 0.1
"""Locks are let go within a millisecond, on a busy machine within some. Not for so long: who
holds it was stopped."""
LOOK_AGAIN_S = 0.005
ASK_AGAIN_S = 0.25
"""While the file cannot be used."""
STALLED_S = 0.5
"""A call into the file that takes longer hangs, with its disk."""
HALF = 0.5
LONGEST_WINDOW_S = 1.05
"""Of the groups that share a budget: after so long nothing counts that nobody saw."""
MOST_OWED = 16
"""More than any window grants."""


class Availability:
    """Whether the file can be used, and what part of the rate that leaves.

    Pure bookkeeping. After a failure the file is asked for now and then. Once it works again
    half the rate still holds, until every program has asked and what any of them was granted
    without the file has left the window.
    """

    def __init__(self) -> None:
        self.reason = ""
        """Why half the rate holds; empty: it does not."""
        self._since = 0.0
        self._missed_since: float | None = None
        self._ask_again_at = float("-inf")
        self._half_until: float | None = None

    def asks(self, now: float) -> bool:
        """Whether it is worth asking the file."""
        return now >= self._ask_again_at

    def rate(self, now: float) -> float:
        """The part of the full rate that may be used."""
        if self._half_until is not None and now >= self._half_until:
            logger.info("the shared request budget is back after %.1f s", now - self._since)
            self.reason, self._half_until = "", None
        return HALF if self.reason else 1.0

    def worked(self, now: float) -> None:
        """The file was used."""
        self._missed_since, self._ask_again_at = None, float("-inf")
        if self.reason and self._half_until is None:
            self._half_until = now + ASK_AGAIN_S + LONGEST_WINDOW_S
        self.rate(now)

    def missed(self, now: float, reason: str) -> None:
        """Another program held the lock: an ordinary thing, if it does not last."""
        if self._missed_since is None:
            self._missed_since = now
        if self.reason or now - self._missed_since >= GIVE_UP_S:
            self.failed(now, reason)

    def failed(self, now: float, reason: str) -> None:
        """The file cannot be used."""
        self.rate(now)
        if not self.reason:
            logger.warning(
                "requests go at half the rate, for the budget that all programs of this user"
                " share cannot be used: %s",
                reason,
            )
            self._since = now
        self.reason, self._half_until = reason, None
        self._ask_again_at = now + ASK_AGAIN_S


class Counted(NamedTuple):
    """A grant that the file holds."""

    at: float
    critical: bool
    ours: bool


class Verdict(NamedTuple):
    """What the file says to one request."""

    wait_s: float
    """Until it is worth asking again; 0.0: granted."""
    grants: tuple[Counted, ...]
    """All grants of the group in the last window, in order."""


class SharedBudget:
    """The budget of one exchange. `close` lets go of its thread; a later use starts another."""

    def __init__(self, file: BudgetFile | OSError, clock: Clock) -> None:
        """Remember where it lies; nothing is touched before it is used.

        Args:
            file: Or why there can be none.
            clock: The machine's; its monotonic time is compared with that of other processes.
        """
        self._file = file
        self._clock = clock
        self.owner = uuid4().int >> 75  # 53 bits: a whole number in any JSON
        self._availability = Availability()
        self._ban: Ban | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._hanging: Future[Any] | None = None

    @classmethod
    def for_host(
        cls, rest_url: str, folder: Path | None = None, *, clock: Clock | None = None
    ) -> SharedBudget | None:
        """The budget for an exchange's address.

        Args:
            rest_url: Host and port name the file.
            folder: Where it lies; by default in the user's runtime folder, and then an
                exchange on this machine has none: a simulator is nobody else's.
            clock: By default the machine's.
        """
        address = urlsplit(rest_url)
        host = (address.hostname or "").lower()
        if folder is None and _is_this_machine(host):
            return None
        clock = clock or SystemClock()
        port = address.port or (443 if address.scheme == "https" else 80)
        name = re.sub(r"[^0-9a-z.-]", "_", f"{host}_{port}") + ".json"
        try:
            path = (folder or _runtime_folder()) / name
        except OSError as error:
            return cls(error, clock)
        return cls(BudgetFile(path, clock, quiet_s=LONGEST_WINDOW_S), clock)

    @property
    def degraded(self) -> bool:
        """Whether half the rate holds, because the file could not be used.

        As of the last request: while none is sent, nobody looks.
        """
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why it cannot be used; empty: it can."""
        self._availability.rate(self._clock.monotonic())
        return self._availability.reason

    @property
    def rate(self) -> float:
        """The part of the full rate in force: 1.0, or a half while `degraded`."""
        return self._availability.rate(self._clock.monotonic())

    @property
    def asks(self) -> bool:
        """Whether the next request asks the file; while `degraded` only one does at times."""
        if self._hanging is not None and not self._hanging.done():
            return False
        return self._availability.asks(self._clock.monotonic())

    @property
    def ban_left_s(self) -> float:
        """Seconds left of a ban that any of the programs told of, as of the last look."""
        if self._ban is None:
            return 0.0
        return self._ban.left_s(self._clock.monotonic(), self._clock.now_ms())

    def check(self) -> None:
        """Refuse a request during a ban.

        Raises:
            RateLimitedError: the exchange blocks this address, another program says.
        """
        left_s = self.ban_left_s
        if left_s > 0:
            raise RateLimitedError(
                f"the exchange blocks this address for another {left_s:.0f} s (418), as another"
                " program on this machine was told: nothing is asked before, for that would"
                " lengthen the block",
                blocked=True,
                retry_after_s=left_s,
            )

    def group(self, name: str) -> GroupBudget:
        """The budget of one rate group, for its `RateLimiter`."""
        return GroupBudget(self, name)

    async def note_ban(self, seconds: float) -> None:
        """Tell the other programs of a ban (418). Never fails; cancelling does not stop it."""

        def note(sheet: Sheet, now: float) -> None:
            sheet.note_ban(now, self._clock.now_ms(), seconds)

        alone = Sheet(ban=self._ban)
        note(alone, self._clock.monotonic())
        self._ban = alone.ban
        await self.call(note)

    async def look(self) -> None:
        """Read the ban: at the start, and where nothing is asked for a while. Never fails."""
        await self.call(lambda sheet, now: None)

    def close(self) -> None:
        """End the thread, once it is done. May be called twice."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    async def call(
        self,
        work: Callable[[Sheet, float], Result],
        undo: Callable[[Sheet, float], None] | None = None,
    ) -> Result | None:
        """Let `work` change the sheet, in the thread. None: it could not be had.

        Args:
            work: Is given the sheet and the time, under the lock.
            undo: Takes back what `work` did, for a caller that is cancelled meanwhile.
        """
        call = self._executor().submit(self._changed, work)
        told = asyncio.wrap_future(call)
        try:
            await asyncio.wait({told}, timeout=STALLED_S)
        except asyncio.CancelledError:
            self._drop(call, undo)
            raise
        if told.done():
            answer = told.result()
        else:
            self._hanging = call
            self._drop(call, undo)
            answer = OSError(f"its file did not answer for {STALLED_S:g} s")
        now = self._clock.monotonic()
        if isinstance(answer, BlockingIOError):
            self._availability.missed(now, str(answer))
            return None
        if isinstance(answer, Exception):
            self._availability.failed(now, str(answer))
            return None
        self._availability.worked(now)
        result, ban = answer
        if ban is not None and ban.left_s(now, self._clock.now_ms()) > self.ban_left_s:
            self._ban = ban
        return result

    def _changed(
        self, work: Callable[[Sheet, float], Result]
    ) -> tuple[Result, Ban | None] | Exception:
        """In the thread. A failure is a value: nobody may be there to see it raised."""
        if isinstance(self._file, OSError):
            return self._file
        try:
            return self._file.change(lambda sheet, now: (work(sheet, now), sheet.ban))
        except (OSError, DamagedSheetError, ForeignSheetError) as error:
            return error

    def _drop(self, call: Future[Any], undo: Callable[[Sheet, float], None] | None) -> None:
        """Nobody waits for a call any more: if it can still be undone, it is."""
        if undo is not None and not call.cancel():
            # In the same thread, so after it. What fails to be undone leaves the window anyway.
            self._executor().submit(self._changed, undo)

    def _executor(self) -> ThreadPoolExecutor:
        # One of its own: the loop's may be full of names that are looked up in vain.
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="shared budget")
        return self._thread


class GroupBudget:
    """The shared budget of one rate group, as its `RateLimiter` uses it."""

    def __init__(self, shared: SharedBudget, name: str) -> None:
        self._shared = shared
        self._name = name
        self._owed: deque[Grant] = deque(maxlen=MOST_OWED)

    @property
    def rate(self) -> float:
        """The part of the full rate in force: 1.0, or a half."""
        return self._shared.rate

    @property
    def asks(self) -> bool:
        """Whether the next request asks the file."""
        return self._shared.asks

    @property
    def degraded(self) -> bool:
        """Whether the file cannot be used."""
        return self._shared.degraded

    def check(self) -> None:
        """Refuse a request during a ban, as `SharedBudget.check` does."""
        self._shared.check()

    def owe(self, at: float, *, critical: bool) -> None:
        """Grant a request without the file; it is told of it with the next one it is asked."""
        self._owed.append(Grant(at, self._shared.owner, critical))

    async def ask(self, rule: Rule, *, critical: bool, waiting: int) -> Verdict | None:
        """Ask for the right to send one request, among all programs.

        Cancelling gives back what was granted meanwhile, as soon as the file can be had.

        Args:
            rule: What holds for all programs together.
            critical: Whether it may take what is kept for CRITICAL.
            waiting: How many further requests wait here that are not.

        Returns:
            None: the file could not be had.
        """
        owed, owner = tuple(self._owed), self._shared.owner
        taken: list[Grant] = []

        def take(sheet: Sheet, now: float) -> Verdict:
            group = sheet.group(self._name)
            group.add(owed)
            wait_s = sheet.quiet_s(now, rule.window_s) or group.take(
                now, owner, rule, critical=critical, waiting=waiting
            )
            if wait_s == 0:
                taken.append(group.grants[-1])
            counted = (Counted(one.at, one.critical, one.owner == owner) for one in group.grants)
            return Verdict(wait_s, tuple(counted))

        def give_back(sheet: Sheet, now: float) -> None:
            for grant in taken:
                sheet.group(self._name).withdraw(grant)

        verdict = await self._shared.call(take, give_back)
        if verdict is not None:
            for grant in owed:
                with suppress(ValueError):
                    self._owed.remove(grant)
        return verdict


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not host
    return address.is_loopback or address.is_unspecified


def _runtime_folder() -> Path:
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR it warns, and names a folder that does as well.
        warnings.simplefilter("ignore")
        return Path(platformdirs.user_runtime_dir("upbit-backbone", appauthor=False))
