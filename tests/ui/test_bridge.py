"""The bridge: frozen values, once a frame, and nothing left when it closes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

import pytest

from tests.eventually import eventually
from tests.ui.fake_api import FakeApi
from tests.ui.samples import (
    BTC,
    M1,
    MARKETS,
    NOON_MS,
    candle,
    gap,
    metadata,
    minutes,
    orderbook,
    series,
    status,
    ticker,
    trade,
)
from ui.bridge import (
    FIRST_CANDLES,
    PAGE_CANDLES,
    BackboneBridge,
    RequestAnswer,
    RequestFailure,
)
from ui.candle_update import CandleUpdate
from upbit_backbone import (
    BackboneError,
    CandleSeries,
    ClosedError,
    DeadlineError,
    Gap,
    MarketDataAPI,
    Priority,
    Span,
    SystemStatus,
    Ticker,
    Timeframe,
    Trade,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.clock import MINUTE_MS, Clock, SystemClock, epoch_ms, utc_datetime

pytestmark = pytest.mark.qt_loop


class Heard:
    """What the signals of a bridge carried."""

    def __init__(self, bridge: BackboneBridge) -> None:
        self.candles: list[CandleUpdate] = []
        self.tickers: list[tuple[Ticker, ...]] = []
        self.trades: list[tuple[Trade | Gap, ...]] = []
        self.orderbooks: list[Any] = []
        self.statuses: list[SystemStatus] = []
        self.markets: list[Any] = []
        self.answers: list[RequestAnswer] = []
        self.failures: list[RequestFailure] = []
        self.complaints: list[str] = []
        bridge.candleReady.connect(self.candles.append)
        bridge.tickerUpdated.connect(self.tickers.append)
        bridge.tradesReceived.connect(self.trades.append)
        bridge.orderbookUpdated.connect(self.orderbooks.append)
        bridge.statusChanged.connect(self.statuses.append)
        bridge.marketsReady.connect(self.markets.append)
        bridge.requestAnswered.connect(self.answers.append)
        bridge.requestFailed.connect(self.failures.append)
        bridge.statusFailed.connect(self.complaints.append)


@asynccontextmanager
async def running(
    api: FakeApi, clock: Clock | None = None, *, frame_ms: int = 5
) -> AsyncIterator[tuple[BackboneBridge, Heard]]:
    bridge = BackboneBridge(frame_ms=frame_ms, clock=clock)
    heard = Heard(bridge)
    bridge.attach(cast(MarketDataAPI, api))
    try:
        yield bridge, heard
    finally:
        await bridge.close()
        bridge.deleteLater()


async def test_a_chart_is_loaded_and_then_follows_the_market() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        request = bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        assert (heard.candles[0].kind, heard.candles[0].request_id) == ("loaded", request)
        assert heard.candles[0].series == minutes(0, 3)
        assert api.asked == [(BTC, None, PAGE_CANDLES)]
        assert heard.answers[0].request_id == request
        api.stream("candles", BTC).push(candle(3, 1_100.0))
        await eventually(lambda: len(heard.candles) > 1)
        update = heard.candles[1]
        assert (update.kind, update.request_id) == ("live", None)
        assert update.series.close.tolist() == [1_100.0]
        assert update.series.closed.tolist() == [False]


async def test_what_was_wanted_before_there_was_a_service_is_done_then() -> None:
    bridge = BackboneBridge(frame_ms=5)
    heard, api = Heard(bridge), FakeApi()
    request = bridge.show_candles(BTC, M1)
    bridge.watch_tickers([BTC])
    bridge.attach(cast(MarketDataAPI, api))
    await eventually(lambda: heard.candles)
    assert heard.candles[0].request_id == request
    api.stream("ticker", BTC).push(ticker(BTC, 5.0))
    await eventually(lambda: heard.tickers)
    await bridge.close()
    bridge.deleteLater()


async def test_a_forming_candle_is_sent_once_a_frame_in_its_last_state() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        stream = api.stream("candles", BTC)
        stream.push(*(candle(3, float(price)) for price in range(200)))
        stream.push(candle(3, 777.0, closed=True), candle(4, 778.0))
        await eventually(lambda: heard.candles[-1].series.close[-1] == 778.0)
        lives = [update for update in heard.candles if update.kind == "live"]
        assert len(lives) <= 3
        assert lives[-1].series.close.tolist()[-2:] == [777.0, 778.0]
        assert lives[-1].series.closed.tolist()[-2:] == [True, False]


async def test_live_candles_come_after_the_load_they_happened_during() -> None:
    api = FakeApi()
    api.gate.clear()
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: api.asked)
        api.stream("candles", BTC).push(candle(3, 1_100.0))
        await asyncio.sleep(0.03)
        assert heard.candles == []
        api.gate.set()
        await eventually(lambda: len(heard.candles) == 2)
        assert [update.kind for update in heard.candles] == ["loaded", "live"]


async def test_tickers_are_conflated_to_the_newest_of_each() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.watch_tickers(["KRW-BTC", "KRW-ETH"])
        await eventually(lambda: api.streams["ticker", "KRW-BTC"])
        api.stream("ticker", "KRW-BTC").push(ticker("KRW-BTC", 0.5))
        await eventually(lambda: api.streams["ticker", "KRW-ETH"])
        await eventually(lambda: heard.tickers)
        heard.tickers.clear()
        for price in range(300):
            for symbol in ("KRW-BTC", "KRW-ETH"):
                api.stream("ticker", symbol).push(ticker(symbol, float(price)))
        await eventually(lambda: heard.tickers and heard.tickers[-1][-1].price == 299.0)
        assert len(heard.tickers) <= 4
        assert all(len({t.symbol for t in batch}) == len(batch) for batch in heard.tickers)


async def test_tickers_no_longer_watched_are_let_go() -> None:
    api = FakeApi()
    async with running(api) as (bridge, _):
        bridge.watch_tickers(["KRW-BTC", "KRW-ETH"])
        await eventually(lambda: api.streams["ticker", "KRW-BTC"])
        bridge.watch_tickers(["KRW-ETH"])
        await eventually(lambda: api.streams["ticker", "KRW-ETH"])
        assert all(stream.closed for stream in api.streams["ticker", "KRW-BTC"])


async def test_every_trade_arrives_and_none_twice() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.watch_detail(BTC)
        await eventually(lambda: api.streams["trades", BTC])
        api.stream("trades", BTC).push(*(trade(number) for number in range(1, 101)))
        await eventually(lambda: sum(map(len, heard.trades)) == 100)
        numbers = [t.sequential_id for batch in heard.trades for t in batch if isinstance(t, Trade)]
        assert sorted(numbers) == list(range(1, 101))


async def test_a_gap_comes_between_the_trades_it_lies_between() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.watch_detail(BTC)
        await eventually(lambda: api.streams["trades", BTC])
        came = (trade(3), gap("open", 0, 1), gap("unfillable", 0, 80), trade(4))
        api.stream("trades", BTC).push(*came)
        await eventually(lambda: sum(map(len, heard.trades)) == 6)
        assert tuple(one for batch in heard.trades for one in batch)[2:] == came


async def test_without_the_recent_trades_the_next_ones_are_followed() -> None:
    api = FakeApi()
    api.trades_error = DeadlineError("no trades within 10 s")
    async with running(api) as (bridge, heard):
        bridge.watch_detail(BTC)
        await eventually(lambda: api.streams["trades", BTC])
        api.stream("trades", BTC).push(trade(7))
        await eventually(lambda: heard.trades)
        assert heard.trades == [(trade(7),)]
        assert heard.failures == []


async def test_of_a_burst_of_order_books_only_the_newest_arrives() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.watch_detail(BTC)
        await eventually(lambda: api.streams["orderbook", BTC])
        api.stream("orderbook", BTC).push(*(orderbook(price) for price in (1.0, 2.0, 3.0)))
        await eventually(lambda: heard.orderbooks)
        assert heard.orderbooks == [(orderbook(3.0),)]


async def test_under_load_a_frame_comes_less_often_and_holds_more() -> None:
    api = FakeApi()
    async with running(api, frame_ms=20) as (bridge, heard):
        bridge.watch_tickers([BTC])
        await eventually(lambda: api.streams["ticker", BTC])

        async def frames_of(first_price: int) -> int:
            """How many frames ten prices take that come 20 ms apart."""
            before = len(heard.tickers)
            for price in range(first_price, first_price + 10):
                api.stream("ticker", BTC).push(ticker(BTC, float(price)))
                await asyncio.sleep(0.02)
            await eventually(lambda: heard.tickers[-1][0].price == first_price + 9)
            return len(heard.tickers) - before

        calm = await frames_of(100)
        api.slower = 4.0
        busy = await frames_of(200)
        assert busy <= calm / 2
        assert busy <= 4
        api.slower = 1.0
        bridge._flush()
        bridge._wake()
        assert bridge._frame.interval() == 20, "nothing of it stays"


async def test_another_symbol_ends_what_the_first_one_had() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        first = api.stream("candles", BTC)
        api.gate.clear()
        bridge.load_older(BTC, M1, NOON_MS, 400)
        await eventually(lambda: len(api.asked) == 2)
        api.answer = lambda symbol, end, count: series([], symbol)
        bridge.show_candles("KRW-ETH", M1)
        api.gate.set()
        await eventually(lambda: any(u.symbol == "KRW-ETH" for u in heard.candles))
        assert first.closed
        assert [u.symbol for u in heard.candles] == [BTC, "KRW-ETH"]


async def test_history_is_asked_for_before_the_oldest_candle() -> None:
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        request = bridge.load_older(BTC, M1, NOON_MS, 400)
        await eventually(lambda: heard.candles[-1].request_id == request)
        symbol, end, count = api.asked[-1]
        assert (symbol, count) == (BTC, PAGE_CANDLES)
        assert end is not None
        assert end.timestamp() * 1_000 == NOON_MS


def at_minute(minute: int) -> datetime:
    return utc_datetime(NOON_MS + minute * MINUTE_MS)


def before(end: datetime | None, count: int | None) -> CandleSeries:
    """So many minutes before a moment, of a market that was always traded; None: noon."""
    end_minute = 0 if end is None else (epoch_ms(end) - NOON_MS) // MINUTE_MS
    assert count is not None
    return minutes(end_minute - count, count)


class Market(FakeApi):
    """Has candles without an end, and answers as many questions as `answers` says."""

    def __init__(self, answers: float = math.inf) -> None:
        super().__init__()
        self.answers = answers
        self.more = asyncio.Event()
        self.error: BackboneError | None = None
        """What the others fail with, once `more` is set."""

    async def get_candle_data(self, *arguments: Any, **words: Any) -> Any:
        self.answer = lambda symbol, end, count: before(end, count)
        answer = await super().get_candle_data(*arguments, **words)
        if len(self.asked) > self.answers:
            await self.more.wait()
            if self.error is not None:
                raise self.error
        return answer


async def test_the_first_page_is_drawn_at_once_and_moves_while_the_rest_loads() -> None:
    api = Market(answers=1)
    async with running(api) as (bridge, heard):
        request = bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles and len(api.asked) == 2)
        first = heard.candles[0]
        assert (first.request_id, first.more_follows) == (request, True)
        assert first.series == minutes(-PAGE_CANDLES, PAGE_CANDLES)
        assert len(api.asked) == 2
        api.stream("candles", BTC).push(candle(0, 1_100.0))
        await eventually(lambda: len(heard.candles) == 2)
        assert heard.candles[1].kind == "live"
        api.more.set()
        await eventually(lambda: len(heard.candles) == 3)
        rest = heard.candles[2]
        assert (rest.kind, rest.request_id, rest.more_follows) == ("loaded", request, False)
        assert rest.series == minutes(-FIRST_CANDLES, FIRST_CANDLES - PAGE_CANDLES)
        assert [answer.occasion for answer in heard.answers] == ["candles", "history"]


async def test_parts_that_come_within_a_frame_are_drawn_together() -> None:
    api = Market()
    async with running(api, frame_ms=200) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: len(heard.answers) == 2)
        assert [update.series for update in heard.candles] == [
            minutes(-FIRST_CANDLES, FIRST_CANDLES)
        ]
        assert not heard.candles[0].more_follows
        request = bridge.load_older(BTC, M1, NOON_MS, 1_000)
        await eventually(lambda: len(heard.answers) == 4)
        assert [count for _, _, count in api.asked[2:]] == [PAGE_CANDLES, 800]
        assert heard.candles[-1].request_id == request
        assert heard.candles[-1].series == minutes(-1_000, 1_000)


async def test_older_candles_come_with_their_newest_page_first() -> None:
    api = Market(answers=3)
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: len(heard.answers) == 2)
        request = bridge.load_older(BTC, M1, NOON_MS - FIRST_CANDLES * MINUTE_MS, 1_000)
        await eventually(lambda: heard.candles[-1].request_id == request)
        assert heard.candles[-1].series == minutes(-FIRST_CANDLES - PAGE_CANDLES, PAGE_CANDLES)
        assert heard.candles[-1].more_follows
        api.more.set()
        await eventually(lambda: not heard.candles[-1].more_follows)
        assert heard.candles[-1].series == minutes(-FIRST_CANDLES - 1_000, 1_000 - PAGE_CANDLES)


async def test_a_rest_that_fails_leaves_the_first_page_and_says_what_lacks() -> None:
    api = Market(answers=1)
    api.error = TransportError("cut off")
    async with running(api) as (bridge, heard):
        request = bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        api.more.set()
        await eventually(lambda: heard.failures)
        failure = heard.failures[0]
        assert (failure.occasion, failure.request_id) == ("history", request)
        assert failure.error is api.error
        assert failure.reason == "no candles of KRW-BTC 1m before 2025-10-16 08:40 UTC: cut off"
        assert [len(update.series) for update in heard.candles] == [PAGE_CANDLES]


async def test_another_symbol_ends_the_rest_of_the_first_one() -> None:
    api = Market(answers=1)
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles and len(api.asked) == 2)
        api.answers, api.error = 4, TransportError("of a market that nobody looks at")
        bridge.show_candles("KRW-ETH", M1)
        api.more.set()
        await eventually(lambda: len(heard.answers) == 3)
        await asyncio.sleep(0.02)
        bitcoin = [update for update in heard.candles if update.symbol == BTC]
        assert [len(update.series) for update in bitcoin] == [PAGE_CANDLES]
        assert heard.failures == []


async def test_a_market_of_one_page_has_no_rest() -> None:
    api = FakeApi()
    api.answer = lambda symbol, end, count: minutes(0, 150)
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        assert not heard.candles[0].more_follows
        bridge.load_older(BTC, M1, NOON_MS, 1_000)
        await eventually(lambda: len(heard.candles) == 2)
        assert not heard.candles[1].more_follows
        assert [count for _, _, count in api.asked] == [PAGE_CANDLES, PAGE_CANDLES]


class ClockOfNoon(SystemClock):
    """Its wall stands at noon, where the samples begin."""

    def now_ms(self) -> int:
        return NOON_MS


async def test_what_happened_during_a_long_break_is_loaded_from_the_newest_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    api = FakeApi()
    async with running(api, clock=ClockOfNoon()) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        api.status = status("connecting")
        await eventually(lambda: heard.statuses and heard.statuses[-1] is api.status)
        api.answer = lambda symbol, end, count: minutes(600, PAGE_CANDLES)
        api.pieces = (minutes(400, 200), minutes(200, 200), minutes(0, 200))
        api.gate.clear()
        api.status = status("live")
        await eventually(lambda: len(api.asked) == 2)
        api.gate.set()
        await eventually(lambda: api.chunks and api.chunks[0].cancelled)
        assert api.ranges == [(BTC, at_minute(-1), at_minute(600), Priority.NORMAL, True)]
        await eventually(lambda: len(heard.candles) == 2)
        assert heard.candles[1].series == minutes(0, 800)
        assert heard.failures == []
        # It is closed: the next break is another one.
        api.status = status("connecting")
        await eventually(lambda: heard.statuses[-1] is api.status)
        api.status = status("live")
        await eventually(lambda: len(api.ranges) == 2)


async def test_a_break_that_is_not_closed_is_told_and_tried_again_after_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    api = FakeApi()
    async with running(api, clock=ClockOfNoon()) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        for attempt in (1, 2):
            api.status = status("connecting")
            await eventually(lambda: heard.statuses and heard.statuses[-1] is api.status)
            api.answer = lambda symbol, end, count: minutes(600, PAGE_CANDLES)
            api.pieces = (minutes(400, 200), TransportError("cut off"))
            api.status = status("live")
            await eventually(lambda n=attempt: len(heard.failures) == n)  # type: ignore[misc]
            failure = heard.failures[-1]
            assert failure.error is None
            assert failure.reason == (
                "candles of KRW-BTC 1m after 2025-10-16 11:59 UTC are missing: cut off"
            )
        assert len({one[1] for one in api.ranges}) == 1


async def test_a_short_break_needs_no_more_than_the_newest_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    api = FakeApi()
    async with running(api, clock=ClockOfNoon()) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        api.status = status("connecting")
        await eventually(lambda: heard.statuses and heard.statuses[-1] is api.status)
        api.answer = lambda symbol, end, count: minutes(-150, PAGE_CANDLES)
        api.status = status("live")
        await eventually(lambda: len(heard.candles) == 2)
        assert api.ranges == []
        assert [count for _, _, count in api.asked] == [PAGE_CANDLES, PAGE_CANDLES]


async def test_stored_candles_are_joined_to_the_new_ones_when_the_connection_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    api = FakeApi()
    api.status = status("offline")
    spans = (Span(None, at_minute(0), "unknown"), Span(at_minute(300), at_minute(900), "unknown"))
    api.metadata_changes = {"missing": spans, "reason": "not reached"}
    api.answer = lambda symbol, end, count: minutes(100, PAGE_CANDLES)
    async with running(api, clock=ClockOfNoon()) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        assert heard.candles[0].series == minutes(100, PAGE_CANDLES)
        api.metadata_changes = {}
        api.answer = lambda symbol, end, count: minutes(700, PAGE_CANDLES)
        api.pieces = (minutes(300, 400),)
        api.status = status("live")
        await eventually(lambda: len(heard.candles) == 2)
        assert api.ranges == [(BTC, at_minute(300), at_minute(700), Priority.NORMAL, True)]
        assert heard.candles[1].series == minutes(300, 600)


async def test_stored_candles_are_shown_before_the_exchange_answers_and_the_tail_follows() -> None:
    api = FakeApi()
    api.stored = minutes(-500, 450)
    api.gate.clear()
    async with running(api, clock=ClockOfNoon()) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        assert heard.candles[0].series == minutes(-450, FIRST_CANDLES)
        assert (heard.candles[0].kind, heard.answers) == ("loaded", [])
        api.answer = lambda symbol, end, count: minutes(200, PAGE_CANDLES)
        api.pieces = (minutes(0, 200), minutes(-51, 51))
        api.gate.set()
        await eventually(lambda: api.chunks and api.chunks[0].cancelled)
        await eventually(lambda: not bridge._loads)
        assert api.ranges == [(BTC, at_minute(-51), at_minute(200), Priority.NORMAL, True)]
        assert api.asked == [(BTC, None, PAGE_CANDLES)], "what is stored is not asked again"
        merged = CandleSeries.merged([update.series for update in heard.candles])
        assert merged == minutes(-450, 850)
        assert heard.failures == []


@pytest.mark.parametrize(
    "stored",
    [minutes(-20_000, 400), minutes(-49, 49), ClosedError("closed")],
    ids=["too old", "too few", "failed"],
)
async def test_stored_candles_that_are_no_picture_of_the_market_are_not_shown_first(
    stored: CandleSeries | BackboneError,
) -> None:
    api = FakeApi()
    api.stored = stored
    async with running(api, clock=ClockOfNoon()) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        assert heard.candles[0].series == minutes(0, 3)
        assert api.ranges == []


async def test_an_error_is_told_with_its_request_and_the_chart_recovers() -> None:
    api = FakeApi()

    def fail(symbol: str, end: datetime | None, count: int | None) -> CandleSeries:
        raise UnknownSymbolError("KRW-BTX", ("KRW-BTC",))

    api.answer = fail
    async with running(api) as (bridge, heard):
        request = bridge.show_candles("KRW-BTX", M1)
        await eventually(lambda: heard.failures)
        failure = heard.failures[0]
        assert (failure.occasion, failure.request_id) == ("candles", request)
        assert isinstance(failure.error, UnknownSymbolError)
        assert heard.candles == []


async def test_a_part_that_is_missing_is_told_and_the_rest_shown() -> None:
    api = FakeApi()
    api.metadata_changes = {
        "missing": (Span(None, None, "unknown"),),
        "reason": "the exchange is not reached",
    }
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.failures and heard.candles)
        assert heard.failures[0].error is None
        assert heard.failures[0].reason == "the exchange is not reached"
        heard.candles.clear()
        api.answer = lambda symbol, end, count: series([])
        request = bridge.load_older(BTC, M1, NOON_MS, 400)
        await eventually(lambda: heard.failures[-1].request_id == request)
        # An empty part is no candles, and says nothing about where history begins.
        assert heard.candles == []


async def test_where_the_exchange_has_shown_nothing_history_begins() -> None:
    api = FakeApi()
    api.metadata_changes = {"missing": (Span(None, None, "unknown"),), "reason": "unconfirmed"}
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.answers)
        api.answer = lambda symbol, end, count: series([])
        request = bridge.load_older(BTC, M1, NOON_MS, 400)
        await eventually(lambda: heard.candles[-1].request_id == request)
        assert len(heard.candles[-1].series) == 0
        assert heard.failures == []
        assert all(answer.complete for answer in heard.answers)


async def test_a_connection_that_is_back_brings_what_was_missed() -> None:
    api = FakeApi()
    api.status = status("offline")
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: len(api.asked) == 1)
        api.stream("candles", BTC).push(TransportError("cut off"))
        await eventually(lambda: heard.failures)
        api.status = status("live")
        await eventually(lambda: len(api.asked) == 2, timeout=3.0)
        await eventually(lambda: not api.stream("candles", BTC).closed)
        await eventually(lambda: len(heard.statuses) == 2)
        assert [s.connection for s in heard.statuses] == ["offline", "live"]


async def test_offline_with_nothing_stored_there_is_one_failure() -> None:
    api = FakeApi()

    def answer(symbol: str, end: datetime | None, count: int | None) -> CandleSeries:
        raise TransportError("not reached")

    api.answer = answer
    async with running(api) as (bridge, heard):
        request = bridge.show_candles(BTC, Timeframe.W1)
        await eventually(lambda: heard.failures)
        assert [failure.request_id for failure in heard.failures] == [request]
        assert heard.failures[0].occasion == "candles"


async def test_the_list_of_markets_is_asked_for_until_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._MARKETS_RETRY_S", 0.02)
    api = FakeApi()
    api.markets_error = TransportError("not reached")
    async with running(api) as (_, heard):
        await eventually(lambda: heard.failures)
        await asyncio.sleep(0.1)
        assert len(heard.failures) == 1
        api.markets_error = None
        await eventually(lambda: heard.markets)
        assert heard.markets == [MARKETS]


async def test_without_a_stream_the_exchange_is_asked_whether_it_is_there_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    monkeypatch.setattr("ui.bridge._PROBE_EVERY_S", 0.02)
    api = FakeApi()
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: heard.candles)
        await asyncio.sleep(0.05)
        assert api.tickers_asked == 0, "a live connection tells enough"
        api.status = status("connecting")
        await eventually(lambda: api.tickers_asked >= 2)
        assert heard.tickers == []
        assert heard.failures == []
        api.ticker_answer = ticker(BTC, 7.0)
        await eventually(lambda: heard.tickers)
        assert heard.tickers[0] == (ticker(BTC, 7.0),)


async def test_a_load_from_before_the_break_that_fails_late_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    api = FakeApi()
    api.status = status("connecting")
    api.gate.clear()
    first_may_fail = asyncio.Event()

    async def load(*args: object, **kwargs: object) -> object:
        if not api.asked:
            api.asked.append((BTC, None, None))
            await first_may_fail.wait()
            raise DeadlineError("no candles within 10 s")
        return minutes(0, 3), metadata(3)

    monkeypatch.setattr(api, "get_candle_data", load)
    async with running(api) as (bridge, heard):
        bridge.show_candles(BTC, M1)
        await eventually(lambda: api.asked)
        api.status = status("live")
        await eventually(lambda: heard.candles)
        first_may_fail.set()
        await asyncio.sleep(0.05)
        assert heard.failures == []


async def test_closing_leaves_nothing() -> None:
    api = FakeApi()
    bridge = BackboneBridge(frame_ms=5)
    heard = Heard(bridge)
    bridge.attach(cast(MarketDataAPI, api))
    bridge.show_candles(BTC, M1)
    bridge.watch_tickers(["KRW-BTC", "KRW-ETH", "KRW-XRP"])
    bridge.watch_detail(BTC)
    await eventually(lambda: heard.candles and api.streams["ticker", "KRW-XRP"], timeout=4.0)
    api.gate.clear()
    bridge.load_older(BTC, M1, NOON_MS, 400)
    await asyncio.sleep(0.02)
    api.stream("ticker", BTC).push(ticker(BTC, 1.0))
    await bridge.close()
    await bridge.close()
    assert api.open_streams() == []
    heard.tickers.clear()
    bridge.show_candles("KRW-ETH", M1)
    await asyncio.sleep(0.05)
    assert heard.tickers == []
    this_one = asyncio.current_task()
    assert [task for task in asyncio.all_tasks() if task is not this_one] == []
    bridge.deleteLater()


class BrokenApi(FakeApi):
    """Whoever asks how the service is doing gets an exception, while there is one."""

    fault: Exception | None = None
    refused = 0

    def get_system_status(self) -> SystemStatus:
        if self.fault is not None:
            self.refused += 1
            raise self.fault
        return super().get_system_status()


async def test_a_status_that_cannot_be_told_is_asked_for_again_and_complained_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ui.bridge._STATUS_EVERY_S", 0.01)
    api = BrokenApi()
    async with running(api) as (_bridge, heard):
        await eventually(lambda: heard.statuses)
        api.fault = ZeroDivisionError("no call was counted")
        await eventually(lambda: heard.complaints)
        await eventually(lambda: api.refused >= 5)
        assert heard.complaints == ["ZeroDivisionError: no call was counted"]
        api.status = status("connecting")
        api.fault = None
        await eventually(lambda: heard.statuses[-1].connection == "connecting")
        assert heard.complaints == ["ZeroDivisionError: no call was counted", ""]
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "cannot be asked how it is doing" in record.getMessage()
    assert record.exc_info is not None
