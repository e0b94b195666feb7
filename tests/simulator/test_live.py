"""The rhythms of the streams: what is sent when, with a clock that the test moves."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import websockets

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.streams import Stream, of_type, stream, streaming
from tests.simulator.worlds import FINE, SEED, market
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.delivery import MOST_LATE_MS, Delivery
from upbit_backbone.simulator.live import Message, Topic
from upbit_backbone.simulator.orderbooks import Orderbooks
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.settings import SimulatorSettings
from upbit_backbone.simulator.stream_frames import FORMATS, FrameFormat

HOUR_MS = 3_600_000


def trades_of(symbol: str, start_ms: int, end_ms: int) -> list[Trade]:
    """Of the span (start, end], oldest first."""
    found = market(symbol).trades_back(
        from_ms=start_ms + 1, before_ms=end_ms + 1, before_id=None, count=10**6
    )
    return found[::-1]


async def follow(simulator: Simulator, client: Stream, kind: str, *codes: str) -> None:
    """Subscribe without snapshots, and wait until it is so."""
    await client.ask({"type": kind, "codes": list(codes), "is_only_realtime": True})
    assert await client.until_listed() == []


async def told(simulator: Simulator, clock: ManualClock, client: Stream, seconds: float) -> Any:
    """What comes while time passes, in steps that are no standstill."""
    frames = []
    passed = 0.0
    while passed < seconds:
        step = min(9.0, seconds - passed)
        clock.advance(step)
        passed += step
        await eventually(partial(_is_up_to_date, simulator, clock.now_ms()))
        frames += await client.until_listed()
    return frames


def _is_up_to_date(simulator: Simulator, now_ms: int) -> bool:
    return all(feed.planned_ms > now_ms for feed in simulator._live._feeds.values())


def inversions(trades: Sequence[Trade], delivery: Delivery) -> tuple[int, list[int]]:
    """Trades that are told after one that was done later, and by how many milliseconds."""
    late_by = []
    newest: Trade | None = None
    for trade in sorted(trades, key=lambda trade: (delivery.due_ms(trade), trade.sequential_id)):
        if newest is not None and trade.time_ms < newest.time_ms:
            late_by.append(delivery.due_ms(trade) - delivery.due_ms(newest))
        else:
            newest = trade
    return len(late_by), late_by


def test_about_two_trades_in_a_hundred_are_told_after_a_later_one() -> None:
    trades = trades_of("KRW-BTC", AUTUMN_2025_MS, AUTUMN_2025_MS + 6 * HOUR_MS)
    delivery = Delivery(SEED, "KRW-BTC", late=True)
    count, late_by = inversions(trades, delivery)
    assert 0.015 < count / len(trades) < 0.03
    # 32 to 196 ms were recorded.
    assert sorted(late_by)[len(late_by) // 2] in range(32, 197)
    assert all(20 <= delivery.due_ms(trade) - trade.time_ms <= MOST_LATE_MS for trade in trades)
    assert inversions(trades, Delivery(SEED, "KRW-BTC", late=False)) == (0, [])


def test_a_delay_follows_from_the_seed_and_the_trade_alone() -> None:
    trades = trades_of("KRW-BTC", AUTUMN_2025_MS, AUTUMN_2025_MS + HOUR_MS)
    once, again, other = (
        [Delivery(seed, "KRW-BTC", late=True).due_ms(trade) for trade in trades]
        for seed in (SEED, SEED, SEED + 1)
    )
    assert once == again != other


async def test_late_trades_are_told_late_and_never_lost(
    simulator: Simulator, clock: ManualClock
) -> None:
    delivery = Delivery(SEED, "KRW-BTC", late=True)
    async with stream(simulator) as client:
        await follow(simulator, client, "trade", "KRW-BTC")
        start_ms = clock.now_ms()
        frames = await told(simulator, clock, client, 120)
    due = {
        trade.sequential_id: delivery.due_ms(trade)
        for trade in trades_of("KRW-BTC", start_ms - MOST_LATE_MS, clock.now_ms())
    }
    expected = sorted(
        (due_ms, number) for number, due_ms in due.items() if start_ms < due_ms <= clock.now_ms()
    )
    assert [(frame["timestamp"], frame["sequential_id"]) for frame in frames] == expected
    assert all(frame["timestamp"] >= frame["trade_timestamp"] for frame in frames)
    times = [frame["trade_timestamp"] for frame in frames]
    assert times != sorted(times), "no trade was late in these two minutes"


async def test_a_snapshot_shows_the_last_trade_that_was_told(
    simulator: Simulator, clock: ManualClock
) -> None:
    trades = trades_of("KRW-BTC", AUTUMN_2025_MS + 60_000, AUTUMN_2025_MS + HOUR_MS)
    trade = next(
        one
        for before, one, after in zip(trades, trades[1:], trades[2:], strict=False)
        if one.time_ms - before.time_ms > 1_000 < after.time_ms - one.time_ms
    )
    clock.set_wall(trade.time_ms)  # done, known to REST, and not told yet
    async with stream(simulator) as client:
        await client.ask({"type": "trade", "codes": ["KRW-BTC"]})
        snapshot = await client.frame()
        assert snapshot["sequential_id"] < trade.sequential_id
        assert clock.now_ms() == trade.time_ms
        clock.advance(0.5)
        later = await client.frame()
    assert later["sequential_id"] == trade.sequential_id
    assert later["stream_type"] == "REALTIME"


async def test_tickers_and_books_never_go_back_in_time(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.ask(
            {"type": "ticker", "codes": ["KRW-BTC"]}, {"type": "orderbook", "codes": ["KRW-BTC"]}
        )
        await client.frames(2)
        frames = await told(simulator, clock, client, 60)
    tickers, books = of_type(frames, "ticker"), of_type(frames, "orderbook")
    traded = [frame["trade_timestamp"] for frame in tickers]
    assert traded == sorted(set(traded))
    assert len(traded) > 20
    stamps = [frame["timestamp"] for frame in books]
    assert stamps == sorted(set(stamps))
    assert len(stamps) >= 5


@pytest.mark.parametrize("symbol", ["KRW-BTC", FINE])
async def test_a_book_is_sent_at_the_step_at_which_it_changed_and_only_then(
    clock: ManualClock, symbol: str
) -> None:
    books = Orderbooks(SEED, market(symbol))
    async with streaming(clock, late_trades=False) as (_, client):
        await client.ask({"type": "orderbook", "codes": [symbol]})
        shown = (await client.frame())["timestamp"]
        expected, sent = [], []
        for _ in range(40):
            clock.advance(0.1)
            book = books.at(clock.now_ms())
            assert book is not None
            if book.changed_ms > shown:
                shown = book.changed_ms
                expected.append(shown)
                sent.append((await client.frame())["timestamp"])
        assert await client.until_listed() == []
    assert sent == expected
    assert all(books.grid.start_ms(books.grid.step(stamp)) == stamp for stamp in sent)
    assert sent


async def test_a_candle_is_sent_once_a_second_if_a_trade_changed_it(clock: ManualClock) -> None:
    async with streaming(clock, late_trades=False) as (simulator, client):
        await client.ask({"type": "candle.1m", "codes": ["KRW-BTC"], "is_only_realtime": True})
        assert await client.until_listed() == []
        start_ms = clock.now_ms()
        frames = await told(simulator, clock, client, 90)
    sent = [frame["timestamp"] for frame in frames]
    phase_ms = sent[0] % 1_000
    assert {stamp % 1_000 for stamp in sent} == {phase_ms}
    expected = []
    first = start_ms // 1_000 * 1_000 + phase_ms
    for cycle_ms in range(first, clock.now_ms() + 1, 1_000):
        traded = trades_of("KRW-BTC", max(cycle_ms - 1_000, start_ms), cycle_ms)
        minute = cycle_ms // 60_000
        # What was traded in the last moments of a minute is never told: no final frame.
        if any(trade.time_ms // 60_000 == minute for trade in traded):
            expected.append(cycle_ms)
    assert sent == expected
    assert len(sent) < 85
    assert {frame["stream_type"] for frame in frames} == {"REALTIME"}


async def test_the_last_word_on_a_second_is_its_candle(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "candle.1s", "codes": ["KRW-BTC"], "is_only_realtime": True})
        assert await client.until_listed() == []
        start_ms = clock.now_ms()
        frames = await told(simulator, clock, client, 60)
    last = {frame["candle_date_time_utc"]: frame["candle_acc_trade_volume"] for frame in frames}
    seconds: dict[str, int] = {}
    for trade in trades_of("KRW-BTC", start_ms, clock.now_ms() - 1_000):
        second = trade.time_ms // 1_000 % 3_600
        name = f"2025-09-15T00:{second // 60:02}:{second % 60:02}"
        seconds[name] = seconds.get(name, 0) + trade.volume
    assert {name: round(last[name] * 1e8) for name in seconds} == seconds
    assert len(seconds) > 10


@pytest.mark.parametrize("late", [False, True])
async def test_a_frame_of_the_candle_just_left_may_come_late(
    clock: ManualClock, late: bool
) -> None:
    settings = {"late_candle_frame": late, "late_trades": False}
    async with streaming(clock, **settings) as (simulator, client):
        await follow(simulator, client, "candle.1m", "KRW-BTC", "KRW-XRP", "KRW-DOGE", "KRW-ETH")
        frames = await told(simulator, clock, client, 180)
    left = [
        frame
        for frame in frames
        if frame["candle_date_time_utc"][14:16] != f"{frame['timestamp'] // 60_000 % 60:02}"
    ]
    assert bool(left) == late


async def test_a_candle_snapshot_is_the_newest_candle_there_is(clock: ManualClock) -> None:
    thin = "KRW-SIM003"
    trades = trades_of(thin, AUTUMN_2025_MS, AUTUMN_2025_MS + 6 * HOUR_MS)
    before, after = next(
        (one, other) for one, other in pairwise(trades) if other.time_ms - one.time_ms > 300_000
    )
    quiet_ms = (before.time_ms + after.time_ms) // 2
    clock.set_wall(quiet_ms)
    async with streaming(clock) as (_, client):
        await client.ask(
            {"type": "candle.1m", "codes": [thin]}, {"type": "candle.1s", "codes": [thin]}
        )
        minute, second = await client.frames(2)
    start_ms = before.time_ms // 1_000 % 86_400
    assert minute["candle_date_time_utc"].endswith(f"{start_ms // 60 % 60:02}:00")
    assert second["candle_date_time_utc"].endswith(f"{start_ms // 60 % 60:02}:{start_ms % 60:02}")
    assert minute["timestamp"] == quiet_ms


async def test_a_new_subscription_replaces_format_and_topics(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.ask(
            {"type": "orderbook", "codes": ["KRW-BTC"]}, {"type": "candle.1s", "codes": ["KRW-BTC"]}
        )
        await client.frames(2)
        assert {topic.type for topic in simulator._live.followed} == {"orderbook", "candle.1s"}
        await client.ask({"type": "trade", "codes": ["KRW-XRP"]}, form="SIMPLE_LIST")
        await client.frame()
        assert simulator._live.followed == {Topic("trade", "KRW-XRP")}
        clock.advance(9)
        for frame in await client.frames(3):
            assert frame[0]["cd"] == "KRW-XRP"
    await eventually(lambda: not simulator._live._feeds)


async def test_a_feed_holds_no_more_after_minutes(simulator: Simulator, clock: ManualClock) -> None:
    async with stream(simulator) as client:
        kinds = ("ticker", "trade", "orderbook", "candle.1s", "candle.1m")
        await client.ask(*({"type": kind, "codes": ["KRW-BTC"]} for kind in kinds))
        await client.frames(5)
        feed = simulator._live._feeds["KRW-BTC"]
        held = []
        for _ in range(3):
            await told(simulator, clock, client, 60)
            held.append(len(feed._times) + len(feed._deliveries))
        assert len(simulator._live._agenda) < 20
    assert max(held) < 200


async def test_a_feed_of_nothing_but_trades_forgets_their_times(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await follow(simulator, client, "trade", "KRW-BTC")
        await told(simulator, clock, client, 120)
        assert len(simulator._live._feeds["KRW-BTC"]._times) < 100


def test_a_message_is_encoded_once_for_each_format() -> None:
    asked: list[str] = []

    def encode(form: FrameFormat) -> bytes:
        asked.append(form.name)
        return form.name.encode()

    message = Message(Topic("trade", "KRW-BTC"), encode)
    for _ in range(3):
        assert message.frame(FORMATS["DEFAULT"]) == b"DEFAULT"
        assert message.frame(FORMATS["SIMPLE"]) == b"SIMPLE"
    assert asked == ["DEFAULT", "SIMPLE"]


async def test_the_loop_is_free_while_all_markets_catch_up(clock: ManualClock) -> None:
    async with streaming(clock) as (simulator, client):
        codes = [s for s in (await simulator._exchange.listings()) if s.startswith("KRW-")]
        await client.ask({"type": "orderbook", "codes": codes, "is_only_realtime": True})
        assert await client.until_listed() == []
        clock.advance(5)
        now_ms = clock.now_ms()
        turns = 0
        while not _is_up_to_date(simulator, now_ms):
            await asyncio.sleep(0)
            turns += 1
            assert turns < 100_000
    assert turns >= 4


def scripted(clock: ManualClock, *events: dict[str, Any]) -> Simulator:
    script = read_script(json.dumps({"events": events}), clock.now_ms())
    return Simulator(clock=clock, script=script, settings=SimulatorSettings(late_trades=False))


async def test_a_maintenance_cuts_all_connections_and_refuses_others(clock: ManualClock) -> None:
    event = {"type": "maintenance", "from": "+60", "until": "+120"}
    async with scripted(clock, event) as simulator:
        async with stream(simulator) as client:
            await follow(simulator, client, "trade", "KRW-BTC")
            clock.advance(61)
            assert await client.is_cut()
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with stream(simulator):
                pass
        assert caught.value.response.status_code == 503
        clock.advance(60)
        async with stream(simulator) as client:
            assert await client.nothing_comes()


async def test_a_delisting_is_announced_in_the_ticker_then_there_is_silence(
    clock: ManualClock,
) -> None:
    event = {"type": "delisting", "symbol": "KRW-BTC", "at": "2025-09-15T00:01:00Z"}
    async with scripted(clock, event) as simulator, stream(simulator) as client:
        kinds = ("ticker", "trade", "orderbook", "candle.1m")
        await client.ask(*({"type": kind, "codes": ["KRW-BTC"]} for kind in kinds))
        ticker, *_ = await client.frames(4)
        assert ticker["market_state"] == "ACTIVE"
        assert ticker["delisting_date"] == {"year": 2025, "month": 9, "day": 15}
        frames = await told(simulator, clock, client, 120)
        traded = [frame["trade_timestamp"] for frame in of_type(frames, "trade")]
        expected = trades_of("KRW-BTC", AUTUMN_2025_MS, AUTUMN_2025_MS + 59_999)
        assert traded == [trade.time_ms for trade in expected]
        assert max(frame["timestamp"] for frame in frames) < AUTUMN_2025_MS + 60_000
        await client.ask({"type": "ticker", "codes": ["KRW-BTC", "KRW-XRP"]})
        assert (await client.frame())["code"] == "KRW-XRP"


async def test_a_warning_shows_in_the_ticker(clock: ManualClock) -> None:
    event = {"type": "designation", "symbol": "KRW-BTC", "at": "+1"}
    async with scripted(clock, event) as simulator, stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": ["KRW-BTC"]})
        assert (await client.frame())["market_warning"] == "NONE"
        frames = await told(simulator, clock, client, 9)
        assert frames[-1]["market_warning"] == "CAUTION"


async def test_a_scripted_fall_is_streamed_trade_by_trade(clock: ManualClock) -> None:
    event = {"type": "move", "symbol": "KRW-XRP", "at": "+2", "over_s": 5, "change": -0.06}
    async with scripted(clock, event) as simulator, stream(simulator) as client:
        await client.ask({"type": "trade", "codes": ["KRW-XRP"]})
        before = (await client.frame())["trade_price"]
        frames = await told(simulator, clock, client, 18)
    assert 0.92 < frames[-1]["trade_price"] / before < 0.96
