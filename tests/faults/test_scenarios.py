"""Every way in which a connection or a call can fail, once, and once at the worst moment.

The list of scenarios stands in the package's docstring, with the test of each.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import aiohttp
import pytest

from tests.bottom.time_zones import local_zone, needs_tzset
from tests.eventually import eventually
from tests.exchanges.scripted_rest import ScriptedRest
from tests.faults.conftest import OpenHouse
from tests.faults.house import BTC, ETH, START_MS, all_at_once, assert_late_ones_say_so
from tests.faults.wire import CLOSE, PING, PONG, Moment
from tests.routing.fake_exchange import Impatient
from upbit_backbone import Priority
from upbit_backbone.clock import Clock, ExchangeClock, FrozenClock, SystemClock
from upbit_backbone.errors import (
    DeadlineError,
    ProtocolError,
    RateLimitedError,
    TransportError,
)
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.models import Candle, Gap, Timeframe
from upbit_backbone.origin import Origin
from upbit_backbone.routing.rate_limit import WINDOW_S

RECOVERY_S = 1.5
"""From the moment an outage is known to the first value, from a healthy exchange."""
POLLED_WITHIN_S = 5.0
"""The same when only REST is left."""
DETECTED_WITHIN_S = 10.0
BREAK_S = 0.5
"""How long a backoff takes where trades are to be missed: five or so."""

MOMENTS: tuple[Moment, ...] = ("connect", "upgrade", "request", "answer")


# The connection


async def test_a_connection_brings_what_is_asked_for(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one, tickers = await house.follow(), await house.watch()
        async with house.api.stream_orderbook(BTC) as books:
            assert (await anext(books)).symbol == BTC
        await house.is_exact(one)
        assert one.gaps == []
        assert tickers.values[0][1].source == "websocket"
        assert house.wire.open == 1
        assert house.api.get_system_status().connection == "live"


async def test_a_lost_connection_is_replaced_and_nothing_is_missing(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(BREAK_S)) as house:
        one, tickers = await house.follow(), await house.watch()
        house.wire.cut()
        recovery_s, _ = await tickers.recovered()
        assert recovery_s <= RECOVERY_S
        await house.more(one)
        await house.is_exact(one)
        assert one.gaps == [], "it was filled while the live trades were held"
        assert house.wire.open == 1


async def test_a_reconnect_that_is_cut_at_any_moment_is_tried_again(open_house: OpenHouse) -> None:
    async def at(moment: Moment) -> None:
        async with open_house(folder=moment, rng=Impatient(BREAK_S)) as house:
            one = await house.follow()
            house.wire.cut_next(moment)
            house.wire.cut()
            await eventually(lambda: house.wire.met == [moment])
            await house.more(one)
            await house.is_exact(one)
            assert "unfillable" not in one.gaps

    await all_at_once({moment: at(moment) for moment in MOMENTS})


@pytest.mark.slow
async def test_a_partition_is_noticed_and_nothing_is_missing_after_it(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        one, tickers = await house.follow(), await house.watch()
        house.wire.hold()
        await eventually(lambda: tickers.stream.state == "stale", timeout=DETECTED_WITHIN_S)
        house.wire.release()
        await house.more(one)
        await house.is_exact(one)
        await eventually(lambda: house.wire.open == 1)


async def test_a_half_open_connection_is_given_up_while_rest_works(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one, tickers = await house.follow(), await house.watch()
        house.strike("half-open count=1")
        await eventually(lambda: house.struck() == 1)
        loop = asyncio.get_running_loop()
        struck_s = loop.time()
        # What was on its way comes at once; then nothing, until another connection brings it.
        await eventually(
            lambda: tickers.values[-1][0] > struck_s + 1.0,
            timeout=DETECTED_WITHIN_S + RECOVERY_S,
        )
        assert house.wire.accepted == 2
        await house.is_exact(one)
        await eventually(lambda: house.wire.open == 1)


async def test_a_partition_while_reconnecting_is_bridged_by_rest_until_a_connect_succeeds(
    open_house: OpenHouse,
) -> None:
    async def at(moment: Moment, folder: str) -> None:
        async with open_house(folder=folder) as house:
            one, tickers = await house.follow(), await house.watch()
            house.wire.hold_next(moment)
            house.wire.cut()
            recovery_s, ticker = await tickers.recovered()
            assert (ticker.source, house.wire.met) == ("rest", [moment])
            assert recovery_s <= POLLED_WITHIN_S
            seen = len(tickers.values)
            await eventually(
                lambda: any(value.source == "websocket" for _, value in tickers.values[seen:]),
                timeout=DETECTED_WITHIN_S + RECOVERY_S,
            )
            await house.is_exact(one)

    # Each waits for the time-out of its moment; together they wait once.
    moments: tuple[Moment, ...] = ("connect", "upgrade", "request")
    await all_at_once({moment: at(moment, moment) for moment in moments})


async def test_a_partition_that_begins_during_the_backoff_is_outlived(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(0.3)) as house:
        one = await house.follow()
        house.wire.cut()
        await eventually(lambda: one.stream.state == "stale")
        house.wire.hold()
        await eventually(lambda: house.wire.open == 1)
        assert one.stream.state == "stale"
        house.wire.release()
        await house.more(one)
        await house.is_exact(one)


async def test_connects_are_tried_for_ever_within_the_limit_and_ever_less_often(
    open_house: OpenHouse,
) -> None:
    rng = Impatient()
    async with open_house(rng=rng) as house:
        one = await house.follow()
        house.wire.cut_next(*[MOMENTS[0]] * 12)
        house.wire.cut()
        await eventually(lambda: len(house.wire.met) == 12)
        await house.more(one)
        await house.is_exact(one)
        at_s = house.wire.accepted_at_s
        assert all(later - at >= WINDOW_S - 0.1 for at, later in zip(at_s, at_s[5:], strict=False))
        longest_s = [limit for limit in rng.limits_s if limit >= 0.5]
        assert longest_s[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


async def test_an_exchange_that_went_away_during_the_backoff_is_found_again(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(0.3)) as house:
        one = await house.follow()
        house.wire.cut()
        await eventually(lambda: one.stream.state == "stale")
        house.strike("refused until=1.2")
        await eventually(lambda: house.struck() == 1)
        await house.more(one)
        await house.is_exact(one)


async def test_a_quiet_connection_is_kept_alive_and_its_book_is_current_until_it_goes_dead(
    open_house: OpenHouse,
) -> None:
    still = FrozenClock(START_MS)
    async with (
        open_house(clock=still, idle_timeout_s=1.6, inbound_data_keeps_alive=False) as house,
        house.api.stream_orderbook(BTC) as books,
    ):
        await anext(books)
        await eventually(lambda: house.wire.sent[PING] >= 3)
        assert (house.wire.accepted, books.state) == (1, "confirmed")
        _, told = await house.api.get_orderbook_data(BTC, Priority.CRITICAL, with_metadata=True)
        assert told.cache_hit
        assert told.age_s is not None
        assert told.age_s <= 2.0
        house.wire.hold()
        loop = asyncio.get_running_loop()
        held_s = loop.time()
        await eventually(lambda: loop.time() - held_s >= 3.0)
        _, told = await house.api.get_orderbook_data(BTC, Priority.CRITICAL, with_metadata=True)
        assert not told.cache_hit


async def test_a_ping_of_the_exchange_is_answered(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.follow()
        house.wire.put(b"are you there?", PING)
        await eventually(lambda: house.wire.sent[PONG] == 1)


async def test_a_close_frame_is_a_lost_connection(open_house: OpenHouse) -> None:
    async def with_code(code: int) -> None:
        async with open_house(folder=str(code), rng=Impatient(BREAK_S)) as house:
            one = await house.follow()
            house.wire.put(code.to_bytes(2, "big") + b"bye", CLOSE)
            await eventually(lambda: house.wire.accepted == 2)
            await house.more(one)
            await house.is_exact(one)

    await all_at_once({str(code): with_code(code) for code in (1000, 1001, 1011, 1012)})


async def test_what_is_asked_for_while_disconnected_is_sent_with_the_next_connection(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(0.2)) as house:
        await house.ready(ETH)
        one = await house.follow()
        before = len(house.wire.requests)
        house.wire.cut()
        await eventually(lambda: one.stream.state == "stale")
        async with house.api.stream_orderbook(ETH) as books:
            assert (await anext(books)).symbol == ETH
        assert {"orderbook", "trade"} <= {
            part["type"] for part in house.wire.requests[before] if "type" in part
        }
        await house.is_exact(one)


async def test_a_request_lost_on_its_way_is_replaced_by_what_is_wanted_now(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(BREAK_S)) as house:
        await house.ready(ETH)
        one = await house.follow()
        given_up = house.api.stream_ticker(ETH)
        await eventually(lambda: ETH in house.wire.codes("ticker"))
        house.wire.hold_next("request")
        house.wire.cut()
        await eventually(lambda: house.wire.met == ["request"])
        given_up.close()
        async with house.api.stream_orderbook(ETH) as books:
            house.wire.cut()
            house.wire.release()
            await anext(books)
            subscribed = (await house.control())["subscriptions"]
            assert len(subscribed) == 1
            assert subscribed[0]["orderbook"] == [ETH]
            assert ETH not in subscribed[0].get("ticker", [])
        await house.is_exact(one)


async def test_repeated_drops_keep_the_order(open_house: OpenHouse) -> None:
    async with open_house(late_trades=True) as house:
        one = await house.follow()
        for _ in range(4):
            house.wire.cut()
            await house.more(one)
        await house.is_exact(one)
        assert "unfillable" not in one.gaps


async def test_a_slow_connection_is_behind_and_loses_nothing(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one = await house.follow()
        house.strike("slow group=websocket bytes=2000 until=2")
        await eventually(lambda: house.struck() >= 1)
        await house.more(one, 10)
        await house.is_exact(one)


# Frames, each fault at the resubscription


FRAME_FAULTS = (
    "garbage count=1",
    "oversized count=1",
    "list-frames rows=3 count=2",
    "text-frames count=10",
    "string-numbers count=10",
    "exponent-numbers count=10",
    "microseconds count=10",
    "duplicate count=10",
    "duplicate variant=realtime count=3",
    "reorder type=trade count=5",
    "late ms=400 jitter_ms=600 count=5",
    "wrong-clock s=-30 count=20",
    "wrong-clock s=30 count=20",
    "stall symbol=KRW-BTC type=trade count=4",
)


async def test_a_fault_of_frames_at_the_resubscription_costs_no_trade(
    open_house: OpenHouse,
) -> None:
    async def struck_by(fault: str, folder: str) -> None:
        async with open_house(folder=folder, rng=Impatient(BREAK_S)) as house:
            one = await house.follow()
            house.strike(fault)
            house.wire.cut()
            await eventually(lambda: house.struck() >= 1)
            await house.more(one)
            await house.is_exact(one)

    await all_at_once(
        {fault: struck_by(fault, str(number)) for number, fault in enumerate(FRAME_FAULTS)}
    )


async def test_frames_lost_on_a_living_connection_are_noticed_and_filled(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        one = await house.follow()
        await house.more(one, 10)  # by then the sums of two tickers can be compared
        house.strike("stall symbol=KRW-BTC type=trade count=3")
        await eventually(lambda: house.struck() == 3)
        await house.is_exact(one)
        assert "unfillable" not in one.gaps


@pytest.mark.slow
async def test_trades_lost_for_seconds_on_a_living_connection_are_all_found(
    open_house: OpenHouse,
) -> None:
    """Those too that are lost while the first ones are being read back."""

    async def struck_by(fault: str, folder: str) -> None:
        async with open_house(folder=folder, late_trades=folder != "0") as house:
            one = await house.follow()
            await house.more(one, 10)
            house.strike(f"stall symbol=KRW-BTC type=trade {fault}")
            over_ms = house.simulator.now_ms + 6_000
            await eventually(lambda: house.simulator.now_ms > over_ms, timeout=7.0)
            await house.is_exact(one)
            assert "unfillable" not in one.gaps

    faults = ("until=3", "until=5 rate=0.3", "until=6 rate=0.1")
    await all_at_once({fault: struck_by(fault, str(number)) for number, fault in enumerate(faults)})


async def test_trades_a_second_late_are_marked_and_revise_nothing_but_their_candle(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        one = await house.follow()
        house.strike("late ms=1000 count=3 symbol=KRW-BTC rate=0.5")
        await eventually(lambda: house.struck() == 3)
        await eventually(lambda: sum(trade.late for trade in one.trades) >= 3)
        await house.is_exact(one)
        assert one.gaps == []


# Calls


CALL_FAULTS = (
    "429 count=1",
    "500 count=1",
    "502 count=1",
    "503 count=2",
    "504 count=1",
    "drop count=1",
    "latency ms=600 count=1",
    "slow bytes=20000 count=1",
    "truncated count=1",
    "truncated variant=connection count=1",
    "malformed count=1",
    "wrong-types variant=null count=1",
    "wrong-types variant=object count=1",
    "string-numbers count=1",
    "exponent-numbers count=1",
    "empty count=1",
    "missing-rows rows=3 count=1",
    "lag ms=900 count=1",
    "remaining variant=more count=5",
    "remaining variant=missing count=5",
    "wrong-clock s=-30 count=1",
)


async def test_a_fault_of_the_calls_that_fill_costs_no_trade(open_house: OpenHouse) -> None:
    async def struck_by(fault: str, folder: str) -> None:
        async with open_house(folder=folder, rng=Impatient(BREAK_S)) as house:
            one = await house.follow()
            await house.more(one, 5)
            kind, _, bounds = fault.partition(" ")
            house.strike(f"{kind} group=trades {bounds}")
            house.wire.cut()
            await eventually(lambda: house.struck() >= 1)
            await house.more(one)
            await house.is_exact(one)
            assert "unfillable" not in one.gaps

    await all_at_once(
        {fault: struck_by(fault, str(number)) for number, fault in enumerate(CALL_FAULTS)}
    )


async def test_a_connection_lost_again_while_a_gap_is_filled_costs_no_trade(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(BREAK_S)) as house:
        one = await house.follow()
        house.strike("latency ms=700 group=trades count=1")
        house.wire.cut()
        await eventually(lambda: house.struck() == 1)
        await eventually(lambda: house.wire.accepted == 2)
        house.wire.cut()
        await house.more(one)
        await house.is_exact(one)
        assert "unfillable" not in one.gaps


async def test_a_fill_that_takes_too_long_is_announced_and_delivered_late(
    open_house: OpenHouse,
) -> None:
    async with open_house(rng=Impatient(BREAK_S)) as house:
        one = await house.follow()
        house.strike("503 group=trades until=3")
        house.wire.cut()
        await eventually(lambda: one.gaps == ["open"])
        await house.more(one)
        await eventually(lambda: one.gaps == ["open", "closed"], timeout=DETECTED_WITHIN_S)
        await house.is_exact(one)
        states = [value.state if isinstance(value, Gap) else value.late for value in one.values]
        between = states[states.index("open") : states.index("closed")]
        assert between.count(True) >= 1, "what was filled says that it is late"
        assert between.index(True) > between.index(False), "the live ones were not held longer"


async def test_refused_handshakes_are_not_hurried(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one, tickers = await house.follow(), await house.watch()
        house.strike("handshake-429 count=3")
        house.wire.cut()
        recovery_s, ticker = await tickers.recovered()
        assert ticker.source == "rest"
        assert recovery_s <= POLLED_WITHIN_S
        seen = len(tickers.values)
        await eventually(
            lambda: any(value.source == "websocket" for _, value in tickers.values[seen:]),
            timeout=DETECTED_WITHIN_S,
        )
        assert (await house.control())["refused"]["websocket"] == 3
        assert all(1.0 <= later - at <= 2.0 for at, later in pairwise(house.wire.accepted_at_s[1:]))
        await house.is_exact(one)


async def test_a_refused_call_is_asked_again_in_its_time(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.strike("429 group=orderbook count=1")
        books = [
            await house.api.get_orderbook_data(BTC, Priority.HIGH, level=level)
            for level in (10_000, 100_000, 1_000_000)
        ]
        assert all(book.asks for book in books)
        assert sum((await house.control())["refused"].values()) == 1


async def test_while_rest_is_blocked_the_socket_serves_and_nothing_is_asked(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        one, tickers = await house.follow(), await house.watch()
        house.strike("418 group=candles s=3 count=1")
        asking = asyncio.create_task(
            house.api.get_candle_data(BTC, "1m", count=3), name="asks for candles"
        )
        await eventually(lambda: house.struck() == 1)
        await eventually(lambda: "(418)" in house.api.get_system_status().reason)
        seen, traded = len(tickers.values), len(one.trades)
        ticker = await house.api.get_ticker_data(BTC, Priority.CRITICAL)
        assert ticker.source == "websocket"
        with pytest.raises((RateLimitedError, DeadlineError)):
            await house.api.get_trade_data(BTC, count=300, timeout=0.5)
        await eventually(lambda: len(tickers.values) > seen and len(one.trades) > traded)
        assert not asking.done()
        assert len(await asking) == 3
        assert house.wire.accepted == 1
        assert (await house.control())["banned"]["candles"] == 1, "the call that met the block"
        assert sum((await house.control())["banned"].values()) == 1
        await house.is_exact(one)
        assert one.gaps == []


async def test_a_block_that_begins_with_a_fill_is_waited_for(open_house: OpenHouse) -> None:
    async with open_house() as house:
        one = await house.follow()
        house.strike("418 group=trades s=2 count=1")
        house.wire.cut()
        await eventually(lambda: house.struck() == 1)
        await house.more(one)
        await house.is_exact(one)
        assert "unfillable" not in one.gaps
        assert sum((await house.control())["banned"].values()) == 1, "the call that met it"


async def test_a_lying_remaining_req_leads_to_no_refusal(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.strike(
            "remaining variant=more group=trades",
            "remaining variant=missing group=candles",
            "remaining variant=less group=orderbook",
        )
        await asyncio.gather(
            *(house.api.get_trade_data(BTC, count=count) for count in range(300, 314)),
            *(
                house.api.get_candle_data(BTC, unit, count=count)
                for unit in ("1m", "3m")
                for count in range(1, 8)
            ),
            *(house.api.get_orderbook_data(BTC, level=level) for level in (10_000, 100_000)),
        )
        assert not any((await house.control())["refused"].values())


async def test_an_answer_that_is_not_understood_is_an_error_and_the_next_one_counts(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        for fault in ("truncated", "malformed", "wrong-types variant=object"):
            kind, _, bounds = fault.partition(" ")
            house.strike(f"{kind} group=orderbook count=1 {bounds}")
            with pytest.raises(ProtocolError, match="was not understood") as caught:
                await house.api.get_orderbook_data(BTC, Priority.HIGH, level=10_000)
            assert len(str(caught.value)) < 500, "an excerpt is told, not the answer"
            assert (await house.api.get_orderbook_data(BTC, Priority.HIGH, level=10_000)).asks


async def test_an_answer_that_was_cut_off_is_asked_for_again_and_an_outage_is_named(
    open_house: OpenHouse,
) -> None:
    async def struck_by(fault: str, folder: str) -> None:
        async with open_house(folder=folder) as house:
            kind, _, bounds = fault.partition(" ")
            house.strike(f"{kind} group=orderbook count=1 {bounds}")
            assert (await house.api.get_orderbook_data(BTC, Priority.HIGH, level=10_000)).asks
            house.strike(f"{kind} group=orderbook {bounds}")
            with pytest.raises((TransportError, DeadlineError), match=r"order ?book"):
                await house.api.get_orderbook_data(BTC, Priority.HIGH, level=100_000, timeout=0.3)

    faults = ("truncated variant=connection", "drop", "500", "502")
    await all_at_once({fault: struck_by(fault, str(number)) for number, fault in enumerate(faults)})


async def test_while_rest_is_down_the_socket_answers_what_it_can(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.ready(ETH)
        tickers = await house.watch()
        house.strike("503")
        assert (await house.api.get_ticker_data(BTC, Priority.CRITICAL)).source == "websocket"
        with pytest.raises((TransportError, DeadlineError)):
            await house.api.get_candle_data(BTC, "1m", count=5, timeout=0.3)
        ticker = await house.api.get_ticker_data(ETH, Priority.CRITICAL)
        assert ticker.source == "websocket"
        book = await house.api.get_orderbook_data(ETH, Priority.HIGH)
        assert book.source == "websocket"
        assert tickers.stream.state == "confirmed"


async def test_a_page_that_reaches_beyond_its_bound_is_refused() -> None:
    """`to` is exclusive; a page that holds it would be stored as proof of the wrong span."""
    local = SystemClock()
    async with ScriptedRest() as server, aiohttp.ClientSession() as session:
        adapter = UpbitAdapter(
            session,
            rest_url=server.url,
            ws_url=server.url,
            origin=Origin("test", accepts_mark=True),
            clock=ExchangeClock(local),
            local=local,
        )
        rows = [_candle("2026-03-04T22:50:00"), _candle("2026-03-04T22:49:00")]
        server.answer(rows)
        with pytest.raises(ProtocolError, match="2026-03-04T22:50:00Z when asked for"):
            await adapter.candles(BTC, Timeframe.M1, to_ms=START_MS - 20_000, count=2)
        server.answer(rows[1:])
        page, _ = await adapter.candles(BTC, Timeframe.M1, to_ms=START_MS - 20_000, count=2)
        assert len(page) == 1


def _candle(start: str) -> dict[str, object]:
    price = {f"{name}_price": 1.0 for name in ("opening", "high", "low", "trade")}
    return {
        "market": BTC,
        "candle_date_time_utc": start,
        **price,
        "timestamp": START_MS - 40_000,
        "candle_acc_trade_price": 1.0,
        "candle_acc_trade_volume": 1.0,
    }


# Clocks


class JumpingClock:
    """A wall clock that is set while the program runs."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._base.now_ms() + self.ahead_ms

    def monotonic(self) -> float:
        return self._base.monotonic()


