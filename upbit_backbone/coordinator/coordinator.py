"""The coordinator: plans over what is missing, asks in parallel, merges."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from upbit_backbone.call_in_work import reached
from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.coordinator.candles import CandleGatherer
from upbit_backbone.coordinator.chunks import Chunks
from upbit_backbone.coordinator.lists import ListGatherer
from upbit_backbone.coordinator.pages import Pages
from upbit_backbone.coordinator.trades import TradeGatherer
from upbit_backbone.coordinator.turns import LowTurns, SharedTurn
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    BackboneRequest,
    BackboneResponse,
    CandleChunks,
    DataSource,
    DataType,
    Health,
    LayerStatus,
    MarketList,
    Priority,
    Progress,
    Subscription,
)
from upbit_backbone.tasks import TaskOwner
from upbit_backbone.telemetry.processor_time import ProcessorTime


def _never_shedding(_: Priority) -> str | None:
    return None


def _as_many(most: int) -> int:
    return most


class Coordinator:
    """Layer 3. Asks the store once for the whole, and the exchange for the rest, in pages."""

    def __init__(
        self,
        below: DataSource,
        *,
        clock: Clock,
        rng: Random,
        symbols_per_request: int | None = None,
        shedding: Callable[[Priority], str | None] = _never_shedding,
        turns: LowTurns | None = None,
        parallelism: Callable[[int], int] = _as_many,
        low_processor: ProcessorTime | None = None,
        retries: bool = True,
    ) -> None:
        """Take the store.

        Args:
            below: The store.
            clock: The exchange's time.
            rng: Chance, for the jitter of retries.
            symbols_per_request: How many tickers or books one request may name; None: all.
            shedding: Why a priority has to wait, e.g. ``"load 78 %"``; None: it may run. Asked for
                each page of LOW and of long loads.
            turns: Of LOW pages, shared with the store's own, none while LOW has to wait; None: the
                coordinator's alone.
            parallelism: How many pages of one HIGH or NORMAL call may be in flight now, of so many.
            low_processor: Told what pages of LOW cost; None: nobody is.
            retries: Whether what failed is asked again.
        """
        self._below = below
        self._clock = clock
        if turns is None:
            turns = LowTurns(
                clock, pages_per_s=lambda: None if shedding(Priority.LOW) is None else 0.0
            )
        self._turns = turns
        self._pages = Pages(
            below,
            clock=clock,
            rng=rng,
            shedding=shedding,
            turns=self._turns,
            parallelism=parallelism,
            low_processor=ProcessorTime() if low_processor is None else low_processor,
            retries=retries,
        )
        self._candles = CandleGatherer(below, self._pages, clock)
        self._trades = TradeGatherer(below, self._pages, clock)
        self._tasks = TaskOwner()
        self._lists = ListGatherer(
            below,
            self._pages,
            clock,
            symbols_per_request,
            turns={
                kind: SharedTurn(self._turns, self._tasks, f"{kind.value}s")
                for kind in (DataType.TICKER, DataType.ORDERBOOK)
            },
        )
        self._running = False
        self._since_ms = clock.now_ms()

    async def start(self) -> None:
        """Begin to work."""
        self._running = True

    async def stop(self) -> None:
        """End what loads in pieces; other callers end with the layers below."""
        self._running = False
        await self._tasks.close()

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
        """As the store's."""
        return self._below.peek(
            data_type, symbol, timeframe, start_ms, end_ms, count, max_age_s, now
        )

    def peek_age_s(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        end_ms: int | None,
        now: float,
    ) -> float | None:
        """As the store's."""
        return self._below.peek_age_s(data_type, symbol, timeframe, end_ms, now)

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """Answer a request of any size.

        Candles and trades: a page that cannot be had leaves its span in ``metadata.missing`` and
        its cause in ``error``; what exists is the data. A history that ends early is `missing`
        with ``reason="unconfirmed"`` and no error until a second reading agrees. Trades are a
        tuple, ascending by time; tickers and books one in the order of the symbols.

        What arrived of candles is stored, also when the call is cancelled or its deadline comes.

        Raises:
            BackboneError: nothing of the answer could be had.
        """
        reached("coordinator")
        if request.data_type is DataType.CANDLE:
            return await self._candles.fetch(request)
        if request.data_type is DataType.TRADE:
            return await self._trades.fetch(request)
        return await self._lists.fetch(request)

    def chunks(
        self,
        request: BackboneRequest,
        *,
        newest_first: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> CandleChunks:
        """Candles of a range in finished stretches, while the rest loads.

        Nothing is asked before the first `anext`. What the store has is not asked again, so a
        load that broke off goes on where it was.

        Args:
            request: With a timeframe and a start; without an end, up to now.
            newest_first: Stretches from the newest down; each is ascending all the same.
            on_progress: Told after each page and each change of state.

        Raises:
            InvalidRequestError: it has no timeframe or start, or a count.
        """
        return Chunks(
            request,
            gatherer=self._candles,
            pages=self._pages,
            tasks=self._tasks,
            clock=self._clock,
            newest_first=newest_first,
            on_progress=on_progress,
        )

    def subscribe(self, request: BackboneRequest) -> Subscription:
        """Streams pass through."""
        return self._below.subscribe(request)

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        """As the store's."""
        return await self._below.markets(max_age_s=max_age_s)

    @property
    def failure(self) -> str:
        """Why it cannot work any more: it has no task of its own without which it could not."""
        return "" if self._running else "it was stopped"

    def status(self) -> LayerStatus:
        """It fails only with its neighbours."""
        counters = {
            "splits": float(self._candles.splits),
            "pages": float(self._pages.sent),
            "low_pages": float(self._turns.pages),
            "retries": float(self._pages.retrier.retries),
        }
        health: Health = "healthy" if self._running else "down"
        reason = "" if self._running else "not running"
        return LayerStatus("layer_3", health, reason, utc_datetime(self._since_ms), counters)
