"""Order books over REST: depth, levels, instruments."""

import aiohttp
import pytest

from tests.manual_clock import ManualClock
from tests.simulator.rest_errors import INVALID, MISMATCH, MISSING, NOT_FOUND
from tests.simulator.worlds import FINE, IDLE, Caller, listings, ms
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.settings import SimulatorSettings

BOOK = "/orderbook"
INSTRUMENTS = "/orderbook/instruments"


def units_of(size: float) -> int:
    return round(size * 1e8)


async def test_a_book_has_thirty_rows_and_their_sums(caller: Caller) -> None:
    book = (await caller.rows(BOOK, markets="KRW-ETH"))[0]
    rows = book["orderbook_units"]
    assert len(rows) == 30
    for side in ("ask", "bid"):
        total = sum(units_of(row[f"{side}_size"]) for row in rows)
        assert units_of(book[f"total_{side}_size"]) == total
    assert rows[0]["bid_price"] < rows[0]["ask_price"]
    assert [row["ask_price"] for row in rows] == sorted(row["ask_price"] for row in rows)
    assert book["level"] == 0


async def test_a_book_is_cut_to_the_rows_asked_for_but_keeps_its_totals(caller: Caller) -> None:
    whole = (await caller.rows(BOOK, markets="KRW-ETH", count=31))[0]
    top = (await caller.rows(BOOK, markets="KRW-ETH", count=5))[0]
    assert len(whole["orderbook_units"]) == 30
    assert top["orderbook_units"] == whole["orderbook_units"][:5]
    assert top["total_ask_size"] == whole["total_ask_size"]
    assert top["total_bid_size"] == whole["total_bid_size"]


async def test_totals_of_the_shown_rows_are_a_setting(clock: ManualClock) -> None:
    settings = SimulatorSettings(total_sizes="shown")
    async with (
        Simulator(clock=clock, settings=settings) as simulator,
        aiohttp.ClientSession() as session,
    ):
        book = (await Caller(simulator, session).rows(BOOK, markets="KRW-ETH", count=3))[0]
    sizes = [units_of(row["bid_size"]) for row in book["orderbook_units"]]
    assert units_of(book["total_bid_size"]) == sum(sizes)


async def test_a_thin_side_is_filled_with_zeros(caller: Caller) -> None:
    rows = (await caller.rows(BOOK, markets=IDLE))[0]["orderbook_units"]
    assert len(rows) == 30
    assert (rows[-1]["bid_price"], rows[-1]["bid_size"]) == (0, 0)
    assert rows[-1]["ask_price"] > 0


async def test_the_stamp_of_a_book_is_its_last_change(caller: Caller, clock: ManualClock) -> None:
    clock.advance(1)
    before = (await caller.rows(BOOK, markets=IDLE))[0]
    assert before["timestamp"] < clock.now_ms()
    clock.set_wall(before["timestamp"] + 50)
    assert (await caller.rows(BOOK, markets=IDLE))[0] == before
    clock.set_wall(before["timestamp"] - 1)
    older = (await caller.rows(BOOK, markets=IDLE))[0]
    assert older["timestamp"] < before["timestamp"]
    assert older["orderbook_units"] != before["orderbook_units"]


async def test_every_offered_level_groups_the_book(caller: Caller, clock: ManualClock) -> None:
    for symbol in ("KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-DOGE", "KRW-TRX"):
        clock.advance(1)
        levels = (await caller.rows(INSTRUMENTS, markets=symbol))[0]["supported_levels"]
        plain = (await caller.rows(BOOK, markets=symbol))[0]
        for text in levels[1:]:
            book = (await caller.rows(BOOK, markets=symbol, level=text))[0]
            level = float(text)
            assert book["level"] == level
            assert book["timestamp"] == plain["timestamp"]
            rows = book["orderbook_units"]
            assert len(rows) == 30
            for row in rows:
                for side in ("ask", "bid"):
                    steps = row[f"{side}_price"] / level
                    assert steps == pytest.approx(round(steps), abs=1e-6)
                    assert (row[f"{side}_size"] > 0) == (row[f"{side}_price"] > 0)
            best = plain["orderbook_units"][0]
            assert best["ask_price"] <= rows[0]["ask_price"] < best["ask_price"] + level * 1.000001
            assert best["bid_price"] - level * 1.000001 < rows[0]["bid_price"] <= best["bid_price"]
            for side in ("ask", "bid"):
                shown = sum(units_of(row[f"{side}_size"]) for row in rows)
                assert units_of(book[f"total_{side}_size"]) == shown
                assert shown >= units_of(plain[f"total_{side}_size"])


