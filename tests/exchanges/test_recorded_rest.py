"""Each recorded REST body is decoded and compared with what another reader sees in it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from tests.exchanges.recordings import body, moment, ms_of, number, second_candles, values
from upbit_backbone.errors import ProtocolError
from upbit_backbone.exchanges.upbit.decode import (
    Context,
    decode_candles,
    decode_markets,
    decode_orderbooks,
    decode_tickers,
    decode_trades,
)
from upbit_backbone.exchanges.upbit.wire import TradeWire
from upbit_backbone.models import CandleSeries, Level, Orderbook, Ticker, Timeframe, Trade

RECEIVED = datetime(2026, 1, 5, 4, 10, 42, 7_000, UTC)
CONTEXT = Context(RECEIVED, "rest", simulated=False)
LONG_AFTER_MS = 4_102_444_800_000

CANDLE_PAGES = [
    ("candles_minutes_1.KRW-BTC.count200.20210130T134731Z", "KRW-BTC", "1m", 200),
    ("candles_minutes_1.KRW-BTC.count20.20210130T134714Z", "KRW-BTC", "1m", 20),
    ("candles_minutes_1.KRW-BTC.count50.to20210130T1100Z", "KRW-BTC", "1m", 50),
    ("candles_minutes_3.KRW-BTC.count200.to20200220T0100Z", "KRW-BTC", "3m", 200),
    ("candles_minutes_60.USDT-BTC.20240313", "USDT-BTC", "1h", 1),
    ("doc.candles_seconds.KRW-BTC.20250630", "KRW-BTC", "1s", 1),
    ("doc.candles_days.KRW-BTC.20180418", "KRW-BTC", "1d", 1),
    ("doc.candles_weeks.KRW-BTC.20180416_20210104", "KRW-BTC", "1w", 2),
]


def assert_same_candles(series: CandleSeries, rows: list[dict[str, Any]]) -> None:
    """Compare a series with the rows of a page, newest first."""
    ascending = rows[::-1]
    assert [int(time) for time in series.time] == [
        ms_of(row["candle_date_time_utc"]) for row in ascending
    ]
    for column, name in (
        (series.open, "opening_price"),
        (series.high, "high_price"),
        (series.low, "low_price"),
        (series.close, "trade_price"),
        (series.volume, "candle_acc_trade_volume"),
        (series.value, "candle_acc_trade_price"),
    ):
        assert column.tolist() == [number(row[name]) for row in ascending], name
        assert column.dtype == float
        assert column.flags.c_contiguous


@pytest.mark.parametrize(("name", "symbol", "unit", "count"), CANDLE_PAGES)
def test_a_recorded_candle_page_keeps_every_value(
    name: str, symbol: str, unit: str, count: int
) -> None:
    content = body(f"rest/{name}.json")
    timeframe = Timeframe.parse(unit)
    series, stamp_ms = decode_candles(
        content, symbol, timeframe, closed_before_ms=LONG_AFTER_MS, simulated=False
    )
    rows = values(content)
    assert len(series) == len(rows) == count
    assert_same_candles(series, rows)
    assert stamp_ms == rows[0]["timestamp"]
    assert (series.symbol, series.timeframe, series.source) == (symbol, timeframe, "rest")
    assert not series.simulated
    assert series.closed.all()
    assert not series.filled.any()
    assert all(timeframe.floor_ms(int(time)) == time for time in series.time)


def test_the_recorded_second_candles_of_a_thin_market_keep_every_value() -> None:
    rows = second_candles()
    # The source kept the field names but made a table; each number goes back as it stands.
    objects = [
        ",".join(
            f'"{name}":"{text}"'
            if name.startswith(("market", "candle_date"))
            else f'"{name}":{text}'
            for name, text in row.items()
        )
        for row in rows
    ]
    page = "[" + ",".join(f"{{{fields}}}" for fields in objects) + "]"
    series, stamp_ms = decode_candles(
        page.encode(), "KRW-ELF", Timeframe.S1, closed_before_ms=LONG_AFTER_MS, simulated=True
    )
    assert_same_candles(series, rows)
    assert stamp_ms == int(rows[0]["timestamp"])
    assert series.simulated


def test_the_candle_that_was_forming_when_recorded_is_the_only_one_not_closed() -> None:
    content = body("rest/candles_minutes_1.KRW-BTC.count200.20210130T134731Z.json")
    series, _ = decode_candles(
        content,
        "KRW-BTC",
        Timeframe.M1,
        closed_before_ms=ms_of("2021-01-30T13:47:31"),
        simulated=False,
    )
    assert series.closed.tolist() == [True] * 199 + [False]
    assert series[-1].state == "forming"


def test_two_pages_of_one_minute_differ_in_the_forming_candle_alone() -> None:
    earlier, later = (
        decode_candles(
            body(f"rest/candles_minutes_1.KRW-BTC.{name}.json"),
            "KRW-BTC",
            Timeframe.M1,
            closed_before_ms=LONG_AFTER_MS,
            simulated=False,
        )[0]
        for name in ("count20.20210130T134714Z", "count200.20210130T134731Z")
    )
    assert earlier[:-1] == later[-20:-1]
    assert earlier[-1].open == later[-1].open
    assert earlier[-1].volume < later[-1].volume


def assert_same_ticker(ticker: Ticker, row: dict[str, Any]) -> None:
    """Compare with a row of `/ticker`, all fields but the stream's own."""
    assert ticker.symbol == row["market"]
    for field, name in (
        ("price", "trade_price"),
        ("open", "opening_price"),
        ("high", "high_price"),
        ("low", "low_price"),
        ("prev_close", "prev_closing_price"),
        ("change_price", "signed_change_price"),
        ("change_rate", "signed_change_rate"),
        ("trade_volume", "trade_volume"),
        ("volume_today", "acc_trade_volume"),
        ("value_today", "acc_trade_price"),
        ("volume_24h", "acc_trade_volume_24h"),
        ("value_24h", "acc_trade_price_24h"),
        ("high_52w", "highest_52_week_price"),
        ("low_52w", "lowest_52_week_price"),
    ):
        assert getattr(ticker, field) == number(row[name]), name
    assert ticker.change == row["change"]
    assert ticker.high_52w_date == date.fromisoformat(row["highest_52_week_date"])
    assert ticker.low_52w_date == date.fromisoformat(row["lowest_52_week_date"])
    assert ticker.trade_time == moment(row["trade_timestamp"])
    assert ticker.exchange_time == moment(row["timestamp"])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ticker.KRW-BTC.20180702", 1),
        ("ticker.USDT-BTC.20240313", 1),
        # Six prices of the first object are quoted: decoded all the same.
        ("doc.ticker.KRW-BTC_KRW-ETH.20250704", 2),
    ],
)
def test_a_recorded_ticker_keeps_every_value(name: str, count: int) -> None:
    content = body(f"rest/{name}.json")
    tickers = decode_tickers(content, CONTEXT)
    rows = values(content)
    assert len(tickers) == len(rows) == count
    for ticker, row in zip(tickers, rows, strict=True):
        assert_same_ticker(ticker, row)
        assert (ticker.side, ticker.state, ticker.delisting_date) == (None, None, None)
        assert (ticker.source, ticker.simulated) == ("rest", False)
        assert ticker.received_time == RECEIVED


