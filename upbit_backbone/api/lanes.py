"""In which order work of NORMAL and LOW begins. Plain bookkeeping: nobody waits in here."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from upbit_backbone.protocol import Priority

LANES: Final = (Priority.NORMAL, Priority.LOW)
"""CRITICAL and HIGH never queue here."""
NORMAL_TURNS: Final = 8
"""So many NORMAL calls begin in a row while a LOW one waits; then that one does."""


class Ticket:
    """One call on its way in."""

    __slots__ = ("begun", "entered_s", "priority", "turn")

    def __init__(self, priority: Priority, turn: asyncio.Future[None], now: float) -> None:
        self.priority = priority
        self.turn = turn
        """Done once the call may go on."""
        self.entered_s = now
        self.begun = False
        """It has a slot, which has to be given back."""


class Lanes:
    """A queue of each priority, first come, first served, and slots for what has begun.

    Of those who could begin, NORMAL goes first; LOW comes after so many NORMAL turns at the latest.
    LOW needs no slot: below, all LOW calls take turns page by page, so a short one is not kept
    waiting by backfills that last for hours.
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
        self._begun = dict.fromkeys(LANES, 0)
        self._turns_in_a_row = 0

    def enter(self, ticket: Ticket) -> None:
        """Wait from now on."""
        self._waiting[ticket.priority][ticket] = None

    def leave(self, ticket: Ticket) -> None:
        """Wait no more, or be over. May be called twice."""
        self._waiting[ticket.priority].pop(ticket, None)
        if ticket.begun:
            ticket.begun = False
            self._begun[ticket.priority] -= 1

    def next(self, may_begin: Callable[[Priority], bool]) -> Ticket | None:
        """Whose turn it is; that call has begun. None: nobody can.

        Args:
            may_begin: Whether a priority may begin work now.
        """
        able = [priority for priority in LANES if self._could(priority) and may_begin(priority)]
        if not able:
            return None
        chosen = able[0]
        if len(able) == 1:
            self._turns_in_a_row = 0
        elif self._turns_in_a_row < self._normal_turns:
            self._turns_in_a_row += 1
        else:
            chosen, self._turns_in_a_row = Priority.LOW, 0
        ticket, _ = self._waiting[chosen].popitem(last=False)
        ticket.begun = True
        self._begun[chosen] += 1
        return ticket

    def oldest(self, priority: Priority) -> Ticket | None:
        """Who has waited longest."""
        return next(iter(self._waiting[priority]), None)

    def waiting(self, priority: Priority) -> int:
        """How many wait."""
        return len(self._waiting[priority])

    def begun(self, priority: Priority) -> int:
        """How many are in work."""
        return self._begun[priority]

    def clear(self) -> list[Ticket]:
        """Everybody who waited, in order; nobody does any more."""
        left = [ticket for waiting in self._waiting.values() for ticket in waiting]
        for waiting in self._waiting.values():
            waiting.clear()
        return left

    def _could(self, priority: Priority) -> bool:
        has_slot = priority is Priority.LOW or self._begun[priority] < self._slots
        return bool(self._waiting[priority]) and has_slot
