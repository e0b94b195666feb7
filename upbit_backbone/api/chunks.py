"""What a caller holds of a long load of candles."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, Self

import msgspec

from upbit_backbone.api.home_loop import other_loop
from upbit_backbone.api.loads import Loads
from upbit_backbone.clock import epoch_ms
from upbit_backbone.errors import ClosedError, TransportError
from upbit_backbone.models import CandleSeries, Span
from upbit_backbone.protocol import (
    BackboneRequest,
    CandleChunks,
    Priority,
    Progress,
    ProgressState,
)

OPEN_AGAIN_S: Final = 0.25
"""What a failed layer has broken off is begun again so often until it works."""


class OpenChunks(Protocol):
    """Begins a load; as `ChunkSource.chunks`."""

    def __call__(
        self,
        request: BackboneRequest,
        *,
        newest_first: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> CandleChunks: ...


class ChunkStream:
    """`CandleChunks` that outlive a layer, and end with their last reference.

    ``async for series in api.iter_candle_chunks(…): …`` gives finished stretches while the rest
    loads; `pause`, `resume` and `cancel` may be called meanwhile, by anyone in the same loop.
    Whatever was loaded is stored, however it ends: the same call later goes on from there. When a
    layer below fails and is begun anew it goes on where it was; meanwhile its state is `waiting`.
    """

    def __init__(
        self,
        request: BackboneRequest,
        open_chunks: OpenChunks,
        *,
        newest_first: bool,
        on_progress: Callable[[Progress], None] | None,
        check: Callable[[], Awaitable[None]],
        check_running: Callable[[], None],
        loop: asyncio.AbstractEventLoop | None = None,
        loads: Loads | None = None,
    ) -> None:
        """Prepare; nothing is asked before the first `anext`.

        Args:
            request: What is to be loaded.
            open_chunks: Begins to load it, or what is left of it.
            newest_first: Which end comes first.
            on_progress: Told after each page and each change of state.
            check: Called before it begins.
            check_running: Raises `ClosedError` when the service is closed.
            loop: The one in which alone it may be read; None: that is not looked at.
            loads: Told of each stretch; None: nobody is.
        """
        self._loads = loads
        self._loop = loop
        self._request = request
        self._open_chunks = open_chunks
        self._newest_first = newest_first
        self._check: Callable[[], Awaitable[None]] | None = check
        self._check_running = check_running
        # What loads must not hold who reads: the loading ends with the last reference to him.
        self._account = _Account(request, on_progress, check_running, newest_first=newest_first)
        self._cancelled = asyncio.Event()
        self._paused = False
        self._missing: tuple[Span, ...] = ()
        """Of what earlier layers have finished."""
        self._given_ms: int | None = None
        """When the candle opens that was given last, or first, by `newest_first`."""
        self._given: deque[tuple[int, int]] = deque()
        """Where each stretch given since `unfinished` began, and how many candles it had."""
        self._inner: CandleChunks | None = None
        try:
            self._inner = self._open(request)
        except TransportError as error:
            self._account.nothing_loads(str(error))

    @property
    def priority(self) -> Priority:
        """Who goes first."""
        return self._request.priority

    @property
    def progress(self) -> Progress:
        """How far it has come, now."""
        if self._inner is None:
            return self._account.idle
        return self._account.of_all(self._inner.progress)

    @property
    def missing(self) -> tuple[Span, ...]:
        """What of the range so far nothing is known of, each with its reason; ascending."""
        later = () if self._inner is None else self._inner.missing
        return _joined(later + self._missing if self._newest_first else self._missing + later)

    def pause(self) -> None:
        """Begin no further page until `resume`; one under way is finished."""
        self._paused = True
        if self._inner is not None:
            self._inner.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        if self._inner is not None:
            self._inner.resume()

    def cancel(self) -> None:
        """End at once; iterating stops. May be called twice."""
        self._cancelled.set()
        if self._inner is not None:
            self._inner.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CandleSeries:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise other_loop()
        return await (self._next() if self._loads is None else self._loads.told(self, self._next()))

    async def _next(self) -> CandleSeries:
        if self._check is not None:
            await self._check()
            self._check = None
        while True:
            if self._inner is None:
                await self._begin_anew()
                continue
            try:
                series = await anext(self._inner)
            except ClosedError:
                self._broken_off(self._inner)
                await self._begin_anew()
                continue
            series = self._fresh(series)
            if len(series):
                return series

    def _fresh(self, series: CandleSeries) -> CandleSeries:
        """What was not given before a layer failed."""
        self._given.append((int(series.time[0]), len(series)))
        given_ms = self._given_ms
        if given_ms is not None:
            first_ms, last_ms = int(series.time[0]), int(series.time[-1])
            if self._newest_first:
                series = series.between(first_ms, min(given_ms, last_ms + 1))
            else:
                series = series.between(max(given_ms + 1, first_ms), last_ms + 1)
        if len(series):
            self._given_ms = int(series.time[0 if self._newest_first else -1])
        self._forget_finished()
        return series

    def _forget_finished(self) -> None:
        """Keep of what was given only that which would come again."""
        assert self._inner is not None
        start, end = map(epoch_ms, self._inner.unfinished)
        while self._given and not start <= self._given[0][0] < end:
            self._given.popleft()

    def _broken_off(self, inner: CandleChunks) -> None:
        """Take over what a load has come to that its layer has ended."""
        self._forget_finished()
        again = sum(rows for _, rows in self._given)
        self._given.clear()
        self._account.broken_off(inner.progress, again)
        self._missing = self.missing
        start, end = inner.unfinished
        self._request = msgspec.structs.replace(self._request, start_time=start, end_time=end)
        self._inner = None

    async def _begin_anew(self) -> None:
        """Have what is left loaded as soon as a layer can.

        Raises:
            ClosedError: the service is closed.
            StopAsyncIteration: it was cancelled meanwhile.
        """
        while not self._cancelled.is_set():
            try:
                async with asyncio.timeout(OPEN_AGAIN_S):
                    await self._cancelled.wait()
            except TimeoutError:
                pass
            else:
                break
            try:
                self._check_running()
            except ClosedError:
                self._account.end("the service was closed")
                raise
            try:
                self._inner = self._open(self._request)
            except (ClosedError, TransportError):
                continue
            if self._paused:
                self._inner.pause()
            return
        self._account.end("cancelled")
        raise StopAsyncIteration

    def _open(self, request: BackboneRequest) -> CandleChunks:
        return self._open_chunks(
            request, newest_first=self._newest_first, on_progress=self._account.take
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if self._inner is not None:
            self._inner.cancel()


def _joined(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """Spans that follow each other for one reason are one."""
    joined: list[Span] = []
    for span in spans:
        before = joined[-1] if joined else None
        if before is not None and (before.end, before.state, before.reason) == (
            span.start,
            span.state,
            span.reason,
        ):
            joined[-1] = msgspec.structs.replace(before, end=span.end)
        else:
            joined.append(span)
    return tuple(joined)


class _Account:
    """How far a load has come of which layers that failed have done a part."""

    def __init__(
        self,
        request: BackboneRequest,
        tell: Callable[[Progress], None] | None,
        check_running: Callable[[], None],
        *,
        newest_first: bool,
    ) -> None:
        assert request.timeframe is not None
        self._tell = tell
        self._check_running = check_running
        self._newest_first = newest_first
        self.idle = Progress(request.symbols[0], request.timeframe, 0, 0, 0, 0.0, None, "waiting")
        """As it stood when a layer failed: while nothing loads, that is all there is."""
        self._is_anew = False
        self._finished_periods: int | None = 0
        """Beside those that the present layer counts; None: it has not counted them yet."""
        self._finished_candles = self._finished_new = 0

    def nothing_loads(self, reason: str) -> None:
        """Take that there is no layer to begin with."""
        self._set_idle("waiting", reason)

    def broken_off(self, progress: Progress, again: int) -> None:
        """Take how far a layer had come that has failed.

        Args:
            progress: Its own.
            again: How many of its candles the next one will count again.
        """
        self.idle = self.of_all(progress)
        self._is_anew = True
        self._finished_candles += progress.candles - again
        self._finished_new += progress.new
        self._finished_periods = None

    def end(self, reason: str) -> None:
        """Take that it ends while nothing loads."""
        if self.idle.state != "ended":
            self._set_idle("ended", reason)

    def take(self, progress: Progress) -> None:
        """Tell the reader of the present layer's progress."""
        if self._tell is not None:
            self._tell(self.of_all(progress))

    def of_all(self, progress: Progress) -> Progress:
        """What the present layer has come to, with what was finished before."""
        state = progress.state
        if state == "waiting" and self._is_closed():
            state = "ended"
        if not self._is_anew:
            return msgspec.structs.replace(progress, state=state)
        before = self.idle
        if self._finished_periods is None:
            self._finished_periods = before.total - progress.total
        # Periods before the first candle are not in the total.
        if self._newest_first:
            total = progress.total + (self._finished_periods if progress.candles else before.done)
        else:
            total = before.total if before.candles else progress.total
        done = max(before.done, total - (progress.total - progress.done))
        candles = max(before.candles, self._finished_candles + progress.candles)
        return msgspec.structs.replace(
            progress,
            done=done,
            total=max(done, total),
            candles=candles,
            new=min(candles, self._finished_new + progress.new),
            state=state,
        )

    def _is_closed(self) -> bool:
        try:
            self._check_running()
        except ClosedError:
            return True
        return False

    def _set_idle(self, state: ProgressState, reason: str) -> None:
        self.idle = msgspec.structs.replace(self.idle, state=state, reason=reason)
        if self._tell is not None:
            self._tell(self.idle)
