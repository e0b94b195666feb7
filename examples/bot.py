"""A trading bot's eyes: 400 one-minute candles, the price, and what it would do.

    uv run python examples/bot.py KRW-BTC --exchange simulator

CRITICAL goes before everything else, in every queue. The bot sends no orders.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from upbit_backbone import (
    BackboneConfig,
    BackboneError,
    InvalidRequestError,
    MarketDataAPI,
    Priority,
)
from upbit_backbone.indicators import compute
from upbit_backbone.price import format_price

OVERSOLD, OVERBOUGHT = 30.0, 70.0


async def run(config: BackboneConfig, symbol: str, rounds: int | None, every_s: float) -> None:
    async with await MarketDataAPI.create(config) as api:
        done = 0
        while done != rounds:
            if done:
                await asyncio.sleep(every_s)
            done += 1
            try:
                print(await look(api, symbol), flush=True)
            except InvalidRequestError:
                raise  # no such market: waiting does not help
            except BackboneError as error:
                # Whoever decides about money does nothing when he does not see.
                print(f"{symbol}: nothing done: {error}", file=sys.stderr)


async def look(api: MarketDataAPI, symbol: str) -> str:
    """Read the market once; gives what a trader would want to know."""
    candles, ticker = await asyncio.gather(
        api.get_candle_data(symbol, "1m", count=400, priority=Priority.CRITICAL),
        api.get_ticker_data(symbol, Priority.CRITICAL, max_age=1.0),
    )
    rsi = float(compute("RSI", candles, period=14))
    action = "buy" if rsi < OVERSOLD else "sell" if rsi > OVERBOUGHT else "wait"
    price = format_price(symbol, ticker.price)
    return f"{symbol} {price}, RSI {rsi:.1f} of {len(candles)} candles: {action}"


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, was {number}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="What a bot would do, told and not done.")
    parser.add_argument("symbol", nargs="?", default="KRW-BTC")
    parser.add_argument("--rounds", type=positive, help="leave after so many (default: never)")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--exchange", choices=("upbit", "simulator"))
    given = parser.parse_args()
    flags = {"exchange": given.exchange} if given.exchange else {}
    try:
        config = BackboneConfig.from_environment(flags=flags)
        asyncio.run(run(config, given.symbol, given.rounds, given.every))
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
