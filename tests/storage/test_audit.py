"""Once a day stored candles, drawn at random, are read again; wrong ones are mended."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked, market, row_of
from tests.storage.opening import opened, rows_in
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.errors import TransportError, UnknownSymbolError
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import MAX_PAGE_CANDLES, BackboneRequest, DataType, Reach
from upbit_backbone.storage.audit import (
    AGAIN_MS,
    EVERY_MS,
    PAGES,
    first_state,
    is_due,
    with_next_page,
)
from upbit_backbone.storage.audit_table import (
    REST_MS,
    TRAIL_ROWS,
    AuditState,
    draw_page,
    read_state,
    read_trail,
    write_repair,
)
from upbit_backbone.storage.candle_tables import SeriesKey, read_rows, write_rows
from upbit_backbone.storage.comparison import compare
from upbit_backbone.storage.coverage import IMPORTED, LIVE, REST, KnownSpan
from upbit_backbone.storage.coverage_table import put_spans, read_series_coverage
from upbit_backbone.storage.migrations import create
from upbit_backbone.storage.page_proof import SECONDS_KEPT_MS
from upbit_backbone.storage.spans import SpanSet
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.storage import IDLE_S, Storage

M, NOON = MINUTE_MS, AUTUMN_2025_MS - HOUR_MS
KEY = SeriesKey(SYMBOL, Timeframe.M1)
MANY = 150


class LyingExchange(FakeExchangeSource):
    """Says something else of chosen candles than it said before."""

    def __init__(self, clock: ManualClock, opens: list[int]) -> None:
        super().__init__(clock, opens)
        self.prices: dict[int, float] = {}
        """Closing prices that it tells now, by open time."""

    def _page(self, request: BackboneRequest) -> CandleSeries:
        page = super()._page(request)
        rows = [
            (*row[:3], row[3], self.prices.get(int(row[0]), row[4]), *row[5:])
            for row in ((int(c), *_numbers(page, i)) for i, c in enumerate(page.time))
        ]
        return CandleSeries.from_rows(
            SYMBOL, page.timeframe, rows, closed_before_ms=None, source="rest", simulated=False
        )


def _numbers(page: CandleSeries, at: int) -> tuple[float, ...]:
    names = ("open", "high", "low", "close", "volume", "value")
    return tuple(float(getattr(page, name)[at]) for name in names)


def minutes(*numbers: int) -> list[int]:
    return [NOON - n * M for n in numbers]


async def fill(storage: Storage, count: int = MANY) -> None:
    await storage.fetch(asked(end_ms=NOON, count=count))


async def a_day_later(clock: ManualClock, storage: Storage, pages: int = PAGES) -> None:
    """Let the store notice what it holds, and a day pass; then pages of the audit are read."""
    clock.advance(IDLE_S)
    await eventually(lambda: storage._audit is not None and storage._audit._state is not None)
    clock.advance(EVERY_MS / SECOND_MS)
    await eventually(lambda: storage.self_audit is not None and storage.self_audit.pages == pages)


async def test_after_a_day_some_pages_are_read_again_and_agree(
    tmp_path: Path, clock: ManualClock
) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        assert storage.self_audit is None
        await a_day_later(clock, storage)
        found = storage.self_audit
        assert found is not None
        assert (found.correctness, found.agreeing) == (1.0, found.compared)
        assert found.compared == sum(request.count or 0 for request in exchange.requests[1:])
        assert len(exchange.requests) == 1 + PAGES
        assert all(request.priority.name == "LOW" for request in exchange.requests[1:])
        assert all((r.start_ms or 0) >= NOON - MANY * M for r in exchange.requests[1:])
        assert all((r.end_ms or 0) <= NOON for r in exchange.requests)
        counters = storage.status().counters
        assert (counters["audit_compared"], counters["audit_agreeing"]) == (found.compared,) * 2
        clock.advance(EVERY_MS / SECOND_MS / 2)
        await asyncio.sleep(0.05)
        assert len(exchange.requests) == 1 + PAGES


async def test_what_two_readings_say_otherwise_is_mended_recorded_and_told(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    restated, vanished, appeared = minutes(140, 130, 120)
    opens = [at for at in minutes(*range(1, MANY + 1)) if at != appeared]
    exchange = LyingExchange(clock, opens)
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage, MANY - 1)
        exchange.prices[restated] = row_of(Timeframe.M1, restated, NOON)[4] + 2
        exchange.opens.discard(vanished)
        exchange.opens.add(appeared)
        async with storage.subscribe(asked()) as reader:
            clock.advance(IDLE_S)
            await eventually(lambda: storage._audit and storage._audit._state)
            clock.advance(EVERY_MS / SECOND_MS)
            await eventually(lambda: len(exchange.requests) == 2)
            await asyncio.sleep(0.05)
            assert len(exchange.requests) == 2, "the second reading came too early"
            assert len(rows_in(tmp_path)) == MANY - 1
            assert rows_in(tmp_path)[10][4] != exchange.prices[restated]
            clock.advance(60)
            async with asyncio.timeout(5):
                told = [await anext(reader), await anext(reader)]
        assert [int(c.open_time.timestamp() * 1_000) for c in told] == [restated, appeared]
        assert {c.state for c in told} == {"revised"}
        await eventually(lambda: storage.self_audit and storage.self_audit.pages == PAGES)
        found = storage.self_audit
        assert found is not None
        assert (found.restated, found.vanished, found.appeared) == (1, 1, 1)
        assert found.correctness == found.agreeing / (found.agreeing + 3)
        stored = {int(row[0]): row for row in rows_in(tmp_path)}
        assert stored[restated][4] == exchange.prices[restated]
        assert vanished not in stored
        assert appeared in stored
        # Memory says the same.
        span = asked(Timeframe.M1, NOON - MANY * M, NOON, reach=Reach.STORED)
        answer = (await storage.fetch(span)).data
        assert answer.time.tolist() == sorted(stored)
        trail = await storage._database.read(read_trail)
    assert [(row[3], row[4]) for row in trail] == [
        (restated, "restated"),
        (vanished, "vanished"),
        (appeared, "appeared"),
    ]
    assert trail[0][5] != trail[0][6]
    assert (trail[1][6], trail[2][5]) == (None, None)
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "1 restated, 1 vanished, 1 appeared" in warned[0].getMessage()


async def test_one_answer_gone_wrong_changes_nothing(tmp_path: Path, clock: ManualClock) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        before = rows_in(tmp_path)
        exchange.prices[minutes(140)[0]] = row_of(Timeframe.M1, minutes(140)[0], NOON)[4] + 2
        clock.advance(IDLE_S)
        await eventually(lambda: storage._audit and storage._audit._state)
        clock.advance(EVERY_MS / SECOND_MS)
        await eventually(lambda: len(exchange.requests) == 2)
        exchange.prices.clear()
        await asyncio.sleep(0.02)
        clock.advance(60)
        await eventually(lambda: storage.self_audit and storage.self_audit.pages == PAGES)
        assert storage.self_audit is not None
        assert storage.self_audit.correctness == 1.0
        assert rows_in(tmp_path) == before


async def test_an_exchange_that_says_something_else_each_time_changes_nothing(
    tmp_path: Path, clock: ManualClock
) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        before = rows_in(tmp_path)
        (at,) = minutes(140)

        async def another_price(request: BackboneRequest) -> None:
            exchange.prices[at] = row_of(Timeframe.M1, at, NOON)[4] + 0.5 * len(exchange.requests)

        exchange.before_answer = another_price
        clock.advance(IDLE_S)
        await eventually(lambda: storage._audit and storage._audit._state)
        clock.advance(EVERY_MS / SECOND_MS)

        def done() -> bool:
            clock.advance(60)
            return not is_due(_state(storage), clock.now_ms())

        await eventually(done)
        assert rows_in(tmp_path) == before
        assert storage.self_audit is not None
        assert storage.self_audit.compared == 0
        assert storage.self_audit.correctness is None


async def test_history_that_the_exchange_shows_no_more_is_kept(
    tmp_path: Path, clock: ManualClock
) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        before = rows_in(tmp_path)
        exchange.opens = set(minutes(*range(1, 100)))
        await a_day_later(clock, storage)
        exchange.opens.clear()
        clock.advance(EVERY_MS / SECOND_MS)
        await eventually(lambda: len(exchange.requests) > PAGES + 1)
        await asyncio.sleep(0.05)
        assert rows_in(tmp_path) == before


@pytest.mark.parametrize("newest", [MANY + 1, 60])
async def test_a_node_that_lags_for_a_minute_takes_no_candles(
    tmp_path: Path, clock: ManualClock, newest: int, caplog: pytest.LogCaptureFixture
) -> None:
    # What it finds at last is told.
    exchange = LyingExchange(clock, minutes(*range(1, 3 * MANY)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        before = rows_in(tmp_path)
        # It shows nothing of the newest, or nothing at all of what is stored, but older ones.
        exchange.opens = set(minutes(*range(newest, 3 * MANY)))
        await a_day_later(clock, storage, 0) if newest > MANY else await a_day_later(clock, storage)
        for _ in range(3):
            clock.advance(EVERY_MS / SECOND_MS)
            asked_before = len(exchange.requests)
            await eventually(lambda before=asked_before: len(exchange.requests) >= before + PAGES)  # type: ignore[misc]
        await asyncio.sleep(0.05)
        assert rows_in(tmp_path) == before
        assert storage.self_audit is not None
        assert storage.self_audit.vanished == 0
        # One that is missing below what the exchange shows is gone.
        exchange.opens = set(minutes(*range(1, 3 * MANY))) - set(minutes(75))
        for _ in range(3):
            clock.advance(EVERY_MS / SECOND_MS)
            for _ in range(PAGES):
                await asyncio.sleep(0.05)
                clock.advance(61)
        await eventually(lambda: len(rows_in(tmp_path)) == len(before) - 1)


async def test_the_figure_and_what_is_left_survive_a_restart(
    tmp_path: Path, clock: ManualClock
) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        await a_day_later(clock, storage)
        found = storage.self_audit
    count = len(exchange.requests)
    async with opened(tmp_path, exchange, clock, rng=Random(2)) as storage:
        assert storage.self_audit == found
        clock.advance(IDLE_S)
        await asyncio.sleep(0.05)
        assert len(exchange.requests) == count


async def test_nothing_is_audited_while_callers_ask_for_pages_or_the_exchange_is_away(
    tmp_path: Path, clock: ManualClock
) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))
    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        clock.advance(IDLE_S)
        await eventually(lambda: storage._audit and storage._audit._state)
        clock.advance(EVERY_MS / SECOND_MS - 1)
        await fill(storage)
        clock.advance(IDLE_S - 1)
        await asyncio.sleep(0.05)
        assert len(exchange.requests) == 2

        async def away(request: BackboneRequest) -> None:
            raise TransportError("away")

        exchange.before_answer = away
        clock.advance(2)
        await eventually(lambda: len(exchange.requests) == 3)
        await asyncio.sleep(0.05)
        assert len(exchange.requests) == 3
        exchange.before_answer = None
        clock.advance(AGAIN_MS / SECOND_MS)
        await eventually(lambda: storage.self_audit and storage.self_audit.pages == PAGES)


async def test_a_market_that_is_gone_is_drawn_once_and_never_again(
    tmp_path: Path, clock: ManualClock
) -> None:
    exchange = LyingExchange(clock, minutes(*range(1, MANY + 1)))

    async def gone(request: BackboneRequest) -> None:
        if request.data_type is DataType.CANDLE:
            raise UnknownSymbolError(SYMBOL)

    async with opened(tmp_path, exchange, clock, rng=Random(1)) as storage:
        await fill(storage)
        exchange.listed = (market("KRW-XRP"),)
        exchange.before_answer = gone
        clock.advance(IDLE_S)
        await eventually(lambda: storage._audit and storage._audit._state)
        clock.advance(EVERY_MS / SECOND_MS)
        await eventually(lambda: len(exchange.requests) == 2)
        clock.advance(AGAIN_MS / SECOND_MS)
        await eventually(lambda: storage._audit and not is_due(_state(storage), clock.now_ms()))
        assert len(exchange.requests) == 2
        assert len(rows_in(tmp_path)) == MANY


def _state(storage: Storage) -> AuditState:
    assert storage._audit is not None
    assert storage._audit._state is not None
    return storage._audit._state


# What decides, alone.


def test_an_audit_begins_a_day_after_the_last_one_and_has_so_many_pages() -> None:
    state = first_state(NOON)
    assert not is_due(state, NOON + EVERY_MS - 1)
    now_ms = NOON + EVERY_MS
    for left in reversed(range(PAGES)):
        assert is_due(state, now_ms)
        state = with_next_page(state, now_ms)
        assert state.pages_left == left
    assert not is_due(state, now_ms + EVERY_MS - 1)
    assert is_due(state, now_ms + EVERY_MS)


def test_one_that_was_broken_off_days_ago_begins_anew() -> None:
    state = with_next_page(AuditState(NOON), NOON)
    later = with_next_page(state, NOON + 3 * EVERY_MS)
    assert (later.pages_left, later.next_ms) == (PAGES - 1, NOON + 4 * EVERY_MS)


def test_a_clock_that_was_years_ahead_does_not_end_all_audits() -> None:
    assert is_due(AuditState(NOON + 1_000 * DAY_MS), NOON)


# What is drawn.


class File:
    """A store's file in memory."""

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.sql = Sql(self.raw)
        create(self.sql)

    def put(self, key: SeriesKey, opens: list[int], *spans: KnownSpan) -> None:
        self.sql.execute("BEGIN")
        rows = CandleSeries.from_rows(
            key.symbol,
            key.timeframe,
            [row_of(key.timeframe, at, NOON) for at in opens],
            closed_before_ms=None,
            source="rest",
            simulated=False,
        )
        write_rows(self.sql, key, rows)
        put_spans(self.sql, key, spans)
        self.sql.execute("COMMIT")


