"""What streams prove goes to the file together: many series close a candle in one moment.

One piece of work a series would cost more in waiting and telling than in writing. All that comes
within a moment goes into one transaction, in pieces of some series: each piece is told of in a turn
of the loop of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from upbit_backbone.clock import epoch_ms
from upbit_backbone.errors import ClosedError, StorageError, StorageUnavailableError
from upbit_backbone.models import Candle, CandleSeries
from upbit_backbone.storage.candle_tables import Row, SeriesKey
from upbit_backbone.storage.coverage import Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import (
    Outdated,
    forget_built,
    write_closing,
    write_live,
)
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.file_health import FileHealth
from upbit_backbone.storage.live_candles import (
    MAX_UNWRITTEN,
    LiveProof,
    LiveSeries,
    series_of,
)
from upbit_backbone.storage.sql import Sql
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

GATHER_S = 0.05
"""Candles of one minute close within about so long; one transaction for all costs the least."""
AGAIN_S = 5.0
"""What could not be written is tried again after so long, and with it what came since."""
NOT_STORED = "the file could not be written for too long"
TOGETHER = 16
"""Series in one piece of work: what follows its commit takes a millisecond of the loop."""


class LiveWrite:
    """What one stream proved, on its way into the file."""

    __slots__ = ("closing", "committed", "live", "outdated", "proof", "stored", "taken")

    def __init__(self, live: LiveSeries, proof: LiveProof) -> None:
        self.live = live
        self.proof = proof
        self.closing = _closing(live, proof)
        """The one candle that closed, where nothing else is to be said; None: there is more."""
        self.taken: CandleSeries | None = None
        """Candles that were stored, once they are; None: the one that closed, just so."""
        self.stored = 0
        """How many candles were stored."""
        self.outdated: tuple[Outdated, ...] = ()
        """Larger candles that were built of others than these."""
        self.committed = False

    def write(self, sql: Sql) -> None:
        """Runs inside a transaction."""
        key, proof = self.live.key, self.proof
        if self.closing is not None and write_closing(sql, key, self.closing, proof.spans[0]):
            self.taken, self.stored = None, 1
            return
        rows = series_of(self.live.empty, proof.candles).labelled("storage")
        self.taken = write_live(sql, key, rows, proof.spans, over_all=proof.over_all)
        self.stored = len(self.taken)
        # A candle where there was said to be none changes larger ones as well as a late trade.
        self.outdated = forget_built(sql, key, self.taken.time.tolist())


def _closing(live: LiveSeries, proof: LiveProof) -> Row | None:
    if proof.over_all or len(proof.candles) != 1 or len(proof.spans) != 1:
        return None
    ((candle,), (span,)) = proof.candles, proof.spans
    at_ms = epoch_ms(candle.open_time)
    if (at_ms, live.key.timeframe.next_ms(at_ms)) != (span.start_ms, span.end_ms):
        return None
    return _row(at_ms, candle)


def _row(at_ms: int, candle: Candle) -> Row:
    prices = (candle.open, candle.high, candle.low, candle.close)
    return (at_ms, *prices, candle.volume, candle.value)


class LiveWrites:
    """Gathers what is to be written, and writes what is of one series in its order.

    What cannot be written is kept, 200 candles a series at most, and tried again; a series of
    which older ones are given up is whole only from there on, so that they are asked for.
    """

    def __init__(
        self,
        database: Database,
        *,
        health: FileHealth,
        committed: Callable[[Sequence[LiveWrite]], None],
    ) -> None:
        """Take the file.

        Args:
            database: Where to write.
            health: Told when writing fails.
            committed: Called on the loop, in the order of the commits.
        """
        self._database = database
        self._health = health
        self._committed = committed
        self._gathered: list[LiveWrite] = []
        self._under_way: list[LiveWrite] = []
        self._tasks = TaskOwner()
        self._writing = False
        self.fault: Exception | None = None
        """The last unexpected error; the work goes on."""

    def add(self, live: LiveSeries, proof: LiveProof) -> None:
        """Have it written; never waits."""
        self._gathered.append(LiveWrite(live, proof))
        if not self._writing:
            self._writing = True
            self._tasks.spawn(self._write_all(), name="live candles to the file")

    def losses(self) -> dict[SeriesKey, list[KnownSpan]]:
        """What streams took back and the file still calls proved, of each series in its order."""
        found: dict[SeriesKey, list[KnownSpan]] = {}
        for write in (*self._under_way, *self._gathered):
            if not write.committed and (lost := _losses(write)):
                found.setdefault(write.live.key, []).extend(lost)
        return found

    async def close(self) -> None:
        """Hand over to the writer what is gathered: it is finished when the file is closed."""
        for piece in self._pieces():
            # The file waits for it when it is closed, this does not.
            _ = self._enqueue(piece)
        await self._tasks.close()

    async def _write_all(self) -> None:
        pause_s = GATHER_S
        try:
            while self._gathered:
                await asyncio.sleep(pause_s)
                pieces = [(piece, self._enqueue(piece)) for piece in self._pieces()]
                left = [one for each in pieces for one in await self._left_of(*each)]
                # What a series proves later may take back what it proved before: so it waits.
                self._gathered[:0] = [one for writes in _by_series(left) for one in _fewer(writes)]
                self._under_way = []
                pause_s = AGAIN_S if left else GATHER_S
        except ClosedError:
            logger.debug("the store was closed before the last live candles were written")
        finally:
            self._writing = False

    def _pieces(self) -> list[list[LiveWrite]]:
        """All that is gathered; what is of one series lies in one piece, in its order."""
        pieces: list[list[LiveWrite]] = []
        for writes in _by_series(self._gathered):
            if not pieces or len(pieces[-1]) >= TOGETHER:
                pieces.append([])
            pieces[-1] += writes
        self._under_way, self._gathered = self._gathered, []
        return pieces

    def _enqueue(self, piece: list[LiveWrite]) -> asyncio.Future[None]:
        def work(sql: Sql) -> None:
            for write in piece:
                write.write(sql)

        try:
            return self._database.enqueue(work, then=partial(self._have_committed, piece))
        except StorageUnavailableError as error:
            # As if it had been tried: what is gathered stays.
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            # Nobody may ask, when it is closed.
            failed.exception()
            return failed

    def _have_committed(self, piece: list[LiveWrite]) -> None:
        for write in piece:
            write.committed = True
        self._committed(piece)

    async def _left_of(self, piece: list[LiveWrite], done: asyncio.Future[None]) -> list[LiveWrite]:
        """Wait for a piece; returns what of it is to be written later."""
        try:
            await asyncio.shield(done)
        except StorageUnavailableError as error:
            self._health.failed("stored", error)
            return piece
        except ClosedError:
            raise
        except Exception as error:  # noqa: BLE001 - told once, in `_cannot_store`
            parts = _by_series(piece)
            if len(parts) > 1:
                # One series that cannot be stored must not take the others with it.
                tried = [(part, self._enqueue(part)) for part in parts]
                return [one for each in tried for one in await self._left_of(*each)]
            self._cannot_store(error)
            for write in piece:
                write.live.lost(max((span.end_ms for span in write.proof.spans), default=0))
            # What was taken back must not stay proved in the file.
            return [
                LiveWrite(write.live, LiveProof((), tuple(lost)))
                for write in piece
                if (lost := _losses(write))
            ]
        self._health.works()
        return []

    def _cannot_store(self, error: Exception) -> None:
        if isinstance(error, StorageError):
            self._health.failed("stored", error)
            return
        if type(error) is not type(self.fault):
            logger.error("live candles met an unexpected error", exc_info=error)
        self.fault = error


def _losses(write: LiveWrite) -> list[KnownSpan]:
    return [span for span in write.proof.spans if not span.proved]


def _by_series(writes: list[LiveWrite]) -> list[list[LiveWrite]]:
    found: dict[SeriesKey, list[LiveWrite]] = {}
    for write in writes:
        found.setdefault(write.live.key, []).append(write)
    return list(found.values())


def _fewer(writes: list[LiveWrite]) -> list[LiveWrite]:
    """The same of one series in fewer writes, but for what is too old to be kept."""
    fewer: list[LiveWrite] = []
    for write in writes:
        last = fewer[-1] if fewer else None
        revises = write.proof.over_all or (last is not None and last.proof.over_all)
        if last is None or revises or last.live is not write.live:
            fewer.append(write)
        else:
            fewer[-1] = LiveWrite(write.live, _bounded(last.proof, write.proof))
    for write in fewer[:-MAX_UNWRITTEN]:
        write.live.lost(max((span.end_ms for span in write.proof.spans), default=0))
    return fewer[-MAX_UNWRITTEN:]


def _bounded(proof: LiveProof, later: LiveProof) -> LiveProof:
    """Both in one; of too many candles the oldest are given up, and that is said of them.

    Their series knows: it keeps as many, and is whole from there on only.
    """
    held = {one.open_time: one for one in (*proof.candles, *later.candles)}
    candles = [held[at] for at in sorted(held)]
    known = Coverage((*proof.spans, *later.spans))
    if len(candles) > MAX_UNWRITTEN:
        candles = candles[-MAX_UNWRITTEN:]
        first, low_ms = next(iter(known)), epoch_ms(candles[0].open_time)
        known.put(first._replace(end_ms=low_ms, state="unknown", reason=NOT_STORED))
    return LiveProof(tuple(candles), tuple(known))