async def test_a_clock_that_jumps_costs_no_trade_and_closes_no_wrong_candle(
    open_house: OpenHouse,
) -> None:
    async def by(jump_s: int) -> None:
        async with open_house(folder=str(jump_s), local=JumpingClock) as house:
            local = house.local
            assert isinstance(local, JumpingClock)
            one = await house.follow()
            async with house.api.stream_candles(BTC, "1s", policy="all") as candles:
                await anext(candles)
                local.ahead_ms = jump_s * 1_000
                await house.more(one)
                # Something is asked, as any program does; the answer's date is evidence.
                await house.api.get_trade_data(BTC, count=300, priority=Priority.HIGH)
                closed: list[Candle] = []
                while len(closed) < 2:
                    candle = await anext(candles)
                    if not isinstance(candle, Gap) and candle.closed:
                        closed.append(candle)
                        at = candle.open_time.timestamp() * 1_000
                        assert abs(house.simulator.now_ms - at) < 5_000
            await eventually(
                lambda: (
                    abs(house.api.get_system_status().exchange_offset_ms + jump_s * 1_000) < 2_000
                )
            )
            await house.is_exact(one)
            assert_late_ones_say_so(one.trades)

    await all_at_once({f"{jump_s} s": by(jump_s) for jump_s in (3_600, -3_600, 30, -30)})


