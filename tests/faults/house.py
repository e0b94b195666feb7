"""The whole service before a simulated exchange in which a test lets things go wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec

from tests.eventually import eventually
from tests.faults.wire import Wire
from upbit_backbone import BackboneConfig, BackboneManager, MarketDataAPI
from upbit_backbone.clock import Clock, ShiftedClock, SystemClock, epoch_ms, utc_datetime
from upbit_backbone.errors import BackboneError
from upbit_backbone.models import Gap, Ticker, Trade
from upbit_backbone.protocol import Subscription
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.faults import parse_fault
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.settings import SimulatorSettings

BTC, XRP, ETH = "KRW-BTC", "KRW-XRP", "KRW-ETH"
START_MS = 1_772_664_620_000
"""2026-03-04T22:50:20Z: minutes as busy as the simulator gets, far from the turn of one."""
RATE = 10.0
"""Ten trades a second of KRW-BTC; markets livelier still take the simulator long to build."""
AT_ONCE = 10
"""Houses that one test has beside each other: more would be late for want of a processor."""
QUIET_S = 12.0
"""How long a reader may take until it has everything, after the last fault."""


class WaitingClock:
    """Stands at an instant until it begins to run at normal speed."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._running: Clock | None = None

    def now_ms(self) -> int:
        return self._start_ms if self._running is None else self._running.now_ms()

    def monotonic(self) -> float:
        return SystemClock().monotonic()

    def begin(self) -> None:
        """Run from now on."""
        self._running = ShiftedClock(self._start_ms)


class Brisk(Random):
    """A tenth of each backoff's longest wait: in turn, and soon."""

    def __init__(self) -> None:
        super().__init__(1)

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 10


@dataclass
class Following:
    """What a reader of all trades of one market got."""

    symbol: str
    stream: Subscription
    values: list[Trade | Gap] = field(default_factory=list)
    error: BackboneError | None = None
    ended: bool = False

    @property
    def trades(self) -> list[Trade]:
        return [value for value in self.values if isinstance(value, Trade)]

    @property
    def gaps(self) -> list[str]:
        """The states of the gaps it was told, in order."""
        return [value.state for value in self.values if isinstance(value, Gap)]

    async def read(self) -> None:
        try:
            async with self.stream:
                async for value in self.stream:
                    self.values.append(value)
        except BackboneError as error:
            self.error = error
        self.ended = True


@dataclass
class Watching:
    """What a reader of the latest ticker of one market got, and when."""

    stream: Subscription
    values: list[tuple[float, Ticker]] = field(default_factory=list)

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        async with self.stream:
            async for ticker in self.stream:
                self.values.append((loop.time(), ticker))

    async def recovered(self, *, detected_within_s: float = 10.0) -> tuple[float, Ticker]:
        """Wait until the stream is known to be stale and a value came again.

        Returns:
            Seconds between the two, and the value.
        """
        await eventually(lambda: self.stream.state == "stale", timeout=detected_within_s)
        detected_s = asyncio.get_running_loop().time()
        seen = len(self.values)
        await eventually(lambda: len(self.values) > seen, timeout=QUIET_S)
        at_s, ticker = self.values[seen]
        return at_s - detected_s, ticker


