"""The recorder of calls."""

from __future__ import annotations

import weakref
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.protocol import CallStats, DataType, Priority, Tier
from upbit_backbone.telemetry.calls import (
    COUNTED,
    MAX_HITS,
    MAX_KINDS,
    MAX_WAITING,
    OTHER_PATH,
    SAMPLED_A_SECOND,
    SLOW_S,
    TIERS,
    CallRecorder,
    HitQueue,
    layer_totals,
)

PEEK, COLD = "peek", "direct: api → router"
KINDS = st.tuples(
    st.sampled_from(Priority), st.sampled_from(DataType), st.sampled_from([PEEK, COLD])
)
ANSWERS = st.lists(st.tuples(KINDS, st.sampled_from(TIERS), st.floats(0, 3)), max_size=60)
FAILURES = st.lists(st.tuples(KINDS, st.sampled_from(["DeadlineError", "TransportError"])))


def recorder() -> CallRecorder:
    return CallRecorder(Random(7), 0.0)


def hit(calls: CallRecorder, taken_s: float = 2e-6, *, tier: Tier = "memory") -> None:
    calls.answered(Priority.CRITICAL, DataType.TICKER, PEEK, tier, taken_s)


def of_kind(calls: CallRecorder, now: float, window: str, *kind: object) -> CallStats:
    [found] = [
        entry
        for entry in calls.windows(now)[window].calls
        if (entry.priority, entry.data_type, entry.path) == kind
    ]
    return found


@given(answers=ANSWERS, failures=FAILURES)
@settings(max_examples=50)
def test_every_call_is_counted_once_under_its_kind_tier_and_error(
    answers: list[tuple[tuple[Priority, DataType, str], Tier, float]],
    failures: list[tuple[tuple[Priority, DataType, str], str]],
) -> None:
    calls = recorder()
    for kind, tier, taken_s in answers:
        calls.answered(*kind, tier, taken_s)
    for kind, error in failures:
        calls.failed(*kind, error)
    assert calls.requests == len(answers) + len(failures)
    for window in calls.windows(5.0).values():
        assert window.measured == 1.0
        told = {(entry.priority, entry.data_type, entry.path): entry for entry in window.calls}
        answered = Counter(kind for kind, _, _ in answers)
        failed = Counter(kind for kind, _ in failures)
        assert told.keys() == answered.keys() | failed.keys()
        for kind, entry in told.items():
            assert entry.latency.count == answered[kind]
            assert entry.error_rate == failed[kind] / (answered[kind] + failed[kind])
            assert entry.requests_per_s == pytest.approx((answered[kind] + failed[kind]) / 5)
        assert window.errors == Counter(error for _, error in failures)
        tiers = Counter(tier for _, tier, _ in answers)
        assert window.answers == {tier: tiers[tier] for tier in TIERS}
        assert window.requests_per_s == pytest.approx((len(answers) + len(failures)) / 5)
    assert (calls.requests, calls.errors) == (len(answers) + len(failures), len(failures))
    assert calls.hits == sum(tier != "exchange" for _, tier, _ in answers)


def test_each_window_forgets_in_its_own_time() -> None:
    calls = recorder()
    hit(calls)
    counts = {
        now: {name: window.answers["memory"] for name, window in calls.windows(now).items()}
        for now in (1.0, 9.0, 11.0, 290.0, 316.0, 3_500.0, 3_721.0)
    }
    assert [counts[now]["10s"] for now in counts] == [1, 1, 0, 0, 0, 0, 0]
    assert [counts[now]["5m"] for now in counts] == [1, 1, 1, 1, 0, 0, 0]
    assert [counts[now]["1h"] for now in counts] == [1, 1, 1, 1, 1, 1, 0]
    assert calls.requests == 1


