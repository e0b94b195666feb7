"""A running house for each test, and a look at what it logged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House, opened
from tests.simulator.conftest import shared_tables as shared_tables

OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path, shared_tables: None, caplog: pytest.LogCaptureFixture) -> OpenHouse:
    """``async with open_house() as house``; arguments as of `opened`, `folder` a name.

    Outages are logged as warnings; an error in the log is a fault of ours.
    """

    @asynccontextmanager
    async def open_(folder: str = "data", **options: Any) -> AsyncIterator[House]:
        async with opened(tmp_path / folder, **options) as house:
            yield house
        errors = [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]
        assert not errors

    return open_
