"""What every call meets before it is answered, and what every answer gets on its way out.

Limits and bans, faults, headers, compression, errors. The endpoints are in `rest.py`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, NamedTuple

import msgspec
from aiohttp import hdrs, web

from upbit_backbone.clock import SECOND_MS, Clock
from upbit_backbone.simulator.call_faults import AnswerClock, CallFaults
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.faults import WEBSOCKET, Faults
from upbit_backbone.simulator.limits import CallCounter

_COMPRESS_FROM_BYTES = 1_024
_DATE_SHIFT_S = web.RequestKey("date_shift_s", float)
# No 418 was ever published word for word; the docs say that its text tells how long
# (upbit-api, section 4).
_BLOCKED = {
    "en": "Too many requests. Access is blocked for %d seconds.",
    "ko": "요청 수를 초과하여 %d초 동안 접근이 제한됩니다.",
}
_MAINTENANCE = (
    b"<html>\r\n<head><title>Maintenance</title></head>\r\n"
    b"<body>\r\n<h1>Scheduled maintenance</h1>\r\n</body>\r\n</html>\r\n"
)
_encode = msgspec.json.encode

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[web.Request], Awaitable[Any]]


class RestError(Exception):
    """An answer that is an error; its name is the status, as on all quotation endpoints."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Entry(NamedTuple):
    """How a call came in.

    Attributes:
        refusal: What it is answered with at once, or None: it goes on.
        headers: What the answer says about the limit.
        faults: What strikes it, or None.
    """

    refusal: web.StreamResponse | None
    headers: dict[str, str]
    faults: CallFaults | None


class Gateway:
    """Lets calls in, and sends their answers out.

    Attributes:
        clock: The time as of which endpoints answer.
        calls: What it counted.
    """

    def __init__(self, exchange: Exchange, faults: Faults) -> None:
        self.clock: Clock = AnswerClock(exchange.clock)
        self.calls = CallCounter(exchange.settings)
        self._exchange = exchange
        self._settings = exchange.settings
        self._faults = faults
        # Fixed windows are seconds of the exchange's clock, but go on when it is stopped.
        # All windows divide a minute.
        self._phase_s = (self.clock.now_ms() / SECOND_MS - self.clock.monotonic()) % 60

    def now(self) -> float:
        """Seconds by which calls and messages are counted."""
        return self.clock.monotonic() + self._phase_s

    def limited(self, group: str, answer: Answer) -> Handler:
        """A handler of an endpoint: `answer` gives what becomes the body, or a `RestError`.

        Bytes are a body already; anything else is encoded as JSON.
        """

        async def handle(request: web.Request) -> web.StreamResponse:
            entry = await self.enter(group, request)
            if entry.refusal is not None:
                return entry.refusal
            if entry.faults is not None:
                return await _answer_with_faults(group, request, answer, entry, entry.faults)
            status, body = await _ask(answer, request)
            return respond(request, status, body, entry.headers)

        return handle

    async def enter(self, group: str, request: web.Request) -> Entry:
        """Let a call in or refuse it, and count it."""
        if self._exchange.in_maintenance(self._exchange.clock.now_ms()):
            return Entry(page_of_a_proxy(503, _MAINTENANCE), {}, None)
        if not self._faults.on_calls:
            return Entry(*self._admit(group, request), None)
        strikes = self._faults.on_call(group, _symbols(request))
        if not strikes:
            return Entry(*self._admit(group, request), None)
        return await self._enter_with_faults(group, request, CallFaults(strikes))

    async def _enter_with_faults(
        self, group: str, request: web.Request, faults: CallFaults
    ) -> Entry:
        request[_DATE_SHIFT_S] = faults.clock_shift_s
        await faults.delay(request)
        caller = caller_of(request)
        if faults.ban_s is not None:
            self.calls.ban(caller, faults.ban_s, self.now())
        if faults.too_fast and self.calls.banned_s(caller, self.now()) == 0:
            group, minute = _group(group, request)
            self.calls.refuse(group, caller, self.now())
            headers = _limit_headers(group, minute, 0)
            headers = faults.headers(headers)
            return Entry(self._refusal(request, 0.0, headers), headers, faults)
        refusal, headers = self._admit(group, request)
        headers = faults.headers(headers)
        if refusal is None and await faults.lost(request):
            refusal = web.Response()
        elif refusal is None and (page := faults.page_of_a_proxy) is not None:
            refusal = page_of_a_proxy(*page)
        elif refusal is None and faults.is_broken:
            body = error_body(500, "Internal server error")
            refusal = respond(request, 500, body, headers)
        return Entry(refusal, headers, faults)

    def _admit(
        self, group: str, request: web.Request
    ) -> tuple[web.Response | None, dict[str, str]]:
        """Count a call: the 429 or 418 to answer with, or None, and the limit's headers.

        A call with an `Origin` header belongs to a group of its own, one call in ten seconds.
        """
        group, minute = _group(group, request)
        caller, now = caller_of(request), self.now()
        blocked_s = self.calls.banned_s(caller, now)
        remaining = self.calls.take(group, caller, now)
        headers = _limit_headers(group, minute, remaining or 0)
        if remaining is not None:
            return None, headers
        return self._refusal(request, blocked_s, headers), headers

    def refuse_connection(self, request: web.Request, headers: dict[str, str]) -> web.Response:
        """The answer to one connection too many."""
        return self._refusal(request, 0.0, headers)

    def _refusal(
        self, request: web.Request, blocked_s: float, headers: dict[str, str]
    ) -> web.Response:
        """429, or 418 with the whole seconds left in its text."""
        status, message = 429, "Too many requests"
        if blocked_s > 0:
            status, message = 418, _BLOCKED[self._settings.ban_language] % math.ceil(blocked_s)
        form = self._settings.refusal_body
        if form in ("empty", "text"):
            text = message if form == "text" else None
            return web.Response(status=status, text=text, headers=headers)
        name = status if form == "integer" else "too_many_requests"
        return respond(request, status, error_body(name, message), headers)


