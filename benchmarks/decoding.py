"""How close decoding comes to plain msgspec, as ratios of one run.

The floor of each body is one msgspec call into typed structs that hold the fields the
adapter uses and nothing else; ours ends in a `CandleSeries`, `Ticker`, `Trade` or
`Orderbook`. The two are measured in turn, a few calls each, and compared round by round,
so that what else the machine does weighs on both alike; the median of the rounds counts.

The stream is measured in both of the exchange's formats: single recorded messages cut down to the
fields used (the same in both), and whole frames of the simulator, which writes keys and numbers
of each format as the exchange does. What a second of a busy exchange costs in each is at the end.

Goal: 200 candles at most 1.3 times their floor.

    uv run python benchmarks/decoding.py
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import websockets
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from upbit_backbone.clock import FrozenClock
from upbit_backbone.exchanges.upbit import wire
from upbit_backbone.exchanges.upbit.decode import (
    Context,
    StreamFormat,
    decode_candles,
    decode_message,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.simulator import Simulator

PAYLOADS = Path(__file__).parents[1] / "tests" / "payloads" / "upbit"
ROUNDS = 400
CANDLE_GOAL = 1.3

# The page was recorded while its newest candle was forming.
PAGE = "rest/candles_minutes_1.KRW-BTC.count200.20210130T134731Z.json"
RECORDED_MS = 1_612_014_451_539

FORMATS: tuple[StreamFormat, StreamFormat] = ("DEFAULT", "SIMPLE")
SIMULATED_MS = 1_757_937_630_123  # noon of a Monday in September 2025
SYMBOLS = [
    "KRW-BTC",
    "KRW-XRP",
    "KRW-DOGE",
    "KRW-ETH",
    "BTC-ETH",
    "USDT-BTC",
    "BTC-SC",
    "KRW-SIM003",
]
# A busy second of the whole exchange: each of its 289 won markets sends its book ten times at most.
BUSY_SECOND = {"ticker": 250, "trade": 250, "orderbook": 480, "candle.1m": 20}

DEFAULT = wire.TickerMessage | wire.TradeMessage | wire.OrderbookMessage
SIMPLE = wire.SimpleTicker | wire.SimpleTrade | wire.SimpleOrderbook


class Candle(msgspec.Struct, frozen=True, gc=False):
    """What the adapter uses of a candle."""

    market: str
    candle_date_time_utc: str
    opening_price: float
    high_price: float
    low_price: float
    trade_price: float
    timestamp: int
    candle_acc_trade_price: float
    candle_acc_trade_volume: float


def medians(
    floor: Callable[[], object], ours: Callable[[], object], *, calls: int
) -> tuple[float, float, float]:
    """Microseconds of a call of each, and the ratio of the second to the first."""
    took: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        times = []
        for call in (floor, ours):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times.append((time.perf_counter() - start) / calls * 1e6)
        took.append((times[0], times[1]))
    floor_us, ours_us = (statistics.median(column) for column in zip(*took, strict=True))
    return floor_us, ours_us, statistics.median(ours / floor for floor, ours in took)


def compare(
    title: str, floor: Callable[[], object], ours: Callable[[], object], *, calls: int
) -> float:
    """Print both medians and return the median ratio."""
    floor_us, ours_us, ratio = medians(floor, ours, calls=calls)
    print(f"{title:<42} floor {floor_us:8.2f} µs   ours {ours_us:8.2f} µs   {ratio:5.2f} ×")
    return ratio


def main() -> int:
    """Print the figures; 1 if the goal is missed."""
    gc.freeze()
    body = (PAYLOADS / PAGE).read_bytes()
    ratio = compare(
        f"200 candles, {len(body):,} bytes",
        partial(msgspec.json.Decoder(list[Candle]).decode, body),
        partial(
            decode_candles,
            body,
            "KRW-BTC",
            Timeframe.M1,
            closed_before_ms=RECORDED_MS,
            simulated=False,
        ),
        calls=5,
    )
    context = Context(datetime(2026, 1, 5, tzinfo=UTC), "websocket", simulated=False)
    for kind, form, frame in stream_frames():
        floor = msgspec.json.Decoder(DEFAULT if form == "DEFAULT" else SIMPLE)
        compare(
            f"{kind}, {form}, {len(frame):,} bytes",
            partial(floor.decode, frame),
            partial(decode_message, frame, form, context, closed_before_ms=0),
            calls=100,
        )
    compare_formats(context)
    print(f"200 candles: {ratio:.2f} × plain msgspec (goal: at most {CANDLE_GOAL})")
    return 0 if ratio <= CANDLE_GOAL else 1


def compare_formats(context: Context) -> None:
    """Whole frames in both formats: out of the connection's bytes and decoded."""
    frames = {form: asyncio.run(simulated_frames(form)) for form in FORMATS}
    size: dict[str, float] = dict.fromkeys(FORMATS, 0.0)
    cost: dict[str, float] = dict.fromkeys(FORMATS, 0.0)
    for kind, a_second in BUSY_SECOND.items():
        default, simple = frames["DEFAULT"][kind], frames["SIMPLE"][kind]
        default_us, simple_us, ratio = medians(
            partial(receive_all, default, "DEFAULT", context),
            partial(receive_all, simple, "SIMPLE", context),
            calls=20,
        )
        for form, took_us, sent in zip(
            FORMATS, (default_us, simple_us), (default, simple), strict=True
        ):
            size[form] += a_second * statistics.mean(map(len, sent))
            cost[form] += a_second * took_us / len(sent)
        print(
            f"{kind:<12} DEFAULT {statistics.mean(map(len, default)):6,.0f} bytes"
            f" {default_us / len(default):6.2f} µs   SIMPLE"
            f" {statistics.mean(map(len, simple)):6,.0f} bytes {simple_us / len(simple):6.2f} µs"
            f"   {ratio:5.2f} ×"
        )
    for form in FORMATS:
        print(
            f"{form}: {sum(BUSY_SECOND.values()):,} messages a second are"
            f" {size[form] / 1_000:,.0f} kB and {cost[form] / 1_000:.2f} ms of receiving"
        )


