"""A task that is begun anew whenever it ends, and an owner that tells which task is lost."""

from __future__ import annotations

import asyncio

import pytest

from upbit_backbone.tasks import SOUND_AFTER_S, KeptTask, TaskOwner

pytestmark = pytest.mark.steered_time


class Work:
    """Ends as it is told to."""

    def __init__(self) -> None:
        self.lives = 0
        self.ends_with: Exception | None = None
        self.end = asyncio.Event()

    async def run(self) -> None:
        self.lives += 1
        self.end.clear()
        await self.end.wait()
        if self.ends_with is not None:
            raise self.ends_with


def named(name: str) -> asyncio.Task[object]:
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == name)
    return task


@pytest.mark.parametrize("how", ["cancelled", "error", "return"])
async def test_it_is_begun_anew_however_it_ends(how: str, caplog: pytest.LogCaptureFixture) -> None:
    work, told = Work(), []
    kept = KeptTask(
        work.run,
        name="work",
        on_begin=lambda: told.append("begins"),
        on_end=lambda why: told.append(why),
    )
    kept.start()
    kept.start()
    await asyncio.sleep(1)
    assert (work.lives, kept.failure) == (1, "")
    if how == "cancelled":
        named("work").cancel()
    else:
        work.ends_with = OSError("gone") if how == "error" else None
        work.end.set()
    await asyncio.sleep(0.05)
    why = {"cancelled": "it was cancelled", "error": "OSError: gone", "return": "it ended"}[how]
    assert kept.failure == why
    await asyncio.sleep(0.1)
    assert (work.lives, kept.failure, kept.failures) == (2, "", 1)
    assert told == [why, "begins"]
    await kept.stop()
    await asyncio.sleep(60)
    assert work.lives == 2
    # Who cancels every task ends a program; that it is begun anew is then no trouble.
    levels = [record.levelname for record in caplog.records]
    assert levels == ([] if how == "cancelled" else ["WARNING"])


async def test_it_comes_back_later_and_later_until_it_has_been_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    kept = KeptTask(work.run, name="work")
    kept.start()
    waits_s = []
    for _ in range(12):
        await asyncio.sleep(0.01)
        named("work").cancel()
        began_s = asyncio.get_running_loop().time()
        lives = work.lives
        while work.lives == lives:
            await asyncio.sleep(0.01)
        waits_s.append(asyncio.get_running_loop().time() - began_s)
    assert waits_s[:3] == [pytest.approx(s, abs=0.03) for s in (0.1, 0.2, 0.4)]
    assert waits_s[-1] == pytest.approx(30, abs=0.03)
    await asyncio.sleep(SOUND_AFTER_S)
    named("work").cancel()
    await asyncio.sleep(0.15)
    assert kept.failure == ""
    await kept.stop()


async def test_stopped_while_it_is_away_it_stays_away(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    kept = KeptTask(work.run, name="work")
    kept.start()
    await asyncio.sleep(0.01)
    named("work").cancel()
    await asyncio.sleep(0.01)
    await kept.stop()
    await kept.stop()
    await asyncio.sleep(60)
    assert work.lives == 1


@pytest.mark.parametrize("how", ["cancelled", "error"])
async def test_an_owner_tells_of_a_vital_task_that_is_gone(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner, vital, other = TaskOwner(), Work(), Work()
    owner.spawn(vital.run(), name="vital", vital=True)
    owner.spawn(other.run(), name="other")
    await asyncio.sleep(0.01)
    named("other").cancel()
    await asyncio.sleep(0.01)
    assert owner.lost == ""
    if how == "cancelled":
        named("vital").cancel()
    else:
        vital.ends_with = OSError("a fault")
        vital.end.set()
    await asyncio.sleep(0.01)
    why = "it was cancelled" if how == "cancelled" else "OSError: a fault"
    assert owner.lost == f"the task 'vital' is gone: {why}"
    await owner.close()


async def test_an_owner_that_closes_has_lost_nothing() -> None:
    owner = TaskOwner()
    owner.spawn(Work().run(), name="vital", vital=True)
    await owner.close()
    assert owner.lost == ""
