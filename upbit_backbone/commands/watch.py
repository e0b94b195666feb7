"""``upbit-backbone watch``: prices as they change, in a table; in a pipe, a line for each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    Overrides,
    finite_number,
    print_json,
    run,
    stop_on_signals,
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
    value_cell,
    value_heading,
    value_text,
    value_unit,
)
from upbit_backbone.commands.quotes import SIMULATED, names_of, opened, symbols_of, with_name
from upbit_backbone.errors import InvalidRequestError, TransportError
from upbit_backbone.models import Market, Ticker
from upbit_backbone.price import format_price
from upbit_backbone.protocol import Subscription

DRAWN_EVERY_S = 0.25
SILENT_FOR_S = 3.0
"""The exchange sends a price at once: when none has come by now, why is told."""


def watch(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL…", help="Markets: KRW-BTC …")],
    seconds: Annotated[
        float | None,
        typer.Option(parser=finite_number, metavar="S", help="How long; else until Ctrl+C."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(parser=whole_number, metavar="N", help="End after N changes."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object on a line for each change.")
    ] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Show prices as they change, until Ctrl+C.

    In a pipe, and with --json: a line for each change. Exits with 1 when none came in time.
    """
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_watch(symbols, (seconds, count), overrides, as_json), interrupted=0, stays=True)


async def _watch(
    asked: Sequence[str],
    limits: tuple[float | None, int | None],
    overrides: Overrides,
    as_json: bool,
) -> None:
    seconds, count = limits
    if seconds is not None and seconds <= 0:
        raise InvalidRequestError(f"--seconds must be more than 0, was {seconds:g}")
    if count is not None and count < 1:
        raise InvalidRequestError(f"--count must be 1 or more, was {count}")
    symbols = symbols_of(asked)
    async with opened(overrides.config()) as manager:
        names = await names_of(manager)
        with ExitStack() as streams:
            readers = {}
            for symbol in symbols:
                readers[symbol] = manager.api.stream_ticker(symbol)
                streams.callback(readers[symbol].close)
            show = _chosen_show(readers, names, as_json)

            def why() -> str:
                status = manager.api.get_system_status()
                return status.reason or f"the connection is {status.connection}"

            with show:
                await _Watch(readers, show, count, why).run(seconds)


