from __future__ import annotations

import logging
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.routing.fake_exchange import make_book, make_ticker, make_trade
from upbit_backbone.clock import HOUR_MS, epoch_ms, utc_datetime
from upbit_backbone.models import Orderbook, Ticker
from upbit_backbone.routing.realtime_cache import (
    LONGEST_TTL_S,
    MAX_ENTRIES,
    SHORTEST_TTL_S,
    RealtimeCache,
)
from upbit_backbone.routing.stamps import mended

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
        assert epoch_ms(held.exchange_time) == AUTUMN_2025_MS + max(stamps[: now + 1])


@given(
    ahead_ms=st.lists(st.one_of(st.integers(-60_000, 60_000), st.integers(60_001, 10**13))),
    kind=st.sampled_from([Ticker, Orderbook]),
)
def test_a_stamp_from_the_future_orders_nothing(
    ahead_ms: list[int], kind: type[Ticker | Orderbook]
) -> None:
    """Whatever wild ones come between, the others are ordered as without them."""
    clock = ManualClock()
    cache, without = RealtimeCache(clock), RealtimeCache(clock)
    logging.getLogger("upbit_backbone.routing.stamps").disabled = True
    for now, ahead in enumerate(ahead_ms):
        at_ms = clock.now_ms() + ahead
        value = make_ticker(BTC, now, at_ms) if kind is Ticker else make_book(BTC, now + 1, at_ms)
        news = cache.put(value, now, live=True)
        held = cache.newest(value)
        if ahead > 60_000:
            assert news
            assert held == msgspec.structs.replace(
                value, exchange_time=utc_datetime(clock.now_ms()), **trade_time_of(held)
            )
        else:
            assert news == without.put(value, now, live=True)
    logging.getLogger("upbit_backbone.routing.stamps").disabled = False
    assert cache.stamps.faults == sum(ahead > 60_000 for ahead in ahead_ms)


def trade_time_of(held: Ticker | Orderbook) -> dict[str, datetime]:
    return {"trade_time": held.exchange_time} if isinstance(held, Ticker) else {}


