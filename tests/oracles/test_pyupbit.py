"""pyupbit at the simulator: Korea's best-known client reads what we read.

Its addresses are literals in its functions, so what it sends with (`requests.get`,
`websockets.connect`) is exchanged for one that sends here; nothing of its reading is touched.
Its index is Korean wall time without a zone, and so is its confusion: tests named for what
is wrong in it hold its answer down.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pandas as pd
import pytest
import requests
import websockets
from pyupbit import errors, quotation_api, request_api, websocket_api

from tests.bottom.time_zones import ZONES, local_zone, needs_tzset
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.oracles.conftest import NOW_MS
from tests.oracles.fast_clock import FastClock
from tests.oracles.truth import SHORT_UNITS, Truth, from_trades
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.simulator import Simulator

REAL = "https://api.upbit.com/v1"
REAL_STREAM = "wss://api.upbit.com/websocket/v1"
BUSIEST, BUSY, THIN = "KRW-BTC", "KRW-ETH", "KRW-SIM003"
MINUTE = next(unit for unit in SHORT_UNITS if unit.name == "1m")
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
# Their names of the units, and ours; seconds and years they do not know.
INTERVALS = {
    "minute1": "1m",
    "minute3": "3m",
    "minute5": "5m",
    "minute10": "10m",
    "minute15": "15m",
    "minute30": "30m",
    "minute60": "1h",
    "minute240": "4h",
    "day": "1d",
    "week": "1w",
    "month": "1M",
}
KOREA = timedelta(hours=9)
ENOUGH_TRADES = 6

Ask = Callable[..., Any]


@pytest.fixture
def ask(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Call one of its blocking functions beside the loop in which the simulator answers."""

    def get(url: str, **options: Any) -> requests.Response:
        assert url.startswith(REAL)
        with requests.Session() as session:
            session.trust_env = False  # no proxy of this machine
            return session.get(simulator.rest_url + url.removeprefix(REAL), **options)

    monkeypatch.setattr(request_api, "requests", SimpleNamespace(get=get))
    return asyncio.to_thread


def utc_ms(index: pd.DatetimeIndex) -> list[int]:
    """Its Korean wall times as UTC milliseconds."""
    return list((index - KOREA).astype("datetime64[ms]").astype(np.int64))


def assert_same_candles(frame: pd.DataFrame, series: CandleSeries) -> None:
    assert utc_ms(frame.index) == series.time.tolist()
    for name in ("open", "high", "low", "close", "volume", "value"):
        assert frame[name].tolist() == getattr(series, name).tolist(), name


def text_of(ms: int) -> str:
    """An instant as its `to` wants it: UTC, without saying so."""
    return f"{utc_datetime(ms):%Y-%m-%d %H:%M:%S}"


async def test_its_markets_are_the_simulators(ask: Ask, truth: Truth) -> None:
    rows = await truth.rows("/market/all", is_details="true")
    assert await ask(quotation_api.get_tickers) == [row["market"] for row in rows]
    assert await ask(quotation_api.get_tickers, "USDT") == [
        row["market"] for row in rows if row["market"].startswith("USDT-")
    ]
    # Sent as `isDetails`, the name of old.
    assert await ask(quotation_api.get_tickers, is_details=True) == rows


