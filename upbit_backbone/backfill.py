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

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column

from upbit_backbone.clock import SystemClock, utc_datetime
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import Span, Timeframe
from upbit_backbone.protocol import Progress

UNCONFIRMED = "unconfirmed"
"""Why a span is missing that the exchange showed nothing of; a second reading proves it."""
NARROW = 70
"""A terminal with fewer columns is given the figures without the bar."""


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
    names = list(dict.fromkeys(name.strip() for name in symbols.split(",") if name.strip()))
    if not names:
        raise InvalidRequestError(
            f"--symbols must name markets such as KRW-BTC,KRW-ETH, was {symbols!r}"
        )
    parsed = Timeframe.parse(timeframe)
    manager = BackboneManager(config)
    await manager.initialize()
    try:
        return await _load_all(manager, names, parsed, days)
    finally:
        await manager.shutdown()


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
        for number, symbol in enumerate(symbols, 1):
            if stopped.is_set():
                return False
            bar.begin(symbol, timeframe, number, len(symbols))
            whole &= await _load(manager, symbol, timeframe, start, bar, stopped)
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

    watcher = asyncio.create_task(cancel_when_stopped(), name="stop on a signal")
    bar.show(chunks.progress)
    try:
        async for _ in chunks:
            pass  # it is stored
    finally:
        chunks.cancel()
        watcher.cancel()
        await asyncio.wait([watcher])
        progress = chunks.progress
        if progress.state != "done":
            share = progress.done / max(1, progress.total)
            bar.tell(
                f"stopped at {share:.0%} of {symbol} {timeframe}: what was loaded is stored, and"
                " the same command goes on from there"
            )
    if progress.state != "done":
        return False
    bar.say(
        f"{symbol} {timeframe}: {progress.candles:,} candles since {start:%Y-%m-%d %H:%M:%S} UTC"
    )
    whole = True
    for span in chunks.missing:
        bar.tell(_sentence(symbol, timeframe, span))
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
            TaskProgressColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[told]}", table_column=flexible, markup=False),
            TimeElapsedColumn(),
        ]
        if self._console.width < NARROW:
            columns = [columns[0], columns[2], columns[3]]
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
        place = f" ({number} of {of})" if of > 1 else ""
        self._bars.reset(self._task, description=f"{symbol} {timeframe}{place}", told="")

    def show(self, progress: Progress) -> None:
        """Show how far it has come."""
        self._bars.update(
            self._task,
            completed=progress.done,
            total=max(1, progress.total),
            told=told(progress),
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


class _Shorter:
    """Something to render, so many columns narrower than there is room."""

    def __init__(self, inner: RenderableType, by: int) -> None:
        self._inner = inner
        self._by = by

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Constrain(self._inner, max(1, options.max_width - self._by))


def told(progress: Progress) -> str:
    """What is to be said of a load besides how far it has come; the most important first."""
    match progress.state:
        case "rate-limited" if progress.until is not None:
            return f"rate-limited until {progress.until:%H:%M:%S} UTC"
        case "waiting for load":
            return f"waiting: {progress.reason}"
        case "running" if progress.reason:
            return progress.reason
        case "running" if progress.time_left_s is None:
            return ""
        case "running":
            left = timedelta(seconds=round(progress.time_left_s or 0.0))
            return f"{left} left, {progress.candles_per_s:,.0f} candles/s"
    return progress.state


def _days_before(days: int, now: datetime) -> datetime:
    most = (now - utc_datetime(0)).days
    if not 1 <= days <= most:
        raise InvalidRequestError(
            f"--days must be 1 to {most:,} (candles begin after 1970-01-01), was {days}"
        )
    return now - timedelta(days=days)


def _sentence(symbol: str, timeframe: Timeframe, span: Span) -> str:
    where = f"from {span.start:%Y-%m-%d %H:%M:%S} to {span.end:%Y-%m-%d %H:%M:%S} UTC"
    if span.reason == UNCONFIRMED:
        return (
            f"no candle of {symbol} {timeframe} {where}: the exchange has shown nothing there yet;"
            " it counts as unproved until a second reading"
        )
    return f"missing {where}: {span.reason}"


def _on_signals(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows' loops have no signal handlers; there Ctrl+C interrupts `asyncio.run`.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
