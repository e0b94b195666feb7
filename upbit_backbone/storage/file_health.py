"""Whether the file can be read and written: without it the service goes on, and says so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from upbit_backbone.clock import Clock
from upbit_backbone.errors import StorageCorruptError, StorageError, StorageUnavailableError

logger = logging.getLogger(__name__)


class FileHealth:
    """What keeps the file from being used; logged once when it begins and once when it ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.failure = ""
        """Why it cannot be used; empty while it can."""
        self.read_failure = ""
        """Why it cannot be read; empty while it can."""
        self._passes = False
        self.since_ms = clock.now_ms()

    async def written(self, write: Awaitable[object]) -> None:
        """Await a write; a full disk or a locked file costs the memory, never the answer."""
        try:
            await write
        except (StorageUnavailableError, StorageCorruptError) as error:
            self.failed("stored", error)
        else:
            self.works()

    def works(self) -> None:
        """Something was stored."""
        if self.failure:
            logger.info("storing works again")
            self._ended()

    def read_works(self) -> None:
        """Something was read: what kept it from being read has passed, unless it is damage."""
        if self.read_failure and self._passes:
            logger.info("reading works again")
            if self.failure == self.read_failure:
                self._ended()
            self.read_failure = ""

    def failed(self, what: str, error: StorageError) -> None:
        """Nothing can be `what` ("read", "stored")."""
        if not self.failure:
            logger.warning("nothing can be %s: %s", what, error)
            self.since_ms = self._clock.now_ms()
        self.failure = str(error)
        if what == "read":
            self.read_failure = self.failure
            self._passes = isinstance(error, StorageUnavailableError)

    def _ended(self) -> None:
        self.failure = self.read_failure = ""
        self.since_ms = self._clock.now_ms()
