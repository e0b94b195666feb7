"""Reading trades back: page by page, newest first, over the borders of UTC days."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from upbit_backbone.clock import DAY_MS, Clock, epoch_ms
from upbit_backbone.models import Trade
from upbit_backbone.protocol import MAX_PAGE_TRADES
from upbit_backbone.trade_pages import NEAR_MIDNIGHT_MS, TradeWalk, page_end_ms

FIRST_PAGE = 100
"""A short break has few trades; a page of 500 takes longer, and most of it would be known."""


class ReadTrades(Protocol):
    """Asks for one page of one symbol's trades, newest first."""

    def __call__(
        self, *, count: int, to_ms: int | None, cursor: int | None, days_ago: int | None
    ) -> Awaitable[tuple[Trade, ...]]: ...


async def walk_back(
    read: ReadTrades, clock: Clock, *, since_ms: int, until_ms: int | None = None
) -> AsyncIterator[tuple[Trade, ...]]:
    """Yield pages until one reaches `since_ms`; they may hold trades outside of the range.

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
    to_ms = None if until_ms is None else page_end_ms(until_ms + 1)
    if to_ms is not None and to_ms > clock.now_ms():
        to_ms = None
    walk = TradeWalk(last_ms // DAY_MS, since_ms // DAY_MS, to_ms=to_ms)
    count = FIRST_PAGE
    while (question := walk.next(clock.now_ms())) is not None:
        page = await read(
            count=count,
            to_ms=question.to_ms,
            cursor=question.cursor,
            days_ago=question.days_ago,
        )
        if not walk.take(page):
            continue
        yield page
        if epoch_ms(page[-1].exchange_time) < since_ms:
            return
        count = MAX_PAGE_TRADES
