"""A file of candles into the store: checked as a whole first, and never over what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from upbit_backbone.candle_checks import check_series, excerpt
from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import InvalidRequestError, ProtocolError, StorageOriginError
from upbit_backbone.models import CLOSE_GRACE_MS, CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.storage.candle_tables import SeriesKey, delete_rows, read_rows, write_rows
from upbit_backbone.storage.comparison import compare
from upbit_backbone.storage.coverage import (
    BEGINNING_MS,
    BUILT,
    FOREVER_MS,
    IMPORTED,
    LIVE,
    KnownSpan,
)
from upbit_backbone.storage.coverage_table import put_spans, read_series_coverage
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.series_files.csv_file import CsvReader
from upbit_backbone.storage.series_files.header import (
    FileSpan,
    Header,
    SeriesReader,
    suffix_of,
)
from upbit_backbone.storage.series_files.parquet_file import ParquetReader
from upbit_backbone.storage.spans import Range, SpanSet
from upbit_backbone.storage.sql import Sql
from upbit_backbone.tasks import to_the_end

SHOWN = 10
"""So many of the candles that differ are told one by one."""
_READERS: dict[str, Callable[[Path], SeriesReader]] = {
    ".csv": CsvReader,
    ".parquet": ParquetReader,
}
_BUILT = frozenset(f"{BUILT}{timeframe}" for timeframe in Timeframe)
OnProgress = Callable[[str, int, float], None]
"""Called with what is done, the candles so far and the share of the file that they are."""


class Imported(NamedTuple):
    """What an import did."""

    key: SeriesKey
    candles: int
    """How many the file holds."""
    written: int
    """How many were not stored before."""
    differing: int
    """How many are stored otherwise, or on one side only; what was stored has stayed."""
    differences: tuple[str, ...]
    """The first of them, a sentence each."""


class _Taken(NamedTuple):
    written: int
    differing: int
    differences: tuple[str, ...]


class _Piece(NamedTuple):
    rows: CandleSeries
    spans: list[KnownSpan]
    """What is told of the stretch that the piece is for, ascending and disjoint."""


async def import_series(
    database: Database,
    origin: Origin,
    path: Path,
    *,
    clock: Clock,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Store the candles of a file, and what it says is known of them.

    The whole file is checked before anything is written. Each piece is one transaction. Only
    what is not known yet is taken from the file, as imported: the self-audit draws such candles
    first. What a stream alone had told is settled soon. Where the file contradicts what is
    stored, that stays, and the result tells of it. Cancelled, it keeps the pieces written.

    Args:
        database: An open one.
        origin: Whose candles it holds.
        path: The file; its name says the format.
        clock: The time: candles of the future are refused.
        on_progress: Told after each piece.

    Raises:
        InvalidRequestError: the file cannot be read, or holds what no candles can be.
        StorageOriginError: it holds candles of another exchange, or simulated ones among real
            ones or the reverse.
        StorageUnavailableError: the store cannot be written.
    """
    make_reader = _READERS[suffix_of(path)]
    reader = await to_the_end(asyncio.to_thread(make_reader, path))
    header = reader.header
    _check_origin(header, origin, path)
    candles = await _check_all(reader, path, clock.now_ms(), on_progress)
    written, differing, differences = 0, 0, list[str]()
    read = 0
    async for piece in _pieces(reader, path, clock.now_ms()):
        work = partial(_take, key=header.key, rows=piece.rows, spans=piece.spans)
        taken = await database.write(work)
        written += taken.written
        differing += taken.differing
        differences += taken.differences[: SHOWN - len(differences)]
        read += len(piece.rows)
        if on_progress is not None:
            on_progress("storing", read, reader.share)
    return Imported(header.key, candles, written, differing, tuple(differences))


def _check_origin(header: Header, origin: Origin, path: Path) -> None:
    if header.identity != origin.identity:
        raise StorageOriginError(
            f"{path} holds candles of {header.identity!r}, this store those of"
            f" {origin.identity!r}: choose that exchange (--exchange, --rest-url), or another file"
        )
    kind = "simulated" if header.simulated else "real"
    mark = header.mark
    if header.simulated and mark is None and not origin.known:
        # Folders that are called so are those of simulators of that name, and of nobody else.
        mark = header.identity if header.identity.startswith("simulator-") else None
        if mark is None:
            raise StorageOriginError(
                f"{path} holds simulated candles and does not say of which simulator: import it"
                f" with the file {path.name}.json that was exported beside it"
            )
    if origin.known and origin.simulated is not header.simulated:
        raise StorageOriginError(
            f"{path} holds {kind} candles, and this store"
            f" {'simulated' if origin.simulated else 'real'} ones: they are never mixed"
        )
    if mark is not None or not origin.known:
        try:
            origin.observe(mark)
        except StorageOriginError as error:
            raise StorageOriginError(
                f"{path} holds {kind} candles, marked {mark!r}, which this store never takes"
            ) from error