async def test_a_level_that_is_not_offered_gives_an_empty_list(
    caller: Caller, clock: ManualClock
) -> None:
    for symbol, level in (
        ("KRW-ETH", "3"),
        ("KRW-ETH", "1000"),
        ("KRW-ETH", "-10000"),
        ("BTC-ETH", "1"),
        (FINE, "0.1"),
    ):
        assert await caller.rows(BOOK, markets=symbol, level=level) == [], (symbol, level)
        clock.advance(1)
    rows = await caller.rows(BOOK, markets="KRW-ETH,BTC-ETH", level="10000")
    assert [row["market"] for row in rows] == ["KRW-ETH"]
    for level in ("0", "", "0.0"):
        assert len(await caller.rows(BOOK, markets="BTC-ETH", level=level)) == 1


async def test_wrong_parameters_of_books_are_refused(caller: Caller, clock: ManualClock) -> None:
    for query, error in (
        ({}, MISSING),
        ({"markets": "KRW-ETH,KRW-NOPE"}, NOT_FOUND),
        ({"markets": "KRW-ETH", "count": "many"}, MISMATCH),
        ({"markets": "KRW-ETH", "count": "0"}, INVALID),
        ({"markets": "KRW-ETH", "level": "x"}, INVALID),
        ({"markets": "KRW-ETH", "level": "NaN"}, INVALID),
        ({"markets": "KRW-ETH", "level": "1e999999999"}, INVALID),
    ):
        assert (await caller.get(BOOK, **query)).error == error, query
        clock.advance(1)
    for path in (INSTRUMENTS, "/orderbook/supported_levels"):
        assert (await caller.get(path)).error == MISSING
        assert (await caller.get(path, markets="KRW-ETH,KRW-NOPE")).error == NOT_FOUND


async def test_all_books_fit_in_one_call(caller: Caller, clock: ManualClock) -> None:
    clock.set_wall(ms("2026-09-01T12:00:00"))
    symbols = list(listings())
    rows = await caller.rows(BOOK, markets=",".join(symbols))
    assert [row["market"] for row in rows] == symbols
    assert len(symbols) > 450


async def test_instruments_tell_tick_and_levels_as_texts(caller: Caller) -> None:
    rows = await caller.rows(INSTRUMENTS, markets="KRW-BTC,KRW-ETH,USDT-BTC,BTC-ETH")
    assert rows == [
        {
            "market": "KRW-BTC",
            "quote_currency": "KRW",
            "tick_size": "1000",
            "supported_levels": ["0", "10000", "100000", "1000000", "10000000", "100000000"],
        },
        {
            "market": "KRW-ETH",
            "quote_currency": "KRW",
            "tick_size": "1000",
            "supported_levels": ["0", "10000", "100000", "1000000"],
        },
        {
            "market": "USDT-BTC",
            "quote_currency": "USDT",
            "tick_size": "0.01",
            "supported_levels": ["0"],
        },
        {
            "market": "BTC-ETH",
            "quote_currency": "BTC",
            "tick_size": "0.00000001",
            "supported_levels": ["0"],
        },
    ]


async def test_the_deprecated_path_tells_levels_as_numbers(caller: Caller) -> None:
    rows = await caller.rows("/orderbook/supported_levels", markets="KRW-ETH,BTC-ETH")
    assert rows == [
        {"market": "KRW-ETH", "supported_levels": [0, 10000, 100000, 1000000]},
        {"market": "BTC-ETH", "supported_levels": [0]},
    ]