@pytest.mark.parametrize("interval", INTERVALS)
async def test_candles_of_every_interval_are_ours(
    ask: Ask, ours: UpbitAdapter, truth: Truth, interval: str
) -> None:
    to_ms = NOW_MS // SECOND_MS * SECOND_MS
    frame = await ask(quotation_api.get_ohlcv, BUSY, interval=interval, count=60, to=text_of(to_ms))
    timeframe = Timeframe.parse(INTERVALS[interval])
    series, _ = await ours.candles(BUSY, timeframe, to_ms=to_ms, count=60)
    assert len(frame) == 60
    assert_same_candles(frame, series)
    if unit := {unit.name: unit for unit in SHORT_UNITS}.get(INTERVALS[interval]):
        from_ms = unit.start_of(NOW_MS - 16 * HOUR_MS)
        candles = from_trades(await truth.trades(BUSY, from_ms, NOW_MS + 1), unit)[-60:]
        columns = [frame[name].tolist() for name in ("open", "high", "low", "close", "volume")]
        shared = candles[-min(60, len(candles)) :]
        assert list(zip(utc_ms(frame.index), *columns, strict=True))[-len(shared) :] == shared


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
async def test_more_than_200_candles_are_each_there_once_in_every_zone(
    ask: Ask, truth: Truth, zone: str
) -> None:
    """Its famous fault (issue 54: 1,000 rows, 568 different ones under TZ=UTC) is mended."""
    to_ms = NOW_MS // SECOND_MS * SECOND_MS
    with local_zone(zone):
        frame = await ask(
            quotation_api.get_ohlcv, THIN, "minute1", count=500, to=text_of(to_ms), period=0
        )
    times = utc_ms(frame.index)
    candles = from_trades(await truth.trades(THIN, times[0], NOW_MS + 1), MINUTE)
    assert len(candles) == len(set(times)) == 500
    columns = [frame[name].tolist() for name in ("open", "high", "low", "close", "volume")]
    assert list(zip(times, *columns, strict=True)) == candles


async def test_it_is_wrong_when_given_its_own_times_back(ask: Ask) -> None:
    """The oldest time of a page, as the next page's `to`, is read as UTC: nine hours late."""
    to = text_of(NOW_MS)
    page = await ask(quotation_api.get_ohlcv, BUSY, "minute1", count=60, to=to)
    again = await ask(quotation_api.get_ohlcv, BUSY, "minute1", count=60, to=page.index[0])
    assert again.index.tolist() == page.index.tolist()
    right = await ask(quotation_api.get_ohlcv, BUSY, "minute1", count=60, to=page.index[0] - KOREA)
    assert right.index[-1] < page.index[0]


async def test_it_is_wrong_about_from_which_is_korean_for_rows_and_utc_for_pages(
    ask: Ask,
) -> None:
    from_ms = NOW_MS // HOUR_MS * HOUR_MS - 2 * HOUR_MS
    frame = await ask(
        quotation_api.get_ohlcv_from, BUSY, "minute1", text_of(from_ms), text_of(NOW_MS), period=0
    )
    # In UTC nothing is cut off: the whole page comes, which began earlier.
    assert utc_ms(frame.index)[0] < from_ms - MINUTE_MS
    # With both in Korean time the end is in the future, and `to` is all that was asked for.
    nine_later = (text_of(from_ms + 9 * HOUR_MS), text_of(NOW_MS + 9 * HOUR_MS))
    korean = await ask(quotation_api.get_ohlcv_from, BUSY, "minute1", *nine_later, period=0)
    assert utc_ms(korean.index)[0] == from_ms
    # With each in the zone that it is compared in, it stops before the first page.
    mixed = (text_of(from_ms + 9 * HOUR_MS), text_of(NOW_MS))
    assert await ask(quotation_api.get_ohlcv_from, BUSY, "minute1", *mixed) is None


async def test_it_is_wrong_about_errors_which_are_none(ask: Ask) -> None:
    assert await ask(quotation_api.get_ohlcv, "KRW-NOPE", to=text_of(NOW_MS)) is None
    # Resampling with `base` left pandas in version 2: there is no answer any more.
    assert await ask(quotation_api.get_daily_ohlcv_from_base, BUSY) is None
    with pytest.raises(errors.UpbitError, match="Code not found") as caught:
        await ask(quotation_api.get_current_price, "KRW-NOPE")
    assert (caught.value.name, caught.value.code) == (404, 404)


async def test_it_is_wrong_about_a_429_which_it_reads_as_an_answer(
    ask: Ask, truth: Truth, clock: ManualClock
) -> None:
    """It knows the body `Too many API requests.`, and stumbles over it as over any other."""
    for _ in range(10):
        await ask(quotation_api.get_current_price, BUSY)
    with pytest.raises(KeyError):
        await ask(quotation_api.get_current_price, BUSY)
    assert await truth.refused() == 1
    clock.advance(1.0)
    assert await ask(quotation_api.get_current_price, BUSY) > 0


