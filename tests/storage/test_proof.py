"""What two readings prove together, and what need not be asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked, market
from tests.storage.opening import opened, spans_in
from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS, utc_datetime
from upbit_backbone.errors import TransportError, UnknownSymbolError
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import BackboneRequest, DataType, Reach
from upbit_backbone.storage.coverage import BEGINNING_MS, CONTRADICTED, FOREVER_MS
from upbit_backbone.storage.listings import CANNOT_BE_ASKED, LISTED_NO_MORE

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * 60 * M


def stored(start_ms: int | None, end_ms: int | None, count: int | None = None) -> BackboneRequest:
    return asked(start_ms=start_ms, end_ms=end_ms, count=count, reach=Reach.STORED)


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


async def test_nothing_below_a_short_page_is_believed_when_a_second_one_agrees_a_minute_later(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - n * M for n in range(1, 21)])
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(start_ms=NOON - 60 * M, end_ms=NOON, count=60))
        first = await storage.fetch(stored(NOON - 60 * M, NOON))
        assert [span.reason for span in first.metadata.missing] == ["unconfirmed"]
        noon.advance(59)
        again = await storage.fetch(asked(start_ms=NOON - 60 * M, end_ms=NOON - 20 * M, count=40))
        assert [span.reason for span in again.metadata.missing] == ["unconfirmed"]
        noon.advance(1)
        again = await storage.fetch(asked(start_ms=NOON - 60 * M, end_ms=NOON - 20 * M, count=40))
        assert again.success
        assert again.metadata.missing == ()
    # What was proved is known after a restart as well, however it is asked.
    async with opened(tmp_path, source, noon) as storage:
        for request in (stored(NOON - 60 * M, NOON), stored(None, NOON, 200)):
            response = await storage.fetch(request)
            assert response.success
            assert len(response.data) == 20
            # It is said why there are no more, and not as something missing.
            (silent,) = response.metadata.silent
            assert (silent.state, silent.end) == ("before_listing", utc_datetime(NOON - 20 * M))
        assert len(source.requests) == 3
    ((start, end, state, _, evidence), *_) = spans_in(tmp_path)
    assert (start, end, state) == (BEGINNING_MS, NOON - 20 * M, "before_listing")
    assert evidence == "a short page of 20, then an empty page"


async def test_candles_where_the_first_reading_showed_none_begin_the_count_anew(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - n * M for n in range(1, 6)])
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON, count=60))
        noon.advance(90)
        source.opens |= {NOON - n * M for n in range(6, 11)}
        await storage.fetch(asked(start_ms=NOON - 60 * M, end_ms=NOON - 5 * M, count=55))
        response = await storage.fetch(stored(NOON - 60 * M, NOON))
        (span,) = response.metadata.missing
        assert span.reason == "unconfirmed"
        noon.advance(60)
        response = await storage.fetch(asked(start_ms=NOON - 60 * M, end_ms=NOON - 10 * M, count=9))
        assert response.success


async def test_pages_that_do_not_show_what_is_stored_prove_no_emptiness(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - n * M for n in (1, 2, 100, 101)])
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON - 99 * M, count=2))
        source.opens -= {NOON - 100 * M, NOON - 101 * M}
        for _ in range(2):
            page = await storage.fetch(asked(start_ms=NOON - 90 * M, end_ms=NOON, count=90))
            assert [span.reason for span in page.metadata.missing] == [CONTRADICTED]
            # What it had room for and did not show is missing as well, stored as it is.
            page = await storage.fetch(asked(start_ms=NOON - 110 * M, end_ms=NOON, count=110))
            assert not page.success
            assert page.metadata.missing[-1].end == utc_datetime(NOON - 2 * M)
            noon.advance(60)
        again = await storage.fetch(stored(NOON - 90 * M, NOON))
        assert [span.reason for span in again.metadata.missing] == [CONTRADICTED]
        assert again.metadata.silent == ()
        # Once the exchange shows all of it again, a page proves what there is.
        source.opens |= {NOON - n * M for n in (50, 100, 101)}
        await storage.fetch(asked(start_ms=NOON - 99 * M, end_ms=NOON - 2 * M, count=97))
        again = await storage.fetch(stored(NOON - 99 * M, NOON))
        assert again.success
        assert len(again.data) == 3
    states = [(start, end, state) for start, end, state, *_ in spans_in(tmp_path)]
    assert states == [
        (BEGINNING_MS, NOON - 101 * M, "unknown"),
        (NOON - 101 * M, NOON, "complete"),
    ]


async def test_seconds_that_are_no_longer_kept_are_not_taken_for_empty(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    old = NOON - 87 * DAY_MS
    source = FakeExchangeSource(clock, [old + n * SECOND_MS for n in range(5)], Timeframe.S1)
    async with opened(tmp_path, source, clock) as storage:
        for _ in range(2):
            await storage.fetch(asked(Timeframe.S1, end_ms=old + 10_000, count=50))
            clock.advance(60)
        assert source.requests
    (*_, below, _) = spans_in(tmp_path)
    # A day after the exchange may have dropped them, and not before, they are said to be none.
    assert below[0] >= NOON - 88 * DAY_MS
    assert below[2] == "empty"


async def gone(request: BackboneRequest) -> None:
    """The exchange lists other markets, and knows no such candles."""
    if request.data_type is DataType.CANDLE:
        raise UnknownSymbolError(SYMBOL)


async def test_a_delisted_market_is_known_from_then_on_and_its_history_is_served(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - n * M for n in range(60)])
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON - 5 * M, count=20))
        source.listed = (market("KRW-XRP"),)
        source.before_answer = gone
        for _ in range(2):
            with pytest.raises(UnknownSymbolError):
                await storage.fetch(asked(end_ms=NOON + M, count=20))
        assert len(source.requests) == 2, "once it is known nobody is asked"
        noon.advance(3_600)
        response = await storage.fetch(stored(NOON + 5 * M, None))
        assert response.success
        assert len(response.data) == 0
    async with opened(tmp_path, source, noon) as storage:
        # The newest there are, up to now, and why there are no newer ones.
        response = await storage.fetch(asked(count=20, reach=Reach.STORED))
        assert response.success
        assert len(response.data) == 20
        told = [(span.start, span.state, span.reason) for span in response.metadata.silent]
        assert told == [
            (utc_datetime(NOON - 5 * M), "after_delisting", CANNOT_BE_ASKED),
            (utc_datetime(NOON + M), "after_delisting", LISTED_NO_MORE),
        ]
        assert (NOON + M, FOREVER_MS) in [span[:2] for span in spans_in(tmp_path)]
        # Listed again, it is asked again.
        source.before_answer = None
        source.listed = (market(SYMBOL),)
        await storage.markets()
        assert not (await storage.fetch(stored(NOON + 5 * M, NOON + 6 * M))).success
        assert not (await storage.fetch(stored(NOON - 5 * M, NOON))).success
        assert len((await storage.fetch(asked(end_ms=NOON, count=10))).data) == 10
    assert "after_delisting" not in [span[2] for span in spans_in(tmp_path)]


async def test_one_wrong_404_does_not_end_a_market_that_is_listed(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - n * M for n in range(60)])
    source.listed = (market(SYMBOL),)
    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON, count=20))
        source.before_answer = gone
        with pytest.raises(UnknownSymbolError):
            await storage.fetch(asked(end_ms=NOON + M, count=20))
        source.before_answer = None
        noon.advance(3_600)
        assert len((await storage.fetch(asked(end_ms=NOON + M, count=20))).data) == 20
    assert "after_delisting" not in [span[2] for span in spans_in(tmp_path)]


async def test_a_404_beside_a_stored_list_of_markets_or_an_empty_one_ends_none(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon, [NOON - n * M for n in range(60)])
    source.listed = (market("KRW-XRP"),)

    async def cut_off(request: BackboneRequest) -> None:
        await gone(request)
        raise TransportError("cut off")

    async with opened(tmp_path, source, noon) as storage:
        await storage.fetch(asked(end_ms=NOON, count=20))
        await storage.markets()
        for broken, listed in ((cut_off, source.listed), (gone, ())):
            source.before_answer, source.listed = broken, listed
            assert (await storage.markets()).is_stored
            with pytest.raises(UnknownSymbolError):
                await storage.fetch(asked(end_ms=NOON + M, count=20))
    assert "after_delisting" not in [span[2] for span in spans_in(tmp_path)]


async def test_a_404_for_what_was_never_stored_says_nothing(
    tmp_path: Path, noon: ManualClock
) -> None:
    source = FakeExchangeSource(noon)
    source.before_answer = gone
    async with opened(tmp_path, source, noon) as storage:
        with pytest.raises(UnknownSymbolError):
            await storage.fetch(asked(end_ms=NOON, count=20))
    assert spans_in(tmp_path) == []
