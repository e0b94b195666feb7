"""What Upbit sends, named as it is sent; only the fields used. Never leaves this folder.

REST bodies are arrays of the structs without a tag. The stream sends one tagged message a
frame, in one of two spellings: DEFAULT (full names) and SIMPLE (abbreviations). Python
names are the same in both, so one conversion serves all.

All structs hold plain values, so none needs the garbage collector (``gc=False``, 5 to 20 %
of the decoding time).

Source: https://docs.upbit.com/kr/reference, pages list-tickers, list-pair-trades,
list-orderbooks, websocket-ticker, websocket-trade, websocket-orderbook, websocket-candle
(2026-10).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

# In milliseconds or microseconds, and however large: a wild one is no reason to lose the value.
Stamp = Annotated[int, Meta(ge=0)]
ChangeWire = Literal["RISE", "EVEN", "FALL"]
AskBid = Literal["ASK", "BID"]


class MarketEvent(Struct, frozen=True, gc=False):
    """Designations of a market."""

    warning: bool = False
    caution: dict[str, bool] = {}


class MarketWire(Struct, frozen=True, gc=False):
    """One row of ``/market/all``; Korean names and designations are Korea's alone."""

    market: str
    english_name: str
    korean_name: str = ""
    market_event: MarketEvent | None = None


class NewestCandle(Struct, frozen=True, gc=False):
    """Of the first row of a candle page: when its last trade was stored."""

    timestamp: Stamp


class TickerWire(Struct, frozen=True, gc=False):
    """One row of ``/ticker``."""

    market: str
    trade_timestamp: Stamp
    opening_price: float
    high_price: float
    low_price: float
    trade_price: float
    prev_closing_price: float
    change: ChangeWire
    signed_change_price: float
    signed_change_rate: float
    trade_volume: float
    acc_trade_price: float
    acc_trade_price_24h: float
    acc_trade_volume: float
    acc_trade_volume_24h: float
    highest_52_week_price: float
    highest_52_week_date: str | None
    lowest_52_week_price: float
    lowest_52_week_date: str | None
    timestamp: Stamp


class TradeWire(Struct, frozen=True, gc=False):
    """One row of ``/trades/ticks``; answers of 2018 had no `sequential_id`."""

    market: str
    timestamp: Stamp
    trade_price: float
    trade_volume: float
    ask_bid: AskBid
    sequential_id: int | None = None


class UnitWire(Struct, frozen=True, gc=False):
    """The i-th best ask beside the i-th best bid."""

    ask_price: float
    bid_price: float
    ask_size: float
    bid_size: float


class OrderbookWire(Struct, frozen=True, gc=False):
    """One row of ``/orderbook``."""

    market: str
    timestamp: Stamp
    total_ask_size: float
    total_bid_size: float
    orderbook_units: list[UnitWire]
    level: float = 0.0


class DateWire(Struct, frozen=True, gc=False):
    """A date in parts, as the stream sends `delisting_date`."""

    year: int
    month: int
    day: int


class TickerMessage(TickerWire, frozen=True, gc=False, tag_field="type", tag="ticker"):
    """``ticker`` of the stream, DEFAULT."""

    market: str = field(name="code")
    ask_bid: AskBid
    market_state: str | None = None
    delisting_date: DateWire | str | None = None
    stream_type: str = ""


class TradeMessage(Struct, frozen=True, gc=False, tag_field="type", tag="trade"):
    """``trade`` of the stream, DEFAULT; `timestamp` is when the message was made."""

    market: str = field(name="code")
    timestamp: Stamp
    trade_timestamp: Stamp
    trade_price: float
    trade_volume: float
    ask_bid: AskBid
    sequential_id: int
    stream_type: str = ""


class OrderbookMessage(OrderbookWire, frozen=True, gc=False, tag_field="type", tag="orderbook"):
    """``orderbook`` of the stream, DEFAULT."""

    market: str = field(name="code")
    stream_type: str = ""


