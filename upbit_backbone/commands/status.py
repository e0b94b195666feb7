"""``upbit-backbone status``: how the service is doing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import aiohttp
import msgspec
import typer
from rich.text import Text

from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    FAILED,
    JSON,
    Overrides,
    plain,
    print_json,
    run,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import console_for, kst, say, tell
from upbit_backbone.commands.quotes import SIMULATED, opened
from upbit_backbone.protocol import Health
from upbit_backbone.telemetry.endpoint import HOST, HealthAnswer

ANSWERS_WITHIN_S = 2.0
_NAMES = {
    "layer_1": "routing",
    "layer_2": "storage",
    "layer_3": "coordinator",
    "layer_4": "api",
}
_STYLES: dict[Health, str] = {
    "healthy": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "down": "red",
}


def status(
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Tell how the service is doing.

    The running one, if metrics_port is set and it answers there; else one that is opened for a
    moment. Exits with 1 when it is down or offline. With --json: an object.
    """
    run(_status(Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


async def _status(overrides: Overrides, as_json: bool) -> None:
    config = overrides.config()
    running = await _running(config.metrics_port)
    if running is None:
        async with opened(config) as manager:
            found = HealthAnswer.of(manager.api.get_system_status())
        where = "no service answers"
        if config.metrics_port:
            where += f" on {HOST}:{config.metrics_port}"
        else:
            where += ", for metrics_port is not set"
        where += ": this is one that was opened for a moment"
    else:
        found = running
        where = f"the service that answers on {HOST}:{config.metrics_port}"
    if as_json:
        print_json({**plain(found), "running": running is not None})
    else:
        _print(found)
        tell(where)
    if found.health == "down" or found.connection == "offline":
        raise typer.Exit(FAILED)


async def _running(port: int | None) -> HealthAnswer | None:
    """What a service on this machine says of itself; None: there is none."""
    if not port:
        return None
    limit = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(f"http://{HOST}:{port}/health") as response,
        ):
            return msgspec.json.decode(await response.read(), type=HealthAnswer)
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
        return None


def _print(found: HealthAnswer) -> None:
    console = console_for()
    lines: dict[str, Any] = {
        "health": Text(found.health, style=_STYLES[found.health]),
        "exchange": f"{found.identity}{f' · {SIMULATED}' if found.simulated else ''}",
        "connection": found.connection + (f": {found.reason}" if found.reason else ""),
        "load": f"{found.load:.0f} %",
    }
    for name, layer in found.layers.items():
        told = Text(layer.health, style=_STYLES[layer.health])
        told.append(f" since {kst(layer.since)} KST", style="dim")
        if layer.reason:
            told.append(f": {layer.reason}", style="")
        lines[f"{name[-1]} {_NAMES.get(name, name)}"] = told
    for name, value in lines.items():
        say(console, Text(f"{name + ':':<15}").append_text(Text.assemble(value)))
