"""Settings: all have a default, each can be given in the environment.

``UPBIT_BACKBONE_<FIELD>`` overrides a field, e.g. ``UPBIT_BACKBONE_DATA_DIR``. Flags of a
program override the environment (`dataclasses.replace`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs

from upbit_backbone.errors import InvalidRequestError

ENVIRONMENT_PREFIX = "UPBIT_BACKBONE_"
Exchange = Literal["upbit", "simulator"]
_REPLAY_NAME = re.compile(r"replay-[0-9a-f]{8}")


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

    def __post_init__(self) -> None:
        if self.exchange not in ("upbit", "simulator"):
            raise InvalidRequestError(
                f"exchange must be 'upbit' or 'simulator', was {self.exchange!r}"
            )
        if (self.rest_url is None) != (self.ws_url is None):
            raise InvalidRequestError(
                "rest_url and ws_url belong together: give both or neither,"
                f" were {self.rest_url!r} and {self.ws_url!r}"
            )
        for name, url, schemes in (
            ("rest_url", self.rest_url, ("http", "https")),
            ("ws_url", self.ws_url, ("ws", "wss")),
        ):
            if url is not None and not _is_url(url, schemes):
                raise InvalidRequestError(
                    f"{name} must be an address such as '{schemes[0]}://127.0.0.1:8080/…',"
                    f" was {url!r}"
                )
        if self.exchange == "simulator" and self.rest_url is not None:
            raise InvalidRequestError(
                "exchange='simulator' starts an exchange in this process and takes no address:"
                " leave rest_url out, or leave exchange out to reach that address"
            )
        if self.replay is not None:
            if not _REPLAY_NAME.fullmatch(self.replay):
                raise InvalidRequestError(
                    "replay must be a name such as 'replay-0123abcd' (a replay prints it),"
                    f" was {self.replay!r}"
                )
            if self.rest_url is None:
                raise InvalidRequestError(
                    f"replay={self.replay!r} names what is served at other addresses:"
                    " give rest_url and ws_url beside it"
                )
        for name, low, high in (
            ("critical_reserve", 0, 9),
            ("max_concurrent_requests", 1, 10_000),
            ("memory_limit_mb", 16, 1 << 20),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidRequestError(f"{name} must be {low}..{high}, was {value}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> BackboneConfig:
        """The defaults, overridden by the environment.

        Raises:
            InvalidRequestError: a value that cannot be read; the message names the variable.
        """
        environment = os.environ if environment is None else environment
        given: dict[str, Any] = {}
        for entry in fields(cls):
            variable = ENVIRONMENT_PREFIX + entry.name.upper()
            text = environment.get(variable)
            if text is None or text == "":
                continue
            if entry.name == "data_dir":
                given[entry.name] = Path(text).expanduser()
            elif isinstance(entry.default, int):
                try:
                    given[entry.name] = int(text)
                except ValueError:
                    raise InvalidRequestError(
                        f"{variable} must be a whole number, was {text!r}"
                    ) from None
            else:
                given[entry.name] = text
        return cls(**given)

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


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
