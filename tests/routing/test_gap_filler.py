"""Reading gaps back, on the real channel over an exchange in memory; time is steered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import read_now
from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock
from upbit_backbone.clock import DAY_MS, HOUR_MS, epoch_ms
from upbit_backbone.errors import (
    DataUnavailableError,
    ProtocolError,
    RateLimitedError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Gap, Trade
from upbit_backbone.protocol import Policy, Priority
from upbit_backbone.reader import MAX_UNREAD, Reader
from upbit_backbone.routing import gap_filler
from upbit_backbone.routing.circuit import Circuit
from upbit_backbone.routing.gap_filler import (
    DISAGREEMENTS,
    HOLD_S,
    LONGEST_ROOM_S,
    GapFiller,
)
from upbit_backbone.routing.realtime_cache import RealtimeCache
from upbit_backbone.routing.rest_channel import RestChannel
from upbit_backbone.routing.trade_stream import REST_LAG_MS, TradeGap, TradeStream
from upbit_backbone.tasks import TaskOwner

pytestmark = pytest.mark.steered_time

BTC = "KRW-BTC"
NOON = AUTUMN_2025_MS + 12 * HOUR_MS


class House:
    """A trade stream with readers, and the filler of its gaps."""

    def __init__(self, exchange: FakeExchange, rng: Random) -> None:
        self.exchange = exchange
        self.clock = exchange.clock
        self.tasks = TaskOwner()
        self.circuit = Circuit(self.clock, None)
        self.rest = RestChannel(
            exchange,
            cache=RealtimeCache(self.clock),
            circuit=self.circuit,
            tasks=self.tasks,
            clock=self.clock,
            budget=None,
            critical_reserve=2,
            on_answer=lambda took_ms, answered: None,
        )
        self.told: list[Gap] = []
        self.filler = GapFiller(self.rest, self.tasks, self.clock, rng, self.told.append)
        self.stream = TradeStream(BTC)
        self.most_unread = MAX_UNREAD

    def reader(self, policy: Policy = "all", priority: Priority = Priority.NORMAL) -> Reader:
        one = Reader(policy, self.stream.remove_reader, priority, most_unread=self.most_unread)
        self.stream.add_reader(one, self.clock.now_ms())
        return one

    def trade(self, at_ms: int | None = None, *, streamed: bool = True) -> Trade:
        one = self.exchange.trade(at_ms=at_ms, streamed=False)
        if streamed:
            self.stream.live(one)
        return one

    def back(self) -> TradeGap:
        """The stream is in force again, and its gap is being filled."""
        gap = self.stream.resumed(self.clock.now_ms())
        assert gap is not None
        self.filler.fill(BTC, self.stream, gap)
        return gap

    async def closed(self) -> None:
        await eventually(lambda: not self.stream.gaps, timeout=400)


@pytest.fixture
def wall() -> SteeredClock:
    return SteeredClock(NOON)


@pytest_asyncio.fixture
async def house(exchange: FakeExchange) -> AsyncIterator[House]:
    exchange.clock.run()
    one = House(exchange, Impatient(0.5))
    yield one
    await one.tasks.close()


async def broken(house: House, lost: int = 3) -> list[Trade]:
    """A trade is seen, then the stream breaks, and some are lost."""
    trades = [house.trade()]
    await asyncio.sleep(1)
    house.stream.broken(house.clock.now_ms(), "cut off")
    for _ in range(lost):
        trades.append(house.trade(streamed=False))
        await asyncio.sleep(0.1)
    return trades


def ids(values: list[Any]) -> list[int]:
    return [value.sequential_id for value in values if isinstance(value, Trade)]


def states(values: list[Any]) -> list[str]:
    return [value.state for value in values if isinstance(value, Gap)]


async def test_what_was_lost_is_read_back_in_order_and_once_more_two_seconds_later(
    house: House,
) -> None:
    every = house.reader()
    trades = await broken(house)
    house.back()
    trades.append(house.trade())
    asked_s = house.clock.monotonic()
    await eventually(lambda: every.unread == 5)
    assert house.clock.monotonic() - asked_s < 0.1
    asked = house.exchange.rest_calls["trades"]
    await house.closed()
    assert house.clock.monotonic() - asked_s == pytest.approx(REST_LAG_MS / 1_000, abs=0.1)
    assert house.exchange.rest_calls["trades"] > asked
    values = read_now(every)
    assert ids(values) == ids(trades)
    assert states(values) == []
    assert not any(value.late for value in values)
    assert (house.filler.opened, house.filler.closed, house.filler.trades) == (1, 1, 3)
    assert [(gap.symbol, gap.state, gap.reason) for gap in house.told] == [
        (BTC, "open", "cut off"),
        (BTC, "closed", "cut off"),
    ]
    assert house.told[0].start == trades[0].exchange_time
    assert house.told[0].start < house.told[0].end <= house.told[1].end


async def test_what_rest_lagged_behind_with_is_found_by_the_second_reading(house: House) -> None:
    house.exchange.rest_lag_ms = 1_500
    every = house.reader()
    trades = [house.trade()]
    await asyncio.sleep(2)
    house.stream.broken(house.clock.now_ms(), "cut off")
    lost = house.trade(streamed=False)
    await asyncio.sleep(0.2)
    house.back()
    after = house.trade()
    await house.closed()
    values = read_now(every)
    assert ids(values) == [*ids(trades), after.sequential_id, lost.sequential_id]
    assert [value.late for value in values if isinstance(value, Trade)] == [False, False, True]


async def test_an_answer_that_lacks_the_last_trade_seen_is_not_believed(house: House) -> None:
    every = house.reader()
    trades = await broken(house)
    # REST is further behind than the stream was: not even the last one seen is there.
    house.exchange.rest_hides = set(ids(trades))
    house.back()
    after = house.trade()
    await asyncio.sleep(HOLD_S / 2)
    assert ids(read_now(every)) == ids(trades[:1]), "held, for the answers are not believed"
    house.exchange.rest_hides.clear()
    await house.closed()
    assert ids(read_now(every)) == ids([*trades[1:], after])


async def test_a_second_reading_that_lacks_the_first_new_trade_is_read_again(
    house: House,
) -> None:
    every = house.reader()
    trades = await broken(house, lost=1)
    house.back()
    first_new = house.trade()
    house.exchange.rest_hides = {first_new.sequential_id}
    await asyncio.sleep(4)
    assert house.stream.gaps, "REST still lags: it has not what the stream told 4 s ago"
    lost = house.trade(trades[-1].exchange_time.timestamp().__trunc__() * 1_000, streamed=False)
    house.exchange.rest_hides.clear()
    await house.closed()
    assert lost.sequential_id in ids(read_now(every))


async def test_a_history_that_never_has_the_last_trade_seen_is_said_to_be_unfillable(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    every = house.reader()
    trades = await broken(house, lost=1)
    house.exchange.rest_hides = {trades[0].sequential_id}
    house.back()
    await house.closed()
    values = read_now(every)
    assert states(values) == ["open", "unfillable"]
    assert ids(values) == ids(trades), "what there was is delivered all the same"
    assert "lacks trades" in values[-1].reason
    assert house.filler.unfillable == 1
    assert f"trades of {BTC} are missing" in caplog.text
    assert house.exchange.rest_calls["trades"] <= 2 * DISAGREEMENTS + 2


@pytest.mark.parametrize("error", [None, DataUnavailableError("none")])
async def test_a_gap_is_not_given_up_while_it_still_grows(
    house: House, caplog: pytest.LogCaptureFixture, error: DataUnavailableError | None
) -> None:
    every = house.reader()
    trades = await broken(house, lost=1)
    house.exchange.rest_hides = {trades[0].sequential_id}
    house.exchange.hold_rest()
    house.back()
    await eventually(lambda: house.exchange.rest_waiting == 1)
    house.stream.broken(house.clock.now_ms(), "cut off again")
    house.exchange.rest_down = error
    house.exchange.answer_rest()
    await asyncio.sleep(100)
    assert len(house.stream.gaps) == 1
    trades.append(house.trade(streamed=False))
    back_ms = house.clock.now_ms()
    house.back()
    await house.closed()
    values = read_now(every)
    assert states(values) == ["open", "open", "unfillable", "unfillable"], "two breaks were told"
    end = next(value for value in values[::-1] if isinstance(value, Gap)).end
    assert epoch_ms(end) >= back_ms
    if error is None:
        assert ids(values) == ids(trades)


async def test_a_failing_exchange_is_asked_again_until_it_answers(house: House) -> None:
    every = house.reader()
    trades = await broken(house)
    house.exchange.fail_next(*[TransportError("no route")] * 5)
    house.back()
    trades.append(house.trade())
    await house.closed()
    values = read_now(every)
    assert sorted(ids(values)) == ids(trades)
    assert states(values) == ["open", "closed"]
    assert "no route" in next(value for value in values if isinstance(value, Gap)).reason


async def test_live_trades_are_held_for_two_seconds_at_most(house: House) -> None:
    every, latest = house.reader(), house.reader("latest")
    trades = await broken(house, lost=1)
    read_now(every)
    house.exchange.hold_rest()
    house.back()
    after, back_s = house.trade(), house.clock.monotonic()
    assert ids(read_now(latest)) == ids([after])
    await eventually(lambda: every.unread)
    assert house.clock.monotonic() - back_s == pytest.approx(HOLD_S, abs=0.02)
    values = read_now(every)
    assert (states(values), ids(values)) == (["open"], ids([after]))
    house.exchange.answer_rest()
    await house.closed()
    values = read_now(every)
    assert (states(values), ids(values)) == (["closed"], ids(trades[1:]))
    assert values[0].late


async def test_during_a_block_nothing_is_asked_and_after_it_the_gap_is_filled(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    every = house.reader()
    trades = await broken(house)
    house.exchange.fail_next(RateLimitedError("418", blocked=True, retry_after_s=60.0))
    house.back()
    await asyncio.sleep(59)
    assert house.exchange.rest_calls["trades"] == 1
    assert states(read_now(every)) == ["open"]
    await house.closed()
    values = read_now(every)
    assert (states(values), ids(values)) == (["closed"], ids(trades[1:]))


async def test_a_gap_of_more_than_a_week_is_filled_as_far_as_trades_are_kept(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    every = house.reader()
    seen = house.trade()
    house.stream.broken(house.clock.now_ms(), "the machine slept")
    lost = [house.trade(NOON + days * DAY_MS, streamed=False) for days in (1, 7)]
    house.clock.advance(9 * DAY_MS / 1_000)
    house.back()
    await house.closed()
    values = read_now(every)
    assert ids(values) == ids([seen, lost[1]])
    assert states(values) == ["open", "unfillable"]
    assert "7 days" in values[-1].reason


@pytest.mark.parametrize("error", [UnknownSymbolError("KRW-BTC"), DataUnavailableError("none")])
async def test_what_the_exchange_does_not_have_is_unfillable_at_once(
    house: House, caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    every = house.reader()
    await broken(house)
    house.exchange.fail_next(error)
    house.back()
    await house.closed()
    assert states(read_now(every)) == ["open", "unfillable"]
    assert [gap.state for gap in house.told] == ["open", "unfillable"]
    assert house.exchange.rest_calls["trades"] == 1


async def test_an_exchange_that_cannot_be_understood_is_not_asked_for_ever(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    every = house.reader()
    await broken(house)
    house.exchange.rest_down = ProtocolError("not a list of trades")
    house.back()
    await house.closed()
    assert states(read_now(every)) == ["open", "unfillable"]
    assert house.exchange.rest_calls["trades"] == DISAGREEMENTS


@pytest.fixture
def narrow(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers may leave a fifth unread of what they usually may."""
    house.most_unread = 2_000
    monkeypatch.setattr(gap_filler, "UNREAD_LIMIT", 1_000)


