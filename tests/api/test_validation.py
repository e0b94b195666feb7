"""One clear sentence for each wrong call."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.manual_clock import AUTUMN_2025_MS
from upbit_backbone.api.validation import Interval, check_interval, check_max_age, check_symbol
from upbit_backbone.clock import DAY_MS, HOUR_MS, utc_datetime
from upbit_backbone.errors import InvalidRequestError, UnknownSymbolError
from upbit_backbone.models import Timeframe

LISTED = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-BTT", "BTC-ETH", "USDT-BTC")
NOW = AUTUMN_2025_MS + 12 * HOUR_MS


def interval(
    start: datetime | None = None, end: datetime | None = None, count: Any = None
) -> Interval:
    return check_interval(start, end, count, now_ms=NOW, default_count=200)


def at(hours: float) -> datetime:
    return utc_datetime(NOW + int(hours * HOUR_MS))


@pytest.mark.parametrize(
    ("wrong", "closest"),
    [
        ("BTC-KRW", "KRW-BTC"),
        ("krw-btc", "KRW-BTC"),
        ("BTC", "KRW-BTC"),
        ("btc", "KRW-BTC"),
        (" KRW-BTC ", "KRW-BTC"),
        ("ETH-BTC", "BTC-ETH"),
        ("XRP-KRW", "KRW-XRP"),
    ],
)
def test_an_unknown_symbol_names_the_closest_one_first(wrong: str, closest: str) -> None:
    with pytest.raises(UnknownSymbolError) as caught:
        check_symbol(wrong, LISTED)
    assert caught.value.suggestions[0] == closest
    assert caught.value.symbol == wrong
    assert repr(wrong) in str(caught.value)
    assert closest in str(caught.value)
    assert len(caught.value.suggestions) == len(set(caught.value.suggestions)) <= 3


@pytest.mark.parametrize("wrong", ["", "-", "QQQQQQQ"])
def test_a_symbol_like_no_other_has_no_suggestions(wrong: str) -> None:
    with pytest.raises(UnknownSymbolError) as caught:
        check_symbol(wrong, LISTED)
    assert caught.value.suggestions == ()
    assert "closest" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 5, ["KRW-BTC"], ("KRW-BTC",)])
@pytest.mark.parametrize("listed", [LISTED, (), dict.fromkeys(LISTED)])
def test_what_is_no_text_is_no_symbol(wrong: Any, listed: Any) -> None:
    with pytest.raises(InvalidRequestError, match="a symbol is a text such as 'KRW-BTC', was"):
        check_symbol(wrong, listed)


def test_without_a_list_anything_shaped_like_a_symbol_may_be_one() -> None:
    check_symbol("KRW-NEW", ())
    for wrong in ("krw-btc", "BTC", "KRW_BTC", "KRW-BTC; DROP TABLE x"):
        with pytest.raises(UnknownSymbolError):
            check_symbol(wrong, ())


def test_an_unknown_timeframe_lists_them_all() -> None:
    with pytest.raises(InvalidRequestError, match="unknown timeframe '2m'") as caught:
        Timeframe.parse("2m")
    assert all(timeframe.value in str(caught.value) for timeframe in Timeframe)


def test_a_range_without_anything_is_the_latest_200() -> None:
    assert interval() == Interval(None, None, 200)
    assert interval(end=at(-1)) == Interval(None, NOW - HOUR_MS, 200)
    assert interval(start=at(-1)) == Interval(NOW - HOUR_MS, None, None)
    assert interval(start=at(-1), count=7) == Interval(NOW - HOUR_MS, None, 7)
    assert interval(at(-2), at(-1)) == Interval(NOW - 2 * HOUR_MS, NOW - HOUR_MS, None)


def test_an_end_beyond_now_means_now() -> None:
    assert interval(at(-1), at(5)) == Interval(NOW - HOUR_MS, None, None)
    assert interval(end=at(0)) == Interval(None, NOW, 200)


@pytest.mark.parametrize(("start", "end"), [(-1, -1), (-1, -2), (0, -1)])
def test_an_empty_or_reversed_range_says_what_was_given(start: int, end: int) -> None:
    with pytest.raises(InvalidRequestError, match="is empty: start_time must lie") as caught:
        interval(at(start), at(end))
    assert str(at(start)) in str(caught.value)
    assert str(at(end)) in str(caught.value)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "5"])
def test_a_count_is_a_whole_number_from_1_up(count: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"from 1 up, was {count!r}"):
        interval(count=count)


def test_three_of_start_end_and_count_are_one_too_many() -> None:
    with pytest.raises(InvalidRequestError, match="at most two of the three"):
        interval(at(-2), at(-1), 5)


def test_a_start_in_the_future_names_the_exchanges_time() -> None:
    with pytest.raises(
        InvalidRequestError, match=r"00:00 lies in the future: .* 2025-09-15 12:00:00 UTC"
    ):
        interval(utc_datetime(NOW + 1))
    assert interval(utc_datetime(NOW)).start_ms == NOW


@pytest.fixture(params=["UTC", "Asia/Seoul", "America/New_York"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_a_naive_time_means_local_time(zone: str) -> None:
    offset_h = {"UTC": 0, "Asia/Seoul": 9, "America/New_York": -4}[zone]
    naive = datetime(2025, 9, 14, 15, 30)
    aware = (naive - timedelta(hours=offset_h)).replace(tzinfo=UTC)
    assert interval(naive) == interval(aware)
    assert interval(aware).start_ms == AUTUMN_2025_MS - DAY_MS + 15 * HOUR_MS + HOUR_MS // 2 - (
        offset_h * HOUR_MS
    )


def test_a_naive_time_is_told_with_its_zone(zone: str) -> None:
    local = utc_datetime(NOW + HOUR_MS).astimezone()
    offset = {"UTC": "00:00", "Asia/Seoul": "09:00", "America/New_York": "04:00"}[zone]
    with pytest.raises(InvalidRequestError, match=f"start_time .*{offset} lies in the future"):
        interval(local.replace(tzinfo=None))
    with pytest.raises(InvalidRequestError, match=f"from .*{offset} to .*{offset} is empty"):
        interval(datetime(2025, 9, 2), datetime(2025, 9, 1))
    with pytest.raises(InvalidRequestError):
        interval(datetime.max)


@pytest.mark.parametrize("wrong", ["2026-11-06", 1_757_894_400_000, date(2025, 9, 1)])
def test_what_is_no_datetime_is_no_time(wrong: Any) -> None:
    with pytest.raises(InvalidRequestError, match="start_time must be a datetime such as") as told:
        interval(start=wrong)
    assert repr(wrong) in str(told.value)
    with pytest.raises(InvalidRequestError, match="end_time must be a datetime such as"):
        interval(end=wrong)


def test_a_time_before_1970_is_refused_and_1970_is_not() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert interval(epoch).start_ms == 0
    for early in (epoch - timedelta(milliseconds=1), datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(InvalidRequestError, match="start_time must be 1970-01-01 UTC or later"):
            interval(early)
        with pytest.raises(InvalidRequestError, match="end_time must be 1970-01-01 UTC or later"):
            interval(end=early)


def test_a_count_that_no_database_can_hold_is_refused() -> None:
    assert interval(count=1_000_000_000).limit == 1_000_000_000
    with pytest.raises(InvalidRequestError, match="count must be at most 1,000,000,000, was"):
        interval(count=1_000_000_001)


def test_any_age_will_do_when_it_may_be_infinite() -> None:
    check_max_age(float("inf"))
    check_max_age(0)


def test_a_sentence_stays_one_line_and_short_whatever_was_given() -> None:
    for wrong in ("x" * 10_000, ["a\nb"] * 100, 10**5_000, "two\nlines"):
        with pytest.raises(InvalidRequestError) as told:
            check_max_age(wrong)  # type: ignore[arg-type]
        assert len(str(told.value).splitlines()) == 1
        assert len(str(told.value)) < 200
