"""Each recorded frame of the stream is decoded and compared with what another reader sees."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pytest

from tests.exchanges.recordings import body, captured_frames, moment, number, values
from tests.exchanges.test_recorded_rest import (
    LONG_AFTER_MS,
    assert_same_book,
    assert_same_candles,
    assert_same_ticker,
)
from upbit_backbone.exchanges.upbit.decode import Context, StreamFormat, decode_message
from upbit_backbone.models import CandleSeries, Level, Orderbook, Ticker, Timeframe, Trade

RECEIVED = datetime(2026, 1, 5, 4, 10, 42, 7_000, UTC)
CONTEXT = Context(RECEIVED, "websocket", simulated=True)


def decoded(frame: bytes, form: StreamFormat) -> tuple[Any, bool, int]:
    """The value, whether it is a snapshot, and the message's stamp."""
    event = decode_message(frame, form, CONTEXT, closed_before_ms=LONG_AFTER_MS)
    assert event is not None
    assert event.stamp_ms is not None
    value = event.value
    assert isinstance(value, CandleSeries) or value.received_time == RECEIVED
    assert value.source == "websocket"
    assert value.simulated
    return value, event.snapshot, event.stamp_ms


def assert_simple_trade(trade: Trade, row: dict[str, Any]) -> None:
    assert (trade.symbol, trade.sequential_id) == (row["cd"], row["sid"])
    assert (trade.price, trade.volume) == (number(row["tp"]), number(row["tv"]))
    assert trade.side == {"BID": "BUY", "ASK": "SELL"}[row["ab"]]
    # `ttm` of some frames has no seconds; `ttms` is a stamp in all of them.
    assert trade.exchange_time == moment(row["ttms"])
    assert not trade.late


def assert_simple_book(book: Orderbook, row: dict[str, Any]) -> None:
    assert book.symbol == row["cd"]
    assert book.asks == tuple(Level(number(u["ap"]), number(u["as"])) for u in row["obu"])
    assert book.bids == tuple(Level(number(u["bp"]), number(u["bs"])) for u in row["obu"])
    assert (book.total_ask_size, book.total_bid_size) == (number(row["tas"]), number(row["tbs"]))
    assert book.exchange_time == moment(row["tms"])
    assert book.level == 0


def test_the_capture_of_2021_decodes_frame_by_frame() -> None:
    kinds: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    for frame in captured_frames():
        row = values(frame)
        value, snapshot, stamp_ms = decoded(frame.encode(), "SIMPLE")
        if row["ty"] == "trade":
            assert isinstance(value, Trade)
            assert_simple_trade(value, row)
        else:
            assert isinstance(value, Orderbook)
            assert_simple_book(value, row)
        assert stamp_ms == row["tms"]
        assert not snapshot
        kinds[row["ty"]] += 1
        symbols[value.symbol] += 1
    assert kinds == {"trade": 672, "orderbook": 1_061}
    assert symbols["KRW-DAWN"] == 581


@pytest.mark.parametrize("name", ["trade", "orderbook"])
def test_a_sample_of_format_simple_keeps_every_value(name: str) -> None:
    content = body(f"ws/sample.simple.{name}.json")
    value, snapshot, stamp_ms = decoded(content, "SIMPLE")
    row = values(content)
    (assert_simple_trade if name == "trade" else assert_simple_book)(value, row)
    assert not snapshot
    assert stamp_ms == row["tms"]


@pytest.mark.parametrize(
    ("name", "snapshot"),
    [
        ("doc.default.trade.KRW-BTC.20241031", True),
        ("sample.default.trade.KRW-DOGE.20210302", False),
    ],
)
def test_a_recorded_trade_keeps_every_value(name: str, snapshot: bool) -> None:
    content = body(f"ws/{name}.json")
    row = values(content)
    trade, is_snapshot, stamp_ms = decoded(content, "DEFAULT")
    assert trade == Trade(
        row["code"],
        number(row["trade_price"]),
        number(row["trade_volume"]),
        "BUY" if row["ask_bid"] == "BID" else "SELL",
        row["sequential_id"],
        False,
        moment(row["trade_timestamp"]),
        RECEIVED,
        "websocket",
        True,
    )
    assert (is_snapshot, stamp_ms) == (snapshot, row["timestamp"])
    assert (row["stream_type"] == "SNAPSHOT") is snapshot


def test_the_recorded_ticker_keeps_every_value() -> None:
    content = body("ws/doc.default.ticker.KRW-BTC.20230221.json")
    row = values(content)
    ticker, snapshot, stamp_ms = decoded(content, "DEFAULT")
    assert isinstance(ticker, Ticker)
    assert_same_ticker(ticker, row | {"market": row["code"]})
    assert (ticker.side, ticker.state, ticker.delisting_date) == ("SELL", "ACTIVE", None)
    assert (row["ask_bid"], row["market_state"], row["delisting_date"]) == ("ASK", "ACTIVE", None)
    assert not snapshot
    assert stamp_ms == row["timestamp"]


def test_the_book_stamped_in_microseconds_is_of_august_2023() -> None:
    content = body("ws/sample.default.orderbook.USDT-ETC.20230808.json")
    row = values(content)
    book, _, stamp_ms = decoded(content, "DEFAULT")
    assert_same_book(book, row)
    assert book.symbol == row["code"]
    assert len(book.asks) == 15
    assert row["timestamp"] == 1_691_530_805_062_000
    assert stamp_ms == 1_691_530_805_062
    assert book.exchange_time == moment(1_691_530_805_062)
    assert book.exchange_time.date() == date(2023, 8, 8)


def test_the_recorded_candle_keeps_every_value() -> None:
    content = body("ws/doc.default.candle_1s.KRW-BTC.20250102.json")
    row = values(content)
    series, snapshot, stamp_ms = decoded(content, "DEFAULT")
    assert_same_candles(series, [row])
    assert (series.symbol, series.timeframe) == (row["code"], Timeframe.S1)
    assert (snapshot, stamp_ms) == (False, row["timestamp"])
