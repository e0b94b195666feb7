from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.worlds import BUSY, FINE, IDLE, SEED, THIN, market, ms
from upbit_backbone.price import tick_size
from upbit_backbone.simulator.orderbooks import GRID_MS, Level, Orderbook, Orderbooks

SYMBOLS = ["KRW-BTC", "KRW-DOGE", BUSY, THIN, IDLE, FINE]
INSTANTS = st.integers(ms("2025-08-20"), ms("2025-10-20"))
NOON_MS = ms("2025-11-05T12:00:00")


def book_at(symbol: str, now_ms: int) -> Orderbook:
    book = Orderbooks(SEED, market(symbol)).at(now_ms)
    assert book is not None
    return book


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS)
def test_a_book_has_thirty_ordered_levels_that_do_not_cross(symbol: str, now_ms: int) -> None:
    book = book_at(symbol, now_ms)
    asks = [ask.price for ask in book.asks]
    bids = [bid.price for bid in book.bids if bid.price]
    assert len(book.asks) == len(book.bids) == 30
    assert asks == sorted(set(asks))
    assert bids == sorted(set(bids), reverse=True)
    assert bids[0] < asks[0]
    assert all(level.size > 0 for level in book.asks)
    assert all((level.size > 0) == (level.price > 0) for level in book.bids)
    assert book.total_ask_size == sum(ask.size for ask in book.asks)
    assert book.total_bid_size == sum(bid.size for bid in book.bids)


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS)
def test_the_last_trade_was_done_at_the_best_price_of_its_side(symbol: str, now_ms: int) -> None:
    of = market(symbol)
    step_ms = now_ms // GRID_MS * GRID_MS
    last = of.last_trade(of.cut(step_ms + 1))
    assert last is not None
    book = book_at(symbol, now_ms)
    best = book.asks[0] if last.taker_buys else book.bids[0]
    assert best.price == last.price
    after = Orderbooks(SEED, of).after(last)
    assert [level.price for level in after.asks] == [level.price for level in book.asks]


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS)
def test_prices_of_a_book_lie_on_the_grid_but_for_old_orders(symbol: str, now_ms: int) -> None:
    scale = market(symbol).scale
    book = book_at(symbol, now_ms)
    for level in (*book.asks[1:], *book.bids[1:]):
        price = level.price * scale.unit
        assert price % Fraction(tick_size(symbol, float(price))) == 0


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS, steps=st.integers(1, 100))
def test_a_book_changes_exactly_when_its_stamp_says(symbol: str, now_ms: int, steps: int) -> None:
    books = Orderbooks(SEED, market(symbol))
    before = books.at(now_ms)
    assert before is not None
    assert before.changed_ms <= now_ms
    assert before.changed_ms % GRID_MS == 0
    for step in range(1, steps + 1):
        step_ms = now_ms // GRID_MS * GRID_MS + step * GRID_MS
        book = books.at(step_ms)
        assert book is not None
        # Asked afresh, with nothing remembered, the book is the same.
        if step == steps:
            assert book == book_at(symbol, step_ms)
        assert (book != before) == (book.changed_ms == step_ms)
        assert book.changed_ms >= before.changed_ms
        before = book


def test_a_busy_book_moves_and_a_quiet_one_rests() -> None:
    def changes(symbol: str) -> int:
        books = Orderbooks(SEED, market(symbol))
        stamps = {
            getattr(books.at(NOON_MS + ms_), "changed_ms", 0) for ms_ in range(0, 20_000, 100)
        }
        return len(stamps)

    assert changes("KRW-BTC") > 50
    assert changes(IDLE) < 50


def test_a_cheap_market_has_no_bids_below_nothing() -> None:
    bids = book_at(IDLE, NOON_MS).bids
    assert bids[-1] == Level(0, 0)
    assert bids[0].price > 0


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_sizes_are_of_the_order_of_the_trades(symbol: str) -> None:
    of = market(symbol)
    trades = of.trades_back(from_ms=0, before_ms=NOON_MS, before_id=None, count=500)
    mean_trade = sum(trade.volume for trade in trades) / len(trades)
    sizes = [level.size for level in book_at(symbol, NOON_MS).asks]
    assert mean_trade / 20 < sum(sizes) / len(sizes) < mean_trade * 20
