"""A series as CSV: one header line, one candle a line, nothing else, so that all programs read it.

Each line says whose candle it is, in its last columns. What is known beyond the candles lies in
a file beside it, with the checksum of this one.
"""

from __future__ import annotations

import csv
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from upbit_backbone.clock import epoch_ms
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.series_files.header import (
    COLUMNS,
    Header,
    cannot_read,
    cannot_write,
    check_header,
    decoded,
    unfinished,
)

PIECE_ROWS = 20_000
TIME = "open_time_utc"
WHOSE = ("symbol", "timeframe", "exchange", "simulated")
_WRITTEN = (TIME, *COLUMNS, *WHOSE)
_CHUNK_BYTES = 1 << 20
_TIME_LENGTH = len("2025-09-01 00:00:00")


def beside(path: Path) -> Path:
    """The file that says what is known beyond the candles."""
    return path.with_name(f"{path.name}.json")


class CsvWriter:
    """Writes a file under another name until it is whole."""

    def __init__(self, path: Path, key: SeriesKey, identity: str, *, simulated: bool) -> None:
        """Begin a file.

        Raises:
            StorageUnavailableError: it cannot be written.
        """
        self._path = path
        self._whose = (key.symbol, key.timeframe.value, identity, str(simulated).lower())
        self._checksum = 0
        try:
            self._file = unfinished(path).open("wb")
            self._append([_WRITTEN])
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, rows: CandleSeries) -> None:
        """Append candles.

        Raises:
            StorageUnavailableError: the disk is full.
        """
        texts = np.datetime_as_string(rows.time.astype("datetime64[ms]"), unit="s").tolist()
        times = [text.replace("T", " ") for text in texts]
        # Python writes the shortest text that reads back as the same float.
        numbers = [getattr(rows, name).tolist() for name in COLUMNS]
        whose = [[text] * len(rows) for text in self._whose]
        try:
            self._append(zip(times, *numbers, *whose, strict=True))
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def finish(self, header: Header) -> tuple[Path, ...]:
        """Make the file whole and give it its name.

        Raises:
            StorageUnavailableError: it cannot be written.
        """
        said = beside(self._path)
        try:
            _close_whole(self._file)
            with unfinished(said).open("wb") as file:
                file.write(msgspec.structs.replace(header, checksum=self._checksum).encoded())
                os.fsync(file.fileno())
            # Candles without it prove less; beside other candles it would say what is not so.
            said.unlink(missing_ok=True)
            unfinished(self._path).replace(self._path)
            unfinished(said).replace(said)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return self._path, said

    def discard(self) -> None:
        """Delete what is not finished."""
        self._file.close()
        for path in (self._path, beside(self._path)):
            unfinished(path).unlink(missing_ok=True)

    def _append(self, lines: object) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)  # type: ignore[arg-type]
        data = text.getvalue().encode()
        self._checksum = zlib.crc32(data, self._checksum)
        self._file.write(data)


