from __future__ import annotations

from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from upbit_backbone.routing.failover import (
    FIRST_BACKOFF_S,
    KEPT_TRANSITIONS,
    MAX_BACKOFF_S,
    MAX_SUSPECT_AGAIN_S,
    POLL_AFTER_S,
    STABLE_S,
    SUSPECT_AGAIN_S,
    Backoff,
    Failover,
)


class NotingRandom(Random):
    """Draws the longest wait, and notes the bounds of each."""

    def __init__(self) -> None:
        super().__init__(1)
        self.bounds: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.bounds.append((a, b))
        return b


def failover(clock: ManualClock, rng: Random | None = None) -> Failover:
    return Failover(clock, rng or NotingRandom())


def live(clock: ManualClock, rng: Random | None = None) -> Failover:
    one = failover(clock, rng)
    one.connecting()
    assert one.flows()
    return one


def path(one: Failover) -> list[str]:
    return [transition.state for transition in one.transitions]


# The backoff.


def test_waits_are_drawn_from_zero_to_a_limit_that_doubles_up_to_its_cap() -> None:
    rng = NotingRandom()
    backoff = Backoff(rng)
    for _ in range(9):
        backoff.next_s()
    limits = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert rng.bounds == [(0, limit) for limit in limits]


@given(seed=st.integers(), attempts=st.integers(0, 5_000))
def test_no_wait_is_longer_than_the_cap_however_often_it_failed(seed: int, attempts: int) -> None:
    backoff = Backoff(Random(seed))
    for _ in range(min(attempts, 40)):
        assert 0 <= backoff.next_s() <= MAX_BACKOFF_S
    backoff._attempts += attempts
    assert 0 <= backoff.next_s() <= MAX_BACKOFF_S


def test_at_the_cap_the_whole_wait_is_drawn_so_that_programs_do_not_come_back_together() -> None:
    waits = []
    for seed in range(200):
        backoff = Backoff(Random(seed))
        waits.append([backoff.next_s() for _ in range(12)][-1])
    assert min(waits) < 0.1 * MAX_BACKOFF_S
    assert max(waits) > 0.9 * MAX_BACKOFF_S
    assert fmean(waits) == pytest.approx(MAX_BACKOFF_S / 2, rel=0.15)


@pytest.mark.parametrize(
    ("flowed_s", "limit"), [(0.0, 1.0), (STABLE_S - 0.1, 1.0), (STABLE_S, FIRST_BACKOFF_S)]
)
def test_only_data_that_flowed_for_ten_seconds_resets_the_backoff(
    clock: ManualClock, flowed_s: float, limit: float
) -> None:
    rng = NotingRandom()
    one = failover(clock, rng)
    one.connecting()
    one.lost("refused")
    one.flows()
    clock.advance(flowed_s)
    one.lost("cut off")
    assert rng.bounds == [(0, FIRST_BACKOFF_S), (0, limit)]


def test_a_connection_without_data_resets_nothing_however_long_it_was(clock: ManualClock) -> None:
    rng = NotingRandom()
    one = failover(clock, rng)
    for _ in range(3):
        one.connecting()
        clock.advance(10 * STABLE_S)
        one.lost("mute")
    assert [limit for _, limit in rng.bounds] == [0.5, 1.0, 2.0]


def test_data_of_a_connection_before_does_not_count_for_the_next(clock: ManualClock) -> None:
    rng = NotingRandom()
    one = live(clock, rng)
    clock.advance(STABLE_S)
    one.lost("cut off")
    clock.advance(STABLE_S)
    one.lost("refused")
    assert [limit for _, limit in rng.bounds] == [0.5, 1.0]


# The states.


def test_a_first_connection_goes_from_idle_to_live(clock: ManualClock) -> None:
    one = failover(clock)
    assert (one.state, one.live, one.poll_in_s()) == ("idle", False, None)
    one.connecting()
    assert (one.state, one.poll(), one.poll_in_s()) == ("connecting", False, None)
    assert one.flows()
    assert not one.flows(), "the next value is no news"
    assert (one.state, one.live, one.reason) == ("live", True, "")
    assert path(one) == ["connecting", "live"]


def test_a_first_connection_that_fails_is_reconnecting(clock: ManualClock) -> None:
    one = failover(clock)
    one.connecting()
    one.lost("refused")
    assert (one.state, one.reason, one.live) == ("reconnecting", "refused", False)
    one.connecting()
    assert one.state == "reconnecting", "a lost one goes on being that"


def test_what_is_not_back_after_two_seconds_is_polled_until_values_flow(clock: ManualClock) -> None:
    one = live(clock)
    assert not one.poll()
    one.lost("cut off")
    assert one.poll_in_s() == POLL_AFTER_S
    clock.advance(POLL_AFTER_S - 0.1)
    one.lost("refused")
    assert not one.poll()
    assert one.poll_in_s() == pytest.approx(0.1)
    clock.advance(0.1)
    assert one.poll()
    assert one.poll_in_s() == 0
    since = one.since
    clock.advance(60)
    one.lost("refused again")
    assert (one.state, one.reason, one.since) == ("polling", "refused again", since)
    assert one.flows()
    assert (one.state, one.poll()) == ("live", False)
    assert path(one) == ["connecting", "live", "reconnecting", "polling", "live"]


def test_the_two_seconds_begin_anew_with_each_loss(clock: ManualClock) -> None:
    one = live(clock)
    one.lost("cut off")
    clock.advance(1.9)
    one.flows()
    one.lost("cut off")
    clock.advance(1.9)
    assert not one.poll()


