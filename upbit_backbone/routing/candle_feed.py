"""Live candles: trades of the stream, seeded by one REST read, closed by the clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from upbit_backbone.clock import Clock
from upbit_backbone.errors import BackboneError, ClosedError
from upbit_backbone.models import CLOSE_GRACE_MS, CandleSeries, Gap, Trade
from upbit_backbone.protocol import Whole
from upbit_backbone.reader import Reader
from upbit_backbone.routing.candle_builder import CandleBuilder

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.5
"""Longest wait for a candle's end: the wall clock may be set meanwhile, and qasync keeps the
timer of a cancelled wait (one a trade) until it fires, in at most 24 days (32 bits of ms)."""
SEED_AGAIN_S = 5.0
"""A day's candle must not wait for tomorrow because one request failed; twice as long each time."""
MAX_SEED_AGAIN_S = 60.0
READ_AGAIN_S = 2.5
"""After the seed: by then REST knows all trades from before the stream was in force."""
ReadPage = Callable[[int], Awaitable[tuple[CandleSeries, int | None]]]
"""Reads the candle of a moment, or the newest one before it."""


class CandleFeed:
    """Feeds one reader of candles from one reader of trades."""

    def __init__(
        self,
        out: Reader,
        trades: Reader,
        builder: CandleBuilder,
        read_page: ReadPage,
        complete_to_ms: Callable[[], int],
        clock: Clock,
        *,
        proofs: Callable[[int, int], Whole] | None = None,
    ) -> None:
        """Take both readers.

        Args:
            out: Reads candles.
            trades: Reads all trades of the symbol.
            builder: Makes candles of them.
            read_page: Reads the forming candle by REST.
            complete_to_ms: Up to when all trades were delivered: no later candle may close.
            clock: The exchange's time.
            proofs: Makes what tells that all periods between two open times were seen whole;
                None: that is not told.
        """
        self._out = out
        self._trades = trades
        self._builder = builder
        self._read_page = read_page
        self._complete_to_ms = complete_to_ms
        self._clock = clock
        self._proofs = proofs
        self._whole_from_ms = -1
        self._told_to_ms = -1
        self._recent: list[Trade] = []
        """Trades since the seed was read, until it is read again."""
        self._seeded_ms = 0
        self._again_s: float | None = None

    async def run(self) -> None:
        """Work until the candles' reader or the trades' stream ends."""
        try:
            while self._out.state != "closed":
                await self._trades.confirmed()
                self._builder.begin_next(self._clock.now_ms())
                interrupted, pause_s = False, SEED_AGAIN_S
                while not interrupted:
                    interrupted = await self._follow(None if await self._seed() else pause_s)
                    pause_s = min(2 * pause_s, MAX_SEED_AGAIN_S)
                # The next seed tells of the same period once more: what was whole has ended.
                self._whole_from_ms = self._told_to_ms = -1
        except BackboneError as error:
            self._out.fail(error)
        finally:
            self._trades.close()
            # Cancelled, or a fault of ours: nobody may wait for a feed that is gone.
            self._out.fail(ClosedError("the candles ended with their layer"))

    async def _seed(self) -> bool:
        """Read what the forming candle holds already; False when it is worth another try.

        Until it is read, candles begin with the first that is seen whole.
        """
        if self._trades.state == "closed":
            return True
        # All trades since then are read after the page.
        asked_ms = self._clock.now_ms()
        self._recent.clear()
        self._again_s = None
        try:
            page, stamp_ms = await self._read_page(asked_ms)
        except BackboneError as error:
            self._out.mark(
                "confirmed", f"from the next candle on: the forming one was not read ({error})"
            )
            # One garbled answer, or one 404, says nothing of the next.
            return isinstance(error, ClosedError)
        for candle in self._builder.seed(page, stamp_ms, asked_ms):
            self._out.push(candle)
        self._seeded_ms, self._again_s = asked_ms, self._clock.monotonic() + READ_AGAIN_S
        self._out.mark("confirmed")
        return True

    async def _seed_again(self) -> None:
        """Read the same candle once more: REST lags, and the trades of its last seconds before
        the stream was in force may not have been in it."""
        self._again_s = None
        try:
            page, stamp_ms = await self._read_page(self._seeded_ms)
        except BackboneError as error:
            logger.info("a candle was not read a second time: %s", error)
        else:
            for candle in self._builder.correct(page, stamp_ms, self._recent):
                self._out.push(candle)
        self._recent.clear()

    def _tell_state(self) -> None:
        """Candles are as stale as their trades."""
        state = self._trades.state
        if state in ("confirmed", "stale") and state != self._out.state != "closed":
            self._out.mark(state, self._trades.reason)

    def _tell_whole(self, now_ms: int) -> None:
        """Tell where it begins to be whole, and then of each period that is over: of one in
        which nobody traded nothing else would tell."""
        if self._proofs is None or (whole := self._builder.whole(now_ms)) is None:
            return
        start_ms, end_ms = whole
        begins = start_ms != self._whole_from_ms
        if begins:
            self._whole_from_ms = self._told_to_ms = start_ms
        if begins or end_ms > self._told_to_ms:
            self._out.push(self._proofs(self._told_to_ms, end_ms))
            self._told_to_ms = end_ms

    async def _follow(self, at_most_s: float | None) -> bool:
        """Build candles for a time (False), or until trades may be missed or nobody reads."""
        started = self._clock.monotonic()
        while self._out.state != "closed":
            # A candle that began since is built already: reading it would be for nothing.
            over = at_most_s is not None and self._clock.monotonic() - started >= at_most_s
            if over and not self._builder.sees_whole(self._clock.now_ms()):
                return False
            wait_s = None
            # What has arrived is counted before the clock closes its candle.
            if not self._trades.unread:
                self._tell_state()
                if self._again_s is not None and self._clock.monotonic() >= self._again_s:
                    await self._seed_again()
                    continue
                # While trades may be missing no candle is over: the last one may be among them.
                now_ms = min(self._clock.now_ms(), self._complete_to_ms() + CLOSE_GRACE_MS)
                for candle in self._builder.close_due(now_ms):
                    self._out.push(candle)
                self._tell_whole(now_ms)
                due_s = (self._builder.next_close_ms(now_ms) - now_ms) / 1_000
                wait_s = min(max(0.0, due_s), LOOK_AGAIN_S)
            try:
                async with asyncio.timeout(wait_s):
                    value = await anext(self._trades)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                self._out.close()
                break
            if isinstance(value, Gap):
                if self._out.policy == "all":
                    self._out.push(value)
                if value.state != "open":
                    continue
                self._builder.interrupt()
                self._out.mark("stale", value.reason)
                break
            if self._again_s is not None:
                self._recent.append(value)
            for candle in self._builder.add(value):
                self._out.push(candle)
        return True
