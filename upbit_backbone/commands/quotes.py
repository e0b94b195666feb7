"""``upbit-backbone ticker``, ``orderbook`` and ``trades``: what a market is worth now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    JSON,
    Overrides,
    in_flags,
    moment,
    plain,
    print_json,
    run,
    whole_number,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import (
    FALL,
    RISE,
    Cell,
    Shown,
    change_text,
    coloured,
    console_for,
    fitting_table,
    kst,
    value_cell,
    value_heading,
)
from upbit_backbone.config import BackboneConfig
from upbit_backbone.models import Market, Orderbook, Ticker, Trade
from upbit_backbone.price import format_price, price_decimals
from upbit_backbone.protocol import MAX_DEPTH, Priority

if TYPE_CHECKING:
    from upbit_backbone.manager import BackboneManager

DEFAULT_TRADES = 20
DEFAULT_ROWS = 15
SIMULATED = "모의 SIMULATED"
_BAR = 12
"""Columns of the widest bar beside a size."""


def ticker(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL…", help="Markets: KRW-BTC …")],
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Print the latest price of markets, and what they did today.

    With --json: a list.
    """
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_ticker(symbols_of(symbols), overrides, as_json))


def orderbook(
    symbol: Annotated[str, typer.Argument(help="Market, e.g. KRW-BTC.")],
    depth: Annotated[
        int,
        typer.Option(parser=whole_number, metavar="N", help=f"Rows a side, 1 to {MAX_DEPTH}."),
    ] = DEFAULT_ROWS,
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Print the order book of a market, the lowest ask above the highest bid.

    With --json: an object.
    """
    run(
        _orderbook(
            symbol.strip().upper(),
            depth,
            Overrides(exchange, rest_url, ws_url, data_dir, config),
            as_json,
        )
    )


def trades(
    symbol: Annotated[str, typer.Argument(help="Market, e.g. KRW-BTC.")],
    count: Annotated[
        int | None,
        typer.Option(
            parser=whole_number,
            metavar="N",
            help="How many: the latest before --to, or the first from --from"
            f" [default: {DEFAULT_TRADES} without --from].",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="First time, seven days ago at most; without an offset it is local time.",
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="End, exclusive; else now.")
    ] = None,
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Print trades of a market, oldest first.

    With --json: a list.
    """
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_trades(symbol.strip().upper(), count, (start, end), overrides, as_json))


@asynccontextmanager
async def opened(config: BackboneConfig) -> AsyncIterator[BackboneManager]:
    """A service for one command; only here it is imported, so that --help is quick."""
    from upbit_backbone.manager import BackboneManager

    manager = BackboneManager(config)
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()


async def names_of(manager: BackboneManager) -> dict[str, Market]:
    """What the exchange lists, by symbol."""
    return {market.symbol: market for market in await manager.api.get_markets()}


def symbols_of(asked: Sequence[str]) -> list[str]:
    """Markets as a person types them: small letters do, and each counts once."""
    return list(dict.fromkeys(symbol.strip().upper() for symbol in asked))


async def _ticker(symbols: Sequence[str], overrides: Overrides, as_json: bool) -> None:
    async with opened(overrides.config()) as manager:
        names = await names_of(manager)
        ask = manager.api.get_ticker_data
        found = await asyncio.gather(*(ask(symbol, Priority.HIGH) for symbol in symbols))
    if as_json:
        print_json([with_name(one, names) for one in found])
        return
    console = console_for()
    if found[0].simulated:
        console.print(SIMULATED)
    heading = value_heading(symbols)
    rows = [_ticker_row(one, names, heading) for one in found]
    console.print(fitting_table(_ticker_columns(heading), rows, width=console.width))


def _ticker_columns(heading: str) -> tuple[Shown, ...]:
    return (
        Shown("market", "left"),
        Shown("name", "left", need=2),
        Shown("price"),
        Shown("change"),
        Shown(heading, need=1),
        Shown("high", need=4),
        Shown("low", need=5),
        Shown("52w high", need=6),
        Shown("52w low", need=7),
        Shown("traded (KST)", need=3),
    )


