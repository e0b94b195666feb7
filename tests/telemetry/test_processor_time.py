"""Work is as it is, and what it takes of the loop's thread is counted."""

from __future__ import annotations

import asyncio
import time

import pytest

from upbit_backbone.telemetry.processor_time import ProcessorTime


def compute(seconds: float) -> None:
    """Use the processor; what others use of it meanwhile does not count."""
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


async def test_only_the_steps_of_the_work_count() -> None:
    meter = ProcessorTime()

    async def work() -> int:
        compute(0.02)
        await asyncio.sleep(0.01)
        compute(0.02)
        return 7

    async def others() -> None:
        compute(0.05)

    neighbour = asyncio.create_task(others())
    assert await meter.metered(work()) == 7
    await neighbour
    assert 0.04 <= meter.spent_s < 0.06


async def test_errors_and_cancellations_go_through() -> None:
    meter = ProcessorTime()
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = asyncio.create_task(meter.metered(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert cleaned == [True]

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await meter.metered(fail())


async def test_a_limit_of_time_works_within_and_around() -> None:
    meter = ProcessorTime()

    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            return "too late"
        return "never"

    assert await meter.metered(impatient()) == "too late"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await meter.metered(asyncio.sleep(60))
