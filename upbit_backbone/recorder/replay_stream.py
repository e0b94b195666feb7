"""The WebSocket side of a replay: one session per connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiohttp import WSMsgType, web

from upbit_backbone.recorder.frames import Frame, Look, written
from upbit_backbone.recorder.records import StreamForm
from upbit_backbone.recorder.subscriptions import (
    ListSubscriptions,
    StreamError,
    Subscription,
    Wish,
    listing,
    read_request,
    split_depth,
)

Key = tuple[str, str]
"""Type and market of a frame."""

FULL_QUEUE = 1_000
FULL_QUEUE_BYTES = 8 << 20
"""From so many frames or bytes on a session is behind, and the replay waits for it."""
MOST_FRAMES_WAITING = 20_000
MOST_BYTES_WAITING = 64 << 20
"""A client that asks for more than it reads is cut off."""

_ERROR_TO_CLOSE_S = 0.16  # 150 to 180 ms were measured (upbit-api, section 5.1)
_STATUS_EVERY_S = 10.0
_CLOSE_TIMEOUT_S = 0.2
_MOST_REQUEST_BYTES = 1 << 20


class _Wanted:
    """What a subscription wants of one market."""

    def __init__(self) -> None:
        self.depths: dict[int | None, tuple[bool, bool]] = {}
        """By depth of the book: whether frames go on after the snapshot, and whether
        snapshots are wanted."""


class ReplaySession:
    """A connection, from the upgrade to its end."""

    def __init__(
        self,
        latest: Mapping[Key, Frame],
        form: StreamForm,
        on_subscribed: Callable[[], None],
    ) -> None:
        """Store what is given.

        Args:
            latest: The last frame of each type and market before the present.
            form: The format of the recording.
            on_subscribed: Called when a subscription is in force, before its snapshots.
        """
        self._latest = latest
        self._form = form
        self._on_subscribed = on_subscribed
        self._socket = web.WebSocketResponse(
            timeout=_CLOSE_TIMEOUT_S, max_msg_size=_MOST_REQUEST_BYTES
        )
        self._transport: asyncio.Transport | None = None
        self._outbox: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._wishes: tuple[Wish, ...] = ()
        self._short = self._as_list = False
        self._wanted: dict[Key, _Wanted] = {}
        self._status: asyncio.Task[None] | None = None

    @property
    def behind(self) -> bool:
        return len(self._outbox) >= FULL_QUEUE or self._waiting_bytes >= FULL_QUEUE_BYTES

    async def serve(self, request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
        """Upgrade the request and serve it until either side closes."""
        self._socket.headers.update(headers)
        await self._socket.prepare(request)
        self._transport = request.transport
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(), name="replay stream writer")
                try:
                    await self._read(tasks)
                finally:
                    self._wanted.clear()
                    writer.cancel()
                    if self._status is not None:
                        self._status.cancel()
        finally:
            self._outbox.clear()
            self._drained.set()
            await self._socket.close()
        return self._socket

    def feed(self, frame: Frame) -> None:
        """Send a frame if it is wanted."""
        wanted = self._wanted.get((frame.kind, frame.code))
        if wanted is None:
            return
        for depth, (realtime, snapshot) in list(wanted.depths.items()):
            if not realtime:
                # Nothing was known yet when it was asked for: this is its snapshot.
                del wanted.depths[depth]
                self._send_frame(frame, depth, as_snapshot=True)
            elif snapshot or not frame.snapshot:
                self._send_frame(frame, depth)

    async def drained(self, within_s: float) -> None:
        """Wait until the client has caught up; cut it off when it does not read at all."""
        while self.behind:
            waiting = len(self._outbox)
            self._drained.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._drained.wait()
            if len(self._outbox) >= waiting:
                self.cut()
                return

    def cut(self) -> None:
        """Drop the connection without a word, as the exchange was seen to do."""
        self._outbox.clear()
        self._waiting_bytes = 0
        self._wanted.clear()
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End the connection; `serve` returns soon after."""
        await self._socket.close()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            text = message.data
            if isinstance(text, bytes):
                text = text.decode(errors="replace")  # what is no text is no request either
            if text == "PING":
                if self._status is None:
                    self._status = tasks.create_task(
                        self._send_status(), name="replay stream status"
                    )
                continue
            try:
                request = read_request(text)
            except StreamError as error:
                self._wanted.clear()
                self._queue(error.body)
                await asyncio.sleep(_ERROR_TO_CLOSE_S)
                return
            self._short, self._as_list = request.short, request.as_list
            if isinstance(request, ListSubscriptions):
                self._queue(listing(request, self._wishes))
            else:
                self._replace(request)

    def _replace(self, subscription: Subscription) -> None:
        """Start a subscription in place of the one before: snapshots first, then live."""
        self._wishes = subscription.wishes
        self._wanted = {}
        self._on_subscribed()
        snapshots: dict[tuple[str, str, int | None], None] = {}
        for wish in subscription.wishes:
            if wish.level:
                continue  # no grouped book was recorded
            for code in wish.codes:
                symbol, depth = split_depth(code) if wish.kind == "orderbook" else (code, None)
                known = (wish.kind, symbol) in self._latest
                if wish.snapshot and known:
                    snapshots[wish.kind, symbol, depth] = None
                if wish.realtime or not known:
                    wanted = self._wanted.setdefault((wish.kind, symbol), _Wanted())
                    before = wanted.depths.get(depth, (False, False))
                    wanted.depths[depth] = (
                        before[0] or wish.realtime,
                        before[1] or wish.snapshot,
                    )
        for kind, symbol, depth in snapshots:
            self._send_frame(self._latest[kind, symbol], depth, as_snapshot=True)

    def _send_frame(self, frame: Frame, depth: int | None, *, as_snapshot: bool = False) -> None:
        look = Look(self._short, self._as_list, depth, as_snapshot)
        self._queue(written(frame, self._form, look))

    def _queue(self, data: bytes) -> None:
        self._outbox.append(data)
        self._waiting_bytes += len(data)
        self._filled.set()
        if len(self._outbox) > MOST_FRAMES_WAITING or self._waiting_bytes > MOST_BYTES_WAITING:
            self.cut()

    async def _write(self) -> None:
        # A lost connection ends the reading side, and with it the session.
        with suppress(ConnectionError):
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._outbox:
                    data = self._outbox.popleft()
                    self._waiting_bytes -= len(data)
                    await self._socket.send_bytes(data)
                    half_full = len(self._outbox) > FULL_QUEUE // 2
                    if not half_full and self._waiting_bytes <= FULL_QUEUE_BYTES // 2:
                        self._drained.set()

    async def _send_status(self) -> None:
        while True:
            self._queue(b'{"status":"UP"}')
            await asyncio.sleep(_STATUS_EVERY_S)
