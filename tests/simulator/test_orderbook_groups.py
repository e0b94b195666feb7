"""Grouped books: sums of what they group, at every level the same orders."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.test_script import scripted
from tests.simulator.worlds import BUSY, SEED, THIN, market, ms
from upbit_backbone.simulator.instruments import instrument_at
from upbit_backbone.simulator.orderbook_groups import Depth, grouped_asks, grouped_bids
from upbit_backbone.simulator.orderbooks import Level, Orderbook, Orderbooks

SYMBOLS = ["KRW-BTC", "KRW-XRP", "KRW-DOGE", "KRW-TRX", BUSY, THIN]
INSTANTS = st.integers(ms("2025-08-20"), ms("2025-10-20"))
NOON_MS = ms("2025-11-05T12:00:00")


def levels_of(symbol: str, now_ms: int) -> tuple[Fraction, ...]:
    return instrument_at(market(symbol), now_ms).levels[1:]


def book_at(symbol: str, now_ms: int, level: Fraction) -> Orderbook:
    book = Orderbooks(SEED, market(symbol)).grouped(now_ms, level)
    assert book is not None
    return book


def up(price: int, step: int) -> int:
    return -(-price // step) * step


def down(price: int, step: int) -> int:
    return price // step * step


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS, nth=st.integers(0, 5))
def test_a_group_holds_at_least_what_the_book_shows_in_it(
    symbol: str, now_ms: int, nth: int
) -> None:
    levels = levels_of(symbol, now_ms)
    level = levels[nth % len(levels)]
    step = int(level / market(symbol).scale.unit)
    plain, book = book_at(symbol, now_ms, Fraction(0)), book_at(symbol, now_ms, level)
    for shown, groups, rounded in (
        (plain.asks, book.asks, up),
        (plain.bids, book.bids, down),
    ):
        sizes = {group.price: group.size for group in groups}
        inside: dict[int, int] = {}
        for row in shown:
            price = rounded(row.price, step)
            inside[price] = inside.get(price, 0) + row.size
        inside.pop(0, None)
        assert all(sizes[price] >= size for price, size in inside.items())
        # What lies between the best prices and the last one shown is known exactly.
        for price in list(inside)[:-1]:
            assert sizes[price] == inside[price]
    assert book.changed_ms == plain.changed_ms
    assert book.level == level


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS, nth=st.integers(0, 4))
def test_a_coarse_group_is_the_sum_of_the_finer_ones(symbol: str, now_ms: int, nth: int) -> None:
    levels = levels_of(symbol, now_ms)
    fine, coarse = levels[nth % (len(levels) - 1)], levels[nth % (len(levels) - 1) + 1]
    step = int(coarse / market(symbol).scale.unit)
    small, large = book_at(symbol, now_ms, fine), book_at(symbol, now_ms, coarse)
    for finer, groups, rounded in ((small.asks, large.asks, up), (small.bids, large.bids, down)):
        sums: dict[int, int] = {}
        for row in finer:
            price = rounded(row.price, step)
            sums[price] = sums.get(price, 0) + row.size
        sizes = {group.price: group.size for group in groups}
        complete = list(sums)[:-1]  # the last one goes on beyond the rows shown
        assert all(sums[price] == sizes[price] for price in complete if price)


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS, nth=st.integers(0, 5))
def test_a_grouped_book_is_ordered_and_adds_up(symbol: str, now_ms: int, nth: int) -> None:
    levels = levels_of(symbol, now_ms)
    book = book_at(symbol, now_ms, levels[nth % len(levels)])
    asks = [row.price for row in book.asks if row.price]
    bids = [row.price for row in book.bids if row.price]
    assert len(book.asks) == len(book.bids) == 30
    assert asks == sorted(set(asks))
    assert bids == sorted(set(bids), reverse=True)
    assert bids[0] < asks[0] if bids else asks
    for rows, total in ((book.asks, book.total_ask_size), (book.bids, book.total_bid_size)):
        assert total == sum(row.size for row in rows)
        filled = [row for row in rows if row.price]
        assert all(row.size > 0 for row in filled)
        assert rows == filled + [Level(0, 0)] * (30 - len(filled))


def test_the_finest_level_leaves_empty_steps_out_and_has_thirty_rows() -> None:
    book = book_at("KRW-BTC", NOON_MS, Fraction(10_000))
    assert book.bids[-1].price > 0
    steps = (book.asks[-1].price - book.asks[0].price) // 10
    assert 30 <= steps < 60


def test_the_coarsest_level_runs_out_of_prices() -> None:
    book = book_at("KRW-BTC", NOON_MS, Fraction(100_000_000))
    assert [row.price for row in book.bids[:2]] == [100_000, 0]
    # Nothing is asked beyond twice the price, 160 million won.
    assert [row.price for row in book.asks[:4]] == [200_000, 300_000, 400_000, 0]


def test_asked_again_a_group_is_not_made_again() -> None:
    books = Orderbooks(SEED, market("KRW-BTC"))
    first = books.grouped(NOON_MS, Fraction(10_000))
    assert books.grouped(NOON_MS, Fraction(10_000)) is first
    later = books.grouped(NOON_MS + 60_000, Fraction(10_000))
    assert later == book_at("KRW-BTC", NOON_MS + 60_000, Fraction(10_000))
    assert later != first


async def test_which_levels_are_on_offer_changes_with_the_book() -> None:
    jump = {"type": "move", "symbol": "KRW-XRP", "at": "2026-03-04T12:00:00Z", "change": -0.8}
    of = await scripted("KRW-XRP", jump)
    at_ms = ms("2026-03-04T12:00:00")  # one of the grid's steps lies before, one after
    asked, fresh = Orderbooks(SEED, of), Orderbooks(SEED, of)
    assert asked.grouped(at_ms - 1, Fraction(1_000)) is not None
    assert asked.grouped(at_ms, Fraction(1_000)) == fresh.grouped(at_ms, Fraction(1_000))
    assert asked.grouped(at_ms + 100, Fraction(1_000)) is None


def test_the_cell_in_which_the_best_prices_end_holds_what_lies_beyond_them() -> None:
    def beyond(ticks: int) -> tuple[int, int]:
        """What is asked up to 1,040 and bid down to 960, with so many ticks not shown."""
        asks = [(1_040 - ticks - place, 1) for place in range(30)][::-1]
        bids = [(960 + ticks + place, 1) for place in range(30)]
        shown = sum(price > 1_030 for price, _ in asks)
        return (
            dict(grouped_asks(asks, 10, depth)).get(1_040, shown) - shown,
            dict(grouped_bids(bids, 10, depth)).get(960, shown) - shown,
        )

    sizes = []
    for key in range(40):  # some of the cells are empty
        depth = Depth(key=key, cell=10, grid=1, share=1_000)
        sizes.append((beyond(1), beyond(8)))
    for side in (0, 1):
        few = sum(few[side] for few, _ in sizes)
        many = sum(many[side] for _, many in sizes)
        assert 7 * few < many < 9 * few


@pytest.mark.parametrize(("symbol", "level"), [("KRW-BTC", 3), ("BTC-ETH", 1), ("KRW-TRX", -1)])
def test_a_level_that_is_not_on_offer_gives_none(symbol: str, level: int) -> None:
    assert Orderbooks(SEED, market(symbol)).grouped(NOON_MS, Fraction(level)) is None
