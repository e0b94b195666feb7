"""Which markets the simulator lists, and where each one's prices come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

import msgspec

from upbit_backbone.clock import MINUTE_MS, epoch_ms
from upbit_backbone.price import tick_size
from upbit_backbone.resources import resource_path
from upbit_backbone.simulator.random_numbers import key_of, one_draw
from upbit_backbone.simulator.recordings import RECORDED, TILE_DAYS
from upbit_backbone.simulator.shapes import MEAN_TRADE_UNITS, Shape

TILE_START_MS = 1_756_684_800_000
"""2025-09-01T00:00Z, a Monday: row 0 of a table that is not shifted."""

BOOK_LEVELS = 30

_SPANS = (8, 40, 160, 640, 2_560, 10_240, 40_960)
_KRW_PACES = (360, 150, 60, 20)  # trades an hour
_OTHER_PACES = (8, 2)  # BTC and USDT markets are almost idle
_WELL_KNOWN = frozenset({"KRW-ETH", "KRW-ADA", "KRW-LINK", "KRW-TRX", "KRW-XLM", "KRW-ETC"})
_TRADE_VALUE = {"KRW": 400_000.0, "BTC": 0.002, "USDT": 250.0}
"""What an invented trade moves on average, in the quote asset."""


@dataclass(frozen=True)
class Scale:
    """How the integers of a table become prices and volumes of a market.

    A price is ``(base + step * p) * unit`` in the quote asset, a volume ``factor * w`` in
    1e-8 of the base asset, for `p` and `w` of the table. Both stay integers until they are
    written, so a table's exact sums become a market's exact sums.
    """

    unit: Fraction
    base: int = 0
    step: int = 1
    factor: int = 1
    grid: int = 1
    """The tick in units."""

    def price(self, p: int) -> int:
        """Units of the market."""
        return self.base + self.step * p

    def value(self, value: int, volume: int) -> int:
        """Sum of price times volume of the market, from the table's sums."""
        return self.factor * (self.base * volume + self.step * value)


@dataclass(frozen=True)
class Listing:
    """One listed market."""

    symbol: str
    korean_name: str
    english_name: str
    listed_ms: int
    """Before this instant, a whole minute, it had no trade."""
    table: Shape | str
    """A shape, or the symbol of a recording."""
    shift_days: int
    """Row 0 of the table stands for so many days before the start of the tile."""
    scale: Scale


class _Entry(msgspec.Struct, frozen=True):
    market: str
    korean_name: str
    english_name: str
    listed: datetime
    price: float


def load_listings(*, as_recorded: bool) -> list[Listing]:
    """All markets in the exchange's order, or the recorded ones alone.

    As recorded, a market's history begins with its recording.
    """
    entries = msgspec.json.decode(
        resource_path("market/markets.json").read_bytes(), type=list[_Entry]
    )
    if as_recorded:
        return [_recorded(entry, TILE_START_MS) for entry in entries if _is_recorded(entry)]
    taken: dict[tuple[int, int], int] = {}
    return [
        _recorded(entry, epoch_ms(entry.listed)) if _is_recorded(entry) else _invented(entry, taken)
        for entry in entries
    ]


def _is_recorded(entry: _Entry) -> bool:
    return entry.market in RECORDED


def _recorded(entry: _Entry, listed_ms: int) -> Listing:
    written = RECORDED[entry.market]
    return Listing(
        symbol=entry.market,
        korean_name=entry.korean_name,
        english_name=entry.english_name,
        listed_ms=listed_ms,
        table=entry.market,
        shift_days=0,
        scale=Scale(unit=written.unit, grid=written.grid),
    )


def _invented(entry: _Entry, taken: dict[tuple[int, int], int]) -> Listing:
    quote = entry.market.partition("-")[0]
    span, scale = _placed(entry.market, entry.price)
    key = key_of("market", entry.market)
    paces = _KRW_PACES if quote == "KRW" else _OTHER_PACES
    pace = paces[0 if entry.market in _WELL_KNOWN else one_draw(key, 0) % len(paces)]
    # Markets of one shape are told apart by their days; when those run out, by another
    # variant of the shape. So no two markets are copies of each other.
    ordinal = taken.get((span, pace), 0)
    taken[span, pace] = ordinal + 1
    return Listing(
        symbol=entry.market,
        korean_name=entry.korean_name,
        english_name=entry.english_name,
        listed_ms=epoch_ms(entry.listed) // MINUTE_MS * MINUTE_MS,
        table=Shape(span, pace, variant=ordinal // TILE_DAYS),
        shift_days=ordinal * 11 % TILE_DAYS,
        scale=scale,
    )


def _placed(symbol: str, level: float) -> tuple[int, Scale]:
    """Lay a shape around a price level, so that it fills about a quarter of it.

    The whole range and the book above it lie in one band of tick sizes, so every price is
    on the exchange's grid.
    """
    tick = tick_size(symbol, level)
    ticks = max(round(level / float(tick)), 12)  # cheaper ones would fall to 0
    wanted = ticks // 4
    span = max((span for span in _SPANS if span <= wanted), default=_SPANS[0])
    step = max(1, wanted // span)
    height = span * step

    def fits(base: int) -> bool:
        ends = (base, base + height + BOOK_LEVELS + 1)
        return base > 0 and all(tick_size(symbol, float(tick * end)) == tick for end in ends)

    middle = ticks - height // 2
    nudges = (sign * away * height // 8 for away in range(64) for sign in (1, -1))
    base = next(middle + nudge for nudge in nudges if fits(middle + nudge))
    price = float(tick * ticks)
    quote = symbol.partition("-")[0]
    volume_units = _TRADE_VALUE[quote] / price * 1e8
    # An odd factor, so that volumes have as many decimals as the exchange's.
    factor = 2 * math.floor(volume_units / MEAN_TRADE_UNITS / 2) + 1
    return span, Scale(unit=Fraction(tick), base=base, step=step, factor=factor)
