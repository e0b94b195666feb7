"""What the process takes of the machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.surroundings import usable_processors
from upbit_backbone.telemetry.machine import (
    ProcessorMeter,
    process_usage,
)


def test_the_process_has_memory_and_takes_processor_time() -> None:
    usage = process_usage()
    before = usage()
    assert before.rss_bytes > 10_000_000
    total = 0
    while usage().processor_s == before.processor_s:
        total += sum(range(10_000))
    assert usage().processor_s > before.processor_s


def test_there_is_a_processor_to_run_on() -> None:
    assert usable_processors() >= 1


def test_a_share_is_of_all_processors_and_of_the_time_between_two_measurements() -> None:
    meter = ProcessorMeter(processors=4)
    meter.measured(100.0, 10.0, 1_000.0)
    assert (meter.share, meter.low_share) == (0.0, 0.0)
    meter.measured(102.0, 10.5, 1_001.0)
    assert (meter.share, meter.low_share) == (0.5, 0.125)
    meter.measured(102.0, 10.5, 1_002.0)
    assert (meter.share, meter.low_share) == (0.0, 0.0)


@given(
    readings=st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1
    )
)
def test_shares_are_fractions_and_that_of_low_is_part_of_the_whole(
    readings: list[tuple[float, float, float]],
) -> None:
    meter = ProcessorMeter(processors=2)
    for reading in readings:
        meter.measured(*reading)
        assert 0 <= meter.low_share <= meter.share <= 1
