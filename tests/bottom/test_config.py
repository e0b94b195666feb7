"""Settings: defaults, the environment, what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.config import (
    CONFIG_VARIABLE,
    SETTINGS,
    BackboneConfig,
    _tell_once,
    default_data_dir,
    settle,
)
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import Timeframe
from upbit_backbone.surroundings import Surroundings, choose, measure, network_sentence

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
    config = BackboneConfig(pinned=["KRW-BTC:1m", "KRW-XRP:60m"])
    assert config.pinned_series == expected
    # Two names of one series are one pin, and settings have a hash however they were given.
    again = BackboneConfig(pinned=["KRW-BTC:1m", "KRW-XRP:1h", "KRW-XRP:60m", "KRW-BTC:1m"])
    assert again == config
    assert hash(again) == hash(config)
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
        ({"pinned": ["KRW-BTC:2m"]}, "pinned names .*, was 'KRW-BTC:2m' .*timeframe '2m'"),
        ({"pinned": ["KRW-BTC"]}, "pinned names a market and a timeframe.*was 'KRW-BTC'"),
        ({"data_dir": Path("a\0b")}, r"data_dir must be a path that a file system can hold"),
        ({"rest_url": "http://a b/v1", "ws_url": WS}, "rest_url must be an address"),
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
    for host in ("a_b%zone.example", "한국.example", "x" * 1_000, "[fe80::1%한]"):
        config = BackboneConfig(rest_url=f"http://{host}:81/v1", ws_url=WS)
        assert set(config.identity) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
        assert len(config.identity) <= 255


@pytest.mark.parametrize(
    "hosts",
    [
        ("한국", "중국"),
        ("straße.de", "strasse.de"),
        ("a_b", "a%b"),
        ("[::1]", "__1"),
        ("[fe80::1%a]", "[fe80::1%b]"),
    ],
)
def test_two_hosts_have_two_folders(hosts: tuple[str, str]) -> None:
    of = [BackboneConfig(rest_url=f"http://{host}:1/v1", ws_url=WS).identity for host in hosts]
    assert of[0] != of[1]


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


# The settings file.


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "config.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_every_setting_can_be_given_in_a_file(tmp_path: Path) -> None:
    given = {
        "rest_url": f'"{REST}"', "ws_url": f'"{WS}"', "replay": '"replay-0123abcd"',
        "exchange": '"upbit"', "data_dir": '"here"', "critical_reserve": "3",
        "simulator_seed": "7", "max_concurrent_requests": "9", "memory_limit_mb": "64",
        "symbols_per_request": "5", "pinned": '["KRW-BTC:1m"]', "storage_limit_mb": "99",
        "keep_1s_days": "8", "metrics_port": "9100", "auto_optimization": "false",
        "environment_detection": "false", "circuit_breaker_enabled": "false",
        "auto_retry_enabled": "false", "fallback_mode_enabled": "false",
    }  # fmt: skip
    assert set(given) == set(SETTINGS)
    file = written(tmp_path, "".join(f"{name} = {value}\n" for name, value in given.items()))
    assert BackboneConfig.from_file(file, environment={}) == BackboneConfig(
        rest_url=REST, ws_url=WS, replay="replay-0123abcd", data_dir=tmp_path / "here",
        critical_reserve=3, simulator_seed=7, max_concurrent_requests=9, memory_limit_mb=64,
        symbols_per_request=5, pinned=("KRW-BTC:1m",), storage_limit_mb=99, keep_1s_days=8,
        metrics_port=9100, auto_optimization=False, environment_detection=False,
        circuit_breaker_enabled=False, auto_retry_enabled=False, fallback_mode_enabled=False,
    )  # fmt: skip


def test_the_stronger_source_wins_and_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, "memory_limit_mb = 100\nsimulator_seed = 2\ncritical_reserve = 1\n")
    environment = {"UPBIT_BACKBONE_MEMORY_LIMIT_MB": "200", "UPBIT_BACKBONE_SIMULATOR_SEED": "3"}
    settled = settle(environment, flags={"memory_limit_mb": 300}, file=file)
    config = settled.config
    assert (config.memory_limit_mb, config.simulator_seed, config.critical_reserve) == (300, 3, 1)
    origins = settled.origins
    assert origins["memory_limit_mb"] == "--memory-limit-mb"
    assert origins["simulator_seed"] == "UPBIT_BACKBONE_SIMULATOR_SEED"
    assert origins["critical_reserve"] == f"line 3 of {file}"
    assert origins["exchange"] == "default"
    assert settled.file == file


def test_who_says_which_exchange_sets_aside_all_that_the_file_says_of_it(tmp_path: Path) -> None:
    file = written(tmp_path, f'rest_url = "{REST}"\nws_url = "{WS}"\nsimulator_seed = 5\n')
    variable = {"UPBIT_BACKBONE_EXCHANGE": "simulator"}
    assert BackboneConfig.from_file(file, environment=variable).identity == "simulator-5"
    assert BackboneConfig.from_file(file, environment={}).rest_url == REST
    flags = {"exchange": "simulator"}
    assert BackboneConfig.from_file(file, environment={}, flags=flags).identity == "simulator-5"


def test_the_variable_names_the_file_and_without_it_the_user_s_own_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "upbit-backbone" / "config.toml"
    monkeypatch.setattr("upbit_backbone.config.default_config_file", lambda: own)
    monkeypatch.delenv(CONFIG_VARIABLE)
    assert BackboneConfig.from_environment().simulator_seed == 1
    own.parent.mkdir()
    own.write_text("simulator_seed = 11\n")
    assert BackboneConfig.from_environment().simulator_seed == 11
    other = written(tmp_path, "simulator_seed = 12\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(other))
    assert BackboneConfig.from_environment().simulator_seed == 12
    # An environment that was handed over is all there is.
    assert BackboneConfig.from_environment({}).simulator_seed == 1
    assert BackboneConfig.from_environment({CONFIG_VARIABLE: str(other)}).simulator_seed == 12
    monkeypatch.setenv(CONFIG_VARIABLE, os.devnull)
    assert BackboneConfig.from_environment().simulator_seed == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memory_limt_mb = 5\n", r"did you mean memory_limit_mb\?; it stands in line 1 of "),
        ("\n# x\n\"data-dir\" = 'x'\n", r"did you mean data_dir\?; it stands in line 3 of "),
        ("zzz = 1\n", "there are exchange, rest_url, "),
        ("data_dir = ''\n", "data_dir .*line 1 of .* must be a path"),
        ("[backbone]\nexchange = 'upbit'\n", "settings stand in no table"),
        ("exchange = 'upbit'\nmemory_limit_mb = \n", r"line 2 of .* is not understood"),
        ("exchange = 'upbit'\nmemory_limit_mb = five\n", r"line 2 of .*'memory_limit_mb = five'"),
        ("pinned = [\n", "is not understood"),
        ("exchange = 'upbit'\nexchange = 'upbit'\n", "line 2 of .* is not understood"),
        (b"exchange = 'upbit'\n# \xff\xfe\n", "line 2 of .* is no UTF-8 text: save the file as"),
        (b"\x00" * 10, "line 1 of .* is not understood"),
        ("memory_limit_mb = 5\n", r"memory_limit_mb \(line 1 of .*\) must be 16\.\."),
        ("memory_limit_mb = 64.5\n", "must be a whole number, was 64.5"),
        ("memory_limit_mb = '64'\n", "must be a whole number, was '64'"),
        ("auto_retry_enabled = 1\n", "must be true or false, was 1"),
        ("exchange = 'binance'\n", r"exchange \(line 1 of .*\) must be 'upbit' or 'simulator'"),
        ("rest_url = 'http://127.0.0.1:1/v1'\n", r"ws_url \(.*config.toml\) belong together"),
        ("pinned = 'KRW-BTC:1m'\n", "must be a list such as"),
        ("pinned = ['KRW-BTC']\n", r"pinned \(line 1 of .*\) names a market and a timeframe"),
        ("pinned = ['KRW-BTC:2m']\n", r"pinned \(line 1 of .*\) names .*timeframe '2m'"),
        ("data_dir = 'a\\u0000b'\n".replace("'", '"'), "that a file system can hold"),
        ("data_dir = 5\n", "must be a path such as"),
        ("# " + "x" * (1 << 20), "larger than a megabyte"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_in_a_sentence_with_the_line(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InvalidRequestError, match=words) as told:
        BackboneConfig.from_file(file, environment={})
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("path", ["", 5, None, b"x"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InvalidRequestError, match="named by its path"):
        BackboneConfig.from_file(path, environment={})


def test_a_file_that_is_not_there_or_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"no settings file .*config init' writes one"):
        BackboneConfig.from_file(tmp_path / "none.toml", environment={})
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        BackboneConfig.from_file(tmp_path, environment={})
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        BackboneConfig.from_file("a\0b", environment={})


def test_a_file_of_windows_editor_is_read(tmp_path: Path) -> None:
    text = "simulator_seed = 4\r\n".encode("utf-8-sig")
    assert BackboneConfig.from_file(written(tmp_path, text), environment={}).simulator_seed == 4


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_whatever_stands_in_a_file_it_is_read_or_told_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    folder = tmp_path_factory.mktemp("settings")
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    told = ""
    try:
        BackboneConfig.from_file(written(folder, data), environment={})
    except InvalidRequestError as error:
        told = str(error)
    assert "\n" not in told


@pytest.mark.parametrize("way", ["environment", "file", "auto", "manager"])
def test_a_variable_that_is_no_setting_is_told_of_once(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"UPBIT_BACKBONE_MEMORY_LIMT_MB_{way}".upper()
    monkeypatch.setenv(name, "5")
    file = written(tmp_path, "simulator_seed = 4\n")
    ways: dict[str, Callable[[], Any]] = {
        "environment": BackboneConfig.from_environment,
        "file": lambda: BackboneConfig.from_file(file),
        "auto": lambda: BackboneConfig.create_auto_config(SMALL),
        "manager": BackboneManager,
    }
    for _ in range(3):
        ways[way]()
    (told,) = caplog.messages
    assert told.startswith(f"{name} is not used: ")
    assert "did you mean memory_limit_mb?" in told


@pytest.mark.parametrize("name", ["upbit_backbone_exchange", "Upbit_Backbone_Exchange"])
def test_a_variable_in_small_letters_is_told_to_be_written_in_capitals(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    _tell_once.cache_clear()
    environment = {name: "simulator", "upbit_backbone_config": "x", "upbit_backbone_exchnge": ""}
    assert BackboneConfig.from_environment(environment).exchange == "upbit"
    told = dict(sentence.split(" is not used: ") for sentence in caplog.messages)
    assert told[name] == "write it in capitals: UPBIT_BACKBONE_EXCHANGE"
    assert told["upbit_backbone_config"] == "write it in capitals: UPBIT_BACKBONE_CONFIG"
    assert "did you mean exchange?" in told["upbit_backbone_exchnge"]


def test_a_flag_that_is_no_setting_names_the_nearest() -> None:
    with pytest.raises(InvalidRequestError, match="did you mean simulator_seed"):
        BackboneConfig.from_environment({}, flags={"simulator_sed": 1})


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("On", True), ("no", False), ("0", False)]
)
def test_a_switch_in_the_environment_is_read_as_people_write_it(text: str, value: bool) -> None:
    variable = {"UPBIT_BACKBONE_AUTO_RETRY_ENABLED": text}
    assert BackboneConfig.from_environment(variable).auto_retry_enabled is value
    with pytest.raises(InvalidRequestError, match="must be true or false, was 'maybe'"):
        BackboneConfig.from_environment({"UPBIT_BACKBONE_AUTO_RETRY_ENABLED": "maybe"})


# What suits the machine.

SMALL = Surroundings(
    processors=1, memory_mb=2_000, memory_free_mb=1_500, disk_free_mb=4_000, stored_mb=700,
    networks=("eth0",), link_mbps=5,
)  # fmt: skip


def test_a_small_machine_gets_small_settings_and_each_has_its_reason() -> None:
    settled = settle({}, surroundings=SMALL, detect=True)
    config = settled.config
    assert config.max_concurrent_requests == 25
    assert config.memory_limit_mb == 500
    assert config.storage_limit_mb == 2_350
    assert config.symbols_per_request == 50
    assert settled.origins["memory_limit_mb"].startswith("measured: 2,000 MB of memory")
    assert "700 MB stored already" in settled.origins["storage_limit_mb"]
    assert settled.surroundings == SMALL


def test_a_large_machine_needs_no_limits() -> None:
    large = Surroundings(64, 512_000, 400_000, 900_000, 0, ("eth0",), 10_000)
    config = BackboneConfig.create_auto_config(large, environment={})
    assert config.max_concurrent_requests == 100
    assert config.memory_limit_mb == 2_048
    assert (config.storage_limit_mb, config.symbols_per_request) == (None, None)


def test_where_there_is_little_no_more_is_taken_than_there_is() -> None:
    chosen = choose(SMALL._replace(memory_mb=128, memory_free_mb=60, disk_free_mb=5, stored_mb=0))
    assert chosen["memory_limit_mb"].value == 96
    assert chosen["storage_limit_mb"].value == 16


def test_the_limit_of_the_store_does_not_grow_with_what_is_stored() -> None:
    stored_mb, free_mb = 0, 10_000
    for _ in range(6):
        found = SMALL._replace(stored_mb=stored_mb, disk_free_mb=free_mb)
        limit_mb = choose(found)["storage_limit_mb"].value
        assert limit_mb == 5_000
        stored_mb, free_mb = limit_mb, 10_000 - limit_mb
    # Others have filled the disk: nothing is removed for them.
    assert choose(found._replace(disk_free_mb=100))["storage_limit_mb"].value == 5_000


def test_only_what_is_stored_of_this_origin_is_measured(tmp_path: Path) -> None:
    for name in ("upbit/market.sqlite3", "upbit/market.sqlite3-wal", "other/market.sqlite3"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as out:
            out.truncate(3 << 20)
    found = settle({"UPBIT_BACKBONE_DATA_DIR": str(tmp_path)}, detect=True).surroundings
    assert found is not None
    assert found.stored_mb == 3


def test_what_a_person_says_stands_against_what_was_measured(tmp_path: Path) -> None:
    file = written(tmp_path, "memory_limit_mb = 64\n")
    environment = {CONFIG_VARIABLE: str(file), "UPBIT_BACKBONE_MAX_CONCURRENT_REQUESTS": "7"}
    config = BackboneConfig.create_auto_config(SMALL, environment=environment)
    assert (config.memory_limit_mb, config.max_concurrent_requests) == (64, 7)
    assert config.storage_limit_mb == 2_350


def test_without_environment_detection_nothing_is_measured() -> None:
    environment = {"UPBIT_BACKBONE_ENVIRONMENT_DETECTION": "off"}
    config = BackboneConfig.create_auto_config(SMALL, environment=environment)
    assert config == replace(BackboneConfig(), environment_detection=False)


def test_this_machine_is_measured_in_a_moment_and_its_settings_are_sound(tmp_path: Path) -> None:
    found = measure(tmp_path / "not" / "there")
    assert found.processors >= 1
    assert 0 < found.memory_free_mb <= found.memory_mb
    assert found.disk_free_mb is not None
    assert found.stored_mb == 0
    config = BackboneConfig.create_auto_config(
        environment={"UPBIT_BACKBONE_DATA_DIR": str(tmp_path)}
    )
    assert 25 <= config.max_concurrent_requests <= 100
    assert 256 <= config.memory_limit_mb <= 2_048


@given(
    st.builds(
        Surroundings,
        processors=st.integers(0, 1_000),
        memory_mb=st.integers(1, 1 << 22),
        memory_free_mb=st.integers(0, 1 << 22),
        disk_free_mb=st.none() | st.integers(0, 1 << 23),
        stored_mb=st.integers(0, 1 << 40),
        networks=st.none() | st.just(()),
        link_mbps=st.none() | st.integers(1, 1 << 20),
    )
)
def test_whatever_is_measured_the_settings_make_sense(found: Surroundings) -> None:
    BackboneConfig.create_auto_config(found, environment={})
    assert network_sentence(found)
