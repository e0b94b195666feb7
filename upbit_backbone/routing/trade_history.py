"""Reading trades back: page by page, newest first, over the borders of UTC days."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from upbit_backbone.clock import DAY_MS, SECOND_MS, Clock, epoch_ms
from upbit_backbone.errors import DataUnavailableError, ProtocolError
from upbit_backbone.models import Trade
from upbit_backbone.protocol import MAX_PAGE_TRADES

OLDEST_DAY = 7
"""How many UTC days back single trades are to be had."""
FIRST_PAGE = 100
"""A short break has few trades; a page of 500 takes longer, and most of it would be known."""
NEAR_MIDNIGHT_MS = 10_000
"""Clocks are a little apart, and a request may wait for its limit: so near to midnight the
exchange may count its days from another one than we do."""


class ReadTrades(Protocol):
    """Asks for one page of one symbol's trades, newest first."""

    def __call__(
        self, *, count: int, to_ms: int | None, cursor: int | None, days_ago: int | None
    ) -> Awaitable[tuple[Trade, ...]]: ...


async def walk_back(
    read: ReadTrades, clock: Clock, *, since_ms: int, until_ms: int | None = None
) -> AsyncIterator[tuple[Trade, ...]]:
    """Yield pages until one reaches `since_ms`.

    A page may hold trades outside the range at both ends. A cursor does not leave its UTC day,
    so each day is walked by itself.

    Args:
        read: Asks for a page.
        clock: The exchange's time; it says which day is today, for each page anew.
        since_ms: Trades from this instant on are wanted.
        until_ms: And up to this one (inclusive); None: up to now.

    Raises:
        DataUnavailableError: `since_ms` lies further back than trades are kept; what is kept
            was yielded.
        ProtocolError: the exchange gives the same trades again.
        BackboneError: as `read` raises it.
    """
    # The exchange may have come to the next day already.
    last_ms = clock.now_ms() + NEAR_MIDNIGHT_MS if until_ms is None else until_ms
    day, first_day = last_ms // DAY_MS, since_ms // DAY_MS
    # The page's end is floored to the second and exclusive.
    to_ms = None if until_ms is None else (until_ms // SECOND_MS + 1) * SECOND_MS
    if to_ms is not None and (to_ms // DAY_MS != day or to_ms > clock.now_ms()):
        to_ms = None  # up to the day's end
    count, cursor = FIRST_PAGE, None
    while day >= first_day:
        page: tuple[Trade, ...] = ()
        for days_ago in _names(day, clock.now_ms()):
            page = await read(count=count, to_ms=to_ms, cursor=cursor, days_ago=days_ago or None)
            if page and _day(page[0]) == day:
                break
            page = ()
        if not page:
            # Only an empty page ends a day: a short one was seen to lack rows in its middle.
            day, cursor, to_ms = day - 1, None, None
            continue
        oldest = page[-1]
        if cursor is not None and oldest.sequential_id >= cursor:
            raise ProtocolError(
                f"trades of {oldest.symbol}: the exchange gave the same ones again, for it did"
                " not obey the cursor"
            )
        yield page
        if epoch_ms(oldest.exchange_time) < since_ms:
            return
        cursor, count, to_ms = oldest.sequential_id, MAX_PAGE_TRADES, None


def _names(day: int, now_ms: int) -> list[int]:
    """How many days ago a day may be for the exchange, in this order; none: not yet begun.

    Should midnight pass between two questions, the second is the right one.

    Raises:
        DataUnavailableError: it is too long ago.
    """
    ours = now_ms // DAY_MS
    if ours - day > OLDEST_DAY:
        raise DataUnavailableError(
            f"trades are kept for {OLDEST_DAY} days: older ones cannot be had"
        )
    todays = {ours, (now_ms + NEAR_MIDNIGHT_MS) // DAY_MS, (now_ms - NEAR_MIDNIGHT_MS) // DAY_MS}
    return [today - day for today in sorted(todays) if 0 <= today - day <= OLDEST_DAY]


def _day(trade: Trade) -> int:
    return epoch_ms(trade.exchange_time) // DAY_MS
