"""One table of colours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PySide6.QtGui import QFont, QFontMetricsF
from PySide6.QtWidgets import QApplication

from ui import theme as theme_module
from ui.theme import Theme, load_theme

UI = Path(__file__).resolve().parents[2] / "ui"


def test_a_table_that_is_not_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "bad.json"
    monkeypatch.setattr(theme_module, "resource_path", lambda name: table)
    table.write_text('{"window": "#000000"}')
    with pytest.raises(ValueError, match="differs in"):
        load_theme("bad")


def test_no_colour_is_named_outside_the_table() -> None:
    for module in UI.rglob("*.py"):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", module.read_text("utf-8")), module


def test_rising_is_red_and_falling_is_blue(theme: Theme) -> None:
    rise, fall = theme.by_change["RISE"], theme.by_change["FALL"]
    assert rise.red() > 200 > rise.blue()
    assert fall.blue() > 200 > fall.red()


def test_figures_have_one_width(theme: Theme, qapp: QApplication) -> None:
    metrics = QFontMetricsF(QFont(qapp.font()))
    assert len({metrics.horizontalAdvance(figure) for figure in "0123456789"}) == 1
