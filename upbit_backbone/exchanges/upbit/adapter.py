"""Upbit's public market data as routing sees it: one call, one request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import TypeVar

from aiohttp import ClientSession

from upbit_backbone.clock import SECOND_MS, Clock, ExchangeClock, utc_datetime
from upbit_backbone.errors import DataUnavailableError, InvalidRequestError, ProtocolError
from upbit_backbone.exchanges.upbit import addresses
from upbit_backbone.exchanges.upbit.decode import (
    Context,
    OnMicroseconds,
    decode_candles,
    decode_markets,
    decode_orderbooks,
    decode_tickers,
    decode_trades,
)
from upbit_backbone.exchanges.upbit.rest import TIMEOUT_S, OnRemaining, RestClient
from upbit_backbone.exchanges.upbit.websocket import UpbitSocket, open_socket
from upbit_backbone.models import (
    CLOSE_GRACE_MS,
    CandleSeries,
    Market,
    Orderbook,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import MAX_DEPTH, MAX_PAGE_CANDLES, MAX_PAGE_TRADES
from upbit_backbone.routing.exchange import MAX_AHEAD_S

MAX_DAYS_AGO = 7
"""How far back single trades are to be had."""

Listed = TypeVar("Listed", Ticker, Orderbook)


class UpbitAdapter:
    """Upbit, Korea, without a key; implements `ExchangeAdapter`.

    Upbit has no endpoint for its time, so every answer's ``Date`` and every message's
    stamp teach `clock`. Every answer's mark is shown to `origin` before its data is used.
    """

    def __init__(
        self,
        session: ClientSession,
        *,
        rest_url: str,
        ws_url: str,
        origin: Origin,
        clock: ExchangeClock,
        local: Clock,
        on_remaining: OnRemaining | None = None,
        on_microseconds: OnMicroseconds | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Store what is given; nothing is sent yet.

        Args:
            session: Pooled HTTP connections; stays the caller's to close.
            rest_url: Ends in ``/v1``.
            ws_url: Of the public stream.
            origin: Refuses answers of another exchange or simulator.
            clock: Learns the exchange's time.
            local: This machine's time, for receive times.
            on_remaining: Told, after each answer that says so, how many calls its rate group
                has left in the current second.
            on_microseconds: Told the kind and symbol of each value whose stamp came in
                microseconds and was divided by 1,000.
            timeout_s: How long one request, or opening a socket, may take.
        """
        self._rest = RestClient(
            session,
            rest_url,
            origin=origin,
            clock=clock,
            on_remaining=on_remaining,
            timeout_s=timeout_s,
        )
        self._ws_url = ws_url
        self._origin = origin
        self._clock = clock
        self._local = local
        self._on_remaining = on_remaining
        self._on_microseconds = on_microseconds
        self._timeout_s = timeout_s

    @property
    def reference(self) -> str:
        """Bitcoin in won: its ticker changes several times a second, by day and by night."""
        return "KRW-BTC"

    async def markets(self) -> tuple[Market, ...]:
        """All listed markets with their designations, in the exchange's order.

        Source: https://docs.upbit.com/kr/reference/list-trading-pairs
        """
        body = await self._rest.get(addresses.MARKETS, "market list", is_details="true")
        return decode_markets(body)

    async def candles(
        self, symbol: str, timeframe: Timeframe, *, to_ms: int | None, count: int
    ) -> tuple[CandleSeries, int | None]:
        """The `count` (1 to 200) latest candles with open time < `to_ms` (None: now).

        Periods without a trade have no candle, so a page may reach far back, or be short.
        A candle counts as closed a grace of a second after its end, by the exchange's clock.

        Source: https://docs.upbit.com/kr/reference/list-candles-minutes
        """
        _require("count", count, 1, MAX_PAGE_CANDLES)
        parameters: dict[str, str | int] = {"market": symbol, "count": count}
        if to_ms is not None:
            # Candles open on whole seconds, so the bound of the next whole second asks for
            # exactly the same ones. Fractions of a second are not documented.
            parameters["to"] = f"{utc_datetime(_ceil_second(to_ms)):%Y-%m-%dT%H:%M:%SZ}"
        what = f"candles of {symbol} {timeframe}"
        asked_s = self._clock.monotonic()
        body = await self._rest.get(addresses.CANDLES[timeframe], what, symbol=symbol, **parameters)
        # A row read while it formed may be delivered after its end: judged by the moment of
        # asking, but on the clock that the answer has set right.
        took_ms = math.ceil((self._clock.monotonic() - asked_s) * SECOND_MS)
        series, stamp_ms = decode_candles(
            body,
            symbol,
            timeframe,
            closed_before_ms=self._clock.now_ms() - took_ms - CLOSE_GRACE_MS,
            simulated=self._origin.simulated,
        )
        if len(series) > count or (len(series) and to_ms is not None and series.time[-1] >= to_ms):
            raise ProtocolError(
                f"{what}: the exchange answered {len(series)} candles up to"
                f" {series[-1].open_time:%Y-%m-%dT%H:%M:%SZ} when asked for {parameters}"
            )
        now_ms = self._clock.now_ms()
        if stamp_ms is not None and stamp_ms > now_ms + MAX_AHEAD_S * SECOND_MS:
            # No trade is of the future, and the page tells of all there were.
            stamp_ms = now_ms
        return series, stamp_ms

    async def tickers(self, symbols: Sequence[str]) -> tuple[Ticker, ...]:
        """One ticker a symbol, in the order asked; one unknown symbol fails them all.

        Source: https://docs.upbit.com/kr/reference/list-tickers
        """
        asked = _listed(symbols)
        body = await self._rest.get(
            addresses.TICKERS, f"tickers of {asked:.80}", symbol=asked, markets=asked
        )
        return _in_order(decode_tickers(body, self._context()), symbols, "ticker")

    async def all_tickers(self, quotes: Sequence[str]) -> tuple[Ticker, ...]:
        """The tickers of all markets of some quote assets (`KRW`, `BTC`, `USDT`), any order.

        Source: https://docs.upbit.com/kr/reference/list-quote-tickers
        """
        asked = _listed(quotes)
        body = await self._rest.get(
            addresses.ALL_TICKERS, f"all tickers in {asked}", quote_currencies=asked
        )
        return tuple(decode_tickers(body, self._context()))

    async def orderbooks(
        self, symbols: Sequence[str], *, depth: int, level: float
    ) -> tuple[Orderbook, ...]:
        """One book a symbol, in the order asked, at most `depth` (1 to 30) rows a side.

        `level` groups prices (won markets only; 0: not grouped). The totals stay those of
        the rows the exchange counted, not of `depth`.

        Raises:
            DataUnavailableError: the exchange has no such `level` for one of the symbols.

        Source: https://docs.upbit.com/kr/reference/list-orderbooks
        """
        _require("depth", depth, 1, MAX_DEPTH)
        asked = _listed(symbols)
        parameters: dict[str, str | int] = {"markets": asked, "count": depth}
        if level:
            parameters["level"] = f"{Decimal(repr(level)).normalize():f}"
        body = await self._rest.get(
            addresses.ORDERBOOKS, f"order books of {asked:.80}", symbol=asked, **parameters
        )
        books = decode_orderbooks(body, self._context(), depth=depth)
        # An unsupported level is answered with 200 and an empty list.
        return _in_order(books, symbols, f"order book of level {level:g}")

    async def trades(
        self,
        symbol: str,
        *,
        count: int,
        to_ms: int | None = None,
        cursor: int | None = None,
        days_ago: int | None = None,
    ) -> tuple[Trade, ...]:
        """The `count` (1 to 500) latest trades, newest first.

        Args:
            symbol: Market code.
            count: Page size.
            to_ms: Exclusive end, floored to the second; its UTC day is that of `days_ago`.
            cursor: Only trades older than the one with this `sequential_id`.
            days_ago: UTC day, 0 (today) to 7.

        Source: https://docs.upbit.com/kr/reference/list-pair-trades
        """
        _require("count", count, 1, MAX_PAGE_TRADES)
        parameters: dict[str, str | int] = {"market": symbol, "count": count}
        if to_ms is not None:
            parameters["to"] = f"{utc_datetime(to_ms):%H:%M:%S}"
        if cursor is not None:
            parameters["cursor"] = cursor
        if days_ago:
            # Today is asked for by leaving it out; 0 is not documented.
            _require("days_ago", days_ago, 0, MAX_DAYS_AGO)
            parameters["days_ago"] = days_ago
        body = await self._rest.get(
            addresses.TRADES, f"trades of {symbol}", symbol=symbol, **parameters
        )
        return decode_trades(body, symbol, self._context())

    def connect(self) -> AbstractAsyncContextManager[UpbitSocket]:
        """Open a socket; leaving the context closes it."""
        return open_socket(
            self._ws_url,
            origin=self._origin,
            clock=self._clock,
            local=self._local,
            on_remaining=self._on_remaining,
            on_microseconds=self._on_microseconds,
            timeout_s=self._timeout_s,
        )

    def _context(self) -> Context:
        return Context(
            utc_datetime(self._local.now_ms()),
            "rest",
            self._origin.simulated,
            self._on_microseconds,
        )


def _require(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be {low}..{high}, was {value}")


def _ceil_second(ms: int) -> int:
    return -(-ms // SECOND_MS) * SECOND_MS


def _listed(symbols: Sequence[str]) -> str:
    if not symbols:
        raise InvalidRequestError("symbols must name at least one market, was empty")
    return ",".join(symbols)


def _in_order(found: tuple[Listed, ...], symbols: Sequence[str], what: str) -> tuple[Listed, ...]:
    by_symbol = {value.symbol: value for value in found}
    missing = [symbol for symbol in symbols if symbol not in by_symbol]
    if missing:
        raise DataUnavailableError(
            f"the exchange has no {what} for {', '.join(missing)}: leave it out, or ask for another"
        )
    return tuple(by_symbol[symbol] for symbol in symbols)
