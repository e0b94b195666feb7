"""The exchange's time, learned from what it sends; this machine's clock does what it likes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from upbit_backbone.clock import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    MOST_DOUBTS,
    SECOND_MS,
    WITNESS_MS,
    ExchangeClock,
    told_skew_s,
)

ROUNDING_MS = 3
"""Of two clocks that count whole milliseconds, and of an estimate that does."""


class World:
    """True time, a machine whose clocks may be wrong about it, and an exchange that is right."""

    def __init__(self, skew_ms: int = 0) -> None:
        """Let the machine's clock be `skew_ms` slow."""
        self.local = ManualClock()
        self.exchange_ms = float(self.local.now_ms() + skew_ms)
        self.skews: list[int] = []
        self.learned = ExchangeClock(self.local, on_skew=self.skews.append)

    def pass_ms(self, ms: float) -> None:
        self.local.advance(ms / 1_000)
        self.exchange_ms += ms

    def sleep(self, ms: float) -> None:
        """The monotonic clock stands, the wall clock is right about it afterwards."""
        self.local.set_wall(self.local.now_ms() + int(ms))
        self.exchange_ms += int(ms)

    def set_wall(self, by_ms: int) -> None:
        self.local.set_wall(self.local.now_ms() + by_ms)

    def request(self, there_ms: float = 20, back_ms: float = 20, asleep_ms: float = 0) -> None:
        """Ask; the machine may sleep while the answer is on its way."""
        sent = self.learned.moment()
        self.pass_ms(there_ms)
        date_ms = int(self.exchange_ms) // SECOND_MS * SECOND_MS
        if asleep_ms:
            self.sleep(asleep_ms)
        self.pass_ms(back_ms)
        self.learned.observe_date(date_ms, sent=sent, received=self.learned.moment())

    def message(self, age_ms: float = 20) -> None:
        self.learned.observe_stamp(int(self.exchange_ms - age_ms))

    @property
    def error_ms(self) -> float:
        """How far the estimate is ahead."""
        return self.learned.now_ms() - self.exchange_ms


skews = st.integers(-400 * DAY_MS, 400 * DAY_MS)


class Pass(NamedTuple):
    ms: int


class Sleep(NamedTuple):
    ms: int


class SetWall(NamedTuple):
    by_ms: int


class Ask(NamedTuple):
    there_ms: int
    back_ms: int
    asleep_ms: int


class Message(NamedTuple):
    age_ms: int


class Wild(NamedTuple):
    ahead_ms: int


# Leaps are either beyond what is noticed or, like NTP's, small and few.
steps = st.lists(
    st.one_of(
        st.builds(Pass, st.integers(0, 20 * MINUTE_MS)),
        st.builds(Sleep, st.integers(2 * SECOND_MS, 30 * DAY_MS)),
        st.builds(SetWall, st.integers(2 * SECOND_MS, 400 * DAY_MS)),
        st.builds(SetWall, st.integers(-400 * DAY_MS, -2 * SECOND_MS)),
        st.builds(
            Ask,
            st.integers(0, 3_000),
            st.integers(0, 3_000),
            st.one_of(st.just(0), st.integers(2 * SECOND_MS, DAY_MS)),
        ),
        st.builds(Message, st.integers(0, 200_000)),
        st.builds(Wild, st.integers(1, 400 * DAY_MS)),
    ),
    max_size=40,
)


@given(skews, steps)
def test_whatever_happens_an_answer_brings_the_estimate_near_and_nothing_else_drives_it_off(
    skew_ms: int, script: list[NamedTuple]
) -> None:
    world = World(skew_ms)
    near_ms: float | None = None  # within which the estimate must be; None: nothing is promised
    wild_s = float("-inf")
    for step in script:
        if isinstance(step, Pass):
            world.pass_ms(step.ms)
            if near_ms is not None:
                near_ms += step.ms * 1e-3  # twice what clocks are granted for drift
        elif isinstance(step, Sleep):
            before = world.learned.now_ms()
            world.sleep(step.ms)
            # The earlier side: never beyond what it was.
            assert world.learned.now_ms() <= before + ROUNDING_MS or near_ms is None
            near_ms = None
        elif isinstance(step, SetWall):
            world.set_wall(step.by_ms)
        elif isinstance(step, Ask):
            world.request(*step)
            if step.asleep_ms:  # its Date may be older than the sleep
                near_ms = None
            else:
                near_ms = SECOND_MS + step.there_ms + step.back_ms + ROUNDING_MS
        elif isinstance(step, Message):
            world.message(step.age_ms)
        elif isinstance(step, Wild) and world.local.monotonic() - wild_s > WITNESS_MS / 1_000:
            world.message(-step.ahead_ms)
            wild_s = world.local.monotonic()
        if near_ms is not None:
            assert abs(world.error_ms) <= near_ms


