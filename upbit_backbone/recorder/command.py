"""``upbit-backbone record`` and ``upbit-backbone replay``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random

import msgspec

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.interrupts import on_signals
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.record import Recorder, Source, Tally, Wanted
from upbit_backbone.recorder.records import Recording, duration_s
from upbit_backbone.recorder.replay import ReplayServer


async def record(
    path: Path,
    source: Source,
    wanted: Wanted,
    *,
    clock: Clock,
    overwrite: bool,
    as_json: bool = False,
) -> None:
    """Record until the wanted time is over, SIGINT or SIGTERM; prints a line of summary last.

    With `as_json` that line is an object.

    Raises:
        BackboneError: as `Recorder.run`.
    """
    stopped = asyncio.Event()
    on_signals(stopped.set)
    recorder = Recorder(
        source,
        wanted,
        path,
        clock=clock,
        rng=Random(),
        overwrite=overwrite,
        on_begin=lambda: _tell(f"recording {', '.join(wanted.symbols)} to {path}"),
    )
    tally = await recorder.run(stopped)
    if tally.size_bytes == 0:
        _tell("ended before the first answer: nothing was recorded")
        return
    sys.stdout.write(f"{summary(path, tally, as_json=as_json)}\n")


def summary(path: Path, tally: Tally, *, as_json: bool) -> str:
    """What a recording holds, in a sentence or as an object."""
    if as_json:
        return msgspec.json.encode({"file": str(path), **tally._asdict()}).decode()
    return (
        f"recorded {tally.seconds:.1f} s to {path}: {tally.answers:,} answers,"
        f" {tally.frames:,} frames, {tally.breaks} breaks, {tally.size_bytes:,} bytes"
    )


async def replay(path: Path, *, speed: float, host: str, port: int) -> None:
    """Serve a recording until SIGINT or SIGTERM; prints one line of JSON with the addresses.

    What lacks of the recording, and that it has ended, is said on standard error.

    Raises:
        BackboneError: the file is no whole recording, the speed out of range, the port taken.
    """
    recording = open_recording(path)
    stopped = asyncio.Event()
    server = ReplayServer(
        recording,
        speed=speed,
        host=host,
        port=port,
        on_end=lambda: _tell("ended") if server.failure is None else stopped.set(),
    )
    async with server:
        on_signals(stopped.set)
        if not recording.complete:
            _tell(missing_end(recording))
        addresses = {"rest_url": server.rest_url, "ws_url": server.ws_url}
        sys.stdout.write(msgspec.json.encode(addresses).decode() + "\n")
        sys.stdout.flush()  # whoever started this process waits for the line
        await stopped.wait()
    if server.failure is not None:
        raise server.failure


def missing_end(recording: Recording) -> str:
    """What a person is told of a recording that was not ended on purpose."""
    ended_ms = recording.header.started_ms + recording.ends_us // 1_000
    return (
        f"{recording.path}: the end is missing (the recorder was killed, or the file cut off):"
        f" replaying the {duration_s(recording):.1f} s that are whole,"
        f" up to {utc_datetime(ended_ms):%Y-%m-%dT%H:%M:%SZ}"
    )


def _tell(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
