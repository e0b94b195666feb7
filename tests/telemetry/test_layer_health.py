"""What layers say of themselves, followed over time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import utc_datetime
from upbit_backbone.protocol import Health, LayerStatus
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.layer_health import LayerHealthTracker

LAYERS = ("layer_1", "layer_2")
BEGAN = utc_datetime(AUTUMN_2025_MS)


class House:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.events = EventLog(self.clock)
        self.tracker = LayerHealthTracker(self.events, self.clock, LAYERS)


def test_layers_are_starting_until_they_say_otherwise() -> None:
    house = House()
    assert house.tracker["layer_2"] == ("starting", "", BEGAN)
    assert house.events.last == 0


def test_a_change_is_an_event_with_its_reason_and_what_was_before() -> None:
    house = House()
    house.clock.advance(2)
    house.tracker.observe("layer_1", "healthy")
    house.clock.advance(90)
    house.tracker.observe("layer_1", "degraded", "no stream")
    assert house.tracker["layer_1"] == ("degraded", "no stream", BEGAN + timedelta(seconds=92))
    house.clock.advance(5)
    house.tracker.observe("layer_1", "down", "no answer")
    assert [(event.severity, event.sentence) for event in house.events.since(0)] == [
        ("info", "layer_1 is healthy; it was starting for 2 s"),
        ("warning", "layer_1 is degraded: no stream; it was healthy for 90 s"),
        ("error", "layer_1 is down: no answer; it was degraded for 5 s"),
    ]
    assert {event.kind for event in house.events.since(0)} == {"health"}
    assert house.tracker["layer_2"].health == "starting"


@given(
    told=st.lists(
        st.tuples(st.sampled_from(["starting", "healthy", "degraded", "down"]), st.text(max_size=3))
    )
)
def test_there_is_one_event_for_each_change_and_none_for_another_reason(
    told: list[tuple[Health, str]],
) -> None:
    house = House()
    changes, began, last = 0, BEGAN, "starting"
    for health, reason in told:
        house.clock.advance(1)
        if health != last:
            changes, last, began = changes + 1, health, utc_datetime(house.clock.now_ms())
        assert house.tracker.observe("layer_1", health, reason) == (health, reason, began)
    assert house.events.last == changes


def test_a_status_gets_the_moment_at_which_its_state_really_began() -> None:
    house = House()
    house.clock.advance(10)
    told = LayerStatus("layer_1", "degraded", "no stream", BEGAN, {"reconnects": 4.0})
    house.tracker.tracked(told)
    house.clock.advance(10)
    tracked = house.tracker.tracked(told)
    assert tracked == LayerStatus(
        "layer_1", "degraded", "no stream", BEGAN + timedelta(seconds=10), {"reconnects": 4.0}
    )


def test_a_layer_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        House().tracker.observe("layer_9", "healthy")
