"""Allowances, bans and counts, as pure bookkeeping; at the server: `test_bans.py`."""

import tracemalloc
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import WINDOW_S, RateWindow
from upbit_backbone.simulator import limits
from upbit_backbone.simulator.limits import (
    HIGHEST_PEAK,
    LIMITS,
    CallCounter,
    MessageLimit,
    PeakRate,
)
from upbit_backbone.simulator.settings import SimulatorSettings, WindowKind

KINDS: tuple[WindowKind, ...] = ("fixed", "first-request", "sliding")
NO_BANS = 0
GAPS = st.lists(st.floats(0, 0.3), max_size=100)

every_window = pytest.mark.parametrize("window", KINDS)


def counter(window: WindowKind = "fixed", **settings: object) -> CallCounter:
    return CallCounter(SimulatorSettings(window=window, **settings))  # type: ignore[arg-type]


def ask(calls: CallCounter, times: list[float], group: str = "candles") -> list[float]:
    """Ask at these times; gives those of the calls let through."""
    return [at for at in times if calls.take(group, "me", at) is not None]


@given(GAPS)
def test_no_second_of_the_clock_lets_more_than_ten_through(gaps_s: list[float]) -> None:
    times = list(accumulate(gaps_s, initial=1_000.0))
    calls = counter("fixed", ban_after=NO_BANS)
    let_through = [int(at) for at in ask(calls, times)]
    assert all(let_through.count(second) <= 10 for second in let_through)
    assert calls.served["candles"] + calls.refused["candles"] == len(times)


@given(GAPS)
def test_no_second_after_a_first_request_lets_more_than_ten_through(gaps_s: list[float]) -> None:
    times = list(accumulate(gaps_s, initial=1_000.0))
    left = ask(counter("first-request", ban_after=NO_BANS), times)
    while left:
        opened_at = left[0]
        in_window = [at for at in left if at < opened_at + 1]
        assert len(in_window) <= 10
        left = left[len(in_window) :]


@pytest.mark.parametrize("refused_count", [False, True])
@given(gaps_s=GAPS)
@example(gaps_s=[0.1] * 30)
@example(gaps_s=[0.0] * 9 + [1.0])
def test_sliding_refuses_whoever_sends_more_than_ten_in_any_second(
    refused_count: bool, gaps_s: list[float]
) -> None:
    """Of any second, whether its ends belong to it or not."""
    times = list(accumulate(gaps_s, initial=1_000.0))
    calls = counter("sliding", refused_count=refused_count, ban_after=NO_BANS)
    let_through = ask(calls, times)
    for start in times:
        assert sum(0 <= at - start <= 1 for at in let_through) <= 10
        if sum(0 <= at - start <= 1 for at in times) > 10:
            assert calls.refused["candles"] > 0
    crowded = any(sum(0 <= at - start <= 1 for at in times) > 10 for start in times)
    assert (calls.refused["candles"] > 0) == crowded


@every_window
@given(gaps_s=st.lists(st.floats(0, 0.6), max_size=150))
def test_our_own_limiter_is_never_refused(window: WindowKind, gaps_s: list[float]) -> None:
    ours, calls = RateWindow(limit=10, window_s=WINDOW_S, reserve=2), counter(window)
    now = 1_000.0
    for gap_s in gaps_s:
        now += gap_s
        while (wait_s := ours.wait_s(now, Priority.CRITICAL)) > 0:
            now += wait_s
        ours.grant(now, Priority.CRITICAL)
        assert calls.take("candles", "me", now) is not None


@every_window
def test_what_is_left_counts_down_and_comes_back(window: WindowKind) -> None:
    calls = counter(window)
    left = [calls.take("ticker", "me", 7.1) for _ in range(12)]
    assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, None, None]
    back_at = {"fixed": 8.0, "first-request": 8.1, "sliding": 8.11}[window]
    assert calls.take("ticker", "me", back_at - 0.02) is None
    assert calls.take("ticker", "me", back_at) == 9
    assert (calls.served["ticker"], calls.refused["ticker"]) == (11, 3)


def test_refused_calls_use_up_allowance_if_they_count() -> None:
    lenient, strict = counter("sliding"), counter("sliding", refused_count=True)
    for calls in (lenient, strict):
        ask(calls, [7.0] * 10 + [7.9] * 5)
    assert lenient.take("candles", "me", 8.1) == 9
    assert strict.take("candles", "me", 8.1) == 4


@every_window
def test_groups_and_callers_are_counted_alone(window: WindowKind) -> None:
    calls = counter(window)
    for group, caller in (("ticker", "me"), ("trades", "me"), ("ticker", "you")):
        assert calls.take(group, caller, 1.0) == 9


@pytest.mark.parametrize(
    ("window", "served_at"),
    [("fixed", [0, 10]), ("first-request", [0, 10]), ("sliding", [0, 11])],
)
def test_an_origin_may_call_once_in_ten_seconds(window: WindowKind, served_at: list[int]) -> None:
    calls = counter(window, ban_after=NO_BANS)
    assert ask(calls, [float(second) for second in range(20)], "origin") == served_at


def test_the_limits_are_those_of_the_exchange() -> None:
    assert {group: tuple(limit) for group, limit in LIMITS.items()} == {
        "market": (10, 1),
        "candles": (10, 1),
        "trades": (10, 1),
        "ticker": (10, 1),
        "orderbook": (10, 1),
        "origin": (1, 10),
        "websocket": (5, 1),
    }


