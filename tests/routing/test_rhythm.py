from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.simulator.worlds import SEED, market
from upbit_backbone.clock import DAY_MS
from upbit_backbone.routing.interest import Key
from upbit_backbone.routing.rhythm import (
    BLOCKS_TO_JUDGE,
    GAPS_PER_BLOCK,
    MOST_KEYS,
    SHORTEST_SILENCE_S,
    Rhythm,
    Suspicion,
)
from upbit_backbone.simulator.delivery import Delivery

KEY: Key = ("trade", "KRW-BTC")
DAY_S = 86_400.0
A_FEW = 5
"""Suspicions a day that are no loss; each costs a second connection for some seconds."""
VALUES_TO_JUDGE = GAPS_PER_BLOCK * BLOCKS_TO_JUDGE + 1


def hear(rhythm: Rhythm, arrivals: Iterable[float]) -> float:
    """Hear values; returns when the last one came."""
    at = 0.0
    for at in arrivals:
        rhythm.heard(KEY, at)
    return at


def false_suspicions(arrivals: Sequence[float]) -> int:
    """How many silences of a healthy stream are suspected, when asked each full second."""
    rhythm, found, last = Rhythm(), 0, arrivals[0]
    for at in arrivals:
        # Silence only grows: whoever was suspected meanwhile is so in the last second, too.
        asked_s = math.ceil(at) - 1
        if asked_s - last > SHORTEST_SILENCE_S:
            found += bool(rhythm.suspects(asked_s, True))
        rhythm.heard(KEY, at)
        last = at
    return found


def suspected_after_s(rhythm: Rhythm, last: float, *, within_s: int) -> float:
    """How long after the last value a stall is suspected, when asked each full second."""
    for second in range(math.ceil(last), math.ceil(last) + within_s):
        if rhythm.suspects(second, True):
            return second - last
    raise AssertionError(f"not suspected within {within_s} s")


def chance(rng: Random, rate: float, until_s: float, start_s: float = 0.0) -> list[float]:
    """A Poisson process of so many values a second."""
    at, found = start_s, []
    while (at := at + rng.expovariate(rate)) < until_s:
        found.append(at)
    return found


def bursts(rng: Random, until_s: float, *, on_s: float, off_s: float, rate: float) -> list[float]:
    at, found = 0.0, []
    while at < until_s:
        end = at + rng.expovariate(1 / on_s)
        found += chance(rng, rate, end, at)
        at = end + rng.expovariate(1 / off_s)
    return found


def a_day_and_a_night(rng: Random, until_s: float, *, depth: float) -> list[float]:
    """A steady stream of about one value a second by day and `depth` times fewer by night."""
    at, found = 0.0, []
    while at < until_s:
        at += rng.expovariate(depth ** (0.5 * math.cos(math.tau * at / DAY_S) - 0.5))
        found.append(at)
    return found


@cache
def trades_of(symbol: str, days: int) -> list[float]:
    """When the simulator's stream tells the trades of some days, in seconds."""
    delivery = Delivery(SEED, symbol, late=True)
    trades = market(symbol).trades_back(
        from_ms=AUTUMN_2025_MS,
        before_ms=AUTUMN_2025_MS + days * DAY_MS,
        before_id=None,
        count=10**7,
    )
    return sorted((delivery.due_ms(trade) - AUTUMN_2025_MS) / 1_000 for trade in trades)


