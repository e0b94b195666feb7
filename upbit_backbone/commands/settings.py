"""``upbit-backbone config``: which settings are in force, where each came from, and a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    JSON,
    Overrides,
    print_json,
    run,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import Shown, console_for, fitting_table, say, tell
from upbit_backbone.config import (
    DEFAULT,
    SETTINGS,
    BackboneConfig,
    Settled,
    settle,
)
from upbit_backbone.config_file import default_config_file
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.surroundings import network_sentence

app = typer.Typer(invoke_without_command=True, help="The settings in force, and a file of them.")

SENTENCES: Mapping[str, str] = {
    "exchange": '"upbit", or "simulator": an exchange started in the process.',
    "rest_url": "Another address of the exchange, ending in /v1; ws_url belongs beside it.",
    "ws_url": "And its WebSocket, ending in /websocket/v1.",
    "replay": "The name of the recording that is replayed at these addresses.",
    "data_dir": "Where data are stored; relative to this file.",
    "critical_reserve": "Of ten requests a second and group, how many are for CRITICAL alone.",
    "simulator_seed": "Which simulated market: equal seeds give equal data.",
    "max_concurrent_requests": "How many calls of one priority may be in work at once.",
    "memory_limit_mb": "What the process may take; candles in memory get a quarter, and give way.",
    "symbols_per_request": "How many tickers or order books one request names; none: all.",
    "pinned": 'Candles that stay up to now although nobody reads them, e.g. ["KRW-BTC:1m"].',
    "storage_limit_mb": "How large the stored candles may grow; none: no limit.",
    "keep_1s_days": "How many days candles of one second are kept; none: for ever.",
    "metrics_port": "Serves /metrics and /health on this port of the loopback; none: not at all.",
    "auto_optimization": "Streams for what is asked often; memory filled after the start.",
    "environment_detection": "Whether create_auto_config() measures this machine.",
    "circuit_breaker_enabled": "Ask nothing while the exchange blocks this address.",
    "auto_retry_enabled": "Ask again what was not reached, within the deadline.",
    "fallback_mode_enabled": "Let stream and requests stand in for each other.",
}
"""What each setting is for, as a file says it."""
_EXAMPLES: Mapping[str, Any] = {
    "rest_url": "http://127.0.0.1:8765/v1",
    "ws_url": "ws://127.0.0.1:8765/websocket/v1",
    "replay": "replay-0123abcd",
    "symbols_per_request": 50,
    "pinned": ["KRW-BTC:1m"],
    "storage_limit_mb": 2048,
    "keep_1s_days": 30,
    "metrics_port": 9100,
}
"""Of settings whose default TOML cannot say."""


@app.callback()
def config(
    context: typer.Context,
    auto: Annotated[
        bool, typer.Option("--auto", help="Also what suits this machine, as measured now.")
    ] = False,
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    file: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Print the settings in force and where each came from.

    With --json: an object. The stronger wins, from the weakest on: defaults, the file,
    UPBIT_BACKBONE_… variables, flags.
    """
    if context.invoked_subcommand is None:
        overrides = Overrides(exchange, rest_url, ws_url, data_dir, file)
        run(_show(overrides, auto, as_json))


@app.command()
def init(
    file: Annotated[
        Path | None, typer.Argument(help="The file to write; without it the user's own.")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="With the values that suit this machine.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a settings file in which everything is a comment that can be taken away."""
    run(_init(file or default_config_file(), auto, force))


async def _show(overrides: Overrides, auto: bool, as_json: bool) -> None:
    settled = overrides.settled(detect=auto)
    values = {name: _plain(getattr(settled.config, name)) for name in SETTINGS}
    if as_json:
        told = {
            name: {"value": value, "from": settled.origins[name]} for name, value in values.items()
        }
        found = settled.surroundings
        print_json(
            {
                "file": None if settled.file is None else str(settled.file),
                "identity": settled.config.identity,
                "settings": told,
                "measured": None if found is None else found._asdict(),
            }
        )
    else:
        _print(settled, values)


def _print(settled: Settled, values: Mapping[str, Any]) -> None:
    console = console_for()
    rows = [[name, _shown(values[name]), settled.origins[name]] for name in SETTINGS]
    columns = (
        Shown("setting", "left"),
        Shown("value", "left", folds=True),
        Shown("from", "left", folds=True),  # what was measured has a reason, which may be long
    )
    console.print(fitting_table(columns, rows, width=console.width))
    if settled.surroundings is not None:
        say(console, f"network: {network_sentence(settled.surroundings)}")
    where = settled.file or f"none; 'upbit-backbone config init' writes {default_config_file()}"
    say(console, f"settings file: {where}")


async def _init(file: Path, auto: bool, force: bool) -> None:
    text = file_text(settle({}, detect=auto))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as error:
        raise InvalidRequestError(
            f"{file} is there already: --force replaces it, or give another name"
        ) from error
    except OSError as error:
        raise InvalidRequestError(
            f"{file} cannot be written ({error.strerror}): give another name"
        ) from error
    tell(f"{file} was written; whatever is no comment in it is in force from the next start on")


def file_text(settled: Settled) -> str:
    """A settings file: each setting explained, its default behind a comment sign.

    What was measured is in force, and says why.
    """
    lines = [
        "# Settings of Upbit Backbone. Take a # away to set a value; without it the default holds.",
        "# UPBIT_BACKBONE_… variables and flags of a program override what stands here.",
    ]
    defaults = {entry.name: entry.default for entry in fields(BackboneConfig)}
    defaults |= {"data_dir": BackboneConfig().data_dir}
    for name in SETTINGS:
        value, origin = getattr(settled.config, name), settled.origins[name]
        lines += ["", f"# {SENTENCES[name]}"]
        if origin.startswith("measured: "):
            lines.append(f"# {origin}")
        if origin == DEFAULT or value is None:
            example = _EXAMPLES.get(name, _plain(defaults[name]))
            lines.append(f"# {name} = {_toml(example)}")
        else:
            lines.append(f"{name} = {_toml(_plain(value))}")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return "none" if value is None else _toml(value)


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, str):
        # A literal string needs no escapes: a path of Windows stays as it is.
        return f"'{value}'" if "\\" in value and "'" not in value else _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
