"""What is opened when it is left to the program."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ui.exchange_choice import choose_exchange
from upbit_backbone import BackboneConfig, BackboneManager

# Nobody listens there, and the guard of the tests keeps everything else unreachable.
REST_URL, WS_URL = "http://127.0.0.1:9/v1", "ws://127.0.0.1:9/ws"


@pytest.fixture
def config(tmp_path: Path) -> BackboneConfig:
    return BackboneConfig(data_dir=tmp_path, rest_url=REST_URL, ws_url=WS_URL)


async def test_what_was_asked_for_is_not_questioned(config: BackboneConfig) -> None:
    choice = await choose_exchange(config, automatic=False)
    assert (choice.config, choice.reason) == (config, "asked")


async def test_without_an_exchange_and_without_data_a_simulator_is_started(
    config: BackboneConfig,
) -> None:
    choice = await choose_exchange(config, automatic=True)
    assert choice.reason == "simulator"
    assert choice.config.exchange == "simulator"
    assert choice.config.rest_url is None
    assert choice.config.data_dir == config.data_dir


async def test_without_an_exchange_stored_data_are_opened(
    config: BackboneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    await leave_the_traces_of_a_start_without_the_exchange(config)
    with closing(sqlite3.connect(file_of(config))) as sql, sql:
        sql.execute("INSERT INTO series VALUES ('KRW-BTC', '1m', 'candles_KRW_BTC_1m')")
    choice = await choose_exchange(config, automatic=True)
    assert (choice.config, choice.reason) == (config, "stored")


async def test_a_file_without_a_candle_is_not_stored_data(
    config: BackboneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    await leave_the_traces_of_a_start_without_the_exchange(config)
    assert file_of(config).is_file()
    caplog.clear()
    choice = await choose_exchange(config, automatic=True)
    assert choice.reason == "simulator"
    assert caplog.records == []


@pytest.mark.parametrize("content", [b"", b"this is no database, and never was one"])
async def test_a_file_that_cannot_be_read_is_not_stored_data(
    config: BackboneConfig, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file_of(config).parent.mkdir()
    file_of(config).write_bytes(content)
    choice = await choose_exchange(config, automatic=True)
    assert choice.reason == "simulator"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "market.sqlite3 cannot be read" in caplog.text


def file_of(config: BackboneConfig) -> Path:
    return config.data_dir / config.identity / "market.sqlite3"


async def leave_the_traces_of_a_start_without_the_exchange(config: BackboneConfig) -> None:
    manager = BackboneManager(config)
    await manager.initialize()
    await manager.shutdown()
