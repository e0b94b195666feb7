"""Faults to be met on purpose: what they are, whom they strike, and how often they did.

A fault strikes what matches all its bounds: group, symbol, type of frame, time, count and
rate. Whether it strikes by its rate is a draw of its seed, its number and how often it was
asked, so a run can be repeated. What the faults do to calls stands in `call_faults.py`, to
connections and their frames in `stream_faults.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Flag, auto
from typing import Any, NamedTuple, get_type_hints

import msgspec

from upbit_backbone.clock import SECOND_MS, Clock, epoch_ms
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.simulator.limits import LIMITS
from upbit_backbone.simulator.random_numbers import key_of, one_draw

WEBSOCKET = "websocket"
GROUPS = tuple(group for group in LIMITS if group != "origin")
PARAMETERS = ("ms", "jitter_ms", "s", "bytes", "rows", "variant")

_DRAWS = 2.0**64
_FARTHEST_S = 1e9


class Scope(Flag):
    """What a kind of fault can strike."""

    CALLS = auto()
    HANDSHAKE = auto()
    CONNECTIONS = auto()
    FRAMES = auto()
    SNAPSHOTS = auto()
    LISTENER = auto()


class Kind(NamedTuple):
    """A kind of fault: what it strikes, its parameters with their defaults, its variants."""

    scope: Scope
    parameters: Mapping[str, Any] = {}
    variants: tuple[str, ...] = ()


_ANY_CALL = Scope.CALLS | Scope.HANDSHAKE

KINDS: Mapping[str, Kind] = {
    # The call waits `ms`, and up to `jitter_ms` more, before it is answered.
    "latency": Kind(_ANY_CALL, {"ms": 500.0, "jitter_ms": 0.0}),
    # Too many requests, whatever the caller has left; a ban of `s` seconds for all groups.
    "429": Kind(_ANY_CALL),
    "418": Kind(_ANY_CALL, {"s": 10.0}),
    # 500 has a JSON body, the others the HTML page of a proxy.
    "500": Kind(_ANY_CALL),
    "502": Kind(_ANY_CALL),
    "503": Kind(_ANY_CALL),
    "504": Kind(_ANY_CALL),
    # The body ends in the middle: `body` with a Content-Length that fits, `connection` cut
    # before the Content-Length is reached.
    "truncated": Kind(Scope.CALLS, {"variant": "body"}, ("body", "connection")),
    "malformed": Kind(Scope.CALLS),
    # Numbers as `strings` or `null`; an `object` where an array is expected.
    "wrong-types": Kind(Scope.CALLS, {"variant": "strings"}, ("strings", "null", "object")),
    "string-numbers": Kind(Scope.CALLS | Scope.FRAMES),
    "exponent-numbers": Kind(Scope.CALLS | Scope.FRAMES),
    # Accepted, and never answered.
    "hang": Kind(_ANY_CALL),
    # Nobody listens on the port for that time; connections there are stay. It closes the
    # side door too: have an end to it, or a connection to end it by.
    "refused": Kind(Scope.LISTENER),
    "handshake-429": Kind(Scope.HANDSHAKE),
    # TCP reset: of a REST call when it is read, of a WebSocket `ms` after it was opened.
    "drop": Kind(Scope.CALLS | Scope.CONNECTIONS, {"ms": 0.0}),
    # The connection stays, nothing comes, nothing is read: pings are not answered.
    "half-open": Kind(Scope.CONNECTIONS, {"ms": 0.0}),
    # `bytes` per second are read and written.
    "slow": Kind(_ANY_CALL | Scope.CONNECTIONS, {"bytes": 1_000}),
    # The market's frames are left out.
    "stall": Kind(Scope.FRAMES),
    # A frame comes twice: the `same`, or as if its snapshot came in `realtime` as well.
    "duplicate": Kind(Scope.FRAMES, {"variant": "same"}, ("same", "realtime")),
    # A frame goes out after the one of its market and type that follows it.
    "reorder": Kind(Scope.FRAMES),
    # Frames of trades come `ms` late, and up to `jitter_ms` more.
    "late": Kind(Scope.FRAMES, {"ms": 200.0, "jitter_ms": 0.0}),
    # Bytes that are no JSON in place of a frame; a frame with blanks up to so many bytes.
    "garbage": Kind(Scope.FRAMES),
    "oversized": Kind(Scope.FRAMES, {"bytes": 5_000_000}),
    # `timestamp` in microseconds, as order books of 2023 had it for a while.
    "microseconds": Kind(Scope.FRAMES),
    "text-frames": Kind(Scope.FRAMES),
    # One frame, an array, holds this message and the `rows` - 1 that follow it.
    "list-frames": Kind(Scope.FRAMES, {"rows": 2}),
    # `Remaining-Req` tells `more` than there is, `less`, or is `missing`.
    "remaining": Kind(_ANY_CALL, {"variant": "more"}, ("more", "less", "missing")),
    # `Date` and the stamps of messages are off by `s` seconds; the data is as ever.
    "wrong-clock": Kind(_ANY_CALL | Scope.FRAMES, {"s": 60.0}),
    # The snapshot of an order book is that of `ms` ago; 143 s were seen.
    "stale-book": Kind(Scope.SNAPSHOTS, {"ms": 143_000.0}),
    # The last `rows` rows of an order book have nothing on one side.
    "zero-padded": Kind(Scope.CALLS | Scope.FRAMES, {"rows": 10, "variant": "bid"}, ("bid", "ask")),
    # A page of candles or trades lacks `rows` rows in its middle; shorter pages are spared.
    "missing-rows": Kind(Scope.CALLS, {"rows": 3}),
    # REST answers as of `ms` ago.
    "lag": Kind(Scope.CALLS, {"ms": 1_000.0}),
    # 200 and an empty array.
    "empty": Kind(Scope.CALLS),
}
"""Everything that can go wrong here, by its name."""

_ONCE = ("missing-rows",)
_OF_TRADES = ("late",)
_GROUPS_OF = {"missing-rows": ("candles", "trades"), "zero-padded": ("orderbook",)}
_TYPE_OF = {"zero-padded": "orderbook"}
_OF_SOCKETS = Scope.HANDSHAKE | Scope.CONNECTIONS | Scope.FRAMES | Scope.SNAPSHOTS


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and when.

    Attributes:
        kind: A name of `KINDS`.
        group: Only calls of this rate group; `websocket` is the upgrade, its connection
            and its frames. None: wherever the kind can strike.
        symbol: Only calls that name this market, its frames, and connections whose last
            request names it. None: any.
        type: Only frames of this type (`trade`, `candle.1m`). None: any (`late`: trades).
        count: Strikes so many times, then never again. None: without end (`missing-rows`:
            once).
        rate: Strikes with this probability, 0 to 1.
        from_ms: Strikes from this instant of the exchange on. None: at once.
        until_ms: And before this one. None: without end.
        seed: Of its draws.
        ms: Milliseconds, jitter_ms: up to so many more, s: seconds, bytes: bytes per
            second or of a frame, rows: rows, variant: which of several; see `KINDS`. None:
            the kind's default.

    Raises:
        InvalidRequestError: no such kind, or a bound or parameter that it cannot have.
    """

    kind: str
    group: str | None = None
    symbol: str | None = None
    type: str | None = None
    count: int | None = None
    rate: float = 1.0
    from_ms: int | None = None
    until_ms: int | None = None
    seed: int = 0
    ms: float | None = None
    jitter_ms: float | None = None
    s: float | None = None
    bytes: int | None = None
    rows: int | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidRequestError(
                f"no fault is called {self.kind!r}: expected one of {', '.join(KINDS)}"
            )
        for name, kind in _HINTS.items():
            self._require_type(name, kind)
        kind = KINDS[self.kind]
        self._require_scope(kind)
        for name in PARAMETERS:
            value = getattr(self, name)
            if name not in kind.parameters and value is not None:
                known = ", ".join(kind.parameters) or "none"
                raise self._unfit(name, value, f"no such parameter; it has {known}")
            if value is None:
                object.__setattr__(self, name, kind.parameters.get(name))
        if self.variant is not None and self.variant not in kind.variants:
            raise self._unfit("variant", self.variant, "one of " + ", ".join(kind.variants))
        if self.count is None and self.kind in _ONCE:
            object.__setattr__(self, "count", 1)
        if self.type is None and self.kind in _OF_TRADES:
            object.__setattr__(self, "type", "trade")
        if self.symbol is not None:
            object.__setattr__(self, "symbol", self.symbol.upper())

    @property
    def scope(self) -> Scope:
        """What it strikes, given its group."""
        scope = KINDS[self.kind].scope
        if self.type is not None:
            scope &= Scope.FRAMES
        if self.group is not None:
            return scope & (_OF_SOCKETS if self.group == WEBSOCKET else Scope.CALLS)
        # A reset without a group is one of a connection that is kept.
        return scope & _OF_SOCKETS if self.kind == "drop" else scope

    def is_about(self, group: str, symbols: Collection[str]) -> bool:
        """Whether a call of this group about these markets is within its bounds."""
        return (
            self.group in (None, group)
            and (self.symbol is None or self.symbol in symbols)
            and (group == WEBSOCKET or group in _GROUPS_OF.get(self.kind, GROUPS))
        )

    def is_about_frame(self, symbol: str, type_: str) -> bool:
        """Whether a frame is within its bounds."""
        return (
            self.symbol in (None, symbol)
            and self.type in (None, type_)
            and _TYPE_OF.get(self.kind, type_) == type_
        )

    def _require_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise self._unfit(name, value, _WORDS.get(name, "a number")) from None
        low, high = _BOUNDS.get(name, (None, None))
        out = value is not None and (
            (low is not None and not value >= low) or (high is not None and not value <= high)
        )
        if out:
            raise self._unfit(name, value, _WORDS.get(name, "a number of 0 or more"))

    def _require_scope(self, kind: Kind) -> None:
        if self.type is not None and not kind.scope & Scope.FRAMES:
            raise self._unfit("type", self.type, "none: it does not strike frames")
        known = _GROUPS_OF.get(self.kind, GROUPS)
        if not self.scope or (self.group not in (None, WEBSOCKET) and self.group not in known):
            groups = [group for group in known if group != WEBSOCKET and kind.scope & Scope.CALLS]
            groups += [WEBSOCKET] if kind.scope & _OF_SOCKETS else []
            expected = "one of " + ", ".join(groups) if groups else "none"
            raise self._unfit("group", self.group, expected)
        if self.kind == "418" and self.s is not None and self.s <= 0:
            raise self._unfit("s", self.s, "more than 0 seconds")
        if self.kind == "stall" and self.symbol is None:
            raise self._unfit("symbol", self.symbol, "the market that stands still")

    def _unfit(self, name: str, value: object, expected: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{name} of fault {self.kind!r} was {value!r}: expected {expected}"
        )


