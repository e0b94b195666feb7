"""Blocking work on files, beside the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def beside_the_loop(work: Callable[[], Result]) -> Result:
    """Run `work` on a thread and wait until it is done, also when the waiting is cancelled.

    Whoever cleans up after a cancellation finds nobody at work on the file any more.
    """
    task = asyncio.create_task(asyncio.to_thread(work), name="series file")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
