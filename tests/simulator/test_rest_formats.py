"""How numbers are written, per endpoint: the text on the wire, not its value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.manual_clock import ManualClock
from tests.simulator.worlds import ms
from upbit_backbone.simulator import Simulator

POINT = r"-?\d+\.\d+"
"""Whole numbers end with ``.0``: the samples of January 2026."""
SHORT = r"-?\d+(\.\d*[1-9])?"
"""No needless ``.0``: second candles in the samples of 2025-06-30 and January 2026."""
EIGHT = r"\d+\.\d{8}|0\.0"
"""Sizes of order books: ``0.04120000`` in the sample of January 2026."""
INTEGER = r"\d+"
INTEGERS = ("timestamp", "trade_timestamp", "sequential_id", "unit")
MARKETS = ("KRW-BTC", "KRW-DOGE", "KRW-SIM003", "BTC-SC", "USDT-BTC")


class Written(str):
    """The text of a number."""


def numbers(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts of all numbers of a row."""
    for name, value in row.items():
        if isinstance(value, Written):
            yield name, value
        for inner in value if isinstance(value, list) else ():
            yield from numbers(inner)


async def rows_as_written(
    simulator: Simulator, clock: ManualClock, call: str
) -> list[dict[str, Any]]:
    clock.set_wall(ms("2026-03-04T05:06:30"))
    async with (
        aiohttp.ClientSession() as session,
        session.get(simulator.rest_url + call) as response,
    ):
        rows: list[dict[str, Any]] = json.loads(
            await response.text(), parse_float=Written, parse_int=Written
        )
        return rows


FORMS = [
    ("/candles/seconds?count=50&market=", SHORT),
    ("/candles/minutes/1?count=50&market=", POINT),
    ("/candles/minutes/240?count=50&market=", POINT),
    ("/candles/days?count=50&converting_price_unit=KRW&market=", POINT),
    ("/candles/weeks?count=50&market=", POINT),
    ("/candles/months?count=50&market=", POINT),
    ("/candles/years?count=50&market=", POINT),
    ("/trades/ticks?count=50&days_ago=1&market=", POINT),
    ("/ticker?markets=", POINT),
]


async def test_numbers_are_decimals_without_an_exponent(
    simulator: Simulator, clock: ManualClock
) -> None:
    for call, form in FORMS:
        clock.advance(1)
        for symbol in MARKETS:
            for row in await rows_as_written(simulator, clock, call + symbol):
                written = dict(numbers(row))
                assert len(written) >= 6
                for name, text in written.items():
                    expected = INTEGER if name in INTEGERS else form
                    assert re.fullmatch(expected, text), (symbol, name, text)


async def test_sizes_of_a_book_have_eight_decimals(
    simulator: Simulator, clock: ManualClock
) -> None:
    for symbol in MARKETS:
        (row,) = await rows_as_written(simulator, clock, f"/orderbook?markets={symbol}")
        for name, text in numbers(row):
            form = {"timestamp": INTEGER, "level": "0"}.get(name)
            expected = form or (EIGHT if name.endswith("_size") else POINT)
            assert re.fullmatch(expected, text), (symbol, name, text)


@pytest.mark.parametrize(("symbol", "level"), [("KRW-BTC", "10000"), ("KRW-SC", "0.01")])
async def test_the_level_of_a_book_is_a_number(
    simulator: Simulator, clock: ManualClock, symbol: str, level: str
) -> None:
    call = f"/orderbook?markets={symbol}&level={level}"
    (row,) = await rows_as_written(simulator, clock, call)
    assert isinstance(row["level"], Written)
    assert row["level"] == level


async def test_instruments_are_texts_and_deprecated_levels_numbers(
    simulator: Simulator, clock: ManualClock
) -> None:
    (row,) = await rows_as_written(simulator, clock, "/orderbook/instruments?markets=KRW-SC")
    assert not isinstance(row["tick_size"], Written)
    assert not any(isinstance(level, Written) for level in row["supported_levels"])
    old = "/orderbook/supported_levels?markets=KRW-SC"
    (deprecated,) = await rows_as_written(simulator, clock, old)
    assert all(isinstance(level, Written) for level in deprecated["supported_levels"])
    assert deprecated["supported_levels"] == row["supported_levels"]


async def test_bids_come_before_asks(simulator: Simulator, clock: ManualClock) -> None:
    (row,) = await rows_as_written(simulator, clock, "/orderbook?markets=KRW-BTC")
    assert list(row["orderbook_units"][0]) == ["bid_price", "ask_price", "bid_size", "ask_size"]


async def test_candles_name_their_times_without_a_zone(
    simulator: Simulator, clock: ManualClock
) -> None:
    for call in ("/candles/seconds", "/candles/minutes/5", "/candles/years"):
        for row in await rows_as_written(simulator, clock, f"{call}?market=KRW-BTC&count=9"):
            for name in ("candle_date_time_utc", "candle_date_time_kst"):
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", row[name])


async def test_dates_of_trades_and_tickers_are_written_differently(
    simulator: Simulator, clock: ManualClock
) -> None:
    trades = await rows_as_written(simulator, clock, "/trades/ticks?market=KRW-BTC&count=9")
    for row in trades:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["trade_date_utc"])
        assert re.fullmatch(r"\d\d:\d\d:\d\d", row["trade_time_utc"])
    (ticker,) = await rows_as_written(simulator, clock, "/ticker?markets=KRW-BTC")
    assert re.fullmatch(r"\d{8}", ticker["trade_date"])
    assert re.fullmatch(r"\d{6}", ticker["trade_time"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", ticker["highest_52_week_date"])
