"""An adapter at real servers of this machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import ClientSession

from tests.exchanges.scripted_rest import ScriptedRest
from tests.manual_clock import ManualClock
from upbit_backbone.clock import ExchangeClock
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.origin import Origin


@pytest.fixture
async def rest() -> AsyncIterator[ScriptedRest]:
    async with ScriptedRest() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as opened:
        yield opened


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port where nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def origin() -> Origin:
    return Origin("test-exchange")


@pytest.fixture
def exchange_clock(clock: ManualClock) -> ExchangeClock:
    return ExchangeClock(clock)


@pytest.fixture
def remaining() -> list[tuple[str, int]]:
    """What the exchange said is left, in the order it said it."""
    return []


@pytest.fixture
def adapter(
    session: ClientSession,
    rest: ScriptedRest,
    origin: Origin,
    exchange_clock: ExchangeClock,
    clock: ManualClock,
    remaining: list[tuple[str, int]],
) -> UpbitAdapter:
    return UpbitAdapter(
        session,
        rest_url=rest.url,
        ws_url="ws://127.0.0.1:1/websocket/v1",
        origin=origin,
        clock=exchange_clock,
        local=clock,
        on_remaining=lambda group, left: remaining.append((group, left)),
    )
