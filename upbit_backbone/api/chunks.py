"""What a caller holds of a long load of candles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from upbit_backbone.models import CandleSeries, Span
from upbit_backbone.protocol import CandleChunks, Progress


class ChunkStream:
    """`CandleChunks` that end with their last reference.

    ``async for series in api.iter_candle_chunks(…): …`` gives finished stretches while the rest
    loads; `pause`, `resume` and `cancel` may be called meanwhile, by anyone in the same loop.
    Whatever was loaded is stored, however it ends: the same call later goes on from there.
    """

    def __init__(self, inner: CandleChunks, check: Callable[[], Awaitable[None]]) -> None:
        """Take what loads, and what is to be checked before it begins."""
        self._inner = inner
        self._check: Callable[[], Awaitable[None]] | None = check

    @property
    def progress(self) -> Progress:
        """How far it has come, now."""
        return self._inner.progress

    @property
    def missing(self) -> tuple[Span, ...]:
        """What of the range so far nothing is known of, each with its reason; ascending."""
        return self._inner.missing

    def pause(self) -> None:
        """Begin no further page until `resume`; one under way is finished."""
        self._inner.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._inner.resume()

    def cancel(self) -> None:
        """End at once; iterating stops. May be called twice."""
        self._inner.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CandleSeries:
        if self._check is not None:
            await self._check()
            self._check = None
        return await anext(self._inner)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        self._inner.cancel()