def known(start_ms: int, end_ms: int, state: Any = "complete", evidence: str = REST) -> KnownSpan:
    return KnownSpan(start_ms, end_ms, state, "", evidence, 1)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1 << 32),
    holes=st.lists(st.tuples(st.integers(1, 2_000), st.integers(1, 40)), max_size=6),
    live=st.integers(0, 300),
    gone=st.sets(st.integers(1, 2_000), max_size=300),
)
def test_a_sample_never_asks_for_what_is_unknown_or_only_seen_on_the_stream(
    seed: int, holes: list[tuple[int, int]], live: int, gone: set[int]
) -> None:
    unknown = SpanSet()
    for at, length in holes:
        unknown.add(NOON - (at + length) * M, NOON - at * M)
    spans = [known(*hole) for hole in unknown.missing(NOON - 2_000 * M, NOON - live * M)]
    opens = [
        NOON - n * M
        for n in range(2_000, 0, -1)
        if n not in gone and not unknown.overlap(NOON - n * M, NOON - n * M + 1)
    ]
    file = File()
    with closing(file.raw):
        file.put(KEY, opens, *spans, known(NOON - live * M, NOON, evidence=LIVE))
        page = draw_page(file.sql, rng=Random(seed), now_ms=NOON + DAY_MS, simulated=False)
        if page is None:
            # Fifty draws that all met what may not be asked: only where there is hardly else.
            assert sum(at < NOON - live * M for at in opens) < len(opens) / 5
            return
        assert 1 <= len(page.held) <= MAX_PAGE_CANDLES
        settled = SpanSet((span.start_ms, span.end_ms) for span in spans)  # type: ignore[misc]
        assert settled.missing(page.start_ms, page.end_ms) == []
        expected = [at for at in opens if page.start_ms <= at < page.end_ms]
        assert page.held.time.tolist() == expected


