"""The recorded socket through router and store: the order in which trades came changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.eventually import eventually
from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock
from tests.routing.test_candle_builder import at_ms, by_grouping, recorded_trades
from tests.storage.opening import opened, rows_in
from upbit_backbone.clock import MINUTE_MS, SECOND_MS, epoch_ms
from upbit_backbone.models import CLOSE_GRACE_MS, Candle, Timeframe, Trade
from upbit_backbone.protocol import BackboneRequest, DataType, Priority, Subscription
from upbit_backbone.routing import candle_feed
from upbit_backbone.routing.router import Router
from upbit_backbone.storage.candle_tables import SeriesKey

LOOK_S = 0.004
TIMEFRAMES = (Timeframe.S1, Timeframe.M1)
Arrivals = list[tuple[int, Trade]]
Rows = dict[SeriesKey, dict[int, tuple[float, ...]]]


def recorded() -> Arrivals:
    """(arrival, trade) of the five busiest symbols, as they came: 661 of 672 trades."""
    busiest = sorted(recorded_trades().items(), key=lambda one: -len(one[1]))[:5]
    arrivals = [
        (arrived_ms, msgspec.structs.replace(trade, symbol=symbol))
        for symbol, trades in busiest
        for arrived_ms, trade in trades
    ]
    assert len(arrivals) == 661
    return sorted(arrivals, key=lambda arrival: arrival[0])


async def collect(reader: Subscription, told: dict[int, list[Candle]]) -> None:
    async for candle in reader:
        told.setdefault(epoch_ms(candle.open_time), []).append(candle)


async def lived_through(folder: Path, arrivals: Arrivals) -> tuple[Rows, Rows, list[Candle]]:
    """What is stored, what readers saw last, and all they saw, when trades come so."""
    begins_ms = Timeframe.M1.floor_ms(min(at_ms(trade) for _, trade in arrivals))
    ends_ms = Timeframe.M1.ceil_ms(max(arrived_ms for arrived_ms, _ in arrivals))
    clock = SteeredClock(begins_ms - SECOND_MS)
    exchange = FakeExchange(clock)
    exchange.listed = sorted({trade.symbol for _, trade in arrivals})
    for symbol in exchange.listed:
        exchange.trade(symbol, at_ms=begins_ms - 2 * MINUTE_MS)
    router = Router(exchange, clock=clock, rng=Impatient(), critical_reserve=2)
    await router.start()
    told: dict[SeriesKey, dict[int, list[Candle]]] = {}
    keys = [SeriesKey(symbol, one) for symbol in exchange.listed for one in TIMEFRAMES]
    try:
        async with opened(folder, router, clock) as storage, asyncio.TaskGroup() as readers:
            subscriptions = []
            for key in keys:
                request = BackboneRequest(
                    DataType.CANDLE,
                    (key.symbol,),
                    key.timeframe,
                    priority=Priority.CRITICAL,  # ten may ask at once
                    policy="all",
                )
                subscriptions.append(storage.subscribe(request))
                seen: dict[int, list[Candle]] = told.setdefault(key, {})
                readers.create_task(collect(subscriptions[-1], seen))
            await eventually(lambda: all(one.state == "confirmed" for one in subscriptions))
            for arrived_ms, trade in arrivals:
                if arrived_ms // 500 > clock.wall_ms // 500:
                    # Candles close meanwhile.
                    clock.wall_ms = arrived_ms
                    await asyncio.sleep(3 * LOOK_S)
                clock.wall_ms = max(clock.wall_ms, arrived_ms)
                exchange.executed.setdefault(trade.symbol, []).append(trade)
                exchange._stream(trade)
            await asyncio.sleep(3 * LOOK_S)
            clock.wall_ms = ends_ms + CLOSE_GRACE_MS
            proved = [storage._known(key).proved for key in keys]
            await eventually(lambda: not any(one.missing(begins_ms, ends_ms) for one in proved))
            await storage._database.write(lambda sql: None)
            for one in subscriptions:
                one.close()
    finally:
        await router.stop()
    stored: Rows = {
        key: {int(row[0]): row[1:] for row in rows_in(folder, key.table)} for key in keys
    }
    last: Rows = {key: {at: columns(told[key][at][-1]) for at in told[key]} for key in keys}
    return stored, last, [one for seen in told.values() for many in seen.values() for one in many]


def columns(candle: Candle) -> tuple[float, ...]:
    assert candle.closed
    return (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.value)


def about(rows: dict[int, tuple[float, ...]]) -> dict[int, Any]:
    """The same, but for the order in which volumes were added."""
    return {
        at: (*prices, pytest.approx(volume, rel=1e-9), pytest.approx(value, rel=1e-9))
        for at, (*prices, volume, value) in rows.items()
    }


async def test_the_recorded_socket_gives_the_same_candles_as_it_came_and_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_feed, "LOOK_AGAIN_S", LOOK_S)
    as_it_came = recorded()
    in_order = [
        (at_ms(trade), trade) for _, trade in sorted(as_it_came, key=lambda one: at_ms(one[1]))
    ]
    assert [trade for _, trade in as_it_came] != [trade for _, trade in in_order]
    stored, seen, all_seen = await lived_through(tmp_path / "came", as_it_came)
    ordered, ordered_seen, _ = await lived_through(tmp_path / "sorted", in_order)
    # Trades came up to 2.4 s after they were executed, so that some candles were closed.
    assert any(one.state == "revised" for one in all_seen)
    for key, rows in stored.items():
        trades = [trade for _, trade in as_it_came if trade.symbol == key.symbol]
        truth = about(by_grouping(trades, key.timeframe))
        assert rows == truth, key
        assert ordered[key] == truth
        assert seen[key] == truth
        assert ordered_seen[key] == truth
    minutes = {key for key in stored if key.timeframe is Timeframe.M1}
    assert sum(len(stored[key]) for key in minutes) > len(minutes)
