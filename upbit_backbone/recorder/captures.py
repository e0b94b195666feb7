"""A socket captured by another program: lines of JSON, gzipped.

The first line holds what was sent, ``{"dir":"out","sent_ts":…,"raw":…}``; each further one
a frame, ``{"dir":"in","recv_ts":…,"raw":…}``. `raw` is the frame's exact text, times are
seconds since the epoch at the receiver. It has no REST, and nothing is invented for it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from upbit_backbone.errors import InvalidRequestError, StorageCorruptError
from upbit_backbone.recorder.frames import form_of, kind_and_code
from upbit_backbone.recorder.records import AnyRecord, Ended, Header, StreamFrame, StreamRequest
from upbit_backbone.recorder.wire_file import cannot_read

MAGIC = b"\x1f\x8b"  # of gzip
_MOST_LINE_CHARACTERS = 4 << 20


class _Line(msgspec.Struct):
    dir: Literal["in", "out"]
    raw: str
    recv_ts: float | None = None
    sent_ts: float | None = None

    @property
    def seconds(self) -> float | None:
        return self.recv_ts if self.dir == "in" else self.sent_ts


_line = msgspec.json.Decoder(_Line)


class CapturedSocket:
    """A captured socket; implements `Recording`."""

    def __init__(self, path: Path) -> None:
        """Read the whole file once, line by line, to check it and to know what it holds.

        Raises:
            InvalidRequestError: the file cannot be read, or holds something else.
            StorageCorruptError: it breaks off, or a line is damaged.
        """
        self._path = path
        self._started_ms = 0
        self._digest = _digest(path)
        codes: set[str] = set()
        kinds: set[str] = set()
        last = frame = None
        for record in self._lines():
            if last is None:
                self._started_ms = record.wall_ms
            last = record
            if isinstance(record, StreamFrame):
                frame = frame or record
                if (found := kind_and_code(record.data)) is not None:
                    kinds.add(found[0])
                    codes.add(found[1])
        if last is None or frame is None:
            raise InvalidRequestError(
                f"{path}: the captured socket holds no frame, there is nothing to replay"
            )
        self._ends_us = last.at_us
        self._header = Header(
            exchange="upbit",
            mark=None,
            symbols=tuple(sorted(codes)),
            types=tuple(sorted(kinds)),
            form=form_of(frame.data),
            started_ms=self._started_ms,
            exchange_offset_ms=0,
        )

    @property
    def path(self) -> Path:
        return self._path

    @property
    def name(self) -> str:
        return f"replay-{self._digest[:8]}"

    @property
    def header(self) -> Header:
        return self._header

    @property
    def begins_us(self) -> int:
        return 0

    @property
    def ends_us(self) -> int:
        return self._ends_us

    @property
    def complete(self) -> bool:
        return True

    def records(self) -> Generator[AnyRecord, None, None]:
        """The request and the frames, one line at a time, and that they end."""
        last = None
        for last in self._lines():
            yield last
        if last is not None:
            yield Ended(last.at_us, last.wall_ms)

    def _lines(self) -> Iterator[StreamRequest | StreamFrame]:
        first_s: float | None = None
        at_us = 0
        for number, line in enumerate(self._texts(), 1):
            try:
                entry = _line.decode(line)
            except msgspec.DecodeError:
                entry = None
            if entry is None or entry.seconds is None:
                raise self._not_understood(number)
            first_s = entry.seconds if first_s is None else first_s
            # The receiver's clock was the wall's; a step back must not turn the order.
            at_us = max(at_us, round((entry.seconds - first_s) * 1e6))
            wall_ms = round(entry.seconds * 1e3)
            if entry.dir == "out":
                yield StreamRequest(at_us, wall_ms, entry.raw)
            else:
                yield StreamFrame(at_us, wall_ms, False, entry.raw.encode())

    def _texts(self) -> Iterator[str]:
        try:
            with gzip.open(self._path, "rt", encoding="utf-8") as file:
                while line := file.readline(_MOST_LINE_CHARACTERS):
                    yield line
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise StorageCorruptError(
                f"{self._path} is damaged ({error}): take another copy of the capture"
            ) from error
        except OSError as error:
            raise cannot_read(self._path, error) from error

    def _not_understood(self, number: int) -> Exception:
        if number == 1:
            return InvalidRequestError(
                f"{self._path} is no recording: expected a file made by 'upbit-backbone record',"
                " or a captured socket (.jsonl.gz)"
            )
        return StorageCorruptError(
            f"{self._path} is damaged in line {number}: take another copy of the capture"
        )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error
