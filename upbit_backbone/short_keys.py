"""How the stream's formats SIMPLE and SIMPLE_LIST spell the keys of its messages.

A fact of the wire that whoever plays the exchange needs, the simulator and a replay alike.

Source: https://docs.upbit.com/kr/reference/websocket-guide
"""

from __future__ import annotations

from collections.abc import Mapping

SHORT_KEYS: Mapping[str, str] = {
    "type": "ty",
    "code": "cd",
    "codes": "cds",
    "timestamp": "tms",
    "stream_type": "st",
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
    "trade_date": "td",
    "trade_time": "ttm",
    "trade_timestamp": "ttms",
    "acc_ask_volume": "aav",
    "acc_bid_volume": "abv",
    "highest_52_week_price": "h52wp",
    "highest_52_week_date": "h52wdt",
    "lowest_52_week_price": "l52wp",
    "lowest_52_week_date": "l52wdt",
    "market_state": "ms",
    "is_trading_suspended": "its",
    "delisting_date": "dd",
    "market_warning": "mw",
    "sequential_id": "sid",
    "best_ask_price": "bap",
    "best_ask_size": "bas",
    "best_bid_price": "bbp",
    "best_bid_size": "bbs",
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
    "method": "mthd",
    "result": "rslt",
    "ticket": "tckt",
}
SHORT_DATES: Mapping[str, str] = {"ticker": "tdt", "trade": "td"}
"""`trade_date` by the type of the message: the one key whose short form depends on it."""
