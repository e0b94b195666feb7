"""A screener: the markets in won that move most, asked for one by one and at once.

    uv run python examples/screener.py --top 10 --exchange simulator

One call for each market is as good as one for all: calls made at once leave as a few
requests, within the exchange's limits.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from upbit_backbone import BackboneConfig, BackboneError, MarketDataAPI, Priority, Ticker
from upbit_backbone.price import format_price


async def screen(config: BackboneConfig, quote: str, top: int) -> None:
    async with await MarketDataAPI.create(config) as api:
        names = {
            market.symbol: market.korean_name
            for market in await api.get_markets()
            if market.symbol.startswith(f"{quote}-")
        }
        tickers = await asyncio.gather(*(latest(api, symbol) for symbol in names))
        moving = [ticker for ticker in tickers if ticker is not None]
        moving.sort(key=lambda ticker: abs(ticker.change_rate), reverse=True)
        print(f"{len(moving)} of {len(names)} markets")
        for ticker in moving[:top]:
            symbol, price = ticker.symbol, format_price(ticker.symbol, ticker.price)
            print(f"{symbol:<14}{price:>16}{ticker.change_rate:>+9.2%}  {names[symbol]}")


async def latest(api: MarketDataAPI, symbol: str) -> Ticker | None:
    """The ticker of a market; None where it cannot be had, so that the others are shown."""
    try:
        return await api.get_ticker_data(symbol, Priority.HIGH)
    except BackboneError as error:
        print(f"{symbol}: {error}", file=sys.stderr)
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description="The markets that move most.")
    parser.add_argument("--quote", default="KRW", type=str.upper, choices=("KRW", "BTC", "USDT"))
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--exchange", choices=("upbit", "simulator"))
    given = parser.parse_args()
    flags = {"exchange": given.exchange} if given.exchange else {}
    try:
        asyncio.run(screen(BackboneConfig.from_environment(flags=flags), given.quote, given.top))
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
