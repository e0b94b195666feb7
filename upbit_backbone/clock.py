"""Time: the only module that asks the machine for it.

Inside, a moment is UTC epoch milliseconds (`int`); outside, an aware `datetime` in
UTC. Durations are seconds of the monotonic clock (`float`). Everything that decides
by time takes a `Clock`, so that a test or a simulator supplies its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple, Protocol

from upbit_backbone.errors import InvalidRequestError

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

TOLD_SKEW_MS = 2_000
"""From here on a wrong clock of this machine is told; a `Date` cannot prove much less."""
UNCERTAIN_MS = 2_000
JUMP_MS = 1_000
"""A wall clock that moves by more against the monotonic one was set, or the machine slept."""
DRIFT = 500e-6
"""How much faster or slower than another a clock may run: NTP slews by as much."""
WITNESS_MS = 10_000
"""Two stamps confirm each other when they arrive within this time."""
MOST_DOUBTS = 3
"""After so many Dates that fit neither the bounds nor each other the last one is believed."""
_ROUNDING_MS = 2.0


class Clock(Protocol):
    """What everything that needs the time is given."""

    def now_ms(self) -> int:
        """Wall time: UTC epoch milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...


def _counting_sleep() -> Callable[[], float]:
    """The clock that never goes back and goes on while the machine sleeps.

    Python's own stands still then on Linux and macOS: after a night a price of the evening
    would be a second old. (clock_gettime(2) of Linux and of macOS; on Windows Python's counts.)
    """
    if sys.platform == "linux":
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    return time.monotonic


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    # Bound, not wrapped: it is asked with each message and each hit of a cache.
    monotonic = staticmethod(_counting_sleep())


class ShiftedClock:
    """A wall clock that starts at `start_ms` when it is made and runs at normal speed."""

    def __init__(self, start_ms: int, base: Clock | None = None) -> None:
        self._base = base or SystemClock()
        self._shift_ms = start_ms - self._base.now_ms()

    def now_ms(self) -> int:
        return self._base.now_ms() + self._shift_ms

    def monotonic(self) -> float:
        return self._base.monotonic()


class FrozenClock:
    """A wall clock that stands still at `at_ms`; monotonic time goes on."""

    def __init__(self, at_ms: int, base: Clock | None = None) -> None:
        self._base = base or SystemClock()
        self._at_ms = at_ms

    def now_ms(self) -> int:
        return self._at_ms

    def monotonic(self) -> float:
        return self._base.monotonic()


class Moment(NamedTuple):
    """A moment of an `ExchangeClock`, to be compared with others of the same clock."""

    at_ms: float
    """On the steady line of this machine."""
    slept_ms: float
    """How long, at most, this machine had slept before it since the clock was made."""


