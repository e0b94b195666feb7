from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.routing.fake_exchange import make_trade
from upbit_backbone.clock import DAY_MS, HOUR_MS, SECOND_MS, epoch_ms
from upbit_backbone.errors import DataUnavailableError, ProtocolError, TransportError
from upbit_backbone.models import Trade
from upbit_backbone.routing.trade_history import FIRST_PAGE, walk_back
from upbit_backbone.trade_pages import OLDEST_DAY

BTC = "KRW-BTC"
MIDNIGHT = AUTUMN_2025_MS
NOON = MIDNIGHT + 12 * HOUR_MS
MOST_PAGES = 200
"""No walk here needs more: one that does goes in circles."""


class History:
    """What the exchange tells of its trades, by its own clock, which may be a little off ours."""

    def __init__(self, clock: ManualClock, ahead_ms: int = 0) -> None:
        self.clock = clock
        self.ahead_ms = ahead_ms
        self.trades: list[Trade] = []
        self.asked: list[tuple[int, int | None, int | None, int | None]] = []
        self.most_rows = 500
        self.between: Callable[[], None] = lambda: None
        """Called after each page."""

    def add(self, *times_ms: int) -> list[Trade]:
        new = [make_trade(BTC, at_ms, len(self.trades) + n) for n, at_ms in enumerate(times_ms, 1)]
        self.trades.extend(new)
        return new

    async def read(
        self, *, count: int, to_ms: int | None, cursor: int | None, days_ago: int | None
    ) -> tuple[Trade, ...]:
        assert 1 <= count <= 500
        assert days_ago is None or 1 <= days_ago <= OLDEST_DAY
        assert to_ms is None or cursor is None
        self.asked.append((count, to_ms, cursor, days_ago))
        assert len(self.asked) <= MOST_PAGES
        now_ms = self.clock.now_ms() + self.ahead_ms
        day_ms = (now_ms // DAY_MS - (days_ago or 0)) * DAY_MS
        # The time of day alone is sent; its day is that of `days_ago`.
        end_ms = day_ms + DAY_MS if to_ms is None else day_ms + to_ms % DAY_MS
        rows = [
            trade
            for trade in sorted(self.trades, key=lambda one: one.sequential_id, reverse=True)
            if day_ms <= epoch_ms(trade.exchange_time) < end_ms // SECOND_MS * SECOND_MS
            and epoch_ms(trade.exchange_time) <= now_ms
            and (cursor is None or trade.sequential_id < cursor)
        ]
        self.between()
        return tuple(rows[: min(count, self.most_rows)])


async def walked(history: History, since_ms: int, until_ms: int | None = None) -> set[int]:
    """The ids of what a walk finds in its range."""
    found: set[Trade] = set()
    pages = walk_back(history.read, history.clock, since_ms=since_ms, until_ms=until_ms)
    async for page in pages:
        assert page
        found.update(page)
    last_ms = until_ms if until_ms is not None else history.clock.now_ms() + abs(history.ahead_ms)
    return {
        trade.sequential_id
        for trade in found
        if since_ms <= epoch_ms(trade.exchange_time) <= last_ms
    }


def ids(trades: list[Trade]) -> set[int]:
    return {trade.sequential_id for trade in trades}


async def test_a_short_range_is_one_small_page() -> None:
    history = History(ManualClock(NOON))
    history.add(NOON - 60_000, NOON - 6_000)
    wanted = history.add(NOON - 4_000, NOON - 4_000, NOON)
    assert await walked(history, NOON - 5_000) == ids(wanted)
    assert history.asked == [(FIRST_PAGE, None, None, None)]


async def test_a_longer_one_goes_on_by_cursor_until_it_is_reached() -> None:
    history = History(ManualClock(NOON))
    trades = history.add(*range(NOON - 2_000_000, NOON, 1_000))
    assert await walked(history, NOON - 1_300_000) == ids(trades[-1_300:])
    assert [count for count, *_ in history.asked] == [100, 500, 500, 500]
    assert [cursor for _, _, cursor, _ in history.asked] == [None, 1_901, 1_401, 901]


async def test_trades_of_the_first_millisecond_are_found_wherever_a_page_ends() -> None:
    history = History(ManualClock(NOON))
    trades = history.add(*[NOON - 5_000] * 150, NOON)
    assert await walked(history, NOON - 5_000) == ids(trades)


async def test_it_begins_at_the_end_of_the_range() -> None:
    history = History(ManualClock(NOON))
    trades = history.add(*range(NOON - 3_600_000, NOON, 1_000))
    until_ms = NOON - 1_800_500
    assert await walked(history, until_ms - 9_500, until_ms) == ids(trades[1_790:1_800])
    assert history.asked == [(FIRST_PAGE, NOON - 1_800_000, None, None)]


async def test_a_short_page_ends_nothing() -> None:
    history = History(ManualClock(NOON))
    history.most_rows = 3
    trades = history.add(*range(NOON - 10_000, NOON, 1_000))
    assert await walked(history, NOON - 10_000) == ids(trades)


async def test_it_walks_over_midnight() -> None:
    history = History(ManualClock(MIDNIGHT + 2_000))
    history.add(MIDNIGHT - 10_000)
    wanted = history.add(MIDNIGHT - 3_000, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 1_000)
    assert await walked(history, MIDNIGHT - 4_000) == ids(wanted)
    assert [days_ago for *_, days_ago in history.asked] == [None, None, None, 1]


async def test_days_without_a_trade_are_passed_over() -> None:
    history = History(ManualClock(NOON))
    wanted = history.add(NOON - 4 * DAY_MS, NOON - 4 * DAY_MS + 1)
    assert await walked(history, NOON - 4 * DAY_MS) == ids(wanted)
    assert {days_ago for *_, days_ago in history.asked} == {None, 1, 2, 3, 4}


async def test_a_market_that_nobody_ever_traded_ends_with_the_range() -> None:
    history = History(ManualClock(NOON))
    assert await walked(history, NOON - DAY_MS) == set()
    assert len(history.asked) == 2


async def test_an_end_that_has_not_come_yet_means_up_to_now() -> None:
    # The end of a gap lies a moment ahead, for the clocks may be apart.
    history = History(ManualClock(MIDNIGHT - 500))
    wanted = history.add(MIDNIGHT - 2_000, MIDNIGHT - 600)
    assert await walked(history, MIDNIGHT - 3_000, MIDNIGHT + 1_000) == ids(wanted)


async def test_a_week_is_all_there_is_and_what_is_kept_was_yielded() -> None:
    history = History(ManualClock(NOON))
    kept = history.add(NOON - 7 * DAY_MS, NOON - DAY_MS)
    found: list[Trade] = []

    async def walk() -> None:
        async for page in walk_back(history.read, history.clock, since_ms=NOON - 8 * DAY_MS):
            found.extend(page)

    with pytest.raises(DataUnavailableError, match="7 days"):
        await walk()
    assert found == kept[::-1]


async def test_an_exchange_that_ignores_the_cursor_is_found_out() -> None:
    history = History(ManualClock(NOON))
    history.add(*range(NOON - 2_000_000, NOON, 1_000))

    async def ignores(
        *, count: int, to_ms: int | None, cursor: int | None, days_ago: int | None
    ) -> tuple[Trade, ...]:
        history.add(NOON)  # the market goes on
        return await history.read(count=count, to_ms=to_ms, cursor=None, days_ago=days_ago)

    with pytest.raises(ProtocolError, match="answered the same page again"):
        async for _ in walk_back(ignores, history.clock, since_ms=NOON - 1_900_000):
            pass
    assert len(history.asked) <= 4


async def test_an_error_comes_through() -> None:
    async def fails(**_: object) -> tuple[Trade, ...]:
        raise TransportError("no route")

    with pytest.raises(TransportError):
        async for _ in walk_back(fails, ManualClock(NOON), since_ms=NOON):
            pass


# Midnight, while the clocks are apart and while pages are read.


@pytest.mark.parametrize("ahead_ms", [-400, 400], ids=["exchange behind", "exchange ahead"])
@pytest.mark.parametrize("now_ms", [-300, 100, 300], ids=["before", "just after", "after"])
async def test_midnight_is_not_the_same_moment_on_both_sides(now_ms: int, ahead_ms: int) -> None:
    history = History(ManualClock(MIDNIGHT + now_ms), ahead_ms)
    wanted = history.add(*range(MIDNIGHT - 3_000, MIDNIGHT + now_ms + ahead_ms, 100))
    assert await walked(history, MIDNIGHT - 3_000) == ids(wanted)


@pytest.mark.parametrize("ahead_ms", [-400, 0, 400])
@pytest.mark.parametrize("page", range(1, 7))
async def test_midnight_may_pass_between_two_pages(page: int, ahead_ms: int) -> None:
    clock = ManualClock(MIDNIGHT - 700)
    history = History(clock, ahead_ms)
    history.most_rows = 5

    def pass_midnight() -> None:
        clock.advance(0.1)
        if len(history.asked) == page:
            clock.advance(0.6)

    history.between = pass_midnight
    wanted = history.add(*range(MIDNIGHT - 5_000, MIDNIGHT - 1_200, 200))
    assert await walked(history, MIDNIGHT - 5_000) == ids(wanted)


@given(
    now_ms=st.integers(-1_500, 1_500),
    ahead_ms=st.integers(-500, 500),
    step_ms=st.integers(0, 400),
    most_rows=st.integers(1, 7),
    gaps_ms=st.lists(st.integers(0, 2_000), min_size=1, max_size=25),
    until_ms=st.none() | st.integers(-2_000, 2_000),
)
async def test_nothing_is_missed_around_midnight(
    now_ms: int,
    ahead_ms: int,
    step_ms: int,
    most_rows: int,
    gaps_ms: list[int],
    until_ms: int | None,
) -> None:
    clock = ManualClock(MIDNIGHT + now_ms)
    history = History(clock, ahead_ms)
    history.most_rows = most_rows
    history.between = lambda: clock.advance(step_ms / 1_000)
    last_ms = clock.now_ms() + min(0, ahead_ms)
    times = [last_ms]
    for gap_ms in gaps_ms:
        times.append(times[-1] - gap_ms)
    trades = history.add(*reversed(times))
    since_ms = MIDNIGHT - 4_000
    end_ms = last_ms if until_ms is None else MIDNIGHT + until_ms
    owed = ids([one for one in trades if since_ms <= epoch_ms(one.exchange_time) <= end_ms])
    found = await walked(history, since_ms, None if until_ms is None else end_ms)
    assert owed <= found
