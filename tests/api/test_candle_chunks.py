"""Long ranges of candles, as programs ask for them."""

from __future__ import annotations

import asyncio
import gc
from datetime import datetime
from typing import Any

import pytest

from tests.api.house import NOON, M, at, opened
from tests.coordinator.fake_store import FakeStore, NoChance
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource
from upbit_backbone.api import chunks as chunks_module
from upbit_backbone.api.chunks import ChunkStream
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import (
    ClosedError,
    DeadlineError,
    InvalidRequestError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    BackboneRequest,
    CandleChunks,
    DataType,
    Priority,
    Progress,
)


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


class Succession:
    """A layer that a test ends, and its successors."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.exchange = FakeExchangeSource(
            clock, [NOON - n * M for n in range(1_700) if n % 3 or n < 400]
        )
        self.exchange.before_answer = a_turn
        self.store = FakeStore(self.exchange)
        self.coordinator: Coordinator | None = None
        self.ended = 0
        self.closed = False
        self.begin()

    def begin(self) -> None:
        self.coordinator = Coordinator(self.store, clock=self.clock, rng=NoChance())

    async def end(self) -> None:
        if self.coordinator is not None:
            self.ended += 1
            before, self.coordinator = self.coordinator, None
            await before.stop()

    def chunks(self, request: BackboneRequest, **settings: Any) -> CandleChunks:
        if self.coordinator is None:
            raise TransportError("layer_3 failed and is begun anew")
        return self.coordinator.chunks(request, **settings)

    def check_running(self) -> None:
        if self.closed:
            raise ClosedError("the market-data service is closed")

    def load(self, told: list[Progress], *, newest_first: bool) -> ChunkStream:
        return ChunkStream(
            BackboneRequest(
                DataType.CANDLE, (SYMBOL,), Timeframe.M1, at(-2_500), at(1), priority=Priority.LOW
            ),
            self.chunks,
            newest_first=newest_first,
            on_progress=told.append,
            check=lambda: asyncio.sleep(0),
            check_running=self.check_running,
        )


async def a_turn(_: object) -> None:
    await asyncio.sleep(0)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "OPEN_AGAIN_S", 0.0)
    monkeypatch.setattr("upbit_backbone.coordinator.chunks.PAGES_A_WINDOW", 3)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_load_goes_on_where_it_was_whenever_and_however_often_its_layer_is_lost(
    noon: ManualClock, newest_first: bool
) -> None:
    async def loaded(every: int) -> tuple[list[int], Any, list[Progress], Succession]:
        """Have the layer end after so many turns of the loop, and again after as many."""
        world, told = Succession(noon), list[Progress]()
        chunks = world.load(told, newest_first=newest_first)
        got: list[int] = []

        async def read() -> None:
            async for series in chunks:
                got.extend(series.time.tolist()[:: -1 if newest_first else 1])
                await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        while not reading.done():
            for _ in range(every):
                await asyncio.sleep(0)
            if not reading.done():
                await world.end()
                for _ in range(5):
                    await asyncio.sleep(0)
                world.begin()
        await reading
        assert chunks.progress == told[-1]
        await world.end()
        return got, chunks.missing, told, world

    whole, missing, undisturbed, calm = await loaded(100_000)
    assert sorted(whole) == calm.exchange.existing()
    assert missing, "nobody has seen twice that there is nothing before the first candle"
    for every in (*range(12, 60, 3), *range(60, 400, 23)):
        got, told_missing, told, world = await loaded(every)
        assert got == whole, "each once, in order"
        assert told_missing == missing
        assert [one.done for one in told] == sorted(one.done for one in told)
        assert all(one.done <= one.total for one in told)
        last, expected = told[-1], undisturbed[-1]
        assert (last.state, last.candles) == ("done", expected.candles)
        # A page that was stored when its layer was lost is found there by the next one.
        assert expected.new - 200 * world.ended <= last.new <= last.candles
        assert last.done == last.total
        if every < 30:
            assert abs(last.total - expected.total) <= (600 if newest_first else 0)
            assert world.ended > 1
            waiting = [one for one in told if one.state == "waiting"]
            assert 0 < len(waiting) < world.ended
            assert waiting[0].reason == "the layer that loads candles has ended"
        assert len(world.exchange.requests) <= len(calm.exchange.requests) + 3 * world.ended


@pytest.mark.usefixtures("at_once")
async def test_a_load_whose_layer_is_lost_can_be_paused_cancelled_and_closed(
    noon: ManualClock,
) -> None:
    world, told = Succession(noon), list[Progress]()
    await world.end()
    chunks = world.load(told, newest_first=False)
    assert (chunks.progress.state, chunks.missing) == ("waiting", ())
    assert chunks.progress.reason == "layer_3 failed and is begun anew"
    first = asyncio.create_task(anext(chunks))
    await asyncio.sleep(0.01)
    chunks.pause()
    world.begin()
    await asyncio.sleep(0.01)
    assert not first.done()
    assert (chunks.progress.state, world.exchange.requests) == ("paused", [])
    chunks.resume()
    await first
    await world.end()
    rest = asyncio.create_task(drained(chunks))
    await asyncio.sleep(0.01)
    assert state_of(chunks) == "waiting"
    chunks.cancel()
    assert len(await rest) < 1_300
    assert state_of(chunks) == told[-1].state == "ended"
    assert await drained(chunks) == []
    world.begin()
    other = world.load(told, newest_first=False)
    await anext(other)
    world.closed = True
    await world.end()
    with pytest.raises(ClosedError, match="the market-data service is closed"):
        await drained(other)
    assert state_of(other) == told[-1].state == "ended"


def state_of(chunks: ChunkStream) -> str:
    return chunks.progress.state


async def drained(chunks: ChunkStream) -> list[int]:
    return [at_ms async for series in chunks for at_ms in series.time.tolist()]
