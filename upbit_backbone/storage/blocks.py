"""Column blocks: closed ranges of a series as one checksummed BLOB each, beside its rows.

The rows are the truth, a block is a copy of them that is read many times faster. It says: "the
rows of this range are exactly these". Whoever writes into the range drops it in the same
transaction, and it is made again from rows. A block whose checksum is wrong is never used.

Blocks of a series lie side by side, so that a range needs no look at the rows between two of
them. Newest and oldest rows stay loose until 60 to 180 of them have gathered (each series has a
number of its own, or all of them would be sealed in one minute).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from upbit_backbone.storage.packing import COLUMNS, Columns, Packed, pack_columns
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sealed, Sql

ROWS_PER_BLOCK = 4_096
"""Some 100 KB: a thousand candles load and check not many more than they need."""
GROWING_ROWS = 1_024
"""A block takes its loose neighbours in up to here; three of them and more become one."""
SEAL_AT_LEAST = 60
SEAL_AT_MOST = 180
CHUNK_ROWS = 5_000
"""Rows made into columns at once: longer, and the interpreter's lock would stop the loop."""
ROWS_AT_ONCE = 16 * ROWS_PER_BLOCK
"""Sealed in one transaction at most: some 4 MB."""
_END_OF_TIME_MS = 1 << 62


class Block(NamedTuple):
    """One row of the table of blocks."""

    start_ms: int
    end_ms: int
    rows: int
    checksum: int
    data: bytes


def no_columns() -> Columns:
    """Columns without a row."""
    return np.empty((COLUMNS, 0), np.int64)


def columns_of_rows(rows: Sequence[Sequence[float]]) -> Columns:
    """Turn what SQLite gave, ascending, into columns."""
    # Epoch milliseconds are below 2^53, so one float64 table holds every column exactly.
    table = np.array(rows, np.float64).reshape(len(rows), COLUMNS)
    columns = np.empty((COLUMNS, len(rows)), np.int64)
    columns[0] = table[:, 0]
    columns[1:].view(np.float64)[:] = table[:, 1:].T
    return columns


