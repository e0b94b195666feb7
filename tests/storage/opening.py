"""A store on top of a fake exchange, and a look into its file from outside."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from random import Random

from upbit_backbone.clock import Clock
from upbit_backbone.models import Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import DataSource
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.storage import Storage
from upbit_backbone.storage.tending import LowTurn


@asynccontextmanager
async def opened(
    folder: Path,
    source: DataSource,
    clock: Clock,
    *,
    origin: Origin | None = None,
    memory_limit_bytes: int = 1 << 20,
    pinned: Iterable[tuple[str, Timeframe]] = (),
    rng: Random | None = None,
    gives_way: Callable[[], bool] = lambda: False,
    low_turn: LowTurn = nullcontext,
) -> AsyncIterator[Storage]:
    """A running store; stopped at the end."""
    storage = Storage(
        source,
        folder=folder,
        origin=origin or Origin("test"),
        clock=clock,
        memory_limit_bytes=memory_limit_bytes,
        pinned=pinned,
        rng=rng,
        gives_way=gives_way,
        low_turn=low_turn,
        look_every_s=0.005,
    )
    try:
        await storage.start()
        yield storage
    finally:
        await storage.stop()


def coverage_in(folder: Path) -> list[tuple[int, int]]:
    """Proved ranges of all series in the file."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
        return sql.execute(
            "SELECT start_ms, end_ms FROM coverage WHERE state != 'unknown' ORDER BY start_ms"
        ).fetchall()


def rows_in(folder: Path, table: str = "candles_KRW_BTC_1m") -> list[tuple[float, ...]]:
    """What a table of candles holds."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
        known = sql.execute("SELECT name FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        if known is None:
            return []
        return sql.execute(f"SELECT * FROM {table} ORDER BY open_time").fetchall()


def spans_in(folder: Path) -> list[tuple[int, int, str, str, str]]:
    """What the file knows of all series: range, state, reason and evidence."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as sql:
        return sql.execute(
            "SELECT start_ms, end_ms, state, reason, evidence FROM coverage ORDER BY start_ms"
        ).fetchall()
