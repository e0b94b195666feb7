"""What a file of candles says of itself: whose they are, and what is known beside them.

In Parquet it is one value of the file's own metadata; a CSV file, which has no room for it
without becoming unreadable for others, has a small JSON file beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.errors import InvalidRequestError, StorageUnavailableError
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import LIVE, KnownSpan
from upbit_backbone.storage.spans import Range

FORMATS = (".csv", ".parquet")
VERSION = 1
_SYMBOL = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")
COLUMNS = ("open", "high", "low", "close", "volume", "value")


class FileSpan(msgspec.Struct, frozen=True):
    """One stretch of open times of which the file says what there is."""

    start: datetime
    end: datetime
    state: Literal["complete", "empty", "before_listing"]
    evidence: str

    @classmethod
    def of(cls, span: KnownSpan) -> FileSpan:
        """What is known, as a file tells it."""
        assert span.state in ("complete", "empty", "before_listing"), span
        return cls(
            utc_datetime(span.start_ms), utc_datetime(span.end_ms), span.state, span.evidence
        )

    @property
    def settled(self) -> bool:
        """Whether the exchange was asked; else a stream alone had told."""
        return self.evidence != LIVE

    @property
    def range(self) -> Range:
        return Range(epoch_ms(self.start), epoch_ms(self.end))


class Header(msgspec.Struct, frozen=True):
    """What a file says of itself."""

    symbol: str
    timeframe: Timeframe
    identity: str
    """Whose candles they are: the name of the store's folder."""
    simulated: bool
    mark: str | None
    """The simulator's name, if it is known."""
    candles: int
    coverage: tuple[FileSpan, ...] | None
    """What is known beyond the candles; None: each candle proves itself, and no more."""
    checksum: int | None = None
    """The crc32 of the CSV file that it lies beside; in Parquet of the candles and of all else
    that is said here."""
    version: int = VERSION

    @property
    def key(self) -> SeriesKey:
        return SeriesKey(self.symbol, self.timeframe)

    def encoded(self) -> bytes:
        """As JSON for people."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)


class SeriesReader(Protocol):
    """A file of candles that is read piece by piece. All of it blocks."""

    header: Header

    @property
    def share(self) -> float:
        """How much of the file the pieces so far were: 0.0 to 1.0."""
        ...

    def pieces(self) -> Iterator[CandleSeries]:
        """The candles from the first on, unchecked; may be begun again."""
        ...

    def place(self, row: int) -> str:
        """Where in the file a person finds the candle with this number, counted from 0."""
        ...


class SeriesWriter(Protocol):
    """A file of candles that is written piece by piece. All of it blocks."""

    def write(self, rows: CandleSeries) -> None:
        """Append candles."""
        ...

    def finish(self, header: Header) -> tuple[Path, ...]:
        """Make the file whole and give it its name; returns all files that belong to it."""
        ...

    def discard(self) -> None:
        """Delete what is not finished. May be called twice, and after `finish`."""
        ...


def decoded(data: bytes, where: str) -> Header:
    """Read what a file says of itself.

    Raises:
        InvalidRequestError: it is not what an export wrote.
    """
    try:
        header = msgspec.json.decode(data, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"{where} does not say what an export says ({error}): export the series again"
        ) from error
    check_header(header, where)
    return header


def check_header(header: Header, where: str) -> None:
    """Refuse what no series of ours is called, and ranges that no candles fill.

    Raises:
        InvalidRequestError: of that kind.
    """
    if header.version > VERSION:
        raise InvalidRequestError(
            f"{where} was written by a newer program (version {header.version}, expected"
            f" {VERSION}): update this one"
        )
    # Tables are called by it.
    if not _SYMBOL.fullmatch(header.symbol):
        raise InvalidRequestError(
            f"{where} names the market {header.symbol!r}: expected one such as 'KRW-BTC'"
        )
    for span in header.coverage or ():
        start_ms, end_ms = span.range
        # All of time before a listing begins with the calendar, which is on no week's grid.
        aligned = header.timeframe.floor_ms(end_ms) == end_ms and (
            span.state == "before_listing" or header.timeframe.floor_ms(start_ms) == start_ms
        )
        if start_ms >= end_ms or not aligned:
            raise InvalidRequestError(
                f"{where} speaks of a range that no candles of {header.timeframe} fill:"
                f" {span.start.isoformat()} to {span.end.isoformat()}; export the series again"
            )


def joined(spans: Iterable[FileSpan]) -> Iterator[FileSpan]:
    """Ascending spans, those that say the same and touch as one."""
    last: FileSpan | None = None
    for span in spans:
        if last is None:
            last = span
        elif (last.end, last.state, last.evidence) == (span.start, span.state, span.evidence):
            last = msgspec.structs.replace(last, end=span.end)
        else:
            yield last
            last = span
    if last is not None:
        yield last


def suffix_of(path: Path) -> str:
    """Which format a file has, by its name.

    Raises:
        InvalidRequestError: none that is known.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InvalidRequestError(
            f"{path}: the name has to end in {' or '.join(FORMATS)}, which says how candles are"
            " written"
        )
    return suffix


def unfinished(path: Path) -> Path:
    """The name that a file has until it is whole."""
    return path.with_name(f"{path.name}.unfinished")


def cannot_write(path: Path, error: OSError) -> StorageUnavailableError:
    """The sentence for a file that cannot be written."""
    return StorageUnavailableError(
        f"{path} cannot be written ({error.strerror or error}): check that the folder is there and"
        " can be written, and that the disk is not full"
    )


def cannot_read(path: Path, error: OSError) -> InvalidRequestError:
    """The sentence for a file that cannot be read."""
    why = " ".join((error.strerror or str(error)).split())
    return InvalidRequestError(f"{path} cannot be read: {why}")
