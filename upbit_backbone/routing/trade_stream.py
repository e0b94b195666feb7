"""One symbol's trades on their way to its readers: each once, and none lost without a word."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.models import Gap, GapState, Trade
from upbit_backbone.reader import Reader
from upbit_backbone.routing.loss_check import LossCheck

REMEMBERED_MS = 600_000
"""Ids of so much of a symbol's own trades are kept, counted back from its newest one."""
MAX_REMEMBERED = 50_000
OVERLAP_MS = 5_000
"""A fill begins so long before the last trade seen: late trades are real."""
KEPT_AROUND_MS = 10_000
"""Ids so near to a gap are kept as long as it is open."""
REST_LAG_MS = 2_000
"""How far REST may lag behind the stream: what it told is believed up to so long before."""
REOPENED_MS = 300_000
"""Breaks that follow so soon, before the first was read back, are one gap."""
LONGEST_SILENCE_MS = 3_600_000
"""Where nobody traded for so long, the stream told of all trades until a moment ago."""
OUTAGE_TOLD_MS = 5_000
"""Who is told of outages learns of one that lasts so long and is not polled through."""
CLOCKS_APART_MS = 1_500
"""The exchange's time is known to half a second or so: what was live a moment after the stream
was in force again is accepted from REST as well. Ids tell what came both ways."""


class TradeMemory:
    """Which trades of a symbol were met. Bounded in time and in number.

    Time is counted by the trades' own stamps: a market that rests for an hour forgets nothing.
    """

    def __init__(self) -> None:
        self._order: deque[tuple[int, int]] = deque()
        self._ids: set[int] = set()
        self.newest_ms: int | None = None

    def __contains__(self, sequential_id: int) -> bool:
        return sequential_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, sequential_id: int, at_ms: int) -> None:
        """Remember a trade; those that are too old by now are forgotten."""
        if self.newest_ms is None or at_ms > self.newest_ms:
            self.newest_ms = at_ms
        elif at_ms < self.newest_ms - REMEMBERED_MS:
            return
        if sequential_id in self._ids:
            return
        self._ids.add(sequential_id)
        self._order.append((at_ms, sequential_id))
        oldest_ms = self.newest_ms - REMEMBERED_MS
        while self._order[0][0] < oldest_ms or len(self._order) > MAX_REMEMBERED:
            self._ids.discard(self._order.popleft()[1])

    def since(self, at_ms: int) -> dict[int, int]:
        """The ids of the trades from a time on, with their times."""
        return {one: ms for ms, one in self._order if ms >= at_ms}


@dataclass(slots=True, eq=False)
class TradeGap:
    """A time of which trades may be missing, until it is filled or given up."""

    start_ms: int
    """All trades before it were delivered."""
    reason: str
    owed: dict[Reader, int]
    """Readers of all trades that were there, and from which time on they are owed trades."""
    known: dict[int, int]
    """Ids near the gap and their times: kept as long as the gap is open."""
    last_id: int | None
    """The last trade seen before it: what is read back has to reach it."""
    first_id: int | None = None
    """The first new one after it: once REST does not lag any more, it has that, too."""
    until_ms: int | None = None
    """When the stream was surely in force again; None: it is not yet."""
    covered_ms: int = -1
    """Up to when REST was polled meanwhile."""
    broken_ms: int = -1
    """When the stream was lost."""
    lost_from_ms: int = -1
    """From when on the newest break may have lost trades."""
    announced: dict[Reader, tuple[int, ...]] = field(default_factory=dict)
    """Who was told of it, and each time from when on; not yet that it ended. Those told while the
    stream is away get what is read back in order all the same."""
    again: set[Reader] = field(default_factory=set)
    """Of these who does not know that it has grown since."""
    told: bool = False
    """Whether all readers know of it, and go on without what is missing."""
    caught_up: bool = False
    """It was read back once; what is still to come is what REST lagged behind with."""
    found: list[Trade] = field(default_factory=list)
    """Read back, and not delivered yet."""
    trades_found: int = 0
    breaks: int = 1
    """How many breaks followed each other before it was read back."""

    @property
    def since_ms(self) -> int:
        """From when on trades are to be read back."""
        return self.start_ms - OVERLAP_MS

    def near(self, at_ms: int) -> bool:
        """Whether a live trade may come back with the gap's own, by REST."""
        kept_ms = KEPT_AROUND_MS if self.caught_up else REOPENED_MS
        return self.until_ms is None or at_ms <= self.until_ms + kept_ms