@pytest.mark.parametrize("rate", [1.0, 1.5, 3.0, 20.0])
def test_a_stall_of_a_busy_market_is_suspected_within_about_ten_seconds(rate: float) -> None:
    took = []
    for seed in range(20):
        rhythm = Rhythm()
        last = hear(rhythm, chance(Random(seed), rate, 1_800))
        took.append(suspected_after_s(rhythm, last, within_s=60))
    took.sort()
    assert took[len(took) // 2] <= 12.0
    assert took[-1] <= 17.0
    if rate > 1:
        assert took[len(took) // 2] <= 9.0


def test_a_clockwork_of_ten_a_second_is_suspected_when_bursts_would_end() -> None:
    rhythm = Rhythm()
    last = hear(rhythm, (number / 10 for number in range(3_000)))
    assert rhythm.suspects(last + 7.9, True) == []
    (suspicion,) = rhythm.suspects(last + 8.25, True)
    assert suspicion == Suspicion(KEY, last + 8.25 - last, SHORTEST_SILENCE_S)


@pytest.mark.parametrize(
    ("rate", "seed"), [(0.02, 0), (0.3, 0), (0.3, 1), (1.0, 0), (1.0, 1), (1.0, 2), (5.0, 0)]
)
def test_chance_is_rarely_suspected(rate: float, seed: int) -> None:
    assert false_suspicions(chance(Random(seed), rate, DAY_S)) <= A_FEW


@pytest.mark.parametrize(
    ("on_s", "off_s", "rate"), [(30.0, 120.0, 5.0), (600.0, 600.0, 3.0), (900.0, 3_600.0, 5.0)]
)
def test_bursts_are_rarely_suspected(on_s: float, off_s: float, rate: float) -> None:
    days = 3
    arrivals = bursts(Random(7), days * DAY_S, on_s=on_s, off_s=off_s, rate=rate)
    assert false_suspicions(arrivals) <= A_FEW * days


@pytest.mark.parametrize("depth", [10.0, 50.0])
def test_a_night_is_not_suspected(depth: float) -> None:
    assert false_suspicions(a_day_and_a_night(Random(3), 2 * DAY_S, depth=depth)) <= A_FEW


def test_a_market_that_slows_down_gradually_is_not_suspected() -> None:
    at, gap_s, arrivals = 0.0, 0.5, []
    while gap_s < 600:
        at += gap_s
        gap_s *= 1.002
        arrivals.append(at)
    assert false_suspicions(arrivals) == 0


@pytest.mark.parametrize("symbol", ["KRW-BTC", "KRW-XRP", "KRW-DOGE", "KRW-ETH", "KRW-SIM003"])
def test_a_day_of_the_markets_tables_is_rarely_suspected(symbol: str) -> None:
    assert false_suspicions(trades_of(symbol, 1)) <= A_FEW


@pytest.mark.slow
@pytest.mark.parametrize(
    "symbol",
    ["KRW-BTC", "KRW-XRP", "KRW-DOGE", "KRW-ETH", "KRW-ADA", "KRW-SIM003", "USDT-BTC", "BTC-SC"],
)
def test_two_weeks_of_the_markets_tables_are_rarely_suspected(symbol: str) -> None:
    assert false_suspicions(trades_of(symbol, 14)) <= 3 * 14


def test_a_stall_of_a_recorded_market_is_suspected_by_its_own_rhythm() -> None:
    rhythm = Rhythm()
    arrivals = trades_of("KRW-XRP", 1)
    last = hear(rhythm, arrivals[: len(arrivals) // 2])
    assert suspected_after_s(rhythm, last, within_s=120) < 60


def test_nothing_is_suspected_before_enough_was_heard() -> None:
    rhythm = Rhythm()
    last = hear(rhythm, (float(number) for number in range(VALUES_TO_JUDGE - 1)))
    assert rhythm.usual_s(KEY, last) is None
    assert rhythm.suspects(last + 10_000, True) == []
    rhythm.heard(KEY, last + 1)
    assert rhythm.usual_s(KEY, last + 1) == SHORTEST_SILENCE_S
    assert len(rhythm.suspects(last + 10_000, True)) == 1


def steady(rhythm: Rhythm, start_s: float = 0.0, *, values: int = 1_000) -> float:
    return hear(rhythm, (start_s + number for number in range(values)))


def test_nothing_is_suspected_while_the_reference_is_silent_nor_right_after() -> None:
    rhythm = Rhythm()
    last = steady(rhythm)
    assert rhythm.suspects(last + 30, False) == []
    assert rhythm.suspects(last + 31, True) == [], "the silence so far was the connection's"
    assert len(rhythm.suspects(last + 39, True)) == 1


def test_the_silence_of_a_broken_connection_is_not_learned() -> None:
    rhythm, ignorant = Rhythm(), Rhythm()
    for one in (rhythm, ignorant):
        steady(one)
    rhythm.restart(1_500.0)
    for one in (rhythm, ignorant):
        steady(one, 1_500.0)
    assert rhythm.usual_s(KEY, 2_500.0) == SHORTEST_SILENCE_S
    usual_s = ignorant.usual_s(KEY, 2_500.0)
    assert usual_s is not None
    assert usual_s > 500, "so it would have been"


def test_one_stream_is_restarted_alone() -> None:
    rhythm = Rhythm()
    other: Key = ("ticker", "KRW-BTC")
    for number in range(1_000):
        rhythm.heard(KEY, float(number))
        rhythm.heard(other, float(number))
    rhythm.restart(1_020.0, KEY)
    assert [suspicion.key for suspicion in rhythm.suspects(1_020.0, True)] == [other]


def test_a_suspicion_stands_until_a_value_comes() -> None:
    rhythm = Rhythm()
    last = steady(rhythm)
    assert [len(rhythm.suspects(last + late, True)) for late in (8, 9, 20, 100)] == [0, 1, 1, 1]
    rhythm.heard(KEY, last + 100)
    assert rhythm.suspects(last + 105, True) == []


def test_an_unfounded_suspicion_comes_again_when_the_silence_is_twice_as_long() -> None:
    rhythm = Rhythm()
    last = steady(rhythm)
    found = []
    for second in range(1_000):
        if rhythm.suspects(last + second, True):
            found.append(second)
            rhythm.unfounded(KEY, last + second)
    assert found[0] == 9
    assert len(found) <= 7
    assert all(1.9 < after / before < 2.2 for before, after in pairwise(found))


def test_what_is_silent_can_be_asked() -> None:
    rhythm = Rhythm()
    assert rhythm.silent_s(KEY, 5.0) is None
    rhythm.heard(KEY, 5.0)
    assert rhythm.silent_s(KEY, 7.5) == 2.5
    assert rhythm.usual_s(("trade", "KRW-NEVER"), 5.0) is None


def test_a_forgotten_stream_is_not_suspected_and_begins_anew() -> None:
    rhythm = Rhythm()
    last = steady(rhythm)
    rhythm.forget(KEY)
    rhythm.forget(KEY)
    assert rhythm.suspects(last + 100, True) == []
    rhythm.heard(KEY, last + 100)
    assert rhythm.usual_s(KEY, last + 100) is None


def test_the_number_of_streams_is_bounded() -> None:
    rhythm = Rhythm()
    for number in range(MOST_KEYS + 100):
        rhythm.heard(("trade", f"KRW-{number}"), 0.0)
    assert len(rhythm) == MOST_KEYS
    rhythm.forget(("trade", "KRW-0"))
    rhythm.heard(KEY, 0.0)
    assert rhythm.silent_s(KEY, 1.0) == 1.0


@settings(max_examples=30)
@given(
    gaps_s=st.lists(st.floats(0, 1e5), min_size=300, max_size=400),
    silence_s=st.floats(0, 1e6),
)
def test_no_silence_is_suspected_that_the_stream_had_lately(
    gaps_s: list[float], silence_s: float
) -> None:
    rhythm, at = Rhythm(), 0.0
    for gap_s in gaps_s:
        at += gap_s
        rhythm.heard(KEY, at)
    of_this_block = gaps_s[1:][-((len(gaps_s) - 1) % GAPS_PER_BLOCK) or None :]
    suspected = rhythm.suspects(at + silence_s, True)
    if silence_s <= max(SHORTEST_SILENCE_S, *of_this_block):
        assert suspected == []
    for suspicion in suspected:
        assert suspicion.silent_s > suspicion.usual_s >= SHORTEST_SILENCE_S
