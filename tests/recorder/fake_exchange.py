"""An exchange of a few lines for a recorder: real sockets, and faults on demand."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Self

from aiohttp import WSMsgType, web

from tests.recorder.samples import book, candle, page, trade
from upbit_backbone.origin import MARK_HEADER

SYMBOLS = ("KRW-BTC", "KRW-XRP")
EVERY_S = 0.005


class FakeExchange:
    """Serves two markets; streams a trade and a book in turn to each connection.

    Attributes:
        asked: Each path with its query, in the order asked.
        bodies: The last body that went out for each of them.
        sent: Each frame that went out, in order.
        requests: What was subscribed.
    """

    def __init__(self, mark: str | None = "simulator-7", every_s: float = EVERY_S) -> None:
        self.mark = mark
        self._every_s = every_s
        self.asked: list[str] = []
        self.bodies: dict[str, bytes] = {}
        self.sent: list[bytes] = []
        self.requests: list[str] = []
        self._refusals: list[tuple[int, str]] = []
        self._refused_upgrades: list[int] = []
        self._sockets: list[web.Request] = []
        self._runner: web.AppRunner | None = None
        self._number = 0
        self._port = 0
        self.answering = asyncio.Event()
        """Cleared, every question waits."""
        self.answering.set()

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/websocket/v1"

    def refuse_next(self, status: int, message: str = "") -> None:
        """Answer the next question with an error."""
        self._refusals.append((status, message))

    def refuse_upgrade(self, status: int) -> None:
        self._refused_upgrades.append(status)

    def cut(self) -> None:
        """Drop all connections of the stream without a word."""
        for request in self._sockets:
            if request.transport is not None:
                request.transport.abort()
        self._sockets.clear()

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/websocket/v1", self._stream)
        application.router.add_get("/v1/{path:.*}", self._answer)
        application.on_response_prepare.append(self._stamp)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.cut()
        await self._runner.cleanup()

    async def _stamp(self, _: web.Request, response: web.StreamResponse) -> None:
        if self.mark is not None:
            response.headers[MARK_HEADER] = self.mark

    async def _answer(self, request: web.Request) -> web.Response:
        target = request.rel_url.raw_path_qs.removeprefix("/v1")
        self.asked.append(target)
        await self.answering.wait()
        if self._refusals:
            status, message = self._refusals.pop(0)
            return web.json_response({"error": {"name": status, "message": message}}, status=status)
        body = self._body(request).encode()
        self.bodies[target] = body
        return web.Response(
            body=body,
            content_type="application/json",
            headers={"Remaining-Req": "group=candles; min=600; sec=4"},
        )

    def _body(self, request: web.Request) -> str:
        path, number = request.path.removeprefix("/v1"), len(self.asked)
        if path == "/market/all":
            return json.dumps([{"market": symbol, "asked": number} for symbol in SYMBOLS])
        if path.startswith("/candles/"):
            market = request.query["market"]
            return page([candle("2025-09-15T00:00:00", f"{number}.50", market)])
        if path == "/trades/ticks":
            row = {"market": request.query["market"], "timestamp": number, "sequential_id": number}
            return json.dumps([row])
        return json.dumps([{"market": symbol, "asked": number} for symbol in SYMBOLS])

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._refused_upgrades:
            return web.Response(status=self._refused_upgrades.pop(0))
        socket = web.WebSocketResponse(timeout=0.1)
        await socket.prepare(request)
        self._sockets.append(request)
        message = await socket.receive()
        if message.type is WSMsgType.TEXT:
            self.requests.append(message.data)
            with suppress(ConnectionError):
                while not socket.closed:
                    await self._send(socket)
                    await asyncio.sleep(self._every_s)
        return socket

    async def _send(self, socket: web.WebSocketResponse) -> None:
        self._number += 1
        text = trade(self._number) if self._number % 2 else book(self._number, "KRW-XRP")
        await socket.send_bytes(text.encode())
        self.sent.append(text.encode())
