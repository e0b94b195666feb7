"""The tape of trades."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's model tester has no annotations.

from __future__ import annotations

import msgspec
from PySide6.QtCore import QRect, Qt
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from tests.ui.samples import gap, trade
from ui.language import Translations
from ui.orderbook.trade_tape import COLUMNS, KEPT, PRICE, TIME, VOLUME, TapeModel, TradeTape
from ui.theme import Theme
from upbit_backbone.models import Gap, Trade


def test_the_newest_trade_is_on_top_and_the_oldest_go(
    theme: Theme, qtbot: QtBot, qtmodeltester: ModelTester
) -> None:
    tape = TapeModel(theme)
    tape.add(tuple(trade(number, float(number)) for number in range(1, 4)))
    with qtbot.waitSignal(tape.rowsInserted, timeout=1_000):
        pass
    assert [tape.index(row, PRICE).data() for row in range(3)] == ["3.00", "2.00", "1.00"]
    assert tape.index(0, TIME).data() == "21:00:00"
    assert tape.index(0, VOLUME).data() == "0.50000000 ▲"
    assert tape.index(1, VOLUME).data() == "0.50000000 ▼"
    tape.add(tuple(trade(number) for number in range(4, 4 + 3 * KEPT)))
    with qtbot.waitSignal(tape.rowsInserted, timeout=1_000):
        pass
    assert tape.rowCount() == KEPT
    qtmodeltester.check(tape)
    tape.clear()
    assert tape.rowCount() == 0


def times(tape: TapeModel) -> list[str]:
    return [tape.index(row, TIME).data() for row in range(tape.rowCount())]


def test_where_trades_were_missed_stands_a_row_that_says_from_when_to_when(
    theme: Theme, translations: Translations, qtbot: QtBot, qtmodeltester: ModelTester
) -> None:
    translations.use("ko")
    tape = TapeModel(theme)
    tape.add((trade(1), gap("open", 31, 31)))
    qtbot.waitUntil(lambda: tape.rowCount() == 2, timeout=1_000)
    assert times(tape) == ["… 끊김 21:00:31–", "21:00:00"]
    tape.add((gap("unfillable", 31, 114), trade(2, after_s=115)))
    qtbot.waitUntil(lambda: tape.rowCount() == 3, timeout=1_000)
    assert times(tape) == ["21:01:55", "… 끊김 21:00:31–21:01:54", "21:00:00"]
    assert "이 시간의 체결" in tape.index(1, TIME).data(Qt.ItemDataRole.ToolTipRole)
    # A break that is over before the row of its beginning was made is one row.
    tape.add((gap("open", 200, 200), gap("unfillable", 200, 205)))
    qtbot.waitUntil(lambda: tape.rowCount() == 4, timeout=1_000)
    assert times(tape)[0] == "… 끊김 21:03:20–21:03:25"
    qtmodeltester.check(tape)


def test_trades_that_are_read_back_stand_where_they_were_made(
    theme: Theme, qtbot: QtBot, qtmodeltester: ModelTester
) -> None:
    tape = TapeModel(theme)
    tape.add((trade(1, after_s=1), trade(7, after_s=7), trade(4, after_s=4)))
    qtbot.waitUntil(lambda: tape.rowCount() == 3, timeout=1_000)
    assert times(tape) == ["21:00:07", "21:00:04", "21:00:01"]
    tape.add((gap("open", 4, 4), trade(9, after_s=9)))
    qtbot.waitUntil(lambda: tape.rowCount() == 5, timeout=1_000)
    read_back = [trade(number, after_s=number) for number in (2, 3, 5, 6, 8)]
    tape.add((*read_back, trade(10, after_s=9), gap("closed", 4, 9), trade(11, after_s=9)))
    qtbot.waitUntil(lambda: tape.rowCount() == 11, timeout=1_000)
    ids = [entry.sequential_id for entry in tape._trades if isinstance(entry, Trade)]
    assert ids == [*range(11, 0, -1)], "and of a break that was made whole nothing stays"
    tape.add(tuple(trade(20 + number, after_s=20) for number in range(KEPT)))
    qtbot.waitUntil(lambda: tape.rowCount() == KEPT, timeout=1_000)
    tape.add((trade(5, after_s=5),))
    qtbot.waitUntil(lambda: not tape._waiting, timeout=1_000)
    assert tape.rowCount() == KEPT
    assert times(tape)[-1] == "21:00:20", "too old to be seen"
    qtmodeltester.check(tape)


def test_the_end_of_a_break_takes_the_place_of_its_own_beginning_and_of_no_other(
    theme: Theme, qtbot: QtBot, qtmodeltester: ModelTester
) -> None:
    tape = TapeModel(theme)

    def told(*entries: Trade | Gap) -> list[str]:
        tape.add(entries)
        qtbot.waitUntil(lambda: not tape._waiting, timeout=1_000)
        return times(tape)

    told(trade(1), trade(2, after_s=10), gap("open", 10, 20), trade(3, after_s=30))
    # While the first break is open another one is told, which cannot be filled at all.
    rows = told(gap("open", 50, 60), gap("unfillable", 50, 60), trade(6, after_s=70))
    first, second = "… cut off since 21:00:10", "… cut off 21:00:50–21:01:00"
    assert rows == ["21:01:10", second, "21:00:30", first, "21:00:10", "21:00:00"]
    # Rows are sorted, so what comes late finds its place.
    rows = told(trade(4, after_s=45), gap("open", 65, 66))
    third = "… cut off since 21:01:05"
    assert rows[:4] == ["21:01:10", third, second, "21:00:45"]
    of_another_market = msgspec.structs.replace(gap("closed", 65, 66), symbol="KRW-XRP")
    assert third in told(gap("open", 65, 69), of_another_market, gap("closed", 10, 22))
    assert times(tape).count(third) == 1, "what is told twice stands there once"
    assert first not in times(tape)
    rows = told(gap("open", 67, 67), gap("unfillable", 65, 67), gap("closed", 67, 68))
    assert rows[:3] == ["21:01:10", "… cut off 21:01:05–21:01:07", second]
    qtmodeltester.check(tape)


def test_a_gap_is_one_cell_across_and_stays_with_its_place(theme: Theme, qtbot: QtBot) -> None:
    tape = TradeTape(theme)
    qtbot.addWidget(tape)
    tape.resize(360, 300)
    tape.show()
    tape.model.add((trade(1), gap("unfillable", 31, 114)))
    qtbot.waitUntil(lambda: tape.model.rowCount() == 2, timeout=1_000)
    assert tape.table.columnSpan(0, TIME) == COLUMNS
    tape.model.add((trade(2, after_s=115), trade(3, after_s=115)))
    qtbot.waitUntil(lambda: tape.model.rowCount() == 4, timeout=1_000)
    assert [tape.table.columnSpan(row, TIME) for row in range(4)] == [1, 1, COLUMNS, 1]
    cell: QRect = tape.table.visualRect(tape.model.index(2, TIME))
    text = tape.model.index(2, TIME).data()
    assert cell.width() > tape.fontMetrics().horizontalAdvance(text)
    tape.model.clear()
    tape.model.add((trade(4),))
    qtbot.waitUntil(lambda: tape.model.rowCount() == 1, timeout=1_000)
    assert tape.table.columnSpan(0, TIME) == 1
