"""The command ``upbit-backbone``: the service without a window. Never imports Qt."""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import sys
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from upbit_backbone import (
    BackboneConfig,
    BackboneError,
    BackboneMetadata,
    CandleSeries,
    InvalidRequestError,
    MarketDataAPI,
)
from upbit_backbone.clock import SystemClock
from upbit_backbone.config import Exchange
from upbit_backbone.manager import open_addresses
from upbit_backbone.models import KST_OFFSET
from upbit_backbone.origin import Origin
from upbit_backbone.price import format_price
from upbit_backbone.recorder.command import record as run_recorder
from upbit_backbone.recorder.command import replay as run_replay
from upbit_backbone.recorder.record import Source, read_wanted
from upbit_backbone.simulator.command import simulate as run_simulator
from upbit_backbone.telemetry.logs import configure_logging

FAILED = 1
MIN_TABLE_WIDTH = 120
app = typer.Typer(no_args_is_help=True, add_completion=False)


class Format(Enum):
    """How candles are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens.")] = False,
) -> None:
    """Market data of Upbit, without a window."""
    configure_logging(logging.INFO if verbose else logging.WARNING)


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Which market: equal seeds give equal data.")] = 1,
    as_recorded: Annotated[
        str | None,
        typer.Option(
            metavar="START", help="Serve the recordings alone, by a clock that starts at START."
        ),
    ] = None,
    now: Annotated[
        str | None, typer.Option(metavar="T", help="Stop the exchange's clock at T.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Of limits: fixed, first-request or sliding.")
    ] = None,
    ban_after: Annotated[
        int | None, typer.Option(help="Refused calls in 10 s that ban a caller; 0 never.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="WebSockets at once; one more is refused.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any open point, e.g. refusal_body=empty."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'KIND key=value …'", help="What goes wrong, e.g. '429 group=candles count=3'."
        ),
    ] = None,
    script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What happens on its markets, as JSON.")
    ] = None,
    rate: Annotated[float, typer.Option(help="How many times as often somebody trades.")] = 1.0,
) -> None:
    """Serve a simulated exchange; prints one line of JSON with its addresses."""
    named = {"window": window, "ban_after": ban_after, "max_connections": max_connections}
    flags = [f"{name}={value}" for name, value in named.items() if value is not None]
    _run(
        run_simulator(
            host=host,
            port=port,
            seed=seed,
            as_recorded=as_recorded,
            now=now,
            settings=[*(setting or ()), *flags],
            faults=fault or (),
            script=script,
            rate=rate,
        )
    )


@app.command()
def record(
    file: Annotated[Path, typer.Argument(help="The file to make, e.g. today.upbitrec.")],
    exchange: Annotated[
        str | None, typer.Option(help="upbit, or simulator (started in this process).")
    ] = None,
    rest_url: Annotated[str | None, typer.Option(help="Another REST address.")] = None,
    ws_url: Annotated[str | None, typer.Option(help="Another WebSocket address.")] = None,
    symbols: Annotated[
        str, typer.Option(help="Markets, with commas between them.")
    ] = "KRW-BTC,KRW-ETH,KRW-XRP",
    types: Annotated[
        str, typer.Option(help="Types of the stream, with commas: also candle.1s, candle.1m, ….")
    ] = "ticker,trade,orderbook",
    form: Annotated[
        str, typer.Option("--format", help="How the stream is written: DEFAULT or SIMPLE.")
    ] = "DEFAULT",
    seconds: Annotated[
        float | None, typer.Option(help="How long; without it, until Ctrl+C.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Record an exchange, REST and stream, byte for byte."""
    overrides = _Overrides(exchange, rest_url, ws_url, None)
    _run(_record(file, overrides, (symbols, types, form, seconds), force))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Made by 'record', or a captured .jsonl.gz.")],
    speed: Annotated[float, typer.Option(help="Recorded seconds a second, 1 to 1000.")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.")] = 0,
) -> None:
    """Serve a recording again; prints one line of JSON with its addresses."""
    _run(run_replay(file, speed=speed, host=host, port=port))


