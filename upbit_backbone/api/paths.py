"""Which way a request takes down, by its priority."""

from __future__ import annotations

import msgspec

from upbit_backbone.api.event_bus import EventBusIntegration
from upbit_backbone.call_in_work import reached
from upbit_backbone.protocol import (
    MAX_PAGE_TRADES,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Priority,
)


class DirectDataAccess:
    """Straight down, without a queue.

    CRITICAL requests for what the router answers alone (tickers, order books, recent
    trades) skip the coordinator and the store; everything else starts at the coordinator.
    """

    def __init__(self, router: DataSource, coordinator: DataSource) -> None:
        self._router = router
        self._coordinator = coordinator

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As `DataSource.fetch`; the metadata names the path taken."""
        reached("direct: api")
        entry = self._router if self._is_router_alone(request) else self._coordinator
        response = await entry.fetch(request)
        path = f"direct: api → {response.metadata.path}"
        metadata = msgspec.structs.replace(response.metadata, path=path)
        return msgspec.structs.replace(response, metadata=metadata)

    @staticmethod
    def _is_router_alone(request: BackboneRequest) -> bool:
        if request.priority is not Priority.CRITICAL:
            return False
        if request.data_type is DataType.TRADE:
            recent = request.start_time is None and request.end_time is None
            return recent and request.count is not None and request.count <= MAX_PAGE_TRADES
        return request.data_type is not DataType.CANDLE


class EventBusDataAccess:
    """The way of NORMAL and LOW: the bus lets them begin, then straight down.

    While the bus is away they go down directly, and the metadata says so.
    """

    def __init__(self, bus: EventBusIntegration, coordinator: DataSource) -> None:
        self._bus = bus
        self._coordinator = coordinator

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As `DataSource.fetch`; the metadata names the path taken.

        Raises:
            SystemOverloadedError: the load was too high for this priority until the deadline.
        """
        async with self._bus.admitted(request) as admitted:
            way = "bus" if admitted else "direct, without the bus"
            reached(f"{way}: api")
            response = await self._coordinator.fetch(request)
        metadata = msgspec.structs.replace(
            response.metadata, path=f"{way}: api → {response.metadata.path}"
        )
        return msgspec.structs.replace(response, metadata=metadata)
