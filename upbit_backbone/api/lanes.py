"""In which order work of NORMAL and LOW begins. Plain bookkeeping: nobody waits in here."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from upbit_backbone.protocol import DataType, Priority

LANES: Final = (Priority.NORMAL, Priority.LOW)
"""CRITICAL and HIGH never queue here."""
LOADS: Final = frozenset({DataType.CANDLE, DataType.TRADE})
"""What is had page by page, and costs something before its first page; the rest are quotes."""
NORMAL_TURNS: Final = 8
"""So many NORMAL calls begin in a row while a LOW one waits; then that one does."""
LOAD_SPACING_S: Final = 0.002
"""So far apart loads of LOW begin: what a thousand of them look up first is a tenth of what a
processor does meanwhile, and far more begin than have a page."""


class Ticket:
    """One call on its way in."""

    __slots__ = ("begun", "entered_s", "is_load", "priority", "turn")

    def __init__(
        self, priority: Priority, turn: asyncio.Future[None], now: float, *, is_load: bool = False
    ) -> None:
        self.priority = priority
        self.is_load = is_load
        """Whether it asks for candles or trades."""
        self.turn = turn
        """Done once the call may go on."""
        self.entered_s = now
        self.begun = False
        """It has a slot, which has to be given back."""


class Lanes:
    """A queue of each priority, first come, first served, and slots for what has begun.

    Of those who could begin, NORMAL goes first; LOW comes after so many NORMAL turns at the latest.
    LOW needs no slot: below, all LOW calls take turns page by page, so a short one is not kept
    waiting by backfills that last for hours. Of its loads one begins every few milliseconds:
    thousands at once keep nobody waiting by what each does before its first page. Quotes pass them.
    """

    def __init__(self, slots: int, *, normal_turns: int = NORMAL_TURNS) -> None:
        """Begin empty.

        Args:
            slots: How many NORMAL calls may be in work at once.
            normal_turns: How many NORMAL calls begin in a row while LOW could.
        """
        self._slots = slots
        self._normal_turns = normal_turns
        self._waiting: dict[Priority, OrderedDict[Ticket, None]] = {
            priority: OrderedDict() for priority in LANES
        }
        """All but loads of LOW."""
        self._loads: OrderedDict[Ticket, None] = OrderedDict()
        self._load_begun_s = float("-inf")
        self._begun = dict.fromkeys(LANES, 0)
        self._turns_in_a_row = 0

    def enter(self, ticket: Ticket) -> None:
        """Wait from now on."""
        self._queue(ticket)[ticket] = None

    def leave(self, ticket: Ticket) -> None:
        """Wait no more, or be over. May be called twice."""
        self._queue(ticket).pop(ticket, None)
        if ticket.begun:
            ticket.begun = False
            self._begun[ticket.priority] -= 1

    def next(self, may_begin: Callable[[Priority], bool], now: float) -> Ticket | None:
        """Whose turn it is; that call has begun. None: nobody can.

        Args:
            now: Monotonic seconds.
            may_begin: Whether a priority may begin work now.
        """
        able = [
            priority for priority in LANES if self._could(priority, now) and may_begin(priority)
        ]
        if not able:
            return None
        chosen = able[0]
        if len(able) == 1:
            self._turns_in_a_row = 0
        elif self._turns_in_a_row < self._normal_turns:
            self._turns_in_a_row += 1
        else:
            chosen, self._turns_in_a_row = Priority.LOW, 0
        ticket = self._first(chosen, now)
        assert ticket is not None
        del self._queue(ticket)[ticket]
        if chosen is Priority.LOW and ticket.is_load:
            self._load_begun_s = now
        ticket.begun = True
        self._begun[chosen] += 1
        return ticket

    def load_wait_s(self, now: float) -> float | None:
        """Seconds until the next load of LOW may begin; None: none waits, or it may now."""
        wait_s = self._load_begun_s + LOAD_SPACING_S - now
        return wait_s if self._loads and wait_s > 0 else None

    def oldest(self, priority: Priority) -> Ticket | None:
        """Who has waited longest."""
        first = next(iter(self._waiting[priority]), None)
        load = next(iter(self._loads), None) if priority is Priority.LOW else None
        if first is None or load is None:
            return first or load
        return min(first, load, key=lambda ticket: ticket.entered_s)

    def waiting(self, priority: Priority) -> int:
        """How many wait."""
        loads = len(self._loads) if priority is Priority.LOW else 0
        return len(self._waiting[priority]) + loads

    def begun(self, priority: Priority) -> int:
        """How many are in work."""
        return self._begun[priority]

    def clear(self) -> list[Ticket]:
        """Everybody who waited, in order; nobody does any more."""
        queues = (*self._waiting.values(), self._loads)
        left = [ticket for waiting in queues for ticket in waiting]
        for waiting in queues:
            waiting.clear()
        return left

    def _queue(self, ticket: Ticket) -> OrderedDict[Ticket, None]:
        is_low_load = ticket.priority is Priority.LOW and ticket.is_load
        return self._loads if is_low_load else self._waiting[ticket.priority]

    def _first(self, priority: Priority, now: float) -> Ticket | None:
        """Who of a priority would be next; of LOW no load right after another one."""
        if priority is Priority.NORMAL or self.load_wait_s(now) is None:
            return self.oldest(priority)
        return next(iter(self._waiting[priority]), None)

    def _could(self, priority: Priority, now: float) -> bool:
        has_slot = priority is Priority.LOW or self._begun[priority] < self._slots
        return has_slot and self._first(priority, now) is not None
