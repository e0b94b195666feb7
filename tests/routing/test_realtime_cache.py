from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.routing.fake_exchange import make_book, make_ticker
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import Orderbook, Ticker
from upbit_backbone.routing.realtime_cache import RealtimeCache, trimmed

BTC = "KRW-BTC"


@given(stamps=st.lists(st.integers(-60_000, 60_000), min_size=1, max_size=30), live=st.booleans())
def test_a_value_never_gives_way_to_an_older_one(stamps: list[int], live: bool) -> None:
    cache = RealtimeCache(ManualClock())
    for now, stamp in enumerate(stamps):
        newest = max(stamps[:now], default=stamp)
        kept = cache.put(make_ticker(BTC, now, AUTUMN_2025_MS + stamp), now, live=live)
        assert kept == (stamp >= newest)
        held = cache.peek(Ticker, BTC, float("inf"), now)
        assert held is not None
        assert (
            held.exchange_time
            == make_ticker(BTC, 0, AUTUMN_2025_MS + max(stamps[: now + 1])).exchange_time
        )


def test_a_stamp_from_the_future_is_refused_and_marks_nothing(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    ahead = make_ticker(BTC, 1.0, clock.now_ms() + 60_001)
    with pytest.raises(ProtocolError, match="KRW-BTC"):
        cache.put(ahead, 0.0, live=True)
    assert cache.peek(Ticker, BTC, float("inf"), 0.0) is None
    assert cache.put(make_ticker(BTC, 2.0, clock.now_ms() + 60_000), 0.0, live=True)


def test_tickers_and_books_are_kept_apart(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 0.0, live=True)
    assert cache.peek(Orderbook, BTC, 10.0, 0.0) is None
    cache.put(make_book(BTC), 0.0, live=True)
    assert isinstance(cache.peek(Orderbook, BTC, 10.0, 0.0), Orderbook)


def test_a_value_by_rest_ages_from_its_receipt(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 10.0, live=False)
    cache.alive(14.0)
    assert cache.age_s(Ticker, BTC, 15.0) == 5.0
    assert cache.peek(Ticker, BTC, 5.0, 15.0) is not None
    assert cache.peek(Ticker, BTC, 4.9, 15.0) is None
    assert cache.age_s(Ticker, "KRW-XRP", 15.0) is None


def test_a_quiet_value_of_a_living_stream_is_as_old_as_the_last_sign_of_life(
    clock: ManualClock,
) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 10.0, live=True)
    cache.alive(70.0)
    assert cache.age_s(Ticker, BTC, 71.0) == 1.0


def test_an_interrupted_value_ages_from_its_own_receipt(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 10.0, live=True)
    cache.alive(70.0)
    cache.interrupted()
    cache.alive(71.0)
    assert cache.age_s(Ticker, BTC, 71.0) == 61.0


def test_an_unwatched_value_ages_from_the_last_sign_of_life_it_had(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 10.0, live=True)
    cache.alive(70.0)
    cache.unwatched(Ticker, BTC)
    cache.alive(80.0)
    assert cache.age_s(Ticker, BTC, 81.0) == 11.0


def test_a_stream_keeps_a_newer_value_by_rest_fresh(clock: ManualClock) -> None:
    # REST stamps a ticker when it is produced, so the stream's snapshot may look older.
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0, AUTUMN_2025_MS + 5), 10.0, live=False)
    assert not cache.put(make_ticker(BTC, 1.0, AUTUMN_2025_MS), 11.0, live=True)
    cache.alive(70.0)
    assert cache.age_s(Ticker, BTC, 71.0) == 1.0


def test_a_trimmed_book_keeps_its_totals() -> None:
    book = make_book(BTC, rows=30)
    short = trimmed(book, 5)
    assert (short.asks, short.bids) == (book.asks[:5], book.bids[:5])
    assert (short.total_ask_size, short.total_bid_size) == (30, 30)
    assert trimmed(book, 30) is book
