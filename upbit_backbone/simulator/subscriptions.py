"""What a WebSocket client asks for, read from its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.stream_frames import FORMATS, FrameFormat

STREAM_TYPES = ("ticker", "trade", "orderbook")
_DEPTHS = (1, 5, 15, 30)


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
    grouped: bool
    """With a price level that no simulated market offers: nothing is sent."""


class Subscription(NamedTuple):
    """A whole request; it replaces the one before."""

    wishes: tuple[Wish, ...]
    form: FrameFormat


def read_request(text: str) -> Subscription:
    """Understand one text frame.

    Raises:
        StreamError: it is none of the exchange's requests.
    """
    try:
        parts = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise _wrong_format() from None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _wrong_format()
    if not any(isinstance(part.get("ticket"), str) and part["ticket"] for part in parts):
        raise StreamError("NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다.")
    names = [part["format"] for part in parts if "format" in part]
    form = FORMATS.get(str(names[-1]) if names else "DEFAULT")
    if form is None:
        raise _wrong_format()
    asked = [part for part in parts if not part.keys() & {"ticket", "format"}]
    if not asked:
        raise StreamError("NO_TYPE", "타입이 존재하지 않습니다.")
    return Subscription(tuple(_wish(part) for part in asked), form)


def split_depth(code: str) -> tuple[str, int]:
    """``"KRW-BTC.15"`` as code and depth; a depth that is not offered means all levels."""
    symbol, _, suffix = code.partition(".")
    depth = int(suffix) if suffix.isdecimal() else BOOK_LEVELS
    return symbol, depth if depth in _DEPTHS else BOOK_LEVELS


def _wish(part: Mapping[str, Any]) -> Wish:
    kind = part.get("type")
    if kind is None:
        raise StreamError("NO_TYPE", "타입이 존재하지 않습니다.")
    if kind not in STREAM_TYPES:
        raise StreamError("INVALID_PARAM", f"{kind} 은 지원하지 않는 타입입니다.")
    codes = part.get("codes")
    if not isinstance(codes, list) or not codes:
        raise StreamError("NO_CODES", "코드가 존재하지 않습니다.")
    only_snapshot = _flag(part, "is_only_snapshot", "isOnlySnapshot")
    only_realtime = _flag(part, "is_only_realtime", "isOnlyRealtime")
    if only_snapshot and only_realtime:
        raise StreamError(
            "INVALID_PARAM", "is_only_snapshot 과 is_only_realtime 은 함께 사용할 수 없습니다."
        )
    try:
        grouped = float(part.get("level") or 0) != 0
    except (TypeError, ValueError):
        raise _wrong_format() from None
    return Wish(
        type=kind,
        codes=tuple(str(code) for code in codes),
        snapshot=not only_realtime,
        realtime=not only_snapshot,
        grouped=grouped,
    )


def _flag(part: Mapping[str, Any], *names: str) -> bool:
    return any(part.get(name) is True for name in names)


def _wrong_format() -> StreamError:
    return StreamError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