def joined(parts: Sequence[Columns]) -> Columns:
    """Put columns after one another; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=1) if parts else no_columns()


def cut(columns: Columns, start_ms: int, end_ms: int) -> Columns:
    """The view of ``start_ms <= open time < end_ms``."""
    low, high = np.searchsorted(columns[0], (start_ms, end_ms))
    return columns if high - low == columns.shape[1] else columns[:, low:high]


def pack(table: str, start_ms: int, end_ms: int, columns: Columns) -> Block:
    """Make a block of the rows of a range."""
    data = pack_columns(columns)
    rows = columns.shape[1]
    return Block(start_ms, end_ms, rows, _checksum(table, start_ms, end_ms, data), data)


def unpack(table: str, block: Block) -> Columns | None:
    """The columns of a block; None when it is not what was written."""
    packed = checked(table, block)
    return None if packed is None else packed.columns()


def checked(table: str, block: Block) -> Packed | None:
    """The columns of a block, not copied yet; None when it is not what was written."""
    if _checksum(table, block.start_ms, block.end_ms, block.data) != block.checksum:
        return None
    return Packed.of(block.data, block.rows)


def _checksum(table: str, start_ms: int, end_ms: int, data: bytes) -> int:
    # What the block is about is checked with its content: a right copy of a wrong range is wrong.
    return zlib.crc32(data, zlib.crc32(f"{table} {start_ms} {end_ms}".encode()))


def overlapping(sql: Sql, table: str, span: Range) -> Iterator[Block]:
    """The blocks that hold anything of a range, newest first."""
    for row in sql.execute(
        "SELECT start_ms, end_ms, row_count, checksum, data FROM blocks"
        " WHERE table_name = ? AND start_ms < ? ORDER BY start_ms DESC",
        (table, span.end_ms),
    ):
        block = Block(*row)
        if block.end_ms <= span.start_ms:
            return
        yield block


def select_rows(sql: Sql, table: str, span: Range, latest: int | None = None) -> Columns:
    """The loose or sealed rows of a range from the table itself."""
    where = f"FROM {table} WHERE open_time >= ? AND open_time < ?"
    order = "ASC" if latest is None else "DESC"
    cursor = sql.execute(
        "SELECT open_time, open, high, low, close, volume, value"
        f" {where} ORDER BY open_time {order} LIMIT ?",
        (*span, -1 if latest is None else latest),
    )
    parts: list[Columns] = []
    while not parts or parts[-1].shape[1] == CHUNK_ROWS:
        rows = cursor.fetchmany(CHUNK_ROWS)
        parts.append(columns_of_rows(rows if latest is None else rows[::-1]))
    return joined(parts if latest is None else parts[::-1])


def read(sql: Sql, table: str, span: Range, latest: int | None = None) -> Columns:
    """The candles of a range, from blocks where there are any and from rows for the rest.

    Args:
        sql: Inside a transaction: blocks and rows must be of one moment.
        table: Of the series.
        span: Which open times.
        latest: Only so many of the newest.
    """
    gathered = _Gathered(sql, table, span, latest)
    for block in overlapping(sql, table, span):
        packed = checked(table, block)
        if packed is None:
            sql.counts.damaged_blocks += 1
            sql.wishes.append(partial(mend, table=table, start_ms=block.start_ms))
            continue
        gathered.take_rows(block.end_ms)
        gathered.take_block(block, packed)
        if gathered.left == 0:
            # The next one would be read and checked for nothing.
            break
    gathered.take_rows(span.start_ms)
    return gathered.columns()


class _Gathered:
    """What was read of a range so far, newest first, in one piece of memory.

    Blocks are unpacked into it one by one: what they were read into is used again for the next
    one, and nobody holds a whole block for a few of its rows.
    """

    def __init__(self, sql: Sql, table: str, span: Range, latest: int | None) -> None:
        self._sql, self._table, self._span = sql, table, span
        self._from_ms = span.end_ms
        self.left = latest
        room = latest
        if room is None or room > ROWS_PER_BLOCK:
            ((sealed,),) = sql.execute(
                "SELECT total(row_count) FROM blocks"
                " WHERE table_name = ? AND start_ms < ? AND end_ms > ?",
                (table, span.end_ms, span.start_ms),
            )
            room = int(sealed) + 2 * SEAL_AT_MOST
        self._buffer = np.empty((COLUMNS, room), np.int64)
        self._from = self._to = room
        self._parts: list[Columns] = []

    def take_rows(self, start_ms: int) -> None:
        start_ms = max(start_ms, self._span.start_ms)
        if self.left == 0 or start_ms >= self._from_ms:
            return
        columns = select_rows(self._sql, self._table, Range(start_ms, self._from_ms), self.left)
        rows = columns.shape[1]
        self._room(rows)[:] = columns
        self._sql.counts.from_rows += rows
        if rows > SEAL_AT_MOST:
            # Blocks of an older file, or of a much wider write: none were made yet.
            self._sql.wishes.append(partial(seal, table=self._table))
        self._from_ms = start_ms

    def take_block(self, block: Block, packed: Packed) -> None:
        low, high = 0, packed.rows
        if block.start_ms < self._span.start_ms or block.end_ms > self._span.end_ms:
            low, high = packed.places(*self._span)
        if self.left is not None:
            low = max(low, high - self.left)
        packed.copy_to(self._room(high - low), low, high)
        self._sql.counts.from_blocks += high - low
        self._from_ms = block.start_ms

    def columns(self) -> Columns:
        """All of it, ascending."""
        self._finish_part()
        whole = joined(self._parts[::-1])
        # A few rows do not keep the room that was made for many.
        return whole if 2 * whole.shape[1] >= self._buffer.shape[1] else whole.copy()

    def _room(self, rows: int) -> Columns:
        """Where so many rows go, below those that are there."""
        if self.left is not None:
            self.left -= rows
        if rows > self._from:
            self._finish_part()
            part = np.empty((COLUMNS, rows), np.int64)
            self._parts.append(part)
            return part
        self._from -= rows
        return self._buffer[:, self._from : self._from + rows]

    def _finish_part(self) -> None:
        if self._from < self._to:
            self._parts.append(self._buffer[:, self._from : self._to])
            self._to = self._from


def write(sql: Sql, table: str, columns: Columns) -> int:
    """Upsert rows, inside a transaction; what repeats the stored candles changes nothing.

    Blocks that a changed row lies in are dropped and made again, and loose rows become blocks
    when enough have gathered.

    Returns:
        How many sealed candles were replaced or added.
    """
    sealed = learn(sql, table)
    inside = cut(columns, sealed.start_ms, sealed.end_ms)
    below = cut(columns, 0, sealed.start_ms)
    above = cut(columns, sealed.end_ms, _END_OF_TIME_MS)
    if inside.shape[1]:
        inside = _changed(sql, table, inside)
        columns = joined([below, inside, above])
    insert_rows(sql, table, columns)
    if inside.shape[1]:
        _remake(sql, table, Range(int(inside[0, 0]), int(inside[0, -1]) + 1), written=inside)
    sealed.above += above.shape[1]
    sealed.below += below.shape[1]
    if sealed.above >= sealed.seal_at:
        seal(sql, table, fresh=above)
    if sealed.below >= sealed.seal_at:
        seal(sql, table, fresh=below)
    return int(inside.shape[1])


def write_row(sql: Sql, table: str, row: Sequence[float]) -> None:
    """Upsert one candle, the cheapest way where it is newer than every block."""
    sealed = learn(sql, table)
    if row[0] < sealed.end_ms:
        write(sql, table, columns_of_rows([row]))
        return
    sql.execute(sealed.upsert, row)
    sealed.above += 1
    if sealed.above >= sealed.seal_at:
        seal(sql, table)


def learn(sql: Sql, table: str) -> Sealed:
    """How far the blocks of a series reach; asked once a connection."""
    sealed = sql.learnt.sealed.get(table)
    if sealed is not None:
        return sealed
    ((start_ms, end_ms),) = sql.execute(
        "SELECT min(start_ms), max(end_ms) FROM blocks WHERE table_name = ?", (table,)
    )
    # Each series has its own threshold: equal ones would all be reached in the same minute.
    seal_at = SEAL_AT_LEAST + zlib.crc32(table.encode()) % (SEAL_AT_MOST - SEAL_AT_LEAST + 1)
    sealed = Sealed(_upsert_statement(table), seal_at, start_ms or 0, end_ms or 0)
    sealed.above = _count(sql, table, Range(sealed.end_ms, _END_OF_TIME_MS), seal_at)
    sealed.below = _count(sql, table, Range(0, sealed.start_ms), seal_at)
    sql.learnt.sealed[table] = sealed
    return sealed


def seal(sql: Sql, table: str, *, fresh: Columns | None = None) -> None:
    """Make blocks of the loose rows above and below those there are, inside a transaction.

    At most `ROWS_AT_ONCE` a call, unless they are `fresh`; the rest is wished for.

    Args:
        sql: Of the writer.
        table: Of the series.
        fresh: Rows that were just written, so that they need not be read again.
    """
    # What was written twice was counted twice.
    sql.learnt.sealed.pop(table, None)
    sealed = learn(sql, table)
    limit = ROWS_AT_ONCE if fresh is None else max(ROWS_AT_ONCE, 2 * fresh.shape[1])
    more = False
    if sealed.above >= sealed.seal_at:
        start_ms = sealed.end_ms or _edge(sql, table, "ASC")
        beyond_ms = _nth(sql, table, "open_time >= ? ORDER BY open_time", start_ms, limit)
        end_ms = _edge(sql, table, "DESC") + 1 if beyond_ms is None else beyond_ms
        span = Range(start_ms, end_ms)
        _fill(sql, table, span, _rows_of(sql, table, span, fresh))
        more = beyond_ms is not None
    if sealed.below >= sealed.seal_at:
        beyond_ms = _nth(
            sql, table, "open_time < ? ORDER BY open_time DESC", sealed.start_ms, limit - 1
        )
        start_ms = _edge(sql, table, "ASC") if beyond_ms is None else beyond_ms
        span = Range(start_ms, sealed.start_ms)
        _fill(sql, table, span, _rows_of(sql, table, span, fresh))
        more = more or beyond_ms is not None
    sql.learnt.sealed.pop(table, None)
    if more:
        sql.wishes.append(partial(seal, table=table))


def mend(sql: Sql, table: str, start_ms: int) -> None:
    """Make a block again whose checksum was wrong; one that is right by now stays."""
    for block in overlapping(sql, table, Range(start_ms, start_ms + 1)):
        if unpack(table, block) is None:
            _remake(sql, table, Range(block.start_ms, block.end_ms))


def drop(sql: Sql, table: str, end_ms: int) -> None:
    """Delete the blocks that hold anything below a time, inside a transaction."""
    sql.execute("DELETE FROM blocks WHERE table_name = ? AND start_ms < ?", (table, end_ms))


def delete(sql: Sql, table: str, open_times: Sequence[int]) -> None:
    """Delete rows; the blocks that they lay in are made again without them."""
    sql.executemany(
        f"DELETE FROM {table} WHERE open_time = ?", [(open_time,) for open_time in open_times]
    )
    span = Range(min(open_times), max(open_times) + 1)
    _remake(sql, table, span, deleted=open_times)


def _remake(
    sql: Sql,
    table: str,
    span: Range,
    *,
    written: Columns | None = None,
    deleted: Sequence[int] = (),
) -> None:
    """Make the blocks of a range again.

    Args:
        sql: Of the writer.
        table: Of the series.
        span: What is touched.
        written: Rows that the blocks do not hold yet, or hold otherwise.
        deleted: Open times of rows that they still hold.
    """
    dropped = list(overlapping(sql, table, span))[::-1]
    if not dropped:
        return
    whole = Range(dropped[0].start_ms, dropped[-1].end_ms)
    if any(one.end_ms != above.start_ms for one, above in pairwise(dropped)):
        # Between them rows may lie that no block holds.
        columns = select_rows(sql, table, whole)
    else:
        # Of thousands of rows a few are new: to unpack what was sealed takes a fifth of the time.
        columns = joined([_columns_of(sql, table, block) for block in dropped])
        fresh = no_columns() if written is None else written
        stays = ~np.isin(columns[0], [*fresh[0].tolist(), *deleted])
        columns = np.concatenate((columns[:, stays], fresh), axis=1)
        columns = columns[:, np.argsort(columns[0], kind="stable")]
    _delete(sql, table, [block.start_ms for block in dropped])
    _fill(sql, table, whole, columns)


def _fill(sql: Sql, table: str, span: Range, columns: Columns) -> None:
    """Make the blocks of a range that has none, of all its rows, and take small neighbours in."""
    start_ms, end_ms = span
    full: list[int] = []
    for beside_ms in (start_ms - 1, end_ms):
        beside = next(overlapping(sql, table, Range(beside_ms, beside_ms + 1)), None)
        if beside is None:
            continue
        rows = columns.shape[1]
        if rows >= SEAL_AT_LEAST and rows + beside.rows > GROWING_ROWS:
            full.append(beside.start_ms)
            continue
        held = _columns_of(sql, table, beside)
        _delete(sql, table, [beside.start_ms])
        columns = joined([held, columns] if beside_ms < start_ms else [columns, held])
        start_ms, end_ms = min(start_ms, beside.start_ms), max(end_ms, beside.end_ms)
    if not columns.shape[1]:
        sql.learnt.sealed.pop(table, None)
        return
    _insert(sql, table, start_ms, end_ms, columns)
    for beside_ms in full:
        _join_small(sql, table, beside_ms)


def _join_small(sql: Sql, table: str, start_ms: int) -> None:
    """Make one of a block that has stopped growing and those small ones beside it, if enough."""
    select = "SELECT start_ms, end_ms, row_count, checksum, data FROM blocks WHERE table_name = ?"
    below = sql.execute(f"{select} AND start_ms < ? ORDER BY start_ms DESC", (table, start_ms))
    above = sql.execute(f"{select} AND start_ms >= ? ORDER BY start_ms", (table, start_ms))
    small: deque[Block] = deque()
    for found, take in ((below, small.appendleft), (above, small.append)):
        for block in map(Block._make, found):
            if block.rows > GROWING_ROWS or sum(one.rows for one in small) >= ROWS_PER_BLOCK:
                break
            take(block)
    if sum(block.rows for block in small) < ROWS_PER_BLOCK - GROWING_ROWS:
        return
    columns = joined([_columns_of(sql, table, block) for block in small])
    _delete(sql, table, [block.start_ms for block in small])
    _insert(sql, table, small[0].start_ms, small[-1].end_ms, columns)


def _columns_of(sql: Sql, table: str, block: Block) -> Columns:
    columns = unpack(table, block)
    if columns is None:
        return select_rows(sql, table, Range(block.start_ms, block.end_ms))
    return columns


def _insert(sql: Sql, table: str, start_ms: int, end_ms: int, columns: Columns) -> None:
    sql.executemany(
        "INSERT INTO blocks (table_name, start_ms, end_ms, row_count, checksum, data)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        ((table, *block) for block in _packed(table, start_ms, end_ms, columns)),
    )


def _packed(table: str, start_ms: int, end_ms: int, columns: Columns) -> Iterator[Block]:
    starts = list(range(0, columns.shape[1], ROWS_PER_BLOCK))
    if len(starts) > 1 and columns.shape[1] - starts[-1] < SEAL_AT_LEAST:
        starts.pop()
    ends = [*starts[1:], columns.shape[1]]
    times = [start_ms, *columns[0, starts[1:]].tolist(), end_ms]
    for low, high, low_ms, high_ms in zip(starts, ends, times, times[1:], strict=False):
        yield pack(table, low_ms, high_ms, columns[:, low:high])


def _rows_of(sql: Sql, table: str, span: Range, fresh: Columns | None) -> Columns:
    """The rows of a range; those just written are taken as they are, if no others are between."""
    if fresh is None or fresh.shape[1] < SEAL_AT_LEAST:
        return select_rows(sql, table, span)
    written = Range(int(fresh[0, 0]), int(fresh[0, -1]) + 1)
    if not (span.start_ms <= written.start_ms and written.end_ms <= span.end_ms):
        return select_rows(sql, table, span)
    if _count(sql, table, written, fresh.shape[1] + 1) != fresh.shape[1]:
        return select_rows(sql, table, span)
    before = select_rows(sql, table, Range(span.start_ms, written.start_ms))
    after = select_rows(sql, table, Range(written.end_ms, span.end_ms))
    return joined([part for part in (before, fresh, after) if part.shape[1]])


def _changed(sql: Sql, table: str, columns: Columns) -> Columns:
    """Those of the rows that are not stored just so."""
    held = read(sql, table, Range(int(columns[0, 0]), int(columns[0, -1]) + 1))
    if not held.shape[1]:
        return columns
    at = np.minimum(np.searchsorted(held[0], columns[0]), held.shape[1] - 1)
    same: npt.NDArray[np.bool_] = np.all(held[:, at] == columns, axis=0)
    return columns[:, ~same] if bool(same.any()) else columns


def insert_rows(sql: Sql, table: str, columns: Columns) -> None:
    """Upsert rows; the caller answers for the blocks."""
    statement = _upsert_statement(table)
    numbers = columns[1:].view(np.float64)
    for low in range(0, columns.shape[1], CHUNK_ROWS):
        part = slice(low, low + CHUNK_ROWS)
        rows = zip(columns[0, part].tolist(), *(n[part].tolist() for n in numbers), strict=True)
        sql.executemany(statement, rows)


def _upsert_statement(table: str) -> str:
    return (
        f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (open_time) DO UPDATE"
        " SET open = excluded.open, high = excluded.high, low = excluded.low,"
        " close = excluded.close, volume = excluded.volume, value = excluded.value"
    )


def _delete(sql: Sql, table: str, starts_ms: Sequence[int]) -> None:
    sql.executemany(
        "DELETE FROM blocks WHERE table_name = ? AND start_ms = ?",
        [(table, start_ms) for start_ms in starts_ms],
    )


def _count(sql: Sql, table: str, span: Range, limit: int) -> int:
    """How many rows a range has; `limit` says when to stop counting."""
    ((count,),) = sql.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE open_time >= ? AND open_time < ?"
        " LIMIT ?)",
        (*span, limit),
    )
    return int(count)


def _nth(sql: Sql, table: str, where: str, from_ms: int, offset: int) -> int | None:
    found = sql.execute(
        f"SELECT open_time FROM {table} WHERE {where} LIMIT 1 OFFSET ?", (from_ms, offset)
    ).fetchone()
    return None if found is None else int(found[0])


def _edge(sql: Sql, table: str, order: str) -> int:
    """The first (``"ASC"``) or last (``"DESC"``) open time of a table that has rows."""
    ((open_time,),) = sql.execute(
        f"SELECT open_time FROM {table} ORDER BY open_time {order} LIMIT 1"
    )
    return int(open_time)
