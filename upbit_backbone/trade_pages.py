"""Which page of trades to ask for next, from the newest down, over the borders of UTC days.

Pure: the caller passes `now_ms`, asks, and tells what came. Three facts make the walk: a cursor
does not leave its day, so each day is walked by itself; a page may be short although more
follows, so only an empty one ends a day; and the exchange names days by how long ago they are,
by its own clock, so that a name means another day once midnight has passed.

Source: https://docs.upbit.com/kr/reference/list-pair-trades
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from upbit_backbone.clock import DAY_MS, SECOND_MS, epoch_ms
from upbit_backbone.errors import DataUnavailableError, ProtocolError
from upbit_backbone.models import Trade

OLDEST_DAY = 7
"""How many UTC days back single trades are kept."""
TOO_OLD = f"the exchange keeps trades for {OLDEST_DAY} days: ask for candles instead"
LATE_BY_MS = 5_000
"""So much later than others of its time a trade may be told, and so have an id above theirs."""
NEAR_MIDNIGHT_MS = 10_000
"""Clocks are a little apart, and a request may wait for its limit: so near to midnight the
exchange may count its days from another one than we do."""
_LAST_TRADES = 10


class TradeQuestion(NamedTuple):
    """What to ask one page of trades by, as the exchange understands it."""

    days_ago: int | None
    """None: of today."""
    to_ms: int | None
    """Exclusive, in whole seconds; None: up to the day's end."""
    cursor: int | None
    """Only trades older than this id."""


class TradeWalk:
    """A walk over the trades of some days. Ask what `next` says, then give the page to `take`."""

    def __init__(self, newest_day: int, oldest_day: int, *, to_ms: int | None = None) -> None:
        """Begin at the end.

        Args:
            newest_day: In days since 1970-01-01; may be the next one, of which nothing is known.
            oldest_day: Inclusive.
            to_ms: How far into the newest day its first page reaches, as `page_end_ms` gives it;
                None: to the day's end.
        """
        self._day = newest_day
        self._oldest_day = oldest_day
        self._to_ms = to_ms
        self._cursor: int | None = None
        self._asked: int = 0
        self._tried: set[int] = set()
        """Under which names the place where the walk stands was asked for, and was not found."""

    def next(self, now_ms: int) -> TradeQuestion | None:
        """What to ask next; None: the last day has ended.

        Args:
            now_ms: The exchange's time. It is asked anew for each page: midnight may pass.

        Raises:
            DataUnavailableError: the day is no longer kept.
        """
        while self._day >= self._oldest_day:
            names = [name for name in _names_of(self._day, now_ms) if name not in self._tried]
            if names:
                self._asked = names[0]
                return TradeQuestion(self._asked or None, self._to_ms, self._cursor)
            if not self._tried and self._day < now_ms // DAY_MS:
                raise DataUnavailableError(TOO_OLD)
            self._day -= 1
            self._to_ms = self._cursor = None
            self._tried.clear()
        return None

    def take(self, page: Sequence[Trade]) -> bool:
        """Take the answer, newest first. False: it is empty, or of another day than was meant.

        Raises:
            ProtocolError: the exchange gives the same trades again.
        """
        if not page or epoch_ms(page[0].exchange_time) // DAY_MS != self._day:
            self._tried.add(self._asked)
            return False
        oldest = page[-1]
        if self._cursor is not None and oldest.sequential_id >= self._cursor:
            raise ProtocolError(
                f"trades of {oldest.symbol}: the exchange answered the same page again when asked"
                f" for what is older than {self._cursor}"
            )
        self._cursor, self._to_ms = oldest.sequential_id, None
        self._tried.clear()
        return True


def reached_ms(page: Sequence[Trade]) -> int:
    """Down to when a page, newest first, tells what happened; but for trades told late.

    Ids say where a page ends, and times only nearly follow them: of its last trades one that was
    told late may bear a time long before. Where few were made this is some trades too early.
    """
    times = [epoch_ms(trade.exchange_time) for trade in page[-_LAST_TRADES:]]
    return min(at for at in times if at >= max(times) - LATE_BY_MS)


def page_end_ms(end_ms: int) -> int | None:
    """The end of a day's first page that loses nothing before `end_ms` (exclusive).

    The exchange floors an end to the second. None: it is the day's own end.
    """
    to_ms = -(-end_ms // SECOND_MS) * SECOND_MS
    return to_ms if to_ms % DAY_MS else None


def _names_of(day: int, now_ms: int) -> list[int]:
    """How many days ago a day may be for the exchange, ascending.

    Time goes one way, and names grow with it: should midnight pass between two questions, the
    second is the right one.
    """
    shifts = (-NEAR_MIDNIGHT_MS, 0, NEAR_MIDNIGHT_MS)
    names = {(now_ms + shift) // DAY_MS - day for shift in shifts}
    return sorted(name for name in names if 0 <= name <= OLDEST_DAY)