def test_quantiles_forget_calls_of_a_kind_that_is_not_made_any_more() -> None:
    calls = recorder()
    hit(calls)
    calls.drain(0.5)
    assert calls.latency("10s")[Priority.CRITICAL].count == 1
    calls.drain(11.0)
    assert calls.latency("10s")[Priority.CRITICAL].count == 0
    assert calls.latency("5m")[Priority.CRITICAL].count == 1


def test_quantiles_of_a_priority_are_of_all_its_wanted_kinds_together() -> None:
    calls = recorder()
    for number in range(1, 101):
        path = PEEK if number <= 50 else COLD
        calls.answered(Priority.HIGH, DataType.CANDLE, path, "memory", number / 1_000)
    calls.answered(Priority.LOW, DataType.CANDLE, PEEK, "memory", 9.0)
    calls.drain(1.0)
    high = calls.latency()[Priority.HIGH]
    assert high.count == 100
    assert high.p50_ms == pytest.approx(50, rel=0.01)
    assert high.p95_ms == pytest.approx(95, rel=0.01)
    warm = calls.latency("10s", lambda kind: kind.path == PEEK)[Priority.HIGH]
    assert warm.count == 50
    assert warm.max_ms == pytest.approx(50, rel=0.01)
    assert calls.latency()[Priority.NORMAL].count == 0


def test_up_to_five_thousand_a_second_every_call_is_measured() -> None:
    calls = recorder()
    for _ in range(SAMPLED_A_SECOND):
        hit(calls)
    window = calls.windows(1.0)["10s"]
    assert (window.measured, window.calls[0].latency.count) == (1.0, SAMPLED_A_SECOND)


def test_above_that_quick_calls_are_sampled_and_the_figures_say_how_many_were_measured() -> None:
    calls = recorder()
    for _ in range(4 * SAMPLED_A_SECOND):
        hit(calls)
    window = calls.windows(1.0)["10s"]
    assert window.measured == pytest.approx(0.25)
    assert window.requests_per_s == 4 * SAMPLED_A_SECOND
    assert window.calls[0].latency.count == pytest.approx(4 * SAMPLED_A_SECOND, abs=4)
    assert calls.requests == 4 * SAMPLED_A_SECOND


def test_a_sample_shows_callers_that_take_turns_in_equal_parts() -> None:
    calls = recorder()
    for number in range(4 * SAMPLED_A_SECOND):
        data_type = DataType.TICKER if number % 2 else DataType.ORDERBOOK
        calls.answered(Priority.CRITICAL, data_type, PEEK, "memory", 2e-6)
    books, tickers = calls.windows(1.0)["10s"].calls
    assert books.latency.count == pytest.approx(2 * SAMPLED_A_SECOND, rel=0.1)
    assert tickers.latency.count == pytest.approx(2 * SAMPLED_A_SECOND, rel=0.1)


def test_slow_calls_and_errors_are_never_sampled_away() -> None:
    calls = recorder()
    for number in range(8 * SAMPLED_A_SECOND):
        hit(calls)
        if number % 4_000 == 0:
            calls.answered(Priority.HIGH, DataType.CANDLE, COLD, "exchange", SLOW_S)
            calls.failed(Priority.LOW, DataType.TRADE, COLD, "TransportError")
    window = calls.windows(1.0)["10s"]
    assert window.measured < 0.2
    slow = of_kind(calls, 1.0, "10s", Priority.HIGH, DataType.CANDLE, COLD)
    assert slow.latency.count == 10
    assert window.errors == {"TransportError": 10}
    assert window.error_rate == 10 / calls.requests


def test_a_slow_call_weighs_as_one_among_sampled_ones() -> None:
    calls = recorder()
    for _ in range(9_900):
        hit(calls)
    for _ in range(100):
        hit(calls, 0.5)
    # One in a hundred: p99 lies right before the slow ones, p95 far from them.
    stats = of_kind(calls, 1.0, "10s", Priority.CRITICAL, DataType.TICKER, PEEK).latency
    assert stats.p95_ms < 0.01
    assert stats.max_ms == pytest.approx(500, rel=0.01)
    assert stats.count == 10_000


