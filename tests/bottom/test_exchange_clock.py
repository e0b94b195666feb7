"""The exchange's time, learned from what it sends."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from upbit_backbone.clock import DAY_MS, HOUR_MS, SECOND_MS, ExchangeClock


class Exchange(NamedTuple):
    """An exchange whose clock is `offset_ms` ahead of ours, and what it sends."""

    local: ManualClock
    learned: ExchangeClock
    offset_ms: int

    def request(self, there_ms: int, back_ms: int) -> tuple[int, int]:
        """One request; returns the bounds that its ``Date`` proves."""
        sent_ms = self.local.now_ms()
        self.local.advance(there_ms / 1_000)
        exchange_ms = self.local.now_ms() + self.offset_ms
        date_ms = exchange_ms - exchange_ms % SECOND_MS
        self.local.advance(back_ms / 1_000)
        received_ms = self.local.now_ms()
        self.learned.observe_date(date_ms, sent_ms=sent_ms, received_ms=received_ms)
        return date_ms - received_ms, date_ms + SECOND_MS - sent_ms

    def message(self, age_ms: int) -> int:
        """One message, stamped `age_ms` before it arrived; returns the bound it proves."""
        received_ms = self.local.now_ms()
        stamp_ms = received_ms + self.offset_ms - age_ms
        self.learned.observe_stamp(stamp_ms, received_ms=received_ms)
        return stamp_ms - received_ms


def exchange(offset_ms: int) -> Exchange:
    local = ManualClock()
    return Exchange(local, ExchangeClock(local), offset_ms)


offsets = st.integers(-400 * DAY_MS, 400 * DAY_MS)
# (pause before, way there, way back) of a request, or (pause before, age) of a message.
requests = st.tuples(st.integers(0, 5_000), st.integers(0, 3_000), st.integers(0, 3_000))
messages = st.tuples(st.integers(0, 5_000), st.integers(0, 200_000))


def test_until_the_first_evidence_the_local_clock_is_right() -> None:
    far = exchange(HOUR_MS)
    assert far.learned.offset_ms == 0
    far.message(age_ms=0)
    # A stamp alone has no upper bound beside it: it may be years old, or in the future.
    assert far.learned.offset_ms == 0
    assert far.learned.now_ms() == far.local.now_ms()


@given(offsets, st.lists(st.one_of(requests, messages), min_size=1, max_size=40))
def test_the_estimate_and_the_truth_lie_within_all_that_was_proved(
    offset_ms: int, steps: list[tuple[int, ...]]
) -> None:
    far = exchange(offset_ms)
    low_ms, high_ms = -(10**15), 10**15
    for pause_ms, *rest in steps:
        far.local.advance(pause_ms / 1_000)
        if len(rest) == 2:
            low, high = far.request(*rest)
            low_ms, high_ms = max(low_ms, low), min(high_ms, high)
        elif high_ms < 10**15:
            low_ms = max(low_ms, far.message(*rest))
        assert low_ms <= offset_ms <= high_ms
        if high_ms < 10**15:
            assert low_ms <= far.learned.offset_ms <= high_ms


@given(st.lists(st.one_of(requests, messages), max_size=40))
def test_a_clock_that_is_right_is_left_alone(steps: list[tuple[int, ...]]) -> None:
    right = exchange(0)
    for pause_ms, *rest in steps:
        right.local.advance(pause_ms / 1_000)
        if len(rest) == 2:
            right.request(*rest)
        else:
            right.message(*rest)
        assert right.learned.offset_ms == 0


@given(offsets, st.integers(0, 200), st.integers(0, 200))
def test_one_answer_brings_the_estimate_within_a_second_and_its_way(
    offset_ms: int, there_ms: int, back_ms: int
) -> None:
    far = exchange(offset_ms)
    far.request(there_ms, back_ms)
    assert abs(far.learned.offset_ms - offset_ms) <= SECOND_MS + there_ms + back_ms


def test_dates_at_all_phases_of_a_second_leave_the_uncertainty_of_the_way() -> None:
    far = exchange(-HOUR_MS)
    for _ in range(200):
        far.local.advance(0.107)
        far.request(20, 20)
    assert abs(far.learned.offset_ms + HOUR_MS) <= 40 + 107


def test_a_live_message_moves_the_estimate_up_to_the_truth() -> None:
    far = exchange(HOUR_MS + 900)
    far.request(0, 0)
    assert far.learned.offset_ms < HOUR_MS + 900
    far.message(age_ms=0)
    assert far.learned.offset_ms == HOUR_MS + 900


def test_an_old_stamp_or_one_from_the_future_moves_nothing_beyond_what_dates_prove() -> None:
    far = exchange(HOUR_MS)
    _, high_ms = far.request(0, 0)
    far.message(age_ms=143_000)
    assert far.learned.offset_ms == HOUR_MS
    far.message(age_ms=-DAY_MS)
    assert far.learned.offset_ms == high_ms


@given(offsets, st.integers(3_000, 400 * DAY_MS), st.booleans())
def test_after_either_clock_was_set_one_answer_is_enough(
    offset_ms: int, jump_ms: int, back: bool
) -> None:
    far = exchange(offset_ms)
    for _ in range(5):
        far.local.advance(0.31)
        far.request(20, 20)
        far.message(age_ms=50)
    far.local.set_wall(far.local.now_ms() + (-jump_ms if back else jump_ms))
    now_off_ms = offset_ms + (jump_ms if back else -jump_ms)
    after = far._replace(offset_ms=now_off_ms)
    after.request(20, 20)
    assert abs(far.learned.offset_ms - now_off_ms) <= SECOND_MS + 40


def test_durations_are_the_local_clock_s() -> None:
    far = exchange(HOUR_MS)
    far.request(0, 0)
    before = far.learned.monotonic()
    far.local.advance(2.5)
    assert far.learned.monotonic() - before == 2.5
    assert far.learned.now_ms() == far.local.now_ms() + HOUR_MS
