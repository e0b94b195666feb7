"""The composition root: the one place that knows all layers, and starts and stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Protocol

import aiohttp

from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import Clock, ExchangeClock, SystemClock, told_skew_s
from upbit_backbone.config import BackboneConfig
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.turns import LowTurns
from upbit_backbone.errors import BackboneError, ClosedError, RateLimitedError, TransportError
from upbit_backbone.exchanges.upbit import REST_URL, WS_URL, UpbitAdapter
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import (
    Health,
    LayerStatus,
    PerformanceMetrics,
    SystemHealth,
    SystemStatus,
)
from upbit_backbone.routing.failover import State
from upbit_backbone.routing.router import Router
from upbit_backbone.routing.shared_budget import SharedBudget
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.storage.database import holds_candles
from upbit_backbone.storage.retention import RetentionPolicy
from upbit_backbone.storage.series_files.transfer import SeriesTransfer
from upbit_backbone.storage.storage import Storage
from upbit_backbone.storage.store_file import StoreFile
from upbit_backbone.tasks import TaskOwner
from upbit_backbone.telemetry.loop_lag import LoopLagProbe
from upbit_backbone.telemetry.metrics import CallMetrics

logger = logging.getLogger(__name__)

FIRST_ANSWER_S = 3.0
"""How long the start waits for the exchange before it goes on offline."""
WARM_UP_AFTER_S = 2.0
"""The first page of a chart goes before candles that nobody has asked for yet."""
MEMORY_SHARE = 0.25
LOW_RUNS_UP_TO = 70.0
"""Above this load LOW waits."""
_WORST: tuple[Health, ...] = ("down", "degraded", "starting", "healthy")
_CONNECTIONS: Mapping[State, str] = {
    "idle": "live",
    "connecting": "connecting",
    "live": "live",
    "suspicious": "live",
    "reconnecting": "connecting",
    "polling": "polling",
    "blocked": "offline",
    "closed": "offline",
}
LAYERS = ("layer_1", "layer_2", "layer_3", "layer_4")


class _Layer(Protocol):
    """What the life cycle needs of a layer."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@asynccontextmanager
async def open_addresses(config: BackboneConfig, clock: Clock) -> AsyncIterator[tuple[str, str]]:
    """REST and WebSocket address of the configured exchange.

    A simulator in this process runs until the context is left.

    Raises:
        TransportError: the simulator's port is taken.
    """
    if config.exchange != "simulator":
        yield config.rest_url or REST_URL, config.ws_url or WS_URL
        return
    async with Simulator(seed=config.simulator_seed, clock=clock) as simulator:
        yield simulator.rest_url, simulator.ws_url


