"""The guard between simulated and real data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import StorageOriginError
from upbit_backbone.origin import MARK_HEADER, Origin

marks = st.sampled_from([None, "simulator-1", "simulator-2", "replay-0a1b2c3d", ""])


def test_the_header_is_the_one_the_simulator_sends() -> None:
    assert MARK_HEADER == "X-Simulated-Exchange"


def test_nothing_is_known_before_the_first_answer() -> None:
    origin = Origin("upbit")
    assert (origin.identity, origin.known, origin.mark, origin.simulated) == (
        "upbit",
        False,
        None,
        False,
    )


@given(st.lists(marks, min_size=1, max_size=8))
def test_the_first_mark_stands_and_every_other_one_is_refused(seen: list[str | None]) -> None:
    origin = Origin("somewhere_8080")
    for mark in seen:
        if mark == seen[0]:
            origin.observe(mark)
        else:
            with pytest.raises(StorageOriginError):
                origin.observe(mark)
        assert origin.known
        assert origin.mark == seen[0]
        assert origin.simulated is (seen[0] is not None)


def test_an_empty_mark_is_a_mark() -> None:
    origin = Origin("somewhere_8080")
    origin.observe("")
    assert origin.simulated


def test_the_refusal_names_both_and_says_what_to_do() -> None:
    origin = Origin("simulator-1")
    origin.observe("simulator-1")
    with pytest.raises(StorageOriginError) as caught:
        origin.observe(None)
    for words in ("marked 'simulator-1'", "answers without a mark", "--data-dir"):
        assert words in str(caught.value)


@given(st.lists(marks, max_size=8))
def test_the_exchange_s_own_addresses_accept_no_mark(seen: list[str | None]) -> None:
    origin = Origin("upbit", accepts_mark=False)
    for mark in seen:
        if mark is None:
            origin.observe(None)
        else:
            known = origin.known
            with pytest.raises(StorageOriginError, match="real data only"):
                origin.observe(mark)
            # A refused answer teaches nothing.
            assert origin.known is known
    assert not origin.simulated


@given(st.lists(st.tuples(st.booleans(), marks), min_size=1, max_size=8))
def test_the_store_fixes_the_mark_as_an_answer_does(seen: list[tuple[bool, str | None]]) -> None:
    origin = Origin("somewhere_8080")
    for stored, mark in seen:
        take = origin.expect if stored else origin.observe
        if mark == seen[0][1]:
            take(mark)
        else:
            with pytest.raises(StorageOriginError, match="--data-dir"):
                take(mark)
        assert origin.mark == seen[0][1]
