"""The REST side: which parameters an endpoint takes, and what it answers.

How parameters are read is in `rest_parameters.py`, how rows are written in
`rest_bodies.py`; limits, headers and errors are the gateway's (`gateway.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from aiohttp import web

from upbit_backbone.clock import DAY_MS, MINUTE_MS
from upbit_backbone.simulator.candles import (
    DAY_UNIT,
    MINUTE_UNITS,
    Candle,
    Period,
    candles,
    period_candles,
    second_candles,
)
from upbit_backbone.simulator.exchange import Desk, Exchange
from upbit_backbone.simulator.gateway import Answer, Gateway, RestError, no_route
from upbit_backbone.simulator.instruments import Instrument, instrument_at
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.markets import BOOK_LEVELS, Listing
from upbit_backbone.simulator.rest_bodies import (
    Body,
    day_candle_bodies,
    instrument_body,
    market_body,
    minute_candle_bodies,
    orderbook_body,
    period_candle_bodies,
    second_candle_bodies,
    supported_levels_body,
    ticker_body,
    trade_bodies,
)
from upbit_backbone.simulator.rest_parameters import (
    INT64,
    Parameters,
    code_not_found,
    invalid,
    whole_number,
)
from upbit_backbone.simulator.wire import price_of

MOST_CANDLES = 200
MOST_TRADES = 500
MOST_DAYS_AGO = 7

_AT_A_TIME = 8
"""Markets; then the loop gets a turn, so that other callers, or this process' window, wait
a millisecond or two."""
_LATE_MS = 1_000
"""By how much the last trade of a candle is stored late, under `late_last_trade`."""


class _CandlesOf(Protocol):
    """The newest candles of one unit; `candles` and its like."""

    def __call__(
        self, market: Market, *, start_before_ms: int, now_ms: int, count: int
    ) -> list[Candle]: ...


class RestApi:
    """Quotation endpoints of the exchange."""

    def __init__(self, exchange: Exchange, gateway: Gateway) -> None:
        self._exchange = exchange
        self._clock = gateway.clock
        self._gateway = gateway
        self._settings = exchange.settings

    def routes(self) -> list[web.RouteDef]:
        """All routed paths; any other is the gateway's 404, and so is any other method."""
        endpoints: dict[str, tuple[str, Answer]] = {
            "market/all": ("market", self._market_all),
            "candles/seconds": ("candles", self._seconds),
            "candles/minutes/{unit}": ("candles", self._minutes),
            "candles/days": ("candles", self._days),
            "candles/weeks": ("candles", partial(self._periods, "week")),
            "candles/months": ("candles", partial(self._periods, "month")),
            "candles/years": ("candles", partial(self._periods, "year")),
            "trades/ticks": ("trades", self._trades),
            "ticker": ("ticker", self._ticker),
            "ticker/all": ("ticker", self._ticker_all),
            "orderbook": ("orderbook", self._orderbook),
            "orderbook/instruments": ("orderbook", self._orderbook_instruments),
            "orderbook/supported_levels": ("orderbook", self._orderbook_levels),
        }
        limited = self._gateway.limited
        return [
            *(
                web.get(f"/v1/{path}", limited(group, answer))
                for path, (group, answer) in endpoints.items()
            ),
            web.route("*", "/{path:.*}", no_route),
        ]

    async def _market_all(self, request: web.Request) -> list[Body]:
        details = self._parameters(request).flag("is_details")
        now_ms = self._clock.now_ms()
        return [
            market_body(listing, now_ms, details=details)
            for listing in (await self._exchange.listings()).values()
            if listing.is_listed(now_ms)
        ]

    async def _seconds(self, request: web.Request) -> list[Body]:
        return second_candle_bodies(*await self._candle_page(request, second_candles))

    async def _minutes(self, request: web.Request) -> list[Body]:
        unit = whole_number(request.match_info["unit"])
        if unit not in MINUTE_UNITS:
            raise RestError(400, "specified unit is not valid.")
        market, page = await self._candle_page(request, partial(_candles_of_minutes, unit))
        return minute_candle_bodies(market, page, unit)

    async def _days(self, request: web.Request) -> list[Body]:
        converting = self._parameters(request).text("converting_price_unit").upper()
        if converting not in ("", "KRW"):
            raise invalid()
        market, page = await self._candle_page(request, partial(_candles_of_minutes, DAY_UNIT))
        in_won = await self._won(market) if converting else None
        return day_candle_bodies(market, page, in_won)

    async def _periods(self, period: Period, request: web.Request) -> list[Body]:
        page = partial(_candles_of_period, period)
        return period_candle_bodies(*await self._candle_page(request, page))

    async def _candle_page(
        self, request: web.Request, candles_of: _CandlesOf
    ) -> tuple[Market, list[Candle]]:
        parameters = self._parameters(request)
        code = parameters.required("market")
        count = min(parameters.count(default=1), MOST_CANDLES)
        to_ms = parameters.instant("to")
        market = (await self._desk(code)).market
        now_ms = self._clock.now_ms()
        before_ms = now_ms + 1 if to_ms is None else to_ms
        late_ms = _LATE_MS if self._settings.late_last_trade else 0
        page = candles_of(market, start_before_ms=before_ms, now_ms=now_ms - late_ms, count=count)
        if late_ms:
            page = [row._replace(last_trade_ms=row.last_trade_ms + late_ms) for row in page]
        return market, page

    async def _won(self, market: Market) -> Callable[[Candle], float | None]:
        """Converts closes of a market into won, at the prices of the minute before.

        None for a candle at whose end its quote asset had no price in won.
        """
        quote = market.symbol.partition("-")[0]
        if quote == "KRW":
            return lambda candle: price_of(candle.close, market.scale)
        bitcoin_in_won = (await self._desk("KRW-BTC")).market
        bitcoin = None if quote == "BTC" else (await self._desk(f"{quote}-BTC")).market

        def in_won(candle: Candle) -> float | None:
            won = _price_before(bitcoin_in_won, candle.last_trade_ms)
            price = 1.0 if bitcoin is None else _price_before(bitcoin, candle.last_trade_ms)
            return price_of(candle.close, market.scale) * won / price if won and price else None

        return in_won

    async def _trades(self, request: web.Request) -> list[Body]:
        parameters = self._parameters(request)
        code = parameters.required("market")
        count = parameters.count(default=1)
        if count > MOST_TRADES and self._settings.trades_over_500 == "error":
            raise invalid()
        days_ago = parameters.number("days_ago") or 0
        in_range = 0 <= days_ago <= MOST_DAYS_AGO
        if not in_range and self._settings.days_ago_out_of_range == "error":
            raise invalid()
        cursor = parameters.number("cursor", INT64)
        time_of_day_ms = parameters.time_of_day("to")
        market = (await self._desk(code)).market
        if not in_range:
            return []
        now_ms = self._clock.now_ms()
        day_ms = (now_ms // DAY_MS - days_ago) * DAY_MS
        page = market.trades_back(
            from_ms=day_ms,
            before_ms=min(now_ms + 1, day_ms + time_of_day_ms),
            before_id=cursor,
            count=min(count, MOST_TRADES),
        )
        return trade_bodies(market, page)

    async def _ticker(self, request: web.Request) -> list[Body]:
        return await self._tickers(await self._desks(request))

    async def _ticker_all(self, request: web.Request) -> list[Body]:
        quotes = self._parameters(request).codes("quote_currencies")
        now_ms = self._clock.now_ms()
        listings = await self._exchange.listings()
        known = {symbol.partition("-")[0] for symbol in listings}
        if self._settings.ticker_all_unknown_quote == "404" and not known.issuperset(quotes):
            raise code_not_found()
        symbols = [
            symbol
            for symbol, listing in listings.items()
            if symbol.partition("-")[0] in quotes and listing.is_listed(now_ms)
        ]
        return await self._tickers(await self._desks_of(symbols))

    async def _tickers(self, desks: Sequence[Desk]) -> list[Body]:
        now_ms = self._clock.now_ms()
        await self._exchange.prepare(desks, now_ms)
        bodies = []
        for number, desk in enumerate(desks, 1):
            if (ticker := desk.tickers.at(now_ms)) is not None:
                bodies.append(ticker_body(desk.market, ticker, now_ms))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        return bodies

    async def _orderbook(self, request: web.Request) -> list[Body]:
        parameters = self._parameters(request)
        count = min(parameters.count(default=BOOK_LEVELS), BOOK_LEVELS)
        level = parameters.level()
        totals_of_shown = self._settings.total_sizes == "shown"
        desks = await self._desks(request)
        now_ms = self._clock.now_ms()
        bodies = []
        for number, desk in enumerate(desks, 1):
            # A market that does not offer the level, or has not traded yet, has no row.
            if (book := desk.orderbooks.grouped(now_ms, level)) is not None:
                bodies.append(
                    orderbook_body(desk.market, book, count, totals_of_shown=totals_of_shown)
                )
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        return bodies

    async def _orderbook_instruments(self, request: web.Request) -> list[Body]:
        return [instrument_body(instrument) for instrument in await self._instruments(request)]

    async def _orderbook_levels(self, request: web.Request) -> list[Body]:
        return [
            supported_levels_body(instrument) for instrument in await self._instruments(request)
        ]

    async def _instruments(self, request: web.Request) -> list[Instrument]:
        desks = await self._desks(request)
        now_ms = self._clock.now_ms()
        return [instrument_at(desk.market, now_ms) for desk in desks]

    async def _desks(self, request: web.Request) -> list[Desk]:
        """The markets of a comma list; one bad code fails the whole call."""
        now_ms = self._clock.now_ms()
        codes = self._parameters(request).codes("markets")
        listings = [await self._listing(code, now_ms) for code in codes]
        if not all(listing.is_listed(now_ms) for listing in listings):
            raise code_not_found()
        return await self._desks_of([listing.symbol for listing in listings])

    async def _desks_of(self, symbols: Sequence[str]) -> list[Desk]:
        desks = []
        for number, symbol in enumerate(symbols, 1):
            desk = await self._exchange.desk(symbol)
            assert desk is not None, "every listing has a desk"
            desks.append(desk)
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        return desks

    async def _desk(self, code: str) -> Desk:
        listing = await self._listing(code, self._clock.now_ms())
        desk = await self._exchange.desk(listing.symbol)
        assert desk is not None, "every listing has a desk"
        return desk

    async def _listing(self, code: str, now_ms: int) -> Listing:
        """Of a code in any case; delisted ones are as unknown as those that never were."""
        listing = (await self._exchange.listings()).get(code.upper())
        if listing is None or not listing.is_known(now_ms):
            raise code_not_found()
        return listing

    def _parameters(self, request: web.Request) -> Parameters:
        return Parameters(request.query, old_names=self._settings.old_names_accepted)


def _candles_of_minutes(
    unit: int, market: Market, *, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    return candles(market, unit, start_before_ms=start_before_ms, now_ms=now_ms, count=count)


def _candles_of_period(
    period: Period, market: Market, *, start_before_ms: int, now_ms: int, count: int
) -> list[Candle]:
    return period_candles(
        market, period, start_before_ms=start_before_ms, now_ms=now_ms, count=count
    )


def _price_before(market: Market, ms: int) -> float | None:
    close = market.close_before(ms // MINUTE_MS * MINUTE_MS)
    return None if close is None else price_of(close, market.scale)
