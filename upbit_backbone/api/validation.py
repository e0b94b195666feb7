"""What a caller may ask: refused here with one clear sentence, before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple
from uuid import UUID

from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError, shown
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import MAX_DEPTH, BackboneRequest, DataType, Priority, Reach

MAX_COUNT = 1_000_000_000
"""More rows than any market has; a larger number would not fit a database's integer."""
MAX_TIMEOUT_S = 1_000_000.0
"""11 days. Timers count milliseconds in 32 bits (Qt), which ends at 24 days."""
MAX_VALUES = 10_000
"""Of an indicator, which is computed while nothing else runs."""
LONGEST_SYMBOL = 40
MOST_SYMBOLS = 10_000
"""Of one request: more than any exchange lists."""
_MAX_EXACT = 1e15
_FEW_MARKETS = 5
"""A recording has so few that a sentence names them all."""
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
        raise InvalidRequestError(f"a symbol is a text such as 'KRW-BTC', was {shown(symbol)}")
    if symbol in listed:
        return
    if not listed and may_be_listed(symbol):
        return
    if len(symbol) > LONGEST_SYMBOL:  # nothing is close to it, and to look takes time
        raise UnknownSymbolError(symbol)
    upper = symbol.upper().strip()
    quote, _, base = upper.partition("-")
    likely = [code for code in (upper, f"{base}-{quote}", f"KRW-{upper}") if code in listed]
    likely += [code for code in listed if upper in _without_hyphen(code)]
    close = get_close_matches(upper, listed, n=3, cutoff=0.6)
    few = tuple(listed) if len(listed) <= _FEW_MARKETS else ()
    raise UnknownSymbolError(symbol, tuple(dict.fromkeys([*likely, *close]))[:3], all_listed=few)


def may_be_listed(symbol: str) -> bool:
    """Whether it has the shape of a symbol; of what has not, nobody needs to ask the exchange."""
    return len(symbol) <= LONGEST_SYMBOL and _SYMBOL.fullmatch(symbol) is not None


def _without_hyphen(symbol: str) -> tuple[str, str]:
    """As other exchanges write it: KRWBTC, or BTCKRW."""
    quote, _, base = symbol.partition("-")
    return quote + base, base + quote


def check_priority(priority: Priority) -> None:
    """Refuse what is no `Priority`.

    Raises:
        InvalidRequestError: names the four.
    """
    if not isinstance(priority, Priority):
        names = ", ".join(f"Priority.{known.name}" for known in Priority)
        raise InvalidRequestError(f"priority must be one of {names}, was {shown(priority)}")