class _Watch:
    """Reads all streams until somebody stops it, the time is over, or enough was shown."""

    def __init__(
        self,
        readers: Mapping[str, Subscription],
        show: _Show,
        count: int | None,
        why: Callable[[], str],
    ) -> None:
        self._readers = readers
        self._show = show
        self._left = count
        self._why = why
        self._silent = True
        self._done = stop_on_signals()

    async def run(self, seconds: float | None) -> None:
        """Read.

        Raises:
            BackboneError: a stream failed, or nothing came in all the time.
        """
        ended = asyncio.create_task(self._done.wait(), name="end of watching")
        tasks = [
            asyncio.create_task(self._read(reader), name=f"watch {symbol}")
            for symbol, reader in self._readers.items()
        ]
        teller = asyncio.create_task(self._tell_of_silence(), name="tell that nothing comes")
        try:
            over, _ = await asyncio.wait(
                [ended, *tasks], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in over:
                await task  # what it failed with
        finally:
            for task in (ended, teller, *tasks):
                task.cancel()
            await asyncio.wait([ended, teller, *tasks])
        if self._silent and not over:
            raise TransportError(
                f"no price of {', '.join(self._readers)} within {seconds:g} s: {self._why()}"
            )

    async def _tell_of_silence(self) -> None:
        await asyncio.sleep(SILENT_FOR_S)
        if self._silent:
            self._show.wait(f"no price yet: {self._why()}")

    async def _read(self, reader: Subscription) -> None:
        async for ticker in reader:
            if self._left == 0:
                return
            self._silent = False
            self._show.take(ticker)
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    self._done.set()
                    return


class _Show:
    """Where tickers go; a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...
    def take(self, ticker: Ticker) -> None:
        """Show a price that has changed."""
        raise NotImplementedError

    def wait(self, sentence: str) -> None:
        """Tell why there is nothing to show; called once at most."""
        raise NotImplementedError


class _Lines(_Show):
    """A line for each change, at once: whoever reads the pipe waits for it."""

    def __init__(self, names: Mapping[str, Market], *, as_json: bool) -> None:
        self._names = names
        self._as_json = as_json

    def take(self, ticker: Ticker) -> None:
        if self._as_json:
            print_json(with_name(ticker, self._names))
        else:
            price = format_price(ticker.symbol, ticker.price)
            quote = ticker.symbol.partition("-")[0]
            value = value_text(ticker.symbol, ticker.value_24h)
            simulated = " SIMULATED" if ticker.simulated else ""
            sys.stdout.write(
                f"{kst(ticker.trade_time, '%Y-%m-%dT%H:%M:%S')}+09:00 {ticker.symbol} {price}"
                f" {ticker.change_rate:+.2%} {value} {value_unit(quote)}{simulated}\n"
            )
        sys.stdout.flush()

    def wait(self, sentence: str) -> None:
        tell(f"{sentence} (waiting goes on; Ctrl+C ends it)")


class _LiveTable(_Show):
    """A table that is drawn anew a few times a second."""

    def __init__(self, readers: Mapping[str, Subscription], names: Mapping[str, Market]) -> None:
        self._readers = readers
        self._names = names
        self._latest: dict[str, Ticker] = {}
        self._moves: dict[str, int] = {}
        self._why_silent = ""
        self._console = console_for()
        self._value_heading = value_heading(readers)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=1 / DRAWN_EVERY_S,
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def take(self, ticker: Ticker) -> None:
        before = self._latest.get(ticker.symbol)
        if before is not None and before.price != ticker.price:
            self._moves[ticker.symbol] = 1 if ticker.price > before.price else -1
        self._latest[ticker.symbol] = ticker

    def wait(self, sentence: str) -> None:
        self._why_silent = sentence

    def _render(self) -> RenderableType:
        simulated = any(one.simulated for one in self._latest.values())
        said = SIMULATED if simulated else "" if self._latest else self._why_silent
        title = Text("Ctrl+C ends" + (f" · {said}" if said else ""), style="dim")
        # A line is left for the title, one for the heading and its rule, one for the cursor.
        room = max(1, self._console.height - 6)
        table = self._table(shown := list(self._readers)[:room])
        if table.row_count > len(shown):  # too narrow: each value has a line of its own
            table = self._table(shown := shown[: max(1, room * len(shown) // table.row_count)])
        hidden = len(self._readers) - len(shown)
        if not hidden:
            return Group(table, title)
        return Group(table, title, Text(f"{hidden} more: the terminal is too low for them"))

    def _table(self, symbols: Sequence[str]) -> Table:
        rows = [self._row(symbol) for symbol in symbols]
        return fitting_table(_columns(self._value_heading), rows, width=self._console.width)

    def _row(self, symbol: str) -> list[Cell]:
        name = self._names[symbol].korean_name
        ticker, reader = self._latest.get(symbol), self._readers[symbol]
        if ticker is None:
            return [symbol, name, "", "…", "", "", "", "", "", _state(reader)]
        move = self._moves.get(symbol, 0)
        return [
            symbol,
            name,
            coloured({1: "▲", -1: "▼", 0: " "}[move], move),
            coloured(format_price(symbol, ticker.price), ticker.change),
            change_text(ticker.change_rate, ticker.change),
            value_cell(symbol, ticker.value_24h, self._value_heading),
            format_price(symbol, ticker.high),
            format_price(symbol, ticker.low),
            kst(ticker.trade_time),
            _state(reader),
        ]


def _columns(value_heading: str) -> tuple[Shown, ...]:
    return (
        Shown("market", "left"),
        Shown("name", "left", need=3),
        Shown("", "left", need=2),
        Shown("price"),
        Shown("change"),
        Shown(value_heading, need=4),
        Shown("high", need=6),
        Shown("low", need=7),
        Shown("traded (KST)", need=5),
        Shown("", "left", need=1),
    )


_STATES = {"pending": "connecting", "confirmed": "live", "stale": "stale", "closed": "ended"}


def _state(reader: Subscription) -> Text:
    word = _STATES[reader.state]
    return Text(word, style="green" if word == "live" else "yellow")


def _chosen_show(
    readers: Mapping[str, Subscription], names: Mapping[str, Market], as_json: bool
) -> _Show:
    if as_json or not sys.stdout.isatty():
        return _Lines(names, as_json=as_json)
    return _LiveTable(readers, names)
