"""``upbit-backbone record`` and ``replay``: their flags, and which exchange is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upbit_backbone.clock import SystemClock
from upbit_backbone.command_line import CONFIG, JSON, Overrides, finite_number, port_number, run
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.manager import open_addresses
from upbit_backbone.origin import Origin
from upbit_backbone.recorder.command import record as run_recorder
from upbit_backbone.recorder.command import replay as run_replay
from upbit_backbone.recorder.record import Source, read_wanted


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
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Record an exchange, REST and stream, byte for byte."""
    overrides = Overrides(exchange, rest_url, ws_url, None, config)
    wanted = (symbols, types, form, seconds)
    run(_record(file, overrides, wanted, force, as_json), interrupted=0, stays=True)


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
        typer.Option(parser=port_number, metavar="N", help="Port to serve on; 0 takes a free one."),
    ] = 0,
) -> None:
    """Serve a recording again; prints one line of JSON with its addresses."""
    run(run_replay(file, speed=speed, host=host, port=port), interrupted=0, stays=True)


async def _record(
    file: Path,
    overrides: Overrides,
    asked: tuple[str, str, str, float | None],
    force: bool,
    as_json: bool,
) -> None:
    wanted, config, clock = read_wanted(*asked), overrides.config(), SystemClock()
    async with open_addresses(config, clock) as (rest_url, ws_url):
        origin = Origin(config.identity, accepts_mark=config.identity != "upbit")
        source = Source(rest_url, ws_url, origin)
        await run_recorder(file, source, wanted, clock=clock, overwrite=force, as_json=as_json)
