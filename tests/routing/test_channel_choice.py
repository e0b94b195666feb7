from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.routing.channel_world import ModelWorld, Situation, World
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.protocol import DataType, Priority
from upbit_backbone.routing.channel_choice import (
    CHANNELS,
    FORGET_S,
    LONGEST_REST_S,
    LOOK_AGAIN_S,
    SAMPLES_KEPT,
    Channel,
    ChannelChoice,
    Choice,
    Question,
    Reason,
    Shares,
)

NOW_S = 1_000.0
FAST_MS, SLOW_MS = 30.0, 300.0
Choose = Callable[[Situation], Choice]


def asked(data_type: DataType = DataType.TRADE, **others: Any) -> Question:
    """A small request of an unwatched symbol on two healthy channels, unless told otherwise."""
    defaults: dict[str, Any] = {"priority": Priority.NORMAL, "max_age_s": 10.0}
    if data_type in (DataType.TRADE, DataType.CANDLE):
        defaults["rows"] = 1
    return Question(data_type=data_type, **(defaults | others))


def chooser(*, shares: Shares = Shares.MOSTLY, seed: int = 1) -> ChannelChoice:
    return ChannelChoice(shares=shares, rng=Random(seed))


def measured(
    rest_ms: float = FAST_MS, socket_ms: float = SLOW_MS, *, shares: Shares = Shares.MOSTLY
) -> ChannelChoice:
    """Both channels have 20 samples."""
    choice = chooser(shares=shares)
    for _ in range(20):
        choice.update_channel_performance("rest", rest_ms, True)
        choice.update_channel_performance("websocket", socket_ms, True)
    return choice


@pytest.mark.parametrize(
    ("question", "channel", "reason"),
    [
        (asked(live=True), "websocket", Reason.LIVE),
        (asked(live=True, socket_wait_s=None), "rest", Reason.LIVE_POLLED),
        (asked(live=True, socket_wait_s=None, rest_wait_s=None), "websocket", Reason.BOTH_DOWN),
        (asked(DataType.CANDLE, rows=200), "rest", Reason.HISTORY),
        (asked(rows=500, priority=Priority.CRITICAL), "rest", Reason.HISTORY),
        (asked(rows=200, rest_wait_s=None), "rest", Reason.HISTORY),
        (asked(rows=199), "rest", Reason.ONLY_REST),
        (asked(rows=1, only_rest=True), "rest", Reason.ONLY_REST),
        (asked(DataType.ORDERBOOK, only_rest=True, watched=1), "rest", Reason.ONLY_REST),
        (asked(DataType.TICKER, watched=1), "websocket", Reason.WATCHED),
        (asked(DataType.ORDERBOOK, symbols=3, watched=3), "websocket", Reason.WATCHED),
        (asked(DataType.TRADE, watched=1), "websocket", Reason.WATCHED),
        (asked(DataType.TICKER), "rest", Reason.COLD),
        (asked(DataType.ORDERBOOK, symbols=3, watched=2), "rest", Reason.COLD),
        (asked(DataType.TICKER, watched=1, stream_age_s=1.0, max_age_s=0.5), "rest", Reason.COLD),
        (asked(DataType.TICKER, rest_wait_s=None), "websocket", Reason.REST_DOWN),
        (asked(rest_wait_s=None), "websocket", Reason.REST_DOWN),
        (asked(socket_wait_s=None), "rest", Reason.SOCKET_DOWN),
        (asked(DataType.TICKER, watched=1, socket_wait_s=None), "rest", Reason.SOCKET_DOWN),
        (asked(socket_wait_s=None, rest_wait_s=None), "rest", Reason.BOTH_DOWN),
        (asked(max_age_s=2.0, rest_wait_s=2.5), "websocket", Reason.REST_LATE),
        (asked(max_age_s=0.2), "rest", Reason.SOCKET_LATE),
        (asked(priority=Priority.CRITICAL), "rest", Reason.FASTEST),
        (asked(DataType.TICKER, rest_wait_s=1.0), "websocket", Reason.SNAPSHOT_CLEARLY_FASTER),
        (asked(DataType.TICKER, rest_wait_s=1.0, socket_wait_s=1.0), "rest", Reason.COLD),
    ],
)
def test_rules_come_first(question: Question, channel: Channel, reason: str) -> None:
    choice = chooser()
    assert choice.choose(question, NOW_S) == Choice(channel, Reason(reason))
    assert choice.counts == {(channel, reason): 1}