class CsvReader:
    """Reads a file of an export, with or without the one beside it."""

    def __init__(self, path: Path) -> None:
        """Read what it says of itself.

        Raises:
            InvalidRequestError: it cannot be read, or is not what an export writes.
        """
        self._path = path
        self._read_bytes = 0
        try:
            self._size = path.stat().st_size
            said = beside(path).read_bytes() if beside(path).exists() else None
            self._columns, self._width, first = self._first_lines()
            if said is None:
                self.header = self._header_of_line(first)
            else:
                self.header = decoded(said, str(beside(path)))
                self._check_whole()
        except OSError as error:
            raise cannot_read(path, error) from error

    @property
    def share(self) -> float:
        """How much of the file the pieces so far were."""
        return min(1.0, self._read_bytes / max(1, self._size))

    def pieces(self) -> Iterator[CandleSeries]:
        """The candles from the first on, unchecked.

        Raises:
            InvalidRequestError: a line that cannot be read, or is of another series.
        """
        try:
            with self._path.open("rb") as raw, _text(raw) as file:
                lines = csv.reader(file, strict=True)
                next(lines)
                count = 0
                while read := list(islice(lines, PIECE_ROWS)):
                    self._read_bytes = raw.tell()
                    if rows := [row for row in read if row]:
                        yield self._series(rows, count)
                        count += len(rows)
        except OSError as error:
            raise cannot_read(self._path, error) from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"{self._path} is not a CSV file: {error}") from error

    def place(self, row: int) -> str:
        """Which line of the file: it may have empty ones."""
        with self._path.open("rb") as raw, _text(raw) as file:
            lines = csv.reader(file, strict=True)
            next(lines)
            filled = (lines.line_num for fields in lines if fields)
            return f"line {next(islice(filled, row, None))}"

    def _first_lines(self) -> tuple[dict[str, int], int, list[str]]:
        try:
            with self._path.open("rb") as raw, _text(raw) as file:
                lines = csv.reader(file, strict=True)
                names = next(lines, [])
                first = next(lines, [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"{self._path} is not a CSV file: {error}") from error
        missing = [name for name in _WRITTEN if name not in names]
        if missing:
            raise InvalidRequestError(
                f"{self._path} lacks the columns {', '.join(missing)}: its first line has to name"
                f" {', '.join(_WRITTEN)}"
            )
        return {name: names.index(name) for name in _WRITTEN}, len(names), first

    def _header_of_line(self, first: list[str]) -> Header:
        """What the first candle says stands for all: each line is compared with it."""
        if len(first) <= max(self._columns.values()):
            raise InvalidRequestError(f"{self._path} has no candle")
        symbol, timeframe, identity, simulated = (first[self._columns[name]] for name in WHOSE)
        if simulated.lower() not in ("true", "false"):
            raise InvalidRequestError(
                f"{self._path}, line 2: simulated has to be true or false, was {simulated!r}"
            )
        header = Header(
            symbol,
            Timeframe.parse(timeframe),
            identity,
            simulated.lower() == "true",
            None,
            0,
            None,
        )
        check_header(header, f"{self._path}, line 2")
        return header

    def _check_whole(self) -> None:
        checksum = 0
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                checksum = zlib.crc32(chunk, checksum)
        if checksum != self.header.checksum:
            raise InvalidRequestError(
                f"{self._path} is not the file that {beside(self._path).name} was written for: it"
                f" was changed since. Export it again; or delete {beside(self._path)} to import the"
                " candles alone, without what is known between them"
            )

    def _series(self, rows: list[list[str]], count: int) -> CandleSeries:
        header = self.header
        whose = (
            header.symbol,
            header.timeframe.value,
            header.identity,
            str(header.simulated).lower(),
        )
        try:
            columns = list(zip(*rows, strict=True))
            if len(columns) != self._width:
                raise ValueError(len(columns))
            for name, expected in zip(WHOSE, whose, strict=True):
                if {text.lower() for text in set(columns[self._columns[name]])} != {
                    expected.lower()
                }:
                    raise ValueError(name)
            time = _times(columns[self._columns[TIME]])
            numbers = [np.array([*map(float, columns[self._columns[name]])]) for name in COLUMNS]
        except (ValueError, IndexError):
            raise self._bad_line(rows, count, whose) from None
        flags = np.ones(len(time), bool), np.zeros(len(time), bool)
        return CandleSeries(
            header.symbol,
            header.timeframe,
            [time, *numbers, *flags],
            source="storage",
            simulated=header.simulated,
        )

    def _bad_line(
        self, rows: list[list[str]], count: int, whose: Sequence[str]
    ) -> InvalidRequestError:
        for number, row in enumerate(rows, count):
            if len(row) != self._width:
                why = f"has {len(row)} fields, the first line {self._width}"
                return self._bad(number, why, row)
            texts = [row[self._columns[name]] for name in _WRITTEN]
            for name, text, expected in zip(WHOSE, texts[-len(WHOSE) :], whose, strict=True):
                if text.lower() != expected.lower():
                    return self._bad(number, f"{name} is not {expected!r}", row)
            try:
                _ms(texts[0])
            except ValueError:
                return self._bad(number, f"{TIME} is no time such as 2025-09-01 00:00:00", row)
            for name, text in zip(COLUMNS, texts[1:], strict=False):
                try:
                    float(text)
                except ValueError:
                    return self._bad(number, f"{name} is no number", row)
        return self._bad(count, "or one below it cannot be read", rows[0])

    def _bad(self, number: int, why: str, row: list[str]) -> InvalidRequestError:
        place = self.place(number)
        return InvalidRequestError(f"{self._path}, {place}: {why}: {','.join(row)[:80]!r}")


def _times(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    if {len(text) for text in texts} == {_TIME_LENGTH}:
        return np.array(texts, "datetime64[ms]").astype(np.int64)
    return np.array([_ms(text) for text in texts], np.int64)


def _ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return epoch_ms(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _text(raw: BinaryIO) -> io.TextIOWrapper:
    # Spreadsheets put a mark before the first column's name.
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _close_whole(file: io.BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
