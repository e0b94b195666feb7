"""The WebSocket side: one session per connection (upbit-api, section 5)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from typing import NamedTuple

from aiohttp import WSMsgType, web

from upbit_backbone.clock import SECOND_MS
from upbit_backbone.simulator.delivery import Delivery
from upbit_backbone.simulator.exchange import Desk, Exchange
from upbit_backbone.simulator.gateway import error_body
from upbit_backbone.simulator.limits import MessageLimit
from upbit_backbone.simulator.live import LiveStream, Message, Topic, candle_at
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.stream_faults import StreamFaults
from upbit_backbone.simulator.stream_frames import (
    FORMATS,
    Listed,
    candle_frame,
    list_frame,
    orderbook_frame,
    ticker_frame,
    trade_frame,
)
from upbit_backbone.simulator.subscriptions import (
    ListRequest,
    StreamError,
    Subscription,
    Wish,
    read_request,
    split_depth,
)

MOST_BYTES_WAITING = 16 << 20
"""A reader that is further behind is cut off: nothing is held for it for ever. The snapshots
of all order books are 2.3 MB."""

_MOST_REQUESTS = 8
"""Requests that wait for an answer; with more, nothing is read until there is room."""
_MOST_BYTES_UNSENT = 256 << 10
_LOOK_FOR_ROOM_S = 0.01
_ERROR_TO_CLOSE_S = 0.16  # 150 to 180 ms were measured (upbit-api, section 5.1)
_STATUS = b'{"status":"UP"}'
_STATUS_EVERY_S = 10.0
_LOOK_EVERY_S = 0.25
_STANDSTILL_S = 10.0
"""A clock that went on so far between two looks says nothing of a client: the machine slept."""
_CLOSE_TIMEOUT_S = 0.2
_CODES_AT_A_TIME = 8
_NAMES_AT_A_TIME = 2_000
"""A megabyte of unknown codes is looked through in steps of a few milliseconds."""
_SNAPSHOT = "SNAPSHOT"
_MESSAGES = (WSMsgType.TEXT, WSMsgType.BINARY)


class _Wanted(NamedTuple):
    """One code of a type object, of a market that there is."""

    topic: Topic
    desk: Desk
    snapshot: bool
    realtime: bool


class StreamSession:
    """A connection, from the upgrade to its end.

    Frames wait in a queue of its own, so that a slow reader delays nobody; when too many
    bytes wait it is cut off.

    Attributes:
        subscription: What was asked for last; None before.
    """

    def __init__(self, exchange: Exchange, live: LiveStream, faults: StreamFaults) -> None:
        self._exchange = exchange
        self._settings = exchange.settings
        self._clock = exchange.clock
        self._live = live
        self._socket = faults.socket(
            timeout=_CLOSE_TIMEOUT_S,
            max_msg_size=self._settings.max_message_bytes,
            autoping=False,  # pings are a sign of life: they have to be seen here
        )
        self._limit = MessageLimit(self._settings.window)
        self._transport: asyncio.Transport | None = None
        self._outbox: deque[bytes] = deque()
        self._bytes_waiting = 0
        self._filled = asyncio.Event()
        self._requests: asyncio.Queue[str | None] = asyncio.Queue(_MOST_REQUESTS)
        self._held: list[bytes] | None = None
        self._form = FORMATS["DEFAULT"]
        self._alive_at_s = self._clock.monotonic()
        self._next_status_s: float | None = None
        self.subscription: Subscription | None = None

    async def serve(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        """Upgrade the request and serve it until either side closes."""
        self._socket.headers.update(headers)
        await self._socket.prepare(request)
        self._transport = request.transport
        self._alive_at_s = self._clock.monotonic()
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._answer(), name="simulator stream requests"),
                    tasks.create_task(self._write(), name="simulator stream writer"),
                    tasks.create_task(self._keep_time(), name="simulator stream timekeeper"),
                ]
                try:
                    await self._read()
                finally:
                    self._live.leave(self)
                    for helper in helpers:
                        helper.cancel()
        finally:
            await self._socket.close()
        return self._socket

    async def close(self) -> None:
        """End the connection; `serve` returns soon after."""
        await self._socket.close()

    def tell(self, message: Message) -> None:
        """Send what happened."""
        self._send(message.frame(self._form))

    async def _read(self) -> None:
        async for message in self._socket:
            self._alive_at_s = self._clock.monotonic()
            if message.type is WSMsgType.PING:
                with suppress(ConnectionError):
                    await self._socket.pong(message.data)
            elif message.type in _MESSAGES:
                data = message.data
                # What is no text is no request either.
                text = data.decode(errors="replace") if isinstance(data, bytes) else data
                is_over = not self._counts(text)
                if is_over and self._settings.over_message_limit == "drop":
                    self._abort()
                    return
                await self._requests.put(None if is_over else text)

    def _counts(self, text: str) -> bool:
        """Count a message; False: it is one too many."""
        if text == "PING" and not self._settings.ping_text_counts:
            return True
        return self._limit.take(self._clock.monotonic())

    async def _answer(self) -> None:
        """Answer requests in their order, beside the reading: pings are answered meanwhile."""
        try:
            while True:
                text = await self._requests.get()
                if text is None:
                    raise StreamError("TOO_MANY_REQUEST", "요청 수 제한을 초과했습니다.")
                await self._take(text)
        except StreamError as error:
            self._live.leave(self)
            self._send(error_body(error.name, error.message))
            await asyncio.sleep(_ERROR_TO_CLOSE_S)
            await self._socket.close()

    async def _take(self, text: str) -> None:
        if text == "PING":
            # On the server's own clock: the first status comes when the next is due anyway.
            self._next_status_s = self._next_status_s or self._status_after(self._alive_at_s)
            return
        request = read_request(text, self._settings)
        if isinstance(request, ListRequest):
            self._list(request)
        else:
            await self._replace(request)

    def _list(self, request: ListRequest) -> None:
        self._form = request.form or self._form
        wishes = self.subscription.wishes if self.subscription is not None else ()
        listed = [Listed(wish.type, wish.codes, wish.level) for wish in wishes]
        self._send(list_frame(self._form, listed, request.ticket))

    async def _replace(self, subscription: Subscription) -> None:
        """Start a subscription in place of the one before: snapshots first, then live."""
        self._live.leave(self)
        self._form = subscription.form
        self.subscription = subscription
        wanted = await self._wanted(subscription)
        snapshots = [one for one in wanted if one.snapshot]
        # What happens while the snapshots are written waits behind them.
        self._held = []
        self._follow((one for one in wanted if not one.snapshot), self._clock.now_ms())
        for delay_s, burst in _bursts(snapshots, self._settings.snapshot_bursts_ms):
            await asyncio.sleep(delay_s)
            now_ms = self._clock.now_ms()
            await self._exchange.prepare([one.desk for one in burst], now_ms)
            self._follow(burst, now_ms)
            for done, one in enumerate(burst, start=1):
                if (frame := self._snapshot(one, now_ms)) is not None:
                    self._queue(frame)
                if done % _CODES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
        held, self._held = self._held, None
        for frame in held:
            self._queue(frame)

    def _follow(self, wanted: Iterable[_Wanted], now_ms: int) -> None:
        self._live.follow(self, {one.topic: one.desk for one in wanted if one.realtime}, now_ms)

    async def _wanted(self, subscription: Subscription) -> list[_Wanted]:
        """All codes of a request; unknown ones, in lower case too, are ignored silently."""
        listings = await self._exchange.listings()
        wanted = []
        for wish in subscription.wishes:
            # A code that is named twice is sent once.
            for done, code in enumerate(dict.fromkeys(wish.codes), start=1):
                topic = _topic(wish, code)
                listing = listings.get(topic.symbol)
                if listing is not None and listing.is_listed(self._clock.now_ms()):
                    desk = await self._exchange.desk(topic.symbol)
                    assert desk is not None, "every listing has a desk"
                    wanted.append(_Wanted(topic, desk, wish.snapshot, wish.realtime))
                if done % _NAMES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
        return wanted

    def _snapshot(self, wanted: _Wanted, now_ms: int) -> bytes | None:
        topic, desk = wanted.topic, wanted.desk
        market, form = desk.market, self._form
        if topic.type == "ticker":
            ticker = desk.tickers.at(now_ms)
            return ticker and ticker_frame(
                form, market, ticker, now_ms, _SNAPSHOT, made_ms=ticker.made_ms(now_ms)
            )
        if topic.type == "trade":
            trade = self._last_told(desk, now_ms)
            return trade and trade_frame(
                form,
                market,
                trade,
                desk.orderbooks.best_after(trade),
                now_ms,
                _SNAPSHOT,
                drop_zero_seconds=self._settings.trade_time_without_seconds,
            )
        if topic.type == "orderbook":
            at_ms = now_ms - self._socket.book_age_ms(topic.symbol)
            book = desk.orderbooks.grouped(at_ms, topic.level)
            return book and orderbook_frame(form, market, book, topic.depth, _SNAPSHOT)
        candle = candle_at(market, topic.type, now_ms, now_ms)
        return candle and candle_frame(form, topic.type, market, candle, now_ms, _SNAPSHOT)

    def _last_told(self, desk: Desk, now_ms: int) -> Trade | None:
        """The newest trade that the stream has told; those on their way will follow."""
        market = desk.market
        delivery = Delivery(self._exchange.seed, market.symbol, late=self._settings.late_trades)
        before_ms = now_ms + 1
        while (trade := market.last_trade_before(before_ms)) is not None:
            if delivery.due_ms(trade) <= now_ms:
                return trade
            before_ms = trade.time_ms
        return None

    def _send(self, frame: bytes) -> None:
        if self._held is not None:
            self._held.append(frame)
        else:
            self._queue(frame)

    def _queue(self, frame: bytes) -> None:
        if self._settings.inbound_data_keeps_alive or frame == _STATUS:
            self._alive_at_s = self._clock.monotonic()
        self._outbox.append(frame)
        self._bytes_waiting += len(frame)
        self._filled.set()
        if self._bytes_waiting > MOST_BYTES_WAITING:
            self._abort()

    async def _write(self) -> None:
        # A lost connection ends the reading side, and with it the session.
        with suppress(ConnectionError):
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._outbox:
                    await self._write_some()

    async def _write_some(self) -> None:
        transport = self._transport
        if transport is None or self._socket.compress or not self._socket.is_untouched:
            frame = self._outbox.popleft()
            self._bytes_waiting -= len(frame)
            await self._socket.send_bytes(frame)
            return
        if transport.is_closing():
            raise ConnectionResetError
        # One call for all that waits: a call costs more than a frame.
        frames = b"".join(chain.from_iterable(map(_framed, self._outbox)))
        self._outbox.clear()
        self._bytes_waiting = 0
        transport.write(frames)
        while transport.get_write_buffer_size() > _MOST_BYTES_UNSENT:
            await asyncio.sleep(_LOOK_FOR_ROOM_S)

    async def _keep_time(self) -> None:
        """Send the status, cut who is silent, and everybody when the exchange closes."""
        while True:
            looked_at_s = self._clock.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)
            now_s = self._clock.monotonic()
            if now_s - looked_at_s > _STANDSTILL_S or self._socket.is_deaf:
                self._alive_at_s = now_s
            if self._next_status_s is not None and now_s >= self._next_status_s:
                self._next_status_s = self._status_after(now_s)
                self._send(_STATUS)
            is_idle = now_s - self._alive_at_s >= self._settings.idle_timeout_s
            if is_idle or self._exchange.in_maintenance(self._clock.now_ms()):
                self._abort()

    def _status_after(self, now_s: float) -> float:
        return (now_s // _STATUS_EVERY_S + 1) * _STATUS_EVERY_S

    def _abort(self) -> None:
        """Cut the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()


def _topic(wish: Wish, code: str) -> Topic:
    if wish.type != "orderbook":
        return Topic(wish.type, code)
    symbol, depth = split_depth(code)
    return Topic(wish.type, symbol, wish.level, depth)


def _bursts(
    snapshots: list[_Wanted], at_ms: Sequence[float]
) -> Iterable[tuple[float, list[_Wanted]]]:
    """Equal parts of the snapshots, and the seconds to wait before each."""
    if not at_ms:
        return [(0.0, snapshots)]
    size = -(-len(snapshots) // len(at_ms))
    return [
        ((after_ms - before_ms) / SECOND_MS, snapshots[number * size : (number + 1) * size])
        for number, (before_ms, after_ms) in enumerate(pairwise((0.0, *at_ms)))
    ]


def _framed(payload: bytes) -> tuple[bytes, bytes]:
    """Header and payload of an unmasked binary frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x82, size)), payload
    if size < 1 << 16:
        return b"\x82\x7e" + size.to_bytes(2, "big"), payload
    return b"\x82\x7f" + size.to_bytes(8, "big"), payload