@pytest.mark.slow
async def test_an_exchange_that_is_wrong_about_the_time_during_an_outage_costs_no_trade(
    open_house: OpenHouse,
) -> None:
    """Its `Date` is off for a while; its trades are stamped as ever."""

    async def by(wrong_s: int) -> None:
        async with open_house(folder=str(wrong_s), rng=Impatient(2.5)) as house:
            one = await house.follow()
            house.strike(f"wrong-clock s={wrong_s} until=5")
            house.wire.cut()
            await eventually(lambda: house.wire.accepted == 2)
            await house.more(one, 10)
            await house.is_exact(one)
            assert "unfillable" not in one.gaps

    await all_at_once({f"{wrong_s} s": by(wrong_s) for wrong_s in (30, -30, -5)})


@needs_tzset
@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "America/New_York"])
async def test_a_day_turns_at_nine_in_seoul_whatever_the_local_clocks_do(
    open_house: OpenHouse, zone: str
) -> None:
    """2026-03-08: New York sets its clocks forward; the exchange's day begins at 00:00 UTC."""
    midnight_ms = 1_772_928_000_000
    with local_zone(zone):
        async with open_house(start_ms=midnight_ms - 600) as house:
            turned: list[Candle] = []
            async with house.api.stream_candles(BTC, "1d", policy="all") as candles:
                while len(turned) < 2:
                    candle = await anext(candles)
                    if not turned or candle.open_time != turned[-1].open_time:
                        turned.append(candle)
            days = await house.api.get_candle_data(BTC, "1d", count=5)
    assert turned[1].open_time - turned[0].open_time == timedelta(days=1)
    assert turned[1].open_time.timestamp() * 1_000 == midnight_ms
    assert [int(at) % 86_400_000 for at in days.time] == [0] * 5
    assert int(days.time[-1]) == midnight_ms
