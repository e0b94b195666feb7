"""No recording without a reader: each file is decoded and compared with another reading of it.

Bodies and frames go through the adapter's decoders. The candle files, which others wrote as
tables, are made pages first (`candle_files`) and then go the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from tests.exchanges.candle_files import pages, rows, text_of
from tests.exchanges.recordings import PAYLOADS, captured_frames, number, values
from tests.exchanges.test_recorded_rest import (
    CONTEXT,
    LONG_AFTER_MS,
    assert_same_book,
    assert_same_candles,
    assert_same_ticker,
)
from tests.exchanges.test_recorded_stream import assert_simple_book, assert_simple_trade
from upbit_backbone.exchanges.upbit.decode import (
    StreamFormat,
    decode_candles,
    decode_markets,
    decode_message,
    decode_orderbooks,
    decode_tickers,
    decode_trades,
)
from upbit_backbone.exchanges.upbit.wire import TradeWire
from upbit_backbone.models import CandleSeries, Timeframe

FILES = sorted(
    path.relative_to(PAYLOADS).as_posix()
    for path in PAYLOADS.rglob("*")
    if path.is_file() and path.name != "README.md"
)
UNITS = {
    "candles_seconds": "1s",
    "candles_minutes_1": "1m",
    "candles_minutes_3": "3m",
    "candles_minutes_60": "1h",
    "candles_days": "1d",
    "candles_weeks": "1w",
}


class CandleFile(NamedTuple):
    """What the README says of a candle file."""

    unit: str
    rows: int
    first: str
    last: str
    missing: int | None = 0
    """Candles between first and last that are not there; None: nobody counted."""
    twice: int = 0
    columns: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Where open, high, low, close, volume (and value) stand in a line."""
    time_at: int = 0
    hours_ahead: int = 0
    """Of UTC: 9 where the time is Korean."""


INDEXED = (1, 2, 3, 4, 5, 6)
KOREAN = (3, 4, 5, 6, 8, 7)
CANDLE_FILES = {
    "KRW-BTC_1m_20250901_20251004.csv.gz": CandleFile(
        "1m", 47_598, "2025-09-01T00:00", "2025-10-04T01:19", 2
    ),
    "KRW-XRP_1m_20250901_20251004.csv.gz": CandleFile(
        "1m", 47_600, "2025-09-01T00:00", "2025-10-04T01:19"
    ),
    "KRW-DOGE_1m_20250901_20251004.csv.gz": CandleFile(
        "1m", 47_385, "2025-09-01T00:00", "2025-10-04T01:17", 213
    ),
    "KRW-BTC_1h_20200101_20251017.csv.gz": CandleFile(
        "1h", 50_715, "2020-01-01T00:00", "2025-10-17T05:00", 75
    ),
    "KRW-XRP_1h_20180926_20250925.csv.gz": CandleFile(
        "1h", 61_267, "2018-09-26T00:00", "2025-09-25T23:00", 101
    ),
    "KRW-LINK_1h_20220101_20250929.csv.gz": CandleFile(
        "1h", 32_773, "2022-01-01T00:00", "2025-09-29T23:00", 59
    ),
    "KRW-BTC_1m_raw_20180122_20180129.csv.gz": CandleFile(
        "1m", 10_000, "2018-01-22T14:08", "2018-01-29T12:46", 0, 1, (7, 5, 6, 9, 2, 1), 3
    ),
    "KRW-BTC_1d_20241015_20251014.csv": CandleFile(
        "1d", 365, "2024-10-15T00:00", "2025-10-14T00:00", columns=INDEXED, hours_ahead=9
    ),
    "KRW-BTT_1d_20201024_20210511.csv": CandleFile(
        "1d", 200, "2020-10-24T00:00", "2021-05-11T00:00", columns=KOREAN, time_at=2, hours_ahead=9
    ),
    "KRW-BTC_30m_20210510_20210511.csv": CandleFile(
        "30m", 30, "2021-05-10T13:30", "2021-05-11T04:00", columns=KOREAN, time_at=2, hours_ahead=9
    ),
    "KRW-MBL_1M_202101_202105.csv": CandleFile(
        "1M", 5, "2021-01-01T00:00", "2021-05-01T00:00", columns=KOREAN, time_at=2, hours_ahead=9
    ),
    "KRW-ELF_1s_20250925.csv": CandleFile(
        "1s", 6, "2025-09-25T06:01:24", "2025-09-25T06:02:04", 35, 0, (3, 4, 5, 6, 9, 8), 1
    ),
}


def read_markets(name: str) -> None:
    content = (PAYLOADS / name).read_bytes()
    assert [market.symbol for market in decode_markets(content)] == [
        row["market"] for row in values(content)
    ]


def read_candle_page(name: str) -> None:
    kind, symbol = name.removeprefix("rest/").removeprefix("doc.").split(".")[:2]
    content = (PAYLOADS / name).read_bytes()
    series, stamp_ms = decode_candles(
        content,
        symbol,
        Timeframe.parse(UNITS[kind]),
        closed_before_ms=LONG_AFTER_MS,
        simulated=False,
    )
    found = values(content)
    assert_same_candles(series, found)
    assert stamp_ms == found[0]["timestamp"]


def read_tickers(name: str) -> None:
    content = (PAYLOADS / name).read_bytes()
    for ticker, row in zip(decode_tickers(content, CONTEXT), values(content), strict=True):
        assert_same_ticker(ticker, row)


def read_books(name: str) -> None:
    content = (PAYLOADS / name).read_bytes()
    for book, row in zip(
        decode_orderbooks(content, CONTEXT, depth=30), values(content), strict=True
    ):
        assert_same_book(book, row)


