"""The market list as a model."""

# mypy: disable-error-code="no-untyped-call"
# pytest-qt's mouse and keyboard have no annotations.

from __future__ import annotations

import pytest
from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPoint, Qt
from PySide6.QtGui import QColor, QFontMetrics
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from tests.ui.samples import MARKETS, ticker
from ui.language import Translations
from ui.screener.market_list import MarketList, NameDelegate
from ui.screener.market_table import CHANGE, NAME, PRICE, VALUE, MarketTable
from ui.theme import Theme
from upbit_backbone import Market


@pytest.fixture
def table(theme: Theme) -> MarketTable:
    found = MarketTable(theme)
    found.set_markets(MARKETS)
    return found


def column(table: MarketTable, number: int) -> list[str]:
    return [table.index(row, number).data() for row in range(table.rowCount())]


def symbols(table: MarketTable) -> list[str]:
    return [table.market_at(row).symbol for row in range(table.rowCount())]


def test_the_model_keeps_qts_rules(table: MarketTable, qtmodeltester: ModelTester) -> None:
    table.apply(tuple(ticker(market.symbol, 10.0) for market in MARKETS))
    qtmodeltester.check(table)
    table.sort(PRICE)
    table.set_filter("eth")
    table.set_filter("")
    qtmodeltester.check(table)


