"""What a policy removes, in what order, and that it is unknown afterwards and never empty."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened
from tests.storage.proofs import prove
from tests.storage.test_damage import COUNT, KEY, OTHER, START_MS, keep
from tests.storage.test_maintenance import looked_after
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import BackboneResponse, Reach
from upbit_backbone.storage.blocks import ROWS_PER_BLOCK
from upbit_backbone.storage.candle_tables import SeriesKey, write_rows
from upbit_backbone.storage.coverage import BEGINNING_MS, REST, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans, read_coverage
from upbit_backbone.storage.database import FILE_NAME, Database
from upbit_backbone.storage.migrations import create
from upbit_backbone.storage.retention import (
    RetentionPolicy,
    Stretch,
    forget,
    note_use,
    remove,
    used_bytes,
)
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * 60 * M
THIRD = SeriesKey("KRW-ETH", Timeframe.M1)
MINUTES = SeriesKey(SYMBOL, Timeframe.M1)


def stored(start_ms: int | None, end_ms: int, count: int | None = None) -> object:
    return asked(start_ms=start_ms, end_ms=end_ms, count=count, reach=Reach.STORED)


def holes(response: BackboneResponse) -> list[tuple[int, int]]:
    """Missing spans in minutes before noon, joined."""
    joined: list[tuple[int, int]] = []
    for span in response.metadata.missing:
        assert span.start is not None
        assert span.end is not None
        low, high = (round((at.timestamp() * 1_000 - NOON) / M) for at in (span.start, span.end))
        if joined and joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined


@settings(max_examples=40)
@given(
    existing=st.sets(st.integers(1, 400), min_size=1),
    cut=st.integers(-10, 420),
    warm=st.booleans(),
)
async def test_what_is_removed_is_asked_again_and_comes_back_the_same(
    existing: set[int], cut: int, warm: bool
) -> None:
    """In memory and in the file: below the cut all is unknown, above it all is as it was."""
    clock = ManualClock(NOON + HOUR_MS)
    source = FakeExchangeSource(clock, [NOON - n * M for n in existing])
    low_ms, cut_ms = NOON - 400 * M, NOON - cut * M
    with tempfile.TemporaryDirectory() as name:
        async with opened(Path(name), source, clock) as storage:
            for _ in range(2):
                clock.advance(61)
                end_ms = NOON
                while end_ms > low_ms:
                    page = await storage.fetch(asked(start_ms=low_ms, end_ms=end_ms, count=200))
                    end_ms = int(page.data.time[0]) if len(page.data) else low_ms
            whole = await storage.fetch(stored(low_ms, NOON))  # type: ignore[arg-type]
            known = not whole.metadata.missing
            series = storage._memory.get(MINUTES)
            assert series is not None
            if not warm:
                series.drop()
            await storage._database.write(
                partial(remove, stretch=Stretch(MINUTES, cut_ms)),
                then=partial(storage._candles_removed, MINUTES, cut_ms),
            )
            in_file = (await storage._database.read(read_coverage)).get(MINUTES, Coverage())
            assert list(in_file) == list(storage._known(MINUTES))
            after = await storage.fetch(stored(low_ms, NOON))  # type: ignore[arg-type]
            kept_ms = min(max(cut_ms, low_ms), NOON)
            assert after.data == whole.data.between(kept_ms, None)
            # Below the oldest candle there never was one: that stays true, and known.
            first_ms = NOON - max(existing) * M
            if known and kept_ms > first_ms:
                assert holes(after) == [(-max(existing), (kept_ms - NOON) // M)]
            elif known:
                assert after.success
            for _ in range(2):
                clock.advance(61)
                end_ms = kept_ms
                while end_ms > low_ms:
                    page = await storage.fetch(asked(start_ms=low_ms, end_ms=end_ms, count=200))
                    end_ms = int(page.data.time[0]) if len(page.data) else low_ms
            again = await storage.fetch(stored(low_ms, NOON))  # type: ignore[arg-type]
            assert again.data == whole.data


async def test_what_another_program_removed_is_unknown_at_once_and_never_empty(
    tmp_path: Path,
) -> None:
    """Before this program has noticed that the other one wrote."""
    clock = ManualClock(NOON + HOUR_MS)
    source = FakeExchangeSource(clock, [NOON - n * M for n in range(1, 200)])
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON, count=199))
        series = storage._memory.get(MINUTES)
        assert series is not None
        series.drop()
        other = Database(tmp_path, Origin("test"))
        await other.open()
        try:
            await other.write(partial(remove, stretch=Stretch(MINUTES, NOON - 100 * M)))
            response = await storage.fetch(stored(NOON - 150 * M, NOON))  # type: ignore[arg-type]
            assert holes(response) == [(-150, -100)]
            assert len(response.data) == 100
            by_number = await storage.fetch(stored(None, NOON, 150))  # type: ignore[arg-type]
            assert not by_number.success
            assert len(by_number.data) == 100
        finally:
            await other.close()


async def test_nothing_is_built_from_smaller_candles_that_another_program_removed(
    tmp_path: Path,
) -> None:
    clock = ManualClock(NOON + HOUR_MS)
    source = FakeExchangeSource(clock, [NOON - n * M for n in range(1, 200)])
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOON, count=199))
        other = Database(tmp_path, Origin("test"))
        await other.open()
        try:
            await other.write(partial(remove, stretch=Stretch(MINUTES, NOON)))
            hour = asked(Timeframe.H1, NOON - HOUR_MS, NOON, reach=Reach.STORED)
            response = await storage.fetch(hour)
            assert not response.success
            assert len(response.data) == 0
        finally:
            await other.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert not sql.execute("SELECT * FROM coverage WHERE timeframe = '1h'").fetchall()


@given(
    cut=st.integers(0, 100),
    spans=st.lists(
        st.tuples(
            st.integers(0, 99),
            st.integers(1, 30),
            st.sampled_from(["complete", "empty", "unknown"]),
        )
    ),
    listed=st.integers(-5, 40) | st.none(),
)
def test_memory_forgets_what_the_file_forgets(
    cut: int, spans: list[tuple[int, int, str]], listed: int | None
) -> None:
    known = Coverage()
    if listed is not None:
        known.put(KnownSpan(BEGINNING_MS, listed * M, "before_listing", "", REST, 1))
    for start, length, state in spans:
        low = max(start, listed or 0)
        known.put(KnownSpan(low * M, (low + length) * M, state, "", REST, 1))  # type: ignore[arg-type]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        sql = Sql(connection)
        create(sql)
        write_rows(sql, KEY, CandleSeries.from_rows(
            *KEY, [(50 * M, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)], closed_before_ms=None,
            source="rest", simulated=False,
        ))  # fmt: skip
        put_spans(sql, KEY, tuple(known))
        remove(sql, Stretch(KEY, cut * M))
        forget(known, cut * M)
        assert list(known) == list(read_coverage(sql).get(KEY, Coverage()))
    assert known.proved.overlap(max(0, listed or 0) * M, cut * M) == []
    if listed is not None:
        assert known.at(-10 * M) is not None


async def test_the_oldest_candles_of_the_least_used_series_go_first(tmp_path: Path) -> None:
    async with looked_after(tmp_path) as kept:
        for key in (KEY, OTHER, THIRD):
            await kept.database.write(partial(keep, key=key))
        await kept.database.write(partial(note_use, used=[OTHER], now_ms=1_000))
        await kept.database.write(partial(note_use, used=[KEY], now_ms=2_000))
        await kept.database.write(partial(note_use, used=[THIRD], now_ms=3_000))
        used = await kept.database.read(used_bytes)
    # So much less that one series has to go, and some of the next.
    async with looked_after(tmp_path, RetentionPolicy(limit_bytes=used // 2)) as kept:
        await kept.a_turn()
        counts = await kept.database.read(count_rows)
        assert counts[OTHER] == 0
        assert 0 < counts[KEY] < COUNT
        assert counts[THIRD] == COUNT
        # What is left of a series is its newest part, and all that is known of it.
        oldest = await kept.database.read(
            lambda sql: sql.execute(f"SELECT min(open_time) FROM {KEY.table}").fetchone()[0]
        )
        spans = (await kept.database.read(read_coverage))[KEY]
        end_ms = START_MS + COUNT * M
        assert [(one.start_ms, one.end_ms) for one in spans] == [(oldest, end_ms)]
        assert counts[KEY] == (end_ms - oldest) // M
        assert kept.told[-1] == (KEY, oldest)
        found = await kept.figures()
        assert found.used_bytes <= used // 2
        assert kept.work.counters()["removed_candles"] == 3 * COUNT - sum(counts.values())
        # Until the limit is reached again, nothing goes.
        told = len(kept.told)
        await kept.a_turn()
        assert len(kept.told) == told


async def test_shown_and_pinned_series_stay_and_a_warning_says_that_it_is_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with looked_after(tmp_path, RetentionPolicy(limit_bytes=200_000)) as kept:
        for key in (KEY, OTHER, THIRD):
            await kept.database.write(partial(keep, key=key))
        kept.spared = {OTHER, KEY}
        await kept.a_turn()
        counts = await kept.database.read(count_rows)
        assert counts == {KEY: COUNT, OTHER: COUNT, THIRD: 0}
        assert caplog.text.count("more than the storage limit") == 1
        assert kept.work.counters()["over_size_limit"] == 1
        kept.clock.advance(2 * 3_600)
        await kept.a_turn()
        assert caplog.text.count("more than the storage limit") == 1
        kept.spared = set()
        kept.clock.advance(2 * 3_600)
        await kept.a_turn()
        assert kept.work.counters()["over_size_limit"] == 0
        assert sum((await kept.database.read(count_rows)).values()) < COUNT


async def test_old_seconds_go_and_everything_else_stays(tmp_path: Path) -> None:
    seconds = SeriesKey(SYMBOL, Timeframe.S1)
    now_ms = AUTUMN_2025_MS
    old = 2 * DAY_MS // SECOND_MS
    ages = [*range(3_000), *range(old, old + 2 * ROWS_PER_BLOCK)]
    rows = [(now_ms - age * SECOND_MS, 5.0, 5.0, 5.0, 5.0, 1.0, 5.0) for age in sorted(ages)[::-1]]

    def fill(sql: Sql) -> None:
        series = CandleSeries.from_rows(
            *seconds, rows, closed_before_ms=None, source="rest", simulated=False
        )
        write_rows(sql, seconds, series)
        prove(sql, seconds, Range(rows[0][0], now_ms + SECOND_MS))
        keep(sql)

    async with looked_after(tmp_path, RetentionPolicy(keep_1s_days=1)) as kept:
        await kept.database.write(fill)
        kept.spared = {seconds}
        await kept.a_turn()
        left = await kept.database.read(
            lambda sql: [at for (at,) in sql.execute(f"SELECT open_time FROM {seconds.table}")]
        )
        # A block that reaches into what stays, stays whole.
        assert 3_000 <= len(left) <= 3_000 + ROWS_PER_BLOCK
        assert left[-3_000:] == [at for at, *_ in rows[-3_000:]]
        (span,) = (await kept.database.read(read_coverage))[seconds]
        assert (span.start_ms, span.end_ms) == (left[0], now_ms + SECOND_MS)
        assert (await kept.database.read(count_rows))[KEY] == COUNT
        # As days pass, the rest goes.
        kept.clock.advance(2 * 86_400)
        await kept.a_turn()
        assert (await kept.database.read(count_rows)).get(seconds, 0) == 0
        assert (await kept.database.read(count_rows))[KEY] == COUNT


async def test_candles_written_after_a_removal_are_sealed_and_read_as_before(
    tmp_path: Path,
) -> None:
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        await kept.database.write(partial(remove, stretch=Stretch(KEY, START_MS + 2_500 * M)))
        await kept.database.write(keep)
        found = await kept.figures()
        assert found.rows == COUNT
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
            ranges = sql.execute("SELECT start_ms, end_ms FROM blocks ORDER BY start_ms").fetchall()
        assert all(one[1] == next_one[0] for one, next_one in pairwise(ranges))


def count_rows(sql: Sql) -> dict[SeriesKey, int]:
    """Candles of each series, counted one by one."""
    return {
        SeriesKey(symbol, Timeframe(timeframe)): sql.execute(
            f"SELECT count(*) FROM {table}"
        ).fetchone()[0]
        for symbol, timeframe, table in sql.execute("SELECT * FROM series").fetchall()
    }
