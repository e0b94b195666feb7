"""What a caller holds of a stream."""

from __future__ import annotations

from typing import Any, Self

from upbit_backbone.protocol import Subscription, SubscriptionState


class Stream:
    """A `Subscription` that ends with its last reference.

    So ``async for ticker in api.stream_ticker("KRW-BTC"): … break`` leaves nothing
    subscribed behind, without an ``async with``.
    """

    def __init__(self, inner: Subscription) -> None:
        self._inner = inner

    @property
    def state(self) -> SubscriptionState:
        return self._inner.state

    @property
    def reason(self) -> str:
        return self._inner.reason

    def close(self) -> None:
        """End the stream. May be called twice."""
        self._inner.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._inner)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._inner.close()
