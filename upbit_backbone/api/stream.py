"""What a caller holds of a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self

from upbit_backbone.api.home_loop import other_loop
from upbit_backbone.api.validation import check_priority
from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.errors import BackboneError, ClosedError, TransportError
from upbit_backbone.models import Candle, Gap, GapState, Trade
from upbit_backbone.protocol import Priority, Subscription, SubscriptionState

OPEN_AGAIN_S: Final = 0.25
"""A stream whose layer has failed is opened again so often until it works."""
MAX_REMEMBERED: Final = 10_000
"""Ids of so many trades are kept: a new layer begins with the newest trade, whoever had it."""


def _for_ever() -> None:
    """No service that closes."""


def _known() -> bool:
    return True


class Stream:
    """A `Subscription` that outlives a layer, and ends with its last reference.

    So ``async for ticker in api.stream_ticker("KRW-BTC"): … break`` leaves nothing
    subscribed behind, without an ``async with``. When a layer below fails and is begun anew the
    stream is opened again; meanwhile it is `stale`. A reader of all is told at once by a `Gap` that
    is `open`, and by one that is `unfillable` when the stream is in force again; it is given no
    trade twice.
    """

    def __init__(
        self,
        subscribe: Callable[[], Subscription],
        *,
        check: Callable[[], bool] = _known,
        check_running: Callable[[], None] = _for_ever,
        tells_gaps_of: str | None = None,
        now_ms: Callable[[], int] = lambda: 0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Subscribe; where a layer is begun anew just now, as soon as that works.

        Args:
            subscribe: Opens a subscription; raises `TransportError` or `ClosedError` while a layer
                below does not work.
            check: Whether its symbol is known to be listed, asked until it is; raises
                `UnknownSymbolError` once it is known not to be, and `TransportError` when it must
                not be subscribed to before that is known.
            check_running: Raises `ClosedError` when the service is closed.
            tells_gaps_of: The symbol, for a reader of all; None: gaps do not matter.
            now_ms: The exchange's time; needed for gaps.
            loop: The one in which alone it may be read; None: that is not looked at.

        Raises:
            BackboneError: it cannot be opened, now or later.
        """
        self._inner: Subscription | None = None
        self._subscribe = subscribe
        self._check = check
        self._is_checked = False
        self._check_running = check_running
        self._symbol = tells_gaps_of
        self._now_ms = now_ms
        self._last_ms = now_ms()
        """Up to when everything was handed over."""
        self._lost: tuple[int, str] | None = None
        """Since when, and why, something may be missing; None: it was told how that ended."""
        self._held: deque[Any] = deque()
        self._given: deque[int] = deque()
        self._ids: set[int] = set()
        self._outage = ""
        self._priority: Priority | None = None
        """As it was changed to; a stream that is opened anew has it, too."""
        self._over = asyncio.Event()
        self._loop = loop
        self._again_s = 0.0
        """When it may be opened again, by the loop's time."""
        self._open()

    @property
    def state(self) -> SubscriptionState:
        if self._inner is not None:
            return self._inner.state
        return "closed" if self._over.is_set() else "stale"

    @property
    def reason(self) -> str:
        return self._outage if self._inner is None else self._inner.reason

    @property
    def complete_to_ms(self) -> int | None:
        """Up to when it has told everything, exchange time; None: that is not known."""
        if self._lost is not None:
            return self._lost[0]
        return None if self._inner is None else self._inner.complete_to_ms

    def set_priority(self, priority: Priority) -> None:
        """Who waits for it is more, or less, urgent from now on.

        Raises:
            InvalidRequestError: not a `Priority`.
        """
        check_priority(priority)
        self._priority = priority
        if self._inner is not None:
            self._inner.set_priority(priority)

    def close(self) -> None:
        """End the stream. May be called twice."""
        self._held.clear()
        if not self._over.is_set():
            self._end("closed by its reader")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise other_loop()
        while True:
            if self._held:
                return self._held.popleft()
            inner = self._inner
            if inner is None:
                await self._open_again()
                continue
            try:
                if self._is_checked and self._lost is None:
                    value = await anext(inner)
                else:
                    async with asyncio.timeout(OPEN_AGAIN_S):
                        value = await anext(inner)
            except TimeoutError:
                self._look(inner)
            except (ClosedError, StopAsyncIteration) as error:
                # Whoever reads may be cancelled while it is opened again: it stays broken off.
                self._broken_off(inner, str(error) or inner.reason)
            except BackboneError as error:
                self._end(str(error))
                raise
            else:
                self._is_checked = True
                if self._symbol is None:
                    return value
                self._take(self._symbol, value)

    def _broken_off(self, inner: Subscription, reason: str) -> None:
        """Take that a subscription has ended: it goes on with another one, if the service does."""
        if inner is not self._inner:
            return  # it was closed, or another reader of this stream was told before
        self._inner = None
        self._outage = reason
        self._still_running()
        if self._lost is None and self._symbol is not None:
            self._lost = min(self._last_ms, self._now_ms()), reason
            self._tell(self._symbol, "open")

    async def _open_again(self) -> None:
        """Wait until it may be opened again, and try."""
        wait_s = self._again_s - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._over.wait()
        except TimeoutError:
            if self._inner is None:
                self._open()
        else:
            raise StopAsyncIteration

    def _open(self) -> None:
        # Not at once again: what breaks off as soon as it is opened would hold the loop.
        self._again_s = asyncio.get_running_loop().time() + OPEN_AGAIN_S
        self._still_running()
        try:
            self._is_checked = self._is_checked or self._check()
            inner = self._subscribe()
        except (ClosedError, TransportError) as error:
            self._outage = str(error)
        except BackboneError as error:
            self._end(str(error))
            raise
        else:
            self._inner = inner
            if self._priority is not None:
                inner.set_priority(self._priority)

    def _still_running(self) -> None:
        try:
            self._check_running()
        except ClosedError as error:
            self._end(str(error))
            raise

    def _look(self, inner: Subscription) -> None:
        """Nothing came for a while: see what is to be told all the same."""
        if not self._is_checked:
            try:
                self._is_checked = self._check()
            except TransportError:
                pass
            except BackboneError as error:
                self._end(str(error))
                raise
        if self._symbol is not None and inner.state == "confirmed":
            self._tell_end(self._symbol)

    def _end(self, reason: str) -> None:
        self._over.set()
        self._outage = reason
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    def _take(self, symbol: str, value: Any) -> None:
        """Hand a value over to a reader of all."""
        self._tell_end(symbol)
        if isinstance(value, Trade):
            if value.sequential_id in self._ids:
                return
            self._remember(value.sequential_id)
            self._last_ms = max(self._last_ms, epoch_ms(value.exchange_time))
        elif isinstance(value, Candle):
            at_ms = epoch_ms(value.open_time)
            over_ms = value.timeframe.next_ms(at_ms) if value.closed else at_ms
            self._last_ms = max(self._last_ms, over_ms)
        self._held.append(value)

    def _remember(self, sequential_id: int) -> None:
        self._ids.add(sequential_id)
        self._given.append(sequential_id)
        if len(self._given) > MAX_REMEMBERED:
            self._ids.discard(self._given.popleft())

    def _tell_end(self, symbol: str) -> None:
        """It is in force again: what was lost ends here."""
        if self._lost is not None:
            self._last_ms = self._tell(symbol, "unfillable")
            self._lost = None

    def _tell(self, symbol: str, state: GapState) -> int:
        assert self._lost is not None
        since_ms, reason = self._lost
        now_ms = max(since_ms, self._now_ms())
        gap = Gap(symbol, state, utc_datetime(since_ms), utc_datetime(now_ms), reason)
        self._held.append(gap)
        return now_ms

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._inner is not None:
            self._inner.close()
