"""Keeps a layer running: starts it in time, begins it anew when it has failed, and ends it.

A layer fails when a task is gone without which it cannot work, or when it was stopped and nobody
meant to. What it reports as degraded (an exchange that is not reached, a full disk) is no failure:
it goes on by itself. A failed layer is built anew; who stands above it keeps what is here,
and notices a call that takes longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    TransportError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    BackboneRequest,
    BackboneResponse,
    CandleChunks,
    ChunkSource,
    DataSource,
    DataType,
    Health,
    LayerStatus,
    MarketList,
    Progress,
    Subscription,
)

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

GROWING: Final = (
    "requests",
    "refused",
    "http_429",
    "blocks",
    "joined",
    "reconnects",
    "gaps_opened",
    "revisions",
    "restated",
    "pages",
    "retries",
)
"""Counters of layers that only ever grow: what a failed layer has counted is counted on."""

LOOK_EVERY_S: Final = 0.25
"""How often it is looked whether a layer works."""
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
SOUND_AFTER_S: Final = 60.0
"""A layer that has worked for so long is begun anew at once when it fails again."""
MARKETS_WITHIN_S: Final = 5.0
"""How long a question that has no deadline of its own waits for its layer."""


class Layer(DataSource, Protocol):
    """What is kept running."""

    @property
    def failure(self) -> str:
        """Why it cannot work any more, in a sentence; empty while it can."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def status(self) -> LayerStatus: ...


class ChunkLayer(Layer, ChunkSource, Protocol):
    """One that gives long ranges of candles in pieces."""


Kept = TypeVar("Kept", bound=Layer)
Chunked = TypeVar("Chunked", bound=ChunkLayer)


def _tell_nobody(_: str, __: Health, ___: str) -> None:
    return


def _holds_nothing(
    data_type: DataType,
    symbol: str,
    timeframe: Timeframe | None,
    start_ms: int | None,
    end_ms: int | None,
    count: int | None,
    max_age_s: float,
    now: float,
) -> Any | None:
    """`DataSource.peek` where there is no layer."""
    return None