def test_each_candle_is_drawn_as_often_as_any_other_whatever_its_series() -> None:
    file, other = File(), SeriesKey("KRW-XRP", Timeframe.M1)
    with closing(file.raw):
        file.put(KEY, minutes(*range(3_000, 0, -1)), known(NOON - 3_000 * M, NOON))
        file.put(other, minutes(*range(300, 0, -1)), known(NOON - 300 * M, NOON))
        rng = Random(7)
        pages = [
            draw_page(file.sql, rng=rng, now_ms=NOON + DAY_MS, simulated=False) for _ in range(330)
        ]
        of_other = sum(page is not None and page.key == other for page in pages)
        assert 15 <= of_other <= 50


def test_old_seconds_are_not_drawn_nor_what_may_still_change() -> None:
    file, seconds = File(), SeriesKey(SYMBOL, Timeframe.S1)
    now_ms = NOON + SECONDS_KEPT_MS
    with closing(file.raw):
        opens = [NOON + n * SECOND_MS for n in range(-500, 500)]
        file.put(seconds, opens, known(opens[0], opens[-1] + SECOND_MS))
        for seed in range(20):
            page = draw_page(file.sql, rng=Random(seed), now_ms=now_ms, simulated=False)
            assert page is not None
            assert page.start_ms >= NOON
        later_ms = now_ms + HOUR_MS
        assert draw_page(file.sql, rng=Random(1), now_ms=later_ms, simulated=False) is None
    file = File()
    with closing(file.raw):
        file.put(KEY, minutes(*range(100, 0, -1)), known(NOON - 100 * M, NOON))
        page = draw_page(file.sql, rng=Random(1), now_ms=NOON, simulated=False)
        assert page is not None
        assert page.end_ms <= NOON - REST_MS


