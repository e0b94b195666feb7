"""The frames of the WebSocket, in each of its formats (upbit-api, sections 5.3 to 5.8).

A kind of message is a list of full keys; a format decides how keys and numbers are
written. What differs from frame to frame is put into a template made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import msgspec

from upbit_backbone.clock import utc_datetime
from upbit_backbone.short_keys import SHORT_DATES, SHORT_KEYS
from upbit_backbone.simulator.candles import Candle
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.orderbooks import Level, Orderbook
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.tickers import Ticker
from upbit_backbone.simulator.wire import (
    change_name,
    compact_date,
    compact_time,
    date_text,
    decimal_text,
    eight_decimals,
    exact_text,
    java_double,
    kst,
    price_of,
    rate_of,
    short,
    start_text,
    taker_side,
    time_text,
    value_of,
    volume_of,
)

_TICKER_KEYS = (
    *("type", "code", "opening_price", "high_price", "low_price", "trade_price"),
    *("prev_closing_price", "acc_trade_price", "change", "change_price", "signed_change_price"),
    *("change_rate", "signed_change_rate", "ask_bid", "trade_volume", "acc_trade_volume"),
    *("trade_date", "trade_time", "trade_timestamp", "acc_ask_volume", "acc_bid_volume"),
    *("highest_52_week_price", "highest_52_week_date", "lowest_52_week_price"),
    *("lowest_52_week_date", "market_state", "is_trading_suspended", "delisting_date"),
    *("market_warning", "timestamp", "acc_trade_price_24h", "acc_trade_volume_24h"),
    "stream_type",
)
_TRADE_KEYS = (
    *("type", "code", "timestamp", "trade_date", "trade_time", "trade_timestamp"),
    *("trade_price", "trade_volume", "ask_bid", "prev_closing_price", "change"),
    *("change_price", "sequential_id", "best_ask_price", "best_ask_size", "best_bid_price"),
    *("best_bid_size", "stream_type"),
)
_ORDERBOOK_KEYS = (
    *("type", "code", "timestamp", "total_ask_size", "total_bid_size", "orderbook_units"),
    *("stream_type", "level"),
)
_UNIT_KEYS = ("ask_price", "bid_price", "ask_size", "bid_size")
_CANDLE_KEYS = (
    *("type", "code", "candle_date_time_utc", "candle_date_time_kst", "opening_price"),
    *("high_price", "low_price", "trade_price", "candle_acc_trade_volume"),
    *("candle_acc_trade_price", "timestamp", "stream_type"),
)


@dataclass(frozen=True, eq=False)
class FrameFormat:
    """How a subscription wants its frames written; one of `FORMATS`."""

    name: str
    short_keys: bool
    price: Callable[[float], str]
    size: Callable[[int], str]
    """Of a volume in 1e-8."""
    value: Callable[[float], str]
    """Of sums in the quote asset, and of rates."""
    as_list: bool


def _long_size(units: int) -> str:
    return eight_decimals(units) if units else "0.0"  # nobody there: `0` or `0.0` was measured


def _short_size(units: int) -> str:
    return short(volume_of(units))


FORMATS: Mapping[str, FrameFormat] = {
    form.name: form
    for form in (
        FrameFormat("DEFAULT", False, java_double, _long_size, decimal_text, False),
        FrameFormat("SIMPLE", True, short, _short_size, short, False),
        FrameFormat("JSON_LIST", False, java_double, _long_size, decimal_text, True),
        FrameFormat("SIMPLE_LIST", True, short, _short_size, short, True),
    )
}


def ticker_frame(
    form: FrameFormat,
    market: Market,
    ticker: Ticker,
    now_ms: int,
    stream_type: str,
    *,
    made_ms: int | None = None,
) -> bytes:
    """A ticker message, stamped when it was made: by default as it is sent."""
    scale, last, listing = market.scale, ticker.last, market.listing
    change = last.price - ticker.previous_close
    rate = rate_of(change, ticker.previous_close)

    def price(units: int) -> str:
        return form.price(price_of(units, scale))

    def value(units: int) -> str:
        return form.value(value_of(units, scale))

    return _frame(
        _template("ticker", form.short_keys, form.as_list),
        (
            market.symbol,
            price(ticker.open),
            price(ticker.high),
            price(ticker.low),
            price(last.price),
            price(ticker.previous_close),
            value(ticker.value_today),
            change_name(change),
            price(abs(change)),
            price(change),
            form.value(abs(rate)),
            form.value(rate),
            taker_side(last.taker_buys),
            form.size(last.volume),
            form.size(ticker.volume_today),
            compact_date(last.time_ms),
            compact_time(last.time_ms),
            last.time_ms,
            form.size(ticker.sold_today),
            form.size(ticker.volume_today - ticker.sold_today),
            price(ticker.highest.price),
            date_text(ticker.highest.day_ms),
            price(ticker.lowest.price),
            date_text(ticker.lowest.day_ms),
            listing.state(now_ms),
            _delisting_date(listing.announced_delisting_ms(now_ms)),
            "CAUTION" if listing.has_warning(now_ms) else "NONE",
            now_ms if made_ms is None else made_ms,
            value(ticker.value_24h),
            form.size(ticker.volume_24h),
            stream_type,
        ),
    )


def trade_frame(
    form: FrameFormat,
    market: Market,
    trade: Trade,
    best: tuple[Level, Level],
    now_ms: int,
    stream_type: str,
    *,
    drop_zero_seconds: bool = False,
) -> bytes:
    """A trade message.

    Args:
        form: How to write it.
        market: Of which.
        trade: Which.
        best: Best ask and bid of the book that the trade left behind.
        now_ms: When it is sent.
        stream_type: ``SNAPSHOT`` or ``REALTIME``.
        drop_zero_seconds: Write ``18:17`` for ``18:17:00``, as recorded in 2021.
    """
    scale = market.scale
    previous = market.previous_close(trade.time_ms)
    change = trade.price - previous
    ask, bid = best
    time = time_text(trade.time_ms)
    return _frame(
        _template("trade", form.short_keys, form.as_list),
        (
            market.symbol,
            now_ms,
            date_text(trade.time_ms),
            time.removesuffix(":00") if drop_zero_seconds else time,
            trade.time_ms,
            form.price(price_of(trade.price, scale)),
            form.size(trade.volume),
            taker_side(trade.taker_buys),
            form.price(price_of(previous, scale)),
            change_name(change),
            form.price(price_of(abs(change), scale)),
            trade.sequential_id,
            form.price(price_of(ask.price, scale)),
            form.size(ask.size),
            form.price(price_of(bid.price, scale)),
            form.size(bid.size),
            stream_type,
        ),
    )


def orderbook_frame(
    form: FrameFormat, market: Market, book: Orderbook, depth: int, stream_type: str
) -> bytes:
    """A whole book; the totals stay those of thirty levels."""
    size, unit = form.size, market.scale.unit
    rows = map(
        partial(_book_row, form, unit.numerator, unit.denominator),
        book.asks[:depth],
        book.bids[:depth],
    )
    return _frame(
        _template("orderbook", form.short_keys, form.as_list),
        (
            market.symbol,
            book.changed_ms,
            size(book.total_ask_size),
            size(book.total_bid_size),
            ",".join(rows),
            stream_type,
            exact_text(book.level) if book.level else "0",
        ),
    )


# From one book to the next most rows are the same: those of all won markets find room here.
@lru_cache(maxsize=1 << 14)
def _book_row(form: FrameFormat, numerator: int, denominator: int, ask: Level, bid: Level) -> str:
    """The text of a row; prices are multiples of numerator / denominator."""
    return _template("unit", form.short_keys, as_list=False) % (
        form.price(ask.price * numerator / denominator),
        form.price(bid.price * numerator / denominator),
        form.size(ask.size),
        form.size(bid.size),
    )


def candle_frame(
    form: FrameFormat, kind: str, market: Market, candle: Candle, now_ms: int, stream_type: str
) -> bytes:
    """A message of a candle stream, named as its type: ``candle.1m``."""
    scale = market.scale
    return _frame(
        _template(kind, form.short_keys, form.as_list),
        (
            market.symbol,
            start_text(candle.start_ms),
            start_text(kst(candle.start_ms)),
            form.price(price_of(candle.open, scale)),
            form.price(price_of(candle.high, scale)),
            form.price(price_of(candle.low, scale)),
            form.price(price_of(candle.close, scale)),
            form.size(candle.volume),
            form.value(value_of(candle.value, scale)),
            now_ms,
            stream_type,
        ),
    )


class Listed(NamedTuple):
    """A type object as the answer to LIST_SUBSCRIPTIONS repeats it."""

    type: str
    codes: Sequence[str]
    level: Fraction
    """Of order books alone."""


def list_frame(form: FrameFormat, subscribed: Sequence[Listed], ticket: str) -> bytes:
    """The answer to LIST_SUBSCRIPTIONS."""
    key = _key_writer(form.short_keys)
    rows = []
    for one in subscribed:
        row: dict[str, Any] = {key("type"): one.type, key("codes"): one.codes}
        if one.type == "orderbook":
            row[key("level")] = msgspec.Raw(exact_text(one.level).encode())
        rows.append(row)
    body = {key("method"): "LIST_SUBSCRIPTIONS", key("result"): rows, key("ticket"): ticket}
    return msgspec.json.encode([body] if form.as_list else body)


_TEXTS = frozenset(
    {"code", "change", "ask_bid", "trade_date", "trade_time", "highest_52_week_date"}
    | {"lowest_52_week_date", "market_state", "market_warning", "stream_type"}
    | {"candle_date_time_utc", "candle_date_time_kst"}
)


@cache
def _template(kind: str, short_keys: bool, as_list: bool) -> str:
    """What all frames of a kind have in common, with a place for each value that differs."""
    keys = {
        "ticker": _TICKER_KEYS,
        "trade": _TRADE_KEYS,
        "orderbook": _ORDERBOOK_KEYS,
        "unit": _UNIT_KEYS,
    }.get(kind, _CANDLE_KEYS)
    write = _key_writer(short_keys)
    places = []
    for key in keys:
        name, place = write(key), '"%s"' if key in _TEXTS else "%s"
        if key == "type":
            place = f'"{kind}"'
        elif key == "is_trading_suspended":
            place = "false"
        elif key == "orderbook_units":
            place = "[%s]"
        elif key == "trade_date" and short_keys:
            name = SHORT_DATES.get(kind, name)
        places.append(f'"{name}":{place}')
    template = "{" + ",".join(places) + "}"
    return f"[{template}]" if as_list else template


def _key_writer(short_keys: bool) -> Callable[[str], str]:
    return SHORT_KEYS.__getitem__ if short_keys else str


def _delisting_date(ms: int | None) -> str:
    if ms is None:
        return "null"
    day = utc_datetime(ms)
    return f'{{"year":{day.year},"month":{day.month},"day":{day.day}}}'


def _frame(template: str, values: tuple[object, ...]) -> bytes:
    return (template % values).encode()
