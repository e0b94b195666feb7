"""What a WebSocket client asks for, read from its request (upbit-api, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from upbit_backbone.clock import MINUTE_MS, SECOND_MS
from upbit_backbone.simulator.candles import MINUTE_UNITS
from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.settings import SimulatorSettings
from upbit_backbone.simulator.stream_frames import FORMATS, FrameFormat

CANDLE_LENGTHS_MS: Mapping[str, int] = {
    "candle.1s": SECOND_MS,
    **{f"candle.{unit}m": unit * MINUTE_MS for unit in MINUTE_UNITS},
}
"""The candle streams, and how long a candle of each is."""

STREAM_TYPES = frozenset({"ticker", "trade", "orderbook", *CANDLE_LENGTHS_MS})

_DEPTHS = (1, 5, 15, 30)
_LIST = "LIST_SUBSCRIPTIONS"


class StreamError(Exception):
    """A request that the exchange answers with an error frame, then closes.

    Attributes:
        name: The exchange's name of the error.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class Wish(NamedTuple):
    """One type object of a request."""

    type: str
    codes: tuple[str, ...]
    """As sent; an order book's may end in its depth."""
    snapshot: bool
    realtime: bool
    level: Fraction
    """What an order book's prices are grouped by; 0 is not at all."""


class Subscription(NamedTuple):
    """A whole request; it replaces the one before."""

    wishes: tuple[Wish, ...]
    form: FrameFormat


class ListRequest(NamedTuple):
    """The question what is subscribed."""

    ticket: str
    form: FrameFormat | None
    """Changes the format of the running stream; None if none was named."""


def read_request(text: str, settings: SimulatorSettings) -> Subscription | ListRequest:
    """Understand one message.

    Raises:
        StreamError: it is none of the exchange's requests.
    """
    parts = _parts(text)
    tickets = [part["ticket"] for part in parts if "ticket" in part]
    if not tickets or not isinstance(tickets[0], str) or not tickets[0]:
        raise StreamError("NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다.")
    form = _form(parts)
    methods = [part["method"] for part in parts if "method" in part]
    if methods:
        if methods != [_LIST]:
            raise _unsupported(f"{methods[0]} 은 지원하지 않는 메서드입니다.")
        return ListRequest(tickets[0], form)
    asked = [part for part in parts if not part.keys() & {"ticket", "format"}]
    if not asked:
        raise _no_type()
    wishes = tuple(_wish(part, settings) for part in asked)
    return Subscription(wishes, form or FORMATS["DEFAULT"])


def split_depth(code: str) -> tuple[str, int]:
    """``"KRW-BTC.15"`` as code and depth; a depth that is not offered means all levels."""
    symbol, _, suffix = code.partition(".")
    # Other scripts' digits are decimal too, but no depth of the exchange's.
    depth = int(suffix) if suffix.isascii() and suffix.isdecimal() and len(suffix) < 3 else 0
    return symbol, depth if depth in _DEPTHS else BOOK_LEVELS


def _parts(text: str) -> list[dict[str, Any]]:
    try:
        parts = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise _wrong_format() from None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _wrong_format()
    return parts


def _form(parts: list[dict[str, Any]]) -> FrameFormat | None:
    names = [part["format"] for part in parts if "format" in part]
    if not names:
        return None
    form = FORMATS.get(names[-1]) if isinstance(names[-1], str) else None
    if form is None:
        raise _wrong_format()
    return form


def _wish(part: Mapping[str, Any], settings: SimulatorSettings) -> Wish:
    kind = part.get("type")
    if kind is None:
        raise _no_type()
    if not isinstance(kind, str) or kind not in STREAM_TYPES:
        raise _unsupported(f"{kind} 은 지원하지 않는 타입입니다.")
    codes = part.get("codes")
    if not isinstance(codes, list) or not codes:
        raise StreamError("NO_CODES", "코드가 존재하지 않습니다.")
    only_snapshot = _flag(part, settings, "is_only_snapshot", "isOnlySnapshot")
    only_realtime = _flag(part, settings, "is_only_realtime", "isOnlyRealtime")
    if only_snapshot and only_realtime and settings.both_flags_invalid:
        raise _unsupported("is_only_snapshot 과 is_only_realtime 은 함께 사용할 수 없습니다.")
    return Wish(
        type=kind,
        codes=tuple(str(code) for code in codes),
        snapshot=not only_realtime,
        realtime=not only_snapshot,
        level=_level(part.get("level")) if kind == "orderbook" else Fraction(0),
    )


def _flag(part: Mapping[str, Any], settings: SimulatorSettings, name: str, old_name: str) -> bool:
    return part.get(name) is True or (settings.old_names_accepted and part.get(old_name) is True)


def _level(given: object) -> Fraction:
    """A level is a number or a numeric string."""
    if given is None or given == "":
        return Fraction(0)
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise _wrong_format()
    try:
        # The shortest text of a float is what was sent, and never longer than it can be.
        return Fraction(repr(float(given)))
    except (ValueError, OverflowError):
        raise _wrong_format() from None


def _no_type() -> StreamError:
    return StreamError("NO_TYPE", "타입이 존재하지 않습니다.")


def _unsupported(message: str) -> StreamError:
    return StreamError("INVALID_PARAM", message)


def _wrong_format() -> StreamError:
    return StreamError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
