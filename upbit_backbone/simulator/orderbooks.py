"""The order book of a market at an instant.

Thirty levels a side around the last price, one tick apart. The last trade's side says
which of the two best prices it was done at, so a book never contradicts a trade. The
resting size of a level is drawn anew now and then, each level at its own pace, always on
the market's own grid of time; between two changes the book is the same.

`Orderbooks.at` gives it as it rests, `Orderbooks.grouped` by one of the levels that
`instruments.instrument_at` offers.

After the exchange has made a tick coarser, orders at prices between the new ticks stay until
somebody cancels them: some near the last price, each for up to ten minutes.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.simulator.instruments import instrument_at
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.orderbook_groups import Depth, grouped_asks, grouped_bids
from upbit_backbone.simulator.random_numbers import (
    DrawArray,
    IntArray,
    bit_field,
    draws,
    key_of,
    one_draw,
)
from upbit_backbone.simulator.regime import Trade

_GRID_MS, _COARSE_GRID_MS, _COARSE_PLAY_MS = 100, 200, 100
_FASTEST_STEPS, _SLOWEST_STEPS = 10, 1_200
_SHARES = 64
_OLD_ORDERS_MS = 10 * MINUTE_MS
_OLD_ORDERS_A_SIDE = 12
"""Few enough to be among the thirty best always: a new tick lies between any two."""
_ALWAYS = 1 << 62


class Level(NamedTuple):
    """One price row; 0 and 0 where a cheap market has no room for another bid."""

    price: int
    size: int


_size_of = attrgetter("size")


class Orderbook(NamedTuple):
    """A whole book, best levels first; prices in units of the scale, sizes in 1e-8."""

    changed_ms: int
    asks: list[Level]
    bids: list[Level]
    total_ask_size: int
    """Of all thirty levels."""
    total_bid_size: int
    level: Fraction = Fraction(0)
    """What prices are grouped by, in the quote asset; 0: not at all."""


class Grid:
    """The instants at which a market's book may change, numbered as steps.

    Won markets have one every 100 ms, each market with a phase of its own; in the others 100
    to 300 ms lie between two (measured: upbit-api, section 5.6).
    """

    def __init__(self, key: int, symbol: str) -> None:
        self._key = key
        self._steady = symbol.startswith("KRW-")
        self._phase_ms = one_draw(key, 0) % _GRID_MS
        self.mean_ms = _GRID_MS if self._steady else _COARSE_GRID_MS
        """From one step to the next, on average."""

    def step(self, ms: int) -> int:
        """The last one that does not lie after an instant."""
        if self._steady:
            return (ms - self._phase_ms) // _GRID_MS
        step = ms // _COARSE_GRID_MS
        return step if self.start_ms(step) <= ms else step - 1

    def step_from(self, ms: int) -> int:
        """The first one that does not lie before an instant."""
        return self.step(ms - 1) + 1

    def start_ms(self, step: int) -> int:
        """Its instant."""
        if self._steady:
            return step * _GRID_MS + self._phase_ms
        return step * _COARSE_GRID_MS + one_draw(self._key, step) % (_COARSE_PLAY_MS + 1)


class _Shown(NamedTuple):
    """A book and how long it stays the same, in steps of the grid, while nobody trades."""

    last: Trade
    since: int
    until: int
    book: Orderbook


class _Ladder(NamedTuple):
    """The prices around a trade and the rhythm of each, for a span of steps."""

    trade: Trade
    since: int
    until: int
    prices: IntArray
    keys: DrawArray
    period: IntArray
    phase: IntArray
    own: list[int]
    """Bits that the trade adds to the draw of the level it was done at."""


class _Drawn(NamedTuple):
    """The levels of a ladder at one step."""

    ladder: _Ladder
    turn: IntArray
    levels: list[Level]


class Orderbooks:
    """The order books of one market."""

    def __init__(self, seed: int, market: Market) -> None:
        self._market = market
        self._key = key_of(seed, "book", market.symbol)
        self.grid = Grid(key_of(seed, "grid", market.symbol), market.symbol)
        table = market.table
        volume = market.scale.factor * table.whole.volume
        mean_trade = volume // table.trade_count
        self._share = mean_trade // _SHARES + 1
        # Sizes change about as often as something is traded.
        steps_per_trade = table.size * (MINUTE_MS // self.grid.mean_ms) // table.trade_count
        self._pace = min(max(2 * steps_per_trade, _FASTEST_STEPS), _SLOWEST_STEPS)
        self._shown: _Shown | None = None
        self._shown_step: int | None = None
        self._ladder: _Ladder | None = None
        self._drawn: _Drawn | None = None
        self._depth_key = key_of(seed, "depth", market.symbol)
        self._old_key = key_of(seed, "old orders", market.symbol)
        self._tick_changes = [
            (after.from_ms, before.scale.grid)
            for before, after in pairwise(market.regimes)
            if before.scale.grid != after.scale.grid
        ]
        self._groups: dict[Fraction, tuple[Orderbook, Orderbook]] = {}

    def at(self, now_ms: int) -> Orderbook | None:
        """The book as of the last step of the grid; None before the first trade."""
        shown = self._at(now_ms)
        return None if shown is None else shown.book

    def rests_until_ms(self, now_ms: int) -> int | None:
        """When the book of an instant changes, if nobody trades before; None if there is none."""
        shown = self._at(now_ms)
        return None if shown is None else self.grid.start_ms(shown.until)

    def grouped(self, now_ms: int, level: Fraction) -> Orderbook | None:
        """The book as of the last step of the grid, by a price level in the quote asset.

        Level 0 is the book as it rests.

        Returns:
            None before the first trade, and if the level is not on offer.
        """
        book = self.at(now_ms)
        if book is None or level == 0:
            return book
        source, groups = self._groups.get(level, (None, None))
        if source is not book or groups is None:
            # Which levels are on offer is a matter of the same trade as the book.
            at_ms = self.grid.start_ms(self.grid.step(now_ms))
            instrument = instrument_at(self._market, at_ms)
            if level not in instrument.levels:
                return None
            groups = self._in_groups(book, level, instrument.levels[1], at_ms)
            self._groups[level] = book, groups
        return groups

    def after(self, trade: Trade) -> Orderbook:
        """The book that a trade leaves behind."""
        return self._around(trade, self.grid.step(trade.time_ms)).book

    def best_after(self, trade: Trade) -> tuple[Level, Level]:
        """Best ask and bid of the book that a trade leaves behind, at a tenth of its cost."""
        if self._tick_changes:
            book = self.after(trade)
            return book.asks[0], book.bids[0]
        step = self.grid.step(trade.time_ms)
        grid = self._market.grid_at(self.grid.start_ms(step))
        above, below = trade.price // grid * grid + grid, -(-trade.price // grid) * grid - grid
        ask, bid = (trade.price, below) if trade.taker_buys else (above, trade.price)
        own = one_draw(self._key, trade.sequential_id)
        return (
            self._best(ask, step, own if trade.taker_buys else 0),
            self._best(bid, step, 0 if trade.taker_buys else own),
        )

    def _best(self, price: int, step: int, traded: int) -> Level:
        """As `_around` draws a level, in plain integers."""
        if price <= 0:
            return Level(0, 0)
        key = one_draw(self._key, price)
        period = self._pace << (key & 3)
        phase = (key >> 2 & (1 << 30) - 1) % period
        return Level(price, self._size(key, (step + phase) // period, traded))

    def _size(self, key: int, turn: int, own: int) -> int:
        """As `_levels` draws them all, in plain integers."""
        bits = one_draw(key, turn) ^ own
        shares = 40 * 65_536 // ((bits & 0xFFFF) + 3_000)
        return self._share * shares + (bits >> 16 & 0xFFFFFFFF) % self._share

    def _at(self, now_ms: int) -> _Shown | None:
        step = self.grid.step(now_ms)
        shown = self._shown
        if step == self._shown_step:
            return shown
        last = self._market.last_trade_before(self.grid.start_ms(step) + 1)
        if last is None:
            return None
        if shown is None or shown.last != last or not shown.since <= step < shown.until:
            shown = self._shown = self._around(last, step)
        self._shown_step = step
        return shown

    def _in_groups(
        self, book: Orderbook, level: Fraction, finest: Fraction, at_ms: int
    ) -> Orderbook:
        unit = self._market.scale.unit
        depth = Depth(
            key=self._depth_key,
            cell=int(finest / unit),
            grid=self._market.grid_at(at_ms),
            share=self._share,
        )
        asks = [Level(*row) for row in grouped_asks(book.asks, int(level / unit), depth)]
        bids = [Level(*row) for row in grouped_bids(book.bids, int(level / unit), depth)]
        return Orderbook(
            changed_ms=book.changed_ms,
            asks=asks,
            bids=bids,
            total_ask_size=sum(map(_size_of, asks)),
            total_bid_size=sum(map(_size_of, bids)),
            level=level,
        )

    def _around(self, last: Trade, step: int) -> _Shown:
        ladder = self._ladder
        if ladder is None or ladder.trade != last or not ladder.since <= step < ladder.until:
            ladder = self._ladder = self._new_ladder(last, step)
        since_step, until_step, period, phase = (
            ladder.since,
            ladder.until,
            ladder.period,
            ladder.phase,
        )
        turn = (step + phase) // period
        changed = max(int((turn * period - phase).max()), since_step)
        until = min(int(((turn + 1) * period - phase).min()), until_step)
        levels = self._levels(ladder, turn)
        # A trade between two steps is seen at the second; `after` looks before that.
        since = max(changed, min(self.grid.step_from(last.time_ms), step))
        asks, bids = levels[:BOOK_LEVELS], levels[BOOK_LEVELS:]
        book = Orderbook(
            changed_ms=self.grid.start_ms(since),
            asks=asks,
            bids=bids,
            total_ask_size=sum(map(_size_of, asks)),
            total_bid_size=sum(map(_size_of, bids)),
        )
        return _Shown(last, since, until, book)

    def _levels(self, ladder: _Ladder, turn: IntArray) -> list[Level]:
        """All levels; of a ladder drawn before, only those that changed are drawn anew."""
        drawn = self._drawn
        if drawn is not None and drawn.ladder is ladder:
            levels = drawn.levels.copy()
            for place in np.flatnonzero(turn != drawn.turn).tolist():
                size = self._size(int(ladder.keys[place]), int(turn[place]), ladder.own[place])
                levels[place] = Level(levels[place].price, size if levels[place].price else 0)
        else:
            bits = draws(ladder.keys, turn) ^ np.array(ladder.own, np.uint64)
            # Half to 14 times the mean trade, mostly small. Written out: sizes of the cheapest
            # coins are no 64-bit numbers.
            shares = 40 * 65_536 // (bit_field(bits, 0, 16) + 3_000)
            share = self._share
            levels = [
                Level(price, share * shares + rest % share) if price > 0 else Level(0, 0)
                for price, shares, rest in zip(
                    ladder.prices.tolist(),
                    shares.tolist(),
                    bit_field(bits, 16, 32).tolist(),
                    strict=True,
                )
            ]
        self._drawn = _Drawn(ladder, turn, levels)
        return levels

    def _new_ladder(self, last: Trade, step: int) -> _Ladder:
        prices, since, until = self._prices(last, step)
        keys = draws(self._key, prices)
        period = self._pace << bit_field(keys, 0, 2)
        phase = bit_field(keys, 2, 30) % period
        own = [0] * (2 * BOOK_LEVELS)
        own[0 if last.taker_buys else BOOK_LEVELS] = one_draw(self._key, last.sequential_id)
        return _Ladder(last, since, until, prices, keys, period, phase, own)

    def _prices(self, last: Trade, step: int) -> tuple[IntArray, int, int]:
        """Asks upwards, then bids downwards; the last trade was done at one of the best.

        Also the step from which they are so, and the one up to which, while nobody trades.
        """
        grid = self._market.grid_at(self.grid.start_ms(step))
        above = last.price // grid * grid + grid
        below = -(-last.price // grid) * grid - grid
        steps = np.arange(BOOK_LEVELS) * grid
        asks, bids = above + steps, below - steps
        if last.taker_buys:
            asks = np.concatenate(([last.price], asks[:-1]))
        else:
            bids = np.concatenate(([last.price], bids[:-1]))
        since, until = 0, _ALWAYS
        if self._tick_changes:
            old, since, until = self._old_prices(last.price, grid, step)
            asks = np.sort(np.concatenate((asks, old[old > last.price])))[:BOOK_LEVELS]
            bids = -np.sort(-np.concatenate((bids, old[old < last.price])))[:BOOK_LEVELS]
        prices: IntArray = np.concatenate((asks, bids))
        return prices, since, until

    def _old_prices(self, last_price: int, grid: int, step: int) -> tuple[IntArray, int, int]:
        """Prices between two ticks at which orders from before a change of ticks still rest.

        Also the step since which it is these, and the one at which the next is gone.
        """
        since, until, former = 0, _ALWAYS, grid
        for at_ms, before in self._tick_changes:
            at_step = self.grid.step_from(at_ms)
            if at_step > step:
                until = at_step
                break
            since, former = at_step, before
        middle = last_price // former
        old = np.arange(middle - 2 * BOOK_LEVELS, middle + 2 * BOOK_LEVELS) * former
        old = old[(old % grid != 0) & (old > 0)]
        asks = old[old > last_price][:_OLD_ORDERS_A_SIDE]
        bids = old[old < last_price][-_OLD_ORDERS_A_SIDE:]
        old = np.concatenate((bids, asks))
        stays = bit_field(draws(self._old_key, old), 0, 32) % (_OLD_ORDERS_MS // self.grid.mean_ms)
        gone = since + 1 + stays
        over = gone <= step
        return (
            old[~over],
            max(since, int(gone[over].max(initial=0))),
            min(until, int(gone[~over].min(initial=_ALWAYS))),
        )
