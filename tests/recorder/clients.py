"""Clients that know nothing of this project: plain aiohttp and websockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from tests.recorder.samples import request
from upbit_backbone.recorder.replay import ReplayServer


class Got(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


async def get(server: ReplayServer, target: str) -> Got:
    """What a GET is answered with."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.rest_url}{target}") as response,
    ):
        return Got(response.status, await response.read(), dict(response.headers))


@asynccontextmanager
async def subscribed(
    server: ReplayServer,
    *types: Mapping[str, object],
    form: str = "DEFAULT",
    compression: str | None = "deflate",
) -> AsyncIterator[ClientConnection]:
    """A connection that has sent its request."""
    async with connect(
        server.ws_url, open_timeout=5, close_timeout=0.3, compression=compression
    ) as connection:
        await connection.send(request(*types, form=form))
        yield connection


async def frames(connection: ClientConnection, number: int) -> list[bytes]:
    """The next frames; each of them has to be binary."""
    found = []
    async with asyncio.timeout(10):
        for _ in range(number):
            frame = await connection.recv()
            assert isinstance(frame, bytes)
            found.append(frame)
    return found


async def silent(connection: ClientConnection) -> bool:
    """Whether nothing came by the time that the server answers a ping sent now."""
    async with asyncio.timeout(5):
        await (await connection.ping())
    try:
        async with asyncio.timeout(0.02):
            await connection.recv()
    except TimeoutError:
        return True
    return False
