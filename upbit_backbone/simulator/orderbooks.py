"""The order book of a market at an instant.

Thirty levels a side around the last price, one tick apart. The last trade's side says
which of the two best prices it was done at, so a book never contradicts a trade. The
resting size of a level is drawn anew now and then, each level at its own pace, always on
a grid of 200 ms; between two changes the book is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.simulator.market import Market, Trade
from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.random_numbers import IntArray, bit_field, draws, key_of

GRID_MS = 200
_FASTEST_STEPS, _SLOWEST_STEPS = 10, 600
_SHARES = 64


class Level(NamedTuple):
    """One price row; 0 and 0 where a cheap market has no room for another bid."""

    price: int
    size: int


class Orderbook(NamedTuple):
    """A whole book, best levels first; prices in units of the scale, sizes in 1e-8."""

    changed_ms: int
    asks: list[Level]
    bids: list[Level]
    total_ask_size: int
    """Of all thirty levels."""
    total_bid_size: int


class _Shown(NamedTuple):
    """A book and how long it stays the same, in steps of the grid, while nobody trades."""

    last: Trade
    since: int
    until: int
    book: Orderbook


class Orderbooks:
    """The order books of one market."""

    def __init__(self, seed: int, market: Market) -> None:
        self._market = market
        self._key = key_of(seed, "book", market.symbol)
        table = market.table
        volume = market.scale.factor * table.totals(table.live).volume
        mean_trade = volume // table.trade_count
        self._share = mean_trade // _SHARES + 1
        # Sizes change about as often as something is traded.
        steps_per_trade = table.size * (MINUTE_MS // GRID_MS) // table.trade_count
        self._pace = min(max(2 * steps_per_trade, _FASTEST_STEPS), _SLOWEST_STEPS)
        self._shown: _Shown | None = None

    def at(self, now_ms: int) -> Orderbook | None:
        """The book as of the last step of the grid; None before the first trade."""
        step = now_ms // GRID_MS
        last = self._market.last_trade(self._market.cut(step * GRID_MS + 1))
        if last is None:
            return None
        shown = self._shown
        if shown is None or shown.last != last or not shown.since <= step < shown.until:
            shown = self._shown = self._around(last, step)
        return shown.book

    def after(self, trade: Trade) -> Orderbook:
        """The book that a trade leaves behind."""
        return self._around(trade, trade.time_ms // GRID_MS).book

    def _around(self, last: Trade, step: int) -> _Shown:
        prices = self._prices(last)
        keys = draws(self._key, prices)
        period = self._pace << bit_field(keys, 0, 2)
        phase = bit_field(keys, 2, 30) % period
        turn = (step + phase) // period
        changed = int((turn * period - phase).max())
        until = int(((turn + 1) * period - phase).min())
        bits = draws(keys, turn)
        best = 0 if last.taker_buys else BOOK_LEVELS
        bits[best] ^= np.uint64(draws(self._key, np.array([last.sequential_id]))[0])
        # Half to 14 times the mean trade, mostly small.
        shares = 40 * 65_536 // (bit_field(bits, 0, 16) + 3_000)
        sizes = self._share * shares + bit_field(bits, 16, 32) % self._share
        sizes = np.where(prices > 0, sizes, 0)
        prices = np.maximum(prices, 0)
        levels = [Level(*pair) for pair in zip(prices.tolist(), sizes.tolist(), strict=True)]
        # A trade between two steps is seen at the second; `after` looks before that.
        since = max(changed, min(-(-last.time_ms // GRID_MS), step))
        asks, bids = levels[:BOOK_LEVELS], levels[BOOK_LEVELS:]
        book = Orderbook(
            changed_ms=since * GRID_MS,
            asks=asks,
            bids=bids,
            total_ask_size=sum(level.size for level in asks),
            total_bid_size=sum(level.size for level in bids),
        )
        return _Shown(last, since, until, book)

    def _prices(self, last: Trade) -> IntArray:
        """Asks upwards, then bids downwards; the last trade was done at one of the best."""
        grid = self._market.scale.grid
        above = last.price // grid * grid + grid
        below = -(-last.price // grid) * grid - grid
        steps = np.arange(BOOK_LEVELS) * grid
        asks, bids = above + steps, below - steps
        if last.taker_buys:
            asks = np.concatenate(([last.price], asks[:-1]))
        else:
            bids = np.concatenate(([last.price], bids[:-1]))
        prices: IntArray = np.concatenate((asks, bids))
        return prices