def test_small_requests_go_half_and_half_until_both_channels_have_20_samples() -> None:
    choice = chooser()
    shares: Counter[Channel] = Counter()
    for number in range(40):
        made = choice.choose(asked(DataType.CANDLE if number % 2 else DataType.TRADE), NOW_S)
        assert made.reason == "measuring"
        shares[made.channel] += 1
        choice.update_channel_performance(made.channel, FAST_MS, True)
    assert shares == {"rest": 20, "websocket": 20}
    assert choice.choose(asked(), NOW_S).reason != "measuring"


def test_halves_are_in_no_order_that_a_caller_could_keep_time_with() -> None:
    choice = chooser()
    made = [choice.choose(asked(), NOW_S).channel for _ in range(40)]
    assert set(made[::2]) == set(made[1::2]) == set(CHANNELS)


@pytest.mark.parametrize("shares", Shares)
def test_the_better_channel_then_gets_its_share_and_the_other_one_stays_measured(
    shares: Shares,
) -> None:
    choice = measured(shares=shares)
    made = Counter(choice.choose(asked(), NOW_S) for _ in range(2_000))
    better = made[Choice("rest", Reason.BETTER)]
    other = made[Choice("websocket", Reason.MEASURING_OTHER)]
    assert better + other == 2_000
    assert better / 2_000 == pytest.approx(shares.better, abs=0.04)
    assert "measuring" in Reason.MEASURING_OTHER


def test_shares_are_named_as_people_set_them() -> None:
    assert [Shares(text).better for text in ("80:20", "70:30", "50:50")] == [0.8, 0.7, 0.5]


def test_the_better_one_is_that_which_answers_sooner_with_its_queue() -> None:
    choice = measured(FAST_MS, SLOW_MS)
    critical = asked(priority=Priority.CRITICAL)
    assert choice.choose(critical, NOW_S).channel == "rest"
    queue = asked(priority=Priority.CRITICAL, rest_wait_s=0.4)
    assert choice.choose(queue, NOW_S).channel == "websocket"
    messages = asked(priority=Priority.CRITICAL, rest_wait_s=0.4, socket_wait_s=0.9)
    assert choice.choose(messages, NOW_S).channel == "rest"


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("watched", [0, 1])
@pytest.mark.parametrize("data_type", DataType)
def test_a_failed_socket_turns_the_very_next_choice_to_rest(
    data_type: DataType, watched: int, priority: Priority
) -> None:
    for choice in (chooser(), measured(SLOW_MS, FAST_MS)):
        choice.update_channel_performance("websocket", 5000.0, False)
        # However long after.
        made = choice.choose(asked(data_type, watched=watched, priority=priority), NOW_S + 3_600)
        assert made == Choice("rest", Reason.SOCKET_FAILED)


def test_a_failed_rest_turns_the_next_choice_to_the_socket() -> None:
    choice = measured()
    choice.update_channel_performance("rest", 5_000.0, False)
    made = choice.choose(asked(DataType.TICKER), NOW_S)
    assert made == Choice("websocket", Reason.REST_FAILED)


def test_a_failed_channel_is_still_taken_where_the_other_one_cannot_answer() -> None:
    choice = chooser()
    choice.update_channel_performance("websocket", 5_000.0, False)
    assert choice.choose(asked(rest_wait_s=None), NOW_S).channel == "websocket"
    assert choice.choose(asked(live=True), NOW_S).channel == "websocket"
    watched = asked(DataType.TICKER, watched=1, rest_wait_s=30.0)
    assert choice.choose(watched, NOW_S) == Choice("websocket", Reason.WATCHED)


def test_a_stream_serves_its_symbols_on_after_the_first_choice_that_avoided_it() -> None:
    choice = chooser()
    choice.update_channel_performance("websocket", 5_000.0, False)
    watched = asked(DataType.TICKER, watched=1)
    assert choice.choose(watched, NOW_S).channel == "rest"
    assert choice.choose(watched, NOW_S + 0.1) == Choice("websocket", Reason.WATCHED)


def test_a_success_brings_a_channel_back() -> None:
    choice = measured(SLOW_MS, FAST_MS)
    critical = asked(priority=Priority.CRITICAL)
    choice.update_channel_performance("websocket", 5_000.0, False)
    assert choice.choose(critical, NOW_S).channel == "rest"
    choice.update_channel_performance("websocket", FAST_MS, True)
    assert choice.choose(critical, NOW_S).channel == "websocket"