class ExchangeClock:
    """The exchange's wall time, estimated from the stamps it sends.

    Candles close by the exchange's clock, not by this machine's, which may be minutes off or
    be set at any time. So the estimate runs on the monotonic clock, plus a distance that two
    kinds of evidence bound: an HTTP ``Date`` header (floored to the second) from both sides, the
    stamps of live messages from below. It moves only when the bounds force it: as far as they do,
    or to the wall clock if that lies within narrow ones. So a correct one is left alone; until the
    first ``Date`` it is taken as right. Bounds widen with time, for no two clocks run alike.

    When the wall clock leaps ahead of the monotonic one, either it was set or the machine slept
    (which stops the monotonic clock): the truth lies between. Until there is evidence the earlier
    time is taken, by which a candle closes late rather than unfinished. A wall clock that
    leaps back was set; nothing follows from that.

    One wild stamp or ``Date`` moves nothing: a stamp counts when another one confirms it, and
    one that the bounds exclude never does; a ``Date`` that contradicts them does when the next
    one agrees.
    """

    def __init__(
        self,
        local: Clock,
        *,
        follows_wall: bool = False,
        on_skew: Callable[[int], None] | None = None,
    ) -> None:
        """Take this machine's clock.

        Args:
            local: The machine's clock.
            follows_wall: Its wall time is right to be out of step with the monotonic one, as
                that of a replay is, so the estimate runs on the wall clock.
            on_skew: Told the new `offset_ms` whenever it has changed by two seconds or more.
        """
        self._local = local
        self.monotonic = local.monotonic
        self._follows_wall = follows_wall
        self._on_skew = on_skew
        self._told_ms = 0.0
        # All distances: of exchange time, or of the wall clock, from the steady line.
        self._wall_ms = local.now_ms() - self._line_ms()
        self._base_ms = self._wall_ms
        self._low_ms: float | None = None
        self._high_ms = math.inf
        self._bounded_at_ms = self._line_ms()
        self._witness: tuple[float, float] | None = None
        """The highest bound by an unconfirmed stamp, and when it came."""
        self._doubts: list[tuple[float, float]] = []
        """What the last Dates say, which contradict the bounds."""
        self._slept_ms = 0.0
        self._leapt = False
        self.jumps = 0
        """How often the wall clock was seen to leap against the monotonic one."""

    @property
    def offset_ms(self) -> int:
        """Exchange time minus this machine's wall time, milliseconds; positive: ours is slow."""
        return self.now_ms() - self._local.now_ms()

    @property
    def uncertain(self) -> bool:
        """Whether the exchange's time is known no better than to two seconds."""
        self._look()
        return self._low_ms is None or self._high_ms - self._low_ms > UNCERTAIN_MS

    def now_ms(self) -> int:
        at_ms, wall_ms = self._look()
        if self._low_ms is None or abs(self._base_ms - self._wall_ms) < _ROUNDING_MS:
            return wall_ms
        return round(at_ms + self._base_ms)

    def moment(self) -> Moment:
        """Now, for `observe_date`."""
        at_ms, _ = self._look()
        return Moment(at_ms, self._slept_ms)

    def observe_date(self, date_ms: int, *, sent: Moment, received: Moment) -> None:
        """Take the ``Date`` of a response to a request; it was made between two moments."""
        at_ms, _ = self._look()
        low_ms = date_ms - received.at_ms
        # What was slept since then, exchange time went on and the steady line did not.
        high_ms = date_ms + SECOND_MS - sent.at_ms + self._slept_ms - sent.slept_ms
        self._widen(at_ms)
        if self._low_ms is None:
            self._base_ms = self._wall_ms
        elif high_ms < self._low_ms or low_ms > self._high_ms:
            doubts = [one for one in self._doubts if one[0] <= high_ms and low_ms <= one[1]]
            if not (self._leapt or doubts or len(self._doubts) == MOST_DOUBTS):
                self._doubts.append((low_ms, high_ms))
                return
        else:
            low_ms, high_ms = max(self._low_ms, low_ms), min(self._high_ms, high_ms)
        self._low_ms, self._high_ms = low_ms, high_ms
        self._leapt = False
        self._doubts.clear()
        self._settle()

    def observe_stamp(self, stamp_ms: int) -> None:
        """Take the stamp of a live message just received: the exchange had at least reached it."""
        at_ms = self._local.now_ms() if self._follows_wall else self.monotonic() * SECOND_MS
        bound_ms = stamp_ms - at_ms
        # Nearly all end here: a fresher one came before.
        if self._low_ms is None or bound_ms <= self._low_ms:
            return
        self._look()
        self._widen(at_ms)
        if bound_ms > self._high_ms:
            return
        witness, self._witness = self._witness, (bound_ms, at_ms)
        if witness is not None and at_ms - witness[1] <= WITNESS_MS:
            self._low_ms = max(self._low_ms, min(bound_ms, witness[0]))
            self._witness = max(bound_ms, witness[0]), at_ms
            self._settle()

    def _line_ms(self) -> float:
        """A clock that nobody sets."""
        if self._follows_wall:
            return self._local.now_ms()
        return self.monotonic() * SECOND_MS

    def _look(self) -> tuple[float, int]:
        """The steady line and the wall clock now; notices when they fell apart."""
        at_ms, wall_ms = self._line_ms(), self._local.now_ms()
        if abs(wall_ms - at_ms - self._wall_ms) > JUMP_MS:
            # Looked at again: the program may have stood still between the two.
            at_ms, wall_ms = self._line_ms(), self._local.now_ms()
        leap_ms = wall_ms - at_ms - self._wall_ms
        self._wall_ms += leap_ms
        if abs(leap_ms) > JUMP_MS:
            self.jumps += 1
            self._leapt = True
            if leap_ms > 0:
                self._slept_ms += leap_ms
                self._high_ms += leap_ms
            self._tell()
        return at_ms, wall_ms

    def _widen(self, at_ms: float) -> None:
        """Let the bounds grow by what clocks may have drifted since they were last."""
        drift_ms = (at_ms - self._bounded_at_ms) * DRIFT
        self._bounded_at_ms = at_ms
        if self._low_ms is not None and drift_ms > 0:
            self._low_ms -= drift_ms
            self._high_ms += drift_ms

    def _settle(self) -> None:
        assert self._low_ms is not None
        if not self._low_ms <= self._base_ms <= self._high_ms:
            near_ms = self._base_ms
            sure = self._high_ms - self._low_ms <= UNCERTAIN_MS
            if sure and self._low_ms <= self._wall_ms <= self._high_ms:
                near_ms = self._wall_ms
            self._base_ms = min(max(near_ms, self._low_ms), self._high_ms)
        self._tell()

    def _tell(self) -> None:
        skew_ms = self._base_ms - self._wall_ms
        if self._low_ms is not None and abs(skew_ms - self._told_ms) >= TOLD_SKEW_MS:
            self._told_ms = skew_ms
            if self._on_skew is not None:
                self._on_skew(round(skew_ms))


