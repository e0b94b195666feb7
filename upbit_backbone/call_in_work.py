"""What layers know of the call that they work for, without having it handed down.

A call runs in a context of its own (`contextvars`), and so do the tasks that are begun for it.
Work that no caller waits for, such as settling or a stream, belongs to none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from upbit_backbone.protocol import Priority


class CallInWork:
    """One call of the API on its way."""

    __slots__ = ("_steps", "asked", "over", "priority")

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.asked = False
        """The exchange's limit has let a request of it through: it has begun."""
        self.over = False
        self._steps: list[str] = []

    @property
    def path(self) -> str:
        """How far down it has come, as in `BackboneMetadata.path`."""
        return " → ".join(self._steps)

    def reached(self, step: str) -> None:
        """Take that it came to a layer; where it came before changes nothing."""
        if step not in self._steps:
            self._steps.append(step)


_IN_WORK: ContextVar[CallInWork | None] = ContextVar("call in work", default=None)


def call_in_work() -> CallInWork | None:
    """The call that this is done for; None: no caller waits for it any more, or none ever did."""
    call = _IN_WORK.get()
    return None if call is None or call.over else call


def reached(step: str) -> None:
    """Note for the call in work, if there is one, that it came to a layer."""
    call = call_in_work()
    if call is not None:
        call.reached(step)


@contextmanager
def working_for(call: CallInWork) -> Iterator[None]:
    """Everything within is done for this call."""
    before = _IN_WORK.set(call)
    try:
        yield
    finally:
        call.over = True
        _IN_WORK.reset(before)
