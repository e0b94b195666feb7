"""The composition root: the one place that knows all layers, and starts and stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Any, Final

import aiohttp
import msgspec

from upbit_backbone.api.event_bus import EventBusIntegration, SystemReading
from upbit_backbone.api.home_loop import other_loop
from upbit_backbone.api.load_manager import LOW_UP_TO, SystemLoadManager
from upbit_backbone.api.market_data_api import LIST_AGAIN_S, MarketDataAPI
from upbit_backbone.api.monitor import Monitor
from upbit_backbone.api.validation import check_symbol, check_timeout
from upbit_backbone.clock import Clock, ExchangeClock, SystemClock, told_skew_s
from upbit_backbone.config import BackboneConfig
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.coordinator.turns import LowTurns
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    InvalidRequestError,
    StorageOriginError,
    StorageUnavailableError,
    UnknownSymbolError,
    shown,
)
from upbit_backbone.exchanges.upbit import REST_URL, WS_URL, UpbitAdapter
from upbit_backbone.origin import Origin
from upbit_backbone.protocol import Health, LayerStatus, Priority, SystemHealth, SystemStatus
from upbit_backbone.routing.failover import State
from upbit_backbone.routing.router import Router
from upbit_backbone.routing.shared_budget import SharedBudget
from upbit_backbone.storage.database import holds_candles
from upbit_backbone.storage.retention import RetentionPolicy
from upbit_backbone.storage.series_files.transfer import SeriesTransfer
from upbit_backbone.storage.storage import Storage
from upbit_backbone.storage.store_file import StoreFile
from upbit_backbone.supervision import SupervisedCoordinator, SupervisedLayer
from upbit_backbone.tasks import KeptTask, LoopEnd, TaskOwner
from upbit_backbone.telemetry.endpoint import MetricsServer
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.loop_lag import LoopLagProbe
from upbit_backbone.telemetry.machine import memory_returner
from upbit_backbone.telemetry.memory_guard import MemoryGuard
from upbit_backbone.telemetry.processor_time import ProcessorTime

logger = logging.getLogger(__name__)

FIRST_ANSWER_S = 3.0
"""How long the start waits for the exchange before it goes on offline."""
WARM_UP_AFTER_S = 2.0
"""The first page of a chart goes before candles that nobody has asked for yet."""
_START_S = 3.0
"""How late the event loop runs for so long after a start is told by nobody as load."""
WARM_SERIES: Final = 50
"""So many series are brought into memory without load; with room for none of them it waits."""
LOOK_AT_LOAD_S: Final = 0.5
MEMORY_SHARE = 0.25
START_WITHIN_S: Final = 30.0
"""How long one step of the start may take."""
STORE_STARTS_WITHIN_S: Final = 600.0
"""Bringing a large file of an older schema up to date, or copying a damaged one, takes minutes."""
STOP_WITHIN_S: Final = 10.0
"""How long one step of the end may take; it is left as it is then, and the others follow."""
LIMIT_WINDOW_S: Final = 1.1
"""A new layer 1 does not know what the old one has sent, and the exchange counts for 1.05 s."""
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


_Step = Callable[[], Awaitable[None]]


class _Routing(Router):
    """Layer 1 with the HTTP session that it asks by: they live and end together."""

    def __init__(self, session: aiohttp.ClientSession, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._session = session

    async def stop(self) -> None:
        try:
            await super().stop()
        finally:
            await self._session.close()

    @property
    def failure(self) -> str:
        return "its HTTP session was closed" if self._session.closed else super().failure


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
    from upbit_backbone.simulator.server import Simulator

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
        if config is not None:
            _check_config(config)
        if not (clock is None or callable(getattr(clock, "monotonic", None))):
            raise InvalidRequestError(f"clock must be a Clock, or None, was {shown(clock)}")
        if not isinstance(rng, Random | None):
            raise InvalidRequestError(f"rng must be a random.Random, or None, was {shown(rng)}")
        if first_symbol is not None:
            check_symbol(first_symbol, ())
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
        self._tasks = TaskOwner()
        self._stops: list[tuple[str, _Step]] = []
        self._house: _House | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one in which it was begun last."""
        self._beginning_or_ending = asyncio.Lock()

    @property
    def api(self) -> MarketDataAPI:
        """The service's face.

        Raises:
            ClosedError: before `initialize` or after `shutdown`.
        """
        return self._running.api

    @property
    def event_bus(self) -> EventBusIntegration:
        """Requests by number, system events, and the throttle of LOW.

        Raises:
            ClosedError: before `initialize` or after `shutdown`.
        """
        return self._running.bus

    @property
    def load_manager(self) -> SystemLoadManager:
        """Says who may begin work now, and why.

        Raises:
            ClosedError: before `initialize` or after `shutdown`.
        """
        return self._running.monitor.load

    @property
    def _router(self) -> Router:
        """The layer alone, for who measures it; it is another one when it has failed since."""
        return self._running.routing.layer

    @property
    def _storage(self) -> Storage:
        return self._running.storage.layer

    @property
    def _coordinator(self) -> Coordinator:
        return self._running.coordinator.layer

    @property
    def _running(self) -> _House:
        if self._house is None:
            raise ClosedError("the backbone is not running: call initialize first")
        return self._house

    @property
    def config(self) -> BackboneConfig:
        return self._config

    async def initialize(self) -> None:
        """Start layer 1 to 4. An exchange that is not reached, or not understood, is no error.

        What was started is stopped again when a later step fails or the call is cancelled. Of what
        runs already nothing is started twice.

        Raises:
            StorageError: the data folder cannot be used, or holds data of another origin.
            TransportError: the simulator's port is taken, or a layer did not start in time.
            InvalidRequestError: it runs in another event loop.
        """
        self._check_loop()
        async with self._beginning_or_ending:
            if self._house is not None:
                return
            self._loop = asyncio.get_running_loop()
            try:
                if self._stops:
                    await self._stop()  # what an end that was cut short has left
                await self._start()
            except BaseException:
                await self._stop()
                raise

    async def shutdown(self) -> None:
        """Stop in reverse; leaves no task, socket or thread. May be called twice.

        Calls in flight have two seconds to be answered; LOW ends at once. Cancelled, it goes on
        with the parts below; what was cut short, or took too long, ends with a second call. One
        that comes meanwhile waits for the first, or for the start.

        Raises:
            InvalidRequestError: it runs in another event loop; nothing was touched.
        """
        self._check_loop()
        async with self._beginning_or_ending:
            await self._stop()

    def _check_loop(self) -> None:
        """Refuse to begin or to end in one loop what lives in another."""
        home = self._loop
        if not self._stops or home is None or home is asyncio.get_running_loop():
            return
        if home.is_closed():
            raise InvalidRequestError(
                "the event loop of this service is closed already, and what was left in it ends"
                " with the program: close a service before its loop, and open a new one here"
            )
        raise other_loop()

    async def _stop(self) -> None:
        self._house = None
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._tasks.close()
        except asyncio.CancelledError as error:
            cancelled = error
        for name, stop in reversed(tuple(self._stops)):
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    await stop()
            except asyncio.CancelledError as error:
                # The parts below hold files and threads, without which the process would not end.
                cancelled = error
                continue
            except TimeoutError:
                logger.error("%s did not stop within %g s", name, STOP_WITHIN_S)
                continue
            except Exception:
                # One part that cannot stop must not keep the others open.
                logger.exception("%s did not stop cleanly", name)
            if (name, stop) in self._stops:
                self._stops.remove((name, stop))
        if cancelled is not None:
            raise cancelled

    def get_system_health(self) -> SystemHealth:
        """How each layer is doing; the whole is as well as its worst layer.

        Raises:
            ClosedError: the backbone is not running.
        """
        return self._running.health()

    def get_layer_status(self, name: str) -> LayerStatus:
        """The state of ``"layer_1"`` (routing) … ``"layer_4"`` (API).

        Raises:
            InvalidRequestError: no such layer.
            ClosedError: the backbone is not running.
        """
        _check_layer(name)
        return self._running.status(name)

    @staticmethod
    async def reachable(config: BackboneConfig, *, timeout_s: float = 2.0) -> bool:
        """Whether the configured exchange answers within a time; stores nothing.

        Raises:
            InvalidRequestError: not a `BackboneConfig`, or no number of seconds.
        """
        _check_config(config)
        check_timeout(timeout_s)
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
        _check_config(config)
        return await holds_candles(config.data_dir / config.identity)

    @staticmethod
    def store_file(config: BackboneConfig) -> StoreFile:
        """The file of the configured exchange, for what is done with it as a whole."""
        _check_config(config)
        identity = config.identity
        origin = Origin(identity, accepts_mark=identity != "upbit")
        return StoreFile(config.data_dir / identity, origin, SystemClock())

    @staticmethod
    def series_transfer(config: BackboneConfig) -> SeriesTransfer:
        """What writes stored series of the configured exchange into files, and reads them."""
        _check_config(config)
        identity = config.identity
        origin = Origin(identity, accepts_mark=identity != "upbit")
        return SeriesTransfer(config.data_dir / identity, origin, SystemClock())

    async def _start(self) -> None:
        config = self._config
        rest_url, ws_url = config.rest_url or REST_URL, config.ws_url or WS_URL
        if config.exchange == "simulator":
            # Most programs never need it, and it takes a tenth of a second.
            from upbit_backbone.simulator.server import Simulator

            simulator = Simulator(
                seed=config.simulator_seed, clock=self._local, first_symbol=self._first_symbol
            )
            self._stops.append(("simulator", simulator.close))
            await simulator.start()
            rest_url, ws_url = simulator.rest_url, simulator.ws_url
        house = _House(
            config,
            rest_url=rest_url,
            ws_url=ws_url,
            origin=self._origin,
            clock=self._clock,
            local=self._local,
            rng=self._rng,
        )
        for name, start, stop in house.parts():
            self._stops.append((name, stop))
            await start()
        self._house = house
        for layer in house.supervised:
            watch = KeptTask(layer.watch, name=f"watch over {layer.name}")
            self._stops.append((f"watch over {layer.name}", watch.stop))
            watch.start()
        house.look_at_memory()
        loop_end = LoopEnd(self.shutdown)
        self._stops.append(("end of the loop", loop_end.stop))
        await loop_end.start()
        await self._meet_exchange(house.api)
        if config.pinned:
            self._tasks.spawn(house.look_at_pinned(), name="look at what is pinned")
        if config.auto_optimization:
            self._tasks.spawn(house.warm_up(), name="warm-up")

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

    async def _meet_exchange(self, api: MarketDataAPI) -> None:
        """The first answer fixes the origin and the exchange's time; without it we are offline."""
        try:
            async with asyncio.timeout(FIRST_ANSWER_S):
                await api.get_markets()
        except StorageOriginError:
            raise
        except (BackboneError, TimeoutError) as error:
            # Whatever stands in between may have answered, as a hotel's page for guests does.
            logger.warning("starting offline: %s", str(error) or "no answer in time")


