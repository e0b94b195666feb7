"""Which channel answers a question: REST or the WebSocket, and why.

Pure bookkeeping: no clock, no sleep, no I/O; the caller passes `now` (monotonic seconds)
and chance. What is known to itself alone, the caller puts into the `Question`.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum, StrEnum
from random import Random
from statistics import median
from typing import Literal, get_args

import msgspec

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.protocol import DataType, Priority

Channel = Literal["rest", "websocket"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)

SAMPLES_KEPT = 100
SAMPLES_TO_JUDGE = 20
"""So many a channel must have before small requests go to the better one."""
RECENT_SAMPLES, NEWEST_SAMPLES = 15, 3
"""What to expect is the median of the recent ones; of the newest ones, when that is another
world: two samples then turn it, and a single one never does."""
ANOTHER_WORLD = 2.0
"""Factor between the two medians."""
FAILURE_PENALTY_MS = 1_000.0
"""What a failed request costs beside its own time: it has to be asked again."""
HISTORY_ROWS = 200
"""From here on it is history: a socket never tells the past."""
PRICES = (DataType.TICKER, DataType.ORDERBOOK)
"""Many symbols of these come by one REST call; of trades and candles it takes a call each."""
CLEARLY = 1.5
"""A rule stands until the other channel is this much faster."""
FIRST_REST_S = 5.0
LONGEST_REST_S = 20.0
LOOK_AGAIN_S = 5.0
"""A channel that is thought too slow is tried again after so long, by a caller who can wait."""
FORGET_S = 60.0
"""Without any sample for so long, a channel is thought to be as it usually is."""
_EXPECTED_MS: dict[Channel, float] = {"rest": 100.0, "websocket": 260.0}
"""Until there is a sample. A call takes some tens of milliseconds from Korea and 170 to 180
from America; snapshots come 170 to 190 or 330 to 350 ms after the request (measured by
others in 2026)."""


class Shares(Enum):
    """How small requests are shared once both channels are measured: the better one's part.

    The rest goes to the other channel: so it stays measured, and takes load off the limits of
    the better one. A larger part for the other costs a little time in each of its answers.
    """

    MOSTLY = "80:20"
    LARGELY = "70:30"
    EQUALLY = "50:50"

    @property
    def better(self) -> float:
        """The part of the better channel, 0.5 to 0.8."""
        return {"80:20": 0.8, "70:30": 0.7, "50:50": 0.5}[self.value]


class Reason(StrEnum):
    """All reasons there are. Each one that explores contains ``measuring``."""

    LIVE = "live: the socket streams it"
    LIVE_POLLED = "live, but the socket is down: REST is polled"
    HISTORY = "history of 200 rows or more"
    ONLY_REST = "only REST has it"
    WATCHED = "watched: its stream has the answer"
    COLD = "not watched: one batched REST call"
    SNAPSHOT_CLEARLY_FASTER = "not watched, and a snapshot is clearly faster than REST"
    MEASURING = "measuring"
    MEASURING_OTHER = "measuring the other channel: its share"
    MEASURING_AGAIN = "measuring again: it may be faster by now"
    BETTER = "the better one as measured"
    FASTEST = "the fastest one for CRITICAL"
    REST_LATE = "REST would answer too late"
    SOCKET_LATE = "the socket would answer too late"
    REST_DOWN = "REST is not to be had"
    SOCKET_DOWN = "the socket is down"
    REST_FAILED = "REST failed a moment ago"
    SOCKET_FAILED = "the socket failed a moment ago"
    BOTH_DOWN = "both channels are down"


class Choice(msgspec.Struct, frozen=True):
    """A decision."""

    channel: Channel
    reason: Reason
    """A fixed text: equal to, and usable as, a plain `str`."""

    @property
    def exploring(self) -> bool:
        """It was made to learn, not because the channel is the better one."""
        return "measuring" in self.reason


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and how the two channels stand at this moment."""

    data_type: DataType
    priority: Priority
    max_age_s: float
    """How old the answer may be; one that takes longer to come cannot be younger."""
    rows: int = 0
    """Candles or trades wanted; 0 for tickers and order books. A snapshot has one row."""
    live: bool = False
    """A stream is wanted, not an answer."""
    only_rest: bool = False
    """Whatever the number of rows: an end in the past, a cursor, `days_ago`, a grouped order
    book, a timeframe that is not streamed."""
    symbols: int = 1
    watched: int = 0
    """How many of the symbols have a confirmed stream of this kind."""
    stream_age_s: float = 0.0
    """Of the watched ones, the longest time since a sign of life; 0.0 where a value came or
    the connection answered just now."""
    rest_wait_s: float | None = 0.0
    """How long the limiter would keep a call of this priority waiting now; None: blocked or
    not reached, there is no use in asking."""
    socket_wait_s: float | None = 0.0
    """How long until the socket may be sent another request; None: not live."""


