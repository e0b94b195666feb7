"""The command ``upbit-backbone``: the service without a window. Never imports Qt.

Whatever is wrong is one line on standard error. Exit codes: 0 all is well, 2 the command
itself is wrong (its flags, their values, or the environment's), 1 it failed while it ran.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup
from typer.exceptions import TyperException

from upbit_backbone import (
    Candle,
    CandleSeries,
    InvalidRequestError,
    MarketDataAPI,
    Span,
)
from upbit_backbone.backfill import UNCONFIRMED
from upbit_backbone.backfill import backfill as run_backfill
from upbit_backbone.clock import SystemClock
from upbit_backbone.command_line import FAILED, Overrides, moment, run
from upbit_backbone.manager import open_addresses
from upbit_backbone.models import KST_OFFSET
from upbit_backbone.origin import Origin
from upbit_backbone.price import format_price
from upbit_backbone.recorder.command import record as run_recorder
from upbit_backbone.recorder.command import replay as run_replay
from upbit_backbone.recorder.record import Source, read_wanted
from upbit_backbone.simulator.command import simulate as run_simulator
from upbit_backbone.store_commands import app as store_commands
from upbit_backbone.telemetry.logs import configure_logging

MIN_TABLE_WIDTH = 140
_TOLD_OTHERWISE = ("upbit_backbone.manager",)
"""That it starts offline, the commands tell themselves, once and with what follows."""
_VALUE_DECIMALS = {"KRW": 0, "USDT": 3}
_FLAGS = {"start_time": "--from", "end_time": "--to", "count": "--count"}


class _OneLine(TyperGroup):
    """Tells what is wrong with an argument in one line, like every other error here."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except TyperException as error:
            # "Invalid value for '--count': must be …"; without a command there is help instead.
            sentence = error.format_message()
            sentence = re.sub(r"^Invalid value for '(.+?)': must ", r"\1 must ", sentence)
            if sentence:
                sys.stderr.write(f"{sentence.rstrip('.')}; --help lists all arguments\n")
            sys.exit(error.exit_code)
        sys.exit(code)


app = typer.Typer(no_args_is_help=True, add_completion=False, cls=_OneLine)
app.add_typer(store_commands, name="db")


class Format(Enum):
    """How candles are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a whole number, was {text!r}") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise typer.BadParameter(f"must be a number, was {text!r}")
    return number


def _format(text: str) -> Format:
    try:
        return Format(text)
    except ValueError:
        raise typer.BadParameter(f"must be table, csv or json, was {text!r}") from None


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens.")] = False,
) -> None:
    """Market data of Upbit, without a window."""
    if verbose:
        configure_logging(logging.INFO)
    else:
        configure_logging(logging.WARNING, told_otherwise=_TOLD_OTHERWISE)


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            parser=_whole_number, metavar="N", help="Port to serve on; 0 takes a free one."
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(
            parser=_whole_number, metavar="N", help="Which market: equal seeds give equal data."
        ),
    ] = 1,
    as_recorded: Annotated[
        str | None,
        typer.Option(
            metavar="START",
            help="Serve the recordings alone (KRW-BTC, KRW-XRP and KRW-DOGE, 2025-09-01 to"
            " 2025-10-04), by a clock that starts at START: ISO 8601, UTC without an offset.",
        ),
    ] = None,
    now: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="Stop the exchange's clock at T: ISO 8601, UTC without an offset."
        ),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Of limits: fixed, first-request or sliding.")
    ] = None,
    ban_after: Annotated[
        int | None,
        typer.Option(
            parser=_whole_number,
            metavar="N",
            help="Refused calls in 10 s that ban a caller; 0 never.",
        ),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            parser=_whole_number, metavar="N", help="WebSockets at once; one more is refused."
        ),
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
    rate: Annotated[
        float,
        typer.Option(parser=_number, metavar="R", help="How many times as often somebody trades."),
    ] = 1.0,
) -> None:
    """Serve a simulated exchange; prints one line of JSON with its addresses."""
    named = {"window": window, "ban_after": ban_after, "max_connections": max_connections}
    flags = [f"{name}={value}" for name, value in named.items() if value is not None]
    run(
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
    rest_url: Annotated[
        str | None, typer.Option(help="Another REST address, ending in /v1.")
    ] = None,
    ws_url: Annotated[str | None, typer.Option(help="And its WebSocket; both or neither.")] = None,
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
        float | None,
        typer.Option(parser=_number, metavar="S", help="How long; without it, until Ctrl+C."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Record an exchange, REST and stream, byte for byte."""
    overrides = Overrides(exchange, rest_url, ws_url, None)
    run(_record(file, overrides, (symbols, types, form, seconds), force))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Made by 'record', or a captured .jsonl.gz.")],
    speed: Annotated[
        float,
        typer.Option(parser=_number, metavar="X", help="Recorded seconds a second, 1 to 1000."),
    ] = 1.0,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            parser=_whole_number, metavar="N", help="Port to serve on; 0 takes a free one."
        ),
    ] = 0,
) -> None:
    """Serve a recording again; prints one line of JSON with its addresses."""
    run(run_replay(file, speed=speed, host=host, port=port))


