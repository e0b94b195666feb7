"""What a recording holds: its header, and one record for each thing that came or was sent."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal, Protocol

import msgspec

StreamForm = Literal["DEFAULT", "SIMPLE"]
"""Full or short keys; a recording has one of the two throughout."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording says of itself, before anything else."""

    exchange: str
    """The origin's name: ``upbit``, ``simulator-1``, or host and port."""
    mark: str | None
    """The `X-Simulated-Exchange` of the source; None: it carried none."""
    symbols: tuple[str, ...]
    types: tuple[str, ...]
    form: StreamForm
    started_ms: int
    """The recorder's wall clock at `at_us` 0, UTC epoch milliseconds."""
    exchange_offset_ms: int
    """The exchange's clock minus the recorder's, as its first answer told it."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Base of all records; both times are the recorder's, at the moment of receiving."""

    at_us: int
    """Microseconds since the recording began, by a clock that never goes back."""
    wall_ms: int
    """UTC epoch milliseconds by the recorder's wall clock, which may be set meanwhile."""


class RestAnswer(Record, frozen=True, array_like=True, tag="rest"):
    """A whole answer to a GET."""

    target: str
    """Path and query below the REST address, as asked: ``/ticker?markets=KRW-BTC``."""
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    """Uncompressed, byte for byte: it was asked for without compression."""


class RestFailure(Record, frozen=True, array_like=True, tag="rest failed"):
    """A GET that got no answer."""

    target: str
    reason: str


class StreamOpened(Record, frozen=True, array_like=True, tag="opened"):
    """The stream's upgrade."""

    status: int
    headers: tuple[tuple[str, str], ...]


class StreamRequest(Record, frozen=True, array_like=True, tag="sent"):
    """What was subscribed; the first one is where a replay begins."""

    text: str


class StreamFrame(Record, frozen=True, array_like=True, tag="frame"):
    """One data frame."""

    binary: bool
    data: bytes


class StreamBreak(Record, frozen=True, array_like=True, tag="break"):
    """The stream was lost, refused, or not reached; what came until the next is missing."""

    reason: str


class Ended(Record, frozen=True, array_like=True, tag="end"):
    """The recorder was ended on purpose; a recording without it lacks its end."""


AnyRecord = (
    RestAnswer | RestFailure | StreamOpened | StreamRequest | StreamFrame | StreamBreak | Ended
)


class Recording(Protocol):
    """A readable recording, whatever its file's form."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str:
        """``replay-`` and eight hex digits of a hash of the file's content."""
        ...

    @property
    def header(self) -> Header: ...

    @property
    def begins_us(self) -> int:
        """`at_us` of the first subscription; what lies before is known from the start."""
        ...

    @property
    def ends_us(self) -> int:
        """`at_us` of the last record."""
        ...

    @property
    def complete(self) -> bool:
        """Whether it was ended on purpose."""
        ...

    def records(self) -> Generator[AnyRecord, None, None]:
        """All records in their order, read from the file piece by piece.

        Raises:
            StorageCorruptError: a piece cannot be read any more.
        """
        ...


def duration_s(recording: Recording) -> float:
    """How long a replay at normal speed takes."""
    return max(0, recording.ends_us - recording.begins_us) / 1e6
