"""The limit where requests take their time to arrive, and answers to come back."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.routing.conftest import OpenRouter
from tests.routing.fake_exchange import FakeExchange, SteeredClock
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.routing.rate_limit import (
    ENOUGH_ROUND_TRIPS,
    LONGEST_HELD_S,
    WINDOW_S,
    Granted,
    RateWindow,
)
from upbit_backbone.routing.shared_budget import Counted
from upbit_backbone.simulator.limits import QUOTATION, window_of
from upbit_backbone.simulator.settings import WindowKind

HIGH, CRITICAL = Priority.HIGH, Priority.CRITICAL
SHARED_RATE = 8 / WINDOW_S


def awaiting() -> RateWindow:
    return RateWindow(limit=10, window_s=WINDOW_S, reserve=2, even_low=True, awaits_answers=True)


class Way(NamedTuple):
    """To the exchange or back: so many seconds at least, and so many more at most."""

    least_s: float
    more_s: float = 0.0


class Told(NamedTuple):
    """How a while at full rate went."""

    rate: float
    """Requests a second that were not CRITICAL."""
    refused: int
    longest_s: float
    """What something CRITICAL waited at most."""


def at_full_rate(
    kind: WindowKind,
    priority: Priority,
    *,
    out: Way,
    back: Way,
    critical_every_s: float,
    seconds: float,
    rng: Random,
) -> Told:
    """As many requests as the window grants, and something CRITICAL beside them.

    Each is counted when it arrives; each answer tells what is left, as Upbit's do.
    """
    window, exchange = awaiting(), window_of(kind, QUOTATION)
    phase_s, order = rng.random(), count()
    on_the_way: list[tuple[float, int, int | None, Granted]] = []
    """What is left in an answer; None for a request."""
    now = urgent_s = asked_s = 1_000.0
    granted, refused, longest_s, end = 0, 0, 0.0, now + seconds

    def send(urgency: Priority) -> None:
        window.grant(now, urgency)
        arrives = now + rng.uniform(out.least_s, out.least_s + out.more_s)
        heappush(on_the_way, (arrives, next(order), None, Granted(now, urgency)))

    while now < end:
        at = now + window.wait_s(now, priority)
        if on_the_way and on_the_way[0][0] <= min(at, urgent_s):
            now, _, left, request = heappop(on_the_way)
            if left is None:
                left = exchange.left(now + phase_s)
                refused += left == 0
                exchange.add(now + phase_s)
                answers = now + rng.uniform(back.least_s, back.least_s + back.more_s)
                heappush(on_the_way, (answers, next(order), max(left - 1, 0), request))
            else:
                window.observe_left(now, left)
                window.answered(now, request)
        elif urgent_s <= at:
            now = urgent_s
            wait_s = window.wait_s(now, CRITICAL)
            if wait_s == 0:
                send(CRITICAL)
                longest_s = max(longest_s, now - asked_s)
                asked_s += critical_every_s
            urgent_s = max(now + wait_s, asked_s)
        else:
            now = at
            if window.wait_s(now, priority) == 0:
                send(priority)
                granted += 1
    return Told(granted / seconds, refused, longest_s)


WAYS = st.builds(Way, st.floats(0.003, 0.1), st.one_of(st.just(0.0), st.floats(0.0, 0.2)))


@settings(max_examples=60)
@given(
    kind=st.sampled_from(get_args(WindowKind)),
    priority=st.sampled_from([HIGH, Priority.LOW]),
    out=WAYS,
    back=WAYS,
    critical_every_s=st.sampled_from([0.02, 0.3, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_however_long_requests_are_on_their_way_none_is_refused(
    kind: WindowKind,
    priority: Priority,
    out: Way,
    back: Way,
    critical_every_s: float,
    seed: int,
) -> None:
    told = at_full_rate(
        kind,
        priority,
        out=out,
        back=back,
        critical_every_s=critical_every_s,
        seconds=25.0,
        rng=Random(seed),
    )
    assert told.refused == 0


@pytest.mark.parametrize("kind", get_args(WindowKind))
@pytest.mark.parametrize("priority", [HIGH, Priority.LOW])
@pytest.mark.parametrize(
    ("way", "part"),
    [
        (Way(0.005, 0.005), 0.99),
        (Way(0.05), 0.99),
        (Way(0.1), 0.95),
        # What jitters by as much as the margin and more is paid for: the answer tells that much
        # less of the arrival.
        (Way(0.0, 0.2), 0.8),
    ],
)
def test_ten_minutes_far_away_are_not_refused_and_use_what_there_is(
    kind: WindowKind, priority: Priority, way: Way, part: float
) -> None:
    told = at_full_rate(
        kind, priority, out=way, back=way, critical_every_s=1.0, seconds=600.0, rng=Random(1)
    )
    assert told.refused == 0
    assert told.rate >= part * SHARED_RATE
    # No request of ours is taken for a neighbour's when the word on it is late.
    assert told.longest_s == 0


def test_a_burst_that_arrives_late_holds_back_the_next_one() -> None:
    window = awaiting()
    for _ in range(8):
        window.grant(5.0, HIGH)
    for _ in range(8):
        window.answered(5.4, Granted(5.0, HIGH))  # it may have arrived just now
    assert window.wait_s(5.4, HIGH) == pytest.approx(1.0)
    assert window.wait_s(5.4, CRITICAL) == 0


def test_an_answer_that_comes_soon_changes_nothing() -> None:
    window = awaiting()
    for _ in range(8):
        window.grant(5.0, HIGH)
        window.answered(5.01, Granted(5.0, HIGH))
    assert window.wait_s(5.01, HIGH) == pytest.approx(WINDOW_S - 0.01)


def test_half_of_the_least_round_trip_is_taken_off_once_enough_are_known() -> None:
    window, now = awaiting(), 5.0
    for number in range(ENOUGH_ROUND_TRIPS):
        now += 3.0
        window.grant(now, HIGH)
        # All but the last ones were slower.
        round_trip_s = 0.2 if number > ENOUGH_ROUND_TRIPS - 3 else 0.4
        window.answered(now + round_trip_s, Granted(now, HIGH))
    now += 3.0
    for _ in range(8):
        window.grant(now, HIGH)
        window.answered(now + 0.3, Granted(now, HIGH))
    assert window.wait_s(now + 0.3, HIGH) == pytest.approx(1.0 - 0.1)


def test_what_is_not_answered_counts_for_two_seconds() -> None:
    window = awaiting()
    for _ in range(8):
        window.grant(5.0, HIGH)
    assert window.wait_s(6.2, HIGH) == pytest.approx(LONGEST_HELD_S - 1.2)
    assert window.wait_s(7.0, HIGH) == 0
    window.answered(7.5, Granted(5.0, HIGH))  # nobody needs to know any more
    assert window.wait_s(7.5, HIGH) == 0
    late = awaiting()
    for _ in range(8):
        late.grant(5.0, HIGH)
        late.answered(6.9, Granted(5.0, HIGH))
    assert late.wait_s(6.9, HIGH) == pytest.approx(0.1)


def test_of_several_grants_of_one_moment_each_answer_frees_one() -> None:
    window = awaiting()
    for _ in range(8):
        window.grant(5.0, HIGH)
    for _ in range(3):
        window.answered(5.02, Granted(5.0, HIGH))
    for _ in range(3):
        assert window.wait_s(5.0 + WINDOW_S, HIGH) == 0
        window.grant(5.0 + WINDOW_S, HIGH)
    assert window.wait_s(5.0 + WINDOW_S, HIGH) == pytest.approx(LONGEST_HELD_S - WINDOW_S)


def test_a_neighbour_is_told_from_requests_of_ours_that_have_left_meanwhile() -> None:
    window = awaiting()
    for _ in range(6):
        window.grant(5.0, HIGH)
        window.answered(5.02, Granted(5.0, HIGH))
    window.grant(6.0, HIGH)
    # The exchange said so at 6.04, when the six still counted there, and one of somebody else.
    window.observe_left(6.08, 2)
    window.answered(6.08, Granted(6.0, HIGH))
    assert sum(grant.priority is None for grant in window._grants) == 1


def test_a_grant_that_stands_in_the_shared_file_counts_once_and_until_its_answer() -> None:
    window = awaiting()
    window.grant(5.0, HIGH)
    window.move(Granted(5.0, HIGH), 5.01)
    window.learn([Counted(5.005, False, False), Counted(5.01, False, True)])
    assert [grant.at for grant in window._counted()] == [5.005, 5.01]
    assert [grant.at for grant in window._counted() if grant.free_s > 6.5] == [5.01]
    window.answered(5.7, Granted(5.01, HIGH))
    (ours,) = (grant for grant in window._counted() if grant.free_s > 6.5)
    assert ours.free_s == pytest.approx(6.7)


def trades(number: int) -> BackboneRequest:
    return BackboneRequest(DataType.TRADE, ("KRW-BTC",), count=10 + number, priority=HIGH)


@pytest.mark.steered_time
async def test_the_channel_tells_of_answers_and_waits_for_those_under_way(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    async with open_router(hanging_s=60.0) as router:
        exchange.hold_rest()
        began_s = wall.monotonic()
        asked = [asyncio.create_task(router.fetch(trades(number))) for number in range(9)]
        await eventually(lambda: exchange.rest_calls["trades"] == 8)
        await asyncio.sleep(0.5)
        exchange.answer_rest()
        await asyncio.gather(*asked)
        # They may have arrived as late as they were answered.
        assert wall.monotonic() - began_s == pytest.approx(1.5, abs=0.05)
        await asyncio.sleep(5.0)
        began_s = wall.monotonic()
        await asyncio.gather(*(router.fetch(trades(100 + number)) for number in range(9)))
        assert wall.monotonic() - began_s == pytest.approx(WINDOW_S, abs=0.05)


@pytest.mark.steered_time
async def test_a_request_that_was_given_up_may_still_arrive(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    async with open_router(hanging_s=60.0) as router:
        exchange.hold_rest()
        began_s = wall.monotonic()
        asked = [asyncio.create_task(router.fetch(trades(number))) for number in range(8)]
        await eventually(lambda: exchange.rest_calls["trades"] == 8)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        exchange.answer_rest()
        await router.fetch(trades(100))
        assert wall.monotonic() - began_s == pytest.approx(LONGEST_HELD_S, abs=0.05)
