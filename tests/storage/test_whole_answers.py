"""What an answer lacks it says, whatever happens to file and memory while it is made."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked, row_of
from tests.storage.opening import opened, rows_in
from upbit_backbone.clock import MINUTE_MS, epoch_ms, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import StorageUnavailableError
from upbit_backbone.models import Candle, CandleState, Timeframe
from upbit_backbone.protocol import BackboneRequest, BackboneResponse, DataType, Reach
from upbit_backbone.storage import live_writes
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import LIVE, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import read_coverage, read_proved
from upbit_backbone.storage.live_candles import LiveProof, LiveSeries
from upbit_backbone.storage.storage import Storage

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * 60 * M
KEY = SeriesKey(SYMBOL, Timeframe.M1)
SIZE = 24
"""Minutes after noon that the random histories speak of."""


def stored(start: int, end: int, count: int | None = None) -> BackboneRequest:
    start_ms = None if count else NOON + start * M
    return asked(start_ms=start_ms, end_ms=NOON + end * M, count=count, reach=Reach.STORED)


def page(start: int, end: int) -> BackboneRequest:
    return asked(start_ms=NOON + start * M, end_ms=NOON + end * M, count=end - start)


def opens(response: BackboneResponse) -> set[int]:
    """Minutes after noon."""
    return {(at - NOON) // M for at in response.data.time.tolist()}


def missing(response: BackboneResponse) -> set[int]:
    """Minutes after noon, those of the histories alone."""
    found: set[int] = set()
    for span in response.metadata.missing:
        low = 0 if span.start is None else (epoch_ms(span.start) - NOON) // M
        assert span.end is not None
        found |= set(range(max(0, low), (epoch_ms(span.end) - NOON) // M))
    return found


def candle(minute: int, state: CandleState = "closed", volume: float = 9.0) -> Candle:
    at_ms = NOON + minute * M
    _, opening, high, low, close, _, value = row_of(Timeframe.M1, at_ms, 2**50)
    return Candle(
        SYMBOL,
        Timeframe.M1,
        utc_datetime(at_ms),
        opening,
        high,
        low,
        close,
        volume,
        value,
        True,
        False,
        state,
    )


def tell_live(storage: Storage, clock: ManualClock, span: KnownSpan, *candles: Candle) -> None:
    """What a stream proves, or takes back, goes its way into the file."""
    over_all = any(one.state == "revised" for one in candles)
    live = LiveSeries(KEY, storage._empty(KEY))
    storage._keep_live(live, LiveProof(candles, (span,), over_all))


def said(start: int, end: int, state: Any, clock: ManualClock) -> KnownSpan:
    reason = "outage: cut off" if state == "unknown" else ""
    return KnownSpan(NOON + start * M, NOON + end * M, state, reason, LIVE, clock.now_ms())


async def committed(storage: Storage) -> None:
    """Return when what was told is in the file, and memory has followed."""
    while storage._live_writes._writing:
        await asyncio.sleep(0)
    await storage._database.write(lambda sql: None)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stream proves is written without waiting for more."""
    monkeypatch.setattr(live_writes, "GATHER_S", 0.0)


