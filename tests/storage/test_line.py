"""A connection whose caller is gone ends, whatever its thread is about to do."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import aiosqlite
import pytest

from upbit_backbone.storage.line import Line, connected
from upbit_backbone.storage.sql import Sql

FOR_EVER = (
    "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter)"
    " SELECT count(*) FROM counter"
)


async def test_a_statement_that_begins_after_it_was_told_to_end_is_ended_too(
    tmp_path: Path,
) -> None:
    line = Line(await connected(tmp_path / "one.sqlite3", isolation_level=None))
    begun, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(sql: Sql) -> None:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait(20)
        sql.execute(FOR_EVER)

    working = asyncio.create_task(line.run(work))
    await begun.wait()
    stopping = asyncio.create_task(line.stop())
    await asyncio.sleep(0)  # told once, while no statement ran
    goes_on.set()
    async with asyncio.timeout(20):
        await stopping
    with pytest.raises(aiosqlite.OperationalError, match="interrupted"):
        await working
