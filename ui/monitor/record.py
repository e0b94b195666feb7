"""What the monitor remembers of the last minutes, for its plots."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

KEPT_S: Final = 300.0
"""The plots show the last five minutes."""
_ROOM: Final = 1_024


class Record:
    """Load and event-loop lag, a sample a second, from the start of the program on."""

    def __init__(self) -> None:
        self._samples = np.empty((3, _ROOM))
        self._first = self._end = 0

    def add(self, at_s: float, load: float, lag_ms: float) -> None:
        """Add a sample of a moment in epoch seconds; what is older than `KEPT_S` goes."""
        samples = self._samples
        if len(self) and at_s <= samples[0, self._end - 1]:
            # The clock was put back: a line does not run backwards.
            self._first = self._end
            self._make_room()
        elif self._end == samples.shape[1]:
            self._make_room()
        samples = self._samples
        samples[:, self._end] = at_s, load, lag_ms
        self._end += 1
        while samples[0, self._first] < at_s - KEPT_S:
            self._first += 1

    def __len__(self) -> int:
        return self._end - self._first

    def columns(self) -> NDArray[np.float64]:
        """Three rows: epoch seconds, load of 0 to 100, lag in milliseconds."""
        return self._samples[:, self._first : self._end]

    def _make_room(self) -> None:
        """Begin at the front again, in a table of its own: what was given out stays as it is."""
        kept = self.columns()
        self._samples = np.empty((3, max(_ROOM, 2 * kept.shape[1])))
        self._samples[:, : kept.shape[1]] = kept
        self._first, self._end = 0, kept.shape[1]
