"""One connection of the stream: what is sent when, and what is taken for confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio

from tests.eventually import eventually
from tests.routing.fake_exchange import FakeExchange, make_ticker
from upbit_backbone.errors import TransportError
from upbit_backbone.routing.connection import (
    ASK_AGAIN_S,
    COALESCE_S,
    MAX_ASK_AGAIN_S,
    SNAPSHOT_S,
    StreamConnection,
    Wanted,
)
from upbit_backbone.routing.exchange import StreamEvent
from upbit_backbone.routing.interest import CHANGE_SPACING_S, Key

pytestmark = pytest.mark.steered_time

BTC, XRP, DOGE = "KRW-BTC", "KRW-XRP", "KRW-DOGE"
REFERENCE: Key = ("ticker", BTC)


class Desk:
    """Wants things of a connection, and notes what it tells."""

    def __init__(self, exchange: FakeExchange) -> None:
        self.exchange = exchange
        self.explicit: set[Key] = {REFERENCE}
        self.asked: set[Key] = set()
        self.automatic: set[Key] = set()
        self.events: list[StreamEvent] = []
        self.lives = 0
        self.dropped: list[Key] = []
        self.ended = 0
        self.connection = StreamConnection(
            exchange,
            exchange.clock,
            wanted=lambda: Wanted(
                frozenset(self.explicit), frozenset(self.asked), frozenset(self.automatic)
            ),
            on_event=self._take,
            on_life=lambda connection: self._alive(),
            on_dropped=lambda connection, key: self.dropped.append(key),
            on_garbled=lambda connection, garbled: None,
            on_change=self._changed,
        )

    def _take(self, connection: StreamConnection, event: StreamEvent) -> None:
        """As the hub does: what was not asked for is not looked at."""
        key: Key = (event.kind, event.value.symbol)
        if key in connection.sent:
            self.events.append(event)
            now = self.exchange.clock.monotonic()
            connection.lives(now)
            connection.confirm(key, snapshot=event.snapshot, now=now)

    def _alive(self) -> None:
        self.lives += 1

    def _changed(self) -> None:
        self.ended += 1

    def want(self, *keys: Key, automatic: bool = False) -> None:
        (self.automatic if automatic else self.explicit).update(keys)
        self.connection.changed.set()

    def ask(self, *keys: Key) -> None:
        self.asked.update(keys)
        self.connection.changed.set()

    def unwant(self, *keys: Key) -> None:
        self.explicit.difference_update(keys)
        self.asked.difference_update(keys)
        self.automatic.difference_update(keys)
        self.connection.changed.set()

    @property
    def sent(self) -> list[set[Key]]:
        return [
            {(kind, symbol) for kind, symbols in message.items() for symbol in symbols}
            for message in self.exchange.socket.messages
        ]

    @property
    def sent_at(self) -> list[float]:
        return self.exchange.socket.sent_at


@pytest_asyncio.fixture
async def desk(exchange: FakeExchange) -> AsyncIterator[Desk]:
    for symbol in (BTC, XRP, DOGE):
        exchange.quote(make_ticker(symbol, 1.0))
    desk = Desk(exchange)
    desk.connection.start()
    await eventually(lambda: exchange.subscribed)
    yield desk
    await desk.connection.close()


def ticker(symbol: str) -> Key:
    return "ticker", symbol


async def test_what_is_wanted_in_one_moment_costs_one_message(desk: Desk) -> None:
    keys = [ticker(f"KRW-{number}") for number in range(289)]
    before = len(desk.sent)
    began_s = desk.exchange.clock.monotonic()
    for key in keys:
        desk.want(key)
        await asyncio.sleep(COALESCE_S / 1_000)
    await eventually(lambda: len(desk.sent) > before)
    await asyncio.sleep(ASK_AGAIN_S / 2)
    assert desk.sent[before:] == [{REFERENCE, *keys}]
    assert desk.sent_at[before] - began_s <= 2 * COALESCE_S


async def test_the_whole_subscription_is_sent_again_and_what_was_confirmed_stays_so(
    desk: Desk,
) -> None:
    await eventually(lambda: REFERENCE in desk.connection.confirmed)
    since = desk.connection.sent[REFERENCE]
    desk.exchange.mute = True
    desk.want(ticker(XRP))
    await eventually(lambda: len(desk.sent) == 2)
    assert desk.sent[1] == {REFERENCE, ticker(XRP)}
    assert desk.connection.confirmed == {REFERENCE}
    assert desk.connection.sent[REFERENCE] == since
    desk.exchange.quote(make_ticker(BTC, 2.0))
    await eventually(lambda: desk.events[-1].value == make_ticker(BTC, 2.0))
    assert desk.dropped == []


async def test_what_is_wanted_no_more_is_dropped_and_told(desk: Desk) -> None:
    desk.want(ticker(XRP))
    await eventually(lambda: ticker(XRP) in desk.connection.confirmed)
    desk.unwant(ticker(XRP))
    await eventually(lambda: len(desk.sent) == 3)
    assert desk.sent[-1] == {REFERENCE}
    assert desk.dropped == [ticker(XRP)]
    assert desk.connection.confirmed == {REFERENCE}
    desk.want(ticker(XRP))
    await eventually(lambda: len(desk.sent) == 4)
    assert ticker(XRP) not in desk.connection.confirmed or desk.events[-1].snapshot


async def test_automatic_changes_are_at_most_one_a_second(desk: Desk) -> None:
    began = len(desk.sent)
    for number in range(30):
        desk.want(ticker(f"KRW-{number}"), automatic=True)
        await asyncio.sleep(0.1)
    await asyncio.sleep(CHANGE_SPACING_S)
    at = desk.sent_at[began - 1 :]
    assert 3 <= len(at) - 1 <= 5
    assert min(second - first for first, second in pairwise(at)) >= (CHANGE_SPACING_S)
    assert len(desk.sent[-1]) == 31


async def test_explicit_streams_are_sent_at_once_and_carry_the_others_along(desk: Desk) -> None:
    first_s = desk.sent_at[-1]
    desk.want(ticker(XRP), automatic=True)
    await asyncio.sleep(0.1)
    assert len(desk.sent) == 1
    desk.want(ticker(DOGE))
    await eventually(lambda: len(desk.sent) == 2)
    assert desk.sent[1] == {REFERENCE, ticker(XRP), ticker(DOGE)}
    assert desk.sent_at[1] - first_s < CHANGE_SPACING_S
    desk.unwant(ticker(DOGE))
    await asyncio.sleep(CHANGE_SPACING_S / 2)
    assert len(desk.sent) == 2, "nobody waits for what is given up"
    await eventually(lambda: len(desk.sent) == 3)


async def test_what_is_wanted_back_before_it_was_given_up_costs_nothing(desk: Desk) -> None:
    desk.want(ticker(XRP))
    await eventually(lambda: ticker(XRP) in desk.connection.confirmed)
    desk.unwant(ticker(XRP))
    await asyncio.sleep(0.2)
    desk.want(ticker(XRP))
    await asyncio.sleep(5)
    assert len(desk.sent) == 2
    assert ticker(XRP) in desk.connection.confirmed


async def test_what_is_not_confirmed_is_asked_for_again_ever_more_rarely(desk: Desk) -> None:
    desk.want(ticker("KRW-NONE"))
    await asyncio.sleep(4_000)
    at = desk.sent_at[1:]
    waits = [round(second - first) for first, second in pairwise(at)]
    assert waits[:7] == [3, 6, 12, 24, 48, 96, 192]
    assert set(waits[7:]) == {MAX_ASK_AGAIN_S}
    assert all(keys == {REFERENCE, ticker("KRW-NONE")} for keys in desk.sent[1:])
    desk.want(ticker(XRP))
    await asyncio.sleep(2 * ASK_AGAIN_S)
    assert len(desk.sent_at) == len(at) + 3, "a new subscription is asked for soon again"


async def test_it_can_be_asked_again_for_snapshots(desk: Desk) -> None:
    await eventually(lambda: desk.events)
    desk.connection.ask_again()
    await eventually(lambda: len(desk.events) == 2)
    assert all(event.snapshot for event in desk.events)
    await asyncio.sleep(60)
    assert len(desk.sent) == 2


async def test_messages_stay_within_five_a_second_and_a_hundred_a_minute(desk: Desk) -> None:
    for number in range(2_000):
        desk.want(ticker(f"KRW-{number}"))
        await asyncio.sleep(0.1)
    at = desk.sent_at
    # https://docs.upbit.com/kr/reference/rate-limits
    for window_s, limit in ((1.0, 5), (60.0, 100)):
        assert max(sum(start <= one < start + window_s for one in at) for start in at) <= limit
    assert len(at) >= 0.9 * 100 * 200 / 63, "and use what there is"


async def test_questions_leave_messages_for_what_somebody_reads(desk: Desk) -> None:
    for number in range(300):
        desk.ask(ticker(f"KRW-{number}"))
        await asyncio.sleep(0.1)
    at = desk.sent_at[1:]
    assert max(sum(start <= one < start + 1.0 for one in at) for start in at) == 3
    assert len(at) == 60, "of a minute's hundred"
    desk.ask(ticker(XRP))
    await asyncio.sleep(COALESCE_S)
    assert desk.connection.message_wait_s > 1, "no question could be sent now"
    began_s = desk.exchange.clock.monotonic()
    desk.want(ticker(DOGE))
    await eventually(lambda: ticker(DOGE) in desk.sent[-1])
    assert desk.sent_at[-1] - began_s <= 2 * COALESCE_S
    assert ticker(XRP) in desk.sent[-1], "it goes along"


async def test_a_question_is_sent_at_once_while_there_are_messages_for_it(desk: Desk) -> None:
    began_s = desk.exchange.clock.monotonic()
    desk.ask(ticker(XRP))
    await eventually(lambda: len(desk.sent) == 2)
    assert desk.sent_at[-1] - began_s <= 2 * COALESCE_S


async def test_a_value_that_is_no_snapshot_confirms_only_what_none_came_for(desk: Desk) -> None:
    desk.exchange.mute = True
    key: Key = ("trade", XRP)
    desk.want(key)
    await eventually(lambda: len(desk.sent) == 2)
    desk.exchange.trade(XRP)
    await asyncio.sleep(SNAPSHOT_S / 2)
    assert len(desk.events) == 2
    assert key not in desk.connection.confirmed, "it may belong to the subscription before"
    await asyncio.sleep(SNAPSHOT_S / 2)
    desk.exchange.trade(XRP)
    await eventually(lambda: key in desk.connection.confirmed)


async def test_it_is_ready_when_everything_has_come_that_can_be_expected(desk: Desk) -> None:
    connection = desk.connection
    await eventually(lambda: connection.ready)
    desk.want(("trade", DOGE))  # nobody ever traded it: no snapshot will come
    await eventually(lambda: len(desk.sent) == 2)
    assert not connection.ready
    await asyncio.sleep(SNAPSHOT_S)
    assert connection.ready


async def test_a_mute_connection_is_never_ready(exchange: FakeExchange) -> None:
    exchange.mute = True
    desk = Desk(exchange)
    desk.connection.start()
    await asyncio.sleep(10 * SNAPSHOT_S)
    assert exchange.subscribed
    assert not desk.connection.ready
    await desk.connection.close()


async def test_a_silent_connection_gives_signs_of_life(desk: Desk) -> None:
    await asyncio.sleep(10.5)
    assert desk.lives == 10
    assert not desk.connection.ended


@pytest.mark.parametrize("fault", ["cut", "half-open", "bug"])
async def test_it_ends_once_with_the_reason_and_leaves_nothing_behind(
    desk: Desk, fault: str
) -> None:
    await eventually(lambda: desk.events)
    if fault == "cut":
        desk.exchange.cut()
    elif fault == "half-open":
        desk.exchange.socket.half_open = True
    else:
        desk.exchange.socket.fail(KeyError("a bug"))
    await eventually(lambda: desk.ended)
    assert desk.connection.ended
    assert not desk.connection.ready
    assert isinstance(desk.connection.failure, KeyError if fault == "bug" else TransportError)
    assert not desk.exchange.socket.open
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint(
        {"stream connection", "stream receiver", "stream subscriber", "stream watch"}
    )
    assert desk.ended == 1


async def test_a_connection_that_is_not_had_ends_with_the_reason(exchange: FakeExchange) -> None:
    exchange.refuse_connect(1)
    desk = Desk(exchange)
    desk.connection.start()
    await eventually(lambda: desk.ended)
    assert str(desk.connection.failure) == "refused"


async def test_closing_is_no_failure_and_may_be_done_twice(desk: Desk) -> None:
    await desk.connection.close()
    await desk.connection.close()
    assert desk.connection.ended
    assert desk.connection.failure is None
    assert not desk.exchange.socket.open
