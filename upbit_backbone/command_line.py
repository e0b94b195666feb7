"""What all commands share: flags over the environment, exit codes, one line for an error."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import typer

from upbit_backbone.config import BackboneConfig, Settled, default_data_dir, settle
from upbit_backbone.errors import BackboneError, InvalidRequestError, UnknownSymbolError
from upbit_backbone.interrupts import INTERRUPTED, leave_at_once, leave_in_order, on_signals

CONFIG = typer.Option(
    "--config", metavar="FILE", help="Settings file (TOML) in place of the user's own."
)


def folder(text: str) -> Path:
    """Read a flag's FOLDER; an empty one would be the current folder."""
    if not text:
        raise typer.BadParameter("must name a folder, was empty")
    return Path(text)


DATA_DIR = typer.Option(
    "--data-dir",
    parser=folder,
    metavar="FOLDER",
    help=f"Where data is stored; default {default_data_dir()}.",
)
JSON = typer.Option("--json", help="Print one JSON document.")
FAILED = 1
LAST_PORT = 65_535
BAD_INPUT = 2
"""As `run_desktop_ui.py` and the command line's own errors."""
STARTED_AFTER_S = 5.0
"""By then a command that stays has made what it keeps."""
_FLAGS = {"start_time": "--from", "end_time": "--to", "count": "--count", "depth": "--depth"}


class Overrides:
    """Flags that override the environment, and the settings file that was named."""

    def __init__(
        self,
        exchange: str | None,
        rest_url: str | None,
        ws_url: str | None,
        data_dir: Path | None,
        file: Path | None = None,
    ) -> None:
        given = {
            "exchange": exchange,
            "rest_url": rest_url,
            "ws_url": ws_url,
            "data_dir": data_dir,
        }
        self._given = {name: value for name, value in given.items() if value is not None}
        self._file = file

    def config(self) -> BackboneConfig:
        """The settings: file, environment and flags, the last the strongest."""
        return self.settled().config

    def settled(self, *, detect: bool = False) -> Settled:
        """The settings, and where each came from.

        Args:
            detect: Whether those that nobody gave suit the machine.
        """
        return settle(flags=self._given, file=self._file, detect=detect)


def moment(flag: str, text: str | None) -> datetime | None:
    """Read a TIME as a flag gives it; without an offset it is local time.

    Raises:
        InvalidRequestError: it is none.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            f"{flag} must be a time such as 2025-09-01T09:00 (local) or 2025-09-01T00:00Z (UTC),"
            f" was {text!r}"
        ) from None


@contextmanager
def in_flags() -> Iterator[None]:
    """Tell what is wrong with a call in the words of the command line: the library names its
    arguments."""
    try:
        yield
    except UnknownSymbolError:
        raise
    except InvalidRequestError as error:
        # Between quotes stands what a person gave.
        words = "|".join(_FLAGS)
        told = re.sub(rf"(?<!')\b(?:{words})\b(?!')", lambda match: _FLAGS[match[0]], str(error))
        raise InvalidRequestError(told) from error


def in_a_shell(sentence: str) -> str:
    """Without the advice that only a program can follow: no command has a flag for a timeout."""
    return sentence.replace(", or give a longer timeout", "")


def whole_number(text: str) -> int:
    """Read a flag's N."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a whole number, was {text!r}") from None


def port_number(text: str) -> int:
    """Read a flag's port."""
    number = whole_number(text)
    if not 0 <= number <= LAST_PORT:
        raise typer.BadParameter(f"must be 0 (any free port) to {LAST_PORT}, was {number}")
    return number


def finite_number(text: str) -> float:
    """Read a flag's S."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise typer.BadParameter(f"must be a number, was {text!r}")
    return number


def plain(value: Any) -> Any:
    """What JSON can say of a value, but for times."""
    return msgspec.to_builtins(value, builtin_types=(datetime,), enc_hook=str, str_keys=True)


def print_json(value: Any) -> None:
    """One document on a line; times are ISO 8601 with their offset."""

    def told(one: Any) -> str:
        assert isinstance(one, datetime)
        return one.isoformat()

    # A sign that was replaced, because the encoding lacks it, would be another value.
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(plain(value), ensure_ascii=ascii_only, default=told, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def run(
    work: Coroutine[Any, Any, None], *, interrupted: int = INTERRUPTED, stays: bool = False
) -> None:
    """Run a command to its end; an error of ours is one line on standard error.

    Ctrl+C and SIGTERM cancel it, unless the command makes more of them.

    Args:
        work: The command.
        interrupted: The exit code when it was cancelled.
        stays: Whether it runs for long.
    """
    stoppable = _stoppable(work, stays=stays)
    began_here = False
    try:
        began_here = leave_in_order()
        asyncio.run(stoppable)
        sys.stdout.flush()
    except BackboneError as error:
        sys.stderr.write(f"{in_a_shell(str(error))}\n")
        code = BAD_INPUT if isinstance(error, InvalidRequestError) else FAILED
        raise typer.Exit(code) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(interrupted) from None
    finally:
        # Interrupted before its first step, Python would warn that nobody awaited it.
        stoppable.close()
        work.close()
        if began_here:
            leave_at_once()


async def _stoppable(work: Coroutine[Any, Any, None], *, stays: bool) -> None:
    """Treat SIGTERM as `asyncio.run` treats Ctrl+C; a command may take it over."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    # Not on Windows, and not outside the main thread.
    with suppress(NotImplementedError, RuntimeError):
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    if stays:
        loop.call_later(STARTED_AFTER_S, _spare_collector)
    await work


def _spare_collector() -> None:
    """What was made to start stays; the collector need not walk through it again.

    A full collection holds the loop up for 20 ms, and for 1 ms without what is frozen.
    """
    if gc.isenabled():
        gc.collect()
        gc.freeze()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stopped = asyncio.Event()
    on_signals(stopped.set)
    return stopped
