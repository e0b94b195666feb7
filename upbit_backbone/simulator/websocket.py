"""The WebSocket side: one session per connection."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from aiohttp import WSMsgType, web

from upbit_backbone.simulator.exchange import Desk, Exchange
from upbit_backbone.simulator.live import Following, LiveStream
from upbit_backbone.simulator.market import Trade
from upbit_backbone.simulator.orderbooks import Orderbook
from upbit_backbone.simulator.rest import error_body
from upbit_backbone.simulator.stream_frames import (
    FrameFormat,
    orderbook_frame,
    ticker_frame,
    trade_frame,
)
from upbit_backbone.simulator.subscriptions import (
    StreamError,
    Subscription,
    Wish,
    read_request,
    split_depth,
)

MOST_FRAMES_WAITING = 20_000
"""A reader that is further behind is cut off: nothing is held for it for ever."""

_ERROR_TO_CLOSE_S = 0.16  # 150 to 180 ms were measured (upbit-api, section 5.1)
_STATUS_EVERY_S = 10.0
_CLOSE_TIMEOUT_S = 0.2
_CODES_AT_A_TIME = 8
_SNAPSHOT, _REALTIME = "SNAPSHOT", "REALTIME"


class _Wanted(NamedTuple):
    """What one request wants of one market in real time."""

    desk: Desk
    ticker: bool = False
    trade: bool = False
    depths: tuple[int, ...] = ()


class StreamSession:
    """A connection, from the upgrade to its end.

    Frames wait in a queue of its own, so that a slow reader delays nobody; when too many
    wait it is cut off.
    """

    def __init__(self, exchange: Exchange, live: LiveStream) -> None:
        self._exchange = exchange
        self._live = live
        self._socket = web.WebSocketResponse(timeout=_CLOSE_TIMEOUT_S)
        self._transport: asyncio.Transport | None = None
        self._outbox: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._held: list[bytes] | None = None
        self._form: FrameFormat | None = None
        self._since_ms = 0
        self._wanted: dict[str, _Wanted] = {}
        self._books_sent: dict[str, int] = {}
        self._status: asyncio.Task[None] | None = None

    async def serve(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        """Upgrade the request and serve it until either side closes."""
        self._socket.headers.update(headers)
        await self._socket.prepare(request)
        self._transport = request.transport
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(), name="simulator stream writer")
                try:
                    await self._read(tasks)
                finally:
                    self._live.leave(self)
                    writer.cancel()
                    if self._status is not None:
                        self._status.cancel()
        finally:
            await self._socket.close()
        return self._socket

    async def close(self) -> None:
        """End the connection; `serve` returns soon after."""
        await self._socket.close()

    def traded(self, desk: Desk, trade: Trade, now_ms: int) -> None:
        """Send a trade and the ticker it made."""
        wanted = self._wanted.get(desk.market.symbol)
        if wanted is None or self._form is None or trade.time_ms <= self._since_ms:
            return
        if wanted.trade:
            book = desk.orderbooks.after(trade)
            self._send(trade_frame(self._form, desk.market, trade, book, now_ms, _REALTIME))
        if wanted.ticker and (ticker := desk.tickers.at(trade.time_ms)) is not None:
            self._send(ticker_frame(self._form, desk.market, ticker, now_ms, _REALTIME))

    def book_shown(self, desk: Desk, book: Orderbook) -> None:
        """Send the book if it changed since it was last sent."""
        symbol = desk.market.symbol
        wanted = self._wanted.get(symbol)
        if wanted is None or self._form is None or book.changed_ms <= self._books_sent[symbol]:
            return
        self._books_sent[symbol] = book.changed_ms
        for depth in wanted.depths:
            self._send(orderbook_frame(self._form, desk.market, book, depth, _REALTIME))

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
                        self._send_status(), name="simulator stream status"
                    )
                continue
            try:
                await self._replace(read_request(text))
            except StreamError as error:
                self._live.leave(self)
                self._send(error_body(error.name, error.message))
                await asyncio.sleep(_ERROR_TO_CLOSE_S)
                return

    async def _replace(self, subscription: Subscription) -> None:
        """Start a subscription in place of the one before: snapshots first, then live."""
        self._live.leave(self)
        self._wanted.clear()
        self._form = subscription.form
        desks = await self._desks(subscription)
        self._since_ms = now_ms = self._exchange.clock.now_ms()
        self._wanted = _wanted(subscription, desks)
        for symbol, wanted in self._wanted.items():
            book = wanted.desk.orderbooks.at(now_ms) if wanted.depths else None
            self._books_sent[symbol] = book.changed_ms if book else 0
        # What happens while the snapshots are written waits behind them.
        self._held = []
        await self._exchange.prepare(list(desks.values()), now_ms)
        self._live.follow(
            self,
            {
                symbol: Following(wanted.desk, wanted.ticker or wanted.trade, bool(wanted.depths))
                for symbol, wanted in self._wanted.items()
            },
            now_ms,
        )
        done = 0
        for wish in subscription.wishes:
            for code in wish.codes if wish.snapshot and not wish.grouped else ():
                self._send_snapshot(subscription.form, wish, code, desks, now_ms)
                done += 1
                if done % _CODES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
        held, self._held = self._held, None
        for frame in held:
            self._send(frame)

    async def _desks(self, subscription: Subscription) -> dict[str, Desk]:
        """The markets by code; unknown ones, in lower case too, are ignored silently."""
        codes = dict.fromkeys(
            split_depth(code)[0] for wish in subscription.wishes for code in wish.codes
        )
        desks = {}
        for code in codes:
            desk = await self._exchange.desk(code)
            if desk is not None and desk.market.listing.listed_ms <= self._exchange.clock.now_ms():
                desks[code] = desk
        return desks

    def _send_snapshot(
        self, form: FrameFormat, wish: Wish, code: str, desks: dict[str, Desk], now_ms: int
    ) -> None:
        symbol, depth = split_depth(code)
        desk = desks.get(symbol)
        if desk is None:
            return
        market = desk.market
        frame = None
        if wish.type == "orderbook":
            if (book := desk.orderbooks.at(now_ms)) is not None:
                frame = orderbook_frame(form, market, book, depth, _SNAPSHOT)
        elif wish.type == "ticker":
            if (ticker := desk.tickers.at(now_ms)) is not None:
                frame = ticker_frame(form, market, ticker, now_ms, _SNAPSHOT)
        elif (trade := market.last_trade(market.cut(now_ms + 1))) is not None:
            book = desk.orderbooks.after(trade)
            frame = trade_frame(form, market, trade, book, now_ms, _SNAPSHOT)
        if frame is not None:
            self._queue(frame)

    def _send(self, frame: bytes) -> None:
        if self._held is not None:
            self._held.append(frame)
        else:
            self._queue(frame)

    def _queue(self, frame: bytes) -> None:
        self._outbox.append(frame)
        self._filled.set()
        if len(self._outbox) > MOST_FRAMES_WAITING and self._transport is not None:
            self._transport.abort()

    async def _write(self) -> None:
        # A lost connection ends the reading side, and with it the session.
        with suppress(ConnectionError):
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._outbox:
                    await self._socket.send_bytes(self._outbox.popleft())

    async def _send_status(self) -> None:
        while True:
            self._send(b'{"status":"UP"}')
            await asyncio.sleep(_STATUS_EVERY_S)


def _wanted(subscription: Subscription, desks: dict[str, Desk]) -> dict[str, _Wanted]:
    wanted: dict[str, _Wanted] = {}
    for wish in subscription.wishes:
        if not wish.realtime or wish.grouped:
            continue
        for code in wish.codes:
            symbol, depth = split_depth(code)
            if symbol not in desks:
                continue
            before = wanted.get(symbol, _Wanted(desks[symbol]))
            depths = (*before.depths, depth) if wish.type == "orderbook" else before.depths
            wanted[symbol] = before._replace(
                ticker=before.ticker or wish.type == "ticker",
                trade=before.trade or wish.type == "trade",
                depths=tuple(dict.fromkeys(depths)),
            )
    return wanted
