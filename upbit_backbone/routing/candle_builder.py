"""Forming candles from trades. Decides in plain code; the caller passes time and data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from upbit_backbone.clock import MINUTE_MS, epoch_ms, utc_datetime
from upbit_backbone.models import (
    CLOSE_GRACE_MS,
    Candle,
    CandleSeries,
    CandleState,
    Timeframe,
    Trade,
)

REVISABLE_MS = 10 * MINUTE_MS
"""A closed candle takes late trades so long after its end, the newest one until another closes:
so long is known which trades were delivered already (600 candles of a second at most)."""


@dataclass(slots=True)
class _Forming:
    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    value: float
    first_trade_ms: int
    last_trade_ms: int

    def is_like(self, other: _Forming) -> bool:
        """Whether the candle is the same, but for the order in which volumes were added."""
        prices = (self.open, self.high, self.low, self.close)
        if prices != (other.open, other.high, other.low, other.close):
            return False
        return math.isclose(self.volume, other.volume, rel_tol=1e-9)

    def add(self, trade: Trade, trade_ms: int) -> None:
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        # A late trade changes the open only when it was the first, and never the close.
        if trade_ms < self.first_trade_ms:
            self.open, self.first_trade_ms = trade.price, trade_ms
        if trade_ms >= self.last_trade_ms:
            self.close, self.last_trade_ms = trade.price, trade_ms
        self.volume += trade.volume
        self.value += trade.price * trade.volume


class CandleBuilder:
    """Builds the candles of one symbol and timeframe from the trades of one stream.

    A candle is built only when all of it was seen: from a `seed` read by REST, or from the
    period's beginning. It closes by exchange time plus a grace, never by the next trade. A
    late trade revises its candle, also when others have closed since; one in a period in which
    nobody seemed to have traded makes a candle that is closed at once.
    """

    def __init__(self, symbol: str, timeframe: Timeframe) -> None:
        self._symbol = symbol
        self._timeframe = timeframe
        self._forming: dict[int, _Forming] = {}
        self._closed: dict[int, _Forming] = {}
        self._looked_ms: float = -math.inf
        self._over_to_ms: float = -math.inf
        self._whole_from_ms: float = math.inf
        self._counted_to_ms = -1

    def seed(self, page: CandleSeries, stamp_ms: int | None, now_ms: int) -> list[Candle]:
        """Begin anew from a page asked for at `now_ms` (its newest row, stamped `stamp_ms`).

        Trades up to the stamp are in the page already and are not counted again; those
        that came since `now_ms` must follow.
        """
        self._begin_anew()
        self._whole_from_ms = self._timeframe.floor_ms(now_ms)
        if not len(page):
            return []
        open_ms = int(page.time[-1])
        if stamp_ms is not None:
            # The stamp is when the last trade was stored, which may be after the candle's end.
            self._counted_to_ms = min(stamp_ms, self._timeframe.next_ms(open_ms) - 1)
        if open_ms < self._whole_from_ms:
            return []
        row = page[-1]
        forming = _Forming(
            open_ms,
            row.open,
            row.high,
            row.low,
            row.close,
            row.volume,
            row.value,
            open_ms,
            self._counted_to_ms,
        )
        self._forming[forming.open_ms] = forming
        return [self._candle(forming, "forming")]

    def correct(
        self, page: CandleSeries, stamp_ms: int | None, since: Iterable[Trade]
    ) -> list[Candle]:
        """Take the candle that was seeded as it was read later; returns it if it has changed.

        Args:
            page: Its newest row is that candle, or an older one.
            stamp_ms: When the last trade in it was stored.
            since: All trades since the first reading was asked for, as they were counted.
        """
        if not len(page) or stamp_ms is None:
            return []
        row, open_ms = page[-1], int(page.time[-1])
        counted_to_ms = min(stamp_ms, self._timeframe.next_ms(open_ms) - 1)
        whole = _Forming(
            open_ms,
            row.open,
            row.high,
            row.low,
            row.close,
            row.volume,
            row.value,
            open_ms,
            counted_to_ms,
        )
        for trade in since:
            at_ms = epoch_ms(trade.exchange_time)
            if at_ms > counted_to_ms and self._timeframe.floor_ms(at_ms) == open_ms:
                whole.add(trade, at_ms)
        # What is read back later lies in it already.
        self._counted_to_ms = max(self._counted_to_ms, counted_to_ms)
        held = self._closed.get(open_ms) or self._forming.get(open_ms)
        if open_ms < self._whole_from_ms or (held is not None and whole.is_like(held)):
            return []
        if open_ms < self._over_to_ms:
            if not self._is_revisable(open_ms):
                return []
            self._closed[open_ms] = whole
            return [self._candle(whole, "closed" if held is None else "revised")]
        self._forming[open_ms] = whole
        return [self._candle(whole, "forming")]

    def begin_next(self, now_ms: int) -> None:
        """Begin with the candle after the one at `now_ms`: all of it will be seen."""
        self._begin_anew()
        self._whole_from_ms = self._timeframe.next_ms(self._timeframe.floor_ms(now_ms))

    def sees_whole(self, now_ms: int) -> bool:
        """Whether the candle of this moment is being built from its beginning, or a seed."""
        return now_ms >= self._whole_from_ms

    def whole(self, now_ms: int) -> tuple[int, int] | None:
        """From which period on all was seen, and which one is the first that is not over.

        None: nothing is seen whole. Equal: none of them is over yet, grace and all.
        """
        if math.isinf(self._whole_from_ms):
            return None
        start_ms = int(self._whole_from_ms)
        return start_ms, max(start_ms, self._timeframe.floor_ms(now_ms - CLOSE_GRACE_MS))

    def interrupt(self) -> None:
        """Trades may have been missed: what is forming is no longer whole."""
        self._forming.clear()
        self._whole_from_ms = math.inf

    def add(self, trade: Trade) -> list[Candle]:
        """Count a trade; returns the candle it changed."""
        trade_ms = epoch_ms(trade.exchange_time)
        open_ms = self._timeframe.floor_ms(trade_ms)
        if open_ms < self._whole_from_ms or trade_ms <= self._counted_to_ms:
            return []
        over = open_ms < self._over_to_ms
        if over and not self._is_revisable(open_ms):
            return []
        held = self._closed if over else self._forming
        state: CandleState = "revised" if over else "forming"
        candle = held.get(open_ms)
        if candle is None:
            state = "closed" if over else "forming"
            price = trade.price
            value = price * trade.volume
            candle = _Forming(
                open_ms, price, price, price, price, trade.volume, value, trade_ms, trade_ms
            )
            held[open_ms] = candle
        else:
            candle.add(trade, trade_ms)
        return [self._candle(candle, state)]

    def close_due(self, now_ms: int) -> list[Candle]:
        """Close what ended more than the grace before `now_ms`, oldest first."""
        self._looked_ms = max(self._looked_ms, now_ms)
        self._over_to_ms = max(self._over_to_ms, self._timeframe.floor_ms(now_ms - CLOSE_GRACE_MS))
        closed = []
        for open_ms in sorted(self._forming):
            if open_ms >= self._over_to_ms:
                break
            self._closed[open_ms] = self._forming.pop(open_ms)
            closed.append(self._candle(self._closed[open_ms], "closed"))
        if closed:
            self._forget_old()
        return closed

    def next_close_ms(self, now_ms: int) -> int:
        """When `close_due` has something to do at the latest, exchange time."""
        first = min(self._forming, default=self._timeframe.floor_ms(now_ms))
        return self._timeframe.next_ms(first) + CLOSE_GRACE_MS

    def _begin_anew(self) -> None:
        self.interrupt()
        self._closed.clear()
        self._looked_ms = self._over_to_ms = -math.inf
        self._counted_to_ms = -1

    def _forget_old(self) -> None:
        for open_ms in sorted(self._closed):
            if self._is_revisable(open_ms):
                return
            del self._closed[open_ms]

    def _is_revisable(self, open_ms: int) -> bool:
        """Whether a period that is over still takes late trades."""
        if open_ms == max(self._closed, default=None):
            return True
        return self._looked_ms - self._timeframe.next_ms(open_ms) < REVISABLE_MS

    def _candle(self, forming: _Forming, state: CandleState) -> Candle:
        return Candle(
            self._symbol,
            self._timeframe,
            utc_datetime(forming.open_ms),
            forming.open,
            forming.high,
            forming.low,
            forming.close,
            forming.volume,
            forming.value,
            state != "forming",
            False,
            state,
        )