class Performance(msgspec.Struct, frozen=True):
    """What is known of a channel."""

    samples: int
    """0 to 100."""
    latency_ms: float | None
    """Median of the newest successful samples; None: there is none."""
    success_rate: float | None
    """Of all samples kept, 0 to 1; None: there is none."""
    expected_ms: float
    """What a request sent now would take, failures reckoned in."""


class _Measured:
    """The samples of one channel, and since when it rests after a failure."""

    def __init__(self, expected_ms: float) -> None:
        self.samples: deque[tuple[float, bool]] = deque(maxlen=SAMPLES_KEPT)
        self._recent: deque[float] = deque(maxlen=RECENT_SAMPLES)
        self.failures = 0
        """In a row, up to now."""
        self.asked_s = float("-inf")
        self._first_guess_ms = self._recent_ms = self._usual_ms = expected_ms
        self._is_news = False
        """Reports have no time: the first choice after one lends it its own."""
        self._sampled_s = float("-inf")

    def add(self, latency_ms: float, success: bool) -> None:
        """Take one more; about ten microseconds."""
        if success and self.failures > 1:
            self._recent.clear()  # an outage is over: it says nothing of what comes
        self.samples.append((latency_ms, success))
        self._recent.append(latency_ms if success else latency_ms + FAILURE_PENALTY_MS)
        costs = list(self._recent)
        recent, newest = median(costs), median(costs[-NEWEST_SAMPLES:])
        changed = not recent / ANOTHER_WORLD <= newest <= recent * ANOTHER_WORLD
        self._recent_ms = newest if changed else recent
        good = [latency for latency, ok in self.samples if ok]
        self._usual_ms = median(good) if good else self._first_guess_ms
        self.failures = 0 if success else self.failures + 1
        self._is_news = True

    def meet(self, now: float) -> bool:
        """A choice is made now; True when it is the first one after a failure."""
        was_news, self._is_news = self._is_news, False
        if was_news:
            self._sampled_s = now
        return was_news and self.failures > 0

    def expected_ms(self, now: float) -> float:
        """What a request sent now would take."""
        return self._recent_ms if now - self._sampled_s <= FORGET_S else self._usual_ms

    def rests(self, now: float, priority: Priority) -> bool:
        """Whether it failed so short ago that nobody of this priority should try it."""
        if not self.failures:
            return False
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(self.failures - 1, 10))
        if priority is Priority.CRITICAL:
            rest_s = LONGEST_REST_S  # others find out first whether it works again
        return now - self._sampled_s < rest_s

    def performance(self, now: float) -> Performance:
        good = [latency for latency, ok in self.samples if ok]
        total = len(self.samples)
        return Performance(
            samples=total,
            latency_ms=median(good[-RECENT_SAMPLES:]) if good else None,
            success_rate=len(good) / total if total else None,
            expected_ms=self.expected_ms(now),
        )


