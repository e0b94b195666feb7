"""The calls that programs make, on neighbours of a few lines."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.api.house import NOON, House, M, at, opened
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.routing.fake_exchange import make_book
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, market, series_of
from upbit_backbone.api.load_manager import LoadReading
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import (
    ClosedError,
    DataUnavailableError,
    DeadlineError,
    InvalidRequestError,
    StaleDataError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Ticker, Timeframe, Trade
from upbit_backbone.protocol import BackboneRequest, BackboneResponse, DataType, Priority, Reach


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


def minutes(series: Any) -> list[int]:
    return [(at - NOON) // M for at in series.time.tolist()]


def ticker(price: float = 1.0) -> Ticker:
    now = datetime(2025, 9, 15, 12, tzinfo=UTC)
    return Ticker(
        symbol=SYMBOL,
        price=price,
        open=1.0,
        high=1.0,
        low=1.0,
        prev_close=1.0,
        change="EVEN",
        change_price=0.0,
        change_rate=0.0,
        trade_volume=1.0,
        trade_time=now,
        volume_today=1.0,
        value_today=1.0,
        volume_24h=1.0,
        value_24h=1.0,
        high_52w=1.0,
        high_52w_date=None,
        low_52w=1.0,
        low_52w_date=None,
        side=None,
        state=None,
        delisting_date=None,
        exchange_time=now,
        received_time=now,
        source="rest",
        simulated=False,
    )


async def cut_off(_: BackboneRequest) -> None:
    raise TransportError("cut off")


async def never(_: BackboneRequest) -> None:
    await asyncio.Event().wait()


@pytest.mark.both_loops
async def test_candles_without_start_and_count_are_the_latest_200(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-300, 1))
        series = await house.api.get_candle_data(SYMBOL, "1m")
        assert minutes(series) == list(range(-199, 1))
        assert series.closed.tolist() == [True] * 199 + [False]
        assert minutes(await house.api.get_candle_data(SYMBOL, "1m", at(-3))) == [-3, -2, -1, 0]
        assert minutes(await house.api.get_candle_data(SYMBOL, "1m", at(-3), at(-1))) == [-3, -2]
        first = await house.api.get_candle_data(SYMBOL, Timeframe.M1, at(-9.5), count=2)
        assert minutes(first) == [-9, -8]


async def test_a_wrong_call_asks_nobody(noon: ManualClock) -> None:
    async with opened(noon) as house:
        api = house.api
        wrong: list[Any] = [
            api.get_candle_data(SYMBOL, "2m"),
            api.get_candle_data(SYMBOL, "1m", at(-1), at(-2)),
            api.get_candle_data(SYMBOL, "1m", at(5)),
            api.get_candle_data(SYMBOL, "1m", count=0),
            api.get_candle_data(SYMBOL, "1m", at(-3), at(-1), count=5),
            api.get_candle_data(SYMBOL, "1m", fill="next"),  # type: ignore[call-overload]
            api.get_candle_data([SYMBOL], "1m"),  # type: ignore[call-overload]
            api.get_ticker_data(["KRW-BTC"]),  # type: ignore[call-overload]
            api.get_orderbook_data(SYMBOL, depth=31),
            api.get_orderbook_data(SYMBOL, depth=0),
            api.get_trade_data(SYMBOL, count=-1),
        ]
        for call in wrong:
            with pytest.raises(InvalidRequestError):
                await call
        for call in (api.get_candle_data("BTC-KRW", "1m"), api.get_ticker_data("krw-btc")):
            with pytest.raises(UnknownSymbolError) as caught:
                await call
            assert caught.value.suggestions[0] == SYMBOL
        with pytest.raises(UnknownSymbolError):
            api.stream_ticker("BTC")
        with pytest.raises(InvalidRequestError, match="policy must be"):
            api.stream_ticker(SYMBOL, policy="some")  # type: ignore[arg-type]
        assert house.exchange.requests == house.router.requests == []


async def test_a_symbol_listed_since_is_found(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exchange.listed += (market("KRW-NEW"),)
        house.router.held[DataType.TICKER, "KRW-NEW"] = ticker()
        assert await house.api.get_ticker_data("KRW-NEW") == ticker()


async def test_closed_only_leaves_out_what_forms_or_closed_within_the_grace(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        house.exists(*range(-300, 5))

        async def newest(start: float | None = None, count: int | None = None) -> int:
            series = await house.api.get_candle_data(
                SYMBOL,
                "1m",
                None if start is None else at(start),
                count=count,
                closed_only=True,
            )
            assert series.closed.all()
            return minutes(series)[-1]

        for start, count in ((None, None), (-5, None), (-5, 20), (None, 7)):
            assert await newest(start, count) == -1
        noon.set_wall(NOON + M + 900)
        assert await newest() == -1
        noon.set_wall(NOON + M + 1_000)
        assert await newest() == 0


async def test_fill_makes_known_empty_periods_flat(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(-400, -10, -7, -6, -3)
        series, metadata = await house.api.get_candle_data(
            SYMBOL, "1m", at(-12), fill="previous", with_metadata=True
        )
        # The forming minute is not over, so nobody knows that it is empty.
        assert minutes(series) == list(range(-10, 0))
        assert series.filled.tolist() == [n not in (-10, -7, -6, -3) for n in range(-10, 0)]
        assert metadata.data_count == 10
        plain = await house.api.get_candle_data(SYMBOL, "1m", at(-12))
        assert minutes(plain) == [-10, -7, -6, -3]


async def test_fill_waits_until_a_period_is_certainly_over(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(-400, -3)
        for second, last in ((0, -2), (4, -2), (5, -1), (59, -1), (64, -1), (65, 0)):
            noon.set_wall(NOON + second * SECOND_MS)
            series = await house.api.get_candle_data(SYMBOL, "1m", at(-3), fill="previous")
            assert minutes(series)[-1] == last


async def test_fill_never_leaps_over_what_is_unknown(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-1_000, 1, 3))
        house.store.known.add(NOON - 900 * M, NOON - 300 * M)
        house.store.known.add(NOON - 200 * M, NOON)
        house.exchange.before_answer = cut_off
        series, metadata = await house.api.get_candle_data(
            SYMBOL, "1m", at(-500), at(0), fill="previous", with_metadata=True
        )
        (span,) = metadata.missing
        assert (span.start, span.end) == (at(-300), at(-200))
        # Every third minute has a candle: the first after the unknown ones is that of -199.
        assert minutes(series) == [*range(-499, -300), *range(-199, 0)]
        with pytest.raises(TransportError) as caught:
            await house.api.get_candle_data(SYMBOL, "1m", at(-500), at(0), fill="previous")
        assert caught.value.partial == series


async def test_while_nothing_can_be_had_the_newest_stored_candles_are_the_partial_answer(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        house.exists(*range(-1_000, 1))
        await house.api.get_candle_data(SYMBOL, "1m", at(-500), at(-300))
        house.exchange.before_answer = cut_off
        series, metadata = await house.api.get_candle_data(
            SYMBOL, "1m", count=100, with_metadata=True
        )
        assert minutes(series) == list(range(-400, -300))
        (span,) = metadata.missing
        assert (span.start, span.end, span.reason) == (at(-300), at(1), "cut off")
        with pytest.raises(TransportError, match="cut off") as caught:
            await house.api.get_candle_data(SYMBOL, "1m", count=100)
        assert caught.value.partial == series
        assert caught.value.missing == (span,)
        with pytest.raises(TransportError):
            await house.api.get_indicator(SYMBOL, "SMA", count=5)


async def test_what_is_stored_is_had_without_asking_the_exchange(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-1_000, 1))
        assert minutes((await house.api.get_stored_candles(SYMBOL, "1m"))[0]) == []
        await house.api.get_candle_data(SYMBOL, "1m", at(-500), at(-300))
        asked = len(house.exchange.requests)
        series, metadata = await house.api.get_stored_candles(SYMBOL, "1m", count=150)
        assert minutes(series) == list(range(-450, -300))
        assert [(span.start, span.end) for span in metadata.missing] == [(at(-300), at(1))]
        assert len(house.exchange.requests) == asked
        for wrong in ({"symbol": "btc"}, {"timeframe": "2h"}, {"count": 0}):
            arguments = {"symbol": SYMBOL, "timeframe": "1m", "count": 5} | wrong
            with pytest.raises(InvalidRequestError):
                await house.api.get_stored_candles(**arguments)  # type: ignore[arg-type]


async def test_a_failed_page_raises_its_cause_with_what_exists(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-1_000, 1))
        await house.api.get_candle_data(SYMBOL, "1m", at(-50), at(0))
        house.exchange.before_answer = cut_off
        with pytest.raises(TransportError, match="cut off") as caught:
            await house.api.get_candle_data(SYMBOL, "1m", at(-60), at(0))
        assert minutes(caught.value.partial) == list(range(-50, 0))
        (span,) = caught.value.missing
        assert (span.start, span.end) == (at(-60), at(-50))
        series, metadata = await house.api.get_candle_data(
            SYMBOL, "1m", at(-60), at(0), with_metadata=True
        )
        assert minutes(series) == list(range(-50, 0))
        assert metadata.missing == (span,)
        assert metadata.reason == "cut off"
        with pytest.raises(TransportError):
            await house.api.get_candle_data(SYMBOL, "1m", at(-90), at(-80), with_metadata=True)


async def test_two_callers_of_one_failed_request_get_their_own_error(noon: ManualClock) -> None:
    shared = TransportError("cut off")

    async def fail(_: BackboneRequest) -> None:
        raise shared

    async with opened(noon) as house:
        house.exists(*range(-1_000, 1))
        await house.api.get_candle_data(SYMBOL, "1m", at(-50), at(0))
        house.exchange.before_answer = fail
        errors = await asyncio.gather(
            house.api.get_candle_data(SYMBOL, "1m", at(-60), at(0)),
            house.api.get_candle_data(SYMBOL, "1m", at(-60), at(-20)),
            return_exceptions=True,
        )
        one, other = errors
        assert isinstance(one, TransportError)
        assert isinstance(other, TransportError)
        assert minutes(one.partial) == list(range(-50, 0))
        assert minutes(other.partial) == list(range(-50, -20))
        assert one.__cause__ is shared


async def test_a_history_that_ends_early_is_told_and_not_raised(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-5, 1))
        series, metadata = await house.api.get_candle_data(SYMBOL, "1m", with_metadata=True)
        assert minutes(series) == [-5, -4, -3, -2, -1, 0]
        assert metadata.reason == "unconfirmed"
        assert metadata.missing[0].end == at(-5)
        assert len(await house.api.get_candle_data(SYMBOL, "1m")) == 6


async def test_whoever_waits_too_long_is_told_so(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exchange.before_answer = never
        with pytest.raises(DeadlineError, match=r"no candle of KRW-BTC within 0\.01 s") as caught:
            await house.api.get_candle_data(SYMBOL, "1m", timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert house.monitor.calls.errors == 1


async def test_every_priority_has_its_deadline_and_low_none(
    noon: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []
    real = asyncio.timeout

    def noted(delay: float | None) -> Any:
        limits.append(None if delay is None else round(delay, 2))
        return real(delay)

    monkeypatch.setattr("asyncio.timeout", noted)
    async with opened(noon) as house:
        house.exists(0, -1)
        for priority in Priority:
            limits.clear()
            await house.api.get_candle_data(SYMBOL, "1m", at(-1), priority=priority)
            limit_s = (2.0, 5.0, 10.0, None)[priority]
            assert limits[0] == limit_s
            # The layers below end a little earlier, with what they have.
            below_s = None if limit_s is None else limit_s - 0.05
            assert below_s in limits[1:]
            assert set(limits[1:]) <= {below_s, None}


async def test_an_answer_from_memory_starts_no_task_and_no_timer(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        held = series_of(Timeframe.M1, [NOON - M, NOON], noon.now_ms())
        house.exchange.held[DataType.CANDLE, SYMBOL] = held
        loop = asyncio.get_running_loop()
        made: list[str] = []
        real = {name: getattr(loop, name) for name in ("create_future", "create_task", "call_at")}
        for name in real:

            def noted(*arguments: Any, name: str = name, **named: Any) -> Any:
                made.append(name)
                return real[name](*arguments, **named)

            setattr(loop, name, noted)
        try:
            assert await house.api.get_ticker_data(SYMBOL, Priority.CRITICAL) == ticker()
            assert await house.api.get_candle_data(SYMBOL, "1m", count=2) == held
            pair = await house.api.get_candle_data(SYMBOL, "1m", count=2, with_metadata=True)
        finally:
            for name in real:
                delattr(loop, name)
        assert made == []
        assert house.router.requests == house.exchange.requests == []
        assert pair[0] == held
        assert (pair[1].source_layer, pair[1].cache_hit) == ("layer_2", True)
        assert (pair[1].source, pair[1].data_count) == ("cache", 2)
        house.monitor.calls.drain(noon.monotonic())
        assert house.monitor.calls.hits == 3


MEMORY_HOLDS: dict[str, Callable[[MarketDataAPI], Awaitable[Any]]] = {
    "a ticker with its metadata": lambda api: api.get_ticker_data(SYMBOL, with_metadata=True),
    "some rows of a book": lambda api: api.get_orderbook_data(SYMBOL, depth=3),
    "a book with its metadata": lambda api: api.get_orderbook_data(SYMBOL, with_metadata=True),
    "candles with flat ones between": lambda api: api.get_candle_data(
        SYMBOL, "1m", at(-3), fill="previous"
    ),
    "what is stored": lambda api: api.get_stored_candles(SYMBOL, "1m"),
}


@pytest.mark.parametrize("what", MEMORY_HOLDS)
async def test_what_is_there_already_is_given_whatever_the_load(
    what: str, noon: ManualClock
) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        house.router.held[DataType.ORDERBOOK, SYMBOL] = make_book(SYMBOL)
        rows = [NOON - 3 * M, NOON - M]
        house.exchange.held[DataType.CANDLE, SYMBOL] = series_of(Timeframe.M1, rows, noon.now_ms())
        house.router.age_s = house.exchange.age_s = 0.0
        house.monitor.load.observe(LoadReading(processor_share=0.95), noon.monotonic())
        answer = await MEMORY_HOLDS[what](house.api)
        assert house.router.requests == house.exchange.requests == []
        if "rows" in what:
            assert (len(answer.asks), len(answer.bids)) == (3, 3)
            assert answer.total_ask_size == 30, "of the whole book"
        elif "between" in what:
            assert minutes(answer) == [-3, -2, -1]
            assert answer.filled.tolist() == [False, True, False]
        elif "metadata" in what:
            assert answer[1].path == "peek"
        with pytest.raises(DeadlineError):  # nothing holds trades: that call waits for the load
            await house.api.get_trade_data(SYMBOL, count=3, timeout=0.01)
        assert house.exchange.requests == []


async def test_a_screener_of_all_markets_at_once_waits_for_no_slot(noon: ManualClock) -> None:
    async with opened(noon, max_concurrent_requests=2) as house:
        gate = asyncio.Event()

        async def hold(_: BackboneRequest) -> None:
            await gate.wait()

        house.exchange.before_answer = hold
        house.exchange.held[DataType.TICKER, SYMBOL] = ticker()
        house.router.peek = lambda *_: None  # type: ignore[method-assign]
        calls = [
            asyncio.create_task(house.api.get_ticker_data(SYMBOL, Priority.HIGH)) for _ in range(9)
        ]
        await eventually(lambda: len(house.exchange.requests) == 9)
        assert house.api.oldest_wait_s(noon.monotonic()) == {}
        gate.set()
        await asyncio.gather(*calls)


async def test_critical_tickers_skip_the_coordinator_and_others_do_not(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.peek = lambda *_: None  # type: ignore[method-assign]
        house.router.held[DataType.TICKER, SYMBOL] = ticker(1.0)
        house.exchange.held[DataType.TICKER, SYMBOL] = ticker(2.0)
        prices = {}
        for priority in Priority:
            value, metadata = await house.api.get_ticker_data(SYMBOL, priority, with_metadata=True)
            prices[priority] = (value.price, metadata.path)
            assert metadata.priority_used is priority
        direct = "direct: api → router"
        through = "direct: api → coordinator → storage → router"
        assert prices == {
            Priority.CRITICAL: (1.0, direct),
            Priority.HIGH: (2.0, through),
            Priority.NORMAL: (2.0, "bus: api → coordinator → storage → router"),
            Priority.LOW: (2.0, "bus: api → coordinator → storage → router"),
        }
        house.exists(0, -1)
        _, metadata = await house.api.get_candle_data(
            SYMBOL, "1m", at(-1), priority=Priority.CRITICAL, with_metadata=True
        )
        assert metadata.path == "direct: api → coordinator → storage → router"


async def test_the_metadata_of_a_ticker_tells_its_age(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        house.router.age_s = 1.25
        _, metadata = await house.api.get_ticker_data(SYMBOL, Priority.CRITICAL, with_metadata=True)
        assert metadata.age_s == 1.25


async def test_recent_trades_of_a_trading_bot_come_straight_from_the_router(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        for priority, count, start, direct in (
            (Priority.CRITICAL, 3, None, True),
            (Priority.CRITICAL, None, None, True),
            (Priority.CRITICAL, 501, None, False),
            (Priority.CRITICAL, None, at(-1), False),
            (Priority.HIGH, 3, None, False),
        ):
            house.router.requests.clear()
            house.exchange.requests.clear()
            trades = await house.api.get_trade_data(SYMBOL, start, None, priority, count=count)
            assert trades == []
            assert bool(house.router.requests) is direct
            assert bool(house.exchange.requests) is not direct


async def test_trades_come_ascending_also_from_the_router(noon: ManualClock) -> None:
    newest_first = tuple(
        Trade(SYMBOL, 1.0, 1.0, "BUY", number, False, at(-number), at(-number), "rest", False)
        for number in range(3)
    )
    async with opened(noon) as house:

        async def fetch(request: BackboneRequest) -> Any:
            response = await FakeExchangeSource.fetch(house.router, request)
            return msgspec.structs.replace(response, data=newest_first)

        house.router.fetch = fetch  # type: ignore[method-assign]
        trades = await house.api.get_trade_data(SYMBOL, priority=Priority.CRITICAL, count=3)
        assert [trade.sequential_id for trade in trades] == [2, 1, 0]


async def test_trades_that_lack_a_page_raise_its_cause_with_what_exists(noon: ManualClock) -> None:
    found = Trade(SYMBOL, 1.0, 1.0, "BUY", 1, False, at(-5), at(-5), "rest", False)
    async with opened(noon) as house:

        async def fetch(request: BackboneRequest) -> Any:
            if request.days_ago:
                raise TransportError("cut off")
            response = await FakeExchangeSource.fetch(house.exchange, request)
            return msgspec.structs.replace(response, data=() if request.cursor else (found,))

        house.exchange.fetch = fetch  # type: ignore[method-assign]
        start = at(-20 * 60)
        with pytest.raises(TransportError) as caught:
            await house.api.get_trade_data(SYMBOL, start)
        assert caught.value.partial == [found]
        assert caught.value.missing[0].start == start
        trades, metadata = await house.api.get_trade_data(SYMBOL, start, with_metadata=True)
        assert trades == [found]
        assert metadata.missing == caught.value.missing


async def test_only_older_data_than_asked_for_is_refused(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exchange.held[DataType.TICKER, SYMBOL] = ticker()
        house.exchange.age_s = 3.0
        with pytest.raises(StaleDataError, match=r"3\.0 s old, expected at most 1 s"):
            await house.api.get_ticker_data(SYMBOL, max_age=1)
        assert await house.api.get_ticker_data(SYMBOL, max_age=3) == ticker()
        assert house.exchange.requests[-1].max_age == 3


async def test_a_grouping_that_the_exchange_does_not_offer_is_told(noon: ManualClock) -> None:
    async with opened(noon) as house:
        with pytest.raises(DataUnavailableError, match="KRW-BTC has no orderbook"):
            await house.api.get_orderbook_data(SYMBOL, level=7)


async def test_backfills_in_any_number_do_not_keep_others_waiting(noon: ManualClock) -> None:
    async with opened(noon, max_concurrent_requests=1) as house:
        house.exists(*range(-10, 1))

        async def hold_low(request: BackboneRequest) -> None:
            if request.priority is Priority.LOW:
                await asyncio.Event().wait()

        house.exchange.before_answer = hold_low
        backfills = [
            asyncio.create_task(house.api.get_candle_data(SYMBOL, "1m", priority=Priority.LOW))
            for _ in range(3)
        ]
        await eventually(lambda: house.exchange.requests)
        for priority in (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL):
            series = await house.api.get_candle_data(
                SYMBOL, "1m", at(-1 - priority), priority=priority, timeout=2
            )
            assert len(series) == 2 + priority
        for task in backfills:
            task.cancel()
        await asyncio.wait(backfills)


async def test_calls_above_the_limit_wait_their_turn(noon: ManualClock) -> None:
    async with opened(noon, max_concurrent_requests=2) as house:
        house.exists(*range(-10, 1))
        gate = asyncio.Event()

        async def hold(_: BackboneRequest) -> None:
            await gate.wait()

        house.exchange.before_answer = hold
        calls = [
            asyncio.create_task(house.api.get_candle_data(SYMBOL, "1m", at(-n))) for n in range(6)
        ]
        await eventually(lambda: len(house.exchange.requests) == 2)
        gate.set()
        assert [len(series) for series in await asyncio.gather(*calls)] == [1, 2, 3, 4, 5, 6]
        assert house.exchange.most_at_once == 2


async def test_a_stream_ends_with_its_last_reference(noon: ManualClock) -> None:
    async with opened(noon) as house:
        stream = house.api.stream_candles(SYMBOL, "1m", policy="all")
        inner = house.exchange.subscriptions[-1]
        assert inner.request.timeframe is Timeframe.M1
        assert inner.request.policy == "all"
        inner.values.put_nowait("a candle")
        async for value in stream:
            assert value == "a candle"
            break
        gone = weakref.ref(stream)
        del stream
        gc.collect()
        assert gone() is None
        assert inner.state == "closed"


async def test_a_stream_that_nobody_kept_is_closed_after_the_loop(noon: ManualClock) -> None:
    async with opened(noon) as house:

        async def first() -> Any:
            async for value in house.api.stream_ticker(SYMBOL):
                return value
            return None

        reading = asyncio.create_task(first())
        await eventually(lambda: house.exchange.subscriptions)
        inner = house.exchange.subscriptions[-1]
        inner.values.put_nowait("a ticker")
        assert await reading == "a ticker"
        del reading
        gc.collect()
        assert inner.state == "closed"


async def test_a_stream_can_be_closed_by_hand_and_tells_its_state(noon: ManualClock) -> None:
    async with opened(noon) as house:
        async with house.api.stream_trades(SYMBOL) as stream:
            inner = house.exchange.subscriptions[-1]
            assert (stream.state, stream.reason) == (inner.state, inner.reason)
        assert stream.state == "closed"
        stream.close()
        assert [value async for value in stream] == []


async def test_a_closed_service_says_so_also_for_what_it_still_holds(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        house.exchange.held[DataType.CANDLE, SYMBOL] = series_of(Timeframe.M1, [NOON], NOON)
        assert house.api.status().health == "healthy"
        await house.api.stop()
        assert house.api.status().health == "down"
        for call in (
            house.api.get_ticker_data(SYMBOL),
            house.api.get_candle_data(SYMBOL, "1m", count=1),
            house.api.get_trade_data(SYMBOL),
            house.api.get_orderbook_data(SYMBOL),
            house.api.get_markets(),
        ):
            with pytest.raises(ClosedError):
                await call
        with pytest.raises(ClosedError):
            house.api.stream_ticker(SYMBOL)


async def test_closing_ends_what_create_opened_and_once_more_what_was_cut_short(
    noon: ManualClock,
) -> None:
    house = House(noon)
    ended: list[str] = []
    may_end = asyncio.Event()

    async def shut_down() -> None:
        await may_end.wait()
        ended.append("service")

    house.api._on_close = shut_down
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(house.api.close(), 0)
    may_end.set()
    async with house.api:
        pass
    assert ended == ["service"]


async def test_offline_from_the_start_any_likely_symbol_is_tried(noon: ManualClock) -> None:
    house = House(noon)
    await house.api.start()
    house.exchange.before_answer = cut_off
    with pytest.raises(TransportError):
        await house.api.get_markets()
    with pytest.raises(TransportError, match="cut off"):
        await house.api.get_candle_data("KRW-WHO", "1m", at(-1))
    with pytest.raises(UnknownSymbolError):
        await house.api.get_candle_data("krw-who", "1m", at(-1))


async def test_answers_and_errors_are_counted(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-10, 1))
        await house.api.get_candle_data(SYMBOL, "1m", at(-5), at(-1))
        await house.api.get_candle_data(SYMBOL, "1m", at(-5), at(-1))
        house.exchange.before_answer = cut_off
        with pytest.raises(TransportError):
            await house.api.get_candle_data(SYMBOL, "1m", at(-9), at(-8))
        figures = house.api.get_performance_metrics()
        assert (figures.requests, figures.errors, figures.cache_hits) == (3, 1, 1)
        assert figures.totals["errors.TransportError"] == 1
        ((kind, failing),) = (
            ((call.priority, call.data_type, call.path), call.error_rate)
            for call in figures.windows["10s"].calls
            if call.error_rate
        )
        expected = (Priority.NORMAL, DataType.CANDLE, "bus: api → coordinator")
        assert (kind, failing) == (expected, 1.0)
        counters = house.api.status().counters
        assert (counters["requests"], counters["errors"]) == (3.0, 1.0)


@pytest.mark.steered_time
@pytest.mark.parametrize("call", ["candles", "ticker", "trades"])
async def test_a_list_of_markets_that_does_not_come_ends_a_call_in_time(
    noon: ManualClock, call: str
) -> None:
    async with opened(noon) as house:
        api = house.api

        async def hang(_: BackboneRequest) -> None:
            await asyncio.Event().wait()

        house.exchange.before_answer = hang
        ask = {
            "candles": api.get_candle_data("KRW-NEW", "1m", timeout=3.0),
            "ticker": api.get_ticker_data("KRW-NEW", timeout=3.0),
            "trades": api.get_trade_data("KRW-NEW", timeout=3.0),
        }
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(60):
            with pytest.raises(DeadlineError, match="whether KRW-NEW is listed was not known"):
                await ask.pop(call)
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.0)
        assert house.monitor.calls.errors == 1
        for other in ask.values():
            other.close()


async def test_time_that_the_list_of_markets_took_is_not_given_twice(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-300, 1))

        async def take_long(request: BackboneRequest) -> None:
            if request.data_type is DataType.TICKER:  # so this fake spells a list of markets
                house.exchange.listed += (market("KRW-NEW"),)
                noon.advance(9.0)
            else:
                await asyncio.Event().wait()

        house.exchange.before_answer = take_long
        async with asyncio.timeout(5):
            with pytest.raises(DeadlineError):
                await house.api.get_candle_data("KRW-NEW", "1m", timeout=9.1)


@pytest.mark.steered_time
async def test_a_busy_file_at_the_deadline_leaves_what_had_come(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exchange.opens.update(NOON - n * 3 * M for n in range(1_000))
        fetch, stored = house.store.fetch, 0

        async def busy(request: BackboneRequest) -> BackboneResponse:
            nonlocal stored
            stored += request.reach is Reach.STORED
            if stored > 1:
                await asyncio.Event().wait()
            return await fetch(request)

        house.store.fetch = busy  # type: ignore[method-assign]
        with pytest.raises(DeadlineError) as caught:
            await house.api.get_candle_data(
                SYMBOL, "1m", start_time=at(-2_000), count=660, timeout=2.0
            )
        assert caught.value.partial is not None
        assert len(caught.value.partial) > 200
        assert caught.value.missing
