"""Every answer of candles, on a real store, against what a few plain lines say it has to be."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.house import NOON, nothing_of_it, watched
from tests.coordinator.fake_store import NoChance
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, market, row_of
from tests.storage.opening import opened
from upbit_backbone.api.market_data_api import DEFAULT_COUNT, MarketDataAPI
from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.models import CLOSE_GRACE_MS, CandleSeries, Timeframe
from upbit_backbone.protocol import BackboneMetadata, Priority

FOR_EVER_MS = 2**60


@dataclass
class Question:
    """A call, after some seconds; its ends in periods before now."""

    after_s: float
    start: float | None
    end: float | None
    count: int | None
    closed_only: bool
    fill: Literal["previous"] | None
    priority: Priority

    def interval(self, step_ms: int, now_ms: int) -> tuple[int | None, int | None]:
        start_ms, end_ms = (
            None if at is None else now_ms - int(at * step_ms) for at in (self.start, self.end)
        )
        if start_ms is not None and end_ms is not None and start_ms >= end_ms:
            start_ms, end_ms = end_ms - 1, start_ms + 1
        return start_ms, end_ms


AGO = st.floats(0, 400)
COUNTS = st.sampled_from([1, 2, 5, 50, 200, 201, 450])
NONE = st.none()
INTERVALS = st.one_of(
    st.tuples(AGO, NONE, NONE),
    st.tuples(AGO, st.floats(-5, 300), NONE),
    st.tuples(NONE, NONE, NONE | COUNTS),
    st.tuples(NONE, st.floats(-5, 300), NONE | COUNTS),
    st.tuples(AGO, NONE, COUNTS),
)
QUESTIONS = st.builds(
    lambda after_s, interval, *others: Question(after_s, *interval, *others),
    st.sampled_from([0, 0.3, 1, 5, 30, 61, 300]),
    INTERVALS,
    st.sampled_from([False, False, True]),
    st.sampled_from([None, None, "previous"]),
    st.sampled_from(list(Priority)),
)


class Model:
    """Which candles exist, and what is true of them at a moment."""

    def __init__(self, timeframe: Timeframe, opens: list[int]) -> None:
        self.timeframe = timeframe
        self.opens = opens

    def expected(
        self,
        start_ms: int | None,
        end_ms: int | None,
        question: Question,
        now_ms: int,
        read_ms: int,
    ) -> list[int]:
        """What an answer at `now_ms` holds that was read at `read_ms`."""
        above_ms = read_ms + 1 if end_ms is None else min(end_ms, read_ms + 1)
        if question.closed_only:
            above_ms = min(above_ms, self.timeframe.floor_ms(now_ms - CLOSE_GRACE_MS))
        found = [at for at in self.opens if (start_ms is None or at >= start_ms) and at < above_ms]
        if question.count is not None and start_ms is not None:
            return found[: question.count]
        count = DEFAULT_COUNT if start_ms is None and question.count is None else question.count
        return found if count is None else found[-count:]

    def check_rows(self, series: CandleSeries, question: Question, now_ms: int) -> None:
        """Nothing is called closed too early, or is not whole; nothing is filled over a candle."""
        exists = set(self.opens)
        for candle in zip(
            series.time.tolist(), series.volume.tolist(), series.closed.tolist(),
            series.filled.tolist(), strict=True,
        ):  # fmt: skip
            open_ms, volume, closed, filled = candle
            if filled:
                assert open_ms not in exists, "filled over a candle"
                assert volume == 0.0
                continue
            assert open_ms in exists
            over_ms = self.timeframe.next_ms(open_ms)
            assert closed or not question.closed_only
            assert not closed or over_ms <= now_ms - CLOSE_GRACE_MS, "called closed too early"
            assert not closed or volume == row_of(self.timeframe, open_ms, FOR_EVER_MS)[5]
            assert closed or over_ms > now_ms - CLOSE_GRACE_MS, "over, and not called closed"


def unknown_of(metadata: BackboneMetadata, opens: list[int]) -> set[int]:
    """Which of some open times lie in what is told as missing."""
    ranges = [
        (
            -FOR_EVER_MS if span.start is None else epoch_ms(span.start),
            FOR_EVER_MS if span.end is None else epoch_ms(span.end),
        )
        for span in metadata.missing
    ]
    return {at for at in opens if any(low <= at < high for low, high in ranges)}


@settings(max_examples=25)
@given(
    timeframe=st.sampled_from(
        [Timeframe.S1, Timeframe.M1, Timeframe.H1, Timeframe.W1, Timeframe.MO1]
    ),
    density=st.sampled_from([0.02, 0.2, 0.7, 1.0]),
    seed=st.integers(0, 10**6),
    began_ms=st.integers(0, 60_000),
    questions=st.lists(QUESTIONS, min_size=1, max_size=10),
)
async def test_every_answer_is_what_existed_when_it_was_read(
    timeframe: Timeframe, density: float, seed: int, began_ms: int, questions: list[Question]
) -> None:
    chance, clock = Random(seed), ManualClock(NOON + began_ms)
    base_ms = timeframe.floor_ms(NOON)
    periods = [timeframe.back_ms(base_ms, n) for n in range(1_500, -3_000, -1)]
    model = Model(timeframe, [at for at in periods if chance.random() < density])
    source = FakeExchangeSource(clock, model.opens, timeframe)
    source.listed = (market(SYMBOL),)
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder), source, clock) as storage:
            coordinator = Coordinator(storage, clock=clock, rng=NoChance())
            await coordinator.start()
            monitor, bus = watched(clock)
            api = MarketDataAPI(
                router=source,
                coordinator=coordinator,
                clock=clock,
                bus=bus,
                monitor=monitor,
                system_status=nothing_of_it,
                max_concurrent_requests=10,
            )
            await api.start()
            await api.get_markets()
            for question in questions:
                clock.advance(question.after_s)
                await _ask_and_check(api, model, question, clock.now_ms())


async def _ask_and_check(api: Any, model: Model, question: Question, now_ms: int) -> None:
    start_ms, end_ms = question.interval(model.timeframe.typical_ms, now_ms)
    series, metadata = await api.get_candle_data(
        SYMBOL,
        model.timeframe,
        None if start_ms is None else utc_datetime(start_ms),
        None if end_ms is None else utc_datetime(end_ms),
        question.priority,
        count=question.count,
        closed_only=question.closed_only,
        fill=question.fill,
        with_metadata=True,
    )
    model.check_rows(series, question, now_ms)
    times = series.time.tolist()
    assert times == sorted(set(times))
    found = [at for at, filled in zip(times, series.filled.tolist(), strict=True) if not filled]
    # Where no period of the range has begun, the age of what is newest says nothing of it.
    assert metadata.age_s <= question.priority.max_age_s or not found
    read_ms = now_ms - round(metadata.age_s * 1_000)
    wanted = model.expected(start_ms, end_ms, question, now_ms, read_ms)
    lacking = unknown_of(metadata, wanted)
    if not metadata.missing:
        assert found == wanted
    elif question.count is None or start_ms is None:
        assert found == [at for at in wanted if at not in lacking][-len(found) or len(wanted) :]
    else:
        assert found == wanted[: len(found)]
    known = {*found, *lacking}
    assert known >= set(wanted)
    by_now = model.expected(start_ms, end_ms, question, now_ms, now_ms)
    over_ms = now_ms - CLOSE_GRACE_MS
    over = {at for at in by_now if model.timeframe.next_ms(at) <= over_ms}
    assert known >= over - unknown_of(metadata, by_now), "however old the newest part may be"