def _ticker_row(one: Ticker, names: Mapping[str, Market], heading: str) -> list[Cell]:
    symbol = one.symbol
    return [
        symbol,
        names[symbol].korean_name if symbol in names else "",
        coloured(format_price(symbol, one.price), one.change),
        change_text(one.change_rate, one.change),
        value_cell(symbol, one.value_24h, heading),
        format_price(symbol, one.high),
        format_price(symbol, one.low),
        format_price(symbol, one.high_52w),
        format_price(symbol, one.low_52w),
        kst(one.trade_time),
    ]


def with_name(one: Ticker, names: Mapping[str, Market]) -> dict[str, object]:
    """A ticker as JSON has it, with the names of its market."""
    market = names.get(one.symbol)
    told = {} if market is None else {
        "korean_name": market.korean_name, "english_name": market.english_name
    }  # fmt: skip
    return {**plain(one), **told}


async def _orderbook(symbol: str, depth: int, overrides: Overrides, as_json: bool) -> None:
    async with opened(overrides.config()) as manager:
        with in_flags():
            book = await manager.api.get_orderbook_data(symbol, Priority.HIGH, depth=depth)
        names = await names_of(manager)
    if as_json:
        sides = {
            side: [{"price": level.price, "size": level.size} for level in levels]
            for side, levels in (("asks", book.asks), ("bids", book.bids))
        }
        print_json({**plain(book), **sides})
        return
    name = names[symbol].korean_name if symbol in names else ""
    at = kst(book.exchange_time, "%Y-%m-%d %H:%M:%S")
    console = console_for()
    mark = f" · {SIMULATED}" if book.simulated else ""
    console.print(f"{symbol} {name}, {at} KST{mark}", soft_wrap=True)
    console.print(fitting_table(_book_columns(symbol), _book_rows(book), width=console.width))
    if book.asks and book.bids:
        ask, bid = book.asks[0].price, book.bids[0].price
        spread = f"{ask - bid:,.{price_decimals(symbol, ask)}f}"
        console.print(f"spread {spread} ({(ask - bid) / bid:.3%})", highlight=False)


def _book_columns(symbol: str) -> tuple[Shown, ...]:
    quote, _, base = symbol.partition("-")
    return (
        Shown("", "left"),
        Shown(f"price ({quote})"),
        Shown(f"size ({base})"),
        Shown("", "left", need=1),
    )


def _book_rows(book: Orderbook) -> list[list[Cell]]:
    most = max((level.size for level in (*book.asks, *book.bids)), default=0.0) or 1.0
    rows: list[list[Cell]] = []
    for side, style, levels in (("ask", FALL, reversed(book.asks)), ("bid", RISE, book.bids)):
        rows += [
            [
                Text(side, style=style),
                Text(format_price(book.symbol, level.price), style=style),
                f"{level.size:,.8f}",
                Text("█" * max(1, round(level.size / most * _BAR)), style=style),
            ]
            for level in levels
        ]
    return rows


async def _trades(
    symbol: str,
    count: int | None,
    times: tuple[str | None, str | None],
    overrides: Overrides,
    as_json: bool,
) -> None:
    start, end = moment("--from", times[0]), moment("--to", times[1])
    if count is None and start is None:
        count = DEFAULT_TRADES
    async with opened(overrides.config()) as manager:
        with in_flags():
            found = await manager.api.get_trade_data(symbol, start, end, count=count)
    if as_json:
        print_json(found)
        return
    console = console_for()
    if found and found[0].simulated:
        console.print(SIMULATED)
    quote, _, base = symbol.partition("-")
    columns = (
        Shown("time (KST)", "left"),
        Shown("side", "left"),
        Shown(f"price ({quote})"),
        Shown(f"volume ({base})", need=1),
        Shown(f"value ({quote})", need=2),
        Shown("id", need=3),
    )
    rows = [_trade_row(one) for one in found]
    console.print(fitting_table(columns, rows, width=console.width))


def _trade_row(one: Trade) -> list[Cell]:
    style = RISE if one.side == "BUY" else FALL
    value = one.price * one.volume
    decimals = 0 if one.symbol.startswith("KRW-") else 4
    return [
        kst(one.exchange_time, "%m-%d %H:%M:%S"),
        Text(one.side, style=style),
        Text(format_price(one.symbol, one.price), style=style),
        f"{one.volume:,.8f}",
        f"{value:,.{decimals}f}",
        str(one.sequential_id),
    ]
