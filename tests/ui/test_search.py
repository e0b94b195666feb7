"""Finding a market by what a Korean trader types."""

from __future__ import annotations

import pytest

from ui.screener.search import find, named
from upbit_backbone import Market

MARKETS = [
    Market("BTC-ETH", "이더리움", "Ethereum"),
    Market("KRW-BTC", "비트코인", "Bitcoin"),
    Market("KRW-BCH", "비트코인캐시", "Bitcoin Cash"),
    Market("KRW-ETC", "이더리움클래식", "Ethereum Classic"),
    Market("KRW-XRP", "리플", "Ripple"),
    Market("KRW-SAND", "샌드박스", "Sandbox"),
    Market("BTC-ETC", "이더리움클래식", "Ethereum Classic"),
    Market("BTC-BCH", "비트코인캐시", "Bitcoin Cash"),
    Market("BTC-XRP", "리플", "Ripple"),
    Market("BTC-DOT", "폴카닷", "Polkadot"),
    Market("USDT-DOT", "폴카닷", "Polkadot"),
    Market("USDT-BNB", "비앤비", "BNB"),
]
# As the exchange's list may come: other quotes before the won.
BACKWARDS = MARKETS[::-1]


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("btc", "KRW-BTC"),
        ("KRW-XRP", "KRW-XRP"),
        ("비트", "KRW-BTC"),
        ("ㅂㅌㅋ", "KRW-BTC"),
        ("비ㅌㅋㅇㅋ", "KRW-BCH"),
        ("ㄹㅍ", "KRW-XRP"),
        ("ㄼ", None),
        ("ripp", "KRW-XRP"),
        ("박스", "KRW-SAND"),
        ("xrp/krw", "KRW-XRP"),
        ("zzz", None),
    ],
)
def test_it_finds_by_name_code_and_initials(typed: str, first: str | None) -> None:
    found = find(MARKETS, typed)
    assert (found[0].symbol if found else None) == first


def test_consonants_joined_by_the_keyboard_are_taken_apart() -> None:
    assert find([Market("KRW-A", "가나다", "A")], "ㄳ") == []
    assert find([Market("KRW-A", "가상 001", "A")], "ㄳ")[0].symbol == "KRW-A"


def test_nothing_typed_shows_all_in_their_order_those_in_won_first() -> None:
    symbols = [market.symbol for market in find(MARKETS, "  ")]
    assert symbols[:6] == ["KRW-BTC", "KRW-BCH", "KRW-ETC", "KRW-XRP", "KRW-SAND", "BTC-ETH"]
    assert len(symbols) == len(MARKETS)


@pytest.mark.parametrize(
    ("typed", "first"),
    [("xrp", "KRW-XRP"), ("이더리움ㅋ", "KRW-ETC"), ("이더", "KRW-ETC"), ("캐시", "KRW-BCH")],
)
def test_of_equally_good_markets_the_one_in_won_comes_first(typed: str, first: str) -> None:
    assert find(BACKWARDS, typed)[0].symbol == first
    assert find(MARKETS, typed)[0].symbol == first


def test_a_better_fit_is_stronger_than_the_won() -> None:
    markets = [Market("KRW-AB", "가나", "Ab"), Market("BTC-A", "나", "A")]
    assert [market.symbol for market in find(markets, "a")] == ["BTC-A", "KRW-AB"]


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BTC", "KRW-BTC"),
        ("krw-btc", "KRW-BTC"),
        ("XRP", "KRW-XRP"),
        ("BTC-XRP", "BTC-XRP"),
        ("BTC-KRW", "KRW-BTC"),
        ("krwbtc", "KRW-BTC"),
        ("비트코인", "KRW-BTC"),
        ("BNB", "USDT-BNB"),
        ("DOT", None),
        ("비트", None),
        ("KRW-NOPE", None),
        ("", None),
    ],
)
def test_a_market_is_named_by_what_can_mean_no_other(text: str, symbol: str | None) -> None:
    market = named(MARKETS, text)
    assert (market.symbol if market else None) == symbol