async def _ask(answer: Answer, request: web.Request) -> tuple[int, bytes]:
    try:
        given = await answer(request)
        return 200, given if isinstance(given, bytes) else _encode(given)
    except RestError as error:
        return error.status, error_body(error.status, error.message)


async def _answer_with_faults(
    group: str, request: web.Request, answer: Answer, entry: Entry, faults: CallFaults
) -> web.StreamResponse:
    with faults.as_of():
        status, body = await _ask(answer, request)
    if status == 200:
        body = faults.body(group, body)
    else:
        faults.spare()
    return await faults.send(request, respond(request, status, body, entry.headers))


def caller_of(request: web.Request) -> str:
    """Whose allowance a call uses up: the caller's address.

    This machine's two loopback addresses, and IPv4 written as IPv6, are one caller's: the
    exchange, reached by IPv4 alone, counts all programs behind one address together.
    """
    address = (request.remote or "").removeprefix("::ffff:")
    return "127.0.0.1" if address == "::1" else address


def _group(group: str, request: web.Request) -> tuple[str, int]:
    """The group a call is counted in, and what its header says of the minute."""
    if hdrs.ORIGIN in request.headers:
        return "origin", 6
    return group, 300 if group == WEBSOCKET else 600


def _limit_headers(group: str, minute: int, left: int) -> dict[str, str]:
    return {
        "remaining-req": f"group={group}; min={minute}; sec={left}",
        "limit-by-ip": "Yes",
    }


def _symbols(request: web.Request) -> list[str]:
    """The markets a call names."""
    named = (request.query.get(name, "") for name in ("market", "markets"))
    return ",".join(named).upper().split(",")


async def no_route(request: web.Request) -> web.StreamResponse:
    """The gateway's answer to a path that leads nowhere; it has no `remaining-req`."""
    body = error_body("not_found", "no Route matched with those values")
    return respond(request, 404, body, {})


def error_body(name: int | str, message: str) -> bytes:
    """``{"error":{"name":…,"message":…}}``."""
    return _encode({"error": {"name": name, "message": message}})


def page_of_a_proxy(status: int, body: bytes) -> web.Response:
    """An answer that comes from before the exchange: HTML, no limit's headers."""
    return web.Response(status=status, body=body, content_type="text/html")


def stamp(request: web.Request, response: web.StreamResponse, exchange: Exchange) -> None:
    """Mark a response as simulated and date it by the exchange's own clock.

    Clients learn the exchange's time from `Date`; the machine's would contradict the data.
    """
    response.headers["X-Simulated-Exchange"] = exchange.name
    shift_s = request.get(_DATE_SHIFT_S, 0.0)
    seconds = exchange.clock.now_ms() / SECOND_MS + shift_s
    response.headers[hdrs.DATE] = formatdate(math.floor(seconds), usegmt=True)


def respond(
    request: web.Request, status: int, body: bytes, headers: dict[str, str]
) -> web.Response:
    """A JSON response as the exchange sends it, compressed if the caller can read that."""
    headers = {
        hdrs.CONTENT_TYPE: "application/json;charset=UTF-8",
        hdrs.CACHE_CONTROL: "no-cache, no-store, max-age=0, must-revalidate",
        **headers,
    }
    if status == 200:
        # Whether the exchange would answer `If-None-Match` with 304 is not known.
        headers[hdrs.ETAG] = f'W/"{zlib.crc32(body):08x}"'
    accepted = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    if len(body) >= _COMPRESS_FROM_BYTES and "gzip" in accepted:
        # The fastest level: the caller may share this process and its loop.
        packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(status=status, body=body, headers=headers)
