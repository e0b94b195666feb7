"""When each frame was received, though several have a millisecond in common."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.manual_clock import ManualClock
from upbit_backbone.clock import ExchangeClock, utc_datetime
from upbit_backbone.exchanges.upbit.websocket import UpbitSocket
from upbit_backbone.models import Trade
from upbit_backbone.origin import Origin
from upbit_backbone.routing.exchange import StreamEvent


class Frames:
    """A connection on which trades arrive whenever they are asked for."""

    def __init__(self, clock: ManualClock, waits_s: list[float]) -> None:
        self._clock = clock
        self._waits_s = iter(waits_s)
        self.arrived_ms: list[int] = []

    async def recv(self, *, decode: bool) -> bytes:
        assert not decode
        self._clock.advance(next(self._waits_s))
        self.arrived_ms.append(self._clock.now_ms())
        trade = {
            "ty": "trade",
            "cd": "KRW-BTC",
            "tp": 1.0,
            "tv": 1.0,
            "ab": "BID",
            "st": "REALTIME",
        }
        number = len(self.arrived_ms)
        stamps = {"tms": self._clock.now_ms(), "ttms": self._clock.now_ms() - number}
        return msgspec.json.encode(trade | stamps | {"sid": number})


@pytest.mark.parametrize("waits_s", [[0.0, 0.0, 0.001, 0.0, 0.0, 0.999, 5.0, 0.0004, 0.0]])
async def test_each_value_has_the_times_of_its_own_frame(
    clock: ManualClock, waits_s: list[float]
) -> None:
    connection: Any = Frames(clock, waits_s)
    socket = UpbitSocket(
        connection,
        origin=Origin("test"),
        clock=ExchangeClock(clock),
        local=clock,
        on_microseconds=None,
    )
    incoming = socket.events()
    received = []
    for number, _ in enumerate(waits_s, start=1):
        event = await anext(incoming)
        assert isinstance(event, StreamEvent)
        assert isinstance(event.value, Trade)
        received.append(event.value.received_time)
        assert event.value.exchange_time == utc_datetime(clock.now_ms() - number)
    await incoming.aclose()
    assert received == [utc_datetime(at_ms) for at_ms in connection.arrived_ms]
