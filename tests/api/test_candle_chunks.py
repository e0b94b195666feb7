"""Long ranges of candles, as programs ask for them."""

from __future__ import annotations

import asyncio
import gc
from datetime import datetime
from typing import Any

import pytest

from tests.api.house import NOON, M, at, opened
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import (
    ClosedError,
    DeadlineError,
    InvalidRequestError,
    UnknownSymbolError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import BackboneRequest, Priority, Progress


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


def minutes(series: Any) -> list[int]:
    return [(at_ms - NOON) // M for at_ms in series.time.tolist()]


@pytest.mark.both_loops
async def test_a_range_comes_in_stretches_oldest_first_or_newest_first(noon: ManualClock) -> None:
    for newest_first, firsts in ((False, [-999, -799]), (True, [-199, -399])):
        async with opened(noon) as house:
            house.exists(*range(-2_000, 1))
            chunks = house.api.iter_candle_chunks(SYMBOL, "1m", at(-999), newest_first=newest_first)
            pieces = [minutes(series) async for series in chunks]
            assert [piece[0] for piece in pieces[:2]] == firsts
            assert sorted(n for piece in pieces for n in piece) == list(range(-999, 1))
            assert {page.priority for page in house.exchange.requests} == {Priority.LOW}
            assert chunks.progress.state == "done"
            assert chunks.missing == ()


async def test_progress_is_told_and_ends_with_everything_done(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-2_000, 1))
        told: list[Progress] = []
        chunks = house.api.iter_candle_chunks(
            SYMBOL, Timeframe.M1, at(-600), at(0), Priority.NORMAL, progress=told.append
        )
        async for _ in chunks:
            pass
        assert (told[-1].done, told[-1].total, told[-1].state) == (600, 600, "done")
        assert (told[-1].symbol, told[-1].timeframe) == (SYMBOL, Timeframe.M1)


async def test_a_wrong_call_is_refused_at_once_and_asks_nobody(noon: ManualClock) -> None:
    async with opened(noon) as house:
        ask: Any = house.api.iter_candle_chunks
        for wrong, words in (
            ((SYMBOL, "2m", at(-1)), "unknown timeframe '2m'"),
            ((SYMBOL, "1m", at(5)), "lies in the future"),
            ((SYMBOL, "1m", at(-1), at(-2)), "start_time must lie before end_time"),
            ((SYMBOL, "1m", None), "start_time must be given"),
            ((SYMBOL, "1m", "yesterday"), "start_time must be a datetime"),
            ((SYMBOL, "1m", datetime(1950, 1, 1)), "1970-01-01 UTC or later"),
            ((SYMBOL, "1m", at(-1), None, 7), "priority must be one of"),
            (([SYMBOL], "1m", at(-1)), "a symbol is a text"),
        ):
            with pytest.raises(InvalidRequestError, match=words):
                ask(*wrong)
        with pytest.raises(InvalidRequestError, match="newest_first must be True or False"):
            ask(SYMBOL, "1m", at(-1), newest_first="yes")
        with pytest.raises(InvalidRequestError, match="progress must be a function"):
            ask(SYMBOL, "1m", at(-1), progress=5)
        with pytest.raises(UnknownSymbolError) as caught:
            await anext(ask("BTC-KRW", "1m", at(-1)))
        assert caught.value.suggestions[0] == SYMBOL
        assert house.exchange.requests == []
        await house.api.stop()
        with pytest.raises(ClosedError):
            ask(SYMBOL, "1m", at(-1))


async def never(_: BackboneRequest) -> None:
    await asyncio.Event().wait()


async def test_who_lets_go_of_it_ends_the_loading(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-3_000, 1))
        async for _ in house.api.iter_candle_chunks(SYMBOL, "1m", at(-3_000)):
            house.exchange.before_answer = never
            break
        gc.collect()
        await loading_ended()
        house.exchange.before_answer = None
        async with house.api.iter_candle_chunks(SYMBOL, "1m", at(-3_000)) as chunks:
            await anext(chunks)
        await loading_ended()
        assert [series async for series in chunks] == []


async def loading_ended() -> None:
    async with asyncio.timeout(5):
        while any("chunks of" in task.get_name() for task in asyncio.all_tasks()):
            await asyncio.sleep(0)


async def test_a_call_whose_time_ends_raises_with_what_arrived(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-3_000, 1))

        async def hang(request: BackboneRequest) -> None:
            assert request.end_ms is not None
            if request.end_ms < NOON - 400 * M:
                await never(request)

        house.exchange.before_answer = hang
        with pytest.raises(DeadlineError) as caught:
            await house.api.get_candle_data(SYMBOL, "1m", at(-999), timeout=0.2)
        partial = caught.value.partial
        assert minutes(partial) == list(range(minutes(partial)[0], 1))
        assert len(partial) >= 400
        assert caught.value.missing[0].start == at(-999)
