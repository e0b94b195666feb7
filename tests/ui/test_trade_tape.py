"""The tape of trades."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's model tester has no annotations.

from __future__ import annotations

from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from tests.ui.samples import trade
from ui.orderbook.trade_tape import KEPT, PRICE, TIME, VOLUME, TapeModel
from ui.theme import Theme


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