def test_a_falling_price_has_a_negative_change_though_the_body_holds_an_absolute_one() -> None:
    content = body("rest/ticker.KRW-BTC.20180702.json")
    [ticker] = decode_tickers(content, CONTEXT)
    [row] = values(content)
    assert row["change"] == "FALL"
    assert row["change_price"] > 0
    assert ticker.change_price == -number(row["change_price"])
    assert ticker.change_rate == -number(row["change_rate"])


def test_a_sum_with_more_digits_than_a_float_holds_is_rounded_to_the_nearest() -> None:
    content = body("rest/ticker.USDT-BTC.20240313.json")
    [ticker] = decode_tickers(content, CONTEXT)
    [row] = values(content)
    digits = len(row["acc_trade_price"].as_tuple().digits)
    assert digits > 17
    assert ticker.value_today == float(row["acc_trade_price"])


def assert_same_book(book: Orderbook, row: dict[str, Any]) -> None:
    """Compare with a book of either interface, DEFAULT names, none of it padded."""
    units = row["orderbook_units"]
    assert book.asks == tuple(
        Level(number(unit["ask_price"]), number(unit["ask_size"])) for unit in units
    )
    assert book.bids == tuple(
        Level(number(unit["bid_price"]), number(unit["bid_size"])) for unit in units
    )
    assert book.total_ask_size == number(row["total_ask_size"])
    assert book.total_bid_size == number(row["total_bid_size"])
    assert book.level == number(row.get("level", 0))
    assert [level.price for level in book.asks] == sorted(level.price for level in book.asks)
    assert [level.price for level in book.bids] == sorted(
        (level.price for level in book.bids), reverse=True
    )


