from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.simulator.limits import CallCounter


@given(st.lists(st.floats(0, 0.3), max_size=100))
def test_no_second_lets_more_than_ten_through(gaps_s: list[float]) -> None:
    calls, now, let_through = CallCounter(), 1_000.0, list[float]()
    for gap_s in gaps_s:
        now += gap_s
        if calls.take("candles", "me", now) is not None:
            let_through.append(now)
    seconds = [int(at) for at in let_through]
    assert all(seconds.count(second) <= 10 for second in seconds)
    assert calls.served["candles"] + calls.refused["candles"] == len(gaps_s)


def test_what_is_left_counts_down_and_comes_back_with_the_next_second() -> None:
    calls = CallCounter()
    left = [calls.take("ticker", "me", 7.1) for _ in range(12)]
    assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, None, None]
    assert calls.take("ticker", "me", 8.0) == 9
    assert (calls.served["ticker"], calls.refused["ticker"]) == (11, 2)


def test_groups_and_callers_are_counted_alone() -> None:
    calls = CallCounter()
    for group, caller in (("ticker", "me"), ("trades", "me"), ("ticker", "you")):
        assert calls.take(group, caller, 1.0) == 9


def test_an_origin_may_call_once_in_ten_seconds() -> None:
    calls = CallCounter()
    answers = [calls.take("origin", "me", float(second)) for second in range(20)]
    served = [second for second, left in enumerate(answers) if left is not None]
    assert served == [0, 10]
    assert all(later - earlier == 10 for earlier, later in pairwise(served))
