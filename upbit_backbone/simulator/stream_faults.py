"""What faults do to WebSocket connections, to the frames on them, and to the listener.

A session writes to a `FaultySocket` as to any other; with no fault in the book it is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Literal

import msgspec
from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from upbit_backbone.clock import SECOND_MS, Clock
from upbit_backbone.simulator.call_faults import (
    numbers_as_exponents,
    numbers_as_strings,
    reset,
    shift_stamps,
    stamps_in_microseconds,
    zero_padded,
)
from upbit_backbone.simulator.faults import ActiveFault, Fault, Faults, Strike
from upbit_backbone.simulator.random_numbers import key_of, one_draw

MOST_LATE_FRAMES = 10_000
"""Held back of one connection; further ones come in time."""

_LOOK_EVERY_S = 0.02
"""How soon connections notice that a fault's time has come, or is over."""
_GARBAGE_WORDS = 16


class StreamFaults:
    """Watches over all connections, and over who may connect.

    Args:
        faults: The book.
        clock: By which the age of connections is told.
        listen: Opens the listener (True) or closes it (False); may fail with `OSError`
            when somebody else took the port, and is tried again.
    """

    def __init__(
        self, faults: Faults, clock: Clock, listen: Callable[[bool], Awaitable[None]]
    ) -> None:
        self._faults = faults
        self._clock = clock
        self._listen = listen
        self._sockets: set[FaultySocket] = set()
        self._is_listening = True

    def socket(self, **options: Any) -> FaultySocket:
        """A WebSocket response that these faults strike; options as of its base class."""
        # A close is answered by its session, which a half-open connection does not tell of it.
        return FaultySocket(self._faults, self._clock, self._sockets, autoclose=False, **options)

    async def run(self) -> None:
        """Work until cancelled; asleep while no fault concerns connections."""
        while True:
            may_strike = self._faults.on_connections or not self._is_listening
            await self._faults.changed(within_s=_LOOK_EVERY_S if may_strike else None)
            for socket in tuple(self._sockets):
                socket.meet(self._faults.of_connections())
            await self._guard_door()

    async def _guard_door(self) -> None:
        wanted = not self._faults.refuses_connects()
        if wanted != self._is_listening:
            with suppress(OSError):
                await self._listen(wanted)
                self._is_listening = wanted