@given(st.lists(st.one_of(st.integers(0, 5_000), st.tuples(st.integers(0, 3_000))), max_size=40))
def test_a_clock_that_is_right_is_left_alone(script: list[int | tuple[int]]) -> None:
    world = World()
    for step in script:
        if isinstance(step, tuple):
            world.request(step[0], step[0])
        else:
            world.pass_ms(step)
            world.message(step)
        assert world.learned.offset_ms == 0
    assert world.skews == []


def test_until_the_first_date_the_wall_clock_is_right() -> None:
    world = World(HOUR_MS)
    world.message()
    world.message()
    # A stamp alone has no upper bound beside it: it may be years old, or in the future.
    assert world.learned.offset_ms == 0
    assert world.learned.uncertain
    world.set_wall(MINUTE_MS)
    assert world.learned.now_ms() == world.local.now_ms()


@given(skews, st.integers(0, 200), st.integers(0, 200))
def test_one_answer_brings_the_estimate_within_a_second_and_its_way(
    skew_ms: int, there_ms: int, back_ms: int
) -> None:
    world = World(skew_ms)
    world.request(there_ms, back_ms)
    assert abs(world.error_ms) <= SECOND_MS + there_ms + back_ms + ROUNDING_MS
    assert not world.learned.uncertain


def test_dates_at_all_phases_of_a_second_leave_the_uncertainty_of_the_way() -> None:
    world = World(-HOUR_MS)
    for _ in range(200):
        world.pass_ms(107)
        world.request()
    assert abs(world.error_ms) <= 40 + 107 + ROUNDING_MS


def test_live_messages_move_the_estimate_up_to_the_truth() -> None:
    world = World(HOUR_MS + 900)
    world.request(0, 0)
    assert world.error_ms <= -900
    world.message(age_ms=30)
    world.message(age_ms=10)
    assert -30 - ROUNDING_MS <= world.error_ms <= 0
    world.message(age_ms=5)
    assert -10 - ROUNDING_MS <= world.error_ms <= 0


@pytest.mark.parametrize("by_ms", [30_000, -30_000, HOUR_MS, -HOUR_MS])
def test_a_wall_clock_that_is_set_while_running_moves_nothing(by_ms: int) -> None:
    world = World()
    world.request()
    for set_by_ms in (by_ms, -by_ms, by_ms):
        world.pass_ms(500)
        world.set_wall(set_by_ms)
        assert abs(world.error_ms) <= SECOND_MS
    assert abs(world.learned.offset_ms + by_ms) <= SECOND_MS
    assert world.learned.jumps == 3
    world.request()
    assert abs(world.error_ms) <= SECOND_MS + 40
    assert not world.learned.uncertain


def test_after_sleep_the_earlier_time_is_taken_until_a_date_tells() -> None:
    world = World()
    world.request()
    world.sleep(8 * HOUR_MS)
    assert abs(world.error_ms + 8 * HOUR_MS) <= SECOND_MS
    assert world.learned.uncertain
    world.request()
    # Both candidates were possible, and the wall clock proved right.
    assert world.learned.offset_ms == 0
    assert not world.learned.uncertain


def test_after_sleep_two_live_messages_are_enough_and_one_is_not() -> None:
    world = World()
    world.request()
    world.sleep(8 * HOUR_MS)
    world.message()
    assert world.error_ms < -7 * HOUR_MS
    world.message()
    assert -20 - ROUNDING_MS <= world.error_ms <= 0


def test_a_date_that_was_asked_for_before_sleep_proves_nothing_wrong_after_it() -> None:
    world = World()
    world.request()
    world.request(asleep_ms=HOUR_MS)
    world.message()
    world.message()
    assert -20 - ROUNDING_MS <= world.error_ms <= 0


