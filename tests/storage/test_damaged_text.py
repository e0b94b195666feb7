"""Damage inside text, which SQLite hands out as it is: seen, mended, and worth one row."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.test_damage import KEY, OTHER, START_MS, candles, fill, opened, proved, stored
from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.errors import StorageCorruptError
from upbit_backbone.storage.candle_tables import read_markets
from upbit_backbone.storage.coverage_table import read_coverage
from upbit_backbone.storage.database import FILE_NAME
from upbit_backbone.storage.spans import Range

END_MS = START_MS + 5_000 * MINUTE_MS
LATER = Range(END_MS + 60 * MINUTE_MS, END_MS + 90 * MINUTE_MS)


async def filled(folder: Path) -> Path:
    """The file with one more span of the first series, empty."""
    path = await fill(folder)
    execute(
        path,
        "INSERT INTO coverage VALUES (?, ?, ?, ?, 'empty', '', 'rest', 1)",
        KEY.symbol, KEY.timeframe.value, *LATER,
    )  # fmt: skip
    return path


def execute(path: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as sql:
        sql.execute(statement, parameters)
        sql.commit()
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


async def assert_mended(folder: Path, *, lost: Range | None = None) -> None:
    """All candles are there, and one span of those of the first series may be missing."""
    async with opened(folder) as database:
        assert database.salvaged
        assert await stored(database) == candles()
        assert await stored(database, OTHER) == candles(OTHER)
        assert list(await proved(database, OTHER)) == [Range(START_MS, END_MS)]
        expected = [span for span in (Range(START_MS, END_MS), LATER) if span != lost]
        assert list(await proved(database)) == expected
        markets = await database.read(read_markets)
        assert [market.symbol for market in markets] == [KEY.symbol]
    async with opened(folder) as database:
        assert database.salvaged == ""


async def test_a_name_that_is_no_text_is_damage_and_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    korean = "비트코인".encode()
    replace_bytes(path, korean, b"\xff" + korean[1:])
    await assert_mended(tmp_path)


async def test_a_state_that_is_no_text_costs_that_span_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    replace_bytes(path, b"empty", b"em\xffty")
    await assert_mended(tmp_path, lost=LATER)


@pytest.mark.parametrize(
    "change",
    [
        "timeframe = '1x'",
        "state = 'emptx'",
        "start_ms = 'soon'",
        "end_ms = start_ms",
        "end_ms = 'never'",
        "end_ms = 1.5e300",
        "known_at_ms = 'now'",
        "evidence = x'00ff'",
    ],
)
async def test_a_span_that_cannot_be_is_damage_and_costs_that_span(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    execute(path, f"UPDATE coverage SET {change} WHERE state = 'empty'")
    await assert_mended(tmp_path, lost=LATER)


async def test_of_two_spans_that_overlap_neither_is_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    execute(path, "UPDATE coverage SET start_ms = ? WHERE state = 'empty'", END_MS - 1)
    async with opened(tmp_path) as database:
        assert await stored(database) == candles()
        assert list(await proved(database)) == []
        assert list(await proved(database, OTHER)) == [Range(START_MS, END_MS)]


@pytest.mark.parametrize("change", ["timeframe = '1x'", "table_name = 'candles_KRW_BTC_3m'"])
async def test_a_list_of_series_that_names_others_is_damage_and_is_mended(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    execute(path, f"UPDATE series SET {change} WHERE symbol = ?", KEY.symbol)
    await assert_mended(tmp_path)


@pytest.mark.parametrize("name", [b"candles_KRW_BTC_1m", b"coverage"])
@pytest.mark.parametrize("quoted", [False, True])
async def test_a_schema_that_is_no_text_is_damage_and_not_a_fault_of_ours(
    tmp_path: Path, name: bytes, quoted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    if quoted:
        # What SQLite then says names the table, and is no text either.
        replace_bytes(path, b"CREATE TABLE " + name, b"CREATE TXBLE " + name)
        replace_bytes(path, b"table" + name, b"table\xff" + name[1:])
    else:
        replace_bytes(path, b"CREATE TABLE " + name, b"CREATE TABLE \xff" + name[1:])
    async with opened(tmp_path) as database:
        assert database.salvaged
        assert await stored(database, OTHER) == candles(OTHER)
    async with opened(tmp_path) as database:
        assert database.salvaged == ""


async def test_a_span_that_is_damaged_while_the_file_is_used_is_told_and_mended_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await filled(tmp_path)
    async with opened(tmp_path) as database:
        execute(path, "UPDATE coverage SET timeframe = '1x' WHERE state = 'empty'")
        with pytest.raises(StorageCorruptError, match="1x"):
            await database.read(read_coverage)
        assert (tmp_path / f"{FILE_NAME}.damaged").exists()
    await assert_mended(tmp_path, lost=LATER)
