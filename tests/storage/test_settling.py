"""Which series is read a second time, and when."""

from __future__ import annotations

from upbit_backbone.clock import HOUR_MS, SECOND_MS
from upbit_backbone.models import SpanState, Timeframe
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import LIVE, REST, Coverage, KnownSpan
from upbit_backbone.storage.settling import AGAIN_MS, Due, Settling

S = SECOND_MS
AAA, BBB = SeriesKey("KRW-AAA", Timeframe.S1), SeriesKey("KRW-BBB", Timeframe.S1)


def seconds(start: int, end: int, state: SpanState = "complete", evidence: str = LIVE) -> KnownSpan:
    return KnownSpan(start * S, end * S, state, "", evidence, 0)


def test_a_hundred_candles_are_worth_a_page_and_what_is_not_over_for_5_s_waits() -> None:
    settling = Settling()
    settling.take(AAA, Coverage([seconds(0, 100)]))
    assert settling.due(104 * S) is None
    assert settling.due(105 * S) == Due(AAA, 0, 100 * S)


def test_silent_periods_are_no_candles_and_are_settled_with_them() -> None:
    settling = Settling()
    coverage = Coverage([seconds(0, 50), seconds(50, 90, "empty"), seconds(90, 139)])
    settling.take(AAA, coverage)
    assert settling.due(200 * S) is None
    coverage.put(seconds(139, 140))
    assert settling.due(200 * S) == Due(AAA, 0, 140 * S)


def test_an_hour_after_its_end_one_candle_alone_is_worth_a_page() -> None:
    settling = Settling()
    settling.take(AAA, Coverage([seconds(0, 1)]))
    assert settling.due(1 * S + HOUR_MS - 1) is None
    assert settling.due(1 * S + HOUR_MS) == Due(AAA, 0, 1 * S)


def test_one_page_settles_the_oldest_two_hundred() -> None:
    settling = Settling()
    settling.take(AAA, Coverage([seconds(10, 500)]))
    assert settling.due(600 * S) == Due(AAA, 10 * S, 210 * S)


def test_who_is_asked_for_comes_first_and_who_failed_later() -> None:
    settling = Settling()
    for key in (AAA, BBB):
        settling.take(key, Coverage([seconds(0, 100)]))
    now = 200 * S
    assert settling.due(now) == Due(AAA, 0, 100 * S)
    settling.asked_for(BBB)
    assert settling.due(now) == Due(BBB, 0, 100 * S)
    settling.failed(BBB, now)
    assert settling.due(now) == Due(AAA, 0, 100 * S)
    settling.failed(AAA, now)
    assert settling.due(now) is None
    assert settling.due(now + AGAIN_MS) == Due(BBB, 0, 100 * S)


def test_what_is_settled_waits_for_nothing() -> None:
    settling = Settling()
    coverage = Coverage([seconds(0, 100)])
    settling.take(AAA, coverage)
    coverage.put(seconds(0, 100, evidence=REST))
    settling.take(AAA, coverage)
    assert len(settling) == 0
    settling.asked_for(AAA)
    assert settling.due(HOUR_MS) is None
