"""Columns in memory: what is put in replaces what was there, and little is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened
from tests.storage.test_live_candles import candle, tell, watched, whole
from upbit_backbone.clock import MINUTE_MS, SECOND_MS
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import DataType, Priority, Reach
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.series_memory import (
    JOINED_ROWS,
    MAX_PARTS,
    MemoryTier,
    SeriesMemory,
)
from upbit_backbone.storage.spans import Range, SpanSet

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * 60 * M
S = SECOND_MS
SIZE = 40


def seconds(opens: range | list[int], volume: float = 1.0) -> CandleSeries:
    return CandleSeries.from_rows(
        SYMBOL,
        Timeframe.S1,
        [(at * S, 5.0, 6.0, 4.0, 5.0, volume, 1.0) for at in opens],
        closed_before_ms=None,
        source="storage",
        simulated=False,
    )


def memory_of_seconds() -> SeriesMemory:
    return SeriesMemory(seconds([]), SpanSet())


def answered(memory: SeriesMemory, start: int, end: int) -> dict[int, float]:
    answer = memory.answer(memory.loaded, start * S, end * S, None, now_ms=0, fresh_since_s=0.0)
    rows = answer.rows
    return dict(zip((rows.time // S).tolist(), rows.volume.tolist(), strict=True))


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("put", "close", "forget", "ask", "latest")),
        st.integers(0, SIZE - 1),
        st.integers(1, SIZE),
        st.sets(st.integers(0, SIZE - 1)),
    ),
    max_size=40,
)


@given(CHANGES)
def test_memory_holds_of_each_range_what_was_put_last(
    changes: list[tuple[str, int, int, set[int]]],
) -> None:
    memory, expected, loaded = memory_of_seconds(), dict[int, float](), set[int]()
    for number, (what, low, high, opens) in enumerate(changes):
        volume = float(number + 1)
        if what == "put" and low < high:
            rows = sorted(at for at in opens if low <= at < high)
            memory.put(seconds(rows, volume), Range(low * S, high * S))
            expected = {at: v for at, v in expected.items() if not low <= at < high}
            expected |= dict.fromkeys(rows, volume)
            loaded |= set(range(low, high))
        elif what == "close":
            row = (low * S, 5.0, 6.0, 4.0, 5.0, volume, 1.0)
            memory.put_closed(row, Range(low * S, (low + 1) * S))
            expected[low] = volume
            loaded.add(low)
        elif what == "forget" and low < high:
            memory.forget(Range(low * S, high * S))
            expected = {at: v for at, v in expected.items() if not low <= at < high}
            loaded -= set(range(low, high))
        elif what == "ask" and low < high:
            wanted = {at: v for at, v in sorted(expected.items()) if low <= at < high}
            assert answered(memory, low, high) == wanted
        elif what == "latest":
            answer = memory.answer(
                memory.loaded, None, high * S, low + 1, now_ms=0, fresh_since_s=0.0
            )
            at = high
            while at - 1 in loaded:
                at -= 1
            known = [one for one in sorted(expected) if at <= one < high]
            assert (answer.rows.time // S).tolist() == known[-low - 1 :]
            assert bool(answer.missing) is (len(known) <= low)
        assert memory.loaded.overlap(0, SIZE * S) == [
            Range(start * S, end * S) for start, end in _runs(loaded)
        ]
    assert answered(memory, 0, SIZE) == dict(sorted(expected.items()))


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def test_candles_that_close_while_nobody_asks_lie_in_few_parts_and_are_counted() -> None:
    memory, tier = memory_of_seconds(), MemoryTier(1 << 30)
    tier.add(SeriesKey(SYMBOL, Timeframe.S1), memory)
    for at in range(20_000):
        if at % 2:
            memory.put(seconds([at]), Range(at * S, (at + 1) * S))
        else:
            memory.put_closed((at * S, 5.0, 6.0, 4.0, 5.0, 1.0, 1.0), Range(at * S, at * S + S))
    assert len(memory._parts) <= 20
    assert len(answered(memory, 0, 20_000)) == 20_000
    assert tier.size_bytes == memory.size_bytes
    assert memory.size_bytes < 20_000 * 58 * 1.05


def test_parts_stay_few_and_short_ones_alone_are_joined() -> None:
    memory = memory_of_seconds()
    long = 3 * JOINED_ROWS
    memory.put(seconds(range(long)), Range(0, long * S))
    (base,) = (part.time for part in memory._parts)
    # Candles that follow, or are restated anywhere, do not have the long part copied.
    for at in (long, 5, long + 1, long // 2, 7):
        memory.put(seconds([at], 2.0), Range(at * S, (at + 1) * S))
        assert answered(memory, at, at + 1) == {at: 2.0}
    assert sum(np.shares_memory(part.time, base) for part in memory._parts) == 2
    assert len(answered(memory, long - 200, long + 2)) == 202
    assert sum(np.shares_memory(part.time, base) for part in memory._parts) == 2
    for at in range(0, long, 700):
        memory.put(seconds([at], 3.0), Range(at * S, (at + 1) * S))
    assert len(memory._parts) <= MAX_PARTS
    held = answered(memory, 0, long)
    assert [held[at] for at in (5, 7, 700, 701)] == [2.0, 2.0, 3.0, 1.0]


# The tail.


@pytest.mark.parametrize(
    ("timeframe", "asked_ms", "wait_s"),
    [(Timeframe.M1, 57_000, 9.0), (Timeframe.S1, 500, 9.0), (Timeframe.M1, 59_500, 1.9)],
)
async def test_up_to_now_is_not_answered_from_a_tail_whose_periods_are_over(
    tmp_path: Path, timeframe: Timeframe, asked_ms: int, wait_s: float
) -> None:
    clock = ManualClock(NOON + asked_ms)
    assert timeframe.fixed_ms is not None
    opens = [NOON + n * timeframe.fixed_ms for n in range(-300, 300)]
    source = FakeExchangeSource(clock, opens, timeframe)
    async with opened(tmp_path, source, clock, gives_way=lambda: True) as storage:
        await storage.fetch(asked(timeframe, count=20))
        latest = asked(timeframe, count=20, reach=Reach.STORED, max_age=10.0)
        assert (await storage.fetch(latest)).success
        clock.advance(wait_s)
        response = await storage.fetch(latest)
        assert not response.success
        peeked = storage.peek(
            DataType.CANDLE, SYMBOL, timeframe, None, None, 20, 10.0, clock.monotonic()
        )
        assert peeked is None
        # What is proved is said as before.
        proved = asked(timeframe, end_ms=opens[290] - 400_000, count=3, reach=Reach.STORED)
        assert len((await storage.fetch(proved)).data) <= 3


async def test_a_clock_that_is_set_back_does_not_make_the_stream_old(tmp_path: Path) -> None:
    clock = ManualClock(NOON + 30 * S)
    source = FakeExchangeSource(clock, [NOON + n * M for n in range(-300, 60)])
    async with (
        opened(tmp_path, source, clock, gives_way=lambda: True) as storage,
        watched(storage),
    ):
        (stream,) = source.subscriptions
        await tell(stream, whole(0, 0), candle(0, "forming", volume=1.0))
        await storage.fetch(asked(start_ms=NOON - 20 * M, end_ms=NOON, count=20))

        def volume() -> float | None:
            rows = storage.peek(
                DataType.CANDLE,
                SYMBOL,
                Timeframe.M1,
                None,
                NOON + M,
                5,
                Priority.NORMAL.max_age_s,
                clock.monotonic(),
            )
            return None if rows is None else float(rows.volume[-1])

        await eventually(lambda: volume() == 1.0)
        clock.set_wall(clock.now_ms() - 20 * S)
        for told in (2.0, 3.0):
            clock.advance(3)
            await tell(stream, candle(0, "forming", volume=told))
            await eventually(lambda told=told: volume() == told)  # type: ignore[misc]