def test_the_head_of_the_sorted_column_has_the_arrow_and_figures_begin_with_the_largest(
    theme: Theme, translations: Translations, qtbot: QtBot
) -> None:
    translations.use("en")
    found = MarketList(theme)
    qtbot.addWidget(found)
    found.resize(400, 300)
    found.show()
    qtbot.waitExposed(found)
    header = found.table.horizontalHeader()

    def click(column: int) -> list[str]:
        place = QPoint(header.sectionViewportPosition(column) + 20, header.height() // 2)
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
        return [found.model.headerData(n, Qt.Orientation.Horizontal) for n in range(4)]

    assert click(PRICE) == ["Market", "Price ▼", "Change", "Value"]
    assert click(PRICE) == ["Market", "Price ▲", "Change", "Value"]
    assert click(NAME) == ["Market ▲", "Price", "Change", "Value"]
    for column, price in ((PRICE, "157,779,000"), (VALUE, "12,345억")):
        assert header.sectionSize(column) > found.fontMetrics().horizontalAdvance(price) + 6


def test_prices_are_written_by_tick_and_changes_with_an_arrow(
    table: MarketTable, translations: Translations, qtbot: QtBot
) -> None:
    translations.use("ko")
    with qtbot.waitSignal(table.dataChanged, timeout=1_000):
        table.apply((ticker("KRW-BTC", 157_776_000.0, -0.0022, 246e9),))
    row = table.row_of("KRW-BTC")
    assert row is not None
    texts = [table.index(row, number).data() for number in range(4)]
    assert texts == ["비트코인", "157,776,000", "▼ -0.22%", "2,460억"]
    right = table.index(row, PRICE).data(Qt.ItemDataRole.TextAlignmentRole)
    assert right & Qt.AlignmentFlag.AlignRight


def test_many_changes_are_one_signal(table: MarketTable, qtbot: QtBot) -> None:
    heard: list[tuple[int, int]] = []
    table.dataChanged.connect(lambda top, bottom, roles: heard.append((top.row(), bottom.row())))
    for price in range(50):
        table.apply(tuple(ticker(market.symbol, float(price)) for market in MARKETS))
    qtbot.waitUntil(lambda: bool(heard), timeout=1_000)
    assert heard == [(0, 3)]


def test_rows_move_only_when_sorted_again(table: MarketTable) -> None:
    table.apply((ticker("KRW-ETH", 5.0, value=5.0), ticker("KRW-XRP", 5.0, value=9.0)))
    assert symbols(table)[0] == "KRW-BTC"
    table.resort()
    assert symbols(table)[:2] == ["KRW-XRP", "KRW-ETH"]
    table.apply((ticker("KRW-ETH", 5.0, value=50.0),))
    assert symbols(table)[0] == "KRW-XRP"


@pytest.mark.parametrize("order", [Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder])
@pytest.mark.parametrize("by", [PRICE, CHANGE, VALUE])
def test_markets_without_a_price_stand_last(
    table: MarketTable, by: int, order: Qt.SortOrder
) -> None:
    table.apply((ticker("KRW-XRP", 5.0),))
    table.sort(by, order)
    assert symbols(table)[0] == "KRW-XRP"
    assert column(table, PRICE)[1:] == ["–"] * 3


def test_a_held_row_stays_with_its_market(table: MarketTable) -> None:
    row = table.row_of("KRW-XRP")
    assert row is not None
    held = QPersistentModelIndex(table.index(row, NAME))
    table.apply((ticker("KRW-XRP", 1.0, value=1.0),))
    table.resort()
    assert table.market_at(held.row()).symbol == "KRW-XRP"
    assert held.row() == 0


def test_the_list_filters_counts_and_opens(theme: Theme, qtbot: QtBot) -> None:
    market_list = MarketList(theme)
    qtbot.addWidget(market_list)
    market_list.resize(420, 400)
    market_list.show()
    market_list.set_markets(MARKETS[:3])
    market_list.mark("KRW-ETH")
    market_list.filter_box.setText("ㅂㅌ")
    assert symbols(market_list.model) == ["KRW-BTC"]
    assert market_list._count.text() == "1 / 3"
    where = market_list.table.visualRect(market_list.model.index(0, PRICE)).center()
    with qtbot.waitSignal(market_list.chosen) as chosen:
        qtbot.mouseClick(market_list.table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert chosen.args == ["KRW-BTC"]
    market_list.filter_box.clear()
    assert market_list.table.currentIndex() != QModelIndex()
    assert not market_list.grab().toImage().isNull()


@pytest.mark.parametrize(
    ("room", "texts"),
    [(200, ("이더리움클래식", "ETC")), (110, ("이더리움클래식", "")), (50, ("이더…", ""))],
)
def test_of_a_name_and_a_code_the_name_is_cut_last(
    theme: Theme, qtbot: QtBot, room: int, texts: tuple[str, str]
) -> None:
    market_list = MarketList(theme)
    qtbot.addWidget(market_list)
    delegate = market_list.table.itemDelegateForColumn(NAME)
    assert isinstance(delegate, NameDelegate)
    market = Market("KRW-ETC", "이더리움클래식", "Ethereum Classic")
    name, code = delegate.texts(market, market.korean_name, market_list.font(), room)
    assert code == texts[1]
    assert (name == market.korean_name) == (texts[0] == market.korean_name)
    assert QFontMetrics(market_list.font()).horizontalAdvance(name) <= room


def test_the_code_can_be_read_in_the_selected_row(theme: Theme, qtbot: QtBot) -> None:
    market_list = MarketList(theme)
    qtbot.addWidget(market_list)
    market_list.resize(420, 300)
    market_list.show()
    market_list.set_markets(MARKETS[:1])

    def brightest() -> int:
        image = market_list.table.viewport().grab().toImage()
        # Where the code stands: behind the name, before the next column.
        left = 9 + market_list.fontMetrics().horizontalAdvance("Bitcoin")
        inks = (image.pixelColor(x, y) for x in range(left, left + 34) for y in range(4, 23))
        return max(ink.lightness() for ink in inks)

    market_list.mark("KRW-BTC")
    assert brightest() - QColor(theme.selection).lightness() > 80


def test_a_narrow_list_has_no_values(theme: Theme, qtbot: QtBot) -> None:
    market_list = MarketList(theme)
    qtbot.addWidget(market_list)
    market_list.show()
    for width in (380, 300, 420):
        market_list.resize(width, 400)
        assert market_list.table.isColumnHidden(VALUE) == (width < 340)
