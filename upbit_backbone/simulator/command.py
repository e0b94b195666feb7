"""``upbit-backbone simulate``: the simulated exchange as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from upbit_backbone.clock import Clock, FrozenClock, ShiftedClock, SystemClock, epoch_ms
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.simulator.server import Simulator


async def simulate(
    host: str, port: int, seed: int, as_recorded: str | None, now: str | None
) -> None:
    """Serve until SIGINT or SIGTERM; prints one line of JSON with the addresses first.

    Args:
        host: Address to listen on.
        port: 0 for any free one.
        seed: Which simulated market.
        as_recorded: Serve the recordings as they are, with a clock that starts at this
            time: ISO 8601, UTC if it names no zone.
        now: Stop the clock at this time.

    Raises:
        InvalidRequestError: a time was not understood, or both were given.
        TransportError: the port is taken.
    """
    simulator = Simulator(
        seed=seed,
        clock=_clock(as_recorded, now),
        as_recorded=as_recorded is not None,
        host=host,
        port=port,
    )
    async with simulator:
        stopped = asyncio.Event()
        _on_signals(stopped)
        addresses = {
            "rest_url": simulator.rest_url,
            "ws_url": simulator.ws_url,
            "control_url": simulator.control_url,
        }
        sys.stdout.write(msgspec.json.encode(addresses).decode() + "\n")
        sys.stdout.flush()  # whoever started this process waits for the line
        await stopped.wait()


def _clock(as_recorded: str | None, now: str | None) -> Clock:
    if now is not None:
        return FrozenClock(read_time("--now", now))
    if as_recorded is not None:
        return ShiftedClock(read_time("--as-recorded", as_recorded))
    return SystemClock()


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


def _on_signals(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows' loops have no signal handlers; there Ctrl+C interrupts `asyncio.run`.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
