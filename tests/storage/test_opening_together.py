"""Programs that open a file at one moment which has to be mended or brought up to date."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.storage.test_damage import candles, fill, opened, set_aside, stored
from tests.storage.test_database import kept, remember
from tests.storage.test_migrations import PAYLOADS
from upbit_backbone.origin import Origin
from upbit_backbone.storage.damage import Files
from upbit_backbone.storage.database import FILE_NAME, Database
from upbit_backbone.storage.file_lock import FileLock

Exclude = Callable[..., Awaitable[bool]]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs want the file alone at the same moment, each while the other has it open."""
    exclude: Exclude = FileLock.exclude
    barrier = asyncio.Barrier(2)
    waited: set[int] = set()

    async def at_once(lock: FileLock, **kwargs: float) -> bool:
        if id(lock) not in waited:
            waited.add(id(lock))
            await barrier.wait()
        return await exclude(lock, **kwargs)

    monkeypatch.setattr(FileLock, "exclude", at_once)


async def open_two(folder: Path, identity: str) -> tuple[Database, Database]:
    one, other = (Database(folder, Origin(identity)) for _ in range(2))
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(one.open(), other.open(), return_exceptions=True)
    try:
        assert not any(isinstance(outcome, BaseException) for outcome in outcomes)
        await one.write(remember("one"))
        await other.write(remember("other"))
    finally:
        await one.close()
        await other.close()
    assert kept(folder) >= {"one", "other"}
    return one, other


async def test_two_that_meet_a_damaged_file_mend_it_once_and_both_open_it(
    tmp_path: Path, together: None, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path)
    (tmp_path / f"{FILE_NAME}.damaged").touch()
    databases = await open_two(tmp_path, "test")
    assert sorted(bool(database.salvaged) for database in databases) == [False, True]
    assert set_aside(tmp_path) == ["market.set-aside-1.sqlite3"]
    async with opened(tmp_path) as database:
        assert await stored(database) == candles()


@pytest.mark.parametrize("schema", [1, 2])
async def test_two_that_meet_an_older_file_both_open_it(
    tmp_path: Path, together: None, schema: int
) -> None:
    shutil.copy(PAYLOADS / f"schema-{schema}.sqlite3", tmp_path / FILE_NAME)
    await open_two(tmp_path, "simulator-7")


async def test_a_file_that_another_program_replaces_between_two_holds_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written afterwards is in the file, and not in the one that was set aside."""
    for method in ("exclude", "share"):
        folder = tmp_path / method
        folder.mkdir()
        shutil.copy(PAYLOADS / "schema-1.sqlite3", folder / FILE_NAME)
        database = Database(folder, Origin("simulator-7"))
        hold: Exclude = getattr(FileLock, method)
        calls = 0

        async def between(
            lock: FileLock,
            *,
            hold: Exclude = hold,
            files: Files = database.files,
            **kwargs: float,
        ) -> bool:
            nonlocal calls
            calls += 1
            # The first hold that is shared is had by nobody before.
            if calls == (1 if hold.__name__ == "exclude" else 2):
                await lock.release()
                shutil.copy(PAYLOADS / "schema-1.sqlite3", files.finished)
                files.replace()
            return await hold(lock, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(FileLock, method, between)
            await database.open()
        try:
            await database.write(remember("late"))
        finally:
            await database.close()
        assert calls
        assert set_aside(folder) == ["market.set-aside-1.sqlite3"]
        assert "late" in kept(folder)