async def test_prices_and_what_is_left_of_the_limit(
    ask: Ask, ours: UpbitAdapter, truth: Truth
) -> None:
    symbols = [BUSY, THIN, "BTC-ETH", "USDT-ETH"]
    mine = {ticker.symbol: ticker.price for ticker in await ours.tickers(symbols)}
    for symbol in symbols:
        trades = await truth.trades(symbol, TODAY_MS, NOW_MS + 1)
        assert mine[symbol] == float(trades[-1]["trade_price"])
        assert await ask(quotation_api.get_current_price, symbol) == mine[symbol]
    # Sent as one `markets=` for each; the exchange reads them like a comma list.
    assert await ask(quotation_api.get_current_price, symbols) == mine
    _, left = await ask(quotation_api.get_current_price, BUSY, limit_info=True)
    assert left == {"group": "ticker", "min": 600, "sec": 3}
    [row], _ = await ask(quotation_api.get_current_price, BUSY, limit_info=True, verbose=True)
    [bare] = await truth.rows("/ticker", markets=BUSY)
    assert row.keys() == bare.keys()
    assert all(
        row[name] == (float(at) if isinstance(at, Decimal) else at) for name, at in bare.items()
    )


async def test_order_books_are_ours(ask: Ask, ours: UpbitAdapter) -> None:
    symbols = [BUSY, THIN]
    for found, mine in zip(
        await ask(quotation_api.get_orderbook, symbols),
        await ours.orderbooks(symbols, depth=30, level=0),
        strict=True,
    ):
        assert found["market"] == mine.symbol
        assert found["timestamp"] == round(mine.exchange_time.timestamp() * 1_000)
        assert (found["total_ask_size"], found["total_bid_size"]) == (
            mine.total_ask_size,
            mine.total_bid_size,
        )
        units = found["orderbook_units"]
        for side, levels in (("ask", mine.asks), ("bid", mine.bids)):
            assert [(unit[f"{side}_price"], unit[f"{side}_size"]) for unit in units] == [
                (level.price, level.size) for level in levels
            ]


async def test_its_stream_delivers_the_trades_of_the_truth(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks with `isOnlyRealtime`, the spelling of old, and offers compression."""
    clock = FastClock(NOW_MS)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    messages: list[Any] = []
    connections: list[AsyncGenerator[Any, None]] = []

    async with Simulator(clock=clock) as simulator:
        truth = Truth(simulator, session)

        async def connection(options: dict[str, Any]) -> AsyncGenerator[Any, None]:
            async with websockets.connect(simulator.ws_url, **options) as opened:
                yield opened

        def connect(url: str, **options: Any) -> AsyncGenerator[Any, None]:
            assert url == REAL_STREAM
            connections.append(connection(options))
            return connections[-1]

        namespace = SimpleNamespace(connect=connect, ConnectionClosed=websockets.ConnectionClosed)
        monkeypatch.setattr(websocket_api, "websockets", namespace)
        # What it would run in a process of its own, here: the queue is all that differs.
        manager = websocket_api.WebSocketManager.__new__(websocket_api.WebSocketManager)
        manager.type, manager.codes, manager.alive = "trade", [BUSIEST], True
        manager._WebSocketManager__q = received
        running = asyncio.create_task(
            manager._WebSocketManager__connect_socket(), name="its stream"
        )

        def taken() -> list[Any]:
            while not received.empty():
                messages.append(received.get())
            return messages

        try:
            await eventually(lambda: len(taken()) >= ENOUGH_TRADES)
            began_ms, until_ms = messages[0]["timestamp"], clock.now_ms()
            due = {
                row["sequential_id"]: row
                for row in await truth.trades(BUSIEST, began_ms + 1, until_ms)
            }
            await eventually(lambda: due.keys() <= {row["sequential_id"] for row in taken()})
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for opened in connections:
                await opened.aclose()
    assert len(connections) == 1
    assert len(due) > ENOUGH_TRADES / 2
    for message in messages:
        assert (message["type"], message["stream_type"]) == ("trade", "REALTIME")
        if row := due.get(message["sequential_id"]):
            assert message["trade_price"] == float(row["trade_price"])
            assert message["trade_volume"] == float(row["trade_volume"])
            assert message["trade_timestamp"] == row["timestamp"]
            assert message["ask_bid"] == row["ask_bid"]