def test_calls_beyond_what_may_wait_are_counted_though_not_measured() -> None:
    calls = recorder()
    for _ in range(MAX_WAITING + 1_000):
        hit(calls)
    assert calls.requests == MAX_WAITING + 1_000
    assert calls.windows(1.0)["10s"].requests_per_s == MAX_WAITING + 1_000


def test_a_drain_that_comes_late_measures_as_much_of_each_second() -> None:
    calls = recorder()
    for _ in range(4 * SAMPLED_A_SECOND):
        hit(calls)
    assert calls.windows(4.0)["10s"].measured == 1.0


def test_what_else_happened_is_counted_by_the_hour_and_since_the_start() -> None:
    calls = recorder()
    calls.happened("shed", 3)
    calls.observe({"reconnects": 2.0, "gaps": 1.0})
    calls.drain(1.0)
    calls.observe({"reconnects": 5.0, "gaps": 1.0})
    windows = calls.windows(12.0)
    assert windows["10s"].counts == dict.fromkeys(COUNTED, 0.0) | {"reconnects": 3.0}
    everything = {"shed": 3.0, "reconnects": 5.0, "gaps": 1.0}
    assert windows["1h"].counts == dict.fromkeys(COUNTED, 0.0) | everything
    assert calls.totals.items() >= everything.items()


def test_a_layer_that_was_made_anew_counts_from_zero_again() -> None:
    calls = recorder()
    for total in (7.0, 9.0, 2.0, 3.0):
        calls.observe({"retried": total})
    calls.drain(1.0)
    assert calls.totals["retried"] == 12.0


def test_counters_of_the_layers_have_their_names_here() -> None:
    totals = layer_totals(
        {
            "layer_1.joined": 1.0,
            "layer_1.refused": 7.0,
            "layer_1.http_429": 5.0,
            "layer_1.blocks": 2.0,
            "layer_1.reconnects": 3.0,
            "layer_1.gaps_opened": 4.0,
            "layer_2.restated": 4.0,
            "layer_2.revisions": 5.0,
            "layer_3.retries": 6.0,
        }
    )
    assert totals == {
        "coalesced": 1.0,
        "http_429": 5.0,
        "http_418": 2.0,
        "reconnects": 3.0,
        "gaps": 4.0,
        "revisions": 5.0,
        "retried": 6.0,
    }
    assert totals.keys() < set(COUNTED)
    assert layer_totals({}) == dict.fromkeys(totals, 0.0)


def test_paths_without_end_are_counted_under_one_name() -> None:
    calls = recorder()
    for number in range(MAX_KINDS + 50):
        calls.answered(Priority.LOW, DataType.CANDLE, f"path {number}", "storage", 0.01)
    other = of_kind(calls, 1.0, "1h", Priority.LOW, DataType.CANDLE, OTHER_PATH)
    assert other.latency.count == 50
    assert len(calls.windows(1.0)["1h"].calls) == MAX_KINDS + 1


def test_a_kind_of_call_that_nobody_makes_any_more_costs_nothing() -> None:
    calls = recorder()
    hit(calls)
    calls.drain(1.0)
    assert calls.size_bytes == 3 * 30_720
    calls.drain(3_700.0)
    assert calls.size_bytes == 0
    hit(calls)
    assert calls.windows(3_800.0)["1h"].answers["memory"] == 1


def test_memory_stays_bounded_when_every_kind_of_call_is_made_for_two_hours() -> None:
    chance = Random(3)
    calls = recorder()
    sizes = []
    for minute in range(120):
        for priority in Priority:
            for data_type in DataType:
                for path in (PEEK, COLD, "bus: api → coordinator"):
                    for _ in range(5):
                        taken_s = chance.lognormvariate(-6, 2)
                        calls.answered(priority, data_type, path, "storage", taken_s)
        calls.drain(minute * 60.0)
        sizes.append(calls.size_bytes)
    assert max(sizes[70:]) < 1.02 * sizes[69]
    assert max(sizes) < 6_000_000


