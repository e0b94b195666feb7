"""What the window says about this computer's clock."""

from __future__ import annotations

import msgspec
import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.ui.samples import status
from ui.clock_notice import ClockNotice
from ui.language import Language, Translations
from ui.theme import Theme
from upbit_backbone import SystemStatus


def off(offset_ms: int, *, simulated: bool = False) -> SystemStatus:
    return msgspec.structs.replace(status(simulated=simulated), exchange_offset_ms=offset_ms)


@pytest.fixture
def notice(theme: Theme, translations: Translations, qtbot: QtBot) -> ClockNotice:
    translations.use("en")
    found = ClockNotice(theme)
    qtbot.addWidget(found)
    return found


@pytest.mark.parametrize(
    ("offset_ms", "language", "text"),
    [
        (30_400, "ko", "이 컴퓨터의 시계가 30초 늦습니다. 거래소의 시각을 사용합니다."),
        (-7_300_000, "ko", "이 컴퓨터의 시계가 2시간 빠릅니다. 거래소의 시각을 사용합니다."),
        (30_400, "en", "This computer's clock is 30 s slow. The exchange's time is used."),
        (-185_000, "en", "This computer's clock is 3 min fast. The exchange's time is used."),
        (2_000, "en", "This computer's clock is 2 s slow. The exchange's time is used."),
        (1_999, "en", ""),
        (-1_999, "en", ""),
    ],
)
def test_a_clock_that_is_off_is_told_in_words(
    notice: ClockNotice,
    translations: Translations,
    offset_ms: int,
    language: Language,
    text: str,
) -> None:
    translations.use(language)
    notice.set_status(off(offset_ms))
    assert notice.text == text


def test_the_words_change_with_the_language(
    notice: ClockNotice, translations: Translations
) -> None:
    notice.set_status(off(30_000))
    translations.use("ko")
    QApplication.processEvents()
    assert notice.text.startswith("이 컴퓨터의 시계가 30초 늦습니다")


def test_a_simulator_of_another_day_says_nothing_of_the_clock(notice: ClockNotice) -> None:
    notice.set_status(off(400 * 86_400_000, simulated=True))
    assert notice.text == ""
    notice.set_status(off(30_000, simulated=True))
    assert "30 s slow" in notice.text


def test_a_clock_that_is_right_again_takes_the_words_away(notice: ClockNotice) -> None:
    notice.set_status(off(30_000))
    notice.set_status(off(100))
    assert notice.text == ""


def test_dismissed_it_comes_back_only_for_another_skew(notice: ClockNotice) -> None:
    notice.set_status(off(30_000))
    notice.hide()
    notice.set_status(off(30_900))
    assert notice.text == ""
    notice.set_status(off(60_000))
    assert "60 s slow" in notice.text
