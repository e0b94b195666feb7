"""Settings: all have a default, each can be given in a file and in the environment.

The file is TOML, the user's own (`default_config_file`) or the one that
``UPBIT_BACKBONE_CONFIG`` names. ``UPBIT_BACKBONE_<FIELD>`` overrides a field of it, e.g.
``UPBIT_BACKBONE_DATA_DIR``. Flags of a program override the environment.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import platformdirs

from upbit_backbone.config_file import (
    SettingsFile,
    default_config_file,
    read_settings_file,
    unknown_setting,
)
from upbit_backbone.errors import InvalidRequestError, shown, shown_path
from upbit_backbone.models import Timeframe
from upbit_backbone.surroundings import Surroundings, choose, measure

logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "UPBIT_BACKBONE_"
CONFIG_VARIABLE = "UPBIT_BACKBONE_CONFIG"
"""Names the settings file; `os.devnull` means none."""
Exchange = Literal["upbit", "simulator"]
WHICH_EXCHANGE = ("exchange", "rest_url", "ws_url", "replay")
"""The settings that together name one exchange."""
_NUMBERS_OR_NONE = ("symbols_per_request", "storage_limit_mb", "keep_1s_days", "metrics_port")
_SWITCHES = {"true": True, "yes": True, "on": True, "1": True}
_SWITCHES |= {"false": False, "no": False, "off": False, "0": False}
_SYMBOL = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")
_REPLAY_NAME = re.compile(r"replay-[0-9a-f]{8}")
_PATHS = {"rest_url": "/v1", "ws_url": "/websocket/v1"}
_LONGEST_ADDRESS = 2_000
_LONGEST_PATH = 4_096
_LONGEST_SYMBOL = 40
_MOST_PINNED = 1_000
_MOST_SEED = (1 << 63) - 1


def default_data_dir() -> Path:
    """The user's data folder for this program."""
    return Path(platformdirs.user_data_dir("upbit-backbone", appauthor=False))


