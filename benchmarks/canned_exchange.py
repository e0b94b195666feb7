"""A stream of prepared frames, faster than any market: what `routing.py` measures against.

    uv run python benchmarks/canned_exchange.py

A process of its own. It prints one line of JSON with its addresses and then obeys lines of JSON on
its standard input, each answered by one line when it is done; it ends with its input:

- ``{"flood": 1000, "trades": 50}``: so many frames as fast as the reader takes them; in each round
  so many trades of each symbol whose trades are asked for, and one of everything else
- ``{"rate": 1000, "seconds": 8}``: so many a second, evenly in steps of a millisecond
- ``{"cut": true}``: every connection is reset

Frames are the recorded messages with all their fields; code, stamps and the ticker's
`acc_trade_price` are new in each (the latter is the moment of sending, microseconds of
`time.perf_counter`, which all processes of one machine share). They are written past the
WebSocket library, so that the sender costs a microsecond a frame and is never what is measured.
REST answers what a service asks at its start and after a break. There are no limits and no faults.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from upbit_backbone.short_keys import SHORT_KEYS

PAYLOADS = Path(__file__).parents[1] / "tests" / "payloads" / "upbit" / "ws"
RECORDED = {
    "ticker": "doc.default.ticker.KRW-BTC.20230221",
    "trade": "doc.default.trade.KRW-BTC.20241031",
    "orderbook": "sample.default.orderbook.USDT-ETC.20230808",
}
SYMBOLS = ("KRW-BTC", *(f"KRW-T{number:03}" for number in range(1, 250)))
TRADES_KEPT = 500
STEP_S = 0.001
FULL_BYTES = 1 << 18
CHUNK = 64
_CODE, _STAMP, _SENT, _ID, _TYPE = "~code", 7_000_001, 7_000_002, 7_000_003, "~type"


def prepared(kind: str, form: str) -> tuple[bytes, tuple[str, ...]]:
    """A frame with blanks for `%`, and what belongs into them, in order."""
    recorded = (PAYLOADS / f"{RECORDED[kind]}.json").read_bytes()
    row: dict[str, Any] = msgspec.json.decode(recorded)
    row |= {"code": _CODE, "timestamp": _STAMP, "stream_type": _TYPE}
    if kind != "orderbook":
        row["trade_timestamp"] = _STAMP
    if kind == "ticker":
        row["acc_trade_price"] = _SENT
    if kind == "trade":
        row["sequential_id"] = _ID
    text = msgspec.json.encode(_shortened(row) if form == "SIMPLE" else row)
    blanks = {_CODE: "code", str(_STAMP): "stamp", str(_SENT): "sent", str(_ID): "id"}
    blanks[_TYPE] = "type"
    places = sorted(
        (place, name) for mark, name in blanks.items() for place in _places(text, mark.encode())
    )
    for mark, name in blanks.items():
        text = text.replace(mark.encode(), b"%b" if name in ("code", "type") else b"%d")
    return text, tuple(name for _, name in places)


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    if isinstance(value, dict):
        return {SHORT_KEYS[name]: _shortened(one) for name, one in value.items()}
    return value


def _places(text: bytes, mark: bytes) -> Iterator[int]:
    place = text.find(mark)
    while place >= 0:
        yield place
        place = text.find(mark, place + 1)


FRAMES = {(kind, form): prepared(kind, form) for kind in RECORDED for form in ("DEFAULT", "SIMPLE")}


class CannedExchange:
    """Sends every connection what it asked for last, in rounds."""

    def __init__(self) -> None:
        self._wanted: dict[ServerConnection, list[tuple[str, str, str]]] = {}
        """Kind, code and format of what each connection asked for."""
        self._trades: dict[str, deque[tuple[Any, Any]]] = {}
        """Stamp and id of the newest, by code."""
        self._stamp_ms = 0
        self._id = 0

    async def serve(self, connection: ServerConnection) -> None:
        """One connection: each of its messages replaces its subscription."""
        try:
            async for message in connection:
                self._subscribe(connection, msgspec.json.decode(message))
        except ConnectionClosed:
            pass
        finally:
            self._wanted.pop(connection, None)

    async def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """A REST call; None: it is a WebSocket's."""
        url = urlsplit(request.path)
        if url.path == "/websocket/v1":
            return None
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self._body(url.path.removeprefix("/v1"), asked)
        response = connection.respond(HTTPStatus.OK, body.decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def flood(self, frames: int, trades: int) -> None:
        """Send as fast as the readers take it."""
        senders = [self._flood(connection, frames, trades) for connection in tuple(self._wanted)]
        await asyncio.gather(*senders)

    async def pace(self, rate: float, seconds: float) -> None:
        """Send so many frames a second to each connection."""
        endless = {connection: self._endless(connection, 1) for connection in self._wanted}
        began, sent, total = time.perf_counter(), 0, round(rate * seconds)
        while sent < total:
            due = min(total, int((time.perf_counter() - began) * rate))
            for connection, frames in endless.items():
                chunk = [next(frames) for _ in range(due - sent)]
                connection.transport.write(b"".join(chunk))
            sent = due
            await asyncio.sleep(STEP_S)

    def cut(self) -> None:
        """Reset all connections."""
        for connection in tuple(self._wanted):
            connection.transport.abort()

    def _subscribe(self, connection: ServerConnection, request: list[dict[str, Any]]) -> None:
        form = request[-1].get("format", "DEFAULT")
        wanted = [(part["type"], code, form) for part in request for code in part.get("codes", ())]
        self._wanted[connection] = wanted
        connection.transport.write(b"".join(self._frame(*one, b"SNAPSHOT") for one in wanted))

    async def _flood(self, connection: ServerConnection, frames: int, trades: int) -> None:
        endless, transport = self._endless(connection, trades), connection.transport
        while frames > 0 and not transport.is_closing():
            chunk = [next(endless) for _ in range(min(CHUNK, frames))]
            transport.write(b"".join(chunk))
            frames -= len(chunk)
            while transport.get_write_buffer_size() > FULL_BYTES:
                await asyncio.sleep(STEP_S)

    def _endless(self, connection: ServerConnection, trades: int) -> Iterator[bytes]:
        while True:
            # Each round a millisecond later than the one before: no value is older than another.
            self._stamp_ms = max(self._stamp_ms + 1, time.time_ns() // 1_000_000)
            for kind, code, form in tuple(self._wanted.get(connection, ())):
                for _ in range(trades if kind == "trade" else 1):
                    yield self._frame(kind, code, form, b"REALTIME")

    def _frame(self, kind: str, code: str, form: str, stream_type: bytes) -> bytes:
        self._stamp_ms = self._stamp_ms or time.time_ns() // 1_000_000
        self._id += 1
        values = {
            "code": code.encode(),
            "type": stream_type,
            "stamp": self._stamp_ms,
            "sent": time.perf_counter_ns() // 1_000,
            "id": self._stamp_ms * 10_000 + self._id % 10_000,
        }
        text, names = FRAMES[kind, form]
        payload = text % tuple(values[name] for name in names)
        if kind == "trade":
            trades = self._trades.setdefault(code, deque(maxlen=TRADES_KEPT))
            trades.append((values["stamp"], values["id"]))
        return b"\x82\x7e" + len(payload).to_bytes(2, "big") + payload

    def _body(self, path: str, asked: dict[str, str]) -> bytes:
        symbols = asked.get("markets", ",".join(SYMBOLS)).split(",")
        if path == "/market/all":
            return msgspec.json.encode(
                [{"market": one, "english_name": one, "korean_name": one} for one in SYMBOLS]
            )
        if path in ("/ticker", "/ticker/all"):
            return _rows(self._payload("ticker", symbol) for symbol in symbols)
        if path == "/orderbook":
            return _rows(self._payload("orderbook", symbol) for symbol in symbols)
        if path == "/trades/ticks":
            return self._trades_before(asked)
        return b"[]"

    def _payload(self, kind: str, code: str) -> bytes:
        return self._frame(kind, code, "DEFAULT", b"")[4:]

    def _trades_before(self, asked: dict[str, str]) -> bytes:
        before = int(asked.get("cursor", "0")) or 1 << 62
        text, names = FRAMES["trade", "DEFAULT"]
        code = asked["market"]
        frames: list[bytes] = []
        for stamp, number in reversed(self._trades.get(code, ())):
            if number < before and len(frames) < int(asked.get("count", "1")):
                values = {"code": code.encode(), "type": b"", "stamp": stamp, "id": number}
                frames.append(text % tuple(values[name] for name in names))
        return _rows(iter(frames))


def _rows(frames: Iterator[bytes]) -> bytes:
    rows = []
    for frame in frames:
        row = msgspec.json.decode(frame)
        rows.append({"market": row.pop("code"), **row})
    return msgspec.json.encode(rows)


async def main() -> None:
    """Serve until the input ends."""
    exchange = CannedExchange()
    server = await serve(
        exchange.serve,
        "127.0.0.1",
        0,
        process_request=exchange.answer,
        compression=None,
        ping_interval=None,
    )
    async with server:
        host = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        tell({"rest_url": f"http://{host}/v1", "ws_url": f"ws://{host}/websocket/v1"})
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = msgspec.json.decode(line)
            if "flood" in command:
                await exchange.flood(command["flood"], command.get("trades", 1))
            elif "rate" in command:
                await exchange.pace(command["rate"], command["seconds"])
            else:
                exchange.cut()
            tell({"done": True})


def tell(words: dict[str, Any]) -> None:
    """Print a line of JSON at once."""
    print(msgspec.json.encode(words).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
