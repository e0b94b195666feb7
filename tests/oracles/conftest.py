"""A simulator, its own word, and our client; the clients of others open in the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.manual_clock import ManualClock
from tests.oracles.truth import Truth, ms
from upbit_backbone.clock import ExchangeClock
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.origin import Origin
from upbit_backbone.simulator import Simulator

NOW_MS = ms("2025-09-15T05:03:07.123Z")


@pytest.fixture
def clock() -> ManualClock:
    """In the middle of every unit; a test advances it to get its ten calls a second back."""
    return ManualClock(NOW_MS)


@pytest.fixture
async def simulator(clock: ManualClock) -> AsyncIterator[Simulator]:
    async with Simulator(clock=clock) as simulator:
        yield simulator


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def truth(simulator: Simulator, session: aiohttp.ClientSession) -> Truth:
    return Truth(simulator, session)


@pytest.fixture
def ours(simulator: Simulator, session: aiohttp.ClientSession, clock: ManualClock) -> UpbitAdapter:
    """Our client."""
    return UpbitAdapter(
        session,
        rest_url=simulator.rest_url,
        ws_url=simulator.ws_url,
        origin=Origin("oracles"),
        clock=ExchangeClock(clock),
        local=clock,
    )
