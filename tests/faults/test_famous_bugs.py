"""Bugs that other programs became known for: each happens to a naive client, and not to ours.

The reports are named in the tests' docstrings; the clients are in `naive.py`.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, deque
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from tests.bottom.time_zones import ZONES, local_zone, needs_tzset
from tests.eventually import eventually
from tests.faults.conftest import OpenHouse
from tests.faults.house import BTC, START_MS, House
from tests.faults.naive import NaiveBars, NaiveWatch, frames
from tests.routing.fake_exchange import Impatient
from upbit_backbone.clock import MINUTE_MS, SECOND_MS, FrozenClock, epoch_ms
from upbit_backbone.models import Candle, Gap

MINUTE_START_MS = START_MS // MINUTE_MS * MINUTE_MS


class Candles:
    """What a reader of all candles of KRW-BTC was told, the last word on each by its start."""

    def __init__(self) -> None:
        self.told: list[Candle] = []
        self.gaps: list[Gap] = []

    @property
    def last_words(self) -> dict[int, Candle]:
        """By open time, of those that were closed."""
        return {epoch_ms(candle.open_time): candle for candle in self.told if candle.closed}

    @property
    def closed_ms(self) -> list[int]:
        """The open times of those that were called closed, in order."""
        return [epoch_ms(one.open_time) for one in self.told if one.state == "closed"]

    async def read(self, house: House, timeframe: str) -> None:
        async with house.api.stream_candles(BTC, timeframe, policy="all") as stream:
            async for value in stream:
                if isinstance(value, Gap):
                    self.gaps.append(value)
                else:
                    self.told.append(value)

    async def are_true(self, house: House, length_ms: int) -> None:
        """Each candle that was closed is what was traded in it."""
        for open_ms, candle in self.last_words.items():
            rows = await house.traded(BTC, open_ms, open_ms + length_ms)
            prices = [row["trade_price"] for row in rows]
            assert (candle.open, candle.close) == (prices[0], prices[-1]), candle
            assert (candle.high, candle.low) == (max(prices), min(prices)), candle
            volume = sum(row["trade_volume"] for row in rows)
            assert candle.volume == pytest.approx(volume, rel=1e-9), candle


def task_of(house: House, work: Any) -> None:
    house.own(asyncio.create_task(work, name="reader of a famous bug"))


async def test_a_stall_inside_a_candle_does_not_close_half_of_it(open_house: OpenHouse) -> None:
    """freqtrade PR 13397: the socket stalled, and what there was of the candle was taken for
    all of it; only the close was wrong, so nothing noticed."""
    async with open_house(start_ms=MINUTE_START_MS + 51 * SECOND_MS) as house:
        naive, ours = NaiveBars(MINUTE_MS), Candles()
        task_of(house, naive.follow(house.simulator.ws_url, BTC))
        task_of(house, ours.read(house, "1m"))
        await eventually(lambda: naive.forming is not None and len(ours.told) >= 6)
        house.strike("stall symbol=KRW-BTC until=2.5")
        await eventually(lambda: naive.closed and ours.closed_ms, timeout=15.0)
        assert ours.closed_ms == [naive.closed[0].open_ms] == [MINUTE_START_MS]
        await ours.are_true(house, MINUTE_MS)
        # What the naive one saw of the minute, it saw from its first trade on.
        rows = await house.traded(BTC, naive.first_ms, MINUTE_START_MS + MINUTE_MS)
        assert naive.closed[0].volume < 0.9 * sum(row["trade_volume"] for row in rows)


@pytest.mark.slow
async def test_a_stall_across_the_end_of_a_candle_is_mended_afterwards(
    open_house: OpenHouse,
) -> None:
    """The same, so late in the candle that nobody could know when it was closed."""
    async with open_house(start_ms=MINUTE_START_MS + 57 * SECOND_MS) as house:
        naive, ours = NaiveBars(MINUTE_MS), Candles()
        task_of(house, naive.follow(house.simulator.ws_url, BTC))
        task_of(house, ours.read(house, "1m"))
        await eventually(lambda: naive.forming is not None and len(ours.told) >= 6)
        house.strike("stall symbol=KRW-BTC until=5")
        await eventually(lambda: naive.closed, timeout=15.0)
        rows = await house.traded(BTC, MINUTE_START_MS, MINUTE_START_MS + MINUTE_MS)
        volume = pytest.approx(sum(row["trade_volume"] for row in rows), rel=1e-9)
        assert naive.closed[0].volume != volume

        def is_mended() -> bool:
            candle = ours.last_words.get(MINUTE_START_MS)
            return candle is not None and candle.volume == volume

        await eventually(is_mended, timeout=10.0)
        await ours.are_true(house, MINUTE_MS)


async def test_a_connection_that_was_given_up_is_closed(open_house: OpenHouse) -> None:
    """freqtrade 13082: a fallback left the old subscription running; 1.3 GB an hour."""
    async with open_house() as house:
        one = await house.follow()
        orphans = []
        tasks = len(asyncio.all_tasks())
        for number in range(5):
            connecting = frames(house.simulator.ws_url, "trade", BTC)
            orphans.append(connecting)
            await connecting.__aenter__()
            house.wire.cut()
            await house.accepted(number + 2)
            await house.more(one)
        await house.is_exact(one)
        await eventually(lambda: house.wire.open == 1)
        assert (await house.control())["connections"] == len(orphans) + 1
        for orphan in orphans:
            await orphan.__aexit__(None, None, None)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2)


async def test_waiting_for_a_quiet_symbol_leaves_no_objects_behind(
    open_house: OpenHouse,
) -> None:
    """ccxt 29331: a future for each call about a quiet symbol, none of them ever freed."""

    def count() -> int:
        gc.collect()
        # Not isinstance: it asks a weak proxy of somebody's for the class of what is gone.
        kinds = (asyncio.Future, asyncio.Event)
        return sum(issubclass(type(one), kinds) for one in gc.get_objects())

    async with open_house(clock=FrozenClock(START_MS)) as house:
        naive = NaiveWatch()
        async with house.api.stream_ticker(BTC) as stream:
            await anext(stream)
            await asyncio.wait((asyncio.create_task(naive.next(BTC, 0.0), name="warm"),))
            before = count()
            for _ in range(300):
                assert await naive.next(BTC, 0.0) is None
            assert count() - before >= 300
            naive.waiting.clear()
            before = count()
            for _ in range(300):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.0):
                        await anext(stream)
            assert count() - before <= 5


async def test_an_outage_makes_no_flat_candles(open_house: OpenHouse) -> None:
    """nautilus 4594: a timer told of closed, flat bars while the feed was down, as if the market
    stood still."""
    async with open_house(rng=Impatient(2.2)) as house:
        seen: list[float] = []
        flat: list[tuple[int, float]] = []

        async def naive_trades() -> None:
            async with frames(house.wire.ws_url, "trade", BTC) as trades:
                while True:
                    seen.append((await anext(trades))["trade_price"])

        async def naive_timer() -> None:
            while True:
                told = len(seen)
                await asyncio.sleep(1.0)
                if seen and len(seen) == told:
                    flat.append((house.simulator.now_ms, seen[-1]))

        ours = Candles()
        for work in (naive_trades(), naive_timer(), ours.read(house, "1s")):
            task_of(house, work)
        await eventually(lambda: ours.closed_ms and seen)
        house.wire.cut()
        await eventually(lambda: len(flat) >= 1)
        for at_ms, _ in flat:
            assert await house.traded(BTC, at_ms - SECOND_MS, at_ms), "the market did not stand"
        await eventually(lambda: house.wire.open == 1)
        told = len(ours.closed_ms)
        await eventually(lambda: len(ours.closed_ms) >= told + 2)
        assert all(candle.volume > 0 for candle in ours.told)
        await ours.are_true(house, SECOND_MS)


async def test_the_last_candle_before_a_silence_is_closed_by_the_clock(
    open_house: OpenHouse,
) -> None:
    """vnpy 888: a bar was closed by the next trade alone, so the day's last one never was."""
    silence = {
        "type": "silence",
        "symbol": BTC,
        "from": "2026-03-04T22:51:00",
        "until": "2026-03-04T22:53:00",
    }
    async with open_house(start_ms=MINUTE_START_MS + 57_500, events=[silence]) as house:
        naive, ours = NaiveBars(SECOND_MS), Candles()
        task_of(house, naive.follow(house.simulator.ws_url, BTC))
        task_of(house, ours.read(house, "1s"))
        last_ms = MINUTE_START_MS + MINUTE_MS - SECOND_MS
        await eventually(lambda: last_ms in ours.last_words)
        assert house.simulator.now_ms <= last_ms + SECOND_MS + 2_500
        assert naive.forming is not None
        assert naive.forming.open_ms == last_ms, "it waits for a trade that nobody makes"
        await ours.are_true(house, SECOND_MS)


