"""Settings: defaults, the environment, what is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from upbit_backbone.config import BackboneConfig, default_data_dir
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import Timeframe

REST, WS = "http://127.0.0.1:8080/v1", "ws://127.0.0.1:8080/websocket/v1"


def test_the_defaults_reach_upbit_and_work_as_they_are() -> None:
    config = BackboneConfig.from_environment({})
    assert config == BackboneConfig()
    assert (config.exchange, config.rest_url, config.ws_url) == ("upbit", None, None)
    assert config.identity == "upbit"
    assert config.data_dir == default_data_dir()
    assert config.critical_reserve == 2
    assert config.simulator_seed == 1
    assert config.max_concurrent_requests == 100
    assert config.memory_limit_mb == 1024


def test_settings_do_not_change() -> None:
    config = BackboneConfig()
    with pytest.raises(FrozenInstanceError):
        config.exchange = "simulator"  # type: ignore[misc]
    assert replace(config, exchange="simulator").exchange == "simulator"


def test_each_setting_can_be_given_in_the_environment() -> None:
    assert BackboneConfig.from_environment(
        {
            "UPBIT_BACKBONE_EXCHANGE": "upbit",
            "UPBIT_BACKBONE_REST_URL": REST,
            "UPBIT_BACKBONE_WS_URL": WS,
            "UPBIT_BACKBONE_DATA_DIR": "/data/here",
            "UPBIT_BACKBONE_CRITICAL_RESERVE": "0",
            "UPBIT_BACKBONE_SIMULATOR_SEED": "7",
            "UPBIT_BACKBONE_MAX_CONCURRENT_REQUESTS": "1",
            "UPBIT_BACKBONE_MEMORY_LIMIT_MB": "16",
            "UPBIT_BACKBONE_OF_NO_MEANING": "ignored",
            "EXCHANGE": "not ours",
        }
    ) == BackboneConfig(
        rest_url=REST,
        ws_url=WS,
        data_dir=Path("/data/here"),
        critical_reserve=0,
        simulator_seed=7,
        max_concurrent_requests=1,
        memory_limit_mb=16,
    )


def test_the_process_s_own_environment_is_the_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_EXCHANGE", "simulator")
    monkeypatch.setenv("UPBIT_BACKBONE_SIMULATOR_SEED", "42")
    assert BackboneConfig.from_environment().identity == "simulator-42"


def test_how_many_symbols_a_request_names_is_not_bounded_unless_it_is_said() -> None:
    assert BackboneConfig().symbols_per_request is None
    variable = {"UPBIT_BACKBONE_SYMBOLS_PER_REQUEST": "10"}
    assert BackboneConfig.from_environment(variable).symbols_per_request == 10


def test_what_is_stored_stays_unless_a_limit_is_set() -> None:
    config = BackboneConfig()
    assert (config.storage_limit_mb, config.keep_1s_days) == (None, None)
    variables = {"UPBIT_BACKBONE_STORAGE_LIMIT_MB": "2048", "UPBIT_BACKBONE_KEEP_1S_DAYS": "7"}
    config = BackboneConfig.from_environment(variables)
    assert (config.storage_limit_mb, config.keep_1s_days) == (2048, 7)
    with pytest.raises(InvalidRequestError, match="KEEP_1S_DAYS must be a whole number, was 'a'"):
        BackboneConfig.from_environment({"UPBIT_BACKBONE_KEEP_1S_DAYS": "a"})


def test_pinned_series_are_a_list_and_in_the_environment_have_commas_between_them() -> None:
    assert BackboneConfig().pinned_series == ()
    expected = (("KRW-BTC", Timeframe.M1), ("KRW-XRP", Timeframe.H1))
    assert BackboneConfig(pinned=["KRW-BTC:1m", "KRW-XRP:60m"]).pinned_series == expected
    variable = {"UPBIT_BACKBONE_PINNED": "KRW-BTC:1m, KRW-XRP:1h"}
    assert BackboneConfig.from_environment(variable).pinned_series == expected


def test_an_empty_variable_is_none_at_all() -> None:
    assert (
        BackboneConfig.from_environment(
            {"UPBIT_BACKBONE_REST_URL": "", "UPBIT_BACKBONE_SIMULATOR_SEED": ""}
        )
        == BackboneConfig()
    )


def test_the_data_folder_may_begin_at_home() -> None:
    config = BackboneConfig.from_environment({"UPBIT_BACKBONE_DATA_DIR": "~/candles"})
    assert config.data_dir == Path.home() / "candles"


@pytest.mark.parametrize("name", ["CRITICAL_RESERVE", "SIMULATOR_SEED", "SYMBOLS_PER_REQUEST"])
@pytest.mark.parametrize("text", ["many", "1.5", "1k"])
def test_a_number_that_cannot_be_read_names_its_variable(name: str, text: str) -> None:
    variable = f"UPBIT_BACKBONE_{name}"
    with pytest.raises(
        InvalidRequestError, match=f"{variable} must be a whole number, was {text!r}"
    ):
        BackboneConfig.from_environment({variable: text})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"exchange": "binance"}, "'upbit' or 'simulator', was 'binance'"),
        ({"exchange": "auto"}, "was 'auto'"),
        ({"rest_url": REST}, "belong together"),
        ({"ws_url": WS}, "belong together"),
        ({"rest_url": "127.0.0.1:8080", "ws_url": WS}, "rest_url must be an address"),
        ({"rest_url": "ftp://host/v1", "ws_url": WS}, "rest_url must be an address"),
        ({"rest_url": "http:///v1", "ws_url": WS}, "rest_url must be an address"),
        ({"rest_url": "http://host:99999/v1", "ws_url": WS}, "rest_url must be an address"),
        ({"rest_url": "http://host:0/v1", "ws_url": WS}, "rest_url must be an address"),
        ({"rest_url": "http://[::1/v1", "ws_url": WS}, "rest_url must be an address"),
        ({"rest_url": REST, "ws_url": REST}, "ws_url must be an address such as 'ws://"),
        ({"rest_url": "http://127.0.0.1:8080", "ws_url": WS}, "rest_url must end in /v1, as in"),
        ({"rest_url": REST + "/", "ws_url": WS}, "rest_url must end in /v1"),
        ({"rest_url": 5, "ws_url": WS}, "rest_url must be an address"),
        ({"exchange": "simulator", "rest_url": REST, "ws_url": WS}, "takes no address"),
        ({"data_dir": "data"}, r"data_dir must be a path such as Path\('data'\), was 'data'"),
        ({"simulator_seed": "7"}, "simulator_seed must be a whole number, was '7'"),
        ({"memory_limit_mb": 64.5}, "memory_limit_mb must be a whole number, was 64.5"),
        ({"replay": "replay-0123abcd"}, "give rest_url and ws_url beside it"),
        ({"replay": "upbit", "rest_url": REST, "ws_url": WS}, "such as 'replay-0123abcd'"),
        ({"replay": "replay-../..", "rest_url": REST, "ws_url": WS}, "such as 'replay-0123abcd'"),
        ({"critical_reserve": -1}, r"critical_reserve must be 0\.\.9, was -1"),
        ({"critical_reserve": 10}, r"critical_reserve must be 0\.\.9, was 10"),
        ({"max_concurrent_requests": 0}, r"max_concurrent_requests must be 1\.\."),
        ({"memory_limit_mb": 15}, r"memory_limit_mb must be 16\.\."),
        ({"symbols_per_request": 0}, r"symbols_per_request must be 1\.\.10000, was 0"),
        ({"storage_limit_mb": 15}, r"storage_limit_mb must be 16\.\.16777216, was 15"),
        ({"storage_limit_mb": True}, "storage_limit_mb must be a whole number, was True"),
        ({"keep_1s_days": 0}, r"keep_1s_days must be 1\.\.36500, was 0"),
        ({"pinned": "KRW-BTC:1m"}, r"pinned must be a list such as \['KRW-BTC:1m'\]"),
        ({"pinned": ["krw-btc:1m"]}, "pinned names a market and a timeframe.*was 'krw-btc:1m'"),
        ({"pinned": [5]}, "such as 'KRW-BTC:1m', was 5"),
        ({"pinned": ["KRW-BTC:2m"]}, "unknown timeframe '2m'"),
        ({"symbols_per_request": "10"}, "symbols_per_request must be a whole number, was '10'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_at_once(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        BackboneConfig(**given)


@pytest.mark.parametrize(
    ("given", "identity"),
    [
        ({}, "upbit"),
        ({"exchange": "simulator"}, "simulator-1"),
        ({"exchange": "simulator", "simulator_seed": 12}, "simulator-12"),
        ({"rest_url": REST, "ws_url": WS}, "127.0.0.1_8080"),
        ({"rest_url": "http://simulator:1/v1", "ws_url": WS}, "simulator_1"),
        ({"rest_url": REST, "ws_url": WS, "replay": "replay-0123abcd"}, "replay-0123abcd"),
        ({"rest_url": "http://LOCALHOST/v1", "ws_url": WS}, "localhost_80"),
        ({"rest_url": "https://sg-api.upbit.com/v1", "ws_url": WS}, "sg-api.upbit.com_443"),
        ({"rest_url": "http://[::1]:8080/v1", "ws_url": WS}, "__1_8080"),
    ],
)
def test_each_origin_of_data_has_a_name_of_its_own(given: dict[str, Any], identity: str) -> None:
    assert BackboneConfig(**given).identity == identity


def test_the_name_of_an_origin_is_a_folder_on_any_system() -> None:
    config = BackboneConfig(rest_url="http://a_b%zone.example:81/v1", ws_url=WS)
    assert set(config.identity) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")


def test_two_addresses_of_one_host_have_two_folders() -> None:
    other = REST.replace("8080", "8081")
    assert (
        BackboneConfig(rest_url=REST, ws_url=WS).identity
        != BackboneConfig(rest_url=other, ws_url=WS).identity
    )


def test_a_flag_that_says_which_exchange_sets_aside_what_the_environment_says_of_it() -> None:
    environment = {
        "UPBIT_BACKBONE_REST_URL": REST,
        "UPBIT_BACKBONE_WS_URL": WS,
        "UPBIT_BACKBONE_REPLAY": "replay-0123abcd",
        "UPBIT_BACKBONE_SIMULATOR_SEED": "7",
    }
    config = BackboneConfig.from_environment(environment, flags={"exchange": "simulator"})
    assert config == BackboneConfig(exchange="simulator", simulator_seed=7)
    other = BackboneConfig.from_environment(environment, flags={"data_dir": Path("here")})
    assert (other.rest_url, other.replay, other.data_dir) == (REST, "replay-0123abcd", Path("here"))
    addresses = {"rest_url": REST, "ws_url": WS}
    config = BackboneConfig.from_environment(
        {"UPBIT_BACKBONE_EXCHANGE": "simulator"}, flags=addresses
    )
    assert config == BackboneConfig(rest_url=REST, ws_url=WS)


@pytest.mark.parametrize(
    ("environment", "flags", "words"),
    [
        ({"EXCHANGE": "simulator", "REST_URL": REST, "WS_URL": WS}, {},
         "leave UPBIT_BACKBONE_REST_URL and UPBIT_BACKBONE_WS_URL out, or UPBIT_BACKBONE_EXCHANGE"),
        ({"REST_URL": REST}, {}, "UPBIT_BACKBONE_REST_URL and UPBIT_BACKBONE_WS_URL belong"),
        ({"MEMORY_LIMIT_MB": "1"}, {}, r"UPBIT_BACKBONE_MEMORY_LIMIT_MB must be 16\.\."),
        ({"EXCHANGE": "binance"}, {"data_dir": Path()}, "UPBIT_BACKBONE_EXCHANGE must be 'upbit'"),
        ({}, {"rest_url": REST}, "--rest-url and --ws-url belong together"),
        ({"EXCHANGE": "simulator"}, {"rest_url": REST[:-3], "ws_url": WS}, "--rest-url must end"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_as_it_was_given(
    environment: dict[str, str], flags: dict[str, Any], words: str
) -> None:
    variables = {f"UPBIT_BACKBONE_{name}": value for name, value in environment.items()}
    with pytest.raises(InvalidRequestError, match=words):
        BackboneConfig.from_environment(variables, flags=flags)
