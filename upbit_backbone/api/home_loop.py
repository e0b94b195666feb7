"""In which thread an event loop runs now: asked with every hit of memory."""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import Protocol, cast

from upbit_backbone.errors import InvalidRequestError


def other_loop() -> InvalidRequestError:
    """What is told who calls in another loop."""
    return InvalidRequestError(
        "this service runs in another event loop, and a service belongs to one: open a second"
        " one here, or ask with asyncio.run_coroutine_threadsafe in the other loop"
    )


class HomeLoop(Protocol):
    """A loop, as a hit asks it: one attribute, no call.

    `asyncio.get_running_loop` would cost a hit as much as its answer does (130 ns).
    """

    _thread_id: int | None
    """Of the thread in which it runs at this moment; None: it does not run."""


class _Nowhere:
    _thread_id: int | None = None


NOWHERE: HomeLoop = _Nowhere()
"""Of a service that does not run."""


class _Asked:
    """A loop that is not asyncio's own, such as Qt's: it is asked whether it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = get_ident()

    @property
    def _thread_id(self) -> int | None:
        return self._thread if self._loop.is_running() else None


def home_loop(loop: asyncio.AbstractEventLoop) -> HomeLoop:
    """The loop that runs in this thread now, for `get_ident() == home._thread_id` later.

    asyncio's own loops keep that number by themselves, for the time they run (`run_forever`).
    """
    if getattr(loop, "_thread_id", None) == get_ident():
        return cast(HomeLoop, loop)
    return cast(HomeLoop, _Asked(loop))
