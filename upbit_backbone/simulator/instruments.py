"""The tick of a market at its price, and the levels its order book can be grouped by.

Levels are offered for won markets only. The known examples are KRW-BTC (148 million won):
10,000 to 100,000,000; KRW-ETH (4 million): 10,000 to 1,000,000; KRW-TRX (a few hundred): 1 to
100 (upbit-api, section 2.6). The rule here gives these: the powers of ten from the price's own
down to a hundredth of it, and for dear markets on down to ten ticks.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from upbit_backbone.simulator.market import Market

_TICKS_OF_FINEST_LEVEL = 10
_FINEST_SHARE = 100
_NOT_GROUPED = Fraction(0)


class Instrument(NamedTuple):
    """What ``/orderbook/instruments`` says of a market."""

    symbol: str
    tick: Fraction
    """In the quote asset."""
    levels: tuple[Fraction, ...]
    """Ascending, 0 first: not grouped."""


def instrument_at(market: Market, now_ms: int) -> Instrument:
    """The tick and levels at a market's current price; of its first one until it has any."""
    tick = market.grid_at(now_ms) * market.scale.unit
    last = market.last_trade_before(now_ms + 1)
    trades = [last] if last is not None else market.next_trades(now_ms)
    price = trades[0].price * market.scale.unit if trades else tick
    return Instrument(market.symbol, tick, supported_levels(market.symbol, price, tick))


def supported_levels(symbol: str, price: Fraction, tick: Fraction) -> tuple[Fraction, ...]:
    """By how much the book of a market can be grouped at a price; 0, not at all, always."""
    if not symbol.startswith("KRW-"):
        return (_NOT_GROUPED,)
    coarsest = _power_of_ten(price)
    finest = max(min(coarsest / _FINEST_SHARE, _TICKS_OF_FINEST_LEVEL * tick), tick)
    levels = []
    level = coarsest
    while level >= finest:
        levels.append(level)
        level /= 10
    return (_NOT_GROUPED, *reversed(levels))


def _power_of_ten(price: Fraction) -> Fraction:
    """The largest one that is not above a positive price."""
    power = Fraction(1)
    while power > price:
        power /= 10
    while power * 10 <= price:
        power *= 10
    return power
