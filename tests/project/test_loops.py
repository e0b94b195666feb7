"""Async tests run on the loop that their marker names, and the helpers wait on either."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.eventually import eventually
from tests.loops import application
from tests.manual_clock import ManualClock
from tests.project.source_rules import REPOSITORY
from upbit_backbone.clock import Clock

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication
    from pytestqt.qtbot import QtBot


async def test_an_unmarked_test_runs_on_stock_asyncio() -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")


@pytest.mark.qt_loop
async def test_a_qt_loop_test_runs_on_qasync() -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("qasync")


@pytest.mark.both_loops
async def test_a_both_loops_test_runs_on_each(request: pytest.FixtureRequest) -> None:
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.split(".")[0] == request.node.callspec.id


@pytest.mark.qt_loop
async def test_widgets_and_coroutines_share_one_application(
    qapp: QApplication, qtbot: QtBot
) -> None:
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    assert qapp is application() is QApplication.instance()
    assert not qapp.quitOnLastWindowClosed()
    fired = asyncio.Event()
    QTimer.singleShot(1, fired.set)
    async with asyncio.timeout(5):
        await fired.wait()


@pytest.mark.both_loops
async def test_eventually_returns_what_became_true() -> None:
    answers = iter(["", "", "ready"])
    assert await eventually(lambda: next(answers)) == "ready"


@pytest.mark.both_loops
async def test_eventually_says_what_it_waited_for() -> None:
    ready: list[int] = []
    with pytest.raises(AssertionError, match=r"not within 0.01 s: .*len\(ready\) > 3"):
        await eventually(lambda: len(ready) > 3, timeout=0.01)


def test_a_manual_clock_moves_when_told(clock: ManualClock) -> None:
    injected: Clock = clock
    wall, mono = injected.now_ms(), injected.monotonic()
    assert (injected.now_ms(), injected.monotonic()) == (wall, mono)
    clock.advance(1.5)
    assert injected.now_ms() - wall == 1_500
    assert injected.monotonic() - mono == 1.5
    clock.set_wall(wall - 60_000)
    assert injected.now_ms() == wall - 60_000
    assert injected.monotonic() - mono == 1.5


@pytest.mark.parametrize(
    ("options", "runs"),
    [((), "test_quick"), (("-m", "slow"), "test_long"), (("-m", "both_loops"), "test_twice")],
)
def test_long_tests_run_when_asked_for(tmp_path: Path, options: tuple[str, ...], runs: str) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_quick(): ...\n"
        "@pytest.mark.slow\n"
        "def test_long(): ...\n"
        "@pytest.mark.slow\n"
        "@pytest.mark.both_loops\n"
        "def test_twice(): ...\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--collect-only", "-q", *options),
            *("-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider"),
            str(tmp_path / "test_some.py"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    collected = re.findall(r"::(\w+)", done.stdout)
    assert runs in collected, done.stdout + done.stderr
    assert ("test_quick" in collected) == (not options)
