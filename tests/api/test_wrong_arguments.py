"""A call with the wrong kind of argument is told so, in one sentence, whatever it was given."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from random import Random
from string import ascii_uppercase
from time import thread_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.house import NOON, House, at, opened
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL, market
from upbit_backbone import BackboneConfig, BackboneManager
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import BackboneError, InvalidRequestError, TransportError
from upbit_backbone.indicators import candles_needed, compute, create
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import Priority

Call = Callable[..., Any]

CANDLES = ("symbol", "timeframe", "start_time", "end_time", "priority", "count", "fill",
           "closed_only", "timeout", "with_metadata")  # fmt: skip
TICKER = ("symbol", "priority", "max_age", "timeout", "with_metadata")
BOOK = ("symbol", "priority", "depth", "level", "max_age", "timeout", "with_metadata")
TRADES = ("symbol", "start_time", "end_time", "priority", "count", "timeout", "with_metadata")
INDICATOR = ("symbol", "name", "timeframe", "priority", "count", "closed_only", "timeout",
             "parameters")  # fmt: skip
CHUNKS = ("symbol", "timeframe", "start_time", "end_time", "priority", "newest_first", "progress")
CALLS: dict[str, tuple[str, ...]] = {
    "get_candle_data": CANDLES,
    "get_ticker_data": TICKER,
    "get_orderbook_data": BOOK,
    "get_trade_data": TRADES,
    "get_indicator": INDICATOR,
    "iter_candle_chunks": CHUNKS,
    "stream_ticker": ("symbol", "policy"),
    "stream_orderbook": ("symbol", "policy"),
    "stream_trades": ("symbol", "policy"),
    "stream_candles": ("symbol", "timeframe", "policy"),
    "get_system_events": ("since",),
    "get_stored_candles": ("symbol", "timeframe", "count"),
}
NEEDED = {"symbol": SYMBOL, "timeframe": "1m", "name": "RSI"}
BEGUN = {"start_time": at(-30)}
"""What a long load needs besides."""
WITHIN_S = 0.005
"""So soon is a wrong call told."""
TRIES = 5
"""The first of them may fill a cache."""
RNG = Random(1)
MARKETS = [SYMBOL, *{"KRW-" + "".join(RNG.choices(ascii_uppercase, k=4)) for _ in range(465)}]
"""As many as the exchange lists: to look for the closest of them takes its time."""


class Shy:
    """A value that does not want to be looked at."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __len__(self) -> int:
        raise RuntimeError("not to be counted")


class Wordy:
    """A value that has much to say."""

    def __repr__(self) -> str:
        return "much\n" * 1_000


LONG = 1_000_000
ODD = [Shy(), Wordy(), "x" * LONG, "KRW-" + "B" * LONG, "KRW-\nBTC", "\ud800", b"x" * LONG,
       [1] * LONG, 10**5_000, -(10**5_000), np.arange(LONG), object(), (), {}, Exception("told"),
       Decimal("NaN"), complex(1, 1)]  # fmt: skip
"""Wrong for every argument, and a trap for whoever shows, compares, counts or copies it."""
WRONG: dict[str, tuple[list[Any], str]] = {
    "symbol": ([None, 5, [SYMBOL], b"KRW-BTC"], "a symbol is a text such as 'KRW-BTC'"),
    "timeframe": ([None, 60, "2m", ["1m"], timedelta(minutes=1)], "unknown timeframe"),
    "name": ([None, 5, "RIS", ["RSI"], 10**5_000], "unknown indicator"),
    "parameters": ([None, 14], "RSI has no parameter 'parameters': expected period"),
    "start_time": (["2026-11-06", 0, 1.5, date(2025, 9, 1)], "start_time must be a datetime"),
    "end_time": (["2026-11-06", 0, True, date(2025, 9, 1)], "end_time must be a datetime"),
    "priority": (["HIGH", 2, None, 9], "priority must be one of Priority.CRITICAL, "),
    "count": (["5", 0, -1, 1.5, True, 10**30], "count must be "),
    "depth": (["5", 0, 31, 1.5, True, None], "depth must be 1..30"),
    "level": (["a", None, -1, True, float("nan"), float("inf"), 10**400], "level must be a price"),
    "max_age": (["1", -1, True, float("nan"), 10**400], "max_age must be 0 seconds or more"),
    "timeout": (["1", -1, True, float("nan"), float("inf"), 1e9], "timeout must be 0 to 1,000,000"),
    "fill": (["next", True, 0, ["previous"]], "fill must be 'previous' or None"),
    "closed_only": ([None, "yes", 1], "closed_only must be True or False"),
    "with_metadata": ([None, "yes", 1], "with_metadata must be True or False"),
    "since": (["1", -1, 1.5, True, None], "since must be a whole number from 0 on"),
    "newest_first": ([None, "yes", 1], "newest_first must be True or False"),
    "progress": ([5, "print", []], "progress must be a function that is called, or None"),
    "policy": ([None, "some", ["all"]], "policy must be 'latest' or 'all'"),
}


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