@every_window
@given(gaps_s=st.lists(st.floats(0, 0.6), max_size=200))
def test_a_connection_may_send_five_messages_a_second_and_a_hundred_a_minute(
    window: WindowKind, gaps_s: list[float]
) -> None:
    limit = MessageLimit(window)
    taken = [at for at in accumulate(gaps_s, initial=60_000.0) if limit.take(at)]
    if window == "fixed":
        assert all(sum(int(at) == int(one) for at in taken) <= 5 for one in taken)
        assert all(sum(at // 60 == one // 60 for at in taken) <= 100 for one in taken)
    if window == "sliding":
        assert all(sum(0 <= at - one <= 1 for at in taken) <= 5 for one in taken)
        assert all(sum(0 <= at - one <= 60 for at in taken) <= 100 for one in taken)


@every_window
def test_the_hundred_and_first_message_of_a_minute_is_one_too_many(window: WindowKind) -> None:
    limit = MessageLimit(window)
    taken = [limit.take(600.0 + number * 0.5) for number in range(120)]
    assert taken == [True] * 100 + [False] * 20
    assert limit.take(661.0)


def test_twenty_refused_calls_within_ten_seconds_ban_for_all_groups() -> None:
    calls = counter()
    ask(calls, [1.0] * 10 + [1.5] * 19)
    assert calls.banned_s("me", 1.5) == 0
    assert calls.take("candles", "me", 1.6) is None
    assert calls.banned_s("me", 1.6) == 10
    for group in LIMITS:
        assert calls.take(group, "me", 11.5) is None
    assert (calls.refused.total(), calls.banned.total()) == (20, len(LIMITS))
    assert calls.bans(6.6) == {"me": 5}
    assert calls.take("candles", "you", 2.0) == 9
    assert calls.take("ticker", "me", 11.6) == 9
    assert calls.bans(11.6) == {}


def test_refused_calls_that_are_ten_seconds_apart_ban_nobody() -> None:
    calls = counter()
    for start in (0.0, 10.1, 20.2):
        ask(calls, [start] * 29)
    assert calls.banned.total() == 0
    assert calls.refused.total() == 57


def ban(calls: CallCounter, now: float) -> float:
    """Ask until banned; gives the length of the ban."""
    while calls.banned_s("me", now) == 0:
        calls.take("candles", "me", now)
    return calls.banned_s("me", now)


def test_each_ban_is_longer_until_an_hour_has_passed_without_one() -> None:
    calls, now, lengths_s = counter(), 1_000.0, list[float]()
    for _ in range(5):
        lengths_s.append(ban(calls, now))
        now += lengths_s[-1] + 3_599
    assert lengths_s == [10, 60, 300, 3_600, 3_600]
    assert ban(calls, now + 1) == 10


def test_bans_are_a_setting() -> None:
    calls = counter(ban_after=3, ban_within_s=1.0, ban_lengths_s=(7.0,))
    assert ban(calls, 5.0) == 7
    assert calls.refused["candles"] == 3
    never = counter(ban_after=0)
    ask(never, [5.0] * 500)
    assert never.banned.total() == 0


def test_a_ban_by_order_does_not_make_the_next_one_longer() -> None:
    calls = counter()
    calls.ban("me", 30.0, 1.0)
    assert calls.banned_s("me", 2.0) == 29
    assert ban(calls, 31.0) == 10


@given(GAPS)
@example([1.0, 1.0])
def test_the_peak_is_the_most_calls_in_any_second(gaps_s: list[float]) -> None:
    times = list(accumulate(gaps_s, initial=5.0))
    calls = counter()
    ask(calls, times)
    expected = max(sum(0 <= at - start <= 1 for at in times) for start in times)
    assert calls.peaks() == {"candles": expected}


def test_a_reset_forgets_counts_and_bans() -> None:
    calls = counter()
    ban(calls, 5.0)
    calls.reset()
    assert calls.banned_s("me", 5.0) == 0
    assert calls.take("candles", "me", 5.0) == 9
    assert (calls.served.total(), calls.refused.total(), calls.banned.total()) == (1, 0, 0)
    assert calls.peaks() == {"candles": 1}


@every_window
def test_callers_without_number_need_no_more_room_than_some(
    window: WindowKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.MOST_CALLERS == 10_000
    monkeypatch.setattr(limits, "MOST_CALLERS", most := 1_000)
    calls, grown = counter(window), list[int]()
    tracemalloc.start()
    try:
        for rounds in range(4):
            for number in range(most):
                calls.take("ticker", f"{rounds} {number}", 1.0)
            grown.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(grown) < 1.2 * grown[0] < most * 2_000
    assert calls.served.total() == 4 * most


def test_who_was_not_heard_of_for_a_while_is_forgotten() -> None:
    calls = counter()
    for number in range(1_000):
        calls.take("ticker", str(number), 1.0)
    calls.take("ticker", "me", 12.0)
    assert len(calls._callers) == 1


def test_a_peak_needs_bounded_room() -> None:
    rate = PeakRate()
    for _ in range(3 * HIGHEST_PEAK):
        rate.add(1.0)
    assert rate.peak == HIGHEST_PEAK


def test_calls_in_even_steps_just_below_the_limit_pass_every_window() -> None:
    for window in KINDS:
        calls = counter(window)
        times = [1_000 + number * 0.1111 for number in range(200)]
        assert ask(calls, times) == times
        assert all(later - earlier < 0.12 for earlier, later in pairwise(times))
