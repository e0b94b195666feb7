"""The whole service against a real simulator in this process, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from upbit_backbone import BackboneConfig
from upbit_backbone.clock import ShiftedClock
from upbit_backbone.simulator.server import Simulator

AFTER_SEPTEMBER_2025_MS = 1_759_276_860_000
"""2025-10-01T00:01:00Z: all of September is closed and proved, inside the recordings."""

A_WEDNESDAY_MS = 1_772_600_790_000
"""2026-03-04T05:06:30Z: half a minute from the next candle, and the last 1,000 minutes of
KRW-BTC all have trades (the repeating tile has two without, which cost a page more)."""

ConfigOf = Callable[[Simulator], BackboneConfig]


@pytest.fixture
def config_of(tmp_path: Path) -> ConfigOf:
    """Settings that reach a simulator by its addresses, with a folder of the test's own."""

    def make(simulator: Simulator) -> BackboneConfig:
        return BackboneConfig(
            rest_url=simulator.rest_url, ws_url=simulator.ws_url, data_dir=tmp_path / "data"
        )

    return make


@pytest.fixture
async def as_recorded() -> AsyncIterator[Simulator]:
    """September 2025 as it was, seen from the first of October."""
    simulator = Simulator(clock=ShiftedClock(AFTER_SEPTEMBER_2025_MS), as_recorded=True)
    await simulator.start()
    yield simulator
    await simulator.close()


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """The endless market, from a known instant on: the same rows in every run."""
    simulator = Simulator(clock=ShiftedClock(A_WEDNESDAY_MS), first_symbol="KRW-BTC")
    await simulator.start()
    yield simulator
    await simulator.close()
