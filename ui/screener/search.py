"""Finding a market by what a Korean trader types.

Korean name, English name, code, and initial consonants (ㅂㅌㅋ finds 비트코인), also
half-typed (비ㅌ). Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable

from upbit_backbone.models import Market

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_FIRST_SYLLABLE, _LAST_SYLLABLE = 0xAC00, 0xD7A3
_SYLLABLES_PER_INITIAL = 588
# A keyboard joins two consonants typed in a row into one letter where such a letter exists.
_JOINED = str.maketrans(
    {
        "ㄳ": "ㄱㅅ",
        "ㄵ": "ㄴㅈ",
        "ㄶ": "ㄴㅎ",
        "ㄺ": "ㄹㄱ",
        "ㄻ": "ㄹㅁ",
        "ㄼ": "ㄹㅂ",
        "ㄽ": "ㄹㅅ",
        "ㄾ": "ㄹㅌ",
        "ㄿ": "ㄹㅍ",
        "ㅀ": "ㄹㅎ",
        "ㅄ": "ㅂㅅ",
    }
)


def find(markets: Iterable[Market], text: str) -> list[Market]:
    """The markets that `text` may mean, best first; all of them for an empty text.

    Of equally good ones those in won come first; else they keep their order.
    """
    wanted = text.strip().casefold().translate(_JOINED)
    if not wanted:
        return sorted(markets, key=_is_foreign)
    ranked = [(rank, market) for market in markets if (rank := _rank(market, wanted)) is not None]
    ranked.sort(key=lambda found: (found[0], _is_foreign(found[1])))
    return [market for _, market in ranked]


def named(markets: Iterable[Market], text: str) -> Market | None:
    """The one market that `text` names without a doubt; None if there is none, or several.

    A code, an asset (``btc``) or a Korean name; an asset that is quoted in won, too, means that.
    """
    wanted = text.strip().casefold()
    known = [market for market in markets if wanted in (*_codes(market), market.korean_name)]
    in_won = [market for market in known if not _is_foreign(market)]
    best = in_won or known
    return best[0] if len(best) == 1 else None


def _is_foreign(market: Market) -> bool:
    return not market.symbol.startswith("KRW-")


def _codes(market: Market) -> tuple[str, ...]:
    """The ways to write a market's code, and its asset alone."""
    symbol = market.symbol.casefold()
    quote, _, base = symbol.partition("-")
    return (symbol, base, f"{base}-{quote}", f"{base}/{quote}", quote + base, base + quote)


def _rank(market: Market, wanted: str) -> int | None:
    """How well a market fits, 0 best; None if not at all."""
    codes = _codes(market)
    symbol, base = codes[:2]
    if wanted in codes:
        return 0
    korean = _korean_place(market.korean_name.casefold(), wanted)
    english = market.english_name.casefold()
    if korean == 0 or base.startswith(wanted) or english.startswith(wanted):
        return 1
    if korean is not None or wanted in english or wanted in symbol:
        return 2
    return None


def _korean_place(name: str, wanted: str) -> int | None:
    """Where `wanted` stands in `name`, a consonant standing for any syllable it begins."""
    for start in range(len(name) - len(wanted) + 1):
        if all(
            sought in (letter, _initial(letter))
            for sought, letter in zip(wanted, name[start:], strict=False)
        ):
            return start
    return None


def _initial(letter: str) -> str:
    code = ord(letter)
    if not _FIRST_SYLLABLE <= code <= _LAST_SYLLABLE:
        return letter
    return _INITIALS[(code - _FIRST_SYLLABLE) // _SYLLABLES_PER_INITIAL]
