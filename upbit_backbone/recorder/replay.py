"""A recording as a server: the recorded bytes again, to any client, at their times."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from email.utils import formatdate
from typing import Self

from aiohttp import hdrs, web

from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.errors import BackboneError, InvalidRequestError, TransportError
from upbit_backbone.origin import MARK_HEADER
from upbit_backbone.recorder.frames import Frame, read_frame
from upbit_backbone.recorder.known_answers import KnownAnswers
from upbit_backbone.recorder.records import (
    AnyRecord,
    Recording,
    RestAnswer,
    StreamBreak,
    StreamFrame,
)
from upbit_backbone.recorder.replay_clock import ReplayClock
from upbit_backbone.recorder.replay_rest import NO_ROUTE, Answer, ReplayRest
from upbit_backbone.recorder.replay_stream import Key, ReplaySession

SLOWEST, FASTEST = 1.0, 1_000.0
_EARLIEST_S = 0.0005
"""A record this near is sent at once: timers are not finer."""
_LOOK_AGAIN_S = 0.05
"""Longest wait for a record: under qasync timers come early and late."""
_MOST_LATE_S = 0.25
"""Whoever has not caught up within this never will: the replay's clock is set back, so that
it does not run away from what clients were sent."""
_RECORDS_AT_A_TIME = 32
READS_WITHIN_S = 5.0
_REST = "/v1"


def check_speed(speed: float) -> None:
    """Refuse a speed that no replay has.

    Raises:
        InvalidRequestError: it is not 1 to 1,000.
    """
    if not SLOWEST <= speed <= FASTEST:
        raise InvalidRequestError(
            f"speed must be {SLOWEST:g}..{FASTEST:g} (recorded seconds a second), was {speed:g}"
        )


class ReplayServer:
    """Serves a recording in this process' loop.

    The recording's time starts with the first question or subscription that arrives, runs
    at `speed` (slower where the machine or a client is), and stands still at its end, where
    sockets stay open and nothing more comes. Where the recorder lost its stream, clients
    lose theirs. One chunk of the file is held at a time, the last frame of each type and
    market, and the rows of the answers so far (`KnownAnswers`).

    Args:
        recording: From `open_recording`.
        speed: Recorded seconds a real second, 1 to 1,000.
        clock: Real time.
        host: Address to listen on.
        port: 0 for any free one.
        on_end: Called once when the last record was sent.
        reads_within_s: A client that is behind and takes nothing for so long is cut off; it
            holds the others up no longer.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        speed: float = 1.0,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        on_end: Callable[[], None] | None = None,
        reads_within_s: float = READS_WITHIN_S,
    ) -> None:
        check_speed(speed)
        self._recording = recording
        self._host = host
        self._port = port
        self._on_end = on_end
        self._reads_within_s = reads_within_s
        self._clock = ReplayClock(recording, speed, clock or SystemClock())
        self._known = KnownAnswers()
        self._rest = ReplayRest(self._known)
        self._latest: dict[Key, Frame] = {}
        self._sessions: set[ReplaySession] = set()
        self._begun = asyncio.Event()
        self._records = recording.records()
        self._next: AnyRecord | None = None
        self._late_since: float | None = None
        self._runner: web.AppRunner | None = None
        self._pump: asyncio.Task[None] | None = None
        self.failure: BackboneError | None = None
        """Why the replay broke off, if it did: the file was changed, say."""

    @property
    def name(self) -> str:
        """The value of `X-Simulated-Exchange`: ``replay-`` and a hash of the file's content."""
        return self._recording.name

    @property
    def clock(self) -> ReplayClock:
        """The exchange's time as clients are told it."""
        return self._clock

    @property
    def rest_url(self) -> str:
        """Base of the REST paths, ends in ``/v1``."""
        return f"http://{self._address}{_REST}"

    @property
    def ws_url(self) -> str:
        """Address of the WebSocket."""
        return f"ws://{self._address}/websocket/v1"

    async def start(self) -> None:
        """Listen; what was recorded before the stream is known when this returns.

        Raises:
            TransportError: the address cannot be listened on.
            StorageCorruptError: the file was changed since it was opened.
        """
        await self._learn_opening()
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
                f"replay cannot listen on {self._host}:{self._port}:"
                f" {'the port is taken' if taken else error};"
                " expected a free port of this machine: give another one, or 0 for any"
            ) from error
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._pump = asyncio.create_task(self._run(), name="replay")

    async def close(self) -> None:
        """Close connections, port, task and file; may be called twice."""
        runner, self._runner = self._runner, None
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait([pump])
        self._records.close()
        if runner is not None:
            await runner.cleanup()
        if pump is not None and not pump.cancelled() and (error := pump.exception()) is not None:
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

    def _application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/websocket/v1", self._stream),
                web.get(_REST + "{path:/.*}", self._question),
                web.route("*", "/{path:.*}", self._no_route),
            ]
        )
        application.on_response_prepare.append(self._stamp)
        application.on_shutdown.append(self._close_sessions)
        return application

    async def _question(self, request: web.Request) -> web.Response:
        self._begin()
        path = request.match_info["path"]
        return _response(self._rest.answer(path, request.query.items(), self._clock.now_ms()))

    async def _no_route(self, _: web.Request) -> web.Response:
        return _response(NO_ROUTE)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return _response(NO_ROUTE)
        session = ReplaySession(self._latest, self._recording.header.form, self._begin)
        self._sessions.add(session)
        try:
            headers = {"remaining-req": "group=websocket; min=300; sec=4", "limit-by-ip": "Yes"}
            return await session.serve(request, headers)
        finally:
            self._sessions.discard(session)

    async def _stamp(self, _: web.Request, response: web.StreamResponse) -> None:
        """Mark a response, and date it by the recording's clock: clients learn the time of it."""
        response.headers[MARK_HEADER] = self.name
        response.headers[hdrs.DATE] = formatdate(self._clock.now_ms() // 1_000, usegmt=True)

    async def _close_sessions(self, _: web.Application) -> None:
        await asyncio.gather(*(session.close() for session in self._sessions))

    def _begin(self) -> None:
        self._clock.start()
        self._begun.set()

    async def _learn_opening(self) -> None:
        """Take what was recorded before the first subscription."""
        begins_us = self._recording.begins_us
        for record in self._records:
            if record.at_us > begins_us:
                self._next = record
                return
            self._take(record)
            await asyncio.sleep(0)

    async def _run(self) -> None:
        await self._begun.wait()
        try:
            if self._next is not None:
                await self._play(self._next)
                for number, record in enumerate(self._records, 1):
                    await self._play(record)
                    if number % _RECORDS_AT_A_TIME == 0:
                        await asyncio.sleep(0)
        except BackboneError as error:
            self.failure = error
        if self._on_end is not None:
            self._on_end()

    async def _play(self, record: AnyRecord) -> None:
        self._clock.stop_at(record.at_us)
        while (wait_s := self._clock.wait_s(record.at_us)) > _EARLIEST_S:
            self._late_since = None
            await asyncio.sleep(min(wait_s, _LOOK_AGAIN_S))
        now = self._clock.monotonic()
        if self._late_since is None or wait_s > 0:
            self._late_since = now
        elif now - self._late_since > _MOST_LATE_S:
            self._clock.set_back(-wait_s)
            self._late_since = None
        self._take(record)
        for session in [session for session in self._sessions if session.behind]:
            await session.drained(self._reads_within_s)

    def _take(self, record: AnyRecord) -> None:
        match record:
            case RestAnswer():
                self._known.learn(record)
            case StreamFrame():
                frame = read_frame(record.data)
                if frame is not None:
                    self._latest[frame.kind, frame.code] = frame
                    for session in self._sessions:
                        session.feed(frame)
            case StreamBreak():
                for session in list(self._sessions):
                    session.cut()
            case _:
                pass


def _response(answer: Answer) -> web.Response:
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: "application/json;charset=UTF-8"}
    if answer.remaining is not None:
        headers[hdrs.CACHE_CONTROL] = "no-cache, no-store, max-age=0, must-revalidate"
        headers["remaining-req"] = answer.remaining
        headers["limit-by-ip"] = "Yes"
    return web.Response(status=answer.status, body=answer.body, headers=headers)