def test_hits_are_told_by_a_number_alone_and_counted_like_others() -> None:
    calls = recorder()
    tell = calls.hits_of(DataType.TICKER)
    for taken_s in (2e-6, 3e-6, 4e-6):
        tell[Priority.HIGH](taken_s)
    calls.hits_of(DataType.CANDLE)[Priority.LOW](SLOW_S)
    assert calls.requests == 4
    kind = of_kind(calls, 1.0, "10s", Priority.HIGH, DataType.TICKER, PEEK)
    assert kind.latency.count == 3
    assert kind.latency.max_ms == pytest.approx(0.004, rel=0.05)
    slow = of_kind(calls, 1.0, "10s", Priority.LOW, DataType.CANDLE, PEEK)
    assert slow.latency.p50_ms == pytest.approx(SLOW_S * 1_000, rel=0.05)
    assert calls.hits == calls.requests == 4


def test_many_hits_are_sampled_except_the_slow_ones() -> None:
    calls = recorder()
    tell = calls.hits_of(DataType.TICKER)[Priority.CRITICAL]
    for _ in range(10 * SAMPLED_A_SECOND):
        tell(2e-6)
    tell(0.5)
    for _ in range(10):
        hit(calls, 2e-6)
    figures = calls.windows(1.0)["10s"]
    assert figures.measured == pytest.approx(0.1, rel=0.2)
    assert figures.answers["memory"] == pytest.approx(10 * SAMPLED_A_SECOND, rel=0.01)
    kind = of_kind(calls, 1.0, "10s", Priority.CRITICAL, DataType.TICKER, PEEK)
    assert kind.latency.max_ms == pytest.approx(500, rel=0.05)


