"""The simulated exchange as a server in this process' loop."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.errors import TransportError
from upbit_backbone.simulator.control import ControlApi
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.faults import WEBSOCKET, Fault, Faults
from upbit_backbone.simulator.gateway import Gateway, no_route, stamp
from upbit_backbone.simulator.live import LiveStream
from upbit_backbone.simulator.rest import RestApi
from upbit_backbone.simulator.script import Script
from upbit_backbone.simulator.settings import SimulatorSettings
from upbit_backbone.simulator.stream_faults import StreamFaults
from upbit_backbone.simulator.websocket import StreamSession


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Whether a log line of the server is about more than a client's malformed HTTP."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_logger = logging.getLogger(__name__)
_logger.addFilter(_is_our_fault)


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
        settings: What is not known about the exchange, decided.
        faults: What goes wrong from the beginning; more by `faults.add`.
        script: What happens on its markets.
        rate: How many times as often somebody trades.

    Raises:
        InvalidRequestError: the rate is out of range.

    Attributes:
        faults: What goes wrong now, and how often it did.
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
        settings: SimulatorSettings | None = None,
        faults: Iterable[Fault] = (),
        script: Script | None = None,
        rate: float = 1.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self._host = host
        self._port = port
        self._exchange = Exchange(
            seed=seed,
            clock=self._clock,
            as_recorded=as_recorded,
            first_symbol=first_symbol,
            settings=settings,
            script=script,
            rate=rate,
        )
        self.faults = Faults(self._clock, faults)
        self._gateway = Gateway(self._exchange, self.faults)
        self._stream_faults = StreamFaults(self.faults, self._clock, self._listen)
        self._live = LiveStream(self._exchange)
        self._sessions: set[StreamSession] = set()
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """The value of `X-Simulated-Exchange`: names everything its trades follow from."""
        return self._exchange.name

    @property
    def now_ms(self) -> int:
        """The exchange's time."""
        return self._clock.now_ms()

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

        With a script, its markets are built first.

        Raises:
            InvalidRequestError: the script cannot happen; says which event, and why.
            TransportError: the address cannot be listened on.
        """
        try:
            await self._exchange.check_script()
        except BaseException:
            self._exchange.close()
            raise
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=0.1,
            # Who has gone is not waited for, however late or slow its answer is meant to be.
            handler_cancellation=True,
            keepalive_timeout=self._exchange.settings.keep_alive_s,
            logger=_logger,
        )
        await runner.setup()
        self._runner = runner
        try:
            await self._listen(True)
        except (OSError, OverflowError) as error:
            self._runner = None
            await runner.cleanup()
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise TransportError(
                f"simulator cannot listen on {self._host}:{self._port}:"
                f" {'the port is taken' if taken else error};"
                " expected a free port of this machine: give another one, or 0 for any"
            ) from error
        self._port = runner.addresses[0][1]
        self._spawn(self._exchange.warm_up(), "simulator warm-up")
        self._spawn(self._live.run(), "simulator streams")
        self._spawn(self._stream_faults.run(), "simulator faults")

    async def close(self) -> None:
        """Close connections, port, tasks and thread; may be called twice."""
        runner, self._runner = self._runner, None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        if runner is not None:
            await runner.cleanup()
        self._exchange.close()  # last: whoever still asks would be told of a fault of ours
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

    async def _listen(self, wanted: bool) -> None:
        """Open the port, or close it; connections there are stay."""
        if self._runner is None:
            return
        for site in tuple(self._runner.sites):
            await site.stop()
        if wanted:
            await web.TCPSite(self._runner, self._host, self._port).start()

    def _application(self) -> web.Application:
        application = web.Application()
        control = ControlApi(self._exchange, self._gateway, self.faults, self._sessions)
        application.add_routes(
            [
                web.get("/websocket/v1", self._stream),
                *control.routes(),
                *RestApi(self._exchange, self._gateway).routes(),
            ]
        )
        application.on_response_prepare.append(self._stamp)
        application.on_shutdown.append(self._close_sessions)
        return application

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return await no_route(request)
        entry = await self._gateway.enter(WEBSOCKET, request)
        if entry.refusal is not None:
            return entry.refusal
        most = self._exchange.settings.max_connections
        if most is not None and len(self._sessions) >= most:
            return self._gateway.refuse_connection(request, entry.headers)
        session = StreamSession(self._exchange, self._live, self._stream_faults)
        self._sessions.add(session)
        try:
            return await session.serve(request, entry.headers)
        finally:
            self._sessions.discard(session)

    async def _stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        stamp(request, response, self._exchange)

    async def _close_sessions(self, _: web.Application) -> None:
        await asyncio.gather(*(session.close() for session in self._sessions))
