"""The file of a recording: chunks that are each complete.

::

    file    = "UPBITREC" version(u32) chunk*
    chunk   = "CHNK" length(u32) checksum(u32) first_us(i64) last_us(i64) checksum(u32) payload
    payload = one zstd frame, with its own checksum and size, of one msgpack value

All numbers are little-endian. The first checksum (CRC-32) is of the payload, the second of
the chunk's head before it. The value of the first chunk is the header (a map), of every
other one an array of records. A chunk is written by one call, at least every second, so a
process that is killed leaves whole chunks and at most a piece of one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from struct import Struct
from typing import IO, NamedTuple

import msgspec
import zstandard

if sys.platform != "win32":
    import fcntl

from upbit_backbone.errors import InvalidRequestError, StorageCorruptError, StorageUnavailableError
from upbit_backbone.recorder.records import AnyRecord, Ended, Header, StreamRequest

MAGIC = b"UPBITREC"
VERSION = 1
CHUNK_BYTES = 256 * 1024
"""A chunk is closed from this size on; it is all that a recorder or a replay holds."""
MOST_CHUNK_BYTES = 64 << 20
"""No chunk is as large: one record more than `CHUNK_BYTES`, and a body has a few MB."""

_PREFIX = Struct("<8sI")
_CHUNK = Struct("<4sIIqq")
_CHECKSUM = Struct("<I")
_HEAD_BYTES = _CHUNK.size + _CHECKSUM.size
_CHUNK_MAGIC = b"CHNK"
_LEVEL = 3  # 10 times smaller than the frames, at some 200 MB/s

_records = msgspec.msgpack.Decoder(list[AnyRecord])
_header = msgspec.msgpack.Decoder(Header)


class WireFileWriter:
    """Appends records; holds at most one chunk of them."""

    def __init__(self, path: Path, header: Header, *, overwrite: bool) -> None:
        """Create the file and write its header.

        Raises:
            InvalidRequestError: the file exists and `overwrite` is False, it is a folder, or
                another recorder is writing to it (noticed on POSIX systems).
            StorageUnavailableError: it cannot be written.
        """
        self._path = path
        self._packer = zstandard.ZstdCompressor(
            level=_LEVEL, write_checksum=True, write_content_size=True
        )
        self._encoder = msgspec.msgpack.Encoder()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._first_us = self._last_us = 0
        self._has_failed = False
        self.written_bytes = 0
        """Size of the file."""
        self._file = _opened(path, overwrite=overwrite)
        try:
            self._write(_PREFIX.pack(MAGIC, VERSION))
            self._write_chunk(self._encoder.encode(header), 0, 0)
        except BaseException:
            self._file.close()
            raise

    def add(self, record: AnyRecord) -> None:
        """Take a record; a full chunk is written.

        Raises:
            StorageUnavailableError: the disk is full, say.
        """
        if not self._waiting:
            self._first_us = record.at_us
        self._last_us = record.at_us
        encoded = self._encoder.encode(record)
        self._waiting.append(encoded)
        self._waiting_bytes += len(encoded)
        if self._waiting_bytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a chunk.

        Raises:
            StorageUnavailableError: the disk is full, say.
        """
        if not self._waiting:
            return
        # An array of 32-bit length, whose items were encoded when they came.
        content = b"".join((b"\xdd" + len(self._waiting).to_bytes(4, "big"), *self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0
        self._write_chunk(content, self._first_us, self._last_us)

    def close(self) -> None:
        """Write what waits and close the file; may be called twice."""
        if self._file.closed:
            return
        try:
            if not self._has_failed:
                self.flush()
        finally:
            self._file.close()

    def _write_chunk(self, content: bytes, first_us: int, last_us: int) -> None:
        payload = self._packer.compress(content)
        head = _CHUNK.pack(_CHUNK_MAGIC, len(payload), zlib.crc32(payload), first_us, last_us)
        self._write(head + _CHECKSUM.pack(zlib.crc32(head)) + payload)

    def _write(self, data: bytes) -> None:
        try:
            written = self._file.write(data)
        except OSError as error:
            self._give_up()
            raise _cannot_write(self._path, error) from error
        if written != len(data):
            self._give_up()
            raise StorageUnavailableError(
                f"{self._path}: only {written} of {len(data)} bytes could be written:"
                " is the disk full? What was recorded before can be replayed"
            )
        self.written_bytes += len(data)

    def _give_up(self) -> None:
        """Write no more: behind a piece of a chunk nothing would be found again."""
        self._has_failed = True
        with suppress(OSError):
            self._file.truncate(self.written_bytes)


class _Chunk(NamedTuple):
    """Where a chunk's payload lies."""

    offset: int
    length: int
    first_us: int
    last_us: int


class WireFile:
    """A recording in the form of this module; implements `Recording`.

    Opening reads the file once, to check every chunk and to name its content; afterwards
    one chunk at a time is held.
    """

    def __init__(self, path: Path) -> None:
        """Check the whole file.

        Raises:
            InvalidRequestError: the file is missing, cannot be read, or is of a version
                that this program does not know.
            StorageCorruptError: it is damaged, or ends before its header.
        """
        self._path = path
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                digest.update(_read_prefix(path, file))
                self._chunks = list(_index(path, file, digest))
                self.readable_bytes = file.tell()
                """How much of the file is whole chunks."""
                file.seek(0, 2)
                self.lost_bytes = file.tell() - self.readable_bytes
                """Bytes of a chunk whose end is missing."""
        except OSError as error:
            raise cannot_read(path, error) from error
        if not self._chunks:
            raise StorageCorruptError(
                f"{path}: the recording breaks off before its header, there is nothing to replay;"
                " record it again"
            )
        self._digest = digest.hexdigest()
        with path.open("rb") as file:
            content = self._read(file, self._chunks[0])
        try:
            self._header = _header.decode(content)
        except msgspec.DecodeError as error:
            raise _damaged(path, self._chunks[0].offset, error) from error
        self._begins_us = self._find_beginning()
        self._ends_us = self._chunks[-1].last_us
        self._complete = self._has_end()

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
        return self._begins_us

    @property
    def ends_us(self) -> int:
        return self._ends_us

    @property
    def complete(self) -> bool:
        return self._complete

    def records(self) -> Generator[AnyRecord, None, None]:
        """All records; one chunk of them is held at a time.

        Raises:
            StorageCorruptError: the file was changed since it was opened.
        """
        try:
            with self._path.open("rb") as file:
                for chunk in self._chunks[1:]:
                    yield from self._decoded(file, chunk)
        except OSError as error:
            raise cannot_read(self._path, error) from error

    def _find_beginning(self) -> int:
        for record in self.records():
            if isinstance(record, StreamRequest):
                return record.at_us
        return self._chunks[-1].last_us

    def _has_end(self) -> bool:
        if len(self._chunks) == 1:
            return False
        with self._path.open("rb") as file:
            return isinstance(self._decoded(file, self._chunks[-1])[-1], Ended)

    def _decoded(self, file: IO[bytes], chunk: _Chunk) -> list[AnyRecord]:
        try:
            return _records.decode(self._read(file, chunk))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _damaged(self._path, chunk.offset, error) from error

    def _read(self, file: IO[bytes], chunk: _Chunk) -> bytes:
        file.seek(chunk.offset)
        payload = file.read(chunk.length)
        try:
            size = zstandard.frame_content_size(payload)
            if not 0 < size <= MOST_CHUNK_BYTES:
                raise _damaged(self._path, chunk.offset, f"its chunk would have {size} bytes")
            return zstandard.ZstdDecompressor().decompress(payload)
        except zstandard.ZstdError as error:
            raise _damaged(self._path, chunk.offset, error) from error


def refuse_to_replace(path: Path, *, overwrite: bool) -> None:
    """Look whether a recording may be made there; nothing is opened.

    Raises:
        InvalidRequestError: it is a folder, or a file and `overwrite` is False.
        StorageUnavailableError: no file can have that name.
    """
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise _cannot_write(path, error) from error
    if is_folder:
        raise InvalidRequestError(f"{path} is a folder: give the name of a file")
    if is_there and not overwrite:
        raise _already_there(path)


def _opened(path: Path, *, overwrite: bool) -> FileIO:
    """The file, empty, and locked where the system can: no two recorders write to one."""
    refuse_to_replace(path, overwrite=overwrite)
    try:
        # Never "w": it would empty a file before it is known that nobody is writing to it.
        file = _created_or_there(path, overwrite=overwrite)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_size:
            file.truncate(0)
    except BlockingIOError:
        file.close()
        raise InvalidRequestError(
            f"{path}: another recorder is writing to it: give another name"
        ) from None
    except OSError as error:
        file.close()
        raise _cannot_write(path, error) from error
    return file


def _created_or_there(path: Path, *, overwrite: bool) -> FileIO:
    try:
        return path.open("xb", buffering=0)
    except FileExistsError:
        if not overwrite:
            raise _already_there(path) from None
        return path.open("r+b", buffering=0)


def _already_there(path: Path) -> InvalidRequestError:
    """A recording never replaces a file unasked."""
    return InvalidRequestError(
        f"{path} exists already and is not overwritten: give another name, or --force"
    )


def cannot_read(path: Path, error: OSError) -> InvalidRequestError:
    """A file that is not there, or may not be read."""
    if isinstance(error, FileNotFoundError):
        return InvalidRequestError(
            f"{path}: there is no such file; expected a recording made by 'upbit-backbone record'"
        )
    return InvalidRequestError(f"{path} cannot be read: {error.strerror or error}")


def _read_prefix(path: Path, file: IO[bytes]) -> bytes:
    prefix = file.read(_PREFIX.size)
    if len(prefix) == _PREFIX.size and prefix.startswith(MAGIC):
        _, version = _PREFIX.unpack(prefix)
        if version != VERSION:
            raise InvalidRequestError(
                f"{path} is a recording of form {version}, and this program reads form {VERSION}:"
                " replay it with the program that recorded it"
            )
        return prefix
    if MAGIC.startswith(prefix[: len(MAGIC)]):
        raise StorageCorruptError(
            f"{path}: the recording breaks off before its header, there is nothing to replay;"
            " record it again"
        )
    raise InvalidRequestError(
        f"{path} is no recording: expected a file made by 'upbit-backbone record',"
        " or a captured socket (.jsonl.gz)"
    )


def _index(path: Path, file: IO[bytes], digest: hashlib._Hash) -> Iterator[_Chunk]:
    """Walk the chunks to the end of the file, or to a piece of one, and stand before it."""
    while True:
        start = file.tell()
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            file.seek(start)
            return
        magic, length, checksum, first_us, last_us = _CHUNK.unpack_from(head)
        (head_checksum,) = _CHECKSUM.unpack_from(head, _CHUNK.size)
        if magic != _CHUNK_MAGIC or zlib.crc32(head[: _CHUNK.size]) != head_checksum:
            raise _damaged(path, start, "no chunk begins there")
        if length > MOST_CHUNK_BYTES:
            raise _damaged(path, start, f"its chunk would have {length} bytes")
        payload = file.read(length)
        if len(payload) < length:
            file.seek(start)
            return
        if zlib.crc32(payload) != checksum:
            raise _damaged(path, start, "a chunk's checksum does not fit")
        digest.update(head)
        digest.update(payload)
        yield _Chunk(start + _HEAD_BYTES, length, first_us, last_us)


def _damaged(path: Path, offset: int, reason: object) -> StorageCorruptError:
    return StorageCorruptError(
        f"{path} is damaged at byte {offset} ({reason}): take another copy of the recording"
    )


def _cannot_write(path: Path, error: OSError) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"{path} cannot be written: {error.strerror or error};"
        " give a file in a folder that exists and has space;"
        " what was recorded before can be replayed"
    )