def test_nothing_is_polled_during_a_block_and_at_once_after_it(clock: ManualClock) -> None:
    one = live(clock)
    one.lost("418")
    one.block("the exchange blocks this address")
    clock.advance(60)
    assert (one.state, one.poll(), one.poll_in_s()) == ("blocked", False, None)
    one.unblock()
    assert one.state == "reconnecting"
    assert one.poll()
    one.block("again")
    assert (one.state, one.poll()) == ("blocked", False)
    one.unblock()
    assert one.flows()
    assert path(one)[2:] == [
        "reconnecting",
        "blocked",
        "reconnecting",
        "polling",
        "blocked",
        "reconnecting",
        "live",
    ]


def test_a_block_before_the_first_connection_is_an_outage_since_then(clock: ManualClock) -> None:
    one = failover(clock)
    one.block("noted by an earlier start")
    clock.advance(60)
    one.unblock()
    assert one.poll()


def test_the_end_of_a_block_changes_no_other_state(clock: ManualClock) -> None:
    one = live(clock)
    one.unblock()
    assert one.state == "live"


def test_what_nobody_reads_is_idle_and_forgets_its_outage(clock: ManualClock) -> None:
    one = live(clock)
    one.lost("cut off")
    clock.advance(POLL_AFTER_S)
    assert one.poll()
    one.become_idle()
    assert (one.state, one.poll(), one.poll_in_s()) == ("idle", False, None)
    one.connecting()
    assert one.state == "connecting"
    one.lost("refused")
    assert one.poll_in_s() == POLL_AFTER_S


def test_a_closed_service_says_so(clock: ManualClock) -> None:
    one = live(clock)
    one.close()
    assert (one.state, one.live, one.poll()) == ("closed", False, False)


def test_a_transition_tells_why_and_since_when(clock: ManualClock) -> None:
    one = live(clock)
    clock.advance(5)
    one.lost("cut off")
    last = one.transitions[-1]
    assert (last.state, last.reason, last.since) == ("reconnecting", "cut off", one.since)
    assert (one.since - one.transitions[0].since).total_seconds() == 5


def test_the_newest_hundred_transitions_are_kept(clock: ManualClock) -> None:
    one = failover(clock)
    for _ in range(KEPT_TRANSITIONS):
        one.flows()
        one.lost("cut off")
    assert path(one) == ["live", "reconnecting"] * (KEPT_TRANSITIONS // 2)


# The standby.


def test_only_a_live_stream_is_suspected_and_once_at_a_time(clock: ManualClock) -> None:
    one = failover(clock)
    assert not one.suspect("silent")
    one.connecting()
    assert not one.suspect("silent")
    one.flows()
    assert one.suspect("silent")
    assert (one.state, one.reason, one.live) == ("suspicious", "silent", True)
    assert not one.suspect("silent")
    one.taken_over(founded=True)
    assert (one.state, one.reason) == ("live", "")


def test_a_suspicious_connection_that_ends_is_reconnected(clock: ManualClock) -> None:
    one = live(clock)
    one.suspect("silent")
    one.lost("cut off")
    one.taken_over(founded=False)
    assert one.state == "reconnecting"
    assert path(one) == ["connecting", "live", "suspicious", "reconnecting"]


def test_standbys_are_half_a_minute_apart_and_rarer_while_they_find_nothing(
    clock: ManualClock,
) -> None:
    one = live(clock)
    waits = []
    for _ in range(10):
        waited_s = 0
        while not one.suspect("silent"):
            clock.advance(1)
            waited_s += 1
        waits.append(waited_s)
        one.taken_over(founded=False)
    assert waits == [0, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert waits[-1] == MAX_SUSPECT_AGAIN_S
    clock.advance(MAX_SUSPECT_AGAIN_S)
    assert one.suspect("silent")
    one.taken_over(founded=True)
    clock.advance(SUSPECT_AGAIN_S - 1)
    assert not one.suspect("silent")
    clock.advance(1)
    assert one.suspect("silent"), "it found something: the next is due in half a minute"


STEPS = ("idle", "connecting", "flows", "lost", "block", "unblock", "poll", "suspect", "taken")


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 20)), max_size=60))
def test_whatever_happens_the_states_hold_what_they_promise(
    steps: list[tuple[str, float]],
) -> None:
    clock, rng = ManualClock(), NotingRandom()
    one = failover(clock, rng)
    away_s: float | None = None
    for step, after_s in steps:
        clock.advance(after_s)
        before, now = one.state, clock.monotonic()
        if step == "idle":
            one.become_idle()
            away_s = None
        elif step == "connecting":
            one.connecting()
        elif step == "flows":
            assert one.flows() == (before not in ("live", "suspicious"))
            away_s = None
        elif step == "lost":
            assert 0 <= one.lost("why") <= MAX_BACKOFF_S
            away_s = now if away_s is None else away_s
        elif step == "block":
            one.block("418")
            away_s = now if away_s is None else away_s
        elif step == "unblock":
            one.unblock()
        elif step == "poll":
            polled = one.poll()
            assert polled == (one.state == "polling")
            if polled:
                assert away_s is not None
                assert now - away_s >= POLL_AFTER_S
        elif step == "suspect":
            assert one.suspect("silent") == (one.state == "suspicious" != before)
        else:
            one.taken_over(founded=False)
        assert one.live == (one.state in ("live", "suspicious"))
        if one.state != before:
            assert one.transitions[-1].state == one.state
    assert len(one.transitions) <= KEPT_TRANSITIONS
    assert all(low == 0 and limit <= MAX_BACKOFF_S for low, limit in rng.bounds)
