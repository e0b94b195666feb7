"""A program that has no time to wait for its store: the file is closed all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource
from tests.storage.test_database import kept, remember
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import ClosedError
from upbit_backbone.manager import BackboneManager
from upbit_backbone.origin import Origin
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.sql import Sql
from upbit_backbone.storage.storage import Storage


class Slow:
    """A write that ends when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, sql: Sql) -> None:
        self.begun.set()
        assert self.go_on.wait(10)
        sql.execute("INSERT INTO meta VALUES ('slow', 'slow')")


def threads() -> set[threading.Thread]:
    """Those of connections: others belong to the loop, and end with it."""
    return {one for one in threading.enumerate() if "connection_worker" in one.name}


@pytest.mark.both_loops
@pytest.mark.parametrize("times", [1, 2])
async def test_closing_that_is_cancelled_leaves_no_thread(tmp_path: Path, times: int) -> None:
    before = threads()
    database = Database(tmp_path, Origin("test"))
    await database.open()
    slow = Slow()
    writing = asyncio.create_task(database.write(slow))
    await eventually(slow.begun.is_set)
    behind = asyncio.create_task(database.write(remember("behind")))
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    for _ in range(times):
        closing.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    slow.go_on.set()
    async with asyncio.timeout(5):
        await asyncio.wait([closing, writing, behind])
    assert closing.cancelled()
    assert isinstance(behind.exception(), ClosedError)
    # Nobody can be told any more, but it had begun.
    assert isinstance(writing.exception(), ClosedError)
    await eventually(lambda: threads() <= before)
    await database.close()
    assert kept(tmp_path) == {"slow"}


async def test_a_store_whose_stop_is_cancelled_is_closed(
    tmp_path: Path, clock: ManualClock
) -> None:
    before = threads()
    storage = Storage(
        FakeExchangeSource(clock),
        folder=tmp_path,
        origin=Origin("test"),
        clock=clock,
        memory_limit_bytes=1 << 20,
        rng=Random(1),
    )
    await storage.start()
    slow = Slow()
    writing = asyncio.create_task(storage._database.write(slow))
    await eventually(slow.begun.is_set)
    stopping = asyncio.create_task(storage.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    slow.go_on.set()
    async with asyncio.timeout(5):
        await asyncio.wait([stopping, writing])
    assert stopping.cancelled()
    await eventually(lambda: threads() <= before)
    await storage.stop()


def test_a_process_whose_closing_was_cut_short_ends(tmp_path: Path) -> None:
    program = f"""
import asyncio, threading
from pathlib import Path
from upbit_backbone.origin import Origin
from upbit_backbone.storage.database import Database

async def main():
    database = Database(Path({str(tmp_path)!r}), Origin("test"))
    await database.open()
    begun, go_on = threading.Event(), threading.Event()
    def slow(sql):
        begun.set()
        go_on.wait(10)
    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(begun.wait)
    threading.Timer(0.3, go_on.set).start()
    try:
        async with asyncio.timeout(0.05):
            await database.close()
    except TimeoutError:
        print("cut short")
    await asyncio.wait([writing])

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert "cut short" in ended.stdout


async def test_a_shutdown_that_is_cancelled_stops_the_parts_below_and_can_be_called_again(
    tmp_path: Path,
) -> None:
    manager = BackboneManager(BackboneConfig(data_dir=tmp_path))
    ended: list[str] = []
    waits = asyncio.Event()

    async def lower() -> None:
        ended.append("lower")

    async def upper() -> None:
        await waits.wait()
        ended.append("upper")

    manager._stops += [("lower", lower), ("upper", upper)]
    first = asyncio.create_task(manager.shutdown())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert ended == ["lower"]
    waits.set()
    await manager.shutdown()
    assert ended == ["lower", "upper"]
    await manager.shutdown()
    assert ended == ["lower", "upper"]
