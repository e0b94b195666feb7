"""One REST request: sent once, its answer checked, its failure translated."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from aiohttp import ClientConnectorError, ClientError, ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from upbit_backbone.clock import ExchangeClock, Moment, epoch_ms
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.exchanges.upbit.addresses import Endpoint
from upbit_backbone.exchanges.upbit.decode import decode_error, excerpt
from upbit_backbone.origin import MARK_HEADER, Origin

OnRemaining = Callable[[str, int], None]
"""Takes a rate group and how many calls are left in its current second."""

TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0

TOO_FAST_RETRY_S = 1.0
"""A 429 ends with the second (https://docs.upbit.com/kr/reference/rate-limits)."""

_REMAINING = re.compile(r"\s*group=([^;\s]+)\s*;.*\bsec=(\d+)")
# The documents say candle and trade, the wire candles and trades: one counter each.
_GROUP_NAMES = {"candle": "candles", "trade": "trades"}


class RestClient:
    """Asks one exchange's REST interface; keeps nothing between two requests."""

    def __init__(
        self,
        session: ClientSession,
        url: str,
        *,
        origin: Origin,
        clock: ExchangeClock,
        on_remaining: OnRemaining | None,
        timeout_s: float,
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._origin = origin
        self._clock = clock
        self._on_remaining = on_remaining
        self._timeout_s = timeout_s
        self._timeout = ClientTimeout(
            total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s)
        )

    async def get(
        self, endpoint: Endpoint, what: str, *, symbol: str = "", **parameters: str | int
    ) -> bytes:
        """Ask once and return the body of a success.

        No retry, no redirect. Never sends `Origin`: its mere presence moves the call into a
        group with one call in ten seconds. Safe to cancel: nothing is kept.

        Args:
            endpoint: What to ask.
            what: What is asked for, in words, for messages.
            symbol: The market or markets asked for, which a 404 calls unknown.
            **parameters: The query; each value is percent-encoded whole.

        Raises:
            BackboneError: as `ExchangeAdapter` lists them.

        Source: https://docs.upbit.com/kr/reference/rest-api-guide
        """
        if self._session.closed:
            raise ClosedError(f"{what}: asked after the connection to the exchange was closed")
        # yarl would leave ":" and "," as they are; Upbit wants them encoded.
        query = f"?{urlencode(parameters)}" if parameters else ""
        url = URL(f"{self._url}{endpoint.path}{query}", encoded=True)
        sent = self._clock.moment()
        try:
            async with self._session.get(
                url, timeout=self._timeout, allow_redirects=False
            ) as response:
                received = self._clock.moment()
                body = await response.read()
        except TimeoutError as error:
            raise TransportError(
                f"{what}: no answer from {url.host} within {self._timeout_s:g} s; try again"
            ) from error
        except (ClientError, OSError) as error:
            raise TransportError(
                f"{what}: {url.authority} was not reached or cut the answer off"
                f" ({_cause(error)}); check the connection and try again"
            ) from error
        report_remaining(response.headers.get("Remaining-Req"), self._on_remaining)
        if 300 <= response.status < 400 or response.status >= 500:
            # Whatever stands before the exchange may have answered: nothing of it is used,
            # not even the missing mark of a simulator.
            raise TransportError(
                f"{what}: {url.host} answered {response.status} ({response.reason});"
                " it may be under maintenance: try again later"
            )
        mark = response.headers.get(MARK_HEADER)
        if mark is not None or body.lstrip()[:1] in (b"{", b"["):
            # A page for people is not the exchange's, and tells nothing of whose data follow.
            self._origin.observe(mark)
        observe_date(self._clock, response.headers.get("Date"), sent, received)
        if response.status != 200:
            raise _refusal(response, body, endpoint, what, symbol)
        return body


def observe_date(clock: ExchangeClock, header: str | None, sent: Moment, received: Moment) -> None:
    """Teach `clock` the ``Date`` of an answer, if it has one that can be read."""
    try:
        moment = parsedate_to_datetime(header or "")
    except ValueError:
        return
    if moment.tzinfo is not None:
        clock.observe_date(epoch_ms(moment), sent=sent, received=received)


def _cause(error: ClientError | OSError) -> str:
    """What went wrong, in a few words: aiohttp's own texts spell out connection keys."""
    if isinstance(error, ClientConnectorError):
        error = error.os_error
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{text:.80}" or type(error).__name__


def report_remaining(header: str | None, on_remaining: OnRemaining | None) -> None:
    """Hand on ``Remaining-Req: group=candles; min=600; sec=9``; groups are not fixed."""
    found = None if header is None or on_remaining is None else _REMAINING.match(header)
    if found is not None and on_remaining is not None:
        on_remaining(_GROUP_NAMES.get(found[1], found[1]), int(found[2]))


def rate_limited(status: int, body: bytes, what: str) -> RateLimitedError:
    """The error for 429 (wait for the next second) and 418 (this address is blocked).

    A 418 names its length in its text; where it does not, `retry_after_s` is None.
    """
    if status == 429:
        return RateLimitedError(
            f"{what}: the exchange refused the call as too fast (429); wait {TOO_FAST_RETRY_S:g} s",
            retry_after_s=TOO_FAST_RETRY_S,
        )
    named = decode_error(body)
    # Only in a message of Upbit's: the first number of any other page may mean anything.
    numbers = [] if named is None else re.findall(r"\d+", named.message)
    seconds = next((float(number) for number in numbers if number != "418"), None)
    length = "a while" if seconds is None else f"{seconds:g} s"
    return RateLimitedError(
        f"{what}: the exchange has blocked this address for {length} (418);"
        " asking sooner lengthens the block",
        blocked=True,
        retry_after_s=seconds,
    )


def _refusal(
    response: ClientResponse, body: bytes, endpoint: Endpoint, what: str, symbol: str
) -> BackboneError:
    status = response.status
    if status in (418, 429):
        return rate_limited(status, body, what)
    named = decode_error(body)
    message = excerpt(body) if named is None else named.message
    if status == 404 and symbol and named is not None and named.name != "not_found":
        return UnknownSymbolError(symbol)
    if status == 400:
        return InvalidRequestError(f"{what}: the exchange refused a parameter: {message}")
    if status == 408:
        return TransportError(f"{what}: the exchange gave up waiting (408); try again")
    return ProtocolError(
        f"{what}: the exchange answered {status} to {endpoint.path}: {message}; check the"
        " address, asking again will not help"
    )
