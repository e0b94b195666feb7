"""What a client of a replay asks of the stream, read from its request.

The grammar is the exchange's (upbit-api, sections 5.2 and 5.8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

KINDS = (
    "ticker",
    "trade",
    "orderbook",
    *(f"candle.{unit}" for unit in ("1s", "1m", "3m", "5m", "10m", "15m", "30m", "60m", "240m")),
)
_FORMATS = {
    "DEFAULT": (False, False),
    "SIMPLE": (True, False),
    "JSON_LIST": (False, True),
    "SIMPLE_LIST": (True, True),
}
_DEPTHS = (1, 5, 15)  # thirty rows are all of them


class StreamError(Exception):
    """A request that is answered with an error frame, then closed."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.body = msgspec.json.encode({"error": {"name": name, "message": message}})


class Wish(NamedTuple):
    """One type object of a request."""

    kind: str
    codes: tuple[str, ...]
    """As sent; an order book's may end in its depth."""
    snapshot: bool
    realtime: bool
    level: float


class Subscription(NamedTuple):
    """A request that replaces the one before."""

    wishes: tuple[Wish, ...]
    short: bool
    as_list: bool


class ListSubscriptions(NamedTuple):
    """The question what is subscribed; its format holds from then on."""

    ticket: str
    short: bool
    as_list: bool


def read_request(text: str) -> Subscription | ListSubscriptions:
    """Understand one frame of a client.

    Raises:
        StreamError: it is none of the exchange's requests.
    """
    try:
        parts = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise _wrong_format() from None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _wrong_format()
    ticket = next((part["ticket"] for part in parts if "ticket" in part), None)
    if not isinstance(ticket, str) or not ticket:
        raise StreamError("NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다.")
    names = [part["format"] for part in parts if "format" in part]
    written = _FORMATS.get(str(names[-1]) if names else "DEFAULT")
    if written is None:
        raise _wrong_format()
    if any(part.get("method") == "LIST_SUBSCRIPTIONS" for part in parts):
        return ListSubscriptions(ticket, *written)
    asked = [part for part in parts if not part.keys() & {"ticket", "format"}]
    if not asked:
        raise StreamError("NO_TYPE", "타입이 존재하지 않습니다.")
    return Subscription(tuple(_wish(part) for part in asked), *written)


def split_depth(code: str) -> tuple[str, int | None]:
    """``"KRW-BTC.15"`` as code and depth; a depth that is not offered means all rows."""
    symbol, _, suffix = code.partition(".")
    depth = int(suffix) if suffix.isdecimal() and len(suffix) <= 2 else None
    return symbol, depth if depth in _DEPTHS else None


def listing(request: ListSubscriptions, wishes: Sequence[Wish]) -> bytes:
    """The answer to `ListSubscriptions`."""
    keys = ("ty", "cds", "lv") if request.short else ("type", "codes", "level")
    outer = ("mthd", "rslt", "tckt") if request.short else ("method", "result", "ticket")
    result = []
    for wish in wishes:
        entry: dict[str, Any] = {keys[0]: wish.kind, keys[1]: list(wish.codes)}
        if wish.kind == "orderbook":
            entry[keys[2]] = wish.level or 0
        result.append(entry)
    values = ("LIST_SUBSCRIPTIONS", result, request.ticket)
    return msgspec.json.encode(dict(zip(outer, values, strict=True)))


def _wish(part: Mapping[str, Any]) -> Wish:
    kind = part.get("type")
    if kind is None:
        raise StreamError("NO_TYPE", "타입이 존재하지 않습니다.")
    if kind not in KINDS:
        raise StreamError("INVALID_PARAM", f"{kind!s:.80} 은 지원하지 않는 타입입니다.")
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
        level = float(part.get("level") or 0)
    except (TypeError, ValueError):
        raise _wrong_format() from None
    return Wish(
        kind,
        tuple(dict.fromkeys(str(code) for code in codes)),
        snapshot=not only_realtime,
        realtime=not only_snapshot,
        level=level,
    )


def _flag(part: Mapping[str, Any], *names: str) -> bool:
    return any(part.get(name) is True for name in names)


def _wrong_format() -> StreamError:
    return StreamError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
