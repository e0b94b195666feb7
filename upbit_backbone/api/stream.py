"""What a caller holds of a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Self

from upbit_backbone.api.validation import check_priority
from upbit_backbone.errors import ClosedError
from upbit_backbone.models import Candle, Gap, Trade
from upbit_backbone.protocol import Priority, Subscription, SubscriptionState


class Stream:
    """A `Subscription` that outlives a layer, and ends with its last reference.

    So ``async for ticker in api.stream_ticker("KRW-BTC"): … break`` leaves nothing
    subscribed behind, without an ``async with``. When a layer below fails and is begun anew the
    stream is opened again; meanwhile it is `stale`. A reader of all is told by a `Gap` that is
    `unfillable` what it may have missed.
    """

    def __init__(
        self,
        inner: Subscription,
        *,
        reopen: Callable[[], Awaitable[Subscription]] | None = None,
        tells_gaps_of: str | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """Take the first subscription.

        Args:
            inner: It.
            reopen: Opens another one like it; raises `ClosedError` when the service is closed.
            tells_gaps_of: The symbol, for a reader of all; None: gaps do not matter.
            now: The exchange's time; needed for gaps.
        """
        self._inner = inner
        self._reopen = reopen
        self._symbol = tells_gaps_of
        self._now = now
        self._last = None if now is None else now()
        """Up to when everything was handed over."""
        self._lost: tuple[datetime, str] | None = None
        """Since when, and why, something may be missing that was not told yet."""
        self._held: Any = None
        self._outage = ""
        self._priority: Priority | None = None
        """As it was changed to; a stream that is opened anew has it, too."""
        self._ended = False

    @property
    def state(self) -> SubscriptionState:
        return "stale" if self._outage else self._inner.state

    @property
    def reason(self) -> str:
        return self._outage or self._inner.reason

    @property
    def complete_to_ms(self) -> int | None:
        """Up to when it has told everything, exchange time; None: that is not known."""
        return None if self._outage else self._inner.complete_to_ms

    def set_priority(self, priority: Priority) -> None:
        """Who waits for it is more, or less, urgent from now on.

        Raises:
            InvalidRequestError: not a `Priority`.
        """
        check_priority(priority)
        self._priority = priority
        self._inner.set_priority(priority)

    def close(self) -> None:
        """End the stream. May be called twice."""
        self._ended = True
        self._inner.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        while True:
            try:
                value = await anext(self._inner)
            except ClosedError as error:
                await self._open_anew(error)
            else:
                return self._next(value)

    async def _open_anew(self, error: ClosedError) -> None:
        """Go on with another subscription, if the service does."""
        if self._ended or self._reopen is None:
            raise error
        if self._lost is None and self._last is not None:
            self._lost = self._last, str(error)
        self._outage = str(error)
        try:
            self._inner = await self._reopen()
        finally:
            self._outage = ""
        if self._priority is not None:
            self._inner.set_priority(self._priority)
        if self._ended:
            self._inner.close()

    def _next(self, value: Any) -> Any:
        if self._symbol is None or self._now is None:
            return value
        if isinstance(value, Trade):
            self._last = value.exchange_time
        elif isinstance(value, Candle):
            self._last = self._now()
        lost, self._lost = self._lost, None
        if lost is None:
            return value
        since, why = lost
        self._held = value
        return Gap(self._symbol, "unfillable", since, max(since, self._now()), why)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._inner.close()
