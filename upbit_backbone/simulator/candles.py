"""Candles of a market, newest first, as the exchange pages them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.simulator.market import Cut, Market
from upbit_backbone.simulator.table import MINUTES_PER_DAY

MINUTE_UNITS = (1, 3, 5, 10, 15, 30, 60, 240)
DAY_UNIT = MINUTES_PER_DAY
"""A day is a candle of so many minutes; all units start at 00:00 UTC."""


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

    The candle in progress is among them once something was traded in it; buckets without a
    trade are not. The first candle of a market holds what was traded since the listing.

    Args:
        market: The market.
        unit: Minutes, one of `MINUTE_UNITS` or `DAY_UNIT`.
        start_before_ms: Exclusive bound on the candles' starts.
        now_ms: The present; trades after it have not happened.
        count: How many, at least 1.
    """
    now = market.cut(now_ms + 1)
    forming = market.minute_of(now_ms) // unit
    newest = market.minute_of(start_before_ms - 1) // unit
    listed = market.minute_of(market.listing.listed_ms)
    oldest_whole = -(-listed // unit)
    found: list[Candle] = []
    if newest >= forming:
        found += _candle(market, forming, unit, now)
    end = min(newest + 1, forming)
    found += _whole(market, unit, oldest_whole, end, count - len(found))
    first = listed // unit
    if len(found) < count and first < oldest_whole and first < end:
        cut = market.cut(market.start_ms(oldest_whole * unit))
        found += _candle(market, first, unit, cut)
    return found


def _candle(market: Market, bucket: int, unit: int, cut: Cut) -> list[Candle]:
    """The candle of one bucket up to a cut within it or at its end: one or none."""
    start_ms = market.start_ms(bucket * unit)
    span = market.span(start_ms, cut)
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


def _whole(market: Market, unit: int, first: int, end: int, count: int) -> list[Candle]:
    """At most `count` candles of the buckets from `first` to before `end`, all over."""
    table, scale = market.table, market.scale
    buckets = table.buckets(unit)
    per_table, live = table.size // unit, len(buckets.number)

    def ordinal(bucket: int) -> int:
        tile, inside = market.place(bucket, per_table)
        return tile * live + int(buckets.number.searchsorted(np.int32(inside)))

    newest = ordinal(end)
    oldest = max(ordinal(first), newest - count)
    tiles, inside = np.divmod(np.arange(newest - 1, oldest - 1, -1), live)
    starts = (tiles * per_table + buckets.number[inside]) * unit
    opening, end_position = buckets.first[inside], buckets.end[inside]
    last = end_position - 1
    # The last trade's minute may be any of the bucket's.
    repetition_ms = tiles * table.size * MINUTE_MS + market.start_ms(0)
    last_trade_ms = (
        repetition_ms + table.minute[last] * np.int64(MINUTE_MS) + table.last_offsets(last)
    )
    volumes, values = table.spans(opening, end_position)
    return [
        Candle(
            start_ms=market.start_ms(start),
            open=scale.price(opened),
            high=scale.price(high),
            low=scale.price(low),
            close=scale.price(closed),
            volume=scale.factor * volume,
            value=scale.value(value, volume),
            last_trade_ms=last_ms,
        )
        for start, opened, high, low, closed, volume, value, last_ms in zip(
            starts.tolist(),
            table.open[opening].tolist(),
            buckets.high[inside].tolist(),
            buckets.low[inside].tolist(),
            table.close[last].tolist(),
            volumes,
            values,
            last_trade_ms.tolist(),
            strict=True,
        )
    ]
