"""A series out of the store into a file, piece by piece, with what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import CandleSeries
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, read_rows
from upbit_backbone.storage.coverage import BEGINNING_MS, FOREVER_MS, Coverage, KnownSpan
from upbit_backbone.storage.coverage_table import read_coverage, read_series_coverage
from upbit_backbone.storage.series_files.csv_file import CsvWriter, beside
from upbit_backbone.storage.series_files.header import (
    FileSpan,
    Header,
    SeriesWriter,
    joined,
    suffix_of,
)
from upbit_backbone.storage.series_files.parquet_file import ParquetWriter
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql, Work
from upbit_backbone.tasks import to_the_end

Result = TypeVar("Result")
PIECE_ROWS = 50_000
"""Read at once: some 3 MB, whatever the length of the series."""
OnProgress = Callable[[int, float], None]
"""Called with the candles so far and the share of the whole that they are."""


class Readable(Protocol):
    """An open store, of which nothing is written."""

    @property
    def path(self) -> Path: ...
    async def read(self, work: Work[Result]) -> Result: ...


class Exported(NamedTuple):
    """What was written."""

    key: SeriesKey
    candles: int
    files: tuple[Path, ...]


class _Piece(NamedTuple):
    rows: CandleSeries
    spans: list[FileSpan]
    end_ms: int


async def export_series(
    database: Readable,
    origin: Origin,
    key: SeriesKey,
    path: Path,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Exported:
    """Write the proved candles of a series, and what is proved of it, into a file.

    Candles that are stored without a proof are left out. What others write meanwhile is in it or
    not, piece by piece; of each piece candles and proof are of one moment. When it fails or is
    cancelled, no file is left, and one that was there before is as it was.

    Args:
        database: An open store.
        origin: Whose candles they are.
        key: Which series.
        path: The file; its name says the format.
        start_ms: The first open time; None: from the beginning.
        end_ms: The end, exclusive; None: up to the newest.
        overwrite: Whether a file that is there may be replaced.
        on_progress: Told after each piece.

    Raises:
        InvalidRequestError: no such series, nothing known in the range, a name that says no
            format, a file that is there already.
        StorageUnavailableError: the file cannot be written.
    """
    parquet = suffix_of(path) == ".parquet"
    await to_the_end(asyncio.to_thread(_check_target, path, overwrite))
    span = await _range(database, key, start_ms, end_ms)

    made: list[SeriesWriter] = []

    def make_writer() -> SeriesWriter:
        if parquet:
            made.append(ParquetWriter(path))
        else:
            made.append(CsvWriter(path, key, origin.identity, simulated=origin.simulated))
        return made[0]

    try:
        writer = await to_the_end(asyncio.to_thread(make_writer))
        header = await _write_pieces(database, origin, key, span, writer, on_progress)
        files = await to_the_end(asyncio.to_thread(writer.finish, header))
    finally:
        # Whoever is cancelled while it is made has none in hand.
        for one in made:
            await to_the_end(asyncio.to_thread(one.discard))
    return Exported(key, header.candles, files)


async def _write_pieces(
    database: Readable,
    origin: Origin,
    key: SeriesKey,
    span: Range,
    writer: SeriesWriter,
    on_progress: OnProgress | None,
) -> Header:
    candles, spans = 0, list[FileSpan]()
    at_ms, first_ms = span.start_ms, None
    while at_ms < span.end_ms:
        left = Range(at_ms, span.end_ms)
        piece = await database.read(
            partial(_read_piece, key=key, span=left, simulated=origin.simulated)
        )
        await to_the_end(asyncio.to_thread(writer.write, piece.rows))
        candles += len(piece.rows)
        # What touches the last span of the piece before is one with it.
        spans = [*spans[:-1], *joined([*spans[-1:], *piece.spans])]
        at_ms = piece.end_ms
        if len(piece.rows) and first_ms is None:
            first_ms = int(piece.rows.time[0])
        if on_progress is not None and first_ms is not None:
            on_progress(candles, (at_ms - first_ms) / (span.end_ms - first_ms))
    return Header(
        key.symbol,
        key.timeframe,
        origin.identity,
        origin.simulated,
        origin.mark,
        candles,
        tuple(spans),
    )


def _read_piece(sql: Sql, key: SeriesKey, span: Range, simulated: bool) -> _Piece:
    """The next candles of a range, and what is known as far as they reach."""
    beyond = None
    if sql.execute("SELECT 1 FROM series WHERE table_name = ?", (key.table,)).fetchone():
        beyond = sql.execute(
            f"SELECT open_time FROM {key.table} WHERE open_time >= ? AND open_time < ?"
            " ORDER BY open_time LIMIT 1 OFFSET ?",
            (*span, PIECE_ROWS),
        ).fetchone()
    end_ms = span.end_ms if beyond is None else int(beyond[0])
    rows = read_rows(sql, key, Range(span.start_ms, end_ms), None, simulated=simulated)
    spans = _told(read_series_coverage(sql, key, span.start_ms, end_ms), span.start_ms, end_ms)
    return _Piece(_within(rows, spans), [FileSpan.of(one) for one in spans], end_ms)


def _told(known: Coverage, start_ms: int, end_ms: int) -> list[KnownSpan]:
    """What a file tells: what is proved, of the past."""
    return [
        one
        for one in known.between(start_ms, end_ms)
        if one.state in ("complete", "empty", "before_listing")
    ]


def _within(rows: CandleSeries, spans: list[KnownSpan]) -> CandleSeries:
    """The candles that are proved; others may lie between them."""
    complete = [one for one in spans if one.state == "complete"]
    starts = np.searchsorted(rows.time, [one.start_ms for one in complete])
    ends = np.searchsorted(rows.time, [one.end_ms for one in complete])
    if int((ends - starts).sum()) == len(rows):
        return rows
    parts = [rows[low:high] for low, high in zip(starts.tolist(), ends.tolist(), strict=True)]
    return CandleSeries.merged(parts or [rows[:0]])


async def _range(
    database: Readable, key: SeriesKey, start_ms: int | None, end_ms: int | None
) -> Range:
    known = (await database.read(read_coverage)).get(key)
    told = [] if known is None else _told(known, BEGINNING_MS, FOREVER_MS)
    if not told:
        stored = await database.read(_stored_series)
        raise InvalidRequestError(
            f"no candles of {key.symbol} {key.timeframe} are stored in {database.path};"
            f" stored are {', '.join(stored) or 'none at all'}"
        )
    low_ms = told[0].start_ms if start_ms is None else key.timeframe.ceil_ms(start_ms)
    high_ms = told[-1].end_ms if end_ms is None else key.timeframe.ceil_ms(end_ms)
    if not any(one.overlaps(low_ms, high_ms) for one in told):
        raise InvalidRequestError(
            f"nothing of {key.symbol} {key.timeframe} is stored"
            f" from {utc_datetime(low_ms):%Y-%m-%d %H:%M:%S} to"
            f" {utc_datetime(high_ms):%Y-%m-%d %H:%M:%S} UTC"
        )
    return Range(max(low_ms, told[0].start_ms), min(high_ms, told[-1].end_ms))


def _stored_series(sql: Sql) -> list[str]:
    return [
        f"{symbol} {timeframe}"
        for symbol, timeframe in sql.execute(
            "SELECT symbol, timeframe FROM series ORDER BY symbol, timeframe"
        )
    ]


def _check_target(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise InvalidRequestError(f"{path} is a folder: give the name of a file")
    belonging = (path, beside(path)) if suffix_of(path) == ".csv" else (path,)
    for one in belonging:
        if one.exists() and not overwrite:
            raise InvalidRequestError(f"{one} exists: give another name, or --force to replace it")
