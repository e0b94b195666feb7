"""Each call is counted as what its caller was told, under the way it took."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.house import NOON, House, at, opened
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.errors import (
    DataUnavailableError,
    DeadlineError,
    StaleDataError,
    TransportError,
)
from upbit_backbone.protocol import BackboneRequest, CallStats, DataType, Priority
from upbit_backbone.telemetry.alerts import promised_p99_ms
from upbit_backbone.telemetry.calls import Kind


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON)


def counted(house: House) -> dict[tuple[Priority, DataType, str], CallStats]:
    calls = house.api.get_performance_metrics().windows["10s"].calls
    return {(call.priority, call.data_type, call.path): call for call in calls}


async def test_an_answer_that_its_caller_is_not_given_is_an_error(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-400, 0))
        await house.api.get_candle_data(SYMBOL, "1m", at(-100), at(-10))
        answers = house.api.get_performance_metrics().windows["10s"].answers

        async def fail(request: BackboneRequest) -> None:
            raise TransportError("no way")

        house.exchange.before_answer = fail
        for _ in range(3):
            with pytest.raises(TransportError) as caught:
                await house.api.get_candle_data(SYMBOL, "1m", at(-200), at(-10))
            assert len(caught.value.partial) == 90
        figures = house.api.get_performance_metrics()
        assert (figures.errors, figures.windows["10s"].errors) == (3, {"TransportError": 3})
        assert figures.windows["10s"].answers == answers, "nobody was given one"
        series, metadata = await house.api.get_candle_data(
            SYMBOL, "1m", at(-200), at(-10), with_metadata=True
        )
        assert (len(series), bool(metadata.missing)) == (90, True)
        assert house.api.get_performance_metrics().errors == 3, "he asked for what there is"


async def test_a_price_that_is_too_old_and_a_book_that_is_none_are_errors(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        house.exchange.held[DataType.TICKER, SYMBOL] = object()
        house.exchange.age_s = 3.0
        with pytest.raises(StaleDataError):
            await house.api.get_ticker_data(SYMBOL, max_age=1)
        with pytest.raises(DataUnavailableError):
            await house.api.get_orderbook_data(SYMBOL, level=10_000)
        figures = house.api.get_performance_metrics()
        assert figures.windows["10s"].errors == {"StaleDataError": 1, "DataUnavailableError": 1}
        assert not any(figures.windows["10s"].answers.values())
        paths = {path for _, _, path in counted(house)}
        assert len(paths) == 1
        assert paths.pop().startswith("bus: api → coordinator → ")


async def test_what_a_caller_gives_up_is_counted_as_cancelled(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-10, 0))
        house.exchange.before_answer = never
        calls = [
            asyncio.create_task(house.api.get_candle_data(SYMBOL, "1m", count=count))
            for count in (3, 4, 5)
        ]
        await eventually(lambda: len(house.exchange.requests) == 3)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        figures = house.api.get_performance_metrics()
        assert (figures.requests, figures.errors) == (3, 0)
        assert figures.windows["10s"].counts["cancelled"] == figures.totals["cancelled"] == 3


async def test_a_call_whose_time_is_over_counts_where_it_was_with_all_that_time(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        house.exists(*range(-10, 0))
        await house.api.get_candle_data(SYMBOL, "1m", at(-5), at(-1))
        house.exchange.before_answer = never
        calls = [
            asyncio.create_task(
                house.api.get_candle_data(
                    SYMBOL, "1m", at(-9), at(-8), priority, timeout=0.1, with_metadata=True
                )
            )
            for priority in (Priority.NORMAL, Priority.CRITICAL)
        ]
        await eventually(lambda: len(house.exchange.requests) == 3)
        noon.advance(0.1)
        for call in calls:
            with pytest.raises(DeadlineError):
                await call
        kinds = counted(house)
        for way in ("bus", "direct"):
            priority = Priority.NORMAL if way == "bus" else Priority.CRITICAL
            late = kinds[priority, DataType.CANDLE, f"{way}: api → coordinator"]
            assert (late.requests, late.error_rate, late.latency.count) == (1, 1.0, 1)
            assert late.latency.max_ms == pytest.approx(100, rel=0.02)


async def test_a_long_load_is_seen_while_it_runs_and_in_the_figures(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-1_000, 0))
        chunks = house.api.iter_candle_chunks(SYMBOL, "1m", at(-999), at(-5))
        assert house.api.status().counters["low_in_work"] == 0, "nobody has asked for any yet"
        stretches = 0
        async for _ in chunks:
            stretches += 1
            if stretches == 1:
                assert house.api.status().counters["low_in_work"] == 1
                chunks.pause()
                counters = house.api.status().counters
                assert (counters["low_in_work"], counters["low_waiting"]) == (0, 1)
                chunks.resume()
        assert house.api.status().counters["low_in_work"] == 0
        figures = house.api.get_performance_metrics()
        assert (figures.requests, figures.errors) == (stretches, 0)
        [call] = figures.windows["10s"].calls
        assert (call.priority, call.data_type, call.requests) == (
            Priority.LOW,
            DataType.CANDLE,
            stretches,
        )
        assert call.path == "in stretches: api → coordinator → storage → router"
        assert not any(figures.windows["10s"].answers.values()), "no word on the hit rate"
        normal = Kind(Priority.NORMAL, DataType.CANDLE, call.path)
        assert promised_p99_ms(normal) is None, "a reader's pause is no slow call"
        house.exchange.before_answer = never
        going = asyncio.create_task(
            anext(house.api.iter_candle_chunks(SYMBOL, "1m", at(-3_000), at(-2_000)))
        )
        await eventually(lambda: house.api.status().counters["low_in_work"] == 1)
        going.cancel()
        await asyncio.wait([going])
        assert house.api.get_performance_metrics().requests == stretches + 1


async def never(_: BackboneRequest) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(390, ""), (900, ", 3 to 5 pages"), (1_500, ", more than 5 pages")],
)
async def test_a_large_load_is_counted_apart_and_its_path_is_told_plainly(
    noon: ManualClock, minutes: int, words: str
) -> None:
    async with opened(noon) as house:
        house.exists(*range(-2_000, 0))
        call = house.api.get_candle_data(SYMBOL, "1m", at(-minutes), at(0), with_metadata=True)
        _, metadata = await call
        assert metadata.path == "bus: api → coordinator → storage → router"
        assert [path for _, _, path in counted(house)] == [metadata.path + words]
