"""Which markets the simulator lists, and where each one's prices come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

import msgspec

from upbit_backbone.clock import MINUTE_MS, epoch_ms, utc_datetime
from upbit_backbone.price import tick_size
from upbit_backbone.resources import resource_path
from upbit_backbone.simulator.random_numbers import key_of, one_draw
from upbit_backbone.simulator.recordings import RECORDED, TILE_DAYS
from upbit_backbone.simulator.shapes import MEAN_TRADE_UNITS, Shape

TILE_START_MS = 1_756_684_800_000
"""2025-09-01T00:00Z, a Monday: row 0 of a table that is not shifted."""

BOOK_LEVELS = 30

WARNING = "WARNING"
CAUTIONS = (
    "PRICE_FLUCTUATIONS",
    "TRADING_VOLUME_SOARING",
    "DEPOSIT_AMOUNT_SOARING",
    "GLOBAL_PRICE_DIFFERENCES",
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)
_DESIGNATED_OF_855 = {
    WARNING: 18,
    "GLOBAL_PRICE_DIFFERENCES": 188,
    "PRICE_FLUCTUATIONS": 20,
    "TRADING_VOLUME_SOARING": 20,
    "DEPOSIT_AMOUNT_SOARING": 10,
    "CONCENTRATION_OF_SMALL_ACCOUNTS": 10,
}
"""Of 855 markets in September 2026 18 had a warning and about 233 some caution, 188 of them
for prices elsewhere (upbit-api, section 7); how the others divide is not known."""

_SPANS = (8, 24, 72, 216, 648, 1_944, 5_832, 17_496, 40_960)
"""In ticks, each three times the one before: a price then moves in steps of one or two."""
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

    def refined(self, tick: Fraction) -> Scale:
        """The same prices in a unit of which `tick` too is a multiple."""
        finer = (self.unit / tick).numerator
        return replace(
            self,
            unit=self.unit / finer,
            base=self.base * finer,
            step=self.step * finer,
            grid=self.grid * finer,
        )


class Switch(NamedTuple):
    """A warning or caution that is set or taken away."""

    at_ms: int
    name: str
    """`WARNING`, or one of `CAUTIONS`."""
    on: bool


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
    announced_ms: int | None = None
    """When it was said that it will be delisted."""
    delisting_ms: int | None = None
    """From then on the exchange knows nothing of it, its history included."""
    switches: tuple[Switch, ...] = ()
    """In order of time."""

    def is_known(self, now_ms: int) -> bool:
        """Does the exchange answer questions about it, be it that nothing was traded yet?"""
        return self.delisting_ms is None or now_ms < self.delisting_ms

    def is_listed(self, now_ms: int) -> bool:
        """Is it in the list of all markets?"""
        return self.listed_ms <= now_ms and self.is_known(now_ms)

    def state(self, now_ms: int) -> str:
        """What its ticker says: `PREVIEW`, `ACTIVE` or `DELISTED`."""
        if now_ms < self.listed_ms:
            return "PREVIEW"
        return "ACTIVE" if self.is_known(now_ms) else "DELISTED"

    def announced_delisting_ms(self, now_ms: int) -> int | None:
        """When it will be delisted, once that was announced."""
        if self.announced_ms is None or now_ms < self.announced_ms:
            return None
        return self.delisting_ms

    def has_warning(self, now_ms: int) -> bool:
        """Is it under an investment warning?"""
        return WARNING in self._designations(now_ms)

    def cautions(self, now_ms: int) -> frozenset[str]:
        """Which of `CAUTIONS` are on."""
        return self._designations(now_ms) - {WARNING}

    def _designations(self, now_ms: int) -> frozenset[str]:
        state = {switch.name: switch.on for switch in self.switches if switch.at_ms <= now_ms}
        return frozenset(name for name, on in state.items() if on)


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


def new_listing(
    symbol: str, korean_name: str, english_name: str, listed_ms: int, price: float
) -> Listing:
    """An invented market that is not among the shipped ones."""
    entry = _Entry(symbol, korean_name, english_name, utc_datetime(listed_ms), price)
    return _invented(entry, {})


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
        switches=_usual_switches(entry.market),
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
        switches=_usual_switches(entry.market),
    )


def _usual_switches(symbol: str) -> tuple[Switch, ...]:
    """What a market is designated as from the beginning: flags are the normal state."""
    return tuple(
        Switch(0, name, on=True)
        for name, of_855 in _DESIGNATED_OF_855.items()
        if one_draw(key_of("designation", name, symbol), 0) % 855 < of_855
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
