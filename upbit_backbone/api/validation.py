"""What a caller may ask: refused here with one clear sentence, before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from difflib import get_close_matches
from typing import NamedTuple

from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError

_SYMBOL = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")


class Interval(NamedTuple):
    """A checked range: `end_ms` None means now, `limit` None means all of the range."""

    start_ms: int | None
    end_ms: int | None
    limit: int | None


def check_symbol(symbol: str, listed: Collection[str]) -> None:
    """Refuse what the exchange does not list; with no list at hand, what is no symbol at all.

    Raises:
        UnknownSymbolError: with the closest listed symbols.
    """
    if not isinstance(symbol, str):
        raise InvalidRequestError(f"a symbol is a text such as 'KRW-BTC', was {symbol!r}")
    if symbol in listed:
        return
    if not listed and _SYMBOL.fullmatch(symbol):
        return
    upper = symbol.upper().strip()
    quote, _, base = upper.partition("-")
    likely = [code for code in (upper, f"{base}-{quote}", f"KRW-{upper}") if code in listed]
    close = get_close_matches(upper, listed, n=3, cutoff=0.6)
    raise UnknownSymbolError(symbol, tuple(dict.fromkeys([*likely, *close]))[:3])


def check_interval(
    start_time: datetime | None,
    end_time: datetime | None,
    count: int | None,
    *,
    now_ms: int,
    default_count: int,
) -> Interval:
    """Check a range or a number of rows; without start and count it is `default_count` rows.

    Raises:
        InvalidRequestError: more than two of the three, an empty or reversed range, a count
            below 1, a start in the future.
    """
    if start_time is not None and end_time is not None and count is not None:
        raise InvalidRequestError(
            "start, end and count were all given: give at most two of the three"
        )
    if count is not None and (type(count) is not int or count < 1):
        raise InvalidRequestError(f"count must be a whole number from 1 up, was {count!r}")
    start_ms = None if start_time is None else epoch_ms(start_time)
    end_ms = None if end_time is None else epoch_ms(end_time)
    if start_ms is not None and start_ms > now_ms:
        raise InvalidRequestError(
            f"start {start_time} lies in the future: at the exchange it is"
            f" {utc_datetime(now_ms):%Y-%m-%d %H:%M:%S} UTC"
        )
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise InvalidRequestError(
            f"the range from {start_time} to {end_time} is empty: start must lie before end"
        )
    if end_ms is not None and end_ms > now_ms:
        end_ms = None
    if start_ms is None and count is None:
        count = default_count
    return Interval(start_ms, end_ms, count)