def receive_all(frames: list[bytes], form: StreamFormat, context: Context) -> None:
    """Take frames out of the bytes of a connection and decode them."""
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN)
    for frame in frames:
        protocol.receive_data(Frame(Opcode.BINARY, frame).serialize(mask=False))
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            decode_message(bytes(event.data), form, context, closed_before_ms=0)


async def simulated_frames(form: StreamFormat) -> dict[str, list[bytes]]:
    """Frames of some markets at one instant, by kind."""
    found: dict[str, list[bytes]] = {}
    async with (
        Simulator(clock=FrozenClock(SIMULATED_MS)) as simulator,
        websockets.connect(simulator.ws_url, compression=None) as socket,
    ):
        types = [{"type": kind, "codes": SYMBOLS} for kind in BUSY_SECOND]
        request = [{"ticket": "benchmark"}, *types, {"format": form}]
        await socket.send(msgspec.json.encode(request).decode())
        for _ in range(len(SYMBOLS) * len(BUSY_SECOND)):
            frame = await socket.recv(decode=False)
            message = msgspec.json.decode(frame)
            found.setdefault(message.get("type") or message["ty"], []).append(frame)
    return found


def stream_frames() -> list[tuple[str, StreamFormat, bytes]]:
    """One message of each kind in both formats: recorded values, only the fields used."""
    frames: list[tuple[str, StreamFormat, bytes]] = []
    for kind, name, simple in (
        ("ticker", "doc.default.ticker.KRW-BTC.20230221", wire.SimpleTicker),
        ("trade", "doc.default.trade.KRW-BTC.20241031", wire.SimpleTrade),
        ("order book", "sample.default.orderbook.USDT-ETC.20230808", wire.SimpleOrderbook),
    ):
        message = msgspec.json.decode((PAYLOADS / "ws" / f"{name}.json").read_bytes(), type=DEFAULT)
        short = msgspec.convert(message, simple, from_attributes=True)
        frames.append((kind, "DEFAULT", msgspec.json.encode(message)))
        frames.append((kind, "SIMPLE", msgspec.json.encode(short)))
    return frames


if __name__ == "__main__":
    sys.exit(main())
