"""Tickers and order books of many symbols."""

from __future__ import annotations

import pytest

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import FakeExchangeSource
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.errors import ProtocolError, TransportError
from upbit_backbone.protocol import BackboneRequest, DataType

SYMBOLS = tuple(f"KRW-T{number:03}" for number in range(189))


def exchange_of(clock: ManualClock) -> FakeExchangeSource:
    exchange = FakeExchangeSource(clock)
    exchange.held = {(DataType.TICKER, symbol): f"ticker of {symbol}" for symbol in SYMBOLS}
    return exchange


@pytest.mark.parametrize(("size", "requests"), [(None, 1), (10, 19), (189, 1), (500, 1)])
async def test_a_list_is_asked_in_as_few_requests_as_may_be(
    clock: ManualClock, size: int | None, requests: int
) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=size
    )
    response = await coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS))
    assert response.data == tuple(f"ticker of {symbol}" for symbol in SYMBOLS)
    assert len(exchange.requests) == requests
    assert exchange.most_at_once == 1, "what is asked at once becomes one request again"
    assert response.metadata.split_info == (f"{requests} requests" if requests > 1 else None)
    assert response.metadata.data_count == len(SYMBOLS)


async def test_a_list_that_fails_names_its_symbols_and_the_others_are_kept(
    clock: ManualClock,
) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=60
    )

    async def fail(request: BackboneRequest) -> None:
        if SYMBOLS[100] in request.symbols:
            raise ProtocolError("not understood")

    exchange.before_answer = fail
    with pytest.raises(ProtocolError, match=r"not understood \(no answer for KRW-T060, ") as caught:
        await coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS))
    assert len(caught.value.partial) == 129


async def test_a_failed_request_is_tried_again_alone(clock: ManualClock) -> None:
    exchange = exchange_of(clock)
    coordinator = Coordinator(
        FakeStore(exchange), clock=clock, rng=NoChance(), symbols_per_request=100
    )
    left = 1

    async def fail(_: BackboneRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            raise TransportError("cut off")

    exchange.before_answer = fail
    response = await coordinator.fetch(BackboneRequest(DataType.TICKER, SYMBOLS))
    assert len(response.data) == len(SYMBOLS)
    assert [len(request.symbols) for request in exchange.requests] == [100, 100, 89]
