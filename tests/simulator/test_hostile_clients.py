"""Clients that send anything but what they should: the server answers others as ever.

The guards of `tests/guards.py` fail each of these tests if the server logs a word.
"""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import aiohttp
import pytest

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.simulator.worlds import Caller
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.settings import SimulatorSettings

UPGRADE = (
    b"GET /websocket/v1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TICKER = b"GET /v1/ticker?markets=KRW-BTC HTTP/1.1\r\nHost: x\r\n\r\n"
NOWHERE = b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE_TOO_LARGE = struct.pack(">H", 1009)

pytestmark = pytest.mark.usefixtures("shared_tables")


@asynccontextmanager
async def wire(
    simulator: Simulator,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection without any manners."""
    host, _, port = simulator.rest_url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes."""
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            return await reader.read()
    return b""


@pytest.mark.parametrize(
    "sent",
    [
        Random(1).randbytes(4_096),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"HELLO\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/ticker HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET /v1/ticker HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET /v1/ticker HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET /v1/ticker?markets=%FF%FE%00 HTTP/1.1\r\nHost: \x00\r\n\r\n",
        b"GET /v1/ticker HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /v1/" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/ticker HTTP/1.1\r\n" + b"X: x\r\n" * 10_000 + b"\r\n",
    ],
    ids=[
        "noise",
        "tls",
        "no http",
        "version",
        "no header",
        "length",
        "chunks",
        "zero bytes",
        "giant header",
        "giant path",
        "many headers",
    ],
)
async def test_what_is_no_http_is_refused_and_closed(
    simulator: Simulator, caller: Caller, sent: bytes
) -> None:
    async with wire(simulator) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        answer = await everything(reader)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:80]
    assert await caller.rows("/ticker", markets="KRW-BTC")


@pytest.mark.parametrize("sent", [TICKER[:-2], TICKER[:9], b"\r\n", b""])
async def test_half_a_request_is_waited_for_and_delays_nobody(
    simulator: Simulator, caller: Caller, sent: bytes
) -> None:
    async with wire(simulator) as (reader, writer):
        writer.write(sent)
        await writer.drain()
        assert await caller.rows("/ticker", markets="KRW-BTC")
        writer.write(TICKER[len(sent) :] if sent != b"\r\n" else TICKER)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [TICKER[:-2], b"", TICKER])
async def test_half_a_request_is_not_kept_for_ever(clock: ManualClock, sent: bytes) -> None:
    """Nor a connection on which nothing more comes."""
    settings = SimulatorSettings(keep_alive_s=0.1)
    async with (
        Simulator(clock=clock, settings=settings) as simulator,
        wire(simulator) as (reader, writer),
    ):
        writer.write(sent)
        answer = await everything(reader)
    assert answer.startswith(b"HTTP/1.1 200") == (sent == TICKER)


def frame(opcode: int, payload: bytes, *, claimed: int | None = None) -> bytes:
    """A client's frame; it may claim to be longer than it is."""
    length = len(payload) if claimed is None else claimed
    head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack(">Q", length) + b"\0\0\0\0"
    return head + payload


async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(
    "sent",
    [
        frame(1, b"[", claimed=500),
        frame(1, b"x")[:5],
        b"\x81",
        Random(2).randbytes(512),
        b"\xff" * 64,
        frame(1, b"\xff\xfe"),
        frame(8, b"x"),
        frame(3, b"reserved"),
        frame(9, b"x" * 200),
    ],
    ids=["half", "head", "byte", "noise", "ones", "no utf-8", "bad close", "reserved", "ping"],
)
async def test_what_is_no_websocket_frame_ends_its_connection_alone(
    simulator: Simulator, caller: Caller, sent: bytes
) -> None:
    async with wire(simulator) as (reader, writer):
        await upgraded(reader, writer)
        writer.write(sent)
        await writer.drain()
        writer.write_eof()
        await everything(reader)
    await eventually(lambda: not simulator._sessions)
    assert await caller.rows("/ticker", markets="KRW-BTC")


async def test_a_message_that_is_too_large_closes_the_connection(clock: ManualClock) -> None:
    settings = SimulatorSettings(max_message_bytes=10_000)
    async with (
        Simulator(clock=clock, settings=settings) as simulator,
        wire(simulator) as (reader, writer),
    ):
        await upgraded(reader, writer)
        writer.write(frame(1, b"", claimed=1 << 40))
        assert CLOSE_TOO_LARGE in await everything(reader)


async def test_pipelined_requests_do_not_grow_the_server(
    simulator: Simulator, caller: Caller
) -> None:
    """A caller that asks and asks, and reads no answer."""
    burst = NOWHERE * 12_000
    async with wire(simulator) as (_, writer):
        tracemalloc.start()
        try:
            for _ in range(30):
                writer.write(burst)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await writer.drain()
            await asyncio.sleep(0.1)
            # What the client itself could not get rid of is not the server's.
            waiting = writer.transport.get_write_buffer_size()
            grown = tracemalloc.get_traced_memory()[0] - waiting
        finally:
            tracemalloc.stop()
        assert waiting > 100_000, "the server stopped reading"
        assert grown < 8_000_000
        assert await caller.rows("/ticker", markets="KRW-BTC")
        writer.transport.abort()


async def test_many_requests_leave_nothing_behind(simulator: Simulator) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{simulator.rest_url}/nowhere"

        async def ask(times: int) -> int:
            for _ in range(times):
                async with session.get(url) as response:
                    await response.read()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            await ask(100)
            before = await ask(100)
            after = await ask(600)
        finally:
            tracemalloc.stop()
    assert after - before < 200_000


async def test_connections_that_come_and_go_leave_nothing_behind(
    clock: ManualClock, caller: Caller
) -> None:
    simulator = caller.simulator
    for _ in range(30):
        clock.advance(1)
        async with wire(simulator) as (reader, writer):
            await upgraded(reader, writer)
            writer.transport.abort()
    await eventually(lambda: not simulator._sessions)
    assert not simulator._stream_faults._sockets