def test_time_brings_a_channel_back_and_critical_last() -> None:
    choice = measured(SLOW_MS, FAST_MS)
    choice.update_channel_performance("websocket", 5_000.0, False)
    normal, critical = asked(), asked(priority=Priority.CRITICAL)

    def channels(question: Question, now: float) -> set[Channel]:
        return {choice.choose(question, now).channel for _ in range(50)}

    assert channels(normal, NOW_S) == {"rest"}
    assert channels(normal, NOW_S + 4.9) == {"rest"}
    assert "websocket" in channels(normal, NOW_S + 5.1)
    assert channels(critical, NOW_S + LONGEST_REST_S - 0.1) == {"rest"}
    assert channels(critical, NOW_S + LONGEST_REST_S + 0.1) == {"websocket"}


def test_a_channel_that_goes_on_failing_rests_longer_but_never_for_ever() -> None:
    choice = measured(SLOW_MS, FAST_MS)
    now, rests = NOW_S, []
    for _ in range(6):
        choice.update_channel_performance("websocket", 2_000.0, False)
        began = now
        while choice.choose(asked(DataType.TRADE), now).channel == "rest":
            now += 0.1
        rests.append(round(now - began))
    assert rests == [5, 10, 20, 20, 20, 20]


def test_critical_alone_comes_back_to_a_channel_that_failed_for_long() -> None:
    choice = measured(SLOW_MS, FAST_MS)
    for _ in range(50):
        choice.update_channel_performance("websocket", 5_000.0, False)
    critical = asked(priority=Priority.CRITICAL)
    assert choice.choose(critical, NOW_S).channel == "rest"
    assert choice.choose(critical, NOW_S + FORGET_S + 1).channel == "websocket"


def test_one_slow_answer_changes_nothing_and_two_do() -> None:
    choice, critical = measured(), asked(priority=Priority.CRITICAL)
    choice.update_channel_performance("rest", 5_000.0, True)
    assert choice.choose(critical, NOW_S).channel == "rest"
    choice.update_channel_performance("rest", 5_000.0, True)
    assert choice.choose(critical, NOW_S).channel == "websocket"


def test_one_answer_after_an_outage_tells_what_to_expect() -> None:
    choice, critical = measured(), asked(priority=Priority.CRITICAL)
    for _ in range(15):
        choice.update_channel_performance("rest", 5_000.0, False)
    choice.update_channel_performance("rest", FAST_MS, True)
    assert choice.choose(critical, NOW_S).channel == "rest"


def test_a_channel_thought_too_slow_is_looked_at_again_by_callers_who_can_wait() -> None:
    choice = measured(6_000.0, FAST_MS)
    patient = asked(DataType.TICKER, max_age_s=5.0)
    critical = asked(DataType.TICKER, max_age_s=5.0, priority=Priority.CRITICAL)
    made = []
    for step in range(100):
        assert not choice.choose(critical, NOW_S + step * 0.1).exploring
        made.append(choice.choose(patient, NOW_S + step * 0.1))
    again = [number for number, one in enumerate(made) if one.exploring]
    assert again == [0, round(LOOK_AGAIN_S / 0.1)]
    assert {made[number] for number in again} == {Choice("rest", Reason.MEASURING_AGAIN)}
    assert made[1] == Choice("websocket", Reason.REST_LATE)


def test_answers_of_watched_streams_do_not_tell_how_long_snapshots_take() -> None:
    choice = measured(FAST_MS, 6_000.0)
    small = asked(max_age_s=5.0)
    assert choice.choose(small, NOW_S) == Choice("websocket", Reason.MEASURING_AGAIN)
    for step in range(60):
        choice.choose(asked(DataType.TICKER, watched=1), NOW_S + step * 0.1)
        choice.choose(asked(live=True), NOW_S + step * 0.1)
    assert choice.choose(small, NOW_S + 6).exploring


def test_a_channel_that_fails_fast_is_not_a_fast_one() -> None:
    choice, critical = measured(), asked(priority=Priority.CRITICAL)
    for _ in range(3):
        choice.update_channel_performance("rest", 5.0, False)
    assert choice.choose(critical, NOW_S) == Choice("websocket", Reason.REST_FAILED)
    rested = choice.choose(critical, NOW_S + LONGEST_REST_S + 1)
    assert rested == Choice("websocket", Reason.FASTEST)


def test_nobody_looks_again_where_the_queue_alone_is_too_long() -> None:
    choice = chooser()
    queue = asked(DataType.TICKER, max_age_s=2.0, rest_wait_s=4.0)
    made = {choice.choose(queue, NOW_S + step) for step in range(100)}
    assert made == {Choice("websocket", Reason.REST_LATE)}


def test_the_newest_100_samples_of_a_channel_are_kept() -> None:
    choice = chooser()
    for number in range(250):
        choice.update_channel_performance("rest", 20.0, number >= 160)
    known = choice.performance("rest", NOW_S)
    assert known.samples == SAMPLES_KEPT == 100
    assert known.success_rate == pytest.approx(0.9)
    assert known.latency_ms == 20.0
    unknown = choice.performance("websocket", NOW_S)
    assert (unknown.samples, unknown.latency_ms, unknown.success_rate) == (0, None, None)


