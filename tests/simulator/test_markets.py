import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

from tests.simulator.worlds import PAYLOADS, RECORDED, listings, ms
from tools.build_market_tile import write_markets
from upbit_backbone.price import tick_size
from upbit_backbone.resources import resource_path
from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.shapes import Shape


def test_289_markets_are_quoted_in_won() -> None:
    quotes = Counter(symbol.partition("-")[0] for symbol in listings())
    assert quotes == {"KRW": 289, "BTC": 161, "USDT": 16}


def test_every_recorded_code_is_listed_under_its_recorded_names() -> None:
    recorded = json.loads((PAYLOADS / "market_all.json").read_text(encoding="utf-8"))
    for market in recorded:
        listing = listings()[market["market"]]
        assert listing.korean_name == market["korean_name"]
        assert listing.english_name == market["english_name"]
    assert next(iter(listings())) == "KRW-BTC"


def test_what_other_quotes_trade_is_quoted_in_won_too_and_the_rest_says_it_is_invented() -> None:
    recorded = json.loads((PAYLOADS / "market_all.json").read_text(encoding="utf-8"))
    bases = {market["market"].partition("-")[2] for market in recorded}
    won = {symbol.partition("-")[2]: market for symbol, market in listings().items()}
    for base in set(won) - bases:
        number = re.fullmatch(r"SIM(\d\d\d)", base)
        assert number is not None
        assert won[base].korean_name == f"가상 {number[1]}"
        assert won[base].english_name == f"Simulated {number[1]}"
    assert {f"KRW-{base}" for base in bases} <= set(listings())


def test_krw_btc_was_listed_in_2017_and_three_markets_in_the_last_quarter_of_2025() -> None:
    assert listings()["KRW-BTC"].listed_ms == ms("2017-09-25T03:00:00")
    late = [
        listing.symbol
        for listing in listings().values()
        if ms("2025-10-01") <= listing.listed_ms < ms("2026-01-01")
    ]
    assert len(late) == 3
    assert all(listing.listed_ms % 60_000 == 0 for listing in listings().values())
    assert max(listing.listed_ms for listing in listings().values()) < ms("2026-01-01")


def test_prices_and_the_book_around_them_lie_on_the_exchanges_grid() -> None:
    for listing in listings().values():
        if not isinstance(listing.table, Shape):
            continue
        scale = listing.scale
        lowest, highest = scale.price(0), scale.price(listing.table.span)
        assert 0 < lowest < highest
        for units in (lowest, highest, highest + BOOK_LEVELS):
            price = units * scale.unit
            tick = Fraction(tick_size(listing.symbol, float(price)))
            assert price % tick == 0, f"{listing.symbol} at {float(price)}, tick {tick}"
            assert scale.unit == tick


def test_well_known_coins_cost_about_what_they_did_in_september_2025() -> None:
    for symbol, won in {"KRW-ETH": 6_100_000, "KRW-ADA": 1_150, "KRW-LINK": 32_500}.items():
        listing = listings()[symbol]
        assert isinstance(listing.table, Shape)
        middle = float(listing.scale.price(listing.table.span // 2) * listing.scale.unit)
        assert 0.85 * won < middle < 1.15 * won


def test_no_two_markets_are_copies_of_each_other() -> None:
    assert len({(market.table, market.shift_days) for market in listings().values()}) == 466


def test_as_recorded_lists_the_recordings_alone() -> None:
    recorded = listings(as_recorded=True)
    assert set(recorded) == set(RECORDED)
    assert {market.listed_ms for market in recorded.values()} == {ms("2025-09-01")}


def test_the_shipped_listing_is_what_the_tool_writes(tmp_path: Path) -> None:
    write_markets(tmp_path / "markets.json")
    shipped = resource_path("market/markets.json").read_bytes()
    assert (tmp_path / "markets.json").read_bytes() == shipped