class FaultySocket(web.WebSocketResponse[Literal[True]]):
    """A WebSocket whose frames may be lost, late, doubled or spoiled.

    Under a fault of connections (`drop`, `half-open`, `slow`) each connection is asked once
    per fault.
    """

    def __init__(
        self, faults: Faults, clock: Clock, registry: set[FaultySocket], **options: Any
    ) -> None:
        super().__init__(**options)
        self._faults = faults
        self._clock = clock
        self._registry = registry
        self._opened_at_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._request: str | bytes = b""
        self._named: frozenset[str] | None = None
        self._met: dict[int, Fault | None] = {}
        self._is_deaf = False
        self._bytes_per_s: int | None = None
        self._frames = _FrameFaults(faults, self._send_now)

    @property
    def is_deaf(self) -> bool:
        """Whether it is half-open: nobody is told that the other side is silent."""
        return self._is_deaf

    def book_age_ms(self, symbol: str) -> int:
        """How old the order book of a snapshot is to be."""
        return self._faults.book_age_ms(symbol)

    @property
    def is_untouched(self) -> bool:
        """Whether frames may go to the wire as they are: no fault strikes any."""
        return not (
            self._faults.on_frames
            or self._frames.holds_any
            or self._is_deaf
            or self._bytes_per_s is not None
        )

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._opened_at_s = self._clock.monotonic()
        writer = await super().prepare(request)
        if isinstance(request.transport, asyncio.Transport):
            self._transport = request.transport
            self._registry.add(self)
            self.meet(self._faults.of_connections())
        return writer

    async def close(self, **options: Any) -> bool:
        self._registry.discard(self)
        self._frames.close()
        return await super().close(**options)

    async def receive(self, timeout: float | None = None) -> Any:
        message = await super().receive(timeout)
        while self._is_deaf and not self._is_lost:
            await asyncio.sleep(_LOOK_EVERY_S)
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await self._take_time_for(len(message.data))
            mark = b"codes" if isinstance(message.data, bytes) else "codes"
            if mark in message.data:
                self._request, self._named = message.data, None
        return message

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        """Send a frame, unless a fault has other plans for it."""
        if self._faults.on_frames or self._frames.holds_any:
            await self._frames.send(data)
        else:
            await self._send_now(data)

    def meet(self, faults: Iterable[ActiveFault]) -> None:
        """Let the faults whose time it is strike this connection, and the others end."""
        age_ms = (self._clock.monotonic() - self._opened_at_s) * SECOND_MS
        in_force = {active.number: active for active in faults}
        for number, active in in_force.items():
            fault = active.fault
            is_met = number in self._met or active.spent or age_ms < (fault.ms or 0.0)
            if is_met or (fault.symbol is not None and fault.symbol not in self._asked_for):
                continue
            self._met[number] = fault if active.strike() is not None else None
        self._met = {number: fault for number, fault in self._met.items() if number in in_force}
        self._suffer([fault for fault in self._met.values() if fault is not None])

    def _suffer(self, faults: list[Fault]) -> None:
        kinds = {fault.kind for fault in faults}
        if "drop" in kinds:
            self._registry.discard(self)
            reset(self._transport)
            return
        self._bytes_per_s = min((f.bytes for f in faults if f.bytes is not None), default=None)
        self._is_deaf = "half-open" in kinds

    @property
    def _asked_for(self) -> frozenset[str]:
        """The markets that the last request names."""
        if self._named is None:
            self._named = frozenset(_markets_named(self._request))
        return self._named

    @property
    def _is_lost(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def _take_time_for(self, size: int) -> None:
        """Pass the time that so many bytes take on a slow connection, while it is slow."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while (pace := self._bytes_per_s) is not None and not self._is_lost:
            left_s = size / pace - (loop.time() - began_s)
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, _LOOK_EVERY_S))

    async def _send_now(self, data: bytes | str) -> None:
        if self._is_deaf:
            return
        if isinstance(data, str):
            await super().send_str(data)
        else:
            await super().send_bytes(data)
        await self._take_time_for(len(data))


class _FrameFaults:
    """The faults of one connection's frames, and what they hold back."""

    def __init__(self, faults: Faults, send: Callable[[bytes | str], Awaitable[None]]) -> None:
        self._faults = faults
        self._send = send
        self._after_next: dict[tuple[str, str], bytes] = {}
        self._gathering: Strike | None = None
        self._gathered: list[bytes] = []
        self._late: set[asyncio.Task[None]] = set()

    @property
    def holds_any(self) -> bool:
        """Whether frames wait here for the next one."""
        return bool(self._after_next or self._gathered)

    async def send(self, frame: bytes) -> None:
        """Send a frame as the faults that strike it will have it."""
        symbol, type_ = topic = _names(frame)
        if not symbol:
            await self._send(frame)
            return
        strikes = {strike.fault.kind: strike for strike in self._faults.on_frame(symbol, type_)}
        if "stall" in strikes:
            return
        frame = _spoiled(frame, strikes)
        if (late := strikes.get("late")) is not None:
            if len(self._late) >= MOST_LATE_FRAMES:
                late.take_back()
                await self._send(frame)
                return
            task = asyncio.create_task(self._send_late(frame, late.delay_s), name="late frame")
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return
        if (swap := strikes.get("reorder")) is not None:
            if topic not in self._after_next:
                self._after_next[topic] = frame
                return
            swap.take_back()  # it is the one that follows
        if (gather := strikes.get("list-frames")) is not None or self._gathered:
            if not self._gather(frame, gather):
                return
            frame = b"[" + b",".join(_inside(one) for one in self._gathered) + b"]"
            self._gathered.clear()
        await self._send(frame.decode(errors="replace") if "text-frames" in strikes else frame)
        if (again := strikes.get("duplicate")) is not None:
            if again.fault.variant == "realtime":
                frame = frame.replace(b'"SNAPSHOT"', b'"REALTIME"', 1)
            await self._send(frame)
        if (held := self._after_next.pop(topic, None)) is not None:
            await self._send(held)

    def close(self) -> None:
        """Forget what is held back."""
        for task in self._late:
            task.cancel()

    def _gather(self, frame: bytes, strike: Strike | None) -> bool:
        """Put a frame with the others of a list; True when they are enough."""
        if not self._gathered:
            self._gathering = strike
        elif strike is not None:
            strike.take_back()
        self._gathered.append(frame)
        of = self._gathering
        return (
            of is None or len(self._gathered) >= (of.fault.rows or 1) or not self._faults.lasts(of)
        )

    async def _send_late(self, frame: bytes, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        with suppress(ConnectionError):
            await self._send(frame)


def _spoiled(frame: bytes, strikes: dict[str, Strike]) -> bytes:
    if (clock := strikes.get("wrong-clock")) is not None:
        frame = shift_stamps(frame, clock.fault.s or 0.0)
    if "microseconds" in strikes:
        frame = stamps_in_microseconds(frame)
    if "string-numbers" in strikes:
        frame = numbers_as_strings(frame)
    if "exponent-numbers" in strikes:
        frame = numbers_as_exponents(frame)
    if (side := strikes.get("zero-padded")) is not None:
        frame = zero_padded(frame, side.fault.rows or 0, side.fault.variant or "")
    if (large := strikes.get("oversized")) is not None:
        frame = frame.ljust(large.fault.bytes or 0)  # blanks: JSON all the same
    if (garbage := strikes.get("garbage")) is not None:
        key = key_of("garbage", round(garbage.chance * 2**32))
        words = (one_draw(key, n).to_bytes(8, "little") for n in range(_GARBAGE_WORDS))
        frame = b"\xff" + b"".join(words)
    return frame


def _names(frame: bytes) -> tuple[str, str]:
    """Market and type of a message; empty for what is not about a market."""
    try:
        message = msgspec.json.decode(frame)
    except msgspec.DecodeError:
        return "", ""
    if isinstance(message, list):
        message = message[0] if message else None
    if not isinstance(message, dict):
        return "", ""
    return (
        str(message.get("code", message.get("cd", ""))),
        str(message.get("type", message.get("ty", ""))),
    )


def _markets_named(request: str | bytes) -> Iterable[str]:
    """The markets of a request's codes, without the depth of a book."""
    with suppress(msgspec.DecodeError, RecursionError):
        parts = msgspec.json.decode(request)
        for part in parts if isinstance(parts, list) else ():
            codes = part.get("codes") if isinstance(part, dict) else None
            for code in codes if isinstance(codes, list) else ():
                yield str(code).partition(".")[0]


def _inside(frame: bytes) -> bytes:
    """The objects of a frame in a list format, or the only one."""
    return frame[1:-1] if frame.startswith(b"[") else frame
