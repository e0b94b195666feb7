"""The command ``upbit-backbone``: the service without a window. Never imports Qt.

Whatever is wrong is one line on standard error. Exit codes: 0 all is well, also when the
reader of a pipe went away; 2 the command itself is wrong (its flags, their values, the
environment's, or the settings file's); 1 it failed while it ran; 130 Ctrl+C; 10 to 15 what
`doctor` found.
"""

from __future__ import annotations

import logging
import re
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command, get_group

from upbit_backbone import __version__
from upbit_backbone.commands.output import run_with_output

_TOLD_OTHERWISE = ("upbit_backbone.manager",)
"""That it starts offline, the commands tell themselves, once and with what follows."""
_HOMES = {
    # What a command does stands in its docstring; here again, as --help imports none of them.
    "ticker": (
        "upbit_backbone.commands.quotes:ticker",
        "Print the latest price of markets, and what they did today.",
    ),
    "orderbook": (
        "upbit_backbone.commands.quotes:orderbook",
        "Print the order book of a market, the lowest ask above the highest bid.",
    ),
    "trades": (
        "upbit_backbone.commands.quotes:trades",
        "Print trades of a market, oldest first.",
    ),
    "candles": (
        "upbit_backbone.commands.candles:candles",
        "Print candles, oldest first. A TIME without an offset is local time.",
    ),
    "watch": (
        "upbit_backbone.commands.watch:watch",
        "Show prices as they change, until Ctrl+C.",
    ),
    "screen": (
        "upbit_backbone.commands.screen:screen",
        "Print all markets in won, or the first of them by change or traded value.",
    ),
    "backfill": (
        "upbit_backbone.backfill:command",
        "Store candles of the last days. Ctrl+C keeps what is there; run again, it goes on.",
    ),
    "db": (
        "upbit_backbone.store_commands:app",
        "The file that candles are stored in.",
    ),
    "status": (
        "upbit_backbone.commands.status:status",
        "Tell how the service is doing.",
    ),
    "doctor": (
        "upbit_backbone.commands.doctor:doctor",
        "Look at network, clock, limits, disk, Qt and fonts, with a remedy for what fails.",
    ),
    "config": (
        "upbit_backbone.commands.settings:app",
        "The settings in force, and a file of them.",
    ),
    "simulate": (
        "upbit_backbone.commands.simulate:simulate",
        "Serve a simulated exchange; prints one line of JSON with its addresses.",
    ),
    "record": (
        "upbit_backbone.commands.recordings:record",
        "Record an exchange, REST and stream, byte for byte.",
    ),
    "replay": (
        "upbit_backbone.commands.recordings:replay",
        "Serve a recording again; prints one line of JSON with its addresses.",
    ),
}


class _Later(TyperCommand):
    """A command by its name and what --help says of it; it is imported when it is called."""

    def __init__(self, name: str, home: str, help: str) -> None:
        super().__init__(name, help=help)
        self._home = home

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        return self.imported().make_context(info_name, args, parent, **extra)

    def imported(self) -> Any:
        """The command itself."""
        module, _, name = self._home.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return get_command(alone)


class _Commands(TyperGroup):
    """Tells what is wrong with an argument in one line, like every other error here."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: _Later(name, *home) for name, home in _HOMES.items()}

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
app = typer.Typer(no_args_is_help=True, add_completion=False, cls=_Commands, epilog=_EXIT_CODES)


def _tell_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"upbit-backbone {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what happens.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Market data of Upbit, without a window.

    Commands take --json: one document on a line, 'watch' one for each change.
    """
    from upbit_backbone.telemetry.logs import configure_logging

    if verbose:
        configure_logging(logging.INFO)
    else:
        configure_logging(logging.WARNING, told_otherwise=_TOLD_OTHERWISE)


def main() -> None:
    """Run the command line; an error of ours is one line on standard error."""
    run_with_output(app)
