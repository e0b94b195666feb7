"""A sheet in a file that several processes change, one at a time.

The lock is the system's own, on the open file, and not the existence of another one: who is
killed lets go of it, who is stopped keeps it. It is held for one reading and one writing of
a page of text.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from upbit_backbone.clock import Clock
from upbit_backbone.routing.budget_sheet import (
    DamagedSheetError,
    Sheet,
    decode_sheet,
    encode_sheet,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

Result = TypeVar("Result")

LOCK_WAIT_S = 0.004
"""With the reading and writing it makes less than 5 ms."""
LOOK_EVERY_S = 0.0005
PAGE_BYTES = 4_096
"""The text is filled up with blanks to whole pages: a process that is killed while it writes
one leaves the old text or the new."""
MOST_BYTES = 16 * PAGE_BYTES
_LOCKED_BYTE = 1 << 30
"""Where Windows locks: far behind the text, for what is locked there cannot be read."""

_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    # A named pipe of that name would hold up its opener, and a link leads anywhere.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


class BudgetFile:
    """The file of one exchange; its folder and itself are made when they are missing.

    Blocks for at most 5 ms, so it belongs in a thread, and in one only.
    """

    def __init__(self, path: Path, clock: Clock, *, quiet_s: float) -> None:
        """Name it; nothing is touched before `change`.

        Args:
            path: Where it lies.
            clock: The machine's monotonic clock, the same for all processes.
            quiet_s: How long nothing is granted after what the file said was lost.
        """
        self.path = path
        self._clock = clock
        self._quiet_s = quiet_s
        self._patience_s = LOCK_WAIT_S
        self._seen = False

    def change(self, work: Callable[[Sheet, float], Result]) -> Result:
        """Read the sheet, let `work` change it, and write it back: all under the lock.

        Args:
            work: Is given the sheet and the time.

        Raises:
            BlockingIOError: another process holds the lock.
            OSError: the file or its folder cannot be used.
            ForeignSheetError: it is another version's; it stays as it is.
            DamagedSheetError: it was damaged or taken away. `work` was not done, and the
                file begins afresh, with a pause for everybody.
        """
        descriptor = self._opened()
        try:
            self._lock(descriptor)
            try:
                return self._changed(descriptor, work)
            finally:
                # Closing alone would not do while a child of this process is being made.
                _unlock(descriptor)
        finally:
            os.close(descriptor)

    def _opened(self) -> int:
        try:
            descriptor = os.open(self.path, _FLAGS, 0o600)
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, _FLAGS, 0o600)
        status = os.fstat(descriptor)
        fault = ""
        if not stat.S_ISREG(status.st_mode):
            fault = "is no regular file"
        elif sys.platform != "win32" and status.st_uid != os.geteuid():
            fault = "belongs to another user"
        if fault:
            os.close(descriptor)
            raise OSError(f"{self.path} {fault}")
        return descriptor

    def _lock(self, descriptor: int) -> None:
        give_up_at = self._clock.monotonic() + self._patience_s
        while not _try_to_lock(descriptor):
            if self._clock.monotonic() >= give_up_at:
                # Those who stand behind this call in its thread have waited already.
                self._patience_s = 0.0
                raise BlockingIOError(f"another program holds {self.path} and does not let go")
            time.sleep(LOOK_EVERY_S)
        self._patience_s = LOCK_WAIT_S

    def _changed(self, descriptor: int, work: Callable[[Sheet, float], Result]) -> Result:
        text = os.read(descriptor, MOST_BYTES + 1)
        now = self._clock.monotonic()
        try:
            sheet = self._read(text)
        except DamagedSheetError:
            os.ftruncate(descriptor, 0)
            _write(descriptor, _page(Sheet(quiet_until=now + self._quiet_s)))
            raise
        result = work(sheet, now)
        _write(descriptor, _page(sheet, at_least=len(text)))
        self._seen = True
        return result

    def _read(self, text: bytes) -> Sheet:
        if len(text) > MOST_BYTES:
            raise DamagedSheetError(f"it was damaged: more than {MOST_BYTES} bytes")
        if not text and self._seen:
            raise DamagedSheetError("it was emptied or removed")
        return decode_sheet(text)


def _page(sheet: Sheet, at_least: int = 0) -> bytes:
    text = encode_sheet(sheet)
    pages = -(-max(len(text), at_least) // PAGE_BYTES)
    return text.ljust(pages * PAGE_BYTES)


if sys.platform == "win32":

    def _try_to_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _try_to_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _write(descriptor: int, text: bytes) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    if os.write(descriptor, text) < len(text):
        raise OSError("the disk is full")
