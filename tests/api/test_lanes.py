"""In which order work begins: first come first served, NORMAL first, LOW never starved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.api.lanes import LANES, LOAD_SPACING_S, NORMAL_TURNS, Lanes, Ticket
from upbit_backbone.protocol import Priority


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Crowd:
    """Calls that come and go, and a book of who was let in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slots: int) -> None:
        self.loop = loop
        self.slots = slots
        self.lanes = Lanes(slots)
        self.waiting: dict[Priority, list[Ticket]] = {priority: [] for priority in LANES}
        self.working: dict[Priority, list[Ticket]] = {priority: [] for priority in LANES}
        self.held: set[Priority] = set()
        self.now, self.load_begun_s = 0.0, -1.0

    def come(self, priority: Priority, *, is_load: bool = False) -> None:
        self.now += 1e-9
        ticket = Ticket(priority, self.loop.create_future(), self.now, is_load=is_load)
        self.waiting[priority].append(ticket)
        self.lanes.enter(ticket)

    def go(self, priority: Priority, *, working: bool) -> None:
        crowd = self.working[priority] if working else self.waiting[priority]
        if crowd:
            self.lanes.leave(crowd.pop())

    def first(self, priority: Priority) -> Ticket | None:
        spaced = self.now >= self.load_begun_s + LOAD_SPACING_S
        free = (
            ticket
            for ticket in self.waiting[priority]
            if spaced or priority is Priority.NORMAL or not ticket.is_load
        )
        return next(free, None)

    def could(self, priority: Priority) -> bool:
        room = priority is Priority.LOW or len(self.working[priority]) < self.slots
        return self.first(priority) is not None and room and priority not in self.held

    def next(self) -> Priority | None:
        ticket = self.lanes.next(lambda priority: priority not in self.held, self.now)
        if ticket is None:
            return None
        assert ticket is self.first(ticket.priority), "first come, first served"
        self.waiting[ticket.priority].remove(ticket)
        if ticket.is_load and ticket.priority is Priority.LOW:
            self.load_begun_s = self.now
        self.working[ticket.priority].append(ticket)
        return ticket.priority


actions = st.one_of(
    st.tuples(
        st.sampled_from(["come", "load", "leave", "finish", "hold", "free"]),
        st.sampled_from(LANES),
    ),
    st.tuples(st.just("pass"), st.just(Priority.LOW)),
    st.tuples(st.just("next"), st.just(Priority.NORMAL)),
)


@given(st.lists(actions, max_size=200), st.integers(1, 4))
def test_whoever_comes_goes_and_is_held_the_order_holds(
    loop: asyncio.AbstractEventLoop, steps: list[tuple[str, Priority]], slots: int
) -> None:
    crowd = Crowd(loop, slots)
    normal_in_a_row = 0
    for what, priority in steps:
        if what in ("come", "load"):
            crowd.come(priority, is_load=what == "load")
        elif what == "pass":
            crowd.now += LOAD_SPACING_S
        elif what in ("leave", "finish"):
            crowd.go(priority, working=what == "finish")
        elif what == "hold":
            crowd.held.add(priority)
        elif what == "free":
            crowd.held.discard(priority)
        else:
            able = [priority for priority in LANES if crowd.could(priority)]
            chosen = crowd.next()
            assert (chosen is None) == (not able), "somebody could begin exactly if somebody does"
            if chosen is None:
                continue
            assert chosen in able
            if chosen is Priority.LOW:
                overtook = Priority.NORMAL in able
                assert not overtook or normal_in_a_row >= NORMAL_TURNS
                normal_in_a_row = 0
            else:
                normal_in_a_row = normal_in_a_row + 1 if Priority.LOW in able else 0
                assert normal_in_a_row <= NORMAL_TURNS, "LOW starves"
        for priority in LANES:
            assert crowd.lanes.waiting(priority) == len(crowd.waiting[priority])
            assert crowd.lanes.oldest(priority) is next(iter(crowd.waiting[priority]), None)
            assert crowd.lanes.begun(priority) == len(crowd.working[priority])
        assert crowd.lanes.begun(Priority.NORMAL) <= slots


def test_long_low_calls_keep_neither_a_normal_nor_a_short_low_one_waiting(
    loop: asyncio.AbstractEventLoop,
) -> None:
    crowd = Crowd(loop, slots=2)
    for _ in range(5):
        crowd.come(Priority.LOW)
    crowd.come(Priority.NORMAL)
    assert [crowd.next() for _ in range(7)] == [Priority.NORMAL, *[Priority.LOW] * 5, None]


def test_loads_of_low_begin_a_little_apart_and_quotes_pass_them(
    loop: asyncio.AbstractEventLoop,
) -> None:
    crowd = Crowd(loop, slots=1)
    for is_load in (True, True, True, False, False):
        crowd.come(Priority.LOW, is_load=is_load)
    assert crowd.lanes.load_wait_s(crowd.now) is None
    assert [crowd.next() for _ in range(4)] == [*[Priority.LOW] * 3, None]
    assert [ticket.is_load for ticket in crowd.working[Priority.LOW]] == [True, False, False]
    assert crowd.lanes.load_wait_s(crowd.now + 0.0005) == pytest.approx(LOAD_SPACING_S - 0.0005)
    crowd.now += LOAD_SPACING_S
    assert [crowd.next(), crowd.next()] == [Priority.LOW, None]
    assert len(crowd.lanes.clear()) == 1


def test_whoever_leaves_twice_gives_back_one_slot(loop: asyncio.AbstractEventLoop) -> None:
    lanes = Lanes(1)
    first = Ticket(Priority.NORMAL, loop.create_future(), 0.0)
    lanes.enter(first)
    assert lanes.next(lambda _: True, 0.0) is first
    lanes.leave(first)
    lanes.leave(first)
    assert lanes.begun(Priority.NORMAL) == 0
