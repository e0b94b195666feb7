"""The bodies of REST answers, field by field as the exchange sends them.

Rows of pages are written as text at once, not as objects that an encoder walks through: a
page of 500 trades has 5,000 fields and a millisecond. Names come from the listing, so
nothing in a row needs escaping.

How numbers are written differs by endpoint: second candles without a needless ``.0``, the
sizes of order books with eight decimals, everything else as a decimal with ``.0`` (samples of
January 2026 in upbit-api, section 2; second candles also as documented on 2025-06-30). What
was recorded from 2018 to 2024 looks otherwise (whole numbers, or eight decimals everywhere).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator.candles import Candle
from upbit_backbone.simulator.instruments import Instrument
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.markets import CAUTIONS, Listing
from upbit_backbone.simulator.orderbooks import Orderbook
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.tickers import Ticker
from upbit_backbone.simulator.wire import (
    Figures,
    change_name,
    compact_date,
    compact_time,
    date_text,
    decimal_text,
    eight_decimals,
    exact_text,
    kst,
    rate_of,
    shortest_text,
    start_texts,
    taker_side,
    time_text,
)

Body = dict[str, Any] | msgspec.Raw

_NO_SIZE = "0.0"
"""Of a level that is not there (upbit-api, section 5.3: ``0`` or ``0.0``)."""


def market_body(listing: Listing, now_ms: int, *, details: bool) -> Body:
    """One row of ``/market/all``."""
    body: dict[str, Any] = {
        "market": listing.symbol,
        "korean_name": listing.korean_name,
        "english_name": listing.english_name,
    }
    if details:
        cautions = listing.cautions(now_ms)
        body["market_event"] = {
            "warning": listing.has_warning(now_ms),
            "caution": {name: name in cautions for name in CAUTIONS},
        }
    return body


def second_candle_bodies(market: Market, page: Iterable[Candle]) -> list[Body]:
    """``/candles/seconds``; there is no `unit`."""
    return _candle_bodies(market, page, lambda candle: "", shortest_text)


def minute_candle_bodies(market: Market, page: Iterable[Candle], unit: int) -> list[Body]:
    """``/candles/minutes/{unit}``."""
    return _candle_bodies(market, page, lambda candle: f',"unit":{unit}')


def period_candle_bodies(market: Market, page: Iterable[Candle]) -> list[Body]:
    """``/candles/weeks``, ``months`` and ``years``."""
    return _candle_bodies(
        market, page, lambda candle: f',"first_day_of_period":"{date_text(candle.start_ms)}"'
    )


def day_candle_bodies(
    market: Market,
    page: Sequence[Candle],
    in_won: Callable[[Candle], float | None] | None = None,
) -> list[Body]:
    """``/candles/days``; both changes are signed.

    Args:
        market: Of the candles.
        page: Newest first, nothing left out between.
        in_won: Converts a close, if the caller wants that; None where it cannot be.
    """
    figures = Figures(market.scale)
    # A day is compared with the last price before it, which is the close of the older row.
    previous = {newer.start_ms: older.close for newer, older in pairwise(page)}
    if page:
        previous[page[-1].start_ms] = market.previous_close(page[-1].start_ms)

    def compared(candle: Candle) -> str:
        close = previous[candle.start_ms]
        change = candle.close - close
        text = (
            f',"prev_closing_price":{figures.price(close)}'
            f',"change_price":{figures.price(change)}'
            f',"change_rate":{decimal_text(rate_of(change, close))}'
        )
        if in_won is None:
            return text
        won = in_won(candle)
        return f'{text},"converted_trade_price":{"null" if won is None else decimal_text(won)}'

    return _candle_bodies(market, page, compared)


def _candle_bodies(
    market: Market,
    page: Iterable[Candle],
    rest: Callable[[Candle], str],
    text: Callable[[float], str] = decimal_text,
) -> list[Body]:
    symbol = market.symbol
    figures = Figures(market.scale, text)
    price = figures.price
    bodies: list[Body] = []
    for candle in page:
        utc, korean = start_texts(candle.start_ms)
        bodies.append(
            msgspec.Raw(
                f'{{"market":"{symbol}"'
                f',"candle_date_time_utc":"{utc}"'
                f',"candle_date_time_kst":"{korean}"'
                f',"opening_price":{price(candle.open)}'
                f',"high_price":{price(candle.high)}'
                f',"low_price":{price(candle.low)}'
                f',"trade_price":{price(candle.close)}'
                f',"timestamp":{candle.last_trade_ms}'
                f',"candle_acc_trade_price":{figures.value(candle.value)}'
                f',"candle_acc_trade_volume":{figures.volume(candle.volume)}'
                f"{rest(candle)}}}"
            )
        )
    return bodies


def trade_bodies(market: Market, trades: Iterable[Trade]) -> list[Body]:
    """``/trades/ticks``; the change is signed."""
    symbol = market.symbol
    figures = Figures(market.scale)
    price = figures.price
    before: dict[int, int] = {}
    bodies: list[Body] = []
    for time_ms, sequential_id, units, volume, taker_buys in trades:
        day = time_ms // DAY_MS
        if day not in before:
            before[day] = market.previous_close(time_ms)
        previous = before[day]
        bodies.append(
            msgspec.Raw(
                f'{{"market":"{symbol}"'
                f',"trade_date_utc":"{date_text(time_ms)}"'
                f',"trade_time_utc":"{time_text(time_ms)}"'
                f',"timestamp":{time_ms}'
                f',"trade_price":{price(units)}'
                f',"trade_volume":{figures.volume(volume)}'
                f',"prev_closing_price":{price(previous)}'
                f',"change_price":{price(units - previous)}'
                f',"ask_bid":"{taker_side(taker_buys)}"'
                f',"sequential_id":{sequential_id}}}'
            )
        )
    return bodies


def ticker_body(market: Market, ticker: Ticker, now_ms: int) -> Body:
    """One row of ``/ticker``; `change_price` and `change_rate` are absolute."""
    figures = Figures(market.scale)
    price, last = figures.price, ticker.last
    change = last.price - ticker.previous_close
    rate = rate_of(change, ticker.previous_close)
    return msgspec.Raw(
        f'{{"market":"{market.symbol}"'
        f',"trade_date":"{compact_date(last.time_ms)}"'
        f',"trade_time":"{compact_time(last.time_ms)}"'
        f',"trade_date_kst":"{compact_date(kst(last.time_ms))}"'
        f',"trade_time_kst":"{compact_time(kst(last.time_ms))}"'
        f',"trade_timestamp":{last.time_ms}'
        f',"opening_price":{price(ticker.open)}'
        f',"high_price":{price(ticker.high)}'
        f',"low_price":{price(ticker.low)}'
        f',"trade_price":{price(last.price)}'
        f',"prev_closing_price":{price(ticker.previous_close)}'
        f',"change":"{change_name(change)}"'
        f',"change_price":{price(abs(change))}'
        f',"change_rate":{decimal_text(abs(rate))}'
        f',"signed_change_price":{price(change)}'
        f',"signed_change_rate":{decimal_text(rate)}'
        f',"trade_volume":{figures.volume(last.volume)}'
        f',"acc_trade_price":{figures.value(ticker.value_today)}'
        f',"acc_trade_price_24h":{figures.value(ticker.value_24h)}'
        f',"acc_trade_volume":{figures.volume(ticker.volume_today)}'
        f',"acc_trade_volume_24h":{figures.volume(ticker.volume_24h)}'
        f',"highest_52_week_price":{price(ticker.highest.price)}'
        f',"highest_52_week_date":"{date_text(ticker.highest.day_ms)}"'
        f',"lowest_52_week_price":{price(ticker.lowest.price)}'
        f',"lowest_52_week_date":"{date_text(ticker.lowest.day_ms)}"'
        f',"timestamp":{ticker.made_ms(now_ms)}}}'
    )


def orderbook_body(
    market: Market, book: Orderbook, count: int, *, totals_of_shown: bool = False
) -> Body:
    """One row of ``/orderbook``, bids before asks as measured.

    Args:
        market: Of the book.
        book: Thirty levels a side, grouped or not.
        count: How many of them are shown.
        totals_of_shown: The totals are those of the shown levels, not of all thirty.
    """
    price = Figures(market.scale).price
    asks, bids = book.asks[:count], book.bids[:count]
    total_ask, total_bid = book.total_ask_size, book.total_bid_size
    if totals_of_shown:
        total_ask, total_bid = (sum(level.size for level in side) for side in (asks, bids))
    units = ",".join(
        f'{{"bid_price":{price(bid.price)},"ask_price":{price(ask.price)}'
        f',"bid_size":{_size(bid.size)},"ask_size":{_size(ask.size)}}}'
        for ask, bid in zip(asks, bids, strict=True)
    )
    return msgspec.Raw(
        f'{{"market":"{market.symbol}"'
        f',"timestamp":{book.changed_ms}'
        f',"total_bid_size":{_size(total_bid)}'
        f',"total_ask_size":{_size(total_ask)}'
        f',"orderbook_units":[{units}]'
        f',"level":{exact_text(book.level)}}}'
    )


def _size(units: int) -> str:
    return eight_decimals(units) if units else _NO_SIZE


def instrument_body(instrument: Instrument) -> Body:
    """One row of ``/orderbook/instruments``: numbers as text."""
    return {
        "market": instrument.symbol,
        "quote_currency": instrument.symbol.partition("-")[0],
        "tick_size": exact_text(instrument.tick),
        "supported_levels": [exact_text(level) for level in instrument.levels],
    }


def supported_levels_body(instrument: Instrument) -> Body:
    """One row of the deprecated ``/orderbook/supported_levels``: numbers as numbers."""
    return {
        "market": instrument.symbol,
        "supported_levels": [
            msgspec.Raw(exact_text(level).encode()) for level in instrument.levels
        ],
    }
