"""What to ask for, before anything is asked. Pure functions; a plan prints itself.

Candles are planned over what the store misses, in pages on the timeframe's grid; tickers and
books in lists of symbols; trades in UTC days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from upbit_backbone.clock import DAY_MS, epoch_ms, utc_datetime
from upbit_backbone.coordinator.ranges import Range, periods_between
from upbit_backbone.models import Span, Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES, SECONDS_KEPT_DAYS
from upbit_backbone.trade_pages import OLDEST_DAY, TOO_OLD, page_end_ms

UNCONFIRMED = "unconfirmed"
"""Why a span stays unknown of which the exchange showed nothing, until a second reading agrees."""
NOT_ASKED = "not asked yet"
"""Why a span is missing in an answer of what is stored."""
SECONDS_DEPTH_MS = SECONDS_KEPT_DAYS * DAY_MS
"""None of more than that is asked for."""
TOO_OLD_SECONDS = "the exchange keeps candles of one second for three months: ask for 1m instead"
_SHOWN_HOLES = 5


class Page(NamedTuple):
    """One request for candles: the `rows` latest that open before `end_ms`."""

    start_ms: int
    """Where the caller's interest ends; with empty periods the answer reaches below."""
    end_ms: int
    rows: int


class Hole(NamedTuple):
    """A range to be asked for."""

    start_ms: int
    end_ms: int
    doubtful: bool = False
    """The exchange showed nothing there before: one page is enough to see whether that holds."""


@dataclass(frozen=True)
class CandlePlan:
    """Which candles to ask for."""

    timeframe: Timeframe
    holes: tuple[Hole, ...]
    """Ascending and apart; their ends lie on the grid."""
    beyond: tuple[Range, ...] = ()
    """What is missing too, and older than the exchange keeps."""

    @property
    def periods(self) -> int:
        """How many candles the holes hold at most."""
        return sum(periods_between(self.timeframe, *hole[:2]) for hole in self.holes)

    @property
    def pages(self) -> int:
        """How many requests it takes when every period has a candle."""
        return sum(
            -(-periods_between(self.timeframe, *hole[:2]) // MAX_PAGE_CANDLES)
            for hole in self.holes
        )

    def __str__(self) -> str:
        """For people: ``"6 pages of 1m: 2025-09-15 03:00:00 … 2025-09-15 23:00:00 (1,200)"``."""
        if not self.holes:
            return f"nothing to ask of {self.timeframe}"
        shown = ", ".join(
            f"{utc_datetime(hole.start_ms):%Y-%m-%d %H:%M:%S} …"
            f" {utc_datetime(hole.end_ms):%Y-%m-%d %H:%M:%S}"
            f" ({periods_between(self.timeframe, *hole[:2]):,})"
            for hole in self.holes[:_SHOWN_HOLES]
        )
        more = len(self.holes) - _SHOWN_HOLES
        return f"{counted(self.pages, 'page')} of {self.timeframe}: {shown}" + (
            f", and {more} more" if more > 0 else ""
        )


def plan_candles(timeframe: Timeframe, missing: Iterable[Span], *, now_ms: int) -> CandlePlan:
    """Plan what to ask of the bounded spans that a store misses.

    Args:
        timeframe: Of the candles.
        missing: Ascending; both ends on the grid. Open ones are not planned.
        now_ms: The exchange's time: it says what is too old to be had.
    """
    oldest_ms = kept_from_ms(timeframe, now_ms)
    holes: list[Hole] = []
    beyond: list[Range] = []
    for span in missing:
        if span.start is None or span.end is None:
            continue
        start_ms, end_ms = epoch_ms(span.start), epoch_ms(span.end)
        if start_ms < oldest_ms:
            beyond.append(Range(start_ms, min(oldest_ms, end_ms)))
        start_ms = max(start_ms, oldest_ms)
        if start_ms < end_ms:
            holes.append(Hole(start_ms, end_ms, span.reason == UNCONFIRMED))
    return CandlePlan(timeframe, tuple(holes), tuple(beyond))


def kept_from_ms(timeframe: Timeframe, now_ms: int) -> int:
    """From where on the exchange keeps candles; of all but seconds from the beginning."""
    if timeframe is not Timeframe.S1:
        return -(2**62)
    return timeframe.floor_ms(now_ms - SECONDS_DEPTH_MS)


def plan_lists(symbols: Sequence[str], symbols_per_request: int | None) -> list[tuple[str, ...]]:
    """Part the symbols of a request for tickers or books; None: all in one call."""
    size = symbols_per_request or max(1, len(symbols))
    return [tuple(symbols[at : at + size]) for at in range(0, len(symbols), size)]


@dataclass(frozen=True)
class TradePlan:
    """Which UTC days of trades to walk, newest first, and what is no longer kept."""

    start_ms: int | None
    end_ms: int
    """Exclusive."""
    newest_day: int
    """In days since 1970-01-01."""
    oldest_day: int
    to_ms: int | None
    """How far into the newest day its first page reaches, exclusive; None: to the day's end."""
    beyond: Range | None = None
    """The part of the range that is older than the exchange keeps."""

    @property
    def days(self) -> tuple[int, ...]:
        """Newest first; none when all of it is too old."""
        return tuple(range(self.newest_day, self.oldest_day - 1, -1))

    def __str__(self) -> str:
        """For people: ``"trades of 3 days: 2025-09-13 … 2025-09-15"``."""
        days = [f"{utc_datetime(day * DAY_MS):%Y-%m-%d}" for day in self.days]
        return f"trades of {counted(len(days), 'day')}: {days[-1]} … {days[0]}" if days else TOO_OLD


def plan_trades(start_ms: int | None, end_ms: int | None, *, now_ms: int) -> TradePlan:
    """Plan a walk over days from the newest down to a start, or as far as trades are kept.

    Args:
        start_ms: Inclusive; None: as many as are wanted, from the end down.
        end_ms: Exclusive; None: now.
        now_ms: The exchange's time.
    """
    upper_ms = now_ms + 1 if end_ms is None else min(end_ms, now_ms + 1)
    kept_day = now_ms // DAY_MS - OLDEST_DAY
    kept_ms = kept_day * DAY_MS
    oldest_day, beyond = kept_day, None
    if start_ms is not None:
        oldest_day = max(kept_day, start_ms // DAY_MS)
        if start_ms < kept_ms:
            beyond = Range(start_ms, min(kept_ms, upper_ms))
    return TradePlan(
        start_ms,
        upper_ms,
        (upper_ms - 1) // DAY_MS,
        oldest_day,
        None if end_ms is None else page_end_ms(upper_ms),
        beyond,
    )


def counted(number: int, what: str) -> str:
    """``"1 page"``, ``"5 pages"``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
