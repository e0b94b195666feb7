"""Alerts, and that they do not chatter."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager
from upbit_backbone.protocol import CallStats, DataType, LatencyStats, Priority
from upbit_backbone.telemetry.alerts import (
    FEW_CALLS,
    LARGE,
    LEAST_CALLS,
    PROMISED_P99_MS,
    VERY_LARGE,
    Alarm,
    Alerts,
    is_large,
    is_promised,
    is_slow,
    promised_p99_ms,
)
from upbit_backbone.telemetry.calls import PEEK, CallRecorder, Kind
from upbit_backbone.telemetry.events import EventLog

STORED = "direct: api → coordinator → storage"
COLD = "direct: api → coordinator → storage → router"


def kind_of(
    priority: Priority,
    path: str,
    *,
    p99_ms: float = 1.0,
    p95_ms: float | None = None,
    count: int = LEAST_CALLS,
    failed: int = 0,
    data_type: DataType = DataType.CANDLE,
) -> CallStats:
    """Calls of a kind; none ended late."""
    p95_ms = p99_ms if p95_ms is None else p95_ms
    latency = LatencyStats(count, 0.5, p95_ms, p99_ms, p99_ms)
    requests = max(1, count + failed)
    return CallStats(priority, data_type, path, latency, 1.0, failed / requests, requests)


class House:
    def __init__(self) -> None:
        self.clock = ManualClock(monotonic_s=0.0)
        self.events = EventLog(self.clock)
        self.alerts = Alerts(self.events, self.clock)

    @property
    def told(self) -> list[str]:
        return [event.sentence for event in self.events.since(0)]

    @property
    def names(self) -> list[str]:
        return [alert.name for alert in self.alerts.active]

    def load_for(self, seconds: int, load: float, *, manager: SystemLoadManager) -> None:
        for _ in range(4 * seconds):
            self.clock.advance(0.25)
            now = self.clock.monotonic()
            manager.observe(LoadReading(rss_bytes=int(load)), now)
            self.alerts.observe_load(manager.holds_above, "memory is full", now)

    def calls_for(self, seconds: int, *kinds: CallStats) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.alerts.observe_calls(kinds, self.clock.monotonic())

    def p99_for(self, seconds: int, p99_ms: float, calls: int = LEAST_CALLS) -> None:
        quick = (kind_of(priority, PEEK, p99_ms=0.1) for priority in Priority)
        slow = kind_of(Priority.HIGH, STORED, p99_ms=p99_ms, count=calls)
        self.calls_for(seconds, *quick, *([slow] if calls else []))

    def hits_for(self, seconds: int, hit_rate: float, answers: int = LEAST_CALLS) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.alerts.observe_hits(hit_rate, answers, self.clock.monotonic())


@given(
    steps=st.lists(st.tuples(st.sampled_from(["bad", "good", "neither"]), st.floats(0.1, 20))),
)
def test_an_alarm_turns_only_after_the_condition_lasted(steps: list[tuple[str, float]]) -> None:
    alarm = Alarm(begins_after_s=10, ends_after_s=30)
    now, lasting = 0.0, {"bad": 0.0, "good": 0.0}
    last = "neither"
    for state, gap_s in steps:
        now += gap_s
        lasting[state] = now if state != last else lasting.get(state, now)
        last = state
        turned = alarm.observe(bad=state == "bad", good=state == "good", now=now)
        if turned:
            assert state == ("bad" if alarm.active else "good")
            assert now - lasting[state] >= (10 if alarm.active else 30)


@given(bad=st.lists(st.booleans(), min_size=1, max_size=300))
def test_an_alarm_that_is_asked_each_second_turns_at_most_once_in_twenty(bad: list[bool]) -> None:
    alarm = Alarm(begins_after_s=10, ends_after_s=30)
    turns = sum(
        alarm.observe(bad=one, good=not one, now=float(second)) for second, one in enumerate(bad)
    )
    assert turns <= 1 + len(bad) / 20


def test_load_is_an_alert_while_it_keeps_somebody_waiting() -> None:
    house, manager = House(), SystemLoadManager(memory_limit_bytes=100)
    house.load_for(30, 75, manager=manager)
    assert house.names == []
    house.load_for(1, 75, manager=manager)
    assert house.names == ["load"]
    assert house.told == ["the load has been above 70 %: memory is full"]
    house.load_for(10, 65, manager=manager)
    assert house.names == ["load"], "it may run again below 60"
    house.load_for(12, 60, manager=manager)
    assert house.names == ["load"]
    house.load_for(1, 60, manager=manager)
    assert house.names == []
    assert house.told[1:] == ["no longer: the load has been above 70 %: memory is full"]


@pytest.mark.parametrize("load", [70.0, 0.0])
def test_a_load_that_keeps_nobody_waiting_is_no_alert(load: float) -> None:
    house = House()
    house.load_for(100, load, manager=SystemLoadManager(memory_limit_bytes=100))
    assert house.told == []


@pytest.mark.parametrize(("high_s", "lower_s", "lower"), [(2, 2, 65), (29, 1, 69), (2, 1, 10)])
def test_a_load_that_comes_and_goes_is_an_alert_if_low_never_runs(
    high_s: int, lower_s: int, lower: float
) -> None:
    house, manager = House(), SystemLoadManager(memory_limit_bytes=100)
    for _ in range(20):
        house.load_for(high_s, 99, manager=manager)
        house.load_for(lower_s, lower, manager=manager)
    assert house.names == ["load"]
    assert house.told == ["the load has been above 90 %: memory is full"]


def test_calls_slower_than_promised_are_an_alert_until_they_are_clearly_quick_again() -> None:
    house = House()
    house.p99_for(11, 130)
    assert house.names == ["slow HIGH"]
    assert house.told == ["p99 of HIGH candle calls is 130 ms, promised are 100 ms"]
    house.p99_for(100, 90)
    assert house.names == ["slow HIGH"]
    house.p99_for(31, 80)
    assert house.names == []


def test_each_kind_of_call_has_its_own_promise_however_many_others_there_are() -> None:
    house = House()
    many = kind_of(Priority.CRITICAL, PEEK, p99_ms=0.01, count=33_000, data_type=DataType.TICKER)
    few = kind_of(Priority.CRITICAL, COLD, p99_ms=1_500, count=LEAST_CALLS)
    house.calls_for(11, many, few)
    assert house.told == ["p99 of CRITICAL candle calls is 1500 ms, promised are 50 ms"]
    peeks = kind_of(Priority.CRITICAL, PEEK, p99_ms=20, data_type=DataType.TICKER)
    house = House()
    house.calls_for(11, peeks, kind_of(Priority.CRITICAL, COLD, p99_ms=20))
    assert house.told == ["p99 of CRITICAL ticker calls from memory is 20 ms, promised are 1 ms"]


def test_of_a_handful_of_calls_more_than_one_has_to_be_slow() -> None:
    one, several = (
        kind_of(Priority.CRITICAL, COLD, p99_ms=900, p95_ms=p95_ms, count=FEW_CALLS)
        for p95_ms in (10.0, 900.0)
    )
    hardly_any = kind_of(Priority.CRITICAL, COLD, p99_ms=900, count=FEW_CALLS - 1)
    assert [is_slow(call) for call in (one, several, hardly_any)] == [False, True, False]
    house = House()
    house.calls_for(100, one)
    house.calls_for(100, hardly_any)
    assert house.names == []
    house.calls_for(11, several)
    assert house.names == ["slow CRITICAL"]


def test_the_sentence_gives_the_figure_that_was_judged() -> None:
    house = House()
    few = kind_of(Priority.CRITICAL, COLD, p99_ms=900, p95_ms=60, count=LEAST_CALLS - 1)
    house.calls_for(11, few)
    assert house.told == ["p95 of CRITICAL candle calls is 60 ms, promised are 50 ms"]
    many = kind_of(Priority.CRITICAL, COLD, p99_ms=900, p95_ms=60, count=LEAST_CALLS)
    house.calls_for(1, many)
    [alert] = house.alerts.active
    assert alert.sentence == "p99 of CRITICAL candle calls is 900 ms, promised are 50 ms"


@pytest.mark.parametrize(
    ("priority", "path", "p99_ms", "told"),
    [
        (Priority.CRITICAL, PEEK, 1.1, "is 1.1 ms, promised are 1 ms"),
        (Priority.CRITICAL, PEEK, 1.0047, "is 1.005 ms, promised are 1 ms"),
        (Priority.CRITICAL, PEEK, 7.0, "is 7 ms, promised are 1 ms"),
        (Priority.CRITICAL, PEEK, 9.96, "is 10 ms, promised are 1 ms"),
        (Priority.CRITICAL, COLD, 50.3, "is 50.3 ms, promised are 50 ms"),
        (Priority.CRITICAL, COLD, 50.6, "is 51 ms, promised are 50 ms"),
        (Priority.NORMAL, COLD, 1_500.4, "is 1500 ms, promised are 500 ms"),
    ],
)
def test_what_is_slower_than_promised_does_not_read_as_if_it_was_not(
    priority: Priority, path: str, p99_ms: float, told: str
) -> None:
    house = House()
    house.calls_for(11, kind_of(priority, path, p99_ms=p99_ms))
    [sentence] = house.told
    assert sentence.endswith(told)


def test_a_trickle_of_slow_calls_ends_an_alert() -> None:
    house = House()
    house.p99_for(11, 301)
    house.hits_for(11, 0.1)
    assert house.names == ["slow HIGH", "hit rate"]
    house.p99_for(31, 301, calls=1)
    house.hits_for(31, 0.1, answers=1)
    assert house.names == []


def test_the_figure_of_an_alert_is_that_of_now() -> None:
    house = House()
    house.p99_for(11, 301)
    house.p99_for(1, 900)
    [alert] = house.alerts.active
    assert alert.sentence == "p99 of HIGH candle calls is 900 ms, promised are 100 ms"
    house.p99_for(31, 1)
    assert [sentence.removeprefix("no longer: ") for sentence in house.told] == [
        "p99 of HIGH candle calls is 301 ms, promised are 100 ms"
    ] * 2


@pytest.mark.parametrize("priority", Priority)
def test_calls_that_fail_are_an_alert_beside_any_number_of_hits(priority: Priority) -> None:
    house = House()
    hits = kind_of(priority, PEEK, p99_ms=0.01, count=33_000)
    answered, failing = (
        kind_of(priority, path, count=count, failed=failed)
        for path, count, failed in ((COLD, 15, 3), ("direct: api", 1, 4))
    )
    house.calls_for(100, hits, kind_of(priority, COLD, count=95, failed=5))
    house.calls_for(100, hits, answered)
    assert house.names == []
    house.calls_for(11, hits, answered, failing)
    if priority is Priority.LOW:
        assert house.names == [], "it is promised nothing"
        return
    assert house.names == [f"errors {priority.name}"]
    assert house.told == [f"30% of {priority.name} candle calls failed, expected are at most 5%"]
    house.calls_for(31, hits)
    assert house.names == []


def test_deadlines_are_slow_calls_and_failed_ones() -> None:
    house, calls = House(), CallRecorder(Random(1), 0.0)
    for second in range(1, 60):
        calls.answered(Priority.CRITICAL, DataType.TICKER, COLD, "exchange", 0.01)
        for _ in range(2):
            calls.failed(Priority.CRITICAL, DataType.TICKER, COLD, "DeadlineError", 2.0)
        calls.drain(float(second))
        house.alerts.observe_calls(calls.kinds("5m", float(second)), float(second))
    assert house.names == ["slow CRITICAL", "errors CRITICAL"]
    assert "67% of CRITICAL ticker calls failed" in house.told[1]


@pytest.mark.parametrize(
    ("priority", "path", "promised"),
    [
        (Priority.HIGH, "peek", True),
        (Priority.HIGH, "direct: api → coordinator → storage", True),
        (Priority.HIGH, "direct: api → coordinator → storage → router", False),
        (Priority.CRITICAL, "direct: api → router", True),
        (Priority.NORMAL, "bus: api → coordinator → storage → router", True),
        (Priority.NORMAL, f"bus: api → coordinator → storage → router{LARGE}", False),
        (Priority.NORMAL, f"bus: api → coordinator → storage → router{VERY_LARGE}", False),
        *(
            (priority, f"in stretches: api → coordinator → storage{way}", False)
            for priority in (Priority.HIGH, Priority.NORMAL)
            for way in ("", " → router")
        ),
    ],
)
def test_what_a_promise_holds_for(priority: Priority, path: str, promised: bool) -> None:
    assert is_promised(Kind(priority, DataType.CANDLE, path)) is promised
    assert Priority.LOW not in PROMISED_P99_MS


def test_a_large_load_has_a_promise_of_its_own_and_a_very_large_one_has_none() -> None:
    large = Kind(Priority.NORMAL, DataType.CANDLE, f"bus: api → coordinator{LARGE}")
    assert (is_large(large), promised_p99_ms(large)) == (True, 1_000)
    very_large = large._replace(path=f"bus: api → coordinator{VERY_LARGE}")
    assert (is_large(very_large), promised_p99_ms(very_large)) == (False, None)
    house = House()
    house.calls_for(20, kind_of(*large[::2], p99_ms=990))
    house.calls_for(20, kind_of(*very_large[::2], p99_ms=5_000))
    assert house.told == []
    house.calls_for(11, kind_of(*large[::2], p99_ms=1_200))
    assert house.names == ["slow large NORMAL"]
    assert house.told == [
        "p99 of NORMAL loads of 401 to 1,000 candles is 1200 ms, promised are 1000 ms"
    ]


def test_too_few_hits_are_an_alert() -> None:
    house = House()
    house.hits_for(100, 0.85)
    house.hits_for(100, 0.2, answers=LEAST_CALLS - 1)
    assert house.names == []
    house.hits_for(11, 0.84)
    assert house.names == ["hit rate"]
    assert house.told == [
        "only 84% of the answers came from memory and the store, expected are 85%"
    ]
    house.hits_for(100, 0.87)
    assert house.names == ["hit rate"]
    house.hits_for(31, 0.88)
    assert house.names == []


def test_an_alert_ends_when_nobody_calls_any_more() -> None:
    house = House()
    house.hits_for(11, 0.1)
    house.p99_for(11, 900)
    assert house.names == ["hit rate", "slow HIGH"]
    house.hits_for(31, 0.0, answers=0)
    house.p99_for(31, 0.0, calls=0)
    assert house.names == []


def test_an_alert_tells_since_when() -> None:
    house = House()
    house.hits_for(11, 0.1)
    [alert] = house.alerts.active
    [event] = house.events.since(0)
    assert (alert.since, alert.sentence) == (event.time, event.sentence)
    assert (event.severity, event.kind, event.layer) == ("warning", "alert", "layer_4")