def read_trades(name: str) -> None:
    content = (PAYLOADS / name).read_bytes()
    found = values(content)
    wire = msgspec.json.decode(content, type=list[TradeWire])
    assert [(row.trade_price, row.trade_volume, row.timestamp) for row in wire] == [
        (number(row["trade_price"]), number(row["trade_volume"]), row["timestamp"]) for row in found
    ]
    if "20180702" not in name:  # then there were no ids, and trades without are refused
        trades = decode_trades(content, found[0]["market"], CONTEXT)
        assert [trade.sequential_id for trade in trades] == [row["sequential_id"] for row in found]


def read_frame(name: str) -> None:
    form: StreamFormat = "SIMPLE" if ".simple." in name else "DEFAULT"
    content = (PAYLOADS / name).read_bytes()
    row = values(content)
    decoded = decode_message(content, form, CONTEXT, closed_before_ms=LONG_AFTER_MS)
    assert decoded is not None
    value: Any = decoded.value
    if form == "SIMPLE":
        (assert_simple_trade if row["ty"] == "trade" else assert_simple_book)(value, row)
    elif row["type"] == "ticker":
        assert_same_ticker(value, row | {"market": row["code"]})
    elif row["type"] == "orderbook":
        assert_same_book(value, row)
    elif row["type"] == "candle.1s":
        assert_same_candles(value, [row])
        assert value.symbol == row["code"]
    else:
        assert (value.symbol, value.price) == (row["code"], number(row["trade_price"]))


def read_capture(name: str) -> None:
    lines = [json.loads(line) for line in text_of(PAYLOADS / name).splitlines()]
    assert [line["dir"] for line in lines] == ["out"] + ["in"] * (len(lines) - 1)
    for frame in captured_frames():
        row = values(frame)
        decoded = decode_message(frame.encode(), "SIMPLE", CONTEXT, closed_before_ms=LONG_AFTER_MS)
        assert decoded is not None
        value: Any = decoded.value
        (assert_simple_trade if row["ty"] == "trade" else assert_simple_book)(value, row)


def read_candle_file(name: str) -> None:
    expected = CANDLE_FILES[name.removeprefix("candles/")]
    path = PAYLOADS / name
    symbol = path.name.split("_")[0]
    timeframe = Timeframe.parse(expected.unit)
    decoded = [
        decode_candles(page, symbol, timeframe, closed_before_ms=LONG_AFTER_MS, simulated=False)
        for page in pages(symbol, path)
    ]
    series = [page for page, _ in decoded]
    times = np.concatenate([page.time for page in series]).tolist()
    lines = text_of(path).split("\n")[1:]
    assert len([line for line in lines if line]) == expected.rows == len(times) + expected.twice
    assert [_utc(times[0]), _utc(times[-1])] == [
        datetime.fromisoformat(text) for text in (expected.first, expected.last)
    ]
    assert all(timeframe.floor_ms(time) == time for time in times)
    if expected.unit != "1M":
        length_ms = timeframe.next_ms(0)
        assert (times[-1] - times[0]) // length_ms + 1 - len(times) == expected.missing
    assert _numbers(series, len(expected.columns)) == _lines(lines, expected)
    assert all((page.high >= page.low).all() and (page.volume > 0).all() for page in series)


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1_000, UTC).replace(tzinfo=None)


def _numbers(series: list[CandleSeries], count: int) -> dict[int, tuple[float, ...]]:
    """The first `count` numbers of each candle, by its time."""
    names = ("time", "open", "high", "low", "close", "volume", "value")[: count + 1]
    return {
        time: tuple(numbers)
        for page in series
        for time, *numbers in zip(*(getattr(page, name).tolist() for name in names), strict=True)
    }


def _lines(lines: list[str], file: CandleFile) -> dict[int, tuple[float, ...]]:
    """The same of the file, by position, rounded from the exact decimal."""
    cells = [line.rstrip("\r").split(",") for line in lines if line]
    # To the second: a zone may follow, which is UTC in the only file that has one.
    times = np.array([line[file.time_at][:19] for line in cells], "datetime64[ms]")
    utc = (times - np.timedelta64(file.hours_ahead, "h")).astype(np.int64).tolist()
    return {
        time: tuple(float(Decimal(line[column])) for column in file.columns)
        for time, line in zip(utc, cells, strict=True)
    }


READERS: tuple[tuple[str, Callable[[str], None]], ...] = (
    (r"market_all\.json", read_markets),
    (r"rest/(doc\.)?candles_.*\.json", read_candle_page),
    (r"rest/(doc\.)?ticker\..*\.json", read_tickers),
    (r"rest/(doc\.)?orderbook[._].*\.json", read_books),
    (r"rest/(doc\.)?trades_ticks\..*\.json", read_trades),
    (r"ws/.*\.json", read_frame),
    (r"ws/.*\.jsonl\.gz", read_capture),
    (r"candles/.*\.csv(\.gz)?", read_candle_file),
)


@pytest.mark.parametrize("name", FILES)
def test_each_recording_has_a_reader_that_finds_every_value(name: str) -> None:
    reader = next((read for pattern, read in READERS if re.fullmatch(pattern, name)), None)
    assert reader is not None, f"nobody reads {name}: give it a reader"
    reader(name)


def test_the_rows_of_a_file_are_in_order_and_a_repeated_one_is_kept_once() -> None:
    found = rows(PAYLOADS / "candles" / "KRW-BTC_1m_raw_20180122_20180129.csv.gz")
    starts = [row.start for row in found]
    assert starts == sorted(set(starts))
    repeated = starts.index(datetime(2018, 1, 29, 9, 27))
    assert starts[repeated + 1] - starts[repeated] == timedelta(minutes=1)