class _House:
    """The four layers of one run, and those who look after them."""

    def __init__(
        self,
        config: BackboneConfig,
        *,
        rest_url: str,
        ws_url: str,
        origin: Origin,
        clock: ExchangeClock,
        local: Clock,
        rng: Random,
    ) -> None:
        """Build everything; nothing is opened before its part is started."""
        self._config = config
        self._rest_url = rest_url
        self._ws_url = ws_url
        self._origin = origin
        self._clock = clock
        self._local = local
        self._rng = rng
        self._low_processor = ProcessorTime()
        self._turns = LowTurns(clock, pages_per_s=self._low_pages_per_s)
        events = EventLog(clock, on_event=lambda event: self.bus.tell(event))
        self.monitor = Monitor(
            clock=clock,
            rng=rng,
            events=events,
            memory_limit_bytes=config.memory_limit_mb << 20,
            lag=LoopLagProbe(clock, start_s=_START_S),
            layers=self._statuses,
            oldest_wait_s=self._oldest_wait_s,
            oldest_limit_wait_s=self._oldest_limit_wait_s,
            low_processor_s=lambda: self._low_processor.spent_s,
            low_got_pages_per_s=self._turns.got_pages_per_s,
            on_reading=self._take_reading,
            self_audit=lambda: self.storage.layer.self_audit if self.storage.works else None,
        )
        limit_bytes = config.memory_limit_mb << 20
        self._return_memory = memory_returner()
        self._guard = MemoryGuard(
            limit_bytes=limit_bytes, cache_bytes=int(limit_bytes * MEMORY_SHARE)
        )
        self.bus = EventBusIntegration(
            clock=clock,
            events=events,
            load=self.monitor.load,
            slots=config.max_concurrent_requests,
            on_shed=lambda: self.monitor.calls.happened("shed"),
        )
        self.routing = SupervisedLayer(
            "layer_1",
            self._build_routing,
            clock=clock,
            start_within_s=START_WITHIN_S,
            stop_within_s=STOP_WITHIN_S,
            pause_s=LIMIT_WINDOW_S,
            tell=self._tell_health,
        )
        self.storage = SupervisedLayer(
            "layer_2",
            self._build_storage,
            clock=clock,
            start_within_s=STORE_STARTS_WITHIN_S,
            stop_within_s=STOP_WITHIN_S,
            too_slow=StorageUnavailableError,
            tell=self._tell_health,
        )
        self.coordinator = SupervisedCoordinator(
            "layer_3",
            self._build_coordinator,
            clock=clock,
            start_within_s=START_WITHIN_S,
            stop_within_s=STOP_WITHIN_S,
            tell=self._tell_health,
        )
        self.api = MarketDataAPI(
            router=self.routing,
            coordinator=self.coordinator,
            clock=clock,
            bus=self.bus,
            monitor=self.monitor,
            is_stored=lambda symbol: self.storage.works and self.storage.layer.holds(symbol),
            system_status=self._system_status,
            max_concurrent_requests=config.max_concurrent_requests,
        )
        self._metrics: MetricsServer | None = None
        if config.metrics_port is not None:
            self._metrics = MetricsServer(
                config.metrics_port,
                metrics=self.api.get_performance_metrics,
                status=self.api.get_system_status,
                events=events,
            )

    @property
    def supervised(self) -> tuple[SupervisedLayer[Any], ...]:
        """The layers that are built anew when they fail."""
        return self.routing, self.storage, self.coordinator

    def parts(self) -> list[tuple[str, _Step, _Step]]:
        """Names, starts and ends of everything, in the order of the start."""
        parts: list[tuple[str, _Step, _Step]] = [
            (layer.name, layer.start, layer.stop) for layer in self.supervised
        ]
        parts.append(("event bus", self.bus.start, self.bus.stop))
        parts.append(("layer_4", self.api.start, self.api.stop))
        parts.append(("monitor", self.monitor.start, self.monitor.stop))
        if self._metrics is not None:
            parts.append(("metrics", self._metrics.start, self._metrics.stop))
        return parts

    def status(self, name: str) -> LayerStatus:
        """A layer's own word, with the moment its state began."""
        layers = {layer.name: layer for layer in self.supervised}
        status = self._own_status() if name == "layer_4" else layers[name].status()
        return self.monitor.health.tracked(status)

    def health(self) -> SystemHealth:
        """How each layer is doing; the whole is as well as its worst layer."""
        layers = {name: self.status(name) for name in LAYERS}
        worst = min((status.health for status in layers.values()), key=_WORST.index)
        return SystemHealth(worst, layers)

    def look_at_memory(self) -> None:
        """Warn of a limit that is no limit: nothing that is refused would make room."""
        limit_mb = self._config.memory_limit_mb
        used_mb = self.monitor.measure(self._clock.monotonic()).rss_bytes >> 20
        if used_mb > limit_mb * LOW_UP_TO / 100:
            logger.warning(
                "memory_limit_mb is %d, and this program takes %d already: calls will have to"
                " wait; give at least %d",
                limit_mb,
                used_mb,
                2 * used_mb,
            )

    async def look_at_pinned(self) -> None:
        """Tell of what is pinned and not listed, as soon as the exchange says what is."""
        while not (listed := await self._listed()):
            await asyncio.sleep(LIST_AGAIN_S)
        for symbol in dict.fromkeys(symbol for symbol, _ in self._config.pinned_series):
            try:
                check_symbol(symbol, listed)
            except UnknownSymbolError as error:
                sentence = f"a pinned market has no candles to keep: {error}"
                logger.warning("%s", sentence)
                self.monitor.events.add("layer_2", "warning", "alert", sentence)

    async def _listed(self) -> list[str]:
        """What the exchange lists; empty: that is not known now."""
        with suppress(BackboneError):
            listing = await self.coordinator.markets()
            if not listing.is_stored:
                return [market.symbol for market in listing.markets]
        return []

    async def warm_up(self) -> None:
        """Bring into memory what was used last; without it answers come from the file."""
        await asyncio.sleep(WARM_UP_AFTER_S)
        # What nobody has asked for yet waits before anything else does.
        while not self.monitor.load.prefetch(WARM_SERIES):
            await asyncio.sleep(LOOK_AT_LOAD_S)
        try:
            held = await self.storage.layer.warm_up_cache(
                most=lambda: self.monitor.load.prefetch(WARM_SERIES)
            )
        except BackboneError as error:
            logger.info("memory was not filled: %s", error)
        else:
            logger.debug("%d candles were brought into memory", held)

    def _build_routing(self) -> _Routing:
        config = self._config
        session = aiohttp.ClientSession()
        adapter = UpbitAdapter(
            session,
            rest_url=self._rest_url,
            ws_url=self._ws_url,
            origin=self._origin,
            clock=self._clock,
            local=self._local,
            on_remaining=lambda group, left: routing.observe_left(group, left),
            on_microseconds=lambda kind, symbol: routing.observe_microseconds(kind, symbol),
        )
        routing = _Routing(
            session,
            adapter,
            clock=self._clock,
            rng=self._rng,
            critical_reserve=config.critical_reserve,
            ban_file=config.data_dir / config.identity / "block.json",
            budget=SharedBudget.for_host(self._rest_url),
            symbols_per_request=config.symbols_per_request,
            circuit_breaker=config.circuit_breaker_enabled,
            fallbacks=config.fallback_mode_enabled,
            automatic_streams=config.auto_optimization,
            on_gap=self.monitor.spans.gap,
        )
        return routing

    def _build_storage(self) -> Storage:
        config = self._config
        return Storage(
            self.routing,
            folder=config.data_dir / config.identity,
            origin=self._origin,
            clock=self._clock,
            memory_limit_bytes=int(config.memory_limit_mb * MEMORY_SHARE * 2**20),
            pinned=config.pinned_series,
            rng=self._rng,
            gives_way=lambda: self._waits(Priority.LOW) is not None,
            low_turn=partial(self._turns.turn, "the store"),
            policy=_policy(config),
            on_revised=self.monitor.spans.revised,
        )

    def _build_coordinator(self) -> Coordinator:
        config = self._config
        return Coordinator(
            self.storage,
            clock=self._clock,
            rng=self._rng,
            symbols_per_request=config.symbols_per_request,
            shedding=self._waits,
            turns=self._turns,
            retries=config.auto_retry_enabled,
            parallelism=self.monitor.load.parallelism,
            low_processor=self._low_processor,
        )

    def _take_reading(self, reading: SystemReading) -> None:
        """Tell of it, and let caches give way before the process takes what it may not."""
        self.bus.tell(reading)
        if self.storage.works:
            store = self.storage.layer
            store.limit_memory(self._guard.allowed_bytes(reading.memory_bytes, store.memory_bytes))
            if self._guard.gave_way:
                self._return_memory()
        if self._guard.under_pressure and self.routing.works:
            self.routing.layer.free_memory()

    def _low_pages_per_s(self) -> float | None:
        """How fast LOW may go; 0.0: it has to wait; None: at any rate."""
        if self._waits(Priority.LOW) is not None:
            return 0.0
        return self.monitor.load.low_pages_per_s

    def _waits(self, priority: Priority) -> str | None:
        """Why a priority has to wait; None: it may run."""
        load = self.monitor.load
        if not load.check_resource_availability(priority):
            return f"load {load.load:.0f} %"
        if priority is Priority.LOW and self.bus.throttled:
            return self.bus.throttled
        return None

    def _oldest_wait_s(self, now: float) -> Mapping[Priority, float]:
        waits_s = self.api.oldest_wait_s(now) | self.bus.oldest_wait_s(now)
        if self.storage.works:
            for priority, wait_s in self.storage.layer.oldest_wait_s().items():
                waits_s[priority] = max(wait_s, waits_s.get(priority, 0.0))
        return waits_s

    def _oldest_limit_wait_s(self, now: float) -> Mapping[Priority, float]:
        return self.routing.layer.oldest_wait_s(now) if self.routing.works else {}

    def _statuses(self) -> Mapping[str, LayerStatus]:
        statuses = [layer.status() for layer in self.supervised]
        return {status.name: status for status in (*statuses, self._own_status())}

    def _own_status(self) -> LayerStatus:
        """The state of layer 4, which serves the figures as well."""
        status = self.api.status()
        failure = None if self._metrics is None else self._metrics.failure
        if failure is None or status.health != "healthy":
            return status
        return msgspec.structs.replace(status, health="degraded", reason=str(failure))

    def _tell_health(self, name: str, health: Health, reason: str) -> None:
        self.monitor.health.observe(name, health, reason)

    def _system_status(self) -> SystemStatus:
        health = self.health()
        connection = "offline"
        if self.routing.works:
            stream = self.routing.layer.connection
            if self.routing.layer.reachable or stream in ("live", "suspicious"):
                connection = _CONNECTIONS[stream]
        return SystemStatus(
            health=health,
            identity=self._origin.identity,
            simulated=self._origin.simulated,
            connection=connection,
            reason=health.layers["layer_1"].reason,
            load=self.monitor.load.load,
            exchange_offset_ms=self._clock.offset_ms,
        )


def _check_config(config: object) -> None:
    if not isinstance(config, BackboneConfig):
        raise InvalidRequestError(
            "the manager takes a BackboneConfig, such as"
            f" BackboneConfig(exchange='simulator'), was {shown(config)}"
        )


def _check_layer(name: object) -> None:
    if not isinstance(name, str) or name not in LAYERS:
        raise InvalidRequestError(f"a layer is one of {', '.join(LAYERS)}, was {shown(name)}")


def _policy(config: BackboneConfig) -> RetentionPolicy:
    limit_mb = config.storage_limit_mb
    return RetentionPolicy(config.keep_1s_days, None if limit_mb is None else limit_mb << 20)
