"""Walking trades back over UTC days, with an exchange whose clock is another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, epoch_ms, utc_datetime
from upbit_backbone.errors import DataUnavailableError, ProtocolError
from upbit_backbone.models import Trade
from upbit_backbone.trade_pages import OLDEST_DAY, TradeQuestion, TradeWalk, page_end_ms

MIDNIGHT = AUTUMN_2025_MS
TODAY = MIDNIGHT // DAY_MS
NOON = MIDNIGHT + 12 * HOUR_MS


def trade(number: int, at_ms: int) -> Trade:
    moment = utc_datetime(at_ms)
    return Trade("KRW-BTC", 1.0, 2.0, "BUY", number, False, moment, moment, "rest", False)


def answer(trades: list[Trade], question: TradeQuestion, now_ms: int, rows: int) -> list[Trade]:
    """As the exchange answers by its clock, the newest first."""
    day = now_ms // DAY_MS - (question.days_ago or 0)
    end_ms = (day + 1) * DAY_MS
    if question.to_ms is not None:
        end_ms = day * DAY_MS + question.to_ms % DAY_MS
    found = [
        one
        for one in reversed(trades)
        if day * DAY_MS <= epoch_ms(one.exchange_time) < min(end_ms, now_ms + 1)
        and (question.cursor is None or one.sequential_id < question.cursor)
    ]
    return found[:rows]


@given(
    now_ms=st.integers(-2 * MINUTE_MS, 2 * MINUTE_MS) | st.integers(0, DAY_MS),
    ahead_ms=st.integers(-5_000, 5_000),
    delays_ms=st.lists(st.integers(0, 40 * SECOND_MS), min_size=1, max_size=12),
    ages_ms=st.lists(
        st.integers(0, 3 * DAY_MS) | st.integers(0, 5 * MINUTE_MS), min_size=1, max_size=12
    ),
    days=st.integers(0, 4),
    rows=st.integers(1, 4),
)
def test_nothing_is_missed_however_long_a_question_takes_and_midnight_passes(
    now_ms: int, ahead_ms: int, delays_ms: list[int], ages_ms: list[int], days: int, rows: int
) -> None:
    now_ms += MIDNIGHT
    ordered = sorted(now_ms + min(0, ahead_ms) - age_ms for age_ms in ages_ms)
    trades = [trade(number, at_ms) for number, at_ms in enumerate(ordered)]
    walk = TradeWalk(now_ms // DAY_MS, now_ms // DAY_MS - days)
    found: list[Trade] = []
    asked = 0
    while (question := walk.next(now_ms)) is not None:
        # The question waits for its turn; the exchange answers by the time it has then.
        now_ms += delays_ms[asked % len(delays_ms)]
        page = answer(trades, question, now_ms + ahead_ms, rows)
        if walk.take(page):
            found += page
        asked += 1
        assert asked < 100
    oldest_ms = (TODAY - days) * DAY_MS
    assert {one.sequential_id for one in found} >= {
        number for number, at_ms in enumerate(ordered) if at_ms >= oldest_ms
    }
    assert len({one.sequential_id for one in found}) == len(found)


def test_a_day_ends_with_an_empty_page_and_a_cursor_stays_within_it() -> None:
    walk = TradeWalk(TODAY, TODAY - 1, to_ms=NOON)
    assert walk.next(NOON) == TradeQuestion(None, NOON, None)
    assert walk.take([trade(9, NOON - 1), trade(8, NOON - 2)])
    assert walk.next(NOON) == TradeQuestion(None, None, 8)
    assert not walk.take([])
    assert walk.next(NOON) == TradeQuestion(1, None, None)
    assert not walk.take([])
    assert walk.next(NOON) is None


def test_a_day_that_is_no_longer_kept_when_its_turn_comes_is_told() -> None:
    walk = TradeWalk(TODAY - OLDEST_DAY, TODAY - OLDEST_DAY)
    assert walk.next(NOON) == TradeQuestion(OLDEST_DAY, None, None)
    assert walk.take([trade(9, NOON - OLDEST_DAY * DAY_MS)])
    with pytest.raises(DataUnavailableError, match="keeps trades for 7 days"):
        walk.next(NOON + DAY_MS)


def test_the_next_day_may_have_begun_for_the_exchange_alone() -> None:
    walk = TradeWalk(TODAY, TODAY - 1)
    assert walk.next(MIDNIGHT - 5_000) == TradeQuestion(None, None, None)
    assert not walk.take([trade(9, MIDNIGHT - 6_000)]), "it has not: that is the day before"
    assert walk.next(MIDNIGHT - 4_000) == TradeQuestion(None, None, None)


def test_an_exchange_that_does_not_obey_the_cursor_is_found_out() -> None:
    walk = TradeWalk(TODAY, TODAY)
    walk.next(NOON)
    walk.take([trade(9, NOON), trade(8, NOON)])
    walk.next(NOON)
    with pytest.raises(
        ProtocolError, match="the same page again when asked for what is older than 8"
    ):
        walk.take([trade(9, NOON), trade(8, NOON)])


@pytest.mark.parametrize(
    ("end_ms", "page_ms"),
    [(NOON, NOON), (NOON + 1, NOON + SECOND_MS), (MIDNIGHT, None), (MIDNIGHT - 1, None)],
)
def test_the_end_of_a_page_loses_nothing_of_its_second(end_ms: int, page_ms: int | None) -> None:
    assert page_end_ms(end_ms) == page_ms
