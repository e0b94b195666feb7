"""``/metrics`` and ``/health`` for this machine: figures for Prometheus, and a yes or no."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from upbit_backbone.errors import BackboneError, InvalidRequestError, TransportError
from upbit_backbone.protocol import Health, PerformanceMetrics, SystemStatus
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.prometheus import CONTENT_TYPE, prometheus_text

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
TRY_AGAIN_S = 5.0
"""A port that was taken is tried so often."""
_OUR_NAMES = ("127.0.0.1", "localhost", "::1")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LayerAnswer(msgspec.Struct, frozen=True):
    """A layer in the body of ``/health``."""

    health: Health
    reason: str
    since: datetime


class HealthAnswer(msgspec.Struct, frozen=True):
    """The body of ``/health``."""

    health: Health
    identity: str
    simulated: bool
    connection: str
    reason: str
    load: float
    layers: dict[str, LayerAnswer]

    @classmethod
    def of(cls, status: SystemStatus) -> HealthAnswer:
        """What is told of a service's status."""
        return cls(
            health=status.health.health,
            identity=status.identity,
            simulated=status.simulated,
            connection=status.connection,
            reason=status.reason,
            load=status.load,
            layers={
                name: LayerAnswer(layer.health, layer.reason, layer.since)
                for name, layer in status.health.layers.items()
            },
        )


class MetricsServer:
    """Serves figures on the loopback address.

    A port that cannot be had never keeps the service from starting: it is logged, `failure` tells
    of it, and it is tried again until it can be had.
    """

    def __init__(
        self,
        port: int,
        *,
        metrics: Callable[[], PerformanceMetrics],
        status: Callable[[], SystemStatus],
        events: EventLog | None = None,
    ) -> None:
        """Take what to serve; nothing is opened before `start`.

        Args:
            port: 0 for any free one.
            metrics: Asked at each ``/metrics``.
            status: Asked at both.
            events: Where a port that cannot be had is told.

        Raises:
            InvalidRequestError: not a port.
        """
        if type(port) is not int or not 0 <= port <= 65_535:
            raise InvalidRequestError(
                f"metrics_port must be 1..65535, or 0 for any free port, was {port!r}"
            )
        self._port = port
        self._metrics = metrics
        self._status = status
        self._events = events
        self._runner: web.AppRunner | None = None
        self.failure: TransportError | None = None
        """Why nothing is served; None: it is, or was not started."""
        self._trying: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, the port as it was given out once started."""
        return f"http://{HOST}:{self._port}"

    async def start(self) -> None:
        """Listen, or put into `failure` why not, and go on trying; does not raise for it."""
        if not await self._listen() and self._trying is None:
            self._trying = asyncio.get_running_loop().create_task(
                self._try_again(), name="metrics port"
            )

    async def _try_again(self) -> None:
        while True:
            await asyncio.sleep(TRY_AGAIN_S)
            if self._runner is not None or await self._listen():
                return

    async def _listen(self) -> bool:
        application = web.Application(middlewares=[_refuse_other_names])
        application.add_routes(
            [web.get("/metrics", self._answer_metrics), web.get("/health", self._answer_health)]
        )
        runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._port).start()
        except OSError as error:
            await runner.cleanup()
            self._fail(error)
            return False
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        self.failure = None
        logger.info("figures are served at %s", self.url)
        if self._events is not None:
            self._events.add("layer_4", "info", "health", f"figures are served at {self.url}")
        return True

    async def stop(self) -> None:
        """Close the port and its connections; may be called twice."""
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.cancel()
            await asyncio.wait([trying])
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _fail(self, error: OSError) -> None:
        why = "the port is taken" if error.errno == errno.EADDRINUSE else str(error)
        told = self.failure
        self.failure = TransportError(
            f"metrics cannot be served on {HOST}:{self._port}: {why}; expected a free port of this"
            " machine: give another metrics_port, or 0 for any"
        )
        self.failure.__cause__ = error
        if told is not None:
            return
        logger.warning("%s", self.failure)
        if self._events is not None:
            self._events.add("layer_4", "warning", "health", str(self.failure))

    async def _answer_metrics(self, _: web.Request) -> web.Response:
        try:
            text = prometheus_text(self._metrics(), self._status())
        except BackboneError as error:
            return web.Response(status=503, text=f"{error}\n")
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _answer_health(self, _: web.Request) -> web.Response:
        """200 while every layer is healthy or degraded; 503 while one is starting or down."""
        try:
            status = self._status()
        except BackboneError as error:
            return _json(503, {"health": "down", "reason": str(error)})
        works = status.health.health in ("healthy", "degraded")
        return _json(200 if works else 503, HealthAnswer.of(status))


def _json(status: int, body: Any) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )


@web.middleware
async def _refuse_other_names(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """A page in a browser must not read us under a name of its own that points to this machine."""
    try:
        name = urlsplit(f"//{request.host}").hostname
    except ValueError:
        name = None
    if name not in _OUR_NAMES:
        return web.Response(status=403, text=f"served to {HOST} alone\n")
    return await handler(request)