class HeldReads:
    """Reads of the file whose results are on their way until a test lets them arrive."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.holding = True
        self.fails = False
        self.held: list[asyncio.Future[bool]] = []
        self._read: Callable[..., Any] = storage._database.read
        if monkeypatch is None:
            storage._database.read = self.read  # type: ignore[method-assign]
        else:
            monkeypatch.setattr(storage._database, "read", self.read)

    async def read(self, work: Any) -> Any:
        result = await self._read(work)
        if self.fails:
            raise StorageUnavailableError("disk I/O error")
        is_candles = isinstance(work, partial) and work.func is read_proved
        if self.holding and (is_candles or work is read_coverage):
            self.held.append(asyncio.get_running_loop().create_future())
            if not await self.held[-1]:
                raise StorageUnavailableError("disk I/O error")
        return result

    async def begun(self, answer: asyncio.Task[Any]) -> None:
        """Return when the file was read for an answer, unless it waits for another one."""
        before = len(self.held)
        for _ in range(20):
            if answer.done() or len(self.held) > before:
                return
            await asyncio.sleep(0.0005)

    def arrive(self, at: int = 0, *, well: bool = True) -> None:
        if self.held:
            self.held.pop(at % len(self.held)).set_result(well)

    def release(self) -> None:
        self.holding = False
        while self.held:
            self.arrive()


@pytest.fixture
def clock() -> ManualClock:
    """An hour past noon: all of the histories is over."""
    return ManualClock(NOON + 60 * M)


@pytest.fixture
def source(clock: ManualClock) -> FakeExchangeSource:
    return FakeExchangeSource(clock, [NOON + n * M for n in range(-300, 60)])


@asynccontextmanager
async def quiet(
    folder: Path, source: FakeExchangeSource, clock: ManualClock, **more: Any
) -> AsyncIterator[Storage]:
    """A store that asks for nothing by itself."""
    async with opened(folder, source, clock, gives_way=lambda: True, **more) as storage:
        yield storage


async def test_what_is_stored_and_cannot_be_read_is_missing_beside_what_was_never_asked(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 6))
        await storage.fetch(page(9, 15))
    async with quiet(tmp_path, source, clock) as storage:
        reads = HeldReads(storage, monkeypatch)
        reads.holding, reads.fails = False, True
        response = await storage.fetch(stored(0, 15))
        assert not response.success
        assert opens(response) | missing(response) == set(range(15))
        reasons = [span.reason for span in response.metadata.missing]
        assert ["disk I/O error" in reason for reason in reasons] == [True, False, True]
        # By number the hole is open below; it is not said to be never asked.
        response = await storage.fetch(stored(0, 15, 4))
        (span,) = response.metadata.missing
        assert "disk I/O error" in span.reason
        # A write that works says nothing about reading.
        await storage.fetch(page(20, 21))
        assert missing(await storage.fetch(stored(0, 15))) == set(range(15))
        # The whole answer is had of the exchange.
        coordinator = Coordinator(storage, clock=clock, rng=Random(1))
        await coordinator.start()
        response = await coordinator.fetch(asked(start_ms=NOON, end_ms=NOON + 15 * M))
        await coordinator.stop()
        assert (opens(response), missing(response)) == (set(range(15)), set())
    assert "disk I/O error" in caplog.text


async def test_an_answer_is_whole_though_memory_is_dropped_while_it_is_read(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        for start in (0, 10, 20):
            await storage.fetch(page(start, start + 5))
    async with quiet(tmp_path, source, clock) as storage:
        reads = HeldReads(storage, monkeypatch)
        answer = asyncio.create_task(storage.fetch(stored(0, 25)))
        for _ in range(2):
            await eventually(lambda: reads.held)
            reads.arrive()
        await eventually(lambda: reads.held)
        storage._series(KEY).drop()
        reads.release()
        response = await answer
        assert opens(response) == {*range(5), *range(10, 15), *range(20, 25)}
        assert opens(response) | missing(response) == set(range(25))


async def test_what_is_dropped_whenever_it_was_read_is_missing(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 5))
    async with quiet(tmp_path, source, clock) as storage:
        read = storage._database.read

        async def dropped(work: Any) -> Any:
            result = await read(work)
            storage._series(KEY).drop()
            return result

        monkeypatch.setattr(storage._database, "read", dropped)
        response = await storage.fetch(stored(0, 8))
        assert (opens(response), missing(response)) == (set(), set(range(8)))


async def test_what_is_taken_back_while_another_part_is_read_stays_known_as_lost(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        for start in (0, 6):
            span = said(start, start + 3, "complete", clock)
            tell_live(storage, clock, span, *map(candle, range(start, start + 3)))
        await committed(storage)
    async with quiet(tmp_path, source, clock) as storage:
        reads = HeldReads(storage, monkeypatch)
        answer = asyncio.create_task(storage.fetch(stored(0, 9)))
        await eventually(lambda: reads.held)
        # The part that is read next.
        tell_live(storage, clock, said(6, 9, "unknown", clock))
        await committed(storage)
        reads.release()
        assert opens(await answer) == {0, 1, 2}
        in_file = (await storage._database.read(read_coverage))[KEY]
        assert [one[:5] for one in storage._known(KEY)] == [one[:5] for one in in_file]


@pytest.mark.parametrize("what", ["restated", "settled", "outage", "empty"])
async def test_a_slow_read_does_not_undo_what_was_committed_meanwhile(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        tell_live(storage, clock, said(0, 2, "complete", clock), candle(0, volume=1.0), candle(1))
        await committed(storage)
    async with quiet(tmp_path, source, clock) as storage:
        reads = HeldReads(storage, monkeypatch)
        answer = asyncio.create_task(storage.fetch(stored(0, 2)))
        await eventually(lambda: reads.held)
        if what == "restated":
            tell_live(storage, clock, said(0, 1, "complete", clock), candle(0, "revised", 5.0))
        elif what == "outage":
            tell_live(storage, clock, said(0, 2, "unknown", clock))
        else:
            if what == "empty":
                source.opens.discard(NOON)
            await storage.fetch(page(0, 2))
        await committed(storage)
        reads.release()
        for response in (await answer, await storage.fetch(stored(0, 2))):
            want = [] if what == "outage" else rows_in(tmp_path)
            got = [(at, v) for at, v in zip(response.data.time, response.data.volume, strict=True)]
            assert got == [(row[0], row[5]) for row in want if row[0] >= NOON]
            assert opens(response) | missing(response) == ({1} if what == "empty" else {0, 1})


class Step(NamedTuple):
    what: str
    program: int
    start: int
    end: int
    number: int


KINDS = "ask ask ask latest page page close revise silent cut arrive arrive fail drop"

STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(KINDS.split()),
        st.integers(0, 1),
        st.integers(0, SIZE - 1),
        st.integers(1, SIZE),
        st.integers(1, 12),
    ).filter(lambda step: step.start < step.end),
    min_size=8,
    max_size=30,
)


class Program:
    """One store of a history, and the answers that it owes."""

    def __init__(self, storage: Storage, clock: ManualClock, truth: set[int]) -> None:
        self.storage = storage
        self.clock = clock
        self.truth = truth
        self.reads = HeldReads(storage)
        self.answers: list[tuple[Step, asyncio.Task[BackboneResponse]]] = []

    async def do(self, step: Step) -> None:
        storage, clock, (what, _, start, end, number) = self.storage, self.clock, step
        if what in ("ask", "latest"):
            count = number if what == "latest" else None
            if number % 2:
                storage._series(KEY).drop()
            answer = asyncio.create_task(storage.fetch(stored(start, end, count)))
            self.answers.append((step, answer))
            await self.reads.begun(answer)
        elif what == "page":
            await storage.fetch(page(start, end))
        elif what == "close" and start in self.truth:
            tell_live(storage, clock, said(start, start + 1, "complete", clock), candle(start))
        elif what == "revise" and start in self.truth:
            revised = candle(start, "revised", volume=number)
            tell_live(storage, clock, said(start, start + 1, "complete", clock), revised)
        elif what == "silent" and start not in self.truth:
            tell_live(storage, clock, said(start, start + 1, "empty", clock))
        elif what == "cut":
            tell_live(storage, clock, said(start, end, "unknown", clock))
        elif what in ("arrive", "fail"):
            self.reads.arrive(number, well=what == "arrive")
        elif what == "drop":
            storage._series(KEY).drop()
        await committed(storage)
        for _ in range(3):
            await asyncio.sleep(0)

    async def check_answers(self) -> None:
        for step, task in self.answers:
            response = await task
            got, lacks = opens(response), missing(response)
            wanted = self.truth & set(range(step.start if step.what == "ask" else 0, step.end))
            if step.what == "latest" and len(response.data) == step.number:
                wanted = {at for at in wanted if at >= min(got)}
            assert got <= self.truth | set(range(-300, 0))
            assert wanted <= got | lacks, (step, sorted(wanted - got - lacks))
            assert not (got & lacks), (step, got & lacks)

    async def check_memory(self, folder: Path) -> None:
        """What memory knows and holds is what the file knows and holds."""
        in_file: dict[SeriesKey, Coverage] = {}

        async def same() -> bool:
            nonlocal in_file
            in_file = await self.storage._database.read(read_coverage)
            mine = self.storage._known(KEY)
            return [one[:5] for one in in_file.get(KEY, ())] == [one[:5] for one in mine]

        for _ in range(60):
            if await same():
                break
            await asyncio.sleep(0.005)
        assert await same()
        rows = {row[0]: row[5] for row in rows_in(folder)}
        for span in in_file.get(KEY, Coverage()).proved:
            low, high = max(span.start_ms, NOON - 300 * M), min(span.end_ms, NOON + 60 * M)
            response = await self.storage.fetch(
                asked(start_ms=low, end_ms=high, reach=Reach.STORED)
            )
            assert response.success
            held = dict(zip(response.data.time.tolist(), response.data.volume, strict=True))
            assert held == {at: volume for at, volume in rows.items() if low <= at < high}


@pytest.mark.parametrize("programs", [1, 2])
def test_the_holes_of_an_answer_are_what_is_missing_and_memory_is_the_file(
    programs: int, caplog: pytest.LogCaptureFixture
) -> None:
    # Reads that fail are told in the log.
    @settings(max_examples=40, deadline=None)
    @given(silent=st.sets(st.integers(0, SIZE - 1), max_size=8), steps=STEPS)
    def history(silent: set[int], steps: list[Step]) -> None:
        asyncio.run(_live_through(programs, set(range(SIZE)) - silent, steps))

    history()


async def _live_through(programs: int, truth: set[int], steps: list[Step]) -> None:
    clock = ManualClock(NOON + 60 * M)
    # So much is there before that every page is full.
    source = FakeExchangeSource(clock, [NOON + n * M for n in (*range(-300, 0), *truth)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            running = [
                Program(await stack.enter_async_context(quiet(folder, source, clock)), clock, truth)
                for _ in range(programs)
            ]
            for step in steps:
                clock.advance(0.25)
                await running[step.program % programs].do(step)
            for program in running:
                program.reads.release()
                await program.check_answers()
            for program in running:
                await committed(program.storage)
            for program in running:
                await program.check_memory(folder)


async def test_a_peek_never_tells_what_the_ledger_has_taken_back(
    tmp_path: Path,
    clock: ManualClock,
    source: FakeExchangeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quiet(tmp_path, source, clock) as storage:
        tell_live(storage, clock, said(0, 2, "complete", clock), candle(0), candle(1))
        await committed(storage)
        storage._series(KEY).drop()
        reads = HeldReads(storage, monkeypatch)
        answer = asyncio.create_task(storage.fetch(stored(0, 2)))
        await eventually(lambda: reads.held)
        tell_live(storage, clock, said(1, 3, "unknown", clock))
        await committed(storage)
        reads.release()
        await answer
        peeked = storage.peek(
            DataType.CANDLE, SYMBOL, Timeframe.M1, NOON, NOON + 2 * M, None, 10.0, clock.monotonic()
        )
        assert peeked is None
