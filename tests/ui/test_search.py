"""Finding a market by what a Korean trader types."""

from __future__ import annotations

import pytest

from ui.screener.search import find
from upbit_backbone import Market

MARKETS = [
    Market("BTC-ETH", "이더리움", "Ethereum"),
    Market("KRW-BTC", "비트코인", "Bitcoin"),
    Market("KRW-BCH", "비트코인캐시", "Bitcoin Cash"),
    Market("KRW-ETC", "이더리움클래식", "Ethereum Classic"),
    Market("KRW-XRP", "리플", "Ripple"),
    Market("KRW-SAND", "샌드박스", "Sandbox"),
]


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


def test_nothing_typed_shows_all_in_their_order() -> None:
    assert find(MARKETS, "  ") == MARKETS
