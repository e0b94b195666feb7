"""What travels: the values that callers receive and layers hand to each other.

All are immutable. A moment is an aware `datetime` in UTC; inside a `CandleSeries` it is
an int64 of epoch milliseconds. Prices are in the quote asset, volumes in the base asset,
values in the quote asset; all are float64, exact for what the exchange sends up to 15
significant digits (sums of value may have more and are rounded).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec
import numpy as np
import numpy.typing as npt

from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, epoch_ms, utc_datetime
from upbit_backbone.errors import InvalidRequestError, shown

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

Source = Literal["websocket", "rest", "cache", "storage"]
Side = Literal["BUY", "SELL"]
Change = Literal["RISE", "EVEN", "FALL"]
CandleState = Literal["forming", "closed", "revised", "settled"]
GapState = Literal["open", "closed", "unfillable"]
SpanState = Literal["complete", "empty", "unknown", "before_listing", "after_delisting"]

CLOSE_GRACE_MS = 1_000
"""A candle closes this long after its end by the exchange's clock: last trades come late."""
_WEEK_MS = 7 * DAY_MS
# 1970-01-05 was the first Monday of the epoch; weeks start on Monday, 00:00 UTC.
_FIRST_MONDAY_MS = 4 * DAY_MS


class Timeframe(Enum):
    """The period of a candle, named as users type it; each begins on a UTC boundary.

    ``"1m"`` is a minute and ``"1M"`` a month. Weeks begin on Monday; days, weeks, months
    and years begin at 00:00 UTC, which is 09:00 in Korea.
    """

    S1 = "1s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M10 = "10m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"
    MO1 = "1M"
    Y1 = "1y"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str | Timeframe) -> Timeframe:
        """Read what users type: ``"1m"``, ``"60m"``, ``"1D"``; a `Timeframe` is returned as it is.

        Raises:
            InvalidRequestError: not a timeframe; the message lists them all.
        """
        if isinstance(text, cls):
            return text
        found = _TIMEFRAME_NAMES.get(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidRequestError(
                f"unknown timeframe {shown(text)}: expected one of"
                f" {', '.join(t.value for t in cls)}"
            )
        return found

    @property
    def fixed_ms(self) -> int | None:
        """The length in milliseconds; None for months and years, whose length varies."""
        return _FIXED_MS.get(self)

    @property
    def typical_ms(self) -> int:
        """A length for estimates: exact up to a week, 30 days a month, 365 a year."""
        return _FIXED_MS.get(self) or (30 * DAY_MS if self is Timeframe.MO1 else 365 * DAY_MS)

    def floor_ms(self, at_ms: int) -> int:
        """The open time of the candle that contains `at_ms`."""
        fixed = _FIXED_MS.get(self)
        if fixed is None:
            moment = utc_datetime(at_ms)
            month = moment.month if self is Timeframe.MO1 else 1
            return epoch_ms(datetime(moment.year, month, 1, tzinfo=UTC))
        origin = _FIRST_MONDAY_MS if self is Timeframe.W1 else 0
        return at_ms - (at_ms - origin) % fixed

    def next_ms(self, open_ms: int) -> int:
        """The end (exclusive) of the candle that opens at `open_ms`."""
        fixed = _FIXED_MS.get(self)
        if fixed is not None:
            return open_ms + fixed
        # 32 days after the first of a month lie in the next one, 366 after 1 January in the
        # next year; both are then floored to their first day.
        return self.floor_ms(open_ms + (32 if self is Timeframe.MO1 else 366) * DAY_MS)

    def ceil_ms(self, at_ms: int) -> int:
        """The first open time at or after `at_ms`."""
        floor = self.floor_ms(at_ms)
        return floor if floor == at_ms else self.next_ms(floor)

    def back_ms(self, open_ms: int, count: int) -> int:
        """The open time `count` candles before `open_ms` (an open time); after it if negative."""
        fixed = _FIXED_MS.get(self)
        if fixed is not None:
            return open_ms - count * fixed
        moment = utc_datetime(open_ms)
        months = moment.year * 12 + moment.month - 1 - count * (12 if self is Timeframe.Y1 else 1)
        return epoch_ms(datetime(max(1, months // 12), months % 12 + 1, 1, tzinfo=UTC))


_FIXED_MS = {
    Timeframe.S1: SECOND_MS,
    Timeframe.M1: MINUTE_MS,
    Timeframe.M3: 3 * MINUTE_MS,
    Timeframe.M5: 5 * MINUTE_MS,
    Timeframe.M10: 10 * MINUTE_MS,
    Timeframe.M15: 15 * MINUTE_MS,
    Timeframe.M30: 30 * MINUTE_MS,
    Timeframe.H1: HOUR_MS,
    Timeframe.H4: 4 * HOUR_MS,
    Timeframe.D1: DAY_MS,
    Timeframe.W1: _WEEK_MS,
}
_TIMEFRAME_NAMES = {t.value: t for t in Timeframe} | {
    "60m": Timeframe.H1,
    "240m": Timeframe.H4,
    "1H": Timeframe.H1,
    "4H": Timeframe.H4,
    "1D": Timeframe.D1,
    "24h": Timeframe.D1,
    "1W": Timeframe.W1,
    "7d": Timeframe.W1,
    "1mo": Timeframe.MO1,
    "1Y": Timeframe.Y1,
}


# What the collector would only walk through: these hold nothing that could lead back to them, and
# thousands come in a second (`gc=False`).


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One OHLCV candle of one symbol."""

    symbol: str
    timeframe: Timeframe
    open_time: datetime
    """Start of the period, aware, UTC; the end is exclusive."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    value: float
    closed: bool
    filled: bool = False
    """True for a flat candle that stands for a known-empty period, only when asked for."""
    state: CandleState = "closed"


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """The latest summary of a market. Daily figures begin at 00:00 UTC (09:00 KST)."""

    symbol: str
    price: float
    open: float
    high: float
    low: float
    prev_close: float
    change: Change
    change_price: float
    """Signed, against `prev_close`."""
    change_rate: float
    """Signed, a fraction: 0.015 is 1.5 %."""
    trade_volume: float
    trade_time: datetime
    volume_today: float
    value_today: float
    volume_24h: float
    value_24h: float
    high_52w: float
    high_52w_date: date | None
    low_52w: float
    low_52w_date: date | None
    side: Side | None
    """Taker of the last trade; None by REST, like `state` and `delisting_date`."""
    state: str | None
    delisting_date: date | None
    exchange_time: datetime
    received_time: datetime
    source: Source
    simulated: bool


class Level(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One price row of an order book."""

    price: float
    size: float


class Orderbook(msgspec.Struct, frozen=True, gc=False):
    """A whole order book, best price first on both sides, padding removed."""

    symbol: str
    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    total_ask_size: float
    total_bid_size: float
    level: float
    """The price grouping in force; 0 is none."""
    exchange_time: datetime
    received_time: datetime
    source: Source
    simulated: bool

    def trimmed(self, depth: int) -> Orderbook:
        """The first `depth` rows of each side; the totals stay those of the whole book."""
        if len(self.asks) <= depth and len(self.bids) <= depth:
            return self
        return msgspec.structs.replace(self, asks=self.asks[:depth], bids=self.bids[:depth])


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One execution, named by (symbol, sequential_id)."""

    symbol: str
    price: float
    volume: float
    side: Side
    """The taker's: BUY lifted the ask, SELL hit the bid."""
    sequential_id: int
    """Unique within the symbol; its order is not guaranteed."""
    late: bool
    exchange_time: datetime
    received_time: datetime
    source: Source
    simulated: bool


class Market(msgspec.Struct, frozen=True):
    """What the exchange lists under a symbol."""

    symbol: str
    korean_name: str
    english_name: str
    warning: bool = False
    caution: frozenset[str] = frozenset()


class Gap(msgspec.Struct, frozen=True):
    """An interval of a trade stream for which nothing was received."""

    symbol: str
    state: GapState
    start: datetime
    end: datetime
    reason: str


class Span(msgspec.Struct, frozen=True):
    """A half-open range of open times; None on a side means open on that side."""

    start: datetime | None
    end: datetime | None
    state: SpanState
    reason: str = ""


class CandleSeries(Sequence[Candle]):
    """An immutable columnar run of candles: ascending by open time, no duplicates.

    The columns are read-only numpy arrays of one length: `time` (int64 epoch
    milliseconds), `open`, `high`, `low`, `close`, `volume`, `value` (float64), `closed`,
    `filled` (bool). ``series[i]`` is a `Candle`, ``series[a:b]`` a view that copies
    nothing; no cost per row arises until a row is asked for.
    """

    __slots__ = (
        "close",
        "closed",
        "filled",
        "high",
        "low",
        "open",
        "simulated",
        "source",
        "symbol",
        "time",
        "timeframe",
        "value",
        "volume",
    )

    symbol: str
    timeframe: Timeframe
    source: Source
    simulated: bool
    time: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    closed: npt.NDArray[np.bool_]
    filled: npt.NDArray[np.bool_]

    COLUMNS = ("time", "open", "high", "low", "close", "volume", "value", "closed", "filled")

    def __init__(
        self,
        symbol: str,
        timeframe: Timeframe,
        columns: Sequence[npt.NDArray[Any]],
        *,
        source: Source,
        simulated: bool,
    ) -> None:
        """Take over `columns`, in the order of `COLUMNS`; they become read-only."""
        put = object.__setattr__
        put(self, "symbol", symbol)
        put(self, "timeframe", timeframe)
        put(self, "source", source)
        put(self, "simulated", simulated)
        for name, column in zip(self.COLUMNS, columns, strict=True):
            column.setflags(write=False)
            put(self, name, column)

    @classmethod
    def from_rows(
        cls,
        symbol: str,
        timeframe: Timeframe,
        rows: Sequence[Sequence[float]],
        *,
        closed_before_ms: int | None,
        source: Source,
        simulated: bool,
    ) -> CandleSeries:
        """Make a series of rows ``(open_time_ms, open, high, low, close, volume, value)``.

        Args:
            symbol: Market code.
            timeframe: Of all rows.
            rows: Ascending by open time, no duplicates.
            closed_before_ms: Candles whose end is at or before it are closed; None: all are.
            source: Where the rows came from.
            simulated: Whether a simulator made them.
        """
        # Epoch milliseconds are below 2^53, so one float64 table holds every column exactly.
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 7).T
        time = table[0].astype(np.int64)
        closed = np.ones(len(rows), dtype=bool)
        if closed_before_ms is not None:
            for index in range(len(rows) - 1, -1, -1):
                if timeframe.next_ms(int(time[index])) <= closed_before_ms:
                    break
                closed[index] = False
        columns = [time, *np.ascontiguousarray(table[1:]), closed, np.zeros(len(rows), dtype=bool)]
        return cls(symbol, timeframe, columns, source=source, simulated=simulated)

    @classmethod
    def empty(
        cls, symbol: str, timeframe: Timeframe, *, source: Source, simulated: bool
    ) -> CandleSeries:
        """A series without candles."""
        return cls.from_rows(
            symbol, timeframe, [], closed_before_ms=None, source=source, simulated=simulated
        )

    @classmethod
    def merged(cls, parts: Sequence[CandleSeries]) -> CandleSeries:
        """Merge series of one symbol and timeframe, given in any order of time.

        Where several hold the same open time, the later in `parts` wins.
        """
        parts = [part for part in parts if len(part)] or list(parts[:1])
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        time = np.concatenate([part.time for part in parts])
        if bool(np.all(np.diff(time) > 0)):
            pick: Any = slice(None)
        else:
            order = np.argsort(time, kind="stable")
            last_of_equals = np.append(np.diff(time[order]) > 0, True)
            pick = order[last_of_equals]
        columns = [
            np.concatenate([getattr(part, name) for part in parts])[pick] for name in cls.COLUMNS
        ]
        return cls(
            first.symbol,
            first.timeframe,
            columns,
            source=parts[-1].source,
            simulated=first.simulated,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a CandleSeries is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a CandleSeries is immutable: cannot delete {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        columns = tuple(np.array(getattr(self, name)) for name in self.COLUMNS)
        return _restore_series, (self.symbol, self.timeframe, columns, self.source, self.simulated)

    def __len__(self) -> int:
        return len(self.time)

    @overload
    def __getitem__(self, index: int) -> Candle: ...
    @overload
    def __getitem__(self, index: slice) -> CandleSeries: ...
    def __getitem__(self, index: int | slice) -> Candle | CandleSeries:
        if isinstance(index, slice):
            if index.step not in (None, 1):
                raise ValueError(f"a series is cut in steps of 1, was {index.step}")
            columns = [getattr(self, name)[index] for name in self.COLUMNS]
            return CandleSeries(
                self.symbol, self.timeframe, columns, source=self.source, simulated=self.simulated
            )
        closed = bool(self.closed[index])
        return Candle(
            self.symbol,
            self.timeframe,
            utc_datetime(int(self.time[index])),
            float(self.open[index]),
            float(self.high[index]),
            float(self.low[index]),
            float(self.close[index]),
            float(self.volume[index]),
            float(self.value[index]),
            closed,
            bool(self.filled[index]),
            "closed" if closed else "forming",
        )

    def __iter__(self) -> Iterator[Candle]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CandleSeries):
            return NotImplemented
        return (self.symbol, self.timeframe) == (other.symbol, other.timeframe) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.COLUMNS
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = "%Y-%m-%dT%H:%M:%SZ" if self.timeframe is Timeframe.S1 else "%Y-%m-%dT%H:%MZ"
        span = f" {self[0].open_time:{shown}} … {self[-1].open_time:{shown}}" if len(self) else ""
        return (
            f"<CandleSeries {self.symbol} {self.timeframe} {len(self)} candles{span}"
            f" from {self.source}{' SIMULATED' if self.simulated else ''}>"
        )

    def between(self, start_ms: int | None, end_ms: int | None) -> CandleSeries:
        """The view of candles with ``start_ms <= open time < end_ms``."""
        low = 0 if start_ms is None else int(np.searchsorted(self.time, start_ms))
        high = len(self) if end_ms is None else int(np.searchsorted(self.time, end_ms))
        return self if (low, high) == (0, len(self)) else self[low:high]

    def labelled(self, source: Source) -> CandleSeries:
        """The same candles under another source; copies nothing."""
        if source == self.source:
            return self
        columns = [getattr(self, name) for name in self.COLUMNS]
        return CandleSeries(
            self.symbol, self.timeframe, columns, source=source, simulated=self.simulated
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict a candle, keys as the fields of `Candle`."""
        return [msgspec.structs.asdict(candle) for candle in self]

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame indexed by aware UTC open time; needs pandas, which is not installed with us.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        frame = pd.DataFrame(
            {name: getattr(self, name) for name in self.COLUMNS[1:]},
            index=pd.to_datetime(self.time, unit="ms", utc=True),
        )
        frame.index.name = "open_time"
        return frame


def _restore_series(
    symbol: str, timeframe: Timeframe, columns: Iterable[Any], source: Source, simulated: bool
) -> CandleSeries:
    return CandleSeries(symbol, timeframe, tuple(columns), source=source, simulated=simulated)


KST_OFFSET = timedelta(hours=9)
"""Korea's offset from UTC; used in labels only."""
