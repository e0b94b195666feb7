"""Frames of the stream: what they are of, and the same message in another format.

Whatever is rewritten keeps the text of each number as it was recorded (upbit-api,
sections 5.3 to 5.7 name the keys of both formats).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from upbit_backbone.recorder.records import StreamForm
from upbit_backbone.short_keys import SHORT_DATES, SHORT_KEYS

_FULL_KEYS: Mapping[str, str] = {short: full for full, short in SHORT_KEYS.items()}
_UNITS = ("orderbook_units", "obu")
_STREAM_TYPES = ("stream_type", "st")


class Frame(NamedTuple):
    """A data frame, and what it is of."""

    kind: str
    """``ticker``, ``trade``, ``orderbook`` or ``candle.…``"""
    code: str
    snapshot: bool
    data: bytes


class Look(NamedTuple):
    """How a client wants a frame written."""

    short: bool
    as_list: bool = False
    depth: int | None = None
    """Rows of an order book; None: all."""
    as_snapshot: bool = False
    """Say SNAPSHOT where the frame says REALTIME."""


class _Tags(msgspec.Struct):
    type: str = ""
    ty: str = ""
    code: str = ""
    cd: str = ""
    stream_type: str = ""
    st: str = ""


_tags = msgspec.json.Decoder(_Tags)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def read_frame(data: bytes) -> Frame | None:
    """What a frame is of; None for a status, an error, and whatever else is no data."""
    try:
        tags = _tags.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    kind, code = tags.type or tags.ty, tags.code or tags.cd
    if not kind or not code:
        return None
    return Frame(kind, code, (tags.stream_type or tags.st) == "SNAPSHOT", data)


def kind_and_code(data: bytes) -> tuple[str, str] | None:
    """The type and the market of a data frame."""
    frame = read_frame(data)
    return None if frame is None else (frame.kind, frame.code)


def form_of(data: bytes) -> StreamForm:
    """The format whose keys a frame has."""
    try:
        return "SIMPLE" if _tags.decode(data).ty else "DEFAULT"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "DEFAULT"


def written(frame: Frame, recorded: StreamForm, look: Look) -> bytes:
    """The frame as a client wants it; the recorded bytes themselves wherever they fit."""
    to_short = look.short and recorded == "DEFAULT"
    to_full = not look.short and recorded == "SIMPLE"
    cut = look.depth is not None and frame.kind == "orderbook"
    mark = look.as_snapshot and not frame.snapshot
    data = frame.data
    if to_short or to_full or cut or mark:
        names = _short_names(frame.kind) if to_short else _full_names() if to_full else {}
        data = _rewritten(data, names, look.depth if cut else None, mark)
    return b"[" + data + b"]" if look.as_list else data


def _rewritten(data: bytes, names: Mapping[str, str], depth: int | None, mark: bool) -> bytes:
    members = _members.decode(data)
    for key in _UNITS:
        if key in members and (names or depth is not None):
            rows = _rows.decode(members[key])[:depth]
            members[key] = msgspec.Raw(msgspec.json.encode([_renamed(row, names) for row in rows]))
    if mark:
        for key in _STREAM_TYPES:
            if key in members:
                members[key] = msgspec.Raw(b'"SNAPSHOT"')
    return msgspec.json.encode(_renamed(members, names))


def _renamed(members: dict[str, msgspec.Raw], names: Mapping[str, str]) -> dict[str, msgspec.Raw]:
    return {names.get(key, key): value for key, value in members.items()}


def _short_names(kind: str) -> Mapping[str, str]:
    return {**SHORT_KEYS, "trade_date": SHORT_DATES.get(kind, "td")}


def _full_names() -> Mapping[str, str]:
    return {**_FULL_KEYS, **dict.fromkeys(SHORT_DATES.values(), "trade_date")}
