"""The sources keep the rules of the house, and each rule is able to fail."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.project.source_rules import REPOSITORY, RULES, faults_of, program_files

# (rule, where the source is put, source)
BROKEN = [
    ("upbit_address", "upbit_backbone/routing/x.py", 'URL = "https://api.upbit.com/v1"'),
    ("upbit_address", "upbit_backbone/config.py", 'def f(q): return f"wss://api.upbit.com/{q}"'),
    ("upbit_address", "ui/x.py", "HOST = b'api.upbit.com'"),
    ("upbit_address", "run_desktop_ui.py", 'print("see", "UPBIT.COM")'),
    ("sqlite_import", "upbit_backbone/storage/x.py", "import sqlite3"),
    ("sqlite_import", "upbit_backbone/storage/x.py", "from sqlite3 import Row"),
    ("sqlite_import", "upbit_backbone/storage/x.py", "def f():\n    import sqlite3.dbapi2 as d"),
    ("sqlite_import", "ui/x.py", 'import importlib\nimportlib.import_module("sqlite3")'),
    ("qt_import", "upbit_backbone/api/x.py", "from PySide6.QtCore import QObject"),
    ("qt_import", "upbit_backbone/api/x.py", "import qasync"),
    ("qt_import", "upbit_backbone/telemetry/x.py", "import pyqtgraph as pg"),
    ("qt_import", "upbit_backbone/cli.py", "from ui.app import main"),
    ("input_output", "upbit_backbone/models.py", "import aiohttp"),
    ("input_output", "upbit_backbone/models.py", "from pathlib import Path"),
    ("input_output", "upbit_backbone/models.py", "from urllib.request import urlopen"),
    ("input_output", "upbit_backbone/indicators/x.py", "def f(p): return open(p)"),
    ("input_output", "upbit_backbone/strategy/x.py", "import socket"),
    (
        "input_output",
        "upbit_backbone/strategy/x.py",
        "import asyncio\nasync def f(): await asyncio.open_connection('127.0.0.1', 1)",
    ),
    ("modal_dialog", "ui/x.py", "async def f(dialog): dialog.exec()"),
    ("modal_dialog", "ui/x.py", "async def f(self):\n    if 1: return self.box.exec_()"),
    ("modal_dialog", "ui/x.py", "async def f(): QMessageBox.warning(None, 'a', 'b')"),
    ("shop_window", "upbit_backbone/storage/x.py", "from upbit_backbone import Candle"),
    ("shop_window", "upbit_backbone/storage/x.py", "import upbit_backbone"),
]

ALLOWED = [
    ("upbit_backbone/exchanges/upbit/x.py", 'URL = "https://api.upbit.com/v1"'),
    ("upbit_backbone/simulator/x.py", 'URL = "https://api.upbit.com/v1"'),
    ("upbit_backbone/routing/x.py", '"""Source: https://docs.upbit.com/kr"""\n# api.upbit.com'),
    ("upbit_backbone/storage/x.py", "import aiosqlite"),
    ("upbit_backbone/routing/x.py", "import os\nfrom pathlib import Path\nopen('x')"),
    ("ui/x.py", "from PySide6.QtCore import QObject"),
    ("ui/x.py", "def f(dialog): dialog.exec()"),
    ("ui/x.py", "async def f(dialog): await asyncWrap(dialog.exec)"),
    ("ui/x.py", "async def f(db): await db.execute('SELECT 1')"),
    ("ui/x.py", "async def f(log): log.warning('late')"),
    ("ui/x.py", "from upbit_backbone import MarketDataAPI"),
    ("upbit_backbone/storage/x.py", "from upbit_backbone.models import Candle"),
]

BANNED_BY_RUFF = [
    "import time\ntime.time()",
    "from time import monotonic\nmonotonic()",
    "import time\nclock = time.time_ns",
    "import time as t\nt.monotonic_ns()",
    "from datetime import datetime, UTC\ndatetime.now(UTC)",
    "import datetime\ndatetime.datetime.utcnow()",
    "from datetime import datetime\ndatetime.today()",
    "from datetime import date\ndate.today()",
    "import random\nrandom.random()",
    "from random import shuffle\nshuffle([])",
    "import random\nrandom.seed(1)",
]

ALLOWED_BY_RUFF = [
    "import random\nchance = random.Random(1)\nchance.random()",
    "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)",
    "import time\ntime.perf_counter()",
]

