"""The self-audit: once a day some stored candles, drawn at random, are read again.

Nothing proved is asked again but here: a proof that is never looked at is a belief. What differs
is read once more a minute later, and only what both readings say is stored; so one answer gone
wrong changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from random import Random
from typing import NamedTuple

import msgspec

from upbit_backbone.candle_checks import check_page
from upbit_backbone.clock import DAY_MS, MINUTE_MS, Clock, utc_datetime
from upbit_backbone.errors import BackboneError, UnknownSymbolError
from upbit_backbone.models import CandleSeries
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    BackboneRequest,
    BackboneResponse,
    DataType,
    Priority,
    SelfAudit,
)
from upbit_backbone.storage.audit_table import (
    AuditPage,
    AuditState,
    Repair,
    compared_range,
    draw_page,
    read_state,
    write_repair,
    write_state,
)
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.comparison import Comparison, compare
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.page_proof import AGREES_AFTER_MS
from upbit_backbone.storage.sql import Sql

logger = logging.getLogger(__name__)

EVERY_MS = DAY_MS
PAGES = 5
"""A thousand candles a day: one wrong candle of a hundred is met nearly surely, and a user's
budget of requests does not notice."""
AGAIN_MS = 10 * MINUTE_MS
"""A page that could not be read is not tried again before."""


def first_state(now_ms: int) -> AuditState:
    """Of a file that was never audited: what is in it was read lately."""
    return AuditState(now_ms + EVERY_MS)


def is_due(state: AuditState, now_ms: int) -> bool:
    """Whether a page is to be read."""
    return state.pages_left > 0 or not _is_of_today(state, now_ms)


def with_next_page(state: AuditState, now_ms: int) -> AuditState:
    """The state once the page that is due has been read; a new audit begins with its first."""
    if state.pages_left and _is_of_today(state, now_ms):
        return msgspec.structs.replace(state, pages_left=state.pages_left - 1)
    return AuditState(now_ms + EVERY_MS, PAGES - 1, SelfAudit(utc_datetime(now_ms)))


def _is_of_today(state: AuditState, now_ms: int) -> bool:
    # A time that a wrong clock has left far ahead does not hold.
    return state.next_ms - EVERY_MS <= now_ms < state.next_ms


class _Doubt(NamedTuple):
    """A page whose answer differed from what is stored."""

    page: AuditPage
    read: CandleSeries
    not_before_ms: int


class Auditor:
    """Reads the pages of the audit, one a call, and has repaired what both readings say."""

    def __init__(
        self,
        database: Database,
        fetch: Callable[[BackboneRequest], Awaitable[BackboneResponse]],
        *,
        origin: Origin,
        clock: Clock,
        rng: Random,
        idle: Callable[[], bool],
        on_repair: Callable[[SeriesKey, Repair], None],
        on_unknown: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take what reads and writes.

        Args:
            database: The store's file.
            fetch: Asks the exchange for a page.
            origin: Labels the candles.
            clock: The exchange's time.
            rng: Chance: which candles are drawn.
            idle: Whether nobody else needs pages now.
            on_repair: Called on the loop when the findings of a page are committed.
            on_unknown: Awaited when the exchange does not know a symbol.
        """
        self._database = database
        self._fetch = fetch
        self._origin = origin
        self._clock = clock
        self._rng = rng
        self._idle = idle
        self._on_repair = on_repair
        self._on_unknown = on_unknown
        self._state: AuditState | None = None
        self._doubt: _Doubt | None = None
        self._not_before_ms = 0
        self._warned: datetime | None = None
        """When the audit began that has warned already."""

    @property
    def found(self) -> SelfAudit | None:
        """What the last audit has found, of the file's own memory; None: there was none yet."""
        return None if self._state is None else self._state.found

    async def start(self) -> None:
        """Learn when the last one was."""
        self._state = await self._database.read(read_state)

    async def next_page(self) -> bool:
        """Read the page that is due; False: none is, or somebody else is busy."""
        now_ms = self._clock.now_ms()
        if self._state is not None and not is_due(self._state, now_ms):
            return False
        if now_ms < self._not_before_ms or not self._idle():
            return False
        if self._doubt is not None and now_ms < self._doubt.not_before_ms:
            return False
        try:
            return await self._read_page(now_ms)
        except BackboneError as error:
            logger.info("a page of the self-audit was not read: %s", error)
            self._not_before_ms = now_ms + AGAIN_MS
            return False

    async def _read_page(self, now_ms: int) -> bool:
        # Another program may have done it meanwhile.
        self._state = await self._database.read(read_state)
        if self._state is None:
            self._state = first_state(now_ms)
            await self._database.write(partial(write_state, state=self._state))
        if not is_due(self._state, now_ms):
            return False
        state = with_next_page(self._state, now_ms)
        doubt, self._doubt = self._doubt, None
        page = await self._draw(state, now_ms) if doubt is None else doubt.page
        if page is None:
            state = msgspec.structs.replace(state, pages_left=0)
            await self._database.write(partial(write_state, state=state))
            self._state = state
            return False
        read, asked_ms = await self._ask(page)
        if not len(read.between(page.start_ms, page.end_ms)):
            logger.info("the exchange shows nothing where %s is stored: not judged", _told(page))
            await self._database.write(partial(write_state, state=state))
            self._state = state
            return True
        if doubt is None:
            if _differs(page, read):
                self._doubt = _Doubt(page, read, now_ms + AGREES_AFTER_MS)
                return False
        elif not _same(page, doubt.read, read):
            logger.info("two readings of %s differ: nothing of it is changed", _told(page))
            await self._database.write(partial(write_state, state=state))
            self._state = state
            return True
        await self._write(page, read, asked_ms, state)
        return True

    async def _draw(self, state: AuditState, now_ms: int) -> AuditPage | None:
        # A page's own chance: the thread that draws must not share it with the loop.
        rng = Random(self._rng.getrandbits(64))
        return await self._database.read(
            partial(
                draw_page,
                rng=rng,
                now_ms=now_ms,
                simulated=self._origin.simulated,
                imported=state.pages_left == PAGES - 1,
            )
        )

    async def _ask(self, page: AuditPage) -> tuple[CandleSeries, int]:
        asked_ms = self._clock.now_ms()
        request = BackboneRequest(
            DataType.CANDLE,
            (page.key.symbol,),
            page.key.timeframe,
            utc_datetime(page.start_ms),
            utc_datetime(page.end_ms),
            len(page.held),
            Priority.LOW,
        )
        try:
            response = await self._fetch(request)
        except UnknownSymbolError:
            await self._on_unknown(page.key.symbol)
            raise
        read: CandleSeries = response.data
        check_page(
            read,
            symbol=page.key.symbol,
            timeframe=page.key.timeframe,
            rows=len(page.held),
            end_ms=page.end_ms,
        )
        return read, asked_ms

    async def _write(
        self, page: AuditPage, read: CandleSeries, asked_ms: int, state: AuditState
    ) -> None:
        repair: Repair | None = None

        def work(sql: Sql) -> None:
            nonlocal repair
            repair = write_repair(sql, page, read, asked_ms=asked_ms, state=state)

        def committed() -> None:
            if repair is not None:
                self._state = repair.state
                self._on_repair(page.key, repair)
                self._tell(page, repair)

        await self._database.write(work, then=committed)

    def _tell(self, page: AuditPage, repair: Repair) -> None:
        found, comparison = repair.state.found, repair.comparison
        assert found is not None
        if comparison.differing:
            # A condition is told once: the first page of an audit that finds something warns.
            level = logging.INFO if self._warned == found.began else logging.WARNING
            self._warned = found.began
            logger.log(
                level,
                "the self-audit found stored candles of %s that are not the exchange's:"
                " %d restated, %d vanished, %d appeared, of %d; they were replaced, and the table"
                " audit_trail has them as they were",
                _told(page),
                len(comparison.restated),
                len(comparison.vanished),
                len(comparison.appeared),
                comparison.agreeing + len(comparison.differing),
            )
        if not repair.state.pages_left:
            logger.info(
                "self-audit: %d of %d candles are as the exchange has them",
                found.agreeing,
                found.compared,
            )


def _over(page: AuditPage, read: CandleSeries) -> Comparison:
    span = compared_range(page, read)
    return compare(page.held.between(*span), read.between(*span))


def _differs(page: AuditPage, read: CandleSeries) -> bool:
    return bool(_over(page, read).differing)


def _same(page: AuditPage, first: CandleSeries, second: CandleSeries) -> bool:
    """Whether two readings say the same of a page, or the second one what is stored."""
    if not _differs(page, second):
        return True
    span = compared_range(page, second)
    same_range = span == compared_range(page, first)
    return same_range and not compare(first.between(*span), second.between(*span)).differing


def _told(page: AuditPage) -> str:
    return (
        f"{page.key.symbol} {page.key.timeframe} from {utc_datetime(page.start_ms):%Y-%m-%d %H:%M}"
        f" to {utc_datetime(page.end_ms):%Y-%m-%d %H:%M} UTC"
    )
