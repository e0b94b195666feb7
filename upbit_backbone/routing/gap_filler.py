"""Reads back by REST what the stream lost, until nothing is missing."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    ProtocolError,
    RateLimitedError,
    UnknownSymbolError,
)
from upbit_backbone.models import Gap, GapState
from upbit_backbone.protocol import Priority
from upbit_backbone.reader import Reader
from upbit_backbone.routing.failover import Backoff
from upbit_backbone.routing.rest_channel import RestChannel
from upbit_backbone.routing.trade_history import walk_back
from upbit_backbone.routing.trade_stream import REST_LAG_MS, TradeGap, TradeStream
from upbit_backbone.tasks import TaskOwner

logger = logging.getLogger(__name__)

KEPT_GAPS = 1_000
HOLD_S = 2.0
"""Live trades wait so long for what was lost before them."""
READ_AGAIN_MS = 60_000
"""The second reading goes back so far: REST never lags by more."""
DISAGREEMENTS = 8
"""So often a history that lacks the last trade seen is read again before it is believed, and
one that is not understood before it is given up."""
UNREAD_LIMIT = 5_000
"""A reader with more to read than this is given time before the next page."""
LOOK_AGAIN_S = 0.05
LONGEST_ROOM_S = 10.0


class _Disagreement(Exception):
    """The history lacks trades that the stream told of."""


class GapFiller:
    """Fills the gaps of trade streams, each in a task of its own.

    A gap is read back from 5 s before the last trade seen, and once more 2 s later, because
    REST lags. What is read has to reach the last trade seen: an answer that does not is not
    believed. A gap is open until it is filled, or the exchange has no such trades any more.
    """

    def __init__(
        self,
        rest: RestChannel,
        tasks: TaskOwner,
        clock: Clock,
        rng: Random,
        on_gap: Callable[[Gap], None] = lambda gap: None,
    ) -> None:
        """Take what it works with; `on_gap` is told of each gap when it opens and when it ends."""
        self._rest = rest
        self._tasks = tasks
        self._clock = clock
        self._rng = rng
        self._on_gap = on_gap
        self._releases: dict[TradeGap, asyncio.TimerHandle] = {}
        """When the holding for a gap ends, whatever was read back by then."""
        self.ended: deque[Gap] = deque(maxlen=KEPT_GAPS)
        """The newest gaps, how they ended and why they were."""
        self.opened = 0
        self.closed = 0
        self.unfillable = 0
        self.trades = 0
        """How many trades were read back that the stream had lost."""

    def fill(
        self,
        symbol: str,
        stream: TradeStream,
        gap: TradeGap,
        on_end: Callable[[str, TradeGap], None] | None = None,
    ) -> None:
        """Begin to fill a gap that `TradeStream.resumed` or `lost` gave.

        Args:
            symbol: Whose.
            stream: Where what is found is delivered.
            gap: What is missing.
            on_end: Called when it is filled.
        """
        if not gap.caught_up:
            if (former := self._releases.pop(gap, None)) is not None:
                former.cancel()
            loop = asyncio.get_running_loop()
            self._releases[gap] = loop.call_later(HOLD_S, stream.release)
        if gap.breaks > 1:
            return  # it is being filled, and has only grown
        self.opened += 1
        self._on_gap(_told(symbol, gap, "open"))
        self._tasks.spawn(self._fill(symbol, stream, gap, on_end), name=f"gap filler {symbol}")

    async def poll(self, symbol: str, stream: TradeStream, gap: TradeGap) -> None:
        """Read what happened since the gap began, while the stream is still away.

        Raises:
            BackboneError: as the exchange answers.
        """
        asked_ms = self._clock.now_ms()
        try:
            await self._read_back(symbol, stream, gap, gap.since_ms, patient=False)
        except _Disagreement:
            return  # REST lags: the next reading starts from the same place
        stream.polled(gap, asked_ms)

    async def _fill(
        self,
        symbol: str,
        stream: TradeStream,
        gap: TradeGap,
        on_end: Callable[[str, TradeGap], None] | None,
    ) -> None:
        try:
            asked_s = await self._until_read(symbol, stream, gap, gap.since_ms)
            stream.caught_up(gap)
            await self._sleep_until(asked_s + REST_LAG_MS / 1_000)
            assert gap.until_ms is not None
            since_ms = max(gap.since_ms, gap.until_ms - READ_AGAIN_MS)
            await self._until_read(symbol, stream, gap, since_ms, again=True)
        except (DataUnavailableError, UnknownSymbolError, ProtocolError, _Disagreement) as error:
            logger.warning("trades of %s are missing: %s", symbol, error)
            self._give_up(symbol, stream, gap, str(error))
        except ClosedError:
            return
        except Exception as error:
            logger.exception("the filling of a gap of %s met an unexpected error", symbol)
            self._give_up(symbol, stream, gap, f"an unexpected error: {error!r}")
        else:
            self.closed += 1
            stream.close(gap)
            self._on_gap(self.note(symbol, gap, "closed"))
            if on_end is not None:
                on_end(symbol, gap)
        finally:
            if (release := self._releases.pop(gap, None)) is not None:
                release.cancel()
            if not gap.caught_up:  # nobody may wait for what nobody reads back
                stream.release()

    def note(self, symbol: str, gap: TradeGap, state: GapState) -> Gap:
        """Keep how a gap ended."""
        ended = _told(symbol, gap, state)
        self.ended.append(ended)
        return ended

    def _give_up(self, symbol: str, stream: TradeStream, gap: TradeGap, reason: str) -> None:
        self.unfillable += 1
        stream.give_up(gap, reason)
        self._on_gap(self.note(symbol, gap, "unfillable"))

    async def _until_read(
        self,
        symbol: str,
        stream: TradeStream,
        gap: TradeGap,
        since_ms: int,
        *,
        again: bool = False,
    ) -> float:
        """Read the gap back, however often it takes. Returns when the reading began."""
        backoff, disagreements = Backoff(self._rng), 0
        while True:
            while gap.until_ms is None and gap.owed:
                await asyncio.sleep(LOOK_AGAIN_S)  # the stream broke again: the gap still grows
            asked_s, breaks = self._clock.monotonic(), gap.breaks
            if not gap.owed:
                return asked_s
            try:
                await self._read_back(symbol, stream, gap, since_ms, again=again)
                if gap.breaks == breaks:
                    return asked_s
            except (_Disagreement, ProtocolError) as error:
                disagreements += 1
                # What still grows is not given up: what is lost from now on would belong to none.
                if disagreements >= DISAGREEMENTS and gap.until_ms is not None:
                    raise
                gap.reason = str(error)
                await asyncio.sleep(max(0.2, backoff.next_s()))
            except ClosedError:
                raise
            except (DataUnavailableError, UnknownSymbolError):
                if gap.until_ms is not None:
                    raise
            except BackboneError as error:
                gap.reason = str(error)
                blocked_s = error.retry_after_s if isinstance(error, RateLimitedError) else None
                await asyncio.sleep(max(blocked_s or 0.0, backoff.next_s()))

    async def _read_back(
        self,
        symbol: str,
        stream: TradeStream,
        gap: TradeGap,
        since_ms: int,
        *,
        again: bool = False,
        patient: bool = True,
    ) -> None:
        """Read the gap once, newest first.

        Raises:
            _Disagreement: what was read lacks what the stream told of, at either end.
            BackboneError: as the exchange answers.
        """
        read = partial(self._rest.trades, symbol, priority=_priority(gap))
        expected = set[int]()
        if gap.last_id is not None and since_ms == gap.since_ms:
            expected.add(gap.last_id)
        if again and gap.first_id is not None:
            expected.add(gap.first_id)
        idle: dict[Reader, int] = {}
        pages = walk_back(read, self._clock, since_ms=since_ms, until_ms=gap.until_ms)
        async for page in pages:
            expected.difference_update(trade.sequential_id for trade in page)
            found = stream.found(gap, page)
            self.trades += found
            gap.trades_found += found
            if patient:
                await self._room(gap, idle)
        if expected:
            raise _Disagreement("the exchange's history lacks trades that were streamed")

    async def _room(self, gap: TradeGap, idle: dict[Reader, int]) -> None:
        """Give readers time to read what was read back.

        Who does not read is waited for once: `idle` says how much it had to read then.
        """
        give_up_s = self._clock.monotonic() + LONGEST_ROOM_S
        while behind := {
            reader: reader.unread
            for reader in gap.owed
            if UNREAD_LIMIT < reader.unread < idle.get(reader, math.inf)
        }:
            if self._clock.monotonic() >= give_up_s:
                idle.update(behind)
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _sleep_until(self, at_s: float) -> None:
        # Qt's timers fire early.
        while (left_s := at_s - self._clock.monotonic()) > 0:
            await asyncio.sleep(left_s)


def _told(symbol: str, gap: TradeGap, state: GapState) -> Gap:
    end_ms = gap.start_ms if gap.until_ms is None else gap.until_ms
    start, end = utc_datetime(gap.start_ms), utc_datetime(max(gap.start_ms, end_ms))
    return Gap(symbol, state, start, end, gap.reason)


def _priority(gap: TradeGap) -> Priority:
    """Of the most urgent reader; who has a hole to be filled is not of the least."""
    return min((reader.priority for reader in gap.owed), default=Priority.NORMAL)
