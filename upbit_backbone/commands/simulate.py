"""``upbit-backbone simulate``: the flags of the simulated exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upbit_backbone.command_line import finite_number, port_number, run, whole_number
from upbit_backbone.simulator.command import simulate as run_simulator


def simulate(
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(parser=port_number, metavar="N", help="Port to serve on; 0 takes a free one."),
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
        ),
        interrupted=0,
        stays=True,
    )
