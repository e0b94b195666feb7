"""The four clients in `examples/` do what they say, as users start them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples.programs import LIVELY, ROOT, WITHIN_S, run
from tests.indicators.closes import series_of
from upbit_backbone.indicators import SMA
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.script import read_script

CLIENTS = sorted((ROOT / "examples").glob("*.py"))


async def test_the_chart_viewer_draws_a_day_of_local_time_and_follows_it(tmp_path: Path) -> None:
    # In Seoul a local time that was taken for UTC would give 15 hours of the 24.
    ended = await run(
        *(ROOT / "examples/chart_viewer.py", "KRW-BTC", "--updates", "2"),
        data_dir=tmp_path,
        zone="Asia/Seoul",
        rate=LIVELY,
    )
    assert (ended.exit_code, ended.errors) == (0, "")
    head, bars, *updates = ended.lines
    counted = re.fullmatch(r"SIMULATED KRW-BTC: (\d+) minutes, [\d,]+ to [\d,]+", head)
    assert counted is not None, head
    assert 1_400 < int(counted[1]) <= 1_441
    assert {"▁", "█"} <= set(bars)
    assert [line.split()[-1] in ("forming", "closed") for line in updates] == [True, True]


async def test_the_screener_asks_every_market_and_shows_those_that_move_most(
    tmp_path: Path,
) -> None:
    ended = await run(ROOT / "examples/screener.py", "--top", "289", data_dir=tmp_path)
    assert (ended.exit_code, ended.errors) == (0, "")
    head, *rows = ended.lines
    assert head == "289 of 289 markets"
    rates = [abs(float(re.findall(r"([+-][\d.]+)%", row)[0])) for row in rows]
    assert len(rates) == 289
    assert rates == sorted(rates, reverse=True)


async def test_the_backtester_trades_over_a_month(tmp_path: Path) -> None:
    ended = await run(ROOT / "examples/backtester.py", "--days", "30", data_dir=tmp_path)
    assert (ended.exit_code, ended.errors) == (0, "")
    assert "KRW-BTC 1h 7" in ended.lines[0]
    assert re.fullmatch(r"\d+ trades: [+-][\d.]+%; bought and held: [+-][\d.]+%", ended.lines[1])


async def test_the_bot_decides_from_400_candles_and_a_price(tmp_path: Path) -> None:
    ended = await run(
        *(ROOT / "examples/bot.py", "--rounds", "2", "--every", "0.1"), data_dir=tmp_path
    )
    assert (ended.exit_code, ended.errors) == (0, "")
    assert len(ended.lines) == 2
    for line in ended.lines:
        assert re.fullmatch(r"KRW-BTC [\d,]+, RSI [\d.]+ of 400 candles: (buy|sell|wait)", line), (
            line
        )


async def test_a_client_refuses_an_unknown_market_in_one_sentence(tmp_path: Path) -> None:
    ended = await run(ROOT / "examples/bot.py", "KRW-BTD", data_dir=tmp_path)
    assert (ended.exit_code, ended.lines) == (1, [])
    assert "unknown symbol 'KRW-BTD'" in ended.errors
    assert len(ended.errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("backtester", "--days", "99999999"), "must be 1 to 3,650, was 99999999"),
        (("chart_viewer", "--updates", "0"), "must be 1 or more, was 0"),
        (("bot", "--rounds", "-1"), "must be 1 or more, was -1"),
        (("screener", "--quote", "eur"), "invalid choice: 'EUR'"),
    ],
)
def test_a_client_refuses_a_figure_that_makes_no_sense(
    asked: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    client, *flags = asked
    monkeypatch.setattr("sys.argv", [client, *flags])
    with pytest.raises(SystemExit) as ended:
        loaded(ROOT / f"examples/{client}.py").main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


async def test_clients_may_be_read_by_head_and_in_any_encoding(tmp_path: Path) -> None:
    async def piped(client: str, *flags: str) -> tuple[int | None, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f'{{ "$@"; echo $? >&2; }} | {head[client]}', "sh",
            sys.executable, "-W", "error", str(ROOT / f"examples/{client}.py"), *flags,
            env={**os.environ, **house, "UPBIT_BACKBONE_DATA_DIR": str(tmp_path / client)},
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
        return process.returncode, out, err

    head = {"chart_viewer": "head -2", "backtester": "true"}
    async with Simulator() as simulator:
        house = {
            "UPBIT_BACKBONE_REST_URL": simulator.rest_url,
            "UPBIT_BACKBONE_WS_URL": simulator.ws_url,
            "PYTHONIOENCODING": "cp949",
            "PYTHONPATH": str(ROOT),
        }
        viewed, tested = await asyncio.gather(
            piped("chart_viewer", "--updates", "2"), piped("backtester", "--days", "2")
        )
    assert (viewed[0], viewed[2]) == (0, b"0\n")
    assert b"KRW-BTC: 14" in viewed[1]
    assert tested == (0, b"", b"0\n")


def test_the_script_of_the_readme_happens() -> None:
    script = read_script((ROOT / "examples/fall.json").read_bytes(), 1_757_894_400_000)
    assert len(script.events) == 2


def test_the_backtest_pays_fees_and_holds_while_the_fast_average_is_above() -> None:
    backtest = loaded(ROOT / "examples/backtester.py").backtest
    rising = series_of([100.0, 100.0, 100.0, 110.0, 121.0])
    result, trades = backtest(rising, SMA(1), SMA(3))
    assert trades == 1
    assert result == pytest.approx(1.1 * (1 - 0.0005))
    falling = series_of([100.0, 100.0, 100.0, 110.0, 90.0, 80.0])
    result, trades = backtest(falling, SMA(1), SMA(3))
    assert trades == 2
    assert result == pytest.approx(90 / 110 * (1 - 0.0005) ** 2)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda path: path.stem)
def test_a_client_is_short_and_knows_public_names_only(client: Path) -> None:
    source = client.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 90
    assert not re.findall(r"\b\w+\._[a-z]", source)
    modules = set(re.findall(r"from (upbit_backbone[\w.]*) import", source))
    assert modules <= {"upbit_backbone", "upbit_backbone.indicators", "upbit_backbone.price"}


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