async def test_a_late_trade_revises_its_candle_and_turns_no_other(open_house: OpenHouse) -> None:
    """vnpy 770: a trade of 1:57 at 2:10 closed the bar of 2:10 and opened that of 1:57 again."""
    async with open_house() as house:
        naive, ours = NaiveBars(SECOND_MS), Candles()
        task_of(house, naive.follow(house.simulator.ws_url, BTC))
        task_of(house, ours.read(house, "1s"))
        await eventually(lambda: naive.closed and ours.closed_ms)
        house.strike("late ms=1800 count=6 rate=0.3 symbol=KRW-BTC")
        await eventually(lambda: house.struck() == 6)
        await eventually(lambda: any(one.state == "revised" for one in ours.told))
        last_ms = ours.closed_ms[-1]
        await eventually(lambda: ours.closed_ms[-1] >= last_ms + 2 * SECOND_MS)
        turned = [bar.open_ms for bar in naive.closed]
        assert max(Counter(turned).values()) > 1
        assert any(later < at for at, later in pairwise(turned))
        assert all(at < later for at, later in pairwise(ours.closed_ms))
        await ours.are_true(house, SECOND_MS)


async def test_a_slow_reader_of_the_latest_is_not_minutes_behind(open_house: OpenHouse) -> None:
    """cryptofeed 426: a slow consumer drifted minutes behind while receipt times looked fine."""
    async with open_house() as house:
        unread: deque[dict[str, Any]] = deque()
        naive_lag_s: list[float] = []
        our_lag_s: list[float] = []

        async def naive_receiver() -> None:
            async with frames(house.simulator.ws_url, "ticker", BTC) as tickers:
                async for row in tickers:
                    unread.append(row)

        async def naive_consumer() -> None:
            while True:
                await asyncio.sleep(0.4)
                if unread:
                    lag_ms = house.simulator.now_ms - unread.popleft()["timestamp"]
                    naive_lag_s.append(lag_ms / SECOND_MS)

        async def our_consumer() -> None:
            async with house.api.stream_ticker(BTC) as stream:
                async for ticker in stream:
                    lag_ms = house.simulator.now_ms - epoch_ms(ticker.exchange_time)
                    our_lag_s.append(lag_ms / SECOND_MS)
                    await asyncio.sleep(0.4)

        for work in (naive_receiver(), naive_consumer(), our_consumer()):
            task_of(house, work)
        await eventually(lambda: len(naive_lag_s) >= 8 and len(our_lag_s) >= 8)
        assert naive_lag_s[-1] > 1.5
        assert naive_lag_s[-1] > naive_lag_s[3] > naive_lag_s[1]
        assert max(our_lag_s[1:]) < 1.0


@needs_tzset
@pytest.mark.parametrize("zone", ZONES)
async def test_pages_of_candles_are_no_copies_of_each_other(
    open_house: OpenHouse, zone: str
) -> None:
    """pyupbit 54: more than 200 candles on a server in UTC: 1,000 rows, 568 of them unique."""
    with local_zone(zone):
        async with open_house(clock=FrozenClock(START_MS)) as house:
            rows: list[str] = []
            to = ""
            async with aiohttp.ClientSession() as session:
                for _ in range(5):
                    query = {"market": BTC, "count": "200", "to": to}
                    url = f"{house.simulator.rest_url}/candles/minutes/1"
                    async with session.get(url, params=query) as response:
                        page = await response.json()
                    rows += [row["candle_date_time_utc"] for row in page]
                    # The time in Seoul, sent as if it were in UTC.
                    to = page[-1]["candle_date_time_kst"]
            series = await house.api.get_candle_data(BTC, "1m", count=1_000)
    assert len(rows) == 1_000
    assert len(set(rows)) < 700
    assert len(series) == len(set(series.time.tolist())) == 1_000
