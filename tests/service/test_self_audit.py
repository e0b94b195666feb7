"""A candle that went wrong in the file is found by the self-audit, whoever changed it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.eventually import eventually
from upbit_backbone import BackboneConfig, CandleSeries, MarketDataAPI
from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.storage.audit import PAGES
from upbit_backbone.storage.audit_table import AuditState

END = utc_datetime(1_757_894_400_000)


async def asked(api: MarketDataAPI) -> CandleSeries:
    return await api.get_candle_data("KRW-BTC", "1m", end_time=END, count=120)


def change(folder: Path, open_ms: int) -> None:
    """Change a stored candle, and let a day pass for the file."""
    (path,) = folder.glob("*/market.sqlite3")
    with closing(sqlite3.connect(path)) as sql, sql:
        sql.execute("DELETE FROM blocks")
        row = "UPDATE candles_KRW_BTC_1m SET close = close + 1000 WHERE open_time = ?"
        assert sql.execute(row, (open_ms,)).rowcount == 1
        due = msgspec.json.encode(AuditState(epoch_ms(END)))
        sql.execute("INSERT OR REPLACE INTO meta VALUES ('self_audit', ?)", (due.decode(),))


async def test_a_wrong_candle_is_found_and_mended_and_the_figure_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.storage.IDLE_S", 0.0)
    monkeypatch.setattr("upbit_backbone.storage.audit.AGREES_AFTER_MS", 0)
    async with Simulator(seed=1) as simulator:
        config = BackboneConfig(
            rest_url=simulator.rest_url, ws_url=simulator.ws_url, data_dir=tmp_path
        )
        async with await MarketDataAPI.create(config) as api:
            right = await asked(api)
            assert api.get_performance_metrics().self_audit is None
        wrong_ms = int(right.time[3])
        change(tmp_path, wrong_ms)
        async with await MarketDataAPI.create(config) as api:
            wrong = await asked(api)
            assert wrong.close[3] == right.close[3] + 1_000
            await eventually(
                lambda: (
                    (found := api.get_performance_metrics().self_audit) and found.pages == PAGES
                ),
                timeout=20,
            )
            metrics = api.get_performance_metrics()
            assert metrics.self_audit is not None
            assert metrics.self_audit.restated == 1
            assert metrics.self_audit.correctness == pytest.approx(
                1 - 1 / metrics.self_audit.compared
            )
            assert metrics.counters["layer_2.audit_restated"] == 1
            assert await asked(api) == right
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert warned[0].startswith("the self-audit found stored candles of KRW-BTC 1m")
