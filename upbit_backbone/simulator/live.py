"""Tells every reader what happens on the markets it follows, at its own time.

One task serves all connections, and a message is made once for all of them. Each followed
market has an agenda of its own (`_Feed`): its trades are split once, when their minute
comes, and between two events nothing is computed. What is sent is a function of the market
and the time, not of who follows since when.

Rhythms (upbit-api, sections 5.3 to 5.7): a trade after a delay of its own (`delivery.py`), a
ticker with each trade that is newer than the ticker before, a book at the step of its grid
at which it changed, a candle once a second if a trade changed it. Who is late, after a
standstill of the loop, finds books skipped, and everything else.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from functools import partial
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from upbit_backbone.clock import MINUTE_MS, SECOND_MS, Clock
from upbit_backbone.simulator.candles import Candle, candles, second_candles
from upbit_backbone.simulator.delivery import MOST_LATE_MS, Delivery
from upbit_backbone.simulator.exchange import Desk, Exchange
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.markets import BOOK_LEVELS
from upbit_backbone.simulator.random_numbers import key_of, one_draw
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.stream_frames import (
    FrameFormat,
    candle_frame,
    orderbook_frame,
    ticker_frame,
    trade_frame,
)
from upbit_backbone.simulator.subscriptions import CANDLE_LENGTHS_MS

_LONGEST_WAIT_MS = 100
"""Then the clock is looked at again: it may have been set, and timers may be coarse."""
_SHORTEST_WAIT_MS = 20
"""Events closer together than this are sent together: waking up costs more than a frame."""
_FORGET_AFTER_MS = 10_000
"""After a longer standstill (a sleeping machine) what was missed is not sent any more."""
_LONGEST_TURN_S = 0.004
"""After which other tasks have theirs: a market's busy minute takes a millisecond to split."""
_NEVER = 1 << 62

REALTIME = "REALTIME"


class Topic(NamedTuple):
    """One thing to follow: a kind of message about one market."""

    type: str
    symbol: str
    level: Fraction = Fraction(0)
    """Of an order book: what its prices are grouped by."""
    depth: int = BOOK_LEVELS
    """Of an order book: how many rows."""


class Message:
    """A message, encoded once for each format that somebody wants it in."""

    __slots__ = ("_encode", "_frames", "topic")

    def __init__(self, topic: Topic, encode: Callable[[FrameFormat], bytes]) -> None:
        self.topic = topic
        self._encode = encode
        self._frames: dict[str, bytes] = {}

    def frame(self, form: FrameFormat) -> bytes:
        """The message as a frame of a format."""
        frame = self._frames.get(form.name)
        if frame is None:
            frame = self._frames[form.name] = self._encode(form)
        return frame


class Reader(Protocol):
    """Who is told."""

    def tell(self, message: Message) -> None:
        """Something happened."""
        ...


