"""The recorded candle files, each layout made what REST would have sent.

The numbers stay the text that stands in the file, so that nothing is rounded on the way to
the decoder.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

KOREA = timedelta(hours=9)

# The column of a layout that holds a field of REST; `None`: the layout has no such column.
Layout = dict[str, str | None]
_CCXT: Layout = {
    "candle_date_time_utc": "timestamp",
    "opening_price": "open",
    "high_price": "high",
    "low_price": "low",
    "trade_price": "close",
    "candle_acc_trade_volume": "volume",
    "candle_acc_trade_price": None,
}
_INDEXED: Layout = _CCXT | {
    "candle_date_time_utc": None,
    "candle_date_time_kst": "",
    "candle_acc_trade_price": "value",
}
_KOREAN: Layout = {
    "candle_date_time_kst": "캔들기준시간(KST 기준)",
    "opening_price": "시가",
    "high_price": "고가",
    "low_price": "저가",
    "trade_price": "중가",
    "candle_acc_trade_volume": "누적거래량",
    "candle_acc_trade_price": "누적거래금액",
}
_REST: Layout = {name: name for name in (*_KOREAN, "candle_date_time_utc")}
_CRIX: Layout = {
    "candle_date_time_utc": "candleDateTime",
    "candle_date_time_kst": "candleDateTimeKst",
    "opening_price": "openingPrice",
    "high_price": "highPrice",
    "low_price": "lowPrice",
    "trade_price": "tradePrice",
    "candle_acc_trade_volume": "candleAccTradeVolume",
    "candle_acc_trade_price": "candleAccTradePrice",
}
_LAYOUTS = (_REST, _CRIX, _KOREAN, _INDEXED, _CCXT)


class Row(NamedTuple):
    """A candle as text; `value` is "0" where the file has none."""

    start: datetime
    """UTC, without its zone, as REST writes it."""
    prices: tuple[str, str, str, str]
    volume: str
    value: str


def rows(path: Path) -> list[Row]:
    """All candles of a file, oldest first; a row that is there twice is kept once."""
    # One layout has a control character in the name of a column.
    table = csv.DictReader(text_of(path).replace("\x1d", "").splitlines())
    names = set(table.fieldnames or ())
    layout = next(
        layout
        for layout in _LAYOUTS
        if names >= {column for column in layout.values() if column is not None}
    )
    found = {row.start: row for row in (_row(line, layout) for line in table)}
    return [found[start] for start in sorted(found)]


def pages(market: str, path: Path) -> Iterator[bytes]:
    """The file as pages of 200 rows, newest first, as REST sends them; pages ascend."""
    everything = rows(path)
    for first in range(0, len(everything), 200):
        page = everything[first : first + 200]
        objects = ",".join(_object(market, row) for row in reversed(page))
        yield f"[{objects}]".encode()


def text_of(path: Path) -> str:
    """The text of a file, unpacked."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def _row(line: dict[str, str], layout: Layout) -> Row:
    utc = layout.get("candle_date_time_utc")
    korean = layout.get("candle_date_time_kst")
    moments = set()
    if utc is not None:
        moments.add(datetime.fromisoformat(line[utc]).replace(tzinfo=None))
    if korean is not None:
        moments.add(datetime.fromisoformat(line[korean]).replace(tzinfo=None) - KOREA)
    # A file with both has the same instant twice.
    [start] = moments
    prices = ("opening_price", "high_price", "low_price", "trade_price")
    opened, high, low, close = (line[str(layout[name])] for name in prices)
    value = layout["candle_acc_trade_price"]
    return Row(
        start,
        (opened, high, low, close),
        line[str(layout["candle_acc_trade_volume"])],
        "0" if value is None else line[value],
    )


def _object(market: str, row: Row) -> str:
    opened, high, low, close = row.prices
    return (
        f'{{"market":"{market}","candle_date_time_utc":"{row.start.isoformat()}",'
        f'"opening_price":{opened},"high_price":{high},"low_price":{low},"trade_price":{close},'
        f'"timestamp":0,"candle_acc_trade_price":{row.value},'
        f'"candle_acc_trade_volume":{row.volume}}}'
    )
