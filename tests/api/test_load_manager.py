"""Load, who has to wait for it, and how they come back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from upbit_backbone.api.load_manager import (
    DWELL_S,
    LONG_DWELL_S,
    LOW_FULL_RATE,
    LoadReading,
    SystemLoadManager,
    load_terms,
)
from upbit_backbone.protocol import Priority
from upbit_backbone.telemetry.events import EventLog

LIMIT = 1_000 * 2**20
MB = 2**20
LOADS = st.floats(0, 100)
READINGS = st.builds(
    LoadReading,
    loop_lag_p95_s=st.floats(0, 1),
    oldest_wait_s=st.dictionaries(st.sampled_from(Priority), st.floats(0, 5)),
    rss_bytes=st.integers(0, 2 * LIMIT),
    processor_share=st.floats(0, 1),
    low_share=st.floats(0, 1),
)
STEPS = st.lists(st.tuples(st.floats(0.05, 3), LOADS), max_size=60)
NOT_LOW = (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL)


def under(load: float) -> LoadReading:
    """A reading that makes exactly this load."""
    return LoadReading(processor_share=load / 100)


def manager(events: EventLog | None = None) -> SystemLoadManager:
    return SystemLoadManager(memory_limit_bytes=LIMIT, events=events)


def allowed(load: SystemLoadManager) -> set[Priority]:
    return {priority for priority in Priority if load.check_resource_availability(priority)}


@pytest.mark.parametrize(
    ("load", "may_run"),
    [
        (0.0, set(Priority)),
        (70.0, set(Priority)),
        (70.1, set(NOT_LOW)),
        (90.0, set(NOT_LOW)),
        (90.1, {Priority.CRITICAL}),
        (100.0, {Priority.CRITICAL}),
    ],
)
def test_who_may_run_at_which_load(load: float, may_run: set[Priority]) -> None:
    loaded = manager()
    loaded.observe(under(load), 0.0)
    assert loaded.load == load
    assert allowed(loaded) == may_run


def test_everybody_may_run_before_anything_was_measured() -> None:
    fresh = manager()
    assert allowed(fresh) == set(Priority)
    assert (fresh.load, fresh.terms, fresh.reason, fresh.band) == (0.0, (), "", "open")
    assert fresh.low_pages_per_s is None


@pytest.mark.parametrize(
    ("reading", "name", "load", "sentence"),
    [
        (LoadReading(loop_lag_p95_s=0.005), "event loop", 0, "the event loop is 5 ms late (p95)"),
        (
            LoadReading(loop_lag_p95_s=0.0525),
            "event loop",
            50,
            "the event loop is 52 ms late (p95)",
        ),
        (LoadReading(loop_lag_p95_s=9), "event loop", 100, "the event loop is 9000 ms late (p95)"),
        (
            LoadReading(oldest_wait_s={Priority.CRITICAL: 0.04}),
            "CRITICAL waits",
            80,
            "a CRITICAL call has waited for 40 ms, promised are 50 ms",
        ),
        (
            LoadReading(oldest_wait_s={Priority.HIGH: 0.05}),
            "HIGH waits",
            50,
            "a HIGH call has waited for 50 ms, promised are 100 ms",
        ),
        (
            LoadReading(oldest_wait_s={Priority.NORMAL: 9.0, Priority.LOW: 900.0}),
            "NORMAL waits",
            90,
            "a NORMAL call has waited for 9000 ms, promised are 500 ms",
        ),
        (LoadReading(rss_bytes=710 * MB), "memory", 71, "memory: 710 MB of 1,000 MB"),
        (
            LoadReading(processor_share=0.9, low_share=0.6),
            "processor",
            30,
            "processors: 90% of the machine, 60% of it for LOW",
        ),
    ],
)
def test_each_term_says_what_it_is_and_why(
    reading: LoadReading, name: str, load: float, sentence: str
) -> None:
    loaded = manager()
    loaded.observe(reading, 0.0)
    [term] = [term for term in loaded.terms if term.name == name]
    assert term.load == pytest.approx(load)
    assert term.sentence == sentence
    if load:
        assert loaded.terms[0] == term
        assert (loaded.load, loaded.reason) == (term.load, sentence)


@given(reading=READINGS)
def test_the_load_is_the_highest_term_and_between_0_and_100(reading: LoadReading) -> None:
    loaded = manager()
    loaded.observe(reading, 0.0)
    assert loaded.load == max(term.load for term in load_terms(reading, LIMIT))
    assert all(0 <= term.load <= 100 for term in loaded.terms)
    assert len({term.name for term in loaded.terms}) == len(loaded.terms) == 6


@given(reading=READINGS, more=READINGS)
def test_more_of_anything_is_never_less_load(reading: LoadReading, more: LoadReading) -> None:
    worse = LoadReading(
        loop_lag_p95_s=reading.loop_lag_p95_s + more.loop_lag_p95_s,
        oldest_wait_s={
            priority: reading.oldest_wait_s.get(priority, 0) + more.oldest_wait_s.get(priority, 0)
            for priority in Priority
        },
        rss_bytes=reading.rss_bytes + more.rss_bytes,
        processor_share=reading.processor_share + more.processor_share,
        low_share=reading.low_share,
    )
    for term, higher in zip(load_terms(reading, LIMIT), load_terms(worse, LIMIT), strict=True):
        assert higher.name == term.name
        assert higher.load >= term.load


@given(low_share=st.floats(0, 1), waits_s=st.floats(0, 1e6))
def test_what_low_does_is_no_load(low_share: float, waits_s: float) -> None:
    loaded = manager()
    loaded.observe(
        LoadReading(
            processor_share=low_share,
            low_share=low_share,
            oldest_wait_s={Priority.LOW: waits_s},
        ),
        0.0,
    )
    assert loaded.load == 0.0


@given(steps=STEPS)
def test_critical_is_never_refused_and_nobody_runs_where_a_more_urgent_one_may_not(
    steps: list[tuple[float, float]],
) -> None:
    loaded, now = manager(), 0.0
    for gap_s, load in steps:
        now += gap_s
        loaded.observe(under(load), now)
        may_run = allowed(loaded)
        assert Priority.CRITICAL in may_run
        assert may_run == set(Priority) - {p for p in Priority if p > max(may_run)}


@given(steps=st.lists(st.tuples(st.floats(0.05, 3), LOADS, LOADS), max_size=60))
def test_a_load_that_is_never_higher_never_refuses_more(
    steps: list[tuple[float, float, float]],
) -> None:
    lighter, heavier, now = manager(), manager(), 0.0
    for gap_s, one, other in steps:
        now += gap_s
        lighter.observe(under(min(one, other)), now)
        heavier.observe(under(max(one, other)), now)
        assert allowed(heavier) <= allowed(lighter)


@given(steps=STEPS)
def test_who_was_shut_out_waits_for_two_seconds_of_low_load_or_twenty_of_fair(
    steps: list[tuple[float, float]],
) -> None:
    loaded, now = manager(), 0.0
    may_run, since = set(Priority), dict.fromkeys((60.0, 70.0, 80.0, 90.0), 0.0)
    for gap_s, load in steps:
        now += gap_s
        for limit in since:
            if load > limit:
                since[limit] = math.inf
            elif since[limit] == math.inf:
                since[limit] = now
        loaded.observe(under(load), now)
        for priority in allowed(loaded) - may_run:
            low, fair = (60.0, 70.0) if priority is Priority.LOW else (80.0, 90.0)
            assert now - since[low] >= DWELL_S or now - since[fair] >= LONG_DWELL_S
        may_run = allowed(loaded)


@given(load=st.floats(60, 70, exclude_min=True))
def test_a_load_around_the_limit_shuts_low_out_once(load: float) -> None:
    events = EventLog(ManualClock())
    loaded = manager(events)
    for tick in range(200):
        loaded.observe(under(70.5 if tick % 2 else load), tick / 10)
    assert [event.kind for event in events.since(0)] == ["load"]


@pytest.mark.parametrize(
    ("steady", "blip", "priority"),
    [(65.0, 71.0, Priority.LOW), (85.0, 91.0, Priority.NORMAL), (85.0, 91.0, Priority.HIGH)],
)
def test_one_high_reading_shuts_nobody_out_for_ever(
    steady: float, blip: float, priority: Priority
) -> None:
    loaded = manager()
    loaded.observe(under(blip), 0.0)
    for tick in range(1, 201):
        loaded.observe(under(steady), tick / 10)
        assert not loaded.check_resource_availability(priority)
    loaded.observe(under(steady), 20.1)
    assert loaded.check_resource_availability(priority)


def test_low_reaches_its_full_rate_under_a_load_that_is_always_there() -> None:
    found = rates([71.0] + [65.0] * 1_100)
    assert found.index(1.0) == 201
    assert [found[201 + 200 * n] for n in range(4)] == [1.0, 2.0, 4.0, None]


@given(waits=st.dictionaries(st.sampled_from(Priority), st.floats(0, 1e6)))
def test_calls_that_wait_for_one_another_shut_out_nobody_but_low(
    waits: dict[Priority, float],
) -> None:
    loaded = manager()
    loaded.observe(LoadReading(oldest_wait_s=waits), 0.0)
    assert allowed(loaded) >= set(NOT_LOW)


@given(steps=STEPS)
def test_bands_change_at_most_to_the_top_and_back_in_a_dwell(
    steps: list[tuple[float, float]],
) -> None:
    events = EventLog(ManualClock())
    loaded, now = manager(events), 0.0
    for gap_s, load in steps:
        now += gap_s
        loaded.observe(under(load), now)
    # Two steps up, which take no time, and two down, which take a dwell.
    assert events.last <= 4 * (1 + now / DWELL_S)


def test_load_to_95_and_back_is_told_in_sentences() -> None:
    events = EventLog(ManualClock())
    loaded = manager(events)
    for tick, load in enumerate((50, 72, 95, 79, 79, 79, 59, 59, 59)):
        loaded.observe(LoadReading(rss_bytes=load * 10 * MB), float(tick))
    assert [(event.severity, event.sentence) for event in events.since(0)] == [
        ("warning", "load 72 %, LOW waits: memory: 720 MB of 1,000 MB"),
        ("warning", "load 95 %, all but CRITICAL wait: memory: 950 MB of 1,000 MB"),
        ("info", "load 79 %, LOW waits: memory: 790 MB of 1,000 MB"),
        ("info", "load 59 %, every priority may run: memory: 590 MB of 1,000 MB"),
    ]


def rates(loads: list[float], step_s: float = 0.1) -> list[float | None]:
    loaded = manager()
    found: list[float | None] = []
    for tick, load in enumerate(loads):
        loaded.observe(under(load), tick * step_s)
        found.append(loaded.low_pages_per_s)
    return found


def test_low_resumes_at_one_page_a_second_and_doubles_its_rate_each_quiet_second() -> None:
    found = rates([75.0] + [50.0] * 70)
    at = found.index(1.0)
    assert at == 1 + DWELL_S * 10
    assert found[:at] == [0.0] * at
    assert [found[at + tick] for tick in (5, 11, 15, 21, 25, 31)] == [1.0, 2.0, 2.0, 4.0, 4.0, None]
    assert LOW_FULL_RATE < 8


def test_a_second_that_is_not_quiet_does_not_double() -> None:
    found = rates([75.0] + [50.0] * 21 + [65.0] * 50)
    assert found[-1] == 1.0


def test_load_that_comes_back_stops_low_again() -> None:
    found = rates([75.0] + [50.0] * 40 + [71.0] + [50.0] * 40)
    again = found.index(0.0, 30)
    assert found[again - 1] == 2.0
    assert found[again:].count(1.0) == 10
    assert found[again + 21] == 1.0


@given(steps=STEPS)
def test_low_never_goes_faster_than_twice_as_fast_as_a_second_ago(
    steps: list[tuple[float, float]],
) -> None:
    loaded, now = manager(), 0.0
    seen = [(0.0, LOW_FULL_RATE)]
    for gap_s, load in steps:
        now += gap_s
        loaded.observe(under(load), now)
        rate = loaded.low_pages_per_s
        assert (rate == 0.0) == (not loaded.check_resource_availability(Priority.LOW))
        before_s, before = seen[-1]
        told = LOW_FULL_RATE if rate is None else rate
        assert told <= max(1.0, before * 2 ** (1 + int(now - before_s)))
        seen.append((now, told))


@given(one=LOADS, other=LOADS, most=st.integers(1, 50))
def test_more_load_means_less_in_flight_fewer_updates_and_less_ahead(
    one: float, other: float, most: int
) -> None:
    lighter, heavier = manager(), manager()
    lighter.observe(under(min(one, other)), 0.0)
    heavier.observe(under(max(one, other)), 0.0)
    assert 1 <= heavier.parallelism(most) <= lighter.parallelism(most) <= most
    assert 0.05 <= lighter.conflation_s(0.05) <= heavier.conflation_s(0.05) <= 0.2
    assert 0 <= heavier.prefetch(most) <= lighter.prefetch(most) <= most


def test_everything_has_shrunk_to_the_least_before_anybody_is_refused() -> None:
    loaded = manager()
    loaded.observe(under(70.0), 0.0)
    assert allowed(loaded) == set(Priority)
    assert (loaded.parallelism(8), loaded.prefetch(8)) == (2, 0)
    assert loaded.conflation_s(0.05) == pytest.approx(0.2)
    loaded.observe(under(40.0), 1.0)
    assert (loaded.parallelism(8), loaded.prefetch(8), loaded.conflation_s(0.05)) == (8, 8, 0.05)
    loaded.observe(under(54.0), 2.0)
    assert (loaded.parallelism(8), loaded.prefetch(8)) == (5, 4)


@pytest.mark.parametrize(
    ("priority", "waits_s", "limit_waits_s", "load"),
    [
        (Priority.CRITICAL, 0.0, 0.04, 80),
        (Priority.HIGH, 0.0, 0.4, 20),
        (Priority.HIGH, 0.05, 0.4, 50),
        (Priority.HIGH, 0.05, 1.5, 75),
        (Priority.NORMAL, 0.0, 0.66, 66),
        (Priority.NORMAL, 0.0, 8.0, 90),
        (Priority.LOW, 9.0, 9.0, 0),
    ],
)
def test_who_waits_for_the_exchanges_limit_is_promised_what_holds_for_the_cold(
    priority: Priority, waits_s: float, limit_waits_s: float, load: float
) -> None:
    reading = LoadReading(
        oldest_wait_s={priority: waits_s}, oldest_limit_wait_s={priority: limit_waits_s}
    )
    terms = load_terms(reading, 1 << 30)
    assert max(term.load for term in terms) == pytest.approx(load)
    if load == 75:
        [term] = [term for term in terms if term.load]
        assert term.sentence == "a HIGH call has waited for 1500 ms, promised are 2000 ms"
