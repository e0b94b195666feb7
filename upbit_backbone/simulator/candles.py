"""Candles of a market, newest first, as the exchange pages them.

The candle in progress is among them once something was traded in it; buckets without a
trade are not. The first candle of a market holds what was traded since the listing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.random_numbers import IntArray
from upbit_backbone.simulator.regime import Cut, Regime, Trade
from upbit_backbone.simulator.table import MINUTES_PER_DAY, Column

MINUTE_UNITS = (1, 3, 5, 10, 15, 30, 60, 240)
DAY_UNIT = MINUTES_PER_DAY
"""A day is a candle of so many minutes; all units start at 00:00 UTC."""
SECONDS_DEPTH_MS = 92 * DAY_MS
"""Second candles go back about three months (upbit-api, section 2.2)."""

Period = Literal["week", "month", "year"]

_MORE_TRADES = 16
"""Than seconds are wanted, and a quarter: on most markets a second has one."""
_THURSDAY_TO_MONDAY = 3
"""1970-01-01 was a Thursday; weeks begin on Mondays."""


class Candle(NamedTuple):
    """One candle; prices in units of the market's scale, volume in 1e-8."""

    start_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    last_trade_ms: int


def candles(
    market: Market, unit: int, *, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    """The newest candles that start before an instant, as known at `now_ms`.

    Args:
        market: The market.
        unit: Minutes, one of `MINUTE_UNITS` or `DAY_UNIT`.
        start_before_ms: Exclusive bound on the candles' starts.
        now_ms: The present; trades after it have not happened.
        count: How many, at least 1.
    """
    page = partial(_minute_page, unit=unit, start_before_ms=start_before_ms)
    return _over_regimes(market, page, now_ms, count)


def period_candles(
    market: Market, period: Period, *, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    """The newest weeks, months or years that start before an instant; as `candles`."""
    page = partial(_period_page, period=period, start_before_ms=start_before_ms)
    return _over_regimes(market, page, now_ms, count)


def second_candles(
    market: Market, *, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    """The newest seconds that start before an instant; as `candles`, three months deep."""
    # The last of the seconds that start before the bound may end after it.
    end_ms = min(-(-start_before_ms // SECOND_MS) * SECOND_MS, now_ms + 1)
    from_ms = -(-(now_ms - SECONDS_DEPTH_MS) // SECOND_MS) * SECOND_MS
    found: list[Candle] = []
    more = 0
    while end_ms > from_ms and len(found) < count:
        wanted = (count - len(found)) * 5 // 4 + _MORE_TRADES + more
        trades = market.trades_back(from_ms=from_ms, before_ms=end_ms, before_id=None, count=wanted)
        seconds = _seconds(trades)
        if len(trades) < wanted:
            found += seconds
            break
        # More trades of the oldest second may lie beyond.
        end_ms = seconds.pop().start_ms + SECOND_MS
        found += seconds
        more = 0 if seconds else more + wanted
    return found[:count]


def _seconds(trades: Sequence[Trade]) -> list[Candle]:
    """The seconds that trades, newest first, were done in."""
    seconds: list[Candle] = []
    for start_ms, group in groupby(trades, key=_second_of):
        inside = list(group)
        prices = [trade.price for trade in inside]
        seconds.append(
            Candle(
                start_ms=start_ms,
                open=prices[-1],
                high=max(prices),
                low=min(prices),
                close=prices[0],
                volume=sum([trade.volume for trade in inside]),
                value=sum([trade.price * trade.volume for trade in inside]),
                last_trade_ms=inside[0].time_ms,
            )
        )
    return seconds


def _second_of(trade: Trade) -> int:
    return trade.time_ms // SECOND_MS * SECOND_MS


Page = Callable[..., list[Candle]]


def _over_regimes(market: Market, page: Page, now_ms: int, count: int) -> list[Candle]:
    """Ask the regimes one after the other; a candle may be made of the trades of several."""
    found: list[Candle] = []
    for regime in reversed(market.regimes):
        if regime.from_ms > now_ms and regime is not market.regimes[0]:
            continue
        seen_ms = now_ms if regime.until_ms is None else min(now_ms, regime.until_ms - 1)
        older = page(regime, now_ms=seen_ms, count=max(count - len(found), 0) + 1)
        if found and older and older[0].start_ms == found[-1].start_ms:
            found[-1] = _joined(older.pop(0), found[-1])
        found += older
        if len(found) > count:
            break
    return found[:count]


def _joined(older: Candle, newer: Candle) -> Candle:
    """One candle of two parts."""
    return Candle(
        start_ms=older.start_ms,
        open=older.open,
        high=max(older.high, newer.high),
        low=min(older.low, newer.low),
        close=newer.close,
        volume=older.volume + newer.volume,
        value=older.value + newer.value,
        last_trade_ms=newer.last_trade_ms,
    )


def _minute_page(
    regime: Regime, *, unit: int, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    now = regime.cut(now_ms + 1)
    forming = regime.minute_of(now_ms) // unit
    newest = regime.minute_of(start_before_ms - 1) // unit
    first = regime.minute_of(regime.from_ms)
    oldest_whole = -(-first // unit)
    found: list[Candle] = []
    if newest >= forming:
        found += _candle(regime, forming, unit, now)
    end = min(newest + 1, forming)
    found += _whole(regime, unit, oldest_whole, end, count - len(found)).candles()
    first //= unit
    if len(found) < count and first < oldest_whole and first < end:
        cut = regime.cut(regime.start_ms(oldest_whole * unit))
        found += _candle(regime, first, unit, cut)
    return found


def _period_page(
    regime: Regime, *, period: Period, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    day_ms = now_ms // DAY_MS * DAY_MS
    today = regime.minute_of(day_ms) // DAY_UNIT
    # The newest period is wanted whole, though the bound may lie within it.
    newest_ms = min(start_before_ms - 1, now_ms)
    newest, until_ms = _period_at(newest_ms, period)
    end = min(today, regime.minute_of(until_ms) // DAY_UNIT)
    listed = regime.minute_of(regime.from_ms)
    first_whole = -(-listed // DAY_UNIT)
    longest = {"week": 7, "month": 31, "year": 366}[period]
    first = max(first_whole, end - (count + 1) * longest)
    found: list[Candle] = []
    if newest == _period_at(now_ms, period)[0]:
        found += _candle(regime, today, DAY_UNIT, regime.cut(now_ms + 1))
    days = _whole(regime, DAY_UNIT, first, end, max(end - first, 0))
    parts = [_of_period(part, period) for part in found]
    parts += _grouped(days, period)
    if first == first_whole and listed // DAY_UNIT < min(first_whole, end):
        cut = regime.cut(regime.start_ms(first_whole * DAY_UNIT))
        oldest = _candle(regime, listed // DAY_UNIT, DAY_UNIT, cut)
        parts += [_of_period(part, period) for part in oldest]
    joined: list[Candle] = []
    for part in parts:
        if joined and joined[-1].start_ms == part.start_ms:
            joined[-1] = _joined(part, joined[-1])
        else:
            joined.append(part)
    return joined[:count]


def _of_period(part: Candle, period: Period) -> Candle:
    return part._replace(start_ms=_period_at(part.start_ms, period)[0])


def _period_at(ms: int, period: Period) -> tuple[int, int]:
    """Start and end of the week, month or year that an instant lies in."""
    days = np.array([ms // DAY_MS])
    number = _period_numbers(days, period)
    start, end = _first_days(np.array([number[0], number[0] + 1]), period).tolist()
    return start * DAY_MS, end * DAY_MS


def _period_numbers(days: IntArray, period: Period) -> IntArray:
    """Of the periods that days since 1970 lie in; ascending with time."""
    if period == "week":
        return (days + _THURSDAY_TO_MONDAY) // 7
    unit = "M" if period == "month" else "Y"
    return days.astype("datetime64[D]").astype(f"datetime64[{unit}]").astype(np.int64)


def _first_days(numbers: IntArray, period: Period) -> IntArray:
    """The days since 1970 on which periods begin."""
    if period == "week":
        return numbers * 7 - _THURSDAY_TO_MONDAY
    unit = "M" if period == "month" else "Y"
    return numbers.astype(f"datetime64[{unit}]").astype("datetime64[D]").astype(np.int64)


def _grouped(days: _Whole, period: Period) -> list[Candle]:
    """Whole days, newest first, joined to what each period has of them."""
    if not days.size:
        return []
    numbers = _period_numbers(days.start_ms // DAY_MS, period)
    newest = np.flatnonzero(np.diff(numbers, prepend=numbers[0] + 1))
    oldest = np.append(newest[1:], days.size) - 1
    return _Whole(
        regime=days.regime,
        start_ms=_first_days(numbers[newest], period) * DAY_MS,
        first=days.first[oldest],
        end=days.end[newest],
        open=days.open[oldest],
        high=np.maximum.reduceat(days.high, newest),
        low=np.minimum.reduceat(days.low, newest),
        close=days.close[newest],
    ).candles()


def _candle(regime: Regime, bucket: int, unit: int, cut: Cut) -> list[Candle]:
    """The candle of one bucket up to a cut within it or at its end: one or none."""
    start_ms = regime.start_ms(bucket * unit)
    span = regime.span(start_ms, cut)
    if span is None:
        return []
    return [
        Candle(
            start_ms=start_ms,
            open=span.open,
            high=span.high,
            low=span.low,
            close=span.close,
            volume=span.volume,
            value=span.value,
            last_trade_ms=span.last_trade_ms,
        )
    ]


class _Whole(NamedTuple):
    """Candles that are over, newest first: columns in the table's integers."""

    regime: Regime
    start_ms: IntArray
    first: IntArray
    """Position of the first live minute."""
    end: IntArray
    """Position after the last live minute."""
    open: Column
    high: Column
    low: Column
    close: Column

    @property
    def size(self) -> int:
        """How many candles."""
        return len(self.start_ms)

    def last_trades_ms(self) -> list[int]:
        """When the last trade of each was done; any minute of a bucket may have it."""
        table = self.regime.table
        last = self.end - 1
        inside = last % table.live
        minutes = last // table.live * table.size + table.minute[inside]
        times: IntArray = self.regime.start_ms(0) + minutes * MINUTE_MS + table.last_offsets(inside)
        listed: list[int] = times.tolist()
        return listed

    def candles(self) -> list[Candle]:
        """Each with its volume and value."""
        scale = self.regime.scale
        volumes, values = self.regime.table.spans(self.first, self.end)
        return [
            Candle(
                start_ms=start_ms,
                open=scale.price(opened),
                high=scale.price(high),
                low=scale.price(low),
                close=scale.price(closed),
                volume=scale.factor * volume,
                value=scale.value(value, volume),
                last_trade_ms=last_ms,
            )
            for start_ms, opened, high, low, closed, volume, value, last_ms in zip(
                self.start_ms.tolist(),
                self.open.tolist(),
                self.high.tolist(),
                self.low.tolist(),
                self.close.tolist(),
                volumes,
                values,
                self.last_trades_ms(),
                strict=True,
            )
        ]


def _whole(regime: Regime, unit: int, first: int, end: int, count: int) -> _Whole:
    """At most `count` candles of the buckets from `first` to before `end`, all over."""
    table = regime.table
    buckets = table.buckets(unit)
    per_table, live = table.size // unit, len(buckets.number)

    def ordinal(bucket: int) -> int:
        tile, inside = regime.place(bucket, per_table)
        return tile * live + int(buckets.number.searchsorted(np.int32(inside)))

    newest = ordinal(end)
    oldest = max(ordinal(first), newest - count)
    ordinals = np.arange(newest - 1, oldest - 1, -1, dtype=np.int64)
    tiles: IntArray = ordinals // live
    inside: IntArray = ordinals % live
    opening, end_position = buckets.first[inside], buckets.end[inside]
    repetition_ms = tiles * table.size * MINUTE_MS + regime.start_ms(0)
    return _Whole(
        regime=regime,
        start_ms=repetition_ms + buckets.number[inside] * np.int64(unit * MINUTE_MS),
        first=tiles * table.live + opening,
        end=tiles * table.live + end_position,
        open=table.open[opening],
        high=buckets.high[inside],
        low=buckets.low[inside],
        close=table.close[end_position - 1],
    )