class House:
    """A simulator, a service that reaches it, and the readers of a test."""

    def __init__(
        self,
        simulator: Simulator,
        manager: BackboneManager,
        wire: Wire,
        door: aiohttp.ClientSession,
        local: Clock,
    ) -> None:
        self.simulator = simulator
        self.manager = manager
        self.wire = wire
        self.local = local
        self._door = door
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def api(self) -> MarketDataAPI:
        return self.manager.api

    def strike(self, *faults: str) -> None:
        """Let things go wrong, written as on the command line; times are seconds from now."""
        for text in faults:
            self.simulator.faults.add(parse_fault(text, self.simulator.now_ms))

    def struck(self) -> int:
        """How often the faults struck, all together."""
        return sum(active.fired for active in self.simulator.faults)

    async def follow(self, symbol: str = BTC) -> Following:
        """Read all trades of a market; returns when some came."""
        await self.ready(symbol)
        following = Following(symbol, self.api.stream_trades(symbol, policy="all"))
        self._tasks.append(asyncio.create_task(following.read(), name=f"reader of {symbol}"))
        await eventually(lambda: len(following.trades) >= 3)
        return following

    async def watch(self, symbol: str = BTC) -> Watching:
        """Read the latest ticker of a market; returns when one came."""
        await self.ready(symbol)
        watching = Watching(self.api.stream_ticker(symbol))
        self._tasks.append(asyncio.create_task(watching.read(), name=f"ticker of {symbol}"))
        await eventually(lambda: watching.values)
        return watching

    async def accepted(self, count: int) -> None:
        """Wait until so many connections were opened."""
        await eventually(lambda: self.wire.accepted >= count)

    async def ready(self, symbol: str) -> None:
        """Wait until the simulator has built a market, which takes seconds the first time."""
        await self.traded(symbol, self.simulator.now_ms, self.simulator.now_ms)

    async def more(self, following: Following, count: int = 3) -> None:
        """Wait until more trades came."""
        seen = len(following.trades)
        await eventually(lambda: len(following.trades) >= seen + count, timeout=QUIET_S)

    async def control(self) -> dict[str, Any]:
        """What the exchange says about itself."""
        async with self._door.get(self.simulator.control_url) as response:
            return dict(await response.json())

    async def is_exact(self, *followed: Following) -> None:
        """Wait until the readers have all that was traded up to now; compare it with the truth.

        From the first trade that a reader got on none may be missing; none may come twice, be
        altered, or come after a newer one without saying so.
        """
        to_ms = self.simulator.now_ms
        for one in followed:
            truth = await self._truth(one, to_ms)
            try:
                await eventually(
                    lambda one=one, truth=truth: (  # type: ignore[misc]
                        truth.keys() <= {trade.sequential_id for trade in one.trades}
                    ),
                    timeout=QUIET_S,
                )
            except AssertionError:
                lacking = truth.keys() - {trade.sequential_id for trade in one.trades}
                at = [f"{utc_datetime(truth[id_]['timestamp']):%T.%f}" for id_ in sorted(lacking)]
                raise AssertionError(
                    f"{one.symbol}: {len(lacking)} of {len(truth)} trades are missing:"
                    f" {at[:10]}; gaps: {one.gaps}; stream {one.stream.state}"
                    f" {one.stream.reason}; ended: {one.error}"
                ) from None
            times = Counter(trade.sequential_id for trade in one.trades)
            assert max(times.values()) == 1, f"{one.symbol}: trades came twice"
            for trade in one.trades:
                if trade.sequential_id in truth:
                    _assert_same(trade, truth[trade.sequential_id])
            # What a hostile frame invented has a mended stamp, and that orders nothing.
            assert_late_ones_say_so(
                trade
                for trade in one.trades
                if trade.sequential_id in truth or epoch_ms(trade.exchange_time) >= to_ms
            )

    async def _truth(self, one: Following, to_ms: int) -> dict[int, Any]:
        from_ms = epoch_ms(one.trades[0].exchange_time)
        rows = await self.traded(one.symbol, from_ms, to_ms)
        return {
            row["sequential_id"]: row
            for row in rows
            if row["sequential_id"] >= one.trades[0].sequential_id
        }

    async def traded(self, symbol: str, from_ms: int, to_ms: int) -> list[dict[str, Any]]:
        """The exact trades in [`from_ms`, `to_ms`), up to now, oldest first."""
        query = {"market": symbol, "from_ms": str(from_ms), "to_ms": str(to_ms)}
        async with self._door.get(f"{self.simulator.control_url}/trades", params=query) as answer:
            rows: list[dict[str, Any]] = await answer.json()
        return rows

    def own(self, task: asyncio.Task[None]) -> None:
        """Take over a task that ends with the house."""
        self._tasks.append(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _assert_same(trade: Trade, row: dict[str, Any]) -> None:
    side = {"BID": "BUY", "ASK": "SELL"}[row["ask_bid"]]
    told = (trade.price, trade.volume, trade.side, epoch_ms(trade.exchange_time))
    assert told == (row["trade_price"], row["trade_volume"], side, row["timestamp"])


def assert_late_ones_say_so(trades: Iterable[Trade]) -> None:
    """A trade that comes after a newer one is marked late."""
    newest = None
    for trade in trades:
        if newest is not None and trade.exchange_time < newest:
            assert trade.late, trade
        else:
            newest = trade.exchange_time


async def all_at_once(cases: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run the cases of a test beside each other, some at a time: they mostly wait.

    Raises:
        ExceptionGroup: some failed; each error has its case's name as a note.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def run(case: Coroutine[Any, Any, None]) -> None:
        async with places:
            await case

    ended = await asyncio.gather(*map(run, cases.values()), return_exceptions=True)
    errors = []
    for name, error in zip(cases, ended, strict=True):
        if isinstance(error, Exception):
            error.add_note(f"case: {name}")
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(cases)} cases failed", errors)


@asynccontextmanager
async def opened(
    data_dir: Path,
    *,
    start_ms: int = START_MS,
    clock: Clock | None = None,
    local: Callable[[Clock], Clock] = lambda clock: clock,
    rng: Random | None = None,
    events: Sequence[Mapping[str, Any]] = (),
    **settings: Any,
) -> AsyncIterator[House]:
    """A running house.

    Args:
        data_dir: Of the service.
        start_ms: The exchange's time when the service begins to start: only then is the
            market built, which takes seconds the first time.
        clock: The exchange's, in place of one that starts then.
        local: Makes the service's clock of the exchange's; by default it is the same.
        rng: The service's chance; by default its backoffs are short.
        events: What happens on the exchange's markets, as of a script.
        **settings: Of the exchange. Trades are told in order unless they say otherwise.
    """
    waiting = WaitingClock(start_ms)
    clock = clock or waiting
    settings.setdefault("late_trades", False)
    simulator = Simulator(
        clock=clock,
        rate=RATE,
        script=read_script(msgspec.json.encode({"events": events}), start_ms),
        first_symbol=BTC,
        settings=SimulatorSettings(**settings),
    )
    async with simulator, Wire(simulator.ws_url) as wire, aiohttp.ClientSession() as door:
        config = BackboneConfig(rest_url=simulator.rest_url, ws_url=wire.ws_url, data_dir=data_dir)
        own = local(clock)
        manager = BackboneManager(config, clock=own, rng=rng or Brisk())
        house = House(simulator, manager, wire, door, own)
        await house.ready(BTC)
        waiting.begin()
        await manager.initialize()
        try:
            yield house
        finally:
            await manager.shutdown()
            await house.close()
