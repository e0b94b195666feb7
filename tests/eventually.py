"""Waiting for something to become true, instead of sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

_LOOK_EVERY_S = 0.005


async def eventually(predicate: Callable[[], Value], *, timeout: float = 5.0) -> Value:
    """Wait until `predicate` gives something truthy, and return that.

    It is asked at once, after each pause, and once more at the end. Exceptions of the
    predicate come through: a predicate that may fail for a while catches for itself.

    Raises:
        AssertionError: it was not true within `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        too_late = loop.time() >= deadline
        value = predicate()
        if value:
            return value
        if too_late:
            raise AssertionError(f"not within {timeout:g} s: {_source(predicate)}; last: {value!r}")
        await asyncio.sleep(_LOOK_EVERY_S)


def _source(predicate: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(predicate).split())
    except (OSError, TypeError):
        return repr(predicate)
