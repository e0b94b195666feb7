"""Clients of the simulator's WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import websockets

from tests.manual_clock import ManualClock
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.settings import SimulatorSettings


class Stream:
    """A client of the WebSocket."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self.connection = connection

    async def ask(self, *parts: Mapping[str, Any], form: str | None = None) -> None:
        request: list[Mapping[str, Any]] = [{"ticket": "test"}, *parts]
        if form is not None:
            request.append({"format": form})
        await self.connection.send(json.dumps(request))

    async def raw(self) -> bytes:
        async with asyncio.timeout(5):
            frame = await self.connection.recv()
        assert isinstance(frame, bytes), "the exchange sends binary frames"
        return frame

    async def frame(self) -> Any:
        return json.loads(await self.raw())

    async def frames(self, count: int) -> list[Any]:
        return [await self.frame() for _ in range(count)]

    async def is_cut(self) -> bool:
        """The connection ends soon, without a close frame."""
        async with asyncio.timeout(5):
            await self.connection.wait_closed()
        return self.connection.close_code == 1006

    async def nothing_comes(self) -> bool:
        """A request that is answered at once shows that nothing came before its answer.

        It replaces the subscription.
        """
        await self.ask({"type": "ticker", "codes": ["KRW-BTC"], "is_only_snapshot": True})
        frame = await self.frame()
        return bool(frame["type"] == "ticker" and frame["stream_type"] == "SNAPSHOT")

    async def until_listed(self) -> list[Any]:
        """What came before the answer to a question that is answered at once."""
        await self.connection.send('[{"ticket":"until"},{"method":"LIST_SUBSCRIPTIONS"}]')
        found: list[Any] = []
        while True:
            frame = await self.frame()
            if isinstance(frame, dict) and (frame.get("ticket") or frame.get("tckt")) == "until":
                return found
            found.append(frame)


@asynccontextmanager
async def stream(simulator: Simulator) -> AsyncIterator[Stream]:
    # With the default queue a client that leaves frames unread does not see the answer to
    # its close, and waits for it for ten seconds.
    connecting = websockets.connect(simulator.ws_url, compression=None, max_queue=None)
    async with connecting as connection:
        yield Stream(connection)


@asynccontextmanager
async def streaming(clock: ManualClock, **settings: Any) -> AsyncIterator[tuple[Simulator, Stream]]:
    """A simulator with settings of its own, and a client of it."""
    async with (
        Simulator(clock=clock, settings=SimulatorSettings(**settings)) as simulator,
        stream(simulator) as client,
    ):
        yield simulator, client


def of_type(frames: Iterable[Any], kind: str) -> list[Any]:
    return [frame for frame in frames if frame["type"] == kind]
