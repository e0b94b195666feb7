"""The stream: one connection, one subscription at a time, values as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from upbit_backbone.clock import Clock, ExchangeClock, utc_datetime
from upbit_backbone.errors import InvalidRequestError, ProtocolError, TransportError
from upbit_backbone.exchanges.upbit.decode import (
    Context,
    OnMicroseconds,
    StreamFormat,
    decode_message,
    garbled,
)
from upbit_backbone.exchanges.upbit.rest import (
    OnRemaining,
    observe_date,
    rate_limited,
    report_remaining,
)
from upbit_backbone.models import CLOSE_GRACE_MS
from upbit_backbone.origin import MARK_HEADER, Origin
from upbit_backbone.routing.exchange import Garbled, StreamEvent, StreamKind

FORMAT: StreamFormat = "SIMPLE"

PING_AFTER_S = 1.0
"""Of silence; a busy connection is never pinged. Upbit cuts a silent one after 60 s, and pings
were measured to keep it open."""
PONG_WITHIN_S = 3.0
# A peer that does not answer the closing handshake must not hold up the program's end.
CLOSE_TIMEOUT_S = 0.3
# A full book of 30 rows has 3 KB; the most a frame may hold is a guard for memory alone.
MAX_FRAME_BYTES = 4 << 20


class UpbitSocket:
    """An open connection; implements `ExchangeSocket`."""

    def __init__(
        self,
        connection: ClientConnection,
        *,
        origin: Origin,
        clock: ExchangeClock,
        local: Clock,
        on_microseconds: OnMicroseconds | None,
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._clock = clock
        self._local = local
        self._on_microseconds = on_microseconds
        self._heard_s = local.monotonic()

    async def subscribe(self, wanted: Mapping[StreamKind, Collection[str]]) -> None:
        """Replace the whole subscription by `wanted` (symbols by kind) in one message.

        Upbit does not acknowledge it: the snapshot of each symbol is the confirmation, and a
        symbol it does not list stays silent.

        Raises:
            InvalidRequestError: nothing is wanted; Upbit has no way to say so but closing.
            TransportError: the connection is gone.

        Source: https://docs.upbit.com/kr/reference/websocket-guide
        """
        types: list[dict[str, Any]] = [
            {"type": kind, "codes": sorted(symbols)}
            for kind, symbols in sorted(wanted.items())
            if symbols
        ]
        if not types:
            raise InvalidRequestError("a subscription must name a symbol: close the socket instead")
        request = [{"ticket": str(uuid4())}, *types, {"format": FORMAT}]
        try:
            await self._connection.send(msgspec.json.encode(request).decode())
        except ConnectionClosed as error:
            raise _lost(error) from error

    async def events(self) -> AsyncGenerator[StreamEvent | Garbled, None]:
        """Values as they arrive, until the connection ends, which is always an error here.

        Raises:
            TransportError: the connection was lost or the exchange refused the request.
            ProtocolError: the exchange did not understand the request.
        """
        receive, local = self._connection.recv, self._local
        received_ms = closed_before_ms = 0
        context = self._context(received_ms)
        while True:
            try:
                # Upbit sends binary frames, others text: both are wanted as bytes.
                frame = await receive(decode=False)
            except ConnectionClosed as error:
                raise _lost(error) from error
            now_ms, self._heard_s = local.now_ms(), local.monotonic()
            if now_ms != received_ms:
                # In a burst many frames have a millisecond in common.
                received_ms, context = now_ms, self._context(now_ms)
                closed_before_ms = now_ms + self._clock.offset_ms - CLOSE_GRACE_MS
            try:
                event = decode_message(frame, FORMAT, context, closed_before_ms=closed_before_ms)
            except ProtocolError as error:
                yield garbled(frame, error)
                continue
            if event is not None:
                if event.stamp_ms is not None:
                    self._clock.observe_stamp(event.stamp_ms)
                yield event

    def _context(self, received_ms: int) -> Context:
        received = utc_datetime(received_ms)
        return Context(received, "websocket", self._origin.simulated, self._on_microseconds)

    async def watch(self, on_life: Callable[[], None]) -> None:
        """Send a ping whenever nothing came for a second; its pong is due in three.

        So a connection that is open and dead is noticed within four seconds, and a quiet
        market on a living one is known to be quiet.

        Args:
            on_life: Called at each pong.

        Raises:
            TransportError: no pong in time, or the connection is gone.
        """
        while True:
            silent_s = self._local.monotonic() - self._heard_s
            if silent_s < PING_AFTER_S:
                # The clock is asked again then: Qt's timers fire early.
                await asyncio.sleep(PING_AFTER_S - silent_s)
                continue
            asked_s = self._local.monotonic()
            try:
                async with asyncio.timeout(PONG_WITHIN_S):
                    pong = asyncio.ensure_future(await self._connection.ping())
                # After a standstill of the loop the pong and its time may be due at once; what
                # `wait` finds done then counts.
                answered, _ = await asyncio.wait((pong,), timeout=PONG_WITHIN_S)
                for one in answered:
                    if not one.cancelled():
                        one.result()
            except ConnectionClosed as error:
                raise _lost(error) from error
            except TimeoutError:
                answered = set()  # nothing can be sent: nobody reads on the other side
            if not answered and self._heard_s <= asked_s:
                # Data that came meanwhile is as good: the pong stands behind it in a queue.
                raise TransportError(
                    f"stream: nothing came for {PING_AFTER_S:g} s and a ping was not answered"
                    f" within {PONG_WITHIN_S:g} s: the connection is dead"
                )
            self._heard_s = self._local.monotonic()
            on_life()


@asynccontextmanager
async def open_socket(
    url: str,
    *,
    origin: Origin,
    clock: ExchangeClock,
    local: Clock,
    on_remaining: OnRemaining | None,
    on_microseconds: OnMicroseconds | None,
    timeout_s: float,
) -> AsyncIterator[UpbitSocket]:
    """Connect once; leaving the context closes the connection, also when cancelled.

    Never sends `Origin`, which would count against one call in ten seconds, and offers no
    compression: it costs two to three times the CPU of the plain stream.

    Raises:
        RateLimitedError: too many connections (429), or this address is blocked (418).
        TransportError: not reached or refused.
        StorageOriginError: another exchange or simulator answered.

    Source: https://docs.upbit.com/kr/reference/websocket-guide
    """
    sent = clock.moment()
    connection = await _connect(url, timeout_s)
    received = clock.moment()
    try:
        response = connection.response
        assert response is not None
        report_remaining(response.headers.get("Remaining-Req"), on_remaining)
        origin.observe(response.headers.get(MARK_HEADER))
        observe_date(clock, response.headers.get("Date"), sent, received)
        yield UpbitSocket(
            connection, origin=origin, clock=clock, local=local, on_microseconds=on_microseconds
        )
    finally:
        try:
            await connection.close()
        finally:
            # Closing waits for the peer; where that was cancelled, the socket is dropped.
            connection.transport.abort()


async def _connect(url: str, timeout_s: float) -> ClientConnection:
    try:
        # Never `async for … in connect()`: it leaks the connection when it is left.
        return await connect(
            url,
            origin=None,
            compression=None,
            open_timeout=timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # `watch` asks, sooner and only when nothing comes
            max_size=MAX_FRAME_BYTES,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (418, 429):
            raise rate_limited(status, bytes(error.response.body or b""), "stream") from error
        raise TransportError(
            f"stream: {url} answered {status} instead of opening; try again later"
        ) from error
    except (WebSocketException, OSError) as error:
        raise TransportError(
            f"stream: {url} was not reached ({error!r:.120}); check the connection and try again"
        ) from error


def _lost(error: ConnectionClosed) -> TransportError:
    return TransportError(f"stream: the connection was lost ({error}); open another")
