"""A connection as a piece of work sees it: on its thread, with what was learnt of the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from upbit_backbone.errors import StorageCorruptError

Result = TypeVar("Result")


class RawConnection(Protocol):
    """What is used of a connection of the driver."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...
    @property
    def in_transaction(self) -> bool: ...


@dataclass(slots=True)
class Sealed:
    """How far the blocks of one series reach, and how much lies beside them."""

    upsert: str
    """The statement that writes one row."""
    seal_at: int
    """So many loose rows become a block."""
    start_ms: int = 0
    end_ms: int = 0
    """The blocks lie in ``start_ms <= open time < end_ms``; equal: there are none."""
    above: int = 0
    """Rows at or after `end_ms`; at most, rows written twice are counted twice."""
    below: int = 0
    """Rows before `start_ms`."""


@dataclass(slots=True)
class Learnt:
    """What a connection knows without asking; true until another program writes."""

    tables: set[str] = field(default_factory=set)
    sealed: dict[str, Sealed] = field(default_factory=dict)
    live_spans: dict[Hashable, int] = field(default_factory=dict)
    """Where the newest span of a series begins, while it is one that the stream proved."""

    def forget(self) -> None:
        """Ask again: another program wrote, or a transaction was rolled back."""
        self.tables.clear()
        self.sealed.clear()
        self.live_spans.clear()


@dataclass(slots=True)
class TierCounts:
    """Candles read from each tier of the file, and blocks that were not what was written."""

    from_blocks: int = 0
    from_rows: int = 0
    damaged_blocks: int = 0


class Sql:
    """One connection. Only the connection's thread may use it."""

    __slots__ = ("_raw", "counts", "execute", "executemany", "learnt", "met_damage", "wishes")

    def __init__(self, raw: RawConnection) -> None:
        self._raw = raw
        self.execute = raw.execute
        self.executemany = raw.executemany
        self.learnt = Learnt()
        self.counts = TierCounts()
        self.met_damage = False
        """Whether a piece of work went on although SQLite said that the file is damaged."""
        self.wishes: deque[Work[None]] = deque()
        """What a reader, who may not write, leaves for the writer to do."""

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def roll_back(self) -> None:
        """End a failed transaction, and forget what was learnt in it."""
        self.learnt.forget()
        # SQLite itself rolls back when the disk is full or fails.
        if self._raw.in_transaction:
            self.execute("ROLLBACK")


Work = Callable[[Sql], Result]
"""One function that runs on a connection's thread as a whole."""


def is_damage(error: BaseException | None) -> bool:
    """Whether the file itself is not what was written into it."""
    if isinstance(error, UnicodeDecodeError | StorageCorruptError):
        return True
    # What Python says of text that is none has no name.
    if str(error).startswith("Could not decode to UTF-8"):
        return True
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
