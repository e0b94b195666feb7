"""Caches give way to the limit on memory, and come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.api.load_manager import LOW_AGAIN_AT, LOW_UP_TO
from upbit_backbone.telemetry.machine import memory_returner
from upbit_backbone.telemetry.memory_guard import BEGINS_AT, ENDS_AT, MemoryGuard

MB = 1 << 20


def guard() -> MemoryGuard:
    return MemoryGuard(limit_bytes=1_000 * MB, cache_bytes=250 * MB)


def test_with_room_caches_may_hold_all_that_they_are_given() -> None:
    one = guard()
    assert one.allowed_bytes(100 * MB, 0) == 250 * MB
    assert one.allowed_bytes(600 * MB, 250 * MB) == 250 * MB
    assert not one.under_pressure


def test_a_cache_gives_back_what_the_process_takes_too_much() -> None:
    one = guard()
    assert one.allowed_bytes(700 * MB, 250 * MB) == 100 * MB
    assert one.under_pressure


def test_memory_that_does_not_go_back_to_the_system_costs_the_cache_all_it_holds() -> None:
    one = guard()
    held = 250 * MB
    for _ in range(3):
        held = one.allowed_bytes(700 * MB, held)
    assert held == 0


def test_pressure_lasts_until_there_is_room_for_who_waits() -> None:
    one = guard()
    one.allowed_bytes(700 * MB, 250 * MB)
    assert one.allowed_bytes(600 * MB, 100 * MB) == 50 * MB
    assert one.under_pressure
    assert one.allowed_bytes(540 * MB, 50 * MB) == 160 * MB
    assert not one.under_pressure


def test_caches_give_way_before_anybody_waits_for_memory_and_until_nobody_does() -> None:
    assert BEGINS_AT * 100 < LOW_UP_TO
    assert ENDS_AT * 100 < LOW_AGAIN_AT


@given(st.lists(st.integers(0, 2_000 * MB), min_size=1, max_size=50))
def test_a_cache_is_never_allowed_more_than_its_share(taken: list[int]) -> None:
    one, held = guard(), 0
    for rss in taken:
        allowed = one.allowed_bytes(rss, held)
        assert 0 <= allowed <= 250 * MB
        held = min(held, allowed) if one.under_pressure else allowed


def test_memory_is_worth_returning_when_caches_were_told_to_free_some() -> None:
    one = guard()
    one.allowed_bytes(600 * MB, 250 * MB)
    assert not one.gave_way
    one.allowed_bytes(700 * MB, 250 * MB)
    assert one.gave_way
    one.allowed_bytes(700 * MB, 0)
    assert not one.gave_way


def test_freed_memory_can_be_returned_at_any_time() -> None:
    give_back = memory_returner()
    give_back()
    give_back()
