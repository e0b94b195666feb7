"""A relay before the exchange's WebSocket, that cuts and blocks at moments a test names.

It knows frames (RFC 6455, section 5.2), so a test sees what was asked, and may put frames of
its own among those of the exchange.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from itertools import cycle
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from upbit_backbone.simulator.call_faults import reset

Moment = Literal["connect", "upgrade", "request", "answer"]
"""A connection was accepted; its upgrade was asked for; a subscription was sent; the first frame
came. What the moment is named by has arrived here, and is not passed on."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

_HEAD_ENDS = b"\r\n\r\n"
_LOOK_EVERY_S = 0.005


class Frame(NamedTuple):
    """A frame as it came, and what it says."""

    raw: bytes
    opcode: int
    payload: bytes


class Wire:
    """Relays the connections of a WebSocket.

    Attributes:
        accepted_at_s: When connections were opened, by the loop's time.
        met: The moments at which connections were struck, in order.
        requests: All subscriptions that clients sent, as the exchange reads them.
        sent: How many frames clients sent, by opcode.
    """

    def __init__(self, ws_url: str) -> None:
        parts = urlsplit(ws_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = parts.hostname, parts.port
        self._path = parts.path
        self._cut_next: deque[Moment] = deque()
        self._hold_next: deque[Moment] = deque()
        self._holds_all = False
        self._held: set[_Relay] = set()
        self._relays: dict[asyncio.Task[None], _Relay] = {}
        self._server: asyncio.Server | None = None
        self.accepted_at_s: list[float] = []
        self.met: list[Moment] = []
        self.requests: list[list[dict[str, Any]]] = []
        self.sent: Counter[int] = Counter()

    @property
    def ws_url(self) -> str:
        """Where to connect instead."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}{self._path}"

    @property
    def accepted(self) -> int:
        """How many connections were opened."""
        return len(self.accepted_at_s)

    @property
    def open(self) -> int:
        """How many are open now."""
        return len(self._relays)

    def cut(self) -> None:
        """Reset every connection."""
        for relay in self._relays.values():
            relay.cut()

    def cut_next(self, *moments: Moment) -> None:
        """Reset the connections to come, each at its moment."""
        self._cut_next.extend(moments)

    def hold_next(self, *moments: Moment) -> None:
        """From its moment on nothing passes on a connection to come, until `release`."""
        self._hold_next.extend(moments)

    def hold(self) -> None:
        """Nothing passes any more, in either direction, on any connection: a partition."""
        self._holds_all = True

    def release(self) -> None:
        """Everything passes again; what was held comes now."""
        self._holds_all = False
        self._held.clear()

    def put(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send a frame to every client, as if it came from the exchange."""
        for relay in self._relays.values():
            relay.put(_framed(payload, opcode))

    def codes(self, kind: str) -> list[str]:
        """The codes of a type in the last subscription."""
        parts = self.requests[-1] if self.requests else []
        return [code for part in parts if part.get("type") == kind for code in part["codes"]]

    def holds(self, relay: _Relay) -> bool:
        return self._holds_all or relay in self._held

    def meet(self, relay: _Relay, moment: Moment) -> None:
        """Let what is planned for this moment happen.

        Raises:
            ConnectionError: the connection was cut.
        """
        if self._hold_next and self._hold_next[0] == moment:
            self._hold_next.popleft()
            self._held.add(relay)
            self.met.append(moment)
        if self._cut_next and self._cut_next[0] == moment:
            self._cut_next.popleft()
            self.met.append(moment)
            relay.cut()
            raise ConnectionResetError

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = tuple(self._relays)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_at_s.append(asyncio.get_running_loop().time())
        task = asyncio.current_task()
        assert task is not None
        relay = _Relay(self, reader, writer)
        self._relays[task] = relay
        try:
            # The stream server would print a cancellation as an error.
            with suppress(asyncio.CancelledError):
                await relay.run(*self._target)
        finally:
            del self._relays[task]
            self._held.discard(relay)


class _Relay:
    """One connection of a client, and the one behind it."""

    def __init__(
        self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._wire = wire
        self._reader = reader
        self._client = writer
        self._behind: asyncio.StreamWriter | None = None
        self._is_upgraded = False

    def cut(self) -> None:
        reset(self._client.transport)
        if self._behind is not None:
            reset(self._behind.transport)

    def put(self, frame: bytes) -> None:
        if self._is_upgraded and not self._client.is_closing():
            self._client.write(frame)

    async def run(self, host: str, port: int) -> None:
        try:
            self._wire.meet(self, "connect")
            answers, self._behind = await asyncio.open_connection(host, port)
            both = (
                asyncio.create_task(self._ask(self._behind), name="wire, to the exchange"),
                asyncio.create_task(self._answer(answers), name="wire, to the client"),
            )
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except ConnectionError:
            pass
        finally:
            self._client.close()
            if self._behind is not None:
                self._behind.close()

    async def _ask(self, behind: asyncio.StreamWriter) -> None:
        head = await self._reader.readuntil(_HEAD_ENDS)
        self._wire.meet(self, "upgrade")
        await self._pass(behind, head)
        is_first = True
        while True:
            frame = await _read_frame(self._reader)
            self._wire.sent[frame.opcode] += 1
            if frame.opcode == TEXT:
                self._wire.requests.append(msgspec.json.decode(frame.payload))
                if is_first:
                    self._wire.meet(self, "request")
                    is_first = False
            await self._pass(behind, frame.raw)

    async def _answer(self, answers: asyncio.StreamReader) -> None:
        head = await answers.readuntil(_HEAD_ENDS)
        await self._pass(self._client, head)
        if not head.startswith(b"HTTP/1.1 101"):
            while body := await answers.read(1 << 16):
                await self._pass(self._client, body)
            return
        self._is_upgraded = True
        is_first = True
        while True:
            frame = await _read_frame(answers)
            if is_first and frame.opcode == BINARY:
                self._wire.meet(self, "answer")
                is_first = False
            await self._pass(self._client, frame.raw)

    async def _pass(self, writer: asyncio.StreamWriter, raw: bytes) -> None:
        while self._wire.holds(self):
            await asyncio.sleep(_LOOK_EVERY_S)
        writer.write(raw)
        await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> Frame:
    raw = await reader.readexactly(2)
    size = raw[1] & 0x7F
    if size >= 126:
        length = await reader.readexactly(2 if size == 126 else 8)
        size, raw = int.from_bytes(length, "big"), raw + length
    mask = await reader.readexactly(4) if raw[1] & 0x80 else b""
    masked = await reader.readexactly(size)
    payload = bytes(a ^ b for a, b in zip(masked, cycle(mask))) if mask else masked
    return Frame(raw + mask + masked, raw[0] & 0x0F, payload)


def _framed(payload: bytes, opcode: int) -> bytes:
    """An unmasked frame, as servers send them."""
    size = len(payload)
    if size < 126:
        length = bytes((size,))
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + length + payload
