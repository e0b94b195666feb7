"""A chart in the terminal: the last 24 hours of a market, then every change as it comes.

uv run python examples/chart_viewer.py KRW-BTC --exchange simulator
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from datetime import datetime, timedelta

from upbit_backbone import BackboneConfig, BackboneError, CandleSeries, MarketDataAPI
from upbit_backbone.price import format_price

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 72
"""Columns of the chart: one for twenty minutes."""


async def view(config: BackboneConfig, symbol: str, updates: int | None) -> None:
    async with await MarketDataAPI.create(config) as api:
        now = datetime.now()  # without a zone: local time, as the clock on the wall has it
        candles = await api.get_candle_data(symbol, "1m", now - timedelta(hours=24), now)
        print(draw(candles), flush=True)
        seen = 0
        async for candle in api.stream_candles(symbol, "1m"):
            local = candle.open_time.astimezone()
            close = format_price(symbol, candle.close)
            row = f"{local:%H:%M}  {close:>14}  {candle.volume:>12.4f}  {candle.state}"
            print(row, flush=True)
            seen += 1
            if seen == updates:
                break


def draw(candles: CandleSeries) -> str:
    """One line of bars, and what it spans."""
    if not len(candles):
        return "nobody traded in the last 24 hours"
    closes = candles.close[:: max(1, len(candles) // WIDTH)]
    low, high = float(closes.min()), float(closes.max())
    steps = (closes - low) / ((high - low) or 1.0) * (len(BARS) - 1)
    bars = "".join(BARS[round(step)] for step in steps.tolist())
    symbol, origin = candles.symbol, "SIMULATED " if candles.simulated else ""
    lowest = format_price(symbol, float(candles.low.min()))
    highest = format_price(symbol, float(candles.high.max()))
    return f"{origin}{symbol}: {len(candles)} minutes, {lowest} to {highest}\n{bars}"


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, was {number}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="A live chart in the terminal.")
    parser.add_argument("symbol", nargs="?", default="KRW-BTC")
    parser.add_argument("--updates", type=positive, help="leave after so many (default: never)")
    parser.add_argument("--exchange", choices=("upbit", "simulator"))
    given = parser.parse_args()
    flags = {"exchange": given.exchange} if given.exchange else {}
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has such bars
    try:
        config = BackboneConfig.from_environment(flags=flags)
        asyncio.run(view(config, given.symbol, given.updates))
    except BackboneError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads this has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
