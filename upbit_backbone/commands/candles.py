"""``upbit-backbone candles``: candles of a market as a table, CSV or JSON."""

from __future__ import annotations

import csv
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    FAILED,
    Overrides,
    in_flags,
    moment,
    print_json,
    run,
    whole_number,
)
from upbit_backbone.commands.missing import (
    UNCONFIRMED,
    missing_sentence,
    none_sentence,
    told_while_waiting,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import Shown, console_for, fitting_table, kst
from upbit_backbone.commands.quotes import SIMULATED, opened
from upbit_backbone.models import Candle, CandleSeries
from upbit_backbone.price import format_price

_VALUE_DECIMALS = {"KRW": 0, "USDT": 3}


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
    async with opened(overrides.config()) as manager:
        api = manager.api
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
    print_json(_rows(series))


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv, Format.JSON: _print_json}