def told_skew_s(offset_ms: int, *, simulated: bool) -> int:
    """Whole seconds that this machine's clock is slow (fast: negative), where it is worth a word.

    Below two seconds it is not, nor where a simulator or a replay shows another day.
    """
    beyond_words = simulated and abs(offset_ms) >= HOUR_MS
    return 0 if abs(offset_ms) < TOLD_SKEW_MS or beyond_words else round(offset_ms / SECOND_MS)


def epoch_ms(moment: datetime) -> int:
    """Convert to UTC epoch milliseconds, rounding down.

    A naive datetime means local time, as in Python itself.

    Raises:
        InvalidRequestError: a naive time that the local clock skipped (the hole when
            daylight saving time begins): no instant has that name; or one that the local
            clock cannot tell (the first and last day of the calendar, say); or a time zone
            that fails.
    """
    if moment.tzinfo is None:
        # Whole seconds: as a float, the microseconds of far years come back as others.
        whole = moment.replace(microsecond=0)
        try:
            seconds = int(whole.timestamp())
            exists = datetime.fromtimestamp(seconds) == whole
        except (ValueError, OverflowError, OSError) as error:
            raise InvalidRequestError(
                f"local time {moment.isoformat()} is beyond what this machine can tell:"
                " give another time, or an aware datetime"
            ) from error
        if not exists:
            raise InvalidRequestError(
                f"local time {moment.isoformat()} does not exist (the clock was set forward):"
                " give a time that exists, or an aware datetime"
            )
        return seconds * SECOND_MS + moment.microsecond // 1_000
    try:
        delta = moment - _EPOCH
    except Exception as error:  # a zone is a class that anybody may write
        raise InvalidRequestError(
            f"the time zone of {moment.replace(tzinfo=None).isoformat()} does not tell how far it"
            " is from UTC: give the time in another zone, such as datetime.UTC"
        ) from error
    return delta.days * DAY_MS + delta.seconds * SECOND_MS + delta.microseconds // 1_000


def utc_datetime(ms: int) -> datetime:
    """The aware UTC datetime of epoch milliseconds, exact to the millisecond."""
    return _EPOCH + timedelta(0, 0, 0, ms)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
