"""The frames of the WebSocket, in each of its formats.

A message is built once with full names and exact numbers; a format decides how its keys
and numbers are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from upbit_backbone.simulator.market import Market, Trade
from upbit_backbone.simulator.orderbooks import Orderbook
from upbit_backbone.simulator.rest_bodies import previous_close
from upbit_backbone.simulator.tickers import Ticker
from upbit_backbone.simulator.wire import (
    Number,
    change_name,
    compact_date,
    compact_time,
    date_text,
    eight_decimals,
    java_double,
    plain,
    price_of,
    rate_of,
    short,
    taker_side,
    time_text,
    value_of,
    volume_of,
)

_SHORT_KEYS: Mapping[str, str] = {
    "type": "ty",
    "code": "cd",
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
}


class FrameFormat(NamedTuple):
    """How a subscription wants its frames written."""

    key: Callable[[str], str]
    price: Callable[[float], Number]
    size: Callable[[int], Number]
    """Of a volume in 1e-8."""
    value: Callable[[float], Number]
    """Of sums in the quote asset, and of rates."""
    as_list: bool = False


def _short_key(key: str) -> str:
    return _SHORT_KEYS[key]


def _short_size(units: int) -> Number:
    return short(volume_of(units))


_DEFAULT = FrameFormat(str, java_double, eight_decimals, plain)
_SIMPLE = FrameFormat(_short_key, short, _short_size, short)
FORMATS: Mapping[str, FrameFormat] = {
    "DEFAULT": _DEFAULT,
    "SIMPLE": _SIMPLE,
    "JSON_LIST": _DEFAULT._replace(as_list=True),
    "SIMPLE_LIST": _SIMPLE._replace(as_list=True),
}


def ticker_frame(
    form: FrameFormat, market: Market, ticker: Ticker, now_ms: int, stream_type: str
) -> bytes:
    """A ticker message."""
    scale, last = market.scale, ticker.last
    change = last.price - ticker.previous_close
    rate = rate_of(change, ticker.previous_close)

    def price(units: int) -> Number:
        return form.price(price_of(units, scale))

    def value(units: int) -> Number:
        return form.value(value_of(units, scale))

    return _frame(
        form,
        {
            "type": "ticker",
            "code": market.symbol,
            "opening_price": price(ticker.open),
            "high_price": price(ticker.high),
            "low_price": price(ticker.low),
            "trade_price": price(last.price),
            "prev_closing_price": price(ticker.previous_close),
            "acc_trade_price": value(ticker.value_today),
            "change": change_name(change),
            "change_price": price(abs(change)),
            "signed_change_price": price(change),
            "change_rate": form.value(abs(rate)),
            "signed_change_rate": form.value(rate),
            "ask_bid": taker_side(last.taker_buys),
            "trade_volume": form.size(last.volume),
            "acc_trade_volume": form.size(ticker.volume_today),
            "trade_date": compact_date(last.time_ms),
            "trade_time": compact_time(last.time_ms),
            "trade_timestamp": last.time_ms,
            "acc_ask_volume": form.size(ticker.sold_today),
            "acc_bid_volume": form.size(ticker.volume_today - ticker.sold_today),
            "highest_52_week_price": price(ticker.highest.price),
            "highest_52_week_date": date_text(ticker.highest.day_ms),
            "lowest_52_week_price": price(ticker.lowest.price),
            "lowest_52_week_date": date_text(ticker.lowest.day_ms),
            "market_state": "ACTIVE",
            "is_trading_suspended": False,
            "delisting_date": None,
            "market_warning": "NONE",
            "timestamp": now_ms,
            "acc_trade_price_24h": value(ticker.value_24h),
            "acc_trade_volume_24h": form.size(ticker.volume_24h),
            "stream_type": stream_type,
        },
        # The trade's date is `td`, the ticker's `tdt`.
        {"trade_date": "tdt"},
    )


def trade_frame(
    form: FrameFormat,
    market: Market,
    trade: Trade,
    book: Orderbook,
    now_ms: int,
    stream_type: str,
) -> bytes:
    """A trade message, with the best prices of the book that the trade left behind."""
    scale = market.scale
    previous = previous_close(market, trade)
    change = trade.price - previous
    ask, bid = book.asks[0], book.bids[0]
    return _frame(
        form,
        {
            "type": "trade",
            "code": market.symbol,
            "timestamp": now_ms,
            "trade_date": date_text(trade.time_ms),
            "trade_time": time_text(trade.time_ms),
            "trade_timestamp": trade.time_ms,
            "trade_price": form.price(price_of(trade.price, scale)),
            "trade_volume": form.size(trade.volume),
            "ask_bid": taker_side(trade.taker_buys),
            "prev_closing_price": form.price(price_of(previous, scale)),
            "change": change_name(change),
            "change_price": form.price(price_of(abs(change), scale)),
            "sequential_id": trade.sequential_id,
            "best_ask_price": form.price(price_of(ask.price, scale)),
            "best_ask_size": form.size(ask.size),
            "best_bid_price": form.price(price_of(bid.price, scale)),
            "best_bid_size": form.size(bid.size),
            "stream_type": stream_type,
        },
        {"trade_date": "td"},
    )


def orderbook_frame(
    form: FrameFormat, market: Market, book: Orderbook, depth: int, stream_type: str
) -> bytes:
    """A whole book; the totals stay those of thirty levels."""
    scale, key = market.scale, form.key
    ask_price, bid_price = key("ask_price"), key("bid_price")
    ask_size, bid_size = key("ask_size"), key("bid_size")
    return _frame(
        form,
        {
            "type": "orderbook",
            "code": market.symbol,
            "timestamp": book.changed_ms,
            "total_ask_size": form.size(book.total_ask_size),
            "total_bid_size": form.size(book.total_bid_size),
            "orderbook_units": [
                {
                    ask_price: form.price(price_of(ask.price, scale)),
                    bid_price: form.price(price_of(bid.price, scale)),
                    ask_size: form.size(ask.size),
                    bid_size: form.size(bid.size),
                }
                for ask, bid in zip(book.asks[:depth], book.bids[:depth], strict=True)
            ],
            "stream_type": stream_type,
            "level": 0,
        },
        {},
    )


def _frame(form: FrameFormat, message: dict[str, Any], special: Mapping[str, str]) -> bytes:
    if form.key is _short_key:
        message = {special.get(key) or _SHORT_KEYS[key]: value for key, value in message.items()}
    return msgspec.json.encode([message] if form.as_list else message)
