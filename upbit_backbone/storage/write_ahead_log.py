"""The write-ahead log begins anew only in a moment in which nobody reads from it."""

from __future__ import annotations

from pathlib import Path

from upbit_backbone.storage.sql import Sql


def log_of(path: Path) -> Path:
    """The name of a file's log."""
    return path.with_name(f"{path.name}-wal")


def length_bytes(path: Path) -> int:
    """How long a file's log is; 0 where there is none."""
    try:
        return log_of(path).stat().st_size
    except OSError:
        return 0


def cut_off(sql: Sql, *, wait_ms: int = 0) -> bool:
    """Move the log into the file and cut it off; outside a transaction.

    Whoever begins to read meanwhile reads the file alone, and is not waited for.

    Args:
        sql: Of the writer; nobody writes meanwhile.
        wait_ms: How long those are waited for who read from the log.

    Returns:
        Whether it was cut off; if not, somebody reads from it for longer.
    """
    ((usual_ms,),) = sql.execute("PRAGMA busy_timeout")
    sql.execute(f"PRAGMA busy_timeout = {wait_ms}")
    try:
        ((busy, _, _),) = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        sql.execute(f"PRAGMA busy_timeout = {usual_ms}")
    return not busy
