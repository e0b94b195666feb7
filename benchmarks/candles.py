"""1,000 candles through the four layers: cold from a simulator process, then warm.

Run: ``uv run python benchmarks/candles.py``. The simulator is a process of its own on
loopback; the floor of the cold call is the same five pages asked one after the other with
bare aiohttp, in the same run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from upbit_backbone import BackboneConfig, MarketDataAPI

ROUNDS = 5
WARM_CALLS = 200
COUNT = 1_000
# Each round asks a market nobody asked before: nothing is cached anywhere.
SYMBOLS = ("KRW-BTC", "KRW-XRP", "KRW-DOGE", "KRW-ETH", "KRW-ADA")


async def main() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from upbit_backbone.cli import main; main()", "simulate",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    addresses = json.loads(await process.stdout.readline())
    try:
        with tempfile.TemporaryDirectory() as folder:
            await measure(addresses["rest_url"], addresses["ws_url"], Path(folder))
    finally:
        process.terminate()
        await process.wait()


async def measure(rest_url: str, ws_url: str, folder: Path) -> None:
    cold, warm, bare = [], [], []
    config = BackboneConfig(rest_url=rest_url, ws_url=ws_url, data_dir=folder)
    async with aiohttp.ClientSession() as session, await MarketDataAPI.create(config) as api:
        for symbol in SYMBOLS:
            # The simulator builds a market's table at its first question: not measured.
            await api.get_ticker_data(symbol)
        for symbol in SYMBOLS[:ROUNDS]:
            await asyncio.sleep(1.1)  # a full budget of requests for each
            started = time.perf_counter()
            series = await api.get_candle_data(symbol, "1m", count=COUNT)
            cold.append(time.perf_counter() - started)
            assert len(series) == COUNT
            for _ in range(WARM_CALLS):
                started = time.perf_counter()
                await api.get_candle_data(symbol, "1m", count=COUNT)
                warm.append(time.perf_counter() - started)
            await asyncio.sleep(1.1)
            started = time.perf_counter()
            to = ""
            for _ in range(COUNT // 200):
                url = f"{rest_url}/candles/minutes/1?market={symbol}&count=200{to}"
                async with session.get(url) as answer:
                    rows = await answer.json()
                to = f"&to={rows[-1]['candle_date_time_utc']}Z"
            bare.append(time.perf_counter() - started)
    cold_ms, bare_ms = statistics.median(cold) * 1e3, statistics.median(bare) * 1e3
    warm_us = statistics.median(warm) * 1e6
    print(f"1,000 candles cold: median {cold_ms:.1f} ms, worst {max(cold) * 1e3:.1f} ms")
    print("    promise < 1,000 ms")
    print(f"5 pages one by one, bare aiohttp and json: median {bare_ms:.1f} ms")
    print(f"    ratio cold / bare {cold_ms / bare_ms:.2f}")
    print(f"1,000 candles warm: median {warm_us:.0f} µs, worst {max(warm) * 1e3:.2f} ms")
    print("    promise < 10 ms")


if __name__ == "__main__":
    asyncio.run(main())
