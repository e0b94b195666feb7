"""The command in this process, with one simulator for a whole file of tests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from upbit_backbone import cli

START = "from upbit_backbone.cli import main; main()"
NOWHERE = ("--rest-url", "http://127.0.0.1:9/v1", "--ws-url", "ws://127.0.0.1:9/websocket/v1")


def run(
    folder: Path,
    *arguments: str,
    exchange: Sequence[str] = ("--exchange", "simulator"),
    environment: dict[str, str] | None = None,
) -> Result:
    """Run a command, by default against a simulator in this process."""
    settings = {"UPBIT_BACKBONE_DATA_DIR": str(folder), **(environment or {})}
    return CliRunner().invoke(cli.app, [*arguments, *exchange], env=settings)


def run_json(folder: Path, *arguments: str, **others: Any) -> Any:
    """What a command prints with --json, which is one document and nothing else."""
    told = run(folder, *arguments, "--json", **others)
    assert told.exit_code == 0, told.output
    assert len(told.stdout.splitlines()) == 1
    return json.loads(told.stdout, parse_constant=refuse)


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def command(*arguments: str) -> list[str]:
    """The command as a process of its own."""
    return [sys.executable, "-W", "error", "-c", START, *arguments]


def environment_with(folder: Path, **others: str) -> dict[str, str]:
    return {**os.environ, "UPBIT_BACKBONE_DATA_DIR": str(folder), **others}
