"""Owned background tasks: every task has a name, and an owner that waits for it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_RECOVERY_S: Final = 0.1
LONGEST_RECOVERY_S: Final = 30.0
SOUND_AFTER_S: Final = 10.0
"""Having run for so long a kept task is well, and its next recovery is quick again."""


async def to_the_end(work: Awaitable[Result]) -> Result:
    """Await what must not be left half done: who is cancelled meanwhile waits for it all the same.

    Whoever cleans up after a cancellation finds nobody at work any more.
    """
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class LoopEnd:
    """Ends something with the event loop that it runs in, should its owner have forgotten to.

    `asyncio.run` and `asyncio.Runner` close asynchronous generators that were left open, when
    all tasks are over (`loop.shutdown_asyncgens`). One is left open here. The same holds for
    `qasync.run`; whoever runs a loop by hand has to end things, or to run
    `loop.shutdown_asyncgens()` before the loop is closed.
    """

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        """Take what to do then."""
        self._end: Callable[[], Awaitable[None]] | None = end
        self._left_open = self._until_the_loop_ends()

    async def start(self) -> None:
        """Belong to the running loop."""
        with _told_of_generators(asyncio.get_running_loop()):
            await anext(self._left_open)

    async def stop(self) -> None:
        """It was ended. May be called twice, and by what ends it."""
        if self._end is not None:
            self._end = None
            await self._left_open.aclose()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._end is not None:
                end, self._end = self._end, None
                await end()


@contextmanager
def _told_of_generators(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have a loop notice the generators that are begun here: Qt's does not by itself.

    asyncio's loops set these hooks for the time they run (`run_forever`); qasync has a
    `run_forever` of its own, which does not, and all else from asyncio's.
    """
    hooks = sys.get_asyncgen_hooks()
    if hooks.firstiter is None:
        sys.set_asyncgen_hooks(
            firstiter=getattr(loop, "_asyncgen_firstiter_hook", None),
            finalizer=getattr(loop, "_asyncgen_finalizer_hook", None),
        )
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)


class TaskOwner:
    """Tasks of one part of the program, held strongly and ended together.

    Unlike an `asyncio.TaskGroup`, one failing task does not end the others: it is logged,
    and `failure` tells of it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._vital: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.failure: BaseException | None = None
        """The last unexpected error that ended a task."""
        self.lost = ""
        """Which vital task has ended before `close`, and why; empty while all run."""

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str, vital: bool = False) -> None:
        """Start a task; it ends by itself or in `close`.

        Args:
            work: What it does.
            name: What it is called in logs.
            vital: Its owner cannot work without it: should it end, `lost` tells of it.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        if vital:
            self._vital.add(task)
        self.own(task)

    def own(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that was started elsewhere."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    @property
    def closed(self) -> bool:
        """Whether `close` was called: what is begun now would be ended by nobody."""
        return self._closing

    async def close(self) -> None:
        """Cancel all tasks and wait for them. May be called twice.

        Called in one of them, that one is left to end by itself: it cannot wait for itself.
        """
        self._closing = True
        own = asyncio.current_task()
        while self._tasks - {own}:
            # A task cancelled before its first turn never runs, not even its `finally`.
            await asyncio.sleep(0)
            if not (tasks := tuple(self._tasks - {own})):
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task in self._vital:
            self._vital.discard(task)
            if not self._closing:
                self.lost = f"the task {task.get_name()!r} is gone: {_why(task)}"
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            logger.error("%s ended by an error: %s", task.get_name(), error, exc_info=error)


class KeptTask:
    """One task that is begun anew when it ends, whyever, until it is stopped.

    Later and later: after 0.1 s, then 0.2 s, … 30 s. A timer begins it, so that nobody who
    cancels tasks ends it for good.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        name: str,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[str], None] = lambda why: None,
    ) -> None:
        """Take what to do; nothing runs before `start`.

        Args:
            work: Makes what the task runs, which does not end by itself.
            name: Of the task.
            on_begin: Called before it is begun anew.
            on_end: Called with the reason when it has ended and nobody meant it to.
        """
        self._work = work
        self._name = name
        self._on_begin = on_begin
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._delay_s = FIRST_RECOVERY_S
        self._began_s = 0.0
        self.failure = ""
        """Why it does not run at this moment; empty while it does."""
        self.failures = 0

    def start(self) -> None:
        """Run; needs a running event loop."""
        if self._task is None and self._again is None:
            self._begin()

    async def stop(self) -> None:
        """End it for good. May be called twice."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._again, self.failure = None, ""
        self._began_s = loop.time()
        self._task = loop.create_task(self._work(), name=self._name)
        self._task.add_done_callback(self._ended)

    def _begin_anew(self) -> None:
        logger.info("%s works again", self._name)
        self._on_begin()
        self._begin()

    def _ended(self, task: asyncio.Task[None]) -> None:
        why = _why(task)
        if task is not self._task:
            return  # it was meant to end
        loop = asyncio.get_running_loop()
        if loop.time() - self._began_s >= SOUND_AFTER_S:
            self._delay_s = FIRST_RECOVERY_S
        self._task, self.failure = None, why
        self.failures += 1
        self._again = loop.call_later(self._delay_s, self._begin_anew)
        error = None if task.cancelled() else task.exception()
        # Who cancels all tasks ends a program: that is no fault.
        logger.log(
            logging.INFO if task.cancelled() else logging.WARNING,
            "%s failed and is begun anew in %.1f s: %s",
            self._name,
            self._delay_s,
            why,
            exc_info=error,
        )
        self._delay_s = min(LONGEST_RECOVERY_S, 2 * self._delay_s)
        self._on_end(why)


def _why(task: asyncio.Task[Any]) -> str:
    """Why a task has ended, in words."""
    if task.cancelled():
        return "it was cancelled"
    error = task.exception()
    return "it ended" if error is None else f"{type(error).__name__}: {error}"
