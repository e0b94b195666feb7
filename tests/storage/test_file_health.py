"""What is told of a file that cannot be used, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource
from tests.storage.test_whole_answers import NOON, HeldReads, M, missing, opens, page, quiet, stored
from upbit_backbone.errors import StorageCorruptError, StorageUnavailableError
from upbit_backbone.storage.file_health import FileHealth

LOCKED = StorageUnavailableError("locked")


def test_what_kept_the_file_from_being_read_is_over_with_the_next_read_that_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = FileHealth(ManualClock())
    health.failed("read", LOCKED)
    assert (health.failure, health.read_failure) == ("locked", "locked")
    health.read_works()
    assert (health.failure, health.read_failure) == ("", "")


def test_a_read_that_works_says_nothing_of_writing(caplog: pytest.LogCaptureFixture) -> None:
    health = FileHealth(ManualClock())
    health.failed("stored", StorageUnavailableError("full"))
    health.read_works()
    assert (health.failure, health.read_failure) == ("full", "")
    health.failed("read", LOCKED)
    health.failed("stored", StorageUnavailableError("full"))
    health.read_works()
    assert (health.failure, health.read_failure) == ("full", "")


def test_damage_is_not_over_because_something_else_can_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = FileHealth(ManualClock())
    health.failed("read", StorageCorruptError("damaged"))
    health.read_works()
    assert health.failure == "damaged"


async def test_a_store_that_could_not_be_read_once_is_healthy_again_without_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(NOON + 60 * M)
    source = FakeExchangeSource(clock, [NOON + n * M for n in range(-300, 60)])
    async with quiet(tmp_path, source, clock) as storage:
        await storage.fetch(page(0, 6))
    async with quiet(tmp_path, source, clock) as storage:
        reads = HeldReads(storage, monkeypatch)
        reads.holding, reads.fails = False, True
        assert missing(await storage.fetch(stored(0, 6))) == set(range(6))
        assert storage.status().health == "degraded"
        reads.fails = False
        assert opens(await storage.fetch(stored(0, 6))) == set(range(6))
        assert storage.status().health == "healthy"
