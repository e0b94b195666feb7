"""A series as Parquet, through pyarrow, which is an optional extra."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import CandleSeries
from upbit_backbone.storage.series_files.header import (
    COLUMNS,
    Header,
    cannot_read,
    cannot_write,
    decoded,
    unfinished,
)

PIECE_ROWS = 20_000
TIME = "open_time"
SAYS = b"upbit_backbone"
"""The key of what the file says of itself, in its own metadata."""


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InvalidRequestError(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow,"
            " or choose a name that ends in .csv"
        ) from error
    return pyarrow, pyarrow.parquet


class ParquetWriter:
    """Writes a file under another name until it is whole; a piece is a row group."""

    def __init__(self, path: Path) -> None:
        """Begin a file.

        Raises:
            InvalidRequestError: pyarrow is not installed.
            StorageUnavailableError: the file cannot be written.
        """
        self._arrow, parquet = _pyarrow()
        self._path = path
        fields = [(TIME, self._arrow.timestamp("ms", tz="UTC"))]
        fields += [(name, self._arrow.float64()) for name in COLUMNS]
        self._schema = self._arrow.schema(
            [self._arrow.field(name, kind, nullable=False) for name, kind in fields]
        )
        self._checksum = 0
        try:
            self._writer = parquet.ParquetWriter(unfinished(path), self._schema, compression="zstd")
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, rows: CandleSeries) -> None:
        """Append candles.

        Raises:
            StorageUnavailableError: the disk is full.
        """
        columns = [rows.time, *(getattr(rows, name) for name in COLUMNS)]
        # `pyarrow.array` would import pandas where that is installed, which takes a second.
        arrays = [
            self._arrow.Array.from_buffers(
                field.type, len(rows), [None, self._arrow.py_buffer(np.ascontiguousarray(column))]
            )
            for column, field in zip(columns, self._schema, strict=True)
        ]
        try:
            self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._checksum = _checksum(rows, self._checksum)

    def finish(self, header: Header) -> tuple[Path, ...]:
        """Make the file whole and give it its name.

        Raises:
            StorageUnavailableError: it cannot be written.
        """
        try:
            sealed = msgspec.structs.replace(header, checksum=_sealed(header, self._checksum))
            self._writer.add_key_value_metadata({SAYS: sealed.encoded()})
            self._writer.close()
            with unfinished(self._path).open("rb+") as file:
                os.fsync(file.fileno())
            unfinished(self._path).replace(self._path)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return (self._path,)

    def discard(self) -> None:
        """Delete what is not finished."""
        # A full disk cannot take the end of a file that is deleted now.
        with suppress(OSError):
            self._writer.close()
        unfinished(self._path).unlink(missing_ok=True)


class ParquetReader:
    """Reads a file of an export."""

    def __init__(self, path: Path) -> None:
        """Read what it says of itself.

        Raises:
            InvalidRequestError: pyarrow is not installed; the file cannot be read, or is not
                what an export writes.
        """
        self._arrow, self._parquet = _pyarrow()
        self._path = path
        self._rows = 0
        self._all_rows = 0
        try:
            with self._parquet.ParquetFile(path) as file:
                said = (file.metadata.metadata or {}).get(SAYS)
                names = set(file.schema_arrow.names)
                self._all_rows = int(file.metadata.num_rows)
        except OSError as error:
            raise cannot_read(path, error) from error
        except (self._arrow.ArrowException, ValueError) as error:
            raise self._not_parquet(error) from error
        if said is None:
            raise InvalidRequestError(
                f"{path} does not say whose candles it holds: only what 'upbit-backbone db export'"
                " wrote can be imported"
            )
        missing = [name for name in (TIME, *COLUMNS) if name not in names]
        if missing:
            raise InvalidRequestError(f"{path} lacks the columns {', '.join(missing)}")
        self.header = decoded(said, str(path))
        if self.header.checksum is None:
            raise InvalidRequestError(
                f"{path} has no checksum, so damage in it could not be seen: export it again"
            )

    @property
    def share(self) -> float:
        """How much of the file the pieces so far were."""
        return self._rows / max(1, self._all_rows)

    def pieces(self) -> Iterator[CandleSeries]:
        """The candles from the first on, unchecked.

        Raises:
            InvalidRequestError: the file is damaged; of damage within numbers it is known after
                the last piece.
        """
        self._rows = 0
        checksum = 0
        header = self.header
        try:
            with self._parquet.ParquetFile(self._path) as file:
                for batch in self._batches(file):
                    self._rows += batch.num_rows
                    if any(column.null_count for column in batch.columns):
                        raise InvalidRequestError(f"{self._path} lacks a value of a candle")
                    stamps = batch.column(TIME).cast(self._arrow.timestamp("ms", tz="UTC"))
                    # Other ways import pandas where that is installed.
                    time = np.array(np.from_dlpack(stamps.view(self._arrow.int64())))
                    numbers = [
                        np.array(np.from_dlpack(batch.column(name)), np.float64) for name in COLUMNS
                    ]
                    flags = np.ones(len(time), bool), np.zeros(len(time), bool)
                    rows = CandleSeries(
                        header.symbol,
                        header.timeframe,
                        [time, *numbers, *flags],
                        source="storage",
                        simulated=header.simulated,
                    )
                    checksum = _checksum(rows, checksum)
                    yield rows
        except InvalidRequestError:
            raise
        except OSError as error:
            raise cannot_read(self._path, error) from error
        except (self._arrow.ArrowException, ValueError) as error:
            raise self._not_parquet(error) from error
        if _sealed(header, checksum) != header.checksum:
            raise InvalidRequestError(
                f"{self._path} is damaged, or was changed since it was exported: its checksum does"
                " not fit what it holds; export it again"
            )

    def place(self, row: int) -> str:
        """Counted from 1, as other programs show it."""
        return f"row {row + 1}"

    def _batches(self, file: Any) -> Iterator[Any]:
        # Asked for all row groups at once, it would hold all of them.
        for group in range(file.num_row_groups):
            yield from file.iter_batches(
                PIECE_ROWS, row_groups=[group], columns=[TIME, *COLUMNS], use_threads=False
            )

    def _not_parquet(self, error: Exception) -> InvalidRequestError:
        why = " ".join(str(error).split())
        return InvalidRequestError(f"{self._path} is not a whole Parquet file: {why}")


def _checksum(rows: CandleSeries, before: int) -> int:
    """The crc32 of candles one after the other, in whatever pieces they come."""
    columns = [np.asarray(rows.time, "<i8"), *(getattr(rows, name) for name in COLUMNS)]
    table = np.empty((len(rows), len(columns)), "<i8")
    for number, column in enumerate(columns):
        table[:, number] = np.ascontiguousarray(column).view("<i8")
    return zlib.crc32(table.data, before)


def _sealed(header: Header, checksum: int) -> int:
    """The crc32 of candles, and of what is said of them."""
    return zlib.crc32(msgspec.structs.replace(header, checksum=None).encoded(), checksum)
