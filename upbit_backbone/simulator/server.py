"""The simulated exchange as a server in this process' loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any, Self

from aiohttp import web

from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.errors import TransportError
from upbit_backbone.simulator.control import ControlApi
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.limits import CallCounter
from upbit_backbone.simulator.live import LiveStream
from upbit_backbone.simulator.rest import RestApi, admit, no_route, stamp
from upbit_backbone.simulator.websocket import StreamSession


class Simulator:
    """An Upbit exchange in this process' loop.

    Its market is a function of the seed and the time alone: two simulators with one seed
    agree about every instant, whenever they were started.

    Args:
        seed: Which of all simulated markets.
        clock: The exchange's time; a frozen one streams snapshots only.
        as_recorded: Serve the three recordings whole and nothing else. Give a clock that
            starts within them (2025-09-01 to 2025-10-04).
        host: Address to listen on.
        port: 0 for any free one.
        first_symbol: The market to have ready first.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        clock: Clock | None = None,
        as_recorded: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        first_symbol: str | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._host = host
        self._port = port
        self._exchange = Exchange(
            seed=seed, clock=self._clock, as_recorded=as_recorded, first_symbol=first_symbol
        )
        self._calls = CallCounter()
        self._live = LiveStream(self._clock)
        self._sessions: set[StreamSession] = set()
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """The value of `X-Simulated-Exchange`: names everything its trades follow from."""
        return self._exchange.name

    @property
    def rest_url(self) -> str:
        """Base of the REST paths, ends in ``/v1``."""
        return f"http://{self._address}/v1"

    @property
    def ws_url(self) -> str:
        """Address of the WebSocket."""
        return f"ws://{self._address}/websocket/v1"

    @property
    def control_url(self) -> str:
        """What the simulator says about itself."""
        return f"http://{self._address}/control"

    async def start(self) -> None:
        """Listen; returns when the port is bound, the tables follow.

        Raises:
            TransportError: the address cannot be listened on.
        """
        runner = web.AppRunner(
            self._application(), access_log=None, handle_signals=False, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise TransportError(
                f"simulator cannot listen on {self._host}:{self._port}:"
                f" {'the port is taken' if taken else error};"
                " expected a free port of this machine: give another one, or 0 for any"
            ) from error
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._spawn(self._exchange.warm_up(), "simulator warm-up")
        self._spawn(self._live.run(), "simulator streams")

    async def close(self) -> None:
        """Close connections, port, tasks and thread; may be called twice."""
        runner, self._runner = self._runner, None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        self._exchange.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        if runner is not None:
            await runner.cleanup()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _address(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/websocket/v1", self._stream),
                *ControlApi(self._exchange, self._calls, lambda: len(self._sessions)).routes(),
                *RestApi(self._exchange, self._calls).routes(),
            ]
        )
        application.on_response_prepare.append(self._stamp)
        application.on_shutdown.append(self._close_sessions)
        return application

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return await no_route(request)
        refusal, headers = admit(self._calls, "websocket", request, self._clock.monotonic())
        if refusal is not None:
            return refusal
        session = StreamSession(self._exchange, self._live)
        self._sessions.add(session)
        try:
            return await session.serve(request, headers)
        finally:
            self._sessions.discard(session)

    async def _stamp(self, _: web.Request, response: web.StreamResponse) -> None:
        stamp(response, self._exchange)

    async def _close_sessions(self, _: web.Application) -> None:
        await asyncio.gather(*(session.close() for session in self._sessions))
