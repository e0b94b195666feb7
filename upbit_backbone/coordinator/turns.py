"""Whose turn it is: all LOW callers together have one page in flight."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from upbit_backbone.clock import Clock
from upbit_backbone.errors import ClosedError
from upbit_backbone.tasks import TaskOwner

LOW_SPACING_S = 1.05 / 8
"""How far LOW requests are apart when nobody else asks."""
MOST_IN_FLIGHT = 2
LOOK_AGAIN_S = 0.25
"""How fast LOW may go changes while somebody waits for it."""
RATE_OVER_S = 3.0
_MOST_COUNTED = 1_000
MOST_TOGETHER = 1_000
"""So many wait for a shared turn at most, when it comes, for more to come."""
_ENOUGH_REMEMBERED = 1_000


def _at_any_rate() -> float | None:
    return None


class TurnKeeper:
    """Lets one page go at a time; a second one only while a page takes longer than the spacing.

    So an exchange that is far away costs no throughput, and one that is near never sees two.
    Plain bookkeeping: the caller passes `now`. Next is who had its last turn, or came for the
    first time, longest ago: a stream of newcomers keeps nobody who comes again from its turn.
    """

    def __init__(self, spacing_s: float = LOW_SPACING_S) -> None:
        self._spacing_s = spacing_s
        self._in_flight = 0
        self._last_begun_s = float("-inf")
        self._ranks: OrderedDict[Hashable, int] = OrderedDict()
        """How many turns there had been when a caller had its last one; the latest last."""
        self._count = 0

    def wait_s(self, now: float, pages_per_s: float | None = None) -> float | None:
        """Seconds until the next page may go; 0.0: now; None: not before one has ended.

        Args:
            now: Monotonic seconds.
            pages_per_s: No faster than this, above 0; None: turns alone hold it.
        """
        slow_s = 0.0
        if pages_per_s is not None:
            slow_s = max(0.0, self._last_begun_s + 1.0 / pages_per_s - now)
        if self._in_flight == 0:
            return slow_s
        if self._in_flight >= MOST_IN_FLIGHT:
            return None
        return max(slow_s, self._last_begun_s + self._spacing_s - now)

    def join(self, caller: Hashable) -> None:
        """Take that somebody wants a turn: a newcomer ranks just before who had the last one."""
        if caller not in self._ranks:
            self._remember(caller, self._count - 1)

    def rank(self, caller: Hashable) -> int:
        """Who has the lowest is next."""
        # Who was forgotten came, or had a turn, before all others.
        return self._ranks.get(caller, -1)

    def begin(self, caller: Hashable, now: float) -> None:
        """Count a page that goes now."""
        self._in_flight += 1
        self._last_begun_s = now
        self._count += 1
        self._remember(caller, self._count)

    def end(self) -> None:
        """Count a page that is over, however it ended."""
        self._in_flight -= 1

    @property
    def last_begun_s(self) -> float:
        """When the last page went."""
        return self._last_begun_s

    def give_back(self, begun_s: float, before_s: float) -> None:
        """Take that nothing went at `begun_s`, but `before_s`, unless another page has since."""
        if self._last_begun_s == begun_s:
            self._last_begun_s = before_s

    def _remember(self, caller: Hashable, rank: int) -> None:
        self._ranks[caller] = rank
        self._ranks.move_to_end(caller)
        if len(self._ranks) > _ENOUGH_REMEMBERED:
            self._ranks.popitem(last=False)


class Turn:
    """One turn while it is held."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = True
        """Whether a page goes; False: there was none left, and the next may go at once."""