@app.command()
def candles(
    symbol: Annotated[str, typer.Argument(help="Market, e.g. KRW-BTC.")],
    timeframe: Annotated[str, typer.Argument(help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y.")],
    count: Annotated[
        int | None,
        typer.Option(
            parser=_whole_number,
            metavar="N",
            help="How many: the latest before --to, or the first from --from; 200 without both.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="First open time, ISO 8601: 2025-09-01T09:00 is local time, 2025-09-01T00:00Z UTC,"
            " 2025-09-01T09:00+09:00 has its offset.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="End, exclusive, read like --from; else now."),
    ] = None,
    exchange: Annotated[
        str | None, typer.Option(help="upbit, or simulator (started in this process).")
    ] = None,
    rest_url: Annotated[
        str | None, typer.Option(help="Another REST address, ending in /v1.")
    ] = None,
    ws_url: Annotated[str | None, typer.Option(help="And its WebSocket; both or neither.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data is stored.")] = None,
    output: Annotated[
        Format,
        typer.Option(
            "--format",
            parser=_format,
            metavar="table|csv|json",
            help="How to print them: times in KST (table), in UTC (csv, json).",
        ),
    ] = Format.TABLE,
) -> None:
    """Print candles, oldest first. A TIME without an offset is local time."""
    run(
        _candles(
            symbol,
            timeframe,
            count,
            start,
            end,
            Overrides(exchange, rest_url, ws_url, data_dir),
            output,
        )
    )


@app.command()
def backfill(
    symbols: Annotated[str, typer.Option(help="Markets, with commas between them.")],
    timeframe: Annotated[str, typer.Option(help="1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y.")],
    days: Annotated[
        int,
        typer.Option(parser=_whole_number, metavar="N", help="How far back, up to now."),
    ],
    exchange: Annotated[
        str | None, typer.Option(help="upbit, or simulator (started in this process).")
    ] = None,
    rest_url: Annotated[
        str | None, typer.Option(help="Another REST address, ending in /v1.")
    ] = None,
    ws_url: Annotated[str | None, typer.Option(help="And its WebSocket; both or neither.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data is stored.")] = None,
) -> None:
    """Store candles of the last days. Ctrl+C keeps what is there; run again, it goes on."""
    run(_backfill(symbols, timeframe, days, Overrides(exchange, rest_url, ws_url, data_dir)))


def main() -> None:
    """The entry point; an error of ours is one line on standard error."""
    app()


async def _record(
    file: Path,
    overrides: Overrides,
    asked: tuple[str, str, str, float | None],
    force: bool,
) -> None:
    wanted, config, clock = read_wanted(*asked), overrides.config(), SystemClock()
    async with open_addresses(config, clock) as (rest_url, ws_url):
        origin = Origin(config.identity, accepts_mark=config.identity != "upbit")
        source = Source(rest_url, ws_url, origin)
        await run_recorder(file, source, wanted, clock=clock, overwrite=force)


async def _backfill(symbols: str, timeframe: str, days: int, overrides: Overrides) -> None:
    if not await run_backfill(symbols, timeframe, days, overrides.config()):
        raise typer.Exit(FAILED)


async def _candles(
    symbol: str,
    timeframe: str,
    count: int | None,
    start: str | None,
    end: str | None,
    overrides: Overrides,
    output: Format,
) -> None:
    start_time, end_time = moment("--from", start), moment("--to", end)
    async with await MarketDataAPI.create(overrides.config()) as api:
        try:
            series, metadata = await api.get_candle_data(
                symbol, timeframe, start_time, end_time, count=count, with_metadata=True
            )
        except InvalidRequestError as error:
            raise _with_flags(error) from error
        status = api.get_system_status()
    _PRINTERS[output](series)
    for span in metadata.missing:
        sys.stderr.write(_missing_sentence(series, span) + "\n")
    if any(span.reason != UNCONFIRMED for span in metadata.missing):
        raise typer.Exit(FAILED)
    if status.connection == "offline":
        sys.stderr.write(f"offline, from what is stored: {status.reason}\n")


def _with_flags(error: InvalidRequestError) -> InvalidRequestError:
    """The same error in the words of the command line: the library names its arguments."""

    def flag(match: re.Match[str]) -> str:
        return _FLAGS[match[0]]

    # Between quotes stands what a person gave.
    words = "|".join(_FLAGS)
    return InvalidRequestError(re.sub(rf"(?<!')\b(?:{words})\b(?!')", flag, str(error)))


def _print_table(series: CandleSeries) -> None:
    mark = " · 모의 SIMULATED" if series.simulated else ""
    quote, _, base = series.symbol.partition("-")
    table = Table(title=f"{series.symbol} {series.timeframe}{mark}", box=box.SIMPLE_HEAD)
    table.add_column("open time (KST)", no_wrap=True)
    for name in ("open", "high", "low", "close", f"volume ({base})", f"value ({quote})"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for candle in series:
        prices = (candle.open, candle.high, candle.low, candle.close)
        table.add_row(
            f"{candle.open_time + KST_OFFSET:%Y-%m-%d %H:%M:%S}",
            *(format_price(candle.symbol, price) for price in prices),
            f"{candle.volume:.8f}",
            f"{candle.value:,.{_VALUE_DECIMALS.get(quote, 8)}f}",
            candle.state,
        )
    console = Console()
    # A narrow terminal folds the lines; cutting a price short would be a lie.
    console.width = max(console.width, MIN_TABLE_WIDTH)
    console.print(table)


def _rows(series: CandleSeries) -> list[dict[str, Any]]:
    """The fields of each candle as csv and json write them; times are UTC, with their offset."""
    return [
        {
            **row,
            "open_time": row["open_time"].isoformat(),
            "timeframe": row["timeframe"].value,
            "simulated": series.simulated,
        }
        for row in series.to_dicts()
    ]


def _print_csv(series: CandleSeries) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*Candle.__struct_fields__, "simulated"])
    for row in _rows(series):
        writer.writerow(
            [str(value).lower() if isinstance(value, bool) else value for value in row.values()]
        )


def _print_json(series: CandleSeries) -> None:
    json.dump(_rows(series), sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv, Format.JSON: _print_json}


def _missing_sentence(series: CandleSeries, span: Span) -> str:
    start, end = (
        None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
        for moment in (span.start, span.end)
    )
    where = f"from {start or 'the beginning'} to {end or 'now'}"
    if span.reason == UNCONFIRMED:
        return (
            f"no candle of {series.symbol} {series.timeframe} {where}: the exchange has shown"
            " nothing there yet; it counts as unproved until a second reading"
        )
    return f"missing {where}: {span.reason}"