def test_imported_candles_come_first_when_they_are_wished_for() -> None:
    file = File()
    with closing(file.raw):
        imported = KnownSpan(NOON - 3_000 * M, NOON - 2_990 * M, "complete", IMPORTED, "a file", 1)
        file.put(KEY, minutes(*range(3_000, 0, -1)), known(NOON - 2_990 * M, NOON), imported)
        for seed in range(10):
            page = draw_page(
                file.sql, rng=Random(seed), now_ms=NOON + DAY_MS, simulated=False, imported=True
            )
            assert page is not None
            assert page.start_ms < imported.end_ms


def test_an_imported_stretch_without_a_candle_has_nothing_to_draw() -> None:
    file = File()
    quiet = SeriesKey("KRW-ETH", Timeframe.M1)
    imported = KnownSpan(NOON - 900 * M, NOON, "complete", IMPORTED, "imported from q.csv", 1)
    with closing(file.raw):
        file.put(quiet, [], imported)
        file.put(KEY, minutes(*range(100, 0, -1)), known(NOON - 100 * M, NOON))
        for seed in range(3):
            page = draw_page(
                file.sql, rng=Random(seed), now_ms=NOON + DAY_MS, simulated=False, imported=True
            )
            assert page is not None
            assert page.key == KEY


# What is written.