def check_number(name: str, number: int) -> None:
    """Refuse what is no whole number from 0 on, or too large to count with.

    Raises:
        InvalidRequestError: names the argument.
    """
    if type(number) is not int or not 0 <= number <= _MAX_EXACT:
        raise InvalidRequestError(f"{name} must be a whole number from 0 on, was {shown(number)}")


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no number of seconds.

    Raises:
        InvalidRequestError: not None and not 0 to 1,000,000.
    """
    if timeout is not None and not _is_number(timeout, MAX_TIMEOUT_S):
        raise InvalidRequestError(
            f"timeout must be 0 to {MAX_TIMEOUT_S:,.0f} seconds, or None for the priority's own,"
            f" was {shown(timeout)}"
        )


def check_seconds(name: str, seconds: float) -> None:
    """Refuse what is no time that something can take.

    Raises:
        InvalidRequestError: not 0 to 1,000,000.
    """
    if not _is_number(seconds, MAX_TIMEOUT_S):
        raise InvalidRequestError(
            f"{name} must be 0 to {MAX_TIMEOUT_S:,.0f} seconds, was {shown(seconds)}"
        )


def check_max_age(max_age: float | None) -> None:
    """Refuse what is no number of seconds; infinity is one: any age will do.

    Raises:
        InvalidRequestError: not None and not a number from 0 up.
    """
    if max_age is not None and not _is_number(max_age, float("inf")):
        raise InvalidRequestError(
            "max_age must be 0 seconds or more, or None for the priority's own,"
            f" was {shown(max_age)}"
        )


def check_grouping(depth: int, level: float) -> None:
    """Refuse rows and a price grouping that no order book has.

    Raises:
        InvalidRequestError: says which of the two, and what is expected.
    """
    if type(depth) is not int or not 1 <= depth <= MAX_DEPTH:
        raise InvalidRequestError(f"depth must be 1..{MAX_DEPTH}, was {shown(depth)}")
    if not _is_number(level, _MAX_EXACT):
        raise InvalidRequestError(
            f"level must be a price step of 0 (no grouping) or more, was {shown(level)}"
        )


def check_values(count: int) -> None:
    """Refuse what is no number of values of an indicator.

    Raises:
        InvalidRequestError: says what is expected.
    """
    if type(count) is not int or not 1 <= count <= MAX_VALUES:
        raise InvalidRequestError(
            f"count must be 1..{MAX_VALUES:,} values, was {shown(count)}: of more candles,"
            " compute them with upbit_backbone.indicators.compute"
        )


def check_choice(name: str, value: object, known: tuple[str | None, ...]) -> None:
    """Refuse what is not one of a few words.

    Raises:
        InvalidRequestError: lists them.
    """
    if not (value is None or isinstance(value, str)) or value not in known:
        words = " or ".join(map(repr, known))
        raise InvalidRequestError(f"{name} must be {words}, was {shown(value)}")


def check_flag(name: str, value: bool) -> None:
    """Refuse what is not True or False.

    Raises:
        InvalidRequestError: it is something else.
    """
    if type(value) is not bool:
        raise InvalidRequestError(f"{name} must be True or False, was {shown(value)}")


def check_line(what: str, text: object, most: int) -> None:
    """Refuse what is no text that fits into a sentence.

    Raises:
        InvalidRequestError: no text, a longer one, or one of more lines.
    """
    if not isinstance(text, str) or len(text) > most or not text.isprintable():
        raise InvalidRequestError(
            f"{what} is one line of at most {most} characters, was {shown(text)}"
        )


def check_callback(name: str, callback: object) -> None:
    """Refuse what cannot be called.

    Raises:
        InvalidRequestError: it is not None and not callable.
    """
    if callback is not None and not callable(callback):
        raise InvalidRequestError(
            f"{name} must be a function that is called, or None, was {shown(callback)}"
        )


def check_request(request: BackboneRequest) -> None:
    """Refuse a request that a program has made by itself and that no layer could answer.

    Raises:
        InvalidRequestError: not a `BackboneRequest`, or a field of it makes no sense; of a time
            that does not exist, too.
    """
    if not isinstance(request, BackboneRequest):
        raise InvalidRequestError(
            f"publish takes a BackboneRequest, was {shown(request)}: give one such as"
            " BackboneRequest(DataType.TICKER, ('KRW-BTC',))"
        )
    _check_kind("data_type", request.data_type, DataType)
    symbols: Any = request.symbols
    if not isinstance(symbols, tuple) or not 1 <= len(symbols) <= MOST_SYMBOLS:
        raise InvalidRequestError(
            f"symbols must be a tuple such as ('KRW-BTC',), was {shown(symbols)}"
        )
    for symbol in symbols:
        if not isinstance(symbol, str) or not 1 <= len(symbol) <= LONGEST_SYMBOL:
            raise InvalidRequestError(f"a symbol is a text such as 'KRW-BTC', was {shown(symbol)}")
    of_candles = request.data_type is DataType.CANDLE
    if of_candles or request.timeframe is not None:
        _check_kind("timeframe", request.timeframe, Timeframe)
    if of_candles and len(symbols) > 1:
        raise InvalidRequestError(
            f"a request for candles names one symbol, were {len(symbols)}: make one for each"
        )
    _check_kind("priority", request.priority, Priority)
    _check_kind("reach", request.reach, Reach)
    _check_kind("request_id", request.request_id, UUID)
    for name in ("start_time", "end_time"):
        moment = getattr(request, name)
        if moment is not None:
            _moment_ms(name, moment)
            if moment.tzinfo is None:
                raise InvalidRequestError(
                    f"{name} of a request must be aware, was {moment}: give it a tzinfo such as UTC"
                )
    for name in ("count", "cursor", "days_ago"):
        number = getattr(request, name)
        if number is not None:
            check_number(name, number)
    if request.deadline is not None and not _is_number(request.deadline, float("inf")):
        raise InvalidRequestError(
            "deadline must be a moment of the monotonic clock in seconds, or None for the"
            f" priority's own, was {shown(request.deadline)}"
        )
    check_max_age(request.max_age)
    check_grouping(request.depth, request.level)
    check_choice("policy", request.policy, ("latest", "all"))
    check_flag("proofs", request.proofs)


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise InvalidRequestError(f"{name} must be a {kind.__name__}, was {shown(value)}")


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
            "start_time, end_time and count were all given: give at most two of the three"
        )
    if count is not None and (type(count) is not int or count < 1):
        raise InvalidRequestError(f"count must be a whole number from 1 up, was {shown(count)}")
    if count is not None and count > MAX_COUNT:
        raise InvalidRequestError(f"count must be at most {MAX_COUNT:,}, was {shown(count)}")
    start_ms = None if start_time is None else _moment_ms("start_time", start_time)
    end_ms = None if end_time is None else _moment_ms("end_time", end_time)
    if start_ms is not None and start_ms > now_ms:
        raise InvalidRequestError(
            f"start_time {_zoned(start_time)} lies in the future: at the exchange it is"
            f" {utc_datetime(now_ms):%Y-%m-%d %H:%M:%S} UTC"
        )
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise InvalidRequestError(
            f"the range from {_zoned(start_time)} to {_zoned(end_time)} is empty:"
            " start_time must lie before end_time"
        )
    if end_ms is not None and end_ms > now_ms:
        end_ms = None
    if start_ms is None and count is None:
        count = default_count
    return Interval(start_ms, end_ms, count)


def _moment_ms(name: str, moment: datetime) -> int:
    if not isinstance(moment, datetime):
        raise InvalidRequestError(
            f"{name} must be a datetime such as datetime(2025, 9, 1, tzinfo=UTC), or None,"
            f" was {shown(moment)}"
        )
    ms = epoch_ms(moment)
    if ms < 0:
        raise InvalidRequestError(f"{name} must be 1970-01-01 UTC or later, was {_zoned(moment)}")
    return ms


def _zoned(moment: datetime | None) -> str:
    """A moment as it was given, with its offset from UTC."""
    if moment is not None and moment.tzinfo is None:
        try:
            moment = moment.astimezone()
        except (OverflowError, ValueError):  # the last hours of the calendar
            return f"{moment} local time"
    return str(moment)


def _is_number(value: Any, most: float) -> bool:
    """Whether it is a number from 0 to `most`; NaN is none."""
    if isinstance(value, int):
        # A longer whole number may not fit a float.
        return type(value) is not bool and 0 <= value <= min(most, _MAX_EXACT)
    return isinstance(value, float) and 0 <= value <= most
