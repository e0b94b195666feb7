"""What nobody outside knows about the exchange, decided here and open to change.

Each field is an open point of upbit-api, section 9: its default is the likeliest answer,
the others are variants that a client must survive as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from upbit_backbone.errors import InvalidRequestError

WindowKind = Literal["fixed", "first-request", "sliding"]
RefusalBody = Literal["integer", "string", "empty", "text"]
Language = Literal["en", "ko"]


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Open points of the exchange's behaviour.

    Attributes:
        window: When a limit's allowance comes back: `fixed` with the next second of the
            exchange's clock, `first-request` a second after the call that opened the
            window, `sliding` a second after each call.
        refused_count: Whether refused calls use up allowance too. It makes a difference
            under `sliding` alone: there, who keeps asking stays refused.
        refusal_body: Body of 429 and 418: `integer` names the error by its status,
            `string` by `too_many_requests`; `empty` and `text` are no JSON.
        ban_after: So many refused calls within `ban_within_s` ban the caller; 0 never.
        ban_within_s: See `ban_after`.
        ban_lengths_s: Length of a caller's first ban, its second and so on; the last one
            repeats.
        ban_forgotten_after_s: Without a ban for so long, the next one is a first one.
        ban_language: Of the sentence in a 418, which tells the seconds left.
        max_connections: WebSockets open at once, all callers together; one more is refused
            with 429. None: any number.
        keep_alive_s: A connection on which so long no whole request came is closed: one that
            is idle, and one that keeps half a request for ever.
        idle_timeout_s: A WebSocket on which so long nothing came is cut without a close
            frame (60.5 to 61 s measured, documents say 120).
        inbound_data_keeps_alive: Whether market data sent to the client counts as life.
        over_message_limit: What a client meets that sends more than 5 messages a second
            or 100 a minute: an `error` frame and a close, or a silent `drop`.
        ping_text_counts: Whether the text `PING` counts as such a message.
        max_message_bytes: A larger WebSocket message from a client closes the connection.
        both_flags_invalid: Whether `is_only_snapshot` with `is_only_realtime` is an
            `INVALID_PARAM`; else the client gets neither.
        old_names_accepted: Whether camelCase names of parameters are understood.
        snapshot_bursts_ms: When the two bursts of snapshots leave after a request (170 to
            190 and 330 to 350 ms measured); empty: at once.
        trades_over_500: A `count` over 500 of trades is `cut` or an `error` 400.
        days_ago_out_of_range: 400 (`error`), or an `empty` page.
        ticker_all_unknown_quote: 404 `Code not found` (`404`), or 200 `[]` (`empty`).
        total_sizes: Order book totals at a smaller depth: those of all `30` levels, or of
            the rows `shown`.
        trade_time_without_seconds: Whether `trade_time` of a WebSocket trade drops its
            seconds when they are 00, as recorded in 2021.
        late_trades: Whether about two trades in a hundred arrive after a later one.
        late_last_trade: Whether the last trade of a candle may be stored up to a second
            after its end, so that a closed candle changes.
        late_candle_frame: Whether a candle stream sends a frame of the bucket just left.

    Raises:
        InvalidRequestError: a value that the field cannot have.
    """

    window: WindowKind = "fixed"
    refused_count: bool = False
    refusal_body: RefusalBody = "integer"
    ban_after: int = 20
    ban_within_s: float = 10.0
    ban_lengths_s: tuple[float, ...] = (10.0, 60.0, 300.0, 3_600.0)
    ban_forgotten_after_s: float = 3_600.0
    ban_language: Language = "en"
    max_connections: int | None = None
    keep_alive_s: float = 75.0
    idle_timeout_s: float = 60.0
    inbound_data_keeps_alive: bool = True
    over_message_limit: Literal["error", "drop"] = "error"
    ping_text_counts: bool = True
    max_message_bytes: int = 1 << 20
    both_flags_invalid: bool = True
    old_names_accepted: bool = True
    snapshot_bursts_ms: tuple[float, ...] = ()
    trades_over_500: Literal["cut", "error"] = "cut"
    days_ago_out_of_range: Literal["error", "empty"] = "error"
    ticker_all_unknown_quote: Literal["404", "empty"] = "404"
    total_sizes: Literal["30", "shown"] = "30"
    trade_time_without_seconds: bool = False
    late_trades: bool = True
    late_last_trade: bool = False
    late_candle_frame: bool = False

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError:
                raise _unfit(name, value, _described(kind)) from None
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(one, int | float) and not 0 <= one < math.inf for one in numbers):
                raise _unfit(name, value, "a finite number of 0 or more")
        if not self.ban_lengths_s:
            raise _unfit("ban_lengths_s", self.ban_lengths_s, "at least one length in seconds")


def read_settings(pairs: Iterable[str]) -> SimulatorSettings:
    """Settings from texts ``name=value``; several values of one are divided by commas.

    Raises:
        InvalidRequestError: no such setting, or a value that it cannot have.
    """
    kinds, given = get_type_hints(SimulatorSettings), dict[str, Any]()
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or name not in kinds:
            raise InvalidRequestError(
                f"setting {pair!r} is none: expected NAME=VALUE with one of {', '.join(kinds)}"
            )
        several = get_origin(kinds[name]) is tuple
        value = tuple(part for part in text.split(",") if part) if several else text
        try:
            given[name] = msgspec.convert(value, kinds[name], strict=False)
        except msgspec.ValidationError:
            raise _unfit(name, text, _described(kinds[name])) from None
    return SimulatorSettings(**given)


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return _NAMES.get(kind, "numbers divided by commas")


_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | None: "a whole number, or null for none",
}


def _unfit(name: str, value: object, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} of the simulator was {value!r}: expected {expected}")
