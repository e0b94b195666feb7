"""From Upbit's bytes to our values.

Pure: bytes and a few facts in, frozen values out. Numbers in quotes are accepted where
numbers are due (Upbit's own samples hold some); whatever else is not as documented raises
`ProtocolError` with an excerpt of at most 80 bytes.

A value is the same whichever channel and format it came by, but for `source`, `received_time`
and what a channel does not tell, which is None:

    Ticker        rest       delisting_date, side, state
    Ticker        websocket  nothing
    Trade         rest       nothing
    Trade         websocket  nothing
    Orderbook     rest       nothing
    Orderbook     websocket  nothing
    CandleSeries  rest       nothing
    CandleSeries  websocket  nothing

The stamp beside a candle is another one: by REST the time of its last trade, on the stream that
of the message. That a book's `level` is 0 where it is not told holds for books before 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union

import msgspec
import numpy as np
import numpy.typing as npt

from upbit_backbone.clock import SECOND_MS, epoch_ms, utc_datetime
from upbit_backbone.errors import ProtocolError, TransportError
from upbit_backbone.exchanges.upbit.wire import (
    AskBid,
    CandleMessage,
    DateWire,
    ErrorBody,
    ErrorText,
    MarketWire,
    NewestCandle,
    OrderbookMessage,
    OrderbookWire,
    OtherMessage,
    SimpleCandle,
    SimpleOrderbook,
    SimpleTicker,
    SimpleTrade,
    TickerMessage,
    TickerWire,
    TradeMessage,
    TradeWire,
)
from upbit_backbone.models import (
    CandleSeries,
    Level,
    Market,
    Orderbook,
    Side,
    Source,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.protocol import MAX_PAGE_CANDLES
from upbit_backbone.routing.exchange import CANDLE_KINDS, Garbled, StreamEvent

T = TypeVar("T")
StreamFormat = Literal["DEFAULT", "SIMPLE"]

EXCERPT_BYTES = 80

# Stamps were milliseconds in all recordings but one: books of August 2023 came in
# microseconds. 10^14 ms is the year 5138, 10^14 µs is March 1973.
_FIRST_MICROSECOND_STAMP = 100_000_000_000_000
# The end of the year 9999: the last that a datetime can hold.
_LAST_MS = 253_402_300_799_999

_SIDES: dict[AskBid, Side] = {"BID": "BUY", "ASK": "SELL"}


OnMicroseconds = Callable[[str, str], None]
"""Told the kind and symbol of each value whose stamp came in microseconds."""


class Context(NamedTuple):
    """What a value carries besides the exchange's own figures."""

    received: datetime
    source: Source
    simulated: bool
    on_microseconds: OnMicroseconds | None = None


class _Decoder(Generic[T]):
    """Decode one type strictly; on failure leniently, which is slower."""

    def __init__(self, wire: Any) -> None:
        self._strict: msgspec.json.Decoder[T] = msgspec.json.Decoder(wire)
        self._lenient: msgspec.json.Decoder[T] = msgspec.json.Decoder(wire, strict=False)

    def decode(self, body: bytes, what: object) -> T:
        """Decode `body`, which is `what` for the error's message."""
        try:
            return self._strict.decode(body)
        except msgspec.ValidationError:
            return self.decode_leniently(body, what)
        except _UNREADABLE as error:
            raise _not_understood(what, body, error) from error

    def try_strict(self, body: bytes) -> T | None:
        """The value; None where it is not exactly of this type."""
        try:
            return self._strict.decode(body)
        except _UNREADABLE:
            return None

    def decode_leniently(self, body: bytes, what: object) -> T:
        """Decode, reading numbers in quotes as numbers."""
        try:
            value = self._lenient.decode(body)
        except _UNREADABLE as error:
            raise _not_understood(what, body, error) from error
        # JSON knows no such numbers, but the text "nan" in quotes is read as one here.
        if not _is_finite(value):
            raise _not_understood(what, body, "a number is not finite")
        return value


# What msgspec raises for a bad body: not JSON or another shape, text that is not UTF-8,
# brackets nested without end.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def excerpt(body: bytes) -> str:
    """The beginning of a body, for messages and logs."""
    text = body[:EXCERPT_BYTES].decode("utf-8", "replace")
    return f"{text!r}{' …' if len(body) > EXCERPT_BYTES else ''}"


