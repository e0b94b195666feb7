"""Settings: all have a default, each can be given in the environment.

``UPBIT_BACKBONE_<FIELD>`` overrides a field, e.g. ``UPBIT_BACKBONE_DATA_DIR``. Flags of a
program override the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import Timeframe

ENVIRONMENT_PREFIX = "UPBIT_BACKBONE_"
Exchange = Literal["upbit", "simulator"]
WHICH_EXCHANGE = ("exchange", "rest_url", "ws_url", "replay")
"""The settings that together name one exchange."""
_SYMBOL = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")
_REPLAY_NAME = re.compile(r"replay-[0-9a-f]{8}")
_PATHS = {"rest_url": "/v1", "ws_url": "/websocket/v1"}


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
    """A quarter of it bounds the candles held in memory."""
    symbols_per_request: int | None = None
    """How many tickers or order books one request names at most; None: all that are asked for."""

    pinned: Sequence[str] = ()
    """Candles that stay complete up to now although nobody reads them, e.g. ``["KRW-BTC:1m"]``;
    in the environment with commas between them."""

    def __post_init__(self) -> None:
        _check({entry.name: getattr(self, entry.name) for entry in fields(self)}, _own_name)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        flags: Mapping[str, Any] | None = None,
    ) -> BackboneConfig:
        """The defaults, overridden by the environment, and that by the flags of a program.

        Which exchange is meant (`exchange`, `rest_url`, `ws_url`, `replay`) is one question:
        a flag that answers it sets aside all that the environment says of it.

        Args:
            environment: By default the process's own.
            flags: By the name of the field, what was given on a command line.

        Raises:
            InvalidRequestError: a value that cannot be read or makes no sense; the message
                names the variable or the flag.
        """
        environment = os.environ if environment is None else environment
        flags = {} if flags is None else flags
        given: dict[str, Any] = {}
        for entry in fields(cls):
            text = environment.get(_variable(entry.name))
            if text is None or text == "":
                continue
            if entry.name in WHICH_EXCHANGE and not flags.keys().isdisjoint(WHICH_EXCHANGE):
                continue
            if entry.name == "data_dir":
                given[entry.name] = Path(text).expanduser()
            elif entry.name == "pinned":
                given[entry.name] = tuple(one.strip() for one in text.split(",") if one.strip())
            elif isinstance(entry.default, int) or entry.name == "symbols_per_request":
                try:
                    given[entry.name] = int(text)
                except ValueError:
                    raise InvalidRequestError(
                        f"{_variable(entry.name)} must be a whole number, was {text!r}"
                    ) from None
            else:
                given[entry.name] = text

        def told(name: str) -> str:
            """How the person named the setting; what was not given, as they name others."""
            if name in flags or (name not in given and flags):
                return "--" + name.replace("_", "-")
            return _variable(name)

        values = {entry.name: entry.default for entry in fields(cls)}
        values["data_dir"] = default_data_dir()
        _check(values | given | dict(flags), told)
        return cls(**given | dict(flags))

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
        return re.sub(r"[^0-9a-z.-]", "_", f"{address.hostname}_{port}".lower())


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _own_name(name: str) -> str:
    return name


def _check(given: Mapping[str, Any], told: Callable[[str], str]) -> None:
    """Refuse settings that make no sense, alone or together.

    Args:
        given: The values of all fields.
        told: How a sentence names a field.
    """
    exchange, rest_url, ws_url = given["exchange"], given["rest_url"], given["ws_url"]
    if exchange not in ("upbit", "simulator"):
        raise InvalidRequestError(
            f"{told('exchange')} must be 'upbit' or 'simulator', was {exchange!r}"
        )
    if (rest_url is None) != (ws_url is None):
        raise InvalidRequestError(
            f"{told('rest_url')} and {told('ws_url')} belong together: give both or neither,"
            f" were {rest_url!r} and {ws_url!r}"
        )
    for name, schemes in (("rest_url", ("http", "https")), ("ws_url", ("ws", "wss"))):
        if given[name] is not None and not _is_url(given[name], schemes):
            raise InvalidRequestError(
                f"{told(name)} must be an address such as"
                f" '{schemes[0]}://127.0.0.1:8080{_PATHS[name]}', was {given[name]!r}"
            )
    if rest_url is not None and not rest_url.endswith(_PATHS["rest_url"]):
        raise InvalidRequestError(
            f"{told('rest_url')} must end in {_PATHS['rest_url']}, as in"
            f" 'http://127.0.0.1:8080/v1', was {rest_url!r}"
        )
    if exchange == "simulator" and rest_url is not None:
        raise InvalidRequestError(
            f"{told('exchange')} was 'simulator', which starts an exchange in this process and"
            f" takes no address: leave {told('rest_url')} and {told('ws_url')} out, or"
            f" {told('exchange')} to reach that address"
        )
    _check_replay(given["replay"], rest_url, told)
    if not isinstance(given["data_dir"], Path):
        raise InvalidRequestError(
            f"{told('data_dir')} must be a path such as Path('data'), was {given['data_dir']!r}"
        )
    pinned = given["pinned"]
    if isinstance(pinned, str) or not isinstance(pinned, Sequence):
        raise InvalidRequestError(
            f"{told('pinned')} must be a list such as ['KRW-BTC:1m'], was {pinned!r}"
        )
    for one in pinned:
        _series(one, told("pinned"))
    for name, bounds in (
        ("simulator_seed", None),
        ("critical_reserve", (0, 9)),
        ("max_concurrent_requests", (1, 10_000)),
        ("memory_limit_mb", (16, 1 << 20)),
        ("symbols_per_request", (1, 10_000)),
    ):
        value = given[name]
        if value is None and name == "symbols_per_request":
            continue
        if type(value) is not int:
            raise InvalidRequestError(f"{told(name)} must be a whole number, was {value!r}")
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            raise InvalidRequestError(f"{told(name)} must be {bounds[0]}..{bounds[1]}, was {value}")


def _series(name: Any, told: str) -> tuple[str, Timeframe]:
    symbol, _, timeframe = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not _SYMBOL.fullmatch(symbol):
        raise InvalidRequestError(
            f"{told} names a market and a timeframe, such as 'KRW-BTC:1m', was {name!r}"
        )
    return symbol, Timeframe.parse(timeframe)


def _check_replay(replay: Any, rest_url: str | None, told: Callable[[str], str]) -> None:
    if replay is None:
        return
    if not isinstance(replay, str) or not _REPLAY_NAME.fullmatch(replay):
        raise InvalidRequestError(
            f"{told('replay')} must be a name such as 'replay-0123abcd' (which a replay sends as"
            f" X-Simulated-Exchange), was {replay!r}"
        )
    if rest_url is None:
        raise InvalidRequestError(
            f"{told('replay')}={replay!r} names what is served at other addresses:"
            f" give {told('rest_url')} and {told('ws_url')} beside it"
        )


def _is_url(text: Any, schemes: tuple[str, ...]) -> bool:
    if not isinstance(text, str):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
