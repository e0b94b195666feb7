"""What layers say to each other, and what they say of themselves.

A layer is a `DataSource` that was given its lower neighbour in the constructor. Nothing
else crosses the border between two layers than the types of this module and of `models`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any, Literal, Protocol, Self
from uuid import UUID, uuid4

import msgspec

from upbit_backbone.clock import epoch_ms
from upbit_backbone.errors import BackboneError
from upbit_backbone.models import CandleSeries, Market, Source, Span, Timeframe

SECONDS_KEPT_DAYS = 93
"""Candles of a second are kept for about three months
(https://docs.upbit.com/kr/reference/list-candles-seconds)."""
MAX_PAGE_CANDLES = 200
"""The exchange cuts a longer candle page silently, with HTTP 200."""
MAX_PAGE_TRADES = 500
MAX_DEPTH = 30
"""Rows a side of a full order book since 2025-05-07."""

MARKETS_TTL_S = 600.0
"""The exchange announces listings nowhere else; its own advice is to look from time to time."""

Policy = Literal["latest", "all"]
Health = Literal["starting", "healthy", "degraded", "down"]
Tier = Literal["memory", "storage", "exchange"]
"""Where an answer was found; the farthest place, if parts came from several."""
Severity = Literal["info", "warning", "error"]
EventKind = Literal["gap", "ban", "reconnect", "health", "load", "revision", "alert"]
LoadBand = Literal["open", "low waits", "critical only"]
LOW_WAITS_ABOVE = 70.0
"""Above this load LOW waits."""
ONLY_CRITICAL_ABOVE = 90.0
"""Above this load all but CRITICAL wait."""
SubscriptionState = Literal["pending", "confirmed", "stale", "closed"]
ProgressState = Literal[
    "running", "waiting for load", "waiting", "rate-limited", "paused", "done", "ended"
]
"""``"waiting"``: the layer that loads has failed and is begun anew."""


class Priority(IntEnum):
    """Who goes first. A smaller value is more urgent."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3

    @property
    def deadline_s(self) -> float | None:
        """How long a call waits for its answer by default; None: as long as it takes."""
        return (2.0, 5.0, 10.0, None)[self]

    @property
    def max_age_s(self) -> float:
        """How old a value may be by default."""
        return (2.0, 5.0, 10.0, 60.0)[self]


class DataType(Enum):
    """The four kinds of market data."""

    CANDLE = "candle"
    TICKER = "ticker"
    ORDERBOOK = "orderbook"
    TRADE = "trade"


class Reach(Enum):
    """How far down a request may go."""

    STORED = "stored"
    """Answer from what is stored and proved; never cause a request."""
    ANYWHERE = "anywhere"


class BackboneRequest(msgspec.Struct, frozen=True):
    """One question, on its way down.

    `start_time` (inclusive) and `end_time` (exclusive) are aware. `deadline` is a moment of
    the monotonic clock, in seconds. A page holds at most 200 candles or 500 trades.
    """

    data_type: DataType
    symbols: tuple[str, ...]
    timeframe: Timeframe | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    count: int | None = None
    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    max_age: float | None = None
    reach: Reach = Reach.ANYWHERE
    request_id: UUID = msgspec.field(default_factory=uuid4)
    depth: int = 30
    level: float = 0
    cursor: int | None = None
    days_ago: int | None = None
    policy: Policy = "latest"
    proofs: bool = False
    """Streams of candles: tell, by a `Whole`, also which periods were seen whole."""

    @property
    def start_ms(self) -> int | None:
        return None if self.start_time is None else epoch_ms(self.start_time)

    @property
    def end_ms(self) -> int | None:
        return None if self.end_time is None else epoch_ms(self.end_time)


DataRequest = BackboneRequest


class Whole(msgspec.Struct, frozen=True):
    """Candles of a stream: all that open in ``start <= open time < end`` were told, and closed.

    Every trade of that time was seen, so a period that had no candle had no trade. Where the
    stream begins to be whole, `start` and `end` may be equal.
    """

    symbol: str
    timeframe: Timeframe
    start: datetime
    end: datetime


class BackboneMetadata(msgspec.Struct, frozen=True):
    """How an answer came about."""

    source_layer: str
    """``"layer_1"`` (exchange or realtime cache) … ``"layer_4"``: the one that had the data."""
    cache_hit: bool
    processing_time_ms: float
    data_count: int
    priority_used: Priority
    split_info: str | None = None
    """How a large request was split, e.g. ``"5 pages in 1 round"``; None when it was not."""
    source: Source | None = None
    """The farthest place that had a part of it: memory (``"cache"``), the file (``"storage"``)
    or the exchange (``"rest"``); a `CandleSeries` says the same of itself."""
    age_s: float | None = None
    """Seconds since the value was last known to be current: its newest part may have changed
    since. 0.0 for candles that are all proved: they do not change any more."""
    path: str = ""
    """The layers that were asked, e.g. ``"direct: api → coordinator → storage → router"``;
    ``"peek"`` when memory answered before any was."""
    missing: tuple[Span, ...] = ()
    reason: str = ""
    silent: tuple[Span, ...] = ()
    """Stretches of candles that are known to have none, with their state: `empty`,
    `before_listing` or `after_delisting`. They are answers, never `missing`."""
    pages: int = 0
    """How many pages of candles or trades the exchange was asked for."""


class BackboneResponse(msgspec.Struct, frozen=True):
    """The answer to one `BackboneRequest`; `success` is False exactly when something is missing."""

    success: bool
    data: Any
    metadata: BackboneMetadata
    error: BackboneError | None
    request_id: UUID


class Subscription(Protocol):
    """A stream of values for one reader.

    With ``policy="latest"`` a slow reader gets the newest value only; with
    ``policy="all"`` it gets every one, or `SlowConsumerError`. Iterating ends when the
    subscription is closed. ``async with`` closes it.
    """

    @property
    def state(self) -> SubscriptionState: ...
    @property
    def reason(self) -> str: ...
    @property
    def complete_to_ms(self) -> int | None:
        """Up to when it has told everything, exchange time; None: that is not known.

        While it is confirmed this is a second ago at most, but for a connection that is dead
        unnoticed, and while what was lost is being read back.
        """
        ...

    def set_priority(self, priority: Priority) -> None:
        """Who waits for it is more, or less, urgent from now on."""
        ...

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Any: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    def close(self) -> None: ...


class MarketList(msgspec.Struct, frozen=True):
    """What the exchange lists, and how well that is known."""

    markets: tuple[Market, ...]
    asked_s: float = float("-inf")
    """When the exchange was asked for it, by the monotonic clock; of a stored one nobody knows."""
    error: BackboneError | None = None
    """Why the exchange's own list could not be had."""

    @property
    def is_stored(self) -> bool:
        """Whether it is one of some time ago: it proves of no market that it is not listed."""
        return self.asked_s == float("-inf")


class DataSource(Protocol):
    """One layer, as its upper neighbour sees it."""

    def peek(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        start_ms: int | None,
        end_ms: int | None,
        count: int | None,
        max_age_s: float,
        now: float,
    ) -> Any | None:
        """Answer from memory, or not at all; creates no task, future or lock.

        `now` is the monotonic clock's. None means: ask `fetch`.
        """
        ...

    def peek_age_s(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        end_ms: int | None,
        now: float,
    ) -> float | None:
        """Seconds since what `peek` gives was last known to be current; None: nothing is held."""
        ...

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """Answer a request.

        Raises:
            BackboneError: nothing of the answer could be had.
        """
        ...

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Open a stream of the request's data type and symbols; returns at once, `pending`."""
        ...

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        """What the exchange lists; stored knowledge of it while the exchange is not reached.

        Args:
            max_age_s: An older list is asked for again, if the exchange is reached.
        """
        ...


class Progress(msgspec.Struct, frozen=True):
    """How far a long load of candles has come."""

    symbol: str
    timeframe: Timeframe
    done: int
    """Periods of the range that are finished: loaded, stored before, or known to be empty."""
    total: int
    """Without what cannot be had: what lies before the first candle, or is kept no more."""
    candles: int
    """How many there were in them: periods in which nobody traded have none."""
    candles_per_s: float
    """That came from the exchange, over the last seconds."""
    time_left_s: float | None
    """At this speed; None while that is not known."""
    state: ProgressState
    reason: str = ""
    """Why it does not run, e.g. ``"load 78 %"``."""
    until: datetime | None = None
    """When a wait for the exchange's limit ends."""
    new: int = 0
    """How many of the candles came from the exchange; the others were stored before."""


class CandleChunks(Protocol):
    """A range of candles, given piece by piece while the rest loads.

    Iterating gives a `CandleSeries` for each finished stretch, in order and without overlap.
    """

    @property
    def progress(self) -> Progress: ...
    @property
    def missing(self) -> tuple[Span, ...]:
        """What of the stretches given so far nothing is known of, ascending."""
        ...

    @property
    def unfinished(self) -> tuple[datetime, datetime]:
        """The part of the range whose `missing` is not known yet: where to begin anew.

        What was given of it is given again then.
        """
        ...

    def pause(self) -> None:
        """Begin no further page until `resume`."""
        ...

    def resume(self) -> None: ...
    def cancel(self) -> None:
        """End at once; what was loaded stays stored. May be called twice."""
        ...

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> CandleSeries: ...


class ChunkSource(DataSource, Protocol):
    """A `DataSource` that gives long ranges of candles in pieces."""

    def chunks(
        self,
        request: BackboneRequest,
        *,
        newest_first: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> CandleChunks:
        """Begin with the first `anext`; the request has a start, and no count."""
        ...


class LayerStatus(msgspec.Struct, frozen=True):
    """How one layer is doing."""

    name: str
    health: Health
    reason: str
    since: datetime
    counters: dict[str, float] = {}


class SystemHealth(msgspec.Struct, frozen=True):
    """How the whole is doing: the worst of its layers."""

    health: Health
    layers: dict[str, LayerStatus]
    """Keys ``"layer_1"`` (routing) … ``"layer_4"`` (API)."""


class SystemStatus(msgspec.Struct, frozen=True):
    """Where the data comes from, and whether it flows."""

    health: SystemHealth
    identity: str
    """Name of the data's origin and of its folder, e.g. ``"upbit"`` or ``"simulator-1"``."""
    simulated: bool
    connection: str
    """``"live"``, ``"connecting"``, ``"polling"`` (the stream is away, and prices come by a
    request a second) or ``"offline"``."""
    reason: str
    load: float
    """0 to 100; discomfort, not activity."""
    exchange_offset_ms: int


class LatencyStats(msgspec.Struct, frozen=True):
    """Latency of calls, milliseconds; over the last five minutes unless told.

    Of those that were answered, or that ended because their time was over: these count with the
    whole time that they were given.
    """

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class CallStats(msgspec.Struct, frozen=True):
    """Calls of one kind in one window."""

    priority: Priority
    data_type: DataType
    path: str
    """Which way they went, as in `BackboneMetadata.path`; ``"peek"``: memory answered."""
    latency: LatencyStats
    """Of the answered ones, and of those whose time was over before, which count with all of it.
    `count` is how many they were, estimated while calls are sampled."""
    requests_per_s: float
    error_rate: float
    """Calls that raised, of all; a fraction."""
    requests: int = 0
    """How many were answered or raised."""


class WindowStats(msgspec.Struct, frozen=True):
    """What happened in the last seconds, minutes or hour."""

    window_s: float
    covered_s: float
    """How much of it there was: the service may have started later."""
    requests_per_s: float
    error_rate: float
    """Calls that raised, of all; a fraction."""
    errors: dict[str, int]
    """Calls that raised, by the name of the error."""
    answers: dict[Tier, int]
    """Answered calls, by where the answer was found."""
    hit_rate: float
    """Answers from memory and the store, of all answers; 0.0 when there were none."""
    counts: dict[str, float]
    """``"coalesced"``, ``"retried"``, ``"shed"``, ``"http_429"``, ``"http_418"``,
    ``"reconnects"``, ``"gaps"``, ``"revisions"``: how often in this window; ``"cancelled"``: calls
    that their caller gave up."""
    measured: float
    """Fraction of the answered calls whose latency was taken. Below 1.0 there were so many
    that quick ones were sampled; slow ones and errors never are."""
    calls: tuple[CallStats, ...]
    latency: dict[Priority, LatencyStats] = {}
    """Of all calls of a priority together."""


class LoadTerm(msgspec.Struct, frozen=True):
    """One reason for discomfort."""

    name: str
    """``"event loop"``, ``"CRITICAL waits"``, …, ``"memory"`` or ``"processor"``."""
    load: float
    """0 to 100."""
    sentence: str


class Alert(msgspec.Struct, frozen=True):
    """Something that a person should know of, as long as it lasts."""

    name: str
    since: datetime
    sentence: str


class SystemEvent(msgspec.Struct, frozen=True):
    """Something that happened, for the event log."""

    number: int
    """Counts from 1; a reader that sees one left out was too slow for the log."""
    time: datetime
    layer: str
    """``"layer_1"`` … ``"layer_4"``."""
    severity: Severity
    kind: EventKind
    sentence: str


class SelfAudit(msgspec.Struct, frozen=True):
    """What the store found when it last read a random sample of its candles again.

    Once a day some pages of proved candles are read from the exchange a further time. What
    differed in two readings was replaced.
    """

    began: datetime
    pages: int = 0
    """How many were read."""
    agreeing: int = 0
    restated: int = 0
    """Stored with other numbers."""
    vanished: int = 0
    """Stored, and the exchange does not have them."""
    appeared: int = 0
    """Not stored, though the period was known to be empty."""

    @property
    def compared(self) -> int:
        return self.agreeing + self.restated + self.vanished + self.appeared

    @property
    def correctness(self) -> float | None:
        """Which share of the sample was as the exchange has it; None: nothing was compared."""
        return self.agreeing / self.compared if self.compared else None


class PerformanceMetrics(msgspec.Struct, frozen=True):
    """Figures of the running service."""

    latency: dict[Priority, LatencyStats]
    requests: int
    errors: int
    cache_hits: int
    cache_hit_rate: float
    """Of all answered calls, a fraction; 0.0 when there were none."""
    exchange_requests: int
    loop_lag_p95_ms: float
    load: float
    counters: dict[str, float]
    windows: dict[str, WindowStats] = {}
    """Keys ``"10s"``, ``"5m"`` and ``"1h"``."""
    totals: dict[str, float] = {}
    """The `counts` of a window, and ``"errors.<name>"`` and ``"answers.<tier>"``, since the
    start."""
    load_band: LoadBand = "open"
    load_terms: tuple[LoadTerm, ...] = ()
    """Why the load is what it is; the highest is the load."""
    low_pages_per_s: float | None = None
    """How fast LOW may go: 0.0 while it waits for the load, then faster each second; None: at any
    rate."""
    low_got_pages_per_s: float = 0.0
    """How many pages a second LOW really got, over the last three seconds."""
    alerts: tuple[Alert, ...] = ()
    """What lasts now."""
    frame_p95_ms: float | None = None
    """Time the screen took for a frame, over the last ten seconds; None: no screen tells."""
    self_audit: SelfAudit | None = None
    """What a random sample of the stored candles was worth; None: none was read yet."""
