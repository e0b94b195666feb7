"""How close decoding comes to plain msgspec, as ratios of one run.

The floor of each body is one msgspec call into typed structs that hold the fields the
adapter uses and nothing else; ours ends in a `CandleSeries`, `Ticker`, `Trade` or
`Orderbook`. The two are measured in turn, a few calls each, and compared round by round,
so that what else the machine does weighs on both alike; the median of the rounds counts.

The stream is measured in both of the exchange's formats, which hold the same values.

Goal: 200 candles at most 1.3 times their floor.

    uv run python benchmarks/decoding.py
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from upbit_backbone.exchanges.upbit import wire
from upbit_backbone.exchanges.upbit.decode import (
    Context,
    StreamFormat,
    decode_candles,
    decode_message,
)
from upbit_backbone.models import Timeframe

PAYLOADS = Path(__file__).parents[1] / "tests" / "payloads" / "upbit"
ROUNDS = 400
CANDLE_GOAL = 1.3

# The page was recorded while its newest candle was forming.
PAGE = "rest/candles_minutes_1.KRW-BTC.count200.20210130T134731Z.json"
RECORDED_MS = 1_612_014_451_539

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


def compare(
    title: str, floor: Callable[[], object], ours: Callable[[], object], *, calls: int
) -> float:
    """Print both medians and return the median ratio."""
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
    ratio = statistics.median(ours / floor for floor, ours in took)
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
            partial(decode_message, frame, form, context),
            calls=100,
        )
    print(f"200 candles: {ratio:.2f} × plain msgspec (goal: at most {CANDLE_GOAL})")
    return 0 if ratio <= CANDLE_GOAL else 1


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
