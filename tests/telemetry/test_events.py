"""The event log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import utc_datetime
from upbit_backbone.protocol import SystemEvent
from upbit_backbone.telemetry.events import EventLog


def test_an_event_carries_its_time_layer_severity_kind_and_sentence() -> None:
    log = EventLog(ManualClock())
    event = log.add("layer_1", "warning", "gap", "trades of KRW-BTC are missing")
    assert event == SystemEvent(
        1,
        utc_datetime(AUTUMN_2025_MS),
        "layer_1",
        "warning",
        "gap",
        "trades of KRW-BTC are missing",
    )
    assert log.since(0) == (event,)
    with pytest.raises(AttributeError):
        event.sentence = "another"  # type: ignore[misc]


@given(kept=st.integers(1, 5), added=st.integers(0, 12), seen=st.integers(0, 14))
def test_a_reader_gets_what_is_newer_than_what_it_saw_as_far_as_it_is_kept(
    kept: int, added: int, seen: int
) -> None:
    log = EventLog(ManualClock(), kept=kept)
    for number in range(1, added + 1):
        log.add("layer_1", "info", "reconnect", f"number {number}")
    numbers = [event.number for event in log.since(seen)]
    assert numbers == list(range(max(seen, added - kept) + 1, added + 1))
    assert log.last == added


def test_every_event_is_told_at_once() -> None:
    told: list[SystemEvent] = []
    log = EventLog(ManualClock(), on_event=told.append)
    assert [log.add("layer_2", "info", "revision", "a candle was restated")] == told
