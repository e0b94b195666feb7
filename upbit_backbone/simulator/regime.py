"""A stretch of time in which a market follows one table by one scale.

Everything that can be asked follows from the table: there is no state that a running
simulator builds up. Spans are half-open, so "up to now" is ``before_ms = now + 1``. The
work of any question is bounded, however far its instant lies from the recording or from
the start of the process.

Most markets have one regime, from their listing on for ever; a script parts others into
several (`script.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.simulator.markets import Scale
from upbit_backbone.simulator.table import MinuteTable, Totals, TradeBlock

IDS_PER_MS = 10_000
_MINUTES_KEPT = 8
_FEWEST_MINUTES_AT_ONCE, _MOST_MINUTES_AT_ONCE = 4, 512


class Trade(NamedTuple):
    """One execution."""

    time_ms: int
    sequential_id: int
    """10,000 times the milliseconds, plus the place within its minute: ascending with time."""
    price: int
    """In units of the market's scale."""
    volume: int
    """In 1e-8."""
    taker_buys: bool


class Span(NamedTuple):
    """What the trades of a span of time add up to; prices in units, volume in 1e-8."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    sold: int
    last_trade_ms: int


class _Minute:
    """The trades of one minute with their running sums."""

    def __init__(self, trades: list[Trade]) -> None:
        self.trades = trades
        self.times = [trade.time_ms for trade in trades]
        volumes = accumulate((trade.volume for trade in trades), initial=0)
        values = accumulate((trade.price * trade.volume for trade in trades), initial=0)
        sold = accumulate((0 if trade.taker_buys else trade.volume for trade in trades), initial=0)
        self.totals = [Totals(*sums) for sums in zip(volumes, values, sold, strict=True)]


class Cut(NamedTuple):
    """Where an instant cuts the market's trades in two."""

    position: int
    """Of the first live minute that is not over."""
    trades: tuple[Trade, ...]
    """Of that minute, those before the instant."""
    totals: Totals
    """Over all trades before the instant; only differences of two mean anything."""
    regime: int = 0
    """The number of the market's regime that the instant lies in, or that ended before it."""


