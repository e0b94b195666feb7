"""A real HTTP server on this machine that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs

from aiohttp import web
from aiohttp.test_utils import TestServer


class Seen(NamedTuple):
    """A request as it came over the wire."""

    raw_path: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.raw_path.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Each parameter once, decoded."""
        found = parse_qs(self.raw_path.partition("?")[2], strict_parsing=True)
        assert all(len(values) == 1 for values in found.values())
        return {name: values[0] for name, values in found.items()}


class Answer(NamedTuple):
    """What the next request gets."""

    body: bytes
    status: int
    headers: dict[str, str]
    cut_after: int | None
    """Send so many bytes of the body, then drop the connection."""
    meanwhile: Callable[[], None]
    """Happens between question and answer."""


class ScriptedRest:
    """Gives each request the next scripted answer; several calls may be under way."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.waiting = 0
        """Requests that wait for an answer nobody scripted."""
        self._answers: deque[Answer] = deque()
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        self._server = TestServer(app)

    async def __aenter__(self) -> ScriptedRest:
        await self._server.start_server()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("/v1"))

    def answer(
        self,
        body: object,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        cut_after: int | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Script one answer; anything but bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._answers.append(Answer(content, status, headers or {}, cut_after, meanwhile))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.raw_path, dict(request.headers)))
        if not self._answers:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        answer = self._answers.popleft()
        answer.meanwhile()
        if answer.cut_after is None:
            return web.Response(
                body=answer.body,
                status=answer.status,
                headers=answer.headers,
                content_type="application/json",
            )
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: answer.cut_after])
        assert request.transport is not None
        request.transport.abort()
        return response
