"""The recorded prices of each era lie on the grid of their date; where they do not, it is said.

Exceptions are named one by one, so that a wrong table cannot hide behind them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import pytest

from tests.exchanges.candle_files import rows
from tests.exchanges.recordings import PAYLOADS, body, values
from upbit_backbone.price import tick_size

CANDLE_FILES = sorted(path.name for path in (PAYLOADS / "candles").iterdir())
LAST_OF_COARSE_WON = datetime(2024, 1, 28, 15, 59, tzinfo=UTC)
FIRST_OF_FINER_WON = datetime(2024, 1, 28, 16, tzinfo=UTC)
LAST_OF_FINER_WON = datetime(2025, 7, 30, 14, 59, tzinfo=UTC)


class Price(NamedTuple):
    symbol: str
    at: datetime
    price: Decimal


def off_grid(prices: Iterable[Price]) -> list[Price]:
    """The prices that are no multiple of their tick; 0 pads the shorter side of a book."""
    return [
        one
        for one in dict.fromkeys(prices)
        if one.price % tick_size(one.symbol, float(one.price), one.at)
    ]


def at_ms(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1_000, UTC)


def candle_prices(name: str, *, to_the_hour: bool = True) -> list[Price]:
    """Each price of a candle file once an hour; every table so far began on a whole hour."""
    symbol = name.split("_")[0]
    found: dict[tuple[datetime, str], None] = {}
    for row in rows(PAYLOADS / "candles" / name):
        at = row.start.replace(minute=0, second=0) if to_the_hour else row.start
        found.update(dict.fromkeys((at, price) for price in row.prices))
    return [Price(symbol, at.replace(tzinfo=UTC), Decimal(text)) for at, text in found]


def row_prices(name: str) -> list[Price]:
    """Of a recorded REST body or frame: prices of trades, not averages or changes."""
    content = values(body(name))
    names = {
        "opening_price",
        "high_price",
        "low_price",
        "trade_price",
        "prev_closing_price",
        "best_ask_price",
        "best_bid_price",
        "ask_price",
        "bid_price",
    }
    found = []
    for row in content if isinstance(content, list) else [content]:
        symbol = row.get("market") or row["code"]
        ms = row["timestamp"] if row["timestamp"] < 10**14 else row["timestamp"] // 1_000
        for one in (row, *row.get("orderbook_units", [])):
            found += [Price(symbol, at_ms(ms), Decimal(one[field])) for field in names & one.keys()]
    return found


# Sell orders of before July 2025 that waited for these heights: tenths of a won were on the
# grid when they were placed.
RESTING = {"KRW-DOGE_1m_20250901_20251004.csv.gz"}


@pytest.mark.parametrize("name", sorted(set(CANDLE_FILES) - RESTING))
def test_the_prices_of_a_candle_file_lie_on_the_grid_of_their_day(name: str) -> None:
    prices = candle_prices(name)
    assert prices
    assert off_grid(prices) == []


@pytest.mark.parametrize("name", sorted(RESTING))
def test_orders_of_an_older_table_are_filled_when_the_price_first_reaches_them(name: str) -> None:
    prices = candle_prices(name, to_the_hour=False)
    off = off_grid(prices)
    assert (len(off), off[0].at, off[-1].at) == (
        29,
        datetime(2025, 9, 11, 3, 25, tzinfo=UTC),
        datetime(2025, 9, 13, 13, 20, tzinfo=UTC),
    )
    # Each is on the grid of the table before, and higher than all before its minute.
    assert off_grid([one._replace(at=LAST_OF_FINER_WON) for one in off]) == []
    highest, reached = Decimal(), dict[datetime, Decimal]()
    for one in prices:
        reached.setdefault(one.at, highest)
        highest = max(highest, one.price)
    filled = [
        one for index, one in enumerate(off) if one.price not in {o.price for o in off[:index]}
    ]
    assert all(one.price > reached[one.at] for one in filled)


def test_tenths_of_a_won_of_xrp_begin_with_the_table_of_january_2024() -> None:
    prices = candle_prices("KRW-XRP_1h_20180926_20250925.csv.gz")
    tenths = [one.at for one in prices if 100 <= one.price < 1_000 and one.price % 1]
    ones = [one.at for one in prices if 1_000 <= one.price < 10_000 and one.price % 5]
    assert min(tenths) == datetime(2024, 1, 28, 16, tzinfo=UTC)
    assert min(ones) == datetime(2024, 3, 11, 16, tzinfo=UTC)
    later = [one for one in prices if one.at >= FIRST_OF_FINER_WON]
    # Judged by the table before, thousands of them would be off the grid.
    wrong = off_grid([one._replace(at=LAST_OF_COARSE_WON) for one in later])
    assert len(wrong) > 1_000


def recorded_rows() -> list[str]:
    return sorted(
        path.relative_to(PAYLOADS).as_posix()
        for folder in ("rest", "ws")
        for path in (PAYLOADS / folder).glob("*.json")
        if ".simple." not in path.name
    )


# The dollar market had a tick of 0.001 by the documents, yet its books held eight decimals:
# they were shared with Upbit's other countries (upbit-api, sections 1 and 3).
SHARED_BOOKS = {
    "rest/candles_minutes_60.USDT-BTC.20240313.json",
    "rest/ticker.USDT-BTC.20240313.json",
    "rest/trades_ticks.USDT-BTC.20240313.json",
    "ws/sample.default.orderbook.USDT-ETC.20230808.json",
}


@pytest.mark.parametrize("name", recorded_rows())
def test_the_prices_of_a_body_or_frame_lie_on_the_grid_of_their_moment(name: str) -> None:
    prices = row_prices(name)
    assert prices
    off = off_grid(prices)
    if name in SHARED_BOOKS:
        assert off
        assert all(one.price % Decimal("0.00000001") == 0 for one in prices)
    else:
        assert off == []


def test_the_capture_of_2021_lies_on_the_grid() -> None:
    path = PAYLOADS / "ws" / "ws_simple_trade_orderbook.20210405.jsonl.gz"
    prices = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = values(json.loads(line)["raw"])
            if isinstance(row, list):  # the request
                continue
            levels = [row[key] for key in ("tp", "pcp") if key in row]
            levels += [unit[side] for unit in row.get("obu", []) for side in ("ap", "bp")]
            prices += [Price(row["cd"], at_ms(row["tms"]), Decimal(price)) for price in levels]
    assert {one.symbol.partition("-")[0] for one in prices} == {"KRW", "BTC"}
    assert len(prices) > 30_000
    assert off_grid(prices) == []
