"""Running simulators, and callers of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.manual_clock import ManualClock
from tests.simulator.worlds import Caller
from upbit_backbone.simulator import Simulator


@pytest.fixture
async def simulator(clock: ManualClock) -> AsyncIterator[Simulator]:
    """The endless market of seed 1, at 2025-09-15T00:00:00Z until the test moves the clock."""
    async with Simulator(clock=clock) as simulator:
        yield simulator


@pytest.fixture
async def caller(simulator: Simulator) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(simulator, session)
