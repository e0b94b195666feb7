"""Fixtures for all tests; loops and leak guards lie in `loops.py` and `guards.py`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.manual_clock import ManualClock
from upbit_backbone.api import monitor
from upbit_backbone.telemetry.machine import Usage, process_usage

# A deadline per example would measure the machine; examples that CI picks are always
# the same, so that a change is judged and not luck.
settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("default")


# Nobody's own settings decide whether a test passes; processes that tests start inherit it.
os.environ["UPBIT_BACKBONE_CONFIG"] = os.devnull


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves when the test says so."""
    return ManualClock()


FRESH_BYTES = 150 << 20
"""What a program that has just begun takes."""


@pytest.fixture(autouse=True)
def memory_of_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has thousands of tests behind it: what they left would be load for the next one."""

    def since_now() -> Callable[[], Usage]:
        taken = process_usage()
        before_bytes = taken().rss_bytes

        def usage() -> Usage:
            now = taken()
            return Usage(FRESH_BYTES + max(0, now.rss_bytes - before_bytes), now.processor_s)

        return usage

    monkeypatch.setattr(monitor, "process_usage", since_now)
