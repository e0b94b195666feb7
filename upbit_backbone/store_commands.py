"""The commands ``upbit-backbone db …``: what is done with a store's file as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from upbit_backbone.clock import utc_datetime
from upbit_backbone.command_line import FAILED, Overrides, run
from upbit_backbone.manager import BackboneManager
from upbit_backbone.series_commands import (
    DATA_DIR,
    EXCHANGE,
    REST_URL,
    WS_URL,
    export,
    import_,
    until_stopped,
)

app = typer.Typer(no_args_is_help=True, help="The file that candles are stored in.")
app.command(name="export")(export)
app.command(name="import")(import_)


@app.callback()
def common() -> None:
    """Statistics, checks, backups of the stored candles."""


@app.command()
def stats(
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
) -> None:
    """Tell how large the file is and what it holds; a program may use it meanwhile."""
    run(_stats(Overrides(exchange, rest_url, ws_url, data_dir)))


@app.command()
def check(
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
) -> None:
    """Read the whole file and tell whether it is damaged; a program may use it meanwhile."""
    run(_check(Overrides(exchange, rest_url, ws_url, data_dir)))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to make, e.g. candles.sqlite3.")],
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy all that is stored into a file, and check it; a program may use the store meanwhile."""
    run(_backup(file, Overrides(exchange, rest_url, ws_url, data_dir), force))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="Made by 'db backup'.")],
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
) -> None:
    """Put a backup in the store's place; what is there now is set aside. No program may use it."""
    run(_restore(file, Overrides(exchange, rest_url, ws_url, data_dir)))


@app.command()
def vacuum(
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
) -> None:
    """Write the file anew without free pages. No program may use it; takes twice its room."""
    run(_vacuum(Overrides(exchange, rest_url, ws_url, data_dir)))


async def _stats(overrides: Overrides) -> None:
    file = BackboneManager.store_file(overrides.config())
    found = await until_stopped(file.figures(), "stopped")
    free = f"{found.free_pages:,} of {found.pages:,} pages ({found.free_share:.1%})"
    if not found.gives_back:
        free += "; an older file does not give them back: 'db vacuum' does"
    checked_ms = found.done_ms.get("check")
    checked = "never" if checked_ms is None else f"{utc_datetime(checked_ms):%Y-%m-%d %H:%M} UTC"
    if found.damaged:
        checked = "found damaged: it is mended when the program starts next"
    lines = {
        "file": f"{file.path}",
        "schema": f"{found.schema}",
        "size": f"{_mb(found.file_bytes)}, and {_mb(found.log_bytes)} of log",
        "free": free,
        "series": f"{found.series:,}",
        "candles": f"{found.rows:,}, {found.rows_in_blocks:,} of them in {found.blocks:,} blocks",
        "known spans": f"{found.spans:,}, {found.unknown_spans:,} of them gaps",
        "last check": checked,
    }
    for name, told in lines.items():
        sys.stdout.write(f"{name + ':':<13}{told}\n")


async def _check(overrides: Overrides) -> None:
    file = BackboneManager.store_file(overrides.config())
    found = await until_stopped(file.check(), "stopped: nothing is known of the rest")
    if found.problems or found.figures is None:
        for problem in found.problems:
            sys.stderr.write(f"{problem}\n")
        sys.stderr.write(
            f"{file.path} is damaged: when the program starts next, all that can be read is kept,"
            " and the rest is asked again\n"
        )
        raise typer.Exit(FAILED)
    held = f"{found.figures.rows:,} candles of {found.figures.series:,} series"
    sys.stdout.write(f"{file.path} is whole: {held}, {found.figures.blocks:,} blocks\n")
    if found.wrong_blocks:
        sys.stdout.write(
            f"{found.wrong_blocks:,} blocks are not what the rows say; nothing is lost, for blocks"
            " are made of rows\n"
        )


async def _backup(file: Path, overrides: Overrides, force: bool) -> None:
    store = BackboneManager.store_file(overrides.config())
    done = await until_stopped(store.backup(file, overwrite=force), "stopped: no backup was made")
    sys.stdout.write(
        f"{done.figures.rows:,} candles of {done.figures.series:,} series in {done.path}"
        f" ({_mb(done.figures.file_bytes)}), read again and found whole\n"
    )


async def _restore(file: Path, overrides: Overrides) -> None:
    store = BackboneManager.store_file(overrides.config())
    done = await until_stopped(
        store.restore(file), "stopped: the store is the one before or the backup, and whole"
    )
    sys.stdout.write(
        f"{store.path} holds {done.figures.rows:,} candles of {done.figures.series:,} series now\n"
    )
    if done.set_aside is not None:
        sys.stdout.write(f"what it was before is {done.set_aside}\n")


async def _vacuum(overrides: Overrides) -> None:
    store = BackboneManager.store_file(overrides.config())
    done = await until_stopped(store.vacuum(), "stopped: the file stays as it was")
    sys.stdout.write(
        f"{store.path} had {_mb(done.before_bytes)} and has {_mb(done.after_bytes)} now\n"
    )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MB"