def test_hits_beyond_what_may_wait_cost_no_memory() -> None:
    calls = recorder()
    tell = calls.hits_of(DataType.ORDERBOOK)[Priority.NORMAL]
    many = 3 * MAX_HITS + 10
    for _ in range(many):
        tell(2e-6)
    assert calls.requests == many
    quick = calls.hits_of(DataType.TICKER)[Priority.NORMAL]
    for _ in range(MAX_HITS // 2):
        quick(3e-6)
    quick(0.5)
    calls.drain(1.0)
    assert calls.requests == many + MAX_HITS // 2 + 1
    figures = calls.windows(1.0)["10s"]
    assert figures.requests_per_s == calls.requests
    assert figures.measured == pytest.approx(SAMPLED_A_SECOND / calls.requests, rel=0.01)
    book = of_kind(calls, 1.0, "10s", Priority.NORMAL, DataType.ORDERBOOK, PEEK)
    assert book.latency.count == pytest.approx(many, rel=0.001)
    assert calls.hits == pytest.approx(calls.requests, rel=0.001)
    kind = of_kind(calls, 1.0, "10s", Priority.NORMAL, DataType.TICKER, PEEK)
    assert kind.latency.max_ms == pytest.approx(500, rel=0.05)


@given(
    kept=st.integers(2, 7),
    steps=st.lists(st.one_of(st.integers(0, 40), st.just("look"), st.just("take")), max_size=12),
)
def test_a_full_queue_of_hits_holds_the_newest_and_counts_all(
    kept: int, steps: list[int | str]
) -> None:
    queue = HitQueue(kept)
    told: list[float] = []
    for step in steps:
        if isinstance(step, int):
            for _ in range(step):
                told.append(float(len(told)))
                queue.append(told[-1])
        elif step == "look":
            assert len(queue) == len(told)
        else:
            held, count = queue.take()
            assert count == len(told)
            assert held == told[len(told) - len(held) :]
            assert len(held) == min(count, kept) or len(held) == kept - 1
            told.clear()
    assert len(queue) == len(told)


def test_a_queue_of_hits_ends_with_who_needs_it() -> None:
    queue = HitQueue(3)
    gone = weakref.ref(queue)
    append = queue.append
    del queue
    assert gone() is None
    for _ in range(10):
        append(1.0)


def test_a_call_whose_time_was_over_counts_with_all_of_it_and_other_errors_do_not() -> None:
    calls = recorder()
    kind = (Priority.CRITICAL, DataType.TICKER, COLD)
    for _ in range(10):
        calls.answered(*kind, "exchange", 0.01)
        calls.failed(*kind, "DeadlineError", 2.0)
        calls.failed(*kind, "SystemOverloadedError", 2.0)
        calls.failed(*kind, "TransportError", 9.0)
    figures = of_kind(calls, 1.0, "10s", *kind)
    assert (figures.latency.count, figures.requests, figures.error_rate) == (30, 40, 0.75)
    assert figures.latency.p50_ms == figures.latency.max_ms == pytest.approx(2_000, rel=0.01)
    assert calls.windows(1.0)["10s"].answers == {"memory": 0, "storage": 0, "exchange": 10}


def test_a_call_that_was_given_up_is_a_request_and_no_error() -> None:
    calls = recorder()
    calls.answered(Priority.HIGH, DataType.TICKER, COLD, "exchange", 0.01)
    calls.happened("cancelled", 3)
    assert (calls.requests, calls.errors) == (4, 0)
    figures = calls.windows(1.0)["10s"]
    assert (figures.counts["cancelled"], figures.requests_per_s, figures.error_rate) == (3, 4, 0)
    assert (calls.requests, calls.errors, calls.totals["cancelled"]) == (4, 0, 3)


def test_a_part_of_a_long_load_is_a_call_that_says_nothing_of_hits() -> None:
    calls = recorder()
    calls.answered(Priority.LOW, DataType.CANDLE, "chunks", None, 0.3)
    hit(calls)
    figures = calls.windows(1.0)["10s"]
    assert of_kind(calls, 1.0, "10s", Priority.LOW, DataType.CANDLE, "chunks").requests == 1
    assert (figures.hit_rate, calls.requests, calls.hits) == (1.0, 2, 1)


@pytest.mark.parametrize("rare", [1, 4, 5, 40, 700])
def test_a_rare_kind_of_call_is_measured_whole_beside_a_flood_of_others(rare: int) -> None:
    calls = recorder()
    flood, seldom = (
        calls.hits_of(data_type)[priority]
        for data_type, priority in (
            (DataType.TICKER, Priority.NORMAL),
            (DataType.ORDERBOOK, Priority.CRITICAL),
        )
    )
    for second in range(1, 6):
        for _ in range(8 * SAMPLED_A_SECOND):
            flood(2e-6)
        for _ in range(rare):
            seldom(5e-6)
            calls.answered(Priority.HIGH, DataType.CANDLE, "direct", "storage", 5e-6)
        calls.drain(float(second))
    figures = calls.windows(5.0)["10s"]
    kind = of_kind(calls, 5.0, "10s", Priority.CRITICAL, DataType.ORDERBOOK, PEEK)
    assert kind.latency.count == 5 * rare
    assert kind.latency.p50_ms == pytest.approx(0.005, rel=0.02)
    assert of_kind(calls, 5.0, "10s", Priority.HIGH, DataType.CANDLE, "direct").requests == 5 * rare
    many = of_kind(calls, 5.0, "10s", Priority.NORMAL, DataType.TICKER, PEEK)
    assert many.latency.count == pytest.approx(40 * SAMPLED_A_SECOND, rel=0.001)
    assert figures.measured == pytest.approx(1 / 8, rel=0.2)
    assert figures.answers["memory"] == 5 * (8 * SAMPLED_A_SECOND + rare), "counted exactly"
