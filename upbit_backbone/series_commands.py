"""``upbit-backbone db export`` and ``import``: one series as a file, and back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from upbit_backbone.clock import epoch_ms
from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    FAILED,
    JSON,
    Overrides,
    moment,
    print_json,
    run,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.interrupts import INTERRUPTED, on_signals
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import Timeframe

Result = TypeVar("Result")


def export(
    symbol: Annotated[str, typer.Argument(help="Market, e.g. KRW-BTC.")],
    timeframe: Annotated[str, typer.Argument(help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y.")],
    file: Annotated[
        Path, typer.Argument(help="The file to make: its name ends in .csv or .parquet.")
    ],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="First open time, ISO 8601; without an offset it is local time.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="End, exclusive; else up to the newest."),
    ] = None,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write stored candles, with what is proved of them, into a file; asks no exchange."""
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_export(symbol.strip().upper(), timeframe, file, (start, end), overrides, (force, as_json)))


def import_(
    file: Annotated[Path, typer.Argument(help="Made by 'db export': .csv or .parquet.")],
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Store the candles of a file; what is stored already stays as it is."""
    run(_import(file, Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


async def _export(
    symbol: str,
    timeframe: str,
    file: Path,
    times: tuple[str | None, str | None],
    overrides: Overrides,
    how: tuple[bool, bool],
) -> None:
    force, as_json = how
    parsed = Timeframe.parse(timeframe)
    start_ms, end_ms = _ms(moment("--from", times[0])), _ms(moment("--to", times[1]))
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise InvalidRequestError(f"--from must lie before --to, were {times[0]} and {times[1]}")
    transfer = BackboneManager.series_transfer(overrides.config())
    with _Bar(f"{symbol} {parsed}") as bar:
        done = await until_stopped(
            transfer.export_to(
                file,
                symbol,
                parsed,
                start_ms=start_ms,
                end_ms=end_ms,
                overwrite=force,
                on_progress=lambda candles, share: bar.show("writing", candles, share),
            ),
            "stopped: no file was written",
        )
    if as_json:
        print_json({**done.key._asdict(), "candles": done.candles, "files": done.files})
        return
    names = " and ".join(str(one) for one in done.files)
    sys.stdout.write(f"{symbol} {parsed}: {done.candles:,} candles in {names}\n")


async def _import(file: Path, overrides: Overrides, as_json: bool) -> None:
    transfer = BackboneManager.series_transfer(overrides.config())
    with _Bar(file.name) as bar:
        done = await until_stopped(
            transfer.import_from(file, on_progress=bar.show),
            "stopped: what was stored stays, and the same command goes on from there",
        )
    if as_json:
        print_json(
            {
                **done.key._asdict(),
                "candles": done.candles,
                "new": done.written,
                "differing": done.differing,
                "differences": done.differences,
            }
        )
    else:
        sys.stdout.write(
            f"{done.key.symbol} {done.key.timeframe}: {done.candles:,} candles, {done.written:,}"
            " of them new\n"
        )
    if done.differing:
        for sentence in done.differences:
            sys.stderr.write(f"{sentence}\n")
        sys.stderr.write(
            f"{done.differing:,} candles are not the same in {file} and in the store, which was"
            " left as it is\n"
        )
        raise typer.Exit(FAILED)


class _Bar:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self._what = what
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            redirect_stdout=False,
        )
        self._task = self._bars.add_task(what, total=1.0, told="")

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def show(self, doing: str, candles: int, share: float) -> None:
        """Show how far it has come."""
        self._bars.update(
            self._task,
            description=f"{self._what}, {doing}",
            completed=share,
            told=f"{candles:,} candles",
        )


async def until_stopped(work: Awaitable[Result], sentence: str) -> Result:
    """Await work that SIGINT and SIGTERM cancel; then say a sentence and end."""
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    on_signals(stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not stopped:
            raise
        sys.stderr.write(f"{sentence}\n")
        raise typer.Exit(INTERRUPTED) from None


def _ms(time: datetime | None) -> int | None:
    return None if time is None else epoch_ms(time)
