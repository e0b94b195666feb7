"""What is imported when, and Ctrl+C meanwhile."""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

import upbit_backbone
from tests.eventually import eventually
from tests.project.source_rules import REPOSITORY
from upbit_backbone import cli, command_line

SAYS_WHAT_IS_THERE = """
import atexit, json, sys
atexit.register(lambda: json.dump(sorted(sys.modules), sys.stderr))
"""
INTERRUPTED_BY_ITSELF = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = {arguments!r}
from {program} import main
sys.exit(main())
"""
COMMAND, DESKTOP = "upbit_backbone.__main__", "run_desktop_ui"


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "QT_QPA_PLATFORM": "offscreen",
        "UPBIT_BACKBONE_DATA_DIR": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("script", "absent"),
    [
        (
            "import upbit_backbone",
            {"aiohttp", "asyncio", "msgspec", "numpy", "typing", "upbit_backbone.models"},
        ),
        (
            "from upbit_backbone import BackboneManager, MarketDataAPI",
            {
                *("typer", "rich", "structlog", "pyarrow", "pandas"),
                *("upbit_backbone.simulator", "upbit_backbone.recorder", "upbit_backbone.cli"),
            },
        ),
        (
            "sys.argv[1:] = ['--help']; from upbit_backbone.__main__ import main; main()",
            {
                *("aiohttp", "aiosqlite", "asyncio", "msgspec", "numpy", "pydantic", "structlog"),
                *(
                    "upbit_backbone.commands.quotes",
                    "upbit_backbone.config",
                    "upbit_backbone.manager",
                ),
            },
        ),
    ],
)
def test_what_is_not_needed_is_not_imported(script: str, absent: set[str], tmp_path: Path) -> None:
    done = run(SAYS_WHAT_IS_THERE + script, tmp_path)
    there = set(json.loads(done.stderr))
    assert "upbit_backbone" in there
    assert absent & there == set()


@pytest.mark.parametrize(
    ("program", "arguments", "module", "number"),
    [
        (COMMAND, ["--help"], "upbit_backbone.cli", "SIGINT"),
        (COMMAND, ["ticker", "KRW-BTC"], "typer", "SIGTERM"),
        # By then there is an event loop.
        (COMMAND, ["ticker", "KRW-BTC"], "upbit_backbone.manager", "SIGINT"),
        (COMMAND, ["ticker", "KRW-BTC"], "upbit_backbone.manager", "SIGTERM"),
        (DESKTOP, ["--exchange", "simulator"], "argparse", "SIGINT"),
        (DESKTOP, ["--exchange", "simulator"], "ui.app", "SIGTERM"),
    ],
)
def test_ctrl_c_while_a_program_is_imported_ends_it_without_a_word(
    program: str, arguments: list[str], module: str, number: str, tmp_path: Path
) -> None:
    script = INTERRUPTED_BY_ITSELF.format(
        program=program, arguments=arguments, module=module, number=number
    )
    done = run(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_before_the_first_step_of_a_command_ends_it_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        raise AssertionError("it was interrupted")

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.run", interrupted)
    with pytest.raises(typer.Exit) as ended:
        command_line.run(work())
    gc.collect()
    assert ended.value.exit_code == 130
    assert capsys.readouterr() == ("", "")


def test_a_command_that_stays_spares_the_collector_what_it_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        await eventually(lambda: gc.get_freeze_count() > 0)

    monkeypatch.setattr(command_line, "STARTED_AFTER_S", 0.0)
    try:
        command_line.run(work(), stays=True)
    finally:
        gc.unfreeze()


def test_what_help_says_of_a_command_is_what_the_command_says() -> None:
    for name, later in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        command = later.imported()
        assert command.help, name
        assert later.help == " ".join(re.split(r"\n\s*\n", command.help)[0].split()), name
        assert command.make_context(name, ["--help"], resilient_parsing=True), name


def test_the_package_gives_every_name_that_it_shows_to_who_reads_its_source() -> None:
    source = ast.parse(Path(upbit_backbone.__file__).read_text(encoding="utf-8"))
    shown = [
        (node.module, alias.name)
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name != "import_module"
    ]
    assert sorted(name for _, name in shown) == sorted(upbit_backbone.__all__)
    for module, name in shown:
        assert module is not None
        assert getattr(upbit_backbone, name) is getattr(importlib.import_module(module), name)
    assert set(upbit_backbone.__all__) <= set(dir(upbit_backbone))
    with pytest.raises(AttributeError, match="has no attribute 'Kandle'"):
        upbit_backbone.Kandle  # type: ignore[attr-defined]  # noqa: B018
