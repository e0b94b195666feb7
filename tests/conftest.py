"""Fixtures for all tests; loops and leak guards lie in `loops.py` and `guards.py`."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.manual_clock import ManualClock

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
