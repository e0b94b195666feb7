"""What a recorder asks by REST: all at the start, then what changes, once a minute.

A question is a path with its query, below the REST address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

PAGE_CANDLES = 200
PAGE_TRADES = 500
OPENING_PAGES = 3
"""How many pages back each unit of a chart is recorded at the start."""
MARKETS_EVERY_MINUTES = 10

MARKET_LIST = "/market/all?is_details=true"
_PLAIN_MARKET_LIST = "/market/all"
_MINUTES = (240, 60, 30, 15, 10, 5, 3, 1)
_DAY_MINUTES = 1_440
# One-minute candles come last at the start: the stream begins right after them.
_CHART_PATHS = {
    "/candles/days": _DAY_MINUTES,
    **{f"/candles/minutes/{unit}": unit for unit in _MINUTES},
}
_OTHER_PATHS = ("/candles/years", "/candles/months", "/candles/weeks", "/candles/seconds")


def opening_lists(symbols: Sequence[str]) -> list[str]:
    """Questions about all markets, and of candles that no chart offers; `MARKET_LIST` is
    asked before them."""
    listed = _listed(symbols)
    return [
        _PLAIN_MARKET_LIST,
        f"/orderbook/instruments?{listed}",
        *(candle_page(path, symbol) for path in _OTHER_PATHS for symbol in symbols),
        *_now(symbols),
    ]


def chart_series(symbols: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Path and market of each series whose pages are walked back at the start."""
    for path in _CHART_PATHS:
        for symbol in symbols:
            yield path, symbol


def minutely(symbols: Sequence[str], minute: int) -> list[str]:
    """Questions of one round.

    The candles that ended with the minute come first: whoever replays the recording finds
    them whole a few seconds after their end.

    Args:
        symbols: The recorded markets.
        minute: Which minute has just begun, counted from the epoch.
    """
    paths = sorted(_CHART_PATHS, key=lambda path: (minute % _CHART_PATHS[path], _CHART_PATHS[path]))
    questions = [candle_page(path, symbol) for path in paths[:1] for symbol in symbols]
    questions += _now(symbols)
    questions += [candle_page(path, symbol) for path in paths[1:] for symbol in symbols]
    questions += [candle_page(path, symbol) for path in _OTHER_PATHS[::-1] for symbol in symbols]
    if minute % MARKETS_EVERY_MINUTES == 0:
        questions += [MARKET_LIST, _PLAIN_MARKET_LIST]
    return questions


def candle_page(path: str, symbol: str, to: str | None = None) -> str:
    """One page of candles that start before `to`."""
    query = {"market": symbol, "count": str(PAGE_CANDLES)}
    if to is not None:
        query["to"] = f"{to}Z"
    return f"{path}?{urlencode(query)}"


def _now(symbols: Sequence[str]) -> list[str]:
    quotes = dict.fromkeys(symbol.partition("-")[0] for symbol in symbols)
    return [
        f"/ticker/all?{urlencode({'quote_currencies': ','.join(quotes)})}",
        f"/ticker?{_listed(symbols)}",
        f"/orderbook?{_listed(symbols)}",
        *(
            f"/trades/ticks?{urlencode({'market': symbol, 'count': PAGE_TRADES})}"
            for symbol in symbols
        ),
    ]


def _listed(symbols: Sequence[str]) -> str:
    return urlencode({"markets": ",".join(symbols)})
