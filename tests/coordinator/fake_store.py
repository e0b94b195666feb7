"""A neighbour below: a store that is a set of proved open times, on top of a fake exchange."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.storage.fake_exchange import FakeExchangeSource, series_of
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models import Span
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    MarketList,
    Reach,
    Subscription,
)
from upbit_backbone.storage.spans import SpanSet

MARGIN_MS = 5_000
AGREES_AFTER_MS = 60_000
LONG_AGO_MS = -(10**14)


class NoChance(Random):
    """Jitter of nothing: a test waits for no retry."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return 0.0


class FakeStore:
    """Answers `STORED` by what pages proved; passes `ANYWHERE` on, like the real one."""

    def __init__(self, exchange: FakeExchangeSource) -> None:
        self.exchange = exchange
        self.known = SpanSet()
        self.shown_empty_below: tuple[int, int] | None = None
        """Below which open time a short page showed nothing, and when it was read first."""
        self.stored_requests: list[BackboneRequest] = []

    @property
    def pages(self) -> list[BackboneRequest]:
        """What was asked of the exchange."""
        return self.exchange.requests

    def peek(self, *arguments: Any) -> Any | None:
        return self.exchange.peek(*arguments)

    def peek_age_s(self, *arguments: Any) -> float | None:
        return self.exchange.peek_age_s(*arguments)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        return self.exchange.subscribe(request)

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        return await self.exchange.markets(max_age_s=max_age_s)

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        if request.data_type is not DataType.CANDLE:
            return await self.exchange.fetch(request)
        if request.reach is Reach.STORED:
            return self._stored(request)
        return await self._page(request)

    def _stored(self, request: BackboneRequest) -> BackboneResponse:
        self.stored_requests.append(request)
        start_ms, end_ms, count = request.start_ms, request.end_ms, request.count
        assert end_ms is not None
        assert (start_ms is None) is (count is not None)
        existing = self.exchange.existing()
        missing: list[Span] = []
        if start_ms is not None:
            holes = self.known.missing(start_ms, end_ms)
            missing = [
                Span(utc_datetime(a), utc_datetime(b), "unknown", self._reason(b)) for a, b in holes
            ]
            opens = [
                at
                for span in self.known.overlap(start_ms, end_ms)
                for at in existing
                if span.start_ms <= at < span.end_ms
            ]
        else:
            assert count is not None
            reach = self.known.ending_at(end_ms)
            low_ms = end_ms if reach is None else reach.start_ms
            opens = [at for at in existing if low_ms <= at < end_ms][-count:]
            if len(opens) < count:
                missing = (
                    [] if low_ms <= LONG_AGO_MS else [Span(None, utc_datetime(low_ms), "unknown")]
                )
        return self._response(request, opens, tuple(missing), "storage")

    async def _page(self, request: BackboneRequest) -> BackboneResponse:
        asked_ms = self.exchange.clock.now_ms()
        response = await self.exchange.fetch(request)
        opens = response.data.time.tolist()
        end_ms, start_ms, count = request.end_ms, request.start_ms, request.count
        assert end_ms is not None
        assert count is not None
        low_ms = opens[0] if opens else end_ms
        timeframe = self.exchange.timeframe
        self.known.add(low_ms, min(end_ms, timeframe.floor_ms(asked_ms - MARGIN_MS)))
        missing: tuple[Span, ...] = ()
        if start_ms is None:
            raise InvalidRequestError("the coordinator names both ends of a page")
        if len(opens) < count:
            self._take_short(low_ms, asked_ms)
        if self.known.missing(start_ms, low_ms):
            missing = (
                Span(utc_datetime(start_ms), utc_datetime(low_ms), "unknown", "unconfirmed"),
            )
        return self._response(request, opens, missing, "rest")

    def _take_short(self, low_ms: int, asked_ms: int) -> None:
        """A second reading, a minute later, proves that nothing lies below."""
        first = self.shown_empty_below
        if first is None or first[0] != low_ms:
            self.shown_empty_below = (low_ms, asked_ms)
        elif asked_ms >= first[1] + AGREES_AFTER_MS:
            self.known.add(LONG_AGO_MS, low_ms)

    def _reason(self, end_ms: int) -> str:
        shown = self.shown_empty_below
        return "unconfirmed" if shown is not None and end_ms <= shown[0] else "not asked yet"

    def _response(
        self, request: BackboneRequest, opens: list[int], missing: tuple[Span, ...], source: Any
    ) -> BackboneResponse:
        exchange = self.exchange
        series = series_of(exchange.timeframe, opens, exchange.clock.now_ms())
        metadata = BackboneMetadata(
            source_layer="layer_2" if source == "storage" else "layer_1",
            cache_hit=not missing,
            processing_time_ms=0.0,
            data_count=len(series),
            priority_used=request.priority,
            source="cache" if source == "storage" else "rest",
            age_s=None if source == "storage" else 0.0,
            missing=missing,
        )
        return BackboneResponse(not missing, series, metadata, None, request.request_id)