def _not_understood(what: object, body: bytes, reason: object) -> ProtocolError:
    return ProtocolError(
        f"{what}: the answer of the exchange was not understood ({reason}): {excerpt(body)};"
        " asking again will not help"
    )


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, msgspec.Struct):
        return all(map(_is_finite, msgspec.structs.astuple(value)))
    return not isinstance(value, list) or all(map(_is_finite, value))


def stamp_ms(stamp: int) -> int:
    """A stamp of the exchange in milliseconds, whichever unit it came in, up to the year 9999."""
    return stamp if stamp < _FIRST_MICROSECOND_STAMP else min(stamp // 1_000, _LAST_MS)


def _moment(stamp: int, kind: str, symbol: str, context: Context) -> datetime:
    """When the exchange says that a value was true; a stamp in microseconds is told."""
    if stamp >= _FIRST_MICROSECOND_STAMP:
        if context.on_microseconds is not None:
            context.on_microseconds(kind, symbol)
        stamp = stamp_ms(stamp)
    return _datetime(stamp)


def _datetime(ms: int) -> datetime:
    """As `utc_datetime`, three times as fast: most stamps lie in a second met before."""
    second, rest = divmod(ms, SECOND_MS)
    return _second(second) + _FRACTIONS[rest]


@lru_cache(maxsize=32)
def _second(second: int) -> datetime:
    return utc_datetime(second * SECOND_MS)


_FRACTIONS = tuple(timedelta(milliseconds=ms) for ms in range(SECOND_MS))


@lru_cache(maxsize=4096)
def _date(text: str | None) -> date | None:
    # Both "2025-10-09" (REST) and "20251009" (seen on the stream) are ISO 8601.
    return date.fromisoformat(text) if text else None


_MARKETS: _Decoder[list[MarketWire]] = _Decoder(list[MarketWire])
_TICKERS: _Decoder[list[TickerWire]] = _Decoder(list[TickerWire])
_ORDERBOOKS: _Decoder[list[OrderbookWire]] = _Decoder(list[OrderbookWire])
_TRADES: _Decoder[list[TradeWire]] = _Decoder(list[TradeWire])
_NEWEST: _Decoder[NewestCandle] = _Decoder(NewestCandle)
_ERROR: _Decoder[ErrorBody] = _Decoder(ErrorBody)
_OTHER: _Decoder[OtherMessage] = _Decoder(OtherMessage)
_Message = TickerMessage | TradeMessage | OrderbookMessage | CandleMessage
_TIMEFRAMES: dict[str, Timeframe] = {kind: timeframe for timeframe, kind in CANDLE_KINDS.items()}


def _candles_of(base: type[CandleMessage], tag_field: str) -> tuple[Any, ...]:
    """One type for each candle stream; its name, the tag, is the unit."""
    return tuple(
        msgspec.defstruct(
            base.__name__, (), bases=(base,), frozen=True, gc=False, tag_field=tag_field, tag=kind
        )
        for kind in CANDLE_KINDS.values()
    )


_STREAMS: dict[StreamFormat, _Decoder[_Message]] = {
    "DEFAULT": _Decoder(
        Union[TickerMessage, TradeMessage, OrderbookMessage, *_candles_of(CandleMessage, "type")]
    ),
    "SIMPLE": _Decoder(
        Union[SimpleTicker, SimpleTrade, SimpleOrderbook, *_candles_of(SimpleCandle, "ty")]
    ),
}
_KNOWN_TYPES = frozenset({"ticker", "trade", "orderbook", *CANDLE_KINDS.values()})


def decode_markets(body: bytes) -> tuple[Market, ...]:
    """Decode ``/market/all``, with or without details."""
    return tuple(
        Market(
            row.market,
            row.korean_name,
            row.english_name,
            row.market_event is not None and row.market_event.warning,
            _NO_CAUTION
            if row.market_event is None
            else frozenset(name for name, on in row.market_event.caution.items() if on),
        )
        for row in _MARKETS.decode(body, "market list")
    )


_NO_CAUTION: frozenset[str] = frozenset()


# A page of candles goes from msgspec to numpy as MessagePack: encoded, all its rows have one
# length and one layout, so numpy reads the bytes in place. Every way through Python floats
# costs more (benchmarks/decoding.py).
_TIME_LENGTH = len("2021-01-30T13:47:00")
# Each value is preceded by a byte that says its type; so is the row.
_TIME_AT = 2
_VALUES_AT = _TIME_AT + _TIME_LENGTH + 1
_VALUE_STRIDE = 9
_VALUE_COUNT = 6
_ROW_LENGTH = _VALUES_AT - 1 + _VALUE_COUNT * _VALUE_STRIDE
_TIME_TEXT = np.dtype(f"S{_TIME_LENGTH}")
_MILLISECONDS = np.dtype("M8[ms]")
_PACKED_VALUE = np.dtype(">f8")
_to_msgpack = msgspec.msgpack.Encoder().encode_into
# First True, then False: every page's flags are a window of it (making them costs 6 µs).
_FLAGS = np.arange(2 * MAX_PAGE_CANDLES) < MAX_PAGE_CANDLES
_FLAGS.setflags(write=False)


@lru_cache(maxsize=1024)
def _candle_decoder(symbol: str) -> _Decoder[list[msgspec.Struct]]:
    """The decoder for pages of one symbol.

    The symbol is the tag of its row type: the decoder itself then refuses a row of another
    market, without making 200 strings to compare.
    """
    row = msgspec.defstruct(
        "CandleWire",
        [
            ("candle_date_time_utc", str),
            # In the order they are sent, which spares the decoder a search.
            ("opening_price", float),
            ("high_price", float),
            ("low_price", float),
            ("trade_price", float),
            ("candle_acc_trade_price", float),
            ("candle_acc_trade_volume", float),
        ],
        frozen=True,
        gc=False,
        tag_field="market",
        tag=symbol,
    )
    return _Decoder(list[row])  # type: ignore[valid-type]


class _PageOf(NamedTuple):
    """Words for a message that is hardly ever written."""

    symbol: str
    timeframe: Timeframe

    def __str__(self) -> str:
        return f"candles of {self.symbol} {self.timeframe}"


def decode_candles(
    body: bytes,
    symbol: str,
    timeframe: Timeframe,
    *,
    closed_before_ms: int,
    simulated: bool,
) -> tuple[CandleSeries, int | None]:
    """Decode a page of candles of any unit.

    Args:
        body: The answer, newest candle first.
        symbol: The market that was asked for.
        timeframe: The unit that was asked for.
        closed_before_ms: Candles whose end is at or before it are closed.
        simulated: Whether a simulator made them.

    Returns:
        The series, ascending, and the stamp of its newest row; None for an empty page.

    Raises:
        ProtocolError: not a page of candles of this market, strictly descending by time.
    """
    what = _PageOf(symbol, timeframe)
    rows = _candle_decoder(symbol).decode(body, what)
    count = len(rows)
    if count == 0:
        return CandleSeries.empty(symbol, timeframe, source="rest", simulated=simulated), None
    if count > MAX_PAGE_CANDLES:
        raise _not_understood(what, body, f"{count} rows are more than a page holds")
    rows.reverse()
    # One allocation of the right size: the encoder shortens it by what is left over.
    packed = bytearray(5 + count * _ROW_LENGTH)
    _to_msgpack(list(map(msgspec.structs.astuple, rows)), packed)
    start = 1 if count < 16 else 3
    if len(packed) != start + count * _ROW_LENGTH:
        raise _not_understood(what, body, "a time is not of the form yyyy-MM-ddTHH:mm:ss")
    text: npt.NDArray[np.bytes_] = np.ndarray(
        count, _TIME_TEXT, packed, start + _TIME_AT, _ROW_LENGTH
    )
    try:
        time = text.astype(_MILLISECONDS).view(np.int64)
    except ValueError as error:
        raise _not_understood(what, body, error) from error
    # Not `.all()`: a numpy reduction costs 28 µs here, a fifth of the whole page.
    if np.count_nonzero(time[1:] > time[:-1]) != count - 1:
        raise _not_understood(what, body, "the rows do not descend by time")
    sent: npt.NDArray[np.float64] = np.ndarray(
        (_VALUE_COUNT, count),
        _PACKED_VALUE,
        packed,
        start + _VALUES_AT,
        (_VALUE_STRIDE, _ROW_LENGTH),
    )
    opened, high, low, close, value, volume = sent.astype(np.float64, order="C")
    forming = 0
    while forming < count and timeframe.next_ms(int(time[-1 - forming])) > closed_before_ms:
        forming += 1
    closed = _FLAGS[forming + MAX_PAGE_CANDLES - count :][:count]
    filled = _FLAGS[MAX_PAGE_CANDLES : MAX_PAGE_CANDLES + count]
    columns = [time, opened, high, low, close, volume, value, closed, filled]
    series = CandleSeries(symbol, timeframe, columns, source="rest", simulated=simulated)
    # A row holds no nested object, so the first brace ends the first row.
    newest = _NEWEST.decode(body[body.index(b"{") : body.index(b"}") + 1], what)
    return series, stamp_ms(newest.timestamp)


def decode_tickers(body: bytes, context: Context) -> tuple[Ticker, ...]:
    """Decode ``/ticker``, in the order sent."""
    return tuple(_ticker(row, context) for row in _TICKERS.decode(body, "tickers"))


def decode_orderbooks(body: bytes, context: Context, *, depth: int) -> tuple[Orderbook, ...]:
    """Decode ``/orderbook``, in the order sent, at most `depth` rows a side."""
    return tuple(_orderbook(row, context, depth) for row in _ORDERBOOKS.decode(body, "order books"))


def decode_trades(body: bytes, symbol: str, context: Context) -> tuple[Trade, ...]:
    """Decode ``/trades/ticks`` of one market, newest first.

    Raises:
        ProtocolError: not trades of this market, or one without a `sequential_id` (answers
            of 2018 had none): without a name it cannot be delivered exactly once.
    """
    what = f"trades of {symbol}"
    rows = _TRADES.decode(body, what)
    for row in rows:
        if row.market != symbol or row.sequential_id is None:
            reason = "a trade has no sequential_id" if row.market == symbol else "another market"
            raise _not_understood(what, body, reason)
    return tuple(
        Trade(
            symbol,
            row.trade_price,
            row.trade_volume,
            _SIDES[row.ask_bid],
            row.sequential_id,  # type: ignore[arg-type]
            False,
            _moment(row.timestamp, "trade", symbol, context),
            context.received,
            context.source,
            context.simulated,
        )
        for row in rows
    )


def decode_message(
    frame: bytes, form: StreamFormat, context: Context, *, closed_before_ms: int
) -> StreamEvent | None:
    """Decode one frame of the stream.

    Args:
        frame: As received.
        form: The format that was asked for.
        context: What the value carries besides.
        closed_before_ms: A candle whose end is at or before it is closed; its frames do not say.

    Returns:
        The value, or None for what carries none: a sign of life, or a type we do not know (new
        ones may appear at any time).

    Raises:
        TransportError: the exchange reports an error.
        ProtocolError: not a message, or it reports that it did not understand ours.

    Source: https://docs.upbit.com/kr/reference/websocket-guide
    """
    decoder = _STREAMS[form]
    message = decoder.try_strict(frame)
    if message is None:
        other = _OTHER.decode(frame, "stream")
        if other.error is not None:
            raise _stream_error(other.error)
        if (other.type or other.ty) not in _KNOWN_TYPES:
            return None
        message = decoder.decode_leniently(frame, "stream")
    value: Ticker | Trade | Orderbook | CandleSeries
    if isinstance(message, OrderbookMessage):
        value = _orderbook(message, context)
    elif isinstance(message, TradeMessage):
        value = Trade(
            message.market,
            message.trade_price,
            message.trade_volume,
            _SIDES[message.ask_bid],
            message.sequential_id,
            False,
            _moment(message.trade_timestamp, "trade", message.market, context),
            context.received,
            context.source,
            context.simulated,
        )
    elif isinstance(message, TickerMessage):
        value = _ticker(message, context)
    else:
        value = _candle(message, frame, context, closed_before_ms)
    return StreamEvent(value, message.stream_type == "SNAPSHOT", stamp_ms(message.timestamp))


def garbled(frame: bytes, error: ProtocolError) -> Garbled:
    """What can be said of a frame of the stream that was not understood.

    Raises:
        ProtocolError: `error`, when the frame is no value but a refusal by the exchange.
    """
    try:
        other = _OTHER.decode(frame, "stream")
    except ProtocolError:
        return Garbled(str(error))
    if other.error is not None:
        raise error
    kind, symbol = other.type or other.ty, other.code or other.cd
    if kind not in _KNOWN_TYPES or not symbol:
        return Garbled(str(error))
    return Garbled(str(error), kind, symbol)


def decode_error(body: bytes) -> ErrorText | None:
    """The error that a REST answer names; None where the body is no error of Upbit's."""
    found = _ERROR.try_strict(body)
    return None if found is None else found.error


def _stream_error(error: ErrorText) -> ProtocolError | TransportError:
    text = f"the exchange refused the subscription ({error.name}): {error.message}"
    if error.name == "WRONG_FORMAT":
        return ProtocolError(f"{text}; asking again will not help")
    return TransportError(f"{text}; it closes the connection: open another")


def _candle(
    wire: CandleMessage, frame: bytes, context: Context, closed_before_ms: int
) -> CandleSeries:
    timeframe = _TIMEFRAMES[wire.__struct_config__.tag]  # type: ignore[index]
    try:
        open_ms = _open_ms(wire.candle_date_time_utc)
    except ValueError as error:
        raise _not_understood("stream", frame, error) from error
    values = np.array(
        [
            wire.opening_price,
            wire.high_price,
            wire.low_price,
            wire.trade_price,
            wire.candle_acc_trade_volume,
            wire.candle_acc_trade_price,
        ]
    ).reshape(_VALUE_COUNT, 1)
    closed = _TRUE if timeframe.next_ms(open_ms) <= closed_before_ms else _FALSE
    return CandleSeries(
        wire.market,
        timeframe,
        [np.array([open_ms], dtype=np.int64), *values, closed, _FALSE],
        source=context.source,
        simulated=context.simulated,
    )


_TRUE, _FALSE = np.ones(1, dtype=bool), np.zeros(1, dtype=bool)


# Sent about once a second while the candle forms.
@lru_cache(maxsize=1024)
def _open_ms(text: str) -> int:
    opened = datetime.fromisoformat(text)
    if len(text) != _TIME_LENGTH or opened.tzinfo is not None:
        raise ValueError("a time is not of the form yyyy-MM-ddTHH:mm:ss")
    return epoch_ms(opened.replace(tzinfo=UTC))


def _ticker(wire: TickerWire, context: Context) -> Ticker:
    side: Side | None = None
    state: str | None = None
    delisting: date | None = None
    try:
        if isinstance(wire, TickerMessage):
            side, state = _SIDES[wire.ask_bid], wire.market_state
            if wire.delisting_date is not None:
                delisting = _delisting_date(wire.delisting_date)
        high_date, low_date = _date(wire.highest_52_week_date), _date(wire.lowest_52_week_date)
    except ValueError as error:
        raise ProtocolError(
            f"ticker of {wire.market}: a date was not understood ({error}); asking again will"
            " not help"
        ) from error
    return Ticker(
        wire.market,
        wire.trade_price,
        wire.opening_price,
        wire.high_price,
        wire.low_price,
        wire.prev_closing_price,
        wire.change,
        wire.signed_change_price,
        wire.signed_change_rate,
        wire.trade_volume,
        _datetime(stamp_ms(wire.trade_timestamp)),
        wire.acc_trade_volume,
        wire.acc_trade_price,
        wire.acc_trade_volume_24h,
        wire.acc_trade_price_24h,
        wire.highest_52_week_price,
        high_date,
        wire.lowest_52_week_price,
        low_date,
        side,
        state,
        delisting,
        _moment(wire.timestamp, "ticker", wire.market, context),
        context.received,
        context.source,
        context.simulated,
    )


def _delisting_date(sent: DateWire | str) -> date | None:
    if isinstance(sent, DateWire):
        return date(sent.year, sent.month, sent.day)
    return _date(sent)


def _orderbook(wire: OrderbookWire, context: Context, depth: int | None = None) -> Orderbook:
    units = wire.orderbook_units[:depth]
    # The shorter side is padded with price 0; a real price never is.
    return Orderbook(
        wire.market,
        tuple(Level(unit.ask_price, unit.ask_size) for unit in units if unit.ask_price > 0),
        tuple(Level(unit.bid_price, unit.bid_size) for unit in units if unit.bid_price > 0),
        wire.total_ask_size,
        wire.total_bid_size,
        wire.level,
        _moment(wire.timestamp, "orderbook", wire.market, context),
        context.received,
        context.source,
        context.simulated,
    )