class TradeStream:
    """Delivers the trades of one symbol. Plain bookkeeping: the caller passes time and data.

    After a break the live trades of readers of all are held until what was lost is read back,
    or the holding time is over; readers of the latest are never held.
    """

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._readers: dict[Reader, int] = {}
        """And since when each of them reads, exchange time."""
        self._told_of_outages: set[Reader] = set()
        self._memory = TradeMemory()
        self._last_id: int | None = None
        self._delivered_ms = -1
        self._held: list[tuple[Trade, TradeGap | None]] = []
        """Each with the gap that it was found for; None: it came live."""
        self._gaps: list[TradeGap] = []
        self.holding = False
        """Live trades of readers of all wait for what was lost before them."""
        self.check: LossCheck | None = None
        """Adds up what was delivered, where somebody has to get all of it."""
        self.read_back = 0
        """How many trades were found that the stream had lost."""

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def wants_all(self) -> bool:
        """Whether somebody has to get every trade."""
        return any(reader.policy == "all" for reader in self._readers)

    @property
    def newest_ms(self) -> int | None:
        """The stamp of the newest trade met."""
        return self._memory.newest_ms

    @property
    def gaps(self) -> tuple[TradeGap, ...]:
        """Those not filled yet, the oldest first."""
        return tuple(self._gaps)

    @property
    def unbounded(self) -> TradeGap | None:
        """The gap that still grows, because the stream is not in force."""
        return self._gaps[-1] if self._gaps and self._gaps[-1].until_ms is None else None

    def knows(self, trade: Trade) -> bool:
        """Whether a trade was met before."""
        one = trade.sequential_id
        if one in self._memory:
            return True
        return bool(self._gaps) and any(one in gap.known for gap in self._gaps)

    def complete_to_ms(self, now_ms: int) -> int:
        """Up to when all trades were delivered, except for gaps the readers know of."""
        untold = [
            max(gap.start_ms, gap.covered_ms)
            for gap in self._gaps
            # Of one that grows nobody knows how far.
            if not gap.told or gap.until_ms is None
        ]
        # What is held was not delivered, though REST may have been polled beyond it.
        held = (epoch_ms(trade.exchange_time) for trade, _ in self._held)
        return min((now_ms, *untold, *held)) if untold else now_ms

    def add_reader(self, reader: Reader, now_ms: int, *, told_of_outages: bool = False) -> None:
        """From now on it gets trades; of a gap that is open, those since now.

        Args:
            reader: Who gets them.
            now_ms: The exchange's time.
            told_of_outages: Whether a gap is told while the stream is away (`tell_of_outage`).
        """
        self._readers[reader] = now_ms
        if told_of_outages:
            self._told_of_outages.add(reader)
        for gap in self._gaps:
            goes_on = gap.until_ms is None or (now_ms <= gap.until_ms and not gap.told)
            if goes_on and reader.policy == "all":
                gap.owed[reader] = now_ms
                if gap.told:
                    self._tell_open(gap, {reader: now_ms}, now_ms)

    def remove_reader(self, reader: Reader) -> None:
        """It is owed nothing any more."""
        self._readers.pop(reader, None)
        self._told_of_outages.discard(reader)
        for gap in self._gaps:
            gap.owed.pop(reader, None)
            gap.announced.pop(reader, None)
            gap.again.discard(reader)

    # What happens on the stream.

    def live(self, trade: Trade, *, trusted: bool = True) -> bool:
        """Deliver a trade of the stream, or hold it; False when it was met before.

        Args:
            trade: What came.
            trusted: Its stamp is the exchange's own, so that it may order others.
        """
        if self.knows(trade):
            for reader in tuple(self._readers):
                # Nothing new, except for who asks for the latest and was given nothing yet.
                if reader.policy == "latest" and not reader.begun:
                    reader.push(trade)
            return False
        at_ms = epoch_ms(trade.exchange_time)
        newest_ms = self._memory.newest_ms
        if newest_ms is not None and at_ms < newest_ms and not trade.late:
            trade = msgspec.structs.replace(trade, late=True)
        self._remember(trade.sequential_id, at_ms if trusted else newest_ms or at_ms)
        if trusted and self._gaps:
            self._bound(trade, at_ms)
        if self.check is not None:
            self.check.trade(trade)
        holding = self.holding
        for reader in tuple(self._readers):
            if not holding or reader.policy != "all":
                reader.push(trade)
        if holding:
            self._held.append((trade, None))
        elif trusted:
            self._delivered_ms = max(self._delivered_ms, at_ms)
        return True

    def broken(self, now_ms: int, reason: str) -> TradeGap:
        """The stream is gone: from the last trade on, trades may be missing.

        Args:
            now_ms: The exchange's time.
            reason: Why.
        """
        gap = self.unbounded or self._reopened(now_ms)
        if gap is None:
            newest_ms, last_id = self._memory.newest_ms, self._last_id
            if newest_ms is None or newest_ms < now_ms - LONGEST_SILENCE_MS:
                newest_ms, last_id = now_ms, None
            gap = self._new_gap(newest_ms, last_id, reason)
            gap.broken_ms = now_ms
            self._gaps.append(gap)
        gap.reason = reason
        return gap

    def tell_of_outage(self, now_ms: int) -> None:
        """The stream is still away: tell who wants to know, unless trades are polled meanwhile."""
        gap = self.unbounded
        if gap is None or gap.told:
            return
        if now_ms - max(gap.broken_ms, gap.covered_ms) < OUTAGE_TOLD_MS:
            return
        aware = {one: ms for one, ms in gap.owed.items() if one in self._told_of_outages}
        self._tell_open(gap, aware, now_ms)

    def _reopened(self, now_ms: int) -> TradeGap | None:
        """The newest gap, if it was not read back yet: it grows, and its filler goes on."""
        gap = self._gaps[-1] if self._gaps else None
        if gap is None or gap.caught_up or gap.until_ms is None:
            return None
        if now_ms > gap.until_ms + REOPENED_MS:
            return None
        self._grow(gap)
        gap.until_ms = gap.first_id = None
        gap.broken_ms = now_ms
        gap.lost_from_ms = max(gap.start_ms, self._memory.newest_ms or now_ms)
        gap.breaks += 1
        return gap

    @staticmethod
    def _grow(gap: TradeGap) -> None:
        """Of what it lacks from now on its readers do not know, though they know of it."""
        if gap.told:
            gap.again = set(gap.owed)
            gap.told = False

    def _new_gap(self, start_ms: int, last_id: int | None, reason: str) -> TradeGap:
        return TradeGap(
            start_ms=start_ms,
            lost_from_ms=start_ms,
            reason=reason,
            owed={one: since for one, since in self._readers.items() if one.policy == "all"},
            known=self._memory.since(start_ms - KEPT_AROUND_MS),
            last_id=last_id,
        )

    def resumed(self, now_ms: int) -> TradeGap | None:
        """The stream is in force again. Returns the gap to be filled, if anybody is owed it.

        From now on live trades of readers of all are held, until `caught_up` or `release`.
        """
        gap = self.unbounded
        if gap is None:
            return None
        gap.until_ms = max(now_ms, gap.start_ms) + CLOCKS_APART_MS
        if not gap.owed:
            self._gaps.remove(gap)
            return None
        self._grow(gap)  # it was told while the stream was away: how long, nobody knew then
        self.holding = True
        return gap

    def lost(self, from_ms: int, until_ms: int, reason: str) -> TradeGap | None:
        """The stream is in force and lost trades all the same. Returns the gap to be filled.

        Nothing is held: what followed was delivered long ago.
        """
        gap = self._new_gap(from_ms, None, reason)
        gap.until_ms, gap.caught_up = until_ms, True
        if not gap.owed:
            return None
        self._gaps.insert(len(self._gaps) - (self.unbounded is not None), gap)
        return gap

    # What is read back.

    def found(self, gap: TradeGap, page: Iterable[Trade]) -> int:
        """Take trades read back; those not met before are delivered. Returns how many."""
        new = []
        for trade in page:
            at_ms = epoch_ms(trade.exchange_time)
            if at_ms < gap.since_ms or (gap.until_ms is not None and at_ms > gap.until_ms):
                continue
            if not self.knows(trade):
                if self.check is not None:
                    self.check.trade(trade)
                self._remember(trade.sequential_id, at_ms)
                gap.known[trade.sequential_id] = at_ms
                new.append(trade)
        new.sort(key=_order)
        self.read_back += len(new)
        if self.holding and not gap.told and not gap.caught_up and gap.until_ms is not None:
            gap.found.extend(new)
        else:
            self._hand_over(gap, new)
        return len(new)

    def polled(self, gap: TradeGap, asked_ms: int) -> None:
        """While the stream is away: all of the gap up to `asked_ms` was read."""
        if gap.until_ms is not None:
            return
        gap.covered_ms = asked_ms - REST_LAG_MS
        if gap.announced and gap.covered_ms > gap.broken_ms:
            # REST bridges the outage now; should it fail again, that is told again.
            self._tell_end(gap, "closed", gap.covered_ms)
        believed = {one: ms for one, ms in gap.known.items() if ms <= gap.covered_ms}
        if believed:
            # The next reading has to reach the newest of them.
            gap.last_id = max(believed, key=lambda one: (believed[one], one))
            gap.start_ms = max(gap.start_ms, believed[gap.last_id])
            oldest_ms = gap.start_ms - KEPT_AROUND_MS
            gap.known = {one: ms for one, ms in gap.known.items() if ms >= oldest_ms}

    def caught_up(self, gap: TradeGap) -> None:
        """The gap was read back once: what was held may go on, in order."""
        gap.caught_up = True
        if self.holding and not self._awaited:
            self._let_go()

    def release(self) -> None:
        """The holding time is over: readers learn of the gap, and go on without it."""
        if self.holding:
            late = [
                gap
                for gap in self._gaps
                if not gap.caught_up and (gap.until_ms is not None or gap.breaks > 1)
            ]
            for gap in late:
                if not gap.told:
                    self._tell_all(gap)
            self._let_go()
            for gap in late:
                found, gap.found = gap.found, []
                self._hand_over(gap, sorted(found, key=_order))

    def close(self, gap: TradeGap) -> None:
        """Nothing of the gap is missing any more."""
        self._end(gap, "closed")

    def give_up(self, gap: TradeGap, reason: str) -> None:
        """What is missing cannot be had."""
        gap.reason = reason
        if gap in self._gaps and not gap.told:
            self._tell_all(gap)
        self._end(gap, "unfillable")

    @property
    def _awaited(self) -> list[TradeGap]:
        """The gaps for which live trades are held."""
        return [gap for gap in self._gaps if gap.until_ms is not None and not gap.caught_up]

    def _end(self, gap: TradeGap, state: GapState) -> None:
        if gap in self._gaps:
            self.caught_up(gap)
            found, gap.found = gap.found, []
            if gap.told:
                self._hand_over(gap, sorted(found, key=_order))
            else:  # another gap still holds them up
                self._held.extend((trade, gap) for trade in found)
            self._tell_end(gap, state, gap.start_ms if gap.until_ms is None else gap.until_ms)
            self._gaps.remove(gap)

    def _tell_all(self, gap: TradeGap) -> None:
        """Everybody learns of it, and goes on without what is missing."""
        gap.told = True
        self._tell_open(gap, gap.owed, gap.start_ms if gap.until_ms is None else gap.until_ms)

    def _tell_open(self, gap: TradeGap, readers: Mapping[Reader, int], end_ms: int) -> None:
        """Tell who does not know yet of all that it lacks; each time is ended by itself."""
        for reader, from_ms in tuple(readers.items()):
            before = gap.announced.get(reader, ())
            if before and reader not in gap.again:
                continue
            gap.again.discard(reader)
            start_ms = max(gap.lost_from_ms if before else gap.start_ms, from_ms)
            gap.announced[reader] = (*before, start_ms)
            reader.push(self._gap(gap, "open", start_ms, end_ms))

    def _tell_end(self, gap: TradeGap, state: GapState, end_ms: int) -> None:
        """Tell who knows of it that it has ended."""
        announced, gap.announced = gap.announced, {}
        gap.again.clear()
        for reader, starts in announced.items():
            for start_ms in starts:
                reader.push(self._gap(gap, state, start_ms, end_ms))

    def _gap(self, gap: TradeGap, state: GapState, start_ms: int, end_ms: int) -> Gap:
        end = utc_datetime(max(start_ms, end_ms))
        return Gap(self._symbol, state, utc_datetime(start_ms), end, gap.reason)

    def _let_go(self) -> None:
        """End the holding: what was found and what was held goes on, in order."""
        self.holding = False
        held, self._held = self._held, []
        for gap in self._gaps:
            if gap.caught_up:
                held.extend((trade, gap) for trade in gap.found)
                gap.found = []
        held.sort(key=lambda one: _order(one[0]))
        for trade, found_for in held:
            at_ms = epoch_ms(trade.exchange_time)
            marked = self._marked(trade, at_ms)
            if found_for is not None:
                self._pay(found_for, marked, at_ms)
                continue
            for reader in tuple(self._readers):
                if reader.policy == "all":  # the others had it at once
                    reader.push(marked)

    def _hand_over(self, gap: TradeGap, trades: Iterable[Trade]) -> None:
        """Give trades that were read back to whom they are owed."""
        for trade in trades:
            at_ms = epoch_ms(trade.exchange_time)
            marked = self._marked(trade, at_ms)
            self._pay(gap, marked, at_ms)
            if gap.until_ms is None:  # polled: it is the newest there is
                for reader in tuple(self._readers):
                    if reader.policy != "all":
                        reader.push(marked)

    @staticmethod
    def _pay(gap: TradeGap, trade: Trade, at_ms: int) -> None:
        for reader, from_ms in tuple(gap.owed.items()):
            if at_ms >= from_ms:
                reader.push(trade)

    def _marked(self, trade: Trade, at_ms: int) -> Trade:
        """The trade as late as it is for who has read what was delivered so far."""
        late = at_ms < self._delivered_ms
        self._delivered_ms = max(self._delivered_ms, at_ms)
        return trade if trade.late == late else msgspec.structs.replace(trade, late=late)

    def _remember(self, sequential_id: int, at_ms: int) -> None:
        newest_ms = self._memory.newest_ms
        if newest_ms is None or at_ms >= newest_ms:
            self._last_id = sequential_id
        self._memory.add(sequential_id, at_ms)
        for gap in self._gaps:
            if gap.near(at_ms):
                gap.known[sequential_id] = at_ms

    def _bound(self, trade: Trade, at_ms: int) -> None:
        """The first live trade after a gap is what its filling has to reach."""
        for gap in self._gaps:
            if gap.first_id is None and gap.until_ms is not None and not gap.caught_up:
                gap.first_id = trade.sequential_id
                # The clock may have been set back meanwhile.
                gap.until_ms = max(gap.until_ms, at_ms)


def _order(trade: Trade) -> tuple[int, int]:
    return epoch_ms(trade.exchange_time), trade.sequential_id
