"""Running simulators, and callers of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.manual_clock import ManualClock
from tests.simulator.worlds import Caller
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.table import Table
from upbit_backbone.simulator.timeline import TableName

_tables: dict[tuple[int, bool, float, TableName], Table] = {}


@pytest.fixture
def shared_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other things than markets: a table is built once for all of them.

    It follows from what it is kept by, and does not change.
    """
    build = Exchange._build

    def once(self: Exchange, name: TableName) -> Table:
        key = (self.seed, self.as_recorded, self.rate, name)
        if key not in _tables:
            _tables[key] = build(self, name)
        return _tables[key]

    monkeypatch.setattr(Exchange, "_build", once)


@pytest.fixture
async def simulator(clock: ManualClock) -> AsyncIterator[Simulator]:
    """The endless market of seed 1, at 2025-09-15T00:00:00Z until the test moves the clock."""
    async with Simulator(clock=clock) as simulator:
        yield simulator


@pytest.fixture
async def caller(simulator: Simulator) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(simulator, session)
