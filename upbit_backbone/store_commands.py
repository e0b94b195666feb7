"""The commands ``upbit-backbone db …``: what is done with a store's file as a whole."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from upbit_backbone.clock import utc_datetime
from upbit_backbone.command_line import CONFIG, DATA_DIR, FAILED, JSON, Overrides, print_json, run
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import Shown, console_for, fitting_table, kst
from upbit_backbone.manager import BackboneManager
from upbit_backbone.series_commands import export, import_, until_stopped

app = typer.Typer(no_args_is_help=True, help="The file that candles are stored in.")
app.command(name="export")(export)
app.command(name="import")(import_)
_COLUMNS = (
    Shown("market", "left"),
    Shown("timeframe", "left"),
    Shown("first candle (KST)", need=1),
    Shown("last candle (KST)"),
    Shown("candles", need=2),
    Shown("known", need=1),
)


@app.callback()
def common() -> None:
    """Statistics, checks, backups of the stored candles."""


@app.command()
def stats(
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Tell which series are stored, from when to when, and how large the file is.

    A program may use it meanwhile, and the folder need not be writable.
    """
    run(_stats(Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


@app.command()
def check(
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Read the whole file and tell whether it is damaged; a program may use it meanwhile."""
    run(_check(Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to make, e.g. candles.sqlite3.")],
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Copy all that is stored into a file, and check it; a program may use the store meanwhile."""
    overrides = Overrides(exchange, rest_url, ws_url, data_dir, config)
    run(_backup(file, overrides, force, as_json))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="Made by 'db backup'.")],
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Put a backup in the store's place. No program may use it meanwhile.

    What is there now is kept beside it, as market.set-aside-1.sqlite3 (-2, …).
    """
    run(_restore(file, Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


@app.command()
def vacuum(
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the file anew without free pages. No program may use it; takes twice its room."""
    run(_vacuum(Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


async def _stats(overrides: Overrides, as_json: bool) -> None:
    file = BackboneManager.store_file(overrides.config())
    found, series = await until_stopped(file.contents(), "stopped")
    if as_json:
        contents = [
            {
                "symbol": one.symbol,
                "timeframe": one.timeframe,
                "first_open_time": _moment(one.first_ms),
                "last_open_time": _moment(one.last_ms),
                "candles": one.candles,
                "proved_share": round(one.proved_share, 6),
                "holes": one.holes,
                "holes_s": one.holes_ms / 1_000,
            }
            for one in series
        ]
        print_json({"file": str(file.path), **asdict(found), "contents": contents})
        return
    rows = [
        (
            one.symbol,
            f"{one.timeframe}",
            _day(one.first_ms),
            _day(one.last_ms),
            f"{one.candles:,}",
            _proved(one.proved_share, one.holes),
        )
        for one in series
    ]
    if rows:
        console = console_for()
        console.print(fitting_table(_COLUMNS, rows, width=console.width))
        sys.stdout.write("\n")
    free = f"{found.free_pages:,} of {found.pages:,} pages ({found.free_share:.1%})"
    if not found.gives_back:
        free += "; an older file does not give them back: 'db vacuum' does"
    checked_ms = found.done_ms.get("check")
    checked = "never" if checked_ms is None else f"{_day(checked_ms)} KST"
    if found.damaged:
        checked = "found damaged: it is mended when the program starts next"
    lines = {
        "file": f"{file.path}",
        "schema": f"{found.schema}",
        "size": f"{_mb(found.file_bytes)}, and {_mb(found.log_bytes)} not moved into it yet",
        "free": free,
        "series": f"{found.series:,}",
        "candles": f"{found.rows:,}, {found.rows_in_blocks:,} of them packed, too",
        "holes": f"{sum(one.holes for one in series):,}",
        "last check": checked,
    }
    for name, told in lines.items():
        sys.stdout.write(f"{name + ':':<13}{told}\n")


async def _check(overrides: Overrides, as_json: bool) -> None:
    file = BackboneManager.store_file(overrides.config())
    found = await until_stopped(file.check(), "stopped: nothing is known of the rest")
    if as_json:
        whole = not found.problems and found.figures is not None
        told = {"problems": list(found.problems), "wrong_blocks": found.wrong_blocks}
        print_json({"file": str(file.path), "whole": whole, **told})
        if not whole:
            raise typer.Exit(FAILED)
        return
    if found.problems or found.figures is None:
        sys.stderr.write(
            f"{file.path} is damaged: when the program starts next, all that can be read is kept,"
            " and the rest is asked again (--json has what SQLite found)\n"
        )
        raise typer.Exit(FAILED)
    held = f"{found.figures.rows:,} candles of {found.figures.series:,} series"
    sys.stdout.write(f"{file.path} is whole: {held}\n")
    if found.wrong_blocks:
        sys.stdout.write(
            f"{found.wrong_blocks:,} packed copies are not what their candles say; nothing is lost,"
            " they are made again\n"
        )


async def _backup(file: Path, overrides: Overrides, force: bool, as_json: bool) -> None:
    store = BackboneManager.store_file(overrides.config())
    done = await until_stopped(store.backup(file, overwrite=force), "stopped: no backup was made")
    if as_json:
        print_json({"file": done.path, **asdict(done.figures)})
        return
    sys.stdout.write(
        f"{done.figures.rows:,} candles of {done.figures.series:,} series in {done.path}"
        f" ({_mb(done.figures.file_bytes)}), read again and found whole\n"
    )


async def _restore(file: Path, overrides: Overrides, as_json: bool) -> None:
    store = BackboneManager.store_file(overrides.config())
    done = await until_stopped(
        store.restore(file), "stopped: the store is the one before or the backup, and whole"
    )
    if as_json:
        print_json({"file": store.path, **asdict(done.figures), "set_aside": done.set_aside})
        return
    sys.stdout.write(
        f"{store.path} holds {done.figures.rows:,} candles of {done.figures.series:,} series now\n"
    )
    if done.set_aside is not None:
        sys.stdout.write(f"what it was before is {done.set_aside}\n")


async def _vacuum(overrides: Overrides, as_json: bool) -> None:
    store = BackboneManager.store_file(overrides.config())
    done = await until_stopped(store.vacuum(), "stopped: the file stays as it was")
    if as_json:
        print_json({"file": store.path, **done._asdict()})
        return
    sys.stdout.write(
        f"{store.path} had {_mb(done.before_bytes)} and has {_mb(done.after_bytes)} now\n"
    )


def _moment(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else utc_datetime(time_ms)


def _proved(share: float, holes: int) -> str:
    """How much of what lies between its first candle and its last is known for sure."""
    if not holes:
        return "all"
    # Rounded down: what has a hole is never 100.0 %.
    percent = math.floor(share * 1_000) / 10
    return f"{percent} % ({holes:,} hole{'s' if holes > 1 else ''})"


def _day(time_ms: int | None) -> str:
    return "–" if time_ms is None else kst(utc_datetime(time_ms), "%Y-%m-%d %H:%M:%S")


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MB"
