"""Time: the only module that asks the machine for it.

Inside, a moment is UTC epoch milliseconds (`int`); outside, an aware `datetime` in
UTC. Durations are seconds of the monotonic clock (`float`). Everything that decides
by time takes a `Clock`, so that a test or a simulator supplies its own.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from upbit_backbone.errors import InvalidRequestError

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


class Clock(Protocol):
    """What everything that needs the time is given."""

    def now_ms(self) -> int:
        """Wall time: UTC epoch milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


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


class ExchangeClock:
    """The exchange's wall time, estimated from the stamps it sends.

    Candles close by the exchange's clock, not by this machine's, which may be minutes
    off. Two kinds of evidence bound the difference: an HTTP ``Date`` header (floored to
    the second) bounds it from both sides, the stamp of a live message from below. The
    estimate moves only as far as the bounds force it, so a correct local clock is left
    alone. Until the first evidence the local clock is taken as right.
    """

    def __init__(self, local: Clock) -> None:
        self._local = local
        self._low_ms: int | None = None
        self._high_ms: int | None = None
        self._offset_ms = 0

    @property
    def offset_ms(self) -> int:
        """Exchange time minus local time, milliseconds."""
        return self._offset_ms

    def now_ms(self) -> int:
        return self._local.now_ms() + self._offset_ms

    def monotonic(self) -> float:
        return self._local.monotonic()

    def observe_date(self, date_ms: int, *, sent_ms: int, received_ms: int) -> None:
        """Take the ``Date`` of a response; `sent_ms` and `received_ms` are local wall time."""
        low, high = date_ms - received_ms, date_ms + SECOND_MS - sent_ms
        if self._low_ms is None or self._high_ms is None:
            self._low_ms, self._high_ms = low, high
        elif high < self._low_ms or low > self._high_ms:
            # One of the two clocks was set: what was learned before no longer holds.
            self._low_ms, self._high_ms = low, high
        else:
            self._low_ms, self._high_ms = max(self._low_ms, low), min(self._high_ms, high)
        self._settle()

    def observe_stamp(self, stamp_ms: int, *, received_ms: int) -> None:
        """Take the stamp of a live message: the exchange's clock had at least reached it."""
        low = stamp_ms - received_ms
        if self._high_ms is not None and self._low_ms is not None and low > self._low_ms:
            self._low_ms = min(low, self._high_ms)
            self._settle()

    def _settle(self) -> None:
        assert self._low_ms is not None
        assert self._high_ms is not None
        self._offset_ms = min(max(self._offset_ms, self._low_ms), self._high_ms)


def epoch_ms(moment: datetime) -> int:
    """Convert to UTC epoch milliseconds, rounding down.

    A naive datetime means local time, as in Python itself.

    Raises:
        InvalidRequestError: a naive time that the local clock skipped (the hole when
            daylight saving time begins): no instant has that name; or one that the local
            clock cannot tell (the first and last day of the calendar, say).
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
    delta = moment - _EPOCH
    return delta.days * DAY_MS + delta.seconds * SECOND_MS + delta.microseconds // 1_000


def utc_datetime(ms: int) -> datetime:
    """The aware UTC datetime of epoch milliseconds, exact to the millisecond."""
    return _EPOCH + timedelta(0, 0, 0, ms)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
