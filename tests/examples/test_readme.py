"""The README's three programs run as they are printed there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.programs import LIVELY, ROOT, run

_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
WATCHED = """
from PySide6 import QtCore, QtWidgets

class Seen(QtWidgets.QLabel):
    '''Tells what it shows; the window is closed when that is a price.'''

    def setText(self, text):
        super().setText(text)
        print(text)
        QtCore.QTimer.singleShot(0, QtWidgets.QApplication.closeAllWindows)

QtWidgets.QLabel = Seen
"""


def printed(page: str = "README.md") -> list[str]:
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


def test_both_languages_print_the_same_programs() -> None:
    assert len(printed()) == 3
    assert printed("README.ko.md") == printed()


async def test_the_script_reads_the_market_and_ends(program: Path, tmp_path: Path) -> None:
    program.write_text(printed()[0], encoding="utf-8")
    ended = await run(program, data_dir=tmp_path / "data", rate=LIVELY)
    assert (ended.exit_code, ended.errors) == (0, "")
    candles, ticker, candle = ended.lines
    assert "200 candles" in candles
    assert 0 < float(ticker.split()[-1]) < 100
    assert candle.endswith(("forming", "closed"))


async def test_the_window_shows_the_price_until_it_is_closed(program: Path, tmp_path: Path) -> None:
    program.write_text(WATCHED + printed()[1], encoding="utf-8")
    ended = await run(program, data_dir=tmp_path / "data", rate=LIVELY)
    assert (ended.exit_code, ended.errors) == (0, "")
    assert re.fullmatch(r"KRW-BTC  [\d,]+  [+-][\d.]+%", ended.lines[0])


async def test_the_service_runs_until_it_is_asked_to_stop(program: Path, tmp_path: Path) -> None:
    told = printed()[2].replace("level=logging.INFO", "level=logging.INFO, stream=sys.stdout")
    told = told.replace(">= 1_000_000", ">= 0")  # a large trade may be long in coming
    program.write_text(f"import sys\n{told}", encoding="utf-8")
    ended = await run(program, data_dir=tmp_path / "data", rate=LIVELY, stopped_after="KRW-BTC")
    assert (ended.exit_code, ended.errors) == (0, "")
    assert [line for line in ended.lines if "running on 127.0.0.1_" in line]
    assert [line for line in ended.lines if re.search(r"KRW-BTC (BUY|SELL) [\d.]+ at ", line)]
