"""A table of minutes, and the trades that make up each of them.

The minute rows come first; trades are split from them exactly. In every minute the
first trade is the open, the last the close, one is the high and one the low, and their
volumes add up to the row's volume. Prices are integers in units of the table and volumes
integers in 1e-8 of the base asset, so that nothing is ever rounded twice.

Only minutes in which somebody traded are kept; they are named by their position, 0 to
`live` - 1. Which instant a minute stands for is the market's matter (`market.py`): most
tables repeat for ever.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upbit_backbone.simulator.random_numbers import (
    DrawArray,
    IntArray,
    bit_field,
    draws,
    key_of,
)

MINUTES_PER_DAY = 1_440
MOST_TRADES_A_MINUTE = 64

_MINUTE_MS = 60_000
_LIMB_BITS = 30
"""Sums of value are kept as two limbs: 28 days of KRW-XRP reach 1e21, one minute of
KRW-DOGE 1.1e19, and int64 ends at 9.2e18."""
_CELLS_PER_CHUNK = 32_768
"""Trades worked on at once while building: few enough for the processor's cache, and 2 to
4 ms, so that a cancelled build ends soon and no other thread waits long."""
_LOW_LIMB = (1 << _LIMB_BITS) - 1
_TURNS = key_of("turns")

Column = NDArray[np.int32]


class BuildCancelledError(Exception):
    """The table is no longer wanted; raised between two chunks of building."""


@dataclass(frozen=True)
class MinuteRows:
    """Columns of consecutive minutes, the first at 00:00 UTC; whole days.

    A minute without a trade has volume 0; its prices mean nothing.
    """

    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume: IntArray
    trades: IntArray
    """How many trades the minute would like to have; the table gives it what it needs."""


class TradeBlock(NamedTuple):
    """Trades of several minutes: matrices with one line per minute."""

    used: IntArray
    """How many places of each line are trades."""
    offset_ms: IntArray
    """0 to 59,999 within the minute, never decreasing along a line; 60,000 where unused."""
    price: IntArray
    volume: IntArray
    taker_buys: NDArray[np.bool_]


class Totals(NamedTuple):
    """Sums over all trades before some point; only differences of two mean anything."""

    volume: int
    value: int
    """Sum of price times volume."""
    sold: int
    """Volume of the trades whose taker sold."""


class Buckets(NamedTuple):
    """The candles of one timeframe in a table: only those in which somebody traded."""

    number: Column
    """Of the bucket since row 0, ascending."""
    first: Column
    """Position of its first live minute."""
    end: Column
    """Position after its last live minute."""
    high: Column
    low: Column


class MinuteTable(ABC):
    """Minutes in which somebody traded, with prefix sums and extremes.

    Args:
        size: Minutes, those without a trade too.
        minute: Of each live minute, ascending.
        prices: Columns open, high, low and close of the live minutes.
        volume: What was traded in each.
        count: How many trades each has.
    """

    def __init__(
        self,
        size: int,
        minute: NDArray[Any],
        prices: Sequence[NDArray[Any]],
        volume: IntArray,
        count: NDArray[Any],
    ) -> None:
        assert size % MINUTES_PER_DAY == 0, "a table has whole days"
        self.size = size
        """Minutes, those without a trade too."""
        self.live = len(minute)
        self.minute: Column = minute.astype(np.int32)
        self.open, self.high, self.low, self.close = (column.astype(np.int32) for column in prices)
        self.count = count.astype(np.int16)
        self.trade_count = int(self.count.sum(dtype=np.int64))
        self._volume_sums = _prefix_sums(volume)
        self.whole: Totals
        """Sums over all trades."""
        self._buckets: dict[int, Buckets] = {}

    def position(self, minute: int) -> int:
        """How many live minutes lie before this one."""
        # Of the column's own type: any other makes numpy convert the whole column.
        return int(self.minute.searchsorted(np.int32(minute)))

    def totals(self, position: int) -> Totals:
        """Sums over the first `position` live minutes, 0 to `live`."""
        return Totals(
            int(self._volume_sums[position]),
            (int(self._value_high_sums[position]) << _LIMB_BITS)
            + int(self._value_low_sums[position]),
            int(self._sold_sums[position]),
        )

    def spans(self, first: NDArray[Any], end: NDArray[Any]) -> tuple[list[int], list[int]]:
        """Volume and value of each span of positions, `end` exclusive.

        Positions count on through repetitions of the table; a span may hold a hundred of them.
        """
        tiles = (end // self.live - first // self.live).tolist()
        first, end = first % self.live, end % self.live

        def between(sums: IntArray) -> list[int]:
            # A table's sum times the repetitions of a year does not fit into an int64.
            whole = int(sums[-1])
            parts = (sums[end] - sums[first]).tolist()
            return [part + number * whole for part, number in zip(parts, tiles, strict=True)]

        high, low = between(self._value_high_sums), between(self._value_low_sums)
        values = [(big << _LIMB_BITS) + small for big, small in zip(high, low, strict=True)]
        return between(self._volume_sums), values

    def buckets(self, minutes: int) -> Buckets:
        """All candles of so many minutes; the first question of a kind costs about 1 ms."""
        buckets = self._buckets.get(minutes)
        if buckets is None:
            numbers = self.minute // minutes
            first = np.flatnonzero(np.diff(numbers, prepend=-1)).astype(np.int32)
            buckets = Buckets(
                number=numbers[first],
                first=first,
                end=np.append(first[1:], np.int32(self.live)),
                high=np.maximum.reduceat(self.high, first),
                low=np.minimum.reduceat(self.low, first),
            )
            self._buckets[minutes] = buckets
        return buckets

    @abstractmethod
    def trades(self, positions: IntArray) -> TradeBlock:
        """All trades of these live minutes."""

    @abstractmethod
    def last_offsets(self, positions: NDArray[Any]) -> IntArray:
        """Milliseconds within its minute of the last trade of each live minute."""

    def _sum_up(self, value_high: IntArray, value_low: IntArray, sold: IntArray) -> None:
        """Take the sums of each live minute; value as limbs of `_LIMB_BITS`."""
        self._value_high_sums = _prefix_sums(value_high)
        self._value_low_sums = _prefix_sums(value_low)
        self._sold_sums = _prefix_sums(sold)
        self.whole = self.totals(self.live)


class Table(MinuteTable):
    """Minutes whose trades are split from their rows.

    Building splits every trade once, to sum value and sides: about 0.2 s for a recorded
    table, a tenth of it for others. `cancelled` is asked every few milliseconds.

    Args:
        key: What all random numbers of the table's trades are drawn from.
        rows: The minutes.
        grid: Prices between those of a row are multiples of it.
        most_trades: A minute has no more, unless its prices need them.
        cancelled: True when the table is no longer wanted.

    Raises:
        BuildCancelledError: `cancelled` returned True.
    """

    def __init__(
        self,
        key: int,
        rows: MinuteRows,
        *,
        grid: int = 1,
        most_trades: int = MOST_TRADES_A_MINUTE,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        traded = np.flatnonzero(rows.volume)
        columns = [column[traded] for column in (rows.open, rows.high, rows.low, rows.close)]
        count = _needed(rows, most_trades)[traded]
        super().__init__(len(rows.volume), traded, columns, rows.volume[traded], count)
        self._key = key
        self._grid = grid
        self._sum_trades(cancelled)

    def trades(self, positions: IntArray) -> TradeBlock:
        """All trades of these live minutes."""
        price, volume, buys, bits = self._split(positions)
        count = self.count[positions].astype(np.int64)
        unused = np.arange(price.shape[1]) >= count[:, None]
        offsets = _offsets(bits)
        offsets[unused] = _MINUTE_MS
        offsets.sort(axis=1)
        return TradeBlock(count, offsets, price, volume, buys)

    def last_offsets(self, positions: NDArray[Any]) -> IntArray:
        """Milliseconds within its minute of the last trade of each live minute."""
        count = self.count[positions].astype(np.int64)
        slots = np.arange(int(count.max(initial=1)))
        offsets = _offsets(self._bits(positions, slots))
        latest: IntArray = np.where(slots < count[:, None], offsets, 0).max(axis=1)
        return latest

    def _sum_trades(self, cancelled: Callable[[], bool]) -> None:
        high_limb, low_limb, sold = (np.zeros(self.live, np.int64) for _ in range(3))
        # Minutes of like counts together, busiest first: a matrix is as wide as its
        # longest line.
        order = np.argsort(-self.count, kind="stable")
        start = 0
        while start < self.live:
            if cancelled():
                raise BuildCancelledError
            lines = max(1, _CELLS_PER_CHUNK // int(self.count[order[start]]))
            chunk = order[start : start + lines]
            start += lines
            price, volume, buys, _ = self._split(chunk)
            high_limb[chunk], low_limb[chunk] = _values(price, volume)
            sold[chunk] = np.where(buys, 0, volume).sum(axis=1)
        self._sum_up(high_limb, low_limb, sold)

    def _split(
        self, positions: NDArray[Any]
    ) -> tuple[IntArray, IntArray, NDArray[np.bool_], DrawArray]:
        """Prices, volumes, sides and random bits of the trades of these minutes."""
        count = self.count[positions].astype(np.int64)
        slots = np.arange(int(count.max(initial=1)))
        bits = self._bits(positions, slots)
        price = self._prices(positions, count, slots, bits)
        volume = self._volumes(positions, count, slots, bits)
        before = np.empty_like(price)
        before[:, 1:] = price[:, :-1]
        before[:, 0] = self.close[positions - 1]  # the first follows the last: tables repeat
        # The taker's side follows the price; at an unchanged one it is drawn.
        buys = (price - before) * 2 + bit_field(bits, 32, 1) > 0
        return price, volume, buys, bits

    def _bits(self, positions: NDArray[Any], slots: IntArray) -> DrawArray:
        # Of each: 0-15 noise of the price, 16-31 share of volume, 32 side, 33-56 time.
        return draws(draws(self._key, self.minute[positions])[:, None], slots[None, :])

    def _prices(
        self, positions: NDArray[Any], count: IntArray, slots: IntArray, bits: DrawArray
    ) -> IntArray:
        """A path from open over high and low, in either order, to close, with some noise."""
        opened, high, low, closed = (
            column[positions].astype(np.int64)
            for column in (self.open, self.high, self.low, self.close)
        )
        last = count - 1
        choice = draws(self._key ^ _TURNS, self.minute[positions])
        one = 1 + bit_field(choice, 0, 24) % np.maximum(count - 2, 1)
        other = 1 + bit_field(choice, 24, 24) % np.maximum(count - 3, 1)
        other += other >= one
        first_turn, second_turn = np.minimum(one, other), np.maximum(one, other)
        first_price = np.where(one < other, high, low)
        second_price = np.where(one < other, low, high)
        # Three trades have room for one turn, fewer for none.
        few, three = count <= 3, count == 3
        only = np.where(high > np.maximum(opened, closed), high, low)
        first_turn = np.where(few, np.where(three, 1, 0), first_turn)
        second_turn = np.where(few, np.where(three, 1, last), second_turn)
        first_price = np.where(few, np.where(three, only, opened), first_price)
        second_price = np.where(few, np.where(three, only, closed), second_price)

        slope_a = (first_price - opened) / np.maximum(first_turn, 1)
        slope_b = (second_price - first_price) / np.maximum(second_turn - first_turn, 1)
        slope_c = (closed - second_price) / np.maximum(last - second_turn, 1)
        start_b = first_price - slope_b * first_turn
        start_c = second_price - slope_c * second_turn
        in_a, in_c = slots <= first_turn[:, None], slots > second_turn[:, None]
        path = np.where(in_a, slope_a[:, None], np.where(in_c, slope_c[:, None], slope_b[:, None]))
        path *= slots
        path += np.where(in_a, opened[:, None], np.where(in_c, start_c[:, None], start_b[:, None]))
        noise = bit_field(bits, 0, 16) - 32_768.0
        noise *= ((high - low) / (8 * 32_768))[:, None]  # up to an eighth of the range
        path += noise
        path /= self._grid
        np.rint(path, out=path)
        price: IntArray = path.astype(np.int64)
        price *= self._grid
        np.clip(price, low[:, None], high[:, None], out=price)
        lines = np.arange(len(positions))
        price[lines, first_turn] = first_price
        price[lines, second_turn] = second_price
        price[:, 0] = opened
        price[lines, last] = closed
        return price

    def _volumes(
        self, positions: NDArray[Any], count: IntArray, slots: IntArray, bits: DrawArray
    ) -> IntArray:
        """Many small shares and few large ones, each at least one unit."""
        used = slots < count[:, None]
        share = np.divide(used, bit_field(bits, 16, 16) + 1_500.0)
        np.cumsum(share, axis=1, out=share)
        share /= share[:, -1:]
        total = self._volume_sums[positions + 1] - self._volume_sums[positions]
        share *= (total - count)[:, None]
        # The last share is 1.0, so the floors end at exactly what is to be dealt.
        np.floor(share, out=share)
        volume: IntArray = np.diff(share.astype(np.int64), axis=1, prepend=0)
        volume += used
        return volume


class TradeTable(MinuteTable):
    """Minutes whose trades are given one by one: few of them, for what a script makes happen.

    Args:
        size: Minutes, those without a trade too.
        minutes: The trades of each live minute, ascending: milliseconds within the minute,
            price, volume, and whether the taker bought.
    """

    def __init__(
        self, size: int, minutes: Mapping[int, Sequence[tuple[int, int, int, bool]]]
    ) -> None:
        prices = [[trade[1] for trade in trades] for trades in minutes.values()]
        volumes = [sum(trade[2] for trade in trades) for trades in minutes.values()]
        super().__init__(
            size,
            np.array(list(minutes), np.int64),
            [np.array([of(line) for line in prices], np.int64) for of in (_first, max, min, _last)],
            np.array(volumes, np.int64),
            np.array([len(line) for line in prices], np.int64),
        )
        width = int(self.count.max(initial=1))
        self._offset, self._price, self._volume = (
            np.full((self.live, width), unused, np.int64) for unused in (_MINUTE_MS, 0, 0)
        )
        self._buys = np.zeros((self.live, width), np.bool_)
        for line, trades in enumerate(minutes.values()):
            columns = (self._offset, self._price, self._volume, self._buys)
            for column, values in zip(columns, zip(*trades, strict=True), strict=True):
                column[line, : len(trades)] = values
        high, low = _values(self._price, self._volume)
        self._sum_up(high, low, np.where(self._buys, 0, self._volume).sum(axis=1))

    def trades(self, positions: IntArray) -> TradeBlock:
        """All trades of these live minutes."""
        return TradeBlock(
            self.count[positions].astype(np.int64),
            self._offset[positions],
            self._price[positions],
            self._volume[positions],
            self._buys[positions],
        )

    def last_offsets(self, positions: NDArray[Any]) -> IntArray:
        """Milliseconds within its minute of the last trade of each live minute."""
        last: IntArray = self._offset[positions, self.count[positions] - 1]
        return last


def _values(price: IntArray, volume: IntArray) -> tuple[IntArray, IntArray]:
    """The sums of price times volume of each line, as two limbs of `_LIMB_BITS`."""
    # Each product fits; already eight of them may not, where prices have many digits.
    low = price * (volume & _LOW_LIMB)
    carried = (low & _LOW_LIMB).sum(axis=1)
    high = (price * (volume >> _LIMB_BITS) + (low >> _LIMB_BITS)).sum(axis=1)
    return high + (carried >> _LIMB_BITS), carried & _LOW_LIMB


def _first(prices: Sequence[int]) -> int:
    return prices[0]


def _last(prices: Sequence[int]) -> int:
    return prices[-1]


def _offsets(bits: DrawArray) -> IntArray:
    return (bit_field(bits, 33, 24) * _MINUTE_MS) >> 24


def _prefix_sums(column: IntArray) -> IntArray:
    sums = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column, out=sums[1:])
    return sums


def _needed(rows: MinuteRows, most_trades: int) -> IntArray:
    """Trades of each minute: what it wants, at least what its prices need."""
    upper = rows.high > np.maximum(rows.open, rows.close)
    lower = rows.low < np.minimum(rows.open, rows.close)
    flat = rows.high == rows.low
    least = np.where(flat, 1, 2 + upper.astype(np.int64) + lower)
    most = np.maximum(np.minimum(rows.volume, most_trades), least)
    trades: IntArray = np.clip(rows.trades, least, most)
    return trades
