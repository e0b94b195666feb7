from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.test_script import scripted
from tests.simulator.worlds import BUSY, FINE, IDLE, SEED, THIN, market, ms
from upbit_backbone.price import tick_size
from upbit_backbone.simulator.orderbooks import Level, Orderbook, Orderbooks

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
    grid = Orderbooks(SEED, of).grid
    last = of.last_trade(of.cut(grid.start_ms(grid.step(now_ms)) + 1))
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
    grid = books.grid
    assert grid.start_ms(grid.step(before.changed_ms)) == before.changed_ms
    for step in range(1, steps + 1):
        step_ms = grid.start_ms(grid.step(now_ms) + step)
        book = books.at(step_ms)
        assert book is not None
        # Asked afresh, with nothing remembered, the book is the same.
        if step == steps:
            assert book == book_at(symbol, step_ms)
        assert (book != before) == (book.changed_ms == step_ms)
        assert book.changed_ms >= before.changed_ms
        before = book


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS)
def test_a_book_rests_until_it_says_unless_somebody_trades(symbol: str, now_ms: int) -> None:
    of = market(symbol)
    books = Orderbooks(SEED, of)
    until_ms = books.rests_until_ms(now_ms)
    assert until_ms is not None
    assert until_ms > now_ms
    # What was traded since the last step is seen at the next one.
    step_ms = books.grid.start_ms(books.grid.step(now_ms))
    traded = [trade.time_ms for trade in of.next_trades(step_ms)]
    rests_to_ms = min(until_ms, *traded)
    assert books.at(rests_to_ms - 1) == books.at(now_ms)
    if rests_to_ms == until_ms:
        changed = books.at(until_ms)
        assert changed is not None
        assert changed.changed_ms == until_ms


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS)
def test_the_best_levels_are_those_of_the_whole_book(symbol: str, now_ms: int) -> None:
    of = market(symbol)
    trade = of.last_trade(of.cut(now_ms))
    assert trade is not None
    books = Orderbooks(SEED, of)
    whole = books.after(trade)
    assert books.best_after(trade) == (whole.asks[0], whole.bids[0])


@pytest.mark.parametrize(
    ("symbol", "shortest_ms", "longest_ms"), [("KRW-BTC", 100, 100), (FINE, 100, 300)]
)
def test_steps_of_the_grid_follow_each_other_as_measured(
    symbol: str, shortest_ms: int, longest_ms: int
) -> None:
    grid = Orderbooks(SEED, market(symbol)).grid
    first = grid.step(NOON_MS)
    starts = [grid.start_ms(first + step) for step in range(200)]
    gaps = [after - before for before, after in pairwise(starts)]
    assert shortest_ms <= min(gaps)
    assert max(gaps) <= longest_ms
    assert (len(set(gaps)) > 1) == (longest_ms > shortest_ms)
    for start_ms in starts:
        assert grid.start_ms(grid.step(start_ms)) == start_ms
        assert grid.step(start_ms - 1) == grid.step(start_ms) - 1
        assert grid.step_from(start_ms) == grid.step(start_ms)


def test_won_markets_have_phases_of_their_own() -> None:
    phases = {
        Orderbooks(SEED, market(symbol)).grid.start_ms(0) % 100
        for symbol in ("KRW-BTC", "KRW-XRP", "KRW-DOGE", BUSY, THIN)
    }
    assert len(phases) > 2


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


async def test_sizes_of_the_cheapest_coin_are_no_64_bit_numbers() -> None:
    listing = {"type": "listing", "symbol": "KRW-NEW", "at": "2026-03-04T12:00Z", "price": 1e-6}
    of = await scripted("KRW-NEW", listing)
    books = Orderbooks(SEED, of)
    for hour in range(1, 20):
        now_ms = ms("2026-03-05") + hour * 3_600_000
        book = books.at(now_ms)
        assert book is not None
        assert all(level.size > 0 for level in (*book.asks, *book.bids) if level.price)
        last = of.last_trade(of.cut(now_ms))
        assert last is not None
        after = books.after(last)
        assert books.best_after(last) == (after.asks[0], after.bids[0])


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_sizes_are_of_the_order_of_the_trades(symbol: str) -> None:
    of = market(symbol)
    trades = of.trades_back(from_ms=0, before_ms=NOON_MS, before_id=None, count=500)
    mean_trade = sum(trade.volume for trade in trades) / len(trades)
    sizes = [level.size for level in book_at(symbol, NOON_MS).asks]
    assert mean_trade / 20 < sum(sizes) / len(sizes) < mean_trade * 20


@pytest.mark.parametrize(
    ("symbol", "tick", "steps"),
    [("KRW-XRP", "5", 6_200), (THIN, "0.05", 6_200), ("KRW-XRP", "0.5", 300)],
)
async def test_after_a_coarser_tick_old_orders_leave_one_by_one(
    symbol: str, tick: str, steps: int
) -> None:
    event = {"type": "tick_size", "symbol": symbol, "at": "2026-03-04T16:00:00Z"}
    of = await scripted(symbol, {**event, "tick_size": tick})
    books = Orderbooks(SEED, of)
    first = books.grid.step(ms("2026-03-04T15:59:55"))
    before = books.at(books.grid.start_ms(first))
    off_tick = []
    for step in range(first + 1, first + steps):
        at_ms = books.grid.start_ms(step)
        book = books.at(at_ms)
        assert book is not None
        assert (book != before) == (book.changed_ms == at_ms), at_ms
        assert at_ms < (books.rests_until_ms(at_ms) or 0)
        before = book
        if step % 23 and step > first + 100:
            continue
        assert book == Orderbooks(SEED, of).at(at_ms)
        prices = [level.price for level in (*book.asks, *book.bids)]
        assert len(set(prices)) == 60
        last = of.last_trade(of.cut(at_ms + 1))
        assert last is not None
        assert last.price == (book.asks if last.taker_buys else book.bids)[0].price
        after = books.after(last)
        assert books.best_after(last) == (after.asks[0], after.bids[0])
        grid = of.grid_at(at_ms)
        off_tick.append(sum(price % grid != 0 for price in prices if price != last.price))
    assert (max(off_tick) > 10) == (tick != "0.5")
    assert off_tick[0] == off_tick[-1] == 0
