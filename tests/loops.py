"""Which event loop an async test runs on.

Routing, storage and everything else that the service owns runs on stock asyncio. A test
marked `both_loops` runs once there and once on qasync, as in the desktop program; one
marked `qt_loop` on qasync alone; one marked `steered_time` where waiting takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.steered_loop import SteeredLoop

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@cache
def application() -> QApplication:
    """The process's only QApplication: pytest-qt's fixture and qasync share it."""
    from PySide6.QtWidgets import QApplication

    existing = QApplication.instance()
    app = existing if isinstance(existing, QApplication) else QApplication(["upbit-backbone"])
    # Otherwise closing a test's last window ends the loop under the test (qasync #39).
    app.setQuitOnLastWindowClosed(False)
    return app


@pytest.fixture(scope="session")
def qapp() -> QApplication:
    """Takes the place of pytest-qt's fixture, which would make an application of its own."""
    return application()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, LoopFactory]:
    if item.get_closest_marker("qt_loop"):
        return {"qasync": _qt_loop}
    if item.get_closest_marker("both_loops"):
        return {"asyncio": asyncio.new_event_loop, "qasync": _qt_loop}
    if item.get_closest_marker("steered_time"):
        return {"steered": SteeredLoop}
    return {"asyncio": asyncio.new_event_loop}


def _qt_loop() -> asyncio.AbstractEventLoop:
    import qasync

    loop: asyncio.AbstractEventLoop = qasync.QEventLoop(application())
    return loop