async def long_gap(house: House, lost: int) -> None:
    """More is lost than a reader may leave unread, and its readers know of the gap."""
    house.trade(NOON)
    house.stream.broken(house.clock.now_ms(), "cut off")
    for number in range(lost):
        house.trade(NOON + 1 + number, streamed=False)
    await asyncio.sleep(lost / 1_000)
    house.exchange.hold_rest()
    house.back()
    await asyncio.sleep(HOLD_S)
    house.exchange.answer_rest()


@pytest.mark.usefixtures("narrow")
async def test_a_reader_that_reads_slowly_gets_everything_however_long_the_gap(
    house: House,
) -> None:
    every = house.reader()
    await long_gap(house, 6_000)
    read = 0
    while house.stream.gaps or every.unread:
        read += len(ids(read_now(every)))
        await asyncio.sleep(5)
    assert every.state != "closed"
    assert read == 6_001


@pytest.mark.usefixtures("narrow")
async def test_a_reader_that_does_not_read_is_ended_and_the_others_get_everything(
    house: House,
) -> None:
    idle, busy = house.reader(), house.reader()
    await long_gap(house, 3_000)
    began_s, read = house.clock.monotonic(), 0
    while house.stream.gaps or busy.unread:
        read += len(ids(read_now(busy)))
        await asyncio.sleep(0.1)
    assert idle.state == "closed"
    assert "read faster" in idle.reason
    assert read == 3_001
    assert house.clock.monotonic() - began_s < LONGEST_ROOM_S + 5, "it was waited for once"


