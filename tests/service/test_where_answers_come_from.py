"""Metadata and series tell one story of where candles came from, whichever way they took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.service.conftest import ConfigOf
from upbit_backbone import BackboneMetadata, CandleSeries, MarketDataAPI
from upbit_backbone.simulator.server import Simulator

NOON = datetime(2025, 9, 15, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DOWN = "bus: api → coordinator → storage"


def story(answer: tuple[CandleSeries, BackboneMetadata]) -> tuple[Any, ...]:
    series, metadata = answer
    assert series.source == metadata.source
    assert f"from {metadata.source}" in repr(series)
    assert len(series) == metadata.data_count
    return metadata.source, metadata.source_layer, metadata.cache_hit, metadata.path


async def test_fetched_peeked_stored_and_mixed_answers_each_tell_one_story(
    as_recorded: Simulator, config_of: ConfigOf
) -> None:
    config = config_of(as_recorded)
    fetched = ("rest", "layer_1", False, f"{DOWN} → router")
    async with await MarketDataAPI.create(config) as api:

        async def ask(start: datetime, end: datetime | None, **given: Any) -> Any:
            return await api.get_candle_data(
                "KRW-XRP", "1m", start, end, with_metadata=True, **given
            )

        assert story(await ask(NOON - 9 * MINUTE, NOON)) == fetched
        peeked = await ask(NOON - 9 * MINUTE, NOON)
        assert story(peeked) == ("cache", "layer_2", True, "peek")
        assert peeked[1].age_s == 0.0
        memory = await ask(NOON - 9 * MINUTE, None, count=3)
        assert story(memory) == ("cache", "layer_2", True, DOWN)
        assert story(await ask(NOON - 400 * MINUTE, NOON + 9 * MINUTE)) == fetched
    async with await MarketDataAPI.create(config) as api:
        stored = await ask(NOON - 9 * MINUTE, NOON)
        assert story(stored) == ("storage", "layer_2", True, DOWN)
        assert stored[1].age_s == 0.0
        assert story(await ask(NOON - 9 * MINUTE, NOON)) == ("cache", "layer_2", True, "peek")
        # The file has what ends at noon and nine minutes; the rest is asked.
        assert story(await ask(NOON, NOON + 20 * MINUTE)) == fetched


async def test_the_newest_candles_say_how_old_they_are(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        ages = []
        for _ in range(2):
            series, metadata = await api.get_candle_data(
                "KRW-BTC", "1m", count=5, with_metadata=True
            )
            assert not series.closed[-1]
            ages.append((metadata.path == "peek", metadata.age_s))
    (first, asked_s), (second, held_s) = ages
    assert (first, second) == (False, True)
    assert asked_s is not None
    assert held_s is not None
    assert 0 <= asked_s < held_s < 10


async def test_a_part_of_an_answer_says_that_the_rest_was_asked_in_vain(
    as_recorded: Simulator, config_of: ConfigOf
) -> None:
    config = config_of(as_recorded)
    async with await MarketDataAPI.create(config) as api:
        await api.get_candle_data("KRW-XRP", "1m", NOON - 9 * MINUTE, NOON)
        await as_recorded.close()
        part = await api.get_candle_data(
            "KRW-XRP", "1m", NOON - 60 * MINUTE, NOON + 9 * MINUTE, with_metadata=True
        )
    assert story(part) == ("cache", "layer_2", False, f"{DOWN} → router")
    assert part[1].missing
