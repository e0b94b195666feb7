"""``upbit-backbone backfill``: the candles of the last days into the store, with a bar."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TextIO

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
from upbit_backbone.command_line import INTERRUPTED
from upbit_backbone.commands.missing import UNCONFIRMED, missing_sentence
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import SECONDS_KEPT_DAYS, Progress

NARROW = 70
"""A terminal with fewer columns is given the figures without the bar."""
VERY_NARROW = 44
"""With fewer columns the figures stand before the market's name."""
SHOWN_EVERY_S = 1.0
"""When nothing arrives the figures go on: a load that stands still has no speed."""


async def backfill(symbols: str, timeframe: str, days: int, config: BackboneConfig) -> bool:
    """Load candles of some markets, one after the other; what is stored is not asked again.

    Prints a line for each market; a bar, and what lacks, go to standard error. SIGINT and
    SIGTERM end it, and what was loaded stays.

    Args:
        symbols: With commas between them.
        timeframe: As users type it.
        days: How far back from now, by the exchange's time.
        config: Which exchange, and where to store.

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
    manager = BackboneManager(config)
    await manager.initialize()
    try:
        whole = await _load_all(manager, names, parsed, days)
    finally:
        await manager.shutdown()
    sys.stdout.write(f"stored in {config.data_dir / config.identity}\n")
    return whole


async def _load_all(
    manager: BackboneManager, symbols: list[str], timeframe: Timeframe, days: int
) -> bool:
    stopped = asyncio.Event()
    _on_signals(stopped)
    listed = [market.symbol for market in await manager.api.get_markets()]
    for symbol in symbols:
        if symbol not in listed:
            close = get_close_matches(symbol.upper(), listed, n=3)
            raise UnknownSymbolError(symbol, tuple(close))
    now_ms = SystemClock().now_ms() + manager.api.get_system_status().exchange_offset_ms
    start = _days_before(days, utc_datetime(now_ms))
    whole = True
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
            whole &= await _load(manager, symbol, timeframe, start, bar, stopped)
            if stopped.is_set() and not whole:
                raise typer.Exit(INTERRUPTED)
    return whole


async def _load(
    manager: BackboneManager,
    symbol: str,
    timeframe: Timeframe,
    start: datetime,
    bar: Bar,
    stopped: asyncio.Event,
) -> bool:
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
        return False
    bar.say(f"{symbol} {timeframe}: {_had(progress, opens, start)}")
    whole = True
    for span in chunks.missing:
        bar.tell(missing_sentence(symbol, timeframe, span))
        whole &= span.reason == UNCONFIRMED
    return whole


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
        case "waiting for load":
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


def _had(progress: Progress, opens: list[datetime], start: datetime) -> str:
    """What a finished load has brought."""
    if not opens:
        return f"no candle opened since {start:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"{progress.candles:,} candles from {min(opens):%Y-%m-%d %H:%M:%S} to"
        f" {max(opens):%Y-%m-%d %H:%M:%S} UTC ({progress.new:,} loaded,"
        f" {progress.candles - progress.new:,} stored before)"
    )


def _days_before(days: int, now: datetime) -> datetime:
    most = (now - utc_datetime(0)).days
    if not 1 <= days <= most:
        raise InvalidRequestError(
            f"--days must be 1 to {most:,} (candles begin after 1970-01-01), was {days}"
        )
    return now - timedelta(days=days)


def _on_signals(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows' loops have no signal handlers; there Ctrl+C interrupts `asyncio.run`.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
