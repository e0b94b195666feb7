"""README, `.ci/run` and the preflight give a person the same commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.project.source_rules import REPOSITORY
from ui.preflight import APT_LINE
from upbit_backbone import cli

CI_RUN = REPOSITORY / ".ci" / "run"
COMMANDS = [
    APT_LINE,
    "pip install uv && uv run run_desktop_ui.py",
    "pip install uv && uv run pytest",
    "python3 -m venv .venv && .venv/bin/pip install uv && .venv/bin/uv run run_desktop_ui.py",
    "python3 -m venv .venv && .venv/bin/pip install uv && .venv/bin/uv run pytest",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_has_the_command_on_a_line_of_its_own(command: str) -> None:
    assert command in (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_commands_stand_in_the_order_of_their_use() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index(APT_LINE) < lines.index(COMMANDS[1]) < lines.index(COMMANDS[2])


def commands_in(readme: str) -> list[str]:
    """What a person may copy: code without its comments, and without the drawing of the house."""
    text = (REPOSITORY / readme).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|powershell|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        line
        for _, block in blocks
        for line in re.sub(r"\s+# .*$", "", block, flags=re.MULTILINE).splitlines()
    ]


def test_the_korean_readme_gives_the_same_commands_and_both_name_each_other() -> None:
    english, korean = commands_in("README.md"), commands_in("README.ko.md")
    assert english == korean
    assert len(english) > 30
    for readme, other in (("README.md", "README.ko.md"), ("README.ko.md", "README.md")):
        lines = (REPOSITORY / readme).read_text(encoding="utf-8").splitlines()
        assert any(f"]({other})" in line for line in lines[:5])


def test_the_korean_readme_has_the_same_chapters_tables_and_links() -> None:
    english, korean = (
        (REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md")
    )
    for pattern in (r"^(#+) ", r"^\| (?:[0-9]|`[^|]*`) \|", r"\]\(((?!README)[^)]+)\)"):
        found = [sorted(re.findall(pattern, text, re.MULTILINE)) for text in (english, korean)]
        assert found[0] == found[1]
        assert found[0]


@pytest.mark.parametrize(
    "line", [line for line in commands_in("README.md") if " upbit-backbone " in line]
)
def test_every_flag_that_the_readme_shows_exists(line: str) -> None:
    words = shlex.split(line.partition(" upbit-backbone ")[2])
    command = words[: 2 if words[0] == "db" else 1]
    shown = CliRunner().invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"}).stdout
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{flag}\b", shown), flag


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The few files that `.ci/run` reads, and programs that only say how they were called."""
    for name in (".ci/run", "README.md", "ui/__init__.py", "ui/preflight.py"):
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("pip", "uv", "apt-get", "sudo"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "called: {name} $*"\n')
        program.chmod(0o755)
    # The environment of the tests, where pip may install.
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path / "clone"


@pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="bash runs it")
@pytest.mark.parametrize("installed", [True, False])
def test_ci_installs_what_is_missing_and_runs_what_the_readme_says(
    clone: Path, installed: bool
) -> None:
    query = clone.parent / "bin" / "dpkg-query"
    query.write_text(f"#!/bin/sh\n{'echo installed' if installed else 'exit 1'}\n")
    query.chmod(0o755)
    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=clone,
        env={**os.environ, "PATH": f"{clone.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    called = re.findall(r"^called: (.*)$", done.stdout, re.MULTILINE)
    as_root = os.geteuid() == 0
    apt = APT_LINE.removeprefix("sudo ") if as_root else APT_LINE
    update = "apt-get update -qq" if as_root else "sudo apt-get update -qq"
    assert called == [
        *([] if installed else [update, apt]),
        "pip install uv",
        "uv run pytest",
        "uv run ruff check",
        "uv run ruff format --check",
        "uv run mypy",
        "uv run lint-imports --no-logo",
    ]
    assert installed or APT_LINE.removeprefix("sudo ") in done.stdout
