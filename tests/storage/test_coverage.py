"""What is known of a series: as a map in memory, and as rows in the file."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.models import SpanState, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import (
    LIVE,
    NOT_ASKED,
    REST,
    UNCONFIRMED,
    Coverage,
    KnownSpan,
    Unknown,
)
from upbit_backbone.storage.coverage_table import put_spans, read_coverage
from upbit_backbone.storage.database import Database

KEY = SeriesKey("KRW-BTC", Timeframe.M1)
SIZE = 12
Put = tuple[KnownSpan, bool]


def span(
    start: int, end: int, state: SpanState = "complete", evidence: str = REST, reason: str = ""
) -> KnownSpan:
    return KnownSpan(start, end, state, reason, evidence, 0)


@st.composite
def puts(draw: st.DrawFn) -> Put:
    start = draw(st.integers(0, SIZE))
    end = draw(st.integers(start, SIZE))
    states: tuple[SpanState, ...] = ("complete", "empty", "unknown", "before_listing")
    one = span(
        start,
        end,
        draw(st.sampled_from(states)),
        draw(st.sampled_from((REST, LIVE))),
        draw(st.sampled_from(("", UNCONFIRMED))),
    )
    return one, draw(st.booleans())


def says_more(old: KnownSpan | None, new: KnownSpan) -> bool:
    """The rule for one moment, written out."""
    if old is None or not old.proved:
        return True
    if old.evidence == LIVE:
        return new.proved or new.evidence == LIVE
    is_seen = new.state == "complete" and old.state != "complete"
    return new.proved and (new.evidence != LIVE or is_seen)


def known_at_each(ops: list[Put]) -> list[KnownSpan | None]:
    found: list[KnownSpan | None] = [None] * SIZE
    for new, over_all in ops:
        for at in range(new.start_ms, new.end_ms):
            if over_all or says_more(found[at], new):
                found[at] = new
    return found


def meaning(one: KnownSpan | None) -> tuple[str, str, bool] | None:
    return None if one is None else (one.state, one.reason, one.evidence == LIVE)


@given(st.lists(puts(), max_size=12))
def test_each_moment_knows_what_was_told_best(ops: list[Put]) -> None:
    coverage = Coverage()
    for one, over_all in ops:
        coverage.put(one, over_all=over_all)
    expected = known_at_each(ops)
    assert [meaning(coverage.at(at)) for at in range(SIZE)] == [meaning(one) for one in expected]
    for one, following in pairwise(coverage):
        assert one.end_ms <= following.start_ms
        # Equal neighbours are one.
        assert one.end_ms < following.start_ms or meaning(one) != meaning(following)
    proved = [at for low, high in coverage.proved for at in range(low, high)]
    assert proved == [at for at, one in enumerate(expected) if one is not None and one.proved]


@given(st.lists(puts(), max_size=12), st.integers(0, SIZE), st.integers(0, SIZE))
def test_what_is_forgotten_was_never_known(ops: list[Put], start: int, end: int) -> None:
    coverage = Coverage()
    for one, over_all in ops:
        coverage.put(one, over_all=over_all)
    before = [meaning(coverage.at(at)) for at in range(SIZE)]
    coverage.forget(start, end)
    after = [meaning(coverage.at(at)) for at in range(SIZE)]
    assert after == [None if start <= at < end else one for at, one in enumerate(before)]
    proved = {at for low, high in coverage.proved for at in range(low, high)}
    for at in range(SIZE):
        known = coverage.at(at)
        assert (at in proved) is (known is not None and known.proved)


@settings(max_examples=40)
@given(st.lists(puts(), max_size=8))
async def test_the_file_merges_as_memory_does(ops: list[Put]) -> None:
    coverage = Coverage()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), Origin("test"))
        await database.open()
        try:
            for one, over_all in ops:
                coverage.put(one, over_all=over_all)
                await database.write(
                    lambda sql, one=one, over=over_all: put_spans(  # type: ignore[misc]
                        sql, KEY, (one,), over_all=over
                    )
                )
            stored = (await database.read(read_coverage)).get(KEY, Coverage())
        finally:
            await database.close()
    assert [one[:4] for one in stored] == [one[:4] for one in coverage]


async def test_spans_that_could_be_one_lie_side_by_side_and_the_next_writing_makes_them_one(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path, Origin("test"))
    await database.open()
    rows = [(*KEY, *span(0, 5)), (*KEY, *span(5, 8))]
    try:
        await database.write(
            lambda sql: sql.executemany(
                "INSERT INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(symbol, timeframe.value, *one) for symbol, timeframe, *one in rows],
            )
        )
        await database.write(lambda sql: put_spans(sql, KEY, (span(4, 9),)))
        # Two that overlap would be damage.
        stored = (await database.read(read_coverage))[KEY]
    finally:
        await database.close()
    assert [one[:2] for one in stored] == [(0, 9)]


async def test_a_live_candle_makes_the_span_before_it_longer(tmp_path: Path) -> None:
    database = Database(tmp_path, Origin("test"))
    await database.open()
    try:
        for one in (span(0, 5, evidence=LIVE), span(8, 9), span(5, 6, evidence=LIVE)):
            await database.write(lambda sql, one=one: put_spans(sql, KEY, (one,)))  # type: ignore[misc]
        stored = (await database.read(read_coverage))[KEY]
        assert [one[:2] for one in stored] == [(0, 6), (8, 9)]
        # What would run into another span is merged with it.
        await database.write(lambda sql: put_spans(sql, KEY, (span(6, 9, evidence=LIVE),)))
        stored = (await database.read(read_coverage))[KEY]
        assert [one[:2] for one in stored] == [(0, 8), (8, 9)]
        # Over a hole nothing is made longer.
        await database.write(lambda sql: put_spans(sql, KEY, (span(20, 21, evidence=LIVE),)))
        await database.write(lambda sql: put_spans(sql, KEY, (span(22, 23, evidence=LIVE),)))
        stored = (await database.read(read_coverage))[KEY]
        assert [one[:2] for one in stored][2:] == [(20, 21), (22, 23)]
    finally:
        await database.close()


@pytest.mark.parametrize("between", [span(6, 8, "empty"), span(6, 8), span(7, 9, "unknown")])
async def test_a_live_candle_does_not_reach_over_what_was_learnt_since_the_one_before(
    tmp_path: Path, between: KnownSpan
) -> None:
    puts_in_order = [span(0, 2, evidence=LIVE), span(2, 4, evidence=LIVE), between]
    puts_in_order.append(span(4, 10, evidence=LIVE))
    expected = Coverage(puts_in_order)
    database = Database(tmp_path, Origin("test"))
    await database.open()
    try:
        for one in puts_in_order:
            await database.write(partial(put_spans, key=KEY, spans=[one]))
        stored = await database.read(read_coverage)
    finally:
        await database.close()
    assert list(stored[KEY]) == list(expected)


def test_the_unknown_is_told_with_its_reasons() -> None:
    coverage = Coverage(
        [
            span(2, 4),
            span(4, 6, "unknown", LIVE, "outage: cut off"),
            span(10, 12, "unknown", REST, UNCONFIRMED),
        ]
    )
    assert coverage.unknown(0, 14) == [
        Unknown(0, 2, NOT_ASKED),
        Unknown(4, 10, "outage: cut off"),
        Unknown(10, 12, UNCONFIRMED),
        Unknown(12, 14, NOT_ASKED),
    ]
    assert coverage.unknown(2, 4) == []


def test_a_loss_told_later_takes_back_what_the_stream_had_proved_and_nothing_else() -> None:
    coverage = Coverage([span(0, 4), span(4, 8, evidence=LIVE)])
    coverage.put(span(2, 6, "unknown", LIVE, "outage"))
    assert [one[:3] for one in coverage] == [
        (0, 4, "complete"),
        (4, 6, "unknown"),
        (6, 8, "complete"),
    ]
