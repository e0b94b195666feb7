"""Proof that a live trade stream is complete: the ticker's own sums.

A ticker says what was traded since 00:00 UTC. Between two tickers of one day the trades must
add up to the difference; if they add up to less, trades were lost on the way.

Pure bookkeeping: no clock, no sleep, no I/O; the caller passes the time.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from typing import NamedTuple

import msgspec

from upbit_backbone.clock import DAY_MS, MINUTE_MS, epoch_ms
from upbit_backbone.models import Ticker, Trade

SETTLED_MS = 2_000
"""So long a trade may come later than the ticker that counts it; 0.2 s were recorded."""
LONGEST_PAUSE_MS = 10_000
"""A check that comes later is of a machine that slept: trades may wait to be read."""
FIRST_DISTRUST_MS = 10 * MINUTE_MS
LONGEST_DISTRUST_MS = DAY_MS
MOST_TRADES = 10_000
"""Held between two tickers that agree; beyond, the check starts anew."""
MOST_TICKERS = 5_000
"""Waiting for their 2 s; beyond, the same."""
MOST_UNCLEAR = 100
"""Tickers in a row that neither prove nor disprove anything; then the check starts anew."""
_SMALLEST_VOLUME = 1e-8
"""The exchange writes volumes with eight decimals."""
_ROUNDING_STEPS = 8
"""In units of the last place of the larger sum: two tickers, written and read."""


class Loss(msgspec.Struct, frozen=True):
    """Trades are missing whose stamps lie from `from_ms` to `to_ms`, both inclusive.

    Where two trades had one stamp, one price and one volume and the first was lost, it may lie
    just before `from_ms`; a fill that begins some seconds earlier has it.
    """

    from_ms: int
    to_ms: int
    missing_volume: float
    """In the base asset; of a trade at least so much is missing, or of several together. 0.0:
    nothing is known to be missing, but this time could not be proved (the sums had to begin
    anew after a loss or at the change of the day)."""


class _Counted(NamedTuple):
    """A trade that no proof has used up yet; ordered by stamp, then by id."""

    stamp_ms: int
    sequential_id: int
    volume: float
    price: float


class _Sum(NamedTuple):
    """What a ticker says: up to and with the trade of this stamp, so much was traded today."""

    stamp_ms: int
    volume: float
    price: float
    last_volume: float


class LossCheck:
    """Compares the trades of one symbol with its tickers. Both must be live and confirmed.

    A verdict needs two tickers of one UTC day, the second at least 2 s old: so long trades
    may come late, in any order. A ticker may have been sent between two trades of one
    stamp, so a sum that is too large says nothing; it is proof when the trades up to the
    stamp, or some first ones of those of the very stamp, add up to it.

    Sums start at a ticker that is surely the last word on its stamp: one trade with that stamp
    was received, and the ticker names its volume and price.
    """

    def __init__(self) -> None:
        self._trades: list[_Counted] = []
        """Not used up by a proof, ascending."""
        self._used: frozenset[int] = frozenset()
        """Ids of the base's own stamp that its sum has."""
        self._base: _Sum | None = None
        self._lost_base = False
        """The base's own trade was lost: what is read back of its stamp is in its sum."""
        self._arrived: list[_Sum] = []
        """Tickers since the last check."""
        self._waiting: deque[tuple[int, _Sum]] = deque()
        """Tickers by the time of the check that saw them first."""
        self._newest_ms = -1
        self._checked_ms: int | None = None
        self._unproved_ms: int | None = None
        """Since when the sums have no beginning, though they had one before."""
        self._doubt: Loss | None = None
        """What could not be proved before they began anew; told once."""
        self._unclear = 0
        self._distrust_ms = 0
        self._silent_until_ms: int | None = None
        self.proofs = 0
        """How often trades were proved complete."""
        self.losses = 0
        """How often a loss was claimed."""

    def trade(self, trade: Trade) -> None:
        """Take a live trade, in any order; one that was taken before changes nothing."""
        if self._silent_until_ms is not None:
            return
        stamp_ms = epoch_ms(trade.exchange_time)
        base = self._base
        if base is not None and (
            stamp_ms < base.stamp_ms
            or (stamp_ms == base.stamp_ms and self._has(trade.sequential_id))
        ):
            return
        identity = (stamp_ms, trade.sequential_id)
        place = bisect_left(self._trades, identity)
        if place < len(self._trades) and self._trades[place][:2] == identity:
            return
        self._trades.insert(place, _Counted(*identity, trade.volume, trade.price))
        if len(self._trades) > MOST_TRADES:
            self._restart()

    def _has(self, sequential_id: int) -> bool:
        """Whether the base's sum has a trade of the base's own stamp."""
        return self._lost_base or sequential_id in self._used

    def ticker(self, ticker: Ticker) -> None:
        """Take a live ticker; one that is older than the last, or tells of another day, is
        not used."""
        if self._silent_until_ms is not None:
            return
        stamp_ms = epoch_ms(ticker.trade_time)
        if stamp_ms < self._newest_ms or _day(stamp_ms) != _day(epoch_ms(ticker.exchange_time)):
            return
        if len(self._arrived) + len(self._waiting) >= MOST_TICKERS:
            self._restart()
        self._newest_ms = stamp_ms
        self._arrived.append(_Sum(stamp_ms, ticker.volume_today, ticker.price, ticker.trade_volume))

    def check(self, now_ms: int) -> Loss | None:
        """Judge the tickers that are 2 s old; to be called about once a second.

        Several losses that are found at once are told as one.

        Args:
            now_ms: Milliseconds of any clock that runs steadily; a jump of it only makes the
                tickers wait anew.
        """
        if self._silent_until_ms is not None:
            if now_ms < self._silent_until_ms:
                return None
            self._silent_until_ms = None
        if self._checked_ms is None or not 0 <= now_ms - self._checked_ms <= LONGEST_PAUSE_MS:
            self._waiting = deque((now_ms, sum_) for _, sum_ in self._waiting)
        self._checked_ms = now_ms
        self._waiting.extend((now_ms, sum_) for sum_ in self._arrived)
        self._arrived.clear()
        found: Loss | None = None
        while self._waiting and now_ms - self._waiting[0][0] >= SETTLED_MS:
            loss = self._judge(self._waiting.popleft()[1])
            if loss is not None:
                found = loss if found is None else _joined(found, loss)
        if found is not None:
            self.losses += 1
        doubt, self._doubt = self._doubt, None
        if doubt is not None:
            found = doubt if found is None else _joined(found, doubt)
        return found

    def reset(self) -> None:
        """The stream was interrupted or begins anew: what was taken proves nothing more."""
        self._restart()

    def unfounded(self, now_ms: int) -> None:
        """A claimed loss was looked into, and nothing was missing: the exchange's sums are
        not what they seem. Claims nothing for 10 minutes, twice as long each time, at most
        a day.

        Args:
            now_ms: Of the same clock as `check`.
        """
        self._restart()
        self._distrust_ms = min(max(2 * self._distrust_ms, FIRST_DISTRUST_MS), LONGEST_DISTRUST_MS)
        self._silent_until_ms = now_ms + self._distrust_ms

    def founded(self) -> None:
        """Of a claimed loss trades were found: the sums are to be trusted."""
        self._distrust_ms = 0

    def _restart(self) -> None:
        self._trades.clear()
        self._arrived.clear()
        self._waiting.clear()
        self._base, self._used = None, frozenset()
        self._unproved_ms = self._doubt = None
        self._unclear = 0
        self._newest_ms = -1

    def _judge(self, sum_: _Sum) -> Loss | None:
        base = self._base
        if base is None or _day(base.stamp_ms) != _day(sum_.stamp_ms):
            self._begin_at(sum_)
            return None
        first = bisect_left(self._trades, (sum_.stamp_ms,))
        end = bisect_left(self._trades, (sum_.stamp_ms + 1,))
        before = math.fsum(trade.volume for trade in self._trades[:first])
        traded = sum_.volume - base.volume
        tolerance = _SMALLEST_VOLUME / 2 + _ROUNDING_STEPS * math.ulp(sum_.volume)
        received = before + math.fsum(trade.volume for trade in self._trades[first:end])
        if received < traded - tolerance:
            self._begin_at(sum_)
            if first == end:
                # What was lost bears this very stamp, and nothing else was: go on from here.
                self._base, self._unproved_ms, self._lost_base = sum_, None, True
            return Loss(base.stamp_ms, sum_.stamp_ms, traded - received)
        # From the last one back: as a rule the sum has all trades of its stamp.
        for cut in range(end, first - 1, -1):
            if abs(received - traded) <= tolerance:
                self._proved(sum_, first, cut)
                return None
            if cut > first:
                received -= self._trades[cut - 1].volume
        self._unclear += 1
        if self._unclear >= MOST_UNCLEAR or traded < -tolerance:
            self._begin_at(sum_)
        return None

    def _proved(self, sum_: _Sum, first: int, cut: int) -> None:
        ids = frozenset(trade.sequential_id for trade in self._trades[first:cut])
        base = self._base
        if base is not None and base.stamp_ms == sum_.stamp_ms:
            ids |= self._used
        self._base, self._used, self._lost_base = sum_, ids, False
        del self._trades[:cut]
        self._unclear = 0
        self.proofs += 1

    def _begin_at(self, sum_: _Sum) -> None:
        """Start the sums at a ticker, if it is surely the last word on its stamp."""
        first = bisect_left(self._trades, (sum_.stamp_ms,))
        end = bisect_left(self._trades, (sum_.stamp_ms + 1,))
        same = self._trades[first:end]
        del self._trades[:first]
        if self._base is not None and self._unproved_ms is None:
            self._unproved_ms = self._base.stamp_ms
        self._base, self._used, self._unclear = None, frozenset(), 0
        if len(same) != 1:
            return
        (only,) = same
        if (only.volume, only.price) == (sum_.last_volume, sum_.price):
            self._base, self._used = sum_, frozenset({only.sequential_id})
            self._lost_base = False
            del self._trades[:1]
            since_ms, self._unproved_ms = self._unproved_ms, None
            if since_ms is not None:
                self._doubt = Loss(since_ms, sum_.stamp_ms, 0.0)


def _joined(one: Loss, other: Loss) -> Loss:
    return Loss(
        min(one.from_ms, other.from_ms),
        max(one.to_ms, other.to_ms),
        one.missing_volume + other.missing_volume,
    )


def _day(ms: int) -> int:
    return ms // DAY_MS
