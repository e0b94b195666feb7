"""One shape for both channels: what REST, DEFAULT and SIMPLE tell of one instant is the same.

A simulator whose time stands still is asked by REST and by the stream in both of its formats;
what the decoders make of the answers is compared field by field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import websockets
from aiohttp import ClientSession

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import HOUR_MS, ExchangeClock, FrozenClock, utc_datetime
from upbit_backbone.exchanges.upbit import UpbitAdapter, decode
from upbit_backbone.exchanges.upbit.decode import Context, StreamFormat, decode_message
from upbit_backbone.models import CLOSE_GRACE_MS, CandleSeries, Orderbook, Ticker, Timeframe, Trade
from upbit_backbone.origin import Origin
from upbit_backbone.routing.exchange import CANDLE_KINDS, StreamKind
from upbit_backbone.simulator import Simulator

NOON_MS = AUTUMN_2025_MS + 12 * HOUR_MS + 30_123
WON, QUIET, THIN, BTC_PAIR, USDT_PAIR = "KRW-BTC", "KRW-SIM003", "BTC-SC", "BTC-ETH", "USDT-BTC"
SYMBOLS = (WON, QUIET, THIN, BTC_PAIR, USDT_PAIR)
CANDLES = (Timeframe.S1, Timeframe.M1, Timeframe.M30, Timeframe.H4)
KINDS: tuple[StreamKind, ...] = (
    "ticker",
    "trade",
    "orderbook",
    *(CANDLE_KINDS[timeframe] for timeframe in CANDLES),
)

Value = Ticker | Trade | Orderbook | CandleSeries
Told = dict[tuple[StreamKind, str], Value]
ALWAYS_APART = frozenset({"source", "received_time"})
# What a channel does not tell is None there. All else that our values hold both of them tell.
LACKING: Mapping[type, Mapping[str, frozenset[str]]] = {
    Ticker: {"rest": frozenset({"side", "state", "delisting_date"}), "websocket": frozenset()},
    Trade: {"rest": frozenset(), "websocket": frozenset()},
    Orderbook: {"rest": frozenset(), "websocket": frozenset()},
    CandleSeries: {"rest": frozenset(), "websocket": frozenset()},
}


async def by_rest(adapter: UpbitAdapter, base: ManualClock) -> Told:
    found: Told = {}
    for ticker in await adapter.tickers(SYMBOLS):
        found["ticker", ticker.symbol] = ticker
    for book in await adapter.orderbooks(SYMBOLS, depth=30, level=0):
        found["orderbook", book.symbol] = book
    for symbol in SYMBOLS:
        base.advance(1.0)  # the limits of the exchange count by it
        [found["trade", symbol]] = await adapter.trades(symbol, count=1)
        for timeframe in CANDLES:
            page, _ = await adapter.candles(symbol, timeframe, to_ms=None, count=1)
            found[CANDLE_KINDS[timeframe], symbol] = page
    return found


async def by_stream(url: str, form: StreamFormat) -> Told:
    context = Context(utc_datetime(NOON_MS + 7), "websocket", simulated=True)
    found: Told = {}
    async with websockets.connect(url, compression=None) as socket:
        types = [{"type": kind, "codes": SYMBOLS} for kind in KINDS]
        await socket.send(json.dumps([{"ticket": "one shape"}, *types, {"format": form}]))
        while len(found) < len(SYMBOLS) * len(KINDS):
            frame = await socket.recv(decode=False)
            event = decode_message(frame, form, context, closed_before_ms=NOON_MS - CLOSE_GRACE_MS)
            assert event is not None
            found[event.kind, event.value.symbol] = event.value
    return found


def differing(one: Value, other: Value) -> set[str]:
    """The fields in which two values of one type are not equal."""
    assert type(one) is type(other)
    if isinstance(one, CandleSeries):
        assert isinstance(other, CandleSeries)
        fields = {"symbol", "timeframe", "source", "simulated"}
        columns = {
            name
            for name in CandleSeries.COLUMNS
            if getattr(one, name).tolist() != getattr(other, name).tolist()
        }
        return columns | {name for name in fields if getattr(one, name) != getattr(other, name)}
    return {name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)}


async def test_rest_default_and_simple_tell_the_same(session: ClientSession) -> None:
    base = ManualClock()
    clock = FrozenClock(NOON_MS, base)
    async with Simulator(clock=clock, first_symbol=WON) as simulator:
        adapter = UpbitAdapter(
            session,
            rest_url=simulator.rest_url,
            ws_url=simulator.ws_url,
            origin=Origin("test-exchange"),
            clock=ExchangeClock(clock, follows_wall=True),
            local=clock,
        )
        rest = await by_rest(adapter, base)
        default = await by_stream(simulator.ws_url, "DEFAULT")
        simple = await by_stream(simulator.ws_url, "SIMPLE")
    assert rest.keys() == default.keys() == simple.keys()
    for key, value in rest.items():
        lacking = LACKING[type(value)]
        apart = ALWAYS_APART | lacking["rest"] | lacking["websocket"]
        assert differing(default[key], simple[key]) == set(), key
        assert differing(value, default[key]) <= apart, key
        assert (value.source, default[key].source) == ("rest", "websocket")
        for channel, told in (("rest", value), ("websocket", default[key])):
            assert all(getattr(told, name) is None for name in lacking[channel]), key
    assert_hard_to_tell_alike(default)


def assert_hard_to_tell_alike(told: Told) -> None:
    """A thin side, a market at rest, candles that are over and such that are not."""
    book, quiet, busy = told["orderbook", THIN], told["ticker", QUIET], told["ticker", WON]
    assert isinstance(book, Orderbook)
    assert isinstance(quiet, Ticker)
    assert isinstance(busy, Ticker)
    assert len(book.bids) < len(book.asks) == 30
    assert quiet.trade_time < utc_datetime(NOON_MS - 60_000)
    assert None not in (busy.side, busy.state)
    candles = [value for value in told.values() if isinstance(value, CandleSeries)]
    assert {bool(series.closed[0]) for series in candles} == {True, False}


def test_what_one_channel_lacks_stands_with_the_decoder() -> None:
    assert decode.__doc__ is not None
    for kind, channels in LACKING.items():
        for channel, fields in channels.items():
            line = f"{kind.__name__:<12}  {channel:<9}  {', '.join(sorted(fields)) or 'nothing'}"
            assert f"\n    {line}\n" in decode.__doc__
