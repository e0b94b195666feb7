"""A series goes out of the store into a file, and comes back as it was."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import FakeExchangeSource, asked
from tests.storage.opening import opened
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.errors import (
    InvalidRequestError,
    StorageOriginError,
    StorageUnavailableError,
)
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import Reach
from upbit_backbone.storage.candle_tables import SeriesKey, read_rows, write_rows
from upbit_backbone.storage.coverage import BEGINNING_MS, IMPORTED, LIVE, REST, KnownSpan
from upbit_backbone.storage.coverage_table import (
    Outdated,
    forget_built,
    put_spans,
    read_series_coverage,
)
from upbit_backbone.storage.database import Database
from upbit_backbone.storage.series_files import csv_file, exporting, parquet_file
from upbit_backbone.storage.series_files.csv_file import beside
from upbit_backbone.storage.series_files.exporting import export_series
from upbit_backbone.storage.series_files.header import unfinished
from upbit_backbone.storage.series_files.importing import Imported, import_series
from upbit_backbone.storage.spans import Range
from upbit_backbone.storage.sql import Sql

M, NOON = MINUTE_MS, AUTUMN_2025_MS
KEY = SeriesKey("KRW-BTC", Timeframe.M1)
SUFFIXES = (".csv", ".parquet")
EVERYTHING = Range(BEGINNING_MS, NOON * 2)


def real() -> Origin:
    """The origin of real candles."""
    origin = Origin("upbit", accepts_mark=False)
    origin.observe(None)
    return origin


def simulated(mark: str = "simulator-1") -> Origin:
    origin = Origin("simulator-1")
    origin.observe(mark)
    return origin


@asynccontextmanager
async def database_in(folder: Path, origin: Origin) -> AsyncIterator[Database]:
    database = Database(folder, origin)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def series(opens: list[int], price: float = 100.0, key: SeriesKey = KEY) -> CandleSeries:
    """Candles with numbers that no short text holds."""
    return CandleSeries.from_rows(
        key.symbol,
        key.timeframe,
        [
            (at, price + n / 3, price * 2 + n, price / 7, price + 1 / (n + 3), n / 7, n / 0.3)
            for n, at in enumerate(opens)
        ],
        closed_before_ms=None,
        source="rest",
        simulated=False,
    )


def minutes(start: int, end: int) -> list[int]:
    return [NOON - 1_000 * M + n * M for n in range(start, end)]


def known(start: int, end: int, state: Any = "complete", evidence: str = REST) -> KnownSpan:
    low, high = NOON - 1_000 * M + start * M, NOON - 1_000 * M + end * M
    return KnownSpan(low, high, state, "", evidence, 1)


async def put(database: Database, rows: CandleSeries, *spans: KnownSpan) -> None:
    key = SeriesKey(rows.symbol, rows.timeframe)

    def work(sql: Sql) -> None:
        write_rows(sql, key, rows)
        put_spans(sql, key, spans)

    await database.write(work)


async def held(database: Database, key: SeriesKey = KEY) -> CandleSeries:
    return await database.read(
        partial(read_rows, key=key, span=EVERYTHING, latest=None, simulated=False)
    )


async def spans(database: Database, key: SeriesKey = KEY) -> list[tuple[int, int, str]]:
    found = await database.read(partial(read_series_coverage, key=key))
    return [(one.start_ms, one.end_ms, one.state) for one in found]


async def imported(database: Database, origin: Origin, path: Path) -> Imported:
    return await import_series(database, origin, path, clock=ManualClock(NOON))


@pytest.fixture(params=SUFFIXES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"btc{request.param}"


numbers = st.floats(1e-8, 1e15, exclude_min=True, allow_subnormal=False)


@st.composite
def stored(draw: st.DrawFn) -> tuple[CandleSeries, list[KnownSpan]]:
    """Candles within complete spans, between which other things are known or nothing."""
    rows: list[tuple[float, ...]] = []
    told: list[KnownSpan] = []
    at = 0
    for _ in range(draw(st.integers(1, 8))):
        at += draw(st.integers(0, 5))
        length = draw(st.integers(1, 12))
        state = draw(st.sampled_from(["complete", "complete", "empty", "unknown"]))
        live = draw(st.booleans()) and state != "unknown"
        told.append(known(at, at + length, state, LIVE if live else REST))
        if state == "complete":
            for minute in minutes(at, at + length):
                if draw(st.booleans()):
                    low, one, other, high = sorted(draw(st.tuples(*[numbers] * 4)))
                    sums = draw(st.tuples(numbers, numbers))
                    rows.append((minute, one, high, low, other, *sums))
        at += length
    made = CandleSeries.from_rows(*KEY, rows, closed_before_ms=None, source="rest", simulated=False)
    if draw(st.booleans()):
        told.insert(0, KnownSpan(BEGINNING_MS, told[0].start_ms, "before_listing", "", REST, 1))
    return made, told


@settings(max_examples=15)
@given(content=stored(), suffix=st.sampled_from(SUFFIXES), piece=st.sampled_from([3, 10_000]))
def test_an_export_read_into_an_empty_store_gives_the_same_candles_and_knowledge(
    content: tuple[CandleSeries, list[KnownSpan]], suffix: str, piece: int
) -> None:
    rows, told = content

    async def there_and_back(folder: Path) -> None:
        path = folder / f"file{suffix}"
        async with database_in(folder / "one", real()) as one:
            await put(one, rows, *told)
            expected = [span for span in await spans(one) if span[2] != "unknown"]
            if not expected:
                with pytest.raises(InvalidRequestError, match="no candles of KRW-BTC 1m"):
                    await export_series(one, real(), KEY, path)
                return
            assert (await export_series(one, real(), KEY, path)).candles == len(rows)
        async with database_in(folder / "two", real()) as two:
            result = await imported(two, real(), path)
            assert (result.candles, result.written, result.differing) == (len(rows), len(rows), 0)
            assert await held(two) == rows.labelled("storage")
            assert await spans(two) == expected
            again = await imported(two, real(), path)
            assert (again.written, again.differing) == (0, 0)
            assert await held(two) == rows.labelled("storage")

    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        for module in (exporting, csv_file, parquet_file):
            patch.setattr(module, "PIECE_ROWS", piece)
        asyncio.run(there_and_back(Path(folder)))


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(0.1 + 0.2)
@example(5e-324)
@example(123456789012345.67)
def test_the_text_of_a_float_in_a_csv_file_reads_back_as_the_same_float(number: float) -> None:
    assert np.array([repr(number)]).astype(float)[0] == number


async def test_only_what_is_proved_is_exported_and_a_range_cuts_it(
    tmp_path: Path, target: Path
) -> None:
    async with database_in(tmp_path, real()) as database:
        await put(database, series(minutes(0, 100)), known(10, 40), known(50, 90))
        whole = await export_series(database, real(), KEY, target)
        assert whole.candles == 70
        part = target.with_stem("part")
        start_ms, end_ms = NOON - 965 * M, NOON - 945 * M
        cut = await export_series(database, real(), KEY, part, start_ms=start_ms - 1, end_ms=end_ms)
        assert cut.candles == 10
    async with database_in(tmp_path / "other", real()) as other:
        await imported(other, real(), part)
        assert await spans(other) == [
            (start_ms, NOON - 960 * M, "complete"),
            (NOON - 950 * M, end_ms, "complete"),
        ]


async def test_a_csv_file_opens_in_pandas_and_has_nothing_but_candles(tmp_path: Path) -> None:
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path, simulated()) as database:
        await put(database, series(minutes(0, 5)), known(0, 5))
        done = await export_series(database, simulated(), KEY, path)
    assert done.files == (path, beside(path))
    frame = pd.read_csv(path, parse_dates=["open_time_utc"])
    assert frame["open_time_utc"].dt.tz_localize("UTC").tolist() == [
        utc_datetime(at) for at in minutes(0, 5)
    ]
    assert frame["close"].tolist() == series(minutes(0, 5)).close.tolist()
    assert set(frame["exchange"]) == {"simulator-1"}
    assert set(frame["simulated"]) == {True}
    said = json.loads(beside(path).read_text(encoding="utf-8"))
    assert said["coverage"][0]["start"] == "2025-09-14T07:20:00Z"
    assert (said["identity"], said["simulated"], said["mark"]) == (
        "simulator-1",
        True,
        "simulator-1",
    )


async def test_a_parquet_file_opens_in_pandas(tmp_path: Path) -> None:
    path = tmp_path / "btc.parquet"
    async with database_in(tmp_path, real()) as database:
        await put(database, series(minutes(0, 5)), known(0, 5))
        await export_series(database, real(), KEY, path)
    frame = pd.read_parquet(path)
    assert frame["open_time"].tolist() == [utc_datetime(at) for at in minutes(0, 5)]
    assert frame["value"].tolist() == series(minutes(0, 5)).value.tolist()


async def test_candles_without_what_is_known_prove_themselves_alone(tmp_path: Path) -> None:
    path = tmp_path / "btc.csv"
    opens = [*minutes(0, 5), *minutes(8, 10)]
    async with database_in(tmp_path, real()) as database:
        await put(database, series(opens), known(0, 20))
        await export_series(database, real(), KEY, path)
    beside(path).unlink()
    async with database_in(tmp_path / "other", real()) as other:
        await imported(other, real(), path)
        found = await other.read(partial(read_series_coverage, key=KEY))
        expected = [known(0, 5), known(8, 10)]
        assert [(o.start_ms, o.end_ms) for o in found] == [(o[0], o[1]) for o in expected]
        assert {(one.reason, one.evidence) for one in found} == {
            (IMPORTED, "imported from btc.csv")
        }


async def test_what_is_known_is_never_overwritten_and_what_differs_is_told(
    tmp_path: Path, target: Path
) -> None:
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 50)), known(0, 50))
        await export_series(one, real(), KEY, target)
    mine = series([*minutes(10, 12), *minutes(14, 20)], price=300.0)
    same = series(minutes(0, 50)).between(*known(30, 40)[:2])
    async with database_in(tmp_path / "two", real()) as two:
        await put(two, CandleSeries.merged([mine, same]), known(10, 20), known(30, 40))
        result = await imported(two, real(), target)
        assert (result.written, result.differing) == (30, 10)
        assert len(result.differences) == 10
        assert "open 300 " in result.differences[0]
        assert "in the file: 2025-09-14T07:30:00Z open 103.333333333" in result.differences[0]
        assert result.differences[2].startswith("stored: no candle at 2025-09-14T07:32:00Z")
        after = await held(two)
        assert after.between(*known(10, 20)[:2]) == mine.labelled("storage")
        assert len(after) == 48
        evidence = [o.evidence for o in await two.read(partial(read_series_coverage, key=KEY))]
        assert evidence.count(REST) == 2


async def test_what_lay_there_without_a_proof_is_not_proved_by_an_import(
    tmp_path: Path, target: Path
) -> None:
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 10)), known(0, 50))
        await export_series(one, real(), KEY, target)
    async with database_in(tmp_path / "two", real()) as two:
        await put(two, series(minutes(5, 25), price=9.0))
        await imported(two, real(), target)
        assert await held(two) == series(minutes(0, 10)).labelled("storage")


async def test_what_a_stream_alone_had_told_is_settled_after_an_import(
    tmp_path: Path, target: Path
) -> None:
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 20)), known(0, 10), known(10, 20, evidence=LIVE))
        await export_series(one, real(), KEY, target)
    async with database_in(tmp_path / "two", real()) as two:
        await imported(two, real(), target)
        found = await two.read(partial(read_series_coverage, key=KEY))
        assert [one.start_ms for one in found.unsettled()] == [known(10, 20).start_ms]


async def test_what_was_built_of_smaller_candles_is_built_again_after_an_import(
    tmp_path: Path, target: Path
) -> None:
    hours = SeriesKey("KRW-BTC", Timeframe.H1)
    start_ms = Timeframe.H1.floor_ms(NOON - 1_000 * M)
    built = KnownSpan(start_ms, start_ms + 60 * M, "complete", "", "built from 1m", 1)
    async with database_in(tmp_path / "one", real()) as database:
        await put(database, series([start_ms], key=hours), built)
        await export_series(database, real(), hours, target)
    async with database_in(tmp_path / "two", real()) as database:
        await imported(database, real(), target)
        outdated: list[Outdated] = []
        await database.write(lambda sql: outdated.extend(forget_built(sql, KEY, [start_ms])))
        assert [one.key for one in outdated] == [hours]
        assert await spans(database, hours) == []


async def test_a_running_service_answers_from_what_another_program_imports(
    tmp_path: Path, target: Path
) -> None:
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 20)), known(0, 20))
        await export_series(one, real(), KEY, target)
    clock = ManualClock(NOON)
    exchange = FakeExchangeSource(clock)
    span = asked(Timeframe.M1, *known(0, 20)[:2], reach=Reach.STORED)
    folder = tmp_path / "two"
    async with (
        opened(folder, exchange, clock, origin=real()) as storage,
        database_in(folder, real()) as other,
    ):
        assert not (await storage.fetch(span)).success
        await imported(other, real(), target)
        await storage._database.write(lambda sql: None)
        async with asyncio.timeout(5):
            while not (await storage.fetch(span)).success:
                await asyncio.sleep(0.01)
        assert (await storage.fetch(span)).data.time.tolist() == minutes(0, 20)
        assert exchange.requests == []


async def test_candles_of_another_origin_are_refused(tmp_path: Path, target: Path) -> None:
    async with database_in(tmp_path / "one", simulated()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, simulated(), KEY, target)
    async with database_in(tmp_path / "real", real()) as database:
        with pytest.raises(StorageOriginError, match="holds candles of 'simulator-1'"):
            await imported(database, real(), target)
    marked = simulated("simulator-of-another")
    async with database_in(tmp_path / "two", marked) as database:
        with pytest.raises(StorageOriginError, match="marked 'simulator-1'"):
            await imported(database, marked, target)
        assert len(await held(database)) == 0
    unmarked = Origin("simulator-1")
    unmarked.observe(None)
    async with database_in(tmp_path / "three", unmarked) as database:
        with pytest.raises(StorageOriginError, match="holds simulated candles, and this store"):
            await imported(database, unmarked, target)
    fresh = Origin("simulator-1")
    async with database_in(tmp_path / "four", fresh) as database:
        assert (await imported(database, fresh, target)).written == 5
    assert fresh.mark == "simulator-1"


async def test_a_csv_file_that_claims_to_be_real_under_a_simulators_name_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path / "one", simulated()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, simulated(), KEY, path)
    beside(path).unlink()
    path.write_text(path.read_text().replace(",true\n", ",false\n"))
    async with database_in(tmp_path / "three", simulated()) as database:
        with pytest.raises(StorageOriginError, match="holds real candles, and this store sim"):
            await imported(database, simulated(), path)


async def test_a_csv_file_alone_says_in_its_lines_which_simulator_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path / "one", simulated()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, simulated(), KEY, path)
    beside(path).unlink()
    fresh = Origin("simulator-1")
    async with database_in(tmp_path / "two", fresh) as database:
        assert (await imported(database, fresh, path)).written == 5
    assert fresh.mark == "simulator-1"


async def test_a_csv_file_alone_from_an_address_does_not_say_which_simulator_answers_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "btc.csv"
    there = Origin("127.0.0.1_8765")
    there.observe("simulator-1")
    async with database_in(tmp_path / "one", there) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, there, KEY, path)
    beside(path).unlink()
    fresh = Origin("127.0.0.1_8765")
    async with database_in(tmp_path / "two", fresh) as database:
        with pytest.raises(StorageOriginError, match=r"of which simulator: .* btc\.csv\.json"):
            await imported(database, fresh, path)


LINE = "2025-09-14 07:21:00"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (LINE, "2025-09-14 07:20:00", "line 3 does not ascend"),
        (LINE, "2025-09-14 07:20:30", "line 3 is off the grid of 1m"),
        ("2025-09-14 07:24:00", "2025-09-15 00:00:00", "line 6 is not over yet by this computer"),
        (LINE, "yesterday", "line 3: open_time_utc is no time such as"),
        (LINE, "2999-01-01 00:00:00", "does not ascend"),
        (LINE, "9999-12-31 00:00:00", "line 3: the candle lies outside of the calendar"),
        (f"{LINE},100.33333333333333,", f"{LINE},nan,", "line 3 has prices outside of its low"),
        (f"{LINE},100.33333333333333,", f"\n\n{LINE},1e9,", "line 5 has prices outside of its low"),
        (f"{LINE},100.33333333333333,", f"{LINE},much,", "line 3: open is no number"),
        (f"{LINE},100.33333333333333,", f"{LINE},", "line 3: has 10 fields, the first line 11"),
        (f"{LINE},100.33333333333333,", f"{LINE},1,100.3,", "line 3: has 12 fields"),
        ("KRW-BTC,1m,upbit,false\n2025-09-14 07:23", "KRW-ETH,1m,upbit,false\n2025-09-14 07:23",
         "line 4: symbol is not 'KRW-BTC'"),
        ("open_time_utc,", "time,", "lacks the columns open_time_utc"),
        ("KRW-BTC", "KRW_BTC(x)", "names the market 'KRW_BTC\\(x\\)'"),
        (",1m,", ",7m,", "unknown timeframe '7m'"),
    ],
)  # fmt: skip
async def test_a_csv_file_with_a_mistake_changes_nothing_and_is_told_in_a_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, real(), KEY, path)
    beside(path).unlink()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    async with database_in(tmp_path / "two", real()) as two:
        with pytest.raises(InvalidRequestError, match=sentence) as caught:
            await imported(two, real(), path)
        assert str(path) in str(caught.value) or "timeframe" in sentence
        assert await spans(two) == []
        assert len(await held(two)) == 0


@pytest.mark.parametrize("piece", [2, 3, 5])
async def test_a_line_is_named_by_its_place_in_the_file_in_later_pieces_too(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "PIECE_ROWS", piece)
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path, real()) as database:
        await put(database, series(minutes(0, 9)), known(0, 9))
        await export_series(database, real(), KEY, path)
        beside(path).unlink()
        lines = path.read_text().splitlines(keepends=True)
        for line in range(3, 11):
            wrong = [
                *lines[: line - 1],
                "\n",
                lines[line - 1].replace(":00,", ":00,-"),
                *lines[line:],
            ]
            path.write_text("".join(wrong))
            with pytest.raises(InvalidRequestError, match=rf"line {line + 1} has prices outside"):
                await imported(database, real(), path)
            longer = [*lines[: line - 1], lines[line - 1].replace("\n", ",x\n"), *lines[line:]]
            path.write_text("".join(longer))
            with pytest.raises(InvalidRequestError, match=rf"line {line}: has 12 fields"):
                await imported(database, real(), path)


async def test_empty_lines_at_the_end_alone_in_the_last_piece_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "PIECE_ROWS", 3)
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 6)), known(0, 6))
        await export_series(one, real(), KEY, path)
    beside(path).unlink()
    path.write_text(path.read_text() + "\n\n")
    async with database_in(tmp_path / "two", real()) as two:
        assert (await imported(two, real(), path)).written == 6


@pytest.mark.parametrize("piece", [2, 3, 5])
async def test_the_order_is_checked_across_pieces(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "PIECE_ROWS", piece)
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path, real()) as database:
        await put(database, series(minutes(0, 6)), known(0, 6))
        await export_series(database, real(), KEY, path)
    beside(path).unlink()
    lines = path.read_text().splitlines(keepends=True)
    for first in range(1, 6):
        swapped = lines.copy()
        swapped[first : first + 2] = swapped[first + 1], swapped[first]
        path.write_text("".join(swapped))
        async with database_in(tmp_path / "two", real()) as two:
            with pytest.raises(InvalidRequestError, match="does not ascend"):
                await imported(two, real(), path)
            assert await spans(two) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"candles": 4}, "holds 5 candles and says that it has 4"),
        ({"coverage": ()}, "lies where the file says that there is none"),
        ({"symbol": "x; drop"}, "names the market 'x; drop'"),
        ({"version": 2}, "written by a newer program"),
        ({"checksum": 1}, "was changed since"),
    ],
)
async def test_a_header_that_contradicts_its_file_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, real(), KEY, path)
    said = json.loads(beside(path).read_bytes())
    beside(path).write_bytes(msgspec.json.encode(said | change))
    async with database_in(tmp_path / "two", real()) as two:
        with pytest.raises(InvalidRequestError, match=sentence):
            await imported(two, real(), path)
        assert await spans(two) == []


@pytest.mark.parametrize(
    ("start", "end"), [(NOON, NOON + M), (NOON - M, NOON - M), (NOON - M - 1, NOON - M)]
)
async def test_what_is_said_of_the_future_or_of_no_range_is_refused(
    tmp_path: Path, start: int, end: int
) -> None:
    path = tmp_path / "btc.csv"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, real(), KEY, path)
    said = json.loads(beside(path).read_bytes())
    span = {"start": utc_datetime(start), "end": utc_datetime(end), "state": "empty"}
    said["coverage"].append(span | {"evidence": "rest"})
    beside(path).write_bytes(msgspec.json.encode(said))
    async with database_in(tmp_path / "two", real()) as two:
        with pytest.raises(InvalidRequestError, match=r"export (it|the series) again"):
            await imported(two, real(), path)


@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, suffix: str) -> None:
    async with database_in(tmp_path, real()) as database:
        path = tmp_path / f"x{suffix}"
        with pytest.raises(InvalidRequestError, match="cannot be read"):
            await imported(database, real(), path)
        path.write_bytes(b"\x00\xff\xfe garbage" * 100)
        with pytest.raises(InvalidRequestError, match=r"is not a|lacks the columns"):
            await imported(database, real(), path)
        with pytest.raises(InvalidRequestError, match=r"has to end in \.csv or \.parquet"):
            await imported(database, real(), tmp_path / "x.txt")


async def test_a_parquet_file_of_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pd.DataFrame({"open_time": [1], "open": [1.0]}).to_parquet(path)
    async with database_in(tmp_path, real()) as database:
        with pytest.raises(InvalidRequestError, match="does not say whose candles"):
            await imported(database, real(), path)


async def test_a_parquet_file_with_a_missing_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "btc.parquet"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, real(), KEY, path)
    said = parquet.ParquetFile(path).metadata.metadata
    table = parquet.read_table(path)
    column = table.schema.names.index("low")
    with_none = pa.array([None, *table["low"].to_pylist()[1:]])
    table = table.set_column(column, pa.field("low", pa.float64()), with_none)
    parquet.write_table(table.replace_schema_metadata(said), path)
    async with database_in(tmp_path / "two", real()) as two:
        with pytest.raises(InvalidRequestError, match="lacks a value of a candle"):
            await imported(two, real(), path)


async def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "btc.parquet"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 500)), known(0, 500))
        await export_series(one, real(), KEY, path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InvalidRequestError, match="is not a whole Parquet file"):
            await imported(one, real(), path)


async def test_one_wrong_bit_in_a_parquet_file_is_refused_wherever_it_changes_anything(
    tmp_path: Path,
) -> None:
    path = tmp_path / "btc.parquet"
    before = KnownSpan(BEGINNING_MS, known(0, 1).start_ms, "before_listing", "", REST, 1)
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 60)), before, known(0, 60))
        await export_series(one, real(), KEY, path)
        candles, told = await held(one), await spans(one)
    whole = path.read_bytes()
    refused = 0
    rng = random.Random(6)
    for at in rng.sample(range(len(whole)), 60):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        async with database_in(tmp_path / f"at-{at}", real()) as two:
            sentence = ""
            try:
                await imported(two, real(), path)
            except InvalidRequestError as error:
                sentence = str(error)
            if sentence:
                refused += 1
                assert str(path) in sentence
                assert "\n" not in sentence
                assert await spans(two) == []
                assert len(await held(two)) == 0
            else:
                # It hit what nobody reads, such as what the writer is called.
                assert (await held(two), await spans(two)) == (candles, told)
    assert refused > 30


async def test_a_parquet_file_with_changed_numbers_or_a_changed_header_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "btc.parquet"
    async with database_in(tmp_path / "one", real()) as one:
        await put(one, series(minutes(0, 5)), known(0, 5))
        await export_series(one, real(), KEY, path)
    said = parquet.ParquetFile(path).metadata.metadata
    table = parquet.read_table(path)
    header = json.loads(said[parquet_file.SAYS])

    async def refused(changed: pa.Table, told: dict[str, Any], sentence: str) -> None:
        metadata = {parquet_file.SAYS: json.dumps(told)}
        parquet.write_table(changed.replace_schema_metadata(metadata), path)
        async with database_in(tmp_path / "two", real()) as two:
            with pytest.raises(InvalidRequestError, match=sentence):
                await imported(two, real(), path)
            assert await spans(two) == []

    volume = pa.array([1.2550622035683918, *table["volume"].to_pylist()[1:]])
    at = table.schema.names.index("volume")
    await refused(table.set_column(at, "volume", volume), header, "its checksum does not fit")
    earlier = [header["coverage"][0] | {"start": "2025-09-14T07:19:00Z"}]
    await refused(table, header | {"coverage": earlier}, "its checksum does not fit")
    await refused(table, header | {"checksum": None}, "has no checksum")
    # Written again by another program, in other pieces, it is the same file still.
    parquet.write_table(
        table.replace_schema_metadata({parquet_file.SAYS: json.dumps(header)}), path,
        row_group_size=2, compression="snappy",
    )  # fmt: skip
    async with database_in(tmp_path / "three", real()) as three:
        assert (await imported(three, real(), path)).written == 5


async def test_without_pyarrow_a_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    async with database_in(tmp_path, real()) as database:
        await put(database, series(minutes(0, 5)), known(0, 5))
        with pytest.raises(InvalidRequestError, match="pip install pyarrow"):
            await export_series(database, real(), KEY, tmp_path / "x.parquet")
        with pytest.raises(InvalidRequestError, match="pip install pyarrow"):
            await imported(database, real(), tmp_path / "x.parquet")
        assert (await export_series(database, real(), KEY, tmp_path / "x.csv")).candles == 5


async def test_a_file_that_is_there_is_not_replaced_unless_it_is_wished(
    tmp_path: Path, target: Path
) -> None:
    async with database_in(tmp_path, real()) as database:
        await put(database, series(minutes(0, 5)), known(0, 5))
        target.write_text("mine")
        with pytest.raises(InvalidRequestError, match="exists: give another name"):
            await export_series(database, real(), KEY, target)
        assert target.read_text() == "mine"
        await export_series(database, real(), KEY, target, overwrite=True)
        assert (await imported(database, real(), target)).candles == 5
        folder = target.with_stem("folder")
        folder.mkdir()
        with pytest.raises(InvalidRequestError, match="is a folder"):
            await export_series(database, real(), KEY, folder)


async def test_an_export_that_fails_or_is_cancelled_leaves_nothing(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PIECE_ROWS", 10)
    before = set(tmp_path.iterdir())
    async with database_in(tmp_path / "store", real()) as database:
        await put(database, series(minutes(0, 100)), known(0, 100))
        with pytest.raises(StorageUnavailableError, match="cannot be written"):
            await export_series(database, real(), KEY, tmp_path / "no" / target.name)
        reached = asyncio.Event()
        target.write_text("mine")
        task = asyncio.create_task(
            export_series(
                database, real(), KEY, target, overwrite=True,
                on_progress=lambda candles, share: reached.set(),
            )
        )  # fmt: skip
        await reached.wait()
        assert unfinished(target).exists()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert target.read_text() == "mine"
    assert set(tmp_path.iterdir()) - before == {target, tmp_path / "store"}


async def test_an_export_that_is_cancelled_while_its_file_is_made_leaves_nothing(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    for name in ("CsvWriter", "ParquetWriter"):
        kind = getattr(exporting, name)

        def slowly(*what: Any, kind: Any = kind, **more: Any) -> Any:
            begun.set()
            assert go_on.wait(10)
            return kind(*what, **more)

        monkeypatch.setattr(exporting, name, slowly)
    async with database_in(tmp_path / "store", real()) as database:
        await put(database, series(minutes(0, 100)), known(0, 100))
        task = asyncio.create_task(export_series(database, real(), KEY, target))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [path.name for path in target.parent.iterdir() if path.is_file()] == []


async def test_progress_is_told_from_nothing_to_all(tmp_path: Path, target: Path) -> None:
    shares: list[float] = []
    done: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (exporting, csv_file, parquet_file):
            patch.setattr(module, "PIECE_ROWS", 20)
        async with database_in(tmp_path, real()) as database:
            before = KnownSpan(BEGINNING_MS, known(0, 1).start_ms, "before_listing", "", REST, 1)
            await put(database, series(minutes(0, 100)), known(0, 100), before)
            await export_series(
                database, real(), KEY, target, on_progress=lambda _, share: shares.append(share)
            )
            await import_series(
                database, real(), target, clock=ManualClock(NOON),
                on_progress=lambda what, candles, share: done.append((what, candles)),
            )  # fmt: skip
    assert shares == sorted(shares) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [candles for what, candles in done if what == "storing"][-1] == 100
    assert {what for what, _ in done} == {"checking", "storing"}


async def test_months_and_weeks_come_back_too(tmp_path: Path, target: Path) -> None:
    for timeframe in (Timeframe.MO1, Timeframe.W1):
        key = SeriesKey("KRW-1INCH", timeframe)
        opens = [timeframe.back_ms(timeframe.floor_ms(NOON), n) for n in range(30, 0, -1)]
        rows = series(opens, key=key)
        path = target.with_stem(f"inch{timeframe.name}")
        proof = KnownSpan(opens[0], timeframe.next_ms(opens[-1]), "complete", "", REST, 1)
        before = KnownSpan(BEGINNING_MS, opens[0], "before_listing", "", REST, 1)
        async with database_in(tmp_path / "one", real()) as one:
            await put(one, rows, proof, before)
            await export_series(one, real(), key, path)
        async with database_in(tmp_path / "two", real()) as two:
            later = ManualClock(NOON + 60 * M)
            assert (await import_series(two, real(), path, clock=later)).written == 30
            assert await held(two, key) == rows.labelled("storage")


def test_an_unfinished_file_can_be_discarded_twice(tmp_path: Path) -> None:
    writer = csv_file.CsvWriter(tmp_path / "x.csv", KEY, "upbit", simulated=False)
    writer.write(series(minutes(0, 2)))
    writer.discard()
    writer.discard()
    assert list(tmp_path.iterdir()) == []