def test_a_fault_of_stamps_is_counted_and_logged_once_for_each_kind_and_symbol(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = RealtimeCache(clock)
    wild_ms = clock.now_ms() + HOUR_MS
    for now in range(3):
        for symbol in (BTC, "KRW-XRP"):
            cache.put(make_ticker(symbol, now, wild_ms), now, live=True)
            cache.put(make_book(symbol, 5, wild_ms), now, live=True)
        trade, trusted = cache.stamps.mended(make_trade(BTC, wild_ms, now))
        assert (trade.exchange_time, trusted) == (utc_datetime(clock.now_ms()), False)
    assert cache.stamps.faults == 15
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
    assert caplog.records[0].message == (
        "a ticker of KRW-BTC was stamped 1:00:00 in the future: replaced, as the next ones will be"
    )


def test_a_trade_time_from_the_future_is_that_of_its_ticker(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    wild = utc_datetime(clock.now_ms() + HOUR_MS)
    ticker = msgspec.structs.replace(make_ticker(BTC, 1.0), trade_time=wild)
    assert cache.put(ticker, 0.0, live=True)
    assert cache.newest(ticker) == make_ticker(BTC, 1.0)
    assert cache.stamps.faults == 0


def test_a_stamp_that_can_be_is_the_exchange_s_own(clock: ManualClock) -> None:
    for ahead_ms in (-HOUR_MS, 0, 60_000):
        trade = make_trade(BTC, clock.now_ms() + ahead_ms, 1)
        assert mended(trade, clock.now_ms()) == (trade, True)


@pytest.mark.parametrize("live", [True, False])
def test_a_duplicate_renews_the_age_and_is_no_news(clock: ManualClock, live: bool) -> None:
    cache = RealtimeCache(clock)
    for value in (make_ticker(BTC, 1.0), make_book(BTC)):
        assert cache.put(value, 10.0, live=live)
        again = msgspec.structs.replace(
            value, received_time=utc_datetime(clock.now_ms() + 5), source="rest"
        )
        assert not cache.put(again, 15.0, live=False)
        assert cache.newest(value) is value
        assert cache.age_s(type(value), BTC, 16.0) == 1.0


def test_a_ticker_by_rest_that_lacks_what_rest_never_tells_is_a_duplicate(
    clock: ManualClock,
) -> None:
    cache = RealtimeCache(clock)
    streamed = msgspec.structs.replace(make_ticker(BTC, 1.0), side="BUY", state="ACTIVE")
    assert cache.put(streamed, 1.0, live=True)
    assert not cache.put(make_ticker(BTC, 1.0), 2.0, live=False)
    assert cache.newest(streamed) is streamed


def test_another_value_of_the_same_stamp_is_news(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    assert cache.put(make_ticker(BTC, 1.0), 1.0, live=True)
    assert cache.put(make_ticker(BTC, 2.0), 2.0, live=True)
    assert cache.put(make_ticker(BTC, 1.0), 3.0, live=True)


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


def test_a_suspected_value_ages_from_its_own_receipt_until_something_comes(
    clock: ManualClock,
) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 10.0, live=True)
    cache.put(make_book(BTC), 10.0, live=True)
    cache.alive(70.0)
    cache.suspect(Ticker, BTC)
    cache.suspect(Ticker, "KRW-XRP")  # nothing is held of it
    assert cache.age_s(Ticker, BTC, 71.0) == 61.0
    assert cache.peek(Ticker, BTC, 60.0, 71.0) is None
    assert cache.age_s(Orderbook, BTC, 71.0) == 1.0
    cache.put(make_ticker(BTC, 1.0), 72.0, live=False)  # REST says that it is still true
    cache.alive(75.0)
    assert cache.age_s(Ticker, BTC, 75.0) == 3.0
    cache.put(make_ticker(BTC, 1.0), 76.0, live=True)
    cache.alive(80.0)
    assert cache.age_s(Ticker, BTC, 80.0) == 0.0


def test_a_suspected_value_that_is_given_up_is_not_made_younger(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 10.0, live=True)
    cache.alive(70.0)
    cache.suspect(Ticker, BTC)
    cache.unwatched(Ticker, BTC)
    assert cache.age_s(Ticker, BTC, 71.0) == 61.0


def test_a_standby_takes_over_with_what_it_confirmed(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    for symbol in (BTC, "KRW-XRP"):
        cache.put(make_ticker(symbol, 1.0), 10.0, live=True)
    cache.alive(20.0)
    # The standby's snapshot of one of them, the same as is held; its pongs are not told.
    assert not cache.put(make_ticker(BTC, 1.0), 22.0, live=False)
    cache.interrupted()
    cache.confirm(Ticker, BTC)
    cache.confirm(Ticker, "KRW-DOGE")  # confirmed without a value yet
    cache.alive(24.0)
    assert cache.age_s(Ticker, BTC, 25.0) == 1.0
    assert cache.age_s(Ticker, "KRW-XRP", 25.0) == 15.0
    assert cache.age_s(Ticker, "KRW-DOGE", 25.0) is None


def test_when_a_value_was_last_asked_for_is_kept_fresh_or_not(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    assert cache.peek(Ticker, BTC, 1.0, 5.0) is None
    assert cache.asked_s(Ticker, BTC) is None
    cache.put(make_ticker(BTC, 1.0), 10.0, live=True)
    assert cache.asked_s(Ticker, BTC) is None
    assert cache.peek(Ticker, BTC, 1.0, 10.5) is not None
    assert cache.asked_s(Ticker, BTC) == 10.5
    assert cache.peek(Ticker, BTC, 1.0, 12.0) is None
    assert cache.asked_s(Ticker, BTC) == 12.0
    cache.put(make_ticker(BTC, 2.0), 13.0, live=True)
    assert cache.asked_s(Ticker, BTC) == 12.0
    assert cache.asked_s(Orderbook, BTC) is None


def test_what_nobody_watches_is_forgotten_after_half_an_hour(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker(BTC, 1.0), 0.0, live=False)
    cache.put(make_ticker("KRW-XRP", 1.0), 0.0, live=True)
    assert cache.peek(Ticker, BTC, float("inf"), LONGEST_TTL_S) is not None
    assert cache.peek(Ticker, BTC, float("inf"), LONGEST_TTL_S + 1) is None
    cache.put(make_ticker("KRW-DOGE", 1.0), LONGEST_TTL_S + 1, live=False)
    assert cache.age_s(Ticker, BTC, LONGEST_TTL_S + 1) is None
    assert cache.age_s(Ticker, "KRW-XRP", LONGEST_TTL_S + 1) is not None
    assert len(cache) == 2


def test_a_full_cache_forgets_sooner(clock: ManualClock) -> None:
    cache = RealtimeCache(clock)
    for number in range(MAX_ENTRIES - 1):
        cache.put(make_ticker(f"KRW-{number}", 1.0), 0.0, live=False)
    cache.put(make_ticker("KRW-LAST", 1.0), SHORTEST_TTL_S - 5, live=False)
    assert len(cache) == MAX_ENTRIES
    cache.put(make_ticker("KRW-ONE", 1.0), SHORTEST_TTL_S + 5, live=False)
    assert len(cache) == 2


def test_a_full_cache_drops_what_was_unused_longest_and_never_what_is_watched(
    clock: ManualClock,
) -> None:
    cache = RealtimeCache(clock)
    cache.put(make_ticker("KRW-WATCHED", 1.0), 0.0, live=True)
    for number in range(MAX_ENTRIES - 1):
        cache.put(make_ticker(f"KRW-{number}", 1.0), 1.0 + number / MAX_ENTRIES, live=False)
    assert cache.peek(Ticker, "KRW-0", 60.0, 3.0) is not None
    values = [make_ticker(f"KRW-NEW{number}", 1.0) for number in range(3)]
    for value in values:
        assert cache.put(value, 4.0, live=False)
        assert cache.newest(value) is value
    assert len(cache) == MAX_ENTRIES
    held = {n for n in range(10) if cache.peek(Ticker, f"KRW-{n}", 60.0, 5.0) is not None}
    assert held == {0, *range(4, 10)}
    assert cache.peek(Ticker, "KRW-WATCHED", 60.0, 5.0) is not None


def test_the_newest_of_what_is_not_held_is_the_value_itself(clock: ManualClock) -> None:
    ticker = make_ticker(BTC, 1.0)
    assert RealtimeCache(clock).newest(ticker) is ticker


def test_a_trimmed_book_keeps_its_totals() -> None:
    book = make_book(BTC, rows=30)
    short = book.trimmed(5)
    assert (short.asks, short.bids) == (book.asks[:5], book.bids[:5])
    assert (short.total_ask_size, short.total_bid_size) == (30, 30)
    assert book.trimmed(30) is book
