"""How old the candles are that memory answers with."""

from __future__ import annotations

from pathlib import Path

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened
from upbit_backbone.clock import MINUTE_MS, SECOND_MS
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import DataType
from upbit_backbone.storage.storage import Storage

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS


def age_s(storage: Storage, clock: ManualClock, end_ms: int | None) -> float | None:
    return storage.peek_age_s(DataType.CANDLE, SYMBOL, Timeframe.M1, end_ms, clock.monotonic())


async def test_the_newest_candles_age_and_proved_ones_do_not(tmp_path: Path) -> None:
    clock = ManualClock(NOON + 30 * SECOND_MS)
    source = FakeExchangeSource(clock, [NOON - n * MINUTE_MS for n in range(60)])
    async with opened(tmp_path, source, clock) as storage:
        assert age_s(storage, clock, None) is None
        await storage.fetch(asked(end_ms=NOON + MINUTE_MS, count=10))
        clock.advance(4)
        assert age_s(storage, clock, None) == 4.0
        assert age_s(storage, clock, NOON + 1) == 4.0
        assert age_s(storage, clock, NOON) == 0.0


async def test_a_ticker_is_as_old_as_the_layer_below_says(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    source = FakeExchangeSource(clock)
    source.age_s = 1.5
    source.held[DataType.TICKER, SYMBOL] = object()
    async with opened(tmp_path, source, clock) as storage:
        assert storage.peek_age_s(DataType.TICKER, SYMBOL, None, None, 0.0) == 1.5
        assert storage.peek_age_s(DataType.ORDERBOOK, SYMBOL, None, None, 0.0) is None
