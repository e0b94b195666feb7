"""The regimes that a script parts a market into.

A move adds the same amount to all later prices, so a table's exact sums remain exact. The
minutes in which it happens are given trade by trade. A tick-size change lays the table's
prices on another grid. A silence or a maintenance is a hole between two regimes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS, epoch_ms
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.markets import TILE_START_MS, Listing, Scale
from upbit_backbone.simulator.random_numbers import IntArray
from upbit_backbone.simulator.regime import Regime, Trade
from upbit_backbone.simulator.script import (
    Event,
    Maintenance,
    Move,
    Silence,
    TickSize,
    minutes_of,
    refused,
    tick_of,
)
from upbit_backbone.simulator.shapes import Shape
from upbit_backbone.simulator.table import MINUTES_PER_DAY, MinuteRows, MinuteTable, TradeTable


class Regridded(NamedTuple):
    """The name of a table whose prices were laid on another grid.

    A price `p` of the old table becomes ``(base + step * p) / grid``, rounded.
    """

    table: Shape | str
    base: int
    step: int
    grid: int


TableName = Shape | str | Regridded

_FOR_EVER_MS = 1 << 62
_LARGEST_PRICE = 1 << 31
"""A table's prices are 32-bit integers."""
_ALL = 1 << 30


class _Phase(NamedTuple):
    """A regime before holes are cut into it."""

    table: MinuteTable
    scale: Scale
    origin_ms: int
    from_ms: int
    until_ms: int | None
    repeats: bool

    def regime(self, from_ms: int, until_ms: int | None) -> Regime:
        return Regime(
            self.table,
            self.scale,
            origin_ms=self.origin_ms,
            from_ms=from_ms,
            until_ms=until_ms,
            repeats=self.repeats,
        )


