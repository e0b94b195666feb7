"""What changes late: pages that are older than a trade, larger candles, rows without a proof."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked, market, row_of
from tests.storage.opening import rows_in, spans_in
from tests.storage.test_live_candles import whole
from tests.storage.test_whole_answers import (
    KEY,
    NOON,
    M,
    at_once,
    candle,
    committed,
    opens,
    page,
    quiet,
    said,
    stored,
    tell_live,
)
from upbit_backbone.clock import HOUR_MS, SECOND_MS
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import UnknownSymbolError
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import BackboneRequest, BackboneResponse, DataType, Reach
from upbit_backbone.storage.coverage import FOREVER_MS, LIVE, REST, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans, read_proved
from upbit_backbone.storage.live_candles import LiveSeries
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.storage import Storage

__all__ = ["at_once"]
"""A fixture that all of these tests use."""


@pytest.fixture
def clock() -> ManualClock:
    """An hour past noon, and six seconds."""
    return ManualClock(NOON + 60 * M + 6 * SECOND_MS)


@pytest.fixture
def source(clock: ManualClock) -> FakeExchangeSource:
    return FakeExchangeSource(clock, [NOON + n * M for n in range(-600, 60)])


def volume_at(folder: Path, minute: int) -> float:
    (volume,) = [row[5] for row in rows_in(folder) if row[0] == NOON + minute * M]
    return volume


@pytest.mark.parametrize("is_empty", [False, True])
async def test_a_page_asked_before_a_late_trade_does_not_settle_its_candle(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource, is_empty: bool
) -> None:
    async with quiet(tmp_path, source, clock) as storage:

        async def late(_: BackboneRequest) -> None:
            source.after_read = None
            clock.advance(0.3)
            tell_live(storage, clock, said(58, 59, "complete", clock), candle(58, "revised", 777.0))
            await committed(storage)
            clock.advance(0.3)

        if is_empty:
            source.opens.discard(NOON + 58 * M)
        source.after_read = late
        response = await storage.fetch(page(50, 60))
        # Neither the answer nor the file is older than what was told.
        assert 777.0 in response.data.volume.tolist() or is_empty
        assert volume_at(tmp_path, 58) == 777.0
        assert [(span[0], span[4]) for span in spans_in(tmp_path)][-3:] == [
            (NOON + (49 if is_empty else 50) * M, REST),
            (NOON + 58 * M, LIVE),
            (NOON + 59 * M, REST),
        ]
        again = await storage.fetch(stored(50, 60))
        assert again.success
        assert again.data.volume[-2] == 777.0
        # A page that is asked after it does.
        source.opens.add(NOON + 58 * M)
        await storage.fetch(page(50, 60))
        assert volume_at(tmp_path, 58) == row_of(Timeframe.M1, NOON + 58 * M, 2**50)[5]
        assert LIVE not in [span[4] for span in spans_in(tmp_path)]


async def hours(storage: Storage, count: int = 2) -> BackboneResponse:
    return await storage.fetch(
        asked(
            Timeframe.H1,
            start_ms=NOON + HOUR_MS - count * HOUR_MS,
            end_ms=NOON + HOUR_MS,
            reach=Reach.STORED,
        )
    )


async def test_an_hour_is_built_again_when_one_of_its_minutes_has_changed(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(-60, 60))
        assert not (await hours(storage)).success, "trades of the last hour still come"
        clock.advance(60)
        before = await hours(storage)
        assert before.success
        tell_live(storage, clock, said(59, 60, "complete", clock), candle(59, "revised", 1e9))
        await committed(storage)
        # The minute is not settled: the hour is unknown, in memory and in the file.
        response = await hours(storage)
        assert (len(response.data), response.success) == (1, False)
        known = [span for span in spans_in(tmp_path) if span[4].startswith("built")]
        assert [span[1] for span in known] == [NOON]
        clock.advance(1)
        source.opens -= {NOON + 59 * M}
        source.opens |= {NOON - 700 * M}
        # That the newest candle is gone takes two readings.
        for seconds in (0, 60):
            clock.advance(seconds)
            await storage.fetch(page(-60, 60))
        after = await hours(storage)
        assert after.success
        minutes = await storage.fetch(stored(0, 60))
        assert after.data.volume[-1] == pytest.approx(minutes.data.volume.sum())
        assert after.data.volume[-1] < before.data.volume[-1]
        assert after.data.volume[0] == before.data.volume[0]


async def test_an_hour_whose_minutes_change_while_it_is_built_is_not_stored(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(-60, 60))
        clock.advance(60)
        read = storage._database.read

        async def overtaken(work: Callable[[Sql], Any]) -> Any:
            found = await read(work)
            if isinstance(work, partial) and work.func is read_proved:
                monkeypatch.setattr(storage._database, "read", read)
                revised = candle(59, "revised", 1e9)
                tell_live(storage, clock, said(59, 60, "complete", clock), revised)
                await committed(storage)
            return found

        monkeypatch.setattr(storage._database, "read", overtaken)
        # The hour before was not built of it, but in one piece with the one that was.
        assert not (await hours(storage)).success
        assert not [span for span in spans_in(tmp_path) if span[4].startswith("built")]
        clock.advance(1)
        await storage.fetch(page(-60, 60))
        after = await hours(storage)
        assert after.success
        minutes = await storage.fetch(stored(0, 60))
        assert after.data.volume[-1] == pytest.approx(minutes.data.volume.sum())


async def test_an_hour_is_not_stored_of_minutes_that_a_page_restates_meanwhile(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(-60, 60))
        clock.advance(60)
        read = storage._database.read

        async def overtaken(work: Callable[[Sql], Any]) -> Any:
            found = await read(work)
            if isinstance(work, partial) and work.func is read_proved:
                monkeypatch.setattr(storage._database, "read", read)
                source.opens.discard(NOON + 30 * M)
                await storage.fetch(page(20, 60))
            return found

        monkeypatch.setattr(storage._database, "read", overtaken)
        assert not (await hours(storage, 1)).success
        after = await hours(storage, 1)
        minutes = await storage.fetch(stored(0, 60))
        assert len(minutes.data) == 59
        assert after.data.volume.tolist() == [pytest.approx(minutes.data.volume.sum())]


async def test_an_hour_is_built_again_when_a_candle_comes_where_there_was_said_to_be_none(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 50))
        none = KnownSpan(NOON + 50 * M, NOON + 60 * M, "empty", "two readings agree", REST, 1)
        await storage._database.write(lambda sql: put_spans(sql, KEY, [none]))
        storage._known(KEY).put(none)
        clock.advance(60)
        assert (await hours(storage, 1)).success
        # It closed in its time, and the file could not be written before.
        tell_live(storage, clock, said(55, 56, "complete", clock), candle(55))
        await committed(storage)
        response = await hours(storage, 1)
        assert (len(response.data), response.success) == (0, False)


async def test_a_page_asked_before_a_late_trade_does_not_settle_what_another_program_stored(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with (
        quiet(tmp_path, source, clock) as storage,
        quiet(tmp_path, source, clock) as other,
    ):

        async def late(_: BackboneRequest) -> None:
            source.after_read = None
            clock.advance(0.3)
            live = LiveSeries(KEY, storage._empty(KEY))
            live.take(whole(58, 59), clock.now_ms())
            proof = live.take(candle(58, "revised", 777.0), clock.now_ms())
            assert proof is not None and proof.over_all
            storage._keep_live(live, proof)
            await committed(storage)
            clock.advance(0.3)

        await storage.fetch(page(58, 59))
        source.after_read = late
        await other.fetch(page(50, 60))
        assert volume_at(tmp_path, 58) == 777.0
        assert [(span[0], span[4]) for span in spans_in(tmp_path)] == [
            (NOON + 50 * M, REST),
            (NOON + 58 * M, LIVE),
            (NOON + 59 * M, REST),
        ]
        # A page that is asked after it does.
        await other.fetch(page(50, 60))
        assert volume_at(tmp_path, 58) == row_of(Timeframe.M1, NOON + 58 * M, 2**50)[5]
        assert [span[4] for span in spans_in(tmp_path)] == [REST]


async def test_an_hour_read_and_an_hour_built_stay_apart(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        clock.advance(60)
        key = KEY._replace(timeframe=Timeframe.H1)
        read = KnownSpan(NOON - 2 * HOUR_MS, NOON - HOUR_MS, "complete", "", REST, 1)
        await storage._database.write(lambda sql: put_spans(sql, key, [read]))
        storage._known(key).put(read)
        await storage.fetch(page(-60, 60))
        assert len((await hours(storage)).data) == 2
        assert [span[4] for span in spans_in(tmp_path) if span[1] - span[0] >= HOUR_MS][:1] == [
            REST
        ]
        tell_live(storage, clock, said(-1, 0, "complete", clock), candle(-1, "revised", 1e9))
        await committed(storage)
        known = [one[:2] for one in storage._known(key)]
        assert known == [(NOON - 2 * HOUR_MS, NOON - HOUR_MS), (NOON, NOON + HOUR_MS)]


async def test_rows_whose_proof_was_taken_back_do_not_come_under_a_new_one(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    source.opens -= {NOON + 3 * M, NOON + 6 * M}
    async with quiet(tmp_path, source, clock) as storage:
        for minute in (3, 6):
            tell_live(storage, clock, said(minute, minute + 1, "complete", clock), candle(minute))
        tell_live(storage, clock, said(3, 7, "unknown", clock))
        await committed(storage)
        assert len(rows_in(tmp_path)) == 2
        # One by a page that shows none there, one by a stream that saw none.
        await storage.fetch(page(0, 5))
        tell_live(storage, clock, said(6, 7, "empty", clock))
        await committed(storage)
        for _ in range(2):
            assert opens(await storage.fetch(stored(0, 5))) == {0, 1, 2, 4}
            assert opens(await storage.fetch(stored(6, 7))) == set()
            storage._series(KEY).drop()


# A symbol that the exchange once did not know.


async def ended(storage: Storage, source: FakeExchangeSource) -> None:
    """The exchange does not list the market for a moment."""
    listed, source.listed = source.listed, (market("KRW-XRP"),)

    async def gone(request: BackboneRequest) -> None:
        if request.data_type is DataType.CANDLE:
            raise UnknownSymbolError(SYMBOL)

    source.before_answer = gone
    with pytest.raises(UnknownSymbolError):
        await storage.fetch(page(50, 60))
    source.before_answer = None
    source.listed = listed


def is_gone(folder: Path) -> bool:
    return any(span[1] == FOREVER_MS for span in spans_in(folder))


async def test_a_market_that_the_list_names_is_not_gone_whether_the_list_has_changed_or_not(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    source.listed = (market(SYMBOL),)
    async with quiet(tmp_path, source, clock) as storage:
        await storage.markets()
        await storage.fetch(page(0, 50))
        end = KnownSpan(NOON + 50 * M, FOREVER_MS, "after_delisting", "", REST, 1)
        for _ in range(2):
            # As an earlier program, or another one, may have left it.
            await storage._database.write(lambda sql: put_spans(sql, KEY, [end]))
            storage._known(KEY).put(end)
            storage._series(KEY).drop()
            source.listed = (market(SYMBOL),)
            await storage.markets()
            assert not is_gone(tmp_path)
            assert len((await storage.fetch(page(50, 60))).data) == 10
        await storage._database.write(lambda sql: put_spans(sql, KEY, [end]))
    # After a restart the stored list says so.
    async with quiet(tmp_path, source, clock) as storage:
        assert not is_gone(tmp_path)
        assert not (await storage.fetch(stored(60, 70))).success


async def test_a_market_that_trades_is_not_gone(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 50))
        await ended(storage, source)
        assert is_gone(tmp_path)
        assert (await storage.fetch(stored(55, 58))).success
        tell_live(storage, clock, said(56, 57, "complete", clock), candle(56))
        await committed(storage)
        assert not is_gone(tmp_path)
        response = await storage.fetch(stored(55, 58))
        assert (opens(response), response.success) == ({56}, False)
        coordinator = Coordinator(storage, clock=clock, rng=Random(1))
        await coordinator.start()
        response = await coordinator.fetch(asked(start_ms=NOON, end_ms=NOON + 60 * M))
        await coordinator.stop()
        assert opens(response) == set(range(60))


async def test_a_candle_that_the_stream_saw_takes_back_that_there_is_none(
    tmp_path: Path, clock: ManualClock, source: FakeExchangeSource
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        none = KnownSpan(NOON, NOON + 5 * M, "empty", "two readings agree", "an empty page", 1)
        await storage._database.write(lambda sql: put_spans(sql, KEY, [none]))
        storage._known(KEY).put(none)
        tell_live(storage, clock, said(2, 3, "complete", clock), candle(2))
        await committed(storage)
        for _ in range(2):
            response = await storage.fetch(stored(0, 5))
            assert (opens(response), response.success) == ({2}, True)
            storage._series(KEY).drop()
