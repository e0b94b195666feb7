"""The command ``upbit-backbone``: the service without a window. Never imports Qt.

Whatever is wrong is one line on standard error. Exit codes: 0 all is well, also when the
reader of a pipe went away; 2 the command itself is wrong (its flags, their values, the
environment's, or the settings file's); 1 it failed while it ran; 130 Ctrl+C; 10 to 15 what
`doctor` found.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import sys
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from upbit_backbone import (
    Candle,
    CandleSeries,
    MarketDataAPI,
)
from upbit_backbone.backfill import backfill as run_backfill
from upbit_backbone.clock import SystemClock
from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    FAILED,
    Overrides,
    finite_number,
    in_flags,
    moment,
    run,
    whole_number,
)
from upbit_backbone.commands.doctor import doctor
from upbit_backbone.commands.missing import (
    UNCONFIRMED,
    missing_sentence,
    none_sentence,
    told_while_waiting,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import Shown, console_for, fitting_table, kst
from upbit_backbone.commands.quotes import SIMULATED, orderbook, ticker, trades
from upbit_backbone.commands.screen import screen
from upbit_backbone.commands.settings import app as settings_commands
from upbit_backbone.commands.status import status
from upbit_backbone.commands.watch import watch
from upbit_backbone.manager import open_addresses
from upbit_backbone.origin import Origin
from upbit_backbone.price import format_price
from upbit_backbone.recorder.command import record as run_recorder
from upbit_backbone.recorder.command import replay as run_replay
from upbit_backbone.recorder.record import Source, read_wanted
from upbit_backbone.simulator.command import simulate as run_simulator
from upbit_backbone.store_commands import app as store_commands
from upbit_backbone.telemetry.logs import configure_logging

_TOLD_OTHERWISE = ("upbit_backbone.manager",)
"""That it starts offline, the commands tell themselves, once and with what follows."""
_VALUE_DECIMALS = {"KRW": 0, "USDT": 3}


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


_EXIT_CODES = (
    "Exit codes: 0 all is well · 1 failed while it ran, or nothing is stored · 2 the command is"
    " wrong (flag, value, market, variable, settings file, a file that is none) · 10 network,"
    " 11 clock, 12 limits, 13 disk, 14 Qt, 15 fonts (doctor) · 130 Ctrl+C; watch, simulate,"
    " record and replay end with 0 by it."
)
app = typer.Typer(no_args_is_help=True, add_completion=False, cls=_OneLine, epilog=_EXIT_CODES)
app.add_typer(store_commands, name="db")
app.add_typer(settings_commands, name="config")
for command in (ticker, orderbook, trades, watch, screen, status, doctor):
    app.command()(command)


class Format(Enum):
    """How candles are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def _format(text: str) -> Format:
    try:
        return Format(text)
    except ValueError:
        raise typer.BadParameter(f"must be table, csv or json, was {text!r}") from None


def _tell_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"upbit-backbone {version('upbit-backbone')}\n")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Market data of Upbit, without a window.

    Commands that print data take --json: one document on a line, 'watch' one for each change.
    """
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
            parser=whole_number, metavar="N", help="Port to serve on; 0 takes a free one."
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(
            parser=whole_number, metavar="N", help="Which market: equal seeds give equal data."
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
            parser=whole_number,
            metavar="N",
            help="Refused calls in 10 s that ban a caller; 0 never.",
        ),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, metavar="N", help="WebSockets at once; one more is refused."
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
        typer.Option(
            parser=finite_number, metavar="R", help="How many times as often somebody trades."
        ),
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
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
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
        typer.Option(parser=finite_number, metavar="S", help="How long; without it, until Ctrl+C."),
    ] = None,
    config: Annotated[Path | None, CONFIG] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Record an exchange, REST and stream, byte for byte."""
    overrides = Overrides(exchange, rest_url, ws_url, None, config)
    run(_record(file, overrides, (symbols, types, form, seconds), force))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Made by 'record', or a captured .jsonl.gz.")],
    speed: Annotated[
        float,
        typer.Option(
            parser=finite_number, metavar="X", help="Recorded seconds a second, 1 to 1000."
        ),
    ] = 1.0,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            parser=whole_number, metavar="N", help="Port to serve on; 0 takes a free one."
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
            parser=whole_number,
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
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
    output: Annotated[
        Format,
        typer.Option(
            "--format",
            parser=_format,
            metavar="table|csv|json",
            help="How to print them: times in KST (table), in UTC (csv, json).",
        ),
    ] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="As '--format json'.")] = False,
) -> None:
    """Print candles, oldest first. A TIME without an offset is local time."""
    run(
        _candles(
            symbol.strip().upper(),
            timeframe,
            count,
            start,
            end,
            Overrides(exchange, rest_url, ws_url, data_dir, config),
            Format.JSON if as_json else output,
        )
    )


@app.command()
def backfill(
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
) -> None:
    """Store candles of the last days. Ctrl+C keeps what is there; run again, it goes on."""
    run(
        _backfill(symbols, timeframe, days, Overrides(exchange, rest_url, ws_url, data_dir, config))
    )


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
        async with told_while_waiting(f"candles of {symbol} {timeframe}", sys.stderr):
            with in_flags():
                series, metadata = await api.get_candle_data(
                    symbol, timeframe, start_time, end_time, count=count, with_metadata=True
                )
        status = api.get_system_status()
    if len(series) or output is not Format.TABLE:
        _PRINTERS[output](series)
    elif not metadata.missing:
        sys.stderr.write(none_sentence(series.symbol, series.timeframe) + "\n")
    for span in metadata.missing:
        sys.stderr.write(missing_sentence(series.symbol, series.timeframe, span) + "\n")
    if any(span.reason != UNCONFIRMED for span in metadata.missing):
        raise typer.Exit(FAILED)
    if status.connection == "offline":
        sys.stderr.write(f"offline, from what is stored: {status.reason}\n")


def _print_table(series: CandleSeries) -> None:
    quote, _, base = series.symbol.partition("-")
    columns = (
        Shown("open time (KST)", "left"),
        Shown("open", need=2),
        Shown("high", need=1),
        Shown("low", need=1),
        Shown("close"),
        Shown(f"volume ({base})", need=4),
        Shown(f"value ({quote})", need=5),
        Shown("state", "left", need=3),
    )
    rows = [
        [
            kst(candle.open_time, "%Y-%m-%d %H:%M:%S"),
            *(
                format_price(candle.symbol, price)
                for price in (candle.open, candle.high, candle.low, candle.close)
            ),
            f"{candle.volume:.8f}",
            f"{candle.value:,.{_VALUE_DECIMALS.get(quote, 8)}f}",
            candle.state,
        ]
        for candle in series
    ]
    console = console_for()
    mark = f" · {SIMULATED}" if series.simulated else ""
    console.print(f"{series.symbol} {series.timeframe}{mark}", soft_wrap=True)
    console.print(fitting_table(columns, rows, width=console.width))


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
