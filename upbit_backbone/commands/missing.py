"""What commands say of candles that are not there, and while they wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

from upbit_backbone.command_line import in_a_shell
from upbit_backbone.models import Span, Timeframe

UNCONFIRMED = "unconfirmed"
"""Why a span is missing that the exchange showed nothing of; a second reading proves it."""
FIRST_TOLD_S = 3.0
"""Whoever waits for longer wonders whether anything happens."""
TOLD_EVERY_S = 5.0


def missing_sentence(symbol: str, timeframe: Timeframe, span: Span) -> str:
    """Which candles are not there, and why."""
    start, end = (
        None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
        for moment in (span.start, span.end)
    )
    where = f"from {start or 'the beginning'} to {end or 'now'}"
    if span.reason == UNCONFIRMED:
        return (
            f"no candle of {symbol} {timeframe} {where}: the exchange shows none there (not listed"
            " yet, or nobody traded)"
        )
    return f"missing {where}: {in_a_shell(span.reason)}"


def none_sentence(symbol: str, timeframe: Timeframe) -> str:
    """A range without a candle, of which that is certain."""
    return f"no candle of {symbol} {timeframe} in this range: not listed yet, or nobody traded"


@asynccontextmanager
async def told_while_waiting(what: str, stream: TextIO) -> AsyncIterator[None]:
    """Say now and then that something is still loading, if a person looks at the stream."""
    if not stream.isatty():
        yield
        return
    teller = asyncio.create_task(_tell_now_and_then(what, stream), name=f"tell of {what}")
    try:
        yield
    finally:
        teller.cancel()
        await asyncio.wait([teller])


async def _tell_now_and_then(what: str, stream: TextIO) -> None:
    waited_s, next_s = 0.0, FIRST_TOLD_S
    while True:
        await asyncio.sleep(next_s)
        waited_s, next_s = waited_s + next_s, TOLD_EVERY_S
        stream.write(f"{what}: still loading after {waited_s:.0f} s (Ctrl+C ends it)\n")
        stream.flush()
