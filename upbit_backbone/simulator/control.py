"""The simulator's own side door: what it counted, and what it traded."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.limits import CallCounter
from upbit_backbone.simulator.rest import error_body
from upbit_backbone.simulator.rest_bodies import trade_body


class ControlApi:
    """``/control``, not limited and not part of the exchange."""

    def __init__(
        self, exchange: Exchange, calls: CallCounter, connections: Callable[[], int]
    ) -> None:
        self._exchange = exchange
        self._calls = calls
        self._connections = connections

    def routes(self) -> list[web.RouteDef]:
        """The paths it answers."""
        return [
            web.get("/control", self._state),
            web.get("/control/trades", self._trades),
        ]

    async def _state(self, request: web.Request) -> web.StreamResponse:
        return _json(
            200,
            msgspec.json.encode(
                {
                    "name": self._exchange.name,
                    "now_ms": self._exchange.clock.now_ms(),
                    "connections": self._connections(),
                    "served": dict(self._calls.served),
                    "refused": dict(self._calls.refused),
                }
            ),
        )

    async def _trades(self, request: web.Request) -> web.StreamResponse:
        """All trades of ``market`` in [``from_ms``, ``to_ms``), oldest first, at most a day."""
        try:
            from_ms, to_ms = int(request.query["from_ms"]), int(request.query["to_ms"])
        except (KeyError, ValueError):
            return _json(400, error_body(400, "from_ms and to_ms must be epoch milliseconds"))
        if not 0 <= to_ms - from_ms <= DAY_MS:
            return _json(400, error_body(400, "from_ms to to_ms must span 0 to 86400000 ms"))
        desk = await self._exchange.desk(request.query.get("market", ""))
        if desk is None:
            return _json(404, error_body(404, "Code not found"))
        trades = desk.market.trades_back(
            from_ms=from_ms, before_ms=to_ms, before_id=None, count=_NO_LIMIT
        )
        rows = [trade_body(desk.market, trade) for trade in reversed(trades)]
        return _json(200, msgspec.json.encode(rows))


_NO_LIMIT = 1_440 * 64


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
