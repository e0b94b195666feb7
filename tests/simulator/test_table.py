from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.worlds import RECORDED, listings, rows, table
from upbit_backbone.simulator.shapes import Shape, shape_rows
from upbit_backbone.simulator.table import (
    MINUTES_PER_DAY,
    BuildCancelledError,
    MinuteRows,
    Table,
)

SHAPES = sorted({listing.table for listing in listings().values()} - set(RECORDED))
SOME_SHAPES = [Shape(40, 360, 0), Shape(160, 60, 0), Shape(8, 2, 1), Shape(40_960, 8, 0)]


class Minute(NamedTuple):
    """One row of a table, as drawn by hypothesis."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int


@st.composite
def minutes(draw: st.DrawFn) -> Minute:
    low = draw(st.integers(1, 10**6))
    high = low + draw(st.sampled_from([0, 1, 2, 30, 5_000]))
    opened, closed = draw(st.integers(low, high)), draw(st.integers(low, high))
    # At least as many units as the trades it takes to touch all four prices.
    volume = draw(st.integers(4, 10**15) | st.integers(4, 70))
    return Minute(opened, high, low, closed, volume, draw(st.integers(0, 200)))


def table_of(drawn: list[Minute], *, grid: int = 1) -> tuple[Table, MinuteRows]:
    columns = np.zeros((6, MINUTES_PER_DAY), np.int64)
    columns[:, : len(drawn)] = np.array(drawn).T
    day = MinuteRows(*columns)
    return Table(7, day, grid=grid), day


def disagreements(table: Table, rows: MinuteRows) -> list[int]:
    """Minutes whose trades do not give back their row."""
    wrong: list[int] = []
    for start in range(0, table.live, 2_048):
        positions = np.arange(start, min(start + 2_048, table.live))
        block = table.trades(positions)
        minute = table.minute[positions]
        lines, last = np.arange(len(positions)), block.used - 1
        used = np.arange(block.price.shape[1]) < block.used[:, None]
        offsets = np.where(used, block.offset_ms, 60_000)
        right = (
            (block.price[:, 0] == rows.open[minute])
            & (block.price[lines, last] == rows.close[minute])
            & (np.where(used, block.price, -1).max(axis=1) == rows.high[minute])
            & (np.where(used, block.price, 1 << 40).min(axis=1) == rows.low[minute])
            & (block.volume.sum(axis=1) == rows.volume[minute])
            & (np.where(used, block.volume, 1).min(axis=1) >= 1)
            & (np.diff(offsets, axis=1, prepend=0) >= 0).all(axis=1)
            & (np.where(used, offsets, 0).max(axis=1) < 60_000)
            & (table.last_offsets(positions) == block.offset_ms[lines, last])
        )
        wrong += minute[~right].tolist()
    return wrong


@pytest.mark.parametrize("symbol", RECORDED)
@pytest.mark.parametrize("as_recorded", [False, True])
def test_in_every_minute_of_a_recording_the_trades_give_back_the_row(
    symbol: str, as_recorded: bool
) -> None:
    recorded = table(symbol, as_recorded=as_recorded)
    assert recorded.size == (34 if as_recorded else 28) * MINUTES_PER_DAY
    assert recorded.live == np.count_nonzero(rows(symbol, as_recorded=as_recorded).volume)
    assert disagreements(recorded, rows(symbol, as_recorded=as_recorded)) == []


@pytest.mark.parametrize("shape", SOME_SHAPES, ids=str)
def test_in_every_minute_of_a_shape_the_trades_give_back_the_row(shape: Shape) -> None:
    assert disagreements(table(shape), rows(shape)) == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_every_minute_of_every_shape_the_trades_give_back_the_row(shape: Shape) -> None:
    assert disagreements(table(shape), rows(shape)) == []


@given(drawn=st.lists(minutes(), min_size=1, max_size=20), grid=st.sampled_from([1, 10]))
def test_any_row_that_can_be_traded_is_split_exactly(drawn: list[Minute], grid: int) -> None:
    day, minute_rows = table_of(drawn, grid=grid)
    assert disagreements(day, minute_rows) == []


@settings(max_examples=40)
@given(drawn=st.lists(minutes(), min_size=2, max_size=20))
def test_sums_are_those_of_the_trades(drawn: list[Minute]) -> None:
    day, _ = table_of(drawn)
    block = day.trades(np.arange(len(drawn)))
    volume = value = sold = 0
    for line, used in enumerate(block.used.tolist()):
        assert day.totals(line) == (volume, value, sold)
        for slot in range(used):
            traded = int(block.volume[line, slot])
            volume += traded
            value += int(block.price[line, slot]) * traded
            sold += 0 if block.taker_buys[line, slot] else traded
    assert day.totals(len(drawn)) == (volume, value, sold)


def test_a_minute_has_the_same_trades_whoever_is_asked_with_it() -> None:
    btc = table("KRW-BTC")
    together = btc.trades(np.arange(100))
    alone = btc.trades(np.array([57]))
    used = int(alone.used[0])
    for ours, theirs in zip(alone[1:], together[1:], strict=True):
        assert ours[0, :used].tolist() == theirs[57, :used].tolist()


def test_prices_between_those_of_a_row_lie_on_the_grid() -> None:
    doge = table("KRW-DOGE")
    positions = np.arange(20_000)
    block = doge.trades(positions)
    extremes = np.stack([doge.open, doge.high, doge.low, doge.close])[:, positions].T
    on_grid = (block.price % 10 == 0) | (block.price[:, :, None] == extremes[:, None, :]).any(2)
    used = np.arange(block.price.shape[1]) < block.used[:, None]
    assert on_grid[used].all()


def test_the_taker_buys_where_the_price_rises_and_sells_where_it_falls() -> None:
    block = table("KRW-BTC").trades(np.arange(500))
    used = np.arange(1, block.price.shape[1]) < block.used[:, None]
    change = np.diff(block.price, axis=1)
    assert block.taker_buys[:, 1:][used & (change > 0)].all()
    assert not block.taker_buys[:, 1:][used & (change < 0)].any()


def test_krw_btc_trades_about_43_times_a_minute() -> None:
    btc = table("KRW-BTC")
    assert 40 < btc.trade_count / btc.live < 47


def test_buckets_hold_the_minutes_in_which_somebody_traded() -> None:
    doge, minute_rows = table("KRW-DOGE"), rows("KRW-DOGE")
    buckets = doge.buckets(5)
    by_five = minute_rows.volume.reshape(-1, 5)
    assert buckets.number.tolist() == np.flatnonzero(by_five.sum(axis=1)).tolist()
    traded = np.where(minute_rows.volume > 0, minute_rows.high, -1).reshape(-1, 5).max(axis=1)
    assert buckets.high.tolist() == traded[buckets.number].tolist()


def test_a_build_that_nobody_wants_any_more_ends_between_two_chunks() -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(len(asked))
        return len(asked) > 3

    with pytest.raises(BuildCancelledError):
        Table(1, rows("KRW-BTC"), cancelled=cancelled)
    assert len(asked) == 4


@pytest.mark.parametrize("shape", SOME_SHAPES, ids=str)
def test_a_shape_fills_its_span_and_ends_where_it_begins(shape: Shape) -> None:
    drawn = table(shape)
    assert drawn.low.min() <= shape.span // 10
    assert drawn.high.max() >= shape.span - shape.span // 10
    assert abs(int(drawn.open[0]) - int(drawn.close[-1])) <= max(1, shape.span // 20)
    per_hour = drawn.trade_count / (drawn.size / 60)
    assert 0.7 * shape.trades_per_hour < per_hour < 1.3 * shape.trades_per_hour


def test_another_seed_is_another_market() -> None:
    shape = SOME_SHAPES[0]
    assert shape_rows(1, shape).close.tolist() != shape_rows(2, shape).close.tolist()
    assert shape_rows(1, shape).close.tolist() == shape_rows(1, shape).close.tolist()


@pytest.mark.parametrize("symbol", RECORDED)
def test_the_last_day_of_a_tile_leads_back_to_its_first_price(symbol: str) -> None:
    tile, whole = rows(symbol), rows(symbol, as_recorded=True)
    straight = 27 * MINUTES_PER_DAY
    for name in ("open", "high", "low", "close", "volume"):
        assert np.array_equal(getattr(tile, name)[:straight], getattr(whole, name)[:straight])
    traded = np.flatnonzero(tile.volume)
    assert tile.close[traded[-1]] == tile.open[traded[0]]
    # A minute's shape stays: its four prices move by the same whole number of ticks.
    bent = traded[traded >= straight]
    grid = {"KRW-DOGE": 10}.get(symbol, 1)
    moved = [
        getattr(tile, n)[bent] - getattr(whole, n)[bent] for n in ("open", "high", "low", "close")
    ]
    assert all(np.array_equal(moved[0], other) for other in moved)
    assert not (moved[0] % grid).any()
    # … and by about the same from minute to minute: no crash, a slope.
    steps = np.abs(np.diff(moved[0], prepend=0))
    assert steps.max() <= abs(int(moved[0][-1])) / MINUTES_PER_DAY + grid