_HINTS = get_type_hints(Fault)
_BOUNDS: Mapping[str, tuple[float | None, float | None]] = {
    "count": (1, 1 << 53),
    "seed": (-(1 << 53), 1 << 53),
    "from_ms": (-(1 << 53), 1 << 53),
    "until_ms": (-(1 << 53), 1 << 53),
    "rate": (0.0, 1.0),
    "ms": (0.0, 86_400_000.0),
    "jitter_ms": (0.0, 86_400_000.0),
    "s": (-1e9, 1e9),
    "bytes": (1, 1 << 30),
    "rows": (1, 1_000),
}
_WORDS: Mapping[str, str] = {
    "count": "a whole number of 1 or more",
    "rate": "a probability of 0 to 1",
    "seed": "a whole number of at most 53 bits",
    "bytes": "a whole number of 1 to 1073741824",
    "rows": "a whole number of 1 to 1000",
    "group": "a rate group such as candles",
    "symbol": "a market such as KRW-BTC",
    "type": "a type of frame such as trade",
}


class Strike(NamedTuple):
    """A fault that strikes, this once."""

    by: ActiveFault
    chance: float
    """A draw of its own, 0 to 1, for whatever else is random about it."""

    @property
    def fault(self) -> Fault:
        """What strikes."""
        return self.by.fault

    def take_back(self) -> None:
        """There was nothing to strike: it does not count."""
        self.by.fired -= 1

    @property
    def delay_s(self) -> float:
        """Its `ms` with its jitter, in seconds."""
        return ((self.fault.ms or 0.0) + self.chance * (self.fault.jitter_ms or 0.0)) / SECOND_MS