def test_stamps_that_the_bounds_exclude_move_nothing_however_many() -> None:
    world = World()
    world.request()
    for _ in range(3):
        world.message(-HOUR_MS)
    assert world.learned.offset_ms == 0


def test_one_wild_stamp_moves_nothing_while_it_could_be_true() -> None:
    """The wall clock was set an hour ahead: the machine might have slept for so long."""
    world = World()
    world.request(20, 20)
    world.set_wall(HOUR_MS)
    world.message(-HOUR_MS / 2)
    assert abs(world.error_ms) <= SECOND_MS
    world.message()
    assert abs(world.error_ms) <= SECOND_MS
    world.pass_ms(WITNESS_MS + 1)
    world.message(-HOUR_MS / 3)
    assert abs(world.error_ms) <= SECOND_MS
    world.message(0)
    assert abs(world.error_ms) <= SECOND_MS


def test_a_wall_clock_that_was_set_draws_no_estimate_to_it() -> None:
    world = World(1)
    world.request(0, 0)
    world.set_wall(2 * SECOND_MS)
    world.message(0)
    world.message(0)
    assert abs(world.error_ms) <= ROUNDING_MS


def test_one_wild_date_moves_nothing_and_two_that_agree_do() -> None:
    world = World()
    world.request()
    world.exchange_ms += MINUTE_MS
    world.request()
    assert world.learned.offset_ms == 0
    world.exchange_ms -= MINUTE_MS
    world.request()
    assert world.learned.offset_ms == 0
    world.exchange_ms += MINUTE_MS
    world.request()
    world.request()
    assert abs(world.error_ms) <= SECOND_MS + 40


def test_an_exchange_that_stands_still_is_followed_in_the_end() -> None:
    world = World()
    world.request()
    for _ in range(MOST_DOUBTS + 1):
        world.local.advance(10)
        world.request()
    assert abs(world.error_ms) <= SECOND_MS + 40


@pytest.mark.parametrize("rate", [1.0002, 0.9998])
def test_bounds_widen_with_time_so_that_a_drifting_clock_is_followed(rate: float) -> None:
    world = World()
    for _ in range(500):
        world.request()
        world.local.advance(100)
        world.exchange_ms += 100_000 * rate  # 200 ppm, 10 s in all
    assert abs(world.error_ms) <= SECOND_MS + 40 + 100
    assert world.learned.jumps == 0


def test_a_clock_that_follows_the_wall_takes_no_leap_for_a_sleep() -> None:
    """That of a replay runs at ten times the speed of the monotonic one, or stands."""
    local = ManualClock()
    learned = ExchangeClock(local, follows_wall=True)
    moment = learned.moment()
    learned.observe_date(local.now_ms(), sent=moment, received=moment)
    for _ in range(5):
        local.advance(1)
        local.set_wall(local.now_ms() + 9_000)
        assert learned.now_ms() == local.now_ms()
    assert learned.jumps == 0


def test_a_skew_is_told_once_for_each_change() -> None:
    world = World(30_500)
    for _ in range(5):
        world.request()
        world.pass_ms(5_300)
    assert [round(skew / 1_000) for skew in world.skews] == [30]
    world.set_wall(30_500)
    assert world.learned.now_ms()
    world.request()
    assert [round(skew / 1_000) for skew in world.skews] == [30, 0]


@pytest.mark.parametrize(
    ("offset_ms", "simulated", "told_s"),
    [
        (0, False, 0),
        (1_999, False, 0),
        (-1_999, True, 0),
        (2_000, False, 2),
        (-30_400, True, -30),
        (HOUR_MS, False, 3_600),
        (HOUR_MS, True, 0),
        (-400 * DAY_MS, True, 0),
    ],
)
def test_a_skew_is_worth_a_word_from_two_seconds_on_and_not_for_another_day(
    offset_ms: int, simulated: bool, told_s: int
) -> None:
    assert told_skew_s(offset_ms, simulated=simulated) == told_s


def test_durations_are_the_local_clock_s() -> None:
    world = World(HOUR_MS)
    world.request(0, 0)
    before = world.learned.monotonic()
    world.local.advance(2.5)
    assert world.learned.monotonic() - before == 2.5
    assert world.learned.now_ms() == world.local.now_ms() + HOUR_MS
