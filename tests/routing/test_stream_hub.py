from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import OpenRouter, confirmed, read_now, running, stream
from tests.routing.fake_exchange import (
    FakeExchange,
    Impatient,
    SteeredClock,
    make_ticker,
    make_trade,
)
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import ClosedError, RateLimitedError, StorageOriginError
from upbit_backbone.models import Gap, Ticker, Timeframe
from upbit_backbone.protocol import DataType
from upbit_backbone.reader import MAX_UNREAD
from upbit_backbone.routing.connection import SNAPSHOT_S
from upbit_backbone.routing.gap_filler import HOLD_S
from upbit_backbone.routing.rate_limit import WINDOW_S
from upbit_backbone.routing.router import Router

pytestmark = pytest.mark.steered_time
BTC, XRP = "KRW-BTC", "KRW-XRP"
TICKER, TRADE, BOOK = DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK


def fresh_ticker(router: Router, exchange: FakeExchange, symbol: str = BTC) -> Any:
    now = exchange.clock.monotonic()
    return router.peek(TICKER, symbol, None, None, None, None, 5.0, now)


async def test_289_readers_cost_one_message(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    symbols = [f"KRW-{number}" for number in range(289)]
    for symbol in symbols:
        exchange.quote(make_ticker(symbol, 1.0))
    async with open_router() as router:
        readers = [stream(router, TICKER, symbol) for symbol in symbols]
        await confirmed(*readers)
        assert exchange.socket.messages == [{"ticker": frozenset({BTC, *symbols})}]
        assert len(exchange.sockets) == 1


async def test_a_subscription_is_confirmed_by_its_snapshot(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router() as router:
        known, unknown = stream(router, TICKER, BTC), stream(router, TICKER, "KRW-NONE")
        assert (known.state, unknown.state) == ("pending", "pending")
        await confirmed(known)
        assert (await anext(known)).price == 5.0
        assert unknown.state == "pending"
        assert router.connection == "live"


async def test_a_reader_added_to_a_confirmed_subscription_is_confirmed_and_told_at_once(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router() as router:
        await confirmed(stream(router, TICKER))
        second = stream(router, TICKER)
        assert second.state == "confirmed"
        assert (await anext(second)).price == 5.0, "the market may be quiet for long"
        exchange.quote(make_ticker(BTC, 6.0))
        assert (await anext(second)).price == 6.0
        assert len(exchange.socket.messages) == 1


async def test_a_second_symbol_joins_the_same_connection(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    exchange.trade(XRP)
    async with open_router() as router:
        await confirmed(stream(router, TICKER))
        await confirmed(stream(router, TRADE, XRP))
        assert exchange.socket.messages[-1] == {
            "ticker": frozenset({BTC, XRP}),
            "trade": frozenset({XRP}),
        }
        assert len(exchange.sockets) == 1


async def test_after_a_cut_everything_is_subscribed_again(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    exchange.trade(XRP)
    async with open_router(Impatient(0.05)) as router:
        readers = [stream(router, TICKER), stream(router, TRADE, XRP)]
        await confirmed(*readers)
        exchange.cut()
        await eventually(lambda: all(reader.state == "stale" for reader in readers))
        assert readers[0].reason == "cut off"
        await confirmed(*readers)
        assert len(exchange.sockets) == 2
        assert exchange.sockets[1].messages == exchange.sockets[0].messages
        exchange.quote(make_ticker(BTC, 6.0, AUTUMN_2025_MS + 1))
        await eventually(lambda: fresh_ticker(router, exchange).price == 6.0)


async def test_after_a_cut_a_held_ticker_grows_old(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router(Impatient(60.0)) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        later = exchange.clock.monotonic() + 100.0
        router._hub._cache.alive(later)
        assert router.peek(TICKER, BTC, None, None, None, None, 5.0, later) is not None
        exchange.cut()
        await eventually(lambda: reader.state == "stale")
        assert router.peek(TICKER, BTC, None, None, None, None, 5.0, later) is None


async def test_a_reader_that_had_values_stays_stale_while_reconnecting_fails(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router(Impatient(0.01)) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        exchange.refuse_connect(3)
        exchange.cut()
        states = set()

        def noted() -> bool:
            states.add(reader.state)
            return len(exchange.sockets) == 2 and reader.state == "confirmed"

        await eventually(noted)
        assert states == {"confirmed", "stale"}
        late_comer = stream(router, TICKER, XRP)
        assert late_comer.state == "pending"


async def test_an_outage_is_logged_once_and_shown_until_data_flows_again(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router(Impatient(0.01)) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        assert router.status().health == "healthy"
        exchange.refuse_connect(3)
        exchange.cut()
        await eventually(lambda: reader.state == "stale")
        since, seen = router.status().since, set()

        def noted() -> bool:
            status = router.status()
            seen.add((status.health, bool(status.reason)))
            return reader.state == "confirmed"

        exchange.clock.advance(1)
        await eventually(lambda: router.status().reason == "refused")
        assert router.status().since == since
        await eventually(noted)
        assert ("degraded", False) not in seen
        assert {health for health, _ in seen} <= {"degraded", "healthy"}
        assert router.status().health == "healthy"
        counters = router.status().counters
        assert (counters["connections_lost"], counters["reconnects"]) == (1, 1), "not each attempt"
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["stream lost: cut off"]


async def test_connections_refused_as_too_many_are_counted_with_the_requests_that_were(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 5.0))
    exchange.refuse_connect(2, RateLimitedError("429", retry_after_s=0.01))
    async with open_router(Impatient(0.01)) as router:
        await confirmed(stream(router, TICKER))
        counters = router.status().counters
        assert (counters["http_429"], counters["refused"], counters["blocks"]) == (2, 0, 0)


async def test_health_does_not_flap_between_attempts(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.refuse_connect(3)
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router() as router:
        health: list[str] = []
        connect = exchange.connect

        def watched() -> Any:
            health.append(router.status().health)
            return connect()

        exchange.connect = watched  # type: ignore[method-assign]
        await confirmed(stream(router, TICKER))
        assert health == ["healthy", "degraded", "degraded", "degraded"]
        counters = router.status().counters
        assert (counters["connections_lost"], counters["reconnects"]) == (0, 0), (
            "for the first time"
        )


async def test_backoff_grows_to_its_limit_and_starts_small_again_only_after_a_stable_time(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    rng = Impatient()
    exchange.refuse_connect(3)
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router(rng) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        assert rng.limits_s == [0.5, 1.0, 2.0]
        exchange.cut()
        await eventually(lambda: len(exchange.sockets) == 2 and reader.state == "confirmed")
        assert rng.limits_s[3:] == [4.0], "connecting alone resets nothing"


async def test_a_connection_that_was_stable_resets_the_backoff(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, ahead = Impatient(), [0.0]
    real = wall.monotonic
    monkeypatch.setattr(wall, "monotonic", lambda: real() + ahead[0])
    exchange.refuse_connect(2)
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router(rng) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        ahead[0] += 11.0
        exchange.cut()
        await eventually(lambda: len(exchange.sockets) == 2 and reader.state == "confirmed")
        assert rng.limits_s == [0.5, 1.0, 0.5]


async def test_an_attempt_that_took_long_and_failed_is_no_stable_connection(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, ahead = Impatient(), [0.0]
    real, connect = wall.monotonic, exchange.connect
    monkeypatch.setattr(wall, "monotonic", lambda: real() + ahead[0])

    def slowly() -> Any:
        ahead[0] += 20.0
        return connect()

    monkeypatch.setattr(exchange, "connect", slowly)
    exchange.refuse_connect(3)
    exchange.quote(make_ticker(BTC, 5.0))
    async with open_router(rng) as router:
        await confirmed(stream(router, TICKER))
        assert rng.limits_s == [0.5, 1.0, 2.0]


async def test_a_short_break_costs_no_trade_and_makes_no_gap(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    async with open_router(Impatient(0.5)) as router:
        first = exchange.trade()
        every, latest = stream(router, TRADE), stream(router, TRADE, policy="latest")
        await confirmed(every, latest)
        exchange.cut()
        await eventually(lambda: every.state == "stale")
        missed, newest = exchange.trade(price=101.0), exchange.trade(price=101.5)
        exchange.hold_rest()
        await confirmed(every)
        after = exchange.trade(price=102.0)
        await eventually(lambda: read_now(latest)[-1:] == [after])
        assert every.unread == 1, "the live one waits for the one that was lost"
        exchange.answer_rest()
        await eventually(lambda: every.unread == 4)
        by_rest = msgspec.structs.replace(missed, source="rest")
        assert read_now(every) == [first, by_rest, newest, after]
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        assert every.unread == latest.unread == 0


async def test_where_the_history_cannot_be_had_readers_learn_of_the_gap_after_two_seconds(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    async with open_router(Impatient(0.5)) as router:
        first = exchange.trade()
        every, latest = stream(router, TRADE), stream(router, TRADE, policy="latest")
        await confirmed(every, latest)
        exchange.cut()
        await eventually(lambda: every.state == "stale")
        missed, newest = exchange.trade(price=101.0), exchange.trade(price=101.5)
        exchange.hold_rest()
        await confirmed(every)
        after = exchange.trade(price=102.0)
        back_s = wall.monotonic()
        assert read_now(every) == [first]
        await eventually(lambda: every.unread)
        assert wall.monotonic() - back_s == pytest.approx(HOLD_S, abs=0.1)
        opened, *live = read_now(every)
        assert isinstance(opened, Gap)
        assert (opened.state, opened.start, opened.reason) == (
            "open",
            first.exchange_time,
            "cut off",
        )
        assert opened.start < missed.exchange_time < opened.end
        assert live == [newest, after], "the newest one came as a snapshot"
        exchange.answer_rest()
        await eventually(lambda: every.unread == 2)
        late, closed = read_now(every)
        assert late == msgspec.structs.replace(missed, source="rest", late=True)
        assert isinstance(closed, Gap)
        assert (closed.state, closed.start) == ("closed", opened.start)
        assert not any(isinstance(value, Gap) for value in read_now(latest))


async def test_an_outage_that_rest_does_not_bridge_is_told_while_it_lasts(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    async with open_router(Impatient(0.5), hanging_s=60.0) as router:
        first = exchange.trade()
        every = stream(router, TRADE)
        await confirmed(every)
        assert await anext(every) == first
        exchange.hold_rest()
        exchange.refuse_connect(20)
        exchange.cut()
        lost_s = wall.monotonic()
        opened = await anext(every)
        assert isinstance(opened, Gap)
        assert (opened.state, opened.start) == ("open", first.exchange_time)
        assert 5.0 <= wall.monotonic() - lost_s <= 7.5
        assert every.state == "stale"
        missed = exchange.trade(price=101.0)
        exchange.answer_rest()
        await confirmed(every)
        lost = await anext(every)
        assert (lost.sequential_id, lost.late) == (missed.sequential_id, False)
        closed = await anext(every)
        assert isinstance(closed, Gap)
        assert (closed.state, closed.start) == ("closed", opened.start)


async def test_a_break_is_one_gap_however_many_attempts_the_reconnect_takes(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    trades = [exchange.trade()]
    async with open_router(Impatient(0.1)) as router:
        reader = stream(router, TRADE)
        await confirmed(reader)
        for _ in range(3):
            exchange.refuse_connect(1)
            exchange.cut()
            await eventually(lambda: reader.state == "stale")
            trades.append(exchange.trade())
        await confirmed(reader)
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        assert [trade.sequential_id for trade in read_now(reader)] == [
            trade.sequential_id for trade in trades
        ]
        assert router.status().counters["gaps_opened"] == 1


async def test_a_reader_opened_during_an_outage_is_owed_what_happens_from_then_on(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    first = exchange.trade()
    async with open_router(Impatient(0.5)) as router:
        before = stream(router, TRADE)
        await confirmed(before)
        exchange.cut()
        await eventually(lambda: before.state == "stale")
        earlier = exchange.trade()
        await asyncio.sleep(0.1)
        during = stream(router, TRADE)
        later = exchange.trade()
        await confirmed(before, during)
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        ids = [[trade.sequential_id for trade in read_now(one)] for one in (before, during)]
        assert ids == [
            [first.sequential_id, earlier.sequential_id, later.sequential_id],
            [later.sequential_id],
        ]


async def test_a_trade_is_delivered_once_though_snapshots_and_history_repeat_it(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    async with open_router() as router:
        trades = [exchange.trade()]
        reader = stream(router, TRADE)
        await confirmed(reader)
        trades.append(exchange.trade())
        other = stream(router, TRADE, XRP)
        await eventually(lambda: len(exchange.socket.messages) == 2)
        exchange.cut()
        await eventually(lambda: len(exchange.sockets) == 2 and reader.state == "confirmed")
        trades.append(exchange.trade())
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        assert exchange.rest_calls["trades"]
        assert read_now(reader) == trades
        assert other.state == "pending"


async def test_a_late_trade_is_delivered_and_flagged(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    now_ms = exchange.clock.now_ms()
    async with open_router() as router:
        exchange.trade(at_ms=now_ms)
        reader = stream(router, TRADE)
        await confirmed(reader)
        exchange.trade(at_ms=now_ms - 32)
        exchange.trade(at_ms=now_ms)
        await eventually(lambda: reader.unread == 3)
        assert [trade.late for trade in read_now(reader)] == [False, True, False]


async def test_a_trade_from_the_future_is_stamped_anew_and_makes_no_other_late(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_router() as router:
        exchange.trade()
        reader = stream(router, TRADE)
        await confirmed(reader)
        exchange.clock.advance(1)
        now = utc_datetime(exchange.clock.now_ms())
        wild = exchange.trade(at_ms=exchange.clock.now_ms() + 3_600_000)
        good = exchange.trade(at_ms=exchange.clock.now_ms() - 500)
        await eventually(lambda: reader.unread == 3)
        assert read_now(reader)[1:] == [msgspec.structs.replace(wild, exchange_time=now), good]


async def test_tickers_from_the_future_are_stamped_anew_and_logged_once(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        for price in range(50):
            exchange.quote(make_ticker(BTC, price, AUTUMN_2025_MS + 3_600_000))
        exchange.quote(make_ticker(BTC, 50.0))
        await eventually(lambda: reader.unread == 52)
        tickers = read_now(reader)
    assert [ticker.price for ticker in tickers] == [1.0, *range(51)]
    assert {ticker.exchange_time for ticker in tickers} == {utc_datetime(AUTUMN_2025_MS)}
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "stamped 1:00:00 in the future: replaced" in warnings[0].message


async def test_tickers_never_go_back_in_time(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 1.0, AUTUMN_2025_MS))
    async with open_router() as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        exchange.quote(make_ticker(BTC, 2.0, AUTUMN_2025_MS - 1))
        exchange.quote(make_ticker(BTC, 3.0, AUTUMN_2025_MS + 1))
        await eventually(lambda: reader.unread == 2)
        assert [ticker.price for ticker in read_now(reader)] == [1.0, 3.0]


async def test_without_readers_the_connection_goes_and_a_new_reader_brings_it_back(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        assert (router.connection, exchange.sockets) == ("idle", [])
        reader = stream(router, TICKER)
        await confirmed(reader)
        reader.close()
        await eventually(lambda: router.connection == "idle")
        assert not exchange.socket.open
        again = stream(router, TICKER)
        await confirmed(again)
        assert len(exchange.sockets) == 2
        assert router.status().health == "healthy"


async def test_an_outage_that_nobody_reads_through_is_no_outage(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.refuse_connect(1)
    async with open_router(Impatient(0.02)) as router:
        reader = stream(router, TICKER)
        await eventually(lambda: router.connection == "reconnecting")
        reader.close()
        await eventually(lambda: router.connection == "idle")
        assert router.status().health == "healthy"


async def test_readers_that_come_and_go_do_not_outrun_the_limit_of_connections(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        for _ in range(8):
            async with stream(router, TICKER) as reader:
                await anext(reader)
            await eventually(lambda: router.connection == "idle")
    at = exchange.connected_at
    # https://docs.upbit.com/kr/reference/rate-limits: 5 a second
    assert max(sum(start <= one < start + 1.0 for one in at) for start in at) <= 5


async def test_messages_stay_within_five_a_second(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    symbols = [f"KRW-{number}" for number in range(8)]
    for symbol in symbols:
        exchange.quote(make_ticker(symbol, 1.0))
    sent: list[float] = []
    async with open_router() as router:
        for symbol in symbols:
            reader = stream(router, TICKER, symbol)
            await confirmed(reader)
            sent.append(exchange.clock.monotonic())
        assert len(exchange.socket.messages) == 8
    # Noted a moment after each was sent.
    assert sent[5] - sent[0] >= WINDOW_S - 0.2


async def test_a_reader_that_follows_another_in_the_same_moment_misses_nothing(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    # Nothing is sent, for the exchange streams the same as before: no snapshot will come.
    exchange.trade()
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        keeper = stream(router, TICKER, BTC)
        first = stream(router, TRADE)
        await confirmed(keeper, first)
        first.close()
        second = stream(router, TRADE)
        await confirmed(second)
        trade = exchange.trade()
        assert await anext(second) == trade
        assert len(exchange.socket.messages) == 1


async def test_a_frame_of_a_replaced_subscription_confirms_nothing(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        keeper, first = stream(router, TICKER), stream(router, TRADE)
        await confirmed(keeper, first)
        first.close()
        await eventually(lambda: len(exchange.socket.messages) == 2)
        exchange.mute = True
        second = stream(router, TRADE)
        exchange.socket.send(make_trade(BTC, AUTUMN_2025_MS, 77))
        await eventually(lambda: len(exchange.socket.messages) == 3)
        exchange.socket.send(make_trade(BTC, AUTUMN_2025_MS, 78))
        exchange.quote(make_ticker(BTC, 2.0))
        await eventually(lambda: keeper.unread == 2)
        assert second.state == "pending"
        exchange.socket.send(make_trade(BTC, AUTUMN_2025_MS, 79), snapshot=True)
        await confirmed(second)


async def test_a_value_of_a_replaced_subscription_is_not_taken_for_a_live_one(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    exchange.quote(make_ticker(XRP, 1.0))
    async with open_router() as router:
        keeper, first = stream(router, TICKER, BTC), stream(router, TICKER, XRP)
        await confirmed(keeper, first)
        first.close()
        await eventually(lambda: len(exchange.socket.messages) == 2)
        exchange.mute = True
        second = stream(router, TICKER, XRP)
        await eventually(lambda: len(exchange.socket.messages) == 3)
        exchange.socket.send(make_ticker(XRP, 2.0, AUTUMN_2025_MS + 1))
        await eventually(lambda: fresh_ticker(router, exchange, XRP).price == 2.0)
        assert second.state == "pending"
        now = exchange.clock.monotonic() + 100.0
        router._hub._cache.alive(now)
        assert router.peek(TICKER, BTC, None, None, None, None, 5.0, now) is not None
        assert router.peek(TICKER, XRP, None, None, None, None, 5.0, now) is None


async def test_a_market_without_any_trade_yet_is_confirmed_by_its_first(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        reader = stream(router, TRADE)
        await eventually(lambda: exchange.subscribed)
        await asyncio.sleep(SNAPSHOT_S)
        trade = exchange.trade()
        assert await anext(reader) == trade
        assert reader.state == "confirmed"


async def test_an_unwatched_ticker_is_not_taken_for_a_live_one(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    exchange.quote(make_ticker(XRP, 1.0))
    async with open_router() as router:
        keeper, reader = stream(router, TICKER, BTC), stream(router, TICKER, XRP)
        await confirmed(keeper, reader)
        reader.close()
        # Until the subscription is replaced the exchange goes on sending: it still counts.
        exchange.quote(make_ticker(XRP, 2.0, AUTUMN_2025_MS + 1))
        await eventually(lambda: fresh_ticker(router, exchange, XRP).price == 2.0)
        await eventually(lambda: len(exchange.socket.messages) == 2)
        now = exchange.clock.monotonic() + 100.0
        router._hub._cache.alive(now)
        assert router.peek(TICKER, BTC, None, None, None, None, 5.0, now) is not None
        assert router.peek(TICKER, XRP, None, None, None, None, 5.0, now) is None


@pytest.mark.parametrize("mark", [None, "simulator-2"])
async def test_another_exchange_at_the_other_end_is_tried_again_slowly(
    open_router: OpenRouter,
    exchange: FakeExchange,
    caplog: pytest.LogCaptureFixture,
    mark: str | None,
) -> None:
    exchange.refuse_connect(9, StorageOriginError(f"the exchange answers as {mark}"))
    async with open_router() as router:
        reader = stream(router, TICKER)
        await eventually(lambda: router.connection == "reconnecting")
        await asyncio.sleep(0.05)
        assert len(exchange.connected_at) == 1
        assert reader.state == "pending"
        assert f"answers as {mark}" in reader.reason
        assert "answers as" in router.status().reason


async def test_a_refused_handshake_waits_as_long_as_it_was_told(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.refuse_connect(1, RateLimitedError("too many", retry_after_s=0.2))
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        await confirmed(stream(router, TICKER))
    first, second = exchange.connected_at
    assert second - first >= 0.195


async def test_an_unexpected_error_is_logged_and_the_streams_go_on(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        exchange.socket.fail(KeyError("a bug of the decoder"))
        await eventually(lambda: len(exchange.sockets) == 2 and reader.state == "confirmed")
        assert router.connection == "live"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].exc_info is not None


async def test_a_slow_reader_is_ended_and_the_others_read_on(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    async with open_router() as router:
        slow, latest = stream(router, TRADE), stream(router, TRADE, policy="latest")
        await confirmed(slow, latest)
        for _ in range(MAX_UNREAD + 2):
            last = exchange.trade()
        await eventually(lambda: slow.state == "closed")
        await eventually(lambda: read_now(latest)[-1:] == [last])


@pytest.mark.both_loops
async def test_closing_ends_every_reader_with_a_closed_error(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router() as router:
        reader, pending = stream(router, TICKER), stream(router, TICKER, "KRW-NONE")
        assert isinstance(await anext(reader), Ticker)
        waiting = asyncio.ensure_future(anext(pending))
        await router.stop()
        await router.stop()
        with pytest.raises(ClosedError):
            await anext(reader)
        with pytest.raises(ClosedError):
            await waiting
        assert not exchange.socket.open
        with pytest.raises(ClosedError):
            stream(router, TICKER)


@pytest.mark.both_loops
async def test_closing_before_the_first_turn_of_the_loop_ends_readers_too(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        reader = stream(router, TICKER)
        candles = stream(router, DataType.CANDLE, timeframe=Timeframe.M1)
        await router.stop()
        async with asyncio.timeout(2):
            with pytest.raises(ClosedError):
                await anext(reader)
            with pytest.raises(ClosedError):
                await anext(candles)


@pytest.mark.parametrize(
    "moment", ["backoff", "handshake", "subscription", "fill", "hold", "polling", "block"]
)
async def test_closing_in_the_middle_of_anything_ends_readers_and_leaves_nothing_behind(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
    moment: str,
) -> None:
    wall.run()
    exchange.quote(make_ticker(BTC, 1.0))
    exchange.trade()
    async with open_router(Impatient(0.5)) as router:
        every, latest = stream(router, TRADE), stream(router, TICKER, policy="latest")
        await confirmed(every, latest)
        exchange.mute = moment == "subscription"
        if moment in ("fill", "hold"):
            exchange.hold_rest()
        if moment == "block":
            error = RateLimitedError("418", blocked=True, retry_after_s=60.0)
            exchange.refuse_connect(1, error)
        elif moment in ("backoff", "polling"):
            exchange.refuse_connect(1_000)
        exchange.cut()
        reached = {
            "backoff": lambda: router.connection == "reconnecting",
            "handshake": lambda: len(exchange.connected_at) == 2,
            "subscription": lambda: len(exchange.sockets) == 2 and exchange.subscribed,
            "fill": lambda: exchange.rest_waiting == 1,
            "hold": lambda: any(isinstance(value, Gap) for value in every._all),
            "polling": lambda: exchange.rest_calls["ticker"] > 1,
            "block": lambda: router.connection == "blocked",
        }
        await eventually(reached[moment])
        await router.stop()
        assert router.connection == "closed"
        assert not any(socket.open for socket in exchange.sockets)
        for reader in (every, latest):
            read_now(reader)
            with pytest.raises(ClosedError):
                await anext(reader)
        assert running(router) == set()
        exchange.answer_rest()
        await asyncio.sleep(5)  # no timer is left that would still do something


@pytest.mark.parametrize("turns", range(8))
async def test_closing_while_the_connection_just_ends_is_not_overlooked(
    open_router: OpenRouter,
    exchange: FakeExchange,
    caplog: pytest.LogCaptureFixture,
    turns: int,
) -> None:
    # A task group of Python before 3.13 swallows a cancellation that arrives while it ends
    # by an error (cpython 116720); the number of turns of the loop decides where it arrives.
    async with open_router() as router:
        reader = stream(router, DataType.TICKER, BTC)
        exchange.quote(make_ticker(BTC, 10.0))
        await reader.confirmed()
        exchange.cut()
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await router.stop()