@pytest.mark.parametrize(
    ("channel", "latency_ms"),
    [("ws", 20.0), ("", 20.0), ("rest", -1.0), ("rest", float("nan")), ("rest", float("inf"))],
)
def test_a_sample_that_makes_no_sense_is_refused(channel: Any, latency_ms: float) -> None:
    choice = chooser()
    with pytest.raises(InvalidRequestError, match=r"was .*: expected"):
        choice.update_channel_performance(channel, latency_ms, True)
    assert choice.performance("rest", NOW_S).samples == 0


WAITS = st.none() | st.floats(0, 20)
QUESTIONS = st.builds(
    Question,
    data_type=st.sampled_from(DataType),
    priority=st.sampled_from(Priority),
    max_age_s=st.floats(0, 60),
    rows=st.sampled_from((0, 1, 2, 199, 200, 500)),
    live=st.booleans(),
    only_rest=st.booleans(),
    symbols=st.integers(1, 3),
    watched=st.integers(0, 3),
    stream_age_s=st.floats(0, 60),
    rest_wait_s=WAITS,
    socket_wait_s=WAITS,
)
SAMPLES = st.tuples(st.sampled_from(CHANNELS), st.floats(0, 1e7), st.booleans())
EVENTS = st.lists(st.tuples(st.floats(0, 30), QUESTIONS | SAMPLES), max_size=80)


@given(events=EVENTS, shares=st.sampled_from(Shares), seed=st.integers(0, 99))
def test_whatever_happens_a_choice_can_be_carried_out_and_is_counted(
    events: list[tuple[float, Question | tuple[Channel, float, bool]]], shares: Shares, seed: int
) -> None:
    choice, now, made = ChannelChoice(shares=shares, rng=Random(seed)), NOW_S, 0
    for gap_s, event in events:
        now += gap_s
        if isinstance(event, tuple):
            choice.update_channel_performance(*event)
            continue
        one, made = choice.choose(event, now), made + 1
        waits = {"rest": event.rest_wait_s, "websocket": event.socket_wait_s}
        for_socket = not (event.rows > 1 or event.only_rest) or event.live
        if one.channel == "websocket":
            assert for_socket
        other = "rest" if one.channel == "websocket" else "websocket"
        if waits[one.channel] is None and waits[other] is not None:
            assert other == "websocket"
            assert not for_socket, "only REST has it"
        assert not (one.exploring and event.priority is Priority.CRITICAL)
    assert sum(choice.counts.values()) == made
    assert {reason for _, reason in choice.counts} <= {reason.value for reason in Reason}


def right(choose: Choose, tell: Callable[[Channel, float, bool], None], world: World) -> float:
    """Which part of the choices not marked `measuring` is the better channel, by the truth."""
    judged = good = 0
    for situation in world.situations(500):
        made = choose(situation)
        outcome, question = situation.outcomes[made.channel], situation.question
        waits = {"rest": question.rest_wait_s, "websocket": question.socket_wait_s}
        if outcome.sample and waits[made.channel] is not None:
            tell(made.channel, outcome.latency_ms, outcome.success)
        if not made.exploring and situation.better is not None:
            judged += 1
            good += made.channel == situation.better
    assert judged > 350, "too much is measured, or cannot be answered"
    return good / judged


def by_choice(seed: int) -> float:
    choice = chooser(seed=seed)
    return right(
        lambda situation: choice.choose(situation.question, situation.now),
        choice.update_channel_performance,
        ModelWorld(Random(seed)),
    )


def test_in_a_script_of_500_situations_more_than_95_percent_choose_the_better_channel() -> None:
    assert by_choice(seed=500) > 0.95


def test_other_scripts_agree() -> None:
    """Each has nine kinds of weather of 55 situations; turning costs the first few of each."""
    rates = sorted(map(by_choice, range(20)))
    assert sum(rates) / len(rates) > 0.97
    assert rates[2] > 0.95


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_script_tells_who_chooses_badly(channel: Channel) -> None:
    always = Choice(channel, Reason.BETTER)
    assert right(lambda _: always, lambda *_: None, ModelWorld(Random(500))) < 0.8


def test_the_script_tells_who_knows_the_rules_and_measures_nothing() -> None:
    choice = chooser()
    rate = right(
        lambda situation: choice.choose(situation.question, situation.now),
        lambda *_: None,
        ModelWorld(Random(500)),
    )
    assert rate < 0.95
