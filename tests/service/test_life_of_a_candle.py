"""A minute rolls over on a live stream: what readers saw and what is stored equal the truth."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.eventually import eventually
from tests.exchanges.recordings import ms_of
from upbit_backbone import BackboneConfig, MarketDataAPI
from upbit_backbone.clock import SECOND_MS, ShiftedClock, epoch_ms, utc_datetime
from upbit_backbone.models import Candle, Gap
from upbit_backbone.simulator.faults import parse_fault
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.server import Simulator

THE_MINUTE_MS = 1_772_600_820_000
"""2026-03-04T05:07:00Z."""
BEFORE_A_MINUTE_MS = THE_MINUTE_MS - 4 * SECOND_MS
BUSY, THIN = "KRW-BTC", "KRW-SIM003"
Truth = dict[int, tuple[Any, ...]]


async def truth_of(simulator: Simulator, symbol: str, unit: str, *, count: int = 60) -> Truth:
    """What the exchange has by now: open time → open, high, low, close, volume."""
    url = f"{simulator.rest_url}/candles/{unit}"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, params={"market": symbol, "count": str(count)}) as answer,
    ):
        return {
            ms_of(row["candle_date_time_utc"]): (
                row["opening_price"],
                row["high_price"],
                row["low_price"],
                row["trade_price"],
                pytest.approx(row["candle_acc_trade_volume"], rel=1e-9),
            )
            for row in await answer.json()
        }


def stored(folder: Path, symbol: str, timeframe: str) -> tuple[Truth, list[tuple[int, int, str]]]:
    """The rows of a series and what is known of it."""
    (path,) = folder.glob("*/market.sqlite3")
    table = f"candles_{symbol.replace('-', '_')}_{timeframe}"
    with closing(sqlite3.connect(path)) as sql:
        spans = sql.execute(
            "SELECT start_ms, end_ms, state FROM coverage WHERE symbol = ? AND timeframe = ?"
            " ORDER BY start_ms",
            (symbol, timeframe),
        ).fetchall()
        named = "SELECT 1 FROM sqlite_schema WHERE name = ?"
        if not sql.execute(named, (table,)).fetchone():
            return {}, spans
        columns = "open_time, open, high, low, close, volume"
        rows = sql.execute(f"SELECT {columns} FROM {table}").fetchall()
    return {row[0]: row[1:] for row in rows}, spans


def proved(spans: list[tuple[int, int, str]], below_ms: int) -> list[int]:
    """The seconds of which something is proved."""
    return [
        at
        for start, end, state in spans
        if state in ("complete", "empty")
        for at in range(start, min(end, below_ms), SECOND_MS)
    ]


@pytest.mark.slow  # a frame that is a second late on a busy machine is a late trade as well
async def test_a_minute_rolls_over_with_late_trades_silent_seconds_and_an_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = Simulator(
        clock=ShiftedClock(BEFORE_A_MINUTE_MS),
        first_symbol=BUSY,
        faults=[parse_fault("late ms=100 jitter_ms=200", BEFORE_A_MINUTE_MS)],
    )
    async with simulator:
        config = BackboneConfig(
            rest_url=simulator.rest_url,
            ws_url=simulator.ws_url,
            data_dir=tmp_path,
            pinned=[f"{BUSY}:1s", f"{THIN}:1s"],
        )
        async with await MarketDataAPI.create(config) as api:
            seen: list[Candle | Gap] = []

            async def read() -> None:
                async with api.stream_candles(BUSY, "1m", policy="all") as candles:
                    async for value in candles:
                        seen.append(value)  # noqa: PERF401 - it is looked at meanwhile

            reading = asyncio.create_task(read())
            await eventually(lambda: len(seen) > 3, timeout=10)
            await eventually(lambda: simulator.now_ms >= THE_MINUTE_MS - 1_500)
            simulator.faults.add(parse_fault("drop count=1", simulator.now_ms))
            await eventually(lambda: simulator.now_ms >= THE_MINUTE_MS + 5_000, timeout=20)
            await eventually(lambda: any(one.state == "closed" for one in seen), timeout=5)
            truth = await truth_of(simulator, BUSY, "minutes/1")
            reading.cancel()
            await asyncio.wait([reading])
            seconds = {
                symbol: await truth_of(simulator, symbol, "seconds") for symbol in (BUSY, THIN)
            }
            below_ms = simulator.now_ms - 4_000
    assert "stream lost" in caplog.text
    last = {one.open_time: one for one in seen if isinstance(one, Candle) and one.closed}
    minute_ms = THE_MINUTE_MS - 60 * SECOND_MS
    (candle,) = [one for at, one in last.items() if epoch_ms(at) == minute_ms]
    told = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    assert told == truth[minute_ms]
    rows, spans = stored(tmp_path, BUSY, "1m")
    assert rows[minute_ms] == truth[minute_ms]
    assert (minute_ms, THE_MINUTE_MS, "complete") in spans
    for symbol, true in seconds.items():
        rows, spans = stored(tmp_path, symbol, "1s")
        known = proved(spans, below_ms)
        assert len(known) >= 3, spans
        assert [at for at in known if at in rows] == [at for at in known if at in true]
        assert {at: rows[at] for at in known if at in rows} == {
            at: true[at] for at in known if at in true
        }


@pytest.mark.slow  # a minute of the clock
async def test_a_whole_minute_with_late_trades_an_outage_and_a_market_that_is_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends_ms = THE_MINUTE_MS + 60 * SECOND_MS

    def between(start_s: float, end_s: float | None = None) -> str:
        words = f" from={iso(THE_MINUTE_MS + start_s * SECOND_MS)}"
        return words + ("" if end_s is None else f" until={iso(THE_MINUTE_MS + end_s * SECOND_MS)}")

    silence = {"type": "silence", "symbol": THIN, "from": iso(THE_MINUTE_MS), "until": iso(ends_ms)}
    faults = (
        # The last trades of the minute before come after it has closed.
        "late ms=2500" + between(-2, 0.5),
        # And inside the minute the stream breaks off, and cannot be made whole in time.
        "drop group=websocket count=1" + between(15),
        "503 group=trades" + between(15, 20),
    )
    simulator = Simulator(
        clock=ShiftedClock(BEFORE_A_MINUTE_MS),
        first_symbol=BUSY,
        script=read_script(json.dumps({"events": [silence]}), BEFORE_A_MINUTE_MS),
        faults=[parse_fault(fault, BEFORE_A_MINUTE_MS) for fault in faults],
    )
    async with simulator:
        config = BackboneConfig(
            rest_url=simulator.rest_url,
            ws_url=simulator.ws_url,
            data_dir=tmp_path,
            pinned=[f"{BUSY}:1s"],
        )
        async with await MarketDataAPI.create(config) as api:
            seen: dict[str, list[Candle | Gap]] = {BUSY: [], THIN: []}

            async def read(symbol: str) -> None:
                async with api.stream_candles(symbol, "1m", policy="all") as candles:
                    async for value in candles:
                        seen[symbol].append(value)

            reading = [asyncio.create_task(read(symbol)) for symbol in seen]
            await eventually(lambda: simulator.now_ms >= ends_ms + 6_000, timeout=90)
            truth = {symbol: await truth_of(simulator, symbol, "minutes/1") for symbol in seen}
            seconds = await truth_of(simulator, BUSY, "seconds", count=200)
            known = await api.get_candle_data(BUSY, "1m", count=3, with_metadata=True)
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
    assert "stream lost" in caplog.text
    gaps = [value.state for value in seen[BUSY] if isinstance(value, Gap)]
    assert gaps == ["open", "closed"]
    minutes = (THE_MINUTE_MS - 60 * SECOND_MS, THE_MINUTE_MS)
    for minute_ms in minutes:
        told = [one for one in seen[BUSY] if isinstance(one, Candle) and at(one) == minute_ms]
        closed = [one for one in told if one.closed]
        assert [one.state for one in closed].count("closed") == 1
        assert columns(closed[-1]) == truth[BUSY][minute_ms]
    # Nobody made a candle of a minute in which nobody traded.
    assert THE_MINUTE_MS not in truth[THIN]
    assert THE_MINUTE_MS not in {at(one) for one in seen[THIN] if isinstance(one, Candle)}
    rows, spans = stored(tmp_path, THIN, "1m")
    assert (THE_MINUTE_MS, ends_ms, "empty") in spans
    rows, spans = stored(tmp_path, BUSY, "1m")
    assert {minute_ms: rows[minute_ms] for minute_ms in minutes} == {
        minute_ms: truth[BUSY][minute_ms] for minute_ms in minutes
    }
    assert set(minutes) <= {
        start
        for begin, end, state in spans
        if state == "complete"
        for start in range(begin, end, 60 * SECOND_MS)
    }
    # What a caller is told now joins what is stored and what forms, without a hole.
    series, metadata = known
    assert metadata.missing == ()
    assert series.time.tolist()[:2] == list(minutes)
    # The seconds: late trades revised them, and those of the outage are asked or unknown.
    rows, spans = stored(tmp_path, BUSY, "1s")
    proved_ms = proved(spans, ends_ms)
    assert len(proved_ms) > 30
    assert {ms: rows[ms] for ms in proved_ms if ms in rows} == {
        ms: seconds[ms] for ms in proved_ms if ms in seconds
    }


def iso(ms: float) -> str:
    return utc_datetime(int(ms)).isoformat().replace("+00:00", "Z")


def at(candle: Candle) -> int:
    return epoch_ms(candle.open_time)


def columns(candle: Candle) -> tuple[Any, ...]:
    return (candle.open, candle.high, candle.low, candle.close, candle.volume)
