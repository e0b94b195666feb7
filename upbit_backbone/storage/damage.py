"""What is done about a damaged file: what can be read is copied, the rest is asked again.

The damaged file is never deleted. It is set aside under a new name, and a new file takes its
place: finished under another name first, so that a process that is killed meanwhile leaves
either the old file or the new one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite

from upbit_backbone.errors import StorageCorruptError, StorageOriginError
from upbit_backbone.models import Timeframe
from upbit_backbone.storage import blocks
from upbit_backbone.storage.candle_tables import Row, SeriesKey, make_table
from upbit_backbone.storage.coverage_table import can_be, read_coverage
from upbit_backbone.storage.spans import SpanSet
from upbit_backbone.storage.sql import RawConnection, Sql
from upbit_backbone.storage.write_ahead_log import length_bytes

ROWS_AT_ONCE = 20_000
HALVINGS = 12
"""How often a stretch that cannot be read is halved: what is left of three months of minutes
is about half an hour."""
_END_OF_TIME_MS = 1 << 62
_BESIDE = ("-wal", "-shm", "-journal")
_UNREADABLE = (aiosqlite.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file may raise: SQLite quotes damaged names in what it says."""
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"


class Salvaged(NamedTuple):
    """What could be read of a damaged file."""

    candles: int
    series: int
    lost: int
    """How many stretches of candles could not be read."""


