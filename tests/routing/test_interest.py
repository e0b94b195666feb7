from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.protocol import Priority
from upbit_backbone.routing.interest import (
    CHANGE_SPACING_S,
    IDLE_S,
    MOST_REMEMBERED,
    REQUESTS_WITHIN_S,
    ChangePace,
    Interest,
    Key,
)

NOW_S = 1_000.0
KEY: Key = ("ticker", "KRW-BTC")


def ask(interest: Interest, now: float, symbol: str = "KRW-BTC", times: int = 1) -> bool:
    """Whether the last of some requests earns the stream."""
    earned = False
    for _ in range(times):
        earned = interest.asked("ticker", symbol, Priority.NORMAL, now)
    return earned


def test_the_third_request_in_ten_seconds_earns_a_stream() -> None:
    interest = Interest()
    assert not ask(interest, NOW_S)
    assert not ask(interest, NOW_S + 5)
    assert KEY not in interest
    assert ask(interest, NOW_S + 10)
    assert interest.keys == {KEY}


def test_three_requests_over_a_longer_time_do_not() -> None:
    interest = Interest()
    for step in range(20):
        assert not ask(interest, NOW_S + step * 5.1)


def test_the_newest_requests_count_whenever_the_first_one_was() -> None:
    interest = Interest()
    assert not ask(interest, NOW_S)
    assert not ask(interest, NOW_S + 60)
    assert not ask(interest, NOW_S + 61)
    assert ask(interest, NOW_S + 62)


def test_one_critical_request_is_enough() -> None:
    interest = Interest()
    assert interest.asked("trade", "KRW-BTC", Priority.CRITICAL, NOW_S)
    assert not interest.asked("trade", "KRW-BTC", Priority.CRITICAL, NOW_S), "it has one"


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.NORMAL, Priority.LOW])
def test_no_other_single_request_is(priority: Priority) -> None:
    assert not Interest().asked("ticker", "KRW-BTC", priority, NOW_S)


def test_kinds_and_symbols_are_counted_apart() -> None:
    interest = Interest()
    assert not ask(interest, NOW_S, times=2)
    assert not ask(interest, NOW_S, "KRW-ETH")
    assert not interest.asked("orderbook", "KRW-BTC", Priority.NORMAL, NOW_S)
    assert ask(interest, NOW_S)


def test_five_idle_minutes_lose_the_stream() -> None:
    interest = Interest()
    ask(interest, NOW_S, times=3)
    assert interest.idle(NOW_S + IDLE_S - 0.1) == []
    assert interest.idle(NOW_S + IDLE_S) == [KEY]
    assert KEY not in interest
    assert interest.idle(NOW_S + IDLE_S) == [], "told once"
    assert not ask(interest, NOW_S + IDLE_S), "and it has to be earned anew"


def test_requests_and_answers_from_memory_keep_it() -> None:
    interest = Interest()
    ask(interest, NOW_S, times=3)
    ask(interest, NOW_S + 200)
    assert interest.idle(NOW_S + 400) == []
    interest.touched[KEY] = NOW_S + 450
    assert interest.idle(NOW_S + 700) == []
    assert interest.idle(NOW_S + 749) == []
    assert interest.idle(NOW_S + 750) == [KEY]


def test_an_answer_from_memory_earns_nothing_by_itself_and_is_not_kept() -> None:
    interest = Interest()
    interest.touched[KEY] = NOW_S
    assert interest.idle(NOW_S) == []
    assert interest.keys == frozenset()
    assert not interest.touched


def test_beyond_the_limit_the_one_idle_longest_gives_way() -> None:
    interest = Interest(limit=2)
    for number in range(2):
        assert ask(interest, NOW_S + number, f"KRW-{number}", times=3)
    interest.touched["ticker", "KRW-0"] = NOW_S + 20
    assert ask(interest, NOW_S + 20, "KRW-NEW", times=3)
    assert interest.keys == {("ticker", "KRW-0"), ("ticker", "KRW-NEW")}
    assert interest.idle(NOW_S + 20) == [("ticker", "KRW-1")]


def test_streams_in_use_do_not_give_way() -> None:
    interest = Interest(limit=2)
    for number in range(2):
        ask(interest, NOW_S, f"KRW-{number}", times=3)
    assert not ask(interest, NOW_S + REQUESTS_WITHIN_S, "KRW-NEW", times=5)
    assert not interest.asked("ticker", "KRW-NEW", Priority.CRITICAL, NOW_S + 1)
    assert interest.idle(NOW_S + REQUESTS_WITHIN_S) == []
    assert ask(interest, NOW_S + REQUESTS_WITHIN_S + 0.1, "KRW-NEW"), "now they are idle"


def test_what_gave_way_and_came_back_meanwhile_is_not_told_as_given_up() -> None:
    interest = Interest(limit=1)
    ask(interest, NOW_S, times=3)
    ask(interest, NOW_S + 20, "KRW-NEW", times=3)
    ask(interest, NOW_S + 40, times=3)
    assert interest.idle(NOW_S + 40) == [("ticker", "KRW-NEW")]
    assert interest.keys == {KEY}


def test_what_is_forgotten_has_to_be_earned_anew() -> None:
    interest = Interest()
    ask(interest, NOW_S, times=3)
    interest.forget(KEY)
    assert KEY not in interest
    assert not ask(interest, NOW_S, times=2)
    assert ask(interest, NOW_S)
    interest.forget(("trade", "KRW-NEVER"))


def test_symbols_asked_once_are_not_remembered_for_ever() -> None:
    interest = Interest()
    for number in range(10 * MOST_REMEMBERED):
        ask(interest, NOW_S, f"KRW-{number}")
    assert len(interest._asked) == MOST_REMEMBERED
    newest = f"KRW-{10 * MOST_REMEMBERED - 1}"
    assert ask(interest, NOW_S, newest, times=2)


@given(
    requests=st.lists(
        st.tuples(st.floats(0, 400), st.integers(0, 6), st.sampled_from(Priority), st.booleans()),
        max_size=120,
    ),
    limit=st.integers(1, 4),
)
def test_whoever_adds_up_what_is_told_knows_the_keys(
    requests: list[tuple[float, int, Priority, bool]], limit: int
) -> None:
    interest, now, known = Interest(limit=limit), NOW_S, set[Key]()
    for gap_s, number, priority, look in requests:
        now += gap_s
        key: Key = ("orderbook", f"KRW-{number}")
        if interest.asked(*key, priority, now):
            known.add(key)
        if look:
            for given_up in interest.idle(now):
                known.remove(given_up)
            assert interest.keys == known
        assert len(interest.keys) <= limit


def test_automatic_changes_are_a_second_apart() -> None:
    pace = ChangePace()
    assert pace.due_in(NOW_S) == 0
    pace.changed(NOW_S)
    assert pace.due_in(NOW_S) == CHANGE_SPACING_S
    assert pace.due_in(NOW_S + 0.4) == pytest.approx(0.6)
    assert pace.due_in(NOW_S + 1) == 0


@given(gaps_s=st.lists(st.floats(0, 3), max_size=60))
def test_no_second_sees_two_automatic_changes(gaps_s: list[float]) -> None:
    pace, now, sent = ChangePace(), NOW_S, list[float]()
    for gap_s in gaps_s:
        now += gap_s
        now += pace.due_in(now)
        pace.changed(now)
        sent.append(now)
    assert all(after - before >= CHANGE_SPACING_S - 1e-9 for before, after in pairwise(sent))
