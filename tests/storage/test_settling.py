"""Which series is read a second time, and when."""

from __future__ import annotations

from upbit_backbone.clock import HOUR_MS, SECOND_MS
from upbit_backbone.models import SpanState, Timeframe
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import LIVE, REST, Coverage, KnownSpan
from upbit_backbone.storage.settling import AGAIN_MS, LOOKS, MAX_AGAIN_MS, Due, Settling

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


def test_a_series_that_only_grows_is_due_as_if_it_were_told_of_each_candle() -> None:
    told, untold, coverage = Settling(), Settling(), Coverage()
    times_due = 0
    for second in range(150):
        state: SpanState = "complete" if second % 7 else "empty"
        coverage.put(seconds(second, second + 1, state))
        told.take(AAA, coverage)
        if second == 0:
            untold.take(AAA, coverage)
        now_ms = (second + 7) * S
        due = told.due(now_ms)
        assert untold.due(now_ms) == due
        times_due += due is not None
    assert 0 < times_due < 150


class CountedCoverage(Coverage):
    """Counts how often somebody looks at its spans."""

    looks = 0

    def between(self, start_ms: int, end_ms: int) -> list[KnownSpan]:
        CountedCoverage.looks += 1
        return super().between(start_ms, end_ms)


def test_hundreds_of_series_are_asked_about_every_second_for_nothing() -> None:
    minute = 60
    settling = Settling()
    thin = [
        seconds(at * minute, (at + 1) * minute, "empty" if at % 2 else "complete")
        for at in range(59)
    ]
    for number in range(700):
        settling.take(SeriesKey(f"KRW-{number}", Timeframe.M1), CountedCoverage(thin))
    CountedCoverage.looks = 0
    for now in range(59 * minute, 61 * minute):
        assert settling.due(now * S) is None
    assert CountedCoverage.looks == 0
    due = settling.due(61 * minute * S)
    assert due == Due(SeriesKey("KRW-0", Timeframe.M1), 0, 59 * minute * S)
    assert CountedCoverage.looks == 1, "all have waited an hour, and one is read"


def test_in_one_go_few_series_are_looked_at_and_all_of_them_in_the_end() -> None:
    settling = Settling()
    halves = [seconds(0, 50), seconds(50, 120, "empty")]
    for number in range(25):
        settling.take(SeriesKey(f"KRW-{number}", Timeframe.S1), CountedCoverage(halves))
    settling.take(AAA, CountedCoverage([seconds(0, 120)]))
    CountedCoverage.looks, goes = 0, 1
    while settling.due(130 * S) is None:
        goes += 1
        assert CountedCoverage.looks <= LOOKS * goes
    assert settling.due(130 * S) == Due(AAA, 0, 120 * S)
    assert goes == 3


def test_what_grows_upwards_changes_nothing_and_a_late_candle_brings_the_page_forward() -> None:
    settling = Settling()
    coverage = CountedCoverage([seconds(7_200, 7_210)])
    settling.take(AAA, coverage)
    CountedCoverage.looks = 0
    for second in range(7_210, 7_250):
        coverage.put(seconds(second, second + 1))
        settling.grown(AAA, coverage, second * S)
        assert settling.due((second + 1) * S) is None
    assert CountedCoverage.looks == 0
    coverage.put(seconds(0, 1))
    settling.grown(AAA, coverage, 0)
    assert settling.due(7_300 * S) == Due(AAA, 0, 200 * S)


def test_a_series_that_grows_from_nothing_waits_for_its_page() -> None:
    settling = Settling()
    coverage = Coverage([seconds(0, 100)])
    settling.grown(AAA, coverage, 0)
    assert settling.due(105 * S) == Due(AAA, 0, 100 * S)
    # What was proved meanwhile by a page is nothing to settle.
    other = Coverage([seconds(0, 100, evidence=REST)])
    settling.grown(BBB, other, 0)
    assert BBB in settling
    settling.refused(AAA, 105 * S)
    assert settling.due(3 * HOUR_MS - 1) is not None
    assert BBB not in settling


def test_what_cannot_be_settled_is_read_ever_less_and_keeps_nothing_else_waiting() -> None:
    settling = Settling()
    coverage = Coverage([seconds(0, 450)])
    settling.take(AAA, coverage)
    now = 500 * S
    assert settling.due(now) == Due(AAA, 0, 200 * S)
    settling.refused(AAA, now, 200 * S)
    # What follows has its page at once.
    assert settling.due(now) == Due(AAA, 200 * S, 400 * S)
    coverage.put(seconds(200, 400, evidence=REST))
    settling.take(AAA, coverage)
    assert settling.due(now) is None
    assert settling.due(now + AGAIN_MS) == Due(AAA, 0, 200 * S)
    for tries in range(1, 15):
        now += min(AGAIN_MS << (tries - 1), MAX_AGAIN_MS)
        assert settling.due(now) == Due(AAA, 0, 200 * S)
        settling.refused(AAA, now)
        pause = min(AGAIN_MS << tries, MAX_AGAIN_MS)
        assert settling.due(now + pause - 1) is None, tries
    coverage.put(seconds(0, 100, evidence=REST))
    settling.take(AAA, coverage)
    assert settling.due(now) == Due(AAA, 100 * S, 300 * S), "it can be settled after all"
