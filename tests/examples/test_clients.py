"""The four clients in `examples/` do what they say, as users start them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples.programs import LIVELY, ROOT, run
from tests.indicators.closes import series_of
from upbit_backbone.indicators import SMA

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
