"""What one kind of work takes of the event loop's thread."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

Value = TypeVar("Value")


class ProcessorTime:
    """Adds up the processor time of what it awaits, step by step.

    While the work waits others run, and their time is not counted. What is done for it by other
    tasks or in threads is not counted either.
    """

    def __init__(self) -> None:
        self.spent_s = 0.0

    async def metered(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Await the work."""
        return await _Steps(work, self)


class _Steps(Awaitable[Value]):
    """Hands the steps of work on to the event loop, and takes the time of each."""

    def __init__(self, work: Coroutine[Any, Any, Value], meter: ProcessorTime) -> None:
        self._work = work
        self._meter = meter

    def __await__(self) -> Generator[Any, Any, Value]:
        work, error = self._work, None
        try:
            while True:
                began_s = time.thread_time()
                try:
                    waits_for = work.send(None) if error is None else work.throw(error)
                except StopIteration as end:
                    answer: Value = end.value
                    return answer
                finally:
                    self._meter.spent_s += time.thread_time() - began_s
                error = None
                try:
                    yield waits_for
                except GeneratorExit:
                    raise
                except BaseException as thrown:  # noqa: BLE001  the work's to handle
                    error = thrown
        finally:
            work.close()
