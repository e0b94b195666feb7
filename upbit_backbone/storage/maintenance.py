"""Looking after the file while nobody uses it, in steps so short that no write waits for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

from upbit_backbone.clock import Clock
from upbit_backbone.errors import ClosedError, StorageCorruptError, StorageError
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.figures import StoreFigures, note_run, read_figures
from upbit_backbone.storage.maintenance_plan import Job, MaintenancePlan
from upbit_backbone.storage.retention import (
    RetentionPolicy,
    Stretch,
    least_used,
    note_use,
    outdated,
    remove,
)
from upbit_backbone.storage.sql import Sql, Work, is_damage
from upbit_backbone.storage.write_ahead_log import cut_off

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LOOK_EVERY_S = 1.0
MEASURE_EVERY_S = 60.0
NOTE_USE_EVERY_S = 3_600.0
"""Seldom: each write has other programs read anew what they hold in memory."""
STEP_S = 0.01
"""How long a step should hold writes up."""
STEP_PAGES = 16
MOST_PAGES = 128
"""In one step: to commit them takes as long as to move them."""
STEPS_PER_LOG = 4
"""So many steps fill less of the log than what a write would move into the file at once."""
ANALYZED_ROWS = 400
"""Of an index, at most, to guess at the rest."""
ANALYZED = ("blocks", "coverage", "series")
"""Tables of candles have one key and no other way to be read."""


class Maintenance:
    """One task that looks what is due, and does it when nobody is in its way."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        policy: RetentionPolicy,
        spared: Callable[[], Collection[SeriesKey]],
        removed: Callable[[SeriesKey, int], None],
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Take the file and its rules.

        Args:
            database: The open file.
            clock: The exchange's time.
            policy: What may be stored.
            spared: Series whose candles do not go for their size: shown and pinned ones.
            removed: Called on the loop when candles of a series below an open time are gone.
            look_every_s: How often to look whether something is due.
        """
        self._database = database
        self._clock = clock
        self._policy = policy
        self._spared = spared
        self._removed = removed
        self._look_every_s = look_every_s
        self._plan = MaintenancePlan(policy, now_s=clock.monotonic())
        self._own_works = 0
        self._steps = 0
        self._used: set[SeriesKey] = set()
        self._measured_s: float | None = None
        self._measured_works = -1
        self._noted_s = clock.monotonic()
        self._over_limit = False
        self.figures: StoreFigures | None = None
        """As measured last; None before the first time."""
        self.damage = ""
        """What the last check found, in a sentence; empty while the file is whole."""
        self.fault: Exception | None = None
        """An unexpected error; None again once the file could be looked after."""
        self.removed_candles = 0
        self.freed_pages = 0
        self.jobs_done = 0

    def used(self, key: SeriesKey) -> None:
        """Somebody asked for a series."""
        self._used.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._look_every_s)
            try:
                await self._look()
                self.fault = None
            except StorageError as error:
                if isinstance(error, StorageCorruptError) and is_damage(error.__cause__ or error):
                    self._tell_damage(str(error))
                else:
                    logger.debug("the store could not be looked after: %s", error)
            except Exception as error:
                if self.fault is None:
                    logger.exception("the store could not be looked after")
                self.fault = error

    async def finish(self) -> None:
        """Keep what would be lost at the end: which series were used. Waits for nobody."""
        used, self._used = self._used, set()
        if used:
            work = partial(note_use, used=used, now_ms=self._clock.now_ms())
            try:
                # The file waits for it when it is closed.
                _ = self._database.enqueue(work)
            except (StorageError, ClosedError) as error:
                logger.debug("which series were used is not kept: %s", error)

    def counters(self) -> dict[str, float]:
        """Figures for the layer's status."""
        counted = {
            "maintenance_jobs": float(self.jobs_done),
            "removed_candles": float(self.removed_candles),
            "freed_pages": float(self.freed_pages),
            "over_size_limit": float(self._over_limit),
        }
        if self.figures is not None:
            counted |= {
                "file_bytes": float(self.figures.file_bytes),
                "log_bytes": float(self.figures.log_bytes),
                "free_page_share": self.figures.free_share,
                "stored_series": float(self.figures.series),
                "stored_candles": float(self.figures.rows),
                "stored_blocks": float(self.figures.blocks),
                "last_check_ms": float(self.figures.done_ms.get("check", 0)),
            }
        return counted

    async def _look(self) -> None:
        if self.damage:
            return
        now_s = self._clock.monotonic()
        self._plan.saw(self._works, now_s)
        if self._plan.begins(now_s):
            await self._do_what_is_due()
        elif self._measured_s is None or now_s - self._measured_s >= MEASURE_EVERY_S:
            await self._measure()

    async def _do_what_is_due(self) -> None:
        await self._measure()
        while self.figures is not None:
            now_s, before = self._clock.monotonic(), self.figures
            job = self._plan.due(before, self._clock.now_ms(), now_s)
            if job is None:
                return
            try:
                await self._do(job, before)
            except Exception:
                self._plan.failed(job, now_s)
                raise
            if self._gives_way():
                return
            self.jobs_done += 1
            await self._measure(anew=True)
            if self._plan.due(self.figures, self._clock.now_ms(), now_s) == job:
                # It cannot be helped now: all is shown or pinned, or others read for long.
                self._plan.failed(job, now_s)

    async def _do(self, job: Job, figures: StoreFigures) -> None:
        match job:
            case "retain":
                await self._retain(figures.used_bytes)
            case "shrink":
                await self._shrink()
            case "log":
                await self._empty_log()
            case "analyze":
                await self._analyze()
            case "check":
                await self._check()

    async def _measure(self, *, anew: bool = False) -> None:
        """Bring the figures up to date, where anything may have changed."""
        now_s = self._clock.monotonic()
        if self._used and now_s - self._noted_s >= NOTE_USE_EVERY_S:
            await self._note_use()
        works = self._works
        if not anew and works == self._measured_works:
            return
        self.figures = await self._database.inspect(
            partial(read_figures, files=self._database.files)
        )
        self._measured_s, self._measured_works = now_s, works

    # The jobs: each can be broken off after any step, and goes on from there.

    async def _retain(self, used_bytes: int) -> None:
        """Remove, block by block, what the policy does not keep."""
        rows, keys = 0, set()
        making_room = self._policy.exceeded(used_bytes)
        while True:
            making_room = making_room and not self._policy.roomy(used_bytes)
            stretch = await self._to_remove(making_room)
            if stretch is None or self._gives_way():
                break
            removed = await self._write(
                partial(remove, stretch=stretch), then=partial(self._removed, *stretch)
            )
            used_bytes = removed.used_bytes
            rows += removed.rows
            keys.add(stretch.key)
            self.removed_candles += removed.rows
            await self._pause()
        if rows:
            logger.info(
                "%d candles of %d series were removed, as the settings say", rows, len(keys)
            )
        if stretch is None:
            self._tell_limit(over=self._policy.exceeded(used_bytes), used_bytes=used_bytes)
            await self._done("retain")

    async def _to_remove(self, making_room: bool) -> Stretch | None:
        oldest_ms = self._policy.oldest_second_ms(self._clock.now_ms())
        if oldest_ms is not None:
            stretch = await self._read(partial(outdated, oldest_ms=oldest_ms))
            if stretch is not None:
                return stretch
        if not making_room:
            return None
        await self._note_use()
        return await self._read(partial(least_used, spared=self._spared()))

    def _tell_limit(self, *, over: bool, used_bytes: int) -> None:
        if over and not self._over_limit:
            logger.warning(
                "%s holds %d MB, more than the storage limit, and all of it is shown or pinned",
                self._database.path,
                used_bytes >> 20,
            )
        self._over_limit = over

    async def _shrink(self) -> None:
        """Give free pages back, as many at once as take a hundredth of a second."""
        while not self._gives_way():
            given = await self._database.tend(self._give_back)
            self.freed_pages += given
            if given < STEP_PAGES:
                return
            await self._pause()

    def _give_back(self, sql: Sql) -> int:
        began_s = self._clock.monotonic()
        given = 0
        sql.execute("BEGIN IMMEDIATE")
        try:
            ((free,),) = sql.execute("PRAGMA freelist_count")
            while given < min(free, MOST_PAGES):
                # The driver ends this statement after its first page, whatever number it names.
                for _ in range(STEP_PAGES):
                    sql.execute("PRAGMA incremental_vacuum(1)")
                given += STEP_PAGES
                if self._clock.monotonic() - began_s >= STEP_S:
                    break
            sql.execute("COMMIT")
        except BaseException:
            sql.roll_back()
            raise
        return min(given, int(free))

    async def _empty_log(self) -> None:
        """Move the log into the file while others go on, then cut it off."""
        await self._move_log()
        # Unless somebody reads from it: nobody waits for that here.
        await self._database.tend(cut_off)

    async def _analyze(self) -> None:
        for table in ANALYZED:
            await self._database.tend(partial(_analyze, table=table))
            await self._pause()
        await self._done("analyze")

    async def _check(self) -> None:
        """Look for damage; what is found is mended when a program opens the file next."""
        found = await self._database.inspect(look_for_damage)
        if found:
            self._tell_damage(found)
        else:
            await self._done("check")

    def _tell_damage(self, found: str) -> None:
        self.damage = (
            f"{self._database.path} was found damaged ({found}): it is mended when the program"
            " starts next, and what cannot be read is asked again"
        )
        logger.warning("%s", self.damage)

    async def _done(self, job: Job) -> None:
        now_ms = self._clock.now_ms()
        await self._write(partial(note_run, job=job, now_ms=now_ms))

    async def _note_use(self) -> None:
        used, self._used = self._used, set()
        self._noted_s = self._clock.monotonic()
        if used:
            await self._write(partial(note_use, used=used, now_ms=self._clock.now_ms()))

    # The file; what is done here does not count as its use.

    @property
    def _works(self) -> int:
        return self._database.works - self._own_works

    def _gives_way(self) -> bool:
        self._plan.saw(self._works, self._clock.monotonic())
        return self._plan.gives_way()

    async def _read(self, work: Work[Result]) -> Result:
        self._own_works += 1
        return await self._database.read(work)

    async def _write(self, work: Work[Result], then: Callable[[], None] | None = None) -> Result:
        self._own_works += 1
        return await self._database.write(work, then=then)

    async def _pause(self) -> None:
        """Let those go first who wait for the writer."""
        self._steps += 1
        if self._steps % STEPS_PER_LOG == 0:
            await self._move_log()
        await asyncio.sleep(STEP_S)

    async def _move_log(self) -> None:
        """Move the log into the file while writes go on; else one of them would have to do it."""
        await self._database.inspect(
            lambda sql: sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall(),
            at_one_moment=False,
        )


def look_for_damage(sql: Sql) -> str:
    """What SQLite finds wrong with its pages and indexes; empty when all is well."""
    ((first,), *_) = sql.execute("PRAGMA quick_check(1)").fetchall()
    if first == "ok":
        return ""
    sql.met_damage = True
    return " ".join(str(first).split())


def _analyze(sql: Sql, table: str) -> None:
    sql.execute(f"PRAGMA analysis_limit = {ANALYZED_ROWS}")
    sql.execute(f"ANALYZE {table}")
