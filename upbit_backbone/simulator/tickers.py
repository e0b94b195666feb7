"""The summary of a market at an instant."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator.candles import DAY_UNIT, candles
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.regime import Span, Trade

_DAYS_OF_52_WEEKS = 364
_MADE_AFTER_MS = 38
"""After its last trade: 30, 38 and 46 ms in the tickers recorded in 2024 and 2025, the one of
an idle market too."""


class Extreme(NamedTuple):
    """A price in units and the start of the UTC day on which it was last seen."""

    price: int
    day_ms: int


class Ticker(NamedTuple):
    """All figures of a ticker; prices in units of the market's scale, volumes in 1e-8."""

    last: Trade
    open: int
    high: int
    low: int
    previous_close: int
    volume_today: int
    value_today: int
    sold_today: int
    volume_24h: int
    value_24h: int
    highest: Extreme
    """Of 52 weeks; a table shorter than that repeats, so its extremes do."""
    lowest: Extreme

    def made_ms(self, now_ms: int) -> int:
        """When it was made, as its `timestamp` says to whoever asks at an instant."""
        return min(self.last.time_ms + _MADE_AFTER_MS, now_ms)


class Tickers:
    """The tickers of one market."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._extremes_day_ms: int | None = None
        self._extremes: tuple[Extreme, Extreme] | None = None

    def at(self, now_ms: int) -> Ticker | None:
        """The ticker at an instant; None before the market's first trade.

        On a day without a trade so far, the day's prices are the last price.
        """
        market = self._market
        cut = market.cut(now_ms + 1)
        last = market.last_trade(cut)
        if last is None:
            return None
        day_ms = now_ms // DAY_MS * DAY_MS
        today = market.span(day_ms, cut)
        if today is None:
            price = last.price
            today = Span(price, price, price, price, 0, 0, 0, last.time_ms)
        highest = lowest = None
        if (extremes := self._extremes_before(day_ms)) is not None:
            highest, lowest = extremes
        if highest is None or today.high >= highest.price:
            highest = Extreme(today.high, day_ms)
        if lowest is None or today.low <= lowest.price:
            lowest = Extreme(today.low, day_ms)
        day_before = market.cut(now_ms + 1 - DAY_MS).totals
        return Ticker(
            last=last,
            open=today.open,
            high=today.high,
            low=today.low,
            previous_close=market.previous_close(now_ms),
            volume_today=today.volume,
            value_today=today.value,
            sold_today=today.sold,
            volume_24h=cut.totals.volume - day_before.volume,
            value_24h=cut.totals.value - day_before.value,
            highest=highest,
            lowest=lowest,
        )

    def _extremes_before(self, day_ms: int) -> tuple[Extreme, Extreme] | None:
        """Highest and lowest of the 52 weeks before a day; None if nothing was traded."""
        if self._extremes_day_ms != day_ms:
            days = _days_before(self._market, day_ms)
            self._extremes = None
            if days:
                high, high_ms = max((high, start_ms) for start_ms, high, _ in days)
                low, minus_low_ms = min((low, -start_ms) for start_ms, _, low in days)
                self._extremes = Extreme(high, high_ms), Extreme(low, -minus_low_ms)
            self._extremes_day_ms = day_ms
        return self._extremes


def _days_before(market: Market, day_ms: int) -> list[tuple[int, int, int]]:
    """Start, high and low of the days before one that can hold an extreme of 52 weeks.

    A table is shorter than that and repeats, so its newest days hold all prices.
    """
    regime = market.regimes[0]
    days = regime.table.size // DAY_UNIT
    if len(market.regimes) > 1:
        days = _DAYS_OF_52_WEEKS
    elif regime.repeats and regime.from_ms <= day_ms - days * DAY_MS:
        today = regime.minute_of(day_ms) // DAY_UNIT
        numbers, _, _, highs, lows = regime.table.buckets(DAY_UNIT)
        starts = day_ms - ((today - 1 - numbers) % days + 1) * np.int64(DAY_MS)
        price = regime.scale.price
        return [
            (start_ms, price(high), price(low))
            for start_ms, high, low in zip(
                starts.tolist(), highs.tolist(), lows.tolist(), strict=True
            )
        ]
    rows = candles(market, DAY_UNIT, start_before_ms=day_ms, now_ms=day_ms, count=days)
    return [
        (row.start_ms, row.high, row.low)
        for row in rows
        if row.start_ms >= day_ms - _DAYS_OF_52_WEEKS * DAY_MS
    ]