class SupervisedLayer(Generic[Kept]):
    """A layer that is built anew when it fails; implements `DataSource` for the one above.

    A call in flight when its layer fails is asked once more of the new one; if that fails as well,
    it ends with `TransportError`. Calls that come meanwhile wait, up to their deadline. Streams
    end; who reads them opens new ones.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], Kept],
        *,
        clock: Clock,
        start_within_s: float,
        stop_within_s: float,
        pause_s: float = 0.0,
        too_slow: type[BackboneError] = TransportError,
        tell: Callable[[str, Health, str], None] = _tell_nobody,
    ) -> None:
        """Take what makes the layer; nothing is built before `start`.

        Args:
            name: ``"layer_1"`` …
            build: Makes one that was not started.
            clock: This machine's time.
            start_within_s: How long starting it may take.
            stop_within_s: How long stopping it may take; then it is left as it is.
            pause_s: How long nothing runs between the end of a failed one and the next start.
            too_slow: What is raised when starting it took too long.
            tell: Called with the name, health and reason when it fails and when it works again.
        """
        self.name = name
        self._build = build
        self._clock = clock
        self._start_within_s = start_within_s
        self._stop_within_s = stop_within_s
        self._pause_s = pause_s
        self._too_slow = too_slow
        self._tell = tell
        self._layer: Kept | None = None
        self._left: Kept | None = None
        """One that failed, or was being ended when that was cut short."""
        # The layer's own: a hit must not pay for being watched.
        self.peek = _holds_nothing
        self._reason = "not running"
        self._since_ms = clock.now_ms()
        self._works = asyncio.Event()
        self._look = asyncio.Event()
        self._closed = False
        self._calls: set[asyncio.Timeout] = set()
        self._last_failed_s = float("-inf")
        self._delay_s = 0.0
        self.restarts = 0
        self._ended_counted: dict[str, float] = {}
        """What layers that are no more had counted of `GROWING`."""

    @property
    def layer(self) -> Kept:
        """The one that works now.

        Raises:
            TransportError: it has failed, and is begun anew.
            ClosedError: the service is closed.
        """
        if self._layer is None:
            raise self._absent()
        return self._layer

    @property
    def works(self) -> bool:
        """Whether it runs, and has not failed."""
        return self._layer is not None

    async def start(self) -> None:
        """Build and start it.

        Raises:
            BackboneError: as the layer's own start; or it took too long.
        """
        self._closed = False
        self._bring_up(await self._started())

    async def stop(self) -> None:
        """End it; calls in flight end with it. May be called twice.

        Raises:
            TimeoutError: it did not end in time.
        """
        self._closed = True
        if self._layer is not None:
            self._left, self._layer = self._layer, None
        self.peek = _holds_nothing
        self._reason = "not running"
        self._works.set()  # whoever waits for it learns that it will not come
        if self._left is not None:
            async with asyncio.timeout(self._stop_within_s):
                await self._left.stop()
            self._left = None

    async def watch(self) -> None:
        """Begin it anew whenever it fails, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            if self._layer is not None and (failure := self._layer.failure):
                self._take_down(failure)
            if self._layer is None and not self._closed:
                await self._begin_anew()

    def status(self) -> LayerStatus:
        """The layer's own word; while there is none, why.

        What only grows (`GROWING`) is of all that were, the failed ones too.
        """
        if self._layer is not None and not self._layer.failure:
            status = self._layer.status()
            counters = status.counters | self._counted(status.counters)
            counters["restarts"] = float(self.restarts)
            return LayerStatus(status.name, status.health, status.reason, status.since, counters)
        reason = self._reason if self._layer is None else self._layer.failure
        left = self._left if self._layer is None else self._layer
        counters = self._counted({} if left is None else left.status().counters)
        return LayerStatus(self.name, "down", reason, utc_datetime(self._since_ms), counters)

    def _counted(self, counters: Mapping[str, float]) -> dict[str, float]:
        """What was counted by one layer and by those before it."""
        names = {name for name in GROWING if name in counters} | self._ended_counted.keys()
        return {
            name: counters.get(name, 0.0) + self._ended_counted.get(name, 0.0) for name in names
        }

    # As the layer above sees it.

    def peek_age_s(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        end_ms: int | None,
        now: float,
    ) -> float | None:
        """As the layer's."""
        if self._layer is None:
            return None
        return self._layer.peek_age_s(data_type, symbol, timeframe, end_ms, now)

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As the layer's.

        Raises:
            TransportError: the layer failed, and was not there again until the deadline.
        """
        return await self._kept(lambda layer: layer.fetch(request), request.deadline)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """As the layer's.

        Raises:
            TransportError: it has failed, and is begun anew.
            ClosedError: the service is closed.
        """
        return self.layer.subscribe(request)

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        """As the layer's; waits at most some seconds for it."""
        deadline_s = self._clock.monotonic() + MARKETS_WITHIN_S
        return await self._kept(lambda layer: layer.markets(max_age_s=max_age_s), deadline_s)

    async def working(self, deadline_s: float | None) -> Kept:
        """Wait until it works.

        Args:
            deadline_s: Moment of the monotonic clock; None: as long as it takes.

        Raises:
            TransportError: it did not until then.
            ClosedError: the service is closed.
        """
        while self._layer is None:
            if self._closed:
                raise self._absent()
            left_s = None if deadline_s is None else max(0.0, deadline_s - self._clock.monotonic())
            try:
                async with asyncio.timeout(left_s):
                    await self._works.wait()
            except TimeoutError:
                raise self._absent() from None
        return self._layer

    def _absent(self) -> BackboneError:
        if self._closed:
            return ClosedError("the service is closed: open a new one")
        return TransportError(
            f"{self.name} failed and is begun anew: {self._reason}; try again",
            retry_after_s=max(self._pause_s, self._delay_s, FIRST_DELAY_S),
        )

    async def _kept(
        self, ask: Callable[[Kept], Awaitable[Value]], deadline_s: float | None
    ) -> Value:
        """Ask the layer, and once more when it failed meanwhile."""
        cause: BaseException | None = None
        for _ in range(2):
            layer = await self.working(deadline_s)
            call = asyncio.timeout(None)
            self._calls.add(call)
            try:
                async with call:
                    return await ask(layer)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if self._is_well(layer) or task is None or task.cancelling():
                    raise
                cause = error  # what it waited for was cancelled, not the caller
            except Exception as error:
                if self._is_well(layer):
                    raise
                cause = error
            finally:
                self._calls.discard(call)
            if layer is self._layer:
                self._take_down(layer.failure)
                self._look.set()
        raise TransportError(
            f"{self.name} failed twice during the call: {self._reason or cause}; try again"
        ) from cause

    # Its life.

    async def _started(self) -> Kept:
        layer = self._build()
        try:
            async with asyncio.timeout(self._start_within_s) as limit:
                await layer.start()
        except BaseException as error:
            self._left = layer
            await self._ended(layer)
            self._left = None
            if isinstance(error, TimeoutError) and limit.expired():
                raise self._too_slow(
                    f"{self.name} did not start within {self._start_within_s:g} s: look at disk"
                    " and network, and try again"
                ) from error
            raise
        return layer

    async def _ended(self, layer: Kept) -> None:
        try:
            async with asyncio.timeout(self._stop_within_s):
                await layer.stop()
        except TimeoutError:
            logger.error("%s did not stop within %g s", self.name, self._stop_within_s)
        except Exception:
            # What it leaves behind must not keep the next one from starting.
            logger.exception("%s did not stop cleanly", self.name)

    async def _begin_anew(self) -> None:
        failed_s = self._clock.monotonic()
        if failed_s - self._last_failed_s >= SOUND_AFTER_S:
            self._delay_s = 0.0
        self._last_failed_s = failed_s
        while True:
            if self._left is not None:
                await self._ended(self._left)
                self._ended_counted = self._counted(self._left.status().counters)
                self._left = None
            await asyncio.sleep(max(self._pause_s, self._delay_s))
            self._delay_s = min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * self._delay_s))
            try:
                fresh = await self._started()
            except Exception as error:  # noqa: BLE001  whatever it is, the next try may do
                self._reason = f"it could not be begun anew: {error}"
                logger.info("%s could not be begun anew: %s", self.name, error)
            else:
                break
        self.restarts += 1
        self._bring_up(fresh)
        logger.info("%s works again, after %.1f s", self.name, self._clock.monotonic() - failed_s)
        status = fresh.status()
        self._tell(self.name, status.health, status.reason)

    def _is_well(self, layer: Kept) -> bool:
        return layer is self._layer and not layer.failure

    def _take_down(self, failure: str) -> None:
        self._left, self._layer = self._layer, None
        self.peek = _holds_nothing
        self._reason = failure
        self._since_ms = self._clock.now_ms()
        self._works.clear()
        logger.warning("%s failed and is begun anew: %s", self.name, failure)
        calls, self._calls = self._calls, set()
        for call in calls:
            call.reschedule(asyncio.get_running_loop().time())
        self._tell(self.name, "down", failure)

    def _bring_up(self, layer: Kept) -> None:
        self._layer = layer
        self._reason = ""
        self.peek = layer.peek
        self._works.set()


class SupervisedCoordinator(SupervisedLayer[Chunked]):
    """The layer that gives long ranges in pieces."""

    def chunks(
        self,
        request: BackboneRequest,
        *,
        newest_first: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> CandleChunks:
        """As the layer's.

        Raises:
            TransportError: it has failed, and is begun anew.
            ClosedError: the service is closed.
        """
        return self.layer.chunks(request, newest_first=newest_first, on_progress=on_progress)
