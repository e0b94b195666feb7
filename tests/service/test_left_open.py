"""A program that ends without closing the service ends all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from upbit_backbone.tasks import LoopEnd

OPENS = """
import asyncio, sys
from pathlib import Path
from upbit_backbone import BackboneConfig, MarketDataAPI

async def main():
    # A port that nobody listens at: it opens offline.
    config = BackboneConfig(
        rest_url="http://127.0.0.1:9/v1", ws_url="ws://127.0.0.1:9/v1", data_dir=Path(sys.argv[1])
    )
    api = await MarketDataAPI.create(config)
    print(api.get_system_status().identity)
    {then}

{run}
"""
RUNS = {
    "returns": ("pass", "asyncio.run(main())"),
    "raises": ("raise KeyError('a bug')", "asyncio.run(main())"),
    "bare loop": ("pass", "asyncio.new_event_loop().run_until_complete(main())"),
}


@pytest.mark.parametrize("how", RUNS)
async def test_a_program_that_forgets_to_close_ends(how: str, tmp_path: Path) -> None:
    then, run = RUNS[how]
    program = OPENS.format(then=then, run=run)
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.stdout.strip() == "127.0.0.1_9"
    said = [line for line in ended.stderr.splitlines() if "starting offline" not in line]
    if how == "returns":
        assert (ended.returncode, said) == (0, [])
    if how == "raises":
        assert (ended.returncode, said[-1]) == (1, "KeyError: 'a bug'")
        assert "begun anew" not in ended.stderr
    if how != "bare loop":
        # The file was closed: its log is gone with the last connection.
        assert not list(tmp_path.rglob("*-wal"))


def test_what_ends_with_its_loop_is_ended_once() -> None:
    ended: list[str] = []

    async def leave_open(stops: bool) -> None:
        async def end() -> None:
            ended.append("ended")
            await loop_end.stop()  # as who ends everything does

        loop_end = LoopEnd(end)
        await loop_end.start()
        if stops:
            await loop_end.stop()

    asyncio.run(leave_open(stops=False))
    assert ended == ["ended"]
    asyncio.run(leave_open(stops=True))
    assert ended == ["ended"]
