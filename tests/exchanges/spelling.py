"""Messages of the stream in the other format of the exchange."""

from __future__ import annotations

from typing import Any

# The table of docs.upbit.com/kr, pages websocket-ticker, -trade, -orderbook and -candle.
SIMPLE_NAMES = {
    "type": "ty",
    "code": "cd",
    "opening_price": "op",
    "high_price": "hp",
    "low_price": "lp",
    "trade_price": "tp",
    "prev_closing_price": "pcp",
    "acc_trade_price": "atp",
    "acc_trade_volume": "atv",
    "acc_trade_price_24h": "atp24h",
    "acc_trade_volume_24h": "atv24h",
    "change": "c",
    "change_price": "cp",
    "change_rate": "cr",
    "signed_change_price": "scp",
    "signed_change_rate": "scr",
    "ask_bid": "ab",
    "trade_volume": "tv",
    "trade_timestamp": "ttms",
    "highest_52_week_price": "h52wp",
    "highest_52_week_date": "h52wdt",
    "lowest_52_week_price": "l52wp",
    "lowest_52_week_date": "l52wdt",
    "market_state": "ms",
    "delisting_date": "dd",
    "timestamp": "tms",
    "stream_type": "st",
    "sequential_id": "sid",
    "total_ask_size": "tas",
    "total_bid_size": "tbs",
    "orderbook_units": "obu",
    "ask_price": "ap",
    "bid_price": "bp",
    "ask_size": "as",
    "bid_size": "bs",
    "level": "lv",
    "candle_date_time_utc": "cdttmu",
    "candle_date_time_kst": "cdttmk",
    "candle_acc_trade_volume": "catv",
    "candle_acc_trade_price": "catp",
}


def simple(message: Any) -> Any:
    """The same message with the names of format SIMPLE."""
    if isinstance(message, dict):
        return {SIMPLE_NAMES.get(name, name): simple(value) for name, value in message.items()}
    return [simple(value) for value in message] if isinstance(message, list) else message