@pytest.mark.parametrize(
    ("name", "rows", "level"),
    [
        ("orderbook.BTC-ETH.20180702", 10, 0.0),
        ("doc.orderbook_level10000.KRW-BTC.20250704", 30, 10_000.0),
    ],
)
def test_a_recorded_order_book_keeps_every_value(name: str, rows: int, level: float) -> None:
    content = body(f"rest/{name}.json")
    [book] = decode_orderbooks(content, CONTEXT, depth=30)
    [row] = values(content)
    assert_same_book(book, row)
    assert book.symbol == row["market"]
    assert len(book.asks) == len(book.bids) == rows
    assert book.level == level
    assert book.exchange_time == moment(row["timestamp"])
    assert (book.source, book.simulated, book.received_time) == ("rest", False, RECEIVED)


def test_a_book_is_cut_to_the_depth_asked_for() -> None:
    [book] = decode_orderbooks(body("rest/orderbook.BTC-ETH.20180702.json"), CONTEXT, depth=3)
    assert len(book.asks) == len(book.bids) == 3


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("doc.trades_ticks.KRW-BTC.20250627", "KRW-BTC"),
        ("trades_ticks.USDT-BTC.20240313", "USDT-BTC"),
    ],
)
def test_a_recorded_trade_keeps_every_value(name: str, symbol: str) -> None:
    content = body(f"rest/{name}.json")
    [trade] = decode_trades(content, symbol, CONTEXT)
    [row] = values(content)
    assert trade == Trade(
        symbol,
        number(row["trade_price"]),
        number(row["trade_volume"]),
        "BUY" if row["ask_bid"] == "BID" else "SELL",
        row["sequential_id"],
        False,
        moment(row["timestamp"]),
        RECEIVED,
        "rest",
        False,
    )
    # A reader of doubles would have changed it.
    assert trade.sequential_id > 2**53


def test_the_trades_of_2018_are_read_but_refused_for_want_of_an_id() -> None:
    content = body("rest/trades_ticks.BTC-ETH.20180702.json")
    rows = values(content)
    wire = msgspec.json.decode(content, type=list[TradeWire])
    assert len(wire) == len(rows) == 100
    for read, row in zip(wire, rows, strict=True):
        assert read == TradeWire(
            row["market"],
            row["timestamp"],
            number(row["trade_price"]),
            number(row["trade_volume"]),
            row["ask_bid"],
            None,
        )
    with pytest.raises(ProtocolError, match="a trade has no sequential_id"):
        decode_trades(content, "BTC-ETH", CONTEXT)


def test_the_recorded_market_list_keeps_every_row_in_order() -> None:
    content = body("market_all.json")
    markets = decode_markets(content)
    rows = values(content)
    assert len(markets) == 294
    assert [
        {
            "market": market.symbol,
            "korean_name": market.korean_name,
            "english_name": market.english_name,
        }
        for market in markets
    ] == rows
    assert not any(market.warning or market.caution for market in markets)