class BackboneManager:
    """Builds the four layers, starts them from the bottom and stops them from the top."""

    def __init__(
        self,
        config: BackboneConfig | None = None,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
        first_symbol: str | None = None,
    ) -> None:
        """Take settings; nothing is opened before `initialize`.

        Args:
            config: By default the environment's.
            clock: This machine's time; by default its clocks.
            rng: Chance, for jitter; by default seeded by the system.
            first_symbol: Which market a simulator in this process prepares first.
        """
        self._config = BackboneConfig.from_environment() if config is None else config
        self._local = SystemClock() if clock is None else clock
        self._clock = ExchangeClock(
            self._local,
            follows_wall=self._config.replay is not None,
            on_skew=self._tell_skew,
        )
        self._rng = Random() if rng is None else rng
        self._first_symbol = first_symbol
        self._origin = Origin(self._config.identity, accepts_mark=self._config.identity != "upbit")
        self._metrics = CallMetrics()
        self._lag = LoopLagProbe(self._clock)
        self._tasks = TaskOwner()
        self._stops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._router: Router | None = None
        self._storage: Storage | None = None
        self._coordinator: Coordinator | None = None
        self._api: MarketDataAPI | None = None

    @property
    def api(self) -> MarketDataAPI:
        """The service's face.

        Raises:
            ClosedError: before `initialize` or after `shutdown`.
        """
        if self._api is None:
            raise ClosedError("the backbone is not running: call initialize first")
        return self._api

    @property
    def config(self) -> BackboneConfig:
        return self._config

    async def initialize(self) -> None:
        """Start layer 1 to 4. An exchange that is not reached is no error.

        What was started is stopped again when a later step fails or the call is cancelled.

        Raises:
            StorageError: the data folder cannot be used, or holds data of another origin.
            TransportError: the simulator's port is taken.
        """
        try:
            await self._start()
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop in reverse; leaves no task, socket or thread. May be called twice.

        Cancelled, it goes on with the parts below; what was cut short ends with a second call.
        """
        self._api = None
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._tasks.close()
        except asyncio.CancelledError as error:
            cancelled = error
        for name, stop in reversed(tuple(self._stops)):
            try:
                await stop()
            except asyncio.CancelledError as error:
                # The parts below hold files and threads, without which the process would not end.
                cancelled = error
                continue
            except Exception:
                # One part that cannot stop must not keep the others open.
                logger.exception("%s did not stop cleanly", name)
            if (name, stop) in self._stops:
                self._stops.remove((name, stop))
        if cancelled is not None:
            raise cancelled

    def get_system_health(self) -> SystemHealth:
        """How each layer is doing; the whole is as well as its worst layer."""
        layers = {name: self.get_layer_status(name) for name in LAYERS}
        worst = min((status.health for status in layers.values()), key=_WORST.index)
        return SystemHealth(worst, layers)

    def get_layer_status(self, name: str) -> LayerStatus:
        """The state of ``"layer_1"`` (routing) … ``"layer_4"`` (API).

        Raises:
            KeyError: no such layer.
            ClosedError: the backbone is not running.
        """
        layers = dict(
            zip(LAYERS, (self._router, self._storage, self._coordinator, self._api), strict=True)
        )
        layer = layers[name]
        if layer is None:
            raise ClosedError("the backbone is not running: call initialize first")
        return layer.status()

    @staticmethod
    async def reachable(config: BackboneConfig, *, timeout_s: float = 2.0) -> bool:
        """Whether the configured exchange answers within a time; stores nothing."""
        clock = SystemClock()
        try:
            async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
                adapter = UpbitAdapter(
                    session,
                    rest_url=config.rest_url or REST_URL,
                    ws_url=config.ws_url or WS_URL,
                    origin=Origin(config.identity, accepts_mark=config.identity != "upbit"),
                    clock=ExchangeClock(clock),
                    local=clock,
                )
                await adapter.markets()
        except (BackboneError, TimeoutError):
            return False
        return True

    @staticmethod
    async def has_stored_data(config: BackboneConfig) -> bool:
        """Whether the configured exchange's folder holds a candle, so that there is what to show.

        A database without one, as a start that never reached the exchange leaves it, does not
        count, and neither does a damaged one.
        """
        return await holds_candles(config.data_dir / config.identity)

    @staticmethod
    def store_file(config: BackboneConfig) -> StoreFile:
        """The file of the configured exchange, for what is done with it as a whole."""
        identity = config.identity
        origin = Origin(identity, accepts_mark=identity != "upbit")
        return StoreFile(config.data_dir / identity, origin)

    @staticmethod
    def series_transfer(config: BackboneConfig) -> SeriesTransfer:
        """What writes stored series of the configured exchange into files, and reads them."""
        identity = config.identity
        origin = Origin(identity, accepts_mark=identity != "upbit")
        return SeriesTransfer(config.data_dir / identity, origin, SystemClock())

    async def _start(self) -> None:
        config = self._config
        rest_url, ws_url = config.rest_url or REST_URL, config.ws_url or WS_URL
        if config.exchange == "simulator":
            simulator = Simulator(
                seed=config.simulator_seed, clock=self._local, first_symbol=self._first_symbol
            )
            self._stops.append(("simulator", simulator.close))
            await simulator.start()
            rest_url, ws_url = simulator.rest_url, simulator.ws_url
        session = aiohttp.ClientSession()
        self._stops.append(("http session", session.close))
        adapter = UpbitAdapter(
            session,
            rest_url=rest_url,
            ws_url=ws_url,
            origin=self._origin,
            clock=self._clock,
            local=self._local,
            on_remaining=self._observe_left,
            on_microseconds=self._observe_microseconds,
        )
        self._router = Router(
            adapter,
            clock=self._clock,
            rng=self._rng,
            critical_reserve=config.critical_reserve,
            ban_file=config.data_dir / config.identity / "block.json",
            budget=SharedBudget.for_host(rest_url),
            symbols_per_request=config.symbols_per_request,
            circuit_breaker=config.circuit_breaker_enabled,
            fallbacks=config.fallback_mode_enabled,
            automatic_streams=config.auto_optimization,
        )
        turns = LowTurns(self._clock)
        self._storage = Storage(
            self._router,
            folder=config.data_dir / config.identity,
            origin=self._origin,
            clock=self._clock,
            memory_limit_bytes=int(config.memory_limit_mb * MEMORY_SHARE * 2**20),
            pinned=config.pinned_series,
            rng=self._rng,
            gives_way=lambda: self._shedding() is not None,
            low_turn=partial(turns.turn, "the store"),
            policy=_policy(config),
        )
        self._coordinator = Coordinator(
            self._storage,
            clock=self._clock,
            rng=self._rng,
            symbols_per_request=config.symbols_per_request,
            shedding=self._shedding,
            turns=turns,
            retries=config.auto_retry_enabled,
        )
        self._api = MarketDataAPI(
            router=self._router,
            coordinator=self._coordinator,
            clock=self._clock,
            metrics=self._metrics,
            is_stored=self._storage.holds,
            system_status=self._system_status,
            performance=self._performance,
            max_concurrent_requests=config.max_concurrent_requests,
        )
        layers: tuple[_Layer, ...] = (self._router, self._storage, self._coordinator, self._api)
        for name, layer in zip(LAYERS, layers, strict=True):
            self._stops.append((name, layer.stop))
            await layer.start()
        self._tasks.spawn(self._lag.run(), name="loop lag probe")
        await self._meet_exchange(self._api)
        if config.auto_optimization:
            self._tasks.spawn(self._warm_up(self._storage), name="warm-up")

    async def _warm_up(self, storage: Storage) -> None:
        """Bring into memory what was used last; without it answers come from the file."""
        await asyncio.sleep(WARM_UP_AFTER_S)
        try:
            held = await storage.warm_up_cache()
        except BackboneError as error:
            logger.info("memory was not filled: %s", error)
        else:
            logger.debug("%d candles were brought into memory", held)

    def _shedding(self) -> float | None:
        """The load while LOW has to wait for it."""
        load = self._lag.load
        return load if load > LOW_RUNS_UP_TO else None

    def _observe_left(self, group: str, left: int) -> None:
        if self._router is not None:
            self._router.observe_left(group, left)

    def _tell_skew(self, offset_ms: int) -> None:
        skew_s = told_skew_s(offset_ms, simulated=self._origin.simulated)
        if skew_s:
            logger.warning(
                "this computer's clock is %d s %s: the exchange's time is used",
                abs(skew_s),
                "slow" if skew_s > 0 else "fast",
            )
        else:
            logger.info("this computer's clock agrees with the exchange's")

    def _observe_microseconds(self, kind: str, symbol: str) -> None:
        if self._router is not None:
            self._router.observe_microseconds(kind, symbol)

    async def _meet_exchange(self, api: MarketDataAPI) -> None:
        """The first answer fixes the origin and the exchange's time; without it we are offline."""
        try:
            async with asyncio.timeout(FIRST_ANSWER_S):
                await api.get_markets()
        except (TransportError, RateLimitedError, TimeoutError) as error:
            logger.warning("starting offline: %s", str(error) or "no answer in time")

    def _system_status(self) -> SystemStatus:
        assert self._router is not None
        health = self.get_system_health()
        stream = self._router.connection
        connection = _CONNECTIONS[stream]
        if not self._router.reachable and stream not in ("live", "suspicious"):
            connection = "offline"
        layer = health.layers["layer_1"]
        return SystemStatus(
            health=health,
            identity=self._origin.identity,
            simulated=self._origin.simulated,
            connection=connection,
            reason=layer.reason,
            load=self._lag.load,
            exchange_offset_ms=self._clock.offset_ms,
        )

    def _performance(self) -> PerformanceMetrics:
        counters = {
            f"{name}.{key}": value
            for name, status in self.get_system_health().layers.items()
            for key, value in status.counters.items()
        }
        return PerformanceMetrics(
            latency=self._metrics.latency(self._clock.monotonic()),
            requests=self._metrics.requests,
            errors=self._metrics.errors,
            cache_hits=self._metrics.cache_hits,
            cache_hit_rate=self._metrics.hit_rate,
            exchange_requests=int(counters["layer_1.requests"]),
            loop_lag_p95_ms=self._lag.p95_s * 1_000,
            load=self._lag.load,
            counters=counters,
            self_audit=None if self._storage is None else self._storage.self_audit,
        )


def _policy(config: BackboneConfig) -> RetentionPolicy:
    limit_mb = config.storage_limit_mb
    return RetentionPolicy(config.keep_1s_days, None if limit_mb is None else limit_mb << 20)