@app.command()
def candles(
    symbol: Annotated[str, typer.Argument(help="Market, e.g. KRW-BTC.")],
    timeframe: Annotated[str, typer.Argument(help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y.")],
    count: Annotated[int | None, typer.Option(help="How many candles.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First open time, ISO 8601.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Exclusive end, ISO 8601.")
    ] = None,
    exchange: Annotated[
        str | None, typer.Option(help="upbit, or simulator (started in this process).")
    ] = None,
    rest_url: Annotated[str | None, typer.Option(help="Another REST address.")] = None,
    ws_url: Annotated[str | None, typer.Option(help="Another WebSocket address.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data is stored.")] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print them.")] = Format.TABLE,
) -> None:
    """Print candles, oldest first. A TIME without an offset is local time."""
    _run(
        _candles(
            symbol,
            timeframe,
            count,
            start,
            end,
            _Overrides(exchange, rest_url, ws_url, data_dir),
            output,
        )
    )


def main() -> None:
    """The entry point; an error of ours is one line on standard error."""
    app()


class _Overrides:
    """Flags that override the environment."""

    def __init__(
        self,
        exchange: str | None,
        rest_url: str | None,
        ws_url: str | None,
        data_dir: Path | None,
    ) -> None:
        given = {
            "exchange": cast(Exchange, exchange),
            "rest_url": rest_url,
            "ws_url": ws_url,
            "data_dir": data_dir,
        }
        self._given: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }

    def config(self) -> BackboneConfig:
        """The environment's settings with the flags over them."""
        return replace(BackboneConfig.from_environment(), **self._given)


async def _record(
    file: Path,
    overrides: _Overrides,
    asked: tuple[str, str, str, float | None],
    force: bool,
) -> None:
    wanted, config, clock = read_wanted(*asked), overrides.config(), SystemClock()
    async with open_addresses(config, clock) as (rest_url, ws_url):
        origin = Origin(config.identity, accepts_mark=config.identity != "upbit")
        source = Source(rest_url, ws_url, origin)
        await run_recorder(file, source, wanted, clock=clock, overwrite=force)


async def _candles(
    symbol: str,
    timeframe: str,
    count: int | None,
    start: str | None,
    end: str | None,
    overrides: _Overrides,
    output: Format,
) -> None:
    start_time, end_time = _moment("--from", start), _moment("--to", end)
    async with await MarketDataAPI.create(overrides.config()) as api:
        series, metadata = await api.get_candle_data(
            symbol, timeframe, start_time, end_time, count=count, with_metadata=True
        )
    _PRINTERS[output](series)
    _report_missing(metadata)


def _moment(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            f"{flag} must be a time such as 2025-09-01T09:00 or 2025-09-01T00:00Z, was {text!r}"
        ) from None


def _print_table(series: CandleSeries) -> None:
    mark = " · 모의 SIMULATED" if series.simulated else ""
    table = Table(title=f"{series.symbol} {series.timeframe}{mark}", box=box.SIMPLE_HEAD)
    table.add_column("open time (KST)", no_wrap=True)
    for name in ("open", "high", "low", "close", "volume"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for candle in series:
        prices = (candle.open, candle.high, candle.low, candle.close)
        table.add_row(
            f"{candle.open_time + KST_OFFSET:%Y-%m-%d %H:%M:%S}",
            *(format_price(candle.symbol, price) for price in prices),
            f"{candle.volume:.8f}",
            candle.state,
        )
    console = Console()
    # A narrow terminal folds the lines; cutting a price short would be a lie.
    console.width = max(console.width, MIN_TABLE_WIDTH)
    console.print(table)


def _print_csv(series: CandleSeries) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["open_time", *CandleSeries.COLUMNS[1:7], "closed", "simulated"])
    for candle in series:
        writer.writerow(
            [
                candle.open_time.astimezone(UTC).isoformat(),
                *(getattr(candle, name) for name in CandleSeries.COLUMNS[1:7]),
                candle.closed,
                series.simulated,
            ]
        )


def _print_json(series: CandleSeries) -> None:
    rows = [
        {
            **row,
            "open_time": row["open_time"].isoformat(),
            "timeframe": row["timeframe"].value,
            "simulated": series.simulated,
        }
        for row in series.to_dicts()
    ]
    json.dump(rows, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv, Format.JSON: _print_json}


def _report_missing(metadata: BackboneMetadata) -> None:
    for span in metadata.missing:
        bounds = " to ".join(
            "the beginning" if moment is None else f"{moment:%Y-%m-%dT%H:%MZ}"
            for moment in (span.start, span.end)
        )
        sys.stderr.write(f"missing: {bounds} ({metadata.reason or span.reason})\n")


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except BackboneError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(FAILED) from error