async def _check_all(
    reader: SeriesReader, path: Path, now_ms: int, on_progress: OnProgress | None
) -> int:
    candles = 0
    async for piece in _pieces(reader, path, now_ms):
        candles += len(piece.rows)
        if on_progress is not None:
            on_progress("checking", candles, reader.share)
    if reader.header.coverage is not None and candles != reader.header.candles:
        raise InvalidRequestError(
            f"{path} holds {candles:,} candles and says that it has {reader.header.candles:,}:"
            " export it again"
        )
    return candles


async def _pieces(reader: SeriesReader, path: Path, now_ms: int) -> AsyncIterator[_Piece]:
    """The pieces of a file, each checked; together they tell all that it says."""
    checked = _Checked(reader, path, now_ms)
    pieces = reader.pieces()
    try:
        while (rows := await to_the_end(asyncio.to_thread(next, pieces, None))) is not None:
            yield await to_the_end(asyncio.to_thread(checked.piece, rows))
        yield checked.rest()
    finally:
        # An open file belongs to it.
        close = getattr(pieces, "close", None)
        if close is not None:
            await to_the_end(asyncio.to_thread(close))


class _Checked:
    """Checks pieces in their order, and cuts what is known into parts that go with them."""

    def __init__(self, reader: SeriesReader, path: Path, now_ms: int) -> None:
        self._reader = reader
        self._header = header = reader.header
        self._path = path
        self._count = 0
        """How many candles came before the piece at hand."""
        self._evidence = f"imported from {path.name}"
        self._now_ms = now_ms
        self._closed_ms = header.timeframe.floor_ms(now_ms - CLOSE_GRACE_MS)
        self._spans = list(header.coverage or ())
        self._complete = SpanSet(one.range for one in self._spans if one.state == "complete")
        self._last_ms: int | None = None
        self._told_ms = BEGINNING_MS
        self._check_spans()

    def piece(self, rows: CandleSeries) -> _Piece:
        """Check the next candles."""
        header = self._header
        outside = (rows.time < BEGINNING_MS) | (rows.time >= FOREVER_MS)
        if np.any(outside):
            place = self._place(int(np.argmax(outside)))
            raise InvalidRequestError(
                f"{self._path}, {place}: the candle lies outside of the calendar; nothing was"
                " imported"
            )
        try:
            check_series(rows, f"{self._path}", place=self._place)
        except ProtocolError as error:
            raise InvalidRequestError(f"{error}; nothing was imported") from error
        if not len(rows):
            return _Piece(rows, [])
        if self._last_ms is not None and int(rows.time[0]) <= self._last_ms:
            raise self._refused(rows, 0, "does not ascend")
        late = int(np.searchsorted(rows.time, self._closed_ms))
        if late < len(rows):
            raise self._refused(rows, late, "is not over yet by this computer's clock")
        self._last_ms = int(rows.time[-1])
        if header.coverage is None:
            self._count += len(rows)
            return _Piece(rows, list(self._each_by_itself(rows)))
        unsaid = self._outside(rows)
        if unsaid is not None:
            raise self._refused(rows, unsaid, "lies where the file says that there is none")
        self._count += len(rows)
        return _Piece(rows, self._until(header.timeframe.next_ms(self._last_ms)))

    def rest(self) -> _Piece:
        """What is known after the last candle."""
        header = self._header
        none = CandleSeries.empty(
            header.symbol, header.timeframe, source="storage", simulated=header.simulated
        )
        ends = [one.range.end_ms for one in self._spans]
        return _Piece(none, self._until(max(ends, default=self._told_ms)))

    def _check_spans(self) -> None:
        before_ms = BEGINNING_MS
        for one in self._spans:
            if one.range.start_ms < before_ms or one.range.end_ms > self._closed_ms:
                raise InvalidRequestError(
                    f"{self._path} says what there is from {one.start.isoformat()} to"
                    f" {one.end.isoformat()}, which is said twice or not over yet by this"
                    " computer's clock: export it again"
                )
            before_ms = one.range.end_ms

    def _outside(self, rows: CandleSeries) -> int | None:
        """The first candle that no complete span holds."""
        inside = np.zeros(len(rows), bool)
        end_ms = int(rows.time[-1]) + 1
        for start_ms, stop_ms in self._complete.overlap(int(rows.time[0]), end_ms):
            low, high = np.searchsorted(rows.time, (start_ms, stop_ms))
            inside[low:high] = True
        return None if inside.all() else int(np.argmin(inside))

    def _until(self, end_ms: int) -> list[KnownSpan]:
        start_ms, self._told_ms = self._told_ms, max(self._told_ms, end_ms)
        return [
            self._known(one).cut(start_ms, end_ms)
            for one in self._spans
            if one.range.start_ms < end_ms and one.range.end_ms > start_ms
        ]

    def _known(self, span: FileSpan) -> KnownSpan:
        if span.evidence in _BUILT:
            # So that they are built again here, too, when one of the smaller ones changes.
            return KnownSpan(*span.range, span.state, IMPORTED, span.evidence, self._now_ms)
        if span.settled:
            return KnownSpan(*span.range, span.state, IMPORTED, self._evidence, self._now_ms)
        return KnownSpan(*span.range, span.state, "", LIVE, self._now_ms)

    def _each_by_itself(self, rows: CandleSeries) -> Iterator[KnownSpan]:
        """Candles that follow each other at once are one span."""
        ends = _ends(rows)
        breaks = np.flatnonzero(rows.time[1:] != ends[:-1]) + 1
        for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True):
            start_ms, end_ms = int(rows.time[low]), int(ends[high - 1])
            yield KnownSpan(start_ms, end_ms, "complete", IMPORTED, self._evidence, self._now_ms)

    def _place(self, row: int) -> str:
        return self._reader.place(self._count + row)

    def _refused(self, rows: CandleSeries, at: int, why: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._path}: {self._place(at)} {why}: {excerpt(rows, at)}; nothing was imported"
        )


