"""A call with the wrong kind of argument is told so, in one sentence, whatever it was given."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.house import NOON, House, at, opened
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import BackboneError, InvalidRequestError, TransportError
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import Priority

Call = Callable[..., Any]

CANDLES = ("symbol", "timeframe", "start_time", "end_time", "priority", "count", "fill",
           "closed_only", "timeout", "with_metadata")  # fmt: skip
TICKER = ("symbol", "priority", "max_age", "timeout", "with_metadata")
BOOK = ("symbol", "priority", "depth", "level", "max_age", "timeout", "with_metadata")
TRADES = ("symbol", "start_time", "end_time", "priority", "count", "timeout", "with_metadata")
INDICATOR = ("symbol", "name", "timeframe", "priority", "count", "closed_only", "timeout",
             "parameters")  # fmt: skip
CALLS: dict[str, tuple[str, ...]] = {
    "get_candle_data": CANDLES,
    "get_ticker_data": TICKER,
    "get_orderbook_data": BOOK,
    "get_trade_data": TRADES,
    "get_indicator": INDICATOR,
    "stream_ticker": ("symbol", "policy"),
    "stream_orderbook": ("symbol", "policy"),
    "stream_trades": ("symbol", "policy"),
    "stream_candles": ("symbol", "timeframe", "policy"),
}
RIGHT = {"symbol": SYMBOL, "timeframe": "1m", "name": "RSI"}
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
    return await answer


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, names in CALLS.items() for name in names]
)
async def test_a_wrong_argument_is_named_with_what_is_expected(
    noon: ManualClock, call: str, name: str
) -> None:
    values, sentence = WRONG[name]
    right = {key: value for key, value in RIGHT.items() if key in CALLS[call]}
    async with opened(noon) as house:
        for value in values:
            with pytest.raises(InvalidRequestError) as told:
                await made(house.api, call, right | {name: value})
            assert sentence in str(told.value)
            assert len(str(told.value).splitlines()) == 1
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
    right = {key: value for key, value in RIGHT.items() if key in CALLS[call]}

    async def work() -> None:
        async with opened(ManualClock(NOON + 30 * SECOND_MS)) as house:
            _let_exist(house, junk.get("timeframe", "1m"))
            house.exchange.before_answer = house.router.before_answer = _few_answers()
            with suppress(BackboneError):
                await made(house.api, call, right | junk)

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
        if name.startswith(("get_", "stream_")) and len(inspect.signature(member).parameters) > 1
    }
    assert {name: set(names) for name, names in calls.items()} == {
        name: set(names) for name, names in CALLS.items()
    }
