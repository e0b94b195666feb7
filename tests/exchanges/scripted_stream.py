"""A real WebSocket server on this machine that does what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

Play = Callable[[ServerConnection], Awaitable[None]]


class ScriptedStream:
    """Accepts connections, keeps each request, and plays a script after the first one."""

    def __init__(self) -> None:
        self.handshakes: list[dict[str, str]] = []
        """Headers of each upgrade request, names in lower case."""
        self.requests: list[list[dict[str, Any]]] = []
        self.open = 0
        """Connections that are open now."""
        self.refusal: tuple[int, str] | None = None
        """Status and body for every upgrade, instead of opening."""
        self.headers: dict[str, str] = {}
        """Sent with the answer to an upgrade; without a `Date` among them there is none."""
        self.play: Play | None = None
        self._server = serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._greet,
            process_response=self._sign,
            close_timeout=0.1,
        )

    async def __aenter__(self) -> ScriptedStream:
        server = await self._server.__aenter__()
        port = next(iter(server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/websocket/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(None, None, None)

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append({name.lower(): text for name, text in request.headers.raw_items()})
        return None if self.refusal is None else connection.respond(*self.refusal)

    def _sign(self, connection: ServerConnection, request: Request, response: Response) -> None:
        del response.headers["Date"]
        response.headers.update(self.headers)

    async def _handle(self, connection: ServerConnection) -> None:
        self.open += 1
        try:
            async for message in connection:
                assert isinstance(message, str), "a request is a text frame"
                self.requests.append(json.loads(message))
                if self.play is not None and len(self.requests) == 1:
                    await self.play(connection)
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1


async def cut(connection: ServerConnection) -> None:
    """Drop the connection without a closing handshake."""
    connection.transport.abort()
    await asyncio.sleep(0)
