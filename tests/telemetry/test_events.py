"""The event log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import MINUTE_MS, epoch_ms, utc_datetime
from upbit_backbone.models import Gap, Timeframe
from upbit_backbone.protocol import SystemEvent
from upbit_backbone.telemetry.events import EventLog, SpanEvents


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


def test_gaps_and_revisions_are_told_with_their_names_and_times() -> None:
    log, spans = EventLog(ManualClock()), SpanEvents()
    start = datetime(2026, 3, 4, 23, 59, 58, tzinfo=UTC)
    for symbol in ("KRW-BTC", "KRW-ETH"):
        spans.gap(Gap(symbol, "open", start, start + timedelta(seconds=1), "cut off"))
    spans.gap(Gap("KRW-XRP", "closed", start, start + timedelta(seconds=5), "cut off"))
    spans.gap(Gap("KRW-ADA", "unfillable", start, start, "too long ago"))
    first_ms = epoch_ms(datetime(2026, 3, 4, 5, 6, tzinfo=UTC))
    minutes = [first_ms, first_ms + 2 * MINUTE_MS]
    spans.revised("KRW-BTC", Timeframe.M1, minutes, "a trade came late")
    for number in range(7):
        spans.revised(f"KRW-{number}", Timeframe.H1, [first_ms], "the exchange says so")
    spans.tell(log)
    spans.tell(log)
    one_hour = ", ".join(f"KRW-{number} 1h 2026-03-04 05:06:00 UTC" for number in range(5))
    lost = "trades that the stream lost"
    assert [(event.kind, event.severity, event.sentence) for event in log.since(0)] == [
        (
            "gap",
            "warning",
            (
                f"{lost} are read back: KRW-BTC 2026-03-04 23:59:58 – 23:59:59 UTC,"
                " KRW-ETH 2026-03-04 23:59:58 – 23:59:59 UTC: cut off"
            ),
        ),
        (
            "gap",
            "info",
            (
                f"{lost} were read back:"
                " KRW-XRP 2026-03-04 23:59:58 – 2026-03-05 00:00:03 UTC: cut off"
            ),
        ),
        (
            "gap",
            "warning",
            f"{lost} cannot be had: KRW-ADA 2026-03-04 23:59:58 UTC: too long ago",
        ),
        (
            "revision",
            "info",
            (
                "candles were revised, a trade came late:"
                " KRW-BTC 1m 2026-03-04 05:06:00 – 05:08:00 UTC (2)"
            ),
        ),
        (
            "revision",
            "info",
            f"candles were revised, the exchange says so: {one_hour}, and 2 more",
        ),
    ]
