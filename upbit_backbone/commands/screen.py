"""``upbit-backbone screen``: all markets of a quote asset, those that matter first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    JSON,
    Overrides,
    print_json,
    run,
    whole_number,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import (
    Cell,
    Shown,
    change_text,
    coloured,
    console_for,
    fitting_table,
    kst,
    tell,
    value_text,
    value_unit,
)
from upbit_backbone.commands.quotes import SIMULATED, names_of, opened, with_name
from upbit_backbone.errors import BackboneError, DataUnavailableError, InvalidRequestError
from upbit_backbone.models import Market, Ticker
from upbit_backbone.price import format_price
from upbit_backbone.protocol import Priority

MOST = 1_000
"""More markets than the exchange has."""


class Sort(Enum):
    """What comes first."""

    VALUE = "value"
    CHANGE = "change"
    PRICE = "price"
    NAME = "name"


_KEYS: Mapping[Sort, Callable[[Ticker], Any]] = {
    Sort.VALUE: lambda one: -one.value_24h,
    Sort.CHANGE: lambda one: -one.change_rate,
    Sort.PRICE: lambda one: -one.price,
    Sort.NAME: lambda one: one.symbol,
}


def _sort(text: str) -> Sort:
    try:
        return Sort(text)
    except ValueError:
        raise typer.BadParameter(f"must be value, change, price or name, was {text!r}") from None


def screen(
    sort: Annotated[
        Sort,
        typer.Option(
            parser=_sort,
            metavar="value|change|price|name",
            help="The largest first; names from A on.",
        ),
    ] = Sort.VALUE,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="The smallest first: with change, what falls most.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(parser=whole_number, metavar="N", help="Only the first N; else all."),
    ] = None,
    quote: Annotated[str, typer.Option(metavar="Q", help="Quote asset: KRW, BTC or USDT.")] = "KRW",
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Print all markets in won, or the first of them by change or traded value.

    With --json: a list.
    """
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_screen(sort, reverse, top, quote, overrides, as_json))


async def _screen(
    sort: Sort, reverse: bool, top: int | None, quote: str, overrides: Overrides, as_json: bool
) -> None:
    if top is not None and not 1 <= top <= MOST:
        raise InvalidRequestError(f"--top must be 1 to {MOST:,}, was {top}")
    async with opened(overrides.config()) as manager:
        names = await names_of(manager)
        symbols = [symbol for symbol in names if symbol.startswith(f"{quote.upper()}-")]
        if not symbols:
            quotes = sorted({symbol.partition("-")[0] for symbol in names})
            raise InvalidRequestError(
                f"no market is quoted in {quote!r}: --quote must be one of {', '.join(quotes)}"
            )
        ask = manager.api.get_ticker_data
        answers = await asyncio.gather(
            *(ask(symbol, Priority.HIGH) for symbol in symbols), return_exceptions=True
        )
    found = _answered(answers)
    found.sort(key=_KEYS[sort], reverse=reverse)
    shown = found[:top]
    if as_json:
        print_json([with_name(one, names) for one in shown])
    else:
        _print(shown, names, quote.upper(), f"{len(shown)} of {len(found)}")
    if len(found) < len(symbols):
        tell(f"{len(symbols) - len(found)} markets have not been traded yet, and have no price")


def _answered(answers: Sequence[Ticker | BaseException]) -> list[Ticker]:
    """The tickers; a market that was listed and never traded has none.

    Raises:
        BackboneError: what else went wrong first.
    """
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, DataUnavailableError):
            raise answer
    found = [answer for answer in answers if isinstance(answer, Ticker)]
    if not found:
        raise next(answer for answer in answers if isinstance(answer, BackboneError))
    return found


def _columns(unit: str, *, noted: bool) -> tuple[Shown, ...]:
    return (
        Shown("#", need=3),
        Shown("market", "left"),
        Shown("name", "left", need=2),
        Shown("price"),
        Shown("change"),
        Shown(f"24h ({unit})", need=1),
        Shown("high", need=5),
        Shown("low", need=6),
        Shown("traded (KST)", need=4),
        Shown("note" if noted else "", "left", need=2),
    )


def _print(found: Sequence[Ticker], names: Mapping[str, Market], quote: str, how_many: str) -> None:
    console = console_for()
    mark = f" · {SIMULATED}" if found[0].simulated else ""
    console.print(f"{quote} markets, {how_many}{mark}", soft_wrap=True)
    rows = [_row(number, one, names[one.symbol]) for number, one in enumerate(found, 1)]
    columns = _columns(value_unit(quote), noted=any(row[-1] for row in rows))
    console.print(fitting_table(columns, rows, width=console.width))


def _row(number: int, one: Ticker, market: Market) -> list[Cell]:
    return [
        str(number),
        one.symbol,
        market.korean_name,
        coloured(format_price(one.symbol, one.price), one.change),
        change_text(one.change_rate, one.change),
        value_text(one.symbol, one.value_24h),
        format_price(one.symbol, one.high),
        format_price(one.symbol, one.low),
        kst(one.trade_time, "%m-%d %H:%M:%S"),
        "유의 warning" if market.warning else "주의 caution" if market.caution else "",
    ]