def _ends(rows: CandleSeries) -> npt.NDArray[np.int64]:
    timeframe = rows.timeframe
    if timeframe.fixed_ms is not None:
        return rows.time + timeframe.fixed_ms
    return np.array([timeframe.next_ms(at) for at in rows.time.tolist()], np.int64)


def _take(sql: Sql, key: SeriesKey, rows: CandleSeries, spans: list[KnownSpan]) -> _Taken:
    """Store what is not known yet, inside a transaction; compare the rest."""
    if not spans:
        return _Taken(0, 0, ())
    whole = Range(spans[0].start_ms, spans[-1].end_ms)
    known = read_series_coverage(sql, key, *whole)
    held = read_rows(sql, key, whole, None, simulated=rows.simulated)
    others: list[int] = []
    written, differing, differences = 0, 0, list[str]()
    fresh: list[CandleSeries] = []
    new: list[KnownSpan] = []
    for span in spans:
        for part in known.proved.overlap(span.start_ms, span.end_ms):
            found = _differences(held.between(*part), rows.between(*part))
            differing += len(found)
            differences += found[: SHOWN - len(differences)]
        for part in known.proved.missing(span.start_ms, span.end_ms):
            new.append(span.cut(*part))
            fresh.append(rows.between(*part))
            # What lies there without a proof would be proved with what the file holds.
            there = held.between(*part)
            others += np.setdiff1d(there.time, fresh[-1].time, assume_unique=True).tolist()
    delete_rows(sql, key, others)
    if fresh:
        taken = CandleSeries.merged(fresh)
        write_rows(sql, key, taken)
        written = len(taken)
    put_spans(sql, key, new)
    return _Taken(written, differing, tuple(differences))


def _differences(held: CandleSeries, told: CandleSeries) -> list[str]:
    found = compare(held, told)
    sentences = []
    for at in found.differing:
        stored, there = (
            excerpt(one, 0) if len(one) else f"no candle at {utc_datetime(at):%Y-%m-%dT%H:%M:%SZ}"
            for one in (held.between(at, at + 1), told.between(at, at + 1))
        )
        sentences.append(f"stored: {stored}; in the file: {there}")
    return sentences
