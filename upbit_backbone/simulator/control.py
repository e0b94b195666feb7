"""The simulator's own side door: what it counted, what it traded, what goes wrong.

Only for callers of this machine, neither limited nor struck by faults.

- ``GET /control``: counts, peak rates, bans, connections, subscriptions, faults, clock
- ``GET /control/trades?market=…&from_ms=…&to_ms=…``: the exact trades between two instants,
  up to now
- ``POST /control/reset``: forget counts and bans
- ``GET``, ``POST``, ``DELETE /control/faults``, ``DELETE /control/faults/{number}``
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec
from aiohttp import web

from upbit_backbone.clock import DAY_MS
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.faults import ActiveFault, Fault, Faults, read_fault
from upbit_backbone.simulator.gateway import Gateway, error_body, no_route
from upbit_backbone.simulator.rest_bodies import trade_bodies
from upbit_backbone.simulator.websocket import StreamSession

MOST_TRADES = 1_440 * 64
"""Told at once: some 30 MB of JSON."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlApi:
    """``/control``, not limited and not part of the exchange."""

    def __init__(
        self,
        exchange: Exchange,
        gateway: Gateway,
        faults: Faults,
        sessions: Collection[StreamSession],
    ) -> None:
        self._exchange = exchange
        self._gateway = gateway
        self._faults = faults
        self._sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        """The paths it answers."""
        return [
            web.get("/control", _local(self._state)),
            web.get("/control/trades", _local(self._trades)),
            web.post("/control/reset", _local(self._reset)),
            web.get("/control/faults", _local(self._list_faults)),
            web.post("/control/faults", _local(self._add_fault)),
            web.delete("/control/faults", _local(self._clear_faults)),
            web.delete("/control/faults/{number:\\d{1,9}}", _local(self._clear_faults)),
        ]

    async def _state(self, request: web.Request) -> web.StreamResponse:
        calls = self._gateway.calls
        return _json(
            200,
            {
                "name": self._exchange.name,
                "now_ms": self._exchange.clock.now_ms(),
                "served": calls.served,
                "refused": calls.refused,
                "banned": calls.banned,
                "peaks": calls.peaks(),
                "bans": calls.bans(self._gateway.now()),
                "connections": len(self._sessions),
                "subscriptions": [_subscription_body(session) for session in self._sessions],
                "faults": [_fault_body(active) for active in self._faults],
            },
        )

    async def _trades(self, request: web.Request) -> web.StreamResponse:
        """All trades of ``market`` in [``from_ms``, ``to_ms``), oldest first, at most a day.

        Those that have not happened yet are left out; too many are refused, never cut.
        """
        try:
            from_ms, to_ms = int(request.query["from_ms"]), int(request.query["to_ms"])
        except (KeyError, ValueError):
            return _error(400, "from_ms and to_ms must be epoch milliseconds")
        if not 0 <= to_ms - from_ms <= DAY_MS:
            return _error(400, "from_ms to to_ms must span 0 to 86400000 ms")
        desk = await self._exchange.desk(request.query.get("market", ""))
        if desk is None:
            return _error(404, "Code not found")
        before_ms = min(to_ms, self._exchange.clock.now_ms() + 1)
        if before_ms <= max(from_ms, 0):
            return _json(200, [])
        trades = desk.market.trades_back(
            from_ms=max(from_ms, 0), before_ms=before_ms, before_id=None, count=MOST_TRADES + 1
        )
        if len(trades) > MOST_TRADES:
            return _error(400, f"these are more than {MOST_TRADES} trades: ask for less time")
        return _json(200, trade_bodies(desk.market, reversed(trades)))

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        self._gateway.calls.reset()
        return _json(200, {})

    async def _list_faults(self, request: web.Request) -> web.StreamResponse:
        return _json(200, [_fault_body(active) for active in self._faults])

    async def _add_fault(self, request: web.Request) -> web.StreamResponse:
        """Add the fault of the JSON body; answers its ``id``."""
        try:
            words = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _error(400, 'a fault must be a JSON object such as {"kind": "429"}')
        try:
            fault = read_fault(words, self._exchange.clock.now_ms())
        except InvalidRequestError as error:
            return _error(400, str(error))
        return _json(201, {"id": self._faults.add(fault)})

    async def _clear_faults(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info.get("number")
        if self._faults.clear(None if number is None else int(number)):
            return _json(200, {})
        return _error(404, f"no fault has the id {number}")


def _local(handler: Handler) -> Handler:
    """The handler for callers of this machine; for others the path does not exist."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not is_loopback(request.remote):
            return await no_route(request)
        return await handler(request)

    return handle


def is_loopback(address: str | None) -> bool:
    """Whether an address is this machine's own, IPv4 written as IPv6 included."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _subscription_body(session: StreamSession) -> dict[str, list[str]]:
    """Codes by type, of one connection."""
    codes: dict[str, list[str]] = {}
    for wish in session.subscription.wishes if session.subscription is not None else ():
        codes.setdefault(wish.type, []).extend(wish.codes)
    return codes


def _fault_body(active: ActiveFault) -> dict[str, Any]:
    bounds = {
        name: value
        for name in Fault.__dataclass_fields__
        if (value := getattr(active.fault, name)) is not None
    }
    return {"id": active.number, **bounds, "asked": active.asked, "fired": active.fired}


def _error(status: int, message: str) -> web.Response:
    return web.Response(
        status=status, body=error_body(status, message), content_type="application/json"
    )


def _json(status: int, body: Any) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )
