"""Fixtures for tests of the screens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QLocale
from PySide6.QtWidgets import QApplication

from ui.language import Translations
from ui.theme import Theme, apply_theme, load_theme


@pytest.fixture(scope="session")
def theme(qapp: QApplication) -> Theme:
    """The program's look, given to the application once."""
    found = load_theme()
    apply_theme(qapp, found)
    return found


@pytest.fixture
def translations(qapp: QApplication) -> Iterator[Translations]:
    """The program's languages; afterwards it speaks none of them any more."""
    before = QLocale()
    found = Translations(qapp)
    yield found
    found.use("en")
    QLocale.setDefault(before)
