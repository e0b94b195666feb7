"""Frames as the screen tells of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.telemetry.frames import MOST, SPAN_S, FrameTimes


def test_no_screen_tells_nothing() -> None:
    assert FrameTimes().p95_s(0.0) is None


@given(taken_s=st.lists(st.floats(0, 1), min_size=1, max_size=100))
def test_the_95th_percentile_is_exceeded_by_at_most_a_twentieth(taken_s: list[float]) -> None:
    frames = FrameTimes()
    for taken in taken_s:
        frames.drawn(taken, 0.0)
    p95_s = frames.p95_s(0.0)
    assert p95_s in taken_s
    assert sum(taken > p95_s for taken in taken_s) <= 0.05 * len(taken_s)
    assert sum(taken < p95_s for taken in taken_s) <= 0.95 * len(taken_s)


def test_frames_of_a_screen_that_is_gone_are_forgotten() -> None:
    frames = FrameTimes()
    frames.drawn(0.5, 0.0)
    frames.drawn(0.1, 1.0)
    assert frames.p95_s(SPAN_S - 0.1) == 0.5
    assert frames.p95_s(SPAN_S) == 0.1
    assert frames.p95_s(SPAN_S + 1) is None


def test_a_screen_of_any_speed_keeps_a_bounded_number_of_frames() -> None:
    frames = FrameTimes()
    for _ in range(MOST):
        frames.drawn(1.0, 0.0)
    for _ in range(MOST):
        frames.drawn(0.0, 0.0)
    assert frames.p95_s(0.0) == 0.0
