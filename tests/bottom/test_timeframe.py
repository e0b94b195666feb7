"""Timeframes: names, boundaries, counting back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bottom.time_zones import ZONES, local_zone, needs_tzset
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, epoch_ms, utc_datetime
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import Timeframe

ALL = list(Timeframe)
FIXED = [timeframe for timeframe in ALL if timeframe.fixed_ms is not None]

# Long before the exchange began to long after this program.
moments_ms = st.integers(
    epoch_ms(datetime(1995, 1, 1, tzinfo=UTC)), epoch_ms(datetime(2105, 1, 1, tzinfo=UTC))
)
timeframes = st.sampled_from(ALL)


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return epoch_ms(datetime(year, month, day, hour, minute, second, tzinfo=UTC))


def test_a_minute_and_a_month_differ_by_a_capital_letter() -> None:
    assert Timeframe.parse("1m") is Timeframe.M1
    assert Timeframe.parse("1M") is Timeframe.MO1
    assert Timeframe.M1.fixed_ms == MINUTE_MS
    assert Timeframe.MO1.fixed_ms is None


@pytest.mark.parametrize("timeframe", ALL)
def test_a_timeframe_is_written_as_it_is_read(timeframe: Timeframe) -> None:
    assert Timeframe.parse(str(timeframe)) is timeframe
    assert Timeframe.parse(timeframe) is timeframe
    assert Timeframe(timeframe.value) is timeframe


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("60m", "1h"),
        ("240m", "4h"),
        ("1H", "1h"),
        ("4H", "4h"),
        ("1D", "1d"),
        ("24h", "1d"),
        ("1W", "1w"),
        ("7d", "1w"),
        ("1mo", "1M"),
        ("1Y", "1y"),
    ],
)
def test_what_users_type_is_understood(alias: str, name: str) -> None:
    assert Timeframe.parse(alias).value == name


@pytest.mark.parametrize("text", ["", "2h", "1 m", "m1", "M1", "60", "1min", None, 60])
def test_what_is_no_timeframe_is_refused_with_a_list_of_them_all(text: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Timeframe.parse(text)  # type: ignore[arg-type]
    assert repr(text) in str(caught.value)
    assert all(timeframe.value in str(caught.value) for timeframe in ALL)


@pytest.mark.parametrize(
    ("name", "length_ms"),
    [
        ("1s", SECOND_MS),
        ("1m", MINUTE_MS),
        ("3m", 3 * MINUTE_MS),
        ("5m", 5 * MINUTE_MS),
        ("10m", 10 * MINUTE_MS),
        ("15m", 15 * MINUTE_MS),
        ("30m", 30 * MINUTE_MS),
        ("1h", HOUR_MS),
        ("4h", 4 * HOUR_MS),
        ("1d", DAY_MS),
        ("1w", 7 * DAY_MS),
    ],
)
def test_a_fixed_timeframe_has_one_length(name: str, length_ms: int) -> None:
    timeframe = Timeframe.parse(name)
    assert timeframe.fixed_ms == timeframe.typical_ms == length_ms


def test_months_and_years_have_a_length_for_estimates_alone() -> None:
    assert (Timeframe.MO1.fixed_ms, Timeframe.Y1.fixed_ms) == (None, None)
    assert (Timeframe.MO1.typical_ms, Timeframe.Y1.typical_ms) == (30 * DAY_MS, 365 * DAY_MS)


@pytest.mark.parametrize(
    ("name", "opened", "end"),
    [
        ("1s", (2026, 1, 5, 4, 10, 41), (2026, 1, 5, 4, 10, 42)),
        ("1m", (2026, 1, 5, 4, 10), (2026, 1, 5, 4, 11)),
        ("3m", (2026, 1, 5, 4, 9), (2026, 1, 5, 4, 12)),
        ("5m", (2026, 1, 5, 4, 10), (2026, 1, 5, 4, 15)),
        ("10m", (2026, 1, 5, 4, 10), (2026, 1, 5, 4, 20)),
        ("15m", (2026, 1, 5, 4), (2026, 1, 5, 4, 15)),
        ("30m", (2026, 1, 5, 4), (2026, 1, 5, 4, 30)),
        ("1h", (2026, 1, 5, 4), (2026, 1, 5, 5)),
        ("4h", (2026, 1, 5, 4), (2026, 1, 5, 8)),
        ("1d", (2026, 1, 5), (2026, 1, 6)),
        ("1w", (2026, 1, 5), (2026, 1, 12)),
        ("1M", (2026, 1, 1), (2026, 2, 1)),
        ("1y", (2026, 1, 1), (2027, 1, 1)),
    ],
)
def test_the_candle_of_a_moment_opens_and_ends_on_utc_boundaries(
    name: str, opened: tuple[int, ...], end: tuple[int, ...]
) -> None:
    timeframe = Timeframe.parse(name)
    moment_ms = ms(2026, 1, 5, 4, 10, 41) + 873
    assert timeframe.floor_ms(moment_ms) == ms(*opened)
    assert timeframe.next_ms(ms(*opened)) == ms(*end)
    assert timeframe.ceil_ms(moment_ms) == ms(*end)
    assert timeframe.ceil_ms(ms(*opened)) == ms(*opened)
    assert timeframe.floor_ms(ms(*end) - 1) == ms(*opened)


@pytest.mark.parametrize("monday", [(2018, 4, 16), (2021, 1, 4), (1970, 1, 5), (1969, 12, 29)])
def test_a_week_begins_on_monday(monday: tuple[int, ...]) -> None:
    """The first two are recorded week candles of the exchange."""
    opened = ms(*monday)
    assert utc_datetime(opened).weekday() == 0
    for day in range(7):
        assert Timeframe.W1.floor_ms(opened + day * DAY_MS + 1) == opened
    assert Timeframe.W1.floor_ms(opened - 1) == opened - 7 * DAY_MS


def test_months_and_years_follow_the_calendar() -> None:
    opened = ms(2023, 12, 1)
    lengths = []
    for _ in range(14):
        following = Timeframe.MO1.next_ms(opened)
        lengths.append((following - opened) // DAY_MS)
        opened = following
    assert lengths == [31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31]
    assert Timeframe.Y1.next_ms(ms(2024, 1, 1)) - ms(2024, 1, 1) == 366 * DAY_MS
    assert Timeframe.Y1.next_ms(ms(2025, 1, 1)) - ms(2025, 1, 1) == 365 * DAY_MS


@given(timeframes, moments_ms)
def test_every_moment_lies_in_exactly_one_candle(timeframe: Timeframe, at_ms: int) -> None:
    opened = timeframe.floor_ms(at_ms)
    end = timeframe.next_ms(opened)
    assert opened <= at_ms < end
    assert timeframe.floor_ms(opened) == opened
    assert timeframe.floor_ms(end) == end
    assert timeframe.floor_ms(end - 1) == opened
    assert timeframe.ceil_ms(at_ms) == (opened if opened == at_ms else end)


@given(timeframes, moments_ms, st.integers(0, 400))
def test_counting_back_is_the_inverse_of_going_on(
    timeframe: Timeframe, at_ms: int, count: int
) -> None:
    opened = timeframe.floor_ms(at_ms)
    start = timeframe.back_ms(opened, count)
    assert timeframe.floor_ms(start) == start
    if timeframe.fixed_ms is not None:
        assert opened - start == count * timeframe.fixed_ms
        return
    for _ in range(count):
        start = timeframe.next_ms(start)
    assert start == opened


@given(st.sampled_from(FIXED), moments_ms)
def test_a_larger_candle_begins_where_a_smaller_one_does(timeframe: Timeframe, at_ms: int) -> None:
    """So larger candles can be made of smaller ones, up to weeks from days."""
    for smaller in FIXED[: FIXED.index(timeframe)]:
        assert timeframe.fixed_ms is not None
        assert smaller.fixed_ms is not None
        if timeframe.fixed_ms % smaller.fixed_ms == 0:
            opened = timeframe.floor_ms(at_ms)
            assert smaller.floor_ms(opened) == opened


@pytest.mark.parametrize(
    ("name", "opened", "count", "start"),
    [
        ("1M", (2024, 3, 1), 1, (2024, 2, 1)),
        ("1M", (2024, 1, 1), 1, (2023, 12, 1)),
        ("1M", (2024, 1, 1), 200, (2007, 5, 1)),
        ("1y", (2024, 1, 1), 7, (2017, 1, 1)),
        ("1w", (2021, 1, 4), 142, (2018, 4, 16)),
    ],
)
def test_counting_back_crosses_years(
    name: str, opened: tuple[int, ...], count: int, start: tuple[int, ...]
) -> None:
    assert Timeframe.parse(name).back_ms(ms(*opened), count) == ms(*start)


def test_counting_back_ends_with_the_calendar() -> None:
    first = Timeframe.Y1.back_ms(ms(2024, 1, 1), 3_000)
    assert utc_datetime(first) == datetime(1, 1, 1, tzinfo=UTC)


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("timeframe", [Timeframe.D1, Timeframe.W1, Timeframe.MO1, Timeframe.Y1])
def test_boundaries_do_not_depend_on_the_local_zone(zone: str, timeframe: Timeframe) -> None:
    at = datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
    expected = {
        Timeframe.D1: at.replace(hour=0, minute=0),
        Timeframe.W1: at.replace(hour=0, minute=0) - timedelta(days=at.weekday()),
        Timeframe.MO1: at.replace(day=1, hour=0, minute=0),
        Timeframe.Y1: at.replace(month=1, day=1, hour=0, minute=0),
    }
    with local_zone(zone):
        assert timeframe.floor_ms(epoch_ms(at)) == epoch_ms(expected[timeframe])