class CandleMessage(Struct, frozen=True, gc=False):
    """``candle.*`` of the stream, DEFAULT; a subclass for each unit has its tag."""

    market: str = field(name="code")
    candle_date_time_utc: str
    opening_price: float
    high_price: float
    low_price: float
    trade_price: float
    candle_acc_trade_volume: float
    candle_acc_trade_price: float
    timestamp: Stamp
    stream_type: str = ""


class SimpleTicker(TickerMessage, frozen=True, gc=False, tag_field="ty", tag="ticker"):
    """``ticker`` of the stream, SIMPLE."""

    market: str = field(name="cd")
    trade_timestamp: Stamp = field(name="ttms")
    opening_price: float = field(name="op")
    high_price: float = field(name="hp")
    low_price: float = field(name="lp")
    trade_price: float = field(name="tp")
    prev_closing_price: float = field(name="pcp")
    change: ChangeWire = field(name="c")
    signed_change_price: float = field(name="scp")
    signed_change_rate: float = field(name="scr")
    trade_volume: float = field(name="tv")
    acc_trade_price: float = field(name="atp")
    acc_trade_price_24h: float = field(name="atp24h")
    acc_trade_volume: float = field(name="atv")
    acc_trade_volume_24h: float = field(name="atv24h")
    highest_52_week_price: float = field(name="h52wp")
    highest_52_week_date: str | None = field(name="h52wdt")
    lowest_52_week_price: float = field(name="l52wp")
    lowest_52_week_date: str | None = field(name="l52wdt")
    timestamp: Stamp = field(name="tms")
    ask_bid: AskBid = field(name="ab")
    market_state: str | None = field(name="ms", default=None)
    delisting_date: DateWire | str | None = field(name="dd", default=None)
    stream_type: str = field(name="st", default="")


class SimpleTrade(TradeMessage, frozen=True, gc=False, tag_field="ty", tag="trade"):
    """``trade`` of the stream, SIMPLE."""

    market: str = field(name="cd")
    timestamp: Stamp = field(name="tms")
    trade_timestamp: Stamp = field(name="ttms")
    trade_price: float = field(name="tp")
    trade_volume: float = field(name="tv")
    ask_bid: AskBid = field(name="ab")
    sequential_id: int = field(name="sid")
    stream_type: str = field(name="st", default="")


class SimpleUnit(UnitWire, frozen=True, gc=False):
    """A row of a book, SIMPLE."""

    ask_price: float = field(name="ap")
    bid_price: float = field(name="bp")
    ask_size: float = field(name="as")
    bid_size: float = field(name="bs")


class SimpleOrderbook(OrderbookMessage, frozen=True, gc=False, tag_field="ty", tag="orderbook"):
    """``orderbook`` of the stream, SIMPLE."""

    market: str = field(name="cd")
    timestamp: Stamp = field(name="tms")
    total_ask_size: float = field(name="tas")
    total_bid_size: float = field(name="tbs")
    orderbook_units: list[SimpleUnit] = field(name="obu")  # type: ignore[assignment]
    level: float = field(name="lv", default=0.0)
    stream_type: str = field(name="st", default="")


class SimpleCandle(CandleMessage, frozen=True, gc=False):
    """``candle.*`` of the stream, SIMPLE."""

    market: str = field(name="cd")
    candle_date_time_utc: str = field(name="cdttmu")
    opening_price: float = field(name="op")
    high_price: float = field(name="hp")
    low_price: float = field(name="lp")
    trade_price: float = field(name="tp")
    candle_acc_trade_volume: float = field(name="catv")
    candle_acc_trade_price: float = field(name="catp")
    timestamp: Stamp = field(name="tms")
    stream_type: str = field(name="st", default="")


class ErrorText(Struct, frozen=True, gc=False):
    """What is wrong; the name is an integer on REST and a word on the stream."""

    name: int | str = ""
    message: str = ""


class ErrorBody(Struct, frozen=True, gc=False):
    """The body of a REST answer that is no success."""

    error: ErrorText


class OtherMessage(Struct, frozen=True, gc=False):
    """A frame that is none of ours: an error, a sign of life or a type we do not know."""

    type: str = ""
    ty: str = ""
    code: str = ""
    cd: str = ""
    error: ErrorText | None = None
