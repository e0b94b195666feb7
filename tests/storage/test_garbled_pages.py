"""A page that cannot be right is refused before anything of it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, asked
from tests.storage.opening import opened, rows_in, spans_in
from tests.storage.test_live_candles import stored_to, tell, watched, whole
from upbit_backbone.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import CandleSeries
from upbit_backbone.protocol import BackboneRequest, Reach

M = MINUTE_MS
NOON = AUTUMN_2025_MS + 12 * HOUR_MS


class GarblingSource(FakeExchangeSource):
    """One value of each page is not what it was, while `garbles` is set."""

    garbles: tuple[str, int, float] | None = None

    def _page(self, request: BackboneRequest) -> CandleSeries:
        page = super()._page(request)
        if self.garbles is None:
            return page
        column, row, value = self.garbles
        columns: list[Any] = [np.array(getattr(page, name)) for name in CandleSeries.COLUMNS]
        columns[CandleSeries.COLUMNS.index(column)][row] = value
        return CandleSeries(SYMBOL, page.timeframe, columns, source="rest", simulated=False)


@pytest.fixture
def clock() -> ManualClock:
    """Ten seconds past noon."""
    return ManualClock(NOON + 10 * SECOND_MS)


@pytest.fixture
def source(clock: ManualClock) -> GarblingSource:
    return GarblingSource(clock, [NOON + n * M for n in range(-300, 300)])


@pytest.mark.parametrize(
    ("garbles", "sentence"),
    [
        (("high", 3, 1.0), "row 3 has prices outside of its low and high: 2025-09-15T11:54:00Z"),
        (("close", 3, float("nan")), "row 3 has prices outside"),
        (("volume", 3, -1.0), "row 3 has an amount below zero"),
        (("time", 3, NOON - 6 * M + SECOND_MS), "row 3 is off the grid of 1m"),
        (("time", 3, NOON - 7 * M), "row 3 does not ascend"),
        (("time", 8, NOON), "the newest row lies at or after that time"),
    ],
)
async def test_nothing_of_a_garbled_page_is_stored(
    tmp_path: Path,
    clock: ManualClock,
    source: GarblingSource,
    garbles: tuple[str, int, float],
    sentence: str,
) -> None:
    source.garbles = garbles
    page = asked(end_ms=NOON, count=9)
    async with opened(tmp_path, source, clock) as storage:
        with pytest.raises(ProtocolError) as caught:
            await storage.fetch(page)
        assert sentence in str(caught.value)
        assert str(caught.value).startswith("candles of KRW-BTC 1m before 2025-09-15T12:00:00Z:")
        assert rows_in(tmp_path) == []
        assert spans_in(tmp_path) == []
        response = await storage.fetch(asked(end_ms=NOON, count=9, reach=Reach.STORED))
        assert (len(response.data), response.success) == (0, False)
        source.garbles = None
        await storage.fetch(page)
    assert len(rows_in(tmp_path)) == 9


async def test_more_rows_than_were_asked_for_are_refused(
    tmp_path: Path, clock: ManualClock, source: GarblingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = source._page(asked(end_ms=NOON, count=200))
    monkeypatch.setattr(source, "_page", lambda _: everything)
    async with opened(tmp_path, source, clock) as storage:
        with pytest.raises(ProtocolError, match="5 rows were asked for, 200 came"):
            await storage.fetch(asked(end_ms=NOON, count=5))
        assert rows_in(tmp_path) == []


async def test_a_garbled_page_of_the_store_itself_leaves_its_seam_unknown(
    tmp_path: Path, clock: ManualClock, source: GarblingSource
) -> None:
    async with opened(tmp_path, source, clock) as storage, watched(storage):
        (stream,) = source.subscriptions
        await storage.fetch(asked(end_ms=NOON - 30 * M, count=50))
        source.garbles = ("high", 3, 1.0)
        clock.advance(60)
        await tell(stream, whole(1, 1))
        await eventually(lambda: len(source.requests) == 2)
        assert [(span[0], span[1]) for span in spans_in(tmp_path)] == [
            (NOON - 80 * M, NOON - 30 * M)
        ]
        source.garbles = None
        clock.advance(60)
        await stored_to(storage, tmp_path, 1)
    assert len(source.requests) == 3