def test_a_page_whose_range_is_live_again_is_not_judged() -> None:
    file = File()
    with closing(file.raw):
        file.put(KEY, minutes(*range(100, 0, -1)), known(NOON - 100 * M, NOON))
        page = draw_page(file.sql, rng=Random(1), now_ms=NOON + DAY_MS, simulated=False)
        assert page is not None
        late = known(page.start_ms, page.start_ms + M, evidence=LIVE)
        put_spans(file.sql, KEY, [late], over_all=True)
        state = with_next_page(first_state(NOON), NOON)
        assert write_repair(file.sql, page, page.held, asked_ms=NOON, state=state) is None
        assert read_state(file.sql) is None


def test_the_trail_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upbit_backbone.storage.audit_table.TRAIL_ROWS", 30)
    assert TRAIL_ROWS == 10_000
    file = File()
    with closing(file.raw):
        file.put(KEY, minutes(*range(100, 0, -1)), known(NOON - 100 * M, NOON))
        page = draw_page(file.sql, rng=Random(1), now_ms=NOON + DAY_MS, simulated=False)
        assert page is not None
        wrong = CandleSeries.from_rows(
            SYMBOL,
            Timeframe.M1,
            [(int(at), 1, 2, 1, 2, 3, 4) for at in page.held.time],
            closed_before_ms=None,
            source="rest",
            simulated=False,
        )
        state = with_next_page(first_state(NOON), NOON)
        repair = write_repair(file.sql, page, wrong, asked_ms=NOON, state=state)
        assert repair is not None
        assert len(repair.comparison.restated) == len(page.held) > 30
        trail = read_trail(file.sql)
        assert [row[3] for row in trail] == page.held.time[-30:].tolist()
        stored = read_rows(file.sql, KEY, repair.span, None, simulated=False)
        assert compare(stored, wrong).differing == ()
        assert [span.evidence for span in read_series_coverage(file.sql, KEY)] == [REST]