class Regime:
    """A window of a table.

    Live minutes are named by position as in the table, counted on through its repetitions
    into the past (negative) and the future.

    Args:
        table: Which minutes.
        scale: How they become prices and volumes.
        origin_ms: When row 0 begins, at 00:00 UTC.
        from_ms: Nothing is traded before this instant, a whole minute.
        until_ms: Nor from this one on; None if it has no end.
        repeats: False if the table is served once, and nothing follows or precedes it.
    """

    def __init__(
        self,
        table: MinuteTable,
        scale: Scale,
        *,
        origin_ms: int,
        from_ms: int,
        until_ms: int | None = None,
        repeats: bool = True,
    ) -> None:
        self.table = table
        self.scale = scale
        self.repeats = repeats
        self.from_ms = from_ms
        self.until_ms = until_ms
        self._origin_ms = origin_ms
        self.first = self.position(self.minute_of(from_ms))
        """Position of the first live minute."""
        self.end: int | None = None
        """Position after the last live minute; None if there is no last one."""
        if until_ms is not None:
            self.end = self.position(self.minute_of(until_ms))
        elif not repeats:
            self.end = table.live
        self._minutes: OrderedDict[int, _Minute] = OrderedDict()

    def within(self, ms: int) -> int:
        """The instant of the window that is nearest to another."""
        ms = max(ms, self.from_ms)
        return ms if self.until_ms is None else min(ms, self.until_ms)

    def minute_of(self, ms: int) -> int:
        """The minute of an instant, counted from row 0 of the table."""
        return (ms - self._origin_ms) // MINUTE_MS

    def start_ms(self, minute: int) -> int:
        """When a minute begins."""
        return self._origin_ms + minute * MINUTE_MS

    def position(self, minute: int) -> int:
        """Of the first live minute that does not lie before this one."""
        tile, row = self.place(minute, self.table.size)
        return tile * self.table.live + self.table.position(row)

    def place(self, number: int, size: int) -> tuple[int, int]:
        """Which repetition of a table of `size` a number falls into, and where in it."""
        if not self.repeats:
            number = min(max(number, 0), size)
        return divmod(number, size)

    def is_live(self, position: int) -> bool:
        """Is there such a live minute?"""
        return position >= self.first and (self.end is None or position < self.end)

    def live_minute(self, position: int) -> int:
        """The minute of a position."""
        tile, inside = divmod(position, self.table.live)
        return tile * self.table.size + int(self.table.minute[inside])

    def cut(self, before_ms: int) -> Cut:
        """Part the trades before an instant from the others."""
        before_ms = self.within(before_ms)
        minute = self.minute_of(before_ms)
        position = self.position(minute)
        totals = self.totals(position)
        if not self.is_live(position) or self.live_minute(position) != minute:
            return Cut(position, (), totals)
        current = self._minute(position)
        used = bisect_left(current.times, before_ms)
        partial = current.totals[used]
        return Cut(
            position,
            tuple(current.trades[:used]),
            Totals(
                totals.volume + partial.volume,
                totals.value + partial.value,
                totals.sold + partial.sold,
            ),
        )

    def last_trade(self, cut: Cut) -> Trade | None:
        """The newest trade before a cut; None before the first."""
        if cut.trades:
            return cut.trades[-1]
        if not self.is_live(cut.position - 1):
            return None
        return self._minute(cut.position - 1).trades[-1]

    def last_trade_before(self, ms: int) -> Trade | None:
        """`last_trade` of the cut at an instant, without the sums that a cut costs."""
        ms = self.within(ms)
        minute = self.minute_of(ms)
        position = self.position(minute)
        if self.is_live(position) and self.live_minute(position) == minute:
            current = self._minute(position)
            if used := bisect_left(current.times, ms):
                return current.trades[used - 1]
        return self._minute(position - 1).trades[-1] if self.is_live(position - 1) else None

    def next_trades(self, after_ms: int) -> list[Trade]:
        """The trades after an instant in the first minute that has any; [] if none follow."""
        cut = self.cut(after_ms + 1)
        for position in (cut.position, cut.position + 1):
            if not self.is_live(position):
                return []
            current = self._minute(position)
            later = current.trades[bisect_left(current.times, after_ms + 1) :]
            if later:
                return later
        raise AssertionError("a live minute has a trade")

    def trades_back(
        self, *, from_ms: int, before_ms: int, before_id: int | None, count: int
    ) -> list[Trade]:
        """At most `count` trades in [from_ms, before_ms), newest first.

        Args:
            from_ms: Start, inclusive.
            before_ms: End, exclusive.
            before_id: Only trades with a smaller `sequential_id`.
            count: At least 1.
        """
        if before_id is not None:
            before_ms = min(before_ms, before_id // IDS_PER_MS + 1)
        cut = self.cut(before_ms)
        found = [trade for trade in reversed(cut.trades) if trade.time_ms >= from_ms]
        if before_id is not None:
            found = [trade for trade in found if trade.sequential_id < before_id]
        stop = max(self.first, self.position(self.minute_of(from_ms)))
        end = cut.position
        per_minute = self.table.trade_count / self.table.live
        while len(found) < count and end > stop:
            # About as many as are wanted: a trade costs more to make than to find.
            expected = int((count - len(found)) / per_minute * 1.25) + 1
            block = min(max(expected, _FEWEST_MINUTES_AT_ONCE), _MOST_MINUTES_AT_ONCE)
            start = max(stop, end - block)
            minutes = self.trades_of(range(start, end))
            found += [
                trade
                for minute in reversed(minutes)
                for trade in reversed(minute)
                if trade.time_ms >= from_ms
            ]
            end = start
        return found[:count]

    def trades_of(self, positions: Sequence[int]) -> list[list[Trade]]:
        """The trades of each of these live minutes, ascending."""
        live = self.table.live
        block = self.table.trades(np.array([position % live for position in positions]))
        return [
            self.line(position, line)
            for position, line in zip(positions, lines_of(block), strict=True)
        ]

    def span(self, from_ms: int, cut: Cut) -> Span | None:
        """What was traded from a full minute to a cut, within one UTC day; None if nothing."""
        first = max(self.first, self.position(self.minute_of(from_ms)))
        whole = cut.position - first
        if whole <= 0 and not cut.trades:
            return None
        opens: list[int] = []
        highs, lows = [], []
        if whole > 0:
            start = first % self.table.live
            opens.append(self.scale.price(int(self.table.open[start])))
            highs.append(self.scale.price(int(self.table.high[start : start + whole].max())))
            lows.append(self.scale.price(int(self.table.low[start : start + whole].min())))
        prices = [trade.price for trade in cut.trades]
        before = self.totals(first)
        last = self.last_trade(cut)
        assert last is not None, "a minute of the span was live"
        return Span(
            open=(opens + prices)[0],
            high=max(highs + prices),
            low=min(lows + prices),
            close=last.price,
            volume=cut.totals.volume - before.volume,
            value=cut.totals.value - before.value,
            sold=cut.totals.sold - before.sold,
            last_trade_ms=last.time_ms,
        )

    def close_before(self, ms: int) -> int | None:
        """The last price before a full minute, in units; None before the first trade."""
        position = self.position(self.minute_of(self.within(ms))) - 1
        if not self.is_live(position):
            return None
        return self.scale.price(int(self.table.close[position % self.table.live]))

    def totals(self, position: int) -> Totals:
        """Sums over all minutes before a position; only differences mean anything."""
        tile, inside = divmod(position, self.table.live)
        whole, part = self.table.whole, self.table.totals(inside)
        # Written out, as in `cut`: every ticker asks for a handful of these.
        volume = tile * whole.volume + part.volume
        value = tile * whole.value + part.value
        sold = tile * whole.sold + part.sold
        return Totals(
            self.scale.factor * volume,
            self.scale.value(value, volume),
            self.scale.factor * sold,
        )

    def line(self, position: int, columns: Iterable[tuple[int, int, int, bool]]) -> list[Trade]:
        """The trades of a live minute from its line of a block."""
        # Written out: this makes every trade that is ever asked for.
        base, step, factor = self.scale.base, self.scale.step, self.scale.factor
        start_ms = self.start_ms(self.live_minute(position))
        return [
            Trade(
                time_ms := start_ms + offset,
                time_ms * IDS_PER_MS + slot,
                base + step * price,
                factor * volume,
                buys,
            )
            for slot, (offset, price, volume, buys) in enumerate(columns)
        ]

    def _minute(self, position: int) -> _Minute:
        current = self._minutes.get(position)
        if current is None:
            current = self.keep(position, self.trades_of([position])[0])
        else:
            self._minutes.move_to_end(position)
        return current

    def keep(self, position: int, trades: list[Trade]) -> _Minute:
        """Have the trades of a live minute at hand for the next questions."""
        current = self._minutes[position] = _Minute(trades)
        if len(self._minutes) > _MINUTES_KEPT:
            self._minutes.popitem(last=False)
        return current

    def missing(self, instants_ms: Iterable[int]) -> list[int]:
        """The live minutes at and before these instants that are not at hand."""
        positions = (self.position(self.minute_of(ms)) for ms in instants_ms)
        around = dict.fromkeys(near for at in positions for near in (at - 1, at))
        return [near for near in around if near not in self._minutes and self.is_live(near)]


def lines_of(block: TradeBlock) -> Iterator[Iterable[tuple[int, int, int, bool]]]:
    """Offset, price, volume and side of the trades of each minute of a block."""
    columns = (block.offset_ms, block.price, block.volume, block.taker_buys)
    for count, *line in zip(
        block.used.tolist(), *(column.tolist() for column in columns), strict=True
    ):
        yield zip(*(values[:count] for values in line), strict=True)
