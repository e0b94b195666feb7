"""A router on a fake exchange, closed by the test itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import pytest

from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock
from upbit_backbone.protocol import BackboneRequest, DataType, Policy
from upbit_backbone.routing.reader import Reader
from upbit_backbone.routing.router import Router

HANGING_S = 10.0
OpenRouter = Callable[..., AbstractAsyncContextManager[Router]]


@pytest.fixture
def wall() -> SteeredClock:
    return SteeredClock()


@pytest.fixture
def exchange(wall: SteeredClock) -> FakeExchange:
    return FakeExchange(wall)


@pytest.fixture
def open_router(exchange: FakeExchange, wall: SteeredClock) -> OpenRouter:
    """``async with open_router() as router``; reconnects do not wait unless told to."""

    @asynccontextmanager
    async def running(rng: Random | None = None) -> AsyncIterator[Router]:
        router = Router(exchange, clock=wall, rng=rng or Impatient(), critical_reserve=2)
        await router.start()
        try:
            # A reader that nobody ends would hold up the whole run.
            async with asyncio.timeout(HANGING_S):
                yield router
        finally:
            await router.stop()

    return running


def stream(
    router: Router,
    data_type: DataType,
    *symbols: str,
    policy: Policy = "all",
    **others: Any,
) -> Reader:
    """Open a reader; values it has are looked at with `read_all`."""
    request = BackboneRequest(data_type, symbols or ("KRW-BTC",), policy=policy, **others)
    reader = router.subscribe(request)
    assert isinstance(reader, Reader)
    return reader


def read_now(reader: Reader) -> list[Any]:
    """What a reader has not read yet, without waiting for more."""
    values: list[Any] = []
    while reader.unread:
        step = reader.__anext__()
        try:
            step.send(None)
        except StopIteration as stop:
            values.append(stop.value)
    return values
