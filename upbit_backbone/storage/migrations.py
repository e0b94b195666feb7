"""The schema of the file, and the way to it from every schema that was released."""

from __future__ import annotations

import logging
from pathlib import Path

import aiosqlite

from upbit_backbone.errors import StorageCorruptError, StorageOriginError
from upbit_backbone.storage.sql import Sql

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 3

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (
    symbol TEXT, timeframe TEXT, table_name TEXT NOT NULL UNIQUE, PRIMARY KEY (symbol, timeframe)
) WITHOUT ROWID;
CREATE TABLE coverage (
    symbol TEXT, timeframe TEXT, start_ms INTEGER, end_ms INTEGER NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, evidence TEXT NOT NULL, known_at_ms INTEGER NOT NULL,
    PRIMARY KEY (symbol, timeframe, start_ms)
) WITHOUT ROWID;
CREATE TABLE markets (
    position INTEGER PRIMARY KEY, symbol TEXT NOT NULL UNIQUE, korean_name TEXT NOT NULL,
    english_name TEXT NOT NULL
)
"""
# The BLOB is the last column: the others are read without loading it.
_BLOCKS = """
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL, row_count INTEGER NOT NULL, checksum INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX blocks_of_series ON blocks (
    table_name, start_ms, end_ms, row_count
)
"""
# When a series was last asked for: what was not used for longest makes room first.
_USAGE = """
CREATE TABLE usage (
    symbol TEXT, timeframe TEXT, used_ms INTEGER NOT NULL, PRIMARY KEY (symbol, timeframe)
) WITHOUT ROWID
"""
_TABLE_NAMES = {"meta", "series", "coverage", "markets", "blocks", "usage"}
_SMALL_BYTES = 64 << 20
"""Up to here the whole file is written anew while a program starts: that takes a second."""


class NewerSchemaError(StorageCorruptError):
    """The file was written by a newer program: it is whole, and nothing of it may be moved."""


class ForeignFileError(StorageOriginError):
    """The file is a database of another program: nothing of it is written or moved."""


def view_of(table: str) -> str:
    """The statement for the view that shows a table of candles with its time as text."""
    return (
        f"CREATE VIEW IF NOT EXISTS {table}_utc AS SELECT strftime('%Y-%m-%dT%H:%M:%SZ',"
        f" open_time / 1000, 'unixepoch') AS timestamp, * FROM {table}"
    )


def expect_store(sql: Sql, path: Path) -> None:
    """Refuse a database that another program made; an empty one is nobody's.

    A damaged store may lack some of its tables, and another program may have one called "meta".

    Raises:
        ForeignFileError: it is one.
    """
    names = {
        str(name)
        for (name,) in sql.execute("SELECT name FROM sqlite_schema")
        if not str(name).startswith("sqlite_")
    }
    holds_candles = any(name.startswith("candles_") for name in names)
    if names and not holds_candles and len(names & _TABLE_NAMES) < 2:
        raise ForeignFileError(
            f"{path} is a SQLite database of another program, and is left as it is: move it away,"
            " or choose another data folder (--data-dir)"
        )


def schema_version(sql: Sql) -> int:
    """The schema that the file has; 0 for an empty one.

    Raises:
        NewerSchemaError: it is one that this program does not know.
    """
    ((version,),) = sql.execute("PRAGMA user_version").fetchall()
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"the store has schema {version}, expected {SCHEMA_VERSION}: it was written by"
            " a newer program; update this one, or choose another data folder"
        )
    return int(version)


def create(sql: Sql) -> None:
    """Make the schema in an empty file; two programs may try it at once."""
    # Has to be said before the first table: pages that become free can then be given back.
    sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("BEGIN IMMEDIATE")
    try:
        if schema_version(sql) == 0:
            for statement in f"{_TABLES};{_BLOCKS};{_USAGE}".split(";"):
                sql.execute(statement)
            sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        sql.execute("COMMIT")
    except BaseException:
        sql.roll_back()
        raise


def migrate(sql: Sql) -> None:
    """Bring an older file up to date, in one transaction; nobody else may have it open.

    Programs of schema 1 take no lock beside the file. But leaving the write-ahead log needs
    the file for oneself: SQLite refuses it while any other connection exists.
    """
    sql.execute("PRAGMA journal_mode = DELETE")
    sql.execute("BEGIN EXCLUSIVE")
    try:
        version = schema_version(sql)
        for step in range(version, SCHEMA_VERSION):
            _STEPS[step](sql)
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        sql.execute("COMMIT")
    except BaseException:
        sql.roll_back()
        raise
    _let_shrink(sql)
    sql.execute("PRAGMA journal_mode = WAL")
    logger.info("the store was brought from schema %d to %d", version, SCHEMA_VERSION)


def _from_1_to_2(sql: Sql) -> None:
    """Add blocks (made from rows as these are read) and a view a series."""
    for statement in _BLOCKS.split(";"):
        sql.execute(statement)
    for (table,) in sql.execute("SELECT table_name FROM series").fetchall():
        sql.execute(view_of(table))


def _from_2_to_3(sql: Sql) -> None:
    """Add when each series was last used."""
    sql.execute(_USAGE)


def can_shrink(sql: Sql) -> bool:
    """Whether pages that become free can be given back step by step."""
    ((mode,),) = sql.execute("PRAGMA auto_vacuum")
    return bool(mode == _INCREMENTAL)


def vacuum(sql: Sql) -> None:
    """Write the whole file anew, so that it has no free pages and can shrink step by step later.

    Outside a transaction, with the file to oneself; a process that is killed leaves the old file.
    """
    sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
    sql.execute("VACUUM")


def _let_shrink(sql: Sql) -> None:
    """Let a file of schema 1 shrink, if it is small; a large one waits for ``db vacuum``."""
    ((pages,),) = sql.execute("PRAGMA page_count")
    ((page_bytes,),) = sql.execute("PRAGMA page_size")
    if can_shrink(sql) or pages * page_bytes > _SMALL_BYTES:
        return
    try:
        vacuum(sql)
    except aiosqlite.OperationalError as error:
        # Without room for a second file it stays as it is, whole.
        logger.info("the store could not be written anew: %s", error)


_INCREMENTAL = 2
"""What ``PRAGMA auto_vacuum`` answers then."""
_STEPS = {1: _from_1_to_2, 2: _from_2_to_3}
