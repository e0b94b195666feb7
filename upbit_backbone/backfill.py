"""``upbit-backbone backfill``: the candles of the last days into the store, with a bar."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import msgspec
import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from upbit_backbone.clock import SystemClock, utc_datetime
from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    FAILED,
    JSON,
    Overrides,
    print_json,
    run,
    stop_on_signals,
    whole_number,
)
from upbit_backbone.commands.missing import UNCONFIRMED, missing_sentence
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.interrupts import INTERRUPTED
from upbit_backbone.models import Span, Timeframe
from upbit_backbone.protocol import SECONDS_KEPT_DAYS, Progress

if TYPE_CHECKING:
    from upbit_backbone.manager import BackboneManager

NARROW = 70
"""A terminal with fewer columns is given the figures without the bar."""
VERY_NARROW = 44
"""With fewer columns the figures stand before the market's name."""
SHOWN_EVERY_S = 1.0
"""When nothing arrives the figures go on: a load that stands still has no speed."""


def command(
    symbols: Annotated[str, typer.Option(help="Markets, with commas between them.")],
    timeframe: Annotated[str, typer.Option(help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y.")],
    days: Annotated[
        int,
        typer.Option(parser=whole_number, metavar="N", help="How far back, up to now."),
    ],
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Store candles of the last days. Ctrl+C keeps what is there; run again, it goes on.

    With --json: an object, when all is loaded.
    """
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_backfill(symbols, timeframe, days, overrides, as_json), stays=True)


async def _backfill(
    symbols: str, timeframe: str, days: int, overrides: Overrides, as_json: bool
) -> None:
    if not await backfill(symbols, timeframe, days, overrides.config(), as_json=as_json):
        raise typer.Exit(FAILED)


class Loaded(msgspec.Struct, frozen=True):
    """What is stored of a market, once it is loaded."""

    symbol: str
    timeframe: Timeframe
    start: datetime
    """From when on it was asked for."""
    candles: int
    new: int
    """How many of them were not stored before."""
    first_open_time: datetime | None
    last_open_time: datetime | None
    missing: tuple[Span, ...]

    @property
    def whole(self) -> bool:
        """Whether all could be had."""
        return all(span.reason == UNCONFIRMED for span in self.missing)

    def __str__(self) -> str:
        if self.first_open_time is None or self.last_open_time is None:
            told = f"no candle opened since {self.start:%Y-%m-%d %H:%M:%S} UTC"
        else:
            told = (
                f"{self.candles:,} candles from {self.first_open_time:%Y-%m-%d %H:%M:%S} to"
                f" {self.last_open_time:%Y-%m-%d %H:%M:%S} UTC ({self.new:,} loaded,"
                f" {self.candles - self.new:,} stored before)"
            )
        return f"{self.symbol} {self.timeframe}: {told}"


async def backfill(
    symbols: str, timeframe: str, days: int, config: BackboneConfig, *, as_json: bool = False
) -> bool:
    """Load candles of some markets, one after the other; what is stored is not asked again.

    Prints a line for each market; a bar, and what lacks, go to standard error. SIGINT and
    SIGTERM end it, and what was loaded stays.

    Args:
        symbols: With commas between them.
        timeframe: As users type it.
        days: How far back from now, by the exchange's time.
        config: Which exchange, and where to store.
        as_json: Print one document at the end instead.

    Returns:
        Whether all could be had.

    Raises:
        InvalidRequestError: one of the arguments is wrong; nothing was asked.
        BackboneError: the exchange or the store failed; what was loaded stays.
    """
    names = list(dict.fromkeys(name.strip().upper() for name in symbols.split(",") if name.strip()))
    if not names:
        raise InvalidRequestError(
            f"--symbols must name markets such as KRW-BTC,KRW-ETH, was {symbols!r}"
        )
    parsed = Timeframe.parse(timeframe)
    from upbit_backbone.manager import BackboneManager

    manager = BackboneManager(config)
    await manager.initialize()
    try:
        loaded = await _load_all(manager, names, parsed, days, as_json)
    finally:
        await manager.shutdown()
    where = config.data_dir / config.identity
    if as_json:
        print_json({"stored_in": where, "series": loaded})
    else:
        sys.stdout.write(f"stored in {where}\n")
    return all(one.whole for one in loaded)


async def _load_all(
    manager: BackboneManager, symbols: list[str], timeframe: Timeframe, days: int, as_json: bool
) -> list[Loaded]:
    from upbit_backbone.api.validation import check_symbol

    stopped = stop_on_signals()
    listed = [market.symbol for market in await manager.api.get_markets()]
    for symbol in symbols:
        check_symbol(symbol, listed)
    now_ms = SystemClock().now_ms() + manager.api.get_system_status().exchange_offset_ms
    start = _days_before(days, utc_datetime(now_ms))
    loaded: list[Loaded] = []
    with Bar() as bar:
        if timeframe is Timeframe.S1 and days > SECONDS_KEPT_DAYS:
            bar.tell(
                "the exchange keeps candles of one second for three months: of these"
                f" {days:,} days the first {days - SECONDS_KEPT_DAYS:,} cannot be had"
            )
        for number, symbol in enumerate(symbols, 1):
            if stopped.is_set():
                raise typer.Exit(INTERRUPTED)
            bar.begin(symbol, timeframe, number, len(symbols))
            one = await _load(manager, symbol, timeframe, start, bar, stopped)
            if one is None:
                raise typer.Exit(INTERRUPTED)
            loaded.append(one)
            if not as_json:
                bar.say(str(one))
            for span in one.missing:
                bar.tell(missing_sentence(symbol, timeframe, span))
    return loaded


async def _load(
    manager: BackboneManager,
    symbol: str,
    timeframe: Timeframe,
    start: datetime,
    bar: Bar,
    stopped: asyncio.Event,
) -> Loaded | None:
    """Load one market; None: it was stopped."""
    chunks = manager.api.iter_candle_chunks(symbol, timeframe, start, progress=bar.show)

    async def cancel_when_stopped() -> None:
        await stopped.wait()
        chunks.cancel()

    async def keep_showing() -> None:
        while True:
            await asyncio.sleep(SHOWN_EVERY_S)
            bar.show(chunks.progress)

    helpers = [
        asyncio.create_task(cancel_when_stopped(), name="stop on a signal"),
        asyncio.create_task(keep_showing(), name="show the progress"),
    ]
    bar.show(chunks.progress)
    opens: list[datetime] = []
    try:
        async for series in chunks:  # it is stored
            opens += [series[0].open_time, series[-1].open_time]
    finally:
        chunks.cancel()
        for helper in helpers:
            helper.cancel()
        await asyncio.wait(helpers)
        progress = chunks.progress
        if progress.state != "done":
            share = progress.done / max(1, progress.total)
            bar.tell(
                f"stopped at {share * 100:.0f} % of {symbol} {timeframe}: what was loaded is"
                " stored, and the same command goes on from there"
            )
    if progress.state != "done":
        return None
    return Loaded(
        symbol,
        timeframe,
        start,
        progress.candles,
        progress.new,
        min(opens, default=None),
        max(opens, default=None),
        tuple(chunks.missing),
    )


class Bar:
    """A bar on standard error, if that is a terminal; lines of words stand above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        flexible = Column(no_wrap=True, overflow="ellipsis", ratio=3)
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=2)),
            TaskProgressColumn(
                "{task.percentage:>3.0f} %", table_column=Column(no_wrap=True, min_width=5)
            ),
            TextColumn("{task.fields[told]}", table_column=flexible, markup=False),
            _Elapsed(),
        ]
        width = self._console.width
        if width < VERY_NARROW:
            figures = TextColumn("{task.fields[told]}", markup=False)
            figures._table_column = Column(no_wrap=True, overflow="ellipsis")
            name = TextColumn("{task.description}", table_column=flexible)
            columns = [columns[2], figures, name]
        elif width < NARROW:
            columns = [columns[0], columns[2], columns[3]]
        self._short = width < NARROW
        self._others_follow = False
        self._bars = _Bars(
            *columns,
            console=self._console,
            disable=not self._console.is_terminal,
            expand=True,
            transient=True,
            redirect_stdout=False,
        )
        self._task = self._bars.add_task("", total=None, told="")
        self._lifted: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def __enter__(self) -> Bar:
        self._bars.start()
        if self._console.is_terminal:
            self._lift_log()
        return self

    def __exit__(self, *exc: object) -> None:
        for handler, stream in self._lifted:
            handler.setStream(stream)
        self._lifted.clear()
        self._bars.stop()

    def _lift_log(self) -> None:
        """A line of the log in the middle of the bar would leave a broken one behind."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream.isatty():
                self._lifted.append((handler, handler.stream))
                handler.setStream(FileProxy(self._console, handler.stream))

    def begin(self, symbol: str, timeframe: Timeframe, number: int, of: int) -> None:
        """Show another market."""
        self._others_follow = number < of
        place = f" ({number} of {of})" if of > 1 else ""
        self._bars.reset(self._task, description=f"{symbol} {timeframe}{place}", told="")

    def show(self, progress: Progress) -> None:
        """Show how far it has come."""
        self._bars.update(
            self._task,
            completed=progress.done,
            total=max(1, progress.total),
            told=told(progress, short=self._short, others_follow=self._others_follow),
        )

    def say(self, line: str) -> None:
        """A line of the result, on standard output; the bar makes room for it."""
        self._bars.stop()
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        self._bars.start()

    def tell(self, sentence: str) -> None:
        """A line of words, above the bar."""
        self._console.print(sentence, soft_wrap=True, markup=False, highlight=False)


class _Bars(Bars):
    """Ends before the line does: the ``^C`` that a terminal echoes must not wrap it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield _Shorter(self.make_tasks_table(self.tasks), len("^C") + 1)


