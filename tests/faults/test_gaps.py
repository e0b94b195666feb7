"""What a reader of all trades is told of a gap."""

from __future__ import annotations

from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import Gap, Trade
from upbit_backbone.reader import Reader
from upbit_backbone.routing.trade_stream import TradeStream

SYMBOL = "KRW-BTC"
START_MS = 1_772_664_620_000


def trade(at_ms: int) -> Trade:
    at = utc_datetime(at_ms)
    return Trade(SYMBOL, 1.0, 1.0, "BUY", at_ms * 10_000, False, at, at, "websocket", False)


async def states(reader: Reader) -> list[str]:
    """The states of the gaps that a reader was told of so far."""
    values = [await anext(reader) for _ in range(reader.unread)]
    return [value.state for value in values if isinstance(value, Gap)]


async def test_each_break_that_is_told_of_is_ended_once() -> None:
    stream, reader = TradeStream(SYMBOL), Reader("all", lambda _: None)
    stream.add_reader(reader, START_MS)
    stream.live(trade(START_MS + 1))
    gaps = []
    for number in (1, 2):
        now_ms = START_MS + number * 10_000
        stream.broken(now_ms, "cut off")
        gap = stream.resumed(now_ms + 100)
        assert gap is not None
        gaps.append(gap)
        stream.live(trade(now_ms + 200))
        stream.release()
    # Whether the second break makes a gap of its own, or the first one longer.
    for gap in dict.fromkeys(gaps):
        stream.close(gap)
    assert sorted(await states(reader)) == ["closed", "closed", "open", "open"]


async def test_a_gap_reaches_to_the_first_live_trade_though_the_clock_went_back() -> None:
    """An exchange's `Date` that is wrong for a while sets the clock by which gaps are bounded."""
    stream, reader = TradeStream(SYMBOL), Reader("all", lambda _: None)
    stream.add_reader(reader, START_MS)
    stream.live(trade(START_MS))
    gap = stream.broken(START_MS + 100, "cut off")
    assert stream.found(gap, [trade(START_MS + second * 1_000) for second in (8, 6, 4, 2)]) == 4
    stream.polled(gap, START_MS + 9_000)
    assert stream.resumed(START_MS + 13_000 - 30_000) is gap
    stream.live(trade(START_MS + 13_000))
    assert stream.found(gap, [trade(START_MS + second * 1_000) for second in (12, 11, 10)]) == 3