class ChannelChoice:
    """Chooses the channel of each question: by rule first, then by measurement.

    - History (200 rows or more) and whatever only REST has: REST.
    - Live: the socket; REST is polled while it is down.
    - One channel down, or one that would answer later than `max_age_s`: the other one.
    - Price and book of watched symbols: the stream; of cold ones: batched REST, unless a
      snapshot is expected in clearly less time (REST's queue is long, say).
    - Small requests (the last trade, the latest candle, of unwatched symbols): 50:50 until
      both channels have 20 samples, then the better one, as `shares` says.
    - CRITICAL takes the fastest healthy channel, and is never used to measure.

    What to expect of a channel is its wait, as the question says, and the median of its
    recent samples; a failed one counts as its latency and a second. Two new samples of
    another order turn it; a channel thought too slow is tried again every 5 s.

    After a failure the very next choice is the other channel, even for watched symbols. Then
    the failed one rests (watched symbols apart, whose stream it is not) for 5 s, twice as
    long each time up to 20 s, for CRITICAL 20 s; after that, or any success, it is chosen
    again. What leaves no choice stands meanwhile: a stream, history, the other one down or
    too late.

    Args:
        shares: How small requests are shared once both channels are measured.
        rng: Chance, so that no caller's rhythm always meets the same channel.
    """

    def __init__(self, *, shares: Shares = Shares.MOSTLY, rng: Random) -> None:
        self.shares = shares
        self.counts: dict[tuple[Channel, str], int] = {}
        """How often each channel was chosen, by reason."""
        self._rng = rng
        self._measured = {channel: _Measured(_EXPECTED_MS[channel]) for channel in CHANNELS}
        self._second_of_pair: Channel | None = None

    def update_channel_performance(
        self, channel: Channel, latency_ms: float, success: bool
    ) -> None:
        """Take the outcome of one request; the newest 100 of each channel are kept.

        Args:
            channel: ``"rest"`` or ``"websocket"``.
            latency_ms: From sending the request to its answer or failure, without the wait
                for a limiter. Answers from memory are no samples.
            success: Whether it was answered; an answer that refuses the question ("no such
                market") is one.

        Raises:
            InvalidRequestError: no such channel, or a latency that is no time.
        """
        measured = self._measured.get(channel)
        if measured is None:
            raise InvalidRequestError(f"channel was {channel!r}: expected 'rest' or 'websocket'")
        if not (math.isfinite(latency_ms) and latency_ms >= 0):
            raise InvalidRequestError(
                f"latency_ms was {latency_ms}: expected milliseconds, 0 or more"
            )
        measured.add(latency_ms, success)

    def performance(self, channel: Channel, now: float) -> Performance:
        """What is known of a channel, for people to read."""
        return self._measured[channel].performance(now)

    def choose(self, question: Question, now: float) -> Choice:
        """Decide, and count the decision. `now` is the monotonic clock's, in seconds."""
        rest, socket = self._measured["rest"], self._measured["websocket"]
        rest.meet(now)
        socket_failed_now = socket.meet(now)
        choice = self._by_necessity(question) or self._by_merit(question, now, socket_failed_now)
        if choice.reason not in (Reason.WATCHED, Reason.LIVE):
            self._measured[choice.channel].asked_s = now
        key = (choice.channel, choice.reason.value)
        self.counts[key] = self.counts.get(key, 0) + 1
        return choice

    def _by_necessity(self, question: Question) -> Choice | None:
        """Where there is nothing to weigh."""
        rest, socket = question.rest_wait_s is not None, question.socket_wait_s is not None
        if question.live:
            if not socket and rest:
                return Choice("rest", Reason.LIVE_POLLED)
            return Choice("websocket", Reason.LIVE if socket else Reason.BOTH_DOWN)
        if question.rows >= HISTORY_ROWS:
            return Choice("rest", Reason.HISTORY)
        if question.rows > 1 or question.only_rest:
            return Choice("rest", Reason.ONLY_REST)
        if not socket:
            return Choice("rest", Reason.SOCKET_DOWN if rest else Reason.BOTH_DOWN)
        return None if rest else Choice("websocket", Reason.REST_DOWN)

    def _by_merit(self, question: Question, now: float, socket_failed_now: bool) -> Choice:
        """Both channels could answer."""
        rest, socket = self._measured["rest"], self._measured["websocket"]
        assert question.rest_wait_s is not None, "else there is nothing to weigh"
        assert question.socket_wait_s is not None, "the same"
        rest_ms = question.rest_wait_s * 1_000 + rest.expected_ms(now)
        socket_ms = question.socket_wait_s * 1_000 + socket.expected_ms(now)
        latest_ms = question.max_age_s * 1_000
        rest_rests = rest.rests(now, question.priority)
        socket_rests = socket.rests(now, question.priority)
        told = question.watched >= question.symbols and question.stream_age_s <= question.max_age_s
        avoid_socket = socket_rests and (socket_failed_now or not told)
        if avoid_socket and not rest_rests and rest_ms <= latest_ms:
            return Choice("rest", Reason.SOCKET_FAILED)
        if told:
            return Choice("websocket", Reason.WATCHED)
        if rest_rests and not socket_rests and socket_ms <= latest_ms:
            return Choice("websocket", Reason.REST_FAILED)
        faster: Channel = "rest" if rest_ms <= socket_ms else "websocket"
        if (rest_ms > latest_ms) != (socket_ms > latest_ms):
            late = Reason.SOCKET_LATE if faster == "rest" else Reason.REST_LATE
            return self._unless_it_is_long_ago(Choice(faster, late), question, now)
        if question.priority is Priority.CRITICAL:
            return Choice(faster, Reason.FASTEST)
        if question.data_type not in PRICES:
            choice = self._shared(faster)
            if choice.exploring or not self._measured[_other(faster)].failures:
                return choice
            return self._unless_it_is_long_ago(choice, question, now)
        if socket_ms * CLEARLY >= rest_ms:
            return Choice("rest", Reason.COLD)
        choice = Choice("websocket", Reason.SNAPSHOT_CLEARLY_FASTER)
        if question.rest_wait_s * 1_000 + _EXPECTED_MS["rest"] > socket_ms * CLEARLY:
            return choice  # its queue, which is known, is enough to say so
        return self._unless_it_is_long_ago(choice, question, now)

    def _unless_it_is_long_ago(self, choice: Choice, question: Question, now: float) -> Choice:
        """A choice against a channel thought slow; look again at it where that may be wrong."""
        other = _other(choice.channel)
        wait_s = question.rest_wait_s if other == "rest" else question.socket_wait_s
        if (
            question.priority is Priority.CRITICAL
            or (question.data_type in PRICES and other == "websocket")  # REST is their rule anyway
            or now - self._measured[other].asked_s < LOOK_AGAIN_S
            or (wait_s or 0.0) * 1_000 + _EXPECTED_MS[other] > question.max_age_s * 1_000
        ):
            return choice
        return Choice(other, Reason.MEASURING_AGAIN)

    def _shared(self, better: Channel) -> Choice:
        """A small request: to learn, or to be answered soon."""
        if min(len(measured.samples) for measured in self._measured.values()) < SAMPLES_TO_JUDGE:
            return Choice(self._half_of_a_pair(), Reason.MEASURING)
        if self._rng.random() < self.shares.better:
            return Choice(better, Reason.BETTER)
        return Choice(_other(better), Reason.MEASURING_OTHER)

    def _half_of_a_pair(self) -> Channel:
        """Exactly half and half, in an order that nobody can keep time with."""
        channel = self._second_of_pair
        if channel is not None:
            self._second_of_pair = None
            return channel
        first: Channel = "rest" if self._rng.random() < 0.5 else "websocket"
        self._second_of_pair = _other(first)
        return first


def _other(channel: Channel) -> Channel:
    return "websocket" if channel == "rest" else "rest"
