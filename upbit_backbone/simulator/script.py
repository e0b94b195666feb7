"""What a script makes happen on the simulated exchange.

A script is a list of events with absolute times. What follows from it is a function of
(seed, script, time), like everything else here: two processes with one script agree about
every instant, whenever they were started.

Example, as JSON::

    {"events": [
        {"type": "move", "symbol": "KRW-XRP", "at": "2026-03-04T12:00:30Z",
         "over_s": 40, "change": -0.06},
        {"type": "silence", "symbol": "KRW-DOGE", "from": "12:00:00", "until": "13:00:00"},
        {"type": "maintenance", "from": "+600", "until": "+660"}
    ]}

A time is ISO 8601 (UTC if it names no zone); or a time of day, ``12:00:30``: the next one
in UTC; or ``+90``: so many seconds after the script was read. The last two become absolute
when the script is read.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec

from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS, epoch_ms, utc_datetime
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.price import tick_size
from upbit_backbone.simulator.markets import Listing, Switch, new_listing

LONGEST_MOVE_S = 3_600.0
MOST_EVENTS = 1_000

_ANNOUNCED_BEFORE_MS = 14 * DAY_MS
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_LATER = re.compile(r"\+(\d{1,9}(?:\.\d{1,3})?)")
_TICK = re.compile(r"\d{1,12}(\.\d{1,8})?", re.ASCII)
_QUOTES = ("KRW", "BTC", "USDT")
_DEAREST_TICKS = 1e9
_TIMES = ("at", "from", "until", "announced")

Symbol = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]+-[A-Z0-9]+$")]


class _Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its times are aware datetimes: those of this machine's zone would be another market's."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            moment = getattr(self, name)
            if isinstance(moment, datetime) and moment.tzinfo is None:
                raise InvalidRequestError(
                    f"an event of the script has the time {moment.isoformat()} without a zone:"
                    " give one, such as tzinfo=UTC"
                )


class Move(_Event, frozen=True, kw_only=True, tag="move"):
    """The price moves away from where it would be, and stays as far away."""

    symbol: Symbol
    at: datetime
    change: Annotated[float, msgspec.Meta(gt=-1, le=100)]
    """A fraction of the price at that moment: -0.06 falls by 6 %."""
    over_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_MOVE_S)] = 0.0
    """How long it takes; somebody trades each second of it."""


class Silence(
    _Event, frozen=True, kw_only=True, tag="silence", rename={"start": "from", "end": "until"}
):
    """Nobody trades on a market; in whole minutes."""

    symbol: Symbol
    start: datetime
    end: datetime


class Maintenance(
    _Event, frozen=True, kw_only=True, tag="maintenance", rename={"start": "from", "end": "until"}
):
    """Nobody trades anywhere and the exchange answers nothing; in whole minutes."""

    start: datetime
    end: datetime


class NewListing(_Event, frozen=True, kw_only=True, tag="listing"):
    """A market is opened: a new code, or a known one from then on only."""

    symbol: Symbol
    at: datetime
    price: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """About where a new code's price is, in its quote asset."""
    korean_name: str | None = None
    english_name: str | None = None


class Delisting(_Event, frozen=True, kw_only=True, tag="delisting"):
    """A market is closed for ever, and all its history becomes unknown."""

    symbol: Symbol
    at: datetime
    announced: datetime | None = None
    """14 days before, if not given."""


class Designation(_Event, frozen=True, kw_only=True, tag="designation"):
    """A warning or caution is set, or taken away."""

    symbol: Symbol
    at: datetime
    name: Literal[
        "WARNING",
        "PRICE_FLUCTUATIONS",
        "TRADING_VOLUME_SOARING",
        "DEPOSIT_AMOUNT_SOARING",
        "GLOBAL_PRICE_DIFFERENCES",
        "CONCENTRATION_OF_SMALL_ACCOUNTS",
    ] = "WARNING"
    on: bool = True


class TickSize(_Event, frozen=True, kw_only=True, tag="tick_size"):
    """Prices are multiples of another tick from then on; at a whole minute."""

    symbol: Symbol
    at: datetime
    tick_size: str
    """A decimal number in the quote asset."""