async def made(api: MarketDataAPI, call: str, arguments: dict[str, Any]) -> Any:
    """The answer of a call; streams are closed again."""
    answer = getattr(api, call)(**arguments)
    if call.startswith("stream_"):
        answer.close()
        return None
    if call.startswith("iter_"):
        async with answer:
            return [series async for series in answer]
    return await answer if inspect.isawaitable(answer) else answer


def right(call: str) -> dict[str, Any]:
    """What a call needs at least."""
    needed = {name: value for name, value in NEEDED.items() if name in CALLS[call]}
    return needed | (BEGUN if call.startswith("iter_") else {})


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, names in CALLS.items() for name in names]
)
async def test_a_wrong_argument_is_named_with_what_is_expected(
    noon: ManualClock, call: str, name: str
) -> None:
    values, sentence = WRONG[name]
    async with opened(noon) as house:
        for value in values:
            with pytest.raises(InvalidRequestError) as told:
                await made(house.api, call, right(call) | {name: value})
            assert sentence in str(told.value)
            assert len(str(told.value).splitlines()) == 1
        assert house.exchange.requests == house.router.requests == []


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, names in CALLS.items() for name in names]
)
async def test_an_odd_value_is_told_in_one_short_sentence_at_once_and_leaves_no_task(
    noon: ManualClock, call: str, name: str
) -> None:
    async with opened(noon) as house:
        house.exchange.listed = tuple(map(market, MARKETS))
        await house.api.get_markets()
        tasks = asyncio.all_tasks()
        for value in ODD:
            taken_s = []
            for _ in range(TRIES):
                began = thread_time()
                with pytest.raises(InvalidRequestError) as told:
                    await made(house.api, call, right(call) | {name: value})
                taken_s.append(thread_time() - began)
                if taken_s[-1] < WITHIN_S:
                    break
            assert min(taken_s) < WITHIN_S, (type(value), taken_s)
            assert len(str(told.value)) < 300
            assert len(str(told.value).splitlines()) == 1
        assert asyncio.all_tasks() == tasks
        assert house.exchange.requests == house.router.requests == []


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.dates()
    | st.timedeltas()
    | st.decimals()
    | st.complex_numbers()
    | st.sampled_from([*Priority, *Timeframe, at(-3), at(-1), SYMBOL, "1m", "latest", object()])
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
)
CASES = st.sampled_from(list(CALLS)).flatmap(
    lambda call: st.tuples(
        st.just(call), st.dictionaries(st.sampled_from(CALLS[call]), JUNK, min_size=1, max_size=2)
    )
)


@settings(max_examples=300)
@given(CASES)
def test_no_call_fails_with_anything_but_an_error_of_ours(case: tuple[str, dict[str, Any]]) -> None:
    call, junk = case

    async def work() -> None:
        async with opened(ManualClock(NOON + 30 * SECOND_MS)) as house:
            _let_exist(house, junk.get("timeframe", "1m"))
            house.exchange.before_answer = house.router.before_answer = _few_answers()
            tasks = asyncio.all_tasks()
            with suppress(BackboneError):
                await made(house.api, call, right(call) | junk)
            await asyncio.sleep(0)  # who was cancelled needs a turn to end
            assert asyncio.all_tasks() == tasks

    asyncio.run(work())