@dataclass(frozen=True)
class BackboneConfig:
    """Everything that can be set; the default of each works as it is."""

    exchange: Exchange = "upbit"
    """``"upbit"``, or ``"simulator"``: an exchange started in this process."""
    rest_url: str | None = None
    """Another address of the exchange, ending in ``/v1``; needs `ws_url` beside it."""
    ws_url: str | None = None
    replay: str | None = None
    """The name of the recording that is replayed at these addresses: it is the origin of the
    data, wherever it is served."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Each origin of data keeps its own folder in it."""
    critical_reserve: int = 2
    """How many of the ten requests a group allows in a second only CRITICAL may take."""
    simulator_seed: int = 1
    max_concurrent_requests: int = 100
    """How many calls of one priority may be in work at once; further ones wait their turn."""
    memory_limit_mb: int = 1024
    """What the process may take. A quarter of it bounds the candles held in memory; they give way
    when the process takes two thirds of it, before any work has to wait."""
    symbols_per_request: int | None = None
    """How many tickers or order books one request names at most; None: all that are asked for."""

    pinned: Sequence[str] = ()
    """Candles that stay complete up to now although nobody reads them, e.g. ``["KRW-BTC:1m"]``;
    in the environment with commas between them. Kept as a tuple, each series once."""

    storage_limit_mb: int | None = None
    """How large the file of candles may be: beyond it, the oldest candles of the series that were
    not asked for the longest time are removed; None: all that was ever read stays."""
    keep_1s_days: int | None = None
    """Candles of one second are removed when they are so old; None: they stay."""

    metrics_port: int | None = None
    """Serves ``/metrics`` (Prometheus) and ``/health`` on this port of the loopback; 0 takes a
    free one; None: nothing is served."""

    auto_optimization: bool = True
    """What is asked for often gets a stream of its own, and memory is filled after the start
    with what was used last. False: only what a program asks for is done."""
    environment_detection: bool = True
    """`create_auto_config` measures the machine. False: it takes the defaults."""
    circuit_breaker_enabled: bool = True
    """While the exchange blocks this address nothing is asked of it. False: every call tries,
    which can lengthen the block."""
    auto_retry_enabled: bool = True
    """What was not reached is asked again within the deadline. False: the first failure is
    told."""
    fallback_mode_enabled: bool = True
    """The two channels of the exchange stand in for each other: prices are polled while the
    stream is away, and the stream answers while requests fail. False: each fails alone."""

    def __post_init__(self) -> None:
        _check({entry.name: getattr(self, entry.name) for entry in fields(self)}, _own_name)
        # A list could be changed, and has no hash; two names of one series are one.
        series = dict.fromkeys(_series(one, "pinned") for one in self.pinned)
        pinned = tuple(f"{symbol}:{timeframe}" for symbol, timeframe in series)
        object.__setattr__(self, "pinned", pinned)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        flags: Mapping[str, Any] | None = None,
    ) -> BackboneConfig:
        """The defaults, overridden by the settings file, the environment and the flags, in turn.

        The file is the one that ``UPBIT_BACKBONE_CONFIG`` names. Without it, and where the
        process's own environment is read, it is the user's, if there is one.

        Which exchange is meant (`exchange`, `rest_url`, `ws_url`, `replay`) is one question:
        who answers it sets aside all that the weaker ones say of it.

        Args:
            environment: By default the process's own.
            flags: By the name of the field, what was given on a command line.

        Raises:
            InvalidRequestError: a value that cannot be read or makes no sense; the message
                names the variable, the flag, or the line of the file.
        """
        return settle(environment, flags=flags).config

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> BackboneConfig:
        """As `from_environment`, with this settings file; the environment overrides it.

        Raises:
            InvalidRequestError: there is no such file, it is damaged (the message names the
                line), names a setting that does not exist (the message names the nearest), or
                one of the values makes no sense.
        """
        return settle(environment, flags=flags, file=_path(path)).config

    @classmethod
    def create_auto_config(
        cls,
        surroundings: Surroundings | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> BackboneConfig:
        """As `from_environment`, with defaults that suit this machine.

        Looks at processors, memory, disk and network; what file, environment or flags say
        stands. ``upbit-backbone config --auto`` tells what was chosen, and why.

        Args:
            surroundings: What the machine offers; by default it is measured now.
            environment: As `from_environment`.
            flags: As `from_environment`.

        Raises:
            InvalidRequestError: as `from_environment`.
        """
        return settle(environment, flags=flags, surroundings=surroundings, detect=True).config

    @property
    def pinned_series(self) -> tuple[tuple[str, Timeframe], ...]:
        """Symbol and timeframe of what is `pinned`."""
        return tuple(_series(name, "pinned") for name in self.pinned)

    @property
    def identity(self) -> str:
        """The name of the data's origin and of its folder under `data_dir`."""
        if self.exchange == "simulator":
            return f"simulator-{self.simulator_seed}"
        if self.rest_url is None:
            return "upbit"
        if self.replay is not None:
            return self.replay
        address = urlsplit(self.rest_url)
        # No hyphen before the port: a host called "simulator" must not get a simulator's folder.
        port = address.port or (443 if address.scheme == "https" else 80)
        return f"{_folder_of_host(address.hostname or '')}_{port}"


class Settled(NamedTuple):
    """Settings, and how each came about."""

    config: BackboneConfig
    origins: Mapping[str, str]
    """By the name of the setting: ``"default"``, what was measured, the line of the file, the
    variable or the flag."""
    file: Path | None
    """The settings file that was read."""
    surroundings: Surroundings | None
    """What the machine offers, if that was asked."""


class _Layer(NamedTuple):
    """What one source says; a stronger one overrides it."""

    values: Mapping[str, Any]
    told: Callable[[str], str]
    """How a sentence names a setting that this source gives, or could give."""
    origin: Callable[[str], str]


def settle(
    environment: Mapping[str, str] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
    surroundings: Surroundings | None = None,
    detect: bool = False,
) -> Settled:
    """Put the sources together: defaults, what was measured, file, environment, flags.

    Args:
        environment: By default the process's own.
        flags: By the name of the field, what was given on a command line.
        file: The settings file; None: as `BackboneConfig.from_environment` says.
        surroundings: What the machine offers; None: it is measured, if `detect` says so.
        detect: Whether settings that nobody gave suit the machine, unless
            `environment_detection` is off.

    Raises:
        InvalidRequestError: as `BackboneConfig.from_file`.
    """
    _check_sources(environment, flags, surroundings)
    for sentence in _unused(os.environ if environment is None else environment):
        _tell_once(sentence)
    environment_layer, flag_layer = _environment_layer(environment), _flag_layer(flags)
    path = _file_of(environment, file)
    told = [environment_layer, flag_layer]
    if path is not None:
        told.insert(0, _file_layer(read_settings_file(path, SETTINGS)))
    config, origins = _together(told)
    found = None
    if detect and config.environment_detection:
        found = measure(config.data_dir / config.identity) if surroundings is None else surroundings
        config, origins = _together([_measured_layer(found), *told])
    return Settled(config, origins, path, found)


def _check_sources(environment: Any, flags: Any, surroundings: Any) -> None:
    if not isinstance(environment, Mapping | None):
        raise InvalidRequestError(
            f"environment must be a dict of texts, or None for the process's own,"
            f" was {shown(environment)}"
        )
    if not isinstance(flags, Mapping | None):
        raise InvalidRequestError(f"flags must be a dict of settings, was {shown(flags)}")
    if not isinstance(surroundings, Surroundings | None):
        raise InvalidRequestError(
            "surroundings must be Surroundings, or None to measure this machine,"
            f" was {shown(surroundings)}"
        )


def _together(layers: Sequence[_Layer]) -> tuple[BackboneConfig, dict[str, str]]:
    """The settings of some sources, the weakest first, and where each came from."""
    of: dict[str, _Layer] = {}
    answered = False
    for layer in reversed(layers):
        names = [name for name in layer.values if name not in of]
        if answered:
            names = [name for name in names if name not in WHICH_EXCHANGE]
        of |= dict.fromkeys(names, layer)
        answered = answered or not layer.values.keys().isdisjoint(WHICH_EXCHANGE)
    strongest = next((layer for layer in reversed(layers) if layer.values), layers[-2])

    def told(name: str) -> str:
        """How the person named the setting; what was not given, as they name others."""
        return of.get(name, strongest).told(name)

    given = {name: layer.values[name] for name, layer in of.items()}
    _check(_defaults() | given, told)
    origins = {name: of[name].origin(name) if name in of else DEFAULT for name in SETTINGS}
    return BackboneConfig(**given), origins


def _defaults() -> dict[str, Any]:
    values = {entry.name: entry.default for entry in fields(BackboneConfig)}
    return values | {"data_dir": default_data_dir()}


def _measured_layer(found: Surroundings) -> _Layer:
    chosen = choose(found)
    return _Layer(
        {name: one.value for name, one in chosen.items()},
        _own_name,
        lambda name: f"measured: {chosen[name].reason}",
    )


def _file_of(environment: Mapping[str, str] | None, file: Any) -> Path | None:
    """The settings file that is to be read."""
    if file is not None:
        return _path(file)
    named = _variable_text(os.environ if environment is None else environment, CONFIG_VARIABLE)
    if named:
        return None if named == os.devnull else _path(named)
    own = default_config_file()
    return own if environment is None and own.exists() else None


def _path(file: Any) -> Path:
    if not isinstance(file, str | Path) or not str(file):
        raise InvalidRequestError(f"a settings file is named by its path, was {shown(file)}")
    try:
        return Path(file).expanduser()
    except RuntimeError as error:  # "~nobody"
        raise InvalidRequestError(
            f"the settings file {shown_path(file)} is in no home: name a file that can be read"
        ) from error


def _file_layer(file: SettingsFile) -> _Layer:
    values = dict(file.values)
    if isinstance(folder := values.get("data_dir"), str) and folder:
        told = f"data_dir ({file.place('data_dir')})"
        values["data_dir"] = file.path.absolute().parent / _folder(told, folder)
    if isinstance(pinned := values.get("pinned"), list):
        values["pinned"] = tuple(pinned)
    return _Layer(values, lambda name: f"{name} ({file.place(name)})", file.place)


def _environment_layer(environment: Mapping[str, str] | None) -> _Layer:
    environment = os.environ if environment is None else environment
    given: dict[str, Any] = {}
    for entry in fields(BackboneConfig):
        text = _variable_text(environment, _variable(entry.name))
        if not text:
            continue
        if entry.name == "data_dir":
            given[entry.name] = _folder(_variable(entry.name), text)
        elif entry.name == "pinned":
            given[entry.name] = tuple(one.strip() for one in text.split(",") if one.strip())
        elif isinstance(entry.default, bool):
            given[entry.name] = _switch(_variable(entry.name), text)
        elif isinstance(entry.default, int) or entry.name in _NUMBERS_OR_NONE:
            try:
                given[entry.name] = int(text)
            except ValueError:
                raise InvalidRequestError(
                    f"{_variable(entry.name)} must be a whole number, was {shown(text)}"
                ) from None
        else:
            given[entry.name] = text
    return _Layer(given, _variable, _variable)


def _unused(environment: Mapping[str, str]) -> list[str]:
    """What to say of variables that look like settings and are none."""
    known = {_variable(name) for name in SETTINGS} | {CONFIG_VARIABLE}
    return [
        f"{shown_path(name)} is not used: "
        + (
            f"write it in capitals: {name.upper()}"
            if name.upper() in known
            else unknown_setting(name[len(ENVIRONMENT_PREFIX) :].lower(), SETTINGS)
        )
        for name in sorted(map(str, environment))
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name not in known
    ]


@lru_cache(maxsize=100)
def _tell_once(sentence: str) -> None:
    """A program may settle its settings many times: it hears of each variable once."""
    logger.warning("%s", sentence)


def _variable_text(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name)
    if not isinstance(text, str | None):
        raise InvalidRequestError(f"{name} must be a text, was {shown(text)}")
    return text


def _folder(told: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~nobody"
        raise InvalidRequestError(
            f"{told} is in no home ({shown_path(text)}): give another folder"
        ) from error


def _switch(told: str, text: str) -> bool:
    value = _SWITCHES.get(text.strip().lower())
    if value is None:
        raise InvalidRequestError(f"{told} must be true or false, was {shown(text)}")
    return value


def _flag_layer(flags: Mapping[str, Any] | None) -> _Layer:
    given = {} if flags is None else dict(flags)
    for name in given:
        if not isinstance(name, str):
            raise InvalidRequestError(f"a setting is named by a text, was {shown(name)}")
        if name not in SETTINGS:
            raise InvalidRequestError(unknown_setting(name, SETTINGS))
    return _Layer(given, _flag, _flag)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _own_name(name: str) -> str:
    return name


SETTINGS = tuple(entry.name for entry in fields(BackboneConfig))
"""The names of all settings."""
DEFAULT = "default"


def _check(given: Mapping[str, Any], told: Callable[[str], str]) -> None:
    """Refuse settings that make no sense, alone or together.

    Args:
        given: The values of all fields.
        told: How a sentence names a field.
    """
    exchange, rest_url, ws_url = given["exchange"], given["rest_url"], given["ws_url"]
    if not isinstance(exchange, str) or exchange not in ("upbit", "simulator"):
        raise InvalidRequestError(
            f"{told('exchange')} must be 'upbit' or 'simulator', was {shown(exchange)}"
        )
    if (rest_url is None) != (ws_url is None):
        raise InvalidRequestError(
            f"{told('rest_url')} and {told('ws_url')} belong together: give both or neither,"
            f" were {shown(rest_url)} and {shown(ws_url)}"
        )
    for name, schemes in (("rest_url", ("http", "https")), ("ws_url", ("ws", "wss"))):
        if given[name] is not None and not _is_url(given[name], schemes):
            raise InvalidRequestError(
                f"{told(name)} must be an address such as"
                f" '{schemes[0]}://127.0.0.1:8080{_PATHS[name]}', was {_address(given[name])}"
            )
    if rest_url is not None and not rest_url.endswith(_PATHS["rest_url"]):
        raise InvalidRequestError(
            f"{told('rest_url')} must end in {_PATHS['rest_url']}, as in"
            f" 'http://127.0.0.1:8080/v1', was {_address(rest_url)}"
        )
    if exchange == "simulator" and rest_url is not None:
        raise InvalidRequestError(
            f"{told('exchange')} was 'simulator', which starts an exchange in this process and"
            f" takes no address: leave {told('rest_url')} and {told('ws_url')} out, or"
            f" {told('exchange')} to reach that address"
        )
    _check_replay(given["replay"], rest_url, told)
    _check_folder(given["data_dir"], told("data_dir"))
    pinned = given["pinned"]
    if isinstance(pinned, str) or not isinstance(pinned, Sequence) or len(pinned) > _MOST_PINNED:
        raise InvalidRequestError(
            f"{told('pinned')} must be a list such as ['KRW-BTC:1m'], of at most {_MOST_PINNED:,},"
            f" was {shown(pinned)}"
        )
    for one in pinned:
        _series(one, told("pinned"))
    for name, bounds in (
        ("simulator_seed", (-_MOST_SEED, _MOST_SEED)),
        ("critical_reserve", (0, 9)),
        ("max_concurrent_requests", (1, 10_000)),
        ("memory_limit_mb", (16, 1 << 20)),
        ("symbols_per_request", (1, 10_000)),
        ("storage_limit_mb", (16, 1 << 24)),
        ("keep_1s_days", (1, 36_500)),
        ("metrics_port", (0, 65_535)),
    ):
        value = given[name]
        if value is None and name in _NUMBERS_OR_NONE:
            continue
        if type(value) is not int:
            raise InvalidRequestError(f"{told(name)} must be a whole number, was {shown(value)}")
        if not bounds[0] <= value <= bounds[1]:
            raise InvalidRequestError(
                f"{told(name)} must be {bounds[0]}..{bounds[1]}, was {shown(value)}"
            )

    for entry in fields(BackboneConfig):
        if isinstance(entry.default, bool) and type(given[entry.name]) is not bool:
            raise InvalidRequestError(
                f"{told(entry.name)} must be true or false, was {shown(given[entry.name])}"
            )


def _series(name: Any, told: str) -> tuple[str, Timeframe]:
    symbol, _, timeframe = name.partition(":") if isinstance(name, str) else ("", "", "")
    expected = f"{told} names a market and a timeframe, such as 'KRW-BTC:1m', was {shown(name)}"
    if not timeframe or len(symbol) > _LONGEST_SYMBOL or not _SYMBOL.fullmatch(symbol):
        raise InvalidRequestError(expected)
    try:
        return symbol, Timeframe.parse(timeframe)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{expected} ({error})") from None


def _check_replay(replay: Any, rest_url: str | None, told: Callable[[str], str]) -> None:
    if replay is None:
        return
    if not isinstance(replay, str) or not _REPLAY_NAME.fullmatch(replay):
        raise InvalidRequestError(
            f"{told('replay')} must be a name such as 'replay-0123abcd' (which a replay sends as"
            f" X-Simulated-Exchange), was {shown(replay)}"
        )
    if rest_url is None:
        raise InvalidRequestError(
            f"{told('replay')}={replay!r} names what is served at other addresses:"
            f" give {told('rest_url')} and {told('ws_url')} beside it"
        )


def _check_folder(folder: Any, told: str) -> None:
    if not isinstance(folder, Path):
        raise InvalidRequestError(
            f"{told} must be a path such as Path('data'), was {shown(folder)}"
        )
    try:
        name = os.fsencode(folder)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name or len(name) > _LONGEST_PATH:
        raise InvalidRequestError(
            f"{told} must be a path that a file system can hold, was {shown_path(folder)}"
        )


def _folder_of_host(host: str) -> str:
    """A host's name as that of a folder; two hosts never share one."""
    try:
        if "%" not in host:  # it names an interface of this machine
            return str(ipaddress.IPv6Address(host)).replace(":", "_")
    except ValueError:
        pass
    if re.fullmatch(r"[0-9a-z.-]{1,200}", host):
        return host
    # Only a name above has an underscore for each colon: groups of four digits at most.
    digest = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{re.sub(r'[^0-9a-z.-]', '_', host)[:40]}_{digest}"


def _address(given: Any) -> str:
    """How a sentence names an address: whole, where it may be one."""
    if isinstance(given, str) and len(given) <= 100:
        return ascii(given) if not given.isprintable() else repr(given)
    return shown(given)


def _is_url(text: Any, schemes: tuple[str, ...]) -> bool:
    # `urlsplit` drops line ends without a word.
    if not isinstance(text, str) or len(text) > _LONGEST_ADDRESS:
        return False
    if " " in text or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
