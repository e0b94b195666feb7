"""The bodies of REST answers, field by field as the exchange sends them."""

from __future__ import annotations

from typing import Any

from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator.candles import Candle
from upbit_backbone.simulator.market import Market, Trade
from upbit_backbone.simulator.markets import Listing
from upbit_backbone.simulator.orderbooks import Orderbook
from upbit_backbone.simulator.tickers import Ticker
from upbit_backbone.simulator.wire import (
    change_name,
    compact_date,
    compact_time,
    date_text,
    kst,
    plain,
    price_of,
    rate_of,
    start_text,
    taker_side,
    time_text,
    value_of,
    volume_of,
)

Body = dict[str, Any]

_NO_CAUTION = {
    "PRICE_FLUCTUATIONS": False,
    "TRADING_VOLUME_SOARING": False,
    "DEPOSIT_AMOUNT_SOARING": False,
    "GLOBAL_PRICE_DIFFERENCES": False,
    "CONCENTRATION_OF_SMALL_ACCOUNTS": False,
}


def market_body(listing: Listing, *, details: bool) -> Body:
    """One row of ``/market/all``."""
    body: Body = {
        "market": listing.symbol,
        "korean_name": listing.korean_name,
        "english_name": listing.english_name,
    }
    if details:
        body["market_event"] = {"warning": False, "caution": _NO_CAUTION}
    return body


def minute_candle_body(market: Market, candle: Candle, unit: int) -> Body:
    """One row of ``/candles/minutes/{unit}``."""
    return {**_candle_body(market, candle), "unit": unit}


def day_candle_body(market: Market, candle: Candle) -> Body:
    """One row of ``/candles/days``; the first day is compared with its own open."""
    before = market.close_before(candle.start_ms)
    previous = candle.open if before is None else before
    change = candle.close - previous
    return {
        **_candle_body(market, candle),
        "prev_closing_price": plain(price_of(previous, market.scale)),
        "change_price": plain(price_of(change, market.scale)),
        "change_rate": plain(rate_of(change, previous)),
    }


def _candle_body(market: Market, candle: Candle) -> Body:
    scale = market.scale
    return {
        "market": market.symbol,
        "candle_date_time_utc": start_text(candle.start_ms),
        "candle_date_time_kst": start_text(kst(candle.start_ms)),
        "opening_price": plain(price_of(candle.open, scale)),
        "high_price": plain(price_of(candle.high, scale)),
        "low_price": plain(price_of(candle.low, scale)),
        "trade_price": plain(price_of(candle.close, scale)),
        "timestamp": candle.last_trade_ms,
        "candle_acc_trade_price": plain(value_of(candle.value, scale)),
        "candle_acc_trade_volume": plain(volume_of(candle.volume)),
    }


def trade_body(market: Market, trade: Trade) -> Body:
    """One row of ``/trades/ticks``."""
    scale = market.scale
    previous = previous_close(market, trade)
    return {
        "market": market.symbol,
        "trade_date_utc": date_text(trade.time_ms),
        "trade_time_utc": time_text(trade.time_ms),
        "timestamp": trade.time_ms,
        "trade_price": plain(price_of(trade.price, scale)),
        "trade_volume": plain(volume_of(trade.volume)),
        "prev_closing_price": plain(price_of(previous, scale)),
        "change_price": plain(price_of(trade.price - previous, scale)),
        "ask_bid": taker_side(trade.taker_buys),
        "sequential_id": trade.sequential_id,
    }


def previous_close(market: Market, trade: Trade) -> int:
    """The close of the UTC day before a trade; on the first day its own price."""
    before = market.close_before(trade.time_ms // DAY_MS * DAY_MS)
    return trade.price if before is None else before


def ticker_body(market: Market, ticker: Ticker, now_ms: int) -> Body:
    """One row of ``/ticker``."""
    scale = market.scale
    last = ticker.last
    change = last.price - ticker.previous_close
    rate = rate_of(change, ticker.previous_close)
    return {
        "market": market.symbol,
        "trade_date": compact_date(last.time_ms),
        "trade_time": compact_time(last.time_ms),
        "trade_date_kst": compact_date(kst(last.time_ms)),
        "trade_time_kst": compact_time(kst(last.time_ms)),
        "trade_timestamp": last.time_ms,
        "opening_price": plain(price_of(ticker.open, scale)),
        "high_price": plain(price_of(ticker.high, scale)),
        "low_price": plain(price_of(ticker.low, scale)),
        "trade_price": plain(price_of(last.price, scale)),
        "prev_closing_price": plain(price_of(ticker.previous_close, scale)),
        "change": change_name(change),
        "change_price": plain(price_of(abs(change), scale)),
        "change_rate": plain(abs(rate)),
        "signed_change_price": plain(price_of(change, scale)),
        "signed_change_rate": plain(rate),
        "trade_volume": plain(volume_of(last.volume)),
        "acc_trade_price": plain(value_of(ticker.value_today, scale)),
        "acc_trade_price_24h": plain(value_of(ticker.value_24h, scale)),
        "acc_trade_volume": plain(volume_of(ticker.volume_today)),
        "acc_trade_volume_24h": plain(volume_of(ticker.volume_24h)),
        "highest_52_week_price": plain(price_of(ticker.highest.price, scale)),
        "highest_52_week_date": date_text(ticker.highest.day_ms),
        "lowest_52_week_price": plain(price_of(ticker.lowest.price, scale)),
        "lowest_52_week_date": date_text(ticker.lowest.day_ms),
        "timestamp": now_ms,
    }


def orderbook_body(market: Market, book: Orderbook, count: int) -> Body:
    """One row of ``/orderbook``; the totals stay those of the whole book."""
    scale = market.scale
    return {
        "market": market.symbol,
        "timestamp": book.changed_ms,
        "total_ask_size": volume_of(book.total_ask_size),
        "total_bid_size": volume_of(book.total_bid_size),
        "orderbook_units": [
            {
                "ask_price": plain(price_of(ask.price, scale)),
                "bid_price": plain(price_of(bid.price, scale)),
                "ask_size": plain(volume_of(ask.size)),
                "bid_size": plain(volume_of(bid.size)),
            }
            for ask, bid in zip(book.asks[:count], book.bids[:count], strict=True)
        ],
        "level": 0,
    }