async def test_a_gap_whose_readers_have_left_is_not_read_any_further(house: House) -> None:
    every = house.reader()
    await broken(house)
    house.exchange.rest_down = TransportError("no route")
    house.back()
    await asyncio.sleep(3)
    house.stream.remove_reader(every)
    asked = house.exchange.rest_calls["trades"]
    await house.closed()
    await asyncio.sleep(10)
    assert house.exchange.rest_calls["trades"] <= asked + 1


async def test_it_is_asked_for_with_the_priority_of_the_most_urgent_reader(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    priorities = []
    trades = house.rest.trades

    async def noted(symbol: str, **others: Any) -> Any:
        priorities.append(others["priority"])
        return await trades(symbol, **others)

    monkeypatch.setattr(house.rest, "trades", noted)
    house.reader(priority=Priority.LOW)
    house.reader(priority=Priority.HIGH)
    house.reader("latest", priority=Priority.CRITICAL)
    await broken(house)
    house.back()
    await house.closed()
    assert set(priorities) == {Priority.HIGH}


async def test_closing_in_the_middle_of_a_filling_leaves_nothing_behind(house: House) -> None:
    every = house.reader()
    await broken(house)
    house.exchange.hold_rest()
    house.back()
    await eventually(lambda: house.exchange.rest_waiting == 1)
    await house.tasks.close()
    assert states(read_now(every)) == ["open"], "nobody reads it back any more"
    assert not house.stream.holding
    house.exchange.answer_rest()
    await asyncio.sleep(HOLD_S + 1)
    assert read_now(every) == [], "the timer that would have told of it again is gone"


async def test_polling_reads_from_where_it_was_sure_and_delivers_each_trade_once(
    house: House,
) -> None:
    house.exchange.rest_lag_ms = 500
    every = house.reader()
    trades = [house.trade()]
    await asyncio.sleep(1)
    gap = house.stream.broken(house.clock.now_ms(), "cut off")
    for _ in range(20):
        trades.append(house.trade(streamed=False))
        await asyncio.sleep(1)
        await house.filler.poll(BTC, house.stream, gap)
    house.exchange.rest_lag_ms = 0
    await house.filler.poll(BTC, house.stream, gap)
    values = read_now(every)
    assert ids(values) == ids(trades)
    assert gap.start_ms > house.clock.now_ms() - 5_000
    assert len(gap.known) < len(trades)


async def test_a_poll_that_lacks_what_was_seen_proves_nothing(house: House) -> None:
    house.reader()
    trades = await broken(house, lost=1)
    house.exchange.rest_hides = {trades[0].sequential_id}
    gap = house.stream.gaps[0]
    before = gap.start_ms
    await house.filler.poll(BTC, house.stream, gap)
    assert (gap.start_ms, gap.covered_ms) == (before, -1)


async def test_what_was_lost_on_a_living_connection_is_told_how_much_it_was(
    house: House,
) -> None:
    every = house.reader()
    house.trade()
    lost = house.trade(streamed=False)
    await asyncio.sleep(1)
    house.trade()
    judged: list[int] = []
    now_ms = house.clock.now_ms()
    gap = house.stream.lost(now_ms - 1_000, now_ms, "lost on the way")
    assert gap is not None
    house.filler.fill(BTC, house.stream, gap, on_end=lambda _, gap: judged.append(gap.trades_found))
    await house.closed()
    assert judged == [1]
    assert ids(read_now(every))[-1] == lost.sequential_id
