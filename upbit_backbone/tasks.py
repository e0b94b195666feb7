"""Owned background tasks: every task has a name, and an owner that waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class TaskOwner:
    """Tasks of one part of the program, held strongly and ended together.

    Unlike an `asyncio.TaskGroup`, one failing task does not end the others: it is logged,
    and `failure` tells of it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failure: BaseException | None = None
        """The last unexpected error that ended a task."""

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Start a task; it ends by itself or in `close`."""
        self.own(asyncio.get_running_loop().create_task(work, name=name))

    def own(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that was started elsewhere."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel all tasks and wait for them. May be called twice."""
        while self._tasks:
            # A task cancelled before its first turn never runs, not even its `finally`.
            await asyncio.sleep(0)
            if not (tasks := tuple(self._tasks)):
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            logger.error("%s ended by an error: %s", task.get_name(), error, exc_info=error)
