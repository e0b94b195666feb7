"""A node of the exchange that lags shows nothing of the newest candles: that is no silence."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked
from tests.storage.opening import rows_in, spans_in
from tests.storage.test_whole_answers import (
    NOON,
    M,
    at_once,
    candle,
    committed,
    missing,
    opens,
    page,
    quiet,
    said,
    stored,
    tell_live,
)
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.storage.coverage import CONTRADICTED
from upbit_backbone.storage.page_proof import AGREES_AFTER_MS, Doubt, NewestShown

__all__ = ["at_once"]
"""A fixture that all of these tests use."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON + 70 * M)


@pytest.fixture
def source(clock: ManualClock) -> FakeExchangeSource:
    return FakeExchangeSource(clock, [NOON + n * M for n in range(-100, 100)])


def lag(source: FakeExchangeSource, newest: int) -> None:
    """Nothing is shown that opens after a minute."""
    source.opens = {at for at in source.opens if at <= NOON + newest * M}


async def test_a_page_that_lacks_the_newest_of_what_is_stored_proves_nothing_beyond_its_own(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    everything = set(source.opens)
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 60))
        before = rows_in(tmp_path)
        lag(source, 40)
        for seconds in (0, 59):
            clock.advance(seconds)
            lagging = await storage.fetch(page(60, 65))
            # It says itself what it does not tell.
            assert [one.reason for one in lagging.metadata.missing] == [CONTRADICTED]
            assert missing(lagging) == set(range(41, 65))
            assert rows_in(tmp_path) == before
            answer = await storage.fetch(stored(0, 65))
            assert opens(answer) == set(range(60))
            assert missing(answer) == set(range(60, 65))
        # Nothing hinders the next page, of whichever node.
        source.opens = everything
        await storage.fetch(page(60, 65))
        answer = await storage.fetch(stored(0, 65))
        assert (opens(answer), answer.success) == (set(range(65)), True)
        assert storage._doubts == {}


async def test_candles_that_a_second_page_does_not_show_a_minute_later_are_gone(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 60))
        lag(source, 57)
        await storage.fetch(page(0, 60))
        # Pages of other times say nothing of these.
        await storage.fetch(page(0, 30))
        clock.advance(AGREES_AFTER_MS / 1_000)
        assert (await storage.fetch(page(0, 60))).success
        answer = await storage.fetch(stored(0, 60))
        assert (opens(answer), answer.success) == (set(range(58)), True)


async def test_a_page_behind_the_stream_takes_nothing_of_what_it_saw_stored_or_not(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 60))
        tell_live(storage, clock, said(60, 62, "complete", clock), candle(60), candle(61))
        await committed(storage)
        lag(source, 59)
        await storage.fetch(page(50, 62))
        assert opens(await storage.fetch(stored(50, 62))) == set(range(50, 62))
        assert [one[4] for one in spans_in(tmp_path)] == ["rest", "live"]
        # A second reading of the same settles what the stream alone had told.
        clock.advance(AGREES_AFTER_MS / 1_000)
        await storage.fetch(page(50, 62))
        assert opens(await storage.fetch(stored(50, 62))) == set(range(50, 60))
        assert [one[4] for one in spans_in(tmp_path)] == ["rest"]


async def test_an_answer_with_a_page_that_lags_names_what_it_lacks(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 60))
        lag(source, 40)
        coordinator = Coordinator(storage, clock=clock, rng=Random(1))
        await coordinator.start()
        answer = await coordinator.fetch(asked(start_ms=NOON, end_ms=NOON + 65 * M))
        await coordinator.stop()
        assert opens(answer) == set(range(60))
        assert missing(answer) == set(range(60, 65))


def test_a_doubt_ends_with_a_newer_candle_or_a_second_reading_of_the_same() -> None:
    first = NewestShown(40, 1_000).doubt(59)
    assert first == Doubt(40, 59, 1_000)
    later = 1_000 + AGREES_AFTER_MS
    assert NewestShown(40, later - 1, None, first).doubt(59) == first
    assert NewestShown(40, later, None, first).doubt(59) is None
    # Whoever shows another end, or has more to show, says something else.
    assert NewestShown(41, later, None, first).doubt(59) == Doubt(41, 59, later)
    assert NewestShown(40, later, None, first).doubt(60) == Doubt(40, 60, later)
    assert NewestShown(40, 1_000, told_ms=41).doubt(None) == Doubt(40, 41, 1_000)
    assert NewestShown(59, 1_000, None, first).doubt(59) is None
    assert NewestShown(40, 1_000).doubt(None) is None
