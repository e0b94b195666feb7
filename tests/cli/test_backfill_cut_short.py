"""A backfill that is ended at whatever await: a sentence, no task, and nothing asked twice."""

from __future__ import annotations

import asyncio
import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.api.house import NOON, House, at, opened
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.backfill import Bar, Loaded, _load
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import BackboneRequest

MOST_STEPS = 1_000


async def a_few_turns(_: BackboneRequest) -> None:
    for _turn in range(2):
        await asyncio.sleep(0)


async def loaded(house: House, stopped: asyncio.Event, told: io.StringIO) -> Loaded | None:
    manager: Any = SimpleNamespace(api=house.api)
    with Bar(Console(file=told)) as bar:
        return await _load(manager, SYMBOL, Timeframe.M1, at(-900), bar, stopped)


@pytest.mark.parametrize("how", ["a signal", "cancelled"])
async def test_wherever_it_is_ended_the_same_command_goes_on_from_there(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in range(MOST_STEPS):
        clock = ManualClock(NOON + 30 * SECOND_MS)
        async with opened(clock) as house:
            before = asyncio.all_tasks()
            house.exists(*range(-1_000, 1))
            house.exchange.before_answer = a_few_turns
            stopped, told = asyncio.Event(), io.StringIO()
            load = asyncio.create_task(loaded(house, stopped, told))
            for _ in range(steps):
                await asyncio.sleep(0)
            was_under_way = not load.done()
            if how == "a signal":
                stopped.set()
            else:
                load.cancel()
            async with asyncio.timeout(10):
                await asyncio.wait([load])
            for _ in range(3):
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == before, steps
            if not load.cancelled() and (had := load.result()) is not None:
                assert "901 candles" in str(had), "it had all of it by then"
            elif steps > 3:
                assert (
                    "the same command goes on from there" in told.getvalue()
                ) or how != "a signal"
            left = house.store.known.missing(NOON - 900 * 60_000, NOON)
            asked_before = len(house.exchange.requests)
            assert "901 candles" in str(await loaded(house, asyncio.Event(), told))
            assert capsys.readouterr().out == ""
            for page in house.exchange.requests[asked_before:]:
                assert page.start_ms is not None
                low_ms = page.start_ms
                assert low_ms >= NOON or any(low <= low_ms < high for low, high in left)
        if not was_under_way:
            assert steps > 10
            return
    raise AssertionError("it did not end")
