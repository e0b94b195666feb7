"""The REST side: parameters in, bodies out, errors and limits as the exchange has them."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import formatdate

import msgspec
from aiohttp import hdrs, web

from upbit_backbone.clock import DAY_MS, SECOND_MS, epoch_ms
from upbit_backbone.simulator.candles import DAY_UNIT, MINUTE_UNITS, Candle, candles
from upbit_backbone.simulator.exchange import Desk, Exchange
from upbit_backbone.simulator.limits import CallCounter
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.rest_bodies import (
    Body,
    day_candle_body,
    market_body,
    minute_candle_body,
    orderbook_body,
    ticker_body,
    trade_body,
)
from upbit_backbone.simulator.wire import plain, price_of

MOST_CANDLES = 200
MOST_TRADES = 500
MOST_DAYS_AGO = 7

_TICKERS_AT_A_TIME = 8
"""Then the loop gets a turn, so that other callers, or this process' window, wait a
millisecond or two."""
_COMPRESS_FROM_BYTES = 1_024
_TO_FORMS = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)?")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):?([0-5]\d):?([0-5]\d)")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[web.Request], Awaitable[list[Body]]]


class RestError(Exception):
    """An answer that is an error; its name is the status, as on all quotation endpoints."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RestApi:
    """Quotation endpoints of the exchange."""

    def __init__(self, exchange: Exchange, calls: CallCounter) -> None:
        self._exchange = exchange
        self._clock = exchange.clock
        self._calls = calls

    def routes(self) -> list[web.RouteDef]:
        """All routed paths; any other is the gateway's 404."""
        return [
            web.get("/v1/market/all", self._limited("market", self._market_all)),
            web.get("/v1/candles/minutes/{unit}", self._limited("candles", self._minutes)),
            web.get("/v1/candles/days", self._limited("candles", self._days)),
            web.get("/v1/trades/ticks", self._limited("trades", self._trades)),
            web.get("/v1/ticker", self._limited("ticker", self._ticker)),
            web.get("/v1/ticker/all", self._limited("ticker", self._ticker_all)),
            web.get("/v1/orderbook", self._limited("orderbook", self._orderbook)),
            web.route("*", "/{path:.*}", no_route),
        ]

    def _limited(self, group: str, answer: Answer) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            refusal, headers = admit(self._calls, group, request, self._clock.monotonic())
            if refusal is not None:
                return refusal
            try:
                status, body = 200, msgspec.json.encode(await answer(request))
            except RestError as error:
                status, body = error.status, error_body(error.status, error.message)
            return _response(request, status, body, headers)

        return handle

    async def _market_all(self, request: web.Request) -> list[Body]:
        details = _text(request, "is_details", "isDetails").lower() == "true"
        now_ms = self._clock.now_ms()
        listings = await self._exchange.listings()
        return [
            market_body(listing, details=details)
            for listing in listings.values()
            if listing.listed_ms <= now_ms
        ]

    async def _minutes(self, request: web.Request) -> list[Body]:
        unit = _whole_number(request.match_info["unit"])
        if unit not in MINUTE_UNITS:
            raise RestError(400, "specified unit is not valid.")
        market, page = await self._candle_page(request, unit)
        return [minute_candle_body(market, candle, unit) for candle in page]

    async def _days(self, request: web.Request) -> list[Body]:
        converting = _text(request, "converting_price_unit", "convertingPriceUnit")
        if converting not in ("", "KRW"):
            raise _invalid()
        market, page = await self._candle_page(request, DAY_UNIT)
        bodies = [day_candle_body(market, candle) for candle in page]
        if converting:
            for body, candle in zip(bodies, page, strict=True):
                won = await self._in_won(market, candle)
                body["converted_trade_price"] = None if won is None else plain(won)
        return bodies

    async def _in_won(self, market: Market, candle: Candle) -> float | None:
        """The close of a candle in won; None while its quote asset had no price in won."""
        close = price_of(candle.close, market.scale)
        quote = market.symbol.partition("-")[0]
        if quote == "KRW":
            return close
        bitcoin_in_won = await self._price_at("KRW-BTC", candle.last_trade_ms)
        bitcoin = 1.0 if quote == "BTC" else await self._price_at("USDT-BTC", candle.last_trade_ms)
        return close * bitcoin_in_won / bitcoin if bitcoin_in_won and bitcoin else None

    async def _price_at(self, symbol: str, ms: int) -> float | None:
        market = (await self._desk(symbol)).market
        trade = market.last_trade(market.cut(ms + 1))
        return None if trade is None else price_of(trade.price, market.scale)

    async def _candle_page(self, request: web.Request, unit: int) -> tuple[Market, list[Candle]]:
        code = _required(request, "market")
        count = min(_count(request, default=1), MOST_CANDLES)
        to_ms = _instant(request)
        market = (await self._desk(code)).market
        now_ms = self._clock.now_ms()
        before_ms = now_ms + 1 if to_ms is None else to_ms
        return market, candles(market, unit, start_before_ms=before_ms, now_ms=now_ms, count=count)

    async def _trades(self, request: web.Request) -> list[Body]:
        code = _required(request, "market")
        count = min(_count(request, default=1), MOST_TRADES)
        days_ago = _number(request, "days_ago", "daysAgo") or 0
        if not 0 <= days_ago <= MOST_DAYS_AGO:
            raise _invalid()
        cursor = _number(request, "cursor")
        time_of_day_ms = _time_of_day(request)
        market = (await self._desk(code)).market
        now_ms = self._clock.now_ms()
        day_ms = (now_ms // DAY_MS - days_ago) * DAY_MS
        page = market.trades_back(
            from_ms=day_ms,
            before_ms=min(now_ms + 1, day_ms + time_of_day_ms),
            before_id=cursor,
            count=count,
        )
        return [trade_body(market, trade) for trade in page]

    async def _ticker(self, request: web.Request) -> list[Body]:
        return await self._tickers(await self._desks(request))

    async def _ticker_all(self, request: web.Request) -> list[Body]:
        quotes = _required(request, "quote_currencies").upper().split(",")
        now_ms = self._clock.now_ms()
        listings = await self._exchange.listings()
        known = {symbol.partition("-")[0] for symbol in listings}
        if not known.issuperset(quotes):
            raise _code_not_found()
        return await self._tickers(
            [
                await self._desk(symbol)
                for symbol, listing in listings.items()
                if symbol.partition("-")[0] in quotes and listing.listed_ms <= now_ms
            ]
        )

    async def _tickers(self, desks: list[Desk]) -> list[Body]:
        now_ms = self._clock.now_ms()
        await self._exchange.prepare(desks, now_ms)
        bodies = []
        for number, desk in enumerate(desks, 1):
            if (ticker := desk.tickers.at(now_ms)) is not None:
                bodies.append(ticker_body(desk.market, ticker, now_ms))
            if number % _TICKERS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return bodies

    async def _orderbook(self, request: web.Request) -> list[Body]:
        count = min(_count(request, default=BOOK_LEVELS), BOOK_LEVELS)
        desks = await self._desks(request)
        if _level(request) != 0:
            return []  # as the exchange answers a grouping that a market does not offer
        now_ms = self._clock.now_ms()
        return [
            orderbook_body(desk.market, book, count)
            for desk in desks
            if (book := desk.orderbooks.at(now_ms)) is not None
        ]

    async def _desks(self, request: web.Request) -> list[Desk]:
        """The markets of a comma list; one bad code fails the whole call."""
        codes = _required(request, "markets").split(",")
        now_ms = self._clock.now_ms()
        desks = [await self._desk(code) for code in codes]
        if any(desk.market.listing.listed_ms > now_ms for desk in desks):
            raise _code_not_found()
        return desks

    async def _desk(self, code: str) -> Desk:
        desk = await self._exchange.desk(code.upper())
        if desk is None:
            raise _code_not_found()
        return desk


def admit(
    calls: CallCounter, group: str, request: web.Request, now: float
) -> tuple[web.Response | None, dict[str, str]]:
    """Count a call: the 429 to answer with, or None, and the headers that say what is left.

    A call with an `Origin` header belongs to a group of its own, one call in ten seconds.
    """
    if hdrs.ORIGIN in request.headers:
        group, minute = "origin", 6
    else:
        minute = 300 if group == "websocket" else 600
    remaining = calls.take(group, request.remote or "", now)
    headers = {
        "remaining-req": f"group={group}; min={minute}; sec={remaining or 0}",
        "limit-by-ip": "Yes",
    }
    if remaining is not None:
        return None, headers
    body = error_body(429, "Too many requests")
    return _response(request, 429, body, headers), headers


async def no_route(request: web.Request) -> web.StreamResponse:
    """The gateway's answer to a path that leads nowhere; it has no `remaining-req`."""
    body = error_body("not_found", "no Route matched with those values")
    return _response(request, 404, body, {})


def error_body(name: int | str, message: str) -> bytes:
    """``{"error":{"name":…,"message":…}}``."""
    return msgspec.json.encode({"error": {"name": name, "message": message}})


def stamp(response: web.StreamResponse, exchange: Exchange) -> None:
    """Mark a response as simulated and date it by the exchange's own clock.

    Clients learn the exchange's time from `Date`; the machine's would contradict the data.
    """
    response.headers["X-Simulated-Exchange"] = exchange.name
    response.headers[hdrs.DATE] = formatdate(exchange.clock.now_ms() // 1_000, usegmt=True)


def _response(
    request: web.Request, status: int, body: bytes, headers: dict[str, str]
) -> web.Response:
    headers = {
        hdrs.CONTENT_TYPE: "application/json;charset=UTF-8",
        hdrs.CACHE_CONTROL: "no-cache, no-store, max-age=0, must-revalidate",
        **headers,
    }
    accepted = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    if len(body) >= _COMPRESS_FROM_BYTES and "gzip" in accepted:
        # The fastest level: the caller may share this process and its loop.
        packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(status=status, body=body, headers=headers)


def _text(request: web.Request, *names: str) -> str:
    """The first of a parameter's names that was given; empty counts as not given."""
    return next((text for name in names if (text := request.query.get(name, ""))), "")


def _required(request: web.Request, name: str) -> str:
    text = _text(request, name)
    if not text:
        raise RestError(400, "Missing request parameter error. Check the required parameters!")
    return text


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RestError(400, "Type mismatch error. Check the parameters type!") from None


def _number(request: web.Request, *names: str) -> int | None:
    text = _text(request, *names)
    return _whole_number(text) if text else None


def _count(request: web.Request, *, default: int) -> int:
    count = _number(request, "count")
    if count is None:
        return default
    if count < 1:
        raise _invalid()
    return count


def _instant(request: web.Request) -> int | None:
    """`to` as UTC milliseconds; a time without zone is UTC, an empty one is now."""
    text = _text(request, "to")
    if not text:
        return None
    # The date alone and other forms of ISO 8601 are not known to be accepted. An unencoded
    # `+` arrives as a blank, and the exchange refuses it too.
    if not _TO_FORMS.fullmatch(text):
        raise _invalid()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _invalid() from None
    return epoch_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _time_of_day(request: web.Request) -> int:
    """`to` of trades, ``HHmmss`` or ``HH:mm:ss``, in milliseconds; empty: the day's end."""
    text = _text(request, "to")
    if not text:
        return DAY_MS
    match = _TIME_OF_DAY.fullmatch(text)
    if match is None:
        raise _invalid()
    hours, minutes, seconds = map(int, match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * SECOND_MS


def _level(request: web.Request) -> float:
    try:
        return float(_text(request, "level") or 0)
    except ValueError:
        raise _invalid() from None


def _invalid() -> RestError:
    return RestError(400, "Invalid parameter. Check the given value!")


def _code_not_found() -> RestError:
    return RestError(404, "Code not found")
