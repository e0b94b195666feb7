"""``upbit-backbone db export`` and ``import`` as a person meets them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.bottom.time_zones import local_zone, needs_tzset
from tests.storage.test_series_files import KEY, database_in, held, known, minutes, put, series
from upbit_backbone import cli
from upbit_backbone.origin import Origin

START = "from upbit_backbone.cli import main; main()"
SIMULATOR = ("--exchange", "simulator")


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Result:
    monkeypatch.setenv("UPBIT_BACKBONE_DATA_DIR", str(folder))
    return CliRunner().invoke(cli.app, ["db", *arguments])


def marked() -> Origin:
    origin = Origin("simulator-1")
    origin.observe("simulator-1")
    return origin


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A data folder in which a simulator's candles are stored."""

    async def fill() -> None:
        async with database_in(tmp_path / "simulator-1", marked()) as database:
            await put(database, series(minutes(0, 100)), known(0, 100))

    asyncio.run(fill())
    return tmp_path


@pytest.mark.parametrize("name", ["btc.csv", "btc.parquet"])
def test_a_series_goes_out_and_into_another_folder(
    store: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(store / name)
    out = told(monkeypatch, store, "export", "KRW-BTC", "1m", file, *SIMULATOR)
    assert (out.exit_code, out.stderr) == (0, "")
    assert out.stdout.startswith(f"KRW-BTC 1m: 100 candles in {file}")
    other = store / "other"
    back = told(monkeypatch, other, "import", file, *SIMULATOR)
    assert (back.exit_code, back.stderr) == (0, "")
    assert back.stdout == "KRW-BTC 1m: 100 candles, 100 of them new\n"

    async def look() -> None:
        async with database_in(other / "simulator-1", marked()) as database:
            assert (await held(database)).time.tolist() == minutes(0, 100)

    asyncio.run(look())
    again = told(monkeypatch, other, "import", file, *SIMULATOR)
    assert again.stdout == "KRW-BTC 1m: 100 candles, 0 of them new\n"


@needs_tzset
@pytest.mark.parametrize("start", ["2025-09-14T16:30+09:00", "2025-09-14T07:30"])
def test_times_cut_what_is_exported(
    store: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two may be local time."""
    with local_zone("UTC"):
        out = told(
            monkeypatch, store, "export", " krw-btc", "1m", str(store / "x.csv"), *SIMULATOR,
            "--from", start, "--to", "2025-09-14T07:40Z",
        )  # fmt: skip
    assert out.stdout.startswith("KRW-BTC 1m: 10 candles in ")


def test_what_an_export_and_an_import_did_is_told_as_json(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, series = str(store / "x.csv"), {"symbol": "KRW-BTC", "timeframe": "1m", "candles": 100}
    out = told(monkeypatch, store, "export", "KRW-BTC", "1m", file, *SIMULATOR, "--json")
    assert json.loads(out.stdout) == {**series, "files": [file, f"{file}.json"]}
    back = told(monkeypatch, store / "other", "import", file, *SIMULATOR, "--json")
    assert json.loads(back.stdout) == {**series, "new": 100, "differing": 0, "differences": []}


def test_candles_that_differ_are_told_and_end_with_1(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(store / "btc.parquet")
    told(monkeypatch, store, "export", "KRW-BTC", "1m", file, *SIMULATOR)

    async def change() -> None:
        async with database_in(store / "simulator-1", marked()) as database:
            await put(database, series(minutes(0, 2), price=300.0), known(0, 100))

    asyncio.run(change())
    back = told(monkeypatch, store, "import", file, *SIMULATOR)
    assert back.exit_code == 1
    assert back.stdout == "KRW-BTC 1m: 100 candles, 0 of them new\n"
    lines = back.stderr.splitlines()
    assert lines[0].startswith("stored: 2025-09-14T07:20:00Z open 300 ")
    assert lines[-1].startswith("2 candles are not the same in ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("export", "KRW-ETH", "1m", "x.csv", *SIMULATOR), "stored are KRW-BTC 1m"),
        (("export", "KRW-BTC", "7m", "x.csv", *SIMULATOR), "unknown timeframe '7m'"),
        (("export", "KRW-BTC", "1m", "x.txt", *SIMULATOR), "has to end in .csv or .parquet"),
        (("export", "KRW-BTC", "1m", "x.csv", "--from", "soon", *SIMULATOR), "--from must be a"),
        (
            ("export", "KRW-BTC", "1m", "x.csv", "--from", "2025-02-01T00:00Z", "--to",
             "2025-01-01T00:00Z", *SIMULATOR),
            "--from must lie before --to",
        ),
        (
            ("export", "KRW-BTC", "1m", "x.csv", "--to", "2025-01-01T00:00Z", *SIMULATOR),
            "nothing of KRW-BTC 1m is stored",
        ),
        (("import", "x.csv", *SIMULATOR), "x.csv cannot be read: No such file"),
        (("export", "KRW-BTC", "1m"), "--help lists all arguments"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_sentence_and_ends_with_2(
    store: Path, arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    out = told(monkeypatch, store, *arguments)
    assert out.exit_code == 2
    assert sentence in out.stderr
    assert out.stderr.count("\n") == 1
    assert not (store / "x.csv").exists()
    assert not (store / "upbit").exists()


def test_candles_of_another_exchange_end_with_1(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(store / "btc.csv")
    told(monkeypatch, store, "export", "KRW-BTC", "1m", file, *SIMULATOR)
    back = told(monkeypatch, store, "import", file)
    assert back.exit_code == 1
    assert "holds candles of 'simulator-1', this store those of 'upbit'" in back.stderr


def test_ctrl_c_ends_an_import_with_a_sentence_and_keeps_what_is_stored(store: Path) -> None:
    async def fill() -> None:
        async with database_in(store / "simulator-1", marked()) as database:
            await put(database, series(minutes(-120_000, 0)), known(-120_000, 0))

    asyncio.run(fill())
    environment = {**os.environ, "UPBIT_BACKBONE_DATA_DIR": str(store), "TERM": "xterm"}
    file = str(store / "btc.csv")
    command = [sys.executable, "-W", "error", "-c", START, "db"]
    subprocess.run(
        [*command, "export", "KRW-BTC", "1m", file, *SIMULATOR], env=environment, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    ours, theirs = pty.openpty()
    environment["UPBIT_BACKBONE_DATA_DIR"] = str(store / "other")
    process = subprocess.Popen(
        [*command, "import", file, *SIMULATOR], env=environment, stderr=theirs
    )
    os.close(theirs)
    screen = b""
    try:
        while b"storing" not in screen:
            screen += os.read(ours, 1_000)
        process.send_signal(signal.SIGINT)
        # A terminal whose other end is gone cannot be read.
        while chunk := _read(ours):
            screen += chunk
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"checking" in screen
    assert b"stopped: what was stored stays, and the same command goes on from there" in screen

    async def look() -> None:
        async with database_in(store / "other" / "simulator-1", marked()) as database:
            assert 0 < len(await held(database, KEY)) < 120_100

    asyncio.run(look())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1_000)
    except OSError:
        return b""