Event = Move | Silence | Maintenance | NewListing | Delisting | Designation | TickSize


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events in any order."""

    events: tuple[Event, ...] = ()

    @property
    def digest(self) -> str:
        """The same for equal scripts, whatever their order of events."""
        events = sorted(msgspec.json.encode(event, order="sorted") for event in self.events)
        return hashlib.sha256(b"\n".join(events)).hexdigest()

    def of(self, symbol: str) -> list[Event]:
        """What happens to one market, in order of time."""
        return sorted(
            (event for event in self.events if getattr(event, "symbol", symbol) == symbol),
            key=starts_ms,
        )

    def in_maintenance(self, now_ms: int) -> bool:
        """Is the exchange closed?"""
        return any(
            epoch_ms(event.start) <= now_ms < epoch_ms(event.end)
            for event in self.events
            if isinstance(event, Maintenance)
        )


def starts_ms(event: Event) -> int:
    """When an event begins."""
    return epoch_ms(event.start if isinstance(event, Silence | Maintenance) else event.at)


def read_script(text: str | bytes, now_ms: int) -> Script:
    """Understand a script.

    Args:
        text: JSON.
        now_ms: The present of the exchange, that relative times count from.

    Raises:
        InvalidRequestError: it is no script; says where and what was expected.
    """
    try:
        parts = msgspec.json.decode(text)
        if not isinstance(parts, dict) or not isinstance(parts.get("events"), list):
            raise InvalidRequestError(
                'the script is no list of events: expected {"events": [{"type": "move", …}, …]}'
            )
        for number, event in enumerate(parts["events"]):
            _make_absolute(event, number, now_ms)
        script = msgspec.convert(parts, Script)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(
            f"the script was not understood: {error};"
            " see docs/simulator.md for the events and their fields"
        ) from None
    return script


def _make_absolute(event: Any, number: int, now_ms: int) -> None:
    if not isinstance(event, dict):
        return
    for name in _TIMES:
        if isinstance(event.get(name), str):
            event[name] = utc_datetime(_instant(event[name], f"events[{number}].{name}", now_ms))


def _instant(text: str, where: str, now_ms: int) -> int:
    if match := _LATER.fullmatch(text):
        return now_ms + round(float(match[1]) * SECOND_MS)
    if match := _TIME_OF_DAY.fullmatch(text):
        seconds = int(match[1]) * 3_600 + int(match[2]) * 60 + int(match[3] or 0)
        of_today = now_ms // DAY_MS * DAY_MS + seconds * SECOND_MS
        return of_today if of_today >= now_ms else of_today + DAY_MS
    try:
        moment = datetime.fromisoformat(text)
        # A zone may take the first or last day of the calendar out of it.
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            f"{where} of the script was {text!r}: expected a time such as 2026-03-04T12:00:30Z,"
            " 12:00:30 (UTC) or +90 (seconds from now)"
        ) from None
    return epoch_ms(moment)


def scripted_listings(listings: Sequence[Listing], script: Script) -> list[Listing]:
    """The listings as a script changes them.

    Raises:
        InvalidRequestError: the script cannot happen on these markets; says why.
    """
    if len(script.events) > MOST_EVENTS:
        raise InvalidRequestError(
            f"the script has {len(script.events)} events: expected at most {MOST_EVENTS}"
        )
    by_symbol = {listing.symbol: listing for listing in listings}
    for event in sorted(script.events, key=starts_ms):
        if isinstance(event, Silence | Maintenance) and event.end <= event.start:
            raise refused(event, "ends before it begins: until must lie after from")
        if not isinstance(event, Move | Designation):
            _check_whole_minutes(event)
        if isinstance(event, NewListing):
            by_symbol[event.symbol] = _listed(by_symbol.get(event.symbol), event)
    for event in sorted(script.events, key=starts_ms):
        if isinstance(event, NewListing | Maintenance):
            continue
        listing = by_symbol.get(event.symbol)
        if listing is None:
            closest = difflib.get_close_matches(event.symbol, by_symbol, n=3)
            hint = f"; did you mean {', '.join(closest)}?" if closest else ""
            raise refused(event, f"names a market that is not listed{hint}")
        by_symbol[event.symbol] = _changed(listing, event)
    for symbol, listing in by_symbol.items():
        events = [one for one in script.of(symbol) if isinstance(one, Move | TickSize)]
        _check_apart(listing, events)
    return list(by_symbol.values())


def _listed(listing: Listing | None, event: NewListing) -> Listing:
    if listing is not None:
        return replace(listing, listed_ms=epoch_ms(event.at))
    if event.price is None:
        raise refused(event, "names a new market without its price: give price")
    quote, _, base = event.symbol.partition("-")
    if quote not in _QUOTES:
        raise refused(event, f"has the quote asset {quote}: expected one of {', '.join(_QUOTES)}")
    most = _DEAREST_TICKS * float(tick_size(event.symbol, event.price))
    if event.price > most:
        raise refused(event, f"has the price {event.price}: give one of at most {most:.0f} {quote}")
    return new_listing(
        event.symbol,
        event.korean_name or f"가상 {base}",
        event.english_name or f"Simulated {base}",
        epoch_ms(event.at),
        event.price,
    )


def _changed(listing: Listing, event: Event) -> Listing:
    if isinstance(event, Delisting):
        at_ms = epoch_ms(event.at)
        if at_ms <= listing.listed_ms:
            raise refused(event, "closes the market before it is listed: give a later time")
        announced = at_ms - _ANNOUNCED_BEFORE_MS
        if event.announced is not None:
            announced = epoch_ms(event.announced)
        return replace(listing, delisting_ms=at_ms, announced_ms=announced)
    if isinstance(event, Designation):
        switch = Switch(epoch_ms(event.at), event.name, event.on)
        return replace(listing, switches=(*listing.switches, switch))
    if isinstance(event, TickSize):
        return replace(listing, scale=listing.scale.refined(tick_of(event)))
    return listing


def tick_of(event: TickSize) -> Fraction:
    """The tick as a number.

    Raises:
        InvalidRequestError: it is none.
    """
    tick = Fraction(event.tick_size) if _TICK.fullmatch(event.tick_size) else Fraction(0)
    if tick == 0:
        raise refused(
            event, f"has the tick size {event.tick_size!r}: give a decimal number such as 0.1 or 5"
        )
    return tick


def _check_whole_minutes(event: Event) -> None:
    for name in ("at", "start", "end"):
        moment = getattr(event, name, None)
        if moment is not None and epoch_ms(moment) % MINUTE_MS:
            raise refused(event, f"has the time {moment.isoformat()}: give a whole minute")


def _check_apart(listing: Listing, events: Sequence[Move | TickSize]) -> None:
    for event in events:
        if starts_ms(event) < listing.listed_ms:
            raise refused(event, "happens before the market is listed: give a later time")
    for before, after in pairwise(events):
        if starts_ms(after) // MINUTE_MS * MINUTE_MS < minutes_of(before)[1]:
            raise refused(
                after, "begins in a minute in which another event is under way: give a later time"
            )


def minutes_of(event: Move | TickSize) -> tuple[int, int]:
    """The whole minutes that an event takes up: start and end in milliseconds."""
    start_ms = starts_ms(event)
    if isinstance(event, TickSize):
        return start_ms, start_ms
    start = start_ms // MINUTE_MS
    end = max(-(-(start_ms + round(event.over_s * SECOND_MS)) // MINUTE_MS), start + 1)
    return start * MINUTE_MS, end * MINUTE_MS


def refused(event: Event, why: str) -> InvalidRequestError:
    """The error that says which event cannot happen, and why."""
    symbol = getattr(event, "symbol", "all markets")
    kind = msgspec.to_builtins(event)["type"]
    moment = utc_datetime(starts_ms(event)).isoformat()
    return InvalidRequestError(f"the script's {kind} of {symbol} at {moment} {why}")
