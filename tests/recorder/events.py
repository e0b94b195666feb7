"""What our own client makes of a stream: decoded events, without the times of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import aiohttp
import msgspec

from tests.recorder.processes import Addresses
from upbit_backbone.clock import ExchangeClock, SystemClock
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.origin import Origin
from upbit_backbone.routing.exchange import StreamEvent


async def decoded(
    addresses: Addresses, symbols: Sequence[str], number: int, within_s: float
) -> list[tuple[bool, dict[str, Any]]]:
    """The next events of our adapter: whether each is a snapshot, and its values."""
    clock, found = SystemClock(), []
    async with aiohttp.ClientSession() as session:
        adapter = UpbitAdapter(
            session, rest_url=addresses.rest_url, ws_url=addresses.ws_url, local=clock,
            origin=Origin("a replay"), clock=ExchangeClock(clock),
        )  # fmt: skip
        async with adapter.connect() as socket, asyncio.timeout(within_s):
            await socket.subscribe(dict.fromkeys(("ticker", "trade", "orderbook"), symbols))
            async for event in socket.events():
                assert isinstance(event, StreamEvent)
                found.append((event.snapshot, _values(event.value)))
                if len(found) == number:
                    break
    return found


def _values(value: Any) -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        values = msgspec.structs.asdict(value)
    else:
        assert is_dataclass(value)
        values = {field.name: getattr(value, field.name) for field in fields(value)}
    del values["received_time"]
    return values | {"kind": type(value).__name__}