# (where a line is added, the line, words of the contract that it breaks)
FORBIDDEN_IMPORTS = [
    ("storage/x.py", "from upbit_backbone.coordinator import x", "The house"),
    ("coordinator/x.py", "from upbit_backbone.storage import x", "The house"),
    ("exchanges/x.py", "from upbit_backbone.routing import x", "The house"),
    ("simulator/x.py", "import upbit_backbone.exchanges.x", "The house"),
    ("models.py", "import upbit_backbone.config", "The house"),
    ("routing/x.py", "import upbit_backbone.manager", "The house"),
    ("cli.py", "from upbit_backbone.api import x", "One composition root"),
    ("../ui/app.py", "from upbit_backbone.storage import x", "One composition root"),
    ("api/x.py", "from PySide6 import QtCore", "The service runs without Qt"),
    ("api/x.py", "import ui.app", "The service runs without Qt"),
    ("storage/x.py", "import sqlite3", "SQLite is reached"),
    ("brand_new.py", "", "The house"),
]


def test_the_sources_keep_the_rules() -> None:
    faults = [
        fault
        for path in program_files()
        for fault in faults_of(
            path.read_text(encoding="utf-8"), path.relative_to(REPOSITORY).as_posix()
        )
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("rule", "path", "source"), BROKEN)
def test_a_rule_finds_what_breaks_it(rule: str, path: str, source: str) -> None:
    assert [fault for fault in faults_of(source, path) if fault.endswith(f"({rule})")]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_the_rules_leave_the_rest_alone(path: str, source: str) -> None:
    assert faults_of(source, path) == []


def test_each_rule_has_a_source_that_breaks_it() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, _, _ in BROKEN}


@pytest.mark.parametrize("source", BANNED_BY_RUFF)
def test_time_and_chance_are_injected(source: str) -> None:
    assert _banned(source, "upbit_backbone/routing/x.py")
    assert _banned(source, "ui/x.py")


@pytest.mark.parametrize("source", ALLOWED_BY_RUFF)
def test_conversions_and_seeded_chance_are_allowed(source: str) -> None:
    assert not _banned(source, "upbit_backbone/routing/x.py")


def test_the_clock_module_may_ask_for_the_time() -> None:
    assert not _banned("import time\ntime.time()", "upbit_backbone/clock.py")


@pytest.fixture(scope="module")
def small_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of empty modules under the project's own contracts, which it keeps."""
    root = tmp_path_factory.mktemp("house")
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    folders = ("api", "coordinator", "storage", "routing", "exchanges", "simulator")
    modules = (*_modules_that_must_exist(), "manager", "cli")
    for folder in ("", *folders):
        package = root / "upbit_backbone" / folder
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        if folder:
            (package / "x.py").touch()
    for module in modules:
        (root / "upbit_backbone" / f"{module}.py").touch()
    (root / "upbit_backbone/__init__.py").write_text("from upbit_backbone.api.x import __doc__\n")
    (root / "upbit_backbone/cli.py").write_text("from upbit_backbone import manager\n")
    (root / "upbit_backbone/manager.py").write_text("import upbit_backbone.storage.x\n")
    (root / "upbit_backbone/storage/x.py").write_text("import upbit_backbone.models\n")
    (root / "ui").mkdir()
    (root / "ui/__init__.py").touch()
    (root / "ui/app.py").write_text("import upbit_backbone\nfrom PySide6 import QtCore\n")
    return root


def _modules_that_must_exist() -> list[str]:
    """Those that the layers name without brackets."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    house = settings["tool"]["importlinter"]["contracts"][0]
    named = [name for line in house["layers"] for name in re.split(r" [:|] ", line)]
    return [name for name in named if not name.startswith("(")]


def test_a_house_in_order_keeps_the_contracts(small_house: Path) -> None:
    returncode, output = _lint_imports(small_house)
    assert returncode == 0, output


@pytest.mark.parametrize(("where", "line", "contract"), FORBIDDEN_IMPORTS)
def test_a_contract_breaks_when_an_import_points_the_wrong_way(
    small_house: Path, where: str, line: str, contract: str
) -> None:
    module = small_house / "upbit_backbone" / where
    before = module.read_text() if module.exists() else None
    module.write_text(f"{before or ''}{line}\n")
    try:
        returncode, output = _lint_imports(small_house)
    finally:
        if before is None:
            module.unlink()
        else:
            module.write_text(before)
    assert returncode != 0
    assert contract in output, output


def _banned(source: str, path: str) -> bool:
    """Whether ruff, under the project's configuration, refuses a name of this source."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "check", "--output-format=json"),
            *("--no-cache", "--stdin-filename", path, "-"),
        ],
        cwd=REPOSITORY,
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    return any(finding["code"] == "TID251" for finding in json.loads(done.stdout))


def _lint_imports(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                "import importlinter.cli as c; c.lint_imports_command()",
            ),
            *("--config", "pyproject.toml", "--no-cache", "--no-logo"),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