class LiveStream:
    """The clockwork of all live streams.

    Under a clock that stands still nothing ever becomes due.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._clock: Clock = exchange.clock
        self._feeds: dict[str, _Feed] = {}
        self._agenda: list[tuple[int, str]] = []
        self._changed = asyncio.Event()

    @property
    def followed(self) -> frozenset[Topic]:
        """What anybody follows."""
        return frozenset(topic for feed in self._feeds.values() for topic in feed.topics)

    def follow(self, reader: Reader, wanted: Mapping[Topic, Desk], after_ms: int) -> None:
        """Tell `reader` of what happens after an instant, until `leave`."""
        for topic, desk in wanted.items():
            feed = self._feeds.get(topic.symbol)
            if feed is None:
                feed = self._feeds[topic.symbol] = _Feed(self._exchange, desk, after_ms)
            feed.topics.setdefault(topic, {})[reader] = after_ms
            self._plan(feed)
        self._changed.set()

    def leave(self, reader: Reader) -> None:
        """Tell `reader` nothing more."""
        for symbol, feed in list(self._feeds.items()):
            for topic in [topic for topic, readers in feed.topics.items() if reader in readers]:
                del feed.topics[topic][reader]
                if not feed.topics[topic]:
                    del feed.topics[topic]
            if not feed.topics:
                del self._feeds[symbol]

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._changed.clear()
            if await self._catch_up():
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._changed.wait()

    async def _catch_up(self) -> bool:
        """Do what is due; True if there is more."""
        now_ms = self._clock.now_ms()
        # Not by the exchange's clock, which may stand still.
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _LONGEST_TURN_S
        while loop.time() < until_s:
            if not self._agenda or self._agenda[0][0] > now_ms:
                return False
            due_ms, symbol = heappop(self._agenda)
            feed = self._feeds.get(symbol)
            # Of an agenda's entries for one market only the one it was last planned for counts.
            if feed is not None and feed.planned_ms == due_ms:
                feed.catch_up(now_ms)
                self._plan(feed, again=True)
        await asyncio.sleep(0)
        return True

    def _plan(self, feed: _Feed, *, again: bool = False) -> None:
        due_ms = feed.due_ms()
        if again or due_ms < feed.planned_ms:
            feed.planned_ms = due_ms
            if due_ms < _NEVER:
                heappush(self._agenda, (due_ms, feed.symbol))

    def _wait_s(self) -> float | None:
        """Seconds until something is due; None while nobody follows anything."""
        if not self._feeds:
            self._agenda.clear()
            return None
        wait_ms = _LONGEST_WAIT_MS
        if self._agenda:
            wait_ms = min(wait_ms, self._agenda[0][0] - self._clock.now_ms())
        return max(wait_ms, _SHORTEST_WAIT_MS) / 1_000


class _Feed:
    """What happens on one market, while somebody follows it."""

    def __init__(self, exchange: Exchange, desk: Desk, after_ms: int) -> None:
        self._desk = desk
        self._market = desk.market
        self._settings = exchange.settings
        self._delivery = Delivery(
            exchange.seed, desk.market.symbol, late=exchange.settings.late_trades
        )
        # Each market's candles have their second at another moment.
        self._cycle_phase_ms = (
            one_draw(key_of(exchange.seed, "candle cycle", desk.market.symbol), 0) % SECOND_MS
        )
        self.symbol = desk.market.symbol
        self.topics: dict[Topic, dict[Reader, int]] = {}
        """Who follows what, and since when."""
        self.planned_ms = _NEVER
        self._deliveries: list[tuple[int, int, Trade]] = []
        self._times: list[int] = []
        """When trades are done, ascending, as far as books and candles have not seen them."""
        self._trades_to_ms = self._ticker_ms = self._book_sent_ms = 0
        self._cycle_seen_ms = self._book_seen_ms = after_ms
        self._book_rests_until_ms: int | None = None
        self._restart(after_ms)

    def due_ms(self) -> int:
        """When something happens that somebody follows."""
        due_ms = min(self._trades_to_ms, self._next_delivery_ms())
        for topic in self.topics:
            if topic.type == "orderbook":
                due_ms = min(due_ms, self._book_due_ms())
            elif topic.type in CANDLE_LENGTHS_MS:
                due_ms = min(due_ms, self._cycle_due_ms())
        return due_ms if self._market.listing.is_known(due_ms) else _NEVER

    def catch_up(self, now_ms: int) -> None:
        """Tell all that happened up to an instant."""
        delisting_ms = self._market.listing.delisting_ms
        if delisting_ms is not None:
            now_ms = min(now_ms, delisting_ms - 1)
        if now_ms - self.planned_ms > _FORGET_AFTER_MS:
            self._restart(now_ms)
            return
        self._load(now_ms)
        while self._next_delivery_ms() <= now_ms:
            due_ms, _, trade = heappop(self._deliveries)
            self._traded(trade, due_ms)
        kinds = {topic.type for topic in self.topics}
        if kinds.isdisjoint(CANDLE_LENGTHS_MS):
            self._cycle_seen_ms = now_ms
        while self._cycle_due_ms() <= now_ms:
            cycle_ms = self._cycle_due_ms()
            self._candles_changed(self._cycle_seen_ms, cycle_ms)
            self._cycle_seen_ms = cycle_ms
        if "orderbook" not in kinds:
            self._see_book(now_ms)
        elif self._book_due_ms() <= now_ms:
            self._book_changed(now_ms)
        del self._times[: bisect_right(self._times, min(self._cycle_seen_ms, self._book_seen_ms))]

    def _restart(self, after_ms: int) -> None:
        self._deliveries.clear()
        self._times.clear()
        self._ticker_ms = 0
        self._cycle_seen_ms = after_ms
        self._book_sent_ms = 0
        self._see_book(after_ms)
        # A trade that was done a moment ago may not have been told yet.
        self._trades_to_ms = after_ms - MOST_LATE_MS
        self._load(after_ms)

    def _load(self, now_ms: int) -> None:
        """Have the trades at hand that are done next, in the minute of `now_ms` or later."""
        while self._trades_to_ms <= now_ms:
            trades = self._market.next_trades(self._trades_to_ms)
            if not trades:
                self._trades_to_ms = _NEVER
                return
            self._trades_to_ms = trades[-1].time_ms
            for trade in trades:
                self._times.append(trade.time_ms)
                due_ms = self._delivery.due_ms(trade)
                heappush(self._deliveries, (due_ms, trade.sequential_id, trade))

    def _next_delivery_ms(self) -> int:
        return self._deliveries[0][0] if self._deliveries else _NEVER

    def _next_trade_ms(self, after_ms: int) -> int:
        """The first trade after an instant among those at hand."""
        place = bisect_right(self._times, after_ms)
        return self._times[place] if place < len(self._times) else _NEVER

    def _cycle_due_ms(self) -> int:
        """The end of the second in which the next trade changes candles."""
        traded_ms = self._next_trade_ms(self._cycle_seen_ms)
        if traded_ms == _NEVER:
            return _NEVER
        since_ms = (traded_ms - self._cycle_phase_ms) % SECOND_MS
        return traded_ms + (SECOND_MS - since_ms) % SECOND_MS

    def _book_due_ms(self) -> int:
        """The step at which the book changes: by itself, or for the next trade."""
        grid = self._desk.orderbooks.grid
        if self._book_rests_until_ms is None:
            self._book_rests_until_ms = self._desk.orderbooks.rests_until_ms(self._book_seen_ms)
        due_ms = _NEVER if self._book_rests_until_ms is None else self._book_rests_until_ms
        traded_ms = self._next_trade_ms(self._book_seen_ms)
        if traded_ms < due_ms:
            due_ms = min(due_ms, grid.start_ms(grid.step_from(traded_ms)))
        return due_ms

    def _traded(self, trade: Trade, due_ms: int) -> None:
        market = self._market
        self._tell(
            Topic("trade", self.symbol),
            due_ms,
            partial(self._trade_frame, trade=trade, due_ms=due_ms),
        )
        # A ticker never goes back: a late trade changes it no more.
        if trade.time_ms <= self._ticker_ms or Topic("ticker", self.symbol) not in self.topics:
            return
        self._ticker_ms = trade.time_ms
        ticker = self._desk.tickers.at(trade.time_ms)
        assert ticker is not None, "something was traded"
        self._tell(
            Topic("ticker", self.symbol),
            trade.time_ms,
            partial(
                ticker_frame, market=market, ticker=ticker, now_ms=due_ms, stream_type=REALTIME
            ),
        )

    def _trade_frame(self, form: FrameFormat, *, trade: Trade, due_ms: int) -> bytes:
        return trade_frame(
            form,
            self._market,
            trade,
            self._desk.orderbooks.best_after(trade),
            due_ms,
            REALTIME,
            drop_zero_seconds=self._settings.trade_time_without_seconds,
        )

    def _see_book(self, now_ms: int) -> None:
        """Note that the book is known as of the last step of its grid."""
        grid = self._desk.orderbooks.grid
        self._book_seen_ms = grid.start_ms(grid.step(now_ms))
        self._book_rests_until_ms = None

    def _book_changed(self, now_ms: int) -> None:
        self._see_book(now_ms)
        changed_ms = self._book_sent_ms
        for topic in [topic for topic in self.topics if topic.type == "orderbook"]:
            book = self._desk.orderbooks.grouped(now_ms, topic.level)
            if book is not None and book.changed_ms > self._book_sent_ms:
                changed_ms = book.changed_ms
                encode = partial(
                    orderbook_frame,
                    market=self._market,
                    book=book,
                    depth=topic.depth,
                    stream_type=REALTIME,
                )
                self._tell(topic, changed_ms, encode)
        self._book_sent_ms = changed_ms

    def _candles_changed(self, from_ms: int, cycle_ms: int) -> None:
        """Tell which candles the trades between two cycles changed."""
        traded = self._times[bisect_right(self._times, from_ms) :]
        traded = traded[: bisect_right(traded, cycle_ms)]
        for topic in [topic for topic in self.topics if topic.type in CANDLE_LENGTHS_MS]:
            length_ms = CANDLE_LENGTHS_MS[topic.type]
            changed = dict.fromkeys(ms // length_ms * length_ms for ms in traded)
            forming_ms = cycle_ms // length_ms * length_ms
            for start_ms in self._candles_sent(changed, forming_ms, length_ms):
                candle = candle_at(self._market, topic.type, start_ms, cycle_ms)
                assert candle is not None, "a trade changed it"
                encode = partial(
                    candle_frame,
                    kind=topic.type,
                    market=self._market,
                    candle=candle,
                    now_ms=cycle_ms,
                    stream_type=REALTIME,
                )
                self._tell(topic, candle.last_trade_ms, encode)

    def _candles_sent(self, changed: Iterable[int], forming_ms: int, length_ms: int) -> list[int]:
        """Which of the changed candles a cycle sends, by their starts.

        A second is as long as the cycle, so it is told when it is over. Of longer candles
        the one in progress is told, and the one just left only if the settings say so: after
        the other, as clients fear it.
        """
        if length_ms == SECOND_MS:
            return list(changed)
        late = self._settings.late_candle_frame
        return sorted((ms for ms in changed if late or ms == forming_ms), reverse=True)

    def _tell(self, topic: Topic, happened_ms: int, encode: Callable[[FrameFormat], bytes]) -> None:
        """Tell those who follow a topic since before something happened."""
        readers = self.topics.get(topic)
        if readers:
            message = Message(topic, encode)
            for reader, since_ms in list(readers.items()):
                if happened_ms > since_ms:
                    reader.tell(message)


def candle_at(market: Market, kind: str, start_ms: int, now_ms: int) -> Candle | None:
    """The newest candle of a stream that starts at or before an instant, as known now."""
    before_ms = start_ms + 1
    if CANDLE_LENGTHS_MS[kind] == SECOND_MS:
        found = second_candles(market, start_before_ms=before_ms, now_ms=now_ms, count=1)
    else:
        unit = CANDLE_LENGTHS_MS[kind] // MINUTE_MS
        found = candles(market, unit, start_before_ms=before_ms, now_ms=now_ms, count=1)
    return found[0] if found else None
