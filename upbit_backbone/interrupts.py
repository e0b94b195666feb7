"""Ctrl+C while a program starts and while it ends: it is gone at once, without a traceback.

Imports take the better part of a second, and a `KeyboardInterrupt` in the middle of one is a
page of traceback. So this is the first module that a program of ours imports, and imports next
to nothing itself.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

INTERRUPTED = 130
"""As a shell tells of Ctrl+C; also when told to end (SIGTERM)."""


def leave_at_once() -> None:
    """From now on SIGINT and SIGTERM end the process with 130: nothing is open, or no longer.

    Signals that are ignored, as `nohup` and a script's background have it, stay so.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def leave_in_order() -> bool:
    """From now on Ctrl+C raises `KeyboardInterrupt` again: there is work that has to be told.

    SIGTERM waits for the event loop to take it.

    Returns:
        Whether `leave_at_once` was in force; where it never was, nothing changes.
    """
    if signal.getsignal(signal.SIGINT) is not _leave:
        return False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return True


def on_signals(act: Callable[[], object]) -> None:
    """In the running event loop SIGINT and SIGTERM do this from now on, once or more often."""
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows' loops have no signal handlers (there Ctrl+C interrupts `asyncio.run`), and
        # other threads than the main one hear of none.
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, act)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
