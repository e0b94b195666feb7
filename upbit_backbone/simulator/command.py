"""``upbit-backbone simulate``: the simulated exchange as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from upbit_backbone.clock import (
    MINUTE_MS,
    Clock,
    FrozenClock,
    ShiftedClock,
    SystemClock,
    epoch_ms,
    utc_datetime,
)
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.interrupts import on_signals
from upbit_backbone.simulator.faults import parse_fault
from upbit_backbone.simulator.markets import TILE_START_MS
from upbit_backbone.simulator.recordings import RECORDED, load_recording
from upbit_backbone.simulator.script import Script, read_script
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.simulator.settings import read_settings


async def simulate(
    host: str,
    port: int,
    seed: int,
    as_recorded: str | None,
    now: str | None,
    *,
    settings: Sequence[str] = (),
    faults: Sequence[str] = (),
    script: Path | None = None,
    rate: float = 1.0,
) -> None:
    """Serve until SIGINT or SIGTERM; prints one line of JSON with the addresses first.

    Args:
        host: Address to listen on.
        port: 0 for any free one.
        seed: Which simulated market.
        as_recorded: Serve the recordings as they are, with a clock that starts at this
            time: ISO 8601, UTC if it names no zone.
        now: Stop the clock at this time.
        settings: ``NAME=VALUE`` of `SimulatorSettings`; the last one of a name counts.
        faults: ``KIND key=value …`` of `Fault`.
        script: A file with what happens on its markets (`script.py`).
        rate: How many times as often somebody trades.

    Raises:
        InvalidRequestError: a time, setting, fault or script was not understood, or the
            recordings have no such time.
        TransportError: the port is taken.
    """
    clock = _clock(as_recorded, now)
    simulator = Simulator(
        seed=seed,
        clock=clock,
        as_recorded=as_recorded is not None,
        host=host,
        port=port,
        settings=read_settings(settings),
        faults=[parse_fault(text, clock.now_ms()) for text in faults],
        script=None if script is None else _script(script, clock.now_ms()),
        rate=rate,
    )
    async with simulator:
        stopped = asyncio.Event()
        on_signals(stopped.set)
        addresses = {
            "rest_url": simulator.rest_url,
            "ws_url": simulator.ws_url,
            "control_url": simulator.control_url,
        }
        sys.stdout.write(msgspec.json.encode(addresses).decode() + "\n")
        sys.stdout.flush()  # whoever started this process waits for the line
        await stopped.wait()


def _script(file: Path, now_ms: int) -> Script:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise InvalidRequestError(
            f"--script was {str(file)!r}, which cannot be read: {error.strerror};"
            " expected a JSON file of events"
        ) from error
    return read_script(text, now_ms)


def _clock(as_recorded: str | None, now: str | None) -> Clock:
    begin_ms = None if as_recorded is None else _recorded_time("--as-recorded", as_recorded)
    if now is not None:
        read = read_time if as_recorded is None else _recorded_time
        return FrozenClock(read("--now", now))
    return SystemClock() if begin_ms is None else ShiftedClock(begin_ms)


def _recorded_time(option: str, text: str) -> int:
    ms = read_time(option, text)
    last = max(int(load_recording(symbol).minute[-1]) for symbol in RECORDED)
    end_ms = TILE_START_MS + (last + 1) * MINUTE_MS
    if not TILE_START_MS <= ms < end_ms:
        first, end = (f"{utc_datetime(at):%Y-%m-%dT%H:%MZ}" for at in (TILE_START_MS, end_ms))
        raise InvalidRequestError(
            f"{option} was {utc_datetime(ms):%Y-%m-%dT%H:%M:%SZ}: expected a time of the"
            f" recordings ({', '.join(RECORDED)}), {first} to {end}"
        )
    return ms


def read_time(option: str, text: str) -> int:
    """Epoch milliseconds of an ISO 8601 time; without a zone it is UTC.

    Raises:
        InvalidRequestError: not such a time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            f"{option} was {text!r}: expected a time such as 2025-09-10T12:00:00Z"
            " (ISO 8601, UTC if no zone is given)"
        ) from None
    return epoch_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
