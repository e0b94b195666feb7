"""What faults do to one call: to its waiting, its status, its body and its headers."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from decimal import Decimal

import msgspec
from aiohttp import web

from upbit_backbone.clock import Clock
from upbit_backbone.simulator.faults import Strike

_WRITES_PER_S = 20
_NUMBER = re.compile(rb"([:\[,])(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?=[,\]}])")
"""A number in JSON without blanks. Texts of the exchange never hold a comma before one."""
_STAMP = re.compile(rb'("(?:timestamp|tms)":)(\d+)')
_PAGED = ("candles", "trades")
_LINGER = "hh" if sys.platform == "win32" else "ii"
_PAGE_OF_A_PROXY = (
    b"<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n"
    b"<center><h1>%d %s</h1></center>\r\n</body>\r\n</html>\r\n"
)
_REASONS = {502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout"}

_Book = dict[str, msgspec.Raw]

_behind_ms: ContextVar[int] = ContextVar("behind_ms", default=0)


class AnswerClock:
    """The exchange's clock, behind while a call is answered as of some time ago."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.now_ms() - _behind_ms.get()

    def monotonic(self) -> float:
        return self._clock.monotonic()


class CallFaults:
    """The faults that strike one call; the gateway asks in the order of the methods here."""

    def __init__(self, strikes: Sequence[Strike]) -> None:
        self._strikes = {strike.fault.kind: strike for strike in strikes}

    async def delay(self, request: web.Request) -> None:
        """Wait before the call is looked at: latency, slow reading."""
        if (late := self._strikes.get("latency")) is not None:
            await asyncio.sleep(late.delay_s)
        if (slow := self._strikes.get("slow")) is not None and slow.fault.bytes:
            length = len(request.raw_path) + sum(len(k) + len(v) for k, v in request.raw_headers)
            await asyncio.sleep(length / slow.fault.bytes)

    @property
    def too_fast(self) -> bool:
        """Whether the call counts as one too many."""
        return "429" in self._strikes or "handshake-429" in self._strikes

    @property
    def ban_s(self) -> float | None:
        """For how long the caller is banned from now on; None: not at all."""
        ban = self._strikes.get("418")
        return None if ban is None else ban.fault.s

    async def lost(self, request: web.Request) -> bool:
        """Whether the call gets no answer; does not return while its connection hangs."""
        if "drop" in self._strikes:
            reset(request.transport)
            return True
        if "hang" in self._strikes:
            await asyncio.Event().wait()  # until the connection ends, which cancels this
        return False

    @property
    def page_of_a_proxy(self) -> tuple[int, bytes] | None:
        """Status and HTML body that come in place of any answer."""
        for status, reason in _REASONS.items():
            if str(status) in self._strikes:
                return status, _PAGE_OF_A_PROXY % (status, reason, status, reason)
        return None

    @property
    def is_broken(self) -> bool:
        """Whether the answer is a 500 as the exchange's own programs give it."""
        return "500" in self._strikes

    @contextmanager
    def as_of(self) -> Iterator[None]:
        """What is asked inside is answered as of some time ago."""
        lag = self._strikes.get("lag")
        token = _behind_ms.set(round(lag.fault.ms or 0) if lag is not None else 0)
        try:
            yield
        finally:
            _behind_ms.reset(token)

    def body(self, group: str, body: bytes) -> bytes:
        """The body of a 200 as it goes out."""
        strikes = self._strikes
        if "empty" in strikes:
            return b"[]"
        if (gap := strikes.get("missing-rows")) is not None:
            body = _unless_same(without_rows(body, gap.fault.rows or 0), body, gap)
        if (side := strikes.get("zero-padded")) is not None:
            padded = zero_padded(body, side.fault.rows or 0, side.fault.variant or "")
            body = _unless_same(padded, body, side)
        if (clock := strikes.get("wrong-clock")) is not None and group not in _PAGED:
            body = shift_stamps(body, clock.fault.s or 0.0)
        if (types := strikes.get("wrong-types")) is not None:
            body = wrongly_typed(body, types.fault.variant or "")
        if "string-numbers" in strikes:
            body = numbers_as_strings(body)
        if "exponent-numbers" in strikes:
            body = numbers_as_exponents(body)
        if "malformed" in strikes:
            body = body.replace(b":", b"=", 1) + b"}"
        cut = strikes.get("truncated")
        return body[: len(body) // 2] if cut is not None and cut.fault.variant == "body" else body

    def spare(self) -> None:
        """There is no page whose rows could be missing or padded."""
        for kind in ("missing-rows", "zero-padded"):
            if (strike := self._strikes.get(kind)) is not None:
                strike.take_back()

    def headers(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers as they go out."""
        lie = self._strikes.get("remaining")
        if lie is None or "remaining-req" not in headers:
            return headers
        headers = dict(headers)
        told = headers.pop("remaining-req")
        before, _, left = told.rpartition("=")
        if lie.fault.variant == "more":
            headers["remaining-req"] = f"{before}={int(left) + 5}"
        elif lie.fault.variant == "less":
            headers["remaining-req"] = f"{before}={int(left) // 2}"
        return headers

    @property
    def clock_shift_s(self) -> float:
        """How far `Date` is off."""
        shift = self._strikes.get("wrong-clock")
        return 0.0 if shift is None else shift.fault.s or 0.0

    async def send(self, request: web.Request, response: web.Response) -> web.StreamResponse:
        """Send the response, slowly or not to its end."""
        slow, cut = self._strikes.get("slow"), self._strikes.get("truncated")
        is_cut = cut is not None and cut.fault.variant == "connection"
        if slow is None and not is_cut:
            return response
        body = response.body
        assert isinstance(body, bytes)
        sent = web.StreamResponse(status=response.status, headers=response.headers)
        sent.content_length = len(body)
        pace = slow.fault.bytes if slow is not None else None
        with suppress(ConnectionError):
            await sent.prepare(request)
            await _write(sent, body[: len(body) // 2] if is_cut else body, pace)
            if is_cut and request.transport is not None:
                request.transport.close()
        return sent


async def _write(response: web.StreamResponse, body: bytes, bytes_per_s: int | None) -> None:
    if bytes_per_s is None:
        await response.write(body)
        return
    step = max(bytes_per_s // _WRITES_PER_S, 1)
    for start in range(0, len(body), step):
        await response.write(body[start : start + step])
        await asyncio.sleep(step / bytes_per_s)


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with a TCP reset, without a word."""
    if not isinstance(transport, asyncio.Transport):
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        # Not to linger at all turns the close into a reset; closed sockets cannot be told.
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
    transport.abort()


def without_rows(body: bytes, count: int) -> bytes:
    """A page without rows of its middle; its first and last row stay."""
    rows = _rows(body)
    count = min(count, len(rows) - 2)
    if count <= 0:
        return body
    start = (len(rows) - count) // 2
    return msgspec.json.encode(rows[:start] + rows[start + count :])


def zero_padded(body: bytes, count: int, side: str) -> bytes:
    """Order books whose last rows are zeros on one side; the side's total is of the others.

    Args:
        body: One book or an array of them, with full or short keys.
        count: How many rows; the first one always stays.
        side: ``bid`` or ``ask``.
    """
    try:
        books = msgspec.json.decode(body, type=_Book | list[_Book])
    except msgspec.DecodeError:
        return body
    for book in books if isinstance(books, list) else [books]:
        if "orderbook_units" in book:
            _pad(
                book,
                "orderbook_units",
                f"{side}_price",
                f"{side}_size",
                f"total_{side}_size",
                count,
            )
        elif "obu" in book:
            _pad(book, "obu", f"{side[0]}p", f"{side[0]}s", f"t{side[0]}s", count)
        else:
            return body
    return msgspec.json.encode(books)


def _pad(book: _Book, units: str, price: str, size: str, total: str, count: int) -> None:
    rows = msgspec.json.decode(book[units], type=list[_Book])
    left = Decimal(bytes(book[total]).decode())
    for row in rows[max(len(rows) - count, 1) :]:
        left -= Decimal(bytes(row[size]).decode())
        row[price] = row[size] = msgspec.Raw(b"0.0")
    book[units] = msgspec.Raw(msgspec.json.encode(rows))
    book[total] = msgspec.Raw(f"{max(left, Decimal(0)):f}".encode())


def _unless_same(changed: bytes, body: bytes, strike: Strike) -> bytes:
    if changed is body:
        strike.take_back()
    return changed


def wrongly_typed(body: bytes, variant: str) -> bytes:
    """JSON of other types than the exchange's."""
    if variant == "object":
        return b'{"data":' + body + b"}"
    return numbers_as_strings(body) if variant == "strings" else _NUMBER.sub(rb"\1null", body)


def numbers_as_strings(body: bytes) -> bytes:
    """JSON with every number in quotation marks."""
    return _NUMBER.sub(rb'\1"\2"', body)


def numbers_as_exponents(body: bytes) -> bytes:
    """JSON with every number that has a fraction in exponent form, its value unchanged."""
    return _NUMBER.sub(_exponent, body)


def shift_stamps(body: bytes, seconds: float) -> bytes:
    """JSON whose `timestamp` or `tms` is off."""
    shift_ms = round(seconds * 1_000)
    return _STAMP.sub(lambda found: found[1] + b"%d" % (int(found[2]) + shift_ms), body)


def stamps_in_microseconds(body: bytes) -> bytes:
    """JSON whose `timestamp` or `tms` counts microseconds."""
    return _STAMP.sub(rb"\g<1>\g<2>000", body)


def _exponent(found: re.Match[bytes]) -> bytes:
    whole, point, fraction = found[2].partition(b".")
    if not point or b"e" in fraction.lower():
        return found[0]
    return found[1] + b"%dE-%d" % (int(whole + fraction), len(fraction))


def _rows(body: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return []
