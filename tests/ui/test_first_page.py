"""A chart on a slow exchange: its first page at once, the rest as it comes, nothing jumps.

The window, the bridge and the whole service, on a simulator whose candles take their time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from tests.eventually import eventually
from ui.bridge import FIRST_CANDLES, PAGE_CANDLES, BackboneBridge
from ui.candle_update import CandleUpdate
from ui.main_window import MainWindow
from ui.theme import Theme
from upbit_backbone import BackboneConfig, BackboneManager, Timeframe
from upbit_backbone.clock import MINUTE_MS, ShiftedClock
from upbit_backbone.simulator.faults import Fault
from upbit_backbone.simulator.server import Simulator

pytestmark = pytest.mark.qt_loop

NIGHT_MS = 1_757_894_430_000
"""2025-09-15T00:00:30Z, inside the recordings."""
SLOW = Fault(kind="latency", group="candles", ms=400)
PICTURES = os.environ.get("BACKBONE_TEST_PICTURES")
"""A folder for what the window looked like, for whoever wants to see it."""


class Screen:
    """A window over a service, and what its chart was given."""

    def __init__(
        self,
        window: MainWindow,
        bridge: BackboneBridge,
        simulator: Simulator,
    ) -> None:
        self.window = window
        self.chart = window.chart
        self.simulator = simulator
        self.updates: list[CandleUpdate] = []
        bridge.candleReady.connect(self.updates.append)

    @property
    def loads(self) -> list[CandleUpdate]:
        """The parts of loads; not the newest page again, asked for when the stream came to life."""
        found: list[CandleUpdate] = []
        oldest: dict[str, int] = {}
        for update in self.updates:
            before_ms = oldest.get(update.symbol)
            if update.kind == "loaded" and (before_ms is None or update.series.time[0] < before_ms):
                found.append(update)
                oldest[update.symbol] = int(update.series.time[0])
        return found

    @property
    def view(self) -> tuple[float, float]:
        """What is in view, as distances from the newest bar."""
        view = self.chart.viewport
        return view.left - self.chart.bars.last, view.right - self.chart.bars.last

    def gaps(self) -> list[int]:
        """How many minutes lie between neighbours, where it is not one."""
        times = self.chart.bars.rows(self.chart.bars.first, self.chart.bars.last + 1)[0]
        return [int(b - a) // MINUTE_MS for a, b in pairwise(times) if b - a != MINUTE_MS]

    async def picture(self, name: str) -> None:
        await eventually(lambda: not self.chart._frame.isActive())
        if PICTURES is not None:
            self.window.grab().save(str(Path(PICTURES) / f"{name}.png"))


@asynccontextmanager
async def screen(folder: Path, theme: Theme, *faults: Fault) -> AsyncIterator[Screen]:
    clock = ShiftedClock(NIGHT_MS)
    async with Simulator(as_recorded=True, clock=clock, faults=faults) as simulator:
        config = BackboneConfig(
            rest_url=simulator.rest_url, ws_url=simulator.ws_url, data_dir=folder
        )
        manager = BackboneManager(config, clock=clock, rng=Random(1))
        bridge = BackboneBridge(clock=clock)
        window = MainWindow(bridge, theme, clock)
        shown = Screen(window, bridge, simulator)
        window.open_chart("KRW-BTC", Timeframe.M1)
        window.show()
        try:
            await manager.initialize()
            bridge.attach(manager.api)
            yield shown
        finally:
            await bridge.close()
            await manager.shutdown()
            window.let_close()
            window.close()
            window.deleteLater()
            bridge.deleteLater()


async def test_the_first_page_is_on_the_screen_while_the_second_is_on_its_way(
    tmp_path: Path, theme: Theme
) -> None:
    async with screen(tmp_path, theme, SLOW) as shown:
        chart = shown.chart
        drawn = asyncio.Event()
        chart.drawn.connect(drawn.set)
        await drawn.wait()
        view = shown.view
        assert len(chart.bars) <= PAGE_CANDLES + 1
        assert chart._history_open
        await shown.picture("first-page")
        await eventually(lambda: len(chart.bars) >= FIRST_CANDLES)
        await shown.picture("whole")
        assert shown.view == view
        assert shown.gaps() == []
        assert not chart._history_open
        assert [len(update.series) for update in shown.loads] == [PAGE_CANDLES] * 2
        # No candle was asked for twice, nor was history asked for that is on its way.
        assert shown.loads[1].series.time[-1] == shown.loads[0].series.time[0] - MINUTE_MS


async def test_scrolling_back_shows_each_part_when_it_is_there(
    tmp_path: Path, theme: Theme
) -> None:
    async with screen(tmp_path, theme, SLOW) as shown:
        chart = shown.chart
        await eventually(lambda: len(chart.bars) >= FIRST_CANDLES)
        chart._pan(-float(FIRST_CANDLES))
        await eventually(lambda: len(chart.bars) >= FIRST_CANDLES + PAGE_CANDLES)
        left_ms = chart.bars.bar(int(chart.viewport.left) + 1)
        assert len(shown.loads) == 3
        await eventually(lambda: len(shown.loads) == 4)
        after = chart.bars.bar(int(chart.viewport.left) + 1)
        assert left_ms is not None
        assert after is not None
        assert after[0] == left_ms[0]
        assert shown.gaps() == []
        await shown.picture("scrolled-back")


async def test_another_market_in_the_middle_ends_the_load_of_the_first(
    tmp_path: Path, theme: Theme
) -> None:
    async with screen(tmp_path, theme, SLOW) as shown:
        chart = shown.chart
        await eventually(lambda: len(chart.bars))
        shown.window.open_chart("KRW-XRP", Timeframe.M1)
        assert len(chart.bars) == 0
        await eventually(lambda: len(chart.bars) >= FIRST_CANDLES)
        assert chart.bars.symbol == "KRW-XRP"
        bitcoin = [update for update in shown.loads if update.symbol == "KRW-BTC"]
        assert [len(update.series) for update in bitcoin] == [PAGE_CANDLES]
        assert shown.window.messages.text == ""


async def test_a_second_page_that_fails_leaves_the_first_and_is_asked_for_again(
    tmp_path: Path, theme: Theme
) -> None:
    async with screen(tmp_path, theme, Fault(kind="latency", group="candles", ms=1_000)) as shown:
        chart = shown.chart
        chart._retry.setInterval(100)
        (slow,) = shown.simulator.faults
        # The first page is on its way.
        await eventually(lambda: slow.fired)
        broken = shown.simulator.faults.add(Fault(kind="malformed", group="candles"))
        await eventually(lambda: shown.window.messages.text)
        assert len(chart.bars) <= PAGE_CANDLES + 1
        assert chart._edge_note() in ("History could not be loaded", "")
        await shown.picture("second-page-failed")
        shown.simulator.faults.clear(broken)
        await eventually(lambda: len(chart.bars) >= FIRST_CANDLES)
        await eventually(lambda: shown.window.messages.text == "")
        assert shown.gaps() == []
