"""The REST side of a replay: recorded bodies, and pages cut of recorded rows.

Errors are the exchange's (upbit-api, section 6). There are no limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from upbit_backbone.clock import DAY_MS, SECOND_MS, epoch_ms, utc_datetime
from upbit_backbone.recorder.known_answers import KnownAnswers
from upbit_backbone.recorder.records import RestAnswer

MOST_CANDLES = 200
MOST_TRADES = 500
MOST_DAYS_AGO = 7
MOST_LEVELS = 30
MINUTE_UNITS = (1, 3, 5, 10, 15, 30, 60, 240)

_GROUPS = {
    "market/all": "market",
    "trades/ticks": "trades",
    "ticker": "ticker",
    "ticker/all": "ticker",
    "orderbook": "orderbook",
    "orderbook/instruments": "orderbook",
    "orderbook/supported_levels": "orderbook",
    **{f"candles/{unit}": "candles" for unit in ("seconds", "days", "weeks", "months", "years")},
}
_MINUTES = re.compile(r"/candles/minutes/([^/]*)")
_TO_FORMS = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)?")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):?([0-5]\d):?([0-5]\d)")
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")

Query = Mapping[str, str]

_book = msgspec.json.Decoder(dict[str, msgspec.Raw])
_units = msgspec.json.Decoder(list[msgspec.Raw])


class Answer(NamedTuple):
    """What goes out."""

    status: int
    body: bytes
    remaining: str | None
    """The header ``remaining-req``; the gateway's 404 has none."""


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


NO_ROUTE = Answer(
    404,
    msgspec.json.encode(
        {"error": {"name": "not_found", "message": "no Route matched with those values"}}
    ),
    None,
)