def _let_exist(house: House, timeframe: Any) -> None:
    """Ten candles of what is asked for, if that is a timeframe."""
    with suppress(InvalidRequestError):
        period = Timeframe.parse(timeframe)
        house.exchange.timeframe = period
        last_ms = period.floor_ms(NOON)
        house.exchange.opens = {period.back_ms(last_ms, number) for number in range(10)}


def _few_answers() -> Callable[[Any], Awaitable[None]]:
    """After some pages the exchange is gone: a range may begin in 1970."""
    asked = count()

    async def answer(_: Any) -> None:
        if next(asked) > 10:
            raise TransportError("cut off")

    return answer


NO_CANDLES = CandleSeries.empty(SYMBOL, Timeframe.M1, source="cache", simulated=True)
OTHERS: dict[str, Callable[[House, Any], Any]] = {
    "MarketDataAPI.create": lambda _, value: MarketDataAPI.create(value),
    "BackboneManager": lambda _, value: BackboneManager(value),
    "BackboneManager.get_layer_status": lambda _, value: BackboneManager(
        BackboneConfig(exchange="simulator")
    ).get_layer_status(value),
    "Timeframe.parse": lambda _, value: Timeframe.parse(value),
    "Stream.set_priority": lambda house, value: house.api.stream_ticker(SYMBOL).set_priority(value),
    "report_frame_time": lambda house, value: house.api.report_frame_time(value),
    "screen_interval_s": lambda house, value: house.api.screen_interval_s(value),
    "publish_data_request": lambda house, value: house.api.event_bus.publish_data_request(value),
    "answer": lambda house, value: house.api.event_bus.answer(value),
    "indicators.compute, name": lambda _, value: compute(value, NO_CANDLES),
    "indicators.compute, series": lambda _, value: compute("RSI", value),
    "indicators.compute, period": lambda _, value: compute("RSI", NO_CANDLES, period=value),
    "indicators.create": lambda _, value: create(value),
    "indicators.candles_needed": lambda _, value: candles_needed("RSI", value),
}


async def other(house: House, name: str, value: Any) -> None:
    answer = OTHERS[name](house, value)
    if inspect.isawaitable(answer):
        await answer


@pytest.mark.parametrize("name", OTHERS)
async def test_an_odd_value_is_told_by_every_other_public_call(
    noon: ManualClock, name: str
) -> None:
    async with opened(noon) as house:
        for value in ODD:
            # Whole numbers of any size count candles.
            if name == "indicators.candles_needed" and type(value) is int and value > 0:
                continue
            with pytest.raises(InvalidRequestError) as told:
                await other(house, name, value)
            assert len(str(told.value)) < 300
            assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("config", [None, "simulator", {"exchange": "simulator"}, Path("x")])
async def test_settings_of_another_kind_are_refused(config: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"create takes a BackboneConfig, such as"):
        await MarketDataAPI.create(config)


async def test_a_naive_or_aware_datetime_a_timeframe_and_whole_seconds_are_right(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        house.exists(*range(-10, 1))
        series = await house.api.get_candle_data(
            SYMBOL, Timeframe.M1, at(-3), datetime(2031, 1, 1, tzinfo=UTC), Priority.HIGH, timeout=5
        )
        assert len(series) == 4
        naive = at(-3).astimezone().replace(tzinfo=None)
        assert await house.api.get_candle_data(SYMBOL, "1m", naive) == series


def test_the_table_of_wrong_arguments_covers_every_public_call() -> None:
    calls = {
        name: tuple(inspect.signature(member).parameters)[1:]
        for name, member in vars(MarketDataAPI).items()
        if name.startswith(("get_", "stream_", "iter_"))
        and len(inspect.signature(member).parameters) > 1
    }
    assert {name: set(names) for name, names in calls.items()} == {
        name: set(names) for name, names in CALLS.items()
    }
