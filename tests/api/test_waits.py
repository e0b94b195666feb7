"""Who has waited longest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.api.waits import WaitTracker
from upbit_backbone.protocol import Priority


def test_nobody_waits_at_first() -> None:
    assert WaitTracker().oldest_s(5.0) == {}


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(Priority), st.floats(0, 2), st.integers(0, 5)), max_size=40
    )
)
def test_the_oldest_of_those_who_still_wait_counts(
    steps: list[tuple[Priority, float, int]],
) -> None:
    waits, now = WaitTracker(), 0.0
    waiting: list[tuple[Priority, int, float]] = []
    for priority, gap_s, leaves in steps:
        now += gap_s
        waiting.append((priority, waits.begin(priority, now), now))
        if leaves < len(waiting):
            left, ticket, _ = waiting.pop(leaves)
            waits.end(left, ticket)
            waits.end(left, ticket)
        expected = {
            priority: max(now - since for who, _, since in waiting if who is priority)
            for priority in {who for who, _, _ in waiting}
        }
        assert waits.oldest_s(now) == expected
