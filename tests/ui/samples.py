"""Values for tests of the screens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from upbit_backbone import (
    BackboneMetadata,
    Candle,
    CandleSeries,
    Gap,
    LatencyStats,
    LayerStatus,
    Level,
    Market,
    Orderbook,
    PerformanceMetrics,
    Priority,
    SystemHealth,
    SystemStatus,
    Ticker,
    Timeframe,
    Trade,
)
from upbit_backbone.clock import MINUTE_MS, epoch_ms, utc_datetime
from upbit_backbone.models import CandleState, Change, GapState, Side
from upbit_backbone.protocol import (
    Alert,
    CallStats,
    DataType,
    EventKind,
    Health,
    LoadBand,
    LoadTerm,
    SelfAudit,
    Severity,
    SystemEvent,
    WindowStats,
)

BTC = "KRW-BTC"
M1 = Timeframe.M1
# A Thursday, 21:00 in Korea.
NOON = datetime(2025, 10, 16, 12, tzinfo=UTC)
NOON_MS = epoch_ms(NOON)

MARKETS = (
    Market("KRW-BTC", "비트코인", "Bitcoin"),
    Market("KRW-ETH", "이더리움", "Ethereum"),
    Market("KRW-XRP", "리플", "Ripple"),
    Market("BTC-ETH", "이더리움", "Ethereum"),
)


def row(minute: int, price: float, *, to: float | None = None) -> tuple[float, ...]:
    """One candle, `minute` minutes after noon, from `price` to `to`."""
    close = price if to is None else to
    top, bottom = max(price, close), min(price, close)
    return (NOON_MS + minute * MINUTE_MS, price, top + 5, bottom - 5, close, 2.0, 2.0 * close)


def series(rows: Sequence[Sequence[float]], symbol: str = BTC) -> CandleSeries:
    return CandleSeries.from_rows(
        symbol, M1, rows, closed_before_ms=None, source="rest", simulated=True
    )


def minutes(first: int, count: int, price: float = 1_000.0) -> CandleSeries:
    """`count` rising candles without a break."""
    return series([row(first + n, price, to=price + 10) for n in range(count)])


def candle(minute: int, close: float, *, closed: bool = False) -> Candle:
    opened = utc_datetime(NOON_MS + minute * MINUTE_MS)
    state: CandleState = "closed" if closed else "forming"
    return Candle(BTC, M1, opened, 1_000.0, 2_000.0, 500.0, close, 1.0, close, closed, False, state)


def ticker(symbol: str, price: float, rate: float = 0.01, value: float = 1e9) -> Ticker:
    change: Change = "RISE" if rate > 0 else "FALL" if rate < 0 else "EVEN"
    before = price / (1 + rate)
    return Ticker(
        symbol=symbol,
        price=price,
        open=price,
        high=price,
        low=price,
        prev_close=before,
        change=change,
        change_price=price - before,
        change_rate=rate,
        trade_volume=1.0,
        trade_time=NOON,
        volume_today=1.0,
        value_today=value,
        volume_24h=1.0,
        value_24h=value,
        high_52w=price,
        high_52w_date=None,
        low_52w=price,
        low_52w_date=None,
        side="BUY",
        state="ACTIVE",
        delisting_date=None,
        exchange_time=NOON,
        received_time=NOON,
        source="websocket",
        simulated=True,
    )


def gap(state: GapState, start_s: int, end_s: int) -> Gap:
    """A break from so many seconds after noon on."""
    start, end = (utc_datetime(NOON_MS + after_s * 1_000) for after_s in (start_s, end_s))
    return Gap(BTC, state, start, end, "the connection was lost")


def orderbook(best_bid: float) -> Orderbook:
    asks, bids = (Level(best_bid + 1.0, 1.0),), (Level(best_bid, 1.0),)
    return Orderbook(BTC, asks, bids, 1.0, 1.0, 0.0, NOON, NOON, "websocket", True)


def trade(number: int, price: float = 1_000.0, *, after_s: float = 0.0) -> Trade:
    side: Side = "BUY" if number % 2 else "SELL"
    made = utc_datetime(NOON_MS + round(after_s * 1_000))
    return Trade(BTC, price, 0.5, side, number, False, made, NOON, "websocket", True)


def status(connection: str = "live", *, simulated: bool = True, reason: str = "") -> SystemStatus:
    health: Health = "healthy" if connection == "live" else "degraded"
    layers = {
        f"layer_{number}": LayerStatus(name, health, reason, NOON)
        for number, name in enumerate(("routing", "storage", "coordinator", "api"), start=1)
    }
    return SystemStatus(
        SystemHealth(health, layers), "simulator-1", simulated, connection, reason, 12.0, 3
    )


def metrics() -> PerformanceMetrics:
    return PerformanceMetrics(
        latency={Priority.NORMAL: LatencyStats(40, 1.5, 20.0, 80.0, 90.0)},
        requests=50,
        errors=1,
        cache_hits=30,
        cache_hit_rate=0.6,
        exchange_requests=20,
        loop_lag_p95_ms=2.5,
        load=75.0,
        counters={},
    )


def latency(count: int, p99_ms: float) -> LatencyStats:
    return LatencyStats(count, p99_ms / 4, p99_ms / 2, p99_ms, 1.2 * p99_ms)


def calls(
    priority: Priority, data_type: DataType, path: str, count: int, p99_ms: float
) -> CallStats:
    return CallStats(priority, data_type, path, latency(count, p99_ms), count / 300, 0.0)


def window(*kinds: CallStats, measured: float = 1.0) -> WindowStats:
    """Five minutes with a call of each place, two errors, and something of all that is counted."""
    return WindowStats(
        window_s=300.0,
        covered_s=300.0,
        requests_per_s=12.34,
        error_rate=0.004,
        errors={"TransportError": 12, "DeadlineError": 3},
        answers={"memory": 3_200, "storage": 410, "exchange": 92},
        hit_rate=0.975,
        counts={
            "coalesced": 41.0,
            "gaps": 2.0,
            "http_429": 0.0,
            "reconnects": 1.0,
            "cancelled": 4.0,
        },
        measured=measured,
        calls=kinds,
        latency={
            kind.priority: kind.latency
            for kind in sorted(kinds, key=lambda kind: kind.latency.p99_ms)
        },
    )


def figures(
    *,
    load: float = 12.0,
    band: LoadBand = "open",
    kinds: Sequence[CallStats] = (),
    alerts: Sequence[Alert] = (),
    counters: dict[str, float] | None = None,
    audit: SelfAudit | None = None,
    low_pages_per_s: float | None = None,
    low_got_pages_per_s: float = 0.0,
    measured: float = 1.0,
) -> PerformanceMetrics:
    """All that the service tells of itself."""
    shown = window(*kinds, measured=measured)
    return PerformanceMetrics(
        latency={},
        requests=3_717,
        errors=15,
        cache_hits=3_610,
        cache_hit_rate=0.975,
        exchange_requests=412,
        loop_lag_p95_ms=2.5,
        load=load,
        counters=counters or {},
        windows={"10s": shown, "5m": shown, "1h": shown},
        totals={"coalesced": 1_041.0, "gaps": 7.0, "reconnects": 3.0},
        load_band=band,
        load_terms=(
            LoadTerm("event loop", load, "the event loop is 17 ms late (p95)"),
            LoadTerm("memory", load / 2, "memory: 61 MB of 1,024 MB"),
            LoadTerm("processor", load / 3, "processors: 8% of the machine, 4% of it for LOW"),
            LoadTerm(
                "CRITICAL waits", 0.0, "a CRITICAL call has waited for 0 ms, promised are 50 ms"
            ),
            LoadTerm("HIGH waits", 0.0, "a HIGH call has waited for 0 ms, promised are 100 ms"),
            LoadTerm("NORMAL waits", 0.0, "a NORMAL call has waited for 0 ms, promised are 500 ms"),
        ),
        low_pages_per_s=low_pages_per_s,
        low_got_pages_per_s=low_got_pages_per_s,
        alerts=tuple(alerts),
        frame_p95_ms=4.25,
        self_audit=audit,
    )


def event(
    number: int,
    severity: Severity = "info",
    kind: EventKind = "health",
    layer: str = "layer_1",
    sentence: str = "",
) -> SystemEvent:
    """Something that happened so many seconds after noon."""
    time = utc_datetime(NOON_MS + number * 1_000)
    return SystemEvent(number, time, layer, severity, kind, sentence or f"event {number}")


def metadata(count: int, **changes: Any) -> BackboneMetadata:
    known: dict[str, Any] = {
        "source_layer": "layer_1",
        "cache_hit": False,
        "processing_time_ms": 12.0,
        "data_count": count,
        "priority_used": Priority.NORMAL,
        "source": "rest",
    }
    return BackboneMetadata(**(known | changes))