def regridded_rows(rows: MinuteRows, name: Regridded) -> MinuteRows:
    """The minutes of a table on another grid; rounding keeps their order of prices."""

    def laid(prices: IntArray) -> IntArray:
        return (name.base + name.step * prices + name.grid // 2) // name.grid

    return replace(
        rows,
        open=laid(rows.open),
        high=laid(rows.high),
        low=laid(rows.low),
        close=laid(rows.close),
    )


def scripted_market(
    listing: Listing,
    events: Sequence[Event],
    table_of: Callable[[TableName], MinuteTable],
    *,
    repeats: bool,
) -> Market:
    """The market of a listing as a script has it.

    Args:
        listing: As `scripted_listings` gives it.
        events: What happens to it, in order of time.
        table_of: Builds a table; about 0.2 s for one that is not there yet.
        repeats: False if tables are served once.
    """
    phases = _Phases(listing, table_of, repeats=repeats)
    for event in events:
        if isinstance(event, Move):
            phases.move(event)
        elif isinstance(event, TickSize):
            phases.change_tick(event)
    holes = [
        (epoch_ms(event.start), epoch_ms(event.end))
        for event in events
        if isinstance(event, Silence | Maintenance)
    ]
    if listing.delisting_ms is not None:
        holes.append((listing.delisting_ms, _FOR_EVER_MS))
    holes.sort()
    regimes = [regime for phase in phases.all() for regime in _without(phase, holes)]
    return Market(
        listing, regimes or [phases.all()[0].regime(listing.listed_ms, listing.listed_ms)]
    )


class _Phases:
    """Grows by one event after the other."""

    def __init__(
        self, listing: Listing, table_of: Callable[[TableName], MinuteTable], *, repeats: bool
    ) -> None:
        self._listing = listing
        self._table_of = table_of
        self._name: TableName = listing.table
        self._over: list[_Phase] = []
        self._current = _Phase(
            table_of(listing.table),
            listing.scale,
            origin_ms=TILE_START_MS - listing.shift_days * DAY_MS,
            from_ms=listing.listed_ms,
            until_ms=None,
            repeats=repeats,
        )

    def all(self) -> list[_Phase]:
        """Those that are over, and the one that never is."""
        return [*self._over, self._current]

    def move(self, event: Move) -> None:
        """Shift all prices from the event on, over its length."""
        from_ms, until_ms = minutes_of(event)
        at_ms = epoch_ms(event.at)
        market = Market(self._listing, [_whole(phase) for phase in self.all()])
        last = market.last_trade_before(at_ms)
        price = (last or market.next_trades(at_ms)[0]).price
        scale = self._current.scale
        shift = round(event.change * price / scale.grid) * scale.grid
        trades = market.trades_back(
            from_ms=from_ms, before_ms=until_ms, before_id=None, count=_ALL
        )[::-1]
        table = market.table
        moved = _moved(
            trades,
            event,
            grid=scale.grid,
            shift=shift,
            price=price,
            volume=scale.factor * max(table.whole.volume // table.trade_count, 1),
        )
        origin_ms = from_ms // DAY_MS * DAY_MS
        days = -(-(until_ms - origin_ms) // DAY_MS)
        given = _Phase(
            TradeTable(days * MINUTES_PER_DAY, _by_minute(moved, origin_ms, scale.factor)),
            Scale(unit=scale.unit, grid=scale.grid, factor=scale.factor),
            origin_ms,
            from_ms,
            until_ms,
            repeats=False,
        )
        self._end_current(from_ms)
        self._over.append(given)
        self._current = self._current._replace(
            scale=replace(scale, base=scale.base + shift), from_ms=until_ms
        )
        self._check_lowest(event)
        self._check_digits(event)

    def change_tick(self, event: TickSize) -> None:
        """Lay all later prices on another grid."""
        at_ms = epoch_ms(event.at)
        self._check_digits(event)  # before a table is made of them
        scale = self._current.scale
        grid = int(tick_of(event) / scale.unit)
        name = Regridded(self._listing.table, scale.base, scale.step, grid)
        if isinstance(self._name, Regridded):
            # From the table that the listing names, so that nothing is rounded twice: since
            # the change before, the base holds what moves have added.
            before = self._name
            name = Regridded(before.table, before.base + scale.base, before.step, grid)
        self._name = name
        self._end_current(at_ms)
        self._current = self._current._replace(
            table=self._table_of(name),
            scale=replace(scale, base=0, step=grid, grid=grid),
            from_ms=at_ms,
        )
        self._check_lowest(event)

    def _check_lowest(self, event: Move | TickSize) -> None:
        scale = self._current.scale
        # A bid below it needs room too.
        if scale.price(int(self._current.table.low.min())) < 2 * scale.grid:
            smaller = "tick_size" if isinstance(event, TickSize) else "change"
            raise refused(event, f"takes its lowest price to nothing: give a smaller {smaller}")

    def _check_digits(self, event: Move | TickSize) -> None:
        if self._current.scale.price(int(self._current.table.high.max())) >= _LARGEST_PRICE:
            raise refused(event, "needs more digits than a price has: give a larger tick_size")

    def _end_current(self, at_ms: int) -> None:
        if at_ms > self._current.from_ms:
            self._over.append(self._current._replace(until_ms=at_ms))


def _moved(
    trades: Sequence[Trade], event: Move, *, grid: int, shift: int, price: int, volume: int
) -> list[Trade]:
    """The trades of some minutes while the price moves by `shift`.

    Args:
        trades: As they would be, oldest first.
        event: The move.
        grid: The tick.
        shift: How far the price has moved in the end.
        price: The last one before the move.
        volume: Of the trades that are added, one a second.
    """
    at_ms = epoch_ms(event.at)
    length_ms = round(event.over_s * SECOND_MS)
    end_ms = minutes_of(event)[1]

    def moved_by(ms: int) -> int:
        if ms < at_ms:
            return 0
        if ms >= at_ms + length_ms:
            return shift
        return round(shift * (ms - at_ms) / length_ms / grid) * grid

    times = [trade.time_ms for trade in trades]
    added = []
    for ms in range(at_ms + min(length_ms, SECOND_MS), at_ms + length_ms + 1, SECOND_MS):
        before = bisect_right(times, ms) - 1
        usual = trades[before].price if before >= 0 else price
        # The last one of a move that ends with a minute belongs to that minute.
        done_ms = min(ms, end_ms - 1)
        added.append(Trade(done_ms, 0, usual + moved_by(ms), volume, shift > 0))
    shifted = [trade._replace(price=trade.price + moved_by(trade.time_ms)) for trade in trades]
    return sorted([*shifted, *added], key=_time_of)


def _time_of(trade: Trade) -> int:
    return trade.time_ms


def _by_minute(
    trades: Iterable[Trade], origin_ms: int, factor: int
) -> dict[int, list[tuple[int, int, int, bool]]]:
    # All volumes of a market are multiples of its factor; those of a cheap coin alone would
    # not fit into a table's integers.
    minutes: dict[int, list[tuple[int, int, int, bool]]] = {}
    for trade in trades:
        minute, offset_ms = divmod(trade.time_ms - origin_ms, MINUTE_MS)
        line = (offset_ms, trade.price, trade.volume // factor, trade.taker_buys)
        minutes.setdefault(minute, []).append(line)
    return minutes


def _whole(phase: _Phase) -> Regime:
    return phase.regime(phase.from_ms, phase.until_ms)


def _without(phase: _Phase, holes: Iterable[tuple[int, int]]) -> list[Regime]:
    """What holes, in order of time, leave of a phase."""
    left: list[Regime] = []
    from_ms = phase.from_ms
    end_ms = _FOR_EVER_MS if phase.until_ms is None else phase.until_ms
    for hole_from_ms, hole_until_ms in holes:
        if hole_from_ms >= end_ms:
            break
        if from_ms < hole_from_ms:
            left.append(phase.regime(from_ms, hole_from_ms))
        from_ms = max(from_ms, hole_until_ms)
    if from_ms < end_ms:
        left.append(phase.regime(from_ms, phase.until_ms))
    return left
