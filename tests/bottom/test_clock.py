"""Moments and milliseconds, under three local zones."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bottom.time_zones import ZONES, local_zone, needs_tzset
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import (
    DAY_MS,
    HOUR_MS,
    FrozenClock,
    ShiftedClock,
    SystemClock,
    epoch_ms,
    utc_datetime,
)
from upbit_backbone.errors import InvalidRequestError

KST = timezone(timedelta(hours=9))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OFFSETS_H = {"UTC": 0, "Asia/Seoul": 9, "America/New_York": -5}

far_ms = st.integers(
    (datetime(1, 1, 2, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1),
    (datetime(9999, 12, 30, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1),
)


@given(far_ms)
def test_milliseconds_survive_the_way_through_a_datetime(ms: int) -> None:
    moment = utc_datetime(ms)
    assert moment.utcoffset() == timedelta(0)
    assert moment == EPOCH + timedelta(milliseconds=ms)
    assert epoch_ms(moment) == ms


@pytest.mark.parametrize("offset_h", [-12, -5, 0, 5.75, 9, 14])
def test_an_aware_time_is_the_same_instant_in_any_zone(offset_h: float) -> None:
    zone = timezone(timedelta(hours=offset_h))
    moment = datetime(2026, 1, 5, 4, 10, 41, 873_000, UTC)
    assert epoch_ms(moment) == epoch_ms(moment.astimezone(zone)) == 1_767_586_241_873


@pytest.mark.parametrize(
    ("microseconds", "ms"), [(0, 0), (999, 0), (1_000, 1), (1_999, 1), (999_999, 999)]
)
def test_microseconds_are_rounded_down(microseconds: int, ms: int) -> None:
    moment = EPOCH + timedelta(days=20_000, microseconds=microseconds)
    assert epoch_ms(moment) == 20_000 * DAY_MS + ms
    before = EPOCH - timedelta(days=1) + timedelta(microseconds=microseconds)
    assert epoch_ms(before) == -DAY_MS + ms


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
def test_an_aware_time_ignores_the_local_zone(zone: str) -> None:
    with local_zone(zone):
        assert epoch_ms(datetime(2025, 9, 15, 9, tzinfo=KST)) == AUTUMN_2025_MS
        assert utc_datetime(AUTUMN_2025_MS) == datetime(2025, 9, 15, tzinfo=UTC)


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
def test_a_naive_time_is_local_time(zone: str) -> None:
    with local_zone(zone):
        winter = epoch_ms(datetime(2026, 1, 5, 12, 0, 0, 123_456))
    assert winter == 1_767_614_400_123 - OFFSETS_H[zone] * HOUR_MS


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
@given(moment=st.datetimes(datetime(1900, 1, 1), datetime(2037, 1, 1)))
def test_a_naive_time_means_what_python_means_by_it(zone: str, moment: datetime) -> None:
    with local_zone(zone):
        try:
            ms = epoch_ms(moment)
        except InvalidRequestError:
            assert zone == "America/New_York"
            return
        assert ms == (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [2300, 9998])
def test_a_naive_time_of_a_far_year_keeps_its_milliseconds(zone: str, year: int) -> None:
    """As a float of seconds it would not: that is how far "whatever there is" goes."""
    moment = datetime(year, 12, 31, 23, 59, 59, 999_999)
    with local_zone(zone):
        ms = epoch_ms(moment)
    assert ms == epoch_ms(moment.replace(tzinfo=UTC)) - OFFSETS_H[zone] * HOUR_MS


@needs_tzset
@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_a_naive_time_that_cannot_be_told_is_refused(moment: datetime) -> None:
    with (
        local_zone("Asia/Seoul"),
        pytest.raises(InvalidRequestError, match=f"local time {moment.isoformat()} is beyond"),
    ):
        epoch_ms(moment)


@needs_tzset
@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize(
    "at", [time(2, 0), time(2, 30), time(2, 59, 59, 999_999)], ids=time.isoformat
)
def test_a_naive_time_that_the_clock_skipped_is_refused(at: time, fold: int) -> None:
    moment = datetime.combine(date(2026, 3, 8), at).replace(fold=fold)
    with (
        local_zone("America/New_York"),
        pytest.raises(InvalidRequestError, match="does not exist") as caught,
    ):
        epoch_ms(moment)
    assert moment.isoformat() in str(caught.value)
    for zone in ("UTC", "Asia/Seoul"):
        with local_zone(zone):
            epoch_ms(moment)


@needs_tzset
def test_the_minutes_around_the_skipped_hour_follow_each_other() -> None:
    with local_zone("America/New_York"):
        last = epoch_ms(datetime(2026, 3, 8, 1, 59, 59, 999_000))
        first = epoch_ms(datetime(2026, 3, 8, 3, 0))
    assert first - last == 1


@needs_tzset
def test_a_naive_time_that_came_twice_is_told_apart_by_its_fold() -> None:
    ambiguous = datetime(2026, 11, 1, 1, 30)
    with local_zone("America/New_York"):
        first = epoch_ms(ambiguous)
        second = epoch_ms(ambiguous.replace(fold=1))
    assert utc_datetime(first) == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert second - first == HOUR_MS


def test_the_machine_s_clock_is_in_milliseconds_and_never_goes_back() -> None:
    clock = SystemClock()
    assert datetime(2025, 1, 1, tzinfo=UTC) < utc_datetime(clock.now_ms())
    assert clock.monotonic() <= clock.monotonic()


def test_a_shifted_clock_starts_where_it_is_told_and_goes_on() -> None:
    base = ManualClock()
    clock = ShiftedClock(1_500_000_000_000, base)
    assert clock.now_ms() == 1_500_000_000_000
    base.advance(1.5)
    assert clock.now_ms() == 1_500_000_001_500
    assert clock.monotonic() == base.monotonic()


def test_a_frozen_clock_stands_while_durations_go_on() -> None:
    base = ManualClock()
    clock = FrozenClock(1_500_000_000_000, base)
    before = clock.monotonic()
    base.advance(60)
    assert clock.now_ms() == 1_500_000_000_000
    assert clock.monotonic() - before == 60
