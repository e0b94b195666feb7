"""What is opened when it is left to the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from ui.exchange_choice import choose_exchange
from upbit_backbone import BackboneConfig

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


async def test_without_an_exchange_stored_data_are_opened(config: BackboneConfig) -> None:
    folder = config.data_dir / config.identity
    folder.mkdir()
    (folder / "market.sqlite3").touch()
    choice = await choose_exchange(config, automatic=True)
    assert (choice.config, choice.reason) == (config, "stored")