class ActiveFault:
    """A fault in the book.

    Attributes:
        number: Its number, by which it is cleared.
        asked: How often something matched it.
        fired: How often it struck.
    """

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.asked = 0
        self.fired = 0
        self._key = key_of("fault", fault.seed, number)

    @property
    def spent(self) -> bool:
        """Whether it has struck as often as it may."""
        return self.fault.count is not None and self.fired >= self.fault.count

    def is_due(self, now_ms: int) -> bool:
        """Whether its time has come and is not over."""
        start_ms, end_ms = self.fault.from_ms, self.fault.until_ms
        return (start_ms is None or start_ms <= now_ms) and (end_ms is None or now_ms < end_ms)

    def strike(self) -> Strike | None:
        """Ask it once more, about something that matches."""
        draw, chance = (one_draw(self._key, 2 * self.asked + more) / _DRAWS for more in (0, 1))
        self.asked += 1
        if draw >= self.fault.rate:
            return None
        self.fired += 1
        return Strike(self, chance)


class Faults:
    """The book of all faults of a simulator.

    Attributes:
        on_calls: Whether any fault might strike a call now or later.
        on_frames: The same of frames.
        on_connections: The same of connections and the listener.
        on_snapshots: The same of snapshots of order books.
    """

    def __init__(self, clock: Clock, faults: Iterable[Fault] = ()) -> None:
        self._clock = clock
        self._book: dict[int, ActiveFault] = {}
        self._last_number = 0
        self._changed = asyncio.Event()
        self.on_calls = self.on_frames = self.on_connections = self.on_snapshots = False
        for fault in faults:
            self.add(fault)

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(tuple(self._book.values()))

    def add(self, fault: Fault) -> int:
        """Let it happen; gives the number by which it is cleared."""
        self._last_number += 1
        self._book[self._last_number] = ActiveFault(self._last_number, fault)
        self._note_scopes()
        return self._last_number

    def clear(self, number: int | None = None) -> bool:
        """End one fault, or all; False if there is none of this number."""
        if number is None:
            self._book.clear()
        elif self._book.pop(number, None) is None:
            return False
        self._note_scopes()
        return True

    def on_call(self, group: str, symbols: Collection[str]) -> list[Strike]:
        """All faults that strike a call of this group about these markets."""
        return [
            strike
            for active in self._due(Scope.HANDSHAKE if group == WEBSOCKET else Scope.CALLS)
            if active.fault.is_about(group, symbols) and (strike := active.strike()) is not None
        ]

    def on_frame(self, symbol: str, type_: str) -> list[Strike]:
        """All faults that strike a frame."""
        return [
            strike
            for active in self._due(Scope.FRAMES)
            if active.fault.is_about_frame(symbol, type_)
            and (strike := active.strike()) is not None
        ]

    def book_age_ms(self, symbol: str) -> int:
        """How old the order book of a snapshot is to be."""
        if not self.on_snapshots:
            return 0
        strikes = [
            strike
            for active in self._due(Scope.SNAPSHOTS)
            if active.fault.symbol in (None, symbol) and (strike := active.strike()) is not None
        ]
        return round(max((strike.delay_s for strike in strikes), default=0.0) * SECOND_MS)

    def lasts(self, strike: Strike) -> bool:
        """Whether the fault that struck was not cleared since."""
        return self._book.get(strike.by.number) is strike.by

    def of_connections(self) -> list[ActiveFault]:
        """All faults of connections whose time it is; those that are spent still last."""
        return self._in_time(Scope.CONNECTIONS)

    def refuses_connects(self) -> bool:
        """Whether nobody is to listen on the port now."""
        refusing = self._in_time(Scope.LISTENER)
        for active in refusing:
            if active.asked == 0:
                active.strike()
        return any(active.fired for active in refusing)

    async def changed(self, within_s: float | None) -> None:
        """Wait until the book is changed, or so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        self._changed.clear()

    def _due(self, scope: Scope) -> list[ActiveFault]:
        return [active for active in self._in_time(scope) if not active.spent]

    def _in_time(self, scope: Scope) -> list[ActiveFault]:
        now_ms = self._clock.now_ms()
        return [
            active
            for active in self._book.values()
            if active.fault.scope & scope and active.is_due(now_ms)
        ]

    def _note_scopes(self) -> None:
        scopes = Scope(0)
        for active in self._book.values():
            scopes |= active.fault.scope
        self.on_calls = bool(scopes & _ANY_CALL)
        self.on_frames = bool(scopes & Scope.FRAMES)
        self.on_snapshots = bool(scopes & Scope.SNAPSHOTS)
        self.on_connections = bool(scopes & (Scope.CONNECTIONS | Scope.LISTENER))
        self._changed.set()


def read_fault(words: Mapping[str, Any], now_ms: int) -> Fault:
    """A fault from names and values, as JSON and the command line give them.

    `from` and `until` are times of the exchange: ISO 8601 (UTC if no zone is given), or
    seconds after `now_ms`.

    Raises:
        InvalidRequestError: not such a fault.
    """
    given = dict(words)
    kind = given.pop("kind", None)
    if not isinstance(kind, str):
        raise InvalidRequestError(f"a fault needs its kind: expected one of {', '.join(KINDS)}")
    for name in ("from", "until"):
        if (value := given.pop(name, None)) is not None:
            given[f"{name}_ms"] = _instant(kind, name, value, now_ms)
    unknown = given.keys() - {field.name for field in fields(Fault)}
    if unknown:
        raise InvalidRequestError(
            f"fault {kind!r} has no {min(unknown)!r}: expected group, symbol, type, count, rate,"
            f" from, until, seed{''.join(f', {name}' for name in _parameters_of(kind))}"
        )
    values = {name: _as_given(name, value) for name, value in given.items()}
    return Fault(kind=kind, **values)


def parse_fault(text: str, now_ms: int) -> Fault:
    """A fault from ``KIND key=value …``, as the command line has it.

    Raises:
        InvalidRequestError: not such a fault.
    """
    kind, *pairs = text.split() or [""]
    words = {"kind": kind}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or name == "kind":
            raise InvalidRequestError(
                f"fault {text!r} has {pair!r}: expected KIND key=value …, such as"
                " '429 group=candles count=3'"
            )
        words[name] = value
    return read_fault(words, now_ms)


def _parameters_of(kind: str) -> Iterable[str]:
    return KINDS[kind].parameters if kind in KINDS else ()


def _as_given(name: str, value: Any) -> Any:
    """Text of the command line as the number it stands for; anything else as it is."""
    if not isinstance(value, str) or name in ("group", "symbol", "type", "variant"):
        return value
    try:
        return msgspec.convert(value, _HINTS[name], strict=False)
    except msgspec.ValidationError:
        return value  # `Fault` says what is wrong about it


def _instant(kind: str, name: str, value: Any, now_ms: int) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value):
        value = float(value)
    if isinstance(value, int | float) and abs(value) <= _FARTHEST_S:
        return now_ms + round(value * SECOND_MS)
    try:
        moment = datetime.fromisoformat(value)
        return epoch_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"{name} of fault {kind!r} was {value!r}: expected seconds from now, or a time"
            " such as 2025-09-10T12:00:00Z (ISO 8601, UTC if no zone is given)"
        ) from None
