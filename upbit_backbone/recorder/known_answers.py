"""What the recorded answers tell by now: whole bodies, and the rows in them.

A row is kept as its recorded bytes. Rows of pages that overlap are one row, the one read
last. Bounded: `MOST_TRADES` a market, `MOST_CANDLES` a series, one body a question.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl

import msgspec

from upbit_backbone.recorder.records import RestAnswer

MOST_TRADES = 20_000
"""Kept of a market; older ones are answered no more (5 MB)."""
MOST_CANDLES = 20_000
"""Kept of a series: two weeks of minutes, or five hours of seconds."""

Parameters = Sequence[tuple[str, str]]
TradeKey = tuple[int, int]
"""Milliseconds and `sequential_id`."""


class _CandleRow(msgspec.Struct):
    market: str
    candle_date_time_utc: str


class _TradeRow(msgspec.Struct):
    market: str
    timestamp: int
    sequential_id: int = 0


class _MarketRow(msgspec.Struct):
    market: str


_rows = msgspec.json.Decoder(list[msgspec.Raw])
_candle = msgspec.json.Decoder(_CandleRow)
_trade = msgspec.json.Decoder(_TradeRow)
_market = msgspec.json.Decoder(_MarketRow)


class CandleRows:
    """Rows of one series; ascending by start."""

    def __init__(self) -> None:
        self._starts: list[str] = []
        self._rows: dict[str, bytes] = {}

    def put(self, start: str, row: bytes) -> None:
        if start not in self._rows:
            insort(self._starts, start)
        self._rows[start] = row
        if len(self._starts) > MOST_CANDLES:
            del self._rows[self._starts.pop(0)]

    def page(self, before: str | None, count: int) -> list[bytes]:
        """At most `count` rows with a start < `before`, newest first."""
        end = len(self._starts) if before is None else bisect_left(self._starts, before)
        starts = self._starts[max(0, end - count) : end]
        return [self._rows[start] for start in reversed(starts)]


class TradeRows:
    """Trades of one market; ascending by time, then id."""

    def __init__(self) -> None:
        self._keys: list[TradeKey] = []
        self._rows: dict[TradeKey, bytes] = {}

    def put(self, key: TradeKey, row: bytes) -> None:
        if key not in self._rows:
            insort(self._keys, key)
        self._rows[key] = row
        if len(self._keys) > MOST_TRADES:
            del self._rows[self._keys.pop(0)]

    def page(self, from_ms: int, before_ms: int, before_id: int | None, count: int) -> list[bytes]:
        """At most `count` trades of a time, older than the id, newest first."""
        low = bisect_left(self._keys, (from_ms, 0))
        high = bisect_left(self._keys, (before_ms, 0))
        keys = [key for key in self._keys[low:high] if before_id is None or key[1] < before_id]
        return [self._rows[key] for key in reversed(keys[-count:])] if count else []


class KnownAnswers:
    """All that the recorded answers up to some moment tell."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, Parameters], RestAnswer] = {}
        self._candles: dict[tuple[str, str], CandleRows] = {}
        self._trades: dict[str, TradeRows] = {}
        self._by_market: dict[str, dict[str, bytes]] = {}

    def learn(self, answer: RestAnswer) -> None:
        """Take an answer. What only says that it was too fast, or a fault, tells nothing."""
        if answer.status in (418, 429) or answer.status >= 500:
            return
        path, parameters = split_target(answer.target)
        before = self._answers.get((path, parameters))
        if before is not None and before.status == 200 != answer.status:
            return
        self._answers[path, parameters] = answer
        if answer.status == 200:
            # A body that is no list of rows is still an answer to the same question.
            try:
                self._learn_rows(path, map(bytes, _rows.decode(answer.body)))
            except (msgspec.DecodeError, UnicodeDecodeError):
                return

    def answer(self, path: str, parameters: Iterable[tuple[str, str]]) -> RestAnswer | None:
        """The last answer to this very question; the order of parameters aside."""
        return self._answers.get((path, tuple(sorted(parameters))))

    def market_list(self, *, details: bool) -> RestAnswer | None:
        """The last market list, with or without details."""
        for (path, parameters), answer in self._answers.items():
            if path == "/market/all" and answer.status == 200:
                flags = {value.lower() for name, value in parameters if "etails" in name}
                if ("true" in flags) == details:
                    return answer
        return None

    def candles(self, path: str, market: str) -> CandleRows | None:
        """The rows of a series; None if no page of it was recorded."""
        return self._candles.get((path, market))

    def trades(self, market: str) -> TradeRows | None:
        return self._trades.get(market)

    def by_market(self, path: str) -> dict[str, bytes]:
        """The last row of each market, of a path that gives one row a market."""
        return self._by_market.get(path, {})

    def _learn_rows(self, path: str, rows: Iterable[bytes]) -> None:
        if path.startswith("/candles/"):
            for row in rows:
                candle = _candle.decode(row)
                series = self._candles.setdefault((path, candle.market), CandleRows())
                series.put(candle.candle_date_time_utc, row)
        elif path == "/trades/ticks":
            for row in rows:
                trade = _trade.decode(row)
                self._trades.setdefault(trade.market, TradeRows()).put(
                    (trade.timestamp, trade.sequential_id), row
                )
        elif path != "/market/all":
            latest = self._by_market.setdefault(_one_row_path(path), {})
            for row in rows:
                latest[_market.decode(row).market] = row


def split_target(target: str) -> tuple[str, Parameters]:
    """Path and sorted parameters of a path with query."""
    path, _, query = target.partition("?")
    return path, tuple(sorted(parse_qsl(query, keep_blank_values=True)))


def _one_row_path(path: str) -> str:
    return "/ticker" if path == "/ticker/all" else path
