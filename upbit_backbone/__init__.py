"""Market data of Upbit for desktop programs: four calls, streams, and a priority.

>>> async with await MarketDataAPI.create_default() as api:  # doctest: +SKIP
...     candles = await api.get_candle_data("KRW-BTC", "1m", count=200)
"""

__version__ = "1.0.0"

TYPE_CHECKING = False
"""As `typing` has it, for those who read the source; importing `typing` takes 7 ms."""

__all__ = [
    "Alert",
    "BackboneConfig",
    "BackboneError",
    "BackboneManager",
    "BackboneMetadata",
    "BackboneRequest",
    "BackboneResponse",
    "CallStats",
    "Candle",
    "CandleSeries",
    "ChunkStream",
    "ClosedError",
    "DataRequest",
    "DataSource",
    "DataType",
    "DataUnavailableError",
    "DeadlineError",
    "DirectDataAccess",
    "EventBusDataAccess",
    "EventBusIntegration",
    "Gap",
    "IMarketDataAPI",
    "IndicatorSeries",
    "InvalidRequestError",
    "LatencyStats",
    "LayerStatus",
    "Level",
    "LoadTerm",
    "Market",
    "MarketDataAPI",
    "Orderbook",
    "PerformanceMetrics",
    "Priority",
    "Progress",
    "ProtocolError",
    "RateLimitedError",
    "Reach",
    "SelfAudit",
    "SlowConsumerError",
    "Span",
    "StaleDataError",
    "StorageCorruptError",
    "StorageError",
    "StorageOriginError",
    "StorageUnavailableError",
    "StoreFigures",
    "Stream",
    "Subscription",
    "SystemEvent",
    "SystemEvents",
    "SystemHealth",
    "SystemLoadManager",
    "SystemOverloadedError",
    "SystemReading",
    "SystemStatus",
    "Throttle",
    "Ticker",
    "Timeframe",
    "Trade",
    "TransportError",
    "UnknownSymbolError",
    "WindowStats",
    "create_configured_api",
    "create_default_api",
]

_HOMES = (
    # The light before the heavy. What opens a service brings the manager with it: that is
    # the place for the third of a second, and not the event loop in which it is opened.
    "errors",
    "config",
    "models",
    "protocol",
    "indicators",
    "storage.figures",
    "manager",
    "api.market_data_api",
    "api.stream",
    "api.chunks",
    "api.load_manager",
    "api.event_bus",
    "api.paths",
)

if TYPE_CHECKING:
    from upbit_backbone.api.chunks import ChunkStream
    from upbit_backbone.api.event_bus import (
        EventBusIntegration,
        SystemEvents,
        SystemReading,
        Throttle,
    )
    from upbit_backbone.api.load_manager import SystemLoadManager
    from upbit_backbone.api.market_data_api import (
        IMarketDataAPI,
        MarketDataAPI,
        create_configured_api,
        create_default_api,
    )
    from upbit_backbone.api.paths import DirectDataAccess, EventBusDataAccess
    from upbit_backbone.api.stream import Stream
    from upbit_backbone.config import BackboneConfig
    from upbit_backbone.errors import (
        BackboneError,
        ClosedError,
        DataUnavailableError,
        DeadlineError,
        InvalidRequestError,
        ProtocolError,
        RateLimitedError,
        SlowConsumerError,
        StaleDataError,
        StorageCorruptError,
        StorageError,
        StorageOriginError,
        StorageUnavailableError,
        SystemOverloadedError,
        TransportError,
        UnknownSymbolError,
    )
    from upbit_backbone.indicators import IndicatorSeries
    from upbit_backbone.manager import BackboneManager
    from upbit_backbone.models import (
        Candle,
        CandleSeries,
        Gap,
        Level,
        Market,
        Orderbook,
        Span,
        Ticker,
        Timeframe,
        Trade,
    )
    from upbit_backbone.protocol import (
        Alert,
        BackboneMetadata,
        BackboneRequest,
        BackboneResponse,
        CallStats,
        DataRequest,
        DataSource,
        DataType,
        LatencyStats,
        LayerStatus,
        LoadTerm,
        PerformanceMetrics,
        Priority,
        Progress,
        Reach,
        SelfAudit,
        Subscription,
        SystemEvent,
        SystemHealth,
        SystemStatus,
        WindowStats,
    )
    from upbit_backbone.storage.figures import StoreFigures

else:

    def __getattr__(name):
        """Import a public name when it is first asked for: all of them take half a second."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name in vars(module):
                value = globals()[name] = vars(module)[name]
                return value
        raise AssertionError(f"none of {_HOMES} defines {name}")

    def __dir__():
        return sorted({*globals(), *__all__})
