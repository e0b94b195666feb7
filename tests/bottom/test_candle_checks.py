"""An answer that cannot be right is refused, with the row that shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.manual_clock import AUTUMN_2025_MS
from tests.storage.fake_exchange import SYMBOL, series_of
from upbit_backbone.candle_checks import check_page, check_series
from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import CandleSeries, Timeframe

M = MINUTE_MS
NOON = AUTUMN_2025_MS + DAY_MS // 2


def check(
    series: CandleSeries,
    symbol: str = SYMBOL,
    timeframe: Timeframe = Timeframe.M1,
    end_ms: int | None = NOON,
) -> None:
    """Check a page of five rows before noon."""
    check_page(series, symbol=symbol, timeframe=timeframe, rows=5, end_ms=end_ms)


def with_column(series: CandleSeries, name: str, index: int, value: float) -> CandleSeries:
    columns: list[Any] = [np.array(getattr(series, column)) for column in CandleSeries.COLUMNS]
    columns[CandleSeries.COLUMNS.index(name)][index] = value
    return CandleSeries(SYMBOL, series.timeframe, columns, source="rest", simulated=False)


def page(*minutes: int) -> CandleSeries:
    return series_of(Timeframe.M1, [NOON + n * M for n in minutes], NOON + DAY_MS)


def test_what_was_asked_for_is_let_through() -> None:
    check(page(-5, -4, -2))
    check(page())
    check(page(-90, -3))
    check(page(-1, 0), end_ms=None)
    for timeframe in Timeframe:
        end_ms = timeframe.floor_ms(NOON)
        opens = [timeframe.back_ms(end_ms, n) for n in range(1, 6)]
        series = series_of(timeframe, opens, NOON)
        check(series, timeframe=timeframe, end_ms=end_ms)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("high", 1.0, "row 2 has prices outside of its low and high: 2025-09-15T11:57:00Z open"),
        ("low", 1e9, "row 2 has prices outside"),
        ("low", 0.0, "row 2 has prices outside"),
        ("close", float("nan"), "row 2 has prices outside"),
        ("high", float("inf"), "row 2 has prices outside"),
        ("volume", -1.0, "row 2 has an amount below zero"),
        ("value", float("nan"), "row 2 has an amount below zero"),
        ("value", float("inf"), "row 2 has an amount below zero or without end"),
        ("time", NOON - 3 * M + SECOND_MS, "row 2 is off the grid of 1m: 2025-09-15T11:57:01Z"),
        ("time", NOON - 4 * M, "row 2 does not ascend"),
        ("time", NOON - 9 * M, "row 2 does not ascend"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(name: str, value: float, sentence: str) -> None:
    broken = with_column(page(-5, -4, -3, -2, -1), name, 2, value)
    with pytest.raises(ProtocolError) as caught:
        check(broken)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("candles of KRW-BTC 1m before 2025-09-15T12:00:00Z: row")


def test_a_page_of_something_else_is_refused() -> None:
    with pytest.raises(ProtocolError, match="5 rows were asked for, 6 came"):
        check(page(*range(-6, 0)))
    with pytest.raises(ProtocolError, match="the answer has KRW-BTC 1m"):
        check(page(-1), "KRW-ETH")
    with pytest.raises(ProtocolError, match="the newest row lies at or after that time: 2025-"):
        check(page(-1, 0))


@pytest.mark.parametrize("timeframe", [Timeframe.W1, Timeframe.MO1, Timeframe.Y1])
def test_the_grid_of_the_calendar_is_known(timeframe: Timeframe) -> None:
    open_ms = timeframe.floor_ms(NOON)
    series = series_of(timeframe, [open_ms], NOON)
    check_series(series, "candles")
    with pytest.raises(ProtocolError, match="off the grid"):
        check_series(with_column(series, "time", 0, open_ms + DAY_MS), "candles")
