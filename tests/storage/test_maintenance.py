"""Looking after the file: when it is done, what it does, and whom it does not disturb."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked
from tests.storage.opening import opened
from tests.storage.test_damage import KEY, OTHER, keep
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.database import FILE_NAME, Database
from upbit_backbone.storage.figures import StoreFigures, read_figures
from upbit_backbone.storage.maintenance import Maintenance
from upbit_backbone.storage.maintenance_plan import (
    AGAIN_S,
    FREE_PAGES,
    IDLE_S,
    LOG_BYTES,
    PATIENCE_S,
    Job,
    MaintenancePlan,
)
from upbit_backbone.storage.retention import RetentionPolicy
from upbit_backbone.storage.sql import Sql

NOW_MS = AUTUMN_2025_MS
DONE_TODAY = {"check": NOW_MS, "analyze": NOW_MS, "retain": NOW_MS}


def figures(
    *,
    pages: int = 10_000,
    free_pages: int = 0,
    gives_back: bool = True,
    log_bytes: int = 0,
    done_ms: dict[str, int] | None = None,
    damaged: bool = False,
) -> StoreFigures:
    return StoreFigures(
        schema=3,
        file_bytes=pages * 4096,
        log_bytes=log_bytes,
        page_bytes=4096,
        pages=pages,
        free_pages=free_pages,
        gives_back=gives_back,
        series=1,
        rows=1,
        blocks=0,
        rows_in_blocks=0,
        spans=1,
        unknown_spans=0,
        done_ms=DONE_TODAY if done_ms is None else done_ms,
        damaged=damaged,
    )


def plan(policy: RetentionPolicy | None = None) -> MaintenancePlan:
    return MaintenancePlan(policy or RetentionPolicy(), now_s=0.0)


# The plan.


@pytest.mark.parametrize(
    ("found", "policy", "job"),
    [
        (figures(), RetentionPolicy(), None),
        (figures(done_ms={}), RetentionPolicy(), "analyze"),
        (figures(done_ms=DONE_TODAY | {"check": NOW_MS - DAY_MS}), RetentionPolicy(), "check"),
        (figures(done_ms=DONE_TODAY | {"check": NOW_MS - DAY_MS + 1}), RetentionPolicy(), None),
        # The clock was set back.
        (figures(done_ms=DONE_TODAY | {"check": NOW_MS + 1}), RetentionPolicy(), "check"),
        (figures(damaged=True, done_ms=DONE_TODAY | {"check": 0}), RetentionPolicy(), None),
        (figures(free_pages=FREE_PAGES), RetentionPolicy(), "shrink"),
        (figures(free_pages=FREE_PAGES, gives_back=False), RetentionPolicy(), None),
        (figures(free_pages=FREE_PAGES - 1), RetentionPolicy(), None),
        (figures(free_pages=FREE_PAGES, pages=100_000), RetentionPolicy(), None),
        (figures(log_bytes=LOG_BYTES), RetentionPolicy(), "log"),
        (figures(), RetentionPolicy(limit_bytes=10_000 * 4096), None),
        (figures(), RetentionPolicy(limit_bytes=10_000 * 4096 - 1), "retain"),
        # Free pages do not count.
        (figures(free_pages=1_000), RetentionPolicy(limit_bytes=9_000 * 4096), None),
        (figures(done_ms=DONE_TODAY | {"retain": NOW_MS - HOUR_MS}), RetentionPolicy(7), "retain"),
        (figures(done_ms=DONE_TODAY | {"retain": NOW_MS - HOUR_MS}), RetentionPolicy(), None),
    ],
)
def test_what_is_due_follows_from_figures_and_the_last_runs(
    found: StoreFigures, policy: RetentionPolicy, job: Job | None
) -> None:
    assert plan(policy).due(found, NOW_MS, 0.0) == job


def test_a_job_that_failed_is_not_tried_again_for_an_hour_and_others_are() -> None:
    decided = plan()
    found = figures(done_ms={})
    decided.failed("analyze", 5.0)
    assert decided.due(found, NOW_MS, 5.0) == "check"
    assert decided.due(found, NOW_MS, 5.0 + AGAIN_S) == "analyze"


@given(uses=st.lists(st.floats(0.01, 2 * IDLE_S), max_size=30))
def test_a_turn_begins_only_when_nobody_used_the_file_for_a_while(uses: list[float]) -> None:
    decided = plan()
    now_s = last_s = 0.0
    for works, gap_s in enumerate(uses, 1):
        now_s += gap_s
        begins = decided.begins(now_s)
        assert begins == (now_s - last_s >= IDLE_S)
        assert not (begins and decided.gives_way())
        now_s += 0.5
        decided.saw(works, now_s)
        last_s = now_s
        # Whoever comes while a turn lasts ends it.
        if begins:
            assert decided.gives_way()


def test_a_file_that_is_always_in_use_gets_a_turn_an_hour_that_nobody_ends() -> None:
    decided = plan()
    turns = []
    for second in range(1, 3 * int(PATIENCE_S)):
        decided.saw(second, float(second))
        if decided.begins(float(second)):
            turns.append(second)
            decided.saw(-second, second + 0.5)
            assert not decided.gives_way()
    assert turns == [PATIENCE_S, 2 * PATIENCE_S]


# The doing.


class Kept:
    """A file that is looked after, by a clock that stands."""

    def __init__(self, folder: Path, policy: RetentionPolicy | None = None) -> None:
        self.clock = ManualClock(NOW_MS)
        self.database = Database(folder, Origin("test"))
        self.spared: set[SeriesKey] = set()
        self.told: list[tuple[SeriesKey, int]] = []
        self.work = Maintenance(
            self.database,
            clock=self.clock,
            policy=policy or RetentionPolicy(),
            spared=self._spared,
            removed=lambda key, end_ms: self.told.append((key, end_ms)),
            look_every_s=0.002,
        )

    def _spared(self) -> Collection[SeriesKey]:
        return self.spared

    async def figures(self) -> StoreFigures:
        return await self.database.inspect(partial(read_figures, files=self.database.files))

    async def a_turn(self) -> None:
        """Let everybody be idle, and wait until all is done that is due."""
        await self.work._look()
        jobs = -1
        while jobs != self.work.jobs_done:
            jobs = self.work.jobs_done
            self.clock.advance(2 * IDLE_S)
            await self.work._look()


@asynccontextmanager
async def looked_after(folder: Path, policy: RetentionPolicy | None = None) -> AsyncIterator[Kept]:
    kept = Kept(folder, policy)
    await kept.database.open()
    try:
        yield kept
    finally:
        await kept.work.finish()
        await kept.database.close()


def idle(clock: ManualClock) -> bool:
    """Let some time pass in which nobody uses the store."""
    clock.advance(1)
    return True


def throw_away(sql: Sql) -> None:
    sql.execute(f"DELETE FROM {OTHER.table}")
    sql.execute("DELETE FROM blocks")


async def test_each_job_is_done_once_a_day_also_after_a_restart(tmp_path: Path) -> None:
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        assert kept.work.figures is None
        await kept.a_turn()
        assert kept.work.jobs_done == 2
        assert (await kept.figures()).done_ms.keys() == {"analyze", "check"}
        await kept.a_turn()
        assert kept.work.jobs_done == 2
        counters = kept.work.counters()
        assert counters["last_check_ms"] >= NOW_MS
        assert counters["stored_candles"] == 5_000
    async with looked_after(tmp_path) as kept:
        kept.clock.advance(3_600)
        await kept.a_turn()
        assert kept.work.jobs_done == 0
        kept.clock.advance(86_400)
        await kept.a_turn()
        assert kept.work.jobs_done == 2


async def test_statistics_are_gathered_of_tables_that_have_several_ways_to_be_read(
    tmp_path: Path,
) -> None:
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        await kept.a_turn()
        found = await kept.database.read(
            lambda sql: {table for (table,) in sql.execute("SELECT tbl FROM sqlite_stat1")}
        )
    assert found == {"blocks", "coverage", "series"}


async def test_free_pages_are_given_back_and_the_candles_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.maintenance_plan.FREE_PAGES", 50)
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        await kept.database.write(partial(keep, key=OTHER))
        await kept.database.write(throw_away)
        before = await kept.figures()
        assert before.free_pages > 60
        await kept.a_turn()
        after = await kept.figures()
        assert after.free_pages < 10
        assert after.pages <= before.pages - before.free_pages + 20
        assert kept.work.freed_pages >= before.free_pages
        assert after.rows == before.rows == 5_000
        await kept.work._empty_log()
        assert (await kept.figures()).file_bytes < before.pages * before.page_bytes
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_the_log_is_emptied_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.maintenance_plan.LOG_BYTES", 100_000)
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        assert (await kept.figures()).log_bytes > 100_000
        await kept.a_turn()
        assert (await kept.figures()).log_bytes < 100_000


async def test_a_log_that_somebody_reads_from_is_left_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.maintenance_plan.LOG_BYTES", 1)
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM meta").fetchone()
            async with asyncio.timeout(4):
                await kept.a_turn()
            assert (await kept.figures()).log_bytes > 1


async def test_whoever_uses_the_file_ends_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.maintenance_plan.FREE_PAGES", 50)
    monkeypatch.setattr("upbit_backbone.storage.maintenance.STEP_PAGES", 1)
    monkeypatch.setattr("upbit_backbone.storage.maintenance.MOST_PAGES", 1)
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        await kept.database.write(partial(keep, key=OTHER))
        await kept.database.write(throw_away)
        await kept.work._look()
        kept.clock.advance(IDLE_S)
        turn = asyncio.create_task(kept.work._look())
        await eventually(lambda: kept.work.freed_pages >= 3)
        kept.clock.advance(0.001)
        await kept.database.read(lambda sql: None)
        async with asyncio.timeout(5):
            await turn
        given = kept.work.freed_pages
        assert given < 50
        # It goes on from there when everybody is idle again.
        await kept.a_turn()
        assert kept.work.freed_pages > given
        assert (await kept.figures()).free_pages < 10


async def test_a_check_does_not_hold_writes_up_and_ends_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_ever(sql: Sql) -> str:
        sql.execute(
            "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter)"
            " SELECT count(*) FROM counter"
        ).fetchall()
        return ""

    monkeypatch.setattr("upbit_backbone.storage.maintenance.look_for_damage", for_ever)
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        await kept.work._look()
        kept.clock.advance(IDLE_S)
        running = asyncio.create_task(kept.work.run())
        await eventually(lambda: kept.work.jobs_done == 1)
        async with asyncio.timeout(2):
            await kept.database.write(partial(keep, key=OTHER))
            assert await kept.database.read(lambda sql: sql.execute("SELECT 1").fetchone()) == (1,)
        running.cancel()
        async with asyncio.timeout(2):
            await asyncio.wait([running])
    # The file could be closed at once.


async def test_damage_is_told_in_status_and_mended_by_the_next_opening(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(NOW_MS)
    opens = [NOW_MS - n * MINUTE_MS for n in range(1, 4_000)]
    source = FakeExchangeSource(clock, opens)
    async with opened(tmp_path, source, clock) as storage:
        for end in range(0, 4_000, 200):
            await storage.fetch(asked(end_ms=NOW_MS - end * MINUTE_MS, count=200))
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as sql:
        ((root,),) = sql.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'candles_KRW_BTC_1m'"
        )
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    async with opened(tmp_path, source, clock) as storage:
        await eventually(lambda: idle(clock) and storage.status().health == "degraded")
        assert "was found damaged" in storage.status().reason
        assert caplog.text.count("was found damaged") == 1
    async with opened(tmp_path, source, clock) as storage:
        await eventually(
            lambda: idle(clock) and storage.status().counters.get("last_check_ms", 0) > 0
        )
        assert storage.status().health == "healthy"
        assert "set-aside-1" in caplog.text


async def test_figures_are_told_in_status(tmp_path: Path) -> None:
    clock = ManualClock(NOW_MS)
    source = FakeExchangeSource(clock, [NOW_MS - n * MINUTE_MS for n in range(1, 300)])
    async with opened(tmp_path, source, clock) as storage:
        await storage.fetch(asked(end_ms=NOW_MS, count=200))
        await eventually(
            lambda: idle(clock) and storage.status().counters.get("stored_candles") == 199
        )
        counters = storage.status().counters
        assert counters["stored_series"] == 1
        assert counters["file_bytes"] == (tmp_path / FILE_NAME).stat().st_size
        found = storage.figures
        assert found is not None
        assert found.rows == 199


async def test_which_series_were_used_outlives_a_restart(tmp_path: Path) -> None:
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        await kept.database.write(partial(keep, key=OTHER))
        kept.work.used(OTHER)
        kept.work.used(SeriesKey("KRW-NONE", KEY.timeframe))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
        assert sql.execute("SELECT symbol, used_ms FROM usage").fetchall() == [("KRW-XRP", NOW_MS)]


async def test_a_file_that_cannot_be_looked_after_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.BUSY_MS", 20)
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        running = asyncio.create_task(kept.work.run())
        try:
            await eventually(lambda: kept.work.figures)
            with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                kept.clock.advance(IDLE_S)
                await asyncio.sleep(0.1)
                assert not (await kept.figures()).done_ms
                other.execute("ROLLBACK")
            kept.clock.advance(AGAIN_S)
            await eventually(lambda: kept.work.jobs_done == 2)
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_an_unexpected_error_does_not_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)

        def fails(*_: object, **__: object) -> None:
            raise OSError(errno.ESTALE, "Stale file handle")

        running = asyncio.create_task(kept.work.run())
        try:
            with monkeypatch.context() as patch:
                patch.setattr("upbit_backbone.storage.maintenance.read_figures", fails)
                await eventually(lambda: kept.work.fault)
                await asyncio.sleep(0.02)
            await eventually(lambda: kept.work.figures and not kept.work.fault)
            assert not kept.work.damage
        finally:
            running.cancel()
            await asyncio.wait([running])
    assert caplog.text.count("could not be looked after") == 1


async def test_only_damage_is_told_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        errors: list[Exception] = [
            sqlite3.IntegrityError("datatype mismatch"),
            sqlite3.DatabaseError("Could not decode to UTF-8 column 'symbol'"),
        ]
        met = 0

        def fails(*_: object, **__: object) -> None:
            nonlocal met
            met += 1
            raise errors[0]

        monkeypatch.setattr("upbit_backbone.storage.maintenance.read_figures", fails)
        running = asyncio.create_task(kept.work.run())
        try:
            await eventually(lambda: met > 2)
            assert not kept.work.damage
            errors.pop(0)
            await eventually(lambda: kept.work.damage)
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_which_series_were_used_is_noted_at_the_end_without_waiting(tmp_path: Path) -> None:
    go_on = threading.Event()
    async with looked_after(tmp_path) as kept:
        await kept.database.write(keep)
        busy = kept.database.enqueue(lambda sql: go_on.wait(10))
        kept.work.used(KEY)
        async with asyncio.timeout(5):
            await kept.work.finish()
        assert not busy.done()
        go_on.set()
        await busy
        await kept.database.close()
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as sql:
            assert sql.execute("SELECT symbol FROM usage").fetchall() == [(KEY.symbol,)]
        # Somebody has looked at memory since.
        kept.work.used(KEY)
        await kept.work.finish()


def test_nothing_is_left_in_the_folder_but_the_file_and_its_lock() -> None:
    async def look(folder: Path) -> None:
        async with looked_after(folder) as kept:
            await kept.database.write(keep)
            await kept.a_turn()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(look(Path(name)))
        assert {path.name for path in Path(name).iterdir()} == {FILE_NAME, f"{FILE_NAME}.lock"}
