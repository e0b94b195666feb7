"""What the person who starts the program asks for."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PySide6.QtGui import QImageWriter

from ui.language import Language
from upbit_backbone.config import DEFAULT, ENVIRONMENT_PREFIX, BackboneConfig, settle
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import Timeframe
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.records import Recording
from upbit_backbone.recorder.replay import check_speed

DEFAULT_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording to be served in this process, and how fast."""

    recording: Recording
    speed: float


@dataclass(frozen=True, slots=True)
class DesktopOptions:
    """Flags over environment over defaults; None: as the last time."""

    config: BackboneConfig
    automatic: bool = False
    """Try the exchange of `config`, else open what is stored, else start a simulator."""
    replay: Replay | None = None
    """What to show instead of an exchange."""
    symbol: str | None = None
    timeframe: Timeframe | None = None
    language: Language | None = None
    screenshot: Path | None = None
    after_s: float = DEFAULT_AFTER_S
    """When the screenshot is taken, counted from the moment the window is shown."""


def read_options(flags: argparse.Namespace) -> DesktopOptions:
    """Make options of the flags of `run_desktop_ui.py`.

    ``auto`` is what happens when neither a flag nor the environment names an exchange or an
    address.

    Raises:
        InvalidRequestError: a value that makes no sense; the message says what is expected.
        StorageCorruptError: the recording to replay is damaged.
    """
    settled = settle()
    config = settled.config
    given: dict[str, Any] = {
        name: value
        for name, value in (
            ("rest_url", flags.rest_url),
            ("ws_url", flags.ws_url),
            ("data_dir", flags.data_dir),
        )
        if value is not None
    }
    exchange = flags.exchange or os.environ.get(f"{ENVIRONMENT_PREFIX}EXCHANGE")
    if exchange is None and (config.rest_url or flags.rest_url or flags.ws_url):
        exchange = "upbit"
    if exchange is None and settled.origins["exchange"] != DEFAULT:
        exchange = config.exchange  # as the settings file says
    automatic = exchange in (None, "auto")
    given["exchange"] = "upbit" if automatic else exchange
    if flags.exchange == "simulator" and flags.rest_url is None and flags.ws_url is None:
        # The flag is stronger than an address in the environment.
        given |= {"rest_url": None, "ws_url": None}
    replay = _read_replay(flags)
    if replay is not None:
        automatic = False
        given |= {"exchange": "upbit", "rest_url": None, "ws_url": None}
    _check_screenshot(flags)
    return DesktopOptions(
        config=replace(config, **given),
        automatic=automatic,
        replay=replay,
        symbol=None if flags.symbol is None else flags.symbol.strip().upper(),
        timeframe=None if flags.timeframe is None else Timeframe.parse(flags.timeframe),
        language=flags.language,
        screenshot=flags.screenshot,
        after_s=DEFAULT_AFTER_S if flags.after is None else flags.after,
    )


def _check_screenshot(flags: argparse.Namespace) -> None:
    if flags.after is not None:
        if not 0 <= flags.after < math.inf:
            raise InvalidRequestError(f"--after must be 0 seconds or more, was {flags.after:g}")
        if flags.screenshot is None:
            raise InvalidRequestError(
                "--after is when a screenshot is taken: give --screenshot FILE beside it"
            )
    if flags.screenshot is None:
        return
    if not flags.screenshot.absolute().parent.is_dir():
        raise InvalidRequestError(
            f"--screenshot must lie in a folder that exists, was {str(flags.screenshot)!r}"
        )
    formats = [bytes(name.data()).decode() for name in QImageWriter.supportedImageFormats()]
    if flags.screenshot.suffix.removeprefix(".").lower() not in formats:
        raise InvalidRequestError(
            f"--screenshot must end in one of {', '.join(f'.{name}' for name in formats)},"
            f" was {flags.screenshot.name!r}"
        )


def _read_replay(flags: argparse.Namespace) -> Replay | None:
    if flags.replay is None:
        if flags.speed is not None:
            raise InvalidRequestError("--speed is that of a replay: give --replay FILE beside it")
        return None
    if any((flags.exchange, flags.rest_url, flags.ws_url)):
        raise InvalidRequestError(
            "--replay shows a recording instead of an exchange: leave out --exchange, --rest-url"
            " and --ws-url"
        )
    speed = 1.0 if flags.speed is None else flags.speed
    check_speed(speed)
    return Replay(open_recording(flags.replay), speed)
