"""Two minutes recorded, a third killed in its middle, and both replayed at 1× and at 100×."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.recorder.events import decoded
from tests.recorder.processes import command, ended, run, server
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.records import StreamFrame, duration_s

SYMBOLS = ("KRW-BTC", "KRW-XRP")


@pytest.mark.slow
async def test_two_minutes_and_a_killed_third_replay_alike_at_both_speeds(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.rec", tmp_path / "killed.rec"
    async with server("simulate") as (exchange, _):
        flags = (*exchange.flags, "--symbols", ",".join(SYMBOLS))
        async with command("record", whole, *flags, "--seconds", 120) as process:
            async with asyncio.timeout(180):
                out, err = await process.communicate()
            assert process.returncode == 0, err
            assert b"recorded 120." in out
        async with command("record", killed, *flags) as process:
            assert process.stderr is not None
            async with asyncio.timeout(60):
                # The recorder before asked in the same second: a 429 may be told first.
                while b"recording" not in (line := await process.stderr.readline()):
                    assert b"429" in line, line
            await asyncio.sleep(30)  # the middle of a minute that is recorded as it passes
            await ended(process, signal.SIGKILL)
    assert open_recording(whole).complete
    assert duration_s(open_recording(whole)) == pytest.approx(120, abs=1)
    assert not open_recording(killed).complete
    assert 28 <= duration_s(open_recording(killed)) <= 31
    for file in (whole, killed):
        await _replays_alike(file)
    # A file cut anywhere says the same.
    killed.write_bytes(killed.read_bytes()[:-7])
    await _replays_alike(killed)
    assert (await run("replay", killed, "--speed", "0"))[0] == 2


async def _replays_alike(file: Path) -> None:
    recording = open_recording(file)
    number = sum(isinstance(record, StreamFrame) for record in recording.records())
    async with server("replay", file, "--speed", 100) as (fast, _):
        at_100 = await decoded(fast, SYMBOLS, number, 30)
    async with server("replay", file) as (real, _):
        at_1 = await decoded(real, SYMBOLS, number, 150)
    assert len(at_1) > 200
    assert at_1 == at_100