class _Elapsed(TimeElapsedColumn):
    """How long it has run, with a word for it: beside it stands how long it will."""

    def render(self, task: Task) -> Text:
        return super().render(task) + Text(" elapsed", style="progress.elapsed")


class _Shorter:
    """Something to render, so many columns narrower than there is room."""

    def __init__(self, inner: RenderableType, by: int) -> None:
        self._inner = inner
        self._by = by

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Constrain(self._inner, max(1, options.max_width - self._by))


def told(progress: Progress, *, short: bool = False, others_follow: bool = False) -> str:
    """What is to be said of a load besides how far it has come; the most important first.

    Args:
        progress: Of one market.
        short: Without the speed.
        others_follow: The time left is that of one market of several.
    """
    match progress.state:
        case "rate-limited" if progress.until is not None:
            return f"rate-limited until {progress.until:%H:%M:%S} UTC"
        case "waiting for load" | "waiting":
            return f"waiting: {progress.reason}"
        case "running" if progress.reason:
            return progress.reason
        case "running" if progress.time_left_s is None:
            return "" if progress.candles else "looking for the first candle"
        case "running":
            left = f"{timedelta(seconds=round(progress.time_left_s or 0.0))} left"
            if short:
                return left
            of_what = " of this market" if others_follow else ""
            return f"{left}{of_what}, {progress.candles_per_s:,.0f} candles/s"
    return progress.state


def _days_before(days: int, now: datetime) -> datetime:
    most = (now - utc_datetime(0)).days
    if not 1 <= days <= most:
        raise InvalidRequestError(
            f"--days must be 1 to {most:,} (candles begin after 1970-01-01), was {days}"
        )
    return now - timedelta(days=days)