class Files:
    """The store's file, and the names that go with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path.with_name(f"{path.name}.lock")
        self.marker = path.with_name(f"{path.name}.damaged")
        """Damage was met in the running program; the next opening sees to it."""
        self.unfinished = path.with_name(f"{path.name}.unfinished")
        self.finished = path.with_name(f"{path.name}.finished")

    def discard_unfinished(self) -> None:
        """Delete what a killed process left of a copy."""
        for name in with_beside(self.unfinished):
            name.unlink(missing_ok=True)

    def finish(self) -> None:
        """The copy is whole."""
        self.unfinished.rename(self.finished)

    def replace(self) -> Path | None:
        """Set the damaged file aside and put the finished copy in its place.

        A process that was killed meanwhile is made good by calling it again.

        Returns:
            Where the damaged file is now; None when it had been moved already.
        """
        aside = self.set_aside() if self.path.exists() else None
        self.finished.rename(self.path)
        self.marker.unlink(missing_ok=True)
        return aside

    def set_aside(self) -> Path:
        """Give the file and what lies beside it another name, which is returned."""
        aside = self._free_name()
        # The log first: beside another file SQLite would take it for that one's.
        for name, new in zip(with_beside(self.path), with_beside(aside), strict=True):
            if name.exists():
                name.rename(new)
        return aside

    def is_emptied(self) -> bool:
        """Whether the file is there and holds nothing at all, as after it was cut off.

        One that another program makes at this moment looks alike.
        """
        return self.path.exists() and self.path.stat().st_size == 0

    def begin_anew(self) -> Path | None:
        """Make room for a new file where an emptied one is.

        SQLite would delete its log, which may hold what had not been moved into it yet.

        Returns:
            Where the log is now; None when there was none.
        """
        aside = self.set_aside() if length_bytes(self.path) else None
        self.path.unlink(missing_ok=True)
        self.marker.unlink(missing_ok=True)
        return aside

    def _free_name(self) -> Path:
        number = 1
        while True:
            name = self.path.with_name(f"{self.path.stem}.set-aside-{number}{self.path.suffix}")
            if not any(part.exists() for part in with_beside(name)):
                return name
            number += 1


def with_beside(path: Path) -> list[Path]:
    """A file and what SQLite may have left beside it, the file last."""
    return [*(path.with_name(path.name + suffix) for suffix in _BESIDE), path]


def shorter_than_it_says(sql: Sql, path: Path) -> bool:
    """Whether the end of the file is missing.

    Everything has to be in the file itself for that: as long as another program reads, some of
    it may be in the log only, and then nothing is said.
    """
    ((pages,),) = sql.execute("PRAGMA page_count")
    _, in_log, moved = sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if in_log != moved:
        return False
    ((page_bytes,),) = sql.execute("PRAGMA page_size")
    shorter = path.stat().st_size < pages * page_bytes
    # Another program may have written meanwhile.
    return bool(shorter and sql.execute("PRAGMA page_count").fetchone() == (pages,))


def read_small_tables(sql: Sql) -> None:
    """Meet damage in what every start needs.

    Raises:
        StorageCorruptError: a row is not what any program writes.
        aiosqlite.DatabaseError: SQLite cannot read one.
    """
    for table in ("meta", "markets"):
        for row in sql.execute(f"SELECT * FROM {table}"):
            if not _is_named_text(row):
                raise StorageCorruptError(f"the table {table} is damaged: it holds {row!r}")
    for symbol, timeframe, table in sql.execute("SELECT symbol, timeframe, table_name FROM series"):
        if not _is_table_of(symbol, timeframe, table):
            raise StorageCorruptError(
                f"the list of series is damaged: {symbol!r} {timeframe!r} are said to be in"
                f" {table!r}"
            )
    read_coverage(sql)


def copy(sql: Sql, source: RawConnection, identity: str) -> Salvaged:
    """Copy what can be read of a damaged file into a new one, inside a transaction.

    Candles keep their coverage but for the stretches that could not be read, or that do not look
    like candles; those are then unknown.

    Raises:
        StorageOriginError: the damaged file holds data of another identity.
    """
    meta = dict(
        row for row in _readable(source, "SELECT key, value FROM meta") if _is_whole_text(row)
    )
    if meta.get("identity", identity) != identity:
        raise StorageOriginError(
            f"the damaged file holds data of {meta['identity']!r}, expected {identity!r}: it was"
            " moved or renamed; put it back, or choose another data folder (--data-dir)"
        )
    sql.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", meta.items())
    for row in _readable(source, "SELECT * FROM markets"):
        # A name that is damaged is better than a market that is missing; it is read anew anyway.
        if not _is_named_text(row) or _NO_TEXT in row[1]:
            continue
        sql.execute("INSERT OR IGNORE INTO markets VALUES (?, ?, ?, ?)", row)
    candles = lost_stretches = 0
    keys = _series_in(source)
    known = _coverage_in(source)
    for key in keys:
        make_table(sql, key)
        table = _DamagedTable(sql, source, key)
        table.copy()
        candles += table.copied
        lost = _on_grid(key.timeframe, table.lost)
        lost_stretches += len(lost)
        for start_ms, end_ms, *rest in known.get(key, []):
            for left in lost.missing(start_ms, end_ms):
                sql.execute(
                    "INSERT OR IGNORE INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (key.symbol, key.timeframe.value, *left, *rest),
                )
    return Salvaged(candles, len(keys), lost_stretches)


class _DamagedTable:
    """One series on its way from a damaged file into a new one."""

    def __init__(self, sql: Sql, source: RawConnection, key: SeriesKey) -> None:
        self._sql = sql
        self._source = source
        self._key = key
        self.lost = SpanSet()
        self.copied = 0

    def copy(self) -> None:
        self._stretch(0, _END_OF_TIME_MS, HALVINGS)
        if len(self.lost):
            self._fill_from_blocks()
        statement = f"SELECT count(*) FROM {self._key.table}"
        ((self.copied,),) = self._sql.execute(statement)

    def _stretch(self, start_ms: int, end_ms: int, halvings: int) -> None:
        """Read a stretch from both ends, and what is left in the middle in halves."""
        while True:
            rows, whole = self._read("ASC", start_ms, end_ms)
            reached_ms = rows[-1][0] + 1 if rows else start_ms
            self._keep(rows, start_ms, reached_ms)
            start_ms = reached_ms
            if whole and len(rows) < ROWS_AT_ONCE:
                return
            if not whole:
                break
        while start_ms < end_ms:
            rows, whole = self._read("DESC", start_ms, end_ms)
            rows.reverse()
            done = whole and len(rows) < ROWS_AT_ONCE
            reached_ms = start_ms if done else rows[0][0] if rows else end_ms
            self._keep(rows, reached_ms, end_ms)
            end_ms = reached_ms
            if done:
                return
            if not whole:
                break
        if start_ms >= end_ms:
            return
        # Beyond the newest row there is nothing to be halved.
        newest_ms = self._newest_ms()
        if halvings and newest_ms is not None and start_ms < min(end_ms, newest_ms) - 1:
            middle_ms = (start_ms + min(end_ms, newest_ms)) // 2
            self._stretch(start_ms, middle_ms, halvings - 1)
            self._stretch(middle_ms, end_ms, halvings - 1)
            return
        self.lost.add(start_ms, end_ms)

    def _newest_ms(self) -> int | None:
        try:
            (newest,) = self._source.execute(f"SELECT max(open_time) FROM {self._key.table}")
        except _UNREADABLE:
            return None
        return newest[0] if isinstance(newest[0], int) else None

    def _read(self, order: str, start_ms: int, end_ms: int) -> tuple[list[Any], bool]:
        rows: list[Any] = []
        try:
            for row in self._source.execute(
                "SELECT open_time, open, high, low, close, volume, value"
                f" FROM {self._key.table} WHERE open_time >= ? AND open_time < ?"
                f" ORDER BY open_time {order} LIMIT {ROWS_AT_ONCE}",
                (start_ms, end_ms),
            ):
                if not start_ms <= row[0] < end_ms:
                    return rows, False
                rows.append(row)
        except _UNREADABLE:
            return rows, False
        return rows, True

    def _keep(self, rows: Sequence[Any], start_ms: int, end_ms: int) -> None:
        """Store the rows of a stretch; what lies around an impossible one is lost."""
        good: list[Row] = []
        after_ms = start_ms
        in_doubt = False
        for row in rows:
            if row[0] < after_ms or not _possible(self._key.timeframe, row):
                in_doubt = True
                continue
            if in_doubt:
                self.lost.add(after_ms, row[0])
                in_doubt = False
            good.append(row)
            after_ms = row[0] + 1
        if in_doubt:
            self.lost.add(after_ms, end_ms)
        self._sql.executemany(
            f"INSERT OR IGNORE INTO {self._key.table} VALUES (?, ?, ?, ?, ?, ?, ?)", good
        )

    def _fill_from_blocks(self) -> None:
        """A block whose checksum is right is as good as its rows."""
        for row in _readable(
            self._source,
            "SELECT start_ms, end_ms, row_count, checksum, data FROM blocks WHERE table_name = ?",
            (self._key.table,),
        ):
            if [type(value) for value in row] != [int, int, int, int, bytes]:
                continue
            block = blocks.Block(*row)
            for hole in self.lost.overlap(block.start_ms, block.end_ms):
                columns = blocks.unpack(self._key.table, block)
                if columns is None:
                    break
                blocks.insert_rows(self._sql, self._key.table, blocks.cut(columns, *hole))
                self.lost.remove(*hole)


def _on_grid(timeframe: Timeframe, lost: SpanSet) -> SpanSet:
    """The same stretches named by open times; one in which no candle can open is none."""
    aligned = SpanSet()
    for start_ms, end_ms in lost:
        if end_ms < _LAST_CANDLE_MS:
            end_ms = timeframe.ceil_ms(end_ms)
        aligned.add(timeframe.ceil_ms(start_ms), end_ms)
    return aligned


def _possible(timeframe: Timeframe, row: Sequence[Any]) -> bool:
    """Whether a row can be a candle at all."""
    time_ms, *numbers = row
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        return False
    if not isinstance(time_ms, int) or time_ms > _LAST_CANDLE_MS:
        return False
    opened, high, low, closed, volume, value = numbers
    return (
        low <= min(opened, closed)
        and high >= max(opened, closed)
        and min(low, volume, value) >= 0
        and timeframe.floor_ms(time_ms) == time_ms
    )


_LAST_CANDLE_MS = 4_102_444_800_000
"""2100: a time beyond it was not written by this program."""


def _readable(
    source: RawConnection, statement: str, parameters: Sequence[Any] = ()
) -> Iterator[Any]:
    """The rows of an answer up to the first that cannot be read."""
    try:
        yield from source.execute(statement, parameters)
    except _UNREADABLE:
        return


def _series_in(source: RawConnection) -> list[SeriesKey]:
    """The series by the list of them, and by the names of their tables where that is damaged."""
    names = [*_readable(source, "SELECT symbol, timeframe FROM series")]
    for (table,) in _readable(source, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
        match str(table).split("_"):
            case ["candles", quote, base, timeframe]:
                names.append((f"{quote}-{base}", "1M" if timeframe == "1mo" else timeframe))
    found = (_series_key(symbol, timeframe) for symbol, timeframe in names)
    return list(dict.fromkeys(key for key in found if key is not None))


def _series_key(symbol: object, timeframe: object) -> SeriesKey | None:
    """What two names of a damaged file mean; they become part of statements."""
    if re.fullmatch(r"[A-Z0-9]+-[A-Z0-9]+", str(symbol)) is None:
        return None
    if timeframe not in {known.value for known in Timeframe}:
        return None
    return SeriesKey(str(symbol), Timeframe(timeframe))


def _coverage_in(source: RawConnection) -> dict[SeriesKey, list[Any]]:
    known: dict[SeriesKey, list[Any]] = {}
    for symbol, timeframe, *span in _readable(
        source,
        "SELECT symbol, timeframe, start_ms, end_ms, state, reason, evidence, known_at_ms"
        " FROM coverage",
    ):
        key = _series_key(symbol, timeframe)
        if key is not None and can_be(span):
            known.setdefault(key, []).append(span)
    return {key: _disjoint(spans) for key, spans in known.items()}


def _disjoint(spans: list[Any]) -> list[Any]:
    """Without those that overlap: which of two is wrong nobody can tell."""
    spans.sort()
    overlapping: set[int] = set()
    furthest = 0
    for place in range(1, len(spans)):
        if spans[place][0] < spans[furthest][1]:
            overlapping |= {furthest, place}
        if spans[place][1] > spans[furthest][1]:
            furthest = place
    return [span for place, span in enumerate(spans) if place not in overlapping]


def _is_named_text(row: Sequence[Any]) -> bool:
    """Whether all columns after the first, which is the row's name or number, are text."""
    return isinstance(row[0], int | str) and all(isinstance(value, str) for value in row[1:])


def _is_whole_text(row: Sequence[Any]) -> bool:
    return all(isinstance(value, str) and _NO_TEXT not in value for value in row)


def _is_table_of(symbol: object, timeframe: object, table: object) -> bool:
    if not isinstance(symbol, str) or timeframe not in {known.value for known in Timeframe}:
        return False
    return SeriesKey(symbol, Timeframe(timeframe)).table == table
