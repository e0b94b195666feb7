"""Whose turn it is: all LOW callers together have one page in flight."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
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


_MOST_GONE = 100
"""So many who have left may stay in the heap before it is looked whether they are most of it."""


def _at_any_rate() -> float | None:
    return None


def _untold() -> None: ...


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


class Waiter:
    """One who waits for a turn."""

    __slots__ = ("caller", "is_quote", "news", "on_held")

    def __init__(
        self, caller: Hashable, on_held: Callable[[], None] = _untold, *, is_quote: bool = False
    ) -> None:
        self.caller = caller
        self.is_quote = is_quote
        self.on_held = on_held
        """Called when no turns are given any more."""
        self.news = asyncio.Event()


class WaitingLine:
    """Who waits, and who of them is next, in logarithmic time: a burst may be thousands of calls.

    Next is whose caller has the lowest rank, of equals the one that waits longest. Ranks only rise.
    While quotes and pages of loads wait they alternate: a quote is not kept waiting by how many
    loads there are, nor a load by quotes.
    """

    def __init__(self, rank: Callable[[Hashable], int]) -> None:
        self._rank = rank
        self._waiting: dict[Waiter, None] = {}
        self._heaps: dict[bool, list[tuple[int, int, Waiter]]] = {False: [], True: []}
        """Of loads and of quotes, with the rank and the number at arrival; who has left, or ranks
        higher now, is found when it comes to the top."""
        self._arrivals = 0
        self._quote_was_last = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(tuple(self._waiting))

    def enter(self, waiter: Waiter) -> None:
        """Wait from now on."""
        self._waiting[waiter] = None
        self._arrivals += 1
        place = (self._rank(waiter.caller), self._arrivals, waiter)
        heapq.heappush(self._heaps[waiter.is_quote], place)

    def leave(self, waiter: Waiter) -> None:
        """Wait no more."""
        del self._waiting[waiter]
        if sum(map(len, self._heaps.values())) > 2 * len(self._waiting) + _MOST_GONE:
            for heap in self._heaps.values():
                heap[:] = [place for place in heap if place[2] in self._waiting]
                heapq.heapify(heap)

    def served(self, waiter: Waiter) -> None:
        """Take that it has its turn now."""
        self._quote_was_last = waiter.is_quote

    def first(self) -> Waiter | None:
        """Who is next; None: nobody waits."""
        due = self._top(self._heaps[not self._quote_was_last])
        return due or self._top(self._heaps[self._quote_was_last])

    def _top(self, heap: list[tuple[int, int, Waiter]]) -> Waiter | None:
        while heap:
            rank, arrival, waiter = heap[0]
            if waiter not in self._waiting:
                heapq.heappop(heap)
            elif (rank_now := self._rank(waiter.caller)) > rank:
                heapq.heapreplace(heap, (rank_now, arrival, waiter))
            else:
                return waiter
        return None


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
            pages_per_s: How fast LOW may go; 0.0: it has to wait, and no turn is given; None: at
                any rate.
        """
        self._clock = clock
        self._pages_per_s = pages_per_s
        self._keeper = TurnKeeper(spacing_s)
        self._waiting = WaitingLine(self._keeper.rank)
        self._held = False
        """When it was last looked, no turn could be given, and all who wait were told."""
        self._begun_s: deque[float] = deque(maxlen=_MOST_COUNTED)
        self.pages = 0
        """How many LOW has got."""

    def got_pages_per_s(self) -> float:
        """How many pages a second LOW really gets, over the last three."""
        since_s = self._clock.monotonic() - RATE_OVER_S
        return sum(begun_s > since_s for begun_s in self._begun_s) / RATE_OVER_S

    @asynccontextmanager
    async def turn(
        self, caller: Hashable, on_held: Callable[[], None] = _untold, *, is_quote: bool = False
    ) -> AsyncIterator[Turn]:
        """Hold one of the turns.

        Args:
            caller: Tells whose pages belong together.
            on_held: Called when no turns are given any more while it waits.
            is_quote: Whether tickers or books are asked for, not a page of a load.
        """
        mine = Waiter(caller, on_held, is_quote=is_quote)
        self._keeper.join(caller)
        self._waiting.enter(mine)
        try:
            if self._held:
                on_held()
            while (wait_s := self._wait_s(mine)) != 0.0:
                await self._look_again(mine, wait_s)
            begun_s, before_s = self._clock.monotonic(), self._keeper.last_begun_s
            self._keeper.begin(caller, begun_s)
            self._waiting.served(mine)
        finally:
            self._waiting.leave(mine)
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

    def _wait_s(self, mine: Waiter) -> float | None:
        """Seconds until it is worth another look; 0.0: it is its turn; None: it will be woken."""
        if self._waiting.first() is not mine:
            return None
        pages_per_s = self._pages_per_s()
        if pages_per_s == 0.0:
            self._tell_held()
            return LOOK_AGAIN_S
        self._held = False
        wait_s = self._keeper.wait_s(self._clock.monotonic(), pages_per_s)
        if wait_s is None or pages_per_s is None:
            return wait_s
        return min(wait_s, LOOK_AGAIN_S)

    def _tell_held(self) -> None:
        if not self._held:
            self._held = True
            for waiter in self._waiting:
                waiter.on_held()

    @staticmethod
    async def _look_again(mine: Waiter, wait_s: float | None) -> None:
        """Wait until the turn may have come; a timer that comes early is looked at again."""
        try:
            async with asyncio.timeout(wait_s):
                await mine.news.wait()
        except TimeoutError:
            pass
        mine.news.clear()

    def _wake(self) -> None:
        first = self._waiting.first()
        if first is not None:
            first.news.set()


class _Crew:
    """Those who take one turn together."""

    def __init__(self) -> None:
        self.members = 0
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.has_turn = False


class SharedTurn:
    """Turns for many quotes that below become one request: who waits meanwhile goes along.

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
        async with self._turns.turn(self._caller, is_quote=True) as turn:
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
