"""Alerts, and that they do not chatter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from upbit_backbone.protocol import DataType, LatencyStats, Priority
from upbit_backbone.telemetry.alerts import (
    LEAST_CALLS,
    PROMISED_P99_MS,
    Alarm,
    Alerts,
    is_promised,
)
from upbit_backbone.telemetry.calls import Kind
from upbit_backbone.telemetry.events import EventLog

QUICK = LatencyStats(LEAST_CALLS, 1.0, 1.0, 1.0, 1.0)


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

    def load_for(self, seconds: int, load: float) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.alerts.observe_load(load, "memory is full", self.clock.monotonic())

    def p99_for(self, seconds: int, p99_ms: float, calls: int = LEAST_CALLS) -> None:
        latency = dict.fromkeys(Priority, QUICK)
        latency[Priority.HIGH] = LatencyStats(calls, 1.0, 1.0, p99_ms, p99_ms)
        for _ in range(seconds):
            self.clock.advance(1)
            self.alerts.observe_latency(latency, self.clock.monotonic())

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


def test_load_is_an_alert_when_it_stays_high_and_no_longer_when_it_stays_low() -> None:
    house = House()
    house.load_for(30, 75)
    assert house.names == []
    house.load_for(1, 75)
    assert house.names == ["load"]
    assert house.told == ["the load has been above 70 %: memory is full"]
    house.load_for(60, 65)
    house.load_for(10, 60)
    assert house.names == ["load"]
    house.load_for(1, 60)
    assert house.names == []
    assert house.told[1:] == ["no longer: the load has been above 70 %: memory is full"]


@pytest.mark.parametrize("load", [70.0, 0.0])
def test_a_load_that_is_not_high_is_no_alert(load: float) -> None:
    house = House()
    house.load_for(100, load)
    assert house.told == []


def test_a_load_that_comes_and_goes_is_no_alert() -> None:
    house = House()
    for _ in range(20):
        house.load_for(29, 100)
        house.load_for(1, 69)
    assert house.told == []


def test_calls_slower_than_promised_are_an_alert_until_they_are_clearly_quick_again() -> None:
    house = House()
    house.p99_for(11, 130)
    assert house.names == ["slow HIGH"]
    assert house.told == ["p99 of HIGH calls is 130 ms, promised are 100 ms"]
    house.p99_for(100, 90)
    assert house.names == ["slow HIGH"]
    house.p99_for(31, 80)
    assert house.names == []


def test_a_handful_of_calls_proves_no_p99() -> None:
    house = House()
    house.p99_for(100, 900, calls=LEAST_CALLS - 1)
    assert house.names == []


@pytest.mark.parametrize(
    ("priority", "path", "promised"),
    [
        (Priority.HIGH, "peek", True),
        (Priority.HIGH, "direct: api → coordinator → storage", True),
        (Priority.HIGH, "direct: api → coordinator → storage → router", False),
        (Priority.CRITICAL, "direct: api → router", True),
        (Priority.NORMAL, "bus: api → coordinator → storage → router", True),
    ],
)
def test_what_a_promise_holds_for(priority: Priority, path: str, promised: bool) -> None:
    assert is_promised(Kind(priority, DataType.CANDLE, path)) is promised
    assert Priority.LOW not in PROMISED_P99_MS


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
