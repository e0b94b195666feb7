"""What was stored of a market that the exchange lists no more can still be had."""

from __future__ import annotations

import json

import pytest

from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import MarketDataAPI
from upbit_backbone.clock import DAY_MS, HOUR_MS, ShiftedClock, utc_datetime
from upbit_backbone.errors import UnknownSymbolError
from upbit_backbone.protocol import Priority
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.server import Simulator

SYMBOL = "KRW-XRP"
DELISTED_MS = (A_WEDNESDAY_MS // HOUR_MS + 2) * HOUR_MS
NOON_MS = A_WEDNESDAY_MS // HOUR_MS * HOUR_MS
"""The last full hour before."""


class LeapingClock(ShiftedClock):
    """Goes at normal speed, and leaps."""

    def leap(self, ms: int) -> None:
        self._shift_ms += ms


async def test_the_history_of_a_delisted_market_is_answered_and_says_what_became_of_it(
    config_of: ConfigOf,
) -> None:
    at = utc_datetime(DELISTED_MS).isoformat()
    event = {"type": "delisting", "symbol": SYMBOL, "at": at}
    clock = LeapingClock(A_WEDNESDAY_MS)
    script = read_script(json.dumps({"events": [event]}), A_WEDNESDAY_MS)
    async with Simulator(clock=clock, first_symbol=SYMBOL, script=script) as simulator:
        config = config_of(simulator)
        start, end = utc_datetime(NOON_MS - 3 * HOUR_MS), utc_datetime(NOON_MS)
        async with await MarketDataAPI.create(config) as api:
            before = await api.get_candle_data(SYMBOL, "1m", start, end)
            assert len(before) == 180
        clock.leap(DAY_MS)
        async with await MarketDataAPI.create(config) as api:
            assert SYMBOL not in {market.symbol for market in await api.get_markets()}
            # A range that is stored, by the file and then by memory.
            for _ in range(2):
                assert await api.get_candle_data(SYMBOL, "1m", start, end) == before
            # A range that goes on: the rest is asked once, and then known.
            for _ in range(2):
                series, metadata = await api.get_candle_data(
                    SYMBOL, "1m", start, with_metadata=True
                )
                assert series == before
            requests = api.get_performance_metrics().exchange_requests
            assert metadata.missing == ()
            assert {span.state for span in metadata.silent} == {"after_delisting"}
            assert metadata.silent[0].start == end
            assert "lists it no more" in metadata.silent[0].reason
            # The newest there are, filled or not, in pieces or not.
            for fill in (None, "previous"):
                newest = await api.get_candle_data(SYMBOL, "1m", count=60, fill=fill)
                assert newest == before[-60:]
            chunks = [chunk async for chunk in api.iter_candle_chunks(SYMBOL, "1m", start)]
            assert [at for chunk in chunks for at in chunk.time.tolist()] == before.time.tolist()
            # More than there is: what exists, and what is missing.
            series, metadata = await api.get_candle_data(
                SYMBOL, "1m", count=400, priority=Priority.HIGH, with_metadata=True
            )
            assert series == before
            (missing,) = metadata.missing
            assert (missing.start, missing.end) == (None, start)
            assert api.get_performance_metrics().exchange_requests == requests
            # What asks the exchange is refused as before, and so is what was never stored.
            with pytest.raises(UnknownSymbolError):
                await api.get_ticker_data(SYMBOL)
            with pytest.raises(UnknownSymbolError):
                await api.get_candle_data("KRW-NEVER", "1m", start, end)