class ReplayRest:
    """Answers questions out of what is known by the replay's present."""

    def __init__(self, known: KnownAnswers) -> None:
        self._known = known

    def answer(self, path: str, parameters: Iterable[tuple[str, str]], now_ms: int) -> Answer:
        """The answer to a GET.

        Args:
            path: Below the REST address, ``/ticker``.
            parameters: The query, decoded.
            now_ms: The replay's present.
        """
        given = list(parameters)
        unit = _MINUTES.fullmatch(path)
        group = "candles" if unit else _GROUPS.get(path.removeprefix("/"))
        if group is None:
            return NO_ROUTE
        remaining = f"group={group}; min=600; sec=9"
        recorded = self._known.answer(path, given)
        if recorded is not None:
            # The gateway's 404 came without one, and goes out without one.
            spare = remaining if recorded.status == 200 else None
            header = _header(recorded, "remaining-req") or spare
            return Answer(recorded.status, recorded.body, header)
        query = dict(reversed(given))  # of a name given twice the first counts
        try:
            if unit and (not unit[1].isdecimal() or int(unit[1]) not in MINUTE_UNITS):
                raise _Refusal(400, "specified unit is not valid.")
            rows = self._rows(path, group, query, now_ms)
        except _Refusal as refusal:
            error = {"error": {"name": refusal.status, "message": refusal.message}}
            return Answer(refusal.status, msgspec.json.encode(error), remaining)
        return Answer(200, rows if isinstance(rows, bytes) else _array(rows), remaining)

    def _rows(self, path: str, group: str, query: Query, now_ms: int) -> list[bytes] | bytes:
        match path:
            case "/market/all":
                return self._market_list(query)
            case "/trades/ticks":
                return self._trades(query, now_ms)
            case "/ticker/all":
                return self._tickers_of_quotes(query)
            case "/orderbook":
                return self._orderbooks(query)
            case _ if group == "candles":
                return self._candles(path, query)
        return self._listed(path, query)

    def _market_list(self, query: Query) -> bytes:
        details = _text(query, "is_details", "isDetails").lower() == "true"
        answer = self._known.market_list(details=details)
        if answer is None:
            raise _code_not_found()
        return answer.body

    def _candles(self, path: str, query: Query) -> list[bytes]:
        market = _required(query, "market").upper()
        count = _count(query, default=1, most=MOST_CANDLES)
        before = _start_bound(_text(query, "to"))
        series = self._known.candles(path, market)
        if series is None:
            raise _code_not_found()
        return series.page(before, count)

    def _trades(self, query: Query, now_ms: int) -> list[bytes]:
        market = _required(query, "market").upper()
        count = _count(query, default=1, most=MOST_TRADES)
        days_ago = _number(query, "days_ago", "daysAgo") or 0
        if not 0 <= days_ago <= MOST_DAYS_AGO:
            raise _invalid()
        cursor = _number(query, "cursor")
        day_ms = (now_ms // DAY_MS - days_ago) * DAY_MS
        before_ms = day_ms + _time_of_day_ms(_text(query, "to"))
        trades = self._known.trades(market)
        if trades is None:
            raise _code_not_found()
        return trades.page(day_ms, before_ms, cursor, count)

    def _tickers_of_quotes(self, query: Query) -> list[bytes]:
        quotes = set(_required(query, "quote_currencies").upper().split(","))
        tickers = self._known.by_market("/ticker")
        if not quotes <= {market.partition("-")[0] for market in tickers}:
            raise _code_not_found()
        return [row for market, row in tickers.items() if market.partition("-")[0] in quotes]

    def _orderbooks(self, query: Query) -> list[bytes]:
        count = _count(query, default=MOST_LEVELS, most=MOST_LEVELS)
        level = _text(query, "level")
        books = self._listed("/orderbook", query)
        try:
            if float(level or 0) != 0:
                return []  # as the exchange answers a grouping that it does not have
        except ValueError:
            raise _invalid() from None
        return books if count == MOST_LEVELS else [_cut_book(book, count) for book in books]

    def _listed(self, path: str, query: Query) -> list[bytes]:
        """One row a market of a comma list; one that was not recorded fails the whole call."""
        codes = _required(query, "markets").upper().split(",")
        rows = self._known.by_market(path)
        if not set(codes) <= rows.keys():
            raise _code_not_found()
        return [rows[code] for code in codes]


def _array(rows: list[bytes]) -> bytes:
    return b"[" + b",".join(rows) + b"]"


def _header(answer: RestAnswer, name: str) -> str | None:
    return next((text for key, text in answer.headers if key.lower() == name), None)


def _cut_book(row: bytes, count: int) -> bytes:
    """A book of fewer rows; every other byte of a value stays as it was recorded."""
    book = _book.decode(row)
    units = _units.decode(book["orderbook_units"])[:count]
    book["orderbook_units"] = msgspec.Raw(_array([bytes(unit) for unit in units]))
    return msgspec.json.encode(book)


def _text(query: Query, *names: str) -> str:
    """The first of a parameter's names that was given; empty counts as not given."""
    return next((text for name in names if (text := query.get(name, ""))), "")


def _required(query: Query, name: str) -> str:
    text = _text(query, name)
    if not text:
        raise _Refusal(400, "Missing request parameter error. Check the required parameters!")
    return text


def _number(query: Query, *names: str) -> int | None:
    text = _text(query, *names)
    if not text:
        return None
    if not _WHOLE_NUMBER.fullmatch(text):
        raise _Refusal(400, "Type mismatch error. Check the parameters type!")
    return int(text)


def _count(query: Query, *, default: int, most: int) -> int:
    count = _number(query, "count")
    if count is None:
        return default
    if count < 1:
        raise _invalid()
    return min(count, most)


def _start_bound(text: str) -> str | None:
    """`to` as the text of the first whole second that is not before it; empty: no bound."""
    if not text:
        return None
    if not _TO_FORMS.fullmatch(text):
        raise _invalid()
    try:
        moment = datetime.fromisoformat(text)
        ms = epoch_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        # A candle starts on a whole second, so it lies before `to` if it lies before this.
        return f"{utc_datetime(-(-ms // SECOND_MS) * SECOND_MS):%Y-%m-%dT%H:%M:%S}"
    except (ValueError, OverflowError):
        raise _invalid() from None


def _time_of_day_ms(text: str) -> int:
    """`to` of trades, ``HHmmss`` or ``HH:mm:ss``; empty: the day's end."""
    if not text:
        return DAY_MS
    match = _TIME_OF_DAY.fullmatch(text)
    if match is None:
        raise _invalid()
    hours, minutes, seconds = map(int, match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * SECOND_MS


def _invalid() -> _Refusal:
    return _Refusal(400, "Invalid parameter. Check the given value!")


def _code_not_found() -> _Refusal:
    return _Refusal(404, "Code not found")
