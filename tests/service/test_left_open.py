"""A program that ends without closing the service ends all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tests.loops import LoopFactory, application
from upbit_backbone import BackboneConfig, BackboneManager, MarketDataAPI
from upbit_backbone.errors import InvalidRequestError
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


def qt_loop() -> asyncio.AbstractEventLoop:
    import qasync

    return cast(asyncio.AbstractEventLoop, qasync.QEventLoop(application()))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, qt_loop])
def test_what_ends_with_its_loop_is_ended_once(new_loop: LoopFactory) -> None:
    ended: list[str] = []
    kept: list[LoopEnd] = []
    hooks = sys.get_asyncgen_hooks()

    async def leave_open(stops: bool) -> None:
        async def end() -> None:
            ended.append("ended")
            await loop_end.stop()  # as who ends everything does

        loop_end = LoopEnd(end)
        kept.append(loop_end)
        await loop_end.start()
        if stops:
            await loop_end.stop()

    for stops in (False, True):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(leave_open(stops))
        assert ended == ["ended"]
    assert sys.get_asyncgen_hooks() == hooks


async def opened_offline(folder: Path) -> MarketDataAPI:
    address = "//127.0.0.1:9/v1"  # a port that nobody listens at
    return await MarketDataAPI.create(
        BackboneConfig(rest_url=f"http:{address}", ws_url=f"ws:{address}", data_dir=folder)
    )


def test_who_ends_it_in_another_loop_is_refused_before_anything_is_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        api = first.run(opened_offline(tmp_path))
        manager = cast(BackboneManager, cast(Any, api._on_close).__self__)
        before = manager.get_system_health().layers["layer_2"], list(manager._stops)
        for wrong in (api.close, manager.shutdown, manager.initialize):
            with pytest.raises(InvalidRequestError, match="runs in another event loop"):
                second.run(wrong())
        assert before == (manager.get_system_health().layers["layer_2"], manager._stops)
        first.run(api.close())
        assert not manager._stops
        second.run(api.close())
    assert not [one for one in caplog.messages if "did not stop" in one]


async def test_whose_loop_is_closed_is_told_so_at_once() -> None:
    manager = BackboneManager(BackboneConfig(exchange="simulator"))

    async def never() -> None:
        await asyncio.Event().wait()

    manager._stops.append(("what its loop has left", never))
    manager._loop = asyncio.new_event_loop()
    manager._loop.close()
    for call in (manager.shutdown, manager.initialize):
        async with asyncio.timeout(1):
            with pytest.raises(InvalidRequestError, match=r"is closed already.* open a new one"):
                await call()
