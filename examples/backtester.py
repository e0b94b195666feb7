"""A backtest: two moving averages that cross, over weeks of hours, disturbing nobody.

    uv run python examples/backtester.py KRW-BTC --days 30 --exchange simulator

LOW takes what the other callers leave of the exchange's limits, and waits while they need
all of it. What was loaded once is stored: the second run asks nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

from upbit_backbone import BackboneConfig, BackboneError, CandleSeries, MarketDataAPI, Priority
from upbit_backbone.indicators import SMA

FEE = 0.0005
"""A fraction of what is traded: 0.05 % in markets in won."""
MOST_DAYS = 3_650


async def load(config: BackboneConfig, symbol: str, days: int) -> CandleSeries:
    async with await MarketDataAPI.create(config) as api:
        end = datetime.now(UTC)
        start = end - timedelta(days=days)
        # What the last hour will be is not known before it is over.
        return await api.get_candle_data(symbol, "1h", start, end, Priority.LOW, closed_only=True)


def backtest(candles: CandleSeries, fast: SMA, slow: SMA) -> tuple[float, int]:
    """Hold the coin while the fast average lies above the slow one.

    Returns:
        What became of 1.0, fees paid, and how often was traded.
    """
    money, coins, trades = 1.0, 0.0, 0
    for close in candles.close.tolist():
        above = fast.update(close) > slow.update(close)  # False while one of them is NaN
        if above and not coins:
            money, coins, trades = 0.0, money * (1 - FEE) / close, trades + 1
        elif not above and coins:
            money, coins, trades = coins * close * (1 - FEE), 0.0, trades + 1
    return money + coins * candles.close[-1], trades


def told(candles: CandleSeries) -> str:
    result, trades = backtest(candles, SMA(12), SMA(48))
    held = candles.close[-1] / candles.close[0]
    return f"{trades} trades: {result - 1:+.2%}; bought and held: {held - 1:+.2%}"


def days(text: str) -> int:
    if not 1 <= (number := int(text)) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MOST_DAYS:,}, was {number}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Backtest two moving averages.")
    parser.add_argument("symbol", nargs="?", default="KRW-BTC")
    parser.add_argument("--days", type=days, default=30, help=f"1 to {MOST_DAYS:,}")
    parser.add_argument("--exchange", choices=("upbit", "simulator"))
    given = parser.parse_args()
    flags = {"exchange": given.exchange} if given.exchange else {}
    try:
        config = BackboneConfig.from_environment(flags=flags)
        candles = asyncio.run(load(config, given.symbol, given.days))
        print(candles)
        if len(candles):
            print(told(candles))
        sys.stdout.flush()
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
