"""Damage that a running program meets: noted once, counted, and never in the way of an answer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.storage.test_damage import KEY, OTHER, candles, fill, opened, stored
from upbit_backbone.errors import StorageCorruptError
from upbit_backbone.storage.candle_tables import read_rows
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql


async def damaged(folder: Path) -> None:
    """A file with the rows of one series unreadable, their blocks whole."""
    path = await fill(folder)
    with closing(sqlite3.connect(path)) as sql:
        ((root,),) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (KEY.table,))
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)


def read_all_rows(sql: Sql) -> None:
    sql.execute(f"SELECT * FROM {KEY.table}").fetchall()


async def test_a_marker_that_cannot_be_written_costs_no_answer_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.LOOK_S", 0.005)
    await damaged(tmp_path / "data")
    async with opened(tmp_path / "data") as database:
        marker = database.files.marker
        database.files.marker = tmp_path / "missing" / "marker"
        looks = 0
        look = database._look

        def counted(sql: Sql) -> None:
            nonlocal looks
            looks += 1
            look(sql)

        monkeypatch.setattr(database, "_look", counted)
        for _ in range(4):
            with pytest.raises(StorageCorruptError):
                await database.read(read_all_rows)
            with pytest.raises(StorageCorruptError):
                await database.write(read_all_rows)
            assert await stored(database, OTHER) == candles(OTHER)
            await database.write(lambda sql: None)
        looked = looks
        await eventually(lambda: looks >= looked + 3)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "cannot be marked" in caplog.text
        # There is room again: the next opening is to know.
        database.files.marker = marker
        assert await stored(database, OTHER) == candles(OTHER)
        assert marker.exists()


async def test_looking_out_for_other_programs_outlives_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("upbit_backbone.storage.database.LOOK_S", 0.005)
    async with opened(tmp_path) as database, opened(tmp_path) as other:
        told: list[int] = []

        def fail_once() -> None:
            told.append(len(told))
            if len(told) == 1:
                raise RuntimeError("a watcher of ours")

        database.watch(fail_once)
        for count in (1, 2):
            await other.write(
                lambda sql, n=count: sql.execute("INSERT INTO meta VALUES (?, 'y')", (str(n),))  # type: ignore[misc]
            )
            await eventually(lambda n=count: len(told) >= n)  # type: ignore[misc]
    assert "a watcher of ours" in caplog.text


async def test_a_damaged_block_that_the_writer_meets_is_counted(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("UPDATE blocks SET checksum = checksum + 1 WHERE id = (SELECT min(id)"
                    " FROM blocks)")  # fmt: skip
        sql.commit()
    async with opened(tmp_path) as database:
        for key in (KEY, OTHER):
            found = await database.write(
                partial(read_rows, key=key, span=Range(0, 1 << 60), latest=None, simulated=False)
            )
            assert found == candles(key)
        assert database.counts.damaged_blocks == 1