class LowTurns:
    """Waits for turns. One for the whole service: the store's own pages take theirs too."""

    def __init__(
        self,
        clock: Clock,
        spacing_s: float = LOW_SPACING_S,
        *,
        pages_per_s: Callable[[], float | None] = _at_any_rate,
    ) -> None:
        """Begin with nobody.

        Args:
            clock: The exchange's time.
            spacing_s: A page that takes longer is joined by another one.
            pages_per_s: How fast LOW may go, after it had to wait for the load; None: at any rate.
        """
        self._clock = clock
        self._pages_per_s = pages_per_s
        self._keeper = TurnKeeper(spacing_s)
        self._waiting: list[tuple[Hashable, asyncio.Event]] = []
        self._begun_s: deque[float] = deque(maxlen=_MOST_COUNTED)
        self.pages = 0
        """How many LOW has got."""

    def got_pages_per_s(self) -> float:
        """How many pages a second LOW really gets, over the last three."""
        since_s = self._clock.monotonic() - RATE_OVER_S
        return sum(begun_s > since_s for begun_s in self._begun_s) / RATE_OVER_S

    @asynccontextmanager
    async def turn(self, caller: Hashable) -> AsyncIterator[Turn]:
        """Hold one of the turns; `caller` tells whose pages belong together."""
        mine = (caller, asyncio.Event())
        self._waiting.append(mine)
        self._keeper.join(caller)
        try:
            while not self._may_go(mine):
                await self._look_again(mine)
            begun_s, before_s = self._clock.monotonic(), self._keeper.last_begun_s
            self._keeper.begin(caller, begun_s)
        finally:
            self._waiting.remove(mine)
            self._wake()
        turn = Turn()
        self._begun_s.append(begun_s)
        self.pages += 1
        try:
            yield turn
        finally:
            self._keeper.end()
            if not turn.used:
                self._keeper.give_back(begun_s, before_s)
                self._begun_s.remove(begun_s)
                self.pages -= 1
            self._wake()

    def _next(self) -> tuple[Hashable, asyncio.Event]:
        # Of equals the one that waits longest: `min` takes the first.
        return min(self._waiting, key=lambda waiting: self._keeper.rank(waiting[0]))

    def _may_go(self, mine: tuple[Hashable, asyncio.Event]) -> bool:
        return self._next() is mine and self._wait_s() == 0.0

    async def _look_again(self, mine: tuple[Hashable, asyncio.Event]) -> None:
        """Wait until the turn may have come; a timer that comes early is looked at again."""
        wait_s = None
        if self._next() is mine:
            wait_s = self._wait_s()
            if wait_s is not None and self._pages_per_s() is not None:
                wait_s = min(wait_s, LOOK_AGAIN_S)
        try:
            async with asyncio.timeout(wait_s):
                await mine[1].wait()
        except TimeoutError:
            pass
        mine[1].clear()

    def _wait_s(self) -> float | None:
        # At a rate of 0 it is held back, by others and before its turn.
        return self._keeper.wait_s(self._clock.monotonic(), self._pages_per_s() or None)

    def _wake(self) -> None:
        if self._waiting:
            self._next()[1].set()


class _Crew:
    """Those who take one turn together."""

    def __init__(self) -> None:
        self.members = 0
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.has_turn = False


class SharedTurn:
    """Turns for many small requests that below become one: who waits meanwhile goes along.

    All who wait get the turn together, and it is over when the last of them has ended.
    """

    def __init__(self, turns: LowTurns, tasks: TaskOwner, caller: str) -> None:
        """Take whose turns they are; `caller` tells what they ask for."""
        self._turns = turns
        self._tasks = tasks
        self._caller = caller
        self._crew: _Crew | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn with all others who wait for one.

        Raises:
            ClosedError: the service closes.
        """
        crew = self._crew
        if crew is None:
            crew = self._crew = _Crew()
            self._begin(crew)
        crew.members += 1
        try:
            await crew.begun.wait()
            if not crew.has_turn:
                raise ClosedError("the request was ended because the service closes")
            yield
        finally:
            crew.members -= 1
            if not crew.members:
                crew.over.set()
                if self._crew is crew:
                    self._crew = None

    def _begin(self, crew: _Crew) -> None:
        task = asyncio.get_running_loop().create_task(
            self._hold(crew), name=f"turn of {self._caller}"
        )
        self._tasks.own(task)
        # Also when it is cancelled before its first step.
        task.add_done_callback(lambda _: self._go(crew))

    async def _hold(self, crew: _Crew) -> None:
        async with self._turns.turn(self._caller) as turn:
            # They are let in a few at a time: as long as more come, they go along.
            seen = 0
            while seen < crew.members < MOST_TOGETHER:
                seen = crew.members
                await asyncio.sleep(0)
            turn.used = crew.members > 0
            crew.has_turn = True
            self._go(crew)
            await crew.over.wait()

    def _go(self, crew: _Crew) -> None:
        crew.begun.set()
        if self._crew is crew:
            self._crew = None
